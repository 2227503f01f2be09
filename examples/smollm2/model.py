# SPDX-License-Identifier: Apache-2.0
"""A Llama-style transformer in NumPy, for a flat list of tokens, with the attention left to the
caller.

The tokens may belong to any number of sequences: only attention looks from one token at another,
and that is a function `attend(layer, query, key, value)` that the caller hands in. Serving passes
one that writes the keys and values into a paged cache and calls pageattn; the check passes a dense
one. Everything else is the same code.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# (layer, query [tokens, heads, head_dim], key and value [tokens, kv_heads, head_dim])
# -> [tokens, heads, head_dim]
Attend = Callable[[int, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Config:
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    rope_base: float
    norm_epsilon: float


@dataclass(frozen=True)
class Layer:
    """Matrices are [inputs, outputs]."""

    attention_norm: np.ndarray
    query_key_value: np.ndarray
    attention_output: np.ndarray
    ffn_norm: np.ndarray
    gate_up: np.ndarray
    down: np.ndarray


def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(epsilon)) * weight


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def rotate(x: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """Rotary position embedding of x [tokens, heads, head_dim]; 2i and 2i+1 are one pair."""
    even, odd = x[..., 0::2], x[..., 1::2]
    rotated = np.empty_like(x)
    rotated[..., 0::2] = even * cosine - odd * sine
    rotated[..., 1::2] = even * sine + odd * cosine
    return rotated


@dataclass(frozen=True)
class Model:
    config: Config
    embedding: np.ndarray  # [vocabulary, model_dim], also the output matrix
    layers: list[Layer]
    output_norm: np.ndarray

    def forward(self, tokens: np.ndarray, positions: np.ndarray, attend: Attend) -> np.ndarray:
        """The last hidden state of each token, [tokens, model_dim].

        Positions count from 0 in each sequence.
        """
        cosine, sine = self.rope_angles(positions)
        hidden = self.embedding[tokens]
        for index, layer in enumerate(self.layers):
            query, key, value = self._query_key_value(layer, hidden)
            attended = attend(index, rotate(query, cosine, sine), rotate(key, cosine, sine), value)
            hidden = hidden + attended.reshape(len(tokens), -1) @ layer.attention_output
            hidden = hidden + self._feed_forward(layer, hidden)
        return hidden

    def log_probabilities(self, hidden: np.ndarray) -> np.ndarray:
        """The log-probability of each token of the vocabulary to be next, [rows, vocabulary]."""
        logits = rms_norm(hidden, self.output_norm, self.config.norm_epsilon) @ self.embedding.T
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    def rope_angles(self, positions):
        # The angles in float64: at position 8,000 a float32 angle is off by 5e-4.
        pairs = np.arange(0, self.config.head_dim, 2) / self.config.head_dim
        angles = np.multiply.outer(np.asarray(positions, np.float64), self.config.rope_base**-pairs)
        return np.cos(angles).astype(np.float32)[:, None], np.sin(angles).astype(np.float32)[
            :, None
        ]

    def _query_key_value(self, layer, hidden):
        heads, kv_heads, head_dim = (
            self.config.num_heads,
            self.config.num_kv_heads,
            self.config.head_dim,
        )
        projected = (
            rms_norm(hidden, layer.attention_norm, self.config.norm_epsilon) @ layer.query_key_value
        )
        projected = projected.reshape(len(hidden), heads + 2 * kv_heads, head_dim)
        return np.split(projected, [heads, heads + kv_heads], axis=1)

    def _feed_forward(self, layer, hidden):
        gate_up = rms_norm(hidden, layer.ffn_norm, self.config.norm_epsilon) @ layer.gate_up
        gate, up = np.split(gate_up, 2, axis=1)
        return (silu(gate) * up) @ layer.down
