"""A domain whose numbers are code: the formulas of the ops, evaluated over it, emit a kernel.

`CodeDomain` says what every target shares: which dtypes meet in an operation, and the ops whose formula is not enough.  A
target (LLVM vectors, CUDA C) supplies the primitives, which take numbers of one dtype:

    constant(x, dtype)                 a number
    combined(name, a, b)               add, sub, mul of floats and whole numbers
    divided(a, b), negated(a)          of floats
    related(sign, a, b)                a comparison
    bitwise(name, a, b), inverted(a)   and, or, xor of bools and whole numbers
    fma, select, copysign, bits, pattern, shift_left, shift_right, converted     as `scalars.py` describes them
    called(name, *values)              sqrt, sin, cos, pow, fabs of floats
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..domains import Domain
from ..errors import BackendError
from ..ir.node import DType, promote
from ..ir.op import Op
from ..ir.ops.random import threefry
from ..operators import Operators
from .scalars import PROGRAMS

BOOL, FLOAT64 = np.dtype(bool), np.dtype(np.float64)


class Number(Operators):
    """A number of emitted code (one, or a vector of them) of one dtype, with the operators that formulas use."""

    __slots__ = ("dtype", "m", "value")

    def __init__(self, m: CodeDomain, value: Any, dtype: DType) -> None:
        self.m, self.value, self.dtype = m, value, dtype

    @property
    def width(self) -> int:
        return 8 * self.dtype.itemsize

    def operate(self, op: str, *operands: Number) -> Number:
        emitted: Number = getattr(self.m, op)(*operands)
        return emitted

    def __xor__(self, other: Number) -> Number:
        return self.m.bitwise("xor", *self.m.pair(self, other))

    def __lshift__(self, n: int) -> Number:
        return self.m.shift_left(self, n)

    def __rshift__(self, n: int) -> Number:
        return self.m.shift_right(self, n)


class CodeDomain:
    """Emits the ops of the catalogue."""

    name = "abstract"
    constant: Callable[..., Number]
    combined: Callable[..., Number]
    divided: Callable[..., Number]
    negated: Callable[..., Number]
    related: Callable[..., Number]
    bitwise: Callable[..., Number]
    inverted: Callable[..., Number]
    converted: Callable[..., Number]
    called: Callable[..., Number]
    select: Callable[..., Number]
    shift_left: Callable[..., Number]
    shift_right: Callable[..., Number]
    copysign: Callable[..., Number]

    # ---- what dtypes meet

    def number(self, value: Number | float, like: Number) -> Number:
        return self.constant(value, like.dtype)

    whole = number

    def pair(self, a: Number | float, b: Number) -> tuple[Number, Number]:
        """Two operands in the dtype that they are computed in."""
        if not isinstance(a, Number):
            return self.number(a, b), b
        if not isinstance(b, Number):
            return a, self.number(b, a)
        dtype = promote(a.dtype, b.dtype)
        return self.cast(a, dtype), self.cast(b, dtype)

    def _joined(self, name: str, a: Number | float, b: Number) -> Number:
        x, y = self.pair(a, b)
        if x.dtype.kind == "b":
            return x | y if name == "add" else x & y
        return self.combined(name, x, y)

    def add(self, a: Number | float, b: Number) -> Number:
        return self._joined("add", a, b)

    def sub(self, a: Number | float, b: Number) -> Number:
        return self._joined("sub", a, b)

    def mul(self, a: Number | float, b: Number) -> Number:
        return self._joined("mul", a, b)

    def div(self, a: Number | float, b: Number) -> Number:
        x, y = self.pair(a, b)
        if x.dtype.kind != "f":
            x, y = self.cast(x, FLOAT64), self.cast(y, FLOAT64)
        return self.divided(x, y)

    def neg(self, x: Number) -> Number:
        return self.negated(x) if x.dtype.kind == "f" else self.sub(0, x)

    def both(self, a: Number | float, b: Number) -> Number:
        return self.bitwise("and", *self.pair(a, b))

    def either(self, a: Number | float, b: Number) -> Number:
        return self.bitwise("or", *self.pair(a, b))

    def negate(self, a: Number) -> Number:
        return self.inverted(a)

    def compare(self, sign: str, a: Number | float, b: Any) -> Number:
        return self.related(sign, *self.pair(a, b))

    def cast(self, x: Number, dtype: DType) -> Number:
        """The same numbers in another dtype, as NumPy's astype."""
        if x.dtype == dtype:
            return x
        return self.compare("!=", x, 0) if dtype.kind == "b" else self.converted(x, dtype)

    def from_whole(self, i: Number, like: Number) -> Number:
        return self.cast(i, like.dtype)

    def widen(self, x: Number) -> Number:
        return self.cast(x, FLOAT64)

    def narrow(self, y: Number, like: Number) -> Number:
        return self.cast(y, like.dtype)

    # ---- the ops of the catalogue whose formula is not enough, under their own names

    def implementation(self, op: Op) -> Callable[..., Any]:
        """The function of (*values, *attributes) that emits an op."""
        own: Callable[..., Any] | None = getattr(self, op.name, None)
        if own is not None:
            return own
        formula = op.evaluate
        if formula is None:
            raise BackendError(f"no code is known for the op {op.name!r}")
        return lambda *x: formula(self, *x)

    def __getattr__(self, name: str) -> Any:
        """The scalar programs, for formulas that call them."""
        if name in PROGRAMS:
            return lambda x: PROGRAMS[name](self, x)
        raise AttributeError(name)

    def add_n(self, *values: Number) -> Number:
        total = values[0]
        for v in values[1:]:
            total = total + v
        return total

    def less(self, a: Number | float, b: Number | float) -> Number:
        return self.compare("<", a, b)

    def less_equal(self, a: Number | float, b: Number) -> Number:
        return self.compare("<=", a, b)

    def equal(self, a: Number | float, b: Number) -> Number:
        return self.compare("==", a, b)

    def not_equal(self, a: Number | float, b: Number) -> Number:
        return self.compare("!=", a, b)

    def where(self, p: Number, a: Number | float, b: Number) -> Number:
        return self.select(p, *self.pair(a, b))

    def stop_gradient(self, x: Number) -> Number:
        return x

    def astype(self, x: Number, dtype: DType) -> Number:
        return self.cast(x, dtype)

    def sqrt(self, x: Number) -> Number:
        return self.called("sqrt", x)

    def sin(self, x: Number) -> Number:
        return self.called("sin", x)

    def cos(self, x: Number) -> Number:
        return self.called("cos", x)

    def power(self, a: Number | float, b: Number) -> Number:
        return self.called("pow", *self.pair(a, b))

    powk = Domain.powk                            # the same products and roots as in every other domain
    _repeated_product = Domain._repeated_product

    def abs(self, x: Number) -> Number:
        if x.dtype.kind == "f":
            return self.called("fabs", x)
        return x if x.dtype.kind in "bu" else self.select(self.less(x, 0), -x, x)

    def sign(self, x: Number) -> Number:
        one, zero = self.number(1, x), self.number(0, x)
        if x.dtype.kind in "bu":
            return self.select(self.equal(x, zero), zero, one)
        s = self.select(self.less(x, zero), -one, self.select(self.less(zero, x), one, zero))
        return self.select(self.equal(x, x), s, x)

    # NaN goes through all of these, as it does in NumPy: the comparison fails and the operand itself is taken

    def relu(self, x: Number) -> Number:
        return self.select(self.compare("<=", x, 0), self.number(0, x), x)

    def maximum(self, a: Number | float, b: Number) -> Number:
        x, y = self.pair(a, b)
        return self.select(self.less(x, y), y, self.select(self.equal(y, y), x, y))

    def minimum(self, a: Number | float, b: Number) -> Number:
        x, y = self.pair(a, b)
        return self.select(self.less(y, x), y, self.select(self.equal(y, y), x, y))

    def clip(self, x: Number, low: Number, high: Number) -> Number:
        low, high = self.number(low, x), self.number(high, x)
        x = self.select(self.less(x, low), low, x)
        return self.select(self.less(high, x), high, x)

    # ---- reductions

    def joined(self, reduction: str, a: Number, b: Number) -> Number:
        """Two parts of a sum, of a largest or of a smallest number, made one."""
        if reduction == "sum":
            return a + b
        return self.maximum(a, b) if reduction == "amax" else self.minimum(a, b)

    def neutral(self, reduction: str, dtype: DType) -> Number:
        """What a reduction starts from."""
        if reduction == "sum":
            return self.constant(0, dtype)
        if dtype.kind == "f":
            return self.constant(float("-inf" if reduction == "amax" else "inf"), dtype)
        if dtype.kind == "b":
            return self.constant(reduction == "amin", dtype)
        info = np.iinfo(dtype)
        return self.constant(info.min if reduction == "amax" else info.max, dtype)

    # ---- random bits

    uint32 = int  # what threefry asks of an array module

    def random_bits(self, key: Sequence[Number], position: Number, site: Number) -> Number:
        """Threefry-2x32 of words of 32 bits."""
        bits: Number = threefry(self, key, position, site)[0]
        return bits
