"""The house: imports run downwards, heavy libraries wait, the contract's names exist."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path

import tinyrnn
from tinyrnn import door

ROOT = Path(tinyrnn.__file__).parent
# Rooms (packages and modules of the top level) from the ground up: a room imports from floors below its own, and from itself.
FLOORS = [{"errors", "door", "version"}, {"sizes"}, {"shapes", "files", "locks", "trees", "operators", "functions", "search", "types"}, {"ir"},
          {"domains", "passes"}, {"backends", "cells"}, {"symbolic"}, {"tensor"}, {"model", "losses", "optim", "io"},
          {"analysis", "serve"}, {"train", "viz"}, {"nn"}, {"datasets", "testing", "teaching", "exchange"}, {"torch", "jax"},
          {"tour", "bench"}, {"cli"}, {"__main__"}]
DOOR = "tinyrnn.door"  # imports upwards, by a table; the package itself imports what it hands out


def modules():
    return {".".join(("tinyrnn", *p.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): p
            for p in ROOT.rglob("*.py")}


def imports(name, path, files, by_names=True):
    """Pairs (imported module of ours, whether inside a function); modules that are imported by their names are some as well."""
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
        elif by_names and isinstance(n, ast.Call) and ast.unparse(n.func).endswith("import_module"):
            yield from ((target, False) for target in by_name(n.args[0], package) if target in files)


def by_name(argument, package):
    """The modules that an argument of import_module may mean: all that begin like it, where its end is computed."""
    if isinstance(argument, ast.Constant):
        return [resolve_name(argument.value, package)]
    first = argument.values[0] if isinstance(argument, ast.JoinedStr) else None
    start = first.value if isinstance(first, ast.Constant) else ""
    return [m for m in modules() if start.startswith("tinyrnn.") and m.startswith(start)]


def floor(module):
    room = module.split(".")[1:2]
    return next((i for i, rooms in enumerate(FLOORS) if room and room[0] in rooms), None)


def test_every_room_stands_on_a_floor():
    assert [m for m in modules() if m != "tinyrnn" and floor(m) is None] == []


def test_imports_run_downwards():
    files = modules()
    for name, path in files.items():
        for target, inside in imports(name, path, files):
            assert not inside, f"{name} imports {target} inside a function"
            if name not in ("tinyrnn", DOOR) and target != "tinyrnn" and target.split(".")[1] != name.split(".")[1]:
                assert floor(target) < floor(name), f"{name} imports {target} from its own floor or from above"


def test_the_floors_are_seen(tmp_path):
    """An import that runs up is found however it is written."""
    files = modules()
    for code in ("from ..nn import module", "from ..nn.module import Module", "import_module('tinyrnn.nn.module')",
                 "import_module('..nn.module')", "import_module(f'tinyrnn.nn.{what}')", "importlib.import_module('tinyrnn.nn.load')"):
        path = tmp_path / "made_up.py"
        path.write_text(code)
        assert any(floor(t) > floor("tinyrnn.ir.made_up") for t, _ in imports("tinyrnn.ir.made_up", path, files)), code


def test_the_door_leads_where_it_says():
    assert all(m == name or hasattr(import_module(f"tinyrnn.{m}"), name) for table in (door.PUBLIC, door.INNER) for name, m in table.items())
    asked = {n.args[0].value for path in ROOT.rglob("*.py") for n in ast.walk(ast.parse(path.read_text()))
             if isinstance(n, ast.Call) and ast.unparse(n.func) == "behind" and isinstance(n.args[0], ast.Constant)}
    assert set(door.INNER) <= asked <= {*door.PUBLIC, *door.INNER}


def test_no_two_public_classes_have_one_name():
    found = {}
    for name, path in modules().items():
        for n in ast.walk(ast.parse(path.read_text())):
            if isinstance(n, ast.ClassDef) and not n.name.startswith("_"):
                found.setdefault(n.name, []).append(name)
    assert {k: v for k, v in found.items() if len(v) > 1} == {}


def test_no_import_cycles():
    files = modules()
    edges = {n: {t for t, _ in imports(n, p, files, by_names=False)} for n, p in files.items()}
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
                start = f.body[0].end_lineno if ast.get_docstring(f) else f.lineno
                assert f.end_lineno - start < 50, f"{path}: {f.name}"


def test_heavy_libraries_are_imported_on_first_use():
    code = ("import sys, tinyrnn; heavy = {'sympy', 'networkx', 'graphviz', 'llvmlite', 'cupy', 'matplotlib', 'safetensors',"
            " 'tqdm', 'torch', 'jax', 'h5py'}; print(sorted(heavy & set(sys.modules)))")
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


def test_the_map_names_files_that_are_there():
    """docs/layout.md: paths from the package's folder, or the name of a file in the room of its row."""
    named = re.findall(r"`([\w/]+\.py)`", (ROOT.parent / "docs" / "layout.md").read_text(encoding="utf-8"))
    files = [p.relative_to(ROOT.parent).as_posix() for p in (*ROOT.rglob("*.py"), *ROOT.parent.glob("tinyrnn_tests/*.py"))]
    assert len(named) > 60
    assert not [n for n in named if not any(f.endswith("/" + n) or f == n for f in files)]
