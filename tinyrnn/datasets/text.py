"""Text as numbers: a vocabulary, words, and how well counting does."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError
from ..files import shipped

Array = npt.NDArray[Any]

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|[^\w\s]")


@cache
def shakespeare() -> str:
    """The Sonnets, Romeo and Juliet, and Hamlet: 411,244 characters (public domain, after the Project Gutenberg editions).

    >>> from tinyrnn import datasets
    >>> datasets.shakespeare()[:11]
    'THE SONNETS'
    """
    return shipped("tinyrnn.datasets").joinpath("shakespeare.txt").read_text(encoding="ascii")


def words(text: str) -> list[str]:
    """Words, numbers and punctuation marks, lower case.

    >>> words("Don't panic: 42!")
    ["don't", 'panic', ':', '42', '!']
    """
    return _WORD.findall(text.lower())


class Vocabulary:
    """Tokens and their numbers, the most frequent first; 0 is padding, 1 stands for every token that is not known.

    Calling it gives whole numbers [n]. `tokens` raises `ArgumentError` for numbers that it does not have.

    >>> v = Vocabulary(["a", "b", "a"])
    >>> v(["a", "b", "c"]).tolist(), v.tokens([2, 3, 1]), len(v)
    ([2, 3, 1], ['a', 'b', '<unknown>'], 4)
    """

    def __init__(self, tokens: Iterable[Hashable], most: int | None = None, at_least: int = 1) -> None:
        counts = Counter(tokens).most_common(most)
        self._tokens: list[Any] = ["", "<unknown>", *(t for t, n in counts if n >= at_least)]
        self._numbers = {t: i for i, t in enumerate(self._tokens) if i > 1}

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: Hashable) -> bool:
        return token in self._numbers

    def __call__(self, tokens: Iterable[Hashable]) -> Array:
        """The numbers of some tokens."""
        return np.array([self._numbers.get(t, 1) for t in tokens], np.int64)

    def tokens(self, numbers: Iterable[int]) -> list[Any]:
        """The tokens of some numbers."""
        found = list(numbers)
        if any(not 0 <= int(n) < len(self) for n in found):
            raise ArgumentError(f"this vocabulary has the numbers 0 to {len(self) - 1}, got {min(found)} to {max(found)}")
        return [self._tokens[int(n)] for n in found]


def continued(tokens: Array, rows: int) -> tuple[Array, Array]:
    """A long text as `rows` streams: inputs and, one step later, targets; what is left over is cut off.

    Raises `ArgumentError` where the tokens do not make so many streams.

    >>> x, y = continued(np.arange(7), 2)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    steps = (len(tokens) - 1) // rows if rows > 0 else 0
    tokens = np.asarray(tokens)
    if steps < 1:
        raise ArgumentError(f"{len(tokens)} tokens do not make {rows} streams of a step and its target")
    return tokens[: rows * steps].reshape(rows, steps), tokens[1 : rows * steps + 1].reshape(rows, steps)


class NGrams:
    """The probability of the next token from the last n - 1, mixed with shorter contexts (Witten & Bell, 1991).

        p(w | context) = (count(context w) + kinds(context) p(w | shorter)) / (count(context) + kinds(context))

    Rows are lists of tokens; probabilities and nats are scalars. Raises `ArgumentError` for an n below 1.

    >>> model = NGrams(3).fit([[0, 1, 2], [0, 1, 1]], size=3)
    >>> round(model.nats([[0, 1, 2]]), 3)
    0.715
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ArgumentError(f"n={n!r}: expected a whole number from 1")
        self.n = n

    def fit(self, rows: Iterable[Sequence[int]], size: int) -> NGrams:
        """Count the rows; `size` is the number of kinds of tokens."""
        self.size = size
        self.counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for row in rows:
            for i, token in enumerate(row):
                for k in range(min(self.n, i + 1)):
                    self.counts[tuple(row[i - k : i])][token] += 1
        self.totals = {context: sum(c.values()) for context, c in self.counts.items()}
        return self

    def probability(self, context: Sequence[int], token: int) -> float:
        p = 1 / self.size
        for k in range(min(self.n - 1, len(context)) + 1):
            seen = tuple(context[len(context) - k :])
            if seen not in self.totals:
                break
            kinds = len(self.counts[seen])
            p = (self.counts[seen][token] + kinds * p) / (self.totals[seen] + kinds)
        return p

    def nats(self, rows: Iterable[Sequence[int]], skip: int = 0) -> float:
        """The mean surprise of the tokens of some rows, the first `skip` of each left out."""
        surprise = [-log(self.probability(row[max(0, i - self.n + 1) : i], token))
                    for row in rows for i, token in enumerate(row) if i >= skip]
        return sum(surprise) / len(surprise)
