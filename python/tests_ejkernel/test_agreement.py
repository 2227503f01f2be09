# SPDX-License-Identifier: Apache-2.0
"""On the arguments that ejkernel's XLA path and its TPU kernel support, pageattn agrees with them.

Called as ejkernel's users call it, it has the bits of pageattn.page_attention.
"""

import functools

import cases
import calls
import ejkernel.kernels._xla.page_attention
import ejkernel.modules
import jax
import numpy as np
import pageattn
import pageattn.ejkernel
import pytest
from jax.sharding import PartitionSpec as P

pytestmark = pytest.mark.usefixtures("registered")

# f32: both sum in float32, of logits up to 20. Else pageattn rounds its result to the query's type.
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}


def random_call(seed):
    """One of any shape that ejkernel's XLA path can do."""
    rng = np.random.default_rng(seed)
    num_kv_heads = int(rng.choice([1, 2, 3, 4]))
    page_size = int(rng.choice([1, 8, 16, 32]))
    return calls.make(
        seed,
        lens=rng.integers(1, 12 * page_size, int(rng.integers(1, 6))).tolist(),
        num_heads=num_kv_heads * int(rng.choice([1, 2, 3, 8])),
        num_kv_heads=num_kv_heads,
        head_dim=int(rng.choice([16, 64, 80, 128])),
        page_size=page_size,
        query_dtype=cases.DTYPES[str(rng.choice(["float32", "float16", "bfloat16"]))],
        kv_dtype=cases.DTYPES[str(rng.choice(["float32", "float16", "bfloat16"]))],
    )


@pytest.mark.parametrize("layout", ["HND_pages", "pages_HND"])
@pytest.mark.parametrize("seed", range(12))
def test_with_the_xla_path(seed, layout):
    call = random_call(seed)
    if layout == "pages_HND":
        call = calls.pages_first(call)
    out = np.asarray(ejkernel.modules.page_attention(*calls.in_jax(call)))
    assert cases.bits(out) == cases.bits(pageattn.page_attention(**call, kv_layout=layout))
    assert calls.difference(out, calls.xla(call)) < TOLERANCE[call["query"].dtype.name]


@pytest.mark.parametrize("seed", range(4))
def test_with_the_xla_path_and_a_scale(seed):
    call = calls.make(seed)
    out = np.asarray(ejkernel.modules.page_attention(*calls.in_jax(call), attn_scale=0.7))
    assert calls.difference(out, calls.xla(call, attn_scale=0.7)) < TOLERANCE["float32"]


@pytest.mark.parametrize("seed", [21, 22])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attn_scale": 0.3, "pages_per_compute_block": 2},
        {"attn_logits_soft_cap": 2.0},
        {"sliding_window": 20},
        {"sliding_window": 1, "attn_logits_soft_cap": 5.0},
        {"inline_seq_dim": False, "sliding_window": 33, "attn_logits_soft_cap": 1.0},
        {"pages_per_compute_block": 1, "inline_seq_dim": False},
    ],
    ids=str,
)
def test_with_the_tpu_kernel(options, seed):
    lens = np.random.default_rng(seed).integers(1, 65, 3).tolist()
    call = calls.make(seed, lens, head_dim=128)
    out = np.asarray(ejkernel.modules.page_attention(*calls.in_jax(call), **options))
    assert cases.bits(out) == cases.bits(pageattn.page_attention(**call, **options))
    assert calls.difference(out, calls.pallas(call, **options)) < TOLERANCE["float32"]


@pytest.mark.parametrize(
    "sizes", [{"num_heads": 16}, {"num_heads": 6, "num_kv_heads": 6, "page_size": 8}], ids=str
)
def test_with_the_tpu_kernel_in_other_shapes(sizes):
    call = calls.make(24, head_dim=128, **sizes)
    out = np.asarray(ejkernel.modules.page_attention(*calls.in_jax(call)))
    assert calls.difference(out, calls.pallas(call)) < TOLERANCE["float32"]


