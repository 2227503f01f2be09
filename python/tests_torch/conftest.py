# SPDX-License-Identifier: Apache-2.0
"""The cases are those of the NumPy tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
