"""`fit`, `evaluate`, `predict`: batches through compiled programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ..backends import checked_threads
from ..errors import ArgumentError
from ..files import PathLike, path_of
from ..losses import Loss
from ..model import Trainable, checked_model, evaluating
from ..optim import Optimizer
from ..serve.kept import programs_of, served
from ..tensor.tensor import TensorLike
from ..types import Seed
from .data import Batch, Batches, Data, Piece, Ragged
from .history import History
from .metrics import Metric
from .run import Run, score
from .task import Task, call, output_grows

Array = npt.NDArray[Any]
Fitted = tuple[str | Loss | None, Sequence[str | Loss | Metric], int | None]
_FITTED: WeakKeyDictionary[Any, Fitted] = WeakKeyDictionary()  # loss, metrics and ignore_index of each model's last fit


def fit(model: Trainable, x: object, y: Any, *, loss: str | Loss = "cross_entropy", optimizer: Optimizer, epochs: int = 1,
        batch_size: int = 32, metrics: Sequence[str | Loss | Metric] = (), lengths: TensorLike | None = None, mask: Any = None,
        ignore_index: int | None = None, validation: Sequence[Any] | None = None, tbptt: int | None = None,
        accumulate: int = 1, bucket: bool = False,
        callbacks: Iterable[Callable[[int, dict[str, float]], object]] = (), resume: PathLike | None = None,
        save_every: int | None = None, rng: Seed = None, shuffle: bool | None = None, progress: bool | None = None,
        backend: str = "cpu", threads: int | None = None) -> History:
    """Train on rows of x and y; returns one dict of numbers per epoch.

    x is an array, a list of rows of different lengths, a tuple of arrays for a model of several arguments, or a dict for
    a cell of several inputs.  Padding reaches neither loss nor gradient: it is marked by `lengths` (one whole number a
    row; a tuple of them for a tuple x) or by `mask` (bool [B, T]); a list of rows has lengths of its own, and `bucket`
    puts rows of similar length together.  Targets equal to `ignore_index` count nowhere: not in loss, metrics or means.
    `validation` is `(x, y)`, `(x, y, lengths)` or `(x, y, None, mask)`.

    `tbptt=k`: rows are streams; they are read k steps at a time, states go on from piece to piece without their history,
    and rows are not shuffled unless asked.  `accumulate=k`: k batches make one update, the mean over all their targets.

    `resume`: a folder for checkpoints, written every `save_every` batches (every 30 seconds unless given) and after each
    epoch; a run that finds one there goes on from it, and ends with the same bits as a run that was never stopped.
    `callbacks` get (epoch, numbers) after each epoch.  `progress=None` shows a bar on a terminal only.  `threads` is the
    number of threads, which results do not depend on; unless given, that of TINYRNN_THREADS, of OMP_NUM_THREADS, or of the
    processors.

    x [B, T, X] or [B, X], y [B, ...], or [B, T, ...] with a target for every step. Raises `ArgumentError` for options out of
    range, `ShapeError` and `DTypeError` for data that do not fit, `NonFiniteError` where the loss or a gradient is not finite
    (nothing is changed then), and `LoadError` for a checkpoint of another run.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> x, y = np.ones((4, 5, 3)), np.zeros(4, int)
    >>> model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last(), tr.nn.Linear(4, 2, rng=1))
    >>> history = model.fit(x, y, optimizer=tr.optim.Adam(0.1), epochs=3, batch_size=2, metrics=["accuracy"], rng=0)
    >>> history["accuracy"]
    [1.0, 1.0, 1.0]
    """
    checked_model(model, "fit")
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 0:
        raise ArgumentError(f"epochs={epochs!r}: expected a whole number")
    for name, n in (("accumulate", accumulate), ("save_every", save_every)):
        if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
            raise ArgumentError(f"{name}={n!r}: expected a whole number from 1")
    if y is None:
        raise ArgumentError("fit needs targets y; for a sequence model of its own input shift it: fit(x[:, :-1], x[:, 1:])")
    task = Task(model, loss, metrics, backend, optimizer, accumulate=accumulate, streams=tbptt is not None,
                ignore_index=ignore_index, threads=threads)
    batches = Batches(data_for(model, x, y, lengths, mask), batch_size, task.timed_of, bucket=bucket, tbptt=tbptt,
                      ignore_index=ignore_index)
    held = None if validation is None else Batches(_held(model, validation), batch_size, task.timed_of, tbptt=tbptt,
                                                        ignore_index=ignore_index)
    run = Run(task, batches, optimizer, rng, tbptt is None if shuffle is None else shuffle, accumulate, callbacks, held,
              None if resume is None else path_of(resume), save_every)
    try:
        if resume is not None:
            run.resume()
        _FITTED[model] = loss, (metrics,) if isinstance(metrics, str) else tuple(metrics), ignore_index
        return run.train(epochs, progress)
    finally:
        run.release()


def data_for(model: Trainable, x: object, y: object, lengths: TensorLike | None = None, mask: object = None) -> Data:
    """Data as a model takes them: a tuple for a cell of several inputs goes by their names."""
    names = getattr(model, "joint_inputs", ())
    if isinstance(x, tuple) and len(x) == len(names):
        x = dict(zip(names, x, strict=True))
    return Data(x, y, lengths, mask)


def _held(model: Trainable, validation: Sequence[Any]) -> Data:
    if not isinstance(validation, (tuple, list)) or not 2 <= len(validation) <= 4:
        parts = len(validation) if isinstance(validation, (tuple, list)) else type(validation).__name__
        raise ArgumentError(f"validation is (x, y), (x, y, lengths) or (x, y, None, mask), got {parts} parts")
    return data_for(model, *validation)


def evaluate(model: Trainable, x: Any, y: Any, *, loss: str | Loss | None = None, metrics: Sequence[str | Loss | Metric] = (),
             lengths: TensorLike | None = None, mask: object = None, ignore_index: int | None = None, batch_size: int = 256,
             tbptt: int | None = None, backend: str = "cpu", threads: int | None = None) -> dict[str, float]:
    """Loss and metrics on data, with dropout off; those of the last `fit` unless given.

    x and y as in `fit`; the figures are scalars. Raises `ArgumentError` where no loss is known, and what `fit` raises for
    data.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> x, y = np.ones((4, 5, 3)), np.zeros(4, int)
    >>> model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last(), tr.nn.Linear(4, 2, rng=1))
    >>> sorted(model.evaluate(x, y, loss="cross_entropy", metrics=["accuracy"]))
    ['accuracy', 'loss']
    """
    checked_model(model, "evaluate")
    fitted = _FITTED.get(model, (None, (), None))
    ignore_index = fitted[2] if ignore_index is None else ignore_index
    chosen = fitted[0] if loss is None else loss
    if chosen is None:
        raise ArgumentError("evaluate: this model was not fitted yet, so give loss=, for example loss='cross_entropy'")
    task = _scoring(model, chosen, metrics or fitted[1], backend, tbptt is not None, ignore_index, threads)
    with evaluating():
        return score(task, Batches(data_for(model, x, y, lengths, mask), batch_size, task.timed_of, tbptt=tbptt,
                                   ignore_index=ignore_index))


def _scoring(model: Trainable, loss: str | Loss, metrics: Any, backend: str, streams: bool, ignore_index: int | None,
             threads: int | None) -> Task:
    """The programs that score a model; the model keeps them where loss and metrics are given by name."""
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)

    def make() -> Task:
        return Task(model, loss, metrics, backend, streams=streams, ignore_index=ignore_index, threads=threads)

    if not all(isinstance(m, str) for m in (loss, *metrics)):
        return make()  # a loss of one's own may compute something else the next time
    key = "evaluate", loss, metrics, backend, streams, ignore_index, None if threads is None else checked_threads(threads)
    return programs_of(model).get(model, key, make)


def predict(model: Trainable, x: object, *, lengths: TensorLike | None = None, mask: object = None, batch_size: int = 256,
            backend: str = "cpu", threads: int | None = None) -> Array | list[Array]:
    """The model's output for every row, with dropout off: an array [B, ...].

    The model keeps its compiled program, one for each shape; any number of threads may call at once.

    For a list of rows of different lengths, where there is an output for every step, it is a list of arrays [T, ...] of
    these lengths.

    x as in `fit`. Raises what `fit` raises for data.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> x, y = np.ones((4, 5, 3)), np.zeros(4, int)
    >>> model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last(), tr.nn.Linear(4, 2, rng=1))
    >>> model.predict(x).shape
    (4, 2)
    """
    checked_model(model, "predict")
    program = served(model, "predict", _output, backend, threads)
    if type(x) is np.ndarray and lengths is None and mask is None and _plain(x, batch_size):
        found: Array = program(x=x)["y"]
        return found
    data = data_for(model, x, None, lengths, mask)
    pieces = Batches(data, batch_size).pieces()
    y = np.concatenate([program(**whole_rows(data, piece))["y"] for piece in pieces])
    with evaluating():
        own = _lengths_out(model, data, y)
    return y if own is None else [row[:n].copy() for row, n in zip(y, own, strict=True)]


def _output(model: Trainable, x: Any, lengths: TensorLike | None = None, mask: TensorLike | None = None) -> dict[str, Any]:
    return {"y": call(model, x, lengths, mask, None, False)[0]}


def _plain(x: Array, batch_size: object) -> bool:
    """Whether an array is one batch of numbers as it is; everything else goes through `Data`."""
    return (type(batch_size) is int and x.ndim > 0 and 0 < len(x) <= batch_size and x.dtype.kind in "fiub"
            and x.dtype.itemsize > 0 and x.dtype != np.float16)


def _lengths_out(model: Trainable, data: Data, y: Array) -> Array | None:
    """The lengths of the output's rows, where it has those of an input that came as rows of different lengths."""
    for i in reversed(range(len(data.parts))):
        part = data.parts[i]
        if isinstance(part, Ragged) and y.ndim > 1 and y.shape[1] == part.shape[1] and _grows(model, data, i):
            return part.lengths
    return None


def _grows(model: Trainable, data: Data, i: int) -> bool:
    """Whether the model's output has one step more where a part of x has: found out once."""
    key = "grows", i, tuple((p.ndim, p.shape[2:], p.dtype) for p in data.parts), data.names is None
    return programs_of(model).get(model, key, lambda: output_grows(model, data.tree(data.parts), i))


def whole_rows(data: Data, piece: Piece) -> Batch:
    """Rows at their full length, so that the outputs of all batches fit together."""
    rows = piece.rows
    batch: Batch = {"x": data.tree([a[rows] for a in data.parts])}
    if data.mask is not None:
        batch["mask"] = data.mask[rows]
    return batch if data.lengths is None else {**batch, "lengths": data.length_tree([n[rows] for n in data.lengths])}
