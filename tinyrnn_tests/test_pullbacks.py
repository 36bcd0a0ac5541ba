"""Value and pull-back, functions of a model's parameters, gradients of one's own."""

import functools
import gc
import sys
import weakref

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.domains.complex_step import complex_step_gradient
from tinyrnn.ir import Graph
from tinyrnn.ir.ops.leaves import input_node
from tinyrnn.passes.ad import derivatives, tangent

RNG = np.random.default_rng(44)


def leaves(tree):
    return tr.trees.flatten(tree)[0]


def normal(*shape, dtype="float64"):
    return RNG.normal(size=shape).astype(dtype)


def lstm(dtype="float64", **options):
    return tr.nn.LSTM(3, 5, dtype=dtype, rng=0, **options)


def adjoints_like(y):
    return tr.trees.map_tree(lambda a: RNG.normal(size=a.shape).astype(a.dtype), y)


def steps(layer):
    return lambda x, h, c: layer(x, (h, c))


FUNCTIONS = {
    "a layer with its state": (lambda: steps(lstm(num_layers=2)), lambda: (normal(2, 7, 3), normal(2, 2, 5), normal(2, 2, 5))),
    "both directions": (lambda: (lambda m: lambda x: m(x, lengths=[7, 4])[0])(lstm(bidirectional=True)), lambda: (normal(2, 7, 3),)),
    "any cell": (lambda: (lambda m: lambda x: m(x))(tr.nn.Recurrent("gru_reset_before", x=3, h=4, dtype="float64", rng=0)), lambda: (normal(2, 6, 3),)),
    "products": (lambda: lambda a, b: {"ab": tr.tanh(a @ b), "n": (a * a).sum()}, lambda: (normal(3, 4), normal(4, 2))),
    "trees": (lambda: lambda p, n: (p["w"][0] * p["w"][1], tr.exp(p["b"]) / n), lambda: ({"w": [normal(3), normal(3)], "b": normal(2)}, 3.0)),
    "the same twice": (lambda: lambda x: (x, x, x * 2), lambda: (normal(4),)),
    "remat": (lambda: tr.remat(lambda x: tr.sin(x) * tr.exp(x)), lambda: (normal(4),)),
    "a scan": (lambda: lambda x, w: tr.scan(lambda s, v: ((tr.tanh(w * s + v),) * 2), np.zeros(3), x)[1], lambda: (normal(6, 3), normal(3))),
}


def loss_of(fn, args, g):
    """`Σ g · y` and its gradients by the complex step, as the independent truth."""
    flat, form = leaves(args), tr.trees.flatten(args)[1]
    inputs = [input_node(f"x{i}", np.shape(a)) for i, a in enumerate(flat)]
    y = leaves(fn(*form([tr.Tensor(n) for n in inputs])))
    loss = sum(((t * a).sum() for t, a in zip(y, leaves(g), strict=True)), start=tr.tensor(0.0))
    graph = Graph({"loss": loss})
    values = {f"x{i}": np.asarray(a) for i, a in enumerate(flat)}
    read = {k: values[k] for k in graph.inputs}
    return [complex_step_gradient(graph, read, k) if k in read else np.zeros(v.shape) for k, v in values.items()]


