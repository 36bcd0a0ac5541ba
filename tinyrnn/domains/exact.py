"""Exact numbers: a graph evaluated over a ring, with tangents, and with a float run beside it that decides the branches.

An `Element` is an array that holds, entry by entry,

    near      an ordinary float: predicates, argmax and every branch look at this alone
    value     the exact number, an element of a ring (a polynomial, a residue modulo a prime, a SymPy expression)
    tangent   its derivative along the direction that the inputs were given, or None where nothing moves

Polynomial operations are the ring's.  A function such as tanh has no value in a ring: its output is a new, free
element, the same one for the same argument, and its slope is written in terms of its output (tanh' = 1 - y²).  An
identity that holds for free elements holds for the functions themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import BackendError, UndefinedError
from ..ir.node import DType
from ..shapes import Shape
from .domain import Domain
from .float import FLOAT, indices
from .marks import KINK, SIDE, TIE, Decided, Drawn, drawn, marked

Array = npt.NDArray[Any]


class Ring(Protocol):
    """Exact arithmetic on NumPy arrays of ring elements."""

    name: str
    dtype: Any

    def number(self, value: Fraction) -> Any: ...
    def unknown(self, what: str) -> Any: ...
    def decide(self, a: Array, b: Array, apart: Array, kind: int) -> None: ...
    def add(self, a: Array, b: Array) -> Array: ...
    def sub(self, a: Array, b: Array) -> Array: ...
    def neg(self, a: Array) -> Array: ...
    def mul(self, a: Array, b: Array) -> Array: ...
    def matmul(self, a: Array, b: Array) -> Array: ...
    def sum(self, a: Array, axes: tuple[int, ...], keepdims: bool) -> Array: ...
    def reciprocal(self, a: Array) -> Array: ...
    def function(self, name: str, a: Array) -> Array: ...


CAST = 0.8125
"""What a cast to whole numbers is noted as being compared with, so that it is none of the comparisons with 0."""


class Element:
    """An array of exact numbers."""

    __slots__ = ("decided", "domain", "fixed", "near", "tangent", "value")
    __array_ufunc__ = None

    def __init__(self, domain: Exact, near: Array, value: Array, tangent: Array | None = None, fixed: bool = False,
                 decided: bool = False) -> None:
        self.domain, self.near, self.value, self.tangent = domain, near, value, tangent
        self.fixed = fixed      # known numbers only: nothing that was given or moves
        self.decided = decided  # numbers among which data has chosen

    @property
    def shape(self) -> Shape:
        return self.near.shape

    @property
    def ndim(self) -> int:
        return self.near.ndim

    def steady(self) -> Element:
        """The same numbers, not moving."""
        return Element(self.domain, self.near, self.value, None, self.fixed, self.decided)

    def moved(self, f: Callable[[Array], Array]) -> Element:
        """The same map of positions applied to all parts."""
        return Element(self.domain, f(self.near), f(self.value), None if self.tangent is None else f(self.tangent), self.fixed,
                       self.decided)

    # ---- positions

    def reshape(self, to: Shape) -> Element:
        return self.moved(lambda x: x.reshape(to))

    def transpose(self, order: Sequence[int]) -> Element:
        return self.moved(lambda x: x.transpose(order))

    def __getitem__(self, key: Any) -> Element:
        return self.moved(lambda x: np.asarray(x[key], x.dtype))

    def __setitem__(self, key: Any, other: Element) -> None:
        self.near[key], self.value[key] = other.near[()], other.value[()]  # one number is put as such, not as an array
        if other.tangent is not None and self.tangent is None:
            self.tangent = self.domain.nothing(self.shape)
        if self.tangent is not None:
            self.tangent[key] = self.domain.nothing(()).item() if other.tangent is None else other.tangent[()]
        self.fixed, self.decided = self.fixed and other.fixed, self.decided or other.decided

    # ---- arithmetic

    def __add__(self, other: object) -> Element:
        a, b, ring = self, self.domain.lift(other), self.domain.ring
        moving = [t for t in (a.tangent, b.tangent) if t is not None]
        tangent = ring.add(*moving) if len(moving) == 2 else a._spread(moving[0], b) if moving else None
        return a._result(b, a.near + b.near, ring.add(a.value, b.value), tangent)

    def __sub__(self, other: object) -> Element:
        return self + -self.domain.lift(other)

    def __rsub__(self, other: object) -> Element:
        return self.domain.lift(other) + -self

    def __neg__(self) -> Element:
        ring = self.domain.ring
        return Element(self.domain, -self.near, ring.neg(self.value),
                       None if self.tangent is None else ring.neg(self.tangent), self.fixed, self.decided)

    def __mul__(self, other: object) -> Element:
        b = self.domain.lift(other)
        return self._product(b, self.near * b.near, self.domain.ring.mul)

    def __matmul__(self, other: Element) -> Element:
        return self._product(other, self.near @ other.near, self.domain.ring.matmul)

    def __truediv__(self, other: object) -> Element:
        return self * self.domain.reciprocal(self.domain.lift(other))

    def __rtruediv__(self, other: object) -> Element:
        return self.domain.lift(other) * self.domain.reciprocal(self)

    __radd__, __rmul__ = __add__, __mul__

    def _product(self, b: Element, near: Array, times: Callable[[Array, Array], Array]) -> Element:
        """(a b)' = a' b + a b'."""
        terms = [times(self.tangent, b.value)] if self.tangent is not None else []
        terms += [times(self.value, b.tangent)] if b.tangent is not None else []
        tangent = reduce(self.domain.ring.add, terms) if terms else None
        return self._result(b, near, times(self.value, b.value), tangent)

    def _spread(self, tangent: Array, other: Element) -> Array:
        return np.broadcast_to(tangent, np.broadcast_shapes(self.shape, other.shape))

    def _result(self, other: Element, near: Array, value: Array, tangent: Array | None) -> Element:
        return Element(self.domain, np.asarray(near), value, tangent, self.fixed and other.fixed, self.decided or other.decided)


