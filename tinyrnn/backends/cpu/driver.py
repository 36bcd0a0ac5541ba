"""The driver: compiled code that walks a table of items, in one or several threads, and calls the kernels.

All of it works on eight-byte words:

    item      wide, calls, count, steps, reverse, extent, grain, parallel, meets, quantum, begins
    call      kernel, operands, number of operands, sizes, own extent, extent to share, grain, meets, begins
    operand   place of its buffer among the bases, bytes from there, bytes for each turn, bytes for each unit of the split
    room      the addresses of a call's operands, and behind them the turn
    bases     the address of each buffer, of all temporaries together
    frame     items, count, bases, thread, threads, control, note, scratch, room, item, turn, parts before, part, mine, own,
              began, waited, expected
    control   stop, parts done, crowded, and for each part up to where it is claimed (a line of the cache each)

Items, calls and operands are the same for every run; a frame is one thread's of one run, and its last words say where the
thread is.  Work is cut into parts, as many as there are threads, and nobody's until somebody claims it: a thread takes the
part of its own number, whose data its caches hold, then what others have not begun, and who comes late finds them taken.
Before work that reads what others wrote, a thread meets them: it waits until all parts so far are done, not for anybody to
come.  In a `wide` loop each call has parts of its own; elsewhere an item has.  What cannot be shared is one part; several of
these in a row, up to where threads meet, are one.

A thread that waits much longer than its own part took waits for one that holds a part and has no processor.  Where such waits
come to so much of the run that one thread would have been about as quick, the machine is crowded: the thread says so, and
whoever helps leaves after the part that he has.

`drive(frame)` returns 0 when all is done, 1 after `quantum` turns of a loop, so that Python may look for signals and call
again, 2 when it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .codegen import I64, POINTER
from .emit import KERNEL, PATIENCE, Emit, Value

ITEM, CALL, OPERAND, FRAME = 11, 9, 4, 18
(ITEMS_AT, COUNT, BASES_AT, THREAD, THREADS, CONTROL_AT, NOTE_AT, SCRATCH_AT, ROOM_AT, AT_ITEM, AT_TURN, BEFORE, PART, MINE,
 OWN, BEGAN, WAITED, EXPECTED) = range(FRAME)
STOP, READY, CROWDED, CLAIMED, LINE = 0, 8, 16, 24, 8
DONE, MORE, STOPPED = 0, 1, 2
UNKNOWN = 1 << 40  # cycles of the own part where there was none to compare with
OVERTIME = 300_000  # cycles, about a tenth of a millisecond, that others may take longer than twice the own part
SHARE = 3  # a run is crowded where one part in so many of it, or more, went by in waiting for those who were late
NAME = "drive"
DRIVER = ir.FunctionType(I64, [POINTER])


def emit_driver(module: ir.Module, name: str) -> None:
    e = Emit(module, name, DRIVER)
    b = e.b
    task = _Task(e, e.function.args[0])
    task.clock()
    head, body, out = (b.append_basic_block(n) for n in ("head", "body", "out"))
    first, _ = task.word(AT_ITEM), b.branch(head)
    before = b.block
    b.position_at_end(head)
    item = b.phi(I64)
    item.add_incoming(first, before)
    b.cbranch(e.is_(item, "<", task.count), body, out)

    b.position_at_end(body)
    task.leave_if_stopped()
    record = e.at(task.items, e.mul(item, ITEM), I64)
    wide, parallel = (e.is_(_load(e, record, k), "!=", 0) for k in (0, 7))

    def each_call() -> None:
        task.item(record, None, None)

    def in_parts() -> None:
        task.shared(e.choose(parallel, task.threads, 1), _load(e, record, 10), lambda part: task.item(record, parallel, part))
        task.meet(e.choose(parallel, task.threads, 1), _load(e, record, 8))

    with b.if_else(wide) as (calls, parts):
        with calls:
            each_call()
        with parts:
            in_parts()
    following = e.add(item, 1)
    task.set(AT_ITEM, following)
    task.leave_if_stopped()
    e.when(e.is_(_atomic(e, task.note, 0), "!=", 0), task.stop)
    item.add_incoming(following, b.block)
    b.branch(head)

    b.position_at_end(out)
    b.ret(e.whole(DONE))


def _load(e: Emit, base: Value, index: Value) -> Any:
    return e.read(e.at(base, index, I64), I64)


def _store(e: Emit, value: Value, base: Value, index: Value) -> None:
    e.write(e.whole(value), e.at(base, index, I64))


def _atomic(e: Emit, base: Value, index: int) -> Any:
    return e.b.load_atomic(e.at(base, index, I64), "acquire", 8, typ=I64)


def _cycles(e: Emit) -> Any:
    """A clock that any program may read; 0 where there is none, and nobody finds out that others are late."""
    name = "llvm.readcyclecounter"
    if not e.b.module.triple.startswith("x86_64"):
        return e.whole(0)
    found = e.b.module.globals.get(name)
    return e.b.call(found or ir.Function(e.b.module, ir.FunctionType(I64, []), name), [])


class _Task:
    """What one thread does: its frame, and the parts that it claims."""

    def __init__(self, e: Emit, frame: Value) -> None:
        self.e, self.frame = e, frame
        self.count, self.thread, self.threads = (self.word(w) for w in (COUNT, THREAD, THREADS))
        self.items, self.bases, self.control, self.note, self.scratch, self.room = (
            e.b.inttoptr(self.word(w), POINTER) for w in (ITEMS_AT, BASES_AT, CONTROL_AT, NOTE_AT, SCRATCH_AT, ROOM_AT))
        self.alone = e.is_(self.threads, "==", 1)

    def word(self, index: int) -> Any:
        return _load(self.e, self.frame, index)

    def set(self, index: int, value: Value) -> None:
        _store(self.e, value, self.frame, index)

    # ---- leaving

    def leave_if_stopped(self) -> None:
        """Return where somebody said stop."""
        e = self.e
        e.when(e.is_(_atomic(e, self.control, STOP), "!=", 0), lambda: e.b.ret(e.whole(STOPPED)))

    def _leave_if_crowded(self) -> None:
        """Return where the machine is crowded, for whoever only helps; between parts, when nobody waits for his."""
        e, b = self.e, self.e.b
        helps = b.and_(e.is_(self.thread, "!=", 0), e.is_(_atomic(e, self.control, CROWDED), "!=", 0))
        e.when(helps, lambda: b.ret(e.whole(STOPPED)))

    def stop(self) -> None:
        """Leave, and see to it that nobody waits for us."""
        e = self.e
        e.when(e.b.not_(self.alone), lambda: _store(e, 1, self.control, STOP))
        e.b.ret(e.whole(STOPPED))

    def clock(self) -> None:
        """The run begins, unless it goes on."""
        e = self.e
        self._with_others(lambda: e.when(e.is_(self.word(BEGAN), "==", 0), lambda: self.set(BEGAN, _cycles(e))))

    # ---- parts

    def shared(self, parts: Value, begins: Value, run: Callable[[Value], object]) -> None:
        """`run(part)` for every part that is to be had; what does not begin a row of parts belongs to whoever has its begin."""
        e, b = self.e, self.e.b
        resume, look, whole, claim, take, ended, out = (b.append_basic_block(n) for n in (
            "resume", "look", "whole", "claim", "take", "ended", "out"))
        under_way = self.word(PART)
        b.cbranch(e.is_(under_way, "!=", 0), resume, look)
        b.position_at_end(resume)
        resumed = e.sub(under_way, 1)
        b.branch(take)
        b.position_at_end(look)
        self._with_others(lambda: self.set(OWN, UNKNOWN))
        b.cbranch(b.or_(self.alone, e.is_(begins, "==", 0)), whole, claim)
        b.position_at_end(whole)
        b.cbranch(b.or_(self.alone, e.is_(self.word(MINE), "!=", 0)), take, out)
        b.position_at_end(claim)
        self._leave_if_crowded()
        claimed = self._claim(parts)
        none = e.is_(claimed, "<", 0)
        self.set(MINE, e.choose(none, 0, 1))
        after_claim = b.block
        b.cbranch(none, out, take)

        b.position_at_end(take)
        part = b.phi(I64)
        for value, block in ((resumed, resume), (e.whole(0), whole), (claimed, after_claim)):
            part.add_incoming(value, block)
        self.set(PART, e.add(part, 1))
        self._with_others(lambda: self.set(OWN, _cycles(e)))
        run(part)
        self._with_others(lambda: self.set(OWN, e.sub(_cycles(e), self.word(OWN))))
        self.set(PART, 0)
        b.cbranch(b.or_(self.alone, e.is_(parts, "==", 1)), out, ended)
        b.position_at_end(ended)  # of several parts: this one is done, perhaps there is another one
        self._done()
        self.leave_if_stopped()
        b.branch(claim)
        b.position_at_end(out)

    def _with_others(self, do: Callable[[], object]) -> None:
        self.e.when(self.e.b.not_(self.alone), do)

    def _claim(self, parts: Value) -> Any:
        """A part that nobody has claimed yet, or -1 where all are claimed: its number among all parts so far goes up."""
        e, b = self.e, self.e.b
        number = e.add(self.word(BEFORE), 1)
        look, read, attempt, following, over = (
            b.append_basic_block(n) for n in ("look", "read", "attempt", "following", "over"))
        before = b.block
        b.branch(look)
        b.position_at_end(look)
        tried = b.phi(I64)
        tried.add_incoming(e.whole(0), before)
        b.cbranch(e.is_(tried, "<", parts), read, over)
        b.position_at_end(read)
        part = e.rem(e.add(self.thread, tried), parts)
        place = e.at(self.control, e.add(e.mul(part, LINE), CLAIMED), I64)
        seen = _atomic(e, place, 0)
        b.cbranch(e.is_(seen, "<", number), attempt, following)
        b.position_at_end(attempt)
        swapped = b.cmpxchg(place, seen, number, "acq_rel", "acquire")
        b.cbranch(b.extract_value(swapped, 1), over, following)
        b.position_at_end(following)
        tried.add_incoming(e.add(tried, 1), following)
        b.branch(look)
        b.position_at_end(over)
        found = b.phi(I64)
        found.add_incoming(e.whole(-1), look)
        found.add_incoming(part, attempt)
        return found

    def _done(self) -> None:
        self.e.b.atomic_rmw("add", self.e.at(self.control, READY, I64), self.e.whole(1), "acq_rel")

    def meet(self, parts: Value, meets: Value) -> None:
        """Go on when all parts so far are done, where what follows reads what others wrote."""
        e, b = self.e, self.e.b

        def wait() -> None:
            single = b.and_(e.is_(parts, "==", 1), e.is_(self.word(MINE), "!=", 0))
            e.when(single, self._done)
            goal = e.add(self.word(BEFORE), parts)
            self.set(BEFORE, goal)
            self._until_ready(goal)

        self._with_others(lambda: e.when(e.is_(meets, "!=", 0), wait))

    def _until_ready(self, goal: Value) -> None:
        e, b = self.e, self.e.b
        head, spin, late, leave = (b.append_basic_block(n) for n in ("wait", "spin", "late", "go"))
        began = _cycles(e)
        before = b.block
        b.branch(head)
        b.position_at_end(head)
        turns = b.phi(I64)
        turns.add_incoming(e.whole(0), before)
        ready = b.or_(e.is_(_atomic(e, self.control, READY), ">=", goal), e.is_(_atomic(e, self.control, STOP), "!=", 0))
        b.cbranch(ready, leave, spin)
        b.position_at_end(spin)
        turns.add_incoming(e.add(turns, 1), spin)
        b.cbranch(e.is_(turns, ">", PATIENCE), late, head)
        b.position_at_end(late)
        self._complain(began)
        e.give_way()
        turns.add_incoming(turns, b.block)
        b.branch(head)
        b.position_at_end(leave)
        self.set(WAITED, e.add(self.word(WAITED), e.sub(_cycles(e), began)))

    def _complain(self, began: Value) -> None:
        """Say that the machine is crowded, where this wait is much longer than the own part, and all waits are too much of the
        run, as long as it took by now or was expected to take."""
        e = self.e
        now = _cycles(e)
        wait = e.sub(now, began)
        long = e.is_(wait, ">", e.add(e.mul(self.word(OWN), 2), OVERTIME))
        took, expected = e.sub(now, self.word(BEGAN)), self.word(EXPECTED)
        run = e.choose(e.is_(took, "<", expected), expected, took)
        much = e.is_(e.mul(e.add(self.word(WAITED), wait), SHARE), ">", run)
        e.when(e.b.and_(long, much), lambda: _store(e, 1, self.control, CROWDED))

    def share(self, extent: Value, grain: Value, part: Value, parts: Value) -> tuple[Any, Any]:
        """One part of an extent, in multiples of the grain."""
        e = self.e
        chunk = e.div(e.add(extent, parts, -1), parts)
        chunk = e.mul(e.div(e.add(chunk, grain, -1), grain), grain)
        low = e.least(e.mul(part, chunk), extent)
        return low, e.least(e.add(low, chunk), extent)

    # ---- items and calls

    def item(self, record: Value, parallel: Value, part: Value) -> None:
        """All turns of an item: a part of it, or, where no part is given, its calls one by one, each in parts of its own."""
        e, b = self.e, self.e.b
        count, steps, quantum = _load(e, record, 2), _load(e, record, 3), _load(e, record, 9)
        reverse = e.is_(_load(e, record, 4), "!=", 0)
        table = b.inttoptr(_load(e, record, 1), POINTER)
        low, high = e.whole(0), e.whole(1)
        if part is not None:
            low, high = self.share(_load(e, record, 5), _load(e, record, 6), part, e.choose(parallel, self.threads, 1))
        work, first = e.is_(high, ">", low), self.word(AT_TURN)
        limit = e.choose(work, e.least(e.add(first, quantum), steps), steps)

        def turn(i: Value) -> None:
            t = b.select(reverse, e.sub(e.sub(steps, 1), i), i)

            def call(k: Value) -> None:
                found = e.at(table, e.mul(k, CALL), I64)
                if part is None:
                    self.wide_call(found, t)
                else:
                    self.call(found, t, low, high)

            e.loop(0, count, 1, call)

        def unfinished() -> None:
            self.set(AT_TURN, limit)
            b.ret(e.whole(MORE))

        e.when(work, lambda: e.loop(first, limit, 1, turn))
        e.when(e.is_(limit, "<", steps), unfinished)
        self.set(AT_TURN, 0)

    def wide_call(self, call: Value, t: Value) -> None:
        """One call in parts; a call that cannot be shared is one part."""
        e = self.e
        extent, grain = _load(e, call, 5), _load(e, call, 6)
        several = e.is_(grain, ">", 0)
        parts = e.choose(several, self.threads, 1)

        def run(part: Value) -> None:
            low, high = self.share(e.choose(several, extent, 1), e.choose(several, grain, 1), part, parts)
            e.when(e.is_(high, ">", low),
                   lambda: self.call(call, t, e.choose(several, low, 0), high, several, e.sub(high, low)))

        self.shared(parts, _load(e, call, 8), run)
        self.meet(parts, _load(e, call, 7))

    def call(self, call: Value, t: Value, low: Value, high: Value, shared: Value = None, part: Value = None) -> None:
        """Addresses for this turn and part, then the kernel; a call with a negative extent of its own is told the part's."""
        e, b = self.e, self.e.b
        operands, number, own = b.inttoptr(_load(e, call, 1), POINTER), _load(e, call, 2), _load(e, call, 4)

        def address(i: Value) -> None:
            operand = e.at(operands, e.mul(i, OPERAND), I64)
            base = _load(e, self.bases, _load(e, operand, 0))
            at = e.add(base, _load(e, operand, 1), e.mul(t, _load(e, operand, 2)), e.mul(low, _load(e, operand, 3)))
            _store(e, at, self.room, i)

        e.loop(0, number, 1, address)
        _store(e, t, self.room, number)
        n = e.choose(e.is_(own, "<", 0), e.sub(high, low), own) if shared is None else e.choose(shared, part, own)
        kernel = b.inttoptr(_load(e, call, 0), KERNEL.as_pointer())
        b.call(kernel, [self.room, b.inttoptr(_load(e, call, 3), POINTER), n, self.scratch])
