"""A model as functions of arrays alone, with derivatives of every order, for frameworks that differentiate by themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import on_host
from ..ir.ops.leaves import input_node
from ..nn.module import Module
from ..tensor.compile import Program
from ..tensor.masks import check_lengths
from ..tensor.pullbacks import Held, functional_call, vjp, vjp_of_arrays
from ..tensor.randomness import randomness
from ..tensor.signatures import Spec
from ..tensor.tensor import Tensor, as_tensor
from ..tensor.tracing import Trace, tracing
from ..tensor.transforms import jvp
from ..trees import flatten

Results = list[Tensor]
Form = Callable[[list[Any]], Any]
MOST = 64  # forms of arguments that a model is remembered with


class Differentiable:
    """A function from `count` tensors to a list of tensors, compiled, and its derivatives, which are functions of this kind.

    `check` refuses arrays whose numbers do not fit, which no trace can see.
    """

    def __init__(self, function: Callable[..., Results], count: int, backend: str,
                 check: Callable[[Sequence[Any]], None] = lambda arrays: None) -> None:
        self.function, self.count, self.backend, self.check = function, count, backend, check
        self.program = Program(function, backend)
        self._derived: dict[str, Differentiable] = {}
        self.made: dict[Hashable, Any] = {}  # what a framework makes of it

    def value(self, arrays: Sequence[Any], threads: int | None) -> list[Any]:
        """The results as arrays."""
        self.check(arrays)
        self.program.threads = threads
        found: list[Any] = self.program(*arrays)
        return found

    def value_and_held(self, arrays: Sequence[Any], wanted: tuple[bool, ...], threads: int | None) -> tuple[list[Any], Held]:
        """The results, and what gives the gradients of the wanted arguments."""
        self.check(arrays)
        self.program.threads = threads
        return vjp_of_arrays(self.program, tuple(arrays), wanted)

    @property
    def pullback(self) -> Callable[[int], Differentiable]:
        """The function of the arguments and so many adjoints, one for each floating result, that gives a gradient for each
        floating argument."""
        def pulled(*tensors: Tensor) -> Results:
            adjoints = iter(tensors[self.count:])
            y, pull = vjp(self.function, *tensors[: self.count])
            return [g for g in pull([next(adjoints) if is_floating(t) else t for t in y]) if g is not None]

        return lambda adjoints: self._derivative("pullback", pulled, adjoints)

    @property
    def pushforward(self) -> Callable[[int], Differentiable]:
        """The function of the arguments and so many tangents, one for each floating argument, that gives a tangent for each
        floating result."""
        def pushed(*tensors: Tensor) -> Results:
            given = tensors[: self.count]
            moved = dict(zip(filter(is_floating, given), tensors[self.count:], strict=True))
            return list(jvp(list(filter(is_floating, self.function(*given))), moved))

        return lambda tangents: self._derivative("pushforward", pushed, tangents)

    def _derivative(self, what: str, function: Callable[..., Results], further: int) -> Differentiable:
        if what not in self._derived:
            self._derived[what] = Differentiable(function, self.count + further, self.backend)
        return self._derived[what]


def is_floating(t: Tensor) -> bool:
    return t.dtype.kind == "f"


class PureModel:
    """A model whose weights are arguments: one differentiable function for each form that the other arguments take."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.names = [name for name, _ in model.leaves()]
        self.time_first = model.reads_time_first()
        self._functions: dict[Hashable, PureFunction] = {}

    def function(self, weights: Sequence[Any], arguments: Arguments, backend: str) -> PureFunction:
        """The function for such arguments; it takes the weights, a key where it `draws`, and then the arrays."""
        key = (arguments.shown, arguments.fixed, arguments.kinds, backend, self.model.training)
        found = self._functions.get(key)
        if found is None:
            if len(self._functions) >= MOST:
                self._functions.pop(next(iter(self._functions)))
            found = self._functions[key] = PureFunction(self, arguments, [*weights, *arguments.arrays], backend)
        return found


class Arguments:
    """What a model is called with: the `arrays`, their `kinds` (rank and dtype), and all else, `fixed`."""

    def __init__(self, leaves: Sequence[Any], form: Form, shown: str, spec: Callable[[Any], Spec], array: type) -> None:
        self.form, self.shown, self.spec = form, shown, spec
        self.where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, array)]
        self.arrays = [leaves[i] for i in self.where]
        self.kinds = tuple([(a.ndim, a.dtype) for a in self.arrays])
        self.fixed = tuple([(i, leaf) for i, leaf in enumerate(leaves) if not isinstance(leaf, array)])

    def filled(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments with other arrays."""
        leaves = dict(zip(self.where, arrays, strict=True)) | dict(self.fixed)
        found: tuple[tuple[Any, ...], dict[str, Any]] = self.form([leaves[i] for i in range(len(leaves))])
        return found

    def places(self, model: Module) -> dict[str, int]:
        """Which of the arrays each argument of the model's call is."""
        args, keywords = self.filled([_Place(k) for k in range(len(self.where))])
        found = inspect.signature(model.__call__).bind(*args, **keywords).arguments
        places = {name: [p for p in flatten(value)[0] if isinstance(p, _Place)] for name, value in found.items()}
        return {name: first[0].number for name, first in places.items() if first}


@dataclass(frozen=True)
class _Place:
    """What stands for an array."""

    number: int


class PureFunction:
    """A model's function of its weights, of a key for what its layers draw at random, and of the arrays among its arguments."""

    def __init__(self, pure: PureModel, arguments: Arguments, arrays: Sequence[Any], backend: str) -> None:
        self._pure, self._arguments = pure, arguments
        self.result: Form = tuple  # how the results belong together, known once it was traced
        self.draws = False
        self.draws = pure.model.training and self._is_random([arguments.spec(a) for a in arrays])
        self._places = arguments.places(pure.model)
        self.differentiable = Differentiable(self._called, len(arrays) + self.draws, backend, self._check)
        arguments.arrays = []  # the first call's

    def _is_random(self, given: Sequence[Spec]) -> bool:
        """Whether it draws numbers, seen by tracing it."""
        trace = Trace()
        with tracing(trace):
            self._called(*(Tensor(input_node(f"argument {i}", *spec)) for i, spec in enumerate(given)))
        return bool(trace.draws)

    def _called(self, *tensors: Tensor) -> Results:
        count = len(self._pure.names)
        weights, rest = dict(zip(self._pure.names, tensors[:count], strict=True)), list(tensors[count:])
        drawing = randomness(rest.pop(0)) if self.draws else nullcontext()
        args, keywords = self._arguments.filled(rest)
        with drawing:
            outputs, self.result = flatten(functional_call(self._pure.model, weights, *args, **keywords))
        return [as_tensor(t) for t in outputs]

    def _check(self, arrays: Sequence[Any]) -> None:
        """Lengths lie within the sequence, which is the first argument, or the first array in it."""
        x, lengths = next(iter(self._places.values()), None), self._places.get("lengths")
        if x is not None and lengths is not None and x != lengths:
            start = len(self._pure.names) + self.draws
            counts = on_host(arrays[start + lengths])
            check_lengths(np.atleast_1d(counts), arrays[start + x].shape[int(counts.ndim == 1 and not self._pure.time_first)])
