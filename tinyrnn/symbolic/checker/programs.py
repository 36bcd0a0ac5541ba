"""The interpreter of programs: instructions [op, sources, attributes] on arrays of the checker's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from ...errors import LoadError
from .forms import checked, kind_of, natural
from .numbers import (
    Array,
    DrawnArray,
    FieldPoint,
    NearError,
    Residue,
    clipped,
    each,
    extreme,
    filled,
    marked,
    nears,
    summed,
    truths,
)

Rule = Callable[..., Any]


def arithmetic(m: FieldPoint) -> dict[str, Rule]:
    """Functions of numbers, entry by entry, and sums and products."""
    def call(name: str) -> Rule:
        return lambda x: each(lambda a: m.call(name, m.number(a)), x)

    return {
        **{f: call(f) for f in ("tanh", "sigmoid", "softplus", "exp", "log", "sqrt", "sin", "cos")},
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "scale": np.multiply, "neg": np.negative,
        "div": lambda a, b: each(lambda u, v: m.number(u) / m.number(v), a, b),
        "expm1": lambda x: each(lambda a: m.call("exp", a) - 1, x), "log1p": lambda x: each(lambda a: m.call("log", 1 + a), x),
        "log_or_zero": call("log"),
        "power": lambda a, b: each(lambda u, v: m.general_power(m.number(u), m.number(v)), a, b),
        "powk": lambda x, k: each(lambda a: m.power(a, k), x), "add_n": lambda *x: reduce(np.add, x),
        "sum": lambda x, axes, keep: summed(x, tuple(axes), keep, m), "matmul": np.matmul,
        "accumulate": lambda total, x, forward: np.add(total, x),
        "cumsum": lambda x, axis: np.asarray(np.cumsum(x, axis=axis), x.dtype),
        "stop_gradient": lambda x: each(lambda a: a.steady() if isinstance(a, Residue) else a, x)}


def branches(m: FieldPoint) -> dict[str, Rule]:
    """Whatever looks at the floats."""
    zero = m.number(0)
    return {
        "less": lambda a, b: truths(m.below, a, b),
        "less_equal": lambda a, b: truths(lambda u, v: m.below(u, v, False), a, b),
        "equal": lambda a, b: truths(m.alike, a, b),
        "not_equal": lambda a, b: truths(lambda u, v: not m.alike(u, v), a, b),
        "both": np.logical_and, "either": np.logical_or, "negate": np.logical_not,
        "where": lambda c, a, b: _either(lambda a, b: np.where(c, a, b), lambda a, b: each(m.chosen, np.where(
            np.asarray(c), np.asarray(a, object), np.asarray(b, object))), a, b, c),
        "sign": lambda x: _either(np.sign, lambda x: each(m.sign, x), x),
        "abs": lambda x: _either(np.abs, lambda x: each(m.size, x), x),
        "relu": lambda x: each(lambda a: m.chosen(a if m.kink(0, a) else zero), x),
        "maximum": lambda *x: _either(np.maximum, lambda u, v: each(lambda a, b: m.chosen(a if m.kink(b, a) else b), u, v), *x),
        "minimum": lambda *x: _either(np.minimum, lambda u, v: each(lambda a, b: m.chosen(a if m.kink(a, b) else b), u, v), *x),
        "clip": lambda x, low, high: each(lambda a: clipped(m, a, low, high), x),
        "amax": lambda x, axes, keep: extreme(np.max, x, tuple(axes), keep, m),
        "amin": lambda x, axes, keep: extreme(np.min, x, tuple(axes), keep, m),
        "argmax": lambda x, axis: _argmax(m, x, axis)}


def _either(of_wholes: Callable[..., Array], of_numbers: Callable[..., Array], *x: Array) -> Array:
    """NumPy's own for whole numbers and bools."""
    if any(v.dtype == object for v in x):
        return of_numbers(*x[:2])
    return np.asarray(marked(of_wholes(*x[:2]), *x))


