# SPDX-License-Identifier: Apache-2.0
"""page_attention as a JAX function.

What can be known while a program is traced (types, shapes, options) is checked then, by the
library's own checks, and becomes a TypeError or ValueError. The entries of context_lens and
block_tables are checked when the program runs.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, NoReturn, overload

import jax
import jax.core
import numpy as np

from .._arguments import context_key, flag, kv_axes, pack_options, pack_shapes
from .._attention import ISA, KVLayout, MegacoreMode, Numerics
from .._context import give_back, take
from ._target import TARGET

# What pack_options returns, in its order.
_OPTION_TYPES: dict[str, type[np.generic]] = {
    "attn_scale": np.float32,
    "attn_logits_soft_cap": np.float32,
    "mask_value": np.float32,
    "sliding_window": np.int32,
    "max_context_len": np.int64,
    "numerics": np.int32,
    "num_splits": np.int32,
    "pages_per_compute_block": np.int32,
    "megacore_mode": np.int32,
    "inline_seq_dim": np.int32,
}
# pageattn_kv_layout, by the axes of the cache.
_LAYOUT_CODES: dict[tuple[int, ...], int] = {(0, 1, 2, 3): 0, (1, 0, 2, 3): 1, (2, 0, 1, 3): 2}


@overload
def page_attention(
    query: jax.Array,
    key_cache: jax.Array,
    value_cache: jax.Array,
    context_lens: jax.Array,
    block_tables: jax.Array,
    attn_scale: float | None = ...,
    max_context_len: int | None = ...,
    num_splits: int = ...,
    *,
    mask_value: float = ...,
    attn_logits_soft_cap: float | None = ...,
    pages_per_compute_block: int | None = ...,
    megacore_mode: MegacoreMode | None = ...,
    inline_seq_dim: bool = ...,
    sliding_window: int | None = ...,
    kv_layout: KVLayout = ...,
    return_lse: Literal[False] = ...,
    num_threads: int | None = ...,
    isa: ISA | None = ...,
    numerics: Numerics = ...,
) -> jax.Array: ...


@overload
def page_attention(
    query: jax.Array,
    key_cache: jax.Array,
    value_cache: jax.Array,
    context_lens: jax.Array,
    block_tables: jax.Array,
    attn_scale: float | None = ...,
    max_context_len: int | None = ...,
    num_splits: int = ...,
    *,
    mask_value: float = ...,
    attn_logits_soft_cap: float | None = ...,
    pages_per_compute_block: int | None = ...,
    megacore_mode: MegacoreMode | None = ...,
    inline_seq_dim: bool = ...,
    sliding_window: int | None = ...,
    kv_layout: KVLayout = ...,
    return_lse: Literal[True],
    num_threads: int | None = ...,
    isa: ISA | None = ...,
    numerics: Numerics = ...,
) -> tuple[jax.Array, jax.Array]: ...


def page_attention(
    query: jax.Array,
    key_cache: jax.Array,
    value_cache: jax.Array,
    context_lens: jax.Array,
    block_tables: jax.Array,
    attn_scale: float | None = None,
    max_context_len: int | None = None,
    num_splits: int = 0,
    *,
    mask_value: float = -2.381976426469702e38,
    attn_logits_soft_cap: float | None = None,
    pages_per_compute_block: int | None = None,
    megacore_mode: MegacoreMode | None = None,
    inline_seq_dim: bool = True,
    sliding_window: int | None = None,
    kv_layout: KVLayout = "HND_pages",
    return_lse: bool = False,
    num_threads: int | None = None,
    isa: ISA | None = None,
    numerics: Numerics = "exact",
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Paged grouped-query attention: one query token a sequence over its paged keys and values.

    pageattn.page_attention over JAX arrays: the arguments have the same names, shapes, dtypes and
    meanings, and the result has the same bits, eagerly, under jax.jit, and under jax.vmap. What is
    different:

    query, key_cache, value_cache, context_lens, block_tables : jax.Array, on CPU devices
        NumPy arrays are refused, because turning them into JAX arrays may copy them; jnp.asarray
        does it once.
    out : there is none, for JAX arrays are not written; the result has the query's dtype
    num_threads : in [1, 4096], the most threads that work on a call. None: all of XLA's thread
        pool, on which the work runs; PAGEATTN_NUM_THREADS has no effect on it
    all options : static. They are Python values, known when the program is traced; under jax.jit
        they are closed over or named in static_argnames.

    Returns
    -------
    out : [num_seqs, num_heads, value_head_dim], the query's dtype; or, with return_lse, (out, lse)
        with lse the float32 [num_seqs, num_heads] log-sum-exp

    Raises
    ------
    TypeError
        An argument that is no jax.Array, has another dtype, or is an option whose value is not
        known while tracing; caches of two dtypes.
    ValueError
        A wrong rank, shape, range or name; an array on a device that is no CPU; an instruction set
        that this CPU lacks.
    jax.errors.JaxRuntimeError, or ValueError where JAX ran the program in the background
        An entry of context_lens or block_tables that is out of range, or no memory. It is found when
        the program runs, so JAX may raise it as late as in block_until_ready. The message is the
        library's, after XLA's name of the error, and no memory outside the arrays has been touched.
        A program compiled for another kind of device fails too: XLA knows no handler named
        pageattn_page_attention there.
    NotImplementedError
        A derivative is asked for. There is none.

    Notes
    -----
    jax.vmap over any of the arrays, also nested: an array that the batch shares is neither copied
    nor repeated. One that is batched along another axis than its first, JAX transposes first, which
    copies it. Where the batch shares the caches and nothing else, it is one call with that many
    more sequences; else its entries are computed one after the other, each on all threads.

    jax.shard_map over heads: split query along its axis 1 and the caches along that of their KV
    heads, and give each shard all context_lens and block_tables. With arrays that are sharded
    otherwise, jax.jit gathers them first, and so copies them.

    Arrays are read where they lie. A cache that jax.jit has laid out with other strides is copied
    by XLA; caches that come as arguments, or from indexed updates of these, are not.

    May be called from several threads at once; the GIL is not held while it computes. It has not
    been tried on a free-threaded Python.
    """
    arrays = (query, key_cache, value_cache, context_lens, block_tables)
    for name, array in zip(_ARRAYS, arrays):
        _check_array(name, array)
    options = (
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
        kv_layout,
        return_lse,
        num_threads,
        isa,
    )
    call = _prepare(tuple((array.shape, array.dtype) for array in arrays), options)
    results: tuple[Any, ...] = _attend(*arrays, call)
    return (results[0], results[1]) if call.return_lse else results[0]


