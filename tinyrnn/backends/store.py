"""Compiled kernels on disk: in the user's own cache folder, refused when somebody else could have written them."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path

from ..files import atomic_write

VARIABLE = "TINYRNN_CACHE"  # a folder of one's own, or "off"


def folder() -> Path | None:
    """Where kernels are kept; None where there is no safe place."""
    named = os.environ.get(VARIABLE)
    if named is not None and named.lower() in ("", "0", "off", "none"):
        return None
    if named:
        path = Path(named)
    elif sys.platform == "darwin":
        path = Path.home() / "Library" / "Caches" / "tinyrnn"
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyrnn"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except (OSError, RuntimeError):
        return None
    return path if _private(found) else None


def _private(found: os.stat_result) -> bool:
    """Whether only this user can write: a kernel is code that will be run."""
    if not hasattr(os, "getuid"):
        return True
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def load_object(identity: str) -> bytes | None:
    """The object code stored under a name, if it is whole and nobody else's."""
    place = folder()
    if place is None:
        return None
    path = place / f"{identity}.o"
    try:
        if not _private(path.stat()):
            return None
        data = path.read_bytes()
    except OSError:
        return None
    digest, code = data[:32], data[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def store_object(identity: str, code: bytes) -> None:
    """Keep object code; a cache that cannot be written is no error."""
    place = folder()
    if place is None:
        return
    try:
        atomic_write(place / f"{identity}.o", hashlib.sha256(code).digest() + code)
        (place / f"{identity}.o").chmod(0o600)
    except OSError:
        return
