"""LaTeX formulas broken to the width of a column, that of an article or of a slide."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ArgumentError

COLUMN = 27.0
"""Ems of the text on a Beamer slide (307 pt at 11 pt), the narrower of the two; an article has 34 (345 pt at 10 pt)."""

_TOKEN = re.compile(r"\\left\s*(?:\\[|{}]|.)|\\right\s*(?:\\[|{}]|.)|\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)
_BEFORE = {"=": 0.0, r"\le": 0.0, r"\mapsto": 0.0, r"\qquad": 0.0, "+": 1.0, "-": 1.0, r"\odot": 3.0, r"\otimes": 3.0,
           r"\,": 4.0}  # what a break costs before each
_DEEPER = 8.0            # what a break inside a bracket costs more than one outside
_ARGUMENTS = {r"\frac": 2, r"\tfrac": 2, r"\sqrt": 1, r"\operatorname": 1, r"\mathrm": 1, r"\mathit": 1, r"\text": 1,
              r"\tilde": 1, r"\hat": 1, r"\bar": 1, r"\acute": 1, r"\ddot": 1}
_WIDTHS = {r"\odot": 1.25, r"\otimes": 1.25, "+": 1.25, "-": 1.25, "=": 1.35, r"\le": 1.35, r"\mapsto": 1.6, r"\qquad": 2.0,
           r"\quad": 1.0, r"\;": 0.28, r"\,": 0.17, r"\cdot": 0.75, r"\tanh": 2.1, r"\sum": 1.5, r"\prod": 1.4, r"\log": 1.4,
           r"\exp": 1.6, r"\top": 0.8, r"\prime": 0.3, r"\infty": 1.0, ",": 0.45}


@dataclass
class _Atom:
    """What no line is broken inside of; `pair` numbers the brackets."""

    text: str
    width: float
    cost: float | None = None  # of a break before it
    pair: int = 0
    opens: bool = False


def broken(formula: str, column: float = COLUMN) -> list[str]:
    """A formula in lines of `aligned`, with `&` where they are to stand below one another.

    >>> broken("h = a + b")
    ['h &= a + b']
    """
    atoms = _atoms(formula)
    wide = next((a for a in atoms if a.width > column - 6 and _opened(a.text) != a.text), None)
    if wide is not None:
        return broken("".join(_opened(a.text) if a is wide else a.text for a in atoms), column)
    first = next((i for i, a in enumerate(atoms) if i and a.cost == 0.0), 0)
    left, right = atoms[:first], atoms[first:]
    room = column - sum(a.width for a in left)
    lines = _lines(right, room)
    _enlarge(lines)
    texts = ["".join(a.text for a in line).strip() for line in lines]
    head = "".join(a.text for a in left)
    return [f"{head}&{texts[0]}" if left else texts[0],
            *(f"&{t}" if line[0].cost == 0.0 else rf"&\quad {t}" for t, line in zip(texts[1:], lines[1:], strict=True))]


def _opened(text: str) -> str:
    r"""What can be broken in the place of an atom: (x)^{1/2} for \sqrt{x}, a quotient in a line for a fraction."""
    tokens = _TOKEN.findall(text)
    first, i = _group(tokens, 1) if tokens[0] in (r"\sqrt", r"\frac") else _group(tokens, 0)
    inside = first[1:-1]
    if tokens[0] == r"\frac":
        below, i = _group(tokens, i)
        return rf"\left({inside}\right) / \left({below[1:-1]}\right){''.join(tokens[i:])}"
    rest = "".join(tokens[i:])
    if tokens[0] == r"\sqrt":
        return rf"\left({inside}\right)^{{1/2}}{rest}" if not rest.strip() else text
    return f"{inside}{rest}" if tokens[0] == "{" and rest.startswith("^") else text


def _lines(atoms: Sequence[_Atom], room: float) -> list[list[_Atom]]:
    """Lines that find room, broken where it costs least."""
    lines: list[list[_Atom]] = []
    start = 0
    while start < len(atoms):
        end, width = start, 0.0
        while end < len(atoms) and (width + atoms[end].width <= room - bool(lines) or end == start):
            width += atoms[end].width
            end += 1
        if end < len(atoms):
            places = [i for i in range(start + 1, end + 1) if atoms[i].cost is not None]
            late = [i for i in places if sum(a.width for a in atoms[start:i]) > 0.4 * room] or places
            end = min(late, key=lambda i: (atoms[i].cost, -i), default=next(
                (i for i in range(end + 1, len(atoms)) if atoms[i].cost is not None), len(atoms)))
        lines.append(list(atoms[start:end]))
        start = end
    return lines


def _enlarge(lines: Sequence[Sequence[_Atom]]) -> None:
    """Brackets that open in one line and close in another cannot grow with what is between them."""
    where: dict[int, set[int]] = {}
    for i, line in enumerate(lines):
        for a in line:
            if a.pair:
                where.setdefault(a.pair, set()).add(i)
    for line in lines:
        for a in line:
            if len(where.get(a.pair, ())) > 1:
                a.text = a.text.replace(r"\left", r"\bigl", 1) if a.opens else a.text.replace(r"\right", r"\bigr", 1)


# ---- what a formula consists of

def _atoms(formula: str) -> list[_Atom]:
    tokens, out, stack, pairs = _TOKEN.findall(formula), list[_Atom](), list[int](), 0
    i = 0
    while i < len(tokens):
        token = tokens[i]
        if token in ("_", "^") and out:
            text, i = _group(tokens, i + 1)
            out[-1].text += token + text
            out[-1].width += 0.75 * _width(text)
            continue
        if token == r"\begin":
            end = tokens.index(r"\end", i)
            inside, (name, after) = "".join(tokens[i:end]), _group(tokens, end + 1)
            out.append(_Atom(inside + r"\end" + name, 1 + max(map(_width, inside.replace("&", "").split(r"\\")))))
            i = after
            continue
        if token.startswith(r"\left"):
            pairs += 1
            stack.append(pairs)
            out.append(_Atom(token, 0.48, None, pairs, True))
        elif token.startswith(r"\right"):
            out.append(_Atom(token, 0.48, None, stack.pop() if stack else 0))
        elif token.isspace():
            if out:
                out[-1].text += token
        elif token == "{" or token in _ARGUMENTS:
            text, i = _command(tokens, i)
            out.append(_Atom(text, _width(text)))
            continue
        else:
            unary = token == "-" and (not out or out[-1].opens or out[-1].text.strip() in _BEFORE)
            cost = None if unary else _BEFORE.get(token)
            out.append(_Atom(token, _width(token), cost + _DEEPER * len(stack) if cost is not None else None))
        i += 1
    return out


def _group(tokens: Sequence[str], i: int) -> tuple[str, int]:
    """The group or the one token from i on, and where it ends."""
    if tokens[i] != "{":
        return _command(tokens, i) if tokens[i] in _ARGUMENTS else (tokens[i], i + 1)
    depth, start = 0, i
    while i < len(tokens):
        depth += (tokens[i] == "{") - (tokens[i] == "}")
        i += 1
        if not depth:
            break
    return "".join(tokens[start:i]), i


def _command(tokens: Sequence[str], i: int) -> tuple[str, int]:
    """A command with its arguments, or a group."""
    if tokens[i] == "{":
        return _group(tokens, i)
    text, count = tokens[i], _ARGUMENTS[tokens[i]]
    i += 1
    for _ in range(count):
        part, i = _group(tokens, i)
        text += part
    return text, i


def _width(text: str) -> float:
    """Ems, rather too many."""
    tokens, wide, i = _TOKEN.findall(text), 0.0, 0
    while i < len(tokens):
        token = tokens[i]
        if token in (r"\frac", r"\tfrac"):
            above, i = _group(tokens, i + 1)
            below, i = _group(tokens, i)
            wide += max(_width(above), _width(below)) * (1.0 if token == r"\frac" else 0.75) + 0.25
            continue
        if token in ("_", "^"):
            part, i = _group(tokens, i + 1)
            wide += 0.75 * _width(part)
            continue
        bracket = token.startswith((r"\left", r"\right"))
        wide += 0.48 if bracket else 0.0 if token in _ARGUMENTS else _WIDTHS.get(token, _letter(token))
        i += 1
    return wide


def _letter(token: str) -> float:
    if token.isspace() or token in ("{", "}"):
        return 0.0
    if token.startswith("\\") and len(token) > 2:
        return 0.65
    return 0.85 if token in "mwMW" else 0.8 if token.isupper() else 0.4 if token in "ijltfr()|[]." else 0.55


# ---- environments

ENVIRONMENTS = ("aligned", "align", "align*", "equation", "equation*", "gather*", "$$")


def environment(formulas: Sequence[str], name: str = "aligned", column: float = COLUMN) -> str:
    """Formulas below one another, in an environment that can be pasted as it is (`aligned` stands inside of `$$`)."""
    if name not in ENVIRONMENTS:
        raise ArgumentError(f"environment={name!r}: expected one of {', '.join(ENVIRONMENTS)}")
    numbered = name == "align"
    lines = [line + (r" \notag" if numbered and i < len(own) - 1 else "") for own in (broken(f, column) for f in formulas)
             for i, line in enumerate(own)]
    body = " \\\\\n".join(lines)
    if name.startswith("align"):
        return f"\\begin{{{name}}}\n{body}\n\\end{{{name}}}"
    inner = f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
    return f"$$\n{inner}\n$$" if name == "$$" else f"\\begin{{{name}}}\n{inner}\n\\end{{{name}}}"
