# SPDX-License-Identifier: Apache-2.0
"""page_attention and reference against an oracle in NumPy and float64."""

import itertools

import cases
import numpy as np
import oracle
import pageattn
import pytest

OPTIONS = {
    "plain": {},
    "scale": {"attn_scale": 0.3},
    "negative_scale": {"attn_scale": -0.3},
    "soft_cap": {"attn_logits_soft_cap": 2.0},
    "window": {"sliding_window": 21},
    "window_of_one": {"sliding_window": 1},
    "soft_mask": {"sliding_window": 21, "mask_value": -1.5},
    "hardest_soft_mask": {"sliding_window": 21, "mask_value": -0.999e9},
    "soft_cap_window": {"attn_logits_soft_cap": 3.0, "sliding_window": 100},
    "soft_cap_soft_mask": {
        "attn_logits_soft_cap": 3.0,
        "sliding_window": 100,
        "mask_value": -0.5,
    },
    "infinite_mask": {"sliding_window": 21, "mask_value": float("-inf")},
    "steered": {
        "num_splits": 3,
        "pages_per_compute_block": 2,
        "inline_seq_dim": False,
        "max_context_len": 5000,
    },
}
SHAPES = {
    "ragged": {},
    "one_head": {"num_heads": 1, "num_kv_heads": 1},
    "groups_of_8": {"num_heads": 16, "num_kv_heads": 2},
    "head_dim_1": {"head_dim": 1},
    "head_dim_15": {"head_dim": 15},
    "head_dim_128": {"head_dim": 128},
    "wider_values": {"head_dim": 24, "value_head_dim": 65},
    "narrower_values": {"head_dim": 72, "value_head_dim": 7},
    "pages_of_1": {"page_size": 1},
    "pages_of_5": {"page_size": 5},
    "pages_of_256": {"page_size": 256},
    "leaf_edges": {"lens": (255, 256, 257, 511, 512, 513)},
    "long": {"lens": (5000, 3), "page_size": 64},
    "all_empty": {"lens": (0, 0)},
}


def check(arrays, options, label):
    """Bounds relative to the largest value: that of float32, or one ulp of a narrower result."""
    out, lse = pageattn.page_attention(**arrays, **options, return_lse=True)
    expected, expected_lse = oracle.attention(**arrays, **options)
    assert out.dtype == arrays["query"].dtype and out.shape == expected.shape, label
    assert lse.dtype == np.float32 and lse.shape == expected_lse.shape, label
    used = np.nan_to_num(arrays["value_cache"].astype(np.float64))
    allowed = np.maximum(1e-6 * np.abs(used).max(), oracle.spacing(out.dtype.name, expected))
    error = np.abs(out.astype(np.float64) - expected)
    worst = np.unravel_index(np.argmax(np.nan_to_num(error / allowed, nan=np.inf)), error.shape)
    assert np.all(error <= allowed), (
        f"{label}: out[{worst}] = {out[worst]}, expected {expected[worst]}, "
        f"allowed error {allowed[worst]}"
    )
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-6, atol=1e-5, err_msg=label)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_options(shape, option):
    seed = sorted(SHAPES).index(shape)
    check(cases.make(seed, **SHAPES[shape]), OPTIONS[option], f"seed {seed}, {shape}, {option}")


@pytest.mark.parametrize("query_dtype,kv_dtype", [*itertools.product(cases.DTYPES, repeat=2)])
@pytest.mark.parametrize("option", ["plain", "soft_cap_soft_mask"])
def test_dtypes(query_dtype, kv_dtype, option):
    seed = 100
    arrays = cases.make(
        seed, query_dtype=cases.DTYPES[query_dtype], kv_dtype=cases.DTYPES[kv_dtype]
    )
    check(arrays, OPTIONS[option], f"seed {seed}, {query_dtype}, {kv_dtype}, {option}")


@pytest.mark.parametrize("layout", cases.LAYOUT_AXES)
def test_reference_function(layout):
    seed = 200
    arrays = cases.make(seed, head_dim=24, value_head_dim=9, kv_dtype=cases.BFLOAT16)
    # The options pass through float32, which these values survive exactly.
    options = {**OPTIONS["soft_cap_soft_mask"], "attn_scale": 0.375}
    out, lse = pageattn.reference(**cases.in_layout(arrays, layout), **options)
    expected, expected_lse = oracle.attention(**arrays, **options)
    assert out.dtype == lse.dtype == np.float64
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-13, err_msg=f"seed {seed}")
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-13, err_msg=f"seed {seed}")


def test_no_sequences():
    arrays = cases.make(0, lens=(1,))
    arrays = {
        name: array if name.endswith("cache") else array[:0] for name, array in arrays.items()
    }
    out, lse = pageattn.page_attention(**arrays, return_lse=True)
    assert out.shape == (0, 6, 40) and lse.shape == (0, 6)


def test_empty_caches():
    arrays = cases.make(0, lens=(0, 0))
    for name in ("key_cache", "value_cache"):
        arrays[name] = arrays[name][:, :0]
    arrays["block_tables"] = arrays["block_tables"][:, :0]
    assert np.all(pageattn.page_attention(**arrays) == np.zeros((2, 6, 40)))


def test_empty_sequence_is_zero():
    out, lse = pageattn.page_attention(**cases.make(1, lens=(0, 5)), return_lse=True)
    assert np.all(out[0] == 0) and np.all(lse[0] == -np.inf)
    assert np.all(np.isfinite(out[1])) and np.all(np.isfinite(lse[1]))


def test_a_nan_stays_in_its_own_head_group():
    arrays = cases.make(2, lens=(20, 30))
    arrays["key_cache"][1, arrays["block_tables"][0, 0], 3, 0] = np.nan
    out = pageattn.page_attention(**arrays)
    hit = np.isnan(out).any(axis=2)
    assert hit.tolist() == [[False] * 3 + [True] * 3, [False] * 6]
