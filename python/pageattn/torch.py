# SPDX-License-Identifier: Apache-2.0
"""Paged grouped-query attention on CPUs, over torch's tensors and on torch's own threads.

    out = pageattn.torch.page_attention(query, key_cache, value_cache, context_lens, block_tables)

It computes the bits of pageattn.page_attention. Importing this module registers the operators that
it is made of, which torch.compile takes as they are:

    torch.ops.pageattn.page_attention           (query, ...) -> Tensor
    torch.ops.pageattn.page_attention_lse       (query, ...) -> (Tensor, Tensor lse)
    torch.ops.pageattn.page_attention_out       (query, ..., Tensor(a!) out, ...) -> ()
    torch.ops.pageattn.page_attention_out_lse   (query, ..., Tensor(a!) out, ...) -> Tensor lse
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Literal, NoReturn, overload

from . import _arguments, _library
from ._attention import ISA, KVLayout, MegacoreMode, Numerics
from ._context import Host, give_back, take

try:
    import torch
    from torch import Tensor
except ImportError as _error:
    raise ImportError(
        f"pageattn.torch needs torch, which cannot be imported here ({_error}); "
        "pip install 'pageattn[torch]' installs it"
    ) from _error

__all__ = ["page_attention"]

_TENSORS = ("query", "key_cache", "value_cache", "context_lens", "block_tables", "out")
_RANKS = (3, 4, 4, 1, 2, 3)


# ---- torch's threads ---------------------------------------------------------------------------


def _load_executor() -> tuple[Host, Any]:
    """The executor over torch's threads, and what it refers to."""
    try:
        parallel_for = ctypes.CDLL(torch._C.__file__).torch_parallel_for
    except AttributeError as error:
        raise ImportError(
            f"pageattn.torch needs torch 2.10 or later, whose threads C code can use; this is torch "
            f"{torch.__version__}"
        ) from error
    path = Path(_library.library._name).with_name("libpageattn_torch.so")
    try:
        adapter = ctypes.CDLL(str(path)).pageattn_torch_parallel_for
    except (OSError, AttributeError) as error:
        raise ImportError(f"{path}, which pageattn.torch needs, cannot be loaded: {error}") from error
    torch_address = ctypes.cast(parallel_for, ctypes.c_void_p)
    adapter_address = ctypes.cast(adapter, ctypes.c_void_p).value or 0
    return (adapter_address, ctypes.addressof(torch_address)), torch_address


_EXECUTOR, _executor_refers_to = _load_executor()


# ---- the operators -----------------------------------------------------------------------------


def _call(
    tensors: tuple[Tensor, ...],
    out: Tensor | None,
    want_lse: bool,
    attn_scale: float | None = None,
    max_context_len: int | None = None,
    num_splits: int = 0,
    *,
    mask_value: float = -2.381976426469702e38,
    attn_logits_soft_cap: float | None = None,
    pages_per_compute_block: int | None = None,
    megacore_mode: str | None = None,
    inline_seq_dim: bool = True,
    sliding_window: int | None = None,
    kv_layout: str = "HND_pages",
    isa: str | None = None,
    numerics: str = "exact",
) -> tuple[Tensor, Tensor | None]:
    """Output and log-sum-exp on tensors of a CPU."""
    options = _arguments.pack_options(
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
    )
    packed_options = _library.pack_options(*options, 0, 0)
    views = [_view(name, tensor) for name, tensor in zip(_TENSORS, tensors)]
    out_view = None if out is None else _view("out", out)
    packed, out_shape, _ = _arguments.pack_tensors(
        _arguments.kv_axes(kv_layout), *views, out_view, want_lse
    )
    if out is None:
        out = tensors[0].new_empty(out_shape)
    lse = tensors[0].new_empty(out_shape[:2], dtype=torch.float32) if want_lse else None
    addresses = [tensor.data_ptr() for tensor in tensors]
    addresses += out.data_ptr(), 0 if lse is None else lse.data_ptr()
    num_threads = min(torch.get_num_threads(), _library.MAX_THREADS)
    isa_code, _ = _arguments.context_key(isa, None)
    context = take(isa_code, num_threads, _EXECUTOR)
    try:
        context.attend(packed, packed_options, tuple(addresses))
    finally:
        give_back(context)
    return out, lse


