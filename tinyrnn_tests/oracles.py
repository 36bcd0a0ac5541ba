"""The checks that tests share.  Each asserts; none returns a verdict that could be dropped."""

from __future__ import annotations

import numpy as np

from tinyrnn.domains import COMPLEX_STEP
from tinyrnn.domains.complex_step import STEP
from tinyrnn.ir import Graph, check
from tinyrnn.ir.ops.leaves import input_node
from tinyrnn.ir.ops.linear import sum_
from tinyrnn.passes import grad, jvp

TOLERANCE = 1e-11


def assert_close(found, expected, tolerance=TOLERANCE, what=""):
    """Equal up to a share of the expected array's largest entry."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, expected {expected.shape}"
    if expected.size:
        scale = np.abs(expected).max()
        deviation = np.abs(found - expected).max()
        assert deviation <= tolerance * max(scale, 1e-300), f"{what}: off by {deviation:.2e} of {scale:.2e}"


def along(graph, values, directions):
    """Every output's derivative along directions of the inputs, by one complex step."""
    moved = {k: v + 1j * STEP * directions[k] if k in directions else v for k, v in values.items()}
    return {k: np.imag(y) / STEP for k, y in graph.run(moved, domain=COMPLEX_STEP).items()}


def entrywise(graph, values, name, output="loss"):
    """dloss/dname, entry by entry, by complex step."""
    at = np.asarray(values[name], float)
    g = np.zeros(at.shape)
    for i in np.ndindex(at.shape):
        direction = np.zeros(at.shape)
        direction[i] = 1.0
        g[i] = along(graph, values, {name: direction})[output]
    return g


def check_function(build, shapes, values=None, rng=0, dtypes=None):
    """A function of nodes: vjp (all entries), jvp, and second order, against complex step."""
    generator = np.random.default_rng(rng)
    dtypes = dtypes or {}
    nodes = {k: input_node(k, s, dtypes.get(k, np.float64)) for k, s in shapes.items()}
    values = values or {}
    given = {k: np.asarray(values[k]) if k in values else generator.normal(size=s) for k, s in shapes.items()}
    y = build(**nodes)
    weights = input_node("weights", y.shape)
    given["weights"] = generator.normal(size=y.shape)
    loss = sum_(weights * y)
    moving = [k for k, n in nodes.items() if n.floating]
    gradients = grad(loss, [nodes[k] for k in moving])
    graph = check(Graph({"loss": loss, "y": y, **{f"d{k}": g for k, g in zip(moving, gradients, strict=True)}}))
    found = graph.run(given)
    for k in moving:
        assert found[f"d{k}"].dtype == np.float64
        assert_close(found[f"d{k}"], entrywise(graph, given, k), what=f"gradient of {k}")
    check_tangents(graph, nodes, moving, given, generator)


def check_tangents(graph, nodes, moving, given, generator):
    """jvp of every output, gradients included (second order), against complex step along a random direction."""
    directions = {k: generator.normal(size=nodes[k].shape) for k in moving}
    tangents = {nodes[k]: input_node(f"tangent {k}", nodes[k].shape) for k in moving}
    names = list(graph.outputs)
    moved = check(Graph(dict(zip(names, jvp([graph.outputs[k] for k in names], tangents), strict=True))))
    values = {**given, **{f"tangent {k}": d for k, d in directions.items()}}
    found = moved.run({k: v for k, v in values.items() if k in moved.inputs})
    expected = along(graph, given, directions)
    for k in names:
        scale = max(np.abs(expected[k]).max(initial=0.0), 1e-3)
        assert np.abs(found[k] - expected[k]).max(initial=0.0) <= 10 * TOLERANCE * scale, f"jvp of {k}"


def random_inputs(graph, rng=0, scale=0.7):
    """Unequal random numbers for every floating input."""
    generator = np.random.default_rng(rng)
    return {k: generator.normal(scale=scale, size=n.shape) for k, n in graph.inputs.items()}


def check_unrolled_cell(cell, steps=4, **sizes):
    """Every gradient of an unrolled cell, all entries, under an unequal weighting of its outputs."""
    generator = np.random.default_rng(5)
    import tinyrnn as tr

    def loss(outputs):
        parts = [y for o in outputs for y in (o.values() if isinstance(o, dict) else [o])]
        weighted = [(tr.tensor(generator.normal(size=y.shape)) * y + tr.sin(y)).sum() for y in parts]
        return sum(weighted[1:], weighted[0])

    graph = check(cell.unroll(steps, loss=loss, gradients=True, batch=2, **sizes))
    values = random_inputs(graph, rng=3, scale=0.6)
    found = graph.run(values)
    only = Graph({"loss": graph.outputs["loss"]})
    used = {k: v for k, v in values.items() if k in only.inputs}
    for name in (k.removeprefix("dloss/d") for k in graph.outputs if k.startswith("dloss/d")):
        expected = entrywise(only, used, name) if name in used else np.zeros_like(values.get(name, 0.0))
        if name in used:
            assert_close(found[f"dloss/d{name}"], expected, what=f"{cell.name}: {name}")
        else:
            assert not found[f"dloss/d{name}"].any()


