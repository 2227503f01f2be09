# SPDX-License-Identifier: Apache-2.0
"""Each row of the table in docs/ejkernel.md: what ejkernel's own code does, and what pageattn does.

"XLA" is ejkernel's only path on a CPU, "TPU" its Pallas kernel for TPUs, interpreted. A test that
fails after an update of ejkernel says which row has to be written anew.
"""

import importlib

import cases
import calls
import ejkernel.errors
import ejkernel.kernels._xla.page_attention
import ejkernel.modules
import jax
import jax.numpy as jnp
import numpy as np
import pageattn
import pageattn.ejkernel
import pytest

pytestmark = pytest.mark.usefixtures("registered")

EXECUTOR = importlib.import_module(
    "ejkernel.modules.operations.page_attention"
)._page_attention_executor
# JAX says one or the other, depending on how it came to run the program.
AT_RUN_TIME = (jax.errors.JaxRuntimeError, ValueError)
REFUSED = ejkernel.errors.EjkernelRuntimeError
CLOSE = 1e-5


def ours(call, **options):
    return np.asarray(ejkernel.modules.page_attention(*calls.in_jax(call), **options))


def error_of(call, **options):
    """The message of what is found when the program runs."""
    with pytest.raises(AT_RUN_TIME) as caught:
        ours(call, **options)
    return str(caught.value)


def changed(call, **arrays):
    return {**call, **{name: np.asarray(array, np.int32) for name, array in arrays.items()}}


class TestLayout:
    """Two sizes that both divide the number of query heads, or none."""

    def test_as_many_pages_as_kv_heads(self):
        call = with_pages(calls.make(1, lens=(9, 3), num_kv_heads=4, num_heads=8), 4)
        heads_first = pageattn.page_attention(**call)
        pages_first = pageattn.page_attention(**call, kv_layout="pages_HND")
        assert calls.difference(calls.xla(call), pages_first) < CLOSE
        assert calls.difference(calls.pallas(call), heads_first) < CLOSE
        self.assert_both_layouts_by_word(call, heads_first, pages_first)

    def test_both_sizes_divide_the_heads(self):
        call = with_pages(calls.make(2, lens=(9, 3), num_kv_heads=4, num_heads=8), 2)
        heads_first = pageattn.page_attention(**call)
        # The larger size is taken for the pages, here wrongly.
        pages_first = pageattn.page_attention(**call, kv_layout="pages_HND")
        assert calls.difference(calls.xla(call), pages_first) < CLOSE
        assert calls.difference(calls.pallas(call), pages_first) < CLOSE
        self.assert_both_layouts_by_word(call, heads_first, pages_first)

    def assert_both_layouts_by_word(self, call, heads_first, pages_first):
        with pytest.raises(ValueError, match=r"both can be .*\.register\(kv_layout='HND_pages'\)"):
            ours(call)
        pageattn.ejkernel.register(kv_layout="HND_pages")
        assert cases.bits(ours(call)) == cases.bits(heads_first)
        pageattn.ejkernel.register(kv_layout="pages_HND")
        assert cases.bits(ours(call)) == cases.bits(pages_first)

    def test_no_size_divides_the_heads(self):
        call = with_pages(calls.make(3, lens=(9, 3), num_kv_heads=3, num_heads=6), 5)
        call["query"] = np.concatenate([call["query"], call["query"]], axis=1)[:, :8]
        with pytest.raises(TypeError, match="cannot reshape"):
            calls.xla(call)
        with pytest.raises(ValueError, match="must be divisible"):
            calls.pallas(call)
        with pytest.raises(
            ValueError, match="none can be the number of KV heads for 8 query heads"
        ):
            ours(call)
        pageattn.ejkernel.register(kv_layout="HND_pages")
        with pytest.raises(ValueError, match="num_heads = 8"):
            ours(call)


def with_pages(call, num_pages):
    """The call with so many pages; the sequences have one each, the last ones."""
    tables = num_pages - 1 - np.arange(len(call["context_lens"]))[:, None]
    caches = {name: call[name][:, :num_pages] for name in ("key_cache", "value_cache")}
    return changed({**call, **caches}, block_tables=tables)


class TestContextLens:
    def test_zero(self):
        call = calls.make(5, lens=(20, 0, 33))
        pages = call["block_tables"][1]
        mean = call["value_cache"][:, pages].mean(axis=(1, 2)).repeat(4, axis=0)
        assert calls.difference(calls.xla(call)[1], mean) < CLOSE  # of all slots of its pages
        assert not calls.pallas(call)[1].any()
        # Nothing writes the row there; what it holds is what the memory held.
        assert calls.pallas(call, inline_seq_dim=False)[1].any()
        assert not ours(call)[1].any()
        assert not ours(call, inline_seq_dim=False)[1].any()

    def test_longer_than_the_table(self):
        call = calls.make(6, lens=(20, 64, 33))
        longer = changed(call, context_lens=(20, 65, 33))
        assert calls.difference(calls.xla(longer), pageattn.page_attention(**call)) < CLOSE
        assert "context_lens[1] = 65" in error_of(longer)

    def test_negative(self):
        call = changed(calls.make(7), context_lens=(20, -5, 33))
        zero = changed(call, context_lens=(20, 0, 33))
        assert cases.bits(calls.xla(call)) == cases.bits(calls.xla(zero))
        assert "context_lens[1] = -5" in error_of(call)


