# SPDX-License-Identifier: Apache-2.0
"""Paged attention in NumPy and float64, from its definition; knows nothing of the library."""

from __future__ import annotations

from typing import Any

import numpy as np


def attention(
    query: np.ndarray[Any, Any],
    key_cache: np.ndarray[Any, Any],
    value_cache: np.ndarray[Any, Any],
    context_lens: np.ndarray[Any, Any],
    block_tables: np.ndarray[Any, Any],
    attn_scale: float | None = None,
    mask_value: float = -np.inf,
    attn_logits_soft_cap: float | None = None,
    sliding_window: int | None = None,
    **steering: Any,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(out, lse); caches as [kv_heads, pages, page_size, head_dim]; `steering` changes nothing."""
    num_seqs, num_heads, head_dim = query.shape
    num_kv_heads, _, page_size, value_head_dim = value_cache.shape
    group = num_heads // num_kv_heads
    scale = head_dim**-0.5 if attn_scale is None else float(attn_scale)
    out = np.zeros((num_seqs, num_heads, value_head_dim))
    lse = np.full((num_seqs, num_heads), -np.inf)
    for seq in range(num_seqs):
        length = int(context_lens[seq])
        window_start = 0 if sliding_window is None else max(0, length - sliding_window)
        first = window_start if mask_value <= -1e9 else 0
        position = np.arange(first, length)
        if position.size == 0:
            continue
        page = block_tables[seq, position // page_size]
        slot = position % page_size
        for head in range(num_heads):
            key = key_cache[head // group, page, slot].astype(np.float64)
            value = value_cache[head // group, page, slot].astype(np.float64)
            logit = key @ query[seq, head].astype(np.float64) * scale
            if attn_logits_soft_cap is not None:
                logit = attn_logits_soft_cap * np.tanh(logit / attn_logits_soft_cap)
            if first < window_start:
                logit[position < window_start] += mask_value
            top = logit.max()
            weight = np.exp(logit - top)
            out[seq, head] = weight @ value / weight.sum()
            lse[seq, head] = top + np.log(weight.sum())
    return out, lse


def spacing(dtype_name: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The distance between neighbouring numbers of a type, around x."""
    digits, smallest = {"float32": (23, -126), "bfloat16": (7, -126), "float16": (10, -14)}[
        dtype_name
    ]
    exponent = np.frexp(x)[1] - 1
    return np.ldexp(1.0, np.maximum(exponent, smallest) - digits)
