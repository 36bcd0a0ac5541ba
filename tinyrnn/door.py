"""The one door upwards: what stands on a higher floor than whoever asks, and what `import tinyrnn` leaves for later.

`cell.draw()` is `draw` of `viz/drawing.py`, and `tr.prove` that of `symbolic/proof/prove.py`: a cell need not import pictures,
nor a plain `import tinyrnn` SymPy and networkx.  Whatever is reached in this way is listed here, with the module that holds it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

PUBLIC = {
    "analyze": "analysis.report", "Report": "analysis.report", "xray": "analysis.xray", "XRay": "analysis.xray",
    "leaks": "analysis.leaks", "LeakReport": "analysis.leaks",
    "draw": "viz.drawing", "Drawing": "viz.drawing", "page": "viz.page", "Page": "viz.page",
    "derive": "symbolic.derivation.derive", "Derivation": "symbolic.derivation.derive",
    "equivalent": "symbolic.equivalence.equivalent", "Equivalence": "symbolic.equivalence.equivalent",
    "prove": "symbolic.proof.prove", "Proof": "symbolic.proof.prove", "datasets": "datasets",
    "worked": "teaching.worked", "Worked": "teaching.worked", "check": "teaching.judge", "Judgement": "teaching.judge",
    "slides": "teaching.slides", "torch": "torch", "jax": "jax"}
"""Names of `tinyrnn` itself."""

EXCHANGE = {"from_torch": "exchange.from_torch", "to_torch": "exchange.to_torch",
            "from_keras": "exchange.from_keras", "to_keras": "exchange.to_keras",
            "from_flax": "exchange.from_flax", "from_haste": "exchange.from_flax"}
"""Names of `tinyrnn.io`."""

INNER = {"draw_path": "viz.drawing", "Tensor": "tensor.tensor", "run_graph": "backends"}
"""Names that lower floors ask for."""


def behind(name: str) -> Any:
    """What a name stands for; its module is loaded when it is first asked for."""
    module = PUBLIC.get(name) or EXCHANGE.get(name) or INNER[name]
    found = import_module(f"{__package__}.{module}")
    return found if module == name else getattr(found, name)
