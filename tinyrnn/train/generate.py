"""Sequences drawn from a model, one step at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import on_host
from ..errors import ArgumentError, NonFiniteError
from ..model import Trainable, checked_model
from ..serve import Stream
from ..tensor.tensor import TensorLike
from ..types import Seed
from .data import is_ragged

Array = npt.NDArray[Any]


def generate(model: Trainable, prompt: TensorLike, steps: int, *, temperature: float = 1.0, top_k: int | None = None,
             stop: int | None = None, rng: Seed = None, backend: str = "cpu", threads: int | None = None) -> Array:
    """The prompt followed by `steps` sampled tokens, [B, T0 + steps] (or [T0 + steps] for a single prompt).

    `temperature=0` always takes the most likely token; `top_k` draws among the k most likely; after `stop` a row
    repeats it.

    Raises `ArgumentError` for a prompt that holds no tokens and for numbers out of range, and `NonFiniteError` where the
    scores are not finite.

    >>> import tinyrnn as tr
    >>> model = tr.nn.Sequential(tr.nn.Embedding(5, 4, rng=0), tr.nn.GRU(4, 8, rng=1), tr.nn.Linear(8, 5, rng=2))
    >>> model.generate([[1, 2]], 3, rng=0).shape
    (1, 5)
    """
    checked_model(model, "generate")
    if is_ragged(prompt):
        raise ArgumentError("generate: prompts of one call have one length; call it once for each length")
    tokens = np.atleast_2d(on_host(prompt))
    if tokens.dtype.kind not in "iu" or tokens.shape[1] < 1:
        raise ArgumentError("generate: the prompt holds at least one whole number (token) per row")
    check_sampling(temperature, steps, top_k)
    generator = np.random.default_rng(rng)
    tokens = tokens.astype(np.int64)
    run = Stream(model, len(tokens), like=None if _has_example(model) else tokens[:, 0], backend=backend, threads=threads)
    for t in range(tokens.shape[1]):
        logits = run(tokens[:, t])
    out, ended = [*tokens.T], np.zeros(len(tokens), bool)
    for _ in range(steps):
        token = np.where(ended, stop if stop is not None else 0, draw(logits, temperature, top_k, generator)).astype(np.int64)
        ended |= token == stop if stop is not None else False
        out.append(token)
        logits = run(token)
    found = np.stack(out, 1)
    return found if np.ndim(prompt) > 1 else found[0]


def _has_example(model: Any) -> bool:
    """Whether a model can say by itself what it reads."""
    try:
        return model.example(1) is not None
    except ArgumentError:
        return False


def check_sampling(temperature: float, steps: int, top_k: int | None) -> None:
    """Refuse what cannot be sampled with."""
    whole = [n for n in (steps, top_k) if n is not None]
    real = isinstance(temperature, (int, float, np.number)) and not isinstance(temperature, bool)
    if not real or not temperature >= 0 or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) for n in whole) or (
            steps < 0 or (top_k is not None and top_k < 1)):
        raise ArgumentError(f"generate: expected temperature >= 0, steps >= 0 and top_k >= 1, the last two whole numbers; got "
                            f"temperature={temperature!r}, steps={steps!r}, top_k={top_k!r}")


def draw(logits: Array, temperature: float, top_k: int | None, rng: np.random.Generator) -> Array:
    """A token for each row: the first largest at temperature 0, else one of the `top_k` likeliest (the first of equal ones)."""
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    if not np.isfinite(top).all():
        raise NonFiniteError(f"the model's scores for the next token are {top[~np.isfinite(top)][0]}, so that none can be "
                             "drawn; look for NaN and infinity in its weights")
    if temperature == 0:
        return np.asarray(np.argmax(logits, -1))
    with np.errstate(over="ignore", invalid="ignore"):  # far below the largest, or -inf
        scaled = np.where(logits == -np.inf, -np.inf, (logits - top) / temperature)
    if top_k is not None and top_k < scaled.shape[-1]:
        beyond = np.argsort(-logits, -1, kind="stable")[:, top_k:]
        np.put_along_axis(scaled, beyond, -np.inf, -1)
    drawn: Array = np.argmax(scaled + rng.gumbel(size=scaled.shape), -1)
    return drawn
