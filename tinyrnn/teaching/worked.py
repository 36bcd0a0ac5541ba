"""`worked`: forward, backward and one update of a cell with the numbers put in, as on paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np

from ..analysis.cell_run import Array, CellRun, cell_run
from ..analysis.put_in import Numbers, added, value
from ..analysis.subject import Loss, subject_of_cell
from ..cells import Cell
from ..cells.paper import rounded
from ..cells.terms import Term, number
from ..errors import ArgumentError
from ..files import PathLike, atomic_write, path_of
from ..symbolic.derivation.derive import Derivation, derive
from ..types import Seed
from . import forms
from .given import checked

LOSSES: Mapping[Any, str] = {"last": "the sum of the last output", "sum": "the sum of all outputs"}
Line = tuple[Term, ...]  # equal terms: h₁ = tanh(W x₁) = tanh(0.5·1) = 0.462


@dataclass(frozen=True)
class Part:
    """A heading, a sentence, lines of equal terms."""

    title: str
    words: str
    lines: tuple[Line, ...]


class Worked:
    """A computation as on paper: `loss`, `gradients`, `shares` (of every step), `deltas`, `updated`, `loss_after`.

    `print` shows it as text; `markdown()`, `latex()`, `html()`, `notebook()` and `save` write it; a notebook shows it.
    """

    def __init__(self, derivation: Derivation, before: CellRun, after: CellRun, rate: float, digits: int, loss: Loss) -> None:
        self.derivation, self.cell, self.rate, self.digits = derivation, derivation.cell, rate, digits
        self.before, self.after, self.function = before, after, loss

    @property
    def title(self) -> str:
        return f"{self.cell.title}: backpropagation through time by hand"

    @property
    def steps(self) -> int:
        return self.before.steps

    @property
    def loss(self) -> float:
        """L on the given numbers."""
        return self.before.loss

    @property
    def loss_after(self) -> float:
        """L after one step of gradient descent."""
        return self.after.loss

    @property
    def gradients(self) -> dict[str, Array]:
        """∂L/∂W of every parameter."""
        return {p: self.before.gradient(p) for p in self.before.parameters}

    @property
    def shares(self) -> dict[str, list[Array]]:
        """What every step adds to ∂L/∂W, the first step first."""
        return {p: [s[t] for t in sorted(s)] for p, s in self.before.shares.items()}

    @property
    def deltas(self) -> dict[str, list[Array]]:
        """δ_t = ∂L/∂a_t of every gate, by the gate's name, the first step first."""
        found = self.before.gradients
        return {n: [found[mark, t] for t in range(1, self.steps + 1)] for n, mark in self.derivation.arguments.items()}

    @property
    def updated(self) -> dict[str, Array]:
        """The parameters after one step of gradient descent."""
        return self.after.parameters

    @cached_property
    def parts(self) -> list[Part]:
        """What is shown, in the order of a lecture."""
        return list(_Lecture(self).parts())

    # ---- forms

    def __str__(self) -> str:
        return forms.as_text(self)

    def __repr__(self) -> str:
        before, after = (f"{x:.{self.digits}g}" for x in (self.loss, self.loss_after))
        return f"<Worked {self.cell.name}: {self.steps} steps, L = {before}, after one update {after}>"

    def markdown(self) -> str:
        """Markdown with LaTeX formulas."""
        return forms.as_markdown(self)

    def latex(self) -> str:
        """A LaTeX fragment with headings, for amsmath."""
        return forms.as_latex(self)

    def html(self) -> str:
        """A self-contained page in which formulas are MathML: no script, no network."""
        return forms.as_html(self)

    def notebook(self) -> str:
        """A Jupyter notebook."""
        return forms.as_notebook(self)

    def save(self, file: PathLike) -> None:
        """Write `.txt`, `.md`, `.tex`, `.html` or `.ipynb`, by the ending of the name."""
        path = path_of(file)
        made = {".txt": self.__str__, ".md": self.markdown, ".tex": self.latex, ".html": self.html, ".ipynb": self.notebook}
        if path.suffix not in made:
            raise ArgumentError(f"{path.name}: a worked example is written as {', '.join(made)}")
        atomic_write(path, made[path.suffix]().encode())

    def _repr_markdown_(self) -> str:
        return self.markdown()


