"""The meaning of equations, one example at a time, straight from their terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cells.terms import Equation, System, Term
from .numbers import Array, FieldPoint, clipped, each, extreme, summed, truths


class Equations:
    """The equations of a cell, evaluated from their terms."""

    def __init__(self, system: System, point: FieldPoint, parameters: Mapping[str, Array]) -> None:
        self.system, self.point, self.parameters = system, point, parameters
        self.constants = dict(system.constants)
        self.by_name = {e.name: e for e in system.equations}
        self.lagged = {t.value[0] for e in system.equations for t in e.term.walk() if t.kind == "signal" and t.value[1]}

    def step(self, past: Callable[[str, int], Array], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every quantity of one step of one example."""
        found: dict[str, Array] = dict(inputs)

        def now(name: str) -> Array:
            if name not in found:
                equation: Equation = self.by_name[name]
                found[name] = self._of(equation.term, now, past)
            return found[name]

        for name in self.by_name:
            now(name)
        return found

    def value(self, t: Term, now: Callable[[str], Array], past: Callable[[str, int], Array]) -> Array:
        """A term where `now(name)` and `past(name, lag)` give its quantities."""
        return self._of(t, now, past)

    def _of(self, t: Term, now: Callable[[str], Array], past: Callable[[str, int], Array]) -> Array:
        x = self._value(t, now, past)
        return x if isinstance(x, np.ndarray) else np.asarray(x, object)

    def _value(self, t: Term, now: Callable[[str], Array], past: Callable[[str, int], Array]) -> Any:
        args = [self._of(a, now, past) for a in t.args]
        match t.kind:
            case "number":
                return self._one(t.value)
            case "signal":
                return past(*t.value) if t.value[1] else now(t.value[0])
            case "parameter":
                return self._one(self.constants[t.value]) if t.value in self.constants else self.parameters[t.value]
            case "transpose":
                return self.parameters[t.value].T
            case "size":
                return self._one(float((past(t.value, 1) if t.value in self.lagged else now(t.value)).size))
            case "negate":
                return each(lambda a: -a, args[0])
            case "join":
                return np.concatenate([np.atleast_1d(a) for a in args])
            case "compare":
                strictly, turned = "=" not in t.value, t.value[0] == ">"
                return truths(lambda a, b: self.point.below(a, b, strictly), *(args[::-1] if turned else args))
            case "binary":
                return self._binary(t, args)
        return self._call(t.value, args)

    def _one(self, x: float) -> Array:
        return np.asarray(self.point.number(x), object)

    def _binary(self, t: Term, args: list[Array]) -> Any:
        a, b = args
        if t.value == "**":
            exponent = b.item() if b.ndim == 0 else None
            if exponent is not None and exponent.degree < 1:
                return each(lambda u: self.point.power(u, exponent.near), a)
            return each(self.point.general_power, a, b)
        if t.value == "/":
            return each(lambda u, v: u / v, a, b)
        product: dict[str, Callable[..., Any]] = {"+": np.add, "-": np.subtract, "*": np.multiply, "@": np.matmul}
        return product[t.value](a, b)

    def _call(self, name: str, args: list[Array]) -> Array:
        m, x = self.point, args[0]
        n = x.shape[-1] if x.ndim else 1

        def row(v: Array) -> Array:
            return summed(v, (v.ndim - 1,), True, m)

        f: dict[str, Callable[[], Array]] = {
            "relu": lambda: each(lambda a: m.chosen(a if m.kink(0, a) else 0), x),
            "abs": lambda: each(m.size, x),
            "sign": lambda: each(m.sign, x),
            "maximum": lambda: each(lambda a, b: m.chosen(a if m.kink(b, a) else b), *args),
            "minimum": lambda: each(lambda a, b: m.chosen(a if m.kink(a, b) else b), *args),
            "silu": lambda: each(lambda a: a * m.call("sigmoid", a), x),
            "elu": lambda: each(lambda a: self._elu(a), x),
            "gelu": lambda: each(lambda a: 0.5 * a * (1 + m.call("tanh", sqrt(2 / pi) * (a + 0.044715 * a * a * a))), x),
            "hard_sigmoid": lambda: each(lambda a: clipped(m, a / 6 + 0.5, 0.0, 1.0), x),
            "clip": lambda: each(lambda a: clipped(m, a, args[1].item().near, args[2].item().near), x),
            "where": lambda: each(m.chosen, np.where(args[0], *np.broadcast_arrays(args[1], args[2]))),
            "outer": lambda: self._outer(*args), "sum": lambda: summed(x, tuple(range(x.ndim)), False, m),
            "mean": lambda: each(lambda a: a / x.size, summed(x, tuple(range(x.ndim)), False, m)),
            "softmax": lambda: self._softmax(x, row),
            "layer_norm": lambda: self._normed(each(lambda a, s: a - s / n, x, row(x)), n, row),
            "rms_norm": lambda: self._normed(x, n, row)}
        return f[name]() if name in f else each(lambda a: m.call(name, a), x)

    def _elu(self, a: npt.NDArray[Any]) -> Any:
        m = self.point
        below = m.chosen(a if m.kink(a, 0) else 0)
        return m.chosen(a if m.below(0, a) else m.call("exp", below) - 1)

    def _outer(self, a: Array, b: Array) -> Array:
        self.point.work.spend(a.size * b.size)
        return np.asarray(np.multiply.outer(a, b), object)

    def _softmax(self, x: Array, row: Callable[[Array], Array]) -> Array:
        top = extreme(np.max, x, (x.ndim - 1,), True, self.point)
        z = each(lambda a, t: self.point.call("exp", a - t.steady()), x, top)
        return each(lambda a, s: a / s, z, row(z))

    def _normed(self, d: Array, n: int, row: Callable[[Array], Array]) -> Array:
        return each(lambda a, s: a / self.point.call("sqrt", s / n + 1e-5), d, row(each(lambda a: a * a, d)))
