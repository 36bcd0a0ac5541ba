"""What the numbers of a run are."""

from .complex_step import COMPLEX_STEP
from .domain import Domain
from .float import FLOAT

__all__ = ["COMPLEX_STEP", "FLOAT", "Domain"]
