"""Tasks that are made up: long memories, and a motif in DNA."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError

Array = npt.NDArray[Any]


def adding(rows: int, steps: int, rng: Any = None) -> tuple[Array, Array]:
    """Numbers and two marks, one in each half: the target is the sum of the marked numbers (Hochreiter & Schmidhuber, 1997).

    x [rows, steps, 2] (number from 0 to 1, mark), y [rows, 1].  Always saying 1 has a mean square error of 1/6.

    Raises `ArgumentError` for fewer than 2 steps.

    >>> x, y = adding(3, 10, rng=0)
    >>> x[..., 1].sum(1), bool(np.allclose((x[..., 0] * x[..., 1]).sum(1), y[:, 0]))
    (array([2., 2., 2.], dtype=float32), True)
    """
    if steps < 2:
        raise ArgumentError(f"steps={steps!r}: two marks need at least 2 steps")
    generator = np.random.default_rng(rng)
    x = np.zeros((rows, steps, 2), np.float32)
    x[..., 0] = generator.random((rows, steps))
    half = steps // 2
    for low, high in ((0, half), (half, steps)):
        x[np.arange(rows), generator.integers(low, high, rows), 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(1, keepdims=True)


def copy_memory(rows: int, delay: int, symbols: int = 10, kinds: int = 8, rng: Any = None) -> tuple[Array, Array]:
    """Symbols, then `delay` blanks, then a sign to repeat the symbols (Hochreiter & Schmidhuber, 1997; Arjovsky et al., 2016).

    Tokens: 0 is blank, 1 to `kinds` are symbols, `kinds + 1` the sign.  x and y [rows, delay + 2 symbols].

    Raises `ArgumentError` for a delay or a number of kinds below 1.

    >>> x, y = copy_memory(1, 3, symbols=2, kinds=4, rng=0)
    >>> x.tolist(), y.tolist()
    ([[4, 3, 0, 0, 5, 0, 0]], [[0, 0, 0, 0, 0, 4, 3]])
    """
    if delay < 1 or kinds < 1:
        raise ArgumentError(f"delay={delay!r}, kinds={kinds!r}: expected whole numbers from 1")
    said = np.random.default_rng(rng).integers(1, kinds + 1, (rows, symbols))
    x = np.zeros((rows, delay + 2 * symbols), np.int64)
    y = np.zeros_like(x)
    x[:, :symbols], x[:, symbols + delay - 1], y[:, symbols + delay :] = said, kinds + 1, said
    return x, y


MOTIF = (("TATAAT", "TTGACA"), (15, 19))  # the -10 and -35 boxes of bacterial promoters, and their distance


def promoters(rows: int, steps: int = 60, mutations: float = 0.1, rng: Any = None) -> tuple[Array, Array]:
    """Made-up DNA: half of the rows hold TTGACA, 15 to 19 letters later TATAAT, the other half hold both out of order.

    Each letter of a motif is another one with probability `mutations`.  x [rows, steps] (A, C, G, T as 0 to 3), y [rows, 1].

    Raises `ArgumentError` for fewer than 31 steps, into which both boxes may not fit.

    >>> x, y = promoters(4, rng=0)
    >>> x.shape, y.sum()
    ((4, 60), np.float32(2.0))
    """
    (early, late), (near, far) = MOTIF
    if steps < far + 12:
        raise ArgumentError(f"steps={steps!r}: expected at least {far + 12}, so that both boxes fit")
    generator = np.random.default_rng(rng)
    x = generator.integers(0, 4, (rows, steps))
    y = np.zeros((rows, 1), np.float32)
    y[generator.permutation(rows)[: rows // 2]] = 1
    for row in range(rows):
        gap = int(generator.integers(near, far + 1))
        start = int(generator.integers(0, steps - gap - 12 + 1))
        pair = (late, early) if y[row, 0] else (early, late)
        for motif, at in zip(pair, (start, start + 6 + gap), strict=True):
            letters = np.array(["ACGT".index(c) for c in motif])
            changed = generator.random(6) < mutations
            x[row, at : at + 6] = np.where(changed, generator.integers(0, 4, 6), letters)
    return x, y
