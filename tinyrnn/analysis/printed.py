"""Reports that read as text, in a terminal and in a notebook."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np


def plain(values: object) -> Any:
    """An array as lists that are strict JSON: what is not finite is None."""
    array = np.asarray(values, float)
    kept = array.astype(object)
    kept[~np.isfinite(array)] = None
    return kept.tolist()


class Printed:
    """Something whose `str` is a table: a notebook shows it in a fixed-width font."""

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self), quote=False)}</pre>"
