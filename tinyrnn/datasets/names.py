"""First names of the US census, letter by letter."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError
from ..files import shipped
from ..types import Seed
from .packages import split

Array = npt.NDArray[Any]


@cache
def _names() -> dict[str, str]:
    """Every name with its genders: m, f or mf."""
    text = shipped("tinyrnn.datasets").joinpath("first_names.txt").read_text(encoding="ascii")
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


def split_names(names: tuple[str, ...], held_out: float = 0.1, rng: Seed = 0) -> tuple[list[str], list[str]]:
    """Distinct names for training and for testing.

    Raises `ArgumentError` for a share `held_out` outside 0 to 1.

    >>> from tinyrnn import datasets
    >>> train, test = datasets.split_names(("anna", "bea", "carl", "dora"), held_out=0.25)
    >>> len(train), len(test)
    (3, 1)
    """
    train, test = split(len(names), held_out, rng)
    return [names[i] for i in train], [names[i] for i in test]


ALPHABET = "\n" + "abcdefghijklmnopqrstuvwxyz"  # token 0 starts and ends a name


def _codes(name: str) -> list[int]:
    if not set(name) <= set(ALPHABET[1:]):
        raise ArgumentError(f"{name!r} is no name of small letters from a to z")
    return [ALPHABET.index(c) for c in name]


def encode_names(names: list[str]) -> tuple[Array, Array, Array]:
    """Names as (inputs, targets, lengths): `\nanna` is read and `anna\n` is to be said.

    Whole numbers: inputs and targets [B, T], lengths [B].  Raises `ArgumentError` for what is no small letter from a to z.

    >>> from tinyrnn import datasets
    >>> x, y, lengths = datasets.encode_names(["anna", "bea"])
    >>> x.tolist(), y.tolist(), lengths.tolist()
    ([[0, 1, 14, 14, 1], [0, 2, 5, 1, 0]], [[1, 14, 14, 1, 0], [2, 5, 1, 0, 0]], [5, 4])
    """
    longest = max(map(len, names), default=0) + 1
    x = np.zeros((len(names), longest), np.int64)
    y = np.zeros_like(x)
    for row, name in enumerate(names):
        codes = _codes(name)
        x[row, 1 : len(codes) + 1] = codes
        y[row, : len(codes)] = codes
    return x, y, np.array([len(n) + 1 for n in names])


def decode_name(tokens: Array) -> str:
    """The letters up to the end token.

    Tokens [T], 0 to 26.  Raises `ArgumentError` for others.

    >>> from tinyrnn import datasets
    >>> datasets.decode_name([1, 14, 14, 1, 0, 3])
    'anna'
    """
    wrong = [int(t) for t in tokens if not 0 <= t < len(ALPHABET)]
    if wrong:
        raise ArgumentError(f"{wrong[0]} is no token of a name: expected 0 to {len(ALPHABET) - 1}")
    letters = [ALPHABET[int(t)] for t in tokens]
    return "".join(letters[: letters.index("\n")] if "\n" in letters else letters)


def name_rows(names: list[str]) -> list[list[int]]:
    """Names as rows of tokens with the end sign on both sides, as n-grams count them.

    Raises `ArgumentError` for what is no small letter from a to z.

    >>> from tinyrnn import datasets
    >>> datasets.name_rows(["anna"])
    [[0, 1, 14, 14, 1, 0]]
    """
    return [[0, *_codes(name), 0] for name in names]
