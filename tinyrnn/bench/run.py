"""The whole benchmark, as one nested dict of numbers."""

from __future__ import annotations

import functools
import operator
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..nn import LSTM
from ..tensor.compile import compile
from ..tensor.functional import parameter
from ..tensor.transforms import grad
from . import load, machine, processes, sides
from .cases import GRID, SERVED, STEP, STOCK, STREAMS, UNUSUAL_GRID, WIDE, Point, unusual
from .timing import Ratio, burst, compare, spoken
from .worker import Worker

Say = Callable[[str], None]
PAIRS = 30
PEERS = "torch", "jax", "onnxruntime"


def measure(against: Sequence[str] = PEERS, *, short: bool = False, say: Say = print) -> dict[str, Any]:
    """Every table of the report; `short` measures the two smallest points only, in seconds."""
    absent = sides.missing()
    peers = [p for p in against if p not in absent]
    for name in (p for p in against if p in absent):
        say(f"{name}: {absent[name]}; its columns are left out")
    limit = 1.0 if short else 14.0
    found: dict[str, Any] = {"machine": machine.described(), "date": time.strftime("%Y-%m-%d"), "notes": absent}
    found["peak_gflops"] = machine.peak_flops() / 1e9
    say(f"registers: {found['peak_gflops']:.0f} GFLOP/s")
    if "torch" in peers:
        found["stock"] = _stock(GRID[:2] if short else GRID, limit, say)
        found["streams"] = _streams(STREAMS[:1] if short else STREAMS, limit, say)
    if "onnxruntime" in peers:
        found["served"] = _served(SERVED[:1] if short else SERVED, limit / 2, say)
    found["calls"] = _calls(limit / 4, say)
    found["lengths"] = _lengths(3 if short else 12, say)
    found["threads"] = load.threads(short, limit / 2, say)
    found["weights"] = load.weights(say, *((32, 50) if short else ()))
    found["loops"] = load.loops((50,) if short else (250, 500, 1000, 2000), say)
    found["budgets"] = load.budgets(short, say)
    found["unusual"] = _unusual(UNUSUAL_GRID[:2] if short else UNUSUAL_GRID, peers, limit / 2, say)
    if "torch" in peers and not short:
        found["torch.compile"] = _torch_compile(say)
    found["first calls"] = _first_calls(short, say)
    found["efficiency"] = _efficiency(WIDE[:1] if short else WIDE, limit / 4, say)
    found["roofline"] = _roofline(found["peak_gflops"], say)
    found["tracing"] = _tracing(say)
    if "torch" in peers:
        found["memory"] = _memory(WIDE[:1] if short else WIDE[1:], say)
    return found


def _row(point: Point, ratio: Ratio, say: Say, what: str) -> dict[str, Any]:
    say(f"{what} {point}: {spoken(ratio.ours)} against {spoken(ratio.peer)} ({ratio.setting}), ratio {ratio.ratio:.2f} "
        f"[{ratio.low:.2f}, {ratio.high:.2f}]")
    return {"point": str(point), **ratio._asdict()}


def _stock(grid: Sequence[Point], limit: float, say: Say) -> dict[str, Any]:
    with Worker("ours") as own, Worker("torch") as torch:
        return {kind: [_against(own, torch, "train", kind, point, limit, say, "training step,") for point in grid]
                for kind in STOCK}


def _against(own: Worker, peer: Worker, what: str, name: str, point: Point, limit: float, say: Say,
             said: str) -> dict[str, Any]:
    """One case of both sides, each in its process."""
    run = own.make(what, name, point)["ours"]
    return _row(point, compare(run, peer.make(what, name, point), PAIRS, limit), say, f"{name}, {said}")


def _streams(points: Sequence[Point], limit: float, say: Say) -> dict[str, Any]:
    """Inference of one row."""
    found: dict[str, Any] = {}
    with Worker("ours") as own, Worker("torch") as torch:
        for kind in STOCK:
            rows = []
            for point in points:
                row = _against(own, torch, "infer", kind, point, limit / 3, say, "inference,")
                weights = 4 * sides.stock(kind, point).weight_hh_l0.size  # bytes that every step reads
                alone = own.make("single", kind, point)["ours"]
                single = statistics.median(alone() for _ in range(5))
                rows.append(row | {"single_thread_ms": single, "read_gb_s": weights * point.steps / single / 1e6,
                                   "cache_gb_s": machine.read_bandwidth(weights) / 1e9})
            found[kind] = rows
    return found


