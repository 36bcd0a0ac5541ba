"""Functions whose gradient is given by hand, and held against the complex step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..domains.complex_step import complex_step_gradient
from ..errors import ArgumentError, GradientError
from ..ir import Graph
from ..ir.node import Node
from ..ir.ops.elementwise import add_n
from ..ir.ops.leaves import constant, input_name, input_node
from ..ir.ops.linear import sum_
from ..ir.scan import custom
from ..passes.ad import derivatives
from ..trees import flatten
from .tensor import Tensor, as_tensor


class CustomGradient:
    """A function of tensors with a gradient of its own; `tr.custom_gradient` makes one."""

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        for what, f in (("forward", forward), ("backward", backward)):
            if not callable(f):
                raise ArgumentError(f"custom_gradient takes two functions; {what} is {type(f).__name__}")
        self.forward, self.backward = forward, backward
        self.__name__ = getattr(forward, "__name__", "the function")
        self.__doc__ = forward.__doc__

    def __call__(self, *args: Any) -> Any:
        form: Callable[[list[Any]], Any] = list

        def ahead(x: list[Node]) -> list[Node]:
            nonlocal form
            leaves, form = flatten(self.forward(*map(Tensor, x)))
            return [as_tensor(t).source() for t in leaves]

        def back(g: list[Node], y: list[Node], x: list[Node]) -> list[Node]:
            found = self.backward(form([*map(Tensor, g)]), form([*map(Tensor, y)]), *map(Tensor, x))
            each = tuple(found) if isinstance(found, (tuple, list)) else (found,)
            if len(each) != len(x):
                raise ArgumentError(f"the backward function of {self.__name__} gives {len(each)} gradients for {len(x)} "
                                    "arguments: return a tuple of one for each, None for what has none")
            return [constant(np.zeros(n.shape, n.dtype)) if t is None else as_tensor(t).source()
                    for t, n in zip(each, x, strict=True)]

        nodes = custom(ahead, back, [as_tensor(a).source() for a in args])
        return form([*map(Tensor, nodes)])

    def check(self, *args: Any, rng: int | np.random.Generator | None = 0, rtol: float = 1e-9) -> None:
        """Hold `Σ g · dy/dx` for random g against the complex step (Squire & Trapp, 1998), entry by entry in float64.

        Raises `GradientError` for the first entry that differs.  A surrogate, which is meant to be another gradient than that
        of its function, does not pass.
        """
        values = [_in_double(as_tensor(a).numpy()) for a in args]
        inputs = [input_node(f"x{i}", v.shape, v.dtype) for i, v in enumerate(values)]
        outputs = [as_tensor(t).source() for t in flatten(self(*map(Tensor, inputs)))[0]]
        loss = _weighted([y for y in outputs if y.floating], np.random.default_rng(rng))
        given = {f"x{i}": v for i, v in enumerate(values)}
        wrt = [n for n in inputs if n.floating]
        claimed = Graph(dict(zip(map(input_name, wrt), derivatives.grad(loss, wrt), strict=True)))
        said, forward = claimed.run({k: given[k] for k in claimed.inputs}), Graph({"loss": loss})
        read = {k: given[k] for k in forward.inputs}
        for name, g in said.items():
            true = complex_step_gradient(forward, read, name) if name in read else np.zeros(g.shape)
            _compare(self.__name__, int(name[1:]), g, true, rtol)


def _in_double(v: Any) -> Any:
    return v.astype(np.float64) if v.dtype.kind == "f" else v


def _weighted(outputs: Sequence[Node], rng: np.random.Generator) -> Node:
    """`Σ g · y` with random g."""
    return add_n([sum_(y * constant(rng.normal(size=y.shape).astype(y.dtype))) for y in outputs])


def _compare(name: str, i: int, said: Any, true: Any, rtol: float) -> None:
    size = np.abs(true).max(initial=0.0)
    wrong = ~np.isclose(said, true, rtol=0, atol=rtol * (size or 1.0), equal_nan=True)
    if wrong.any():
        at = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise GradientError(f"the gradient of {name} for argument {i} is wrong at entry {list(at)}: the backward function "
                            f"gives {said[at]:.12g}, the complex step {true[at]:.12g}")


def custom_gradient(forward: Callable[..., Any], backward: Callable[..., Any]) -> CustomGradient:
    """A function of tensors that computes `y = forward(*x)` and is differentiated by `backward(g, y, *x)`.

    `backward` gets what comes in for y, the value y and the arguments, and returns a tuple of one adjoint for each argument
    (None for what has none).  Both read their arguments and numbers only.  Gradients of gradients and forward mode follow
    from `backward`.  `f.check(*x)` holds it against the complex step.

    Shapes are those of the functions; an adjoint has the shape of its argument.

    Raises `ArgumentError` for another number of adjoints, `GraphError` for adjoints of another shape than their arguments and
    for functions that read other tensors.

    >>> import tinyrnn as tr
    >>> clipped = tr.custom_gradient(lambda x: x, lambda g, y, x: tr.clip(g, -1, 1))
    >>> x = tr.parameter(2.0)
    >>> float(tr.grad(clipped(x) * 5, x))
    1.0
    """
    return CustomGradient(forward, backward)