class TestBlockTables:
    def test_page_in_use_that_does_not_exist(self):
        call = calls.make(8, lens=(20, 4, 33))
        call["block_tables"][0, 1] = 999
        last, first = (changed(call, block_tables=call["block_tables"]) for _ in range(2))
        last["block_tables"] = np.where(call["block_tables"] == 999, 18, call["block_tables"])
        first["block_tables"] = np.where(call["block_tables"] == 999, 0, call["block_tables"])
        expected = pageattn.page_attention(**last)
        assert calls.difference(calls.xla(call), expected) < CLOSE
        assert "block_tables[0][1] = 999 is outside [0, 19)" in error_of(call)
        negative = changed(
            call, block_tables=np.where(call["block_tables"] == 999, -1, call["block_tables"])
        )
        assert calls.difference(calls.xla(negative), expected) < CLOSE
        expected = pageattn.page_attention(**first)
        assert calls.difference(calls.pallas(negative), expected) < CLOSE
        assert "block_tables[0][1] = -1 is outside [0, 19)" in error_of(negative)

    def test_entries_after_the_last_page_are_read(self):
        call = calls.make(9, lens=(20, 4, 33))
        expected = pageattn.page_attention(**call)
        call["block_tables"][1, 1:] = -1
        call["value_cache"][:, -1] = np.nan  # the page that -1 stands for in JAX
        in_its_last_page = np.isin(18, call["block_tables"][[0, 2], :3])
        assert not in_its_last_page, "another seed"
        assert np.isnan(calls.xla(call)[1]).all()
        assert cases.bits(ours(call)) == cases.bits(expected)


class TestUnusedSlots:
    @pytest.mark.parametrize(
        "cache, in_xla, in_tpu", [("key_cache", False, True), ("value_cache", True, True)]
    )
    def test_nan(self, cache, in_xla, in_tpu):
        call = calls.make(10, lens=(5, 5, 5))
        expected = pageattn.page_attention(**call)
        call[cache][:, call["block_tables"][:, 0], 5:] = np.nan
        assert np.isnan(calls.xla(call)).any() == in_xla
        assert np.isnan(calls.pallas(call)).any() == in_tpu
        assert cases.bits(ours(call)) == cases.bits(expected)


class TestArguments:
    """That each works is in test_agreement.py."""

    @pytest.mark.parametrize(
        "options",
        [
            {"attn_logits_soft_cap": 3.0},
            {"max_context_len": 64},
            {"num_splits": 2},
            {"pages_per_compute_block": 2},
            {"megacore_mode": "batch"},
            {"inline_seq_dim": False},
        ],
        ids=str,
    )
    def test_refused(self, options):
        with pytest.raises(REFUSED, match="not supported in XLA"):
            calls.xla(calls.make(11), **options)

    @pytest.mark.parametrize("options", [{"num_splits": 2}, {"max_context_len": 64}], ids=str)
    def test_refused_by_the_tpu_kernel(self, options):
        with pytest.raises(REFUSED, match="not supported in PALLAS"):
            calls.pallas(calls.make(11), **options)

    def test_sliding_window_is_ignored(self):
        call = calls.make(12)
        assert cases.bits(calls.xla(call, sliding_window=3)) == cases.bits(calls.xla(call))
        assert calls.difference(ours(call, sliding_window=3), ours(call)) > 0.1

    def test_mask_value_is_ignored(self):
        call = calls.make(13, lens=(64, 64, 64))
        assert cases.bits(calls.xla(call, mask_value=-2.0)) == cases.bits(calls.xla(call))
        soft = ours(call, mask_value=-2.0, sliding_window=20)
        assert calls.difference(soft, ours(call, sliding_window=20)) > 0.01
        tpu = calls.pallas(call, mask_value=-2.0, sliding_window=20)
        assert calls.difference(soft, tpu) < CLOSE

    def test_soft_mask_after_the_context(self):
        call = calls.make(14, lens=(20, 4, 33))
        tpu = calls.pallas(call, mask_value=-2.0)
        assert calls.difference(tpu, calls.pallas(call)) > 0.1  # unused slots are attended to
        assert cases.bits(ours(call, mask_value=-2.0)) == cases.bits(ours(call))

    def test_max_context_len(self):
        call = calls.make(15, lens=(20, 41, 33))
        assert "context_lens[1] = 41" in error_of(call, max_context_len=40)

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"sliding_window": -3}, "sliding_window = -3"),
            ({"mask_value": float("nan")}, "mask_value"),
            ({"attn_scale": float("inf")}, "attn_scale"),
        ],
        ids=str,
    )
    def test_wrong_values(self, options, message):
        call = calls.make(16)
        calls.xla(call, **options)  # no error
        with pytest.raises(ValueError, match=message):
            ours(call, **options)

    def test_pages_per_compute_block_that_divides_nothing(self):
        call = calls.make(17)
        with pytest.raises(ValueError, match="must be divisible"):
            calls.pallas(call, pages_per_compute_block=3)
        assert cases.bits(ours(call, pages_per_compute_block=3)) == cases.bits(ours(call))

    def test_whole_numbers_for_floats(self):
        call = calls.make(18)
        with pytest.raises(TypeError, match="Type-check error"):
            calls.xla(call, attn_scale=1)
        assert cases.bits(ours(call, attn_scale=1)) == cases.bits(ours(call, attn_scale=1.0))


