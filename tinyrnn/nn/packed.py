"""PyTorch's RNN, LSTM and GRU with its names and layouts, and the options that it lacks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..cells import Cell, get
from ..cells.initial import constant, uniform
from ..cells.variants import learned_start, lstm
from ..errors import ArgumentError, ShapeError
from ..ir.node import Node
from ..ir.ops.leaves import full
from ..ir.ops.linear import broadcast_to
from ..ir.ops.structure import concat as join
from ..ir.ops.structure import take
from ..serve.step import by_program
from ..shapes import checked_bytes, checked_count, show
from ..tensor.functional import parameter
from ..tensor.masks import refuse_single
from ..tensor.rearrange import concat, stack
from ..tensor.tensor import Tensor, TensorLike, detached, extents
from ..types import Seed
from ..viz.wiring import Wiring, title_of
from .layers import cast, dropped
from .module import Module, loadable
from .noise import Noise, Rates
from .recurrent import State, end_of, one_row, only_row, sequence, single_rows, swap, time_mask

Start = Sequence[Node | None]

_STARTS = {"gain_ih": 1.0, "gain_hh": 1.0, "gain_c": 1.0, "bias_c": 0.0, "h0": 0.0, "c0": 0.0}  # all others are drawn


class Packed(Module):
    """What nn.RNN, nn.LSTM and nn.GRU share: stacked, bidirectional layers over PyTorch's packed weights.

    `y, state = layer(x, state=None, lengths=None, mask=None)`, x [B, T, X], y [B, T, H] (2H in both directions); a single
    sequence may come as [T, X].  Options of all three:

        num_layers         layers on top of each other, `dropout` between them
        bidirectional      a second cell reads each layer's input from the end; outputs side by side
        reverse            read the sequence from its end (each row from its own last valid step)
        recurrent_dropout  units of h blanked inside products, the same at every step (Gal & Ghahramani, 2016)
        zoneout            units of the states stay as they were: a rate, or one by name (Krueger et al., 2017)
        learn_state        the state before the first step is trained: `h0_l0`, ...; zero at the start
        memory             a budget (bytes, or "200MB") of each layer and direction for training on long sequences: see `scan`
    """

    cell: Cell
    reads_time = True
    patterns: ClassVar[Mapping[str, str]] = {
        "weight_ih": "W_i{}", "weight_hh": "W_h{}", "bias_ih": "b_i{}", "bias_hh": "b_h{}"}

    def __init__(self, cell: Cell, gates: str, input_size: int, hidden_size: int, *, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = True, dropout: float = 0.0, bidirectional: bool = False, reverse: bool = False,
                 recurrent_dropout: float = 0.0, zoneout: Rates = 0.0, learn_state: bool = False,
                 memory: int | str | None = None, dtype: npt.DTypeLike = "float32", rng: Seed = None) -> None:
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout={dropout!r}: expected 0 <= dropout < 1")
        if dropout and num_layers == 1:
            warnings.warn(f"dropout={dropout} of {type(self).__name__} acts between layers, and there is one: give "
                          "num_layers=, or put a Dropout layer after it", stacklevel=3)
        if reverse and bidirectional:
            raise ArgumentError("a bidirectional layer reads both ways already: leave reverse=False")
        self.cell = learned_start(cell) if learn_state else cell
        self.noise = Noise(self.cell, zoneout, recurrent_dropout)
        self.input_size, self.hidden_size = checked_count("input_size", input_size), checked_count("hidden_size", hidden_size)
        self.num_layers, self.bias, self.batch_first = checked_count("num_layers", num_layers), bias, batch_first
        self.dropout, self.bidirectional, self.reverse = dropout, bidirectional, reverse
        self.memory = checked_bytes("memory", memory)
        self.learn_state, self.dtype, self.rng = learn_state, np.dtype(dtype), np.random.default_rng(rng)
        self.layout = self._layout(gates)
        self.widths = {s: self.cell.signal_shape(s, self._sizes(input_size))[0] for s in self.cell.states}
        for k in range(num_layers):
            width = input_size if k == 0 else self.widths["h"] * len(self.directions)
            for suffix in self.directions:
                self._add_weights(f"l{k}{suffix}", width)

    def _layout(self, gates: str) -> dict[str, tuple[str, ...]]:
        """Each packed array with the cell's parameters that are its rows, in order."""
        starts = {f"{s}0": f"{s}[0]" for s in self.cell.states}
        found = {name: tuple(dict.fromkeys(p for g in gates if (p := pattern.format(g)) in self.cell.parameters))
                 for name, pattern in {**self.patterns, **starts}.items()}
        return {name: rows for name, rows in found.items() if rows and (self.bias or name not in ("bias_ih", "bias_hh"))}

    def _sizes(self, width: int) -> dict[str, int]:
        sizes = {"x": width, "h": self.hidden_size}
        return {name: sizes[name] for name in self.cell.sizes}

    @property
    def directions(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def _add_weights(self, where: str, width: int) -> None:
        shapes, limit = self.cell.shapes(self._sizes(width)), 1 / sqrt(self.hidden_size)
        for name, rows in self.layout.items():
            shape = (sum(shapes[p][0] for p in rows), *shapes[rows[0]][1:])
            value = constant(shape, _STARTS[name]) if name in _STARTS else uniform(shape, limit, self.rng)
            setattr(self, f"{name}_{where}", parameter(value.astype(self.dtype), f"{name}_{where}"))

    def config(self) -> dict[str, Any]:
        return {"input_size": self.input_size, "hidden_size": self.hidden_size, "num_layers": self.num_layers,
                "bias": self.bias, "batch_first": self.batch_first, "dropout": self.dropout,
                "bidirectional": self.bidirectional, "reverse": self.reverse, "recurrent_dropout": self.noise.dropout,
                "zoneout": self.noise.rates, "learn_state": self.learn_state, "memory": self.memory,
                "dtype": self.dtype.name}

    @property
    def time_first(self) -> bool:
        return not self.batch_first

    def example(self, batch: int, *steps: int) -> Any:
        return np.ones((batch, *steps, self.input_size) if self.batch_first else (*steps, batch, self.input_size), self.dtype)

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        """A box for each layer and direction."""
        width = self.input_size
        for k in range(self.num_layers):
            ends = []
            for d in self.directions:
                weights = sum(getattr(self, f"{p}_l{k}{d}").size for p in self.layout)
                ends.append(into.recurrent([f"{title_of(name, self)} l{k}{d}",
                                            f"{width} → {self.widths['h']}, state {', '.join(self.cell.states)}",
                                            f"{weights:,} parameters"], reads, self.reverse or d == "_reverse",
                                           self.cell, type(self).__name__ + f" {k + 1}" * (self.num_layers > 1),
                                           part=f"l{k}{d}"))
            reads = ends if len(ends) == 1 else [into.box(["concat"], ends, "op")]
            width = self.widths["h"] * len(self.directions)
        return reads

    def backwards(self, rng: Seed = None) -> Module:
        """A layer of the same kind, with parameters of its own, that reads from the other end."""
        try:
            return type(self)(**{**self.config(), "reverse": not self.reverse, "rng": rng})
        except TypeError as error:
            raise ArgumentError(f"{type(self).__name__} cannot be built a second time from its options ({error}); wrap a layer "
                                "of tinyrnn itself") from None

    def cell_weights(self, where: str) -> dict[str, Node]:
        """The cell's own parameters as rows of the packed ones; biases that are left out are zero."""
        width = getattr(self, f"weight_ih_{where}").shape[-1]
        shapes = self.cell.shapes(self._sizes(width))
        found: dict[str, Node] = {p: full(0, shape, self.dtype) for p, shape in shapes.items()}
        for name, rows in self.layout.items():
            packed, start = getattr(self, f"{name}_{where}").source(), 0
            for p in rows:
                found[p] = packed[start : start + shapes[p][0]]
                start += shapes[p][0]
        return found

    def cell_values(self, where: str = "l0") -> dict[str, Any]:
        """The weights of one layer under the cell's own names, as arrays; `where` is `l0`, `l0_reverse`, `l1`, ..."""
        known = [f"l{k}{d}" for k in range(self.num_layers) for d in self.directions]
        if where not in known:
            raise ArgumentError(f"there is no layer {where!r}; the layers are {', '.join(known)}")
        return {p: Tensor(n).numpy() for p, n in self.cell_weights(where).items()}

    def __call__(self, x: TensorLike, state: State = None, lengths: Any = None, mask: Any = None) -> tuple[Tensor, State]:
        if np.ndim(x) == 2:
            return self._without_batch(x, state, lengths, mask)
        y = sequence(x, self.dtype, (self.input_size,), "x", not self.batch_first)
        steps, batch = y.shape[:2]
        valid = time_mask(steps, batch, lengths, mask, not self.batch_first)
        given = self._split_state(state, batch)
        finals: list[list[Node]] = []
        for k in range(self.num_layers):
            y = self._drop(y) if k else y
            sides = []
            for d, suffix in enumerate(self.directions):
                where = f"l{k}{suffix}"
                final, trace = self.noise.scan(  # without noise, the cell's own scan
                    self.training, self._begun(given[len(finals)], where, batch), [y], self.cell_weights(where), self.rng,
                    mask=valid, reverse=self.reverse or d == 1, steps=steps, path=where,
                    memory=self.memory)
                finals.append(final)
                sides.append(trace["h"])
            y = sides[0] if len(sides) == 1 else join(sides, -1)
        return Tensor(swap(y) if self.batch_first else y), self._join_state(finals)

    @property
    def reads_back(self) -> bool:
        return self.bidirectional or self.reverse

    def ended(self, x: TensorLike, state: State = None, lengths: Any = None, mask: Any = None) -> tuple[Tensor, State]:
        """The output at the last step that each direction reads, as a sequence of one step, and the state."""
        y, after = self(x, state, lengths, mask)
        if not self.bidirectional:
            return end_of(y, lengths, mask, self.reverse), after
        width = self.widths["h"]
        return concat([end_of(y[..., :width], lengths, mask, False), end_of(y[..., width:], lengths, mask, True)]), after

    def _without_batch(self, x: TensorLike, state: State, lengths: Any, mask: Any) -> tuple[Tensor, State]:
        refuse_single(type(self).__name__, x)
        axis = 0 if self.batch_first else 1
        begun = tuple(one_row(s, 1) for s in state) if isinstance(state, (tuple, list)) else (
            None if state is None else one_row(state, 1))
        y, after = self(one_row(x, axis), begun, *single_rows(lengths, mask, axis))
        return only_row(y, axis), tuple(only_row(s, 1) for s in after) if isinstance(after, tuple) else only_row(after, 1)

    def _drop(self, y: Node) -> Node:
        if not self.training or not self.dropout:
            return y
        return dropped(Tensor(y), self.dropout, self.rng, y.shape).node

    def step(self, x: TensorLike, state: State = None) -> tuple[Tensor, State]:
        """One time step, for streams: x [B, X]; needs a single direction.  See `Recurrent.step` for evaluation mode."""
        found = by_program(self, x, state)
        return self.stepped(x, state) if found is None else found

    def stepped(self, x: TensorLike, state: State = None) -> tuple[Tensor, State]:
        """A step as a graph."""
        if self.bidirectional or self.reverse:
            raise ArgumentError(f"a {'bidirectional' if self.bidirectional else 'reversed'} layer reads the future and cannot "
                                "be run step by step")
        y = cast(x, self.dtype).source()
        if y.ndim != 2 or y.shape[1] != self.input_size:
            raise ShapeError(f"one step takes x of shape [B, {self.input_size}], got {show(y.shape)}")
        batch, given, finals = y.shape[0], self._split_state(state, y.shape[0]), []
        for k in range(self.num_layers):
            y = self._drop(y) if k else y
            new, signals = self.noise.step(self.training, self._begun(given[k], f"l{k}", batch), [y],
                                           self.cell_weights(f"l{k}"), self.rng)
            finals.append(new)
            y = signals["h"]
        after = self._join_state(finals)
        if self.training:
            return Tensor(y), after
        out, *values = detached([Tensor(y), *(after if isinstance(after, tuple) else (after,))])
        return out, tuple(values) if isinstance(after, tuple) else values[0]

    def _begun(self, given: Start, where: str, batch: int) -> list[Node]:
        """The state before the first step: as given, as learned, or zero."""
        def start(name: str) -> Node:
            learned: Tensor | None = getattr(self, f"{name}0_{where}", None)
            shape = (batch, self.widths[name])
            return full(0, shape, self.dtype) if learned is None else broadcast_to(learned.source(), shape)

        return [start(name) if node is None else node for name, node in zip(self.cell.states, given, strict=True)]

    def _split_state(self, state: State, batch: int) -> list[Start]:
        """[layers x directions, B, H] (LSTM: a pair of them) as the state of each scan."""
        n, names = self.num_layers * len(self.directions), self.cell.states
        if state is None:
            return [[None for _ in names] for _ in range(n)]
        many = isinstance(state, (tuple, list)) and len(names) > 1
        tensors = [cast(s, self.dtype) for s in (tuple(state) if many else (state,))]
        expected = [(n, batch, self.widths[s]) for s in names]
        if [extents(t) for t in tensors] != expected:
            wanted = " and ".join(f"{s} {show(shape)}" for s, shape in zip(names, expected, strict=True))
            raise ShapeError(f"the state is {wanted}; got {', '.join(show(t.shape) for t in tensors)}")
        return [[take(t.source(), i) for t in tensors] for i in range(n)]

    def _join_state(self, finals: Sequence[Sequence[Node]]) -> State:
        joined = tuple(stack([Tensor(f[i]) for f in finals]) for i in range(len(self.cell.states)))
        return joined[0] if len(joined) == 1 else joined


@loadable
class RNN(Packed):
    """PyTorch's nn.RNN: `h[t] = tanh(W_ih x[t] + b_ih + W_hh h[t-1] + b_hh)`, y [B, T, H], state [layers, B, H].

    `nonlinearity` is tanh, relu, or any other function of the equation language.  Further options: see `Packed`.

    Raises `ShapeError` for inputs and states that do not fit, and `ArgumentError` for options that do not go together.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> y, h = tr.nn.RNN(3, 4, nonlinearity="relu", rng=0)(np.ones((2, 5, 3)))
    >>> y.shape, h.shape
    ((2, 5, 4), (1, 2, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: str = "tanh", **options: Any) -> None:
        base = get("RNN")
        cell = base if nonlinearity == "tanh" else Cell(
            base.canonical_text().replace("tanh(", f"{nonlinearity}("), f"rnn_{nonlinearity}")
        self.nonlinearity = nonlinearity
        super().__init__(cell, "h", input_size, hidden_size, **options)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "nonlinearity": self.nonlinearity}


@loadable
class LSTM(Packed):
    """PyTorch's nn.LSTM: gates i, f, g, o; `y, (h, c) = layer(x)`, y [B, T, H], h and c [layers, B, H].

    Hochreiter & Schmidhuber, 1997; Gers et al., 2000.  Options, each an edit of the equations (`layer.cell` shows them):

        forget_bias   added to the forget gate's bias at the start (Jozefowicz et al., 2015)
        chrono        forget biases start at log of 1 to chrono - 1, input biases at minus that: units with memories of
                      different length up to about `chrono` steps (Tallec & Ollivier, 2018)
        proj_size     h is a projection of that size of the cell's output (Sak et al., 2014): `weight_hr`
        peephole      gates see c: `peephole` holds p_i, p_f, p_o (Gers et al., 2002)
        coupled       i = 1 - f, and packed arrays hold f, g, o (Greff et al., 2017)
        layer_norm    each product and c are normalised: `gain_ih`, `gain_hh`, `gain_c`, `bias_c` (Ba et al., 2016)
        clip          inputs of sigmoid and tanh are cut to [-clip, clip] (as in ONNX)
        cell_clip     c is cut to [-cell_clip, cell_clip]

    Further options: see `Packed`.

    Raises `ShapeError` for inputs and states that do not fit, and `ArgumentError` for options that do not go together.

    >>> import tinyrnn as tr
    >>> y, (h, c) = tr.nn.LSTM(3, 4, num_layers=2, bidirectional=True, rng=0)(np.ones((2, 5, 3)))
    >>> y.shape, h.shape, c.shape
    ((2, 5, 8), (4, 2, 4), (4, 2, 4))
    """

    patterns: ClassVar[Mapping[str, str]] = {
        **Packed.patterns, "gain_ih": "s_i{}", "gain_hh": "s_h{}", "gain_c": "s_c", "bias_c": "b_c", "peephole": "p_{}",
        "weight_hr": "W_hr"}

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 0.0, chrono: int | None = None,
                 proj_size: int = 0, peephole: bool = False, coupled: bool = False, layer_norm: bool = False,
                 clip: float | None = None, cell_clip: float | None = None, **options: Any) -> None:
        for name, value in (("clip", clip), ("cell_clip", cell_clip)):
            if value is not None and not value > 0:
                raise ArgumentError(f"{name}={value!r}: expected a positive number")
        clip, cell_clip = (None if value is None else float(value) for value in (clip, cell_clip))
        if proj_size and not 0 < checked_count("proj_size", proj_size) < hidden_size:
            raise ArgumentError(f"proj_size={proj_size}: expected less than hidden_size={hidden_size}")
        if chrono is not None and checked_count("chrono", chrono) < 3:
            raise ArgumentError(f"chrono={chrono}: expected the length of the longest memory, from 3 steps")
        self.forget_bias, self.chrono = forget_bias, chrono
        self.proj_size, self.peephole, self.coupled = proj_size, peephole, coupled
        self.layer_norm, self.clip, self.cell_clip = layer_norm, clip, cell_clip
        cell = lstm(peephole=peephole, coupled=coupled, projection=bool(proj_size), layer_norm=layer_norm, clip=clip,
                    cell_clip=cell_clip)
        gates = "fgo" if coupled else "ifgo"
        super().__init__(cell, gates, input_size, hidden_size, **options)
        if (chrono is not None or forget_bias) and not self.bias:
            raise ArgumentError("chrono and forget_bias set biases: leave bias=True")
        for name, t in list(self.named_parameters()):
            if name.startswith(("bias_ih", "bias_hh")):
                t.assign(self._started(gates, t.numpy(), name.startswith("bias_ih")))

    def _started(self, gates: str, bias: npt.NDArray[Any], read: bool) -> npt.NDArray[Any]:
        """A packed bias at the start: `forget_bias` and `chrono` are in those beside the input, `bias_ih`."""
        rows = dict(zip(gates, np.split(bias, len(gates)), strict=True))  # views: what is assigned to them is in `bias`
        if self.chrono is not None:
            memory = np.log(self.rng.uniform(1, self.chrono - 1, self.hidden_size)) if read else np.zeros(self.hidden_size)
            for gate, value in (("f", memory), ("i", -memory)):
                if gate in rows:
                    rows[gate][:] = value
        rows["f"] += self.forget_bias if read else 0
        return bias

    def _sizes(self, width: int) -> dict[str, int]:
        sizes = {"x": width, "h": self.proj_size or self.hidden_size, "c": self.hidden_size}
        return {name: sizes[name] for name in self.cell.sizes}

    def config(self) -> dict[str, Any]:
        return {**super().config(), "forget_bias": self.forget_bias, "chrono": self.chrono,
                "proj_size": self.proj_size, "peephole": self.peephole,
                "coupled": self.coupled, "layer_norm": self.layer_norm, "clip": self.clip, "cell_clip": self.cell_clip}


@loadable
class GRU(Packed):
    """PyTorch's nn.GRU: gates r, z, n; y [B, T, H], state [layers, B, H].  Cho et al., 2014.

    `reset="after"` (PyTorch, cuDNN) multiplies the product by r, `reset="before"` (the paper's third version, ONNX) the
    state.  `update="old"` (PyTorch) lets z weigh the old state, `update="new"` (lecture notes) the candidate.  All but
    PyTorch's own form have one bias a gate, `bias_ih`.  Further options: see `Packed`.

    Raises `ShapeError` for inputs and states that do not fit, and `ArgumentError` for options that do not go together.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> y, h = tr.nn.GRU(3, 4, reset="before", rng=0)(np.ones((2, 5, 3)), lengths=[5, 2])
    >>> y.shape, h.shape
    ((2, 5, 4), (1, 2, 4))
    """

    cells: ClassVar[Mapping[tuple[str, str], str]] = {
        ("after", "old"): "gru", ("before", "old"): "gru_reset_before",
        ("after", "new"): "gru_lecture", ("before", "new"): "gru_lecture_reset_before"}

    def __init__(self, input_size: int, hidden_size: int, *, reset: str = "after", update: str = "old", **options: Any) -> None:
        if (reset, update) not in self.cells:
            raise ArgumentError(f"reset={reset!r}, update={update!r}: expected 'after' or 'before', and 'old' or 'new'")
        self.reset, self.update = reset, update
        super().__init__(get(self.cells[reset, update]), "rzn", input_size, hidden_size, **options)

    @property
    def patterns(self) -> Mapping[str, str]:  # type: ignore[override]  # one of two tables, by the equations chosen
        own = (self.reset, self.update) == ("after", "old")
        return Packed.patterns if own else {"weight_ih": "W_{}", "weight_hh": "U_{}", "bias_ih": "b_{}"}

    def config(self) -> dict[str, Any]:
        return {**super().config(), "reset": self.reset, "update": self.update}
