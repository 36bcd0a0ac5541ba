"""What every executable says about its plan."""

from __future__ import annotations

from .plan.pseudo import lines
from .plan.views import Call, Loop, Plan


class Planned:
    """A plan that can be run: its pseudo-code, its kernels, what they cost."""

    bytes: int  # of temporaries

    _plan: Plan

    @property
    def plan(self) -> Plan:
        """What runs, with numbers for all sizes."""
        return self._plan

    @property
    def source(self) -> str:
        """The plan as pseudo-code."""
        return self.plan.pseudo_code(lambda c: lines(c.key[0], c.operands, c.names))

    @property
    def kernels(self) -> list[tuple[str, int, int]]:
        """What every item does, its operations, and the bytes that it touches."""
        def touched(item: Call | Loop) -> int:
            return item.steps * sum(c.bytes for c in item.calls) if isinstance(item, Loop) else item.bytes

        return [(self._said(item), item.flops, touched(item)) for item in self.plan.items]

    def _said(self, item: Call | Loop) -> str:
        """An item in a line."""
        if isinstance(item, Loop):
            products = sum(c.family in ("product", "matvec", "batch", "tall", "gemm") for c in item.calls)
            return f"loop over time, {len(item.calls)} kernels, {products} of them products"
        return item.text or "; ".join(lines(item.key[0], item.operands, item.names)[-1:])

    @property
    def cost(self) -> tuple[int, int, int]:
        """Operations, bytes that kernels touch, bytes of temporaries."""
        return self.plan.flops, sum(touched for _, _, touched in self.kernels), self.bytes
