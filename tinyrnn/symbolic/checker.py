"""A second, small opinion: certificates verified without the engine.

Nothing here imports the graph, its ops or its passes.  A certificate holds the equations of a cell as text and, as
plain instructions, the program that claims to compute its gradients.  The equations are evaluated one example at a
time, straight from their terms, at a new random point of GF(2^61 - 1) with tangents; the program is run by the
interpreter below at the same point; and both sides of

    Σ_w <dloss/dw, v_w>  =  d/ds loss(w + s v)

must be one number.  Every number carries its own bound of the degree, so that the error bound is the checker's own.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from math import cos as _cos
from math import exp, inf, isfinite, isnan, log, log1p, pi, sqrt, tanh
from math import sin as _sin
from pathlib import Path
from typing import Any

import numpy as np

from ..cells.equations import Equation, System, Term, parse
from ..errors import LoadError, ProofError

P = 2**61 - 1
FORMAT = "tinyrnn proof 1"
CONVINCING = 2.0**-20
Array = Any


class Number:
    """A float that decides branches, a residue, a tangent, and bounds of the degrees of both."""

    __slots__ = ("degree", "near", "point", "slope_degree", "tangent", "value")

    def __init__(self, point: Point, near: float, value: int, tangent: int = 0, degree: float = 0.0,
                 slope_degree: float = 0.0) -> None:
        self.point, self.near, self.value, self.tangent = point, near, value % P, tangent % P
        self.degree, self.slope_degree = degree, slope_degree

    def __add__(self, other: Any) -> Number:
        b = self.point.number(other)
        return Number(self.point, self.near + b.near, self.value + b.value, self.tangent + b.tangent,
                      max(self.degree, b.degree), max(self.slope_degree, b.slope_degree))

    def __mul__(self, other: Any) -> Number:
        a, b = self, self.point.number(other)
        return Number(a.point, a.near * b.near, a.value * b.value, a.tangent * b.value + a.value * b.tangent,
                      a.degree + b.degree, max(a.slope_degree + b.degree, a.degree + b.slope_degree))

    def __neg__(self) -> Number:
        return Number(self.point, -self.near, -self.value, -self.tangent, self.degree, self.slope_degree)

    def __sub__(self, other: Any) -> Number:
        return self + -self.point.number(other)

    def __rsub__(self, other: Any) -> Number:
        return -self + other

    def __truediv__(self, other: Any) -> Number:
        return self * self.point.reciprocal(self.point.number(other))

    def __rtruediv__(self, other: Any) -> Number:
        return self.point.number(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def steady(self) -> Number:
        return Number(self.point, self.near, self.value, 0, self.degree)


def _near(f: Callable[[float], float]) -> Callable[[float], float]:
    def safe(x: float) -> float:
        try:
            return f(x)
        except (ValueError, OverflowError, ZeroDivisionError):
            return float("nan")
    return safe


# name -> (float, slope in terms of output and argument, value at zero, the value at -x in terms of that at x)
FUNCTIONS: dict[str, tuple[Callable[[float], float], Callable[[Point, Number, Number], Any], Fraction | None, Any]] = {
    "sigmoid":    (lambda x: 0.5 + 0.5 * tanh(x / 2),       lambda p, y, x: y - y * y,          Fraction(1, 2), lambda y: 1 - y),
    "exp":        (_near(exp),                              lambda p, y, x: y,                  Fraction(1),    None),
    "log":        (_near(log),                              lambda p, y, x: p.reciprocal(x),    None,           None),
    "sqrt":       (_near(sqrt),                             lambda p, y, x: 0.5 * p.reciprocal(y), None,         None),
    "sin":        (_sin,                                    lambda p, y, x: p.call("cos", x),   Fraction(0),    lambda y: -y),
    "cos":        (_cos,                                    lambda p, y, x: -p.call("sin", x),  Fraction(1),    lambda y: y),
    "softplus":   (lambda x: max(x, 0) + log1p(exp(-abs(x))), lambda p, y, x: p.call("sigmoid", x), None,       None),
    "reciprocal": (_near(lambda x: 1 / x),                  lambda p, y, x: -(y * y),           None,           lambda y: -y),
}


class Point:
    """A random point of the field: inputs drawn once, one free element for each argument of a function."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.key = self.rng.bytes(16)
        self.seen: dict[tuple[str, int], int] = {}
        self.argument_degree = 1.0
        self.powers: dict[tuple[int, int], Number] = {}

    def draw(self, shape: Sequence[int], moves: bool) -> Array:
        return filled(shape, lambda: Number(self, float(self.rng.uniform(0.2, 1.2) * self.rng.choice([-1, 1])), self._any(),
                                            self._any() if moves else 0, 1.0, 1.0 if moves else 0.0))

    def _any(self) -> int:
        return int(self.rng.integers(P))

    def number(self, x: Any) -> Number:
        if isinstance(x, Number):
            return x
        v = float(x)
        if not isfinite(v):
            return Number(self, v, self._hash(repr(v), 0), 0, 1.0)
        f = Fraction(repr(v))
        return Number(self, v, f.numerator * pow(f.denominator, -1, P))

    def reciprocal(self, x: Number) -> Number:
        """A known number has an inverse; of anything else the reciprocal is free."""
        if x.degree == 0:
            return Number(self, 1 / x.near, pow(x.value, -1, P))
        return self.call("reciprocal", x)

    def call(self, name: str, x: Number) -> Number:
        if name == "tanh":
            return 2 * self.call("sigmoid", 2 * x) - 1
        near, slope, at_zero, mirror = FUNCTIONS[name]
        self.argument_degree = max(self.argument_degree, x.degree)
        y = Number(self, near(x.near), self._value(name, x.value, at_zero, mirror), 0, 1.0)
        if x.tangent:
            s = slope(self, y, x.steady())
            y.tangent, y.slope_degree = s.value * x.tangent % P, s.degree + x.slope_degree
        return y

    def _value(self, name: str, v: int, at_zero: Fraction | None, mirror: Any) -> int:
        if v == 0 and at_zero is not None:
            return at_zero.numerator * pow(at_zero.denominator, -1, P) % P
        mirrored = mirror is not None and v > P // 2
        y = self._hash(name, P - v if mirrored else v)
        return int(mirror(y)) if mirrored else y

    def _hash(self, name: str, v: int) -> int:
        if (name, v) not in self.seen:
            digest = blake2b(f"{name} {v}".encode(), digest_size=16, key=self.key).digest()
            self.seen[name, v] = int.from_bytes(digest, "big") % P
        return self.seen[name, v]

    def power(self, a: Number, k: float) -> Number:
        """Whole powers and halves by products; others by exp and log, one step down by a division.

        A gradient's exponent k - 1 was rounded in floating point, hence the 12 digits.
        """
        k = float(f"{k:.12g}")
        if k.is_integer() and abs(k) <= 64:
            base, y = (a if k > 0 else self.reciprocal(a)), self.number(1)
            for _ in range(abs(int(k))):
                y = y * base
            return y
        if (2 * k).is_integer() and abs(k) <= 32:
            return self.power(self.call("sqrt", a), 2 * k)
        return self.general_power(a, self.number(k))

    def general_power(self, a: Number, b: Number) -> Number:
        higher = self.powers.get((a.value, (b.value + 1) % P))
        y = higher * self.reciprocal(a) if higher is not None else self.call("exp", b * self.call("log", a))
        self.powers[a.value, b.value] = y
        return y


