"""Models over time: what is drawn is what depends on what, and the gradients on it are those of the model."""

from itertools import pairwise

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.errors import ArgumentError, ShapeError
from tinyrnn.viz.scene import BoxShape, Wire, Words

from . import browser
from .browser import needs_browser
from .extents import Rectangle, faults, smallest

T, S = 4, 3


MODELS = {
    "one to one": lambda: nn.Sequential(nn.Linear(3, 4, rng=0), nn.Lambda(tr.tanh), nn.Linear(4, 2, rng=1)),
    "one to many": lambda: nn.Sequential(nn.Linear(3, 4, rng=0), nn.Repeat(T), nn.GRU(4, 5, rng=1), nn.Linear(5, 2, rng=2)),
    "many to one": lambda: nn.Sequential(nn.Linear(3, 4, rng=0), nn.RNN(4, 5, rng=1), nn.Last(), nn.Linear(5, 2, rng=2)),
    "the mean": lambda: nn.Sequential(nn.LSTM(3, 5, rng=1), nn.Pool("mean"), nn.Linear(5, 2, rng=2)),
    "aligned": lambda: nn.Sequential(nn.Linear(3, 4, rng=0), nn.LSTM(4, 5, rng=1), nn.Linear(5, 2, rng=2)),
    "bidirectional": lambda: nn.Sequential(nn.GRU(3, 4, bidirectional=True, rng=0), nn.Linear(8, 2, rng=1)),
    "two directions, two layers": lambda: nn.Sequential(nn.LSTM(3, 4, num_layers=2, bidirectional=True, rng=0), nn.Linear(8, 2, rng=1)),
    "two directions, the last": lambda: nn.Sequential(nn.GRU(3, 4, bidirectional=True, rng=0), nn.Dropout(0.1), nn.Last(), nn.Linear(8, 2, rng=1)),
    "own cell, both ways": lambda: nn.Sequential(nn.Bidirectional(nn.Recurrent("mgu", x=3, h=4, rng=0), merge="sum"), nn.Linear(4, 2, rng=1)),
    "backward": lambda: nn.Sequential(nn.LSTM(3, 4, reverse=True, rng=0), nn.Last(), nn.Linear(4, 2, rng=1)),
    "deep": lambda: nn.Sequential(nn.RNN(3, 4, num_layers=3, rng=0), nn.LayerNorm(4), nn.Linear(4, 2, rng=1)),
    "read, then written": lambda: nn.Sequential(nn.RNN(3, 4, rng=0), nn.Last(), nn.Repeat(S), nn.GRU(4, 5, rng=1), nn.Linear(5, 2, rng=2)),
    "pooled, then written": lambda: nn.Sequential(nn.GRU(3, 4, bidirectional=True, rng=0), nn.Pool("mean"), nn.Linear(8, 3, rng=2), nn.Repeat(S), nn.LSTM(3, 4, reverse=True, rng=1)),
    "a layer alone": lambda: nn.GRU(3, 4, rng=0),
    "an encoder and a decoder": lambda: nn.EncoderDecoder(9, 8, 4, rng=0, bidirectional=False),
    "in both directions": lambda: nn.EncoderDecoder(9, 8, 4, rng=0, num_layers=2),
    "attention": lambda: nn.EncoderDecoder(9, 8, 4, rng=0, attention="dot"),
    "deep attention": lambda: nn.EncoderDecoder(9, 8, 4, rng=0, attention="bahdanau", num_layers=2)}
VECTORS = ("one to one", "one to many")


def steps_of(name):
    return (S, T) if isinstance(MODELS[name](), nn.EncoderDecoder) else 1 if name == "one to one" else T


def boxes(drawing):
    return {p.key: p for p in drawing.scene.parts if isinstance(p, BoxShape)}


def wires(drawing, *kinds):
    return [p for p in drawing.scene.parts if isinstance(p, Wire) and p.kind in kinds and not p.key.startswith("key-")]


def label(box):
    return box.lines[0] if box.lines else ""


