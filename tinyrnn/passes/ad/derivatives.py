"""Derivatives of nodes with respect to nodes, in both directions and of any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from ...errors import DTypeError, GradientError
from ...ir.node import Node
from ...ir.ops.elementwise import add_n
from ...ir.ops.leaves import constant, full, zeros_like
from ...ir.ops.linear import reshape, sum_
from ...ir.ops.structure import stack
from ...shapes import show
from . import control  # noqa: F401  (fills the table of control rules)
from .adjoint import backward
from .tangent import forward


def grad(y: Node, wrt: Sequence[Node]) -> list[Node]:
    """`dy/dw` for a scalar y; zeros where y does not depend on w."""
    if y.shape:
        raise GradientError(f"grad needs a scalar, got shape {show(y.shape)}; take .sum() or .mean(), or use jacobian")
    for w in (y, *wrt):
        if not w.floating:
            raise DTypeError(f"no derivative with respect to {w.dtype} numbers; use x.astype('float64')")
    found = backward({y: full(1, (), y.dtype)}, wrt)
    return [found.get(w, zeros_like(w)) for w in wrt]


def vjp(outputs: Sequence[Node], adjoints: Sequence[Node], wrt: Sequence[Node]) -> list[Node]:
    """`Σ_i adjoints[i] · d outputs[i] / dw` for every w; zeros where nothing depends on w."""
    parts: dict[Node, list[Node]] = {}
    for y, g in zip(outputs, adjoints, strict=True):
        if y.floating:
            parts.setdefault(y, []).append(g)
    found = backward({y: add_n(g) for y, g in parts.items()}, wrt)
    return [found.get(w, zeros_like(w)) for w in wrt]


def jvp(outputs: Sequence[Node], tangents: Mapping[Node, Node]) -> list[Node]:
    """The derivative of every output along the given tangents."""
    for at, tangent in tangents.items():
        if at.shape != tangent.shape:
            raise GradientError(f"the tangent of a {show(at.shape)} tensor has shape {show(tangent.shape)}; "
                                "they must be equal")
    return forward(outputs, tangents)


def jacobian(v: Node, x: Node) -> Node:
    """`J[i..., j...] = dv[i...]/dx[j...]`, one reverse sweep for every entry of v."""
    n = prod(v.shape)
    if not n:
        return full(0, v.shape + x.shape, x.dtype)
    rows = []
    for seed in np.eye(n, dtype=v.dtype):
        rows += grad(sum_(v * constant(seed.reshape(v.shape))), [x])
    return reshape(stack(rows), v.shape + x.shape)


def hessian(y: Node, x: Node) -> Node:
    """`H[i..., j...] = d²y/dx[i...]dx[j...]` of a scalar y."""
    return jacobian(grad(y, [x])[0], x)
