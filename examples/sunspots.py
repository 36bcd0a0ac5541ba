"""How many sunspots next year?  A GRU beside a linear rule, against the linear rule alone."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, start

import tinyrnn as tr
from tinyrnn import datasets

FIRST, CUT, YEARS = 1700, 230, 25  # learn from 1700 to 1929; a GRU reads 25 years


class Forecast(tr.nn.Module):
    """`w · (last nine years) + b + v · h`: an autoregression, and a GRU over more years for what it misses."""

    def __init__(self, rng: int) -> None:
        self.memory = tr.nn.GRU(1, 16, rng=rng)
        self.out = tr.nn.Linear(16, 1, rng=rng + 100)
        self.linear = tr.nn.Linear(9, 1, rng=rng + 200)

    def __call__(self, x):
        y, _ = self.memory(x)
        return self.out(y[:, -1]) + self.linear(x[:, -9:, 0])


def autoregression(series, years: int = 9):
    """The baseline: least squares on the last years (Yule, 1927)."""
    from statsmodels.tsa.ar_model import AutoReg

    weights = AutoReg(series[:CUT], years).fit().params
    return np.array([weights[0] + weights[1:] @ series[t - years : t][::-1] for t in range(CUT, len(series))])


def main(run: Run) -> None:
    spots = datasets.sunspots()
    roots = np.sqrt(spots)  # errors grow with the number of spots; those of its root do not
    mean, spread = roots[:CUT].mean(), roots[:CUT].std()
    z = ((roots - mean) / spread).astype(np.float32)
    x = np.array([z[t - YEARS : t] for t in range(YEARS, len(z))])[..., None]
    y, known = z[YEARS:, None], CUT - YEARS
    epochs = 60
    steps = epochs * -(-known // 16)
    said = []
    for rng in range(run.rows(8, 1)):
        model = Forecast(rng)
        run.train(model, x[:known], y[:known], loss="mse", epochs=epochs, batch_size=16,
                  optimizer=tr.optim.AdamW(3e-3, weight_decay=0.1, clip_norm=1.0, schedule=tr.optim.Cosine(steps)))
        said.append(model.predict(x[known:])[:, 0])
    found = np.maximum(np.mean(said, 0) * spread + mean, 0) ** 2

    def error(forecast):
        return float(np.sqrt(np.mean((forecast - spots[CUT:]) ** 2)))

    run.result("error (root of the mean square) in spots", error(found), last_year=error(spots[CUT - 1 : -1]),
               autoregression=error(autoregression(spots)),
               autoregression_of_roots=error(np.maximum(autoregression(roots), 0) ** 2))
    years = np.arange(FIRST, FIRST + len(spots))
    figure, axes = plt.subplots(figsize=(9, 3.2))
    axes.plot(years[CUT - 30 :], spots[CUT - 30 :], color="black", linewidth=1, label="counted")
    axes.plot(years[CUT:], found, label="forecast a year ahead")
    axes.axvline(years[CUT], color="grey", linestyle=":")
    axes.set(xlabel="year", ylabel="sunspots", title="Forecasts from 1930 on")
    axes.legend()
    run.figure(figure)


if __name__ == "__main__":
    start(main)
