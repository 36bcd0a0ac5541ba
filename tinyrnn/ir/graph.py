"""A graph: named inputs to named outputs.  It is never changed; passes make new ones, analyses and pictures read it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ..door import behind
from ..errors import GraphError
from ..shapes import show
from .node import Node, walk
from .ops.elementwise import name_of
from .ops.leaves import ARG, FULL, INPUT, LEAF, Array, box_of, index_of, input_name, literal_value
from .scan import REGION, SCAN, Body, ScanView, body_of

if TYPE_CHECKING:
    import networkx


class Label(NamedTuple):
    """The name of a value: which quantity, at which step (None outside a sequence), of which cell."""

    name: str
    step: int | tuple[int, ...] | None = None
    cell: str | None = None

    def __str__(self) -> str:
        return self.name if self.step is None else f"{self.name}[{str(self.step).strip('()')}]"


def node_of(value: object) -> Node:
    """The node of a node, or of a handle that carries one."""
    node = getattr(value, "node", value)
    if not isinstance(node, Node):
        raise GraphError(f"expected a tensor, got {type(value).__name__}")
    return node


class Graph:
    """Named outputs, and everything they are computed from.

    Every node knows its shape and dtype. Raises `GraphError` for what is no tensor, and where two inputs of one name differ.

    >>> import tinyrnn as tr
    >>> x = tr.input("x", (2, 3))
    >>> print(tr.Graph({"y": tr.tanh(x).sum()}))
    %0 f64[2,3] = input 'x'
    %1 f64[2,3] = tanh(%0)
    %2 f64[] = sum(%1, axes=(0, 1))
    y = %2
    """

    def __init__(self, outputs: Mapping[str, Any], labels: Mapping[Label, Node] | None = None,
                 steps: Mapping[Node, int] | None = None) -> None:
        self.outputs: dict[str, Node] = {str(k): node_of(v) for k, v in outputs.items()}
        self.labels: dict[Label, Node] = dict(labels or {})
        self.steps: Mapping[Node, int] = steps or {}

    @cached_property
    def nodes(self) -> list[Node]:
        """Every node, sources before users."""
        return walk(self.outputs.values())

    @cached_property
    def inputs(self) -> dict[str, Node]:
        """The placeholders by name."""
        found: dict[str, Node] = {}
        for n in self.nodes:
            if n.op is INPUT and found.setdefault(input_name(n), n) is not n:
                other = found[input_name(n)]
                raise GraphError(f"two inputs are called {input_name(n)!r}: {other.dtype}{show(other.shape)} and "
                                 f"{n.dtype}{show(n.shape)}; give them different names")
        return found

    @cached_property
    def leaves(self) -> dict[str, Node]:
        """The leaves that hold data, by name; a name that several share gets a number (`W#2`)."""
        found: dict[str, Node] = {}
        for n in self.nodes:
            if n.op is LEAF:
                base = box_of(n).name or "data"
                name, k = base, 1
                while name in found or name in self.inputs:
                    k += 1
                    name = f"{base}#{k}"
                found[name] = n
        return found

    def __len__(self) -> int:
        return len(self.nodes)

    def find(self, name: str, step: int | tuple[int, ...] | None = None, cell: str | None = None) -> Node:
        """The node of a named value, e.g. gate `f` at step 3; errors list what is there."""
        exact = self.labels.get(Label(name, step, cell))
        if exact is not None:
            return exact
        found = {n for label, n in self.labels.items()
                 if label.name == name and label.step == step and cell in (None, label.cell)}
        if len(found) != 1:
            known = sorted({label.name for label in self.labels if label.step == step})
            raise GraphError(f"{len(found) or 'no'} values are called {name!r} at step {step}"
                             f"{f' of cell {cell!r}' if cell else ''}; known there: {', '.join(known) or 'nothing'}")
        return found.pop()

    @cached_property
    def names(self) -> dict[Node, tuple[Label, ...]]:
        """The labels of each node."""
        found: dict[Node, tuple[Label, ...]] = {}
        for label, n in self.labels.items():
            found[n] = (*found.get(n, ()), label)
        return found

    def run(self, values: Mapping[str, Any] | None = None, *, domain: Any = None, backend: str = "numpy") -> dict[str, Any]:
        """Evaluate every output.

        `values` gives an array for each input (and may replace the data of a leaf by its name); `domain` says what
        the numbers are (ordinary ones unless given).
        """
        results: dict[str, Any] = behind("run_graph")(self, values or {}, domain, backend)
        return results

    def __str__(self) -> str:
        return "\n".join([*_listing(self.nodes, self.names), *self._output_lines()])

    def _output_lines(self) -> Iterable[str]:
        number = {n: i for i, n in enumerate(self.nodes)}
        return (f"{name} = %{number[n]}" for name, n in self.outputs.items())

    def __repr__(self) -> str:
        return f"<Graph of {len(self.nodes)} nodes: ({', '.join(self.inputs)}) -> ({', '.join(self.outputs)})>"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the structure: equal for equal computations in any process, blind to data and labels."""
        return _fingerprint(self.nodes, self.outputs.items())

    def to_networkx(self) -> networkx.MultiDiGraph[int]:
        """The graph for networkx: nodes are numbered in topological order, edges carry the operand's position.

        Attributes are numbers and texts, so that every writer of networkx takes them (GraphML, GML, GEXF, JSON): op, label,
        shape ("[2,3]"), dtype, flops, bytes; name, cell and output (the names of the outputs that the node is), "" for none;
        and step, where the node belongs to one.
        """
        import networkx as nx

        g: networkx.MultiDiGraph[int] = nx.MultiDiGraph()
        number = {n: i for i, n in enumerate(self.nodes)}
        for n, i in number.items():
            labels = self.names.get(n, ())
            label = labels[0] if labels else Label(name_of(n) if n.op in (INPUT, LEAF) else "")
            step = label.step if label.step is not None else self.steps.get(n)
            g.add_node(i, op=n.op.name, label=n.op.label, shape=show(n.shape), dtype=str(n.dtype), name=label.name or "",
                       cell=label.cell or "", output=", ".join(k for k, o in self.outputs.items() if o is n),
                       flops=int(n.op.flops(n)), bytes=prod(n.shape) * n.dtype.itemsize,
                       **({} if step is None else {"step": step if isinstance(step, int) else ",".join(map(str, step))}))
            for position, s in enumerate(n.src):
                g.add_edge(number[s], i, operand=position)
        return g

    def draw(self, file: str | None = None, **options: Any) -> Any:
        """A picture of the graph; see `tinyrnn.draw`."""
        return behind("draw")(self, file, **options)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """In a notebook: a picture where it can be read, else the listing's first lines."""
        if len(self) <= SHOWN:
            bundle: dict[str, str] = self.draw()._repr_mimebundle_()
            return {**bundle, "text/plain": repr(self)}
        return {"text/plain": repr(self)}


