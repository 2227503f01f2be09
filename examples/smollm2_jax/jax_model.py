# SPDX-License-Identifier: Apache-2.0
"""The transformer of examples/smollm2/model.py in JAX, as one function for a whole step.

Everything is in it: the layers, the writing of keys and values into the paged cache, the attention,
and the choice of the next tokens. So jax.jit compiles it as one program, and with the cache donated
the program writes into the cache's own memory.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pageattn.jax import page_attention

from model import Config, Model


class Rows(NamedTuple):
    """rows.Rows of examples/smollm2 with sizes that are rounded up, so that few programs serve all.

    A row too many has the context length 0: it attends to nothing, and its page is outside the
    cache, where nothing is written.
    """

    tokens: jax.Array  # i32 [rows]
    positions: jax.Array  # i32 [rows]
    pages: jax.Array  # i32 [rows]
    slots: jax.Array  # i32 [rows]
    context_lens: jax.Array  # i32 [rows]
    block_tables: jax.Array  # i32 [rows, most pages of a sequence]
    last_rows: jax.Array  # i32 [sequences]


class Cache(NamedTuple):
    """Keys and values: for each layer two arrays [kv_heads, pages, page_size, head_dim].

    One array for each layer, because the attention reads whole arrays: a slice of one array for
    all layers would be a copy.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


Weights = dict[str, Any]


def weights_of(model: Model) -> Weights:
    """The arrays of the NumPy model, and its rotary angles, as a tree of JAX arrays."""
    positions = np.arange(model.config.context_length)
    cosine, sine = model.rope_angles(positions)
    return jax.tree.map(
        jnp.asarray,
        {
            "embedding": model.embedding,
            "layers": [vars(layer) for layer in model.layers],
            "output_norm": model.output_norm,
            "cosine": cosine,
            "sine": sine,
        },
    )


def step(
    config: Config, weights: Weights, cache: Cache, rows: Rows
) -> tuple[jax.Array, jax.Array, Cache]:
    """Computes the rows: (next token of each sequence, its log-probability, the cache)."""
    cosine, sine = weights["cosine"][rows.positions], weights["sine"][rows.positions]
    hidden = weights["embedding"][rows.tokens]
    keys, values = [], []
    for layer, key_cache, value_cache in zip(weights["layers"], cache.keys, cache.values):
        query, key, value = _query_key_value(config, layer, hidden)
        keys.append(_write(key_cache, rows, _rotate(key, cosine, sine)))
        values.append(_write(value_cache, rows, value))
        attended = page_attention(
            _rotate(query, cosine, sine), keys[-1], values[-1], rows.context_lens, rows.block_tables
        )
        hidden = hidden + attended.reshape(len(hidden), -1) @ layer["attention_output"]
        hidden = hidden + _feed_forward(config, layer, hidden)
    tokens, log_probabilities = _next_tokens(config, weights, hidden[rows.last_rows])
    return tokens, log_probabilities, Cache(tuple(keys), tuple(values))


def _write(cache: jax.Array, rows: Rows, x: jax.Array) -> jax.Array:
    """Puts row i of x [rows, kv_heads, head_dim] into its slot; "drop" is for pages outside."""
    x = x.transpose(1, 0, 2).astype(cache.dtype)
    return cache.at[:, rows.pages, rows.slots].set(x, mode="drop")


def _rms_norm(x: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def _rotate(x: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """Rotary position embedding of x [rows, heads, head_dim]; 2i and 2i+1 are one pair."""
    even, odd = x[..., 0::2], x[..., 1::2]
    rotated = jnp.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1)
    return rotated.reshape(x.shape)


def _query_key_value(config: Config, layer: Weights, hidden: jax.Array) -> list[jax.Array]:
    heads, kv_heads = config.num_heads, config.num_kv_heads
    normed = _rms_norm(hidden, layer["attention_norm"], config.norm_epsilon)
    projected = normed @ layer["query_key_value"]
    projected = projected.reshape(len(hidden), heads + 2 * kv_heads, config.head_dim)
    return jnp.split(projected, [heads, heads + kv_heads], axis=1)


def _feed_forward(config: Config, layer: Weights, hidden: jax.Array) -> jax.Array:
    normed = _rms_norm(hidden, layer["ffn_norm"], config.norm_epsilon)
    gate, up = jnp.split(normed @ layer["gate_up"], 2, axis=1)
    return (jax.nn.silu(gate) * up) @ layer["down"]


def _next_tokens(
    config: Config, weights: Weights, hidden: jax.Array
) -> tuple[jax.Array, jax.Array]:
    normed = _rms_norm(hidden, weights["output_norm"], config.norm_epsilon)
    logits = normed @ weights["embedding"].T
    best = logits.max(axis=-1)
    return logits.argmax(axis=-1), best - jax.nn.logsumexp(logits, axis=-1)
