# SPDX-License-Identifier: Apache-2.0
"""The same inputs give the same bits, and arrays are read through their strides."""

import itertools
import tracemalloc

import cases
import numpy as np
import pageattn
import pytest

OPTIONS = {"attn_logits_soft_cap": 4.0, "sliding_window": 270, "mask_value": -2.0}


def run(arrays, **extra):
    return cases.bits(pageattn.page_attention(**arrays, **OPTIONS, return_lse=True, **extra))


@pytest.fixture(scope="module", params=[("float32", "float32"), ("float16", "bfloat16")])
def arrays(request):
    query_dtype, kv_dtype = (cases.DTYPES[name] for name in request.param)
    return cases.make(
        7, lens=(700, 3, 0, 1025), query_dtype=query_dtype, kv_dtype=kv_dtype, value_head_dim=33
    )


@pytest.fixture(scope="module")
def expected(arrays):
    return run(arrays)


@pytest.mark.parametrize("num_threads", [None, 1, 2, 3, 8])
@pytest.mark.parametrize("isa", [None, *pageattn.isas()])
def test_instruction_sets_and_threads(arrays, expected, isa, num_threads):
    assert run(arrays, isa=isa, num_threads=num_threads) == expected


@pytest.mark.parametrize("isa", pageattn.isas())
def test_fast_is_exact_without_bfloat16_keys_or_avx512(arrays, expected, isa):
    if arrays["key_cache"].dtype == cases.BFLOAT16 and isa == "avx512":
        pytest.skip("may have other bits: see test_fast_bits_and_error")
    assert run(arrays, isa=isa, numerics="fast") == expected


def test_fast_bits_and_error():
    arrays = cases.make(14, lens=(700, 3, 0, 1025), kv_dtype=cases.BFLOAT16)
    exact = pageattn.page_attention(**arrays)
    fast = pageattn.page_attention(**arrays, numerics="fast")
    for steering in ({"num_threads": 1}, {"num_threads": 2, "num_splits": 7}):
        again = pageattn.page_attention(**arrays, **steering, numerics="fast")
        assert cases.bits(again) == cases.bits(fast)
    largest = np.nanmax(np.abs(arrays["value_cache"].astype(np.float32)))
    assert np.max(np.abs(fast - exact)) < 2**-6 * largest


@pytest.mark.parametrize("layout", cases.LAYOUT_AXES)
def test_layouts(arrays, expected, layout):
    assert run(cases.in_layout(arrays, layout)) == expected


def test_work_steering(arrays, expected):
    for splits, pages, mode, inline, longest in itertools.product(
        (0, 1, 2, 7, 2**31 - 1), (None, 1, 5, 2**31 - 1), (None, "kv_head", "batch"), (True, False),
        (None, 1025),
    ):  # fmt: skip
        steering = {
            "num_splits": splits,
            "pages_per_compute_block": pages,
            "megacore_mode": mode,
            "inline_seq_dim": inline,
            "max_context_len": longest,
        }
        assert run(arrays, num_threads=2, **steering) == expected, steering


def test_order_and_company_of_sequences(arrays):
    out = pageattn.page_attention(**arrays)
    for seq in range(len(out)):
        alone = {
            name: array if name.endswith("cache") else array[seq : seq + 1]
            for name, array in arrays.items()
        }
        assert cases.bits(pageattn.page_attention(**alone)) == cases.bits(out[seq]), seq


