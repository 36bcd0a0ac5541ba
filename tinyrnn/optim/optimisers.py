"""Optimisers as pure functions of (parameters, gradients, state), and the loop that applies them in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..functional import clip, where
from ..functional import sqrt as sqrt_
from ..tensor import Tensor

Values = dict[str, Any]
State = dict[str, Any]


class Optimiser:
    """The base: clipping, and the two ways to take a step.

    `clip_value` limits every entry of a gradient, `clip_norm` the Euclidean norm of all gradients together
    (Pascanu, Mikolov & Bengio, 2013).
    """

    slots: tuple[str, ...] = ()  # what is remembered for every parameter; zeros at the start

    def __init__(self, lr: float, clip_norm: float | None = None, clip_value: float | None = None) -> None:
        for name, value in (("lr", lr), ("clip_norm", clip_norm), ("clip_value", clip_value)):
            if value is not None and not value > 0:
                raise ArgumentError(f"{name}={value!r}: expected a positive number")
        self.lr, self.clip_norm, self.clip_value = lr, clip_norm, clip_value
        self.state: State = {}

    def update(self, params: Mapping[str, Any], grads: Mapping[str, Any], state: State) -> tuple[Values, State]:
        """New parameters and new state; nothing is changed in place.  The first state is `{}`."""
        step = state.get("step", 0) + 1
        before = state.get("of", {})
        numbers = self.numbers(step)
        new_params: Values = {}
        after: State = {}
        for name, g in self.clip(grads).items():
            kept = before.get(name, {})
            if any(np.shape(v) != np.shape(g) for v in kept.values()):
                raise ArgumentError(f"{self!r} remembers another {name} of shape {np.shape(next(iter(kept.values())))}; "
                                    "take a new optimiser for each model")
            slots = {k: kept[k] if k in kept else np.zeros_like(g) for k in self.slots}
            new_params[name], after[name] = self.rule(params[name], g, slots, numbers)
        return {**params, **new_params}, {"step": step, "of": {**before, **after}}

    def numbers(self, step: int) -> dict[str, float]:
        """What differs from step to step, the same for every parameter."""
        return {"lr": self.lr}

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
                clipped = {k: g * np.asarray(self.clip_norm / norm, g.dtype) for k, g in clipped.items()}
        return clipped

    def step(self, parameters: Iterable[Tensor]) -> None:
        """Update every parameter that has a gradient, and forget the gradients."""
        boxes = {str(i): p for i, p in enumerate(parameters) if p.grad is not None}
        params, grads = {k: p.numpy() for k, p in boxes.items()}, {k: p.grad for k, p in boxes.items()}
        new, self.state = self.update(params, grads, self.state)
        for k, p in boxes.items():
            p.assign(new[k])
            p.zero_grad()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lr={self.lr})"


def gradient_norm(grads: Mapping[str, Any]) -> Any:
    """The Euclidean norm of all gradients together, added in float64."""
    if any(isinstance(g, Tensor) for g in grads.values()):
        squares = [(g * g).sum().astype(np.float64) for g in grads.values()]
        return sqrt_(sum(squares[1:], squares[0]))
    return sqrt(sum(float(np.vdot(g, g).real) for g in grads.values()))


class SGD(Optimiser):
    """Stochastic gradient descent, `p - lr v` with `v = momentum v + g` (Nesterov: `g + momentum v`).

    >>> import tinyrnn as tr
    >>> p = tr.parameter([1.0])
    >>> (p * p).sum().backward()
    >>> tr.optim.SGD(0.1).step([p])
    >>> p.numpy()
    array([0.8])
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.0, nesterov: bool = False, *,
                 clip_norm: float | None = None, clip_value: float | None = None) -> None:
        super().__init__(lr, clip_norm, clip_value)
        if not 0 <= momentum < 1 or (nesterov and not momentum):
            raise ArgumentError(f"momentum={momentum!r}: expected 0 <= momentum < 1, and more than 0 for Nesterov")
        self.momentum, self.nesterov = momentum, nesterov

        self.slots = ("v",) if momentum else ()

    def rule(self, p: Any, g: Any, slots: Values, numbers: Mapping[str, Any]) -> tuple[Any, Values]:
        if not self.momentum:
            return p - numbers["lr"] * g, {}
        v = self.momentum * slots["v"] + g
        return p - numbers["lr"] * (g + self.momentum * v if self.nesterov else v), {"v": v}


class Adam(Optimiser):
    """`p - lr m̂ / (√v̂ + eps)` with running means m of g and v of g², corrected for their start (Kingma & Ba, 2015)."""

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, *,
                 clip_norm: float | None = None, clip_value: float | None = None) -> None:
        super().__init__(lr, clip_norm, clip_value)
        if not all(0 <= b < 1 for b in betas):
            raise ArgumentError(f"betas={betas!r}: expected two numbers from 0 up to but not 1")
        self.betas, self.eps = betas, eps

    slots = ("m", "v")

    def numbers(self, step: int) -> dict[str, float]:
        """The learning rate with m's correction, and v's correction under the root."""
        b1, b2 = self.betas
        return {"scale": self.lr / (1 - b1**step), "root": sqrt(1 - b2**step)}

    def rule(self, p: Any, g: Any, slots: Values, numbers: Mapping[str, Any]) -> tuple[Any, Values]:
        b1, b2 = self.betas
        m = b1 * slots["m"] + (1 - b1) * g
        v = b2 * slots["v"] + (1 - b2) * (g * g)
        return p - numbers["scale"] * m / (v**0.5 / numbers["root"] + self.eps), {"m": m, "v": v}
