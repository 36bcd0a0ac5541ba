"""Two motifs in DNA: in the right order or not?  Counting letters cannot tell; made-up data (see datasets.promoters)."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, start

import tinyrnn as tr
from tinyrnn import datasets


def counted_words(x, y, x_test, n: int = 3):
    """The baseline: logistic regression on how often each word of three letters occurs."""
    from sklearn.linear_model import LogisticRegression

    def counts(rows):
        codes = sum(rows[:, i : rows.shape[1] - n + 1 + i] * 4 ** (n - 1 - i) for i in range(n))
        return np.array([np.bincount(row, minlength=4**n) for row in codes])

    return LogisticRegression(max_iter=1000).fit(counts(x), y[:, 0]).predict(counts(x_test))


def main(run: Run) -> None:
    x, y = datasets.promoters(run.rows(8000, 200), rng=0)
    x_test, y_test = datasets.promoters(2000, rng=1)
    model = tr.nn.Sequential(
        tr.nn.Embedding(4, 8, rng=0),
        tr.nn.GRU(8, 48, bidirectional=True, rng=1),
        tr.nn.Pool("max"),
        tr.nn.Linear(96, 1, rng=2))
    history = run.train(model, x, y, loss="bce_with_logits", metrics=("binary_accuracy",), validation=(x_test, y_test),
                        optimizer=tr.optim.Adam(4e-3, clip_norm=1.0), epochs=15, batch_size=64)
    wanted = y_test[:, 0] > 0.5
    run.result("accuracy", float(((model.predict(x_test)[:, 0] > 0) == wanted).mean()),
               words_of_three_letters=float((counted_words(x, y, x_test) == wanted).mean()))

    figure, axes = plt.subplots()
    axes.plot(range(1, len(history) + 1), history["val_binary_accuracy"])
    axes.set(xlabel="epoch", ylabel="accuracy on new sequences", title="TTGACA ... TATAAT or the other way round?",
             ylim=(0.45, 1))
    run.figure(figure)


if __name__ == "__main__":
    start(main)
