"""A model layer by layer: what reads what, shapes and parameters; recurrent layers hold cells that unfold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..cells import Cell
from ..nn.attention import Attention
from ..nn.bidirectional import Bidirectional
from ..nn.module import Module
from ..nn.packed import Packed
from ..nn.recurrent import Recurrent
from ..nn.seq2seq import EncoderDecoder
from ..nn.sequential import Sequential
from .layered import Arrangement, lay_out
from .scene import LINE, BoxShape, Frame, Scene, Wire, Words, curve, fitted, straight, text_width
from .steps import MARGIN


def cells_of(model: Module) -> list[tuple[str, Cell]]:
    """The cells of a model, each once, with the name of the first layer that runs it."""
    found: dict[Cell, str] = {}
    for name, m in model.named_modules():
        cell = getattr(m, "cell", None)
        if isinstance(cell, Cell):
            found.setdefault(cell, name or type(m).__name__)
    return [(name, cell) for cell, name in found.items()]


class _Wiring:
    """Boxes and what each reads."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}
        self.reads: dict[str, list[str]] = {}
        self.kind: dict[str, str] = {}
        self.returns: dict[str, str] = {}  # recurrent box -> "forward" or "backward" in time
        self.seen: dict[int, str] = {}
        self.asks: list[tuple[str, str]] = []    # a decoder's box and the attention that its last state asks
        self.loose: list[tuple[str, list[str]]] = []  # modules whose wiring only their code knows

    def box(self, lines: Sequence[str], reads: Sequence[str], kind: str) -> str:
        key = f"m{len(self.lines)}"
        self.lines[key], self.reads[key], self.kind[key] = list(lines), list(reads), kind
        return key

    def add(self, m: Module, name: str, reads: list[str]) -> list[str]:
        """A module that reads these boxes; the boxes from which its output comes."""
        before = self.seen.setdefault(id(m), name)
        if before != name:
            first = len(self.lines)
            ends = self._wired(m, name, reads)
            for key in list(self.lines)[first:]:
                self.lines[key][-1] = f"shared with {before or 'the model'}"
            return ends
        return self._wired(m, name, reads)

    def _wired(self, m: Module, name: str, reads: list[str]) -> list[str]:
        match m:
            case Sequential():
                for k, layer in enumerate(m.layers):
                    reads = self.add(layer, _joined(name, str(k)), reads)
                return reads
            case Packed():
                return self._packed(m, name, reads)
            case Bidirectional():
                ends = [*self.add(m.forward, _joined(name, "forward"), reads),
                        *self.add(m.backward, _joined(name, "backward"), reads)]
                return [self.box([m.merge or "pair"], ends, "op")]
            case EncoderDecoder():
                return self._encoder_decoder(m, name, reads)
            case Recurrent():
                key = self.box([_title(name, m), f"{m.cell.name}, state {', '.join(m.cell.states)}", _count(m)], reads, "gate")
                self.returns[key] = "backward" if m.reverse else "forward"
                return [key]
        own = [(k, c) for k, c in m.named_modules() if c is not m]
        if not own:
            return [self.box([_title(name, m), *_details(m), _count(m)], reads, "function")]
        key = self.box([_title(name, m), "wired in its own code", _count(m)], reads, "loss")
        self.loose.append((key, [f"{k}: {type(c).__name__}, {_count(c)}" for k, c in own if not _inside(k, own)]))
        return [key]

    def _packed(self, m: Packed, name: str, reads: list[str]) -> list[str]:
        width = m.input_size
        for k in range(m.num_layers):
            ends = []
            for d in m.directions:
                back = m.reverse or d == "_reverse"
                weights = sum(getattr(m, f"{p}_l{k}{d}").size for p in m.layout)
                key = self.box([f"{_title(name, m)} l{k}{d}", f"{width} → {m.widths['h']}, state {', '.join(m.cell.states)}",
                                f"{weights:,} parameters"], reads, "gate")
                self.returns[key] = "backward" if back else "forward"
                ends.append(key)
            reads = ends if len(ends) == 1 else [self.box(["concat"], ends, "op")]
            width = m.widths["h"] * len(m.directions)
        return reads

    def _encoder_decoder(self, m: EncoderDecoder, name: str, reads: list[str]) -> list[str]:
        target = self.box(["target, one step late"], [], "input")
        y = self.add(m.source_embedding, _joined(name, "source_embedding"), reads)
        z = self.add(m.target_embedding, _joined(name, "target_embedding"), [target])
        states: list[str] = []
        for k, layer in enumerate(m.encoder):
            y = self.add(layer, _joined(name, f"encoder.{k}"), y)
            ends = self.reads[y[0]] if self.kind[y[0]] == "op" else y
            size = sum(t.size for bridge in m.bridge[k] for t in bridge.parameters())
            states.append(self.box([f"bridge {k}: last states", "tanh(W s + b)", f"{size:,} parameters"], ends, "function"))
        context = [self.box([_title(_joined(name, "attention"), m.attention), m.attention.kind, _count(m.attention)], y, "loss")
                   ] if isinstance(m.attention, Attention) else []
        for k, (layer, start) in enumerate(zip(m.decoder, states, strict=True)):
            z = self.add(layer, _joined(name, f"decoder.{k}"), [*z, start, *(context if k == 0 else [])])
        self.asks += [(z[0], key) for key in context]
        return self.add(m.out, _joined(name, "out"), [*z, *context])


