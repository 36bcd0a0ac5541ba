"""The pipeline: a function of tensors becomes a graph, the passes run over it, a backend runs it."""

from __future__ import annotations

import copy
import inspect
import itertools
import time
import warnings
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import reduce
from importlib import import_module
from itertools import islice, pairwise
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from ..backends import check_backend, checked_threads, foreseen, temporaries
from ..errors import ArgumentError, BackendError, FallbackWarning, GraphError
from ..ir import Graph, check
from ..ir.check import ENABLED
from ..ir.node import without_collector
from ..ir.ops.leaves import input_node
from ..locks import ForkSafeLock
from ..passes import checkpoint, defer, fuse, hoist, merge_products, partition, simplify, split_products
from ..shapes import show
from ..trees import flatten, names_of
from .by_name import importable, looked_up, meaning
from .long_loops import suggest_scan
from .signatures import (
    OpenShapes,
    Shapes,
    UnhashableError,
    names_in,
    read,
    refused,
    resized,
    specified,
    stand_ins,
    unique,
    with_open_sizes,
)
from .specialization import Specialization, Traced
from .tensor import Tensor, as_tensor
from .tracing import Trace, tracing

if TYPE_CHECKING:
    from ..symbolic.proof.prove import Proof

FINISHING: tuple[tuple[str, Callable[[Graph], Graph]], ...] = (
    ("defer", defer), ("merge_products", merge_products), ("hoist", hoist), ("simplify", simplify), ("fuse", fuse))


def _planned_bytes(graph: Graph) -> int:
    """What the temporaries of a graph take that is to go through the passes from `defer` on."""
    return temporaries(reduce(lambda found, transform: transform[1](found), FINISHING, graph))


def _checkpoint(graph: Graph) -> Graph:
    return checkpoint(graph, _planned_bytes)


PIPELINE = (("partition", partition), ("split_products", split_products), ("checkpoint", _checkpoint), *FINISHING)

Arrays = dict[str, npt.NDArray[Any]]
NOTHING: Mapping[str, Any] = {}
MOST = 64  # signatures that one program remembers, and traces of one signature


class Cost(NamedTuple):
    """What one call takes: operations, bytes read and written by its kernels, bytes of memory for temporaries."""

    flops: int
    bytes: int
    memory: int


class Kernel(NamedTuple):
    """A kernel or a loop: what it does, operations, bytes that it touches, and seconds where it was measured."""

    what: str
    flops: int
    bytes: int
    seconds: float = 0.0


