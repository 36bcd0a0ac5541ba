"""Programs that a model keeps from call to call, until it is made of other parts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from operator import is_
from typing import Any, TypeVar
from weakref import ref

import numpy as np

from ..backends import checked_threads
from ..locks import ForkSafeLock
from ..model import attributes_set, evaluating
from ..tensor.compile import Program

Made = TypeVar("Made")
ATTRIBUTE = "_programs"
APART = (ATTRIBUTE, "_training")  # attributes that are no parts: programs look at the mode themselves
MOST = 32                         # things that are kept for one model


class Programs:
    """What was made for a model, by key; all of it is dropped when an attribute of the model, or of a layer inside, is
    another object, or when a list, dict, set or array among them has changed.

    The data of parameters may change freely: programs read them anew.
    """

    def __init__(self, model: object = None) -> None:
        self.model = None if model is None else ref(model)
        self._lock, self._made, self._parts = ForkSafeLock(), dict[Hashable, Any](), list[_Part]()
        self.dropped = 0  # how often the model was found to be made of other parts
        self._open, self._when = list[_Part](), -1  # parts that change without a word, when attributes were last looked at
        self.modules: list[ref[Any]] = []

    def get(self, model: Any, key: Hashable, make: Callable[[], Made]) -> Made:
        """What was made under a key, or is made now."""
        self.look(model)
        found: Made | None = self._made.get(key)
        return self._new(model, key, make) if found is None else found

    def look(self, model: Any) -> int:
        """Drop what was made if the model is made of other parts; how often that happened."""
        if self._made:
            root, when = vars(model), attributes_set()
            for part in self._parts if when != self._when else self._open:
                if not part.same(root):
                    with self._lock:
                        self._made, self.dropped = {}, self.dropped + 1
                    break
            self._when = when
        return self.dropped

    def _new(self, model: Any, key: Hashable, make: Callable[[], Made]) -> Made:
        with self._lock:
            if not self._made:
                self._when = attributes_set()
                self._parts = list(_parts(model))
                self._open = [part for part in self._parts if not part.told]
                self.modules = [ref(m) for _, m in model.named_modules()]
            if key not in self._made:
                if len(self._made) >= MOST:
                    self._made.pop(next(iter(self._made)))
                self._made[key] = make()
            found: Made = self._made[key]
            return found

    @property
    def training(self) -> bool:
        """Whether any layer is in training mode."""
        return any(m.training for held in self.modules if (m := held()) is not None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Programs:
        return Programs()

    def __reduce__(self) -> Any:
        return Programs, ()


def programs_of(model: Any) -> Programs:
    """What a model keeps; copies of the model begin with nothing."""
    found: Programs | None = vars(model).get(ATTRIBUTE)
    if found is None or found.model is None or found.model() is not model:
        found = vars(model)[ATTRIBUTE] = Programs(model)
    return found


def served(model: Any, key: Hashable, function: Callable[..., Any], backend: str = "cpu",
           threads: int | None = None) -> Program:
    """A program that a model keeps, `function(model, ...)` in evaluation mode.

    The function is made once for a key, which names whatever else it depends on.
    """
    threads = None if threads is None else checked_threads(threads)
    held = ref(model)  # a model that nobody uses goes, and its programs with it

    def run(*args: Any, **keywords: Any) -> Any:
        model = held()
        assert model is not None
        with evaluating():
            return function(model, *args, **keywords)

    return programs_of(model).get(model, (key, backend, threads), lambda: Program(run, backend, threads=threads))


class _Part:
    """A holder of parts and what it held; the model itself is not held, so that it can go when nobody uses it.

    `told` are the attributes of layers that say so when one is set, and hold nothing that changes by itself.
    """

    def __init__(self, holder: Any, is_root: bool = False, told: bool = False) -> None:
        self.holder = None if is_root else holder
        self.held = _held(holder)
        self.seen = _identities(holder)
        values = self.held[1]
        self.arrays = [(v, v.copy()) for v in values if isinstance(v, np.ndarray) and (v.flags.writeable or v.base is not None)]
        self.sets = [(v, v.copy()) for v in values if isinstance(v, set)]
        self.told = told and not self.arrays and not self.sets

    def same(self, root: dict[str, Any]) -> bool:
        """Whether all is as it was."""
        holder = root if self.holder is None else self.holder
        if _identities(holder) != self.seen:
            keys, values = _held(holder)
            if keys != self.held[0] or not all(map(is_, values, self.held[1])):
                return False
            self.seen = _identities(holder)  # the mode is another one, or this is the first look after programs were kept
        for a, before in self.arrays:
            if a.shape != before.shape or a.tobytes() != before.tobytes():
                return False
        return all(a == before for a, before in self.sets)


def _is_looked_into(value: Any) -> bool:
    """Whether the attributes of an object are parts: layers, and objects of the user's own, such as settings."""
    if hasattr(value, "named_modules"):
        return True
    ours = type(value).__module__.partition(".")[0] in ("tinyrnn", "numpy", "builtins", "functools")
    return not ours and hasattr(value, "__dict__") and not isinstance(value, (type, dict, list, deque)) and not callable(value)


def _identities(holder: Any) -> list[int]:
    """What tells the parts from any others, as long as they are held."""
    return [*map(id, holder.values()), *map(id, holder)] if isinstance(holder, dict) else [*map(id, holder)]


def _held(holder: Any) -> tuple[Any, Any]:
    """The keys of a dict or the length of a list, and the values."""
    if isinstance(holder, dict):
        kept = {k: v for k, v in holder.items() if k not in APART and not hasattr(v, "reads_the_model")}
        return list(kept), list(kept.values())
    return len(holder), list(holder)


def _parts(model: Any) -> Iterator[_Part]:
    """The attributes of a model and of all layers inside, with the lists and dicts among them."""
    root = _Part(vars(model), is_root=True, told=hasattr(model, "attributes_are_noted"))
    yield root
    stack, seen = list(root.held[1]), {id(model)}
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        holder = vars(value) if _is_looked_into(value) else value
        if isinstance(holder, (dict, list, deque)):
            part = _Part(holder, told=hasattr(value, "attributes_are_noted"))
            yield part
            stack.extend(part.held[1])
        elif isinstance(holder, tuple):  # which does not change itself
            stack.extend(holder)
