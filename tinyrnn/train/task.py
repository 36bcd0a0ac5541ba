"""What is optimised: a model, its loss and its metrics, as programs over one batch."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, TinyRNNError
from ..ir.node import walk
from ..ir.ops.elementwise import tag
from ..ir.ops.leaves import full, input_node
from ..losses import LOSSES, Loss, loss_named
from ..model import Trainable, backward_layer
from ..optim import Optimizer
from ..optim.optimisers import slot_dtype, with_still_row
from ..shapes import show
from ..tensor.compile import Program
from ..tensor.functional import where
from ..tensor.masks import blank_padding, marks_for, only_rows, row_mask, takes
from ..tensor.randomness import randomness
from ..tensor.tensor import Tensor, as_tensor, extents
from ..tensor.transforms import grad
from ..trees import map_tree
from .data import Data, parts_of
from .metrics import Metric, base_of, metric_named

Array = npt.NDArray[Any]


class Results(NamedTuple):
    """What a program says of a batch: the loss and the metrics, the state that the next piece of a stream starts from, and
    for every number that must be finite whether it is."""

    scores: dict[str, Any]
    state: Any = None
    finite: dict[str, Any] = {}  # noqa: RUF012  (never changed)


class Task:
    """Programs that train on and score a batch; parameters and what the optimiser remembers get new data."""

    def __init__(self, model: Trainable, loss: str | Loss, metrics: Sequence[str | Loss | Metric], backend: str,
                 optimizer: Optimizer | None = None, *, accumulate: int = 1, streams: bool = False,
                 ignore_index: int | None = None, threads: int | None = None) -> None:
        self.model, self.loss, self.streams, self.ignore_index = model, loss_named(loss), streams, ignore_index
        _check_partial(loss)
        self.loss_name = loss if isinstance(loss, str) else getattr(loss, "__name__", "loss")
        self.metrics = _by_name([metric_named(m, self.loss) for m in ((metrics,) if isinstance(metrics, str) else metrics)])
        self.parameters: dict[str, Tensor] = dict(model.named_parameters())
        self._tried = False
        self._grows: dict[Any, int | None] = {}
        self.optimizer = optimizer
        self.slots = {} if optimizer is None else self._slots(optimizer)
        self.sums = {k: as_tensor(np.zeros(p.shape, p.dtype), name=f"sum of gradients of {k}")
                     for k, p in self.parameters.items() if accumulate > 1}
        self.training_program = Program(self._training, backend, threads=threads)
        self.gathering_program = Program(self._gathering, backend, threads=threads)
        self.applying_program = Program(self._applying, backend, threads=threads)
        self.scoring_program = Program(self._scoring, backend, threads=threads)
        if streams:
            check_streams(model)

    def _slots(self, optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
        """What the optimiser remembers, by position as in `step`, as tensors that the program updates."""
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"optimizer is {optimizer!r}: expected one of tinyrnn.optim, for example tr.optim.Adam(1e-3)")
        optimizer.claim(list(self.parameters.values()))
        kept = optimizer.state.get("of", {})
        found: dict[str, dict[str, Tensor]] = {}
        for i, (name, p) in enumerate(self.parameters.items()):
            before = optimizer.checked_slots(kept.get(str(i), {}), name, p.shape)
            kind = slot_dtype(p.dtype)
            found[name] = {k: as_tensor(before[k] if k in before else np.zeros(p.shape, kind), kind, f"{k} of {name}")
                           for k in optimizer.slots}
        return found

    def remember(self) -> None:
        """Hand what was learned about the gradients back to the optimiser."""
        assert self.optimizer is not None
        kept = {str(i): {k: t.numpy() for k, t in slots.items()} for i, slots in enumerate(self.slots.values())}
        self.optimizer.state = {**self.optimizer.state, "of": {**self.optimizer.state.get("of", {}), **kept}}

    def finished(self, means: Mapping[str, Any]) -> dict[str, float]:
        """The figures that are shown, from the means over an epoch."""
        return {k: self.metrics[k].finish(v) if k in self.metrics else float(v) for k, v in means.items()}

    # ---- what the programs compute

    def _scores(self, x: object, y: Tensor, lengths: object, mask: Tensor | None, state: Any) -> Results:
        output, after = call(self.model, x, lengths, mask, state, self.streams)
        keep = self._counted(x, y, lengths, mask)
        keep = None if keep is None else Tensor(tag(keep.source(), "mask"))  # a node of its own, so that its use can be seen
        keywords = {} if keep is None else {"mask": keep}
        if keywords and not takes_mask(self.loss):
            raise ArgumentError(f"the loss {self.loss_name} takes no mask=, so that padding would count: write it as "
                                "loss(output, target, mask=None)")
        deaf = [k for k, m in self.metrics.items() if keywords and not takes_mask(m.measure)]
        if deaf:
            raise ArgumentError(f"the metric {deaf[0]} takes no mask=, so that padding would count: write it as "
                                "metric(output, target, mask=None)")
        scores: dict[str, Any] = {"loss": self.loss(output, y, **keywords)}
        scores |= {name: m.measure(output, y, **keywords) for name, m in self.metrics.items()}
        for what, score in scores.items():
            if not isinstance(score, Tensor) or (what == "loss" and score.shape):
                got = f"one of shape {show(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
                who = f"the loss {self.loss_name}" if what == "loss" else f"the metric {what}"
                raise ArgumentError(f"{who} gives {got}; fit and evaluate need a tensor, which for a loss is one number: take "
                                    ".mean()")
        if keep is not None:
            _check_masked({f"the loss {self.loss_name}": scores["loss"],
                           **{f"the metric {k}": scores[k] for k in self.metrics}}, keep)
        return Results(scores, after if self.streams else None)

    def _counted(self, x: object, y: Tensor, lengths: object, mask: Tensor | None) -> Tensor | None:
        """Which targets count; None when all do."""
        keep = None if self.ignore_index is None else y != self.ignore_index
        timed = None if lengths is None and mask is None else self.timed(x, y)
        if timed is not None:
            valid = row_mask(extents(y)[1], lengths[timed] if isinstance(lengths, tuple) else lengths) if mask is None else mask
            keep = valid if keep is None else keep & valid
        return keep

    def check_masks(self, batch: Mapping[str, Any]) -> None:
        """What a person wrote must leave out what the mask leaves out: tried once, on made-up outputs that differ there."""
        own = {f"the loss {self.loss_name}": self.loss} if base_of(self.loss) not in LOSSES.values() else {}
        own |= {f"the metric {k}": m.measure for k, m in self.metrics.items()
                if not getattr(m.measure, "__module__", "").startswith(_OURS)}
        own = {k: f for k, f in own.items() if takes_mask(f)}
        if self._tried or not own or not (self.ignore_index is not None or {"lengths", "mask"} & set(batch)):
            return
        self._tried, y, rng = True, batch["y"], np.random.default_rng(0)
        parts = [Tensor(input_node(f"x{i}", p.shape, p.dtype)) for i, p in enumerate(parts_of(batch["x"]))]
        x = dict(zip(batch["x"], parts, strict=True)) if isinstance(batch["x"], Mapping) else (
            tuple(parts) if isinstance(batch["x"], tuple) else parts[0])
        shape = call(self.model, x, None, None, None, False, checked=False)[0].shape
        keep = rng.random(y.shape[:2] if self.ignore_index is None else y.shape) < 0.5
        if shape[: keep.ndim] != keep.shape or not keep.any() or keep.all():
            return
        output = rng.uniform(0.2, 0.8, shape)
        other = np.where(keep.reshape(*keep.shape, *(1,) * (len(shape) - keep.ndim)), output, 1 - output)
        with np.errstate(all="ignore"):
            for what, score in own.items():
                a, b = (score(as_tensor(o), as_tensor(y), mask=as_tensor(keep)) for o in (output, other))
                if isinstance(a, Tensor) and not np.allclose(a.numpy(), b.numpy(), rtol=1e-6, equal_nan=True):
                    raise ArgumentError(f"{what} takes mask= and lets entries count where it is False: leave them out of the "
                                        "sum as well as of the number that it is divided by (tr.where(mask, each, 0.0))")

    def _gradients(self, x: object, y: Tensor, key: Tensor, lengths: object, mask: Tensor | None,
                   state: Any) -> tuple[Results, dict[str, Tensor], Tensor]:
        """Scores, with a flag for each number that must be finite; gradients; and whether all flags hold."""
        with randomness(key):
            results = self._scores(x, y, lengths, mask, state)
        loss = results.scores["loss"]
        grads = grad(loss, self.parameters)
        finite = {"the loss": _finite(loss), **{f"the gradient of {k}": _finite(g) for k, g in grads.items()}}
        return results._replace(finite=finite), grads, functools.reduce(operator.and_, finite.values())

    def _update(self, grads: Mapping[str, Tensor], numbers: Mapping[str, Tensor], good: Tensor) -> None:
        """New parameters, unless a number on the way is not finite."""
        assert self.optimizer is not None
        for name, g in self.optimizer.clip(grads).items():
            p, slots = self.parameters[name], self.slots[name]
            own = {k: v.astype(slot_dtype(p.dtype)) for k, v in numbers.items()}
            new, after = self.optimizer.update_one(p, g, slots, own)
            p.assign(with_still_row(p, where(good, new, p)))  # noted by the trace; the data change when the program has run
            for k, v in after.items():
                slots[k].assign(where(good, v, slots[k]))

    def _training(self, x: object, y: Tensor, key: Tensor, numbers: Mapping[str, Tensor], lengths: object = None,
                  mask: Tensor | None = None, state: Any = None) -> Results:
        results, grads, good = self._gradients(x, y, key, lengths, mask, state)
        self._update(grads, numbers, good)
        return results

    def _gathering(self, x: object, y: Tensor, key: Tensor, weight: Tensor, lengths: object = None, mask: Tensor | None = None,
                   state: Any = None) -> Results:
        """One of several batches of an update: its gradients are added up, weighted by its targets."""
        results, grads, good = self._gradients(x, y, key, lengths, mask, state)
        for name, g in grads.items():
            total = self.sums[name]
            total.assign(where(good, total + g * weight.astype(g.dtype), total))
        return results

    def _applying(self, numbers: Mapping[str, Tensor], weight: Tensor) -> Results:
        """The update for what was added up."""
        grads = {k: t / weight.astype(t.dtype) for k, t in self.sums.items()}
        finite = {f"the gradient of {k}": _finite(g) for k, g in grads.items()}
        self._update(grads, numbers, functools.reduce(operator.and_, finite.values()))
        for t in self.sums.values():
            t.assign(Tensor(full(0, t.shape, t.dtype)))
        return Results({}, finite=finite)

    def _scoring(self, x: object, y: Tensor, lengths: object = None, mask: Tensor | None = None, state: Any = None) -> Results:
        return self._scores(x, y, lengths, mask, state)

    # ---- whether there is a target for every step

    def timed_of(self, data: Data) -> int | None:
        """The part of the data that has a target for every step."""
        return self.timed(data.tree(data.parts), data.y)

    def timed(self, x: object, y: Any) -> int | None:
        """The part of x (by its number) that has a target for every step: the model's output must grow with it.

        Sizes alone cannot tell (4 steps, 4 outputs), so the model is traced once more with one step more.
        """
        parts = parts_of(x)
        kind = (*((p.shape[1:], p.dtype.str) for p in parts), y.shape[1:])
        if kind not in self._grows:
            fitting = (i for i, p in enumerate(parts) if p.ndim > 1 and y.ndim > 1 and y.shape[1] == p.shape[1])
            self._grows[kind] = next((i for i in sorted(fitting, reverse=True) if self._output_grows(x, i)), None)
        return self._grows[kind]

    def _output_grows(self, x: object, grown: int) -> bool:
        return output_grows(self.model, x, grown)


def output_grows(model: Trainable, x: object, grown: int) -> bool:
    """Whether the model's output has one step more where a part of x has."""
    try:
        return _steps_out(model, x, None) != _steps_out(model, x, grown)
    except TinyRNNError:  # the model takes this one length only, so its targets are as long as they look
        return True


