"""The GPU's kernels under ThreadSanitizer, AddressSanitizer and UBSan, as real threads on this processor."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.cuda.source import PRELUDE
from tinyrnn.ir import Graph
from tinyrnn.ir.ops.leaves import constant, input_node
from tinyrnn.ir.ops.linear import sum_
from tinyrnn.ir.ops.random import random_bits
from tinyrnn.passes import grad

from .gpu import replay as recorded
from .gpu import toolchain
from .graph_cases import ODD, through_passes, values_for, without_gradients
from .running_error import assert_equal_computations
from .test_ops import CASES

pytestmark = pytest.mark.skipif(toolchain.COMPILER is None, reason="no C++ compiler here")


def training_step(name, dtype="float32"):
    cell = tr.cells[name] if name in tr.cells.names() else tr.Cell(ODD[name])
    return through_passes(cell.rolled(2, dict(zip(cell.sizes, (3, 5, 4), strict=False)), batch=3, gradients=True, dtype=dtype))


def lookups():
    """Embedding, its gradient, losses, random bits: what goes by whole numbers."""
    table, index = input_node("table", (7, 5), "float32"), input_node("index", (3, 4), "int32")
    rows = tr.gather(tr.Tensor(table), tr.Tensor(index))
    loss = tr.nn.cross_entropy(rows, tr.Tensor(input_node("target", (3, 4), "int64")))
    (d,) = grad(loss.node, [table])
    return Graph({"loss": loss.node, "d": d, "bits": random_bits(input_node("key", (2,), np.uint32), 3, (300,))})


def long_sums():
    """Reductions that are cut into parts, along rows and along columns."""
    x = input_node("x", (1, 20_000), "float32")
    y = input_node("y", (700, 3), "float32")
    return Graph({"sum": sum_(x), "largest": tr.abs(tr.Tensor(x)).max().node, "columns": sum_(y * y, (0,)),
                  "rows": (tr.softmax(tr.Tensor(input_node("z", (3, 70), "float64")))).node})


def every_op():
    """All ops in one graph, on small whole numbers."""
    outputs = {}
    for name, (build, shapes, _) in CASES.items():
        nodes = {k: input_node(f"{name} {k}", shape) for k, shape in shapes.items()}
        y = build(**nodes)
        outputs[name] = y
        if y.floating:
            loss = sum_(y * constant(np.random.default_rng(0).normal(size=y.shape)))
            outputs |= {f"{name} d{k}": g for k, g in zip(nodes, grad(loss, list(nodes.values())), strict=True)}
    return Graph({**outputs, **without_gradients()})


GRAPHS = {"lstm": lambda: training_step("lstm"), "gru": lambda: training_step("gru", "float64"),
          "layer_norm": lambda: training_step("layer_norm"), "matrix": lambda: training_step("matrix"),
          "lookups": lookups, "long sums": long_sums, "every op": every_op}


def checked(graph, sanitizer, tmp_path, change=lambda source: source):
    values = values_for(graph)
    known = {f"{name} {k}": v for name, (_, _, given) in CASES.items() for k, v in given.items()}
    values |= {k: np.asarray(known[k]).astype(v.dtype) for k, v in values.items() if k in known}
    found = recorded.replay(graph, values, sanitizer, tmp_path, change)
    assert_equal_computations(graph, found, values)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", recorded.SANITIZERS)
@pytest.mark.parametrize("name", GRAPHS)
def test_kernels_are_clean(name, sanitizer, tmp_path):
    checked(GRAPHS[name](), sanitizer, tmp_path)


def without(text, count=1):
    def change(source):
        assert text in source
        return source.replace(text, "", count)

    return change


def instead(old, new):
    def change(source):
        assert old in source
        return source.replace(old, new)

    return change


MEETING = PRELUDE + """
TR_KERNEL(ring, 4, 64) {
    unsigned* const counter = (unsigned*)tr.w[0];
    float* const x = (float*)tr.w[1];
    const tr_i64 n = (tr_i64)gridDim.x * blockDim.x, i = TR_X;
    for (unsigned t = 1; t <= (unsigned)tr.w[2]; t++) {
        x[t * n + i] = x[(t - 1) * n + (i + 5) % n] + 1.0f;
        tr_meet(counter, gridDim.x, t);
    }
}
"""


def meeting_blocks(tmp_path, change=lambda source: source):
    """Eight blocks that hand numbers round and meet after every turn: what a persistent kernel does."""
    threads, blocks, turns = 16, 8, 5
    n = threads * blocks
    source = change(MEETING)
    buffers = [np.zeros(1, np.uint32), np.full((turns + 1, n), np.nan, "f")]
    buffers[1][0] = np.arange(n)
    record = [np.int64(2).tobytes(), *(b for a in buffers for b in (np.int64(a.nbytes).tobytes(), a.tobytes())),
              np.int64(0).tobytes(), np.array([blocks, 1, threads, 1], np.uint32).tobytes(), np.int64(4).tobytes(),
              np.array([(0, 0), (1, 0), (-1, turns), (-1, 0)], np.int64).tobytes()]
    (tmp_path / "in").write_bytes(b"".join(record))
    recorded.run(recorded.program(source, toolchain.kernels_in(source), "thread"), tmp_path)
    found = np.frombuffer((tmp_path / "out").read_bytes(), "f", offset=4).reshape(turns + 1, n)
    np.testing.assert_array_equal(found[-1], (np.arange(n) + 5 * turns) % n + turns)


@pytest.mark.slow
def test_blocks_meet(tmp_path):
    meeting_blocks(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("change", [("tr_add_release(counter, 1)", "__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED)"),
                                    ("blocks * turn", "blocks * (turn - 1)"),
                                    ("    TR_BARRIER();\n    if (threadIdx.x == 0) {", "    if (threadIdx.x == 0) {")])
def test_a_meeting_that_does_not_wait_is_caught(change, tmp_path):
    with pytest.raises(recorded.SanitizerError, match="data race"):
        meeting_blocks(tmp_path, instead(*change))


PLANTED = {
    "no barrier between threads that share a column": ("long sums", "thread", instead("TR_BARRIER();\n    if (threadIdx.y == 0", "if (threadIdx.y == 0"),
                                                      "data race"),
    "every thread of a row stores": ("layer_norm", "thread", instead("if (live && threadIdx.x == 0)", "if (live)"), "data race"),
    "rows are one too long": ("lstm", "address", instead("j < inner; j += TR_ACROSS", "j <= inner; j += TR_ACROSS"), "heap-buffer-overflow"),
    "one row too many": ("lstm", "address", instead("r < rows; r += TR_DOWN", "r <= rows; r += TR_DOWN"), "heap-buffer-overflow"),
    "an index is not kept within": ("lookups", "address", instead("tr_within((tr_i64)at[i], size) * width", "((tr_i64)at[i] + 7) * width"),
                                    "heap-buffer-overflow"),
    "a shift that is too wide": ("lstm", "address", instead("<< 23", "<< 32"), "shift exponent"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_caught(name, tmp_path):
    graph, sanitizer, change, message = PLANTED[name]
    with pytest.raises(recorded.SanitizerError, match=message):
        checked(GRAPHS[graph](), sanitizer, tmp_path, change)
