"""Copy memory: five symbols must be said again after up to 400 blanks.  An LSTM learns it, a tanh network does not."""

import math

import matplotlib.pyplot as plt
from common import Run, start

import tinyrnn as tr
from tinyrnn import datasets

SYMBOLS, KINDS = 5, 8


def recall(output, target, mask=None):
    """Cross entropy of the symbols to be said; the blanks before them do not count."""
    return tr.nn.cross_entropy(output, target, ignore_index=0)


def right(output, target, mask=None):
    """The share of symbols that are right."""
    said = tr.astype(target != 0, output.dtype)
    return (tr.astype(tr.argmax(output) == target, output.dtype) * said).sum() / said.sum()


def model_of(kind: str, delay: int) -> tr.nn.Module:
    layer = tr.nn.LSTM(16, 64, chrono=delay + delay // 2, rng=0) if kind == "LSTM" else tr.nn.RNN(16, 64, rng=0)
    return tr.nn.Sequential(tr.nn.Embedding(KINDS + 2, 16, rng=1), layer, tr.nn.Linear(64, KINDS + 2, rng=2))


def main(run: Run) -> None:
    figure, axes = plt.subplots()
    for delay, updates in ((100, 2500), (400, 4000)):
        x_test, y_test = datasets.copy_memory(500, delay, SYMBOLS, KINDS, rng=0)
        found = {}
        for kind, style in (("LSTM", "-"), ("tanh RNN", "--")):
            model, optimizer, curve = model_of(kind, delay), tr.optim.Adam(5e-3, clip_norm=1.0), []
            for part in range(run.rows(updates // 250, 1)):
                x, y = datasets.copy_memory(run.rows(250 * 32, 64), delay, SYMBOLS, KINDS, rng=part + 1)
                run.train(model, x, y, loss=recall, optimizer=optimizer, epochs=1, batch_size=32)
                curve.append(model.evaluate(x_test, y_test, loss=recall, metrics=(right,))["right"])
            found[kind] = curve[-1]
            axes.plot([250 * (i + 1) for i in range(len(curve))], curve, style, label=f"{kind}, {delay} blanks")
        run.result(f"accuracy after {delay} blanks", found["LSTM"], tanh_RNN=found["tanh RNN"], guessing=1 / KINDS)
    axes.axhline(1 / KINDS, color="black", linestyle=":", label="guessing")
    axes.set(xlabel=f"updates (32 rows each; {math.log(KINDS):.2f} nats a symbol at the start)", ylabel="symbols said right",
             title="Copy memory", ylim=(0, 1.02))
    axes.legend()
    run.figure(figure)


if __name__ == "__main__":
    start(main)
