"""The interactive page: what it says against the engine's numbers, and how it behaves in a headless Chromium."""

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.analysis.subject import subject_of_cell

from . import browser
from .browser import needs_browser

BUILD = Path(__file__).parents[1] / "build" / "pages"
CELLS = ["lstm", "gru", "rnn", "mgu", "elman", "jordan", "lstm_peephole", "indrnn"]


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.html, re.S)[1])


@pytest.mark.parametrize("name", CELLS)
def test_numbers_are_those_of_the_engine(name):
    """Values and gradients of every named stop; running sums end at the engine's gradients."""
    cell = tr.cells[name]
    data = data_of(tr.page(cell, steps=4))[0]
    ray = tr.xray(cell, steps=4, loss="sum")
    values = dict(subject_of_cell(cell, 4).values)
    run = cell.unroll(4, {k: n for n, k in enumerate(cell.sizes, 2)}, gradients=True).run(values)
    assert data["loss"] == pytest.approx(float(run["loss"]), rel=1e-3)  # four digits, as all numbers of a page
    states = [s for s in data["stops"] if s["direction"] == "f" and re.fullmatch(r"[a-z][₁₂₃₄]", s["name"])]
    index = str.maketrans("₁₂₃₄", "1234")
    compared = 0
    for stop in states:
        text = stop["name"].translate(index)
        key = f"{text[0]}[{text[1]}]"
        if key in run:
            np.testing.assert_allclose(stop["value"], run[key][0], rtol=1e-3, atol=1e-12)
            compared += 1
    assert compared >= 4
    for stop in data["stops"]:
        text = stop["name"].translate(index)
        if stop["direction"] == "b" and re.fullmatch(r"[a-z]\d", text) and text[0] in ray.layer.gradients and stop["step"] == int(text[1]):
            assert (stop["norm"] or 0) == pytest.approx(ray.layer.gradients[text[0]][stop["step"] - 1], rel=1e-3, abs=1e-12)
    for p, found in data["parameters"].items():
        last = found["parts"][-1]
        np.testing.assert_allclose(last["sum"], run[f"dloss/d{p}"], rtol=2e-3, atol=1e-9)
        assert [e["step"] for e in found["parts"]] == [4, 3, 2, 1]
        assert sorted(e["stop"] for e in found["parts"]) == [e["stop"] for e in found["parts"]]
        np.testing.assert_allclose([e["norm"] for e in found["parts"]], ray.layer.parameters[p][::-1], rtol=1e-3, atol=1e-12)


def test_what_arrives_is_the_sum_of_what_is_sent():
    """The norm of a gradient is at most the sum of the norms of its parts; one part alone is all of it."""
    for stop in data_of(tr.page(tr.cells.LSTM))[0]["stops"]:
        if stop["direction"] == "b" and stop["norm"]:
            parts = [v or 0 for _, v in stop["from"]]
            assert sum(parts) >= stop["norm"] * 0.999, stop["name"]
            if len(parts) == 1:
                assert parts[0] == pytest.approx(stop["norm"], rel=1e-3)


def test_one_file_that_may_ask_for_nothing(tmp_path):
    page = tr.page(tr.cells.LSTM, tmp_path / "lstm.html", steps=6)
    assert (tmp_path / "lstm.html").stat().st_size < 300_000
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page.html)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        for text in re.findall(rf"<{kind}>(.*?)</{kind}>", page.html, re.S):
            assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert not re.findall(r'(?:src|href)="', page.html)
    assert set(re.findall(r"https?://[^\"'\\ )]+", page.html)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}
    assert not re.search(r'\son\w+="', page.html)
    assert page._repr_html_().startswith('<iframe srcdoc="')
    with pytest.raises(tr.TinyRNNError, match=r"saved as \.html"):
        page.save(tmp_path / "page.svg")


def model():
    return tr.nn.Sequential(tr.nn.Embedding(10, 4, rng=0), tr.nn.LSTM(4, 3, bidirectional=True, rng=1), tr.nn.Linear(6, 3, rng=2))


def pages():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 10, (2, 4)), rng.integers(0, 3, (2, 4))
    yield "model", tr.page(model(), None, x, y, lengths=[4, 2])
    yield "encoder_decoder", tr.page(tr.nn.EncoderDecoder(10, 5, 3, attention="dot", rng=0), None, (x, y), y)
    yield "lag2", tr.page(tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + V @ h[t-2])", "lag2"), steps=5)
    for name in tr.cells.names():
        yield name, tr.page(tr.cells[name], steps=4)


