"""`tr.torch.Layer`: PyTorch's own checkers, its layers as oracles, and what PyTorch does with modules."""

import copy
import io
import subprocess
import sys

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import ArgumentError, DTypeError, MissingPackageError, ShapeError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # of the parts of PyTorch that the tests use
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

from tinyrnn.backends.cpu import openmp  # noqa: E402
from tinyrnn.torch import function  # noqa: E402

OWN = "z[t] = sigmoid(W_z @ [h[t-1], x[t]] + b_z)\nh[t] = z[t] * h[t-1] + (1 - z[t]) * tanh(U @ x[t] + layer_norm(V @ h[t-1]))"
LAYERS = {
    "LSTM": lambda: tr.nn.LSTM(2, 3, rng=0, dtype="float64"),
    "GRU, both directions": lambda: tr.nn.GRU(2, 2, bidirectional=True, rng=0, dtype="float64"),
    "own cell": lambda: tr.nn.Recurrent(tr.Cell(OWN), x=2, h=3, rng=0, dtype="float64"),
    "LSTM with layer norm": lambda: tr.nn.LSTM(2, 3, layer_norm=True, rng=0, dtype="float64")}


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def uneven(layer):
    """Weights of which no two are alike, biases included."""
    rng = np.random.default_rng(1)
    for _, t in layer.leaves():
        t.assign(t.numpy() + 0.3 * rng.normal(size=t.shape))
    return layer


def function_of(layer, **options):
    """The outputs and states as a function of x and of the weights."""
    names, weights = zip(*layer.named_parameters(), strict=True)

    def f(x, *weights):
        y, s = torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,), options)
        return y, *(s if isinstance(s, tuple) else (s,))

    return f, tuple(w.detach().clone().requires_grad_() for w in weights)


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [None, [3, 1]])
@pytest.mark.parametrize("name", LAYERS)
def test_pytorchs_checkers(name, lengths):
    layer = tr.torch.Layer(uneven(LAYERS[name]()))
    f, weights = function_of(layer, lengths=lengths)
    given = (drawn(2, 3, 2).requires_grad_(), *weights)
    assert gradcheck(f, given, check_forward_ad=True)
    if lengths or "norm" not in name:  # it takes long
        assert gradgradcheck(f, given, check_fwd_over_rev=True)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_pytorchs_layers_agree(kind):
    """Values, states and gradients of two layers in both directions, whole and packed."""
    ours = uneven(getattr(tr.nn, kind)(3, 4, num_layers=2, bidirectional=True, rng=0, dtype="float64"))
    layer = tr.torch.Layer(ours)
    peer = getattr(torch.nn, kind)(3, 4, num_layers=2, bidirectional=True, batch_first=True, dtype=torch.float64)
    peer.load_state_dict(layer.state_dict())  # under the same names
    x, g, lengths = drawn(5, 7, 3), drawn(5, 7, 8, seed=2), torch.tensor([7, 2, 5, 1, 7])
    xs = [x.clone().requires_grad_() for _ in range(4)]

    def packed(x):
        rows = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, s = peer(rows)
        return torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0], s

    for (y, s), (w, t), x1, x2 in ((layer(xs[0]), peer(xs[1]), *xs[:2]),
                                   (layer(xs[2], lengths=lengths), packed(xs[3]), *xs[2:])):
        torch.testing.assert_close((y, s), (w, t), rtol=0, atol=1e-12)
        for module, out in ((layer, y), (peer, w)):
            module.zero_grad()
            (out * g).sum().backward()
        torch.testing.assert_close(x1.grad, x2.grad, rtol=0, atol=1e-12)
        for (k, p), (_, q) in zip(layer.named_parameters(), peer.named_parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-12, msg=k)