# ---- arrays of numbers

def filled(shape: Sequence[int], make: Callable[[], Any]) -> Array:
    out = np.empty(tuple(shape), object)
    for i in np.ndindex(out.shape):
        out[i] = make()
    return out


def each(f: Callable[..., Any], *x: Any) -> Array:
    """f entry by entry, with broadcasting."""
    return np.asarray(np.frompyfunc(f, len(x), 1)(*x), object)


def truths(f: Callable[..., bool], *x: Any) -> Array:
    return np.asarray(np.frompyfunc(f, len(x), 1)(*x), bool)


def near(x: Any) -> float:
    v = x.near if isinstance(x, Number) else float(x)
    if isnan(v):
        raise ProofError("a branch of the program depends on NaN")
    return float(v)


def nears(x: Any) -> Any:
    return np.asarray(np.frompyfunc(near, 1, 1)(x), float)


def summed(x: Array, axes: tuple[int, ...], keepdims: bool, point: Point) -> Array:
    if x.dtype != object:
        return np.sum(x, axis=axes, keepdims=keepdims)
    empty = any(x.shape[i] == 0 for i in axes)
    shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes]
    return filled(shape, lambda: point.number(0)) if empty else np.asarray(np.sum(x, axis=axes, keepdims=keepdims), object)


