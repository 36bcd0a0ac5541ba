"""`tinyrnn tour`: draws, checks, proves, derives, trains, and writes it all to a folder with an index page."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import Any

from . import nn, optim
from .analysis.leaks import leaks
from .analysis.report import analyze
from .cells import Cell, get
from .datasets import ALPHABET, NGrams, decode_name, encode_names, first_names, name_rows, split_names
from .errors import ProofError
from .files import atomic_write
from .symbolic.derivation.derive import derive
from .symbolic.equivalence.equivalent import equivalent
from .symbolic.proof.prove import prove
from .testing import GradientCheck, check_gradients, random_values
from .viz.drawing import draw
from .viz.page import page


class Tour:
    """What the tour has done so far: files and sentences."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sections: list[tuple[str, list[str]]] = []
        self.failed = False
        folder.mkdir(parents=True, exist_ok=True)

    def section(self, title: str) -> None:
        print(f"\n{title}")
        self.sections.append((title, []))

    def say(self, line: str) -> None:
        print(f"  {line}")
        self.sections[-1][1].append(f"<p>{escape(line)}</p>")

    def picture(self, cell: Cell, name: str, caption: str, **options: Any) -> None:
        draw(cell, self.folder / name, **options)
        print(f"  {self.folder / name}")
        self.sections[-1][1].append(
            f'<figure><a href="{name}"><img src="{name}" alt="{escape(caption)}"></a>'
            f'<figcaption>{escape(caption)} <a href="{name}">{name}</a></figcaption></figure>')

    def link(self, name: str, what: str) -> None:
        print(f"  {self.folder / name}")
        self.sections[-1][1].append(f'<p><a href="{name}">{name}</a>: {escape(what)}</p>')

    def text(self, lines: str) -> None:
        print("\n".join(f"  {line}" for line in lines.splitlines()))
        self.sections[-1][1].append(f"<pre>{escape(lines)}</pre>")


def run(folder: Path, short: bool = False) -> int:
    """The whole tour; 1 when a check fails."""
    began = time.perf_counter()
    tour = Tour(folder)
    print("tinyrnn tour")
    pictures(tour)
    analyses(tour)
    gradients(tour)
    proofs(tour)
    names(tour, epochs=2 if short else 14)
    write_index(tour, time.perf_counter() - began)
    return int(tour.failed)


def pictures(tour: Tour) -> None:
    """LSTM and GRU, folded and unrolled."""
    tour.section("1. Two cells, drawn")
    for name in ("lstm", "gru"):
        cell = get(name)
        tour.text(cell.canonical_text().strip())
        tour.picture(cell, f"{name}.svg", f"{cell.title}, one step")
        tour.picture(cell, f"{name}_unrolled.svg", f"{cell.title}, 3 steps with gradients", steps=3, gradients=True)


def analyses(tour: Tour) -> None:
    """A page to step through, paths of the gradient, and a proof about padding."""
    tour.section("2. Gradients, seen")
    page(get("lstm")).save(tour.folder / "lstm_steps.html")
    tour.link("lstm_steps.html", "step through an LSTM, forward and back, with the arrow keys")
    for name in ("rnn", "gru", "lstm"):
        for w in analyze(get(name), steps=100).paths:
            tour.say(f"{name.upper()}, 100 steps: {float(w.count):.2g} paths of the gradient from the loss to {w.source}; at "
                     f"least {w.fewest_saturating} saturating functions and {w.fewest_products} recurrent products on each")
    tour.picture(get("rnn"), "rnn_heat.svg", "Where the gradient of a tanh network dies: 200 steps", steps=200, show="heat",
                 loss="last")
    proof = leaks(nn.LSTM(3, 4, bidirectional=True, rng=0), [5, 2, 0])
    tour.failed |= not proof.holds
    tour.say(str(proof))


