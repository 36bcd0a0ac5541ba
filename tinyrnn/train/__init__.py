"""Training: batches, the loop, metrics, history, text generation."""

from .generate import generate
from .history import History
from .loop import evaluate, fit, predict

__all__ = ["History", "evaluate", "fit", "generate", "predict"]
