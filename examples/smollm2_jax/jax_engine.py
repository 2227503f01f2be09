# SPDX-License-Identifier: Apache-2.0
"""The model of jax_model.py as an engine of examples/smollm2: compiled programs over one cache."""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pageattn

from engine import kv_dtype
from jax_model import Cache, Rows, step, weights_of
from model import Model
from paged_cache import PagePool
from rows import Rows as UnpaddedRows

# Rows and sequences of a program: 8, 32, 128, 512, ...
SMALLEST_SIZE, NEXT_SIZE = 8, 4


def make_engine(model: Model, pool: PagePool, options: argparse.Namespace) -> "JaxEngine":
    """The engine that the options of the command line ask for."""
    return JaxEngine(model, pool, kv_dtype(options.kv_type))


class JaxEngine:
    """The layers and the attention in one program of JAX; an engine.Engine.

    A program is compiled for one shape, which takes seconds. So the numbers of rows and of
    sequences are rounded up, and a handful of programs serves everything. What is added costs the
    linear layers some work, and the attention none.
    """

    def __init__(self, model: Model, pool: PagePool, dtype=np.float32):
        config = model.config
        self.model, self.config, self.pool = model, config, pool
        self.device = jax.devices("cpu")[0]
        self.most_pages = min(pool.num_pages, pool.pages_for(config.context_length))
        self.programs: dict[tuple[int, int], jax.stages.Compiled] = {}
        self.compile_seconds = 0.0
        shape = (config.num_kv_heads, pool.num_pages, pool.page_size, config.head_dim)
        with jax.default_device(self.device):
            self._weights = weights_of(model)
            # NaN, so that an answer which used a slot that nobody had written would show it.
            keys, values = (
                tuple(jnp.full(shape, jnp.nan, dtype) for _ in model.layers) for _ in range(2)
            )
        self.cache = Cache(keys, values)
        self.description = f"pageattn {pageattn.__version__} in programs of JAX {jax.__version__}"

    def next_tokens(self, rows: UnpaddedRows) -> tuple[np.ndarray, np.ndarray]:
        padded = self._pad(rows)
        program = self._program(padded)
        tokens, log_probabilities, self.cache = program(self._weights, self.cache, padded)
        num_sequences = len(rows.last_rows)
        return np.asarray(tokens)[:num_sequences], np.asarray(log_probabilities)[:num_sequences]

    def summary(self, seconds: float) -> list[tuple[str, str]]:
        share = self.compile_seconds / seconds
        count = f"{len(self.programs)} programs in {self.compile_seconds:.1f} s"
        return [("compiled", f"{count}, {share:.0%} of the time")]

    def _pad(self, rows: UnpaddedRows) -> Rows:
        num_rows, num_sequences = round_up(len(rows.tokens)), round_up(len(rows.last_rows))

        def padded(array, length, value=0):
            return np.pad(array, (0, length - len(array)), constant_values=value).astype(np.int32)

        tables = np.full((num_rows, self.most_pages), -1, np.int32)
        tables[: len(rows.block_tables), : rows.block_tables.shape[1]] = rows.block_tables
        return Rows(
            tokens=padded(rows.tokens, num_rows),
            positions=padded(rows.positions, num_rows),
            pages=padded(rows.pages, num_rows, self.pool.num_pages),
            slots=padded(rows.slots, num_rows),
            context_lens=padded(rows.context_lens, num_rows),
            block_tables=tables,
            last_rows=padded(rows.last_rows, num_sequences),
        )

    def _program(self, rows: Rows) -> jax.stages.Compiled:
        """The program for rows of these sizes, compiled when they first come."""
        sizes = len(rows.tokens), len(rows.last_rows)
        if sizes not in self.programs:
            start = time.perf_counter()
            # Donated: the program takes the cache's memory over and writes the new tokens into it.
            compiled = jax.jit(functools.partial(step, self.config), donate_argnums=1)
            self.programs[sizes] = compiled.lower(self._weights, self.cache, rows).compile()
            self.compile_seconds += time.perf_counter() - start
        return self.programs[sizes]


def round_up(number: int) -> int:
    """The smallest size that has room for so many."""
    size = SMALLEST_SIZE
    while size < number:
        size *= NEXT_SIZE
    return size
