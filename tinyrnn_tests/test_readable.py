"""Pictures that can be read: on a slide, on a page, in every theme; measured in the letters of the rendered picture."""

import re
import subprocess
import xml.etree.ElementTree as ET
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.analysis.recurrence import recurrences
from tinyrnn.cells.latex_lines import COLUMN, _width, broken, environment
from tinyrnn.errors import ArgumentError as DrawingRefused
from tinyrnn.errors import ShapeError
from tinyrnn.passes import partition
from tinyrnn.viz.items import Extract
from tinyrnn.viz.scene import BoxShape, Wire
from tinyrnn.viz.theme import LEVELS, palette
from tinyrnn.viz.tile import gate_order, tile_of

from . import browser
from .browser import needs_browser
from .extents import SVG, Rectangle, faults, rectangles, smallest
from .latex import needs_latex
from .test_equations import GOOD
from .test_viz import CELLS, luminance, sound, texts

VIEWS = {"folded": {}, "unrolled": {"steps": 3}, "gradients": {"steps": 3, "gradients": True}, "long": {"steps": 9, "gradients": True},
         "heat": {"steps": 30, "show": "heat"}, "values": {"steps": 8, "show": "values"}}
OPTIONS = [{}, {"format": "slide"}, {"format": "page"}, {"format": "wide"}, {"direction": "down"}, {"detail": "block"}, {"detail": "ops"},
           {"parameters": False}, {"font_size": 20}, {"title": ""}, {"format": "slide", "theme": "dark"}, {"format": "page", "theme": "print"}]
SMALLEST = 8.25 - 1e-6  # points: eleven pixels


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", [*tr.cells.names(), *(n for n in CELLS if n in GOOD)])
def test_every_word_can_be_read(name, view):
    """No text over another, out of its box or out of the picture; no box over another; nothing too small."""
    options = OPTIONS if name in tr.cells.names() else OPTIONS[:3]
    for more in options:
        if "show" in VIEWS[view] and ("detail" in more or "direction" in more):
            continue
        svg = tr.draw(CELLS[name], **VIEWS[view], **more).svg
        assert faults(svg) == [], (name, more)
        assert not re.search("[₀-₉ₜ₋]", "".join("".join(t.itertext()) for t in ET.fromstring(svg).iter(f"{SVG}text")))
        assert smallest(svg) >= (18 if more.get("format") == "slide" else SMALLEST), more
        size = rectangles(svg)[2]
        if more.get("format") == "slide":
            assert size == (960, 540)
        if more.get("format") == "page":
            assert size[0] <= 453


def test_a_fault_is_seen():
    """The measure finds what it looks for."""
    svg = tr.draw(tr.cells.GRU).svg
    moved = re.sub(r'(<text text-anchor="middle" x=")[\d.]+(" [^>]*>r = σ)', r"\g<1>2\2", svg)
    assert moved != svg
    assert any("leaves its box" in f for f in faults(moved))
    large = svg.replace('font-size="11"', 'font-size="19"')
    assert any("leaves its box" in f for f in faults(large))
    assert any("overlap" in f for f in faults(large))
    assert smallest(svg.replace('font-size="9.5"', 'font-size="4"')) == 4


@pytest.mark.parametrize("view", [{}, {"steps": 4, "show": "all"}, {"steps": 12, "gradients": True}, {"steps": 3, "detail": "block", "gradients": True},
                                  {"detail": "block"}, {"steps": 3, "direction": "down"}, {"steps": 9, "format": "page", "gradients": True}])
