"""One set of cases for all backends: the interpreter, the CPU's kernels, the GPU's, eager and captured.

Where there is no GPU, a stand-in for CuPy runs the very kernels that a GPU would get, on this processor.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinyrnn as tr
from tinyrnn.backends.scalars import ULP
from tinyrnn.ir import Graph
from tinyrnn.ir.op import CATALOGUE
from tinyrnn.ir.ops.leaves import constant, input_node
from tinyrnn.ir.ops.linear import sum_
from tinyrnn.passes import grad

from .graph_cases import LAYERS, ODD, runs_of, through_passes, values_for, without_gradients
from .random_graphs import random_graph
from .running_error import assert_equal_computations
from .test_ops import CASES

BACKENDS = ("numpy", "cpu", *(pytest.param(name, marks=pytest.mark.gpu) for name in ("cuda:eager", "cuda")))


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Every backend in turn."""
    if request.param.startswith("cuda"):
        request.getfixturevalue("gpu")
    return request.param


def check_graph(graph, backend, rng=0):
    values = values_for(graph, rng)
    for g in (graph, through_passes(graph)):
        for found in runs_of(backend, g, values):
            assert_equal_computations(graph, found, values)


# ---- cells and layers

@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", tr.cells.names())
def test_zoo(name, dtype, backend):
    cell = tr.cells[name]
    sizes = dict(zip(cell.sizes, (3, 5, 7), strict=False))
    check_graph(cell.rolled(4, sizes, batch=2, gradients=True, dtype=dtype), backend)


@pytest.mark.slow
@pytest.mark.parametrize("name", tr.cells.names())
@pytest.mark.parametrize(("batch", "steps", "sizes"), [(1, 1, (1, 1, 1)), (1, 3, (17, 33, 65)), (13, 2, (1, 19, 2)),
                                                        (7, 5, (64, 70, 16))])
def test_zoo_at_odd_sizes(name, batch, steps, sizes, backend):
    cell = tr.cells[name]
    check_graph(cell.rolled(steps, dict(zip(cell.sizes, sizes, strict=False)), batch=batch, gradients=True, dtype="float32"), backend)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ODD)
def test_odd_cells(name, dtype, backend):
    cell = tr.Cell(ODD[name], name=name.replace(" ", "_"))
    check_graph(cell.rolled(4, dict(zip(cell.sizes, (3, 5, 4), strict=False)), batch=3, gradients=True, dtype=dtype), backend)


@pytest.mark.parametrize("name", ["softmax", "layer_norm", "rms_norm", "division"])
def test_rows_as_wide_as_a_block(name, backend):
    cell = tr.Cell(ODD[name], name=name)
    check_graph(cell.rolled(2, dict(zip(cell.sizes, (3, 70, 4), strict=False)), batch=3, gradients=True, dtype="float32"), backend)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False},
                                     {"num_layers": 2, "bidirectional": True, "batch_first": False}])
@pytest.mark.parametrize("lengths", [None, [4, 1, 0, 3]])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, options, lengths, backend):
    layer = LAYERS[name](dtype="float64", **options)
    shape = (4, 4, 3)
    x = input_node("x", shape)
    y, state = layer(tr.Tensor(x), lengths=lengths)
    states = list(state) if isinstance(state, tuple) else [state]
    loss = (y * y).sum() + sum((s * tr.sin(s)).sum() for s in states)
    gradients = tr.grad(loss, dict(layer.named_parameters()) | {"x": tr.Tensor(x)})
    graph = Graph({"y": y, "loss": loss, **{f"state {i}": s for i, s in enumerate(states)},
                   **{f"d{k}": g for k, g in gradients.items()}})
    check_graph(graph, backend)


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_no_steps_and_no_rows(steps, batch, backend):
    layer = tr.nn.LSTM(3, 4, rng=0)
    x = input_node("x", (batch, steps, 3), "float32")
    y, (h, c) = layer(tr.Tensor(x))
    loss = y.sum() + h.sum() + c.sum()
    graph = Graph({"y": y, "h": h, "c": c, **{f"d{k}": g for k, g in tr.grad(loss, dict(layer.named_parameters())).items()}})
    check_graph(graph, backend)