@pytest.mark.parametrize("compiled", ["no", "cpu", "numpy"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_pull_backs_are_the_complex_steps(name, compiled):
    make, arguments = FUNCTIONS[name]
    fn, args = make(), arguments()
    used = fn if compiled == "no" else tr.compile(fn, backend=compiled)
    y, pull = tr.vjp(used, *args)
    plain = tr.trees.map_tree(lambda t: np.asarray(t), fn(*tr.trees.map_tree(lambda a: tr.tensor(a), args)))
    for a, b in zip(leaves(y), leaves(plain), strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-10, atol=1e-12)
    for _ in range(2):
        g = adjoints_like(plain)
        found = pull(g)
        assert isinstance(found, tuple)
        assert len(found) == len(args)
        for a, b in zip(leaves(found), loss_of(fn, args, g), strict=True):
            np.testing.assert_allclose(np.asarray(a), b, rtol=1e-9, atol=1e-11 * max(np.abs(b).max(initial=0), 1))


def test_the_forward_pass_runs_once_and_is_not_computed_again():
    layer = lstm("float32", num_layers=2)
    program = tr.compile(steps(layer))
    y, pull = tr.vjp(program, normal(2, 50, 3, dtype="float32"), *(np.zeros((2, 2, 5), "float32"),) * 2)
    pair = pull._held.pair
    backward, forward = pair.backward.executable.plan, pair.forward.executable.plan
    assert sum(c.family in ("product", "matvec") for c in forward.calls()) == 4
    assert sum(c.family in ("product", "matvec", "tall") for c in backward.calls()) <= 10  # none of them is a product of the forward
    assert backward.flops < 4 * forward.flops
    assert 0 < pull.bytes < 60 * y[0].nbytes


def test_one_pair_of_programs_for_a_signature():
    program = tr.compile(lambda x: tr.tanh(x))
    for n in (3, 4, 3, 4):
        tr.vjp(program, np.ones(n))[1](np.ones(n))
    assert [len(p) for p in program.pairs.values()] == [1]


def test_what_happens_between_the_value_and_its_pull_back_makes_no_difference():
    w = tr.parameter(normal(3, 3), "w")
    program = tr.compile(lambda x: tr.tanh(tr.tanh(x @ w) @ w))
    x, g = normal(2, 3), normal(2, 3)
    y, pull = tr.vjp(program, x)
    expected = pull(g)[0]
    x[:], y[:] = 0, 0
    w.assign(normal(3, 3))
    tr.vjp(program, normal(2, 3))
    np.testing.assert_array_equal(pull(g)[0], expected)


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_dropout_is_the_same_forwards_and_backwards(backend):
    layer = tr.nn.Sequential(tr.nn.Dropout(0.5, rng=0), tr.nn.Linear(6, 6, bias=False, dtype="float64", rng=0))
    layer.layers[1].weight.assign(np.eye(6))
    program = tr.compile(lambda x: layer(x), backend=backend)
    x = np.ones((5, 6))
    pairs = [tr.vjp(program, x) for _ in range(3)]
    masks = [y != 0 for y, _ in pairs]
    assert not np.array_equal(masks[0], masks[1])
    for (_, pull), mask in zip(pairs, masks, strict=True):
        np.testing.assert_array_equal(pull(np.ones((5, 6)))[0], mask * 2.0)


def test_whole_numbers_and_words_have_no_gradient():
    table = tr.parameter(normal(5, 3), "table")

    def fn(i, x, how):
        return tr.gather(table, i) * x if how == "times" else x

    for f in (fn, tr.compile(fn)):
        _, pull = tr.vjp(f, np.array([1, 4]), normal(2, 3), "times")
        a, b, c = pull(np.ones((2, 3)))
        assert a is c is None
        np.testing.assert_allclose(np.asarray(b), table.numpy()[[1, 4]])
    _, pull = tr.vjp(tr.compile(lambda x: (x, x.argmax())), normal(4))
    np.testing.assert_array_equal(pull((np.ones(4), 0))[0], np.ones(4))
    np.testing.assert_array_equal(pull((np.ones(4), None))[0], np.ones(4))


@pytest.mark.parametrize("compiled", [False, True])
def test_adjoints_that_do_not_fit_are_refused(compiled):
    fn = lambda x: {"y": x * 2, "z": x.sum()}
    _, pull = tr.vjp(tr.compile(fn) if compiled else fn, normal(3))
    for g, message in ((np.ones(3), r"g is \., expected \{'y': \., 'z': \.\}"), ({"y": np.ones(4), "z": 1.0}, r"g has shape \[4\] for an output of shape \[3\]"),
                       ({"y": np.ones(3)}, "g is"), ({"y": np.ones(3, complex), "z": 1.0}, "g is complex128")):
        with pytest.raises(tr.TinyRNNError, match=message):
            pull(g)
    found = pull({"y": [1, 2, 3], "z": 1})[0]
    np.testing.assert_array_equal(np.asarray(found), [3.0, 5.0, 7.0])


def test_a_function_that_assigns_has_no_pull_back():
    w = tr.parameter(np.ones(2), "w")

    @tr.compile
    def step(x):
        w.assign(w + x)
        return w * x

    with pytest.raises(tr.TinyRNNError, match="assigns parameters has no pull-back"):
        tr.vjp(step, np.ones(2))


def test_pull_backs_of_tensors_are_graphs():
    x = tr.parameter(normal(3))
    _, pull = tr.vjp(lambda x: tr.sin(x), x)
    (g,) = pull(tr.cos(x))
    second = tr.grad(g.sum(), x)
    np.testing.assert_allclose(second.numpy(), -2 * np.sin(x.numpy()) * np.cos(x.numpy()), rtol=1e-12)
    inside = tr.compile(lambda x, g: tr.vjp(lambda x: tr.tanh(x) * x, x)[1](g)[0])
    a, b = normal(3), normal(3)
    np.testing.assert_allclose(inside(a, b), np.asarray(tr.vjp(lambda x: tr.tanh(x) * x, a)[1](b)[0]), rtol=1e-12)


def test_what_is_saved_goes_with_the_pull_back():
    program = tr.compile(steps(lstm("float32")))
    _, pull = tr.vjp(program, normal(2, 50, 3, dtype="float32"), *(np.zeros((1, 2, 5), "float32"),) * 2)
    held = weakref.ref(max(pull._held.saved, key=lambda a: a.nbytes))
    room, size = pull._held.pair.room, pull._held._memory.size
    assert room._free == []
    del pull
    gc.collect()
    assert held() is None
    assert [m.size for m in room._free] == [size]  # the next run's


def test_much_memory_is_not_kept(monkeypatch):
    monkeypatch.setattr(sys.modules["tinyrnn.tensor.pullbacks"], "MOST_KEPT", 1000)
    program = tr.compile(lambda x: tr.tanh(x) * tr.sin(x))
    for n, kept in ((20, 1), (500, 0)):
        _, pull = tr.vjp(program, np.ones(n))
        room = pull._held.pair.room
        del pull
        gc.collect()
        assert len(room._free) == kept


def test_the_bridge_agrees_with_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    layer = tr.nn.LSTM(5, 9, num_layers=2, rng=0)
    theirs = torch.nn.LSTM(5, 9, 2, batch_first=True)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in layer.state_dict().items()})
    x, g = normal(3, 11, 5, dtype="float32"), normal(3, 11, 9, dtype="float32")
    program = tr.compile(lambda p, x: tr.functional_call(layer, p, x)[0])
    y, pull = tr.vjp(program, layer.state_dict(), x)
    t = torch.tensor(x, requires_grad=True)
    out, _ = theirs(t)
    out.backward(torch.tensor(g))
    np.testing.assert_allclose(y, out.detach().numpy(), atol=2e-6)
    params, dx = pull(g)
    np.testing.assert_allclose(dx, t.grad.numpy(), atol=2e-5)
    for k, p in theirs.named_parameters():
        np.testing.assert_allclose(params[k], p.grad.numpy(), atol=1e-4, err_msg=k)


