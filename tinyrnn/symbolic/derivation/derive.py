"""`derive`: the backward pass of a cell as equations, read from the engine's own backward graph."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Mapping
from functools import cached_property
from typing import Any

from ...cells.cell import Cell
from ...cells.lower import Step
from ...cells.terms import Equation, Term, fresh, show
from ...errors import ArgumentError
from ...files import PathLike, atomic_write, path_of
from ...ir.graph import Graph
from ...ir.node import Node, apply, walk
from ...ir.op import Trait
from ...ir.ops.elementwise import tag
from ...ir.ops.leaves import input_node
from ...passes.ad.adjoint import backward
from ...passes.ad.tangent import forward
from ..checker.contents import WEIGHT
from ..proof.prove import weighted
from . import calculus, pages, scalars
from .chains import NotLinearError, bound, chains, paths
from .formulas import Formula, JacobianBlock, displayed
from .to_terms import BATCH, TermReader, block_name, shifted, total

SHARED = 6
"""An expression of at least so many operations gets a name when it is used twice."""

LONGEST = 3000
"""A formula of more operations is not printed: nobody could read it, and the next size may not fit in memory."""


class Derivation:
    """The backward pass of a cell, printed.

    `local[y, s]` is the elementwise derivative of the equation of y by s, a SymPy expression in gate outputs;
    `recurrence[s]` is dL/ds[t], `parameters[W]` is dL/dW as a sum over t, `jacobian[s, h]` is ds[t]/dh[t-1].
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._shared_shapes: dict[str, tuple[str, ...]] = {}
        self._read_shapes: dict[str, tuple[str, ...]] = {}
        self._marks = {e.name: _fresh(f"a_{e.name}", cell) for e in cell.system.equations}

    def __repr__(self) -> str:
        return f"<Derivation of {self.cell.name}>"

    # ---- the graph that is read: the engine's, with the arguments of gates named as well

    @cached_property
    def _longest(self) -> int:
        return max((k for _, k in self.cell.slots), default=1)

    @cached_property
    def graph(self) -> Graph:
        """The engine's unrolled backward graph; equal to `cell.unroll(...)` but for the names it carries.

        It is read at a step that has all it reads before it, and whose successors have theirs after them.
        """
        return self.cell.unroll(3 * self._longest + 1, self._sizes, batch=BATCH, loss=weighted(self.cell), gradients=True,
                                mark=self.mark)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """Unlike primes, so that a number that is a size can be printed as that."""
        return dict(zip(self.cell.sizes, (p for p in range(1009, 10_000, 2) if all(p % q for q in range(3, 100, 2))),
                        strict=False))

    def mark(self, value: Node, name: str, cell: str | None) -> Node:
        """Name what goes into a gate as well, where a cell names its quantities."""
        if Trait.NAMED in value.op.traits:
            value = apply(value.op, (tag(value.src[0], self._marks[name], cell),), value.at)
        return tag(value, name, cell)

    @cached_property
    def _middle(self) -> int:
        return self._longest + 1

    @cached_property
    def _names(self) -> dict[Node, Term]:
        found: dict[Node, Term] = {}
        for name, n in self.graph.inputs.items():
            found[n] = self._input(name)
        for label, n in self.graph.labels.items():
            if isinstance(label.step, int):
                lag, adjoint = self._middle - label.step, label.name.startswith("dloss/d")
                who = label.name.removeprefix("dloss/d")
                found.setdefault(n, Term("adjoint" if adjoint else "signal", (who, lag)))
        return found

    def _input(self, name: str) -> Term:
        if "[" not in name:
            return Term("parameter", name)
        who, step = name.rstrip("]").split("[")
        lag = self._middle - int(step)
        own = who.removeprefix(WEIGHT)
        return Term("adjoint", (f"loss {own}", lag)) if own != who else Term("signal", (who, lag))

    @cached_property
    def _reader(self) -> TermReader:
        return TermReader(self._names, self.cell, self._sizes)

    @cached_property
    def _shared(self) -> dict[str, Term]:
        """What the backward pass uses more than once and no equation names, under the names u1, u2, ..."""
        graph, names, known = self.graph, self._names, dict[Term, str]()
        users = defaultdict[Node, set[str]](set)
        uses = Counter(s for n in graph.nodes for s in n.src)
        for n in graph.nodes:
            for s in n.src:
                users[s].add(n.op.name)
        for n in graph.nodes:
            step = graph.steps.get(n)
            plain = n.op.name in ("transpose", "reshape", "broadcast_to", "full") or users[n] == {"slice"}
            if uses[n] < 2 or n in names or step is None or plain:
                continue
            term = self._reader.term(n)
            if sum(1 for t in term.walk() if t.args) >= SHARED:
                name = known.setdefault(shifted(term, step - self._middle), f"u{len(known) + 1}")
                self._shared_shapes[f" {name}"] = self._symbolic(n)
                names[n] = Term("signal", (f" {name}", self._middle - step))  # no cell has a name with a space
                self._reader.memory.clear()
        return {f" {name}": term for term, name in known.items()}

    def _symbolic(self, n: Node) -> tuple[str, ...]:
        """The shape of one example's value in the names of sizes."""
        joins = {sum(self._sizes.get(p) or int(p) for p in s.split("+")): s
                 for shape in (*self.cell.signals.values(), *self.cell.parameters.values()) for s in shape}
        own = n.shape[1:] if n.shape and n.shape[0] == BATCH else n.shape
        return tuple(joins.get(k, str(k)) for k in own if k != 1)

    # ---- what is printed

    @cached_property
    def _read(self) -> dict[str, dict[str, Term]]:
        """All formulas, with the shared expressions that are really used numbered in the order of their use."""
        shared = self._shared
        found = {"adjoint": self._adjoints(), "parameter": self._gradients(), "input": self._inputs()}
        used: dict[str, None] = {}
        stack = [t for terms in found.values() for t in reversed(terms.values())]
        while stack:
            for x in stack.pop().walk():
                if x.kind == "signal" and x.value[0] in shared and x.value[0] not in used:
                    used[x.value[0]] = None
                    stack.append(shared[x.value[0]])
        order = [k for k in shared if k in used]
        new = {k: _fresh(f"u{i}", self.cell) for i, k in enumerate(order, 1)}
        self._read_shapes = {u: self._shared_shapes[k] for k, u in new.items()}
        renamed = {kind: {k: _with_names(t, new) for k, t in terms.items()} for kind, terms in found.items()}
        return {"shared": {new[k]: _with_names(shared[k], new) for k in order}, **renamed}

    @cached_property
    def shapes(self) -> dict[str, tuple[str, ...]]:
        """The symbolic shape of every name that a formula may hold."""
        cell = self.cell
        blocks = {block_name(cell, p, k): (s[0], part) for p, s in cell.parameters.items() if len(s) == 2 and "+" in s[1]
                  for k, part in enumerate(s[1].split("+"))}
        marks = {mark: cell.signals[n] for n, mark in self._marks.items()}
        return {**blocks, **cell.parameters, **cell.signals, **marks, **self._read_shapes}

    @cached_property
    def arguments(self) -> dict[str, str]:
        """A name for what goes into the function of a gate, by the name of the gate: a_f of f."""
        return {n: mark for n, mark in self._marks.items() if mark in self.recurrence}

    @cached_property
    def shared(self) -> dict[str, Term]:
        """What formulas use more than once, under the names u1, u2, ..."""
        return self._read["shared"]

    @cached_property
    def recurrence(self) -> dict[str, Formula]:
        """dL/ds[t] of every quantity and of every gate's argument, in the order of the backward pass; before them what
        they share, as u1, u2, ..."""
        shared = {k: Formula(Term("signal", (k, 0)), t, self.shapes) for k, t in self._read["shared"].items()}
        return {**shared, **{k: Formula(Term("adjoint", (k, 0)), t, self.shapes) for k, t in self._read["adjoint"].items()}}

    @cached_property
    def parameters(self) -> dict[str, Formula]:
        """dL/dW of every parameter as a sum over the steps."""
        return {p: Formula(Term("parameter", p), t, self.shapes, over_time=True) for p, t in self._read["parameter"].items()}

    @cached_property
    def inputs(self) -> dict[str, Formula]:
        """dL/dx[t] of every input."""
        return {n: Formula(Term("adjoint", (n, 0)), t, self.shapes) for n, t in self._read["input"].items()}

    def _adjoints(self) -> dict[str, Term]:
        found: dict[str, Term] = {}
        order = [e.name for e in reversed(self.cell.roles.order)]
        for name in (n for e in order for n in (e, self._marks[e])):
            node = self.graph.labels.get(self._label(name))
            if node is not None:
                here = self._names[node]
                found[name] = self._reader.root(node) if here == Term("adjoint", (name, 0)) else here
        return found

    def _label(self, name: str) -> Any:
        return next((k for k in self.graph.labels if k.name == f"dloss/d{name}" and k.step == self._middle), None)

    def _gradients(self) -> dict[str, Term]:
        found = {}
        for p in self.cell.parameters:
            if p not in self.cell.learned:
                gradient = self.graph.outputs[f"dloss/d{p}"]
                terms = gradient.src if gradient.op.name == "add_n" else (gradient,)
                found[p] = total([self._reader.term(n) for n in terms if self.graph.steps.get(n) == self._middle])
        return found

    def _inputs(self) -> dict[str, Term]:
        return {n: self._reader.root(self.graph.outputs[f"dloss/d{n}[{self._middle}]"]) for n in self.cell.inputs}

    @cached_property
    def local(self) -> dict[tuple[str, str], Any]:
        """Elementwise derivatives of each equation by what it reads, as SymPy expressions in gate outputs."""
        import sympy

        return {k: sympy.factor_terms(scalars.scalar(t)) for k, t in self.local_terms.items()}

    @cached_property
    def by_sympy(self) -> dict[tuple[str, str], Any]:
        """The same derivatives as SymPy finds them from the equations alone, each of which is equal to the engine's; without
        those that are written in other products than the equation."""
        equations = {e.name: e for e in self.cell.system.equations}
        found = {(y, s): calculus.derivative(equations[y], self._marks[y], s, t) for (y, s), t in self.local_terms.items()}
        return {k: v for k, v in found.items() if v is not None}

    @cached_property
    def local_terms(self) -> dict[tuple[str, str], Term]:
        found: dict[tuple[str, str], Term] = {}
        for e in self.cell.roles.order:
            found.update(_local(self.cell, e, self._marks[e.name], self._sizes))
        return found

    @cached_property
    def jacobian(self) -> dict[tuple[str, str], JacobianBlock]:
        """Blocks `d state[t] / d state[t-1]`; a longer lag k is under (state, "name[t-k]")."""
        names: dict[Node, Term] = {}
        shapes = {n: (BATCH, *self.cell.signal_shape(n, self._sizes)) for n in (*self.cell.states, *self.cell.inputs)}
        slots = {(n, k): input_node(f"{n}[t-{k}]", shapes[n]) for n, k in self.cell.slots}
        inputs = [input_node(f"{n}[t]", shapes[n]) for n in self.cell.inputs]
        weights = {p: input_node(p, s) for p, s in self.cell.shapes(self._sizes).items()}
        names.update({n: Term("signal", slot) for slot, n in slots.items()})
        names.update({n: Term("signal", (k, 0)) for k, n in zip(self.cell.inputs, inputs, strict=True)})
        names.update({n: Term("parameter", p) for p, n in weights.items()})
        _, signals = self.cell.step(list(slots.values()), inputs, weights)
        for name, n in signals.items():
            names.setdefault(n, Term("signal", (name, 0)))
        found = {}
        for (by, lag), slot in slots.items():
            if by in self.cell.states:
                v = input_node("the tangent", slot.shape)
                reader = TermReader({**names, v: self._variable}, self.cell, self._sizes)
                for state in self.cell.states:
                    moved = forward([signals[state]], {slot: v})[0]
                    key = (state, by if lag == 1 else f"{by}[t-{lag}]")
                    length = written(moved, {*names, v})
                    found[key] = (self._block(state, by, lag, reader.term(moved)) if length <= LONGEST else
                                  self._too_long(state, by, lag, length))
        return found

    @cached_property
    def _variable(self) -> Term:
        return Term("variable", _fresh("v", self.cell))

    def _too_long(self, state: str, by: str, lag: int, length: int) -> JacobianBlock:
        """Quantities between two states that are read more than once multiply the ways between them."""
        words = f"written out, {length:.3g} operations, too many to print: the equations between have to be followed one by one"
        return JacobianBlock(state, by, lag, None, Term("number", 0.0), self._variable, words)

    def _block(self, state: str, by: str, lag: int, moved: Term) -> JacobianBlock:
        """A sum of chains, where state and earlier state are alike enough for diagonals and matrices to say it."""
        try:
            found = () if moved == Term("number", 0.0) else tuple(chains(moved, self._variable))
        except NotLinearError:
            return JacobianBlock(state, by, lag, None, moved, self._variable)
        ranks = [len(self.cell.signals[n]) for n in (state, by)]
        only_diagonals = all(f.diagonal for c in found for f in c.factors)
        alike = ranks == [1, 1] or (ranks[0] == ranks[1] and only_diagonals)
        return JacobianBlock(state, by, lag, found if alike or not found else None, moved, self._variable)

    @cached_property
    def functions(self) -> dict[str, str]:
        """Quantities that are outputs of one function of a sum: gate -> function."""
        return {e.name: e.term.value for e in self.cell.system.equations if e.term.kind == "call" and len(e.term.args) == 1}

    @cached_property
    def norms(self) -> dict[tuple[str, str], str]:
        """An upper bound of the norm of each block, in LaTeX (after Pascanu, Mikolov & Bengio 2013)."""
        return {k: bound(paths(b.applied, self._variable), self.functions) for k, b in self.jacobian.items() if b.chains}

    # ---- forms

    def latex(self) -> str:
        """A LaTeX fragment with headings."""
        return pages.as_latex(self)

    def markdown(self) -> str:
        """The whole derivation in Markdown with LaTeX formulas."""
        return pages.as_markdown(self)

    def mathml(self) -> str:
        """A self-contained HTML page in which formulas are MathML: no script, no network."""
        return pages.as_html(self)

    def notebook(self) -> str:
        """A Jupyter notebook that prints the derivation and repeats its proof."""
        return pages.as_notebook(self)

    def save(self, file: PathLike) -> None:
        """Write `.md`, `.tex`, `.html` or `.ipynb`, by the ending of the name."""
        path = path_of(file)
        forms: Mapping[str, Callable[[], str]] = {".md": self.markdown, ".tex": self.latex, ".html": self.mathml,
                                                  ".ipynb": self.notebook}
        if path.suffix not in forms:
            raise ArgumentError(f"{path.name}: a derivation is written as {', '.join(forms)}")
        atomic_write(path, forms[path.suffix]().encode())

    def __str__(self) -> str:
        return pages.as_text(self)

    def _repr_markdown_(self) -> str:
        """What goes back in time, in a few lines; `print`, `.markdown()` and `.save("x.html")` have all of it."""
        counts = f"{len(self.recurrence)} recurrences, {len(self.parameters)} parameter gradients"
        return (f"**{pages.md(self.cell.title)}**: {counts}, read from the engine's backward graph. How the gradient goes "
                f"back in time (all of it: `print`, `.markdown()`, `.save(\"x.html\")`):\n\n"
                f"{displayed([f.latex for f in self.recurrence.values()])}\n")


