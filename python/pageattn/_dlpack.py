# SPDX-License-Identifier: Apache-2.0
"""Tensors of other packages through DLPack: what they are and where they lie, never a copy.

A capsule is looked into and not taken over. So its own destructor releases the tensor, once, when
the last reference to the capsule goes, and whoever holds the capsule keeps the memory alive.

The structs are those of DLPack 1.x (dlpack.h); tensors of before 1.0 have them without version and
flags.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

_MAJOR_VERSION = 1
_READ_ONLY = 1
_IS_COPIED = 2

# Device types whose memory the CPU addresses: its own, and what CUDA and ROCm pin of it.
_CPU_DEVICES = (1, 3, 11)
_DEVICE_NAMES = {2: "cuda", 4: "opencl", 7: "vulkan", 8: "metal", 10: "rocm", 14: "oneapi"}
_TYPE_KINDS = {0: "int", 1: "uint", 2: "float", 3: "opaque", 4: "bfloat", 5: "complex", 6: "bool"}

_EXPORT_ERRORS = (AttributeError, BufferError, NotImplementedError, RuntimeError, TypeError,
                  ValueError)  # fmt: skip


class SupportsDLPack(Protocol):
    """What tensors of other packages have."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        """The tensor in a capsule."""
        ...

    def __dlpack_device__(self) -> tuple[Any, int]:
        """The type and number of its device."""
        ...


class _Tensor(ctypes.Structure):
    """DLTensor"""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("num_axes", ctypes.c_int32),
        ("type_kind", ctypes.c_uint8),
        ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned"""

    _fields_ = [
        ("major_version", ctypes.c_uint32),
        ("minor_version", ctypes.c_uint32),
        ("manager_context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_capsule_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ("PyCapsule_GetName", ctypes.pythonapi)
)
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class Exported(NamedTuple):
    """A tensor of another package."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes
    address: int
    owner: object  # keeps the memory alive


def read(name: str, producer: Any, written: bool) -> Exported | None:
    """None if `producer` does not know DLPack.

    ValueError if it is not in a CPU's memory, does not export its memory or only a copy of it, or,
    where it is to be written, is not known to be writable.
    """
    export = getattr(producer, "__dlpack__", None)
    device = getattr(producer, "__dlpack_device__", None)
    if export is None or device is None:
        return None
    _check_device(name, producer, device)
    capsule = _export(name, producer, export)
    tensor = _open(name, producer, capsule, written)
    dtype = f"{_TYPE_KINDS.get(tensor.type_kind, f'type {tensor.type_kind}-')}{tensor.type_bits}"
    if tensor.type_lanes != 1:
        dtype += f"x{tensor.type_lanes}"
    shape = tuple(tensor.shape[: tensor.num_axes])
    strides = tuple(tensor.strides[: tensor.num_axes]) if tensor.strides else _compact(shape)
    element_bytes = tensor.type_bits // 8
    return Exported(
        dtype,
        shape,
        tuple(stride * element_bytes for stride in strides),
        (tensor.data or 0) + tensor.byte_offset,
        capsule,
    )


def _check_device(name: str, producer: Any, device: Callable[[], tuple[int, int]]) -> None:
    try:
        device_type, device_id = device()
    except _EXPORT_ERRORS as error:
        raise ValueError(_refusal(name, producer, error)) from error
    if device_type not in _CPU_DEVICES:
        device_name = _DEVICE_NAMES.get(device_type, f"device type {int(device_type)} of DLPack")
        raise ValueError(
            f"{name} ({_type_name(producer)}) is in the memory of {device_name}:{device_id}; "
            "pageattn computes on CPUs and copies nothing: move it to the CPU first"
        )


def _export(name: str, producer: Any, export: Callable[..., object]) -> object:
    try:
        try:
            return export(max_version=(_MAJOR_VERSION, 0), copy=False)
        except TypeError:  # a producer of before DLPack 1.0 knows no keywords
            return export()
    except _EXPORT_ERRORS as error:
        raise ValueError(_refusal(name, producer, error)) from error


def _refusal(name: str, producer: Any, error: Exception) -> str:
    return f"{name} ({_type_name(producer)}) does not give its memory through DLPack: {error}"


def _open(name: str, producer: Any, capsule: object, written: bool) -> _Tensor:
    try:
        capsule_name = _capsule_name(capsule)
    except ValueError:
        capsule_name = None
    if capsule_name == b"dltensor":
        if written:
            raise ValueError(
                f"{name} ({_type_name(producer)}) does not say whether it may be written, as DLPack "
                "before 1.0 cannot; use a NumPy array, or a package that knows DLPack 1.0"
            )
        return _Tensor.from_address(_capsule_pointer(capsule, capsule_name))
    if capsule_name != b"dltensor_versioned":
        raise ValueError(f"{name} ({_type_name(producer)}) gives no DLPack capsule, but {capsule!r}")
    managed = _Versioned.from_address(_capsule_pointer(capsule, capsule_name))
    _check_versioned(name, producer, managed, written)
    tensor: _Tensor = managed.tensor
    return tensor


def _check_versioned(name: str, producer: Any, managed: _Versioned, written: bool) -> None:
    if managed.major_version != _MAJOR_VERSION:
        raise ValueError(
            f"{name} ({_type_name(producer)}) speaks DLPack {managed.major_version}."
            f"{managed.minor_version}; this version of pageattn knows {_MAJOR_VERSION}.x"
        )
    if managed.flags & _IS_COPIED:
        raise ValueError(f"{name} ({_type_name(producer)}) gives a copy of its memory through DLPack")
    if written and managed.flags & _READ_ONLY:
        raise ValueError(f"{name} is read-only; the result cannot be written to it")


def _compact(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements where none are given: the last axis fastest."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _type_name(producer: Any) -> str:
    return f"{type(producer).__module__}.{type(producer).__qualname__}"