@pytest.mark.gpu
def test_pull_backs_on_a_gpu(gpu):
    layer = lstm("float32")
    x, g = normal(2, 6, 3, dtype="float32"), normal(2, 6, 5, dtype="float32")
    found = {}
    for backend in ("cpu", "cuda", "cuda:eager"):
        w = layer.weight_hh_l0.numpy()
        y, pull = tr.vjp(tr.compile(lambda x: layer(x)[0], backend=backend), x)
        layer.weight_hh_l0.assign(w * 2)
        found[backend] = y, *pull(g), *pull(g)
        layer.weight_hh_l0.assign(w)
    for backend in ("cuda", "cuda:eager"):
        for a, b in zip(found[backend], found["cpu"], strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_one_tensor_as_several_arguments(compiled):
    t, f = tr.parameter([3.0]), lambda a, b: a * b * b
    _, pull = tr.vjp(tr.compile(f) if compiled else f, t, t)
    assert [np.asarray(g).item() for g in pull(np.ones(1))] == [9.0, 18.0]
    _, pull = tr.vjp(lambda p: p * t, t)
    assert pull(np.ones(1))[0].item() == 3.0
    _, (a, b, c) = tr.value_and_grad(lambda a, b, c: (a * b * b * c * c * c).sum(), argnums=(0, 1, 2))(t, t, t)
    assert [a.item(), b.item(), c.item()] == [3.0**5, 2 * 3.0**5, 3 * 3.0**5]


class Methods:
    """A compiled method."""

    @tr.compile
    def f(self, x):
        return tr.tanh(x) * x


def test_compiled_methods_and_parts_of_functions():
    x, g = normal(3), normal(3)
    expected = np.asarray(tr.vjp(lambda x: tr.tanh(x) * x, x)[1](g)[0])
    power = tr.compile(lambda w, x: tr.tanh(x) * x * w)
    for f in (Methods().f, functools.partial(power, np.ones(3))):
        _, pull = tr.vjp(f, x)
        assert len(pull(g)) == 1
        np.testing.assert_allclose(pull(g)[0], expected, rtol=1e-12)


def test_compiled_functions_inside_of_others_are_refused():
    inner = tr.compile(lambda x: tr.tanh(x))
    for use in (lambda: tr.vjp(lambda x: inner(x), np.ones(2)), lambda: tr.value_and_grad(lambda x: inner(x))(np.ones(2))):
        with pytest.raises(tr.TinyRNNError, match="gives an array for tensors, so no gradient would flow"):
            use()


@pytest.mark.parametrize("training", [True, False])
def test_steps_of_layers_have_a_history_where_gradients_are_asked_for(training):
    class Loop(tr.nn.Module):
        def __init__(self):
            self.g = tr.nn.GRU(3, 4, dtype="float64", rng=0)

        def __call__(self, x):
            state, out = None, []
            for t in range(x.shape[1]):
                y, state = self.g.step(x[:, t], state)
                out.append(y)
            return tr.stack(out, 1)

    model, x = Loop().train(training), normal(2, 5, 3)
    params = {k: 2 * v for k, v in model.state_dict().items()}
    run = lambda p, x: tr.functional_call(model, p, x)
    np.testing.assert_allclose(run(params, x).numpy(), tr.compile(run)(params, x), rtol=1e-10)
    whole = lambda p, x: tr.functional_call(model.g, p, x)[0]
    _, g = tr.value_and_grad(lambda p: run(p, x).sum())(params)
    _, expected = tr.value_and_grad(lambda p: whole(p, x).sum())({k.removeprefix("g."): v for k, v in params.items()})
    for k, v in expected.items():
        np.testing.assert_allclose(g[f"g.{k}"].numpy(), v.numpy(), rtol=1e-9, atol=1e-12)
    _, pull = tr.vjp(lambda v: model.g.step(v)[0], x[:, 0])
    assert abs(pull(np.ones((2, 4)))[0].numpy()).max() > 0


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_pull_backs_of_large_ragged_batches(kind):
    """Where products stand inside of loops, and sequences are blanked first."""
    layer = getattr(tr.nn, kind)(8, 64, rng=0)
    x, lengths = normal(32, 80, 8, dtype="float32"), RNG.integers(0, 81, 32)
    y, pull = tr.vjp(tr.compile(lambda x: layer(x, lengths=lengths)[0]), x)
    g = normal(*y.shape, dtype="float32")
    t = tr.parameter(x)
    expected = tr.grad((layer(t, lengths=lengths)[0] * g).sum(), t).numpy()
    np.testing.assert_allclose(pull(g)[0], expected, rtol=1e-4, atol=1e-5)


# ---- functions of parameters

def test_a_model_as_a_function_of_its_parameters():
    model = tr.nn.Sequential(tr.nn.Embedding(7, 4, rng=0), tr.nn.GRU(4, 6, rng=1), tr.nn.Last(), tr.nn.Linear(6, 3, rng=2)).eval()
    x, other = RNG.integers(0, 7, (3, 5)), {k: normal(*v.shape, dtype=v.dtype) for k, v in model.state_dict().items()}
    before = model.predict(x)
    found = tr.functional_call(model, other, x).numpy()
    np.testing.assert_array_equal(model.predict(x), before)
    clone = tr.nn.Sequential(tr.nn.Embedding(7, 4), tr.nn.GRU(4, 6), tr.nn.Last(), tr.nn.Linear(6, 3)).eval()
    clone.load_state_dict(other)
    np.testing.assert_allclose(found, clone.predict(x), rtol=1e-5, atol=1e-6)
    some = {"layers.3.bias": np.zeros(3, "float32")}
    np.testing.assert_allclose(tr.functional_call(model, some, x).numpy(), before - model.layers[3].bias.numpy(), rtol=1e-5, atol=1e-6)
    y, state = tr.functional_call(tr.nn.GRU(4, 6, rng=0), {}, np.ones((2, 3, 4), "float32"), lengths=[3, 1])
    assert y.shape == (2, 3, 6)
    assert state.shape == (1, 2, 6)


@pytest.mark.parametrize(("params", "message"), [({"weights": np.ones((1, 2))}, r"Linear has no parameter 'weights'; it has weight, bias"),
                                                 ({"weight": np.ones((2, 1), "float32")}, r"weight has shape \[1,2\], got \[2,1\]"),
                                                 ({"weight": np.ones((1, 2))}, "weight is float32, got float64")])
def test_parameters_that_do_not_fit_are_refused(params, message):
    with pytest.raises(tr.TinyRNNError, match=message):
        tr.functional_call(tr.nn.Linear(2, 1, rng=0), params, np.ones((3, 2)))


def test_parameters_by_the_names_of_state_dict():
    layer = tr.nn.Recurrent("mgu", x=3, h=4, rng=0)
    params = {k: 2 * v for k, v in layer.state_dict().items()}
    y = tr.functional_call(layer, params, np.ones((2, 5, 3)))[0].numpy()
    layer.load_state_dict(params)
    np.testing.assert_array_equal(y, layer(np.ones((2, 5, 3)))[0].numpy())
    for model, given in ((layer, None), (lambda x: x, {})):
        with pytest.raises(tr.TinyRNNError, match="functional_call takes a layer or a model and its parameters by name"):
            tr.functional_call(model, given, np.ones((2, 5, 3)))


def test_shared_parameters_are_one():
    embed = tr.nn.Embedding(5, 4, dtype="float64", rng=0)

    class Tied(tr.nn.Module):
        def __init__(self):
            self.embed, self.weight = embed, embed.weight

        def __call__(self, x):
            return self.embed(x) @ self.weight.T

    model = Tied()
    w = normal(5, 4)
    np.testing.assert_allclose(tr.functional_call(model, {"embed.weight": w}, [1, 2]).numpy(), w[[1, 2]] @ w.T)


# ---- gradients of one's own

def softsign(x):
    return x / (1 + tr.maximum(x, -x))


def right(g, y, x):
    return g / (1 + tr.maximum(x, -x)) ** 2


CUSTOM = {
    "entrywise": (lambda: tr.custom_gradient(softsign, right), lambda: (normal(3, 2),)),
    "products": (lambda: tr.custom_gradient(lambda a, b: tr.tanh(a @ b), lambda g, y, a, b: ((g * (1 - y * y)) @ b.T, a.T @ (g * (1 - y * y)))),
                 lambda: (normal(2, 3), normal(3, 4))),
    "several results": (lambda: tr.custom_gradient(lambda x: {"s": tr.sin(x), "c": tr.cos(x)}, lambda g, y, x: g["s"] * y["c"] - g["c"] * y["s"]),
                        lambda: (normal(4),)),
    "a number": (lambda: tr.custom_gradient(lambda x: (x * x).sum(), lambda g, y, x: 2 * g * x), lambda: (normal(2, 2),)),
    "with an index": (lambda: tr.custom_gradient(lambda i, x: tr.gather(x, i), lambda g, y, i, x: (None, tr.grad((tr.gather(x, i) * g).sum(), x))),
                      lambda: (np.array([2, 0, 2]), normal(3, 2))),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_a_gradient_of_ones_own_holds_against_the_complex_step(name):
    make, arguments = CUSTOM[name]
    make().check(*arguments())


def test_a_wrong_one_is_told_with_its_place():
    slip = tr.custom_gradient(softsign, lambda g, y, x: tr.where(x > 0.5, g, right(g, y, x)))
    slip.check([0.1, 0.2])
    with pytest.raises(tr.TinyRNNError, match=r"the gradient of softsign for argument 0 is wrong at entry \[1\]: the backward function gives"):
        slip.check([0.1, 0.9])


@pytest.mark.parametrize("compiled", [False, True])
def test_it_is_used_wherever_gradients_are(compiled):
    """In a loss, in a loop over time, twice, and forwards; against the same function with the engine's own gradient."""
    wrapped = CUSTOM["products"][0]()
    own = lambda a, b: tr.tanh(a @ b)
    x, w = normal(5, 2, 3), normal(3, 3)

    def everything(f):
        def run(x, w):
            _, ys = tr.scan(lambda h, v: ((f(h + v, w),) * 2), np.zeros((2, 3)), x)
            loss = (ys * ys).sum()
            g = tr.grad(loss, w)
            return loss, g, tr.grad((g * g).sum(), x), tr.jvp(ys, {w: tr.tensor(np.ones((3, 3)))})
        return tr.compile(run) if compiled else run

    def values(f):
        given = (x, w) if compiled else (tr.parameter(x), tr.parameter(w))
        return [np.asarray(v) for v in everything(f)(*given)]

    for a, b in zip(values(wrapped), values(own), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_another_gradient_than_the_functions_own_is_taken():
    """A step with a smooth surrogate, as spiking networks have it."""
    spike = tr.custom_gradient(lambda v: (v > 0).astype("float64"), lambda g, y, v: g / (1 + v * v))
    v = tr.parameter(normal(5))
    np.testing.assert_allclose(tr.grad(spike(v).sum(), v).numpy(), 1 / (1 + v.numpy() ** 2), rtol=1e-12)
    with pytest.raises(tr.TinyRNNError, match="is wrong at entry"):
        spike.check(normal(3))
    opt = tr.compile(lambda v: tr.grad((spike(v) * 3).sum(), v))
    np.testing.assert_allclose(opt(v.numpy()), 3 / (1 + v.numpy() ** 2), rtol=1e-12)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: tr.custom_gradient(3, right), "forward is int"), (lambda: tr.custom_gradient(softsign, None), "backward is NoneType"),
    (lambda: tr.custom_gradient(lambda x, y: x * y, lambda g, z, x, y: g)(np.ones(2), np.ones(2)), "gives 1 gradients for 2 arguments"),
    (lambda: tr.custom_gradient(lambda x: x.sum(), lambda g, y, x: g)(np.ones(2)), r"gives float64\[\] for argument 0, which is float64\[2\]"),
    (lambda: tr.custom_gradient(lambda x: x * OUTSIDE, lambda g, y, x: g)(np.ones(2)), "reads a tensor that is none of its arguments"),
    (lambda: tr.custom_gradient(lambda x: x * 2, lambda g, y, x: g * OUTSIDE)(np.ones(2)), "reads a tensor that is none of its arguments")])
