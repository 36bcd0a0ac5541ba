"""Where temporaries lie: buffers that are alive at the same time never overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
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
    inside: dict[int, int]


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
    """An offset in bytes for every buffer that lives during a run, and the size of the whole."""
    alive = lifetimes(plan, kept)
    offsets, size = placed([b.bytes for b in alive], list(alive.values()), gap)
    return dict(zip(alive, offsets, strict=True)), size


def placed(sizes: Sequence[int], alive: Sequence[tuple[int, int]], gap: int = 0) -> tuple[list[int], int]:
    """An offset for each of so many bytes, alive from a first to a last item, and the size of the whole: largest first, each
    in the lowest place free.

    `gap` bytes are left between neighbours, so that tests can watch them.
    """
    room = [_up(n + gap) for n in sizes]
    blocks = [_Block(n, *life, {i: 0}) for i, (n, life) in enumerate(zip(room, alive, strict=True))]
    if len(blocks) > MANY:
        groups: dict[int, list[int]] = defaultdict(list)
        for i, n in enumerate(room):
            groups[n].append(i)
        blocks = [_together(group, n, alive) for n, group in groups.items()]
    taken: list[tuple[int, int, int, int]] = []
    offsets, end = [0] * len(sizes), 0
    for block in sorted(blocks, key=lambda b: (-b.size, b.first, b.last)):
        at = gap and ALIGNMENT
        for start, stop, _, _ in sorted([p for p in taken if p[2] <= block.last and block.first <= p[3]]):
            if start - at >= block.size:
                break
            at = max(at, stop)
        taken.append((at, at + block.size, block.first, block.last))
        end = max(end, at + block.size)
        for i, inside in block.inside.items():
            offsets[i] = at + inside
    return offsets, end


def _together(group: Iterable[int], size: int, alive: Sequence[tuple[int, int]]) -> _Block:
    """Buffers of one size side by side, each in the lowest slot that nobody needs any more."""
    inside: dict[int, int] = {}
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
