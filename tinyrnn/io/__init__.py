"""Files: weights with the equations beside them; weights of other frameworks, in and out."""

from typing import Any

from ..door import EXCHANGE, behind
from .weights import read_weights, write_weights

__all__ = [*EXCHANGE, "read_weights", "write_weights"]


def __getattr__(name: str) -> Any:
    """What other frameworks need stands on a higher floor, and is loaded when it is first asked for."""
    if name not in EXCHANGE:
        raise AttributeError(f"module 'tinyrnn.io' has no attribute {name!r}")
    return behind(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *EXCHANGE})
