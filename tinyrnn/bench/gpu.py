"""The benchmark on a GPU, part by part: each part is a process of its own that writes its figures into one record.

    python -m tinyrnn.bench.gpu FILE PART [--short]

A part's name may have arguments behind colons, as in `rows:LSTM:G1 fp32`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..backends.cuda.device import require
from ..backends.cuda.graphs import CAPTURED
from ..errors import BackendError
from ..tensor.compile import compile
from ..tensor.transforms import grad
from . import gpu_peers as peers
from .cases import Point, Unusual, unusual
from .gpu_clusters import Clusters, occupancy
from .gpu_machine import Clock, Probes, described
from .sides import layer_of, stock
from .steps import Record

CAPTURED_MODES = {"G1 fp32": "cuda", "G1 tf32": "cuda:tf32", "G1 bf16": "cuda:bf16"}
MODES = {**CAPTURED_MODES, "G0 fp32": "cuda:eager", "G0 tf32": "cuda:eager,tf32", "G0 bf16": "cuda:eager,bf16"}
"""The eager ones are measured at ANCHOR only: they are bound by Python wherever else one looks."""
ANCHOR, TINY = Point(1024, 16, 768, 768), Point(5, 2, 4, 8)
WIDTHS, BATCHES = (768, 256, 512, 1024, 128, 2048), (16, 1, 64, 128)
GRID = tuple(Point(1024, b, h, h) for b in BATCHES for h in WIDTHS)
TARGETS = {"G0 fp32": (25.0, 60.0), "G1 fp32": (10.0, 22.0), "G1 tf32": (8.0, 18.0)}  # ms: forward, training step, at ANCHOR
ALLOWED = {"fp32": 1e-5, "tf32": 3e-3, "bf16": 3e-2}  # largest relative error, norm-wise
SMOKE = (Point(64, 16, 128, 128), Point(12, 64, 512, 512))  # the second is large enough for tensor cores


@dataclass
class Sheet:
    """Where figures go, whether tiny sizes do (to see that all works), and when no more rows are begun."""

    record: Record
    short: bool
    end: float = math.inf
    failed: list[str] = field(default_factory=list)

    def row(self, *path: str, make: Callable[[], Any]) -> None:
        """A figure, or why there is none: the next one is measured all the same."""
        try:
            self.record.put(*path, value=make())
        except Exception as error:  # whatever a peer or a driver raises costs this figure only
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]
            self.failed.append(f"{', '.join(path)}: {said}")
            self.record.put("errors", ", ".join(path), value=said)
        with suppress(Exception):  # after an error that stays: the next figure says so
            CAPTURED.clear()  # memory of graphs and pools goes back before the next one
            require().get_default_memory_pool().free_all_blocks()

    def in_time(self, what: str, points: Sequence[Point]) -> Iterator[Point]:
        """As many sizes as there is time for; how many were left out is in the record."""
        for i, point in enumerate(points):
            if time.monotonic() > self.end:
                self.record.put("left_out", what, value=f"{len(points) - i} of {len(points)} sizes, for want of time")
                return
            yield point


# ---- the machine

def machine(sheet: Sheet) -> None:
    sheet.record.put("machine", value={**described(), "date": time.strftime("%Y-%m-%d")})


def node(sheet: Sheet) -> None:
    """Barriers, nodes of graphs, and reading by all blocks."""
    probes = Probes(Clock())
    sheet.record.put("probes", "blocks", value=probes.blocks)
    sheet.row("probes", "barrier_us", make=partial(probes.barrier_us, 20 if sheet.short else 2000))
    sheet.row("probes", "node_us", make=partial(probes.node_us, 10 if sheet.short else 1000))
    for size in (4096,) if sheet.short else (16 << 10, 64 << 10, 256 << 10):
        make = partial(probes.broadcast_gb_s, size, 2 if sheet.short else 200)
        sheet.row("probes", "broadcast_gb_s", str(size), make=make)


def products(sheet: Sheet) -> None:
    """Graphs of 1,000 products of both shapes that a step of LSTM has: `h Uᵀ` forward, `da U` backward."""
    probes, p = Probes(Clock()), _anchor(sheet)
    for name, sizes in (("forward", (p.batch, p.h, 4 * p.h)), ("backward", (p.batch, 4 * p.h, p.h))):
        for precision in ("", "tf32", "bf16"):
            make = partial(probes.product_us, sizes, precision, 10 if sheet.short else 1000)
            sheet.row("products", name, precision or "fp32", make=make)


def clusters(sheet: Sheet) -> None:
    """How many clusters are on the chip at once."""
    sheet.row("clusters", make=lambda: occupancy(Clusters()))


def exchange(sheet: Sheet) -> None:
    """What it takes to hand the state on among 12 or 16 blocks: 6 KB at H 768 and B 16, and a quarter of it."""
    found, clock, turns = Clusters(), Clock(), 8 if sheet.short else 1000
    for group in (2,) if sheet.short else (4, 8, 12, 16):
        for packets in (2,) if sheet.short else (8, 32):
            make = partial(found.exchange_us, clock, group, packets, turns)
            sheet.row("exchange_us", f"{group} blocks, {packets * 16} bytes each", make=make)


def launches(sheet: Sheet) -> None:
    """Clusters, cooperative and not, captured and not: how many blocks ran together."""
    found = Clusters()
    for size in (2,) if sheet.short else (2, 4, 8, 16):
        for cooperative in (False, True):
            for capture in (False, True):
                what = f"{size} blocks" + (", cooperative" if cooperative else "") + (", captured" if capture else "")
                sheet.row("launches", what, make=partial(found.launched, size, cooperative, capture))


# ---- ours

class Inputs:
    """Input and weights of the loss `Σ y g`, on the device."""

    def __init__(self, point: Point) -> None:
        cupy = require()
        rng = np.random.default_rng(0)
        self.point = point
        self.x = cupy.asarray(rng.normal(size=(point.batch, point.steps, point.x)).astype(np.float32))
        self.g = cupy.asarray(rng.normal(size=(point.batch, point.steps, point.h)).astype(np.float32))


def ours(layer: Any, data: Inputs, mode: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Forward, and a training step with all gradients; the projection of the input is inside of both."""
    infer, step = programs(layer, mode)
    return lambda: infer(data.x), lambda: step(data.x, data.g)


