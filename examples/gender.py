"""Is a first name a woman's or a man's?  Embedding, a simple recurrent layer, one dense unit: the smallest whole model."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, start

import tinyrnn as tr
from tinyrnn import datasets


def data(rng: int = 0):
    """Names in one list only, as rows of letters, with 1 for women; a fifth is held out."""
    women, men = (set(names) for names in datasets.names_by_gender())
    names = sorted(women ^ men)
    x = [[datasets.ALPHABET.index(c) for c in name] for name in names]
    y = np.array([[float(name in women)] for name in names], np.float32)
    train, test = datasets.split(len(names), 0.2, rng)
    return [x[i] for i in train], y[train], [x[i] for i in test], y[test]


def by_last_letters(x, y, x_test, n: int):
    """The baseline: what most names with the same n last letters are."""
    counts: dict[tuple[int, ...], list[float]] = {}
    for row, label in zip(x, y[:, 0], strict=True):
        for k in range(n + 1):
            counts.setdefault(tuple(row[len(row) - k :]), []).append(label)

    def said(row):
        return next(np.mean(c) for k in range(n, -1, -1) if len(c := counts.get(tuple(row[len(row) - k :]), [])) > 2)

    return np.array([said(row) > 0.5 for row in x_test])


def main(run: Run) -> None:
    x, y, x_test, y_test = data()
    model = tr.nn.Sequential(
        tr.nn.Embedding(len(datasets.ALPHABET), 16, rng=0),
        tr.nn.RNN(16, 64, rng=1),
        tr.nn.Last(),
        tr.nn.Dropout(0.3),
        tr.nn.Linear(64, 1, rng=2))
    epochs, batch = 20, 32
    steps = epochs * -(-len(x) // batch)
    history = run.train(model, x, y, loss="bce_with_logits", metrics=("binary_accuracy",), validation=(x_test, y_test),
                        optimizer=tr.optim.Adam(2e-3, clip_norm=1.0, schedule=tr.optim.Cosine(steps)), epochs=epochs,
                        batch_size=batch)
    found = model.predict(x_test)[:, 0] > 0
    wanted = y_test[:, 0] > 0.5
    run.result("accuracy", float((found == wanted).mean()),
               last_letter=float((by_last_letters(x, y, x_test, 1) == wanted).mean()),
               always_women=float(wanted.mean()))
    figure, axes = plt.subplots()
    shown = range(1, len(history) + 1)
    axes.plot(shown, history["binary_accuracy"], label="names it learned from")
    axes.plot(shown, history["val_binary_accuracy"], label="held-out names")
    axes.set(xlabel="epoch", ylabel="accuracy", title="Woman's or man's name?")
    axes.legend()
    run.figure(figure)


if __name__ == "__main__":
    start(main)
