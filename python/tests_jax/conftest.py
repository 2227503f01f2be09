# SPDX-License-Identifier: Apache-2.0
"""The cases are those of the NumPy tests; XLA gets two CPU devices."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
# Read by XLA when the first array is made.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"
