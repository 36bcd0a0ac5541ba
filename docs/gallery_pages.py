"""The gallery: every cell folded and unrolled with its gradient, and what else can be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tinyrnn as tr

DOCS = Path(__file__).parent
FOLDER, PAGES = DOCS / "gallery", DOCS / "extra" / "pages"
STEPPED = {"rnn": "an RNN of one unit, with round numbers", "lstm": "an LSTM", "gru": "a GRU",
           "model": "a small model with its head and loss"}
BACK = '<p><a href="../index.html">tinyrnn</a> · <a href="../interactive.html">interactive pages</a></p>'
FIRST = ("lstm_lecture", "gru_lecture")


def stepped() -> dict[str, tr.Page]:
    """Pages to step through."""
    rnn = tr.Cell("# Recurrent network of one unit\nh[t] = tanh(W @ x[t] + U @ h[t-1] + b)", "rnn")
    numbers = {"W": [[0.5]], "U": [[0.8]], "b": [0.1], "x": [[1], [2], [-1]]}
    model = tr.nn.Sequential(tr.nn.RNN(2, 3, dtype="float64", rng=0), tr.nn.Last(), tr.nn.Linear(3, 1, dtype="float64", rng=1))
    x = np.random.default_rng(0).normal(size=(1, 4, 2)).round(1)
    return {"rnn": tr.page(rnn, values=numbers, loss="last"), "lstm": tr.page(tr.cells.LSTM), "gru": tr.page(tr.cells.GRU),
            "model": tr.page(model, None, x, np.ones((1, 1)), loss="mse")}


def others() -> dict[str, tuple[str, tr.Drawing]]:
    """Further pictures: name -> (caption, picture)."""
    stack = tr.nn.Sequential(tr.nn.Embedding(27, 32, rng=0), tr.nn.LSTM(32, 64, num_layers=2, bidirectional=True, rng=1),
                             tr.nn.Dropout(0.2), tr.nn.Linear(128, 9, rng=2))
    seq2seq = tr.nn.EncoderDecoder(40, 30, 64, attention="bahdanau", rng=0)
    layer = tr.nn.GRU(3, 4, rng=0)
    lecture = tr.cells["lstm_lecture"]
    leaky = tr.leaks(lambda x, lengths: layer(x)[0].sum(1), [4, 2], np.ones((2, 4, 3), "float32"))
    return {
        "long": ("A long sequence: the first steps, the last one, and what becomes of the gradient in between: "
                 '`tr.draw(tr.cells.LSTM, steps=50, gradients=True, loss="last", format="page")`',
                 tr.draw(tr.cells.LSTM, steps=50, gradients=True, loss="last", format="page")),
        "heat_rnn": ('A thousand steps of a tanh network: `tr.draw(tr.cells.RNN, steps=1000, show="heat", loss="last")`. '
                     "Hatched: the gradient is zero, because it is smaller than the smallest number",
                     tr.draw(tr.cells.RNN, steps=1000, show="heat", loss="last")),
        "heat": ('Three networks on one scale: `tr.draw([tr.cells.RNN, tr.cells.LSTM, tr.cells.GRU], steps=100, show="heat", '
                 'loss="last", format="page")`',
                 tr.draw([tr.cells.RNN, tr.cells.LSTM, tr.cells.GRU], steps=100, show="heat", loss="last", format="page")),
        "slide": ('A slide: `tr.draw(tr.cells["lstm_lecture"], format="slide")`', tr.draw(lecture, format="slide")),
        "stack": ("A stack with two bidirectional layers: `model.draw()`. As `.html`, the cells unfold below it", stack.draw()),
        "encoder_decoder": ('An encoder and a decoder with attention: `model.draw(direction="down")`',
                            seq2seq.draw(direction="down")),
        "leak": ("A layer that was not told the lengths, and the way of the padding: `tr.leaks(...).draw()`", leaky.draw())}


def generated() -> dict[Path, bytes]:
    """docs/gallery/, and the pages one can step through."""
    files: dict[Path, bytes] = {}
    links = ", ".join(f'<a href="../pages/{n}.html">{what}</a>' for n, what in STEPPED.items())
    out = ["# Gallery",
           "Every cell that comes with tinyrnn, one step and two, with the gradient of a run on random numbers: blue is "
           "computed from, dashed orange is the gradient on its way back, wider and darker where it is larger, hatched where "
           f"there is none. [How to draw](../pictures.md). To step through a run, open {links}."]
    for name in (*FIRST, *(n for n in tr.cells.names() if n not in FIRST)):
        cell = tr.cells[name]
        files[FOLDER / "images" / f"{name}.svg"] = tr.draw(cell, steps=2, gradients=True, direction="down").svg.encode()
        out += [f"## {cell.title}", f"`{name}`, [its derivation](../derivations/{name}.md)",
                f"![{name}, one step](../derivations/images/{name}.svg)",
                f"![{name}, two steps with gradients](images/{name}.svg)"]
    out.append("## Long sequences, models, leaks")
    for name, (caption, drawing) in others().items():
        files[FOLDER / "images" / f"{name}.svg"] = drawing.svg.encode()
        out += [f"{caption}.", f"![{name}](images/{name}.svg)"]
    files |= {PAGES / f"{name}.html": page.html.replace("<header>", f"<header>{BACK}", 1).encode()
              for name, page in stepped().items()}
    return {FOLDER / "index.md": ("\n\n".join(out) + "\n").encode(), **files}
