"""`check`: a derivation that someone wrote, judged line by line by proof."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ..cells import Cell
from ..cells.equations import parse_line
from ..cells.mistakes import nearest
from ..cells.paper import rounded
from ..cells.terms import Term, show
from ..errors import ArgumentError, EquationError, LoadError
from ..shapes import show as show_shape
from ..symbolic.checker.numbers import Array, NearError, Residue, each, filled, summed
from ..symbolic.derivation.formulas import Formula
from ..symbolic.derivation.to_terms import block_name
from .slips import Slip, explained
from .truth import WORK, Equals, Truth

_LINE = re.compile(r"\s*(?:(?P<quantity>[^\W\d]\w*)\s*\[\s*t\s*\]\s*=(?!=)|(?P<parameter>[^\W\d]\w*)\s*[:=](?!=))(?P<term>.*)$")
LONGEST = 300     # letters of a formula that is shown as the right one
MOST_POINTS = 12  # at which a cell is run whose functions decide by their argument
FURTHER = 6       # points at which a line is tried that decides by numbers by which the cell does not
ALIKE = 1e-9  # floats that differ by less do not show a difference; they never show that there is none


@dataclass(frozen=True)
class JudgedLine:
    """One line: whether it holds; if not, at which step, what is wrong, what belongs there, and both numbers.

    `undecided` says that it was not proved although its numbers agree.  `wrong` and `right` are terms of the line and of the
    derivation (either may be empty: something is missing, or does not belong there), `found` and `expected` the values of the
    two sides at that step, `residual` their difference.
    """

    text: str
    holds: bool
    step: int = 0
    steps: int = 0
    wrong: str = ""
    right: str = ""
    words: str = ""
    undecided: bool = False
    found: Any = field(default=None, compare=False)
    expected: Any = field(default=None, compare=False)

    @property
    def residual(self) -> Any:
        """What the line gives, less what it should give."""
        return None if self.found is None or np.shape(self.found) != np.shape(self.expected) else self.found - self.expected

    def __str__(self) -> str:
        if self.holds:
            return f"holds  {self.text}" + (f"\n       {self.words}" if self.words else "")
        lines = [f"{'NOT PROVED' if self.undecided else 'WRONG'}  {self.text}", f"       {self.words}"]
        if self.found is not None and not self.undecided:
            where = f"at t = {self.step} of {self.steps} it gives {_numbers(self.found)}"
            lines.append(f"       {where}, the derivative is {_numbers(self.expected)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Judgement:
    """A derivation judged: `holds` says whether every line does, `lines` has each, `wrong` those that do not.

    `error_bound` is the probability with which a wrong line may pass.
    """

    cell: Cell
    lines: tuple[JudgedLine, ...]
    error_bound: float

    @property
    def holds(self) -> bool:
        return all(line.holds for line in self.lines)

    @property
    def wrong(self) -> tuple[JudgedLine, ...]:
        """The lines that do not hold."""
        return tuple(line for line in self.lines if not line.holds)

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        n, bad = len(self.lines), len(self.wrong)
        verdict = f"{'all' if n > 1 else 'the'} {f'{n} lines hold' if n > 1 else 'line holds'}" if not bad else (
            f"{bad} of {n} lines {'does' if bad == 1 else 'do'} not hold")
        return "\n".join([f"{self.cell.name}: {verdict}; a wrong line passes with probability {self.error_bound:.0e} at most",
                          *map(str, self.lines)])

    def __repr__(self) -> str:
        return f"<Judgement of {len(self.lines)} lines: {'all hold' if self.holds else f'{len(self.wrong)} do not hold'}>"

    def _repr_markdown_(self) -> str:
        return f"```text\n{self}\n```"


def check(cell: Cell, equations: str, *, rng: int = 0) -> Judgement:
    """Judge a derivation of a cell's backward pass line by line, by proof.

    `dh[t] = ...` is the whole ∂L/∂h[t], of any quantity of the cell and of its inputs; `da[t]`, or `da_f[t]` where there are
    several gates, that of what goes into the function of a gate; `U: outer(da[t], h[t-1])` the share of a step in ∂L/∂U.
    L is a sum of losses of the steps; `loss_h[t]` is what the loss of step t contributes to an output h itself.  Other names
    on the left are your own helpers.  A line may read any derivative, whether or not a line gives it: each line is judged
    by itself, with the right values of everything else.  The columns of a matrix over [h, x] are W_h and W_x.

    Both sides are compared at a random point modulo a prime of 61 bits, at every step: equal forms are equal, whatever they
    look like, and a wrong line passes with the probability that `error_bound` says.  Floats only show the difference.

    Shapes are those of the quantity (dh[t] [h]) or the parameter (U [h, h]).  Raises `EquationError` for what is no equation,
    names that mean nothing and definitions in a circle; `ArgumentError` for what is no cell.  After Schwartz (1980) and
    Zippel (1979).

    >>> import tinyrnn as tr
    >>> cell = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
    >>> print(tr.check(cell, "dh[t] = loss_h[t] + U.T @ da[t+1]").holds)
    True
    >>> print(tr.check(cell, "da[t] = dh[t] * (1 - h[t])").lines[0].words)
    in dh[t] * (1 - h[t]) stands 1 - h[t] instead of 1 - h[t] ** 2
    """
    if not isinstance(cell, Cell):
        raise ArgumentError(f"check takes a cell, got {type(cell).__name__}; a layer's equations are layer.cell")
    if not isinstance(equations, str):
        raise ArgumentError(f"equations are text, a line for each derivative; got {type(equations).__name__}")
    if isinstance(rng, bool) or not isinstance(rng, int) or rng < 0:
        raise ArgumentError(f"rng={rng!r}: expected a whole number from 0")
    students = []
    for truth in _truths(cell, rng):
        truth.point.work.left = WORK
        students.append(_Student(truth, equations))
    first = students[0]
    for line in first.lines:
        if not line.judged:
            first.tried(line)
    lines = [_judged_at_all(students, k, equations) for k, line in enumerate(first.lines) if line.judged]
    if not lines:
        raise EquationError(first.nothing())
    return Judgement(cell, tuple(lines), float(min(1.0, sum(s.error_bound for s in students))))


def _judged_at_all(students: Sequence[_Student], number: int, equations: str) -> JudgedLine:
    """One line at every point; the first that shows a slip says it.  What decides as the cell does not is tried at more."""
    found = students[0].judged(students[0].lines[number])
    for student in students[1:]:
        if not found.holds:
            break
        found = student.judged(student.lines[number])
    if not found.undecided:
        return found
    for further in _further(students[0].truth):
        other = _Student(further, equations)
        tried = other.judged(other.lines[number])
        if not tried.holds and not tried.undecided and tried.found is not None:  # floats of any size may overflow
            return tried
    return found


@lru_cache(maxsize=4)
def _further(truth: Truth) -> tuple[Truth, ...]:
    """The same at points with other sizes of floats, which may decide otherwise."""
    return tuple(Truth(truth.given, truth.seed + 100 + draw, draw) for draw in range(1, FURTHER + 1))


@lru_cache(maxsize=4)
def _truths(cell: Cell, seed: int) -> tuple[Truth, ...]:
    """Runs at random points: one, or as many as it takes until each decision of the cell has gone both ways.

    Several tries at one cell share its derivatives.
    """
    found = [Truth(cell, seed)]
    while len(found) < MOST_POINTS and not _both_ways(found):
        found.append(Truth(cell, seed + len(found)))
    return tuple(found)


def _both_ways(found: Sequence[Truth]) -> bool:
    sides: dict[int, set[bool]] = {}
    for truth in found:
        for asked, outcome in truth.sides.items():
            sides.setdefault(asked, set()).add(outcome)
    return all(len(outcomes) == 2 for outcomes in sides.values())


@dataclass(frozen=True)
class _Line:
    name: str
    share: bool      # of a step in the gradient of a parameter
    term: Term
    text: str
    judged: bool
    number: int


class _Student:
    """The lines of a derivation, and the values of what they say."""

    def __init__(self, truth: Truth, text: str) -> None:
        self.truth, self.cell = truth, truth.cell
        arguments = truth.arguments
        self.alias = {mark: arguments.get(n, n) for n, mark in truth.derivation.arguments.items()}  # a second name of one thing
        self.names = {f"d{n}": n for n in truth.history[1]}
        if len(arguments) == 1 and "da" not in self.names:
            self.names["da"] = next(iter(arguments.values()))
        self.losses = {f"loss_{o}": o for o in self.cell.outputs}
        joined = {p: s[1].split("+") for p, s in self.cell.parameters.items() if len(s) == 2 and "+" in s[1]}
        self.blocks = {block_name(self.cell, p, k): (p, k) for p, columns in joined.items() for k in range(len(columns))}
        self.parameters = {**truth.parameters, **{b: self._block(p, k) for b, (p, k) in self.blocks.items()}}
        self.equations = Equals(truth.system, truth.point, self.parameters)
        self.lines = self._read(text)
        self.by_name = {line.name: line for line in self.lines if not line.share}
        self.memory: dict[tuple[str, int], Array] = {}
        self.shape: dict[str, tuple[int, ...]] = {}
        self.degree = 1.0
        for line in self.lines:
            self._check_names(line)
        self._check_order()

    def _block(self, p: str, k: int) -> Array:
        return self.truth.parameters[p][:, slice(*self._columns(p, k))]

    def _columns(self, p: str, k: int) -> tuple[int, int]:
        """From which column of a matrix to which a part of it reaches."""
        widths = [self.truth.sizes.get(w) or int(w) for w in self.cell.parameters[p][1].split("+")]
        return sum(widths[:k]), sum(widths[: k + 1])

    # ---- reading

    def _read(self, text: str) -> list[_Line]:
        lines: list[_Line] = []
        for number, source in enumerate(text.splitlines(), 1):
            code = source.partition("#")[0].rstrip()
            if not code.strip():
                continue
            found = _LINE.match(code)
            if found is None:
                what = "expected dh[t] = ... for a derivative, or W: ... for the share of a step"
                raise EquationError(what, source, number, 1)
            name, share = found["quantity"] or found["parameter"], found["quantity"] is None
            if any((line.name, line.share) == (name, share) for line in lines):
                raise EquationError(f"{name} is given twice", source, number, 1)
            problem = self._left(name, share)
            if problem:
                raise EquationError(problem, source, number, 1)
            if not found["term"].strip():
                raise EquationError(f"nothing is said of {name}", source, number, 1)
            term = parse_line(found["term"].strip(), code, number).term
            lines.append(_Line(name, share, term, code.strip(), share or name in self.names, number))
        return lines

    def _left(self, name: str, share: bool) -> str:
        """Why a name cannot stand on the left."""
        known = (*self.cell.parameters, *self.blocks)
        if share:
            if name in known and name not in self.cell.learned:
                return ""
            if name.startswith("d") and name[1:] in known:
                return f"the share of a step in the gradient of {name[1:]} is written {name[1:]}: ..., without d"
            quantity = name[1:].removesuffix("_t") if name.startswith("d") else name
            known_quantity = quantity in self.truth.history[1]
            hint = f"; a derivative is written d{quantity}[t] = ..." if known_quantity else nearest(name, known)
            return f"cell {self.cell.name} has no parameter {name!r}{hint}"
        if name in self.truth.history[1] and name not in self.names:
            return f"{name} is a quantity of the cell, whose equation stands; a line gives its derivative, d{name}[t] = ..."
        if name in self.losses:
            return f"{name} is what the loss sends; a line cannot change it"
        if name.startswith("d") and name[1:] in known:
            return f"the share of a step in the gradient of {name[1:]} is written {name[1:]}: ..."
        return ""

    def nothing(self) -> str:
        """What to say where no line can be judged."""
        if not self.lines:
            return f"nothing can be judged: there is no line; write, for example, d{self.cell.outputs[0]}[t] = ..."
        name = self.lines[0].name
        why = ""
        if name.startswith("da"):
            why = (" (there is a δ where an equation is one function of something; name what goes in, a[t] = ..., as a "
                   "quantity of its own)")
        return (f"nothing can be judged: {name}[t] is no derivative of a quantity of {self.cell.name}{why}; write, for "
                f"example, d{self.cell.outputs[0]}[t] = ...")

    def _check_names(self, line: _Line) -> None:
        parameters = (*self.parameters, *dict(self.cell.system.constants))
        quantities = (*self.truth.history[1], *self.names, *self.losses, *self.by_name)
        for t in line.term.walk():
            problem = ""
            if t.kind in ("parameter", "transpose") and not t.args and t.value not in parameters:
                problem = f"cell {self.cell.name} has no parameter {t.value!r}{nearest(t.value, [*parameters, *self.names])}"
            elif t.kind == "signal" and t.value[0] not in quantities:
                problem = (f"{t.value[0]}[t] is neither a quantity of cell {self.cell.name} nor a derivative nor a line of its "
                           f"own{nearest(t.value[0], quantities)}")
            elif t.kind == "signal" and t.value[1] > 0 and t.value[0] not in self.truth.history[1]:
                problem = (f"{show(t)} belongs to an earlier step: backward, steps are computed from the last to the first, "
                           "and those after t are known")
            if problem:
                raise EquationError(problem, line.text, line.number, 1)

    def _check_order(self) -> None:
        """Lines of one step read each other in some order."""
        reads = {n: {t.value[0] for t in line.term.walk() if t.kind == "signal" and not t.value[1]} & set(self.by_name)
                 for n, line in self.by_name.items()}
        for name in reads:
            seen, stack = set[str](), list(reads[name])
            while stack:
                n = stack.pop()
                if n == name:
                    line = self.by_name[name]
                    raise EquationError(f"{name}[t] is computed from itself", line.text, line.number, 1)
                if n not in seen:
                    seen.add(n)
                    stack += reads[n]

    # ---- values

    def value(self, t: Term, step: int) -> Array:
        """A term at a step, in the field."""
        with np.errstate(all="ignore"):
            found = self.equations.value(t, lambda n: self._signal(n, step), lambda n, lag: self._signal(n, step - lag))
        self.degree = max([self.degree, *(r.degree for r in found.flat if isinstance(r, Residue))])
        return found

    def _signal(self, name: str, step: int) -> Array:
        truth = self.truth
        if name in truth.history[1]:
            return truth.quantity(name, step)
        if name in self.losses:
            o = self.losses[name]
            return truth.loss_weights.get((o, step), self._zeros(truth.history[1][o].shape))
        if name in self.names:
            quantity = self.names[name]
            return truth.adjoint(quantity, step) if 1 <= step <= truth.steps else self._zeros(truth.history[1][quantity].shape)
        return self._helper(name, step)

    def _zeros(self, shape: tuple[int, ...]) -> Array:
        return filled(shape, lambda: self.truth.point.number(0))

    def _helper(self, name: str, step: int) -> Array:
        """What a line of one's own gives; beyond the last step zeros, in the shape that the line has."""
        if (name, step) not in self.memory:
            if step > self.truth.steps:
                return self._zeros(self.shape[name] if name in self.shape else self._shape(name))
            self.memory[name, step] = self.value(self.by_name[name].term, step)
        return self.memory[name, step]

    def _shape(self, name: str) -> tuple[int, ...]:
        """The shape in which a line that reads its own later values is the same as those."""
        shapes: list[tuple[int, ...]] = [x.shape for x in self.truth.history[1].values()]
        for shape in dict.fromkeys(shapes):
            self.shape[name] = shape
            try:
                if self.value(self.by_name[name].term, self.truth.steps).shape == shape:
                    return shape
            except ValueError:
                continue
        line = self.by_name[name]
        del self.shape[name]
        raise EquationError(f"{name}[t] has no shape in which the line makes sense", line.text, line.number, 1)

    def tried(self, line: _Line) -> None:
        """Whether a line of one's own can be computed."""
        try:
            self._helper(line.name, self.truth.steps)
        except NearError:
            raise EquationError(f"{line.name}[t] is not defined: it divides by 0, or takes a root, a power or a logarithm of a "
                                "negative number", line.text, line.number, 1) from None
        except EquationError:
            raise
        except ValueError:
            raise EquationError(self._misfit(line, self.truth.steps).words, line.text, line.number, 1) from None

    # ---- judging

    def judged(self, line: _Line) -> JudgedLine:
        """One line at every step; the first step that shows a difference is an inner one, where there is one."""
        steps, late, proved = self.truth.steps, None, False
        for t in (*range(steps - 1, 0, -1), steps):
            slip, inner = self._slip(line, t), t + self._lead(line) <= steps
            judged = None if slip is None else JudgedLine(line.text, False, t, steps, slip.wrong, slip.right, slip.words,
                                                          slip.undecided, slip.found, slip.expected)
            if judged is not None and (inner or not judged.undecided):
                return judged
            late, proved = late or judged, proved or (judged is None and inner)
        # beyond the last step the cell decides nothing, so there an inner step stands for the line
        return JudgedLine(line.text, True, steps=steps) if late is None or proved else late

    def _lead(self, line: _Line) -> int:
        """How many steps ahead a line reads."""
        return max((-t.value[1] for t in self.inlined(line.term).walk() if t.kind == "signal"), default=0)

    def _slip(self, line: _Line, t: int) -> Slip | None:
        right = self._right(line)
        try:
            with self.truth.as_the_cell_decides() as foreign:
                found = self.value(line.term, t)
        except NearError:
            return Slip(show(line.term), right, f"it is not defined at step {t}: it divides by 0, or takes a root, power or "
                        f"logarithm of a negative number; the line should be {right}")
        except LoadError:
            raise EquationError("the line asks for too much arithmetic to be judged", line.text, line.number, 1) from None
        except EquationError:
            raise
        except ValueError:
            return self._misfit(line, t)
        shape = self._shape_of(line)
        if found.shape != shape:
            what = f"it has shape {show_shape(found.shape)}, the derivative has {show_shape(shape)}"
            return Slip(show(line.term), right, f"{what}; it should be {right}")
        equal = self._equal(line, t, found)
        if equal and not foreign:
            return None
        numbers, expected = _floats(found), self._expected(line, t)
        if not np.isfinite(numbers).all():
            return Slip(show(line.term), right, f"it is not a finite number at step {t}; the line should be {right}")
        if equal:
            words = f"it decides by numbers by which the cell does not, and may be right here alone; it should be {right}"
            return Slip(show(line.term), right, words, numbers, expected, undecided=True)
        if expected is not None and np.allclose(numbers, expected, rtol=ALIKE, atol=ALIKE):
            words = "it could not be proved, although its numbers agree here: write it in the functions of the cell"
            return Slip(words=words, found=numbers, expected=expected, undecided=True)
        slip = explained(self, line, t, expected)
        return Slip(slip.wrong, slip.right, slip.words, numbers, expected)

    def _shape_of(self, line: _Line) -> tuple[int, ...]:
        array = self.parameters[line.name] if line.share else self.truth.history[1][self.names[line.name]]
        shape: tuple[int, ...] = array.shape
        return shape

    def _misfit(self, line: _Line, t: int) -> Slip:
        """The innermost part whose shapes do not fit together."""
        for part in reversed(list(line.term.walk())):
            try:
                self.value(part, t)
            except ValueError:
                shapes = " and ".join(f"{show(a)} {show_shape(self.value(a, t).shape)}" for a in part.args)
                right = self._right(line) if line.judged else ""
                should = f"; the line should be {right}" if right else ""
                return Slip(show(part), right, f"in {show(part)} the shapes do not fit together: {shapes}{should}")
        raise AssertionError(line.text)

    def _right(self, line: _Line) -> str:
        formula = self.formula(line)
        if formula is None:
            return "another one" if line.name in self.blocks else "0"
        text = show(formula)
        return text if len(text) <= LONGEST else "another one: print(tr.derive(cell)) shows it"

    def _equal(self, line: _Line, t: int, found: Array) -> bool:
        point = self.truth.point
        if not line.share:
            truth = self.truth.adjoint(self.names[line.name], t)
            self.degree = max([self.degree, *(r.degree for r in truth.flat)])
            return all(a.value == b.value for a, b in zip(map(point.number, found.flat), truth.flat, strict=True))
        direction = point.draw(found.shape, False)
        slope = self.truth.share(*self._whole(line.name, direction), t)
        along = summed(each(lambda a, v: a * v, found, direction), tuple(range(found.ndim)), False, point).item()
        self.degree = max(self.degree, slope.degree)
        return bool(along.value == slope.value)

    def _whole(self, name: str, direction: Array) -> tuple[str, Array]:
        """A direction of the columns of a matrix as one of the matrix."""
        if name not in self.blocks:
            return name, direction
        parameter, k = self.blocks[name]
        first, last = self._columns(parameter, k)
        whole = self._zeros(self.truth.parameters[parameter].shape)
        whole[:, first:last] = direction
        return parameter, whole

    def _expected(self, line: _Line, t: int) -> Any:
        """The derivative in floats, from the engine."""
        run = self.truth.floats
        if not line.share:
            return run.gradients.get((self.names[line.name], t), np.zeros(self._shape_of(line)))
        parameter, k = self.blocks.get(line.name, (line.name, None))
        share = run.shares.get(parameter, {}).get(t, np.zeros(self.truth.parameters[parameter].shape))
        return share if k is None else share[:, slice(*self._columns(parameter, k))]

    def translated(self, t: Term) -> Term:
        """A formula of the derivation in the language of the lines."""
        names = {n: d for d, n in self.names.items()}
        shared: Mapping[str, Term] = self.truth.derivation.shared

        def rule(x: Term) -> Term | None:
            if x.kind == "adjoint":
                name, lag = x.value
                name = self.alias.get(name, name)
                return Term("signal", (f"loss_{name[5:]}" if name.startswith("loss ") else names[name], lag))
            if x.kind == "signal" and x.value[0] in shared:
                from_later = shared[x.value[0]].rewritten(
                    lambda y: Term(y.kind, (y.value[0], y.value[1] + x.value[1])) if y.kind in ("signal", "adjoint") else None)
                return self.translated(from_later)
            return None

        return t.rewritten(rule)

    def formula(self, line: _Line) -> Term | None:
        """The derivation's own formula for a line."""
        found = self.truth.derivation.parameters.get(line.name) if line.share else self._of(self.names[line.name])
        return None if found is None else self.translated(found.term)

    def opened(self, formula: Term, line: _Line) -> Term:
        """The same in the derivatives that the line itself reads: others of its step by their own formulas."""
        reads = {t.value for t in self.inlined(line.term).walk() if t.kind == "signal"}

        def rule(x: Term) -> Term | None:
            if x.kind != "signal" or x.value in reads or x.value[1] or x.value[0] not in self.names:
                return None
            inner = self._of(self.names[x.value[0]])
            return None if inner is None else self.translated(inner.term).rewritten(rule)

        return formula.rewritten(rule)

    def _of(self, name: str) -> Formula | None:
        d = self.truth.derivation
        second = next((mark for mark, own in self.alias.items() if own == name and mark != name), "")
        return d.inputs.get(name) or d.recurrence.get(second) or d.recurrence.get(name)

    def inlined(self, t: Term) -> Term:
        """Without helpers: each by what its line says."""
        def rule(x: Term) -> Term | None:
            if x.kind == "signal" and x.value[0] in self.by_name and x.value[0] not in self.names and not x.value[1]:
                return self.by_name[x.value[0]].term.rewritten(rule)
            return None

        return t.rewritten(rule)

    @property
    def error_bound(self) -> float:
        """Schwartz and Zippel: the degree of the identity over the number of points; each entry and step is one identity."""
        identities = len(self.lines) * self.truth.steps * max((x.size for x in self.truth.parameters.values()), default=1)
        arguments = len(self.truth.point.seen) + len(self.truth.point.rays)
        return float(min(1.0, identities * (self.degree + arguments**2 * self.truth.point.argument_degree) / 2.0**60))


@np.errstate(all="ignore")
def _floats(found: Array) -> Any:
    """The ordinary numbers of an array."""
    return np.array([r.near if isinstance(r, Residue) else float(r) for r in found.flat]).reshape(found.shape)


def _numbers(x: Any) -> str:
    if not np.ndim(x):
        return rounded(float(x), 4)
    return f"[{', '.join(_numbers(row) for row in x)}]"


