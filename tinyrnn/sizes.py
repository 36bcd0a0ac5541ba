"""Whole numbers that are known only when a program runs: sizes of axes, and what follows from them.

A size is a polynomial in symbols, `n0 n1 + 3`.  Arithmetic stays symbolic.  Whatever must be decided meanwhile (is it 1, is it
more than 3, which number is it) is decided for the sizes at hand, and noted: what was made holds for all sizes for which these
`Assumptions` hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from math import gcd, prod
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from .errors import SymbolicError

Number: TypeAlias = "int | AnySize"
Atom = str | tuple[str, Any, Any]  # a symbol, or a quotient or remainder that is no polynomial: ("//", a, b)
Terms = tuple[tuple[tuple[Atom, ...], int], ...]


class AnySize:
    """A polynomial in symbols that stand for whole numbers from 0; equal polynomials are one object."""

    __slots__ = ("__weakref__", "terms")
    terms: Terms

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, (int, AnySize)):
            return NotImplemented
        sums = dict(self.terms)
        for monomial, k in _terms(other):
            sums[monomial] = sums.get(monomial, 0) + k
        return _size(sums)

    def __neg__(self) -> Any:
        return _size({m: -k for m, k in self.terms})

    def __abs__(self) -> Any:
        return -self if self < 0 else self

    def __sub__(self, other: Any) -> Any:
        return self + -other if isinstance(other, (int, AnySize)) else NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, (int, AnySize)):
            return NotImplemented
        products: dict[tuple[Atom, ...], int] = {}
        for m, k in self.terms:
            for n, j in _terms(other):
                both = tuple(sorted((*m, *n), key=repr))
                products[both] = products.get(both, 0) + k * j
        return _size(products)

    __radd__, __rmul__ = __add__, __mul__

    def __floordiv__(self, other: Any) -> Any:
        return _quotient(self, other, "//") if isinstance(other, (int, AnySize)) else NotImplemented

    def __rfloordiv__(self, other: int) -> Any:
        return _quotient(other, self, "//")

    def __mod__(self, other: Any) -> Any:
        return _quotient(self, other, "%") if isinstance(other, (int, AnySize)) else NotImplemented

    def __rmod__(self, other: int) -> Any:
        return _quotient(other, self, "%")

    # ---- decisions

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return _decided("==", self - other) if isinstance(other, (int, AnySize)) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = object.__hash__

    def __lt__(self, other: Any) -> bool:
        return _decided("<", self - other)

    def __ge__(self, other: Any) -> bool:
        return not _decided("<", self - other)

    def __gt__(self, other: Any) -> bool:
        return _decided("<", other - self)

    def __le__(self, other: Any) -> bool:
        return not _decided("<", other - self)

    def __bool__(self) -> bool:
        return not _decided("==", self, noted=True)

    def __index__(self) -> int:
        """The number for the sizes at hand: what was made holds for this number alone."""
        current = _current.get()
        if current is None:
            raise SymbolicError(f"the size {self!r} is not known here")
        return current.pin(self)

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.__index__())

    def __repr__(self) -> str:
        return code(self).replace("*", " ")

    def __deepcopy__(self, memo: dict[int, Any]) -> AnySize:
        return self

    def __reduce__(self) -> Any:
        return _size, (dict(self.terms),)


_sizes: WeakValueDictionary[Terms, AnySize] = WeakValueDictionary()


def _size(terms: Mapping[tuple[Atom, ...], int]) -> Number:
    """The one size with these terms; a plain number where no symbol is left."""
    kept = tuple(sorted(((m, k) for m, k in terms.items() if k), key=repr))
    if not kept or (len(kept) == 1 and not kept[0][0]):
        return kept[0][1] if kept else 0
    found = _sizes.get(kept)
    if found is None:
        made = object.__new__(AnySize)
        made.terms = kept
        found = _sizes.setdefault(kept, made)
    return found


def symbol(name: str) -> AnySize:
    """A size of its own."""
    return _product_of((name,))


def _product_of(atoms: tuple[Atom, ...]) -> AnySize:
    found = _size({atoms: 1})
    assert isinstance(found, AnySize)
    return found


def _terms(n: Number) -> Terms:
    return n.terms if isinstance(n, AnySize) else (((), int(n)),)


def _quotient(a: Number, b: Number, op: str) -> Number:
    """`a // b` or `a % b`: a polynomial where every term of a is a multiple of b, which is one term."""
    if not isinstance(a, AnySize) and not a:
        return 0
    parts = _terms(b)
    if len(parts) == 1 and parts[0][1] > 0:
        (below, k), rest, whole = parts[0], dict[tuple[Atom, ...], int](), dict[tuple[Atom, ...], int]()
        for m, j in _terms(a):
            left = _without(m, below)
            if left is None or j % k:
                rest[m] = j
            else:
                whole[left] = whole.get(left, 0) + j // k
        if not rest:
            return 0 if op == "%" else _size(whole)
    return _size({((op, a, b),): 1})


def _with_numbers(n: AnySize, pinned: Mapping[Any, int]) -> Number:
    """A size with numbers for some symbols."""
    sums: dict[tuple[Atom, ...], int] = {}
    for m, k in n.terms:
        left = tuple([a for a in m if a not in pinned])
        sums[left] = sums.get(left, 0) + k * prod(pinned[a] for a in m if a in pinned)
    return _size(sums)


def _without(atoms: tuple[Atom, ...], others: Iterable[Atom]) -> tuple[Atom, ...] | None:
    left = list(atoms)
    for x in others:
        if x not in left:
            return None
        left.remove(x)
    return tuple(left)


# ---- what is assumed

class Assumptions:
    """The sizes at hand, by their symbols, and what was decided for them."""

    def __init__(self, values: Mapping[str, int], generic: bool) -> None:
        self.values, self.generic = dict(values), generic
        self.decided: dict[str, bool] = {}  # comparisons, as expressions of Python
        self.pinned: dict[str, int] = {}  # symbols that were found to be one number, and are no others from there on

    def pin(self, n: AnySize) -> int:
        """The number that a size is from now on."""
        found: int = evaluated(n, self.values)
        self.decided[f"{code(n)} == {found}"] = True
        if len(n.terms) == 1 and len(n.terms[0][0]) == 1 and isinstance(n.terms[0][0][0], str):
            self.pinned[n.terms[0][0][0]] = self.values[n.terms[0][0][0]]
        return found

    def equal(self, difference: AnySize, noted: bool) -> bool:
        """Whether a difference is 0."""
        rest = _with_numbers(difference, self.pinned) if self.pinned else difference
        if not isinstance(rest, AnySize):
            return rest == 0
        if self.generic and not noted:
            return False
        answer = self.decided[f"{code(difference)} == 0"] = evaluated(difference, self.values) == 0
        alone = [m for m, _ in difference.terms if m]
        if answer and len(alone) == 1:
            self.pin(_product_of(alone[0]))
        return bool(answer)

    def test(self) -> Callable[..., bool]:
        """A function of the symbols' values: whether all was decided as it would be for these."""
        tests = [f"({comparison}) is {answer}" for comparison, answer in self.decided.items()]
        all_hold: Callable[..., bool] = eval(f"lambda {', '.join(self.values)}: {' and '.join(tests) or True}")

        def holds(**values: int) -> bool:
            try:
                return all_hold(**values)
            except ZeroDivisionError:  # for the sizes at hand nothing was divided by 0
                return False

        return holds


