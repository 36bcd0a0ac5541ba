"""What a derivation has to be: the derivatives of a cell's loss at a random point of a finite field, and in floats.

The loss is a sum of all outputs of all steps with random weights, so that whatever a loss sends to an output is free.  A
derivative by a quantity at a step is the slope of the loss when that quantity alone moves: forward runs with a tangent, no
backward pass.  Floats come from the engine's backward graph: they are shown, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..cells.terms import Equation, Term
from ..ir.graph import Graph
from ..symbolic.checker.meaning import Equations
from ..symbolic.checker.numbers import (
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
from ..symbolic.derivation.derive import Derivation
from ..tensor.functional import sum as total

WORK = 40_000_000   # numbers that a judgement may make
ROOT = 12           # exp(x) is the 12th power of a free element, so that exp(x / 2), exp(x / 3), ... are powers as well
FURTHEST = 64       # times ROOT: the largest multiple of x of which exp is known to be a power of exp(x)


class TrialPoint(FieldPoint):
    """A point where functions that are made of exp are made of it: students write a sigmoid in many ways."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(drawn_prime(rng), rng, Allowance(WORK), modular=True)
        self.rays: list[tuple[int, int]] = []  # an argument of exp, and the root of its value

    def call(self, name: str, x: Residue) -> Residue:
        if name == "sigmoid":
            up = self.call("exp", x)
            return up * self.reciprocal(1 + up)
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


class Truth:
    """A run of a cell at a random point, and the derivative of its loss by anything in it."""

    def __init__(self, derivation: Derivation, seed: int) -> None:
        self.derivation, self.cell = derivation, derivation.cell
        cell, rng = self.cell, np.random.default_rng(seed)
        self.point = TrialPoint(rng)
        self.sizes = {s: 2 + i for i, s in enumerate(cell.sizes)}
        self.steps = max((k for _, k in cell.slots), default=0) + 2
        self.parameters = {p: self._drawn(s) for p, s in cell.shapes(self.sizes).items()}
        inner = {n: Term("signal", (mark, 0)) for n, mark in derivation.arguments.items()}
        own = [Equation(inner[e.name].value[0], e.term.args[0]) for e in cell.roles.order if e.name in inner]
        gates = [Equation(e.name, replace(e.term, args=(inner[e.name],))) if e.name in inner else e for e in cell.roles.order]
        self.system = replace(cell.system, equations=(*own, *gates))
        self.equations = Equations(self.system, self.point, self.parameters)
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
            floats = self.floats.get((name, t), np.zeros(shape))
            self._adjoints[name, t] = each(lambda a, v: a.at(v), entries, floats)
        return self._adjoints[name, t]

    def share(self, parameter: str, t: int, direction: Array) -> Residue:
        """The slope of the loss along a direction of a parameter as it is used at a step alone."""
        moving = each(lambda n: Residue(self.point, 0.0, 0, n.value, 0.0, 1.0), direction)
        return self._slope(t, {}, {parameter: moving})

    def _direction(self, shape: tuple[int, ...], entry: tuple[int, ...]) -> Array:
        out = filled(shape, partial(self.point.number, 0))
        out[entry] = Residue(self.point, 0.0, 0, 1)
        return out

    def _slope(self, t: int, moved: Mapping[str, Array], parameters: Mapping[str, Array]) -> Residue:
        history = dict(self.history)
        found = self.point.number(0)
        own = {p: x + parameters[p] if p in parameters else x for p, x in self.parameters.items()}
        for s in range(t, self.steps + 1):
            equations = Equations(self.system, self.point, own) if s == t and parameters else self.equations
            inputs = {n: self.history[s][n] for n in self.cell.inputs}
            history[s] = self._step(s, history, inputs, equations, moved if s == t else {})
            for o in self.cell.outputs:
                weighted = each(lambda r, y: r * y, self.loss_weights[o, s], history[s][o])
                found = found + summed(weighted, tuple(range(weighted.ndim)), False, self.point).item()
        return Residue(self.point, 0.0, found.tangent, 0, found.slope_degree)

    # ---- the same in floats

    @cached_property
    def floats(self) -> dict[tuple[str, int], Any]:
        """∂L/∂ of every quantity at every step, from the engine."""
        graph = self.cell.unroll(self.steps, self.sizes, batch=1, loss=self._weighted, gradients=True,
                                 mark=self.derivation.mark)
        nodes = {(k.name.removeprefix("dloss/d"), k.step): n for k, n in graph.labels.items() if k.name.startswith("dloss/d")}
        given = {p: nears(x) for p, x in self.parameters.items()}
        given |= {f"{n}[{t}]": nears(x)[None] for t, found in self.history.items() for n, x in found.items()
                  if f"{n}[{t}]" in graph.inputs and f"{n}[{t}]" not in given}
        names = {f"{n}[{t}]": (n, t) for n in self.cell.inputs for t in range(1, self.steps + 1)}
        whole = Graph({**{f"{n} {t}": node for (n, t), node in nodes.items()},
                       **{name: graph.outputs[f"dloss/d{name}"] for name in names}})
        run = whole.run({k: v for k, v in given.items() if k in whole.inputs})
        found = {(n, t): run[f"{n} {t}"][0] for n, t in nodes if isinstance(t, int)}
        return {**found, **{w: run[k][0] for k, w in names.items()}}

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
