"""Weights from PyTorch and back: the living library as oracle, random options, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import tinyrnn as tr
from tinyrnn.cells import Cell
from tinyrnn.errors import ArgumentError, LoadError
from tinyrnn.exchange import frameworks

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:dropout option adds dropout", "ignore:dropout=.* acts between layers")


def uneven(module, seed=0):
    """Weights of which no two are alike."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=p.shape)))
    return module.eval()


def drawn(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def leaves(tree):
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, tuple) else [tree]


def agree(module, layer, x):
    theirs, ours = leaves(module(torch.from_numpy(x))), leaves(layer(x))
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(b.numpy(), a.detach().numpy(), rtol=0, atol=1e-12)


def same_state(a, b):
    assert list(a.state_dict()) == list(b.state_dict())
    for k, v in a.state_dict().items():
        assert torch.equal(v, b.state_dict()[k]), k


@settings(deadline=None, max_examples=25)
@given(kind=some.sampled_from(["RNN", "LSTM", "GRU"]), x=some.integers(1, 4), h=some.integers(2, 5), layers=some.integers(1, 3),
       bias=some.booleans(), batch_first=some.booleans(), bidirectional=some.booleans(), dropout=some.sampled_from([0.0, 0.3]),
       relu=some.booleans(), projected=some.booleans(), seed=some.integers(0, 99))
def test_round_trips(kind, x, h, layers, bias, batch_first, bidirectional, dropout, relu, projected, seed):
    own = {"nonlinearity": "relu" if relu else "tanh"} if kind == "RNN" else {"proj_size": h - 1 if projected else 0} if kind == "LSTM" else {}
    options = dict(num_layers=layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional, dropout=dropout, **own)
    module = uneven(getattr(torch.nn, kind)(x, h, dtype=torch.float64, **options), seed)
    layer = tr.io.from_torch(module)
    assert {k: getattr(layer, k) for k in options} == options
    agree(module, layer, drawn(3, 5, x) if batch_first else drawn(5, 3, x))
    again = tr.io.to_torch(layer)
    assert type(again) is type(module)
    assert {k: getattr(again, k) for k in options} == options
    same_state(module, again)
    if kind != "RNN":
        found = tr.io.from_torch({f"encoder.{k}": v for k, v in module.state_dict().items()})  # what it is follows from the names
        expected = {k: v.numpy() for k, v in layer.leaves()}
        assert {k: v for k, v in found.config().items() if k not in ("batch_first", "dropout")} == {
            k: v for k, v in layer.config().items() if k not in ("batch_first", "dropout")}
        for k, v in found.leaves():
            np.testing.assert_array_equal(v.numpy(), expected[k])


@pytest.mark.parametrize("make", [lambda: torch.nn.RNNCell(3, 4, nonlinearity="relu"), lambda: torch.nn.LSTMCell(3, 4, bias=False),
                                  lambda: torch.nn.GRUCell(3, 4)])
