"""Benchmarks compare equal things: every peer computes the numbers that we compute."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from tinyrnn import cli
from tinyrnn.bench import cases, inside, machine, onnx_peer, report, run, sides, timing, worker

POINT = cases.Point(4, 3, 5, 6)
NEEDS = {p: pytest.mark.skipif(not find_spec(p), reason=f"{p} is not installed") for p in ("torch", "jax", "onnxruntime", "onnx")}


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=2e-4, atol=2e-5)


@NEEDS["torch"]
@pytest.mark.parametrize("name", cases.unusual())
def test_pytorch_computes_the_same_cell(name):
    case, task = cases.unusual()[name], sides.Workload(POINT)
    layer = sides.layer_of(case, POINT)
    _, infer = sides.ours(layer, task)
    train, peer = sides.torch_unusual(case, task, layer.state_dict())
    close(peer(), infer())
    train()


@NEEDS["jax"]
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", cases.unusual())
def test_jax_computes_the_same_cell(name):
    case, task = cases.unusual()[name], sides.Workload(POINT)
    layer = sides.layer_of(case, POINT)
    step, infer = sides.ours(layer, task)
    train, peer = sides.jax_unusual(case, task, layer.state_dict())
    close(peer(), infer())
    loss, gradients = step()
    value, (_, dx) = train()
    close(value, loss)
    close(dx, gradients["x"])


@NEEDS["torch"]
@pytest.mark.parametrize("kind", cases.STOCK)
def test_stock_layers_have_the_same_weights(kind):
    task, layer = sides.Workload(POINT), sides.stock(kind, POINT)
    _, infer = sides.ours(layer, task)
    _, peer = sides.torch_stock(kind, task, layer)
    close(peer(), infer())


@NEEDS["onnx"]
@NEEDS["onnxruntime"]
@pytest.mark.parametrize("kind", cases.STOCK)
def test_onnxruntime_computes_the_same_layer(kind):
    """Whole sequences, and a step after the other."""
    task, layer = sides.Workload(POINT), sides.stock(kind, POINT)
    for name in ("bias_ih_l0", "bias_hh_l0"):  # apart, so that a wrong place shows
        getattr(layer, name).assign(np.random.default_rng(len(name)).normal(size=getattr(layer, name).shape))
    _, infer = sides.ours(layer, task)
    close(onnx_peer.sequences(kind, layer, task.x, 1)(), infer())
    step, s = onnx_peer.steps(kind, layer, task.x[:, 0], 1), layer.stream(POINT.batch)
    for _ in range(3):
        close(step(), s(task.x[:, 0]))


@NEEDS["torch"]
@pytest.mark.parametrize("name", ["LSTM", *cases.unusual()])
def test_all_sides_of_a_training_step_with_a_head_go_one_way(name):
    """Losses over some steps: ours, our layer in PyTorch, and PyTorch's own layer or loop."""
    def losses(side):
        (run,) = inside.settings(side, name, POINT, 1).values()
        return [float(run()) for _ in range(4)]

    expected = losses("ours")
    assert expected[3] < expected[0]
    for side in ("inside", "eager", *(["torch"] if name == "LSTM" else [])):
        np.testing.assert_allclose(losses(side), expected, rtol=1e-4, err_msg=side)


@NEEDS["torch"]
@pytest.mark.slow
def test_the_layer_inside_pytorch_is_measured():
    found = inside.measure(short=True, say=lambda line: None)
    page = inside.page(json.loads(json.dumps(found)))
    assert page.count("| LSTM | T=50") == 1
    assert "against the eager cell, every size" in page


@pytest.mark.parametrize("what", ["train", "infer", "single", "predict", "step"])
def test_a_side_in_its_process(what):
    with worker.Worker("ours") as own:
        assert own.make(what, "GRU", POINT)["ours"]() > 0
        with pytest.raises(RuntimeError, match="KeyError: 'made up'"):
            own.make(what, "made up", POINT)
        assert own.make(what, "IndRNN", POINT)["ours"]() > 0


def test_a_small_call_computes_something():
    a, b = run.small_call()()
    assert a.shape == b.shape == (4, 4)


def test_the_better_setting_of_a_peer_counts():
    peers = {"slow": lambda: timing.burst(lambda: sum(range(20_000))), "fast": lambda: timing.burst(lambda: sum(range(2_000)))}
    result = timing.compare(lambda: timing.burst(lambda: None), peers, 4, 1.0)
    assert (result.setting, result.pairs) == ("fast", 4)
    assert result.low <= result.ratio <= result.high < 1


