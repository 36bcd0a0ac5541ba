"""`tr.jax.layer`: JAX's own checker, its transformations, and our interpreter as oracle."""

import copy
import pickle

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import ArgumentError, DTypeError, ShapeError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

LAYERS = {
    "LSTM": lambda: tr.nn.LSTM(3, 4, rng=0, dtype="float64"),
    "GRU, both directions": lambda: tr.nn.GRU(3, 2, bidirectional=True, rng=0, dtype="float64"),
    "own cell": lambda: tr.nn.Recurrent("mgu", x=3, h=4, rng=0, dtype="float64")}


@pytest.fixture(autouse=True)
def _double():
    jax.config.update("jax_enable_x64", True)  # in all threads, those of callbacks too
    yield
    jax.config.update("jax_enable_x64", False)


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def mixed(result):
    """A sum in which every number of outputs and states counts differently."""
    leaves = jax.tree.leaves(result)
    return sum((leaf * drawn(*leaf.shape, seed=k)).sum() for k, leaf in enumerate(leaves))


@pytest.mark.parametrize("lengths", [None, [4, 1]])
@pytest.mark.parametrize("name", LAYERS)
def test_jaxs_checker(name, lengths):
    """First and second order, compiled and not."""
    f = tr.jax.layer(LAYERS[name]())

    def loss(params, x):
        return mixed(f(params, x, lengths=lengths))

    check_grads(loss, (f.params, drawn(2, 4, 3)), order=1, modes=["rev"])
    check_grads(jax.jit(loss), (f.params, drawn(2, 4, 3)), order=2, modes=["rev"])


def test_our_interpreter_agrees():
    ours = LAYERS["GRU, both directions"]()
    f = tr.jax.layer(ours)
    x = drawn(3, 5, 3)
    found, expected = jax.jit(f)(f.params, x), ours(np.asarray(x))
    np.testing.assert_allclose(found[0], expected[0].numpy(), rtol=1e-12)
    np.testing.assert_allclose(found[1], expected[1].numpy(), rtol=1e-12)
    g = jax.grad(lambda p: (f(p, x)[0] ** 2).sum())(f.params)
    own = tr.grad((ours(np.asarray(x))[0] ** 2).sum(), dict(ours.named_parameters()))
    for k, v in own.items():
        np.testing.assert_allclose(g[k], v.numpy(), rtol=1e-10)


def test_vmap_over_the_batch():
    """Rows without batch axis, and gradients for every row; sums agree with the batch."""
    f = tr.jax.layer(LAYERS["LSTM"]())
    x = drawn(5, 4, 3)
    rows = jax.jit(jax.vmap(lambda x: f(f.params, x)[0]))(x)
    np.testing.assert_allclose(rows, f(f.params, x)[0], rtol=1e-12)

    def loss(params, x):
        return (f(params, x)[0] ** 2).sum()

    each = jax.vmap(jax.grad(loss), in_axes=(None, 0))(f.params, x)
    whole = jax.grad(loss)(f.params, x)
    within = jax.jit(jax.grad(lambda p: jax.vmap(lambda x: loss(p, x))(x).sum()))(f.params)
    for k in whole:
        np.testing.assert_allclose(each[k].sum(0), whole[k], rtol=1e-10)
        np.testing.assert_allclose(within[k], whole[k], rtol=1e-10)
    lengths = jnp.array([4, 2, 1, 4, 3])
    np.testing.assert_allclose(jax.vmap(lambda x, n: f(f.params, x, lengths=n)[0])(x, lengths),
                               f(f.params, x, lengths=lengths)[0], rtol=1e-12)


def test_state_masks_and_forms():
    f = tr.jax.layer(LAYERS["own cell"]())
    x = drawn(2, 6, 3)
    whole, (h,) = f(f.params, x)
    first, state = f(f.params, x[:, :2])
    second, (again,) = f(f.params, x[:, 2:], state)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, rtol=1e-12)
    np.testing.assert_allclose(again, h, rtol=1e-12)
    mask = np.arange(6) < np.array([[6], [2]])
    for lengths in ([6, 2], np.array([6, 2]), jnp.array([6, 2])):
        np.testing.assert_array_equal(f(f.params, x, lengths=lengths)[0], f(f.params, x, mask=mask)[0])