def extreme(choose: Any, x: Array, axes: tuple[int, ...], keepdims: bool, point: Point) -> Array:
    """Ties share evenly."""
    if x.dtype != object:
        return choose(x, axis=axes, keepdims=keepdims)
    floats = nears(x)
    hit = floats == choose(floats, axis=axes, keepdims=True)
    return summed(each(lambda a, s: a * s, x, hit / hit.sum(axis=axes, keepdims=True)), axes, keepdims, point)


# ---- the interpreter of programs

Rule = Callable[..., Any]


class Interpreter:
    """Runs instructions [op, sources, attributes] at a point."""

    def __init__(self, point: Point) -> None:
        self.point = point
        m, call = point, lambda name: lambda x: each(lambda a: m.call(name, a), x)
        either_sign = lambda c, a, b: np.where(c, np.asarray(a, object), np.asarray(b, object))
        self.rules: dict[str, Rule] = {
            **{f: call(f) for f in ("tanh", "sigmoid", "softplus", "exp", "log", "sqrt", "sin", "cos")},
            "add": np.add, "sub": np.subtract, "mul": np.multiply, "scale": np.multiply, "div": self._divide,
            "neg": np.negative, "expm1": lambda x: each(lambda a: m.call("exp", a) - 1, x),
            "log1p": lambda x: each(lambda a: m.call("log", 1 + a), x),
            "power": lambda a, b: each(lambda u, v: m.general_power(m.number(u), m.number(v)), a, b),
            "powk": lambda x, k: each(lambda a: m.power(a, k), x),
            "less": lambda a, b: truths(lambda u, v: near(u) < near(v), a, b),
            "less_equal": lambda a, b: truths(lambda u, v: near(u) <= near(v), a, b),
            "equal": lambda a, b: truths(lambda u, v: near(u) == near(v), a, b),
            "not_equal": lambda a, b: truths(lambda u, v: near(u) != near(v), a, b),
            "both": np.logical_and, "either": np.logical_or, "negate": np.logical_not,
            "sign": lambda x: each(lambda a: m.number(np.sign(near(a))), x), "where": either_sign,
            "abs": lambda x: each(lambda a: -a if near(a) < 0 else a, x),
            "relu": lambda x: each(lambda a: a if near(a) > 0 else m.number(0), x),
            "maximum": lambda a, b: each(lambda u, v: u if near(u) > near(v) else v, a, b),
            "minimum": lambda a, b: each(lambda u, v: u if near(u) < near(v) else v, a, b),
            "clip": lambda x, lo, hi: each(lambda a: m.number(lo) if near(a) < lo else m.number(hi) if near(a) > hi else a, x),
            "stop_gradient": lambda x: each(lambda a: a.steady() if isinstance(a, Number) else a, x),
            "astype": self._cast, "add_n": lambda *x: sum(x[1:], start=x[0]), "tag": lambda x, *at: x,
            "reshape": np.reshape, "transpose": np.transpose, "broadcast_to": np.broadcast_to,
            "sum": lambda x, axes, keep: summed(x, tuple(axes), keep, m), "matmul": np.matmul, "einsum": self._einsum,
            "slice": lambda x, parts: x[_slices(parts)], "place": self._place, "take": lambda x, t: x[t],
            "put": lambda x, t, n: self._place(x[None], [[t, 1, 1], *([0, k, 1] for k in x.shape)], (n, *x.shape)),
            "concat": lambda *x: np.concatenate(x[:-1], x[-1]), "stack": lambda *x: np.stack(x),
            "gather": lambda table, index: table[index], "scatter_add": self._scatter,
            "pick": lambda x, index: np.take_along_axis(x, index[..., None], -1)[..., 0],
            "one_hot": lambda index, n, dtype: self._cast((index[..., None] == np.arange(n)).astype(int), dtype),
            "cumsum": lambda x, axis: np.asarray(np.cumsum(x, axis=axis), x.dtype),
            "amax": lambda x, axes, keep: extreme(np.max, x, tuple(axes), keep, m),
            "amin": lambda x, axes, keep: extreme(np.min, x, tuple(axes), keep, m),
            "argmax": lambda x, axis: np.argmax(nears(x), axis=axis),
            "full": lambda v, shape, dtype: np.broadcast_to(self._cast(np.asarray(v), dtype), shape),
            "literal": lambda v, shape, dtype: self._cast(v, dtype), "iota": lambda s, dtype: self._cast(np.arange(s[0]), dtype),
            "scan": self._scan, "region": lambda *x: self._body(x[-1], list(x[:-1])), "read": lambda outs, i: outs[i]}

    def _cast(self, x: Any, dtype: str) -> Any:
        x = np.asarray(x)
        if np.dtype(dtype).kind != "f":
            return nears(x).astype(dtype) if x.dtype == object else x.astype(dtype)
        return x if x.dtype == object else each(self.point.number, x)

    def _divide(self, a: Any, b: Any) -> Array:
        return each(lambda u, v: self.point.number(u) / self.point.number(v), a, b)

    def _place(self, x: Array, parts: Any, shape: Any) -> Array:
        out = filled(shape, lambda: self.point.number(0)) if x.dtype == object else np.zeros(shape, x.dtype)
        out[_slices(parts)] = x
        return out

    def _scatter(self, x: Array, index: Array, n: int) -> Array:
        out = filled((n, *x.shape[index.ndim:]), lambda: self.point.number(0))
        for i in np.ndindex(index.shape):
            out[index[i]] = out[index[i]] + x[i]
        return out

    def _einsum(self, *x: Any) -> Array:
        *operands, spec = x
        inputs, out = spec.split("->")
        letters = sorted(set(inputs) - {","})
        product: Any = None
        for o, part in zip(operands, inputs.split(","), strict=True):
            order = sorted(range(len(part)), key=lambda i: part[i])
            sizes = dict(zip(part, o.shape, strict=True))
            term = o.transpose(order).reshape([sizes.get(c, 1) for c in letters])
            product = term if product is None else product * term
        lost = tuple(i for i, c in enumerate(letters) if c not in out)
        kept = [c for c in letters if c in out]
        return summed(product, lost, False, self.point).transpose([kept.index(c) for c in out])

    def _body(self, body: Mapping[str, Any], values: list[Any]) -> list[Any]:
        return [values[i] for i in body["outs"]] if self.run(body["code"], values) is None else []

    def _scan(self, *x: Any) -> list[Any]:
        *sources, body = x
        k, n = body["states"], body["sequences"]
        state, xs, constants = list(sources[:k]), sources[k:k + n], list(sources[k + n:])
        steps = range(body["steps"])
        traced: dict[int, list[Any]] = {}
        for t in reversed(steps) if body["reverse"] else steps:
            out = self._body(body, [*state, *(s[t] for s in xs), *constants])
            state, traced[t] = out[:k], out[k:]
        count = len(body["outs"]) - k
        return [*state, *(np.stack([traced[t][i] for t in steps]) if steps else np.empty(0, object) for i in range(count))]

    def run(self, code: Iterable[Any], values: list[Any]) -> None:
        """Append the value of every instruction."""
        for name, sources, attributes in code:
            if name not in self.rules:
                raise LoadError(f"the certificate holds the instruction {name!r}, which the checker does not know")
            result = self.rules[name](*(values[i] for i in sources), *(_attribute(a) for a in attributes))
            values.append(result if isinstance(result, (np.ndarray, list)) else np.asarray(result))