def _steps_out(model: Trainable, x: object, grown: int | None) -> int | None:
    """The steps of the model's output for one row, with one step more in the part `grown` (in all parts of a dict)."""
    def stand_in(i: int, p: Any) -> Tensor:
        more = grown is not None and (i == grown or isinstance(x, Mapping))
        shape = (1, p.shape[1] + more, *p.shape[2:]) if p.ndim > 1 else (1,)
        return Tensor(input_node(f"x{i}", shape, p.dtype))

    parts = [stand_in(i, p) for i, p in enumerate(parts_of(x))]
    several = tuple(parts) if isinstance(x, tuple) else parts[0]
    given = dict(zip(x, parts, strict=True)) if isinstance(x, Mapping) else several
    y, _ = call(model, given, None, None, None, False, checked=False)
    return y.shape[1] if y.ndim > 1 else None


_OURS = __name__.partition(".")[0] + "."


def _check_masked(scores: Mapping[str, Tensor], keep: Tensor) -> None:
    """What takes a mask must use it: padding would be averaged in."""
    for what, score in scores.items():
        if keep.source() not in walk([score.source()]):
            raise ArgumentError(f"{what} takes mask= but does not use it, so that padding and targets that do not count would "
                                "be averaged in: leave out the entries where mask is False, and divide by their number")


