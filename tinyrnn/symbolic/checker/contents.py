"""What a certificate holds: every field that is there is checked, and there is no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...cells.equations import parse
from ...cells.roles import Roles, find_roles
from ...cells.terms import System
from ...errors import LoadError
from .forms import kind_of

FORMAT = "tinyrnn proof 2"
CELL_CLAIM = "every gradient of the unrolled and the rolled graph is the derivative"
GRAPH_CLAIM = "every claimed gradient is the derivative"
PASS_CLAIM = "the graph after it computes what the graph before it computes"
WEIGHT = "weight of "
FIELDS = {"format", "claim", "text", "programs"}
PAIR_FIELDS, SIDE_FIELDS = {"before", "after"}, {"inputs", "code", "outputs"}
GRADIENT_FIELDS = SIDE_FIELDS | {"what", "sizes", "loss", "claims"}


def read(certificate: object) -> System | None:
    """The equations, if any; raises where anything is missing, unknown, or does not go together."""
    if not isinstance(certificate, dict) or certificate.get("format") != FORMAT:
        raise LoadError(f"this is not a certificate: expected the format {FORMAT!r}")
    _fields("certificate", certificate, FIELDS)
    programs, text, claim = certificate["programs"], certificate["text"], certificate["claim"]
    if not isinstance(programs, list) or not programs:
        raise LoadError("the certificate holds no program, so there is nothing to check")
    kinds = {CELL_CLAIM: bool(text), GRAPH_CLAIM: not text, PASS_CLAIM: not text}
    if not isinstance(text, str) or not isinstance(claim, str) or not kinds.get(claim, False):
        raise LoadError("the claim and the text do not go together: a cell's certificate holds its equations")
    for p in programs:
        if claim == PASS_CLAIM:
            _fields("program", p, PAIR_FIELDS)
            _side(p["before"], SIDE_FIELDS)
            _side(p["after"], SIDE_FIELDS)
        else:
            _side(p, GRADIENT_FIELDS)
            _claims(p)
            if not text and (p["what"] != "given" or p["sizes"]):
                raise LoadError("a program without equations is called given, and has no sizes")
    system = parse(text) if text else None
    if system is not None:
        _cell(programs, system)
    return system


def _fields(what: str, found: object, wanted: set[str]) -> None:
    if not isinstance(found, dict) or set(found) != wanted:
        seen = ", ".join(sorted(map(str, found)))[:200] if isinstance(found, dict) else type(found).__name__
        raise LoadError(f"a {what} holds {', '.join(sorted(wanted))} and nothing else; this one: {seen or 'nothing'}")


def _side(p: Any, fields: set[str]) -> None:
    _fields("program", p, fields)
    if not p["outputs"] or (fields == GRADIENT_FIELDS and not (p["code"] and p["inputs"])):
        raise LoadError("a program without inputs, instructions or outputs proves nothing")
    for dtype, shape in p["inputs"].values():
        kind_of(dtype)
        if not all(type(n) is int and n >= 0 for n in shape):
            raise LoadError("the certificate is damaged: the sizes of an input are whole numbers")


def _claims(p: Mapping[str, Any]) -> None:
    """Each input has one claim at most, and the loss is an output."""
    claims = p["claims"]
    if not claims or not set(claims) <= set(p["outputs"]) or p["loss"] not in p["outputs"] or p["loss"] in claims:
        raise LoadError("the program claims no gradient, or one that is no output")
    if len(set(claims.values())) < len(claims):
        raise LoadError("two outputs of the program claim the gradient of one input")
    if not all(k in p["inputs"] and kind_of(p["inputs"][k][0]) == "f" for k in claims.values()):
        raise LoadError("the program claims the gradient of something that is no input of floats")


def _cell(programs: list[Any], system: System) -> None:
    """A cell's certificate holds both graphs, every gradient of each, and every weight of the loss."""
    if sorted(p["what"] for p in programs) != ["rolled", "unrolled"]:
        raise LoadError("a cell's certificate holds the unrolled and the rolled program")
    roles = find_roles(system)
    for p in programs:
        sizes, inputs = p["sizes"], p["inputs"]
        steps, batch = sizes.get("steps"), sizes.get("batch")
        whole = set(sizes) == {"steps", "batch"} and type(steps) is int and type(batch) is int
        if not whole or not 1 <= steps <= len(inputs) or batch < 1:
            raise LoadError("a cell is proved for at least one step and one row")
        weights = {f"{WEIGHT}{o}[{t}]" for o in roles.outputs for t in range(1, steps + 1)}
        wanted = weights | _names(roles, {f"{n}[{k}]" for n, k in system.learned}, steps)
        unread = {f"{x}[{t}]" for x, first in _first_read(system, roles).items() for t in range(steps - first + 1, steps + 1)}
        given = set(inputs)
        missing = sorted((wanted - unread - given) | (given - wanted) | (given - weights) ^ set(p["claims"].values()))
        if missing:
            raise LoadError(f"the {p['what']} program does not claim every gradient: {', '.join(map(str, missing))[:200]}")
        if any(shape and not all(shape) for _, shape in inputs.values()):
            raise LoadError("an input of the program is empty")
        if any(inputs[k][1][:1] != [batch] for k in inputs if "[" in k and k not in {f"{n}[{i}]" for n, i in system.learned}):
            raise LoadError(f"an input of the {p['what']} program has not {batch} rows")
        if p["what"] == "rolled" and not any(name == "scan" for name, *_ in p["code"]):
            raise LoadError("the rolled program has no loop")


def _first_read(system: System, roles: Roles) -> dict[str, int]:
    """How many steps later each input is read first: one that is read later only is not read at the last steps."""
    reads = [t.value for e in system.equations for t in e.term.walk() if t.kind == "signal"]
    return {x: min(k for n, k in reads if n == x) for x in roles.inputs if any(n == x for n, _ in reads)}


def _names(roles: Roles, learned: set[str], steps: int) -> set[str]:
    """The parameters, inputs and states before the first step that a gradient belongs to."""
    remembered = {f"{n}[{1 - k}]" for n, k in roles.slots if n in roles.states}
    return {*roles.parameters, *(f"{x}[{t}]" for x in roles.inputs for t in range(1, steps + 1)), *remembered, *learned}
