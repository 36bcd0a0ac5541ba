"""Pictures: sound SVG, one panel per step, parameters once, gradients of a real run; with every renderer and with none."""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.analysis.subject import subject_of_cell
from tinyrnn.cells.paper import pretty
from tinyrnn.errors import DrawError
from tinyrnn.tensor.compile import PIPELINE
from tinyrnn.viz import run_dot
from tinyrnn.viz.drawing import flowing
from tinyrnn.viz.scene import BoxShape, Wire
from tinyrnn.viz.theme import INKS, LEVELS, decades, level, palette

from .test_equations import GOOD

PURE = str(Path(sys.executable).parent / "graphviz-pure")
SVG = "{http://www.w3.org/2000/svg}"
TEN = "\n".join([*(f"g{i}[t] = sigmoid(W{i} @ x[t] + U{i} @ h[t-1] + b{i})" for i in range(10)),
                 "c[t] = g0[t] * c[t-1] + " + " + ".join(f"g{i}[t] * g{i + 1}[t]" for i in range(1, 9, 2)), "h[t] = g9[t] * tanh(c[t])"])
LONG = "the_hidden_state[t] = tanh(input_to_hidden @ the_input[t] + hidden_to_hidden @ the_hidden_state[t-1] + the_bias_vector)"
CELLS = {**{n: tr.cells[n] for n in tr.cells.names()}, **{n: tr.Cell(t, n) for n, t in GOOD.items()},
         "ten gates": tr.Cell(TEN, "ten"), "long names": tr.Cell(LONG, "long")}
VIEWS = ({}, {"steps": 3}, {"steps": 9, "gradients": True}, {"steps": 30, "show": "heat"})


@pytest.fixture(params=["system", "pure"])
def renderer(request, monkeypatch):
    if request.param == "system" and shutil.which("dot") is None:
        pytest.skip("there is no system Graphviz here")
    monkeypatch.setenv("TINYRNN_DOT", {"system": "dot", "pure": PURE}[request.param])
    return request.param


def texts(svg):
    """Every line; a subscript of time as in titles: hₜ₋₁."""
    return ["".join(_written(t)) for t in ET.fromstring(svg).iter(f"{SVG}text")]


def _written(e):
    yield e.text or ""
    for t in e:
        inside, below = t.text or "", float(t.get("dy", 0)) > 0
        yield inside.translate(BELOW) if below and set(inside) <= set("0123456789−t") else inside
        yield t.tail or ""


BELOW = str.maketrans("0123456789−t", "₀₁₂₃₄₅₆₇₈₉₋ₜ")


def sound(svg):
    """Well-formed; ids unique; every wire's ends exist; every node has a title, a label, and all text is plain."""
    root = ET.fromstring(svg)
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    assert root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text
    nodes = [g for g in root.iter(f"{SVG}g") if "node" in g.get("class", "").split()]
    assert all(g.find(f"{SVG}title").text and g.get("aria-label") and g.get("role") == "img" for g in nodes)
    for g in root.iter(f"{SVG}g"):
        if "wire" in g.get("class", "").split() and "-key-" not in g.get("id"):
            assert g.get("data-from") in ids, g.get("id")
            assert g.get("data-to") in ids, g.get("id")
            assert g.find(f"{SVG}title").text
    assert not {e.tag for e in root.iter()} - {f"{SVG}{t}" for t in
                                              "svg title desc style defs pattern rect path polygon ellipse g text tspan".split()}
    assert "href" not in svg
    return root


def wires(root, kind):
    return [g for g in root.iter(f"{SVG}g") if g.get("class") == f"wire {kind}"]


# ---- every cell

@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("view", range(len(VIEWS)))
def test_every_cell_is_drawn_soundly(name, view):
    cell = CELLS[name]
    drawing = tr.draw(cell, **VIEWS[view])
    root = sound(drawing.svg)
    if "show" not in VIEWS[view]:
        for p in cell.parameters:
            places = [e for e in root.iter() if e.get("data-parameter") == p]
            assert len(places) > 1 or p in cell.learned, f"{p} stands only in the legend"
    for state in (*cell.states, *cell.outputs):
        assert any(w.startswith(tuple(pretty(f"{state}[{t}]") for t in (1, "t"))) for w in texts(drawing.svg)), state


