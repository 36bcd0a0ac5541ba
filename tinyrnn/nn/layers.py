"""Layers without memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import on_host
from ..cells.initial import constant, normal, uniform
from ..errors import ArgumentError, DTypeError, ShapeError
from ..functions import FUNCTIONS
from ..ir.ops.leaves import box_of
from ..shapes import checked_count, show
from ..tensor.functional import entrywise, layer_norm, log_softmax, parameter, softmax, stop_gradient, where
from ..tensor.randomness import keep_mask
from ..tensor.rearrange import broadcast_to, gather
from ..tensor.tensor import Tensor, TensorLike, as_tensor, extents
from ..types import Seed
from ..viz.wiring import BEGINS, Wiring, title_of
from .module import Module, loadable

ALONG_AXIS: dict[str, Callable[[Tensor], Tensor]] = {"softmax": softmax, "log_softmax": log_softmax}


def cast(x: TensorLike, dtype: np.dtype[Any]) -> Tensor:
    """Floating data in a layer's own dtype."""
    t = as_tensor(x)
    return t if t.dtype == dtype else t.astype(dtype)


@loadable
class Linear(Module):
    """`y = x Wᵀ + b`, with PyTorch's names, layout and start: uniform on ±1/√in.

    x [..., in], weight [out, in], bias [out], y [..., out]. Raises `ShapeError` for another last axis.

    >>> import tinyrnn as tr
    >>> tr.nn.Linear(3, 2, rng=0)(np.ones((5, 3))).shape
    (5, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: npt.DTypeLike = "float32",
                 rng: Seed = None) -> None:
        generator, limit = np.random.default_rng(rng), 1 / sqrt(checked_count("in_features", in_features))
        self.in_features, self.out_features = in_features, checked_count("out_features", out_features)
        self.weight = parameter(uniform((out_features, in_features), limit, generator).astype(dtype), "weight")
        self.bias = parameter(uniform((out_features,), limit, generator).astype(dtype), "bias") if bias else None

    def config(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features, "bias": self.bias is not None,
                "dtype": self.weight.dtype.name}

    def example(self, batch: int, *steps: int) -> Any:
        return np.ones((batch, *steps, self.in_features), self.weight.dtype)

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        ends = into.plain(self, name, reads)
        into.boxes[ends[0]].affine = self.weight, self.bias
        return ends

    def __call__(self, x: TensorLike) -> Tensor:
        t = cast(x, self.weight.dtype)
        if not t.shape or t.shape[-1] != self.in_features:
            raise ShapeError(f"Linear({self.in_features}, {self.out_features}) got {show(t.shape)}: "
                             f"its last axis must be {self.in_features}")
        y = t @ self.weight.T
        return y if self.bias is None else y + self.bias

    def step(self, x: TensorLike, state: Any = None) -> tuple[Tensor, Any]:
        return self(x), None


@loadable
class Embedding(Module):
    """A table of vectors looked up by whole numbers, `y[...] = weight[x[...]]`; starts standard normal, as PyTorch's.

    The row `padding_idx` starts at zero and never moves: it has no gradient, and optimisers leave it out.

    x [...] whole numbers, weight [num, dim], y [..., dim]. Raises `DTypeError` for floating x, `ArgumentError` for a
    `padding_idx` that is no row, and, when values are asked for, `IndexRangeError` for an x that is none.

    >>> import tinyrnn as tr
    >>> tr.nn.Embedding(5, 2, padding_idx=0, rng=0)([[0, 3]]).numpy()[0, 0]
    array([0., 0.], dtype=float32)
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, padding_idx: int | None = None, trainable: bool = True,
                 dtype: npt.DTypeLike = "float32", rng: Seed = None) -> None:
        self.num_embeddings, self.embedding_dim = checked_count("num_embeddings", num_embeddings), checked_count(
            "embedding_dim", embedding_dim)
        whole = isinstance(padding_idx, (int, np.integer)) and not isinstance(padding_idx, bool)
        if padding_idx is not None and not (whole and 0 <= padding_idx < num_embeddings):
            raise ArgumentError(f"padding_idx={padding_idx!r}: expected a row from 0 to {num_embeddings - 1}")
        self.padding_idx = padding_idx
        table = normal((num_embeddings, embedding_dim), rng)
        if padding_idx is not None:
            table[padding_idx] = 0
        self.weight = parameter(table, "weight", dtype)
        box_of(self.weight.node).still = padding_idx
        self.trainable = trainable

    @classmethod
    def pretrained(cls, table: npt.ArrayLike, *, trainable: bool = False, padding_idx: int | None = None) -> Embedding:
        """A layer with a given table [rows, dim], fixed unless `trainable`."""
        rows = on_host(table)
        if rows.ndim != 2 or rows.dtype.kind != "f":
            raise ShapeError(f"a pretrained table is float [rows, dim], got {rows.dtype}{show(rows.shape)}")
        layer = cls(*rows.shape, padding_idx=padding_idx, trainable=trainable, dtype=rows.dtype)
        layer.weight.assign(rows)
        return layer

    def config(self) -> dict[str, Any]:
        return {"num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim, "padding_idx": self.padding_idx,
                "trainable": self.trainable, "dtype": self.weight.dtype.name}

    def example(self, batch: int, *steps: int) -> Any:
        return np.resize(np.arange(self.num_embeddings), (batch, *steps))

    def __call__(self, x: TensorLike) -> Tensor:
        index = as_tensor(x if hasattr(x, "dtype") else np.asarray(x))
        if index.dtype.kind not in "iu":
            raise DTypeError(f"Embedding needs whole numbers, got {index.dtype}; use x.astype(int)")
        y = gather(self.weight, index)
        if self.padding_idx is None:
            return y
        return where((index != self.padding_idx).reshape(*extents(index), 1), y, stop_gradient(y))

    def step(self, x: TensorLike, state: Any = None) -> tuple[Tensor, Any]:
        return self(x), None


