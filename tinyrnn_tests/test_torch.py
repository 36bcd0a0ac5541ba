"""PyTorch as an independent implementation: recorded answers always, the living library where it is installed."""

import importlib.util

import numpy as np
import pytest

import tinyrnn as tr

from .goldens import CASES, check_layer, read, torch_answers
from .oracles import assert_close

RECORDS = read()
live = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed; goldens stand in")


@pytest.mark.parametrize("case", CASES)
def test_recorded_answers(case):
    check_layer(case, RECORDS[case])


@live
@pytest.mark.parametrize("case", CASES)
def test_living_library(case):
    check_layer(case, torch_answers(case, np.random.default_rng(len(case))))


LOSSES = {
    "plain": ({}, {}), "smoothed": ({"label_smoothing": 0.2}, {"label_smoothing": 0.2}),
    "weighted": ({"weight": np.array([0.5, 2.0, 1.0, 0.1, 3.0, 1.5, 0.7])}, {"weight": [0.5, 2.0, 1.0, 0.1, 3.0, 1.5, 0.7]}),
    "ignoring": ({"ignore_index": 3}, {"ignore_index": 3})}
LOSSES["all"] = tuple({k: v for case in LOSSES.values() for k, v in case[i].items()} for i in range(2))


@live
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", LOSSES)
@pytest.mark.parametrize("name", ["cross_entropy", "nll"])
def test_class_losses(name, case, masked, reduction):
    import torch
    ours, theirs = LOSSES[case]
    if name == "nll":
        ours, theirs = ({k: v for k, v in o.items() if k != "label_smoothing"} for o in (ours, theirs))
    rng = np.random.default_rng(0)
    scores, target, mask = rng.normal(size=(4, 5, 7)), rng.integers(0, 7, (4, 5)), rng.random((4, 5)) < 0.6
    p, q = tr.parameter(scores), torch.tensor(scores, requires_grad=True)
    found = getattr(tr.nn, name)(p, target, mask=mask if masked else None, reduction=reduction, **ours)
    ignored = ours.get("ignore_index", -100)
    kept = np.where(mask, target, ignored) if masked else target
    given = {k: torch.tensor(v, dtype=torch.float64) if k == "weight" else v for k, v in theirs.items()}
    given = {**given, "ignore_index": ignored}
    expected = getattr(torch.nn.functional, "cross_entropy" if name == "cross_entropy" else "nll_loss")(
        q.reshape(-1, 7), torch.tensor(kept).reshape(-1), reduction=reduction, **given)
    w = rng.normal(size=expected.shape)
    (found.reshape(*expected.shape) * w).sum().backward()
    (expected * torch.tensor(w)).sum().backward()
    assert_close(found.numpy().reshape(expected.shape), expected.detach().numpy(), 1e-13)
    assert_close(p.grad, q.grad.numpy(), 1e-13)


@live
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse", "bce", "bce_with_logits", "weighted"])
def test_entrywise_losses(name, reduction):
    import torch
    rng = np.random.default_rng(1)
    y, t = rng.normal(size=(4, 5)) * 3, rng.random((4, 5))
    y = 1 / (1 + np.exp(-y)) if name == "bce" else y
    p, q = tr.parameter(y), torch.tensor(y, requires_grad=True)
    functions = torch.nn.functional
    ours, theirs = {
        "mse": (tr.nn.mse, functions.mse_loss), "bce": (tr.nn.bce, functions.binary_cross_entropy),
        "bce_with_logits": (tr.nn.bce_with_logits, functions.binary_cross_entropy_with_logits),
        "weighted": (lambda *a, **k: tr.nn.bce_with_logits(*a, pos_weight=2.5, **k),
                     lambda *a, **k: functions.binary_cross_entropy_with_logits(*a, pos_weight=torch.tensor(2.5), **k))}[name]
    found, expected = ours(p, t, reduction=reduction), theirs(q, torch.tensor(t), reduction=reduction)
    w = rng.normal(size=expected.shape)
    (found * w).sum().backward()
    (expected * torch.tensor(w)).sum().backward()
    assert_close(found.numpy(), expected.detach().numpy(), 1e-13)
    assert_close(p.grad, q.grad.numpy(), 1e-12)


@live
def test_losses_at_the_ends():
    import torch
    p, t = np.array([0.0, 1.0, 0.0, 1.0, 1e-300]), np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    expected = torch.nn.functional.binary_cross_entropy(torch.tensor(p), torch.tensor(t), reduction="none").numpy()
    assert_close(tr.nn.bce(p, t, reduction="none").numpy(), expected, 1e-14)
    assert np.isfinite(tr.grad(tr.nn.bce(q := tr.parameter(p), t), q).numpy()).all()
    z = np.array([-1000.0, 1000.0, 0.0])
    assert_close(tr.nn.bce_with_logits(z, t[:3], reduction="none").numpy(), [0.0, 0.0, np.log(2)], 1e-14)
    logits = np.random.default_rng(0).normal(size=(4, 7, 5))
    target = np.random.default_rng(1).integers(0, 7, (4, 5))
    assert_close(float(tr.nn.cross_entropy(logits, target, axis=1)),
                 float(torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(target))), 1e-14)