def _slices(parts: Iterable[Sequence[int]]) -> tuple[slice, ...]:
    return tuple(slice(a, end if (end := a + n * step) >= 0 else None, step) for a, n, step in parts)


def _attribute(a: Any) -> Any:
    if isinstance(a, dict) and "float" in a:
        return float(a["float"])
    if isinstance(a, dict) and "array" in a:
        return np.array([_attribute(v) for v in a["array"]]).reshape(a["shape"])
    return tuple(_attribute(v) for v in a) if isinstance(a, list) else a


# ---- the meaning of equations, one example at a time

class Equations:
    """The equations of a cell, evaluated from their terms."""

    def __init__(self, system: System, point: Point, parameters: Mapping[str, Array]) -> None:
        self.system, self.point, self.parameters = system, point, parameters
        self.constants = dict(system.constants)
        self.by_name = {e.name: e for e in system.equations}

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
        one = lambda x: np.asarray(self.point.number(x), object)
        args = [self._of(a, now, past) for a in t.args]
        match t.kind:
            case "number":
                return one(t.value)
            case "signal":
                return past(*t.value) if t.value[1] else now(t.value[0])
            case "parameter":
                return one(self.constants[t.value]) if t.value in self.constants else self.parameters[t.value]
            case "transpose":
                return self.parameters[t.value].T
            case "size":
                return one(float((now(t.value) if t.value in self.by_name else past(t.value, 1)).size))
            case "negate":
                return each(lambda a: -a, args[0])
            case "join":
                return np.concatenate([np.atleast_1d(a) for a in args])
            case "compare":
                return truths({"<": lambda a, b: near(a) < near(b), "<=": lambda a, b: near(a) <= near(b),
                               ">": lambda a, b: near(a) > near(b), ">=": lambda a, b: near(a) >= near(b)}[t.value], *args)
            case "binary":
                return self._binary(t, args)
        return self._call(t.value, args)

    def _binary(self, t: Term, args: list[Array]) -> Any:
        a, b = args
        if t.value == "**":
            exponent = b.item() if b.ndim == 0 else None
            if exponent is not None and exponent.degree == 0:
                return each(lambda u: self.point.power(u, exponent.near), a)
            return each(self.point.general_power, a, b)
        return {"+": np.add, "-": np.subtract, "*": np.multiply, "@": np.matmul,
                "/": lambda x, y: each(lambda u, v: u / v, x, y)}[t.value](a, b)

    def _call(self, name: str, args: list[Array]) -> Array:
        m, x = self.point, args[0]
        n = x.shape[-1] if x.ndim else 1
        row = lambda v: summed(v, (v.ndim - 1,), True, m)
        f: dict[str, Callable[[], Array]] = {
            "relu": lambda: each(lambda a: a if near(a) > 0 else m.number(0), x),
            "abs": lambda: each(lambda a: -a if near(a) < 0 else a, x),
            "sign": lambda: each(lambda a: m.number(np.sign(near(a))), x),
            "maximum": lambda: each(lambda a, b: a if near(a) > near(b) else b, *args),
            "minimum": lambda: each(lambda a, b: a if near(a) < near(b) else b, *args),
            "silu": lambda: each(lambda a: a * m.call("sigmoid", a), x),
            "elu": lambda: each(lambda a: a if near(a) > 0 else m.call("exp", a if near(a) < 0 else m.number(0)) - 1, x),
            "gelu": lambda: each(lambda a: 0.5 * a * (1 + m.call("tanh", sqrt(2 / pi) * (a + 0.044715 * a * a * a))), x),
            "hard_sigmoid": lambda: self._clipped(each(lambda a: a / 6 + 0.5, x), 0.0, 1.0),
            "clip": lambda: self._clipped(x, args[1].item().near, args[2].item().near),
            "where": lambda: np.where(args[0], *np.broadcast_arrays(args[1], args[2])),
            "outer": lambda: np.multiply.outer(*args), "sum": lambda: summed(x, tuple(range(x.ndim)), False, m),
            "mean": lambda: each(lambda a: a / x.size, summed(x, tuple(range(x.ndim)), False, m)),
            "softmax": lambda: self._softmax(x, row),
            "layer_norm": lambda: self._normed(each(lambda a, s: a - s / n, x, row(x)), n, row),
            "rms_norm": lambda: self._normed(x, n, row)}
        return f[name]() if name in f else each(lambda a: m.call(name, a), x)

    def _clipped(self, x: Array, low: float, high: float) -> Array:
        m = self.point
        return each(lambda a: m.number(low) if near(a) < low else m.number(high) if near(a) > high else a, x)

    def _softmax(self, x: Array, row: Callable[[Array], Array]) -> Array:
        top = extreme(np.max, x, (x.ndim - 1,), True, self.point)
        z = each(lambda a, t: self.point.call("exp", a - t.steady()), x, top)
        return each(lambda a, s: a / s, z, row(z))

    def _normed(self, d: Array, n: int, row: Callable[[Array], Array]) -> Array:
        return each(lambda a, s: a / self.point.call("sqrt", s / n + 1e-5), d, row(each(lambda a: a * a, d)))


