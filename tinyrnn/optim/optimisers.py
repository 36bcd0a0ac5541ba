"""Optimisers: `rule` is the equation of one parameter; `update` and `step` apply it, and the program of `train/task.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, LoadError, NonFiniteError
from ..ir.ops.leaves import box_of
from ..tensor.functional import clip, maximum, where
from ..tensor.functional import sqrt as sqrt_
from ..tensor.tensor import Tensor
from .schedules import Constant, Schedule

SCALE = 2.0**600   # powers of two change no digit of a number that they multiply
LEAST = 2.0**-450  # below, squares may have lost digits
Values = dict[str, Any]
State = dict[str, Any]


class Optimizer:
    """The base: clipping, and a step of all parameters, in `update` as a pure function, in `step` in place.

    `clip_value` limits every entry of a gradient, `clip_norm` the Euclidean norm of all gradients together
    (Pascanu, Mikolov & Bengio, 2013).  `schedule` gives the factor of `lr` after a number of steps; `weight_decay` adds
    that share of a parameter to its gradient.

    Gradients have the shapes of their parameters; norms are in their units. Raises `ArgumentError` for numbers out of range,
    `NonFiniteError` in `step` where a gradient is not finite, and `LoadError` for the state of another kind.

    >>> import tinyrnn as tr
    >>> p = tr.parameter([1.0, -2.0])
    >>> (p * p).sum().backward()
    >>> tr.optim.SGD(0.1, clip_norm=1.0).step([p])
    >>> p.numpy().round(4)
    array([ 0.9553, -1.9106])
    """

    slots: tuple[str, ...] = ()  # what is remembered for every parameter; zeros at the start

    def __init__(self, lr: float, *, clip_norm: float | None = None, clip_value: float | None = None,
                 schedule: Schedule | None = None, weight_decay: float = 0.0) -> None:
        for name, value in (("lr", lr), ("clip_norm", clip_norm), ("clip_value", clip_value)):
            if value is not None and (not isinstance(value, (int, float, np.number)) or not value > 0):
                raise ArgumentError(f"{name}={value if isinstance(value, (int, float)) else type(value).__name__}: expected a "
                                    "positive number; parameters are given to step or fit, not to the optimiser")
        if schedule is not None and not callable(schedule):
            raise ArgumentError(f"schedule={schedule!r}: expected a function from the number of steps to a factor of lr")
        if not weight_decay >= 0:
            raise ArgumentError(f"weight_decay={weight_decay!r}: expected a number from 0")
        self.lr, self.clip_norm, self.clip_value = lr, clip_norm, clip_value
        self.schedule, self.weight_decay = Constant() if schedule is None else schedule, weight_decay
        self.state: State = {}
        self._claimed: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        """A copy takes charge of the parameters that it is used with first, if they have the same names and shapes."""
        return {**vars(self), "_claimed": []}

    def claim(self, parameters: Sequence[Tensor]) -> None:
        """Take charge of these parameters; what is remembered belongs to them alone."""
        nodes = [p.node for p in parameters]
        if self.state and self._claimed and (len(nodes) != len(self._claimed) or any(
                a is not b for a, b in zip(nodes, self._claimed, strict=True))):
            raise ArgumentError(f"{self!r} remembers the steps of other parameters; take a new optimiser for each model, "
                                "and where parameters were frozen or unfrozen in between")
        self._claimed = nodes

    def checked_slots(self, kept: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Mapping[str, Any]:
        """What is kept for a parameter, where it fits."""
        if any(k not in self.slots or np.shape(v) != shape for k, v in kept.items()):
            found = ", ".join(f"{k} of shape {np.shape(v)}" for k, v in kept.items())
            raise ArgumentError(f"{self!r} remembers {found} for {name} of shape {shape}; take a new optimiser for each model")
        return kept

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        return self.lr * self.schedule(step - 1)

    def observe(self, numbers: Mapping[str, float]) -> None:
        """Tell the schedule how an epoch went."""
        if hasattr(self.schedule, "observe"):
            self.schedule.observe(numbers)

    def update(self, params: Mapping[str, Any], grads: Mapping[str, Any], state: State) -> tuple[Values, State]:
        """New parameters and new state; nothing is changed in place.  The first state is `{}`."""
        step = state.get("step", 0) + 1
        before = state.get("of", {})
        unknown = [k for k in grads if k not in params]
        if unknown:
            raise ArgumentError(f"there is a gradient of {unknown[0]!r}, which is no parameter; they are {', '.join(params)}")
        numbers = self.numbers(step)
        new_params: Values = {}
        after: State = {}
        for name, g in self.clip(grads).items():
            kept = self.checked_slots(before.get(name, {}), name, np.shape(g))
            slots = {k: kept[k] if k in kept else np.zeros_like(g, slot_dtype(g.dtype)) for k in self.slots}
            new_params[name], after[name] = self.update_one(params[name], g, slots, numbers)
        return {**params, **new_params}, {"step": step, "of": {**before, **after}}

    def numbers(self, step: int) -> dict[str, float]:
        """What differs from step to step, the same for every parameter."""
        return {"lr": self.rate(step)}

    def update_one(self, p: Any, g: Any, slots: Values, numbers: Mapping[str, Any]) -> tuple[Any, Values]:
        """One parameter and its slots after one step, computed in float32 where they are float16: `eps` is 0 there."""
        wide = slot_dtype(p.dtype)
        if p.dtype == wide:
            return self.with_decay(p, g, slots, numbers)
        new, after = self.with_decay(p.astype(wide), g.astype(wide), slots, numbers)
        return new.astype(p.dtype), after

    def with_decay(self, p: Any, g: Any, slots: Values, numbers: Mapping[str, Any]) -> tuple[Any, Values]:
        """One parameter and its slots after one step, `weight_decay` times the parameter added to its gradient."""
        return self.rule(p, g + self.weight_decay * p if self.weight_decay else g, slots, numbers)

    def rule(self, p: Any, g: Any, slots: Values, numbers: Mapping[str, Any]) -> tuple[Any, Values]:
        """One parameter and its slots after one step: arithmetic on arrays or on tensors."""
        raise NotImplementedError

    def clip(self, grads: Mapping[str, Any]) -> Values:
        """Gradients after clipping by value, then by their common norm; arrays or tensors."""
        clipped = dict(grads)
        if self.clip_value is not None:
            c = self.clip_value
            clipped = {k: clip(g, -c, c) if isinstance(g, Tensor) else np.clip(g, -c, c) for k, g in clipped.items()}
        if self.clip_norm is not None:
            norm = gradient_norm(clipped)
            if isinstance(norm, Tensor):
                factor = where(norm > self.clip_norm, self.clip_norm / norm, 1.0)
                clipped = {k: g * factor.astype(g.dtype) for k, g in clipped.items()}
            elif norm > self.clip_norm:
                _check_finite(grads)
                clipped = {k: g * np.asarray(self.clip_norm / norm, g.dtype) for k, g in clipped.items()}
        return clipped

    def step(self, parameters: Iterable[Tensor]) -> None:
        """Update every parameter that has a gradient, and forget the gradients.

        A gradient that is not finite is refused (`NonFiniteError`), and all weights stay as they are.
        """
        every = list(parameters)
        self.claim(every)
        boxes = {str(i): p for i, p in enumerate(every) if p.grad is not None}
        _check_finite({p.name or f"parameter {k}": p.grad for k, p in boxes.items()})
        params, grads = {k: p.numpy() for k, p in boxes.items()}, {k: p.grad for k, p in boxes.items()}
        new, self.state = self.update(params, grads, self.state)
        for k, p in boxes.items():
            p.assign(with_still_row(p, new[k]))
            p.zero_grad()

    def state_dict(self) -> State:
        """What a run needs to go on: the step, what is remembered, and the schedule's own state."""
        own = self.schedule.state_dict() if hasattr(self.schedule, "state_dict") else {}
        return {**self.state, "schedule": own, "kind": type(self).__name__}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        if not {"schedule", "kind"} <= set(state) or state["kind"] != type(self).__name__:
            own = type(self).__name__
            raise LoadError(f"{own} cannot go on from the state of {state.get('kind', 'something else')}: give what "
                            f"{own}.state_dict() gave")
        self.state, self._claimed = {k: v for k, v in state.items() if k in ("step", "of")}, []
        if hasattr(self.schedule, "load_state_dict"):
            self.schedule.load_state_dict(state["schedule"])

    def __repr__(self) -> str:
        plain = (None, 0.0, False, Constant())
        shown = [f"{k}={getattr(v, '__qualname__', None) or repr(v)}" for k, v in vars(self).items()
                 if k not in ("state", "slots", "_claimed") and v not in plain]
        return f"{type(self).__name__}({', '.join(shown)})"


