"""The base of layers and models: parameters are found in attributes, `forward` is `__call__`."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..analysis.subject import Loss, Subject
from ..backends import on_host
from ..cells import Cell
from ..door import behind
from ..errors import ArgumentError, DTypeError, LoadError, ShapeError
from ..files import File, PathLike
from ..io.weights import checksum, write_weights
from ..ir.ops.leaves import box_of, recast
from ..model import is_evaluating, note_attribute
from ..serve import Stream
from ..shapes import show
from ..tensor.by_name import looked_up, meaning
from ..tensor.tensor import Tensor, TensorLike
from ..tensor.tracing import current
from ..train import History, evaluate, fit, generate, predict
from ..version import VERSION
from ..viz.wiring import Wiring
from .subject import subject_of_model

Array = npt.NDArray[Any]


ASKED = {"leaves", "places", "example", "subject", "wiring", "options", "one_line", "built", "time_first"}
"""Methods by which a layer says what it is, under names that a model may have thought of as well."""


class Text(str):
    """Text that shows as it reads, also where Python would print its repr."""

    def __repr__(self) -> str:
        return str(self)


class Module:
    """A layer or a model.

    Attributes that are parameters, modules, or lists, tuples and dicts of them belong to it.

    Raises `NotImplementedError` where `__call__` is missing.

    >>> import tinyrnn as tr
    >>> class Scale(tr.nn.Module):
    ...     def __init__(self):
    ...         self.factor = tr.parameter(2.0, name="factor")
    ...     def __call__(self, x):
    ...         return x * self.factor
    >>> [name for name, _ in Scale().named_parameters()]
    ['factor']
    """

    cell: Cell | None = None  # what a recurrent layer runs at every step
    _training: bool = True
    attributes_are_noted = True  # whoever keeps programs of a model is told when an attribute is set
    reads_time: bool = False  # whether steps of a sequence meet here, so that padding must be marked
    ends_time: bool = False  # whether the output has no time axis any more, so that lengths no longer apply

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ASKED and not callable(value):
            raise ArgumentError(f"a layer is asked for its {name}, so {type(self).__name__}.{name} cannot hold "
                                f"{type(value).__name__}: give the attribute another name")
        object.__setattr__(self, name, value)
        note_attribute()

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        note_attribute()

    @property
    def reads_back(self) -> bool:
        """Whether a part of the output at a step has read the sequence from its end up to there."""
        return False

    def ended(self, x: TensorLike, state: Any = None, lengths: object = None, mask: object = None) -> Any:
        """The output at the last step that is read, as a sequence of one step, and the state."""
        raise NotImplementedError(f"{type(self).__name__} does not read backwards")

    @property
    def joint_inputs(self) -> tuple[str, ...]:
        """The names of several arrays that are one argument: a dict, or a tuple in this order."""
        return ()

    @property
    def training(self) -> bool:
        """Whether dropout is on; a compiled function that looks is traced anew when it changes."""
        if is_evaluating():
            return False
        trace = current()
        if trace is not None:
            trace.guards.append((self, "_training", self._training))
        return self._training

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    @property
    def trainable(self) -> bool:
        """Whether training changes any parameter inside; setting it freezes them all, or lets them all be trained."""
        made = [t for _, t in self.leaves() if t.parameter]
        return any(t.trainable for t in made) or not made

    @trainable.setter
    def trainable(self, wanted: bool) -> None:
        if not isinstance(wanted, (bool, np.bool_)):
            raise ArgumentError(f"trainable={wanted!r}: expected True or False")
        for _, t in self.leaves():
            if t.parameter:
                t.trainable = wanted

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        also = "; it has a forward: rename it to __call__" if hasattr(self, "forward") else ""
        raise NotImplementedError(f"{type(self).__name__} has no __call__{also}")

    # ---- what it says of itself

    def config(self) -> dict[str, Any] | None:
        """The arguments that build this layer again, as JSON; None for a model that only its own code can build."""
        return None

    @classmethod
    def built(cls, config: dict[str, Any]) -> Module:
        """The layer of a file, from what `config` said."""
        return cls(**config)

    def one_line(self) -> str:
        """What it is made of, in a line."""
        return ", ".join(f"{name}: {type(m).__name__}({m.options()})" for name, m in self.named_modules())

    def options(self) -> Any:
        """What tells this layer from others of its kind."""
        return self.config() or ""

    def example(self, batch: int, *steps: int) -> Any:
        """An input of the right shape and dtype, of so many rows and steps; raises where the shape does not follow from it."""
        raise ArgumentError(f"no example of an input follows from {type(self).__name__}: give data x, as values={{'x': x}} or "
                            "leaks(model, lengths, x)")

    def subject(self, x: object, y: object = None, *, lengths: object = None, mask: object = None,
                loss: Loss = None) -> Subject:
        """A run on data with a loss, for `xray`, `analyze` and `page`."""
        return subject_of_model(self, x, y, lengths=lengths, mask=mask, loss=loss)

    def wiring(self, name: str, reads: list[str], into: Wiring) -> list[str]:
        """Its boxes on a picture: it reads `reads`, and its output comes from the boxes that are returned."""
        return into.plain(self, name, reads)

    @property
    def time_first(self) -> bool:
        """Whether it takes and gives [T, B, ...]."""
        return False

    # ---- what belongs to it

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all inside it, each once, with dotted names."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module
                inside = [(k, m) for k, m in _members(module, name) if isinstance(m, Module)]
                stack.extend(reversed(inside))

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter that is trained, once, with its dotted name; a shared one under its first name."""
        return ((k, t) for k, t in self.leaves() if t.trainable)

    def leaves(self) -> Iterator[tuple[str, Tensor]]:
        """All that holds data, trained or fixed, once, with its dotted name; what is shared under its first name."""
        aliases, known = self._aliases(), dict[str, Tensor]()
        for k, t in self.places():
            if known.setdefault(k, t) is not t and known[k].node is not t.node:
                raise ArgumentError(f"two parameters are called {k!r}: a key of a dict holds a dot, or 1 and '1' are both "
                                    "keys; rename one of them")
            if k not in aliases:
                yield k, t

    def places(self, prefix: str = "", above: tuple[Module, ...] = ()) -> Iterator[tuple[str, Tensor]]:
        """Every place that holds data, by its dotted name; shared data stand in several."""
        for name, value in _members(self, prefix):
            if isinstance(value, Module):
                if value is not self and value not in above:  # a module may know its parent
                    yield from value.places(name, (*above, self))
            elif value.is_leaf:
                yield name, value

    def _aliases(self) -> dict[str, str]:
        """Further names of shared parameters, each with the first."""
        first: dict[int, str] = {}
        return {k: first[id(t.node)] for k, t in self.places() if first.setdefault(id(t.node), k) != k}

    def parameters(self) -> list[Tensor]:
        """Every trainable parameter once."""
        return [t for _, t in self.named_parameters()]

    def state_dict(self) -> dict[str, Array]:
        """All data by dotted name, as arrays of their own."""
        return {k: t.numpy() for k, t in self.leaves()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Assign all data; names and shapes must match exactly, else nothing is changed."""
        own = dict(self.leaves())
        missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
        if missing or extra:
            raise LoadError("the weights do not belong to this model: "
                            + "; ".join(f"{what} {', '.join(names[:5])}{' ...' * (len(names) > 5)}"
                                        for what, names in (("missing", missing), ("unknown", extra)) if names))
        arrays = {k: _given(k, state[k]) for k in own}
        for k, t in own.items():
            if arrays[k].shape != t.shape:
                raise ShapeError(f"{k} has shape {show(t.shape)}, the given weights have {show(arrays[k].shape)}")
            if arrays[k].dtype.kind != t.dtype.kind:
                raise LoadError(f"{k} is {t.dtype}, the given weights are {arrays[k].dtype}: convert them with astype, if they "
                                "are what you mean")
            _check_range(k, arrays[k], t.dtype)
        for k, t in own.items():
            t.assign(arrays[k])

    def reads_time_first(self) -> bool:
        """Whether a layer inside takes its sequences time first."""
        return any(m.time_first for _, m in self.named_modules())

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """A copy whose floating weights have another floating dtype, in which its layers then compute."""
        wanted, memo = np.dtype(dtype), dict[int, Any]()
        if wanted.kind != "f":
            raise DTypeError(f"astype({str(wanted)!r}): weights are floating; expected 'float32' or 'float64'")
        for _, t in self.leaves():
            if t.dtype.kind == "f":
                memo[id(box_of(t.node))] = recast(t.node, wanted)
        found = copy.deepcopy(self, memo)
        for _, module in found.named_modules():
            if isinstance(vars(module).get("dtype"), np.dtype):
                module.dtype = wanted
        return found

    # ---- modes

    def train(self, mode: bool = True) -> Module:
        """Training mode: dropout is on."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Evaluation mode: dropout is off."""
        return self.train(False)

    def summary(self) -> Text:
        """A table of the layers, their parameters and shapes; what is not trained is marked as fixed."""
        def own(m: Module, name: str) -> str:
            return ", ".join(f"{k.rpartition('.')[2]} {show(t.shape)}{'' if t.trainable else ' fixed'}"
                             for k, t in _members(m, name) if isinstance(t, Tensor) and t.is_leaf)

        rows = [(name or "(model)", type(m).__name__, own(m, name)) for name, m in self.named_modules()]
        total, fixed = sum(t.size for t in self.parameters()), sum(t.size for _, t in self.leaves() if not t.trainable)
        width = [max(len(r[i]) for r in rows) for i in range(2)]
        lines = [f"{a:<{width[0]}}  {b:<{width[1]}}  {c}".rstrip() for a, b, c in rows]
        return Text("\n".join([*lines, f"{total:,} parameters" + f", and {fixed:,} numbers that are fixed" * bool(fixed)]))

    def draw(self, file: PathLike | None = None, **options: Any) -> Any:
        """A picture of the layers; see `tinyrnn.draw`."""
        return behind("draw")(self, file, **options)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """In a notebook: the picture."""
        bundle: dict[str, str] = self.draw()._repr_mimebundle_()
        return {**bundle, "text/plain": repr(self)}

    # ---- training and use

    def fit(self, x: object, y: object, **options: Any) -> History:
        """Train on rows of x and y; see `tinyrnn.train.fit` for the options."""
        return fit(self, x, y, **options)

    def evaluate(self, x: object, y: object, **options: Any) -> dict[str, float]:
        """Loss and metrics on data; see `tinyrnn.train.evaluate`."""
        return evaluate(self, x, y, **options)

    def predict(self, x: object, **options: Any) -> Array | list[Array]:
        """The output for every row; see `tinyrnn.train.predict`."""
        return predict(self, x, **options)

    def stream(self, batch: int = 1, *, dtype: npt.DTypeLike | None = None, like: Any = None, backend: str = "cpu",
               threads: int | None = None) -> Stream:
        """The model read one step at a time, with a state of its own; see `tinyrnn.serve.Stream`."""
        return Stream(self, batch, dtype=dtype, like=like, backend=backend, threads=threads)

    def generate(self, prompt: TensorLike, steps: int, **options: Any) -> Array:
        """The prompt and tokens sampled after it; see `tinyrnn.train.generate`."""
        return generate(self, prompt, steps, **options)

    def save(self, file: File) -> None:
        """Write weights, structure and equations to one safetensors file: atomically under a name, or into a file that is open
        in binary mode."""
        notes, arrays = {"tinyrnn": FORMAT, "version": VERSION}, {k: t.numpy() for k, t in self.leaves()}
        if config_of(self) is not None:
            notes |= {"model": json.dumps(describe(self), default=np.generic.item), "shared": json.dumps(self._aliases())}
            fixed = [k for k, t in self.leaves() if not t.trainable]
            notes |= {"fixed": json.dumps(fixed)} if fixed else {}
            notes["sum"] = checksum(arrays, *(notes[k] for k in ("model", "shared", "fixed") if k in notes))
        write_weights(file, arrays, notes)


def _given(name: str, value: object) -> Array:
    """The array of a weight, named where it cannot be read."""
    try:
        return on_host(value)
    except ArgumentError as error:
        raise LoadError(f"{name}: {error}") from None


def _check_range(name: str, array: Array, dtype: np.dtype[Any]) -> None:
    """Numbers that become infinite in a narrower dtype are refused."""
    if array.dtype.kind == "f" and array.dtype.itemsize > dtype.itemsize:
        over = np.isfinite(array) & (np.abs(array) > np.finfo(dtype).max)
        if over.any():
            raise LoadError(f"{name} is {dtype}, in which {array[over].flat[0]:g}, one of the given {array.dtype} weights, has "
                            "no place")


FORMAT = "1"  # of files of models: whoever reads another one says so
KINDS: dict[str, type[Module]] = {}
"""The layers that files may hold, by name: a closed vocabulary."""
ALLOWED: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())
"""The Python modules that a file may name beside it, whose import the reader allows."""

