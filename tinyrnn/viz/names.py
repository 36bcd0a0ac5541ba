"""Names as pictures write them: subscripts of time, accents, subscripts of a letter."""

from __future__ import annotations

import re

from ..cells.latex import accented

LONGEST_NAME = 40
_SUBSCRIPTS = str.maketrans("0123456789-t", "₀₁₂₃₄₅₆₇₈₉₋ₜ")
_ACRONYMS = re.compile(r"\b(rnn|lstm|gru|mgu)\b")
_LETTER_BELOW = re.compile(r"(?<![\w.])([^\W\d_][\u0300-\u036f′]*)_([^\W_]+(?:_[^\W_]+)*)")


def pretty(name: str) -> str:
    """`h[3]` as h₃, `h[t-1]` as hₜ₋₁, `C_tilde[t]` as C̃ₜ; anything else as it is."""
    stem, bracket, inside = name.partition("[")
    inside = inside.removesuffix("]")
    timed = bracket and set(inside) <= set("0123456789-t")
    return accented(stem) + inside.translate(_SUBSCRIPTS) if timed else accented(stem) + name[len(stem):]


def spoken(name: str) -> str:
    """The name of a cell in words: `lstm_peephole` as LSTM peephole."""
    short = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    return _ACRONYMS.sub(lambda m: m[1].upper(), short.replace("_", " "))


def at_step(line: str, t: int, direction: int = 1) -> str:
    """A line with ₜ, ₜ₋₁, ... replaced by the step itself: cₜ₋₁ at t = 3 is c₂ (c₄ where time runs backwards)."""
    return re.sub("ₜ(?:₋([₀-₉]+))?", lambda m: str(t - direction * _number(m[1])).translate(_SUBSCRIPTS), line)


def _number(digits: str | None) -> int:
    return int(digits.translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))) if digits else 0


def runs(line: str) -> list[tuple[str, bool]]:
    """A line in pieces, and whether each stands below: `W_if: h` is W, `if` below, `: h`."""
    out: list[tuple[str, bool]] = []
    end = 0
    for found in _LETTER_BELOW.finditer(line):
        stem, _, below = accented(found[0]).partition("_")
        out.append((line[end : found.start()] + stem, False))
        out += [(accented(below).replace("_", ","), True)] if below else []
        end = found.end()
    return [*out, (line[end:], False)] if end < len(line) else out
