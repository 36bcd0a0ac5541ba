"""Products that were taken out of a loop for all steps at once, and go back in where many rows make them too large for a cache.

For a few rows it pays to read the weights of the input once for all steps.  For many, the weights are read often enough in
one step, and what pays is that a step's results are still in the cache when the step reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .kernels import copy
from .scan_loop import rows_of
from .views import Buffer, Call, Loop, View

ROWS = 16       # of a step, from which its product alone is worth while
LARGE = 2**19   # bytes of results from which they leave the cache


def sunk(items: Sequence[Call | Loop]) -> list[Call | Loop]:
    """The items, with such products moved into the loops that read them."""
    found = list(items)
    for loop in [item for item in items if isinstance(item, Loop)]:
        for c in [c for c in found[: found.index(loop)] if isinstance(c, Call) and c.family == "product"]:
            _sink(found, c, loop)
    return found


def _sink(items: list[Call | Loop], c: Call, loop: Loop) -> None:
    """Move one product, if nothing else depends on its place, and with it the copy that it reads."""
    a, panels, z = c.operands
    rows = c.extent // loop.steps if loop.steps else 0
    large = rows >= ROWS and rows * loop.steps == c.extent and z.buffer.bytes >= LARGE
    if not large or z.buffer.role != "temporary" or z.offset or z.step or a.step or loop.steps < 2:
        return
    turn = rows * z.strides[0]
    if not _slices(items, z.buffer, c, loop, turn) or _touched(items, c, loop, (a.buffer, panels.buffer)):
        return
    made = _copied(items, a, loop)
    once = replace(c, operands=(_turn(a, rows), panels, _turn(z, rows)), extent=rows, flops=c.flops // loop.steps)
    calls = [once, *loop.calls]
    overwritten = any(k in other.writes and v.buffer is z.buffer for other in loop.calls for k, v in enumerate(other.operands))
    later = any(item is not loop and call is not c for item, call, _, _ in _uses(items, z.buffer))
    if made is not None:
        calls = [copy(*(v.turned() for v in made.operands)), *calls]
    if loop.rows is not None and rows_of(replace(loop, calls=calls)) is None:
        return
    loop.calls[:] = calls
    if not overwritten and not later:
        _shrink(loop, z.buffer, turn)
    if made is not None:
        items.remove(made)
        _shrink(loop, a.buffer, rows * a.strides[0])
    items.remove(c)
    loop.rows = rows_of(loop)


def _turn(v: View, rows: int) -> View:
    """The rows of one turn."""
    return replace(v, shape=(rows, *v.shape[1:]), step=rows * v.strides[0])


def _uses(items: Sequence[Call | Loop], buffer: Buffer) -> Iterator[tuple[Call | Loop, Call, int, View]]:
    """Every item and call that touches a buffer, with the operand."""
    for item in items:
        for call in item.calls if isinstance(item, Loop) else [item]:
            for k, v in enumerate(call.operands):
                if v.buffer is buffer:
                    yield item, call, k, v


def _slices(items: Sequence[Call | Loop], buffer: Buffer, made: Call, loop: Loop, turn: int) -> bool:
    """Whether nothing but one call touches a buffer before the loop, which does so at each turn within a slice of its own."""
    uses = [(item, v) for item, call, _, v in _uses(items[: items.index(loop) + 1], buffer) if call is not made]
    return bool(uses) and all(item is loop and v.step == turn and _within(v, turn) for item, v in uses)


def _within(v: View, size: int) -> bool:
    ends = [(n - 1) * s for n, s in zip(v.shape, v.strides, strict=True)]
    return v.offset + sum(min(e, 0) for e in ends) >= 0 and v.offset + sum(max(e, 0) for e in ends) < size


def _touched(items: Sequence[Call | Loop], c: Call, loop: Loop, buffers: Sequence[Buffer]) -> bool:
    """Whether what a call reads is written from there on, up to the end of the loop."""
    after = items[items.index(c) + 1 : items.index(loop) + 1]
    return any(k in call.writes for b in buffers for _, call, k, _ in _uses(after, b))


def _copied(items: Sequence[Call | Loop], a: View, loop: Loop) -> Call | None:
    """The call that does nothing but copy a sequence into the order in which a product reads it."""
    uses = [(call, k) for _, call, k, _ in _uses(items, a.buffer)]
    made = next((call for call, k in uses if k in call.writes), None)
    if made is None or len(uses) != 2 or made.family != "rows" or made not in items or a.buffer.role != "temporary":
        return None
    program = made.key[0]
    if program.steps or len(program.loads) != 1 or len(program.stores) != 1:
        return None
    source, target = made.operands
    whole = len(target.shape) == 3 and target.shape[0] == loop.steps and target.contiguous and not target.offset
    rest = items[items.index(made) + 1 :]
    moved = any(k in call.writes for _, call, k, _ in _uses(rest[: rest.index(loop) + 1], source.buffer))
    plain = source.dtype == target.dtype
    return made if plain and whole and a.contiguous and not a.offset and not moved else None


def _shrink(loop: Loop, buffer: Buffer, size: int) -> None:
    """One turn's room for what only that turn reads."""
    buffer.size = size
    loop.calls[:] = [replace(call, operands=tuple(replace(v, step=0) if v.buffer is buffer else v for v in call.operands))
                     for call in loop.calls]
