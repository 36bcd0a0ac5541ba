"""A derivation as text, LaTeX, Markdown, HTML with MathML, or a notebook: one list of sections, five printers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol

from ...cells import latex
from ...cells.cell import Cell
from ...cells.latex_lines import environment
from ...cells.terms import Term, number, show
from ..derivation import calculus
from .formulas import Formula, JacobianBlock
from .to_terms import block_name


class Printable(Protocol):
    """What a page reads."""

    cell: Cell

    @property
    def local_terms(self) -> Mapping[tuple[str, str], Term]: ...
    @property
    def by_sympy(self) -> Mapping[tuple[str, str], Any]: ...
    @property
    def recurrence(self) -> Mapping[str, Formula]: ...
    @property
    def inputs(self) -> Mapping[str, Formula]: ...
    @property
    def parameters(self) -> Mapping[str, Formula]: ...
    @property
    def jacobian(self) -> Mapping[tuple[str, str], JacobianBlock]: ...
    @property
    def norms(self) -> Mapping[tuple[str, str], str]: ...


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, a table of names and sizes, and formulas as (text, LaTeX)."""

    title: str
    words: str = ""
    rows: tuple[tuple[str, str, str], ...] = ()          # kind, name in LaTeX or text, shape
    formulas: tuple[tuple[str, str], ...] = ()


def sections(d: Printable) -> list[Section]:
    """All that a page shows, in the order of a lecture."""
    found = [_shapes(d), _forward(d), _local(d), _backward(d), _gradients(d), _jacobian(d), _product(d)]
    return [s for s in found if s.rows or s.formulas]


def _shapes(d: Printable) -> Section:
    cell = d.cell
    kinds = [("input", cell.inputs), ("state", cell.states), ("gate", cell.gates),
             ("output", tuple(o for o in cell.outputs if o not in cell.states))]
    rows = [(kind, latex.name(n, "t"), cell.signals[n]) for kind, names in kinds for n in names]
    for p, s in cell.parameters.items():
        if p not in cell.learned:
            parts = s[1].split("+") if len(s) == 2 else []
            rows.append(("parameter", latex.name(p), s))
            rows += [("its columns", latex.name(block_name(cell, p, k)), (s[0], part)) for k, part in enumerate(parts)
                     if len(parts) > 1]
    rows += [("learned initial state", latex.name(n.split("[")[0], n.split("[")[1][:-1]), s)
             for n, s in cell.parameters.items() if n in cell.learned]
    words = "Sizes are named after the quantities: a vector h has h entries, a matrix over [h, x] has h + x columns."
    return Section("Shapes", words, tuple((kind, name, " × ".join(shape) or "1") for kind, name, shape in rows))


def _forward(d: Printable) -> Section:
    numbers = [(n, number(v)) for n, v in d.cell.system.constants]
    lines = [(f"{n} = {show(v)}", f"{latex.name(n)} = {latex.term(v)}") for n, v in numbers]
    lines += [(f"{e.name}[t] = {show(e.term)}", f"{latex.name(e.name, 't')} = {latex.term(e.term)}")
              for e in d.cell.system.equations]
    return Section("Forward", "The equations of one step; ⊙ is the product entry by entry.", formulas=tuple(lines))


def _local(d: Printable) -> Section:
    words = "Each equation differentiated by SymPy, where the derivative acts entry by entry; and, after the second equals " \
            "sign, as the engine's backward graph computes it, in gate outputs.  SymPy shows both to be equal."
    words += _argument(d.cell)
    lines = []
    for (y, s), t in d.local_terms.items():
        engine, own = latex.term(t), show(t)
        text, tex = calculus.shown(d.by_sympy[y, s], d.cell) if (y, s) in d.by_sympy else (own, engine)
        lines.append((f"d{y}[t]/d{s if '[' in s else s + '[t]'} = {own if own == text else f'{text} = {own}'}",
                      rf"\frac{{\partial {latex.name(y, 't')}}}{{\partial {_signal(s)}}} = "
                      rf"{engine if own == text else f'{tex} = {engine}'}"))
    return Section("Local derivatives", words, formulas=tuple(lines))


