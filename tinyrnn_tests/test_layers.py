"""Every layer and option against PyTorch where it has them, against plain loops where it has not."""

import importlib.util

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.nn import noise
from tinyrnn.nn.packed import Packed
from tinyrnn.trees import flatten

from . import loops
from .oracles import assert_close

B, T, X, H = 4, 5, 3, 6
LENGTHS = np.array([3, 5, 0, 4])
live = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


def shaken(layer, rng=0):
    """Random unequal weights."""
    generator = np.random.default_rng(rng)
    for t in layer.parameters():
        t.assign(generator.normal(scale=0.7, size=t.shape) + (1.0 if "gain" in t.name else 0.0))
    return layer


def holes(rng=1):
    """A mask with holes, with a row that is all padding."""
    mask = np.random.default_rng(rng).random((B, T)) < 0.6
    mask[2] = False
    return mask


def check_against_loop(layer, step, states, valid=None, x_scale=1.0):
    """Outputs, final states and a random direction of all gradients, by complex step through the loop."""
    rng = np.random.default_rng(7)
    values = {"x": x_scale * rng.normal(size=(B, T, X)), **{f"s{i}": rng.normal(size=(B, n)) for i, n in enumerate(states)},
              **layer.state_dict()}
    out_shapes = [(B, T, states[0]), *((B, n) for n in states)]
    cotangents = [rng.normal(size=s) for s in out_shapes]

    def plain(values):
        p = {k.removesuffix("_l0"): v for k, v in values.items()}
        y, end = loops.run(lambda x, *s: step(x, *s, p), values["x"], tuple(values[f"s{i}"] for i in range(len(states))), valid)
        return [y, *end]

    leaves = {k: tr.parameter(v) for k, v in values.items() if k == "x" or k.startswith("s")}
    state = tuple(leaves[f"s{i}"].reshape(1, B, n) for i, n in enumerate(states))
    y, end = layer(leaves["x"], state if len(state) > 1 else state[0], mask=valid)
    found = [y, *(e[0] for e in (end if isinstance(end, tuple) else (end,)))]
    for a, b in zip(found, plain(values), strict=True):
        assert_close(a.numpy(), b, 1e-12)
    loss = sum((f * c).sum() for f, c in zip(found, cotangents, strict=True))
    wanted = {**leaves, **dict(layer.named_parameters())}
    grads = {k: g.numpy() for k, g in tr.grad(loss, wanted).items()}
    direction = {k: rng.normal(size=v.shape) for k, v in values.items()}
    moved = plain({k: v + 1e-100j * direction[k] for k, v in values.items()})
    expected = sum((np.imag(m) / 1e-100 * c).sum() for m, c in zip(moved, cotangents, strict=True))
    assert_close(sum((grads[k] * direction[k]).sum() for k in values), expected, 1e-11)


LSTMS = {"plain": {}, "peephole": {"peephole": True}, "coupled": {"coupled": True}, "projection": {"proj_size": 2},
         "layer norm": {"layer_norm": True}, "clip": {"clip": 0.4}, "cell clip": {"cell_clip": 0.3},
         "coupled peephole": {"coupled": True, "peephole": True},
         "all": {"peephole": True, "proj_size": 4, "layer_norm": True, "clip": 0.8, "cell_clip": 0.7}}


@pytest.mark.parametrize("mask", [None, holes()], ids=["whole", "holes"])
@pytest.mark.parametrize("name", LSTMS)
def test_lstm_options_against_a_loop(name, mask):
    options = LSTMS[name]
    layer = shaken(tr.nn.LSTM(X, H, dtype="float64", **options))
    check_against_loop(layer, lambda x, h, c, p: loops.lstm_step(x, h, c, p, **options),
                       [options.get("proj_size") or H, H], mask)


@pytest.mark.parametrize("mask", [None, holes()], ids=["whole", "holes"])
@pytest.mark.parametrize("update", ["old", "new"])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_gru_conventions_against_a_loop(reset, update, mask):
    layer = shaken(tr.nn.GRU(X, H, reset=reset, update=update, dtype="float64"))
    check_against_loop(layer, lambda x, h, p: loops.gru_step(x, h, p, reset=reset, update=update), [H], mask)