@pytest.mark.parametrize("name", tr.cells.names())
def test_wires_begin_and_end_at_boxes(name, view):
    """No gap in the line of a state, and no arrow head in mid-air."""
    scene = tr.draw(tr.cells[name], **view).scene
    boxes = {b.key: b for b in scene.parts if isinstance(b, BoxShape)}
    for w in (p for p in scene.parts if isinstance(p, Wire)):
        for key, (x, y) in zip(w.ends, (w.points[0], w.points[-1]), strict=True):
            b, slack = boxes[key], 5.5 if w.kind == "backward" else 0.6
            inside = Rectangle(b.at[0] - b.size[0] / 2, b.at[1] - b.size[1] / 2, b.at[0] + b.size[0] / 2, b.at[1] + b.size[1] / 2)
            assert Rectangle(x, y, x, y).within(inside, slack), (w.key, key, (x, y), inside)
        (x0, y0), (x1, y1) = next(p for p in reversed(w.points[:-1]) if np.hypot(p[0] - x, p[1] - y) > 0.01), (x, y)
        assert min(abs(x1 - x0), abs(y1 - y0)) < 0.05, (w.key, w.points[-4:])  # heads do not stand askew


def test_a_gradient_keeps_beside_its_wire():
    """Its way is that of the wire, moved to the side: around corners as well, and it crosses the wire nowhere."""
    for name in ("lstm_lecture", "gru"):
        scene = tr.draw(tr.cells[name], steps=9, gradients=True, show="all").scene
        wires = {w.ends: w for w in scene.parts if isinstance(w, Wire) and w.kind == "forward"}
        pairs = [(w, wires[w.ends[::-1]]) for w in scene.parts if isinstance(w, Wire) and w.kind == "backward" and w.ends[::-1] in wires]
        assert len(pairs) > 50
        for back, wire in pairs:
            one, two = sampled(wire.points), sampled(back.points)
            apart = np.abs(two[:, None] - one[None]).max(-1).min(1)
            assert apart.max() < 7, back.key
            assert np.median(apart) > 1.5, back.key


