"""Python's operators from one method: nodes, tensors, numbers of emitted code and symbols of a traced cell have the same."""

from __future__ import annotations

from typing import Any, Self


class Operators:
    """`a + b` is `operate("add", a, b)`, and so on, by the names of ops; either operand may be a plain number."""

    __slots__ = ()

    def operate(self, op: str, *operands: Any) -> Self:
        raise NotImplementedError

    def __add__(self, other: object) -> Self:
        return self.operate("add", self, other)

    def __radd__(self, other: object) -> Self:
        return self.operate("add", other, self)

    def __sub__(self, other: object) -> Self:
        return self.operate("sub", self, other)

    def __rsub__(self, other: object) -> Self:
        return self.operate("sub", other, self)

    def __mul__(self, other: object) -> Self:
        return self.operate("mul", self, other)

    def __rmul__(self, other: object) -> Self:
        return self.operate("mul", other, self)

    def __truediv__(self, other: object) -> Self:
        return self.operate("div", self, other)

    def __rtruediv__(self, other: object) -> Self:
        return self.operate("div", other, self)

    def __pow__(self, other: object) -> Self:
        return self.operate("power", self, other)

    def __rpow__(self, other: object) -> Self:
        return self.operate("power", other, self)

    def __matmul__(self, other: object) -> Self:
        return self.operate("matmul", self, other)

    def __rmatmul__(self, other: object) -> Self:
        return self.operate("matmul", other, self)

    def __lt__(self, other: object) -> Self:
        return self.operate("less", self, other)

    def __gt__(self, other: object) -> Self:
        return self.operate("less", other, self)

    def __le__(self, other: object) -> Self:
        return self.operate("less_equal", self, other)

    def __ge__(self, other: object) -> Self:
        return self.operate("less_equal", other, self)

    def __and__(self, other: object) -> Self:
        return self.operate("both", self, other)

    def __or__(self, other: object) -> Self:
        return self.operate("either", self, other)

    def __neg__(self) -> Self:
        return self.operate("neg", self)

    def __abs__(self) -> Self:
        return self.operate("abs", self)

    def __invert__(self) -> Self:
        return self.operate("negate", self)
