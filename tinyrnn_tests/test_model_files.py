"""Files of models: versions, classes of one's own, and what `tinyrnn inspect` says of them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.cli import main
from tinyrnn.errors import ArgumentError, LoadError

OLD = Path(__file__).parent / "files" / "model_0_1.safetensors"  # written by version 0.1; beside it what it gave for what
OWN = '''
import tinyrnn as tr

print("imported")

class Halved(tr.nn.Module):
    def __init__(self, layer_size):
        self.inner = tr.nn.Linear(layer_size, 2, rng=0)

    def config(self):
        return {"layer_size": self.inner.weight.shape[1]}

    def __call__(self, x):
        return self.inner(x) / 2

class Silent(tr.nn.Linear):
    pass

class Broken(Halved):
    def config(self):
        return {"layer_size": "much"}

not_a_layer = dict
'''


def edited(file, to, **changes):
    arrays, metadata = tr.io.read_weights(file)
    metadata.pop("sum")
    tr.io.write_weights(to, arrays, {k: v for k, v in {**metadata, **changes}.items() if v is not None})
    return to


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_layers_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__("own_layers_of_a_test")
    sys.modules.pop("own_layers_of_a_test", None)


def test_files_of_version_0_1():
    model, was = tr.load(OLD), np.load(OLD.with_suffix(".npz"))
    np.testing.assert_allclose(model.predict(was["x"]), was["y"], rtol=1e-5, atol=1e-6)
    assert model.layers[1].cell.title == "Own"


def test_files_say_who_wrote_them(tmp_path):
    tr.nn.Linear(2, 3, rng=0).save(tmp_path / "m.safetensors")
    metadata = tr.io.read_weights(tmp_path / "m.safetensors")[1]
    assert (metadata["tinyrnn"], metadata["version"]) == ("1", tr.__version__)
    text = (Path(tr.__file__).parent.parent / "pyproject.toml").read_text()
    assert f'version = "{tr.__version__}"' in text


def test_files_of_a_newer_version_are_refused(tmp_path):
    tr.nn.Linear(2, 3, rng=0).save(tmp_path / "m.safetensors")
    newer = edited(tmp_path / "m.safetensors", tmp_path / "n.safetensors", tinyrnn="2", version="7.3")
    with pytest.raises(LoadError, match=r"n\.safetensors has format '2', of tinyrnn 7\.3; tinyrnn 0\.1\.0 reads format '1': install"):
        tr.load(newer)


# ---- classes of one's own

def test_own_classes_are_imported_where_that_is_allowed(own, tmp_path):
    model = tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Last(), own.Halved(4))
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(LoadError, match=r"'own_layers_of_a_test:Halved'.*tr\.load\(file, allow=\['own_layers_of_a_test'\]\)"):
        tr.load(tmp_path / "m.safetensors")
    x = np.ones((2, 5, 3), "float32")
    again = tr.load(tmp_path / "m.safetensors", allow=["own_layers_of_a_test"])
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    with pytest.raises(LoadError, match="allow="):  # for that one call
        tr.load(tmp_path / "m.safetensors")


def test_nothing_is_imported_unasked(own, tmp_path):
    """In a new process: neither by `load`, nor by `inspect`, nor for a module whose name begins the same."""
    own.Halved(4).save(tmp_path / "m.safetensors")
    code = ("import sys, tinyrnn as tr\nfrom tinyrnn.cli import main\n"
            f"file = {str(tmp_path / 'm.safetensors')!r}\n"
            "for allow in ([], ['own_layers'], ['own_layers_of_a_test.x']):\n"
            "    try:\n        tr.load(file, allow=allow)\n    except tr.TinyRNNError:\n        pass\n"
            "main(['inspect', file])\nassert 'own_layers_of_a_test' not in sys.modules\n"
            "tr.load(file, allow=['own_layers_of_a_test'])\n")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines().count("imported") == 1
    assert "not built: " in run.stdout
    assert "inner.weight  float32 [2,4]" in run.stdout


def test_what_says_nothing_of_itself_is_saved_as_weights(own, tmp_path):
    own.Silent(2, 3, rng=0).save(tmp_path / "m.safetensors")
    with pytest.raises(LoadError, match="without a description"):
        tr.load(tmp_path / "m.safetensors", allow=["own_layers_of_a_test"])


@pytest.mark.parametrize(("kind", "says"), [
    ("own_layers_of_a_test:not_a_layer", "no class of layers"), ("own_layers_of_a_test:Silent", "no class of layers"),
    ("own_layers_of_a_test:Missing", "was not found: AttributeError"), ("own_layers_of_a_test:tr.nn.Linear", "no class of layers"),
    ("no_such_module_at_all:X", "was not found: ModuleNotFoundError"), ("own_layers_of_a_test:", "was not found"),
    ("own_layers_of_a_test:Broken", "is not sound"), (":", "allow="), ("os:system", "allow="),
    ("own_layers_of_a_test:Halved:x", "was not found")])
def test_names_in_files_are_looked_at_with_suspicion(kind, says, own, tmp_path):
    own.Halved(4).save(tmp_path / "m.safetensors")
    form = {"kind": kind, "layer_size": "much" if "Broken" in kind else 4}
    bad = edited(tmp_path / "m.safetensors", tmp_path / "b.safetensors", model=json.dumps(form))
    with pytest.raises(LoadError, match=says):
        tr.load(bad, allow=["own_layers_of_a_test", "no_such_module_at_all"])


@pytest.mark.parametrize("allow", ["own_layers_of_a_test", [3], None])
def test_what_is_allowed_is_a_list_of_names(allow, tmp_path):
    tr.nn.Linear(2, 3, rng=0).save(tmp_path / "m.safetensors")
    with pytest.raises(ArgumentError, match=r"expected a list of names"):
        tr.load(tmp_path / "m.safetensors", allow=allow)


# ---- tinyrnn inspect

def test_inspect_a_model(capsys, tmp_path):
    assert main(["inspect", str(OLD), "-o", str(tmp_path / "m.svg")]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{OLD}: a model of tinyrnn 0.1.0, format 1\n")
    for line in ("layers.1           Recurrent      W [4,4], U [4,3], b [4]", "656 parameters", "layers.1: Own",
                 "  h[t] = tanh(W @ h[t-1] + U @ x[t] + b)", "layers.3.forward, layers.3.backward: Gated recurrent unit, reset before"):
        assert line in said
    assert (tmp_path / "m.svg").read_text().startswith("<")


def test_inspect_weights_of_others(capsys, tmp_path):
    tr.io.write_weights(tmp_path / "w.safetensors", {"lstm.weight_ih_l0": np.ones((16, 3), "float32"), "b": np.ones(3)},
                        {"by": "some\x1b[31mone", "long": "x" * 1000})
    assert main(["inspect", str(tmp_path / "w.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "w.safetensors: weights\n" in said
    assert "lstm.weight_ih_l0  float32 [16,3]" in said
    assert "51 numbers in 2 arrays" in said
    assert r"some\x1b[31mone" in said
    assert "x" * 200 + "...\n" in said
    assert main(["inspect", str(tmp_path / "w.safetensors"), "-o", str(tmp_path / "w.svg")]) == 2
    assert "holds no model that can be drawn" in capsys.readouterr().err


def test_inspect_a_checkpoint(capsys, tmp_path):
    model, x = tr.nn.Sequential(tr.nn.Linear(2, 3, rng=0)), np.ones((4, 2), "float32")
    model.fit(x, x[:, :1] @ np.ones((1, 3), "float32"), loss="mse", optimizer=tr.optim.SGD(0.1), resume=tmp_path / "run", rng=0)
    assert main(["inspect", str(tmp_path / "run" / "checkpoint.safetensors")]) == 0
    assert "where a training run of tinyrnn stood" in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x04K\x01.", b"\xff" * 64])
def test_inspect_what_is_none(data, capsys, tmp_path):
    (tmp_path / "x").write_bytes(data)
    assert main(["inspect", str(tmp_path / "x")]) == 2
    assert "not a safetensors file" in capsys.readouterr().err


def test_inspect_a_damaged_model(capsys, tmp_path):
    tr.nn.Linear(2, 3, rng=0).save(tmp_path / "m.safetensors")
    bad = edited(tmp_path / "m.safetensors", tmp_path / "b.safetensors", model='{"kind": "Nothing"}')
    assert main(["inspect", str(bad)]) == 0
    assert "not built: " in capsys.readouterr().out
