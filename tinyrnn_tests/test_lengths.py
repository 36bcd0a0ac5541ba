"""Long sequences and many lengths: functions of weights once, Python loops in linear time."""

import functools
import warnings

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import LongLoopWarning
from tinyrnn.ir.scan import SCAN, ScanView
from tinyrnn.tensor.long_loops import LONG

from .oracles import along, assert_close, entrywise

# ---- functions of weights alone

FUNCTIONS = {
    "absolute": "abs(W)", "masked": "(M * W)", "antisymmetric": "(W - W.T)", "positive": "softplus(W)",
    "normalised": "(W / sqrt(sum(W * W)))", "of two": "(M * W + abs(M.T))", "product": "(W @ W)",
    "beside itself": "(W * abs(W) + M)"}


def _layer(text, h=4, dtype="float64"):
    cell = tr.Cell(f"h[t] = tanh({text} @ h[t-1] + U @ x[t])")
    return tr.nn.Recurrent(cell, x=3, h=h, dtype=dtype, rng=0)


def _loss(layer, x):
    y, _ = layer(x)
    return (y * y * y).sum()


@pytest.mark.parametrize("text", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("lengths", [None, [5, 2]], ids=["whole", "ragged"])
def test_gradients_of_functions_of_weights(text, lengths):
    layer = _layer(text)
    weights = list(layer.parameters())
    x = np.random.default_rng(1).normal(size=(2, 5, 3))
    y, _ = layer(tr.tensor(x), lengths=lengths)
    loss = (y * y * y).sum()
    gradients = tr.grad(loss, weights)
    graph = tr.Graph({"loss": loss, **{f"d{w.name}": g for w, g in zip(weights, gradients, strict=True)}})
    held = {w.name: w.numpy() for w in weights}
    for w, g in zip(weights, gradients, strict=True):
        assert_close(g.numpy(), entrywise(graph, held, w.name), what=w.name)
    compiled = tr.compile(lambda: tr.grad(_of(layer, x, lengths), weights))()
    for g, c in zip(gradients, compiled, strict=True):
        assert_close(c, g.numpy(), 1e-12)
    direction = {w.name: np.random.default_rng(2).normal(size=w.shape) for w in weights}
    second = tr.grad(sum((g * direction[w.name]).sum() for g, w in zip(gradients, weights, strict=True)), weights)
    moved = along(graph, held, direction)
    for w, g in zip(weights, second, strict=True):  # the second derivative is symmetric
        assert_close(g.numpy(), moved[f"d{w.name}"], 1e-10, what=f"second order of {w.name}")


def _of(layer, x, lengths):
    y, _ = layer(tr.tensor(x), lengths=lengths)
    return (y * y * y).sum()


def _step(layer):
    weights = list(layer.parameters())

    def step(x):
        loss = _loss(layer, x)
        return loss, tr.grad(loss, weights)

    return tr.compile(step)


@pytest.mark.parametrize("text", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_of_weights_costs_what_a_weight_costs(text):
    x = np.zeros((4, 300, 3), "f")
    plain, other = (_step(_layer(t, 32, "float32")).trace(x) for t in ("W", text))
    assert other.cost.memory <= 1.2 * plain.cost.memory + 8 * 4 * 32 * 32
    assert other.cost.flops <= 1.1 * plain.cost.flops + 100 * 32**3
    for loop in (ScanView.of(n) for n in other.stages[-1][1].nodes if n.op is SCAN):
        assert not any(o.shape == (32, 32) for o in loop.body.outs), "a loop carries the gradient of a weight"


# ---- long loops in Python

def _loop(n, other=None):
    W, U = (tr.parameter(np.random.default_rng(0).normal(size=s) / 4, name=k) for k, s in (("W", (4, 4)), ("U", (3, 4))))

    def loop(x):
        h = tr.tensor(np.zeros((2, 4)))
        for t in range(n):
            h = tr.tanh(x[t] @ U + h @ W)
            if other == t:
                h = tr.sigmoid(h)
        return tr.grad((h * h).sum(), [W, U])

    return tr.compile(loop)


def _walked(n):
    """How many nodes are visited to compile a loop of n steps."""
    import tinyrnn.ir.node as node

    count, before = [0], node.walk

    def counting(outputs, known=()):
        found = before(outputs, known)
        count[0] += len(found)
        return found

    modules = [m for k, m in __import__("sys").modules.items() if k.startswith("tinyrnn") and getattr(m, "walk", None) is before]
    for m in modules:
        m.walk = counting
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LongLoopWarning)
            _loop(n).trace(np.zeros((n, 2, 3)))
    finally:
        for m in modules:
            m.walk = before
    return count[0]


def test_python_loops_compile_in_linear_time():
    few, many = _walked(100), _walked(400)
    assert many <= 4.4 * few


def test_equal_steps_propose_a_scan():
    n = LONG + 3
    with pytest.warns(LongLoopWarning, match=r"^13\d equal steps .*tr\.scan") as seen:
        _loop(n)(np.zeros((n, 2, 3)))
    assert seen[0].filename == __file__
    W = tr.parameter(np.eye(4) / 3, name="W")
    for step in (lambda h, x, t: tr.tanh(h @ W + x[:, t]), lambda h, x, t: tr.tanh(h @ W + x[:, t : t + 1].sum(1))):
        with pytest.warns(LongLoopWarning):
            tr.compile(lambda x, step=step: functools.reduce(lambda h, t: step(h, x, t), range(n), x[:, 0] * 0)).trace(np.zeros((2, n, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", LongLoopWarning)
        _loop(LONG - 1).trace(np.zeros((LONG, 2, 3)))           # few steps
        _loop(LONG + 9, other=20).trace(np.zeros((LONG + 9, 2, 3)))  # a step that is unlike the others
        tr.compile(lambda x: tr.scan(lambda h, v: (tr.tanh(h + v), h), tr.tensor(np.zeros((2, 3))), x)[1]).trace(
            np.zeros((500, 2, 3)))
        tr.compile(lambda x: tr.stack([tr.tanh(x[t]) for t in range(300)])).trace(np.zeros((300, 2)))  # no step reads another


def test_buffers_of_long_programs_never_overlap():
    """Many buffers lie in blocks of one size: what is alive at the same time is apart."""
    from tinyrnn.backends.plan.memory import MANY, arrange, lifetimes

    n = 300
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LongLoopWarning)
        program = _loop(n).trace(np.zeros((n, 2, 3)))
    entry, _ = program.specialization(np.zeros((n, 2, 3)))
    plan = entry.executable.plan
    offsets, size = arrange(plan)
    alive = lifetimes(plan)
    assert len(alive) > MANY
    assert size < 2 * max(sum(b.bytes for b, (first, last) in alive.items() if first <= i <= last)
                          for i in range(0, len(plan.items), 7)) + 64 * len(alive)
    by_start = sorted(alive, key=lambda b: offsets[b])
    ends = []
    for b in by_start:
        ends = [c for c in ends if offsets[c] + c.bytes > offsets[b]]
        for c in ends:
            assert alive[c][1] < alive[b][0] or alive[b][1] < alive[c][0]
        ends.append(b)
