"""A plan held against its graph: every call is replayed over value numbers, in memory as small as the plan says.

The replay knows of a kernel what compiled code is told: addresses, sizes, strides.  It fails where a call reads what
nobody wrote, reaches outside of a buffer, writes what is not its own or what it has yet to read, where buffers in use lie
in the same memory, and where an output is not what the graph computes.  Work that threads may share is done last share first.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...domains.value_numbers import VALUE_NUMBERS, Numbers, applied
from ...errors import BackendError
from ...ir.graph import Graph
from ...shapes import Shape
from ..numpy import plan_of as interpreted
from .fused import Access, FusedKernel, Instruction
from .kernels import panel_columns
from .memory import arrange
from .views import Buffer, Call, Loop, Plan, row_major

NOTHING = np.uint64(0xD1B54A32D192ED03)  # what memory holds that nobody wrote
GIVEN = ("input", "leaf", "literal")


class PlanError(BackendError):
    """A plan does not compute its graph; the message says where."""


def checked(graph: Graph, plan: Plan) -> Plan:
    """The plan itself, after it was replayed: as it runs first, and as it runs again with the packed weights that it kept."""
    with np.errstate(over="ignore"):
        given = {b: applied(("given", i), np.arange(b.size)) for i, b in enumerate(plan.given)}
        program, nodes = interpreted(graph)
        numbers = {b.source: x for b, x in given.items()}
        values = program(VALUE_NUMBERS, [numbers[n].reshape(n.shape) for n in nodes])
        wanted = dict(zip(graph.outputs, values, strict=True))
        kept = {b for b in plan.buffers if b.role == "kept"}
        for own in [kept, set[Buffer]()] if kept else [kept]:
            _check_memory(plan, own)
            replay = Replay(plan, given)
            replay.run(wanted)
            if own:
                replay.forget(own)
                replay.run(wanted, plan.prepared)
    return plan


def _check_memory(plan: Plan, kept: Container[Buffer]) -> None:
    """Buffers in use at the same time lie apart."""
    offsets, end = arrange(plan, kept=kept)
    uses: dict[Buffer, list[int]] = {}
    for i, item in enumerate(plan.items):
        for v in (v for c in _calls(item) for v in c.operands if v.buffer in offsets):
            uses.setdefault(v.buffer, []).append(i)
    for i in range(len(plan.items)):
        live = sorted((offsets[b], offsets[b] + b.bytes, b.name) for b, u in uses.items() if u[0] <= i <= u[-1])
        for (_, stop, a), (start, _, b) in pairwise([*live, (end, end, "the end")]):
            if start < stop:
                raise PlanError(f"item {i} of the plan: {a} reaches into the memory of {b}, and both are in use")


def _calls(item: Call | Loop) -> Sequence[Call]:
    return item.calls if isinstance(item, Loop) else [item]


class _StoppedError(Exception):
    """The run ends here, in an error of the user's: an index into an axis of no entries."""


class Replay:
    """The memory of a run, and the run."""

    def __init__(self, plan: Plan, given: Mapping[Buffer, Numbers]) -> None:
        self.plan = plan
        literals = {b: VALUE_NUMBERS.enter(np.ravel(b.source), b.dtype) for b in plan.buffers if b.role == "literal"}
        self.memory = {**{b: np.full(b.size, NOTHING) for b in plan.buffers}, **given, **literals}

    def forget(self, kept: Container[Buffer]) -> None:
        """What lies between two runs: memory is used by others."""
        for b, numbers in self.memory.items():
            if b.role not in GIVEN and b not in kept:
                numbers[:] = NOTHING

    def run(self, wanted: Mapping[str, Numbers], first: int = 0) -> None:
        """Every item from the first on; then the outputs are compared."""
        try:
            for i, item in enumerate(self.plan.items[first:], first):
                self._item(i, item)
        except _StoppedError:
            return
        for k, v in self.plan.outputs.items():
            if (self.memory[v.buffer] != wanted[k].reshape(-1)).any():
                raise PlanError(f"the plan computes another output {k!r} than its graph")

    def _item(self, i: int, item: Call | Loop) -> None:
        if isinstance(item, Call):
            for share in _shares(item.extent, item.grain):
                self._call(f"item {i}", item, 0, share)
            return
        turns = range(item.steps)[::-1] if item.reverse else range(item.steps)
        calls = list(enumerate(item.calls))
        if item.rows is None:
            work = ((t, k, c, share) for t in turns for k, c in calls for share in _shares(c.extent, c.grain))
        else:  # a thread goes through all turns with its rows
            work = ((t, k, c, share) for share in _shares(item.rows, 1) for t in turns for k, c in calls)
        for t, k, c, share in work:
            self._call(f"call {k} of loop {i} at turn {t}", c, t, share)

    def _call(self, where: str, call: Call, turn: int, share: tuple[int, int]) -> None:
        low, high = share if call.grain else (0, call.extent)
        if low < high or not call.grain:
            FAMILIES[call.family](_Frame(self.memory, f"{where} ({call.text or call.family})", call, turn, low), high - low)


