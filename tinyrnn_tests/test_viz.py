"""Pictures: sound SVG, one cluster per step, parameters once, gradients apart, with and without a system Graphviz."""

import os
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import tinyrnn as tr
from tinyrnn.errors import DrawError
from tinyrnn.viz import renderer
from tinyrnn.viz.theme import DARK, LIGHT

from .test_equations import GOOD

PURE = str(Path(sys.executable).parent / "graphviz-pure")
SVG = "{http://www.w3.org/2000/svg}"
CELLS = {**{n: tr.cells[n] for n in tr.cells.names()}, **{n: tr.Cell(t, n) for n, t in GOOD.items()}}


@pytest.fixture(params=["pure", "system"])
def program(request, monkeypatch):
    if request.param == "system":
        if shutil.which("dot") is None:
            pytest.skip("there is no system Graphviz here")
        monkeypatch.setenv("TINYRNN_DOT", "dot")
    else:
        monkeypatch.setenv("TINYRNN_DOT", PURE)


def groups(svg, kind):
    return [g for g in ET.fromstring(svg).iter(f"{SVG}g") if g.get("class", "").split()[:1] == [kind]]


def texts(svg):
    return ["".join(t.itertext()) for t in ET.fromstring(svg).iter(f"{SVG}text")]


def test_folded(program):
    drawing = tr.cells.LSTM.draw()
    words = texts(drawing.svg)
    assert {"f   σ", "i   σ", "o   σ", "g   tanh"} <= {w.replace("\N{NO-BREAK SPACE}", " ") for w in words}
    assert words.count("z⁻¹") == 2
    assert sum(w.startswith("W_if") and "h × x" in w for w in words) == 1
    assert "xlink:href" not in drawing.svg


def test_unrolled_with_gradients(program):
    drawing = tr.cells.LSTM.draw(steps=3, gradients=True)
    svg = drawing.svg
    assert len(groups(svg, "cluster")) == 3
    words = texts(svg)
    assert [w for w in words if w.startswith("t = ")] == ["t = 1", "t = 2", "t = 3"]
    assert sum("parameters, shared by 3 steps" in w for w in words) == 1
    assert sum("W_if  h × x" in w.replace("\N{NO-BREAK SPACE}", " ") for w in words) == 1
    edges = groups(svg, "edge")
    backward = [e for e in edges if "backward" in e.get("class")]
    assert len(backward) * 2 == len(edges) - 1  # the last c leaves for nobody
    for e in backward:
        path = e.find(f"{SVG}path")
        assert path.get("stroke") == LIGHT["backward"]
        assert path.get("stroke-dasharray")
    ids = [g.get("id") for g in ET.fromstring(svg).iter(f"{SVG}g")]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_is_drawn(name):
    cell = CELLS[name]
    for options in ({}, {"steps": 2}, {"steps": 3, "gradients": True}):
        svg = tr.draw(cell, **options).svg
        shown = " ".join(texts(svg)).replace("\N{NO-BREAK SPACE}", " ")
        for p in cell.parameters:
            assert shown.split().count(p) > 1 or p in cell.learned, f"{name}: {p} stands only in the legend"
        for state in (*cell.states, *cell.outputs):
            assert any(w.startswith((f"{state}₁", f"{state}ₜ")) for w in texts(svg)), f"{name}: {state}"


def test_edges_end_at_things_that_exist():
    svg = tr.cells.GRU.draw(steps=2, gradients=True).svg
    nodes = {g.find(f"{SVG}title").text for g in groups(svg, "node")}
    for e in groups(svg, "edge"):
        assert set(e.find(f"{SVG}title").text.split("->")) <= nodes


def test_same_bytes_every_time(monkeypatch):
    monkeypatch.setenv("TINYRNN_DOT", PURE)
    assert tr.draw(tr.cells.GRU, steps=2).svg == tr.draw(tr.cells.GRU, steps=2).svg


def test_formats(tmp_path):
    drawing = tr.draw(tr.cells.GRU, tmp_path / "g.svg", steps=2)
    for ending, start in (("png", b"\x89PNG"), ("dot", b"digraph"), ("html", b"<!doctype html>"), ("txt", b"%0")):
        drawing.save(tmp_path / f"g.{ending}")
        assert (tmp_path / f"g.{ending}").read_bytes().startswith(start)
    assert set(drawing._repr_mimebundle_()) == {"image/svg+xml", "text/plain"}
    with pytest.raises(tr.TinyRNNError, match=r"use \.svg"):
        drawing.save(tmp_path / "g.gif")


def test_themes():
    auto, light, dark = (tr.draw(tr.cells.GRU, theme=t).svg for t in ("auto", "light", "dark"))
    assert "prefers-color-scheme: dark" in auto
    assert "prefers-color-scheme" not in light
    assert DARK["background"] in dark
    with pytest.raises(tr.TinyRNNError, match="theme='neon'"):
        tr.draw(tr.cells.GRU, theme="neon")


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable_on_every_fill(theme):
    for name in ("background", "panel", "input", "state", "gate", "function", "op", "loss", "legend", "gradient"):
        high, low = sorted((luminance(theme["text"]), luminance(theme[name])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_graphs_of_any_kind():
    x = tr.input("<script>alert(1)</script>\"\\", (2, 3))
    svg = tr.Graph({"y": tr.tanh(x).sum()}).draw().svg
    assert "<script>" not in svg
    ET.fromstring(svg)
    assert tr.cells.GRU.unroll(2, gradients=True).draw().svg
    with pytest.raises(tr.TinyRNNError, match="at most 3,000"):
        tr.cells.LSTM.unroll(200).draw()


def test_mistakes():
    for use, message in ((lambda: tr.draw("lstm"), "a cell or a graph"), (lambda: tr.draw(tr.cells.GRU, gradients=True), "steps="),
                         (lambda: tr.draw(tr.cells.GRU, steps=0), "1 to 60"),
                         (lambda: tr.draw(tr.cells.GRU.graph(), steps=2), "drawn as it is")):
        with pytest.raises(tr.TinyRNNError, match=message):
            use()


def test_no_renderer_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("TINYRNN_DOT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(renderer.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(DrawError, match="pip install graphviz-pure"):
        renderer.find()
    monkeypatch.setenv("TINYRNN_DOT", "nonsense")
    with pytest.raises(DrawError, match="TINYRNN_DOT='nonsense'"):
        renderer.find()


def test_a_renderer_that_fails_is_quoted(monkeypatch, tmp_path):
    fake = tmp_path / "dot"
    fake.write_text("#!/bin/sh\necho 'syntax error in line 1' >&2\nexit 3\n")
    os.chmod(fake, 0o755)
    monkeypatch.setenv("TINYRNN_DOT", str(fake))
    with pytest.raises(DrawError, match="syntax error in line 1"):
        tr.draw(tr.cells.GRU).svg  # noqa: B018
