"""Graphviz: a system `dot`, or the one that pip installs with tinyrnn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DrawError

SECONDS, PATIENCE = 20, 120  # for a layout, of which there is another, and for a picture


def find() -> str:
    """The program to run: TINYRNN_DOT, else `dot`, else `graphviz-pure`, which pip installs with tinyrnn."""
    chosen = os.environ.get("TINYRNN_DOT")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise DrawError(f"TINYRNN_DOT={chosen!r} is not a program: give the path of Graphviz's dot, or unset it")
        return found
    here = str(Path(sys.executable).parent)
    for name, where in (("dot", None), ("graphviz-pure", here), ("graphviz-pure", None)):
        found = shutil.which(name, path=where)
        if found is not None:
            return found
    raise DrawError("pictures are drawn by Graphviz, and there is none here: pip install graphviz-pure, or install Graphviz, "
                    "or give the path of its dot in TINYRNN_DOT")


def run(source: str, *options: str) -> str:
    """What Graphviz makes of a source."""
    try:
        text = _output(source.encode(), options, PATIENCE)
    except subprocess.TimeoutExpired:
        raise DrawError(f"{find()} was still drawing after {PATIENCE} seconds") from None
    if not text.lstrip().startswith("<"):
        raise DrawError(f"{find()} printed no picture: is it Graphviz?")
    return text


def lay_out(source: str) -> dict[str, Any] | None:
    """A source with places, as Graphviz's JSON; None where it takes longer than anybody waits."""
    try:
        found: dict[str, Any] = json.loads(_output(source.encode(), ("-Tjson",), SECONDS))
    except subprocess.TimeoutExpired:
        return None
    except ValueError:
        raise DrawError(f"{find()} printed no layout: is it Graphviz?") from None
    return found


def version() -> str:
    """The program, and what it says that it is."""
    try:
        done = subprocess.run([find(), "-V"], capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DrawError(f"{find()} did not say its version: {error}") from None
    said = (done.stderr or done.stdout).decode(errors="replace").strip().partition("\n")[0]
    if "graphviz" not in said.lower():
        raise DrawError(f"{find()} is not Graphviz: it says {said[:60]!r} of its version")
    return f"{find()} ({said})"


def _output(source: bytes, options: Sequence[str], seconds: float) -> str:
    program = find()
    try:
        done = subprocess.run([program, *options], input=source, capture_output=True, timeout=seconds, check=False)
    except OSError as error:
        raise DrawError(f"{program} could not draw: {error}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise DrawError(f"{program} could not draw: {lines[-1]}")
    return done.stdout.decode(errors="replace")
