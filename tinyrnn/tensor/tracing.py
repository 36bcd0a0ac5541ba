"""What a function does while it is traced, beside computing: assignments, fresh randomness, modes that it looked at.

Not to be confused with the traces of a scan (`ir/scan.py`), the values of all its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..ir.node import Node


class Trace:
    """The side effects of one trace."""

    def __init__(self) -> None:
        self.updates: dict[Node, Node] = {}                      # leaf -> its new value
        self.draws: list[tuple[Node, Callable[[], Any]]] = []    # leaf -> what fills it before every call
        self.guards: list[tuple[Any, str, Any]] = []             # object, attribute, the value that was seen

    def holds(self) -> bool:
        """Whether everything that was looked at still is as it was."""
        return all(getattr(owner, name) == value for owner, name, value in self.guards)


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current() -> Trace | None:
    """The trace in progress."""
    return _current.get()


_graphs: ContextVar[bool] = ContextVar("graphs", default=False)


def as_graphs() -> bool:
    """Whether somebody asks for gradients of what is computed here, so that values need their history."""
    return _graphs.get()


@contextmanager
def graphs() -> Iterator[None]:
    """Inside, steps of layers in evaluation mode keep their history as well."""
    token = _graphs.set(True)
    try:
        yield
    finally:
        _graphs.reset(token)


@contextmanager
def tracing(trace: Trace | None) -> Iterator[None]:
    """Inside, tensors report to `trace`."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)
