"""Bugs planted in the GPU backend.  Each must be noticed by a check that `test_gpu` and `test_backends` rely on."""

import sys

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.cuda import bound, cublas, graphs, launch, lookups, mirrors, rows, runtime
from tinyrnn.ir.ops.leaves import Box

from .graph_cases import ODD
from .test_backends import check_graph
from .test_gpu import test_a_stream_waits_for_what_another_wrote as streams_check
from .test_gpu import test_an_index_outside_leaves_everything_as_it_was as index_check
from .test_gpu import test_embeddings_add_up_in_order as embedding_check
from .test_gpu import test_long_and_wide_reductions as reductions_check
from .test_gpu import test_parameters_stay_on_the_device_and_are_there_when_they_are_read as parameters_check
from .test_gpu import test_results_belong_to_the_caller as results_check
from .test_gpu import test_sums_of_columns_of_many_rows as columns_check
from .test_gpu import test_two_streams as two_streams_check
from .test_gpu import test_what_was_borrowed_is_never_written as borrowed_check


def cell_check(gpu):
    cell = tr.Cell(ODD["lag"], name="lag")
    check_graph(cell.rolled(4, dict(zip(cell.sizes, (3, 5), strict=False)), batch=2, gradients=True, dtype="float64"), "cuda")


def layer_norm_check(gpu):
    cell = tr.Cell(ODD["layer_norm"], name="norm")
    check_graph(cell.rolled(3, dict(zip(cell.sizes, (3, 70), strict=False)), batch=3, gradients=True), "cuda")


def matrix_check(gpu):
    cell = tr.Cell(ODD["matrix"], name="matrix")
    check_graph(cell.rolled(3, dict(zip(cell.sizes, (3, 5, 4), strict=False)), batch=3, gradients=True), "cuda")


def staging_check(gpu):
    """Results that stay on the device, one after the other: the memory that inputs are copied from is written anew."""
    cupy = sys.modules["cupy"]
    both = tr.compile(lambda a, b: (a + b, a - b), backend="cuda")
    one = cupy.asarray(np.ones(3))
    found = [both(one, np.full(3, float(k))) for k in range(6)]
    for k, (total, difference) in enumerate(found):
        np.testing.assert_array_equal(cupy.asnumpy(total), 1 + k)
        np.testing.assert_array_equal(cupy.asnumpy(difference), 1 - k)


def words_in_disorder(self, address, scratch, steps, plain=launch.KernelLaunch.words):
    table = plain(self, address, scratch, steps)
    table["w"][:, [0, 1]] = table["w"][:, [1, 0]]
    return table


def never_waiting(self, values, plain=graphs.Captured._fill):
    self.uploaded = None
    plain(self, values)


def without_copies(self, executable, room):
    self.outputs.pin()
    self.outputs.copy(graphs.TO_HOST, self.stream)
    self.stream.synchronize()
    shapes = {k: self.plan.outputs[k] for k in executable.results}
    held = self.outputs.here if room is None else self.outputs.there
    return {k: held[v.buffer].reshape(v.shape) for k, v in shapes.items()}


def stream_after_workspace(self, stream, workspace):
    self._done(self.library.cublasSetWorkspace_v2(self.handle, workspace.data.ptr, workspace.nbytes), "cublasSetWorkspace")
    self._done(self.library.cublasSetStream_v2(self.handle, stream), "cublasSetStream")


def in_one_direction(work, functions, address, scratch, multiply, plain=bound.bound):
    return plain([s._replace(reverse=False) for s in work], functions, address, scratch, multiply)


def never_uploading(box, name, write=False):
    box.mirrored = box.mirror is not None
    return mirrors.mirror_of(box, name, write=write)


def owning(self, array, *, borrowed=False, plain=mirrors.DeviceMirror.__init__):
    plain(self, array)


def changed(old, new, plain=rows.emit_rows):
    return lambda name, program: plain(name, program).replace(old, new)


def starting_from_one(self, plain=rows._Kernel.of_row):
    self.m.neutral = lambda reduction, dtype: self.m.constant(1, dtype)
    return plain(self)


MUTANTS = {
    "operands change places": (launch.KernelLaunch, "words", words_in_disorder, cell_check),
    "a loop that goes back goes forth": (graphs, "bound", in_one_direction, cell_check),
    "a batch of matrices is one matrix": (launch.Product, "batch", property(lambda self: 1), matrix_check),
    "rows and columns of a product are exchanged": (cublas, "TRANSPOSE", 0, cell_check),
    "the workspace is set before the stream": (cublas.Cublas, "use", stream_after_workspace, cell_check),
    "temporaries lie on top of each other": (runtime.Eager, "placed", lambda self, memory: dict.fromkeys(self.offsets, memory.data.ptr),
                                             cell_check),
    "inputs are written while they are copied": (graphs.Captured, "_fill", never_waiting, staging_check),
    "results are not copied": (graphs.Captured, "_results", without_copies, results_check),
    "one graph serves all streams": (graphs._Shelf, "of", lambda self, e, s, plain=graphs._Shelf.of: self._kept.get(
        ("any", id(e))) or self._kept.setdefault(("any", id(e)), graphs.Captured(e, s)), two_streams_check),
    "a bad index is committed": (lookups, "EMITTERS", {**lookups.EMITTERS, "commit": lambda name, size: lookups._commit(name, size).replace(
        "if (note[0] != 0) return;", "")}, index_check),
    "the host is not told of new data": (Box, "moved", lambda self: None, parameters_check),
    "new data of the host are not uploaded": (runtime, "mirror_of", never_uploading, parameters_check),
    "other streams do not wait": (mirrors.DeviceMirror, "await_on", lambda self, stream, write=False: None, streams_check),
    "what is borrowed is written": (mirrors.DeviceMirror, "__init__", owning, borrowed_check),
    "rows that share a block share sums": (rows, "emit_rows", changed("+ threadIdx.y * (blockDim.x / 32)", ""), layer_norm_check),
    "parts of rows are lost": (rows, "emit_rows", changed("k < parts", "k + 1 < parts"), reductions_check),
    "shares of columns are lost": (rows, "emit_rows", changed("k < parts", "k + 1 < parts"), columns_check),
    "a row's sum starts from 1": (rows._Kernel, "of_row", starting_from_one, reductions_check),
    "equal indices lose their order": (lookups, "_scatter", lambda *a, plain=lookups._scatter: plain(
        *a).replace("tile + k < i", "tile + k <= i"), embedding_check),
}


def checked(check, given, stand_in):
    check(given)
    stand_in.check()


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_bugs_are_noticed(name, no_gpu, monkeypatch):
    owner, attribute, value, check = MUTANTS[name]
    given = sys.modules["cupy"] if check.__code__.co_varnames[0] == "cupy" else no_gpu
    checked(check, given, no_gpu)
    no_gpu.forget()
    if attribute == "_scatter":
        monkeypatch.setitem(lookups.EMITTERS, "scatter", value)
    else:
        monkeypatch.setattr(owner, attribute, value)
    with pytest.raises((AssertionError, tr.TinyRNNError)):
        checked(check, given, no_gpu)
    no_gpu.forgive()