@loadable
class LayerNorm(Module):
    """`y = weight * (x - mean) / sqrt(var + eps) + bias` along the last axis (Ba, Kiros & Hinton, 2016).

    x and y [..., features], weight and bias [features]. Raises `ShapeError` for another last axis, `ArgumentError` for an
    eps that is no number.

    >>> import tinyrnn as tr
    >>> tr.nn.LayerNorm(2, dtype="float64")([[1.0, 3.0]]).numpy().round(3)
    array([[-1.,  1.]])
    """

    def __init__(self, features: int, eps: float = 1e-5, bias: bool = True, *, dtype: npt.DTypeLike = "float32") -> None:
        if not isinstance(eps, (int, float, np.number)) or not 0 <= eps < np.inf:
            raise ArgumentError(f"LayerNorm eps={eps!r}: expected a small positive number")
        self.features, self.eps = checked_count("features", features), eps
        self.weight = parameter(constant((features,), 1.0), "weight", dtype)
        self.bias = parameter(constant((features,), 0.0), "bias", dtype) if bias else None

    def config(self) -> dict[str, Any]:
        return {"features": self.features, "eps": self.eps, "bias": self.bias is not None, "dtype": self.weight.dtype.name}

    def __call__(self, x: TensorLike) -> Tensor:
        t = cast(x, self.weight.dtype)
        if not t.shape or t.shape[-1] != self.features:
            raise ShapeError(f"LayerNorm({self.features}) got {show(t.shape)}: its last axis must be {self.features}")
        y = layer_norm(t, self.eps) * self.weight
        return y if self.bias is None else y + self.bias

    def step(self, x: TensorLike, state: Any = None) -> tuple[Tensor, Any]:
        return self(x), None


