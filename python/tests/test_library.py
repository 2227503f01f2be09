# SPDX-License-Identifier: Apache-2.0
"""The mirrors of the C header, finding the library, versions and instruction sets."""

import ctypes
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import cases
import pageattn
import pytest
from pageattn import _attention, _library

INCLUDE = Path(__file__).parents[2] / "include"
STRUCTS = {
    "pageattn_error": _library.Error,
    "pageattn_tensor": _library.Tensor,
    "pageattn_args": _library.Args,
    "pageattn_executor": _library.Executor,
    "pageattn_context_options": _library.ContextOptions,
}
CONSTANTS = {
    "PAGEATTN_OK": _library.OK,
    "PAGEATTN_ERROR_TYPE": _library._ERROR_TYPE,
    "PAGEATTN_ERROR_MEMORY": _library._ERROR_MEMORY,
    "PAGEATTN_ERROR_THREAD": _library._ERROR_THREAD,
    "PAGEATTN_ERROR_BUSY": _library._ERROR_BUSY,
    "PAGEATTN_ERROR_EXECUTOR": _library._ERROR_EXECUTOR,
    "PAGEATTN_ERROR_CHANGED": _library._ERROR_CHANGED,
    "PAGEATTN_NO_TYPE": _library.NO_TYPE,
    "PAGEATTN_F32": _library.F32,
    "PAGEATTN_BF16": _library.BF16,
    "PAGEATTN_F16": _library.F16,
    "PAGEATTN_I32": _library.I32,
    "PAGEATTN_MAX_RANK": _library.MAX_RANK,
    "PAGEATTN_MAX_THREADS": _library.MAX_THREADS,
    "PAGEATTN_DEFAULT_SPIN_NS": _library.DEFAULT_SPIN_NS,
    "PAGEATTN_MEGACORE_NONE": _library.MEGACORE_MODES[None],
    "PAGEATTN_MEGACORE_KV_HEAD": _library.MEGACORE_MODES["kv_head"],
    "PAGEATTN_MEGACORE_BATCH": _library.MEGACORE_MODES["batch"],
    "PAGEATTN_NUMERICS_EXACT": _library.NUMERICS["exact"],
    "PAGEATTN_NUMERICS_FAST": _library.NUMERICS["fast"],
    "PAGEATTN_ISA_AUTO": _library.ISA_AUTO,
    **{f"PAGEATTN_ISA_{name.upper()}": isa for name, isa in _library.ISAS.items()},
    "PAGEATTN_VERSION_MAJOR": _library.HEADER_MAJOR,
    "PAGEATTN_VERSION_MINOR": _library.HEADER_MINOR,
}


def expected_facts():
    facts = dict(CONSTANTS)
    for name, mirror in STRUCTS.items():
        facts[f"sizeof({name})"] = ctypes.sizeof(mirror)
        for field, _ in mirror._fields_:
            place = getattr(mirror, field)
            facts[f"offsetof({name}, {field})"] = place.offset
            facts[f"sizeof((({name} *)0)->{field})"] = place.size
    return facts


def program(facts):
    lines = [f'    printf("%lld\\n", (long long)({fact}));' for fact in facts]
    for name in ("pageattn_args", "pageattn_context_options"):
        lines += [
            f"    {name} {name}_defaults;",
            f"    {name}_init(&{name}_defaults);",
            f"    for (size_t i = 0; i < sizeof({name}_defaults); i++)",
            f'        printf("%02x", ((const unsigned char *)&{name}_defaults)[i]);',
            '    printf("\\n");',
        ]
    body = "\n".join(lines)
    return f"#include <pageattn/pageattn.h>\n#include <stdio.h>\nint main(void)\n{{\n{body}\n}}\n"


