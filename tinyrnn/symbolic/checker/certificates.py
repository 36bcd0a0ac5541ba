"""Certificates: every program at a new random point."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...cells.equations import System, parse
from ...cells.roles import find_roles
from ...errors import LoadError, ProofError
from .meaning import Equations
from .numbers import Array, NearError, Number, P, Point, each, filled, still, summed
from .programs import Interpreter

FORMAT = "tinyrnn proof 1"
# This bound and the formula of the error are the checker's own, as is its prime: it takes nothing from the engine.
CONVINCING = 2.0**-20
CELL_CLAIM = "every gradient of the unrolled and the rolled graph is the derivative"
WEIGHT = "weight of "
LARGEST = 1_000_000


@dataclass(frozen=True)
class Verdict:
    """What the checker found for one program."""

    what: str
    entries: int
    error_bound: float

    def __str__(self) -> str:
        return f"{self.what}: {self.entries} entries equal, error bound {self.error_bound:.1e}"


def check_file(file: str | Path, seed: int | None = None) -> list[Verdict]:
    """Verify a certificate; raises `ProofError` where a claim is false and `LoadError` where the file is none."""
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{file} is not a certificate: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise LoadError(f"{file} is not a certificate: expected the format {FORMAT!r}")
    return check(found, seed)


def check(certificate: Mapping[str, Any], seed: int | None = None) -> list[Verdict]:
    """Every program of a certificate at a new random point."""
    programs = certificate.get("programs")
    if not isinstance(programs, list) or not programs:
        raise LoadError("the certificate holds no program, so there is nothing to check")
    text = certificate.get("text") or ""
    try:
        _whole(programs, text)
        if (certificate.get("claim") == CELL_CLAIM) != bool(text):
            raise LoadError("the claim and the text do not go together: a cell's certificate holds its equations")
        with np.errstate(all="ignore"):
            return [_verified(p, text, seed) for p in programs]
    except (ProofError, LoadError):
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise LoadError(f"the certificate is damaged: {type(error).__name__}: {error}") from error


def _whole(programs: list[Any], text: str) -> None:
    """A cell's certificate holds both graphs, every gradient of each, and every weight of the loss."""
    for p in programs:
        for side in ([p["before"], p["after"]] if "before" in p else [p]):
            if any(not _sensible(shape) for _, shape in side["inputs"].values()):
                raise LoadError("the certificate is damaged: an input is too large")
    if not text:
        return
    system = parse(text)
    missing = {"unrolled", "rolled"} - {p["what"] for p in programs}
    if missing:
        raise LoadError(f"the certificate lacks the {missing.pop()} program")
    outputs = find_roles(system).outputs
    for p in programs:
        weights = {f"{WEIGHT}{o}[{t}]" for o in outputs for t in range(1, p["sizes"]["steps"] + 1)}
        given = {k for k in p["inputs"] if k.startswith(WEIGHT)}
        unclaimed = set(p["inputs"]) - given - set(p["claims"].values())
        if given != weights or unclaimed:
            raise LoadError(f"the {p['what']} program does not claim every gradient: "
                            f"{', '.join(sorted(unclaimed or weights ^ given))}")


def _sensible(shape: list[int]) -> bool:
    return math.prod(shape) <= LARGEST


def _verified(program: Mapping[str, Any], text: str, seed: int | None) -> Verdict:
    """One program; once more with positive floats where a branch met a NaN."""
    for positive in (False, True):
        point = Point(secrets.randbits(62) if seed is None else seed, positive)
        try:
            return _pair(program, point) if "before" in program else _gradients(program, text, point)
        except NearError:
            if positive:
                raise
    raise AssertionError


def _inputs(program: Mapping[str, Any], point: Point, moving: Iterable[str]) -> dict[str, Array]:
    hot = set(moving)
    found = {}
    for name, (dtype, shape) in program["inputs"].items():
        floating = np.dtype(dtype).kind == "f"
        found[name] = point.draw(shape, name in hot) if floating else point.rng.integers(0, 2, shape).astype(dtype)
    return found


def _run(program: Mapping[str, Any], inputs: Mapping[str, Array], point: Point, steady: bool) -> dict[str, Any]:
    values = [still(inputs[k]) if steady else inputs[k] for k in program["inputs"]]
    Interpreter(point).run(program["code"], values)
    return {k: values[i] for k, i in program["outputs"].items()}


