"""Printed BPTT formulas against the derivative of their own forward pass, at a random point of a finite field.

A file holds the forward equations, the printed backward lines from the last step to the first, the share of each step
in every gradient, and corrections where the printed lines are not the derivative.  Beyond the last step everything is
0.  Nothing of the engine takes part: equations and formulas are evaluated by the checker of certificates.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...cells.equations import parse, parse_line
from ...cells.terms import Equation
from ...errors import ArgumentError
from ..checker.meaning import Equations
from ..checker.numbers import Allowance, Array, FieldPoint, Residue, drawn_prime, each, filled, still, summed

FOLDER = Path(__file__).parent
WIDTH, WORK = 3, 10_000_000
"""Inputs and states have one size: some printed products fit only then."""


@dataclass(frozen=True)
class Transcription:
    """One formulation, as transcribed."""

    name: str
    title: str
    source: str
    url: str
    year: int
    steps: int
    scope: str
    cell: str
    backward: str
    gradients: dict[str, str]
    corrections: tuple[tuple[str, dict[str, str]], ...]


@dataclass(frozen=True)
class Comparison:
    """Whether the printed formulas are the derivative; which quantities are not; which corrections make them so."""

    printed: Transcription
    agrees: bool
    wrong: tuple[str, ...]
    corrected: bool
    necessary: tuple[bool, ...]     # for each correction: whether the others without it fail

    @property
    def verdict(self) -> str:
        if self.agrees:
            return "agrees with the derivative as printed"
        n, wrong = len(self.necessary), f"does not agree as printed (gradients of {', '.join(self.wrong)})"
        if not self.corrected:
            return wrong
        needed = "not all of which are necessary" if not all(self.necessary) else (
            "each of which is necessary" if n > 1 else "which is necessary")
        return f"{wrong}; agrees after {n} correction{'s' * (n > 1)}, {needed}"


def names() -> list[str]:
    """The formulations that come with tinyrnn."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def read(name: str) -> Transcription:
    """One formulation by its name."""
    if name not in names():
        raise ArgumentError(f"there is no published formulation {name!r}; there are {', '.join(names())}")
    data = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    corrections = tuple((c["what"], dict(c["lines"])) for c in data.pop("corrections", []))
    return Transcription(name, corrections=corrections, **data)


def check(name: str, seed: int = 0) -> Comparison:
    """Run one formulation as printed, with all corrections, and with all but each one."""
    printed = read(name)
    wrong = _wrong(printed, (), seed)
    every = range(len(printed.corrections))
    needed = tuple(bool(_wrong(printed, [k for k in every if k != j], seed)) for j in every)
    return Comparison(printed, not wrong, tuple(wrong), not _wrong(printed, every, seed), needed)


def _wrong(printed: Transcription, chosen: Iterable[int], seed: int) -> list[str]:
    """The gradients that are not the derivative."""
    lines = {k: v for j in chosen for k, v in printed.corrections[j][1].items()}
    return [g for g in printed.gradients if not _holds(printed, lines, g, seed)]


def _holds(printed: Transcription, lines: Mapping[str, str], gradient: str, seed: int) -> bool:
    """Whether one printed gradient, along a random direction, is the derivative along it."""
    rng = np.random.default_rng(seed)
    point = FieldPoint(drawn_prime(rng), rng, Allowance(WORK))
    run = _Run(printed, lines, point, gradient)
    total = point.number(0)
    for t in range(1, printed.steps + 1):
        share = run.term(parse_line(lines.get(gradient, printed.gradients[gradient])), t)
        moved = run.moving[f"{gradient}[{t}]" if f"{gradient}[1]" in run.moving else gradient]
        direction = each(lambda n: Residue(point, 0.0, n.tangent), moved)
        inner = each(lambda a, b: a.steady() * b, share, direction)
        total = total + summed(inner, tuple(range(np.ndim(share))), False, point).item()
    return total.value == run.loss.tangent


class _Run:
    """The forward pass with one quantity moving, and the printed backward pass on steady numbers."""

    def __init__(self, printed: Transcription, lines: Mapping[str, str], point: FieldPoint, gradient: str) -> None:
        self.printed, self.point = printed, point
        system = parse(printed.cell)
        self.values: dict[str, dict[int, Array]] = {}
        shapes = _shapes(printed)
        parameters = {p: point.draw(s, p == gradient) for p, s in shapes.items()}
        self.moving = dict(parameters)
        self.equations = Equations(system, point, {p: still(v) for p, v in parameters.items()})
        forward = Equations(system, point, parameters)
        states = {t.value[0] for e in system.equations for t in e.term.walk() if t.kind == "signal" and t.value[1]}
        before = {s: point.draw((WIDTH,), False) for s in states}
        outputs = {t.value[0][5:] for e in self._lines(lines) for t in e.term.walk()
                   if t.kind == "signal" and t.value[0].startswith("loss_")}
        self.loss = point.number(0)
        history: dict[int, dict[str, Array]] = {0: before}

        def earlier(t: int, name: str, lag: int) -> Array:
            return history[t - lag][name]

        for t in range(1, printed.steps + 1):
            x = self.moving[f"x[{t}]"] = point.draw((WIDTH,), gradient == "x")
            history[t] = forward.step(partial(earlier, t), {"x": x})
            for o in outputs:
                weight = point.draw((WIDTH,), False)
                self.loss = self.loss + summed(each(lambda r, y: r * y, weight, history[t][o]), (0,), False, point).item()
                self.values.setdefault(f"loss_{o}", {})[t] = weight
        for t, values in history.items():
            for n, v in values.items():
                self.values.setdefault(n, {})[t] = still(v)
        for t in range(printed.steps, 0, -1):
            for e in self._lines(lines)[: len(printed.backward.strip().splitlines())]:
                self.values.setdefault(e.name, {})[t] = self.term(e, t)

    def _lines(self, lines: Mapping[str, str]) -> list[Equation]:
        """The backward lines, then the gradients."""
        found = []
        for text in self.printed.backward.strip().splitlines():
            name = text.split("[")[0].strip()
            term = parse_line(lines.get(name, text.split("=", 1)[1]))
            found.append(Equation(name, term.term))
        return [*found, *(parse_line(lines.get(g, text)) for g, text in self.printed.gradients.items())]

    def term(self, e: Equation, t: int) -> Array:
        """A formula at step t; what lies beyond the last step is 0."""
        zero = filled((WIDTH,), lambda: self.point.number(0))
        return self.equations.value(e.term, lambda n: self.values[n][t], lambda n, lag: (
            zero if t - lag > self.printed.steps else self.values[n][t - lag]))


def _shapes(printed: Transcription) -> dict[str, tuple[int, ...]]:
    """A parameter before @ is a matrix, any other a vector."""
    shapes: dict[str, tuple[int, ...]] = {}
    for e in parse(printed.cell).equations:
        for t in e.term.walk():
            if t.kind == "binary" and t.value == "@":
                shapes[t.args[0].value] = (WIDTH, WIDTH)
            elif t.kind == "parameter":
                shapes.setdefault(t.value, (WIDTH,))
    return shapes
