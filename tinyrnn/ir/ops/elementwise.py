"""Elementwise ops: each one formula over a domain, and its gradient as one line.

Kinks follow the usual conventions: relu'(0) = 0, |x|'(0) = 0, a tie of maximum or minimum gives its slope to the
second operand, and clip passes the gradient on its closed interval.  At a = 0 the slope of a ** b along b >= 0 is 0, and
that of a ** 0 along a.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DTypeError
from ...functions import ElementwiseFunction, check_free, declare
from ...shapes import Shape, broadcast
from ..node import OPERATORS, Bits, Builder, DType, Node, apply, attribute, promote
from ..op import CATALOGUE, PRIMITIVE, Kind, Op, Symmetry, Trait, Vjp, per_entry, register
from .leaves import FULL, INPUT, LEAF, box_of, dtype_of, full, is_number, lift, literal_value, pair

BOOL = np.dtype(bool)
EXACT, COMPARES, WHOLE = Trait.EXACT, Trait.COMPARES, Trait.WHOLE
MOVES = Trait.MOVES | EXACT | Trait.CHEAP   # moves of numbers; a view of them takes no memory
VIEW = MOVES | Trait.VIEW
ACTIVATES = Trait.ACTIVATES
NAMED = ACTIVATES | Trait.NAMED
SATURATES = NAMED | Trait.SATURATES


def _shape(src: tuple[Node, ...]) -> Shape:
    shape = src[0].shape
    for other in src[1:]:
        if other.shape != shape:
            return broadcast(*(s.shape for s in src))
    return shape


def _same(*src_at: object) -> tuple[Shape, DType]:
    src = tuple([s for s in src_at if isinstance(s, Node)])
    return _shape(src), promote(*[s.dtype for s in src])


def _float(name: str) -> Any:
    def infer(x: Node, *at: object) -> tuple[Shape, DType]:
        if x.dtype.kind not in "fc":
            raise DTypeError(f"{name} needs floating-point numbers, got {x.dtype}; use x.astype('float64')")
        return x.shape, x.dtype
    return infer


def _real(name: str, infer: Any) -> Any:
    def check(*src_at: object) -> tuple[Shape, DType]:
        for s in src_at:
            if isinstance(s, Node) and s.dtype.kind == "c":
                raise DTypeError(f"{name} has no meaning for complex numbers, got {s.dtype}")
        result: tuple[Shape, DType] = infer(*src_at)
        return result
    return check


def _numbers(name: str) -> Any:
    def infer(*src_at: object) -> tuple[Shape, DType]:
        shape, dtype = _same(*src_at)
        if dtype.kind == "b":
            raise DTypeError(f"{name} has no meaning for bools; use ~, &, | or x.astype(int)")
        return shape, dtype
    return infer


def _quotient(a: Node, b: Node) -> tuple[Shape, DType]:
    shape, dtype = _same(a, b)
    return shape, np.dtype(np.float64) if dtype.kind in "biu" else dtype


def _logical(name: str) -> Any:
    def infer(*src: Node) -> tuple[Shape, DType]:
        for s in src:
            if s.dtype.kind != "b":
                raise DTypeError(f"{name} joins bools, got {s.dtype}; compare first: (x > 0) {name} (y > 0)")
        return _shape(src), BOOL
    return infer


def _bool(*src: Any) -> tuple[Shape, DType]:
    return _shape(tuple([s for s in src if isinstance(s, Node)])), BOOL


Formula = Callable[..., Any]
Rule = Callable[..., tuple[Shape, DType]]
CHEAP_FLOPS = 2  # up to here an entry is computed again sooner than read


def unary(name: str, formula: Formula | None, vjp: Vjp | None, *, label: str = "", flops: int = 1, infer: Rule | None = None,
          kind: Kind = "elementwise", traits: Trait = Trait.NONE, written: str = "", at_zero: float | None = None,
          symmetry: Symmetry | None = None, doc: str = "", **words: str) -> Builder:
    """Declare an op of one operand (and attributes); with a `doc` users have it as `tr.<name>` and in equations, with the
    further `words` of an `ElementwiseFunction`: latex, example, raises."""
    if doc:
        check_free(name)
    traits |= Trait.CHEAP if flops <= CHEAP_FLOPS else Trait.NONE
    op = register(Op(name, infer or _float(name), formula, vjp, kind, label or name, per_entry(flops), None, True, traits,
                     written or name, at_zero=at_zero, symmetry=symmetry))

    def build(x: Node, *at: object) -> Node:
        return apply(op, (x,), at)
    OPERATORS[name] = build
    if doc:
        declare(ElementwiseFunction(name, build, 1, doc, **words))
    return build


def binary(name: str, formula: Formula | None, vjp: Vjp | None, *, label: str = "", flops: int = 1, infer: Rule = _same,
           simplify: Any = None, kind: Kind = "elementwise", traits: Trait = Trait.NONE, written: str = "", doc: str = "",
           **words: str) -> Builder:
    """Declare an op of two operands, either of which may be a Python number; `doc` as for one operand."""
    if doc:
        check_free(name)
    traits |= Trait.CHEAP if flops <= CHEAP_FLOPS else Trait.NONE
    op = register(Op(name, infer, formula, vjp, kind, label or name, per_entry(flops), simplify, True, traits, written or name))

    def build(a: object, b: object) -> Node:
        return apply(op, pair(_roomy(a, b), _roomy(b, a)) if kind == "constant" else pair(a, b))
    OPERATORS[name] = build
    if doc:
        declare(ElementwiseFunction(name, build, 2, doc, **words))
    return build


def _roomy(x: object, other: object) -> Any:
    """Whole numbers in a wider type where they are compared with a Python number that their own cannot hold."""
    if not isinstance(x, Node) or x.dtype.kind not in "iu" or type(other) is not int:
        return x
    info = np.iinfo(x.dtype)
    return x if info.min <= other <= info.max else astype(x, np.float64 if x.dtype.itemsize == 8 else np.int64)


# ---- simplifications that are exact in every domain

def _keeps(kept: Node, other: Node) -> bool:
    """Whether `kept` alone already has the shape and dtype of the pair."""
    return (kept.dtype is other.dtype or promote(kept.dtype, other.dtype) == kept.dtype) and (
        not other.shape or kept.shape == other.shape or broadcast(kept.shape, other.shape) == kept.shape)


def _drop_zero(src: tuple[Node, ...], at: tuple[Any, ...]) -> Node | None:
    a, b = src
    if a.op is FULL and is_number(a, 0.0) and _keeps(b, a):
        return b
    return a if b.op is FULL and is_number(b, 0.0) and _keeps(a, b) else None


def _drop_one(src: tuple[Node, ...], at: tuple[Any, ...]) -> Node | None:
    a, b = src
    if a.op is FULL and is_number(a, 1.0) and _keeps(b, a):
        return b
    return a if b.op is FULL and is_number(b, 1.0) and _keeps(a, b) else None


# ---- arithmetic
#    `scale(g, d)` is g d, and 0 where g is 0 whatever d is: a branch that `where` did not take, or a value that was
#    clipped away, sends 0 back even where its own derivative is infinite or NaN.
#    name        formula                     gradient, from g = dL/dy, the result y and the operands
add  = binary("add", lambda m, a, b: a + b,  lambda g, y, a, b: (g, g),          label="+", written="+", simplify=_drop_zero)
sub  = binary("sub", lambda m, a, b: a - b,  lambda g, y, a, b: (g, -g),         label="-", written="-", infer=_numbers("-"))
mul  = binary("mul", lambda m, a, b: a * b,  lambda g, y, a, b: (g * b, g * a),  label="⊙", written="*", simplify=_drop_one)
div  = binary("div", lambda m, a, b: a / b,  lambda g, y, a, b: (scale(g, 1 / b), -scale(g, y / b)),
              label="/", written="/", infer=_quotient)
scale: Builder = binary("scale", lambda m, g, d: m.where(m.equal(g, 0), 0, g * d),
                        lambda G, y, g, d: (scale(G, d), scale(G, g)), label="⊙", written="*", flops=2, kind="multilinear",
                        infer=_numbers("scale"), simplify=_drop_one)
neg  = unary("neg",  lambda m, x: -x,        lambda g, y, x: -g,                 label="-", infer=_numbers("-"), traits=EXACT,
             at_zero=0, symmetry="odd")

_power: Builder = binary("power", PRIMITIVE,
                         lambda g, y, a, b: (scale(g, scale(b, _power(a, b - 1))),
                                             scale(g, scale(y, log_or_zero(astype(a, y.dtype))))),
                         label="^", written="**", flops=20, infer=_numbers("**"))
_powk = unary("powk", PRIMITIVE, lambda g, y, x, k: scale(g, float(k) * power(x, k - 1)), label="^k", flops=10,
              traits=Trait.CHEAP)


def power(base: object, by: object) -> Node:
    """`a ** b`; a constant exponent keeps the base free to be zero or negative."""
    a, b = pair(base, by)
    given = literal_value(b)
    if a.dtype.kind in "iu" and b.dtype.kind in "iu" and isinstance(given, int) and given < 0:
        raise DTypeError(f"{a.dtype} numbers have no negative powers; use x.astype('float64') ** {given}")
    if given is None or isinstance(given, complex) or not a.floating or not _keeps(a, b):
        return _power(a, b)
    exponent = float(given)  # compared as a number, not by its bits
    if exponent == 1:
        return a
    if exponent == 0:
        return full(1, a.shape, a.dtype)
    return _powk(a, Bits(exponent))


OPERATORS["power"] = power

# ---- functions of one number
exp   = unary("exp",   PRIMITIVE, lambda g, y, x: scale(g, y),           flops=10, traits=NAMED, at_zero=1, latex=r"\exp",
              doc="`eˣ`, entry by entry.", example="0.0, 1.0 -> 1.   , 2.718")
expm1 = unary("expm1", PRIMITIVE, lambda g, y, x: scale(g, exp(x)),      flops=10, traits=ACTIVATES, at_zero=0,
              doc="`eˣ - 1`, precise near 0.", example="0.0, 1.0 -> 0.   , 1.718")
log: Builder = unary("log", PRIMITIVE, lambda g, y, x: scale(g, 1 / x),  flops=10, traits=ACTIVATES, latex=r"\log",
                     doc="The natural logarithm.", example="1.0, 2.0 -> 0.   , 0.693")
log_or_zero: Builder = unary("log_or_zero", lambda m, x: m.log(m.where(m.equal(x, 0), 1, x)), lambda g, y, x: scale(g, 1 / x),
                             flops=11, label="log", written="log", at_zero=0)  # for 0 ** b, whose slope along b is 0
log1p = unary("log1p", PRIMITIVE, lambda g, y, x: scale(g, 1 / (1 + x)), flops=10, traits=ACTIVATES, at_zero=0,
              doc="`log(1 + x)`, precise near 0.", example="0.0, 1.0 -> 0.   , 0.693")
sqrt  = unary("sqrt",  PRIMITIVE, lambda g, y, x: scale(g, 0.5 / y),     flops=4, label="√", traits=ACTIVATES, at_zero=0,
              doc="The square root; its slope at 0 is infinite.", example="0.0, 9.0 -> 0., 3.")
sin   = unary("sin",   PRIMITIVE, lambda g, y, x: g * cos(x),            flops=10, traits=NAMED, at_zero=0, symmetry="odd",
              latex=r"\sin", doc="The sine of radians.", example="0.0, 1.0 -> 0.   , 0.841")
cos: Builder = unary("cos", PRIMITIVE, lambda g, y, x: -(g * sin(x)),    flops=10, traits=NAMED, at_zero=1, symmetry="even",
                     latex=r"\cos", doc="The cosine of radians.", example="0.0, 1.0 -> 1.  , 0.54")
tanh  = unary("tanh",  PRIMITIVE, lambda g, y, x: g * (1 - y * y),       flops=12, traits=SATURATES, at_zero=0, symmetry="odd",
              latex=r"\tanh", doc="The hyperbolic tangent; its derivative is `1 - y²`.", example="0.0, 1.0 -> 0.   , 0.762")
sigmoid  = unary("sigmoid", lambda m, x: 0.5 + 0.5 * m.tanh(0.5 * x), lambda g, y, x: g * (y - y * y), flops=14, label="σ",
                 traits=SATURATES, at_zero=0.5, symmetry="complement", latex=r"\sigma",
                 doc="`1 / (1 + e⁻ˣ)`, stable in both tails; its derivative is `y - y²`.", example="0.0, 1.0 -> 0.5  , 0.731")
softplus = unary("softplus", lambda m, x: m.log1p(m.exp(-m.abs(x))) + m.relu(x), lambda g, y, x: g * sigmoid(x), flops=24,
                 traits=NAMED, doc="`log(1 + eˣ)` without overflow.", example="0.0, 1.0 -> 0.693, 1.313")

# ---- predicates: no derivative flows; complex step compares real parts
less       = binary("less",       PRIMITIVE, None, label="<", written="<",  infer=_real("<", _bool),  kind="constant",
                    traits=COMPARES)
less_equal = binary("less_equal", PRIMITIVE, None, label="≤", written="<=", infer=_real("<=", _bool), kind="constant",
                    traits=COMPARES)
equal      = binary("equal",      PRIMITIVE, None, label="=", written="==", infer=_bool, kind="constant", traits=COMPARES)
not_equal  = binary("not_equal",  PRIMITIVE, None, label="≠", written="!=", infer=_bool, kind="constant", traits=COMPARES)
both       = binary("both",       lambda m, a, b: a & b, None, label="and", written="and", infer=_logical("&"), kind="constant")
either     = binary("either",     lambda m, a, b: a | b, None, label="or",  written="or",  infer=_logical("|"), kind="constant")
negate     = unary("negate",      lambda m, a: ~a,       None, label="not", written="not", infer=_logical("~"), kind="constant")
sign       = unary("sign",        PRIMITIVE, None, infer=_real("sign", _same), kind="constant", traits=COMPARES, at_zero=0,
                   symmetry="odd", doc="-1, 0 or 1; no gradient flows.",
                   example="-2.0, 0.0, 3.0 -> -1.,  0.,  1.", raises="Raises `DTypeError` for complex numbers.")


# ---- select, and what follows from a predicate and a select
def _select(c: Node, a: Node, b: Node) -> tuple[Shape, DType]:
    if c.dtype.kind != "b":
        raise DTypeError(f"where needs a bool condition, got {c.dtype}; compare it: where(c != 0, a, b)")
    return _shape((c, a, b)), promote(a.dtype, b.dtype)


WHERE = register(Op("where", _select, PRIMITIVE, lambda g, y, c, a, b: (None, only(c, g), unless(c, g)),
                    "elementwise", "where", per_entry(1), entrywise=True, traits=EXACT | Trait.CHEAP, written="where"))


def where(c: Node, a: object, b: object) -> Node:
    """`a` where the condition holds, `b` elsewhere; the branch that is not taken gets gradient 0."""
    if not isinstance(a, Node) and not isinstance(b, Node):
        a = lift(np.asarray(a, np.float64) if isinstance(a, (int, float)) else a, c)
    a, b = pair(a, b)
    return a if a is b and a.shape == _shape((c, a)) else apply(WHERE, (c, a, b))


def only(c: Node, g: Node) -> Node:
    """`g` where the condition holds, 0 elsewhere."""
    return where(c, g, full(0, (), g.dtype))


def unless(c: Node, g: Node) -> Node:
    """0 where the condition holds, `g` elsewhere."""
    return where(c, full(0, (), g.dtype), g)


def _clipped(m: Any, x: object, low: float, high: float) -> Any:
    low, high = float(low), float(high)
    return m.where(m.less(x, low), low, m.where(m.less(high, x), high, x))


def _within(x: Node, low: float, high: float) -> Node:
    return both(less_equal(float(low), x), less_equal(x, float(high)))


PICKS = EXACT | COMPARES
abs_    = unary("abs",  lambda m, x: m.where(m.less(x, 0), -x, x),          lambda g, y, x: g * sign(x),
                infer=_real("abs", _same), label="|·|", traits=PICKS | ACTIVATES, at_zero=0, symmetry="even",
                doc="`|x|`, with slope 0 at 0.",
                example="-2.0, 3.0 -> 2., 3.", raises="Raises `DTypeError` for complex numbers.")
relu    = unary("relu", lambda m, x: m.where(m.less(0, x), x, 0),           lambda g, y, x: only(less(0, x), g),
                infer=_real("relu", _float("relu")), traits=PICKS | NAMED, at_zero=0, doc="`max(x, 0)`, with slope 0 at 0.",
                example="-2.0, 3.0 -> 0., 3.")
maximum = binary("maximum", lambda m, a, b: m.where(m.less(b, a), a, b),
                 lambda g, y, a, b: (only(less(b, a), g), unless(less(b, a), g)),
                 infer=_real("maximum", _same), label="max", traits=PICKS,
                 doc="The larger of two, entry by entry; a tie gives its gradient to b.",
                 example="1.0, 4.0; 3.0, 2.0 -> 3., 4.", raises="Raises `DTypeError` for complex numbers.")
minimum = binary("minimum", lambda m, a, b: m.where(m.less(a, b), a, b),
                 lambda g, y, a, b: (only(less(a, b), g), unless(less(a, b), g)),
                 infer=_real("minimum", _same), label="min", traits=PICKS,
                 doc="The smaller of two, entry by entry; a tie gives its gradient to b.",
                 example="1.0, 4.0; 3.0, 2.0 -> 1., 2.", raises="Raises `DTypeError` for complex numbers.")
clip    = unary("clip", _clipped, lambda g, y, x, low, high: only(_within(x, low, high), g),
                infer=_real("clip", _float("clip")), flops=2, traits=PICKS | ACTIVATES | Trait.SATURATES)

# ---- identities with a meaning of their own
stop_gradient = unary("stop_gradient", PRIMITIVE, None, infer=_same, label="stop", flops=0, kind="constant", at_zero=0)


def _cast(x: Node, dtype: DType) -> tuple[Shape, DType]:
    if x.dtype.kind == "c" and dtype.kind != "c":
        raise DTypeError(f"casting {x.dtype} to {dtype} would drop the imaginary part")
    return x.shape, dtype


CAST = register(Op("astype", _cast, PRIMITIVE, lambda g, y, x, dtype: astype(g, x.dtype), "linear", "cast",
                   entrywise=True, traits=WHOLE | EXACT | Trait.CHEAP, names=("dtype",), at_zero=0))


def astype(x: Node, dtype: npt.DTypeLike) -> Node:
    """The same numbers in another dtype."""
    d = dtype_of(dtype)
    return x if x.dtype == d else apply(CAST, (x,), (d,))


def _drop_zeros(src: tuple[Node, ...], at: tuple[Any, ...]) -> Node | None:
    kept = tuple(s for s in src if not is_number(s, 0.0)) or src[:1]
    if len(kept) == len(src) or _same(*kept) != _same(*src):
        return None
    return kept[0] if len(kept) == 1 else apply(ADD_N, kept)


ADD_N = register(Op("add_n", _same, PRIMITIVE, lambda g, y, *x: (g,) * len(x), "linear", "Σ",
                    lambda node: (len(node.src) - 1) * per_entry(1)(node), _drop_zeros, entrywise=True,
                    traits=Trait.ADDS | Trait.CHEAP, written="+"))


ADD, MUL, NEG, DIV, SCALE = (CATALOGUE[name] for name in ("add", "mul", "neg", "div", "scale"))
SUMS = (ADD, ADD_N)


def add_n(parts: list[Node]) -> Node:
    """One visible sum of many terms, added from left to right."""
    return parts[0] if len(parts) == 1 else apply(ADD_N, tuple(parts))


# ---- names that travel inside a body
TAG = register(Op("tag", lambda x, *at: (x.shape, x.dtype), lambda m, x, *at: x,
                  lambda g, y, x, name, cell: tag(g, f"dloss/d{name}", cell), "linear", "name", entrywise=True,
                  traits=WHOLE | VIEW))


def tag(x: Node, name: str, cell: str | None = None) -> Node:
    """An identity that carries a name; unrolling turns it into a label."""
    return apply(TAG, (x,), (name, cell))


def name_of(n: Node) -> str:
    """The name that an input, a leaf or a tag carries; "" for all others."""
    if n.op is LEAF:
        return box_of(n).name or ""
    return str(n.at[0]) if n.op in (INPUT, TAG) else ""


cell_of: Callable[[Node], str | None] = attribute(1)  # the cell of whose value a tag is the name
