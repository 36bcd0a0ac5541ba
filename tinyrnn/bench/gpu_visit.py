"""What is measured in a visit to a GPU, in which order, and how long each step may take."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .cases import STOCK
from .gpu import MODES
from .gpu_report import page
from .report import write_page
from .steps import Record, Say, TimedCommand, take


class Command(Protocol):
    """How a part is run; `seconds` after which it begins no more sizes."""

    def __call__(self, part: str, seconds: float = 0.0) -> Sequence[str]: ...


PROBE, WHOLE = 165.0, 455.0   # seconds
BENCHMARK = "tinyrnn.bench.gpu"
ONE = "peephole LSTM"         # the cell that is compiled by others, which takes long


def by_module(file: Path, short: bool = False, module: str = BENCHMARK) -> Command:
    """The command of a part: this Python, a module, the file for the figures."""
    def command(part: str, seconds: float = 0.0) -> list[str]:
        return [sys.executable, "-m", module, str(file), part, *(["--short"] if short else []),
                *(["--seconds", str(seconds)] if seconds else [])]

    return command


def probe(part: Command) -> list[TimedCommand]:
    """Whether it works, what the chip can do, and one layer beside cuDNN's: three minutes.

    Where the smoke test fails, our own layers are not measured: their times would be those of wrong numbers.
    """
    return [
        TimedCommand("machine", part("machine"), 25),
        TimedCommand("smoke", part("smoke"), 50),
        TimedCommand("clusters", part("clusters"), 20),
        TimedCommand("node", part("node"), 20),
        TimedCommand("products", part("products"), 25),
        TimedCommand("exchange", part("exchange"), 20),
        TimedCommand("launches", part("launches"), 20),
        *(TimedCommand(f"LSTM, {mode}", part(f"rows:LSTM:{mode}"), 30, needs="smoke") for mode in MODES),
        TimedCommand("LSTM, torch", part("torch:LSTM"), 40)]


def whole(part: Command, tests: Sequence[TimedCommand] = (), sanitizers: Sequence[TimedCommand] = ()) -> list[TimedCommand]:
    """Tests, then our rows, then those of peers, and what takes long last: eight minutes."""
    return [
        TimedCommand("machine", part("machine"), 25),
        TimedCommand("smoke", part("smoke"), 50),
        *tests,
        *(TimedCommand(f"LSTM, {mode}", part(f"rows:LSTM:{mode}"), 30, needs="smoke") for mode in MODES),
        TimedCommand("accuracy", part("accuracy"), 30, needs="smoke"),
        TimedCommand("LSTM, torch", part("torch:LSTM"), 40),
        *(TimedCommand(f"grid, {kind}", part(f"grid:{kind}", 22), 35, needs="smoke") for kind in STOCK),
        TimedCommand("unusual cells", part("unusual"), 30, needs="smoke"),
        TimedCommand("unusual cells, torch", part("unusual torch"), 30),
        *sanitizers,
        *(TimedCommand(f"grid, {kind}, torch", part(f"torch:{kind}:whole", 8), 20) for kind in STOCK),
        TimedCommand("node", part("node"), 15),
        TimedCommand("torch.compile", part(f"unusual torch:{ONE}:compiled"), 60),
        TimedCommand("JAX", part(f"unusual JAX:{ONE}"), 40)]


def run(folder: Path, what: str, *, tests: Sequence[TimedCommand] = (), sanitizers: Sequence[TimedCommand] = (),
        seconds: float | None = None, short: bool = False, module: str = BENCHMARK) -> int:
    """The "probe", or the "whole" with what is tested there, with figures and page in a folder; the exit status."""
    record = Record(folder / ("gpu-probe.json" if what == "probe" else "gpu.json"))
    part = by_module(record.file, short, module)
    steps, limit = (probe(part), PROBE) if what == "probe" else (whole(part, tests, sanitizers), WHOLE)
    well = visit(steps, record, seconds or limit)
    print(record.file, record.file.with_suffix(".md"), sep="\n")
    return 0 if well else 1


def visit(steps: Sequence[TimedCommand], record: Record, seconds: float, say: Say = print) -> bool:
    """All steps, and the page about what was reached, also where the visit is broken off; whether all went well."""
    folder = record.file.parent
    folder.mkdir(parents=True, exist_ok=True)
    if record.file.exists():
        os.replace(record.file, record.file.with_suffix(".before.json"))
    shutil.rmtree(folder / "logs", ignore_errors=True)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return take(steps, record, seconds, say)
    finally:
        found = record.read()
        write_page(found, page(found), folder, record.file.stem)
        signal.signal(signal.SIGTERM, before)
