"""Defects that reviewers found in the compiler, each once as a user would meet it.

`same` compares a compiled function with its traced graph on the interpreter, before any pass touched it.
"""

import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.ir import Graph
from tinyrnn.ir.ops.leaves import input_node
from tinyrnn.trees import flatten

RNG = np.random.default_rng(0)


def same(f, *arrays):
    stand_ins = [tr.Tensor(input_node(f"x{i}", a.shape, a.dtype)) for i, a in enumerate(arrays)]
    leaves, _ = flatten(f(*stand_ins))
    graph = Graph({str(i): t for i, t in enumerate(leaves)})
    values = {k: v for k, v in ((f"x{i}", a) for i, a in enumerate(arrays)) if k in graph.inputs}
    with np.errstate(all="ignore"):
        expected = graph.run(values)
    dirty = tr.compile(lambda x: tr.tanh(x @ x) @ x)  # memory that holds something
    dirty(np.full((70, 70), 7e3))
    for found in (flatten(tr.compile(f)(*arrays))[0], list(graph.run(values, backend="cpu").values())):
        for x, y in zip(found, expected.values(), strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            np.testing.assert_allclose(x, y, rtol=1e-6 if y.dtype == np.float32 else 1e-11, atol=1e-300)


def array(*shape):
    return RNG.normal(size=shape)


@pytest.mark.parametrize("reduce", [tr.sum, tr.max])
@pytest.mark.parametrize("shape", [(3, 4), (30, 40), (2, 3, 1)])
def test_a_rows_number_repeated_along_the_row(reduce, shape):
    def f(x):
        m = tr.broadcast_to(reduce(x, -1, keepdims=True), shape)
        return x * m, m
    same(f, array(*shape))


def test_a_repeated_number_as_a_state():
    same(lambda x: tr.scan(lambda h, a: (tr.broadcast_to((h * a).sum(-1, keepdims=True), (2, 4)), h), x[0], x), array(5, 2, 4))


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (1, 1)])
def test_a_sum_that_broadcasts_along_the_other_axis(shape):
    same(lambda x: (x - x.sum(-1), tr.exp(x - x.max(-1)), x * tr.broadcast_to(x.sum(-1), shape)), array(*shape))


def test_kernels_that_are_joined_keep_the_axis_of_a_broadcast():
    """The sum and its reader stand in kernels of their own until a third op would join them."""
    def f(x, z):
        m = x * 2.0
        return (z - m.sum(-1)) * m
    same(f, array(4, 4), array(4, 4))


def test_second_order_through_a_sum():
    cell = tr.Cell("s[t] = sum(w * h[t-1])\nh[t] = tanh(W @ x[t] + s[t] * h[t-1])\noutputs: h")
    layer = tr.nn.Recurrent(cell, x=3, h=4, dtype="float64", rng=0)

    def f(x):
        g = tr.grad((layer(x)[0] ** 2).sum(), x)
        return tr.grad((g * g).sum(), layer.weights["w"])
    same(f, array(2, 4, 3))


def test_arrays_of_any_order_are_assigned_as_they_read():
    W = tr.parameter(np.zeros((3, 4)))
    f = tr.compile(lambda x: x @ W)
    for value in (array(4, 3).T, np.asfortranarray(array(3, 4)), array(6, 8)[::2, ::2]):
        W.assign(value)
        np.testing.assert_allclose(f(np.ones((1, 3))), np.ones((1, 3)) @ value)
    U = array(4, 3)
    tr.compile(lambda x: W.assign(tr.tensor(U).T), backend="numpy")(np.ones(1))
    np.testing.assert_allclose(f(np.ones((1, 3))), np.ones((1, 3)) @ U.T)
    with pytest.raises(ValueError, match="read-only"):
        W.node.at[0].data[...] = 7


def test_the_sign_of_zero_is_part_of_a_kernel_and_of_a_signature():
    one = np.ones(1)
    with np.errstate(all="ignore"):
        for c in (-0.0, 0.0):
            np.testing.assert_array_equal(1 / tr.compile(lambda x, c=c: x * c)(one), [np.inf if c == 0 and not np.signbit(c) else -np.inf])
        f = tr.compile(lambda x, s: x * s)
        assert (1 / f(one, 0.0), 1 / f(one, -0.0)) == (np.inf, -np.inf)
        f(one, float("nan"))
        f(one, float("nan"))
    assert len(f.entries) == 3


@pytest.mark.parametrize("same_value", [lambda w: w * 1, lambda w: w + 0, lambda w: w[:], lambda w: w.T.T, lambda w: w**1])
def test_what_was_read_before_an_assignment_keeps_its_value(same_value):
    W, V = tr.parameter(np.array([1.0, 2.0])), tr.parameter(np.array([3.0, 4.0]))

    @tr.compile
    def swap(x):
        w, v = same_value(W), same_value(V)
        W.assign(v)
        V.assign(w)
        return w, W

    before, after = swap(np.ones(1))
    np.testing.assert_array_equal([W.numpy(), V.numpy(), before, after], [[3, 4], [1, 2], [1, 2], [3, 4]])


