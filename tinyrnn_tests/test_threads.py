"""Threads claim work: whoever does it, and whether anybody comes at all, results are the same."""

import json
import platform
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.backends.cpu import driver, memory, runtime
from tinyrnn.backends.cpu import threads as gang_module
from tinyrnn.backends.cpu.threads import Gang

SHAPES = [(30, 24, 16, 48), (60, 1, 64, 256), (40, 33, 20, 64)]  # T, B, X, H: shared by rows, call by call, and both


def training(steps, batch, width, size):
    layer = tr.nn.LSTM(width, size, rng=0)
    weights = list(layer.parameters())

    def step(x):
        y, _ = layer(x)
        loss = (y * y).mean()
        return [loss, y, *tr.grad(loss, weights)]

    return step, np.random.default_rng(0).normal(size=(batch, steps, width)).astype("float32")


def assert_equal_bits(found, want):
    for a, b in zip(found, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def busy():
    """Threads of this process that keep processors busy outside of Python's lock."""
    stop, a = threading.Event(), np.ones((200, 200))

    def spin():
        while not stop.is_set():
            np.sort(a, axis=None)

    spinners = [threading.Thread(target=spin, daemon=True) for _ in range(3)]
    for t in spinners:
        t.start()
    yield
    stop.set()
    for t in spinners:
        t.join()


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_beside_busy_threads(shape, busy, monkeypatch):
    """Helpers that come late, leave early, or are stopped in the middle of a part."""
    monkeypatch.setattr(gang_module, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(gang_module, "SHORTEST_PAUSE", 0.0)
    step, x = training(*shape)
    want = tr.compile(step, threads=1)(x)
    programs = [tr.compile(step, threads=n) for n in (2, 3, 5)]
    for _ in range(12):
        for p in programs:
            assert_equal_bits(p(x), want)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_needs_no_helper(shape, monkeypatch):
    """Work is handed to nobody: who is there does all of it."""
    step, x = training(*shape)
    want = tr.compile(step, threads=1)(x)
    alone = Gang()
    alone._start = lambda: alone._beds.append(threading.Lock()) or alone._code or Gang._compiled(alone)
    monkeypatch.setattr(alone, "_wake", lambda count: None)
    monkeypatch.setattr(alone, "_asleep", lambda *_: 0, raising=False)
    monkeypatch.setattr(runtime, "GANG", alone)
    program = tr.compile(step, threads=3)
    assert_equal_bits(program(x), want)
    assert alone._late is not None  # the helpers' frames are kept for as long as they may come
    for _ in range(3):
        assert_equal_bits(program(x), want)


class FakeRun:
    driver = scratch = 0
    tables = SimpleNamespace(long=True)

    def __init__(self, crowded):
        self.crowded, self.times = crowded, 0

    def parts(self, scratch):
        return [0] * len(scratch)

    def alone(self):
        self.times += 1
        return True

    def stop(self):
        pass


def test_a_crowded_machine_is_left_alone_for_a_while(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(gang_module.time, "perf_counter", lambda: now[0])
    gang = Gang()
    gang._beds = [threading.Lock()]
    gang._join = gang._asleep = lambda *_: 0
    gang._post = lambda *_: 0
    quiet, crowded = FakeRun(False), FakeRun(True)
    assert gang.run(quiet, 2)
    pauses = []
    for _ in range(12):
        assert gang.run(crowded, 2)
        began = now[0]
        while not gang.run(quiet, 2):
            now[0] += 0.001
        pauses.append(now[0] - began)
    assert pauses[0] < 0.02 < 0.3 < pauses[-1] <= 1.1
    for _ in range(100):
        assert gang.run(quiet, 2)  # nothing is held against a machine that is quiet again
    assert gang.run(crowded, 2)
    now[0] += 0.02
    assert gang.run(quiet, 2)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="a clock that any program may read")
@pytest.mark.parametrize(("began", "expected", "crowded"), [(0, 0, True), (1, 0, False), (0, 1 << 40, False)])
def test_a_wait_counts_as_a_share_of_the_run(began, expected, crowded, monkeypatch):
    """Somebody packed and holds half of a product for 20 ms: too much for a run that begins now (0), nothing for one that began
    with the machine's clock (1), or is expected to take minutes."""
    found, scratch = [], memory.aligned(1 << 20)

    def run(frame, count):
        def release():
            time.sleep(0.02)
            frame.control[driver.READY] += 1

        frame.parts([memory.address(scratch)])
        first, frame.control[driver.READY] = frame.threads[0], 1
        frame.control[[driver.CLAIMED, driver.CLAIMED + driver.LINE]] = 1, 2
        first.words[driver.BEGAN], first.words[driver.EXPECTED] = began, expected
        other = threading.Thread(target=release)
        other.start()
        found.append((frame.alone(), frame.crowded))
        other.join()
        return True

    monkeypatch.setattr(runtime, "GANG", SimpleNamespace(run=run, holds=lambda frame: False))
    x = np.random.default_rng(0).normal(size=(512, 512)).astype("float32")
    tr.compile(lambda x: tr.tanh(x @ x), threads=2)(x)
    assert found == [(True, crowded)]


def test_many_threads_run_one_program_at_once():
    step, x = training(20, 8, 16, 32)
    program, want = tr.compile(step, threads=2), None
    want, wrong = tr.compile(step, threads=1)(x), []

    def run():
        for _ in range(20):
            try:
                assert_equal_bits(program(x), want)
            except AssertionError as error:
                wrong.append(error)

    workers = [threading.Thread(target=run) for _ in range(6)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_what_late_helpers_may_read_is_kept_and_let_go():
    """A frame is held until all helpers have left it, and not longer than until the next run."""
    step, x = training(30, 24, 16, 48)
    program = tr.compile(step, threads=4)
    for _ in range(50):
        program(x)
    time.sleep(0.05)
    program(x)
    time.sleep(0.05)
    late = gang_module.GANG._late
    assert late is None or late.tables is program.specialization(x)[0].executable.tables


# ---- Ctrl-C

def shared_program():
    """A program whose next run is shared, its input and its results."""
    step, x = training(100, 48, 32, 64)
    program, want = tr.compile(step, threads=2), tr.compile(step, threads=1)(x)
    gang = gang_module.GANG
    for _ in range(1000):  # on a busy machine a helper may come late to a run that is over
        gang.pauses.end()
        program(x)
        while gang._join(gang._at, 1):
            time.sleep(0.001)
        if gang._late is None:
            break
    return program, x, want


def test_ctrl_c_right_after_helpers_are_called(monkeypatch):
    """What was shared when Ctrl-C came is computed by one thread the next time, and wholly."""
    monkeypatch.setattr(gang_module.Pauses, "on", False)  # whatever else runs here
    program, x, want = shared_program()
    gang = gang_module.GANG
    post, alone = gang._post, []

    def interrupted(*args):
        post(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(gang, "_post", interrupted)
    with pytest.raises(KeyboardInterrupt):
        program(x)
    monkeypatch.setattr(gang, "_post", post)
    monkeypatch.setattr(Gang, "run", lambda self, frame, count: alone.append(frame))  # None: nobody helps
    assert_equal_bits(program(x), want)
    assert alone


def test_ctrl_c_again_while_clearing_up(monkeypatch):
    """A run that a helper may still work on is not used again, whatever interrupts whom."""
    monkeypatch.setattr(gang_module.Pauses, "on", False)  # whatever else runs here
    program, x, want = shared_program()
    stop, drive, seen = runtime.RunFrame.stop, runtime.RunFrame._driven, []

    def interrupted(self, *_):
        seen.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(runtime.RunFrame, "_driven", interrupted)
    monkeypatch.setattr(runtime.RunFrame, "stop", interrupted)  # every time: nobody is told
    with pytest.raises(KeyboardInterrupt):
        program(x)
    monkeypatch.setattr(runtime.RunFrame, "_driven", drive)
    monkeypatch.setattr(runtime.RunFrame, "stop", stop)
    executable = program.specialization(x)[0].executable
    assert gang_module.GANG.holds(seen[0])
    assert seen[0] not in executable._frames
    for _ in range(20):
        assert_equal_bits(program(x), want)
    assert not gang_module.GANG.holds(seen[0])


@pytest.mark.slow
def test_bursts_of_ctrl_c():
    """Signals at any moment, several in a row: calls that end give their results; in a process of its own."""
    run = subprocess.run([sys.executable, "-m", "tinyrnn_tests.interrupted", "10"], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["wrong"] == 0
    assert min(found["ended"], found["interrupted"]) > 20
