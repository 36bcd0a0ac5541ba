"""A compiled function as an operation of JAX's, differentiable backwards as often as one likes.

JAX calls the two compiled programs of a pull-back (`tensor/pullbacks.py`) from its own: what the forward one saves for the
backward one passes through JAX as further results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ..exchange.pure import Differentiable
from ..tensor.pullbacks import Wanted, pair_for

Arrays = tuple[Any, ...]
Operation = Callable[..., Arrays]
Maker = Callable[..., Any]
Callback = Callable[..., Arrays]


def _once(make: Maker) -> Maker:
    """What is made of a function is made once, and goes when the function goes."""
    def found(function: Differentiable, *args: Any) -> Any:
        key = make.__name__, args
        if key not in function.made:
            function.made[key] = make(function, *args)
        return function.made[key]

    return found


@_once
def operation(function: Differentiable) -> Operation:
    """The results of a function of arrays."""
    @jax.custom_vjp
    def plain(*arrays: Any) -> Arrays:
        outputs = function.program.specialization(*map(_specimen, arrays))[0].outputs
        return _called(_value(function), outputs, arrays)

    def forward(*given: Any) -> tuple[Arrays, _Kept]:
        arrays, wanted = tuple(g.value for g in given), tuple(bool(g.perturbed) and _floats(g.value) for g in given)
        results, saved = _forward(function, wanted)(*arrays)
        return results, _Kept((saved, arrays), wanted)

    def backward(kept: _Kept, adjoints: Arrays) -> Arrays:
        saved, arrays = kept.parts
        given = tuple(np.zeros(g.shape, g.dtype) if isinstance(g, SymbolicZero) else g for g in adjoints)
        return _for_all(kept.wanted, _backward(function, kept.wanted)(saved, arrays, _floating(given)))

    plain.defvjp(forward, backward, symbolic_zeros=True)
    found: Operation = plain
    return found


SymbolicZero = jax.custom_derivatives.SymbolicZero


@jax.tree_util.register_pytree_node_class
class _Kept:
    """Saved values and arguments of a run, and of which arguments gradients are wanted."""

    def __init__(self, parts: tuple[Arrays, Arrays], wanted: Wanted) -> None:
        self.parts, self.wanted = parts, wanted

    def tree_flatten(self) -> tuple[tuple[Arrays, Arrays], Wanted]:
        return self.parts, self.wanted

    @classmethod
    def tree_unflatten(cls, wanted: Wanted, parts: tuple[Arrays, Arrays]) -> _Kept:
        return cls(parts, wanted)


@_once
def _forward(function: Differentiable, wanted: Wanted) -> Callable[..., tuple[Arrays, Arrays]]:
    """Results and saved values.  What is saved is made of the arguments, and the backward run says for both how a gradient
    changes with them, so that nothing comes back for saved values."""
    @jax.custom_vjp
    def run(*arrays: Any) -> tuple[Arrays, Arrays]:
        pair, _ = pair_for(function.program, tuple(map(_specimen, arrays)), wanted)
        found = _called(_ahead(function, wanted), pair.forward.outputs, arrays)
        return found[: len(pair.outputs)], found[len(pair.outputs):]

    def forward(*arrays: Any) -> tuple[Any, Any]:
        results, saved = run(*arrays)
        return (results, saved), (saved, arrays)

    def backward(kept: tuple[Arrays, Arrays], adjoints: tuple[Arrays, Arrays]) -> Arrays:
        return _for_all(wanted, _backward(function, wanted)(*kept, _floating(adjoints[0])))

    run.defvjp(forward, backward)
    found: Callable[..., tuple[Arrays, Arrays]] = run
    return found


@_once
def _backward(function: Differentiable, wanted: Wanted) -> Operation:
    """A gradient for every wanted argument, from saved values, arguments and adjoints."""
    @jax.custom_vjp
    def run(saved: Arrays, arrays: Arrays, adjoints: Arrays) -> Arrays:
        pair, _ = pair_for(function.program, tuple(map(_specimen, arrays)), wanted)
        kinds = tuple((a.shape, a.dtype) for a in arrays)
        given = (*saved, *(arrays[i] for i in pair.read), *adjoints)
        return _called(_back(function, wanted, kinds), pair.backward.outputs, given)

    def forward(saved: Arrays, arrays: Arrays, adjoints: Arrays) -> tuple[Arrays, Any]:
        return run(saved, arrays, adjoints), (saved, arrays, adjoints)

    def backward(kept: tuple[Arrays, Arrays, Arrays], seconds: Arrays) -> Any:
        saved, arrays, adjoints = kept
        gradients = operation(function.pullback(len(adjoints)))
        found, pull = jax.vjp(gradients, *arrays, *adjoints)
        given = iter(seconds)
        moving = [w for w, a in zip(wanted, arrays, strict=True) if _floats(a)]
        back = pull(tuple(next(given) if w else np.zeros(y.shape, y.dtype) for w, y in zip(moving, found, strict=True)))
        return tuple(np.zeros(s.shape, s.dtype) for s in saved), back[: len(arrays)], back[len(arrays):]

    run.defvjp(forward, backward)
    found: Operation = run
    return found


# What JAX calls.  It compiles anew for another function, so that each is made once.

@_once
def _value(function: Differentiable) -> Callback:
    return _out(lambda given: function.value(given, None))


@_once
def _ahead(function: Differentiable, wanted: Wanted) -> Callback:
    def run(given: list[Any]) -> Sequence[Any]:
        function.check(given)
        found: Sequence[Any] = pair_for(function.program, tuple(given), wanted)[0].forward.run(given, None)
        return found

    return _out(run)


@_once
def _back(function: Differentiable, wanted: Wanted, kinds: tuple[Any, ...]) -> Callback:
    """For arguments of these shapes and dtypes."""
    def run(given: list[Any]) -> Sequence[Any]:
        specimens = tuple(np.broadcast_to(np.zeros((), dtype), shape) for shape, dtype in kinds)
        found: Sequence[Any] = pair_for(function.program, specimens, wanted)[0].backward.run(given, None)
        return found

    return _out(run)


def _out(run: Callable[[list[Any]], Sequence[Any]]) -> Callback:
    """A function of NumPy's arrays as one that JAX calls."""
    def called(*given: Any) -> Arrays:
        found = [np.asarray(a) for a in run([np.asarray(a) for a in given])]
        return tuple(a.astype(jax.dtypes.canonicalize_dtype(a.dtype), copy=False) for a in found)

    return called


def _called(callback: Callback, outputs: Sequence[tuple[str, tuple[int, ...], Any]], arrays: Arrays) -> Arrays:
    """What a compiled program makes of the arrays, as a call out of JAX; under `vmap` one call a row."""
    specs = tuple(jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype)) for _, shape, dtype in outputs)
    return tuple(jax.pure_callback(callback, specs, *arrays, vmap_method="sequential"))


def _specimen(array: Any) -> Any:
    """An array of that shape and dtype without numbers."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _floats(array: Any) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _floating(arrays: Arrays) -> Arrays:
    return tuple(a for a in arrays if _floats(a))


def _for_all(wanted: Wanted, gradients: Arrays) -> Arrays:
    """A gradient for every argument, None for those that have none."""
    found: Iterator[Any] = iter(gradients)
    return tuple(next(found) if w else None for w in wanted)
