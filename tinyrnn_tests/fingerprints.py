"""What must not change by accident: the stages of programs, the text of their kernels, the methods of proofs, the pictures.

    python -m tinyrnn_tests.fingerprints                  writes fingerprints.json anew
    python -m tinyrnn_tests.fingerprints --texts FOLDER   writes the texts themselves: compare two versions with `diff -r`

Of every cell of the zoo and of ten models.  A text is equal on every machine: kernels are emitted for named processors,
numbers stand for their names (hashes of how the package calls things), and pictures hold no measured number.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

import numpy as np
from llvmlite import ir

import tinyrnn as tr
from tinyrnn.backends.cpu.driver import emit_driver
from tinyrnn.backends.cpu.engine import AVX2, BASELINE, Target
from tinyrnn.backends.cpu.runtime import emitter
from tinyrnn.backends.cuda.launch import kernel_keys, name_of, source_of
from tinyrnn.backends.cuda.source import PRELUDE
from tinyrnn.backends.executable import Planned
from tinyrnn.backends.plan.matmul import Blas
from tinyrnn.backends.plan.planner import plan_of
from tinyrnn.ir import Graph
from tinyrnn.tensor.randomness import new_key
from tinyrnn.train.task import Task

FILE = Path(__file__).with_name("fingerprints.json")
B, T, X, H, CLASSES = 3, 7, 4, 6, 5
LENGTHS = np.array([7, 2, 5])
TARGETS = {"avx512": Target("skylake-avx512", "", 64, 32), "avx2": AVX2, "baseline": BASELINE}
PICTURES = {"folded": {}, "unrolled": {"steps": 3}, "gradients": {"steps": 3, "gradients": True}}


def rows(*shape):
    return np.zeros(shape, np.float32)


def tokens(*shape):
    return np.zeros(shape, np.int64)


# ---- programs, traced and not run

def cell_program(cell):
    """The loss Σ y g of a cell over a sequence, with the gradient of every parameter and input."""
    sizes = dict(zip(cell.sizes, (X, H, 8, 9, 10), strict=False))
    layer = tr.nn.Recurrent(cell, sizes, rng=0, fixed={p: rows(*cell.shapes(sizes)[p]) for p in cell.fixed})
    parameters = dict(layer.named_parameters())
    x, g = ({n: rows(B, T, *cell.signal_shape(n, sizes)) for n in names} for names in (cell.inputs, cell.outputs))

    def train(x, g):
        y, _ = layer(x)
        outputs = y if isinstance(y, dict) else {cell.outputs[0]: y}
        loss = sum((outputs[n] * w).sum() for n, w in g.items())
        return loss, tr.grad(loss, {**parameters, **x})

    return tr.compile(train, backend="numpy").trace(x, g)


def models():
    """Ten models, and how `fit` trains each: model, x, y, lengths, options."""
    nn, optim, adam = tr.nn, tr.optim, tr.optim.Adam
    steps, whole, labels, marks = rows(B, T, X), tokens(B, T), tokens(B), tokens(B, T)
    ends = lambda *layers: nn.Sequential(*layers, nn.Last(), nn.Linear(H, CLASSES, rng=0))
    return {
        "classifier": (ends(nn.LSTM(X, H, rng=0)), steps, labels, None, {"optimizer": adam(0.01)}),
        "ragged": (ends(nn.GRU(X, H, rng=0)), steps, labels, LENGTHS, {"optimizer": adam(0.01)}),
        "language": (nn.Sequential(nn.Embedding(9, X, padding_idx=0, rng=0), nn.LSTM(X, H, num_layers=2, dropout=0.2, rng=0),
                                   nn.Linear(H, 9, rng=0)), whole, whole, LENGTHS,
                     {"optimizer": optim.AdamW(0.01, clip_norm=1.0)}),
        "both ways": (nn.Sequential(nn.RNN(X, H, bidirectional=True, rng=0), nn.Linear(2 * H, CLASSES, rng=0)), steps, marks,
                      LENGTHS, {"optimizer": optim.SGD(0.1, momentum=0.9), "metrics": ("accuracy",)}),
        "regression": (ends(nn.Recurrent("indrnn", x=X, h=H, rng=0), nn.LayerNorm(H)), steps, rows(B, CLASSES), None,
                       {"optimizer": optim.RMSprop(0.01), "loss": "mse"}),
        "noisy": (nn.Sequential(nn.GRU(X, H, zoneout=0.1, recurrent_dropout=0.2, rng=0), nn.Dropout(0.5, rng=0),
                                nn.Pool("mean"), nn.Linear(H, CLASSES, rng=0)), steps, labels, LENGTHS,
                  {"optimizer": adam(0.01)}),
        "streams": (nn.Sequential(nn.GRU(X, H, rng=0), nn.Linear(H, CLASSES, rng=0)), steps, marks, None,
                    {"optimizer": adam(0.01), "streams": True}),
        "gathered": (ends(nn.RNN(X, H, learn_state=True, rng=0)), steps, labels, None,
                     {"optimizer": adam(0.01), "accumulate": 2}),
        "translation": (nn.EncoderDecoder(9, 8, H, attention="dot", rng=0), (whole, tokens(B, T - 2)), tokens(B, T - 2), None,
                        {"optimizer": adam(0.01)}),
        "backwards": (nn.Sequential(nn.Bidirectional(nn.Recurrent("lstm_peephole", x=X, h=H, rng=0)),
                                    nn.Linear(2 * H, CLASSES, rng=0)), steps, marks, None, {"optimizer": optim.Adagrad(0.1)})}


def model_program(model, x, y, lengths, options):
    """A step of `fit`."""
    options = {"loss": "cross_entropy", "metrics": (), "backend": "numpy"} | options
    task = Task(model, **options)
    given = {"x": x, "y": y, "key": new_key(np.random.default_rng(0))}
    given |= {} if lengths is None else {"lengths": lengths}
    given |= {"state": None} if task.streams else {}
    if "accumulate" in options:
        return task.gathering_program.trace(**given, weight=np.float64(1))
    return task.training_program.trace(**given, numbers={k: np.float64(v) for k, v in task.optimizer.numbers(1).items()})


# ---- texts

def program_texts(program):
    """Each stage, the plans as pseudo-code, and the kernels for each processor and for a GPU."""
    found = {f"stage {name}": numbered(graph) for name, graph in program.stages}
    graph = program.stages[-1][1]
    plan, on_gpu = plan_of(graph), plan_of(graph, Blas())
    found["plan"], found["plan for a GPU"] = Listed(plan).source, Listed(on_gpu).source
    found |= {f"kernels {name}": llvm(plan, target) for name, target in TARGETS.items()}
    keys = kernel_keys(on_gpu.calls())
    names = {name_of(k): f"kernel_{i}" for i, k in enumerate(keys)}
    text = source_of(keys).removeprefix(PRELUDE)
    return {**found, "kernels cuda": re.sub("|".join(names), lambda m: names[m[0]], text)}


class Listed(Planned):
    """A plan that is only read."""

    def __init__(self, plan):
        self._plan = plan


def numbered(graph):
    """A graph as text; its outputs are numbered, so that what they are called is not part of it."""
    return str(Graph(dict(enumerate(graph.outputs.values()))))


def llvm(plan, target):
    """Every kernel of a plan, and the driver, as LLVM's language."""
    module = ir.Module("tinyrnn")
    module.triple = "x86_64-unknown-linux-gnu"
    emitters = {(c.family, *c.key): emitter(c, target) for c in plan.calls()}
    for i, emit in enumerate((emit_driver, *emitters.values())):
        emit(module, f"kernel_{i}")
    return str(module)