@pytest.mark.parametrize("name", CELLS)
def test_states_run_straight(name):
    """A state leaves a step where it enters the next one, and gates stand in the order of the text."""
    cell = CELLS[name]
    subject = subject_of_cell(cell, 3)
    tile, _ = flowing(cell, subject)
    for entry_key, exit_key in zip(tile.entries, tile.exits, strict=True):
        if not tile.items[exit_key].title.startswith(tile.items[entry_key].title.partition("ₜ")[0]):
            continue
        assert tile.layout.at[entry_key][1] == pytest.approx(tile.layout.at[exit_key][1])
    order = [pretty(e.name) for e in cell.system.equations]
    columns = {}
    for k, i in tile.items.items():
        named = i.called
        if i.kind == "gate" and named in order:
            columns.setdefault(round(tile.layout.at[k][0]), []).append((tile.layout.at[k][1], order.index(named)))
    for column in columns.values():
        assert [rank for _, rank in sorted(column)] == sorted(rank for _, rank in column)


def test_folded_lstm():
    words = texts(tr.cells.LSTM.draw().svg)
    assert {"f = σ", "i = σ", "o = σ", "g = tanh"} <= set(words)
    assert words.count("previous step") == 2
    assert words.count("⊙") == 3
    assert sum(w == "Wif: h × x" for w in words) == 1


def test_unrolled_with_gradients():
    svg = tr.cells.LSTM.draw(steps=3, gradients=True).svg
    root, words = sound(svg), texts(svg)
    assert [w for w in words if w.startswith("t = ")] == ["t = 1", "t = 2", "t = 3"]
    assert sum("parameters, shared by 3 steps" in w for w in words) == 1
    assert sum(w.startswith("Wif: h × x") for w in words) == 1
    forward, backward = wires(root, "forward"), wires(root, "backward")
    assert 0.8 * len(forward) < len(backward) < len(forward)  # nothing comes back where nothing flows
    assert all(g.find(f"{SVG}path").get("stroke-dasharray") for g in backward)
    assert not any(g.find(f"{SVG}path").get("stroke-dasharray") for g in forward)
    assert "fill=\"url(#" in svg  # the forget gate of the first step has no gradient: c[0] is zero


# ---- numbers

def test_widths_and_fills_are_those_of_the_run():
    """Of every box and every wire, from gradients that were computed elsewhere."""
    cell = tr.cells.LSTM
    drawing = tr.draw(cell, steps=4, gradients=True, show="all")
    ray = tr.xray(cell, steps=4, loss="sum").layer
    subject = subject_of_cell(cell, 4)
    tile, flow = flowing(cell, subject)
    boxes = {p.key: p for p in drawing.scene.parts if isinstance(p, BoxShape)}
    compared = 0
    for k, item in ((k, i) for k, i in tile.items.items() if i.kind != "exit"):
        name = item.called.replace("ₜ₋₁", "[t-1]").replace("ₜ", "") if item.kind != "input" else item.title
        name = {"hₜ₋₁": "h[t-1]", "cₜ₋₁": "c[t-1]", "xₜ": "x[t]"}.get(name, name)
        for t in range(1, 5) if name in ray.gradients else ():
            norm = ray.gradients[name][t - 1]
            said = "sent back by this step" if name.endswith("[t-1]") else "‖∂L/∂‖"
            assert f"{said} = {norm:.3e}" in boxes[f"{k}-{t}"].title or norm == 0
            shade = level(norm, flow.most, flow.span)
            assert boxes[f"{k}-{t}"].fill == (None if shade is None else f"q{shade}")
            compared += 1
    assert compared >= 8 * 4
    for wire in (p for p in drawing.scene.parts if isinstance(p, Wire) and p.kind == "backward" and "norm" in p.title):
        norm = float(wire.title.rpartition("norm ")[2])
        assert wire.width == pytest.approx(0.5 + 2.7 * level(norm, flow.most, flow.span) / LEVELS, abs=0.12)
    for name, norm in flow.parameters.items():
        assert norm == pytest.approx(np.linalg.norm(ray.totals[name]))


def test_heat_scale():
    assert decades([1, 0.5]) == 1
    assert decades([1, 1e-4]) == 4
    assert decades([1, 0.9e-4]) == 5
    assert decades([1, 1e-300, 0.0]) == 300
    assert decades([]) == 1
    assert [level(v, 1.0, 6) for v in (1, 1e-3, 1e-6, 1e-9)] == [12, 6, 0, 0]
    assert [level(v, 1.0, 6) for v in (None, 0.0, float("nan"), float("inf"))] == [None, None, LEVELS + 1, LEVELS + 1]