def programs(layer: Any, mode: str) -> tuple[Any, Any]:
    """Forward, and a training step, compiled."""
    parameters = dict(layer.named_parameters())

    def train(x: Any, g: Any) -> Any:
        y, _ = layer(x)
        loss = (y * g).sum()
        return loss, grad(loss, {**parameters, "x": x})

    return compile(lambda x: layer(x)[0], backend=mode), compile(train, backend=mode)


def _anchor(sheet: Sheet) -> Point:
    return TINY if sheet.short else ANCHOR


def _grid(sheet: Sheet) -> Sequence[Point]:
    return (TINY,) if sheet.short else GRID


def rows(sheet: Sheet, kind: str, mode: str) -> None:
    """One stock layer in one mode at ANCHOR."""
    _row_of_ours(sheet, kind, _anchor(sheet), mode)


def grid(sheet: Sheet, kind: str) -> None:
    """One stock layer at all sizes, as a graph."""
    for point in sheet.in_time(f"grid, {kind}", _grid(sheet)):
        for mode in CAPTURED_MODES:
            _row_of_ours(sheet, kind, point, mode)


def _row_of_ours(sheet: Sheet, kind: str, point: Point, mode: str) -> None:
    sheet.row("rows", kind, str(point), mode, make=lambda: timed(ours(stock(kind, point), Inputs(point), MODES[mode])))


def timed(runs: Iterable[Callable[[], Any]]) -> list[float]:
    """Milliseconds of forward and training step."""
    clock = Clock()
    return [clock.median(run) for run in runs]


def _absent(sheet: Sheet, peer: str) -> bool:
    """Whether a peer cannot use the GPU here, which the page says."""
    reason = peers.missing(peer)
    if reason:
        sheet.record.put("notes", peer, value=reason)
    return reason is not None


def torch_rows(sheet: Sheet, kind: str, whole: str = "") -> None:
    """PyTorch's own layer at every precision, at ANCHOR or at all sizes."""
    if _absent(sheet, "torch"):
        return

    def row(point: Point, precision: str) -> list[float]:
        return timed(peers.torch_stock(kind, Inputs(point), stock(kind, point), precision))

    for point in sheet.in_time(f"grid, {kind}, torch", _grid(sheet) if whole else (_anchor(sheet),)):
        for precision in peers.PRECISIONS:
            sheet.row("rows", kind, str(point), f"torch {precision}", make=partial(row, point, precision))


def unusual_cells(sheet: Sheet) -> None:
    """Cells that no library has kernels for."""
    point = _anchor(sheet)

    def row(case: Unusual, mode: str) -> list[float]:
        return timed(ours(layer_of(case, point), Inputs(point), MODES[mode]))

    for name, case in unusual().items():
        sheet.record.put("unusual", name, "point", value=str(point))
        for mode in ("G1 fp32", "G1 tf32"):
            sheet.row("unusual", name, mode, make=partial(row, case, mode))


