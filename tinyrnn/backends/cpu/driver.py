"""The driver: compiled code that walks a table of items, in one or several threads, and calls the kernels.

All of it works on eight-byte words:

    item      kind, calls, count, steps, reverse, extent, grain, parallel, barrier, quantum
    call      kernel, operands, number of operands, sizes, extent
    operand   address, bytes for each turn, bytes for each unit of the split extent
    place     item, turn, barriers passed          (of one thread; kept from call to call)
    control   arrivals at barriers, stop

`drive(items, count, place, thread, threads, control, note, scratch, room)` returns 0 when all is done, 1 after `quantum`
turns of a loop, so that Python may look for signals and call again, 2 when it was stopped.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .emit import KERNEL, Emit
from .machine import I64, POINTER

ITEM, CALL, OPERAND = 10, 5, 3
DONE, MORE, STOPPED = 0, 1, 2
NAME = "drive"
DRIVER = ir.FunctionType(I64, [POINTER, I64, POINTER, I64, I64, POINTER, POINTER, POINTER, POINTER])
PATIENCE = 4000  # turns of waiting before the processor is offered to others


def emit_driver(module: Any, name: str) -> None:
    e = Emit(module, name, DRIVER)
    b = e.b
    items, count, place, thread, threads, control, note, scratch, room = e.function.args
    head, body, out = (b.append_basic_block(n) for n in ("head", "body", "out"))
    first, _ = _load(e, place, 0), b.branch(head)
    before = b.block
    b.position_at_end(head)
    item = b.phi(I64)
    item.add_incoming(first, before)
    b.cbranch(e.is_(item, "<", count), body, out)

    b.position_at_end(body)
    record = e.at(items, e.mul(item, ITEM), I64)
    parallel = e.is_(_load(e, record, 7), "!=", 0)
    mine = b.or_(parallel, e.is_(thread, "==", 0))
    e.when(mine, lambda: _run_item(e, record, place, thread, threads, parallel, scratch, room))
    following = e.add(item, 1)
    _store(e, following, place, 0)
    _store(e, e.whole(0), place, 1)
    wait = b.and_(e.is_(threads, ">", 1), e.is_(_load(e, record, 8), "!=", 0))
    e.when(wait, lambda: _barrier(e, place, threads, control))
    stopped = b.or_(e.is_(_atomic(e, control, 1), "!=", 0), e.is_(_atomic(e, note, 0), "!=", 0))
    e.when(stopped, lambda: b.ret(e.whole(STOPPED)))
    item.add_incoming(following, b.block)
    b.branch(head)

    b.position_at_end(out)
    b.ret(e.whole(DONE))


def _load(e: Emit, base: Any, index: Any) -> Any:
    return e.read(e.at(base, index, I64), I64)


def _store(e: Emit, value: Any, base: Any, index: Any) -> None:
    e.write(value, e.at(base, index, I64))


def _atomic(e: Emit, base: Any, index: int) -> Any:
    return e.b.load_atomic(e.at(base, index, I64), "acquire", 8, typ=I64)


def _run_item(e: Emit, record: Any, place: Any, thread: Any, threads: Any, parallel: Any, scratch: Any, room: Any) -> None:
    b = e.b
    part, parts = e.choose(parallel, thread, 0), e.choose(parallel, threads, 1)
    extent, grain = _load(e, record, 5), _load(e, record, 6)
    chunk = e.div(e.add(extent, parts, -1), parts)
    chunk = e.mul(e.div(e.add(chunk, grain, -1), grain), grain)
    low = e.least(e.mul(part, chunk), extent)
    high = e.least(e.add(low, chunk), extent)
    calls, count, steps = _load(e, record, 1), _load(e, record, 2), _load(e, record, 3)
    reverse, quantum = e.is_(_load(e, record, 4), "!=", 0), _load(e, record, 9)
    first = _load(e, place, 1)
    work = e.is_(high, ">", low)
    limit = e.choose(work, e.least(e.add(first, quantum), steps), steps)
    table = b.inttoptr(calls, POINTER)

    def turn(i: Any) -> None:
        t = b.select(reverse, e.sub(e.sub(steps, 1), i), i)
        e.loop(0, count, 1, lambda k: _run_call(e, e.at(table, e.mul(k, CALL), I64), t, low, high, scratch, room))

    def unfinished() -> None:
        _store(e, limit, place, 1)
        b.ret(e.whole(MORE))

    e.when(work, lambda: e.loop(first, limit, 1, turn))
    e.when(e.is_(limit, "<", steps), unfinished)


def _run_call(e: Emit, call: Any, t: Any, low: Any, high: Any, scratch: Any, room: Any) -> None:
    """Addresses for this turn and part, then the kernel; a call with a negative extent is told the part's."""
    b = e.b
    operands, number, own = b.inttoptr(_load(e, call, 1), POINTER), _load(e, call, 2), _load(e, call, 4)

    def address(i: Any) -> None:
        operand = e.at(operands, e.mul(i, OPERAND), I64)
        at = e.add(_load(e, operand, 0), e.mul(t, _load(e, operand, 1)), e.mul(low, _load(e, operand, 2)))
        _store(e, at, room, i)

    e.loop(0, number, 1, address)
    n = e.choose(e.is_(own, "<", 0), e.sub(high, low), own)
    kernel = b.inttoptr(_load(e, call, 0), KERNEL.as_pointer())
    b.call(kernel, [room, b.inttoptr(_load(e, call, 3), POINTER), n, scratch])


def _barrier(e: Emit, place: Any, threads: Any, control: Any) -> None:
    """Wait until every thread is here, or somebody says stop."""
    b = e.b
    passed = e.add(_load(e, place, 2), 1)
    _store(e, passed, place, 2)
    b.atomic_rmw("add", control, e.whole(1), "acq_rel")
    goal = e.mul(passed, threads)
    head, spin, leave = (b.append_basic_block(n) for n in ("wait", "spin", "go"))
    before = b.block
    b.branch(head)
    b.position_at_end(head)
    waited = b.phi(I64)
    waited.add_incoming(e.whole(0), before)
    here = b.or_(e.is_(_atomic(e, control, 0), ">=", goal), e.is_(_atomic(e, control, 1), "!=", 0))
    b.cbranch(here, leave, spin)
    b.position_at_end(spin)
    offer = b.module.globals.get("sched_yield") or ir.Function(b.module, ir.FunctionType(ir.IntType(32), []), "sched_yield")
    e.when(e.is_(waited, ">", PATIENCE), lambda: b.call(offer, []))
    waited.add_incoming(e.add(waited, 1), b.block)
    b.branch(head)
    b.position_at_end(leave)