@pytest.fixture(scope="module")
def header_says(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not compiler or not INCLUDE.is_dir():
        pytest.skip(f"needs a C compiler (CC) and the header in {INCLUDE}")
    folder = tmp_path_factory.mktemp("header")
    (folder / "facts.c").write_text(program(expected_facts()))
    subprocess.run(
        [compiler, "-std=c11", f"-I{INCLUDE}", "facts.c", "-o", "facts"], cwd=folder, check=True
    )
    printed = subprocess.run([folder / "facts"], check=True, capture_output=True, text=True)
    return printed.stdout.split()


def test_mirrors_have_the_sizes_and_offsets_of_the_header(header_says):
    expected = expected_facts()
    assert dict(zip(expected, map(int, header_says[:-2]), strict=True)) == expected


def test_defaults_are_those_of_the_header(header_says, monkeypatch):
    """What a call without options packs, tensors aside, is what pageattn_args_init sets."""
    packed = {}

    class Recorder:
        def attend(self, tensors, options, addresses):
            writer = _library.ArgsWriter()
            writer.write(tensors, options, addresses)
            packed["args"] = _library.Args.from_buffer_copy(writer._bytes)

    monkeypatch.setattr(_attention, "take", lambda *key: Recorder())
    monkeypatch.setattr(_attention, "give_back", lambda context: None)
    pageattn.page_attention(**cases.make(40))
    defaults = _library.Args.from_buffer_copy(bytes.fromhex(header_says[-2]))
    for field, ctype in _library.Args._fields_:
        if ctype is not _library.Tensor:
            assert getattr(packed["args"], field) == getattr(defaults, field), field
    options = _library.ContextOptions.from_buffer_copy(bytes.fromhex(header_says[-1]))
    assert options.spin_ns == _library.DEFAULT_SPIN_NS
    assert options.struct_size == ctypes.sizeof(_library.ContextOptions)


@pytest.mark.parametrize("layout", ["HND_pages", "NHD"])
def test_the_library_gets_the_arrays_themselves(layout, monkeypatch):
    packed = {}

    class Recorder:
        def attend(self, tensors, options, addresses):
            writer = _library.ArgsWriter()
            writer.write(tensors, options, addresses)
            packed["args"] = _library.Args.from_buffer_copy(writer._bytes)

    monkeypatch.setattr(_attention, "take", lambda *key: Recorder())
    monkeypatch.setattr(_attention, "give_back", lambda context: None)
    arrays = cases.in_layout(cases.make(41), layout)
    arrays = {name: value[..., ::1] if name != "kv_layout" else value
              for name, value in arrays.items()}  # fmt: skip
    out, lse = pageattn.page_attention(**arrays, return_lse=True)
    order = [cases.LAYOUT_AXES[layout].index(axis) for axis in range(4)]
    for name in ("query", "key_cache", "value_cache", "context_lens", "block_tables"):
        tensor = getattr(packed["args"], name)
        array = arrays[name].transpose(order) if name.endswith("cache") else arrays[name]
        assert tensor.data == arrays[name].ctypes.data, name
        assert tensor.rank == array.ndim, name
        assert tuple(tensor.shape[: array.ndim]) == array.shape, name
        strides = [stride * array.itemsize for stride in tensor.stride[: array.ndim]]
        assert tuple(strides) == array.strides, name
    assert packed["args"].out.data == out.ctypes.data
    assert packed["args"].lse.data == lse.ctypes.data


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )


def test_version():
    number = _library.library.pageattn_version_number()
    assert pageattn.__version__ == f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


def test_instruction_sets():
    assert pageattn.isas()[0] == "scalar"
    assert set(pageattn.isas()) <= set(_library.ISAS)
    assert pageattn.isa() in pageattn.isas()


def test_the_environment_chooses_the_instruction_set():
    code = "import pageattn; print(pageattn.isa())"
    assert python(code, PAGEATTN_ISA="scalar").stdout == "scalar\n"
    wrong = python(code, PAGEATTN_ISA="sse2")
    assert wrong.returncode != 0 and "ValueError" in wrong.stderr and "sse2" in wrong.stderr


def test_a_library_that_is_not_there_or_is_another():
    missing = python("import pageattn", PAGEATTN_LIBRARY="/nowhere/libpageattn.so")
    assert "ImportError: /nowhere/libpageattn.so is not a pageattn library" in missing.stderr
    other = python("import pageattn", PAGEATTN_LIBRARY="libc.so.6")
    assert "ImportError: libc.so.6 is not a pageattn library" in other.stderr


def test_a_library_of_another_version(tmp_path):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not compiler:
        pytest.skip("needs a C compiler (CC)")
    (tmp_path / "old.c").write_text("int pageattn_version_number(void) { return 99001002; }\n")
    library = tmp_path / "libold.so"
    subprocess.run([compiler, "-shared", "-fPIC", "old.c", "-o", library], cwd=tmp_path, check=True)
    found = python("import pageattn", PAGEATTN_LIBRARY=str(library))
    assert "has version 99.1.2, but this package needs 0.1.x" in found.stderr


def test_ml_dtypes_is_not_needed():
    code = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "import numpy as np, pageattn\n"
        "cache = np.ones((1, 2, 4, 8), np.float32)\n"
        "lens, tables = np.array([3], np.int32), np.array([[1]], np.int32)\n"
        "print(pageattn.page_attention(cache[:1, 0, :1], cache, cache, lens, tables).tolist())"
    )
    found = python(code)
    assert found.stdout == "[[[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]]\n", found.stderr


def test_annotations_resolve():
    hints = typing.get_type_hints(pageattn.page_attention)
    assert set(hints) >= {"query", "kv_layout", "return"}
    assert (Path(pageattn.__file__).parent / "py.typed").exists()
