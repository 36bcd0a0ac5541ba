"""What PyTorch calls our layers, and the equations of its recurrent ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import ArgumentError
from ..nn.packed import Packed
from ..nn.recurrent import Recurrent
from .carry import compared
from .frameworks import Foreign, foreign

RECURRENT = {"RNN": "torch_rnn", "LSTM": "torch_lstm", "GRU": "torch_gru"}
FUNCTIONS = {"Tanh": "tanh", "Sigmoid": "sigmoid", "ReLU": "relu", "SiLU": "silu", "Softplus": "softplus", "ELU": "elu",
             "Hardsigmoid": "hard_sigmoid", "Softmax": "softmax", "LogSoftmax": "log_softmax", "GELU": "gelu"}
OPTIONS: dict[str, dict[str, Any]] = {  # with which one of those is our function
    "Softplus": {"beta": 1.0, "threshold": 20.0}, "ELU": {"alpha": 1.0}, "Softmax": {"dim": -1}, "LogSoftmax": {"dim": -1},
    "GELU": {"approximate": "tanh"}}
"""PyTorch's activation modules, and the options that ours have."""


def places(layer: Packed) -> list[str]:
    return [f"l{k}{d}" for k in range(layer.num_layers) for d in layer.directions]


def theirs_of(layer: Packed) -> Foreign:
    """What PyTorch calls like this layer."""
    if getattr(layer, "proj_size", 0):
        return foreign("torch_lstm_projection")
    activation = getattr(layer, "nonlinearity", "tanh")
    return foreign(RECURRENT[type(layer).__name__], tanh=activation if activation == "relu" else "tanh")


def counterpart(layer: Recurrent) -> Foreign:
    """The layer of PyTorch that a cell is proved to be; one with as many states, to say how they differ, where none is."""
    fitting = [f for f in _candidates() if len(f.cell.states) == len(layer.cell.states)]
    if not fitting:
        raise ArgumentError(f"cell {layer.cell.name} has {len(layer.cell.states)} states, and no recurrent layer of PyTorch "
                            "has so many")
    return next((f for f in fitting if compared(f.cell, layer.cell).holds), fitting[0])


def _candidates() -> Iterator[Foreign]:
    yield from (foreign("torch_lstm"), foreign("torch_gru"), foreign("torch_rnn"), foreign("torch_rnn", tanh="relu"),
                foreign("torch_lstm_projection"))
