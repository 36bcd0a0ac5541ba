"""The form of instructions: how many sources and which attributes each takes, and which kinds of values.

The rules of the interpreter may then take what they are given at its word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import LoadError

_ONE = ("tanh sigmoid softplus exp log sqrt sin cos expm1 log1p log_or_zero neg sign abs relu").split()
_TWO = ("add sub mul scale div power maximum minimum less less_equal equal not_equal").split()
_MANY = None

# Sources, and attributes by a letter each: n natural, i whole, x number, b bool, s shape, a axes, p parts, d type of numbers,
# v value or array of values, t text, B body, * anything.
FORMS: dict[str, tuple[int | None, str]] = {
    **dict.fromkeys(_ONE, (1, "")), **dict.fromkeys(_TWO, (2, "")),
    "stop_gradient": (1, ""), "negate": (1, ""), "both": (2, ""), "either": (2, ""), "where": (3, ""), "matmul": (2, ""),
    "powk": (1, "x"), "clip": (1, "xx"), "add_n": (_MANY, ""), "sum": (1, "ab"), "amax": (1, "ab"), "amin": (1, "ab"),
    "cumsum": (1, "n"), "argmax": (1, "n"), "reshape": (1, "s"), "transpose": (1, "a"), "broadcast_to": (1, "s"),
    "slice": (1, "p"), "take": (1, "n"), "concat": (_MANY, "n"), "stack": (_MANY, ""), "gather": (2, ""), "pick": (2, ""),
    "astype": (1, "d"), "einsum": (_MANY, "t"), "place": (1, "ps"), "put": (1, "nn"), "scatter_add": (2, "n"),
    "one_hot": (1, "nd"), "full": (0, "xsd"), "literal": (0, "vsd"), "iota": (0, "sd"), "tag": (1, "*"), "scan": (_MANY, "B"),
    "region": (_MANY, "B"), "read": (1, "n"), "accumulate": (2, "b")}

_NUMBERS = {*_ONE, *_TWO, "powk", "clip", "sum", "amax", "amin", "cumsum", "matmul", "einsum", "add_n", "argmax",
            "accumulate"}
_BOOLS = {"both": (0, 1), "either": (0, 1), "negate": (0,), "where": (0,)}
_WHOLE = {"gather": 1, "pick": 1, "scatter_add": 1, "one_hot": 0}


def kind_of(dtype: npt.DTypeLike) -> str:
    """f, i, u or b."""
    try:
        kind = np.dtype(dtype).kind if isinstance(dtype, str) else ""
    except TypeError:
        kind = ""
    if kind not in ("f", "i", "u", "b"):
        raise LoadError(f"the certificate is damaged: {str(dtype)[:40]!r} is no type of numbers")
    return kind


def natural(n: object) -> bool:
    return type(n) is int and n >= 0


def _naturals(x: object) -> bool:
    return isinstance(x, tuple) and all(natural(n) for n in x)


def _number(x: object) -> bool:
    return type(x) in (int, float, bool)


def _parts(x: object) -> bool:
    return isinstance(x, tuple) and all(isinstance(p, tuple) and len(p) == 3 and natural(p[0]) and natural(p[1])
                                        and type(p[2]) is int and p[2] != 0 for p in x)


def _body(x: object) -> bool:
    return isinstance(x, dict) and natural(x.get("arguments")) and all(isinstance(x.get(k), list) for k in ("code", "outs"))


_LETTERS: dict[str, Callable[[Any], bool]] = {
    "n": natural, "x": _number, "b": lambda x: type(x) is bool, "s": _naturals,
    "a": lambda x: _naturals(x) and len(set(x)) == len(x), "p": _parts, "d": lambda x: kind_of(x) != "",
    "v": lambda x: _number(x) or (isinstance(x, np.ndarray) and x.dtype.kind in "fiub"), "t": lambda x: isinstance(x, str),
    "B": _body}


def checked(name: object, x: Sequence[Any], at: Sequence[Any]) -> None:
    """Raises `LoadError` for an instruction whose sources or attributes are not those of its op."""
    if not isinstance(name, str) or name not in FORMS:
        raise LoadError(f"the certificate holds the instruction {str(name)[:40]!r}, which the checker does not know")
    sources, letters = FORMS[name]
    fits = (len(x) == sources or (sources is None and (len(x) > 0 or name == "scan"))) and (letters == "*" or (
        len(at) == len(letters) and all(_LETTERS[k](a) for k, a in zip(letters, at, strict=True))))
    if not fits or not _kinds_fit(name, x) or not _shapes_fit(name, x, at):
        raise LoadError(f"the certificate is damaged: the instruction {name!r} does not fit what it is given")


def _kinds_fit(name: str, x: Sequence[Any]) -> bool:
    if name == "read":
        return isinstance(x[0], list)
    if not all(isinstance(v, np.ndarray) for v in x):
        return False
    kinds = [v.dtype.kind for v in x]
    if name in _WHOLE and kinds[_WHOLE[name]] not in "iu":
        return False
    if name in _NUMBERS and "b" in kinds and name not in ("equal", "not_equal"):
        return False
    return all(kinds[i] == "b" for i in _BOOLS.get(name, ()))


def _shapes_fit(name: str, x: Sequence[Any], at: Sequence[Any]) -> bool:
    """What NumPy would stretch, cut or wrap around without a word."""
    if name == "place":
        parts, shape = at
        return len(parts) == len(shape) and x[0].shape == tuple(n for _, n, _ in parts) and _inside(parts, shape)
    if name == "slice":
        return len(at[0]) == x[0].ndim and _inside(at[0], x[0].shape)
    if name == "scatter_add":
        return bool(x[0].shape[:x[1].ndim] == x[1].shape)
    if name == "pick":
        return bool(x[0].shape[:-1] == x[1].shape)
    if name == "accumulate":
        return bool(x[0].shape == x[1].shape)
    if name == "matmul":
        return bool(x[0].ndim >= 2 and x[1].ndim >= 2)
    if name in ("take", "put"):
        return bool(x[0].ndim and at[0] < len(x[0])) if name == "take" else at[0] < at[1]
    return name != "literal" or np.shape(at[0]) == at[1]


def _inside(parts: Sequence[tuple[int, int, int]], shape: Sequence[int]) -> bool:
    return all(not n or (first < size and 0 <= first + (n - 1) * step < size)
               for (first, n, step), size in zip(parts, shape, strict=True))