# ---- certificates

@dataclass(frozen=True)
class Verdict:
    """What the checker found for one program."""

    what: str
    entries: int
    error_bound: float

    def __str__(self) -> str:
        return f"{self.what}: {self.entries} entries equal, error bound {self.error_bound:.1e}"


def check_file(file: str | Path, seed: int | None = None) -> list[Verdict]:
    """Verify a certificate; raises `ProofError` where a claim is false and `LoadError` where the file is none."""
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{file} is not a certificate: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise LoadError(f"{file} is not a certificate: expected the format {FORMAT!r}")
    return check(found, seed)


def check(certificate: Mapping[str, Any], seed: int | None = None) -> list[Verdict]:
    """Every program of a certificate at a new random point."""
    programs = certificate.get("programs")
    if not isinstance(programs, list) or not programs:
        raise LoadError("the certificate holds no program, so there is nothing to check")
    text = certificate.get("text") or ""
    try:
        return [_pair(p, seed) if "before" in p else _gradients(p, text, seed) for p in programs]
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, (ProofError, LoadError)):
            raise
        raise LoadError(f"the certificate is damaged: {type(error).__name__}: {error}") from error


def _inputs(program: Mapping[str, Any], point: Point, moving: Iterable[str]) -> dict[str, Array]:
    hot = set(moving)
    found = {}
    for name, (dtype, shape) in program["inputs"].items():
        floating = np.dtype(dtype).kind == "f"
        found[name] = point.draw(shape, name in hot) if floating else point.rng.integers(0, 2, shape).astype(dtype)
    return found


