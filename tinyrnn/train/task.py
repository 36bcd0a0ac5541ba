"""What is optimised: a model, its loss and its metrics, as programs over one batch."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compile import Program
from ..errors import ArgumentError, TinyRNNError
from ..functional import blank_padding, grad, row_mask, where
from ..ir.ops.leaves import full, input_node
from ..optim import Optimiser
from ..randomness import randomness
from ..tensor import Tensor, as_tensor
from ..trees import map_tree
from .data import Data
from .metrics import Loss, Metric, loss_named, metric_named

Array = npt.NDArray[Any]
FINITE = "finite: "


class Task:
    """Programs that train on and score a batch; parameters and what the optimiser remembers are updated in place."""

    def __init__(self, model: Any, loss: str | Loss, metrics: Sequence[str | Loss | Metric], backend: str,
                 optimizer: Optimiser | None = None, *, accumulate: int = 1, streams: bool = False) -> None:
        self.model, self.loss, self.streams = model, loss_named(loss), streams
        self.loss_name = loss if isinstance(loss, str) else getattr(loss, "__name__", "loss")
        self.metrics = {m.name: m for m in map(metric_named, metrics)}
        self.parameters: dict[str, Tensor] = dict(model.named_parameters())
        self._grows: dict[Any, bool] = {}
        self.optimizer = optimizer
        self.slots = {} if optimizer is None else self._slots(optimizer)
        self.sums = {k: as_tensor(np.zeros(p.shape, p.dtype), name=f"sum of gradients of {k}")
                     for k, p in self.parameters.items() if accumulate > 1}
        self.training = Program(self._training, backend)
        self.gathering = Program(self._gathering, backend)
        self.applying = Program(self._applying, backend)
        self.scoring = Program(self._scoring, backend)
        if streams:
            check_streams(model)

    def _slots(self, optimizer: Optimiser) -> dict[str, dict[str, Tensor]]:
        """What the optimiser remembers, as tensors that the program updates."""
        kept = optimizer.state.get("of", {})
        found: dict[str, dict[str, Tensor]] = {}
        for name, p in self.parameters.items():
            before = kept.get(name, {})
            if any(np.shape(v) != p.shape for v in before.values()):
                raise ArgumentError(f"{optimizer!r} remembers another {name} of shape {np.shape(next(iter(before.values())))}; "
                                    "take a new optimiser for each model")
            found[name] = {k: as_tensor(before[k] if k in before else np.zeros(p.shape, p.dtype), p.dtype, f"{k} of {name}")
                           for k in optimizer.slots}
        return found

    def remember(self) -> None:
        """Hand what was learned about the gradients back to the optimiser."""
        assert self.optimizer is not None
        kept = {name: {k: t.numpy() for k, t in slots.items()} for name, slots in self.slots.items()}
        self.optimizer.state = {**self.optimizer.state, "of": {**self.optimizer.state.get("of", {}), **kept}}

    def finished(self, means: Mapping[str, Any]) -> dict[str, float]:
        """The figures that are shown, from the means over an epoch."""
        return {k: self.metrics[k].finish(v) if k in self.metrics else float(v) for k, v in means.items()}

    # ---- what the programs compute

    def _scores(self, x: Any, y: Tensor, lengths: Any, mask: Tensor | None, state: Any) -> dict[str, Any]:
        output, after = call(self.model, x, lengths, mask, state, self.streams)
        keywords = {}
        if (lengths is not None or mask is not None) and self.per_step(x, y):
            last = lengths[-1] if isinstance(lengths, tuple) else lengths
            keywords = {"mask": row_mask(y.shape[1], last) if mask is None else mask}
        scores: dict[str, Any] = {"loss": self.loss(output, y, **keywords)}
        scores |= {name: m.measure(output, y, **keywords) for name, m in self.metrics.items()}
        return {**scores, "state": after} if self.streams else scores

    def _gradients(self, x: Any, y: Tensor, key: Tensor, lengths: Any, mask: Tensor | None,
                   state: Any) -> tuple[dict[str, Any], dict[str, Tensor], Tensor]:
        """Scores, with a flag for each number that must be finite; gradients; and whether all flags hold."""
        with randomness(key):
            scores = self._scores(x, y, lengths, mask, state)
        grads = grad(scores["loss"], self.parameters)
        finite = {"the loss": _finite(scores["loss"]), **{f"the gradient of {k}": _finite(g) for k, g in grads.items()}}
        good = functools.reduce(operator.and_, finite.values())
        return {**scores, **{f"{FINITE}{k}": f for k, f in finite.items()}}, grads, good

    def _update(self, grads: Mapping[str, Tensor], numbers: Mapping[str, Tensor], good: Tensor) -> None:
        """New parameters, unless a number on the way is not finite."""
        assert self.optimizer is not None
        for name, g in self.optimizer.clip(grads).items():
            p, slots = self.parameters[name], self.slots[name]
            own = {k: v.astype(p.dtype) for k, v in numbers.items()}
            new, after = self.optimizer.follow(p, g, slots, own)
            p.assign(where(good, new, p))
            for k, v in after.items():
                slots[k].assign(where(good, v, slots[k]))

    def _training(self, x: Any, y: Tensor, key: Tensor, numbers: Mapping[str, Tensor], lengths: Any = None,
                  mask: Tensor | None = None, state: Any = None) -> dict[str, Any]:
        scores, grads, good = self._gradients(x, y, key, lengths, mask, state)
        self._update(grads, numbers, good)
        return scores

    def _gathering(self, x: Any, y: Tensor, key: Tensor, weight: Tensor, lengths: Any = None, mask: Tensor | None = None,
                   state: Any = None) -> dict[str, Any]:
        """One of several batches of an update: its gradients are added up, weighted by its targets."""
        scores, grads, good = self._gradients(x, y, key, lengths, mask, state)
        for name, g in grads.items():
            total = self.sums[name]
            total.assign(where(good, total + g * weight.astype(g.dtype), total))
        return scores

    def _applying(self, numbers: Mapping[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
        """The update for what was added up."""
        grads = {k: t / weight.astype(t.dtype) for k, t in self.sums.items()}
        finite = {f"the gradient of {k}": _finite(g) for k, g in grads.items()}
        self._update(grads, numbers, functools.reduce(operator.and_, finite.values()))
        for t in self.sums.values():
            t.assign(Tensor(full(0, t.shape, t.dtype)))
        return {f"{FINITE}{k}": f for k, f in finite.items()}

    def _scoring(self, x: Any, y: Tensor, lengths: Any = None, mask: Tensor | None = None, state: Any = None) -> dict[str, Any]:
        return self._scores(x, y, lengths, mask, state)

    # ---- whether there is a target for every step

    def per_step_of(self, data: Data) -> bool:
        """Whether there is a target for every step of the data."""
        return self.per_step(data.tree(data.parts), data.y)

    def per_step(self, x: Any, y: Any) -> bool:
        """Whether there is a target for every step: the model's output must grow with the sequence.

        Sizes alone cannot tell (4 steps, 4 outputs), so the model is traced once more with one step more.
        """
        last = parts_of(x)[-1]
        if last.ndim < 2 or y.ndim < 2 or y.shape[1] != last.shape[1]:
            return False
        kind = (*((p.shape[2:], p.dtype.str) for p in parts_of(x)), y.shape[2:])
        if kind not in self._grows:
            self._grows[kind] = self._output_grows(x)
        return self._grows[kind]

    def _output_grows(self, x: Any) -> bool:
        parts = parts_of(x)

        def steps_out(more: int) -> int | None:
            shapes = [(1, p.shape[1] + more * (i == len(parts) - 1 or not isinstance(x, tuple)), *p.shape[2:]) if p.ndim > 1
                      else (1,) for i, p in enumerate(parts)]
            stand_ins = [Tensor(input_node(f"x{i}", s, p.dtype)) for i, (s, p) in enumerate(zip(shapes, parts, strict=True))]
            given = dict(zip(x, stand_ins, strict=True)) if isinstance(x, Mapping) else tuple(stand_ins) if isinstance(
                x, tuple) else stand_ins[0]
            y, _ = call(self.model, given, None, None, None, False)
            return y.shape[1] if y.ndim > 1 else None

        try:
            return steps_out(0) != steps_out(1)
        except TinyRNNError:  # the model takes this one length only, so its targets are as long as they look
            return True


def parts_of(x: Any) -> list[Any]:
    """The arrays of an input."""
    return list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, tuple) else [x]


def _finite(x: Tensor) -> Tensor:
    """Whether no entry is NaN or infinite."""
    return abs(x).max() < float("inf") if x.size else as_tensor(np.True_)


def takes(model: Any) -> Mapping[str, Any]:
    """The arguments that a model's call knows."""
    return inspect.signature(type(model).__call__).parameters