def reached(drawing):
    """Which inputs every output comes from, by what stands in their boxes."""
    found, known = {}, boxes(drawing)
    before = {}
    for w in wires(drawing, "forward", "delay"):
        before.setdefault(w.ends[1], set()).add(w.ends[0])
    for key, box in known.items():
        if label(box).startswith("y") and "*" not in label(box) and key in before:
            stack, seen = [key], set()
            while stack:
                k = stack.pop()
                if k not in seen:
                    seen.add(k)
                    stack += before.get(k, ())
            found[label(box)] = {label(known[k]) for k in seen if known[k].square}
    return found


def depends(model, name):
    """The same by trying: an input is changed, and the outputs that change with it are noted."""
    rng, found = np.random.default_rng(0), {}
    if isinstance(model, nn.EncoderDecoder):
        source, target = rng.integers(1, 8, (1, S)), rng.integers(1, 7, (1, T))
        inputs = {f"x{p + 1}": (0, p) for p in range(S)} | {f"y*{p + 1}": (1, p) for p in range(T - 1)}

        def run(which=None):
            pair = [source.copy(), target.copy()]
            if which is not None:
                pair[which[0]][0, which[1]] += 1
            return model(*pair).numpy()[0]
    else:
        x = rng.normal(size=(1, 3) if name in VECTORS else (1, T, 3))
        inputs = {"x": None} if x.ndim == 2 else {f"x{p + 1}": p for p in range(T)}

        def run(which=0):
            y = x.copy()
            if which != 0:
                y[0, which[0]] += 0.5
            out = model(y)
            return (out[0] if isinstance(out, tuple) else out).numpy()[0]
    model.eval()
    plain = run()
    for label_, at in inputs.items():
        moved = run(at) if isinstance(model, nn.EncoderDecoder) else run((at if at is not None else slice(None),))
        changed = np.abs(moved - plain).reshape(plain.shape[0] if plain.ndim == 2 else 1, -1).max(1) > 0
        for t in np.flatnonzero(changed):
            found.setdefault("y" if plain.ndim == 1 else f"y{t + 1}", set()).add(label_)
    return found


def digits(text):
    return text.translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))