def _argmax(m: FieldPoint, x: Array, axis: int) -> Array:
    chosen = np.argmax(nears(x), axis=axis)
    if x.dtype != object:
        return np.asarray(marked(chosen, x))
    truths(m.below, x, np.take_along_axis(x, np.expand_dims(chosen, axis), axis))
    return np.asarray(chosen).view(DrawnArray)


def positions() -> dict[str, Rule]:
    """Moves of numbers."""
    return {
        "tag": lambda x, *at: x, "reshape": np.reshape, "transpose": np.transpose, "broadcast_to": np.broadcast_to,
        "slice": lambda x, parts: x[_slices(parts)], "take": lambda x, t: x[t],
        "concat": lambda *x: np.concatenate(x[:-1], x[-1]), "stack": lambda *x: np.stack(x),
        "gather": lambda table, index: table[inside(index, len(table))],
        "pick": lambda x, index: np.take_along_axis(x, inside(index, x.shape[-1])[..., None], -1)[..., 0]}


def inside(index: Array, n: int) -> Array:
    """The indices, all of which lie within an axis of n entries."""
    if index.size and not 0 <= index.min() <= index.max() < n:
        raise NearError(f"an index lies outside of an axis of {n} entries")
    return index


class Interpreter:
    """Runs instructions [op, sources, attributes] at a point."""

    def __init__(self, point: FieldPoint) -> None:
        self.point = point
        self.rules: dict[str, Rule] = {
            **arithmetic(point), **branches(point), **positions(),
            "astype": self._cast, "einsum": self._einsum, "place": self._place, "scatter_add": self._scatter,
            "put": lambda x, t, n: self._place(x[None], [[t, 1, 1], *([0, k, 1] for k in x.shape)], (n, *x.shape)),
            "one_hot": self._one_hot,
            "full": lambda v, shape, dtype: np.broadcast_to(self._cast(np.asarray(v), dtype), shape),
            "literal": self._literal, "iota": lambda shape, dtype: self._cast(np.arange(shape[0]), dtype),
            "scan": self._scan, "region": lambda *x: self._body(x[-1], list(x[:-1])), "read": lambda outs, i: outs[i]}

    def _one_hot(self, index: Array, n: int, dtype: str) -> Any:
        index = inside(index, n) if self.point.strict else index
        return self._cast(np.asarray(index[..., None] == np.arange(n)).astype(int), dtype)

    def _literal(self, value: object, shape: object, dtype: str) -> Any:
        return self._cast(value, dtype)

    def _cast(self, x: object, dtype: str) -> Any:
        x = np.asanyarray(x)
        if kind_of(dtype) != "f":
            if x.dtype == object:
                truths(self.point.below, x, 0.8125)  # noted as a comparison of its own
                return nears(x).astype(dtype).view(DrawnArray)
            return x.astype(dtype)
        if isinstance(x, DrawnArray):
            return each(self.point.whole, np.asarray(x))
        if x.dtype.kind == "b":
            return each(self.point.chosen, np.asarray(x))
        x = np.asarray(x)
        return x if x.dtype == object else each(self.point.number, x)

    def _place(self, x: Array, parts: Any, shape: Any) -> Array:
        out = filled(shape, lambda: self.point.number(0)) if x.dtype == object else np.zeros(shape, x.dtype)
        out[_slices(parts)] = x
        return out

    def _scatter(self, x: Array, index: Array, n: int) -> Array:
        out = filled((n, *x.shape[index.ndim:]), lambda: self.point.number(0))
        inside(index, n)
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
        if len(values) != body["arguments"]:
            raise LoadError(f"the certificate is damaged: a body of {body['arguments']} arguments is given {len(values)}")
        self.run(body["code"], values)
        if not all(natural(i) and i < len(values) for i in body["outs"]):
            raise LoadError("the certificate is damaged: a body returns what is not there")
        return [values[i] for i in body["outs"]]

    def _scan(self, *x: Any) -> list[Any]:
        *sources, body = x
        k, n = body.get("states"), body.get("sequences")
        whole = all(natural(v) for v in (k, n, body.get("steps"))) and type(body.get("reverse")) is bool
        if not whole or k + n > len(sources) or k > len(body["outs"]) or any(
                s.shape[:1] != (body["steps"],) for s in sources[k:k + n]):
            raise LoadError("the certificate is damaged: a scan does not fit its sources")
        state, xs, constants = list(sources[:k]), sources[k:k + n], list(sources[k + n:])
        self.point.work.spend(STEP * body["steps"] * (1 + len(body["code"])))
        steps = range(body["steps"])
        traced: dict[int, list[Any]] = {}
        for t in reversed(steps) if body["reverse"] else steps:
            out = self._body(body, [*state, *(_as_array(s[t], [s]) for s in xs), *constants])
            if any(a.shape != b.shape for a, b in zip(state, out[:k], strict=True)):
                raise LoadError("the certificate is damaged: a scan changes the shape of a state")
            state, traced[t] = out[:k], out[k:]
        count = len(body["outs"]) - k
        return [*state, *(np.stack([traced[t][i] for t in steps]) if steps else np.empty(0, object) for i in range(count))]

    def run(self, code: Iterable[Any], values: list[Any], only: set[int] | None = None) -> None:
        """Append the value of every instruction, or of some, with None for the others."""
        for name, sources, attributes in code:
            if only is not None and len(values) not in only:
                values.append(None)
                continue
            if not all(natural(i) and i < len(values) for i in sources):
                raise LoadError("the certificate is damaged: an instruction reads what is not there")
            x, at = [values[i] for i in sources], [_attribute(a) for a in attributes]
            checked(name, x, at)
            self.point.work.spend(cost(name, [v for v in x if isinstance(v, np.ndarray)], at))
            result = self.rules[name](*x, *at)
            values.append(result if isinstance(result, list) else _as_array(result, x))


