"""Programs under bursts of Ctrl-C, in threads: `python -m tinyrnn_tests.interrupted SECONDS`."""

import json
import signal
import sys
import threading
import time

import numpy as np

import tinyrnn as tr

SHAPES = ((48, 300, 32), (20, 100, 32), (1, 400, 32))
armed, over = threading.Event(), threading.Event()


def handler(*_):
    if armed.is_set():
        raise KeyboardInterrupt


def hammer(thread):
    """One to three signals within a fraction of a millisecond, again and again."""
    rng = np.random.default_rng(1)
    while not over.is_set():
        time.sleep(rng.random() * 0.004)
        for _ in range(int(rng.integers(1, 4))):
            signal.pthread_kill(thread, signal.SIGINT)
            time.sleep(rng.random() * 0.0003)


def call(program, x):
    armed.set()
    found = program(x)
    armed.clear()
    return found


def cases():
    layer, rng = tr.nn.LSTM(32, 64, rng=0), np.random.default_rng(0)
    weights = list(layer.parameters())

    def step(x):
        y, _ = layer(x)
        return [y, *tr.grad((y * y).mean(), weights)]

    xs = [rng.normal(size=s).astype("float32") for s in SHAPES]
    want = [tr.compile(step, threads=1)(x) for x in xs]
    programs = [tr.compile(step, threads=n) for n in (2, 3, 5)]
    found = [(p, x, w) for p in programs for x, w in zip(xs, want, strict=True)]
    for program, x, _ in found:
        program(x)
    return found


def main(seconds):
    found, counts = cases(), {"ended": 0, "interrupted": 0, "wrong": 0}

    def compare(got, want):
        counts["wrong"] += sum(not np.array_equal(a, b) for a, b in zip(got, want, strict=True))

    signal.signal(signal.SIGINT, handler)
    threading.Thread(target=hammer, args=[threading.main_thread().ident], daemon=True).start()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for program, x, want in found:
            try:
                got = call(program, x)
            except KeyboardInterrupt:
                armed.clear()
                counts["interrupted"] += 1
            else:
                counts["ended"] += 1
                compare(got, want)
    over.set()
    for program, x, want in found:
        compare(program(x), want)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(float(sys.argv[1]))