def _served(points: Sequence[Point], limit: float, say: Say) -> dict[str, Any]:
    """Whole sequences, and single steps by the handle, against onnxruntime."""
    with Worker("ours") as own, Worker("onnxruntime") as peer:
        return {what: {kind: [_against(own, peer, what, kind, point, limit, say, f"onnxruntime, {what},") for point in where]
                       for kind in STOCK} for what, where in (("step", [STEP]), ("infer", points))}


def _calls(limit: float, say: Say) -> dict[str, Any]:
    """What a call costs beside its kernels: `predict` against the compiled function, and a small function."""
    point, rows = STREAMS[0], []
    with Worker("ours") as own, Worker("ours") as other:
        for kind in STOCK:
            run, predict = other.make("infer", kind, point)["ours"], own.make("predict", kind, point)["ours"]
            row = _row(point, compare(predict, {"compiled": run}, PAIRS, limit), say, f"{kind}, predict,")
            rows.append(row | {"kind": kind})
    small = small_call()
    small()
    found = {"predict": rows, "small_us": 1e3 * burst(small)}
    say(f"a compiled function of one 4 x 4 array with ten parameters and two results: {found['small_us']:.1f} µs")
    return found


def small_call() -> Callable[[], Any]:
    """A compiled function of little work: what it takes is the call."""
    rng = np.random.default_rng(0)
    p = [parameter(rng.normal(size=(4, 4)).astype(np.float32), f"p{i}") for i in range(10)]
    program = compile(lambda x: (functools.reduce(operator.mul, p[:5], x), functools.reduce(operator.add, p[5:], x)))
    x = rng.normal(size=(4, 4)).astype(np.float32)
    return lambda: program(x)


def _lengths(count: int, say: Say) -> dict[str, float]:
    """`predict` at lengths that were not seen before: until the result is there."""
    layers = {"LSTM": LSTM(16, 64, rng=0), "3 layers, both directions": LSTM(16, 64, num_layers=3, bidirectional=True, rng=0)}
    found = {}
    for name, layer in layers.items():
        took = []
        for steps in range(5, 6 + count):
            x = np.ones((1, steps, 16), np.float32)
            began = time.perf_counter()
            layer.predict(x)
            took.append(time.perf_counter() - began)
        found[name] = 1e3 * statistics.median(took[1:])
        say(f"a new length, {name}: {found[name]:.1f} ms")
    return found


def _unusual(grid: Sequence[Point], peers: Sequence[str], limit: float, say: Say) -> dict[str, Any]:
    found: dict[str, Any] = {p: {} for p in peers if p in ("torch", "jax")}
    for p in found:
        with Worker("ours") as own, Worker(p) as peer:
            for name in unusual():
                found[p][name] = [_against(own, peer, "train", name, point, limit, say, f"against {p},") for point in grid]
    return found


def _torch_compile(say: Say) -> dict[str, Any]:
    """One cell through torch.compile: its first call takes minutes where there is a compiler at all."""
    name, case = "minimal gated unit", unusual()["minimal gated unit"]
    point = GRID[2]
    task, layer = sides.Workload(point), sides.layer_of(case, point)
    began = time.perf_counter()
    try:
        run, _ = sides.torch_unusual(case, task, layer.state_dict(), compiled=True)
        run()
    except Exception as error:  # any failure of another library's compiler is a result of this measurement
        say(f"torch.compile: {type(error).__name__}")
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    first = time.perf_counter() - began
    own = sides.ours(layer, task)[0]
    own()
    row = _row(point, compare(lambda: burst(own), {"its own": lambda: burst(run)}, PAIRS, 5.0), say, f"{name}, torch.compile,")
    return {**row, "first_call_s": first}


