"""`check`: a derivation that someone wrote, judged line by line by proof."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
from ..symbolic.checker.numbers import Array, NearError, Residue, each, filled, nears, summed
from ..symbolic.derivation.derive import derive
from ..symbolic.derivation.formulas import Formula
from ..symbolic.derivation.to_terms import block_name
from .slips import Slip, explained
from .truth import WORK, Truth

_LINE = re.compile(r"\s*(?:(?P<quantity>[^\W\d]\w*)\s*\[\s*t\s*\]\s*=(?!=)|(?P<parameter>[^\W\d]\w*)\s*[:=](?!=))(?P<term>.*)$")
ALIKE = 1e-9  # floats that differ by less do not show a difference; they never show that there is none


@dataclass(frozen=True)
class JudgedLine:
    """One line: whether it holds; if not, at which step, what is wrong, what belongs there, and both numbers.

    `wrong` and `right` are terms of the line and of the derivation (either may be empty: something is missing, or does not
    belong there), `found` and `expected` the values of the two sides at that step, `residual` their difference.
    """

    text: str
    holds: bool
    step: int = 0
    steps: int = 0
    wrong: str = ""
    right: str = ""
    words: str = ""
    found: Any = field(default=None, compare=False)
    expected: Any = field(default=None, compare=False)

    @property
    def residual(self) -> Any:
        """What the line gives, less what it should give."""
        return None if self.found is None or np.shape(self.found) != np.shape(self.expected) else self.found - self.expected

    def __str__(self) -> str:
        if self.holds:
            return f"holds  {self.text}" + (f"\n       {self.words}" if self.words else "")
        lines = [f"WRONG  {self.text}", f"       {self.words}"]
        if self.found is not None:
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
    truth = _truth(cell, rng)
    truth.point.work.left = WORK
    student = _Student(truth, equations)
    lines = tuple(student.judged(line) for line in student.lines if line.judged)
    helpers = [line for line in student.lines if not line.judged]
    for line in helpers:
        student.tried(line)
    if not lines:
        what = f"{helpers[0].name}[t] is no derivative of a quantity of {cell.name}" if helpers else "there is no line"
        raise EquationError(f"nothing can be judged: {what}; write, for example, d{cell.outputs[0]}[t] = ...")
    return Judgement(cell, lines, student.error_bound)


@lru_cache(maxsize=4)
def _truth(cell: Cell, seed: int) -> Truth:
    """Several tries at one cell share its derivatives."""
    return Truth(derive(cell), seed)


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
        arguments = truth.derivation.arguments
        known = [*truth.history[1], *arguments.values()]
        self.names = {f"d{n}": n for n in known}
        if len(arguments) == 1 and "da" not in self.names:
            self.names["da"] = next(iter(arguments.values()))
        self.losses = {f"loss_{o}": o for o in self.cell.outputs}
        joined = {p: s[1].split("+") for p, s in self.cell.parameters.items() if len(s) == 2 and "+" in s[1]}
        self.blocks = {block_name(self.cell, p, k): (p, k) for p, columns in joined.items() for k in range(len(columns))}
        self.parameters = {**truth.parameters, **{b: self._block(p, k) for b, (p, k) in self.blocks.items()}}
        self.equations = type(truth.equations)(truth.system, truth.point, self.parameters)
        self.lines = self._read(text)
        self.by_name = {line.name: line for line in self.lines if not line.share}
        self.memory: dict[tuple[str, int], Array] = {}
        self.shape: dict[str, tuple[int, ...]] = {}
        self.degree = 1.0
        for line in self.lines:
            self._check_names(line)
        self._check_order()

    def _block(self, p: str, k: int) -> Array:
        widths = [self.truth.sizes.get(w) or int(w) for w in self.cell.parameters[p][1].split("+")]
        return self.truth.parameters[p][:, sum(widths[:k]) : sum(widths[: k + 1])]

    # ---- reading

    def _read(self, text: str) -> list[_Line]:
        lines: list[_Line] = []
        for number, source in enumerate(text.splitlines(), 1):
            code = source.partition("#")[0].replace("·", "*").rstrip()
            if not code.strip():
                continue
            found = _LINE.match(code)
            if found is None:
                what = "expected dh[t] = ... for a derivative, or W: ... for the share of a step"
                raise EquationError(what, source, number, 1)
            name, share = found["quantity"] or found["parameter"], found["quantity"] is None
            if any((line.name, line.share) == (name, share) for line in lines):
                raise EquationError(f"{name} is given twice", source, number, 1)
            if share and name not in self.cell.parameters:
                raise EquationError(f"cell {self.cell.name} has no parameter {name!r}{nearest(name, self.cell.parameters)}; a "
                                    f"quantity has an index, d{name}[t]", source, number, 1)
            if not found["term"].strip():
                raise EquationError(f"nothing is said of {name}", source, number, 1)
            term = parse_line(found["term"].strip(), code, number).term
            lines.append(_Line(name, share, term, code.strip(), share or name in self.names, number))
        return lines

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
            raise EquationError(f"{line.name}[t] divides by 0", line.text, line.number, 1) from None
        except EquationError:
            raise
        except ValueError:
            raise EquationError(self._misfit(line, self.truth.steps).words, line.text, line.number, 1) from None

    # ---- judging

    def judged(self, line: _Line) -> JudgedLine:
        """One line at every step; the first step that shows a difference is an inner one, where there is one."""
        steps = self.truth.steps
        for t in (*range(steps - 1, 0, -1), steps):
            slip = self._slip(line, t)
            if slip is not None:
                return JudgedLine(line.text, False, t, steps, slip.wrong, slip.right, slip.words, slip.found, slip.expected)
        return JudgedLine(line.text, True, steps=steps)

    def _slip(self, line: _Line, t: int) -> Slip | None:
        try:
            found = self.value(line.term, t)
        except (NearError, ZeroDivisionError):
            right = self._right(line)
            return Slip(show(line.term), right, f"it divides by 0 at step {t}; the line should be {right}")
        except LoadError:
            raise EquationError("the line asks for too much arithmetic to be judged", line.text, line.number, 1) from None
        except EquationError:
            raise
        except ValueError:
            return self._misfit(line, t)
        shape = (self.truth.parameters[line.name] if line.share else self.truth.history[1][self.names[line.name]]).shape
        if found.shape != shape:
            what = f"it has shape {show_shape(found.shape)}, the derivative has {show_shape(shape)}"
            return Slip(show(line.term), self._right(line), f"{what}; it should be {self._right(line)}")
        if self._equal(line, t, found):
            return None
        expected = self._floats(line, t, found)
        slip = explained(self, line, t)
        if np.allclose(nears(found), expected, rtol=ALIKE, atol=ALIKE):
            words = "it could not be proved, although its numbers agree here: write it in the functions of the cell"
            return Slip(words=words, found=nears(found), expected=expected)
        return Slip(slip.wrong, slip.right, slip.words, nears(found), expected)

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
        return "0" if formula is None else show(formula)

    def _equal(self, line: _Line, t: int, found: Array) -> bool:
        point = self.truth.point
        if not line.share:
            truth = self.truth.adjoint(self.names[line.name], t)
            self.degree = max([self.degree, *(r.degree for r in truth.flat)])
            return all(a.value == b.value for a, b in zip(map(point.number, found.flat), truth.flat, strict=True))
        direction = point.draw(found.shape, False)
        slope = self.truth.share(line.name, t, direction)
        along = summed(each(lambda a, v: a * v, found, direction), tuple(range(found.ndim)), False, point).item()
        self.degree = max(self.degree, slope.degree)
        return bool(along.value == slope.value)

    def _floats(self, line: _Line, t: int, found: Array) -> Any:
        """The derivative in floats; the share of a step in the gradient of a parameter from its formula."""
        if not line.share:
            return nears(self.truth.adjoint(self.names[line.name], t))
        formula = self.truth.derivation.parameters.get(line.name)
        return np.zeros(found.shape) if formula is None else nears(self.value(self.translated(formula.term), t))

    def translated(self, t: Term) -> Term:
        """A formula of the derivation in the language of the lines."""
        names = {n: d for d, n in self.names.items()}
        shared: Mapping[str, Term] = self.truth.derivation.shared

        def rule(x: Term) -> Term | None:
            if x.kind == "adjoint":
                name, lag = x.value
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
        return d.inputs.get(name) or d.recurrence.get(name)

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


def _numbers(x: Any) -> str:
    if not np.ndim(x):
        return rounded(float(x), 4)
    return f"[{', '.join(_numbers(row) for row in x)}]"


