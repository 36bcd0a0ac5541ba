"""A model as functions of arrays alone, with derivatives of every order, for frameworks that differentiate by themselves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from ..ir.ops.leaves import input_node
from ..nn.module import Module
from ..tensor.compile import Program
from ..tensor.pullbacks import functional_call, vjp, vjp_of_kept
from ..tensor.randomness import randomness
from ..tensor.signatures import Spec
from ..tensor.tensor import Tensor, as_tensor
from ..tensor.tracing import Trace, tracing
from ..tensor.transforms import jvp
from ..trees import described, flatten

Results = list[Tensor]
Form = Callable[[list[Any]], Any]


class Differentiable:
    """A function from `count` tensors to a list of tensors, compiled, and its derivatives, which are functions of this kind."""

    def __init__(self, function: Callable[..., Results], count: int, backend: str) -> None:
        self.function, self.count, self.backend = function, count, backend
        self.program = Program(function, backend)
        self._derived: dict[str, Differentiable] = {}

    def value(self, arrays: Sequence[Any], threads: int | None) -> list[Any]:
        """The results as arrays."""
        self.program.threads = threads
        found: list[Any] = self.program(*arrays)
        return found

    def value_and_pull(self, arrays: Sequence[Any], wanted: tuple[bool, ...],
                       threads: int | None) -> tuple[list[Any], Callable[[list[Any]], tuple[Any, ...]]]:
        """The results, and their pull-back to the wanted arguments; nobody changes the arguments as long as it is held."""
        self.program.threads = threads
        return vjp_of_kept(self.program, tuple(arrays), wanted)

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
        return self._derived.setdefault(what, Differentiable(function, self.count + further, self.backend))


def is_floating(t: Tensor) -> bool:
    return t.dtype.kind == "f"


class PureModel:
    """A model whose weights are arguments: one differentiable function for each form that the other arguments take."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.names = [name for name, _ in model.leaves()]
        self._functions: dict[Hashable, PureFunction] = {}

    def function(self, weights: Sequence[Spec], args: Sequence[Any], keywords: Mapping[str, Any],
                 spec: Callable[[Any], Spec | None], backend: str) -> tuple[PureFunction, list[Any]]:
        """The function for such arguments, and the arrays among them in its order, which go behind the weights and, where it
        `draws`, behind a key.  `spec` says of an argument what array it is, and None of what is none."""
        leaves, form = flatten((tuple(args), dict(keywords)))
        specs = [spec(leaf) for leaf in leaves]
        fixed = tuple((i, leaf) for i, leaf in enumerate(leaves) if specs[i] is None)
        given = [s for s in specs if s is not None]
        key = (described((args, keywords)), fixed, tuple((len(s.shape), s.dtype) for s in given), backend, self.model.training)
        found = self._functions.get(key)
        if found is None:
            where = [i for i, s in enumerate(specs) if s is not None]
            found = self._functions[key] = PureFunction(self, form, where, fixed, [*weights, *given], backend)
        return found, [leaf for leaf, s in zip(leaves, specs, strict=True) if s is not None]


class PureFunction:
    """A model's function of its weights, of a key for what its layers `draw` at random, and of the arrays among its arguments."""

    def __init__(self, pure: PureModel, form: Form, where: Sequence[int], fixed: Sequence[tuple[int, Any]],
                 examples: Sequence[Spec], backend: str) -> None:
        self._pure, self._form, self._where, self._fixed = pure, form, where, fixed
        self.result: Form = tuple  # how the results belong together, known once it was traced
        self.draws = False
        self.draws = pure.model.training and self._is_random(examples)
        self.differentiable = Differentiable(self._called, len(examples) + self.draws, backend)

    def _is_random(self, examples: Sequence[Spec]) -> bool:
        """Whether it draws numbers, seen by tracing it."""
        trace = Trace()
        with tracing(trace):
            self._called(*(Tensor(input_node(f"argument {i}", *spec)) for i, spec in enumerate(examples)))
        return bool(trace.draws)

    def _called(self, *tensors: Tensor) -> Results:
        weights, rest = tensors[: len(self._pure.names)], list(tensors[len(self._pure.names):])
        drawing = randomness(rest.pop(0)) if self.draws else nullcontext()
        leaves = dict(zip(self._where, rest, strict=True)) | dict(self._fixed)
        args, keywords = self._form([leaves[i] for i in range(len(leaves))])
        with drawing:
            found = functional_call(self._pure.model, dict(zip(self._pure.names, weights, strict=True)), *args, **keywords)
        outputs, self.result = flatten(found)
        return [as_tensor(t) for t in outputs]