def sampled(points, n=60):
    """Points on the curve of a wire."""
    t = np.linspace(0, 1, n)[:, None]
    pieces = [np.array(points[i : i + 4]) for i in range(0, len(points) - 1, 3)]
    return np.concatenate([(1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d for a, b, c, d in pieces])


def test_the_delay_says_what_it_is():
    for name in tr.cells.names():
        words = texts(tr.draw(tr.cells[name]).svg)
        assert "previous step" in words
        assert not any("⁻¹" in w for w in words)
    layer = tr.nn.Recurrent("gru", x=2, h=3, reverse=True, rng=0)
    assert "next step" in texts(layer.draw().svg)


def crossings(tile):
    """Pairs of wires between neighbouring layers that cross."""
    x = sorted({round(p[0], 2) for p in tile.layout.at.values()})
    layer = {k: x.index(round(p[0], 2)) for k, p in tile.layout.at.items()}
    edges = [(layer[s], tile.layout.at[s][1], tile.layout.at[r][1]) for s, r in tile.layout.route if layer[r] == layer[s] + 1]
    return sum(a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for i, a in enumerate(edges) for b in edges[:i])


def test_gates_stand_in_order_and_a_lecture_crosses_nothing():
    for name in ("lstm", "lstm_lecture"):
        cell = tr.cells[name]
        tile = tile_of(recurrences(cell.rolled(1))[0], gate_order(cell))
        heights = [tile.layout.at[k][1] for n in tile.order for k, i in tile.items.items() if i.kind == "gate" and i.name == n]
        assert heights == sorted(heights)
    assert crossings(tile) == 0


# ---- functions, names

@pytest.mark.parametrize("call", ["softmax", "layer_norm", "rms_norm", "silu", "gelu", "elu", "hard_sigmoid", "softplus", "relu", "exp"])
def test_a_function_of_the_language_is_one_box(call):
    cell = tr.Cell(f"g[t] = {call}(W @ x[t] + U @ h[t-1] + b)\nh[t] = g[t] * h[t-1]", "c")
    step = recurrences(cell.rolled(1))[0].step
    items = Extract(step, cell.parameters, {"h"}).items
    gate = next(i for i in items.values() if i.name == "g")
    assert (gate.kind, gate.weights) == ("gate", ["W", "U", "b"])
    assert gate.title in (f"g = {call.replace('_', ' ')}", f"g = {gate.node.op.label}")
    assert len(items) == 5  # x, h, g, ⊙, h
    assert sum(w.startswith("g = ") for w in texts(tr.draw(cell).svg)) == 1
    assert len(Extract(step, cell.parameters, {"h"}, every=True).items) >= 5 + 4


def test_a_mean_is_one_box():
    cell = tr.Cell("g[t] = mean(x[t])\nh[t] = tanh(W @ x[t] + U @ h[t-1] + g[t])", "c")
    assert "g = mean" in texts(tr.draw(cell).svg)


def test_what_a_composed_function_shares_with_others_stays():
    """An inner value that is read elsewhere too has its box."""
    cell = tr.Cell("s[t] = sigmoid(x[t])\nh[t] = silu(x[t]) + s[t] * h[t-1]", "c")
    titles = [i.title for i in Extract(recurrences(cell.rolled(1))[0].step, (), {"h"}).items.values()]
    assert "silu" in titles
    assert "s = σ" in titles


def test_powers_say_their_exponent():
    words = texts(tr.draw(tr.Cell("h[t] = h[t-1]**2 + W @ x[t]**0.5")).svg)
    assert {"^2", "^0.5"} <= set(words)


def test_affine_maps_say_their_formula():
    words = texts(tr.draw(tr.cells.GRU).svg)
    assert "Whn hₜ₋₁ + bhn" in words or {"Whn hₜ₋₁ +", "bhn"} <= set(words)
    assert not any("affine" in w for w in words)


def test_subscripts_and_accents():
    svg = tr.draw(tr.Cell("C_tilde[t] = tanh(W_ii @ x[t] + U_hat @ h[t-1])\nh_bar[t] = C_tilde[t] * h_bar[t-1]\nh[t] = h_bar[t] * h[t-1]", "c")).svg
    words = texts(svg)
    assert "C̃ = tanh" in words
    assert "h̄ₜ" in words
    assert "Wii U\u0302" in [re.sub(r"\s+", " ", w) for w in words]
    lowered = [e for e in ET.fromstring(svg).iter(f"{SVG}tspan") if e.text == "ii"]
    assert lowered
    assert all(float(e.get("dy")) > 0 and float(e.get("font-size")) < 11 for e in lowered)
    assert tr.Cell("h_prime[t] = tanh(x[t] + h_prime[t-1])").latex().startswith("\\begin{aligned}\nh^{\\prime}_{t} &=")
    assert "\\tilde{C}_{t} &=" in tr.cells["lstm_lecture"].latex()
    assert "a^{(\\tilde{C})}_{t}" in tr.derive(tr.cells["lstm_lecture"]).latex()


# ---- formats and options

def test_details_go_from_coarse_to_fine():
    counts = [tr.draw(tr.cells.LSTM, steps=3, detail=d).svg.count('class="node') for d in ("block", "gates", "ops")]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2]
    assert texts(tr.draw(tr.cells.LSTM, steps=3, detail="block").svg).count("LSTM") == 3


def test_slides_are_as_fine_as_they_can_be():
    words = texts(tr.draw(tr.cells.LSTM, format="slide").svg)
    assert "f = σ" in words                       # gates fit, the names of weights do not
    assert not any(w.startswith("Wif") for w in words)
    assert "LSTM" in texts(tr.draw(tr.cells.LSTM, steps=3, format="slide").svg)
    assert "Wih: h × x" in texts(tr.draw(tr.cells.RNN, format="slide").svg)
    large = [smallest(tr.draw(tr.cells[n], format="slide").svg) for n in ("rnn", "lstm")]
    assert large[0] > large[1] >= 18              # letters grow where there is room