def derive(cell: Cell) -> Derivation:
    """The derivation of a cell's backward pass: local derivatives, recurrences, parameter gradients, Jacobian, norms.

    Everything is read from the graphs that the engine runs, node by node, with the names of the equations.

    A vector quantity has the shape of its signal, [H]; a parameter gradient that of the parameter. Raises `ArgumentError` for
    anything but a cell.

    >>> import tinyrnn as tr
    >>> d = tr.derive(tr.cells.LSTM)
    >>> d.local["h", "o"], d.local["f", "a_f"]
    (tanh(c[t]), f[t]*(1 - f[t]))
    >>> print(d.recurrence["c"])
    dL/dc[t] = dL/dc[t+1] * f[t+1] + dL/dh[t] * o[t] * (1 - tanh(c[t]) ** 2)
    >>> print(d.parameters["W_hf"])
    dL/dW_hf = sum over t of outer(dL/da_f[t], h[t-1])
    """
    if not isinstance(cell, Cell):
        raise ArgumentError(f"derive takes a cell, got {type(cell).__name__}; a layer's equations are layer.cell")
    return Derivation(cell)


def written(n: Node, known: Container[Node]) -> int:
    """How many operations a node is when it is written out as one formula, down to what is known by name."""
    count: dict[Node, int] = {}
    for m in walk([n]):
        count[m] = 1 if m in known else 1 + sum(count[s] for s in m.src)
    return count[n]


