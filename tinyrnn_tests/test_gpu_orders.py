"""What may happen in another order on a GPU than it was asked for: streams, threads, memory that goes away, want of memory.

All on the stand-in, which does everything as late as it may, hands out freed memory at once, and gives handles out again.
"""

import gc
import sys
import threading

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.cuda import graphs, runtime


@pytest.fixture
def cupy(no_gpu):
    return sys.modules["cupy"]


def stream(cupy):
    return cupy.cuda.Stream(non_blocking=True)


# ---- products that split their sums

def test_threads_that_fill_one_stream_have_workspaces_of_their_own(no_gpu):
    """A product is two kernels here, and the second takes up what the first left in the workspace."""
    rng = np.random.default_rng(0)
    A, B = (rng.normal(size=(30, 30)).astype("f") for _ in range(2))
    programs = [tr.compile(lambda x, w=w: x @ w, backend="cuda:eager,tf32") for w in (A, B)]
    x = rng.normal(size=(20, 30)).astype("f")
    right = [p(x) for p in programs]
    found, errors = {0: [], 1: []}, []

    def work(i):
        try:
            found[i] = [programs[i](x) for _ in range(12)]
        except BaseException as error:
            errors.append(error)

    no_gpu.LIB.fake_slowly(1)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        no_gpu.LIB.fake_slowly(0)
    assert not errors, errors
    for i in range(2):
        for y in found[i]:
            np.testing.assert_array_equal(y, right[i])


def test_graphs_have_another_workspace_than_what_is_launched_beside_them(cupy):
    here = cupy.cuda.get_current_stream()
    assert runtime.workspace_of(here) is runtime.workspace_of(here)
    assert runtime.workspace_of(here) is not runtime.workspace_of(here, captured=True)
    assert runtime.workspace_of(here, captured=True) is not runtime.workspace_of(stream(cupy), captured=True)


def test_threads_that_come_take_the_handles_of_those_that_are_gone(no_gpu):
    program = tr.compile(lambda x: x @ x, backend="cuda:eager,tf32")
    program(np.eye(3, dtype="f"))
    before = no_gpu.LIB.fake_handles()
    for _ in range(6):
        t = threading.Thread(target=program, args=(np.eye(3, dtype="f"),))
        t.start()
        t.join()
        del t
    gc.collect()
    assert no_gpu.LIB.fake_handles() <= before + 2  # the latest launches hold on to one


# ---- streams

def test_values_are_waited_for_on_other_streams(cupy):
    """Looked at, converted and handed on by DLPack: a computed tensor, a parameter after an update, one that was just made."""
    first, second = stream(cupy), stream(cupy)
    W = tr.parameter(np.zeros(4, "f"), name="W")
    add = tr.compile(lambda x: (W.assign(W + x), W.sum())[1], backend="cuda")
    for k in range(1, 4):
        with first:
            y = tr.exp(tr.tensor(cupy.asarray(np.full(3, float(k))), backend="cuda"))
            y.held()
            add(cupy.asarray(np.ones(4, "f")))
        with second:
            np.testing.assert_allclose(cupy.from_dlpack(y).get(), np.exp(k), rtol=1e-6)
        with first:
            z = tr.exp(tr.tensor(cupy.asarray(np.full(3, float(k))), backend="cuda"))
            z.held()
        with second:
            np.testing.assert_allclose(z.numpy(), np.exp(k), rtol=1e-6)
            np.testing.assert_array_equal(cupy.asnumpy(cupy.from_dlpack(W) if W.backend == "cuda" else cupy.asarray(W.numpy())), k)


def counted(cupy):
    """Two streams, a parameter on the device, a program that adds to it, and what it adds."""
    first, second = stream(cupy), stream(cupy)
    W = tr.parameter(cupy.asarray(np.zeros(4, "f")), name="W", backend="cuda")
    add = tr.compile(lambda x: (W.assign(W + x), W.sum())[1], backend="cuda")
    one = cupy.asarray(np.ones(4, "f"))
    cupy.cuda.get_current_stream().synchronize()
    return first, second, W, add, one


def test_a_parameter_on_the_device_is_waited_for(cupy):
    first, second, W, add, one = counted(cupy)
    for k in range(1, 4):
        with first:
            add(one)
        with second:
            np.testing.assert_array_equal(cupy.from_dlpack(W).get(), k)


