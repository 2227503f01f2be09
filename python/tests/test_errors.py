# SPDX-License-Identifier: Apache-2.0
"""Every wrong argument raises, says what is wrong, and leaves `out` as it was."""

import cases
import numpy as np
import pageattn
import pytest
from pageattn import _library

LENS = (37, 0, 1, 300)
SHAPE = (4, 6, 40)


def record_field(array):
    """The values of the array in records of 6 bytes, so strides are no multiple of 4."""
    records = np.zeros(array.shape, [("value", array.dtype), ("between", "S2")])
    records["value"] = array
    return records["value"]


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def with_entry(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


# Name of the argument, its value or a function of the right one, the exception, what it says.
WRONG_ARRAYS = [
    ("query", lambda a: a.tolist(), TypeError, r"query must be a NumPy array, or .*DLPack, not list; np.asarray"),
    ("key_cache", lambda a: None, TypeError, r"key_cache must be a NumPy array, or .*, not NoneType"),
    ("context_lens", lambda a: a.tolist(), TypeError, r"context_lens must be .*not list"),
    ("block_tables", lambda a: a.tolist(), TypeError, r"block_tables must be .*not list"),
    ("out", lambda a: [0.0], TypeError, r"out must be a NumPy array, or .*, not list"),
    ("query", np.ma.masked_array, TypeError, r"query is a masked array, .*query.filled"),
    ("query", lambda a: a.astype(np.float64), TypeError,
     r"query has dtype float64, not float32, float16 or bfloat16.*astype\(np.float32\)"),
    ("key_cache", lambda a: a.astype(np.float64), TypeError, r"key_cache has dtype float64"),
    ("value_cache", lambda a: a.view(np.int8), TypeError, r"value_cache has dtype int8"),
    ("value_cache", lambda a: a.astype(np.float16), TypeError, r"value_cache.*(f16|key_cache)"),
    ("query", lambda a: a.astype(object), TypeError, r"query has dtype object"),
    ("query", lambda a: a.astype(np.complex64), TypeError, r"query has dtype complex64"),
    ("query", lambda a: a.view(np.int32), TypeError, r"query has dtype int32"),
    ("query", lambda a: a.astype(">f4"), TypeError, r"query has dtype >f4, .*byte order.*newbyteorder"),
    ("key_cache", lambda a: a.astype(">f2"), TypeError, r"key_cache has dtype >f2, .*byte order"),
    ("context_lens", lambda a: a.astype(np.int64), TypeError,
     r"context_lens has dtype int64, not int32; use context_lens.astype\(np.int32\)"),
    ("context_lens", lambda a: a.astype(np.uint32), TypeError, r"context_lens has dtype uint32"),
    ("context_lens", lambda a: a.astype(">i4"), TypeError, r"context_lens has dtype >i4"),
    ("context_lens", lambda a: a.astype(np.float32), TypeError, r"context_lens has dtype float32"),
    ("context_lens", lambda a: a.astype(object), TypeError, r"context_lens has dtype object"),
    ("block_tables", lambda a: a.astype(np.int64), TypeError,
     r"block_tables has dtype int64, not int32; use block_tables.astype\(np.int32\)"),
    ("block_tables", lambda a: a.astype(np.int16), TypeError, r"block_tables has dtype int16"),
    ("out", np.zeros(SHAPE, np.float64), TypeError, r"out has dtype float64"),
    ("query", lambda a: a[0], ValueError, r"query has 2 axes, shape \(6, 40\); it must have 3"),
    ("query", lambda a: a[None], ValueError, r"query has 4 axes"),
    ("key_cache", lambda a: a[0], ValueError, r"key_cache has 3 axes, .*it must have 4"),
    ("value_cache", lambda a: a[None], ValueError, r"value_cache has 5 axes"),
    ("context_lens", lambda a: a[:, None], ValueError, r"context_lens has 2 axes"),
    ("context_lens", np.array(3, np.int32), ValueError, r"context_lens has 0 axes, shape \(\)"),
    ("block_tables", lambda a: a[0], ValueError, r"block_tables has 1 axes"),
    ("out", np.zeros((4, 240), np.float32), ValueError, r"out has 2 axes"),
    ("query", lambda a: a[:3], ValueError, r"(context_lens|query).*\b(3|4)\b"),
    ("query", lambda a: a[:, :5], ValueError, r"num_heads\) is 6; it must be 5"),
    ("query", lambda a: a[:, :, :39].copy(), ValueError, r"39.*40|40.*39"),
    ("value_cache", lambda a: a[:1], ValueError, r"value_cache"),
    ("value_cache", lambda a: a[:, :-1], ValueError, r"value_cache"),
    ("value_cache", lambda a: a[:, :, :-1], ValueError, r"value_cache"),
    ("context_lens", lambda a: a[:3], ValueError, r"context_lens"),
    ("block_tables", lambda a: a[:3], ValueError, r"block_tables"),
    ("out", np.zeros((4, 6, 41), np.float32), ValueError, r"out.*(41|40)"),
    ("out", np.zeros((6, 4, 40), np.float32), ValueError, r"out"),
    ("query", lambda a: np.repeat(a, 2, axis=2)[:, :, ::2], ValueError, r"query"),
    ("key_cache", lambda a: np.repeat(a, 2, axis=3)[..., ::2], ValueError, r"key_cache"),
    ("key_cache", lambda a: np.asfortranarray(a), ValueError, r"key_cache"),
    ("query", record_field, ValueError,
     r"query has a stride of 6 bytes along axis 2, .*4 bytes; np.ascontiguousarray\(query\)"),
    ("context_lens", record_field, ValueError, r"context_lens has a stride of 6 bytes along axis 0"),
    ("key_cache", record_field, ValueError, r"key_cache has a stride"),
    ("out", record_field(np.zeros(SHAPE, np.float32)), ValueError, r"out has a stride"),
    ("query", misaligned, ValueError, r"query"),
    ("block_tables", misaligned, ValueError, r"block_tables"),
    ("out", read_only(np.zeros(SHAPE, np.float32)), ValueError, r"out is read-only"),
    ("out", np.broadcast_to(np.zeros(40, np.float32), SHAPE), ValueError, r"out is read-only"),
    ("context_lens", with_entry(2, -1), ValueError, r"context_lens\[2\] = -1"),
    ("context_lens", with_entry(3, 10**6), ValueError, r"context_lens\[3\] = 1000000"),
    ("block_tables", with_entry((3, 17), 912), ValueError, r"block_tables\[3\]\[17\] = 912"),
    ("block_tables", with_entry((0, 0), -1), ValueError, r"block_tables\[0\]\[0\] = -1"),
]  # fmt: skip

WRONG_OPTIONS = [
    ("attn_scale", float("nan"), ValueError, r"attn_scale"),
    ("attn_scale", float("inf"), ValueError, r"attn_scale"),
    ("attn_scale", 1e39, ValueError, r"attn_scale = 1e\+39 does not fit a float32"),
    ("attn_scale", 10**400, ValueError, r"attn_scale = 10+ does not fit a float32"),
    ("attn_scale", float(np.finfo(np.float32).max), ValueError, r"attn_scale = .*stands for the default"),
    ("attn_scale", 3.4028235e38, ValueError, r"attn_scale = .*stands for the default"),
    ("attn_scale", True, TypeError, r"attn_scale must be a number, not True"),
    ("attn_scale", "0.1", TypeError, r"attn_scale must be a number, not str"),
    ("attn_scale", 1j, TypeError, r"attn_scale must be a number, not complex"),
    ("attn_logits_soft_cap", 0.0, ValueError, r"attn_logits_soft_cap = 0.0 .*above 0, or None"),
    ("attn_logits_soft_cap", 0, ValueError, r"attn_logits_soft_cap = 0 "),
    ("attn_logits_soft_cap", -0.0, ValueError, r"attn_logits_soft_cap = -0.0 "),
    ("attn_logits_soft_cap", 1e-60, ValueError, r"attn_logits_soft_cap = 1e-60 is 0 as a float32"),
    ("attn_logits_soft_cap", -1.0, ValueError, r"attn_logits_soft_cap"),
    ("attn_logits_soft_cap", float("nan"), ValueError, r"attn_logits_soft_cap"),
    ("attn_logits_soft_cap", float("inf"), ValueError, r"attn_logits_soft_cap"),
    ("attn_logits_soft_cap", False, TypeError, r"attn_logits_soft_cap must be a number, not False"),
    ("mask_value", 1.0, ValueError, r"mask_value"),
    ("mask_value", float("nan"), ValueError, r"mask_value"),
    ("mask_value", 1e39, ValueError, r"mask_value = 1e\+39 does not fit"),
    ("mask_value", None, TypeError, r"mask_value must be a number, not NoneType"),
    ("sliding_window", 0, ValueError, r"sliding_window = 0 is outside \[1, 2147483647\]; None"),
    ("sliding_window", -1, ValueError, r"sliding_window = -1 is outside"),
    ("sliding_window", 2**31, ValueError, r"sliding_window = 2147483648 is outside"),
    ("sliding_window", 3.0, TypeError, r"sliding_window must be an integer, not float"),
    ("sliding_window", True, TypeError, r"sliding_window must be an integer, not True"),
    ("sliding_window", np.True_, TypeError, r"sliding_window must be an integer, not"),
    ("pages_per_compute_block", 0, ValueError, r"pages_per_compute_block = 0 is outside \[1, .*None"),
    ("pages_per_compute_block", 2**31, ValueError, r"pages_per_compute_block = 2147483648 is"),
    ("pages_per_compute_block", "2", TypeError, r"pages_per_compute_block must be an integer"),
    ("num_splits", -1, ValueError, r"num_splits = -1 is outside \[0, 2147483647\]"),
    ("num_splits", 2**31, ValueError, r"num_splits = 2147483648 is outside"),
    ("num_splits", None, TypeError, r"num_splits must be an integer, not NoneType"),
    ("num_splits", False, TypeError, r"num_splits must be an integer, not False"),
    ("max_context_len", -1, ValueError, r"max_context_len = -1 is outside \[0, .*None"),
    ("max_context_len", 2**63, ValueError, r"max_context_len = 9223372036854775808 is outside"),
    ("max_context_len", 299, ValueError, r"context_lens\[3\] = 300"),
    ("max_context_len", 1.5, TypeError, r"max_context_len must be an integer, not float"),
    ("megacore_mode", "head", ValueError, r"megacore_mode = 'head' is not one of None, 'kv_head', 'batch'"),
    ("numerics", "quick", ValueError, r"numerics = 'quick' is not one of 'exact', 'fast'"),
    ("numerics", None, TypeError, r"numerics = None is not one of"),
    ("megacore_mode", 1, TypeError, r"megacore_mode = 1 is not one of"),
    ("megacore_mode", [], TypeError, r"megacore_mode = \[\] is not one of"),
    ("inline_seq_dim", 1, TypeError, r"inline_seq_dim must be True or False, not 1"),
    ("inline_seq_dim", None, TypeError, r"inline_seq_dim must be True or False, not None"),
    ("kv_layout", "hnd", ValueError, r"kv_layout = 'hnd' is not one of 'HND_pages', 'pages_HND', 'pages_NHD', 'HND', 'NHD'"),
    ("kv_layout", None, TypeError, r"kv_layout = None is not one of"),
    ("kv_layout", "NHD", ValueError, r"page_size|kv_heads"),
    ("return_lse", 1, TypeError, r"return_lse must be True or False, not 1"),
    ("num_threads", 0, ValueError, r"num_threads = 0 is outside \[1, 4096\]; None"),
    ("num_threads", 4097, ValueError, r"num_threads = 4097 is outside"),
    ("num_threads", 2.0, TypeError, r"num_threads must be an integer, not float"),
    ("num_threads", True, TypeError, r"num_threads must be an integer, not True"),
    ("isa", "sse2", ValueError, r"isa = 'sse2' is not one of None, 'scalar', 'avx2', 'avx512', 'neon'"),
    ("isa", "auto", ValueError, r"isa = 'auto' is not one of"),
    ("isa", 1, TypeError, r"isa = 1 is not one of"),
]  # fmt: skip


def case_id(value):
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize("name,wrong,exception,message", WRONG_ARRAYS, ids=case_id)
def test_wrong_array(name, wrong, exception, message):
    arrays = cases.make(20, lens=LENS)
    out = np.full(SHAPE, 77, np.float32)
    arrays["out"] = out
    arrays[name] = wrong(arrays[name]) if callable(wrong) else wrong
    with pytest.raises(exception, match=message):
        pageattn.page_attention(**arrays)
    assert np.all(out == 77)


@pytest.mark.parametrize("name,wrong,exception,message", WRONG_OPTIONS, ids=case_id)
def test_wrong_option(name, wrong, exception, message):
    out = np.full(SHAPE, 77, np.float32)
    with pytest.raises(exception, match=message):
        pageattn.page_attention(**cases.make(20, lens=LENS), out=out, **{name: wrong})
    assert np.all(out == 77)


def test_the_right_call_of_these_tests_is_right():
    arrays = cases.make(20, lens=LENS)
    out = np.full(SHAPE, 77, np.float32)
    assert np.all(pageattn.page_attention(**arrays, out=out) != 77)


def test_heads_must_be_a_multiple_of_the_kv_heads():
    arrays = cases.make(20, lens=LENS)
    arrays["query"] = arrays["query"][:, :5]
    with pytest.raises(ValueError, match=r"num_heads.*5.*2"):
        pageattn.page_attention(**arrays)


@pytest.mark.parametrize("mode,sequences,kv_heads", [("kv_head", 2, 3), ("batch", 3, 2)])
def test_megacore_needs_even_numbers(mode, sequences, kv_heads):
    arrays = cases.make(21, lens=(5,) * sequences, num_heads=6, num_kv_heads=kv_heads)
    with pytest.raises(ValueError, match=f"megacore_mode.*{mode.upper()}|{mode}"):
        pageattn.page_attention(**arrays, megacore_mode=mode)


@pytest.mark.parametrize("name", ["query", "key_cache", "value_cache"])
def test_out_must_not_overlap_an_input(name):
    arrays = cases.make(22, lens=(5, 5), num_heads=6, num_kv_heads=6, page_size=5)
    out = arrays[name].reshape(-1)[: 2 * 6 * 40].reshape(2, 6, 40)
    assert np.shares_memory(out, arrays[name])
    before = arrays[name].copy()
    with pytest.raises(ValueError, match=f"out.*{name}|{name}.*out"):
        pageattn.page_attention(**arrays, out=out)
    assert cases.bits(arrays[name]) == cases.bits(before)


def test_out_must_not_overlap_itself():
    memory = np.zeros(SHAPE[1:], np.float32)
    out = np.lib.stride_tricks.as_strided(memory, SHAPE, (0, 160, 4), writeable=True)
    with pytest.raises(ValueError, match="out"):
        pageattn.page_attention(**cases.make(20, lens=LENS), out=out)


def test_an_instruction_set_that_is_missing():
    missing = min(set(_library.ISAS) - set(pageattn.isas()))  # no CPU has NEON and AVX2
    with pytest.raises(ValueError, match=missing):
        pageattn.page_attention(**cases.make(20), isa=missing)


def test_reference_raises_the_same():
    arrays = cases.make(20, lens=LENS)
    with pytest.raises(TypeError, match="query must be a NumPy array"):
        pageattn.reference(**{**arrays, "query": None})
    with pytest.raises(ValueError, match=r"sliding_window = 0 is outside"):
        pageattn.reference(**arrays, sliding_window=0)
    arrays["context_lens"][2] = -1
    with pytest.raises(ValueError, match=r"context_lens\[2\] = -1"):
        pageattn.reference(**arrays)


# What other numbers than Python's own are taken as.
RIGHT_OPTIONS = [
    ("attn_scale", np.float32(0.25), 0.25),
    ("attn_scale", np.float64(0.25), 0.25),
    ("attn_scale", np.float16(0.25), 0.25),
    ("attn_scale", 2, 2.0),
    ("attn_scale", np.int8(2), 2.0),
    ("attn_logits_soft_cap", 3, 3.0),
    ("sliding_window", np.int64(9), 9),
    ("sliding_window", np.array(9), 9),
    ("num_splits", np.uint8(2), 2),
    ("max_context_len", np.int32(300), 300),
    ("inline_seq_dim", np.bool_(False), False),
]


@pytest.mark.parametrize("name,value,same", RIGHT_OPTIONS, ids=case_id)
def test_numbers_of_numpy_are_taken(name, value, same):
    arrays = cases.make(20, lens=LENS)
    expected = pageattn.page_attention(**arrays, **{name: same})
    assert cases.bits(pageattn.page_attention(**arrays, **{name: value})) == cases.bits(expected)


@pytest.mark.parametrize("mask_value", [-1e9, -3.5e38, -1e300, float("-inf"), -(10**30)])
def test_every_hard_mask_excludes_exactly(mask_value):
    arrays = cases.make(20, lens=LENS)
    expected = pageattn.page_attention(**arrays, sliding_window=9)
    out = pageattn.page_attention(**arrays, sliding_window=9, mask_value=mask_value)
    assert cases.bits(out) == cases.bits(expected)


def test_numbers_at_the_edge_of_their_types():
    arrays = cases.make(20, lens=LENS)
    expected = cases.bits(pageattn.page_attention(**arrays))
    largest = {
        "sliding_window": 2**31 - 1,
        "num_splits": 2**31 - 1,
        "pages_per_compute_block": 2**31 - 1,
    }
    for name, value in largest.items():
        assert cases.bits(pageattn.page_attention(**arrays, **{name: value})) == expected, name
