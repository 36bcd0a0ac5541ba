"""Formulas of a derivation at a step of a run, with the numbers of the run put in."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cells.terms import Term, fresh, number
from ..symbolic.derivation.derive import Derivation
from ..symbolic.derivation.to_terms import block_name, is_number, shifted
from .cell_run import Array, CellRun

ZERO = ("binary", "negate", "transpose")  # kinds that are zero where a part is, as are these functions
LINEAR = ("outer", "part", "slice", "sum", "diag")


def value(a: Any) -> Term:
    """A number or an array in the place of a name; one number however many axes it has is a number."""
    array = np.asarray(a)
    return Term("value", _nested(array.reshape(()).tolist() if array.size == 1 else array.tolist()))


def _nested(a: Any) -> Any:
    return tuple(map(_nested, a)) if isinstance(a, list) else float(a)


def added(t: Term) -> Term:
    """A negative number that is added is subtracted: 0.5 + (−0.2) is 0.5 − 0.2."""
    t = t.map(added)
    if t.kind == "binary" and t.value in ("+", "-") and t.args[1].kind == "value" and _negative(t.args[1].value):
        return Term("binary", "-" if t.value == "+" else "+", (t.args[0], Term("value", -t.args[1].value)))
    return t


def _negative(x: Any) -> bool:
    return isinstance(x, float) and x < 0


class Numbers:
    """Puts the numbers of a run into formulas."""

    def __init__(self, derivation: Derivation, run: CellRun) -> None:
        self.derivation, self.cell, self.run = derivation, derivation.cell, run
        self.scalar = all(v.size == 1 for v in (*run.values.values(), *run.parameters.values()))
        taken = self.cell.system.names
        several = len(derivation.arguments) > 1
        self.delta = {mark: fresh(f"δ_{n}" if several else "δ", taken) for n, mark in derivation.arguments.items()}
        joined = {p: s[1].split("+") for p, s in self.cell.parameters.items() if len(s) == 2 and "+" in s[1]}
        self.blocks = {block_name(self.cell, p, k): (p, k) for p, columns in joined.items() for k in range(len(columns))}

    # ---- formulas at a step

    def at(self, t: Term, step: int) -> Term:
        """A formula at a step, without gradients from beyond the last step and from a loss that reads nothing there."""
        pruned = self._pruned(self._inlined(t), step)
        return number(0) if pruned is None else self._plain(pruned.rewritten(lambda x: self._placed(x, step)))

    def gradient(self, name: str, step: int) -> Term:
        """∂L/∂h at a step; that of what goes into the function of a gate is called δ."""
        return Term("at", (self.delta[name], step)) if name in self.delta else Term("adjoint at", (name, step))

    def _placed(self, x: Term, at: int) -> Term | None:
        if x.kind not in ("signal", "adjoint"):
            return None
        name, step = x.value[0], at - self.run.direction * x.value[1]
        return self.gradient(name, step) if x.kind == "adjoint" else Term("at", (name, step))

    def _inlined(self, t: Term) -> Term:
        """Without the short names of expressions that a derivation uses twice."""
        shared = self.derivation.shared
        return t.rewritten(lambda x: self._inlined(shifted(shared[x.value[0]], x.value[1]))
                           if x.kind == "signal" and x.value[0] in shared else None)

    def _pruned(self, t: Term, at: int) -> Term | None:
        """The term without what is zero; None where nothing is left."""
        if t.kind == "adjoint":
            return t if self._arrives(t.value[0], at - self.run.direction * t.value[1]) else None
        parts = [self._pruned(a, at) for a in t.args]
        if t.kind == "binary" and t.value in ("+", "-"):
            a, b = parts
            if a is None or b is None:
                return a if b is None else b if t.value == "+" else Term("negate", None, (b,))
        elif t.kind in ZERO or t.value in LINEAR:
            if None in (parts[:1] if t.value in ("/", *LINEAR[1:]) else parts):
                return None
        elif t.value == "where" and all(p is None or is_number(p, 0) for p in parts[1:]):
            return None
        kept = iter(parts)
        return t.map(lambda _: next(kept) or number(0))

    def _arrives(self, name: str, step: int) -> bool:
        """Whether there is a gradient of this kind at a step."""
        if name.startswith("loss "):
            return bool(np.any(self.run.from_loss.get((name[5:], step), 0)))
        return not self.run.beyond(step) and not self.run.before(step)

    def _plain(self, t: Term) -> Term:
        """Where everything is one number, products are products of numbers and nothing is turned."""
        return t.rewritten(self._without_matrices) if self.scalar else t

    def _without_matrices(self, x: Term) -> Term | None:
        if x.kind == "transpose":
            return self._plain(x.args[0]) if x.args else Term("parameter", x.value)
        if (x.kind == "binary" and x.value in ("*", "@")) or x.value == "outer":
            return Term("binary", "·", tuple(map(self._plain, x.args)))
        return self._plain(x.args[0]) if x.value == "sum" else None

    # ---- numbers

    def knows(self, t: Term) -> bool:
        """Whether the run has a number for every name of a formula at a step."""
        try:
            self.numbers(t)
        except KeyError:
            return False
        return True

    def numbers(self, t: Term) -> Term:
        """A formula at a step with numbers for its names."""
        return added(t.rewritten(self._number))

    def _number(self, x: Term) -> Term | None:
        match x.kind:
            case "at" | "adjoint at":
                return value(self._known(x))
            case "parameter":
                return value(self._parameter(x.value))
            case "transpose" if not x.args:
                return value(self._parameter(x.value).T)
            case "size":
                return number(float(self.run.values[x.value, 1].size))
        return None

    def _known(self, x: Term) -> Array:
        name, step = x.value
        marks = {delta: mark for mark, delta in self.delta.items()}
        if x.kind == "at" and name not in marks:
            return self.run.values[name, step]
        own = self.run.from_loss if name.startswith("loss ") else self.run.gradients
        key = marks.get(name, name.removeprefix("loss ")), step
        return own[key] if key in own else np.zeros_like(self.run.values[key])

    def _parameter(self, name: str) -> Array:
        """A parameter, a constant, or the columns of a parameter that have a name of their own."""
        constants = dict(self.cell.system.constants)
        if name in constants:
            return np.asarray(constants[name])
        if name in self.run.given:
            return self.run.given[name]
        p, k = self.blocks[name]
        widths = [self._sizes().get(w) or int(w) for w in self.cell.parameters[p][1].split("+")]
        return self.run.given[p][:, sum(widths[:k]) : sum(widths[: k + 1])]

    def _sizes(self) -> dict[str, int]:
        shapes = [(self.cell.signals[n], v.shape) for (n, _), v in self.run.values.items() if n in self.cell.signals]
        return {s: k for symbols, shape in shapes for s, k in zip(symbols, shape, strict=True)}
