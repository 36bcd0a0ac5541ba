"""A picture that comes about: forward, loss, backward, as an animated SVG, a GIF, or an MP4."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

from ..errors import DrawError
from . import formats
from .scene import Scene
from .stages import Stages, stages_of
from .svg import SVG
from .theme import DARK, palette

HOLD = 3.0  # seconds for which the whole picture stays
_SHAPES = ("path", "polygon", "ellipse")


def animated(svg: str, scene: Scene, seconds: float, theme: str) -> str:
    """The picture with a style sheet that lets each stage appear; who wants no motion sees the whole."""
    stages, rules = stages_of(scene), list[str]()
    root = _parsed(svg)
    scope = f"#{root.attrib['id']} "
    for g, key, kind in _parts(root):
        at = stages.wires.get(key) if kind == "wire" else stages.ahead.get(key)
        if at is None:
            continue
        names = [f"s{at}", *([f"f{stages.back[key]}"] if kind == "node" and key in stages.back else [])]
        g.set("class", " ".join([g.get("class", ""), *names]))
    for n in range(1, stages.last + 1):
        rules += [f"{scope}.s{n}{{animation:appear .4s {(n - 1) * seconds:.2f}s both}}",
                  f"{scope}.f{n} :is({','.join(_SHAPES)}){{animation:blank {(n - 1) * seconds:.2f}s step-end}}"]
    ground = palette("light" if theme == "auto" else theme)["background"]
    frames = f"@keyframes appear{{from{{opacity:0}}to{{opacity:1}}}}@keyframes blank{{from,to{{fill:{ground}}}}}"
    dark = "" if theme != "auto" else (
        f"@media (prefers-color-scheme:dark){{@keyframes blank{{from,to{{fill:{DARK['background']}}}}}}}")
    style = root.find(f"{{{SVG}}}style")
    assert style is not None
    style.text = f"{style.text or ''}{frames}{dark}@media (prefers-reduced-motion:no-preference){{{''.join(rules)}}}"
    return ET.tostring(root, encoding="unicode")


def frames(svg: str, scene: Scene, theme: str) -> Iterator[str]:
    """The picture at every stage, as pictures of their own."""
    stages = stages_of(scene)
    ground = palette("light" if theme == "auto" else theme)["background"]
    for stage in range(1, stages.last + 1):
        root = _parsed(svg)
        for parent in list(root.iter()):
            for g, key, kind in _parts(parent, deep=False):
                if not _seen(stages, key, kind, stage):
                    parent.remove(g)
                elif kind == "node" and stages.back.get(key, 0) > stage:
                    for e in g:
                        if e.tag.rpartition("}")[2] in _SHAPES:
                            e.set("fill", ground)
        yield ET.tostring(root, encoding="unicode")


def _seen(stages: Stages, key: str, kind: str, stage: int) -> bool:
    return (stages.wires if kind == "wire" else stages.ahead).get(key, 0) <= stage


def _parsed(svg: str) -> ET.Element:
    ET.register_namespace("", SVG)
    return ET.fromstring(svg)


def _parts(root: ET.Element, deep: bool = True) -> Iterator[tuple[ET.Element, str, str]]:
    """Boxes and wires with their keys."""
    for g in root.iter(f"{{{SVG}}}g") if deep else list(root):
        kind = next((k for k in ("node", "wire") if k in g.get("class", "").split()), "")
        if kind and "id" in g.attrib:
            yield g, g.attrib["id"].partition("-")[2], kind


# ---- films

def _images(svg: str, scene: Scene, theme: str, scale: float) -> list[bytes]:
    return [formats.png(frame, scene.size, scale) for frame in frames(svg, scene, theme)]


def gif(svg: str, scene: Scene, theme: str, seconds: float, scale: float) -> bytes:
    """A GIF that begins again after a while."""
    image = formats.package("PIL.Image", "GIF", "pillow")
    pictures = [image.open(BytesIO(data)).convert("RGB").quantize(64) for data in _images(svg, scene, theme, scale)]
    out = BytesIO()
    times = [round(1000 * seconds)] * (len(pictures) - 1) + [round(1000 * HOLD)]
    pictures[0].save(out, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0)
    return out.getvalue()


def mp4(svg: str, scene: Scene, theme: str, seconds: float, scale: float) -> bytes:
    """An MP4, by ffmpeg."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise DrawError("MP4 is made by ffmpeg, and there is none here: install it, or save as .gif or .svg")
    with TemporaryDirectory() as folder:
        images = _images(svg, scene, theme, scale)
        for n, data in enumerate([*images, *images[-1:] * max(1, round(HOLD / seconds))]):
            (Path(folder) / f"{n:04}.png").write_bytes(data)
        even = "scale=trunc(iw/2)*2:trunc(ih/2)*2"  # what the format asks for
        command = [program, "-v", "error", "-framerate", f"{1 / seconds:g}", "-i", "%04d.png", "-vf", even, "-pix_fmt",
                   "yuv420p", "-r", "25", "film.mp4"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise DrawError(f"ffmpeg made no film: {' '.join(done.stderr.split())[:300]}")
        return (Path(folder) / "film.mp4").read_bytes()
