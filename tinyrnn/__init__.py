"""tinyrnn: recurrent networks that one can see through.

Write a recurrent cell as equations; tinyrnn proves its gradients, draws its unrolled graph, and trains it.
"""

from . import backends, cells, domains, io, nn, optim, train
from .cells import Cell
from .errors import EquationError, ProofError, StaleError, TinyRNNError
from .functional import (
    T,
    abs,
    arange,
    argmax,
    astype,
    broadcast_to,
    clip,
    concat,
    cos,
    cumsum,
    einsum,
    elu,
    exp,
    expm1,
    flip,
    gather,
    gelu,
    grad,
    hard_sigmoid,
    hessian,
    input,
    jacobian,
    jvp,
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
    one_hot,
    outer,
    pad,
    parameter,
    pick,
    relu,
    remat,
    reshape,
    rms_norm,
    scan,
    sigmoid,
    sign,
    silu,
    sin,
    softmax,
    softplus,
    split,
    sqrt,
    stack,
    stop_gradient,
    sum,
    tanh,
    tensor,
    transpose,
    value_and_grad,
    var,
    where,
)
from .ir import Graph
from .nn import load
from .symbolic.derive import Derivation, derive
from .symbolic.equivalent import Equivalence, equivalent
from .symbolic.prove import Proof, prove
from .tensor import Tensor
from .viz import Drawing, draw

__version__ = "0.1.0"
