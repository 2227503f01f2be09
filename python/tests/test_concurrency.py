# SPDX-License-Identifier: Apache-2.0
"""Calls from several threads, from signal handlers, after a fork; the pool of contexts."""

import os
import signal
import threading
import time
import traceback
import warnings

import cases
import pageattn
import pytest
from pageattn import _context


def two_thread_call(arrays):
    """Enough work for two threads."""
    return cases.bits(pageattn.page_attention(**arrays, num_threads=2, return_lse=True))


@pytest.fixture(scope="module")
def big():
    return cases.make(30, lens=(3000, 2000), head_dim=64, page_size=16)


@pytest.fixture(scope="module")
def big_expected(big):
    return two_thread_call(big)


def test_threads():
    arrays = [cases.make(seed, lens=(seed * 40, 17)) for seed in range(8)]
    expected = [cases.bits(pageattn.page_attention(**each)) for each in arrays]
    wrong = []
    start = threading.Barrier(8)

    def work(index):
        start.wait()
        for turn in range(25):
            mine = (index + turn) % 8
            got = pageattn.page_attention(**arrays[mine], num_threads=1 + turn % 2)
            if cases.bits(got) != expected[mine]:
                wrong.append((index, turn))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_gil_is_released():
    arrays = cases.make(31, lens=(20000,), num_heads=16, num_kv_heads=2, head_dim=128)
    call = {}

    def work():
        call["begin"] = time.monotonic()
        pageattn.page_attention(**arrays, num_threads=1, isa="scalar")
        call["end"] = time.monotonic()

    thread = threading.Thread(target=work)
    thread.start()
    ticks = []
    while thread.is_alive():
        time.sleep(0.001)
        ticks.append(time.monotonic())
    # With the GIL held the main thread could tick at the ends only.
    margin = (call["end"] - call["begin"]) / 4
    during = [tick for tick in ticks if call["begin"] + margin < tick < call["end"] - margin]
    assert len(during) >= 5, (call, ticks)


def in_child(check):
    """The exit status of check() in a forked child; a child that hangs is killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads are running: the point of it
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if check() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def test_fork(big, big_expected):
    assert in_child(lambda: two_thread_call(big) == big_expected) == 0
    assert two_thread_call(big) == big_expected
    # A child of a child, which has started threads of its own.
    assert (
        in_child(
            lambda: (
                two_thread_call(big) == big_expected
                and in_child(lambda: two_thread_call(big) == big_expected) == 0
            )
        )
        == 0
    )


def test_fork_while_other_threads_are_calling(big, big_expected):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            two_thread_call(big)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        exits = [in_child(lambda: two_thread_call(big) == big_expected) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert exits == [0] * 5


def test_a_signal_handler_may_call(big, big_expected):
    arrays = cases.make(32)
    expected = cases.bits(pageattn.page_attention(**arrays))
    seen = []

    def handler(number, frame):
        seen.append(cases.bits(pageattn.page_attention(**arrays)) == expected)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        deadline = time.monotonic() + 20
        while len(seen) < 50 and time.monotonic() < deadline:
            assert cases.bits(pageattn.page_attention(**arrays)) == expected
            assert two_thread_call(big) == big_expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) >= 50 and all(seen)


def test_arrays_that_another_thread_changes(big, big_expected):
    arrays = {name: array.copy() for name, array in big.items()}
    stop = threading.Event()

    def scribble():
        wild = [2**31 - 1, -(2**31), -1, 10**6]
        while not stop.is_set():
            for name in ("block_tables", "context_lens"):
                arrays[name][...] = wild[0]
                wild.append(wild.pop(0))
                arrays[name][...] = big[name]

    thread = threading.Thread(target=scribble)
    thread.start()
    ended = {"returned": 0, "refused": 0}
    try:
        for _ in range(200):
            try:
                pageattn.page_attention(**arrays, num_threads=2)
                ended["returned"] += 1
            except (ValueError, RuntimeError) as error:
                assert "context_lens" in str(error) or "block_tables" in str(error)
                ended["refused"] += 1
    finally:
        stop.set()
        thread.join()
    assert sum(ended.values()) == 200
    assert two_thread_call(arrays) == big_expected


def test_a_context_is_used_again():
    arrays = cases.make(33)
    pageattn.page_attention(**arrays, num_threads=1)
    kept = _context._idle[(0, 1, None)][-1]
    with pytest.raises(ValueError):
        pageattn.page_attention(**{**arrays, "context_lens": arrays["context_lens"] - 1000},
                                num_threads=1)  # fmt: skip
    assert _context._idle[(0, 1, None)][-1] is kept
    pageattn.page_attention(**arrays, num_threads=1)
    assert _context._idle[(0, 1, None)][-1] is kept


def test_few_contexts_are_kept():
    taken = [_context.take(0, 3) for _ in range(40)]
    assert len(set(map(id, taken))) == 40
    for context in taken:
        _context.give_back(context)
    assert len(_context._idle[(0, 3, None)]) == 16
    for num_threads in range(1, 60):
        _context.give_back(_context.take(1, num_threads))
    assert len(_context._idle) <= 16
