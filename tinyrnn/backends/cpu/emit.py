"""A thin layer over llvmlite's builder: whole-number arithmetic, counted loops, vector loads and stores, reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeAlias

from llvmlite import ir

from ...ir.node import DType
from .codegen import BYTE, I32, I64, POINTER, Lanes, LlvmDomain, memory_type, scalar_type

KERNEL = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, POINTER])
"""kernel(pointers, sizes, n, scratch): operands, whole numbers, the extent along which work is split, a thread's own room."""


PATIENCE = 4000  # turns of waiting before the processor is offered to others
YIELD = "sched_yield"

Value: TypeAlias = ir.Value
"""A value of emitted code; most methods take a whole number that is known already as well."""


class Emit:
    """One function under construction."""

    def __init__(self, module: ir.Module, name: str, kind: ir.Type = KERNEL, internal: bool = False) -> None:
        self.function = ir.Function(module, kind, name)
        if internal:
            self.function.linkage = "internal"
            self.function.attributes.add("noinline")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))

    # ---- whole numbers

    def whole(self, n: Value) -> Any:
        return n if isinstance(n, ir.Value) else ir.Constant(I64, n)

    def add(self, *parts: Value) -> Any:
        return reduce(self.b.add, map(self.whole, parts))

    def sub(self, a: Value, b: Value) -> Any:
        return self.b.sub(self.whole(a), self.whole(b))

    def mul(self, *parts: Value) -> Any:
        return reduce(self.b.mul, map(self.whole, parts))

    def div(self, a: Value, b: Value) -> Any:
        return self.b.sdiv(self.whole(a), self.whole(b))

    def rem(self, a: Value, b: Value) -> Any:
        return self.b.srem(self.whole(a), self.whole(b))

    def least(self, a: Value, b: Value) -> Any:
        a, b = self.whole(a), self.whole(b)
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    def up(self, a: Value, multiple: int) -> Any:
        """`a` rounded up to a multiple."""
        return self.mul(self.div(self.add(a, multiple - 1), multiple), multiple)

    def is_(self, a: Value, sign: str, b: Value) -> Any:
        return self.b.icmp_signed(sign, self.whole(a), self.whole(b))

    def choose(self, p: Value, a: Value, b: Value) -> Any:
        return self.b.select(p, self.whole(a), self.whole(b))

    # ---- control

    def loop(self, low: Value, high: Value, step: Value, body: Callable[[Any], object]) -> None:
        """`for i in range(low, high, step): body(i)`."""
        def advance(i: Value, _: list[Any]) -> list[Any]:
            body(i)
            return []

        self.carry(low, high, step, [], advance)

    def carry(self, low: Value, high: Value, step: Value, start: Sequence[Any],
              advance: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """A loop that carries values from turn to turn; what they are after it."""
        b, low, high = self.b, self.whole(low), self.whole(high)
        before, turn, after = b.block, b.append_basic_block("loop"), b.append_basic_block("done")
        b.cbranch(b.icmp_signed("<", low, high), turn, after)
        b.position_at_end(turn)
        i, *state = phis = [b.phi(I64), *(b.phi(v.type) for v in start)]
        new = advance(i, state)
        following, end = b.add(i, self.whole(step)), b.block
        for phi, first, later in zip(phis, [low, *start], [following, *new], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, end)
        b.cbranch(b.icmp_signed("<", following, high), turn, after)
        b.position_at_end(after)
        results = [b.phi(v.type) for v in start]
        for phi, first, later in zip(results, start, new, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, end)
        return results

    def when(self, condition: Value, body: Callable[[], object]) -> None:
        with self.b.if_then(condition):
            body()

    def give_way(self) -> None:
        """The processor offered to others."""
        found = self.b.module.globals.get(YIELD)
        self.b.call(found or ir.Function(self.b.module, ir.FunctionType(I32, []), YIELD), [])

    # ---- memory

    def prefetch(self, pointer: Value) -> None:
        """The line of the cache at a place that is written soon."""
        name = "llvm.prefetch.p0"
        kind = ir.FunctionType(ir.VoidType(), [POINTER, I32, I32, I32])
        found = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        self.b.call(found, [pointer, ir.Constant(I32, 1), ir.Constant(I32, 3), ir.Constant(I32, 1)])

    def at(self, pointer: Value, offset: Value, kind: ir.Type) -> Any:
        """The address of entry `offset` of an array of `kind`."""
        return self.b.gep(pointer, [self.whole(offset)], source_etype=kind)

    def room(self, kind: ir.Type, count: int) -> Any:
        """An array on the stack."""
        return self.b.inttoptr(self.b.ptrtoint(self.b.alloca(ir.ArrayType(kind, count)), I64), POINTER)  # without a type

    def read(self, pointer: Value, kind: ir.Type) -> Any:
        value = self.b.load(pointer, typ=kind)
        value.align = 1 if isinstance(kind, ir.IntType) and kind.width == 8 else 4
        return value

    def write(self, value: Value, pointer: Value) -> None:
        done = self.b.store(value, pointer)
        done.align = 1 if isinstance(value.type, ir.IntType) and value.type.width == 8 else 4

    def entry(self, table: Value, index: int, kind: ir.Type = I64) -> Any:
        """Entry `index` of a table of eight-byte entries."""
        value = self.b.load(self.at(table, index, I64), typ=kind)
        value.align = 8
        return value

    def mask(self, m: LlvmDomain, count: Value) -> Any:
        """The lanes below `count`."""
        numbers = ir.Constant(ir.VectorType(I32, m.lanes), list(range(m.lanes)))
        from_count = ir.Constant(ir.VectorType(I32, m.lanes), ir.Undefined)
        low = self.b.insert_element(from_count, self.b.trunc(count, I32), ir.Constant(I32, 0))
        everywhere = ir.Constant(ir.VectorType(I32, m.lanes), [0] * m.lanes)
        return self.b.icmp_signed("<", numbers, self.b.shuffle_vector(low, from_count, everywhere))

    def load(self, m: LlvmDomain, pointer: Value, dtype: DType, mask: Value = None) -> Lanes:
        """`lanes` numbers that stand side by side; where the mask is off, zeros."""
        kind = ir.VectorType(memory_type(dtype), m.lanes)
        if mask is None:
            raw = self.b.load(pointer, typ=kind)
            raw.align = dtype.itemsize
        else:
            name = f"llvm.masked.load.{_suffix(kind)}.p0"
            align = ir.Constant(I32, dtype.itemsize)
            raw = m.intrinsic(name, kind, [pointer, align, mask, ir.Constant(kind, None)])
        return self._from_memory(m, raw, dtype)

    def store(self, m: LlvmDomain, x: Lanes, pointer: Value, mask: Value = None) -> None:
        raw = self._to_memory(m, x)
        if mask is None:
            self.b.store(raw, pointer).align = x.dtype.itemsize
            return
        align = ir.Constant(I32, x.dtype.itemsize)
        m.intrinsic(f"llvm.masked.store.{_suffix(raw.type)}.p0", ir.VoidType(), [raw, pointer, align, mask])

    def gather(self, m: LlvmDomain, pointer: Value, stride: Value, dtype: DType, count: Value) -> Lanes:
        """`lanes` numbers that stand `stride` apart, the first `count` of which exist."""
        kind = memory_type(dtype)
        raw = ir.Constant(ir.VectorType(kind, m.lanes), None)
        (raw,) = self.carry(0, self.least(count, m.lanes), 1, [raw], lambda i, v: [self.b.insert_element(
            v[0], self.read(self.at(pointer, self.mul(i, stride), kind), kind), self.b.trunc(i, I32))])
        return self._from_memory(m, raw, dtype)

    def scatter(self, m: LlvmDomain, x: Lanes, pointer: Value, stride: Value, count: Value) -> None:
        """The first `count` lanes stored `stride` apart."""
        raw = self._to_memory(m, x)
        kind = memory_type(x.dtype)
        self.loop(0, self.least(count, m.lanes), 1, lambda i: self.write(
            self.b.extract_element(raw, self.b.trunc(i, I32)), self.at(pointer, self.mul(i, stride), kind)))

    def scalar(self, m: LlvmDomain, pointer: Value, dtype: DType) -> Lanes:
        """One number in every lane."""
        raw = self.read(pointer, memory_type(dtype))
        if dtype.kind == "b":
            raw = self.b.trunc(raw, scalar_type(dtype))
        return m.splat(raw, dtype)

    def store_first(self, m: LlvmDomain, x: Lanes, pointer: Value) -> None:
        """The first lane stored as one number."""
        self.write(self.b.extract_element(self._to_memory(m, x), ir.Constant(I32, 0)), pointer)

    def _from_memory(self, m: LlvmDomain, raw: Value, dtype: DType) -> Lanes:
        if dtype.kind == "b":
            raw = self.b.trunc(raw, m.vector(dtype))
        return Lanes(m, raw, dtype)

    def _to_memory(self, m: LlvmDomain, x: Lanes) -> Any:
        if x.dtype.kind == "b":
            return self.b.zext(x.value, ir.VectorType(BYTE, m.lanes))
        return x.value

    def across(self, m: LlvmDomain, x: Lanes, join: Callable[[Lanes, Lanes], Lanes]) -> Lanes:
        """All lanes joined pairwise, in a fixed order; the result stands in every lane."""
        distance = m.lanes // 2
        empty = ir.Constant(x.value.type, ir.Undefined)
        while distance:
            partners = ir.Constant(ir.VectorType(I32, m.lanes), [i ^ distance for i in range(m.lanes)])
            x = join(x, Lanes(m, self.b.shuffle_vector(x.value, empty, partners), x.dtype))
            distance //= 2
        return x


def _suffix(kind: ir.Type) -> str:
    letter = "i" if isinstance(kind.element, ir.IntType) else "f"
    width = kind.element.width if letter == "i" else 32 if isinstance(kind.element, ir.FloatType) else 64
    return f"v{kind.count}{letter}{width}"
