"""From a finished SVG to other formats: PNG by resvg, PDF by typst."""

from __future__ import annotations

from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, DrawError

# DejaVu 2.37, cut to the letters and signs that pictures use, with combining accents; its licence is beside it
FONTS = Path(__file__).parent / "fonts"
LARGEST = 16_000  # pixels on a side
Size = tuple[float, float]


def package(name: str, what: str, install: str) -> Any:
    """A package that only one format needs."""
    try:
        return import_module(name)
    except ImportError:
        raise DrawError(f"{what} needs the package {install}: pip install {install}; or save as .svg") from None


def pixels_per_point(size: Size, dpi: float | None, width: int | None) -> float:
    """Two, so that a picture stays sharp on a slide, or as dots per inch or as a width in pixels say."""
    for name, value, least in (("dpi", dpi, 1), ("width", width, 16)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real) or not value >= least):
            raise ArgumentError(f"{name}={value!r}: expected a number from {least}")
    if dpi is not None and width is not None:
        raise ArgumentError("dpi and width both say how many pixels a PNG has: give one of them")
    if dpi is None and width is None:
        return min(2.0, LARGEST / max(*size, 1.0))
    scale = dpi / 72 if dpi is not None else (width or 0) / size[0]
    if max(size) * scale > LARGEST:
        raise ArgumentError(f"a PNG has at most {LARGEST:,} pixels on a side, this one would have {max(size) * scale:,.0f}")
    return scale


def png(svg: str, size: Size, scale: float) -> bytes:
    """A picture as PNG, so many pixels a point."""
    resvg = package("resvg_py", "PNG", "resvg-py")
    data = resvg.svg_to_bytes(svg_string=svg, width=round(size[0] * scale),
                              font_files=[str(f) for f in sorted(FONTS.glob("*.ttf"))], skip_system_fonts=True,
                              font_family="DejaVu Sans")
    return bytes(data)


def pdf(svg: str, size: Size, title: str) -> bytes:
    """A picture as PDF: one page of its size, lines and embedded letters; equal pictures are equal bytes."""
    typst = package("typst", "PDF", "typst")
    width, height = size
    sides = f"width: {width:.2f}pt, height: {height:.2f}pt"
    page = (f"#set page({sides}, margin: 0pt)\n#set document(title: sys.inputs.title, date: none)\n"
            f'#image(bytes(sys.inputs.svg), format: "svg", {sides}, alt: sys.inputs.title)\n')
    return bytes(typst.compile(page.encode(), font_paths=[str(FONTS)], ignore_system_fonts=True,
                               sys_inputs={"svg": svg, "title": title}))
