"""Maps from a graph to an equal graph, and from a graph to its derivatives."""

from .ad.derivatives import grad, hessian, jacobian, jvp
from .checkpoint import checkpoint
from .defer import defer
from .fuse import fuse
from .hoist import hoist
from .merge_products import merge_products
from .partition import partition
from .simplify import simplify
from .split_products import split_products
from .unroll import unroll

__all__ = ["checkpoint", "defer", "fuse", "grad", "hessian", "hoist", "jacobian", "jvp", "merge_products", "partition",
           "simplify", "split_products", "unroll"]
