"""A training run: where it stands, how it goes on, and what it writes so that it can."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError, IndexRangeError, LoadError, NonFiniteError
from ..files import clear_leftovers
from ..optim import Optimizer
from ..tensor.compile import Program
from ..tensor.randomness import new_key
from ..tensor.tensor import Tensor
from ..types import Seed
from .blame import blame
from .callbacks import Callback, StopTraining
from .checkpoint import NAME, Lock, check_arrays, read_checkpoint, write_checkpoint
from .data import Batch, Batches, Piece, parts_of
from .history import History
from .task import Results, Task

SAVE_SECONDS = 30.0
MOST_STEPS = 2**53  # counters beyond are not those of a run


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


class Position(NamedTuple):
    """Where a run stands: in words, and the rows of its batch."""

    where: str
    piece: Piece


class Run:
    """A training run: where it stands, and how it goes on from there."""

    def __init__(self, task: Task, batches: Batches, optimizer: Optimizer, rng: Seed, shuffle: bool, accumulate: int,
                 callbacks: Iterable[Callable[[int, dict[str, float]], object]], validation: Batches | None,
                 folder: Path | None, save_every: int | None) -> None:
        self.task, self.batches, self.optimizer, self.shuffle, self.accumulate = task, batches, optimizer, shuffle, accumulate
        self.validation, self.folder, self.save_every = validation, folder, save_every
        self.callbacks = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
        for c in self.callbacks:
            if not callable(c):
                raise ArgumentError(f"callbacks are functions of (epoch, numbers), got {type(c).__name__}")
            if isinstance(c, Callback):
                c.begin(task.model)
        self.rng = np.random.default_rng(rng)
        self.history, self.epoch, self.stopped = History(), 0, False
        self.lock: Lock | None = None
        self.setup = {} if folder is None else {**self._setup(), "rng": rng if isinstance(rng, int) else None}
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
        self.task.check_masks(batch)
        given: dict[str, Any] = {**batch, "key": new_key(self.rng)}
        if self.task.streams:
            given["state"] = None if piece.fresh else self.carried
        place = Position(where, piece)
        try:
            results = self._train(given, place) if self.accumulate == 1 else self._gather(given, weight, place)
        except IndexRangeError as error:
            raise IndexRangeError(f"{where}: {error}{_ranges(batch)}. Tokens are less than the rows of their Embedding, labels "
                                  "less than the number of classes; targets that do not count: ignore_index=") from None
        self.carried = results.state
        self.done += 1
        if self.accumulate > 1 and (self.done % self.accumulate == 0 or self.done == len(self.pieces)):
            self._apply(place)
        self.mean.add(results.scores, weight)

    def _numbers(self) -> dict[str, Any]:
        step = self.optimizer.state.get("step", 0) + 1
        return {k: np.float64(v) for k, v in self.optimizer.numbers(step).items()}

    def _counted(self) -> None:
        self.optimizer.state = {**self.optimizer.state, "step": self.optimizer.state.get("step", 0) + 1}

    def _train(self, given: Mapping[str, Any], place: Position) -> Results:
        given = {**given, "numbers": self._numbers()}
        results = self._checked(self.task.training_program, given, self.task.training_program(**given), place)
        self._counted()
        return results

    def _gather(self, given: Mapping[str, Any], weight: float, place: Position) -> Results:
        given = {**given, "weight": np.float64(weight)}
        results = self._checked(self.task.gathering_program, given, self.task.gathering_program(**given), place)
        self.gathered += weight
        return results

    def _apply(self, place: Position) -> None:
        if self.gathered:
            given = {"numbers": self._numbers(), "weight": np.float64(self.gathered)}
            self._checked(self.task.applying_program, given, self.task.applying_program(**given), place)
            self._counted()
        self.gathered = 0.0

    def _checked(self, program: Program, given: Mapping[str, Any], results: Results, place: Position) -> Results:
        """The results, or an error that names the first number that is not finite."""
        bad = [k for k, finite in results.finite.items() if not finite]
        if bad:
            first = blame(*program.traced(**given), self.task.parameters, place.piece)
            raise NonFiniteError(f"{place.where}: {bad[0]} is not finite; first: {first}. The weights are those before this "
                                 f"step{self._kept()}. Check the data, lower lr, or set clip_norm")
        return results

    def _kept(self) -> str:
        return "" if self.folder is None else f"; the last checkpoint in {self.folder} is sound"

    def _check_weights(self) -> None:
        """An update may overflow where loss and gradients did not; nothing that is not finite is kept or written."""
        kept = {**{k: t.numpy() for k, t in self.task.model.leaves()},
                **{f"{slot} of {k}": t.numpy() for k, slots in self.task.slots.items() for slot, t in slots.items()}}
        for name, array in kept.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise NonFiniteError(f"epoch {self.epoch + 1}, step {self.done}: an update made {name} infinite or NaN, though "
                                     f"loss and gradients were finite: lower lr{self._kept()}")

    # ---- epochs

    def train(self, epochs: int, progress: bool | None) -> History:
        """Epochs up to a number, from wherever the run stands."""
        try:
            while self.epoch < epochs and not self.stopped:
                self._one_epoch(epochs, progress)
        finally:
            self.task.remember()
            self.task.model.eval()
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                callback.end()
        return self.history

    def _one_epoch(self, epochs: int, progress: bool | None) -> None:
        model, began = self.task.model, time.perf_counter()
        if {k for k, _ in model.named_parameters()} != set(self.task.parameters):
            raise ArgumentError("parameters were frozen, unfrozen or replaced while fit was running: do it between two calls "
                                "of fit")
        model.train()
        numbers = self.train_epoch(f"epoch {self.epoch + 1}/{epochs}", progress)
        self._check_weights()
        model.eval()
        if self.validation is not None:
            numbers |= {f"val_{k}": v for k, v in score(self.task, self.validation).items()}
            if not np.isfinite(numbers["val_loss"]):
                raise NonFiniteError(f"epoch {self.epoch + 1}: the loss of the validation data is {numbers['val_loss']}; look "
                                     f"for NaN and infinity in them{self._kept()}")
        numbers["seconds"] = time.perf_counter() - began
        self.epoch += 1
        self.history.append(numbers)
        self.optimizer.observe(numbers)
        for callback in self.callbacks:  # all of them, also after one that stops
            try:
                callback(self.epoch, numbers)
            except StopTraining as reason:
                self.stopped, self.history.stopped = True, str(reason)
        self._begin_epoch()
        if self.folder is not None:
            self.save()

    # ---- files

    def _setup(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        held = self.validation
        return {"data": self.batches.data.fingerprint(), "validation": None if held is None else held.data.fingerprint(),
                "batch_size": self.batches.batch_size, "bucket": self.batches.bucket, "tbptt": self.batches.tbptt,
                "ignore_index": self.batches.ignore_index, "shuffle": self.shuffle, "accumulate": self.accumulate,
                "loss": _spelled(self.task.loss), "metrics": list(self.task.metrics), "optimizer": repr(self.optimizer),
                "backend": str(self.task.training_program.backend), "model": self.task.model.one_line(),
                "callbacks": [_spelled(c) for c in self.callbacks],
                "parameters": {k: [str(p.dtype), *p.shape] for k, p in self.task.parameters.items()}}

    def save(self) -> None:
        """Write everything to the run's folder."""
        assert self.folder is not None
        self._check_weights()
        self.task.remember()
        write_checkpoint(self.folder, {
            "setup": self.setup, "weights": {k: t.numpy() for k, t in self.task.model.leaves()},
            "optimizer": self.optimizer.state_dict(), "sums": {k: t.numpy() for k, t in self.task.sums.items()},
            "rng": self.rng.bit_generator.state, "before": self.before, "epoch": self.epoch, "done": self.done,
            "totals": self.mean.totals, "weight": self.mean.weight, "carried": self.carried, "gathered": self.gathered,
            "stopped": self.stopped, "reason": self.history.stopped, "history": self.history.epochs,
            "callbacks": [c.state_dict() if isinstance(c, Callback) else None for c in self.callbacks]})

    def release(self) -> None:
        """Let other runs into the folder."""
        if self.lock is not None:
            self.lock.release()

    def resume(self) -> None:
        """Go on from the run's folder, where it holds a checkpoint."""
        assert self.folder is not None
        self.lock = Lock(self.folder)
        clear_leftovers(self.folder, NAME)
        found = read_checkpoint(self.folder)
        if found is None:
            return
        try:
            self._check_setup(found["setup"])
            self._check_arrays(found)
            self._check_counters(found)
            self._check_state(found["carried"], found["done"])
            self._take_over(found)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
            if isinstance(error, LoadError):
                raise
            raise LoadError(f"the checkpoint in {self.folder} does not fit this run ({error}); remove it to begin "
                            "anew") from None

    def _check_setup(self, setup: Mapping[str, Any]) -> None:
        for what, before in setup.items():
            if before != (now := json.loads(json.dumps(self.setup.get(what)))):
                raise LoadError(f"the run in {self.folder} was begun with another {what} ({_short(before)}, now "
                                f"{_short(now)}): give the same again, or another folder to resume=")

    def _check_arrays(self, found: Mapping[str, Any]) -> None:
        """Every array is of the shape and dtype of what it becomes."""
        remembered = found["optimizer"].get("of", {})
        parts: dict[str, tuple[Any, Mapping[str, Tensor]]] = {
            "weight": (found["weights"], dict(self.task.model.leaves())), "sum": (found["sums"], self.task.sums),
            **{f"optimiser's array of {k}:": (remembered[str(i)], slots) for i, (k, slots) in enumerate(
                self.task.slots.items())}}
        for what, (arrays, own) in parts.items():
            check_arrays(what, arrays, own)

    def _check_counters(self, found: Mapping[str, Any]) -> None:
        """Numbers are numbers, and the generator can be put where it was."""
        counters = {"epoch": (found["epoch"], MOST_STEPS), "done": (found["done"], len(self.pieces)),
                    "step": (found["optimizer"].get("step", 0), MOST_STEPS)}
        for k, (n, most) in counters.items():
            if type(n) is not int or not 0 <= n <= most:
                raise ValueError(f"its {k} is {n!r}")
        if type(found["stopped"]) is not bool:
            raise ValueError("whether it stopped is no bool")
        epochs, totals = found["history"], found["totals"]
        if not isinstance(epochs, list) or len(epochs) != found["epoch"] or not all(isinstance(e, dict) for e in epochs):
            raise ValueError("its history is not one entry for each epoch")
        if not isinstance(totals, dict) or not all(isinstance(k, str) and _numeric(v) for k, v in totals.items()):
            raise ValueError("its totals are not numbers by name")
        for k in ("weight", "gathered"):
            if not _numeric(found[k]) or not 0 <= float(found[k]) < inf:
                raise ValueError(f"its {k} is {found[k]!r}")
        mean = Mean()
        mean.totals, mean.weight = totals, found["weight"]
        self.task.finished(mean.value())  # totals of another shape are refused here
        if not isinstance(found["reason"], (str, type(None))):
            raise ValueError("its reason to stop is no text")
        for k in ("rng", "before"):
            type(self.rng.bit_generator)().state = found[k]

    def _check_state(self, carried: object, done: int) -> None:
        """Trace the next step with what is carried, without running it: a state that is not the model's is refused there."""
        if carried is None or done == len(self.pieces):
            return
        given = {**self.batches.batch(self.pieces[done]), "key": np.zeros(2, np.uint32), "state": carried}
        self.task.model.train()
        try:
            if self.accumulate == 1:
                self.task.training_program.trace(**given, numbers=self._numbers())
            else:
                self.task.gathering_program.trace(**given, weight=np.float64(1))
        finally:
            self.task.model.eval()

    def _take_over(self, found: Mapping[str, Any]) -> None:
        """Everything into its place; what may still refuse comes before the weights."""
        for c, state in zip(self.callbacks, found["callbacks"], strict=True):
            if isinstance(c, Callback):
                c.load_state_dict(state)
        self.optimizer.load_state_dict(found["optimizer"])
        for k, t in self.task.model.leaves():
            t.assign(found["weights"][k])
        for k, t in self.task.sums.items():
            t.assign(found["sums"][k])
        for i, slots in enumerate(self.task.slots.values()):
            for k, t in slots.items():
                t.assign(found["optimizer"]["of"][str(i)][k])
        self.rng.bit_generator.state = found["before"]
        self._begin_epoch()
        self.rng.bit_generator.state = found["rng"]
        self.epoch, self.done, self.carried, self.gathered = (found[k] for k in ("epoch", "done", "carried", "gathered"))
        self.mean.totals, self.mean.weight = found["totals"], found["weight"]
        self.history.epochs = [{k: v.item() if isinstance(v, np.ndarray) and not v.ndim else v for k, v in numbers.items()}
                               for numbers in found["history"]]
        self.history.stopped, self.stopped = found["reason"], found["stopped"]


