"""Locks that the child of a fork finds open: the threads that held them do not exist there."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

_RLock: Any = type(threading.RLock())


class ForkSafeLock(_RLock):  # type: ignore[misc]  # the class of Python's own lock, which has no public name
    """A lock for `with`, which a thread may take again while it has it."""

    def __init__(self) -> None:
        _LOCKS.add(self)

    def renew(self) -> None:
        """Open it, unless the forking thread itself has it: that one goes on in the child."""
        if self.acquire(blocking=False):
            self.release()
        else:
            self._at_fork_reinit()


_LOCKS: WeakSet[ForkSafeLock] = WeakSet()


def _renew() -> None:
    for lock in list(_LOCKS):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
