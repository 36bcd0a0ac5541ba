"""tinyrnn: recurrent networks that one can see through.

Write a recurrent cell as equations; tinyrnn proves its gradients, draws its unrolled graph, and trains it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import backends, cells, domains, io, nn, optim, train
from .cells import Cell
from .compile import compile
from .errors import EquationError, FallbackWarning, ProofError, StaleError, TinyRNNError
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
from .functional import entrywise as _entrywise
from .functions import FUNCTIONS as _FUNCTIONS
from .ir import Graph
from .ir.graph import LENSES as _LENSES
from .nn import load
from .tensor import Tensor

if TYPE_CHECKING:
    from .analysis.leaks import LeakReport, leaks
    from .analysis.report import Report, analyze
    from .analysis.xray import XRay, xray
    from .symbolic.derive import Derivation, derive
    from .symbolic.equivalent import Equivalence, equivalent
    from .symbolic.prove import Proof, prove
    from .viz.drawing import Drawing, draw
    from .viz.page import Page, page

__version__ = "0.1.0"

_ON_FIRST_USE = {
    "analyze": "analysis.report", "Report": "analysis.report", "xray": "analysis.xray", "XRay": "analysis.xray",
    "leaks": "analysis.leaks", "LeakReport": "analysis.leaks", "page": "viz.page", "Page": "viz.page",
    "draw": "viz.drawing", "Drawing": "viz.drawing",
    "derive": "symbolic.derive", "Derivation": "symbolic.derive", "equivalent": "symbolic.equivalent",
    "Equivalence": "symbolic.equivalent", "prove": "symbolic.prove", "Proof": "symbolic.prove"}


def _lens(name: str) -> Any:
    """A picture whose module is loaded when it is first asked for, and enters the real one."""
    def first(*args: Any, **options: Any) -> Any:
        import_module(".viz.drawing", __name__)
        return _LENSES[name](*args, **options)

    return first


_LENSES.update({name: _lens(name) for name in ("draw", "path")})


def __getattr__(name: str) -> Any:
    """Proofs, derivations, pictures and analyses are loaded when they are first asked for; `import tinyrnn` stays quick."""
    if name in _FUNCTIONS:
        return _entrywise(name)
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'tinyrnn' has no attribute {name!r}")
    return getattr(import_module(f".{_ON_FIRST_USE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE, *_FUNCTIONS})