@pytest.mark.parametrize("detail", [None, "block"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_drawn_is_what_depends_on_what(name, detail):
    """From an input a way leads to an output exactly where the output changes with the input."""
    model = MODELS[name]()
    drawn = reached(model.draw(steps=steps_of(name), detail=detail))
    seen = {digits(y): {digits(x) for x in xs} - {"start"} for y, xs in drawn.items()}
    assert seen == depends(model, name)


OPTIONS = [{}, {"gradients": True}, {"loss": "mse"}, {"detail": "block", "gradients": True}, {"direction": "down"}, {"font_size": 22},
           {"direction": "down", "gradients": True}, {"parameters": False, "theme": "dark"}, {"format": "slide"}, {"format": "page"}, {"format": "wide"}]


TOO_LARGE = {"two directions, two layers", "pooled, then written", "in both directions", "attention", "deep attention"}  # for a slide or a page


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_pictures_are_sound(name, options):
    """No text over another or out of its box; wires begin and end at boxes; letters of the size that a format asks for."""
    model = MODELS[name]()
    if options.get("format") in ("slide", "page") and name in TOO_LARGE:
        with pytest.raises(ArgumentError, match="points with text of"):
            model.draw(steps=(20, 20) if isinstance(model, nn.EncoderDecoder) else 20, show="all", **options)
        return
    drawing = model.draw(steps=steps_of(name), **options)
    assert faults(drawing.svg) == []
    known = boxes(drawing)
    for w in wires(drawing, "forward", "backward", "delay"):
        for key, (x, y) in zip(w.ends, (w.points[0], w.points[-1]), strict=True):
            b, slack = known[key], 5.5 if w.kind == "backward" else 0.6
            inside = Rectangle(b.at[0] - b.size[0] / 2, b.at[1] - b.size[1] / 2, b.at[0] + b.size[0] / 2, b.at[1] + b.size[1] / 2)
            assert Rectangle(x, y, x, y).within(inside, slack), (w.key, key)
    if options.get("format") == "slide":
        assert drawing.scene.size == (960, 540)
        assert smallest(drawing.svg) >= 18


@pytest.mark.parametrize("name", ["bidirectional", "deep", "many to one", "attention"])
def test_long_sequences(name):
    """The first two steps and the last; what lies between stands as one box on the way of every state."""
    steps = (30, 40) if name == "attention" else 50
    drawing = MODELS[name]().draw(steps=steps, gradients=True)
    assert faults(drawing.svg) == []
    gaps = [label(b) for b in boxes(drawing).values() if b.classes == "gap"]
    assert gaps == ["27 steps"] * 2 + ["37 steps"] if name == "attention" else set(gaps) == {"47 steps"}
    assert MODELS[name]().draw(steps=steps, show=[1, 2, 3, -1]).scene.size[0] > 0


def test_the_states_run_the_way_they_are_read():
    """Forward to the right, backward to the left, each from its own first state."""
    drawing = MODELS["bidirectional"]().draw(steps=T)
    known = boxes(drawing)
    starts = {label(b): b.at[0] for b in known.values() if b.key.endswith("-start")}
    assert starts["h₀"] < min(b.at[0] for b in known.values() if label(b) == "x₁") < starts["h₅"]
    for w in wires(drawing, "forward"):
        a, b = (known[k] for k in w.ends)
        if label(a) == label(b) == "GRU":
            assert a.at[0] < b.at[0]
        if label(a) == label(b) == "GRU ←":
            assert a.at[0] > b.at[0]
    assert [p.text for p in drawing.scene.parts if isinstance(p, Words) and p.text.startswith("h")] == ["h₁", "h₂", "h₃", "h₄", "h₃", "h₂"]


# ---- gradients

def test_gradients_are_those_of_the_model():
    """‖∂L/∂·‖ of every box and wire of an Elman network, by complex step in NumPy."""
    model = nn.Sequential(nn.Linear(3, 4, dtype="float64", rng=0), nn.RNN(4, 5, dtype="float64", rng=1), nn.Last(), nn.Linear(5, 2, dtype="float64", rng=2))
    x = np.random.default_rng(3).normal(size=(1, T, 3))
    drawing = model.draw(values={"x": x}, gradients=True, loss=lambda y: (y * y).sum())
    w = {k.split(".", 1)[1]: v for k, v in model.state_dict().items()}

    def run(add):
        h, inner = np.zeros(5, complex) + add.get("h0", 0), {}
        for t in range(1, T + 1):
            seen = x[0, t - 1] + add.get(f"x{t}", 0)
            e = w["0.weight"] @ seen + w["0.bias"] + add.get(f"Linear of step {t}", 0)
            h = h + add.get(f"state into {t}", 0)
            h = np.tanh(w["1.weight_ih_l0"] @ e + w["1.bias_ih_l0"] + w["1.weight_hh_l0"] @ h + w["1.bias_hh_l0"]) + add.get(f"RNN of step {t}", 0)
        last = h + add.get("Last", 0)
        y = w["3.weight"] @ last + w["3.bias"] + add.get("y", 0)
        return (y * y).sum(), inner

    def norm(key, n):
        steps = (run({key: 1e-30j * row})[0].imag / 1e-30 for row in np.eye(n))
        return float(np.linalg.norm(list(steps)))

    seen = {digits(label(b)) + (f" of step {k[-1]}" if k[-2] == "-" and not b.square else ""): float(b.title.rpartition(" = ")[2])
            for k, b in boxes(drawing).items() if "‖∂L/∂‖ = " in b.title}
    sizes = {**{f"x{t}": 3 for t in range(1, T + 1)}, **{f"Linear of step {t}": 4 for t in range(1, T + 1)},
             **{f"RNN of step {t}": 5 for t in range(1, T + 1)}, "Last": 5, "y": 2}
    sizes["h0"] = 5
    assert {*seen} == {*sizes, "Linear"}
    for key, n in sizes.items():
        assert seen[key] == pytest.approx(norm(key, n), rel=1e-3), key
    sent = {w.title: float(w.title.rpartition(" ")[2]) for w in wires(drawing, "backward")}
    for t in range(2, T + 1):
        found = [v for k, v in sent.items() if k.startswith(f"what RNN of step {t} sends back to RNN of step {t - 1}")]
        assert found == [pytest.approx(norm(f"state into {t}", 5), rel=1e-3)]
    assert drawing.scene.description
    assert "a function of the output; 1 row of data" in str(drawing.svg)


@pytest.mark.parametrize("name", ["bidirectional", "two directions, two layers", "own cell, both ways", "deep", "aligned", "the mean", "backward", "read, then written", "pooled, then written"])
def test_gradients_of_the_data(name):
    """In every shape of a model the gradient of the data is that of `grad`."""
    model, x = MODELS[name](), np.random.default_rng(5).normal(size=(2, T, 3)).astype("float32")
    loss = lambda y: (y * y).sum()
    drawing = model.draw(values={"x": x}, gradients=True, loss=loss)
    leaf = tr.parameter(x)
    out = model.eval()(leaf)
    (found,) = tr.grad(loss(out[0] if isinstance(out, tuple) else out), [leaf])
    wanted = [float(np.linalg.norm(g)) for g in np.moveaxis(found.numpy(), 1, 0)]
    seen = [float(b.title.rpartition(" = ")[2]) for b in boxes(drawing).values() if b.square]
    np.testing.assert_allclose(seen, wanted, rtol=2e-3)


def test_what_two_directions_send_adds_up():
    """The gradient of an input of two readers is the sum of what each sends, so its norm lies between their difference and sum."""
    drawing = MODELS["bidirectional"]().draw(steps=T, gradients=True, loss=lambda y: (y * y).sum())
    for k, b in boxes(drawing).items():
        if b.square:
            sent = [float(w.title.rpartition(" ")[2]) for w in wires(drawing, "backward") if w.ends[1] == k]
            total = float(b.title.rpartition(" = ")[2])
            assert len(sent) == 2
            assert abs(sent[0] - sent[1]) * 0.99 <= total <= sum(sent) * 1.01


def test_a_decoder_in_one_scan():
    """What every step of a decoder receives, from the layer above and from the step after it."""
    drawing = MODELS["in both directions"]().draw(steps=(S, T), gradients=True, loss=lambda y: (y * y).sum())
    known = boxes(drawing)
    backward = {(label(known[w.ends[0]]), label(known[w.ends[1]])) for w in wires(drawing, "backward")}
    assert {("y₁", "Linear"), ("Linear", "GRU"), ("GRU", "GRU"), ("GRU", "Embedding"), ("bridge", "GRU ←")} <= backward


# ---- what may be asked for

def test_the_output_is_the_next_input():
    model = nn.Sequential(nn.Embedding(9, 4, rng=0), nn.GRU(4, 4, rng=1), nn.Linear(4, 9, rng=2))
    drawing = model.draw(steps=T, feedback=True)
    known = boxes(drawing)
    assert [label(b) for b in known.values() if b.square] == ["x₁", "y₁", "y₂", "y₃"]
    assert [(label(known[w.ends[0]]), label(known[w.ends[1]])) for w in wires(drawing, "delay")] == list(pairwise(["y₁", "y₂", "y₃", "y₄"])) or all(
        label(known[w.ends[0]]) == label(known[w.ends[1]]) for w in wires(drawing, "delay"))
    teacher, free = (MODELS["an encoder and a decoder"]().draw(steps=(S, T), feedback=f) for f in (False, True))
    assert [label(b) for b in boxes(teacher).values() if b.square][S:] == ["start", "y*₁", "y*₂", "y*₃"]
    assert [label(b) for b in boxes(free).values() if b.square][S:] == ["start", "y₁", "y₂", "y₃"]
    assert "teacher forcing" in teacher.svg
    assert "teacher forcing" not in free.svg


def test_a_model_of_ones_own():
    """What a model says of its wiring is drawn over time as well: a picture that sets the first state."""
    class Captioner(nn.Module):
        def __init__(self):
            self.look, self.letters = nn.Linear(6, 4, rng=0), nn.Embedding(5, 3, rng=1)
            self.spell, self.out = nn.GRU(3, 4, rng=2), nn.Linear(4, 5, rng=3)

        def wiring(self, name, reads, into):
            start = into.box(["first state"], into.add(self.look, "look", reads), "function", time="ends")
            letters = into.box(["letters"], [], "input", symbol="yₜ₋₁", first="start")
            y = into.add(self.spell, "spell", [*into.add(self.letters, "letters", [letters]), start])
            return into.add(self.out, "out", y)

    drawing = Captioner().draw(steps=(1, T))
    assert faults(drawing.svg) == []
    seen = reached(drawing)
    assert seen["y₃"] == {"x₁", "start", "y₁", "y₂"}


def test_a_module_wired_in_its_own_code_spans_all_steps():
    class Twice(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=1)

        def __call__(self, x):
            return self.a(x) * self.b(x)

    drawing = nn.Sequential(Twice(), nn.GRU(3, 4, rng=2)).draw(steps=T)
    bar = next(b for b in boxes(drawing).values() if label(b) == "Twice")
    assert all(abs(b.at[0] - bar.at[0]) < bar.size[0] / 2 for b in boxes(drawing).values() if b.square)
    assert faults(drawing.svg) == []


@pytest.mark.parametrize(("use", "message"), [
    (lambda m: m.draw(steps=0), "steps=0"), (lambda m: m.draw(gradients=True), r"give steps=, for example steps=4, or data x"),
    (lambda m: m.draw(steps=(3, 4)), r"steps=\(3, 4\): expected 1 number, one for each sequence of Sequential"),
    (lambda m: m.draw(steps=4, feedback=True), "no output or input at each step"), (lambda m: m.draw(steps=4, after=tr.cells.RNN.graph()), "after="),
    (lambda m: m.draw(steps=4, values={"x": np.ones((1, 4, 3))}), "ask for gradients=True"),
    (lambda m: m.draw(gradients=True, values={"z": 1}), "a model is run on x, y and lengths, got 'z'"),
    (lambda m: m.draw(steps=4, gradients=True, values={"y": 1}), "belong to data x"), (lambda m: m.draw(steps=4, show="heat"), "heat strips are of cells"),
    (lambda m: m.draw(loss="mse"), "are of a model over time: give steps="), (lambda m: tr.cells.RNN.draw(steps=(3, 4)), "a cell has one sequence"),
    (lambda m: tr.cells.RNN.draw(steps=3, feedback=True), "feedback is of models"), (lambda m: m.draw(steps=4, show=[9]), "the steps are 1 to 4"),
    (lambda m: m.draw(steps=400, show="all", format="slide"), "show fewer steps"),
    (lambda m: m.draw(steps=3, loss="foo"), "there is no loss 'foo'"), (lambda m: m.draw(steps=3, gradients=True, loss="mse"), "targets, which are not given"),
    (lambda m: nn.RNN(3, 3, reverse=True).draw(steps=3, feedback=True), "reads its sequence from the end"),
    (lambda m: nn.EncoderDecoder(9, 9, 3).draw(gradients=True, values={"x": np.ones((1, 2), int)}), "reads 2 sequences")])
def test_what_is_refused(use, message):
    with pytest.raises(ArgumentError, match=message):
        use(MODELS["many to one"]())


def test_one_sequence_alone_is_one_row():
    x = np.random.default_rng(0).normal(size=(5, 3))
    alone, row = (MODELS["aligned"]().draw(gradients=True, values={"x": v}, loss="sum") for v in (x, x[None]))
    assert [b.title for b in boxes(alone).values()] == [b.title for b in boxes(row).values()]
    with pytest.raises(ArgumentError, match="no array of numbers"):
        MODELS["aligned"]().draw(gradients=True, values={"x": [[1, 2], [3]]})


def test_features_are_no_steps():
    """Where the model itself begins the sequence, x has none."""
    drawing = MODELS["one to many"]().draw(steps=T, gradients=True, values={"x": np.ones((1, 3))})
    assert [label(b) for b in boxes(drawing).values() if label(b).startswith("y")] == ["y₁", "y₂", "y₃", "y₄"]


def test_a_model_of_ones_own_is_run_on_data():
    """Of which no example is known."""
    class Own(nn.Module):
        def __init__(self):
            self.reader, self.head = nn.GRU(3, 4, rng=0), nn.Linear(4, 2, rng=1)

        def __call__(self, x):
            return self.head(self.reader(x)[0])

        def wiring(self, name, reads, into):
            return into.add(self.head, "head", into.add(self.reader, "reader", reads))

    drawing = Own().draw(gradients=True, values={"x": np.ones((2, 4, 3))}, loss="sum")
    assert [label(b) for b in boxes(drawing).values() if b.square] == ["x₁", "x₂", "x₃", "x₄"]
    assert "2 rows of data" in drawing.svg


def test_lengths_count_steps_and_nothing_else():
    """A target without steps has no padding, be it as wide as there are steps."""
    rng = np.random.default_rng(0)
    for width in (1, 4):
        model = nn.Sequential(nn.GRU(3, 4, rng=0), nn.Last(), nn.Linear(4, width, rng=1))
        data = {"x": rng.normal(size=(2, 4, 3)), "y": rng.normal(size=(2, width)), "lengths": [4, 2]}
        drawing = model.draw(gradients=True, values=data, loss="mse")
        wanted = model.evaluate(data["x"], data["y"], lengths=[4, 2], loss="mse")["loss"]
        assert f"L = {wanted:.4g}" in drawing.svg


def test_a_layer_that_hides_what_it_does():
    model, data = nn.Sequential(nn.RNN(3, 4, rng=0), nn.Lambda(lambda h: h[:, -1]), nn.Linear(4, 2, rng=0)), np.ones((2, 4, 3))
    with pytest.raises(ShapeError, match=r"gives \[2,2\], not a value at each of 4 steps: take Last or Pool"):
        model.draw(gradients=True, values={"x": data, "y": np.array([0, 1])})
    tr.page(model, None, data, np.array([0, 1]))  # without the picture of the whole


@pytest.mark.parametrize(("options", "message"), [
    ({"values": {"x": np.ones((1, 4, 3)), "y": np.ones((1, 4, 2))}, "loss": lambda y: y.sum()}, r"called with \(output, target\)"),
    ({"steps": 3, "loss": lambda y, wanted: y.sum()}, "called with the output alone")])
def test_losses_of_ones_own(options, message):
    with pytest.raises(ArgumentError, match=message):
        MODELS["aligned"]().draw(gradients=True, **options)


@pytest.mark.parametrize(("wiring", "message"), [
    (lambda m, name, reads, into: into.add(m.last, "last", into.box(["f"], reads, "op")), "last reads 'm1': expected a list of boxes"),
    (lambda m, name, reads, into: ["nope"], r"gives \['nope'\]: expected the list of the boxes"), (lambda m, name, reads, into: [into.box(["f"], ["m9"], "op")], r"f reads \['m9'\]")])
def test_wirings_of_ones_own(wiring, message):
    class Own(nn.Module):
        def __init__(self):
            self.last = nn.Linear(3, 2, rng=0)

        def __call__(self, x):
            return self.last(x)

    Own.wiring = wiring
    with pytest.raises(ArgumentError, match=message):
        Own().draw(steps=3)


def test_the_loss_stands_above_what_it_reads():
    """The last output alone, all of them, or those of steps that are no padding."""
    model = nn.Sequential(nn.RNN(3, 4, dtype="float64", rng=0), nn.Linear(4, 2, dtype="float64", rng=1))
    x, y = np.random.default_rng(0).normal(size=(1, 4, 3)), np.ones((1, 4, 2))
    for options, steps in (({"loss": "last"}, [4]), ({"loss": "mse"}, [1, 2, 3, 4]), ({"gradients": True}, [4]), ({"gradients": True, "loss": "sum"}, [1, 2, 3, 4]),
                           ({"gradients": True, "loss": "mse", "values": {"x": x, "y": y, "lengths": [2]}}, [1, 2])):
        drawing = model.draw(steps=4, **options)
        assert [int(a.rpartition("-")[2]) for a, b in (w.ends for w in wires(drawing, "forward")) if b == "loss"] == steps, options


@pytest.mark.parametrize(("text", "sizes", "starts", "inputs"), [
    ("h[t] = tanh(W @ x[t])", {"x": 3, "h": 4}, [], ["x₁", "x₂", "x₃"]), ("h[t] = tanh(W @ x[t-1] + V @ x[t])", {"x": 3, "h": 4}, ["x₀"], ["x₁", "x₂", "x₃"]),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1] + V @ h[t-2])", {"x": 3, "h": 4}, ["h₀ h₋₁"], ["x₁", "x₂", "x₃"]), ("h[t] = tanh(U @ h[t-1] + b)", {"h": 4}, ["h₀"], []),
    ("h[t] = tanh(W @ x[t] + V @ u[t] + U @ h[t-1])", {"x": 3, "u": 2, "h": 4}, ["h₀"], ["x₁ u₁", "x₂ u₂", "x₃ u₃"])])