_current: ContextVar[Assumptions | None] = ContextVar("assumptions", default=None)


@contextmanager
def assuming(values: Mapping[str, int], generic: bool = False) -> Iterator[Assumptions]:
    """Inside, sizes are compared as for these values of their symbols.

    With `generic`, sizes are equal only where they are so for all values: what is traced then treats any others as different
    (it broadcasts nothing, and no moves cancel), which is right where they happen to be equal, too.  `agree` asks for those at
    hand.
    """
    made = Assumptions(values, generic)
    token = _current.set(made)
    try:
        yield made
    finally:
        _current.reset(token)


def _decided(op: str, difference: Number, noted: bool = False) -> bool:
    """Whether a difference is 0, or less: for all sizes, or for those at hand."""
    if not isinstance(difference, AnySize):
        return difference == 0 if op == "==" else difference < 0
    always = _for_all(op, difference)
    if always is not None:
        return always
    current = _current.get()
    if current is None:
        if op == "==":
            return False
        raise SymbolicError(f"{difference!r} < 0 depends on sizes that are not known here")
    if op == "==":
        return current.equal(difference, noted)
    answer = current.decided[f"{code(difference)} < 0"] = evaluated(difference, current.values) < 0
    return bool(answer)


@lru_cache(4096)
def _for_all(op: str, difference: AnySize) -> bool | None:
    """What holds whatever the symbols are; None where it depends on them."""
    if any(not isinstance(a, str) for m, _ in difference.terms for a in m):
        return None
    constant = dict(difference.terms).get((), 0)
    rest = [k for m, k in difference.terms if m]
    up, down = min(rest) >= 0 and constant >= 0, max(rest) <= 0 and constant <= 0
    if op == "<":
        return False if up else True if down and constant < 0 else None
    if ((up or down) and constant) or constant % gcd(*rest):
        return False
    return None


