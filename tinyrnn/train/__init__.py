"""Training: batches, the loop, metrics, callbacks, history, text generation."""

from .callbacks import BestWeights, Callback, EarlyStopping, Log, StopTraining
from .data import pad_rows
from .generate import generate
from .history import History
from .loop import evaluate, fit, predict
from .metrics import Metric, binary_accuracy, f1

__all__ = ["BestWeights", "Callback", "EarlyStopping", "History", "Log", "Metric", "StopTraining", "binary_accuracy",
           "evaluate", "f1", "fit", "generate", "pad_rows", "predict"]