def test_options_do_what_they_say():
    right, down = (tr.draw(tr.cells.GRU, steps=3, direction=d).scene.size for d in ("right", "down"))
    assert right[0] > down[0]
    assert down[1] > down[0]
    plain = tr.draw(tr.cells.GRU, parameters=False, title="My title")
    assert texts(plain.svg)[0] == "My title"
    assert not any("Wir" in w for w in texts(plain.svg))
    assert plain.title == "My title"
    assert "<title id=" in plain.svg
    assert tr.cells.GRU.title not in plain.svg.partition("<desc")[0]
    assert texts(tr.draw(tr.cells.GRU, title="").svg)[0] != tr.cells.GRU.title
    assert smallest(tr.draw(tr.cells.GRU, font_size=22).svg) == pytest.approx(2 * smallest(tr.draw(tr.cells.GRU).svg))
    wide = tr.draw(tr.cells.LSTM, steps=5, format="wide").scene
    rows = {round(p.top_left[1]) for p in wide.parts if getattr(p, "key", "").startswith("t")}
    assert len(rows) == 1
    for what in (tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Linear(4, 2, rng=1)), tr.cells.RNN.graph()):
        across, along = (tr.draw(what, direction=d).scene.size for d in ("right", "down"))
        assert across[0] / across[1] > along[0] / along[1]
        for d in ("right", "down"):
            assert faults(tr.draw(what, direction=d).svg) == []


def test_a_first_state_may_lack_the_batch_axis():
    a, b = (tr.draw(tr.cells.RNN, steps=3, gradients=True, values={"h[0]": np.full(s, 0.5)}).svg for s in ((3,), (1, 3)))
    assert a == b
    with pytest.raises(ShapeError, match=r"first state h\[0\] has shape \[2,3\], expected \[3\] or \[1,3\]"):
        tr.draw(tr.cells.RNN, steps=3, gradients=True, values={"h[0]": np.ones((2, 3))})


def test_numbers_of_numpy_are_numbers():
    a = tr.draw(tr.cells.RNN, steps=np.int64(4), show=np.array([1, 4]), gradients=np.True_, font_size=np.float32(12), scale=np.array([1e-3, 1]))
    b = tr.draw(tr.cells.RNN, steps=4, show=[1, 4], gradients=True, font_size=12, scale=(1e-3, 1))
    assert a.svg == b.svg
    assert tr.draw(tr.cells.RNN, steps=4, show=range(1, 3)).svg == tr.draw(tr.cells.RNN, steps=4, show=[1, 2]).svg


@pytest.mark.parametrize("direction", ["right", "down"])
def test_graphs_and_models_can_be_read(direction):
    graph = tr.cells.GRU.rolled(3, gradients=True)
    stack = tr.nn.Sequential(tr.nn.Embedding(10, 4, rng=0), tr.nn.LSTM(4, 5, num_layers=2, bidirectional=True, rng=1), tr.nn.Linear(10, 3, rng=2))
    for drawing in (graph.draw(direction=direction), tr.draw(tr.cells.LSTM.unroll(2), direction=direction), stack.draw(direction=direction),
                    tr.draw(graph, after=partition(graph), direction=direction),
                    tr.nn.EncoderDecoder(12, 9, 6, attention="dot", rng=0).draw(direction=direction),
                    tr.cells.GRU.unroll(20, gradients=True).draw(direction=direction)):
        assert faults(drawing.svg) == []
    assert faults(tr.nn.Sequential(tr.nn.GRU(3, 4, rng=0), tr.nn.Linear(4, 2, rng=1)).draw(format="slide", direction=direction).svg) == []


@pytest.mark.parametrize("name", tr.cells.names())
def test_slides_that_run_down(name):
    """A step finds room on every slide; several may not, which is said."""
    assert faults(tr.draw(tr.cells[name], format="slide", direction="down").svg) == []
    with suppress(DrawingRefused):
        assert faults(tr.draw(tr.cells[name], format="slide", direction="down", steps=2).svg) == []


