"""Layers, losses and models."""

from ..losses import bce, bce_with_logits, cross_entropy, mse, nll
from . import init
from .attention import Attention
from .bidirectional import Bidirectional
from .layers import Activation, Dropout, Embedding, Lambda, LayerNorm, Linear, Repeat
from .load import load
from .module import Module, loadable
from .packed import GRU, LSTM, RNN
from .pooling import Last, Pool
from .recurrent import Recurrent
from .seq2seq import EncoderDecoder
from .sequential import Sequential

__all__ = ["GRU", "LSTM", "RNN", "Activation", "Attention", "Bidirectional", "Dropout", "Embedding", "EncoderDecoder", "Lambda",
           "Last", "LayerNorm", "Linear", "Module", "Pool", "Recurrent", "Repeat", "Sequential", "bce", "bce_with_logits",
           "cross_entropy", "init", "load", "loadable", "mse", "nll"]