# The slope of every function in terms of its output y and its argument x.  `tinyrnn.symbolic.proof.axioms` compares each with
# SymPy's derivative; everything else about derivatives is the product rule above.
SLOPES: dict[str, Callable[[Exact, Element, Element], Element]] = {
    "tanh":       lambda m, y, x: 1 - y * y,
    "sigmoid":    lambda m, y, x: y - y * y,
    "softplus":   lambda m, y, x: m.function("sigmoid", x),
    "exp":        lambda m, y, x: y,
    "log":        lambda m, y, x: m.reciprocal(x),
    "sqrt":       lambda m, y, x: 0.5 * m.reciprocal(y),
    "sin":        lambda m, y, x: m.function("cos", x),
    "cos":        lambda m, y, x: -m.function("sin", x),
    "reciprocal": lambda m, y, x: -(y * y),
}

_NEAR: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh, "sigmoid": FLOAT.sigmoid, "softplus": lambda x: np.logaddexp(x, 0), "exp": np.exp, "log": np.log,
    "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "reciprocal": np.reciprocal}


def _free(name: str) -> Callable[[Exact, Element], Element]:
    """A domain's method that gives a function a free output."""
    return lambda self, x: self.function(name, x)


class Exact(Domain):
    """Elements over a ring.  `branches` counts the entries of predicates that looked at data."""

    def __init__(self, ring: Ring) -> None:
        self.ring, self.name = ring, ring.name
        self.branches = 0
        self._powers: dict[tuple[Hashable, Hashable], Element] = {}
        self._exponents: dict[float, Fraction] = {}

    # ---- numbers in and out

    def owns(self, value: object) -> bool:
        return isinstance(value, (Element, Drawn))

    def enter(self, value: object, dtype: DType) -> Any:
        if dtype.kind == "c":
            raise BackendError(f"the domain {self.name} has no complex numbers")
        if isinstance(value, Element) or dtype.kind != "f":
            return value if isinstance(value, Element) else np.asanyarray(value, dtype)
        return self._constant(np.asarray(value, np.float64))

    def _constant(self, near: Array) -> Element:
        value = np.empty(near.shape, self.ring.dtype)
        for i in np.ndindex(near.shape):
            value[i] = self._number(float(near[i]))
        return Element(self, near, value, None, True)

    def _number(self, v: float) -> Any:
        """The decimal that a float was written as; infinity and NaN are symbols of their own."""
        return self.ring.number(Fraction(repr(v))) if np.isfinite(v) else self.ring.unknown(repr(v))

    def lift(self, value: object) -> Element:
        return value if isinstance(value, Element) else self._constant(np.asarray(value, np.float64))

    def given(self, near: Array, value: Array, tangent: Array | None = None) -> Element:
        """An input: floats that decide branches, exact values, and how they move."""
        return Element(self, np.asarray(near, np.float64), value, tangent)

    def nothing(self, shape: Shape) -> Array:
        """An array of zeros of the ring."""
        return np.full(shape, self.ring.number(Fraction(0)), self.ring.dtype)

    def full(self, value: object, shape: Shape, dtype: DType) -> Any:
        return self.broadcast_to(self.enter(value, dtype), shape)

    def zeros(self, shape: Shape, like: Element) -> Any:
        if not isinstance(like, Element):
            return np.zeros(shape, like.dtype)
        return Element(self, np.zeros(shape), self.nothing(shape), None, True)

    def buffer(self, shape: Shape, dtype: DType) -> Any:
        return np.empty(shape, dtype) if dtype.kind != "f" else self.zeros(shape, self.lift(0))

    # ---- functions

    def function(self, name: str, x: Element) -> Element:
        """A free element for each argument, moving with the slope of the function."""
        y = Element(self, np.asarray(_NEAR[name](x.near)), self.ring.function(name, x.value))
        if x.tangent is not None:
            y.tangent = self.ring.mul(SLOPES[name](self, y.steady(), x.steady()).value, x.tangent)
        return y

    def reciprocal(self, x: Element) -> Element:
        """1/x: a number where x is known, a free element elsewhere."""
        if not x.fixed:
            return self.function("reciprocal", x)
        if not np.all(x.near):
            raise UndefinedError("a division by a known zero")
        return Element(self, 1 / x.near, self.ring.reciprocal(x.value), None, True, x.decided)

    tanh: Any = _free("tanh")
    sigmoid: Any = _free("sigmoid")
    softplus: Any = _free("softplus")
    exp: Any = _free("exp")
    log: Any = _free("log")
    sqrt: Any = _free("sqrt")
    sin: Any = _free("sin")
    cos: Any = _free("cos")

    def expm1(self, x: Element) -> Element:
        return self.function("exp", x) - 1

    def log1p(self, x: Element) -> Element:
        return self.function("log", 1 + x)

    def log_or_zero(self, x: Element) -> Element:
        """Its own value at 0 is a convention, as that of `scale`: no free element is 0."""
        return self.function("log", x)

    def power(self, a: Element, b: Element) -> Element:
        """a^b with d(a^b) = b a^(b-1) da + a^b log a db.

        Powers whose exponents differ by one are a factor of a apart; of two such, whichever is met first is free.
        """
        a, b = self.lift(a), self.lift(b)
        y = self._free_power(a.steady(), b.steady())
        moving = []
        if a.tangent is not None:
            moving.append(self.ring.mul((b.steady() * self._free_power(a.steady(), b.steady() - 1)).value, a.tangent))
        if b.tangent is not None:
            moving.append(self.ring.mul((y * self.log(a.steady())).value, b.tangent))
        return Element(self, y.near, y.value, reduce(self.ring.add, moving) if moving else None)

    def _free_power(self, a: Element, b: Element) -> Element:
        key = self._key(a)
        known = self._powers.get((key, self._key(b)))
        if known is None:
            higher, lower = (self._powers.get((key, self._key(b + k))) for k in (1, -1))
            near = np.asarray(np.power(a.near, b.near))
            known = (higher * self.reciprocal(a) if higher is not None else lower * a if lower is not None else
                     self.exp(b * self.log(a)))
            known.near = near
            self._powers[key, self._key(b)] = known
        return known

    def _key(self, x: Element) -> Hashable:
        return x.shape, tuple(x.value.ravel().tolist())

    def powk(self, x: Element, k: float) -> Any:
        """x^k for a known k, with d(x^k) = k x^(k-1) dx; the reciprocal of a whole power is a product of reciprocals."""
        exponent, still, tangent = self._exponent(float(k)), x.steady(), None
        y = self._known_power(still, exponent)
        if x.tangent is not None:
            slope = self._known_power(still, exponent - 1).value
            tangent = self.ring.mul(self.ring.mul(self.lift(k).value, slope), x.tangent)
        return Element(self, y.near, y.value, tangent)

    def _exponent(self, k: float) -> Fraction:
        """The decimal that was written; but where k is one less or more than a known exponent, rounded (1.3 - 1 is not 0.3 in
        floating point), it is exactly that: a gradient has such exponents."""
        if k not in self._exponents:
            found = [exact + j for j in (-1, 1, -2, 2) for known, exact in self._exponents.items() if known + j == k]
            self._exponents[k] = found[0] if found else Fraction(repr(k))
        return self._exponents[k]

    def _known_power(self, x: Element, k: Fraction) -> Element:
        """Products where k is a small whole number or half of one, else a free function of x and k."""
        if k == 0:
            return self.lift(np.ones(x.shape))
        if k.denominator == 1 and abs(k) <= 64:
            base, n = x, int(k)
        elif k.denominator == 2 and abs(k) <= 32:
            base, n = self.sqrt(x), int(2 * k)
        else:
            value = np.full((), self.ring.number(k), self.ring.dtype)
            return self._free_power(x, Element(self, np.asarray(float(k)), value, None, True))
        y: Element = self._repeated_product(base if n > 0 else self.reciprocal(base), abs(n))
        return y

    # ---- kinks: either side has the tie, since the values there are equal

    def abs(self, x: Any) -> Any:
        """Its slope at 0 is 0, as the engine's is."""
        if not isinstance(x, Element):
            return marked(np.abs(x), x)
        self._noted(x, 0.0, KINK)
        self._noted(x, 0.0, TIE)
        return x * self._constant(np.sign(self._decides(x)))

    def relu(self, x: Any) -> Any:
        return self.maximum(x, 0.0)

    def maximum(self, a: Any, b: object) -> Any:
        return self._kinked(np.maximum, lambda u, v: v < u, a, b)

    def minimum(self, a: Any, b: Element) -> Any:
        return self._kinked(np.minimum, lambda u, v: u < v, a, b)

    def clip(self, x: Any, low: float, high: float) -> Any:
        """Both bounds are asked, whatever the answers, as the slope asks both."""
        if not isinstance(x, Element):
            return marked(np.clip(x, low, high), x)
        near = self._decides(x)
        self._noted(x, float(low), KINK)
        self._noted(x, float(high), KINK)
        inner = self.where(near > high, float(high), x)
        found: Element = self.where(near < low, float(low), inner)
        found.decided = True
        return found

    def _kinked(self, plain: Any, first: Callable[[Array, Array], Array], a: Any, b: object) -> Any:
        if not isinstance(a, Element) and not isinstance(b, Element):
            return marked(plain(a, b), a, b)
        chosen = first(self._decides(a), self._decides(b))
        self._noted(a, b, KINK)
        found = self.where(chosen, a, b)
        found.decided = True
        return found

    def scale(self, g: Element, d: Element) -> Element:
        return g * d

    def stop_gradient(self, x: Element) -> Any:
        return x.steady() if isinstance(x, Element) else x

    def astype(self, x: Element, dtype: DType) -> Any:
        if isinstance(x, Element):
            if dtype.kind == "f":
                return x
            self._noted(x, self.lift(CAST), SIDE)
            return drawn(self._decides(x).astype(dtype))
        if dtype.kind == "f" and isinstance(x, Drawn):
            return self._whole(x)
        if dtype.kind == "f" and isinstance(x, Decided):
            found = self._constant(np.asarray(x, np.float64))
            found.decided = True
            return found
        return self.enter(x, dtype) if dtype.kind == "f" else marked(x.astype(dtype), x)

    def _whole(self, x: Drawn) -> Element:
        """A free element for each whole number: what holds for free elements holds for those that were not drawn, too."""
        near = np.asarray(x, np.float64)
        numbers = self._constant(near).value
        return Element(self, near, self.ring.function("whole", numbers))

    # ---- branches: only floats decide

    def _decides(self, x: object) -> Array:
        if not isinstance(x, Element):
            return np.asarray(x)
        if not x.fixed or x.decided:
            self.branches += x.near.size
            if np.isnan(x.near).any():
                raise UndefinedError(f"a branch of the graph depends on a NaN of the float run beside the domain {self.name}; "
                                     "give values= at which the graph is finite")
        return x.near

    def _compared(self, how: Any, a: Element, b: Element, less: Element, more: Element, kind: int) -> Array:
        """Only floats decide; the ring notes what was compared, and what is told from the rest."""
        if not isinstance(a, Element) and not isinstance(b, Element):
            return np.asanyarray(how(a, b))
        result = np.asarray(how(self._decides(a), self._decides(b)))
        return result.view(Decided) if self._noted(less, more, kind) else result

    def _noted(self, a: object, b: object, kind: int) -> bool:
        """Whether something was compared that is no constant: then the ring notes it."""
        if not any(isinstance(x, Element) and (not x.fixed or x.decided) for x in (a, b)):
            return False
        a, b = self.lift(a), self.lift(b)
        self.ring.decide(a.value, b.value, a.near != b.near, kind)
        return True

    def less(self, a: Element, b: Element) -> Array:
        return self._compared(np.less, a, b, a, b, SIDE)

    def less_equal(self, a: Element, b: Element) -> Array:
        return self._compared(np.less_equal, a, b, b, a, SIDE)

    def equal(self, a: Element, b: Element) -> Array:
        return self._compared(np.equal, a, b, a, b, TIE)

    def not_equal(self, a: Element, b: Element) -> Array:
        return self._compared(np.not_equal, a, b, a, b, TIE)

    def argmax(self, x: Element, axis: int) -> Array:
        chosen = np.argmax(np.asarray(self._decides(x)), axis=axis)
        if not isinstance(x, Element):
            return np.asarray(marked(chosen, x))
        self._noted(x, x.moved(lambda p: np.take_along_axis(p, np.expand_dims(chosen, axis), axis)), SIDE)
        return np.asarray(drawn(chosen))

    def sign(self, x: Element) -> Any:
        if not isinstance(x, Element):
            return np.sign(x)
        found = self._constant(np.sign(self._decides(x)))
        found.decided = all([self._noted(x, 0.0, SIDE), self._noted(0.0, x, SIDE), self._noted(x, 0.0, TIE)])
        return found

    def where(self, c: Array, a: Any, b: Any) -> Any:
        if not isinstance(a, Element) and not isinstance(b, Element) and np.asarray(a).dtype.kind in "biu":
            found = np.where(c, a, b)
            return drawn(found) if isinstance(c, Decided) else marked(found, c, a, b)
        a, b = self.lift(a), self.lift(b)
        tangent = None
        if a.tangent is not None or b.tangent is not None:
            zero = self.nothing(())
            tangent = np.where(c, zero if a.tangent is None else a.tangent, zero if b.tangent is None else b.tangent)
        return Element(self, np.where(c, a.near, b.near), np.where(c, a.value, b.value), tangent, a.fixed and b.fixed,
                       a.decided or b.decided or isinstance(c, (Decided, Drawn)))

    def amax(self, x: Element, axes: tuple[int, ...], keepdims: bool) -> Any:
        return self._extreme(np.max, x, axes, keepdims)

    def amin(self, x: Element, axes: tuple[int, ...], keepdims: bool) -> Any:
        return self._extreme(np.min, x, axes, keepdims)

    def _extreme(self, choose: Callable[..., Array], x: Element, axes: tuple[int, ...], keepdims: bool) -> Any:
        """The mean of the entries that attain the extreme: ties share the derivative evenly, as the gradient does."""
        if not isinstance(x, Element):
            return choose(x, axis=axes, keepdims=keepdims)
        near = self._decides(x)
        hit = near == choose(near, axis=axes, keepdims=True)
        share = self.where(hit, self._shares(np.sum(hit, axis=axes, keepdims=True)), 0.0)
        y = self.sum(share * x, axes, True)
        self._noted(x, Element(self, np.asarray(choose(near, axis=axes, keepdims=True)), y.value), TIE)
        self._noted(x, Element(self, np.asarray(choose(near, axis=axes, keepdims=True)), y.value), KINK)
        y.near = np.asarray(choose(near, axis=axes, keepdims=True))
        return y if keepdims else y.moved(lambda p: np.squeeze(p, axes))

    def _shares(self, counts: Array) -> Element:
        """1/k, exactly."""
        value = np.empty(counts.shape, self.ring.dtype)
        for i in np.ndindex(counts.shape):
            value[i] = self.ring.number(Fraction(1, int(counts[i])))
        return Element(self, np.asarray(1 / counts), value, None, True)

    # ---- sums, joins, lookups

    def sum(self, x: Element, axes: tuple[int, ...], keepdims: bool) -> Any:
        if not isinstance(x, Element):
            return np.sum(x, axis=axes, keepdims=keepdims)
        total = self.ring.sum
        return Element(self, np.asarray(np.sum(x.near, axis=axes, keepdims=keepdims)), total(x.value, axes, keepdims),
                       None if x.tangent is None else total(x.tangent, axes, keepdims), x.fixed, x.decided)

    def matmul(self, a: Element, b: Element) -> Any:
        return self.lift(a) @ self.lift(b) if isinstance(a, Element) or isinstance(b, Element) else a @ b

    def einsum(self, *x: Any) -> Any:
        """Every operand stretched over all letters, multiplied, and summed over what the output lacks."""
        *operands, spec = x
        inputs, _, out = spec.partition("->")
        letters = sorted(set(inputs) - {","})
        terms = [self._aligned(self.lift(o), part, letters) for o, part in zip(operands, inputs.split(","), strict=True)]
        lost = tuple(i for i, c in enumerate(letters) if c not in out)
        total = self.sum(reduce(lambda a, b: a * b, terms), lost, False)
        kept = [c for c in letters if c in out]
        return total.transpose([kept.index(c) for c in out])

    def _aligned(self, x: Element, part: str, letters: Sequence[str]) -> Element:
        order = sorted(range(len(part)), key=lambda i: part[i])
        sizes = dict(zip(part, x.shape, strict=True))
        return x.transpose(order).reshape(tuple(sizes.get(c, 1) for c in letters))

    def broadcast_to(self, x: Element, to: Shape) -> Any:
        return x.moved(lambda p: np.broadcast_to(p, to)) if isinstance(x, Element) else np.broadcast_to(x, to, subok=True)

    def concat(self, *x: Any) -> Any:
        *parts, axis = x
        return self._joined(parts, lambda arrays: np.concatenate(arrays, axis))

    def stack(self, *parts: Element) -> Any:
        return self._joined(parts, np.stack)

    def _joined(self, parts: Sequence[Any], join: Callable[[list[Array]], Array]) -> Any:
        if not any(isinstance(p, Element) for p in parts):
            return marked(join(list(parts)), *parts)
        elements = [self.lift(p) for p in parts]
        moving = any(p.tangent is not None for p in elements)
        tangents = [self.nothing(p.shape) if p.tangent is None else p.tangent for p in elements] if moving else []
        return Element(self, join([p.near for p in elements]), join([p.value for p in elements]),
                       join(tangents) if moving else None, all(p.fixed for p in elements), any(p.decided for p in elements))

    def cumsum(self, x: Element, axis: int) -> Any:
        if not isinstance(x, Element):
            return np.cumsum(x, axis=axis)
        pieces = [x[(slice(None),) * axis + (i,)] for i in range(x.shape[axis])]
        running = [reduce(lambda a, b: a + b, pieces[: i + 1]) for i in range(len(pieces))]
        return self._joined(running, lambda arrays: np.stack(arrays, axis)) if pieces else x

    def gather(self, table: Element, index: Array) -> Any:
        return table[indices(index, len(table.near) if isinstance(table, Element) else len(table), "an axis")]

    def scatter_add(self, x: Element, index: Array, n: int) -> Any:
        if not isinstance(x, Element):
            return FLOAT.scatter_add(x, index, n)
        chosen = self._constant(np.asarray(index.reshape(-1) == np.arange(n)[:, None], np.float64))
        rows = x.reshape((index.size, -1) if index.size else (0, int(np.prod(x.shape[index.ndim:]))))
        return (chosen @ rows).reshape((n, *x.shape[index.ndim:]))

    def pick(self, x: Element, index: Array) -> Any:
        chosen = indices(index, x.shape[-1], "an axis")[..., None] == np.arange(x.shape[-1])
        return self.sum(self.where(chosen, x, 0.0), (len(x.shape) - 1,), False)

    def one_hot(self, index: Array, n: int, dtype: DType) -> Any:
        return self.enter(FLOAT.one_hot(index, n, np.dtype(float)), dtype)
