"""tinyrnn: recurrent networks that one can see through.

Write a recurrent cell as equations; tinyrnn proves its gradients, draws its unrolled graph, and trains it.

>>> import tinyrnn as tr
>>> cell = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
>>> tr.prove(cell).holds
True

Cells       Cell, load; cells (LSTM, GRU, RNN and others by name: cells["mgu"], cells.names())
Look        draw, page, analyze, xray, leaks; what they give: Drawing, Page, Report, XRay, LeakReport
Prove       prove, derive, equivalent; what they give: Proof, Derivation, Equivalence
Teach       worked, check, slides; what they give: Worked, Judgement
Layers      nn (RNN, LSTM, GRU, Recurrent, Sequential, ...), each with fit, evaluate, predict, save, draw, xray
Training    train (callbacks, metrics), optim (Adam, SGD, ..., schedules), datasets, io
Tensors     Tensor, tensor, parameter, input; Graph, compile; backends.available(), domains
Gradients   grad, value_and_grad, vjp, jvp, jacobian, hessian, custom_gradient, functional_call, scan, remat, stop_gradient
Arithmetic  abs, sign, exp, expm1, log, log1p, sqrt, sin, cos, maximum, minimum, clip, where, astype
Activations sigmoid, tanh, relu, softplus, elu, gelu, silu, hard_sigmoid, softmax, log_softmax, layer_norm, rms_norm
Over axes   sum, mean, max, min, var, cumsum, argmax, logsumexp; matmul, outer, einsum
Moving      reshape, transpose, T, broadcast_to, concat, stack, split, pad, flip, gather, pick, one_hot, arange
Errors      TinyRNNError and what derives from it: EquationError, ProofError, StaleError; FallbackWarning

help(tr.draw), or of any other name, has its equation or meaning, shapes, errors and an example.
"""

from typing import TYPE_CHECKING
from typing import Any as _Any

from . import backends, cells, domains, io, nn, optim, train
from .cells import Cell
from .door import PUBLIC as _PUBLIC
from .door import behind as _behind
from .errors import EquationError, FallbackWarning, ProofError, StaleError, TinyRNNError
from .functions import FUNCTIONS as _FUNCTIONS
from .ir import Graph
from .nn import load
from .tensor.compile import compile
from .tensor.custom import custom_gradient
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
from .tensor.pullbacks import functional_call, vjp
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
from .version import VERSION as _VERSION

if TYPE_CHECKING:
    from . import datasets
    from .analysis.leaks import LeakReport, leaks
    from .analysis.report import Report, analyze
    from .analysis.xray import XRay, xray
    from .symbolic.derivation.derive import Derivation, derive
    from .symbolic.equivalence.equivalent import Equivalence, equivalent
    from .symbolic.proof.prove import Proof, prove
    from .teaching.judge import Judgement, check
    from .teaching.slides import slides
    from .teaching.worked import Worked, worked
    from .viz.drawing import Drawing, draw
    from .viz.page import Page, page

__version__ = _VERSION
__all__ = [
    "Cell", "Derivation", "Drawing", "EquationError", "Equivalence", "FallbackWarning", "Graph", "Judgement", "LeakReport",
    "Page", "Proof", "ProofError", "Report", "StaleError", "T", "Tensor", "TinyRNNError", "Worked", "XRay", "abs",
    "analyze", "arange", "argmax", "astype", "backends", "broadcast_to", "cells", "check", "clip", "compile", "concat",
    "cos", "cumsum", "custom_gradient", "datasets", "derive", "domains", "draw", "einsum", "elu", "equivalent", "exp",
    "expm1", "flip", "functional_call", "gather", "gelu", "grad", "hard_sigmoid", "hessian", "input", "io", "jacobian",
    "jvp", "layer_norm", "leaks", "load", "log", "log1p", "log_softmax", "logsumexp", "matmul", "max", "maximum", "mean",
    "min", "minimum", "nn", "one_hot", "optim", "outer", "pad", "page", "parameter", "pick", "prove", "relu", "remat",
    "reshape", "rms_norm", "scan", "sigmoid", "sign", "silu", "sin", "slides", "softmax", "softplus", "split", "sqrt",
    "stack", "stop_gradient", "sum", "tanh", "tensor", "train", "transpose", "value_and_grad", "var", "vjp", "where",
    "worked", "xray"]


def __getattr__(name: str) -> _Any:
    """Proofs, derivations, pictures and analyses are loaded when they are first asked for; `import tinyrnn` stays quick."""
    if name in _FUNCTIONS:
        return _entrywise(name)
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tinyrnn' has no attribute {name!r}")
    return _behind(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_FUNCTIONS})
