"""Scans with a budget of memory: what they take, and that every result keeps its bits."""

import sys

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.plan import planner
from tinyrnn.errors import ArgumentError, ProofError
from tinyrnn.ir import Graph
from tinyrnn.ir.node import apply, rebuild
from tinyrnn.ir.scan import REGION, SCAN, ScanView, body_of
from tinyrnn.shapes import checked_bytes, show_bytes
from tinyrnn.symbolic.proof.prove import prove_pass, training_graphs

from .oracles import assert_close
from .test_lengths import entrywise

module = sys.modules["tinyrnn.passes.checkpoint"]


@pytest.fixture(autouse=True)
def _without_replay(request, monkeypatch):
    """Long sequences are not replayed step by step; short ones are, in `test_plans_are_replayed`."""
    if "replayed" not in request.node.name:
        monkeypatch.setattr(planner, "are_checked", lambda: False)


@pytest.fixture
def cut(monkeypatch):
    """`cut(n)` gives every scan with a budget n parts, whatever they take and whatever becomes of bits."""
    def into(count):
        monkeypatch.setattr(module, "BLOCK", 1)
        monkeypatch.setattr(module, "_fitting", lambda cutter, n, bytes_of: module.bounds(ScanView.of(n).steps, count, 1))

    return into


def with_budgets(graph):
    """The pass, after every scan got a budget."""
    new = {}
    for n in graph.nodes:
        if n.op is SCAN:
            new[n] = apply(SCAN, tuple(new[s] for s in n.src), (*n.at, 1))
        else:
            rebuild([n], new)
    return module.checkpoint(Graph({k: new[n] for k, n in graph.outputs.items()}), lambda g: 0)


def scans_of(graph):
    """How many scans a graph holds, regions included."""
    inner = [Graph({str(i): o for i, o in enumerate(body_of(n).outs)}) for n in graph.nodes if n.op is REGION]
    return sum(n.op is SCAN for n in graph.nodes) + sum(map(scans_of, inner))


def training(layer, x, lengths=None):
    """Loss and gradients of a layer, compiled, and its program."""
    weights = list(layer.parameters())
    head = np.random.default_rng(3).normal(size=np.shape(x)[:2])

    def step(x, head, lengths):
        y, _ = layer(x, lengths=lengths)
        loss = (y.sum(-1) * head).sum() + (y[:, -1] ** 2).sum()
        return [y, loss, *tr.grad(loss, [*weights, x])]

    program = tr.compile(step)
    return program(x, head, lengths), program


def assert_same_bits(found, wanted):
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=f"result {i}")