def test_every_option_changes_the_output():
    """Two layers that differ in one option must differ: an option that is read and forgotten would pass the loops."""
    x = np.random.default_rng(0).normal(size=(B, T, X))
    seen = {}
    for name, options in LSTMS.items():
        if "coupled" not in options and "proj_size" not in options:
            layer = shaken(tr.nn.LSTM(X, H, dtype="float64", **options))
            for k in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                getattr(layer, k).assign(shaken(tr.nn.LSTM(X, H, dtype="float64")).state_dict()[k])
            seen[name] = layer(x)[0].numpy()
    names = list(seen)
    for i, a in enumerate(names):
        assert all(not np.allclose(seen[a], seen[b]) for b in names[i + 1 :])


@live
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, True), (3, False)])
def test_projection_against_torch(layers, both, ragged):
    import torch
    net = torch.nn.LSTM(X, H, layers, batch_first=True, bidirectional=both, proj_size=2).double()
    layer = tr.nn.LSTM(X, H, num_layers=layers, bidirectional=both, proj_size=2, dtype="float64")
    rng, n, lengths = np.random.default_rng(0), layers * (1 + both), np.array([3, 5, 1, 4])
    state = {k: rng.normal(size=v.shape) for k, v in net.state_dict().items()}
    net.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    layer.load_state_dict(state)
    x, h, c = rng.normal(size=(B, T, X)), rng.normal(size=(n, B, 2)), rng.normal(size=(n, B, H))
    given = torch.tensor(x)
    if ragged:
        given = torch.nn.utils.rnn.pack_padded_sequence(given, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    y, end = net(given, (torch.tensor(h), torch.tensor(c)))
    if ragged:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=T)
    found, after = layer(x, (h, c), lengths=lengths if ragged else None)
    w = [rng.normal(size=t.shape) for t in (y, *end)]
    sum((a * torch.tensor(b)).sum() for a, b in zip((y, *end), w, strict=True)).backward()
    loss = sum((a * b).sum() for a, b in zip((found, *after), w, strict=True))
    for a, b in zip((found, *after), (y, *end), strict=True):
        assert_close(a.numpy(), b.detach().numpy(), 1e-10)
    for (k, g), p in zip(tr.grad(loss, dict(layer.named_parameters())).items(), net.parameters(), strict=True):
        assert_close(g.numpy(), p.grad.numpy(), 1e-10, k)


# ---- noise

def recorded(monkeypatch):
    """Masks drawn by layers, kept for the loop."""
    drawn, rng = [], np.random.default_rng(3)

    def draw(shape, p, own):
        drawn.append(rng.random(shape) < p)
        return tr.tensor(drawn[-1])

    monkeypatch.setattr(noise, "keep_mask", draw)
    return drawn


@pytest.mark.parametrize("training", [True, False])
def test_zoneout_against_a_loop(monkeypatch, training):
    """Krueger et al.: both states are mixed with their old values; h is computed from the new c."""
    layer = shaken(tr.nn.LSTM(X, H, zoneout={"h": 0.3, "c": 0.6}, dtype="float64")).train(training)
    drawn, rng = recorded(monkeypatch), np.random.default_rng(0)
    x, h, c = rng.normal(size=(B, T, X)), rng.normal(size=(B, H)), rng.normal(size=(B, H))
    y, (hn, cn) = layer(x, (h[None], c[None]))
    keep = [d.astype(float) for d in drawn] if training else [np.full((T, B, H), 0.3), np.full((T, B, H), 0.6)]
    p = {k.removesuffix("_l0"): v for k, v in layer.state_dict().items()}
    expected, end = loops.run(lambda x, h, c: loops.lstm_step(x, h, c, p), x, (h, c), keep=keep)
    for a, b in zip((y, hn[0], cn[0]), (expected, *end), strict=True):
        assert_close(a.numpy(), b, 1e-13)
    if training:
        assert [d.shape for d in drawn] == [(T, B, H)] * 2


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU before", "Recurrent"])
def test_recurrent_dropout_against_a_loop(monkeypatch, kind):
    """One mask for all steps, inside products only."""
    if kind == "Recurrent":
        layer = tr.nn.Recurrent(tr.cells["rnn"], x=X, h=H, recurrent_dropout=0.4, dtype="float64", rng=0)
    else:
        options = {"reset": "before"} if kind.endswith("before") else {}
        layer = shaken(getattr(tr.nn, kind[:4].strip())(X, H, recurrent_dropout=0.4, dtype="float64", **options))
    drawn, x = recorded(monkeypatch), np.random.default_rng(0).normal(size=(B, T, X))
    y = layer(x)[0].numpy()
    (mask,) = [d / 0.6 for d in drawn]
    assert mask.shape == (B, H)
    p, zero = {k.removesuffix("_l0"): v for k, v in layer.state_dict().items()}, np.zeros((B, H))
    steps = {"LSTM": lambda x, h, c: loops.lstm_step(x, h, c, p, mask=mask), "GRU": lambda x, h: loops.gru_step(x, h, p, mask=mask),
             "GRU before": lambda x, h: loops.gru_step(x, h, p, reset="before", mask=mask),
             "Recurrent": lambda x, h: np.tanh(x @ p["W_ih"].T + p["b_ih"] + (mask * h) @ p["W_hh"].T + p["b_hh"])}
    expected, _ = loops.run(steps[kind], x, (zero, zero) if kind == "LSTM" else (zero,))
    assert_close(y, expected, 1e-13)
    plain, again = layer.eval()(x)[0].numpy(), layer(x)[0].numpy()
    np.testing.assert_array_equal(plain, again)
    assert not np.allclose(plain, y)