def worked(cell: Cell, values: Mapping[str, Any] | None = None, loss: Loss = "last", *, steps: int | None = None,
           lr: float = 0.1, digits: int = 3, rng: Seed = 0) -> Worked:
    """Backpropagation through time with the numbers put in, as on paper.

    Every step forward (`h₁ = tanh(0.5·1 + 0.8·0 + 0.1) = 0.537`), the loss, then back: δ_t = ∂L/∂a_t (a_t is what goes into
    the function of a gate), the share of each step in the gradient of each weight, their sum, one step of gradient descent
    with rate `lr`, and the loss after it.  Numbers are those of the engine's graph in float64; what is printed is rounded to
    `digits` significant digits, what is computed is not.

    `values` gives parameters, the sequence and first states by name: arrays, or plain numbers where every size is 1
    (W [h, x], x [T, x] or a list of T numbers, `h[0]` [h]).  What is not given is a number with one digit by chance (`rng`),
    first states are zero.  `loss` is "last" (the sum of the last output), "sum" (of all outputs), or a function of the list
    of outputs, each [1, h].

    Raises `ArgumentError` for more steps or larger sizes than one would read, for names that the cell does not have and for
    a rate that is no number; `ShapeError` for arrays of another shape.  After Rumelhart, Hinton & Williams (1986), "Learning
    internal representations by error propagation", and Werbos (1990), "Backpropagation through time".

    >>> import tinyrnn as tr
    >>> cell = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
    >>> w = tr.worked(cell, {"W": 0.5, "U": 0.8, "b": 0.1, "x": [1, 2]})
    >>> print(*(line.strip() for line in str(w).splitlines() if line.startswith("  h₁")))
    h₁ = tanh(W·x₁ + U·h₀ + b) = tanh(0.5·1 + 0.8·0 + 0.1) = tanh(0.6) = 0.537
    >>> w.loss > w.loss_after
    True
    """
    if not isinstance(cell, Cell):
        raise ArgumentError(f"worked takes a cell, got {type(cell).__name__}; a layer's equations are layer.cell")
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not np.isfinite(lr):
        raise ArgumentError(f"lr={lr!r}: expected the rate of one step of gradient descent, such as 0.1")
    if isinstance(digits, bool) or not isinstance(digits, int) or not 1 <= digits <= 15:
        raise ArgumentError(f"digits={digits!r}: expected 1 to 15 significant digits")
    derivation = derive(cell)
    given, length = checked(cell, values, steps, rng)

    def run(numbers: Mapping[str, Array]) -> CellRun:
        return cell_run(cell, subject_of_cell(cell, length, numbers, loss), derivation.arguments, given=numbers)

    before = run(given)
    if not np.isfinite(before.loss):
        raise ArgumentError(f"L is {before.loss:g} on these numbers, of which nothing can be worked out: give smaller ones")
    moved = {p: value - lr * before.gradient(p) for p, value in before.parameters.items()}
    return Worked(derivation, before, run({**given, **moved}), float(lr), digits, loss)


