"""What needs a process of its own: first calls, and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

FIRST = """
import json, sys, time
import numpy as np
import tinyrnn as tr
kind, T, B, X, H = sys.argv[1], *map(int, sys.argv[2:6])
layer = getattr(tr.nn, kind)(X, H, rng=0)
parameters = dict(layer.named_parameters())
x, g = np.ones((B, T, X), "f"), np.ones((B, T, H), "f")
def train(x, g):
    loss = (layer(x)[0] * g).sum()
    return loss, tr.grad(loss, parameters)
began = time.perf_counter()
step = tr.compile(train)
step(x, g)
first = time.perf_counter() - began
began = time.perf_counter()
step(x, g)
again = time.perf_counter() - began
print(json.dumps({"first_s": first, "next_s": again}))
"""

MEMORY = """
import json, re, sys
import numpy as np
side, kind, T, B, X, H = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
if side == "ours":
    import tinyrnn as tr
    def make(T, B, X, H):
        layer = getattr(tr.nn, kind)(X, H, rng=0)
        parameters = dict(layer.named_parameters())
        def train(x, g):
            loss = (layer(x)[0] * g).sum()
            return loss, tr.grad(loss, {**parameters, "x": x})
        step = tr.compile(train)
        return lambda x, g: step(x, g)
else:
    import torch
    def make(T, B, X, H):
        layer = getattr(torch.nn, kind)(X, H, batch_first=True)
        def step(x, g):
            layer.zero_grad()
            t = torch.from_numpy(x).requires_grad_()
            (layer(t)[0] * torch.from_numpy(g)).sum().backward()
            return t.grad
        return step
small = (4, 2, 8, 16)
warm = make(*small)
for _ in range(3):
    warm(np.ones((2, 4, 8), "f"), np.ones((2, 4, 16), "f"))
x, g = np.ones((B, T, X), "f"), np.ones((B, T, H), "f")
before = peak()
step = make(T, B, X, H)
for _ in range(3):
    step(x, g)
print(json.dumps({"bytes": peak() - before}))
"""


def _run(code: str, *arguments: object, **environment: str) -> dict[str, Any]:
    out = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True,
                         env={**os.environ, **environment})
    found: dict[str, Any] = json.loads(out.stdout)
    return found


def first_calls(kind: str, steps: int, batch: int, x: int, h: int) -> dict[str, float]:
    """Seconds until a new layer's first training step is done: nothing compiled before, then with kernels on disk."""
    arguments = (kind, steps, batch, x, h)
    cold = _run(FIRST, *arguments, TINYRNN_CACHE="off")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o700)
        _run(FIRST, *arguments, TINYRNN_CACHE=folder)
        cached = _run(FIRST, *arguments, TINYRNN_CACHE=folder)
    return {"cold_s": cold["first_s"], "cached_s": cached["first_s"], "next_s": cold["next_s"]}


def peak_memory(side: str, kind: str, steps: int, batch: int, x: int, h: int) -> int:
    """Bytes that training steps add to the peak of a process that was warmed up at a small size."""
    return int(_run(MEMORY, side, kind, steps, batch, x, h)["bytes"])