def test_same_seed_same_masks_on_every_backend():
    x = np.random.default_rng(0).integers(0, 9, (20, 6))
    states = []
    for backend in ("numpy", "cpu"):
        model = tr.nn.Sequential(tr.nn.Embedding(9, 4, rng=0), tr.nn.Dropout(0.2, shared_axes=1),
                                 tr.nn.LSTM(4, 8, num_layers=2, dropout=0.3, zoneout=0.1, recurrent_dropout=0.2, rng=1, dtype="float64"),
                                 tr.nn.Linear(8, 9, rng=2, dtype="float64"))
        model.fit(x, (x + 1) % 9, optimizer=tr.optim.Adam(0.01), epochs=3, rng=5, backend=backend)
        states.append(model.state_dict())
    for k, v in states[0].items():
        np.testing.assert_allclose(states[1][k], v, rtol=1e-5, atol=1e-6)


def test_mistakes_in_noise():
    for make, message in ((lambda: tr.nn.LSTM(2, 3, zoneout=1.0), "zoneout of h is 1.0"),
                          (lambda: tr.nn.GRU(2, 3, zoneout={"c": 0.1}), "no state 'c'; it has h"),
                          (lambda: tr.nn.GRU(2, 3, recurrent_dropout=-1), "recurrent_dropout is -1"),
                          (lambda: tr.nn.Recurrent(tr.cells["indrnn"], x=2, h=3, recurrent_dropout=0.1), "no state of cell indrnn"),
                          (lambda: tr.nn.GRU(2, 3, recurrent_dropout=0.1).step(np.ones((1, 2))), "one mask for all steps"),
                          (lambda: tr.nn.Dropout(0.5, shared_axes=1).step(np.ones((1, 2))), "one mask for all steps"),
                          (lambda: tr.nn.Dropout(0.5, shared_axes=3)(np.ones((1, 2))), "shares its mask along the axes"),
                          (lambda: tr.nn.LSTM(2, 3, proj_size=3), "expected less than hidden_size=3"),
                          (lambda: tr.nn.LSTM(2, 3, clip=0), "clip=0"),
                          (lambda: tr.nn.GRU(2, 3, reset="behind"), "'after' or 'before'"),
                          (lambda: tr.nn.LSTM(2, 3, reverse=True, bidirectional=True), "reads both ways"),
                          (lambda: tr.nn.LSTM(2, 3, reverse=True).step(np.ones((1, 2))), "a reversed layer reads the future")):
        with pytest.raises(tr.TinyRNNError, match=message):
            make()


# ---- shapes and batches

def layers():
    yield tr.nn.LSTM(X, H, num_layers=2, bidirectional=True, learn_state=True, dtype="float64", rng=0)
    yield tr.nn.GRU(X, H, reverse=True, dtype="float64", rng=0)
    yield tr.nn.Recurrent(tr.cells["lstm_peephole"], x=X, h=H, dtype="float64", rng=0)
    yield tr.nn.Bidirectional(tr.nn.Recurrent(tr.cells["mgu"], x=X, h=H, dtype="float64", rng=0), "sum", rng=1)


