"""Maps from a graph to an equal graph, and from a graph to its derivatives."""

from .derivatives import grad, hessian, jacobian, jvp
from .save import save
from .unroll import unroll

__all__ = ["grad", "hessian", "jacobian", "jvp", "save", "unroll"]
