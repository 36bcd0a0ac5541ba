"""Reports that read as text, in a terminal and in a notebook."""

from __future__ import annotations

from html import escape


class Printed:
    """Something whose `str` is a table: a notebook shows it in a fixed-width font."""

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self), quote=False)}</pre>"
