"""The command line: what it writes, prints, and returns."""

import json
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


def test_lenses(tmp_path, capsys):
    out = tmp_path / "x.html"
    assert main(["page", "mgu", "--steps", "3", "--size", "x=2", "--size", "h=3", "-o", str(out)]) == 0
    assert out.read_text().startswith("<!doctype html>")
    assert main(["analyze", "gru", "-o", str(tmp_path / "a.json")]) == 0
    assert "7.9e69" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["paths"]["h[0]"]["paths"] == 5**100
    assert main(["xray", "lstm", "--steps", "12", "-o", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert "dL/dc comes by" in capsys.readouterr().out
    for show in ("heat", "1,2,-1", "all"):
        assert main(["draw", "rnn", "--steps", "9", "--gradients", "--show", show, "--loss", "last", "--theme", "print", "-o",
                     str(tmp_path / "r.svg")]) == 0
    assert main(["draw", "rnn", "--steps", "9", "--show", "few"]) == 2
    assert main(["page", "mgu", "--steps", "99", "-o", str(out)]) == 2


def test_doctor_without_the_optional_parts(monkeypatch, capsys):
    monkeypatch.setenv("TINYRNN_DOT", "nowhere")
    monkeypatch.setattr("tinyrnn.cli.find_spec", lambda name: None)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "pictures (SVG, HTML): missing: TINYRNN_DOT='nowhere' is not a program" in said
    assert "PDF: missing: pip install 'tinyrnn[pdf]'" in said
    assert "PNG: missing: pip install resvg-py" in said
    assert "plots: missing: pip install 'tinyrnn[plot]'" in said


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
    said = capsys.readouterr().out
    assert "pictures (SVG, HTML): ready, " in said
    assert "graphviz" in said.partition("pictures")[2].partition("\n")[0]
    assert "PDF: ready" in said


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
    assert datasets.name_rows(["ab"]) == [[0, 1, 2, 0]]


def test_prove_writes_a_certificate_and_checks_it(tmp_path, capsys):
    file = tmp_path / "gru.json"
    assert main(["prove", "gru", "--size", "x=2", "--size", "h=3", "--steps", "4", "--batch", "2", "-o", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "proved" in printed
    assert "steps=4, batch=2, x=2, h=3" in printed
    assert main(["prove", "--check", str(file)]) == 0
    assert capsys.readouterr().out.count("good: ") == 2
    text = file.read_text()
    file.write_text(text.replace('["sigmoid"', '["tanh"', 1))
    assert main(["prove", "--check", str(file)]) == 1
    assert "is not the loss of the equations" in capsys.readouterr().err
    file.write_text(text[:-100])
    assert main(["prove", "--check", str(file)]) == 2
    assert "is not a certificate" in capsys.readouterr().err


def test_what_is_not_proved_returns_one(tmp_path, capsys):
    cell = tmp_path / "squares.cell"
    cell.write_text("h[t] = h[t-1] ** 2 + x[t]\n")
    assert main(["prove", str(cell), "--steps", "70", "--batch", "1"]) == 1
    assert "NOT PROVED" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["prove"], ["prove", "rnn", "--size", "h"], ["prove", "rnn", "--size", "q=3"], ["prove", "none"],
                                       ["prove", "--check", "none.json"], ["derive", "none"], ["derive", "rnn", "-o", "x.pdf"],
                                       ["equivalent", "rnn", "none"], ["equivalent", "gru", "gru", "--map", "W"],
                                       ["equivalent", "gru", "gru", "--map", "q=W_ir"], ["published", "none"]])
def test_bad_use_of_the_new_commands_returns_two(arguments, capsys):
    assert main(arguments) == 2
    assert "tinyrnn: " in capsys.readouterr().err


def test_equivalent(capsys):
    assert main(["equivalent", "gru", "gru"]) == 0
    assert "equal" in capsys.readouterr().out
    assert main(["equivalent", "gru", "gru_lecture"]) == 1
    printed = capsys.readouterr().out
    assert "r[t] * b_hn" in printed
    assert "counterexample: after one step" in printed
    maps = [x for p in ("W_iz", "b_iz", "W_hz", "b_hz") for x in ("--map", f"{p}=-{p}")]
    assert main(["equivalent", "gru", "gru", *maps]) == 1
    assert "they differ under the given mapping" in capsys.readouterr().out


def test_derive_and_published(tmp_path, capsys):
    assert main(["derive", "rnn"]) == 0
    assert "dL/da_h[t] = dL/dh[t] * (1 - h[t] ** 2)" in capsys.readouterr().out
    assert main(["derive", "rnn", "--form", "latex"]) == 0
    assert r"\begin{align*}" in capsys.readouterr().out
    for ending in ("md", "tex", "html", "ipynb"):
        assert main(["derive", "lstm", "-o", str(tmp_path / f"lstm.{ending}")]) == 0
    assert len(list(tmp_path.iterdir())) == 4
    capsys.readouterr()
    assert main(["published", "r_rnn_rnn", "greff_2017"]) == 0
    printed = capsys.readouterr().out
    assert "agrees with the derivative as printed" in printed
    assert "agrees after 1 correction, which is necessary" in printed
