# SPDX-License-Identifier: Apache-2.0
"""register() and unregister(): what they change, for whom, and that all of it is taken back."""

import importlib
import inspect
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import cases
import calls
import ejkernel.kernels
import ejkernel.modules
import jax
import numpy as np
import pageattn
import pageattn.ejkernel
import pytest
from ejkernel.kernels._registry import Backend, Platform, kernel_registry

XLA_MODULES = [
    importlib.import_module(name)
    for name in (
        "ejkernel.kernels._xla",
        "ejkernel.kernels._xla.page_attention",
        "ejkernel.kernels._xla.page_attention._interface",
    )
]
EXECUTOR = importlib.import_module(
    "ejkernel.modules.operations.page_attention"
)._page_attention_executor
TARGET = "pageattn_page_attention"


@pytest.fixture(autouse=True)
def unregistered():
    pageattn.ejkernel.unregister()
    yield
    pageattn.ejkernel.unregister()


def state():
    """Everything that register() may change."""
    return {
        "implementations": kernel_registry.list_implementations("page_attention"),
        "functions": [module.page_attention for module in XLA_MODULES],
        "attributes": [sorted(vars(module)) for module in XLA_MODULES],
        "chooser": EXECUTOR.chooser,
        "policy": vars(EXECUTOR.chooser.policy).copy(),
        "operation": dict(vars(ejkernel.modules.operations.PageAttention)),
    }


def raw():
    return ejkernel.kernels._xla.page_attention


def test_unregister_restores_everything():
    before = state()
    pageattn.ejkernel.register()
    assert raw() is not calls.ejkernel_xla
    assert len({id(module.page_attention) for module in XLA_MODULES}) == 1
    ejkernel.modules.page_attention(*calls.in_jax(calls.make(1)))
    pageattn.ejkernel.unregister()
    assert state() == before
    assert raw() is calls.ejkernel_xla


def test_registering_twice_is_registering_once():
    before = state()
    pageattn.ejkernel.register()
    once = kernel_registry.list_implementations("page_attention")
    pageattn.ejkernel.register(kv_layout="pages_HND")
    assert kernel_registry.list_implementations("page_attention") == once
    pageattn.ejkernel.unregister()
    assert state() == before
    pageattn.ejkernel.unregister()
    assert state() == before


def test_the_layout_is_forgotten():
    call = calls.make(2, num_heads=8, num_kv_heads=2)
    pageattn.ejkernel.register(kv_layout="pages_HND")
    with pytest.raises(ValueError):
        ejkernel.modules.page_attention(*calls.in_jax(call))
    pageattn.ejkernel.register()
    ejkernel.modules.page_attention(*calls.in_jax(call))


@pytest.mark.parametrize("layout", ["pages_NHD", "nonsense", 3])
def test_wrong_layout(layout):
    before = state()
    with pytest.raises(ValueError, match="kv_layout = .* is not one of None, 'HND_pages'"):
        pageattn.ejkernel.register(kv_layout=layout)
    assert state() == before


def test_an_ejkernel_that_is_made_otherwise(monkeypatch):
    before = state()
    operation = importlib.import_module("ejkernel.modules.operations.page_attention")
    monkeypatch.delattr(operation, "_page_attention_executor")
    with pytest.raises(RuntimeError, match=r"written for ejkernel 0\.0\.80\.3, and .* otherwise"):
        pageattn.ejkernel.register()
    assert state() == before


def test_what_others_register_meanwhile_stays():
    pageattn.ejkernel.register()
    count = len(kernel_registry.list_implementations("page_attention"))

    @kernel_registry.register("page_attention", Platform.CUDA, Backend.GPU)
    def page_attention():
        """Somebody else's."""

    pageattn.ejkernel.unregister()
    specs = kernel_registry.list_implementations("page_attention")
    assert len(specs) == count
    (added,) = [spec for spec in specs if spec.platform == Platform.CUDA]
    kernel_registry._registry["page_attention"].remove(added)


