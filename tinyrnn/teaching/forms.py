"""A worked example as text, Markdown, LaTeX, HTML with MathML, or a notebook."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Protocol

from ..cells import paper
from ..cells.latex_lines import environment
from ..cells.terms import Term
from ..symbolic.derivation.pages import document, mathml_lines, md, plain_tex


class Paragraph(Protocol):
    """A heading, a sentence, lines of equal terms."""

    @property
    def title(self) -> str: ...
    @property
    def words(self) -> str: ...
    @property
    def lines(self) -> Sequence[tuple[Term, ...]]: ...


class Written(Protocol):
    """What is written."""

    digits: int

    @property
    def title(self) -> str: ...
    @property
    def parts(self) -> Sequence[Paragraph]: ...


def as_text(w: Written) -> str:
    """Plain text, for a terminal."""
    out = [w.title]
    for part in w.parts:
        out += ["", part.title, *([f"  {part.words}"] if part.words else [])]
        out += [f"  {' = '.join(paper.text(t, w.digits) for t in line)}" for line in part.lines]
    return "\n".join(out) + "\n"


def _formulas(w: Written, part: Paragraph) -> list[str]:
    return [" = ".join(paper.tex(t, w.digits) for t in line) for line in part.lines]


def as_markdown(w: Written) -> str:
    """Markdown with `$$` formulas."""
    out = [f"# {md(w.title)}"]
    for part in w.parts:
        out += [f"## {part.title}", md(part.words), environment(_formulas(w, part), "$$") if part.lines else ""]
    return "\n\n".join(x for x in out if x) + "\n"


def as_latex(w: Written) -> str:
    """Sections with aligned equations, which go on over the end of a page."""
    out = [r"% \usepackage{amsmath}", r"\allowdisplaybreaks", rf"\section*{{{plain_tex(w.title)}}}"]
    for part in w.parts:
        out += [rf"\subsection*{{{plain_tex(part.title)}}}", plain_tex(part.words),
                environment(_formulas(w, part), "align*") if part.lines else ""]
    return "\n\n".join(x for x in out if x) + "\n"


def as_html(w: Written) -> str:
    """One page without script and without network."""
    body = [f"<h1>{escape(w.title)}</h1>"]
    for part in w.parts:
        body += [f"<h2>{escape(part.title)}</h2>", f"<p>{escape(part.words)}</p>" if part.words else ""]
        body += [mathml_lines(environment([line])) for line in _formulas(w, part)]
    return document(w.title, "".join(body))


def as_notebook(w: Written) -> str:
    """nbformat 4: a cell of Markdown for every part."""
    sections = as_markdown(w).split("\n## ")
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "## " * (i > 0) + text} for i, text in enumerate(sections)]
    return json.dumps({"cells": cells, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 4},
                      ensure_ascii=False, indent=1) + "\n"
