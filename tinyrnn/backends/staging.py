"""What the emitters of both processors do with a program over rows: its values in order, pass after pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..ir.op import CATALOGUE
from .codegen import CodeDomain, Number
from .plan.fused import FusedKernel, Instruction


class Staging:
    """The values of a program as numbers of emitted code."""

    def __init__(self, m: CodeDomain, program: FusedKernel) -> None:
        self.m, self.program, self.loads = m, program, len(program.loads)
        self.dtypes = [np.dtype(d) for d in (*(x.dtype for x in program.loads), *(s.dtype for s in program.stores))]
        self.accesses, self.stages, self.stored = program.accesses, program.stages, program.stored

    def apply(self, step: Instruction, sources: Sequence[Number]) -> Number:
        dtype = np.dtype(step.dtype)
        if step.op == "number":
            return self.m.constant(step.at[0], dtype)
        at = tuple(np.dtype(a) for a in step.at) if step.op == "astype" else step.at
        return self.m.cast(self.m.implementation(CATALOGUE[step.op])(*sources, *at), dtype)

    def value(self, k: int, memo: dict[int, Number], load: Callable[[int], Number]) -> Number:
        """Value k, computed once for each memo; sources come before users."""
        for i in self.program.needed(k, memo):
            if i < self.loads:
                memo[i] = load(i)
            else:
                step = self.program.steps[i - self.loads]
                memo[i] = self.apply(step, [memo[s] for s in step.sources])
        return memo[k]

    def row_steps(self, stage: int, known: dict[int, Number]) -> None:
        """What is one number for the whole row and follows from what is known by now."""
        for k, step in enumerate(self.program.steps, self.loads):
            if (step.level == "row" and not step.reduces and self.stages[k] == stage and k not in known
                    and all(s in known for s in step.sources)):
                known[k] = self.apply(step, [known[s] for s in step.sources])

    def reductions(self, stage: int) -> list[int]:
        """The values that a pass over j reduces to."""
        return [k for k, s in enumerate(self.program.steps, self.loads) if s.reduces and self.stages[k] == stage]

    def full_stores(self, stage: int) -> list[int]:
        """The stores of a pass over j."""
        return [i for i, s in enumerate(self.program.stores) if s.access != "r" and self.stored[i] == stage]
