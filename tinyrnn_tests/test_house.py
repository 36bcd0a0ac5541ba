"""The house: imports run downwards, heavy libraries wait, the contract's names exist."""

import ast
import subprocess
import sys
from pathlib import Path

import tinyrnn

ROOT = Path(tinyrnn.__file__).parent
FLOORS = [{"errors", "shapes", "files", "locks", "trees"}, {"ir"}, {"domains", "cells", "passes"}, {"backends", "symbolic"},
          {"tensor", "tracing", "functional", "compile", "losses", "randomness", "padding", "signatures", "optim", "io", "train", "nn", "datasets", "testing"},
          {"analysis", "viz"},
          {"bench", "tour", "cli", "__main__"}]


def modules():
    return {".".join(("tinyrnn", *p.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): p
            for p in ROOT.rglob("*.py")}


def imports(name, path, files):
    """Pairs (imported module of ours, whether inside a function)."""
    tree = ast.parse(path.read_text())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - n.level + 1]) if n.level else ""
            head = ".".join(x for x in (base, n.module or "") if x)
            for a in n.names:
                target = f"{head}.{a.name}" if f"{head}.{a.name}" in files else head
                if target in files and target != name:
                    yield target, id(n) in inner


def floor(module):
    part = module.split(".")[1:2]
    return next((i for i, names in enumerate(FLOORS) if part and part[0] in names), None)


def test_imports_run_downwards():
    files = modules()
    for name, path in files.items():
        for target, inside in imports(name, path, files):
            assert not inside, f"{name} imports {target} inside a function"
            if name != "tinyrnn" and floor(target) is not None:
                assert floor(name) is not None, f"{name} stands on no floor"
                assert floor(target) <= floor(name), f"{name} imports {target} from above"


def test_no_import_cycles():
    files = modules()
    edges = {n: {t for t, _ in imports(n, p, files)} for n, p in files.items()}
    done, path = set(), []

    def visit(n):
        assert n not in path, f"cycle: {' -> '.join([*path[path.index(n):], n])}"
        if n not in done:
            path.append(n)
            for t in edges[n]:
                visit(t)
            path.pop()
            done.add(n)

    for n in files:
        visit(n)


def test_functions_and_files_stay_short():
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 560, path
        for f in ast.walk(ast.parse(text)):
            if isinstance(f, ast.FunctionDef):
                assert f.end_lineno - f.lineno < 50, f"{path}: {f.name}"


def test_heavy_libraries_are_imported_on_first_use():
    code = ("import sys, tinyrnn; heavy = {'sympy', 'networkx', 'graphviz', 'llvmlite', 'cupy', 'matplotlib', 'safetensors',"
            " 'tqdm', 'torch'}; print(sorted(heavy & set(sys.modules)))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_public_names():
    for name in ("tensor parameter input grad value_and_grad jvp jacobian hessian remat stop_gradient Graph StaleError exp log "
                 "log1p expm1 sqrt abs tanh sigmoid relu softplus sin cos maximum minimum softmax log_softmax logsumexp where "
                 "outer einsum gather one_hot argmax cumsum clip broadcast_to pad flip var astype layer_norm concat stack split "
                 "scan sum mean max min reshape transpose Cell cells TinyRNNError EquationError ProofError load draw derive prove equivalent "
                 "Derivation Proof Equivalence analyze Report xray XRay leaks LeakReport page Page Drawing").split():
        assert hasattr(tinyrnn, name), name
    for name in ("Module Embedding RNN LSTM GRU Recurrent Bidirectional Linear Dropout LayerNorm Sequential Last Lambda Repeat Pool "
                 "EncoderDecoder Attention mse bce bce_with_logits nll cross_entropy init").split():
        assert hasattr(tinyrnn.nn, name), name
    for name in "SGD RMSprop Adagrad Adam AdamW Constant StepDecay Cosine WarmUp Plateau".split():
        assert hasattr(tinyrnn.optim, name), name
    for name in "fit evaluate predict generate History Callback EarlyStopping BestWeights Log StopTraining f1 pad_rows".split():
        assert hasattr(tinyrnn.train, name), name


def test_public_functions_say_what_they_do():
    for name, value in vars(tinyrnn).items():
        if callable(value) and not name.startswith("_"):
            assert value.__doc__, name
