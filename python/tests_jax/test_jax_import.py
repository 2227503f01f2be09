# SPDX-License-Identifier: Apache-2.0
"""Importing: pageattn alone needs no JAX, and pageattn.jax says what it needs."""

import hashlib
import subprocess
import sys
from pathlib import Path


def run(program):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_pageattn_does_not_import_jax():
    done = run("import sys, pageattn; print('jax' in sys.modules, 'pageattn.jax' in sys.modules)")
    assert done.stdout == "False False\n", done.stderr


def test_without_jax():
    done = run("import sys; sys.modules['jax'] = None; import pageattn; import pageattn.jax")
    assert "ImportError: pageattn.jax needs JAX" in done.stderr
    assert "pip install 'pageattn[jax]'" in done.stderr


def test_with_an_old_jax():
    done = run("import jax; jax.__version_info__ = (0, 4, 30); import pageattn.jax")
    assert "ImportError: pageattn.jax needs JAX 0." in done.stderr


def test_without_the_handler(tmp_path):
    """The core library alone, as `make install` puts it somewhere."""
    program = f"""
import os, shutil, pageattn._library as library
os.environ["PAGEATTN_LIBRARY"] = shutil.copy(library.library._name, {str(tmp_path)!r})
os.execv({sys.executable!r}, [{sys.executable!r}, "-c", "import pageattn; import pageattn.jax"])
"""
    done = run(program)
    assert "ImportError" in done.stderr and "libpageattn_jax.so, which pageattn.jax needs" in done.stderr


def test_the_vendored_header_is_the_one_that_its_readme_names():
    folder = Path(__file__).parents[2] / "third_party" / "xla"
    digest = hashlib.sha256((folder / "xla/ffi/api/c_api.h").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()
