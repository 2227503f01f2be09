# SPDX-License-Identifier: Apache-2.0
"""Calls that run at the same time, on pools of any size: each ends, with its own bits."""

import os
import subprocess
import sys
import threading

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pageattn
import pageattn.jax
import pytest

NUM_CALLERS = 20  # more than contexts are kept
# Large enough for several workers, and split between them.
LARGE = {"lens": (6000, 1, 0, 5000), "num_heads": 8, "num_kv_heads": 4, "head_dim": 64}


def call_of(seed):
    call = cases.make(seed, **LARGE)
    expected = cases.bits(pageattn.page_attention(**call))
    return [jnp.asarray(array) for array in call.values()], expected


CALLS = [call_of(seed) for seed in range(3)]


def run_all(functions):
    """Runs each in a thread of its own, from the same moment on; returns what went wrong."""
    barrier = threading.Barrier(len(functions))
    wrong = []

    def run(function):
        barrier.wait()
        try:
            function()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "a call did not end within 60 s"
    return wrong


def test_calls_from_many_threads():
    jitted = jax.jit(pageattn.jax.page_attention)

    def caller(index):
        arrays, expected = CALLS[index % len(CALLS)]
        # Several numbers of workers, so that contexts are also made and dropped.
        attend = jitted if index % 2 else pageattn.jax.page_attention
        options = {} if index % 2 else {"num_threads": 1 + index % 5}
        for _ in range(5):
            found = cases.bits(np.asarray(attend(*arrays, **options)))
            assert found == expected, index

    assert run_all([lambda index=index: caller(index) for index in range(NUM_CALLERS)]) == []


def test_errors_beside_right_calls():
    arrays, expected = CALLS[0]
    wrong_tables = arrays[4].at[3, 7].set(-9)
    attend = jax.jit(pageattn.jax.page_attention)

    def right():
        for _ in range(5):
            assert cases.bits(np.asarray(attend(*arrays))) == expected

    def wrong():
        for _ in range(5):
            with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=r"\[3\]\[7\] = -9"):
                jax.block_until_ready(attend(*arrays[:4], wrong_tables))

    assert run_all([right, wrong] * 4) == []


def run_program(program, *arguments):
    """What a process of its own prints, with one device and no thread yet."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, check=False, timeout=100, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


MANY_IN_ONE = """
import os, sys
allowed = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, allowed[:int(sys.argv[1])])

import cases, jax, jax.numpy as jnp, numpy as np, pageattn, pageattn.jax
call = cases.make(3, lens=(6000, 1, 0, 5000), num_heads=8, num_kv_heads=4, head_dim=64)
queries = [call["query"] * np.float32(scale) for scale in range(1, 25)]
caches = [jnp.asarray(array) for name, array in call.items() if name != "query"]

@jax.jit
def attend_to_all(queries):
    return [pageattn.jax.page_attention(query, *caches) for query in queries]

for _ in range(3):
    outs = attend_to_all([jnp.asarray(query) for query in queries])
    for index, (query, out) in enumerate(zip(queries, outs)):
        expected = pageattn.page_attention(**{**call, "query": query})
        assert np.asarray(out).tobytes() == expected.tobytes(), index
print("all ended")
"""


@pytest.mark.parametrize("num_cpus", [1, 64])
def test_many_calls_of_one_program(num_cpus):
    """XLA runs them side by side on the pool on which their tasks are to run, too."""
    assert run_program(MANY_IN_ONE, str(num_cpus)) == "all ended\n"


def test_shards_on_several_devices_run_at_the_same_time():
    mesh = jax.make_mesh((2,), ("seqs",))
    spec = jax.P("seqs")
    specs = (spec, jax.P(), jax.P(), spec, spec)
    attend = jax.jit(
        jax.shard_map(pageattn.jax.page_attention, mesh=mesh, in_specs=specs, out_specs=spec)
    )
    arrays, expected = CALLS[1]
    arrays = [jax.device_put(a, jax.NamedSharding(mesh, s)) for a, s in zip(arrays, specs)]
    for _ in range(10):
        assert cases.bits(np.asarray(attend(*arrays))) == expected


WHO_WORKS = """
import os, time
import cases, jax, jax.numpy as jnp, pageattn.jax

def ticks():
    # Of CPU time, by thread: the fields utime and stime of proc(5).
    found = {}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        found[task] = int(fields[11]) + int(fields[12])
    return found

call = cases.make(3, lens=(6000, 1, 0, 5000), num_heads=8, num_kv_heads=4, head_dim=64)
arrays = {name: jnp.asarray(array) for name, array in call.items()}
other = jax.jit(lambda x: x @ x)
jax.block_until_ready([other(jnp.ones((512, 512))) for _ in range(20)])
before = ticks()
end = time.monotonic() + 1
while time.monotonic() < end:
    jax.block_until_ready(pageattn.jax.page_attention(**arrays))
after = ticks()
started = [task for task in after if task not in before]
worked = [task for task in before if task in after and after[task] >= before[task] + 5]
print(len(started), len(worked))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU")
def test_the_work_is_done_on_the_threads_that_xla_has():
    num_started, num_worked = map(int, run_program(WHO_WORKS).split())
    assert num_started == 0
    assert num_worked >= 2