def _view(name: str, tensor: Tensor) -> _arguments.View:
    _check_place(name, tensor)
    size = tensor.element_size()
    strides = tuple([stride * size for stride in tensor.stride()])
    return _dtype_name(tensor), tuple(tensor.shape), strides


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_place(name: str, tensor: Tensor) -> None:
    if not tensor.is_cpu:
        raise ValueError(
            f"{name} is on {tensor.device}; pageattn computes on CPUs and copies nothing: "
            f"{name}.cpu() makes a copy there"
        )
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} has the layout {tensor.layout}, not torch.strided")


def _attend(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    attn_scale: float | None = None,
    max_context_len: int | None = None,
    num_splits: int = 0,
    *,
    mask_value: float = -2.381976426469702e38,
    attn_logits_soft_cap: float | None = None,
    pages_per_compute_block: int | None = None,
    megacore_mode: str | None = None,
    inline_seq_dim: bool = True,
    sliding_window: int | None = None,
    kv_layout: str = "HND_pages",
    isa: str | None = None,
    numerics: str = "exact",
) -> Tensor:
    """Never called: the arguments of every operator, from which torch infers their schema."""
    raise NotImplementedError


def _new(*arguments: Any, **options: Any) -> Tensor:
    return _call(arguments[:5], None, False, *arguments[5:], **options)[0]


def _new_lse(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    return _call(arguments[:5], None, True, *arguments[5:], **options)


def _out(*arguments: Any, **options: Any) -> None:
    _call(arguments[:5], arguments[5], False, *arguments[6:], **options)


def _out_lse(*arguments: Any, **options: Any) -> Tensor | None:
    return _call(arguments[:5], arguments[5], True, *arguments[6:], **options)[1]


# What the results will be, without computing them: for torch.compile and tensors without memory.


def _check_fake(tensors: tuple[Tensor, ...]) -> None:
    without_memory = all(tensor.is_meta for tensor in tensors)
    for name, rank, tensor in zip(_TENSORS, _RANKS, tensors):
        if not without_memory:
            _check_place(name, tensor)
        _arguments.check_type_and_rank(name, _dtype_name(tensor), tuple(tensor.shape), rank)


def _fake_lse(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
    query, _, value_cache = arguments[:3]
    _check_fake(arguments[:5])
    rows = query.shape[:2]
    out = query.new_empty((*rows, value_cache.shape[3]))
    return out, query.new_empty(rows, dtype=torch.float32)


def _fake(*arguments: Any, **options: Any) -> Tensor:
    return _fake_lse(*arguments)[0]


def _fake_out_lse(*arguments: Any, **options: Any) -> Tensor:
    _check_fake(arguments[:6])
    return _fake_lse(*arguments)[1]


def _fake_out(*arguments: Any, **options: Any) -> None:
    _check_fake(arguments[:6])


def _no_gradient(*_: Any) -> NoReturn:
    raise NotImplementedError(
        "pageattn has no gradient: it is for inference. Call it under torch.no_grad() or "
        "torch.inference_mode(), or pass query.detach() and so on"
    )


def _register() -> None:
    schema = torch.library.infer_schema(_attend, mutates_args=())
    arguments = schema[: schema.index(" ->")]
    # torch wants the tensors of an operator to be positional.
    written = arguments.replace("block_tables, ", "block_tables, Tensor(a!) out, ")
    for name, run, fake, signature, mutates in (
        ("page_attention", _new, _fake, f"{arguments} -> Tensor", ()),
        ("page_attention_lse", _new_lse, _fake_lse, f"{arguments} -> (Tensor, Tensor)", ()),
        ("page_attention_out", _out, _fake_out, f"{written} -> ()", ("out",)),
        ("page_attention_out_lse", _out_lse, _fake_out_lse, f"{written} -> Tensor", ("out",)),
    ):
        operator = torch.library.custom_op(
            f"pageattn::{name}", run, mutates_args=mutates, schema=signature
        )
        operator.register_fake(fake)
        if not mutates:
            operator.register_autograd(_no_gradient)


_register()


# ---- the function ------------------------------------------------------------------------------


@overload
def page_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
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
    out: Tensor | None = ...,
    return_lse: Literal[False] = ...,
    isa: ISA | None = ...,
    numerics: Numerics = ...,
) -> Tensor: ...


@overload
def page_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
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
    out: Tensor | None = ...,
    return_lse: Literal[True],
    isa: ISA | None = ...,
    numerics: Numerics = ...,
) -> tuple[Tensor, Tensor]: ...


