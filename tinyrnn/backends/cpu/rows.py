"""Row programs as LLVM vector code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir

from ..codegen import Number
from ..plan.fused import FusedKernel, reduced_in, summed_in
from ..staging import Staging
from .codegen import POINTER, Lanes, LlvmDomain, memory_type
from .emit import Emit, Value

BLOCK = 256   # rows of a column sum that are added up in registers before they join the totals
TILE = 2048    # columns whose totals are kept in the wider type, on the stack


def emit_rows(module: ir.Module, name: str, program: FusedKernel, vector_bytes: int) -> None:
    """A function for one program."""
    e = Emit(module, name)
    lanes = max(2, min(vector_bytes // program.lanes_dtype.itemsize, 16))
    (_Columns if program.columns else _Rows)(e, LlvmDomain(e.b, lanes), program).emit()
    e.b.ret_void()


class _Kernel(Staging):
    """What both kinds share: operands, addresses, values."""

    m: LlvmDomain

    def __init__(self, e: Emit, m: LlvmDomain, program: FusedKernel) -> None:
        super().__init__(m, program)
        self.e = e
        pointers, sizes, self.n, _ = e.function.args
        self.base = [e.entry(pointers, i, POINTER) for i in range(len(self.dtypes))]
        self._sizes, self._at = sizes, 0

    def size(self) -> Any:
        """The next whole number of the call."""
        self._at += 1
        return self.e.entry(self._sizes, self._at - 1)

    def read_strides(self) -> None:
        rank = self.program.rank
        self.outer_strides, self.inner_stride = [], []
        for i, access in enumerate(self.accesses):
            self.outer_strides.append([] if self.program.of_column(i) else [self.size() for _ in range(rank)])
            self.inner_stride.append(self.size() if access == "s" else None)

    def kind(self, i: int) -> Any:
        return memory_type(self.dtypes[i])

    def load(self, i: int, row: Value, j: Value, mask: Value) -> Lanes:
        dtype, access = self.dtypes[i], self.accesses[i]
        if access in "0r":
            return self.e.scalar(self.m, row, dtype)
        if access == "1":
            return self.e.load(self.m, self.e.at(row, j, self.kind(i)), dtype, mask)
        stride = self.inner_stride[i]
        return self.e.gather(self.m, self.e.at(row, self.e.mul(j, stride), self.kind(i)), stride, dtype,
                             self.e.sub(self.limit, j))

    def store(self, i: int, x: Number, row: Value, j: Value, mask: Value) -> None:
        k = self.loads + i
        x = self.m.cast(x, self.dtypes[k])
        if self.accesses[k] == "1":
            self.e.store(self.m, x, self.e.at(row, j, self.kind(k)), mask)
        else:
            stride = self.inner_stride[k]
            self.e.scatter(self.m, x, self.e.at(row, self.e.mul(j, stride), self.kind(k)), stride, self.e.sub(self.limit, j))

    limit: Any


class _Rows(_Kernel):
    """For each row, one pass over j for every generation of reductions."""

    def emit(self) -> None:
        e, rank = self.e, self.program.rank
        outer = [self.n, *(self.size() for _ in range(rank - 1))] if rank else []
        self.limit = self.size() if rank else self.n
        self.read_strides()
        self.whole = e.mul(e.div(self.limit, self.m.lanes), self.m.lanes)
        self._nest(outer, self.base, 0)

    def _nest(self, outer: Sequence[Any], rows: list[Any], depth: int) -> None:
        if depth == len(outer):
            self._row(rows)
            return
        e = self.e

        def turn(i: Value) -> None:
            moved = [e.at(p, e.mul(i, s[depth]), self.kind(k)) if s else p
                     for k, (p, s) in enumerate(zip(rows, self.outer_strides, strict=True))]
            self._nest(outer, moved, depth + 1)

        e.loop(0, outer[depth], 1, turn)

    def _row(self, rows: list[Any]) -> None:
        known: dict[int, Number] = {i: self.load(i, rows[i], None, None)
                                    for i, x in enumerate(self.program.loads) if x.access in "0r"}
        for stage in range(max((*self.stages, *self.stored), default=0) + 1):
            self._stage(stage, rows, known)

    def _stage(self, stage: int, rows: list[Any], known: dict[int, Number]) -> None:
        """One pass over j: what is stored at this stage, and the reductions that the next one reads."""
        p, loads = self.program, self.loads
        self.row_steps(stage, known)
        reductions, full = self.reductions(stage), self.full_stores(stage)
        start = [self.m.neutral(p.steps[k - loads].op, reduced_in(p.steps[k - loads])) for k in reductions]
        if reductions or full:
            found = self._pass(rows, known, reductions, full, start)
            known.update(zip(reductions, found, strict=True))
        for i, s in enumerate(p.stores):
            if s.access == "r" and (s.value in reductions or (s.value in known and self.stages[s.value] == stage)):
                self.e.store_first(self.m, self.m.cast(known[s.value], self.dtypes[loads + i]), rows[loads + i])

    def _pass(self, rows: list[Any], known: dict[int, Number], reductions: list[int], full: list[int],
              start: list[Number]) -> list[Number]:
        steps = [self.program.steps[k - self.loads] for k in reductions]

        def advance(j: Value, state: list[Any], mask: Value = None) -> list[Any]:
            memo, joined = dict(known), []

            def value(k: int) -> Number:
                return self.value(k, memo, lambda i: self.load(i, rows[i], j, mask))

            later = [(i, value(self.program.stores[i].value)) for i in full]
            for step, old in zip(steps, state, strict=True):
                x = self.m.cast(value(step.sources[0]), np.dtype(step.dtype))
                x = self.m.cast(x, reduced_in(step))
                before = Lanes(self.m, old, x.dtype)
                new = self.m.joined(step.op, before, x)
                joined.append((new if mask is None else self.m.select(_as_lanes(self.m, mask), new, before)).value)
            for i, x in later:
                self.store(i, x, rows[self.loads + i], j, mask)
            return joined

        e = self.e
        state = e.carry(0, self.whole, self.m.lanes, [s.value for s in start], advance)
        state = e.carry(self.whole, self.limit, self.m.lanes, state,
                        lambda j, s: advance(j, s, e.mask(self.m, e.sub(self.limit, j))))
        whole = [e.across(self.m, Lanes(self.m, v, reduced_in(step)), partial(self.m.joined, step.op))
                 for step, v in zip(steps, state, strict=True)]
        return [self.m.cast(x, np.dtype(step.dtype)) for step, x in zip(steps, whole, strict=True)]


class _Columns(_Kernel):
    """Column sums: tile after tile of columns, blocks of rows are added in registers, then to the totals of the tile, the last
    rows first unless the program goes `forward`."""

    def emit(self) -> None:
        e, p = self.e, self.program
        outer = [self.size() for _ in range(p.rank)]
        self.limit = self.n
        self.read_strides()
        self.totals = [e.room(memory_type(summed_in(np.dtype(s.dtype))), TILE) for s in p.stores]
        e.loop(0, self.limit, TILE, lambda first: self._tile(outer, first))

    def _tile(self, outer: Sequence[Any], first: Value) -> None:
        e, p, loads = self.e, self.program, self.loads
        count = e.least(e.sub(self.limit, first), TILE)
        whole = e.mul(e.div(count, self.m.lanes), self.m.lanes)

        def each(body: Callable[[Any, Any], None]) -> None:
            e.loop(0, whole, self.m.lanes, lambda j: body(j, None))
            e.loop(whole, count, self.m.lanes, lambda j: body(j, e.mask(self.m, e.sub(count, j))))

        def begin(j: Value, mask: Value) -> None:
            for i, s in enumerate(p.stores):
                kind = summed_in(np.dtype(s.dtype))
                start = self.m.constant(0, kind) if s.start is None else self.m.cast(
                    self.load(s.start, self.base[s.start], e.add(first, j), mask), kind)
                e.store(self.m, start, self._total(i, j), mask)

        def written(j: Value, mask: Value) -> None:
            for i in range(len(p.stores)):
                self.store(i, self._read_total(i, j, mask), self.base[loads + i], e.add(first, j), mask)

        each(begin)
        self._blocks(outer, self.base[:loads], 0, lambda r, n, base: each(
            lambda j, mask: self._block(r, n, base, first, j, mask)))
        each(written)

    def _total(self, i: int, j: Value) -> Any:
        return self.e.at(self.totals[i], j, memory_type(summed_in(np.dtype(self.program.stores[i].dtype))))

    def _read_total(self, i: int, j: Value, mask: Value) -> Lanes:
        return self.e.load(self.m, self._total(i, j), summed_in(np.dtype(self.program.stores[i].dtype)), mask)

    def _blocks(self, outer: Sequence[Any], base: list[Any], depth: int, rows: Callable[[Any, Any, list[Any]], None]) -> None:
        e = self.e
        size = BLOCK if depth == len(outer) - 1 else 1
        last = e.sub(e.div(e.add(outer[depth], size - 1), size), 1)

        def turn(t: Value) -> None:
            i = t if self.program.forward or depth else e.sub(last, t)
            if size > 1:
                r = e.mul(i, size)
                rows(r, e.least(e.sub(outer[depth], r), size), base)
                return
            moved = [e.at(p, e.mul(i, s[depth]), self.kind(k)) if s else p
                     for k, (p, s) in enumerate(zip(base, self.outer_strides, strict=False))]
            self._blocks(outer, moved, depth + 1, rows)

        e.loop(0, e.add(last, 1), 1, turn)

    def _block(self, first: Value, count: Value, base: list[Any], tile: Value, j: Value, mask: Value) -> None:
        e, p = self.e, self.program
        column, kinds = e.add(tile, j), [summed_in(np.dtype(s.dtype)) for s in p.stores]

        def advance(r: Value, state: list[Any]) -> list[Any]:
            at = [e.at(q, e.mul(e.add(first, r), s[-1]), self.kind(k)) if s else q
                  for k, (q, s) in enumerate(zip(base, self.outer_strides, strict=False))]
            memo: dict[int, Number] = {}
            values = [self.value(s.value, memo, lambda i: self.load(i, at[i], column, mask)) for s in p.stores]
            return [(Lanes(self.m, old, kind) + self.m.cast(self.m.cast(x, np.dtype(s.dtype)), kind)).value
                    for old, kind, s, x in zip(state, kinds, p.stores, values, strict=True)]

        start = [self.m.constant(0, kind).value for kind in kinds]
        for i, value in enumerate(e.carry(0, count, 1, start, advance)):
            e.store(self.m, self._read_total(i, j, mask) + Lanes(self.m, value, kinds[i]), self._total(i, j), mask)


def _as_lanes(m: LlvmDomain, mask: Value) -> Lanes:
    return Lanes(m, mask, np.dtype(bool))
