"""The domain whose numbers are LLVM vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from ...ir.node import DType
from ..codegen import BOOL, Number
from ..codegen import CodeDomain as Base

BYTE, I32, I64, POINTER = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType()
CONTRACT = ("contract",)  # a b + c may be one instruction; sums are never reordered, so their order is fixed
_FLOATS = {4: ir.FloatType(), 8: ir.DoubleType()}


def scalar_type(dtype: DType) -> Any:
    """One number in a register; a bool is one bit there and one byte in memory."""
    if dtype.kind == "f":
        return _FLOATS[dtype.itemsize]
    return ir.IntType(1 if dtype.kind == "b" else 8 * dtype.itemsize)


def memory_type(dtype: DType) -> Any:
    return BYTE if dtype.kind == "b" else scalar_type(dtype)


Lanes = Number
"""A vector of numbers of one dtype."""


class LlvmDomain(Base):
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

    def splat(self, scalar: Any, dtype: DType) -> Lanes:
        kind = ir.VectorType(scalar.type, self.lanes)
        empty = ir.Constant(kind, ir.Undefined)
        one = self.b.insert_element(empty, scalar, ir.Constant(I32, 0))
        everywhere = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return Lanes(self, self.b.shuffle_vector(one, empty, everywhere), dtype)

    def intrinsic(self, name: str, result: object, arguments: Sequence[Any]) -> Any:
        module = self.b.module
        found = module.globals.get(name)
        function = found or ir.Function(module, ir.FunctionType(result, [a.type for a in arguments]), name)
        return self.b.call(function, arguments)

    def called(self, name: str, *values: Number) -> Lanes:
        """An intrinsic of LLVM that works lane by lane."""
        dtype = values[0].dtype
        letter = f"{'f' if dtype.kind == 'f' else 'i'}{8 * dtype.itemsize}"
        result = self.intrinsic(f"llvm.{name}.v{self.lanes}{letter}", self.vector(dtype), [v.value for v in values])
        return Lanes(self, result, dtype)

    # ---- primitives, on numbers of one dtype

    def combined(self, name: str, x: Number, y: Number) -> Lanes:
        if x.dtype.kind == "f":
            return Lanes(self, getattr(self.b, f"f{name}")(x.value, y.value, flags=CONTRACT), x.dtype)
        return Lanes(self, getattr(self.b, name)(x.value, y.value), x.dtype)

    def divided(self, x: Number, y: Number) -> Lanes:
        return Lanes(self, self.b.fdiv(x.value, y.value), x.dtype)

    def negated(self, x: Number) -> Lanes:
        return Lanes(self, self.b.fneg(x.value), x.dtype)

    def bitwise(self, name: str, x: Number, y: Number) -> Lanes:
        operation = {"and": self.b.and_, "or": self.b.or_, "xor": self.b.xor}[name]
        return Lanes(self, operation(x.value, y.value), x.dtype)

    def inverted(self, x: Number) -> Lanes:
        return Lanes(self, self.b.not_(x.value), x.dtype)

    def fma(self, a: Number, b: Number, c: Number) -> Lanes:
        return self.called("fmuladd", a, b, c)

    def select(self, p: Number, a: Number, b: Number) -> Lanes:
        return Lanes(self, self.b.select(p.value, a.value, b.value), a.dtype)

    def related(self, sign: str, x: Number, y: Number) -> Lanes:
        if x.dtype.kind == "f":
            ordered = self.b.fcmp_unordered if sign == "!=" else self.b.fcmp_ordered
            return Lanes(self, ordered(sign, x.value, y.value), BOOL)
        signed = self.b.icmp_signed if x.dtype.kind == "i" else self.b.icmp_unsigned
        return Lanes(self, signed(sign, x.value, y.value), BOOL)

    def copysign(self, x: Number, sign: Number) -> Lanes:
        return self.called("copysign", x, sign)

    def bits(self, x: Number) -> Lanes:
        whole = np.dtype(f"i{x.dtype.itemsize}")
        return Lanes(self, self.b.bitcast(x.value, self.vector(whole)), whole)

    def pattern(self, i: Number, like: Number) -> Lanes:
        return Lanes(self, self.b.bitcast(i.value, self.vector(like.dtype)), like.dtype)

    def shift_left(self, i: Number, n: int) -> Lanes:
        return Lanes(self, self.b.shl(i.value, self.number(n, i).value), i.dtype)

    def shift_right(self, i: Number, n: int) -> Lanes:
        shift = self.b.ashr if i.dtype.kind == "i" else self.b.lshr
        return Lanes(self, shift(i.value, self.number(n, i).value), i.dtype)

    def converted(self, x: Number, dtype: DType) -> Lanes:
        to, b = self.vector(dtype), self.b
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

    def _truncated(self, x: Number, dtype: DType) -> Any:
        """Towards zero; narrow and unsigned types by way of 64 bits, as NumPy does.  What NaN, infinity and numbers out of
        range become is the hardware's affair in NumPy; here they are the nearest 64-bit number."""
        if dtype.itemsize < 8:
            wide = np.dtype(np.int64)
            return self.cast(Lanes(self, self._truncated(x, wide), wide), dtype).value
        sign = "s" if dtype.kind == "i" else "u"
        to, letter = self.vector(dtype), f"f{x.width}"
        name = f"llvm.fpto{sign}i.sat.v{self.lanes}i{8 * dtype.itemsize}.v{self.lanes}{letter}"
        return self.intrinsic(name, to, [x.value])
