"""`fit`, `evaluate`, `predict`: batches through a traced program."""

from __future__ import annotations

import functools
import inspect
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compile import Program
from ..errors import ArgumentError, NonFiniteError, ShapeError, TinyRNNError
from ..functional import blank_padding, check_lengths, grad, row_mask, where
from ..ir.ops.leaves import input_node
from ..optim import Optimiser
from ..randomness import new_key, randomness
from ..shapes import show
from ..tensor import Tensor, as_tensor
from .history import History
from .metrics import LOSSES, METRICS, Loss, named

Array = npt.NDArray[Any]


class Task:
    """What is optimised: a model, its loss and its metrics, as programs over one batch."""

    def __init__(self, model: Any, loss: str | Loss, metrics: Sequence[str | Loss], backend: str,
                 optimizer: Optimiser | None = None) -> None:
        self.model = model
        self.loss = named(loss, LOSSES, "loss")[1]
        self.metrics = dict(named(m, METRICS, "metric") for m in metrics)
        self.parameters: dict[str, Tensor] = dict(model.named_parameters())
        self._grows: dict[Any, bool] = {}
        self.optimizer = optimizer
        self.slots = {} if optimizer is None else self._slots(optimizer)
        self.training = Program(self._training, backend)
        self.scoring = Program(self._scoring, backend)

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

    def _scores(self, x: Tensor, y: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        output = call(self.model, x, lengths)
        mask = row_mask(x.shape[1], lengths) if lengths is not None and self.per_step(x, y) else None
        keywords = {} if mask is None else {"mask": mask}
        return {"loss": self.loss(output, y, **keywords),
                **{name: f(output, y, **keywords) for name, f in self.metrics.items()}}

    def per_step(self, x: Any, y: Any) -> bool:
        """Whether there is a target for every step: the model's output must grow with the sequence.

        Sizes alone cannot tell (4 steps, 4 outputs), so the model is traced once more with one step more.
        """
        if x.ndim < 2 or y.ndim < 2 or y.shape[1] != x.shape[1]:
            return False
        kind = (x.shape[2:], x.dtype.str, y.shape[2:])
        if kind not in self._grows:
            self._grows[kind] = self._output_grows(x)
        return self._grows[kind]

    def _output_grows(self, x: Any) -> bool:
        def steps_out(steps: int) -> int | None:
            y = call(self.model, Tensor(input_node("x", (1, steps, *x.shape[2:]), x.dtype)), None)
            return y.shape[1] if y.ndim > 1 else None

        try:
            return steps_out(x.shape[1]) != steps_out(x.shape[1] + 1)
        except TinyRNNError:  # the model takes this one length only, so its targets are as long as they look
            return True

    def _training(self, x: Tensor, y: Tensor, key: Tensor, numbers: Mapping[str, Tensor],
                  lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Scores of a batch, and new parameters, unless a number on the way is not finite."""
        assert self.optimizer is not None
        with randomness(key):
            scores = self._scores(x, y, lengths)
        grads = grad(scores["loss"], self.parameters)
        finite = {"the loss": _finite(scores["loss"]), **{f"the gradient of {k}": _finite(g) for k, g in grads.items()}}
        good = functools.reduce(operator.and_, finite.values())
        for name, g in self.optimizer.clip(grads).items():
            p, slots = self.parameters[name], self.slots[name]
            own = {k: v.astype(p.dtype) for k, v in numbers.items()}
            new, after = self.optimizer.rule(p, g, slots, own)
            p.assign(where(good, new, p))
            for k, v in after.items():
                slots[k].assign(where(good, v, slots[k]))
        return {**scores, **{f"finite: {k}": f for k, f in finite.items()}}

    def _scoring(self, x: Tensor, y: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        return self._scores(x, y, lengths)


def _finite(x: Tensor) -> Tensor:
    """Whether no entry is NaN or infinite."""
    return abs(x).max() < float("inf") if x.size else as_tensor(np.True_)


def call(model: Any, x: Tensor, lengths: Tensor | None) -> Tensor:
    """The model's output, without the state that recurrent layers return beside it."""
    if lengths is not None and model.reads_time_first():
        raise ArgumentError("lengths in fit, evaluate and predict are for batch-first models; this one has a layer with "
                            "batch_first=False or time_major=True")
    x = blank_padding(x, lengths)
    takes = lengths is not None and "lengths" in inspect.signature(type(model).__call__).parameters
    y: Any = model(x, lengths=lengths) if takes else model(x)
    first: Tensor = y[0] if isinstance(y, tuple) else y
    return first


class Batches:
    """Rows of the data in batches; ragged batches are cut to their longest row."""

    def __init__(self, x: Any, y: Any, lengths: Any, batch_size: int,
                 per_step: Callable[[Any, Any], bool] = lambda x, y: False) -> None:
        self.x, self.y = full_array(x, "x"), None if y is None else full_array(y, "y")
        if self.x.ndim < 1 or not len(self.x):
            raise ArgumentError(f"there are no rows to work on: x has shape {show(self.x.shape)}")
        if self.y is not None and len(self.y) != len(self.x):
            raise ShapeError(f"x has {len(self.x)} rows and y has {len(self.y)}")
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ArgumentError(f"batch_size={batch_size!r}: expected a whole number from 1")
        self.lengths = None if lengths is None else row_lengths(lengths, self.x)
        self.batch_size = batch_size
        self.per_step = self.y is not None and self.lengths is not None and per_step(self.x, self.y)

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __call__(self, order: Array | None = None) -> Iterator[tuple[Array, dict[str, Array]]]:
        order = np.arange(len(self.x)) if order is None else order
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield rows, self._batch(rows)

    def _batch(self, rows: Array) -> dict[str, Array]:
        batch = {"x": self.x[rows]} | ({} if self.y is None else {"y": self.y[rows]})
        if self.lengths is None:
            return batch
        longest = max(int(self.lengths[rows].max()), 1)
        timed = ("x", "y") if self.per_step else ("x",)
        cut = {k: v[:, :longest] if k in timed else v for k, v in batch.items()}
        return {**cut, "lengths": self.lengths[rows]}

    def weight(self, batch: Mapping[str, Array]) -> float:
        """How many targets of a batch count."""
        counted = batch.get("lengths") if self.per_step else None
        return float(len(batch["y"]) if counted is None else counted.sum())


def row_lengths(lengths: Any, x: Array) -> Array:
    """One length for every row of x, checked."""
    found = check_lengths(lengths, x.shape[1] if x.ndim > 1 else 0)
    if len(found) != len(x):
        raise ShapeError(f"x has {len(x)} rows and lengths has {len(found)}")
    return found


def full_array(data: Any, name: str) -> Array:
    """Data as an array, refused by name where rows differ in length."""
    try:
        return np.asarray(data)
    except ValueError:
        raise ShapeError(f"the rows of {name} differ in length; pad them and give lengths=") from None


class _Mean:
    """A weighted running mean of several numbers."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}
        self.weight = 0.0

    def add(self, numbers: Mapping[str, float], weight: float) -> None:
        self.weight += weight
        for k, v in numbers.items():
            self.totals[k] = self.totals.get(k, 0.0) + v * weight

    def value(self) -> dict[str, float]:
        return {k: v / self.weight if self.weight else 0.0 for k, v in self.totals.items()}


def fit(model: Any, x: Any, y: Any, *, loss: str | Loss = "cross_entropy", optimizer: Optimiser, epochs: int = 1,
        batch_size: int = 32, metrics: Sequence[str | Loss] = (), lengths: Any = None,
        validation: Sequence[Any] | None = None, callbacks: Iterable[Callable[[int, dict[str, float]], object]] = (),
        rng: Any = None, shuffle: bool = True, progress: bool | None = None, backend: str = "cpu") -> History:
    """Train on rows of x and y; returns one dict of numbers per epoch.

    `lengths` (one whole number per row) marks padding, which reaches neither loss nor gradient.  `validation` is
    `(x, y)` or `(x, y, lengths)`.  Each callback gets (epoch, numbers) after an epoch.  `progress=None` shows a bar on
    a terminal only.
    """
    task = Task(model, loss, metrics, backend, optimizer)
    if not isinstance(epochs, (int, np.integer)) or epochs < 0:
        raise ArgumentError(f"epochs={epochs!r}: expected a whole number")
    if validation is not None and len(validation) not in (2, 3):
        raise ArgumentError(f"validation is (x, y) or (x, y, lengths), got {len(validation)} parts")
    if y is None:
        raise ArgumentError("fit needs targets y; for a sequence model of its own input shift it: fit(x[:, :-1], x[:, 1:])")
    batches = Batches(x, y, lengths, batch_size, task.per_step)
    generator = np.random.default_rng(rng)
    history = History()
    model._fitted = loss, tuple(metrics)
    for epoch in range(1, epochs + 1):
        model.train()
        began = time.perf_counter()
        order = generator.permutation(len(batches.x)) if shuffle else None
        try:
            mean = _epoch(task, batches, order, optimizer, generator, f"epoch {epoch}/{epochs}", progress)
        finally:
            task.remember()
        numbers = mean.value()
        model.eval()
        if validation is not None:
            held = _score(task, Batches(validation[0], validation[1], validation[2] if len(validation) > 2 else None,
                                        batch_size, task.per_step))
            numbers |= {f"val_{k}": v for k, v in held.items()}
        numbers["seconds"] = time.perf_counter() - began
        history.append(numbers)
        for callback in callbacks:
            callback(epoch, numbers)
    return history


def _epoch(task: Task, batches: Batches, order: Array | None, optimizer: Optimiser, rng: np.random.Generator,
           title: str, progress: bool | None) -> _Mean:
    from tqdm import tqdm

    mean = _Mean()
    hide = None if progress is None else not progress
    with tqdm(total=len(batches), desc=title, unit="step", leave=False, disable=hide) as bar:
        for step, (_, batch) in enumerate(batches(order), 1):
            numbers = train_step(task, batch, optimizer, new_key(rng), f"{title}, step {step}")
            mean.add(numbers, batches.weight(batch))
            bar.set_postfix({k: f"{v:.4f}" for k, v in mean.value().items()}, refresh=False)
            bar.update()
    return mean


def train_step(task: Task, batch: Mapping[str, Array], optimizer: Optimiser, key: Array, where: str) -> dict[str, float]:
    """Loss, gradients and update for one batch in one program; nothing is updated when a number is not finite."""
    step = optimizer.state.get("step", 0) + 1
    numbers = {k: np.float64(v) for k, v in optimizer.numbers(step).items()}
    results = task.training(**batch, key=key, numbers=numbers)
    bad = [k.removeprefix("finite: ") for k, v in results.items() if k.startswith("finite: ") and not v]
    if bad:
        raise NonFiniteError(f"{where}: {bad[0]} is not finite; "
                             "the weights are those before this step. Check the data for NaN, lower lr, or set clip_norm")
    optimizer.state = {**optimizer.state, "step": step}
    return {k: float(v) for k, v in results.items() if not k.startswith("finite: ")}


def _score(task: Task, batches: Batches) -> dict[str, float]:
    mean = _Mean()
    for _, batch in batches():
        results = task.scoring(**batch)
        mean.add({k: float(v) for k, v in results.items()}, batches.weight(batch))
    return mean.value()


def evaluate(model: Any, x: Any, y: Any, *, loss: str | Loss | None = None, metrics: Sequence[str | Loss] = (),
             lengths: Any = None, batch_size: int = 256, backend: str = "cpu") -> dict[str, float]:
    """Loss and metrics on data, with dropout off; those of the last `fit` unless given."""
    fitted: tuple[str | Loss | None, Sequence[str | Loss]] = getattr(model, "_fitted", (None, ()))
    chosen = fitted[0] if loss is None else loss
    if chosen is None:
        raise ArgumentError("evaluate: this model was not fitted yet, so give loss=, for example loss='cross_entropy'")
    task = Task(model, chosen, metrics or fitted[1], backend)
    with evaluating(model):
        return _score(task, Batches(x, y, lengths, batch_size, task.per_step))


def predict(model: Any, x: Any, *, lengths: Any = None, batch_size: int = 256, backend: str = "cpu") -> Array:
    """The model's output for every row, with dropout off."""
    def output(x: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        return {"y": call(model, x, lengths)}

    program = Program(output, backend)
    batches = Batches(x, None, None, batch_size)  # without lengths, so that no batch is cut and all outputs fit together
    valid = None if lengths is None else row_lengths(lengths, batches.x)
    with evaluating(model):
        parts = [program(**batch, **({} if valid is None else {"lengths": valid[rows]}))["y"] for rows, batch in batches()]
    return np.concatenate(parts)


class evaluating:  # noqa: N801  (a context manager that reads as a word)
    """Dropout off inside, as before afterwards."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.before = [(m, m.training) for _, m in self.model.named_modules()]
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        for module, training in self.before:
            module.training = training
