# SPDX-License-Identifier: Apache-2.0
"""pageattn behind ejkernel's page_attention, on CPUs.

    import pageattn.ejkernel

    pageattn.ejkernel.register()
    out = ejkernel.modules.page_attention(query, key_cache, value_cache, context_lens, block_tables)

The call is ejkernel's, the computation is pageattn.jax.page_attention. docs/ejkernel.md lists what
differs from ejkernel's own CPU path. Written for ejkernel 0.0.80.3.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import threading
from typing import Any, Literal

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import jax as _pageattn_jax

try:
    _version = importlib.import_module("ejkernel").__version__
    _xla = importlib.import_module("ejkernel.kernels._xla")
    # Attributes of these names are functions, which hide the modules; import_module finds modules.
    _raw = importlib.import_module("ejkernel.kernels._xla.page_attention")
    _interface = importlib.import_module("ejkernel.kernels._xla.page_attention._interface")
    _registry = importlib.import_module("ejkernel.kernels._registry")
    _operation = importlib.import_module("ejkernel.modules.operations.page_attention")
except ImportError as _error:
    raise ImportError(
        f"pageattn.ejkernel needs ejkernel, which cannot be imported here ({_error}); "
        "pip install 'pageattn[ejkernel]' installs the version that it was written for"
    ) from _error

__all__ = ["register", "unregister"]

_ALGORITHM = "page_attention"
_PRIORITY = 100  # ejkernel's own implementations have 0
_LAYOUTS = ("HND_pages", "pages_HND")

_lock = threading.Lock()
_undo = contextlib.ExitStack()  # what unregister() has to do; empty while not registered
_is_registered = False
_kv_layout: str | None = None
_ejkernels_own: Any = None


def register(*, kv_layout: Literal["HND_pages", "pages_HND"] | None = None) -> None:
    """Puts pageattn behind ejkernel.modules.page_attention and ejkernel's XLA entry, on CPUs.

    The XLA entry is ejkernel.kernels._xla.page_attention.page_attention. Arrays on GPUs and TPUs
    still go to ejkernel's own kernels. All arguments keep their names and places, and each has the
    meaning that pageattn.page_attention gives it.

    Parameters
    ----------
    kv_layout : what the first two axes of the caches are: "HND_pages" for [num_kv_heads, pages,
        page_size, head_dim], "pages_HND" for [pages, num_kv_heads, page_size, head_dim]. None: told
        from the shapes, as ejkernel does, where exactly one of the two sizes divides the number of
        query heads; where both do or none does, a call raises ValueError.

    Registering again only sets kv_layout anew: calls are not counted, and one unregister() ends it.

    Register before other modules bind the XLA entry by `from ... import page_attention`, because a
    function that was bound earlier stays ejkernel's own. Programs that jax.jit has compiled before
    stay as they are too. May be called from any thread; a call that runs meanwhile is computed by
    one or the other.

    While this is registered, ejkernel tunes nothing on CPUs and stores no configuration there:
    pageattn plans each call by itself.

    Raises
    ------
    ValueError
        kv_layout is none of these.
    RuntimeError
        Another version of ejkernel, which this cannot be put behind.
    """
    global _is_registered, _kv_layout
    if kv_layout is not None and kv_layout not in _LAYOUTS:
        raise ValueError(f"kv_layout = {kv_layout!r} is not one of None, 'HND_pages', 'pages_HND'")
    with _lock:
        _kv_layout = kv_layout
        if not _is_registered:
            try:
                _install()
            except AttributeError as error:
                _undo.close()
                raise RuntimeError(
                    f"pageattn.ejkernel was written for ejkernel 0.0.80.3, and {_version} is made "
                    f"otherwise ({error}); nothing was changed"
                ) from error
            _is_registered = True


def unregister() -> None:
    """Takes pageattn away again: everything that register() changed is as it was before.

    Without a register() before it does nothing. Programs that jax.jit has compiled meanwhile keep
    pageattn.
    """
    global _is_registered
    with _lock:
        _undo.close()
        _is_registered = False  # the layout stays for calls that are on their way


# ---- putting it in and taking it out -------------------------------------------------------------


def _install() -> None:
    global _ejkernels_own
    _ejkernels_own = _interface.page_attention
    # A registry of its own gives the function the wrapper that ejkernel gives all of its kernels.
    registry = _registry.KernelRegistry()
    platform, backend = _registry.Platform.XLA, _registry.Backend.ANY
    registry.register(_ALGORITHM, platform, backend, _PRIORITY)(_page_attention)
    (spec,) = registry.list_implementations(_ALGORITHM)
    _add_to_registry(spec)
    for module in (_xla, _raw, _interface):
        _replace(module, _ALGORITHM, spec.implementation)
    executor = _operation._page_attention_executor
    _replace(executor, "chooser", _Chooser(executor.chooser))


def _add_to_registry(spec: Any) -> None:
    """New lists, assigned at once: a look-up in another thread sees the old one or the new one."""
    registered = _registry.kernel_registry._registry
    registered[_ALGORITHM] = sorted(
        [spec, *registered[_ALGORITHM]], key=lambda other: other.priority, reverse=True
    )

    def remove() -> None:
        registered[_ALGORITHM] = [other for other in registered[_ALGORITHM] if other is not spec]

    _undo.callback(remove)


def _replace(owner: Any, name: str, value: Any) -> None:
    _undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


class _Chooser:
    """An ejkernel ConfigChooser that chooses at once on CPUs, where there is nothing to tune.

    ejkernel's own measures dozens of configurations at the first call of each shape, and stores the
    quickest, with splits perhaps, which its own kernel would refuse after unregister().
    """

    def __init__(self, ejkernels_own: Any) -> None:
        self._ejkernels_own = ejkernels_own

    @property
    def policy(self) -> Any:
        return None if jax.default_backend() == "cpu" else self._ejkernels_own.policy

    def choose(self, invocation: Any, kernel: Any) -> Any:
        if jax.default_backend() == "cpu":
            return invocation.override_cfg or kernel.heuristic_cfg(invocation)
        return self._ejkernels_own.choose(invocation, kernel)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ejkernels_own, name)


# ---- a call --------------------------------------------------------------------------------------


def _page_attention(
    query: Any,
    key_cache: Any,
    value_cache: Any,
    context_lens: Any,
    block_tables: Any,
    attn_scale: float | None = None,
    max_context_len: int | None = None,
    num_splits: int = 0,
    *,
    num_warps: int = 4,
    num_stages: int = 3,
    **options: Any,
) -> Any:
    """ejkernel's XLA entry; the last two keywords are for GPUs, and mean nothing on a CPU."""
    arrays = (query, key_cache, value_cache, context_lens, block_tables)
    options = {
        "attn_scale": attn_scale,
        "max_context_len": max_context_len,
        "num_splits": num_splits,
        **options,
    }
    here = functools.partial(_on_cpu, **options)
    elsewhere = functools.partial(
        _ejkernels_own, num_warps=num_warps, num_stages=num_stages, **options
    )
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        return _where_it_will_run(here, elsewhere, arrays)
    return here(*arrays) if _platform(arrays) == "cpu" else elsewhere(*arrays)


