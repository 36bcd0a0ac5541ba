"""What runs on a machine with a GPU survives there: every step by itself, whatever becomes of the others."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tinyrnn as tr
from tinyrnn.backends.cuda import kernels, nvrtc
from tinyrnn.backends.cuda.launch import kernel_keys
from tinyrnn.backends.plan.matmul import Blas
from tinyrnn.backends.plan.planner import plan_of
from tinyrnn.bench import gpu, gpu_clusters, gpu_kernels, gpu_peers, gpu_report, gpu_visit
from tinyrnn.bench.steps import Record, TimedCommand, take
from tinyrnn.cli import main

from .gpu import toolchain, visit

needs_compiler = pytest.mark.skipif(toolchain.COMPILER is None, reason="no C++ compiler here to run kernels on the processor")
WRITE = "from pathlib import Path; from tinyrnn.bench.steps import Record; r = Record(Path({file!r})); r.put('rows', {name!r}, value={value}); "


def step(record, name, then, seconds=30.0, **options):
    """A step that writes a row and then does something."""
    code = WRITE.format(file=str(record.file), name=name, value=len(name)) + then
    return TimedCommand(name, [sys.executable, "-c", code], seconds, **options)


# ---- steps

def test_steps_that_hang_raise_or_are_killed_cost_themselves_only(tmp_path):
    record, said = Record(tmp_path / "found.json"), []
    steps = [step(record, "good", ""), step(record, "raises", "raise RuntimeError('sticky error')"),
             step(record, "hangs", "import time; time.sleep(600)", 3.0),
             step(record, "killed", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
             TimedCommand("not there", ["/no/such/program"], 5.0), step(record, "deaf", "import signal, time; "
             "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)", 3.0), step(record, "last", "print('all is well')")]
    assert not take(steps, record, 120.0, said.append)
    found = record.read()
    assert found["rows"] == {k: len(k) for k in ("good", "raises", "hangs", "killed", "deaf", "last")}
    ended = {k: s["ended"] for k, s in found["steps"].items()}
    assert ended.pop("not there").startswith("cannot be started: ")
    assert ended == {"good": "well", "raises": "exit status 1", "hangs": "stopped after 3 s", "killed": "killed by signal 9",
                     "deaf": "stopped after 3 s", "last": "well"}
    assert "sticky error" in found["steps"]["raises"]["said"]
    assert "said" not in found["steps"]["good"]
    assert (tmp_path / found["steps"]["last"]["log"]).read_text() == "all is well\n"
    assert said[1].startswith("raises: exit status 1, ")
    assert said[1].endswith("see logs/raises.log")


def alive(pid):
    """Whether a process runs; one that only waits to be buried does not."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self").exists():
        return stat.exists() and ") Z" not in stat.read_text()
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def test_nothing_that_a_step_began_goes_on(tmp_path):
    record = Record(tmp_path / "found.json")
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(p.pid, flush=True); "
    take([step(record, "leaves", child), step(record, "hangs", child + "p.wait()", 4.0)], record, 60.0, lambda text: None)
    for name in ("leaves", "hangs"):
        pid = int((tmp_path / "logs" / f"{name}.log").read_text().split()[0])
        for _ in range(50):
            if not alive(pid):
                break
            time.sleep(0.1)
        assert not alive(pid), name


def test_what_rests_on_a_step_that_failed_is_left_out_and_time_that_is_out_is_said(tmp_path):
    record = Record(tmp_path / "found.json")
    steps = [step(record, "smoke", "raise SystemExit(4)"), step(record, "after", "", needs="smoke"), step(record, "chip", ""),
             step(record, "good", "", needs="chip")]
    assert not take(steps, record, 60.0, lambda text: None)
    assert record.read()["steps"]["after"] == {"ended": "not begun: the step 'smoke' failed"}
    assert record.read()["steps"]["good"]["ended"] == "well"
    assert set(record.read()["rows"]) == {"smoke", "chip", "good"}
    assert not take([step(record, "slow", "import time; time.sleep(600)", 60.0), step(record, "late", "")], record, 7.0, lambda text: None)
    assert record.read()["steps"]["slow"]["ended"] == "stopped after 7 s"
    assert record.read()["steps"]["late"] == {"ended": "not begun: no time was left"}
    assert set(record.read()["rows"]) == {"smoke", "chip", "good", "slow"}


