# SPDX-License-Identifier: Apache-2.0
"""The shared library: where it is, what its header declares, how its errors become exceptions.

Everything here mirrors include/pageattn/pageattn.h; python/tests/test_library.py compiles that
header and compares sizes, offsets, defaults and constants.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

# The version of the header that these mirrors were written for. While it is 0.x, structs and
# enums may change between minor versions.
HEADER_MAJOR = 0
HEADER_MINOR = 1

NO_TYPE, F32, BF16, F16, I32 = range(5)
MAX_RANK = 4
MAX_THREADS = 4096
DEFAULT_ATTN_SCALE = 3.402823466e38
DEFAULT_SPIN_NS = 20000
MEGACORE_MODES: dict[str | None, int] = {None: 0, "kv_head": 1, "batch": 2}
NUMERICS = {"exact": 0, "fast": 1}
ISA_AUTO = 0
ISAS = {"scalar": 1, "avx2": 2, "avx512": 3, "neon": 4}

OK = 0
_ERROR_TYPE = 3
_ERROR_MEMORY = 13
_ERROR_THREAD = 14
_ERROR_BUSY = 15
_ERROR_EXECUTOR = 16
_ERROR_CHANGED = 17

# Every status that is not in here is a wrong argument.
_EXCEPTIONS: dict[int, type[Exception]] = {
    _ERROR_TYPE: TypeError,
    _ERROR_MEMORY: MemoryError,
    _ERROR_THREAD: RuntimeError,
    _ERROR_BUSY: RuntimeError,
    _ERROR_EXECUTOR: RuntimeError,
    _ERROR_CHANGED: RuntimeError,
}


class Error(ctypes.Structure):
    """pageattn_error"""

    _fields_ = [("status", ctypes.c_int32), ("message", ctypes.c_char * 508)]


class Tensor(ctypes.Structure):
    """pageattn_tensor"""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * MAX_RANK),
        ("stride", ctypes.c_int64 * MAX_RANK),
    ]


class Args(ctypes.Structure):
    """pageattn_args"""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("query", Tensor),
        ("key_cache", Tensor),
        ("value_cache", Tensor),
        ("context_lens", Tensor),
        ("block_tables", Tensor),
        ("out", Tensor),
        ("lse", Tensor),
        ("attn_scale", ctypes.c_float),
        ("attn_logits_soft_cap", ctypes.c_float),
        ("mask_value", ctypes.c_float),
        ("sliding_window", ctypes.c_int32),
        ("max_context_len", ctypes.c_int64),
        ("numerics", ctypes.c_int32),
        ("num_splits", ctypes.c_int32),
        ("pages_per_compute_block", ctypes.c_int32),
        ("megacore_mode", ctypes.c_int32),
        ("inline_seq_dim", ctypes.c_int32),
        ("scratch", ctypes.c_void_p),
        ("scratch_bytes", ctypes.c_size_t),
    ]


class Executor(ctypes.Structure):
    """pageattn_executor"""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("context", ctypes.c_void_p),
        ("num_workers", ctypes.c_int32),
        ("parallel_for", ctypes.c_void_p),
    ]


class ContextOptions(ctypes.Structure):
    """pageattn_context_options"""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("isa", ctypes.c_int32),
        ("num_threads", ctypes.c_int32),
        ("executor", ctypes.c_void_p),
        ("allocator", ctypes.c_void_p),
        ("min_bytes_per_worker", ctypes.c_int64),
        ("spin_ns", ctypes.c_int64),
    ]


_FORMAT_CHARACTERS: dict[Any, str] = {
    ctypes.c_size_t: "N",
    ctypes.c_void_p: "P",
    ctypes.c_int32: "i",
    ctypes.c_int64: "q",
    ctypes.c_float: "f",
}


def _packing_format(ctype: Any) -> str:
    """The struct module's native format of a ctypes type."""
    if issubclass(ctype, ctypes.Array):
        array: Any = ctype
        return "".join([_packing_format(array._type_)] * array._length_)
    if issubclass(ctype, ctypes.Structure):
        return "".join(_packing_format(field[1]) for field in ctype._fields_)
    return _FORMAT_CHARACTERS[ctype]


# A Struct takes a flat sequence of values at once; setting the 90 fields one by one costs 10 us.
# The options of pageattn_args, of which a float is the first, follow its tensors.
_FORMAT = _packing_format(Args)
_OPTIONS = _FORMAT.index("f")
pack_tensors = struct.Struct("@" + _FORMAT[:_OPTIONS]).pack
pack_options = struct.Struct("@" + _FORMAT[_OPTIONS:]).pack

