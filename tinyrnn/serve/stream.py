"""Streams: a model that reads one step at a time, with its own state and buffers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import bound, check_backend, checked_threads, on_host
from ..errors import ArgumentError, DTypeError, ShapeError
from ..locks import ForkSafeLock
from ..model import Trainable, attributes_set, checked_model
from ..shapes import checked_count, show
from ..tensor.compile import Program
from ..trees import flatten, leaves_like, map_tree
from .advance import Advance
from .kept import programs_of, served
from .manner import Manner, manner_of, steps_of

Array = npt.NDArray[Any]
Rows = int | slice | Sequence[int] | npt.NDArray[Any]


class Stream:
    """A model that reads one step at a time; `model.stream(batch)` makes one.

    `y = s(x)` takes one step, x [B, ...] as the model takes it without its axis of time, y the same way; `s(block)` takes
    the k steps of x [B, k, ...] at once.  Both give the bits that the model gives for the whole sequence.  With one row its
    axis may be left out of a step.  `s(x, out=y)` writes into an array and allocates none.

    The state is the stream's own: streams of one model know nothing of each other, and each may be used from any thread.
    Weights that are assigned are read from the next step on; a model that gets other layers needs a new stream.

    Raises `ShapeError` and `DTypeError` for steps that do not fit, and `IndexRangeError` for tokens that are none; the state
    stays as it was then.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Linear(4, 2, rng=1))
    >>> x = np.ones((1, 5, 3), np.float32)
    >>> s = model.stream()
    >>> steps = [s(x[:, t]) for t in range(5)]
    >>> bool((np.stack(steps, 1) == model.predict(x)).all())
    True
    """

    reads_the_model = True  # so it is no part of it where an attribute of the model holds it

    def __init__(self, model: Trainable, batch: int = 1, *, dtype: npt.DTypeLike | None = None, like: Any = None,
                 backend: str = "cpu", threads: int | None = None) -> None:
        checked_model(model, "stream")
        self.model, self.batch, self.backend = model, checked_count("batch", batch), str(check_backend(backend))
        self.threads = None if threads is None else checked_threads(threads)
        self.dtype = None if dtype is None else _floating(dtype)
        self._lock = ForkSafeLock()
        made = programs_of(model)
        step = _as_steps(model, self.batch, like)
        kind = tuple((a.shape[1:], a.dtype) for a in flatten(step)[0])
        self._manner: Manner = made.get(model, ("manner", kind), lambda: manner_of(model, step))
        advance = self._manner.advance
        self._program: Program = served(model, ("stream", advance), partial(_piece, advance), self.backend, self.threads)
        self._form = map_tree(self._room, step)
        self._inputs, self._rebuild = flatten(self._form)
        self._kept, self._dropped, self._when = made, made.look(model), attributes_set()
        self._steps: list[Callable[[int | None], None]] | None = None
        self._turn = 0
        self._states: list[Any] = []
        self.reset()

    def _room(self, a: Array) -> Array:
        """Room for an input of one step, with its axis of time."""
        kind, shape = self.dtype if self.dtype is not None and a.dtype.kind == "f" else a.dtype, (self.batch, *a.shape[1:])
        return np.zeros((*shape[: self._manner.axis], 1, *shape[self._manner.axis :]), kind)

    # ---- the state

    @property
    def state(self) -> Any:
        """The state, in the form of the model's own, as arrays of its own; None before the first step of a model whose start
        is not known."""
        with self._lock:
            return self._copied()

    @state.setter
    def state(self, state: Any) -> None:
        with self._lock:
            if state is None:
                self._begin()
                return
            like = self._copied()
            if like is None:
                raise ArgumentError("the state can be set after the first step: this model's start is not known before")
            arrays = [on_host(a) for a in leaves_like(state, like, "the state")]
            for a, b in zip(arrays, flatten(like)[0], strict=True):
                if a.shape != b.shape or not np.can_cast(a.dtype, b.dtype, "same_kind"):
                    raise ShapeError(f"the state holds {b.dtype}{show(b.shape)}, got {a.dtype}{show(a.shape)}")
            self._set(arrays)

    def _copied(self) -> Any:
        return self._state_form([a.copy() for a in self._states[self._turn]]) if self._states else None

    def _set(self, arrays: Sequence[Array]) -> None:
        for room, a in zip(self._states[self._turn], arrays, strict=True):
            np.copyto(room, a, "same_kind")

    def reset(self, rows: Rows | None = None) -> None:
        """Back to the state before the first step: all rows, or those of a list, a slice or a bool mask."""
        with self._lock:
            if rows is None:
                self._begin()
                return
            start = self._start()
            if start is None:
                raise ArgumentError("rows cannot be reset one by one: this model's state before the first step is known to its "
                                    "own step(x, None) alone; reset all of them, or give its __call__ an argument state")
            chosen = _rows(rows, self.batch)
            if None in self._manner.rows:
                raise ArgumentError("rows cannot be reset one by one: a state of this model is not one for each row; reset all "
                                    "of them")
            for room, begun, axis in zip(self._states[self._turn], flatten(start)[0], self._manner.rows, strict=True):
                where = (slice(None),) * (axis or 0) + (chosen,)
                room[where] = begun[where]

    def _start(self) -> Any:
        """The state before the first step, for the weights as they are."""
        if not self._manner.begins:
            return None
        return self._program(steps_of(self._form, slice(0), self._manner.axis), None)["state"]

    def _begin(self) -> None:
        start = self._start()
        if start is None:
            self._states, self._steps = [], None
        elif self._states:
            self._set(flatten(start)[0])
        else:
            self._take_over(start)

    def _take_over(self, state: Any) -> None:
        """The first state: there are two sets of places, and a step reads one and writes the other."""
        arrays, self._state_form = flatten(state)
        self._states, self._turn = [[np.array(a, order="C") for a in arrays], [np.array(a, order="C") for a in arrays]], 0
        self._steps = None

    def copy(self) -> Stream:
        """A stream of its own that stands where this one does."""
        other = Stream(self.model, self.batch, **self._options())
        other._follow(self.state)
        return other

    def _options(self) -> dict[str, Any]:
        """What makes another one like this."""
        return {"dtype": self.dtype, "like": self._manner.step, "backend": self.backend, "threads": self.threads}

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Stream:
        """A stream of a copy of the model, which stands where this one does; made when it is first used, since a model that
        holds its stream is not copied yet."""
        other = _unmade()
        other.__setstate__((copy.deepcopy(self.model, memo), self.batch, self._options(), self.state))
        return other

    def __reduce__(self) -> Any:
        """The model, the options and the state: a stream on arrival stands where this one does."""
        return _unmade, (), (self.model, self.batch, self._options(), self.state)

    def __setstate__(self, later: tuple[Any, ...]) -> None:
        vars(self)["_later"] = later

    def __getattr__(self, name: str) -> Any:
        if "_later" not in vars(self):
            raise AttributeError(f"a stream has no attribute {name!r}")
        model, batch, options, state = vars(self).pop("_later")
        Stream.__init__(self, model, batch, **options)
        self._follow(state)
        return getattr(self, name)

    def _follow(self, state: Any) -> None:
        if state is not None and not self._states:
            self._take_over(state)
        elif state is not None:
            self._set(flatten(state)[0])

    # ---- steps

    def __call__(self, x: Any, out: Any = None) -> Any:
        room = self._inputs[0]
        if type(x) is np.ndarray and x.shape == self._shape and x.dtype == room.dtype:
            with self._lock:
                if self._steps is not None and self._when == attributes_set():
                    return self._quickly(x, room, self._steps, out)
        return self._any(x, out)

    def _quickly(self, x: Array, room: Array, steps: Sequence[Callable[[int | None], None]], out: Any) -> Any:
        """A step of one array, where all places are there."""
        y = self._single
        plain = y is not None and type(out) is np.ndarray and out.shape == y.shape and out.dtype == y.dtype
        if out is not None and not (plain and out.flags.writeable):
            self._check_out(self._outputs, out)
        room[...] = x.reshape(room.shape)
        steps[self._turn](self.threads)
        self._turn ^= 1
        if y is None or not (out is None or plain):
            return self._given_out(self._outputs, out)
        if out is None:
            return y.copy()
        np.copyto(out, y)
        return out

    _shape: tuple[int, ...] = ()
    _single: Array | None = None

    def _any(self, x: Any, out: Any) -> Any:
        """A step or a block, of whatever kind."""
        arrays = [on_host(a) for a in leaves_like(x, self._form, "the input of this stream")]
        ranks = {a.ndim - room.ndim for a, room in zip(arrays, self._inputs, strict=True)}
        rank = ranks.pop() if len(ranks) == 1 else None
        axis = self._manner.axis
        if rank == 0 and len({a.shape[axis] for a in arrays}) != 1:
            raise ShapeError("the inputs of a block have equally many steps, got " + ", ".join(show(a.shape) for a in arrays))
        given, steps = arrays, rank == -1 or (rank == -2 and self.batch == 1)
        if steps:
            arrays = [np.expand_dims(a if rank == -1 else a[None], axis) for a in arrays]
        for a, room in zip(arrays, self._inputs, strict=True):
            if not (steps or rank == 0) or self._without_time(a.shape) != self._without_time(room.shape):
                raise ShapeError(self._expected(given))
            if not np.can_cast(a.dtype, room.dtype, "same_kind"):
                raise DTypeError(f"a step of this stream is {room.dtype}, got {a.dtype}")
        with self._lock:
            self._check_model()
            return self._stepped(arrays, out, alone=rank == -2) if rank != 0 else self._whole(arrays, out)

    def _check_model(self) -> None:
        """Refuse to go on where the model was changed: what is traced now would be another model's."""
        if self._kept.look(self.model) != self._dropped:
            raise ArgumentError(f"this {type(self.model).__name__} is made of other parts than when the stream was made: make "
                                "a new stream, which may take over the state")
        self._when = attributes_set()

    def _expected(self, arrays: Sequence[Array]) -> str:
        step = ", ".join(show(r.reshape(self._without_time(r.shape)).shape) for r in self._inputs)
        k = ", ".join(f"[{', '.join('k' if i == self._manner.axis else str(n) for i, n in enumerate(r.shape))}]"
                      for r in self._inputs)
        return (f"this stream of {self.batch} row{'s' * (self.batch > 1)} takes a step {step} or k steps {k}, got "
                + ", ".join(show(a.shape) for a in arrays))

    def _without_time(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[: self._manner.axis] + shape[self._manner.axis + 1 :]

    def _stepped(self, arrays: Sequence[Array], out: Any, alone: bool) -> Any:
        """One step; outputs without an axis of time, and of a single row without its axis where it came so (`alone`)."""
        if self._steps is None:
            self._bind()
        if self._steps is None:
            return self._whole(arrays, out, lambda ys: [_cut(y, axis, alone) for y, axis in zip(
                ys, self._manner.over_time, strict=True)])
        ys = [y[0] for y in self._outputs] if alone else self._outputs
        self._check_out(ys, out)
        for room, a in zip(self._inputs, arrays, strict=True):
            np.copyto(room, a, "same_kind")
        self._steps[self._turn](self.threads)
        self._turn ^= 1
        return self._given_out(ys, out)

    def _whole(self, arrays: Sequence[Array], out: Any, cut: Callable[[list[Array]], list[Array]] = list) -> Any:
        """Several steps, or one that is not compiled."""
        inputs = self._rebuild([a.astype(room.dtype, copy=False) for a, room in zip(arrays, self._inputs, strict=True)])
        results = self._program(inputs, self._state_form(self._states[self._turn]) if self._states else None)
        found, self._form_out = flatten(results["y"])
        ys = cut([on_host(a) for a in found])
        self._check_out(ys, out)
        if self._states:
            self._set([on_host(a) for a in flatten(results["state"])[0]])
        else:
            self._take_over(results["state"])
        return self._given_out(ys, out)

    def _bind(self) -> None:
        """Places for everything that a step reads and writes, where it runs compiled on the CPU."""
        if not self._states:
            return
        entry, _ = self._program.specialization(self._form, self._state_form(self._states[0]))
        if entry.backend.name != "cpu" or entry.alone:
            return
        first, second = self._states
        count = len(entry.graph.outputs) - len(first)
        made = [np.empty(n.shape, n.dtype) for n in list(entry.graph.outputs.values())[:count]]
        steps = []
        for read, written in ((first, second), (second, first)):
            given = entry.inputs([*self._inputs, *read])
            steps.append(bound(entry.executable, given, [*made, *written]))
        self._form_out = flatten(entry.rebuild([*made, *second])["y"])[1]
        self._outputs = [_cut(y, axis) for y, axis in zip(made, self._manner.over_time, strict=True)]
        self._steps = steps
        self._single = self._outputs[0] if len(made) == 1 and (self.dtype in (None, made[0].dtype)) else None
        self._shape = self._without_time(self._inputs[0].shape) if len(self._inputs) == 1 else ()

    def _check_out(self, ys: Sequence[Array], out: Any) -> None:
        """Refuse places that outputs do not fit into, before anything has happened."""
        if out is None:
            return
        for a, place in zip(ys, leaves_like(out, self._form_out(list(ys)), "out"), strict=True):
            if not isinstance(place, np.ndarray) or place.shape != a.shape:
                got = show(place.shape) if isinstance(place, np.ndarray) else type(place).__name__
                raise ShapeError(f"out is to be an array {show(a.shape)}, got {got}")
            if not np.can_cast(a.dtype, place.dtype, "same_kind") or not place.flags.writeable:
                what = "may not be written to" if not place.flags.writeable else f"is {place.dtype}, the output {a.dtype}"
                raise DTypeError(f"out {what}")

    def _given_out(self, ys: Sequence[Array], out: Any) -> Any:
        """Outputs as arrays of their own, or in the places that were given."""
        if out is None:
            kind = self.dtype
            return self._form_out([a.astype(kind) if kind is not None and a.dtype.kind == "f" else a.copy() for a in ys])
        for a, place in zip(ys, leaves_like(out, self._form_out(list(ys)), "out"), strict=True):
            np.copyto(place, a, "same_kind")
        return out

    def __repr__(self) -> str:
        return f"Stream({type(self.model).__name__}, batch={self.batch}, backend={self.backend!r})"


def _piece(advance: Advance, model: Any, x: Any, state: Any) -> dict[str, Any]:
    """Output and state of a piece."""
    y, after = advance(model, x, state)
    return {"y": y, "state": after}


def _as_steps(model: Any, batch: int, like: Any) -> Any:
    """An input of one step with at least two rows: as given, or an example of the model's own."""
    if like is None:
        try:
            return model.example(max(batch, 2))
        except ArgumentError:
            raise ArgumentError(f"what a step of {type(model).__name__} reads does not follow from it: give an input of one "
                                "step, model.stream(like=x_t), or write a method example(batch, *steps)") from None
    rows = max(batch, 2)
    step = map_tree(lambda a: np.resize(on_host(a), (rows, *np.shape(a)[1:])), like)
    try:
        own = flatten(model.example(rows))[0]
    except ArgumentError:
        return step
    for a, b, given in zip(flatten(step)[0], own, flatten(like)[0], strict=False):
        if a.shape != b.shape or (a.dtype.kind == "f") != (b.dtype.kind == "f"):
            raise ShapeError(f"like= is an input of one step, here {b.dtype}[B{''.join(f', {n}' for n in b.shape[1:])}]; got "
                             f"{on_host(given).dtype}{show(np.shape(given))}")
    return step


def _floating(dtype: npt.DTypeLike) -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind.kind != "f":
        raise DTypeError(f"dtype={kind}: a stream takes and gives floating numbers; tokens stay whole numbers anyway")
    return kind


def _rows(rows: Rows, batch: int) -> Any:
    """Rows as an index, refused where there are none such."""
    chosen = rows if isinstance(rows, slice) else np.asarray(rows)
    if isinstance(chosen, np.ndarray) and not chosen.size:
        return np.zeros(0, int)  # an empty list has no whole numbers either
    try:
        if isinstance(chosen, np.ndarray) and not (chosen.dtype.kind in "iu" or (chosen.dtype.kind == "b" and chosen.ndim)):
            raise IndexError
        return np.atleast_1d(np.arange(batch)[chosen])
    except IndexError:
        raise ArgumentError(f"rows={rows!r}: expected rows of {batch} (a number, a list, a slice), or a bool mask "
                            f"[{batch}]") from None


def _cut(y: Array, axis: int | None, alone: bool = False) -> Array:
    """An output of one step without its axis of time, the same memory; `alone`, without its axis of rows as well."""
    y = y if axis is None else y.reshape(y.shape[:axis] + y.shape[axis + 1 :])
    return y[0] if alone else y


def _unmade() -> Stream:
    """A stream that is told later what it reads."""
    return object.__new__(Stream)
