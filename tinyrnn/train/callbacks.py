"""What happens after each epoch: stopping early, keeping the best weights, writing logs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from math import inf
from typing import Any

from ..errors import ArgumentError
from ..files import PathLike, atomic_write, path_of
from ..model import Trainable
from ..optim.schedules import mode_of
from .checkpoint import check_arrays


class StopTraining(Exception):  # noqa: N818  (a signal, as StopIteration is)
    """Raised by a callback to end training after this epoch; its text is kept as `history.stopped`."""


class Callback:
    """The base of callbacks that keep something: called with (epoch, numbers) after each epoch.

    `begin` sees the model before the first epoch and forgets what a run before left; `state_dict` and `load_state_dict`
    hold what a resumed run needs.
    Plain functions of (epoch, numbers) are callbacks as well.

    `__call__` may raise `StopTraining`.

    >>> import tinyrnn as tr
    >>> class Print(tr.train.Callback):
    ...     def __call__(self, epoch, numbers):
    ...         print(epoch, sorted(numbers))
    >>> Print()(1, {"loss": 0.5})
    1 ['loss']
    """

    def begin(self, model: Trainable) -> None:
        """Before the first epoch, or before going on."""

    def __call__(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """After an epoch."""

    def end(self) -> None:
        """After the last epoch, also where training was stopped by a callback."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class BestWeights(Callback):
    """Gives the model the weights of its best epoch at the end, by `monitor`.

    Losses are best where they are smallest, accuracy and F1 where they are largest; of other figures `mode` says it, "min" or
    "max".

    Raises `ArgumentError` where the epoch has no such figure, or nobody knows its direction.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> x, y = np.ones((4, 5, 3)), np.zeros(4, int)
    >>> model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last(), tr.nn.Linear(4, 2, rng=1))
    >>> best = tr.train.BestWeights("loss")
    >>> history = model.fit(x, y, optimizer=tr.optim.Adam(0.1), epochs=3, callbacks=[best], rng=0)
    >>> best.epoch, best.best == min(history["loss"])
    (3, True)
    """

    def __init__(self, monitor: str = "val_loss", mode: str | None = None) -> None:
        self.monitor, self.mode = monitor, mode_of(type(self).__name__, monitor, mode)
        self.weights: dict[str, Any] = {}

    def begin(self, model: Trainable) -> None:
        self.model = model
        self.best, self.epoch, self.weights = inf if self.mode == "min" else -inf, 0, {}

    def improved(self, epoch: int, numbers: Mapping[str, float], by: float = 0.0) -> bool:
        """Whether this epoch is the best so far; its weights are kept then."""
        if self.monitor not in numbers:
            raise ArgumentError(f"{type(self).__name__} monitors {self.monitor!r}, but the epoch gave {', '.join(numbers)}; "
                                "give validation= or another monitor")
        value = numbers[self.monitor]
        better = value < self.best - by if self.mode == "min" else value > self.best + by
        if better:
            self.best, self.epoch = value, epoch
            self.weights = {k: t.numpy() for k, t in self.model.leaves()}
        return better

    def __call__(self, epoch: int, numbers: Mapping[str, float]) -> None:
        self.improved(epoch, numbers)

    def end(self) -> None:
        for k, t in self.model.leaves():
            if k in self.weights:
                t.assign(self.weights[k])

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "epoch": self.epoch, "weights": dict(self.weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["weights"]:
            check_arrays("best", state["weights"], dict(self.model.leaves()))
        self.best, self.epoch, self.weights = float(state["best"]), int(state["epoch"]), dict(state["weights"])


class EarlyStopping(BestWeights):
    """Stops when `monitor` did not improve by more than `least` for `patience` epochs; leaves the best weights.

    Raises `ArgumentError` as `BestWeights` does, and for a `patience` below 1.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> x, y = np.ones((4, 5, 3)), np.zeros(4, int)
    >>> model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last(), tr.nn.Linear(4, 2, rng=1))
    >>> stop = tr.train.EarlyStopping("loss", patience=2, least=10.0)
    >>> history = model.fit(x, y, optimizer=tr.optim.Adam(0.1), epochs=9, callbacks=[stop], rng=0)
    >>> len(history)
    3
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 5, mode: str | None = None, least: float = 0.0) -> None:
        super().__init__(monitor, mode)
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ArgumentError(f"patience={patience!r}: expected a whole number from 1")
        self.patience, self.least = patience, least

    def begin(self, model: Trainable) -> None:
        super().begin(model)
        self.waited = 0

    def __call__(self, epoch: int, numbers: Mapping[str, float]) -> None:
        self.waited = 0 if self.improved(epoch, numbers, self.least) else self.waited + 1
        if self.waited >= self.patience:
            raise StopTraining(f"{self.monitor} was best in epoch {self.epoch}, {self.best:.6g}, and got no better for "
                               f"{self.waited} epochs")

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.waited = int(state["waited"])


class Log(Callback):
    """Writes every epoch's numbers to a file, whole and atomically: `.csv` one row an epoch, `.json` a list of objects.

    Raises `ArgumentError` for another ending, and for a folder that is not there.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import tinyrnn as tr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = tr.train.Log(Path(folder) / "log.csv")
    ...     log(1, {"loss": 0.5})
    ...     print((Path(folder) / "log.csv").read_text(), end="")
    epoch,loss
    1,0.5
    """

    def __init__(self, path: PathLike) -> None:
        self.path = path_of(path)
        if self.path.suffix not in (".csv", ".json"):
            raise ArgumentError(f"Log writes .csv or .json, got {self.path.name!r}")
        if not self.path.parent.is_dir():
            raise ArgumentError(f"Log: there is no folder {self.path.parent}; make it first")
        self.rows: list[dict[str, float]] = []

    def begin(self, model: Trainable) -> None:
        self.rows = []

    def __call__(self, epoch: int, numbers: Mapping[str, float]) -> None:
        self.rows.append({"epoch": epoch, **numbers})
        atomic_write(self.path, (self._csv() if self.path.suffix == ".csv" else json.dumps(self.rows, indent=1)).encode())

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(k for row in self.rows for k in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [dict(r) for r in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rows = [dict(r) for r in state["rows"]]
