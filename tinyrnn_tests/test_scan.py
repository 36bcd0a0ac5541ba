"""Scans: derivatives, masks, reversal, nesting, and the same numbers whichever way they are run."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.ir import Graph, check
from tinyrnn.ir.ops import elementwise as e
from tinyrnn.ir.ops import linear
from tinyrnn.ir.ops.leaves import input_node, iota
from tinyrnn.ir.scan import SCAN, scan
from tinyrnn.passes import grad, partition, unroll

from .oracles import assert_close, check_function

T, B, H = 5, 3, 4
SHAPES = {"s": (B, H), "x": (T, B, H), "W": (H, H)}
LENGTHS = np.array([5, 0, 2])


def step(W):
    def body(s, x):
        h = e.tanh(s[0] @ W + x[0])
        return [h], [e.sin(h) * x[0]]
    return body



def run(s, x, W, mask=None, reverse=False):
    finals, traces = scan(step(W), [s], [x], mask=mask, reverse=reverse)
    return linear.sum_(traces[0], 0) + finals[0] * 2.0


def lengths_mask(lengths=LENGTHS):
    from tinyrnn.ir.ops.leaves import constant
    return e.less(linear.reshape(iota(T), (T, 1)), constant(lengths))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_derivatives_of_sequence_constants_and_states(masked, reverse):
    mask = lengths_mask() if masked else None
    check_function(lambda s, x, W: run(s, x, W, mask, reverse), SHAPES)


@pytest.mark.parametrize("steps", [0, 1])
def test_few_steps(steps):
    check_function(run, {**SHAPES, "x": (steps, B, H)})


def test_non_commuting_steps_with_odd_bodies():
    """Swapped states, outputs that are inputs or constants, duplicates, unused inputs."""
    def build(a, b, x, u, W, k):
        finals, traces = scan(lambda s, v: ([s[1] @ W, e.tanh(s[0]) + v[0]], [s[0], v[0], s[1], s[1], W]),
                              [a, b], [x, u])
        parts = [*finals, *(linear.sum_(t, 0) for t in traces[:4])]
        total = parts[0]
        for i, p in enumerate(parts[1:], 2):
            total = total + e.sin(p * float(i))
        return total @ linear.sum_(traces[4], 0) + linear.sum_(k) * 0.0
    check_function(build, {"a": (3, 4), "b": (3, 4), "x": (6, 3, 4), "u": (6, 2), "W": (4, 4), "k": (2,)})


def test_gradient_reaches_the_sequence_lower_triangular():
    """d state[i] / d x[j] is one for j <= i: reverse mode through the scanned sequence."""
    x = tr.parameter(np.zeros(4))
    _, ys = tr.scan(lambda s, v: (s + v, s + v), tr.tensor(0.0), x)
    np.testing.assert_array_equal(tr.jacobian(ys, x).numpy(), np.tril(np.ones((4, 4))))


def test_carry_that_becomes_active_later():
    """A gradient that enters the carry only through another carry (fixpoint of activity)."""
    check_function(lambda p: scan(lambda s, v: ([s[1] * 1.0, s[2] * 1.0, s[2] + p], [s[0]]), [p * 0.0, p * 0.0, p], [],
                                  steps=4)[1][0], {"p": (3,)})


def test_nested_scan():
    def build(s, x, W):
        segments = linear.reshape(x, (2, 3, B, H))
        def outer(state, piece):
            finals, traces = scan(step(W), state, [piece[0]])
            return finals, [traces[0]]
        finals, traces = scan(outer, [s], [segments])
        return finals[0] + linear.sum_(traces[0], (0, 1))
    shapes = {**SHAPES, "x": (6, B, H)}
    check_function(build, shapes)
    nodes = {k: input_node(k, v) for k, v in shapes.items()}
    flat = scan(step(nodes["W"]), [nodes["s"]], [nodes["x"]])
    both = Graph({"nested": build(**nodes), "flat": flat[0][0] + linear.sum_(flat[1][0], 0)})
    values = {k: np.random.default_rng(1).normal(size=v) for k, v in shapes.items()}
    out = both.run(values)
    assert_close(out["nested"], out["flat"], 1e-14)
    explicit = check(unroll(both))
    assert not any(n.op is SCAN for n in explicit.nodes)
    for k, v in explicit.run(values).items():
        assert_close(v, out[k], 1e-14)


def graph_with_gradients(mask=None, reverse=False):
    nodes = {k: input_node(k, v) for k, v in SHAPES.items()}
    loss = linear.sum_(e.sin(run(**nodes, mask=mask, reverse=reverse)))
    return Graph({"loss": loss, **{f"d{k}": g for k, g in zip(nodes, grad(loss, list(nodes.values())), strict=True)}})


def values(rng=0):
    generator = np.random.default_rng(rng)
    return {k: generator.normal(size=v) for k, v in SHAPES.items()}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_rolled_equals_unrolled_bit_for_bit(masked, reverse):
    graph = graph_with_gradients(lengths_mask() if masked else None, reverse)
    explicit = check(unroll(graph))
    assert not any(n.op is SCAN for n in explicit.nodes)
    a, b = graph.run(values()), explicit.run(values())
    for k in a:
        np.testing.assert_array_equal(a[k], b[k], err_msg=k)


def test_gradient_of_the_unrolled_graph_agrees():
    nodes = {k: input_node(k, v) for k, v in SHAPES.items()}
    loss = unroll(Graph({"loss": linear.sum_(e.sin(run(**nodes)))})).outputs["loss"]
    direct = Graph({f"d{k}": g for k, g in zip(nodes, grad(loss, list(nodes.values())), strict=True)})
    expected = graph_with_gradients().run(values())
    for k, v in direct.run(values()).items():
        assert_close(v, expected[k], 1e-13)


@pytest.mark.parametrize("reverse", [False, True])
def test_save_pass_keeps_less_and_changes_nothing(reverse):
    graph = graph_with_gradients(lengths_mask(), reverse)
    slim = check(partition(graph))
    a, b = graph.run(values()), slim.run(values())
    for k in a:
        assert_close(b[k], a[k], 1e-14)


def test_save_keeps_the_smallest_set():
    """GRU: what is a product or a difference of kept values is not kept itself."""
    def traced_bytes(g):
        return sum(n.dtype.itemsize * int(np.prod(n.shape)) for n in g.nodes if n.op.name == "trace")
    layer = tr.nn.GRU(3, 8, rng=0)
    x = tr.input("x", (2, 6, 3), "float32")
    loss = layer(x)[0].sum()
    graph = Graph({"loss": loss, **dict(zip("abcd", tr.grad(loss, layer.parameters()), strict=True))})
    slim = check(partition(graph))
    assert traced_bytes(slim) < traced_bytes(graph)
    v = {"x": np.random.default_rng(0).normal(size=(2, 6, 3)).astype("f4")}
    a, b = graph.run(v), slim.run(v)
    for k in a:
        assert_close(b[k], a[k], 1e-6)


def test_two_scans_in_a_row_are_one():
    v = values()
    nodes = {k: input_node(k, s) for k, s in SHAPES.items()}
    whole = scan(step(nodes["W"]), [nodes["s"]], [nodes["x"]])
    first = scan(step(nodes["W"]), [nodes["s"]], [nodes["x"][:2]])
    second = scan(step(nodes["W"]), first[0], [nodes["x"][2:]])
    out = Graph({"whole": whole[1][0], "end": whole[0][0], "a": first[1][0], "b": second[1][0], "end2": second[0][0]}).run(v)
    np.testing.assert_array_equal(out["whole"], np.concatenate([out["a"], out["b"]]))
    np.testing.assert_array_equal(out["end"], out["end2"])


def test_poison_in_the_padding_reaches_nothing():
    graph = graph_with_gradients(lengths_mask())
    v = values()
    clean = graph.run(v)
    for poison in (np.nan, np.inf, -np.inf):
        x = v["x"].copy()
        x[2:, 2] = poison
        x[:, 1] = poison
        dirty = graph.run({**v, "x": x})
        for k in clean:
            np.testing.assert_array_equal(clean[k], dirty[k], err_msg=f"{k} with {poison}")
    assert not clean["dx"][2:, 2].any()
    assert not clean["dx"][:, 1].any()


def test_scan_of_the_public_api():
    W = tr.parameter(np.random.default_rng(0).normal(size=(H, H)))
    x = tr.tensor(np.random.default_rng(1).normal(size=(T, B, H)))

    def body(state, v):
        h = tr.tanh(state["h"] @ W + v)
        return {"h": h, "n": state["n"] + 1.0}, (h, h * 2.0)

    last, (ys, doubled) = tr.scan(body, {"h": tr.tensor(np.zeros((B, H))), "n": tr.tensor(0.0)}, x)
    assert float(last["n"]) == T
    np.testing.assert_array_equal(doubled.numpy(), 2 * ys.numpy())
    np.testing.assert_array_equal(last["h"].numpy(), ys.numpy()[-1])
    ys.sum().backward()
    assert W.grad.shape == (H, H)
    assert W.grad.any()
    masked, out = tr.scan(lambda s, v: (s + v, s + v), tr.tensor(np.zeros((B, H))), x, lengths=[5, 0, 2], reverse=True)
    np.testing.assert_allclose(masked.numpy()[2], x.numpy()[:2, 2].sum(0))
    assert not out.numpy()[2:, 2].any()


def test_mistakes_in_scans():
    x = tr.tensor(np.zeros((T, B, H)))
    with pytest.raises(tr.TinyRNNError, match="must keep shape and dtype"):
        tr.scan(lambda s, v: (s.sum(), s), tr.tensor(np.zeros((B, H))), x)
    with pytest.raises(tr.TinyRNNError, match="between 0 and the number of steps"):
        tr.scan(lambda s, v: (s + v, s), tr.tensor(np.zeros((B, H))), x, lengths=[6, 0, 1])
    with pytest.raises(tr.TinyRNNError, match="whole numbers"):
        tr.scan(lambda s, v: (s + v, s), tr.tensor(np.zeros((B, H))), x, lengths=[1.5, 0, 1])
    with pytest.raises(tr.TinyRNNError, match="common first axis"):
        tr.scan(lambda s, v: (s + v[0], s), tr.tensor(np.zeros((B, H))), (x, x[1:]))
    with pytest.raises(tr.TinyRNNError, match="a pair"):
        tr.scan(lambda s, v: s, tr.tensor(np.zeros((B, H))), x)


@pytest.mark.slow
def test_ten_thousand_steps_without_recursion():
    steps = 10_000
    graph = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])").unroll(steps, batch=1, x=1, h=2, gradients=True)
    v = {k: np.full(n.shape, 0.1) for k, n in graph.inputs.items()}
    out = graph.run(v)
    assert len(graph.outputs["dloss/dW"].src) == steps
    assert np.isfinite(out["dloss/dU"]).all()
    assert len(graph.fingerprint) == 16
    assert str(graph).count("\n") > steps
