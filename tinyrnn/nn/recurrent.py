"""Layers with memory: any cell over a sequence, and PyTorch's RNN, LSTM and GRU with its names and layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cells import Cell, get
from ..cells.initial import uniform
from ..errors import ArgumentError, ShapeError
from ..functional import parameter, stack, step_mask, where
from ..ir.node import Node
from ..ir.ops.leaves import full
from ..ir.ops.linear import broadcast_to, transpose
from ..ir.ops.structure import concat as join
from ..ir.ops.structure import take
from ..randomness import keep_mask
from ..shapes import show
from ..tensor import Tensor, as_tensor, detached
from .layers import cast, positive
from .module import Module

State = Any


class Recurrent(Module):
    """Any cell over a sequence: `y, state = layer(x)`, x [B, T, X], y [B, T, H].

    `state` is a tuple in the order of `cell.states` (then delayed inputs); a state read k steps back is [B, k, ...],
    newest first.  Beyond a row's length y is zero and the state is that of its last valid step.  A cell with several
    inputs takes a dict, one with several outputs returns one.

    >>> import tinyrnn as tr
    >>> layer = tr.nn.Recurrent(tr.cells["mgu"], x=3, h=4, rng=0)
    >>> y, (h,) = layer(np.ones((2, 5, 3)), lengths=[5, 2])
    >>> y.shape, h.shape, float(abs(y[1, 2:]).sum())
    ((2, 5, 4), (2, 4), 0.0)
    """

    def __init__(self, cell: Cell, sizes: Mapping[str, int] | None = None, *, reverse: bool = False,
                 time_major: bool = False, dtype: npt.DTypeLike = "float32", rng: Any = None,
                 fixed: Mapping[str, npt.ArrayLike] | None = None, **named: int) -> None:
        self.cell, self.reverse, self.time_major = cell, reverse, time_major
        self.sizes = {k: int(n) for k, n in cell.checked_sizes(sizes, named).items()}
        self.dtype = np.dtype(dtype)
        arrays = cell.init(self.sizes, rng=rng, dtype=dtype, fixed=fixed)
        self.weights = {p: parameter(a, p) if p not in cell.fixed else as_tensor(a, name=p) for p, a in arrays.items()}

    def config(self) -> dict[str, Any]:
        return {"text": self.cell.text, "name": self.cell.name, "sizes": self.sizes, "reverse": self.reverse,
                "time_major": self.time_major, "dtype": self.dtype.name}

    def state_dict(self) -> dict[str, Any]:
        """The cell's own parameter names."""
        return {p: t.numpy() for p, t in self.weights.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({f"weights.{k}": v for k, v in state.items()})

    def __call__(self, x: Any, state: State = None, lengths: Any = None, mask: Any = None) -> tuple[Any, tuple[Tensor, ...]]:
        named = self._named(x)
        sequences = [self._sequence(n, named[n]) for n in self.cell.inputs]
        steps, batch = sequences[0].shape[:2] if sequences else self._extent(x)
        finals, traces = self.cell.scan(
            self.remembered(state, batch), sequences, {p: t.source() for p, t in self.weights.items()},
            mask=time_mask(steps, batch, lengths, mask, self.time_major), reverse=self.reverse, steps=steps)
        outputs = {n: Tensor(y if self.time_major else swap(y)) for n, y in traces.items()}
        return self._one(outputs), self._state(finals)

    def step(self, x: Any, state: State = None) -> tuple[Any, tuple[Tensor, ...]]:
        """One time step, for streams: x [B, X].  In evaluation mode (`layer.eval()`) output and state are values without
        history, so that a stream may go on for ever; in training mode gradients flow through the steps."""
        named = self._named(x)
        inputs = [cast(named[n], self.dtype).source() for n in self.cell.inputs]
        for n, node in zip(self.cell.inputs, inputs, strict=True):
            if node.shape[1:] != self.cell.signal_shape(n, self.sizes) or not node.shape:
                expected = ["B", *map(str, self.cell.signal_shape(n, self.sizes))]
                raise ShapeError(f"input {n} of one step has shape {show(node.shape)}, expected [{', '.join(expected)}]")
        batch = (inputs[0] if inputs else as_tensor(x)).shape[0]
        new, signals = self.cell.step(self.remembered(state, batch), inputs,
                                      {p: t.source() for p, t in self.weights.items()})
        y, after = {n: Tensor(signals[n]) for n in self.cell.outputs}, self._state(new)
        return self._one(y if self.training else forgotten(y)), after if self.training else tuple(detached(after))

    def _named(self, x: Any) -> Mapping[str, Any]:
        """Every input by its name."""
        if not isinstance(x, Mapping):
            return dict.fromkeys(self.cell.inputs, x)
        if set(x) != set(self.cell.inputs):
            raise ArgumentError(f"cell {self.cell.name} has the inputs {', '.join(self.cell.inputs) or 'none'}; "
                                f"got {', '.join(map(str, x))}")
        return x

    def _extent(self, x: Any) -> tuple[int, ...]:
        """Steps and batch for a cell without inputs: the first two axes of x, whose numbers are not read."""
        t = as_tensor(x)
        if t.ndim < 2:
            raise ShapeError(f"cell {self.cell.name} has no input; x only says how many rows and steps: [B, T], "
                             f"got {show(t.shape)}")
        return t.shape[:2] if self.time_major else (t.shape[1], t.shape[0])

    def _one(self, outputs: dict[str, Tensor]) -> Any:
        return outputs[self.cell.outputs[0]] if len(outputs) == 1 else outputs

    def _sequence(self, name: str, x: Any) -> Node:
        return sequence(x, self.dtype, self.cell.signal_shape(name, self.sizes), name, self.time_major)

    def _names(self) -> dict[str, int]:
        """What is remembered, with its number of lags, in the order of the state."""
        return {n: self.cell.roles.lags[n] for n, k in self.cell.slots if k == 1}

    def remembered(self, state: State, batch: int) -> list[Node]:
        """A state as one node per name and lag."""
        names = self._names()
        if state is None:
            return [self._start(n, k, batch) for n, k in self.cell.slots]
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


def swap(n: Node) -> Node:
    """[T, B, ...] as [B, T, ...] and back."""
    return transpose(n, [1, 0, *range(2, n.ndim)])


def sequence(x: Any, dtype: np.dtype[Any], shape: tuple[int, ...], name: str, time_major: bool) -> Node:
    """An input sequence, checked, time first."""
    t = cast(x, dtype)
    if t.shape[2:] != shape or t.ndim < 2:
        order = "T, B" if time_major else "B, T"
        raise ShapeError(f"input {name} has shape {show(t.shape)}, expected [{order}{''.join(f', {n}' for n in shape)}]")
    return t.source() if time_major else swap(t.source())


def time_mask(steps: int, batch: int, lengths: Any, mask: Any, time_major: bool) -> Node | None:
    """`lengths` [B] or `mask` (in the layer's own order of axes) as bool [T, B]."""
    if mask is not None and not time_major:
        mask = as_tensor(mask if isinstance(mask, Tensor) else np.asarray(mask)).T
    node = step_mask(steps, lengths, mask)
    if node is not None and node.shape != (steps, batch):
        raise ShapeError(f"expected one length for each of {batch} rows, or a mask for {batch} rows and {steps} steps, "
                         f"got {show(node.shape)} [T, B]")
    return node


class Packed(Module):
    """What nn.RNN, nn.LSTM and nn.GRU share: stacked, bidirectional layers over PyTorch's packed weights."""

    gates: str  # in the order in which PyTorch stacks their rows; "" for a cell without gates

    def __init__(self, cell: Cell, input_size: int, hidden_size: int, *, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = True, dropout: float = 0.0, bidirectional: bool = False,
                 dtype: npt.DTypeLike = "float32", rng: Any = None) -> None:
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout={dropout!r}: expected 0 <= dropout < 1")
        self.cell = cell
        self.input_size, self.hidden_size = positive("input_size", input_size), positive("hidden_size", hidden_size)
        self.num_layers, self.bias, self.batch_first = positive("num_layers", num_layers), bias, batch_first
        self.dropout, self.bidirectional, self.dtype = dropout, bidirectional, np.dtype(dtype)
        self.rng = np.random.default_rng(rng)
        for k in range(num_layers):
            width = input_size if k == 0 else hidden_size * len(self.directions)
            for suffix in self.directions:
                self._add_weights(f"l{k}{suffix}", width)

    @property
    def directions(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def _add_weights(self, where: str, width: int) -> None:
        rows, limit = max(len(self.gates), 1) * self.hidden_size, 1 / sqrt(self.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, self.hidden_size)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        for name, shape in shapes.items():
            value = uniform(shape, limit, self.rng).astype(self.dtype)
            setattr(self, f"{name}_{where}", parameter(value, f"{name}_{where}"))

    def config(self) -> dict[str, Any]:
        return {"input_size": self.input_size, "hidden_size": self.hidden_size, "num_layers": self.num_layers,
                "bias": self.bias, "batch_first": self.batch_first, "dropout": self.dropout,
                "bidirectional": self.bidirectional, "dtype": self.dtype.name}

    def cell_weights(self, where: str) -> dict[str, Node]:
        """The cell's own parameters as rows of the packed ones."""
        h, found = self.hidden_size, {}
        for kind, short in (("weight", "W"), ("bias", "b")):
            for side in "ih":
                packed = getattr(self, f"{kind}_{side}h_{where}", None)
                for i, gate in enumerate(self.gates or "h"):
                    name = f"{short}_{side}{gate}"
                    if packed is None:
                        found[name] = full(0, (h,), self.dtype)
                    else:
                        found[name] = packed.source()[i * h : (i + 1) * h]
        return found

    def __call__(self, x: Any, state: State = None, lengths: Any = None, mask: Any = None) -> tuple[Tensor, State]:
        y = sequence(x, self.dtype, (self.input_size,), "x", not self.batch_first)
        steps, batch = y.shape[:2]
        valid = time_mask(steps, batch, lengths, mask, not self.batch_first)
        given = self._split_state(state, batch)
        finals: list[list[Node]] = []
        for k in range(self.num_layers):
            y = self._drop(y) if k else y
            sides = []
            for d, suffix in enumerate(self.directions):
                final, trace = self.cell.scan(given[len(finals)], [y], self.cell_weights(f"l{k}{suffix}"), mask=valid,
                                              reverse=d == 1, steps=steps, path=f"l{k}{suffix}")
                finals.append(final)
                sides.append(trace["h"])
            y = sides[0] if len(sides) == 1 else join(sides, -1)
        return Tensor(swap(y) if self.batch_first else y), self._join_state(finals)

    def _drop(self, y: Node) -> Node:
        if not self.training or not self.dropout:
            return y
        t = Tensor(y)
        return where(keep_mask(t.shape, 1 - self.dropout, self.rng), t / (1 - self.dropout), 0.0).node

    def step(self, x: Any, state: State = None) -> tuple[Tensor, State]:
        """One time step, for streams: x [B, X]; needs a single direction.  See `Recurrent.step` for evaluation mode."""
        if self.bidirectional:
            raise ArgumentError("a bidirectional layer reads the future and cannot be run step by step")
        y = cast(x, self.dtype).source()
        if y.ndim != 2 or y.shape[1] != self.input_size:
            raise ShapeError(f"one step takes x of shape [B, {self.input_size}], got {show(y.shape)}")
        given, finals = self._split_state(state, y.shape[0]), []
        for k in range(self.num_layers):
            new, signals = self.cell.step(given[k], [y], self.cell_weights(f"l{k}"))
            finals.append(new)
            y = signals["h"]
        after = self._join_state(finals)
        if self.training:
            return Tensor(y), after
        out, *values = detached([Tensor(y), *(after if isinstance(after, tuple) else (after,))])
        return out, tuple(values) if isinstance(after, tuple) else values[0]

    def _split_state(self, state: State, batch: int) -> list[list[Node]]:
        """[layers x directions, B, H] (LSTM: a pair of them) as the state of each scan."""
        n, names = self.num_layers * len(self.directions), self.cell.states
        if state is None:
            return [[full(0, (batch, self.hidden_size), self.dtype) for _ in names] for _ in range(n)]
        many = isinstance(state, (tuple, list)) and len(names) > 1
        given = tuple(state) if many else (state,)
        expected = (n, batch, self.hidden_size)
        tensors = [cast(s, self.dtype) for s in given]
        if len(tensors) != len(names) or any(t.shape != expected for t in tensors):
            raise ShapeError(f"the state is {' and '.join(names)}, each {show(expected)}; got "
                             + ", ".join(show(t.shape) for t in tensors))
        return [[take(t.source(), i) for t in tensors] for i in range(n)]

    def _join_state(self, finals: Sequence[Sequence[Node]]) -> State:
        joined = tuple(stack([Tensor(f[i]) for f in finals]) for i in range(len(self.cell.states)))
        return joined[0] if len(joined) == 1 else joined


class RNN(Packed):
    """PyTorch's nn.RNN: `h[t] = tanh(W_ih x[t] + b_ih + W_hh h[t-1] + b_hh)`, y [B, T, H], state [layers, B, H].

    `nonlinearity` is tanh, relu, or any other function of the equation language.
    """

    gates = ""

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "tanh", **options: Any) -> None:
        base = get("RNN")
        cell = base if nonlinearity == "tanh" else Cell(
            base.canonical_text().replace("tanh(", f"{nonlinearity}("), f"rnn_{nonlinearity}")
        self.nonlinearity = nonlinearity
        super().__init__(cell, input_size, hidden_size, **options)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "nonlinearity": self.nonlinearity}


