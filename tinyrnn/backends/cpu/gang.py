"""Compiled code by which threads hand work to each other, without a word of Python between two runs.

    box   frame, driver, runs posted, runs done, asleep, to be woken      (of one helper, `BOX` words apart)

`post(boxes, n)` says that the boxes hold frames, and how many helpers sleep, whom Python is to wake.  `asleep(boxes, n)` only
looks.  `serve(box, turns)` is a helper's life: it drives each frame that is posted, and returns when nothing came for so
many turns, asleep.  `join(boxes, n)` waits until all is done.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .codegen import I64, POINTER
from .driver import DRIVER, MORE
from .emit import Emit, Value

BOX = 16  # words: two lines of the cache
FRAME, DRIVE, POSTED, DONE, ASLEEP, WAKE = range(6)
POST = ir.FunctionType(I64, [POINTER, I64])


def emit_post(module: ir.Module, name: str) -> None:
    e = Emit(module, name, POST)
    boxes, n = e.function.args

    def post(i: Value, state: list[Any]) -> list[Any]:
        box = e.at(boxes, e.mul(i, BOX), I64)
        e.b.atomic_rmw("add", _word(e, box, POSTED), e.whole(1), "seq_cst")
        asleep = e.b.atomic_rmw("xchg", _word(e, box, ASLEEP), e.whole(0), "seq_cst")
        e.write(asleep, _word(e, box, WAKE))
        return [e.add(state[0], asleep)]

    e.b.ret(e.carry(0, n, 1, [e.whole(0)], post)[0])


def emit_asleep(module: ir.Module, name: str) -> None:
    e = Emit(module, name, POST)
    boxes, n = e.function.args
    e.b.ret(e.carry(0, n, 1, [e.whole(0)], lambda i, state: [
        e.add(state[0], _seen(e, e.at(boxes, e.mul(i, BOX), I64), ASLEEP))])[0])


def emit_join(module: ir.Module, name: str) -> None:
    e = Emit(module, name, POST)
    boxes, n = e.function.args

    def wait(i: Value) -> None:
        box = e.at(boxes, e.mul(i, BOX), I64)
        posted = _seen(e, box, POSTED)
        e.until(lambda: e.is_(_seen(e, box, DONE), "==", posted))

    e.loop(0, n, 1, wait)
    e.b.ret(e.whole(0))


def emit_serve(module: ir.Module, name: str) -> None:
    e = Emit(module, name, POST)
    b, (box, turns) = e.b, e.function.args
    look, work, idle, rest, sleep = (b.append_basic_block(w) for w in ("look", "work", "idle", "rest", "sleep"))
    before = b.block
    b.branch(look)

    b.position_at_end(look)
    waited = b.phi(I64)
    waited.add_incoming(e.whole(0), before)
    b.cbranch(_posted(e, box), work, idle)

    b.position_at_end(work)
    run = b.inttoptr(_seen(e, box, DRIVE), DRIVER.as_pointer())
    frame = b.inttoptr(_seen(e, box, FRAME), POINTER)
    again = b.append_basic_block("again")
    b.branch(again)
    b.position_at_end(again)
    over = b.append_basic_block("over")
    b.cbranch(e.is_(b.call(run, [frame]), "==", MORE), again, over)
    b.position_at_end(over)
    b.atomic_rmw("add", _word(e, box, DONE), e.whole(1), "seq_cst")
    waited.add_incoming(e.whole(0), b.block)
    b.branch(look)

    b.position_at_end(idle)
    b.cbranch(e.is_(waited, "<", turns), rest, sleep)
    b.position_at_end(rest)
    e.give_way()
    waited.add_incoming(e.add(waited, 1), b.block)
    b.branch(look)

    b.position_at_end(sleep)
    b.atomic_rmw("xchg", _word(e, box, ASLEEP), e.whole(1), "seq_cst")
    late = b.append_basic_block("late")
    gone = b.append_basic_block("gone")
    b.cbranch(_posted(e, box), late, gone)
    b.position_at_end(late)  # somebody posted meanwhile: unless he has seen the sleeper, who is then woken anyway, go on
    b.cbranch(e.is_(b.atomic_rmw("xchg", _word(e, box, ASLEEP), e.whole(0), "seq_cst"), "!=", 0), look, gone)
    waited.add_incoming(e.whole(0), late)
    b.position_at_end(gone)
    b.ret(e.whole(0))


def _word(e: Emit, box: Value, word: int) -> Any:
    return e.at(box, word, I64)


def _seen(e: Emit, box: Value, word: int) -> Any:
    return e.b.load_atomic(_word(e, box, word), "acquire", 8, typ=I64)


def _posted(e: Emit, box: Value) -> Any:
    return e.is_(_seen(e, box, POSTED), "!=", _seen(e, box, DONE))
