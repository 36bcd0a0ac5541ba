"""Functions that are pickled by their names, as pickle itself does it, and those that cannot be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from types import FunctionType
from typing import Any

from ..errors import ArgumentError

Function = Callable[..., Any]


def meaning(function: Function) -> object:
    """What the name of a function means in its module now: the function, what a decorator made of it, or None."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    return reduce(lambda found, part: getattr(found, part, None), getattr(function, "__qualname__", "").split("."), module)


def looked_up(module: str, name: str) -> Any:
    """What a name means in a module, which is imported for it."""
    return reduce(getattr, name.split("."), import_module(module))


def importable(function: Function) -> Function:
    """The function, where another process finds it again."""
    if isinstance(function, FunctionType) and meaning(function) is not function:
        raise ArgumentError(f"{function.__qualname__} of {function.__module__} cannot be found again by its name, so a program "
                            "of it is not pickled: give it a name of its own at the top of a module")
    return function
