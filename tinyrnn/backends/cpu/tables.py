"""A plan as the tables of the driver: the same numbers for every run and every thread."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np

from ..plan.views import Buffer, Call, Loop, Plan, View
from .driver import CALL, ITEM, OPERAND
from .memory import address

WORTHWHILE = 400_000       # operations below which an item is not shared among threads
ENOUGH = 5_000_000         # operations below which other threads cost more than they give
LONG = 12_000_000          # operations from which they are woken for a single run
WIDE = 100_000             # operations from which a single call within a turn is shared
READING = 4                # operations of other kernels that take as long as one of a product that is bound by reading
PATIENCE = 400_000_000     # operations after which a loop comes up for air, so that Ctrl-C is seen
ARENA = 0                  # the place among the bases of the memory in which temporaries lie


class Tables:
    """Items, calls and operands; `slots` says which base is a buffer's, `shared` whether a run is worth several threads,
    `long` whether it is worth waking them."""

    def __init__(self, plan: Plan, kernels: Mapping[Hashable, int], offsets: Mapping[Buffer, int]) -> None:
        fixed = [b for b in plan.buffers if b not in offsets]
        self.slots: dict[Buffer, int] = {b: i for i, b in enumerate(fixed, 1)}
        self.bases = len(fixed) + 1
        operands: list[tuple[int, int, int, int]] = []
        sizes: list[int] = []
        calls: list[tuple[int, ...]] = []
        items: list[list[int]] = []
        for item in plan.items:
            inside, split, wide = calls_of(item), _split(item), _is_wide(item)
            items.append([int(wide), len(calls), len(inside), *_turns(item), split or 1, _grain(item), 0, 1, _quantum(item)])
            for k, c in enumerate(inside):
                alone = not c.grain and k + 1 < len(inside) and not inside[k + 1].grain
                calls.append((kernels[c.family, *c.key], len(operands), len(c.operands), len(sizes),
                              -1 if split else c.extent, c.extent, c.grain, int(not alone)))
                operands += [self._operand(v, s, offsets) for v, s in zip(c.operands, c.splits, strict=True)]
                sizes += c.sizes
        self.operands = np.array(operands, np.int64).reshape(-1, OPERAND)
        self.sizes = np.array([*sizes, 0], np.int64)
        self.calls = np.array(calls, np.int64).reshape(-1, CALL)
        self.calls[:, 1] = address(self.operands) + 8 * OPERAND * self.calls[:, 1]
        self.calls[:, 3] = address(self.sizes) + 8 * self.calls[:, 3]
        self.items = np.array(items, np.int64).reshape(-1, ITEM)
        self.items[:, 1] = address(self.calls) + 8 * CALL * self.items[:, 1]
        self.room = max((c[2] for c in calls), default=0) + 1
        work = np.array([_work(item) for item in plan.items])
        splits = np.array([_split(item) or 0 for item in plan.items])
        self.items[:, 7] = ((work >= WORTHWHILE) & (splits > 1)) | (self.items[:, 0] != 0)
        common = int(work[self.items[:, 7] != 0].sum())
        self.shared, self.long = common >= ENOUGH, common >= LONG
        alone = self.items[:, 7] == 0
        self.items[:-1, 8] = ~(alone[:-1] & alone[1:])

    def _operand(self, v: View, split: int, offsets: Mapping[Buffer, int]) -> tuple[int, int, int, int]:
        size = v.dtype.itemsize
        return self.slots.get(v.buffer, ARENA), offsets.get(v.buffer, 0) + v.offset * size, v.step * size, split * size


def calls_of(item: Call | Loop) -> list[Call]:
    return [item] if isinstance(item, Call) else item.calls


def _work(item: Call | Loop) -> int:
    """Operations, as many as would take the time of the item."""
    turn: int = sum(c.flops * (READING if c.family == "matvec" else 1) for c in calls_of(item))
    return turn * (item.steps if isinstance(item, Loop) else 1)


def _is_wide(item: Call | Loop) -> bool:
    """Whether the calls of a loop are shared out one by one: its rows cannot be, and a turn takes long enough."""
    return isinstance(item, Loop) and item.rows is None and any(c.grain and c.extent > c.grain and c.flops >= WIDE
                                                                for c in item.calls)


def _turns(item: Call | Loop) -> tuple[int, int]:
    return (item.steps, int(item.reverse)) if isinstance(item, Loop) else (1, 0)


def _split(item: Call | Loop) -> int | None:
    """The extent along which an item may be shared out."""
    if isinstance(item, Loop):
        return item.rows
    return item.extent if item.grain else None


def _grain(item: Call | Loop) -> int:
    return item.grain if isinstance(item, Call) and item.grain else 1


def _quantum(item: Call | Loop) -> int:
    return max(1, PATIENCE // max(item.flops // max(item.steps, 1), 1)) if isinstance(item, Loop) else 1


