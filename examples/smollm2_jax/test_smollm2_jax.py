# SPDX-License-Identifier: Apache-2.0
"""Tests of the engine in JAX. Run as `python -m pytest examples/smollm2_jax`.

It serves what the engine in NumPy serves; the tokens and their log-probabilities are compared. All
but the last test run with a tiny model of random numbers.
"""

import re

import jax
import numpy as np
import pytest

from dense import largest_difference
from jax_engine import JaxEngine, round_up
from numpy_engine import NumpyEngine
from paged_cache import PagePool
from serve import Sequence, Server
from test_smollm2 import END_TOKEN, random_prompts, tiny_model


def serve(engine_type, model, prompts, num_pages, page_size=4, max_new_tokens=9, **options):
    """Serves the prompts to the end: (server, sequences)."""
    pool = PagePool(num_pages, page_size)
    server = Server(engine_type(model, pool, **options), pool, END_TOKEN)
    sequences = [
        Sequence(f"prompt {i}", list(prompt), max_new_tokens) for i, prompt in enumerate(prompts)
    ]
    for sequence in sequences:
        server.submit(sequence)
    while server.waiting or server.running:
        server.step()
    return server, sequences


def difference_of_log_probabilities(ours, theirs) -> float:
    """Largest over all tokens; the answers must be the same."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.generated == b.generated, a.name
    return max(
        np.abs(np.subtract(a.log_probabilities, b.log_probabilities)).max()
        for a, b in zip(ours, theirs)
    )


@pytest.mark.parametrize("num_pages", [6, 60])
def test_answers_are_those_of_the_numpy_engine(num_pages):
    model, prompts = tiny_model(), random_prompts(9, num_shared=8)
    ours = serve(JaxEngine, model, prompts, num_pages)[1]
    theirs = serve(NumpyEngine, model, prompts, num_pages)[1]
    assert difference_of_log_probabilities(ours, theirs) < 1e-4
    assert largest_difference(model, ours) < 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_caches(dtype):
    model, prompts = tiny_model(), random_prompts(3, num_shared=8)
    _, ours = serve(JaxEngine, model, prompts, 60, dtype=jax.numpy.dtype(dtype))
    assert largest_difference(model, ours, jax.numpy.dtype(dtype)) < 5e-2


def test_more_prompts_than_the_smallest_program_has_rows():
    model, prompts = tiny_model(), random_prompts(40, num_shared=8)
    server, ours = serve(JaxEngine, model, prompts, 200)
    assert server.timings.most_running == 40
    assert largest_difference(model, ours) < 1e-4
    assert set(server.engine.programs) <= {(n, m) for n in (8, 32, 128, 512) for m in (8, 32, 128)}


def test_sizes():
    assert [round_up(n) for n in (1, 8, 9, 32, 33, 513)] == [8, 8, 32, 32, 128, 2048]


class TestCache:
    """With pages larger than all else, so that a copy of a cache array cannot be overlooked."""

    def make_server(self):
        pool = PagePool(num_pages=50, page_size=16)
        server = Server(JaxEngine(tiny_model(), pool), pool, END_TOKEN)
        server.submit(Sequence("prompt", [9] * 5, max_new_tokens=20))
        return server

    def test_stays_where_it_is(self):
        server = self.make_server()
        before = [array.unsafe_buffer_pointer() for array in jax.tree.leaves(server.engine.cache)]
        for _ in range(3):
            server.step()
        after = [array.unsafe_buffer_pointer() for array in jax.tree.leaves(server.engine.cache)]
        assert after == before

    def test_programs_copy_none_of_it(self):
        server = self.make_server()
        server.step()
        (program,) = server.engine.programs.values()
        cache_bytes = sum(array.nbytes for array in jax.tree.leaves(server.engine.cache))
        memory = program.memory_analysis()
        assert memory.alias_size_in_bytes == cache_bytes
        assert memory.temp_size_in_bytes < server.engine.cache.keys[0].nbytes
        shape = ",".join(map(str, server.engine.cache.keys[0].shape))
        made = re.findall(rf"= f32\[{shape}\]\S* (\S+)\(", program.as_text())
        assert set(made) <= {"parameter", "scatter", "fusion", "get-tuple-element", "while"}, made

    def test_only_the_slots_of_tokens_are_written(self):
        server = self.make_server()
        server.step()
        (sequence,) = server.running
        for array in jax.tree.leaves(server.engine.cache):
            is_written = ~np.isnan(np.asarray(array)).all(axis=(0, 3))
            expected = np.zeros_like(is_written)
            expected[sequence.pages[0], :5] = True
            assert (is_written == expected).all()


def test_the_real_model():
    gguf = pytest.importorskip("gguf")
    from tokenizer import ChatTokenizer
    from weights import WeightsNotFound, find_weights, load_model

    try:
        reader = gguf.GGUFReader(find_weights())
    except WeightsNotFound as error:
        pytest.skip(str(error))
    tokenizer, model = ChatTokenizer.from_gguf(reader), load_model(reader)
    prompts = [
        tokenizer.encode_chat("Be brief.", question)
        for question in ("Why is the sky blue?", "What is 12 times 3?")
    ]
    options = {"num_pages": 16, "page_size": 16, "max_new_tokens": 12}
    ours = serve(JaxEngine, model, prompts, **options)[1]
    theirs = serve(NumpyEngine, model, prompts, **options)[1]
    assert difference_of_log_probabilities(ours, theirs) < 1e-3
