"""The benchmark on a GPU: every table of `gpu.md`, the most telling ones first, within a budget of seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import nn
from ..backends.cuda.device import require
from ..backends.cuda.graphs import CAPTURED
from ..compile import compile
from ..functional import grad
from . import gpu_peers as peers
from .cases import STOCK, Point, unusual
from .gpu_machine import Clock, Probes, described
from .sides import layer_of

Say = Callable[[str], None]
MODES = {"G0 fp32": "cuda:eager", "G1 fp32": "cuda", "G1 tf32": "cuda:tf32", "G1 bf16": "cuda:bf16"}
ANCHOR = Point(1024, 16, 768, 768)
WIDTHS, BATCHES = (128, 256, 512, 768, 1024, 2048), (1, 16, 64, 128)
GRID = tuple(Point(1024, b, h, h) for h in WIDTHS for b in BATCHES)
TARGETS = {"G0 fp32": (25.0, 60.0), "G1 fp32": (10.0, 22.0), "G1 tf32": (8.0, 18.0)}  # ms: forward, training step, at ANCHOR
SLOW = "G0 fp32"  # measured at ANCHOR and at one row only: it is bound by Python wherever else one looks


class Budget:
    """Seconds that are left, and what was not measured for want of them."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.missed: list[str] = []

    def has(self, what: str, seconds: float) -> bool:
        there = self.end - time.monotonic() > seconds
        if not there:
            self.missed.append(what)
        return there


def measure(*, budget: float = 400.0, short: bool = False, say: Say = print) -> dict[str, Any]:
    """Everything that fits; `short` measures tiny sizes only, to see that it works."""
    clock, left = Clock(), Budget(budget)
    found: dict[str, Any] = {"machine": described(), "date": time.strftime("%Y-%m-%d")}
    probes = Probes(clock)
    found["probes"] = {"blocks": probes.blocks, "barrier_us": probes.barrier_us(20 if short else 2000),
                       "node_us": probes.node_us(10 if short else 1000),
                       "broadcast_gb_s": {str(size): probes.broadcast_gb_s(size, 2 if short else 200)
                                          for size in ((4096,) if short else (16 << 10, 64 << 10, 256 << 10))}}
    say(f"probes: {found['probes']}")
    anchor = Point(5, 2, 4, 8) if short else ANCHOR
    found["accuracy"] = _accuracy(anchor, say)
    found["anchor"] = {kind: _row(kind, anchor, clock, left, say, list(MODES)) for kind in STOCK}
    found["unusual"] = _unusual(anchor, clock, left, say)
    found["grid"] = _grid((Point(5, 1, 4, 4),) if short else GRID, clock, left, say)
    found["missed"], found["notes"] = left.missed, peers.missing()
    return found


# ---- ours

class Data:
    """Input and weights of the loss `Σ y g`, on the device."""

    def __init__(self, point: Point) -> None:
        cupy = require()
        rng = np.random.default_rng(0)
        self.point = point
        self.x = cupy.asarray(rng.normal(size=(point.batch, point.steps, point.x)).astype(np.float32))
        self.g = cupy.asarray(rng.normal(size=(point.batch, point.steps, point.h)).astype(np.float32))


