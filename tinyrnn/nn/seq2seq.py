"""Sequence to sequence: an encoder, a decoder that may look back at what was read, and generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..backends import on_host
from ..cells import Cell, get
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ir.node import Node
from ..ir.ops.elementwise import tag
from ..ir.ops.leaves import full
from ..serve.kept import served
from ..shapes import checked_count, show
from ..tensor.functional import argmax, tanh, where
from ..tensor.masks import check_lengths, valid_steps
from ..tensor.randomness import keep_mask
from ..tensor.rearrange import concat, gather, one_hot
from ..tensor.tensor import Tensor, TensorLike, as_tensor, extents
from ..tensor.transforms import scan
from ..train import History
from ..train.data import is_ragged, pad_rows
from ..train.generate import check_sampling, draw
from ..types import Seed
from ..viz.wiring import ENDS, Wiring, count_of, joined, title_of
from .attention import Attention
from .bidirectional import Bidirectional
from .layers import Embedding, Linear
from .module import Module, loadable
from .recurrent import Recurrent, swap

Array = npt.NDArray[Any]


class Memory(NamedTuple):
    """What the encoder hands to the decoder."""

    outputs: Any  # [B, S, M]
    keys: Any     # [B, S, Q], with attention
    valid: Any    # bool [B, S], where lengths are known
    state: Any    # the decoder's first state, for each layer a list


@loadable
class EncoderDecoder(Module):
    """Sequences of tokens to other sequences of tokens (Sutskever, Vinyals & Le, 2014).

    `logits = model(source, target, lengths=None)`: source [B, S], target [B, T] ends with `stop`; the decoder reads
    `start` and then the target one step late, logits [B, T, target_size].  `lengths` is a pair.  `fit(source, target)`,
    `evaluate` alike; `generate(source, steps)` reads its own tokens.

    The encoder runs any cell of one input size and one state size, in both directions unless `bidirectional=False`;
    the decoder's layers start from `tanh(W s + b)` of the encoder's last states.  `attention` is "bahdanau", "dot" or
    None.  With `teacher_forcing` below 1 each token that is read in training is the decoder's own with probability
    `1 - teacher_forcing` (Bengio et al., 2015).  `dropout` blanks units of the embeddings, the same at every step.

    Raises `ArgumentError` for options out of range and for a cell with several inputs or outputs, `ShapeError` and
    `DTypeError` for what are no rows of tokens.

    >>> import tinyrnn as tr
    >>> model = tr.nn.EncoderDecoder(12, 9, 16, attention="bahdanau", rng=0)
    >>> model(np.ones((2, 5), int), np.ones((2, 3), int)).shape
    (2, 3, 9)
    >>> model.generate(np.ones((2, 5), int), 4).shape
    (2, 4)
    """

    def __init__(self, source_size: int, target_size: int, hidden_size: int, *, embedding_size: int | None = None,
                 cell: Cell | str = "gru", num_layers: int = 1, bidirectional: bool = True, attention: str | None = None,
                 dropout: float = 0.0, teacher_forcing: float = 1.0, start: int = 0, stop: int = 0,
                 dtype: npt.DTypeLike = "float32", rng: Seed = None) -> None:
        self.cell: Cell = get(cell) if isinstance(cell, str) else cell
        width = checked_count("embedding_size", embedding_size) if embedding_size is not None else hidden_size
        if not 0 <= teacher_forcing <= 1 or not 0 <= dropout < 1:
            raise ArgumentError(f"teacher_forcing={teacher_forcing!r}, dropout={dropout!r}: expected shares from 0 to 1")
        if not 0 <= start < checked_count("target_size", target_size) or not 0 <= stop < target_size:
            raise ArgumentError(f"start={start!r}, stop={stop!r}: expected tokens from 0 to {target_size - 1}")
        self.sizes = {"source_size": source_size, "target_size": target_size, "hidden_size": hidden_size,
                      "embedding_size": width}
        self.num_layers, self.bidirectional = checked_count("num_layers", num_layers), bidirectional
        self.dropout, self.teacher_forcing, self.start, self.stop = dropout, teacher_forcing, start, stop
        self.rng, self.dtype = np.random.default_rng(rng), np.dtype(dtype)
        memory = hidden_size * (1 + bidirectional)
        self.source_embedding = Embedding(source_size, width, dtype=dtype, rng=self.rng)
        self.target_embedding = Embedding(target_size, width, dtype=dtype, rng=self.rng)
        self.attention = None if attention is None else Attention(attention, hidden_size, memory, dtype=dtype, rng=self.rng)
        self.encoder = [self._reader(width if k == 0 else memory) for k in range(num_layers)]
        context = memory if self.attention is not None else 0
        self.decoder = [self._layer(width + context if k == 0 else hidden_size) for k in range(num_layers)]
        self.bridge = [[Linear(memory, hidden_size, dtype=dtype, rng=self.rng) for _ in self.cell.states] for _ in self.decoder]
        self.out = Linear(hidden_size + context, target_size, dtype=dtype, rng=self.rng)

    def _layer(self, width: int) -> Recurrent:
        cell = self.cell
        alone = [n for n, _ in cell.slots] == list(cell.states)
        if not alone or (len(cell.inputs), len(cell.sizes), len(cell.outputs)) != (1, 2, 1):
            raise ArgumentError("EncoderDecoder needs a cell of one input, one output, one input size and one state size, that "
                                f"remembers its states alone, one step back; got {cell!r} with sizes {', '.join(cell.sizes)}")
        reads = cell.signals[cell.inputs[0]][0]
        sizes = {s: width if s == reads else self.sizes["hidden_size"] for s in cell.sizes}
        return Recurrent(cell, sizes, dtype=self.dtype, rng=self.rng)

    def _reader(self, width: int) -> Module:
        layer = self._layer(width)
        return Bidirectional(layer, rng=self.rng) if self.bidirectional else layer

    def config(self) -> dict[str, Any]:
        return {**self.sizes, "text": self.cell.text, "name": self.cell.name, "num_layers": self.num_layers,
                "bidirectional": self.bidirectional, "attention": None if self.attention is None else self.attention.kind,
                "dropout": self.dropout, "teacher_forcing": self.teacher_forcing, "start": self.start, "stop": self.stop,
                "dtype": self.dtype.name}

    @classmethod
    def built(cls, config: dict[str, Any]) -> Module:
        return cls(cell=Cell(config.pop("text"), config.pop("name")), **config)

    def example(self, batch: int, *steps: int) -> Any:
        """A pair: source and target tokens."""
        if len(steps) != 2:
            raise ArgumentError("EncoderDecoder has two lengths: leaks(model, (source lengths, target lengths))")
        return tuple(e.example(batch, n) for e, n in zip((self.source_embedding, self.target_embedding), steps, strict=True))

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        """Encoder, bridges of the last states, decoder, and the attention that looks back."""
        target = into.box(["target, one step late"], [], "input", symbol="y*ₜ₋₁", first="start")
        y = into.add(self.source_embedding, joined(name, "source_embedding"), reads)
        z = into.add(self.target_embedding, joined(name, "target_embedding"), [target])
        into.boxes[z[0]].time_first = True
        states: list[str] = []
        for k, layer in enumerate(self.encoder):
            y = into.add(layer, joined(name, f"encoder.{k}"), y)
            ends = into.boxes[y[0]].reads if into.boxes[y[0]].fill == "op" else y
            size = sum(t.size for bridge in self.bridge[k] for t in bridge.parameters())
            states.append(into.box([f"bridge {k}: last states", "tanh(W s + b)", f"{size:,} parameters"], ends, "function",
                                   time=ENDS, label="bridge"))
        a = self.attention
        context = [] if a is None else [into.box([title_of(joined(name, "attention"), a), a.kind, count_of(a)], y, "loss",
                                                 follows=target)]
        for k, (layer, start) in enumerate(zip(self.decoder, states, strict=True)):
            z = into.add(layer, joined(name, f"decoder.{k}"), [*z, start, *(context if k == 0 else [])])
        into.queries += [(z[0], key) for key in context]
        return into.add(self.out, joined(name, "out"), [*z, *context])

    reads_time = True

    # ---- the two halves

    def encode(self, source: TensorLike, lengths: object = None) -> Memory:
        """What the decoder needs to know of the source."""
        y: Any = self._dropped(self.source_embedding(_tokens(source, "source")))
        rows, steps, *_ = extents(y)
        valid = valid_steps(rows, steps, lengths, None)
        state = []
        for layer, bridge in zip(self.encoder, self.bridge, strict=True):
            y, after = layer(y, lengths=lengths)
            ends = [concat(pair) for pair in zip(*after, strict=True)] if self.bidirectional else list(after)
            state.append([tanh(linear(end)) for linear, end in zip(bridge, ends, strict=True)])
        return Memory(y, None if self.attention is None else self.attention.keys(y), valid, state)

    def decode_step(self, embedded: Tensor, state: Sequence[Sequence[Tensor]], memory: Memory) -> tuple[Any, Tensor, Any]:
        """One token further: the new state, the logits [B, V], and where the decoder looked [B, S]."""
        context, weights = None, None
        if self.attention is not None:
            query = state[-1][list(self.cell.states).index(self._output())]
            context, weights = self.attention(query, memory.keys, memory.outputs, memory.valid)
        y, after = embedded if context is None else concat([embedded, context]), []
        for k, (layer, own) in enumerate(zip(self.decoder, state, strict=True)):
            new, signals = self.cell.step([s.source() for s in own], [y.source()],
                                          {p: t.source() for p, t in layer.weights.items()},
                                          partial(_named, f"decoder.{k}"))
            after.append([Tensor(n) for n in new])
            y = Tensor(signals[self.cell.outputs[0]])
        return after, self.out(y if context is None else concat([y, context])), weights

    def _output(self) -> str:
        """The state that asks: the cell's output where that is a state, else its first state."""
        return self.cell.outputs[0] if self.cell.outputs[0] in self.cell.states else self.cell.states[0]

    def _dropped(self, y: Tensor) -> Tensor:
        return y if not self.training or not self.dropout else y * self._kept((extents(y)[0], 1, y.shape[2]))

    def _kept(self, shape: tuple[int, ...]) -> Tensor:
        kept = keep_mask(shape, 1 - self.dropout, self.rng)
        return where(kept, 1 / (1 - self.dropout), 0.0).astype(self.dtype)

    def __call__(self, source: TensorLike, target: TensorLike, lengths: object = None) -> Tensor:
        return self._decode(source, target, lengths)[0]

    def _decode(self, source: TensorLike, target: TensorLike, lengths: object) -> tuple[Tensor, Tensor | None]:
        """Logits [B, T, V] and where the decoder looked [B, T, S]."""
        memory = self.encode(source, lengths[0] if isinstance(lengths, tuple) else lengths)
        wanted = _tokens(target, "target")
        rows, steps = extents(wanted)
        if rows != extents(memory.outputs)[0]:
            raise ShapeError(f"the source has {memory.outputs.shape[0]} rows and the target has {wanted.shape[0]}")
        begin = Tensor(full(self.start, (rows, 1), wanted.dtype))
        read = _swapped(concat([begin, wanted[:, :-1]], 1) if steps else wanted)
        noise = self._kept((rows, self.sizes["embedding_size"])) if self.training and self.dropout else None
        forced = not self.training or self.teacher_forcing == 1
        logits, looked = self._forced(memory, read, noise) if forced else self._sampled(memory, read, noise)
        return _swapped(logits), None if looked is None else _swapped(looked)

    def _forced(self, memory: Memory, read: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Every token that is read is the target's."""
        def step(state: Any, embedded: Tensor) -> tuple[Any, Any]:
            after, logits, weights = self.decode_step(embedded, state, memory)
            return after, (logits, weights)

        embedded = self.target_embedding(read)
        result: tuple[Tensor, Tensor | None] = scan(step, memory.state, embedded if noise is None else embedded * noise)[1]
        return result

    def _sampled(self, memory: Memory, read: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Some tokens that are read are the decoder's own; the first is always `start`."""
        steps, batch = extents(read)
        drawn = keep_mask((steps, batch), self.teacher_forcing, self.rng)
        first = one_hot(np.zeros(1, np.int64), steps, "float32").reshape(steps, 1) > 0

        def step(state: Any, given: Any) -> tuple[Any, Any]:
            states, said = state
            token, coin = given
            embedded = gather(self.target_embedding.weight, where(coin, token, said))
            after, logits, weights = self.decode_step(embedded if noise is None else embedded * noise, states, memory)
            return (after, argmax(logits).astype(token.dtype)), (logits, weights)

        begin = Tensor(full(self.start, (batch,), read.dtype))
        result: tuple[Tensor, Tensor | None] = scan(step, (memory.state, begin), (read, drawn | first))[1]
        return result

    # ---- use

    def fit(self, x: object, y: object, *, validation: Sequence[Any] | None = None, **options: Any) -> History:
        """Train on sources and targets [B, T] (or lists of rows); `lengths` is a pair.  Options: `tinyrnn.train.fit`."""
        held = validation
        if isinstance(held, (tuple, list)) and len(held) > 1 and not isinstance(held[0], tuple):
            held = ((held[0], held[1]), *held[1:])
        return super().fit(x if isinstance(x, tuple) else (x, y), y, validation=held, **options)

    def evaluate(self, x: object, y: object, **options: Any) -> dict[str, float]:
        """Loss and metrics when the decoder reads the targets."""
        return super().evaluate(x if isinstance(x, tuple) else (x, y), y, **options)

    def predict(self, x: object, **options: Any) -> Array | list[Array]:
        """Logits when the decoder reads the targets: x is a pair (source, target).  `generate` reads its own tokens."""
        if not isinstance(x, tuple):
            raise ArgumentError("EncoderDecoder.predict takes (source, target); what it says by itself comes from generate")
        return super().predict(x, **options)

    def attend(self, source: Any, target: Any, lengths: object = None) -> Array:
        """Where the decoder looks while it reads the target: weights [B, T, S]."""
        if self.attention is None:
            raise ArgumentError("this model has no attention: give attention='bahdanau' or 'dot'")
        if is_ragged(source) or is_ragged(target):
            (source, read), (target, said) = pad_rows(source), pad_rows(target)
            lengths = (read, said)
        program = served(self, "looked", lambda model, s, t, n: model._decode(s, t, n)[1])
        looked: Array = program(_array(source), _array(target), lengths)
        return looked

    def generate(self, prompt: Any, steps: int, *, lengths: object = None, temperature: float = 0.0,  # type: ignore[override]
                 top_k: int | None = None, rng: Seed = None) -> Array:  # (it names the options that others pass on)
        """At most `steps` tokens for every source, [B, steps]; after `stop` a row repeats it.

        `temperature=0` takes the most likely token at each step; otherwise tokens are drawn, among the `top_k` likeliest.
        """
        check_sampling(temperature, steps, top_k)
        if is_ragged(prompt):
            prompt, lengths = pad_rows(prompt)
        source, generator = _array(prompt), np.random.default_rng(rng)
        said, ended = [], np.zeros(len(source), bool)
        token = np.full(len(source), self.start)
        encode = served(self, "encode", lambda model, s, n: model.encode(s, n)._asdict())
        advance = served(self, "advance", lambda model, *given: model._advance(*given))
        memory = encode(source, None if lengths is None else check_lengths(lengths, source.shape[1], len(source)))
        state = memory.pop("state")
        for _ in range(steps):
            result = advance(token, state, memory)
            state, logits = result["state"], result["logits"]
            token = np.where(ended, self.stop, draw(logits, temperature, top_k, generator))
            ended |= token == self.stop
            said.append(token)
        return np.stack(said, 1) if said else np.zeros((len(source), 0), np.int64)

    def _advance(self, token: Tensor, state: Any, memory: Mapping[str, Any]) -> dict[str, Any]:
        after, logits, _ = self.decode_step(self.target_embedding(token), state, Memory(**memory, state=None))
        return {"state": after, "logits": logits}


def _named(layer: str, name: str, value: Node) -> Node:
    """A quantity of a layer of the decoder, under its name."""
    return tag(value, name, layer)


def _swapped(t: Tensor) -> Tensor:
    """[B, T, ...] as [T, B, ...] and back."""
    return Tensor(swap(t.source()))


def _array(tokens: object) -> Array:
    array = on_host(tokens)
    if array.ndim != 2:
        raise ShapeError(f"expected tokens [B, T], got {show(array.shape)}")
    return array


def _tokens(x: TensorLike, what: str) -> Tensor:
    """Whole numbers [B, T]."""
    t = as_tensor(x if hasattr(x, "dtype") else np.asarray(x))
    if t.dtype.kind not in "iu":
        raise DTypeError(f"the {what} holds whole numbers (tokens), got {t.dtype}")
    if t.ndim != 2:
        raise ShapeError(f"the {what} is [B, T], got {show(t.shape)}")
    return t