_ARRAYS = ("query", "key_cache", "value_cache", "context_lens", "block_tables")
_OPTIONS = (  # first the arguments of pack_options, in its order
    "attn_scale",
    "max_context_len",
    "num_splits",
    "mask_value",
    "attn_logits_soft_cap",
    "pages_per_compute_block",
    "megacore_mode",
    "inline_seq_dim",
    "sliding_window",
    "numerics",
    "kv_layout",
    "return_lse",
    "num_threads",
    "isa",
)


# ---- what is known while tracing -----------------------------------------------------------------


class _Call(NamedTuple):
    """The static part of a call: what the handler gets beside the arrays."""

    attributes: tuple[tuple[str, np.generic], ...]
    return_lse: bool


def _check_array(name: str, array: Any) -> None:
    if not isinstance(array, jax.Array):
        raise TypeError(
            f"{name} must be a jax.Array, not {type(array).__name__}; jax.numpy.asarray({name}) makes "
            "one"
        )
    if not isinstance(array.dtype, np.dtype):
        raise TypeError(f"{name} has dtype {array.dtype}, whose elements are no numbers")
    if not isinstance(array, jax.core.Tracer):
        _check_devices(name, array.sharding)


@functools.lru_cache(maxsize=64)
def _check_devices(name: str, sharding: jax.sharding.Sharding) -> None:
    devices: set[Any] = sharding.device_set
    for device in devices:
        if device.platform != "cpu":
            raise ValueError(
                f"{name} is on {device}, and pageattn computes on CPUs; "
                f"jax.device_put({name}, jax.devices('cpu')[0]) copies it to one"
            )