def _shares(extent: int, grain: int) -> list[tuple[int, int]]:
    """The shares of two threads, the second one first; all of it where it cannot be shared."""
    middle = extent // 2 // grain * grain if grain else 0
    return [(middle, extent), (0, middle)] if middle else [(0, extent)]


class _Frame:
    """What a kernel sees at a turn: its operands from the first unit of its share on, and its sizes."""

    def __init__(self, memory: Mapping[Buffer, Numbers], where: str, call: Call, turn: int, low: int) -> None:
        self.memory, self.where, self.call, self.sizes = memory, where, call, call.sizes
        self.start = [v.offset + turn * v.step + low * by for v, by in zip(call.operands, call.splits, strict=True)]

    def buffer(self, k: int) -> Buffer:
        return self.call.operands[k].buffer

    def places(self, k: int, shape: Shape, strides: Sequence[int] | None = None) -> Any:
        """The entries of an operand, as they lie in memory; in a row where no strides are given."""
        strides = row_major(shape) if strides is None else strides
        numbers, start = self.memory[self.buffer(k)], self.start[k]
        if 0 in shape:
            return np.zeros(shape, np.uint64)
        ends = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
        if start + sum(min(e, 0) for e in ends) < 0 or start + sum(max(e, 0) for e in ends) >= numbers.size:
            raise PlanError(f"{self.where}: operand {k} reaches outside of the buffer {self.buffer(k).name}")
        return as_strided(numbers[start:], shape, [8 * s for s in strides])

    def read(self, k: int, shape: Shape, strides: Sequence[int] | None = None) -> Numbers:
        found = np.array(self.places(k, shape, strides))
        if (found == NOTHING).any():
            raise PlanError(f"{self.where}: operand {k}, {self.call.operands[k]}, is read before anybody wrote it")
        return found

    def write(self, k: int, value: object, shape: Shape, strides: Sequence[int] | None = None) -> None:
        if self.buffer(k).role in GIVEN or k not in self.call.writes:
            raise PlanError(f"{self.where}: operand {k}, {self.buffer(k).name}, is not this call's to write")
        self.places(k, shape, strides)[...] = value

    def takes(self, *dtypes: Any) -> None:
        """The kernel takes its operands for numbers of these dtypes."""
        for k, dtype in enumerate(dtypes):
            if self.buffer(k).dtype != np.dtype(dtype):
                raise PlanError(f"{self.where}: operand {k} holds {self.buffer(k).dtype} numbers, taken for {np.dtype(dtype)}")

    def indexes(self, k: int) -> None:
        """An operand holds whole numbers."""
        if self.buffer(k).dtype.kind not in "iu":
            raise PlanError(f"{self.where}: operand {k} holds {self.buffer(k).dtype} numbers, taken for indices")

    def apart(self, read: int, of_read: Any, written: int, of_written: Any) -> None:
        """No entry that is written is one that is read."""
        if self.buffer(read) is self.buffer(written):
            a, b = self.places(read, *of_read), self.places(written, *of_written)
            if a.size and b.size and np.shares_memory(a, b):
                raise PlanError(f"{self.where}: operand {written} is written over operand {read}, which is still needed")


# ---- kernels: (frame, units of the share)

