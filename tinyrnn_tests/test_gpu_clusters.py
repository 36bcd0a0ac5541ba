"""A sequence in one launch, planned: the kernels of docs/compiler/clusters.md compile for a GPU, and compute on the processor what
an LSTM computes."""

from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.cuda.source import PRELUDE
from tinyrnn.bench.gpu_clusters import EXCHANGE, SENTINEL

from .gpu import toolchain

TEXT = (Path(__file__).parent / "gpu" / "cluster_lstm.cu").read_text(encoding="utf-8")


def source(units, clusters):
    text = TEXT.replace(", TR_NT) {", f", {8 * units // clusters}) {{")
    return f"{PRELUDE}\n{EXCHANGE}#define TR_H {units}\n#define TR_C {clusters}\n{text}"


@pytest.mark.parametrize(("units", "clusters"), [(512, 8), (768, 12)])
def test_they_compile_without_spills(units, clusters):
    nvrtc = pytest.importorskip("tinyrnn.backends.cuda.nvrtc")
    pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC comes with pip install 'tinyrnn[test-gpu]'", exc_type=ImportError)
    _, usage = nvrtc.compiled(source(units, clusters), "90")
    assert set(usage) == {"tr_lstm_forward", "tr_lstm_backward"}
    for name, used in usage.items():
        assert (used.spills, used.stack) == (0, 0), (name, used)
        assert used.registers * 8 * units // clusters <= 65_536
        assert used.shared <= 48 << 10


# ---- on the processor

def filled(*shape):
    """What is not there yet."""
    return np.full(shape, SENTINEL, np.uint32).view(np.float32)


def launched(name, module, blocks, *words):
    from .gpu import fake_cupy

    argument = np.array([w.ctypes.data if isinstance(w, np.ndarray) else w for w in words] + [0], np.int64)
    kernel = module.get_function(name)
    kernel.launch(0, (blocks, 1), (kernel.threads, 1), argument.ctypes.data, 8)
    fake_cupy.Stream.null.synchronize()


def run(text, T, B, H, C, seed=0):
    """What the kernels make of a random LSTM, beside what its layer makes of it: output, cells, gradients."""
    from .gpu import fake_cupy

    rng = np.random.default_rng(seed)
    layer = tr.nn.LSTM(3, H, dtype="float64", rng=seed)
    x, dy = rng.normal(size=(B, T, 3)), rng.normal(size=(B, T, H))
    start = [rng.normal(size=(B, H)) for _ in range(2)]
    W, U, b = (layer.state_dict()[k] for k in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"))
    b = b + layer.state_dict()["bias_hh_l0"]
    Xp = np.ascontiguousarray((x.swapaxes(0, 1) @ W.T + b).astype("f"))
    h, c, gates, da = filled(T + 1, B, H), filled(T + 1, B, H), filled(T, B, H, 4), filled(T, B, H, 4)
    h[0], c[0] = start
    dh, dc, weights, slopes = filled(B, H), filled(B, H), np.ascontiguousarray(U.astype("f")), dy.swapaxes(0, 1).astype("f").copy()
    module = fake_cupy.Module()
    module.load(text.encode())
    blocks = 8 * C * -(-B // 16)
    launched("tr_lstm_forward", module, blocks, T, B, Xp, weights, h, c, gates)
    launched("tr_lstm_backward", module, blocks, T, B, weights, c, gates, slopes, da, dh, dc)
    h0, c0 = (tr.parameter(v) for v in start)
    y, (_, last) = layer(x, state=(tr.reshape(h0, (1, B, H)), tr.reshape(c0, (1, B, H))))
    weight = dict(layer.named_parameters())["weight_hh_l0"]
    right = [v.numpy() for v in (y, last, *tr.grad((y * dy).sum(), [h0, c0, weight]))]
    found = [h[1:].swapaxes(0, 1), c[-1], dh, dc, np.einsum("tbkg,tbj->gkj", da, h[:-1]).reshape(4 * H, H)]
    return [(np.asarray(a, float).reshape(b.shape), b) for a, b in zip(found, right, strict=True)]


def off(pairs):
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


@pytest.mark.skipif(toolchain.COMPILER is None, reason="no C++ compiler here to run kernels on the processor")
@pytest.mark.parametrize(("T", "B"), [(4, 11), pytest.param(9, 19, marks=pytest.mark.slow)])
def test_they_compute_an_lstm(T, B, no_gpu):
    """To the precision of tf32 products: a few times 2 ** -11."""
    assert off(run(source(64, 4), T, B, 64, 4)) < 2e-3


@pytest.mark.skipif(toolchain.COMPILER is None, reason="no C++ compiler here to run kernels on the processor")
@pytest.mark.parametrize(("old", "new"), [("+ (i >> 1)", "+ (1 - (i >> 1))"), ("dc *= y.y", "dc *= y.x"), ("dh += tr_shuffle(dh, 2)", ""),
                                          ("gate == 2 ? tr_tanh(a)", "gate == 3 ? tr_tanh(a)")])
def test_planted_bugs_are_noticed(old, new, no_gpu):
    assert old in TEXT
    assert not off(run(source(64, 4).replace(old, new), 3, 5, 64, 4)) < 2e-3
