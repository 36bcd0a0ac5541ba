"""Any cell over a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends import on_host
from ..cells import Cell, get
from ..cells.initial import constant
from ..errors import ArgumentError, ShapeError
from ..ir.node import Node
from ..ir.ops.leaves import full
from ..ir.ops.linear import broadcast_to, transpose
from ..ir.ops.structure import take
from ..serve.step import by_program
from ..shapes import checked_bytes, show
from ..tensor.functional import max as largest
from ..tensor.functional import parameter, where
from ..tensor.masks import refuse_single, valid_steps
from ..tensor.rearrange import arange, one_hot, stack
from ..tensor.tensor import Tensor, TensorLike, as_tensor, detached, extents
from ..trees import map_tree
from ..types import Seed
from ..viz.names import spoken
from ..viz.wiring import Wiring, count_of, title_of
from .layers import cast
from .module import Module, loadable
from .noise import Noise, Rates

State = Any


@loadable
class Recurrent(Module):
    """Any cell over a sequence: `y, state = layer(x)`, x [B, T, X], y [B, T, H].

    `state` is a tuple in the order of `cell.states` (then delayed inputs), or a dict by name; a state read k steps
    back is [B, k, ...], newest first.  Beyond a row's length y is zero and the state is that of its last valid step.
    A cell with several inputs takes a dict by name or a tuple in the order of `cell.inputs`, one with several outputs
    returns a dict.  `memory` (bytes, or "200MB") is a budget for training on long sequences: see `scan`.

    Raises `ArgumentError` for what is no cell and for options that do not fit it, `ShapeError` for sizes, inputs and states
    that do not.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.Recurrent(tr.cells["mgu"], x=3, h=4, rng=0)
    >>> y, (h,) = layer(np.ones((2, 5, 3)), lengths=[5, 2])
    >>> y.shape, h.shape, float(abs(y[1, 2:]).sum())
    ((2, 5, 4), (2, 4), 0.0)
    """

    cell: Cell
    reads_time = True

    def __init__(self, cell: Cell | str, sizes: Mapping[str, int] | None = None, *, reverse: bool = False,
                 batch_first: bool = True, zoneout: Rates = 0.0, recurrent_dropout: float = 0.0,
                 dtype: npt.DTypeLike = "float32", rng: Seed = None, fixed: Mapping[str, npt.ArrayLike] | None = None,
                 memory: int | str | None = None, **named: int) -> None:
        if "time_major" in named:
            raise ArgumentError("time_major=True is written batch_first=False, as in RNN, LSTM and GRU")
        cell = get(cell) if isinstance(cell, str) else cell
        if not isinstance(cell, Cell):
            raise ArgumentError(f"Recurrent takes a Cell or the name of one, got {type(cell).__name__}")
        self.cell, self.reverse, self.batch_first = cell, reverse, batch_first
        self.memory = checked_bytes("memory", memory)
        self.noise = Noise(cell, zoneout, recurrent_dropout)
        self.rng = np.random.default_rng(rng)
        self.sizes = {k: int(n) for k, n in cell.checked_sizes(sizes, named).items()}
        self.dtype = np.dtype(dtype)
        unknown = [p for p in fixed or () if p not in cell.fixed]
        if unknown:
            raise ArgumentError(f"fixed= gives {unknown[0]!r}, which cell {cell.name} does not declare as fixed: write a line "
                                f"'{unknown[0]}: fixed' into its equations (fixed are {', '.join(cell.fixed) or 'none'})")
        arrays = cell.init(self.sizes, rng=self.rng, dtype=dtype, fixed={p: on_host(a) for p, a in (fixed or {}).items()})
        self.weights = {p: parameter(a, p) if p not in cell.fixed else as_tensor(a, name=p) for p, a in arrays.items()}

    def config(self) -> dict[str, Any]:
        return {"text": self.cell.text, "name": self.cell.name, "sizes": self.sizes, "reverse": self.reverse,
                "batch_first": self.batch_first, "zoneout": self.noise.rates, "recurrent_dropout": self.noise.dropout,
                "dtype": self.dtype.name, "memory": self.memory}

    @classmethod
    def built(cls, config: dict[str, Any]) -> Module:
        cell, sizes = Cell(config.pop("text"), config.pop("name")), config.pop("sizes")
        if "time_major" in config:  # in files of version 0.1
            config["batch_first"] = not config.pop("time_major")
        shapes = cell.shapes(sizes)
        return cls(cell, sizes, fixed={p: constant(shapes[p], 0.0) for p in cell.fixed}, **config)

    @property
    def time_first(self) -> bool:
        return not self.batch_first

    def example(self, batch: int, *steps: int) -> Any:
        if len(self.cell.inputs) != 1 or not self.batch_first:
            return super().example(batch, *steps)
        return np.ones((batch, *steps, *self.cell.signal_shape(self.cell.inputs[0], self.sizes)), self.dtype)

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        state = f"state {', '.join(self.cell.states)}" if self.cell.states else "no state"
        lines = [title_of(name, self), f"{self.cell.name}, {state}", count_of(self)]
        return [into.recurrent(lines, reads if self.cell.inputs else [], self.reverse, self.cell, spoken(self.cell.name))]

    def backwards(self, rng: Seed = None) -> Recurrent:
        """A layer of the same cell, with parameters of its own, that reads from the other end."""
        return Recurrent(self.cell, self.sizes, reverse=not self.reverse, batch_first=self.batch_first,
                         zoneout=self.noise.rates, recurrent_dropout=self.noise.dropout, dtype=self.dtype, rng=rng,
                         memory=self.memory, fixed={p: self.weights[p].numpy() for p in self.cell.fixed})

    def state_dict(self) -> dict[str, Any]:
        """The cell's own parameter names."""
        return {p: t.numpy() for p, t in self.weights.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Assign all parameters, under the cell's own names or as they stand in a file (`weights.W`)."""
        super().load_state_dict({k if k.startswith("weights.") else f"weights.{k}": v for k, v in state.items()})

    def __call__(self, x: object, state: State = None, lengths: Any = None, mask: Any = None) -> tuple[Any, tuple[Tensor, ...]]:
        named = self._named(x)
        if self._single(named):
            return self._without_batch(named, state, lengths, mask)
        sequences = [self._sequence(n, named[n]) for n in self.cell.inputs]
        steps, batch = sequences[0].shape[:2] if sequences else self._extent(x)
        finals, traces = self.noise.scan(
            self.training, self.remembered(state, batch), sequences, {p: t.source() for p, t in self.weights.items()}, self.rng,
            mask=time_mask(steps, batch, lengths, mask, self.time_first), reverse=self.reverse, steps=steps,
            memory=self.memory)
        outputs = {n: Tensor(swap(y) if self.batch_first else y) for n, y in traces.items()}
        return self._one(outputs), self._state(finals)

    @property
    def reads_back(self) -> bool:
        return self.reverse

    def ended(self, x: object, state: State = None, lengths: Any = None, mask: Any = None) -> tuple[Any, tuple[Tensor, ...]]:
        """The output at the last step that is read, as a sequence of one step, and the state."""
        y, after = self(x, state, lengths, mask)
        return map_tree(lambda t: end_of(t, lengths, mask, self.reverse), y), after

    def step(self, x: TensorLike, state: State = None) -> tuple[Any, tuple[Tensor, ...]]:
        """One time step, for streams: x [B, X].  In evaluation mode (`layer.eval()`) output and state are values without
        history, so that a stream may go on for ever, by a compiled program that the layer keeps; in training mode gradients
        flow through the steps.  `stream` is much quicker where many steps follow each other."""
        found = by_program(self, x, state)
        return self.stepped(x, state) if found is None else found

    def stepped(self, x: TensorLike, state: State = None) -> tuple[Any, tuple[Tensor, ...]]:
        """A step as a graph."""
        if self.reverse:
            raise ArgumentError("a reversed layer reads the future and cannot be run step by step")
        named = self._named(x)
        inputs = [cast(named[n], self.dtype).source() for n in self.cell.inputs]
        for n, node in zip(self.cell.inputs, inputs, strict=True):
            if node.shape[1:] != self.cell.signal_shape(n, self.sizes) or not node.shape:
                expected = ["B", *map(str, self.cell.signal_shape(n, self.sizes))]
                raise ShapeError(f"input {n} of one step has shape {show(node.shape)}, expected [{', '.join(expected)}]")
        batch = (inputs[0] if inputs else as_tensor(x).node).shape[0]
        new, signals = self.noise.step(self.training, self.remembered(state, batch), inputs,
                                       {p: t.source() for p, t in self.weights.items()}, self.rng)
        y, after = {n: Tensor(signals[n]) for n in self.cell.outputs}, self._state(new)
        return self._one(y if self.training else forgotten(y)), after if self.training else tuple(detached(after))

    def _named(self, x: object) -> Mapping[str, Any]:
        """Every input by its name."""
        if not isinstance(x, Mapping):
            return self._by_order(x)
        if set(x) != set(self.cell.inputs):
            raise ArgumentError(f"cell {self.cell.name} has the inputs {', '.join(self.cell.inputs) or 'none'}; "
                                f"got {', '.join(map(str, x))}")
        return x

    def _by_order(self, x: Any) -> Mapping[str, Any]:
        names = self.cell.inputs
        if len(names) < 2:
            return dict.fromkeys(names, x)
        if not isinstance(x, tuple) or len(x) != len(names):
            listed = isinstance(x, tuple) or (isinstance(x, list) and len(x) <= len(names))
            got = (f"a {type(x).__name__} of {len(x)}" if listed else
                   f"one array of shape {show(np.shape(x))}")
            raise ArgumentError(f"cell {self.cell.name} has the inputs {', '.join(names)}: give a dict, "
                                f"{{{', '.join(f'{n!r}: ...' for n in names)}}}, or a tuple in this order; got {got}")
        return dict(zip(names, x, strict=True))

    @property
    def joint_inputs(self) -> tuple[str, ...]:
        return self.cell.inputs if len(self.cell.inputs) > 1 else ()

    def _single(self, named: Mapping[str, Any]) -> bool:
        """Whether the inputs are one sequence without batch axis."""
        return bool(self.cell.inputs) and all(
            np.ndim(named[n]) == 1 + len(self.cell.signal_shape(n, self.sizes)) for n in self.cell.inputs)

    def _without_batch(self, named: Mapping[str, Any], state: State, lengths: Any, mask: Any) -> tuple[Any, tuple[Tensor, ...]]:
        axis = int(self.time_first)
        refuse_single(f"the cell {self.cell.name}", next(iter(named.values())))
        begun = None if state is None else [one_row(s, 0) for s in (state if isinstance(state, (tuple, list)) else [state])]
        y, after = self({n: one_row(v, axis) for n, v in named.items()}, begun, *single_rows(lengths, mask, axis))
        return map_tree(lambda t: only_row(t, axis), y), tuple(only_row(s, 0) for s in after)

    def _extent(self, x: object) -> tuple[int, ...]:
        """Steps and batch for a cell without inputs: the first two axes of x, whose numbers are not read."""
        t = as_tensor(x)
        if t.ndim < 2:
            raise ShapeError(f"cell {self.cell.name} has no input; x only says how many rows and steps: [B, T], "
                             f"got {show(t.shape)}")
        first, second, *_ = extents(t)
        return (first, second) if self.time_first else (second, first)

    def _one(self, outputs: dict[str, Tensor]) -> Any:
        return outputs[self.cell.outputs[0]] if len(outputs) == 1 else outputs

    def _sequence(self, name: str, x: TensorLike) -> Node:
        return sequence(x, self.dtype, self.cell.signal_shape(name, self.sizes), name, self.time_first)

    def _names(self) -> dict[str, int]:
        """What is remembered, with its number of lags, in the order of the state."""
        return {n: self.cell.roles.lags[n] for n, k in self.cell.slots if k == 1}

    def remembered(self, state: State, batch: int) -> list[Node]:
        """A state as one node per name and lag."""
        names = self._names()
        if state is None:
            return [self._start(n, k, batch) for n, k in self.cell.slots]
        if isinstance(state, Mapping):
            if set(state) != set(names):
                raise ArgumentError(f"the state of cell {self.cell.name} is ({', '.join(names)}), got "
                                    + ", ".join(map(str, state)))
            state = [state[n] for n in names]
        given = tuple(state) if isinstance(state, (tuple, list)) else (state,)
        if len(given) != len(names):
            raise ShapeError(f"the state of cell {self.cell.name} is ({', '.join(names)}), got {len(given)} tensors")
        nodes: list[Node] = []
        for (n, lags), value in zip(names.items(), given, strict=True):
            t = cast(value, self.dtype).source()
            expected = (batch, *([lags] if lags > 1 else []), *self.cell.signal_shape(n, self.sizes))
            if t.shape != expected:
                raise ShapeError(f"state {n} of cell {self.cell.name} has shape {show(t.shape)}, expected {show(expected)}")
            columns = transpose(t, [1, 0, *range(2, t.ndim)]) if lags > 1 else t
            nodes += [take(columns, k) for k in range(lags)] if lags > 1 else [t]
        return nodes

    def _start(self, name: str, lag: int, batch: int) -> Node:
        shape = (batch, *self.cell.signal_shape(name, self.sizes))
        learned = self.weights.get(f"{name}[{1 - lag}]")
        return full(0, shape, self.dtype) if learned is None else broadcast_to(learned.source(), shape)

    def _state(self, nodes: Sequence[Node]) -> tuple[Tensor, ...]:
        values = iter(nodes)
        out = []
        for lags in self._names().values():
            newest_first = [Tensor(next(values)) for _ in range(lags)]
            out.append(newest_first[0] if lags == 1 else stack(newest_first, axis=1))
        return tuple(out)


def forgotten(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs as values without history."""
    return dict(zip(outputs, detached(list(outputs.values())), strict=True))


def one_row(x: TensorLike, axis: int) -> Tensor:
    """With a batch axis of size 1."""
    t = as_tensor(x)
    return t.reshape(*extents(t)[:axis], 1, *extents(t)[axis:])


def only_row(t: Tensor, axis: int) -> Tensor:
    """Without its batch axis of size 1."""
    return t.reshape(*extents(t)[:axis], *extents(t)[axis + 1 :])


def single_rows(lengths: TensorLike | None, mask: TensorLike | None, axis: int) -> tuple[Any, Any]:
    """The length (a number) or mask [T] of one sequence, for a batch of one."""
    return (None if lengths is None else np.reshape(lengths, 1) if not isinstance(lengths, Tensor) else lengths.reshape(1),
            None if mask is None else one_row(mask if isinstance(mask, Tensor) else np.asarray(mask), axis))


def end_of(y: Tensor, lengths: TensorLike | None, mask: TensorLike | None, reverse: bool) -> Tensor:
    """The last valid step of a sequence, or the first where it was read from its end: [B, T, H] as [B, 1, H]."""
    if y.ndim == 2:
        return only_row(end_of(one_row(y, 0), *single_rows(lengths, mask, 0), reverse), 0)
    rows, steps, *_ = extents(y)
    found = y[:, 0 if reverse else -1] if steps else y.sum(1)
    valid = valid_steps(rows, steps, lengths, mask)
    return one_row(found if valid is None or not steps else edge(y, valid, reverse), 1)


def edge(y: Tensor, valid: Tensor, first: bool) -> Tensor:
    """Each row at its first or last valid step, [B, T, ...] as [B, ...]; zero for a row without any."""
    n = extents(y)[1]
    steps = arange(n)
    at = -largest(where(valid, -steps, -n), 1) if first else largest(where(valid, steps, -1), 1)
    chosen = one_hot(at, n, y.dtype)
    return where(chosen.reshape(*extents(chosen), *(1,) * (y.ndim - 2)) > 0, y, 0.0).sum(1)


def swap(n: Node) -> Node:
    """[T, B, ...] as [B, T, ...] and back."""
    return transpose(n, [1, 0, *range(2, n.ndim)])


def sequence(x: TensorLike, dtype: np.dtype[Any], shape: tuple[int, ...], name: str, time_first: bool) -> Node:
    """An input sequence, checked, time first."""
    t = cast(x, dtype)
    if extents(t)[2:] != shape or t.ndim < 2:
        order = "T, B" if time_first else "B, T"
        rest = "".join(f", {n}" for n in shape)
        raise ShapeError(f"input {name} has shape {show(t.shape)}, expected [{order}{rest}], or [T{rest}] for one sequence")
    return t.source() if time_first else swap(t.source())


def time_mask(steps: int, batch: int, lengths: TensorLike | None, mask: TensorLike | None, time_first: bool) -> Node | None:
    """`lengths` [B] or `mask` (in the layer's own order of axes) as bool [T, B]."""
    valid = valid_steps(batch, steps, lengths, mask, time_first)
    return None if valid is None else transpose(valid.source())
