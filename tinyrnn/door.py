"""The one door upwards: what stands on a higher floor than whoever asks, and what `import tinyrnn` leaves for later.

`cell.draw()` is `tinyrnn.viz.drawing.draw`, and `tr.prove` is `tinyrnn.symbolic.prove.prove`: a cell need not import pictures,
nor a plain `import tinyrnn` SymPy and networkx.  Whatever is reached in this way is listed here, with the module that holds it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

PUBLIC = {
    "analyze": "analysis.report", "Report": "analysis.report", "xray": "analysis.xray", "XRay": "analysis.xray",
    "leaks": "analysis.leaks", "LeakReport": "analysis.leaks",
    "draw": "viz.drawing", "Drawing": "viz.drawing", "page": "viz.page", "Page": "viz.page",
    "derive": "symbolic.derive", "Derivation": "symbolic.derive", "equivalent": "symbolic.equivalent",
    "Equivalence": "symbolic.equivalent", "prove": "symbolic.prove", "Proof": "symbolic.prove"}
"""Names of `tinyrnn` itself."""

INNER = {"draw_path": "viz.drawing", "Tensor": "tensor", "run_graph": "backends"}
"""Names that lower floors ask for."""


def behind(name: str) -> Any:
    """What a name stands for; its module is loaded when it is first asked for."""
    module = PUBLIC.get(name) or INNER[name]
    return getattr(import_module(f"{__package__}.{module}"), name)
