"""The pages about the compiler: every pass before and after, and one cell from its equations to its kernels."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np

import tinyrnn as tr
from tinyrnn.backends.plan.matmul import Blas
from tinyrnn.backends.plan.planner import plan_of
from tinyrnn.backends.plan.views import Call, Loop
from tinyrnn.tensor.compile import PIPELINE, Program

FOLDER = Path(__file__).parent / "compiler"
ROWS, STEPS = 2, 6


def _scanned() -> tr.Graph:
    """`h[t] = tanh(V x[t] + U h[t-1])`."""
    x, h = tr.input("x", (STEPS, ROWS, 3)), tr.input("h", (ROWS, 4))
    U, V = tr.input("U", (4, 4)), tr.input("V", (4, 3))
    _, ys = tr.scan(lambda s, v: (tr.tanh(v @ V.T + s @ U.T),) * 2, h, x)
    return tr.Graph({"h": ys})


def _learned() -> tr.Graph:
    """The gradient of U in `h[t] = tanh(x[t] + U h[t-1])`."""
    x, h, U = tr.input("x", (STEPS, ROWS, 4)), tr.input("h", (ROWS, 4)), tr.input("U", (4, 4))
    _, ys = tr.scan(lambda s, v: (tr.tanh(v + s @ U.T),) * 2, h, x)
    return tr.Graph({"dU": tr.grad((ys * ys).sum(), U)})


def _kept() -> tr.Graph:
    """A step whose derivative reads several values that follow from one another."""
    x, h = tr.input("x", (STEPS, ROWS, 4)), tr.input("h", (ROWS, 4))
    _, ys = tr.scan(lambda s, v: (v * tr.sin(s) * (1.0 - v * v),) * 2, h, x)
    return tr.Graph({"dh": tr.grad(ys.sum(), h)})


def _budgeted() -> tr.Graph:
    """The gradient of the first state, within 400 bytes."""
    x, h = tr.input("x", (STEPS, ROWS, 4)), tr.input("h", (ROWS, 4))
    _, ys = tr.scan(lambda s, v: (tr.tanh(v + s),) * 2, h, x, memory=400)
    return tr.Graph({"dh": tr.grad((ys * ys).sum(), h)})


def _joined() -> tr.Graph:
    h, x, W = tr.input("h", (ROWS, 4)), tr.input("x", (ROWS, 3)), tr.input("W", (5, 7))
    return tr.Graph({"y": tr.concat([h, x]) @ W.T})


def _gated() -> tr.Graph:
    h, A, B = tr.input("h", (ROWS, 4)), tr.input("W_i", (5, 4)), tr.input("W_f", (5, 4))
    return tr.Graph({"y": tr.sigmoid(h @ A.T) * tr.sigmoid(h @ B.T)})


def _moved() -> tr.Graph:
    x, W = tr.input("x", (ROWS, 4)), tr.input("W", (6, 4))
    return tr.Graph({"y": x @ tr.concat([W[:2].T, W[2:].T])})


def _elementwise() -> tr.Graph:
    a, b, c = (tr.input(k, (ROWS, 4)) for k in "abc")
    return tr.Graph({"y": tr.tanh(a * b + c) * c})


EXAMPLES = {"partition": _kept, "split_products": _joined, "checkpoint": _budgeted,
            "defer": _learned, "merge_products": _gated, "hoist": _scanned, "simplify": _moved,
            "fuse": _elementwise}


def passes() -> dict[Path, bytes]:
    """docs/compiler/passes.md and its pictures."""
    files: dict[Path, bytes] = {}
    out = ["# The passes",
           "A pass maps a graph to an equal graph. They run in this order, and `program.prove()` proves each of them for the "
           "programs at hand ([proofs](../proofs.md)). The texts are those of the modules in `tinyrnn/passes/`."]
    for name, transform in PIPELINE:
        before = EXAMPLES[name]()
        after = transform(before)
        assert str(before) != str(after), f"the example of {name} shows nothing"
        files[FOLDER / "images" / f"{name}.svg"] = tr.draw(before, after=after).svg.encode()
        text = inspect.cleandoc(sys.modules[f"tinyrnn.passes.{name}"].__doc__ or "")
        head, _, rest = text.partition("\n")
        out += [f"## {name}", f"{head[0].upper()}{head[1:]}" if head[0] != "`" else head, _blocks(rest),
                f"![{name}: before and after](images/{name}.svg)"]
    files[FOLDER / "passes.md"] = ("\n\n".join(out) + "\n").encode()
    return files


def _blocks(text: str) -> str:
    """Indented formulas as code blocks."""
    out: list[str] = []
    inside = False
    for line in text.strip("\n").splitlines():
        if line.startswith("    ") != inside and line.strip():
            out.append("```text" if not inside else "```")
            inside = not inside
        out.append(line[4:] if inside and line.strip() else line)
    return "\n".join([*out, "```"] if inside else out).replace("\n\n```\n", "\n```\n\n").strip()


def example() -> Program:
    """A training step of a GRU, compiled."""
    layer = tr.nn.Recurrent(tr.cells["gru_reset_before"], x=16, h=32, rng=0)
    parameters = dict(layer.named_parameters())

    def train(x: tr.Tensor, g: tr.Tensor) -> tuple[tr.Tensor, dict[str, tr.Tensor]]:
        y, _ = layer(x)
        loss = (y * g).sum()
        return loss, tr.grad(loss, parameters)

    return tr.compile(train).trace(np.ones((8, 20, 16), "f"), np.ones((8, 20, 32), "f"))


def walk_through() -> dict[Path, bytes]:
    """docs/compiler/index.md."""
    program = example()
    stages = ["| stage | nodes at the top | nodes in loops | products in loops |", "| --- | --: | --: | --: |"]
    for name, graph in program.stages:
        inner, products = _inside(graph)
        stages.append(f"| {name} | {len(graph)} | {inner} | {products} |")
    cost = program.cost
    kernels = ["| kernel or loop | operations | bytes | operations a byte |", "| --- | --: | --: | --: |"]
    for item in program.kernels:
        if item.flops > 20_000:
            kernels.append(f"| `{item.what}` | {item.flops:,} | {item.bytes:,} | {item.flops / item.bytes:.1f} |")
    text = (FOLDER / "template.md").read_text(encoding="utf-8")
    for key, value in {"CELL": str(tr.cells["gru_reset_before"]).strip(), "STAGES": "\n".join(stages),
                       "SOURCE": program.source, "KERNELS": "\n".join(kernels), "FLOPS": f"{cost.flops:,}",
                       "BYTES": f"{cost.bytes:,}", "MEMORY": f"{cost.memory:,}"}.items():
        text = text.replace(f"@{key}@", value)
    return {FOLDER / "index.md": text.encode()}


def _inside(graph: tr.Graph) -> tuple[int, int]:
    """How many nodes the bodies of scans hold, and how many of them are products."""
    nodes = products = 0
    for n in graph.nodes:
        if n.op.name == "scan":
            inner = tr.Graph({str(i): o for i, o in enumerate(n.at[0].outs)}).nodes
            nodes += len(inner)
            products += sum(m.op.name == "matmul" for m in inner)
    return nodes, products


UNLIKE = (11, 13, 17, 19)  # sizes whose sums and multiples tell which they are


def clusters() -> dict[Path, bytes]:
    """docs/compiler/clusters.md: what every cell does in a step, forward and backward."""
    rows = ["| cell | forward | backward | exchanges a step |", "| --- | --- | --- | --- |"]
    found = {name: _loops(name) for name in tr.cells.names()}
    order = ("one", "the input first", "none", "two")
    for name in sorted(found, key=lambda k: (order.index(_exchanges(k, found[k])), k)):
        ways = ["; ".join(_said(name, c) for c in loop.calls) for loop in found[name]]
        rows.append(f"| `{name}` | {ways[0]} | {ways[1]} | {_exchanges(name, found[name])} |")
    text = (FOLDER / "clusters_template.md").read_text(encoding="utf-8")
    return {FOLDER / "clusters.md": text.replace("@CELLS@", "\n".join(rows)).encode()}


def _loops(name: str) -> list[Loop]:
    """The loops over time in a training step of a layer."""
    cell = tr.cells[name]
    sizes = dict(zip(cell.sizes, UNLIKE, strict=False))
    layer = tr.nn.Recurrent(cell, **sizes, rng=0)
    parameters = dict(layer.named_parameters())

    def train(x: tr.Tensor) -> tuple[tr.Tensor, dict[str, tr.Tensor]]:
        y, _ = layer(x)
        loss = (y * y).sum() if isinstance(y, tr.Tensor) else sum((v * v).sum() for v in y.values())
        return loss, tr.grad(loss, {**parameters, "x": x})

    program = tr.compile(train, backend="numpy").trace(np.ones((ROWS, STEPS, sizes["x"]), "f"))
    return [item for item in plan_of(program.stages[-1][1], Blas()).items if isinstance(item, Loop)]


def _exchanges(name: str, loops: list[Loop]) -> str:
    products = [[c for c in loop.calls if c.family == "gemm"] for loop in loops]
    if any(len(p) > 1 for p in products):
        return "two"
    if not any(products):
        return "none"
    return "the input first" if any(" + " in _size(name, n) for p in products for c in p for n in c.sizes[1:]) else "one"


def _said(name: str, call: Call) -> str:
    """A product as terms → results; a row program as numbers read → operations → stored, a unit."""
    if call.family == "gemm":
        return " → ".join(f"{_size(name, n)}" for n in call.sizes[1:])
    program = call.key[0]
    assert not program.reduces
    return f"`{len(program.loads)} → {len(program.steps)} → {len(program.stores)}`"


def _size(name: str, n: int) -> str:
    """A width in sizes of the cell: `4h`, `h + x`."""
    sizes = dict(zip(tr.cells[name].sizes, UNLIKE, strict=False))
    whole = [f"{n // s if n > s else ''}{k}" for k, s in sizes.items() if n % s == 0]
    sums = [f"{a} + {b}" for a in sizes for b in sizes if a < b and sizes[a] + sizes[b] == n]
    return (whole or sums)[0]


def generated() -> dict[Path, bytes]:
    return {**passes(), **walk_through(), **clusters()}
