"""The driver: compiled code that walks a table of items, in one or several threads, and calls the kernels.

All of it works on eight-byte words:

    item      wide, calls, count, steps, reverse, extent, grain, parallel, barrier, quantum
    call      kernel, operands, number of operands, sizes, own extent, extent to share, grain, barrier
    operand   place of its buffer among the bases, bytes from there, bytes for each turn, bytes for each unit of the split
    room      the addresses of a call's operands, and behind them the turn
    bases     the address of each buffer, of all temporaries together
    frame     items, count, bases, thread, threads, control, note, scratch, room, item, turn, barriers passed
    control   arrivals at barriers, stop

Items, calls and operands are the same for every run; a frame is one thread's of one run, and its last three words say where
the thread is.  An item's parts run in all threads; in a `wide` loop each call is shared out by itself, with barriers between.

`drive(frame)` returns 0 when all is done, 1 after `quantum` turns of a loop, so that Python may look for signals and call
again, 2 when it was stopped.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .codegen import I64, POINTER
from .emit import KERNEL, Emit, Value

ITEM, CALL, OPERAND, FRAME = 10, 8, 4, 12
(ITEMS_AT, COUNT, BASES_AT, THREAD, THREADS, CONTROL_AT, NOTE_AT, SCRATCH_AT, ROOM_AT, AT_ITEM, AT_TURN,
 PASSED) = range(FRAME)
DONE, MORE, STOPPED = 0, 1, 2
NAME = "drive"
DRIVER = ir.FunctionType(I64, [POINTER])


def emit_driver(module: ir.Module, name: str) -> None:
    e = Emit(module, name, DRIVER)
    b = e.b
    (frame,) = e.function.args
    count, thread, threads = (_load(e, frame, word) for word in (COUNT, THREAD, THREADS))
    items, bases, control, note, scratch, room = (b.inttoptr(_load(e, frame, word), POINTER) for word in (
        ITEMS_AT, BASES_AT, CONTROL_AT, NOTE_AT, SCRATCH_AT, ROOM_AT))
    head, body, out = (b.append_basic_block(n) for n in ("head", "body", "out"))
    first, _ = _load(e, frame, AT_ITEM), b.branch(head)
    before = b.block
    b.position_at_end(head)
    item = b.phi(I64)
    item.add_incoming(first, before)
    b.cbranch(e.is_(item, "<", count), body, out)

    b.position_at_end(body)
    e.when(e.is_(_atomic(e, control, 1), "!=", 0), lambda: b.ret(e.whole(STOPPED)))
    record = e.at(items, e.mul(item, ITEM), I64)
    parallel = e.is_(_load(e, record, 7), "!=", 0)
    mine = b.or_(parallel, e.is_(thread, "==", 0))
    task = _Task(e, frame, bases, thread, threads, control, scratch, room)
    e.when(mine, lambda: task.item(record, parallel))
    following = e.add(item, 1)
    _store(e, following, frame, AT_ITEM)
    _store(e, e.whole(0), frame, AT_TURN)
    wait = b.and_(e.is_(threads, ">", 1), e.is_(_load(e, record, 8), "!=", 0))
    e.when(wait, lambda: _barrier(e, frame, threads, control))
    e.when(e.is_(_atomic(e, control, 1), "!=", 0), lambda: b.ret(e.whole(STOPPED)))
    e.when(e.is_(_atomic(e, note, 0), "!=", 0), lambda: _stop(e, threads, control))
    item.add_incoming(following, b.block)
    b.branch(head)

    b.position_at_end(out)
    b.ret(e.whole(DONE))


def _stop(e: Emit, threads: Value, control: Value) -> None:
    """Leave, and see to it that nobody waits for us at a barrier."""
    e.when(e.is_(threads, ">", 1), lambda: _store(e, e.whole(1), control, 1))
    e.b.ret(e.whole(STOPPED))


def _load(e: Emit, base: Value, index: Value) -> Any:
    return e.read(e.at(base, index, I64), I64)


def _store(e: Emit, value: Value, base: Value, index: Value) -> None:
    e.write(value, e.at(base, index, I64))


def _atomic(e: Emit, base: Value, index: int) -> Any:
    return e.b.load_atomic(e.at(base, index, I64), "acquire", 8, typ=I64)


class _Task:
    """What one thread does with an item."""

    def __init__(self, e: Emit, frame: Value, bases: Value, thread: Value, threads: Value, control: Value, scratch: Value,
                 room: Value) -> None:
        self.e, self.frame, self.bases, self.thread, self.threads, self.control = e, frame, bases, thread, threads, control
        self.scratch, self.room = scratch, room

    def share(self, extent: Value, grain: Value, part: Value, parts: Value) -> tuple[Any, Any]:
        """One part of an extent, in multiples of the grain."""
        e = self.e
        chunk = e.div(e.add(extent, parts, -1), parts)
        chunk = e.mul(e.div(e.add(chunk, grain, -1), grain), grain)
        low = e.least(e.mul(part, chunk), extent)
        return low, e.least(e.add(low, chunk), extent)

    def item(self, record: Value, parallel: Value) -> None:
        e, b = self.e, self.e.b
        wide = b.and_(parallel, e.is_(_load(e, record, 0), "!=", 0))
        alone = b.or_(wide, b.not_(parallel))
        low, high = self.share(_load(e, record, 5), _load(e, record, 6), e.choose(alone, 0, self.thread),
                               e.choose(alone, 1, self.threads))
        count, steps, quantum = _load(e, record, 2), _load(e, record, 3), _load(e, record, 9)
        reverse = e.is_(_load(e, record, 4), "!=", 0)
        table = b.inttoptr(_load(e, record, 1), POINTER)
        work, first = e.is_(high, ">", low), _load(e, self.frame, AT_TURN)
        limit = e.choose(work, e.least(e.add(first, quantum), steps), steps)

        def turn(i: Value) -> None:
            t = b.select(reverse, e.sub(e.sub(steps, 1), i), i)
            with b.if_else(wide) as (shared, own):
                with shared:
                    e.loop(0, count, 1, lambda k: self.wide_call(e.at(table, e.mul(k, CALL), I64), t))
                with own:
                    e.loop(0, count, 1, lambda k: self.call(e.at(table, e.mul(k, CALL), I64), t, low, high))

        def unfinished() -> None:
            _store(e, limit, self.frame, AT_TURN)
            b.ret(e.whole(MORE))

        e.when(work, lambda: e.loop(first, limit, 1, turn))
        e.when(e.is_(limit, "<", steps), unfinished)

    def wide_call(self, call: Value, t: Value) -> None:
        """A thread's part of one call; a call that cannot be shared is the first thread's."""
        e = self.e
        extent, grain = _load(e, call, 5), _load(e, call, 6)
        shared = e.is_(grain, ">", 0)
        low, high = self.share(e.choose(shared, extent, 1), e.choose(shared, grain, 1), self.thread, self.threads)
        e.when(e.is_(high, ">", low), lambda: self.call(call, t, e.choose(shared, low, 0), high, shared, e.sub(high, low)))
        e.when(e.is_(_load(e, call, 7), "!=", 0), lambda: _barrier(e, self.frame, self.threads, self.control))

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


def _barrier(e: Emit, frame: Value, threads: Value, control: Value) -> None:
    """Wait until every thread is here, or somebody says stop."""
    b = e.b
    passed = e.add(_load(e, frame, PASSED), 1)
    _store(e, passed, frame, PASSED)
    b.atomic_rmw("add", control, e.whole(1), "acq_rel")
    goal = e.mul(passed, threads)
    e.until(lambda: b.or_(e.is_(_atomic(e, control, 0), ">=", goal), e.is_(_atomic(e, control, 1), "!=", 0)))
