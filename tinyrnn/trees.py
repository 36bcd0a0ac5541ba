"""Nested lists, tuples and dicts of leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def flatten(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The leaves of a nested structure, and how to put new leaves into the same structure."""
    if tree is None:
        return [], lambda leaves: None
    if isinstance(tree, Mapping):
        keys = list(tree)
        leaves, form = flatten([tree[k] for k in keys])
        return leaves, lambda new: dict(zip(keys, form(new), strict=True))
    if isinstance(tree, tuple) or (isinstance(tree, list) and not is_array(tree)):
        parts = [flatten(t) for t in tree]
        sizes = [len(p[0]) for p in parts]

        def rebuild(new: list[Any]) -> Any:
            out, start = [], 0
            for (_, form), n in zip(parts, sizes, strict=True):
                out.append(form(new[start : start + n]))
                start += n
            named = hasattr(tree, "_fields")
            return type(tree)(*out) if named else tuple(out) if isinstance(tree, tuple) else out

        return [leaf for p in parts for leaf in p[0]], rebuild
    return [tree], lambda new: new[0]


def is_array(tree: Any) -> bool:
    """Whether a list is an array written out: numbers, or lists of numbers."""
    numbers = (bool, int, float, complex)
    return bool(tree) and all(isinstance(t, numbers) or (isinstance(t, list) and is_array(t)) for t in tree)


def map_tree(fn: Callable[[Any], Any], tree: Any) -> Any:
    """A structure with a function applied to every leaf."""
    leaves, rebuild = flatten(tree)
    return rebuild([fn(leaf) for leaf in leaves])
