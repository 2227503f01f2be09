# SPDX-License-Identifier: Apache-2.0
"""Python's arguments as the bytes of pageattn_args, or a TypeError or ValueError.

What is checked here is what the library cannot see: Python types, NumPy's byte order and byte
strides, and numbers that a C type cannot hold or that stand for "not given" in C. Shapes, ranges
and the entries of context_lens and block_tables are the library's business.

No array is ever copied or converted: the library gets its address and strides.

The whole of it is quick enough for calls of a few microseconds: a call's types, shapes and strides
are looked up as one, and only addresses and options are put together each time.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy import ndarray

from . import _dlpack, _library

_FLT_MAX = float(np.finfo(np.float32).max)
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1
_FLOAT32 = struct.Struct("=f")  # the native "f" would turn an overflow into infinity

# NumPy compares dtypes with their byte order, so those of the other order are not found here.
_FLOAT_TYPES = {np.dtype(np.float32): _library.F32, np.dtype(np.float16): _library.F16}
_INT32 = np.dtype(np.int32)
# The types of other packages go by their names: the library's name and the bytes of an element.
_EXPORTED_TYPES = {
    "float32": (_library.F32, 4),
    "float16": (_library.F16, 2),
    "bfloat16": (_library.BF16, 2),
    "int32": (_library.I32, 4),
}

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

_NO_SCRATCH = (0, 0)
_NO_TENSOR: tuple[int, ...] = (0, _library.NO_TYPE, 0, 0, 0, 0, 0, 0, 0, 0, 0)
_NUM_TENSORS = 7


# pageattn_args up to its options without addresses, its options, and the addresses of query,
# key_cache, value_cache, context_lens, block_tables, out and lse: what a Context takes.
Call = tuple[bytes, bytes, tuple[int, ...]]


def pack(
    query: Any,
    key_cache: Any,
    value_cache: Any,
    context_lens: Any,
    block_tables: Any,
    out: Any,
    lse: bool,
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
) -> tuple[Call, Any, ndarray[Any, Any] | None, list[object]]:
    """The call, the output, the log-sum-exp, and what must live until the call is over.

    `out` None: allocated, of the query's type. `lse`: whether one is wanted.
    """
    options = _library.pack_options(
        *pack_options(
            attn_scale,
            max_context_len,
            num_splits,
            mask_value,
            attn_logits_soft_cap,
            pages_per_compute_block,
            megacore_mode,
            inline_seq_dim,
            sliding_window,
            numerics,
        ),
        *_NO_SCRATCH,
    )
    owners: list[object] = []
    query_at, query_view = _array("query", query, owners)
    keys_at, keys_view = _array("key_cache", key_cache, owners)
    values_at, values_view = _array("value_cache", value_cache, owners)
    lens_at, lens_view = _array("context_lens", context_lens, owners)
    tables_at, tables_view = _array("block_tables", block_tables, owners)
    out_at, out_view = 0, None
    if out is not None:
        out_at, out_view = _array("out", out, owners, written=True)
    tensors, out_shape, out_dtype = pack_tensors(
        kv_axes(kv_layout),
        query_view,
        keys_view,
        values_view,
        lens_view,
        tables_view,
        out_view,
        lse,
    )
    if out is None:
        out = np.empty(out_shape, _new_dtype(out_dtype))
        out_at = _address(out)
    lse_at = 0
    lse_array = None
    if lse:
        lse_array = np.empty(out_shape[:2], np.float32)
        lse_at = _address(lse_array)
    addresses = (query_at, keys_at, values_at, lens_at, tables_at, out_at, lse_at)
    return (tensors, options, addresses), out, lse_array, owners


def pack_shapes(
    shapes: Iterable[tuple[tuple[int, ...], np.dtype[Any]]],
    kv_layout: Any,
    options: tuple[float, ...],
) -> Call:
    """A call on contiguous arrays that need not exist yet; their addresses are NULL.

    `shapes` are shape and dtype of query, key_cache, value_cache, context_lens and block_tables.
    `options` are what pack_options gives. `out` has the query's type; `lse` is not wanted.
    """
    views = (_new_view(dtype, shape) for shape, dtype in shapes)
    tensors, _, _ = pack_tensors(kv_axes(kv_layout), *views, None, False)
    return tensors, _library.pack_options(*options, *_NO_SCRATCH), (0,) * _NUM_TENSORS


def kv_axes(kv_layout: Any) -> tuple[int, ...]:
    """Which axis of a cache is each of [num_kv_heads, num_pages, page_size, head_dim]."""
    axes: tuple[int, ...] = _code("kv_layout", kv_layout, _KV_LAYOUTS)
    return axes


def pack_options(
    attn_scale: Any,
    max_context_len: Any,
    num_splits: Any,
    mask_value: Any,
    attn_logits_soft_cap: Any,
    pages_per_compute_block: Any,
    megacore_mode: Any,
    inline_seq_dim: Any,
    sliding_window: Any,
    numerics: Any,
) -> tuple[float, ...]:
    """The values of the fields of pageattn_args from attn_scale to inline_seq_dim."""
    return (
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
    )


# ---- arrays ------------------------------------------------------------------------------------

# An array but for its address: its type (NumPy's, or a name), its shape and its strides in bytes.
View = tuple[Any, tuple[int, ...], tuple[int, ...]]


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


def _array(name: str, array: Any, owners: list[object], written: bool = False) -> tuple[int, View]:
    """The address of an array, and the rest of it."""
    if array.__class__ is not ndarray:
        if not isinstance(array, ndarray):
            return _exported(name, array, owners, written)
        _check_subclass(name, array)
    if written and not array.flags.writeable:
        raise ValueError(f"{name} is read-only; the result cannot be written to it")
    return _address(array), (array.dtype, array.shape, array.strides)


def _check_subclass(name: str, array: ndarray[Any, Any]) -> None:
    """Subclasses such as np.memmap are arrays too, but a mask would be ignored."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be ignored; use {name}.filled(...) or "
            f"{name}.data"
        )


