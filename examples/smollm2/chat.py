# SPDX-License-Identifier: Apache-2.0
"""The whole job: load the model, serve the prompts, print the table, check the probabilities."""

import argparse
import time

import gguf

from dense import largest_difference
from display import make_display
from engine import kv_dtype
from paged_cache import PagePool
from report import print_table, summary
from serve import Sequence, Server
from tokenizer import ChatTokenizer
from weights import find_weights, load_model

SYSTEM_PROMPT = (
    "You are a kind and patient teacher. Answer the question of the user directly, in simple "
    "words that a child understands. Use two or three short sentences, and stop when the question "
    "is answered."
)
PROMPTS = [
    "What is the capital of France?",
    "Why is the sky blue?",
    "Tell me a short story about a dragon who is afraid of fire.",
    "How far away is the Moon?",
    "Give me three tips for sleeping better.",
    "What is 12 times 3?",
    "What is gravity?",
    "What is a good name for a cat?",
    "What is music?",
    "How many days are in a week?",
]
# Dense attention rounds its keys and values to the cache's type too. But a float32 key that differs
# in its last bit is rounded to the other neighbour now and then, and 30 layers amplify that.
LOG_PROBABILITY_LIMIT = {"f32": 1e-3, "f16": 1e-2, "bf16": 1e-1}


def run(options: argparse.Namespace, make_engine, stream) -> int:
    """Returns the exit status: 0, or 1 if the check failed.

    make_engine(model, pool, options) makes the engine that serves.
    """
    display = make_display(stream)
    tokenizer, model = load(display)
    pool = PagePool(options.pages, options.page_size)
    server = Server(make_engine(model, pool, options), pool, tokenizer.end_token)
    print(f"attention by {server.engine.description}\n", file=stream, flush=True)
    sequences = [
        Sequence(
            f"prompt {number}", tokenizer.encode_chat(SYSTEM_PROMPT, prompt), options.max_new_tokens
        )
        for number, prompt in enumerate(options.prompt or PROMPTS, 1)
    ]
    for sequence in sequences:
        server.submit(sequence)
    serve_all(server, sequences, options.prompt or PROMPTS, tokenizer, display)
    print_table(summary(server), stream)
    return 0 if options.no_check else check(model, sequences, options.kv_type, display)


def load(display):
    start = time.perf_counter()
    display.update([], "reading SmolLM2-135M-Instruct ...")
    reader = gguf.GGUFReader(find_weights())
    tokenizer, model = ChatTokenizer.from_gguf(reader), load_model(reader)
    display.close()
    seconds = time.perf_counter() - start
    print(f"SmolLM2-135M-Instruct, in float32, read in {seconds:.1f} s", file=display.stream)
    return tokenizer, model


def serve_all(server, sequences, prompts, tokenizer, display) -> None:
    number_of = {sequence: number for number, sequence in enumerate(sequences, 1)}
    try:
        while server.waiting or server.running:
            for sequence in server.step():
                is_cut = sequence.tokens[-1] != server.end_token
                ending = f"stopped at {sequence.max_new_tokens} tokens" if is_cut else ""
                number = number_of[sequence]
                display.complete(
                    number, prompts[number - 1], tokenizer.decode(sequence.generated), ending
                )
            growing = [(number_of[s], tokenizer.decode(s.generated)) for s in server.running]
            display.update(growing, status_line(server))
    finally:
        display.close()


def status_line(server) -> str:
    in_use = server.pool.num_pages - server.pool.num_free
    queue = f"{len(server.running)} running, {len(server.waiting)} waiting"
    return f"{queue}, {in_use} of {server.pool.num_pages} pages in use"


def check(model, sequences, kv_type: str, display) -> int:
    display.update([], "checking with dense attention ...")
    difference = largest_difference(model, sequences, kv_dtype(kv_type))
    display.close()
    limit = LOG_PROBABILITY_LIMIT[kv_type]
    num_tokens = sum(len(sequence.generated) for sequence in sequences)
    # Not `difference > limit`: a NaN must fail.
    is_good = difference <= limit
    verdict = display.style.good("ok") if is_good else display.style.bad("FAILED")
    print(
        f"\ncheck: {num_tokens} log-probabilities within {difference:.1e} of dense attention, "
        f"limit {limit:.0e}: {verdict}",
        file=display.stream,
    )
    return 0 if is_good else 1
