# SPDX-License-Identifier: Apache-2.0
"""Tensors of other packages: read where they lie, released once, refused with a reason."""

import ctypes
import gc
import weakref

import cases
import numpy as np
import pageattn
import pytest
from pageattn import _arguments, _dlpack, _library

NAMES = ["query", "key_cache", "value_cache", "context_lens", "block_tables"]
TYPES = {"float32": (2, 32), "float16": (2, 16), "bfloat16": (4, 16), "int32": (0, 32)}

new_capsule = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)(("PyCapsule_New", ctypes.pythonapi))
capsule_is = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)


class Unversioned(ctypes.Structure):
    _fields_ = [
        ("tensor", _dlpack._Tensor),
        ("manager_context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    ]


class Producer:
    """A tensor over the memory of a NumPy array, which counts what is done to it.

    `device`, `type`, `version`, `flags` and `strides` are what it says of itself.
    """

    def __init__(self, array, versioned=True, device=(1, 0), type_=None, lanes=1, version=(1, 0),
                 flags=0, strides=True, offset=0):  # fmt: skip
        self.array = array
        self.versioned = versioned
        self.device = device
        self.flags = flags
        self.num_exported = 0
        self.num_deleted = 0
        managed = _dlpack._Versioned() if versioned else Unversioned()
        if versioned:
            managed.major_version, managed.minor_version = version
            managed.flags = flags
        managed.tensor.data = array.ctypes.data - offset
        managed.tensor.byte_offset = offset
        managed.tensor.device_type, managed.tensor.device_id = device
        managed.tensor.num_axes = array.ndim
        kind, bits = type_ or TYPES[array.dtype.name]
        managed.tensor.type_kind, managed.tensor.type_bits = kind, bits
        managed.tensor.type_lanes = lanes
        axes = ctypes.c_int64 * array.ndim
        self.shape = axes(*array.shape)
        self.strides = axes(*(stride // array.itemsize for stride in array.strides))
        managed.tensor.shape = self.shape
        if strides:
            managed.tensor.strides = self.strides
        self.managed = managed
        self.name = b"dltensor_versioned" if versioned else b"dltensor"
        # As PyCapsule_Destructor: only a capsule that nobody took over is released by it.
        self.destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self.destroy)

    def destroy(self, capsule):
        if capsule_is(capsule, self.name):
            self.num_deleted += 1

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **keywords):
        if self.versioned:
            assert keywords == {"max_version": (1, 0), "copy": False}
        elif keywords:
            raise TypeError("unexpected keywords")
        self.num_exported += 1
        return new_capsule(
            ctypes.addressof(self.managed), self.name, ctypes.cast(self.destructor, ctypes.c_void_p)
        )


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("layout", ["HND_pages", "NHD"])
def test_the_same_bits_from_the_same_memory(layout, dtype, versioned):
    made = cases.make(50, query_dtype=cases.DTYPES[dtype], kv_dtype=cases.DTYPES[dtype])
    arrays = cases.in_layout(made, layout)
    expected = pageattn.page_attention(**arrays, return_lse=True)
    producers = {name: Producer(arrays[name], versioned) for name in NAMES}
    got = pageattn.page_attention(**{**arrays, **producers}, return_lse=True)
    assert cases.bits(got) == cases.bits(expected)
    assert got[0].dtype == expected[0].dtype
    for name, producer in producers.items():
        assert (producer.num_exported, producer.num_deleted) == (1, 1), name


@pytest.mark.parametrize("name", NAMES)
def test_the_library_gets_the_address_shape_and_strides(name):
    array = cases.make(51)[name][::-1]
    owners = []
    address, view = _arguments._array(name, Producer(array, offset=64), owners)
    assert address == array.ctypes.data
    assert view == (array.dtype, array.shape, array.strides)
    assert len(owners) == 1


def test_strides_may_be_left_out():
    array = np.zeros((2, 3, 5), np.float32)
    _, view = _arguments._array("query", Producer(array, strides=False), [])
    assert view[2] == array.strides


def test_the_memory_lives_until_the_call_is_over(monkeypatch):
    """Even if nobody else refers to the tensors."""
    arrays = cases.make(52)
    producers = {name: Producer(arrays[name]) for name in NAMES}
    seen = []
    real = _library.library.pageattn_attend

    def attend(*args):
        gc.collect()
        seen.append([producer.num_deleted for producer in producers.values()])
        return real(*args)

    monkeypatch.setattr("pageattn._context._attend", attend)
    pageattn.page_attention(**producers)
    assert seen == [[0] * 5]
    assert [producer.num_deleted for producer in producers.values()] == [1] * 5


def test_released_once_when_the_call_fails():
    arrays = cases.make(53)
    arrays["context_lens"][2] = -1
    producers = {name: Producer(arrays[name]) for name in NAMES}
    with pytest.raises(ValueError, match=r"context_lens\[2\] = -1"):
        pageattn.page_attention(**producers)
    gc.collect()
    assert [producer.num_deleted for producer in producers.values()] == [1] * 5


def test_nothing_is_kept():
    arrays = cases.make(54)
    producer = Producer(arrays["key_cache"])
    gone = weakref.ref(producer)
    pageattn.page_attention(**{**arrays, "key_cache": producer})
    producer.destructor = None  # it refers back to the producer
    del producer
    gc.collect()
    assert gone() is None


def test_out_is_written_where_it_lies():
    arrays = cases.make(55)
    expected = pageattn.page_attention(**arrays)
    out = Producer(np.zeros((4, 12, 40), np.float32)[:, ::2])
    assert pageattn.page_attention(**arrays, out=out) is out
    assert cases.bits(out.array) == cases.bits(expected)
    assert out.num_deleted == 1


def test_pinned_memory_is_memory_of_the_cpu():
    arrays = cases.make(56)
    expected = pageattn.page_attention(**arrays)
    pinned = {name: Producer(arrays[name], device=(3, 0)) for name in NAMES}
    assert cases.bits(pageattn.page_attention(**pinned)) == cases.bits(expected)


def broken(error):
    class Broken:
        def __dlpack_device__(self):
            return 1, 0

        def __dlpack__(self, **keywords):
            raise error

    return Broken()


class Tracer:
    def __dlpack__(self):
        raise AssertionError("not to be called")


FLOATS = np.zeros((4, 6, 40), np.float32)
INTS = np.zeros(4, np.int32)
WRONG = [
    ("query", Producer(FLOATS, device=(2, 1)), ValueError,
     r"query \(test_dlpack.Producer\) is in the memory of cuda:1; .*move it to the CPU"),
    ("key_cache", Producer(FLOATS, device=(99, 0)), ValueError, r"device type 99 of DLPack:0"),
    ("query", broken(BufferError("it requires a gradient")), ValueError,
     r"query \(.*Broken\) does not give its memory through DLPack: it requires a gradient"),
    ("query", broken(TypeError("no")), ValueError, r"does not give its memory .*: no"),
    ("query", Producer(FLOATS, version=(2, 0)), ValueError, r"speaks DLPack 2.0; .* knows 1.x"),
    ("value_cache", Producer(FLOATS, flags=2), ValueError, r"value_cache .*gives a copy"),
    ("out", Producer(FLOATS, flags=1), ValueError, r"out is read-only"),
    ("out", Producer(FLOATS, versioned=False), ValueError, r"out .*does not say whether"),
    ("query", Producer(FLOATS, type_=(2, 64)), TypeError, r"query has dtype float64, not float32"),
    ("query", Producer(FLOATS, lanes=4), TypeError, r"query has dtype float32x4"),
    ("query", Producer(FLOATS, type_=(10, 8)), TypeError, r"query has dtype type 10-8"),
    ("context_lens", Producer(INTS, type_=(0, 64)), TypeError,
     r"context_lens has dtype int64, not int32; convert it"),
    ("context_lens", Producer(INTS, type_=(4, 16)), TypeError, r"context_lens has dtype bfloat16"),
    ("query", Producer(FLOATS[0]), ValueError, r"query has 2 axes"),
    ("query", Producer(np.zeros((4, 6, 80), np.float32)[..., ::2]), ValueError, r"query"),
    ("query", Tracer(), TypeError, r"query is a tracer of JAX.*pageattn.jax.page_attention"),
]  # fmt: skip


@pytest.mark.parametrize("name,wrong,exception,message", WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_refused(name, wrong, exception, message):
    arrays = cases.make(57)
    out = np.full((4, 6, 40), 77, np.float32)
    with pytest.raises(exception, match=message):
        pageattn.page_attention(**{**arrays, "out": out, name: wrong})
    gc.collect()
    assert np.all(out == 77)
    if isinstance(wrong, Producer):
        assert wrong.num_exported == wrong.num_deleted
        assert not np.any(wrong.array)


def test_a_capsule_that_was_used_up():
    """Another consumer took it over; its memory is not ours to read."""

    class Used(Producer):
        def __dlpack__(self, **keywords):
            return new_capsule(ctypes.addressof(self.managed), b"used_dltensor_versioned", None)

    arrays = cases.make(58)
    arrays["query"] = Used(arrays["query"])
    with pytest.raises(ValueError, match="gives no DLPack capsule, but <capsule object \"used_"):
        pageattn.page_attention(**arrays)


def test_bfloat16_results_need_ml_dtypes_or_out(monkeypatch):
    made = cases.make(59, query_dtype=cases.BFLOAT16)
    expected = pageattn.page_attention(**made)
    arrays = {**made, "query": Producer(made["query"])}
    assert pageattn.page_attention(**arrays).dtype == cases.BFLOAT16
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(TypeError, match="package ml_dtypes only; install it, or pass out"):
        pageattn.page_attention(**arrays)
    out = Producer(np.zeros(made["query"].shape, cases.BFLOAT16))
    pageattn.page_attention(**arrays, out=out)
    assert cases.bits(out.array) == cases.bits(expected)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_arrays_of_jax(dtype):
    jax = pytest.importorskip("jax")
    made = cases.make(60, query_dtype=cases.DTYPES[dtype], kv_dtype=cases.DTYPES[dtype])
    expected = pageattn.page_attention(**made)
    arrays = {name: jax.device_put(array, jax.devices("cpu")[0]) for name, array in made.items()}
    out = pageattn.page_attention(**arrays)
    assert cases.bits(out) == cases.bits(expected)
    address, _ = _arguments._array("key_cache", arrays["key_cache"], [])
    assert address == arrays["key_cache"].unsafe_buffer_pointer()
    with pytest.raises(ValueError, match="out .*does not say whether it may be written"):
        pageattn.page_attention(**arrays, out=arrays["query"] + 0)


def test_tracers_of_jax():
    jax = pytest.importorskip("jax")
    arrays = cases.make(61)
    with pytest.raises(TypeError, match="query is a tracer of JAX, .*pageattn.jax.page_attention"):
        jax.jit(lambda query: pageattn.page_attention(**{**arrays, "query": query}))(
            arrays["query"]
        )