def test_functions_that_do_not_fit_are_refused(make, message):
    with pytest.raises(tr.TinyRNNError, match=message):
        make()


OUTSIDE = tr.parameter(np.ones(2), "outside")


def test_a_rule_that_is_not_linear_has_no_forward_mode():
    odd = tr.custom_gradient(lambda x: x * 2, lambda g, y, x: g * g)
    x = tr.parameter(np.ones(2))
    with pytest.raises(tr.TinyRNNError, match="not linear in the adjoints"):
        tr.jvp(odd(x), {x: np.ones(2)})


# ---- planted bugs

def test_a_rule_that_is_left_out_is_noticed(monkeypatch):
    monkeypatch.setattr("tinyrnn.passes.ad.control.rule_of", lambda node: None)
    with pytest.raises(AssertionError):
        test_another_gradient_than_the_functions_own_is_taken()


def test_a_transpose_that_is_left_out_is_noticed(monkeypatch):
    monkeypatch.setattr(tangent, "_transposed", lambda node, rule, d: lambda projection: next(iter(d.values())))
    with pytest.raises((AssertionError, tr.TinyRNNError)):
        test_it_is_used_wherever_gradients_are(False)


def test_adjoints_that_are_not_added_up_are_noticed(monkeypatch):
    plain = derivatives.vjp
    monkeypatch.setattr(derivatives, "vjp", lambda y, g, w: plain(*zip(*{n: (n, a) for n, a in zip(y, g, strict=True)}.values(), strict=True), w))
    with pytest.raises(AssertionError):
        test_pull_backs_are_the_complex_steps("the same twice", "no")