def slot_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype in which a parameter's update is computed and its slots are kept."""
    return np.dtype(np.float32) if dtype == np.float16 else np.dtype(dtype)


def with_still_row(p: Tensor, new: Any) -> Any:
    """The new data of a parameter with its still row (an embedding's padding) as it was: an array or a tensor."""
    row = box_of(p.node).still
    if row is None:
        return new
    own = (np.arange(p.shape[0]) == row).reshape(-1, *(1,) * (p.ndim - 1))
    return where(own, p, new) if isinstance(new, Tensor) else np.where(own, p.numpy(), new)


def _check_finite(grads: Mapping[str, Any]) -> None:
    for name, g in grads.items():
        bad = ~np.isfinite(g)
        if bad.any():
            seen = f"{np.asarray(g)[bad][0]} in {int(bad.sum())} of {g.size} entries"
            raise NonFiniteError(f"the gradient of {name} is not finite ({seen}); the weights are as they were. Look for a "
                                 "slope that is infinite (sqrt or log at 0) and for NaN in the data")


def _at_least_zero(x: Any) -> Any:
    """What rounding has made negative, as 0."""
    return maximum(x, 0.0) if isinstance(x, Tensor) else np.maximum(x, 0)


def _quotient(a: Any, b: Any, eps: float) -> Any:
    """`a / (b + eps)`; where a is 0 it is 0, also where `eps` is too small a number for the dtype."""
    if np.asarray(eps, a.dtype):
        return a / (b + eps)
    with np.errstate(invalid="ignore", divide="ignore"):
        return where(a == 0, 0.0, a / b) if isinstance(a, Tensor) else np.where(a == 0, 0, a / b)


