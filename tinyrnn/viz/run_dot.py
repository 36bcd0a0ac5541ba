"""Graphviz: a system `dot`, or the one that pip installs with tinyrnn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import DrawError

SECONDS = 20


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


def run(source: str, *options: str, seconds: float | None = None) -> str:
    """What Graphviz makes of a source; `subprocess.TimeoutExpired` where it takes longer than it may."""
    program = find()
    try:
        done = subprocess.run([program, *options], input=source.encode(), capture_output=True, timeout=seconds, check=False)
    except OSError as error:
        raise DrawError(f"{program} could not draw: {error}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise DrawError(f"{program} could not draw: {lines[-1]}")
    text = done.stdout.decode(errors="replace")
    if not text.lstrip().startswith(("<", "{")):
        raise DrawError(f"{program} printed no picture: is it Graphviz?")
    return text


def lay_out(source: str) -> dict[str, Any] | None:
    """A source with places, as Graphviz's JSON; None where it takes longer than anybody waits."""
    try:
        found: dict[str, Any] = json.loads(run(source, "-Tjson", seconds=SECONDS))
    except subprocess.TimeoutExpired:
        return None
    except ValueError:
        raise DrawError(f"{find()} printed no layout: is it Graphviz?") from None
    return found
