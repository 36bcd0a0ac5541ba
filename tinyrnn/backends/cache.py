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
        with open(path, "rb", opener=_opened) as file:
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


def _opened(path: str, flags: int) -> int:
    """Without waiting for a writer of a pipe, and through no link."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))


def store_object(identity: str, code: bytes) -> None:
    """Keep object code; a cache that cannot be written is no error."""
    global _stored
    place = folder()
    if place is None:
        return
    with contextlib.suppress(OSError):
        atomic_write(place / f"{identity}.o", _sealed(identity, code) + code, 0o600)
        if _stored % EVERY == 0:
            clear_leftovers(place, seconds=ABANDONED)
            _evict(place)
        _stored += 1


def _evict(place: Path) -> None:
    """Where kernels take more than the limit, remove those whose last use is longest ago, down to three quarters of it."""
    found: list[tuple[float, int, str]] = []
    with os.scandir(place) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if _KERNEL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    s = entry.stat(follow_symlinks=False)
                    found.append((s.st_mtime, s.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    if total <= LIMIT:
        return
    for _, size, path in sorted(found):
        if total <= LIMIT * 3 // 4:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= size