def test_cells(make):
    cell = uneven(make().double())
    layer = tr.io.from_torch(cell).eval()
    x, states = drawn(2, 3), [drawn(2, 4, seed=k) for k in range(2 if isinstance(cell, torch.nn.LSTMCell) else 1)]
    tensors = tuple(map(torch.from_numpy, states))
    expected = leaves(cell(torch.from_numpy(x), tensors if len(tensors) > 1 else tensors[0]))
    y, state = layer.step(x, tuple(s[None] for s in states) if len(states) > 1 else states[0][None])
    for a, b in zip(expected, leaves(state), strict=True):
        np.testing.assert_allclose(b.numpy()[0], a.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(y.numpy(), expected[0].detach().numpy(), atol=1e-12)


def parts():
    return [torch.nn.Embedding(9, 4, padding_idx=2), torch.nn.Linear(4, 3), torch.nn.LayerNorm(3, eps=1e-3), torch.nn.Tanh(),
            torch.nn.Dropout(0.4), torch.nn.Linear(3, 5, bias=False), torch.nn.ELU(), torch.nn.LayerNorm(5, bias=False), torch.nn.Softmax(-1)]


def test_a_sequential_of_plain_layers():
    module = uneven(torch.nn.Sequential(*parts()).double())
    module[1].weight.requires_grad_(False)
    layer = tr.io.from_torch(module)
    x = np.random.default_rng(0).integers(0, 9, (2, 5))
    agree(module, layer, x)
    assert not layer.layers[1].weight.trainable
    assert layer.layers[1].bias.trainable
    assert layer.layers[0].padding_idx == 2
    again = tr.io.to_torch(layer)
    same_state(module, again)
    assert str(again) == str(module)
    assert not again[1].weight.requires_grad
    assert not again.training


@settings(deadline=None, max_examples=15)
@given(order=some.permutations(range(1, 4)), seed=some.integers(0, 99), bidirectional=some.booleans())
def test_a_sequential_with_recurrent_layers(order, seed, bidirectional):
    """PyTorch cannot run it as it stands, but hold its weights."""
    width = 4 * (1 + bidirectional)
    made = {1: torch.nn.LayerNorm(width), 2: torch.nn.Dropout(0.2), 3: torch.nn.ReLU()}
    module = uneven(torch.nn.Sequential(torch.nn.Embedding(7, 3), torch.nn.LSTM(3, 4, batch_first=True, bidirectional=bidirectional),
                                        *(made[k] for k in order), torch.nn.Linear(width, 2)).double(), seed)
    layer = tr.io.from_torch(module)
    x = np.random.default_rng(seed).integers(0, 7, (2, 5))
    y = module[0](torch.from_numpy(x))
    y, _ = module[1](y)
    for part in module[2:]:
        y = part(y)
    np.testing.assert_allclose(layer(x).numpy(), y.detach().numpy(), atol=1e-12)
    same_state(module, tr.io.to_torch(layer))


def test_into_a_model_like_ours(tmp_path):
    """From a state dict, and from a file, where our model says what the weights belong to."""
    import safetensors.torch

    module = uneven(torch.nn.Sequential(torch.nn.Embedding(7, 3), torch.nn.RNN(3, 4, nonlinearity="relu", batch_first=True),
                                        torch.nn.Linear(4, 2)).double())
    ours = tr.nn.Sequential(tr.nn.Embedding(7, 3, dtype="float64"), tr.nn.RNN(3, 4, nonlinearity="relu", dtype="float64"),
                            tr.nn.Linear(4, 2, dtype="float64"))
    before = ours.state_dict()
    safetensors.torch.save_file(module.state_dict(), tmp_path / "m.safetensors")
    for source in (module.state_dict(), tmp_path / "m.safetensors", str(tmp_path / "m.safetensors")):
        model = tr.io.from_torch(source, like=ours)
        for (k, v), (_, w) in zip(model.leaves(), module.state_dict().items(), strict=True):
            np.testing.assert_array_equal(v.numpy(), w.numpy(), err_msg=k)
    for k, v in ours.leaves():
        np.testing.assert_array_equal(v.numpy(), before[k])  # a copy was filled
    wrapped = tr.io.from_torch(torch.nn.DataParallel(module).state_dict(), like=ours)
    np.testing.assert_array_equal(wrapped.layers[2].bias.numpy(), module[2].bias.detach().numpy())
    with pytest.raises(LoadError, match=r"unknown 3\.weight"):
        tr.io.from_torch({**module.state_dict(), "3.weight": torch.ones(2)}, like=ours)
    with pytest.raises(LoadError, match=r"missing layers\.2\.bias"):
        tr.io.from_torch({k: v for k, v in module.state_dict().items() if k != "2.bias"}, like=ours)
    with pytest.raises(LoadError, match="a RNN takes bias_hh_l0"):
        tr.io.from_torch({k: v for k, v in module.state_dict().items() if "bias_hh" not in k}, like=ours)


def test_layers_and_weights_that_are_shared():
    a = torch.nn.Linear(3, 3)
    layer = tr.io.from_torch(torch.nn.Sequential(a, torch.nn.Tanh(), a))
    assert layer.layers[0] is layer.layers[2]
    assert len(list(tr.io.to_torch(layer).parameters())) == 2
    module = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False))
    module[1].weight = module[0].weight
    ours = tr.nn.Sequential(tr.nn.Embedding(5, 3), tr.nn.Linear(3, 5, bias=False))
    ours.layers[1].weight = ours.layers[0].weight
    found = tr.io.from_torch(module.state_dict(), like=ours)
    np.testing.assert_array_equal(found.layers[1].weight.numpy(), module[1].weight.detach().numpy())
    with pytest.raises(LoadError, match="are one weight of this model, and the given ones differ"):
        tr.io.from_torch({**module.state_dict(), "1.weight": torch.ones(5, 3)}, like=ours)


def test_modes_of_parts_and_frozen_layers():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    module[1].eval()
    layer = tr.io.from_torch(module)
    assert [m.training for m in (layer, *layer.layers)] == [True, True, False]
    back = tr.io.to_torch(layer)
    assert [m.training for m in (back, *back)] == [True, True, False]
    for ours in (tr.nn.Bidirectional(tr.nn.LSTM(2, 3)), tr.nn.Recurrent("gru", x=2, h=3), tr.nn.GRU(2, 3)):
        ours.trainable = False
        assert not any(p.requires_grad for p in tr.io.to_torch(ours).parameters())