_Shapes = tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]


def _prepare(shapes: _Shapes, options: tuple[Any, ...]) -> _Call:
    try:
        return _prepare_once(shapes, *options)
    except TypeError:  # a wrong type; or one that cannot be a key of the cache, as np.array(3)
        pass
    for name, value in zip(_OPTIONS, options):
        if isinstance(value, jax.Array):
            _refuse_array(name, value)
    return _prepare_anew(shapes, *options)


def _refuse_array(name: str, value: jax.Array) -> NoReturn:
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} is traced, and must be known before the program runs: pass a Python value, and "
            f"where {name} is an argument of a function under jax.jit, name it in static_argnames"
        )
    raise TypeError(
        f"{name} must be a Python value, not a jax.Array; {name}.item() is the value of one"
    )


def _prepare_anew(shapes: _Shapes, *options: Any) -> _Call:
    *numbers, kv_layout, return_lse, num_threads, isa = options
    want_lse = flag("return_lse", return_lse)
    isa_code, threads = context_key(isa, num_threads)
    values = pack_options(*numbers)
    context = take(isa_code, 1)
    try:
        context.check(*pack_shapes(shapes, kv_layout, values))
    finally:
        give_back(context)
    attributes = {
        name: ctype(value) for (name, ctype), value in zip(_OPTION_TYPES.items(), values, strict=True)
    }
    attributes["isa"] = np.int32(isa_code)
    attributes["kv_layout"] = np.int32(_LAYOUT_CODES[kv_axes(kv_layout)])
    attributes["num_threads"] = np.int32(threads)
    return _Call(tuple(attributes.items()), want_lse)


# Typed, so that True is not taken for a 1 that was right.
_prepare_once = functools.lru_cache(maxsize=512, typed=True)(_prepare_anew)


# ---- what runs -----------------------------------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(5,))
def _attend_traced(
    query: jax.Array,
    key_cache: jax.Array,
    value_cache: jax.Array,
    context_lens: jax.Array,
    block_tables: jax.Array,
    call: _Call,
) -> tuple[jax.Array, ...]:
    arrays = _vary_alike((query, key_cache, value_cache, context_lens, block_tables))
    out_shape = (*query.shape[:2], value_cache.shape[3])
    kind = jax.typeof(arrays[0])
    kind = kind.update(weak_type=False, sharding=kind.sharding.update(spec=jax.P()))
    results = [kind.update(shape=out_shape)]
    if call.return_lse:
        results.append(kind.update(shape=out_shape[:2], dtype=np.float32))
    attend = jax.ffi.ffi_call(TARGET, tuple(results), vmap_method="expand_dims")
    return tuple(attend(*arrays, **dict(call.attributes)))


def _vary_alike(arrays: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Under jax.shard_map a call's arrays must all say that they vary over the same mesh axes."""
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    union = frozenset[Any]().union(*axes)
    return [
        jax.lax.pcast(array, tuple(union - own), to="varying") if union - own else array
        for array, own in zip(arrays, axes)
    ]


@_attend_traced.defjvp
def _refuse_derivative(call: _Call, primals: Any, tangents: Any) -> NoReturn:
    raise NotImplementedError(
        "pageattn.jax.page_attention has no derivative: it computes single tokens over a cache, "
        "for inference; where no gradient is meant to flow through it, use jax.lax.stop_gradient on "
        "its arguments"
    )


# Compiled also where its caller is not: the axes that vmap adds then cost no copy.
_attend = jax.jit(_attend_traced, static_argnums=5)
