# SPDX-License-Identifier: Apache-2.0
"""Paged grouped-query attention on CPUs, over NumPy arrays.

    out = pageattn.page_attention(query, key_cache, value_cache, context_lens, block_tables)

page_attention says what each argument means. The same inputs give the same bits on every
instruction set and with any number of threads.
"""

from ._attention import page_attention, reference
from ._context import isa
from ._library import get_include, get_library, get_pkgconfig, isas
from ._library import version as __version__

__all__ = [
    "__version__",
    "get_include",
    "get_library",
    "get_pkgconfig",
    "isa",
    "isas",
    "page_attention",
    "reference",
]