def test_the_record_is_whole_at_any_moment(tmp_path):
    """A process that writes rows as fast as it can is killed: what is there is a JSON file with all rows up to one."""
    record = Record(tmp_path / "found.json")
    code = WRITE.format(file=str(record.file), name="row -1", value=0) + "\nfor k in range(10**6): r.put('rows', f'row {k}', value=k)"
    child = subprocess.Popen([sys.executable, "-c", code])
    while not record.file.exists():
        time.sleep(0.05)
    time.sleep(0.5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    rows = json.loads(record.file.read_text())["rows"]
    assert list(rows) == [f"row {k - 1}" for k in range(len(rows))]


# ---- what is run, and how long it takes at most

def test_the_visits_are_in_the_order_of_what_they_tell():
    part = gpu_visit.by_module("found.json")
    names = [s.name for s in gpu_visit.probe(part)]
    assert names[:2] == ["machine", "smoke"]
    assert {"clusters", "node", "products", "exchange", "launches", "LSTM, G0 fp32", "LSTM, G1 bf16", "LSTM, torch"} <= set(names)
    for s in (*gpu_visit.probe(part), *gpu_visit.whole(part)):
        ours = s.command[4].split(":")[0] in ("rows", "grid", "accuracy", "unusual")
        assert s.needs == ("smoke" if ours else ""), s.name
    everything = [s.name for s in gpu_visit.whole(part, visit.tests("out"), [TimedCommand("memcheck", [], 1.0)])]
    assert everything[:3] == ["machine", "smoke", "tests"]
    assert everything.index("grid, RNN") < everything.index("grid, LSTM, torch") < everything.index("torch.compile")
    assert everything[-2:] == ["torch.compile", "JAX"]
    assert len(set(everything)) == len(everything)
    assert gpu_visit.PROBE <= 180
    assert gpu_visit.WHOLE <= 480
    for s in (*gpu_visit.probe(part), *gpu_visit.whole(part)):
        assert s.command[4].split(":")[0] in gpu.PARTS
    (tests,) = visit.tests("out")
    assert tests.environment == {"TINYRNN_GPU": "required"}
    assert {"--maxfail=20", "--junitxml=out/gpu-tests.xml"} <= set(tests.command)


def test_sanitizers_look_at_our_own_kernels(monkeypatch):
    monkeypatch.setattr(visit.shutil, "which", lambda name: f"/tools/{name}")
    for s in visit.sanitizers():
        assert s.command[s.command.index("--kernel-name") + 1] == "kernel_substring=tr_"
    monkeypatch.setattr(visit.shutil, "which", lambda name: None)
    assert visit.sanitizers() == []


@pytest.mark.slow
def test_no_test_falls_back_where_a_gpu_is_required(real_gpu):
    if real_gpu:
        pytest.skip("there is a GPU to run on")
    ran = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tinyrnn_tests/test_gpu.py", "-v",
                          "-k", "two_streams or second_run"], env={**os.environ, "TINYRNN_GPU": "required"}, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "test_two_streams" in ran.stdout
    assert "second_run" not in ran.stdout, "it asks what only the stand-in can be asked"
    assert "TINYRNN_GPU=required, and no GPU works here" in ran.stdout


# ---- every step, on the stand-in

@pytest.fixture
def sheet(no_gpu, tmp_path):
    return gpu.Sheet(Record(tmp_path / "found.json"), short=True)


