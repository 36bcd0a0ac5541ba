"""The page of the examples: what each does, its figure, and its results, read from what the examples wrote."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
FOLDER, SCRIPTS = DOCS / "examples", DOCS.parent / "examples"

SHAPES = {
    "One to one": ["digits"], "One to many": ["names_by_gender", "digits_as_words", "text"],
    "Many to one": ["gender", "speakers", "sentiment", "promoters"], "Many to many, aligned": ["entities"],
    "Many to many, not aligned": ["pronounce"], "Time series": ["sunspots"],
    "Long memory": ["vanishing", "adding", "copy_memory"]}
NOTES = {
    "vanishing": "A gate opens a path on which the gradient crosses no saturating function; how much comes through is "
                 "the product of the gates. At the usual start forget gates are near 1/2, so that the LSTM's and the GRU's "
                 "gradient vanishes as well, only later; biases for memories of T steps (Tallec & Ollivier, 2018) keep the "
                 "path open.",
    "gender": "Two last letters alone reach 0.882 and three 0.885: a simple recurrent network learns what the ends of names "
              "say, and little more.",
    "sunspots": "The network was chosen among seven by its error on these same years, so that its lead over the "
                "autoregression of roots is flattered.",
    "digits": "The nearest neighbour among the pictures to learn from is right for 0.992: for pictures this small a network "
              "is not the best that one can do.",
    "sentiment": "The tweets are what people wrote, not reviewed; the labels are a crowd's. Logistic regression on the same "
                 "words reaches 0.754: on 32,000 short texts the order of words adds little.",
    "copy_memory": "Only the symbols to be said again count in the loss, and the biases start as Tallec and Ollivier (2018) "
                   "propose (`chrono=`); without these the network stays at guessing for far longer.",
    "adding": "The biases start as Tallec and Ollivier (2018) propose (`chrono=`); with the usual start 100 steps are learned "
              "more slowly, and 400 were not within 4,000 updates."}


def _title(name: str) -> str:
    doc = ast.get_docstring(ast.parse((SCRIPTS / f"{name}.py").read_text(encoding="utf-8")))
    assert doc is not None, f"{name} says nothing"
    return doc.strip()


def _read(name: str) -> dict[str, Any] | None:
    path = FOLDER / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def _found(record: dict[str, Any], i: int) -> str:
    """A result, and what other seeds gave."""
    r = record["results"][i]
    others = [o["ours"] for o in record["other seeds"] if o["what"] == r["what"]]
    return f"{r['ours']:.3g}" + (f" ({', '.join(f'{o:.3g}' for o in others)})" if others else "")


def _rows(name: str) -> list[str]:
    ours, torch = _read(name), _read(f"{name}.torch")
    assert ours is not None, f"{name} was not run: make examples"
    assert not ours["short"], f"{name} was run in short: make examples"
    assert torch is None or not torch["short"], f"{name} was run in short by PyTorch: make examples-torch"
    rows = []
    for i, r in enumerate(ours["results"]):
        other = "" if torch is None else _found(torch, i)
        baselines = ", ".join(f"{k.replace('_', ' ')} {v:.3g}" for k, v in r["baselines"].items())
        rows.append(f"| [{name}](#{name.replace('_', '-')}) | {r['what']} | {_found(ours, i)} | {other} | {baselines} |")
    return rows


def _section(name: str) -> str:
    ours = _read(name)
    assert ours is not None
    note = f"\n\n{NOTES[name]}" if name in NOTES else ""
    trained = ours["seconds of training"]
    seconds = f": {trained:.2g} s of training on two cores" if trained else ""
    return (f"({name.replace('_', '-')})=\n### {name}\n\n{_title(name)}{note}\n\n![{name}]({name}.svg)\n\n"
            f"`python examples/{name}.py`{seconds}.")


def page() -> str:
    """All examples by the shape of their task."""
    names = [n for group in SHAPES.values() for n in group]
    table = "\n".join(["| example | what | tinyrnn | PyTorch | simpler methods |", "| --- | --- | --: | --: | --- |",
                       *(row for n in names for row in _rows(n))])
    sections = [f"## {shape}\n\n" + "\n\n".join(map(_section, group)) for shape, group in SHAPES.items()]
    return "\n\n".join([
        "# Examples",
        "Short scripts on real data (four sets are made up, and say so). Each but one trains a network, draws a figure, and "
        "compares the result with simpler methods. `make examples` runs them all and writes the figures and numbers of this "
        "page; `make examples-torch` trains the same networks with PyTorch, from the same start, with as many steps, and "
        "scores them with the same code. Numbers in brackets are the same network with other seeds for dropout and the order "
        "of rows: they say what is chance.",
        'Data come from other packages: `pip install "tinyrnn[examples]"`. What each may be used for stands in '
        "`tinyrnn/datasets/packages.py`.", table, *sections]) + "\n"


def generated() -> dict[Path, bytes]:
    """The page; its figures and numbers are what the examples wrote."""
    return {FOLDER / "index.md": page().encode()}
