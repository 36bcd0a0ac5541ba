"""`fit`, `evaluate`, `predict`: batches through compiled programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compile import Program
from ..errors import ArgumentError, LoadError, NonFiniteError
from ..files import PathLike
from ..optim import Optimiser
from ..randomness import new_key
from .blame import blame
from .callbacks import Callback, StopTraining
from .checkpoint import read_checkpoint, write_checkpoint
from .data import Batch, Batches, Data, Piece
from .history import History
from .metrics import Loss, Metric
from .task import FINITE, Task, call

Array = npt.NDArray[Any]
SAVE_SECONDS = 30.0


class Mean:
    """A weighted running mean of several numbers or arrays."""

    def __init__(self) -> None:
        self.totals: dict[str, Any] = {}
        self.weight = 0.0

    def add(self, numbers: Mapping[str, Any], weight: float) -> None:
        self.weight += weight
        for k, v in numbers.items():
            self.totals[k] = self.totals.get(k, 0.0) + np.asarray(v, np.float64) * weight

    def value(self) -> dict[str, Any]:
        return {k: v / self.weight if self.weight else v * 0.0 for k, v in self.totals.items()}


class Run:
    """A training run: where it stands, and how it goes on from there."""

    def __init__(self, task: Task, batches: Batches, optimizer: Optimiser, rng: Any, shuffle: bool, accumulate: int,
                 callbacks: Iterable[Callable[[int, dict[str, float]], object]], folder: Path | None,
                 save_every: int | None) -> None:
        self.task, self.batches, self.optimizer, self.shuffle, self.accumulate = task, batches, optimizer, shuffle, accumulate
        self.callbacks, self.folder, self.save_every = list(callbacks), folder, save_every
        self.rng = np.random.default_rng(rng)
        self.history, self.epoch, self.stopped = History(), 0, False
        self.setup = {} if folder is None else self._setup()
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        """Draw the order of an epoch; the state of the generator before it is kept, to draw the same order again."""
        self.before: Any = self.rng.bit_generator.state
        self.pieces = self.batches.pieces(self.rng if self.shuffle else None)
        self.done, self.mean, self.carried, self.gathered = 0, Mean(), None, 0.0

    # ---- one epoch, one step

    def train_epoch(self, title: str, progress: bool | None) -> dict[str, float]:
        """The rest of this epoch; returns its numbers."""
        from tqdm import tqdm

        saved = time.monotonic()
        hide = None if progress is None else not progress
        with tqdm(total=len(self.pieces), initial=self.done, desc=title, unit="step", leave=False, disable=hide) as bar:
            while self.done < len(self.pieces):
                self._step(self.pieces[self.done], f"{title}, step {self.done + 1}")
                bar.set_postfix({k: f"{v:.4f}" for k, v in self.task.finished(self.mean.value()).items()}, refresh=False)
                bar.update()
                if self.folder is not None and self._due(saved):
                    self.save()
                    saved = time.monotonic()
        return self.task.finished(self.mean.value())

    def _due(self, saved: float) -> bool:
        if self.save_every is None:
            return time.monotonic() - saved > SAVE_SECONDS
        return self.done % self.save_every == 0

    def _step(self, piece: Piece, where: str) -> None:
        """A batch: scores, gradients and (every `accumulate` batches) an update."""
        batch = self.batches.batch(piece)
        weight = self.batches.weight(batch)
        given: dict[str, Any] = {**batch, "key": new_key(self.rng)}
        if self.task.streams:
            given["state"] = None if piece.fresh else self.carried
        results = self._train(given, where) if self.accumulate == 1 else self._gather(given, weight, where)
        self.carried = results.pop("state", None)
        self.done += 1
        if self.accumulate > 1 and (self.done % self.accumulate == 0 or self.done == len(self.pieces)):
            self._apply(where)
        self.mean.add(results, weight)

    def _numbers(self) -> dict[str, Any]:
        step = self.optimizer.state.get("step", 0) + 1
        return {k: np.float64(v) for k, v in self.optimizer.numbers(step).items()}

    def _counted(self) -> None:
        self.optimizer.state = {**self.optimizer.state, "step": self.optimizer.state.get("step", 0) + 1}

    def _train(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        given = {**given, "numbers": self._numbers()}
        results = self._checked(self.task.training, given, self.task.training(**given), where)
        self._counted()
        return results

    def _gather(self, given: Mapping[str, Any], weight: float, where: str) -> dict[str, Any]:
        given = {**given, "weight": np.float64(weight)}
        results = self._checked(self.task.gathering, given, self.task.gathering(**given), where)
        self.gathered += weight
        return results

    def _apply(self, where: str) -> None:
        if self.gathered:
            given = {"numbers": self._numbers(), "weight": np.float64(self.gathered)}
            self._checked(self.task.applying, given, self.task.applying(**given), where)
            self._counted()
        self.gathered = 0.0

    def _checked(self, program: Program, given: Mapping[str, Any], results: dict[str, Any], where: str) -> dict[str, Any]:
        """Results without their flags; an error that names the first number that is not finite."""
        bad = [k.removeprefix(FINITE) for k, v in results.items() if k.startswith(FINITE) and not v]
        if bad:
            first = blame(*program.traced(**given), self.task.parameters)
            kept = "" if self.folder is None else f"; the last checkpoint in {self.folder} is sound"
            raise NonFiniteError(f"{where}: {bad[0]} is not finite; first: {first}. The weights are those before this step"
                                 f"{kept}. Check the data, lower lr, or set clip_norm")
        return {k: v for k, v in results.items() if not k.startswith(FINITE)}

    # ---- epochs

    def train(self, epochs: int, validation: Batches | None, progress: bool | None) -> History:
        """Epochs up to a number, from wherever the run stands."""
        model = self.task.model
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                callback.begin(model)
        try:
            while self.epoch < epochs and not self.stopped:
                self._one_epoch(epochs, validation, progress)
        finally:
            self.task.remember()
            model.eval()
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                callback.end()
        return self.history

    def _one_epoch(self, epochs: int, validation: Batches | None, progress: bool | None) -> None:
        model, began = self.task.model, time.perf_counter()
        model.train()
        numbers = self.train_epoch(f"epoch {self.epoch + 1}/{epochs}", progress)
        model.eval()
        if validation is not None:
            numbers |= {f"val_{k}": v for k, v in score(self.task, validation).items()}
        numbers["seconds"] = time.perf_counter() - began
        self.epoch += 1
        self.history.append(numbers)
        self.optimizer.observe(numbers)
        try:
            for callback in self.callbacks:
                callback(self.epoch, numbers)
        except StopTraining as reason:
            self.stopped, self.history.stopped = True, str(reason)
        self._begin_epoch()
        if self.folder is not None:
            self.save()

    # ---- files

    def _setup(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        return {"data": self.batches.data.fingerprint(), "batch_size": self.batches.batch_size, "bucket": self.batches.bucket,
                "tbptt": self.batches.tbptt, "shuffle": self.shuffle, "accumulate": self.accumulate,
                "loss": self.task.loss_name, "metrics": list(self.task.metrics), "optimizer": repr(self.optimizer),
                "parameters": {k: list(p.shape) for k, p in self.task.parameters.items()}}

    def save(self) -> None:
        """Write everything to the run's folder."""
        assert self.folder is not None
        self.task.remember()
        write_checkpoint(self.folder, {
            "setup": self.setup, "weights": {k: t.numpy() for k, t in self.task.model._leaves()},
            "optimizer": self.optimizer.state_dict(), "sums": {k: t.numpy() for k, t in self.task.sums.items()},
            "rng": self.rng.bit_generator.state, "before": self.before, "epoch": self.epoch, "done": self.done,
            "totals": self.mean.totals, "weight": self.mean.weight, "carried": self.carried, "gathered": self.gathered,
            "stopped": self.stopped, "reason": self.history.stopped, "history": self.history.epochs,
            "callbacks": [c.state_dict() if isinstance(c, Callback) else None for c in self.callbacks]})

    def resume(self) -> None:
        """Go on from the run's folder, where it holds a checkpoint."""
        assert self.folder is not None
        found = read_checkpoint(self.folder)
        if found is None:
            return
        for what, before in found["setup"].items():
            if before != (now := self.setup.get(what)):
                raise LoadError(f"the run in {self.folder} was begun with another {what} ({_short(before)}, now "
                                f"{_short(now)}): give the same again, or another folder to resume=")
        for k, t in self.task.model._leaves():
            t.assign(found["weights"][k])
        for k, t in self.task.sums.items():
            t.assign(found["sums"][k])
        self.optimizer.load_state_dict(found["optimizer"])
        for name, slots in self.task.slots.items():
            for k, t in slots.items():
                t.assign(found["optimizer"]["of"][name][k])
        self.rng.bit_generator.state = found["before"]
        self._begin_epoch()
        self.rng.bit_generator.state = found["rng"]
        self.epoch, self.done, self.carried, self.gathered = (found[k] for k in ("epoch", "done", "carried", "gathered"))
        self.mean.totals, self.mean.weight = found["totals"], found["weight"]
        self.history.epochs, self.history.stopped, self.stopped = found["history"], found["reason"], found["stopped"]
        for c, state in zip(self.callbacks, found["callbacks"], strict=True):
            if isinstance(c, Callback):
                c.load_state_dict(state)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def score(task: Task, batches: Batches) -> dict[str, float]:
    """Loss and metrics over all batches."""
    mean, state = Mean(), None
    for piece, batch in batches:
        results = task.scoring(**batch, **({"state": None if piece.fresh else state} if task.streams else {}))
        state = results.pop("state", None)
        mean.add(results, batches.weight(batch))
    return task.finished(mean.value())


