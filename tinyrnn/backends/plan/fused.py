"""A kernel over rows: what one region computes, as a program of loads, steps and stores.

    for each row:  for j:  load, compute, reduce, store

The program is the kernel's structure and its key: hashable, free of sizes, readable.  Values are numbered, loads first.
A value is `full` (one number for every j) or `row` (one number for the whole row).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from ...ir.node import Bits, Node, walk
from ...ir.ops.elementwise import CAST, TAG, name_of
from ...ir.ops.leaves import ARG, FULL, SIZE, is_number
from ...ir.ops.linear import ACCUMULATE, BROADCAST, RESHAPE, runs_forward
from ...ir.ops.reduce import AMAX, AMIN
from ...passes.fuse import ROW_REDUCTIONS, column_total, space
from ...shapes import Shape, broadcast
from .views import Call, Storage, UnsupportedError, View, row_major

Level = Literal["full", "row"]
Access = Literal["1", "0", "s", "r"]  # neighbours in j; one number for all j; a stride in j; one number a row
INLINE = {0.0, 1.0, -1.0, 0.5, 2.0}   # numbers that belong to the structure; all others are operands


@dataclass(frozen=True, slots=True)
class Load:
    dtype: str
    access: Access


@dataclass(frozen=True, slots=True)
class Instruction:
    """`op(*sources, *at)`, or a number where the op is `number`; `reduces` where j is summed or compared away."""

    op: str
    at: tuple[Any, ...]
    sources: tuple[int, ...]
    dtype: str
    level: Level
    reduces: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    value: int
    dtype: str
    access: Access
    start: int | None = None  # of a column sum: the load, one number a column, from which it is added up


@dataclass(frozen=True, slots=True)
class FusedKernel:
    rank: int  # loops outside of j
    loads: tuple[Load, ...]
    steps: tuple[Instruction, ...]
    stores: tuple[Store, ...]
    columns: bool = False  # the stored values are summed over all rows
    forward: bool = False  # the first rows come first in such sums

    def of_column(self, k: int) -> bool:
        """Whether operand k has one number for each column, and none of its own for the rows."""
        return self.columns and (k >= len(self.loads) or k in [s.start for s in self.stores])

    @property
    def reduces(self) -> bool:
        return any(s.reduces for s in self.steps)

    @property
    def stages(self) -> list[int]:
        """The pass over j in which each value is known: a reduction is there after the pass of what it reads."""
        stage, reduces = [0] * len(self.loads), [False] * len(self.loads)
        for s in self.steps:
            stage.append(max((stage[i] + reduces[i] for i in s.sources), default=0))
            reduces.append(s.reduces)
        return stage

    @property
    def stored(self) -> list[int]:
        """The pass over j in which each store is done."""
        stage, loads = self.stages, len(self.loads)
        return [stage[s.value] + (s.access != "r" and s.value >= loads and self.steps[s.value - loads].reduces)
                for s in self.stores]

    def needed(self, k: int, known: Container[int]) -> list[int]:
        """What must be computed for value k, sources first."""
        loads, order, stack = len(self.loads), list[int](), [(k, False)]
        placed: set[int] = set()
        while stack:
            i, ready = stack.pop()
            if ready:
                order.append(i)
            elif i not in placed and i not in known:
                placed.add(i)
                stack.append((i, True))
                stack.extend((s, False) for s in (self.steps[i - loads].sources if i >= loads else ()))
        return order

    @property
    def accesses(self) -> list[Access]:
        """Of every operand, loads first."""
        return [*(x.access for x in self.loads), *(s.access for s in self.stores)]

    @property
    def lanes_dtype(self) -> np.dtype[Any]:
        """The widest floating type in memory (or the widest type at all): it sets the number of lanes."""
        found = [np.dtype(d) for d in (*(x.dtype for x in self.loads), *(s.dtype for s in self.stores))]
        floats = [d for d in found if d.kind == "f"]
        return max(floats or found, key=lambda d: d.itemsize)


class RegionReader:
    """Reads a region's body into a program and the views of its operands."""

    def __init__(self, outs: Sequence[Node], args: Mapping[Node, View], storage: Storage) -> None:
        self.shape: Shape = _space(outs)
        self.args, self.storage = args, storage
        self.loads: list[tuple[Load, View]] = []
        self.steps: list[Instruction] = []
        self.index: dict[Any, int] = {}
        self.columns = any(column_total(n) is not None for n in outs)
        self.forward = any(n.op is ACCUMULATE and runs_forward(n) for n in outs)
        self.values: dict[Node, Any] = {}
        self.names: dict[int, str] = {}  # of the values that the equations name
        for n in walk(outs):
            if n.op not in (ARG, FULL, SIZE):
                self.values[n] = self._value(n)

    def level(self, n: Node) -> Level:
        return "full" if n.shape == self.shape else "row"

    def _value(self, n: Node) -> Any:
        if n.op in (TAG, RESHAPE, BROADCAST):
            value = self._source(n.src[0], n)
            if n.op is TAG:
                self.names[value] = name_of(n)
            return value
        total = column_total(n.src[0] if n.op is CAST else n)
        if total is not None:
            return self._source(total.src[0], total.src[0])
        if n.op in ROW_REDUCTIONS:
            return self._step(Instruction(_reduction(n), (), (self._source(n.src[0], n.src[0]),), n.dtype.str, "row", True))
        sources = tuple(self._source(s, n) for s in n.src)
        if n.op.name in ("power", "powk") and n.dtype.kind != "f":
            raise UnsupportedError(f"powers of {n.dtype} numbers have no compiled kernels: use float32 or float64")
        at = tuple(a.str if isinstance(a, np.dtype) else a for a in n.at)
        return self._step(Instruction(n.op.name, at, sources, n.dtype.str, self.level(n)))

    def _step(self, step: Instruction) -> int:
        self.steps.append(step)
        return -len(self.steps)  # steps are numbered after the loads, whose count is not known yet

    def _source(self, s: Node, user: Node) -> int:
        if s in self.values:
            found: int = self.values[s]
            return found
        if s.op is FULL:
            return self._literal(s)
        if s.op is SIZE:
            return self._load(self.storage.size(s.at[0], s.dtype), self.level(user), user.shape)
        return self._load(self.args[s], self.level(user), user.shape)

    def _literal(self, s: Node) -> int:
        value = s.at[0]
        if s.dtype.kind != "f" or float(value) in INLINE:
            key: Any = ("number", s.dtype.str, repr(value))
            if key not in self.index:
                kept = value if s.dtype.kind != "f" else Bits(value)
                self.index[key] = self._step(Instruction("number", (kept,), (), s.dtype.str, "row"))
            return self.index[key]
        return self._load(self.storage.number(value, s.dtype), "full", self.shape)

    def _load(self, view: View, level: Level, shape: Shape) -> int:
        if level == "full":
            spread = view.broadcast(self.shape)
        else:
            spread = view.broadcast(shape)
            if len(shape) == len(self.shape):
                spread = spread.sliced([(0, n, 1) for n in shape[:-1]] + [(0, 1, 1)])
                spread = spread.transposed([len(shape) - 1, *range(len(shape) - 1)]).taken(0)
        key = (id(view.buffer), spread.offset, spread.strides, level, view.step)
        if key not in self.index:
            self.loads.append((Load(view.dtype.str, access(spread, level)), spread))
            self.index[key] = len(self.loads) - 1
        return self.index[key]

    def call(self, stores: Sequence[tuple[Node, View]], *, batched: bool) -> Call:
        """The call that computes the region and fills the given views."""
        count = len(self.loads)

        def final(i: int) -> int:
            return i if i >= 0 else count - 1 - i

        written = []
        for n, view in stores:
            value = self.values[n] if n in self.values else self._source(n, n)
            start = self._start(n)
            count = len(self.loads)
            written.append((value, self._written(n, view), start))
        views = [v for _, v in self.loads] + [v for _, (_, v), _ in written]
        flat = not batched and not self.columns and _flat(self, [v for _, v in self.loads], written)
        shape: Shape = self.shape or (1,)
        if flat:
            shape = (prod(shape),)
        loads = tuple(Load(x.dtype, "1" if flat and v.strides == row_major(self.shape) and x.access != "0" else x.access)
                      for x, v in self.loads)
        program = FusedKernel(
            max(len(shape) - 1, 0), loads,
            tuple(Instruction(s.op, s.at, tuple(map(final, s.sources)), s.dtype, s.level, s.reduces) for s in self.steps),
            tuple(Store(final(value), v.dtype.str, access, start) for value, (access, v), start in written), self.columns,
            self.forward)
        return row_call(program, shape, views, flat=flat, names={final(i): name for i, name in self.names.items()})

    def _start(self, n: Node) -> int | None:
        """The load from which a column sum is added up; it has no gaps."""
        if n.op is not ACCUMULATE or is_number(n.src[0], 0):
            return None
        view = self.args[n.src[0]]
        self.loads.append((Load(view.dtype.str, "1"), view))
        return len(self.loads) - 1

    def _written(self, n: Node, view: View) -> tuple[Access, View]:
        if self.columns:
            return "1", view
        if n.shape == self.shape:
            return ("1" if not view.strides or view.strides[-1] == 1 else "s"), view
        if len(n.shape) == len(self.shape):
            view = view.transposed([len(n.shape) - 1, *range(len(n.shape) - 1)]).taken(0)
        return "r", view


