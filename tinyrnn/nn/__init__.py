"""Layers, losses and models."""

from ..losses import cross_entropy, mse
from . import init
from .layers import Dropout, Embedding, Last, Linear, Sequential
from .load import load
from .module import Module
from .recurrent import GRU, LSTM, RNN, Recurrent

__all__ = ["GRU", "LSTM", "RNN", "Dropout", "Embedding", "Last", "Linear", "Module", "Recurrent", "Sequential",
           "cross_entropy", "init", "load", "mse"]