class Tagger(tr.nn.Module):
    """A model of one's own with the names of one in PyTorch."""

    def __init__(self):
        self.embed = tr.nn.Embedding(7, 3, dtype="float64", rng=0)
        self.lstm = tr.nn.LSTM(3, 4, dtype="float64", rng=0)
        self.head = tr.nn.Linear(4, 2, dtype="float64", rng=0)

    def __call__(self, x):
        return self.head(self.lstm(self.embed(x))[0])


class Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.head = torch.nn.Embedding(7, 3), torch.nn.LSTM(3, 4, batch_first=True), torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.lstm(self.embed(x))[0])


def test_models_of_ones_own():
    module = uneven(Theirs().double())
    with pytest.raises(ArgumentError, match="Theirs is a class of its own, whose forward may do anything: convert its parts, or give like="):
        tr.io.from_torch(module)
    for source in (module, module.state_dict()):
        agree(module, tr.io.from_torch(source, like=Tagger()), np.random.default_rng(0).integers(0, 7, (2, 5)))


OWN_LSTM = """
i[t] = sigmoid(A_i @ [h[t-1], x[t]] + a_i)
u[t] = tanh(A_u @ [h[t-1], x[t]] + a_u)
f[t] = sigmoid(A_f @ [h[t-1], x[t]] + a_f)
o[t] = sigmoid(A_o @ [h[t-1], x[t]] + a_o)
m[t] = f[t] * m[t-1] + i[t] * u[t]
h[t] = o[t] * tanh(m[t])
outputs: h
"""


@pytest.mark.parametrize(("text", "kind"), [
    (OWN_LSTM, "LSTM"), ("h[t] = relu(A @ x[t] + B @ h[t-1] + b)", "RNN"), ("h[t] = tanh(A @ x[t] + B @ h[t-1] + b)", "RNN"),
    (tr.cells["gru"].text, "GRU")])
def test_cells_of_ones_own_that_are_theirs(text, kind):
    """Other names, other order of gates, matrices joined: the proof finds what corresponds."""
    layer = tr.nn.Recurrent(tr.Cell(text), x=3, h=4, **({"m": 4} if "m[t]" in text and "m" in tr.Cell(text).sizes else {}), rng=0, dtype="float64")
    for k, v in layer.weights.items():
        v.assign(drawn(*v.shape, seed=len(k)))
    module = tr.io.to_torch(layer)
    assert type(module).__name__ == kind
    x = drawn(2, 5, 3)
    np.testing.assert_allclose(module(torch.from_numpy(x))[0].detach().numpy(), layer(x)[0].numpy(), atol=1e-12)


def test_what_has_no_counterpart_says_where_it_differs():
    for layer, message in ((tr.nn.LSTM(3, 4, peephole=True), r"in the equation of i\[t\] they differ by -c\[t-1\] \* p_i"),
                           (tr.nn.GRU(3, 4, reset="before"), r"in the equation of n\[t\] they differ by"),
                           (tr.nn.RNN(3, 4, nonlinearity="softplus"), "are not proved to be the same function"),
                           (tr.nn.Recurrent("mgu", x=3, h=4), "are not proved to be the same function"),
                           (tr.nn.Recurrent("indrnn", x=3, h=4), "are not proved to be the same function"),
                           (tr.nn.GRU(3, 4, update="new"), r"they differ by"),
                           (tr.nn.LSTM(3, 4, zoneout=0.1), "a LSTM with zoneout has no counterpart in torch.nn"),
                           (tr.nn.LSTM(3, 4, reverse=True), "reverse=True has no counterpart"),
                           (tr.nn.Bidirectional(tr.nn.GRU(3, 4, reverse=True)), "read forwards and backwards"),
                           (tr.nn.LSTM(3, 4, learn_state=True), "whose first state is trained"),
                           (tr.nn.Last(), r"Last has no counterpart in torch.nn; tr.torch.Layer\(layer\) runs it inside of PyTorch"),
                           (tr.nn.Dropout(0.1, shared_axes=1), "shared_axes"),
                           (tr.nn.Activation("exp"), r"Activation\('exp'\) has no counterpart")):
        with pytest.raises(ArgumentError, match=message):
            tr.io.to_torch(layer)


