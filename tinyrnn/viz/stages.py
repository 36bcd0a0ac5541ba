"""In which order a picture comes about: forward from what is given to the loss, then back."""

from __future__ import annotations

from dataclasses import dataclass

from .scene import BoxShape, Scene, Wire


@dataclass
class Stages:
    """The stage at which every box and wire appears, from 1; `back` has those at which boxes show their gradient."""

    ahead: dict[str, int]
    back: dict[str, int]
    wires: dict[str, int]
    last: int


def stages_of(scene: Scene) -> Stages:
    """Boxes appear after what they read, the longest way from the inputs; gradients after those of the readers."""
    shapes = [p for p in scene.parts if isinstance(p, BoxShape) and p.classes != "key"]
    boxes = [p.key for p in shapes]
    known = set(boxes)
    wires = [p for p in scene.parts if isinstance(p, Wire) and {*p.ends} <= known]
    ahead = _depths(boxes, [w.ends for w in wires if w.kind == "forward"])
    turn = max(ahead.values(), default=1)
    ahead |= {p.key: turn for p in shapes if p.classes == "loss"}  # when all is computed
    backward = [w for w in wires if w.kind == "backward"]
    if not backward:
        return Stages(ahead, {}, {w.key: max(ahead[k] for k in w.ends) for w in wires}, turn)
    reached = _depths(boxes, [w.ends for w in backward])  # a wire of the gradient runs from reader to source
    touched = {k for w in backward for k in w.ends}
    last = turn + max(reached[k] for k in touched)
    back = {k: turn + reached[k] if k in touched else last for k in boxes}  # what no gradient reaches is seen at the end
    found = {w.key: back[w.ends[1]] if w.kind == "backward" else max(ahead[k] for k in w.ends) for w in wires}
    return Stages(ahead, back, found, last)


def _depths(keys: list[str], edges: list[tuple[str, str]]) -> dict[str, int]:
    """The number of boxes on the longest way that ends at each; a way that returns to itself is not followed."""
    sources: dict[str, list[str]] = {k: [] for k in keys}
    for a, b in edges:
        sources[b].append(a)
    depth: dict[str, int] = {}
    for k in keys:
        stack = [k]
        open_ = set[str]()
        while stack:
            n = stack[-1]
            open_.add(n)
            waiting = [s for s in sources[n] if s not in depth and s not in open_]
            if waiting:
                stack.append(waiting[0])
            else:
                depth.setdefault(n, 1 + max((depth.get(s, 0) for s in sources[n]), default=0))
                stack.pop()
    return depth
