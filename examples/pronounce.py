"""How is a word said?  Letters to phonemes with attention: many to many, not aligned."""

from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from common import Run, start

import tinyrnn as tr
from tinyrnn import datasets

LETTERS = " abcdefghijklmnopqrstuvwxyz"


def data(words: int, held_out: int):
    """Words as rows of letters, pronunciations as rows of phonemes that end with 0."""
    said = datasets.pronunciations()
    chosen = np.random.default_rng(0).permutation(sorted(w for w in said if 3 <= len(w) <= 10))[: words + held_out]
    phonemes = ["", *sorted({p for w in said for p in said[w]})]
    x = [np.array([LETTERS.index(c) for c in w]) for w in chosen]
    y = [np.array([*(phonemes.index(p) for p in said[w]), 0]) for w in chosen]
    return phonemes, (x[:words], y[:words]), (x[words:], y[words:])


def letter_by_letter(x, y, x_test):
    """The baseline: every letter as the phoneme (or silence) that it is with most often, by a simple alignment in order."""
    counts: dict[int, Counter] = {}
    for letters, phonemes in zip(x, y, strict=True):
        spoken = phonemes[:-1]
        for i, letter in enumerate(letters):
            counts.setdefault(letter, Counter())[spoken[min(i * len(spoken) // len(letters), len(spoken) - 1)]] += 1
    return [np.array([counts[c].most_common(1)[0][0] for c in row]) for row in x_test]


def distance(a, b) -> int:
    """How many phonemes must be inserted, deleted or changed (Levenshtein, 1966)."""
    row = list(range(len(b) + 1))
    for i, p in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, q in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (p != q))
    return row[-1]


def error_rate(said, wanted) -> float:
    """Wrong phonemes for each phoneme that there is."""
    cut = [row[: list(row).index(0)] if 0 in row else row for row in said]
    return sum(distance(a, b[:-1]) for a, b in zip(cut, wanted, strict=True)) / sum(len(b) - 1 for b in wanted)


def main(run: Run) -> None:
    phonemes, (x, y), (x_test, y_test) = data(run.rows(20000, 200), run.rows(2000, 50))
    model = tr.nn.EncoderDecoder(len(LETTERS), len(phonemes), 128, embedding_size=48, cell="gru", attention="dot",
                                 dropout=0.2, rng=0)
    epochs, batch = 10, 64
    steps = epochs * -(-len(x) // batch)
    run.train(model, x, y, optimizer=tr.optim.Adam(3e-3, clip_norm=1.0, schedule=tr.optim.Cosine(steps, 0.02)), epochs=epochs,
              batch_size=batch, bucket=True)
    said = model.generate(x_test, 20)
    run.result("error rate of phonemes", error_rate(said, y_test),
               letter_by_letter=error_rate(letter_by_letter(x, y, x_test), y_test))

    word = "photograph"
    source = np.array([[LETTERS.index(c) for c in word]])
    spoken = model.generate(source, 20)[0]
    n = list(spoken).index(0) + 1 if 0 in spoken else len(spoken)
    looked = model.attend(source, spoken[None, :n])[0]
    figure, axes = plt.subplots(figsize=(4.5, 4))
    axes.imshow(looked, cmap="Blues", vmin=0, vmax=1)
    axes.set(xticks=range(len(word)), xticklabels=list(word), xlabel="letters read",
             yticks=range(n), yticklabels=[phonemes[p] or "end" for p in spoken[:n]], ylabel="phonemes said",
             title="Where it looks while it speaks")
    axes.grid(False)
    run.figure(figure)


if __name__ == "__main__":
    start(main)