Kind = TypeVar("Kind", bound=type[Module])


def loadable(kind: Kind) -> Kind:
    """Let files hold layers of a class: `config` says how to build one again, and `load` does so where the class is known.

    Raises `ArgumentError` for what is no class of layers, or has no `config`, and where another class has the name.

    >>> import tinyrnn as tr
    >>> @tr.nn.loadable
    ... class Halve(tr.nn.Module):
    ...     def config(self):
    ...         return {}
    ...     def __call__(self, x):
    ...         return x / 2
    >>> "Halve" in tr.nn.module.KINDS
    True
    """
    if not (isinstance(kind, type) and issubclass(kind, Module)) or kind.config is Module.config:
        raise ArgumentError(f"loadable takes a class of layers that says how to build one again, in config(); got {kind!r}")
    before = KINDS.setdefault(kind.__name__, kind)
    if (before.__module__, before.__qualname__) != (kind.__module__, kind.__qualname__):  # the same once more: a cell run again
        raise ArgumentError(f"there is a layer {kind.__name__} already: give the class another name")
    KINDS[kind.__name__] = kind
    return kind


def build(form: object) -> Module:
    """A module from its description."""
    kind = form.get("kind") if isinstance(form, dict) else form
    if not isinstance(form, dict) or not isinstance(kind, str) or (kind not in KINDS and ":" not in kind):
        raise LoadError(f"unknown layer {str(kind)[:40]!r}; known are {', '.join(sorted(KINDS))}")
    found = KINDS[kind] if kind in KINDS else _imported(kind)
    try:
        return found.built({k: v for k, v in form.items() if k != "kind"})
    except LoadError:
        raise
    except Exception as error:  # a constructor may say anything of arguments that no program of ours wrote
        raise LoadError(f"the description of a {kind} layer is not sound: {error}") from None


