"""What a plan makes of leaves alone comes first, and is kept from run to run while their data are the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ...sizes import AnySize
from .views import Buffer, Call, Loop, View, is_open

GROWTH, SMALL = 4, 65536  # what is kept is at most so many times as large as what it is made of, or so many bytes


def prepared_first(items: Sequence[Call | Loop]) -> tuple[list[Call | Loop], int]:
    """The items with those in front that depend on nothing but leaves and numbers, and how many these are; the buffers that
    they fill become `kept`.

    An item moves only if everything that writes its results moves, too, and if nothing else reads them before they are
    complete.
    """
    moving = _independent(items)
    first = [c for i, c in enumerate(items) if i in moving and isinstance(c, Call)]
    for v in (v for c in first for v in _written(c)):
        v.buffer.role = "kept"
    return [*first, *(item for i, item in enumerate(items) if i not in moving)], len(first)


def _independent(items: Sequence[Call | Loop]) -> set[int]:
    writers, readers = defaultdict[Buffer, list[int]](list), defaultdict[Buffer, list[int]](list)
    for i, item in enumerate(items):
        for c in item.calls if isinstance(item, Loop) else [item]:
            for k, v in enumerate(c.operands):
                (writers if k in c.writes else readers)[v.buffer].append(i)
    calls = {i: c for i, c in enumerate(items) if isinstance(c, Call) and c.family != "check" and _worthwhile(c)}
    moving = set(calls)

    def stays(i: int) -> bool:
        for k, v in enumerate(calls[i].operands):
            b = v.buffer
            if k in calls[i].writes:
                if b.role != "temporary" or any(w not in moving for w in writers[b]):
                    return True
                if any(r not in moving and r < max(writers[b]) for r in readers[b]):
                    return True
            elif b.role not in ("leaf", "literal") and (not writers[b] or any(w not in moving for w in writers[b])):
                return True
        return False

    while stay := {i for i in moving if stays(i)}:
        moving -= stay
    return moving


def _written(call: Call) -> list[View]:
    return [call.operands[k] for k in call.writes]


def _worthwhile(call: Call) -> bool:
    """Whether what a call fills is not much larger than what it reads, at any sizes: to keep it costs memory."""
    if any(is_open(v.buffer) or isinstance(v.buffer.size, AnySize) for v in call.operands):
        return False
    read = sum(v.buffer.bytes for k, v in enumerate(call.operands) if k not in call.writes)
    filled: int = sum(v.buffer.bytes for v in _written(call))
    return filled <= max(GROWTH * read, SMALL)
