"""Names as pictures write them: subscripts of time, accents, subscripts of a letter."""

from __future__ import annotations

import re

from ..cells.latex import accented

_SUBSCRIPTS = str.maketrans("0123456789-", "₀₁₂₃₄₅₆₇₈₉₋")
_ACRONYMS = re.compile(r"\b(rnn|lstm|gru|mgu)\b")
_PLAIN = str.maketrans("₀₁₂₃₄₅₆₇₈₉₋ₜ", "0123456789−t")
_TIME = "[₀-₉ₜ₋]+"
_LETTERS = "(?:(?![₀-₉ₜ])[^\\W_])+"
_BELOW = re.compile(rf"(?P<name>(?<![\w.])[^\W\d_][\u0300-\u036f′]*_{_LETTERS}(?:_{_LETTERS})*)(?P<time>{_TIME})?"
                    rf"|(?<=\S)(?P<only>{_TIME})")


def spoken(name: str) -> str:
    """The name of a cell in words: `lstm_peephole` as LSTM peephole."""
    return _ACRONYMS.sub(lambda m: m[1].upper(), name.replace("_", " "))


def at_step(line: str, t: int, direction: int = 1) -> str:
    """A line with ₜ, ₜ₋₁, ... replaced by the step itself: cₜ₋₁ at t = 3 is c₂ (c₄ where time runs backwards)."""
    return re.sub("ₜ(?:₋([₀-₉]+))?", lambda m: str(t - direction * _number(m[1])).translate(_SUBSCRIPTS), line)


def _number(digits: str | None) -> int:
    return int(digits.translate(_PLAIN)) if digits else 0


def runs(line: str) -> list[tuple[str, bool]]:
    """A line in pieces, and whether each stands below: `W_if: hₜ` is W, `if` below, `: h`, `t` below."""
    out: list[tuple[str, bool]] = []
    end = 0
    for found in _BELOW.finditer(line):
        stem, _, letters = accented(found["name"] or "").partition("_")
        time = (found["time"] or found["only"] or "").translate(_PLAIN)
        below = ",".join(filter(None, (accented(letters).replace("_", ","), time)))
        out += [(line[end : found.start()] + stem, False), (below, True)]
        end = found.end()
    return [piece for piece in [*out, (line[end:], False)] if piece[0]]
