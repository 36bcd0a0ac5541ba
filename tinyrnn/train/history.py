"""What happened during training."""

from __future__ import annotations

from typing import Any


class History:
    """One dict of numbers per epoch.

    >>> from tinyrnn.train import History
    >>> h = History()
    >>> h.append({"loss": 2.0}); h.append({"loss": 1.5})
    >>> h["loss"], len(h)
    ([2.0, 1.5], 2)
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.stopped: str | None = None  # why training ended before its last epoch

    def append(self, numbers: dict[str, float]) -> None:
        self.epochs.append(numbers)

    def __getitem__(self, name: str) -> list[float]:
        return [e[name] for e in self.epochs if name in e]

    def __len__(self) -> int:
        return len(self.epochs)

    def __repr__(self) -> str:
        last = ", ".join(f"{k} {v:.4g}" for k, v in self.epochs[-1].items()) if self.epochs else "empty"
        return f"<History of {len(self)} epochs: {last}>"

    def plot(self) -> Any:
        """A matplotlib figure with a line per quantity (`pip install tinyrnn[plot]`)."""
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots()
        for name in dict.fromkeys(k for e in self.epochs for k in e if k != "seconds"):
            axes.plot(range(1, len(self) + 1), self[name], label=name)
        axes.set_xlabel("epoch")
        axes.legend()
        return figure
