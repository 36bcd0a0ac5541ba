"""Nested lists, tuples and dicts of leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .errors import ArgumentError


def flatten(tree: object) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The leaves of a nested structure, and how to put new leaves into the same structure."""
    if tree is None:
        return [], lambda leaves: None
    if isinstance(tree, Mapping):
        keys = list(tree)
        leaves, form = flatten(tuple([tree[k] for k in keys]))
        return leaves, lambda new: dict(zip(keys, form(new), strict=True))
    if isinstance(tree, tuple) or (isinstance(tree, list) and not is_array(tree)):
        parts = [flatten(t) for t in tree]
        sizes = [len(p[0]) for p in parts]
        if type(tree) is tuple and all(form is _itself for _, form in parts):
            return [leaf for p in parts for leaf in p[0]], tuple

        def rebuild(new: list[Any]) -> Any:
            out, start = [], 0
            for (_, form), n in zip(parts, sizes, strict=True):
                out.append(form(new[start : start + n]))
                start += n
            named = hasattr(tree, "_fields")
            return type(tree)(*out) if named else tuple(out) if isinstance(tree, tuple) else out

        return [leaf for p in parts for leaf in p[0]], rebuild
    return [tree], _itself


def _itself(leaves: list[Any]) -> Any:
    """The structure of a single leaf."""
    return leaves[0]


def names_of(tree: Any, within: str = "") -> list[str] | None:
    """The name of every leaf, `scores.loss`, by the keys of dicts and the fields of named tuples; None where one has none."""
    if tree is None:
        return []
    fields = tree if isinstance(tree, Mapping) else tree._asdict() if hasattr(tree, "_fields") else None
    if fields is None:
        return [within] if within and _kind(tree) is None else None
    found = [names_of(part, f"{within}.{k}" if within else k) if isinstance(k, str) else None for k, part in fields.items()]
    return None if None in found else [name for names in found if names is not None for name in names]


def leaves_like(tree: Any, like: Any, what: str) -> list[Any]:
    """The leaves of a structure in the order of another one, entries of dicts by their keys; another nesting, number of
    parts or set of keys is refused."""
    if _kind(tree) != _kind(like):
        raise ArgumentError(f"{what} is {described(tree)}, expected {described(like)} as before")
    if isinstance(like, Mapping):
        return [leaf for k in like for leaf in leaves_like(tree[k], like[k], f"{what}[{k!r}]")]
    if hasattr(like, "_fields"):
        return [leaf for k in like._fields for leaf in leaves_like(getattr(tree, k), getattr(like, k), f"{what}.{k}")]
    if _kind(like) not in (None, ()):
        pairs = enumerate(zip(tree, like, strict=True))
        return [leaf for i, (t, part) in pairs for leaf in leaves_like(t, part, f"{what}[{i}]")]
    return [tree] if like is not None else []


def _kind(tree: Any) -> Any:
    """What two structures must share: the keys of a dict, the length of a list or tuple; None for a leaf."""
    if isinstance(tree, Mapping):
        return frozenset(tree)
    if hasattr(tree, "_fields"):
        return "fields", frozenset(tree._fields)
    if isinstance(tree, (tuple, list)) and not (isinstance(tree, list) and is_array(tree)):
        return isinstance(tree, tuple), len(tree)
    return () if tree is None else None


def described(tree: Any) -> str:
    """A structure without its leaves: `{'h': ., 'c': (., .)}`."""
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{k!r}: {described(v)}" for k, v in tree.items()) + "}"
    if hasattr(tree, "_fields"):
        return f"{type(tree).__name__}({', '.join(f'{k}={described(getattr(tree, k))}' for k in tree._fields)})"
    if _kind(tree) in (None, ()):
        return "None" if tree is None else "."
    parts = ", ".join(map(described, tree))
    return f"[{parts}]" if isinstance(tree, list) else f"({parts}{',' * (len(tree) == 1)})"


def is_array(tree: Any) -> bool:
    """Whether a list is an array written out: numbers, or lists of numbers."""
    numbers = (bool, int, float, complex)
    return bool(tree) and all(isinstance(t, numbers) or (isinstance(t, list) and is_array(t)) for t in tree)


def map_tree(fn: Callable[[Any], Any], tree: object) -> Any:
    """A structure with a function applied to every leaf."""
    leaves, rebuild = flatten(tree)
    return rebuild([fn(leaf) for leaf in leaves])
