"""Which backend runs a graph, and how: what a text such as `cuda:tf32` says."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import BackendError

NAMES = ("numpy", "cpu", "cuda")
PRECISIONS = ("tf32", "bf16")


class Backend(NamedTuple):
    """`numpy`, `cpu`, or `cuda`; on a GPU perhaps a launch at a time (`cuda:eager`), or products in fewer bits (`cuda:tf32`,
    `cuda:bf16`, `cuda:eager,tf32`)."""

    name: str
    eager: bool = False
    precision: str = ""

    @classmethod
    def of(cls, text: object) -> Backend:
        """What a text says; raises `BackendError` where it names none."""
        name, colon, options = text.partition(":") if isinstance(text, str) else ("", "", "")
        if name not in NAMES:
            raise BackendError(f"there is no backend {text!r}; there are {', '.join(NAMES)}")
        if name != "cuda" and colon:
            raise BackendError(f"there is no backend {text!r}: only 'cuda' takes options, as in 'cuda:tf32'")
        words = options.split(",") if options else []
        precisions = [w for w in words if w in PRECISIONS]
        if set(words) - {"eager", *precisions} or len(precisions) > 1 or len(set(words)) < len(words):
            raise BackendError(f"backend {text!r}: expected eager, tf32 or bf16 behind the colon (eager with one of the "
                               "others), as in 'cuda:tf32'")
        return cls(name, "eager" in words, "".join(precisions))

    def __str__(self) -> str:
        words = [w for w in ("eager" * self.eager, self.precision) if w]
        return self.name + ":" * bool(words) + ",".join(words)