def test_long_sequences_have_a_gap_with_the_decay_over_it():
    svg = tr.draw(tr.cells.RNN, steps=12, gradients=True, loss="last").svg
    words = texts(sound(svg) and svg)
    assert [w for w in words if w.startswith("t = ")] == ["t = 1", "t = 2", "t = 12"]
    assert "9 steps" in words
    ray = tr.xray(tr.cells.RNN, steps=12).layer.gradients["h"]
    assert f"{ray[2]:.1e} ← {ray[10]:.1e}" in words
    words = texts(tr.draw(tr.cells.RNN, steps=12, show=[1, 5, -1]).svg)
    assert [w for w in words if w.startswith("t = ")] == ["t = 1", "t = 5", "t = 12"]
    assert words.count("⋯") == 2


def test_heat_strip_of_a_thousand_steps():
    drawing = tr.draw(tr.cells.RNN, steps=1000, show="heat", loss="last")
    sound(drawing.svg)
    assert len(drawing.svg) < 200_000
    assert "1000" in texts(drawing.svg)
    assert "‖∂L/∂·‖" in drawing.text()


def test_values_of_the_user():
    rng = np.random.default_rng(0)
    values = {"W_ih": rng.normal(size=(5, 3)), "x": rng.normal(size=(4, 2, 3)), "h[0]": np.ones((2, 5))}
    drawing = tr.draw(tr.cells.RNN, gradients=True, values=values, loss=lambda ys: (ys[-1] * ys[0]).sum())
    assert "values as given, x = 3, h = 5, 2 rows" in " ".join(texts(drawing.svg))
    graph = tr.cells.RNN.rolled(4, x=3, h=5, batch=2, loss=lambda ys: (ys[-1] * ys[0]).sum())
    run = graph.run(subject_of_cell(tr.cells.RNN, None, values).values)
    assert f"L = {float(run['loss']):.4g}" in texts(drawing.svg)


# ---- graphs, passes, models

def test_graphs_of_any_kind(renderer):
    for graph in (tr.cells.GRU.graph(), tr.cells.GRU.unroll(2, gradients=True), tr.cells.LSTM.rolled(4, gradients=True)):
        drawing = graph.draw()
        sound(drawing.svg)
        assert drawing.text() == str(graph)
    assert "scan, 4 steps, backwards" in texts(drawing.svg)
    with pytest.raises(tr.TinyRNNError, match="at most 3,000"):
        tr.cells.LSTM.unroll(200).draw()


def test_a_pass_before_and_after(renderer):
    before = tr.cells.LSTM.rolled(3, gradients=True)
    for name, transform in PIPELINE:
        after = transform(before)
        drawing = tr.draw(before, after=after)
        root = sound(drawing.svg)
        titles = [g.find(f"{SVG}title").text for g in root.iter(f"{SVG}g") if "node" in g.get("class", "").split()]
        if name in ("partition", "merge_products", "hoist", "defer", "fuse"):
            assert any(t.endswith((", gone", ", new")) for t in titles), name
        assert any(t.endswith(", same") for t in titles), name
        before = after
    same = tr.draw(before, after=before)
    assert any(w.startswith("before: 0 went (marked ✕)") for w in texts(same.svg))
    with pytest.raises(tr.TinyRNNError, match="expected the graph"):
        tr.draw(before, after="x")


class Mine(tr.nn.Module):
    def __init__(self):
        self.layer, self.out = tr.nn.LSTM(3, 4, rng=0), tr.nn.Linear(4, 2, rng=1)

    def __call__(self, x):
        return self.out(self.layer(x)[0])


