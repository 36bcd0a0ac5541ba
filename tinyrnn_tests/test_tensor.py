"""The tensor API: values, gradients of any order, staleness, conversions."""

import numpy as np
import pytest

import tinyrnn as tr

from .oracles import assert_close


def test_dtypes_of_data():
    assert tr.tensor([1, 2]).dtype == tr.tensor(1).dtype == np.float64
    assert tr.tensor(np.float32(1)).dtype == np.float32
    assert tr.tensor(np.arange(3)).dtype == np.int64
    assert tr.tensor([True]).dtype == bool
    assert tr.tensor([1, 2], dtype="int64").dtype == np.int64
    assert (tr.tensor(np.ones(2, "f4")) * 2).dtype == np.float32
    with pytest.raises(tr.TinyRNNError, match="numbers"):
        tr.tensor(["a"])
    with pytest.raises((tr.TinyRNNError, ValueError)):
        tr.tensor([[1.0], [1.0, 2.0]])


def test_data_are_copied():
    a = np.ones(3)
    t = tr.tensor(a)
    a[0] = 9
    t.numpy()[1] = 9
    np.testing.assert_array_equal(t.numpy(), 1)


def test_gradients_are_graphs_of_any_order():
    x = tr.parameter(0.7)
    y = tr.sin(x) * x
    third = tr.grad(tr.grad(tr.grad(y, x), x), x)
    assert_close(float(third), -3 * np.sin(0.7) - 0.7 * np.cos(0.7), 1e-14)


def test_structures_in_structures_out():
    a, b = tr.parameter([1.0, 2.0]), tr.parameter([3.0])
    y = (a * a).sum() * b.sum()
    assert isinstance(tr.grad(y, [a, b]), list)
    d = tr.grad(y, {"a": a, "b": (b, a)})
    np.testing.assert_array_equal(d["a"].numpy(), [6, 12])
    np.testing.assert_array_equal(d["b"][0].numpy(), [5])
    np.testing.assert_array_equal(tr.grad(y, tr.tensor([1.0])).numpy(), [0])


def test_value_and_grad():
    def f(x, W):
        return tr.tanh(x @ W).sum()
    x, W = np.ones((2, 3)), np.ones((3, 4))
    y, dW = tr.value_and_grad(f, argnums=1)(x, W)
    assert float(y) == np.tanh(x @ W).sum()
    assert_close(dW.numpy(), x.T @ (1 - np.tanh(x @ W) ** 2))
    _, (dx, dW2) = tr.value_and_grad(f, argnums=(0, 1))(x, W)
    assert dx.shape == (2, 3)
    np.testing.assert_array_equal(dW.numpy(), dW2.numpy())
    _, d = tr.value_and_grad(lambda p: (p["a"] * p["b"]).sum())({"a": [1.0], "b": [5.0]})
    assert (float(d["a"]), float(d["b"])) == (5, 1)
    with pytest.raises(tr.TinyRNNError, match="value_and_grad"):
        tr.grad(f, x)


def test_jacobian_hessian_and_forward_mode_agree():
    x = tr.parameter(np.random.default_rng(0).normal(size=3))
    W = np.random.default_rng(1).normal(size=(3, 2))
    v = tr.tanh(x @ W)
    J = tr.jacobian(v, x).numpy()
    assert_close(J, (1 - v.numpy()[:, None] ** 2) * W.T)
    y = (v * v * v).sum()
    H = tr.hessian(y, x).numpy()
    assert_close(H, H.T, 1e-14)
    d = np.array([1.0, -2.0, 0.5])
    assert_close(tr.jvp(v, {x: d}).numpy(), J @ d)
    assert_close(tr.jvp(tr.grad(y, x), {x: d}).numpy(), H @ d)
    assert_close(tr.grad(tr.jvp(y, {x: d}), x).numpy(), H @ d)


def test_stop_gradient():
    x = tr.parameter(3.0)
    assert float(tr.grad(tr.stop_gradient(x) * x, x)) == 3
    assert float(tr.jvp(tr.stop_gradient(x) * x, {x: 1.0})) == 3


def test_remat_recomputes_and_agrees():
    W, x = tr.parameter(np.random.default_rng(0).normal(size=(3, 3))), np.ones((2, 3))
    f = lambda x, W: tr.sin(tr.tanh(x @ W) @ W)
    plain, kept = f(tr.tensor(x), W).sum(), tr.remat(f)(tr.tensor(x), W).sum()
    assert float(plain) == float(kept)
    assert_close(tr.grad(kept, W).numpy(), tr.grad(plain, W).numpy(), 1e-15)
    forward = tr.Graph({"y": kept}).nodes
    backward = tr.Graph({"y": kept, "g": tr.grad(kept, W)}).nodes
    assert sum(n.op.name == "region" for n in forward) == 1
    assert sum(n.op.name == "region" for n in backward) == 2
    closed = tr.remat(lambda x: f(x, W))(tr.tensor(x)).sum()
    assert_close(tr.grad(closed, W).numpy(), tr.grad(plain, W).numpy(), 1e-15)
    second = tr.grad((tr.grad(kept, W) * W).sum(), W)
    assert_close(second.numpy(), tr.grad((tr.grad(plain, W) * W).sum(), W).numpy(), 1e-14)


