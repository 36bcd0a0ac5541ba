"""The command line: what it writes, prints, and returns."""

import re
import subprocess
import sys

import pytest

import tinyrnn as tr
from tinyrnn import datasets
from tinyrnn.cli import main


def test_draw(tmp_path, capsys):
    out = tmp_path / "gru.svg"
    assert main(["draw", "gru", "--steps", "2", "--gradients", "-o", str(out)]) == 0
    assert out.read_text().startswith("<svg")
    assert capsys.readouterr().out.strip() == str(out)
    own = tmp_path / "own.cell"
    own.write_text("# Mine\nh[t] = tanh(W @ x[t] + U @ h[t-1])\n")
    assert main(["draw", str(own), "-o", str(tmp_path / "own.png")]) == 0


def test_mistakes_return_two(tmp_path, capsys):
    assert main(["draw", "lstn"]) == 2
    assert "there is no cell 'lstn'" in capsys.readouterr().err
    bad = tmp_path / "bad.cell"
    bad.write_text("h[t] = tanh(")
    assert main(["draw", str(bad)]) == 2
    assert "line 1" in capsys.readouterr().err
    assert main(["draw", str(tmp_path / "none.cell")]) == 2
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_cells_and_doctor(capsys):
    assert main(["cells"]) == 0
    assert "gru_reset_before" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    assert "renderer: " in capsys.readouterr().out


@pytest.mark.slow
def test_short_tour(tmp_path):
    out = subprocess.run([sys.executable, "-m", "tinyrnn", "tour", "--short", "--out", str(tmp_path)], capture_output=True,
                         text=True, check=True)
    assert "FAILED" not in out.stdout
    assert "the LSTM beats the bigram" in out.stdout
    page = (tmp_path / "index.html").read_text()
    links = set(re.findall(r'(?:href|src)="([^"]+)"', page))
    assert links == {p.name for p in tmp_path.iterdir()} - {"index.html"}
    model = tr.load(tmp_path / "names.safetensors")
    assert model.generate([0], 3, rng=0).shape == (4,)


def test_names_are_real_and_split_by_name():
    names = datasets.first_names()
    assert len(names) == len(set(names)) > 5000
    assert {"mary", "james", "patricia"} <= set(names)
    train, test = datasets.split_names(names)
    assert not set(train) & set(test)
    assert len(train) + len(test) == len(names)
    x, y, lengths = datasets.encode_names(["ann"])
    assert x.tolist() == [[0, 1, 14, 14]]
    assert y.tolist() == [[1, 14, 14, 0]]
    assert lengths.tolist() == [4]
    assert datasets.decode_name(y[0]) == "ann"
    assert datasets.ngram_nats(["a"], ["a"], 2) == pytest.approx(-sum(map(__import__("math").log, (2 / 28, 2 / 28))) / 2)
