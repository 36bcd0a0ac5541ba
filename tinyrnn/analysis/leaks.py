"""`leaks`: a proof that padding reaches no output, state, loss or gradient, or the path on which it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..domains import Mark, Padding
from ..domains.padding import CLEAN, PADDED
from ..errors import ArgumentError
from ..functional import grad, where
from ..functional import sum as total
from ..ir.graph import LENSES, Graph
from ..ir.node import Node
from ..ir.ops.leaves import INPUT, LEAF
from ..nn.bidirectional import Bidirectional
from ..nn.layers import Embedding
from ..nn.module import Module
from ..nn.packed import Packed
from ..nn.recurrent import Recurrent
from ..nn.seq2seq import EncoderDecoder
from ..nn.sequential import Sequential
from ..padding import check_lengths, row_mask, takes
from ..passes import unroll
from ..shapes import show
from ..tensor import Tensor, as_tensor
from ..train.loop import evaluating
from ..trees import flatten
from .printed import Printed

Found = dict[str, Tensor]


@dataclass(frozen=True)
class Leak:
    """One result that padding reaches, and how: from the padded input to the result."""

    result: str
    entries: int
    steps: tuple[str, ...]
    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return f"padding reaches {self.result} ({self.entries} entries):\n    " + "\n    -> ".join(self.steps)


@dataclass(frozen=True)
class LeakReport(Printed):
    """What `leaks` found: `.holds`, print it, `.draw("leak.svg")`."""

    title: str
    lengths: tuple[Any, ...]
    results: tuple[str, ...]
    found: tuple[Leak, ...]
    survives_nan: bool
    graph: Graph

    @property
    def holds(self) -> bool:
        """Whether no padding reaches any result."""
        return not self.found

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        if self.found:
            return "\n".join([f"{self.title}: padding leaks (lengths {_texts(self.lengths)})", *map(str, self.found)])
        nan = ("also where NaN or infinity stands there" if self.survives_nan else
               "for finite numbers; NaN times zero would pass")
        return (f"{self.title}: proved for lengths {_texts(self.lengths)}: what stands in the padding reaches none of "
                f"{len(self.results)} results ({', '.join(self.results[:6])}{', …' if len(self.results) > 6 else ''}), {nan}")

    def __repr__(self) -> str:
        return f"<LeakReport {self.title}: {'proved' if self.holds else f'{len(self.found)} leaks'}>"

    def to_dict(self) -> dict[str, Any]:
        return {"title": self.title, "holds": self.holds, "survives nan": self.survives_nan, "results": list(self.results),
                "leaks": {k.result: {"entries": k.entries, "path": list(k.steps)} for k in self.found}}

    def draw(self, file: str | None = None, **options: Any) -> Any:
        """A picture of the first path on which padding leaks."""
        if not self.found:
            raise ArgumentError("there is no leak to draw: the proof holds")
        first = self.found[0]
        return LENSES["path"](f"padding reaches {first.result}", first.nodes, first.steps, file, **options)


def leaks(what: Module | Callable[..., Any], lengths: Any, x: Any = None, *,
          loss: Callable[..., Any] | None = None) -> LeakReport:
    """Prove that what stands beyond each row's length reaches no output within the lengths, state, loss or gradient.

    `what` is a layer, a model, or a function `f(x, lengths)` of tensors; `x` is an example [B, T, ...] of its input (or
    a tuple, with a tuple of lengths), needed where the shape does not follow from the layer.  Every entry of a run is
    zero, clean or padded, and masks are computed as they are: an output that is never padded is the same function of
    the clean entries whatever the padding holds.  The loss is the sum of the squares of all valid outputs and states
    unless given as a function of the result.  Not covered: the choice of lengths itself; prove those that you use.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.LSTM(3, 4, bidirectional=True, rng=0)
    >>> report = tr.leaks(layer, [5, 2, 0])
    >>> report.holds, report.survives_nan
    (True, True)
    >>> leaky = tr.leaks(lambda x, lengths: layer(x)[0].sum(1), [5, 2], np.ones((2, 6, 3), "float32"))
    >>> leaky.holds
    False
    """
    given = tuple(lengths) if isinstance(lengths, tuple) else (lengths,)
    example = _example(what, given) if x is None else x
    parts = list(example) if isinstance(example, tuple) else [example]
    if len(given) not in (1, len(parts)):
        raise ArgumentError(f"{len(parts)} inputs have {len(given)} lengths")
    counts = [check_lengths(n, np.shape(p)[1], np.shape(p)[0]) for p, n in
              zip(parts, given if len(given) == len(parts) else given * len(parts), strict=True)]
    inputs = [as_tensor(np.asarray(p), name=f"input {i}" if len(parts) > 1 else "x") for i, p in enumerate(parts)]
    title = type(what).__name__ if isinstance(what, Module) else getattr(what, "__name__", "function")
    graph, results = _traced(what, inputs, counts, isinstance(example, tuple), loss)
    found = _found(graph, results, _marked(graph, inputs, counts), strict=False)
    survives = not found and not _found(graph, results, _marked(graph, inputs, counts), strict=True)
    return LeakReport(title, tuple(n.tolist() for n in counts), tuple(results), tuple(found), survives, graph)


def _texts(lengths: Sequence[Any]) -> str:
    return " and ".join(map(str, lengths))


def _example(what: Any, lengths: Sequence[Any]) -> Any:
    """An input of the right shape for a layer that says it; one step longer than the longest row."""
    def shaped(m: Any, n: Any) -> Any:
        batch, steps = len(n), int(max(n, default=0)) + 1
        match m:
            case Sequential():
                return shaped(m.layers[0], n)
            case Bidirectional():
                return shaped(m.forward, n)
            case Packed():
                shape: tuple[int, ...] = (batch, steps, m.input_size)
                return np.ones(shape if m.batch_first else (steps, batch, m.input_size), m.dtype)
            case Recurrent() if len(m.cell.inputs) == 1 and not m.time_major:
                return np.ones((batch, steps, *m.cell.signal_shape(m.cell.inputs[0], m.sizes)), m.dtype)
            case Embedding():
                return np.zeros((batch, steps), np.int64)
        raise ArgumentError(f"leaks needs an example of the input of {type(m).__name__}: leaks(model, lengths, x)")

    if isinstance(what, EncoderDecoder):
        if len(lengths) != 2:
            raise ArgumentError("EncoderDecoder has two lengths: leaks(model, (source lengths, target lengths))")
        return tuple(np.zeros((len(n), int(max(n)) + 1), np.int64) for n in lengths)
    return shaped(what, lengths[0])


# ---- the graph

def _traced(what: Any, inputs: Sequence[Tensor], counts: Sequence[Any], several: bool,
            loss: Callable[..., Any] | None) -> tuple[Graph, list[str]]:
    """The results as an unrolled graph: outputs at valid steps, states, loss and gradients."""
    x: Any = tuple(inputs) if several else inputs[0]
    n: Any = tuple(counts) if several else counts[0]
    if isinstance(what, Module):
        with evaluating(what):
            result = _called(what, x, n)
        parameters = dict(what.named_parameters())
    else:
        result, parameters = what(x, n), {}
    steps = inputs[-1].shape[1]
    valid = row_mask(steps, counts[-1])
    outputs = {name: _within(t, valid) for name, t in _named(result).items()}
    floating = [t for t in outputs.values() if t.dtype.kind == "f"]
    if not floating:
        raise ArgumentError("nothing floating comes out, so there is nothing to prove")
    if loss is None:
        value = total(floating[0] * floating[0])
        for t in floating[1:]:
            value = value + total(t * t)
    else:
        value = loss(result)
    wanted = {**outputs, "loss": value}
    wanted |= {f"dL/d{k}": g for k, g in zip(parameters, grad(value, list(parameters.values())), strict=True)}
    for t in inputs:
        if t.dtype.kind == "f":
            wanted[f"dL/d{t.name}"] = grad(value, t)
    return unroll(Graph(wanted)), list(wanted)


def _called(model: Module, x: Any, n: Any) -> Any:
    """What a layer or model returns; one that knows neither lengths nor mask is not given any."""
    known, given = takes(model), x if isinstance(x, tuple) else (x,)
    if "lengths" in known:
        return model(*given, lengths=n)
    if "mask" in known and not isinstance(n, tuple):
        return model(*given, mask=row_mask(x.shape[1], n, x.shape[0]))
    return model(*given)


def _named(result: Any) -> Found:
    """The tensors of a result: the output, then states."""
    leaves, _ = flatten(result)
    tensors = [t for t in leaves if isinstance(t, Tensor)]
    if not tensors:
        raise ArgumentError(f"the function is to give tensors, got {type(result).__name__}")
    return {"output" if i == 0 else f"state {i}": t for i, t in enumerate(tensors)}


def _within(t: Tensor, valid: Tensor) -> Tensor:
    """An output [B, T, ...] without what stands beyond the lengths, which is nobody's; others as they are."""
    if t.shape[:2] != valid.shape or t.dtype.kind != "f":
        return t
    return where(valid.reshape(*valid.shape, *(1,) * (t.ndim - 2)), t, 0.0)


