"""Attention: where a decoder looks."""

from __future__ import annotations

from math import sqrt

import numpy as np
import numpy.typing as npt

from ..cells.initial import uniform
from ..errors import ArgumentError
from ..ir.ops.leaves import full
from ..tensor.functional import parameter, softmax, tanh, where
from ..tensor.tensor import Tensor, extents
from ..types import Seed
from .layers import Linear
from .module import Module


class Attention(Module):
    """Where a decoder looks: weights over the steps of a memory, and the memory's mean under them.

    "bahdanau": `score = v · tanh(W_query q + W_memory m)` (Bahdanau, Cho & Bengio, 2015);
    "dot": `score = q · (W_memory m)` (Luong, Pham & Manning, 2015, their "general" form).

    query [B, Q], memory [B, S, M]; context [B, M], weights [B, S]. Raises `ArgumentError` for another kind.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> attention = tr.nn.Attention("dot", 4, 6, rng=0)
    >>> memory = tr.tensor(np.ones((2, 5, 6), "float32"))
    >>> context, weights = attention(tr.tensor(np.ones((2, 4), "float32")), attention.keys(memory), memory, None)
    >>> context.shape, weights.shape
    ((2, 6), (2, 5))
    """

    def __init__(self, kind: str, query: int, memory: int, *, dtype: npt.DTypeLike = "float32", rng: Seed = None) -> None:
        if kind not in ("bahdanau", "dot"):
            raise ArgumentError(f"attention={kind!r}: expected 'bahdanau', 'dot' or None")
        generator = np.random.default_rng(rng)
        self.kind = kind
        self.memory = Linear(memory, query, bias=False, dtype=dtype, rng=generator)
        self.query = Linear(query, query, dtype=dtype, rng=generator) if kind == "bahdanau" else None
        self.v = (parameter(uniform((query,), 1 / sqrt(query), generator), "v", dtype) if kind == "bahdanau" else None)

    def keys(self, memory: Tensor) -> Tensor:
        """What is compared with the query, [B, S, Q]; the same at every step."""
        return self.memory(memory)

    def __call__(self, query: Tensor, keys: Tensor, memory: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """The context [B, M] for a query [B, Q], and the weights [B, S]."""
        batch, steps, size = extents(keys)
        if self.query is not None and self.v is not None:
            scores = (tanh(keys + self.query(query).reshape(batch, 1, size)) * self.v).sum(-1)
        else:
            scores = (keys * query.reshape(batch, 1, size)).sum(-1)
        if not steps:
            return Tensor(full(0, (batch, memory.shape[-1]), memory.dtype)), scores
        weights = softmax(scores if valid is None else where(valid, scores, -1e30))
        weights = weights if valid is None else where(valid, weights, 0.0)  # a row without any step looks nowhere
        return (weights.reshape(batch, 1, steps) @ memory).reshape(batch, memory.shape[-1]), weights
