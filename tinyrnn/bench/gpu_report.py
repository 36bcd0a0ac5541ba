"""The figures of a GPU as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .gpu import MODES, TARGETS
from .gpu_peers import PRECISIONS
from .report import table

Found = Mapping[str, Any]


def targets(found: Found) -> list[tuple[str, str, str]]:
    """What was asked for, what was measured, and whether it is met."""
    rows: list[tuple[str, str, str]] = []

    def row(what: str, asked: str, measured: str, met: bool) -> None:
        rows.append((what, f"{measured} (asked: {asked})", "yes" if met else "**no**"))

    anchor = found["anchor"]["LSTM"]
    for mode, (forward, step) in TARGETS.items():
        if mode in anchor:
            a, b = anchor[mode]
            row(f"LSTM {anchor['point']}, {mode}, projection inside, forward / training step", f"≤ {forward:g} / {step:g} ms",
                f"{a:.2f} / {b:.2f} ms", a <= forward and b <= step)
    speedups = [r["torch eager"][1] / r["G1 fp32"][1] for r in found["unusual"].values() if "torch eager" in r]
    if speedups:
        row("unusual cells, training step, G1 fp32 against torch eager, least", "≥ 15 times as fast", f"{min(speedups):.1f}",
            min(speedups) >= 15)
    worst = found["accuracy"]["G1 fp32"]
    row("outputs and gradients in fp32 against float64, norm-wise, largest", "≤ 1e-5", f"{worst:.1e}", worst <= 1e-5)
    return rows


def page(found: Found) -> str:
    """The report in Markdown."""
    m, probes = found["machine"], found["probes"]
    lines = [
        "# Benchmarks on a GPU", "",
        "Written by `make gpu`. Medians in milliseconds by device events (JAX: by the host's clock around calls that wait),",
        "forward / training step; X = H, the projection of the input is inside everywhere. A training step is the forward",
        "pass, the loss `sum(y * g)` and all gradients, that of the input included. G0 launches one kernel at a time, G1 a",
        "captured graph. fp32, tf32 and bf16 say how products are computed; storage is float32. PyTorch's columns are",
        "`torch.nn`, which is cuDNN's; its bf16 and fp16 store in that format as well.", "",
        f"Machine: {m['gpu']}, driver {m['driver']}, CUDA {m['cuda']}, NVRTC {m['nvrtc']}, CuPy {m['cupy']}, PyTorch "
        f"{m['torch']}, JAX {m['jax']}, Python {m['python']}, NumPy {m['numpy']}, tinyrnn {m['tinyrnn']}. {found['date']}.", "",
        *(f"{note}." for note in found["notes"].values()), ""]
    lines += table(["", "measured", "met"], targets(found))
    lines += ["## The GPU itself", "", *table(["", ""], [
        (f"a barrier of {probes['blocks']} blocks", f"{probes['barrier_us']:.2f} µs"),
        ("a node of a graph", f"{probes['node_us']:.2f} µs"),
        *((f"all blocks read the same {int(size) >> 10} KiB", f"{rate:.0f} GB/s together")
          for size, rate in probes["broadcast_gb_s"].items())])]
    lines += ["## Precision", "", *table(["", "largest relative error against float64"],
                                          [(k, f"{v:.1e}") for k, v in found["accuracy"].items()])]
    for kind, row in found["anchor"].items():
        names = [*MODES, *(f"torch {p}" for p in PRECISIONS)]
        lines += [f"## {kind}", "", *_columns([row, *found["grid"].get(kind, [])], names)]
    if found["unusual"]:
        rows = [{**row, "point": f"{name}, {row['point']}"} for name, row in found["unusual"].items()]
        lines += ["## Cells that no library has kernels for", "",
                  *_columns(rows, ["G1 fp32", "G1 tf32", "torch eager", "torch compiled step", "JAX scan"])]
    if found["missed"]:
        lines += ["## Not measured, for want of time", "", ", ".join(found["missed"]) + ".", ""]
    return "\n".join(lines).rstrip() + "\n"


def _columns(rows: list[Any], names: list[str]) -> list[str]:
    used = [n for n in names if any(n in r for r in rows)]
    return table(["", *used], [(r["point"], *(f"{r[n][0]:.2f} / {r[n][1]:.2f}" if n in r else "" for n in used)) for r in rows])

