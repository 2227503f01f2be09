# SPDX-License-Identifier: Apache-2.0
"""pageattn.torch: the bits of the NumPy path, the operators, torch.compile, threads, wrong calls."""

import ctypes
import inspect
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import pageattn
import pytest
from pageattn import _context, _library

torch = pytest.importorskip(
    "torch", reason="torch is not installed; `make test-torch` installs it and runs these tests"
)
import pageattn.torch  # noqa: E402
import tensors  # noqa: E402
import torch._dynamo.testing  # noqa: E402

OPTIONS = {
    "plain": {},
    "many": {"attn_scale": 0.3, "attn_logits_soft_cap": 3.0, "sliding_window": 100, "mask_value": -0.5},
    "steered": {"num_splits": 3, "pages_per_compute_block": 2, "inline_seq_dim": False,
                "max_context_len": 1000, "megacore_mode": "batch"},
    "fast": {"numerics": "fast"},
    "scalar": {"isa": "scalar"},
}  # fmt: skip
OPERATORS = torch.ops.pageattn


def test_the_arguments_are_those_of_numpy():
    def options(function):
        parameters = inspect.signature(function).parameters.values()
        return {p.name: (p.kind, p.default) for p in parameters if p.name in names}

    names = set(inspect.signature(pageattn.page_attention).parameters)
    names -= {"num_threads", "out", "return_lse", *tensors.NAMES}
    expected = options(pageattn.page_attention)
    assert len(expected) == len(names) == 12
    for function in (pageattn.torch.page_attention, pageattn.torch._attend, pageattn.torch._call):
        assert options(function) == expected, function
    for operator in ("page_attention", "page_attention_lse", "page_attention_out"):
        arguments = getattr(OPERATORS, operator).default._schema.arguments
        assert names < {argument.name for argument in arguments}, operator


def ordered(call):
    return tuple(call[name] for name in tensors.NAMES)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("layout", ["HND_pages", "NHD"])
@pytest.mark.parametrize("query_dtype,kv_dtype", [
    ("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16"), ("float32", "bfloat16"),
])  # fmt: skip
def test_the_bits_of_numpy(query_dtype, kv_dtype, layout, option):
    made = cases.make(
        80, query_dtype=cases.DTYPES[query_dtype], kv_dtype=cases.DTYPES[kv_dtype], value_head_dim=33
    )
    arrays = {**cases.in_layout(made, layout), **OPTIONS[option]}
    expected = pageattn.page_attention(**arrays, return_lse=True)
    call = tensors.of(arrays)
    out, lse = pageattn.torch.page_attention(**call, return_lse=True)
    assert out.dtype == tensors.DTYPES[query_dtype] and lse.dtype == torch.float32
    assert tensors.bits((out, lse)) == cases.bits(expected)
    assert tensors.bits(pageattn.torch.page_attention(**call)) == cases.bits(expected[0])
    given = torch.empty_like(out)
    assert pageattn.torch.page_attention(**call, out=given) is given
    assert tensors.bits(given) == cases.bits(expected[0])
    given.zero_()
    same, lse = pageattn.torch.page_attention(**call, out=given, return_lse=True)
    assert same is given and tensors.bits((given, lse)) == cases.bits(expected)


def test_tensors_are_read_and_written_where_they_lie(monkeypatch):
    call = tensors.of(cases.in_layout(cases.make(81, kv_dtype=cases.BFLOAT16), "NHD"))
    for name in ("key_cache", "value_cache"):  # views that are not contiguous
        wide = torch.zeros((*call[name].shape[:-1], 100), dtype=torch.bfloat16)
        wide[..., 7:47] = call[name]
        call[name] = wide[..., 7:47]
    out = torch.zeros((4, 12, 40))[:, ::2]
    seen = []
    real = _context._attend

    def attend(handle, args, error):
        seen.append(_library.Args.from_address(args))
        addresses = [getattr(seen[-1], name).data for name in (*tensors.NAMES, "out")]
        assert addresses == [call[name].data_ptr() for name in tensors.NAMES] + [out.data_ptr()]
        return real(handle, args, error)

    monkeypatch.setattr(_context, "_attend", attend)
    pageattn.torch.page_attention(**call, out=out)
    assert len(seen) == 1 and torch.all(out != 0, dim=-1).sum() == 3 * 6  # one sequence is empty