def _exported(name: str, array: Any, owners: list[object], written: bool) -> tuple[int, View]:
    exported = _dlpack.read(name, array, written)
    if exported is None:
        raise TypeError(_why_no_array(name, array))
    owners.append(exported.owner)
    return exported.address, (exported.dtype, exported.shape, exported.strides)


def _why_no_array(name: str, array: Any) -> str:
    if any(base.__name__ == "Tracer" for base in type(array).__mro__):
        return (
            f"{name} is a tracer of JAX, which has no memory to read; under jax.jit and the like use "
            "pageattn.jax.page_attention"
        )
    return (
        f"{name} must be a NumPy array, or a tensor that gives its memory through DLPack, not "
        f"{type(array).__name__}; np.asarray({name}) makes an array"
    )


def _element_bytes(dtype: Any) -> int:
    """Of a type that _type_code lets pass."""
    return _EXPORTED_TYPES[dtype][1] if dtype.__class__ is str else dtype.itemsize


@functools.lru_cache(maxsize=512)
def pack_tensors(
    kv_axes: tuple[int, ...],
    query: View,
    key_cache: View,
    value_cache: View,
    context_lens: View,
    block_tables: View,
    out: View | None,
    lse: bool,
) -> tuple[bytes, tuple[int, ...], Any]:
    """pageattn_args up to its options, without addresses; the shape and type of the output.

    Cached: engines repeat few shapes.
    """
    tensors = (
        *_tensor("query", _ROW_AXES, query),
        *_tensor("key_cache", kv_axes, key_cache),
        *_tensor("value_cache", kv_axes, value_cache),
        *_tensor("context_lens", _LENS_AXES, context_lens),
        *_tensor("block_tables", _TABLE_AXES, block_tables),
    )
    query_dtype, query_shape, _ = query
    if out is None:
        out = _new_view(query_dtype, (*query_shape[:2], value_cache[1][3]))
    packed_lse = _NO_TENSOR
    if lse:
        packed_lse = _tensor("lse", _LSE_AXES, _new_view(np.dtype(np.float32), query_shape[:2]))
    packed = _library.pack_tensors(
        ctypes.sizeof(_library.Args), *tensors, *_tensor("out", _ROW_AXES, out), *packed_lse
    )
    return packed, out[1], out[0]


def _tensor(name: str, axes: tuple[int, ...], view: View) -> tuple[int, ...]:
    """The values of a pageattn_tensor, with 0 for its address."""
    dtype, shape, strides = view
    rank = len(axes)
    code = check_type_and_rank(name, dtype, shape, rank)
    elements = _element_strides(name, _element_bytes(dtype), shape, strides)
    padding = (0,) * (_library.MAX_RANK - rank)
    return (
        0,
        code,
        rank,
        *(shape[axis] for axis in axes),
        *padding,
        *(elements[axis] for axis in axes),
        *padding,
    )


def check_type_and_rank(name: str, dtype: Any, shape: tuple[int, ...], rank: int) -> int:
    """The library's name of the type."""
    code = _type_code(name, dtype)
    if len(shape) != rank:
        raise ValueError(f"{name} has {len(shape)} axes, shape {shape}; it must have {rank}")
    return code


def _new_view(dtype: Any, shape: tuple[int, ...]) -> View:
    """What np.empty(shape, dtype) will be."""
    strides = []
    step = _element_bytes(dtype)
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return dtype, shape, tuple(reversed(strides))


def _new_dtype(dtype: Any) -> Any:
    """The NumPy type of a new output; that of bfloat16 is ml_dtypes'."""
    if dtype.__class__ is not str:
        return dtype
    if dtype != "bfloat16":
        return np.dtype(dtype)
    try:
        import ml_dtypes
    except ImportError as error:
        raise TypeError(
            "the result has the query's type bfloat16, and NumPy has that type with the package "
            "ml_dtypes only; install it, or pass out"
        ) from error
    return np.dtype(ml_dtypes.bfloat16)


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


def _type_code(name: str, dtype: Any) -> int:
    """bfloat16, which is not NumPy's own, is known by its name, whichever package registered it."""
    if dtype.__class__ is str:
        return _exported_type_code(name, dtype)
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


def _exported_type_code(name: str, dtype: str) -> int:
    code, _ = _EXPORTED_TYPES.get(dtype, (_library.NO_TYPE, 0))
    if name in ("context_lens", "block_tables"):
        if code != _library.I32:
            raise TypeError(f"{name} has dtype {dtype}, not int32; convert it to int32")
    elif code in (_library.NO_TYPE, _library.I32):
        raise TypeError(
            f"{name} has dtype {dtype}, not float32, float16 or bfloat16; convert it to one of them"
        )
    return code


# ---- numbers -----------------------------------------------------------------------------------


def _integer(name: str, value: Any, minimum: int, maximum: int) -> int:
    if value.__class__ is int and minimum <= value <= maximum:
        return value
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
