# SPDX-License-Identifier: Apache-2.0
"""The check: the same text again, one sequence at a time, with plain dense attention.

No pages, no batching, no cache: keys and values lie one after another. The text is fixed (prompt
and answer as they were generated), and the log-probabilities of the generated tokens are compared.
Comparing strings would not do: where two tokens are nearly equally likely, the last bit of a matrix
product decides which is written.
"""

import numpy as np

from model import Model


def causal_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """query [tokens, heads, head_dim] over key and value [tokens, kv_heads, head_dim]."""
    num_tokens, num_heads, head_dim = query.shape
    group = num_heads // key.shape[1]
    key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
    logits = query.transpose(1, 0, 2) @ key.transpose(1, 2, 0) / np.float32(np.sqrt(head_dim))
    future = np.triu(np.ones((num_tokens, num_tokens), bool), 1)
    weights = np.exp(np.where(future, -np.inf, logits - logits.max(axis=-1, keepdims=True)))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ value.transpose(1, 0, 2)).transpose(1, 0, 2)


def dense_log_probabilities(
    model: Model, tokens: list[int], num_prompt_tokens: int, dtype=np.float32
) -> np.ndarray:
    """The log-probability of each token after the prompt.

    Keys and values are rounded to `dtype`, as a cache of that type rounds them.
    """

    def rounded(x):
        return x.astype(dtype).astype(np.float32)

    def attend(layer, query, key, value):
        return causal_attention(query, rounded(key), rounded(value))

    hidden = model.forward(np.array(tokens[:-1]), np.arange(len(tokens) - 1), attend)
    log_probabilities = model.log_probabilities(hidden[num_prompt_tokens - 1 :])
    generated = tokens[num_prompt_tokens:]
    return log_probabilities[np.arange(len(generated)), generated]


def largest_difference(model: Model, sequences, dtype=np.float32) -> float:
    """Over all generated tokens: |log-probability when served - log-probability here|."""
    differences = [
        np.abs(
            dense_log_probabilities(model, s.tokens, s.num_prompt_tokens, dtype)
            - s.log_probabilities
        ).max()
        for s in sequences
    ]
    # np.max, unlike max, lets a NaN through, and a NaN must fail the check.
    return float(np.max(differences))
