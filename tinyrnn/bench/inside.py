"""A training step with a head, wholly in tinyrnn, in PyTorch with our layer, and in PyTorch alone: squared errors, SGD.

All sides start from the same weights and go the same way; a test holds them to that.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from .. import nn
from ..tensor.compile import compile
from ..tensor.transforms import grad
from .cases import STOCK, Point, unusual
from .sides import Run, TorchNames, Workload, layer_of, stock, torch_loop, torch_threads

CLASSES, RATE = 10, 0.01


def settings(side: str, name: str, point: Point, threads: int) -> dict[str, Run]:
    """A step of a side: `ours`, `inside` (our layer in PyTorch) or `torch`; it gives the loss."""
    task, rng = Workload(point), np.random.default_rng(2)
    layer = stock(name, point) if name in STOCK else layer_of(unusual()[name], point)
    head = nn.Linear(point.h, CLASSES, rng=1)
    wanted = rng.normal(size=(point.batch, point.steps, CLASSES)).astype(np.float32)
    if side == "ours":
        return {"ours": _ours(layer, head, task.x, wanted, threads)}
    torch_threads(threads)
    if side == "inside":
        inner = import_module("tinyrnn.torch").Layer(layer)
        return {"ours": _torch(lambda x: inner(x)[0], list(inner.parameters()), head, task.x, wanted)}
    outputs, weights = _torch_stock(name, layer) if name in STOCK else _torch_loop(name, layer, point)
    return {"torch": _torch(outputs, weights, head, task.x, wanted)}


def _ours(layer: Any, head: nn.Linear, x: Any, wanted: Any, threads: int) -> Run:
    parameters = [*layer.parameters(), *head.parameters()]

    def step(x: Any, wanted: Any) -> Any:
        loss = ((head(layer(x)[0]) - wanted) ** 2).mean()
        for p, g in zip(parameters, grad(loss, parameters), strict=True):
            p.assign(p - RATE * g)
        return loss

    program = compile(step, threads=threads)
    return lambda: program(x, wanted)


def _torch(outputs: Callable[[Any], Any], weights: list[Any], head: nn.Linear, x: Any, wanted: Any) -> Run:
    torch = import_module("torch")
    last = torch.nn.Linear(head.in_features, CLASSES)
    last.load_state_dict({k: torch.from_numpy(v) for k, v in head.state_dict().items()})
    given, target = torch.from_numpy(x), torch.from_numpy(wanted)
    optimiser = torch.optim.SGD([*weights, *last.parameters()], lr=RATE)

    def step() -> Any:
        optimiser.zero_grad()
        loss = ((last(outputs(given)) - target) ** 2).mean()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def _torch_stock(name: str, layer: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    torch = import_module("torch")
    peer = getattr(torch.nn, name)(layer.input_size, layer.hidden_size, batch_first=True)
    peer.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
    return lambda x: peer(x)[0], list(peer.parameters())


def _torch_loop(name: str, layer: Any, point: Point) -> tuple[Callable[[Any], Any], list[Any]]:
    """The cell as a loop over time."""
    torch, case, m = import_module("torch"), unusual()[name], TorchNames()
    w = {k: torch.from_numpy(np.ascontiguousarray(v)).requires_grad_() for k, v in case.weights(layer.state_dict()).items()}
    start = tuple(torch.zeros(point.batch, point.h) for _ in range(case.states))
    return lambda x: torch_loop(w, x, start, lambda z, state: case.step(m, w, z, state)), list(w.values())
