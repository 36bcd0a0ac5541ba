"""Small graphs that hold every op of the catalogue: the axioms compare their gradients with SymPy's, and proofs of passes run
them forward and backward, rolled and unrolled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import signature

import numpy as np

from ...errors import ProofError
from ...ir.graph import Graph
from ...ir.node import Bits, Node, apply
from ...ir.op import CATALOGUE, Op
from ...ir.ops import elementwise as e
from ...ir.ops import leaves, linear, reduce, structure
from ...ir.ops.leaves import constant, input_name, input_node
from ...ir.ops.linear import sum_
from ...ir.ops.random import random_bits
from ...ir.scan import region, scan
from ...passes.ad.derivatives import grad
from ...passes.unroll import unroll
from ...shapes import Shape

Example = tuple[Callable[..., Node], dict[str, Shape]]
_INDEX = constant(np.array([[2, 0], [1, 1]]))
_PICKED = constant(np.array([1, 0]))
_CHOICE = constant(np.array([True, False, True]))
_X: dict[str, Shape] = {"x": (3,)}
_AB: dict[str, Shape] = {"a": (3,), "b": (3,)}
_M: dict[str, Shape] = {"x": (2, 3)}


def _loop(s: Node, x: Node) -> Node:
    finals, traces = scan(lambda a, b: ([a[0] * b[0] + s], [a[0] * a[0]]), [s], [x])
    return finals[0] + sum_(traces[0], 0)


# Every op that has a gradient, by its name; signs of the inputs alternate, so that both sides of a branch are met.
EXAMPLES: dict[str, Example] = {
    "add": (e.add, {"a": (2, 3), "b": (3,)}), "sub": (e.sub, _AB), "mul": (e.mul, _AB), "div": (e.div, _AB),
    "neg": (e.neg, _X), "scale": (e.scale, _AB), "power": (lambda a, b: e.power(a, b), _AB),
    "powk": (lambda x: e.power(x, 3) + e.power(x, -2) + e.power(x, 0.5), {"p": (2,)}),
    "exp": (e.exp, _X), "expm1": (e.expm1, _X), "log": (e.log, {"p": (2,)}), "log1p": (e.log1p, {"p": (2,)}),
    "log_or_zero": (e.log_or_zero, {"p": (2,)}),
    "sqrt": (e.sqrt, {"p": (2,)}), "sin": (e.sin, _X), "cos": (e.cos, _X), "tanh": (e.tanh, _X),
    "sigmoid": (e.sigmoid, _X), "softplus": (e.softplus, _X), "where": (lambda a, b: e.where(_CHOICE, a, b), _AB),
    "abs": (e.abs_, _X), "relu": (e.relu, _X), "maximum": (e.maximum, _AB), "minimum": (e.minimum, _AB),
    "clip": (lambda x: e.clip(x, Bits(-0.7), Bits(0.4)), _X), "astype": (lambda x: e.astype(e.astype(x, "f4"), "f8"), _X),
    "add_n": (lambda a, b: e.add_n([a, b, a * b]), _AB), "tag": (lambda x: e.tag(x, "name"), _X),
    "reshape": (lambda x: linear.reshape(x, (3, 2)), _M), "transpose": (linear.transpose, _M),
    "broadcast_to": (lambda x: linear.broadcast_to(x, (2, 3)), _X), "sum": (lambda x: sum_(x, 1, True), _M),
    "accumulate": (lambda a, b: linear.add_onto(a, b, True), _AB),
    "matmul": (linear.matmul, {"a": (2, 3), "b": (3, 2)}),
    "einsum": (lambda a, b: linear.einsum("ij,jk->ki", a, b), {"a": (2, 3), "b": (3, 2)}),
    "slice": (lambda x: x[1:, ::-2], _M), "place": (lambda x: structure.pad(x, [(1, 0)]), _X),
    "take": (lambda x: structure.take(x, 1), _M), "put": (lambda x: structure.put(x, 1, 3), _X),
    "concat": (lambda a, b: structure.concat([a, b, a], 0), {"a": (1,), "b": (2,)}),
    "stack": (lambda a, b: structure.stack([a, b]), _AB), "gather": (lambda x: structure.gather(x, _INDEX), _X),
    "scatter_add": (lambda x: structure.scatter_add(x, _INDEX, 3), {"x": (2, 2)}),
    "pick": (lambda x: structure.pick(x, _PICKED), _M), "cumsum": (lambda x: structure.cumsum(x, 1), _M),
    "amax": (lambda x: reduce.amax(x, 1), _M), "amin": (lambda x: reduce.amin(x, 1), _M),
    "scan": (_loop, {"s": (2,), "x": (2, 2)}), "final": (_loop, {"s": (2,), "x": (2, 2)}),
    "trace": (_loop, {"s": (2,), "x": (2, 2)}), "region": (lambda a, b: region(lambda v: [v[0] * v[1]], [a, b])[0], _AB),
    "item": (lambda a, b: region(lambda v: [v[0] * v[1]], [a, b])[0], _AB)}


Sources = Mapping[str, tuple[Shape, str]]


def _floats(shapes: Mapping[str, Shape]) -> dict[str, tuple[Shape, str]]:
    return {k: (s, "float64") for k, s in shapes.items()}


_BOOLS: Sources = {"c": ((3,), "bool"), "d": ((3,), "bool")}

# Ops without a gradient, and lookups whose index is an input.
OTHERS: dict[str, tuple[Callable[..., Node], Sources]] = {
    "less": (e.less, _floats(_AB)), "less_equal": (e.less_equal, _floats(_AB)),
    "equal": (e.equal, {"i": ((4,), "int64"), "j": ((4,), "int64")}),
    "not_equal": (e.not_equal, {"i": ((4,), "int64"), "j": ((4,), "int64")}),
    "both": (e.both, _BOOLS), "either": (e.either, _BOOLS), "negate": (e.negate, {"c": ((3,), "bool")}),
    "sign": (e.sign, _floats(_X)), "stop_gradient": (lambda x: x * e.stop_gradient(x), _floats(_X)),
    "argmax": (lambda x: reduce.argmax(x, 1), _floats(_M)),
    "one_hot": (lambda x, i: structure.one_hot(i, 4) * x, {"x": ((4,), "float64"), "i": ((3,), "int64")}),
    "random_bits": (lambda k: random_bits(k, 3, (2, 3)), {"k": ((2,), "uint32")}),
    "full": (lambda x: x * leaves.full(2.5, (3,), np.float64), _floats(_X)),
    "literal": (lambda x: x * constant(np.array([1.5, -2.0, 0.25])), _floats(_X)),
    "iota": (lambda x: x * leaves.iota(3, np.float64), _floats(_X)),
    "leaf": (lambda x: x * leaves.leaf(np.array([1.0, 2.0, 3.0]), "example"), _floats(_X)),
    "input": (lambda x: x, _floats(_X)),
    "where": (lambda c, a, b: e.where(c, a, b), {"c": ((3,), "bool"), **_floats(_AB)}),
    "gather": (structure.gather, {"x": ((5, 2), "float64"), "i": ((3,), "int64")}),
    "scatter_add": (lambda x, i: structure.scatter_add(x, i, 4), {"x": ((3, 2), "float64"), "i": ((3,), "int64")}),
    "pick": (structure.pick, {"x": ((3, 4), "float64"), "i": ((3,), "int64")}),
    "astype": (lambda x, i: e.astype(x, "i8") * i, {"x": ((3,), "float64"), "i": ((3,), "int64")})}


# The same ops on other ranks, axes, attributes and numbers of operands: a pass may treat each in its own way.
_3D = {"x": (2, 3, 2)}
FORMS: dict[str, tuple[Callable[..., Node], Sources]] = {
    "matmul of stacks": (linear.matmul, _floats({"a": (2, 2, 3), "b": (2, 3, 2)})),
    "matmul of a stack and a matrix": (linear.matmul, _floats({"a": (2, 2, 3), "b": (3, 2)})),
    "matmul of a row": (linear.matmul, _floats({"a": (1, 3), "b": (3, 2)})),
    "transpose of a stack": (lambda x: linear.transpose(x, (2, 0, 1)), _floats(_3D)),
    "transpose of four axes": (lambda x: linear.transpose(x, (3, 1, 0, 2)), _floats({"x": (2, 1, 3, 2)})),
    "einsum of one": (lambda x: linear.einsum("ij->j", x), _floats(_M)),
    "einsum of three": (lambda a, b, c: linear.einsum("i,ij,j->ij", a, b, c), _floats({"a": (2,), "b": (2, 3), "c": (3,)})),
    "sum over two axes": (lambda x: sum_(x, (0, 2), True), _floats(_3D)), "sum of all": (sum_, _floats(_3D)),
    "sum over the first axis": (lambda x: sum_(x, 0), _floats(_M)),
    "cumsum of rows": (lambda x: structure.cumsum(x, 0), _floats(_M)),
    "amax over the first axis": (lambda x: reduce.amax(x, 0), _floats(_M)),
    "amax that keeps its axis": (lambda x: reduce.amax(x, 1, True), _floats(_M)),
    "amin over two axes": (lambda x: reduce.amin(x, (0, 1)), _floats(_M)),
    "amin of a stack": (lambda x: reduce.amin(x, 2), _floats(_3D)),
    "argmax of columns": (lambda x: reduce.argmax(x, 0), _floats(_M)),
    "argmax of whole numbers": (lambda i: reduce.argmax(i, 0), {"i": ((4,), "int64")}),
    "powk of 2": (lambda x: e.power(x, 2), _floats(_X)), "powk of 4": (lambda x: e.power(x, 4), _floats(_X)),
    "powk of -1": (lambda x: e.power(x, -1), _floats(_X)), "powk of 1.3": (lambda p: e.power(p, 1.3), _floats({"p": (2,)})),
    "slice by twos": (lambda x: x[::2], _floats({"x": (5,)})), "slice backwards": (lambda x: x[::-1], _floats(_X)),
    "slice of a column": (lambda x: x[:, 1:2], _floats(_M)),
    "concat of columns": (lambda a, b: structure.concat([a, b], 1), _floats({"a": (2, 1), "b": (2, 2)})),
    "concat of three": (lambda a, b: structure.concat([a, b, a], 2), _floats({"a": (1, 2, 2), "b": (1, 2, 1)})),
    "stack of columns": (lambda a, b: structure.stack([a, b], 1), _floats(_AB)),
    "gather of one row": (structure.gather, {"x": ((5, 2), "float64"), "i": ((), "int64")}),
    "gather of rows by a table": (structure.gather, {"x": ((4, 2), "float64"), "i": ((2, 2), "int64")}),
    "gather of matrices": (structure.gather, {"x": ((4, 2, 2), "float64"), "i": ((3,), "int64")}),
    "gather of numbers": (structure.gather, {"x": ((4,), "float64"), "i": ((3,), "int64")}),
    "pick of a stack": (structure.pick, {"x": ((2, 3, 4), "float64"), "i": ((2, 3), "int64")}),
    "one_hot of a table": (lambda i: structure.one_hot(i, 4), {"i": ((2, 3), "int64")}),
    "scatter_add of numbers": (lambda x, i: structure.scatter_add(x, i, 4), {"x": ((3,), "float64"), "i": ((3,), "int64")}),
    "where of one condition": (lambda c, a, b: e.where(c, a, b), {"c": ((), "bool"), **_floats(_AB)}),
    "where that spreads": (lambda c, a, b: e.where(c, a, b), {"c": ((2, 1), "bool"), **_floats({"a": (2, 3), "b": (3,)})}),
    "add_n of five": (lambda a, b: e.add_n([a, b, a * b, a - b, a * a]), _floats(_AB)),
    "clip from below": (lambda x: e.clip(x, Bits(-0.5), Bits(np.inf)), _floats(_X)),
    "clip from above": (lambda x: e.clip(x, Bits(-np.inf), Bits(0.5)), _floats(_X)),
    "div by a number": (lambda x: x / 3.0, _floats(_X)), "div of a number": (lambda x: 2.0 / x, _floats(_X)),
    "mul by a number": (lambda x: x * 0.5, _floats(_M)),
    "reshape to one axis": (lambda x: linear.reshape(x, (6,)), _floats(_M)),
    "broadcast of one number": (lambda x: linear.broadcast_to(x, (2, 3)), _floats({"x": ()})),
    "broadcast of a column": (lambda x: linear.broadcast_to(x, (2, 3)), _floats({"x": (2, 1)})),
    "astype of whole numbers": (lambda i: e.astype(i, "f8"), {"i": ((3,), "int64")}),
    "astype of bools": (lambda c: e.astype(c, "f8"), {"c": ((3,), "bool")}),
    "sums of whole numbers": (lambda i, j: i + j, {"i": ((3,), "int64"), "j": ((3,), "int64")}),
    "products of whole numbers": (lambda i, j: i * j, {"i": ((3,), "int64"), "j": ((3,), "int64")}),
    "less of whole numbers": (e.less, {"i": ((3,), "int64"), "j": ((3,), "int64")})}
_SHAPES: dict[str, tuple[Shape, ...]] = {
    "one number": ((), ()), "rows and a row": ((2, 3), (3,)), "a stack and a column": ((2, 3, 2), (3, 1)),
    "four axes": ((2, 1, 2, 1),) * 2}


def _entrywise() -> Iterator[tuple[str, Callable[..., Node], Sources]]:
    """Every elementwise op of one or two floats on other shapes, and in single precision."""
    for name, (build, shapes) in EXAMPLES.items():
        if not CATALOGUE[name].entrywise or name in ("tag", "add_n", "where"):
            continue
        for what, kinds in _SHAPES.items():
            yield f"{name} of {what}", build, _floats(dict(zip(shapes, kinds, strict=False)))
        if name != "astype":
            yield f"{name} in single precision", build, {k: (s, "float32") for k, s in shapes.items()}


def graphs_of_ops() -> Iterator[tuple[str, Graph]]:
    """Every op of the catalogue as y = f(inputs) with gradients, inside a scan, and in that scan unrolled."""
    added = {op.name: own_example(op) for op in CATALOGUE.values()
             if op.kind not in ("leaf", "control") and op.name not in {**EXAMPLES, **OTHERS}}
    known: list[tuple[str, Callable[..., Node], Sources]] = [
        *((name, build, _floats(shapes)) for name, (build, shapes) in {**EXAMPLES, **added}.items()),
        *((f"{name} of data", build, sources) for name, (build, sources) in OTHERS.items()),
        *((name, build, sources) for name, (build, sources) in FORMS.items()), *_entrywise()]
    for name, build, sources in known:
        inputs = [input_node(k, *spec) for k, spec in sources.items()]
        yield name, _with_gradients({"y": build(*inputs)}, inputs)
        rolled = _in_a_scan(build, sources)
        yield f"{name}, rolled", rolled
        yield f"{name}, unrolled", unroll(rolled)


def _in_a_scan(build: Callable[..., Node], sources: Sources) -> Graph:
    """s[t] = s[t-1] / 2 + Σ f(inputs[t]) (1 + s[t-1]), with the values of f and the states kept; every other one backwards."""
    def step(states: list[Node], slices: list[Node]) -> tuple[list[Node], list[Node]]:
        y = build(*slices)
        s = states[0]
        return [0.5 * s + sum_(e.astype(y, "f8")) * (1.0 + s)], [y, s]

    inputs = [input_node(k, (3, *shape), dtype) for k, (shape, dtype) in sources.items()]
    start = input_node("start", ())
    finals, traces = scan(step, [start], inputs, reverse=len(inputs) == 2)
    return _with_gradients({"s": finals[0], "y": traces[0], "before": traces[1]}, [start, *inputs])


def _with_gradients(outputs: dict[str, Node], inputs: list[Node]) -> Graph:
    """The outputs, and the gradients of a weighted sum of all that are floats."""
    terms = [sum_(input_node(f"weight of {k}", y.shape, y.dtype) * y) for k, y in outputs.items() if y.floating]
    wrt = [n for n in inputs if n.floating]
    found = grad(sum(terms[1:], start=terms[0]), wrt) if terms and wrt else []
    return Graph({**outputs, **{f"d{input_name(n)}": g for n, g in zip(wrt, found, strict=True)}} if found else outputs)


def own_example(op: Op) -> Example:
    """An op that someone added: elementwise ones of one or two operands need no example."""
    rule, before = (op.evaluate, 1) if op.evaluate else (op.vjp, 2)  # (domain, *operands) or (g, y, *operands)
    operands = len(signature(rule).parameters) - before if rule else 0
    if op.kind == "elementwise" and operands in (1, 2):
        return lambda *x: apply(op, x), (_X, _AB)[operands - 1]
    raise ProofError(f"the op {op.name!r} has a gradient but no example in tinyrnn.symbolic.proof.examples.EXAMPLES")


