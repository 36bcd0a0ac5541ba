"""Complex step: one run at `x + i h v` gives the value and, as `imag / h`, the derivative along v, to rounding.

Squire & Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40, 1998.
Predicates and `stop_gradient` look at the real part, so kinks follow the branch of the real run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..ir.op import Op
from ..shapes import Shape
from .domain import Domain
from .float import Float

STEP = 1e-30
_COMPARING = frozenset({"abs", "clip", "maximum", "minimum", "relu"})


class ComplexStep(Float):
    """Floating numbers become complex128 with a tiny imaginary part; integers and bool stay as they are."""

    name = "complex step"

    def enter(self, value: Any, dtype: np.dtype[Any]) -> Any:
        return np.asarray(value, np.complex128 if dtype.kind in "fc" else dtype)

    def full(self, value: Any, shape: Shape, dtype: np.dtype[Any]) -> Any:
        return np.broadcast_to(self.enter(value, dtype), shape)

    def implementation(self, op: Op) -> Callable[..., Any]:
        """What NumPy does by comparing complex numbers is done by the op's formula: a predicate and a select."""
        if op.name in _COMPARING and op.evaluate is not None:
            return partial(op.evaluate, self)
        return super().implementation(op)

    def stop_gradient(self, x: Any) -> Any:
        return np.real(x) + 0j if x.dtype.kind == "c" else x

    def astype(self, x: Any, dtype: np.dtype[Any]) -> Any:
        return x.astype(np.complex128) if dtype.kind in "fc" else np.real(x).astype(dtype)

    def less(self, a: Any, b: Any) -> Any:
        return np.real(a) < np.real(b)

    def less_equal(self, a: Any, b: Any) -> Any:
        return np.real(a) <= np.real(b)

    def equal(self, a: Any, b: Any) -> Any:
        return np.real(a) == np.real(b)

    def not_equal(self, a: Any, b: Any) -> Any:
        return np.real(a) != np.real(b)

    def scale(self, g: Any, d: Any) -> Any:
        """Zero only where the tangent of g is zero as well."""
        return np.where(g == 0, 0, g * d)

    def sign(self, x: Any) -> Any:
        return np.sign(np.real(x)) + 0j

    def relu(self, x: Any) -> Any:
        return np.where(np.real(x) > 0, x, 0)

    def abs(self, x: Any) -> Any:
        return np.where(np.real(x) < 0, -x, x)

    def amax(self, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
        """Ties share the derivative evenly, as the gradient does."""
        return self._extreme(np.max, x, axes, keepdims)

    def amin(self, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
        return self._extreme(np.min, x, axes, keepdims)

    def _extreme(self, choose: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
        top = choose(np.real(x), axis=axes, keepdims=True)
        hit = np.real(x) == top
        tangent = np.sum(np.where(hit, np.imag(x), 0), axis=axes, keepdims=True) / np.sum(hit, axis=axes, keepdims=True)
        y = top + 1j * tangent
        return y if keepdims else np.squeeze(y, axes)

    def argmax(self, x: Any, axis: int) -> Any:
        return np.argmax(np.real(x), axis=axis)

    def one_hot(self, index: Any, n: int, dtype: np.dtype[Any]) -> Any:
        return self.astype(super().one_hot(index, n, np.dtype(float)), dtype)

    power: Any = Domain.power  # NumPy's own loses the tangent of whole exponents


COMPLEX_STEP = ComplexStep()