@pytest.mark.parametrize("name", ["page_attention", "page_attention_lse"])
@pytest.mark.parametrize("dtype", tensors.DTYPES)
@pytest.mark.parametrize("option", ["plain", "many"])
def test_opcheck(name, dtype, option):
    made = cases.make(82, query_dtype=cases.DTYPES[dtype], kv_dtype=cases.DTYPES[dtype])
    torch.library.opcheck(
        getattr(OPERATORS, name).default, ordered(tensors.of(made)), OPTIONS[option]
    )


@pytest.mark.parametrize("name", ["page_attention_out", "page_attention_out_lse"])
def test_opcheck_out(name):
    call = tensors.of(cases.make(83))
    options = {**OPTIONS["many"], "out": torch.empty_like(call["query"])}
    torch.library.opcheck(getattr(OPERATORS, name).default, ordered(call), options)


def layer(call, projection):
    """A piece of a model: the attention is not the first thing in it, and not the last."""
    query = torch.tanh(call["query"] @ projection)
    out, lse = pageattn.torch.page_attention(
        **{**call, "query": query}, sliding_window=30, return_lse=True
    )
    return torch.relu(out) @ projection, lse * 2


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_as_one_graph(backend, dtype):
    made = cases.make(84, query_dtype=cases.DTYPES[dtype], kv_dtype=cases.DTYPES[dtype])
    call = tensors.of(made)
    projection = torch.eye(40, dtype=tensors.DTYPES[dtype]) / 2
    torch._dynamo.reset()
    with torch.no_grad():
        expected = layer(call, projection)
        compiled = torch.compile(layer, fullgraph=True, backend=backend)
        got = compiled(call, projection)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        # What surrounds the attention is torch's own, whose compiled bits may differ.
        torch.testing.assert_close(one, other)


def test_compiled_attention_has_the_same_bits():
    call = tensors.of(cases.make(85))
    expected = pageattn.torch.page_attention(**call, return_lse=True)
    torch._dynamo.reset()
    compiled = torch.compile(pageattn.torch.page_attention, fullgraph=True)
    assert tensors.bits(compiled(**call, return_lse=True)) == tensors.bits(expected)


def test_compiled_with_out():
    call = tensors.of(cases.make(86))
    expected = pageattn.torch.page_attention(**call)

    def write(call, out):
        pageattn.torch.page_attention(**call, out=out)
        return out + 1

    torch._dynamo.reset()
    out = torch.zeros_like(expected)
    after = torch.compile(write, fullgraph=True)(call, out)
    assert tensors.bits(out) == tensors.bits(expected)
    assert tensors.bits(after) == tensors.bits(expected + 1)


def test_compiled_once_for_all_batches():
    torch._dynamo.reset()
    frames = set()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(pageattn.torch.page_attention, fullgraph=True, dynamic=True,
                             backend=counter)  # fmt: skip
    for seed, lens in enumerate([(37, 5, 300), (10, 20, 30, 40), (7, 7, 7, 7, 7, 1000)]):
        call = tensors.of(cases.make(seed, lens=lens))
        expected = pageattn.torch.page_attention(**call)
        assert tensors.bits(compiled(**call)) == tensors.bits(expected), lens
        frames.add(counter.frame_count)
    assert len(frames) == 1 and min(frames) > 0  # nothing is compiled anew after the first


def test_wrong_values_raise_in_compiled_code_too():
    call = tensors.of(cases.make(87))
    torch._dynamo.reset()
    compiled = torch.compile(pageattn.torch.page_attention, fullgraph=True, backend="aot_eager")
    compiled(**call)
    call["context_lens"][2] = -1
    with pytest.raises(ValueError, match=r"context_lens\[2\] = -1"):
        compiled(**call)


def test_no_memory_no_computing():
    """Tensors of the device meta have shapes only."""
    call = {name: value.to("meta") for name, value in tensors.of(cases.make(88)).items()}
    out, lse = pageattn.torch.page_attention(**call, return_lse=True)
    assert out.device.type == "meta" and out.shape == (4, 6, 40) and lse.shape == (4, 6)