def ours(layer: Any, data: Data, mode: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Forward, and a training step with all gradients; the projection of the input is inside of both."""
    parameters = dict(layer.named_parameters())

    def train(x: Any, g: Any) -> Any:
        y, _ = layer(x)
        loss = (y * g).sum()
        return loss, grad(loss, {**parameters, "x": x})

    infer, step = compile(lambda x: layer(x)[0], backend=mode), compile(train, backend=mode)
    return lambda: infer(data.x), lambda: step(data.x, data.g)


def _row(kind: str, point: Point, clock: Clock, left: Budget, say: Say, modes: list[str]) -> dict[str, Any]:
    """One stock layer at one size: forward and training step in milliseconds, by mode and by peer."""
    data, layer = Data(point), getattr(nn, kind)(point.x, point.h, rng=0)
    row: dict[str, Any] = {"point": str(point)}
    for name in modes:
        if left.has(f"{kind} {point}, {name}", 4.0):
            row[name] = [clock.median(run) for run in ours(layer, data, MODES[name])]
    if "torch" not in peers.missing():
        for name in peers.PRECISIONS:
            if left.has(f"{kind} {point}, torch {name}", 2.0):
                row[f"torch {name}"] = [clock.median(run) for run in peers.torch_stock(kind, data, layer, name)]
    _finished(f"{kind} {point}", row, say)
    return row


def _finished(what: str, row: Mapping[str, Any], say: Say) -> None:
    """A row is said; memory of graphs and pools goes back before the next one."""
    say(f"{what}: " + ", ".join(f"{k} {v[0]:.2f} / {v[1]:.2f} ms" for k, v in row.items() if k != "point"))
    CAPTURED.clear()
    require().get_default_memory_pool().free_all_blocks()


def _accuracy(point: Point, say: Say) -> dict[str, float]:
    """How far each mode's outputs and gradients are from those in float64, norm-wise."""
    data, found = Data(point), {}
    cupy = require()
    exact = nn.LSTM(point.x, point.h, dtype="float64", rng=0)
    like = nn.LSTM(point.x, point.h, rng=0)
    like.load_state_dict({k: v.astype(np.float32) for k, v in exact.state_dict().items()})
    exact.load_state_dict({k: v.astype(np.float64) for k, v in like.state_dict().items()})

    def all_of(layer: Any, mode: str, dtype: str) -> list[Any]:
        x, g = (cupy.asnumpy(a).astype(dtype) for a in (data.x, data.g))
        parameters = dict(layer.named_parameters())

        def train(x: Any, g: Any) -> Any:
            y, _ = layer(x)
            return [y, *grad((y * g).sum(), [*parameters.values(), x])]

        program = compile(train, backend=mode)
        program(x, g)
        return [np.asarray(v, np.float64) for v in program(x, g)]

    true = all_of(exact, "cuda", "float64")
    for name, mode in MODES.items():
        off = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(all_of(like, mode, "float32"), true, strict=True)]
        found[name] = float(max(off))
    say("largest relative error against float64: " + ", ".join(f"{k} {v:.1e}" for k, v in found.items()))
    return found


def _unusual(point: Point, clock: Clock, left: Budget, say: Say) -> dict[str, Any]:
    """Cells that no library has kernels for, against the same cells in PyTorch and JAX."""
    found: dict[str, Any] = {}
    absent = peers.missing()
    for name, case in unusual().items():
        if not left.has(name, 20.0):
            continue
        data, layer = Data(point), layer_of(case, point)
        row: dict[str, Any] = {"point": str(point)}
        for mode in ("G1 fp32", "G1 tf32"):
            row[mode] = [clock.median(run) for run in ours(layer, data, MODES[mode])]
        weights: Mapping[str, Any] = layer.state_dict()
        if "torch" not in absent:
            row["torch eager"] = [clock.median(run, most=5) for run in peers.torch_unusual(case, data, weights)]
            if left.has(f"{name}, torch.compile", 60.0):
                compiled = peers.torch_unusual(case, data, weights, compiled=True)
                row["torch compiled step"] = [clock.median(run, most=5) for run in compiled]
        if "jax" not in absent and left.has(f"{name}, JAX", 30.0):
            row["JAX scan"] = [peers.median_on_host(run) for run in peers.jax_on_gpu(case, data, weights)]
        found[name] = row
        _finished(f"{name} {point}", row, say)
    return found


def _grid(grid: tuple[Point, ...], clock: Clock, left: Budget, say: Say) -> dict[str, Any]:
    """Stock layers over all sizes."""
    found: dict[str, Any] = {kind: [] for kind in STOCK}
    for point in grid:
        for kind in STOCK:
            modes = [m for m in MODES if m != SLOW or point.batch == 1]
            if point != ANCHOR and left.has(f"{kind} {point}", 12.0):
                found[kind].append(_row(kind, point, clock, left, say, modes))
    return found