def test_a_state_comes_in_and_goes_out():
    layer = tr.torch.Layer("mgu", x=3, h=4, rng=0, dtype="float64")
    x, h = drawn(2, 6, 3), drawn(2, 4, seed=1).requires_grad_()
    whole, _ = layer(x, state=(h,))
    first, state = layer(x[:, :2], state=(h,))
    second, _ = layer(x[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-12)
    a, = torch.autograd.grad(whole.sum(), h)
    b, = torch.autograd.grad(first.sum() + second.sum(), h)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_masks_and_lists():
    layer = tr.torch.Layer("gru", x=3, h=4, rng=0)
    x = drawn(2, 5, 3, dtype=torch.float32)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], dtype=torch.bool)
    expected = layer(x, mask=mask)[0]
    for lengths in ([5, 2], np.array([5, 2]), torch.tensor([5, 2]), torch.tensor([5, 2], dtype=torch.int32)):
        assert torch.equal(layer(x, lengths=lengths)[0], expected)
    assert layer(x[0])[0].shape == (5, 4)
    for n in (2, 4, 5):  # one sequence, whose length is a number: one function serves all
        np.testing.assert_allclose(layer(x[0], lengths=n)[0].detach()[:n], layer(x[0, :n])[0].detach(), rtol=1e-6)
    (pure,) = layer._models.values()
    assert len(pure._functions) == 5
    assert repr(layer).startswith("Layer(runs: Recurrent of gru)")


def model():
    return tr.nn.Sequential(tr.nn.Embedding(9, 3, padding_idx=0, rng=0), tr.nn.LSTM(3, 4, rng=1), tr.nn.Dropout(0.5),
                            tr.nn.Last(), tr.nn.Linear(4, 2, rng=2))


def test_a_whole_model():
    ours = model().eval()
    ours.layers[1].trainable = False
    layer = tr.torch.Layer(ours)
    assert not layer.training
    assert list(layer.state_dict()) == list(ours.state_dict())
    assert [k for k, _ in layer.named_buffers()] == [k for k in ours.state_dict() if k.startswith("layers.1")]
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (3, 5)))
    y = layer(x, lengths=[5, 1, 3])
    np.testing.assert_allclose(y.detach().numpy(), ours(x.numpy(), lengths=[5, 1, 3]).numpy(), rtol=1e-6)
    y.sum().backward()
    table = layer.get_parameter("layers.0.weight").grad
    assert table[1:].any()
    assert not table[0].any()  # the row that stands for padding
    back = layer.to_tinyrnn()
    np.testing.assert_allclose(back(x.numpy(), lengths=[5, 1, 3]).numpy(), y.detach().numpy(), rtol=1e-6)


def test_dropout_is_drawn_from_pytorchs_generator():
    layer = tr.torch.Layer(tr.nn.Sequential(tr.nn.LSTM(3, 4, recurrent_dropout=0.3, rng=0), tr.nn.Dropout(0.5))).double()
    x = drawn(2, 5, 3).requires_grad_()

    def seeded(x):
        torch.manual_seed(3)
        return layer(x)

    assert torch.equal(seeded(x), seeded(x))
    assert not torch.equal(layer(x), layer(x))
    assert gradcheck(seeded, (x,), check_forward_ad=True)  # all derivatives are those of one mask
    assert gradgradcheck(seeded, (x,))
    layer.eval()
    before = torch.get_rng_state()
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_call_in_evaluation_mode():
    layer = tr.torch.Layer(tr.nn.LSTM(3, 4, rng=0)).eval()
    y, (h, c) = layer(drawn(2, 5, 3, dtype=torch.float32))
    assert (y.shape, h.shape, c.shape) == ((2, 5, 4), (1, 2, 4), (1, 2, 4))


def test_nothing_is_copied():
    t = drawn(2, 5, 3)
    assert np.shares_memory(function.array_of(t), t.numpy())
    array = np.ones(3)
    assert function.tensor_of(array).data_ptr() == array.__array_interface__["data"][0]


def test_odd_memory():
    layer = tr.torch.Layer("mgu", x=3, h=4, rng=0, dtype="float64")
    x = drawn(2, 5, 3)
    y = layer(x)[0]
    for odd in (x.transpose(0, 1).contiguous().transpose(0, 1), drawn(2, 5, 6)[..., ::2].copy_(x), torch.stack([x, x], -1)[..., 0],
                torch._neg_view(-x)):
        torch.testing.assert_close(layer(odd)[0], y, rtol=0, atol=1e-15)
    a, = torch.autograd.grad(layer(x)[0].sum(), layer.W_f)  # an adjoint with strides of 0
    b, = torch.autograd.grad(layer(x)[0], layer.W_f, torch.ones(2, 5, 4, dtype=torch.float64))
    assert torch.equal(a, b)
    assert layer(x[:0])[0].shape == (0, 5, 4)
    assert layer(x[:, :0])[0].shape == (2, 0, 4)