def test_models_layer_by_layer():
    stack = tr.nn.Sequential(tr.nn.Embedding(10, 4, rng=0), tr.nn.LSTM(4, 5, num_layers=2, bidirectional=True, rng=1),
                             tr.nn.Bidirectional(tr.nn.Recurrent("mgu", x=10, h=4, rng=0)), tr.nn.Dropout(0.5), tr.nn.Linear(8, 3, rng=2))
    words = texts(tr.draw(stack).svg)
    assert {"1: LSTM l0", "1: LSTM l1_reverse", "2.backward: Recurrent", "concat", "27 parameters"} <= set(words)
    assert words.count("previous step") == words.count("next step") == 3
    total = sum(t.size for t in stack.parameters())
    own = [int(w.split()[0].replace(",", "")) for w in words if re.fullmatch(r"[\d,]+ parameters?", w)]
    assert sum(own) == total
    seq2seq = tr.nn.EncoderDecoder(12, 9, 6, attention="dot", num_layers=2, rng=0)
    for model in (stack, seq2seq, Mine(), tr.nn.GRU(3, 4), tr.nn.Recurrent("lstm", x=2, h=3, rng=0), tr.nn.Linear(2, 3)):
        drawing = model.draw()
        sound(drawing.svg)
        assert drawing.text() == str(model.summary())
        assert drawing.html.count("<details>") == len(drawing.inside) == len(
            {m.cell for _, m in model.named_modules() if m.cell is not None})
    words = texts(tr.draw(seq2seq).svg)
    assert any(w.startswith("attention") for w in words)
    assert "layer: LSTM, 144 parameters" in texts(tr.draw(Mine()).svg)


# ---- hostile names

HOSTILE = ["<script>alert(1)</script>", "\"onload=\"alert(1)", "javascript:alert(1)", "a\nb\rc", "nul\0nul", "\u202eevil\u2066", "a:b:c",
           "&lt;&#x41;]]>", "x" * 100_000, "\\N\\G\\L", "\ud800"[:0] + "é∂漢"]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_come_out_as_text(name, renderer, tmp_path):
    x, w = tr.input(name, (2, 3)), tr.parameter(np.ones((3, 3)), name=name)
    graph = tr.Graph({name: tr.tanh(x @ w).sum()})
    cell = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])", name)

    class Evil(tr.nn.Module):
        def __init__(self):
            setattr(self, name, tr.nn.GRU(2, 3, rng=0))

        def __call__(self, x):
            return getattr(self, name)(x)[0]

    model = Evil()
    for drawing in (graph.draw(), tr.draw(cell), tr.draw(cell, steps=2, gradients=True), model.draw(), tr.draw(graph, after=graph)):
        root = sound(drawing.svg)
        assert len(drawing.svg) < 120_000
        assert "<script" not in drawing.svg
        assert not [a for e in root.iter() for a in e.attrib if a.startswith("on")]
        assert "<script" not in drawing.html
        source = drawing.dot
        out = subprocess.run([run_dot.find(), "-Knop2", "-Tsvg"], input=source.encode(), capture_output=True, check=True).stdout
        assert b"<script" not in out
        assert b"href" not in out.replace(b"xmlns:xlink", b"")
    page = tr.page(cell, steps=2).html
    assert page.count("<script") == 2
    html = tr.page(model, None, np.ones((1, 2, 2), "float32")).html
    assert html.count("<script") == 2
    assert "\0" not in html
    assert "\u202e" not in html


# ---- formats, themes, bytes

def test_formats(tmp_path):
    drawing = tr.draw(tr.cells.GRU, tmp_path / "g.svg", steps=2)
    for ending, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("dot", b"digraph"), ("html", b"<!doctype html>"), ("txt", b"%0")):
        drawing.save(tmp_path / f"g.{ending}")
        assert (tmp_path / f"g.{ending}").read_bytes().startswith(start)
    assert set(drawing._repr_mimebundle_()) == {"image/svg+xml", "text/plain"}
    assert "image/svg+xml" in tr.cells.GRU.graph()._repr_mimebundle_()
    assert "image/svg+xml" not in tr.cells.GRU.unroll(20)._repr_mimebundle_()
    assert "image/svg+xml" in tr.nn.GRU(2, 3)._repr_mimebundle_()
    with pytest.raises(tr.TinyRNNError, match=r"use \.svg"):
        drawing.save(tmp_path / "g.gif")


def test_png_shows_what_the_svg_says(tmp_path):
    """Fonts come with tinyrnn: text is there on a machine without any."""
    import zlib

    tr.draw(tr.cells.GRU, tmp_path / "g.png")
    data = (tmp_path / "g.png").read_bytes()
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    scene = tr.draw(tr.cells.GRU).scene
    assert (width, height) == tuple(round(2 * s) for s in scene.size)
    chunks, at = b"", 8
    while at < len(data):
        n = int.from_bytes(data[at : at + 4], "big")
        chunks += data[at + 8 : at + 8 + n] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += n + 12
    rows = np.frombuffer(zlib.decompress(chunks), np.uint8).reshape(height, -1)
    assert len(np.unique(rows[30:60])) > 20  # the title


