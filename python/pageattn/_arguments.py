# SPDX-License-Identifier: Apache-2.0
"""Python's arguments as the flat values of pageattn_args, or a TypeError or ValueError.

What is checked here is what the library cannot see: Python types, NumPy's byte order and byte
strides, and numbers that a C type cannot hold or that stand for "not given" in C. Shapes, ranges
and the entries of context_lens and block_tables are the library's business.

No array is ever copied or converted: the library gets its address and strides.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import struct
from typing import Any, NoReturn

import numpy as np
from numpy import ndarray

from . import _library

_ARGS_BYTES = ctypes.sizeof(_library.Args)
_FLT_MAX = float(np.finfo(np.float32).max)
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1
_FLOAT32 = struct.Struct("=f")  # the native "f" would turn an overflow into infinity

# NumPy compares dtypes with their byte order, so those of the other order are not found here.
_FLOAT_TYPES = {np.dtype(np.float32): _library.F32, np.dtype(np.float16): _library.F16}
_INT32 = np.dtype(np.int32)

# Which axis of the array is each axis of the library's tensor.
_ROW_AXES = (0, 1, 2)  # query, out
_LSE_AXES = (0, 1)
_LENS_AXES = (0,)
_TABLE_AXES = (0, 1)
_KV_LAYOUTS = {
    "HND_pages": (0, 1, 2, 3),
    "pages_HND": (1, 0, 2, 3),
    "pages_NHD": (2, 0, 1, 3),
    "HND": (1, 0, 2, 3),
    "NHD": (2, 0, 1, 3),
}
_ISAS: dict[Any, int] = {None: _library.ISA_AUTO, **_library.ISAS}

_NO_TENSOR: tuple[int, ...] = (0, _library.NO_TYPE, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def pack(
    query: Any,
    key_cache: Any,
    value_cache: Any,
    context_lens: Any,
    block_tables: Any,
    out: Any,
    lse: Any,
    attn_scale: Any,
    max_context_len: Any,
    num_splits: Any,
    mask_value: Any,
    attn_logits_soft_cap: Any,
    pages_per_compute_block: Any,
    megacore_mode: Any,
    inline_seq_dim: Any,
    sliding_window: Any,
    kv_layout: Any,
    numerics: Any,
) -> tuple[tuple[float, ...], ndarray[Any, Any], ndarray[Any, Any] | None]:
    """The values of pageattn_args, the output, and the log-sum-exp.

    `out` None: allocated, of the query's type. `lse` True: allocated; False: not wanted.
    """
    axes = _code("kv_layout", kv_layout, _KV_LAYOUTS)
    tensors = (
        *_tensor("query", _ROW_AXES, query),
        *_tensor("key_cache", axes, key_cache),
        *_tensor("value_cache", axes, value_cache),
        *_tensor("context_lens", _LENS_AXES, context_lens),
        *_tensor("block_tables", _TABLE_AXES, block_tables),
    )
    options = (
        _attn_scale(attn_scale),
        _soft_cap(attn_logits_soft_cap),
        _mask_value(mask_value),
        _optional_integer("sliding_window", sliding_window, 1, _INT32_MAX, 0),
        _optional_integer("max_context_len", max_context_len, 0, _INT64_MAX, -1),
        _code("numerics", numerics, _library.NUMERICS),
        _integer("num_splits", num_splits, 0, _INT32_MAX),
        _optional_integer("pages_per_compute_block", pages_per_compute_block, 1, _INT32_MAX, 0),
        _code("megacore_mode", megacore_mode, _library.MEGACORE_MODES),
        flag("inline_seq_dim", inline_seq_dim),
        0,
        0,
    )
    if out is None:
        out = np.empty((*query.shape[:2], value_cache.shape[3]), query.dtype)
        packed_out = _tensor("out", _ROW_AXES, out)
    else:
        packed_out = _tensor("out", _ROW_AXES, out)
        if not out.flags.writeable:
            raise ValueError("out is read-only; the result cannot be written to it")
    packed_lse = _NO_TENSOR
    lse_array = None
    if lse:
        lse_array = np.empty(query.shape[:2], np.float32)
        packed_lse = _tensor("lse", _LSE_AXES, lse_array)
    return (_ARGS_BYTES, *tensors, *packed_out, *packed_lse, *options), out, lse_array


# ---- arrays ------------------------------------------------------------------------------------


class _ArrayInterface(ctypes.Structure):
    """NumPy's PyArrayInterface, which __array_struct__ holds."""

    _fields_ = [
        ("two", ctypes.c_int),
        ("nd", ctypes.c_int),
        ("typekind", ctypes.c_char),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("descr", ctypes.c_void_p),
    ]


_interface_at = _ArrayInterface.from_address
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _address(array: ndarray[Any, Any]) -> int:
    """array.ctypes.data, in less than half of its time; there are six or seven in a call."""
    capsule = array.__array_struct__  # owns what the pointer points to
    return _interface_at(_capsule_pointer(capsule, None)).data or 0


def _tensor(name: str, axes: tuple[int, ...], array: Any) -> tuple[int, ...]:
    """The values of a pageattn_tensor."""
    if array.__class__ is not ndarray:
        _check_array(name, array)
    return _address(array), *_view(name, axes, array.dtype, array.shape, array.strides)


