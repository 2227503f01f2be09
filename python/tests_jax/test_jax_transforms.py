# SPDX-License-Identifier: Apache-2.0
"""vmap over every kind of batch, shard_map over heads, and derivatives, of which there are none."""

import functools
import itertools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pageattn
import pageattn.jax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

NAMES = ("query", "key_cache", "value_cache", "context_lens", "block_tables")
BATCH = 3


def batch_of_calls():
    """Calls of the same shapes, whose block tables and lengths fit each other's caches: every page
    holds numbers, and every table entry is a page."""
    first = cases.make(1)
    calls = []
    for entry in range(BATCH):
        rng = np.random.default_rng(100 + entry)
        call = {name: array.copy() for name, array in first.items()}
        call["query"] = rng.standard_normal(first["query"].shape).astype(np.float32)
        for name in ("key_cache", "value_cache"):
            call[name] = rng.standard_normal(first[name].shape).astype(np.float32)
        call["context_lens"] = np.array([37 - entry, entry, 1, 300 - 17 * entry], np.int32)
        num_pages = first["key_cache"].shape[1]
        call["block_tables"] = rng.integers(
            num_pages, size=first["block_tables"].shape, dtype=np.int32
        )
        calls.append(call)
    return calls


CALLS = batch_of_calls()
BATCHED = [
    names
    for count in range(1, len(NAMES) + 1)
    for names in itertools.combinations(NAMES, count)
]


def stacked(names, axis=0):
    """The arguments of the batch: stacked where they are batched, else those of the first."""
    return [
        jnp.stack([call[name] for call in CALLS], axis) if name in names else jnp.asarray(CALLS[0][name])
        for name in NAMES
    ]


def expected_entry(names, entry, **options):
    call = {name: CALLS[entry if name in names else 0][name] for name in NAMES}
    return pageattn.page_attention(**call, **options)


@pytest.mark.parametrize("names", BATCHED, ids="-".join)
def test_vmap(names):
    in_axes = [0 if name in names else None for name in NAMES]
    out = jax.vmap(pageattn.jax.page_attention, in_axes)(*stacked(names))
    for entry in range(BATCH):
        found = cases.bits(np.asarray(out[entry]))
        assert found == cases.bits(expected_entry(names, entry)), entry


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_vmap_along_another_axis(axis):
    names = ("query", "key_cache")
    in_axes = [axis if name in names else None for name in NAMES]
    out = jax.jit(jax.vmap(pageattn.jax.page_attention, in_axes))(*stacked(names, axis))
    for entry in range(BATCH):
        found = cases.bits(np.asarray(out[entry]))
        assert found == cases.bits(expected_entry(names, entry)), entry


def test_vmap_with_options_and_log_sum_exp():
    def attend(query, lens):
        arrays = [jnp.asarray(CALLS[0][name]) for name in ("key_cache", "value_cache")]
        tables = jnp.asarray(CALLS[0]["block_tables"])
        return pageattn.jax.page_attention(
            query, *arrays, lens, tables, sliding_window=9, return_lse=True
        )

    names = ("query", "context_lens")
    out, lse = jax.vmap(attend)(stacked(names)[0], stacked(names)[3])
    for entry in range(BATCH):
        expected = expected_entry(names, entry, sliding_window=9, return_lse=True)
        found = cases.bits((np.asarray(out[entry]), np.asarray(lse[entry])))
        assert found == cases.bits(expected), entry


def test_nested_vmap():
    """Queries along the outer axis, tables and lengths along the inner one, caches along both."""
    query, keys, values, lens, tables = stacked(NAMES)
    caches = [jnp.stack([cache[::-1], cache]) for cache in (keys, values)]
    queries = query[:2]
    inner = jax.vmap(pageattn.jax.page_attention, (None, 0, 0, 0, 0))
    out = jax.jit(jax.vmap(inner, (0, 0, 0, None, None)))(queries, *caches, lens, tables)
    for o, i in itertools.product(range(2), range(BATCH)):
        of_cache = BATCH - 1 - i if o == 0 else i
        call = {
            "query": CALLS[o]["query"],
            "key_cache": CALLS[of_cache]["key_cache"],
            "value_cache": CALLS[of_cache]["value_cache"],
            "context_lens": CALLS[i]["context_lens"],
            "block_tables": CALLS[i]["block_tables"],
        }
        expected = pageattn.page_attention(**call)
        assert cases.bits(np.asarray(out[o, i])) == cases.bits(expected), (o, i)


def test_an_empty_batch():
    query, *others = stacked(("query",))
    out = jax.vmap(pageattn.jax.page_attention, (0, None, None, None, None))(query[:0], *others)
    assert out.shape == (0, *CALLS[0]["query"].shape)


def test_an_error_in_a_batch_names_the_entry():
    query, keys, values, lens, tables = stacked(("block_tables",))
    tables = tables.at[2, 0, 1].set(-5)
    attend = jax.vmap(pageattn.jax.page_attention, (None, None, None, None, 0))
    message = r"block_tables\[0\]\[1\] = -5 is outside \[0, \d+\) \(in entry 2 of the 3 of vmap\)"
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=message):
        jax.block_until_ready(attend(query, keys, values, lens, tables))