def test_png_of_a_given_size(tmp_path):
    drawing = tr.draw(tr.cells.RNN)
    for options, wide in (({"dpi": 72}, drawing.scene.size[0]), ({"dpi": 300}, round(drawing.scene.size[0] * 300 / 72)), ({"width": 1920}, 1920)):
        drawing.save(tmp_path / "p.png", **options)
        assert int.from_bytes((tmp_path / "p.png").read_bytes()[16:20], "big") == wide
    for name, options, message in (("p.png", {"dpi": 0}, "dpi=0: expected a number from 1"), ("p.png", {"width": "wide"}, "width='wide'"),
                                   ("p.png", {"dpi": 72, "width": 100}, "give one of them"), ("p.svg", {"dpi": 72}, "has no pixels"),
                                   ("p.png", {"width": 10**6}, "at most 16,000 pixels")):
        with pytest.raises(tr.TinyRNNError, match=message):
            drawing.save(tmp_path / name, **options)


def test_dot_is_honest(renderer, tmp_path):
    """Any Graphviz reads it, keeps the places with nop2, and finds the same nodes, edges and clusters."""
    drawing = tr.draw(tr.cells.LSTM, steps=3, gradients=True)
    for engine in ("nop2", "dot"):
        out = subprocess.run([run_dot.find(), f"-K{engine}", "-Tsvg"], input=drawing.dot.encode(), capture_output=True, check=True)
        kinds = re.findall(r'class="(\w+)', out.stdout.decode())
        assert kinds.count("cluster") == 4  # three steps and the parameters
        assert kinds.count("edge") == sum(isinstance(p, Wire) and p.ends[0] != p.ends[1] for p in drawing.scene.parts)


def test_themes():
    auto, light, dark, paper = (tr.draw(tr.cells.GRU, theme=t).svg for t in ("auto", "light", "dark", "print"))
    assert "prefers-color-scheme:dark" in auto
    assert "prefers-color-scheme" not in light
    assert palette("dark")["background"] in dark
    assert set(re.findall(r"#[0-9a-f]{6}", paper)) <= {*palette("print").values(), "#808080"}
    with pytest.raises(tr.TinyRNNError, match="theme='neon'"):
        tr.draw(tr.cells.GRU, theme="neon")


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_is_readable_on_every_fill(theme):
    paint = palette(theme)
    for name, colour in paint.items():
        if name not in INKS:
            assert contrast(paint["text"], colour) >= 4.5, name
    for ink in ("quiet", "forward", "backward"):
        for ground in ("background", "panel"):
            assert contrast(paint[ink], paint[ground]) >= (4.5 if ink != "forward" else 3), (ink, ground)
    assert contrast(paint["line"], paint["background"]) >= 3


def test_same_bytes_in_every_process():
    code = ("import tinyrnn as tr, hashlib; g = tr.cells.GRU; m = tr.nn.LSTM(2, 3, num_layers=2, bidirectional=True, rng=0);"
            "d = [tr.draw(g), tr.draw(g, steps=7, gradients=True), tr.draw(g, steps=40, show='heat'), tr.draw(g.graph()), m.draw(),"
            " tr.draw(g.rolled(3, gradients=True))]; "
            "print(*(hashlib.sha256((x.svg + x.dot).encode()).hexdigest() for x in d), hashlib.sha256(tr.page(g).html.encode()).hexdigest())")
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONHASHSEED": str(seed), "TINYRNN_DOT": PURE}).stdout for seed in (0, 1, 2)}
    assert len(runs) == 1


def test_several_pictures_on_one_page_share_no_id():
    a, b = tr.draw(tr.cells.GRU).svg, tr.draw(tr.cells.LSTM).svg
    ids = [set(re.findall(r' id="([^"]+)"', s)) for s in (a, b)]
    assert not ids[0] & ids[1]


# ---- mistakes

