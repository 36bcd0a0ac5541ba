"""Every kernel compiles for every GPU, by NVRTC, which needs no GPU: no spills, and within what hardware has."""

import re

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.cuda import launch
from tinyrnn.backends.plan.matmul import Blas
from tinyrnn.backends.plan.planner import plan_of
from tinyrnn.bench import gpu_clusters, gpu_machine

from .gpu.toolchain import kernels_in
from .graph_cases import ODD, through_passes
from .test_gpu_sanitizers import every_op, long_sums, lookups

nvrtc = pytest.importorskip("tinyrnn.backends.cuda.nvrtc")
pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC comes with pip install 'tinyrnn[test-gpu]'", exc_type=ImportError)

ARCHITECTURES = ("80", "90", "100", "120")
REGISTERS, FILE, SHARED = 255, 65_536, 48 << 10  # a thread's, a multiprocessor's, a block's


def training_step(cell, dtype):
    """Forward, backward and the update of a whole layer: what `fit` runs, eager or captured."""
    layer = tr.nn.Recurrent(cell, **{k: 3 + i for i, k in enumerate(cell.sizes)}, dtype=dtype, rng=0)
    parameters = dict(layer.named_parameters())

    def step(x, rate):
        y, _ = layer(x)
        loss = (y * y).mean() if isinstance(y, tr.Tensor) else sum((v * v).mean() for v in y.values())
        for k, g in tr.grad(loss, parameters).items():
            parameters[k].assign(tr.where(abs(g).max() < np.inf, parameters[k] - rate.astype(dtype) * g, parameters[k]))
        return loss

    width = 3 + list(cell.sizes).index("x") if "x" in cell.sizes else 3
    program = tr.compile(step, backend="numpy").trace(np.ones((2, 3, width), dtype), np.float64(0.1))
    return program.stages[-1][1]


def compiled(graph, architecture, *more):
    """What each kernel of a graph takes; fails where one spills or does not fit."""
    calls = list(plan_of(graph, Blas()).calls())
    source = launch.source_of([*launch.kernel_keys(calls), *more])
    code, usage = nvrtc.compiled(source, architecture)
    assert code[:4] == b"\x7fELF"
    known = kernels_in(source)
    assert set(usage) == set(known)
    for name, u in usage.items():
        _, threads, text = known[name]
        assert u.spills == 0, f"{name} spills {u.spills} bytes"
        assert u.stack == 0 or re.search(r"\b(sin|cos)f?\(", text), f"{name}: {u.stack} bytes of stack"  # CUDA's own, for large angles
        assert u.registers <= min(REGISTERS, FILE // threads), f"{name}: {u.registers} registers"
        assert u.shared <= SHARED, f"{name}: {u.shared} bytes of shared memory"
    return usage


@pytest.mark.parametrize("architecture", [a if a == "90" else pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", tr.cells.names())
def test_every_cell_compiles(name, dtype, architecture):
    commits = [("commit", size) for size in (4, 8)]
    assert compiled(training_step(tr.cells[name], dtype), architecture, *commits)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", [*ODD, "every op", "lookups", "long sums"])
def test_odd_cells_and_every_op_compile(name, architecture):
    made = {"every op": every_op, "lookups": lookups, "long sums": long_sums}
    cell = tr.Cell(ODD[name], name="odd") if name in ODD else None
    graph = made[name]() if cell is None else cell.rolled(2, dict(zip(cell.sizes, (3, 5, 4), strict=False)), batch=3,
                                                           gradients=True, dtype="float32")
    compiled(through_passes(graph), architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probes_of_the_gpu_compile(architecture):
    _, usage = nvrtc.compiled(gpu_machine.SOURCE, architecture)
    assert set(usage) == {"tr_barriers", "tr_nothing", "tr_broadcast"}
    if int(architecture) >= 90:  # clusters
        usage |= nvrtc.compiled(gpu_clusters.SOURCE, architecture)[1]
        assert {"tr_ranks", "tr_relay"} <= set(usage)
    assert all(u.spills == 0 for u in usage.values())


def test_the_report_is_read(monkeypatch):
    """Spills would be seen: a kernel with too few registers has some."""
    source = launch.source_of([]) + """
TR_KERNEL(crowded, 2, 1024) {
    float x[90]; const float* p = (const float*)tr.w[0];
    for (int i = 0; i < 90; i++) x[i] = p[i * 1024 + threadIdx.x];
    TR_BARRIER();
    for (int k = 0; k < 7; k++) for (int i = 0; i < 90; i++) x[i] = x[i] * x[(i * 7 + 1) % 90] + x[(i + 11) % 90];
    for (int i = 0; i < 90; i++) ((float*)tr.w[1])[i * 1024 + threadIdx.x] = x[i];
}
"""
    _, usage = nvrtc.compiled(source, "90")
    assert usage["crowded"].spills > 0
    assert usage["crowded"].registers == 64
    with pytest.raises(tr.TinyRNNError, match=r"does not compile for sm_90; please report this:\n.*identifier .*nothing"):
        nvrtc.compiled(source + "TR_KERNEL(bad, 1, 1) { nothing; }", "90")


def test_reports_of_the_assembler():
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'a' for 'sm_90'
ptxas info    : Function properties for a
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 128 bytes smem
ptxas info    : Compiling entry function 'b' for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers"""
    assert nvrtc.usage(log) == {"a": nvrtc.Usage(40, 128, 8, 12), "b": nvrtc.Usage(8, 0, 0, 0)}