def test_unused_memory_is_not_looked_at(arrays, expected):
    """Other poison than the NaN and the nonsense that are there already."""
    other = {name: array.copy() for name, array in arrays.items()}
    for name in ("key_cache", "value_cache"):
        unused = np.isnan(other[name].astype(np.float32))
        assert unused.any()
        other[name][unused] = np.inf
    page_size = other["key_cache"].shape[2]
    for row, length in zip(other["block_tables"], other["context_lens"], strict=True):
        row[-(-length // page_size) :] = 12345678
    assert run(other) == expected


def test_pages_before_a_hard_window_are_not_looked_at():
    arrays = cases.make(8, lens=(100,))
    expected = pageattn.page_attention(**arrays, sliding_window=30)
    freed = arrays["block_tables"][0, : 70 // 16].copy()
    arrays["key_cache"][:, freed] = np.nan
    arrays["value_cache"][:, freed] = np.nan
    arrays["block_tables"][0, : 70 // 16] = -1
    again = pageattn.page_attention(**arrays, sliding_window=30)
    assert cases.bits(again) == cases.bits(expected)
    assert np.all(np.isfinite(again))


def strided(array, how):
    """A view with the values of the array and other strides."""
    if how == "every_other_of_the_first_axis":
        wide = np.zeros((2 * array.shape[0], *array.shape[1:]), array.dtype)
        wide[1::2] = array
        return wide[1::2]
    if how == "every_other_of_the_second_axis":
        wide = np.zeros((array.shape[0], 3 * array.shape[1], *array.shape[2:]), array.dtype)
        wide[:, ::3] = array
        return wide[:, ::3]
    if how == "backwards":
        return array[::-1].copy()[::-1]
    if how == "slice_of_the_last_axis":
        wide = np.zeros((*array.shape[:-1], array.shape[-1] + 5), array.dtype)
        wide[..., 2:-3] = array
        return wide[..., 2:-3]
    wide = np.asfortranarray(array)
    assert how == "fortran" and not wide.flags.c_contiguous
    return wide


NAMES = ["query", "key_cache", "value_cache", "context_lens", "block_tables"]
STRIDED = [
    (name, how)
    for name, how in itertools.product(
        NAMES,
        [
            "every_other_of_the_first_axis",
            "every_other_of_the_second_axis",
            "backwards",
            "slice_of_the_last_axis",
            "fortran",
        ],
    )
    # One axis has no second and no other order; head_dim must be contiguous.
    if not (name == "context_lens" and how in ("every_other_of_the_second_axis", "fortran"))
    and not (how == "fortran" and name != "block_tables")
]


@pytest.mark.parametrize("name,how", STRIDED)
def test_strides(arrays, expected, name, how):
    view = strided(arrays[name], how)
    assert not view.flags.c_contiguous or view.ndim == 1
    assert view.tobytes() == arrays[name].tobytes()
    assert run({**arrays, name: view}) == expected


def test_keys_and_values_may_share_an_array(arrays, expected):
    keys, values = arrays["key_cache"], arrays["value_cache"]
    both = np.concatenate([keys, values], axis=3)
    shared = {
        **arrays,
        "key_cache": both[..., : keys.shape[3]],
        "value_cache": both[..., keys.shape[3] :],
    }
    assert run(shared) == expected


def test_read_only_and_broadcast_inputs():
    arrays = cases.make(9, lens=(20, 20))
    arrays["block_tables"][1] = arrays["block_tables"][0]
    expected = pageattn.page_attention(**arrays)
    arrays["block_tables"] = np.broadcast_to(
        arrays["block_tables"][:1].copy(), arrays["block_tables"].shape
    )
    for array in arrays.values():
        array.flags.writeable = False
    assert cases.bits(pageattn.page_attention(**arrays)) == cases.bits(expected)


def test_memory_mapped_cache(tmp_path, arrays, expected):
    keys = arrays["key_cache"]
    mapped = np.memmap(tmp_path / "keys", keys.dtype, "w+", shape=keys.shape)
    mapped[:] = keys
    assert run({**arrays, "key_cache": mapped}) == expected


@pytest.mark.parametrize("layout", ["HND_pages", "NHD"])
def test_caches_are_not_copied(layout):
    small = cases.make(10, lens=(64, 64))
    arrays = cases.in_layout(small, layout)
    # A view that is not contiguous, of a cache of 16 MiB.
    for name in ("key_cache", "value_cache"):
        shape = arrays[name].shape
        wide = np.zeros((*shape[:-1], (1 << 24) // (arrays[name].nbytes // shape[-1])), np.float32)
        wide[..., : shape[-1]] = arrays[name]
        arrays[name] = wide[..., : shape[-1]]
    pageattn.page_attention(**arrays)
    tracemalloc.start()
    try:
        out = pageattn.page_attention(**arrays)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cases.bits(out) == cases.bits(pageattn.page_attention(**small))
    # The whole caches have far more bytes, and the views have more too.
    assert peak < min(arrays["key_cache"].nbytes, out.nbytes + 20000), peak


@pytest.mark.parametrize("dtype", cases.DTYPES.values(), ids=str)
def test_out_is_filled_and_returned(dtype):
    arrays = cases.make(11)
    shape = arrays["query"].shape
    expected = pageattn.page_attention(**arrays)
    out = np.zeros(shape, dtype)
    assert pageattn.page_attention(**arrays, out=out) is out
    if dtype == np.float32:
        assert cases.bits(out) == cases.bits(expected)
    np.testing.assert_allclose(out.astype(np.float32), expected, rtol=1e-2)
    same, lse = pageattn.page_attention(**arrays, out=out, return_lse=True)
    assert same is out and lse.shape == shape[:2]


def test_out_with_strides_writes_nothing_between():
    arrays = cases.make(12)
    expected = pageattn.page_attention(**arrays)
    wide = np.full((4, 2 * 6, 40 + 3), 77, np.float32)
    view = wide[:, ::2, 1:-2]
    assert pageattn.page_attention(**arrays, out=view) is view
    assert cases.bits(view) == cases.bits(expected)
    view[:] = 77
    assert np.all(wide == 77)


def test_new_results_do_not_share_memory():
    arrays = cases.make(13)
    first = pageattn.page_attention(**arrays)
    kept = first.copy()
    second = pageattn.page_attention(**{**arrays, "query": -arrays["query"]})
    assert not np.shares_memory(first, second)
    assert cases.bits(first) == cases.bits(kept)