def _numeric(value: object) -> bool:
    """Whether a value is one finite or infinite number."""
    return isinstance(value, (int, float)) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiu")


def _spelled(function: object) -> str:
    """A function by its name, with what was fixed beforehand; no address, so that it reads the same tomorrow."""
    if isinstance(function, functools.partial):
        return f"{_spelled(function.func)}({', '.join(f'{k}={v!r}' for k, v in function.keywords.items())})"
    name: str = getattr(function, "__qualname__", None) or type(function).__qualname__
    if not isinstance(function, Callback):
        return name
    changing = {"model", *function.state_dict()}
    options = {k: v for k, v in vars(function).items() if k not in changing and isinstance(v, (str, int, float, Path))}
    return f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})"


def _ranges(batch: Batch) -> str:
    """What whole numbers a batch holds: `; y holds -1 to 8`."""
    arrays = {**{f"x[{i}]": a for i, a in enumerate(parts_of(batch["x"]))}, "y": batch["y"]}
    return "".join(f"; {k} holds {a.min()} to {a.max()}" for k, a in arrays.items() if a.dtype.kind in "iu" and a.size)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def score(task: Task, batches: Batches) -> dict[str, float]:
    """Loss and metrics over all batches."""
    mean, state = Mean(), None
    for piece, batch in batches:
        task.check_masks(batch)
        results = task.scoring_program(**batch, **({"state": None if piece.fresh else state} if task.streams else {}))
        state = results.state
        mean.add(results.scores, batches.weight(batch))
    return task.finished(mean.value())
