"""A domain whose numbers are LLVM vectors: the formulas of the ops, evaluated over it, emit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from ...domains import Domain
from ...errors import BackendError
from ...ir.node import DType, promote
from ...ir.op import Op
from ..scalars import PROGRAMS

BYTE, I32, I64, POINTER = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType()
CONTRACT = ("contract",)  # a b + c may be one instruction; sums are never reordered, so their order is fixed
BOOL = np.dtype(bool)
_FLOATS = {4: ir.FloatType(), 8: ir.DoubleType()}


def scalar_type(dtype: DType) -> Any:
    """One number in a register; a bool is one bit there and one byte in memory."""
    if dtype.kind == "f":
        return _FLOATS[dtype.itemsize]
    return ir.IntType(1 if dtype.kind == "b" else 8 * dtype.itemsize)


def memory_type(dtype: DType) -> Any:
    return BYTE if dtype.kind == "b" else scalar_type(dtype)


def supported(dtype: DType) -> bool:
    """Whether compiled kernels compute with this dtype."""
    return dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize in _FLOATS)


class Lanes:
    """A vector of numbers of one dtype, with the operators that formulas use."""

    __slots__ = ("dtype", "m", "value")

    def __init__(self, m: Machine, value: Any, dtype: DType) -> None:
        self.m, self.value, self.dtype = m, value, dtype

    @property
    def width(self) -> int:
        return 8 * self.dtype.itemsize

    def __add__(self, other: Any) -> Lanes:
        return self.m.arithmetic("add", self, other)

    def __radd__(self, other: Any) -> Lanes:
        return self.m.arithmetic("add", other, self)

    def __sub__(self, other: Any) -> Lanes:
        return self.m.arithmetic("sub", self, other)

    def __rsub__(self, other: Any) -> Lanes:
        return self.m.arithmetic("sub", other, self)

    def __mul__(self, other: Any) -> Lanes:
        return self.m.arithmetic("mul", self, other)

    def __rmul__(self, other: Any) -> Lanes:
        return self.m.arithmetic("mul", other, self)

    def __truediv__(self, other: Any) -> Lanes:
        return self.m.quotient(self, other)

    def __rtruediv__(self, other: Any) -> Lanes:
        return self.m.quotient(other, self)

    def __neg__(self) -> Lanes:
        if self.dtype.kind == "f":
            return Lanes(self.m, self.m.b.fneg(self.value), self.dtype)
        return self.m.number(0, self) - self

    def __and__(self, other: Lanes) -> Lanes:
        return Lanes(self.m, self.m.b.and_(self.value, other.value), self.dtype)

    def __or__(self, other: Lanes) -> Lanes:
        return Lanes(self.m, self.m.b.or_(self.value, other.value), self.dtype)

    def __invert__(self) -> Lanes:
        return Lanes(self.m, self.m.b.not_(self.value), self.dtype)


class Machine:
    """Emits the ops of the catalogue for vectors of `lanes` numbers."""

    name = "llvm"

    def __init__(self, builder: Any, lanes: int) -> None:
        self.b, self.lanes = builder, lanes

    # ---- values

    def vector(self, dtype: DType) -> Any:
        return ir.VectorType(scalar_type(dtype), self.lanes)

    def constant(self, number: Any, dtype: DType) -> Lanes:
        kind = dtype.kind
        value = float(dtype.type(number)) if kind == "f" else int(number)
        return Lanes(self, ir.Constant(self.vector(dtype), [value] * self.lanes), dtype)

    def number(self, value: Any, like: Lanes) -> Lanes:
        return self.constant(value, like.dtype)

    whole = number

    def splat(self, scalar: Any, dtype: DType) -> Lanes:
        kind = ir.VectorType(scalar.type, self.lanes)
        empty = ir.Constant(kind, ir.Undefined)
        one = self.b.insert_element(empty, scalar, ir.Constant(I32, 0))
        everywhere = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return Lanes(self, self.b.shuffle_vector(one, empty, everywhere), dtype)

    def intrinsic(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        module = self.b.module
        found = module.globals.get(name)
        function = found or ir.Function(module, ir.FunctionType(result, [a.type for a in arguments]), name)
        return self.b.call(function, arguments)

    def of_lanes(self, name: str, *values: Lanes) -> Lanes:
        """An intrinsic of LLVM that works lane by lane."""
        dtype = values[0].dtype
        letter = f"{'f' if dtype.kind == 'f' else 'i'}{8 * dtype.itemsize}"
        result = self.intrinsic(f"llvm.{name}.v{self.lanes}{letter}", self.vector(dtype), [v.value for v in values])
        return Lanes(self, result, dtype)

    # ---- the arithmetic that programs are written in

    def _pair(self, a: Any, b: Any) -> tuple[Lanes, Lanes]:
        if not isinstance(a, Lanes):
            return self.number(a, b), b
        if not isinstance(b, Lanes):
            return a, self.number(b, a)
        dtype = promote(a.dtype, b.dtype)
        return self.cast(a, dtype), self.cast(b, dtype)

    def arithmetic(self, name: str, a: Any, b: Any) -> Lanes:
        x, y = self._pair(a, b)
        if x.dtype.kind == "f":
            return Lanes(self, getattr(self.b, f"f{name}")(x.value, y.value, flags=CONTRACT), x.dtype)
        if x.dtype.kind == "b":
            return x | y if name == "add" else x & y
        return Lanes(self, getattr(self.b, name)(x.value, y.value), x.dtype)

    def quotient(self, a: Any, b: Any) -> Lanes:
        x, y = self._pair(a, b)
        if x.dtype.kind != "f":
            x, y = self.cast(x, np.dtype(np.float64)), self.cast(y, np.dtype(np.float64))
        return Lanes(self, self.b.fdiv(x.value, y.value), x.dtype)

    def fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        return self.of_lanes("fmuladd", a, b, c)

    def select(self, p: Lanes, a: Lanes, b: Lanes) -> Lanes:
        return Lanes(self, self.b.select(p.value, a.value, b.value), a.dtype)

    def compare(self, sign: str, a: Any, b: Any) -> Lanes:
        x, y = self._pair(a, b)
        if x.dtype.kind == "f":
            ordered = self.b.fcmp_unordered if sign == "!=" else self.b.fcmp_ordered
            return Lanes(self, ordered(sign, x.value, y.value), BOOL)
        signed = self.b.icmp_signed if x.dtype.kind == "i" else self.b.icmp_unsigned
        return Lanes(self, signed(sign, x.value, y.value), BOOL)

    def copysign(self, x: Lanes, sign: Lanes) -> Lanes:
        return self.of_lanes("copysign", x, sign)

    def bits(self, x: Lanes) -> Lanes:
        whole = np.dtype(f"i{x.dtype.itemsize}")
        return Lanes(self, self.b.bitcast(x.value, self.vector(whole)), whole)

    def pattern(self, i: Lanes, like: Lanes) -> Lanes:
        return Lanes(self, self.b.bitcast(i.value, self.vector(like.dtype)), like.dtype)

    def shift_left(self, i: Lanes, n: int) -> Lanes:
        return Lanes(self, self.b.shl(i.value, self.number(n, i).value), i.dtype)

    def shift_right(self, i: Lanes, n: int) -> Lanes:
        shift = self.b.ashr if i.dtype.kind == "i" else self.b.lshr
        return Lanes(self, shift(i.value, self.number(n, i).value), i.dtype)

    def exclusive_or(self, a: Lanes, b: Lanes) -> Lanes:
        return Lanes(self, self.b.xor(a.value, b.value), a.dtype)

    def from_whole(self, i: Lanes, like: Lanes) -> Lanes:
        return self.cast(i, like.dtype)

    def widen(self, x: Lanes) -> Lanes:
        return self.cast(x, np.dtype(np.float64))

    def narrow(self, y: Lanes, like: Lanes) -> Lanes:
        return self.cast(y, like.dtype)

    def cast(self, x: Lanes, dtype: DType) -> Lanes:
        """The same numbers in another dtype, as NumPy's astype."""
        if x.dtype == dtype:
            return x
        to, b = self.vector(dtype), self.b
        if dtype.kind == "b":
            return self.compare("!=", x, 0)
        if x.dtype.kind == "f" and dtype.kind == "f":
            value = (b.fpext if dtype.itemsize > x.dtype.itemsize else b.fptrunc)(x.value, to)
        elif x.dtype.kind == "f":
            value = self._truncated(x, dtype)
        elif dtype.kind == "f":
            value = (b.sitofp if x.dtype.kind == "i" else b.uitofp)(x.value, to)
        elif dtype.itemsize == x.dtype.itemsize and x.dtype.kind != "b":
            value = x.value
        elif dtype.itemsize < x.dtype.itemsize:
            value = b.trunc(x.value, to)
        else:
            value = (b.sext if x.dtype.kind == "i" else b.zext)(x.value, to)
        return Lanes(self, value, dtype)

    def _truncated(self, x: Lanes, dtype: DType) -> Any:
        """Towards zero; narrow and unsigned types by way of 64 bits, as NumPy does.  What NaN, infinity and numbers out of
        range become is the hardware's affair in NumPy; here they are the nearest 64-bit number."""
        if dtype.itemsize < 8:
            wide = np.dtype(np.int64)
            return self.cast(Lanes(self, self._truncated(x, wide), wide), dtype).value
        sign = "s" if dtype.kind == "i" else "u"
        to, letter = self.vector(dtype), f"f{x.width}"
        name = f"llvm.fpto{sign}i.sat.v{self.lanes}i{8 * dtype.itemsize}.v{self.lanes}{letter}"
        return self.intrinsic(name, to, [x.value])

    # ---- the ops of the catalogue whose formula is not enough, under their own names

    def implementation(self, op: Op) -> Callable[..., Any]:
        """The function of (*values, *attributes) that emits an op."""
        own: Callable[..., Any] | None = getattr(self, op.name, None)
        if own is not None:
            return own
        if op.name in PROGRAMS:
            return lambda x: PROGRAMS[op.name](self, x)
        formula = op.evaluate
        if formula is None:
            raise BackendError(f"no code is known for the op {op.name!r}")
        return lambda *x: formula(self, *x)

    def __getattr__(self, name: str) -> Any:
        """The scalar programs, for formulas that call them."""
        if name in PROGRAMS:
            return lambda x: PROGRAMS[name](self, x)
        raise AttributeError(name)

    def add_n(self, *values: Lanes) -> Lanes:
        total = values[0]
        for v in values[1:]:
            total = total + v
        return total

    def less(self, a: Any, b: Any) -> Lanes:
        return self.compare("<", a, b)

    def less_equal(self, a: Any, b: Any) -> Lanes:
        return self.compare("<=", a, b)

    def equal(self, a: Any, b: Any) -> Lanes:
        return self.compare("==", a, b)

    def not_equal(self, a: Any, b: Any) -> Lanes:
        return self.compare("!=", a, b)

    def where(self, p: Lanes, a: Any, b: Any) -> Lanes:
        x, y = self._pair(a, b)
        return self.select(p, x, y)

    def stop_gradient(self, x: Lanes) -> Lanes:
        return x

    def astype(self, x: Lanes, dtype: DType) -> Lanes:
        return self.cast(x, dtype)

    def sqrt(self, x: Lanes) -> Lanes:
        return self.of_lanes("sqrt", x)

    def sin(self, x: Lanes) -> Lanes:
        return self.of_lanes("sin", x)

    def cos(self, x: Lanes) -> Lanes:
        return self.of_lanes("cos", x)

    def power(self, a: Any, b: Any) -> Lanes:
        return self.of_lanes("pow", *self._pair(a, b))

    powk = Domain.powk                            # the same products and roots as in every other domain
    _repeated_product = Domain._repeated_product

    def abs(self, x: Lanes) -> Lanes:
        if x.dtype.kind == "f":
            return self.of_lanes("fabs", x)
        return x if x.dtype.kind in "bu" else self.select(self.less(x, 0), -x, x)

    def sign(self, x: Lanes) -> Lanes:
        one, zero = self.number(1, x), self.number(0, x)
        if x.dtype.kind in "bu":
            return self.select(self.equal(x, zero), zero, one)
        s = self.select(self.less(x, zero), -one, self.select(self.less(zero, x), one, zero))
        return self.select(self.equal(x, x), s, x)

    # NaN goes through all of these, as it does in NumPy: the comparison fails and the operand itself is taken

    def relu(self, x: Lanes) -> Lanes:
        return self.select(self.compare("<=", x, 0), self.number(0, x), x)

    def maximum(self, a: Any, b: Any) -> Lanes:
        x, y = self._pair(a, b)
        return self.select(self.less(x, y), y, self.select(self.equal(y, y), x, y))

    def minimum(self, a: Any, b: Any) -> Lanes:
        x, y = self._pair(a, b)
        return self.select(self.less(y, x), y, self.select(self.equal(y, y), x, y))

    def clip(self, x: Lanes, low: Any, high: Any) -> Lanes:
        low, high = self.number(low, x), self.number(high, x)
        x = self.select(self.less(x, low), low, x)
        return self.select(self.less(high, x), high, x)
