# SPDX-License-Identifier: Apache-2.0
"""Calls of python/tests/cases.py with tensors of torch in place of arrays."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NAMES = ("query", "key_cache", "value_cache", "context_lens", "block_tables")


def from_numpy(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor over the memory of the array, bfloat16 included."""
    if array.dtype == cases.BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def of(arrays: dict[str, Any]) -> dict[str, Any]:
    """The same call; its options are left as they are."""
    return {
        name: from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arrays.items()
    }


def bits(result: Any) -> bytes:
    if isinstance(result, tuple):
        return b"".join(bits(part) for part in result)
    return bytes(result.detach().contiguous().view(torch.uint8).numpy().tobytes())