class LSTM(Packed):
    """PyTorch's nn.LSTM: gates i, f, g, o; `y, (h, c) = layer(x)`, y [B, T, H], h and c [layers, B, H].

    Hochreiter & Schmidhuber, 1997; Gers et al., 2000.  `forget_bias` is added to the forget gate's bias at the start
    (Jozefowicz et al., 2015).

    >>> import tinyrnn as tr
    >>> y, (h, c) = tr.nn.LSTM(3, 4, num_layers=2, bidirectional=True, rng=0)(np.ones((2, 5, 3)))
    >>> y.shape, h.shape, c.shape
    ((2, 5, 8), (4, 2, 4), (4, 2, 4))
    """

    gates = "ifgo"

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 0.0, **options: Any) -> None:
        super().__init__(get("LSTM"), input_size, hidden_size, **options)
        self.forget_bias = forget_bias
        if forget_bias and self.bias:
            for name, t in list(self.named_parameters()):
                if name.startswith("bias_ih"):
                    t.assign(t.numpy() + np.repeat([0.0, forget_bias, 0.0, 0.0], hidden_size).astype(self.dtype))

    def config(self) -> dict[str, Any]:
        return {**super().config(), "forget_bias": self.forget_bias}


class GRU(Packed):
    """PyTorch's nn.GRU: gates r, z, n, reset after the product; y [B, T, H], state [layers, B, H].

    Cho et al., 2014.
    """

    gates = "rzn"

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(get("GRU"), input_size, hidden_size, **options)