def test_a_gradient_taken_after_an_assignment_is_refused():
    W = tr.parameter(np.array([1.0, 2.0]), name="W")

    @tr.compile
    def late(x):
        loss = (W * W * x).sum()
        W.assign(W - 1)
        return tr.grad(loss, W)

    with pytest.raises(tr.StaleError, match="W was assigned after the tensor was built whose gradient is asked for"):
        late(np.ones(2))


def test_arguments_whose_paths_look_alike_are_different():
    a, b = np.array([1.0]), np.array([2.0])
    assert tr.compile(lambda t: t["x.y"] - t["x"]["y"])({"x.y": a, "x": {"y": b}}) == -1.0
    assert tr.compile(lambda t: t[0] - t["0"])({0: a, "0": b}) == -1.0

    def g(x, /, **named):
        return x - named["x"]
    assert tr.compile(g)(a, x=b) == -1.0


def test_whole_powers_fall_back_with_a_warning():
    for f, expected in ((lambda x: x**2, [0, 1, 4]), (lambda x: x**x, [1, 1, 4])):
        with pytest.warns(tr.FallbackWarning, match="powers of int64 numbers have no compiled kernels"):
            np.testing.assert_array_equal(tr.compile(f)(np.arange(3)), expected)


def test_powers_and_casts_of_odd_numbers():
    x = np.array([-np.inf, -0.0, np.inf, np.nan, -2.5, 0.0])
    same(lambda x: (x**0.5, x**2, x**-1, x**1.5, x**7, x**-0.5), x)
    same(lambda x: (x.astype("uint8"), x.astype("int16"), x.astype("uint64")), np.array([2.5, 200.7, 0.0]))
    same(lambda x: x.astype("uint8"), np.array([-2.5]))


Pair = namedtuple("Pair", "a b")


def test_arguments_of_other_kinds():
    a = np.ones(2)
    np.testing.assert_array_equal(tr.compile(lambda p: p.a + p.b)(Pair(a, a)), [2, 2])
    found = tr.compile(lambda x: {"new value 0": x, "result 0": x + 1})(a)
    np.testing.assert_array_equal(found["result 0"], [2, 2])
    with pytest.raises(tr.TinyRNNError, match="reads the placeholder 'q', which is none of its arguments"):
        tr.compile(lambda x: x + tr.input("q", (2,)))(a)
    with pytest.raises(tr.TinyRNNError, match=r"tr\.compile takes a function of tensors, got int"):
        tr.compile(3)

    class Model:
        @tr.compile
        def double(self, x):
            return x * 2
    np.testing.assert_array_equal(Model().double(a), [2, 2])


# ---- sequences that are overwritten by traces

def reuse_cases():
    def body(h, x):
        u = x + h
        return tr.tanh(u), tr.sigmoid(u)

    def over_time(a, h):
        x = tr.tanh(a @ a)
        return tr.scan(body, h, tr.broadcast_to(x, (5, 3, 3)))

    def over_rows(a, h):
        x = tr.tanh(a @ a)
        return tr.scan(body, h, tr.broadcast_to(x.reshape(3, 1, 3), (3, 3, 3)))

    def twice(a, h):
        x = tr.tanh((a @ a).reshape(3, 1, 3) * tr.tensor(np.ones((6, 3, 1)))[:3])
        return tr.scan(lambda s, v: (tr.tanh(v[0] + v[1] + s), tr.sigmoid(v[0] * v[1] + s)), h, (x, tr.flip(x, 0)))

    def shifted(a, h):
        x = tr.tanh((a @ a).reshape(3, 1, 3) + tr.tensor(np.ones((3, 3, 3))))
        return tr.scan(lambda s, v: (tr.tanh(v[0] + v[1] + s), tr.sigmoid(v[0] * v[1] + s)), h, (x[:-1], x[1:]))

    def delayed(a, h):
        x = tr.tanh((a @ a).reshape(3, 1, 3) + tr.tensor(np.ones((3, 3, 3))))
        return tr.scan(lambda s, v: ((tr.tanh(v + s[0]), v), (tr.sigmoid(v + s[1]), v)), (h, h), x)

    def last_one_read(a, h):
        x = tr.tanh((a @ a).reshape(3, 1, 3) + tr.tensor(np.ones((3, 3, 3))))
        _, y = tr.scan(body, h, x)
        return tr.tanh(y), x[-1], x[1:, :2]

    def in_remat(a, h):
        x = (a @ a).reshape(3, 1, 3) + tr.tensor(np.ones((3, 3, 3)))

        def inner(x):
            z = tr.tanh(x)
            return z, tr.exp(tr.scan(body, h, z)[1])
        return tr.remat(inner)(x)

    def overlapping(a, h):
        x = tr.tanh((a @ a).reshape(3, 1, 3) + tr.tensor(np.ones((3, 3, 3))))
        return tr.scan(lambda s, v: (tr.tanh(v[:, :2] + s), (tr.sin(v[:, 1:] + s), tr.cos(v[:, :2] - s))), h[:, :2], x)

    return [over_time, over_rows, twice, shifted, delayed, last_one_read, in_remat, overlapping]