MODELS = {
    "LSTM, every option": lambda: tr.nn.LSTM(3, 4, peephole=True, proj_size=2, layer_norm=True, clip=2.0, cell_clip=3.0, rng=0),
    "GRU, reset before": lambda: tr.nn.GRU(3, 4, num_layers=2, bidirectional=True, learn_state=True, rng=0),
    "RNN reversed": lambda: tr.nn.RNN(3, 4, reverse=True, rng=0),
    "Recurrent": lambda: tr.nn.Recurrent("lstm_coupled", x=3, h=4, rng=0),
    "Bidirectional": lambda: tr.nn.Bidirectional(tr.nn.Recurrent("mgu", x=3, h=4, rng=0), rng=1),
    "Bidirectional, summed": lambda: tr.nn.Bidirectional(tr.nn.GRU(3, 4, rng=0), merge="sum", rng=1),
    "LayerNorm": lambda: tr.nn.Sequential(tr.nn.LSTM(3, 5, rng=0), tr.nn.LayerNorm(5)),
    "Last": lambda: tr.nn.Sequential(tr.nn.LSTM(3, 5, rng=0), tr.nn.Last(), tr.nn.Linear(5, 2, rng=1)),
    "Repeat": lambda: tr.nn.Sequential(tr.nn.LSTM(3, 5, rng=0), tr.nn.Last(), tr.nn.Repeat(3), tr.nn.GRU(5, 2, rng=1)),
    "Lambda": lambda: tr.nn.Sequential(tr.nn.GRU(3, 5, rng=0), tr.nn.Lambda(lambda y: tr.cumsum(y, 1) * tr.softmax(y))),
    **{f"Pool {kind}": lambda kind=kind: tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Pool(kind)) for kind in ("mean", "max")},
    "Embedding": lambda: tr.nn.Sequential(tr.nn.Embedding(9, 3, rng=0), tr.nn.GRU(3, 4, rng=1)),
    **{f"EncoderDecoder {kind}": lambda kind=kind: tr.nn.EncoderDecoder(7, 6, 4, attention=kind, rng=0)
       for kind in (None, "bahdanau", "dot")}}


def inputs_of(name):
    rng = np.random.default_rng(0)
    if name.startswith("EncoderDecoder"):
        return (rng.integers(0, 7, (3, 4)), rng.integers(0, 6, (3, 5))), ([4, 1, 2], [5, 2, 1])
    x = rng.integers(0, 9, (3, 4)) if name == "Embedding" else rng.normal(size=(3, 4, 3)).astype("f")
    return (x,), [4, 1, 2]


def close(found, expected):
    for k, y in expected.items():
        np.testing.assert_allclose(found[k], y, rtol=2e-4, atol=2e-6 * max(1.0, np.abs(y).max(initial=0.0)), err_msg=k)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_layer(name, padded, backend):
    """Outputs and all gradients, ragged rows included."""
    model, (given, lengths) = MODELS[name](), inputs_of(name)
    parameters = dict(model.named_parameters())

    def train(*x):
        y = model(*x, **({"lengths": lengths} if padded else {}))
        y = y[0] if isinstance(y, tuple) else y
        return {"y": y, **tr.grad((y * tr.sin(3 * y)).sum(), parameters)}

    expected, program = tr.compile(train, backend="numpy")(*given), tr.compile(train, backend=backend, strict=True)
    for _ in range(2):
        close(program(*given), expected)


T = np.array([[0, 2, 1, 2], [1, 1, 0, 2]])
LOSSES = {
    "mse": lambda z: tr.nn.mse(z, tr.tensor(T[..., None] * np.ones(3))),
    "mse, masked": lambda z: tr.nn.mse(z, tr.tensor(T[..., None] * np.ones(3)), mask=tr.tensor(T > 0)),
    "bce": lambda z: tr.nn.bce(tr.sigmoid(z[..., 0]), tr.tensor((T > 1) * 1.0)),
    "bce_with_logits": lambda z: tr.nn.bce_with_logits(z[..., 0], tr.tensor((T > 1) * 1.0), pos_weight=2.0),
    "nll": lambda z: tr.nn.nll(tr.log_softmax(z), tr.tensor(T, dtype="int64"), weight=[1.0, 2.0, 0.5]),
    "cross_entropy": lambda z: tr.nn.cross_entropy(z, tr.tensor(T, dtype="int64"), ignore_index=2, label_smoothing=0.1),
    "cross_entropy, summed": lambda z: tr.nn.cross_entropy(z, tr.tensor(T, dtype="int64"), reduction="sum", mask=tr.tensor(T > 0))}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss(name, backend):
    z = np.random.default_rng(0).normal(size=(2, 4, 3))

    def train(z):
        loss = LOSSES[name](z)
        return {"loss": loss, "dz": tr.grad(loss, z)}

    expected, program = tr.compile(train, backend="numpy")(z), tr.compile(train, backend=backend, strict=True)
    for _ in range(2):
        close(program(z), expected)


# ---- random graphs

RANDOM = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=60, **RANDOM)
@given(st.data())
@pytest.mark.parametrize("name", ["numpy", "cpu"])
def test_random_graphs(name, data):
    check_graph(random_graph(data.draw), name)


@pytest.mark.gpu
@settings(max_examples=25, **RANDOM)
@given(st.data())
def test_random_graphs_on_the_gpu(gpu, data):
    check_graph(random_graph(data.draw), "cuda")


