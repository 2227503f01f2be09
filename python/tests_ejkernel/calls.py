# SPDX-License-Identifier: Apache-2.0
"""Calls for the tests, and ejkernel's implementations of them, as they are without pageattn."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import tpu as pallas_tpu

from ejkernel.kernels._pallas.tpu.page_attention import page_attention as _pallas
from ejkernel.kernels._xla.page_attention import page_attention as ejkernel_xla

ARRAYS = ("query", "key_cache", "value_cache", "context_lens", "block_tables")


def make(seed, lens=(37, 1, 50), num_heads=8, num_kv_heads=2, head_dim=64, page_size=16, **more):
    """The five NumPy arrays of a call without traps: all slots finite, all of the table in range.

    The caches are [num_kv_heads, pages, page_size, head_dim]. All rows of the table have the pages
    that the longest sequence needs, and at least 4, so that many calls have one shape.
    """
    call = cases.make(
        seed, tuple(lens), num_heads, num_kv_heads, head_dim, page_size=page_size, **more
    )
    rng = np.random.default_rng(seed + 1000)
    num_pages = 19  # divides no number of heads
    num_blocks = max(4, -(-max(lens) // page_size))
    dtype = call["key_cache"].dtype
    shape = (num_kv_heads, num_pages, page_size, head_dim)
    tables = [rng.permutation(num_pages)[:num_blocks] for _ in lens]
    return {
        "query": call["query"],
        "key_cache": rng.standard_normal(shape).astype(dtype),
        "value_cache": rng.standard_normal(shape).astype(dtype),
        "context_lens": np.array(lens, np.int32),
        "block_tables": np.array(tables, np.int32),
    }


def pages_first(call):
    """The same call with caches [pages, num_kv_heads, page_size, head_dim]."""
    return {
        name: np.ascontiguousarray(array.transpose(1, 0, 2, 3)) if array.ndim == 4 else array
        for name, array in call.items()
    }


def in_jax(call):
    """The arrays as JAX arrays, in their order."""
    return [jnp.asarray(call[name]) for name in ARRAYS]


def xla(call, **options):
    """ejkernel's own XLA path."""
    return np.asarray(ejkernel_xla(*in_jax(call), **options))


def pallas(call, **options):
    """ejkernel's TPU kernel, interpreted on the CPU."""
    with pallas_tpu.force_tpu_interpret_mode():
        return np.asarray(jax.block_until_ready(_pallas(*in_jax(call), **options)))


def difference(a, b) -> float:
    """The largest one; NaN if there is a NaN."""
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
