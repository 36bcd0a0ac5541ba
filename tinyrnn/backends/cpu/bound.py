"""An executable whose inputs and outputs have places of their own: a call moves no addresses and allocates nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from ...ir.ops.leaves import changes
from .memory import address, aligned
from .runtime import CpuExecutable, RunFrame

Array = npt.NDArray[Any]


class Bound:
    """`bound(threads)` reads the given inputs and the leaves as they are then, and fills the given outputs."""

    def __init__(self, executable: CpuExecutable, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        self.executable, self.frame = executable, RunFrame(executable)
        self._held, memory = [*inputs, *outputs], aligned(executable.room)
        self.frame.place_arena((memory, address(memory)))
        for slot, array in zip((*executable.inputs.values(), *executable.outputs.values()), self._held, strict=True):
            self.frame.at[slot] = address(array)
        self._when = -1

    def __call__(self, threads: int | None = None) -> None:
        if self._when != changes():
            leaves = self.executable.current()
            self.frame.load(leaves)
            self._when = leaves.when
        self.frame.run(threads)
