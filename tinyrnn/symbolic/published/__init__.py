"""BPTT formulas as printed in the literature, transcribed as data and run."""

from .check import Printed, Report, check, names, read

__all__ = ["Printed", "Report", "check", "names", "read"]