def _check_eps(eps: object) -> None:
    if not isinstance(eps, (int, float, np.number)) or not eps >= 0:
        raise ArgumentError(f"eps={eps!r}: expected a number from 0")


def gradient_norm(grads: Mapping[str, Any]) -> Any:
    """The Euclidean norm of all gradients together, added in float64."""
    if all(g.dtype.itemsize < 8 for g in grads.values()):
        return _norm(grads, 1.0)
    with np.errstate(over="ignore", under="ignore"):
        plain, of_huge, of_tiny = (_norm(grads, scale) for scale in (1.0, SCALE, 1 / SCALE))  # compiled: one pass over each
    in_range = (plain > LEAST) & (plain < inf)
    if isinstance(plain, Tensor):
        return where(in_range, plain, where(plain > 1.0, of_huge, of_tiny))
    return plain if in_range else of_huge if plain > 1.0 else of_tiny


def _norm(grads: Mapping[str, Any], scale: float) -> Any:
    """`s √Σ(g/s)²`: with s = 1 squares of numbers beyond 1e154 overflow, and those below 1e-162 vanish."""
    parts = [g.astype(np.float64) / scale if scale != 1 else g.astype(np.float64) for g in grads.values()]
    squares = [(g * g).sum() for g in parts]
    total = sum(squares[1:], squares[0]) if squares else 0.0
    return scale * (sqrt_(total) if isinstance(total, Tensor) else float(np.sqrt(total)))


