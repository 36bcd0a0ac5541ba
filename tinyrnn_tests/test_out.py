"""Pictures for other programs: TikZ, outlines, films, decks for a lecture."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import ArgumentError, DrawError
from tinyrnn.viz.scene import BoxShape, Wire
from tinyrnn.viz.stages import stages_of
from tinyrnn.viz.svg import SVG
from tinyrnn.viz.tikz import PACKAGES, tex

from . import browser
from .browser import needs_browser
from .latex import needs_latex


def model():
    return tr.nn.Sequential(tr.nn.Embedding(9, 4, rng=0), tr.nn.GRU(4, 3, bidirectional=True, rng=0), tr.nn.Linear(6, 2, rng=1))


def compiled(text, folder, name="t"):
    (folder / f"{name}.tex").write_text(text)
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"], cwd=folder, capture_output=True)
    log = (folder / f"{name}.log").read_text(errors="replace")
    assert done.returncode == 0, log[-1500:]
    return int(re.search(r"\((\d+) pages?", log)[1]), log


# ---- stages

@pytest.mark.parametrize("loss", ["sum", "last"])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "lstm_peephole", "mgu"])
def test_the_order_is_forward_loss_backward(name, loss):
    """Nothing appears before what it reads, the loss after all that it reads, a gradient after that of its reader."""
    scene = tr.draw(tr.cells[name], steps=3, gradients=True, loss=loss).scene
    found = stages_of(scene)
    loss = next(p.key for p in scene.parts if isinstance(p, BoxShape) and p.classes == "loss")
    for w in (p for p in scene.parts if isinstance(p, Wire) and p.key in found.wires):
        a, b = w.ends
        if w.kind == "forward":
            assert found.ahead[a] < found.ahead[b] or b == loss
            assert found.ahead[b] <= found.wires[w.key] <= found.ahead[loss]
        if w.kind == "backward":
            assert found.ahead[loss] < found.back[a] < found.back[b] == found.wires[w.key]
    boxes = [p.key for p in scene.parts if isinstance(p, BoxShape) and p.classes != "key"]
    assert {*boxes} == {*found.ahead} == {*found.back}
    assert max(found.back.values()) == found.last


def test_stages_of_models_and_folded_cells():
    for drawing in (model().draw(steps=3), model().draw(steps=3, gradients=True), tr.draw(tr.cells.LSTM), model().draw()):
        found = stages_of(drawing.scene)
        assert min(found.ahead.values()) == 1 < found.last


# ---- TikZ

@needs_latex
@pytest.mark.slow
def test_tikz_compiles(tmp_path):
    """Every cell, folded, unrolled and as a strip, models, a graph: one document, and none is wider than it says."""
    drawings = [tr.draw(tr.cells[n], **view) for n in tr.cells.names() for view in ({}, {"steps": 2, "gradients": True})]
    drawings += [tr.draw(tr.cells.RNN, steps=30, show="heat"), model().draw(steps=3, gradients=True), model().draw(), tr.cells.RNN.graph().draw(),
                 tr.draw(tr.Cell("h[t] = tanh(W_in @ x[t] + Ω * h[t-1])\nC_tilde[t] = h[t] * φ_2"), title="50 % of $x_1 & y^2 {\\ ~ #")]
    body = "\n".join(rf"\sbox0{{{d.tikz()}}}\typeout{{WIDTH \the\wd0 OF {d.scene.size[0]:g}}}\newpage\noindent\usebox0" for d in drawings)
    pages, log = compiled(rf"\documentclass{{article}}{PACKAGES}\usepackage[paperwidth=60in,paperheight=20in,margin=1mm]{{geometry}}"
                          rf"\usepackage{{amsmath}}\begin{{document}}{body}\end{{document}}", tmp_path)
    assert pages >= len(drawings)
    widths = re.findall(r"WIDTH\s([\d.]+)pt\s?OF\s([\d.]+)", log)
    assert len(widths) == len(drawings)
    for wide, said in widths:
        assert float(wide) == pytest.approx(float(said), abs=0.5)


@needs_latex
def test_overlays_of_beamer(tmp_path):
    """One slide for every stage."""
    drawing = tr.draw(tr.cells.RNN, steps=2, gradients=True)
    drawing.save(tmp_path / "picture.tex", overlays=True)
    pages, _ = compiled(rf"\documentclass{{beamer}}{PACKAGES}\begin{{document}}\begin{{frame}}\resizebox{{\textwidth}}{{!}}{{\input{{picture.tex}}}}"
                        r"\end{frame}\end{document}", tmp_path)
    assert pages == stages_of(drawing.scene).last


def test_text_of_tikz():
    assert tex("W_if: h × x") == r"W\textsubscript{if}: h $\times$ x"
    assert tex("C̃ₜ₋₁") == r"$\tilde{C}$\textsubscript{t$-$1}"
    assert tex("50 % & {x}_$ \\ # ~ ^") == r"50 \% \& \{x\}\_\$ \textbackslash{} \# \~{} \^{}"
    assert tex("σ ‖∂L/∂·‖ 日") .startswith(r"$\sigma{}$ $\|$$\partial$L/$\partial$$\cdot$$\|$")
    assert "\\input" not in tr.draw(tr.cells.RNN, title="\\input{/etc/passwd}").tikz()


# ---- outlines

def pixels(svg, size):
    from io import BytesIO

    from PIL import Image

    from tinyrnn.viz import formats
    return np.asarray(Image.open(BytesIO(formats.png(svg, size, 1.0))).convert("L"), float)


@pytest.mark.parametrize("drawing", [lambda: tr.draw(tr.cells["lstm_lecture"]), lambda: tr.draw(tr.cells.LSTM, steps=2, gradients=True), lambda: model().draw(steps=3)],
                         ids=["folded", "unrolled", "model"])
def test_outlines_look_like_letters(drawing, tmp_path):
    """No text is left, and the picture is the same to a few grey pixels at the edges of letters."""
    picture = drawing()
    picture.save(tmp_path / "o.svg", outlines=True)
    svg = (tmp_path / "o.svg").read_text()
    root = ET.fromstring(svg)
    assert not list(root.iter(f"{{{SVG}}}text"))
    assert "font-family" not in root.attrib
    words = {e.text for e in root.iter(f"{{{SVG}}}title")}
    assert "tanh" in words or "GRU" in words
    a, b = pixels(picture.svg, picture.scene.size), pixels(svg, picture.scene.size)
    assert np.abs(a - b).mean() < 0.8
    assert (np.abs(a - b) > 128).mean() < 0.002


# ---- films

def test_a_gif_has_a_frame_for_every_stage(tmp_path):
    from PIL import Image

    drawing = tr.draw(tr.cells.RNN, steps=2, gradients=True, loss="last")
    drawing.animate(tmp_path / "rnn.gif", seconds=0.2, width=400)
    stages = stages_of(drawing.scene).last
    with Image.open(tmp_path / "rnn.gif") as film:
        assert film.n_frames == stages
        assert film.size[0] == 400
        grey = []
        for k in range(stages):
            film.seek(k)
            grey.append(np.asarray(film.convert("L"), float).mean())
        assert grey[0] > grey[stages // 2] > grey[-1]  # more and more is drawn
        assert film.info["duration"] == 3000


def test_an_mp4_needs_ffmpeg(tmp_path, monkeypatch):
    drawing = tr.draw(tr.cells.RNN, steps=2, gradients=True)
    if shutil.which("ffmpeg"):
        drawing.animate(tmp_path / "rnn.mp4", seconds=0.2)
        assert (tmp_path / "rnn.mp4").read_bytes()[4:8] == b"ftyp"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DrawError, match=r"MP4 is made by ffmpeg.*save as \.gif or \.svg"):
        drawing.animate(tmp_path / "none.mp4")
    stub = tmp_path / "ffmpeg"
    stub.write_text("#!/bin/sh\nfor last; do :; done\n/bin/ls *.png | /usr/bin/wc -l > \"$last\"\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    drawing.animate(tmp_path / "stub.mp4", seconds=1.0)
    assert int((tmp_path / "stub.mp4").read_text()) == stages_of(drawing.scene).last + 3


@needs_browser
def test_an_animated_svg_comes_about(tmp_path):
    """At the start little is seen and boxes are blank; in the end all; without motion all at once."""
    file = tmp_path / "rnn.svg"
    tr.draw(tr.cells.RNN, steps=2, gradients=True).animate(file, seconds=0.3)
    seen = "() => [...document.querySelectorAll('.node,.wire')].filter((e) => +getComputedStyle(e).opacity > 0.9).length"
    every = "() => document.querySelectorAll('.node,.wire').length"
    with browser.opened(file.as_uri()) as tab:
        tab.evaluate("() => document.getAnimations().forEach((a) => { a.pause(); a.currentTime = 0; })")
        start = tab.evaluate(seen)
        tab.evaluate("() => document.getAnimations().forEach((a) => { a.currentTime = 1500; })")
        middle = tab.evaluate(seen)
        tab.evaluate("() => document.getAnimations().forEach((a) => { a.currentTime = 60000; })")
        assert start < middle < tab.evaluate(seen) == tab.evaluate(every)
        assert not tab.complaints
    with browser.opened(file.as_uri(), reduced_motion="reduce") as tab:
        assert tab.evaluate(seen) == tab.evaluate(every)


# ---- decks

@needs_latex
@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "gru_lecture", "lstm_peephole", "indrnn"])
def test_a_deck_compiles(name, tmp_path):
    tr.slides(tr.cells[name], tmp_path)
    pages, log = compiled((tmp_path / "deck.tex").read_text(), tmp_path, "deck")
    assert pages > 15
    assert "Overfull \\hbox" not in log


@needs_browser
def test_a_deck_runs_in_the_browser(tmp_path):
    """Offline, by the arrow keys: formulas appear one by one, and one can go back."""
    tr.slides(tr.cells.GRU, tmp_path)
    with browser.opened((tmp_path / "deck.html").as_uri(), viewport={"width": 1280, "height": 720}) as tab:
        place = lambda: tab.inner_text("#place")
        visible = lambda: tab.evaluate("() => [...document.querySelectorAll('section.present .fragment.visible')].length")
        assert place().startswith("1 of ")
        tab.keyboard.press("ArrowRight")
        assert tab.locator("section.present svg").bounding_box()["height"] < 720
        tab.keyboard.press("ArrowRight")
        assert visible() == 0
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowRight")
        assert visible() == 2
        tab.keyboard.press("ArrowLeft")
        assert visible() == 1
        tab.keyboard.press("End")
        count = int(place().split(" of ")[1])
        assert place() == f"{count} of {count}"
        for k in range(count):
            tab.evaluate(f"location.hash = '#/{k}'")
            tab.reload()
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert tab.evaluate("document.documentElement.scrollHeight <= innerHeight + 1"), k
        assert not tab.complaints
        assert all(r.startswith("file:") for r in tab.requests)
    assert 'data-reveal="dist&quot;&gt;"' in (tr.slides(tr.cells.RNN, tmp_path, reveal='dist">/')[1]).read_text()


@pytest.mark.parametrize(("use", "message"), [
    (lambda d: d.save("x.png", outlines=True), "outlines are of SVG"), (lambda d: d.save("x.svg", overlays=True), "overlays of TikZ"), (lambda d: d.animate("x.png"), r"use \.svg, \.gif, \.mp4"),
    (lambda d: d.animate("x.gif", seconds=0), "seconds=0"), (lambda d: d.save("x.jpg"), r"\.pdf, \.tex"), (lambda d: tr.slides("lstm"), "slides takes a cell"), (lambda d: tr.slides(tr.cells.RNN, steps=50), "1 to 6")])
def test_what_is_refused(use, message):
    with pytest.raises(ArgumentError, match=message):
        use(tr.draw(tr.cells.RNN))
