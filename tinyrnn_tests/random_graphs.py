"""Random graphs for comparing one way of running with another: scans over steps of random ops, with masks, shared and
unused values, outputs that are inputs, gradients, sizes 0 and 1 and primes."""

from hypothesis import strategies as st

from tinyrnn.ir import Graph
from tinyrnn.ir.ops import elementwise as e
from tinyrnn.ir.ops import reduce as r
from tinyrnn.ir.ops.leaves import full, input_node
from tinyrnn.ir.ops.linear import matmul, sum_, transpose
from tinyrnn.ir.ops.structure import concat, split
from tinyrnn.ir.scan import scan
from tinyrnn.passes import grad

UNARY = [e.tanh, e.sigmoid, e.relu, e.sin, e.cos, e.abs_, e.softplus, lambda x: -x, lambda x: x * 0.5 + 1.0, r.softmax,
         r.layer_norm, r.elu, r.silu, lambda x: r.clip(x, -0.5, 0.75), lambda x: e.exp(e.minimum(x, 1.0)),
         lambda x: e.log(x * x + 0.5), lambda x: e.sqrt(x * x + 0.1), lambda x: e.power(x * x + 0.3, 1.5),
         lambda x: x - r.mean(x, -1, keepdims=True), lambda x: x / (1.0 + sum_(e.abs_(x), -1, keepdims=True)),
         lambda x: e.where(e.less(x, 0.1), x, x * 2.0), lambda x: x * r.amax(x, -1, keepdims=True), e.stop_gradient]
BINARY = [e.add, e.sub, e.mul, e.maximum, e.minimum, lambda a, b: a / (2.0 + b * b), lambda a, b: e.where(e.less(a, b), a, b),
          lambda a, b: a * sum_(b, -1, keepdims=True)]


def random_graph(draw):
    """A scan with its gradients, from a strategy's `draw`."""
    def choose(*options):
        return draw(st.sampled_from(options))

    dtype = choose("float64", "float64", "float32")
    steps, batch, width = choose(1, 2, 3, 7, 0), choose(1, 2, 3, 0), choose(1, 2, 3, 5, 17)
    states = [input_node(f"s{i}", (batch, width), dtype) for i in range(draw(st.integers(1, 3)))]
    x, weights = input_node("x", (steps, batch, width), dtype), [
        input_node(f"W{i}", (width, width), dtype) for i in range(2)]
    bias = input_node("b", (width,), dtype)
    mask = input_node("mask", (steps, batch), bool) if choose(True, False) else None
    plan = [(draw(st.integers(0, 99)), draw(st.integers(0, 99)), draw(st.integers(0, 99)))
            for _ in range(draw(st.integers(1, 8)))]
    picks = [draw(st.integers(0, 99)) for _ in range(len(states) + 3)]

    def step(state, slices):
        pool = [*state, slices[0], slices[0] + bias]
        for kind, i, j in plan:
            a, b = pool[i % len(pool)], pool[j % len(pool)]
            if kind < 30:
                pool.append(UNARY[kind % len(UNARY)](a))
            elif kind < 60:
                pool.append(BINARY[kind % len(BINARY)](a, b))
            elif kind < 85:
                pool.append(matmul(a, transpose(weights[kind % 2]) if kind % 3 else weights[kind % 2]))
            elif width > 1:
                left, right = split(concat([a, b], -1), [1, 2 * width - 1], -1)
                pool.append(concat([left * right[:, :1], right[:, width:]], -1))
        new = [e.tanh(pool[p % len(pool)]) if p % 3 else pool[p % len(states)] for p in picks[: len(states)]]
        return new, [pool[p % len(pool)] for p in picks[len(states) :]]

    sequence = choose(x, e.tanh(x), matmul(x, weights[0]), e.sin(matmul(x, weights[0]) + bias))
    finals, traces = scan(step, states, [sequence], mask=mask, reverse=choose(True, False), steps=steps)
    loss = full(0, (), dtype)
    for i, y in enumerate([*finals, *traces]):
        loss = loss + sum_(e.sin(y * (1.0 + i / 2)))
    leaves = [*states, x, *weights, bias]
    outputs = {"loss": loss, "first": traces[0], "same": traces[0], "input": x, "last": finals[-1]}
    if choose(True, False):
        outputs["sequence"] = choose(sequence, sequence[:, :1], sum_(sequence, 0))
    wanted = leaves if choose(True, True, False) else leaves[:1]
    return Graph(outputs | {f"d{n.at[0]}": g for n, g in zip(wanted, grad(loss, wanted), strict=True)})