def test_cells_of_every_kind(text, sizes, starts, inputs):
    """What stands before the first step is what the cell remembers; its inputs stand together."""
    drawing = nn.Recurrent(tr.Cell(text), sizes, rng=0).draw(steps=3)
    assert [label(b) for b in boxes(drawing).values() if b.key.endswith("-start")] == starts
    assert [label(b) for b in boxes(drawing).values() if b.square] == inputs
    assert faults(drawing.svg) == []


def test_padding_sends_nothing_back():
    """With lengths the gradient begins at the last step that is read."""
    model = nn.Sequential(nn.LSTM(3, 4, dtype="float64", rng=0), nn.Last(), nn.Linear(4, 2, dtype="float64", rng=1))
    x = np.random.default_rng(0).normal(size=(1, 4, 3))
    padded = {label(b) + b.key[-2:]: b.title.rpartition(", ")[2] for b in boxes(model.draw(gradients=True, values={"x": x, "lengths": [2]})).values()}
    short = {label(b) + b.key[-2:]: b.title.rpartition(", ")[2] for b in boxes(model.draw(gradients=True, values={"x": x[:, :2]})).values()}
    for k in ("LSTM-1", "LSTM-2", "x₁-1", "x₂-2"):
        assert padded[k] == short[k]
        assert "‖∂L/∂‖" in padded[k]
    assert {padded[k] for k in ("LSTM-3", "LSTM-4", "x₃-3", "x₄-4")} == {"‖∂L/∂‖ = 0.000e+00"}