def test_backward_accumulates_until_zeroed():
    W, frozen = tr.parameter([2.0], name="W"), tr.tensor([3.0])
    for _ in range(2):
        (W * W * frozen).sum().backward()
    np.testing.assert_array_equal(W.grad, [24.0])
    assert frozen.grad is None
    W.zero_grad()
    assert W.grad is None
    with pytest.raises(tr.TinyRNNError, match="no parameter"):
        frozen.sum().backward()
    with pytest.raises(tr.TinyRNNError, match="scalar"):
        (W * np.ones(3)).backward()


def test_shared_use_is_counted_once_per_path():
    a = tr.parameter(3.0)
    b = a + a
    c = b * b + b
    assert float(tr.grad(c, a)) == 2 * (2 * 6 + 1)


def test_stale_tensors_say_so():
    W = tr.parameter([1.0], name="W")
    seen, unseen = (W * 2).sum(), (W * 3).sum()
    assert float(seen) == 2
    W.assign([10.0])
    assert float(seen) == 2
    with pytest.raises(tr.StaleError, match="W was assigned after"):
        float(unseen)
    with pytest.raises(tr.StaleError, match="old value"):
        seen * 2
    assert float((W * 2).sum()) == 20


def test_the_usual_loop():
    W = tr.parameter(np.zeros(2), name="W")
    x, y = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]), np.array([1.0, 2.0, 3.0])
    opt = tr.optim.Adam(0.1)
    losses = []
    for _ in range(200):
        loss = ((x @ W - y) ** 2).mean()
        loss.backward()
        opt.step([W])
        losses.append(float(loss))
    assert losses[-1] < 0.01 * losses[0]
    assert W.grad is None


def test_assign_checks():
    W = tr.parameter(np.zeros((2, 3)), name="W")
    with pytest.raises(tr.TinyRNNError, match=r"W has shape \[2,3\], it cannot be assigned shape \[3,2\]"):
        W.assign(np.zeros((3, 2)))
    with pytest.raises(tr.TinyRNNError, match="cannot be assigned complex"):
        W.assign(np.zeros((2, 3), complex))
    with pytest.raises(tr.TinyRNNError, match="holds data"):
        (W * 2).assign(np.zeros((2, 3)))
    with pytest.raises(tr.TinyRNNError, match="do not change"):
        W[0] = 1.0


def test_symbolic_tensors_have_no_value():
    x = tr.input("x", (2,))
    for use in (bool, list, np.asarray, lambda t: t.numpy(), lambda t: float(t.sum()), lambda t: (t * 2).tolist()):
        with pytest.raises(tr.TinyRNNError, match=r"input 'x'.*tr\.Graph"):
            use(x)


def test_conversions():
    t = tr.tensor([[1.0, 2.0]]) * 2
    np.testing.assert_array_equal(np.asarray(t), [[2, 4]])
    np.testing.assert_array_equal(np.from_dlpack(t), [[2, 4]])
    assert t.tolist() == [[2, 4]]
    assert [row.tolist() for row in t] == [[2, 4]]
    assert len(t) == 1
    assert bool(t.sum() > 5)
    assert int(tr.tensor(np.array(3))) == 3
    assert (np.ones(2) * tr.tensor([1.0, 2.0])).tolist() == [1, 2]
    assert (t == 4).tolist() == [[False, True]]
    assert "Tensor(float64[1,2], mul" in repr(t)
    with pytest.raises(tr.TinyRNNError, match="one entry"):
        float(t)


def test_the_functions_of_the_contract():
    x = tr.tensor(np.random.default_rng(0).normal(size=(2, 3)))
    n = x.numpy()
    same = lambda t, a: assert_close(t.numpy(), a, 1e-14)
    same(tr.concat([x, x], 0), np.concatenate([n, n]))
    same(tr.stack([x, x], 1), np.stack([n, n], 1))
    same(tr.split(x, 3)[1], n[:, 1:2])
    same(tr.pad(x, [(0, 1), (2, 0)]), np.pad(n, [(0, 1), (2, 0)]))
    same(tr.flip(x), n[::-1, ::-1])
    same(tr.einsum("ij,kj->ik", x, x), n @ n.T)
    same(tr.gather(x, [1, 0, 1]), n[[1, 0, 1]])
    same(tr.one_hot([2, 0], 3), np.eye(3)[[2, 0]])
    same(x[[1]], n[[1]])
    same(x.max(0) - x.min(0), n.max(0) - n.min(0))
    same(tr.mean(x, 1) + tr.var(x, 1), n.mean(1) + n.var(1))
    same(x.transpose(1, 0).reshape(-1), n.T.reshape(-1))
    same(tr.log_softmax(x), n - np.log(np.exp(n).sum(1, keepdims=True)))
    same(tr.outer(x[0], x[1]), np.outer(n[0], n[1]))
    same(abs(x) ** 2 / x + 2**x, np.abs(n) ** 2 / n + 2**n)
    same(tr.where((x > 0) & ~(x > 1), x, -1.0), np.where((n > 0) & ~(n > 1), n, -1))
    same(tr.cumsum(x, 0) + tr.clip(x, -0.1, 0.1), np.cumsum(n, 0) + np.clip(n, -0.1, 0.1))
    same(tr.minimum(x, 0.0) + tr.maximum(0.2, x), np.minimum(n, 0) + np.maximum(n, 0.2))
    same(tr.broadcast_to(x[:, :1], (2, 4)), np.broadcast_to(n[:, :1], (2, 4)))
