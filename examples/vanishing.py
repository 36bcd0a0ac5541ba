"""Vanishing gradients: how much of dL/dh[T] reaches h[1] in a tanh network, a GRU and an LSTM, T from 10 to 500, untrained."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, start

import tinyrnn as tr

WIDTH = 32
OPTIONS = {"LSTM": {}, "LSTM, forget bias 1": {"forget_bias": 1.0}, "LSTM, chrono": {}}
KINDS = ("tanh RNN", "GRU", *OPTIONS)


def layer_of(kind: str, steps: int) -> tr.nn.Module:
    if kind in OPTIONS:
        chrono = {"chrono": steps} if kind.endswith("chrono") else {}
        return tr.nn.LSTM(1, WIDTH, **OPTIONS[kind], **chrono, dtype="float64", rng=0)
    return (tr.nn.RNN if kind == "tanh RNN" else tr.nn.GRU)(1, WIDTH, dtype="float64", rng=0)


def ray_of(kind: str, steps: int):
    """The x-ray of an untrained layer on 8 rows of noise; the loss is the sum of the last outputs."""
    x = np.random.default_rng(steps).normal(size=(8, steps, 1))
    return tr.xray(layer_of(kind, steps), x).layer


def share(ray) -> float:
    """The norm of dL/dh[1] by that of dL/dh[T]; for the LSTM of the whole state (h, c)."""
    norms = np.sqrt(sum(ray.gradients[q] ** 2 for q in ray.gradients if q in ("h", "c")))
    return float(norms[0] / norms[-1])


def main(run: Run) -> None:
    lengths = [10, 20, 50, 100, 200, 500][: run.rows(6, 3)]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.5))
    for kind in KINDS:
        rays = {steps: ray_of(kind, steps) for steps in lengths}
        left.loglog(lengths, [share(r) for r in rays.values()], "o-", label=kind)
        h = rays[lengths[-1]].gradients["h"]
        middle.semilogy(np.arange(1, len(h) + 1), h, label=kind)
    for kind, style in (("LSTM", "-"), ("LSTM, chrono", "--")):
        for by, name, colour in (("next step", "c of the next step", "C0"), ("h", "h of the same step", "C1")):
            right.plot(np.arange(1, 31), ray_of(kind, 30).split["c"][by], style, color=colour, label=f"{kind}: by {name}")
    left.set(xlabel="T", ylabel="share of the gradient at step T that reaches step 1", ylim=(1e-60, 10))
    middle.set(xlabel="step t", ylabel="norm of dL/dh[t]", title=f"T = {lengths[-1]}", ylim=(1e-60, 100))
    right.set(xlabel="step t", ylabel="share of dL/dc[t]", title="T = 30: on which path it comes", ylim=(-0.1, 1.1))
    for axes in (left, right):
        axes.legend(fontsize=8.5)
    figure.subplots_adjust(wspace=0.35)
    for steps in (lengths[1], lengths[-1]):
        shares = {kind.replace(",", "").replace(" ", "_"): share(ray_of(kind, steps)) for kind in KINDS}
        what = f"share of the gradient that crosses {steps} steps of an LSTM with chrono biases"
        run.result(what, shares.pop("LSTM_chrono"), **shares)
    run.figure(figure)


if __name__ == "__main__":
    start(main)