def _space(outs: Sequence[Node]) -> Shape:
    """The indices that the loops run over: what the spaces of the ops of highest rank, some of which have one number a
    row, broadcast to."""
    spaces = [space(n) for n in walk(outs) if n.op.kind != "leaf" and n.op not in (TAG, RESHAPE)] or [outs[0].shape]
    rank = max(map(len, spaces))
    return broadcast(*(s for s in spaces if len(s) == rank))


def _reduction(n: Node) -> str:
    return "amax" if n.op is AMAX else "amin" if n.op is AMIN else "sum"


def summed_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which numbers are added up, before the sum is rounded once: an error that grows with their number would
    be seen in float32 and below."""
    return np.dtype(np.float64) if dtype.kind == "f" else dtype


def reduced_in(step: Instruction) -> np.dtype[Any]:
    """The dtype of a reduction on its way."""
    return summed_in(np.dtype(step.dtype)) if step.op == "sum" else np.dtype(step.dtype)


def access(view: View, level: Level) -> Access:
    """How an operand is read along j."""
    if level == "row":
        return "r"
    if not view.strides or view.strides[-1] == 0:
        return "0"
    return "1" if view.strides[-1] == 1 else "s"


def _flat(reader: RegionReader, loads: Sequence[View], written: Sequence[Any]) -> bool:
    """Whether the whole space may be walked as one row: every operand is a full array without gaps, or one number."""
    whole = row_major(reader.shape)
    return (len(reader.shape) > 1 and not any(s.reduces for s in reader.steps)
            and all(v.strides == whole or not any(v.strides) for v in loads)
            and all(access != "r" and v.strides == whole for _, (access, v), _ in written))


def row_call(program: FusedKernel, shape: Shape, views: Sequence[View], *, flat: bool = False, text: str = "",
             names: Mapping[int, str] | None = None) -> Call:
    """A program on given operands, loads first; in a `flat` call the whole space is walked as one row."""
    loads = len(program.loads)
    *outer, inner = shape
    accesses = program.accesses
    strides = [((v.strides[-1],) if flat or len(v.strides) == 0 else v.strides) if v.strides else () for v in views]
    sizes = [*outer[1:], inner] if outer else []
    if program.columns:
        sizes = list(outer)
    for access, s, i in zip(accesses, strides, range(len(views)), strict=True):
        rows = [] if flat or program.of_column(i) else list(s[: len(outer)]) if s else [0] * len(outer)
        sizes += [*rows, *([s[-1]] if access == "s" else [])]
    split, extent, grain = _split(program, outer, inner, strides, accesses, loads)
    flops = prod(shape) * (len(program.steps) + program.columns)
    return Call("rows", (program,), tuple(views), frozenset(range(loads, len(views))), tuple(sizes), extent, split, grain,
                flops, text, 0, names or {})


def _split(program: FusedKernel, outer: Sequence[int], inner: int, strides: Sequence[Any], accesses: Sequence[Access],
           loads: int) -> tuple[tuple[int, ...], int, int]:
    """What one unit of the split extent moves each operand by, the extent, and its grain (0: it cannot be split)."""
    by_inner = tuple({"1": 1, "0": 0, "s": s[-1] if s else 0, "r": 0}[a] for a, s in zip(accesses, strides, strict=True))
    if program.columns:
        return by_inner, inner, 64
    if outer:
        return tuple(s[0] if s else 0 for s in strides), outer[0], 1
    return by_inner, inner, 0 if program.reduces or "r" in accesses else 64
