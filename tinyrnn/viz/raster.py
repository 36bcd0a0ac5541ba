"""SVG to PNG."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ..errors import DrawError

FONTS = Path(__file__).parent / "fonts"
LARGEST = 16_000  # pixels on a side


def png(svg: str, size: tuple[float, float], scale: float = 2.0) -> bytes:
    """A picture as PNG, twice its size in points so that it stays sharp on a slide."""
    scale = min(scale, LARGEST / max(*size, 1.0))
    try:
        resvg = import_module("resvg_py")
    except ImportError:
        raise DrawError("PNG needs the package resvg-py: pip install resvg-py; or save as .svg") from None
    data = resvg.svg_to_bytes(svg_string=svg, width=round(size[0] * scale), height=round(size[1] * scale),
                              font_files=[str(f) for f in sorted(FONTS.glob("*.ttf"))], skip_system_fonts=True,
                              font_family="DejaVu Sans")
    return bytes(data)
