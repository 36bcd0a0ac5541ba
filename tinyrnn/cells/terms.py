"""What the equation language says, as data: terms, equations, systems; and how they are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import EquationError
from ..functions import LISTS


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in the text; only for messages."""

    line: int
    column: int
    source: str

    def error(self, message: str) -> EquationError:
        return EquationError(message, self.source, self.line, self.column)


@dataclass(frozen=True, slots=True)
class Term:
    """An expression: its kind, what it is (a number, a name, an operator), and its operands."""

    kind: str  # number signal parameter transpose size call binary compare negate join; in derivations also adjoint, variable
    value: Any
    args: tuple[Term, ...] = ()
    place: Place = field(default=Place(0, 0, ""), compare=False)

    def walk(self) -> Iterator[Term]:
        """This term and everything inside it."""
        stack = [self]
        while stack:
            term = stack.pop()
            yield term
            stack.extend(reversed(term.args))

    def map(self, f: Callable[[Term], Term]) -> Term:
        """The same term over other operands."""
        return replace(self, args=tuple(map(f, self.args)))

    def rewritten(self, rule: Callable[[Term], Term | None]) -> Term:
        """The term with every part, outermost first, for which there is a rule replaced by what the rule says."""
        new = rule(self)
        return self.map(lambda x: x.rewritten(rule)) if new is None else new


@dataclass(frozen=True, slots=True)
class Equation:
    """`name[t] = term`."""

    name: str
    term: Term
    place: Place = field(default=Place(0, 0, ""), compare=False)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a line without time index says of a parameter: scalar, its sizes, fixed."""

    name: str
    sizes: tuple[str, ...] | None
    fixed: bool
    place: Place = field(default=Place(0, 0, ""), compare=False)


@dataclass(frozen=True)
class System:
    """All lines of a cell."""

    equations: tuple[Equation, ...]
    declarations: tuple[Declaration, ...] = ()
    constants: tuple[tuple[str, float], ...] = ()
    learned: tuple[tuple[str, int], ...] = ()
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    header: tuple[str, ...] = field(default=(), compare=False)
    places: tuple[tuple[str, Place], ...] = field(default=(), compare=False)

    def place(self, what: str) -> Place:
        """Where a line without time index stands: `outputs`, `h[0]`, or the name of a constant."""
        return dict(self.places).get(what, self.equations[0].place)

    @property
    def names(self) -> set[str]:
        """Every name in the equations and declarations."""
        terms = [t for e in self.equations for t in e.term.walk()]
        return {*(e.name for e in self.equations), *(d.name for d in self.declarations), *dict(self.constants),
                *(t.value[0] if t.kind == "signal" else t.value for t in terms if t.kind in NAMED)}


NAMED = ("signal", "parameter", "transpose", "size")


def fresh(wanted: str, taken: set[str]) -> str:
    """A name like the wanted one that nobody has yet: `keep_h`, `keep_h_1`, `keep_h_2`, ..."""
    numbered = (f"{wanted}_{k}" for k in range(1, len(taken) + 2))
    return next(n for n in (wanted, *numbered) if n not in taken)


def number(value: float) -> Term:
    """A number as it is written: the sign of a negative one is an operator."""
    return Term("negate", None, (Term("number", -float(value)),)) if value < 0 else Term("number", float(value))


# ---- printing: the inverse of `parse`

_LEVEL = {"<": 0, "<=": 0, ">": 0, ">=": 0, "+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "**": 4}


LOGIC = {"and": " & ", "or": " | ", "not": "~"}


def when(lag: int) -> str:
    """The time index `t-1`, `t`, `t+1` of a lag."""
    return "t" if not lag else f"t-{lag}" if lag > 0 else f"t+{-lag}"


def show(term: Term, level: int = 0) -> str:
    """A term as text that parses to the same term."""
    match term.kind:
        case "number" if not math.isfinite(term.value):
            return "nan" if math.isnan(term.value) else "inf" if term.value > 0 else "-inf"
        case "number":
            return repr(int(term.value)) if term.value.is_integer() and abs(term.value) < 1e15 else repr(term.value)
        case "signal":
            name, lag = term.value
            return f"{name}[{when(lag)}]"
        case "adjoint":
            name, lag = term.value
            return f"dL/d{name}[{when(lag)}]" if not name.startswith("loss ") else f"dl/d{name[5:]}[{when(lag)}]"
        case "parameter" | "variable":
            return str(term.value)
        case "transpose":
            return f"{term.value}.T" if not term.args else f"{show(term.args[0], 5)}.T"
        case "size":
            return f"size({term.value}[t])" if not term.value.endswith(("_rows", "_cols")) else str(term.value)
        case "call" if term.value in LOGIC:  # in derivations; as Python reads conditions of arrays
            parts = [f"({show(a)})" for a in term.args]
            text, own = LOGIC[term.value].join(parts) if len(parts) > 1 else f"~{parts[0]}", 1
        case "call":
            return f"{term.value}({', '.join(map(show, term.args))})"
        case "join":
            return f"[{', '.join(map(show, term.args))}]"
        case "negate":
            text, own = f"-{show(term.args[0], 3)}", 3
        case _:
            own = _LEVEL[term.value]
            left, right = (own + 1, own) if term.value == "**" else (own, own + 1)
            text = f"{show(term.args[0], left)} {term.value} {show(term.args[1], right)}"
    return f"({text})" if own < level else text


def show_system(system: System) -> str:
    """All lines of a cell as text."""
    lines = [f"# {line}" for line in system.header]
    lines += [f"{name} = {show(Term('number', value))}" for name, value in system.constants]
    for d in system.declarations:
        sizes = "scalar" if d.sizes == () and not d.fixed else "" if d.sizes is None else f"({', '.join(d.sizes)})"
        lines.append(f"{d.name}: {sizes}{' ' * bool(sizes) if d.fixed else ''}{'fixed' if d.fixed else ''}")
    lines += [f"{name}[{step}]: learned" for name, step in system.learned]
    lines += [f"{what}: {', '.join(getattr(system, what))}" for what in LISTS if getattr(system, what)]
    lines += [f"{e.name}[t] = {show(e.term)}" for e in system.equations]
    return "\n".join(lines) + "\n"
