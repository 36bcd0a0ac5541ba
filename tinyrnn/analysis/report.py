"""`analyze`: what a graph costs, how its gradients travel, and how its steps hang together, in one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..cells import Cell
from ..errors import ArgumentError
from ..ir.graph import Graph
from ..ir.ops.leaves import box_of
from ..ir.scan import SCAN
from ..passes import grad, unroll
from ..types import Seed
from .dynamics import Route, lyapunov, singular_values, step_jacobians, strongest
from .measure import OperationCount, PeakMemory, Saved, memory, saved, saved_of_cell, work
from .paths import Paths, gradient_paths
from .printed import Printed, plain
from .recurrence import recurrences
from .structure import Loops, loops, rerolled
from .subject import Loss, Model, Subject, arrays, is_model, sizes_for, subject_of_cell, valid_rows

MOST_SOURCES = 16   # quantities of a graph or model to which paths are counted
DYNAMIC_STEPS = 50  # numbers of a run are taken over at most so many steps


@dataclass(frozen=True)
class Dynamics:
    """Singular values of the Jacobians of a run, Lyapunov exponents, strongest paths, for one recurrence."""

    steps: int
    what: str
    singular: Any            # of d s[T] / d s[0], largest first
    largest_by_step: Any     # the largest of d s[T] / d s[t]
    exponents: Any
    routes: tuple[Route, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "values": self.what, "singular values of ds[T]/ds[0]": plain(self.singular),
                "largest singular value of ds[T]/ds[t]": plain(self.largest_by_step),
                "Lyapunov exponents": plain(self.exponents),
                "strongest paths": {r.source: {"gain": plain(r.gain), "gradient": plain(r.gradient), "path": str(r)}
                                   for r in self.routes}}


@dataclass(frozen=True)
class Report(Printed):
    """What `analyze` found, a field for each figure: print it, `to_dict()`, or `plot()`."""

    title: str
    steps: int | None
    work: OperationCount
    memory: PeakMemory
    paths: tuple[Paths, ...]
    runs: tuple[tuple[int, int], ...]
    saved: Saved | None = None
    loops: Mapping[str, Loops] = field(default_factory=dict)
    dynamics: Mapping[str, Dynamics] = field(default_factory=dict)
    left_out: int = 0  # quantities to which paths were not counted

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, texts, lists and dicts, ready for JSON."""
        return {"title": self.title, "steps": self.steps, "work": self.work.to_dict(), "memory": self.memory.to_dict(),
                "paths": {w.source: w.to_dict() for w in self.paths}, "runs of equal steps": [list(r) for r in self.runs],
                "saved": None if self.saved is None else self.saved.to_dict(),
                "loops": {k: v.to_dict() for k, v in self.loops.items()},
                "dynamics": {k: v.to_dict() for k, v in self.dynamics.items()}}

    def __str__(self) -> str:
        return "\n".join([self.title, *self._costs(), *self._paths(), *self._shape(), *self._numbers()])

    def __repr__(self) -> str:
        return f"<Report {self.title}>"

    def _costs(self) -> list[str]:
        w, m = self.work, self.memory
        lines = [f"  nodes           {w.nodes:,}   depth {w.depth:,}   width {w.width:,}",
                 f"  work            {w.flops:,} flops, {w.bytes:,} bytes, {w.intensity:.2f} flops a byte",
                 f"  critical path   {w.span:,} flops, parallelism {w.parallelism:.2f}: {_shortened(w.chain)}",
                 f"  memory          peak {m.peak:,} bytes at {m.at or 'the end'}, inputs {m.inputs:,}, all values {m.total:,}"]
        if self.saved is not None:
            s = self.saved
            lines.append(f"  saved           {s.bytes:,} bytes a step and row ({s.naive_bytes:,} without the minimum cut): "
                         + ", ".join(s.names))
            if s.whole_bytes is not None:
                lines.append(f"                  {s.whole_bytes:,} where states are built again over the whole sequence: "
                             + ", ".join(s.whole_names))
        return lines

    def _paths(self) -> list[str]:
        if not self.paths:
            return []
        lines = ["  gradient of L by     paths      saturating (fewest, most)   recurrent products (fewest)   every path "
                 "passes"]
        for w in self.paths:
            lines.append(f"    {w.source:<16} {_count(w.count):>9}   {w.fewest_saturating:>12g} {w.most_saturating:>12g}   "
                         f"{w.fewest_products:>27g}   {_shortened(w.bottlenecks) or 'nothing alone'}")
        return [*lines, f"    … and {self.left_out} more quantities"] if self.left_out else lines

    def _shape(self) -> list[str]:
        lines = []
        if self.runs:
            longest = max(self.runs, key=lambda r: r[1] - r[0])
            lines.append(f"  equal steps     {longest[0]} to {longest[1]}" + ("" if len(self.runs) == 1 else
                         f", the longest of {len(self.runs)} runs"))
        for name, x in self.loops.items():
            lines.append(f"  loops of {name}: recurrent depth {x.recurrent_depth}, fewest functions a step {x.shortest}, "
                         f"feedforward depth {x.feedforward_depth}, a checkpoint between steps holds {', '.join(x.carried)}")
        return lines

    def _numbers(self) -> list[str]:
        lines = []
        for name, d in self.dynamics.items():
            lines.append(f"  {name}, {d.steps} steps of a run ({d.what}):")
            lines.append(f"    ds[T]/ds[0]     singular values {_numbers(d.singular)}")
            lines.append(f"    Lyapunov        {_numbers(d.exponents)} nats a step")
            lines += [f"    strongest path  to {r.source}: {r}   (gain {r.gain:.2e}, whole gradient {r.gradient:.2e})"
                      for r in d.routes]
        return lines

    def plot(self) -> Any:
        """Memory over the run; of recurrences also singular values and Lyapunov exponents; with matplotlib, the figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13 if self.dynamics else 6, 3.2), layout="constrained")
        alive, *others = figure.subplots(1, 3 if self.dynamics else 1, squeeze=False)[0]
        alive.plot(np.asarray(self.memory.live) / 1e3, drawstyle="steps-post")
        alive.set(xlabel="op, in the order of execution", ylabel="kilobytes alive", title=f"peak at {self.memory.at}")
        for name, d in self.dynamics.items():
            others[0].semilogy(range(d.steps), np.where(d.largest_by_step > 0, d.largest_by_step, np.nan), label=name)
            others[1].plot(range(1, len(d.exponents) + 1), d.exponents, "o-", label=name)
        if self.dynamics:
            others[0].set(xlabel="step t", ylabel="largest singular value of ds[T]/ds[t]")
            others[1].set(xlabel="number", ylabel="Lyapunov exponent, nats a step")
            others[1].axhline(0, color="0.6", lw=0.8)
            others[0].legend()
        return figure


def _count(n: int) -> str:
    """A whole number of any size."""
    text = str(n) if n < 10**6 else ""
    if text:
        return text
    digits = len(hex(n)) * 1.2041199826559248 - 3  # of hex digits in decimal ones, roughly; exact below
    exponent = max(int(digits) - 3, 0)
    while 10 ** (exponent + 1) <= n:
        exponent += 1
    return f"{n * 100 // 10**exponent / 100:.1f}e{exponent}"


def _shortened(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names if len(names) <= most else [*names[:2], f"… {len(names) - 4} more …", *names[-2:]])


def _numbers(values: Any, most: int = 6) -> str:
    shown = [f"{v:.3g}" if v else "0 (hidden by rounding)" for v in values[:most]]
    return ", ".join(shown) + (f", … ({len(values)})" if len(values) > most else "")


def analyze(what: Cell | Graph | Model, x: object = None, *, steps: int | None = None, batch: int = 1,
            sizes: Mapping[str, int] | None = None, values: Mapping[str, Any] | None = None, y: object = None,
            lengths: object = None, loss: Loss = None, rng: Seed = 0) -> Report:
    """What a cell, graph or model costs, and how its gradients travel.

    A cell is unrolled over `steps` (100 unless given) before any pass; its `loss` is "last" (the sum of the outputs at the
    last step), "sum", or a function of the list of outputs, and `values` are as in `draw`.  A model needs an example `x`
    [B, T, ...], and `y` for a loss as in `fit`.  The report has: nodes, flops, bytes and their ratio; the critical path,
    parallelism and width; peak memory in the order of execution; what a step keeps for its backward step (the minimum cut
    of the pass `partition`); for every initial state (of a model: parameter; of a graph: input) the number of gradient paths,
    the fewest and most saturating functions and the fewest recurrent products on any of them, and the values that all
    paths pass; runs of equal steps; recurrent depth and the checkpoint between steps; of a run over at most 50 steps the
    singular values of `ds[T]/ds[0]`, Lyapunov exponents and the strongest path.  Time is linear in the size of the graph.

    Raises `ArgumentError` for options that do not fit what is analysed, for a model without an example, and for a graph
    without output.

    >>> import tinyrnn as tr
    >>> report = tr.analyze(tr.cells.GRU, steps=100)
    >>> paths = report.paths[0]
    >>> paths.source, paths.count == 5**100, paths.fewest_saturating, paths.fewest_products
    ('h[0]', True, 0, 0)
    """
    if isinstance(what, Cell):
        if x is not None or y is not None or lengths is not None:
            raise ArgumentError("a cell is analysed on steps= and values=; x, y and lengths are for models")
        return _cell(what, steps, batch, sizes, values, loss, rng)
    if (steps, sizes, values, batch) != (None, None, None, 1):
        raise ArgumentError("steps, batch, sizes and values are for cells")
    if isinstance(what, Graph):
        return _graph(what)
    if is_model(what):
        if x is None:
            raise ArgumentError("a model is analysed on an example: analyze(model, x) with x [B, T, ...]")
        return _model(what, what.subject(x, y, lengths=lengths, loss=loss))
    raise ArgumentError(f"analyze takes a cell, a model or a graph, got {type(what).__name__}")


def _cell(cell: Cell, steps: int | None, batch: int, sizes: Mapping[str, int] | None, values: Mapping[str, Any] | None,
          loss: Any, rng: Seed) -> Report:
    found = sizes_for(cell, sizes, arrays(values))
    if any(n in cell.inputs for n in values or ()):
        subject = subject_of_cell(cell, steps, values, loss or "last", found, None, rng)
        steps, batch = subject.recurrences[0].steps, subject.rows
    else:
        steps = 100 if steps is None else steps
        subject = subject_of_cell(cell, min(steps, DYNAMIC_STEPS), values, loss or "last", found, batch, rng)
    flat = cell.unroll(steps, found, batch=batch, loss=loss or "last")
    sources = [f"{n}[{1 - k}]" for n, k in cell.slots if n in cell.states]
    rolled = cell.rolled(2, found, batch=batch, loss="sum", gradients=True)
    shown = ", ".join(f"{k} = {n}" for k, n in found.items())
    return Report(f"{cell.title}: {steps} steps, {shown}, {batch} row{'s' * (batch > 1)}", steps, work(flat), memory(flat),
                  tuple(gradient_paths(flat, sources, flat.outputs["loss"])), tuple(rerolled(flat)),
                  saved_of_cell(cell, found), {r.name: loops(r) for r in recurrences(rolled)[:1]}, _dynamics(subject))


def _dynamics(subject: Subject) -> dict[str, Dynamics]:
    """Of every recurrence, on the row with the most valid steps, without the steps that a mask holds."""
    out = {}
    for bptt, given in subject.backward_passes():
        r = bptt.recurrence
        if not any(n.floating for n in r.new_states) or not r.steps:
            continue
        valid = valid_rows(r, given)
        row = 0 if valid is None else int(np.argmax(valid.sum(0)))
        jacobians = step_jacobians(bptt, given, row)
        if valid is not None:
            jacobians = jacobians[[bool(valid[p, row]) for p in r.scan.order]]
        if not len(jacobians):
            continue
        values, rows = singular_values(jacobians), r.new_states[0].shape[0]
        what = subject.caption + (f", row {row + 1}" if rows > 1 else "")
        out[r.name] = Dynamics(len(jacobians), what, values[0], values[:, 0], lyapunov(jacobians),
                               tuple(strongest(bptt, list(bptt.steps_back(given)))))
    return out


def _graph(graph: Graph) -> Report:
    flat = unroll(graph) if any(n.op is SCAN for n in graph.nodes) else graph
    if not flat.outputs:
        raise ArgumentError("the graph has no output, so there is nothing to analyse")
    target = flat.outputs.get("loss", next(iter(flat.outputs.values())))
    moving = [k for k, n in {**flat.inputs, **flat.leaves}.items() if n.floating]
    sources = sorted(moving, key=lambda k: not k.endswith(("[0]", "[-1]", "[-2]")))  # initial states first
    scans = any(n.op is SCAN for n in graph.nodes)
    return Report(f"a graph of {len(graph)} nodes", None, work(flat), memory(flat),
                  tuple(gradient_paths(flat, sources[:MOST_SOURCES], target)), tuple(rerolled(flat)),
                  saved(graph, 1) if scans else None,
                  {r.name: loops(r) for r in recurrences(graph)}, left_out=max(len(sources) - MOST_SOURCES, 0))


def _model(model: Model, subject: Subject) -> Report:
    flat = unroll(subject.graph)
    steps = max((r.steps for r in subject.recurrences), default=None)
    loss, learned = subject.graph.outputs["loss"], {k: n for k, n in subject.graph.leaves.items() if box_of(n).trainable}
    gradients = dict(zip(learned, grad(loss, list(learned.values())), strict=True))
    kept = saved(Graph({"loss": loss, **gradients}), subject.rows) if subject.recurrences else None
    names = {t.node: name for name, t in model.named_parameters()}
    found = gradient_paths(flat, list(learned)[:MOST_SOURCES], flat.outputs["loss"])
    return Report(f"{subject.title}: {subject.caption}", steps, work(flat), memory(flat),
                  tuple(replace(w, source=names.get(learned[w.source], w.source)) for w in found), tuple(rerolled(flat)), kept,
                  {r.name: loops(r) for r in subject.recurrences}, _dynamics(subject), max(len(learned) - MOST_SOURCES, 0))