def test_what_is_changed_in_place():
    layer = tr.torch.Layer("mgu", x=3, h=4, rng=0)
    x = drawn(2, 5, 3, dtype=torch.float32).requires_grad_()
    y, _ = layer(x)
    expected, = torch.autograd.grad(y.sum(), x, retain_graph=True)
    y.detach().zero_()  # results are nobody's memory
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)
    y, _ = layer(x)
    with torch.no_grad():
        layer.W_f.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_storage_that_moves_between_forward_and_backward():
    """Into shared memory, and junk where it was: gradients read the numbers where they are then."""
    layer, z = tr.torch.Layer(tr.nn.LSTM(3, 4, rng=0)), drawn(64, 50, 3, dtype=torch.float32)
    expected = torch.autograd.grad(layer(z)[0].square().sum(), list(layer.parameters()))
    y = layer(z)[0].square().sum()
    z.share_memory_()
    layer.share_memory()
    junk = [torch.full((64, 50, 3), 1e3) for _ in range(50)]
    assert torch.equal(torch.stack(junk)[0], junk[0])
    for a, b in zip(torch.autograd.grad(y, list(layer.parameters())), expected, strict=True):
        assert torch.equal(a, b)
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        y = layer(z)[0].square().sum()
        z.zero_()
        for a, b in zip(torch.autograd.grad(y, list(layer.parameters())), expected, strict=True):
            assert torch.equal(a, b)


def test_arrays_of_numpy_are_copied():
    """PyTorch does not see who changes them."""
    layer, x = tr.torch.Layer(tr.nn.LSTM(3, 4, rng=0)), np.random.default_rng(0).normal(size=(2, 5, 3)).astype("f4")
    lengths = np.array([5, 2])
    expected = torch.autograd.grad(layer(x, lengths=lengths)[0].square().sum(), layer.weight_ih_l0)[0]
    y = layer(x, lengths=lengths)[0].square().sum()
    x[:], lengths[:] = 0, 1
    assert torch.equal(torch.autograd.grad(y, layer.weight_ih_l0)[0], expected)
    for odd in (np.ones((2, 5, 3), "f4")[:, ::-1], np.ones((2, 5, 3), ">f4")):
        assert torch.equal(layer(odd)[0], layer(torch.ones(2, 5, 3))[0])


class Own(tr.nn.Module):
    def __init__(self):
        self.layer = tr.nn.GRU(3, 4, rng=0)

    def __call__(self, seq, lengths=None):
        return self.layer(seq, lengths=lengths)[0]


def test_lengths_are_checked_whatever_the_input_is():
    two = tr.torch.Layer(tr.Cell("h[t] = tanh(W @ x[t] + V @ u[t] + U @ h[t-1])"), x=3, u=2, h=4)
    x, u = torch.ones(2, 5, 3), torch.ones(2, 5, 2)
    for call in (lambda n: two((x, u), lengths=n), lambda n: two({"u": u, "x": x}, lengths=n), lambda n: tr.torch.Layer(Own())(x, lengths=n)):
        call([5, 0])
        with pytest.raises(ArgumentError, match="lengths lie between 0 and the number of steps, 5; got"):
            call([9, -2])


def test_modes_and_frozen_weights_of_parts():
    ours = model()
    ours.layers[2].eval()
    layer = tr.torch.Layer(ours)
    assert layer.training
    x = torch.arange(6).reshape(2, 3)
    assert torch.equal(layer(x), layer(x))  # the part that drops stays in evaluation mode
    layer.get_parameter("layers.1.weight_hh_l0").requires_grad_(False)
    assert [k for k, t in layer.to_tinyrnn().leaves() if not t.trainable] == ["layers.1.weight_hh_l0"]


