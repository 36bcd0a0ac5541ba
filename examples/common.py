"""What the examples share: full and short runs, figures, results.

Every example is a script: `python examples/speakers.py` trains in full, draws its figure and writes its result into
`docs/examples/`; `--short` takes a few steps only, and `--out` another folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinyrnn as tr

DOCS = Path(__file__).parent.parent / "docs" / "examples"


class Run:
    """One run of an example: trains models, keeps figures and results."""

    def __init__(self, name: str, short: bool, folder: Path) -> None:
        self.name, self.short, self.folder, self.seed = name, short, folder, 0
        self.seconds, self.results, self.again = 0.0, [], []
        folder.mkdir(parents=True, exist_ok=True)

    def rows(self, full: int, short: int) -> int:
        """How many of something: all of it, or a few in a short run."""
        return short if self.short else full

    def train(self, model: tr.nn.Module, x: Any, y: Any, *, epochs: int, **options: Any) -> tr.train.History:
        """`model.fit`, one epoch in a short run, timed."""
        began = time.perf_counter()
        history = self.fit(model, x, y, epochs=1 if self.short else epochs, rng=self.seed, **options)
        self.seconds += time.perf_counter() - began
        return history

    def fit(self, model: tr.nn.Module, x: Any, y: Any, **options: Any) -> tr.train.History:
        return model.fit(x, y, **options)

    def result(self, what: str, ours: float, **baselines: float) -> None:
        """A figure of merit beside those of simpler methods; losses are better when small."""
        small = what.startswith(("nats", "error", "mean"))
        beaten = [b for b in baselines.values() if (ours < b if small else ours > b)]
        others = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in baselines.items())
        print(f"{what}: {ours:.4g}   ({others})")
        if self.seed:
            self.again.append({"seed": self.seed, "what": what, "ours": ours})
            return
        self.results.append({"what": what, "ours": ours, "baselines": baselines, "beaten": len(beaten) == len(baselines)})

    def figure(self, figure: Any) -> None:
        """Keep a matplotlib figure as `name.svg`, the same bytes each time."""
        import matplotlib.pyplot as plt

        path = self.folder / f"{self.name}.svg"
        if self.seed:
            plt.close(figure)
            return
        for axes in figure.axes:
            if axes.get_xlabel() == "epoch":
                axes.xaxis.get_major_locator().set_params(integer=True)
        figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
        plt.close(figure)
        print(path)

    def all(self, main: Callable[[Run], None], seeds: int) -> int:
        """The example with each seed; its exit code."""
        for self.seed in range(seeds):
            main(self)
        return self.finish()

    def finish(self) -> int:
        """Write the results; 1 where a full run did not beat its baselines."""
        record = {"short": self.short, "seconds of training": round(self.seconds / (self.seed + 1), 1), "results": self.results,
                  "other seeds": self.again}
        (self.folder / f"{self.name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return int(not self.short and not all(r["beaten"] for r in self.results))


def start(main: Callable[[Run], None], run: type[Run] = Run) -> None:
    """Read the command line and run an example."""
    parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__)
    parser.add_argument("--short", action="store_true", help="a few steps only: does everything run?")
    parser.add_argument("--out", type=Path, default=DOCS, help="where figure and result go")
    parser.add_argument("--seeds", type=int, default=1, help="train so many times, with other dropout and order of rows")
    arguments = parser.parse_args()
    plain_figures()
    it = run(Path(sys.argv[0]).stem, arguments.short, arguments.out)
    raise SystemExit(it.all(main, arguments.seeds))


def plain_figures() -> None:
    """Figures that look alike, and whose bytes depend on nothing but what they show."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({
        "svg.hashsalt": "tinyrnn", "figure.figsize": (7, 3.5), "font.size": 10, "savefig.facecolor": "white",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False})


def heat_map(axes: Any, table: Any, dark: float, form: str) -> None:
    """A table as colours, with its numbers; zeros stay empty."""
    axes.imshow(table, cmap="Blues", vmin=0, vmax=2 * dark)
    for (i, j), n in np.ndenumerate(table):
        if n:
            axes.text(j, i, format(n, form), ha="center", va="center", color="white" if n > dark else "black")
    axes.grid(False)


def accuracy(scores: Any, labels: Any) -> float:
    """The share of rows whose largest score is their label."""
    return float((np.argmax(scores, -1) == np.asarray(labels)).mean())