class Lambda(Module):
    """A function of tensors as a layer; a model that holds one saves its weights, but not its structure.

    Shapes are those of the function. Raises what the function raises.

    >>> import tinyrnn as tr
    >>> tr.nn.Sequential(tr.nn.Lambda(lambda x: x * 2))([1.0]).numpy()
    array([2.])
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def options(self) -> str:
        return getattr(self.function, "__qualname__", "")

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        called = self.options() if self.options().isidentifier() else type(self).__name__
        return [into.box([f"{name}: {called}" if name else called], reads, "function")]

    def __call__(self, x: TensorLike) -> Tensor:
        return self.function(as_tensor(x))

    def step(self, x: TensorLike, state: Any = None) -> tuple[Tensor, Any]:
        return self(x), None


@loadable
class Activation(Module):
    """A function as a layer: those of the equation language by their names, softmax and log_softmax along the last axis.

    Of any shape, which stays. Raises `ArgumentError` for another name.

    >>> import tinyrnn as tr
    >>> tr.nn.Activation("relu")([-1.0, 2.0]).numpy()
    array([0., 2.])
    """

    def __init__(self, name: str) -> None:
        known = [*(k for k, f in FUNCTIONS.items() if f.operands == 1), *ALONG_AXIS]
        if name not in known:
            raise ArgumentError(f"Activation({name!r}): expected one of {', '.join(known)}")
        self.name = name

    def config(self) -> dict[str, Any]:
        return {"name": self.name}

    def options(self) -> str:
        return self.name

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        return [into.box([f"{name}: {self.name}" if name else self.name], reads, "function")]

    def __call__(self, x: TensorLike) -> Tensor:
        function = ALONG_AXIS.get(self.name) or entrywise(self.name)
        found: Tensor = function(as_tensor(x))
        return found

    def step(self, x: TensorLike, state: Any = None) -> tuple[Tensor, Any]:
        return self(x), None


@loadable
class Repeat(Module):
    """One vector as a sequence of n equal steps: [B, H] becomes [B, n, H].

    Raises `ShapeError` for a vector without a batch axis.

    >>> import tinyrnn as tr
    >>> tr.nn.Repeat(3)([[1.0, 2.0]]).shape
    (1, 3, 2)
    """

    def __init__(self, n: int) -> None:
        self.n = checked_count("n", n)

    def config(self) -> dict[str, Any]:
        return {"n": self.n}

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        return [into.box([title_of(name, self), f"{self.n} times"], reads, "function", time=BEGINS, count=self.n)]

    def __call__(self, x: TensorLike) -> Tensor:
        t = as_tensor(x)
        if t.ndim < 2:
            raise ShapeError(f"Repeat takes [B, ...], got {show(t.shape)}")
        rows, *rest = extents(t)
        return broadcast_to(t.reshape(rows, 1, *rest), (rows, self.n, *rest))


@loadable
class Dropout(Module):
    """Training: each entry is zero with probability p and divided by 1 - p otherwise.  Evaluation: the identity.

    Hinton et al., 2012; Srivastava et al., JMLR 15, 2014.  Along `shared_axes` one draw holds for all entries:
    `Dropout(0.3, shared_axes=1)` blanks the same units at every step of [B, T, H] (Gal & Ghahramani, 2016).

    Shapes stay. Raises `ArgumentError` for a p outside 0 <= p < 1, and where a shared mask would be taken step by step.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.Dropout(0.5, rng=0)
    >>> layer([1.0, 1.0, 1.0, 1.0]).numpy(), layer.eval()([1.0]).numpy()
    (array([2., 2., 2., 2.]), array([1.]))
    """

    def __init__(self, p: float = 0.5, *, shared_axes: int | Sequence[int] = (), rng: Seed = None) -> None:
        if not 0 <= p < 1:
            raise ArgumentError(f"Dropout p={p!r}: expected 0 <= p < 1")
        self.p = p
        self.shared_axes = tuple(int(a) for a in np.atleast_1d(np.asarray(shared_axes, int)))
        self.rng = np.random.default_rng(rng)

    def config(self) -> dict[str, Any]:
        return {"p": self.p, "shared_axes": list(self.shared_axes)}

    def __call__(self, x: TensorLike) -> Tensor:
        t = as_tensor(x)
        if not self.training or not self.p:
            return t
        if any(not -t.ndim <= a < t.ndim for a in self.shared_axes):
            raise ShapeError(f"Dropout shares its mask along the axes {self.shared_axes}, but got {show(t.shape)}")
        shared = {a % t.ndim for a in self.shared_axes}
        return dropped(t, self.p, self.rng, tuple(1 if i in shared else n for i, n in enumerate(extents(t))))

    def step(self, x: TensorLike, state: Any = None) -> tuple[Tensor, Any]:
        if self.training and self.p and self.shared_axes:
            raise ArgumentError("this Dropout keeps one mask for all steps of a sequence, so single steps cannot be taken in "
                                "training mode: call it on whole sequences, or model.eval() first")
        return self(x), None


def dropped(x: Tensor, p: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Zero with probability p, divided by 1 - p otherwise; one draw for each entry of `shape`, which is broadcast."""
    return where(keep_mask(shape, 1 - p, rng), x / (1 - p), 0.0)


