"""Which of nine men says a vowel?  Many to one on audio features, in utterances of 7 to 29 frames."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, accuracy, heat_map, start

import tinyrnn as tr
from tinyrnn import datasets


def nearest_mean(x, y, x_test):
    """The baseline: the speaker whose mean frame is nearest to the utterance's mean frame."""
    means = np.array([row.mean(0) for row in x])
    centres = np.array([means[y == k].mean(0) for k in range(y.max() + 1)])
    return -np.array([((row.mean(0) - centres) ** 2).sum(1) for row in x_test])


def discriminant(x, y, x_test):
    """The stronger baseline: linear discriminant analysis of the mean frame (Fisher, 1936)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    means = [np.array([row.mean(0) for row in rows]) for rows in (x, x_test)]
    return LinearDiscriminantAnalysis().fit(means[0], y).predict_proba(means[1])


def main(run: Run) -> None:
    x, y, x_test, y_test = datasets.japanese_vowels()
    frames = np.concatenate(x)
    x, x_test = ([(row - frames.mean(0)) / frames.std(0) for row in rows] for rows in (x, x_test))
    model = tr.nn.Sequential(
        tr.nn.LSTM(12, 48, bidirectional=True, rng=0),
        tr.nn.Pool("mean"),
        tr.nn.Dropout(0.3),
        tr.nn.Linear(96, 9, rng=1))
    epochs, batch = 40, 16
    steps = epochs * -(-len(x) // batch)
    run.train(model, x, y, optimizer=tr.optim.Adam(5e-3, clip_norm=1.0, schedule=tr.optim.Cosine(steps)), epochs=epochs,
              batch_size=batch)
    scores = model.predict(x_test)
    run.result("accuracy", accuracy(scores, y_test), discriminant_analysis=accuracy(discriminant(x, y, x_test), y_test),
               nearest_mean=accuracy(nearest_mean(x, y, x_test), y_test))

    table = np.zeros((9, 9), int)
    np.add.at(table, (y_test, scores.argmax(-1)), 1)
    figure, axes = plt.subplots(figsize=(4.5, 4.5))
    heat_map(axes, table, table.max() / 2, "d")
    axes.set(xlabel="said by the network", ylabel="speaker", xticks=range(9), yticks=range(9), title="Who speaks?")
    run.figure(figure)


if __name__ == "__main__":
    start(main)
