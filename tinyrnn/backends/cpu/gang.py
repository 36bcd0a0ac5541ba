"""Compiled code by which threads hand work to each other, without a word of Python between two runs.

    box   frame, driver, runs posted, runs done, asleep, to be woken      (of one helper, `BOX` words apart)

`post(boxes, n)` says that the boxes hold frames, and how many helpers sleep, whom Python is to wake.  `asleep(boxes, n)` only
looks.  `serve(box, turns)` is a helper's life: it drives each frame that is posted, and returns when nothing came for so
many turns, asleep.  `join(boxes, n)` waits a moment for helpers to be through with their runs, and says how many are not: a run
is done when its parts are, whoever had no processor to come.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .codegen import I64, POINTER
from .driver import DRIVER, MORE
from .emit import Emit, Value

BOX = 16  # words: two lines of the cache
FRAME, DRIVE, POSTED, DONE, ASLEEP, WAKE = range(6)
MOMENT = 200  # looks at a helper who is about to leave
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

    def busy(i: Value, state: list[Any]) -> list[Any]:
        box = e.at(boxes, e.mul(i, BOX), I64)
        (late,) = e.carry(0, MOMENT, 1, [e.whole(1)], lambda _, still: [
            e.choose(e.is_(still[0], "==", 0), 0, e.choose(_posted(e, box), 1, 0))])
        return [e.add(state[0], late)]

    e.b.ret(e.carry(0, n, 1, [e.whole(0)], busy)[0])


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
