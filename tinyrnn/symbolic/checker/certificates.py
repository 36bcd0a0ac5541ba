"""Certificates: every program at new random points, modulo two new primes."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cells.roles import find_roles
from ...cells.terms import System
from ...errors import LoadError, ProofError
from .choices import chooses_otherwise
from .contents import WEIGHT, read
from .forms import kind_of
from .meaning import Equations
from .numbers import (
    SMALLEST,
    Allowance,
    Array,
    DrawnArray,
    FieldPoint,
    NearError,
    Residue,
    drawn_prime,
    each,
    filled,
    still,
    summed,
)
from .programs import Interpreter

# These limits and the formula of the error are the checker's own, as are its primes: it takes nothing from the engine.
CONVINCING = 2.0**-20
MOST_WORK, LARGEST = 10_000_000, 1_000_000
LONGEST_FILE = 2**26
POINTS, MOST_POINTS = 16, 64
FEW, QUIET = 24, 24


@dataclass(frozen=True)
class Verdict:
    """What the checker found for one program."""

    what: str
    entries: int
    error_bound: float
    points: int
    branches: int
    one_sided: int = 0              # decisions that went one way at all points
    text: str = ""                  # the equations, where it was held against some

    def __str__(self) -> str:
        rest = f", {self.one_sided} of them always one way" if self.one_sided else ""
        where = f", on the branches of these points ({self.branches} decisions{rest})" if self.branches else ""
        return (f"{self.what}: {self.entries} entries equal at {self.points} points modulo two primes, error bound "
                f"{self.error_bound:.1e}{where}")


def check_file(file: str | Path, seed: int | None = None) -> list[Verdict]:
    """Verify a certificate; raises `ProofError` where a claim is false and `LoadError` where the file is none."""
    path = Path(file).expanduser()
    try:
        if path.stat().st_size > LONGEST_FILE:
            raise LoadError(f"{file} is longer than {LONGEST_FILE:,} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadError(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{file} is not a certificate: {error}") from None
    return check(found, seed)


def check(certificate: Mapping[str, Any], seed: int | None = None) -> list[Verdict]:
    """Every program of a certificate: at two points at least, at more where something decides by numbers."""
    try:
        system = read(certificate)
        rng = np.random.default_rng(secrets.randbits(96) if seed is None else seed)
        for p in certificate["programs"]:
            for side in (p.values() if "before" in p else [p]):
                if sum(math.prod(shape) for _, shape in side["inputs"].values()) > LARGEST:
                    raise LoadError(f"the certificate asks for inputs of more than {LARGEST:,} numbers")
        run = _Run(certificate["text"], system, (drawn_prime(rng), drawn_prime(rng)), rng, Allowance(MOST_WORK))
        with np.errstate(all="ignore"):
            return [run.verified(p) for p in certificate["programs"]]
    except (ProofError, LoadError):
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise LoadError(f"the certificate is damaged: {type(error).__name__}: {str(error)[:200]}") from error


# ---- the check

@dataclass
class _Run:
    """All checks of one certificate."""

    text: str
    system: System | None           # the equations of a cell
    primes: tuple[int, int]
    rng: np.random.Generator
    work: Allowance
    sides: dict[int, set[bool]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    signed: dict[str, bool] = field(default_factory=dict)
    patterns: set[tuple[bool, ...]] = field(default_factory=set)
    newest: int = 0                 # the draw that met a new pattern of decisions last

    def verified(self, program: Mapping[str, Any]) -> Verdict:
        """One program at as many points as its branches and whole numbers ask for; each prime gets one at least."""
        sides = [program["before"], program["after"]] if "before" in program else [program]
        self.sizes = sorted({2, *_sizes(sides)})
        if "claims" in program and chooses_otherwise(program, _needed(program)):
            raise ProofError("the gradients of the program choose by whole numbers by which its loss does not")
        ranges = self._ranges(sides)
        numbers = sorted(set(_floats(sides)))
        found: dict[int, Verdict] = {}
        self.sides.clear()
        self.patterns.clear()
        self.newest = -QUIET
        count = max(POINTS, *(2 * n for n in ranges.values())) if ranges else POINTS
        for draw in range(MOST_POINTS):
            try:
                found[draw] = self._at(draw, program, ranges, numbers)
            except NearError as error:  # the program is not defined for these numbers
                undefined = error
            both = {k % 2 for k in found} == {0, 1}
            quiet = draw - self.newest >= QUIET
            if both and (not any(v.branches for v in found.values()) or (draw + 1 >= count and not self.one_sided and quiet)):
                break
        if not both:
            raise undefined
        first = next(iter(found.values()))
        return Verdict(first.what, first.entries, max(v.error_bound for v in found.values()), len(found),
                       sum(v.branches for v in found.values()), self.one_sided, self.text)

    @property
    def one_sided(self) -> int:
        """Decisions that went one way so far."""
        return sum(len(s) == 1 for s in self.sides.values())

    def _at(self, draw: int, program: Mapping[str, Any], ranges: Mapping[str, int], numbers: Sequence[float]) -> Verdict:
        """One draw; as quotients, where its claim does not hold for free reciprocals."""
        seed = int(self.rng.integers(2**62))
        try:
            return self._defined(draw, program, ranges, numbers, seed, False)
        except ProofError as wrong:
            try:
                return self._defined(draw, program, ranges, numbers, seed, True)
            except NearError:
                raise wrong from None

    def _defined(self, draw: int, program: Mapping[str, Any], ranges: Mapping[str, int], numbers: Sequence[float], seed: int,
                 modular: bool) -> Verdict:
        """One draw: with positive floats, or with floats near 1, where a branch would meet a NaN."""
        for k, positive in ((draw, False), (draw, True), (0, False), (0, True)):
            rng = np.random.default_rng(seed)
            point = FieldPoint(self.primes[draw % 2], rng, self.work, k, numbers, positive, modular)
            whole = _whole(program, ranges, self.sizes, self.signed, draw, rng)
            try:
                found = (_pair(program, point, whole) if "before" in program else
                         _gradients(program, self.system, point, whole))
            except NearError as error:
                undefined = error
                continue
            for k, outcome in point.outcomes.items():
                self.sides.setdefault(k, set()).add(outcome)
            pattern = tuple(point.outcomes.values())
            if len(pattern) <= FEW and pattern not in self.patterns:  # a program of few entries meets few patterns in a draw
                self.patterns.add(pattern)
                self.newest = draw
            return found
        raise undefined

    def _ranges(self, sides: list[Any]) -> dict[str, int]:
        """How many numbers each input of whole numbers takes: 0 to the largest size at which no index lies outside."""
        names = [k for k, (dtype, _) in sides[0]["inputs"].items() if kind_of(dtype) != "f"]
        found = {}
        for name in names:
            dtype = sides[0]["inputs"][name][0]
            sizes = self.sizes[::-1] if kind_of(dtype) != "b" else [2]
            found[name] = next((n for n in sizes if self._takes(sides, name, n - 1)), 1)
            self.signed[name] = kind_of(dtype) == "i" and all(self._takes(sides, name, k) for k in (-1, -found[name]))
        return found

    def _takes(self, sides: list[Any], name: str, value: int) -> bool:
        """Whether the programs run with this number in every entry of one input."""
        if value > 127:
            return False
        for side in sides:
            whole = {k: np.full(shape, value if k == name else 0, dtype) for k, (dtype, shape) in side["inputs"].items()
                     if kind_of(dtype) != "f"}
            point = FieldPoint(self.primes[0], np.random.default_rng(0), self.work)
            point.strict = True
            try:
                _run(side, _inputs(side, point, (), whole), point, steady=True)
            except NearError as error:
                return "index" not in str(error)
        return True


def _floats(sides: Iterable[Mapping[str, Any]]) -> Iterator[float]:
    """The magnitudes of the numbers in the code: something may be compared with them."""
    todo: list[Any] = [side["code"] for side in sides]
    while todo:
        x = todo.pop()
        if isinstance(x, (list, tuple)):
            todo += x
        elif isinstance(x, dict) and set(x) == {"float"}:
            todo.append(float(x["float"]))
        elif isinstance(x, dict):
            todo += x.values()
        elif isinstance(x, (int, float)) and 0 < abs(x) < 1e12:
            yield abs(float(x))


def _sizes(sides: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    for side in sides:
        yield from (n for _, shape in side["inputs"].values() for n in shape if n > 1)
    yield from (int(v) for v in _floats(sides) if v.is_integer() and 1 < v < 128)


def _whole(program: Mapping[str, Any], ranges: Mapping[str, int], sizes: Sequence[int], signed: Mapping[str, bool], draw: int,
           rng: np.random.Generator) -> dict[str, Array]:
    """Inputs of whole numbers: all smallest, all largest, each in turn through its range, or anything; where nothing limits
    them, and now and then, through a range as long as any axis."""
    inputs = program.get("before", program)["inputs"]
    found = {}
    for k, limit in ranges.items():
        dtype, shape = inputs[k]
        wide = limit == sizes[-1] > 2
        n = int(rng.choice(sizes)) if wide or draw % 8 == 7 else limit
        if draw in (1, 3):
            x = np.full(shape, 0 if draw == 1 else n - 1)
        elif draw % 2:
            x = rng.integers(0, n, shape)
        else:
            x = (np.arange(int(np.prod(shape))).reshape(shape) + draw // 2) % n
        x = x * rng.choice([-1, 1], shape) if signed[k] and draw % 4 > 1 else x
        found[k] = np.asarray(x).astype(dtype).view(DrawnArray)
    return found


def _inputs(program: Mapping[str, Any], point: FieldPoint, moving: Iterable[str],
            whole: Mapping[str, Array]) -> dict[str, Array]:
    hot = set(moving)
    point.work.spend(sum(math.prod(shape) for _, shape in program["inputs"].values()))
    point.branches += sum(x.size for x in whole.values())
    return {name: whole[name] if name in whole else point.draw(shape, name in hot)
            for name, (_, shape) in program["inputs"].items()}


def _run(program: Mapping[str, Any], inputs: Mapping[str, Array], point: FieldPoint, steady: bool,
         only: set[int] | None = None) -> dict[str, Any]:
    values = [still(inputs[k]) if steady else inputs[k] for k in program["inputs"]]
    Interpreter(point).run(program["code"], values, only)
    return {k: _array(values[i]) for k, i in program["outputs"].items() if only is None or i in only}


def _number(x: Array) -> Residue:
    if x.shape != () or x.dtype != object:
        raise LoadError("the loss of a program is one number")
    found: Residue = x.item()
    return found


def _array(x: npt.NDArray[Any]) -> Array:
    if not isinstance(x, np.ndarray):
        raise LoadError("the certificate is damaged: an output is no array")
    return x


def _needed(program: Mapping[str, Any]) -> set[int]:
    """The instructions that the loss depends on."""
    first, todo = len(program["inputs"]), [program["outputs"][program["loss"]]]
    found: set[int] = set()
    while todo:
        i = todo.pop()
        if i not in found:
            found.add(i)
            todo += program["code"][i - first][1] if i >= first else []
    return found


def _gradients(program: Mapping[str, Any], system: System | None, point: FieldPoint, whole: Mapping[str, Array]) -> Verdict:
    claims = program["claims"]
    inputs = _inputs(program, point, claims.values(), whole)
    loss = (_loss_of(system, program, inputs, point) if system is not None else
            _number(_run(program, inputs, point, False, _needed(program))[program["loss"]]))
    known = point.noted()
    outputs = _run(program, inputs, point, steady=True)
    if _number(outputs[program["loss"]]).value != loss.value:
        raise ProofError(f"the loss of the {_called(program, system)} is not the loss of the equations")
    if point.foreign(known):
        raise ProofError(f"the {_called(program, system)} decides by numbers by which its loss does not")
    total, degree, entries = 0, loss.slope_degree, 0
    for output, name in claims.items():
        if outputs[output].dtype != object or outputs[output].shape != inputs[name].shape:
            raise ProofError(f"{output} has shape {outputs[output].shape}, but {name} has {inputs[name].shape}", name)
        for g, v in zip(outputs[output].ravel(), inputs[name].ravel(), strict=True):
            total = (total + g.value * v.tangent) % point.p
            degree, entries = point.join(degree, g.degree + 1), entries + 1
    if total != loss.tangent:
        raise ProofError(f"the gradients of the {_called(program, system)} are not the derivatives of its loss")
    if not entries:
        raise LoadError("the program claims no entry of a gradient")
    return _verdict(_named(program, system), entries, degree, point)


def _called(program: Mapping[str, Any], system: System | None) -> str:
    return "program" if system is None else f"{program['what']} program"


def _named(program: Mapping[str, Any], system: System | None) -> str:
    """The program and its sizes, as its inputs have them."""
    if system is None:
        return "gradients against its own forward program"
    sizes, roles = program["sizes"], find_roles(system)
    widths = {x: program["inputs"][f"{x}[1]"][1][1:] for x in roles.inputs} | {
        n: program["inputs"][f"{n}[0]"][1][1:] for n in roles.states if f"{n}[0]" in program["inputs"]}
    shown = ", ".join(f"{k} of size {'x'.join(map(str, v)) or 1}" for k, v in widths.items())
    return (f"{program['what']} gradients against the equations, {sizes['steps']} steps, {sizes['batch']} rows, {shown}")


def _pair(program: Mapping[str, Any], point: FieldPoint, whole: Mapping[str, Array]) -> Verdict:
    before, after = program["before"], program["after"]
    inputs = _inputs(before, point, (), whole)
    if any(k not in before["inputs"] or after["inputs"][k] != before["inputs"][k] for k in after["inputs"]):
        raise ProofError("the two programs have different inputs")
    a, known = _run(before, inputs, point, True), point.noted()
    b = _run(after, inputs, point, True)
    if list(a) != list(b):
        raise ProofError("the two programs have different outputs")
    if point.foreign(known):
        raise ProofError("the second program decides by numbers by which the first does not")
    degree, entries = 0.0, 0
    for name in a:
        if a[name].shape != b[name].shape:
            raise ProofError(f"output {str(name)!r} of the two programs differs", name)
        for x, y in zip(a[name].ravel(), b[name].ravel(), strict=True):
            if (x.value != y.value) if isinstance(x, Residue) and isinstance(y, Residue) else x != y:
                raise ProofError(f"output {str(name)!r} of the two programs differs", name)
            degree, entries = max(degree, x.degree if isinstance(x, Residue) else 0.0), entries + 1
    if not entries:
        raise LoadError("the two programs compute nothing")
    return _verdict("two programs", entries, degree, point)


def _verdict(what: str, entries: int, degree: float, point: FieldPoint) -> Verdict:
    bound = min(1.0, (degree + len(point.seen) ** 2 * point.argument_degree) / SMALLEST)
    if not bound <= CONVINCING:
        raise ProofError(f"{what}: the degree {degree:.3g} is too high for a convincing check (error bound {bound:.1e})")
    return Verdict(what, entries, bound, 1, point.branches)


def _loss_of(system: System, program: Mapping[str, Any], inputs: Mapping[str, Array], point: FieldPoint) -> Residue:
    """Σ <r[t], y[t]>, evaluated from the equations one example after the other."""
    equations = Equations(system, point, {k: v for k, v in inputs.items() if "[" not in k})
    total = point.number(0)
    for b in range(program["sizes"]["batch"]):
        values = _history(equations, inputs, b, program["sizes"]["steps"])
        for name in (k for k in inputs if k.startswith(WEIGHT)):
            output, t = name.removeprefix(WEIGHT).rstrip("]").split("[")
            weight, y = np.asarray(inputs[name][b], object), values[int(t)][output]
            if weight.shape != y.shape:
                raise ProofError(f"{output} has shape {y.shape} by the equations, but its weight has {weight.shape}", output)
            inner = each(lambda r, y: r * y, weight, y)
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
