"""Equations as LaTeX.  Names are escaped: nothing a user writes reaches LaTeX as a command."""

from __future__ import annotations

import unicodedata

from ..functions import FUNCTIONS
from .latex_lines import environment
from .terms import LOGIC, System, Term, show, when

_OPERATORS = {"+": "+", "-": "-", "*": r"\odot", "·": r"\cdot", "@": r"\,", "<": "<", "<=": r"\le", ">": ">", ">=": r"\ge"}
_LEVEL = {"+": 1, "-": 1, "*": 2, "·": 2, "@": 2, "<": 0, "<=": 0, ">": 0, ">=": 0}

_COMMANDS = set("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma varsigma tau upsilon "
                "phi chi psi omega digamma Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega".split())
_LOGIC = {"and": r"\land", "or": r"\lor"}
_ALIKE = dict(zip("ΑΕΗΙΟΥο", "AEHIOYo", strict=True))   # without an accent these are not taken as names
_ACCENTS = {"\u0301": r"\acute", "\u0308": r"\ddot", "\u0303": r"\tilde", "\u0302": r"\hat", "\u0304": r"\bar"}
_SPELLED = {"tilde": "\u0303", "hat": "\u0302", "bar": "\u0304", "prime": "′"}  # behind one letter: `C_tilde`


def accented(text: str) -> str:
    """`C_tilde` as C̃, `h_prime_f` as h′_f; anything else as it is."""
    stem, _, rest = text.partition("_")
    accent, *below = rest.split("_", 1)
    known = len(stem) == 1 and accent in _SPELLED and below != [""]
    return "_".join([stem + _SPELLED[accent], *below]) if known else text


def name(text: str, step: str = "") -> str:
    """`W_f` as W_{f}, `h_new` at t as h^{\\mathrm{new}}_{t}, `C_tilde` as \\tilde{C}; unlike names look unlike."""
    plain = text.rstrip("_") or "_"
    tail = r"\_" * (len(text) - len(plain))
    lead = len(plain) - len(plain.lstrip("_"))
    stem, _, rest = (plain if lead else accented(plain))[lead:].partition("_")
    prime = r"\prime" if stem.endswith("′") else ""
    body = r"\_" * lead + (letters(stem.removesuffix("′")) if stem else "") + tail
    below = r"\mathrm{t}" if rest == "t" else letters(accented(rest).replace("_", ",")) if rest else ""  # h_t is not h[t]
    if not step:
        return body + (f"_{{{below}}}" if below else "") + (f"^{{{prime}}}" if prime else "")
    above = prime + (f"({below})" if below else "")
    return body + (f"^{{{above}}}" if above else "") + f"_{{{step}}}"


def adjoint(text: str, step: str = "") -> str:
    """The derivative of the loss by a quantity; `loss h` means the part that enters at this step from the loss itself."""
    above = rf"\ell_{{{step}}}" if text.startswith("loss ") else "L"
    return rf"\frac{{\partial {above}}}{{\partial {name(text.removeprefix('loss '), step)}}}"


def letters(text: str) -> str:
    """Letters, each with the accents behind it, in LaTeX."""
    out: list[str] = []
    for c in text:
        if c in _ACCENTS and out:
            out[-1] = rf"{_ACCENTS[c]}{{{out[-1]}}}"
        else:
            out.append(r"{}^{\prime}" if c == "′" else letter(c))
    return out[0] if len(out) == 1 else r"\mathrm{" + "".join(out) + "}"


def letter(c: str) -> str:
    """A letter as LaTeX has it: a command for a Greek one, an accent around it, and its name for what LaTeX lacks."""
    if c.isascii():
        return c
    parts = unicodedata.normalize("NFD", c)
    plain, accents = parts[0], parts[1:]
    words = unicodedata.name(plain).replace("LAMDA", "LAMBDA").replace("FINAL SIGMA", "VARSIGMA").split()
    words = [w.lower() for w in words if w not in ("GREEK", "CAPITAL", "SMALL", "LETTER", "SYMBOL", "WITH")]
    name = "".join(words[:1]).capitalize() if plain.isupper() else "".join(words[:1])
    known = len(words) == 1 and name in _COMMANDS
    spelled = r"\mathit{" + r"\ ".join([name, *words[1:]]) + "}"
    body = f"\\{name}{{}}" if known else _ALIKE.get(plain, spelled)
    for mark in accents:
        body = rf"{_ACCENTS[mark]}{{{body}}}"
    return body


def term(t: Term, level: int = 0) -> str:
    """An expression in LaTeX, with parentheses where `level` needs them."""
    match t.kind:
        case "number":
            return _number(show(t))
        case "variable":
            return name(t.value) if str(t.value).isidentifier() else str(t.value)
        case "signal":
            who, lag = t.value
            return name(who, when(lag))
        case "adjoint":
            who, lag = t.value
            return adjoint(who, when(lag))
        case "parameter":
            return name(t.value)
        case "transpose":
            return (name(t.value) if not t.args else _bracket(term(t.args[0]), t.args[0].kind != "signal")) + r"^{\top}"
        case "size":
            return rf"|{name(t.value)}|"
        case "join":
            return r"\left[" + ",\\; ".join(map(term, t.args)) + r"\right]"
        case "negate":
            return _bracket("-" + term(t.args[0], 2), level > 1)
        case "call":
            return _bracket(_call(t), t.value == "outer" and level > 1)
    if t.value == "/":
        return rf"\frac{{{term(t.args[0])}}}{{{term(t.args[1])}}}"
    if t.value == "**":
        base, plain = term(t.args[0]), not t.args[0].args or (t.args[0].kind == "call" and t.args[0].value != "outer")
        return f"{{{base}}}^{{{term(t.args[1])}}}" if plain else rf"{_bracket(base, True)}^{{{term(t.args[1])}}}"
    own = _LEVEL[t.value]
    first = t.args[0]
    apart = t.value == "@" and first.value == "*" and first.args[0].kind != "number"   # (M ⊙ W) x is not M ⊙ (W x)
    left, right = _bracket(term(first, own), apart), term(t.args[1], own + 1)
    operator = _OPERATORS[t.value]
    if t.value == "*" and (t.args[0].kind == "number" or t.args[1].kind == "number"):
        operator = r"\cdot" if t.args[1].kind == "number" else r"\,"
    return _bracket(f"{left} {operator} {right}", own < level)


def _call(t: Term) -> str:
    if t.value == "sqrt":
        return rf"\sqrt{{{term(t.args[0])}}}"
    if t.value == "abs":
        return rf"\left|{term(t.args[0])}\right|"
    if t.value in LOGIC:
        parts = [_bracket(term(a), True) for a in t.args]
        return rf" {_LOGIC[t.value]} ".join(parts) if len(parts) > 1 else rf"\lnot {parts[0]}"
    if t.value == "outer":
        return f"{term(t.args[0], 3)} \\otimes {term(t.args[1], 3)}"
    known = FUNCTIONS.get(t.value)
    called = (known and known.latex) or r"\operatorname{" + t.value.replace("_", r"\_") + "}"
    return called + r"\left(" + ",\\; ".join(map(term, t.args)) + r"\right)"


def _number(text: str) -> str:
    if text in ("inf", "nan"):
        return r"\infty" if text == "inf" else r"\mathrm{nan}"
    mantissa, _, exponent = text.partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else text


def _bracket(text: str, needed: bool) -> str:
    return rf"\left({text}\right)" if needed else text


def system(s: System, within: str = "aligned") -> str:
    """All equations, aligned at the equals sign, in an environment."""
    return environment([f"{name(e.name, 't')} = {term(e.term)}" for e in s.equations], within)