def optimisers():
    """Ours and PyTorch's, with the same numbers."""
    import torch
    o = torch.optim
    return {"SGD": (tr.optim.SGD(0.05), o.SGD, {"lr": 0.05}), "decay": (tr.optim.SGD(0.05, weight_decay=0.1), o.SGD, {"lr": 0.05, "weight_decay": 0.1}),
            "momentum": (tr.optim.SGD(0.05, 0.9), o.SGD, {"lr": 0.05, "momentum": 0.9}),
            "nesterov": (tr.optim.SGD(0.05, 0.9, True), o.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
            "RMSprop": (tr.optim.RMSprop(0.02), o.RMSprop, {"lr": 0.02}),
            "RMSprop all": (tr.optim.RMSprop(0.02, 0.9, 1e-6, 0.8, True, weight_decay=0.01), o.RMSprop,
                            {"lr": 0.02, "alpha": 0.9, "eps": 1e-6, "momentum": 0.8, "centered": True, "weight_decay": 0.01}),
            "Adagrad": (tr.optim.Adagrad(0.1), o.Adagrad, {"lr": 0.1}), "Adam": (tr.optim.Adam(0.05), o.Adam, {"lr": 0.05}),
            "Adam decay": (tr.optim.Adam(0.05, (0.8, 0.95), weight_decay=0.1), o.Adam, {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.1}),
            "AdamW": (tr.optim.AdamW(0.05, weight_decay=0.2), o.AdamW, {"lr": 0.05, "weight_decay": 0.2}),
            "clip norm": (tr.optim.SGD(0.5, clip_norm=0.3), o.SGD, {"lr": 0.5}), "clip value": (tr.optim.SGD(0.5, clip_value=0.1), o.SGD, {"lr": 0.5}),
            "step decay": (tr.optim.SGD(0.1, schedule=tr.optim.StepDecay(3, 0.5)), o.SGD, {"lr": 0.1}),
            "cosine": (tr.optim.Adam(0.1, schedule=tr.optim.Cosine(15, 0.1)), o.Adam, {"lr": 0.1}),
            "warm-up": (tr.optim.AdamW(0.1, schedule=tr.optim.WarmUp(5, tr.optim.StepDecay(6))), o.AdamW, {"lr": 0.1})}


def schedule_of(name, optimiser):
    from torch.optim import lr_scheduler as s
    if name == "step decay":
        return s.StepLR(optimiser, 3, 0.5)
    if name == "cosine":  # PyTorch's turns up again after its length; ours stays at its floor
        return s.SequentialLR(optimiser, [s.CosineAnnealingLR(optimiser, 15, 0.01), s.ConstantLR(optimiser, 0.1, 100)], [15])
    if name == "warm-up":
        return s.SequentialLR(optimiser, [s.LinearLR(optimiser, 1 / 5, 1, 4), s.StepLR(optimiser, 6, 0.1)], [5])
    return None


@live
@pytest.mark.parametrize("way", ["step", "fit"])
@pytest.mark.parametrize("name", ["SGD", "decay", "momentum", "nesterov", "RMSprop", "RMSprop all", "Adagrad", "Adam", "Adam decay",
                                  "AdamW", "clip norm", "clip value", "step decay", "cosine", "warm-up"])
def test_optimisers_over_twenty_steps(name, way):
    """In float64 to 1e-12, by hand and through compiled training."""
    import torch
    rng = np.random.default_rng(1)
    a, target = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    model = tr.nn.Linear(3, 2, dtype="float64", rng=0)
    theirs = [torch.nn.Parameter(torch.tensor(t.numpy())) for t in model.parameters()]
    mine, kind, options = optimisers()[name]
    other = kind(theirs, **options)
    scheduler = schedule_of(name, other)
    for _ in range(20):
        other.zero_grad()
        torch.nn.functional.mse_loss(torch.tensor(a) @ theirs[0].T + theirs[1], torch.tensor(target)).backward()
        if name == "clip norm":
            norm = torch.sqrt(sum((p.grad ** 2).sum() for p in theirs))
            for p in theirs:
                p.grad *= min(1.0, 0.3 / norm)
        if name == "clip value":
            torch.nn.utils.clip_grad_value_(theirs, 0.1)
        other.step()
        if scheduler is not None:
            scheduler.step()
        if way == "step":
            tr.nn.mse(model(a), target).backward()
            mine.step(model.parameters())
        else:
            model.fit(a, target, loss="mse", optimizer=mine, batch_size=5, shuffle=False)
        for p, q in zip(model.parameters(), theirs, strict=True):
            assert_close(p.numpy(), q.detach().numpy(), 1e-12)


@live
@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau(mode):
    import torch
    schedule = tr.optim.Plateau(0.5, 2, "loss", mode, 1e-2)
    inner = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(inner, mode, 0.5, 2, 1e-2)
    rng = np.random.default_rng(0)
    for k in range(60):
        value = 5 + rng.normal() - 0.02 * k
        theirs.step(value)
        schedule.observe({"loss": value})
        assert schedule(k) == inner.param_groups[0]["lr"]
    again = tr.optim.Plateau(0.5, 2, "loss", mode, 1e-2)
    again.load_state_dict(schedule.state_dict())
    assert again(0) == schedule(0) < 0.1


@live
def test_activations_and_relu_network():
    import torch
    net = torch.nn.RNN(3, 2, nonlinearity="relu", batch_first=True).double()
    layer = tr.nn.RNN(3, 2, nonlinearity="relu", dtype="float64")
    layer.load_state_dict({k: v.detach().numpy() for k, v in net.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(4, 5, 3))
    assert_close(layer(x)[0].numpy(), net(torch.tensor(x))[0].detach().numpy(), 1e-14)
    assert layer.cell == tr.cells["rnn_relu"]
