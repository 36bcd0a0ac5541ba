"""Breadth-first search."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def shortest_path(start: T, following: Callable[[T], Iterable[T]], arrived: Callable[[T], bool]) -> list[T]:
    """A shortest path from `start` to a place where it has arrived; empty where there is none."""
    before: dict[T, T | None] = {start: None}
    queue = [start]
    for place in queue:
        if arrived(place):
            path = [place]
            while (earlier := before[path[-1]]) is not None:
                path.append(earlier)
            return path[::-1]
        for after in following(place):
            if after not in before:
                before[after] = place
                queue.append(after)
    return []
