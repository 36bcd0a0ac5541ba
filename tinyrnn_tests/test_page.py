"""The interactive page: what it says against the engine's numbers, and how it behaves in a headless Chromium."""

import base64
import hashlib
import json
import re
from html import unescape
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.analysis.cell_run import cell_run
from tinyrnn.analysis.subject import subject_of_cell

from . import browser
from .browser import needs_browser
from .test_worked import computed

BUILD = Path(__file__).parents[1] / "build" / "pages"
CELLS = ["lstm", "gru", "rnn", "mgu", "elman", "jordan", "lstm_peephole", "indrnn"]


def told_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.html, re.S)[1])


def data_of(page):
    return told_of(page)["pictures"]


SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


@pytest.mark.parametrize("name", CELLS)
def test_numbers_are_those_of_the_engine(name):
    """Values, gradients, what goes into gates and δ of every named stop; running sums end at the engine's gradients."""
    cell = tr.cells[name]
    data = data_of(tr.page(cell, steps=4))[0]
    subject = subject_of_cell(cell, 4)
    run = cell.unroll(4, {k: n for n, k in enumerate(cell.sizes, 2)}, gradients=True).run(dict(subject.values))
    own = cell_run(cell, subject, tr.derive(cell).arguments)
    assert data["loss"] == pytest.approx(float(run["loss"]), rel=1e-3)  # four digits, as all numbers of a page
    compared = set()
    for stop in data["stops"]:
        text = stop["name"].translate(SUBSCRIPTS)
        where = re.fullmatch(r"([a-z]+)(\d)", text)
        if not where:
            continue
        key = where[1], int(where[2])
        if stop["direction"] == "f" and key in own.values:
            np.testing.assert_allclose(stop["value"], own.values[key], rtol=1e-3, atol=1e-12)
            compared.add(("f", key))
        if stop["direction"] == "b" and key in own.gradients and stop["gradient"] is not None:
            np.testing.assert_allclose(stop["gradient"], own.gradients[key], rtol=1e-3, atol=1e-12)
            compared.add(("b", key))
        mark = f"a_{key[0]}"
        if "delta" in stop:
            np.testing.assert_allclose(stop["delta"][1], own.gradients[mark, key[1]], rtol=1e-3, atol=1e-12)
            np.testing.assert_allclose(stop["argument"][1], own.values[mark, key[1]], rtol=1e-3, atol=1e-12)
            compared.add(("δ", key))
    assert len(compared) > 10
    assert {d for d, _ in compared} >= {"f", "b"}
    for p, found in data["parameters"].items():
        np.testing.assert_allclose(found["value"], subject.values[p], rtol=2e-3)
        np.testing.assert_allclose(found["parts"][-1]["sum"], run[f"dloss/d{p}"], rtol=2e-3, atol=1e-9)
        assert [e["step"] for e in found["parts"]] == [4, 3, 2, 1]
        assert sorted(e["stop"] for e in found["parts"]) == [e["stop"] for e in found["parts"]]