def altered(name, old, new):
    """A layer of PyTorch as if its file said something else."""
    right = frameworks.foreign(name)
    text = right.cell.text
    assert old in text
    cell = Cell(text.replace(old, new), name)
    return frameworks.Foreign(cell, frameworks.ArrayLayout(cell, [h[len("layout:"):] for h in cell.system.header if h.startswith("layout:")]))


@pytest.mark.parametrize("made", [lambda: torch.nn.LSTM(3, 4), lambda: torch.nn.GRU(3, 4)])
def test_other_equations_cannot_come_in(monkeypatch, made):
    wrong = {"LSTM": altered("torch_lstm", "+ i[t] * g[t]", "+ i[t] * g[t] * o[t]"),
             "GRU": altered("torch_gru", "(W_hn @ h[t-1] + b_hn)", "(W_hn @ h[t-1]) + b_hn")}
    monkeypatch.setattr("tinyrnn.exchange.from_torch.theirs_of", lambda layer: wrong[type(layer).__name__])
    with pytest.raises(ArgumentError, match=r"these weights cannot become those of a \w+:.*are not proved to be the same function"):
        tr.io.from_torch(made())


@pytest.mark.parametrize(("kind", "old", "new"), [
    ("LSTM", "[W_ii; W_if; W_ig; W_io]", "[W_ii; W_if; W_io; W_ig]"), ("LSTM", "[b_hi, b_hf, b_hg, b_ho]", "[b_hf, b_hi, b_hg, b_ho]"),
    ("GRU", "[W_hr; W_hz; W_hn]", "[W_hz; W_hr; W_hn]"), ("GRU", "[b_ir, b_iz, b_in]", "[b_iz, b_ir, b_in]")])
def test_a_wrong_layout_would_be_seen(monkeypatch, kind, old, new):
    """These very tests see gates in another order."""
    module = uneven(getattr(torch.nn, kind)(3, 4, batch_first=True).double())
    monkeypatch.setattr("tinyrnn.exchange.from_torch.theirs_of", lambda layer: altered(f"torch_{kind.lower()}", old, new))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        agree(module, tr.io.from_torch(module), drawn(2, 5, 3))


class MyLSTM(torch.nn.LSTM):
    pass


def test_what_is_refused(tmp_path):
    lstm = torch.nn.LSTM(3, 4)
    for source, message in (
            (MyLSTM(3, 4), "MyLSTM is a class of its own"), (torch.nn.Conv1d(2, 2, 1), "Conv1d is not one of those that are known"),
            (torch.nn.Embedding(5, 3, max_norm=1.0), "max_norm"), (torch.nn.LayerNorm([2, 3]), r"LayerNorm\(\[2, 3\]"),
            (torch.nn.LayerNorm(3, elementwise_affine=False), "elementwise_affine=False"), (torch.nn.Softmax(0), r"Softmax\(dim=0\)"),
            (torch.nn.GELU(), "approximate='none'"), (torch.nn.RNN(3, 4).state_dict(), "tanh or with relu: give like="),
            (torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).state_dict(), "what stands between them: give like="),
            (torch.nn.Embedding(3, 2).state_dict(), "give like="), ({}, "does not say what its layers are")):
        with pytest.raises(ArgumentError, match=message):
            tr.io.from_torch(source)
    state = {k: v.detach() for k, v in lstm.state_dict().items()}
    for changed, message in (
            ({"weight_hh_l0": torch.ones(16, 5)}, "which is no RNN, GRU or LSTM of 5 units"), ({"weight_hh_l0": torch.ones(12, 4)}, "do not fit together"),
            ({"bias_ih_l0": torch.ones(15)}, "do not fit together"), ({"bias_ih_l0": torch.ones(16, 1)}, "do not fit together"),
            ({"bias_ih_l0": torch.ones(16).double()}, "are float32 and float64; expected one floating dtype"), ({"weight_ih_l0": torch.ones(16)}, "are matrices"),
            ({"weight_ih_l1": torch.ones(16, 4)}, "are not the weights of one LSTM"), ({"weight_ih_l9999999": torch.ones(16, 4)}, "are not the weights of one LSTM"),
            ({"extra": torch.ones(1)}, "are not the weights of one LSTM"), ({"bias_ih_l0": np.array(["a"])}, "expected numbers")):
        with pytest.raises(LoadError, match=message):
            tr.io.from_torch({**state, **changed})
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(LoadError, match=r"not a safetensors file. A .pt or .pth file is a pickle, which may run code: from_torch\(torch.load"):
        tr.io.from_torch(tmp_path / "m.pt")
    half = tr.io.from_torch({k: v.bfloat16() for k, v in state.items()})
    assert half.weight_ih_l0.dtype == np.float32
