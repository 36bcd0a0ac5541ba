"""Maps from a graph to an equal graph, and from a graph to its derivatives."""

from .concat import concat
from .defer import defer
from .derivatives import grad, hessian, jacobian, jvp
from .fuse import fuse
from .gates import gates
from .hoist import hoist
from .save import save
from .simplify import simplify
from .unroll import unroll

__all__ = ["concat", "defer", "fuse", "gates", "grad", "hessian", "hoist", "jacobian", "jvp", "save", "simplify", "unroll"]