def test_numbers_are_put_in():
    """Every line is arithmetic that holds, on weights that the user gave."""
    values = {"W": [[0.5]], "U": [[0.8]], "b": [0.1], "x": [[1], [2], [-1]]}
    data = data_of(tr.page(tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)"), values=values, loss="last"))[0]
    lines = [line for stop in data["stops"] for line in stop.get("lines", ())]
    assert {"a_h₁ = W·x₁ + U·h₀ + b = 0.5·1 + 0.8·0 + 0.1 = 0.6", "h₁ = tanh(a_h₁) = tanh(0.6) = 0.537", "∂L/∂h₂ = U·δ₃ = 0.8·0.9 = 0.72",
            "δ₃ = ∂L/∂h₃·(1 − h₃²) = 1·(1 − 0.317²) = 0.9"} <= {*lines}
    checked = 0
    for name in ("lstm", "gru", "lstm_peephole"):
        cell = tr.cells[name]
        for stop in data_of(tr.page(cell, steps=3, sizes=dict.fromkeys(cell.sizes, 1)))[0]["stops"]:
            for line in stop.get("lines", ()):
                *_, put, result = line.split(" = ")
                if computed(put) is not None:
                    checked += 1
                    assert computed(put) == pytest.approx(computed(result), rel=0.02, abs=2e-3), line
    assert checked > 100
    assert data["parameters"]["U"]["value"] == [[0.8]]


def test_what_arrives_is_the_sum_of_what_is_sent():
    """A gradient is the sum of its parts, with their signs."""
    compared = 0
    for stop in data_of(tr.page(tr.cells.LSTM))[0]["stops"]:
        if stop["direction"] == "b" and stop["norm"]:
            parts = [part for _, part, _ in stop["from"] if part is not None]
            assert sum(norm or 0 for _, _, norm in stop["from"]) >= stop["norm"] * 0.999, stop["name"]
            if len(parts) == len(stop["from"]):
                np.testing.assert_allclose(np.sum(parts, axis=0), stop["gradient"], rtol=5e-3, atol=1e-3)
                compared += 1
    assert compared > 40


def test_no_number_is_met_twice():
    """Boxes of one value are one stop: a state that enters a step is that of the step before."""
    for name in ("lstm", "gru", "rnn"):
        data = data_of(tr.page(tr.cells[name], steps=5))[0]
        for direction in "fb":
            names = [s["name"] for s in data["stops"] if s["direction"] == direction]
            assert len(names) == len(set(names))
        values = [tuple(np.ravel(s["value"])) for s in data["stops"] if s["direction"] == "f" and s["step"] > 1]
        assert len(values) == len(set(values)), name
        assert {*data["forward"]} == {*data["backward"]}
        assert all(data["forward"][k] < data["backward"][k] for k in data["forward"] if k != "loss")


def test_nothing_is_given_away():
    """Numbers stand in the script's data alone: neither in boxes nor in what is said of them nor in tooltips."""
    page = tr.page(tr.cells.LSTM, steps=3)
    loss = f"{data_of(page)[0]['loss']:.3g}"
    picture = page.html.partition('<div class="layer">')[2].partition('id="panel"')[0]
    assert "‖" not in picture
    assert loss not in picture
    assert not re.search(r"\d\.\d+e[-+]\d", re.sub(r"<style>.*?</style>", "", picture))
    assert not re.search(r"[-−]?0\.\d\d\d", " ".join(re.findall(r">([^<]+)<", re.sub(r"<style>.*?</style>", "", picture))))


def test_a_whole_model_with_its_head_and_its_loss():
    """Values and gradients of every box of a small model, the loss, and the gradients of all weights."""
    rng = np.random.default_rng(3)
    model = tr.nn.Sequential(tr.nn.RNN(2, 3, rng=0), tr.nn.Last(), tr.nn.Linear(3, 2, rng=1))
    x, y = rng.normal(size=(1, 4, 2)).astype("f"), rng.normal(size=(1, 2)).astype("f")
    whole, cell = data_of(tr.page(model, None, x, y, loss="mse"))
    assert whole["name"] == "the whole Sequential"
    named = {(s["direction"], s["name"].translate(SUBSCRIPTS)): s for s in whole["stops"]}
    out = model(x)
    np.testing.assert_allclose(named["f", "y"]["value"], out.numpy()[0], rtol=2e-3)
    np.testing.assert_allclose(named["b", "y"]["gradient"], (out.numpy() - y)[0], rtol=2e-3)
    np.testing.assert_allclose(named["f", "x2"]["value"], x[0, 1], rtol=2e-3)
    assert whole["loss"] == pytest.approx(float(((out.numpy() - y) ** 2).mean()), rel=1e-3)
    for name, t in model.named_parameters():
        (gradient,) = tr.grad(((model(x) - y) ** 2).mean(), [t])
        np.testing.assert_allclose(whole["parameters"][name]["parts"][0]["sum"], gradient.numpy(), rtol=5e-3, atol=1e-5)
        np.testing.assert_allclose(whole["parameters"][name]["value"], t.numpy(), rtol=2e-3)
    states = [s["value"] for s in whole["stops"] if s["direction"] == "f" and s["name"].startswith("RNN of step")]
    np.testing.assert_allclose(states[-1], tr.nn.Sequential(*model.layers[:2])(x).numpy()[0], rtol=5e-3, atol=1e-4)
    assert len(cell["stops"]) > 10
    assert ("f", "Last") not in named  # it hands on what it reads
    (line,) = named["f", "y"]["lines"]
    assert line.startswith("y = W·(RNN of step 4) + b = [[")
    (line,) = next(s for s in whole["stops"] if s["direction"] == "L")["lines"]
    assert re.match(r"L = mse\(y; target\) = mse\(\[.*\]; \[.*\]\) = ", line)
    start = named["b", "h0"]
    assert len(start["gradient"]) == 3
    assert named["f", "h0"]["value"] == [0, 0, 0]


@pytest.mark.parametrize("loss", ["last", "sum"])
@pytest.mark.parametrize("text", ["h[t] = tanh(W @ x[t-1] + V @ x[t])", "h[t] = tanh(W @ x[t] + U @ h[t-1] + V @ h[t-2])", "h[t] = tanh(W @ x[t] + U @ h[t-1])"])
def test_the_strongest_path_goes_by_what_is_read(text, loss):
    """From the loss to the first step, each box one that the box before it reads; of what leads to no loss there is none."""
    (data,) = data_of(tr.page(tr.Cell(text), steps=3, loss=loss))
    edges = {(b, a) for a, b in data["edges"]}
    assert all({*pairwise(path)} <= edges for path in data["strongest"])
    assert len(data["strongest"]) == len(tr.Cell(text).slots) - (loss == "last" and "x[t-1]" in text)


def test_derivatives_of_data_and_of_the_first_state_have_lines():
    cell = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
    (data,) = data_of(tr.page(cell, steps=2, values={"W": [[0.5]], "U": [[0.8]], "b": [0.1], "x": [[1], [2]]}, loss="last"))
    lines = {s["name"]: s["lines"] for s in data["stops"] if s["direction"] == "b"}
    assert lines["x₁"] == ["∂L/∂x₁ = W·δ₁ = 0.5·0.0975 = 0.0487"]
    assert lines["h₀"] == ["∂L/∂h₀ = U·δ₁ = 0.8·0.0975 = 0.078"]


GIVEN = {"W": [0.3], "V": [-0.5], "U": [-0.9], "x": [[0.6], [0.1], [-0.5]]}
ODD = {"delayed": ("h[t] = tanh(W * x[t] + V * x[t-1] + U * h[t-1])", GIVEN), "two late": ("h[t] = tanh(W * x[t] + V * x[t-2] + U * h[t-1])", GIVEN),
       "leaky": ("k = 0.3\nh[t] = k * h[t-1] + (1 - k) * tanh(W * x[t] + U * h[t-1])", {k: GIVEN[k] for k in "WUx"}),
       "learned": ("h[0]: learned\nh[t] = tanh(W @ x[t] + U @ h[t-1] + b)", None), "where": ("h[t] = where(x[t] > 0, tanh(W * x[t]), U * h[t-1] ** 2)", {k: GIVEN[k] for k in "WUx"})}


@pytest.mark.parametrize("name", ODD)
def test_lines_end_in_the_number_of_the_stop(name):
    """Whatever a line computes is what the engine says; what is within a formula has no line of half of it."""
    text, values = ODD[name]
    sizes = None if values else {"h": 1, "x": 1}
    (data,) = data_of(tr.page(tr.Cell(text), steps=3, values=values, sizes=sizes, loss="sum"))
    seen = 0
    for stop in data["stops"]:
        for line in stop.get("lines", ()):
            left, *_, numbers, result = line.split(" = ")
            if left.startswith(("δ", "a_")):
                continue
            number = stop.get("value" if stop["direction"] == "f" else "gradient")
            assert computed(result) == pytest.approx(np.ravel(number)[0], rel=6e-3, abs=1e-9), line
            if computed(numbers) is not None:
                assert computed(numbers) == pytest.approx(computed(result), rel=0.03, abs=2e-3), line
                seen += 1
    assert seen > 4


def test_formulas_say_nothing_of_padding():
    model = tr.nn.Sequential(tr.nn.RNN(1, 1, rng=0), tr.nn.Linear(1, 1, rng=1))
    _, layer = data_of(tr.page(model, None, np.ones((1, 3, 1)), np.ones((1, 3, 1)), lengths=[2], loss="mse"))
    assert not any(stop.get("lines") for stop in layer["stops"])


def test_one_file_that_may_ask_for_nothing(tmp_path):
    page = tr.page(tr.cells.LSTM, tmp_path / "lstm.html", steps=6)
    assert (tmp_path / "lstm.html").stat().st_size < 350_000
    large = tr.page(model(), None, np.zeros((2, 6), int), np.zeros((2, 6), int))
    assert len(large.html.encode()) < 350_000
    assert "left out, the page would be too large" in large.html
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page.html)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        for text in re.findall(rf"<{kind}>(.*?)</{kind}>", page.html, re.S):
            assert f"'sha256-{base64.b64encode(hashlib.sha256(unescape(text).encode()).digest()).decode()}'" in policy
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
    with browser.opened(file.as_uri(), viewport={"width": 1280, "height": 720}) as tab:
        def said():
            return tab.inner_text("#message")

        assert "125 stops" in said()
        tab.select_option("#path", "all")
        tab.keyboard.press("Escape")
        tab.focus("#picture")
        tab.keyboard.press("ArrowRight")
        assert said().startswith("forward 1 of 125")
        tab.keyboard.press("End")
        assert said().startswith("backward 125 of 125")
        tab.keyboard.press("ArrowLeft")
        assert said().startswith("backward 124")
        tab.keyboard.press("Home")
        assert "125 stops" in said()
        tab.click("#next")
        tab.evaluate("show(63)")
        assert said().startswith("the loss: L = ")
        tab.evaluate("document.querySelector('#more').open = true")
        tab.select_option("#parameter", "W_hf")
        tab.evaluate("show(125)")
        assert "shares of 6 of 6 steps" in tab.inner_text("#stop")
        tab.evaluate("document.querySelector('#picture').scrollTo(0, 1e6)")
        tab.evaluate("document.querySelector('#more').open = false")
        tab.locator("#picture svg [data-parameter=b_ig]").last.click()
        assert tab.input_value("#parameter") == "b_ig"
        gate = tab.locator(".node.gate").nth(2)
        gate.focus()
        tab.keyboard.press("Enter")
        assert "on" in gate.get_attribute("class").split()
        tab.evaluate("document.querySelector('#more').open = true")
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
def test_the_guided_path_plays(tmp_path):
    """About a dozen captioned stops; play runs through them, pause holds."""
    file = tmp_path / "gru.html"
    tr.page(tr.cells.GRU, file, steps=4)
    with browser.opened(file.as_uri(), viewport={"width": 1280, "height": 720}) as tab:
        assert tab.input_value("#path") == "guide"
        captions = []
        for _ in range(20):
            before = tab.inner_text("#message")
            tab.click("#next")
            if tab.inner_text("#message") == before:
                break
            captions.append(tab.inner_text(".caption"))
        assert 9 <= len(captions) <= 14
        assert len(set(captions)) == len(captions)
        tab.click("#first")
        tab.select_option("#speed", "400")
        tab.click("#play")
        assert tab.inner_text("#play") == "⏸ pause"
        tab.wait_for_timeout(1000)
        tab.click("#play")
        held = tab.evaluate("at")
        tab.wait_for_timeout(900)
        assert tab.evaluate("at") == held > 0


