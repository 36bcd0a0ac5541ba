"""The API reference: a page for every room of the package, made from the docstrings when the docs are built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tinyrnn as tr
from tinyrnn.functions import FUNCTIONS

FOLDER = Path(__file__).parent / "reference"
ROOMS = {"tinyrnn": (tr, "Cells, pictures, proofs, tensors"), "nn": (tr.nn, "Layers and models"),
         "optim": (tr.optim, "Optimisers and schedules"), "train": (tr.train, "Training"),
         "serve": (tr.serve, "Models in use"), "io": (tr.io, "Files"),
         "datasets": (tr.datasets, "Data"), "cells": (tr.cells, "The zoo of cells"),
         **{name: (getattr(tr, name), f"Inside {spoken}") for name, spoken in (("torch", "PyTorch"), ("jax", "JAX"))
            if find_spec(name)}}


def names(room: Any) -> list[str]:
    """The public names of a room; the package also has the functions that are declared as data."""
    declared = FUNCTIONS if room is tr else ()
    return sorted({*room.__all__, *declared}, key=str.lower)


class Bare:
    """An annotation that is written without quotes and without the modules that hold its names."""

    def __init__(self, text: object) -> None:
        self.text = str(text)

    def __repr__(self) -> str:
        return re.sub(r"\b(tinyrnn|typing|collections\.abc|numpy\.typing)\.", "", self.text)


def signature(value: Any) -> str:
    """The arguments as they are written."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    empty = inspect.Parameter.empty
    parameters = [p if p.annotation is empty else p.replace(annotation=Bare(p.annotation)) for p in found.parameters.values()]
    returns = found.return_annotation
    return str(found.replace(parameters=parameters, return_annotation=returns if returns is empty else Bare(returns)))


def formatted(doc: str) -> Iterator[str]:
    """A docstring in Markdown: examples as code, words as they are."""
    code: list[str] = []
    for block in inspect.cleandoc(doc).split("\n\n"):
        if block.lstrip().startswith(">>>"):
            code.append(block)
            continue
        if code:
            yield "```pycon\n" + "\n\n".join(code) + "\n```"
            code = []
        indented = all(line.startswith("    ") for line in block.splitlines())
        yield f"```text\n{block}\n```" if indented else block.replace("<", "&lt;").replace("*", "\\*").replace("$", "\\$")
    if code:
        yield "```pycon\n" + "\n\n".join(code) + "\n```"


def entry(name: str, value: Any) -> Iterator[str]:
    """One name: its signature, its docstring, its methods."""
    if inspect.ismodule(value):
        yield f"## `{name}`\n\n{(inspect.getdoc(value) or '').splitlines()[0]}"
        return
    yield f"## `{name}`"
    if callable(value) and not isinstance(value, tr.Cell):
        yield f"```text\n{name}{signature(value)}\n```"
    doc = inspect.getdoc(value) if not isinstance(value, tr.Cell) else f"The cell `{value.name}`: {value.title}."
    yield from formatted(doc or "")
    if inspect.isclass(value):
        rows = [(k, m) for k, m in sorted(vars(value).items()) if not k.startswith("_") and inspect.getdoc(m)
                and (callable(m) or isinstance(m, (property, classmethod, staticmethod)))]
        if rows:
            yield "\n".join(["| | |", "| --- | --- |", *(f"| `{k}` | {_first(m)} |" for k, m in rows)])


def _first(m: Any) -> str:
    line = (inspect.getdoc(m) or "").split("\n\n")[0].replace("\n", " ")
    return line.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("$", "\\$")


def generated() -> dict[Path, str]:
    """docs/reference/: not kept in the repository, because signatures look different from one Python to the next."""
    files, rows = {}, []
    for title, (room, what) in ROOMS.items():
        shown = "tinyrnn" if room is tr else f"tinyrnn.{title}"
        body = [f"# {shown}", f"{what}. `import tinyrnn as tr`" + ("." if room is tr else f", then `tr.{title}`.")]
        for name in names(room):
            body += entry(name, getattr(room, name))
        files[FOLDER / f"{title}.md"] = "\n\n".join(body) + "\n"
        rows.append(f"| [`{shown}`]({title}.md) | {what} | {len(names(room))} names |")
    index = ["# API reference", "Every public name, from its docstring. `help(tr.draw)` shows the same.",
             "\n".join(["| | | |", "| --- | --- | --- |", *rows]), "```{toctree}\n:hidden:\n\n" + "\n".join(ROOMS) + "\n```"]
    return {FOLDER / "index.md": "\n\n".join(index) + "\n", **files}


def write(*_: Any) -> None:
    """Write the pages before Sphinx reads them."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