def _joined(a: str, b: str) -> str:
    return f"{a}.{b}" if a else b


def _inside(name: str, others: Sequence[tuple[str, Any]]) -> bool:
    return any(name.startswith(f"{other}.") for other, _ in others)


def _title(name: str, m: Module) -> str:
    return f"{name}: {type(m).__name__}" if name else type(m).__name__


def _count(m: Module) -> str:
    n = sum(t.size for t in m.parameters())
    return f"{n:,} parameter{'s' * (n != 1)}"


def _details(m: Module) -> list[str]:
    """The options of a layer in a line."""
    options = {k: v for k, v in (m.config() or {}).items() if isinstance(v, (int, float, str)) and k not in ("dtype", "bias")}
    text = ", ".join(f"{k}={v}" for k, v in options.items() if v is not True and v != 0)
    return [text] if text else []


def layers(model: Module) -> Scene:
    """The layers of a model; recurrent ones with the loop of their state, and the direction in which they read."""
    wiring = _Wiring()
    source = wiring.box(["x"], [], "input")
    ends = wiring.add(model, "", [source])
    wiring.box(["output"], ends, "state")
    size = {k: (min(max(34.0, max(text_width(t[:90], 11 if i == 0 else 9.5) for i, t in enumerate(lines)) + 16), 420.0),
                LINE * len(lines) + 12) for k, lines in wiring.lines.items()}
    layout = lay_out(Arrangement(size, wiring.reads, gap=(36.0, 44.0)))
    title = f"{type(model).__name__}: {_count(model)}"
    scene = Scene(title, f"{title}. " + "; ".join(", ".join(lines) for lines in wiring.lines.values()) + ".")
    scene.add(Words((MARGIN, 24), title, size=14, bold=True))
    dx, dy = MARGIN, 74.0
    for (a, b), way in layout.way.items():
        scene.add(Wire(f"f-{a}-{b}", (a, b), curve([(x + dx, y + dy) for x, y in way]), "forward",
                       f"{wiring.lines[a][0]} → {wiring.lines[b][0]}"))
    for a, b in wiring.asks:
        low = dy + layout.height + 16
        (ax, ay), (bx, by) = layout.at[a], layout.at[b]
        way = straight((ax + dx, ay + dy + size[a][1] / 2), (ax + dx, low), (bx + dx, low), (bx + dx, by + dy + size[b][1] / 2))
        scene.add(Wire(f"asks-{a}", (a, b), way, "delay", "the decoder's last state asks where to look"))
    for k, lines in wiring.lines.items():
        x, y = layout.at[k][0] + dx, layout.at[k][1] + dy
        if k in wiring.returns:
            _loop(scene, k, (x, y), size[k], wiring.returns[k])
        corner = 0 if wiring.kind[k] == "input" else 5
        scene.add(BoxShape(k, (x, y), size[k], lines, wiring.kind[k], ", ".join(lines), corner=corner))
    right, bottom = _lists(scene, wiring, dy + layout.height + 30)
    scene.size = (max(dx + layout.width + MARGIN, 1.1 * text_width(title, 14) + 2 * MARGIN, right), bottom)
    return scene


def _loop(scene: Scene, key: str, at: tuple[float, float], size: tuple[float, float], direction: str) -> None:
    """The state's way around its layer, through z⁻¹; time runs against the reading direction where it is drawn leftwards."""
    (x, y), (w, h) = at, size
    side, up = w / 4 if direction == "forward" else -w / 4, y - h / 2 - 17
    box = f"{key}-delay"
    edge, top = (13 if side > 0 else -13), y - h / 2
    scene.add(Wire(f"{key}-in", (key, box), straight((x + side, top), (x + side, up), (x + edge, up)), "delay",
                   "the state goes into the delay"),
              Wire(f"{key}-out", (box, key), straight((x - edge, up), (x - side, up), (x - side, top)), "delay",
                   f"the state of the step {'before' if direction == 'forward' else 'after'} comes back"),
              BoxShape(box, (x, up), (26, 14), ["z⁻¹" if direction == "forward" else "z⁺¹"], "op",
                  f"a delay of one step, {direction} in time", corner=2, classes="delay"))


def _lists(scene: Scene, wiring: _Wiring, top: float) -> tuple[float, float]:
    """What is inside modules whose wiring only their own code knows; where the lists end."""
    right = 0.0
    for key, entries in wiring.loose:
        height = LINE * len(entries) + 28
        heading = f"inside {wiring.lines[key][0]}"
        entries = [fitted(e, 600, 9.5) for e in entries]
        heading = fitted(heading, 600, 10)
        wide = max(map(text_width, (heading, *entries))) + 24
        right = max(right, wide + 2 * MARGIN)
        scene.add(Frame(f"{key}-inside", (MARGIN, top), (wide, height), heading, "legend", dashed=True),
                  Words((MARGIN + 10, top + 16), heading, bold=True, size=10))
        scene.add(*(Words((MARGIN + 10, top + 31 + LINE * i), e, size=9.5) for i, e in enumerate(entries)))
        top += height + 10
    return right, top + 10