SHOWN = 150  # nodes that a notebook draws by itself


def _attribute(n: Node, index: int, value: object, number: Mapping[Node, int]) -> str | None:
    names = n.op.names
    if isinstance(value, Node):
        body: Body = body_of(n.src[0])
        inside = {m: i for i, m in enumerate(walk([*body.args, *body.outs]))}
        return f"%{inside[value]} of its body" if value in inside else f"{value.op.name} of its body"
    if isinstance(value, Body) or (value is False and names):
        return None
    text = repr(value) if isinstance(value, str) else str(value)
    return f"{names[index]}={text}" if index < len(names) else text


def _short(dtype: Any) -> str:
    return "bool" if dtype.kind == "b" else f"{dtype.kind}{8 * dtype.itemsize}"


def _listing(nodes: Iterable[Node], names: Mapping[Node, tuple[Label, ...]], indent: str = "") -> Iterable[str]:
    number = {n: i for i, n in enumerate(nodes)}
    for n, i in number.items():
        note = "   # " + ", ".join(map(str, names[n])) if n in names else ""
        kind = "" if n.op.kind == "control" and n.dtype.kind == "V" else f" {_short(n.dtype)}{show(n.shape)}"
        yield f"{indent}%{i}{kind} = {_expression(n, number)}{note}"
        if n.op in (SCAN, REGION):
            body = body_of(n)
            inner = walk([*body.args, *body.outs])
            yield from _listing(inner, {}, indent + "    ")
            inside = {m: j for j, m in enumerate(inner)}
            yield f"{indent}    -> {', '.join(f'%{inside[o]}' for o in body.outs)}"


def _expression(n: Node, number: Mapping[Node, int]) -> str:
    if n.op is INPUT:
        return f"input {input_name(n)!r}"
    if n.op is LEAF:
        return f"{'parameter' if box_of(n).trainable else 'data'} {box_of(n).name or ''}".rstrip()
    if n.op is FULL:
        value = literal_value(n)
        return f"{value:g}" if not isinstance(value, bool) else str(value)
    if n.op is ARG:
        return f"arg {index_of(n)}"
    at = n.at[:-2] if n.op.kind == "leaf" else n.at
    if n.op is SCAN:
        scan = ScanView.of(n)
        return (f"scan({', '.join(f'%{number[s]}' for s in n.src)}; {scan.n_states} states, {scan.n_slices} sequences, "
                f"{scan.steps} steps{', reversed' if scan.reverse else ''}):")
    attributes = (_attribute(n, i, a, number) for i, a in enumerate(at))
    return f"{n.op.name}({', '.join([*(f'%{number[s]}' for s in n.src), *(a for a in attributes if a)])})"


def _fingerprint(nodes: Iterable[Node], outputs: Iterable[tuple[str, Node]]) -> str:
    digest = hashlib.sha256()
    number: dict[Node, int] = {}
    for i, n in enumerate(nodes):
        number[n] = number[n.src[0]] if n.op.name == "tag" else i
        if n.op.name != "tag":
            at = tuple(_frozen(a) for a in n.at)
            digest.update(repr((n.op.name, at, n.shape, n.dtype.str, [number[s] for s in n.src])).encode())
    digest.update(repr([(name, number[n]) for name, n in outputs]).encode())
    return digest.hexdigest()[:16]


def _frozen(value: object) -> Any:
    """An attribute as text that is the same in every process."""
    if isinstance(value, Body):
        return _fingerprint(walk([*value.args, *value.outs]), [(str(i), o) for i, o in enumerate(value.outs)])
    if isinstance(value, Node):
        return _fingerprint(walk([value]), [("", value)])
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Array):
        return hashlib.sha256(value.array.tobytes()).hexdigest()
    return str(value) if isinstance(value, (str, int, bool, tuple, type(None))) or hasattr(value, "itemsize") else "box"
