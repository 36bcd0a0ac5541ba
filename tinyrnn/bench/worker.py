"""One side of a comparison in a process of its own, which is stopped while the other side runs: its threads may look for
work that does not come for as long as they like.

The process takes orders line by line, as JSON: `{"make": [what, name, [T, B, X, H]]}` is answered by the names of the settings
that this side knows, `{"burst": setting}` by the milliseconds of a call.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from . import sides
from .cases import Point
from .timing import burst


class Worker:
    """A side in its process, as the benchmark sees it."""

    def __init__(self, side: str, **environment: str) -> None:
        code = f"from {__name__} import serve; serve({side!r})"
        self._process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         env={**os.environ, **environment})

    def make(self, what: str, name: str, point: Point) -> dict[str, Callable[[], float]]:
        """What is to be measured from now on: for each setting a function that gives milliseconds."""
        self._signal("SIGCONT")
        settings: list[str] = self._ask({"make": [what, name, [point.steps, point.batch, point.x, point.h]]})
        return {setting: partial(self._burst, setting) for setting in settings}

    def _burst(self, setting: str) -> float:
        self._signal("SIGCONT")
        try:
            return float(self._ask({"burst": setting}))
        finally:
            self._signal("SIGSTOP")

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):
            os.kill(self._process.pid, getattr(signal, name))

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"the process ended with {self._process.wait()}"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["found"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._signal("SIGCONT")
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve(side: str) -> None:
    """Orders from standard input, answers to standard output."""
    runs: dict[str, sides.Run] = {}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "make" in order:
                what, name, sizes = order["make"]
                runs = sides.settings(side, what, name, Point(*sizes))
                for run in runs.values():
                    run()
                found: Any = list(runs)
            else:
                found = burst(runs[order["burst"]])
            answer = {"found": found}
        except Exception as error:  # whatever a peer raises is the benchmark's to tell
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), flush=True)
