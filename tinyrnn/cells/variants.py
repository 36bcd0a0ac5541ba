"""Options of cells as edits of their equations, so that a variant is proved, drawn and compiled like any cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from .cell import Cell
from .terms import Equation, Term, fresh, show, show_system
from .zoo import get

_PRODUCT = re.compile(r"W_(\w+) @ (\w+\[t(?:-1)?\])")


def lstm(*, peephole: bool = False, coupled: bool = False, projection: bool = False, layer_norm: bool = False,
         clip: float | None = None, cell_clip: float | None = None) -> Cell:
    """The zoo's LSTM with options; without any it is the zoo's own.

        peephole    + p_i * c[t-1], + p_f * c[t-1] and + p_o * c[t] inside the gates (Gers et al., 2002)
        coupled     i[t] = 1 - f[t] (Greff et al., 2017)
        projection  h[t] = W_hr @ (o[t] * tanh(c[t])) (Sak et al., 2014)
        layer_norm  s * layer_norm(...) around each product with a matrix, and around c[t] where h reads it (Ba et al., 2016)
        clip        every input of a sigmoid or tanh is cut to [-clip, clip] (ONNX)
        cell_clip   c[t] is cut to [-cell_clip, cell_clip] (Sak et al., 2014)

    >>> print(lstm(coupled=True).text.splitlines()[0])
    i[t] = 1 - f[t]
    """
    base = get("LSTM")
    if not (peephole or coupled or projection or layer_norm) and clip is None and cell_clip is None:
        return base
    e = {q.name: q.term for q in base.system.equations}
    inside = {gate: show(e[gate].args[0]) for gate in "ifgo"}
    remembered = "c[t]"
    if layer_norm:
        inside = {gate: _PRODUCT.sub(r"s_\1 * layer_norm(W_\1 @ \2)", a) for gate, a in inside.items()}
        remembered = "s_c * layer_norm(c[t]) + b_c"
    if peephole:
        inside |= {gate: f"{inside[gate]} + p_{gate} * c[{'t' if gate == 'o' else 't-1'}]" for gate in "ifo"}
    if clip is not None:
        inside = {gate: f"clip({a}, -{clip!r}, {clip!r})" for gate, a in inside.items()}
        remembered = f"clip({remembered}, -{clip!r}, {clip!r})"
    lines = {gate: f"{e[gate].value}({a})" for gate, a in inside.items()}
    lines |= {"c": show(e["c"]), "h": show(e["h"]).replace("c[t]", remembered)}
    if coupled:
        lines["i"] = "1 - f[t]"
    if cell_clip is not None:
        lines["c"] = f"clip({lines['c']}, -{cell_clip!r}, {cell_clip!r})"
    if projection:
        lines["h"] = f"W_hr @ ({lines['h']})"
    return Cell("\n".join(f"{name}[t] = {line}" for name, line in lines.items()), "LSTM")


def learned_start(cell: Cell) -> Cell:
    """The cell with every initial state trained."""
    starts = "".join(f"{n}[{1 - k}]: learned\n" for n, k in cell.slots if n in cell.states)
    return Cell(starts + show_system(replace(cell.system, learned=())), cell.name)


@dataclass(frozen=True)
class Noisy:
    """A cell with noise in its equations, and the names of the masks that it reads as further inputs."""

    cell: Cell
    kept: dict[str, str]        # state -> the input that says how much of the old state zoneout keeps
    masked: dict[str, str]      # state -> the input that multiplies it before its products


def noisy(cell: Cell, zoneout: Iterable[str] = (), dropout: Iterable[str] = ()) -> Noisy:
    """The cell with zoneout on some states and dropout on others, their masks as further inputs.

        zoneout   h[t] = keep_h[t] * h[t-1] + (1 - keep_h[t]) * new_h[t] (Krueger et al., 2017): keep_h is 0 or 1 in
                  training and the rate itself in evaluation; other equations read new_h[t]
        dropout   W @ (mask_h[t] * h[t-1]) in every product (Gal & Ghahramani, 2016): one mask_h for all steps

    A name that the cell has already is not taken: keep_h_1.

    >>> import tinyrnn as tr
    >>> print(noisy(tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])"), ["h"], ["h"]).cell.text.strip())
    outputs: h
    new_h[t] = tanh(W @ x[t] + U @ (mask_h[t] * h[t-1]))
    h[t] = keep_h[t] * h[t-1] + (1 - keep_h[t]) * new_h[t]
    """
    taken, dropout = set(cell.system.names), [s for s in in_products(cell) if s in set(dropout)]
    new, kept, masked = (_names(what, states, taken)
                         for what, states in (("new", zoneout), ("keep", zoneout), ("mask", dropout)))
    edits = [Equation(new.get(e.name, e.name), _rename(_masked(e.term, masked, False), new)) for e in cell.system.equations]
    inputs = (*cell.inputs, *kept.values(), *masked.values()) if cell.system.inputs else ()
    text = show_system(replace(cell.system, equations=tuple(edits), outputs=cell.outputs, inputs=inputs, header=()))
    mixes = [f"{s}[t] = {k}[t] * {s}[t-1] + (1 - {k}[t]) * {new[s]}[t]\n" for s, k in kept.items()]
    return Noisy(Cell(text + "".join(mixes), cell.name), kept, masked)


def _names(what: str, states: Iterable[str], taken: set[str]) -> dict[str, str]:
    """A name of its own for each state: `keep_h`."""
    found = {}
    for s in states:
        found[s] = fresh(f"{what}_{s}", taken)
        taken.add(found[s])
    return found


def in_products(cell: Cell) -> tuple[str, ...]:
    """The states that stand on the right of a product with a matrix."""
    found = {a.value[0] for e in cell.system.equations for t in e.term.walk() if t.kind == "binary" and t.value == "@"
             for a in t.args[1].walk() if a.kind == "signal" and a.value[1]}
    return tuple(s for s in cell.states if s in found)


def _masked(term: Term, names: Mapping[str, str], inside: bool) -> Term:
    """Past states inside products, multiplied by their masks."""
    if term.kind == "signal" and inside and term.value[1] and term.value[0] in names:
        return Term("binary", "*", (Term("signal", (names[term.value[0]], 0)), term))
    if term.kind == "binary" and term.value == "@":
        left, right = term.args
        return replace(term, args=(_masked(left, names, inside), _masked(right, names, True)))
    return term.map(lambda a: _masked(a, names, inside))


def _rename(term: Term, names: Mapping[str, str]) -> Term:
    """What other equations read of this step by its new name."""
    return term.rewritten(lambda t: replace(t, value=(names.get(t.value[0], t.value[0]), 0)) if (
        t.kind == "signal" and not t.value[1]) else None)
