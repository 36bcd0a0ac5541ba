"""What the numbers of a run are."""

from .complex_step import COMPLEX_STEP
from .domain import Domain
from .exact import Exact
from .field import Degrees, Field
from .float import FLOAT
from .objects import Polynomials, Symbols
from .padding import Mark, Padding
from .value_numbers import VALUE_NUMBERS, ValueNumbers

__all__ = ["COMPLEX_STEP", "FLOAT", "VALUE_NUMBERS", "Degrees", "Domain", "Exact", "Field", "Mark", "Padding", "Polynomials",
           "Symbols", "ValueNumbers"]
