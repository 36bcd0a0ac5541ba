"""Which boxes of a model there are at every step of which sequence, and which of them once."""

from __future__ import annotations

from collections.abc import Iterator

from .wiring import ALL, BEGINS, EACH, ENDS, LAST, LayerBox, Wiring


class Timing:
    """The boxes of a model in time: `each` has those that stand at every step, `bars` those that span all steps."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring, self.boxes = wiring, wiring.boxes
        self.sequence: dict[str, int] = {}
        count = 0
        for k, b in self.boxes.items():
            if (b.follows or b.reads) and not self._begins_anew(k):
                self.sequence[k] = max(self.sequence[r] for r in ([b.follows] if b.follows else b.reads))
            else:
                self.sequence[k], count = count, count + 1
        self.readers: dict[str, list[str]] = {k: [] for k in self.boxes}
        for k, b in self.boxes.items():
            for r in b.reads:
                self.readers[r].append(k)
        begins = [k for k, b in self.boxes.items() if b.time == BEGINS and not self._begins_anew(k)]
        self.before = {a for k in begins for a in self._before(k)}
        self.gives: dict[str, bool] = {}  # whether its output has a value at every step
        for k, b in self.boxes.items():
            self.gives[k] = k not in self.before and self._gives_steps(b)
        self.bars = [k for k, b in self.boxes.items() if b.time in (ALL, BEGINS)]
        self.each = [k for k, b in self.boxes.items() if b.time == EACH and self.gives[k]]
        self.once = [k for k in self.boxes if k not in self.each and k not in self.bars]
        self.memories = [a for a in self.each if any(self._looks(a, b) for b in self.readers[a])]
        self.joints = [k for k in self.once if self.readers[k]  # what stands between two sequences
                       and all(self.sequence[r] != self.sequence[k] for r in self.readers[k])]
        self.count = max(self.sequence.values()) + 1

    def _begins_anew(self, k: str) -> bool:
        """Whether a sequence begins here after another one has been read."""
        before = [self.boxes[a] for a in self._before(k)] if self.boxes[k].time == BEGINS else []
        return any(b.direction or b.time != EACH for b in before)

    def _before(self, k: str) -> Iterator[str]:
        """What stands before a sequence begins."""
        stack = list(self.boxes[k].reads)
        while stack:
            k = stack.pop()
            yield k
            stack += self.boxes[k].reads

    def _gives_steps(self, b: LayerBox) -> bool:
        if b.time in (LAST, ENDS):
            return False
        if b.time == ALL:
            return b.layer is None or not b.layer.ends_time
        return b.time == BEGINS or not b.reads or any(self.gives[r] and not self.boxes[r].ended for r in b.reads)

    def _looks(self, a: str, b: str) -> bool:
        """Whether a box reads all steps of another sequence."""
        return b in self.each and self.sequence[a] != self.sequence[b]

    def edges(self) -> Iterator[tuple[str, str]]:
        """What is read, and by what."""
        return ((a, b) for b, box in self.boxes.items() for a in box.reads)

    def rows(self, sequence: int) -> list[str]:
        """The boxes of a sequence from bottom to top."""
        return [k for k in self.boxes if self.sequence[k] == sequence and k not in self.joints]

    def starts(self, k: str) -> str | None:
        """The box from which a recurrent layer has its first state."""
        return next((r for r in self.boxes[k].reads if r in self.joints), None)

    @property
    def output(self) -> str:
        return list(self.boxes)[-1]

    @property
    def stepping(self) -> list[int]:
        """The sequences that have steps."""
        return [s for s in range(self.count) if any(self.sequence[k] == s for k in (*self.each, *self.bars))]

    @property
    def fed(self) -> str | None:
        """The input that the output becomes at the next step, where there is one."""
        last = self.sequence[self.output]
        return next((k for k, b in self.boxes.items() if b.symbol and not b.reads and self.sequence[k] == last), None)
