"""What a derivation has to be: the derivatives of a cell's loss at a random point of a finite field, and in floats.

The loss is a sum of all outputs of all steps with random weights, so that whatever a loss sends to an output is free.  A
derivative by a quantity at a step is the slope of the loss when that quantity alone moves: forward runs with a tangent, no
backward pass.  Floats come from the engine's backward graph: they are shown, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..analysis.cell_run import CellRun, cell_run
from ..analysis.subject import subject_of_cell
from ..cells import Cell
from ..cells.terms import Equation, Term, fresh, show_system
from ..symbolic.checker.meaning import Equations
from ..symbolic.checker.numbers import (
    FUNCTIONS,
    Allowance,
    Array,
    FieldPoint,
    Function,
    Residue,
    drawn_prime,
    each,
    filled,
    nears,
    still,
    summed,
)
from ..symbolic.derivation.derive import Derivation, derive
from ..tensor.functional import sum as total

WORK = 40_000_000   # numbers that a judgement may make
ROOT = 12           # exp(x) is the 12th power of a free element, so that exp(x / 2), exp(x / 3), ... are powers as well
FURTHEST = 64       # times ROOT: the largest multiple of x of which exp is known to be a power of exp(x)


class TrialPoint(FieldPoint):
    """A point where functions that are made of exp are made of it: students write a sigmoid in many ways."""

    def __init__(self, rng: np.random.Generator, draw: int) -> None:
        super().__init__(drawn_prime(rng), rng, Allowance(WORK), draw, modular=True)
        self.rays: list[tuple[int, int]] = []  # an argument of exp, and the root of its value

    def call(self, name: str, x: Residue) -> Residue:
        if name == "sigmoid":
            up = self.call("exp", x)
            return (up * self.reciprocal(1 + up)).at(FUNCTIONS["sigmoid"].near(x.near))
        return self.call("log", 1 + self.call("exp", x)) if name == "softplus" else super().call(name, x)

    def _value(self, name: str, f: Function, v: int) -> int:
        if name != "exp" or v == 0:
            return super()._value(name, f, v)
        for u, root in self.rays:
            for b in (1, 2, 3, 4, 6, 12):
                a = v * b * pow(u, -1, self.p) % self.p
                a = a - self.p if a > self.p // 2 else a
                if abs(a) <= FURTHEST:
                    return pow(root, a * ROOT // b, self.p)
        self.rays.append((v, self._hash("root of exp", v)))
        return pow(self.rays[-1][1], ROOT, self.p)


def opened(cell: Cell) -> tuple[Cell, dict[str, str]]:
    """The cell with what goes into the function of a gate as a quantity of its own, and the names of those, by gate."""
    taken, names = {*cell.system.names, *cell.parameters}, dict[str, str]()
    equations: list[Equation] = []
    for e in cell.system.equations:
        plain = e.term.kind == "call" and len(e.term.args) == 1 and e.term.value not in ("sum", "mean")
        if plain and e.term.args[0].kind != "signal":
            mark = names[e.name] = fresh(f"a_{e.name}", taken)
            taken.add(mark)
            equations += [Equation(mark, e.term.args[0]), Equation(e.name, replace(e.term, args=(Term("signal", (mark, 0)),)))]
        else:
            equations.append(e)
    outputs = cell.outputs
    return Cell(show_system(replace(cell.system, equations=tuple(equations), outputs=outputs)), cell.name), names


class Equals(Equations):
    """Equations, and formulas of derivations, which hold transposes and diagonals."""

    def _value(self, t: Term, now: Callable[[str], Array], past: Callable[[str, int], Array]) -> Any:
        if t.kind == "transpose" and t.args:
            return self._of(t.args[0], now, past).T
        if t.value == "diag":
            vector = self._of(t.args[0], now, past)
            out = filled((vector.size, vector.size), partial(self.point.number, 0))
            out[np.diag_indices(vector.size)] = vector
            return out
        return super()._value(t, now, past)


class Truth:
    """A run of a cell at a random point, and the derivative of its loss by anything in it; `draw` says of which size its floats
    are, which decide branches."""

    @np.errstate(all="ignore")  # what is far from 1 may overflow as a float
    def __init__(self, cell: Cell, seed: int, draw: int = 0) -> None:
        self.given, self.seed = cell, seed
        self.cell, self.arguments = opened(cell)
        self.derivation: Derivation = derive(self.cell)
        cell, rng = self.cell, np.random.default_rng(seed)
        self.point = TrialPoint(rng, draw)
        self.sizes = {s: 2 + i for i, s in enumerate(cell.sizes)}
        self.steps = max((k for _, k in cell.slots), default=0) + 2
        self.parameters = {p: self._drawn(s) for p, s in cell.shapes(self.sizes).items()}
        self.system = cell.system
        self.equations = Equals(self.system, self.point, self.parameters)
        self.history: dict[int, dict[str, Array]] = {t: {} for t in range(-self.steps, 1)}
        for n, k in cell.slots:
            learned = self.parameters.get(f"{n}[{1 - k}]")
            self.history[1 - k][n] = self._drawn(cell.signal_shape(n, self.sizes)) if learned is None else learned
        self.loss_weights = {(o, t): self._drawn(cell.signal_shape(o, self.sizes)) for o in cell.outputs
                             for t in range(1, self.steps + 1)}
        for t in range(1, self.steps + 1):
            x = {n: self._drawn(cell.signal_shape(n, self.sizes)) for n in cell.inputs}
            self.history[t] = self._step(t, self.history, x, self.equations, {})
        self._adjoints: dict[tuple[str, int], Array] = {}
        self.known = self.point.noted()  # how the cell itself decides
        self.sides = dict(self.point.outcomes)

    @contextmanager
    def as_the_cell_decides(self) -> Iterator[list[bool]]:
        """Whether what is computed inside decides by numbers by which the cell does not: the list has one entry then."""
        found: list[bool] = []
        self.point.decisions = self.point_of_known()
        yield found
        if self.point.foreign(self.known):
            found.append(True)
        self.point.decisions = self.point_of_known()

    def point_of_known(self) -> Any:
        """A copy of the decisions of the cell."""
        kinks, sides, ties = self.known
        return set(kinks), set(sides), set(ties)

    def _drawn(self, shape: tuple[int, ...]) -> Array:
        return self.point.draw(shape, False)

    def _step(self, t: int, history: Mapping[int, Mapping[str, Array]], inputs: Mapping[str, Array], equations: Equations,
              moved: Mapping[str, Array]) -> dict[str, Array]:
        """Every quantity of a step, to some of which a number that only moves is added."""
        found = {n: x + moved[n] if n in moved else x for n, x in inputs.items()}

        def past(name: str, lag: int) -> Array:
            return history[t - lag][name]

        def now(name: str) -> Array:
            if name not in found:
                value = equations.value(equations.by_name[name].term, now, past)
                found[name] = value + moved[name] if name in moved else value
            return found[name]

        for name in equations.by_name:
            now(name)
        return found

    # ---- derivatives in the field

    def adjoint(self, name: str, t: int) -> Array:
        """∂L/∂name[t], entry by entry; its floats are the engine's."""
        if (name, t) not in self._adjoints:
            shape = self.history[t][name].shape
            entries = np.empty(shape, object)
            for i in np.ndindex(shape):
                entries[i] = self._slope(t, {name: self._direction(shape, i)}, {})
            floats = self.floats.gradients.get((name, t), np.zeros(shape))
            self._adjoints[name, t] = each(lambda a, v: a.at(v), entries, floats)
        return self._adjoints[name, t]

    def share(self, parameter: str, direction: Array, t: int) -> Residue:
        """The slope of the loss along a direction of a parameter as it is used at a step alone."""
        moving = each(lambda n: Residue(self.point, 0.0, 0, n.value, 0.0, 1.0), direction)
        return self._slope(t, {}, {parameter: moving})

    def _direction(self, shape: tuple[int, ...], entry: tuple[int, ...]) -> Array:
        out = filled(shape, partial(self.point.number, 0))
        out[entry] = Residue(self.point, 0.0, 0, 1)
        return out

    @np.errstate(all="ignore")
    def _slope(self, t: int, moved: Mapping[str, Array], parameters: Mapping[str, Array]) -> Residue:
        history = dict(self.history)
        found = self.point.number(0)
        own = {p: x + parameters[p] if p in parameters else x for p, x in self.parameters.items()}
        for s in range(t, self.steps + 1):
            equations = Equals(self.system, self.point, own) if s == t and parameters else self.equations
            inputs = {n: self.history[s][n] for n in self.cell.inputs}
            history[s] = self._step(s, history, inputs, equations, moved if s == t else {})
            for o in self.cell.outputs:
                weighted = each(lambda r, y: r * y, self.loss_weights[o, s], history[s][o])
                found = found + summed(weighted, tuple(range(weighted.ndim)), False, self.point).item()
        return Residue(self.point, 0.0, found.tangent, 0, found.slope_degree)

    # ---- the same in floats

    @cached_property
    def floats(self) -> CellRun:
        """∂L/∂ of every quantity and of every parameter's share, from the engine."""
        given = {p: nears(x) for p, x in self.parameters.items()}
        given |= {n: np.array([nears(self.history[t][n]) for t in range(1, self.steps + 1)]) for n in self.cell.inputs}
        given |= {f"{n}[{1 - k}]": nears(self.history[1 - k][n]) for n, k in self.cell.slots if n in self.cell.states}
        with np.errstate(all="ignore"):
            subject = subject_of_cell(self.cell, self.steps, given, self._weighted)
            return cell_run(self.cell, subject, {}, given=given)

    def _weighted(self, outputs: list[Any]) -> Any:
        parts = [(y[o] if isinstance(y, dict) else y, self.loss_weights[o, t]) for t, y in enumerate(outputs, 1)
                 for o in self.cell.outputs]
        return sum(total(y * nears(r)) for y, r in parts)

    def quantity(self, name: str, t: int) -> Array:
        """A quantity of the forward pass; before the first step, and after the last, any numbers where there are none."""
        known = self.history.setdefault(t, {})
        if name not in known:
            known[name] = self._drawn(self.history[1][name].shape)
        return still(known[name])