def test_whoever_writes_waits_for_copies(cupy):
    """A copy that another stream has yet to make is one of the old numbers."""
    first, second, W, add, one = counted(cupy)
    for k in range(4):
        with first:
            copies = cupy.from_dlpack(W), W.detach()
        with second:
            add(one)
            second.synchronize()
        with first:
            np.testing.assert_array_equal(copies[0].get(), k)
            np.testing.assert_array_equal(copies[1].numpy(), k)


def test_what_is_taken_from_one_stream_is_read_on_another(cupy):
    first, second = stream(cupy), stream(cupy)
    with first:
        W = tr.parameter(cupy.asarray(np.arange(4.0)), name="W", backend="cuda")
    with second:
        np.testing.assert_array_equal(tr.compile(lambda: W * 2, backend="cuda")(), 2 * np.arange(4.0))


def test_a_stream_with_the_handle_of_another_is_another(cupy):
    """What was written on a stream that is gone is still waited for."""
    W = tr.parameter(np.zeros(4, "f"), name="W")
    add = tr.compile(lambda x: (W.assign(W + x), W.sum())[1], backend="cuda:eager")
    read = tr.compile(lambda: W * 1, backend="cuda:eager")
    one = cupy.asarray(np.ones(4, "f"))
    cupy.cuda.get_current_stream().synchronize()
    for k in range(1, 4):
        first = stream(cupy)
        handle = first.ptr
        with first:
            add(one)
        del first
        gc.collect()
        second = stream(cupy)
        assert second.ptr == handle
        with second:
            np.testing.assert_array_equal(read(), k)
        del second
        gc.collect()


def test_the_stand_in_keeps_the_order_of_the_legacy_stream(cupy):
    """Streams that block wait for what the legacy stream was given before, and it for them; others do not."""
    null, blocks, free = cupy.cuda.Stream.null, cupy.cuda.Stream(), stream(cupy)
    a = cupy.empty(3)
    null.synchronize()
    for first, second, ordered in ((null, blocks, True), (blocks, null, True), (null, free, False), (free, null, False)):
        with first:
            cupy.cuda.runtime.memsetAsync(a.data.ptr, 0, a.nbytes, first.ptr)
        with second:
            seen = a.get()
        first.synchronize()
        assert (seen == 0).all() == ordered
        with first:
            cupy.cuda.runtime.memsetAsync(a.data.ptr, 0xFF, a.nbytes, first.ptr)
        first.synchronize()


def test_the_stand_in_hands_out_freed_memory_at_once(cupy):
    null = cupy.cuda.Stream.null
    a = cupy.asarray(np.ones(5))
    address = a.data.ptr
    del a
    b = cupy.empty(5)
    assert b.data.ptr == address
    null.synchronize()
    assert np.isnan(b.get()).all(), "what was there is gone"


# ---- memory that goes away

def test_graphs_that_are_dropped_have_done_their_work(cupy):
    """Inputs are copied from memory of the host that goes with the graph."""
    program = tr.compile(lambda a, b: a + b, backend="cuda")
    here = cupy.asarray(np.ones(3))
    for _ in range(2):
        program(here, np.zeros(3))
    for k, drop in enumerate((graphs.CAPTURED.clear, graphs.CAPTURED.drop)):
        program(here, np.zeros(3))
        found = program(here, np.full(3, float(k)))
        drop()
        gc.collect()
        np.testing.assert_array_equal(found.get(), 1 + k)


@pytest.mark.parametrize("where", ["pinned", "graph", "module", "launch"])
def test_want_of_memory_is_known_in_all_its_forms(where, cupy, no_gpu, monkeypatch):
    """It comes as several types; once other graphs are gone there is room, and nothing was changed in between."""
    other = tr.compile(lambda x: tr.tanh(x) * 3, backend="cuda")
    for _ in range(2):
        other(np.ones(5))
    W = tr.parameter(np.zeros(3), name="W")
    step = tr.compile(lambda x: (W.assign(W + x), tr.sin(W).sum())[1], backend="cuda")
    if where != "module":
        step(np.ones(3))
    tries, others = [], list(graphs.CAPTURED._kept.values())

    def scarce(plain, error):
        def call(*args, **keywords):
            tries.append(1)
            if any(c in others for c in graphs.CAPTURED._kept.values()):
                raise error
            return plain(*args, **keywords)
        return call

    runtime_error, driver_error = cupy.cuda.runtime.CUDARuntimeError(2), no_gpu.CUDADriverError(2)
    owner, name, error = {"pinned": (cupy.cuda, "alloc_pinned_memory", runtime_error), "graph": (no_gpu.Stream, "end_capture", runtime_error),
                          "module": (no_gpu.Module, "load", driver_error), "launch": (no_gpu.Graph, "launch", runtime_error)}[where]
    if where == "launch":
        plain, left = no_gpu.Graph.launch, [error]

        def once(self, stream=None):
            tries.append(1)
            if left:
                raise left.pop()
            return plain(self, stream)

        monkeypatch.setattr(owner, name, once)
    else:
        monkeypatch.setattr(owner, name, scarce(getattr(owner, name), error))
    before = 1 if where != "module" else 0
    assert np.isfinite(step(np.ones(3)))
    assert len(tries) >= 2
    np.testing.assert_array_equal(W.numpy(), before + 1)