POINT = str(gpu.TINY)
PARTS = {"machine": ["machine", "gpu"], "smoke": ["smoke", POINT, "G1 bf16", "error"], "accuracy": ["accuracy", POINT, "G0 fp32", "error"],
         "clusters": ["clusters", "2"], "node": ["probes", "node_us"], "products": ["products", "backward", "bf16"],
         "exchange": ["exchange_us", "2 blocks, 32 bytes each"], "launches": ["launches", "2 blocks, cooperative, captured"],
         "rows:LSTM:G0 fp32": ["rows", "LSTM", POINT, "G0 fp32"], "grid:GRU": ["rows", "GRU", POINT, "G1 tf32"],
         "torch:LSTM": ["notes", "torch"], "torch:RNN:whole": ["notes", "torch"], "unusual": ["unusual", "IndRNN", "G1 fp32"],
         "unusual torch": ["notes", "torch"], "unusual torch:peephole LSTM:compiled": ["notes", "torch"],
         "unusual JAX:peephole LSTM": ["notes", "jax"]}


@needs_compiler
@pytest.mark.parametrize("part", PARTS)
def test_every_part_runs(part, sheet, capsys):
    """Its figures are in the record, and no step of a visit is without such a part."""
    assert gpu.main([str(sheet.record.file), part, "--short"]) == 0, capsys.readouterr().out
    at = sheet.record.read()
    for name in PARTS[part]:
        at = at[name]
    assert at == at
    page = gpu_report.page(sheet.record.read())
    assert page.startswith("# Benchmarks on a GPU")


def test_every_step_has_a_part_here():
    part = gpu_visit.by_module("found.json")
    asked = {s.command[4] for s in (*gpu_visit.probe(part), *gpu_visit.whole(part))}
    tried = {re.sub(r"LSTM|GRU|RNN", "K", re.sub(r"G\d \w+", "M", p)) for p in PARTS}
    assert {re.sub(r"LSTM|GRU|RNN", "K", re.sub(r"G\d \w+", "M", p)) for p in asked} <= tried


@needs_compiler
def test_a_row_does_not_die_with_its_neighbour(sheet, monkeypatch, capsys):
    """Three modes of a layer, of which one fails in the driver; a peer that raises at one precision."""
    plain = gpu.ours

    def broken(layer, data, mode):
        if mode == "cuda:tf32":
            raise sys.modules["cupy"].cuda.runtime.CUDARuntimeError(700)
        return plain(layer, data, mode)

    monkeypatch.setattr(gpu, "ours", broken)
    assert gpu.main([str(sheet.record.file), "grid:LSTM", "--short"]) == 1
    found = sheet.record.read()
    assert set(found["rows"]["LSTM"][POINT]) == {"G1 fp32", "G1 bf16"}
    assert found["errors"] == {f"rows, LSTM, {POINT}, G1 tf32": "CUDARuntimeError: cudaErrorIllegalAddress: an illegal memory access "
                               "was encountered"}
    assert "an illegal memory access" in capsys.readouterr().out
    monkeypatch.setattr(gpu_peers, "missing", lambda peer: None)

    def peer(kind, data, layer, precision):
        if precision == "bf16":
            raise RuntimeError("no kernel image is available")
        return (lambda: None, lambda: None)

    monkeypatch.setattr(gpu_peers, "torch_stock", peer)
    assert gpu.main([str(sheet.record.file), "torch:LSTM", "--short"]) == 1
    found = sheet.record.read()
    assert set(found["rows"]["LSTM"][POINT]) == {"G1 fp32", "G1 bf16", "torch fp32", "torch tf32", "torch fp16"}
    page = gpu_report.page(found)
    assert "| torch fp32 | torch tf32 | torch fp16 |" in page
    assert f"| rows, LSTM, {POINT}, torch bf16 | RuntimeError: no kernel image is available |" in page


@needs_compiler
def test_the_smoke_test_decides(sheet, monkeypatch):
    """What is wrong in one mode, or not a number, is not measured further."""
    monkeypatch.setitem(gpu.ALLOWED, "bf16", 1e-9)
    with pytest.raises(tr.TinyRNNError, match=r"LSTM T=5 B=2 X=4 H=8: G1 bf16 is off by .* \(allowed: 1e-09\); G0 bf16 is off"):
        gpu.main([str(sheet.record.file), "smoke", "--short"])
    assert sheet.record.read()["smoke"][POINT]["G1 bf16"]["error"] > 1e-9
    monkeypatch.setattr(gpu, "MODES", {"G1 bf16": "cuda:bf16"})
    monkeypatch.setitem(gpu.ALLOWED, "bf16", float("nan"))
    with pytest.raises(tr.TinyRNNError, match="is off by"):
        gpu.main([str(sheet.record.file), "smoke", "--short"])