def cell_texts(cell):
    proof = tr.prove(cell, rng=1)
    methods = "\n".join(f"{c.what}: {c.method}, {c.sizes}" for c in proof.cases)
    return {**program_texts(cell_program(cell)), "proof": methods,
            **{f"picture {name}": cell.draw(**view).dot for name, view in PICTURES.items()}}


def texts(subject):
    """All texts of a cell or a model, by what they are."""
    kind, _, name = subject.partition(" ")
    if kind == "cell":
        return cell_texts(tr.cells[name])
    model, *given = models()[name]
    return {**program_texts(model_program(model, *given)), "picture": model.draw().dot}


SUBJECTS = [*(f"cell {n}" for n in tr.cells.names()), *(f"model {n}" for n in models())]


def fingerprints(subject):
    return {what: hashlib.sha256(text.encode()).hexdigest()[:16] for what, text in texts(subject).items()}


def main():
    p = argparse.ArgumentParser("tinyrnn_tests.fingerprints", description=__doc__.splitlines()[0])
    p.add_argument("--texts", metavar="FOLDER", type=Path, help="write the texts themselves, and no fingerprints")
    folder = p.parse_args().texts
    if folder is None:
        FILE.write_text(json.dumps({s: fingerprints(s) for s in SUBJECTS}, indent=1, ensure_ascii=False) + "\n")
        return
    for subject in SUBJECTS:
        place = folder / subject.replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        for what, text in texts(subject).items():
            (place / f"{what.replace(' ', '_')}.txt").write_text(text)


if __name__ == "__main__":
    main()