def _imported(kind: str) -> type[Module]:
    """The class that a file calls `package.module:Class`, from a module whose import the reader allows."""
    place, _, name = kind.partition(":")
    if place not in ALLOWED.get():
        raise LoadError(f"it holds a layer {kind[:80]!r}; to build it Python imports {place[:80]!r}: if you trust both, "
                        f"tr.load(file, allow=[{place[:80]!r}])")
    try:
        found = looked_up(place, name)
    except Exception as error:  # a module may raise anything while it is imported
        raise LoadError(f"the layer {kind[:80]!r} was not found: {type(error).__name__}: {error}") from None
    if not _own(found) or (found.__module__, found.__qualname__) != (place, name):  # not what it imports from elsewhere
        raise LoadError(f"{kind[:80]!r} is no class of layers that says how to build one again, in a config() of its own")
    return cast("type[Module]", found)


def _own(kind: object) -> bool:
    """Whether a class of layers says itself how to build one again: what it derives from cannot know."""
    return isinstance(kind, type) and issubclass(kind, Module) and "config" in vars(kind)


def _kind_of(module: Module) -> str | None:
    """What a file calls a layer: by its name where the name is declared, else by where its class is imported from."""
    kind = type(module)
    if KINDS.get(kind.__name__) is kind:
        return kind.__name__
    found = _own(kind) and kind.__module__ != "__main__" and meaning(kind) is kind
    return f"{kind.__module__}:{kind.__qualname__}" if found else None


def config_of(module: Module) -> dict[str, Any] | None:
    """The arguments that build a layer again; None for classes that no file may hold, whatever they derive from."""
    return None if _kind_of(module) is None else module.config()


def describe(module: Module) -> dict[str, Any]:
    """A module as JSON: its kind and the arguments that build it."""
    config = config_of(module)
    if config is None:
        raise ArgumentError(f"{type(module).__name__} cannot be described in a file: its class is not declared with "
                            "tr.nn.loadable, and has no config() of its own")
    return {"kind": _kind_of(module), **config}


def _members(module: Module, prefix: str) -> Iterator[tuple[str, Any]]:
    """Attributes of a module with dotted names, lists and dicts opened."""
    stack: list[tuple[str, Any]] = [(f"{prefix}.{k}" if prefix else k, v) for k, v in reversed(vars(module).items())]
    while stack:
        name, value = stack.pop()
        if isinstance(value, (Module, Tensor)):
            yield name, value
        elif isinstance(value, (list, tuple, dict)):
            entries: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
            stack.extend(reversed([(f"{name}.{k}", v) for k, v in entries]))
