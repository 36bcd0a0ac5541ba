"""Choices by whole numbers and bools that only the gradients of a program make.

What a float decides is compared at points of the field; an index or a mask is the same at every point, and its patterns are
too many.  So gradients choose by those comparisons, masks and indices alone by which the loss does; and so it is with
whole numbers that floats were cast to, and with floats that whole numbers were cast to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from .forms import kind_of

_CHOOSE = frozenset("less less_equal equal not_equal maximum minimum clip relu abs sign amax amin argmax".split())
_INDEX = {"gather": 1, "scatter_add": 1, "pick": 1, "one_hot": 0}
LOOKUP = -1  # stands for a lookup by an argument among the forms of a loop
_DERIVED = ("both", "either", "negate", "reshape", "broadcast_to")


def chooses_otherwise(program: Mapping[str, Any], needed: set[int]) -> bool:
    """Whether instructions that the loss does not need choose by whole numbers as it does not."""
    inputs = list(program["inputs"].values())
    drawn = {i for i, (dtype, _) in enumerate(inputs) if kind_of(dtype) != "f"}
    bools = {i for i, (dtype, _) in enumerate(inputs) if kind_of(dtype) == "b"}
    return _Scope(drawn, bools, len(inputs)).chooses(program["code"], needed)


@dataclass
class _Scope:
    """The values of some code: which follow from whole numbers alone, which are bools, which are constants."""

    drawn: set[int]
    bools: set[int]
    given: int
    inside: bool = False            # whether this is the body of a loop
    known: set[int] = field(default_factory=set)    # what the loss computes in its loops, by how it is written
    forms: dict[int, int] = field(default_factory=dict)
    constant: set[int] = field(default_factory=set)

    def chooses(self, code: Sequence[Any], needed: set[int]) -> bool:
        """Whether code beyond the needed one chooses by what was drawn."""
        lines = list(enumerate(code, self.given))
        for i, (name, _, at) in lines:
            if i in needed and name in ("scan", "region"):
                self.known |= set(_forms(at[0]["code"], at[0]["arguments"]).values()) | _looked_up(at[0])
        self.forms = _forms(code, self.given) if self.inside else {}
        follows = set(needed) | set(range(self.given))
        lookups = {(line[1][_INDEX[line[0]]], _axis(line)) for i, line in lines if i in needed and line[0] in _INDEX}
        for i, line in lines:
            name, sources, at = line
            self._kind(i, name, sources, at)
            if name in _DERIVED and set(sources) <= follows | self.constant:
                follows.add(i)
            if i not in needed and self._otherwise(i, name, sources, at, follows, lookups, line):
                return True
        return False

    def _kind(self, i: int, name: str, sources: Sequence[int], at: Sequence[Any]) -> None:
        cast = name == "astype" and kind_of(at[0]) != "f"
        if name in ("full", "literal", "iota") or (sources and set(sources) <= self.constant):
            self.constant.add(i)
        elif name == "argmax" or cast or (name not in ("scan", "region", "read") and (
                set(sources) <= self.drawn | self.constant)):
            self.drawn.add(i)
        if name in (*_DERIVED, "less", "less_equal", "equal", "not_equal") or (cast and kind_of(at[0]) == "b") or (
                name in ("slice", "take", "transpose", "where", "concat", "stack") and set(sources[-1:]) <= self.bools):
            self.bools.add(i)

    def _otherwise(self, i: int, name: str, sources: Sequence[int], at: Sequence[Any], follows: set[int],
                   lookups: set[tuple[int, Any]], line: Any) -> bool:
        """Whether an instruction that the loss does not need chooses by what was drawn, or casts it anew."""
        if self.forms.get(i) in self.known:
            return False
        if name in _CHOOSE:
            return i in self.drawn
        if name in _INDEX:
            index = sources[_INDEX[name]]
            if self.inside and (LOOKUP if index < self.given else self.forms[index]) in self.known:
                return False
            return index in self.drawn and not any(index == j and _alike(_axis(line), n) for j, n in lookups)
        if name == "astype":
            return sources[0] in self.drawn and not (sources[0] in self.bools and sources[0] in follows)
        if name in ("scan", "region"):
            return self._in_body(at[0], sources)
        return name == "where" and sources[0] in self.drawn and sources[0] not in follows

    def _in_body(self, body: Mapping[str, Any], sources: Sequence[int]) -> bool:
        drawn = {k for k, s in enumerate(sources) if s in self.drawn}
        bools = {k for k, s in enumerate(sources) if s in self.bools}
        return _Scope(drawn, bools, body["arguments"], True, self.known).chooses(body["code"], set())


def _looked_up(body: Mapping[str, Any]) -> set[int]:
    """Whether a body looks something up by one of its arguments."""
    found = any(name in _INDEX and sources[_INDEX[name]] < body["arguments"] for name, sources, _ in body["code"])
    return {LOOKUP} if found else set()


def _forms(code: Sequence[Any], given: int) -> dict[int, int]:
    """How each instruction of a body is written, whatever its arguments are."""
    found = dict.fromkeys(range(given), 0)
    for i, (name, sources, at) in enumerate(code, given):
        found[i] = hash((name, tuple(found[s] for s in sources), repr(at)))
    return {i: form for i, form in found.items() if i >= given}


def _axis(line: Any) -> Any:
    """How long the axis of a lookup is, where the instruction says so."""
    return line[2][0] if line[0] in ("scatter_add", "one_hot") else None


def _alike(a: npt.NDArray[Any], b: object) -> bool:
    return a is None or b is None or a == b
