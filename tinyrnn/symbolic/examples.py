"""Small graphs that hold every op of the catalogue: the axioms compare their gradients with SymPy's, and proofs of passes run
them forward and backward, rolled and unrolled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ..errors import ProofError
from ..ir.graph import Graph
from ..ir.node import Bits, Node, apply
from ..ir.op import CATALOGUE, Op
from ..ir.ops import elementwise as e
from ..ir.ops import leaves, linear, reduce, structure
from ..ir.ops.leaves import constant, input_node
from ..ir.ops.linear import sum_
from ..ir.ops.random import random_bits
from ..ir.scan import region, scan
from ..passes.derivatives import grad
from ..passes.unroll import unroll
from ..shapes import Shape

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
    "sqrt": (e.sqrt, {"p": (2,)}), "sin": (e.sin, _X), "cos": (e.cos, _X), "tanh": (e.tanh, _X),
    "sigmoid": (e.sigmoid, _X), "softplus": (e.softplus, _X), "where": (lambda a, b: e.where(_CHOICE, a, b), _AB),
    "abs": (e.abs_, _X), "relu": (e.relu, _X), "maximum": (e.maximum, _AB), "minimum": (e.minimum, _AB),
    "clip": (lambda x: e.clip(x, Bits(-0.7), Bits(0.4)), _X), "astype": (lambda x: e.astype(e.astype(x, "f4"), "f8"), _X),
    "add_n": (lambda a, b: e.add_n([a, b, a * b]), _AB), "tag": (lambda x: e.tag(x, "name"), _X),
    "reshape": (lambda x: linear.reshape(x, (3, 2)), _M), "transpose": (linear.transpose, _M),
    "broadcast_to": (lambda x: linear.broadcast_to(x, (2, 3)), _X), "sum": (lambda x: sum_(x, 1, True), _M),
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


def graphs_of_ops() -> Iterator[tuple[str, Graph]]:
    """Every op of the catalogue as y = f(inputs) with gradients, inside a scan, and in that scan unrolled."""
    added = {op.name: own_example(op) for op in CATALOGUE.values()
             if op.kind not in ("leaf", "control") and op.name not in {**EXAMPLES, **OTHERS}}
    known: list[tuple[str, Callable[..., Node], Sources]] = [
        *((name, build, _floats(shapes)) for name, (build, shapes) in {**EXAMPLES, **added}.items()),
        *((f"{name} of data", build, sources) for name, (build, sources) in OTHERS.items())]
    for name, build, sources in known:
        inputs = [input_node(k, *spec) for k, spec in sources.items()]
        yield name, _with_gradients({"y": build(*inputs)}, inputs)
        rolled = _in_a_scan(build, sources)
        yield f"{name}, rolled", rolled
        yield f"{name}, unrolled", unroll(rolled)


def _in_a_scan(build: Callable[..., Node], sources: Sources) -> Graph:
    """s[t] = s[t-1] / 2 + Σ f(inputs[t]) (1 + s[t-1]), with the values of f and the states kept."""
    def step(states: list[Node], slices: list[Node]) -> tuple[list[Node], list[Node]]:
        y = build(*slices)
        s = states[0]
        return [0.5 * s + sum_(e.astype(y, "f8")) * (1.0 + s)], [y, s]

    inputs = [input_node(k, (3, *shape), dtype) for k, (shape, dtype) in sources.items()]
    start = input_node("start", ())
    finals, traces = scan(step, [start], inputs)
    return _with_gradients({"s": finals[0], "y": traces[0], "before": traces[1]}, [start, *inputs])


def _with_gradients(outputs: dict[str, Node], inputs: list[Node]) -> Graph:
    """The outputs, and the gradients of a weighted sum of all that are floats."""
    terms = [sum_(input_node(f"weight of {k}", y.shape, y.dtype) * y) for k, y in outputs.items() if y.floating]
    wrt = [n for n in inputs if n.floating]
    found = grad(sum(terms[1:], start=terms[0]), wrt) if terms and wrt else []
    return Graph({**outputs, **{f"d{n.at[0]}": g for n, g in zip(wrt, found, strict=True)}} if found else outputs)


def own_example(op: Op) -> Example:
    """An op that someone added: elementwise ones of one or two operands need no example."""
    for shapes in (_X, _AB) if op.kind == "elementwise" else ():
        try:
            op.infer(*(input_node(k, s) for k, s in shapes.items()))
        except TypeError:  # another number of operands
            continue
        return lambda *x: apply(op, x), shapes
    raise ProofError(f"the op {op.name!r} has a gradient but no example in tinyrnn.symbolic.examples.EXAMPLES")


