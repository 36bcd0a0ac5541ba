"""How the boxes of a model hang together: what layers say of themselves when a picture asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from ..analysis.subject import Model
from ..errors import ArgumentError
from ..tensor.tensor import Tensor


class Wiring:
    """Boxes and what each reads."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}
        self.reads: dict[str, list[str]] = {}
        self.fill: dict[str, str] = {}  # the colour of the theme that a box has
        self.time_direction: dict[str, str] = {}  # recurrent box -> "forward" or "backward" in time
        self.seen: dict[int, str] = {}
        self.queries: list[tuple[str, str]] = []    # a decoder's box and the attention that its last state queries
        self.opaque: list[tuple[str, list[str]]] = []  # modules whose wiring only their code knows

    def box(self, lines: Sequence[str], reads: Sequence[str], fill: str) -> str:
        key = f"m{len(self.lines)}"
        self.lines[key], self.reads[key], self.fill[key] = list(lines), list(reads), fill
        return key

    def add(self, m: Wired, name: str, reads: list[str]) -> list[str]:
        """A module that reads these boxes; the boxes from which its output comes."""
        before, first = self.seen.setdefault(id(m), name), len(self.lines)
        ends = m.wiring(name, reads, self)
        if not isinstance(ends, list):
            raise ArgumentError(f"{type(m).__name__}.wiring gives {type(ends).__name__}: expected the list of the boxes from "
                                "which its output comes")
        if before != name:
            for key in list(self.lines)[first:]:
                self.lines[key][-1] = f"shared with {before or 'the model'}"
        return ends

    def recurrent(self, lines: Sequence[str], reads: Sequence[str], backward: bool) -> str:
        """The box of a layer whose state comes back to it."""
        key = self.box(lines, reads, "gate")
        self.time_direction[key] = "backward" if backward else "forward"
        return key

    def plain(self, m: Wired, name: str, reads: list[str]) -> list[str]:
        """A layer that says nothing of its inside: one box, and a list of what is in it."""
        own = [(k, c) for k, c in m.named_modules() if c is not m]
        if not own:
            return [self.box([title_of(name, m), *_details(m), count_of(m)], reads, "function")]
        key = self.box([title_of(name, m), "wired in its own code", count_of(m)], reads, "loss")
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

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        """Its boxes: it reads `reads`, and its output comes from the boxes that are returned."""
