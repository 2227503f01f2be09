# SPDX-License-Identifier: Apache-2.0
"""Random calls for the tests, the same for the same seed, with traps laid in everything unused.

Slots and pages that no token uses hold NaN, and block table entries that no sequence needs hold
nonsense, so a call that reads too far shows it.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

FLOAT32 = np.dtype(np.float32)
FLOAT16 = np.dtype(np.float16)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {"float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16}

# From the axes of "HND_pages", [kv_heads, pages, page_size, head_dim], to those of each layout.
LAYOUT_AXES = {
    "HND_pages": (0, 1, 2, 3),
    "pages_HND": (1, 0, 2, 3),
    "HND": (1, 0, 2, 3),
    "pages_NHD": (1, 2, 0, 3),
    "NHD": (1, 2, 0, 3),
}


def make(
    seed: int,
    lens: tuple[int, ...] = (37, 0, 1, 300),
    num_heads: int = 6,
    num_kv_heads: int = 2,
    head_dim: int = 40,
    value_head_dim: int | None = None,
    page_size: int = 16,
    query_dtype: np.dtype[Any] = FLOAT32,
    kv_dtype: np.dtype[Any] = FLOAT32,
) -> dict[str, np.ndarray[Any, Any]]:
    """The five arrays of a call, in the layout "HND_pages"."""
    rng = np.random.default_rng(seed)
    value_head_dim = head_dim if value_head_dim is None else value_head_dim
    needed = [-(-length // page_size) for length in lens]
    num_pages = sum(needed) + 3
    free = list(rng.permutation(num_pages))
    tables = rng.choice([-1, -(2**31), 2**31 - 1, num_pages], (len(lens), max(needed) + 2))
    tables = tables.astype(np.int32)
    keys = np.full((num_kv_heads, num_pages, page_size, head_dim), np.nan, kv_dtype)
    values = np.full((num_kv_heads, num_pages, page_size, value_head_dim), np.nan, kv_dtype)
    for seq, length in enumerate(lens):
        for block in range(needed[seq]):
            page = free.pop()
            tables[seq, block] = page
            used = min(page_size, length - block * page_size)
            keys[:, page, :used] = rng.standard_normal((num_kv_heads, used, head_dim))
            values[:, page, :used] = rng.standard_normal((num_kv_heads, used, value_head_dim))
    query = rng.standard_normal((len(lens), num_heads, head_dim)).astype(query_dtype)
    return {
        "query": query,
        "key_cache": keys,
        "value_cache": values,
        "context_lens": np.array(lens, np.int32),
        "block_tables": tables,
    }


def in_layout(arrays: dict[str, Any], layout: str) -> dict[str, Any]:
    """The same call with its caches laid out otherwise, in memory too."""
    axes = LAYOUT_AXES[layout]
    caches = {
        name: np.ascontiguousarray(arrays[name].transpose(axes))
        for name in ("key_cache", "value_cache")
    }
    return {**arrays, **caches, "kv_layout": layout}


def bits(result: Any) -> bytes:
    """What must be equal where the same bits are promised."""
    if isinstance(result, tuple):
        return b"".join(part.tobytes() for part in result)
    return bytes(result.tobytes())
