# SPDX-License-Identifier: Apache-2.0
"""The two calls: page_attention, and reference, which defines it."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from ._arguments import context_key, flag, pack
from ._context import give_back, take
from ._dlpack import SupportsDLPack
from ._library import OK, ArgsWriter, Error, library, raise_error

if TYPE_CHECKING:
    from typing_extensions import Unpack

Array = NDArray[Any] | SupportsDLPack
OutT = TypeVar("OutT", bound=Array)

KVLayout = Literal["HND_pages", "pages_HND", "pages_NHD", "HND", "NHD"]
MegacoreMode = Literal["kv_head", "batch"]
ISA = Literal["scalar", "avx2", "avx512", "neon"]
Numerics = Literal["exact", "fast"]


class Options(TypedDict, total=False):
    """The keywords of page_attention that do not change what it returns."""

    mask_value: float
    attn_logits_soft_cap: float | None
    pages_per_compute_block: int | None
    megacore_mode: MegacoreMode | None
    inline_seq_dim: bool
    sliding_window: int | None
    kv_layout: KVLayout
    num_threads: int | None
    isa: ISA | None
    numerics: Numerics


@overload
def page_attention(
    query: Array,
    key_cache: Array,
    value_cache: Array,
    context_lens: Array,
    block_tables: Array,
    attn_scale: float | None = ...,
    max_context_len: int | None = ...,
    num_splits: int = ...,
    *,
    out: None = ...,
    return_lse: Literal[False] = ...,
    **options: Unpack[Options],
) -> NDArray[Any]: ...


@overload
def page_attention(
    query: Array,
    key_cache: Array,
    value_cache: Array,
    context_lens: Array,
    block_tables: Array,
    attn_scale: float | None = ...,
    max_context_len: int | None = ...,
    num_splits: int = ...,
    *,
    out: OutT,
    return_lse: Literal[False] = ...,
    **options: Unpack[Options],
) -> OutT: ...


@overload
def page_attention(
    query: Array,
    key_cache: Array,
    value_cache: Array,
    context_lens: Array,
    block_tables: Array,
    attn_scale: float | None = ...,
    max_context_len: int | None = ...,
    num_splits: int = ...,
    *,
    out: None = ...,
    return_lse: Literal[True],
    **options: Unpack[Options],
) -> tuple[NDArray[Any], NDArray[np.float32]]: ...


@overload
def page_attention(
    query: Array,
    key_cache: Array,
    value_cache: Array,
    context_lens: Array,
    block_tables: Array,
    attn_scale: float | None = ...,
    max_context_len: int | None = ...,
    num_splits: int = ...,
    *,
    out: OutT,
    return_lse: Literal[True],
    **options: Unpack[Options],
) -> tuple[OutT, NDArray[np.float32]]: ...


def page_attention(
    query: Array,
    key_cache: Array,
    value_cache: Array,
    context_lens: Array,
    block_tables: Array,
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
    out: Array | None = None,
    return_lse: bool = False,
    num_threads: int | None = None,
    isa: ISA | None = None,
    numerics: Numerics = "exact",
) -> Array | tuple[Array, NDArray[np.float32]]:
    """Paged grouped-query attention: one query token a sequence over its paged keys and values.

        logit[t] = attn_scale * dot(query[s, h], key[t])
        logit[t] = cap * tanh(logit[t] / cap)               with attn_logits_soft_cap
        logit[t] = logit[t] + mask_value                    for tokens before sliding_window
        out[s, h] = sum over t of softmax(logit)[t] * value[t]

    Query head h reads KV head h // (num_heads // num_kv_heads). Token t of sequence s is slot
    t % page_size of page block_tables[s, t // page_size], for 0 <= t < context_lens[s].

    The same inputs give the same bits, whatever the instruction set, the number of threads, the
    splitting, the page size, the layout, the strides, the other sequences of the batch, and the
    content of slots and table entries that no sequence uses.

    Arrays are NumPy arrays, or any tensors in a CPU's memory that give it through DLPack
    (__dlpack__), such as those of torch and JAX: these are read where they lie, too.

    Parameters
    ----------
    query : [num_seqs, num_heads, head_dim], float32, float16 or bfloat16 (ml_dtypes)
    key_cache : [num_kv_heads, num_pages, page_size, head_dim], or as kv_layout says; float32,
        float16 or bfloat16, not necessarily the query's
    value_cache : as key_cache, of the same dtype; its head_dim may differ
    context_lens : int32 [num_seqs], each in [0, max_blocks * page_size]
        Tokens in each sequence, the current one included. 0 gives a row of zeros.
    block_tables : int32 [num_seqs, max_blocks]
        The page of each page_size tokens. Entries that a sequence needs are in [0, num_pages);
        those past its length, or before the window under a hard mask, are never looked at.
    attn_scale : finite, less than the largest float32. None: 1 / sqrt(head_dim)
    max_context_len : >= 0, an upper bound of context_lens that sizes working memory; a longer
        sequence is an error. None: max_blocks * page_size
    num_splits : in [0, 2**31), the pieces that a context is cut into for parallel work; 0: the
        library decides. Never changes the bits.
    mask_value : <= 0, may be -inf; added to the logits of tokens before the sliding window. At or
        below -1e9 these tokens are excluded exactly and never read; above it, the mask is soft.
    attn_logits_soft_cap : > 0 and finite. None: no soft cap
    pages_per_compute_block : in [1, 2**31), the smallest unit of work, in pages. None: the library
        decides. Never changes the bits.
    megacore_mode : None, or "kv_head" or "batch": each half of the workers owns half of the KV
        heads or of the sequences, whose number must be even. Never changes the bits.
    inline_seq_dim : True: all sequences in one parallel launch. False: one launch for each, with
        working memory for one. Never changes the bits.
    sliding_window : in [1, 2**31), attend to the last tokens only. None: to all
    kv_layout : the axes of key_cache and value_cache
        "HND_pages": [num_kv_heads, num_pages, page_size, head_dim]
        "pages_HND" or "HND": [num_pages, num_kv_heads, page_size, head_dim]
        "pages_NHD" or "NHD": [num_pages, page_size, num_kv_heads, head_dim]
    out : [num_seqs, num_heads, value_head_dim], writable; float32, float16 or bfloat16
        Receives the result and is returned. Its memory must not overlap that of an input; inputs
        may overlap each other. A tensor of another package must say through DLPack that it may be
        written, which takes DLPack 1.0: torch's do, JAX's never may be. None: a new NumPy array of
        the query's dtype, which for a bfloat16 tensor of another package takes ml_dtypes
    return_lse : True: return (out, lse) with lse the float32 [num_seqs, num_heads] natural
        logarithm of the sum of exp(logit); -inf where nothing is attended to
    num_threads : in [1, 4096], the calling one included. None: the CPUs that this process may use;
        the environment variable PAGEATTN_NUM_THREADS lowers it
    isa : "scalar", "avx2", "avx512" or "neon"; isas() lists those that work here. None: that of the
        environment variable PAGEATTN_ISA, else the best. Both variables count at the first call;
        setting them later has no certain effect.
    numerics : "exact": the same bits on every CPU. "fast": with bfloat16 caches, on the instruction
        set avx512 of a CPU that has AVX-512 BF16, the query and the weights are rounded to bfloat16,
        which costs an error of at most 2**-8 of the largest value for a bfloat16 query and somewhat
        more for others (docs/numerics.md); everywhere else it gives the bits of "exact". Either way
        the bits do not depend on threads, splitting, pages or the rest of the batch.

    Returns
    -------
    out, or (out, lse) with return_lse. A NaN is always the positive quiet NaN without payload.

    Raises
    ------
    TypeError
        An argument of the wrong kind: neither a NumPy array nor a tensor with DLPack, a tracer of
        JAX, another dtype or byte order, caches of two dtypes, a bool where a number is wanted.
        Nothing is converted silently.
    ValueError
        A wrong rank, shape, stride, range or name, an entry of context_lens or block_tables that is
        out of range, an `out` that is read-only or overlaps an input, an instruction set that this
        CPU lacks. A tensor of another package that is not in a CPU's memory, or that does not give
        its memory, as one of torch that requires a gradient: its detach() does.
    MemoryError, RuntimeError
        Out of memory; a thread could not be started; context_lens or block_tables changed to values
        out of range during the call.

    Whenever it raises, `out` is as it was, except after a change during the call.

    Notes
    -----
    Arrays are read through their strides and never copied; only the head_dim axis must be
    contiguous. May be called from several threads at once; the GIL is released while it computes,
    and no array of the call may be written meanwhile: that leads to no harm outside `out`, but to a
    result without meaning. Works in the child of a fork.
    """
    want_lse = flag("return_lse", return_lse)
    key = context_key(isa, num_threads)
    # The owners must stay referred to until the call is over.
    call, result, lse, _owners = pack(
        query,
        key_cache,
        value_cache,
        context_lens,
        block_tables,
        out,
        want_lse,
        attn_scale,
        max_context_len,
        num_splits,
        mask_value,
        attn_logits_soft_cap,
        pages_per_compute_block,
        megacore_mode,
        inline_seq_dim,
        sliding_window,
        kv_layout,
        numerics,
    )
    context = take(*key)
    try:
        context.attend(*call)
    finally:
        give_back(context)
    return result if lse is None else (result, lse)


def reference(
    query: Array,
    key_cache: Array,
    value_cache: Array,
    context_lens: Array,
    block_tables: Array,
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
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The definition of page_attention in float64, slow and plain, to check an answer against.

    Arguments and errors are those of page_attention.

    Returns
    -------
    out : float64 [num_seqs, num_heads, value_head_dim]
    lse : float64 [num_seqs, num_heads]
    """
    call, checked_out, _, _owners = pack(
        query,
        key_cache,
        value_cache,
        context_lens,
        block_tables,
        None,
        False,
        attn_scale,
        max_context_len,
        num_splits,
        mask_value,
        attn_logits_soft_cap,
        pages_per_compute_block,
        megacore_mode,
        inline_seq_dim,
        sliding_window,
        kv_layout,
        "exact",
    )
    args = ArgsWriter()
    args.write(*call)
    out = np.empty(checked_out.shape, np.float64)
    lse = np.empty(out.shape[:2], np.float64)
    error = Error()
    status = library.pageattn_reference(
        args.address, out.ctypes.data, lse.ctypes.data, ctypes.addressof(error)
    )
    if status != OK:
        raise_error(error)
    return out, lse
