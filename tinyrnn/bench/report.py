"""The measured figures as JSON, as a page, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from math import exp, log
from pathlib import Path
from typing import Any

from ..files import atomic_write
from .cases import MIDDLE
from .timing import spoken

Found = Mapping[str, Any]


def write(found: Found, folder: Path, name: str = "cpu") -> list[Path]:
    """`name`.json, `name`.md and (where matplotlib is installed) `name`.svg in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{name}.svg"
    with_picture = bool(find_spec("matplotlib")) and "stock" in found
    if with_picture:
        _picture(found, picture)
    files = write_page(found, page(found, picture=with_picture, name=name), folder, name)
    return [*files, picture] if with_picture else files


def write_page(found: Found, text: str, folder: Path, name: str) -> list[Path]:
    """Figures as `name`.json, and the page about them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.json", folder / f"{name}.md"]
    atomic_write(files[0], (json.dumps(found, indent=1) + "\n").encode())
    atomic_write(files[1], text.encode())
    return files


def mean(ratios: Iterable[float]) -> float:
    """The geometric mean."""
    values = list(ratios)
    return exp(sum(map(log, values)) / len(values))


def targets(found: Found) -> list[tuple[str, str, str]]:
    """What was asked for, what was measured, and whether it is met."""
    rows: list[tuple[str, str, str]] = []

    def row(what: str, asked: str, measured: str, met: bool) -> None:
        rows.append((what, f"{measured} (asked: {asked})", "yes" if met else "**no**"))

    if "stock" in found:
        stock = [r for rows_ in found["stock"].values() for r in rows_]
        typical, worst = mean(r["ratio"] for r in stock), max(r["low"] for r in stock)
        row("training step against torch `nn.*`, geometric mean of the ratios", "≤ 0.5", f"{typical:.2f}", typical <= 0.5)
        row("the same, largest lower quartile", "≤ 0.9", f"{worst:.2f}", worst <= 0.9)
        middle = [r["ratio"] for r in found["stock"].get("LSTM", ()) if r["point"] in map(str, MIDDLE)]
        if middle:
            row(f"LSTM at {', '.join(map(str, MIDDLE))}, largest ratio", "≤ 0.6", f"{max(middle):.2f}", max(middle) <= 0.6)
        small = [r for rows_ in found["streams"].values() for r in rows_ if "H=512" not in r["point"]]
        row("inference of one row against torch, H ≤ 128, largest ratio", "≤ 0.35", f"{max(r['ratio'] for r in small):.2f}",
            max(r["ratio"] for r in small) <= 0.35)
        wide = [r["read_gb_s"] / r["cache_gb_s"] for rows_ in found["streams"].values() for r in rows_ if "H=512" in r["point"]]
        if wide:
            row("inference of one row, H = 512, share of the cache's bandwidth, smallest", "≥ 0.7", f"{min(wide):.2f}",
                min(wide) >= 0.7)
    rows += _served_targets(found)
    rows += _load_targets(found)
    for peer, rows_ in found["unusual"].items():
        cases = [r for case in rows_.values() for r in case]
        if peer == "torch":
            small = [r for r in cases if "H=64" in r["point"]]
            row("unusual cells against torch eager, B ≤ 16, H ≤ 64, geometric mean", "≤ 0.15",
                f"{mean(r['ratio'] for r in small):.2f}", mean(r["ratio"] for r in small) <= 0.15)
            worst = max(r["ratio"] for r in cases)
            row("the same, every point", "≤ 0.3", f"{worst:.2f}", worst <= 0.3)
        else:
            row("unusual cells against JAX scan under jit, geometric mean", "≤ 0.3", f"{mean(r['ratio'] for r in cases):.2f}",
                mean(r["ratio"] for r in cases) <= 0.3)
    shares = [r["share"] for r in found["efficiency"]]
    row("share of the peak of the registers, H ≥ 128, one thread, smallest", "≥ 0.75", f"{min(shares):.2f}",
        min(shares) >= 0.75)
    cold = [r["cold_s"] for r in found["first calls"]]
    row("first call of a new layer, cold, slowest", "≤ 0.7 s", f"{max(cold):.2f} s", max(cold) <= 0.7)
    if "memory" in found:
        row("peak memory of a training step against torch, largest ratio", "≤ 0.6",
            f"{max(r['ratio'] for r in found['memory']):.2f}", max(r["ratio"] for r in found["memory"]) <= 0.6)
    traced, ready = found["tracing"]["traced_ms"], found["tracing"]["ready_ms"]
    row("tracing two stacked layers with gradients; until a new length can run", "≤ 20 ms", f"{traced:.0f} ms; {ready:.0f} ms",
        traced <= 20)
    return rows


def _served_targets(found: Found) -> list[tuple[str, str, str]]:
    """What was asked of serving."""
    rows = []

    def row(what: str, asked: str, most: float, measured: Iterable[float], unit: str = "") -> None:
        worst = max(measured)
        rows.append((what, f"{worst:.2f}{unit} (asked: {asked})", "yes" if worst <= most else "**no**"))

    if "served" in found:
        steps, whole = ([r for rows_ in found["served"][k].values() for r in rows_] for k in ("step", "infer"))
        row("one step by the handle against onnxruntime, H = 64, largest ratio", "≤ 0.7", 0.7, (r["ratio"] for r in steps))
        one = [r for r in whole if " B=1 " in r["point"]]
        row("sequences of one row against onnxruntime, H ≤ 128, largest ratio", "≤ 0.8", 0.8,
            (r["ratio"] for r in one if "H=512" not in r["point"]))
        if wide := [r["ratio"] for r in one if "H=512" in r["point"]]:
            row("the same, H = 512", "≤ 1.0", 1.0, wide)
        if many := [r["ratio"] for r in whole if " B=1 " not in r["point"]]:
            row("sequences of 16 to 64 rows against onnxruntime, largest ratio", "≤ 0.8", 0.8, many)
    if "calls" in found:
        row("`predict` against the compiled call, one row, largest ratio", "≤ 1.5", 1.5,
            (r["ratio"] for r in found["calls"]["predict"]))
        row("a compiled function of little work, ten parameters", "≤ 10 µs", 10, [found["calls"]["small_us"]], " µs")
    return rows


def _load_targets(found: Found) -> list[tuple[str, str, str]]:
    """What was asked of threads, lengths, loops and functions of weights."""
    rows = []

    def row(what: str, asked: str, measured: float, met: bool, unit: str = "") -> None:
        rows.append((what, f"{measured:.2f}{unit} (asked: {asked})", "yes" if met else "**no**"))

    if "lengths" in found:
        slowest = max(found["lengths"].values())
        row("`predict` at a length that was not seen before, slowest", "≤ 1 ms", slowest, slowest <= 1, " ms")
    if "threads" in found:
        quiet, busy = ([r["ratio"] for r in found["threads"] if bool(r["busy"]) is b] for b in (False, True))
        gain = 1 / max(quiet)
        row("two threads against one, LSTM training at middle sizes, smallest gain", "≥ 1.6", gain, gain >= 1.6)
        row("two threads beside busy processes, their time over that of one, largest", "≤ 1.3", max(busy), max(busy) <= 1.3)
    if "weights" in found:
        mib = found["weights"]["mib"]
        most = max(mib.values()) / mib["W"]
        row("temporaries of functions of weights against the weight itself, largest ratio", "≤ 1.2", most, most <= 1.2)
    if "2000" in found.get("loops", ()):
        took = found["loops"]["2000"]
        row("a Python loop of 2,000 steps, compiled", "≤ 8 s", took, took <= 8, " s")
    return rows


def page(found: Found, *, picture: bool, name: str = "cpu") -> str:
    """The report in Markdown."""
    m = found["machine"]
    lines = [
        "# Benchmarks on the CPU", "",
        "Written by `tinyrnn bench` (`make bench`). Ratios are our time divided by the peer's, smaller is better; each is",
        "the median of neighbouring measurements, with quartiles in brackets. Each side runs in a process of its own, which",
        "is stopped (SIGSTOP) while the other runs: idle threads of PyTorch and of onnxruntime look for work for a while, and",
        "would take a processor from the other side. Both run with one thread and with two, and the better one counts; we run",
        "with the default number of threads. A training step is the forward pass, the loss `sum(y * g)`, and all gradients,",
        "that of the input included.", "",
        f"Machine: {m['processor']}, {m['cores']} cores, vectors of {8 * m['vector_bytes']} bits, "
        f"{found['peak_gflops']:.0f} GFLOP/s in registers (one thread). Python {m['python']}, tinyrnn {m['tinyrnn']}, "
        f"NumPy {m['numpy']}, llvmlite {m['llvmlite']}, PyTorch {m['torch']}, JAX {m['jax']}, onnxruntime "
        f"{m.get('onnxruntime')}. {found['date']}.", ""]
    lines += table(["", "measured", "met"], targets(found))
    if picture:
        lines += [f"![Ratios of training steps against PyTorch]({name}.svg)", ""]
    if "stock" in found:
        lines += ["## Training step against `torch.nn`", ""]
        for kind, rows in found["stock"].items():
            lines += [f"### {kind}", "", *_ratios(rows, "PyTorch")]
        lines += ["## Inference of one row against `torch.nn`", ""]
        for kind, rows in found["streams"].items():
            lines += [f"### {kind}", "", *_ratios(rows, "PyTorch")]
            lines += table(["", "one thread", "weights read", "that cache can be read at"], [
                (r["point"], f"{r['single_thread_ms']:.2f} ms", f"{r['read_gb_s']:.0f} GB/s", f"{r['cache_gb_s']:.0f} GB/s")
                for r in rows])
    lines += _serving(found)
    lines += _load(found)
    for peer, cases in found["unusual"].items():
        label = "PyTorch's eager loop" if peer == "torch" else "JAX (scan under jit)"
        lines += [f"## Unusual cells against {label}", ""]
        for case, rows in cases.items():
            lines += [f"### {case}", "", *_ratios(rows, label)]
    lines += _rest(found)
    return "\n".join(lines).rstrip() + "\n"


def _ratios(rows: Iterable[Found], peer: str) -> list[str]:
    return table(["", "ours", peer, "ratio"], [
        (r["point"], spoken(r["ours"]), f"{spoken(r['peer'])} ({r['setting']})",
         f"{r['ratio']:.2f} [{r['low']:.2f}, {r['high']:.2f}], {r['pairs']} pairs") for r in rows])


def _serving(found: Found) -> list[str]:
    """Models in use."""
    lines: list[str] = []
    if "served" in found:
        lines += ["## Serving against onnxruntime", "", "One step: `s = layer.stream(); s(x)` against a session that takes and "
                  "returns the states. Sequences: a whole one in a call; onnxruntime gets it time first, as its operator wants "
                  "it.", ""]
        for kind, rows in found["served"]["infer"].items():
            lines += [f"### {kind}", "", *_ratios([*found["served"]["step"][kind], *rows], "onnxruntime")]
    if "calls" in found:
        lines += ["## Calls", ""]
        lines += table(["", "`predict`", "compiled call", "ratio"], [
            (f"{r['kind']}, {r['point']}", spoken(r["ours"]), spoken(r["peer"]),
             f"{r['ratio']:.2f} [{r['low']:.2f}, {r['high']:.2f}]") for r in found["calls"]["predict"]])
        lines += ["A compiled function of one 4 × 4 array, with ten parameters and two results: "
                  f"{found['calls']['small_us']:.1f} µs a call.", ""]
    if "lengths" in found:
        lines += ["`predict` at a length that was not seen before, until the result is there: "
                  + "; ".join(f"{name} {ms:.1f} ms" for name, ms in found["lengths"].items()) + ".", ""]
    return lines


def _load(found: Found) -> list[str]:
    """Threads, loops, functions of weights."""
    lines: list[str] = []
    if "threads" in found:
        lines += ["## Two threads", "", "An LSTM in two threads against one, in one process: with the machine to itself, and "
                  "beside processes that do nothing but keep a processor busy. Below 1 two threads are quicker.", ""]
        lines += table(["", "", "busy processes", "two threads", "one", "ratio"], [
            (r["what"], r["point"], str(r["busy"]), spoken(r["ours"]), spoken(r["peer"]),
             f"{r['ratio']:.2f} [{r['low']:.2f}, {r['high']:.2f}], {r['pairs']} pairs") for r in found["threads"]])
    if "weights" in found:
        w = found["weights"]
        lines += [f"Temporaries of a training step of `h[t] = tanh(F @ h[t-1] + U @ x[t])`, {w['units']} units, "
                  f"{w['steps']:,} steps, {w['batch']} rows: "
                  + "; ".join(f"F = `{f}` {mib:.0f} MiB" for f, mib in w["mib"].items()) + ".", ""]
    if "budgets" in found:
        b = found["budgets"]
        lines += [f"A training step of an LSTM, {b['units']} units, {b['batch']} rows, {b['steps']:,} steps: "
                  f"{b['mib']:.0f} MiB of temporaries; " + "; ".join(
                      f"`memory=\"{r['budget']}\"` {r['mib']:.0f} MiB, {r['ratio']:.2f} of the time "
                      f"[{r['low']:.2f}, {r['high']:.2f}]" for r in b["budgets"]) + ".", ""]
    if "loops" in found:
        lines += ["A training step that is a loop in Python, traced and compiled: "
                  + "; ".join(f"{int(n):,} steps {s:.1f} s" for n, s in found["loops"].items()) + ".", ""]
    return lines


def _rest(found: Found) -> list[str]:
    lines: list[str] = []
    if "torch.compile" in found:
        t = found["torch.compile"]
        lines += ["## torch.compile", ""]
        lines += [f"The minimal gated unit through `torch.compile` failed here: {t['error']}" if "error" in t else
                  f"The minimal gated unit at {t['point']}: first call {t['first_call_s']:.0f} s, then {t['peer']:.2f} ms "
                  f"against our {t['ours']:.2f} ms: ratio {t['ratio']:.2f} [{t['low']:.2f}, {t['high']:.2f}].", ""]
    lines += ["## First call", "", "An LSTM layer, B=4, X=16, H=32, in a new process: from before llvmlite is imported until "
              "the first training step is done.", ""]
    lines += table(["steps", "nothing compiled", "kernels on disk", "next call"], [
        (f"{r['steps']:,}", f"{r['cold_s']:.2f} s", f"{r['cached_s']:.2f} s", f"{1e3 * r['next_s']:.2f} ms")
        for r in found["first calls"]])
    lines += ["## Share of the peak", "", "Products of a training step alone (6 T B G H (X + H) operations for G gates), over "
              "the time of the whole step, one thread.", ""]
    lines += table(["", "", "products", "of the registers' peak"], [
        (r["kind"], r["point"], f"{r['gflops']:.0f} GFLOP/s", f"{r['share']:.2f}") for r in found["efficiency"]])
    if "roofline" in found:
        lines += ["## Roofline", "", f"The kernels of an LSTM's training step at {found['roofline']['point']}, each by itself "
                  "in one thread. The roof is the smaller of the registers' peak and what the cache that holds a kernel's data "
                  "delivers; bytes are counted as if nothing stayed in registers, and elementwise functions count as one "
                  "operation each.", ""]
        lines += table(["", "time", "rate", "operations a byte", "roof"], [
            (f"`{r['what'].replace('|', '/')}`", f"{r['ms']:.2f} ms", f"{r['gflops']:.0f} GFLOP/s, {r['gb_s']:.0f} GB/s",
             f"{r['intensity']:.1f}", f"{r['roof_gflops']:.0f} GFLOP/s") for r in found["roofline"]["kernels"]])
    if "memory" in found:
        lines += ["## Memory", "", "What three training steps add to the peak of a process that was warmed up at a small size; "
                  "processes of their own.", ""]
        lines += table(["", "", "ours", "PyTorch", "ratio"], [
            (r["kind"], r["point"], f"{r['ours_mib']:.0f} MiB", f"{r['torch_mib']:.0f} MiB", f"{r['ratio']:.2f}")
            for r in found["memory"]])
    return lines


def table(head: list[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table in Markdown, and an empty line."""
    return ["| " + " | ".join(head) + " |", "| " + " | ".join(["---", *["--:"] * (len(head) - 1)]) + " |",
            *("| " + " | ".join(r) + " |" for r in rows), ""]


def _picture(found: Found, path: Path) -> None:
    """A bar for every point of the grid: the ratio, its quartiles, and the line of equal speed."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "tinyrnn"
    pyplot = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, len(found["stock"]), figsize=(11, 3.2), sharey=True, layout="constrained")
    for axis, (kind, rows) in zip(axes, found["stock"].items(), strict=True):
        heights = [r["ratio"] for r in rows]
        spread = [[r["ratio"] - r["low"] for r in rows], [r["high"] - r["ratio"] for r in rows]]
        axis.bar(range(len(rows)), heights, yerr=spread, color="#2b6cb0", ecolor="#1a202c", capsize=2)
        axis.axhline(1, color="#c53030", linewidth=1)
        axis.set_title(f"nn.{kind}")
        axis.set_xticks(range(len(rows)), [r["point"].replace(" X", "\nX") for r in rows], rotation=60, fontsize=8.5)
    axes[0].set_ylabel("our time / PyTorch's")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
