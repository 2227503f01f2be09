# SPDX-License-Identifier: Apache-2.0
"""The scheduler, the prompts and the check are those of examples/smollm2."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "smollm2"))