def estimate(n: Number) -> int:
    """The number for the sizes at hand, for choices that change no result."""
    if not isinstance(n, AnySize):
        return int(n)
    current = _current.get()
    if current is None:
        raise SymbolicError(f"the size {n!r} is not known here")
    found: int = evaluated(n, current.values)
    return found


def evaluated(n: Any, values: Mapping[str, int]) -> Any:
    """A size, or a tuple of sizes, for values of the symbols; anything else is what it is."""
    if isinstance(n, AnySize):
        return sum(k * _product(m, values) for m, k in n.terms)
    if type(n) is tuple:
        return tuple([evaluated(part, values) for part in n])
    return n


def _product(atoms: tuple[Atom, ...], values: Mapping[str, int]) -> int:
    found = 1
    for x in atoms:
        if isinstance(x, str):
            found *= values[x]
        else:
            op, a, b = x[0], evaluated(x[1], values), evaluated(x[2], values)
            found *= a // b if op == "//" else a % b
    return found


def code(n: Number) -> str:
    """A size as an expression of Python over its symbols."""
    if not isinstance(n, AnySize):
        return str(n)
    return " + ".join("*".join([*([str(k)] if k != 1 or not m else []), *map(_atom, m)]) for m, k in n.terms)


def _atom(x: Atom) -> str:
    return x if isinstance(x, str) else f"(({code(x[1])}) {x[0]} ({code(x[2])}))"


class SizeVector:
    """Many whole numbers, some of them sizes, as an array for given values of the symbols."""

    def __init__(self, numbers: Sequence[Number], symbols: Iterable[str]) -> None:
        self._fixed = np.array([0 if isinstance(n, AnySize) else n for n in numbers], np.int64)
        unknown = {i: n for i, n in enumerate(numbers) if isinstance(n, AnySize)}
        each = {n: k for k, n in enumerate(dict.fromkeys(unknown.values()))}
        self._where = np.array([*unknown], np.int64)
        self._which = np.array([each[n] for n in unknown.values()], np.int64)
        self._each = eval(f"lambda {', '.join(symbols)}: ({''.join(f'{code(n)}, ' for n in each)})")

    def at(self, values: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """The numbers, in a new array."""
        found = self._fixed.copy()
        if len(self._where):
            found[self._where] = np.array(self._each(**values), np.int64)[self._which]
        return found


# ---- what is so for all sizes, whatever they are

def same(a: object, b: object) -> bool:
    """Whether two sizes, or tuples of them, are equal for all values of the symbols."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a is b if isinstance(a, AnySize) or isinstance(b, AnySize) else a == b


def agree(a: Number, b: Number) -> bool:
    """Whether two sizes are equal for those at hand, as they must be then."""
    return _decided("==", a - b, noted=True)


def is_symbolic(shape: Iterable[object]) -> bool:
    """Whether any size is known only when a program runs."""
    return any(isinstance(n, AnySize) for n in shape)


class ReadShape(Sequence[int]):
    """A shape while a function is traced, as Python reads it: each size that is looked at is a number, for which alone the
    trace holds then."""

    def __init__(self, shape: tuple[Any, ...]) -> None:
        self._shape, self._assumed = shape, _current.get()

    def __getitem__(self, key: Any) -> Any:
        found = self._shape[key]
        return tuple(map(self._read, found)) if isinstance(found, tuple) else self._read(found)

    def _read(self, n: Number) -> int:
        if self._assumed is None or not isinstance(n, AnySize):
            return int(n)
        return self._assumed.pin(n)

    @property  # type: ignore[misc]  # the one attribute that isinstance asks beside the type, which mypy holds for fixed
    def __class__(self) -> Any:
        """As `isinstance` sees it: a tuple.  It is none, since those hand out what they hold without a word."""
        return tuple

    def __len__(self) -> int:
        return len(self._shape)

    def __add__(self, other: Any) -> tuple[int, ...]:
        return (*self, *other)

    def __radd__(self, other: Any) -> tuple[int, ...]:
        return (*other, *self)

    def __mul__(self, times: int) -> tuple[int, ...]:
        return tuple(self) * times

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple) and len(self) == len(other) and tuple(self) == tuple(other)

    def __lt__(self, other: Any) -> bool:
        return tuple(self) < tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))