@pytest.mark.parametrize("layer", list(layers()), ids=lambda layer: type(layer).__name__)
def test_rows_do_not_see_each_other(layer):
    """Unbatched equals batched, padded equals one by one, a permuted batch gives permuted outputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, T, X))
    for lengths in (None, np.array([3, 5, 1, 4])):
        y, state = layer(x, lengths=lengths)
        order = rng.permutation(B)
        np.testing.assert_allclose(layer(x[order], lengths=None if lengths is None else lengths[order])[0].numpy(),
                                   y.numpy()[order], rtol=1e-13)
        for row in range(B):
            n = T if lengths is None else lengths[row]
            alone, after = layer(x[row, :n])
            np.testing.assert_allclose(alone.numpy(), y.numpy()[row, :n], rtol=1e-12, atol=1e-14)
            batched = flatten(state)[0]
            axis = 1 if isinstance(layer, Packed) else 0
            for a, b in zip(flatten(after)[0], batched, strict=True):
                np.testing.assert_allclose(a.numpy(), np.take(b.numpy(), row, axis), rtol=1e-12, atol=1e-14)


def test_state_in_and_out_without_batch():
    layer, x = tr.nn.LSTM(X, H, dtype="float64", rng=0), np.random.default_rng(0).normal(size=(T, X))
    whole, end = layer(x)
    first, state = layer(x[:2])
    second, after = layer(x[2:], state)
    np.testing.assert_allclose(np.concatenate([first.numpy(), second.numpy()]), whole.numpy(), rtol=1e-13)
    assert [s.shape for s in after] == [(1, H)] * 2
    np.testing.assert_allclose(after[1].numpy(), end[1].numpy(), rtol=1e-13)
    masked = layer(x, mask=np.arange(T) < 3)[0].numpy()
    np.testing.assert_allclose(masked, np.where((np.arange(T) < 3)[:, None], whole.numpy(), 0), rtol=1e-13)
    np.testing.assert_array_equal(layer(x, lengths=3)[0].numpy(), masked)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "mean", None])
def test_bidirectional_merges(merge):
    """A Bidirectional layer is PyTorch's bidirectional layer where outputs stand side by side."""
    both = shaken(tr.nn.LSTM(X, H, bidirectional=True, dtype="float64"))
    layer = tr.nn.Bidirectional(tr.nn.LSTM(X, H, dtype="float64"), merge)
    weights = both.state_dict()
    layer.load_state_dict({f"{side}.{k.removesuffix('_reverse')}": v for k, v in weights.items()
                           for side in (["backward"] if k.endswith("_reverse") else ["forward"])})
    x = np.random.default_rng(0).normal(size=(B, T, X))
    y, (after, before) = layer(x, lengths=LENGTHS)
    whole, end = both(x, lengths=LENGTHS)
    f, b = np.split(whole.numpy(), 2, -1)
    expected = {"concat": whole.numpy(), "sum": f + b, "mul": f * b, "mean": (f + b) / 2, None: None}[merge]
    if merge is None:
        np.testing.assert_array_equal(y[0].numpy(), f)
        np.testing.assert_array_equal(y[1].numpy(), b)
    else:
        np.testing.assert_array_equal(y.numpy(), expected)
    for i in range(2):
        np.testing.assert_array_equal(np.concatenate([after[i].numpy(), before[i].numpy()]), end[i].numpy())


def test_mistakes_in_bidirectional():
    for make, message in ((lambda: tr.nn.Bidirectional(tr.nn.Linear(2, 3)), "got Linear"),
                          (lambda: tr.nn.Bidirectional(tr.nn.GRU(2, 3), "max"), "merge='max'"),
                          (lambda: tr.nn.Bidirectional(tr.nn.GRU(2, 3, bidirectional=True)), "reads both ways"),
                          (lambda: tr.nn.Bidirectional(tr.nn.GRU(2, 3))(np.ones((1, 2, 2)), np.ones(3)), "is a pair")):
        with pytest.raises(tr.TinyRNNError, match=message):
            make()