@needs_browser
@pytest.mark.slow
def test_every_page_passes_its_own_test():
    """Each page walks through all of its stops by itself."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for name, page in pages():
        file = BUILD / f"{name}.html"
        page.save(file)
        with browser.opened(f"{file.as_uri()}#selftest") as tab:
            assert tab.evaluate("document.documentElement.dataset.selftest").startswith("PASS"), name
            assert not tab.complaints, (name, tab.complaints)
            assert tab.requests == [f"{file.as_uri()}#selftest"] or tab.requests == [file.as_uri()], name


@needs_browser
def test_a_reader_at_the_keyboard(tmp_path):
    BUILD.mkdir(parents=True, exist_ok=True)
    file = BUILD / "lstm.html"
    tr.page(tr.cells.LSTM, file)
    with browser.opened(file.as_uri(), viewport={"width": 1300, "height": 900}) as tab:
        def said():
            return tab.inner_text("#message")

        assert "169 stops" in said()
        tab.keyboard.press("ArrowRight")
        assert said().startswith("forward 1 of 169")
        tab.keyboard.press("End")
        assert said().startswith("backward 169 of 169")
        tab.keyboard.press("ArrowLeft")
        assert said().startswith("backward 168")
        tab.keyboard.press("Home")
        assert "169 stops" in said()
        tab.click("#next")
        tab.evaluate("show(85)")
        assert said().startswith("the loss: L = ")
        tab.select_option("#parameter", "W_hf")
        tab.evaluate("show(169)")
        assert "parts of 6 of 6 steps" in tab.inner_text("#stop")
        tab.locator("#picture svg [data-parameter=b_ig]").last.click()
        assert tab.input_value("#parameter") == "b_ig"
        gate = tab.locator(".node.gate").nth(2)
        gate.focus()
        tab.keyboard.press("Enter")
        assert "on" in gate.get_attribute("class").split()
        tab.check("#strong")
        assert tab.locator(".node.marked").count() > 3
        tab.select_option("#through", "c₃")
        assert not tab.is_checked("#strong")
        marked = tab.locator(".node.marked").count()
        assert 10 < marked < tab.locator(".node").count()
        assert tab.locator("#stop math").count() >= 2
        assert tab.get_attribute("#message", "aria-live") == "polite"
        assert tab.requests == [file.as_uri()]
        assert not tab.complaints
        tab.screenshot(path=str(BUILD / "lstm_light.png"))


@needs_browser
def test_dark_and_narrow():
    file = BUILD / "gru.html"
    BUILD.mkdir(parents=True, exist_ok=True)
    tr.page(tr.cells.GRU, file)
    for name, options in {"dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 800}},
                          "phone": {"viewport": {"width": 360, "height": 740}, "is_mobile": True}}.items():
        with browser.opened(f"{file.as_uri()}#stop=120", **options) as tab:
            wide = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, "only the picture scrolls sideways"
            ground = tab.evaluate("getComputedStyle(document.querySelector('#picture svg .background')).fill")
            assert (ground == "rgb(20, 23, 26)") == (name == "dark")
            assert not tab.complaints
            tab.screenshot(path=str(BUILD / f"gru_{name}.png"))


@needs_browser
def test_the_self_test_can_fail(tmp_path):
    """A page whose boxes lost their ids says so."""
    html = tr.page(tr.cells.RNN, steps=2).html
    broken = html.replace('"node":"n0-1"', '"node":"nowhere"')
    assert broken != html
    (tmp_path / "broken.html").write_text(broken)
    with browser.opened(f"{(tmp_path / 'broken.html').as_uri()}#selftest") as tab:
        assert tab.evaluate("document.documentElement.dataset.selftest").startswith("FAIL")


def test_mistakes():
    for use, message in ((lambda: tr.page("lstm"), "takes a cell or a model"), (lambda: tr.page(tr.nn.GRU(2, 3)), "made from data"),
                         (lambda: tr.page(tr.cells.GRU, steps=100), "at most 24"),
                         (lambda: tr.page(tr.nn.Linear(2, 3), None, np.ones((2, 2))), "no recurrence")):
        with pytest.raises(tr.TinyRNNError, match=message):
            use()