# All keywords by name, for ejkernel compares the signatures of its implementations.
_page_attention.__signature__ = inspect.signature(  # type: ignore[attr-defined]
    _interface.page_attention
)


def _platform(arrays: tuple[Any, ...]) -> str:
    for array in arrays:
        if isinstance(array, jax.Array):
            return str(next(iter(array.devices())).platform)
    return jax.default_backend()


def _where_it_will_run(here: Any, elsewhere: Any, arrays: tuple[Any, ...]) -> Any:
    """A traced call: the platform is known when the program is lowered.

    JAX traces both ways, so each may refuse a call that the other would have computed.
    """

    def elsewhere_alike(query: Any, *others: Any) -> Any:
        return elsewhere(query, *others).astype(query.dtype)

    try:
        jax.eval_shape(elsewhere_alike, *arrays)
    except Exception:  # whatever the reason, ejkernel's own kernel cannot do it
        # Without a default, JAX refuses to lower the program for another platform.
        return jax.lax.platform_dependent(*arrays, cpu=here)
    try:
        return jax.lax.platform_dependent(*arrays, cpu=here, default=elsewhere_alike)
    except (TypeError, ValueError):
        if jax.default_backend() == "cpu":
            raise
        return elsewhere(*arrays)


def _on_cpu(*arrays: Any, **options: Any) -> Any:
    query, key_cache, value_cache, context_lens, block_tables = arrays
    page_attention: Any = _pageattn_jax.page_attention
    return page_attention(
        query,
        key_cache,
        value_cache,
        _as_int32(context_lens),
        _as_int32(block_tables),
        kv_layout=_kv_layout or _guess_layout(query, key_cache),
        **options,
    )


def _as_int32(array: Any) -> Any:
    """ejkernel takes any signed integers. What does not fit stays out of every range."""
    if not isinstance(array, jax.Array) or not jnp.issubdtype(array.dtype, jnp.signedinteger):
        return array
    if array.dtype.itemsize > 4:
        limits = np.iinfo(np.int32)
        array = array.clip(limits.min, limits.max)
    return array.astype(jnp.int32)


def _guess_layout(query: Any, key_cache: Any) -> str:
    """ejkernel's rule where it is certain: the number of KV heads divides that of the heads."""
    if len(query.shape) != 3 or len(key_cache.shape) != 4:
        return "HND_pages"  # pageattn.jax says what is wrong
    num_heads = query.shape[1]
    first, second = key_cache.shape[:2]
    can_be_heads = [size > 0 and num_heads % size == 0 for size in (first, second)]
    if can_be_heads == [True, False]:
        return "HND_pages"
    if can_be_heads == [False, True]:
        return "pages_HND"
    which = "both" if all(can_be_heads) else "none"
    raise ValueError(
        f"key_cache has the shape {tuple(key_cache.shape)}, and of its first two sizes, {first} "
        f"and {second}, {which} can be the number of KV heads for {num_heads} query heads; say "
        "what its axes are: pageattn.ejkernel.register(kv_layout='HND_pages') for [num_kv_heads, "
        "pages, page_size, head_dim], register(kv_layout='pages_HND') for [pages, num_kv_heads, "
        "page_size, head_dim]"
    )
