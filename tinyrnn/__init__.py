"""tinyrnn: recurrent networks that one can see through.

Write a recurrent cell as equations; tinyrnn proves its gradients, draws its unrolled graph, and trains it.
"""

from typing import TYPE_CHECKING, Any

from . import backends, cells, domains, io, nn, optim, train
from .cells import Cell
from .door import PUBLIC as _PUBLIC
from .door import behind as _behind
from .errors import EquationError, FallbackWarning, ProofError, StaleError, TinyRNNError
from .functions import FUNCTIONS as _FUNCTIONS
from .ir import Graph
from .nn import load
from .tensor.compile import compile
from .tensor.functional import (
    abs,
    argmax,
    astype,
    clip,
    cos,
    cumsum,
    einsum,
    elu,
    exp,
    expm1,
    gelu,
    hard_sigmoid,
    input,
    layer_norm,
    log,
    log1p,
    log_softmax,
    logsumexp,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    outer,
    parameter,
    relu,
    rms_norm,
    sigmoid,
    sign,
    silu,
    sin,
    softmax,
    softplus,
    sqrt,
    stop_gradient,
    sum,
    tanh,
    tensor,
    var,
    where,
)
from .tensor.functional import entrywise as _entrywise
from .tensor.rearrange import (
    T,
    arange,
    broadcast_to,
    concat,
    flip,
    gather,
    one_hot,
    pad,
    pick,
    reshape,
    split,
    stack,
    transpose,
)
from .tensor.tensor import Tensor
from .tensor.transforms import grad, hessian, jacobian, jvp, remat, scan, value_and_grad

if TYPE_CHECKING:
    from .analysis.leaks import LeakReport, leaks
    from .analysis.report import Report, analyze
    from .analysis.xray import XRay, xray
    from .symbolic.derivation.derive import Derivation, derive
    from .symbolic.equivalence.equivalent import Equivalence, equivalent
    from .symbolic.proof.prove import Proof, prove
    from .viz.drawing import Drawing, draw
    from .viz.page import Page, page

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Proofs, derivations, pictures and analyses are loaded when they are first asked for; `import tinyrnn` stays quick."""
    if name in _FUNCTIONS:
        return _entrywise(name)
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tinyrnn' has no attribute {name!r}")
    return _behind(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_FUNCTIONS})