def test_a_model_with_dropout_takes_a_key():
    f = tr.jax.layer(tr.nn.Sequential(tr.nn.Embedding(9, 3, rng=0), tr.nn.LSTM(3, 4, rng=1, recurrent_dropout=0.3), tr.nn.Dropout(0.5),
                                      tr.nn.Last(), tr.nn.Linear(4, 2, rng=2)))
    x, keys = jnp.arange(6).reshape(2, 3), jax.random.split(jax.random.key(0), 2)
    run = jax.jit(lambda p, key=None: f(p, x, key=key))
    assert (run(f.params) == run(f.params)).all()
    assert (run(f.params, keys[0]) == run(f.params, keys[0])).all()
    assert (run(f.params, keys[0]) != run(f.params, keys[1])).any()
    assert (run(f.params, jax.random.PRNGKey(3)) != run(f.params)).any()
    check_grads(lambda p: f(p, x, key=keys[0]).sum(), (jax.tree.map(lambda a: a.astype("float64"), f.params),), order=2, modes=["rev"])
    back = f.to_tinyrnn({k: v + 1 for k, v in f.params.items()})
    assert float(back.layers[4].bias[0]) == float(f.params["layers.4.bias"][0] + 1)


def test_large_arrays_pass():
    """More than a buffer of JAX's callbacks holds, in a loop of training."""
    f = tr.jax.layer(tr.nn.LSTM(64, 64, rng=0))
    x = jnp.ones((32, 60, 64), "float32")
    step = jax.jit(lambda p: jax.tree.map(lambda w, g: w - 0.01 * g, p, jax.grad(lambda p: (f(p, x)[0] ** 2).mean())(p)))
    params, before = f.params, float((f(f.params, x)[0] ** 2).mean())
    for _ in range(10):
        params = step(params)
    assert float((f(params, x)[0] ** 2).mean()) < before


def test_calls_outside_of_jit_compile_once():
    """JAX's own programs are as many after ten calls as after one."""
    f, x = tr.jax.layer("mgu", x=3, h=4, rng=0), jnp.ones((2, 5, 3), "float32")
    counts = []
    for _ in range(4):
        f(f.params, x)
        jax.grad(lambda p: f(p, x)[0].sum())(f.params)
        (pure,) = f._models.values()
        (function,) = pure._functions.values()
        counts.append(len(function.differentiable.made))
    assert counts[0] == counts[-1]


def test_copies_and_pickles():
    f, x = tr.jax.layer("mgu", x=3, h=4, rng=0), jnp.ones((2, 5, 3), "float32")
    y = f(f.params, x)[0]
    for again in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        np.testing.assert_array_equal(again(again.params, x)[0], y)


def test_what_is_refused():
    with pytest.raises(ArgumentError, match="x: a LSTM has its sizes and options already"):
        tr.jax.layer(tr.nn.LSTM(3, 4), x=3)
    f = tr.jax.layer("mgu", x=3, h=4)
    with pytest.raises(ArgumentError, match="the weights are a dict of W_f, b_f, W_n, b_n, like `params`; got W"):
        f({"W": 1}, jnp.ones((2, 5, 3)))
    with pytest.raises(DTypeError, match="the weights are float16; expected float32 or float64"):
        f({k: v.astype("float16") for k, v in f.params.items()}, jnp.ones((2, 5, 3)))
    d = tr.jax.layer(tr.nn.Sequential(tr.nn.LSTM(3, 4), tr.nn.Dropout(0.5)))
    with pytest.raises(ArgumentError, match=r"key=0: expected a key of jax[.]random"):
        d(d.params, jnp.ones((2, 5, 3)), key=0)
    with pytest.raises(ShapeError, match=r"\[2,5,7\]"):
        f(f.params, jnp.ones((2, 5, 7)))
    with pytest.raises(Exception, match="lengths lie between 0 and the number of steps, 5; got 2 to 6"):
        f(f.params, jnp.ones((2, 5, 3)), lengths=jnp.array([6, 2]))
