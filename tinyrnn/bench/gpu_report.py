"""The figures of a GPU as a page: whatever of them was reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .gpu import ANCHOR, MODES, TARGETS
from .gpu_peers import PRECISIONS
from .report import table

Found = Mapping[str, Any]


def targets(found: Found) -> list[tuple[str, str, str]]:
    """What was asked for, what was measured, and whether it is met."""
    rows: list[tuple[str, str, str]] = []

    def row(what: str, asked: str, measured: str, met: bool) -> None:
        rows.append((what, f"{measured} (asked: {asked})", "yes" if met else "**no**"))

    anchor = found.get("rows", {}).get("LSTM", {}).get(str(ANCHOR), {})
    for mode, (forward, step) in TARGETS.items():
        if mode in anchor:
            a, b = anchor[mode]
            row(f"LSTM {ANCHOR}, {mode}, projection inside, forward / training step", f"≤ {forward:g} / {step:g} ms",
                f"{a:.2f} / {b:.2f} ms", a <= forward and b <= step)
    speedups = [r["torch eager"][1] / r["G1 fp32"][1] for r in found.get("unusual", {}).values()
                if {"torch eager", "G1 fp32"} <= set(r)]
    if speedups:
        row("unusual cells, training step, G1 fp32 against torch eager, least", "≥ 15 times as fast", f"{min(speedups):.1f}",
            min(speedups) >= 15)
    for point, modes in found.get("accuracy", {}).items():
        if "G1 fp32" in modes:
            worst = float(modes["G1 fp32"]["error"])
            row(f"LSTM {point}, outputs and gradients in fp32 against float64, norm-wise, largest", "≤ 1e-5", f"{worst:.1e}",
                worst <= 1e-5)
    return rows


def page(found: Found) -> str:
    """The report in Markdown."""
    lines = [
        "# Benchmarks on a GPU", "",
        "Medians in milliseconds, forward / training step, X = H, the projection of the input inside everywhere. Several calls",
        "are queued between two events of the device, so Python is left out of the times (JAX: the host's clock, around calls",
        "that wait). A training step is the forward pass, the loss `sum(y * g)` and all gradients, that of the input included.",
        "G0 launches one kernel at a time, G1 a captured graph. fp32, tf32 and bf16 say how products are computed; storage is",
        "float32. PyTorch's columns are `torch.nn`, which is cuDNN's; its bf16 and fp16 store in that format as well.", ""]
    if "machine" in found:
        m = found["machine"]
        lines += [f"Machine: {m['gpu']}, driver {m['driver']}, CUDA {m['cuda']}, NVRTC {m['nvrtc']}, CuPy {m['cupy']}, PyTorch "
                  f"{m['torch']}, JAX {m['jax']}, Python {m['python']}, NumPy {m['numpy']}, tinyrnn {m['tinyrnn']}, "
                  f"{m['date']}.", ""]
    lines += [line for note in found.get("notes", {}).values() for line in (f"{note}.", "")]
    if asked := targets(found):
        lines += table(["", "measured", "met"], asked)
    if chip := _chip(found):
        lines += ["## The GPU itself", "", *table(["", ""], chip)]
    checks = [(what, point, modes) for what in ("smoke", "accuracy") for point, modes in found.get(what, {}).items()]
    if checks:
        lines += ["## Precision", "", *table(
            ["LSTM", "", "largest relative error against float64", "same bits in every run"],
            [(point, mode, f"{float(v['error']):.1e}", "yes" if v["same bits"] else "**no**")
             for _, point, modes in checks for mode, v in modes.items()])]
    for kind, points in found.get("rows", {}).items():
        lines += [f"## {kind}", "", *_columns(points, [*MODES, *(f"torch {p}" for p in PRECISIONS)])]
    if found.get("unusual"):
        rows = {f"{name}, {row['point']}": row for name, row in found["unusual"].items()}
        lines += ["## Cells that no library has kernels for", "",
                  *_columns(rows, ["G1 fp32", "G1 tf32", "torch eager", "torch compiled step", "JAX scan"])]
    return "\n".join([*lines, *_ends(found)]).rstrip() + "\n"


def _chip(found: Found) -> list[tuple[str, str]]:
    """What the chip can do, a row a figure."""
    probes = found.get("probes", {})
    rows = [(f"a barrier of {probes['blocks']} blocks", f"{probes['barrier_us']:.2f} µs")] if "barrier_us" in probes else []
    rows += [("a node of a graph", f"{probes['node_us']:.2f} µs")] if "node_us" in probes else []
    rows += [(f"all blocks read the same {int(size) >> 10} KiB", f"{rate:.0f} GB/s together")
             for size, rate in probes.get("broadcast_gb_s", {}).items()]
    rows += [(f"a product of a step, {way}, {precision}, within a graph", f"{us:.2f} µs")
             for way, each in found.get("products", {}).items() for precision, us in each.items()]
    rows += [(f"clusters of {size} blocks at once", str(most)) for size, most in found.get("clusters", {}).items()]
    rows += [(f"exchange by sentinel, {what}", f"{us:.2f} µs") for what, us in found.get("exchange_us", {}).items()]
    return rows + [(f"clusters of {what}", f"{blocks} blocks ran") for what, blocks in found.get("launches", {}).items()]


def _columns(rows: Found, names: list[str]) -> list[str]:
    used = [n for n in names if any(n in r for r in rows.values())]
    return table(["", *used], [(point, *(f"{r[n][0]:.2f} / {r[n][1]:.2f}" if n in r else "" for n in used))
                               for point, r in rows.items()])


def _ends(found: Found) -> list[str]:
    """What is missing, and why."""
    steps = [(name, s["ended"]) for name, s in found.get("steps", {}).items() if s["ended"] != "well"]
    rest = [*steps, *found.get("errors", {}).items(), *found.get("left_out", {}).items()]
    return ["## Not measured", "", *table(["", ""], rest)] if rest else []
