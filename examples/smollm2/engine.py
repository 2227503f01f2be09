# SPDX-License-Identifier: Apache-2.0
"""What the server needs of a model and its cache: rows in, the next tokens out."""

from typing import Protocol

import numpy as np

from model import Config
from rows import Rows


class CannotServe(Exception):
    """What was asked for cannot be done here; the message says why and what to change."""


class Engine(Protocol):
    """What the server needs of a model."""

    config: Config
    description: str  # who computes the attention

    def next_tokens(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Computes all rows, and caches their keys and values.

        Returns for each sequence, in the order of rows.last_rows, the most likely next token and
        its log-probability.
        """

    def summary(self, seconds: float) -> list[tuple[str, str]]:
        """(what, figures) rows for the table at the end; `seconds`: of all steps."""


def kv_dtype(name: str) -> np.dtype:
    """The NumPy type of --kv-type."""
    if name == "bf16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype({"f32": np.float32, "f16": np.float16}[name])
