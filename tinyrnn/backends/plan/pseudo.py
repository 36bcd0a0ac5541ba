"""Row programs as pseudo-code that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...ir.op import CATALOGUE
from .fused import FusedKernel, Instruction
from .views import View

_FUNCTIONS = {"scale", "power"}  # 0 * inf is 0 for one of them
_LOOSE = {"add", "sub", "add_n"}


def lines(program: FusedKernel, views: Sequence[View], names: Mapping[int, str]) -> list[str]:
    """One line for every value that is used twice, has a name, or is stored; `names` are those of the equations."""
    loads = len(program.loads)
    uses = [0] * (loads + len(program.steps))
    for i in (*(s for step in program.steps for s in step.sources), *(s.value for s in program.stores)):
        uses[i] += 1
    text = {i: str(views[i]) for i in range(loads)}
    stores: dict[int, list[str]] = {}
    for k, s in enumerate(program.stores):
        start = "" if s.start is None else f" {text[s.start]} +"
        stores.setdefault(s.value, []).append(f"{views[loads + k]} ={start}")
    out: list[str] = []
    taken: set[str] = set()
    for k, step in enumerate(program.steps):
        i = loads + k
        expression = _expression(step, text)
        if step.op == "number":
            text[i] = expression
        elif uses[i] > 1 or i in names or i in stores or step.reduces:
            name = _free(names.get(i, f"v{k}"), taken)
            out.append(f"{name} = {expression}" + (" over j" if step.reduces else ""))
            text[i] = name
        else:
            text[i] = expression if step.op not in _LOOSE else f"({expression})"
    total = "sum over rows of " if program.columns else ""
    for value, targets in stores.items():
        out += [f"{target} {total}{text[value]}" for target in targets]
    return out


def _free(name: str, taken: set[str]) -> str:
    """A name that stands for nothing else here."""
    found, k = name, 1
    while found in taken:
        k += 1
        found = f"{name}.{k}"
    taken.add(found)
    return found


def _expression(step: Instruction, text: Mapping[int, str]) -> str:
    parts = [text[s] for s in step.sources]
    if step.op == "number":
        return f"{step.at[0]:g}" if isinstance(step.at[0], float) else str(step.at[0])
    if step.op == "neg":
        return f"-{parts[0]}"
    written = CATALOGUE[step.op].written if step.op in CATALOGUE else ""
    if len(parts) > 1 and step.op not in _FUNCTIONS and (written in ("and", "or") or not written.isidentifier()):
        return f" {written} ".join(parts)
    return f"{step.op}({', '.join([*parts, *map(str, step.at)])})"
