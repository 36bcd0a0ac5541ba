"""Compiled kernels on disk: in the user's own cache folder, refused when somebody else could have written them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import sys
from pathlib import Path

from ..files import atomic_write, clear_leftovers

VARIABLE = "TINYRNN_CACHE"  # a folder of one's own, or "off"
LIMIT = 256 * 2**20         # bytes of kernels that are kept; those whose last use is longest ago go first
ABANDONED = 3600            # seconds after which a temporary file has no writer any more
EVERY = 16                  # kernels stored by this process between two looks at the size of the whole
_KERNEL = re.compile(r"[0-9a-f]{64}\.o")
_stored = 0


def folder() -> Path | None:
    """Where kernels are kept; None where there is no safe place."""
    named = os.environ.get(VARIABLE)
    if named is not None and named.lower() in ("", "0", "off", "none"):
        return None
    try:
        path = Path(named) if named else _default()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except (OSError, RuntimeError, ValueError):  # no home, no right to make the folder, no name of a file
        return None
    return path if _private(found) else None


def _default() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tinyrnn"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyrnn"


def _private(found: os.stat_result) -> bool:
    """Whether only this user can write: a kernel is code that will be run."""
    if not hasattr(os, "getuid"):
        return True
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _sealed(identity: str, code: bytes) -> bytes:
    """The digest covers what the code is for: kernels that changed places are not run."""
    return hashlib.sha256(identity.encode() + b"\0" + code).digest()


def load_object(identity: str) -> bytes | None:
    """The object code stored under a name, if it is whole, this name's and nobody else's."""
    place = folder()
    if place is None:
        return None
    path = place / f"{identity}.o"
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read() if _private(found) and stat.S_ISREG(found.st_mode) else b""
    except OSError:
        return None
    seal, code = data[:32], data[32:]
    if _sealed(identity, code) != seal:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it was of use
    return code


def store_object(identity: str, code: bytes) -> None:
    """Keep object code; a cache that cannot be written is no error."""
    global _stored
    place = folder()
    if place is None:
        return
    with contextlib.suppress(OSError):
        atomic_write(place / f"{identity}.o", _sealed(identity, code) + code, 0o600)
        if _stored % EVERY == 0:
            clear_leftovers(place, ABANDONED)
            _evict(place)
        _stored += 1


def _evict(place: Path) -> None:
    """Remove the kernels whose last use is longest ago, until three quarters of the limit are left."""
    with os.scandir(place) as entries:
        found = [(entry.stat(), entry.path) for entry in entries if _KERNEL.fullmatch(entry.name)]
    total = sum(s.st_size for s, _ in found)
    goal = LIMIT if total <= LIMIT else LIMIT * 3 // 4
    for s, path in sorted(found, key=lambda f: f[0].st_mtime):
        if total <= goal:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        total -= s.st_size