class _Rows:
    """A row program; the sizes are the extents of its loops, then every operand's strides."""

    def __init__(self, frame: _Frame, n: int) -> None:
        self.frame, self.program = frame, frame.call.key[0]
        p: FusedKernel = self.program
        frame.takes(*(x.dtype for x in p.loads), *(x.dtype for x in p.stores))
        extents = [*frame.sizes[: p.rank], n] if p.columns or not p.rank else [n, *frame.sizes[: p.rank]]
        self.outer, self.inner = tuple(extents[:-1]), extents[-1]
        self.computed = [x.dtype for x in p.loads] + [x.dtype for x in p.steps]
        for store in p.stores:
            if not np.can_cast(self.computed[store.value], store.dtype, "safe"):
                raise PlanError(f"{frame.where}: {self.computed[store.value]} numbers are stored as {store.dtype}")
        rest = iter(frame.sizes[p.rank:])
        self.lie = [self._lies(access, p.of_column(k), rest) for k, access in enumerate(p.accesses)]

    def _lies(self, access: Access, is_column: bool, strides: Any) -> tuple[Shape, tuple[int, ...]]:
        """The shape and the strides of an operand, with one entry along j where it has one number a row."""
        rows = [] if is_column else [next(strides) for _ in self.outer]
        step = next(strides) if access == "s" else int(access == "1")
        return (*self.outer[: len(rows)], self.inner if access in "1s" else 1), (*rows, step)

    def run(self) -> None:
        frame, p, loads = self.frame, self.program, len(self.program.loads)
        self._check_in_place()
        values: list[Numbers] = [frame.read(k, *self.lie[k]) for k in range(loads)]
        for step in p.steps:
            values.append(self._computed(step, [values[s] for s in step.sources]))
        for k, store in enumerate(p.stores, loads):
            value = values[store.value]
            if p.columns:
                value = VALUE_NUMBERS.reduced("sum", self._whole(value), tuple(range(p.rank)), False)
                if self.computed[store.value] != store.dtype:  # a total of a wider dtype
                    value = VALUE_NUMBERS.entry("astype", value, store.dtype)
                value = value if store.start is None else VALUE_NUMBERS.accumulate(values[store.start], value, p.forward)
            frame.write(k, value, *self.lie[k])

    def _computed(self, step: Instruction, sources: Sequence[Numbers]) -> Numbers:
        if step.op == "number":
            return VALUE_NUMBERS.enter(step.at[0], np.dtype(step.dtype))
        if step.reduces:
            return VALUE_NUMBERS.reduced(step.op, self._whole(sources[0]), (-1,), True)
        return VALUE_NUMBERS.entry(step.op, *sources, *step.at)

    def _whole(self, value: Numbers) -> Numbers:
        return np.broadcast_to(value, (*self.outer, self.inner))

    def _check_in_place(self) -> None:
        """Entry by entry a kernel may write where it reads; what it passes over twice it may not."""
        frame, p, loads = self.frame, self.program, len(self.program.loads)
        for k in range(loads, len(self.lie)):
            for other in range(k + 1, len(self.lie)):
                frame.apart(k, self.lie[k], other, self.lie[other])
            for i in range(loads):
                single = (*self.outer, self.inner) == (1,) * (len(self.outer) + 1)  # one number: read before it is written
                entrywise = frame.start[i] == frame.start[k] and (single or self.lie[i] == self.lie[k])
                if not entrywise or p.reduces or p.columns:
                    frame.apart(i, self.lie[i], k, self.lie[k])


def _multiplied(frame: _Frame, a: tuple[int, Shape, Sequence[int]], b: tuple[int, Shape, Sequence[int] | None],
                c: tuple[int, Shape, Sequence[int]]) -> None:
    """`c = a @ b`, each an operand with the shape and the strides in which it lies."""
    frame.takes(*(frame.call.key[:1] * 3))
    for k, *lies in (a, b):
        frame.apart(k, lies, c[0], c[1:])
    frame.write(c[0], VALUE_NUMBERS.matmul(frame.read(*a), frame.read(*b)), *c[1:])


def _pack(frame: _Frame, n: int) -> None:
    columns, by_row, by_column = frame.sizes
    panels = np.zeros((n, panel_columns(columns, frame.buffer(1).dtype)), np.uint64)  # packed in whatever order
    panels[:, :columns] = frame.read(0, (n, columns), (by_row, by_column))
    frame.write(1, panels, panels.shape)


def _panels(frame: _Frame, inner: int, columns: int) -> tuple[int, Shape, tuple[int, int]]:
    return 1, (inner, columns), (panel_columns(columns, frame.buffer(1).dtype), 1)


def _product(frame: _Frame, n: int) -> None:
    columns, inner, *of_a, of_c = frame.sizes
    _multiplied(frame, (0, (n, inner), of_a), _panels(frame, inner, columns), (2, (n, columns), (of_c, 1)))


def _matvec(frame: _Frame, n: int) -> None:
    """A share is columns: operand 3 says where the first one is."""
    rows, columns, inner, *of_a, of_c = frame.sizes
    first = frame.start[2] - frame.start[3]
    _, _, strides = _panels(frame, inner, columns)
    frame.start[1] += first
    _multiplied(frame, (0, (rows, inner), of_a), (1, (inner, n), strides), (2, (rows, n), (of_c, 1)))