@pytest.mark.parametrize("f", reuse_cases(), ids=lambda f: f.__name__)
def test_a_sequence_that_is_needed_stays(f):
    same(f, array(3, 3), array(3, 3))


# ---- rewritings

def two_traces(step, x, h):
    return tr.scan(step, h, x)[1]


def test_rewritings_keep_shapes_dtypes_and_terms():
    same(lambda x, p: ((x @ p)[:2], (x @ p)[0:3, 1:3], (x @ p)[:, 1:]), array(5, 3), array(3, 4))
    same(lambda x: tr.einsum("ij->i", x), np.arange(6, dtype="int32").reshape(2, 3))
    same(lambda x, p, q: (x @ p, x @ q), array(4, 3).astype("f"), array(3, 2).astype("f"), array(3, 2))
    same(lambda x, m: tr.scan(lambda s, v: (s + (v[0] + v[1]), s), x[0], (x, m))[0], array(4, 3).astype("f"),
         RNG.random((4, 3)) < 0.5)
    same(lambda c: tr.scan(lambda s, v: (s + c, s), c, tr.tensor(np.zeros((0, 2))))[0], np.array([np.inf, 1.0]))
    same(lambda x: tr.remat(lambda y: y.reshape(96, 5))(x) * 2.0, array(5, 3, 32))
    same(lambda x: tr.remat(lambda y: y.reshape(96, 5))(x), array(5, 3, 32))

    def twice(x, h, P, Q):
        _, (a, b) = tr.scan(lambda s, v: ((tr.concat([tr.tanh(v + s), tr.sin(v * s)]) @ P), (tr.tanh(v + s), tr.sin(v * s))), h, x)
        return a.reshape(12, 2) @ Q + b.reshape(12, 2) @ Q + a.reshape(12, 2) @ Q
    same(twice, array(4, 3, 2), array(3, 2), array(4, 2), array(2, 5))


def test_an_index_outside_is_noticed_by_gradients_too():
    W = tr.parameter(np.ones((4, 1)))
    f = tr.compile(lambda i: tr.grad(tr.gather(W, i).sum(), W))
    np.testing.assert_array_equal(f(np.array([0, 3]))[:, 0], [1, 0, 0, 1])
    with pytest.raises(IndexError, match="index 9 is outside an axis of size 4"):
        f(np.array([0, 9]))


OUT_OF_RANGE = """
import numpy as np, tinyrnn as tr
W, U = tr.parameter(np.ones((50, 4))), tr.parameter(np.ones((4, 8)))
f = tr.compile(lambda i: tr.tanh(tr.gather(W, i) @ U), threads=2)
good = np.zeros(400_000, int)
bad = good.copy()
bad[-1] = 50
for _ in range(25):
    f(good)
    try:
        f(bad)
    except IndexError as error:
        message = str(error)
print(message)
"""


def test_an_index_outside_stops_all_threads():
    out = subprocess.run([sys.executable, "-c", OUT_OF_RANGE], capture_output=True, text=True, timeout=100)
    assert out.stdout == "index 50 is outside an axis of size 50: expected 0 to 49\n", out.stderr


def test_calls_that_assign_follow_one_another():
    import threading

    W = tr.parameter(np.zeros(1))

    @tr.compile
    def step(x):
        W.assign(W + x)
        return W

    threads = [threading.Thread(target=lambda: [step(np.ones(1)) for _ in range(50)]) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert W.numpy() == 200.0


def test_dicts_of_lists_keep_their_lists_apart():
    """Numbers written out as the values of a dict are one array each, also where they are of one length."""
    y, dy = tr.value_and_grad(lambda p: (p["w"] * p["w"]).sum() + 3 * p["b"].sum())({"w": [1.0, 2.0], "b": [3.0]})
    assert float(y) == 14
    assert {k: v.numpy().tolist() for k, v in dy.items()} == {"w": [2.0, 4.0], "b": [3.0]}
    leaves, form = flatten({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    assert leaves == [[1.0, 2.0], [3.0, 4.0]]
    assert form(["x", "y"]) == {"a": "x", "b": "y"}
