"""A training step with a head, wholly in tinyrnn, in PyTorch with our layer, and in PyTorch alone: squared errors, SGD.

All sides start from the same weights and go the same way; a test holds them to that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from .. import nn
from ..tensor.compile import compile
from ..tensor.transforms import grad
from . import machine
from .cases import STOCK, UNUSUAL_GRID, Point, unusual
from .sides import Run, TorchNames, Workload, layer_of, stock, torch_loop, torch_threads
from .timing import compare, spoken
from .worker import Worker

CLASSES, RATE = 10, 0.01


def settings(side: str, name: str, point: Point, threads: int) -> dict[str, Run]:
    """A step of a side: `ours`, `inside` (our layer in PyTorch), `torch` or `eager` (a loop over time); it gives the loss."""
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
    if side == "eager" and name == "LSTM":
        outputs, weights = _torch_cell(layer)
    else:
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


def _torch_cell(layer: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    """nn.LSTMCell in a loop over time."""
    torch = import_module("torch")
    cell = torch.nn.LSTMCell(layer.input_size, layer.hidden_size)
    cell.load_state_dict({k.removesuffix("_l0"): torch.from_numpy(v) for k, v in layer.state_dict().items()})

    def outputs(x: Any) -> Any:
        state, out = None, []
        for x_t in x.unbind(1):
            state = cell(x_t, state)
            out.append(state[0])
        return torch.stack(out, 1)

    return outputs, list(cell.parameters())


def _torch_loop(name: str, layer: Any, point: Point) -> tuple[Callable[[Any], Any], list[Any]]:
    """The cell as a loop over time."""
    torch, case, m = import_module("torch"), unusual()[name], TorchNames()
    w = {k: torch.from_numpy(np.ascontiguousarray(v)).requires_grad_() for k, v in case.weights(layer.state_dict()).items()}
    start = tuple(torch.zeros(point.batch, point.h) for _ in range(case.states))
    return lambda x: torch_loop(w, x, start, lambda z, state: case.step(m, w, z, state)), list(w.values())


# ---- the benchmark

GRID = (Point(50, 16, 32, 64), Point(50, 20, 27, 100), Point(32, 32, 128, 128), Point(100, 32, 64, 128),
        Point(50, 32, 128, 256), Point(100, 64, 128, 256))
ASKED = GRID[2:]  # (32, 32, 128, 128) and larger


def measure(short: bool = False, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Steps with one thread on each side and with two: our layer in PyTorch against the same step wholly in tinyrnn, against
    PyTorch's own layer, and against cells as loops over time in PyTorch."""
    found: dict[str, Any] = {"machine": machine.described(), "date": time.strftime("%Y-%m-%d"),
                             "peak_gflops": machine.peak_flops() / 1e9, "threads": {}}
    limit = 0.5 if short else 6.0
    for threads in (1,) if short else (1, 2):
        rows: dict[str, Any] = {"wholly": [], "torch": [], "eager": {}}
        with Worker("inside") as inner, Worker("ours") as own, Worker("torch") as torch, Worker("eager") as eager:
            for point in GRID[:1] if short else GRID:
                for what, peer in (("wholly", own), ("torch", torch)):
                    rows[what].append(_row(inner, peer, what, "LSTM", point, threads, limit, say))
            for name in ["LSTM", *unusual()][: 1 if short else None]:
                rows["eager"][name] = [_row(inner, eager, "torch", name, point, threads, limit / 2, say)
                                       for point in (UNUSUAL_GRID[:1] if short else UNUSUAL_GRID)]
        found["threads"][str(threads)] = rows
    return found


def _row(inner: Worker, peer: Worker, what: str, name: str, point: Point, threads: int, limit: float,
         say: Callable[[str], None]) -> dict[str, Any]:
    order = f"head {threads}"
    said = "the same wholly in tinyrnn" if what == "wholly" else "PyTorch"
    (other,) = peer.make(order, name, point).values()
    ratio = compare(inner.make(order, name, point)["ours"], {said: other}, 30, limit)
    say(f"{name} {point}, {threads} thread{'s' * (threads > 1)}: {spoken(ratio.ours)} against {spoken(ratio.peer)} ({said}), "
        f"ratio {ratio.ratio:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]")
    return {"point": str(point), **ratio._asdict()}


def page(found: Mapping[str, Any]) -> str:
    """The figures as a page."""
    m = found["machine"]
    where = f"{m['processor']}, {m['cores']} cores, PyTorch {m['torch']}, {found['date']}"
    lines = ["# Layers of tinyrnn inside PyTorch", "",
             f"A step of training by PyTorch (`Linear` head, squared errors, SGD, float32): {where}. Each side in a process of "
             "its own, as many threads on both; medians of neighbouring pairs, with their quartiles. `tinyrnn bench "
             "--torch-layer` measures it anew.", ""]
    for threads, rows in found["threads"].items():
        lines += [f"## {threads} thread{'s' * (threads != '1')}", "", "| LSTM | `tr.torch.Layer` | wholly in tinyrnn, ratio | "
                  "`nn.LSTM`, ratio |", "| --- | --: | --: | --: |"]
        lines += [f"| {a['point']} | {spoken(a['ours'])} | {_shown(a)} | {_shown(b)} |"
                  for a, b in zip(rows["wholly"], rows["torch"], strict=True)]
        lines += ["", "| cell as a loop over time in PyTorch | point | `tr.torch.Layer` | eager, ratio |",
                  "| --- | --- | --: | --: |"]
        lines += [f"| {name} | {r['point']} | {spoken(r['ours'])} | {_shown(r)} |"
                  for name, all_rows in rows["eager"].items() for r in all_rows]
        lines.append("")
    return "\n".join([*lines, "## Targets", "", *_targets(found)]) + "\n"


def _shown(row: Mapping[str, Any]) -> str:
    return f"{spoken(row['peer'])}, {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _targets(found: Mapping[str, Any]) -> list[str]:
    """What was asked for, with one thread each, and what was measured."""
    rows, wide = found["threads"]["1"], set(map(str, ASKED))
    asked = [("against the same step wholly in tinyrnn, (32, 32, 128, 128) and larger", 1.15, rows["wholly"], wide),
             ("against `nn.LSTM`, the same sizes", 0.85, rows["torch"], wide),
             ("against the eager cell, every size", 0.35, [r for all_rows in rows["eager"].values() for r in all_rows], None)]
    lines = ["| one thread each | largest ratio | asked | met |", "| --- | --: | --: | --- |"]
    for what, most, measured, points in asked:
        ratios = [r["ratio"] for r in measured if points is None or r["point"] in points]
        if ratios:
            lines.append(f"| {what} | {max(ratios):.2f} | ≤ {most} | {'yes' if max(ratios) <= most else '**no**'} |")
    return lines