def test_learned_initial_state():
    """Its gradient is that of a given state, summed over the batch; zero-length rows hand it on."""
    layer = tr.nn.GRU(X, H, learn_state=True, dtype="float64", rng=0)
    start = np.random.default_rng(1).normal(size=H)
    layer.h0_l0.assign(start)
    x = np.random.default_rng(0).normal(size=(B, T, X))
    given = tr.parameter(np.broadcast_to(start, (1, B, H)))
    y, end = layer(x, lengths=LENGTHS)
    z, _ = layer(x, given, lengths=LENGTHS)
    assert_close(y.numpy(), z.numpy(), 1e-13)  # a broadcast start may be multiplied in another order than a whole one
    np.testing.assert_array_equal(end.numpy()[0, 2], start)
    g, wide = tr.grad((y * y).sum(), layer.h0_l0), tr.grad((z * z).sum(), given)
    assert_close(g.numpy(), wide.numpy().sum((0, 1)), 1e-13)
    assert_close(layer.eval().step(x[:, 0])[0].numpy(), layer.step(x[:, 0], given)[0].numpy(), 1e-13)


# ---- layers without memory

def test_embedding_padding_and_pretrained():
    layer = tr.nn.Embedding(5, 3, padding_idx=2, dtype="float64", rng=0)
    assert not layer.weight.numpy()[2].any()
    x = np.array([[1, 2, 2], [4, 1, 2]])
    w = np.random.default_rng(0).normal(size=(2, 3, 3))
    g = tr.grad((layer(x) * w).sum(), layer.weight).numpy()
    expected = np.zeros((5, 3))
    np.add.at(expected, x, w)
    expected[2] = 0
    np.testing.assert_allclose(g, expected, rtol=1e-14)
    table = np.random.default_rng(1).normal(size=(4, 2))
    fixed = tr.nn.Embedding.pretrained(table)
    np.testing.assert_array_equal(fixed([3, 0]).numpy(), table[[3, 0]])
    assert fixed.parameters() == []
    assert set(fixed.state_dict()) == {"weight"}
    assert len(tr.nn.Embedding.pretrained(table, trainable=True).parameters()) == 1
    for make, message in ((lambda: tr.nn.Embedding(5, 3, padding_idx=5), "a row from 0 to 4"),
                          (lambda: tr.nn.Embedding.pretrained([1, 2]), r"float \[rows, dim\]")):
        with pytest.raises(tr.TinyRNNError, match=message):
            make()


@live
def test_layer_norm_against_torch():
    import torch
    rng = np.random.default_rng(0)
    x, w, b, g = rng.normal(size=(4, 3, 5)), rng.normal(size=5), rng.normal(size=5), rng.normal(size=(4, 3, 5))
    layer = tr.nn.LayerNorm(5, dtype="float64")
    layer.load_state_dict({"weight": w, "bias": b})
    theirs = [torch.tensor(v, requires_grad=True) for v in (x, w, b)]
    y = torch.nn.functional.layer_norm(theirs[0], (5,), theirs[1], theirs[2])
    (y * torch.tensor(g)).sum().backward()
    ours = tr.parameter(x)
    found = layer(ours)
    assert_close(found.numpy(), y.detach().numpy(), 1e-13)
    for t, p in zip((ours, layer.weight, layer.bias), theirs, strict=True):
        assert_close(tr.grad((found * g).sum(), t).numpy(), p.grad.numpy(), 1e-12)


@pytest.mark.parametrize("by", ["lengths", "mask"])
@pytest.mark.parametrize("kind", ["mean", "max", "sum", "last"])
def test_pooling_over_valid_steps(kind, by):
    x = np.random.default_rng(0).normal(size=(B, T, X)) - 5  # all negative: a zero in the padding would win a maximum
    valid = np.arange(T) < LENGTHS[:, None] if by == "lengths" else holes()
    layer = tr.nn.Last() if kind == "last" else tr.nn.Pool(kind)
    found = layer(np.where(valid[..., None], x, np.nan), **({"lengths": LENGTHS} if by == "lengths" else {"mask": valid})).numpy()
    for row in range(B):
        kept = x[row, valid[row]]
        expected = np.zeros(X) if not len(kept) else kept[-1] if kind == "last" else getattr(kept, kind)(0)
        np.testing.assert_allclose(found[row], expected, rtol=1e-13)
    whole = layer(x).numpy()
    np.testing.assert_allclose(whole, x[:, -1] if kind == "last" else getattr(x, kind)(1), rtol=1e-13)


