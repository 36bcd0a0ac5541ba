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


@live
def test_losses():
    import torch
    rng = np.random.default_rng(0)
    logits, target, mask = rng.normal(size=(4, 5, 7)), rng.integers(0, 7, (4, 5)), rng.random((4, 5)) < 0.6
    ours, theirs = tr.parameter(logits), torch.tensor(logits, requires_grad=True)
    loss = tr.nn.cross_entropy(ours, target, mask=mask)
    kept = torch.where(torch.tensor(mask), torch.tensor(target), -100)
    expected = torch.nn.functional.cross_entropy(theirs.reshape(-1, 7), kept.reshape(-1))
    loss.backward()
    expected.backward()
    assert_close(float(loss), expected.item(), 1e-14)
    assert_close(ours.grad, theirs.grad.numpy(), 1e-13)
    ignored = tr.nn.cross_entropy(logits.transpose(0, 2, 1), target, axis=1, ignore_index=3)
    assert_close(float(ignored), float(torch.nn.functional.cross_entropy(torch.tensor(logits.transpose(0, 2, 1)),
                                                                       torch.tensor(target), ignore_index=3)), 1e-14)


@live
@pytest.mark.parametrize("name", ["Adam", "SGD", "momentum", "nesterov", "clipped"])
def test_optimisers_over_twenty_steps(name):
    import torch
    rng = np.random.default_rng(1)
    start, a = rng.normal(size=(3, 2)), rng.normal(size=(5, 3))
    ours, theirs = tr.parameter(start), torch.nn.Parameter(torch.tensor(start))
    make = {"Adam": (tr.optim.Adam(0.05), torch.optim.Adam([theirs], 0.05)),
            "SGD": (tr.optim.SGD(0.05), torch.optim.SGD([theirs], 0.05)),
            "momentum": (tr.optim.SGD(0.05, 0.9), torch.optim.SGD([theirs], 0.05, momentum=0.9)),
            "nesterov": (tr.optim.SGD(0.05, 0.9, True), torch.optim.SGD([theirs], 0.05, momentum=0.9, nesterov=True)),
            "clipped": (tr.optim.SGD(0.5, clip_norm=0.3), torch.optim.SGD([theirs], 0.5))}
    mine, other = make[name]
    for _ in range(20):
        (tr.sin(tr.tensor(a) @ ours) ** 2).sum().backward()
        mine.step([ours])
        other.zero_grad()
        (torch.sin(torch.tensor(a) @ theirs) ** 2).sum().backward()
        if name == "clipped":
            torch.nn.utils.clip_grad_norm_([theirs], 0.3)
        other.step()
        assert_close(ours.numpy(), theirs.detach().numpy(), 1e-12 if name != "clipped" else 1e-5)


@live
def test_activations_and_relu_network():
    import torch
    net = torch.nn.RNN(3, 2, nonlinearity="relu", batch_first=True).double()
    layer = tr.nn.RNN(3, 2, nonlinearity="relu", dtype="float64")
    layer.load_state_dict({k: v.detach().numpy() for k, v in net.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(4, 5, 3))
    assert_close(layer(x)[0].numpy(), net(torch.tensor(x))[0].detach().numpy(), 1e-14)
    assert layer.cell == tr.cells["rnn_relu"]
