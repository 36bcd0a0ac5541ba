"""Writes the pages that are generated from the code; with --check, fails where a page differs from what the code says.

    python docs/build.py            write docs/derivations/, docs/compiler/, docs/gallery/ and the page of the examples
    python docs/build.py --check    compare only; exit code 1 and the names of the pages that differ
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import numpy as np

DOCS = Path(__file__).parent
FOLDER = DOCS / "derivations"


def embedded_renderer() -> None:
    """Pictures come from the renderer that pip installs: its bytes are the same everywhere."""
    found = shutil.which("graphviz-pure", path=sysconfig.get_path("scripts")) or shutil.which("graphviz-pure")
    if found:
        os.environ["TINYRNN_DOT"] = found


embedded_renderer()

import compiler_pages  # noqa: E402  (after the renderer is chosen)
import example_pages  # noqa: E402  (likewise)
import figure_pages  # noqa: E402  (likewise)
import gallery_pages  # noqa: E402  (likewise)

import tinyrnn as tr  # noqa: E402  (likewise)
from tinyrnn.symbolic import published  # noqa: E402  (likewise)
from tinyrnn.symbolic.derivation import pages  # noqa: E402  (likewise)


def badge(proof: tr.Proof, name: str) -> list[str]:
    """What was proved, how, and how to repeat it; no times, so that the page is the same on every machine."""
    lines = []
    for c in proof.cases:
        sizes = ", ".join(f"{k} = {v}" for k, v in c.sizes.items())
        how = (f"exact, {c.terms:,} terms of two polynomials are equal" if c.method == "exact" else
               f"at a random point modulo a prime of 61 bits, degree at most {c.degree:.0f}, error bound "
               f"{c.error_bound:.1e}")
        which = ", on this branch" if c.points == 1 else ", on the branches of several draws"
        branch = which if c.branches else ""
        lines.append(f"| {c.what} | {sizes} | {c.entries} | {how}{branch} |")
    verdict = "**Proved**" + (" on the branches of the draws" if proof.branches else "")
    table = "\n".join(["| graph | sizes | gradient entries | how |", "| --- | --- | --: | --- |", *lines])
    return ["## Proof",
            f"{verdict}: the engine's backward graph, from which this page is printed, computes the derivative. "
            f"Repeat it with `tinyrnn prove {name}`.",
            table, *(f"Note: {n}." for n in proof.notes)]


def derivation_page(name: str) -> str:
    cell = tr.cells[name]
    proof = tr.prove(cell, rng=0)
    assert proof.holds, f"{name} is not proved"
    page = pages.as_markdown(tr.derive(cell), [f"![{name}, one step](images/{name}.svg)"])
    return page + "\n" + "\n\n".join(badge(proof, name)) + "\n"


def published_page() -> str:
    out = ["# Published derivations, checked",
           "Backpropagation through time as printed in books, papers, vignettes and code, transcribed line by line and run "
           "against the derivative of its own forward pass at a random point modulo a prime of 61 bits (error bound below "
           "1e-10). Where a formulation differs, corrections that make it the derivative are listed, and each was shown to be "
           "necessary by leaving it out. A difference may be a slip of typesetting; code that goes with a text may well "
           "be right. All sizes are equal, because some printed products fit only then.",
           "Repeat it with `tinyrnn published`; the transcriptions are the files in `tinyrnn/symbolic/published/`."]
    rows = []
    sections = []
    for name in published.names():
        report = published.check(name)
        p = report.printed
        short = "agrees" if report.agrees else f"corrections: {len(p.corrections)}"
        rows.append(f"| [{p.title}](#{name.replace('_', '-')}) | {p.year} | {short} |")
        sections += [f"({name.replace('_', '-')})=\n## {p.title}", f"{p.source}, {p.year}. <{p.url}>", f"Checked: {p.scope}",
                     f"Verdict: {report.verdict}.", f"Forward\n\n```text\n{p.cell.strip()}\n```",
                     f"Backward, as printed\n\n```text\n{p.backward.strip()}\n```",
                     "\n".join(["Gradients, each step's share\n\n```text",
                                *(f"{k}: {v}" for k, v in p.gradients.items()), "```"])]
        if p.corrections:
            lines = [f"{i}. {what}: " + ", ".join(f"`{k} = {v}`" for k, v in new.items())
                     for i, (what, new) in enumerate(p.corrections, 1)]
            sections.append("Corrections\n\n" + "\n".join(lines))
    table = "\n".join(["| formulation | year | verdict |", "| --- | --- | --- |", *rows])
    return "\n\n".join([*out, table, *sections]) + "\n"


def index_page() -> str:
    rows = [f"| [{tr.cells[n].title}]({n}.md) | `{n}` |" for n in tr.cells.names()]
    return "\n\n".join([
        "# Derivations",
        "One page for every cell: shapes, equations, local derivatives, the backward recurrences, parameter gradients, the "
        "Jacobian of a step and its norm. They are generated by `python docs/build.py` from the engine's own backward graphs, "
        "and the build of the docs fails when a page differs from what the code generates.",
        "\n".join(["| cell | name |", "| --- | --- |", *rows]), "[Published derivations, checked](published.md)",
        "```{toctree}\n:hidden:\n\n" + "\n".join([*tr.cells.names(), "published"]) + "\n```"]) + "\n"


def pictures() -> dict[str, tr.Drawing]:
    """What README and the page of pictures show."""
    lstm, gru = tr.cells["lstm_lecture"], tr.cells["gru_lecture"]
    words = "the film was not at all what I had hoped for".split()
    x = np.random.default_rng(0).normal(size=(len(words), 8))
    one = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)", "one unit")
    model = tr.nn.Sequential(tr.nn.LSTM(3, 4, dtype="float64", rng=0), tr.nn.Last(), tr.nn.Linear(4, 2, dtype="float64", rng=1))
    numbers = {"W": [[0.5]], "U": [[0.8]], "b": [0.1], "x": [[1], [2], [-1]]}
    return {
        "front": tr.draw(model, steps=4, gradients=True, title="", parameters=False, format="page"),
        "by_hand": tr.draw(one, values=numbers, gradients=True, loss="last", detail="block"),
        "lstm": tr.draw(lstm, format="page"), "gru": tr.draw(gru, title="Gated recurrent unit as lectures write it"),
        "lstm_unrolled": tr.draw(lstm, steps=2, gradients=True, direction="down"),
        "lstm_blocks": tr.draw(lstm, steps=3, gradients=True, format="page", detail="block"),
        "lstm_slide": tr.draw(lstm, format="slide"),
        "heat": tr.draw([tr.cells.RNN, tr.cells.LSTM, tr.cells.GRU], steps=100, show="heat", loss="last", format="page"),
        "values": tr.draw(lstm, values={"x": x}, show="values", tokens=words, format="page")}


def generated() -> dict[Path, bytes]:
    """Every generated file with its content."""
    files: dict[Path, bytes] = {FOLDER / "index.md": index_page().encode(), FOLDER / "published.md": published_page().encode()}
    for name in tr.cells.names():
        files[FOLDER / f"{name}.md"] = derivation_page(name).encode()
        files[FOLDER / "images" / f"{name}.svg"] = tr.draw(tr.cells[name]).svg.encode()
    files |= {DOCS / "images" / f"{name}.svg": drawing.svg.encode() for name, drawing in pictures().items()}
    return (files | compiler_pages.generated() | example_pages.generated() | gallery_pages.generated()
            | figure_pages.generated())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    files = generated()
    folders = (FOLDER, DOCS / "images", compiler_pages.FOLDER, gallery_pages.FOLDER, gallery_pages.PAGES,
               figure_pages.FOLDER)
    known = {p for folder in folders for p in folder.rglob("*") if p.is_file()}
    known -= {compiler_pages.FOLDER / name for name in ("template.md", "clusters_template.md")}
    differing = [p for p, content in files.items() if not p.exists() or p.read_bytes() != content] + sorted(known - set(files))
    if check:
        for p in differing:
            print(f"{p.relative_to(DOCS.parent)} differs from what the code generates; run: python docs/build.py")
        return int(bool(differing))
    for p in differing:
        if p in files:
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_bytes(files[p])
        else:
            p.unlink()
        print(p.relative_to(DOCS.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
