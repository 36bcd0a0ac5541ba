"""How the boxes of a model hang together: what layers say of themselves when a picture asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from ..analysis.subject import Model
from ..cells import Cell
from ..errors import ArgumentError
from ..tensor.tensor import Tensor

EACH, LAST, ALL, ENDS, BEGINS = "each", "last", "all", "ends", "begins"
"""What a box is in time: there at each step; once, after the last step; once, over all steps; once, from the last state of
every reading; once, where a sequence begins whose every step it gives."""


@dataclass
class LayerBox:
    """A part of a model: lines of text, the boxes that it reads, the colour of the theme that it has."""

    lines: list[str]
    reads: list[str]
    fill: str
    time: str = EACH
    direction: str = ""             # in which a recurrent layer reads: "forward" or "backward" in time
    states: tuple[str, ...] = ()    # of a recurrent layer, as it reads them: h[t-1]
    ended: bool = False             # whether only the last step that it reads goes on from here
    time_first: bool = False        # whether what it gives is [T, B, ...] whatever the model takes
    symbol: str = ""                # of an input, such as xₜ
    first: str = ""                 # what stands in its place at the first step
    follows: str = ""               # the box whose steps it has, where that does not follow from what it reads
    count: int | None = None        # how many steps begin here, where the model says so
    label: str = ""                 # what it is called where there is little room
    cell: int | None = None         # which of the cells of the model it runs
    layer: Wired | None = None
    affine: tuple[Tensor, Tensor | None] | None = None  # W and b, of W x + b
    part: str = ""                  # which recurrence of the layer

    def __post_init__(self) -> None:
        self.label = self.label or self.lines[0].rpartition(": ")[2]


class Wiring:
    """Boxes and what each reads."""

    def __init__(self) -> None:
        self.boxes: dict[str, LayerBox] = {}
        self.seen: dict[int, str] = {}
        self.queries: list[tuple[str, str]] = []    # a decoder's box and the attention that its last state queries
        self.opaque: list[tuple[str, list[str]]] = []  # modules whose wiring only their code knows

    def box(self, lines: Sequence[str], reads: Sequence[str], fill: str, **more: Any) -> str:
        """A box; `more` is what else `LayerBox` knows."""
        unknown = [r for r in ([reads] if isinstance(reads, str) else reads) if r not in self.boxes]
        if unknown or isinstance(reads, str):
            raise ArgumentError(f"wiring: {lines[0]} reads {reads!r}: expected a list of boxes, as box and add give them")
        key = f"m{len(self.boxes)}"
        self.boxes[key] = LayerBox(list(lines), list(reads), fill, **more)
        return key

    def add(self, m: Wired, name: str, reads: list[str]) -> list[str]:
        """A module that reads these boxes; the boxes from which its output comes."""
        if isinstance(reads, str):
            raise ArgumentError(f"wiring: {name} reads {reads!r}: expected a list of boxes, as box and add give them")
        before, first = self.seen.setdefault(id(m), name), len(self.boxes)
        ends = m.wiring(name, reads, self)
        if not isinstance(ends, list) or any(k not in self.boxes for k in ends):
            seen = ends if isinstance(ends, list) else type(ends).__name__
            raise ArgumentError(f"{type(m).__name__}.wiring gives {seen}: expected the list of the boxes from which its output "
                                "comes")
        for box in list(self.boxes.values())[first:]:
            box.layer = box.layer or m
            if before != name:
                box.lines[-1] = f"shared with {before or 'the model'}"
        return ends

    def recurrent(self, lines: Sequence[str], reads: Sequence[str], backward: bool, cell: Cell, label: str = "",
                  part: str = "") -> str:
        """The box of a layer whose state comes back to it; of a cell that remembers nothing it is a box as any other."""
        direction, states = "backward" if backward else "forward", tuple(f"{n}[t-{k}]" for n, k in cell.slots)
        return self.box(lines, reads, "gate", direction=direction if states else "", states=states,
                        label=f"{label} ←" if label and backward else label, part=part)

    def end(self, ends: Sequence[str]) -> None:
        """Only the last step that each direction reads goes on from here."""
        for key in ends:
            self.boxes[key].ended = bool(self.boxes[key].direction)
            self.boxes[key].time = ENDS if not self.boxes[key].direction else self.boxes[key].time

    def used(self) -> Wiring:
        """The same without boxes that nothing reads."""
        kept = Wiring()
        kept.queries, kept.opaque = self.queries, self.opaque
        read = {list(self.boxes)[-1], *(k for pair in self.queries for k in pair), *(k for k, _ in self.opaque)}
        for key, b in reversed(self.boxes.items()):
            if key in read:
                read |= {*b.reads, b.follows}
        kept.boxes = {key: b for key, b in self.boxes.items() if key in read}
        return kept

    def blocks(self) -> Wiring:
        """The same without layers that have no memory and join nothing: their readers read what they read."""
        kept, instead = Wiring(), dict[str, list[str]]()
        kept.queries, kept.opaque = self.queries, self.opaque
        for key, b in self.boxes.items():
            reads = list(dict.fromkeys(r for k in b.reads for r in instead.get(k, [k])))
            if b.fill == "function" and b.time == EACH:
                instead[key] = reads
            else:
                kept.boxes[key] = replace(b, reads=reads)
        return kept

    def plain(self, m: Wired, name: str, reads: list[str]) -> list[str]:
        """A layer that says nothing of its inside: one box, and a list of what is in it."""
        own = [(k, c) for k, c in m.named_modules() if c is not m]
        if not own:
            time = ALL if m.ends_time else EACH
            return [self.box([title_of(name, m), *_details(m), count_of(m)], reads, "function", time=time)]
        key = self.box([title_of(name, m), "wired in its own code", count_of(m)], reads, "loss", time=ALL)
        self.opaque.append((key, [f"{k}: {type(c).__name__}, {count_of(c)}" for k, c in own if not _inside(k, own)]))
        return [key]


def joined(a: str, b: str) -> str:
    return f"{a}.{b}" if a else b


def _inside(name: str, others: Sequence[tuple[str, Any]]) -> bool:
    return any(name.startswith(f"{other}.") for other, _ in others)


def title_of(name: str, m: object) -> str:
    return f"{name}: {type(m).__name__}" if name else type(m).__name__


def count_of(m: Wired) -> str:
    n = sum(t.size for t in m.parameters())
    return f"{n:,} parameter{'s' * (n != 1)}"


def _details(m: Wired) -> list[str]:
    """The options of a layer in a line."""
    options = {k: v for k, v in (m.config() or {}).items() if isinstance(v, (int, float, str)) and k not in ("dtype", "bias")}
    text = ", ".join(f"{k}={v}" for k, v in options.items() if v is not True and v != 0)
    return [text] if text else []


@runtime_checkable
class Wired(Model, Protocol):
    """A layer or a model that can be drawn."""

    def config(self) -> dict[str, Any] | None:
        """Its options."""

    def parameters(self) -> Iterable[Tensor]:
        """What is trained, each once."""

    @property
    def joint_inputs(self) -> tuple[str, ...]:
        """The names of several sequences that are one argument."""

    @property
    def ends_time(self) -> bool:
        """Whether its output has no time axis any more."""

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        """Its boxes: it reads `reads`, and its output comes from the boxes that are returned."""