def _finite(x: Tensor) -> Tensor:
    """Whether no entry is NaN or infinite."""
    return abs(x).max() < float("inf") if x.size else as_tensor(np.True_)


def check_streams(model: Trainable) -> None:
    """Whether a model can carry its state from one piece of a stream to the next."""
    if "state" not in takes(model):
        raise ArgumentError(f"tbptt carries the state from piece to piece, but {type(model).__name__}.__call__ has no argument "
                            "state; it is to take one and to return (output, state)")
    layer = backward_layer(model)
    if layer is not None:
        raise ArgumentError(f"tbptt: {layer} reads its sequence from the end and cannot continue a stream")


def _check_partial(loss: object) -> None:
    """Refuse options of a loss that would leave metrics and means over batches behind."""
    fixed = loss.keywords if isinstance(loss, functools.partial) else {}
    if fixed.get("ignore_index") is not None:
        raise ArgumentError("give ignore_index= to fit and evaluate, not to the loss: metrics and means over batches leave the "
                            "same targets out then")
    if fixed.get("reduction", "mean") != "mean":
        raise ArgumentError(f"reduction={fixed['reduction']!r}: fit and evaluate take means, and weigh them by their targets")


def takes_mask(loss: Any) -> bool:
    """Whether a loss knows `mask=`."""
    try:
        known = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == "mask" or p.kind is p.VAR_KEYWORD for p in known)


