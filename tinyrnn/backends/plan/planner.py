"""From a fused graph to a kernel plan: where every value lives, and which kernel fills it.

A value that moves numbers only (reshape, transpose, slice, broadcast) is a view.  A value that is part of something
larger (an operand of concat, a state, the trace of a scan) is written straight into its place there, its `home`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from ...ir.check import ENABLED
from ...ir.graph import Graph
from ...ir.node import DType, Node, walk
from ...ir.op import Trait
from ...ir.ops.elementwise import TAG
from ...ir.ops.leaves import ARG, FULL, INPUT, IOTA, LEAF, LITERAL, SIZE, filled, index_of, is_number
from ...ir.ops.linear import ACCUMULATE, BROADCAST, MATMUL, RESHAPE, SUM, TRANSPOSE, axes_of, order_of, runs_forward
from ...ir.ops.reduce import AMAX, AMIN
from ...ir.ops.structure import CONCAT, PLACE, PUT, SLICE, STACK, TAKE, axis_of, parts_of
from ...ir.scan import FINAL, ITEM, PROJECTIONS, REGION, SCAN, TRACE, body_of, position_of
from ...passes.fuse import is_kernel
from ...passes.rewrite import first_met
from ...shapes import Shape
from ...sizes import AnySize
from .fused import RegionReader
from .kernels import LOOKUPS, added, copy, reduce_rows, sum_columns
from .matmul import Blas, Panels
from .prologue import prepared_first
from .replay import checked
from .scan_loop import ScanPlan
from .sink import sunk
from .views import COUNTING, Buffer, Call, Plan, UnsupportedError, View, row_major

JOINS = (CONCAT, STACK)


def plan_of(graph: Graph, products: Panels | Blas | None = None) -> Plan:
    """The kernel plan of a graph whose elementwise ops are fused; `products` says how matrices are multiplied."""
    plan = planned(graph, products)
    return plan if plan.open or not are_checked() else checked(graph, plan)


def planned(graph: Graph, products: Panels | Blas | None = None) -> Plan:
    """The same, never replayed."""
    return Planner(graph, products or Panels()).plan


def are_checked() -> bool:
    """Whether plans are replayed when they are made, as graphs are checked."""
    return ENABLED


class Planner:
    """Makes one plan."""

    def __init__(self, graph: Graph, products: Panels | Blas) -> None:
        self.products = products
        self.buffers: list[Buffer] = []
        self.numbers: dict[tuple[str, str], View] = {}
        self.given: list[Buffer] = []
        note = self.buffer("note", 3, np.dtype(np.int64), "note")
        self.note = View(note, (3,), (1,))
        top = PlannedScope(self, None)
        for name, n in [*graph.inputs.items(), *graph.leaves.items()]:
            buffer = self.buffer(name, prod(n.shape), n.dtype, "leaf" if n.op is LEAF else "input", n)
            self.given.append(buffer)
            top.env[n] = View(buffer, n.shape, row_major(n.shape))
        outputs = {}
        for name, n in graph.outputs.items():
            buffer = self.buffer(name, prod(n.shape), n.dtype, "output")
            outputs[name] = View(buffer, n.shape, row_major(n.shape))
            top.request(n, outputs[name])
        top.results = list(graph.outputs.values())
        top.run(walk(top.results))
        for name, n in graph.outputs.items():
            top.deliver(n, outputs[name])
        items, prepared = prepared_first(sunk(top.items))
        self.plan = Plan(items, self.buffers, outputs, self.given, note, prepared)

    def buffer(self, name: str, size: int, dtype: DType, role: Any = "temporary", source: Any = None) -> Buffer:
        if dtype.kind not in "fbiu" or (dtype.kind == "f" and dtype.itemsize not in (4, 8)):
            raise UnsupportedError(f"{dtype} numbers have no compiled kernels: use float32 or float64")
        self.buffers.append(Buffer(name, size, dtype, role, source))
        return self.buffers[-1]

    def temporary(self, shape: Shape, dtype: DType) -> View:
        name = f"t{len(self.buffers)}"
        return View(self.buffer(name, prod(shape), dtype), shape, row_major(shape))

    def array(self, name: str, array: Any) -> View:
        """Numbers that are part of the program."""
        return View(self.buffer(name, array.size, array.dtype, "literal", array), array.shape, row_major(array.shape))

    def literal(self, n: Node) -> View:
        """The numbers of a literal node."""
        if n.op is IOTA and isinstance(n.shape[0], AnySize):
            return View(self.buffer(n.op.label, n.shape[0], n.dtype, "literal", COUNTING), n.shape, (1,))
        array = n.at[0].array if n.op is LITERAL else np.arange(n.shape[0], dtype=n.dtype)
        return self.array(n.op.label, np.ascontiguousarray(array))

    def size(self, value: AnySize, dtype: DType) -> View:
        """A size as a number."""
        key = (repr(value), dtype.str)
        if key not in self.numbers:
            self.numbers[key] = View(self.buffer(repr(value), 1, dtype, "literal", value), (), ())
        return self.numbers[key]

    def number(self, value: Any, dtype: DType) -> View:
        key = (repr(value), dtype.str)
        if key not in self.numbers:
            self.numbers[key] = self.array(f"{value:g}", np.asarray(value, dtype))
        return self.numbers[key]


class PlannedScope:
    """The top of a graph, or the body of a loop."""

    def __init__(self, planner: Planner, outer: PlannedScope | None) -> None:
        self.planner, self.outer = planner, outer
        self.env: dict[Node, View] = {}
        self.homes: dict[Node, list[View]] = defaultdict(list)
        self.items: list[Any] = []
        self.order: Sequence[Node] = ()
        self.results: Sequence[Node] = ()  # what whoever made this scope reads of it
        self.foreign: set[Buffer] = set()  # what belongs to whoever this scope's names come from
        self.packs: dict[Any, View] = {}
        self.filled: dict[Node, list[View]] = defaultdict(list)   # every place in which a value stands
        self.readers: dict[Node, list[Node]] = defaultdict(list)  # the projections of scans and regions
        self.written: set[Buffer] = set()
        self.totals: dict[Node, Node] = {}  # of a product: what adds it up from a total on
        self.forward: set[Node] = set()     # products whose first rows come first

    def inside(self) -> PlannedScope:
        """The body of a loop in this scope."""
        return PlannedScope(self.planner, self)

    def beside(self) -> PlannedScope:
        """A scope of its own names whose calls join this one's."""
        other = PlannedScope(self.planner, self.outer)
        other.items, other.written, other.packs = self.items, self.written, self.packs
        return other

    # ---- homes

    def request(self, n: Node, view: View) -> None:
        """A place in which the value of n should stand; it may have several."""
        self.homes[n].append(view)
        if n.op is TAG:
            self.request(n.src[0], view)
        elif n.op is TRANSPOSE:
            order = order_of(n)
            self.request(n.src[0], view.transposed([order.index(i) for i in range(len(order))]))
        elif n.op is RESHAPE and n.src[0].op not in (ARG, INPUT, LEAF):
            inner = view.reshaped(n.src[0].shape)
            if inner is not None:
                self.request(n.src[0], inner)
        elif n.op is ACCUMULATE and is_number(n.src[0], 0):
            self.request(n.src[1], view)

    def deliver(self, n: Node, view: View) -> None:
        """See to it that a request is met: a copy where the value was not written there in the first place."""
        if n.op is TAG:
            self.deliver(n.src[0], view)
        elif n.op is TRANSPOSE:
            order = order_of(n)
            self.deliver(n.src[0], view.transposed([order.index(i) for i in range(len(order))]))
        elif not any(_same(view, v) for v in (self.env[n], *self.filled[n])):
            self.copy(self.env[n], view)

    def homes_of(self, n: Node) -> list[View]:
        """The places in which n may live: of its own dtype.  A part of a whole of another dtype is converted into it, and
        whoever else reads n reads numbers of the dtype that its op says."""
        return [v for v in self.homes[n] if v.dtype == n.dtype]

    def place(self, n: Node, fits: Any = None) -> tuple[View, list[View]]:
        """Where a kernel writes n, and where copies are wanted as well."""
        homes = self.homes[n]
        good = [v for v in self.homes_of(n) if fits is None or fits(v)]
        main = good[0] if good else self.planner.temporary(n.shape, n.dtype)
        return main, [v for v in homes if v is not main]

    def plan_joins(self, order: Sequence[Node]) -> None:
        """The parts of every join are requested in their places in the whole."""
        for n in reversed(order):
            if n.op in JOINS:
                whole = next(iter(self.homes_of(n)), None)
                if whole is None:
                    whole = self.planner.temporary(n.shape, n.dtype)
                    self.homes[n].append(whole)
                for part, view in _parts(n, whole):
                    self.request(part, view)

    # ---- the walk

    def run(self, order: Sequence[Node]) -> None:
        for n in order:
            if n.op in (ITEM, FINAL, TRACE):
                self.readers[n.src[0]].append(n)
        self.order = order
        self.find_totals(order)
        self.plan_joins([n for n in order if n not in self.env])
        for n in order:
            if n not in self.env:
                self.visit(n)

    def find_totals(self, order: Sequence[Node]) -> None:
        """How products are added up: from which total on, and whether the first rows come first."""
        found = [n for n in order if n.op is ACCUMULATE]
        uses = Counter([*(s for n in order for s in n.src), *self.results]) if found else Counter[Node]()
        for n in found:
            total, x = n.src
            if not is_number(total, 0) and uses[x] == 1 and n.dtype == x.dtype and x.op is MATMUL and x.ndim == 2:
                self.totals[x] = n
            if runs_forward(n):
                self.forward.update(first_met([x], lambda m: m.op not in (SLICE, RESHAPE, TRANSPOSE, CONCAT), ()))

    def accumulate(self, n: Node) -> None:
        """A total and a product or sum, which could not be added up from it on, or began at zero."""
        total, x = n.src
        if is_number(total, 0) and n.dtype == x.dtype:
            self.env[n], self.filled[n] = self.env[x], self.filled[x]
            return
        c, others = self.place(n)
        self.add(added(self.env[total], self.env[x], c))
        self.finish(n, c, others)

    def visit(self, n: Node) -> None:
        if n.op is FULL:
            view = self.planner.number(filled(n), n.dtype)
            self.env[n] = view.broadcast(n.shape)
        elif n.op in (LITERAL, IOTA):
            self.env[n] = self.planner.literal(n)
        elif n.op is SIZE:
            self.env[n] = self.planner.size(n.at[0], n.dtype)
        elif Trait.VIEW in n.op.traits:
            self.env[n] = self.alias(n)
        elif n.op in JOINS:
            self.join(n)
        elif n.op in (PLACE, PUT):
            self.embed(n)
        elif n.op is SCAN:
            ScanPlan(self, n).emit()
        elif n.op is REGION:
            self.region(n)
        elif n.op in (FINAL, TRACE, ITEM):
            raise AssertionError("projections are bound when their scan or region is planned")
        elif n.op is MATMUL:
            self.matmul(n)
        elif n.op is ACCUMULATE:
            self.accumulate(n)
        elif n.op in (SUM, AMAX, AMIN):
            self.reduction(n)
        else:
            self.lookup(n)

    def alias(self, n: Node) -> View:
        """A view of the source; a copy where no strides say it."""
        x = self.env[n.src[0]]
        if n.op is TAG:
            return x
        if n.op is TRANSPOSE:
            return x.transposed(order_of(n))
        if n.op is SLICE:
            return x.sliced(parts_of(n))
        if n.op is TAKE:
            return x.taken(index_of(n))
        if n.op is BROADCAST:
            return x.broadcast(n.shape)
        found = x.reshaped(n.shape)
        if found is not None:
            return found
        whole = self.contiguous(x)
        result = whole.reshaped(n.shape)
        assert result is not None
        return result

    def contiguous(self, x: View) -> View:
        """The same numbers without gaps."""
        if x.contiguous:
            return x
        key = ("copy", id(x.buffer), x.offset, x.shape, x.strides, x.step)
        home = self.home_of(x)
        if key not in home.packs:
            home.packs[key] = home.planner.temporary(x.shape, x.dtype)
            home.copy(x, home.packs[key])
        return home.packs[key]

    def home_of(self, x: View) -> PlannedScope:
        """The outermost scope in which a view is there and does not change."""
        scope = self
        while scope.outer is not None and not x.step and x.buffer not in scope.written:
            scope = scope.outer
        return scope

    def needed_later(self, buffer: Buffer, after: Node) -> bool:
        """Whether anything that runs after a node reads a buffer, or somebody wants a copy of what is in it."""
        if buffer in self.foreign or any(self._lies_in(n, buffer) for n in self.results):
            return True
        if any(self.homes[n] for n, v in list(self.env.items()) if v.buffer is buffer):
            return True
        later = self.order[self.order.index(after) + 1 :] if after in self.order else self.order
        return any(self._lies_in(s, buffer) for n in later
                   if Trait.VIEW not in n.op.traits and n.op not in PROJECTIONS for s in n.src)

    def forget(self, buffer: Buffer) -> None:
        """Copies of what a buffer held are of no use any more: it will hold something else."""
        for key in [k for k in self.packs if k[1] == id(buffer)]:
            del self.packs[key]

    def _lies_in(self, n: Node, buffer: Buffer) -> bool:
        while n not in self.env and Trait.VIEW in n.op.traits:
            n = n.src[0]
        return n in self.env and self.env[n].buffer is buffer

    # ---- calls

    def add(self, call: Call) -> None:
        self.items.append(call)
        self.written.update(call.operands[i].buffer for i in call.writes)

    def copy(self, source: View, target: View) -> None:
        """`target = source`, entry by entry."""
        if 0 in target.shape:
            return
        self.add(copy(source, target))

    def join(self, n: Node) -> None:
        whole = self.homes_of(n)[0]
        for part, view in _parts(n, whole):
            self.deliver(part, view)
        self.finish(n, whole, [v for v in self.homes[n] if v is not whole])

    def embed(self, n: Node) -> None:
        """Zeros with one part filled."""
        whole, others = self.place(n)
        self.copy(self.planner.number(0, n.dtype).broadcast(n.shape), whole)
        if n.op is PUT:
            self.copy(self.env[n.src[0]], whole.taken(index_of(n)))
        else:
            self.copy(self.env[n.src[0]], whole.sliced(parts_of(n)))
        self.finish(n, whole, others)

    def finish(self, n: Node, main: View, others: Iterable[View]) -> None:
        """A value is there; copies for whoever wants it elsewhere too."""
        self.env[n] = main
        self.filled[n].append(main)
        for view in others:
            self.copy(main, view)
            self.filled[n].append(view)

    def region(self, n: Node) -> None:
        """A kernel; or, for what `tr.remat` made, its body in place."""
        items = self.items_of(n)
        body = body_of(n)
        args = dict(zip(body.args, (self.env[s] for s in n.src), strict=True))
        if not is_kernel(n):
            inner = self.beside()
            inner.env, inner.foreign, inner.results = args, {v.buffer for v in args.values()}, body.outs
            for i, item in items.items():
                for view in self.homes[item]:
                    inner.request(body.outs[i], view)
            known = set(self.packs)
            inner.run(walk([body.outs[i] for i in items]))
            for key in [k for k in self.packs if k[0] != "pack" and k not in known]:
                del self.packs[key]  # a copy would live on until another region reads it
            for i, item in items.items():
                for view in self.homes[item]:
                    inner.deliver(body.outs[i], view)
                self.env[item] = inner.env[body.outs[i]]
                self.filled[item] = [self.env[item], *self.homes[item]]
            return
        for out in (out for out in body.outs if out.op is ACCUMULATE and out.src[0] in args):
            args[out.src[0]] = self.contiguous(args[out.src[0]])
        reader = RegionReader([body.outs[i] for i in items], args, self.planner)
        stores = []
        for i, item in items.items():
            main, others = self.place(item, (lambda v: v.contiguous) if reader.columns else None)
            for view in [main] if reader.columns else [main, *others]:
                stores.append((body.outs[i], view))
            self.env[item], self.filled[item] = main, [main, *others]
        self.add(reader.call(stores, batched=self.outer is not None))
        if reader.columns:
            for item in items.values():
                for view in self.filled[item][1:]:
                    self.copy(self.env[item], view)

    def items_of(self, n: Node) -> dict[int, Node]:
        """The outputs of a region that are read."""
        return {position_of(item): item for item in self.readers[n]}

    # ---- reductions that no region took

    def reduction(self, n: Node) -> None:
        """Over any axes: those that stay come first, those that go are copied behind them."""
        axes, _ = n.at
        x = self.env[n.src[0]]
        kept = [i for i in range(len(x.shape)) if i not in axes]
        if n.op is SUM and n.dtype.kind == "f" and axes == tuple(range(len(axes))) and kept and self.columns(n, x):
            return
        moved = x.transposed([*kept, *axes])
        rows, inner = prod(moved.shape[: len(kept)]), prod(moved.shape[len(kept):])
        flat = moved.reshaped((rows, inner))
        if flat is None:
            flat = self.contiguous(moved).reshaped((rows, inner))
            assert flat is not None
        main, others = self.place(n, lambda v: v.contiguous)
        target = main.reshaped((rows,))
        assert target is not None
        self.add(reduce_rows({SUM: "sum", AMAX: "amax", AMIN: "amin"}[n.op], flat, target))
        self.finish(n, main, others)

    def columns(self, n: Node, x: View) -> bool:
        """A sum over leading axes, where the others lie in memory like one."""
        flat = x.reshaped((prod(x.shape[: len(axes_of(n))]), prod(n.shape)))
        if flat is None or flat.strides[1] != 1:
            return False
        main, others = self.place(n, lambda v: v.contiguous)
        target = main.reshaped((prod(n.shape),))
        assert target is not None
        self.add(sum_columns(flat, target))
        self.finish(n, main, others)
        return True

    # ---- products

    def matmul(self, n: Node) -> None:
        a, b = (self.env[s] for s in n.src)
        if n.dtype.kind != "f":
            raise UnsupportedError(f"products of {n.dtype} numbers have no compiled kernels: use float32 or float64")
        a, b = self.converted(a, n.dtype), self.converted(b, n.dtype)
        if len(n.shape) > 2:
            lead = n.shape[:-2]
            a, b = (v.broadcast((*lead, *v.shape[-2:])) for v in (a, b))
            self.planner.products.batch(self, n, a, b)
            return
        products, forward, total = self.planner.products, n in self.forward, self.totals.get(n)
        if total is None or not products.onto(self, total, self.env[total.src[0]], a, b, forward=forward):
            products.product(self, n, a, b, forward=forward)

    def converted(self, x: View, dtype: DType) -> View:
        if x.dtype == dtype:
            return x
        if len(x.shape) == 2 and x.strides[0] == 1 != x.strides[1]:  # columns stay columns
            return self.converted(x.transposed([1, 0]), dtype).transposed([1, 0])
        home = self.home_of(x)
        key = ("cast", id(x.buffer), x.offset, x.shape, x.strides, x.step, dtype.str)
        if key not in home.packs:
            home.packs[key] = home.planner.temporary(x.shape, dtype)
            home.copy(x, home.packs[key])
        return home.packs[key]

    # ---- lookups

    def lookup(self, n: Node) -> None:
        make = LOOKUPS.get(n.op)
        if make is None:
            raise UnsupportedError(f"the op {n.op.name!r} has no compiled kernel")
        whole = [self.contiguous(self.env[s]) for s in n.src]
        main, others = self.place(n, lambda v: v.contiguous and v.dtype == n.dtype)
        for call in make(n, whole, main, self):
            self.add(call)
        self.finish(n, main, others)


# ---- what the planner asks of views


def _same(a: View, b: View) -> bool:
    return (a.buffer is b.buffer and a.offset == b.offset and a.step == b.step and a.shape == b.shape
            and all(s == t or n == 1 for s, t, n in zip(a.strides, b.strides, a.shape, strict=True)))


def _parts(n: Node, whole: View) -> list[tuple[Node, View]]:
    """The operands of a join, each with its place in the whole."""
    if n.op is STACK:
        return [(s, whole.taken(i)) for i, s in enumerate(n.src)]
    axis, start, parts = axis_of(n), 0, []
    for s in n.src:
        cut = tuple((start, k, 1) if i == axis else (0, k, 1) for i, k in enumerate(s.shape))
        parts.append((s, whole.sliced(cut)))
        start += s.shape[axis]
    return parts