def test_the_default_device_does_not_matter():
    """Results are where the query is."""
    call = tensors.of(cases.make(96))
    expected = pageattn.torch.page_attention(**call, return_lse=True)
    with torch.device("meta"):
        got = pageattn.torch.page_attention(**call, return_lse=True)
    assert tensors.bits(got) == tensors.bits(expected)


def test_there_is_no_gradient():
    call = tensors.of(cases.make(89))
    call["query"].requires_grad_()
    with torch.no_grad():
        expected = pageattn.torch.page_attention(**call)
    assert not expected.requires_grad
    for function in (pageattn.torch.page_attention, OPERATORS.page_attention):
        out = function(*ordered(call))
        assert tensors.bits(out) == tensors.bits(expected)
        with pytest.raises(NotImplementedError, match=r"no gradient.*torch.no_grad\(\).*detach"):
            out.sum().backward()
    with pytest.raises(ValueError, match=r"query requires a gradient, which out cannot carry"):
        pageattn.torch.page_attention(**call, out=torch.zeros(4, 6, 40))
    with torch.no_grad():
        pageattn.torch.page_attention(**call, out=torch.zeros(4, 6, 40))


WRONG = [
    ("query", lambda t: t.numpy(), TypeError, r"query must be a torch.Tensor, not ndarray"),
    ("key_cache", lambda t: None, TypeError, r"key_cache must be a torch.Tensor, not NoneType"),
    ("query", lambda t: t.double(), TypeError, r"query has dtype float64, not float32, float16 or"),
    ("query", lambda t: t.int(), TypeError, r"query has dtype int32, not float32"),
    ("key_cache", lambda t: t.half(), TypeError, r"key_cache|value_cache"),
    ("context_lens", lambda t: t.long(), TypeError, r"context_lens has dtype int64, not int32"),
    ("block_tables", lambda t: t.float(), TypeError, r"block_tables has dtype float32, not int32"),
    ("query", lambda t: t.to_sparse(), TypeError, r"query has the layout torch.sparse_coo"),
    ("query", lambda t: t[0], ValueError, r"query has 2 axes, shape \(6, 40\); it must have 3"),
    ("value_cache", lambda t: t[None], ValueError, r"value_cache has 5 axes"),
    ("query", lambda t: t.repeat(1, 1, 2)[..., ::2], ValueError, r"query.*stride 2; it must be 1"),
    ("out", lambda t: torch.zeros(40).expand(4, 6, 40), ValueError, r"out"),
    ("out", lambda t: torch.zeros(4, 6, 41), ValueError, r"out.*4[01]"),
    ("out", lambda t: torch.zeros(4, 6, 40, dtype=torch.float64), TypeError, r"out has dtype float64"),
    ("query", lambda t: t.to("meta"), ValueError, r"query is on meta; pageattn computes on CPUs"),
    ("num_splits", lambda t: -1, ValueError, r"num_splits = -1 is outside"),
    ("sliding_window", lambda t: 0, ValueError, r"sliding_window = 0 is outside"),
    ("kv_layout", lambda t: "hnd", ValueError, r"kv_layout = 'hnd' is not one of"),
    ("attn_logits_soft_cap", lambda t: 0.0, ValueError, r"attn_logits_soft_cap = 0.0"),
]  # fmt: skip


