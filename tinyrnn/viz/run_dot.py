"""Layouts by Graphviz, where one is installed: a system `dot`, or the one that pip installs with tinyrnn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import DrawError


def find() -> str | None:
    """The program to run: TINYRNN_DOT, else `dot`, else `graphviz-pure`; None where there is none (TINYRNN_DOT=none too)."""
    chosen = os.environ.get("TINYRNN_DOT")
    if chosen == "none":
        return None
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise DrawError(f"TINYRNN_DOT={chosen!r} is not a program; unset it, give the path of dot, or none for the "
                            "built-in layout")
        return found
    here = str(Path(sys.executable).parent)
    for name, where in (("dot", None), ("graphviz-pure", here), ("graphviz-pure", None)):
        found = shutil.which(name, path=where)
        if found is not None:
            return found
    return None


SECONDS = 20


def lay_out(source: str, program: str) -> dict[str, Any] | None:
    """DOT source with places, as Graphviz's JSON; None where it takes longer than anybody waits."""
    try:
        done = subprocess.run([program, "-Tjson"], input=source.encode(), capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        raise DrawError(f"{program} could not draw: {error}; TINYRNN_DOT=none takes the built-in layout") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise DrawError(f"{program} could not draw: {lines[-1]}; TINYRNN_DOT=none takes the built-in layout")
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise DrawError(f"{program} printed no layout: is it Graphviz? TINYRNN_DOT=none takes the built-in layout") from None
    return found
