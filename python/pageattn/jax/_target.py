# SPDX-License-Identifier: Apache-2.0
"""The handler in libpageattn_jax.so, made known to XLA under the name TARGET."""

from __future__ import annotations

import ctypes
from pathlib import Path

from .. import _library

_MINIMUM_JAX = (0, 10)

try:
    import jax
except ImportError as error:
    raise ImportError(
        f"pageattn.jax needs JAX, which cannot be imported here ({error}); "
        "pip install 'pageattn[jax]' installs it"
    ) from error

if jax.__version_info__ < _MINIMUM_JAX:
    raise ImportError(
        f"pageattn.jax needs JAX {'.'.join(map(str, _MINIMUM_JAX))} or later, and this is "
        f"{jax.__version__}; pip install --upgrade 'pageattn[jax]' brings a newer one"
    )

TARGET = "pageattn_page_attention"


def _register() -> None:
    """The handler calls the library that lies beside it, so that one must be the one in use."""
    path = Path(_library.library._name).with_name("libpageattn_jax.so")
    try:
        handler = ctypes.CDLL(str(path)).pageattn_jax_page_attention
    except (OSError, AttributeError) as error:
        raise ImportError(f"{path}, which pageattn.jax needs, cannot be loaded: {error}") from error
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(handler), platform="cpu")


_register()