def _argument(cell: Cell) -> str:
    """What the a of a gate is, by the first gate."""
    gates = [e for e in cell.system.equations if e.term.kind == "call" and len(e.term.args) == 1]
    first = f"  a_{gates[0].name} is what goes into the {gates[0].term.value} of {gates[0].name}" if gates else ""
    return first + (", and so on." if len(gates) > 1 else "." if gates else "")


def _signal(text: str) -> str:
    name, _, step = text.rstrip("]").partition("[")
    return latex.name(name, step or "t")


def _backward(d: Printable) -> Section:
    words = "From the last step to the first.  L is the sum of the losses of all steps; a term with ℓ is what the loss of " \
            "this step contributes itself.  Terms of steps beyond the last are left out."
    return Section("Backward recurrences", words, formulas=tuple((f.text, f.latex) for f in
                                                                 (*d.recurrence.values(), *d.inputs.values())))


def _gradients(d: Printable) -> Section:
    words = "Every step adds its share; u ⊗ v is the matrix u vᵀ."
    return Section("Parameter gradients", words, formulas=tuple((f.text, f.latex) for f in d.parameters.values()))


def _jacobian(d: Printable) -> Section:
    lines = [(f"d{b.state}[t]/d{b.by}[t-{b.lag}] = {b.text}", f"{b.fraction} = {b.latex}") for b in d.jacobian.values()]
    words = "The blocks of the derivative of the state by the earlier state."
    return Section("Jacobian of one step", words, formulas=tuple(lines))


def _product(d: Printable) -> Section:
    words = "Over many steps Jacobians multiply, so their norms bound how fast a gradient can grow, and a product of norms " \
            "below one makes it vanish (Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, " \
            "2013).  Norms of matrices are spectral; a sigmoid lies in (0, 1), its slope is at most 1/4, that of tanh 1."
    product = (r"\frac{\partial s_T}{\partial s_k} = \prod_{t=k+1}^{T} \frac{\partial s_t}{\partial s_{t-1}}, \qquad "
               r"\left\|\frac{\partial s_T}{\partial s_k}\right\| \le \prod_{t=k+1}^{T} "
               r"\left\|\frac{\partial s_t}{\partial s_{t-1}}\right\|")
    lines = [("ds[T]/ds[k] = product over t = k+1 .. T of ds[t]/ds[t-1]", product)]
    for key, norm in d.norms.items():
        b = d.jacobian[key]
        lines.append((f"norm of d{b.state}[t]/d{b.by}[t-{b.lag}]", rf"\left\|{b.fraction}\right\| \le {norm}"))
    return Section("Product over time and its norm", words, formulas=tuple(lines))


# ---- printers

def as_text(d: Printable) -> str:
    """Plain text, for a terminal."""
    out = [d.cell.title, ""]
    for s in sections(d):
        out.append(s.title)
        out += [f"  {kind:<10} {show_name(name)}: {shape}" for kind, name, shape in s.rows]
        out += [f"  {text}" for text, _ in s.formulas if not text.startswith("norm of")]
        out.append("")
    return "\n".join(out)


def show_name(name: str) -> str:
    """A name's LaTeX as plain letters."""
    return re.sub(r"\\mathrm|[{}\\]", "", name)


def as_latex(d: Printable) -> str:
    """Sections with aligned equations."""
    out = [rf"\section*{{{plain_tex(d.cell.title)}}}"]
    for s in sections(d):
        out.append(rf"\subsection*{{{plain_tex(s.title)}}}")
        out.append(plain_tex(s.words))
        if s.rows:
            out.append("\\begin{tabular}{lll}\n" + "\n".join(rf"{k} & ${n}$ & ${_shape(shape)}$ \\" for k, n, shape in s.rows)
                       + "\n\\end{tabular}")
        if s.formulas:
            out.append(environment([x for _, x in s.formulas], "align*"))
    return "\n\n".join(out) + "\n"


def _shape(text: str) -> str:
    sizes = [[p if p.isdigit() else latex.name(p) for p in s.split("+")] for s in text.split(" × ")]
    return " \\times ".join(parts[0] if len(parts) == 1 else f"({' + '.join(parts)})" for parts in sizes)


_TEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
        "^": r"\^{}", "~": r"\~{}", "⊙": r"$\odot$", "⊗": r"$\otimes$", "ℓ": r"$\ell$", "δ": r"$\delta$", "ᵀ": r"$^\top$",
        "×": r"$\times$", "−": "$-$", "·": r"$\cdot$"}


def plain_tex(text: str) -> str:
    """Words that LaTeX shows as they are."""
    return "".join(_TEX.get(c, c) for c in text)


def as_markdown(d: Printable, extra: Iterable[str] = ()) -> str:
    """Markdown with `$$` formulas; names from users are escaped."""
    out = [f"# {md(d.cell.title)}"]
    out += [f"*{md(line)}*" for line in d.cell.citation.splitlines()]
    out += [md(line) for line in d.cell.notes.splitlines()] + list(extra)
    for s in sections(d):
        out.append(f"## {s.title}")
        out.append(s.words)
        if s.rows:
            rows = [f"| {k} | ${n}$ | ${_shape(shape)}$ |" for k, n, shape in s.rows]
            out.append("\n".join(["| | | |", "| --- | --- | --- |", *rows]))
        if s.formulas:
            out.append(environment([x for _, x in s.formulas], "$$"))
    return "\n\n".join(line for line in out if line) + "\n"


def md(text: str) -> str:
    """Text that Markdown and HTML show as it is."""
    shown = re.sub(r"([\\`*_{}\[\]()#+!|$~])", r"\\\1", escape(text, quote=False))
    return re.sub(r"^(\s*)(\d+)\.", r"\1\2\\.", re.sub(r"^(\s*)([-=])", r"\1\\\2", shown))


_STYLE = ("body{font:17px/1.6 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
          "math{font-size:1.1em}.formula{margin:.4rem 0;padding:.3rem 0;overflow:auto hidden}.formula math{display:inline math}"
          "td{padding:.1rem 1rem .1rem 0}")


def as_html(d: Printable) -> str:
    """One page without script and without network; formulas are MathML."""
    body = [f"<h1>{escape(d.cell.title)}</h1>", *(f"<p><em>{escape(c)}</em></p>" for c in d.cell.citation.splitlines())]
    for s in sections(d):
        body += [f"<h2>{escape(s.title)}</h2>", f"<p>{escape(s.words)}</p>"]
        if s.rows:
            rows = "".join(f"<tr><td>{escape(k)}</td><td>{mathml(n)}</td><td>{mathml(_shape(shape))}</td></tr>"
                           for k, n, shape in s.rows)
            body.append(f"<table>{rows}</table>")
        body += [mathml_lines(environment([x])) for _, x in s.formulas]
    return document(d.cell.title, "".join(body))


def document(title: str, body: str) -> str:
    """A page of formulas that needs no network and may not use any."""
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
            f"<body>{body}</body></html>\n")


def mathml(formula: str, display: str = "inline") -> str:
    """LaTeX as MathML."""
    from latex2mathml.converter import convert

    return str(convert(formula, display=display))


def mathml_lines(formula: str) -> str:
    """A display formula as HTML; the lines of `aligned` one below the other."""
    plain = re.sub(r"\\(begin|end)\{aligned\}", "", formula)
    lines = [x.replace("&", "", 1) for x in plain.strip().split(r" \\" + "\n")] if plain != formula else [formula]
    return "".join(f'<div class="formula">{mathml(line, "block")}</div>' for line in lines)


def as_notebook(d: Printable) -> str:
    """nbformat 4: the derivation as Markdown, then the cells that make and prove it."""
    code = f"import tinyrnn as tr\n\ncell = tr.Cell({d.cell.canonical_text()!r}, name={d.cell.name!r})\ntr.derive(cell)"
    cells: list[dict[str, object]] = [_code(code), _code("print(tr.prove(cell))")]
    parts = re.split(r"(?m)^(?=## )", as_markdown(d))
    cells += [{"cell_type": "markdown", "metadata": {}, "source": part.strip()} for part in parts]
    return json.dumps({"cells": cells, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 4},
                      ensure_ascii=False, indent=1) + "\n"


def _code(source: str) -> dict[str, object]:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}

