"""Random bugs planted into the backward part of a graph, and random cells."""

import numpy as np

import tinyrnn as tr
from tinyrnn.ir import Graph
from tinyrnn.ir.graph import Label
from tinyrnn.ir.node import apply, rebuild, walk
from tinyrnn.ir.ops.elementwise import add_n
from tinyrnn.ir.ops.linear import swap_last


def sign(graph, backward, rng):
    n = rng.choice(backward)
    return {n: -n} if n.floating else None


def gate_swap(graph, backward, rng):
    """A gate's value in the place of another gate's, at the same step."""
    gates = {n: label for label, n in graph.labels.items() if not label.name.startswith("d") and label.step is not None}
    users = [n for n in backward if any(s in gates for s in n.src)]
    n = rng.choice(users)
    i = rng.choice([i for i, s in enumerate(n.src) if s in gates])
    label = gates[n.src[i]]
    others = [m for m, other in gates.items() if other.step == label.step and other.name != label.name and m.shape == n.src[i].shape]
    return {n: with_source(n, i, rng.choice(others))} if others else None


def dropped_term(graph, backward, rng):
    sums = [n for n in backward if n.op.name in ("add_n", "add")]
    n = rng.choice(sums)
    drop = rng.integers(len(n.src))
    kept = [s for i, s in enumerate(n.src) if i != drop]
    return {n: add_n(kept)} if kept[0].shape == n.shape else None


def wrong_step(graph, backward, rng):
    """A value of another step."""
    names = {n: label for label, n in graph.labels.items()}
    users = [n for n in backward if any(s in names for s in n.src)]
    n = rng.choice(users)
    i = rng.choice([i for i, s in enumerate(n.src) if s in names])
    label = names[n.src[i]]
    other = graph.labels.get(Label(label.name, (label.step or 0) + rng.choice([-1, 1]), label.cell))
    return None if other is None or other.shape != n.src[i].shape else {n: with_source(n, i, other)}


def transposed_weight(graph, backward, rng):
    parameters = {n for k, n in graph.inputs.items() if "[" not in k and n.ndim == 2 and n.shape[0] == n.shape[1]}
    users = [n for n in backward if n.op.name == "matmul" and any(s in parameters for s in n.src)]
    if not users:
        return None
    n = rng.choice(users)
    i = next(i for i, s in enumerate(n.src) if s in parameters)
    return {n: with_source(n, i, swap_last(n.src[i]))}


def missing_sum_over_time(graph, backward, rng):
    name = rng.choice([k for k, n in graph.outputs.items() if k.startswith("dloss/d") and n.op.name == "add_n"])
    n = graph.outputs[name]
    return {n: n.src[rng.integers(len(n.src))]}


KINDS = (sign, gate_swap, dropped_term, wrong_step, transposed_weight, missing_sum_over_time)


def with_source(n, i, other):
    return apply(n.op, (*n.src[:i], other, *n.src[i + 1:]), n.at)


def mutant(graph, kind, rng):
    """The graph with one bug in its backward part, or None where this kind does not apply."""
    forward = set(walk([graph.outputs["loss"]]))
    backward = [n for n in graph.nodes if n not in forward and n.src and n.floating]
    change = kind(graph, backward, rng)
    if change is None:
        return None
    (old, replacement), = change.items()
    keep = set(walk([replacement]))
    new = {n: n for n in keep} | {old: replacement}
    rebuild(graph.nodes, new)
    steps = {**{new[n]: t for n, t in graph.steps.items() if n in new}}
    labels = {k: new.get(n, n) for k, n in graph.labels.items()}
    return Graph({k: new[n] for k, n in graph.outputs.items()}, labels, steps)


# ---- random cells

FUNCTIONS = ["tanh", "sigmoid", "sin", "relu", "softplus", "exp_", "abs", "softmax", "layer_norm", "cos", "div"]


def random_cell(rng):
    """A random system of one or two states and up to three gates, every name used."""
    states = ["h", "c"][: rng.integers(1, 3)]
    past = [f"{s}[t-1]" for s in states]
    lines, here, counter = [], [], iter(range(100))

    def linear(operand):
        return f"W{next(counter)} @ {operand}"

    def expression(depth):
        kind = rng.integers(7 if depth else 3)
        if kind == 0:
            return f"({linear('x[t]')} + {linear(rng.choice(past))} + b{next(counter)})"
        if kind == 1:
            return rng.choice(past + here)
        if kind == 2:
            return f"({linear(rng.choice(past + here))})"
        if kind == 3:
            return f"{function()}({expression(depth - 1)})" if rng.random() < 0.7 else f"(1 - {expression(depth - 1)})"
        if kind == 4:
            return f"({expression(depth - 1)} * {expression(depth - 1)})"
        if kind == 5:
            return f"({expression(depth - 1)} {rng.choice(['+', '-'])} {expression(depth - 1)})"
        return f"maximum({expression(depth - 1)}, {expression(depth - 1)})"

    def function():
        return rng.choice(["tanh", "sigmoid", "sin", "relu", "softplus", "softmax", "tanh", "sigmoid"])

    for gate in ["f", "g", "o"][: rng.integers(0, 4)]:
        lines.append(f"{gate}[t] = {function()}({expression(2)} + {linear('x[t]')})")
        here.append(f"{gate}[t]")
    for s in states:
        used = " + ".join(here) if here else linear("x[t]")
        lines.append(f"{s}[t] = tanh({expression(2)} + {linear(rng.choice(past))} + {linear('x[t]')}) + 0.5 * ({used}) * {s}[t-1]")
    lines.append(f"outputs: {', '.join(states)}")
    return tr.Cell("\n".join(lines), "random")


def values(graph, rng):
    return {k: np.asarray(rng.normal(size=n.shape)) for k, n in graph.inputs.items()}