@needs_browser
def test_nothing_is_seen_before_its_stop():
    """Before it is reached a box is empty and its gradient's wire is not there; forward shows values, backward gradients."""
    BUILD.mkdir(parents=True, exist_ok=True)
    file = BUILD / "rnn.html"
    tr.page(tr.cells.RNN, file, steps=3)
    fill = "n => getComputedStyle(n.querySelector('path,polygon,ellipse,rect')).fill"
    with browser.opened(file.as_uri(), viewport={"width": 1280, "height": 720}) as tab:
        tab.select_option("#path", "all")
        ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert set(tab.eval_on_selector_all(".node[id*='-n']", f"all => all.map({fill})")) == {ground}
        assert tab.eval_on_selector_all(".wire.backward.todo", "all => all.every((w) => getComputedStyle(w).opacity === '0')")
        last = tab.evaluate("page.stops.findIndex((s) => s.direction === 'L')")
        tab.evaluate(f"show({last})")
        forward = tab.eval_on_selector_all(".node[id*='-n']", f"all => all.map({fill})")
        assert all(f.startswith(("rgba(213, 94, 0", "rgba(0, 114, 178")) for f in forward)
        assert "L = " not in tab.inner_text("#panel")
        tab.evaluate("show(1000)")
        backward = tab.eval_on_selector_all(".node[id*='-n']", f"all => all.map({fill})")
        assert not {*forward} & {*backward}


