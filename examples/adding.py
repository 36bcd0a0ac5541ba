"""The adding problem: the sum of two marked numbers, up to 400 steps apart.  An LSTM learns it, a tanh network does not."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, start

import tinyrnn as tr
from tinyrnn import datasets


def model_of(kind: str, steps: int) -> tr.nn.Module:
    layer = tr.nn.LSTM(2, 64, chrono=steps, rng=0) if kind == "LSTM" else tr.nn.RNN(2, 64, rng=0)
    return tr.nn.Sequential(layer, tr.nn.Last(), tr.nn.Linear(64, 1, rng=1))


def gradient_over_time(model: tr.nn.Module, x, y):
    """The norm of dL/dx[t] at every step, the mean over rows: how far back the loss is felt."""
    given = tr.parameter(x, "x")
    loss = tr.nn.mse(model(given), y)
    return np.linalg.norm(tr.grad(loss, given).numpy(), axis=-1).mean(0)


def main(run: Run) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
    for steps, updates in ((100, 1500), (400, 2000)):
        x, y = datasets.adding(run.rows(updates * 32, 64), steps, rng=0)
        x_test, y_test = datasets.adding(1000, steps, rng=1)
        errors = {}
        for kind in ("LSTM", "tanh RNN"):
            model = model_of(kind, steps)
            if steps == 400:
                norms = gradient_over_time(model, x_test[:32], y_test[:32])
                right.semilogy(np.arange(1, steps + 1), norms + 1e-30, label=kind)
            run.train(model, x, y, loss="mse", optimizer=tr.optim.Adam(5e-3, clip_norm=1.0), epochs=1, batch_size=32)
            errors[kind] = model.evaluate(x_test, y_test, loss="mse")["loss"]
        left.bar([f"{kind}\nT = {steps}" for kind in errors], list(errors.values()), color=["C0", "C1"])
        run.result(f"mean square error, T = {steps}", errors["LSTM"], tanh_RNN=errors["tanh RNN"], always_one=1 / 6)
    figure.subplots_adjust(wspace=0.4)
    left.axhline(1 / 6, color="black", linestyle=":")
    left.text(-0.4, 0.2, "always saying 1")
    left.set(ylabel="mean square error", yscale="log", title="After training", ylim=(None, 0.5))
    right.set(xlabel="step t", ylabel="norm of dL/dx[t] before training", title="T = 400", ylim=(1e-20, None))
    right.legend()
    run.figure(figure)


if __name__ == "__main__":
    start(main)
