"""`split_products`: a product with a joined operand becomes a sum of products, or a join of them.

    W [h, x] = W_h h + W_x x          dzᵀ [h, x] = [dzᵀ h, dzᵀ x]          (dz W)[:, part] = dz W[:, part]

so that the part with x can leave the loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph
from ..ir.node import Node, apply
from ..ir.ops.elementwise import add_n
from ..ir.ops.linear import MATMUL, TRANSPOSE, matmul, transpose
from ..ir.ops.structure import CONCAT, SLICE, axis_of, concat, parts_of, split_at
from .rewrite import everywhere, rewritten


def split_products(graph: Graph) -> Graph:
    """The same graph without products of joined operands."""
    return everywhere(graph, _split)


def _split(outputs: Sequence[Node]) -> list[Node]:
    return rewritten(outputs, _rule)


def _rule(n: Node) -> Node | None:
    if n.op is MATMUL and n.ndim == 2:
        a, b = n.src
        if a.op is CONCAT and axis_of(a) == 1:
            widths = [s.shape[1] for s in a.src]
            return add_n([matmul(s, w) for s, w in zip(a.src, _rows(b, widths), strict=True)])
        if b.op is CONCAT and axis_of(b) == 1:
            return concat([matmul(a, s) for s in b.src], 1)
    if n.op is SLICE and n.src[0].op is MATMUL and n.ndim == 2 and parts_of(n)[0] == (0, n.src[0].shape[0], 1):
        a, b = n.src[0].src
        return matmul(a, apply(SLICE, (b,), (((0, b.shape[0], 1), parts_of(n)[1]),)))
    return None


def _rows(b: Node, sizes: Sequence[int]) -> list[Node]:
    """The rows of a matrix in parts; those of a transpose are columns, which keeps weights recognisable."""
    if b.op is TRANSPOSE:
        return [transpose(s) for s in split_at(b.src[0], sizes, 1)]
    return split_at(b, sizes, 0)