def test_mistakes():
    for use, message in ((lambda: tr.draw("lstm"), "a cell, a list of cells, a model or a graph"), (lambda: tr.draw(tr.cells.GRU, gradients=True), "steps="),
                         (lambda: tr.draw(tr.cells.GRU, steps=0), "steps=0"), (lambda: tr.draw(tr.cells.GRU.graph(), steps=2), "drawn as it is"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, show="some"), "show='some'"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, show=[4]), "the steps are 1 to 3"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, loss="last"), "belong to a run"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, gradients=True, loss="most"), "loss='most'"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, gradients=True, values={"q": 1}), "nothing called 'q'"),
                         (lambda: tr.draw(tr.cells.GRU, after=tr.cells.GRU.graph()), "compares two graphs"),
                         (lambda: tr.draw(tr.cells.GRU, format="poster"), "format='poster': expected one of wide, page, slide"),
                         (lambda: tr.draw(tr.cells.GRU, detail="atoms"), "detail='atoms'"),
                         (lambda: tr.draw(tr.cells.GRU, direction="up"), "direction='up'"),
                         (lambda: tr.draw(tr.cells.GRU, parameters="no"), "parameters='no'"),
                         (lambda: tr.draw(tr.cells.GRU, title=3), "title=3"),
                         (lambda: tr.draw(tr.cells.GRU, font_size="large"), "font_size='large'"),
                         (lambda: tr.draw([]), "a list to draw holds cells"), (lambda: tr.draw([tr.cells.GRU, 3]), "holds cells"),
                         (lambda: tr.draw([tr.cells.GRU] * 2, steps=3), "show='heat'"),
                         (lambda: tr.draw(tr.cells.GRU, show="heat"), "give steps="),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, scale=(0.1, 1)), "scale is of gradients or values"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, gradients=True, tokens=["a"] * 3), "tokens stand below heat strips"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, show="heat", scale=(0, 1)), "both above 0"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, show="values", scale=(1, 1)), "low < high"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, show="heat", scale="all"), "two numbers"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, show="values", tokens=["a"]), "a list of 3 words.*got 1 tokens"),
                         (lambda: tr.draw(tr.cells.LSTM, steps=3, detail="gates", format="slide"), "960 × 540: show fewer"),
                         (lambda: tr.draw(tr.cells.GRU, format=[]), r"format=\[\]"),
                         (lambda: tr.draw(tr.cells.GRU, format="slide", font_size=10), "letters on a slide have 22 points at least"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, show="heat", direction="down"), "not of heat strips"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, show="heat", detail="ops"), "not of heat strips"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, show="heat", tokens=5), "got int"),
                         (lambda: tr.draw(tr.cells.GRU, steps=3, show="values", scale=(-1e308, 1e308)), "difference is finite"),
                         (lambda: tr.draw([tr.cells.LSTM] * 9, steps=9, show="heat", format="slide"), "draw fewer cells"),
                         (lambda: tr.draw(tr.cells.LSTM.unroll(3, gradients=True), format="slide"), "draw a smaller graph")):
        with pytest.raises(tr.TinyRNNError, match=message):
            use()


def test_which_renderer(monkeypatch, tmp_path):
    monkeypatch.delenv("TINYRNN_DOT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run_dot.sys, "executable", str(tmp_path / "python"))
    for what in (tr.cells.GRU.graph(), tr.cells.GRU, tr.nn.GRU(2, 3)):
        with pytest.raises(DrawError, match="there is none here: pip install graphviz-pure, or install Graphviz"):
            assert tr.draw(what).svg
    monkeypatch.setenv("TINYRNN_DOT", "nonsense")
    with pytest.raises(DrawError, match="TINYRNN_DOT='nonsense' is not a program"):
        assert tr.draw(tr.cells.GRU).svg


def test_a_renderer_that_fails_is_quoted(monkeypatch, tmp_path):
    fake = tmp_path / "dot"
    fake.write_text("#!/bin/sh\necho 'syntax error in line 1' >&2\nexit 3\n")
    os.chmod(fake, 0o755)
    monkeypatch.setenv("TINYRNN_DOT", str(fake))
    with pytest.raises(DrawError, match="syntax error in line 1"):
        assert tr.draw(tr.cells.GRU).svg
    fake.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(DrawError, match="is it Graphviz"):
        assert tr.draw(tr.cells.GRU).svg
    with pytest.raises(DrawError, match="says 'hello' of its version"):
        run_dot.version()
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(run_dot, "PATIENCE", 0.2)
    with pytest.raises(DrawError, match="still drawing after"):
        assert tr.draw(tr.cells.GRU).svg


def test_formats_without_their_packages(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(DrawError, match="pip install resvg-py"):
        tr.draw(tr.cells.GRU, tmp_path / "g.png")
    with pytest.raises(DrawError, match="pip install typst"):
        tr.draw(tr.cells.GRU, tmp_path / "g.pdf")
    assert not list(tmp_path.iterdir())