def _by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    found = {m.name: m for m in metrics}
    if len(found) != len(metrics) or "loss" in found:
        raise ArgumentError("metrics need names of their own, other than loss, as in f1(outside, name='f1 of all'); got "
                            + ", ".join(m.name for m in metrics))
    return found


def call(model: Trainable, x: object, lengths: object, mask: object, state: Any, streams: bool, *,
         checked: bool = True) -> tuple[Tensor, Any]:
    """The model's output, and its state where streams are continued; `checked` refuses a sequence where rows are meant."""
    with only_rows(checked):
        return _output_of(model, x, lengths, mask, state, streams)


def _output_of(model: Trainable, x: object, lengths: object, mask: object, state: object, streams: bool) -> tuple[Tensor, Any]:
    if model.reads_time_first():
        raise ArgumentError("fit, evaluate and predict take rows first; this model has a layer with batch_first=False, "
                            "for which time would be taken for rows")
    known, last = takes(model), parts_of(x)[-1]
    keywords = dict(marks_for(model, lengths, mask, last))
    if streams:
        keywords |= {"state": state, **({"return_state": True} if "return_state" in known else {})}
    if isinstance(x, tuple):
        each = lengths if isinstance(lengths, tuple) else (lengths,) * len(x)
        result = model(*(blank_padding(p, n, mask) for p, n in zip(x, each, strict=True)), **keywords)
    else:
        result = model(map_tree(lambda p: blank_padding(p, lengths, mask), x), **keywords)
    if streams and (not isinstance(result, tuple) or len(result) != 2):
        raise ArgumentError(f"tbptt: {type(model).__name__} is to return (output, state), got {type(result).__name__}")
    output, after = result if isinstance(result, tuple) else (result, None)
    if not isinstance(output, Tensor):
        raise ArgumentError(f"{type(model).__name__} gives {type(output).__name__} as its output; fit, evaluate and predict "
                            "need one tensor: merge or choose among several outputs in the model")
    return output, after if streams else None
