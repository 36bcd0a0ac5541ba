"""Graphs that every backend must run, and how each is run: one table for all of them."""

import numpy as np

import tinyrnn as tr
from tinyrnn.backends.cpu.runtime import Assembled, CpuExecutable
from tinyrnn.backends.plan.planner import plan_of
from tinyrnn.ir.ops import elementwise as e
from tinyrnn.ir.ops import reduce as r
from tinyrnn.ir.ops import structure
from tinyrnn.ir.ops.leaves import constant, full, input_node, iota
from tinyrnn.ir.ops.random import random_bits
from tinyrnn.passes import simplify
from tinyrnn.passes.fuse import fuse
from tinyrnn.tensor.compile import PIPELINE

GUARD = 256  # bytes around every result that nobody may touch


def values_for(graph, rng=0, scale=0.7):
    generator = np.random.default_rng(rng)
    found = {}
    for name, n in graph.inputs.items():
        if n.dtype.kind == "f":
            found[name] = (scale * generator.normal(size=n.shape)).astype(n.dtype)
        elif n.dtype.kind == "b":
            found[name] = generator.random(n.shape) < 0.7
        else:
            found[name] = generator.integers(0, 3, n.shape).astype(n.dtype)
    return found


def through_passes(graph):
    for _, transform in PIPELINE:
        graph = transform(graph)
    return graph


def run_compiled(graph, values, threads=1, target=None, gap=0):
    """Results of an executable of its own, which is returned as well."""
    plan = plan_of(fuse(simplify(graph)))
    e = CpuExecutable(Assembled(plan, target), gap=gap)
    nodes = {**graph.inputs, **graph.leaves}
    given_arrays = {n: np.ascontiguousarray(values[k] if k in values else n.at[0].data) for k, n in nodes.items()}
    guarded = {k: np.full(n.dtype.itemsize * int(np.prod(n.shape)) + 2 * GUARD, 0xFF, np.uint8)  # poisoned: what is not
               for k, n in graph.outputs.items()}                                               # written shows
    outputs = {k: guarded[k][GUARD:-GUARD].view(n.dtype).reshape(n.shape) for k, n in graph.outputs.items()}
    e.run(given_arrays, outputs, threads)
    for k, raw in guarded.items():
        assert (raw[:GUARD] == 0xFF).all(), f"something was written before {k}"
        assert (raw[-GUARD:] == 0xFF).all(), f"something was written behind {k}"
    return outputs, e


def runs_of(backend, graph, values):
    """What a backend finds, each way that it has: a graph's second run on a GPU is a captured one."""
    if backend == "cpu":
        return [run_compiled(graph, values)[0]]
    values = {k: v for k, v in values.items() if k in graph.inputs}  # passes drop inputs that nothing reads
    return [graph.run(values, backend=backend) for _ in range(2 if backend == "cuda" else 1)]


ODD = {
    "softmax": "z[t] = softmax(W @ h[t-1] + V @ x[t])\nh[t] = tanh(z[t] * h[t-1] + b)",
    "layer_norm": "h[t] = tanh(layer_norm(W @ h[t-1] + V @ x[t]) * g + b)",
    "rms_norm": "h[t] = sigmoid(rms_norm(W @ h[t-1] + V @ x[t]) * g)",
    "lag": "h[t] = tanh(W @ h[t-1] + U @ h[t-2] + V @ x[t])",
    "delayed": "h[t] = tanh(W @ h[t-1] + V @ x[t-1] + U @ x[t])",
    "matrix": "k[t] = W_k @ x[t]\nv[t] = W_v @ x[t]\nC[t] = 0.9 * C[t-1] + outer(v[t], k[t])\nh[t] = tanh(C[t] @ k[t] + b)",
    "two products": "r[t] = sigmoid(W_r @ h[t-1] + V_r @ x[t])\nn[t] = tanh(W_n @ (r[t] * h[t-1]) + V_n @ x[t])\n"
                    "h[t] = r[t] * h[t-1] + (1 - r[t]) * n[t]",
    "division": "s[t] = sum(abs(V @ x[t])) + 1\nh[t] = tanh(W @ h[t-1] / s[t] + V @ x[t])",
    "clip": "h[t] = clip(W @ h[t-1] + V @ x[t], -0.5, 0.5) + maximum(V @ x[t], 0.1) * minimum(h[t-1], b)",
    "softplus": "h[t] = softplus(W @ h[t-1] + V @ x[t]) / (1 + exp(-(U @ x[t]))) + elu(b) * gelu(V @ x[t])",
    "powers": "h[t] = sqrt(0.1 + (W @ h[t-1])**2) + log(1 + (V @ x[t])**2)**1.5 - sin(b) * cos(h[t-1])",
}

LAYERS = {
    "lstm": lambda **o: tr.nn.LSTM(3, 5, rng=0, **o), "gru": lambda **o: tr.nn.GRU(3, 5, rng=0, **o),
    "rnn": lambda **o: tr.nn.RNN(3, 5, rng=0, **o), "relu": lambda **o: tr.nn.RNN(3, 5, nonlinearity="relu", rng=0, **o),
}


def without_gradients():
    """The ops that have none, by name."""
    a, b = input_node("a", (3, 4)), input_node("b", (3, 4))
    p, q, index = e.less(a, b), e.less_equal(b, 0.3), input_node("i", (3,), "int32")
    return {"less": p, "less_equal": q, "equal": e.equal(a, a), "not_equal": e.not_equal(a, b), "both": e.both(p, q),
            "either": e.either(p, q), "negate": e.negate(p), "sign": e.sign(a), "stop_gradient": e.stop_gradient(a * b),
            "argmax": r.argmax(a, 0), "one_hot": structure.one_hot(index, 4), "full": full(2.5, (2, 3), "float32"),
            "random_bits": random_bits(input_node("key", (2,), np.uint32), 7, (5, 9)), "literal": constant(np.arange(6.0)),
            "iota": iota(5), "input": a}