def test_pdf_has_the_picture_and_equal_bytes(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        tr.draw(tr.cells["lstm_lecture"], tmp_path / name, steps=2, gradients=True)
    data = (tmp_path / "a.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert len(data) > 10_000
    assert data == (tmp_path / "b.pdf").read_bytes()


# ---- one scale

@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_darker_is_larger(theme):
    shades = [luminance(palette(theme)[f"q{k}"]) for k in range(LEVELS + 1)]
    assert all(a > b for a, b in pairwise(shades))


def swatches(svg):
    """(row, first step, last step) -> shade, of a heat strip."""
    return {e.findtext(f"{SVG}title"): re.search(r"fill-(\w+)", e.get("class"))[1] for e in ET.fromstring(svg).iter(f"{SVG}g")
            if "swatch" in e.get("class", "") and "t = " in e.findtext(f"{SVG}title", "")}


def test_strips_that_are_compared_have_one_scale():
    """Of the same norm the shade is the same, and a larger one is never lighter, whichever strip it stands in."""
    cells = [tr.cells.RNN, tr.cells.LSTM, tr.cells.GRU]
    svg = tr.draw(cells, steps=100, show="heat", loss="last").svg
    sound(svg)
    found = [(float(said.rpartition(": ")[2].rpartition(" to ")[2]), int(shade[1:])) for said, shade in swatches(svg).items() if shade != "none"]
    for said, shade in swatches(svg).items():
        if shade != "none":
            found.append((float(said.rpartition(": ")[2].partition(" to ")[0]), int(shade[1:])))
    found.sort()
    assert all(a[1] <= b[1] for a, b in pairwise(found))
    assert len({s for _, s in found}) > 6
    words = texts(svg)
    assert [w.partition(",")[0] for w in words if ", L = " in w] == ["RNN", "LSTM", "GRU"]
    assert words.count("‖∂L/∂·‖") == 1


def test_a_scale_that_is_given():
    one, two = (tr.draw(tr.cells.RNN, steps=40, show="heat", loss=loss, scale=(1e-8, 10)).svg for loss in ("last", lambda ys: (100 * ys[-1]).sum()))
    for svg in (one, two):
        assert {"≥1e1", "≤1e-8"} <= set(texts(svg))
    assert sum(int(s[1:]) for s in swatches(two).values() if s != "none") != sum(int(s[1:]) for s in swatches(one).values() if s != "none")


def test_values_over_words():
    words = ["what", "W_f", "h_tilde", "day", "<b>"]  # words are not names
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 2))
    svg = tr.draw(tr.cells.RNN, values={"x": x}, show="values", tokens=words, scale=(-1, 1)).svg
    assert set(words) <= set(texts(svg))
    assert "step t" not in texts(svg)
    shown = {k: float(k.rpartition(": ")[2].partition(" to ")[0]) for k in swatches(svg) if k.startswith("xₜ")}
    assert shown
    assert next(iter(shown.values())) == pytest.approx(x[0].mean(), rel=5e-3)


def test_the_scale_is_of_what_is_shown():
    """A row without a name, or one that found no room, is not on it."""
    cell = tr.Cell("g[t] = sigmoid(1000 * (W @ x[t]) + U @ h[t-1])\nh[t] = tanh(W @ x[t] + U @ h[t-1]) * g[t]", "c")
    words = texts(tr.draw(cell, steps=5, show="values").svg)
    low, high = (float(w) for w in (words[words.index("mean value") + 4], words[words.index("mean value") + 1]))
    assert -5 < low < high < 5
    drawing = tr.draw(cell, steps=5, show="values")
    assert drawing.text().splitlines()[1].startswith("mean value")
    assert "L =" not in drawing.text()


def test_slides_of_a_lecture():
    """What every lecture shows finds room: gradients that vanish, and gates over a sentence."""
    words = "I really did not like the first half of this film but the second half was surprisingly good in the end".split()
    gates = tr.draw(tr.cells.LSTM, steps=len(words), show="values", tokens=words, format="slide")
    assert {"f = σ", "i = σ", "o = σ", *words} <= set(texts(gates.svg))
    heat = tr.draw([tr.cells.RNN, tr.cells.LSTM, tr.cells.GRU], steps=100, show="heat", loss="last", format="slide")
    for drawing in (gates, heat):
        assert faults(drawing.svg) == []
        assert any("only" in w for w in texts(drawing.svg))  # it says that other rows are left out
    said = tr.draw(tr.cells.RNN, steps=3, show="values", tokens=["a" * 300, "b", "c"]).scene
    assert said.size[0] < 600


