"""Types of arguments that many functions take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Seed = int | np.random.Generator | None
"""What random numbers start from: a whole number, a generator to go on from, or None for fresh ones."""
