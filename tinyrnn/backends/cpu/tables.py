"""A plan as the tables of the driver: the same numbers for every run and every thread."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from ...sizes import Number, SizeVector
from ..plan import memory as arrangement
from ..plan.views import Buffer, Call, Loop, Plan
from .driver import CALL, ITEM, OPERAND
from .memory import address

WORTHWHILE = 400_000       # operations below which an item is not shared among threads
ENOUGH = 5_000_000         # operations below which other threads cost more than they give
LONG = 12_000_000          # operations from which they are woken for a single run
WIDE = 100_000             # operations from which a single call within a turn is shared
READING = 4                # operations of other kernels that take as long as one of a product that is bound by reading
OPERATIONS = 32            # in a cycle of the processor, about
PATIENCE = 400_000_000     # operations after which a loop comes up for air, so that Ctrl-C is seen
ARENA = 0                  # the place among the bases of the memory in which temporaries lie


class TableLayout:
    """What the tables of a plan hold for any sizes; `slots` says which base is a buffer's."""

    def __init__(self, plan: Plan, kernels: Mapping[Hashable, int], kept: Container[Buffer], symbols: Sequence[str]) -> None:
        alive = arrangement.lifetimes(plan, kept)
        self.prepared = plan.prepared
        self.temporaries, self.alive, number = list(alive), list(alive.values()), {b: i for i, b in enumerate(alive)}
        self.slots = {b: i for i, b in enumerate((b for b in plan.buffers if b not in alive), 1)}
        self.bases = len(self.slots) + 1
        operands, sizes, calls, items, loads = list[Number](), list[Number](), list[Number](), list[Number](), list[Number]()
        owners, lies_in, splits, by_row = list[int](), list[int](), list[bool](), list[bool]()
        for i, item in enumerate(plan.items):
            inside, split = calls_of(item), _split(item)
            splits.append(split is not None)
            by_row.append(not isinstance(item, Loop) or item.rows is not None)
            items += [0, len(owners), len(inside), *_turns(item), 0 if split is None else split, _grain(item), 0, 1, 1, 1]
            for k, c in enumerate(inside):
                begins, meets = (not k or _meets(inside, k - 1)), _meets(inside, k)
                calls += [kernels[c.family, *c.key], len(lies_in), len(c.operands), len(sizes), 0, c.extent, c.grain,
                          int(meets), int(begins)]
                loads += [c.flops, READING if c.family == "matvec" else 1]
                owners.append(i)
                for v, s in zip(c.operands, c.splits, strict=True):
                    size = v.dtype.itemsize
                    operands += [self.slots.get(v.buffer, ARENA), v.offset * size, v.step * size, s * size]
                    lies_in.append(number.get(v.buffer, -1))
                sizes += c.sizes
        parts = operands, [*sizes, 0], calls, items, loads, [b.bytes for b in alive]
        self.ends = list(accumulate(len(part) for part in parts))[:-1]
        self.numbers = SizeVector([n for part in parts for n in part], symbols)
        self.owners, self.lies_in = np.array(owners, np.int64), np.array(lies_in, np.int64)
        self.split, self.by_row = np.array(splits, bool), np.array(by_row, bool)
        self.room = max((len(c.operands) for c in plan.calls()), default=0) + 1

    def at(self, values: Mapping[str, int], gap: int = 0) -> Tables:
        """The tables for given values of the symbols."""
        return Tables(self, np.split(self.numbers.at(values), self.ends), gap)


class Tables:
    """Items, calls and operands as numbers: `shared` says whether a run is worth several threads, `long` whether it is worth
    waking them, `cycles` about how long it takes one; `offsets` are those of the temporaries, which take so many `bytes`
    together."""

    def __init__(self, layout: TableLayout, parts: Sequence[npt.NDArray[np.int64]], gap: int) -> None:
        operands, self.sizes, calls, items, loads, sizes = parts
        self.operands, self.calls, self.items = operands.reshape(-1, OPERAND), calls.reshape(-1, CALL), items.reshape(-1, ITEM)
        self.slots, self.bases, self.room = layout.slots, layout.bases, layout.room
        self.offsets, self.bytes = arrangement.placed(sizes.tolist(), layout.alive, gap)
        self.operands[:, 1] += np.array([*self.offsets, 0], np.int64)[layout.lies_in]
        self.calls[:, 1] = address(self.operands) + 8 * OPERAND * self.calls[:, 1]
        self.calls[:, 3] = address(self.sizes) + 8 * self.calls[:, 3]
        self.items[:, 1] = address(self.calls) + 8 * CALL * self.items[:, 1]
        self._share(layout, loads.reshape(-1, 2))

    def _share(self, layout: TableLayout, loads: npt.NDArray[np.int64]) -> None:
        """What is shared out, and how."""
        owners, count = layout.owners, len(self.items)
        flops, extent, grain = loads[:, 0], self.calls[:, 5], self.calls[:, 6]
        shared_out = (grain > 0) & (extent > grain) & (flops >= WIDE)
        wide = (np.bincount(owners, shared_out, count) > 0) & ~layout.by_row
        turn = np.bincount(owners, flops, count)  # exact: far below 2**53
        work = np.bincount(owners, flops * loads[:, 1], count) * self.items[:, 3]
        split = np.where(layout.split, self.items[:, 5], 0)
        self.calls[:, 4] = np.where(split[owners] != 0, -1, extent)
        self.items[:, 0], self.items[:, 5] = wide, np.maximum(split, 1)
        self.items[:, 7] = ((work >= WORTHWHILE) & (split > 1)) | wide
        self.items[:, 9] = np.maximum(PATIENCE // np.maximum(turn, 1), 1)
        common = work[self.items[:, 7] != 0].sum()
        self.cycles = int(work.sum()) // OPERATIONS
        self.shared, self.long = bool(common >= ENOUGH), bool(common >= LONG)
        alone = self.items[:, 7] == 0
        together = alone[:-1] & alone[1:]
        if layout.prepared:
            together[layout.prepared - 1 : layout.prepared] = False  # a run begins behind what is prepared
        self.items[:-1, 8] = self.items[1:, 10] = ~together


def calls_of(item: Call | Loop) -> list[Call]:
    return [item] if isinstance(item, Call) else item.calls


def _meets(calls: Sequence[Call], k: int) -> bool:
    """Whether threads meet after a call: not where it and the next one are one thread's."""
    return bool(calls[k].grain) or k + 1 == len(calls) or bool(calls[k + 1].grain)


def _turns(item: Call | Loop) -> tuple[int, int]:
    return (item.steps, int(item.reverse)) if isinstance(item, Loop) else (1, 0)


def _split(item: Call | Loop) -> int | None:
    """The extent along which an item may be shared out."""
    if isinstance(item, Loop):
        return item.rows
    return item.extent if item.grain else None


def _grain(item: Call | Loop) -> int:
    return item.grain if isinstance(item, Call) and item.grain else 1