# What ejkernel's XLA path refuses or ignores.
OPTIONS = [
    {"attn_logits_soft_cap": 3.0},
    {"max_context_len": 64},
    {"num_splits": 3},
    {"pages_per_compute_block": 3},
    {"megacore_mode": "kv_head"},
    {"megacore_mode": "batch"},
    {"inline_seq_dim": False},
    {"sliding_window": 20},
    {"sliding_window": 20, "mask_value": -3.0},
    {"sliding_window": 20, "mask_value": float("-inf")},
    {
        "attn_scale": 0.4,
        "num_splits": 2,
        "attn_logits_soft_cap": 3.0,
        "megacore_mode": "batch",
        "inline_seq_dim": False,
        "sliding_window": 40,
        "pages_per_compute_block": 1,
        "max_context_len": 60,
    },
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_argument_works_by_every_way(options):
    call = calls.make(31, lens=(37, 1, 50, 17))
    arrays = calls.in_jax(call)
    expected = cases.bits(pageattn.page_attention(**call, **options))
    public = functools.partial(ejkernel.modules.page_attention, **options)
    raw = functools.partial(ejkernel.kernels._xla.page_attention, **options)
    for name, function in [
        ("public", public),
        ("platform=xla", functools.partial(public, platform="xla")),
        ("raw", raw),
        ("raw with GPU options", functools.partial(raw, num_warps=8, num_stages=2)),
        ("public in jit", jax.jit(public)),
        ("raw in jit", jax.jit(raw)),
    ]:
        assert cases.bits(np.asarray(function(*arrays))) == expected, name


def test_positional_arguments():
    call = calls.make(32)
    out = ejkernel.kernels._xla.page_attention(*calls.in_jax(call), 0.3, 64, 2)
    expected = pageattn.page_attention(**call, attn_scale=0.3)
    assert cases.bits(np.asarray(out)) == cases.bits(expected)


@pytest.mark.parametrize("num_splits", [0, 4])
def test_a_configuration(num_splits):
    from ejkernel.modules.operations.configs import PageAttentionConfig

    call = calls.make(33)
    cfg = PageAttentionConfig(num_splits=num_splits, pages_per_compute_block=2)
    out = ejkernel.modules.page_attention(*calls.in_jax(call), cfg=cfg)
    assert cases.bits(np.asarray(out)) == cases.bits(pageattn.page_attention(**call))


def test_vmap():
    batch = [calls.in_jax(calls.make(seed)) for seed in (34, 35)]
    stacked = [jax.numpy.stack(arrays) for arrays in zip(*batch)]
    out = np.asarray(jax.vmap(ejkernel.kernels._xla.page_attention)(*stacked))
    for row, arrays in zip(out, batch):
        expected = np.asarray(ejkernel.kernels._xla.page_attention(*arrays))
        assert cases.bits(row) == cases.bits(expected)


def test_shard_map_over_heads():
    call = calls.make(36, num_heads=8, num_kv_heads=4)
    mesh = jax.make_mesh((2,), ("heads",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, caches, whole = P(None, "heads"), P("heads"), P()
    pageattn.ejkernel.register(kv_layout="HND_pages")
    sharded = jax.jit(
        jax.shard_map(
            ejkernel.modules.page_attention,
            mesh=mesh,
            in_specs=(rows, caches, caches, whole, whole),
            out_specs=rows,
        )
    )
    out = np.asarray(sharded(*calls.in_jax(call)))
    assert cases.bits(out) == cases.bits(pageattn.page_attention(**call))


def test_an_option_that_is_traced():
    arrays = calls.in_jax(calls.make(37))
    with pytest.raises(TypeError, match="attn_scale is traced"):
        jax.jit(lambda scale: ejkernel.modules.page_attention(*arrays, attn_scale=scale))(0.1)
