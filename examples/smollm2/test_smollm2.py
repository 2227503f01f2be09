# SPDX-License-Identifier: Apache-2.0
"""Tests of the example's parts. Run as `python -m pytest examples/smollm2`.

All but the last run without the model's weights: the scheduler serves a tiny model of random
numbers, through pageattn, and its answers are compared with those of dense attention.
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dense import dense_log_probabilities, largest_difference
from display import LiveDisplay, PlainDisplay, Style, printable, tail, width_of
from engine import CannotServe
from model import Config, Layer, Model
from numpy_engine import NumpyEngine
from paged_cache import PagePool
from rows import build_rows
from serve import Sequence, Server

SEED = 20
VOCABULARY = 50
END_TOKEN = 7


def tiny_model() -> Model:
    config = Config(
        num_layers=2,
        num_heads=6,
        num_kv_heads=2,
        head_dim=8,
        context_length=64,
        rope_base=1e4,
        norm_epsilon=1e-5,
    )
    generator = np.random.default_rng(SEED)
    model_dim, ffn_dim = 24, 40
    qkv_dim = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim

    def matrix(*shape):
        return generator.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))

    def layer():
        return Layer(
            attention_norm=np.ones(model_dim, np.float32),
            query_key_value=2 * matrix(model_dim, qkv_dim),
            attention_output=matrix(config.num_heads * config.head_dim, model_dim),
            ffn_norm=np.ones(model_dim, np.float32),
            gate_up=matrix(model_dim, 2 * ffn_dim),
            down=matrix(ffn_dim, model_dim),
        )

    return Model(
        config=config,
        embedding=generator.standard_normal((VOCABULARY, model_dim), np.float32),
        layers=[layer() for _ in range(config.num_layers)],
        output_norm=np.ones(model_dim, np.float32),
    )


def random_prompts(num_prompts: int, num_shared: int) -> list[list[int]]:
    """Prompts of different lengths that begin with the same tokens."""
    generator = np.random.default_rng(SEED + 1)
    shared = generator.integers(8, VOCABULARY, num_shared).tolist()
    return [
        shared + generator.integers(8, VOCABULARY, 1 + i % 4).tolist() for i in range(num_prompts)
    ]


def tiny_server(pool: PagePool) -> Server:
    return Server(NumpyEngine(tiny_model(), pool), pool, END_TOKEN)


def serve(prompts, num_pages, page_size=4, max_new_tokens=9):
    """Serves the prompts to the end: (server, sequences as submitted, as finished)."""
    server = tiny_server(PagePool(num_pages, page_size))
    sequences = [
        Sequence(f"prompt {i}", list(prompt), max_new_tokens) for i, prompt in enumerate(prompts)
    ]
    for sequence in sequences:
        server.submit(sequence)
    finished = []
    while server.waiting or server.running:
        finished += server.step()
        held = {page for sequence in server.running for page in sequence.pages}
        assert len(held) == num_pages - server.pool.num_free, "a page is neither held nor free"
    return server, sequences, finished


class TestPagePool:
    def test_a_page_is_free_after_its_last_release(self):
        pool = PagePool(num_pages=2, page_size=4)
        page = pool.allocate()
        pool.share(page)
        pool.release(page)
        assert pool.num_free == 1
        pool.release(page)
        assert pool.num_free == 2

    def test_counts(self):
        pool = PagePool(num_pages=2, page_size=4)
        first, second = pool.allocate(), pool.allocate()
        pool.share(first)
        pool.release(second)
        assert pool.allocate() == second
        assert pool.counts.most_in_use == 2
        assert pool.counts.reused == 1
        assert pool.counts.shared_pages == {first}
        assert pool.counts.shared_references == 1

    def test_prefix_is_found_page_by_page(self):
        pool = PagePool(num_pages=3, page_size=2)
        pages = [pool.allocate([1, 2]), pool.allocate([1, 2, 3, 4])]
        assert pool.find_prefix([1, 2, 3, 4, 5]) == pages
        assert pool.find_prefix([1, 2, 3, 9]) == pages[:1]
        assert pool.find_prefix([1]) == []
        assert pool.find_prefix([3, 4, 1, 2]) == []

    def test_prefix_is_forgotten_with_its_page(self):
        pool = PagePool(num_pages=1, page_size=2)
        pool.release(pool.allocate([1, 2]))
        assert pool.find_prefix([1, 2]) == []

    def test_second_page_of_the_same_prefix_leaves_the_first_known(self):
        pool = PagePool(num_pages=2, page_size=2)
        first, second = pool.allocate([1, 2]), pool.allocate([1, 2])
        pool.release(second)
        assert pool.find_prefix([1, 2]) == [first]

    def test_wrong_use_is_refused(self):
        pool = PagePool(num_pages=1, page_size=2)
        with pytest.raises(AssertionError, match="page 0 is free"):
            pool.share(0)
        with pytest.raises(AssertionError, match="page 0 is released more often"):
            pool.release(0)


def test_rows_mix_a_prompt_and_a_decoding_sequence():
    prompt = Sequence("prompt", [10, 11, 12, 13, 14], max_new_tokens=4)
    prompt.pages, prompt.num_cached = [5, 2], 3
    decoding = Sequence("decoding", [20, 21], max_new_tokens=4)
    decoding.tokens += [22]
    decoding.pages, decoding.num_cached = [7], 2
    rows = build_rows([prompt, decoding], page_size=3)
    assert rows.tokens.tolist() == [13, 14, 22]
    assert rows.positions.tolist() == [3, 4, 2]
    assert rows.pages.tolist() == [2, 2, 7]
    assert rows.slots.tolist() == [0, 1, 2]
    assert rows.context_lens.tolist() == [4, 5, 3]
    assert rows.block_tables.tolist() == [[5, 2], [5, 2], [7, -1]]
    assert rows.last_rows.tolist() == [1, 2]


class TestServing:
    @pytest.mark.parametrize("num_pages", [6, 11, 60])
    def test_answers_are_those_of_dense_attention(self, num_pages):
        server, sequences, finished = serve(random_prompts(9, num_shared=8), num_pages)
        assert sorted(s.name for s in finished) == [s.name for s in sequences]
        assert server.pool.num_free == num_pages
        assert largest_difference(server.engine.model, sequences) < 1e-4

    def test_answers_do_not_depend_on_the_pool(self):
        prompts = random_prompts(9, num_shared=8)
        small, large = serve(prompts, 6)[1], serve(prompts, 60)[1]
        assert [s.generated for s in small] == [s.generated for s in large]

    def test_small_pool_reuses_pages_and_lets_sequences_wait(self):
        server, sequences, _ = serve(random_prompts(9, num_shared=8), 11)
        assert server.pool.counts.reused > 0
        assert 1 < server.timings.most_running < len(sequences)

    def test_shared_pages_are_computed_once(self):
        prompts = random_prompts(5, num_shared=8)
        server, _, _ = serve(prompts, 60)
        assert server.timings.prompt_tokens == 8 + sum(len(prompt) - 8 for prompt in prompts)
        assert len(server.pool.counts.shared_pages) == 2
        assert server.pool.counts.shared_references == 2 * 4

    def test_the_same_prompt_twice_still_computes_its_last_token(self):
        prompt = random_prompts(1, num_shared=7)[0]
        assert len(prompt) == 8
        server, sequences, _ = serve([prompt, prompt], 60)
        assert server.timings.prompt_tokens == 8 + 4
        assert sequences[0].generated == sequences[1].generated

    def test_an_answer_ends_at_the_end_token_or_the_limit(self):
        _, sequences, _ = serve(random_prompts(9, num_shared=8), 60)
        for sequence in sequences:
            assert END_TOKEN not in sequence.generated[:-1], sequence.name
            assert sequence.generated[-1] == END_TOKEN or len(sequence.generated) == 9, (
                sequence.name
            )

    def test_one_token_answers(self):
        server, sequences, _ = serve(random_prompts(3, num_shared=8), 3, max_new_tokens=1)
        assert [len(s.generated) for s in sequences] == [1, 1, 1]
        assert server.timings.decode_tokens == 0

    def test_a_prompt_that_can_never_fit_is_refused(self):
        server = tiny_server(PagePool(3, 4))
        with pytest.raises(
            CannotServe, match="long: prompt and answer may need 4 pages, the pool has 3"
        ):
            server.submit(Sequence("long", [9] * 10, max_new_tokens=4))
        with pytest.raises(CannotServe, match="may reach 74 tokens, the model reads at most 64"):
            server.submit(Sequence("long", [9] * 10, max_new_tokens=64))

    def test_wrong_attention_options_are_refused(self):
        with pytest.raises(CannotServe):
            NumpyEngine(tiny_model(), PagePool(3, 4), isa="abacus")


class TestCheck:
    def test_finds_a_wrong_log_probability(self):
        server, sequences, _ = serve(random_prompts(3, num_shared=8), 60)
        sequences[1].log_probabilities[2] += 0.01
        assert largest_difference(server.engine.model, sequences) == pytest.approx(0.01, rel=0.01)

    def test_does_not_pass_over_nan(self):
        server, sequences, _ = serve(random_prompts(3, num_shared=8), 60)
        sequences[1].log_probabilities[2] = float("nan")
        assert np.isnan(largest_difference(server.engine.model, sequences))

    def test_attends_to_all_earlier_tokens_and_no_later_one(self):
        tokens = random_prompts(1, num_shared=10)[0]
        model = tiny_model()
        before = dense_log_probabilities(model, tokens, num_prompt_tokens=1)
        first, last = list(tokens), list(tokens)
        first[0] ^= 1
        last[-1] ^= 1
        assert (dense_log_probabilities(model, first, num_prompt_tokens=1) != before).all()
        assert (dense_log_probabilities(model, last, num_prompt_tokens=1)[:-1] == before[:-1]).all()


class TestDisplay:
    def test_tail_fits_and_keeps_the_end(self):
        assert tail("one two", 7) == "one two"
        assert tail("one two three", 9) == "... three"
        assert width_of(tail("日本語のテキスト", 9)) <= 9

    def test_control_characters_do_not_reach_the_terminal(self):
        assert printable("a\x1b[2Jb\nc\r") == "a[2Jb\nc"

    def test_pipe_gets_plain_lines(self):
        stream = io.StringIO()
        display = PlainDisplay(stream, Style(False))
        display.update([(1, "one")], "status")
        display.complete(1, "question", "first line\nsecond line", "")
        display.close()
        assert stream.getvalue() == "  1 question\n    first line\n    second line\n\n"

    def test_terminal_lines_fit(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("LINES", "24")
        stream = io.StringIO()
        display = LiveDisplay(stream, Style(False))
        display.update([(i, "word " * 100) for i in range(40)], "status " * 40)
        lines = stream.getvalue().split("\n")[:-1]
        assert len(lines) == 23
        assert max(map(len, lines)) < 80
        stream.truncate(stream.seek(0))
        display.complete(1, "question", "word " * 100, "stopped at 100 tokens")
        erase, *lines = stream.getvalue().partition("\x1b[J")[1:][-1].split("\n")
        assert max(map(len, lines)) <= 80


@pytest.fixture(scope="module")
def tokenizer():
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("tokenizers")
    from tokenizer import ChatTokenizer
    from weights import WeightsNotFound, find_weights

    try:
        return ChatTokenizer.from_gguf(gguf.GGUFReader(find_weights()))
    except WeightsNotFound as error:
        pytest.skip(str(error))


class TestTokenizer:
    @pytest.mark.parametrize(
        "text", ["Hello, world!", "  two spaces\n\n\ttab", "1234 × 5", "naïve café 日本語 🙂", ""]
    )
    def test_round_trip(self, tokenizer, text):
        assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_special_tokens_come_first(self, tokenizer):
        assert tokenizer.end_token == 2
        assert tokenizer.encode("<|im_start|>a<|im_end|>")[::2] == [1, 2]

    def test_each_digit_stands_alone(self, tokenizer):
        assert len(tokenizer.encode("20458")) == 5

    def test_chat_form(self, tokenizer):
        tokens = tokenizer.encode_chat("Be brief.", "Hi")
        text = tokenizer.bpe.decode(tokens, skip_special_tokens=False)
        expected = (
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        )
        assert text == expected
        assert [tokens.count(1), tokens.count(2)] == [3, 2]
        assert tokens[:3] == [1, 9690, 198]

    def test_half_a_character_is_not_shown(self, tokenizer):
        tokens = tokenizer.encode("ok 🙂")
        assert tokenizer.decode(tokens[:-1]).strip() == "ok"


def test_full_disk_is_a_sentence(tokenizer):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, Path(__file__).parent, "--max-new-tokens", "1", "--no-check"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "smollm2: standard output: No space left on device\n"
