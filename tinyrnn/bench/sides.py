"""The sides of a comparison: each makes, for one case, a function that does one training step or one inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import nn
from ..tensor.compile import compile
from ..tensor.transforms import grad
from . import onnx_peer
from .cases import STOCK, Point, Unusual, unusual

Array = npt.NDArray[Any]
Run = Callable[[], Any]


class Workload:
    """Data for one point: inputs, and the weights of the loss `Σ y g`, so that every output counts differently."""

    def __init__(self, point: Point, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.point = point
        self.x = rng.normal(size=(point.batch, point.steps, point.x)).astype(np.float32)
        self.g = rng.normal(size=(point.batch, point.steps, point.h)).astype(np.float32)


def missing() -> dict[str, str]:
    """Peers that are not installed, with the remedy."""
    needed = {"torch": ["torch"], "jax": ["jax"], "onnxruntime": ["onnx", "onnxruntime"]}
    absent = {name: [m for m in modules if not find_spec(m)] for name, modules in needed.items()}
    return {name: f"not installed: pip install 'tinyrnn[bench]' ({', '.join(m)})" for name, m in absent.items() if m}


def settings(side: str, what: str, name: str, point: Point) -> dict[str, Run]:
    """What a side does at a point, for each number of threads that is tried: `train`, `infer`, `step`, `predict` or `single`
    (an inference in one thread) with a stock layer or an unusual cell; `head 2` is a step of `inside` in two threads."""
    if what.startswith("head"):
        found: dict[str, Run] = import_module("tinyrnn.bench.inside").settings(side, name, point, int(what.split()[1]))
        return found
    task = Workload(point)
    layer = stock(name, point) if name in STOCK else layer_of(unusual()[name], point)
    if side == "ours":
        return {"ours": _ours(what, layer, task)}
    if side == "jax":
        return {"all threads": jax_unusual(unusual()[name], task, layer.state_dict())[0]}
    if side == "onnxruntime":
        make = onnx_peer.steps if what == "step" else onnx_peer.sequences
        return {_threads(n): make(name, layer, task.x[:, 0] if what == "step" else task.x, n) for n in (1, 2)}
    train, infer = torch_stock(name, task, layer) if name in STOCK else torch_unusual(unusual()[name], task, layer.state_dict())
    run = train if what == "train" else infer
    return {_threads(n): partial(_with_torch_threads, n, run) for n in (1, 2)}


def _threads(n: int) -> str:
    return f"{n} thread{'s' * (n > 1)}"


def _with_torch_threads(n: int, run: Run) -> Any:
    torch_threads(n)
    return run()


def _ours(what: str, layer: Any, task: Workload) -> Run:
    if what == "step":
        stream, x = layer.stream(task.point.batch), np.ascontiguousarray(task.x[:, 0])
        return lambda: stream(x)
    if what == "predict":
        return lambda: layer.predict(task.x)
    train, infer = ours(layer, task, threads=1 if what == "single" else None)
    return train if what == "train" else infer


# ---- tinyrnn

def ours(layer: Any, task: Workload, threads: int | None = None) -> tuple[Run, Run]:
    """A training step (all gradients, that of x included) and an inference."""
    parameters = dict(layer.named_parameters())

    def train(x: Any, g: Any) -> Any:
        y, _ = layer(x)
        loss = (y * g).sum()
        return loss, grad(loss, {**parameters, "x": x})

    step, infer = compile(train, threads=threads), compile(lambda x: layer(x)[0], threads=threads)
    return lambda: step(task.x, task.g), lambda: infer(task.x)


def stock(kind: str, point: Point) -> Any:
    """`nn.LSTM`, `nn.GRU` or `nn.RNN`."""
    return getattr(nn, kind)(point.x, point.h, rng=0)


def layer_of(case: Unusual, point: Point) -> Any:
    """An unusual cell as a layer; biases are random, so that a wrong one shows."""
    layer = nn.Recurrent(case.cell, x=point.x, h=point.h, rng=0)
    rng = np.random.default_rng(1)
    for name, t in layer.weights.items():
        if name[0] in "bpgu":
            t.assign((0.5 * rng.normal(size=t.shape)).astype(np.float32))
    return layer


# ---- PyTorch

def torch_threads(threads: int) -> None:
    import_module("torch").set_num_threads(threads)


def torch_stock(kind: str, task: Workload, layer: Any) -> tuple[Run, Run]:
    """PyTorch's own layer with the same weights."""
    torch = import_module("torch")
    p = task.point
    peer = getattr(torch.nn, kind)(p.x, p.h, batch_first=True)
    peer.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
    x, g = torch.from_numpy(task.x).requires_grad_(), torch.from_numpy(task.g)

    def train() -> Any:
        peer.zero_grad()
        x.grad = None
        (peer(x)[0] * g).sum().backward()

    def infer() -> Any:
        with torch.no_grad():
            return peer(x)[0]

    return train, infer


