"""BPTT formulas as printed in the literature, transcribed as data and run."""

from .check import Comparison, Transcription, check, names, read

__all__ = ["Comparison", "Transcription", "check", "names", "read"]