@pytest.mark.slow
@settings(max_examples=300, **RANDOM)
@given(st.data())
def test_many_random_graphs(data):
    check_graph(random_graph(data.draw), "cpu")


@pytest.mark.slow
@settings(max_examples=150, **RANDOM)
@given(st.data())
def test_many_random_graphs_on_the_gpu(gpu, data):
    check_graph(random_graph(data.draw), "cuda")


# ---- numbers that are none

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*ULP, "abs", "relu", "sign"])
def test_special_numbers(name, dtype, backend):
    info = np.finfo(dtype)
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, info.tiny, -info.tiny, info.smallest_subnormal, info.max, -info.max], dtype)
    graph = Graph({"y": getattr(tr, name)(tr.Tensor(input_node("x", x.shape, dtype)))})
    graph.run({"x": x}, backend=backend)  # a GPU's second run is a captured one
    found, expected = graph.run({"x": x}, backend=backend)["y"], graph.run({"x": x})["y"]
    close = np.isclose(found, expected, rtol=8 * info.eps, atol=0) | (found == expected)
    assert (close | (np.isnan(found) & np.isnan(expected))).all(), (found, expected)
    if name != "relu":  # NumPy itself gives either zero
        assert (np.signbit(found) == np.signbit(expected))[~np.isnan(expected)].all(), (found, expected)


def test_nan_and_infinity_go_where_numpy_sends_them(backend):
    bad = np.array([[np.nan, 1.0, -np.inf], [2.0, np.inf, -1.0], [0.0, -0.0, 3.0]])
    a, b = (tr.Tensor(input_node(k, (3, 3))) for k in "ab")
    out = {"maximum": tr.maximum(a, b), "minimum": tr.minimum(a, b), "relu": tr.relu(a), "clip": tr.clip(a, -1.0, 1.0),
           "where": tr.where(a < b, a, b), "max": a.max(1), "min": a.min(0), "sum": a.sum(), "argmax": a.argmax(1),
           "product": a @ b, "abs": abs(a), "sign": tr.sign(a), "softmax": tr.softmax(a), "quotient": a / b,
           "less": a < b, "not": ~(a <= b), "equal": a == b, "differs": a != b, "cumsum": tr.cumsum(a, 1)}
    graph, values = Graph(out), {"a": bad, "b": bad.T.copy()}
    graph.run(values, backend=backend)  # a GPU's second run is a captured one
    found = graph.run(values, backend=backend)
    with np.errstate(all="ignore"):
        for k, y in graph.run(values).items():
            np.testing.assert_allclose(found[k], y, rtol=1e-12, err_msg=k)


# ---- every op

@pytest.mark.parametrize("name", sorted({*CASES, *without_gradients()}))
def test_every_op_has_a_kernel(name, backend):
    """The table of `test_ops` once more, with gradients: nothing falls back to the interpreter."""
    generator = np.random.default_rng(0)
    build, shapes, known = CASES.get(name, (None, {}, {}))
    nodes = {k: input_node(k, shape) for k, shape in shapes.items()}
    y = build(**nodes) if build else without_gradients()[name]
    outputs = {"y": y}
    if build and y.floating:
        loss = sum_(y * constant(generator.normal(size=y.shape)))
        outputs |= {f"d{k}": g for k, g in zip(nodes, grad(loss, list(nodes.values())), strict=True)}
    graph = Graph(outputs)
    values = {k: np.asarray(known.get(k, v)).astype(v.dtype) for k, v in values_for(graph).items()}
    for g in (graph, through_passes(graph)):
        for found in runs_of(backend, g, values):
            assert_equal_computations(graph, found, values)


def test_no_op_was_forgotten():
    covered = {*CASES, *without_gradients()}
    assert set(CATALOGUE) - covered == {"leaf", "hole", "arg", "size"}  # given, never run, inside of bodies, a number by then


def test_an_index_outside_is_refused_before_anything_is_read_or_updated(backend):
    table = tr.parameter(np.ones((3, 2)), name="table")

    def step(index):
        loss = tr.gather(table, index).sum()
        table.assign(table - tr.grad(loss, table))
        return loss

    step = tr.compile(step, backend=backend)
    for bad in (3, -1, 2**40):
        with pytest.raises(tr.TinyRNNError, match=f"index {bad} is outside an axis of size 3: expected 0 to 2"):
            step(np.array([0, bad]))
        np.testing.assert_array_equal(table.numpy(), np.ones((3, 2)))
    assert float(step(np.array([0, 0]))) == 4.0
    np.testing.assert_array_equal(table.numpy(), [[-1.0, -1.0], [1.0, 1.0], [1.0, 1.0]])
