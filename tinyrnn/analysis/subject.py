"""What is looked at: a cell or a model with numbers, its loss, and the recurrences inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np

from ..cells import Cell
from ..errors import ArgumentError, ShapeError
from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.ops.leaves import full
from ..ir.scan import VALID
from ..model import Trainable
from ..passes.ad.adjoint import backward
from ..shapes import show
from ..tensor.tensor import Tensor
from ..types import Seed
from .bptt import Array, BackwardPass, ScanData, scan_data
from .recurrence import Names, Recurrence, recurrences

Loss = str | Callable[..., Any] | None


@dataclass(frozen=True)
class Subject:
    """A graph with a loss, values for its inputs, and what its recurrences start from, read, and receive from the loss."""

    title: str
    graph: Graph
    values: Mapping[str, Array]
    recurrences: list[Recurrence]
    scan_data: list[ScanData]
    loss: float
    rows: int
    caption: str  # which numbers these are, in words
    outputs: Mapping[str, list[Node]] = field(default_factory=dict)  # of a model's layers, by path, one for each call
    inputs: Sequence[Node] = ()                                      # the data that a model was given
    target: Array | None = None                                      # what the loss compares with

    def backward_passes(self) -> list[tuple[BackwardPass, ScanData]]:
        """Every recurrence, ready to be walked over its named quantities."""
        return [(BackwardPass(r), n) for r, n in zip(self.recurrences, self.scan_data, strict=True)]

    def run(self, nodes: Sequence[Node]) -> dict[Node, Array]:
        """The values of nodes of the graph."""
        known = set(self.graph.nodes)
        wanted = [n for n in dict.fromkeys(nodes) if n in known]
        whole = Graph({str(i): n for i, n in enumerate(wanted)})
        found = whole.run({k: v for k, v in self.values.items() if k in whole.inputs or k in whole.leaves})
        return {n: found[str(i)] for i, n in enumerate(wanted)}

    def gradients(self, nodes: Sequence[Node]) -> dict[Node, Array]:
        """The gradient of the loss for each of these nodes that it reaches."""
        loss, known = self.graph.outputs["loss"], set(self.graph.nodes)
        wanted = [n for n in dict.fromkeys(nodes) if n.floating and n in known]
        found = backward({loss: full(1, (), loss.dtype)}, wanted)
        wanted = [n for n in wanted if n in found]
        if not wanted:
            return {}
        whole = Graph({str(i): found[n] for i, n in enumerate(wanted)})
        run = whole.run({k: v for k, v in self.values.items() if k in whole.inputs or k in whole.leaves})
        return {n: run[str(i)] for i, n in enumerate(wanted)}


@runtime_checkable
class Model(Trainable, Protocol):
    """A layer or a model that can be looked at."""

    @property
    def cell(self) -> Cell | None:
        """What a recurrent layer runs at every step."""

    def places(self, prefix: str = "", above: tuple[Any, ...] = ()) -> Iterator[tuple[str, Tensor]]:
        """Every place that holds data; what is shared stands in several."""

    def summary(self) -> str:
        """A table of the layers."""

    def example(self, batch: int, *steps: int) -> Any:
        """An input of the right shape and dtype."""

    def subject(self, x: object, y: object = None, *, lengths: object = None, mask: object = None,
                loss: Loss = None) -> Subject:
        """A run on data with a loss, ready to be analysed."""


def is_model(what: object) -> TypeGuard[Model]:
    """Whether something is a layer or a model, and not a class of them."""
    return isinstance(what, Model) and not isinstance(what, type)


def subject_of_graph(title: str, graph: Graph, values: Mapping[str, Array], names: Names | None, rows: int,
                     what: str) -> Subject:
    """A graph with an output `loss` as something to look at."""
    found = recurrences(graph, names)
    given, loss = scan_data(graph, graph.outputs["loss"], found, values)
    return Subject(title, graph, values, found, given, loss, rows, what)


# ---- cells

def subject_of_cell(cell: Cell, steps: int | None, values: Mapping[str, Any] | None = None, loss: Loss = None,
               sizes: Mapping[str, int] | None = None, batch: int | None = None, rng: Seed = 0) -> Subject:
    """A cell over T steps.

    `values` gives parameters by name, input sequences `x` [T, ...] or [T, B, ...] and first states `h[0]`; what is not
    given is random (parameters as `cell.init` draws them, inputs normal) or, for states, zero.
    """
    given = arrays(values)
    check_names(cell, given)
    steps, batch = _extent(cell, given, steps, batch)
    found = sizes_for(cell, sizes, given)
    graph = cell.rolled(steps, found, batch=batch, loss=loss or "sum")
    generator = _generator(rng)
    fixed = {p: given.get(p, generator.normal(size=cell.shapes(found)[p])) for p in cell.fixed}
    drawn: dict[str, Any] = cell.init(found, rng=generator, fixed=fixed)
    drawn.update({k: _start(cell, k, v, found, batch) if k not in cell.parameters else v for k, v in given.items()
                  if k not in cell.inputs})
    for n in cell.inputs:
        sequence = given.get(n, generator.normal(size=(steps, batch, *cell.signal_shape(n, found))))
        sequence = sequence[:, None] if sequence.ndim == 1 + len(cell.signal_shape(n, found)) else sequence
        drawn.update({f"{n}[{t + 1}]": x for t, x in enumerate(sequence)})
    run = {k: drawn.get(k, np.zeros(node.shape)) for k, node in graph.inputs.items()}
    what = f"{UNAIMED.get(loss or 'sum', 'a function of the outputs')}; " + (
        "values as given" if given else "random weights and inputs")
    shown = ", ".join(f"{k} = {n}" for k, n in found.items())
    return subject_of_graph(cell.title, graph, run, None, batch, f"{what}, {shown}, {batch} row{'s' * (batch > 1)}")


def _start(cell: Cell, name: str, value: Array, sizes: Mapping[str, int], batch: int) -> Array:
    """A first state for every row; one without the batch axis is that of all rows."""
    shape = cell.signal_shape(name.partition("[")[0], sizes)
    if value.shape not in (shape, (batch, *shape)):
        raise ShapeError(f"values: the first state {name} has shape {show(value.shape)}, expected {show(shape)} or "
                         f"{show((batch, *shape))}")
    return np.broadcast_to(value, (batch, *shape))


UNAIMED: Mapping[Any, str] = {"sum": "the sum of all outputs", "last": "the sum of the last outputs"}  # losses without targets


def arrays(values: Mapping[str, Any] | None) -> dict[str, Array]:
    if not isinstance(values, (Mapping, type(None))):
        raise ArgumentError(f"values are a dict of arrays by name, got {type(values).__name__}")
    given: dict[str, Array] = {}
    for k, v in (values or {}).items():
        try:
            given[k] = np.asarray(v, np.float64)
        except (TypeError, ValueError):
            raise ArgumentError(f"values: {k} is no array of numbers") from None
    return given


def check_names(cell: Cell, given: Mapping[str, Array]) -> None:
    """Whether a cell has what values are given for."""
    starts = [f"{n}[{1 - k}]" for n, k in cell.slots if n in cell.states]
    known = [*cell.parameters, *cell.inputs, *starts]
    unknown = [k for k in given if k not in known]
    if unknown:
        raise ArgumentError(f"values: cell {cell.name} has nothing called {unknown[0]!r}; expected some of {', '.join(known)} "
                            "(of a trained layer: Recurrent.state_dict(), nn.LSTM(...).cell_values())")


def _extent(cell: Cell, given: Mapping[str, Array], steps: int | None, batch: int | None) -> tuple[int, int]:
    """Steps and rows, from the sequences where they are given."""
    for n in cell.inputs:
        if n in given:
            rank = len(cell.signals[n])
            if given[n].ndim not in (rank + 1, rank + 2):
                raise ShapeError(f"values: input {n} is [T, ...] or [T, B, ...], got {show(given[n].shape)}")
            seen = len(given[n])
            if steps is not None and seen != steps:
                raise ShapeError(f"values: input {n} has {seen} steps, steps={steps}")
            steps, batch = seen, given[n].shape[1] if given[n].ndim == rank + 2 else 1
    if steps is None:
        raise ArgumentError("give steps=, or an input sequence among the values")
    return steps, batch or 1


def _generator(rng: Seed) -> np.random.Generator:
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise ArgumentError(f"rng={rng!r}: expected a whole number from 0, or a NumPy generator") from None


def sizes_for(cell: Cell, sizes: Mapping[str, int] | None, given: Mapping[str, Array] | None = None) -> dict[str, int]:
    """All sizes of a cell: as given, as the arrays among its values say, or small and distinct."""
    settled = settled_sizes(cell, given or {})
    return cell.checked_sizes({**{s: 2 + i for i, s in enumerate(cell.sizes)}, **settled, **(sizes or {})}, {})


def settled_sizes(cell: Cell, given: Mapping[str, Array]) -> dict[str, int]:
    """The sizes that given arrays settle."""
    found: dict[str, int] = {}
    for k, a in given.items():
        symbols = cell.parameters[k] if k in cell.parameters else cell.signals[k.partition("[")[0]]
        found.update({s: n for s, n in zip(symbols, a.shape[a.ndim - len(symbols):], strict=True)
                      if "+" not in s and not s.isdigit()})
    return found


def valid_rows(r: Recurrence, given: ScanData) -> Array | None:
    """Which steps of which rows a mask lets through, [T, B]; None without a mask."""
    found = next((x for k, x in zip(r.input_names, given.inputs, strict=True) if k == VALID), None)
    return None if found is None else np.asarray(found, bool)