@needs_compiler
def test_times_leave_python_out(no_gpu):
    """Calls are queued one behind the other; only the last is waited for."""
    from tinyrnn.bench.gpu_machine import Clock

    calls, waits, clock = [], [], Clock()
    plain = no_gpu.Event.synchronize
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(no_gpu.Event, "synchronize", lambda self: (waits.append(len(calls)), plain(self))[1])
        clock.several(lambda: calls.append(1), 5)
    assert len(calls) == 6
    assert set(waits) == {6}


@needs_compiler
def test_kernels_made_beforehand_are_those_that_are_asked_for(sheet, monkeypatch):
    """What is compiled without a GPU is found by its source, which depends on the plan alone."""
    asked = []

    def recorded(keys, plain=kernels.source_of):
        asked.append(tuple(keys))
        return plain(keys)

    monkeypatch.setattr(kernels, "source_of", recorded)
    for part in ("unusual", "rows:LSTM:G0 fp32", "grid:GRU", "rows:RNN:G1 fp32", "smoke", "accuracy"):
        kernels.library.cache_clear()
        assert gpu.main([str(sheet.record.file), part, "--short"]) == 0
    monkeypatch.setattr(gpu_kernels, "ANCHOR", gpu.TINY)
    monkeypatch.setattr(gpu_kernels, "SMOKE", (gpu.TINY, gpu.TINY))
    made = {tuple(kernel_keys(plan_of(p.stages[-1][1], Blas()).calls())) for p in gpu_kernels.plans()}
    assert len(asked) > 10
    assert set(asked) <= made


def test_machine_code_is_kept_by_source_architecture_and_compiler(monkeypatch, tmp_path):
    compiled = []
    monkeypatch.setenv("TINYRNN_CACHE", str(tmp_path))
    tmp_path.chmod(0o700)
    monkeypatch.setattr(nvrtc, "cubin", lambda source, architecture: compiled.append(architecture) or b"code")
    for version, architecture in (((13, 0), "90"), ((13, 0), "90"), ((13, 1), "90"), ((13, 0), "80"), ((13, 0), "90")):
        monkeypatch.setattr(nvrtc, "version", lambda v=version: v)
        assert kernels.code_of([("commit", 4)], architecture) == b"code"
    assert compiled == ["90", "90", "80"]


# ---- clusters

@needs_compiler
def test_wrong_clusters_are_noticed(no_gpu, monkeypatch):
    found = gpu_clusters.Clusters()
    assert [found.most(n) for n in (2, 4)] == [1, 0]
    assert found.launched(2, True, True) == 2
    monkeypatch.setattr(gpu_clusters, "SHARED", 0)
    assert found.most(2) == 12, "without shared memory a multiprocessor holds more than one block"
    plain = no_gpu._shape_of
    monkeypatch.setattr(no_gpu, "_shape_of", lambda how: (*plain(how)[:2], 1))
    with pytest.raises(tr.TinyRNNError, match=r"clusters of 2: 2 blocks found the ranks \[0, 0\], 2 of them met"):
        found.launched(2, True, False)


@needs_compiler
def test_wrong_numbers_in_an_exchange_are_noticed(no_gpu, monkeypatch):
    old = "x = t + rank * own + i"
    assert old in gpu_clusters.SOURCE
    monkeypatch.setattr(gpu_clusters, "SOURCE", gpu_clusters.SOURCE.replace(old, "x = t + i"))
    with pytest.raises(tr.TinyRNNError, match=r"exchange among 3 blocks: 3 of 3 blocks read wrong numbers"):
        gpu_clusters.Clusters().exchange_us(gpu.Clock(), 3, 2, 5)


