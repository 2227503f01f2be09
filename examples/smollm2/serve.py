# SPDX-License-Identifier: Apache-2.0
"""Continuous batching: sequences join when there is room, all running ones advance in one step,
finished ones leave.

Admission is in order of arrival and by reservation: a sequence joins when the free pages, less
those that the running sequences may still take, hold the longest answer it may give. So nobody who
has begun ever runs out of pages, and nothing has to be evicted and computed again.
"""

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from engine import CannotServe, Engine
from paged_cache import PagePool
from rows import Rows, build_rows


@dataclass(eq=False)
class Sequence:
    """One prompt and its answer so far."""

    name: str
    tokens: list[int]  # the prompt's, then the generated ones
    max_new_tokens: int
    num_prompt_tokens: int = field(init=False)
    num_cached: int = 0  # leading tokens whose keys and values are in the cache
    pages: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)  # of each generated token

    def __post_init__(self):
        self.num_prompt_tokens = len(self.tokens)

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.num_prompt_tokens :]

    @property
    def most_cached(self) -> int:
        """Tokens in the cache with the longest answer, whose last token is never fed back."""
        return self.num_prompt_tokens + self.max_new_tokens - 1


@dataclass
class Timings:
    """Where the time went.

    A step with prompt tokens counts as a prompt step; decode tokens ride along in it.
    """

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    generated_tokens: int = 0
    most_running: int = 0

    @property
    def seconds(self) -> float:
        return self.prompt_seconds + self.decode_seconds


class Server:
    def __init__(self, engine: Engine, pool: PagePool, end_token: int):
        self.engine, self.pool, self.end_token = engine, pool, end_token
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.timings = Timings()

    def submit(self, sequence: Sequence) -> None:
        """Puts a sequence into the queue. CannotServe if it could never run."""
        longest = sequence.num_prompt_tokens + sequence.max_new_tokens
        if longest > self.engine.config.context_length:
            raise CannotServe(
                f"{sequence.name}: prompt and answer may reach {longest} tokens, the model reads "
                f"at most {self.engine.config.context_length}: shorten the prompt or lower "
                "--max-new-tokens"
            )
        needed = self.pool.pages_for(sequence.most_cached)
        if needed > self.pool.num_pages:
            raise CannotServe(
                f"{sequence.name}: prompt and answer may need {needed} pages, the pool has "
                f"{self.pool.num_pages}: raise --pages to {needed} or more, or lower "
                "--max-new-tokens"
            )
        self.waiting.append(sequence)

    def step(self) -> list[Sequence]:
        """Advances every running sequence by one token; returns those that are done.

        Their pages are free again.
        """
        start = time.perf_counter()
        self._admit()
        for sequence in self.running:
            self._take_pages(sequence)
        rows = build_rows(self.running, self.pool.page_size)
        self._append_next_tokens(*self.engine.next_tokens(rows))
        self._count_step(rows, time.perf_counter() - start)
        return self._retire()

    def _admit(self) -> None:
        while self.waiting:
            sequence = self.waiting[0]
            # The prompt's last token is always computed: the answer's first token comes from it.
            shared = self.pool.find_prefix(sequence.tokens[: sequence.num_prompt_tokens - 1])
            needed = self.pool.pages_for(sequence.most_cached) - len(shared)
            promised = sum(self.pool.pages_for(s.most_cached) - len(s.pages) for s in self.running)
            if needed > self.pool.num_free - promised:
                break
            for page in shared:
                self.pool.share(page)
            sequence.pages = shared
            sequence.num_cached = len(shared) * self.pool.page_size
            # The prompt's pages are taken now, so that the next in the queue can share them. It
            # joins in this step at the earliest, and in a step each layer writes all keys and
            # values before anyone attends to them.
            self._take_pages(sequence)
            self.running.append(self.waiting.popleft())
        self.timings.most_running = max(self.timings.most_running, len(self.running))

    def _take_pages(self, sequence: Sequence) -> None:
        page_size = self.pool.page_size
        while len(sequence.pages) * page_size < len(sequence.tokens):
            end = (len(sequence.pages) + 1) * page_size
            prefix = sequence.tokens[:end] if end <= sequence.num_prompt_tokens else None
            sequence.pages.append(self.pool.allocate(prefix))

    def _append_next_tokens(self, tokens: np.ndarray, log_probabilities: np.ndarray) -> None:
        for sequence, token, log_probability in zip(self.running, tokens, log_probabilities):
            sequence.num_cached = len(sequence.tokens)
            sequence.tokens.append(int(token))
            sequence.log_probabilities.append(float(log_probability))

    def _count_step(self, rows: Rows, seconds: float) -> None:
        timings = self.timings
        fed_back = sum(len(s.generated) > 1 for s in self.running)
        timings.generated_tokens += len(self.running)
        if fed_back < len(rows.tokens):
            timings.prompt_tokens += len(rows.tokens) - fed_back
            timings.prompt_seconds += seconds
        else:
            timings.decode_tokens += fed_back
            timings.decode_seconds += seconds

    def _retire(self) -> list[Sequence]:
        def is_done(sequence):
            return (
                sequence.tokens[-1] == self.end_token
                or len(sequence.generated) == sequence.max_new_tokens
            )

        done = [sequence for sequence in self.running if is_done(sequence)]
        self.running = [sequence for sequence in self.running if not is_done(sequence)]
        for sequence in done:
            for page in sequence.pages:
                self.pool.release(page)
            sequence.pages = []
        return done
