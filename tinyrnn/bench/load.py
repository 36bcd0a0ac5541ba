"""Threads, with the machine to themselves and beside other work; loops of Python, and functions of weights alone."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ..cells import Cell
from ..errors import LongLoopWarning
from ..nn import LSTM, Recurrent
from ..tensor.compile import Program, compile
from ..tensor.functional import parameter, tanh
from ..tensor.tensor import as_tensor
from ..tensor.transforms import grad
from . import sides
from .cases import BESIDE, SHARED, Point
from .timing import Ratio, burst, compare

Say = Callable[[str], None]
PAIRS, LOOP = 30, "while True: pass"


def _row(what: str, point: Point, busy: int, ratio: Ratio, say: Say) -> dict[str, Any]:
    beside = f" beside {busy} busy process{'es' * (busy > 1)}" if busy else ""
    say(f"LSTM, {what}, {point}{beside}: two threads take {ratio.ratio:.2f} of the time of one "
        f"[{ratio.low:.2f}, {ratio.high:.2f}]")
    return {"what": what, "point": str(point), "busy": busy, **ratio._asdict()}


def threads(short: bool, limit: float, say: Say) -> list[dict[str, Any]]:
    """Two threads against one: alone, and beside one and two processes that keep processors busy."""
    rows = [_row("training step", p, 0, _compared("training step", p, limit), say) for p in SHARED[: 1 if short else None]]
    for busy in (1,) if short else (1, 2):
        for what, point in BESIDE:
            with busy_processes(busy):
                rows.append(_row(what, point, busy, _compared(what, point, limit), say))
    return rows


def _compared(what: str, point: Point, limit: float) -> Ratio:
    task, layer = sides.Workload(point), LSTM(point.x, point.h, rng=0)
    runs = []
    for n in (2, 1):
        train, infer = sides.ours(layer, task, threads=n)
        runs.append(train if what == "training step" else infer)
        runs[-1]()
    two, one = runs
    return compare(lambda: burst(two), {"one thread": lambda: burst(one)}, PAIRS, limit)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Inside, so many processes are busy doing nothing."""
    found = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(count)]
    try:
        time.sleep(0.3)  # until they are there
        yield
    finally:
        for process in found:
            process.kill()
            process.wait()


def weights(say: Say, units: int = 512, steps: int = 2000, batch: int = 4) -> dict[str, Any]:
    """Bytes of temporaries of a training step whose recurrent weight is a function of weights, against the weight itself."""
    x = np.zeros((batch, steps, 16), np.float32)
    found = {}
    for text in ("W", "(M * W)", "abs(W)", "(W - W.T)", "softplus(W)"):
        layer = Recurrent(Cell(f"h[t] = tanh({text} @ h[t-1] + U @ x[t])"), x=16, h=units, rng=0)
        found[text] = _training(layer).trace(x).cost.memory / 2**20
        say(f"temporaries of {text} @ h[t-1], {units} units, {steps} steps: {found[text]:.0f} MiB")
    return {"units": units, "steps": steps, "batch": batch, "mib": found}


def budgets(short: bool, say: Say, units: int = 64, batch: int = 4) -> dict[str, Any]:
    """A long sequence within budgets of memory: MiB of temporaries and the time of a training step, against none."""
    steps, within = (500, ("2MB",)) if short else (20_000, ("40MB", "8MB"))
    x = np.random.default_rng(0).normal(size=(batch, steps, 8)).astype(np.float32)

    def run(memory: str | None) -> tuple[Callable[[], Any], float]:
        layer = LSTM(8, units, memory=memory, rng=0)
        parameters = dict(layer.named_parameters())
        program = compile(lambda x: grad((layer(x)[1][0] ** 2).sum(), parameters)).trace(x)
        return lambda: program(x), program.cost.memory / 2**20

    whole, most = run(None)
    found = []
    for budget in within:
        parts, mib = run(budget)
        ratio = compare(partial(burst, parts), {"no budget": partial(burst, whole)}, 10, 20.0)
        say(f"LSTM, {units} units, {steps} steps within {budget}: {mib:.0f} MiB against {most:.0f} MiB, "
            f"in {ratio.ratio:.2f} of the time [{ratio.low:.2f}, {ratio.high:.2f}]")
        found.append({"budget": budget, "mib": mib, **ratio._asdict()})
    return {"units": units, "steps": steps, "batch": batch, "mib": most, "budgets": found}


def _training(layer: Recurrent) -> Program:
    parameters = dict(layer.named_parameters())

    def train(x: Any) -> Any:
        y, _ = layer(x)
        return grad((y * y).sum(), parameters)

    return compile(train)


def loops(counts: Sequence[int], say: Say) -> dict[str, float]:
    """Seconds to compile a training step that is a loop of so many steps in Python."""
    found = {}
    W, U = (parameter(np.full((8, 8), 0.1, np.float32), name) for name in "WU")
    for n in counts:
        def train(x: Any, n: int = n) -> Any:
            h = as_tensor(np.zeros((3, 8), np.float32))
            for t in range(n):
                h = tanh(x[t] @ U + h @ W)
            return grad((h * h).sum(), [W, U])

        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LongLoopWarning)
            compile(train).trace(np.zeros((n, 3, 8), np.float32))
        found[str(n)] = time.perf_counter() - began
        say(f"a Python loop of {n} steps compiles in {found[str(n)]:.1f} s")
    return found