def test_launches_are_described_as_the_driver_wants_them():
    """With cuda-python's own structures, which need no driver."""
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings come with pip install 'tinyrnn[test-gpu]'")
    clusters = gpu_clusters.Clusters.__new__(gpu_clusters.Clusters)
    clusters.driver = real
    assert int(real.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) == 8
    how = clusters._how(96, 12, 77, cooperative=True)
    assert (how.gridDimX, how.blockDimX, int(how.hStream), how.numAttrs, how.sharedMemBytes) == (96, 256, 77, 2, 120 << 10)
    names = real.CUlaunchAttributeID
    assert [a.id for a in how.attrs] == [names.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, names.CU_LAUNCH_ATTRIBUTE_COOPERATIVE]
    assert (how.attrs[0].value.clusterDim.x, how.attrs[0].value.clusterDim.y, how.attrs[1].value.cooperative) == (12, 1, 1)
    assert clusters._how(4, 1, 0).numAttrs == 0


# ---- the whole, as it is called

FAILURES = {"smoke": "raise RuntimeError('eager and captured disagree')", "clusters": "import time; time.sleep(600)",
            "exchange": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "node": "raise SystemExit(3)"}


@needs_compiler
@pytest.mark.parametrize("which", ["probe", pytest.param("whole", marks=pytest.mark.slow)])
def test_a_visit_with_a_step_that_raises_one_that_hangs_and_one_that_is_killed(which, tmp_path):
    """What does not rest on them is measured, and the page says the rest.  A figure of an earlier visit is kept aside."""
    record = Record(tmp_path / "gpu.json")
    record.put("rows", value="of the visit before")
    part = gpu_visit.by_module(record.file, True, "tinyrnn_tests.gpu.stand_in")
    steps = [s._replace(command=[sys.executable, "-c", FAILURES[s.name]], seconds=min(s.seconds, 7.0)) if s.name in FAILURES else s
             for s in (gpu_visit.probe(part) if which == "probe" else gpu_visit.whole(part))]
    assert not gpu_visit.visit(steps, record, 240.0, lambda text: None)
    found, page = json.loads(record.file.read_text()), (tmp_path / "gpu.md").read_text()
    assert json.loads((tmp_path / "gpu.before.json").read_text()) == {"rows": "of the visit before"}
    ended = {k: s["ended"] for k, s in found["steps"].items()}
    assert list(ended) == [s.name for s in steps]
    for s in steps:
        wanted = {"smoke": "exit status 1", "clusters": "stopped after 7 s", "exchange": "killed by signal 9", "node": "exit status 3"}
        assert ended[s.name] == ("not begun: the step 'smoke' failed" if s.needs else wanted.get(s.name, "well")), s.name
        assert (f"| {s.name} | {ended[s.name]} |" in page) == (ended[s.name] != "well")
    assert "eager and captured disagree" in found["steps"]["smoke"]["said"]
    assert found["machine"]["gpu"] == "Stand-in"
    assert ("products" in found, "unusual" in found) == (which == "probe", False)


def test_a_visit_that_is_broken_off_leaves_its_page(tmp_path):
    """By Ctrl-C or by a limit from outside: the step ends with it, and what was reached is there."""
    code = f"""
import sys
from pathlib import Path
from tinyrnn.bench.gpu_visit import visit
from tinyrnn.bench.steps import Record, TimedCommand
record = Record(Path({str(tmp_path / "gpu.json")!r}))
steps = [TimedCommand("good", [sys.executable, "-c", "pass"], 30.0),
         TimedCommand("long", [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"], 600.0)]
visit(steps, record, 600.0)
"""
    for how in (signal.SIGTERM, signal.SIGINT):
        run = subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + code],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log = tmp_path / "logs" / "long.log"
        for _ in range(300):
            if log.exists() and log.read_text().endswith("\n"):
                break
            time.sleep(0.1)
        pid = int(log.read_text())
        run.send_signal(how)
        run.wait(30)
        for _ in range(50):
            if not alive(pid):
                break
            time.sleep(0.1)
        assert not alive(pid)
        steps = Record(tmp_path / "gpu.json").read()["steps"]
        assert {k: s["ended"] for k, s in steps.items()} == {"good": "well", "long": "broken off"}
        assert "| long | broken off |" in (tmp_path / "gpu.md").read_text()
        log.unlink()


