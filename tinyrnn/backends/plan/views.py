"""The kernel plan: a graph as calls of kernels over views of buffers, with loops over time.

It is what a backend emits code from, and it prints as pseudo-code.  A kernel is named by its structure alone; every
size, stride and number is an argument of its call, so that other lengths, batches and widths run the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import BackendError
from ...ir.node import DType, Node
from ...ir.sized import sized_input
from ...shapes import Shape
from ...sizes import AnySize, evaluated, is_symbolic


class UnsupportedError(BackendError):
    """A graph holds something for which no kernel exists; the message says what."""


Role = Literal["input", "leaf", "output", "literal", "note", "kept", "temporary"]
"""`kept`: made of leaves and numbers alone, and good for as long as the data of the leaves are the same."""


COUNTING = "0, 1, 2, ..."
"""The numbers of a literal whose size is known only when a program runs."""


@dataclass(eq=False, slots=True)
class Buffer:
    """A row of numbers in memory."""

    name: str
    size: int
    dtype: DType
    role: Role
    source: Any = None  # the array of a literal, or how to make one: a size, `COUNTING`; the node of a leaf or an input

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, eq=False, slots=True)
class View:
    """Entries of a buffer: entry i of axis a lies `i * strides[a]` after the offset; a loop's turn t adds `t * step`."""

    buffer: Buffer
    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0
    step: int = 0

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype

    @property
    def contiguous(self) -> bool:
        return self.strides == row_major(self.shape) or 0 in self.shape

    def transposed(self, order: Sequence[int]) -> View:
        return replace(self, shape=tuple(self.shape[i] for i in order), strides=tuple(self.strides[i] for i in order))

    def sliced(self, parts: Sequence[tuple[int, int, int]]) -> View:
        start = sum(first * s for (first, _, _), s in zip(parts, self.strides, strict=True))
        return replace(self, shape=tuple(n for _, n, _ in parts), offset=self.offset + start,
                       strides=tuple(by * s for (_, _, by), s in zip(parts, self.strides, strict=True)))

    def taken(self, t: int) -> View:
        return replace(self, shape=self.shape[1:], strides=self.strides[1:], offset=self.offset + t * self.strides[0])

    def turned(self) -> View:
        """The first axis as the turns of a loop."""
        return replace(self, shape=self.shape[1:], strides=self.strides[1:], step=self.strides[0])

    def broadcast(self, to: Shape) -> View:
        extra = len(to) - len(self.shape)
        if extra < 0 or any(n not in (1, m) for n, m in zip(self.shape, to[extra:], strict=True)):
            raise AssertionError(f"{self.shape} does not broadcast to {to}")
        strides = tuple(0 if n == 1 != m else s for n, m, s in zip(self.shape, to[extra:], self.strides, strict=True))
        return replace(self, shape=to, strides=(0,) * extra + strides)

    def reshaped(self, to: Shape) -> View | None:
        """The same entries under another shape, where their strides allow it."""
        if 0 in to:
            return replace(self, shape=to, strides=row_major(to))
        groups = _groups(self.shape, self.strides)
        strides: list[int] = []
        rest = list(to)
        for size, stride in groups:
            taken: list[int] = []
            while rest and prod(taken) < size:
                taken.append(rest.pop(0))
            if prod(taken) != size:
                return None
            strides += [stride * s for s in row_major(tuple(taken))]
        strides += [1] * len(rest)
        return replace(self, shape=to, strides=tuple(strides)) if all(n == 1 for n in rest) else None

    def __str__(self) -> str:
        """The buffer, and where in it: a multiple of the loop's turn, an offset."""
        if self.buffer.role == "literal" and not self.shape:
            return self.buffer.name
        place = [*(["t"] if self.step else []), *([f"+{self.offset}"] if self.offset else [])]
        return f"{self.buffer.name}[{' '.join(place)}]" if place else self.buffer.name