@pytest.mark.parametrize("name,wrong,exception,message", WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_wrong_calls(name, wrong, exception, message):
    call = tensors.of(cases.make(90))
    out = torch.full((4, 6, 40), 77.0)
    call["out"] = out
    call[name] = wrong(call.get(name))
    with pytest.raises(exception, match=message):
        pageattn.torch.page_attention(**call)
    assert torch.all(out == 77)


def test_out_overlapping_an_input():
    call = tensors.of(cases.make(91))
    with pytest.raises(ValueError, match="out.*query|query.*out"):
        pageattn.torch.page_attention(**call, out=call["query"])


THREADS = """
import os, sys
sys.path[:0] = {path!r}
import cases, tensors, torch
import pageattn.torch

def threads():
    return {{int(tid): open(f"/proc/self/task/{{tid}}/comm").read().strip()
             for tid in os.listdir("/proc/self/task")}}

def cpu_ticks(tid):
    fields = open(f"/proc/self/task/{{tid}}/stat").read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])

torch.set_num_threads({num_threads})
call = tensors.of(cases.make(92, lens=(20000, 20000), head_dim=64))
torch.ones(10**7).sum()  # starts torch's threads
before = threads()
ticks = {{tid: cpu_ticks(tid) for tid in before}}
for _ in range(5):
    pageattn.torch.page_attention(**call, isa="scalar")
after = threads()
worked = sum(cpu_ticks(tid) - ticks[tid] > 2 for tid in before)
print(len(after) - len(before), "pageattn" in after.values(), worked)
"""


@pytest.mark.parametrize("num_threads", [1, 2])
def test_works_on_the_threads_of_torch(num_threads):
    """None of its own is started, and as many of torch's work as torch says."""
    here = Path(__file__).parent
    code = THREADS.format(path=[str(here), str(here.parent / "tests")], num_threads=num_threads)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"0 False {num_threads}\n", done.stderr


FORK = """
import os, sys
sys.path[:0] = {path!r}
import cases, tensors, torch
import pageattn.torch

call = tensors.of(cases.make(98, lens=(20000, 20000), head_dim=64))
torch.set_num_threads(2)
expected = tensors.bits(pageattn.torch.page_attention(**call))
if os.fork() == 0:
    torch.set_num_threads(1)
    os._exit(0 if tensors.bits(pageattn.torch.page_attention(**call)) == expected else 2)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_the_child_of_a_fork_works_on_one_thread():
    """On more, every operator of torch hangs there once its parent has used them."""
    here = Path(__file__).parent
    code = FORK.format(path=[str(here), str(here.parent / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "0\n", done.stderr


def test_any_number_of_threads_gives_the_same_bits():
    call = tensors.of(cases.make(93, lens=(5000, 300, 1)))
    expected = pageattn.torch.page_attention(**call)
    before = torch.get_num_threads()
    try:
        for num_threads in (1, 2, 3, 7):
            torch.set_num_threads(num_threads)
            assert tensors.bits(pageattn.torch.page_attention(**call)) == tensors.bits(expected)
    finally:
        torch.set_num_threads(before)


def test_the_executor_reports_what_torch_did_not_run(monkeypatch):
    """torch_parallel_for that fails before it ran anything."""
    failing = ctypes.CFUNCTYPE(
        ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
        ctypes.c_void_p,
    )(lambda *_: 1)  # fmt: skip
    cell = ctypes.cast(failing, ctypes.c_void_p)
    adapter, _ = pageattn.torch._EXECUTOR
    monkeypatch.setattr(pageattn.torch, "_EXECUTOR", (adapter, ctypes.addressof(cell)))
    call = tensors.of(cases.make(94, lens=(20000, 20000), head_dim=64))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="parallel_for ran 0 of 2 tasks"):
            pageattn.torch.page_attention(**call)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", tensors.DTYPES)
def test_the_numpy_function_takes_tensors_through_dlpack(dtype):
    made = cases.make(95, query_dtype=cases.DTYPES[dtype], kv_dtype=cases.DTYPES[dtype])
    expected = pageattn.page_attention(**made)
    call = tensors.of(made)
    out = pageattn.page_attention(**call)
    assert isinstance(out, np.ndarray) and cases.bits(out) == cases.bits(expected)
    given = torch.zeros(4, 6, 40, dtype=tensors.DTYPES[dtype])
    assert pageattn.page_attention(**call, out=given) is given
    assert tensors.bits(given) == cases.bits(expected)
    call["query"].requires_grad_()
    with pytest.raises(ValueError, match=r"query \(torch.Tensor\) does not give .*tensor.detach"):
        pageattn.page_attention(**call)
    call["query"] = call["query"].detach().to("meta")
    with pytest.raises(ValueError, match=r"query \(torch.Tensor\) does not give its memory"):
        pageattn.page_attention(**call)