def test_a_record_that_somebody_else_wrote_is_laid_aside(tmp_path):
    record = Record(tmp_path / "found.json")
    broken = TimedCommand("breaks", [sys.executable, "-c", f"open({str(record.file)!r}, 'w').write('{{half')"], 20.0)
    assert take([step(record, "good", ""), broken, step(record, "last", "")], record, 60.0, lambda text: None)
    assert record.read()["rows"] == {"last": 4}
    assert set(record.read()["steps"]) == {"breaks", "last"}
    assert (tmp_path / "found.broken").read_text() == "{half"


def test_a_step_says_what_it_knows_before_it_is_stopped(tmp_path):
    """Tests that run out of time still write which of them failed."""
    record = Record(tmp_path / "found.json")
    code = "import time\ntry:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('3 failed')"
    take([TimedCommand("tests", [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"], 6.0)], record, 30.0,
         lambda text: None)
    assert record.read()["steps"]["tests"]["ended"] == "stopped after 6 s"
    assert record.read()["steps"]["tests"]["said"] == "3 failed\n"


@pytest.mark.parametrize("error", [RuntimeError("jaxlib is at odds with jax"), AttributeError("no such plugin")])
def test_a_peer_that_is_broken_is_no_trouble_of_another(error, monkeypatch):
    def raising(name):
        raise error

    monkeypatch.setattr(gpu_peers, "find_spec", lambda name: True)
    monkeypatch.setattr(gpu_peers, "import_module", raising)
    assert gpu_peers.missing("jax") == f"jax is installed and fails: {type(error).__name__}: {error}"
    monkeypatch.setattr(gpu_peers, "find_spec", lambda name: None)
    assert gpu_peers.missing("torch") == "torch is not installed"


@needs_compiler
def test_sizes_for_which_there_is_no_time_are_said(sheet):
    assert gpu.main([str(sheet.record.file), "grid:LSTM", "--short", "--seconds", "0"]) == 0
    assert sheet.record.read()["left_out"] == {"grid, LSTM": "1 of 1 sizes, for want of time"}
    assert "| grid, LSTM | 1 of 1 sizes, for want of time |" in gpu_report.page(sheet.record.read())


@needs_compiler
@pytest.mark.slow
def test_the_probe_on_the_stand_in(tmp_path, capsys):
    """Every step in a process of its own."""
    assert visit.main(["probe", "--out", str(tmp_path), "--short", "--module", "tinyrnn_tests.gpu.stand_in", "--seconds", "170"]) == 0
    found, page = json.loads((tmp_path / "gpu-probe.json").read_text()), (tmp_path / "gpu-probe.md").read_text()
    assert {s["ended"] for s in found["steps"].values()} == {"well"}
    assert set(found["rows"]["LSTM"][POINT]) == set(gpu.MODES)
    absent = gpu_peers.missing("torch")  # not installed, or without support for this GPU
    for heading in ("## The GPU itself", "## Precision", "## LSTM", *([f"{absent}."] if absent else [])):
        assert heading in page
    assert "## Not measured" not in page
    assert capsys.readouterr().out.count(": well, ") == len(found["steps"])


@needs_compiler
def test_the_command_refuses_without_a_gpu(real_gpu, tmp_path, capsys):
    if real_gpu:
        pytest.skip("there is a GPU to run on")
    assert main(["bench", "--gpu", "--probe", "--out", str(tmp_path)]) == 2
    assert "backend 'cuda' cannot run here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_page_of_nothing_is_a_page():
    assert gpu_report.page({}).startswith("# Benchmarks on a GPU")
    assert "Cells that no library" in gpu_report.page({"unusual": {"IndRNN": {"point": "T=1", "torch eager": [1.0, 2.0]}}})
    assert "| nan |" in gpu_report.page({"smoke": {"T=1": {"G1 fp32": {"error": "NaN", "same bits": False}}}})
    said = gpu_report.page({"steps": {"smoke": {"ended": "exit status 1"}, "machine": {"ended": "well"}}})
    assert "| smoke | exit status 1 |" in said
    assert "| machine |" not in said