def row_major(shape: Shape) -> tuple[int, ...]:
    """The strides of an array without gaps, last axis fastest."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def _groups(shape: Shape, strides: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of axes that lie in memory like one: (entries, stride of the last)."""
    groups: list[tuple[int, int]] = []
    for n, s in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if groups and groups[-1][1] == n * s:
            groups[-1] = (groups[-1][0] * n, s)
        else:
            groups.append((n, s))
    return groups


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One kernel on given operands.

    `family` and `key` say which code; `sizes` are its whole numbers; work may be split along `extent`, in multiples of
    `grain`, where one unit moves operand i by `splits[i]` entries.  `writes` are the operands that it fills.
    """

    family: str
    key: tuple[Any, ...]
    operands: tuple[View, ...]
    writes: frozenset[int]
    sizes: tuple[int, ...]
    extent: int
    splits: tuple[int, ...]
    grain: int = 1
    flops: int = 0
    words: str = ""  # pseudo-code with numbers for operands, "{2} = {0} @ {1}"; a kernel of rows has none
    scratch: int = 0  # bytes that each thread needs for itself
    names: Mapping[int, str] = field(default_factory=dict)  # of values inside, as the equations call them

    @property
    def bytes(self) -> int:
        return sum(prod(v.shape) * v.dtype.itemsize for v in self.operands)

    @property
    def text(self) -> str:
        """Pseudo-code of a kernel that is no kernel of rows."""
        return self.words.format(*self.operands, sizes=self.sizes)

    def lines(self, indent: str, inside: Callable[[Call], list[str]]) -> Iterator[str]:
        """Pseudo-code; `inside` says what a kernel of rows computes."""
        if self.text:
            yield indent + self.text
            return
        yield f"{indent}for rows of {' x '.join(map(str, self.shape))}:"
        yield from (f"{indent}    {line}" for line in inside(self))

    @property
    def shape(self) -> Shape:
        """The space of indices that a kernel of rows walks."""
        return max((v.shape for v in self.operands), key=lambda s: (len(s), prod(s)))


@dataclass(eq=False, slots=True)
class Loop:
    """Calls for every turn of time; `rows` is the extent along which all of them may be split alike, if they may."""

    steps: int
    reverse: bool
    calls: list[Call] = field(default_factory=list)
    rows: int | None = None

    @property
    def flops(self) -> int:
        return self.steps * sum(c.flops for c in self.calls)

    def lines(self, indent: str, inside: Callable[[Call], list[str]]) -> Iterator[str]:
        order = "T..1" if self.reverse else "1..T"
        yield f"{indent}for t in {order}:" + ("" if self.rows is None else "   # batch rows in parallel")
        for c in self.calls:
            yield from c.lines(indent + "    ", inside)


@dataclass(eq=False, slots=True)
class Plan:
    """What to run, in order, and where the results lie."""

    items: list[Call | Loop]
    buffers: list[Buffer]
    outputs: dict[str, View]
    given: list[Buffer]
    note: Buffer  # where kernels say what went wrong
    prepared: int  # how many items, at the front, fill what is kept

    @property
    def open(self) -> bool:
        """Whether sizes of the buffers, or numbers that follow from sizes, are not known yet."""
        return is_symbolic(b.size for b in self.buffers) or any(map(is_open, self.buffers))

    def at(self, values: Mapping[str, int]) -> Plan:
        """The plan for given values of the symbols in its sizes."""
        if not values:
            return self
        buffers = {b: _buffer_at(b, values) for b in self.buffers}

        def view(v: View) -> View:
            return View(buffers[v.buffer], *(evaluated(n, values) for n in (v.shape, v.strides, v.offset, v.step)))

        def call(c: Call) -> Call:
            sizes, extent, splits, flops, scratch = (
                evaluated(n, values) for n in (c.sizes, c.extent, c.splits, c.flops, c.scratch))
            return replace(c, operands=tuple(map(view, c.operands)), sizes=sizes, extent=extent, splits=splits, flops=flops,
                           scratch=scratch)

        items = [call(item) if isinstance(item, Call) else
                 Loop(evaluated(item.steps, values), item.reverse, list(map(call, item.calls)), evaluated(item.rows, values))
                 for item in self.items]
        return Plan(items, list(buffers.values()), {k: view(v) for k, v in self.outputs.items()},
                    [buffers[b] for b in self.given], buffers[self.note], self.prepared)

    def calls(self) -> Iterator[Call]:
        for item in self.items:
            yield from item.calls if isinstance(item, Loop) else [item]

    @property
    def flops(self) -> int:
        return sum(item.flops for item in self.items)

    def pseudo_code(self, inside: Callable[[Call], list[str]]) -> str:
        """Every kernel and loop in the order in which they run."""
        return "\n".join(line for item in self.items for line in item.lines("", inside))


def is_open(b: Buffer) -> bool:
    """Whether the numbers of a literal follow from sizes that are not known yet."""
    return b.source is COUNTING or isinstance(b.source, AnySize)


def literal_array(b: Buffer, values: Mapping[str, int]) -> npt.NDArray[Any]:
    """The numbers of a literal."""
    if b.source is COUNTING:
        return np.arange(evaluated(b.size, values), dtype=b.dtype)
    return np.ascontiguousarray(evaluated(b.source, values), b.dtype)


def _buffer_at(b: Buffer, values: Mapping[str, int]) -> Buffer:
    """A buffer for given sizes, its numbers with it where they follow from them."""
    source = sized_input(b.source, values) if b.role == "input" else literal_array(b, values) if is_open(b) else b.source
    name = f"{evaluated(b.source, values):g}" if isinstance(b.source, AnySize) else b.name
    return Buffer(name, evaluated(b.size, values), b.dtype, b.role, source)


# ---- what makers of calls ask of whoever plans

class Storage(Protocol):
    """Where buffers come from."""

    note: View

    def temporary(self, shape: Shape, dtype: DType) -> View:
        """Room for a value on the way."""

    def array(self, name: str, array: npt.NDArray[Any]) -> View:
        """Numbers that are part of the program."""

    def number(self, value: object, dtype: DType) -> View:
        """One number."""

    def size(self, value: AnySize, dtype: DType) -> View:
        """A size as a number."""


class Scope(Protocol):
    """The top of a graph, or the body of a loop: which value stands where, and the calls so far."""

    env: dict[Node, View]
    items: list[Any]
    packs: dict[Any, View]
    foreign: set[Buffer]
    written: set[Buffer]
    results: Sequence[Node]

    @property
    def planner(self) -> Storage:
        """Where buffers come from."""

    @property
    def outer(self) -> Scope | None:
        """The scope around a loop's body."""

    @property
    def filled(self) -> MutableMapping[Node, list[View]]:
        """Every place in which a value stands."""

    @property
    def readers(self) -> MutableMapping[Node, list[Node]]:
        """The projections of scans and regions."""

    def inside(self) -> Scope:
        """The body of a loop in this scope."""

    def beside(self) -> Scope:
        """A scope of its own names whose calls join this one's."""

    def home_of(self, x: View) -> Scope:
        """The outermost scope in which a view is there and does not change."""

    def request(self, n: Node, view: View) -> None:
        """A place in which a value should stand."""

    def deliver(self, n: Node, view: View) -> None:
        """See to it that a request is met."""

    def homes_of(self, n: Node) -> list[View]:
        """The places in which a value may live."""

    def place(self, n: Node, fits: Callable[[View], bool] | None = None) -> tuple[View, list[View]]:
        """Where a kernel writes a value, and where copies are wanted as well."""

    def finish(self, n: Node, main: View, others: Iterable[View]) -> None:
        """A value is there; copies for whoever wants it elsewhere, too."""

    def run(self, order: Sequence[Node]) -> None:
        """Plan nodes, sources first."""

    def add(self, call: Call) -> None:
        """A call at the end."""

    def copy(self, source: View, target: View) -> None:
        """`target = source`, entry by entry."""

    def contiguous(self, x: View) -> View:
        """The same numbers without gaps."""

    def needed_later(self, buffer: Buffer, after: Node) -> bool:
        """Whether anything that runs after a node reads a buffer."""

    def forget(self, buffer: Buffer) -> None:
        """A buffer will hold something else."""