def test_a_decoder_of_two_layers():
    """What the upper layer sends to the lower one, and what the target's embedding receives at each step."""
    model = nn.EncoderDecoder(6, 5, 3, cell="gru", num_layers=2, dtype="float64", rng=0)
    drawing = model.draw(steps=[2, 3], gradients=True, loss="sum")
    backward = wires(drawing, "backward")
    decoder = [k for k, b in boxes(drawing).items() if label(b) == "GRU"][-3:]
    assert all(float(w.title.rpartition("norm ")[2]) > 0 for w in backward if w.ends[1] in decoder or w.ends[0] in decoder)
    assert sum(w.ends[0] in decoder for w in backward) >= 5


def test_a_reading_backward_that_ends_stands_at_the_first_step():
    """Dropout between it and Last changes nothing."""
    model = nn.Sequential(nn.RNN(3, 4, reverse=True, rng=0), nn.Dropout(0.5), nn.Last(), nn.Linear(4, 2, rng=1))
    known = {label(b): b.at[0] for b in boxes(model.draw(steps=4)).values()}
    assert known["Last"] == known["Dropout"] == known["y"] == known["x₁"]


def test_data_of_another_length():
    with pytest.raises(ShapeError, match="x has 5 steps, steps=4"):
        MODELS["aligned"]().draw(steps=4, gradients=True, values={"x": np.ones((1, 5, 3))})


def test_observing_leaves_a_model_as_it_was():
    model = MODELS["aligned"]()
    kinds = [type(m) for _, m in model.named_modules()]
    model.draw(steps=3, gradients=True)
    with pytest.raises(ShapeError):
        model.draw(gradients=True, values={"x": np.ones((1, 3, 99))})
    assert [type(m) for _, m in model.named_modules()] == kinds


@needs_browser
def test_a_box_unfolds_its_cell(tmp_path):
    """A click on a layer opens the picture of its cell, without a script."""
    file = tmp_path / "model.html"
    nn.Sequential(nn.GRU(3, 4, rng=0), nn.LSTM(4, 4, rng=1), nn.Linear(4, 2, rng=2)).draw(file, steps=T)
    with browser.opened(file.as_uri()) as page:
        opened = lambda: page.eval_on_selector_all("details", "all => all.map((d) => d.open)")
        assert opened() == [False, False]
        page.click("a[href='#cell-1']")
        assert opened() == [False, True]
        assert page.is_visible("#cell-1 svg")
        page.focus("a[href='#cell-0']")
        page.keyboard.press("Enter")
        assert opened() == [True, True]
        assert page.complaints == []
        assert len(page.requests) <= 3
