"""`xray`: where the gradient of a recurrence goes, step by step, gate by gate, path by path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..cells import Cell
from ..errors import ArgumentError
from ..tensor.tensor import TensorLike
from ..types import Seed
from .bptt import Array, BackwardPass, ScanData, StepGradients
from .dynamics import singular_values, step_jacobians
from .printed import Printed, plain
from .subject import Loss, Model, is_model, subject_of_cell, valid_rows

COLOURS = [f"tab:{c}" for c in "blue orange green red purple brown pink gray olive cyan".split()]
NEAR = 0.05  # a sigmoid within 5 % of its ends, a tanh within 5 % of ±1, counts as saturated


@dataclass(frozen=True)
class LayerRay:
    """One recurrence: arrays run over its steps, position t = 1 first, whatever direction it reads in."""

    name: str
    gradients: Mapping[str, Array]                    # quantity -> ‖dL/dq[t]‖
    parameters: Mapping[str, Array]                   # parameter -> ‖its part of dL/dW at step t‖
    totals: Mapping[str, Array]                       # parameter -> dL/dW, the sum of all parts
    saturation: Mapping[str, Mapping[str, Array]]     # gate -> "low" and "high": share of entries near either end
    split: Mapping[str, Mapping[str, Array]]          # quantity -> reader -> its share of dL/dq[t]; shares sum to 1
    bptt: BackwardPass
    data: ScanData
    valid: Array | None = None                        # bool [T, B] under a mask

    @property
    def steps(self) -> int:
        return self.bptt.recurrence.steps

    def parts(self, parameter: str) -> Array:
        """Every step's part of the gradient of a parameter, [T, ...]; they sum to the gradient."""
        if parameter not in self.totals:
            raise ArgumentError(f"layer {self.name} has no parameter {parameter!r}; known: {', '.join(self.totals)}")
        out = np.zeros((self.steps, *self.totals[parameter].shape), self.totals[parameter].dtype)
        for m in self.bptt.steps_back(self.data):
            out[m.position - 1] = m.parameters[parameter]
        return out

    @cached_property
    def jacobians(self) -> Array:
        """`d s[t] / d s[t-1]` of the whole state s (all states after one another) for the first row, [T, S, S], in the
        order in which the layer reads."""
        return step_jacobians(self.bptt, self.data)

    def jacobian(self, t: int, s: int) -> Array:
        """`d s[t] / d s[s]` for t >= s, [S, S], in steps of the layer's own reading; s = 0 is the initial state."""
        whole = all(isinstance(n, (int, np.integer)) for n in (t, s))
        if not whole or not 0 <= s <= t <= self.steps:
            raise ArgumentError(f"jacobian({t}, {s}): expected 0 <= s <= t <= {self.steps}")
        product = np.eye(self.jacobians.shape[-1])
        for j in self.jacobians[s:t]:
            product = j @ product
        return product

    @cached_property
    def singular_values(self) -> Array:
        """Singular values of `d s[T] / d s[t]` for t = 0..T-1, [T, S], largest first; 0 where rounding hides them."""
        return singular_values(self.jacobians)

    def dies(self, quantity: str, share: float = 1e-6) -> int | None:
        """The position nearest to the loss before which, in the layer's reading, the gradient stays below `share` of its
        largest; None where it never is that small.  Steps that are padding in every row do not count."""
        if quantity not in self.gradients:
            raise ArgumentError(f"layer {self.name} has no quantity {quantity!r}; known: {', '.join(self.gradients)}")
        norms = self.gradients[quantity]
        most, died = np.nanmax(norms, initial=0.0), None
        for p in self.bptt.recurrence.scan.order:
            if self.valid is not None and not self.valid[p].any():
                continue
            if norms[p] >= share * most or not most:
                break
            died = p + 1
        return died

    def to_dict(self) -> dict[str, Any]:
        """All arrays as lists."""
        return {"name": self.name, "gradients": {k: plain(v) for k, v in self.gradients.items()},
                "parameters": {k: plain(v) for k, v in self.parameters.items()},
                "saturation": {k: {e: plain(v) for e, v in ends.items()} for k, ends in self.saturation.items()},
                "split": {k: {r: plain(v) for r, v in parts.items()} for k, parts in self.split.items()}}

    def __str__(self) -> str:
        shown = _some(self.steps)
        lines = [f"{self.name}: {self.steps} steps", "  ‖dL/d·‖".ljust(20) + "".join(f"t={t}".rjust(10) for t in shown)]
        lines += [f"  {k}".ljust(20) + "".join(f"{v[t - 1]:10.2e}" for t in shown) for k, v in self.gradients.items()]
        for k, ends in self.saturation.items():
            lines.append(f"  {k} saturated: " + ", ".join(f"{e} {np.nanmean(v):.0%}" for e, v in ends.items())
                         + " of entries, over all valid steps")
        for k, parts in self.split.items():
            there = np.isfinite(list(parts.values())).any(0)
            shares = ", ".join(f"{r} {np.nan_to_num(v[there]).mean():+.0%}" for r, v in parts.items() if there.any())
            lines.append(f"  dL/d{k} comes by {shares or 'nothing'} (means)")
        for k in self.gradients:
            if k in self.bptt.recurrence.state_names and (died := self.dies(k)) is not None:
                where = f"from t = {died} on" if self.bptt.recurrence.scan.reverse else f"up to t = {died}"
                lines.append(f"  the gradient of {k} is below 1e-6 of its largest {where}")
        return "\n".join(lines)


