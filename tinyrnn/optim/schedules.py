"""Schedules: the factor of the learning rate after a number of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import cos, inf, isfinite, pi
from typing import Any

import numpy as np

from ..errors import ArgumentError

Schedule = Callable[[int], float]


def _from_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ArgumentError(f"{name}={value!r}: expected a whole number from 1")


@dataclass(frozen=True)
class Constant:
    """The factor 1 at every step.

    >>> import tinyrnn as tr
    >>> tr.optim.Constant()(7)
    1.0
    """

    def __call__(self, step: int) -> float:
        return 1.0


@dataclass(frozen=True)
class StepDecay:
    """`factor` to the number of times that `every` steps have passed.

    Raises `ArgumentError` for an `every` below 1.

    >>> [StepDecay(every=2, factor=0.5)(k) for k in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _from_one("every", self.every)

    def __call__(self, step: int) -> float:
        return float(self.factor ** (step // self.every))


@dataclass(frozen=True)
class Cosine:
    """Half a wave from 1 down to `floor` over `steps` steps, then `floor` (Loshchilov & Hutter, 2017).

    Raises `ArgumentError` for `steps` below 1.

    >>> Cosine(steps=10)(0), round(Cosine(steps=10)(5), 12), Cosine(steps=10)(20)
    (1.0, 0.5, 0.0)
    """

    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        _from_one("steps", self.steps)

    def __call__(self, step: int) -> float:
        return self.floor + (1 - self.floor) * (1 + cos(pi * min(step, self.steps) / self.steps)) / 2


@dataclass(frozen=True)
class WarmUp:
    """From 1/steps up to 1 in equal parts, then another schedule, counted from there.

    Raises `ArgumentError` for `steps` below 1.

    >>> [WarmUp(steps=4)(k) for k in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    steps: int
    then: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        _from_one("steps", self.steps)

    def __call__(self, step: int) -> float:
        return (step + 1) / self.steps if step < self.steps else self.then(step - self.steps)

    def observe(self, numbers: Mapping[str, float]) -> None:
        """How an epoch went, handed on."""
        if hasattr(self.then, "observe"):
            self.then.observe(numbers)

    def state_dict(self) -> dict[str, Any]:
        return self.then.state_dict() if hasattr(self.then, "state_dict") else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if hasattr(self.then, "load_state_dict"):
            self.then.load_state_dict(state)


DIRECTIONS = {**dict.fromkeys("loss mse bce bce_with_logits cross_entropy nll perplexity seconds".split(), "min"),
              **dict.fromkeys("accuracy binary_accuracy f1".split(), "max")}
"""Which way the figures that have a name of their own get better."""


def mode_of(who: str, monitor: str, mode: str | None) -> str:
    """`mode`, or the direction of a figure that is known by its name (`val_` before it or not)."""
    if mode not in ("min", "max", None):
        raise ArgumentError(f"{who}(mode={mode!r}): expected 'min', 'max', or None for what the name of the figure says")
    found = mode or DIRECTIONS.get(monitor.removeprefix("val_"))
    if found is None:
        raise ArgumentError(f"{who}: nobody knows whether {monitor!r} is to fall or to rise; give mode='min' or mode='max'")
    return found


@dataclass
class Plateau:
    """`factor` once more whenever `monitor` got no better for more than `patience` epochs.

    "Better" is smaller or larger as the figure's name says (loss falls, accuracy rises) or `mode` ("min", "max"), by more than
    the share `threshold` of the size of the best so far.

    Raises `ArgumentError` for a factor outside 0 to 1, for a figure whose direction nobody knows, and where the epoch has no
    such figure.

    >>> import tinyrnn as tr
    >>> schedule = tr.optim.Plateau(factor=0.5, patience=1)
    >>> for loss in (1.0, 1.0, 1.0):
    ...     schedule.observe({"val_loss": loss})
    >>> schedule(0)
    0.5
    """

    factor: float = 0.1
    patience: int = 10
    monitor: str = "val_loss"
    mode: str | None = None
    threshold: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise ArgumentError(f"Plateau(factor={self.factor!r}): expected 0 < factor < 1")
        self.mode = mode_of("Plateau", self.monitor, self.mode)
        self._scale, self._best, self._waited = 1.0, inf if self.mode == "min" else -inf, 0

    def __call__(self, step: int) -> float:
        return self._scale

    def observe(self, numbers: Mapping[str, float]) -> None:
        """How an epoch went."""
        if self.monitor not in numbers:
            raise ArgumentError(f"Plateau monitors {self.monitor!r}, but the epoch gave {', '.join(numbers)}; "
                                "give validation= or another monitor")
        value = numbers[self.monitor]
        sign, least = 1 if self.mode == "min" else -1, self.threshold * abs(self._best) if isfinite(self._best) else 0.0
        better = sign * value < sign * self._best - least
        self._best, self._waited = (value, 0) if better else (self._best, self._waited + 1)
        if self._waited > self.patience:
            self._scale, self._waited = self._scale * self.factor, 0

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self._scale, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._scale, self._best, self._waited = float(state["scale"]), float(state["best"]), int(state["waited"])
