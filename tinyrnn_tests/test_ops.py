"""Every op of the catalogue: value against NumPy, vjp and jvp against complex step, second order, dtypes."""

import numpy as np
import pytest

from tinyrnn.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from tinyrnn.ir import Graph
from tinyrnn.ir.node import Bits
from tinyrnn.ir.op import CATALOGUE
from tinyrnn.ir.ops import elementwise as e
from tinyrnn.ir.ops import leaves, linear, structure
from tinyrnn.ir.ops import reduce as r
from tinyrnn.ir.ops.leaves import constant, full, input_node
from tinyrnn.ir.ops.random import bernoulli, random_bits
from tinyrnn.ir.scan import region, scan

from .oracles import assert_close, check_function

AB = {"a": (3, 4), "b": (3, 4)}
WIDE = {"a": (3, 1), "b": (2, 1, 4)}
X = {"x": (3, 4)}
POSITIVE = {"x": np.random.default_rng(1).uniform(0.3, 2.0, (3, 4))}
TIED = {"x": np.array([[1.0, 3.0, 3.0, 2.0], [0.5, 0.5, 0.5, 0.5], [-1.0, 2.0, 0.0, 2.0]])}
INDEX = constant(np.array([[2, 0], [1, 2]]))
LAST = constant(np.array([3, 0, 1]))
CONDITION = constant(np.random.default_rng(3).random((3, 4)) < 0.5)

# op name -> (function of nodes, shapes, values): away from kinks, broadcasting, matrices of unequal sizes
CASES = {
    "add": (lambda a, b: a + b, WIDE, {}),
    "sub": (lambda a, b: a - b, WIDE, {}),
    "mul": (lambda a, b: a * b, WIDE, {}),
    "div": (lambda a, b: a / (b * b + 1.5), WIDE, {}),
    "scale": (lambda a, b: e.scale(a, e.sin(b)), WIDE, {}),
    "neg": (lambda x: -x, X, {}),
    "power": (lambda a, b: e.power(a * a + 0.5, b), AB, {}),
    "powk": (lambda x: x**3 + (x * x + 1.0) ** -2 + (x * x + 0.5) ** 1.5 + (x * x + 1.0) ** 0.3, X, {}),
    "exp": (lambda x: e.exp(x), X, {}),
    "expm1": (lambda x: e.expm1(x), X, {}),
    "log": (lambda x: e.log(x), X, POSITIVE),
    "log1p": (lambda x: e.log1p(x), X, POSITIVE),
    "log_or_zero": (lambda x: e.log_or_zero(x), X, POSITIVE),
    "sqrt": (lambda x: e.sqrt(x), X, POSITIVE),
    "sin": (lambda x: e.sin(x), X, {}),
    "cos": (lambda x: e.cos(x), X, {}),
    "tanh": (lambda x: e.tanh(x), X, {}),
    "sigmoid": (lambda x: e.sigmoid(x), X, {}),
    "softplus": (lambda x: e.softplus(x), X, {}),
    "abs": (lambda x: e.abs_(x), X, {}),
    "relu": (lambda x: e.relu(x), X, {}),
    "maximum": (lambda a, b: e.maximum(a, b), WIDE, {}),
    "minimum": (lambda a, b: e.minimum(a, b), WIDE, {}),
    "clip": (lambda x: e.clip(x, Bits(-0.5), Bits(0.7)), X, {}),
    "where": (lambda a, b: e.where(CONDITION, a * b, e.sin(b)), AB, {}),
    "astype": (lambda x: e.astype(e.astype(x * 2.0, np.float64), np.float64) * x, X, {}),
    "add_n": (lambda a, b: e.add_n([a, b, a * b]), AB, {}),
    "tag": (lambda x: e.tag(x * x, "name"), X, {}),
    "reshape": (lambda x: e.sin(linear.reshape(x, (2, -1, 3))), X, {}),
    "transpose": (lambda x: e.sin(linear.transpose(x, [2, 0, 1])), {"x": (2, 3, 4)}, {}),
    "broadcast_to": (lambda x: e.sin(linear.broadcast_to(x, (2, 3, 4))), {"x": (3, 1)}, {}),
    "sum": (lambda x: e.sin(linear.sum_(x, (0, 2)))[0] * linear.sum_(x, 1, keepdims=True), {"x": (2, 3, 4)}, {}),
    "accumulate": (lambda a, b, c: linear.add_onto(e.sin(c), linear.transpose(a) @ b) + linear.add_onto(
        linear.sum_(c, 0), linear.sum_(e.sin(b), 0), True), {"a": (4, 2), "b": (4, 3), "c": (2, 3)}, {}),
    "matmul": (lambda a, b: e.sin(a @ b), {"a": (2, 3), "b": (3, 4)}, {}),
    "einsum": (lambda a, b, c: e.sin(linear.einsum("bij,bjk,k->bi", a, b, c)),
               {"a": (2, 3, 4), "b": (2, 4, 5), "c": (5,)}, {}),
    "slice": (lambda x: e.sin(x[1:, ::-2]) * x[:2, 1:3], X, {}),
    "place": (lambda x: e.sin(structure.pad(x, [(1, 0), (2, 1)])), X, {}),
    "take": (lambda x: e.sin(x[1]) * x[-1], X, {}),
    "put": (lambda x: e.sin(structure.put(x, 1, 3)), X, {}),
    "concat": (lambda a, b: e.sin(structure.concat([a, b, a], 0)), {"a": (2, 3), "b": (1, 3)}, {}),
    "stack": (lambda a, b: e.sin(structure.stack([a, b, a], 1)), AB, {}),
    "gather": (lambda x: e.sin(structure.gather(x, INDEX)), X, {}),
    "scatter_add": (lambda x: e.sin(structure.scatter_add(x, INDEX, 4)), {"x": (2, 2, 3)}, {}),
    "pick": (lambda x: e.sin(structure.pick(x, LAST)), X, {}),
    "cumsum": (lambda x: e.sin(structure.cumsum(x, 0)), X, {}),
    "amin": (lambda x: e.sin(r.amin(x, 1)), X, {}),
    "amax": (lambda x: e.sin(r.amax(x, (0, 2))) + r.amin(x, 1, keepdims=True)[0, 0, 0], {"x": (2, 3, 4)}, {}),
    "scan": (lambda a, b: _scan(a, b)[0], {"a": (2, 3), "b": (4, 2, 3)}, {}),
    "final": (lambda a, b: _scan(a, b)[1], {"a": (2, 3), "b": (4, 2, 3)}, {}),
    "trace": (lambda a, b: _scan(a, b)[2], {"a": (2, 3), "b": (4, 2, 3)}, {}),
    "region": (lambda a, b: _region(a, b), AB, {}),
    "item": (lambda a, b: e.sin(_region(a, b)), AB, {}),
}

