# SPDX-License-Identifier: Apache-2.0
"""The cases are those of the NumPy tests. ejkernel gets a home of its own for its caches."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

# Read when ejkernel is imported. Its own configurations are not tuned, which takes 5 s for a shape.
_home = tempfile.TemporaryDirectory(prefix="pageattn-ejkernel-")
os.environ["HOME"] = _home.name
os.environ.pop("EJKERNEL_PERSISTENT_CACHE_DIR", None)
os.environ["EJKERNEL_AUTOTUNE_POLICY"] = "heuristics"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"


@pytest.fixture
def home() -> Path:
    """The only place that ejkernel writes to."""
    return Path(_home.name)


@pytest.fixture
def registered():
    """pageattn behind ejkernel for one test."""
    import pageattn.ejkernel

    pageattn.ejkernel.register()
    yield
    pageattn.ejkernel.unregister()
