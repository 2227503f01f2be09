# SPDX-License-Identifier: Apache-2.0
"""Contexts of the library, and the pool that keeps them between calls.

A context serves one call at a time, so a call takes one out of the pool and puts it back. There is
no lock: list.pop, list.append and dict.setdefault are atomic, with and without the GIL. So a signal
handler or finaliser that calls in while a call is running finds nothing half-done, and neither
does the child of a fork.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from ._library import DEFAULT_SPIN_NS, ISA_AUTO, OK, Args, ContextOptions, Error
from ._library import isa_name, library, pack_args_into, raise_error

_attend = library.pageattn_attend

# Idle contexts kept for one (isa, num_threads), and how many such pairs. A program that exceeds
# them gets right answers, and pays for creating contexts anew.
_MAX_IDLE = 16
_MAX_KEYS = 16


class Context:
    """A pageattn_context with the argument and error structs of its calls."""

    __slots__ = ("key", "_handle", "_args", "_args_address", "_error", "_error_address")

    def __init__(self, key: tuple[int, int]) -> None:
        self.key = key
        self._handle: int | None = None
        self._args = Args()
        self._args_address = ctypes.addressof(self._args)
        self._error = Error()
        self._error_address = ctypes.addressof(self._error)
        isa, num_threads = key
        options = ContextOptions(
            struct_size=ctypes.sizeof(ContextOptions),
            isa=isa,
            num_threads=num_threads,
            spin_ns=DEFAULT_SPIN_NS,
        )
        handle = ctypes.c_void_p()
        status = library.pageattn_context_create(
            ctypes.addressof(options), ctypes.addressof(handle), self._error_address
        )
        if status != OK:
            raise_error(self._error)
        self._handle = handle.value

    def __del__(self, destroy: Any = library.pageattn_context_destroy) -> None:
        destroy(self._handle)  # a default argument, for the globals may be gone at exit

    def attend(self, values: Sequence[float]) -> None:
        """pageattn_attend with the packed values of Args; raises on any error."""
        pack_args_into(self._args, 0, *values)
        if _attend(self._handle, self._args_address, self._error_address) != OK:
            raise_error(self._error)

    @property
    def isa(self) -> str:
        return isa_name(library.pageattn_context_isa(self._handle))


_idle: dict[tuple[int, int], list[Context]] = {}


def take(isa: int, num_threads: int) -> Context:
    """A context that nobody else uses until it is given back."""
    key = (isa, num_threads)
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
