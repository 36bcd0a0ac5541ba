"""`leaks`: a proof that padding reaches no output, state, loss or gradient, or the path on which it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from ..domains import Mark, Padding
from ..domains.padding import CLEAN, PADDED
from ..door import behind
from ..errors import ArgumentError, ShapeError
from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.ops.elementwise import name_of
from ..ir.ops.leaves import box_of, full, input_name, input_node
from ..model import evaluating
from ..passes import unroll
from ..search import shortest_path
from ..shapes import show
from ..tensor.functional import sum as total
from ..tensor.functional import where
from ..tensor.masks import check_lengths, row_mask, takes
from ..tensor.tensor import Tensor, TensorLike
from ..tensor.transforms import grad
from ..trees import flatten
from .printed import Printed
from .subject import Model, is_model

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
    """What `leaks` found: `holds`, `survives_nan`, and each way from padding to a result; print it, or `draw("leak.svg")`."""

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
               "as long as every number on the way is finite; NaN, infinity or 0 / 0 might pass")
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
        return behind("draw_path")(f"padding reaches {first.result}", first.nodes, first.steps, file, **options)


def leaks(what: Model | Callable[..., Any], lengths: Any, x: TensorLike | None = None, *,
          loss: Callable[..., Any] | None = None) -> LeakReport:
    """Prove that what stands beyond each row's length reaches no output within the lengths, state, loss or gradient.

    `what` is a layer, a model, or a function `f(x, lengths)` of tensors; `x` is an example [B, T, ...] of its input (or
    a tuple, with a tuple of lengths), needed where the shape does not follow from the layer.  Every entry of a run is
    zero, clean or padded, and masks are computed as they are: an output that is never padded is the same function of
    the clean entries whatever the padding holds (`survives_nan`: NaN included; else as long as every number on the way is
    finite).  The loss is the sum of the squares of all valid outputs and states unless given as a function of the result
    (of a layer: output and state).
    The proof is for these lengths, and for indices that are valid.

    Raises `ArgumentError` where nothing is padded, where nothing floating comes out, and where an example is needed.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.LSTM(3, 4, bidirectional=True, rng=0)
    >>> report = tr.leaks(layer, [5, 2, 0])
    >>> report.holds, report.survives_nan
    (True, True)
    >>> leaky = tr.leaks(lambda x, lengths: layer(x)[0].sum(1), [5, 2], np.ones((2, 6, 3), "float32"))
    >>> leaky.holds
    False
    """
    several = isinstance(lengths, tuple) and not all(isinstance(n, (int, np.integer)) for n in lengths)
    given = tuple(lengths) if several else (lengths,)
    if not callable(what):
        raise ArgumentError(f"leaks takes a layer, a model or a function of (x, lengths), got {type(what).__name__}")
    if loss is not None and not callable(loss):
        raise ArgumentError(f"loss={loss!r}: expected a function of the result")
    axis = int(not (is_model(what) and what.reads_time_first()))
    example = _example(what, given) if x is None else x
    parts = [_array(p) for p in (example if isinstance(example, tuple) else (example,))]
    if len(given) not in (1, len(parts)):
        raise ArgumentError(f"{len(parts)} inputs have {len(given)} lengths")
    counts = [check_lengths(n, p.shape[axis], p.shape[1 - axis]) for p, n in
              zip(parts, given if len(given) == len(parts) else given * len(parts), strict=True)]
    title = type(what).__name__ if is_model(what) else getattr(what, "__name__", "function")
    if not any((n < p.shape[axis]).any() for n, p in zip(counts, parts, strict=True)):
        raise ArgumentError("no row is shorter than its input, so nothing is padded and there is nothing to prove: give "
                            "lengths below the number of steps")
    case = _Case(what, counts, isinstance(example, tuple), axis, loss)
    graph, results = case.traced(parts)
    marks = case.marked(graph, parts)
    found = _found(graph, results, marks, strict=False)
    survives = not found and not _found(graph, results, marks, strict=True)
    return LeakReport(title, tuple(n.tolist() for n in counts), tuple(results), tuple(found), survives, graph)


def _array(part: object) -> Any:
    array = np.asarray(part)
    if array.ndim < 2 or array.dtype.kind not in "fiub":
        raise ArgumentError(f"an example is an array [B, T, ...] of numbers, got {array.dtype} of shape {show(array.shape)}")
    return array


def _texts(lengths: Sequence[Any]) -> str:
    return " and ".join(map(str, lengths))


def _example(what: object, lengths: Sequence[Any]) -> Any:
    """An input of the right shape for a layer that says it; one step longer than the longest row."""
    if not is_model(what):
        raise ArgumentError(f"leaks needs an example of the input of {type(what).__name__}: leaks(model, lengths, x)")
    return what.example(len(lengths[0]), *(int(max(n, default=0)) + 1 for n in lengths))


# ---- the graph

@dataclass(frozen=True)
class _Case:
    """What is looked at, and the lengths of its inputs; `axis` is that of time."""

    what: Any
    counts: Sequence[Any]
    several: bool
    axis: int
    loss: Callable[..., Any] | None

    def traced(self, parts: Sequence[Any]) -> tuple[Graph, list[str]]:
        """The results as an unrolled graph: outputs at valid steps, states, loss and gradients."""
        inputs = self._inputs(parts)
        result = self._result(inputs)
        outputs = self._valid(_named(result, is_model(self.what)), parts)
        floating = [t for t in outputs.values() if t.dtype.kind == "f"]
        if not floating:
            raise ArgumentError("nothing floating comes out, so there is nothing to prove")
        squares = [total(t * t) for t in floating]
        value = self.loss(result) if self.loss else reduce(lambda a, b: a + b, squares)
        if not isinstance(value, Tensor) or value.shape:
            raise ArgumentError("the loss is to be one number")
        parameters = self._parameters(value)
        wanted = {**outputs, "loss": value}
        wanted |= {f"dL/d{k}": g for k, g in zip(parameters, grad(value, list(parameters.values())), strict=True)}
        wanted |= {f"dL/d{input_name(t.node)}": grad(value, t) for t in inputs if t.dtype.kind == "f"}
        graph = unroll(Graph(wanted))
        if not any(t.node in set(graph.nodes) for t in inputs):
            raise ArgumentError("no result depends on the input, so there is nothing to prove")
        return graph, list(wanted)

    def _parameters(self, value: Tensor) -> dict[str, Tensor]:
        """Every parameter that the loss depends on, those of layers that a function closes over included."""
        own = dict(self.what.named_parameters()) if is_model(self.what) else {}
        known = {t.node for t in own.values()}
        others = {k: n for k, n in Graph({"loss": value}).leaves.items() if box_of(n).trainable and n not in known}
        return {**own, **{f"{k} (of a layer outside)" if k in own else k: Tensor(n) for k, n in others.items()}}

    def _inputs(self, parts: Sequence[Any]) -> list[Tensor]:
        """Placeholders: a function that asks for their numbers would hide what it does with them."""
        names = ["x"] if len(parts) == 1 else [f"input {i}" for i in range(len(parts))]
        return [Tensor(input_node(n, p.shape, p.dtype)) for n, p in zip(names, parts, strict=True)]

    def _result(self, inputs: Sequence[Tensor]) -> Any:
        """What a layer, model or function returns; a model that knows neither lengths nor mask is not given any."""
        n: Any = tuple(self.counts) if self.several else self.counts[0]
        if not is_model(self.what):
            return self.what(tuple(inputs) if self.several else inputs[0], n)
        known = takes(self.what)
        with evaluating():
            if "lengths" in known:
                return self.what(*inputs, lengths=n)
            if "mask" in known and not self.several:
                return self.what(*inputs, mask=row_mask(inputs[0].shape[1], n, inputs[0].shape[0]))
            return self.what(*inputs)

    def _valid(self, found: Found, parts: Sequence[Any]) -> Found:
        """Results without what stands beyond the lengths, which is nobody's.

        Only a result with a time axis has such entries: one that grows with the input.
        """
        valid = row_mask(parts[-1].shape[self.axis], self.counts[-1])
        valid = valid if self.axis else valid.T
        shaped = [k for k, t in found.items() if t.shape[:2] == valid.shape and "state" not in k]
        timed = shaped and self._growing(shaped, found, parts)
        return {k: _where_valid(valid, t) if k in timed else t for k, t in found.items()}

    def _growing(self, names: Sequence[str], found: Found, parts: Sequence[Any]) -> list[str]:
        """Those results that are one step longer where the input is."""
        longer = [np.concatenate([p, np.take(p, [0], self.axis)], self.axis) for p in parts]
        try:
            again = _named(self._result(self._inputs(longer)), is_model(self.what))
        except ShapeError:  # a function for one length only: its shapes have to do; any other error is the function's own
            features = {n for p in parts for n in p.shape[2:]}
            if parts[-1].shape[self.axis] in features:
                raise ArgumentError("it is not clear which axis of the output is time: the function takes one length only, and "
                                    f"{parts[-1].shape[self.axis]} is the number of steps and of features; use another "
                                    "number of steps") from None
            return list(names)
        return [k for k in names if again[k].shape[self.axis] == found[k].shape[self.axis] + 1]

    def marked(self, graph: Graph, parts: Sequence[Any]) -> dict[str, Mark]:
        """Clean parameters; inputs that are padded beyond their lengths."""
        marks: dict[str, Mark] = {}
        for t, n in zip(self._inputs(parts), self.counts, strict=True):
            beyond = np.arange(t.shape[self.axis]) >= n[:, None]
            tags = np.where(beyond if self.axis else beyond.T, PADDED, CLEAN)
            marks[input_name(t.node)] = Mark(np.broadcast_to(tags.reshape(*tags.shape, *(1,) * (t.ndim - 2)), t.shape))
        learned = {k: Mark(np.full(n.shape, CLEAN)) for k, n in graph.leaves.items() if box_of(n).trainable}
        return {**learned, **{k: m for k, m in marks.items() if k in graph.inputs}}


def _where_valid(valid: Tensor, t: Tensor) -> Tensor:
    return where(valid.reshape(*valid.shape, *(1,) * (t.ndim - 2)), t, Tensor(full(0, (), t.dtype)))


def _named(result: object, layer: bool) -> Found:
    """The tensors of a result: the output, then the states of a layer or further results of a function."""
    tensors = [t for t in flatten(result)[0] if isinstance(t, Tensor)]
    if not tensors:
        raise ArgumentError(f"the function is to give tensors, got {type(result).__name__}")
    return {"output" if i == 0 else f"{'state' if layer else 'result'} {i}": t for i, t in enumerate(tensors)}


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
    """A shortest path back from a result to a padded input, through padded values only."""
    path = shortest_path(graph.outputs[result], lambda n: [s for s in n.src if isinstance(tags[s], Mark) and tags[s].padded],
                       lambda n: not n.src)
    nodes = tuple(reversed(path or [graph.outputs[result]]))
    return Leak(result, entries, tuple(_said(graph, n, tags[n]) for n in nodes), nodes)


def _said(graph: Graph, n: Node, mark: Any) -> str:
    """A node of a path in words, with its first padded entry."""
    first = [int(i) for i in np.argwhere(mark.tags == PADDED)[0]]
    name = str(graph.names[n][0]) if n in graph.names else name_of(n) or n.op.name
    step = graph.steps.get(n)
    when = f" at step {step}" if step is not None and n not in graph.names else ""
    return f"{name}{when} {n.dtype}{show(n.shape)}, padded at {first}"


