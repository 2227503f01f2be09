# SPDX-License-Identifier: Apache-2.0
"""Contexts of the library, and the pool that keeps them between calls.

A context serves one call at a time, so a call takes one out of the pool and puts it back. There is
no lock: list.pop, list.append and dict.setdefault are atomic, with and without the GIL. So a signal
handler or finaliser that calls in while a call is running finds nothing half-done, and neither
does the child of a fork.
"""

from __future__ import annotations

import ctypes
from typing import Any

from ._library import DEFAULT_SPIN_NS, ISA_AUTO, OK, ArgsWriter, ContextOptions, Error, Executor
from ._library import isa_name, library, raise_error

_attend = library.pageattn_attend

# The instruction set, the number of threads, and whose threads: None for a pool of the library's,
# else the addresses of an executor's `parallel_for` and `context`.
Host = tuple[int, int]
Key = tuple[int, int, Host | None]

# Idle contexts kept for one key, and how many keys. A program that exceeds
# them gets right answers, and pays for creating contexts anew.
_MAX_IDLE = 16
_MAX_KEYS = 16


class Context:
    """A pageattn_context with the argument and error structs of its calls."""

    __slots__ = ("key", "_handle", "_write", "_args_address", "_error", "_error_address")

    def __init__(self, key: Key) -> None:
        self.key = key
        self._handle: int | None = None
        args = ArgsWriter()
        self._write = args.write
        self._args_address = args.address
        self._error = Error()
        self._error_address = ctypes.addressof(self._error)
        isa, num_threads, host = key
        options = ContextOptions(
            struct_size=ctypes.sizeof(ContextOptions),
            isa=isa,
            num_threads=num_threads,
            spin_ns=DEFAULT_SPIN_NS,
        )
        if host is not None:
            parallel_for, host_context = host
            executor = Executor(
                struct_size=ctypes.sizeof(Executor),
                context=host_context,
                num_workers=num_threads,
                parallel_for=parallel_for,
            )
            options.num_threads = 0
            options.executor = ctypes.addressof(executor)  # copied by the library
        handle = ctypes.c_void_p()
        status = library.pageattn_context_create(
            ctypes.addressof(options), ctypes.addressof(handle), self._error_address
        )
        if status != OK:
            raise_error(self._error)
        self._handle = handle.value

    def __del__(self, destroy: Any = library.pageattn_context_destroy) -> None:
        destroy(self._handle)  # a default argument, for the globals may be gone at exit

    def attend(self, tensors: bytes, options: bytes, addresses: tuple[int, ...]) -> None:
        """pageattn_attend with what ArgsWriter.write takes; raises on any error."""
        self._write(tensors, options, addresses)
        if _attend(self._handle, self._args_address, self._error_address) != OK:
            raise_error(self._error)

    def check(self, tensors: bytes, options: bytes, addresses: tuple[int, ...]) -> None:
        """Raises what `attend` would raise for these shapes, types and options."""
        self._write(tensors, options, addresses)
        unused = ctypes.c_size_t()
        status = library.pageattn_scratch_bytes(
            self._handle, self._args_address, ctypes.addressof(unused), self._error_address
        )
        if status != OK:
            raise_error(self._error)

    @property
    def isa(self) -> str:
        return isa_name(library.pageattn_context_isa(self._handle))


_idle: dict[Key, list[Context]] = {}


def take(isa: int, num_threads: int, host: Host | None = None) -> Context:
    """A context that nobody else uses until it is given back."""
    key = (isa, num_threads, host)
    try:
        return _idle[key].pop()
    except (KeyError, IndexError):
        return Context(key)


def give_back(context: Context) -> None:
    """Keeps the context for the next call; beyond the bound the last reference destroys it."""
    contexts = _idle.get(context.key)
    if contexts is None:
        if len(_idle) >= _MAX_KEYS:
            _idle.clear()
        contexts = _idle.setdefault(context.key, [])
    if len(contexts) < _MAX_IDLE:
        contexts.append(context)


def isa() -> str:
    """The instruction set that calls use when they name none.

    The environment variable PAGEATTN_ISA decides, else it is the best that works here; ValueError
    if the variable names one that does not.
    """
    context = take(ISA_AUTO, 0)
    try:
        return context.isa
    finally:
        give_back(context)