@dataclass(frozen=True)
class XRay(Printed):
    """Every recurrence of a cell, layer or model: print it, `.to_dict()`, `.plot()`, `ray["l0"]`."""

    title: str
    loss: float
    what: str
    layers: Mapping[str, LayerRay]

    @property
    def layer(self) -> LayerRay:
        """The only recurrence."""
        if len(self.layers) != 1:
            raise ArgumentError(f"there are {len(self.layers)} recurrences; take one by name: {', '.join(self.layers)}")
        return next(iter(self.layers.values()))

    def __getitem__(self, name: str) -> LayerRay:
        if name not in self.layers:
            raise ArgumentError(f"no recurrence is called {name!r}; known: {', '.join(self.layers)}")
        return self.layers[name]

    def to_dict(self) -> dict[str, Any]:
        return {"title": self.title, "loss": plain(self.loss), "values": self.what,
                "layers": {k: r.to_dict() for k, r in self.layers.items()}}

    def __str__(self) -> str:
        return "\n".join([f"{self.title}: L = {self.loss:.6g} ({self.what})", *map(str, self.layers.values())])

    def __repr__(self) -> str:
        return f"<XRay {self.title}: {', '.join(self.layers)}>"

    def plot(self) -> Any:
        """Gradient norms, parameter parts and path shares over time, a row for every recurrence, with matplotlib."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 3.1 * len(self.layers)), layout="constrained")
        rows = figure.subplots(len(self.layers), 3, squeeze=False)
        for axes, ray in zip(rows, self.layers.values(), strict=True):
            _plot(axes, ray)
        return figure


def _plot(axes: Any, ray: LayerRay) -> None:
    t = np.arange(1, ray.steps + 1)
    for a in axes:
        a.set_prop_cycle(color=COLOURS * 2, linestyle=["-"] * 10 + ["--"] * 10)
    for k, v in ray.gradients.items():
        axes[0].semilogy(t, np.where(v > 0, v, np.nan), label=k)
    axes[0].set(title=f"{ray.name}: ‖dL/d·‖", xlabel="step t")
    for k, v in ray.parameters.items():
        axes[1].semilogy(t, np.where(v > 0, v, np.nan), label=k)
    axes[1].set(title="parts of the parameters' gradients", xlabel="step t")
    for k, parts in ray.split.items():
        if len(parts) > 1 and (k in ray.bptt.recurrence.state_names or "next step" in parts):
            for r, v in parts.items():
                axes[2].plot(t, v, label=f"{k} by {r}")
    axes[2].set(title="shares of the gradient by path", xlabel="step t")
    for a in axes:
        if 0 < len(a.lines) <= 24:
            a.legend(fontsize=6, ncols=1 + (len(a.lines) > 8))


def _some(steps: int) -> list[int]:
    """A few steps: the ends, and some in between."""
    if steps <= 8:
        return list(range(1, steps + 1))
    return [1, 2, *(round(1 + (steps - 1) * k / 6) for k in range(1, 6)), steps - 1, steps]


def xray(what: Cell | Model, x: Any = None, y: object = None, *, lengths: object = None, mask: object = None, loss: Loss = None,
         steps: int | None = None, values: Mapping[str, Any] | None = None, sizes: Mapping[str, int] | None = None,
         rng: Seed = 0) -> XRay:
    """Where the gradient goes: `‖dL/dq[t]‖` of every state, gate and input, each step's part of every parameter's
    gradient, saturation of gates, and the shares of the gradient by path.

    A layer or model takes rows `x` [B, T, ...] (and targets `y`, `lengths`, `loss` as `fit` does; without `y` the loss is a
    function of the output, unless given the sum of the output at each row's last step).  A cell takes its input sequence
    `x` [T, ...] or [T, B, ...], or `steps` for a random one, and `values` for its parameters; its `loss` is "last",
    "sum" or a function of the list of outputs.  Per layer: `gradients`, `parameters`, `totals`, `saturation`, `split`,
    `parts(W)`, `jacobian(t, s)`, `singular_values`.

    Raises `ArgumentError` for options that do not fit, for what has no recurrence, and for steps that were not run.

    >>> import tinyrnn as tr
    >>> ray = tr.xray(tr.cells.RNN, steps=30).layer
    >>> h = ray.gradients["h"]
    >>> bool(h[0] < 1e-3 * h[-1]), ray.parts("W_hh").sum(0).shape
    (True, (3, 3))
    """
    if isinstance(what, Cell):
        if y is not None or lengths is not None or mask is not None:
            raise ArgumentError("a cell is x-rayed on x or steps=, and values=; y, lengths and mask are for layers and models")
        subject = subject_of_cell(what, steps, _cell_values(what, x, values), loss or "last", sizes, rng=rng)
    elif is_model(what):
        if x is None or steps is not None or values is not None or sizes is not None:
            raise ArgumentError("a layer or model is x-rayed on data: xray(model, x, y); steps and values are for cells")
        subject = what.subject(x, y, lengths=lengths, mask=mask, loss=loss)
    else:
        raise ArgumentError(f"xray takes a cell, a layer or a model, got {type(what).__name__}")
    if not subject.recurrences:
        raise ArgumentError(f"{subject.title} has no recurrence to look at")
    rays = {b.recurrence.name: _ray(b, data) for b, data in subject.backward_passes()}
    return XRay(subject.title, subject.loss, subject.caption, rays)


def _cell_values(cell: Cell, x: TensorLike, values: Mapping[str, Any] | None) -> dict[str, Any]:
    given = dict(values or {})
    if isinstance(x, Mapping):
        return {**given, **x}
    if x is None:
        return given
    if len(cell.inputs) != 1:
        raise ArgumentError(f"cell {cell.name} has the inputs {', '.join(cell.inputs)}: give x as a dict of them")
    return {**given, cell.inputs[0]: x}


@np.errstate(all="ignore")
def _ray(bptt: BackwardPass, given: ScanData) -> LayerRay:
    """One backward pass, reduced to norms and shares."""
    steps, r = bptt.recurrence.steps, bptt.recurrence
    floating = [q for q, n in bptt.quantities.items() if n.floating]
    gradients = {q: np.zeros(steps) for q in floating}
    parameters: dict[str, Array] = {}
    totals: dict[str, Array] = {}
    ends = {q: _ends(bptt.quantities[q].op.name) for q in floating}
    saturation = {q: {e: np.zeros(steps) for e in found} for q, found in ends.items() if found}
    split: dict[str, dict[str, Array]] = {}
    later: StepGradients | None = None
    valid = valid_rows(r, given)
    for m in bptt.steps_back(given):
        at = m.position - 1
        for q in floating:
            g = m.gradients[q]
            gradients[q][at] = 0.0 if g is None else np.linalg.norm(g)
            for reader, share in _shares(bptt, m, later, q).items():
                split.setdefault(q, {}).setdefault(reader, np.full(steps, np.nan))[at] = share
        for q in saturation:
            for e, test in ends[q].items():
                rows = m.values[q] if valid is None else m.values[q][valid[at]]
                saturation[q][e][at] = np.mean(test(rows)) if rows.size else np.nan
        for p, part in m.parameters.items():
            parameters.setdefault(p, np.zeros(steps))[at] = np.linalg.norm(part)
            totals[p] = totals[p] + part if p in totals else part
        later = m
    return LayerRay(r.name, gradients, parameters, totals, saturation, split, bptt, given, valid)


def _ends(op: str) -> dict[str, Any]:
    """Tests for the ends of a saturating function."""
    return {"sigmoid": {"low": lambda v: v < NEAR, "high": lambda v: v > 1 - NEAR},
            "tanh": {"low": lambda v: v < NEAR - 1, "high": lambda v: v > 1 - NEAR},
            "relu": {"low": lambda v: v <= 0}}.get(op, {})


def _shares(bptt: BackwardPass, m: StepGradients, later: StepGradients | None, q: str) -> dict[str, float]:
    """The share of dL/dq that each reader sends: readers within the step, the next step, and the loss itself."""
    whole = m.gradients[q]
    if whole is None:
        return {}
    parts: dict[str, Any] = {a: v for (a, b), v in m.sent.items() if b == q}
    r, node = bptt.recurrence, bptt.quantities[q]
    handed = [k for k, n in zip(r.state_names, r.new_states, strict=True) if n is node]
    if handed and later is not None:
        received = [g for k in handed if (g := later.gradients.get(k)) is not None]
        if received:
            parts["next step"] = sum(received)
    if node in set(r.traced.values()) or (handed and later is None):
        parts["loss"] = whole - sum(parts.values())
        if np.linalg.norm(parts["loss"]) <= 1e-12 * np.linalg.norm(whole):  # the loss does not read it: rounding is left
            del parts["loss"]
    square = float(np.vdot(whole, whole).real)
    return {reader: float(np.vdot(whole, v).real) / square if square > 0 else float("nan") for reader, v in parts.items()}
