"""The command line: parse arguments, call the library."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import __version__, tour
from .backends import available, check_backend
from .cells import Cell, get, names
from .door import behind
from .errors import ArgumentError, DrawError, LoadError, ProofError, TinyRNNError, printable
from .files import atomic_write, path_of
from .nn.inspected import inspected
from .symbolic import published
from .symbolic.checker import check_file
from .symbolic.derivation.derive import derive
from .symbolic.equivalence.equivalent import equivalent
from .symbolic.proof.prove import prove
from .viz import run_dot
from .viz.canvas import DIRECTIONS, FORMATS
from .viz.drawing import draw
from .viz.theme import THEMES
from .viz.tile import DETAILS


def cell_named(text: str) -> Cell:
    """A cell of the zoo, or one from a file of equations."""
    if text in names() or text in ("RNN", "LSTM", "GRU"):
        return get(text)
    path = path_of(text)
    if path.suffix or path.exists():
        return Cell(path.read_text(encoding="utf-8"), path.stem)
    return get(text)


def _tour(args: argparse.Namespace) -> int:
    return tour.run(path_of(args.out), short=args.short)


def _draw(args: argparse.Namespace) -> int:
    cells = [cell_named(c) for c in args.cell]
    file = args.output or f"{'_'.join(c.name for c in cells)}.svg"
    draw(cells[0] if len(cells) == 1 else cells, file, steps=args.steps, gradients=args.gradients, loss=args.loss,
         show=_shown(args.show), theme=args.theme, format=args.format, detail=args.detail,
         parameters=not args.no_parameters, direction=args.direction, title=args.title, font_size=args.font_size,
         scale=args.scale)
    print(file)
    return 0


def _shown(text: str) -> str | list[int]:
    """`auto`, `all`, `heat`, `values`, or steps separated by commas."""
    parts = text.split(",")
    return [int(p) for p in parts] if all(p.strip().lstrip("-").isdecimal() for p in parts) else text


def _page(args: argparse.Namespace) -> int:
    cell = cell_named(args.cell)
    file = args.output or f"{cell.name}.html"
    behind("page")(cell, file, **_run(args))
    print(file)
    return 0


def _slides(args: argparse.Namespace) -> int:
    for file in behind("slides")(cell_named(args.cell), args.output, steps=args.steps, loss=args.loss, reveal=args.reveal):
        print(file)
    return 0


def _analyze(args: argparse.Namespace) -> int:
    return _told(behind("analyze")(cell_named(args.cell), **_run(args)), args)


def _xray(args: argparse.Namespace) -> int:
    return _told(behind("xray")(cell_named(args.cell), **_run(args)), args)


def _run(args: argparse.Namespace) -> dict[str, Any]:
    """The run of a cell that an analysis or a picture looks at."""
    return {"steps": args.steps, "loss": args.loss, "sizes": dict(_size(s) for s in args.size) or None, "rng": args.seed}


def _told(found: Any, args: argparse.Namespace) -> int:
    """A report on the terminal, and as JSON or as a plot where a file is named."""
    path = path_of(args.output) if args.output else None
    if path is not None and path.suffix == ".json":
        atomic_write(path, (json.dumps(found.to_dict(), indent=1) + "\n").encode())
    elif path is not None:
        _save_plot(found, path)
    print(found, *([path] if path else []), sep="\n")
    return 0


def _save_plot(found: Any, path: Path) -> None:
    try:
        found.plot().savefig(path)
    except ValueError as error:
        raise ArgumentError(f"cannot write {path.name!r}: {error}; use .json, or .png, .svg, .pdf for a plot") from None


def _derive(args: argparse.Namespace) -> int:
    derivation = derive(cell_named(args.cell))
    if args.output:
        derivation.save(args.output)
        print(args.output)
    else:
        print(derivation if args.form == "text" else derivation.latex() if args.form == "latex" else derivation.markdown())
    return 0


def _prove(args: argparse.Namespace) -> int:
    if args.check:
        verdicts = check_file(args.check)
        for verdict in verdicts:
            print(printable(f"good: {verdict}"))  # a certificate may come from anybody
        if verdicts[0].text:
            print(printable(f"the equations:\n{verdicts[0].text.rstrip()}"))
        return 0
    if args.cell is None:
        raise ArgumentError("name a cell, or a certificate with --check FILE")
    sizes = dict(_size(s) for s in args.size)
    proof = prove(cell_named(args.cell), sizes or None, steps=args.steps, batch=args.batch, rng=args.seed)
    print(proof)
    if args.output:
        proof.save(args.output)
        print(args.output)
    return 0 if proof.holds else 1


def _size(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not value.isdecimal():
        raise ArgumentError(f"a size is written NAME=NUMBER, such as h=16; got {text!r}")
    return name, int(value)


def _equivalent(args: argparse.Namespace) -> int:
    mapping = dict(_entry(m) for m in args.map)
    found = equivalent(cell_named(args.a), cell_named(args.b), mapping or None, rng=args.seed)
    print(found)
    return 0 if found.holds else 1


def _entry(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name.strip() or not value.strip():
        raise ArgumentError(f"a mapping is written PARAMETER=EXPRESSION, such as W_z=-W_z; got {text!r}")
    return name.strip(), value.strip()


def _published(args: argparse.Namespace) -> int:
    for name in args.names or published.names():
        report = published.check(name)
        print(f"{report.printed.title} ({report.printed.year})\n  {report.verdict}")
        for k, (what, _) in enumerate(report.printed.corrections, 1):
            print(f"  {k}. {what}")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    text, model = inspected(path_of(args.file))
    print(printable(text))
    if args.output:
        if model is None:
            raise LoadError(f"{args.file} holds no model that can be drawn")
        model.draw(args.output)
        print(args.output)
    return 0


def _cells(args: argparse.Namespace) -> int:
    for name in names():
        print(f"{name:<26} {get(name).title}")
    return 0


def abilities() -> dict[str, str]:
    """What pictures can be made here, and what to install for the rest."""
    try:
        pictures = f"ready, {run_dot.version()}"
    except DrawError as error:
        pictures = f"missing: {error}"
    plots = "ready" if find_spec("matplotlib") else "missing: pip install 'tinyrnn[plot]' (for .plot() of reports and x-rays)"
    png = "ready" if find_spec("resvg_py") else "missing: pip install resvg-py"
    pdf = "ready" if find_spec("typst") else "missing: pip install 'tinyrnn[pdf]'"
    return {"pictures (SVG, HTML)": pictures, "PNG": png, "PDF": pdf, "plots": plots}


def _doctor(args: argparse.Namespace) -> int:
    print(f"tinyrnn {__version__}, Python {platform.python_version()}, {platform.machine()}")
    for what, state in abilities().items():
        print(f"{what}: {state}")
    backends = available()
    for name in backends:
        print(f"backend {name}: ready")
    for name, reason in backends.reasons.items():
        print(f"backend {name}: {reason}")
    for what, state in import_module("tinyrnn.backends.cuda.device").abilities().items():  # CuPy is loaded on first use
        print(f"  {what}: {state}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    bench = import_module("tinyrnn.bench")  # it loads llvmlite and, where they are installed, PyTorch and JAX
    if args.gpu:
        return _bench_gpu(args)
    if args.torch_layer:
        inside = import_module("tinyrnn.bench.inside")
        found = inside.measure(args.short)
        files = bench.write_page(found, inside.page(found), path_of(args.out), "torch_layer")
        print(*files, sep="\n")
        return 0
    for file in bench.write(bench.measure([p for p in args.against.split(",") if p], short=args.short), path_of(args.out)):
        print(file)
    return 0


def _bench_gpu(args: argparse.Namespace) -> int:
    visit = import_module("tinyrnn.bench.gpu_visit")
    check_backend("cuda")
    ended: int = visit.run(path_of(args.out), "probe" if args.probe else "whole", seconds=args.budget, short=args.short)
    return ended


def _whole(least: int) -> Callable[[str], int]:
    """A whole number from `least` on; argparse names the option and what was given."""
    def read(text: str) -> int:
        digits = text.lstrip("-")
        if not (digits.isascii() and digits.isdigit()) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {least}")
        return int(text)

    return read


def parser() -> argparse.ArgumentParser:
    """The arguments of every command."""
    p = argparse.ArgumentParser("tinyrnn", description="Recurrent networks that one can see through.")
    p.add_argument("--version", action="version", version=f"tinyrnn {__version__}")
    commands = p.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    t = command("tour", _tour, "draw, prove, derive and train: everything once, written to a folder")
    t.add_argument("--out", default="tour", metavar="FOLDER", help="where to write (default: tour)")
    t.add_argument("--short", action="store_true", help="a few seconds of training instead of a full run")
    d = command("draw", _draw, "draw a cell, folded or unrolled, or several as heat strips")
    d.add_argument("cell", metavar="CELL", nargs="+", help="a name (see `tinyrnn cells`) or a file of equations")
    d.add_argument("-o", "--output", metavar="FILE", help=".svg, .png, .pdf, .html, .dot or .txt (default: NAME.svg)")
    d.add_argument("--steps", type=_whole(1), help="unroll over this many steps")
    d.add_argument("--gradients", action="store_true", help="draw the way back as well")
    d.add_argument("--show", default="auto", metavar="WHICH",
                   help="auto, all, heat, values, or steps such as 1,2,-1 (default: auto)")
    d.add_argument("--loss", choices=("sum", "last"), help="of all outputs, or of those of the last step")
    d.add_argument("--theme", default="auto", choices=THEMES)
    d.add_argument("--format", choices=tuple(FORMATS), help="a slide (16:9), the column of a page, or one wide row")
    d.add_argument("--detail", choices=DETAILS, help="how fine: a step as one box, gates, or every operation")
    d.add_argument("--direction", default="right", choices=DIRECTIONS)
    d.add_argument("--title", help="instead of the cell's own")
    d.add_argument("--font-size", type=float, metavar="POINTS", help="of the text")
    d.add_argument("--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of the shades")
    d.add_argument("--no-parameters", action="store_true", help="leave out the names of weights")
    _lens_commands(command)
    _symbolic_commands(command)
    i = command("inspect", _inspect, "say what a safetensors file holds: layers and equations of a model, names of weights")
    i.add_argument("file", metavar="FILE", help="a file of weights, whoever wrote it; nothing that it names is imported")
    i.add_argument("-o", "--output", metavar="FILE", help="draw the model: .svg, .png, .pdf, .html, .dot or .txt")
    command("cells", _cells, "list the cells that come with tinyrnn")
    b = command("bench", _bench, "measure training and inference against PyTorch, JAX and onnxruntime")
    b.add_argument("--against", default="torch,jax,onnxruntime", metavar="PEERS",
                   help="peers, separated by commas (default: torch,jax,onnxruntime)")
    b.add_argument("--out", default="bench", metavar="FOLDER", help="where to write cpu.json, cpu.md, cpu.svg (default: bench)")
    b.add_argument("--torch-layer", action="store_true",
                   help="measure tr.torch.Layer inside PyTorch instead: torch_layer.json, torch_layer.md (six minutes)")
    b.add_argument("--gpu", action="store_true", help="measure the GPU instead: gpu.json, gpu.md")
    b.add_argument("--probe", action="store_true", help="with --gpu: what the chip can do, in three minutes")
    b.add_argument("--budget", type=float, metavar="SECONDS", help="for all steps on the GPU (default: three or eight minutes)")
    b.add_argument("--short", action="store_true", help="the smallest sizes only, in half a minute")
    command("doctor", _doctor, "say what is installed and what is missing")
    return p


def _lens_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    deck = command("slides", _slides, "write a deck for a lecture on a cell: deck.tex for Beamer, deck.html for the browser")
    deck.add_argument("cell", metavar="CELL", help="a name (see `tinyrnn cells`) or a file of equations")
    deck.add_argument("-o", "--output", metavar="FOLDER", help="default: slides_NAME")
    deck.add_argument("--steps", type=_whole(1), default=3, help="unroll over this many steps (default: 3)")
    deck.add_argument("--loss", choices=("sum", "last"), default="last", help="of all outputs, or of those of the last step")
    deck.add_argument("--reveal", metavar="PLACE", help="where reveal.js's dist is; without it the page runs by itself")
    page = command("page", _page, "write a page in which one steps through a cell, forward and back")
    analyze = command("analyze", _analyze, "say what a cell costs and how its gradients travel")
    xray = command("xray", _xray, "say where the gradient goes, step by step, gate by gate")
    for sub, steps, writes in ((page, 6, ".html (default: NAME.html)"), (analyze, 100, ".json, or .png, .svg, .pdf for a plot"),
                               (xray, 30, ".json, or .png, .svg, .pdf for a plot")):
        sub.add_argument("cell", metavar="CELL", help="a name (see `tinyrnn cells`) or a file of equations")
        sub.add_argument("-o", "--output", metavar="FILE", help=writes)
        sub.add_argument("--steps", type=_whole(1), default=steps, help=f"unroll over this many steps (default: {steps})")
        sub.add_argument("--size", metavar="NAME=N", action="append", default=[], help="a size of the cell, such as h=16")
        sub.add_argument("--loss", choices=("sum", "last"), help="of all outputs, or of those of the last step")
        sub.add_argument("--seed", type=_whole(0), default=0, help="of random weights and inputs (default: 0)")


def _symbolic_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    what = "a name (see `tinyrnn cells`) or a file of equations"
    d = command("derive", _derive, "print the backward pass of a cell as equations")
    d.add_argument("cell", metavar="CELL", help=what)
    d.add_argument("-o", "--output", metavar="FILE", help=".md, .tex, .html (MathML) or .ipynb instead of the terminal")
    d.add_argument("--form", choices=("text", "latex", "markdown"), default="text", help="what to print (default: text)")
    p = command("prove", _prove, "prove a cell's gradients, or check a certificate; exit code 1 where that fails")
    p.add_argument("cell", metavar="CELL", nargs="?", help=what)
    p.add_argument("--check", metavar="FILE", help="verify a certificate without the engine")
    p.add_argument("-o", "--output", metavar="FILE", help="write a certificate (JSON)")
    p.add_argument("--size", metavar="NAME=N", action="append", default=[], help="a size of the cell, such as h=16")
    p.add_argument("--steps", type=_whole(1), help="steps of the proof in the field")
    p.add_argument("--batch", type=_whole(1), help="rows of the proof in the field")
    e = command("equivalent", _equivalent, "compare two cells as functions; exit code 0 only where they are equal")
    e.add_argument("a", metavar="CELL", help=what)
    e.add_argument("b", metavar="CELL", help="the other one")
    e.add_argument("--map", metavar="W=EXPR", action="append", default=[],
                   help="a parameter of the first cell in terms of the second's: W_z=-W_z")
    for sub in (p, e):
        sub.add_argument("--seed", type=_whole(0), help="of the prime and of all draws (default: a new one, which is printed)")
    b = command("published", _published, "run BPTT formulas as printed in the literature against the derivative")
    b.add_argument("names", nargs="*", metavar="NAME", help=", ".join(published.names()))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: good, 1: a check failed, 2: bad use."""
    args = parser().parse_args(argv)
    try:
        result: int = args.run(args)
    except (TinyRNNError, OSError, UnicodeDecodeError) as error:
        print(printable(f"tinyrnn: {error}"), file=sys.stderr)
        return 1 if isinstance(error, ProofError) else 2
    except MemoryError as error:
        print(f"tinyrnn: this does not fit into memory: {error}", file=sys.stderr)
        return 2
    return result
