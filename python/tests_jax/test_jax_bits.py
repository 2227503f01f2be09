# SPDX-License-Identifier: Apache-2.0
"""Eager, jitted and NumPy calls have the same bits."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pageattn
import pageattn.jax
import pytest

TYPES = [(query, kv) for query in cases.DTYPES for kv in cases.DTYPES]
OPTIONS = [
    {},
    {"attn_scale": 0.3},
    {"attn_scale": -2},
    {"attn_logits_soft_cap": 5.0},
    {"sliding_window": 20},
    {"sliding_window": 20, "mask_value": -3.0},
    {"sliding_window": 20, "mask_value": float("-inf")},
    {"sliding_window": np.int64(1), "attn_logits_soft_cap": np.float32(1.5)},
    {"num_splits": 3, "pages_per_compute_block": 2},
    {"megacore_mode": "kv_head"},
    {"megacore_mode": "batch"},
    {"inline_seq_dim": False, "max_context_len": 300},
    {"num_threads": 1},
    {"isa": "scalar"},
    {"numerics": "fast"},
]


def in_jax(arrays):
    """The same call over JAX arrays; options stay as they are."""
    return {
        name: jnp.asarray(value) if isinstance(value, np.ndarray) else value
        for name, value in arrays.items()
    }


def split(call):
    arrays = {name: value for name, value in call.items() if isinstance(value, jax.Array)}
    return arrays, {name: value for name, value in call.items() if name not in arrays}


def assert_same_bits(call, case, **options):
    """pageattn.page_attention's bits, with the log-sum-exp and without."""
    expected = pageattn.page_attention(**call, **options, return_lse=True)
    arrays, more = split(in_jax(call))
    options = {**options, **more}

    def attend(arrays, return_lse):
        return pageattn.jax.page_attention(**arrays, **options, return_lse=return_lse)

    for way, function in [("eager", attend), ("jit", jax.jit(attend, static_argnums=1))]:
        result = function(arrays, True)
        assert [part.dtype for part in result] == [part.dtype for part in expected], (way, case)
        assert [part.shape for part in result] == [part.shape for part in expected], (way, case)
        found = cases.bits(tuple(np.asarray(part) for part in result))
        assert found == cases.bits(expected), (way, case)
        alone = np.asarray(function(arrays, False))
        assert cases.bits(alone) == cases.bits(expected[0]), (way, case)


@pytest.mark.parametrize("query,kv", TYPES)
def test_types(query, kv):
    call = cases.make(1, query_dtype=cases.DTYPES[query], kv_dtype=cases.DTYPES[kv])
    assert_same_bits(call, (query, kv))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options(options):
    assert_same_bits(cases.make(2), options, **options)


@pytest.mark.parametrize("layout", cases.LAYOUT_AXES)
def test_layouts(layout):
    call = cases.in_layout(cases.make(3, value_head_dim=24), layout)
    assert_same_bits(call, layout)


def test_no_sequences():
    call = cases.make(4)
    for name in ("query", "context_lens", "block_tables"):
        call[name] = call[name][:0]
    assert_same_bits(call, "no sequences")


def test_long_contexts_on_all_threads():
    call = cases.make(5, lens=(9000, 3, 4097), page_size=64, kv_dtype=cases.BFLOAT16)
    assert_same_bits(call, "long")
    assert_same_bits(call, "long, split", num_splits=7)


def test_fast_numerics_on_bfloat16():
    call = cases.make(6, query_dtype=cases.BFLOAT16, kv_dtype=cases.BFLOAT16)
    assert_same_bits(call, "fast", numerics="fast")


def test_in_a_loop_with_an_updated_cache():
    """As a decoder does it: each step writes its token's key and value, and attends."""
    page_size, num_steps, shape = 4, 11, (2, 5, 4, 8)
    rng = np.random.default_rng(7)
    tables = np.array([[3, 0, 4]], np.int32)
    steps = rng.standard_normal((num_steps, 3, 2, 8)).astype(np.float32)

    def step(carry, inputs):
        keys, values = carry
        position, (query, key, value) = inputs
        page, slot = jnp.asarray(tables)[0, position // page_size], position % page_size
        keys, values = keys.at[:, page, slot].set(key), values.at[:, page, slot].set(value)
        lens = (position + 1)[None].astype(jnp.int32)
        out = pageattn.jax.page_attention(query[None], keys, values, lens, jnp.asarray(tables))
        return (keys, values), out[0]

    zeros = jnp.zeros(shape, jnp.float32)
    inputs = (jnp.arange(num_steps), tuple(jnp.asarray(steps[:, i]) for i in range(3)))
    _, outs = jax.jit(lambda: jax.lax.scan(step, (zeros, zeros), inputs))()

    keys, values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for position, (query, key, value) in enumerate(steps):
        page, slot = tables[0, position // page_size], position % page_size
        keys[:, page, slot], values[:, page, slot] = key, value
        lens = np.array([position + 1], np.int32)
        expected = pageattn.page_attention(query[None], keys, values, lens, tables)
        assert cases.bits(np.asarray(outs[position])) == cases.bits(expected[0]), position