def test_the_machine_is_measured():
    assert machine.peak_flops() > 1e9
    assert machine.read_bandwidth(1 << 16) > 1e8
    assert machine.described()["vector_bytes"] in (16, 32, 64)


FOUND = {
    "machine": {"processor": "p", "cores": 2, "vector_bytes": 64, "python": "3", "tinyrnn": "0", "numpy": "2", "llvmlite": "0",
                "torch": None, "jax": None}, "date": "2026-01-01", "peak_gflops": 200.0, "notes": {},
    "unusual": {"torch": {"unit": [{"point": "T=50 B=1 X=16 H=64", "ours": 1.0, "peer": 4.0, "ratio": 0.25, "low": 0.2, "high": 0.3,
                                    "pairs": 30, "setting": "1 thread"}]}},
    "first calls": [{"steps": 10, "cold_s": 0.9, "cached_s": 0.3, "next_s": 0.001}],
    "efficiency": [{"kind": "LSTM", "point": "x", "gflops": 150.0, "share": 0.75}], "tracing": {"traced_ms": 12.0, "ready_ms": 40.0},
    "served": {"step": {"LSTM": [{"point": "T=1 B=1 X=16 H=64", "ours": 0.002, "peer": 0.008, "ratio": 0.25, "low": 0.2, "high": 0.3,
                                  "pairs": 30, "setting": "1 thread"}]},
               "infer": {"LSTM": [{"point": "T=50 B=1 X=16 H=64", "ours": 0.04, "peer": 0.04, "ratio": 0.9, "low": 0.8, "high": 1.0,
                                   "pairs": 30, "setting": "2 threads"}]}},
    "calls": {"predict": [{"kind": "LSTM", "point": "T=50 B=1 X=16 H=64", "ours": 0.04, "peer": 0.03, "ratio": 1.3, "low": 1.2,
                           "high": 1.4, "pairs": 30, "setting": "compiled"}], "small_us": 6.5},
    "lengths": {"LSTM": 5.0}, "weights": {"units": 8, "steps": 9, "batch": 4, "mib": {"W": 10.0, "abs(W)": 11.0}},
    "loops": {"2000": 9.0}, "threads": [
        {"what": "training step", "point": "T=50 B=20 X=27 H=100", "busy": busy, "ours": 1.0, "peer": 2.0, "ratio": ratio, "low": 0.4,
         "high": 1.0, "pairs": 30, "setting": "one thread"} for busy, ratio in ((0, 0.5), (1, 1.5))],
    "memory": [{"kind": "LSTM", "point": "x", "ours_mib": 50.0, "torch_mib": 100.0, "ratio": 0.5}]}


def test_the_report_says_what_was_measured_and_what_was_missed(tmp_path):
    files = report.write(FOUND, tmp_path)
    assert [f.name for f in files] == ["cpu.json", "cpu.md"]
    assert json.loads(files[0].read_text()) == FOUND
    text = files[1].read_text()
    assert "| unusual cells against torch eager, B ≤ 16, H ≤ 64, geometric mean | 0.25 (asked: ≤ 0.15) | **no** |" in text
    assert "| the same, every point | 0.25 (asked: ≤ 0.3) | yes |" in text
    assert "smallest gain | 2.00 (asked: ≥ 1.6) | yes |" in text
    assert "largest | 1.50 (asked: ≤ 1.3) | **no** |" in text
    assert "largest ratio | 1.10 (asked: ≤ 1.2) | yes |" in text
    assert "compiled | 9.00 s (asked: ≤ 8 s) | **no** |" in text
    assert "| one step by the handle against onnxruntime, H = 64, largest ratio | 0.25 (asked: ≤ 0.7) | yes |" in text
    assert "| sequences of one row against onnxruntime, H ≤ 128, largest ratio | 0.90 (asked: ≤ 0.8) | **no** |" in text
    assert "| a compiled function of little work, ten parameters | 6.50 µs (asked: ≤ 10 µs) | yes |" in text
    assert "| T=1 B=1 X=16 H=64 | 2.0 µs | 8.0 µs (1 thread) | 0.25 [0.20, 0.30], 30 pairs |" in text
    assert "not seen before, until the result is there: LSTM 5.0 ms" in text
    assert "| LSTM | x | 50 MiB | 100 MiB | 0.50 |" in text
    assert report.mean([0.25, 1.0]) == pytest.approx(0.5)


@pytest.mark.slow
def test_bench_runs_without_peers(tmp_path, capsys):
    assert cli.main(["bench", "--short", "--against", "", "--out", str(tmp_path)]) == 0
    assert "# Benchmarks on the CPU" in (tmp_path / "cpu.md").read_text()
    assert str(tmp_path / "cpu.json") in capsys.readouterr().out
