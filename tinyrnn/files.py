"""Files that are complete or not there, and those that come with the package."""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .errors import ArgumentError

if TYPE_CHECKING:
    from importlib.abc import Traversable

PathLike = str | os.PathLike[str]
File = PathLike | BinaryIO
"""A name, or a file that is open in binary mode."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
SHOWN = 40  # characters of a file's name that its temporary file has as well
_LEFT = re.compile(r"\..*\.[0-9a-f]{16}\.tmp", re.DOTALL)


def path_of(path: PathLike) -> Path:
    """A path as a person writes it: `~` is the home folder."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"expected the name of a file, got {type(path).__name__}")
    return Path(path).expanduser()


def atomic_write(path: PathLike, data: bytes, mode: int = 0o666) -> None:
    """Temporary file beside the target, fsync, replace, fsync of the folder; the process's umask narrows the mode."""
    target = path_of(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} to write {target.name!r} into")
    temporary = target.parent / f".{target.name[:SHOWN]}.{secrets.token_hex(8)}.tmp"
    handle = os.open(temporary, _NEW, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_bytes(file: File, data: bytes) -> None:
    """All of the data: atomically under a name, from where it stands into an open file."""
    if not hasattr(file, "write"):
        atomic_write(file, data)
        return
    rest = memoryview(data)
    while rest:
        count = _binary(file.write, rest)
        if count is None and not isinstance(file, io.RawIOBase):  # it does not count, and took all
            return
        if not count:
            raise OSError(f"{shown(file)} takes no more bytes: {len(rest):,} of {len(data):,} are not written")
        rest = rest[count:]  # a file without a buffer may take a part


def read_bytes(file: File) -> bytes:
    """What a file holds under its name, or from where it stands if it is open."""
    if not hasattr(file, "read"):
        return path_of(file).read_bytes()
    data = _binary(file.read)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ArgumentError(f"a file that is open for reading gave {type(data).__name__} instead of bytes: open it with 'rb'")
    return bytes(data)


def _binary(do: Any, *data: Any) -> Any:
    try:
        return do(*data)
    except (TypeError, UnicodeDecodeError) as error:
        raise ArgumentError(f"the open file is none of bytes ({error}): open it with 'wb' or 'rb'") from None


def shown(file: File) -> str:
    """A file in a message: its name, or what it is."""
    named = getattr(file, "name", None) if hasattr(file, "read") or hasattr(file, "write") else file
    return os.fspath(named) if isinstance(named, (str, os.PathLike)) else f"an open {type(file).__name__}"


def clear_leftovers(folder: PathLike, name: str = "", seconds: float = 0) -> None:
    """Remove the temporary files of writers that were killed: those for files whose name begins so, and `seconds` old."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _LEFT.fullmatch(entry.name) and entry.name.startswith(f".{name[:SHOWN]}"):
                with contextlib.suppress(OSError):  # its writer, or another tidy process, was faster
                    if entry.is_file(follow_symlinks=False) and time.time() - entry.stat().st_mtime >= seconds:
                        os.unlink(entry.path)


def shipped(package: str) -> Traversable:
    """The folder of a package, with the files that come with it."""
    from importlib import resources  # it takes a tenth of the time of `import tinyrnn`

    return resources.files(package)