def page_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
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
    out: Tensor | None = None,
    return_lse: bool = False,
    isa: ISA | None = None,
    numerics: Numerics = "exact",
) -> Tensor | tuple[Tensor, Tensor]:
    """pageattn.page_attention for torch: see there for what each argument means.

    Parameters
    ----------
    query, key_cache, value_cache : float32, float16 or bfloat16 tensors of a CPU, shaped as there
    context_lens, block_tables : int32 tensors of a CPU, shaped as there
    out : a tensor of a CPU that receives the result and is returned; float32, float16 or bfloat16
    return_lse : True: return (out, lse), with lse a new float32 tensor [num_seqs, num_heads]

    Returns
    -------
    out, or (out, lse) with return_lse; the same bits as pageattn.page_attention on the same values.

    Raises
    ------
    TypeError
        No tensor, or one of another dtype or layout.
    ValueError
        A tensor on another device than a CPU; an `out` beside a tensor that requires a gradient;
        every other ValueError of pageattn.page_attention.
    NotImplementedError
        From backward(): there is no gradient.
    MemoryError, RuntimeError
        Out of memory; an argument that torch itself refuses, with its own message.

    Notes
    -----
    Tensors are read through their strides and never copied; only the head_dim axis must be
    contiguous. It computes on torch's threads, torch.get_num_threads() of them, and starts none of
    its own. In the child of a fork torch's threads hang when the parent had used them, in this as
    in any operator of torch; torch.set_num_threads(1) there avoids it. Works under
    torch.compile(fullgraph=True); types, ranks and devices are then checked while it traces, the
    rest when it runs.
    """
    tensors = (query, key_cache, value_cache, context_lens, block_tables)
    named = zip(_TENSORS, tensors if out is None else (*tensors, out))
    for name, tensor in named:
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{name} must be a torch.Tensor, not {type(tensor).__name__}; "
                f"torch.as_tensor({name}) makes one"
            )
        if out is not None and tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name} requires a gradient, which out cannot carry; call it under "
                f"torch.no_grad(), or pass {name}.detach()"
            )
    options = {
        "attn_scale": attn_scale,
        "max_context_len": max_context_len,
        "num_splits": num_splits,
        "mask_value": mask_value,
        "attn_logits_soft_cap": attn_logits_soft_cap,
        "pages_per_compute_block": pages_per_compute_block,
        "megacore_mode": megacore_mode,
        "inline_seq_dim": inline_seq_dim,
        "sliding_window": sliding_window,
        "kv_layout": kv_layout,
        "isa": isa,
        "numerics": numerics,
    }
    operators = torch.ops.pageattn
    if out is None:
        operator = operators.page_attention_lse if return_lse else operators.page_attention
        result: Tensor | tuple[Tensor, Tensor] = operator(*tensors, **options)
        return result
    if return_lse:
        return out, operators.page_attention_out_lse(*tensors, out, **options)
    operators.page_attention_out(*tensors, out, **options)
    return out