def _fresh(name: str, cell: Cell) -> str:
    """A name that the cell does not use."""
    return fresh(name, {*cell.system.names, *cell.parameters})


def _with_names(t: Term, new: Mapping[str, str]) -> Term:
    return t.rewritten(lambda x: Term("signal", (new.get(x.value[0], x.value[0]), x.value[1])) if x.kind == "signal" else None)


def _local(cell: Cell, e: Equation, mark: str, sizes: Mapping[str, int]) -> dict[tuple[str, str], Term]:
    """The derivatives of one equation by what it reads at this step or earlier, where they are elementwise."""
    read = dict.fromkeys(t.value for t in e.term.walk() if t.kind == "signal")
    sized = [t.value for t in e.term.walk() if t.kind == "size"]
    signals = {key: input_node(show(Term("signal", key)), (BATCH, *cell.signal_shape(key[0], sizes)))
               for key in [*read, *((n, 0) for n in sized)]}
    if not signals:
        return {}
    weights = {p: input_node(p, s) for p, s in cell.shapes(sizes).items()}
    y = Step([e], signals, weights, cell.constants, cell.ranks, lambda _, n: n).env[e.name, 0]
    names = {n: Term("parameter", p) for p, n in weights.items()} | {n: Term("signal", k) for k, n in signals.items()}
    wrt = {show(Term("signal", k)) if k[1] else k[0]: n for k, n in signals.items() if k in read}
    if Trait.NAMED in y.op.traits:
        wrt, names = {mark: y.src[0], **wrt}, {y.src[0]: Term("signal", (mark, 0)), **names}
    names[y] = Term("signal", (e.name, 0))
    g, variable = input_node("the adjoint", y.shape), Term("variable", "g")
    reader = TermReader({**names, g: variable}, cell, sizes)
    found = {}
    adjoints = backward({y: g}, wrt.values())
    for name, n in wrt.items():
        alike = n in adjoints and n.shape == y.shape
        term = _diagonal(reader.term(adjoints[n]), variable) if alike else None
        if term is not None:
            found[e.name, name] = term
    return found


def _diagonal(t: Term, g: Term) -> Term | None:
    """e where t is e ⊙ g, or a sum of such; None where matrices stand between."""
    try:
        found = chains(t, g)
    except NotLinearError:
        return _at_one(t, g) if _entrywise(t, g) else None
    if any(not f.diagonal for c in found for f in c.factors):
        return None
    one = Term("number", 1.0)
    return total([c.factors[0].term if c.factors else one for c in found])


def _entrywise(t: Term, g: Term) -> bool:
    """Whether g stands behind sums, products and choices only."""
    if t == g or g not in t.walk():
        return True
    plain = t.kind == "negate" or (t.kind == "binary" and t.value in ("+", "-", "*", "/")) or t.value == "where"
    return plain and all(_entrywise(x, g) for x in t.args)


def _at_one(t: Term, g: Term) -> Term:
    """What g is multiplied by, where a term is linear in it: where(c, g, 0) times u is where(c, u, 0)."""
    if t == g:
        return Term("number", 1.0)
    if t.kind == "binary" and t.value == "*" and (g in t.args):
        return next(x for x in t.args if x != g)
    return t.map(lambda x: _at_one(x, g) if g in x.walk() else x)
