"""What runs a graph fast.  `available()` says which backends this machine has, and why not for the others."""

from .numpy import evaluate, run


class Availability(tuple[str, ...]):
    """The names of the usable backends; `reasons` says what is missing for the rest."""

    reasons: dict[str, str]


def available() -> Availability:
    """The backends that can run here.

    >>> import tinyrnn as tr
    >>> tr.backends.available()
    ('numpy',)
    """
    found = Availability(["numpy"])
    found.reasons = {"cpu": "the compiled CPU backend is not part of this version",
                     "cuda": "the CUDA backend is not part of this version"}
    return found


__all__ = ["available", "evaluate", "run"]