def _marked(graph: Graph, inputs: Sequence[Tensor], counts: Sequence[Any]) -> dict[str, Mark]:
    """Clean parameters; inputs that are padded beyond their lengths."""
    marks: dict[Node, Mark] = {}
    for t, n in zip(inputs, counts, strict=True):
        beyond = np.arange(t.shape[1]) >= n[:, None]
        tags = np.where(beyond, PADDED, CLEAN).reshape(*beyond.shape, *(1,) * (t.ndim - 2))
        marks[t.node] = Mark(np.broadcast_to(tags, t.shape))
    return {k: marks.get(node, Mark(np.full(node.shape, CLEAN))) for k, node in {**graph.leaves, **graph.inputs}.items()
            if node in marks or node.op is INPUT or node.at[0].trainable}


# ---- leaks

def _found(graph: Graph, results: Sequence[str], marks: Mapping[str, Mark], strict: bool) -> list[Leak]:
    run = graph.run(marks, domain=Padding(strict))
    leaking = [k for k in results if isinstance(run[k], Mark) and run[k].padded]
    if not leaking:
        return []
    every = Graph({str(i): n for i, n in enumerate(graph.nodes)})
    tags = dict(zip(graph.nodes, every.run(dict(marks), domain=Padding(strict)).values(), strict=True))
    return [_leak(graph, k, int((run[k].tags == PADDED).sum()), tags) for k in leaking]


def _leak(graph: Graph, result: str, entries: int, tags: Mapping[Node, Any]) -> Leak:
    """A shortest way back from a result to a padded input, through padded values only."""
    before: dict[Node, Node | None] = {graph.outputs[result]: None}
    queue = [graph.outputs[result]]
    start = queue[0]
    for n in queue:
        if not n.src:
            start = n
            break
        for s in n.src:
            if s not in before and isinstance(tags[s], Mark) and tags[s].padded:
                before[s] = n
                queue.append(s)
    nodes: list[Node] = []
    here: Node | None = start
    while here is not None:
        nodes.append(here)
        here = before[here]
    return Leak(result, entries, tuple(_said(graph, n, tags[n]) for n in nodes), tuple(nodes))


def _said(graph: Graph, n: Node, mark: Any) -> str:
    """A node of a path in words, with its first padded entry."""
    first = [int(i) for i in np.argwhere(mark.tags == PADDED)[0]]
    name = str(graph.names[n][0]) if n in graph.names else (n.at[0].name if n.op is LEAF else None) or n.op.name
    step = graph.steps.get(n)
    when = f" at step {step}" if step is not None and n not in graph.names else ""
    return f"{name}{when} {n.dtype}{show(n.shape)}, padded at {first}"