def check_streams(model: Any) -> None:
    """Whether a model can carry its state from one piece of a stream to the next."""
    if "state" not in takes(model):
        raise ArgumentError(f"tbptt carries the state from piece to piece, but {type(model).__name__}.__call__ has no argument "
                            "state; it is to take one and to return (output, state)")
    for name, m in model.named_modules():
        if getattr(m, "bidirectional", False) or getattr(m, "reverse", False) or hasattr(m, "backward"):
            raise ArgumentError(f"tbptt: {name or 'the model'} ({type(m).__name__}) reads its sequence from the end and cannot "
                                "continue a stream")


def call(model: Any, x: Any, lengths: Any, mask: Any, state: Any, streams: bool) -> tuple[Tensor, Any]:
    """The model's output, and its state where streams are continued."""
    if (lengths is not None or mask is not None) and model.reads_time_first():
        raise ArgumentError("lengths in fit, evaluate and predict are for batch-first models; this one has a layer with "
                            "batch_first=False or time_major=True")
    known = takes(model)
    keywords = {k: v for k, v in (("lengths", lengths), ("mask", mask)) if v is not None and k in known}
    if streams:
        keywords |= {"state": state, **({"return_state": True} if "return_state" in known else {})}
    if isinstance(x, tuple):
        each = lengths if isinstance(lengths, tuple) else (lengths,) * len(x)
        result = model(*(blank_padding(p, n, mask) for p, n in zip(x, each, strict=True)), **keywords)
    else:
        result = model(map_tree(lambda p: blank_padding(p, lengths, mask), x), **keywords)
    if not streams:
        return (result[0] if isinstance(result, tuple) else result), None
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentError(f"tbptt: {type(model).__name__} is to return (output, state), got {type(result).__name__}")
    return result
