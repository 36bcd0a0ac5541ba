"""The hook every domain implements: elementwise primitives, one contraction and a sum.

A run asks its domain for an op by the op's own name first; where the domain has none, the op's formula, written over
these primitives and the operators + - * /, is evaluated.  Structural ops index the domain's arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendError
from ..ir.op import CATALOGUE, Op
from ..ir.ops.random import threefry
from ..shapes import Shape


def by_formula(name: str) -> Callable[..., Any]:
    """A domain's method that evaluates the formula of an op."""
    def method(domain: Domain, *x: Any) -> Any:
        formula = CATALOGUE[name].evaluate
        assert formula is not None
        return formula(domain, *x)

    return method


class Domain:
    """Arrays of numbers of one kind.  A subclass says what a number is; arrays are NumPy's unless `xp` differs."""

    name = "abstract"
    xp: Any = np
    exp: Any
    log: Any
    sqrt: Any

    # ---- numbers and buffers

    def owns(self, value: object) -> bool:
        """Whether a value is one of this domain already, whatever its dtype."""
        return False

    def enter(self, value: Any, dtype: np.dtype[Any]) -> Any:
        """The value of an input, a leaf or a literal as an array of this domain."""
        raise NotImplementedError

    def full(self, value: Any, shape: Shape, dtype: np.dtype[Any]) -> Any:
        """The same number everywhere."""
        return self.xp.broadcast_to(self.enter(value, dtype), shape)

    def zeros(self, shape: Shape, like: Any) -> Any:
        """Zeros of the same kind as `like`."""
        return self.xp.zeros(shape, like.dtype)

    def buffer(self, shape: Shape, dtype: np.dtype[Any]) -> Any:
        """Room for a value at every step of a scan; the domain says the dtype."""
        return self.xp.empty(shape, self.enter(0, dtype).dtype)

    # ---- how an op is evaluated here

    def implementation(self, op: Op) -> Callable[..., Any]:
        """The function of (*values, *attributes) that evaluates an op."""
        own: Callable[..., Any] | None = getattr(self, op.name, None)
        if own is not None:
            return own
        if op.evaluate is None:
            raise BackendError(f"the domain {self.name!r} does not say what {op.name!r} is")
        return partial(op.evaluate, self)

    # ---- shared by every domain

    def add_n(self, *values: npt.NDArray[Any]) -> Any:
        """A sum from left to right."""
        return reduce(lambda a, b: a + b, values)

    def power(self, a: Any, b: Any) -> Any:
        """`a ** b` for positive a."""
        return self.exp(b * self.log(a))

    def powk(self, x: Any, k: float) -> Any:
        """`x ** k` for a constant k: products where k is whole, a square root where 2k is."""
        if k.is_integer() and abs(k) <= 64:
            y = self._repeated_product(x, abs(int(k)))
            return y if k > 0 else 1 / y
        if (2 * k).is_integer() and abs(k) <= 32:
            return self.powk(self.sqrt(x + 0.0), float(2 * k))  # -0.0 becomes 0.0, whose reciprocal is not -inf
        return self.power(x, float(k))

    def _repeated_product(self, x: Any, n: int) -> Any:
        result = None
        while n:
            if n & 1:
                result = x if result is None else result * x
            n >>= 1
            x = x * x if n else x
        return result

    def random_bits(self, key: npt.NDArray[Any], site: int, shape: Shape) -> Any:
        """Threefry-2x32 on the position of every entry."""
        xp = self.xp
        n = int(np.prod(shape, dtype=np.int64))
        bits, _ = threefry(xp, key, xp.arange(n, dtype=xp.uint32), xp.full(n, site, xp.uint32))
        return bits.reshape(shape)
