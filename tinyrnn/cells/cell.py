"""A cell: the equations of one time step, their sizes, and the graphs they make."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ..door import behind
from ..errors import ArgumentError, EquationError, ShapeError
from ..ir.graph import Graph, Label, node_of
from ..ir.node import Node
from ..ir.ops.elementwise import tag
from ..ir.ops.leaves import full, input_node
from ..ir.ops.linear import broadcast_to, sum_
from ..ir.ops.structure import stack, take
from ..ir.scan import ScanNames, scan
from ..passes.ad.derivatives import grad
from ..passes.unroll import unroll
from ..shapes import checked_bytes, show
from ..types import Seed
from . import latex
from .equations import parse
from .from_function import equations_of
from .initial import constant, orthogonal, uniform, xavier
from .lower import Step
from .ranks import Ranks, likely_gains
from .roles import Roles, find_roles
from .sizes import Sizes, concrete, solved
from .terms import System, Term, show_system

Arrays = dict[str, npt.NDArray[Any]]
Mark = Callable[[Node, str, str | None], Node]
Loss = str | Callable[[list[Any]], Any] | None


class Cell:
    """A recurrent cell, written as equations.

    A signal is a vector, [H] in the equations and [B, H] in a run; `W @ x` gives W the shape [H, X]. Raises `EquationError`,
    with the line and the place, for a text that is no cell.

    >>> import tinyrnn as tr
    >>> cell = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)", name="Elman")
    >>> cell.inputs, cell.states, cell.parameters
    (('x',), ('h',), {'W': ('h', 'x'), 'U': ('h', 'h'), 'b': ('h',)})
    >>> cell.shapes(x=2, h=3)
    {'W': (3, 2), 'U': (3, 3), 'b': (3,)}
    """

    def __init__(self, text: str, name: str = "cell") -> None:
        self.system: System = parse(text)
        self.text = inspect.cleandoc(text) + "\n"
        self.name = name
        self.roles: Roles = find_roles(self.system)
        ranks = Ranks(self.system, self.roles.inputs, self.roles.order)
        r = self.roles
        self._sizes = Sizes(self.system, ranks, (*r.states, *r.inputs, *r.outputs, *r.gates))
        self.ranks = ranks.table
        for p in likely_gains(self.system, ranks):
            size = ", ".join(self._sizes.symbolic(("parameter", p)))
            warnings.warn(f"cell {name}: {p} is read as a matrix, since it stands to the left of @; declare '{p}: scalar' if "
                          f"it is a gain, or '{p}: ({size})' if it is a matrix", stacklevel=2)
        self.inputs, self.states, self.outputs, self.gates = r.inputs, r.states, r.outputs, r.gates
        self.constants = dict(self.system.constants)
        self.fixed = tuple(d.name for d in self.system.declarations if d.fixed)
        self.learned = {f"{n}[{k}]": (n, 1 - k) for n, k in self.system.learned}
        self.signals = {n: self._sizes.symbolic(("signal", n)) for n in (*r.inputs, *(e.name for e in r.order))}
        own = {p: self._sizes.symbolic(("parameter", p)) for p in r.parameters}
        self.parameters: dict[str, tuple[str, ...]] = {**own, **{k: self.signals[n] for k, (n, _) in self.learned.items()}}
        self.sizes = self._size_names()

    def _size_names(self) -> tuple[str, ...]:
        """The names that sizes are asked for by: those of inputs first."""
        order = [*self.inputs, *self.states, *self.signals]
        shapes = [*(self.signals[n] for n in order), *self.parameters.values()]
        found = dict.fromkeys(p for shape in shapes for s in shape for p in s.split("+") if not p.isdigit())
        return tuple(found)

    @classmethod
    def from_function(cls, function: Callable[..., Mapping[str, Any]], *, inputs: Sequence[str] = ("x",),
                      outputs: Sequence[str] = (), name: str | None = None) -> Cell:
        """A cell whose step is written in Python; the function runs once and its equations are written down.

        Arguments in `inputs` are inputs, those named like a key of the returned dict are states (one step ago;
        `h.lag(2)` is two steps ago), all others are parameters.

        >>> import tinyrnn as tr
        >>> def step(x, h, W, U, b):
        ...     return {"h": tr.tanh(W @ x + U @ h + b)}
        >>> print(tr.Cell.from_function(step).text, end="")
        h[t] = tanh(W @ x[t] + U @ h[t-1] + b)
        """
        return cls(equations_of(function, inputs, outputs), name or function.__name__)

    # ---- identity

    @property
    def title(self) -> str:
        """The first line of the comment on top."""
        return self.system.header[0] if self.system.header else self.name

    @property
    def citation(self) -> str:
        """The lines of the comment on top that start with `paper:`."""
        return self._header("paper:")

    @property
    def notes(self) -> str:
        """The lines of the comment on top that start with `note:`."""
        return self._header("note:")

    def _header(self, word: str) -> str:
        return "\n".join(h[len(word):].strip() for h in self.system.header if h.lower().startswith(word))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.system == other.system

    def __hash__(self) -> int:
        return hash(tuple(e.name for e in self.system.equations))

    def __repr__(self) -> str:
        return f"<Cell {self.name}: ({', '.join((*self.inputs, *self.states))}) -> ({', '.join(self.outputs)})>"

    def __str__(self) -> str:
        return self.text

    def canonical_text(self) -> str:
        """The equations in one fixed spelling; `Cell(cell.canonical_text())` is the same cell."""
        return show_system(self.system)

    def latex(self, *, environment: str = "aligned") -> str:
        """The equations in LaTeX, with lines that fit into an article and onto a slide.

        `environment` is "aligned" (for inside of `$$`), or one that can be pasted as it is: "align", "align*", "equation",
        "equation*", "gather*", "$$".  Raises `ArgumentError` for another.

        >>> import tinyrnn as tr
        >>> print(tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])").latex(environment="align*"))
        \\begin{align*}
        h_{t} &= \\tanh\\left(W \\, x_{t} + U \\, h_{t-1}\\right)
        \\end{align*}
        """
        return latex.system(self.system, environment)

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """In a notebook: the picture; the equations where only LaTeX is shown."""
        bundle: dict[str, str] = self.draw()._repr_mimebundle_()
        return {**bundle, "text/latex": self._repr_latex_(), "text/plain": self.text}

    def draw(self, file: str | None = None, **options: Any) -> Any:
        """A picture of the cell, folded or (with `steps=`) unrolled; see `tinyrnn.draw`."""
        return behind("draw")(self, file, **options)

    # ---- sizes and parameters

    def shapes(self, /, sizes: Mapping[str, int] | None = None, **named: int) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter."""
        given = self.checked_sizes(sizes, named)
        return {p: concrete(shape, given) for p, shape in self.parameters.items()}

    def sizes_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """Every size, from the shapes of parameters; raises `ShapeError` where they contradict each other."""
        for p, shape in shapes.items():
            if len(shape) != len(self.parameters[p]):
                raise ShapeError(f"{p} of cell {self.name} has shape {list(shape)}, expected "
                                 f"[{', '.join(self.parameters[p])}]")
        found = solved((text, n, f"axis {i} of {p}") for p, shape in shapes.items()
                       for i, (text, n) in enumerate(zip(self.parameters[p], shape, strict=True)))
        return {s: found[s] for s in self.sizes if s in found}

    def signal_shape(self, name: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of one example's input, state or gate."""
        return concrete(self.signals[name], sizes)

    def checked_sizes(self, sizes: Mapping[str, int] | None, named: Mapping[str, int], fill: bool = False) -> dict[str, int]:
        """Every size by its name; `fill` makes up small distinct ones when none is given."""
        given = {**(sizes or {}), **named}
        if fill and not given:
            given = {name: 2 + i for i, name in enumerate(self.sizes)}
        missing, unknown = [s for s in self.sizes if s not in given], [s for s in given if s not in self.sizes]
        if missing or unknown:
            problem = f"needs the size {missing[0]!r}" if missing else f"has no size {unknown[0]!r}"
            raise ShapeError(f"cell {self.name} {problem}; its sizes are "
                             + ", ".join(f"{s}=" for s in self.sizes))
        for name, n in given.items():
            if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
                raise ShapeError(f"size {name}={n!r} of cell {self.name}: sizes are whole numbers from 1")
        return {name: int(n) for name, n in given.items()}

    def init(self, /, sizes: Mapping[str, int] | None = None, *, rng: Seed = None, dtype: npt.DTypeLike = np.float64,
             fixed: Mapping[str, npt.ArrayLike] | None = None, **named: int) -> Arrays:
        """Starting values: orthogonal recurrent blocks, Xavier-uniform input blocks, zero biases, unit gains.

        Saxe et al. 2014 (orthogonal); Glorot & Bengio 2010 (Xavier).  `fixed` gives the constant arrays of the cell.
        """
        given = self.checked_sizes(sizes, named)
        generator = np.random.default_rng(rng)
        values = {p: self._start(p, given, generator, fixed or {}) for p in self.parameters}
        return {p: np.asarray(v, dtype) for p, v in values.items()}

    def _start(self, p: str, sizes: Mapping[str, int], rng: np.random.Generator, fixed: Mapping[str, Any]) -> Any:
        shape = concrete(self.parameters[p], sizes)
        if p in self.fixed:
            if p not in fixed:
                raise ArgumentError(f"cell {self.name} needs the fixed array {p} of shape {shape}: fixed={{{p!r}: array}}")
            array = np.asarray(fixed[p])
            if array.shape != shape:
                raise ShapeError(f"the fixed array {p} has shape {array.shape}, expected {shape}")
            return array
        if len(shape) == 2:
            return self._matrix(p, shape, sizes, rng)
        return self._vector(p, shape, rng)

    def _matrix(self, p: str, shape: tuple[int, ...], sizes: Mapping[str, int], rng: np.random.Generator) -> Any:
        rows, columns = self.parameters[p]
        blocks = [concrete((c,), sizes)[0] for c in columns.split("+")]
        parts = []
        for name, n in zip(columns.split("+"), blocks, strict=True):
            parts.append((orthogonal if name == rows else xavier)((shape[0], n), rng))
        return np.concatenate(parts, 1)

    def _vector(self, p: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
        own = Term("parameter", p)
        factors = [t for e in self.system.equations for t in e.term.walk()
                   if t.value in ("*", "/") and any(a == own or (a.kind == "negate" and a.args[0] == own) for a in t.args)]
        if not factors:
            return constant(shape, 0.0)
        beside_norm = any(a.kind == "call" and a.value in ("layer_norm", "rms_norm") for t in factors for a in t.args)
        if not shape or beside_norm:
            return constant(shape, 1.0)
        return uniform(shape, 1 / sqrt(shape[0]), rng)

    # ---- graphs

    @property
    def slots(self) -> tuple[tuple[str, int], ...]:
        """What is remembered between steps: (name, lag) in order; states first, then delayed inputs."""
        return self.roles.slots

    def step(self, remembered: Sequence[Node], inputs: Sequence[Node], parameters: Mapping[str, Node],
             name: Callable[[str, Node], Node] = lambda _, n: n) -> tuple[list[Node], dict[str, Node]]:
        """One step on nodes: the remembered values after it, and every quantity by its name."""
        signals = {**dict(zip(self.slots, remembered, strict=True)),
                   **{(n, 0): x for n, x in zip(self.inputs, inputs, strict=True)}}
        env = Step(self.roles.order, signals, parameters, self.constants, self.ranks, name).env
        return [env[n, k - 1] for n, k in self.slots], {n: v for (n, k), v in env.items() if not k}

    def scan(self, remembered: Sequence[Node], inputs: Sequence[Node], parameters: Mapping[str, Node], *,
             mask: Node | None = None, reverse: bool = False, steps: int | None = None,
             path: str | None = None, mark: Mark = tag, memory: int | str | None = None) -> tuple[list[Node], dict[str, Node]]:
        """All steps, time first: the remembered values at the end, and each output as [T, B, ...].

        `mark` names every quantity of a step; another one may name more.  `memory` is a budget in bytes for training.
        """
        where = path or self.name

        def body(state: list[Node], slices: list[Node]) -> tuple[list[Node], list[Node]]:
            new, signals = self.step(state, slices, parameters, lambda n, v: mark(v, n, where))
            return new, [signals[o] for o in self.outputs]

        names = ScanNames([f"{n}[t-{k}]" for n, k in self.slots], [f"{n}[t]" for n in self.inputs],
                          {n: p for p, n in parameters.items()})
        finals, traces = scan(body, remembered, inputs, constants=list(parameters.values()), mask=mask, reverse=reverse,
                              steps=steps, names=names, memory=checked_bytes("memory", memory))
        return finals, dict(zip(self.outputs, traces, strict=True))

    def graph(self, /, sizes: Mapping[str, int] | None = None, *, batch: int = 1, dtype: npt.DTypeLike = np.float64,
              **named: int) -> Graph:
        """One step as a graph: `x[t]`, `h[t-1]`, ... to `h[t]`, ...; small distinct sizes when none are given."""
        given = self.checked_sizes(sizes, named, fill=True)
        parameters = {p: input_node(p, s, dtype) for p, s in self.shapes(given).items() if p not in self.learned}
        remembered = [input_node(f"{n}[t-{k}]", (batch, *self.signal_shape(n, given)), dtype) for n, k in self.slots]
        inputs = [input_node(f"{n}[t]", (batch, *self.signal_shape(n, given)), dtype) for n in self.inputs]
        if not remembered and not inputs:
            raise EquationError("a cell needs an input or a state")
        _, signals = self.step(remembered, inputs, parameters)
        wanted = dict.fromkeys((*self.outputs, *self.states))
        return Graph({f"{n}[t]": signals[n] for n in wanted}, {Label(n, None, self.name): v for n, v in signals.items()})

    def unroll(self, steps: int, /, sizes: Mapping[str, int] | None = None, *, batch: int = 1, loss: Loss = None,
               gradients: bool = False, dtype: npt.DTypeLike = np.float64, mark: Mark = tag, **named: int) -> Graph:
        """T explicit steps with shared parameters, and with `gradients=True` the backward graph as well.

        Inputs: `x[1]`..`x[T]`, initial states `h[0]`, ..., parameters.  Outputs: every output of the cell at every
        step, `loss` (`"sum"`: of all outputs, `"last"`: of those of step T; or a function of the list of outputs),
        `dloss/d...` of every input.
        """
        graph = self.rolled(steps, sizes, batch=batch, loss=loss, gradients=gradients, dtype=dtype, mark=mark, **named)
        flat = unroll(graph)
        return Graph(flat.outputs, {**graph.labels, **flat.labels}, flat.steps)

    def rolled(self, steps: int, /, sizes: Mapping[str, int] | None = None, *, batch: int = 1, loss: Loss = None,
               gradients: bool = False, dtype: npt.DTypeLike = np.float64, mark: Mark = tag, **named: int) -> Graph:
        """The same function as `unroll`, with the steps in a scan and their gradients in a scan that runs back."""
        for name, n in (("steps", steps), ("batch", batch)):
            if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
                raise ArgumentError(f"{name}={n!r}: unrolling needs a whole number, at least one step and one row")
        given = self.checked_sizes(sizes, named, fill=True)
        leaves = self._leaves(steps, given, batch, dtype)
        parameters = {p: leaves[p] for p in self.parameters}
        remembered = [self._initial(n, k, leaves, given, batch, dtype) for n, k in self.slots]
        xs = [stack([leaves[f"{n}[{t}]"] for t in range(1, steps + 1)]) for n in self.inputs]
        _, traces = self.scan(remembered, xs, parameters, steps=steps, mark=mark)
        outputs = {f"{n}[{t + 1}]": take(traces[n], t) for t in range(steps) for n in self.outputs}
        if loss is not None or gradients:
            outputs["loss"] = total = self._loss(loss or "sum", traces, steps)
            if gradients:
                found = grad(total, list(leaves.values()))
                outputs.update({f"dloss/d{k}": g for k, g in zip(leaves, found, strict=True)})
        inputs = {Label(n, t, self.name): leaves[f"{n}[{t}]"] for n in self.inputs for t in range(1, steps + 1)}
        return Graph(outputs, inputs)

    def _leaves(self, steps: int, sizes: Mapping[str, int], batch: int, dtype: npt.DTypeLike) -> dict[str, Node]:
        """Every input of the unrolled graph by its name: parameters, initial states, inputs of each step."""
        shapes = dict(self.shapes(sizes))
        for n, k in self.slots:
            if n in self.states and f"{n}[{1 - k}]" not in self.learned:
                shapes[f"{n}[{1 - k}]"] = (batch, *self.signal_shape(n, sizes))
        for t in range(1, steps + 1):
            shapes.update({f"{n}[{t}]": (batch, *self.signal_shape(n, sizes)) for n in self.inputs})
        return {name: input_node(name, shape, dtype) for name, shape in shapes.items()}

    def _initial(self, n: str, k: int, leaves: Mapping[str, Node], sizes: Mapping[str, int], batch: int,
                 dtype: npt.DTypeLike) -> Node:
        shape = (batch, *self.signal_shape(n, sizes))
        return broadcast_to(leaves[f"{n}[{1 - k}]"], shape) if n in self.states else full(0, shape, dtype)

    def _loss(self, loss: str | Callable[[list[Any]], Any], traces: Mapping[str, Node], steps: int) -> Node:
        if callable(loss):
            handle = behind("Tensor")
            per_step = [{n: handle(take(y, t)) for n, y in traces.items()} for t in range(steps)]
            found = loss([d[self.outputs[0]] if len(d) == 1 else d for d in per_step])
            if not isinstance(found, (Node, handle)):
                raise ArgumentError("the loss is to be one number, made of the outputs by functions of tinyrnn; it is "
                                    f"{type(found).__name__}")
            total = node_of(found)
            if total.shape:
                raise ArgumentError(f"the loss is to be one number, the function gave shape {show(total.shape)}: take .sum()")
            return total
        if loss not in ("sum", "last"):
            raise ArgumentError(f"loss={loss!r}: expected 'sum', 'last' or a function of the list of outputs")
        return _total(sum_(y if loss == "sum" else take(y, steps - 1)) for y in traces.values())


def _total(parts: Iterable[Node]) -> Node:
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


