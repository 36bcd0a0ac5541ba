"""Every error of tinyrnn: what was seen, what was expected, where, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


def printable(text: str) -> str:
    """A text whose control characters are spelled out: what a terminal would obey is shown."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class TinyRNNError(Exception):
    """Root of all errors raised on purpose by tinyrnn."""

    def __new__(cls, *args: object, **keywords: object) -> Self:
        noted = _noted.get()
        if noted is not None:
            noted.append(cls)
        return super().__new__(cls, *args, **keywords)


_noted: ContextVar[list[type] | None] = ContextVar("errors", default=None)


@contextmanager
def noting_errors() -> Iterator[list[type]]:
    """Inside, every error of ours that is made is noted, whether somebody catches it or not."""
    found: list[type] = []
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


def users_line() -> int:
    """The `stacklevel` at which whoever called this warns about a line of the user's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("tinyrnn."):
        level, frame = level + 1, frame.f_back
    return level


class ShapeError(TinyRNNError, ValueError):
    """Sizes that do not fit together."""


class DTypeError(TinyRNNError, TypeError):
    """A kind of number that an operation has no meaning for."""


class ArgumentError(TinyRNNError, ValueError):
    """An argument outside its documented range."""


class GraphError(TinyRNNError, ValueError):
    """A graph that is not well formed, or values that do not match its inputs."""


class GradientError(TinyRNNError, ValueError):
    """A derivative that was asked for but does not exist."""


class SymbolicError(TinyRNNError, TypeError):
    """A number was asked of something that is only a placeholder for numbers."""


class StaleError(TinyRNNError, RuntimeError):
    """A tensor whose parameters were assigned before it was ever evaluated."""


class IndexRangeError(TinyRNNError, IndexError):
    """An index outside the table that it looks up."""


class EquationError(TinyRNNError, ValueError):
    """Equations that are not a cell; carries `line` and `column` (both from 1, 0 when unknown)."""

    def __init__(self, message: str, source: str = "", line: int = 0, column: int = 0) -> None:
        self.line, self.column = line, column
        super().__init__(_with_caret(message, source, line, column) if line else message)


class BackendError(TinyRNNError, RuntimeError):
    """A backend or domain that cannot run what was asked."""


class UndefinedError(BackendError):
    """An exact run that meets a number which is not defined: 1/0, or a NaN that decides a branch."""


class OutOfMemoryError(BackendError, MemoryError):
    """No room on the device for what a plan needs."""


class FallbackWarning(UserWarning):
    """Something runs on the interpreter, more slowly, because no compiled kernel exists for it."""


class LongLoopWarning(UserWarning):
    """Many equal steps of a Python loop were traced one by one; a scan compiles one of them."""


class ConversionWarning(UserWarning):
    """Something that a model of another framework does, and the converted one does not do by itself."""


class NonFiniteError(TinyRNNError, FloatingPointError):
    """Training met NaN or infinity."""


class ProofError(TinyRNNError, AssertionError):
    """A gradient that is not the derivative, or two graphs that are not equal.

    Carries `parameter`, `entry`, `step` (None where no single step is wrong), and `residual`: the engine's value minus
    the true one, as text.
    """

    def __init__(self, message: str, parameter: str = "", entry: tuple[int, ...] = (), step: int | None = None,
                 residual: str = "") -> None:
        self.parameter, self.entry, self.step, self.residual = parameter, entry, step, residual
        super().__init__(message)


class TermLimitError(TinyRNNError, OverflowError):
    """A polynomial grew past the cap on its terms; the finite field has no such cap."""


class LoadError(TinyRNNError, ValueError):
    """A file that is not what it should be; nothing was changed by reading it.

    What the message quotes from the file is shown with its control characters spelled out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class DrawError(TinyRNNError, RuntimeError):
    """A picture that could not be rendered."""


class MissingPackageError(TinyRNNError, ImportError):
    """A package that this needs is not installed."""


_WIDTH = 96


def _with_caret(message: str, source: str, line: int, column: int) -> str:
    """The message, then the source line cut to a readable window, then a caret under the column."""
    start = max(0, column - 1 - _WIDTH // 2) if len(source) > _WIDTH else 0
    window = source[start : start + _WIDTH].replace("\t", " ")
    window = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in window)
    caret = " " * (column - 1 - start) + "^"
    return f"{message}\n  line {line}, column {column}:\n    {window}\n    {caret}"
