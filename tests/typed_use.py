# SPDX-License-Identifier: Apache-2.0
"""What type checkers must find out about calls: checked by tests/test_types.sh, never run."""

from typing import Any, assert_type

import numpy as np
import pageattn
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = NDArray[np.float32]


class Tensor:
    """Of another package."""

    def __dlpack__(self, *, stream: int | None = None) -> object:
        return object()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def arrays(query: Array, cache: Array, lens: NDArray[np.int32], tables: NDArray[np.int32]) -> None:
    out = pageattn.page_attention(query, cache, cache, lens, tables, 0.5, sliding_window=9)
    assert_type(out, Array)
    both = pageattn.page_attention(query, cache, cache, lens, tables, return_lse=True)
    assert_type(both, tuple[Array, Rows])
    assert_type(pageattn.page_attention(query, cache, cache, lens, tables, out=out), Array)
    assert_type(pageattn.reference(query, cache, cache, lens, tables)[0], NDArray[np.float64])
    pageattn.page_attention(query, cache, cache, lens, tables, kv_layout="NHD", isa=None)


def tensors(query: Tensor, cache: Tensor, lens: Tensor, tables: Tensor) -> None:
    assert_type(pageattn.page_attention(query, cache, cache, lens, tables), Array)
    given = pageattn.page_attention(query, cache, cache, lens, tables, out=query)
    assert_type(given, Tensor)
    both = pageattn.page_attention(query, cache, cache, lens, tables, out=query, return_lse=True)
    assert_type(both, tuple[Tensor, Rows])


def wrong(query: Array) -> None:
    """Each line must be an error: both checkers complain of an ignore that nothing needs."""
    pageattn.page_attention(query)  # type: ignore
    pageattn.page_attention([1.0], query, query, query, query)  # type: ignore
    pageattn.page_attention(query, query, query, query, query, kv_layout="hnd")  # type: ignore
    pageattn.page_attention(query, query, query, query, query, num_split=1)  # type: ignore
    pageattn.page_attention(query, query, query, query, query, return_lse=1)  # type: ignore
