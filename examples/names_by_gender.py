"""Names for women, names for men: a wish goes in, a name comes out letter by letter.  One to many."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, start

import tinyrnn as tr
from tinyrnn import datasets

LETTERS = "\n" + "abcdefghijklmnopqrstuvwxyz" + "♀♂"
WOMAN, MAN = 27, 28


def rows_of(names, wish):
    """Each name as [wish, letters, end]."""
    return [[wish, *(LETTERS.index(c) for c in name), 0] for name in names]


def data(rng: int = 0):
    """Rows to learn from and held-out rows; no name is in both."""
    women, men = datasets.names_by_gender()
    every = sorted({*women, *men})
    held = {every[i] for i in datasets.split(len(every), 0.1, rng)[1]}
    rows = [(name in held, row)
            for names, wish in ((women, WOMAN), (men, MAN))
            for name, row in zip(names, rows_of(names, wish), strict=True)]
    return [row for h, row in rows if not h], [row for h, row in rows if h]


def main(run: Run) -> None:
    train, test = data()
    x, y = [row[:-1] for row in train], [row[1:] for row in train]
    x_test, y_test = [row[:-1] for row in test], [row[1:] for row in test]
    model = tr.nn.Sequential(
        tr.nn.Embedding(len(LETTERS), 32, rng=0),
        tr.nn.LSTM(32, 128, rng=1),
        tr.nn.Dropout(0.3),
        tr.nn.Linear(128, len(LETTERS), rng=2))
    history = run.train(model, x, y, optimizer=tr.optim.Adam(4e-3, clip_norm=1.0), epochs=12, batch_size=64, bucket=True,
                        validation=(x_test, y_test))
    counted = {n: datasets.NGrams(n).fit(train, len(LETTERS)).nats(test, skip=1) for n in (2, 3, 4)}
    run.result("nats per letter", model.evaluate(x_test, y_test, loss="cross_entropy")["loss"],
               **{f"{n}_grams_that_know_the_wish": nats for n, nats in counted.items()})
    for wish, who in ((WOMAN, "women"), (MAN, "men")):
        drawn = model.generate(np.full((10, 1), wish), 14, stop=0, temperature=0.7, rng=3)
        print(f"{who}: " + ", ".join("".join(LETTERS[c] for c in row[1:]).split("\n")[0] for row in drawn))

    figure, axes = plt.subplots()
    axes.plot(range(1, len(history) + 1), history["val_loss"], label="network")
    for n, nats in counted.items():
        axes.axhline(nats, color="black", linestyle={2: ":", 3: "-.", 4: "--"}[n], linewidth=1, label=f"{n}-grams")
    axes.set(xlabel="epoch", ylabel="nats per letter", title="Held-out names")
    axes.legend()
    run.figure(figure)


if __name__ == "__main__":
    start(main)
