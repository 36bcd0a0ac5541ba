"""The figures that every first lecture draws, each by one line."""

from __future__ import annotations

from pathlib import Path

import tinyrnn as tr
from tinyrnn import nn

DOCS = Path(__file__).parent
FOLDER = DOCS / "figures"

MODELS = """import tinyrnn as tr
from tinyrnn import nn

simple = nn.RNN(3, 4, rng=0)
vector = nn.Sequential(nn.Linear(3, 8, rng=0), nn.Lambda(tr.tanh), nn.Linear(8, 2, rng=1))
repeat = nn.Sequential(nn.Linear(3, 8, rng=0), nn.Repeat(4), nn.GRU(8, 8, rng=1), nn.Linear(8, 2, rng=2))
letters = nn.Sequential(nn.Embedding(27, 8, rng=0), nn.GRU(8, 8, rng=1), nn.Linear(8, 27, rng=2))
mood = nn.Sequential(nn.Embedding(99, 8, rng=0), nn.RNN(8, 8, rng=1), nn.Last(), nn.Linear(8, 1, rng=2))
pooled = nn.Sequential(nn.LSTM(3, 8, rng=0), nn.Pool("mean"), nn.Linear(8, 2, rng=1))
tagger = nn.Sequential(nn.Embedding(99, 8, rng=0), nn.LSTM(8, 8, rng=1), nn.Linear(8, 5, rng=2))
both = nn.Sequential(nn.GRU(3, 8, bidirectional=True, rng=0), nn.Linear(16, 5, rng=1))
deep = nn.Sequential(nn.LSTM(3, 8, num_layers=3, rng=0), nn.Linear(8, 2, rng=1))
classifier = nn.Sequential(nn.RNN(3, 4, dtype="float64", rng=0), nn.Last(), nn.Linear(4, 2, dtype="float64", rng=1))
translate = nn.EncoderDecoder(40, 30, 8, bidirectional=False, rng=0)
attentive = nn.EncoderDecoder(40, 30, 8, attention="bahdanau", bidirectional=False, rng=0)"""

FIGURES = (
    ("A network over time", (
        ("elman", "The recurrence of a lecture, `h_t = f(W_xh x_t + W_hh h_{t-1} + b_h)`, `y_t = g(W_hy h_t + b_y)`, folded: "
                  "the state of the previous step comes back.", 'tr.draw(tr.cells["elman"])'),
        ("unfolded", "Unfolded: five copies of one network. Parameters stand once, because all steps share them.",
         'tr.draw(tr.cells["elman"], steps=5, show="all", detail="block")'),
        ("folded", "The same as boxes of a model: x below, the loop, y above.", "simple.draw()"),
        ("over_time", "And unfolded: A, x below, y above.", "simple.draw(steps=4)"))),
    ("Shapes of tasks", (
        ("one_to_one", "One to one: no memory.", "vector.draw(steps=1)"),
        ("one_to_many", "One to many, where the input is given at every step.", "repeat.draw(steps=4)"),
        ("feedback", "One to many, where each output is the next input: generated text, music, a caption.",
         "letters.draw(steps=4, feedback=True)"),
        ("many_to_one", "Many to one: a mood, a speaker. The loss stands where it is attached.",
         'mood.draw(steps=4, loss="bce_with_logits")'),
        ("pooled", "Many to one by a mean over time.", "pooled.draw(steps=4)"),
        ("aligned", "Many to many, aligned: a tag for every word.", 'tagger.draw(steps=4, loss="cross_entropy")'),
        ("teacher", "Many to many, not aligned: an encoder reads, a decoder speaks. In training it reads the target one step "
                    "late.",
         'translate.draw(steps=(3, 4), loss="cross_entropy")'),
        ("free", "The same when it speaks by itself: it reads what it said.", "translate.draw(steps=(3, 4), feedback=True)"),
        ("attention", "With attention: the state before a step asks where to look among all outputs of the encoder.",
         "attentive.draw(steps=(3, 3))"))),
    ("More layers", (
        ("bidirectional", "Bidirectional: two hidden layers that do not know of each other, one for each direction.",
         "both.draw(steps=4)"),
        ("both_folded", "The same, folded.", "both.draw()"),
        ("deep", "Deep: what a layer gives is what the next one reads.", "deep.draw(steps=4)"))),
    ("Gates", (
        ("lstm", "LSTM: along the cell state c runs the conveyor belt, with only a product and a sum on it.",
         'tr.draw(tr.cells["lstm_lecture"])'),
        ("gru", "GRU: the update gate z weighs the past against the candidate.", 'tr.draw(tr.cells["gru_lecture"])'))),
    ("The way of the gradient", (
        ("bptt", "Backpropagation through time: forward in blue, backward in orange, one loss at the end.",
         'tr.draw(tr.cells.RNN, steps=4, show="all", gradients=True, loss="last")'),
        ("bptt_model", "The same in a whole model, from the loss through the head.",
         "classifier.draw(steps=4, gradients=True)"),
        ("vanishing", "Vanishing gradients: a tanh network, an LSTM and a GRU on one scale. Darker is larger.",
         'tr.draw([tr.cells.RNN, tr.cells.LSTM, tr.cells.GRU], steps=100, show="heat", loss="last")'),
        ("exploding", "Exploding: with large recurrent weights the gradient grows on its way back, and clipping is needed.",
         'tr.draw(tr.cells["rnn_relu"], steps=30, show="heat", loss="last", values={"W_hh": 1.3 * np.eye(3)})'))))


def figures() -> dict[str, tr.Drawing]:
    """Every figure, drawn by its line."""
    import numpy as np

    names = {"tr": tr, "nn": nn, "np": np}
    exec(MODELS, names)
    return {key: eval(line, names) for _, rows in FIGURES for key, _, line in rows}


def generated() -> dict[Path, bytes]:
    """docs/figures/."""
    out = ["# The figures of a first lecture",
           'Every figure is drawn from the cell or the model itself, by the line above it. As files for slides and papers: '
           '`format="slide"`, `.save("x.pdf")`, TikZ, films, decks ([pictures](../pictures.md)). A click opens a picture; '
           'saved as `.html`, a click on a box unfolds its cell. The models:',
           f"```python\nimport numpy as np\n{MODELS}\n```"]
    for title, rows in FIGURES:
        out.append(f"## {title}")
        for key, caption, line in rows:
            out += [caption, f"```python\n{line}\n```", f"![{caption.replace('`', '')}](images/{key}.svg)"]
    files = {FOLDER / "images" / f"{key}.svg": drawing.svg.encode() for key, drawing in figures().items()}
    return {FOLDER / "index.md": ("\n\n".join(out) + "\n").encode(), **files}