def test_an_error_where_only_the_caches_are_shared_counts_through_the_batch():
    names = ("query", "context_lens", "block_tables")
    query, keys, values, lens, tables = stacked(names)
    tables = tables.at[2, 0, 1].set(-5)
    attend = jax.vmap(pageattn.jax.page_attention, (0, None, None, 0, 0))
    message = r"block_tables\[8\]\[1\] = -5 is .*\(sequences are counted through the 3 entries of vmap"
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=message):
        jax.block_until_ready(attend(query, keys, values, lens, tables))


def test_each_entry_must_have_an_even_number_of_sequences_to_halve():
    """Two entries of three sequences are no batch of six."""
    arrays = [jnp.asarray(CALLS[0][name]) for name in NAMES]
    in_axes = (0, None, None, 0, 0)

    def attend(num_seqs):
        batch = [
            array if axis is None else jnp.stack([array[:num_seqs]] * 2)
            for array, axis in zip(arrays, in_axes)
        ]
        function = functools.partial(pageattn.jax.page_attention, megacore_mode="batch")
        return jax.vmap(function, in_axes)(*batch)

    expected = cases.bits(expected_entry((), 0))
    assert [cases.bits(np.asarray(out)) for out in attend(4)] == [expected] * 2
    with pytest.raises(ValueError, match="num_seqs.*even|megacore_mode"):
        attend(3)


# ---- several devices ---------------------------------------------------------------------------

HEADS = (P(None, "heads"), P("heads"), P("heads"), P(), P())


def sharded(layout="HND_pages"):
    mesh = jax.make_mesh((2,), ("heads",))
    specs = list(HEADS)
    specs[1] = specs[2] = P(*("heads" if axis == 0 else None for axis in cases.LAYOUT_AXES[layout]))
    call = cases.in_layout(cases.make(11, num_heads=8, num_kv_heads=4), layout)
    del call["kv_layout"]
    arrays = [jax.device_put(call[n], NamedSharding(mesh, s)) for n, s in zip(NAMES, specs)]
    expected = pageattn.page_attention(**call, kv_layout=layout, return_lse=True)
    return mesh, tuple(specs), arrays, expected


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("layout", ["HND_pages", "pages_HND", "pages_NHD"])
def test_shard_map_over_heads(layout, check_vma):
    mesh, specs, arrays, expected = sharded(layout)

    def attend(*shards):
        assert shards[0].shape[1] == 4, "half of the heads"
        return pageattn.jax.page_attention(*shards, kv_layout=layout, return_lse=True)

    out_specs = (P(None, "heads"), P(None, "heads"))
    function = jax.shard_map(
        attend, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=check_vma
    )
    for way in (function, jax.jit(function)):
        result = way(*arrays)
        assert len(result[0].sharding.device_set) == 2
        assert cases.bits(tuple(map(np.asarray, result))) == cases.bits(expected)
    compiled = jax.jit(function).lower(*arrays).compile().as_text()
    assert "all-gather" not in compiled and "copy" not in compiled


def test_arrays_that_are_sharded_without_shard_map():
    _, _, arrays, expected = sharded()
    for function in (pageattn.jax.page_attention, jax.jit(pageattn.jax.page_attention)):
        assert cases.bits(np.asarray(function(*arrays))) == cases.bits(expected[0])


# ---- derivatives -------------------------------------------------------------------------------


def attend_to_first(query):
    others = [jnp.asarray(CALLS[0][name]) for name in NAMES[1:]]
    return pageattn.jax.page_attention(query, *others)


@pytest.mark.parametrize("outer", [lambda f: f, jax.jit])
@pytest.mark.parametrize("inner", [lambda f: f, jax.jit])
def test_a_derivative_is_refused(outer, inner):
    derivative = outer(jax.grad(lambda query: inner(attend_to_first)(query).sum()))
    with pytest.raises(NotImplementedError, match="no derivative.*stop_gradient"):
        derivative(jnp.asarray(CALLS[0]["query"]))


def test_jvp_and_a_derivative_by_the_cache_are_refused():
    query = jnp.asarray(CALLS[0]["query"])
    with pytest.raises(NotImplementedError, match="no derivative"):
        jax.jvp(attend_to_first, (query,), (query,))

    def by_cache(keys):
        others = [jnp.asarray(CALLS[0][name]) for name in NAMES[2:]]
        return pageattn.jax.page_attention(query, keys, *others).sum()

    with pytest.raises(NotImplementedError, match="no derivative"):
        jax.grad(by_cache)(jnp.asarray(CALLS[0]["key_cache"]))


@pytest.mark.parametrize("outer", [lambda f: f, jax.jit])
def test_stop_gradient_lets_other_derivatives_through(outer):
    def loss(query):
        return (query * attend_to_first(jax.lax.stop_gradient(query))).sum()

    gradient = outer(jax.grad(loss))(jnp.asarray(CALLS[0]["query"]))
    assert cases.bits(np.asarray(gradient)) == cases.bits(expected_entry((), 0))


# ---- ahead of time -----------------------------------------------------------------------------


def test_compiled_ahead_of_time():
    arrays = [jnp.asarray(CALLS[0][name]) for name in NAMES]
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
    compiled = jax.jit(pageattn.jax.page_attention).lower(*shapes).compile()
    assert cases.bits(np.asarray(compiled(*arrays))) == cases.bits(expected_entry((), 0))
    shape = jax.eval_shape(pageattn.jax.page_attention, *shapes)
    assert (shape.shape, shape.dtype) == (arrays[0].shape, arrays[0].dtype)