class SGD(Optimizer):
    """Stochastic gradient descent, `p - lr v` with `v = momentum v + g` (Nesterov: `g + momentum v`).

    p, g and what is remembered have one shape. Raises `ArgumentError` for numbers out of range, and `NonFiniteError` where a
    gradient is not finite.

    >>> import tinyrnn as tr
    >>> p = tr.parameter([1.0])
    >>> (p * p).sum().backward()
    >>> tr.optim.SGD(0.1).step([p])
    >>> p.numpy()
    array([0.8])
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.0, nesterov: bool = False, **options: Any) -> None:
        super().__init__(lr, **options)
        if not 0 <= momentum < 1 or (nesterov and not momentum):
            raise ArgumentError(f"momentum={momentum!r}: expected 0 <= momentum < 1, and more than 0 for Nesterov")
        self.momentum, self.nesterov = momentum, nesterov
        self.slots = ("v",) if momentum else ()

    def rule(self, p: Any, g: Any, slots: Values, numbers: Mapping[str, Any]) -> tuple[Any, Values]:
        if not self.momentum:
            return p - numbers["lr"] * g, {}
        v = self.momentum * slots["v"] + g
        return p - numbers["lr"] * (g + self.momentum * v if self.nesterov else v), {"v": v}


class RMSprop(Optimizer):
    """`p - lr g / (√v + eps)` with v the running mean of g² (Tieleman & Hinton, 2012).

    `centered` subtracts the square of the running mean of g under the root (Graves, 2013); with `momentum` the quotients are
    accumulated first.

    p, g and what is remembered have one shape. Raises `ArgumentError` for numbers out of range, and `NonFiniteError` where a
    gradient is not finite.

    >>> import tinyrnn as tr
    >>> p = tr.parameter([1.0, -2.0])
    >>> (p * p).sum().backward()
    >>> tr.optim.RMSprop(0.01).step([p])
    >>> p.numpy().round(4)
    array([ 0.9, -1.9])
    """

    def __init__(self, lr: float = 0.01, alpha: float = 0.99, eps: float = 1e-8, momentum: float = 0.0, centered: bool = False,
                 **options: Any) -> None:
        super().__init__(lr, **options)
        if not 0 <= alpha < 1 or not 0 <= momentum < 1:
            raise ArgumentError(f"alpha={alpha!r}, momentum={momentum!r}: expected numbers from 0 up to but not 1")
        _check_eps(eps)
        self.alpha, self.eps, self.momentum, self.centered = alpha, eps, momentum, centered
        self.slots = ("v", *("m",) * centered, *("b",) * bool(momentum))

    def rule(self, p: Any, g: Any, slots: Values, numbers: Mapping[str, Any]) -> tuple[Any, Values]:
        after = {"v": self.alpha * slots["v"] + (1 - self.alpha) * (g * g)}
        spread = after["v"]
        if self.centered:
            after["m"] = self.alpha * slots["m"] + (1 - self.alpha) * g
            spread = _at_least_zero(spread - after["m"] * after["m"])
        move = _quotient(g, spread**0.5, self.eps)
        if self.momentum:
            move = after["b"] = self.momentum * slots["b"] + move
        return p - numbers["lr"] * move, after


class Adagrad(Optimizer):
    """`p - lr g / (√s + eps)` with s the sum of all g² so far (Duchi, Hazan & Singer, 2011).

    p, g and what is remembered have one shape. Raises `ArgumentError` for numbers out of range, and `NonFiniteError` where a
    gradient is not finite.

    >>> import tinyrnn as tr
    >>> p = tr.parameter([1.0, -2.0])
    >>> (p * p).sum().backward()
    >>> tr.optim.Adagrad(0.1).step([p])
    >>> p.numpy().round(4)
    array([ 0.9, -1.9])
    """

    slots = ("s",)

    def __init__(self, lr: float = 0.01, eps: float = 1e-10, **options: Any) -> None:
        super().__init__(lr, **options)
        _check_eps(eps)
        self.eps = eps

    def rule(self, p: Any, g: Any, slots: Values, numbers: Mapping[str, Any]) -> tuple[Any, Values]:
        s = slots["s"] + g * g
        return p - _quotient(numbers["lr"] * g, s**0.5, self.eps), {"s": s}


class Adam(Optimizer):
    """`p - lr m̂ / (√v̂ + eps)` with running means m of g and v of g², corrected for their start (Kingma & Ba, 2015).

    p, g and what is remembered have one shape. Raises `ArgumentError` for numbers out of range, and `NonFiniteError` where a
    gradient is not finite.

    >>> import tinyrnn as tr
    >>> p = tr.parameter([1.0, -2.0])
    >>> (p * p).sum().backward()
    >>> tr.optim.Adam(0.1).step([p])
    >>> p.numpy().round(4)
    array([ 0.9, -1.9])
    """

    slots = ("m", "v")

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, **options: Any) -> None:
        super().__init__(lr, **options)
        if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
            raise ArgumentError(f"betas={betas!r}: expected two numbers from 0 up to but not 1")
        _check_eps(eps)
        self.betas, self.eps = betas, eps

    def numbers(self, step: int) -> dict[str, float]:
        """The learning rate, alone and with m's correction, and v's correction under the root."""
        b1, b2 = self.betas
        lr = self.rate(step)
        return {"lr": lr, "scale": lr / (1 - b1**step), "root": sqrt(1 - b2**step)}

    def rule(self, p: Any, g: Any, slots: Values, numbers: Mapping[str, Any]) -> tuple[Any, Values]:
        b1, b2 = self.betas
        m = b1 * slots["m"] + (1 - b1) * g
        v = b2 * slots["v"] + (1 - b2) * (g * g)
        return p - _quotient(numbers["scale"] * m, v**0.5 / numbers["root"], self.eps), {"m": m, "v": v}


class AdamW(Adam):
    """Adam with `p - lr weight_decay p` beside its own step, not inside the gradient (Loshchilov & Hutter, 2019).

    p, g and what is remembered have one shape. Raises `ArgumentError` for numbers out of range, and `NonFiniteError` where a
    gradient is not finite.

    >>> import tinyrnn as tr
    >>> p = tr.parameter([1.0, -2.0])
    >>> (p * p).sum().backward()
    >>> tr.optim.AdamW(0.1).step([p])
    >>> p.numpy().round(4)
    array([ 0.899, -1.898])
    """

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.01, **options: Any) -> None:
        super().__init__(lr, betas, eps, weight_decay=weight_decay, **options)

    def with_decay(self, p: Any, g: Any, slots: Values, numbers: Mapping[str, Any]) -> tuple[Any, Values]:
        return self.rule(p - numbers["lr"] * self.weight_decay * p, g, slots, numbers)
