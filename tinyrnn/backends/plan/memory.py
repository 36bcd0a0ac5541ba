"""Where temporaries lie: buffers that are alive at the same time never overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable
from heapq import heappop, heappush
from typing import NamedTuple

from .views import Buffer, Call, Plan

ALIGNMENT = 64
MANY = 512  # buffers from which those of one size lie together, so that a long program is arranged in linear time


class _Block(NamedTuple):
    """Bytes that are needed from the first to the last of some items, and where in them buffers lie."""

    size: int
    first: int
    last: int
    inside: dict[Buffer, int]


def lifetimes(plan: Plan, kept: Container[Buffer] = ()) -> dict[Buffer, tuple[int, int]]:
    """The first and the last item that touches each buffer of the run; a loop is one item.  What is `kept` from run to
    run has a place of its own."""
    found: dict[Buffer, tuple[int, int]] = {}
    for i, item in enumerate(plan.items):
        for call in [item] if isinstance(item, Call) else item.calls:
            for view in call.operands:
                if view.buffer.role in ("temporary", "kept") and view.buffer not in kept:
                    found[view.buffer] = (found.get(view.buffer, (i, i))[0], i)
    return found


def arrange(plan: Plan, gap: int = 0, kept: Container[Buffer] = ()) -> tuple[dict[Buffer, int], int]:
    """An offset in bytes for every buffer that lives during a run, and the size of the whole: largest first, each in
    the lowest place free.

    `gap` bytes are left between neighbours, so that tests can watch them.
    """
    alive = lifetimes(plan, kept)
    size = {b: _up(b.bytes + gap) for b in alive}
    blocks: Iterable[_Block] = (_Block(size[b], *alive[b], {b: 0}) for b in alive)
    if len(alive) > MANY:
        groups: dict[int, list[Buffer]] = defaultdict(list)
        for b in alive:
            groups[size[b]].append(b)
        blocks = (_together(group, n, alive) for n, group in groups.items())
    placed: list[tuple[int, int, int, int]] = []
    offsets: dict[Buffer, int] = {}
    end = 0
    for block in sorted(blocks, key=lambda b: (-b.size, b.first, b.last)):
        at = gap and ALIGNMENT
        for start, stop, _, _ in sorted(p for p in placed if p[2] <= block.last and block.first <= p[3]):
            if start - at >= block.size:
                break
            at = max(at, stop)
        placed.append((at, at + block.size, block.first, block.last))
        offsets.update({b: at + inside for b, inside in block.inside.items()})
        end = max(end, at + block.size)
    return offsets, end


def _together(group: Iterable[Buffer], size: int, alive: dict[Buffer, tuple[int, int]]) -> _Block:
    """Buffers of one size side by side, each in the lowest slot that nobody needs any more."""
    inside: dict[Buffer, int] = {}
    busy, free, slots = list[tuple[int, int]](), list[int](), 0
    for b in sorted(group, key=alive.__getitem__):
        while busy and busy[0][0] < alive[b][0]:
            heappush(free, heappop(busy)[1])
        if not free:
            heappush(free, slots)
            slots += 1
        slot = heappop(free)
        heappush(busy, (alive[b][1], slot))
        inside[b] = slot * size
    return _Block(slots * size, min(alive[b][0] for b in inside), max(alive[b][1] for b in inside), inside)


def _up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