COMPOSED = {
    "softmax": (lambda x: r.softmax(x), X, {}),
    "softmax over the first axis": (lambda x: r.softmax(x, 0), X, {}),
    "log_softmax": (lambda x: r.log_softmax(x), X, {}),
    "logsumexp": (lambda x: r.logsumexp(x, None), X, {}),
    "layer_norm": (lambda x: r.layer_norm(x), X, {}),
    "rms_norm": (lambda x: r.rms_norm(x), X, {}),
    "var": (lambda x: r.var(x, 0), X, {}),
    "silu": (lambda x: r.silu(x), X, {}),
    "gelu": (lambda x: r.gelu(x), X, {}),
    "elu": (lambda x: r.elu(x), X, {}),
    "hard_sigmoid": (lambda x: r.hard_sigmoid(x * 3.0), X, {}),
    "outer": (lambda a, b: e.sin(linear.outer(a, b)), {"a": (2, 3), "b": (2, 4)}, {}),
    "batched product": (lambda a, b: a @ b, {"a": (2, 1, 3, 4), "b": (5, 4, 2)}, {}),
    "vector products": (lambda a, b: (a @ b) * (linear.transpose(b) @ b)[0], {"a": (3,), "b": (3, 4)}, {}),
    "flip": (lambda x: e.sin(structure.flip(x, 1)) * x, X, {}),
    "split": (lambda x: structure.split(x, [1, 3])[1] * structure.split(x, 4)[0], X, {}),
    "power by a number": (lambda x: 2.0 ** x, X, {}),
}

NO_DERIVATIVE = {"full", "literal", "iota", "size", "input", "leaf", "arg", "hole", "less", "less_equal", "equal", "not_equal",
                 "both", "either", "negate", "sign", "stop_gradient", "argmax", "one_hot", "random_bits"}


def _scan(a, b):
    finals, traces = scan(lambda s, x: ([e.tanh(s[0] * x[0] + a)], [e.sin(s[0]) * x[0]]), [a], [b])
    return linear.sum_(traces[0], 0) * finals[0], finals[0], traces[0]