def _run(program: Mapping[str, Any], inputs: Mapping[str, Array], point: Point, steady: bool) -> dict[str, Any]:
    still = lambda x: each(lambda a: a.steady(), x) if x.dtype == object else x
    values = [still(inputs[k]) if steady else inputs[k] for k in program["inputs"]]
    Interpreter(point).run(program["code"], values)
    return {k: values[i] for k, i in program["outputs"].items()}


def _gradients(program: Mapping[str, Any], text: str, seed: int | None) -> Verdict:
    point = Point(secrets.randbits(62) if seed is None else seed)
    claims = dict(program["claims"])
    if not claims:
        raise LoadError("the program claims no gradient")
    inputs = _inputs(program, point, claims.values())
    outputs = _run(program, inputs, point, steady=True)
    loss = (_loss_of(parse(text), program, inputs, point) if text else
            _run(program, inputs, point, steady=False)[program["loss"]].item())
    if text and outputs[program["loss"]].item().value != loss.value:
        raise ProofError(f"the loss of the {program['what']} program is not the loss of the equations")
    total, degree, entries = 0, loss.slope_degree, 0
    for output, name in claims.items():
        if outputs[output].shape != inputs[name].shape:
            raise ProofError(f"{output} has shape {outputs[output].shape}, but {name} has {inputs[name].shape}", name)
        for g, v in zip(outputs[output].ravel(), inputs[name].ravel(), strict=True):
            total = (total + point.number(g).value * v.tangent) % P
            degree, entries = max(degree, point.number(g).degree + 1), entries + 1
    if total != loss.tangent:
        raise ProofError(f"the gradients of the {program['what']} program are not the derivatives of its loss")
    sizes = ", ".join(f"{k}={v}" for k, v in program["sizes"].items())
    return _verdict(f"{program['what']} gradients{' ' + sizes if sizes else ''}", entries, degree, point)


