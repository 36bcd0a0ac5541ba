"""Whoever turns DOT into a picture: a system Graphviz, or the one that pip installs with tinyrnn."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..errors import DrawError


def find() -> str:
    """The program to run: TINYRNN_DOT, else `dot`, else `graphviz-pure`."""
    chosen = os.environ.get("TINYRNN_DOT")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise DrawError(f"TINYRNN_DOT={chosen!r} is not a program; unset it or give the path of dot")
        return found
    here = str(Path(sys.executable).parent)
    for name, where in (("dot", None), ("graphviz-pure", here), ("graphviz-pure", None)):
        found = shutil.which(name, path=where)
        if found is not None:
            return found
    raise DrawError("no renderer found: install one with `pip install graphviz-pure` (or a system Graphviz)")


def render(source: str, kind: str = "svg", placed: bool = False) -> bytes:
    """DOT source as SVG, PNG or JSON; `placed` says that it carries positions of its own."""
    program = find()
    try:
        command = [program, f"-T{kind}", *(["-Knop2"] if placed else [])]
        done = subprocess.run(command, input=source.encode(), capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DrawError(f"{program} could not draw: {error}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise DrawError(f"{program} could not draw: {lines[-1]}")
    return done.stdout