def _first_calls(short: bool, say: Say) -> list[dict[str, Any]]:
    rows = []
    for steps in (10,) if short else (10, 100, 1000, 10000):
        row = {"steps": steps, **processes.first_calls("LSTM", steps, 4, 16, 32)}
        say(f"first call at T={steps}: {row['cold_s']:.2f} s cold, {row['cached_s']:.2f} s with kernels on disk")
        rows.append(row)
    return rows


def _efficiency(grid: Sequence[Point], limit: float, say: Say) -> list[dict[str, Any]]:
    """The share of the register-only peak that a whole training step reaches, one thread: step and peak in turn."""
    rows = []
    for kind in STOCK:
        for point in grid:
            run, _ = sides.ours(sides.stock(kind, point), sides.Workload(point), threads=1)
            gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
            products = 6 * point.steps * point.batch * gates * point.h * (point.x + point.h)
            found = compare(functools.partial(burst, run), {"registers": functools.partial(_at_peak, products)}, PAIRS, limit)
            rate, share = products / found.ours / 1e6, 1 / found.ratio
            say(f"{kind} {point}: {rate:.0f} GFLOP/s of products, {share:.2f} [{1 / found.high:.2f}, {1 / found.low:.2f}] "
                "of the peak")
            rows.append({"kind": kind, "point": str(point), "gflops": rate, "share": share})
    return rows


def _at_peak(operations: int) -> float:
    """Milliseconds for so many operations in registers."""
    return 1e3 * operations / machine.peak_flops(3)


def _roofline(peak: float, say: Say) -> dict[str, Any]:
    """Every kernel of an LSTM's training step: its rate, and the most that the peak and the cache allow."""
    point = WIDE[0]
    task, layer = sides.Workload(point), sides.stock("LSTM", point)
    parameters = dict(layer.named_parameters())

    def train(x: Any, g: Any) -> Any:
        loss = (layer(x)[0] * g).sum()
        return loss, grad(loss, {**parameters, "x": x})

    rows = []
    for k in compile(train).profile(task.x, task.g):
        if k.seconds > 2e-5:
            bandwidth = machine.read_bandwidth(max(k.bytes // point.steps if "loop" in k.what else k.bytes, 1 << 14)) / 1e9
            roof = min(peak, bandwidth * k.flops / k.bytes)
            rows.append({"what": k.what, "ms": 1e3 * k.seconds, "gflops": k.flops / k.seconds / 1e9,
                         "gb_s": k.bytes / k.seconds / 1e9, "intensity": k.flops / k.bytes, "roof_gflops": roof})
    say(f"roofline: {len(rows)} kernels of an LSTM's training step")
    return {"point": str(point), "kernels": rows}


def _tracing(say: Say) -> dict[str, float]:
    """Two stacked layers, training, at new lengths: the function traced, and everything until it can run."""
    layer = LSTM(16, 32, num_layers=2, rng=0)
    parameters = dict(layer.named_parameters())
    whole, traced = [], []
    for steps in range(5, 17):
        task = sides.Workload(Point(steps, 4, 16, 32))
        took: list[float] = []

        def train(x: Any, g: Any, took: list[float] = took) -> Any:
            began = time.perf_counter()
            loss = (layer(x)[0] * g).sum()
            gradients = grad(loss, parameters)
            took.append(time.perf_counter() - began)
            return loss, gradients

        began = time.perf_counter()
        compile(train).trace(task.x, task.g)
        whole.append(time.perf_counter() - began)
        traced += took
    found = {"traced_ms": 1e3 * statistics.median(traced), "ready_ms": 1e3 * statistics.median(whole)}
    say(f"two stacked layers: traced in {found['traced_ms']:.0f} ms, ready in {found['ready_ms']:.0f} ms")
    return found


def _memory(grid: Sequence[Point], say: Say) -> list[dict[str, Any]]:
    rows = []
    for kind in STOCK:
        for p in grid:
            own, peer = (processes.peak_memory(side, kind, p.steps, p.batch, p.x, p.h) for side in ("ours", "torch"))
            ratio = own / max(peer, 1)
            say(f"{kind} {p}: peak {own / 2**20:.0f} MiB against {peer / 2**20:.0f} MiB, ratio {ratio:.2f}")
            rows.append({"kind": kind, "point": str(p), "ours_mib": own / 2**20, "torch_mib": peer / 2**20, "ratio": ratio})
    return rows