def test_several_runs_wait_for_their_gradients():
    """Saved values of one run are not those of the next."""
    layer = tr.torch.Layer("gru", x=3, h=4, rng=0, dtype="float64")
    xs = [drawn(2, 5, 3, seed=k).requires_grad_() for k in range(4)]
    alone = [torch.autograd.grad(layer(x)[0].square().sum(), x)[0] for x in xs]
    outputs = [layer(x)[0].square().sum() for x in xs]
    for k in (2, 0, 3, 1):
        assert torch.equal(torch.autograd.grad(outputs[k], xs[k], retain_graph=True)[0], alone[k])
        assert torch.equal(torch.autograd.grad(outputs[k], xs[k])[0], alone[k])
    total, = torch.autograd.grad(layer(xs[0])[0].sum() + layer(xs[0][:, :3])[0].sum(), xs[0])
    assert total.shape == (2, 5, 3)


def test_what_is_saved_goes_with_the_backward_pass():
    """As PyTorch's own: a loss that is kept for the records holds nothing, unless the graph is retained."""
    layer = tr.torch.Layer("gru", x=3, h=4, rng=0)
    for retain in (True, False):
        loss = layer(drawn(2, 5, 3, dtype=torch.float32))[0].sum()
        call = loss.grad_fn.next_functions[0][0].call
        loss.backward(retain_graph=True)
        assert call.held is not None
        loss.backward(retain_graph=retain)
        assert (call.held is not None) == retain
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_what_pytorch_does_with_modules(tmp_path):
    layer = tr.torch.Layer(model()).eval()
    x = torch.arange(6).reshape(2, 3)
    y = layer(x)
    again = copy.deepcopy(layer)
    assert torch.equal(again(x), y)
    torch.save(layer, tmp_path / "layer.pt")
    assert torch.equal(torch.load(tmp_path / "layer.pt", weights_only=False)(x), y)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = tr.torch.Layer(tr.nn.Sequential(*model().layers)).eval()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2)
    assert not torch.equal(other(x), y)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), y)
    with torch.no_grad():
        again.get_parameter("layers.4.bias").add_(1)
    assert torch.allclose(again(x), y + 1)  # parameters of its own
    assert torch.equal(layer(x), y)


def test_dtypes():
    layer = tr.torch.Layer("gru", x=3, h=4, rng=0)
    x = drawn(2, 5, 3)
    single = layer(x.float())[0]
    assert single.dtype == torch.float32
    assert layer.double()(x)[0].dtype == torch.float64
    torch.testing.assert_close(layer(x)[0].float(), single)
    assert torch.equal(layer.float()(x.float())[0], single)
    assert layer(x.bfloat16())[0].dtype == torch.float32
    with pytest.raises(DTypeError, match=r"weight 'W_ir' is torch.float16; expected float32 or float64: layer.float\(\)"):
        layer.half()(x)
    layer.float().W_ir.data = layer.W_ir.data.double()
    with pytest.raises(DTypeError, match=r"the weights are of torch[.]float32 and torch[.]float64"):
        layer(x)
    with pytest.raises(DTypeError, match=r"an argument is a tensor of torch[.]complex64"):
        layer.float()(x.to(torch.complex64))


class Rows(torch.utils.data.Dataset):
    """Rows that a layer looked at."""

    def __init__(self, layer):
        self.layer = layer

    def __len__(self):
        return 6

    def __getitem__(self, i):
        with torch.no_grad():
            return self.layer(torch.full((4, 3), float(i)))[0]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_workers_of_a_data_loader():
    layer = tr.torch.Layer("gru", x=3, h=4, rng=0)
    alone = [Rows(layer)[i] for i in range(6)]
    for context in ("fork", "spawn"):
        found = list(torch.utils.data.DataLoader(Rows(layer), batch_size=2, num_workers=2, multiprocessing_context=context))
        assert torch.equal(torch.cat(found), torch.stack(alone))


