"""Layers without memory."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cells.initial import uniform
from ..errors import ArgumentError, DTypeError, ShapeError
from ..functional import blank_padding, check_lengths, gather, one_hot, parameter, where
from ..randomness import keep_mask
from ..shapes import show
from ..tensor import Tensor, as_tensor
from .module import Module, describe


def cast(x: Any, dtype: np.dtype[Any]) -> Tensor:
    """Floating data in a layer's own dtype."""
    t = as_tensor(x)
    return t if t.dtype == dtype else t.astype(dtype)


class Linear(Module):
    """`y = x Wᵀ + b`, with PyTorch's names, layout and start: uniform on ±1/√in.

    >>> import tinyrnn as tr
    >>> tr.nn.Linear(3, 2, rng=0)(np.ones((5, 3))).shape
    (5, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: npt.DTypeLike = "float32",
                 rng: Any = None) -> None:
        generator, limit = np.random.default_rng(rng), 1 / sqrt(positive("in_features", in_features))
        self.in_features, self.out_features = in_features, positive("out_features", out_features)
        self.weight = parameter(uniform((out_features, in_features), limit, generator).astype(dtype), "weight")
        self.bias = parameter(uniform((out_features,), limit, generator).astype(dtype), "bias") if bias else None

    def config(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features, "bias": self.bias is not None,
                "dtype": self.weight.dtype.name}

    def __call__(self, x: Any) -> Tensor:
        t = cast(x, self.weight.dtype)
        if not t.shape or t.shape[-1] != self.in_features:
            raise ShapeError(f"Linear({self.in_features}, {self.out_features}) got {show(t.shape)}: "
                             f"its last axis must be {self.in_features}")
        y = t @ self.weight.T
        return y if self.bias is None else y + self.bias

    def step(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:
        return self(x), None


class Embedding(Module):
    """A table of vectors looked up by whole numbers, `y[...] = weight[x[...]]`; starts standard normal, as PyTorch's."""

    def __init__(self, num_embeddings: int, embedding_dim: int, *, dtype: npt.DTypeLike = "float32",
                 rng: Any = None) -> None:
        self.num_embeddings, self.embedding_dim = positive("num_embeddings", num_embeddings), positive(
            "embedding_dim", embedding_dim)
        table = np.random.default_rng(rng).normal(size=(num_embeddings, embedding_dim))
        self.weight = parameter(table.astype(dtype), "weight")

    def config(self) -> dict[str, Any]:
        return {"num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim,
                "dtype": self.weight.dtype.name}

    def __call__(self, x: Any) -> Tensor:
        index = as_tensor(x if hasattr(x, "dtype") else np.asarray(x))
        if index.dtype.kind not in "iu":
            raise DTypeError(f"Embedding needs whole numbers, got {index.dtype}; use x.astype(int)")
        return gather(self.weight, index)

    def step(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:
        return self(x), None


class Dropout(Module):
    """Training: each entry is zero with probability p and divided by 1 - p otherwise.  Evaluation: the identity.

    Hinton et al., 2012; Srivastava et al., JMLR 15, 2014.
    """

    def __init__(self, p: float = 0.5, *, rng: Any = None) -> None:
        if not 0 <= p < 1:
            raise ArgumentError(f"Dropout p={p!r}: expected 0 <= p < 1")
        self.p = p
        self.rng = np.random.default_rng(rng)

    def config(self) -> dict[str, Any]:
        return {"p": self.p}

    def __call__(self, x: Any) -> Tensor:
        t = as_tensor(x)
        if not self.training or not self.p:
            return t
        return where(keep_mask(t.shape, 1 - self.p, self.rng), t / (1 - self.p), 0.0)

    def step(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:
        return self(x), None


class Last(Module):
    """The output at each row's last valid step: [B, T, H] becomes [B, H]; zero for a row of length 0."""

    def config(self) -> dict[str, Any]:
        return {}

    def __call__(self, x: Any, lengths: Any = None) -> Tensor:
        t = as_tensor(x)
        if lengths is None:
            return t[:, -1]
        known = not isinstance(lengths, Tensor) or lengths.is_leaf
        counts = as_tensor(check_lengths(np.asarray(lengths), t.shape[1])) if known else as_tensor(lengths)
        last = one_hot(counts - 1, t.shape[1], t.dtype)
        return where(last.reshape(*last.shape, 1) > 0, t, 0.0).sum(1)

    def step(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:
        return as_tensor(x), None


class Sequential(Module):
    """Layers one after the other; `lengths` blanks the padding of the input and goes to every layer that takes it; states
    are kept by `step`."""

    def __init__(self, *layers: Module) -> None:
        if not layers:
            raise ArgumentError("Sequential needs at least one layer")
        self.layers = list(layers)

    def config(self) -> dict[str, Any] | None:
        if any(layer.config() is None for layer in self.layers):
            return None
        return {"layers": [describe(layer) for layer in self.layers]}

    def __call__(self, x: Any, lengths: Any = None) -> Any:
        if lengths is not None and not self.reads_time_first():
            x = blank_padding(as_tensor(x if hasattr(x, "dtype") else np.asarray(x)), lengths)
        for layer in self.layers:
            takes = lengths is not None and "lengths" in signature(type(layer).__call__).parameters
            x = layer(x, lengths=lengths) if takes else layer(x)
            x = x[0] if isinstance(x, tuple) else x
        return x

    def step(self, x: Any, state: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
        """One time step through all layers."""
        new = []
        for layer, own in zip(self.layers, state or [None] * len(self.layers), strict=True):
            if not hasattr(layer, "step"):
                raise ArgumentError(f"{type(layer).__name__} has no step(x_t, state), so the model cannot stream")
            x, after = layer.step(x, own)
            new.append(after)
        return x, new


def positive(name: str, value: Any) -> int:
    """A size, checked."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ArgumentError(f"{name}={value!r}: expected a whole number from 1")
    return int(value)