@functools.lru_cache(maxsize=512)
def _view(
    name: str,
    axes: tuple[int, ...],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> tuple[int, ...]:
    """What follows the address in a pageattn_tensor. Cached: engines repeat few shapes."""
    code = _type_code(name, dtype)
    rank = len(axes)
    if len(shape) != rank:
        raise ValueError(f"{name} has {len(shape)} axes, shape {shape}; it must have {rank}")
    elements = _element_strides(name, dtype.itemsize, shape, strides)
    padding = (0,) * (_library.MAX_RANK - rank)
    return (
        code,
        rank,
        *(shape[axis] for axis in axes),
        *padding,
        *(elements[axis] for axis in axes),
        *padding,
    )


def _element_strides(
    name: str, itemsize: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> list[int]:
    elements = [stride // itemsize for stride in strides]
    for axis, stride in enumerate(strides):
        # An axis of size 1 or less is never stepped along.
        if stride % itemsize != 0 and shape[axis] > 1:
            raise ValueError(
                f"{name} has a stride of {stride} bytes along axis {axis}, which is no multiple of its "
                f"element's {itemsize} bytes; np.ascontiguousarray({name}) makes a copy that can be "
                "read"
            )
    return elements


def _check_array(name: str, array: Any) -> None:
    """Subclasses such as np.memmap are arrays too, but a mask would be ignored."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be ignored; use {name}.filled(...) or "
            f"{name}.data"
        )
    if not isinstance(array, ndarray):
        raise TypeError(
            f"{name} must be a NumPy array, not {type(array).__name__}; np.asarray({name}) makes one"
        )


def _type_code(name: str, dtype: np.dtype[Any]) -> int:
    """bfloat16, which is not NumPy's own, is known by its name, whichever package registered it."""
    if name in ("context_lens", "block_tables"):
        if dtype != _INT32:
            raise TypeError(f"{name} has dtype {dtype}, not int32; use {name}.astype(np.int32)")
        return _library.I32
    if dtype in _FLOAT_TYPES:
        return _FLOAT_TYPES[dtype]
    if not dtype.isnative:
        raise TypeError(
            f"{name} has dtype {dtype.str}, which is not the byte order of this machine; use "
            f"{name}.astype({name}.dtype.newbyteorder('='))"
        )
    if dtype.name != "bfloat16" or dtype.itemsize != 2:
        raise TypeError(
            f"{name} has dtype {dtype}, not float32, float16 or bfloat16 (of ml_dtypes); use "
            f"{name}.astype(np.float32), for one"
        )
    return _library.BF16


# ---- numbers -----------------------------------------------------------------------------------


def _integer(name: str, value: Any, minimum: int, maximum: int) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None
    if not minimum <= number <= maximum:
        raise ValueError(f"{name} = {number} is outside [{minimum}, {maximum}]")
    return number


def _optional_integer(name: str, value: Any, minimum: int, maximum: int, absent: int) -> int:
    """As _integer, or `absent`, which is outside the range, for None."""
    if value is None:
        return absent
    try:
        return _integer(name, value, minimum, maximum)
    except ValueError as error:
        raise ValueError(f"{error}; None leaves it out") from None


def _float(name: str, value: Any) -> float:
    if value.__class__ is float:
        return value
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} = {value} does not fit a float32") from None


def _float32(name: str, value: float) -> float:
    """The value as the library gets it, rounded to float32."""
    try:
        return float(_FLOAT32.unpack(_FLOAT32.pack(value))[0])
    except OverflowError:
        raise ValueError(f"{name} = {value!r} does not fit a float32") from None


def _attn_scale(attn_scale: Any) -> float:
    if attn_scale is None:
        return _library.DEFAULT_ATTN_SCALE
    scale = _float32("attn_scale", _float("attn_scale", attn_scale))
    if scale == _FLT_MAX:
        raise ValueError(
            f"attn_scale = {attn_scale!r} is the largest float32, which stands for the default in the "
            "library; use a smaller scale, or None for 1 / sqrt(head_dim)"
        )
    return scale


def _soft_cap(attn_logits_soft_cap: Any) -> float:
    if attn_logits_soft_cap is None:
        return 0.0
    cap = _float32("attn_logits_soft_cap", _float("attn_logits_soft_cap", attn_logits_soft_cap))
    if cap == 0.0:
        raise ValueError(
            f"attn_logits_soft_cap = {attn_logits_soft_cap!r} is 0 as a float32; it must be above 0, or "
            "None for no soft cap"
        )
    return cap


def _mask_value(mask_value: Any) -> float:
    value = _float("mask_value", mask_value)
    if -_FLT_MAX <= value <= 0.0:
        return value
    if value < -_FLT_MAX:
        return float("-inf")  # a hard mask either way
    return _float32("mask_value", value)


# ---- names and flags ---------------------------------------------------------------------------


def context_key(isa: Any, num_threads: Any) -> tuple[int, int]:
    """What a context is made for; None stands for the default of each."""
    return (
        _code("isa", isa, _ISAS),
        _optional_integer("num_threads", num_threads, 1, _library.MAX_THREADS, 0),
    )


def _code(argument: str, value: Any, codes: dict[Any, Any]) -> Any:
    if (value is None or isinstance(value, str)) and value in codes:
        return codes[value]
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{argument} = {value!r} is not one of {', '.join(map(repr, codes))}")


def flag(name: str, value: Any) -> bool:
    """Python's and NumPy's own booleans only: a 0 or a string would hide a mistake."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"{name} must be True or False, not {value!r}")