@needs_browser
@pytest.mark.parametrize("kind", ["gru", "model", "scalars"])
def test_dark_and_narrow(kind):
    """The panel is in view while the picture scrolls, at 1280 × 720 and on a phone; nothing is cut or covered."""
    file, stop = BUILD / f"{kind}.html", {"gru": 80, "model": 40, "scalars": 8}[kind]
    BUILD.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    made = {"gru": lambda: tr.page(tr.cells.GRU), "model": lambda: tr.page(model(), None, rng.integers(0, 10, (2, 4)), rng.integers(0, 3, (2, 4))),
            "scalars": lambda: tr.page(tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])"), values={"W": [[0.5]], "x": [[1], [2]]})}
    made[kind]().save(file)
    for name, options in {"wide": {"viewport": {"width": 1280, "height": 720}}, "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 720}},
                          "phone": {"viewport": {"width": 390, "height": 740}, "is_mobile": True},
                          "phone_dark": {"viewport": {"width": 390, "height": 740}, "is_mobile": True, "color_scheme": "dark"}}.items():
        with browser.opened(f"{file.as_uri()}#stop={stop}", **options) as tab:
            size = options["viewport"]
            assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
            assert tab.evaluate("document.documentElement.scrollHeight - document.documentElement.clientHeight") <= 0
            for what in ("#panel", "#message", "#controls", "#picture", "#card", ".node.on"):
                box = tab.locator(what).first.bounding_box()
                assert box["x"] >= -1, (name, what, box)
                assert box["y"] >= -1, (name, what, box)
                assert box["x"] + box["width"] <= size["width"] + 1, (name, what, box)
                assert box["y"] + min(box["height"], 60) <= size["height"] + 1, (name, what, box)
            card, here = tab.evaluate("['#card', '.node.on'].map((s) => document.querySelector(s).getBoundingClientRect().toJSON())")
            assert card["top"] >= here["bottom"] or card["bottom"] <= here["top"], "the card covers its box"
            assert tab.eval_on_selector_all("#controls > *", "all => all.every((e) => e.scrollWidth <= e.clientWidth + 1)")
            ground = tab.evaluate("getComputedStyle(document.querySelector('#picture svg .background')).fill")
            assert (ground == "rgb(20, 23, 26)") == ("dark" in name)
            assert not tab.complaints
            tab.screenshot(path=str(BUILD / f"{kind}_{name}.png"))


@needs_browser
def test_the_self_test_can_fail(tmp_path):
    """A page whose boxes lost their ids says so."""
    html = tr.page(tr.cells.RNN, steps=2).html
    broken = html.replace('"node":"n1-1"', '"node":"nowhere"')
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
