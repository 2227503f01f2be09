# SPDX-License-Identifier: Apache-2.0
"""The model's layers in NumPy, a paged cache, and pageattn between them."""

import argparse
import time

import numpy as np
import pageattn

from engine import CannotServe, kv_dtype
from model import Model
from paged_cache import PagedCache, PagePool
from rows import Rows


def make_engine(model: Model, pool: PagePool, options: argparse.Namespace) -> "NumpyEngine":
    """The engine that the options of the command line ask for."""
    return NumpyEngine(
        model,
        pool,
        kv_dtype(options.kv_type),
        num_threads=options.threads,
        isa=options.isa,
    )


class NumpyEngine:
    """The layers in NumPy, attention in pageattn; an engine.Engine."""

    def __init__(
        self, model: Model, pool: PagePool, dtype=np.float32, *, num_threads=None, isa=None
    ):
        """CannotServe if pageattn cannot run with these options here."""
        self.model, self.config = model, model.config
        self.cache = PagedCache(
            model.config.num_layers,
            model.config.num_kv_heads,
            pool.num_pages,
            pool.page_size,
            model.config.head_dim,
            dtype,
        )
        self.attention_seconds = 0.0
        self.attention_bytes = 0
        self._attention_options = {"num_threads": num_threads, "isa": isa}
        self._try_attention()
        self.description = f"pageattn {pageattn.__version__}, {isa or pageattn.isa()}"

    def next_tokens(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        hidden = self.model.forward(rows.tokens, rows.positions, self._attention_over(rows))
        self.attention_bytes += (
            int(rows.context_lens.sum(dtype=np.int64))
            * self.cache.bytes_per_token
            * len(self.cache.keys)
        )
        log_probabilities = self.model.log_probabilities(hidden[rows.last_rows])
        tokens = log_probabilities.argmax(axis=-1)
        return tokens, log_probabilities[np.arange(len(tokens)), tokens]

    def summary(self, seconds: float) -> list[tuple[str, str]]:
        share = self.attention_seconds / seconds
        speed = self.attention_bytes / self.attention_seconds / 1e9
        return [
            ("time in attention", f"{self.attention_seconds:.2f} s, {share:.0%} of the time"),
            (
                "keys and values",
                f"{self.attention_bytes / 1e9:.2f} GB attended to, {speed:.1f} GB/s",
            ),
        ]

    def _try_attention(self) -> None:
        """A call without rows, so that wrong options are known before anything is computed."""
        query = np.empty((0, self.config.num_heads, self.config.head_dim), np.float32)
        no_lens, no_tables = np.empty(0, np.int32), np.empty((0, 1), np.int32)
        try:
            pageattn.page_attention(
                query,
                self.cache.keys[0],
                self.cache.values[0],
                no_lens,
                no_tables,
                **self._attention_options,
            )
        except ValueError as error:
            raise CannotServe(str(error)) from error

    def _attention_over(self, rows: Rows):
        def attend(layer, query, key, value):
            self.cache.write(layer, rows.pages, rows.slots, key, value)
            start = time.perf_counter()
            attended = pageattn.page_attention(
                query,
                self.cache.keys[layer],
                self.cache.values[layer],
                rows.context_lens,
                rows.block_tables,
                **self._attention_options,
            )
            self.attention_seconds += time.perf_counter() - start
            return attended

        return attend