class ArgsWriter:
    """Fills one Args."""

    __slots__ = ("address", "_bytes", "_words")

    def __init__(self) -> None:
        args = Args()
        self.address = ctypes.addressof(args)
        self._bytes = memoryview(args).cast("B")  # keeps args alive
        self._words = self._bytes.cast("Q")

    def write(self, tensors: bytes, options: bytes, addresses: tuple[int, ...]) -> None:
        """What pack_tensors and pack_options give, and the address of each tensor."""
        size = len(tensors)
        self._bytes[:size] = tensors
        self._bytes[size:] = options
        words = self._words
        # Written out: a loop takes three times as long. A Tensor is 10 words, `data` its first.
        words[1], words[11], words[21], words[31], words[41], words[51], words[61] = addresses


_FILE = "libpageattn.so.0"


def _library_path() -> Path:
    """The library of PAGEATTN_LIBRARY if that is set, else the one installed in this package."""
    chosen = os.environ.get("PAGEATTN_LIBRARY")
    if chosen:
        return Path(chosen)
    path = _installed(_FILE)
    if path is None:
        raise ImportError(
            f"{_FILE} is in none of {_directories()}: the package was not installed as a whole. Run "
            "`pip install .` in a checkout of pageattn, or set PAGEATTN_LIBRARY to the path of the "
            "shared library"
        )
    return path


def _directories() -> list[str]:
    """Those of this package: two of them in an editable install."""
    return list(sys.modules[__name__.rpartition(".")[0]].__path__)


def _installed(name: str) -> Path | None:
    paths = (Path(directory, name) for directory in _directories())
    return next((path for path in paths if path.exists()), None)


def _built_with(name: str) -> str:
    path = _installed(name)
    if path is None:
        raise FileNotFoundError(
            f"{name} is in none of {_directories()}: this is a checkout, not an installed package; "
            "`pip install .` installs it"
        )
    return str(path)


def get_include() -> str:
    """The folder to give to a C compiler with -I, for #include <pageattn/pageattn.h>.

    FileNotFoundError where the package is not installed.
    """
    return _built_with("include")


def get_library() -> str:
    """The path of the shared library that is in use, to link C code with.

    What is linked with it finds it at run time if pageattn is imported first, or by a run path
    (-Wl,-rpath) that names its folder.
    """
    return str(Path(library._name).absolute())


def get_pkgconfig() -> str:
    """The folder of pageattn.pc, to give to pkg-config in PKG_CONFIG_PATH.

    FileNotFoundError where the package is not installed.
    """
    return _built_with("pkgconfig")


def _load() -> ctypes.CDLL:
    path = _library_path()
    try:
        library = ctypes.CDLL(str(path))
        library.pageattn_version_number.restype = ctypes.c_int32
        number = library.pageattn_version_number()
    except (OSError, AttributeError) as error:
        raise ImportError(f"{path} is not a pageattn library that this process can load: {error}")
    if (number // 1000000, number // 1000 % 1000) != (HEADER_MAJOR, HEADER_MINOR):
        raise ImportError(
            f"{path} has version {number // 1000000}.{number // 1000 % 1000}.{number % 1000}, but this "
            f"package needs {HEADER_MAJOR}.{HEADER_MINOR}.x: install package and library together"
        )
    _declare(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Result and argument types of the functions that are used here.

    Pointers to structs are declared as void: plain addresses are the quickest thing to hand over.
    """
    pointer = ctypes.c_void_p
    functions: dict[str, tuple[Any, list[Any]]] = {
        "pageattn_attend": (ctypes.c_int32, [pointer, pointer, pointer]),
        "pageattn_scratch_bytes": (ctypes.c_int32, [pointer, pointer, pointer, pointer]),
        "pageattn_reference": (ctypes.c_int32, [pointer, pointer, pointer, pointer]),
        "pageattn_context_create": (ctypes.c_int32, [pointer, pointer, pointer]),
        "pageattn_context_destroy": (None, [pointer]),
        "pageattn_context_isa": (ctypes.c_int32, [pointer]),
        "pageattn_isa_name": (ctypes.c_char_p, [ctypes.c_int32]),
        "pageattn_isa_available": (ctypes.c_int32, [ctypes.c_int32]),
        "pageattn_version": (ctypes.c_char_p, []),
    }
    for name, (restype, argtypes) in functions.items():
        function = getattr(library, name)
        function.restype = restype
        function.argtypes = argtypes


def raise_error(error: Error) -> NoReturn:
    """Raises what the library reported, with its message."""
    message = error.message.decode("utf-8", "replace")
    raise _EXCEPTIONS.get(error.status, ValueError)(message)


library = _load()
version: str = library.pageattn_version().decode()


def isas() -> tuple[str, ...]:
    """The instruction sets that this build has and this CPU can run, the slowest first."""
    return tuple(name for name, isa in ISAS.items() if library.pageattn_isa_available(isa))


def isa_name(isa: int) -> str:
    name: bytes = library.pageattn_isa_name(isa)
    return name.decode()
