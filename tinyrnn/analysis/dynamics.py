"""What a recurrence does to a small change, and which path the gradient takes: from the numbers of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .bptt import BackwardPass, ScanData, StepGradients

Array = npt.NDArray[Any]


def step_jacobians(bptt: BackwardPass, data: ScanData, row: int = 0) -> Array:
    """`d(state after step t) / d(state before it)` for one row, [T, S, S], first step of the walk first."""
    return np.stack([j for _, j in bptt.jacobians(data, row)][::-1])


def singular_values(jacobians: Array) -> Array:
    """The singular values of `d s[T] / d s[t]` for t = 0..T-1, [T, S], largest first.

    The product is kept at norm 1 beside the logarithm of its scale, so that it neither over- nor underflows; values
    that rounding hides behind the largest are 0.
    """
    size = jacobians.shape[-1]
    out, product = [], np.eye(size)
    scale = 0.0
    for j in jacobians[::-1]:
        product = product @ j
        norm = np.linalg.norm(product)
        if norm > 0 and np.isfinite(norm):
            product, scale = product / norm, scale + np.log(norm)
        with np.errstate(under="ignore", over="ignore"):
            values = np.linalg.svd(product, compute_uv=False) if np.isfinite(norm) else np.full(size, np.nan)
            out.append(np.where(values < size * np.finfo(float).eps * values[0], 0.0, values) * np.exp(scale))
    return np.stack(out[::-1])


def lyapunov(jacobians: Array) -> Array:
    """Lyapunov exponents, nats per step, largest first: means of log |R_ii| of a QR carried along the steps.

    (G. Benettin et al., Meccanica 15, 1980; for recurrent networks R. Vogt et al., Frontiers in Applied Mathematics
    and Statistics 8, 2022.)
    """
    q = np.eye(jacobians.shape[-1])
    total = np.zeros(jacobians.shape[-1])
    for j in jacobians:
        q, r = np.linalg.qr(j @ q)
        with np.errstate(divide="ignore"):
            total += np.log(np.abs(np.diag(r)))
    return np.sort(total / len(jacobians))[::-1]


@dataclass(frozen=True)
class Route:
    """The strongest path of the gradient from the loss to what a recurrence starts from.

    `gain` is the product, over its edges, of the norm of what is sent along the edge by the norm of the sender's
    gradient, times the norm of the gradient with which it begins.
    """

    source: str
    gain: float
    gradient: float       # the norm of the whole gradient there
    stops: tuple[tuple[str, int], ...]  # (quantity, position), from the loss back

    def __str__(self) -> str:
        """Equal steps are written once."""
        names = [f"{q.replace('[t-1]', '')}[{p - q.endswith('[t-1]')}]" for q, p in self.stops]
        shown = list(dict.fromkeys(names))
        return "L ← " + " ← ".join(shown if len(shown) <= 10 else [*shown[:5], "…", *shown[-4:]])


@np.errstate(all="ignore")
def strongest(bptt: BackwardPass, steps: Sequence[StepGradients]) -> list[Route]:
    """The strongest path to every remembered quantity, by the semiring (max, ×) over quantities and steps."""
    best: dict[tuple[str, int], tuple[float, tuple[str, int] | None]] = {}
    r = bptt.recurrence
    name = {n: q for q, n in reversed(bptt.quantities.items())}
    carried = {name[n]: name.get(c) for k, c in zip(r.state_names, r.new_states, strict=True)
               if (n := r.step.inputs.get(k)) in name}  # what is remembered -> what it was carried from
    order = [p + 1 for p in r.scan.order]
    quantities = list(bptt.quantities)
    outputs = set(r.traced.values())
    for m, t in zip(steps, reversed(range(len(order))), strict=True):
        for q in reversed(quantities):
            if m.gradients.get(q) is None:
                continue
            found = [_along(best, (a, m.position), m, q) for a, b in m.sent if b == q and (a, m.position) in best]
            for k, c in carried.items():  # through time: what is remembered is what was carried
                if c == q and t + 1 < len(order) and (k, order[t + 1]) in best:
                    found.append((best[k, order[t + 1]][0], (k, order[t + 1])))
            if bptt.quantities[q] in outputs or (t + 1 == len(order) and q in carried.values()):
                direct = _direct(m, steps, order, t, q, [k for k, c in carried.items() if c == q])
                found += [(direct, None)] if direct else []
            if found:
                best[q, m.position] = max(found, key=lambda f: f[0])
    first = order[0]
    return [_route(best, (k, first), steps[-1]) for k in carried if (k, first) in best]


def _direct(m: StepGradients, steps: Sequence[StepGradients], order: Sequence[int], t: int, q: str,
            after: Sequence[str]) -> float:
    """The norm of what the loss itself sends to a quantity; 0 where rounding is all that is left."""
    whole = m.gradients[q]
    assert whole is not None
    rest = whole - sum(v for (_, b), v in m.sent.items() if b == q) - _arriving(steps, order, t, after)
    norm = float(np.linalg.norm(rest))
    return norm if norm > 1e-12 * float(np.linalg.norm(whole)) else 0.0


def _along(best: dict[Any, Any], reader: tuple[str, int], m: StepGradients, q: str) -> tuple[float, tuple[str, int] | None]:
    """The best path that comes through one reader."""
    whole = m.gradients[reader[0]]
    assert whole is not None
    norm = float(np.linalg.norm(whole))
    return (best[reader][0] * float(np.linalg.norm(m.sent[reader[0], q])) / norm if norm else 0.0), reader


def _arriving(steps: Sequence[StepGradients], order: Sequence[int], t: int, names: Sequence[str]) -> Any:
    """What the next step sends back to a quantity that it remembers."""
    if t + 1 >= len(order):
        return 0.0
    later = steps[len(order) - 2 - t].gradients
    return sum((g for k in names if (g := later.get(k)) is not None), start=np.zeros(()))


def _route(best: dict[Any, Any], at: tuple[str, int], first: StepGradients) -> Route:
    stops, here = [], at
    while here is not None:
        stops.append(here)
        here = best[here][1]
    gradient = first.gradients[at[0]]
    return Route(at[0], best[at][0], 0.0 if gradient is None else float(np.linalg.norm(gradient)), tuple(stops[::-1]))