class _Lecture:
    """The parts of a worked example."""

    def __init__(self, work: Worked) -> None:
        self.work, self.cell, self.run, self.derivation = work, work.cell, work.before, work.derivation
        self.put = Numbers(work.derivation, work.before)

    def parts(self) -> Iterator[Part]:
        steps = self.run.steps
        yield self._given()
        for t in range(1, steps + 1):
            yield Part(f"Forward, step {t}", "", tuple(self._forward(t)))
        yield self._loss()
        for t in range(steps, 0, -1):
            yield Part(f"Backward, step {t}", self._about_delta() if t == steps else "", tuple(self._backward(t)))
        if self.run.parameters:
            yield Part("Gradients: the shares of all steps added up", "", tuple(self._sums()))
            yield self._update()

    def _chain(self, left: Term, formula: Term, result: Any, between: tuple[Term, ...] = ()) -> Line:
        """left = formula = formula with numbers = result, nothing said twice."""
        put = [formula, self.put.numbers(formula)] if self.put.knows(formula) else []
        put = [value(float(t.value)) if t.kind == "number" else t for t in put]
        terms = [left, *put, *between, value(result)]
        return tuple(t for i, t in enumerate(terms) if i == 0 or t != terms[i - 1])

    def _given(self) -> Part:
        run, learned = self.run, {p: Term("at", (n, 1 - lag)) for p, (n, lag) in self.cell.learned.items()}
        rows: list[Line] = [(learned.get(p, Term("parameter", p)), value(run.given[p])) for p in self.cell.parameters]
        starts = sorted(w for w in run.values if w[1] < 1 and Term("at", w) not in learned.values())
        reads = [(n, t) for n in self.cell.inputs for t in range(1, run.steps + 1)]
        rows += [(Term("at", w), value(run.values[w])) for w in (*starts, *reads)]
        words = (f"{self.cell.title}, {run.steps} step{'s' * (run.steps != 1)}.  Printed numbers are rounded to "
                 f"{self.work.digits} significant digit{'s' * (self.work.digits != 1)}; nothing is rounded in between.")
        return Part("Given", words, tuple(rows))

    def _forward(self, t: int) -> Iterator[Line]:
        for e in self.cell.roles.order:
            mark = self.derivation.arguments.get(e.name)
            inner = () if mark is None else (Term("call", e.term.value, (value(self.run.values[mark, t]),)),)
            yield self._chain(Term("at", (e.name, t)), self.put.at(e.term, t), self.run.values[e.name, t], inner)

    def _loss(self) -> Part:
        run, name = self.run, Term("variable", "L")
        line: Line = (name, value(run.loss))
        if self.work.function in ("last", "sum"):
            read = [(o, t) for t in range(1, run.steps + 1) for o in self.cell.outputs
                    if self.work.function == "sum" or t == run.steps]
            every = [Term("at", w) if self.put.scalar else Term("call", "sum", (Term("at", w),)) for w in read]
            line = self._chain(name, reduce(plus, every), run.loss)
        own = [(Term("adjoint at", (f"loss {n}", t)), value(g)) for (n, t), g in sorted(run.from_loss.items(), key=_by_step)
               if np.any(g)]
        what = LOSSES.get(self.work.function, "the function of the outputs that was given")
        more = "; ℓ is what it contributes at a step" if own else "; it reads no output"
        return Part("Loss", f"L is {what}{more}.", (line, *own))

    def _about_delta(self) -> str:
        """What δ is, in words."""
        gates = list(self.derivation.arguments)
        if not gates:
            return ""
        function = next(e.term.value for e in self.cell.system.equations if e.name == gates[0])
        first, *more = (self.put.delta[self.derivation.arguments[n]] for n in gates)
        likewise = f"; likewise {', '.join(more)}" if more else ""
        return f"{first} is the derivative of L by what goes into the {function} of {gates[0]}{likewise}."

    def _backward(self, t: int) -> Iterator[Line]:
        run = self.run
        for name, f in self.derivation.recurrence.items():
            if name not in self.derivation.shared:
                found = run.gradients.get((name, t), np.zeros_like(run.values[name, t]))
                yield self._chain(self.put.gradient(name, t), self.put.at(f.term, t), found)
        for p, f in self.derivation.parameters.items():
            if t in run.shares.get(p, {}) and p in run.parameters:
                yield self._chain(Term("share", (p, t)), self.put.at(f.term, t), run.shares[p][t])

    def _sums(self) -> Iterator[Line]:
        for p in self.run.parameters:
            if p in self.cell.learned:
                n, lag = self.cell.learned[p]
                formula = self.put.at(self.derivation.recurrence[n].term, 1 - lag)
            else:
                shares = [value(self.run.shares[p][t]) for t in sorted(self.run.shares.get(p, {}))] or [number(0)]
                formula = added(reduce(plus, shares))
            yield self._chain(self._derivative(p), formula, self.run.gradient(p))

    def _derivative(self, p: str) -> Term:
        """∂L/∂W; of a learned first state ∂L/∂h₀."""
        if p not in self.cell.learned:
            return Term("derivative", p)
        n, lag = self.cell.learned[p]
        return Term("adjoint at", (n, 1 - lag))

    def _update(self) -> Part:
        rate, lines = value(self.work.rate), list[Line]()
        for p, before in self.run.parameters.items():
            moved = Term("binary", "-", (value(before), Term("binary", "·", (rate, value(self.run.gradient(p))))))
            lines.append((Term("new", p), moved, value(self.work.updated[p])))
        lines.append((Term("variable", "L"), value(self.work.loss_after)))
        words = f"Every parameter moves against its gradient, with rate {self.work.rate:g}; then the loss is"
        found, after = (rounded(x, self.work.digits) for x in (self.work.loss, self.work.loss_after))
        return Part("One step of gradient descent", f"{words} {after}, before it was {found}.", tuple(lines))


def plus(a: Term, b: Term) -> Term:
    return Term("binary", "+", (a, b))


def _by_step(entry: tuple[tuple[str, int], Array]) -> tuple[int, str]:
    (name, step), _ = entry
    return step, name
