"""A picture as TikZ: boxes, curves and words at their places, for LaTeX; with overlays for Beamer."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from ..cells.latex import letter, letters
from .names import runs
from .scene import BoxShape, Frame, Part, Point, Scene, Swatch, Wire, Words, clean
from .stages import Stages, stages_of
from .theme import palette

PACKAGES = r"\usepackage{tikz} \usetikzlibrary{arrows.meta,patterns}"
_MATHS = {"⊙": r"\odot", "−": "-", "·": r"\cdot", "×": r"\times", "÷": r"\div", "←": r"\leftarrow", "→": r"\to",
          "∂": r"\partial", "‖": r"\|", "≥": r"\ge", "≤": r"\le", "±": r"\pm", "≈": r"\approx", "⋯": r"\cdots", "ᵀ": r"^\top",
          "⁻": "^-", "¹": "^1", "²": "^2", "³": "^3", "′": "'", "ℓ": r"\ell", "√": r"\surd",
          "∞": r"\infty", "<": "<", ">": ">", "|": "|"}
_SIGNS = {"…": r"\dots{}", "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#",
          "_": r"\_", "^": r"\^{}", "~": r"\~{}", '"': "''", **{c: f"${m}$" for c, m in _MATHS.items()}}


def tikz(scene: Scene, theme: str = "light", overlays: bool = False) -> str:
    """The picture as one `tikzpicture`; with `overlays` each stage of forward, loss and backward on its own."""
    return _Writer(scene, palette("light" if theme == "auto" else theme), stages_of(scene) if overlays else None).text()


def tex(line: str) -> str:
    """A line of a picture in LaTeX: subscripts below, letters and signs that LaTeX knows."""
    out = ""
    for text, below in runs(clean(line)):
        written = "".join(map(_sign, _accents(text)))
        out += rf"\textsubscript{{{written}}}" if below else written
    return out


def _accents(text: str) -> list[str]:
    """Letters, each with the accents that follow it."""
    found: list[str] = []
    for c in text:
        if found and "\u0300" <= c <= "\u036f":
            found[-1] += c
        else:
            found.append(c)
    return found


def _sign(c: str) -> str:
    if c in _SIGNS:
        return _SIGNS[c]
    if c.isascii():
        return c
    if not c[0].isalpha():
        return r"\textbullet{}"
    plain = unicodedata.normalize("NFD", c)
    return f"${letters(plain)}$" if len(plain) > 1 else f"${letter(c)}$"


class _Writer:
    """Parts in the order in which they cover each other: frames, wires, boxes, words."""

    def __init__(self, scene: Scene, paint: Mapping[str, str], stages: Stages | None) -> None:
        self.scene, self.paint, self.stages = scene, paint, stages

    def text(self) -> str:
        """The whole environment."""
        used = sorted({*self.paint} & self._colours())
        title = clean(self.scene.title).replace("\\", "")
        lines = [f"% {title}", f"% needs {PACKAGES}",
                 *(rf"\definecolor{{tr{c}}}{{HTML}}{{{self.paint[c][1:].upper()}}}%" for c in used),
                 r"\begin{tikzpicture}[x=1pt, y=1pt, line join=round, every node/.style={inner sep=0pt, outer sep=0pt}]",
                 rf"  \useasboundingbox (0, 0) rectangle ({self.scene.size[0]:g}, {self.scene.size[1]:g});"]
        for kind in (Frame, Swatch, Wire, BoxShape, Words):
            for p in self.scene.parts:
                if isinstance(p, kind) and not (isinstance(p, BoxShape) and p.classes == "key"):
                    lines += [f"  {line}" for line in self._part(p)]
        return "\n".join([*lines, r"\end{tikzpicture}%"]) + "\n"

    def _colours(self) -> set[str]:
        found = {"text", "line", "background", "quiet"}
        for p in self.scene.parts:
            match p:
                case BoxShape() | Swatch():
                    found.add(p.fill or "background")
                case Wire() | Frame() | Words():
                    found.add(p.kind.partition(" ")[0])
        return found

    def _at(self, x: float, y: float) -> str:
        return f"({x:.2f}, {self.scene.size[1] - y:.2f})"

    def _shown(self, line: str, first: int | None, last: int | None = None) -> str:
        """A command from one slide on, or up to another."""
        if self.stages is None or first is None:
            return line
        return rf"\onslide<{first}-{last if last is not None else ''}>{{{line}}}"

    def _part(self, p: Part) -> list[str]:
        match p:
            case Frame():
                dashed = ", dashed" if p.dashed else ""
                return [rf"\draw[trline, fill=tr{p.kind}, rounded corners=6pt{dashed}] {self._rectangle(p.top_left, p.size)};"]
            case Swatch():
                return [rf"\fill[{self._fill(p.fill)}] {self._rectangle(p.top_left, p.size)};"]
            case Wire():
                return [self._shown(self._wire(p), None if self.stages is None else self.stages.wires.get(p.key))]
            case BoxShape():
                return self._box(p)
        return [self._words(p)]

    def _rectangle(self, corner: Point, size: Point) -> str:
        (x, y), (w, h) = corner, size
        return f"{self._at(x, y + h)} rectangle {self._at(x + w, y)}"

    def _fill(self, fill: str | None) -> str:
        return f"fill=tr{fill}" if fill else "fill=trbackground, postaction={pattern=north east lines, pattern color=gray}"

    def _wire(self, w: Wire) -> str:
        pieces = [w.points[i : i + 3] for i in range(1, len(w.points), 3)]
        way = "".join(f" .. controls {self._at(*a)} and {self._at(*b)} .. {self._at(*c)}" for a, b, c in pieces)
        dashed = ", dashed" if w.kind == "backward" else ""
        pen = f"line width={w.width * self.scene.pen:.2f}pt, -{{Stealth}}{dashed}"
        return rf"\draw[tr{w.kind}, {pen}] {self._at(*w.points[0])}{way};"

    def _box(self, b: BoxShape) -> list[str]:
        if self.stages is None or b.key not in self.stages.ahead:
            return [self._node(b, self._fill(b.fill))]
        first, back = self.stages.ahead[b.key], self.stages.back.get(b.key)
        if back is None:
            return [self._shown(self._node(b, self._fill(b.fill)), first)]
        return [self._shown(self._node(b, "fill=trbackground"), first, back - 1),
                self._shown(self._node(b, self._fill(b.fill)), back)]

    def _node(self, b: BoxShape, fill: str) -> str:
        corners = 0.0 if b.square else min(6.0, b.size[1] / 3)
        shape = "circle" if b.round else f"rounded corners={corners:.1f}pt"
        size = f"minimum width={b.size[0]:.2f}pt, minimum height={b.size[1]:.2f}pt"
        lines = r"\\{}".join(map(tex, b.lines))  # the braces: a line may begin with a bracket
        dashed = ", dashed" if b.dashed else ""
        return (rf"\node[draw=trline, {fill}, {shape}, {size}, align=center, text=trtext{dashed}, {_font(b.font)}] "
                rf"at {self._at(*b.at)} {{{lines}}};")

    def _words(self, w: Words) -> str:
        anchor = {"start": "west", "middle": "center", "end": "east"}[w.anchor]
        kind = w.kind.partition(" ")[0]
        colour = f"tr{kind}" if kind in self.paint else "trtext"
        bold = r"\textbf{%s}" if w.bold else "%s"
        return rf"\node[anchor={anchor}, text={colour}, {_font(w.size)}] at {self._at(*w.at)} {{{bold % tex(w.text)}}};"


def _font(size: float) -> str:
    """A size of letters; LaTeX's own are a little smaller than those that the layout reckons with."""
    return rf"font=\sffamily\fontsize{{{size:g}}}{{{1.2 * size:g}}}\selectfont"