@pytest.mark.parametrize("backend", ["cuda", "cuda:eager"])
def test_an_update_is_not_done_twice(backend, cupy, no_gpu, monkeypatch):
    """Memory that is wanted between two updates of one step: an error, not another try."""
    other = tr.compile(lambda x: tr.tanh(x) * 3, backend="cuda")
    for _ in range(2):
        other(np.ones(5))
    A, B = (tr.parameter(np.zeros(3), name=k) for k in "AB")
    step = tr.compile(lambda x: (A.assign(A + x), B.assign(B + x), x.sum())[2], backend=backend)
    plain, commits = no_gpu.Function.launch, []

    def scarce(self, *args, **keywords):
        if "commit" in self.name:
            commits.append(1)
            if len(commits) == 2:
                raise no_gpu.CUDADriverError(2)
        return plain(self, *args, **keywords)

    monkeypatch.setattr(no_gpu.Function, "launch", scarce)
    with pytest.raises(tr.TinyRNNError, match=r"in the middle of an update: .*Some parameters may have their new numbers and others not"):
        step(np.ones(3))
    assert len(commits) == 2
    assert len(graphs.CAPTURED) == 1


def test_graphs_of_programs_that_are_gone_go_first(cupy):
    def once(n):
        program = tr.compile(lambda x: x * 2, backend="cuda")
        for _ in range(2):
            program(np.ones(n))
        return program

    kept = once(3)
    once(4)
    gc.collect()
    assert len(graphs.CAPTURED) == 2
    assert graphs.CAPTURED.drop()
    assert [c.executable() is not None for c in graphs.CAPTURED._kept.values()] == [True]
    assert graphs.CAPTURED.drop()
    assert not graphs.CAPTURED.drop()
    np.testing.assert_array_equal(kept(np.ones(3)), 2)


def test_a_graph_that_is_replaced_has_done_its_work(cupy):
    """The place of a program that is gone may be that of a new one."""
    program = tr.compile(lambda a, b: a + b, backend="cuda")
    here = cupy.asarray(np.ones(3))
    for _ in range(2):
        found = program(here, np.full(3, 5.0))
    (captured,) = graphs.CAPTURED._kept.values()
    executable = captured.executable()
    captured.executable = lambda: None
    graphs.CAPTURED.of(executable, captured.stream)
    del captured
    gc.collect()
    np.testing.assert_array_equal(found.get(), 6)


def test_memory_that_is_not_there_is_said(cupy, monkeypatch):
    def none(size):
        raise cupy.cuda.runtime.CUDARuntimeError(2)

    program = tr.compile(lambda x: x * 2, backend="cuda")
    program(np.ones(3))
    monkeypatch.setattr(cupy.cuda, "alloc_pinned_memory", none)
    with pytest.raises(tr.TinyRNNError, match=r"out of memory on the GPU: memory of the host that is copied from needs .*Nothing was changed"):
        program(np.ones(3))


def test_other_errors_of_the_driver_are_not_want_of_memory(cupy, no_gpu, monkeypatch):
    program = tr.compile(lambda x: x * 2, backend="cuda")
    program(np.ones(3))
    monkeypatch.setattr(cupy.cuda, "alloc_pinned_memory", lambda size: (_ for _ in ()).throw(cupy.cuda.runtime.CUDARuntimeError(700)))
    with pytest.raises(tr.TinyRNNError, match="CUDA reported cudaErrorIllegalAddress"):
        program(np.ones(3))
