"""PyTorch and JAX on a GPU: their own layers at every precision, and the unusual cells."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..backends import on_host
from .cases import Unusual
from .sides import TorchNames, jax_unusual, torch_loop

Run = Callable[[], Any]
PRECISIONS = {"fp32": ("float32", False), "tf32": ("float32", True), "bf16": ("bfloat16", False), "fp16": ("float16", False)}


ABLE: Mapping[str, Callable[[Any], bool]] = {"torch": lambda m: m.cuda.is_available() is True,
                                             "jax": lambda m: m.default_backend() == "gpu"}


def missing(peer: str) -> str | None:
    """Why a peer cannot use the GPU here; None where it can."""
    if find_spec(peer) is None:
        return f"{peer} is not installed"
    try:
        return None if ABLE[peer](import_module(peer)) else f"{peer} is installed without support for this GPU"
    except Exception as error:  # installed in parts, or at odds with the driver: each fails in its own way
        return f"{peer} is installed and fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _torch_at(precision: str) -> tuple[Any, Any]:
    """PyTorch, set to multiply as asked, and the dtype that its tensors take."""
    torch = import_module("torch")
    dtype, tf32 = PRECISIONS[precision]
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    return torch, getattr(torch, dtype)


def torch_stock(kind: str, data: Any, layer: Any, precision: str) -> tuple[Run, Run]:
    """PyTorch's own layer, which is cuDNN's, with the same weights."""
    torch, dtype = _torch_at(precision)
    peer = getattr(torch.nn, kind)(data.point.x, data.point.h, batch_first=True)
    peer.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in layer.state_dict().items()})
    peer = peer.to("cuda", dtype)
    peer.flatten_parameters()
    x, g = (torch.from_dlpack(a).to(dtype) for a in (data.x, data.g))
    x = x.clone().requires_grad_()

    def infer() -> Any:
        _torch_at(precision)
        with torch.no_grad():
            return peer(x)[0]

    def train() -> Any:
        _torch_at(precision)
        peer.zero_grad()
        x.grad = None
        (peer(x)[0] * g).sum().backward()

    return infer, train


def torch_unusual(case: Unusual, data: Any, weights: Mapping[str, Any], compiled: bool = False) -> tuple[Run, Run]:
    """The cell as a loop over time, eager, or with its step through torch.compile (the whole loop takes many minutes)."""
    torch, _ = _torch_at("fp32")
    m = TorchNames()
    w = {k: torch.from_numpy(np.ascontiguousarray(v)).cuda().requires_grad_() for k, v in case.weights(weights).items()}
    x, g = torch.from_dlpack(data.x).clone().requires_grad_(), torch.from_dlpack(data.g)
    start = tuple(torch.zeros(data.point.batch, data.point.h, device="cuda") for _ in range(case.states))

    def step(z: Any, state: Any) -> Any:
        return case.step(m, w, z, state)

    one = torch.compile(step) if compiled else step

    def forward() -> Any:
        return torch_loop(w, x, start, one)

    def infer() -> Any:
        with torch.no_grad():
            return forward()

    def train() -> Any:
        for t in (*w.values(), x):
            t.grad = None
        (forward() * g).sum().backward()

    return infer, train


def jax_on_gpu(case: Unusual, data: Any, weights: Mapping[str, Any]) -> tuple[Run, Run]:
    """The cell under `jax.lax.scan` and `jax.jit`, in plain float32."""
    import_module("jax").config.update("jax_default_matmul_precision", "highest")
    host = SimpleNamespace(point=data.point, x=on_host(data.x), g=on_host(data.g))
    train, infer = jax_unusual(case, host, weights)
    return infer, train


def median_on_host(run: Run, most: int = 5) -> float:
    """The median of a few calls that wait for their results, in milliseconds: JAX has streams of its own."""
    run()
    times = []
    for _ in range(most):
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)