def test_signature_is_ejkernels():
    pageattn.ejkernel.register()
    assert inspect.signature(raw()) == inspect.signature(calls.ejkernel_xla)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernel_registry.validate_signatures("page_attention")


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_programs_for_other_platforms_have_ejkernels_code(platform):
    arrays = calls.in_jax(calls.make(3))
    own = jax.jit(lambda *arrays: calls.ejkernel_xla(*arrays))
    pageattn.ejkernel.register()
    program = jax.jit(lambda *arrays: raw()(*arrays)).trace(*arrays)
    text = program.lower(lowering_platforms=(platform,)).as_text()
    assert (TARGET in text) == (platform == "cpu")
    if platform != "cpu":
        matrix_products = text.count("stablehlo.dot_general")
        own_text = own.trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
        assert matrix_products == own_text.count("stablehlo.dot_general") > 0


def test_what_ejkernel_refuses_is_for_cpus_only():
    arrays = calls.in_jax(calls.make(4))
    pageattn.ejkernel.register()
    program = jax.jit(lambda *arrays: raw()(*arrays, num_splits=2)).trace(*arrays)
    assert TARGET in program.lower(lowering_platforms=("cpu",)).as_text()
    with pytest.raises(NotImplementedError, match="cuda"):
        program.lower(lowering_platforms=("cuda",))


def test_the_tpu_kernel_stays_ejkernels():
    pageattn.ejkernel.register()
    assert (
        kernel_registry.get("page_attention", Platform.PALLAS, Backend.TPU)
        is importlib.import_module("ejkernel.kernels._pallas.tpu.page_attention").page_attention
    )


def test_no_cache_is_copied():
    call = calls.make(5, head_dim=128)
    query, *others = calls.in_jax(call)
    pageattn.ejkernel.register()
    compiled = jax.jit(ejkernel.modules.page_attention).lower(query, *others).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < call["key_cache"].nbytes / 10


def test_threads():
    """Calls while others register and unregister are computed by one or the other."""
    call = calls.make(6)
    arrays = calls.in_jax(call)
    expected = pageattn.page_attention(**call)
    stop = threading.Event()
    failures = []

    def change():
        while not stop.is_set():
            pageattn.ejkernel.register()
            pageattn.ejkernel.unregister()

    def attend():
        try:
            for _ in range(200):
                out = np.asarray(ejkernel.modules.page_attention(*arrays))
                assert calls.difference(out, expected) < 1e-5
        except Exception as error:
            failures.append(error)

    ejkernel.modules.page_attention(*arrays)  # compiled
    changers = [threading.Thread(target=change) for _ in range(2)]
    callers = [threading.Thread(target=attend) for _ in range(2)]
    for thread in changers + callers:
        thread.start()
    for thread in callers:
        thread.join()
    stop.set()
    for thread in changers:
        thread.join()
    assert not failures, failures[0]


def test_a_compiled_program_stays_as_it_is():
    call = calls.make(7)
    arrays = calls.in_jax(call)
    pageattn.ejkernel.register()
    compiled = jax.jit(ejkernel.modules.page_attention)
    before = cases.bits(np.asarray(compiled(*arrays)))
    pageattn.ejkernel.unregister()
    assert (
        cases.bits(np.asarray(compiled(*arrays)))
        == before
        == cases.bits(pageattn.page_attention(**call))
    )


def test_the_examples_of_the_documentation():
    text = (Path(__file__).parents[2] / "docs/ejkernel.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    wanted = pageattn.page_attention(*(names[array] for array in calls.ARRAYS))
    assert cases.bits(np.asarray(names["out"])) == cases.bits(wanted)
    exec(blocks[1], names)


def test_without_ejkernel():
    program = "import sys; sys.modules['ejkernel'] = None; import pageattn.ejkernel"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: pageattn.ejkernel needs ejkernel" in done.stderr
    assert "pip install 'pageattn[ejkernel]'" in done.stderr
