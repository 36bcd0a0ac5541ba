"""Where temporaries lie: buffers that are alive at the same time never overlap."""

from __future__ import annotations

from collections.abc import Container

from .views import Buffer, Call, Plan

ALIGNMENT = 64


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
    placed: list[tuple[int, int, int, int]] = []
    offsets: dict[Buffer, int] = {}
    end = 0
    for buffer in sorted(alive, key=lambda b: (-b.bytes, alive[b])):
        first, last = alive[buffer]
        size = _up(buffer.bytes + gap)
        at = gap and ALIGNMENT
        for start, stop, _, _ in sorted(p for p in placed if p[2] <= last and first <= p[3]):
            if start - at >= size:
                break
            at = max(at, stop)
        placed.append((at, at + size, first, last))
        offsets[buffer] = at
        end = max(end, at + size)
    return offsets, end


def _up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