class TorchNames:
    """What the cells of `cases` ask of an array module."""

    def __init__(self) -> None:
        torch = import_module("torch")
        self.sigmoid, self.tanh, self.relu, self.matmul = torch.sigmoid, torch.tanh, torch.relu, torch.matmul
        self._norm = torch.nn.functional.layer_norm

    def split(self, z: Any, n: int) -> Any:
        return z.chunk(n, -1)

    def layer_norm(self, z: Any) -> Any:
        return self._norm(z, z.shape[-1:])


def torch_loop(w: Mapping[str, Any], x: Any, state: tuple[Any, ...], step: Callable[[Any, Any], Any]) -> Any:
    """All outputs of a cell, step by step."""
    torch = import_module("torch")
    z, out = torch.nn.functional.linear(x, w["W"], w["b"]).transpose(0, 1), []
    for z_t in z.unbind(0):
        state = step(z_t, state)
        out.append(state[0])
    return torch.stack(out, 1)


def torch_unusual(case: Unusual, task: Workload, weights: Mapping[str, Array], compiled: bool = False) -> tuple[Run, Run]:
    """The cell as a loop over time in PyTorch, eager or through torch.compile."""
    torch = import_module("torch")
    m = TorchNames()
    w = {k: torch.from_numpy(np.ascontiguousarray(v)).requires_grad_() for k, v in case.weights(weights).items()}
    x, g = torch.from_numpy(task.x).requires_grad_(), torch.from_numpy(task.g)
    start = tuple(torch.zeros(task.point.batch, task.point.h) for _ in range(case.states))

    def forward(x: Any) -> Any:
        return torch_loop(w, x, start, lambda z, state: case.step(m, w, z, state))

    run = torch.compile(forward) if compiled else forward

    def train() -> Any:
        for t in (*w.values(), x):
            t.grad = None
        (run(x) * g).sum().backward()

    def infer() -> Any:
        with torch.no_grad():
            return run(x)

    return train, infer


# ---- JAX

class JaxNames:
    """What the cells of `cases` ask of an array module."""

    def __init__(self) -> None:
        jax = import_module("jax")
        self.np = import_module("jax.numpy")
        self.sigmoid, self.relu, self.tanh, self.matmul = jax.nn.sigmoid, jax.nn.relu, self.np.tanh, self.np.matmul

    def split(self, z: Any, n: int) -> Any:
        return self.np.split(z, n, -1)

    def layer_norm(self, z: Any) -> Any:
        d = z - z.mean(-1, keepdims=True)
        return d / self.np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)


def jax_unusual(case: Unusual, task: Any, weights: Mapping[str, Array]) -> tuple[Run, Run]:
    """The cell under `jax.lax.scan` and `jax.jit`."""
    jax, m = import_module("jax"), JaxNames()
    w = {k: m.np.asarray(v) for k, v in case.weights(weights).items()}
    x, g = m.np.asarray(task.x), m.np.asarray(task.g)
    start = tuple(m.np.zeros((task.point.batch, task.point.h), m.np.float32) for _ in range(case.states))

    def forward(w: Any, x: Any) -> Any:
        z = m.np.swapaxes(x @ w["W"].T + w["b"], 0, 1)

        def step(state: Any, z_t: Any) -> Any:
            new = case.step(m, w, z_t, state)
            return new, new[0]

        return m.np.swapaxes(jax.lax.scan(step, start, z)[1], 0, 1)

    train = jax.jit(jax.value_and_grad(lambda w, x: (forward(w, x) * g).sum(), argnums=(0, 1)))
    infer = jax.jit(forward)
    return lambda: jax.block_until_ready(train(w, x)), lambda: jax.block_until_ready(infer(w, x))
