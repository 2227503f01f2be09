# SPDX-License-Identifier: Apache-2.0
"""Paged grouped-query attention on CPUs, over JAX arrays, inside and outside of jax.jit.

    out = pageattn.jax.page_attention(query, key_cache, value_cache, context_lens, block_tables)

It computes the bits of pageattn.page_attention, on XLA's own threads, and copies no cache.
"""

from . import _target as _target  # first, for it says what is missing
from ._attention import page_attention

__all__ = ["page_attention"]