def test_sequential_masks_states_and_repeat():
    x = np.random.default_rng(0).normal(size=(B, T, X)).astype("f4")
    model = tr.nn.Sequential(tr.nn.GRU(X, H, rng=0), tr.nn.LayerNorm(H), tr.nn.LSTM(H, 2, rng=1))
    whole = model(x).numpy()
    first, state = model(x[:, :2], return_state=True)
    second, _ = model(x[:, 2:], state=state)
    np.testing.assert_allclose(np.concatenate([first.numpy(), second.numpy()], 1), whole, rtol=1e-5, atol=1e-6)
    assert [s is None for s in state] == [False, True, False]
    dirty = np.where((np.arange(T) < LENGTHS[:, None])[..., None], x, np.nan)
    y = model(dirty, lengths=LENGTHS).numpy()
    np.testing.assert_array_equal(y, model(dirty, mask=np.arange(T) < LENGTHS[:, None]).numpy())
    assert np.isfinite(y).all()
    coder = tr.nn.Sequential(tr.nn.GRU(X, H, rng=0), tr.nn.Last(), tr.nn.Repeat(7), tr.nn.GRU(H, 2, rng=1))
    z = coder(x, lengths=LENGTHS).numpy()  # lengths end at Last: the second GRU runs over all seven steps
    assert z.shape == (B, 7, 2)
    assert (z[:, 6] != 0).all()
    with pytest.raises(tr.TinyRNNError, match="one entry for each of 3 layers"):
        model(x, state=[None])


def test_a_layer_of_ones_own_function():
    model = tr.nn.Sequential(tr.nn.Linear(2, 3, rng=0), tr.nn.Lambda(tr.tanh))
    x = np.ones((4, 2), "f4")
    np.testing.assert_array_equal(model(x).numpy(), tr.tanh(model.layers[0](x)).numpy())
    assert model.config() is None


OPTIONS = [lambda: tr.nn.LSTM(X, H, peephole=True, proj_size=2, layer_norm=True, clip=2.0, cell_clip=3.0, zoneout={"c": 0.2}, rng=0),
           lambda: tr.nn.LSTM(X, H, coupled=True, learn_state=True, recurrent_dropout=0.3, forget_bias=1.0, rng=0),
           lambda: tr.nn.GRU(X, H, reset="before", update="new", reverse=True, rng=0),
           lambda: tr.nn.Bidirectional(tr.nn.Recurrent(tr.cells["mgu"], x=X, h=H, zoneout=0.1, rng=0), "sum", rng=1),
           lambda: tr.nn.Sequential(tr.nn.GRU(X, H, rng=0), tr.nn.LayerNorm(H, 1e-3, False), tr.nn.Dropout(0.1, shared_axes=1),
                                    tr.nn.Pool("max"), tr.nn.Repeat(3), tr.nn.Linear(H, 1, rng=1))]


@pytest.mark.parametrize("i", range(len(OPTIONS)))
def test_files_keep_every_option(i, tmp_path):
    model = OPTIONS[i]()
    model.save(tmp_path / "m.safetensors")
    back = tr.load(tmp_path / "m.safetensors")
    assert back.config() == model.config()
    x = np.random.default_rng(0).normal(size=(2, T, X)).astype("f4")
    np.testing.assert_array_equal(back.predict(x), model.eval().predict(x))


def test_forget_bias_and_starts():
    layer = tr.nn.LSTM(X, H, coupled=True, forget_bias=2.0, bias=True, rng=0)
    plain = tr.nn.LSTM(X, H, coupled=True, rng=0)
    np.testing.assert_allclose(layer.bias_ih_l0.numpy() - plain.bias_ih_l0.numpy(), np.repeat([2, 0, 0], H), atol=1e-6)
    for options in ({}, {"coupled": True}):
        long = tr.nn.LSTM(X, H, num_layers=2, chrono=50, rng=0, dtype="float64", **options)
        for k in range(2):
            ih, hh = (getattr(long, f"bias_{side}_l{k}").numpy().reshape(-1, H) for side in ("ih", "hh"))
            f, i = (0, None) if options else (1, 0)
            assert (ih[f] >= 0).all()
            assert (ih[f] <= np.log(49)).all()
            assert len(set(ih[f])) == H
            assert not hh[f].any()
            if i is not None:
                np.testing.assert_array_equal(ih[i], -ih[f])
                assert hh[2:].all()
    with pytest.raises(tr.TinyRNNError, match="chrono=2"):
        tr.nn.LSTM(X, H, chrono=2)
    normed = tr.nn.LSTM(X, H, layer_norm=True, learn_state=True, rng=0)
    assert (normed.gain_ih_l0.numpy() == 1).all()
    assert not normed.bias_c_l0.numpy().any()
    assert not normed.h0_l0.numpy().any()