def gradients(tour: Tour) -> None:
    """The backward graph of both cells against complex step, every entry."""
    tour.section("3. Gradients, checked against complex step")
    for name in ("lstm", "gru"):
        graph = get(name).unroll(4, batch=3, x=2, h=5, gradients=True)
        check: GradientCheck = check_gradients(graph, random_values(graph, rng=7))
        tour.failed |= not check.holds
        tour.say(f"{name.upper()}, 4 steps unrolled, {len(graph)} nodes: {check}: {'good' if check.holds else 'FAILED'}")


def proofs(tour: Tour) -> None:
    """Both cells proved, derived, and compared."""
    tour.section("4. Gradients, proved and derived")
    for name in ("lstm", "gru"):
        cell = get(name)
        try:
            proof = prove(cell)
        except ProofError as error:
            tour.failed = True
            tour.text(f"{name.upper()}: FAILED\n{error}")
            continue
        tour.failed |= not proof.holds
        tour.text(str(proof))
        proof.save(tour.folder / f"{name}_proof.json")
        tour.link(f"{name}_proof.json", f"the certificate; `tinyrnn prove --check {name}_proof.json` verifies it again")
        derive(cell).save(tour.folder / f"{name}_derivation.html")
        tour.link(f"{name}_derivation.html", f"the backward pass of the {name.upper()} as equations, read from the graph")
    tour.text(str(equivalent(get("gru"), get("gru_lecture"))))


def names(tour: Tour, epochs: int) -> None:
    """A character model of first names against n-gram counts."""
    tour.section("5. A character LSTM learns first names")
    train, test = split_names(first_names())
    tour.say(f"{len(train):,} names to learn from and {len(test)} held out, all distinct (US census 1990), "
             f"{len(ALPHABET)} characters with the end sign")
    model = nn.Sequential(nn.Embedding(len(ALPHABET), 32, rng=0), nn.LSTM(32, 128, rng=1), nn.Dropout(0.2, rng=2),
                          nn.Linear(128, len(ALPHABET), rng=3))
    tour.text(str(model.summary()))
    x, y, lengths = encode_names(train)
    xt, yt, lt = encode_names(test)
    model.fit(x, y, lengths=lengths, optimizer=optim.Adam(4e-3, clip_norm=1.0), epochs=epochs, batch_size=64,
              validation=(xt, yt, lt), rng=0, progress=True,
              callbacks=[lambda e, n: print(f"  epoch {e:2d}: train {n['loss']:.3f}, held out {n['val_loss']:.3f} "
                                            f"nats per character ({n['seconds']:.1f} s)")])
    nats = model.evaluate(xt, yt, lengths=lt)["loss"]
    bigram, trigram = (NGrams(n).fit(name_rows(train), len(ALPHABET)).nats(name_rows(test), skip=1) for n in (2, 3))
    tour.text(f"held-out nats per character   LSTM {nats:.3f}   trigram {trigram:.3f}   bigram {bigram:.3f}")
    beaten = nats < bigram
    tour.failed |= not beaten
    tour.say("the LSTM beats the bigram" + (" and the trigram" if nats < trigram else "") if beaten else
             "FAILED: the LSTM does not beat the bigram")
    drawn = model.generate([[0]] * 12, 14, stop=0, temperature=0.8, rng=5)
    tour.text("names it makes up: " + ", ".join(decode_name(row[1:]) for row in drawn))
    model.save(tour.folder / "names.safetensors")
    tour.link("names.safetensors", 'the trained model; tr.load("names.safetensors") reads it')


_STYLE = """:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem}
img{max-width:100%;height:auto}figure{margin:1.5rem 0}figcaption{font-size:.9rem}pre{overflow-x:auto;padding:.8rem;
background:color-mix(in srgb,CanvasText 7%,Canvas);border-radius:6px}"""


def write_index(tour: Tour, seconds: float) -> None:
    """One page that links every file."""
    body = "".join(f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>" for title, parts in tour.sections)
    page = (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>tinyrnn tour</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
            f"<h1>tinyrnn tour</h1>{body}<p>Made in {seconds:.0f} seconds.</p></body></html>")
    atomic_write(tour.folder / "index.html", page.encode())
    print(f"\nEverything is in {tour.folder / 'index.html'} ({seconds:.0f} s)")