class TestTypes:
    def test_of_the_result(self):
        dtype = cases.BFLOAT16
        call = calls.make(19, query_dtype=dtype, kv_dtype=dtype)
        assert calls.xla(call).dtype == np.float32
        assert calls.xla(call, attn_scale=0.1).dtype == dtype
        assert calls.pallas(call).dtype == dtype
        assert ours(call).dtype == ours(call, attn_scale=0.1).dtype == dtype

    def test_of_the_logits(self):
        dtype = cases.BFLOAT16
        call = calls.make(20, lens=(60, 64, 50), query_dtype=dtype, kv_dtype=dtype)
        exact, _ = pageattn.reference(**call, attn_scale=0.3)
        theirs = calls.difference(calls.xla(call, attn_scale=0.3), exact)
        assert calls.difference(ours(call, attn_scale=0.3), exact) < theirs / 2

    @pytest.mark.parametrize("dtype", ["int8", "int16"])
    def test_of_lengths_and_tables(self, dtype):
        call = calls.make(21)
        expected = ours(call)
        small = {**call, **{n: call[n].astype(dtype) for n in ("context_lens", "block_tables")}}
        assert calls.difference(calls.xla(small), expected) < CLOSE
        with pytest.raises(ValueError, match="must be int32"):
            calls.pallas(small)
        assert cases.bits(ours(small)) == cases.bits(expected)

    def test_int64(self):
        call = calls.make(21)
        expected = ours(call)
        with jax.enable_x64(True):
            wide = {
                **call,
                **{n: call[n].astype("int64") for n in ("context_lens", "block_tables")},
            }
            assert cases.bits(ours(wide)) == cases.bits(expected)
            wide["block_tables"][0, 1] += 1 << 32  # the same number, if its upper half were cut off
            assert "block_tables[0][1] = 2147483647 is outside" in error_of(wide)

    def test_another_head_dim_for_values(self):
        call = calls.make(22, head_dim=64)
        call["value_cache"] = call["value_cache"][..., :48]
        with pytest.raises(TypeError, match="Type-check error"):
            calls.xla(call)
        assert cases.bits(ours(call)) == cases.bits(pageattn.page_attention(**call))

    def test_numpy_arrays(self):
        call = calls.make(23)
        with pytest.raises(TypeError, match="Type-check error"):
            calls.ejkernel_xla(**call)
        with pytest.raises(TypeError, match="query must be a jax.Array"):
            ejkernel.kernels._xla.page_attention(**call)


def test_no_sequences():
    call = calls.make(24)
    empty = {**call, **{n: call[n][:0] for n in ("query", "context_lens", "block_tables")}}
    with pytest.raises(IndexError):
        calls.xla(empty)
    assert ours(empty).shape == (0, 8, 64)
    assert jax.jit(ejkernel.modules.page_attention)(*calls.in_jax(empty)).shape == (0, 8, 64)


def test_derivatives():
    query, *others = calls.in_jax(calls.make(25))

    def total(function):
        return lambda query: jnp.sum(function(query, *others))

    assert jax.grad(total(calls.ejkernel_xla))(query).any()
    with pytest.raises(NotImplementedError, match="no derivative"):
        jax.grad(total(ejkernel.modules.page_attention))(query)


def test_nothing_is_tuned_or_stored(home, monkeypatch):
    call = calls.make(26, head_dim=24)  # a shape that no other test has
    stored = home / "ejkernel-presistent-cache" / "page-attention.json"
    stored.unlink(missing_ok=True)
    chooser = EXECUTOR.chooser  # pageattn's, which hands out the attributes of ejkernel's
    ejkernels_policy = vars(chooser)["_ejkernels_own"].policy
    tuned = []
    monkeypatch.setattr(ejkernels_policy, "cache_miss_fallback", "autotune")
    monkeypatch.setattr(chooser.tuner, "autotune", lambda *_: tuned.append("once"))
    ours(call)
    assert not tuned and not stored.exists()
    pageattn.ejkernel.unregister()
    ours(call)  # now ejkernel's own
    assert tuned and stored.exists()
