"""One step of a cell as nodes.  Every quantity of the text is one example's; the batch axis is added here.

    W @ v        on rows:  v Wᵀ, one product for the whole batch
    C[t] @ q[t]  a batched product
    s * v        one number per example meets a vector: [B] becomes [B, 1]
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..functions import FUNCTIONS
from ..ir.node import Node, promote
from ..ir.ops import elementwise as e
from ..ir.ops import reduce as r
from ..ir.ops.leaves import full
from ..ir.ops.linear import broadcast_to, matmul, outer, reshape, sum_, swap_last, transpose
from ..ir.ops.structure import concat
from .terms import Equation, Term


class Value(NamedTuple):
    """A node or a number, whether it has the batch axis, and its rank for one example."""

    node: Any
    batched: bool
    rank: int


ROW_FUNCTIONS: dict[str, Callable[[Node], Node]] = {"softmax": r.softmax, "layer_norm": r.layer_norm, "rms_norm": r.rms_norm}
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow,
    "<": e.less, "<=": e.less_equal, ">": lambda a, b: e.less(b, a), ">=": lambda a, b: e.less_equal(b, a)}


def mean(x: Node, batched: bool = True) -> Node:
    """Of all entries of each example."""
    axes = _own_axes(x, batched)
    result: Node = sum_(x, axes) / prod(x.shape[i] for i in axes)
    return result


def _own_axes(x: Node, batched: bool) -> range:
    return range(int(batched), x.ndim)


class Step:
    """The equations of a cell applied to nodes: `env` holds every signal at every lag."""

    def __init__(self, order: Sequence[Equation], signals: Mapping[tuple[str, int], Node], parameters: Mapping[str, Node],
                 constants: Mapping[str, float], ranks: Mapping[tuple[str, str], int],
                 name: Callable[[str, Node], Node]) -> None:
        nodes = [*signals.values(), *parameters.values()]
        self.batch = next(iter(signals.values())).shape[0]
        self.dtype = promote(*(n.dtype for n in nodes)) if nodes else np.dtype(np.float64)
        self.constants, self.ranks = constants, ranks
        self.parameters = parameters
        self.env: dict[tuple[str, int], Node] = dict(signals)
        for equation in order:
            value = self._of(equation.term)
            self.env[equation.name, 0] = name(equation.name, self._whole(value, self.ranks["signal", equation.name]))

    def _whole(self, v: Value, rank: int) -> Node:
        """A value with its batch axis and its rank, whatever it was computed from."""
        node = self._node(v)
        if v.rank < rank:
            raise AssertionError(f"rank {v.rank} where {rank} was inferred")
        return node if v.batched else broadcast_to(node, (self.batch, *node.shape))

    def _node(self, v: Value) -> Node:
        return v.node if isinstance(v.node, Node) else full(v.node, (), self.dtype)

    def _of(self, term: Term) -> Value:
        match term.kind:
            case "number":
                return Value(term.value, False, 0)
            case "signal":
                return Value(self.env[term.value], True, self.ranks["signal", term.value[0]])
            case "size":
                return Value(float(prod(self.env_any(term.value).shape[1:])), False, 0)
            case "parameter" if term.value in self.constants:
                return Value(self.constants[term.value], False, 0)
            case "parameter":
                return Value(self.parameters[term.value], False, self.ranks["parameter", term.value])
            case "transpose":
                return Value(transpose(self.parameters[term.value]), False, 2)
            case "negate":
                v = self._of(term.args[0])
                return v._replace(node=-v.node)
            case "join":
                return self._join([self._of(a) for a in term.args])
            case "binary" if term.value == "@":
                return self._product(*(self._of(a) for a in term.args))
            case "binary" | "compare":
                return self._together(_OPERATORS[term.value], [self._of(a) for a in term.args])
        return self._call(term.value, [self._of(a) for a in term.args])

    def env_any(self, name: str) -> Node:
        """A signal at whatever lag is at hand (they all have one shape)."""
        return next(n for (other, _), n in self.env.items() if other == name)

    def _call(self, name: str, args: list[Value]) -> Value:
        if name in FUNCTIONS and len(args) == 1:
            return args[0]._replace(node=FUNCTIONS[name].build(self._node(args[0])))
        if name in FUNCTIONS:
            return self._together(FUNCTIONS[name].build, args)
        if name in ROW_FUNCTIONS:
            return args[0]._replace(node=ROW_FUNCTIONS[name](self._node(args[0])))
        if name == "clip":
            return args[0]._replace(node=r.clip(self._node(args[0]), float(args[1].node), float(args[2].node)))
        if name in ("sum", "mean"):
            return self._reduce(name, args[0])
        if name == "outer":
            a, b = args
            return Value(outer(self._node(a), self._node(b)), a.batched or b.batched, 2)
        return self._together(lambda c, a, b: e.where(c, *self._pair(a, b)), args)

    def _pair(self, a: Any, b: Any) -> tuple[Any, Any]:
        both_numbers = not isinstance(a, Node) and not isinstance(b, Node)
        return (full(a, (), self.dtype), b) if both_numbers else (a, b)

    def _reduce(self, name: str, v: Value) -> Value:
        node = self._node(v)
        return Value(mean(node, v.batched) if name == "mean" else sum_(node, _own_axes(node, v.batched)), v.batched, 0)

    def _together(self, f: Callable[..., Any], args: list[Value]) -> Value:
        """An elementwise function: ranks are made equal by size-1 axes after the batch axis."""
        rank = max(a.rank for a in args)
        nodes = [self._widened(a, rank) for a in args]
        if not any(isinstance(n, Node) for n in nodes):
            nodes[0] = full(nodes[0], (), self.dtype)
        return Value(f(*nodes), any(a.batched for a in args), rank)

    def _widened(self, v: Value, rank: int) -> Any:
        if v.batched and v.rank == 0 and rank:
            return reshape(v.node, (v.node.shape[0], *(1,) * rank))
        return v.node

    def _join(self, parts: list[Value]) -> Value:
        batched = any(p.batched for p in parts)
        nodes = []
        for p in parts:
            node = self._node(p)
            if p.rank == 0:
                node = reshape(node, (*node.shape, 1))
            if batched and not p.batched:
                node = broadcast_to(node, (self.batch, *node.shape))
            nodes.append(node)
        return Value(concat(nodes, -1), batched, 1)

    def _product(self, a: Value, b: Value) -> Value:
        batched = a.batched or b.batched
        if (a.rank, b.rank) == (2, 1):
            if not a.batched:
                return Value(matmul(b.node, swap_last(a.node)), batched, 1)
            return Value(self._squeeze(matmul(a.node, reshape(b.node, (*b.node.shape, 1))), -1), batched, 1)
        if (a.rank, b.rank) == (1, 2):
            row = reshape(a.node, (*a.node.shape[:-1], 1, a.node.shape[-1]))
            return Value(self._squeeze(matmul(row, b.node), -2), batched, 1)
        if (a.rank, b.rank) == (1, 1):
            return Value(sum_(a.node * b.node, -1), batched, 0)
        return Value(matmul(a.node, b.node), batched, 2)

    def _squeeze(self, x: Node, axis: int) -> Node:
        k = axis % x.ndim
        return reshape(x, x.shape[:k] + x.shape[k + 1 :])
