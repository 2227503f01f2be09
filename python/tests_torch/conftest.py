"""The cases of the tests of the NumPy package, as tensors of torch."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "tests"))
pytest.importorskip("torch", reason="needs torch; `make test-torch` installs it and runs these")
