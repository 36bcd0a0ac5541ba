"""Optimisers: how parameters follow their gradients; schedules of their learning rate."""

from .optimisers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from .schedules import Constant, Cosine, Plateau, StepDecay, WarmUp

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Constant", "Cosine", "Optimizer", "Plateau", "RMSprop", "StepDecay", "WarmUp"]
