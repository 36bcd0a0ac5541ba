"""Complex step: one run at `x + i h v` gives the value and, as `imag / h`, the derivative along v, to rounding.

Squire & Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40, 1998.
Predicates and `stop_gradient` look at the real part, so kinks follow the branch of the real run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .domain import Domain, by_formula
from .float import Float

STEP = 1e-30


class ComplexStep(Float):
    """Floating numbers become complex128 with a tiny imaginary part; integers and bool stay as they are."""

    name = "complex step"

    # NumPy compares complex numbers in an order of its own, so these are predicates and selects
    clip: Any = by_formula("clip")
    maximum: Any = by_formula("maximum")
    minimum: Any = by_formula("minimum")
    relu: Any = by_formula("relu")
    power: Any = Domain.power  # NumPy's own loses the tangent of whole exponents

    def enter(self, value: Any, dtype: np.dtype[Any]) -> Any:
        return np.asarray(value, np.complex128 if dtype.kind in "fc" else dtype)

    def stop_gradient(self, x: npt.NDArray[Any]) -> Any:
        return np.real(x) + 0j if x.dtype.kind == "c" else x

    def astype(self, x: npt.NDArray[Any], dtype: np.dtype[Any]) -> Any:
        return x.astype(np.complex128) if dtype.kind in "fc" else super().astype(np.real(x), dtype)

    def less(self, a: Any, b: Any) -> Any:
        return np.real(a) < np.real(b)

    def less_equal(self, a: Any, b: Any) -> Any:
        return np.real(a) <= np.real(b)

    def equal(self, a: Any, b: Any) -> Any:
        return np.real(a) == np.real(b)

    def not_equal(self, a: Any, b: Any) -> Any:
        return np.real(a) != np.real(b)

    def abs(self, x: npt.NDArray[Any]) -> Any:
        """Its slope at 0 is 0, as the engine's is."""
        return x * self.sign(x) if x.dtype.kind == "c" else np.abs(x)

    def scale(self, g: npt.NDArray[Any], d: npt.NDArray[Any]) -> Any:
        """Zero only where the tangent of g is zero as well."""
        return np.where(g == 0, 0, g * d)

    def sign(self, x: npt.NDArray[Any]) -> Any:
        return np.sign(np.real(x)) + 0j

    def amax(self, x: npt.NDArray[Any], axes: tuple[int, ...], keepdims: bool) -> Any:
        """Ties share the derivative evenly, as the gradient does."""
        return self._extreme(np.max, x, axes, keepdims)

    def amin(self, x: npt.NDArray[Any], axes: tuple[int, ...], keepdims: bool) -> Any:
        return self._extreme(np.min, x, axes, keepdims)

    def _extreme(self, choose: Any, x: npt.NDArray[Any], axes: tuple[int, ...], keepdims: bool) -> Any:
        top = choose(np.real(x), axis=axes, keepdims=True)
        hit = np.real(x) == top
        tangent = np.sum(np.where(hit, np.imag(x), 0), axis=axes, keepdims=True) / np.sum(hit, axis=axes, keepdims=True)
        y = top + 1j * tangent
        return y if keepdims else np.squeeze(y, axes)

    def argmax(self, x: npt.NDArray[Any], axis: int) -> Any:
        return np.argmax(np.real(x), axis=axis)

    def one_hot(self, index: npt.NDArray[Any], n: int, dtype: np.dtype[Any]) -> Any:
        return self.astype(super().one_hot(index, n, np.dtype(float)), dtype)


COMPLEX_STEP = ComplexStep()


def complex_step_gradient(graph: Any, values: Mapping[str, Any], name: str, loss: str = "loss") -> Any:
    """`dloss/dname` of a graph, one run for each entry."""
    at = np.asarray(values[name], np.complex128)
    gradient = np.zeros(at.shape)
    for i in np.ndindex(at.shape):
        moved = at.copy()
        moved[i] += 1j * STEP
        gradient[i] = graph.run({**values, name: moved}, domain=COMPLEX_STEP)[loss].imag / STEP
    return gradient
