"""What a line that is no equation was meant to be: the mistake by its name, and the remedy."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import pairwise

_TOKEN = re.compile(r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|[^\W\d]\w*|\s+|.", re.DOTALL)
_REMEDIES = {"if": "write where(a[t] < b[t], then, otherwise)", "else": "write where(a[t] < b[t], then, otherwise)",
             "and": "put one where(...) inside another", "or": "put one where(...) inside another",
             "not": "turn the comparison round", "lambda": "call it lambda_, or λ"}


def nearest(name: str, among: Iterable[str]) -> str:
    """`; did you mean 'tanh'?`, the end of a sentence, where a name is close to one that there is, else nothing."""
    plain = {n.lower(): n for n in among}
    close = get_close_matches(name.lower(), plain, 1)
    return f"; did you mean {plain[close[0]]!r}?" if close else ""


def word_of_python(text: str) -> tuple[int, str] | None:
    """The first of Python's own words in a line: its column, and what to write."""
    for m in re.finditer(r"[^\W\d]\w*", text):
        if keyword.iskeyword(m[0]) and m[0] not in ("True", "False", "None"):
            remedy = _REMEDIES.get(m[0], f"call it {m[0]}_")
            return m.start(), f"{m[0]!r} is a word of Python, reserved, and no name of a quantity; {remedy}"
    return None


_OTHERS = {"max": "maximum", "min": "minimum", "swish": "silu", "logistic": "sigmoid", "square": "a ** 2", "pow": "a ** b",
           "power": "a ** b", "dot": "a @ b", "matmul": "A @ b", "mul": "a * b", "concat": "[a, b]", "cat": "[a, b]",
           "transpose": "W.T", "identity": "nothing around it", "linear": "W @ x[t] + b", "if_else": "where(a[t] < b[t], c, d)"}


def instead_of(name: str) -> str:
    """`; write maximum`, the end of a sentence, where a function has another name here, or a product was meant."""
    if name.lower() in _OTHERS:
        return f"; write {_OTHERS[name.lower()]}"
    return f"; a product is written {name} @ ..." if name[0].isupper() and (len(name) == 1 or "_" in name) else ""


def what_is_wrong(text: str, column: int, message: str, functions: Iterable[str] = ()) -> tuple[int, str]:
    """Column and words for a syntax error; Python's own message where nothing better is known."""
    tokens = [(m.start(), m[0]) for m in _TOKEN.finditer(text) if not m[0].isspace()]
    for (_, left), (at, right) in pairwise(tokens):
        if left in functions and _is_operand(right):
            return at, f"brackets are missing: {left}({right} ...)"
        if (_ends(left) and _is_operand(right)) or (_is_operand(left) and right == "(" and left[0].isdigit()):
            return at, (f"an operator is missing between {left} and {right}: @ multiplies a matrix and a vector, "
                        "* multiplies entry by entry")
    if text.rstrip().endswith("\\"):
        return len(text.rstrip()) - 1, "an equation ends with its line; inside brackets it may go on: h[t] = (... + ...)"
    if tokens and tokens[-1][1] in "+-*/@,=":
        return tokens[-1][0], (f"the line ends with {tokens[-1][1]!r}; an equation stands on one line, and inside brackets it "
                               "may go on: h[t] = (... + ...)")
    return min(max(column, 0), len(text)), f"this is not an equation: {message}"


def _is_operand(token: str) -> bool:
    return token[0].isalnum() or token[0] == "_"


def _ends(token: str) -> bool:
    return _is_operand(token) or token in ")]"
