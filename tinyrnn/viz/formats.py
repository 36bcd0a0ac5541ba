"""From a finished SVG to other formats: PNG by resvg, PDF by typst."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import DrawError

FONTS = Path(__file__).parent / "fonts"
LARGEST = 16_000  # pixels on a side
Size = tuple[float, float]


def _package(name: str, what: str, install: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise DrawError(f"{what} needs the package {install}: pip install {install}; or save as .svg") from None


def png(svg: str, size: Size, scale: float = 2.0) -> bytes:
    """A picture as PNG, two pixels a point so that it stays sharp on a slide."""
    scale = min(scale, LARGEST / max(*size, 1.0))
    resvg = _package("resvg_py", "PNG", "resvg-py")
    data = resvg.svg_to_bytes(svg_string=svg, width=round(size[0] * scale), height=round(size[1] * scale),
                              font_files=[str(f) for f in sorted(FONTS.glob("*.ttf"))], skip_system_fonts=True,
                              font_family="DejaVu Sans")
    return bytes(data)


def pdf(svg: str, size: Size, title: str) -> bytes:
    """A picture as PDF: one page of its size, lines and embedded letters; equal pictures are equal bytes."""
    typst = _package("typst", "PDF", "typst")
    width, height = size
    sides = f"width: {width:.2f}pt, height: {height:.2f}pt"
    page = (f"#set page({sides}, margin: 0pt)\n#set document(title: sys.inputs.title, date: none)\n"
            f'#image(bytes(sys.inputs.svg), format: "svg", {sides}, alt: sys.inputs.title)\n')
    return bytes(typst.compile(page.encode(), font_paths=[str(FONTS)], ignore_system_fonts=True,
                               sys_inputs={"svg": svg, "title": title}))