def _region(a, b):
    y, z = region(lambda v: [e.tanh(v[0] * v[1]), v[0] + e.sin(v[1])], [a, b])
    return y * z


def test_every_op_has_a_case():
    assert set(CATALOGUE) == set(CASES) | NO_DERIVATIVE


@pytest.mark.parametrize("name", [*CASES, *COMPOSED])
def test_derivatives_against_complex_step(name):
    build, shapes, values = {**CASES, **COMPOSED}[name]
    check_function(build, shapes, values)


# kinks: x, slope at x, by the declared conventions
KINKS = {
    "relu": (e.relu, [0.0, -0.0, 1.0, -1.0], [0, 0, 1, 0]),
    "abs": (e.abs_, [0.0, -2.0, 3.0], [0, -1, 1]),
    "maximum": (lambda x: e.maximum(x, 1.0), [1.0, 0.0, 2.0], [0, 0, 1]),
    "minimum": (lambda x: e.minimum(x, 1.0), [1.0, 0.0, 2.0], [0, 1, 0]),
    "clip": (lambda x: r.clip(x, -1.0, 1.0), [-1.0, 1.0, -2.0, 2.0, 0.0], [1, 1, 0, 0, 1]),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks(name):
    f, at, slopes = KINKS[name]
    import tinyrnn as tr
    x = tr.parameter(at)
    tr.Tensor(f(x.node)).sum().backward()
    np.testing.assert_array_equal(x.grad, slopes)


def test_ties_share_the_gradient_of_a_maximum():
    check_function(lambda x: r.amax(x, 1), X, TIED)


REFERENCES = {
    "sigmoid": (e.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "softplus": (e.softplus, lambda x: np.log1p(np.exp(x))),
    "softmax": (r.softmax, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    "logsumexp": (r.logsumexp, lambda x: np.log(np.exp(x).sum(-1))),
    "layer_norm": (r.layer_norm, lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)),
    "var": (lambda x: r.var(x, 1), lambda x: x.var(1)),
    "cumsum": (structure.cumsum, lambda x: np.cumsum(x, -1)),
    "argmax": (r.argmax, lambda x: x.argmax(-1)),
    "strides": (lambda x: x[2:0:-1, ::3], lambda x: x[2:0:-1, ::3]),
    "new axes": (lambda x: x[..., None, 1], lambda x: x[..., None, 1]),
    "elu": (r.elu, lambda x: np.where(x > 0, x, np.expm1(x))),
    "one_hot": (lambda x: structure.one_hot(r.argmax(x), 4), lambda x: np.eye(4)[x.argmax(-1)]),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_values_against_numpy(name):
    f, reference = REFERENCES[name]
    x = np.random.default_rng(2).normal(size=(3, 4))
    assert_close(Graph({"y": f(input_node("x", (3, 4)))}).run({"x": x})["y"], reference(x), 1e-15)


def test_stable_tails():
    x = np.array([-800.0, -40.0, 40.0, 800.0])
    run = lambda f: Graph({"y": f(input_node("x", (4,)))}).run({"x": x})["y"]
    np.testing.assert_allclose(run(e.sigmoid), [0, 4.248354255291589e-18, 1, 1], rtol=1e-15)
    np.testing.assert_allclose(run(e.softplus), [0, 4.248354255291589e-18, 40, 800], rtol=1e-15)
    assert np.isfinite(run(r.softmax)).all()
    assert run(lambda n: r.logsumexp(n))== 800


@pytest.mark.parametrize("name", sorted(set(CASES) - {"astype"}))
def test_float32_stays_float32(name):
    build, shapes, values = CASES[name]
    nodes = {k: input_node(k, s, np.float32) for k, s in shapes.items()}
    y = build(**nodes)
    assert y.dtype == np.float32
    given = {k: np.asarray(values.get(k, np.full(s, 0.5)), np.float32) for k, s in shapes.items()}
    assert Graph({"y": y}).run(given)["y"].dtype == np.float32


def test_numbers_take_the_dtype_beside_them():
    half, whole = input_node("h", (2,), np.float32), input_node("w", (2,), np.int32)
    assert (half * 2.0).dtype == (2 - half).dtype == (half**0.5).dtype == np.float32
    assert (whole + 1).dtype == np.int32
    assert (whole * 0.5).dtype == np.result_type(np.int32, 0.5)
    assert (half + input_node("d", (2,))).dtype == np.float64
    with pytest.raises(DTypeError, match="no place"):
        input_node("b", (2,), np.uint8) + 300


def test_numbers_are_kept_apart_by_their_bits():
    assert full(0.0, (), "f8") is not full(-0.0, (), "f8")
    assert full(float("nan"), (), "f8") is full(float("nan"), (), "f8")
    assert full(1, (), "i8") is not full(True, (), "?")
    assert full(1.0, (), "f8") is not full(1.0, (), "f4")


def test_exact_simplifications():
    x = input_node("x", (2, 3))
    assert x + 0.0 is x
    assert x * 1.0 is x
    assert linear.transpose(linear.transpose(x)) is x
    assert linear.reshape(linear.reshape(x, (6,)), (2, 3)) is x
    assert structure.stack([x, x * 2.0])[1] is x * 2.0
    assert structure.concat([x, x * 2.0], 0)[2:] is x * 2.0
    assert (x + full(0, (4, 2, 3), "f8")).shape == (4, 2, 3)
    assert x + full(-0.0, (), "f8") is not x


def test_indices_are_checked():
    table, index = input_node("table", (3, 2)), input_node("index", (2,), np.int64)
    g = Graph({"y": structure.gather(table, index)})
    np.testing.assert_array_equal(g.run({"table": np.arange(6.0).reshape(3, 2), "index": [2, 0]})["y"], [[4, 5], [0, 1]])
    for bad in ([3, 0], [-1, 0]):
        with pytest.raises(IndexRangeError, match=rf"index {bad[0]} is outside an axis of size 3"):
            g.run({"table": np.zeros((3, 2)), "index": bad})


def test_shape_mistakes_name_both_shapes():
    x, y = input_node("x", (2, 3)), input_node("y", (4,))
    with pytest.raises(ShapeError, match=r"\[2,3\] and \[4\]"):
        x + y
    with pytest.raises(ShapeError, match=r"\[2,3\] @ \[4\]|\[2,3\] @ \[4,1\]"):
        x @ y
    with pytest.raises(ShapeError, match="6 numbers"):
        linear.reshape(x, (5,))
    with pytest.raises(ShapeError, match="index 7"):
        x[7]
    with pytest.raises(DTypeError, match="no meaning for bools"):
        -e.less(x, 0.0)
    for key in ([0, 1], [1, 2]), 1.5, "a":
        with pytest.raises(ArgumentError, match="an index is a whole number"):
            x[key]
    with pytest.raises(DTypeError, match="floating"):
        e.tanh(leaves.iota(3))


def test_unused_branch_of_where_never_matters():
    import tinyrnn as tr
    for f in (lambda x: tr.sqrt(x) / x, tr.log, lambda x: x**-0.5, lambda x: 1 / x, lambda x: x**x):
        x = tr.parameter([0.0, 4.0])
        tr.where(x > 0, f(x), 0.0).sum().backward()
        assert x.grad[0] == 0
        assert np.isfinite(x.grad).all()
    x = tr.parameter([1000.0])
    tr.clip(tr.exp(x), 0.0, 5.0).sum().backward()
    assert x.grad[0] == 0


def test_random_bits_are_those_of_threefry():
    """Known answers of Threefry-2x32-20 from the Random123 distribution (Salmon et al., 2011)."""
    from tinyrnn.ir.ops.random import threefry
    u = np.uint32
    known = [((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
             ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
             ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0))]
    for key, counter, expected in known:
        a, b = threefry(np, [u(k) for k in key], np.array([counter[0]], u), np.array([counter[1]], u))
        assert (int(a[0]), int(b[0])) == expected


def test_random_masks_depend_on_key_and_site():
    key = input_node("key", (2,), np.uint32)
    g = Graph({"a": random_bits(key, 0, (50, 40)), "b": random_bits(key, 1, (50, 40)),
               "m": bernoulli(key, 2, (200, 200), 0.3)})
    one, two = g.run({"key": np.array([1, 2], "u4")}), g.run({"key": np.array([1, 3], "u4")})
    assert (one["a"] != one["b"]).mean() > 0.99
    assert (one["a"] != two["a"]).mean() > 0.99
    assert abs(one["m"].mean() - 0.3) < 0.01
    np.testing.assert_array_equal(one["a"], g.run({"key": np.array([1, 2], "u4")})["a"])
