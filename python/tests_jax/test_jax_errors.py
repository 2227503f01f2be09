# SPDX-License-Identifier: Apache-2.0
"""Wrong arguments raise, say what is wrong, and never reach memory outside the arrays."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pageattn
import pageattn.jax
import pytest

LENS = (37, 0, 1, 300)
AT_RUN_TIME = (jax.errors.JaxRuntimeError, ValueError)


def arrays():
    return {name: jnp.asarray(value) for name, value in cases.make(20, lens=LENS).items()}


def with_entry(index, value):
    return lambda array: array.at[index].set(value)


# Name of the argument, a function of the right one, the exception, what it says.
WRONG_ARRAYS = [
    ("query", np.asarray, TypeError, r"query must be a jax.Array, not ndarray; jax.numpy.asarray"),
    ("key_cache", np.asarray, TypeError, r"key_cache must be a jax.Array, not ndarray"),
    ("value_cache", lambda a: None, TypeError, r"value_cache must be a jax.Array, not NoneType"),
    ("context_lens", lambda a: a.tolist(), TypeError, r"context_lens must be .*not list"),
    ("block_tables", lambda a: 3, TypeError, r"block_tables must be .*not int"),
    ("query", lambda a: jax.random.key(0), TypeError, r"query has dtype key.*no numbers"),
    ("query", lambda a: a.astype(jnp.int32), TypeError, r"query has dtype int32, not float32"),
    ("query", lambda a: a.astype(jnp.complex64), TypeError, r"query has dtype complex64"),
    ("key_cache", lambda a: a.astype(jnp.int8), TypeError, r"key_cache has dtype int8"),
    ("key_cache", lambda a: a.astype(jnp.float8_e4m3fn), TypeError, r"key_cache has dtype float8"),
    ("value_cache", lambda a: a.astype(jnp.float16), TypeError, r"value_cache.*f16"),
    ("context_lens", lambda a: a.astype(jnp.uint32), TypeError,
     r"context_lens has dtype uint32, not int32; use context_lens.astype"),
    ("context_lens", lambda a: a.astype(jnp.float32), TypeError, r"context_lens has dtype float32"),
    ("block_tables", lambda a: a.astype(jnp.int16), TypeError, r"block_tables has dtype int16"),
    ("query", lambda a: a[0], ValueError, r"query has 2 axes, shape \(6, 40\); it must have 3"),
    ("query", lambda a: a[None], ValueError, r"query has 4 axes"),
    ("key_cache", lambda a: a[0], ValueError, r"key_cache has 3 axes, .*it must have 4"),
    ("context_lens", lambda a: a[0], ValueError, r"context_lens has 0 axes, shape \(\)"),
    ("block_tables", lambda a: a[0], ValueError, r"block_tables has 1 axes"),
    ("query", lambda a: a[:3], ValueError, r"(context_lens|query).*\b(3|4)\b"),
    ("query", lambda a: a[:, :5], ValueError, r"num_heads"),
    ("query", lambda a: a[:, :, :39], ValueError, r"39.*40|40.*39"),
    ("value_cache", lambda a: a[:1], ValueError, r"value_cache"),
    ("value_cache", lambda a: a[:, :-1], ValueError, r"value_cache"),
    ("value_cache", lambda a: a[:, :, :-1], ValueError, r"value_cache"),
    ("context_lens", lambda a: a[:3], ValueError, r"context_lens"),
    ("block_tables", lambda a: a[:3], ValueError, r"block_tables"),
]  # fmt: skip

WRONG_ENTRIES = [
    ("context_lens", with_entry(2, -1), r"context_lens\[2\] = -1"),
    ("context_lens", with_entry(2, -(2**31)), r"context_lens\[2\] = -2147483648"),
    ("context_lens", with_entry(3, 10**6), r"context_lens\[3\] = 1000000"),
    ("block_tables", with_entry((3, 17), 912), r"block_tables\[3\]\[17\] = 912 is outside \[0, "),
    ("block_tables", with_entry((0, 0), -1), r"block_tables\[0\]\[0\] = -1"),
    ("block_tables", with_entry((2, 0), 2**31 - 1), r"block_tables\[2\]\[0\] = 2147483647"),
]

WRONG_OPTIONS = [
    ("attn_scale", float("nan"), ValueError, r"attn_scale"),
    ("attn_scale", 1e39, ValueError, r"attn_scale = 1e\+39 does not fit a float32"),
    ("attn_scale", True, TypeError, r"attn_scale must be a number, not True"),
    ("attn_scale", jnp.float32(0.5), TypeError, r"attn_scale must be a Python value, .*\.item\(\)"),
    ("attn_logits_soft_cap", 0.0, ValueError, r"attn_logits_soft_cap = 0.0 .*above 0, or None"),
    ("mask_value", 1.0, ValueError, r"mask_value"),
    ("mask_value", None, TypeError, r"mask_value must be a number, not NoneType"),
    ("sliding_window", 0, ValueError, r"sliding_window = 0 is outside \[1, 2147483647\]; None"),
    ("sliding_window", jnp.int32(3), TypeError, r"sliding_window must be a Python value"),
    ("sliding_window", np.arange(3), TypeError, r"sliding_window must be an integer"),
    ("pages_per_compute_block", 2**31, ValueError, r"pages_per_compute_block = 2147483648 is"),
    ("num_splits", -1, ValueError, r"num_splits = -1 is outside \[0, 2147483647\]"),
    ("num_splits", True, TypeError, r"num_splits must be an integer, not True"),
    ("max_context_len", -1, ValueError, r"max_context_len = -1 is outside \[0, .*None"),
    ("megacore_mode", "head", ValueError, r"megacore_mode = 'head' is not one of None, 'kv_head', "),
    ("megacore_mode", [], TypeError, r"megacore_mode = \[\] is not one of"),
    ("inline_seq_dim", 1, TypeError, r"inline_seq_dim must be True or False, not 1"),
    ("kv_layout", "hnd", ValueError, r"kv_layout = 'hnd' is not one of"),
    ("kv_layout", "NHD", ValueError, r"page_size|kv_heads"),
    ("return_lse", 1, TypeError, r"return_lse must be True or False, not 1"),
    ("num_threads", 0, ValueError, r"num_threads = 0 is outside \[1, 4096\]; None"),
    ("isa", "sse", ValueError, r"isa = 'sse' is not one of"),
    ("numerics", "quick", ValueError, r"numerics = 'quick' is not one of 'exact', 'fast'"),
]  # fmt: skip


def case_id(value):
    return value if isinstance(value, str) else None


@pytest.mark.parametrize("name,change,exception,message", WRONG_ARRAYS, ids=case_id)
def test_wrong_arrays(name, change, exception, message):
    call = arrays()
    call[name] = change(call[name])
    with pytest.raises(exception, match=message):
        pageattn.jax.page_attention(**call)
    if isinstance(call[name], jax.Array):
        with pytest.raises(exception, match=message):
            jax.jit(pageattn.jax.page_attention).lower(**call)


@pytest.mark.parametrize("name,change,message", WRONG_ENTRIES, ids=case_id)
def test_wrong_entries_are_found_when_the_program_runs(name, change, message):
    call = arrays()
    right = np.asarray(pageattn.jax.page_attention(**call))
    function = jax.jit(lambda call: pageattn.jax.page_attention(**call) * 1)
    for attend in (lambda call: pageattn.jax.page_attention(**call), function):
        with pytest.raises(AT_RUN_TIME, match=message):
            jax.block_until_ready(attend({**call, name: change(call[name])}))
        assert cases.bits(np.asarray(attend(call))) == cases.bits(right), "after the error"


@pytest.mark.parametrize("name,value,exception,message", WRONG_OPTIONS, ids=case_id)
def test_wrong_options(name, value, exception, message):
    with pytest.raises(exception, match=message):
        pageattn.jax.page_attention(**arrays(), **{name: value})


def test_a_wrong_option_is_wrong_again_after_a_right_one_that_equals_it():
    call = arrays()
    pageattn.jax.page_attention(**call, num_splits=1, inline_seq_dim=True)
    with pytest.raises(TypeError, match="num_splits must be an integer, not True"):
        pageattn.jax.page_attention(**call, num_splits=True)
    with pytest.raises(TypeError, match="inline_seq_dim must be True or False, not 1"):
        pageattn.jax.page_attention(**call, inline_seq_dim=1)


@pytest.mark.parametrize("name,value", [("attn_scale", 0.5), ("sliding_window", 3), ("num_splits", 2)])
def test_traced_options(name, value):
    call = arrays()

    def attend(call, value):
        return pageattn.jax.page_attention(**call, **{name: value})

    with pytest.raises(TypeError, match=f"{name} is traced, .*static_argnames"):
        jax.jit(attend)(call, value)
    jax.jit(attend, static_argnames="value")(call, value=value)


def test_arrays_of_64_bits():
    with jax.enable_x64(True):
        call = arrays()
        for name, dtype in [("query", "float64"), ("context_lens", "int64"), ("block_tables", "int64")]:
            wrong = {**call, name: call[name].astype(dtype)}
            with pytest.raises(TypeError, match=f"{name} has dtype {dtype}.*astype"):
                pageattn.jax.page_attention(**wrong)
        expected = pageattn.page_attention(**cases.make(20, lens=LENS))
        assert cases.bits(np.asarray(pageattn.jax.page_attention(**call))) == cases.bits(expected)


def test_a_longer_sequence_than_max_context_len():
    with pytest.raises(AT_RUN_TIME, match=r"context_lens\[3\] = 300"):
        jax.block_until_ready(pageattn.jax.page_attention(**arrays(), max_context_len=299))


def test_another_kind_of_device(monkeypatch):
    """No such device is here, so a sharding that names one stands for it."""
    from pageattn.jax import _attention

    class Device:
        platform = "gpu"

        def __str__(self):
            return "cuda:0"

    class Sharding:
        device_set = {Device()}

    with pytest.raises(ValueError, match=r"query is on cuda:0, .*jax.device_put\(query, "):
        _attention._check_devices("query", Sharding())


def test_a_call_of_the_handler_that_is_not_ours():
    """As an older or newer Python part beside this library would make it."""
    call = list(arrays().values())
    result = jax.ShapeDtypeStruct(call[0].shape, call[0].dtype)

    def attend(*call, **attributes):
        return jax.block_until_ready(
            jax.ffi.ffi_call("pageattn_page_attention", result)(*call, **attributes)
        )

    with pytest.raises(AT_RUN_TIME, match="number of attributes.*same version"):
        attend(*call)
    names = [
        "attn_logits_soft_cap", "attn_scale", "inline_seq_dim", "isa", "kv_layout", "mask_value",
        "max_context_len", "megacore_mode", "num_splits", "num_threads", "numerics",
        "pages_per_compute_block", "sliding_window",
    ]  # fmt: skip
    attributes = dict.fromkeys(names, np.int32(0))
    with pytest.raises(AT_RUN_TIME, match="attribute attn_logits_soft_cap is missing, or of another"):
        attend(*call, **attributes)
    for name in ("attn_logits_soft_cap", "attn_scale", "mask_value"):
        attributes[name] = np.float32(0)
    attributes["max_context_len"] = np.int64(-1)
    attributes["inline_seq_dim"] = np.int32(1)
    attend(*call, **attributes)
    with pytest.raises(AT_RUN_TIME, match="number of buffers"):
        attend(*call[:4], **attributes)
    with pytest.raises(AT_RUN_TIME, match="axes of block_tables do not fit"):
        attend(*call[:4], call[4][0], **attributes)
    for name, value, message in [("kv_layout", 9, "key_cache"), ("isa", 9, "isa"),
                                 ("numerics", 9, "numerics"), ("sliding_window", -1, "sliding_w")]:
        with pytest.raises(AT_RUN_TIME, match=message):
            attend(*call, **{**attributes, name: np.int32(value)})
    with pytest.raises(AT_RUN_TIME, match="query"):
        attend(call[0].astype(jnp.int32), *call[1:], **attributes)
