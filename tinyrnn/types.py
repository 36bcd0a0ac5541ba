"""Types of arguments that many functions take."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Seed: TypeAlias = "int | np.random.Generator | None"  # in quotes: NumPy loads its generators when they are first asked for
"""What random numbers start from: a whole number, a generator to go on from, or None for fresh ones."""