def _gradients(program: Mapping[str, Any], text: str, point: Point) -> Verdict:
    claims = dict(program["claims"])
    if not claims:
        raise LoadError("the program claims no gradient")
    inputs = _inputs(program, point, claims.values())
    outputs = _run(program, inputs, point, steady=True)
    loss = (_loss_of(parse(text), program, inputs, point) if text else
            _run(program, inputs, point, steady=False)[program["loss"]].item())
    if text and outputs[program["loss"]].item().value != loss.value:
        raise ProofError(f"the loss of the {program['what']} program is not the loss of the equations")
    total, degree, entries = 0, loss.slope_degree, 0
    for output, name in claims.items():
        if outputs[output].shape != inputs[name].shape:
            raise ProofError(f"{output} has shape {outputs[output].shape}, but {name} has {inputs[name].shape}", name)
        for g, v in zip(outputs[output].ravel(), inputs[name].ravel(), strict=True):
            total = (total + point.number(g).value * v.tangent) % P
            degree, entries = max(degree, point.number(g).degree + 1), entries + 1
    if total != loss.tangent:
        raise ProofError(f"the gradients of the {program['what']} program are not the derivatives of its loss")
    sizes = ", ".join(f"{k}={v}" for k, v in program["sizes"].items())
    against = "the equations" if text else "its own forward program"
    return _verdict(f"{program['what']} gradients against {against}{', ' + sizes if sizes else ''}", entries, degree, point)


def _pair(program: Mapping[str, Any], point: Point) -> Verdict:
    before, after = program["before"], program["after"]
    inputs = _inputs(before, point, ())
    if dict(after["inputs"]) != {k: before["inputs"][k] for k in after["inputs"]}:
        raise ProofError("the two programs have different inputs")
    a, b = _run(before, inputs, point, True), _run(after, inputs, point, True)
    if list(a) != list(b):
        raise ProofError("the two programs have different outputs")
    degree, entries = 0.0, 0
    for name in a:
        for x, y in zip(a[name].ravel(), b[name].ravel(), strict=True):
            if (x.value != y.value) if isinstance(x, Number) else x != y:
                raise ProofError(f"output {name!r} of the two programs differs", name)
            degree, entries = max(degree, x.degree if isinstance(x, Number) else 0.0), entries + 1
    return _verdict("two programs", entries, degree, point)


def _verdict(what: str, entries: int, degree: float, point: Point) -> Verdict:
    bound = min(1.0, (degree + len(point.seen) ** 2 * point.argument_degree) / P)
    if not bound <= CONVINCING:
        raise ProofError(f"{what}: the degree {degree:.3g} is too high for a convincing check (error bound {bound:.1e})")
    return Verdict(what, entries, bound)


def _loss_of(system: System, program: Mapping[str, Any], inputs: Mapping[str, Array], point: Point) -> Number:
    """Σ <r[t], y[t]>, evaluated from the equations one example after the other."""
    equations = Equations(system, point, {k: v for k, v in inputs.items() if "[" not in k})
    total = point.number(0)
    for b in range(program["sizes"]["batch"]):
        values = _history(equations, inputs, b, program["sizes"]["steps"])
        for name in (k for k in inputs if k.startswith(WEIGHT)):
            output, t = name.removeprefix(WEIGHT).rstrip("]").split("[")
            inner = each(lambda r, y: r * y, inputs[name][b], values[int(t)][output])
            total = total + summed(inner, tuple(range(inner.ndim)), False, point).item()
    return total


def _history(equations: Equations, inputs: Mapping[str, Array], b: int, steps: int) -> dict[int, dict[str, Array]]:
    """Every quantity of one example at every step."""
    learned = {f"{n}[{k}]" for n, k in equations.system.learned}
    found: dict[int, dict[str, Array]] = {}

    def at(t: int, name: str, lag: int) -> Array:
        step = t - lag
        if step >= 1:
            return found[step][name]
        start = f"{name}[{step}]"
        if start in inputs:
            return inputs[start] if start in learned else inputs[start][b]
        return filled(inputs[f"{name}[1]"].shape[1:], lambda: equations.point.number(0))  # a delayed input, not yet given

    for t in range(1, steps + 1):
        now = {k.split("[")[0]: v[b] for k, v in inputs.items() if k.endswith(f"[{t}]") and not k.startswith(WEIGHT)}
        found[t] = equations.step(partial(at, t), now)
    return found
