# SPDX-License-Identifier: Apache-2.0
"""The caches are read where they lie: nothing copies them."""

import subprocess
import sys

import cases
import jax
import jax.numpy as jnp
import pageattn.jax
import pytest

# A copy of a cache would read all of it. Here every page that the call does not need is memory that
# cannot be read, so a copy ends the process with SIGSEGV; in one of its own, therefore.
GUARDED = """
import ctypes, mmap, sys
import jax, jax.numpy as jnp, numpy as np
import pageattn, pageattn.jax

PAGE = 4096
libc = ctypes.CDLL(None, use_errno=True)
rng = np.random.default_rng(1)

def guarded_cache():
    # [kv_heads, pages, page_size, head_dim]: 2 x 8 pages of 4096 bytes, of which 1 and 6 are used.
    memory = mmap.mmap(-1, 2 * 8 * PAGE)
    cache = np.frombuffer(memory, np.float32).reshape(2, 8, 16, 64)
    cache[:, [1, 6]] = rng.standard_normal((2, 2, 16, 64))
    array = jnp.from_dlpack(cache, copy=False)
    assert array.unsafe_buffer_pointer() == cache.ctypes.data, "not aliased"
    for page in range(16):
        if page % 8 not in (1, 6):
            address = ctypes.c_void_p(cache.ctypes.data + page * PAGE)
            assert libc.mprotect(address, ctypes.c_size_t(PAGE), 0) == 0
    return memory, cache, array

kept = [guarded_cache(), guarded_cache()]
(_, keys, jax_keys), (_, values, jax_values) = kept
if sys.argv[1] == "copy":
    jnp.copy(jax_keys).block_until_ready()
query = rng.standard_normal((1, 4, 64)).astype(np.float32)
lens, tables = np.array([30], np.int32), np.array([[6, 1, 3]], np.int32)
expected = pageattn.page_attention(query, keys, values, lens, tables).tobytes()

small = [jnp.asarray(x) for x in (query, lens, tables)]
def attend(query, keys, values, lens, tables):
    return pageattn.jax.page_attention(query, keys, values, lens, tables)
batched = jax.vmap(attend, (0, None, None, None, None))
both = jax.vmap(batched, (None, None, None, 0, None))
for name, function, rows in [
    ("eager", attend, small), ("jit", jax.jit(attend), small),
    ("vmap", batched, [small[0][None], *small[1:]]),
    ("jit of vmap", jax.jit(batched), [small[0][None], *small[1:]]),
    ("nested vmap", both, [small[0][None], small[1][None], small[2]]),
]:
    out = function(rows[0], jax_keys, jax_values, *rows[1:])
    assert np.asarray(out).tobytes() == expected, name
print("none was copied")
"""


def run_guarded(mode):
    command = [sys.executable, "-c", GUARDED, mode]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_unneeded_pages_of_the_caches_are_never_read():
    done = run_guarded("call")
    assert done.returncode == 0 and "none was copied" in done.stdout, (
        f"exit status {done.returncode} (-11: a page that the call does not need was read)\n"
        f"{done.stdout}{done.stderr}"
    )


def test_a_copy_would_be_noticed():
    assert run_guarded("copy").returncode == -11


def attend(*arrays):
    return pageattn.jax.page_attention(*arrays, return_lse=True)


IN_AXES = [None, (0, None, None, None, None), (0, None, None, 0, 0), (0, 0, 0, 0, 0)]


@pytest.mark.parametrize("in_axes", IN_AXES, ids=str)
def test_a_program_of_one_call_needs_no_memory_but_its_arguments_and_results(in_axes):
    arrays = [jnp.asarray(array) for array in cases.make(1).values()]
    function = attend
    if in_axes is not None:
        function = jax.vmap(attend, in_axes)
        arrays = [
            array if axis is None else jnp.stack([array] * 3) for array, axis in zip(arrays, in_axes)
        ]
    compiled = jax.jit(function).lower(*arrays).compile()
    assert compiled.memory_analysis().temp_size_in_bytes == 0
    assert " copy(" not in compiled.as_text()


def test_a_decoding_step_writes_its_caches_in_place():
    """They are donated: written where they lie, then read there."""
    call = {name: jnp.asarray(array) for name, array in cases.make(1).items()}
    row = jnp.ones((2, 4, 40), jnp.float32)

    def step(caches, query, rows, lens, tables):
        pages = tables[jnp.arange(4), jnp.maximum(lens - 1, 0) // 16]
        slots = jnp.maximum(lens - 1, 0) % 16
        caches = [cache.at[:, pages, slots].set(row) for cache, row in zip(caches, rows)]
        return caches, pageattn.jax.page_attention(query, *caches, lens, tables)

    caches = [call["key_cache"], call["value_cache"]]
    rest = (call["query"], [row, row], call["context_lens"], call["block_tables"])
    compiled = jax.jit(step, donate_argnums=0).lower(caches, *rest).compile()
    cache_bytes = caches[0].nbytes
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes == 2 * cache_bytes
    assert memory.temp_size_in_bytes < cache_bytes / 4
    addresses = [cache.unsafe_buffer_pointer() for cache in caches]
    caches, _ = compiled(caches, *rest)
    assert [cache.unsafe_buffer_pointer() for cache in caches] == addresses