class Program:
    """A function of tensors, traced once for each signature and run by compiled kernels.

    A signature is the ranks and dtypes of the arrays among the arguments, and the value of everything else; results
    are arrays.  Sizes of time and batch are known only when the program runs: one trace serves all that the function uses
    through tensors alone, and those that it reads as numbers get traces of their own.  Parameters met while tracing stay
    parameters: their data are read at every call, and what is assigned to them is assigned at every call.
    """

    def __init__(self, function: Callable[..., Any], backend: str = "cpu", *, threads: int | None = None,
                 strict: bool = False) -> None:
        chosen = check_backend(backend)
        if not callable(function):
            raise ArgumentError(f"tr.compile takes a function of tensors, got {type(function).__name__}")
        self.function, self.backend, self.strict = function, chosen, strict
        self.lock = ForkSafeLock()
        self.threads = None if threads is None else checked_threads(threads)
        self.entries: dict[Hashable, list[Traced]] = {}
        self.latest_pair: Any = None
        self.pairs: dict[Hashable, list[Any]] = {}  # of `tr.vjp`: for each signature a program forwards and one backwards
        self._parameters = _positional(function)
        self._latest: Specialization | None = None
        self.__doc__ = function.__doc__ or type(self).__doc__
        self.__name__ = getattr(function, "__name__", "program")

    def __call__(self, *args: object, **keywords: Any) -> Any:
        entry, arrays = self._specialized(args, keywords)
        if not entry.alone:
            return entry.run(arrays, self.threads)
        with self.lock:
            return entry.run(arrays, self.threads)

    def __reduce__(self) -> Any:
        """The function and the options: a program on arrival is traced anew."""
        if meaning(self.function) is self:  # a decorated function: its name means the program
            return looked_up, (self.function.__module__, self.function.__qualname__)
        return _again, (importable(self.function), str(self.backend), self.threads, self.strict)

    def __copy__(self) -> Program:
        return _again(self.function, str(self.backend), self.threads, self.strict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return _again(copy.deepcopy(self.function, memo), str(self.backend), self.threads, self.strict)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A compiled method, bound to its object."""
        return self if instance is None else MethodType(self, instance)

    def trace(self, *args: object, **keywords: Any) -> Program:
        """Trace and compile for these arguments without running; returns the program."""
        self._specialized(args, keywords)
        return self

    def specialization(self, *args: object, **keywords: Any) -> tuple[Specialization, list[Any]]:
        """What was traced, or is now, for arguments like these, and the arrays among them."""
        return self._specialized(args, keywords)

    def traced(self, *args: object, **keywords: Any) -> tuple[Graph, dict[str, npt.NDArray[Any]]]:
        """The results as a graph, as traced for these arguments, and the arrays that it would read, by name."""
        entry, arrays = self._specialized(args, keywords)
        results = Graph({k: n for k, n in entry.stages[0][1].outputs.items() if k in entry.results})
        return results, dict(zip(entry.names, arrays, strict=True))

    # ---- what was made of it

    @property
    def stages(self) -> list[tuple[str, Graph]]:
        """The graph as traced and after each pass, for the signature seen last."""
        return self._seen().stages

    @property
    def source(self) -> str:
        """The kernels and loops that run, as pseudo-code."""
        entry = self._seen()
        return str(entry.graph) if entry.executable is None else entry.executable.source

    @property
    def kernels(self) -> list[Kernel]:
        """Every kernel and every loop in the order in which they run, for the signature seen last."""
        entry = self._seen()
        return [] if entry.executable is None else [Kernel(*k) for k in entry.executable.kernels]

    def profile(self, *args: object, **keywords: Any) -> list[Kernel]:
        """The kernels with the seconds that each took, one after the other in one thread; parameters keep their data."""
        entry, arrays = self._specialized(args, keywords)
        if entry.backend.name != "cpu":
            where = "the interpreter" if entry.executable is None else "a GPU, where NVIDIA Nsight times kernels"
            raise BackendError(f"a profile needs compiled kernels of the CPU; this program runs on {where}")
        return [Kernel(*k) for k in entry.profile(arrays)]

    @property
    def cost(self) -> Cost:
        """What a call takes, for the signature seen last."""
        entry = self._seen()
        if entry.executable is not None:
            return Cost(*entry.executable.cost)
        sizes = [n.dtype.itemsize * int(np.prod(n.shape, dtype=np.int64)) for n in entry.graph.nodes]
        return Cost(sum(n.op.flops(n) for n in entry.graph.nodes), 2 * sum(sizes), sum(sizes))

    def prove(self, *, rng: int | np.random.Generator | None = None) -> Proof:
        """Every pass kept every value, in each signature that was traced, and what was compiled computes it.

        Passes are proved in the field.  The plan of kernels and memory is replayed; then the kernels run on random
        numbers, at the sizes that were traced and at others that the function takes, against the graph as traced, within
        rounding.  For other sizes the function is called again, as it was to trace it.  Raises `ProofError` where anything
        differs.
        """
        began, entries = time.perf_counter(), [e for found in self.entries.values() for traced in found for e in traced.made]
        if not entries:
            raise ArgumentError("nothing was traced yet: call the program once, then prove it")
        pairs = [(f"{name} {i}", before, after) for i, entry in enumerate(entries, 1)
                 for (_, before), (name, after) in pairwise(entry.stages)]
        prover = import_module("tinyrnn.symbolic.proof.prove")  # loaded on first use: most programs are never proved
        proof: Proof = prover.equal_graphs("program", pairs, prover.run_seed(rng), began)
        cases = [c for i, entry in enumerate(entries, 1) for c in self._compiled_cases(str(i), entry, proof.seed)]
        return replace(proof, cases=(*proof.cases, *cases), seconds=time.perf_counter() - began)

    def _compiled_cases(self, what: str, entry: Specialization, seed: int) -> list[Any]:
        """The checks of what was compiled for an entry, and of its kernels at other sizes."""
        kernels = import_module("tinyrnn.symbolic.proof.compiled")
        if entry.executable is None:
            return []
        cases = [kernels.plan_case(what, entry.graph, entry.executable.plan)]
        if entry.backend.name != "cpu":
            return cases
        cases.append(entry.kernels_case(what, seed))
        for other in self._at_other_sizes(entry):
            cases += [kernels.plan_case(what, other.graph, other.executable.plan), other.kernels_case(what, seed)]
        return cases

    def _at_other_sizes(self, entry: Specialization) -> Iterator[Specialization]:
        """The same function where one size is larger by one, 1, or 0, in all arguments that have it; sizes that the
        function refuses, or that were traced before, are left out."""
        seen = {entry.sizes}
        for old, new in ((n, m) for n in sorted(set(entry.sizes)) for m in (n + 1, 1, 0)):
            sizes = tuple(new if n == old else n for n in entry.sizes)
            if sizes in seen:
                continue
            seen.add(sizes)
            args, keywords = resized(entry.arguments, iter(sizes))
            key, arrays = self.signature(args, keywords)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FallbackWarning)
                try:
                    other = self._found(key, args, keywords, tuple([a.shape for a in arrays]), remember=False)
                except Exception:  # a function may say anything of sizes that it was not written for
                    continue
            if other.executable is not None:
                yield other

    def _seen(self) -> Specialization:
        if self._latest is None:
            raise ArgumentError("nothing was traced yet: call the program once, or program.trace(...) with arguments like "
                                "those it will get")
        return self._latest

    # ---- tracing

    def _names(self, args: tuple[Any, ...]) -> list[str]:
        """What positional arguments are called in the graph: as the function calls them."""
        return [self._parameters[i] if i < len(self._parameters) else f"argument {i}" for i in range(len(args))]

    def signature(self, args: tuple[Any, ...], keywords: Mapping[str, Any] = NOTHING) -> tuple[Hashable, list[Any]]:
        """The signature of arguments, and the arrays among them."""
        arrays: list[Any] = []
        try:
            return (tuple([read(a, arrays) for a in args]), read(keywords, arrays) if keywords else None), arrays
        except UnhashableError:
            for a, name in zip(args, self._names(args), strict=True):
                refused(a, name)
            refused(keywords, "")
            raise

    def named(self, args: tuple[Any, ...], keywords: Mapping[str, Any] = NOTHING) -> Arrays:
        """The arrays among arguments by their names in the graph."""
        named = zip(args, self._names(args), strict=True)
        names = unique([*(name for a, path in named for name in names_in(a, path)), *names_in(keywords, "")])
        return dict(zip(names, self.signature(args, keywords)[1], strict=True))

    def _specialized(self, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[Specialization, list[Any]]:
        """What was traced for arguments like these, and the arrays among them."""
        key, arrays = self.signature(args, keywords)
        shapes = tuple([a.shape for a in arrays])
        entry = self._latest
        if entry is None or entry.shapes != shapes or entry.key != key or not entry.trace.holds():
            with self.lock:
                entry = self._latest = self._found(key, args, keywords, shapes)
        return entry, arrays

    def _found(self, key: Hashable, args: tuple[Any, ...], keywords: Mapping[str, Any], shapes: Shapes,
               remember: bool = True) -> Specialization:
        """What a trace that holds for these arguments makes of them; a new trace where none does."""
        for traced in self.entries.get(key, ()):
            values = traced.open.values_for(shapes) if traced.trace.holds() else None
            if values is not None:
                return traced.at(shapes, values, key)
        traced = self._trace(args, keywords)
        if remember:
            remembered(self.entries, key, traced)
        return traced.at(shapes, traced.open.values, key)

    def _trace(self, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Traced:
        """The function traced for any sizes that it does not read as numbers."""
        values = self.named(args, keywords)
        return with_open_sizes(list(values.values()), lambda opened: self._traced(args, keywords, values, opened))

    def _traced(self, args: tuple[Any, ...], keywords: Mapping[str, Any], values: Arrays, opened: OpenShapes) -> Traced:
        """The traced graph and what each pass makes of it."""
        trace = Trace()
        with tracing(trace):
            inputs = [Tensor(input_node(k, shape, values[k].dtype)) for k, shape in zip(values, opened.shapes, strict=True)]
            return self._made(self.called(inputs, args, keywords), (args, keywords), values, trace, opened)

    def called(self, inputs: Iterable[Tensor], args: Any, keywords: Mapping[str, Any] = NOTHING) -> Any:
        """What the function makes of tensors in the place of every array among the arguments."""
        with without_collector():
            each = iter(inputs)
            return self.function(*[stand_ins(a, each) for a in args], **stand_ins(keywords, each))

    def _made(self, result: object, arguments: Any, values: Mapping[str, Any], trace: Trace, opened: OpenShapes) -> Traced:
        with without_collector():
            leaves, rebuild = flatten(result)
            outputs = dict(zip(_names(result, len(leaves)), (as_tensor(leaf).source() for leaf in leaves), strict=True))
            updates = dict(zip(_unlike(outputs, len(trace.updates)), trace.updates, strict=True))
            stages = [("trace", Graph({**outputs, **dict(zip(updates, trace.updates.values(), strict=True))}))]
            foreign = [k for k in stages[0][1].inputs if k not in values]
            if foreign:
                raise ArgumentError(f"the function reads the placeholder {foreign[0]!r}, which is none of its arguments: give "
                                    "it as an argument, or use tr.tensor for data of your own")
            foreseen(stages[0][1], self.backend)
            suggest_scan(stages[0][1])
            stages = optimised(stages[0][1])
        return Traced(stages, rebuild, trace, self.backend, self.strict, updates, list(values), specified(arguments), opened)


def remembered(kept: dict[Hashable, list[Any]], key: Hashable, traced: object) -> None:
    """Keep what was traced under its signature, and let the oldest go where there are many: of signatures, and of one."""
    if len(kept) >= MOST and key not in kept:
        kept.pop(next(iter(kept)))
    found = kept.setdefault(key, [])
    if len(found) >= MOST:
        del found[0]
    found.append(traced)


def optimised(graph: Graph) -> list[tuple[str, Graph]]:
    """A graph as traced and after every pass."""
    stages = [("trace", graph)]
    for name, transform in PIPELINE:
        graph = _unchanged(name, stages[-1][1], transform(stages[-1][1]))
        stages.append((name, check(graph) if ENABLED else graph))
    return stages


def _positional(function: Callable[..., Any]) -> list[str]:
    """The names of a function's positional parameters."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _unchanged(name: str, before: Graph, after: Graph) -> Graph:
    """The graph after a pass, whose outputs have the shapes and dtypes that they had."""
    for k, n in before.outputs.items():
        m = after.outputs[k]
        if (n.shape, n.dtype) != (m.shape, m.dtype):
            raise GraphError(f"the pass {name} made output {k!r} {m.dtype}{show(m.shape)}, it was {n.dtype}{show(n.shape)}; "
                             "please report this")
    return after


def _names(result: object, count: int) -> list[str]:
    """The names of results in the graph: their keys, where the results are dicts, and numbers elsewhere."""
    names = names_of(result)
    return [f"result {i}" for i in range(count)] if names is None or len(set(names)) < count else names


def _unlike(taken: Container[str], count: int) -> list[str]:
    """Names for new values that no result has."""
    return list(islice((name for i in itertools.count() if (name := f"new value {i}") not in taken), count))


@overload
def compile(function: Callable[..., Any], /, *, backend: str = ..., threads: int | None = ...,
            strict: bool = ...) -> Program: ...
@overload
def compile(*, backend: str = ..., threads: int | None = ...,
            strict: bool = ...) -> Callable[[Callable[..., Any]], Program]: ...
def compile(function: Callable[..., Any] | None = None, /, *, backend: str = "cpu", threads: int | None = None,
            strict: bool = False) -> Any:
    """A function of tensors as a program of compiled kernels; a decorator, with or without options.

    Inside the function its arrays are tensors: `tr.grad` works on them, and `assign` to a parameter happens at every
    call.  It is traced once for each set of ranks, dtypes and other values among its arguments, and again where it read a
    size as a number (`x.shape[1]`, a loop over steps) that is another one now; a new length or batch costs no new trace
    otherwise.  Kernels are shared between all traces.  `threads` is the number of threads (all
    processors, or what the environment variable TINYRNN_THREADS says); results do not depend on it.  Where no kernel
    exists the interpreter runs instead, with a `FallbackWarning`; `strict=True` raises.

    >>> import numpy as np, tinyrnn as tr
    >>> W = tr.parameter(np.eye(2), name="W")
    >>> @tr.compile
    ... def step(x, lr=0.5):
    ...     loss = ((x @ W) ** 2).sum()
    ...     W.assign(W - lr * tr.grad(loss, W))
    ...     return loss
    >>> float(step(np.ones((1, 2)))), W.numpy()[0].tolist()
    (2.0, [0.0, -1.0])
    """
    if function is None:
        return lambda f: Program(f, backend, threads=threads, strict=strict)
    return Program(function, backend, threads=threads, strict=strict)


def _again(function: Callable[..., Any], backend: str, threads: int | None, strict: bool) -> Program:
    """A program of a function with nothing traced yet."""
    return Program(function, backend, threads=threads, strict=strict)
