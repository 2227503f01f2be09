# SPDX-License-Identifier: Apache-2.0
"""The same mistakes in every argument: each raises, names the argument, and leaves `out` alone.

test_errors.py has the sentences; here is the breadth.
"""

import cases
import numpy as np
import pageattn
import pytest

LENS = (37, 0, 1, 300)
SHAPE = (4, 6, 40)
ARRAYS = ("query", "key_cache", "value_cache", "context_lens", "block_tables", "out")

NO_ARRAYS = ["text", b"bytes", 3, 1.5, True, [[1.0]], (1, 2), {}, range(4), np.float32(1), object()]
WRONG_DTYPES = ["f8", "i1", "u1", "u4", "i8", "?", "c8", "U4", "S4", "M8[s]", "V4", "O", "f16", ">f4"]
INTEGERS = (
    "sliding_window",
    "pages_per_compute_block",
    "num_splits",
    "max_context_len",
    "num_threads",
)
NO_INTEGERS = ["2", b"2", 2.0, float("nan"), 2j, True, [2], {}, object(), np.float64(2), np.array([2, 3])]
OUTSIDE = [-1, -(2**31) - 1, -(2**63) - 1, 2**63, 2**64, 10**30]
FLOATS = ("attn_scale", "attn_logits_soft_cap", "mask_value")
NO_FLOATS = ["1", b"1", 1j, True, [1.0], {}, object(), np.array([1.0])]
NO_REALS = [float("nan"), float("inf"), 10**400, 1e39]
CHOICES = ("megacore_mode", "kv_layout", "isa", "numerics")
NO_CHOICES = ["", "nothing", "KV_HEAD", 0, 1.0, True, b"fast", [], {}, object()]
FLAGS = ("inline_seq_dim", "return_lse")
NO_FLAGS = [0, 1, None, "True", 1.0, [], np.array(True), object()]


def axes_more(name):
    return lambda arrays: arrays[name][None]


def axes_fewer(name):
    return lambda arrays: arrays[name].reshape(-1) if name != "context_lens" else np.array(3, "i4")


def no_elements_left(name):
    """Not even an empty array of the right rank fits the other arrays."""
    return lambda arrays: arrays[name][..., :0]


def of_dtype(name, dtype):
    return lambda arrays: np.zeros(arrays[name].shape, dtype)


def wrong_calls():
    """(name of the argument, its value or a function of the right arrays, exceptions allowed)"""
    for name in ARRAYS:
        yield from ((name, value, TypeError) for value in NO_ARRAYS)
        yield from ((name, of_dtype(name, dtype), TypeError) for dtype in WRONG_DTYPES)
        yield name, axes_more(name), ValueError
        yield name, axes_fewer(name), ValueError
        yield name, no_elements_left(name), ValueError
    for name in INTEGERS:
        yield from ((name, value, TypeError) for value in NO_INTEGERS)
        yield from ((name, value, ValueError) for value in OUTSIDE)
    for name in FLOATS:
        yield from ((name, value, TypeError) for value in NO_FLOATS)
        yield from ((name, value, ValueError) for value in NO_REALS)
    for name in CHOICES:
        yield from ((name, value, (TypeError, ValueError)) for value in NO_CHOICES)
    for name in FLAGS:
        yield from ((name, value, TypeError) for value in NO_FLAGS)


WRONG_CALLS = list(wrong_calls())


def call_id(call):
    return call[0]


@pytest.mark.parametrize("wrong", WRONG_CALLS, ids=call_id)
def test_wrong_call(wrong):
    name, value, exception = wrong
    arrays = cases.make(20, lens=LENS)
    out = np.full(SHAPE, 77, np.float32)
    arguments = {**arrays, "out": out}
    arguments[name] = value({**arguments}) if callable(value) else value
    with pytest.raises(exception, match=name if name != "query" else "query|out|num_seqs"):
        pageattn.page_attention(**arguments)
    assert np.all(out == 77)


def test_the_table_is_long(capsys):
    with capsys.disabled():
        print(f"{len(WRONG_CALLS)} wrong calls ", end="")
    assert len(WRONG_CALLS) >= 200


def test_the_context_is_usable_afterwards():
    arrays = cases.make(20, lens=LENS)
    expected = cases.bits(pageattn.page_attention(**arrays))
    for name, value, exception in WRONG_CALLS:
        wrong = value({**arrays, "out": np.zeros(SHAPE, np.float32)}) if callable(value) else value
        with pytest.raises(exception):
            pageattn.page_attention(**{**arrays, name: wrong})
    assert cases.bits(pageattn.page_attention(**arrays)) == expected
