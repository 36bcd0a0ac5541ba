"""First names of the US census, letter by letter."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@cache
def _names() -> dict[str, str]:
    """Every name with its genders: m, f or mf."""
    text = resources.files("tinyrnn.datasets").joinpath("first_names.txt").read_text(encoding="ascii")
    return dict(line.split() for line in text.splitlines())


@cache
def first_names() -> tuple[str, ...]:
    """The 5,163 distinct first names of the US census of 1990, lower case, in alphabetical order (public domain).

    >>> from tinyrnn import datasets
    >>> len(datasets.first_names()), datasets.first_names()[0]
    (5163, 'aaron')
    """
    return tuple(_names())


@cache
def names_by_gender() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The first names that the census lists for women, and those that it lists for men; 331 are in both.

    >>> from tinyrnn import datasets
    >>> [len(names) for names in datasets.names_by_gender()]
    [4275, 1219]
    """
    return tuple(n for n, g in _names().items() if "f" in g), tuple(n for n, g in _names().items() if "m" in g)


def split_names(names: tuple[str, ...], held_out: float = 0.1, rng: Any = 0) -> tuple[list[str], list[str]]:
    """Distinct names for training and for testing."""
    order = np.random.default_rng(rng).permutation(len(names))
    n = round(len(names) * held_out)
    return [names[i] for i in order[n:]], [names[i] for i in order[:n]]


ALPHABET = "\n" + "abcdefghijklmnopqrstuvwxyz"  # token 0 starts and ends a name


def encode_names(names: list[str]) -> tuple[Array, Array, Array]:
    """Names as (inputs, targets, lengths): `\\nanna` is read and `anna\\n` is to be said."""
    longest = max(map(len, names)) + 1
    x = np.zeros((len(names), longest), np.int64)
    y = np.zeros_like(x)
    for row, name in enumerate(names):
        codes = [ALPHABET.index(c) for c in name]
        x[row, 1 : len(codes) + 1] = codes
        y[row, : len(codes)] = codes
    return x, y, np.array([len(n) + 1 for n in names])


def decode_name(tokens: Array) -> str:
    """The letters up to the end token."""
    letters = [ALPHABET[int(t)] for t in tokens]
    return "".join(letters[: letters.index("\n")] if "\n" in letters else letters)


def ngram_nats(train: list[str], test: list[str], n: int) -> float:
    """Nats per character (end included) of an add-one smoothed n-gram model, on test names."""
    size = len(ALPHABET)
    counts = np.ones((size,) * n)
    for name in train:
        for context in _ngrams(name, n):
            counts[context] += 1
    p = counts / counts.sum(-1, keepdims=True)
    grams = [g for name in test for g in _ngrams(name, n)]
    return float(-np.mean([np.log(p[g]) for g in grams]))


def _ngrams(name: str, n: int) -> list[tuple[int, ...]]:
    codes = [0] * (n - 1) + [ALPHABET.index(c) for c in name] + [0]
    return [tuple(codes[i : i + n]) for i in range(len(name) + 1)]
