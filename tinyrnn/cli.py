"""The command line: parse arguments, call the library."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import __version__, tour
from .backends import available
from .cells import Cell, get, names
from .errors import TinyRNNError
from .viz import draw, renderer


def cell_named(text: str) -> Cell:
    """A cell of the zoo, or one from a file of equations."""
    if text in names() or text in ("RNN", "LSTM", "GRU"):
        return get(text)
    path = Path(text)
    if path.suffix or path.exists():
        return Cell(path.read_text(encoding="utf-8"), path.stem)
    return get(text)


def _tour(args: argparse.Namespace) -> int:
    return tour.run(Path(args.out), short=args.short)


def _draw(args: argparse.Namespace) -> int:
    cell = cell_named(args.cell)
    file = args.output or f"{cell.name}.svg"
    draw(cell, file, steps=args.steps, gradients=args.gradients, theme=args.theme)
    print(file)
    return 0


def _cells(args: argparse.Namespace) -> int:
    for name in names():
        print(f"{name:<26} {get(name).title}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    print(f"tinyrnn {__version__}, Python {platform.python_version()}, {platform.machine()}")
    print(f"renderer: {renderer.find()}")
    backends = available()
    for name in backends:
        print(f"backend {name}: ready")
    for name, reason in backends.reasons.items():
        print(f"backend {name}: {reason}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of every command."""
    p = argparse.ArgumentParser("tinyrnn", description="Recurrent networks that one can see through.")
    p.add_argument("--version", action="version", version=f"tinyrnn {__version__}")
    commands = p.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    t = command("tour", _tour, "draw, check and train: everything once, written to a folder")
    t.add_argument("--out", default="tour", metavar="FOLDER", help="where to write (default: tour)")
    t.add_argument("--short", action="store_true", help="a few seconds of training instead of a full run")
    d = command("draw", _draw, "draw a cell, folded or unrolled")
    d.add_argument("cell", metavar="CELL", help="a name (see `tinyrnn cells`) or a file of equations")
    d.add_argument("-o", "--output", metavar="FILE", help=".svg, .png, .html, .dot or .txt (default: NAME.svg)")
    d.add_argument("--steps", type=int, help="unroll over this many steps")
    d.add_argument("--gradients", action="store_true", help="draw the way back as well")
    d.add_argument("--theme", default="auto", choices=("auto", "light", "dark"))
    command("cells", _cells, "list the cells that come with tinyrnn")
    command("doctor", _doctor, "say what is installed and what is missing")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: good, 1: a check failed, 2: bad use."""
    args = parser().parse_args(argv)
    try:
        result: int = args.run(args)
    except (TinyRNNError, OSError, UnicodeDecodeError) as error:
        print(f"tinyrnn: {error}", file=sys.stderr)
        return 2
    return result
