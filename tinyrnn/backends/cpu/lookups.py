"""Kernels that look up by whole numbers or go along an axis one entry after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from ...ir.node import DType
from ..plan.fused import summed_in
from .codegen import I32, I64, POINTER, Lanes, LlvmDomain, memory_type
from .emit import Emit, Value
from .engine import Target

UINT32 = np.dtype(np.uint32)


def _start(module: ir.Module, name: str, operands: int, sizes: int) -> tuple[Emit, list[Any], list[Any], Any]:
    e = Emit(module, name)
    pointers, numbers, n, _ = e.function.args
    return e, [e.entry(pointers, i, POINTER) for i in range(operands)], [e.entry(numbers, i) for i in range(sizes)], n


def _index(e: Emit, pointer: Value, i: Value, dtype: DType) -> Any:
    value = e.read(e.at(pointer, i, memory_type(dtype)), memory_type(dtype))
    if dtype.itemsize == 8:
        return value
    return (e.b.sext if dtype.kind == "i" else e.b.zext)(value, I64)


def _copy_bytes(e: Emit, target: Value, source: Value, count: Value) -> None:
    name = "llvm.memcpy.p0.p0.i64"
    found = e.b.module.globals.get(name) or ir.Function(e.b.module, ir.FunctionType(
        ir.VoidType(), [POINTER, POINTER, I64, ir.IntType(1)]), name)
    e.b.call(found, [target, source, count, ir.Constant(ir.IntType(1), 0)])


def emit_check(module: ir.Module, name: str, target: Target, index: DType) -> None:
    """Leaves (1, index, size) in the note for an index outside 0..size-1."""
    e, (at, note), (size,), n = _start(module, name, 2, 1)

    def one(i: Value) -> None:
        k = _index(e, at, i, index)

        def report() -> None:
            for slot, value in enumerate((e.whole(1), k, size)):
                e.write(value, e.at(note, slot, I64))

        e.when(e.b.or_(e.is_(k, "<", 0), e.is_(k, ">=", size)), report)

    e.loop(0, n, 1, one)
    e.b.ret_void()


def _inside(e: Emit, k: Value, size: Value) -> Any:
    """An index moved into 0..size-1, so that a wrong one reads no foreign memory before the run stops."""
    return e.least(e.choose(e.is_(k, "<", 0), 0, k), e.sub(size, 1))


def emit_gather(module: ir.Module, name: str, target: Target, itemsize: int, index: DType) -> None:
    """`y[i] = table[index[i]]`, a row of numbers at a time."""
    e, (table, at, y), (width, size), n = _start(module, name, 3, 2)
    row = e.mul(width, itemsize)
    byte = ir.IntType(8)
    e.loop(0, n, 1, lambda i: _copy_bytes(e, e.at(y, e.mul(i, row), byte),
                                          e.at(table, e.mul(_inside(e, _index(e, at, i, index), size), row), byte), row))
    e.b.ret_void()


def emit_scatter(module: ir.Module, name: str, target: Target, dtype: DType, index: DType, to: DType,
                 wide: DType | None = None) -> None:
    """`y[index[i]] += x[i]`, in the order of i; where there is room for wide sums, those are made and rounded at the end."""
    e, (x, at, y, *room), (width, size, count), _ = _start(module, name, 3 + (wide is not None), 3)
    kinds = {k: memory_type(k) for k in (dtype, to, wide or to)}
    m, total, sums = LlvmDomain(e.b, max(2, min(target.vector_bytes // dtype.itemsize, 16))), wide or to, [*room, y][0]

    def row(i: Value) -> None:
        source = e.at(x, e.mul(i, width), kinds[dtype])
        own = e.at(sums, e.mul(_inside(e, _index(e, at, i, index), size), width), kinds[total])

        def vector(j: Value) -> None:
            mask = e.mask(m, e.sub(width, j))
            more = m.cast(e.load(m, e.at(source, j, kinds[dtype]), dtype, mask), total)
            e.store(m, e.load(m, e.at(own, j, kinds[total]), total, mask) + more, e.at(own, j, kinds[total]), mask)

        e.loop(0, width, m.lanes, vector)

    def rounded(j: Value) -> None:
        mask = e.mask(m, e.sub(e.mul(width, size), j))
        e.store(m, m.cast(e.load(m, e.at(sums, j, kinds[total]), total, mask), to), e.at(y, j, kinds[to]), mask)

    e.loop(0, count, 1, row)
    if wide is not None:
        e.loop(0, e.mul(width, size), m.lanes, rounded)
    e.b.ret_void()


def emit_pick(module: ir.Module, name: str, target: Target, itemsize: int, index: DType) -> None:
    """`y[i] = x[i, index[i]]`."""
    e, (x, at, y), (classes,), n = _start(module, name, 3, 1)
    kind = ir.IntType(8 * itemsize)

    def one(i: Value) -> None:
        k = _inside(e, _index(e, at, i, index), classes)
        e.write(e.read(e.at(x, e.add(e.mul(i, classes), k), kind), kind), e.at(y, i, kind))

    e.loop(0, n, 1, one)
    e.b.ret_void()


def emit_one_hot(module: ir.Module, name: str, target: Target, dtype: DType, index: DType) -> None:
    """`y[i, index[i]] = 1` in zeros; nothing for an index outside."""
    e, (at, y), (classes,), n = _start(module, name, 2, 1)
    kind = memory_type(dtype)

    def row(i: Value) -> None:
        k = _index(e, at, i, index)
        inside = e.b.and_(e.is_(k, ">=", 0), e.is_(k, "<", classes))
        e.when(inside, lambda: e.write(ir.Constant(kind, 1), e.at(y, e.add(e.mul(i, classes), k), kind)))

    e.loop(0, n, 1, row)
    e.b.ret_void()


def _along(e: Emit, n: Value, length: Value, inner: Value, line: Value) -> None:
    """`line(first, i, j)` for every line along the axis."""
    e.loop(0, n, 1, lambda i: e.loop(0, inner, 1, lambda j: line(e.add(e.mul(i, length, inner), j), i, j)))


def emit_argmax(module: ir.Module, name: str, target: Target, dtype: DType) -> None:
    """The index of the first largest entry; the first NaN counts as largest."""
    e, (x, y), (length, inner), n = _start(module, name, 2, 2)
    kind = memory_type(dtype)

    def line(first: Value, i: Value, j: Value) -> None:
        def advance(k: Value, state: list[Any]) -> list[Any]:
            best, where = state
            value = e.read(e.at(x, e.add(first, e.mul(k, inner)), kind), kind)
            better = _greater(e, dtype, value, best)
            return [e.b.select(better, value, best), e.b.select(better, k, where)]

        start = [e.read(e.at(x, first, kind), kind), e.whole(0)]
        _, where = e.carry(1, length, 1, start, advance)
        e.write(where, e.at(y, e.add(e.mul(i, inner), j), I64))

    _along(e, n, length, inner, line)
    e.b.ret_void()


def _greater(e: Emit, dtype: DType, value: Value, best: Value) -> Any:
    if dtype.kind != "f":
        return (e.b.icmp_signed if dtype.kind == "i" else e.b.icmp_unsigned)(">", value, best)
    unordered = e.b.fcmp_unordered("uno", value, value)
    beaten = e.b.or_(unordered, e.b.fcmp_ordered(">", value, best))
    return e.b.and_(beaten, e.b.fcmp_ordered("ord", best, best))


def emit_cumsum(module: ir.Module, name: str, target: Target, dtype: DType, to: DType) -> None:
    """Running sums along an axis, first to last."""
    e, (x, y), (length, inner), n = _start(module, name, 2, 2)
    m = LlvmDomain(e.b, 2)
    kind, result, wide = memory_type(dtype), memory_type(to), summed_in(to)

    def line(first: Value, _: Value, __: Value) -> None:
        def advance(k: Value, state: list[Any]) -> list[Any]:
            at = e.add(first, e.mul(k, inner))
            value = m.cast(m.cast(e.scalar(m, e.at(x, at, kind), dtype), to), wide)
            total = value + Lanes(m, state[0], wide)
            e.store_first(m, m.cast(total, to), e.at(y, at, result))
            return [total.value]

        e.carry(0, length, 1, [m.constant(0, wide).value], advance)

    _along(e, n, length, inner, line)
    e.b.ret_void()


def emit_random(module: ir.Module, name: str, target: Target) -> None:
    """Threefry-2x32 on the position of every entry."""
    e, (key, site, y, start), _, n = _start(module, name, 4, 0)
    lanes = target.vector_bytes // 4
    m = LlvmDomain(e.b, lanes)
    before = e.b.udiv(e.b.sub(e.b.ptrtoint(y, I64), e.b.ptrtoint(start, I64)), e.whole(4))
    keys = [e.scalar(m, e.at(key, i, I32), UINT32) for i in range(2)]
    where = e.scalar(m, site, UINT32)
    numbers = Lanes(m, ir.Constant(m.vector(UINT32), list(range(lanes))), UINT32)

    def vector(i: Value) -> None:
        position = m.splat(e.b.trunc(e.add(before, i), I32), UINT32) + numbers
        e.store(m, m.random_bits(keys, position, where), e.at(y, i, I32), e.mask(m, e.sub(n, i)))

    e.loop(0, n, lanes, vector)
    e.b.ret_void()