LAYERS = {
    "LSTM": lambda **k: tr.nn.LSTM(3, 8, rng=0, **k), "GRU": lambda **k: tr.nn.GRU(3, 8, reset="before", rng=0, **k),
    "RNN": lambda **k: tr.nn.RNN(3, 8, rng=0, **k),
    "two layers, both ways": lambda **k: tr.nn.LSTM(3, 8, num_layers=2, bidirectional=True, rng=0, **k),
    "GRU, two layers, both ways": lambda **k: tr.nn.GRU(3, 8, num_layers=2, bidirectional=True, rng=0, **k),
    "RNN, two layers, both ways": lambda **k: tr.nn.RNN(3, 8, num_layers=2, bidirectional=True, rng=0, **k),
    "norms and projection": lambda **k: tr.nn.LSTM(3, 8, proj_size=5, layer_norm=True, rng=0, **k),
    "a cell": lambda **k: tr.nn.Recurrent(tr.cells["mgu"], x=3, h=8, rng=0, **k),
    "functions of weights": lambda **k: tr.nn.Recurrent(
        tr.Cell("h[t] = tanh((W - W.T) @ h[t-1] + abs(U) @ x[t] + s * h[t-1])"), x=3, h=8, rng=0, **k)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_budget_changes_no_bit(make, ragged, dtype):
    x = np.random.default_rng(1).normal(size=(4, 300, 3)).astype(dtype)
    lengths = [300, 17, 250, 1] if ragged else None
    wanted, plain = training(make(dtype=dtype), x, lengths)
    scans = scans_of(plain.stages[0][1])
    found, program = training(make(dtype=dtype, memory=int(0.9 * plain.cost.memory / scans)), x, lengths)
    assert_same_bits(found, wanted)
    assert scans_of(dict(program.stages)["checkpoint"]) >= 5 * scans / 2  # twice forwards, but the last part, and back
    assert program.cost.memory < 0.9 * plain.cost.memory


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("layers", [1, 2])
def test_no_bit_where_one_direction_is_cut_and_where_all_are(kind, layers):
    """Sums over time are added up forwards for the direction that is met first, and sums of what both directions made are not
    joined to one product."""
    x = np.random.default_rng(0).normal(size=(32, 100, 24)).astype("float32")

    def gradients(memory):
        layer = getattr(tr.nn, kind)(24, 48, num_layers=layers, bidirectional=True, memory=memory, rng=1)
        return tr.compile(lambda x: tr.grad((layer(x)[0] ** 2).sum(), list(layer.parameters())))(x)

    wanted = gradients(None)
    for budget in ("3MB", "1300KB", "900KB"):
        assert_same_bits(gradients(budget), wanted)


@pytest.mark.parametrize("batch", [1, 3, 4, 300])
def test_parts_end_where_blocks_of_rows_end(batch):
    """Whatever the batch, sums are cut between blocks of 256 rows."""
    steps = 40 if batch == 300 else 700
    x = np.random.default_rng(1).normal(size=(batch, steps, 3)).astype("float32")
    wanted, plain = training(tr.nn.LSTM(3, 5, rng=0), x)
    if batch == 300:  # 256 rows end with steps only after 64 of them
        with pytest.raises(ArgumentError, match="too little for a scan of 40 steps"):
            training(tr.nn.LSTM(3, 5, rng=0, memory=plain.cost.memory // 2), x)
        return
    found, _ = training(tr.nn.LSTM(3, 5, rng=0, memory=int(0.7 * plain.cost.memory)), x)
    assert_same_bits(found, wanted)


def test_sums_of_a_users_own_scan():
    """States that only sum up, forwards, from a start of their own; traces; several scans in one program."""
    rng = np.random.default_rng(0)
    xs, start = rng.normal(size=(600, 4, 3)), rng.normal(size=(4, 3))
    W = tr.parameter(rng.normal(size=(3, 3)) / 3, name="W")

    def made(memory, reverse):
        def step(state, x):
            h, total, product = state
            new = tr.tanh(x + h @ W)
            return (new, total + new * x, product + tr.transpose(new) @ x), (new * total, x.sum())

        def function(xs, start):
            (h, total, product), (y, z) = tr.scan(step, (start, start * 0.5, W * 2.0), xs, reverse=reverse, memory=memory)
            loss = (h * total).sum() + (y ** 2).sum() + (product ** 3).sum() + z.sum()
            return [h, total, product, y, z, loss, *tr.grad(loss, [W, xs, start])]

        return tr.compile(function)

    for reverse in (False, True):
        plain = made(None, reverse)
        wanted = plain(xs, start)
        for share in (0.9, 0.6, 0.5):
            assert_same_bits(made(int(share * plain.cost.memory), reverse)(xs, start), wanted)


@pytest.mark.parametrize("budgets", [(1, 1), (1, 2), (None, 1), (1, None)])
def test_a_second_scan_over_the_first_is_no_backward_scan(budgets, cut):
    """It may read the first one's outputs step by step, against its direction, and as a whole."""
    rng = np.random.default_rng(0)
    xs, start = rng.normal(size=(9, 2, 3)), rng.normal(size=(2, 3))

    def made(first, second):
        def function(xs, start):
            h, y = tr.scan(lambda h, x: (tr.tanh(x + h),) * 2, start, xs, memory=first)
            g, z = tr.scan(lambda g, x: (tr.tanh(x * g) + x + y.sum(0),) * 2, h, y, reverse=True, memory=second)
            loss = (g * h).sum() + (z ** 2).sum()
            return [h, g, z, *tr.grad(loss, [xs, start])]

        return tr.compile(function)

    cut(3)
    for found, want in zip(made(*budgets)(xs, start), made(None, None)(xs, start), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-13)


def test_second_derivatives_and_regions():
    """A budget is no obstacle to derivatives of derivatives, nor inside of `tr.remat`."""
    rng = np.random.default_rng(0)
    xs, W = rng.normal(size=(520, 2, 3)), tr.parameter(rng.normal(size=(3, 3)) / 3, name="W")

    def made(memory, wrap):
        def loss_of(xs):
            h, y = tr.scan(lambda h, x: (tr.tanh(x + h @ W),) * 2, tr.tensor(np.zeros((2, 3))), xs, memory=memory)
            return (h ** 2).sum() + (y ** 3).sum()

        def function(xs):
            loss = wrap(loss_of)(xs)
            g = tr.grad(loss, W)
            return [loss, g, tr.grad((g * g).sum(), W)]

        return tr.compile(function)

    for wrap in (lambda f: f, tr.remat):
        plain = made(None, wrap)
        wanted = plain(xs)
        budgeted = made(50_000, wrap)
        for found, want in zip(budgeted(xs), wanted, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-13)
        assert scans_of(dict(budgeted.stages)["checkpoint"]) > scans_of(plain.stages[0][1])


def test_the_gradient_is_that_of_a_complex_step():
    layer = tr.nn.GRU(2, 3, rng=0, dtype="float64", memory=50_000)
    x = np.random.default_rng(1).normal(size=(2, 300, 2))
    weights = dict(layer.named_parameters())

    def loss_of(x):
        y, _ = layer(x)
        return (y[:, -1] ** 2).sum() + y.mean()

    program = tr.compile(lambda x: tr.grad(loss_of(x), list(weights.values())))
    found = program(x)
    assert program.stages[3][0] == "checkpoint"
    assert sum(n.op is REGION for n in program.stages[3][1].nodes) > 1
    graph = Graph({"loss": loss_of(tr.tensor(x))})
    held = {k: w.numpy() for k, w in weights.items()}
    names = {w.name: k for k, w in weights.items()}
    for name, g in zip(weights, found, strict=True):
        (inner,) = (k for k, v in names.items() if v == name)
        assert_close(g, entrywise(graph, {k: held[v] for k, v in names.items()}, inner), what=name)


# ---- proofs

@pytest.mark.parametrize("count", [2, 3])
def test_parts_are_proved(count, cut):
    cut(count)
    assert tr.prove(with_budgets).holds
    for _, graph in training_graphs():
        assert scans_of(with_budgets(graph)) > scans_of(graph)


@pytest.mark.parametrize("wrong", [
    ("add_onto", lambda _: lambda total, term: term),
    ("bounds", lambda bounds: lambda steps, parts, grain: bounds(steps, parts, grain)[::-1]),
    ("_steps", lambda _: lambda x, part: x[: part[1] - part[0]])])
def test_a_wrong_part_is_noticed(wrong, cut, monkeypatch):
    name, change = wrong
    cut(2)
    monkeypatch.setattr(module, name, change(getattr(module, name)))
    with pytest.raises((ProofError, tr.TinyRNNError)):
        prove_pass(with_budgets, training_graphs()[:4])


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_plans_are_replayed(make, cut):
    cut(3)
    x = np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")
    _, program = training(make(memory=1), x)
    assert scans_of(dict(program.stages)["checkpoint"]) > scans_of(program.stages[0][1])
    assert program.prove().holds


# ---- how much

def last_state(memory, steps, h=32, batch=4):
    layer = tr.nn.LSTM(4, h, rng=0, memory=memory)
    weights = list(layer.parameters())
    x = np.random.default_rng(0).normal(size=(batch, steps, 4)).astype("float32")

    def step(x):
        loss = (layer(x)[1][0] ** 2).sum()
        return [loss, *tr.grad(loss, weights)]

    program = tr.compile(step)
    return program(x), program


def test_the_budget_holds_in_as_few_parts_as_keep_it():
    wanted, plain = last_state(None, 4_000)
    assert plain.cost.memory > 10e6
    parts = []
    for budget in ("8MB", "3 MB", 1_500_000):
        found, program = last_state(budget, 4_000)
        assert program.cost.memory <= checked_bytes("memory", budget)
        assert_same_bits(found, wanted)
        parts.append(scans_of(dict(program.stages)["checkpoint"]))
    assert parts == sorted(parts)
    assert parts[0] < parts[-1]


@pytest.mark.slow
def test_a_hundred_thousand_steps():
    wanted, plain = last_state(None, 100_000)
    found, program = last_state("20MB", 100_000)
    assert plain.cost.memory > 10 * program.cost.memory
    assert program.cost.memory <= 20e6
    assert_same_bits(found, wanted)


def test_a_budget_that_nothing_keeps_says_what_would():
    with pytest.raises(ArgumentError, match=r"memory=9 KB is too little for a scan of 1,000 steps: its temporaries take .* in "
                                            r"one part, and .* KB in \d+ parts of \d+ steps, which is the least"):
        last_state("9KB", 1_000)


def test_inference_keeps_it_too():
    x = np.random.default_rng(0).normal(size=(2, 3_000, 4)).astype("float32")
    plain = tr.compile(tr.nn.LSTM(4, 32, rng=0).eval())
    budgeted = tr.compile(tr.nn.LSTM(4, 32, rng=0, memory="300KB").eval())
    for a, b in zip(plain(x), budgeted(x), strict=True):
        for u, v in zip(np.atleast_1d(a), np.atleast_1d(b), strict=True):
            np.testing.assert_array_equal(u, v)
    assert budgeted.cost.memory < 0.5 * plain.cost.memory


def test_every_length_has_parts_of_its_own():
    layer, plain = tr.nn.LSTM(3, 6, rng=0, memory="100KB"), tr.nn.LSTM(3, 6, rng=0)
    both = [tr.compile(lambda x, layer=layer: tr.grad((layer(x)[0] ** 2).sum(), list(layer.parameters())))
            for layer in (layer, plain)]
    for batch, steps in ((4, 300), (4, 128), (2, 500), (1, 1), (4, 0), (0, 5), (4, 300)):
        x = np.random.default_rng(steps).normal(size=(batch, steps, 3)).astype("float32")
        assert_same_bits(*(p(x) for p in both))


@pytest.mark.parametrize("bad", [0, -5, True, "200 MX", "MB", "-1MB", "0.5", 1.5e-3, [1]])
def test_budgets_that_are_none(bad):
    with pytest.raises(ArgumentError, match=r"memory=.*expected bytes as a whole number or a text like '200MB'"):
        tr.nn.LSTM(3, 4, memory=bad)
    with pytest.raises(ArgumentError, match="memory="):
        tr.scan(lambda h, x: (h, x), tr.tensor(0.0), tr.tensor([1.0]), memory=bad)


def test_units():
    assert [checked_bytes("memory", s) for s in ("200MB", "1.5 GiB", 17, "3kb", None, "12 B")] == [
        200_000_000, 1_610_612_736, 17, 3_000, None, 12]
    assert [show_bytes(n) for n in (17, 1_000, 1_234_567, 2.5e9)] == ["17 bytes", "1 KB", "1.23 MB", "2.5 GB"]


def test_models_remember_their_budget(tmp_path):
    model = tr.nn.Sequential(tr.nn.LSTM(2, 3, memory="1MB", rng=0), tr.nn.Recurrent("GRU", x=3, h=2, memory=2_000_000, rng=0))
    model.save(tmp_path / "model.safetensors")
    found = tr.nn.Sequential.load(tmp_path / "model.safetensors") if hasattr(tr.nn.Sequential, "load") else tr.load(
        tmp_path / "model.safetensors")
    assert [layer.memory for layer in found.layers] == [1_000_000, 2_000_000]
    assert tr.nn.Bidirectional(tr.nn.GRU(2, 3, memory="1MB")).backward.memory == 1_000_000


def test_a_gpu_keeps_it_within_rounding(gpu):
    layer = tr.nn.LSTM(3, 5, rng=0, memory="60KB")
    x = np.random.default_rng(0).normal(size=(4, 200, 3)).astype("float32")

    def step(x):
        return tr.grad((layer(x)[0] ** 2).sum(), list(layer.parameters()))

    cpu = tr.compile(step)
    for a, b in zip(tr.compile(step, backend="cuda")(x), cpu(x), strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=2e-4, atol=1e-5)
    assert scans_of(dict(cpu.stages)["checkpoint"]) > 2