def _tall(frame: _Frame, n: int) -> None:
    columns, inner, of_a, of_b, of_c, forward, begun = frame.sizes
    c = (2, (n, columns), (of_c, 1))
    before = frame.read(*c) if begun else None
    _multiplied(frame, (0, (n, inner), (1, of_a)), (1, (inner, columns), (of_b, 1)), c)
    if before is not None:
        frame.write(2, VALUE_NUMBERS.accumulate(before, frame.read(*c), bool(forward)), *c[1:])


def _batch(frame: _Frame, n: int) -> None:
    m, k, columns, *s = frame.sizes
    _multiplied(frame, (0, (n, m, k), s[:3]), (1, (n, k, columns), s[3:6]), (2, (n, m, columns), s[6:]))


def _gemm(frame: _Frame, n: int) -> None:
    a, b, c = frame.call.operands
    _multiplied(frame, (0, a.shape, a.strides), (1, b.shape, b.strides), (2, c.shape, c.strides))


def _check(frame: _Frame, n: int) -> None:
    frame.takes(frame.call.key[0])
    frame.indexes(0)
    frame.read(0, (n,))
    if n and not frame.sizes[0]:
        raise _StoppedError


def _gather(frame: _Frame, n: int) -> None:
    width, rows = frame.sizes
    frame.takes(frame.buffer(0).dtype, frame.call.key[1], frame.buffer(0).dtype)
    frame.write(2, VALUE_NUMBERS.gather(frame.read(0, (rows, width)), frame.read(1, (n,))), (n, width))


def _scatter(frame: _Frame, n: int) -> None:
    width, rows, count = frame.sizes
    frame.takes(*frame.call.key)
    total = VALUE_NUMBERS.scatter_add(frame.read(0, (count, width)), frame.read(1, (count,)), rows)
    _among_zeros(frame, 2, total)
    if len(frame.call.operands) > 3:
        _among_zeros(frame, 3, VALUE_NUMBERS.entry("wide sums", total))


def _pick(frame: _Frame, n: int) -> None:
    frame.takes(frame.buffer(0).dtype, frame.call.key[1], frame.buffer(0).dtype)
    frame.write(2, VALUE_NUMBERS.pick(frame.read(0, (n, frame.sizes[0])), frame.read(1, (n,))), (n,))


def _one_hot(frame: _Frame, n: int) -> None:
    frame.takes(frame.call.key[1], frame.call.key[0])
    frame.indexes(0)
    _among_zeros(frame, 1, VALUE_NUMBERS.one_hot(frame.read(0, (n,)), frame.sizes[0]))


def _among_zeros(frame: _Frame, k: int, value: Numbers) -> None:
    """A kernel that changes some entries of what must be zeros."""
    if frame.read(k, value.shape).any():
        raise PlanError(f"{frame.where}: operand {k}, {frame.call.operands[k]}, is not zero before entries are put into it")
    frame.write(k, value, value.shape)


def _argmax(frame: _Frame, n: int) -> None:
    length, inner = frame.sizes
    frame.takes(frame.call.key[0], np.int64)
    frame.write(1, VALUE_NUMBERS.argmax(frame.read(0, (n, length, inner)), 1), (n, inner))


def _cumsum(frame: _Frame, n: int) -> None:
    length, inner = frame.sizes
    frame.takes(*frame.call.key)
    frame.write(1, VALUE_NUMBERS.cumsum(frame.read(0, (n, length, inner)), 1), (n, length, inner))


def _random(frame: _Frame, n: int) -> None:
    """A share is entries: operand 3 says where the first one is."""
    frame.takes(*(np.uint32,) * 3)
    (site,) = frame.read(1, (1,))
    frame.write(2, VALUE_NUMBERS.drawn(frame.read(0, (2,)), site, frame.start[2] - frame.start[3] + np.arange(n)), (n,))


FAMILIES: dict[str, Callable[[_Frame, int], None]] = {
    "rows": lambda frame, n: _Rows(frame, n).run(), "pack": _pack, "product": _product, "matvec": _matvec, "tall": _tall,
    "batch": _batch, "gemm": _gemm, "check": _check, "gather": _gather, "scatter": _scatter, "pick": _pick,
    "one_hot": _one_hot, "argmax": _argmax, "cumsum": _cumsum, "random": _random}