def _as_array(result: object, x: Sequence[Any]) -> Array:
    """One number as an array; what follows from drawn numbers is marked, though NumPy forgets it for single ones."""
    if isinstance(result, np.ndarray):
        return result
    found = np.asarray(result, object if isinstance(result, Residue) else None)
    return found if found.dtype == object else marked(found, *x)


STEP = 20  # what a step of a scan costs beside its numbers


def cost(name: str, x: Sequence[Array], at: Sequence[Any]) -> int:
    """How many numbers an instruction makes, from the sizes of what it reads and its attributes alone."""
    if name in ("matmul", "einsum"):
        return 1 + (_letters(x, at[0]) if name == "einsum" else max(x[0].size * x[1].shape[-1], x[1].size * x[0].shape[-2]))
    made = 1
    if name in ("full", "literal", "place"):
        made = _product(at[1])
    elif name in ("broadcast_to", "iota", "reshape"):
        made = _product(at[0])
    elif name == "one_hot":
        made = x[0].size * at[0]
    elif name == "put":
        made = x[0].size * at[1]
    elif name == "scatter_add":
        made = x[0].size + at[0] * _product(x[0].shape[x[1].ndim:])
    elif name not in ("concat", "stack", "scan", "region", "read", "gather", "pick"):
        made = _product(np.broadcast_shapes(*(v.shape for v in x)))
    total: int = 1 + sum(v.size for v in x) + made
    return total


def _letters(x: Sequence[Array], spec: str) -> int:
    parts = spec.split("->")[0].split(",")
    sizes: dict[str, int] = {c: n for part, v in zip(parts, x, strict=True) for c, n in zip(part, v.shape, strict=True)}
    return _product([len(x), *sizes.values()])


def _product(shape: Iterable[Any]) -> int:
    return math.prod(int(n) for n in shape)


def _slices(parts: Iterable[Sequence[int]]) -> tuple[slice, ...]:
    return tuple(slice(a, end if (end := a + n * step) >= 0 else None, step) for a, n, step in parts)


def _attribute(a: object) -> Any:
    if isinstance(a, dict) and "float" in a:
        return float(a["float"])
    if isinstance(a, dict) and "array" in a:
        return np.array([_attribute(v) for v in a["array"]]).reshape(a["shape"])
    return tuple(_attribute(v) for v in a) if isinstance(a, list) else a
