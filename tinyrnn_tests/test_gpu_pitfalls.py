"""Where CuPy is not NumPy: each difference as a test of the stand-in, which must refuse what CuPy refuses, and of tinyrnn,
which must not run into it."""

import sys

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.cuda import nvrtc
from tinyrnn.backends.cuda.launch import kernel_keys, source_of
from tinyrnn.backends.plan.matmul import Blas
from tinyrnn.backends.plan.planner import plan_of
from tinyrnn.ir import Graph
from tinyrnn.passes import simplify
from tinyrnn.passes.fuse import fuse

from .gpu import toolchain


@pytest.fixture
def cupy(no_gpu):
    return sys.modules["cupy"]


def both(function, *arrays, **options):
    """A function on the GPU, eager and captured, and on the interpreter."""
    program = tr.compile(function, backend="cuda", **options)
    return [program(*arrays) for _ in range(2)], tr.compile(function, backend="numpy")(*arrays)


def agree(function, *arrays, **tolerance):
    found, expected = both(function, *arrays)
    for y in found:
        np.testing.assert_allclose(y, expected, **tolerance)


def test_1_numbers_do_not_become_numpy_arrays_by_themselves(cupy):
    there = cupy.asarray(np.ones(3))
    for use in (np.asarray, np.array, np.tanh):
        with pytest.raises(TypeError):
            use(there)
    x = tr.tensor(there, backend="cuda")
    np.testing.assert_array_equal(np.asarray(x), 1)
    np.testing.assert_array_equal(np.asarray(x * 2), 2)
    assert tr.tensor(there).backend == "numpy", "a tensor of the host copies what is on the device"


def test_2_operands_are_of_one_place(cupy):
    with pytest.raises(TypeError, match="Unsupported type"):
        cupy.asarray(np.ones(3)) + np.ones(3)
    program = tr.compile(lambda a, b: a + b, backend="cuda")
    for _ in range(2):
        np.testing.assert_array_equal(program(cupy.asarray(np.ones(3)), np.ones(3)).get(), 2)


def test_3_reductions_stay_arrays_and_reading_them_waits(cupy):
    program = tr.compile(lambda x: x.sum(), backend="cuda")
    for _ in range(2):
        total = program(cupy.asarray(np.ones(3)))
        assert total.shape == ()
        assert float(total) == 3.0
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
            float(total)
        stream.end_capture()


def test_4_where_and_out_are_not_left_to_ufuncs(cupy):
    agree(lambda x: tr.where(x > 0, tr.log(x), -x), np.array([-1.0, 0.5, 2.0]), rtol=1e-12)
    assert not hasattr(cupy, "where"), "tinyrnn asks nothing of CuPy's ufuncs"


def test_5_dtypes_are_promoted_as_numpy_2_does(cupy):
    x = np.ones(3, "f")
    for function, dtype in ((lambda x: x + 3.0, "f4"), (lambda x: x * tr.tensor(np.float64(3)), "f8"), (lambda x: x > 1, "b1"),
                            (lambda x: x.astype("int8") + 1, "i1"), (lambda x: (x > 0).sum(), "i8")):
        found, expected = both(function, x)
        for y in found:
            assert y.dtype == expected.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(y, expected)


def test_6_there_are_no_arrays_of_objects(cupy):
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cupy.asarray(np.array([None, 1], object))
    for bad in (np.array([None, 1], object), np.array(["a"]), [[1], [2, 3]]):
        with pytest.raises(tr.TinyRNNError):
            tr.tensor(bad, backend="cuda")


def test_7_indices_do_not_wrap_and_duplicates_add_up(cupy):
    table = np.arange(6.0).reshape(3, 2)
    found, expected = both(lambda t, i: tr.grad((tr.gather(t, i) ** 2).sum(), t), table, np.array([1, 1, 1, 2]))
    for y in found:
        np.testing.assert_allclose(y, expected)
    for bad in (-1, 3):
        with pytest.raises(tr.TinyRNNError, match=f"index {bad} is outside"):
            tr.compile(tr.gather, backend="cuda")(table, np.array([0, bad]))


