"""Measuring two sides in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Run = Callable[[], object]
Burst = Callable[[], float]
BURST = 0.015  # seconds for which a side runs before the other has its turn
REST = 0.002   # seconds between two turns


class Ratio(NamedTuple):
    """Medians in milliseconds, and the ratio of neighbouring measurements: median and quartiles."""

    ours: float
    peer: float
    ratio: float
    low: float
    high: float
    pairs: int
    setting: str


def spoken(ms: float) -> str:
    """A time with its unit."""
    return f"{ms:.2f} ms" if ms >= 0.1 else f"{1e3 * ms:.1f} µs"


def burst(run: Run) -> float:
    """The median time of one call in a short series, in milliseconds; the call before it, which finds sleeping threads and the
    other side's data in the caches, is not counted."""
    run()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < BURST:
        t = time.perf_counter()
        run()
        times.append(time.perf_counter() - t)
    return 1e3 * statistics.median(times)


def compare(ours: Burst, peers: Mapping[str, Burst], pairs: int, limit: float) -> Ratio:
    """`ours` against the peer at its best setting, by functions that give the milliseconds of a call: at most `pairs` rounds,
    as many as fit into `limit` seconds (3 at least)."""
    rows: list[dict[str, float]] = []
    began = time.perf_counter()
    while len(rows) < pairs and (len(rows) < 3 or time.perf_counter() - began < limit):
        row = {}
        for name, run in [("ours", ours), *peers.items()]:
            time.sleep(REST)
            row[name] = run()
        rows.append(row)
    medians = {name: statistics.median(r[name] for r in rows) for name in rows[0]}
    best = min(peers, key=medians.__getitem__)
    ratios = [r["ours"] / r[best] for r in rows]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return Ratio(medians["ours"], medians[best], middle, low, high, len(rows), best)