def test_composed_functions_go_by_their_name():
    drawing = tr.draw(tr.Cell("g[t] = softmax(W @ x[t] + U @ h[t-1])\nh[t] = g[t] * h[t-1]", "c"))
    assert any(b.title.startswith("g = softmax  softmax [") for b in drawing.scene.parts if isinstance(b, BoxShape))


def test_the_source_of_a_heat_strip_is_the_heat_strip():
    """Words and swatches are nodes of the source, at their places."""
    drawing = tr.draw(tr.cells.RNN, steps=60, show="heat")
    assert drawing.dot.count("swatch") == drawing.svg.count("swatch") > 50
    assert all(w in drawing.dot for w in texts(drawing.svg) if "‖" not in w)


# ---- formulas

def test_formulas_fit_into_a_column():
    for name, cell in CELLS.items():
        if name in ("mLSTM", "ten gates"):
            continue
        for s in tr.derive(cell).latex().split("\\begin{align*}\n")[1:]:
            for line in s.partition("\n\\end{align*}")[0].split(" \\\\\n"):
                assert _width(line.replace("&", "")) <= COLUMN + 1 or "cases" in line, (name, line)


def test_broken_formulas_are_the_same_formula():
    for name in tr.cells.names():
        derivation = tr.derive(tr.cells[name])
        for f in (*derivation.recurrence.values(), *derivation.parameters.values(), *derivation.jacobian.values()):
            joined = "".join(line.replace("&\\quad", "").replace("&", "") for line in broken(f.latex))
            plain = re.sub(r"\\(bigl|bigr)", lambda m: {"bigl": r"\left", "bigr": r"\right"}[m[1]], joined)
            assert re.sub(r"\s", "", plain) == re.sub(r"\s", "", f.latex)


def test_roots_and_fractions_that_are_too_wide_are_opened():
    terms = " + ".join(f"a_{i} * h[t-1]" for i in range(1, 12))
    cell = tr.Cell(f"h[t] = tanh(W @ x[t]) * sqrt({terms}) / (1 + {terms}) + ({terms})**2", "c")
    lines = [line for line in cell.latex().split("\n") if "&" in line]
    assert len(lines) > 4
    assert all(_width(line.replace("&", "")) <= COLUMN + 1 for line in lines)
    assert "^{1/2}" in cell.latex()
    assert "\\frac" not in cell.latex()


def test_environments():
    cell = tr.cells.RNN
    for name in ("align", "align*", "equation", "equation*", "gather*"):
        assert cell.latex(environment=name).startswith(f"\\begin{{{name}}}")
        assert cell.latex(environment=name).endswith(f"\\end{{{name}}}")
    assert cell.latex(environment="$$").startswith("$$\n\\begin{aligned}")
    assert environment(["a = " + " + ".join(["x"] * 40)], "align").count("\\notag") == environment(["a = " + " + ".join(["x"] * 40)], "align").count("\\\\")
    with pytest.raises(tr.TinyRNNError, match="environment='eqnarray'"):
        cell.latex(environment="eqnarray")


@needs_latex
def test_latex_finds_no_line_too_wide(tmp_path):
    """An article at 10 points and a slide: LaTeX itself says whether a line runs over."""
    bodies = [tr.derive(tr.cells[n]).latex() for n in tr.cells.names()]
    equations = "".join(tr.cells[n].latex(environment=e) for n in ("gru", "lstm_lecture") for e in ("align", "equation*", "gather*"))
    frames = "".join("\\begin{frame}[allowframebreaks]" + re.sub(r"\\section\*\{.*?\}|\\subsection\*\{.*?\}", "", part) + "\\end{frame}\n"
                     for body in bodies for part in re.split(r"(?=\\subsection\*)", body)[1:])
    documents = {"article": "\\documentclass{article}\\usepackage{amsmath}\\allowdisplaybreaks\\begin{document}\n" + equations + "\n".join(bodies),
                 "beamer": "\\documentclass{beamer}\\usepackage{amsmath}\\begin{document}\n" + frames}
    for name, text in documents.items():
        (tmp_path / f"{name}.tex").write_text(text + "\\end{document}\n")
        done = subprocess.run(["pdflatex", "-interaction=nonstopmode", f"{name}.tex"], cwd=tmp_path, capture_output=True)
        log = (tmp_path / f"{name}.log").read_text(errors="replace")
        assert done.returncode == 0, re.findall(r"^! .*", log, re.M)
        assert "Overfull \\hbox" not in log, name


