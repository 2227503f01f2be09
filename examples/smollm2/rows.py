# SPDX-License-Identifier: Apache-2.0
"""One step's tokens as rows: the new tokens of all running sequences, laid end to end.

A sequence that has just joined brings its whole prompt, the others bring the one token they
generated last. To the attention call both are rows with a block table and a context length: a
prompt's rows share the table and each sees one token more than the row before it, which is exactly
causal attention.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rows:
    tokens: np.ndarray  # [rows]
    positions: np.ndarray  # [rows], place in its sequence
    pages: np.ndarray  # [rows], the physical page that takes the row's key and value
    slots: np.ndarray  # [rows], the place in that page
    context_lens: np.ndarray  # i32 [rows], tokens that the row attends to, itself included
    block_tables: np.ndarray  # i32 [rows, pages of the longest sequence]
    last_rows: np.ndarray  # [sequences], the row from which each sequence's next token comes


def build_rows(sequences, page_size: int) -> Rows:
    """Rows for every token that is not in the cache yet.

    Each sequence must hold pages for all of its tokens.
    """
    counts = [len(sequence.tokens) - sequence.num_cached for sequence in sequences]
    tables = np.full(
        (len(sequences), max(len(sequence.pages) for sequence in sequences)), -1, np.int32
    )
    for table, sequence in zip(tables, sequences):
        table[: len(sequence.pages)] = sequence.pages
    tokens = np.concatenate([sequence.tokens[sequence.num_cached :] for sequence in sequences])
    positions = np.concatenate([np.arange(s.num_cached, len(s.tokens)) for s in sequences])
    block_tables = np.repeat(tables, counts, axis=0)
    return Rows(
        tokens=tokens,
        positions=positions,
        pages=block_tables[np.arange(len(tokens)), positions // page_size],
        slots=positions % page_size,
        context_lens=(positions + 1).astype(np.int32),
        block_tables=block_tables,
        last_rows=np.cumsum(counts) - 1,
    )
