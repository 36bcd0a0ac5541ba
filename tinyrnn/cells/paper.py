"""Terms as they are written on paper, in plain letters: `h₃ = tanh(W x₃ + U h₂ + b)`.

Besides the kinds of `terms.py` there may be names at a fixed step (`at`, with (name, step)), derivatives of the loss at one
(`adjoint at`), those by a parameter (`derivative`, with its name), the share of a step in it (`share`, with (name, step)), a
parameter after an update (`new`), and numbers and arrays that were put in (`value`: numbers and tuples of them).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import latex
from .latex import accented
from .terms import LOGIC, Term, show, when

_SUBSCRIPTS = str.maketrans("0123456789-t+", "₀₁₂₃₄₅₆₇₈₉₋ₜ₊")
_POWERS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_BACK = {new: old for old, new in _POWERS.items()}
_LEVEL = {"<": 0, "<=": 0, ">": 0, ">=": 0, "+": 1, "-": 1, "*": 2, "·": 2, "@": 2, "/": 2, "**": 4}
_SIGNS = {"+": " + ", "-": " − ", "*": " ⊙ ", "·": "·", "/": "/", "<": " < ", "<=": " ≤ ", ">": " > ", ">=": " ≥ "}


def pretty(name: str) -> str:
    """`h[3]` as h₃, `h[t-1]` as hₜ₋₁, `C_tilde[t]` as C̃ₜ; anything else as it is."""
    stem, bracket, inside = name.partition("[")
    inside = inside.removesuffix("]")
    timed = bracket and set(inside) <= set("0123456789-t+")
    return accented(stem) + inside.translate(_SUBSCRIPTS) if timed else accented(stem) + name[len(stem):]


def rounded(x: float, digits: int) -> str:
    """A number with so many significant digits: 0.537, −1.2, 2.1·10⁻⁷."""
    text = f"{x:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        return f"{mantissa}·10{str(int(exponent)).translate(_POWERS)}".replace("-", "−")
    return "0" if float(text) == 0 else text.replace("-", "−")


def arrayed(x: Any, digits: int) -> str:
    """A number, a vector as [1, 2], a matrix as [[1, 2], [3, 4]]."""
    return rounded(float(x), digits) if not np.ndim(x) else f"[{', '.join(arrayed(row, digits) for row in x)}]"


def text(t: Term, digits: int = 3, level: int = 0) -> str:
    """A term in a line, with parentheses where `level` needs them."""
    def inner(a: Term, level: int = 0) -> str:
        return text(a, digits, level)

    match t.kind:
        case "value":
            plain = arrayed(t.value, digits)
            return f"({plain})" if level > 1 and (plain.startswith("−") or "·" in plain) else plain
        case "at":
            return pretty(f"{t.value[0]}[{t.value[1]}]")
        case "adjoint at":
            return _adjoint(*t.value)
        case "derivative":
            return f"∂L/∂{pretty(t.value)}"
        case "share":
            return f"∂L/∂{pretty(t.value[0])}⁽{str(t.value[1]).translate(_POWERS)}⁾"
        case "new":
            return f"new {pretty(t.value)}"
        case "signal":
            return pretty(f"{t.value[0]}[{when(t.value[1])}]")
        case "adjoint":
            return _adjoint(t.value[0], when(t.value[1]))
        case "number":
            return show(t)
        case "parameter" | "variable":
            return pretty(str(t.value))
        case "transpose":
            return f"{pretty(t.value)}ᵀ" if not t.args else f"({inner(t.args[0])})ᵀ"
        case "size":
            return f"|{pretty(t.value)}|"
        case "join":
            return f"[{', '.join(map(inner, t.args))}]"
        case "negate":
            return _bracket(f"−{inner(t.args[0], 2)}", level > 1)
        case "call" if t.value == "outer":
            return _bracket(f"{inner(t.args[0], 3)} ⊗ {inner(t.args[1], 3)}", level > 1)
        case "call" if t.value in LOGIC:
            return f"({LOGIC[t.value].join(map(inner, t.args))})" if len(t.args) > 1 else f"not {inner(t.args[0], 3)}"
        case "call":
            return f"{t.value}({', '.join(map(inner, t.args))})"
    own, (a, b) = _LEVEL[t.value], t.args
    if t.value == "**":
        power = show(b) if b.kind == "number" else ""
        base = inner(a, 4)
        return base + power.translate(_POWERS) if power.isdigit() else f"{base}^{inner(b, 4)}"
    put_in = any(x.kind == "value" for x in t.walk())  # letters stand side by side, numbers do not
    sign = ("·" if put_in else " ") if t.value == "@" else _SIGNS[t.value]
    return _bracket(inner(a, own) + sign + inner(b, own + 1), own < level)


def _adjoint(name: str, step: object) -> str:
    return f"∂ℓ/∂{pretty(f'{name[5:]}[{step}]')}" if name.startswith("loss ") else f"∂L/∂{pretty(f'{name}[{step}]')}"


def _bracket(text: str, needed: bool) -> str:
    return f"({text})" if needed else text


# ---- the same in LaTeX

def tex(t: Term, digits: int = 3) -> str:
    """A term in LaTeX; arrays stand as columns and matrices."""
    return latex.term(_lettered(t, digits, alone=True))


def _lettered(t: Term, digits: int, alone: bool = False) -> Term:
    """Kinds that `latex.term` does not know as pieces of LaTeX."""
    match t.kind:
        case "value":
            return Term("variable", tex_array(t.value, digits, alone))
        case "at":
            return Term("variable", latex.name(t.value[0], str(t.value[1])))
        case "adjoint at":
            return Term("variable", latex.adjoint(t.value[0], str(t.value[1])))
        case "derivative":
            return Term("variable", latex.adjoint(t.value))
        case "share":
            letter = rf"{{{latex.name(t.value[0])}}}^{{({t.value[1]})}}"
            return Term("variable", rf"\frac{{\partial L}}{{\partial {letter}}}")
        case "new":
            return Term("variable", rf"{{{latex.name(t.value)}}}^{{\mathrm{{new}}}}")
    return t.map(lambda a: _lettered(a, digits, t.kind in ("call", "join")))


def tex_array(x: Any, digits: int, alone: bool = True) -> str:
    """A number, a vector as a column, a matrix."""
    if not np.ndim(x):
        plain = rounded(float(x), digits).replace("−", "-")
        if "·" in plain:
            mantissa, power = plain.split("·10")
            plain = rf"{mantissa} \cdot 10^{{{power.translate(_BACK)}}}"
        return plain if alone or (plain[0] != "-" and r"\cdot" not in plain) else rf"\left({plain}\right)"
    rows = [" & ".join(tex_array(v, digits) for v in np.atleast_1d(row)) for row in x]
    return r"\begin{pmatrix}" + r" \\ ".join(rows) + r"\end{pmatrix}"