# ---- notebooks

def test_displays_say_the_verdict_first_in_a_few_lines():
    lstm, gru = tr.cells["lstm_lecture"], tr.cells.GRU
    derivation = tr.derive(tr.cells["lstm_peephole"])
    results = {"Proved": tr.prove(lstm, rng=0), "Equal": tr.equivalent(tr.cells.LSTM, lstm, rng=0),
               "Different": tr.equivalent(gru, tr.cells["gru_reset_before"], rng=0)}
    for verdict, result in results.items():
        assert result._repr_markdown_().startswith(f"**{verdict}")
    for result in (*results.values(), derivation, *derivation.jacobian.values(), *derivation.recurrence.values(), derivation.jacobian):
        assert len(repr(result)) < 1500
        for form in ("_repr_markdown_", "_repr_latex_", "_repr_html_"):
            if hasattr(result, form):
                assert len(getattr(result, form)()) < 3000, (result, form)
    assert derivation._repr_markdown_().startswith("**Long short-term memory with peephole connections**")


# ---- the docs

def test_letters_in_the_docs_have_eleven_pixels():
    """Pictures are shown at their natural size (docs/static/pictures.css), slides at half of it at least."""
    docs = Path(__file__).parent.parent / "docs"
    for file in docs.rglob("*.svg"):
        if "build" in file.relative_to(docs).parts:
            continue
        text = file.read_text(encoding="utf-8")
        if 'id="p' in text[:200]:
            size = smallest(text)
            assert float(re.search(r' width="(\d+)"', text)[1]) == pytest.approx(rectangles(text)[2][0] * 4 / 3, abs=1)
        else:  # Matplotlib's: letters are outlines, in hundredths of a point
            size = min(100 * float(s) for s in re.findall(r"scale\(([\d.]+) -[\d.]+\)", text))
        assert size * 4 / 3 * (600 / 1280 if "slide" in file.name else 1) >= 11 - 1e-6, (file, size)


@needs_browser
def test_the_theme_of_the_page_moves_its_pictures(tmp_path):
    """An image that a page declares dark is drawn dark, whatever the reader's own setting is."""
    tr.draw(tr.cells.RNN, tmp_path / "rnn.svg")
    css = (Path(__file__).parent.parent / "docs" / "static" / "pictures.css").read_text()
    (tmp_path / "page.html").write_text(f'<style>{css}</style><body><a class="picture" href="rnn.svg"><img src="rnn.svg"></a></body>')
    for reader in ("light", "dark"):
        with browser.opened((tmp_path / "page.html").as_uri(), viewport={"width": 700, "height": 400}, color_scheme=reader) as tab:
            for theme, dark in (("dark", True), ("light", False), ("auto", reader == "dark")):
                tab.evaluate(f"document.body.dataset.theme = '{theme}'")
                tab.screenshot(path=str(tmp_path / "page.png"))
                corner = tab.evaluate("""async () => { const i = document.querySelector('img'); return getComputedStyle(i).colorScheme; }""")
                assert corner == {"dark": "dark", "light": "light", "auto": "light dark"}[theme]
                seen = pixel(tmp_path / "page.png", 20, 40)
                assert (sum(seen) < 200) == dark, (reader, theme, seen)


def pixel(file, x, y):
    from matplotlib.image import imread

    return tuple(int(255 * v) for v in imread(file)[y, x, :3])
