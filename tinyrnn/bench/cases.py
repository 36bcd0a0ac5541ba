"""What is measured: stock layers at the sizes that people train, and cells that no library has kernels for.

Every unusual cell is written once more as a function of an array module, the way a careful user would write it for
PyTorch or JAX: gates joined, the products with the input taken out of the loop.  `weights` gives it the cell's own
parameters, so that all sides compute the same numbers; a test holds them to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cells import Cell, get


@dataclass(frozen=True)
class Point:
    """One size: steps, rows, input and hidden width."""

    steps: int
    batch: int
    x: int
    h: int

    def __str__(self) -> str:
        return f"T={self.steps} B={self.batch} X={self.x} H={self.h}"


GRID = (Point(50, 1, 16, 64), Point(50, 1, 128, 256), Point(50, 16, 32, 64), Point(50, 20, 27, 100), Point(60, 24, 48, 96),
        Point(100, 32, 64, 128), Point(100, 64, 128, 256), Point(100, 64, 512, 512))
WIDE = GRID[-3:]    # bound by products
MIDDLE = GRID[3:6]  # where two threads have just enough to do
SHARED = (Point(50, 20, 27, 100), Point(60, 24, 48, 96), Point(80, 48, 96, 192))
BESIDE = (("training step", Point(50, 20, 27, 100)), ("inference", Point(50, 1, 256, 512)))
UNUSUAL_GRID = (Point(50, 1, 16, 64), Point(50, 16, 32, 64), Point(50, 20, 27, 100), Point(100, 32, 64, 128))
SERVED = (Point(50, 1, 16, 64), Point(50, 1, 64, 128), Point(50, 1, 256, 512), Point(50, 16, 32, 64), Point(100, 32, 64, 128),
          Point(100, 64, 128, 256))
STEP = Point(1, 1, 16, 64)
STREAMS = (Point(50, 1, 16, 64), Point(50, 1, 64, 128), Point(50, 1, 256, 512))
STOCK = ("LSTM", "GRU", "RNN")

Weights = Mapping[str, Any]
Step = Callable[[Any, Weights, Any, tuple[Any, ...]], tuple[Any, ...]]


@dataclass(frozen=True)
class Unusual:
    """A cell, and the same cell for other array modules: joined weights, and a step from `z = x Wᵀ + b`."""

    cell: Cell
    weights: Callable[[Weights], dict[str, Any]]
    step: Step
    states: int = 1


def _split(W: Any, h: int) -> tuple[Any, Any]:
    return W[:, :h], W[:, h:]


def _joined(p: Weights, gates: str, h: int) -> dict[str, Any]:
    """Gates written as `W_k @ [h, x] + b_k`, stacked."""
    parts = [_split(p[f"W_{k}"], h) for k in gates]
    return {"U": np.concatenate([u for u, _ in parts]), "W": np.concatenate([w for _, w in parts]),
            "b": np.concatenate([p[f"b_{k}"] for k in gates])}


def _peephole_weights(p: Weights) -> dict[str, Any]:
    return {**_joined(p, "ifgo", len(p["b_i"])), "p_i": p["p_i"], "p_f": p["p_f"], "p_o": p["p_o"]}


def _peephole(m: Any, w: Weights, z: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    h, c = state
    i, f, g, o = m.split(z + m.matmul(h, w["U"].T), 4)
    i, f, g = m.sigmoid(i + w["p_i"] * c), m.sigmoid(f + w["p_f"] * c), m.tanh(g)
    c = f * c + i * g
    return m.sigmoid(o + w["p_o"] * c) * m.tanh(c), c


def _mgu_weights(p: Weights) -> dict[str, Any]:
    h = len(p["b_f"])
    return {**_joined(p, "fn", h), "U": p["W_f"][:, :h], "U_n": p["W_n"][:, :h]}


def _mgu(m: Any, w: Weights, z: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    (h,) = state
    zf, zn = m.split(z, 2)
    f = m.sigmoid(zf + m.matmul(h, w["U"].T))
    n = m.tanh(zn + m.matmul(f * h, w["U_n"].T))
    return ((1 - f) * h + f * n,)


def _ind_weights(p: Weights) -> dict[str, Any]:
    return {"W": p["W"], "b": p["b"], "u": p["u"]}


def _ind(m: Any, w: Weights, z: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    return (m.relu(z + w["u"] * state[0]),)


def _reset_before_weights(p: Weights) -> dict[str, Any]:
    return {"W": np.concatenate([p["W_r"], p["W_z"], p["W_n"]]), "b": np.concatenate([p["b_r"], p["b_z"], p["b_n"]]),
            "U": np.concatenate([p["U_r"], p["U_z"]]), "U_n": p["U_n"]}


def _reset_before(m: Any, w: Weights, z: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    (h,) = state
    zr, zz, zn = m.split(z, 3)
    ur, uz = m.split(m.matmul(h, w["U"].T), 2)
    r, u = m.sigmoid(zr + ur), m.sigmoid(zz + uz)
    n = m.tanh(zn + m.matmul(r * h, w["U_n"].T))
    return ((1 - u) * n + u * h,)


NORMED = """
# Layer-normalised recurrent network
i[t] = sigmoid(W_i @ x[t] + U_i @ h[t-1] + b_i)
n[t] = tanh(layer_norm(W_n @ x[t] + U_n @ h[t-1]) * g + b_n)
h[t] = (1 - i[t]) * h[t-1] + i[t] * n[t]
"""


def _normed_weights(p: Weights) -> dict[str, Any]:
    return {"W": np.concatenate([p["W_i"], p["W_n"]]), "U": np.concatenate([p["U_i"], p["U_n"]]),
            "b": np.concatenate([p["b_i"], np.zeros_like(p["b_n"])]), "g": p["g"], "b_n": p["b_n"]}


def _normed(m: Any, w: Weights, z: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    (h,) = state
    zi, zn = m.split(z + m.matmul(h, w["U"].T), 2)
    i, n = m.sigmoid(zi), m.tanh(m.layer_norm(zn) * w["g"] + w["b_n"])
    return ((1 - i) * h + i * n,)


def unusual() -> dict[str, Unusual]:
    """Five cells that no library has kernels for."""
    return {"peephole LSTM": Unusual(get("lstm_peephole"), _peephole_weights, _peephole, 2),
            "minimal gated unit": Unusual(get("mgu"), _mgu_weights, _mgu),
            "IndRNN": Unusual(get("indrnn"), _ind_weights, _ind),
            "GRU, reset before": Unusual(get("gru_reset_before"), _reset_before_weights, _reset_before),
            "layer-normalised unit": Unusual(Cell(NORMED, "layer_normalised"), _normed_weights, _normed)}