def unusual_torch(sheet: Sheet, only: str = "", compiled: str = "") -> None:
    """The same cells in PyTorch as a loop, or with the step of one of them compiled."""
    if _absent(sheet, "torch"):
        return
    point = _anchor(sheet)

    def row(case: Unusual) -> list[float]:
        return timed(peers.torch_unusual(case, Inputs(point), layer_of(case, point).state_dict(), compiled=bool(compiled)))

    for name, case in unusual().items():
        if only in ("", name):
            sheet.record.put("unusual", name, "point", value=str(point))
            sheet.row("unusual", name, "torch compiled step" if compiled else "torch eager", make=partial(row, case))


def unusual_jax(sheet: Sheet, only: str) -> None:
    """One of these cells under `jax.lax.scan`."""
    if _absent(sheet, "jax"):
        return
    point = _anchor(sheet)
    case = unusual()[only]
    sheet.record.put("unusual", only, "point", value=str(point))
    sheet.row("unusual", only, "JAX scan", make=lambda: [
        peers.median_on_host(run) for run in peers.jax_on_gpu(case, Inputs(point), layer_of(case, point).state_dict())])


# ---- whether the numbers are right

def smoke(sheet: Sheet) -> None:
    """Outputs and gradients, eager, at the capture and after it, in every mode, against float64 on the interpreter; raises
    where they disagree."""
    for point in (TINY,) if sheet.short else SMOKE:
        _check(sheet, "smoke", point, "numpy")


def accuracy(sheet: Sheet) -> None:
    """The same at ANCHOR, against float64 on the GPU."""
    _check(sheet, "accuracy", _anchor(sheet), "cuda")


def _check(sheet: Sheet, what: str, point: Point, oracle: str) -> None:
    """Largest relative errors by mode, norm-wise, written before they are judged; bits may differ, and that is said."""
    exact, like = (nn.LSTM(point.x, point.h, dtype=d, rng=0) for d in ("float64", "float32"))
    like.load_state_dict({k: v.astype(np.float32) for k, v in exact.state_dict().items()})
    exact.load_state_dict({k: v.astype(np.float64) for k, v in like.state_dict().items()})
    true = _everything(exact, point, oracle, np.float64, 1)[0]
    wrong = []
    for name, mode in MODES.items():
        runs = _everything(like, point, mode, np.float32, 3)
        off = float(np.max([np.linalg.norm(a - b) / np.linalg.norm(b) for run in runs for a, b in zip(run, true, strict=True)]))
        same = all(np.array_equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))
        sheet.record.put(what, str(point), name, value={"error": off if math.isfinite(off) else "NaN", "same bits": same})
        allowed = ALLOWED[name.split()[1]]
        if not off <= allowed:  # NaN is no number that is small enough
            wrong.append(f"{name} is off by {off:.1e} (allowed: {allowed:.0e})")
    if wrong:
        raise BackendError(f"LSTM {point}: " + "; ".join(wrong))


def _everything(layer: Any, point: Point, mode: str, dtype: Any, times: int) -> list[list[Any]]:
    """Output and all gradients of several runs: the first is eager, the second captures, the third launches."""
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=(point.batch, point.steps, n)).astype(np.float32).astype(dtype) for n in (point.x, point.h))
    program = compared(layer, mode)
    return [[np.asarray(v, np.float64) for v in program(x, g)] for _ in range(times)]


def compared(layer: Any, mode: str) -> Any:
    """Output and all gradients, compiled."""
    parameters = dict(layer.named_parameters())

    def train(x: Any, g: Any) -> Any:
        y, _ = layer(x)
        return [y, *grad((y * g).sum(), [*parameters.values(), x])]

    return compile(train, backend=mode)


PARTS: Mapping[str, Callable[..., None]] = {
    "machine": machine, "smoke": smoke, "clusters": clusters, "node": node, "products": products, "exchange": exchange,
    "launches": launches, "rows": rows, "grid": grid, "torch": torch_rows, "accuracy": accuracy, "unusual": unusual_cells,
    "unusual torch": unusual_torch, "unusual JAX": unusual_jax}


def main(arguments: list[str] | None = None) -> int:
    """One part; the exit status says whether all of its figures are there."""
    p = argparse.ArgumentParser("tinyrnn.bench.gpu", description="Measure one part of the benchmark on a GPU.")
    p.add_argument("file", help="the JSON file that figures are written to")
    p.add_argument("part", help=", ".join(PARTS) + "; arguments follow behind colons")
    p.add_argument("--short", action="store_true", help="tiny sizes, to see that it works")
    p.add_argument("--seconds", type=float, default=math.inf, help="after these a part begins no more sizes")
    args = p.parse_args(arguments)
    name, *more = args.part.split(":")
    sheet = Sheet(Record(Path(args.file)), args.short, time.monotonic() + args.seconds)
    PARTS[name](sheet, *more)
    for said in sheet.failed:
        print(said)
    return 1 if sheet.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
