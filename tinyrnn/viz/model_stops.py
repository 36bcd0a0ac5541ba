"""What a page knows of a whole model: every box at every step, the head and the loss, forward and back."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from ..analysis.put_in import added, value
from ..analysis.subject import Subject
from ..cells.paper import text
from ..cells.terms import Term
from .canvas import FORMATS
from .columns import Shown
from .over_time import scene
from .scene import BoxShape, Scene, Wire, clean
from .shown import SMALL, rounded, shown
from .svg import drawn
from .wiring import Wired

CAPTIONS = (("input", "The data of the first step."), ("state", "The output."),
            ("gate", "A recurrent layer: it reads what is below it and its own state."))


class ModelStops:
    """A model over time: its picture and its stops."""

    def __init__(self, model: Wired, picture: Shown, subject: Subject) -> None:
        assert picture.flow is not None
        self.model, self.picture, self.subject, self.flow = model, picture, subject, picture.flow
        self.flow.flow.quiet = True
        picture.loss = "L"
        self.name = f"the whole {type(model).__name__}"
        self.scene: Scene = scene(picture, "gates", "all", FORMATS["wide"])
        self.svg = drawn(self.scene, "auto")
        wires = [w for w in self.scene.parts if isinstance(w, Wire)]
        self.boxes = {b.key: b for b in self.scene.parts if isinstance(b, BoxShape) and "key" not in b.classes}
        self.ahead = [w for w in wires if w.kind in ("forward", "delay") and {*w.ends} <= {*self.boxes}]
        self.back = [w for w in wires if w.kind == "backward" and {*w.ends} <= {*self.boxes}]

    def data(self) -> dict[str, Any]:
        """Everything the script needs."""
        order = [k for k in self._order() if k != "loss"]
        self.main = self._mains(order)
        mains = [k for k in order if self.main[k] == k]
        loss = {"direction": "L", "node": "loss", "name": "L", "lines": self._loss_lines()}
        stops = [*(self._stop("f", k) for k in mains), loss, *(self._stop("b", k) for k in reversed(mains))]
        n = len(mains) + 1
        place = {k: i for i, k in enumerate(mains, 1)}
        forward = {"loss": n, **{k: place[self.main[k]] for k in order}}
        backward = {k: 2 * n - i for k, i in forward.items()}
        tones = [abs(s["tone"]) for s in stops if s.get("tone") is not None]
        return {"name": clean(self.name), "loss": shown(self.subject.loss), "rows": self.subject.rows, "stops": stops,
                "steps": max(self.picture.lengths.values(), default=1), "forward": forward, "backward": backward,
                "edges": [list(w.ends) for w in self.ahead], "parameters": self._parameters(backward),
                "strongest": [], "states": {}, "brightest": max(tones, default=1.0) or 1.0, "guide": self._guide(stops)}

    def _order(self) -> list[str]:
        """Boxes so that each stands after what it reads; from left to right, from below."""
        reads: dict[str, set[str]] = {k: set() for k in self.boxes}
        readers: dict[str, list[str]] = {k: [] for k in self.boxes}
        for w in self.ahead:
            a, b = w.ends
            reads[b].add(a)
            readers[a].append(b)
        rank = {k: (b.at[0], -b.at[1], k) for k, b in self.boxes.items()}
        ready = [rank[k] for k, found in reads.items() if not found]
        heapify(ready)
        order: list[str] = []
        while ready:
            k = heappop(ready)[2]
            order.append(k)
            for r in dict.fromkeys(readers[k]):
                reads[r].discard(k)
                if not reads[r]:
                    heappush(ready, rank[r])
        return order

    def _mains(self, order: list[str]) -> dict[str, str]:
        """The box that stands for each: one that only hands on what it reads is that which it reads."""
        main: dict[str, str] = {}
        for k in order:
            reads, given = [w.ends[0] for w in self.ahead if w.ends[1] == k], self.flow.values.get(self._place(k))
            main[k] = k
            if len(reads) == 1 and given is not None and [w.ends[1] for w in self.ahead if w.ends[0] == reads[0]] == [k]:
                before = self.flow.values.get(self._place(main[reads[0]]))
                if before is not None and np.array_equal(np.squeeze(before), np.squeeze(given)):
                    main[k] = main[reads[0]]
        return main

    def _members(self, box: str) -> list[str]:
        return [k for k, m in self.main.items() if m == box]

    def _place(self, box: str) -> tuple[str, int | None]:
        head, _, tail = box.rpartition("-")
        return (head, int(tail)) if head and tail.isdigit() else (box, None)

    def _called(self, box: str) -> str:
        label = self.boxes[box].lines[0] if self.boxes[box].lines else box
        k, p = self._place(box)
        plain = p is None or k not in self.flow.timing.boxes or self.flow.timing.boxes[k].symbol
        return clean(label if plain else f"{label} of step {p}", 60)

    def _named(self, box: str) -> str:
        """What a value is called: by the last of its boxes that is a quantity, else by the first."""
        quantities = [k for k in self._members(box) if (b := self.flow.timing.boxes.get(self._place(k)[0])) and b.symbol]
        return self._called([box, *quantities][-1])

    def _stop(self, direction: str, box: str) -> dict[str, Any]:
        place = self._place(box)
        found = self.flow.values.get(place)
        own = self._members(box)
        stop: dict[str, Any] = {"direction": direction, "node": box, "name": self._named(box), "lines": [],
                                "says": clean("; ".join(self.boxes[k].title for k in own), 120)}
        if place[1] is not None:
            stop["step"] = place[1]
        if direction == "f":
            array = np.asarray([] if found is None else found)
            stop["lines"] = self._lines(box, array)
            mean = float(np.mean(array)) if array.size and array.dtype.kind == "f" else np.nan  # tokens have no tone
            return stop | {"value": shown(found) if array.size else None, "tone": rounded(mean) if np.isfinite(mean) else None}
        gradient = self.flow.gradients.get(place)
        norm = self.flow.norm(place) if self.flow.knows(place) else None
        sent = [w for w in self.back if w.ends[1] in own and w.ends[0] not in own]
        on = [w.ends[1] for w in self.back if w.ends[0] in own and w.ends[1] not in own]
        return stop | {"gradient": None if gradient is None else shown(gradient), "norm": rounded(norm),
                       "from": [[self._called(w.ends[0]), None, _norm(w)] for w in sent],
                       "to": list(dict.fromkeys(self._named(self.main[k]) for k in on))}

    # ---- formulas with numbers put in

    def _lines(self, box: str, result: Any) -> list[str]:
        """W x + b of a layer that is no more than that."""
        known = self.flow.timing.boxes.get(self._place(box)[0])
        source = next((w.ends[0] for w in self.ahead if w.ends[1] == box), "")
        x = self.flow.values.get(self._place(self.main.get(source, "")))
        if known is None or known.affine is None or x is None:
            return []
        weight, bias = known.affine
        if max(weight.size, np.size(x), np.size(result)) > SMALL:
            return []
        read = self._named(self.main[source])
        letters = Term("binary", "·", (Term("parameter", "W"), Term("variable", f"({read})" if " " in read else read)))
        numbers = Term("binary", "·", (value(weight.numpy()), value(x)))
        if bias is not None:
            letters = Term("binary", "+", (letters, Term("parameter", "b")))
            numbers = added(Term("binary", "+", (numbers, value(bias.numpy()))))
        return [" = ".join([self._named(box), *map(text, (letters, numbers, value(result)))])]

    def _loss_lines(self) -> list[str]:
        """The loss with the outputs and the targets that it compares."""
        reads = [self.main[w.ends[0]] for w in self.ahead if w.ends[1] == "loss"]
        values = [self.flow.values.get(self._place(k)) for k in reads]
        small = values and all(v is not None and 0 < np.size(v) <= SMALL for v in values) and len(values) <= SMALL
        if self.subject.rows != 1 or not small:
            return []
        names, numbers = (", ".join(found) for found in (map(self._named, reads), (text(value(v)) for v in values)))
        name, loss = self.subject.caption.partition(";")[0].replace("_", " "), text(value(self.subject.loss))
        if self.subject.target is None:
            return [f"L = {loss}: {name}, {names} = {numbers}"]
        return [f"L = {name}({names}; target) = {name}({numbers}; {text(value(self.subject.target[0]))}) = {loss}"]

    def _parameters(self, backward: dict[str, int]) -> dict[str, Any]:
        """Every parameter with its whole gradient, which is there when its layer has been passed at the first step."""
        tensors = {name: t for name, t in self.model.leaves() if t.dtype.kind == "f"}
        found = self.subject.gradients([t.node for t in tensors.values()])
        paths = {id(m): path for path, m in self.model.named_modules()}
        last: dict[str, int] = {}
        for box, stop in backward.items():
            known = self.flow.timing.boxes.get(self._place(box)[0])
            layer = None if known is None else known.layer
            if layer is not None:
                last[paths[id(layer)]] = max(last.get(paths[id(layer)], 0), stop)
        out = {}
        for name, t in tensors.items():
            owner = max((p for p in last if not p or name.startswith(f"{p}.")), key=len, default="")
            gradient = found.get(t.node)
            parts = [] if gradient is None else [{"stop": last.get(owner, max(backward.values())), "sum": shown(gradient)}]
            out[clean(name)] = {"value": shown(t.numpy()), "parts": parts}
        return out

    def _guide(self, stops: list[dict[str, Any]]) -> list[list[Any]]:
        """About a dozen stops, each with a caption."""
        boxes = self.flow.timing.boxes
        found: dict[int, str] = {}
        for fill, caption in CAPTIONS:
            first = next((n for n, s in enumerate(stops, 1) if s["direction"] == "f" and self._fill(s["node"]) == fill
                          and self._place(s["node"])[0] in boxes), None)
            if first is not None:
                found[first] = caption
        loss = next(n for n, s in enumerate(stops, 1) if s["direction"] == "L")
        found[loss] = "The loss: one number. From here the gradient goes back."
        gates = [n for n, s in enumerate(stops, 1) if s["direction"] == "b" and self._fill(s["node"]) == "gate" and s["norm"]]
        if loss < len(stops):
            found.setdefault(loss + 1, "Backward begins at the output.")
        if gates:
            found.setdefault(gates[0], "The gradient reaches the recurrent layer.")
            found.setdefault(gates[-1], "The last stop in the recurrent layer: what has come this far?")
        found.setdefault(len(stops), "All gradients are there. Choose a parameter to see its own.")
        return [[n, found[n]] for n in sorted(found)]

    def _fill(self, box: str) -> str:
        k = self._place(box)[0]
        return self.flow.timing.boxes[k].fill if k in self.flow.timing.boxes else ""


def _norm(w: Wire) -> float | str | None:
    """What a wire of the gradient says of itself."""
    return rounded(float(w.title.rpartition("norm ")[2]))