def test_8_kernels_know_nothing_of_strides(cupy):
    program = tr.compile(lambda x: tr.tanh(x) @ x.T, backend="cuda")
    base = np.random.default_rng(0).normal(size=(6, 8))
    for x in (base.T, base[::2, ::3], base[::-1]):
        for given in (x, cupy.asarray(base).transpose() if x is base.T else cupy.asarray(np.array(x))):
            for _ in range(2):
                found = cupy.asnumpy(program(given))
                np.testing.assert_allclose(found, np.tanh(x) @ x.T, rtol=1e-10)
    assert not cupy.asarray(base).transpose().flags.c_contiguous


def test_9_floats_become_whole_numbers_as_is_said(cupy):
    """Within range as NumPy; beyond it the nearest number, NaN 0, on the CPU's kernels and the GPU's alike."""
    x = np.array([2.9, -2.9, 1e30, -1e30, np.inf, -np.inf, np.nan, 300.7, -0.5])
    for dtype in ("int64", "uint64", "int32", "int8", "bool", "uint8"):
        cpu = tr.compile(lambda x, d=dtype: x.astype(d), backend="cpu")(x)
        for y in both(lambda x, d=dtype: x.astype(d), x)[0]:
            np.testing.assert_array_equal(y, cpu, err_msg=dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(cpu[[0, 7, 8]], x[[0, 7, 8]].astype("uint8"))


def test_10_random_bits_are_our_own(cupy):
    found, expected = both(lambda key: tr.Tensor(_bits(key.node)), np.array([1, 2], np.uint32))
    for y in found:
        np.testing.assert_array_equal(y, expected)
    assert not hasattr(cupy, "random")


def _bits(key):
    from tinyrnn.ir.ops.random import random_bits

    return random_bits(key, 5, (17, 9))


def test_11_streams_do_not_wait_for_each_other(cupy):
    """The stand-in runs nothing before somebody waits for it; tinyrnn waits where it must."""
    stream = cupy.cuda.Stream(non_blocking=True)
    there = cupy.zeros(3, "f")
    stream.synchronize()
    with stream:
        other = tr.tensor(np.ones(3, "f"), backend="cuda")
        np.testing.assert_array_equal((other + 1).numpy(), 2)
    np.testing.assert_array_equal((other + 2).numpy(), 3)
    np.testing.assert_array_equal(there.get(), 0)


def test_12_errors_that_come_late_are_named(cupy, monkeypatch):
    program = tr.compile(lambda x: x * 2, backend="cuda")
    program(np.ones(3))

    def broken(self, stream=None):
        raise cupy.cuda.runtime.CUDARuntimeError(700)

    monkeypatch.setattr(cupy.cuda.Graph, "launch", broken)
    with pytest.raises(tr.TinyRNNError, match=r"CUDA reported cudaErrorIllegalAddress: .* while running a plan; .*CUDA_LAUNCH_BLOCKING"):
        program(np.ones(3))


def test_13_there_are_no_floating_point_exceptions(cupy):
    x = np.array([0.0, -1.0, np.inf, np.nan])
    with np.errstate(all="raise"):
        found = tr.compile(lambda x: (tr.log(x), 1 / x, tr.sqrt(x), tr.maximum(x, 0.0)), backend="cuda")(x)
    with np.errstate(all="ignore"):
        for y, expected in zip(found, (np.log(x), 1 / x, np.sqrt(x), np.maximum(x, 0.0)), strict=True):
            np.testing.assert_allclose(y, expected)


def test_14_denormals_are_kept_and_results_compared_with_tolerance(cupy):
    """CuPy's own compiler flushes them to zero; ours is told not to."""
    assert "--ftz=false" in nvrtc.OPTIONS
    x = np.array([1e-40, -3e-42, 1.5e-38], "f")
    agree(lambda x: x * 0.5, x, rtol=0)
    agree(lambda x: tr.tanh(x), x, rtol=1e-6)


def test_15_results_of_the_host_are_numpy_arrays(cupy):
    found, _ = both(lambda x: {"a": x * 2, "b": (x.sum(), x > 0)}, np.ones(3))
    for y in found:
        assert type(y["a"]) is np.ndarray
        assert type(y["b"][0]) is np.ndarray
        y["a"][0] = 5  # they may be written to, and share memory with nothing


def test_16_nothing_is_dispatched_behind_the_back(cupy):
    x = tr.tensor(np.ones(3), backend="cuda")
    assert type(np.multiply(np.ones(3), x.numpy())) is np.ndarray
    assert isinstance(np.ones(3) * x, tr.Tensor)


def test_17_sums_have_an_order_of_their_own_but_always_the_same(cupy):
    x = np.random.default_rng(0).normal(size=(37, 1000)).astype("f")
    program = tr.compile(lambda x: (x.sum(), x.sum(0), x.sum(1), tr.softmax(x)), backend="cuda")
    first = program(x)
    for _ in range(3):
        for a, b in zip(program(x), first, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(first[0], x.astype("d").sum(), rtol=1e-5)


def test_18_kernels_are_compiled_once(cupy, monkeypatch):
    compiled = []
    monkeypatch.setattr(nvrtc, "cubin", lambda source, arch: compiled.append(source) or source.encode())
    program = tr.compile(lambda x: tr.tanh(x).sum(), backend="cuda")
    for n in (3, 3, 4, 700):
        program(np.ones((n, n), "f"))
    assert len(compiled) == 1, "a new size compiled kernels anew"


# ---- how launches are made

def test_a_grid_of_nothing_is_not_launched(cupy):
    """CuPy makes a block of it, which would write where nothing is."""
    x = tr.input("x", (0, 5), "float32")
    graph = Graph({"y": tr.tanh(x), "s": x.sum(0), "t": x @ np.ones((5, 3), "f"), "g": tr.grad((x * x).sum(), x)})
    for _ in range(2):
        found = graph.run({"x": np.zeros((0, 5), "f")}, backend="cuda")
        np.testing.assert_array_equal(found["s"], 0)
        assert [v.shape for v in found.values()] == [(0, 5), (5,), (0, 3), (0, 5)]


def test_cooperative_grids_are_cut_by_cupy_and_not_used(cupy):
    plan = plan_of(fuse(simplify(tr.cells.LSTM.rolled(2, gradients=True))), Blas())
    source = source_of(kernel_keys(plan.calls()))
    assert "cooperative" not in source
    assert "#include" not in source.replace('#include "tr_cpu.h"', ""), "kernels need no headers"
    module = cupy.cuda.function.Module()
    module.load(source.encode())
    kernel = module.get_function(next(iter(toolchain.kernels_in(source))))
    words = np.zeros(1, [("w", np.int64, (kernel.words,))])
    with pytest.warns(UserWarning, match="grid size will be reduced"):
        kernel((1000,), (1,), (words,), enable_cooperative_groups=True)
    with pytest.raises(ValueError, match="exceeds the limit"):
        kernel((100, 2), (1,), (words,), enable_cooperative_groups=True)
    with pytest.raises(TypeError, match=r"Only numpy\.ndarrays of size one"):
        kernel((1,), (1,), (np.zeros(2, words.dtype),))


def test_cupys_products_refuse_to_be_captured(cupy):
    a = cupy.asarray(np.ones((2, 2)))
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(NotImplementedError, match="calling cuBLAS API during stream capture"):
            cupy.matmul(a, a, out=a)
        stream.end_capture()
    agree(lambda a: a @ a, np.arange(4.0).reshape(2, 2))


def test_the_legacy_stream_cannot_be_captured(cupy):
    with pytest.raises(RuntimeError, match="default"):
        cupy.cuda.Stream.null.begin_capture()
