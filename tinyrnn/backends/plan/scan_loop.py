"""A scan as a loop: where states and traces live, what is in place, what may be split among threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...ir.node import Node, walk
from ...ir.ops.elementwise import TAG
from ...ir.ops.structure import CONCAT, SLICE, axis_of, parts_of
from ...ir.scan import FINAL, ITEM, REGION, TRACE, ScanView, body_of, expression_of, invariant, position_of
from ...passes.fuse import ROW_REDUCTIONS, is_kernel
from .views import Buffer, Call, Loop, Scope, UnsupportedError, View


class ScanPlan:
    """A loop over time.

    A state whose history is read keeps it: turn t reads slot t and writes slot t + 1 of one buffer [T+1, ...].  Any other
    state has one slot, and a second one that is copied into it at the end of a turn, unless it may be written in place.
    """

    def __init__(self, outer: Scope, node: Node) -> None:
        if outer.outer is not None:
            raise UnsupportedError("a scan inside a scan has no compiled kernel")
        self.outer, self.planner = outer, outer.planner
        self.scan = ScanView.of(node)
        self.projections = outer.readers[node]
        self.body = outer.inside()
        self.traced = {bare(expression_of(p)): p for p in self.projections if p.op is TRACE}
        self.slots: list[tuple[View, View, View]] = []  # of each state: read, written, where the final value is
        self.single: list[int] = []
        self.places: list[tuple[Node, View]] = []

    def emit(self) -> None:
        scan, body, outer = self.scan, self.body, self.outer
        states, slices, constants = scan.split(scan.body.args)
        init, xs, consts = (tuple(outer.env[s] for s in part) for part in scan.split(scan.node.src))
        body.env.update(zip(constants, consts, strict=True))
        body.env.update((a, x.turned()) for a, x in zip(slices, xs, strict=True))
        for i, (a, start) in enumerate(zip(states, init, strict=True)):
            self.remember(i, a, start)
        reuse = Reuse(self.scan, [expression_of(p) for p in self.projections if p.op is TRACE], outer)
        for p in self.projections:
            if p.op is TRACE:
                self.trace(p, reuse)
        self.steps(walk([*scan.body.outs, *(expression_of(p) for p in self.projections if p.op is TRACE)]), constants)
        loop = Loop(scan.steps, scan.reverse, body.items)
        _in_place(loop, [(self.slots[i][0], self.slots[i][1]) for i in self.single])
        loop.rows = rows_of(loop)
        outer.items.append(loop)
        outer.written.update(body.written)
        for p in self.projections:
            if p.op is FINAL:
                self.final(p, *self.slots[position_of(p)][1:])

    def final(self, p: Node, written: View, last: View) -> None:
        """The last value of a state; a copy where its history need not outlive the loop for its sake."""
        if not written.step:
            self.outer.env[p] = last
            return
        main, others = self.outer.place(p)
        self.outer.copy(last, main)
        self.outer.finish(p, main, others)

    def remember(self, i: int, a: Node, start: View) -> None:
        """Room for one state."""
        out, steps = bare(self.scan.body.outs[i]), self.scan.steps
        if a in self.traced or out in self.traced:
            whole = self.planner.temporary((steps + 1, *a.shape), a.dtype)
            early, late = (whole.sliced([(k, steps, 1), *((0, n, 1) for n in a.shape)]) for k in (0, 1))
            before, after = (late, early) if self.scan.reverse else (early, late)
            first, last = (steps, 0) if self.scan.reverse else (0, steps)
            self.outer.copy(start, whole.taken(first))
            slot = before.turned(), after.turned(), whole.taken(last)
            self.history(a, before)
            self.history(out, after)
        else:
            now, following = self.planner.temporary(a.shape, a.dtype), self.planner.temporary(a.shape, a.dtype)
            self.outer.copy(start, now)
            slot = now, following, now
            self.single.append(i)
        self.slots.append(slot)
        self.body.env[a] = slot[0]
        self.body.written.update(v.buffer for v in slot)
        self.body.request(self.scan.body.outs[i], slot[1])

    def history(self, e: Node, view: View) -> None:
        """The trace of a state, or of its new value, is the buffer that holds it anyway."""
        p = self.traced.get(e)
        if p is not None and p not in self.outer.env:
            self.outer.env[p] = view

    def trace(self, p: Node, reuse: Reuse) -> None:
        """Room for the values of an expression, unless they are somewhere anyway."""
        outer, (_, slices, constants) = self.outer, self.scan.split(self.scan.body.args)
        _, xs, consts = self.scan.split(self.scan.node.src)
        e = bare(expression_of(p))
        if e in slices:
            outer.env[p] = outer.env[xs[slices.index(e)]]
        elif e in constants:
            outer.env[p] = outer.env[consts[constants.index(e)]].broadcast(p.shape)
        else:
            places = outer.homes_of(p)
            if p not in outer.env:
                places = places or [reuse.place(p) or self.planner.temporary(p.shape, p.dtype)]
                outer.env[p] = places[0]
            outer.filled[p] = [outer.env[p], *places]
            for view in places:
                self.body.request(e, view.turned())
                self.body.written.add(view.buffer)
                self.places.append((e, view.turned()))

    def steps(self, order: Sequence[Node], constants: Sequence[Node]) -> None:
        """The calls of one turn; what does not change from turn to turn is computed before the loop."""
        scan, body, outer = self.scan, self.body, self.outer
        fixed = invariant(order, constants)
        before = outer.beside()
        before.foreign = {body.env[c].buffer for c in constants}
        before.env.update((c, body.env[c]) for c in constants)
        before.results = [n for n in order if n in fixed]  # every turn may read them
        before.run(before.results)
        body.env.update(before.env)
        body.run(order)
        for out, slot in zip(scan.body.outs, self.slots, strict=True):
            body.deliver(out, slot[1])
        for e, view in self.places:
            body.deliver(e, view)
        for i in self.single:
            body.copy(self.slots[i][1], self.slots[i][0])


class Reuse:
    """Traces that may take the place of a sequence which the same kernel reads, entry by entry, for the last time.

    An LSTM's gates overwrite the products with its input, and the adjoints of their arguments overwrite the gates.
    A buffer is free when nothing else reads it any more: no constant of this scan (every turn reads those), no other
    place of its sequences in the body, no result, and nothing after the scan.  Initial states are copied before.
    """

    def __init__(self, scan: ScanView, wanted: Sequence[Node], outer: Scope) -> None:
        self.outer = outer
        self.free: dict[Node, list[View]] = {}  # region -> the places that it reads and nothing reads later
        _, slices, _ = scan.split(scan.body.args)
        _, xs, constants = scan.split(scan.node.src)
        results = [*scan.body.outs, *wanted]
        order = walk(results)
        in_every_turn = {outer.env[c].buffer for c in constants}
        for buffer in dict.fromkeys(outer.env[x].buffer for x in xs if outer.env[x].buffer not in in_every_turn):
            inside = {a: outer.env[x].turned() for a, x in zip(slices, xs, strict=True) if outer.env[x].buffer is buffer}
            free = buffer.role == "temporary" and _side_by_side(list(inside.values()))
            if free and not outer.needed_later(buffer, scan.node):
                region, places = _only_reader(order, results, inside)
                if region is not None:
                    self.free.setdefault(region, []).extend(places)

    def place(self, p: Node) -> View | None:
        """The place of a trace, if one that is free fits."""
        e = bare(expression_of(p))
        parts = list(e.src) if e.op is CONCAT and axis_of(e) == e.ndim - 1 else [e]
        regions = {part.src[0] if part.op is ITEM else None for part in parts}
        region = regions.pop() if len(regions) == 1 else None
        free = self.free.get(region, []) if region is not None else []
        width = e.shape[-1] if e.shape else 0
        for first in free:
            run = _run_of(first, free, width)
            if run and first.dtype == e.dtype and first.shape[:-1] == e.shape[:-1]:
                for v in run:
                    free.remove(v)
                self.outer.forget(first.buffer)
                return View(first.buffer, p.shape, (first.step, *first.strides), first.offset)
        return None


def _run_of(first: View, free: Sequence[View], width: int) -> list[View]:
    """Places side by side that together are `width` wide, from `first` on."""
    run, at = [first], first.offset + first.shape[-1]
    while sum(v.shape[-1] for v in run) < width:
        following = next((v for v in free if v.offset == at and v.strides == first.strides and v.buffer is first.buffer
                          and v.shape[:-1] == first.shape[:-1] and v.step == first.step), None)
        if following is None:
            return []
        run.append(following)
        at += following.shape[-1]
    return run if sum(v.shape[-1] for v in run) == width else []


def _side_by_side(views: Sequence[View]) -> bool:
    """Whether sequences of one buffer are columns of the same rows at the same turn, and no entry stands for several."""
    first = views[0]
    if any(len(v.shape) != 2 or v.step != first.step or v.strides != first.strides for v in views):
        return False
    rows, by_row = first.shape[0], first.strides[0]
    low, high = min(v.offset for v in views), max(v.offset + v.shape[1] for v in views)
    return first.strides[1] == 1 and 0 < high - low <= by_row and abs(first.step) >= rows * by_row > 0


def _only_reader(order: Sequence[Node], results: Sequence[Node],
                 views: Mapping[Node, View]) -> tuple[Node | None, list[View]]:
    """The one elementwise kernel that reads these sequences, each entry where it writes, and the places that it reads."""
    seen: dict[Node, View] = dict(views)
    readers: dict[Node, None] = {}
    places: list[View] = []
    for n in order:
        for s in n.src:
            if s not in seen:
                continue
            if n.op is SLICE:
                seen[n] = seen[s].sliced(parts_of(n))
            elif n.op is TAG:
                seen[n] = seen[s]
            elif n.op is REGION:
                readers[n] = None
                place = seen[s]
                if not any(place.offset == v.offset and place.shape == v.shape for v in places):
                    if any(_overlap(place, v) for v in places):
                        return None, []
                    places.append(place)
            else:
                return None, []
    if len(readers) != 1 or not _side_by_side(places) or any(bare(o) in seen for o in results):
        return None, []
    (region,) = readers
    inner = walk(body_of(region).outs)
    shapes = {v.shape for v in places}
    plain = is_kernel(region) and not any(m.op in ROW_REDUCTIONS for m in inner) and len(shapes) == 1 and all(
        m.shape in shapes for m in body_of(region).outs)
    return (region, places) if plain else (None, [])


def _overlap(a: View, b: View) -> bool:
    """Whether two places of one buffer and one turn have columns in common."""
    return a.offset < b.offset + b.shape[-1] and b.offset < a.offset + a.shape[-1]


def bare(n: Node) -> Node:
    while n.op is TAG:
        n = n.src[0]
    return n


def _in_place(loop: Loop, slots: Sequence[tuple[View, View]]) -> None:
    """A state with one slot is written where it is read, when nothing reads the old value any more."""
    for now, following in slots:
        writers = [i for i, c in enumerate(loop.calls) if any(c.operands[k].buffer is following.buffer for k in c.writes)]
        back = [i for i, c in enumerate(loop.calls) if any(c.operands[k].buffer is now.buffer for k in c.writes)]
        readers = [i for i, c in enumerate(loop.calls)
                   if any(v.buffer is now.buffer for k, v in enumerate(c.operands) if k not in c.writes)]
        if len(writers) != 1 or len(back) != 1 or any(r > writers[0] for r in readers):
            continue
        w = loop.calls[writers[0]]
        if writers[0] in readers and not _aligned(w, now, following):
            continue
        loop.calls[:] = [
            replace(c, operands=tuple(replace(v, buffer=now.buffer) if v.buffer is following.buffer else v
                                      for v in c.operands))
            for i, c in enumerate(loop.calls) if i != back[0]]


def _aligned(call: Call, now: View, following: View) -> bool:
    """Whether a kernel reads each entry of one view just where it writes that entry of the other."""
    if call.family != "rows" or call.key[0].reduces or call.key[0].columns:
        return False
    touching = [v for v in call.operands if v.buffer in (now.buffer, following.buffer)]
    return all(v.strides == touching[0].strides and v.offset == touching[0].offset and v.shape == touching[0].shape
               for v in touching)


def rows_of(loop: Loop) -> int | None:
    """The extent along which every call of a loop may be split alike: all that is written in the loop is then read
    within the same part."""
    extents = {c.extent for c in loop.calls}
    if len(extents) != 1 or not all(extents) or any(not c.grain for c in loop.calls):
        return None
    (rows,) = extents
    written = {c.operands[k].buffer for c in loop.calls for k in c.writes}
    strides: dict[Buffer, int] = {}
    for c in loop.calls:
        for v, split in zip(c.operands, c.splits, strict=True):
            if v.buffer in written and not _within(v, split, strides.setdefault(v.buffer, split), rows, loop.steps):
                return None
    return rows


def _within(v: View, split: int, stride: int, rows: int, steps: int) -> bool:
    """Whether unit i of the split touches nothing outside of row i of its buffer."""
    if split != stride or split <= 0:
        return False
    period = rows * stride
    turns = 0 if v.step % period == 0 else (steps - 1) * v.step
    reach = sum((n - 1) * s for n, s in zip(v.shape, v.strides, strict=True) if s != split)
    return v.offset % period + turns + reach < stride