@pytest.fixture
def threads():
    """Sets PyTorch's threads, for a while."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_training_on_two_threads_is_training_on_one(threads):
    def trained(count):
        threads(count)
        torch.manual_seed(0)
        layer, head = tr.torch.Layer(tr.nn.LSTM(8, 64, rng=0)), torch.nn.Linear(64, 1)
        optimiser = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.01)
        x = drawn(32, 12, 8, dtype=torch.float32)
        losses = []
        for _ in range(15):
            optimiser.zero_grad()
            loss = (head(layer(x)[0][:, -1])[:, 0] - x[:, 0, 0]).square().mean()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses, layer.weight_hh_l0.detach()

    (one, w1), (_, w2) = trained(1), trained(2)
    assert one[-1] < 0.7 * one[0]
    torch.testing.assert_close(w1, w2, rtol=1e-4, atol=1e-5)


needs_openmp = pytest.mark.skipif(sys.platform != "linux", reason="PyTorch brings a GNU OpenMP on Linux")


@needs_openmp
@pytest.mark.parametrize("count", [2, 3, 5])
def test_pytorchs_threads_work_on_our_runs(monkeypatch, threads, count):
    """Also more of them than there are processors; with the bits of one thread."""
    ran, run = [], openmp.OpenMP.run
    monkeypatch.setattr(openmp.OpenMP, "run", lambda self, frame, n: ran.append((run(self, frame, n), n)) or ran[-1][0])
    monkeypatch.setattr(openmp.Pauses, "on", False)
    layer, x = tr.torch.Layer(tr.nn.LSTM(32, 96, rng=0)), drawn(40, 6, 32, dtype=torch.float32).requires_grad_()

    def results():
        y = layer(x)[0]
        return y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])

    threads(1)
    one = results()
    assert not ran
    threads(count)
    for _ in range(3):
        for a, b in zip(one, results(), strict=True):
            assert torch.equal(a, b)
    assert len(ran) == 6
    assert set(ran) == {(True, count)}


@needs_openmp
def test_when_pytorchs_threads_do_not_help(monkeypatch, threads):
    """Very long runs, on a crowded machine, while another run is at it, in a process that was forked: our own threads do."""
    threads(2)
    layer, x = tr.torch.Layer(tr.nn.LSTM(32, 96, rng=0)), drawn(40, 6, 32, dtype=torch.float32)
    expected, ran, run = layer(x)[0], [], openmp.OpenMP.run
    monkeypatch.setattr(openmp.OpenMP, "run", lambda self, frame, n: ran.append(run(self, frame, n)) or ran[-1])
    for owner, name, value in ((openmp, "LONGEST", 0), (openmp.Pauses, "on", True), (function.TEAM, "_process", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            assert torch.equal(layer(x)[0], expected)
    with function.TEAM._lock:
        assert torch.equal(layer(x)[0], expected)
    assert ran == [False] * 4


def test_function_transforms():
    layer = tr.torch.Layer("mgu", x=3, h=4, rng=0, dtype="float64")
    weights, x = dict(layer.named_parameters()), drawn(3, 5, 3)

    def loss(weights, x):
        return torch.func.functional_call(layer, weights, (x,))[0].square().sum()

    rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)  # a gradient for every row
    for k in range(3):
        torch.testing.assert_close({n: g[k] for n, g in rows.items()}, torch.func.grad(loss)(weights, x[k]))

    def of_bias(b):
        return loss({**weights, "b_f": b}, x)

    assert torch.func.vmap(lambda x: layer(x)[0])(x[:0]).shape == (0, 5, 4)
    b = weights["b_f"].detach()
    torch.testing.assert_close(torch.func.jacfwd(of_bias)(b), torch.func.jacrev(of_bias)(b))
    torch.testing.assert_close(torch.func.hessian(of_bias)(b), torch.func.jacrev(torch.func.jacrev(of_bias))(b))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_torch_compile_breaks_its_graph_here():
    layer, head = tr.torch.Layer("mgu", x=3, h=4, rng=0), torch.nn.Linear(4, 2)

    def f(x):
        return torch.tanh(head(torch.relu(layer(torch.sin(x))[0]))).sum()

    x = drawn(2, 5, 3, dtype=torch.float32)
    f(x).backward()
    expected = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    compiled = torch.compile(f, backend="aot_eager")
    torch.testing.assert_close(compiled(x), f(x))
    compiled(x).backward()
    torch.testing.assert_close([p.grad for p in layer.parameters()], expected)
    assert torch._dynamo.explain(f)(x).graph_break_count == 1


def test_checkpoints_of_pytorch():
    layer = tr.torch.Layer(tr.nn.Sequential(tr.nn.LSTM(3, 4, rng=0), tr.nn.Dropout(0.5)))
    x = drawn(2, 5, 3, dtype=torch.float32).requires_grad_()
    torch.manual_seed(0)
    expected, = torch.autograd.grad(layer(x).square().sum(), x)
    torch.manual_seed(0)
    found, = torch.autograd.grad(torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False).square().sum(), x)
    assert torch.equal(found, expected)


def test_on_the_stand_in_for_a_gpu(no_gpu, monkeypatch):
    """Arrays that are on a device go into programs for it, and what comes out stays there: values, gradients of two orders."""
    cupy = sys.modules["cupy"]
    layer, x = tr.torch.Layer("mgu", x=3, h=4, rng=0), drawn(2, 5, 3, dtype=torch.float32).requires_grad_()

    def results():
        y = layer(x, lengths=[5, 2])[0]
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return y, g, *torch.autograd.grad(g.sum(), [x, layer.W_f])

    expected, outputs = results(), []
    monkeypatch.setattr("tinyrnn.torch.layer._backend", lambda device: "cuda")
    monkeypatch.setattr(function, "array_of", lambda t: cupy.asarray(t.numpy(force=True)))
    monkeypatch.setattr(function, "tensor_of", lambda a: outputs.append(type(a)) or torch.from_numpy(cupy.asnumpy(a)))
    for a, b in zip(results(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert set(outputs) == {cupy.ndarray}


def test_back_from_pytorch():
    layer = tr.torch.Layer(model()).double()
    back = tr.io.from_torch(layer)
    assert type(back) is tr.nn.Sequential
    assert {k: v.dtype for k, v in back.state_dict().items()} == dict.fromkeys(layer.state_dict(), np.dtype("float64"))
    for k, v in back.state_dict().items():
        np.testing.assert_array_equal(v, layer.state_dict()[k].numpy())


def test_what_is_refused():
    with pytest.raises(ArgumentError, match="x, h: a LSTM has its sizes and options already"):
        tr.torch.Layer(tr.nn.LSTM(3, 4), x=3, h=4)
    with pytest.raises(ArgumentError, match="takes a Cell or the name of one, got int"):
        tr.torch.Layer(3)
    with pytest.raises(ArgumentError, match="a weight is called 'half', and so is something that every PyTorch module has"):
        tr.torch.Layer(tr.Cell("h[t] = tanh(half @ x[t] + U @ h[t-1])"), x=2, h=2)
    layer = tr.torch.Layer("mgu", x=3, h=4)
    for lengths in ([6, 2], torch.tensor([5, -1])):
        with pytest.raises(ArgumentError, match="lengths lie between 0 and the number of steps, 5; got"):
            layer(torch.ones(2, 5, 3), lengths=lengths)
    with pytest.raises(ArgumentError, match="got 4 to 4"):
        layer(torch.ones(3, 3), lengths=torch.tensor(4))
    with pytest.raises(ShapeError, match="one for each of 2 rows"):
        layer(torch.ones(2, 5, 3), lengths=[1, 2, 3])
    with pytest.raises(ShapeError, match=r"\[2,5,7\]"):
        layer(torch.ones(2, 5, 7))
    with pytest.raises(ArgumentError, match="a PackedSequence is given; give the padded batch and its lengths"):
        layer(torch.nn.utils.rnn.pack_padded_sequence(torch.ones(2, 5, 3), [5, 2], batch_first=True))
    with pytest.raises(ArgumentError, match="tensors are on cpu and on meta: move all of them"):
        layer(torch.ones(2, 5, 3, device="meta"))
    with pytest.raises(ArgumentError, match="tensors are on meta; tinyrnn computes on the CPU and on CUDA GPUs"):
        layer.to("meta")(torch.ones(2, 5, 3, device="meta"))


def test_without_pytorch(tmp_path):
    code = ("import sys; sys.modules['torch'] = None; sys.modules['jax'] = None; import importlib.util as u; find = u.find_spec\n"
            "u.find_spec = lambda name, *a: None if name in ('torch', 'jax') else find(name, *a)\n"
            "import tinyrnn as tr\n"
            "for name in ('torch', 'jax'):\n"
            "    try: getattr(tr, name)\n"
            "    except tr.TinyRNNError as error: print(type(error).__name__, error)\n")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == [
        f'{MissingPackageError.__name__} tr.{name} needs {spoken}, which is not installed: pip install "tinyrnn[{name}]"'
        for name, spoken in (("torch", "PyTorch"), ("jax", "JAX"))]
