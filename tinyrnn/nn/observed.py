"""What the layers of a model give in a run: each call is heard, and its output kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from ..ir.node import Node
from ..tensor.tensor import Tensor

Heard = dict[str, list[Node]]


@contextmanager
def observed(model: Any) -> Iterator[Heard]:
    """The outputs of every layer, by its path, in the order of the calls, while the block runs."""
    heard: Heard = {}
    layers = [(path, m, type(m)) for path, m in model.named_modules()]
    try:
        for path, m, kind in layers:
            m.__class__ = _listening(kind, heard.setdefault(path, []))
        yield heard
    finally:
        for _, m, kind in layers:
            m.__class__ = kind


def _listening(kind: type[Any], outputs: list[Node]) -> type[Any]:
    """The class of one layer that keeps what it returns; called by the same name, with the same arguments."""
    def keeping(name: str) -> Any:
        method = getattr(kind, name)

        @wraps(method)
        def call(self: Any, *args: Any, **keywords: Any) -> Any:
            result = method(self, *args, **keywords)
            first = result[0] if isinstance(result, tuple) and result else result
            if isinstance(first, Tensor):
                outputs.append(first.source())
            return result

        return call

    methods = {name: keeping(name) for name in ("__call__", "ended") if hasattr(kind, name)}
    return type(kind.__name__, (kind,), {**methods, "__module__": kind.__module__, "__qualname__": kind.__qualname__})