def _pair(program: Mapping[str, Any], seed: int | None) -> Verdict:
    point = Point(secrets.randbits(62) if seed is None else seed)
    before, after = program["before"], program["after"]
    inputs = _inputs(before, point, ())
    if dict(after["inputs"]) != {k: before["inputs"][k] for k in after["inputs"]}:
        raise ProofError("the two programs have different inputs")
    a, b = _run(before, inputs, point, True), _run(after, inputs, point, True)
    if list(a) != list(b):
        raise ProofError("the two programs have different outputs")
    degree, entries = 0.0, 0
    for name in a:
        for x, y in zip(a[name].ravel(), b[name].ravel(), strict=True):
            if (x.value != y.value) if isinstance(x, Number) else x != y:
                raise ProofError(f"output {name!r} of the two programs differs", name)
            degree, entries = max(degree, x.degree if isinstance(x, Number) else 0.0), entries + 1
    return _verdict("two programs", entries, degree, point)


def _verdict(what: str, entries: int, degree: float, point: Point) -> Verdict:
    bound = min(1.0, (degree + len(point.seen) ** 2 * point.argument_degree) / P)
    if not bound <= CONVINCING or bound == inf:
        raise ProofError(f"{what}: the degree {degree:.3g} is too high for a convincing check (error bound {bound:.1e})")
    return Verdict(what, entries, bound)


def _loss_of(system: System, program: Mapping[str, Any], inputs: Mapping[str, Array], point: Point) -> Number:
    """Σ <r[t], y[t]>, evaluated from the equations one example after the other."""
    weights = [name for name in inputs if name.startswith("r_")]
    parameters = {k: v for k, v in inputs.items() if "[" not in k}
    equations = Equations(system, point, parameters)
    batch, steps = program["sizes"]["batch"], program["sizes"]["steps"]
    learned = {f"{n}[{k}]" for n, k in system.learned}
    total = point.number(0)
    for b in range(batch):
        history: dict[int, dict[str, Array]] = {}

        def past(name: str, lag: int, t: int = 0, b: int = b, history: dict[int, dict[str, Array]] = history) -> Array:
            if t - lag >= 1:
                return history[t - lag][name]
            start = f"{name}[{t - lag}]"
            if start in inputs:
                return inputs[start] if start in learned else inputs[start][b]
            return filled(inputs[f"{name}[1]"].shape[1:], lambda: point.number(0))  # a delayed input before the first step

        for t in range(1, steps + 1):
            now = {k.split("[")[0]: v[b] for k, v in inputs.items() if k.endswith(f"[{t}]") and not k.startswith("r_")}
            history[t] = equations.step(lambda name, lag, t=t, past=past: past(name, lag, t), now)  # type: ignore[misc]
        for name in weights:
            output, t = name[2:].rstrip("]").split("[")
            total = total + summed(each(lambda r, y: r * y, inputs[name][b], history[int(t)][output]), _all(inputs[name][b]),
                                   False, point).item()
    return total


def _all(x: Array) -> tuple[int, ...]:
    return tuple(range(np.ndim(x)))
