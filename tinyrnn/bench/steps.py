"""Measurements in processes of their own: a step that hangs, fails or is killed costs its own figures and nothing else.

All figures are in one JSON file, which is written anew after every row, so that it holds what was reached whatever comes.
Its part "steps" says how every step ended; what a step printed is in a file of its own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..files import atomic_write

Say = Callable[[str], None]
LEAST = 6.0    # seconds without which a step is not begun
GRACE = 5.0    # seconds that a step has to say what it knows, once it was told to stop
TAIL = 2000    # characters of what a step that failed said last, which go into the record


class Record:
    """Figures by name in a JSON file.  One process at a time writes."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> dict[str, Any]:
        """All figures; a file that is none of ours is laid aside."""
        try:
            found = json.loads(self.file.read_text())
        except FileNotFoundError:
            found = {}
        except ValueError:
            os.replace(self.file, self.file.with_suffix(".broken"))
            found = {}
        return found if isinstance(found, dict) else {}

    def put(self, *path: str, value: Any) -> None:
        """A figure at its place, in the file at once."""
        found = self.read()
        at = found
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = value
        self.file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.file, (json.dumps(found, indent=1) + "\n").encode())


class TimedCommand(NamedTuple):
    """A command under a time limit, left out where the step that it `needs` has failed."""

    name: str
    command: Sequence[str]
    seconds: float
    needs: str = ""
    environment: Mapping[str, str] = {}


def take(steps: Sequence[TimedCommand], record: Record, seconds: float, say: Say = print) -> bool:
    """Every step that there is time for; whether all went well."""
    end, ended = time.monotonic() + seconds, dict[str, str]()
    for step in steps:
        left = min(step.seconds, end - time.monotonic())
        said: dict[str, Any] = {"ended": "broken off"}
        try:
            if ended.get(step.needs, "well") != "well":
                said = {"ended": f"not begun: the step {step.needs!r} failed"}
            elif left < min(LEAST, step.seconds):
                said = {"ended": "not begun: no time was left"}
            else:
                said = _taken(step, left, record.file.parent)
        finally:  # also where somebody stops the whole
            record.put("steps", step.name, value=said)
        ended[step.name] = said["ended"]
        if "log" in said:
            see = "" if said["ended"] == "well" else f"; see {said['log']}"
            say(f"{step.name}: {said['ended']}, {said['seconds']:.1f} s{see}")
        else:
            say(f"{step.name}: {said['ended']}")
    return set(ended.values()) <= {"well"}


def _taken(step: TimedCommand, seconds: float, folder: Path) -> dict[str, Any]:
    """One step: how it ended, how long it took, where its output is."""
    log = folder / "logs" / (re.sub(r"[^A-Za-z0-9]+", "-", step.name).strip("-") + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("wb") as out:
        try:
            child = subprocess.Popen(step.command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                     env={**os.environ, **step.environment}, start_new_session=True)
        except OSError as error:
            return {"ended": f"cannot be started: {error}", "seconds": 0.0, "log": str(log.relative_to(folder))}
        try:
            code = child.wait(seconds)
            ended = "well" if not code else f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {seconds:.0f} s"
            _tell(child, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
        finally:
            _end(child)
    said = {"ended": ended, "seconds": round(time.monotonic() - began, 2), "log": str(log.relative_to(folder))}
    return said if ended == "well" else {**said, "said": log.read_bytes()[-TAIL:].decode(errors="replace")}


def _tell(child: subprocess.Popen[bytes], what: int) -> None:
    """A signal to a step and all that it began."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, what) if hasattr(os, "killpg") else child.kill()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Nothing that the step began goes on."""
    _tell(child, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):  # a process that the driver holds cannot be killed, and must not hold up the rest
        child.wait(5)