def fit(model: Any, x: Any, y: Any, *, loss: str | Loss = "cross_entropy", optimizer: Optimiser, epochs: int = 1,
        batch_size: int = 32, metrics: Sequence[str | Loss | Metric] = (), lengths: Any = None, mask: Any = None,
        validation: Sequence[Any] | None = None, tbptt: int | None = None, accumulate: int = 1, bucket: bool = False,
        callbacks: Iterable[Callable[[int, dict[str, float]], object]] = (), resume: PathLike | None = None,
        save_every: int | None = None, rng: Any = None, shuffle: bool | None = None, progress: bool | None = None,
        backend: str = "cpu") -> History:
    """Train on rows of x and y; returns one dict of numbers per epoch.

    x is an array, a list of rows of different lengths, a tuple of arrays for a model of several arguments, or a dict for
    a cell of several inputs.  Padding reaches neither loss nor gradient: it is marked by `lengths` (one whole number a
    row; a tuple of them for a tuple x) or by `mask` (bool [B, T]); a list of rows has lengths of its own, and `bucket`
    puts rows of similar length together.  `validation` is `(x, y)` or `(x, y, lengths)`.

    `tbptt=k`: rows are streams; they are read k steps at a time, states go on from piece to piece without their history,
    and rows are not shuffled unless asked.  `accumulate=k`: k batches make one update, the mean over all their targets.

    `resume`: a folder for checkpoints, written every `save_every` batches (every 30 seconds unless given) and after each
    epoch; a run that finds one there goes on from it, and ends with the same bits as a run that was never stopped.
    `callbacks` get (epoch, numbers) after each epoch.  `progress=None` shows a bar on a terminal only.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 0:
        raise ArgumentError(f"epochs={epochs!r}: expected a whole number")
    for name, n in (("accumulate", accumulate), ("save_every", save_every)):
        if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
            raise ArgumentError(f"{name}={n!r}: expected a whole number from 1")
    if y is None:
        raise ArgumentError("fit needs targets y; for a sequence model of its own input shift it: fit(x[:, :-1], x[:, 1:])")
    task = Task(model, loss, metrics, backend, optimizer, accumulate=accumulate, streams=tbptt is not None)
    batches = Batches(Data(x, y, lengths, mask), batch_size, task.per_step_of, bucket=bucket, tbptt=tbptt)
    held = None if validation is None else Batches(_held(validation), batch_size, task.per_step_of, tbptt=tbptt)
    run = Run(task, batches, optimizer, rng, tbptt is None if shuffle is None else shuffle, accumulate, callbacks,
              None if resume is None else Path(resume), save_every)
    if resume is not None:
        run.resume()
    model._fitted = loss, tuple(metrics)
    return run.train(epochs, held, progress)


def _held(validation: Sequence[Any]) -> Data:
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        parts = len(validation) if isinstance(validation, (tuple, list)) else type(validation).__name__
        raise ArgumentError(f"validation is (x, y) or (x, y, lengths), got {parts} parts")
    return Data(*validation)


def evaluate(model: Any, x: Any, y: Any, *, loss: str | Loss | None = None, metrics: Sequence[str | Loss | Metric] = (),
             lengths: Any = None, mask: Any = None, batch_size: int = 256, tbptt: int | None = None,
             backend: str = "cpu") -> dict[str, float]:
    """Loss and metrics on data, with dropout off; those of the last `fit` unless given."""
    fitted: tuple[str | Loss | None, Sequence[str | Loss | Metric]] = getattr(model, "_fitted", (None, ()))
    chosen = fitted[0] if loss is None else loss
    if chosen is None:
        raise ArgumentError("evaluate: this model was not fitted yet, so give loss=, for example loss='cross_entropy'")
    task = Task(model, chosen, metrics or fitted[1], backend, streams=tbptt is not None)
    with evaluating(model):
        return score(task, Batches(Data(x, y, lengths, mask), batch_size, task.per_step_of, tbptt=tbptt))


def predict(model: Any, x: Any, *, lengths: Any = None, mask: Any = None, batch_size: int = 256, backend: str = "cpu") -> Array:
    """The model's output for every row, with dropout off."""
    def output(x: Any, lengths: Any = None, mask: Any = None) -> dict[str, Any]:
        return {"y": call(model, x, lengths, mask, None, False)[0]}

    program, data = Program(output, backend), Data(x, None, lengths, mask)
    batches = Batches(data, batch_size)
    with evaluating(model):
        return np.concatenate([program(**whole_rows(data, piece))["y"] for piece in batches.pieces()])


def whole_rows(data: Data, piece: Piece) -> Batch:
    """Rows at their full length, so that the outputs of all batches fit together."""
    rows = piece.rows
    batch: Batch = {"x": data.tree([a[rows] for a in data.parts])}
    if data.mask is not None:
        batch["mask"] = data.mask[rows]
    return batch if data.lengths is None else {**batch, "lengths": data.length_tree([n[rows] for n in data.lengths])}


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
