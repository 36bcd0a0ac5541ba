"""Choices by whole numbers and bools that only the gradients of a program make.

What a float decides is compared at points of the field; an index or a mask is the same at every point, and its patterns are
too many.  So gradients choose by those comparisons, masks and indices alone by which the loss does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .forms import kind_of

_COMPARED = ("less", "less_equal", "equal", "not_equal")
_INDEX = {"gather": 1, "scatter_add": 1, "pick": 1, "one_hot": 0}
_DERIVED = ("both", "either", "negate", "reshape", "broadcast_to")


def chooses_otherwise(program: Mapping[str, Any], needed: set[int]) -> bool:
    """Whether instructions that the loss does not need compare whole numbers, or choose by others than it does."""
    drawn = {i for i, (dtype, _) in enumerate(program["inputs"].values()) if kind_of(dtype) != "f"}
    bodies = [at[0] for i, (name, _, at) in enumerate(program["code"], len(program["inputs"]))
              if i in needed and name in ("scan", "region")]
    inside = any(_in_body(b, range(b["arguments"]), set(range(b["arguments"]))) for b in bodies)
    return bool(drawn) and _chooses(program["code"], drawn, needed, set(range(len(program["inputs"]))), inside)


def _chooses(code: Sequence[Any], drawn: set[int], known: set[int], given: set[int], inside: bool = False) -> bool:
    """Whether code that is not known chooses by what was drawn; `inside` says that the loss itself does so inside of a loop."""
    drawn, constant, follows = set(drawn), set[int](), set(known) | given
    for i, (name, sources, at) in enumerate(code, len(given)):
        whole = bool(drawn & set(sources)) and set(sources) <= drawn | constant
        if i not in known:
            if name in _COMPARED and whole:
                return True
            if name in _INDEX and sources[_INDEX[name]] in drawn and sources[_INDEX[name]] not in follows:
                return True
            if name == "where" and sources[0] in drawn and sources[0] not in follows:
                return True
            if name in ("scan", "region") and not inside and _in_body(at[0], sources, drawn):
                return True
        if name in _DERIVED and set(sources) <= follows | constant:
            follows.add(i)
        if not sources:
            constant.add(i)
        elif whole and name not in ("scan", "region", "read") and not (name == "astype" and kind_of(at[0]) == "f"):
            drawn.add(i)
    return False


def _in_body(body: Mapping[str, Any], sources: Sequence[int], drawn: set[int]) -> bool:
    args = set(range(body["arguments"]))
    return _chooses(body["code"], {k for k, s in enumerate(sources) if s in drawn}, set(), args)
