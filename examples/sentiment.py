"""Is a tweet friendly?  Real sentences to one of three labels: many to one."""

import re

import matplotlib.pyplot as plt
import numpy as np
from common import Run, accuracy, heat_map, start

import tinyrnn as tr
from tinyrnn import datasets

LABELS = "negative neutral positive".split()
LONGEST = 40


def data(rows: int | None, rng: int = 0):
    """Distinct tweets as rows of word numbers; a tenth is held out."""
    texts, labels = datasets.tweets()
    plain = [re.sub(r"https?:\S*|\bRT\b|@\w+", " ", t) for t in texts]  # who sent it and what it links to do not count
    tokens = [tuple(datasets.words(t))[:LONGEST] for t in plain]
    first = {t: i for i, t in reversed(list(enumerate(tokens))) if len(t) > 2}  # the same tweet was often sent again
    chosen = np.random.default_rng(rng).permutation(sorted(first.values()))[:rows]
    held = len(chosen) // 10
    test, train = chosen[:held], chosen[held:]
    words = datasets.Vocabulary((w for i in train for w in tokens[i]), at_least=3)
    return words, [words(tokens[i]) for i in train], labels[train], [words(tokens[i]) for i in test], labels[test]


def bag_of_words(x, y, x_test, size: int):
    """The baseline: naive Bayes, each word by itself (Laplace's rule)."""
    counts = np.ones((3, size))
    for row, label in zip(x, y, strict=True):
        np.add.at(counts[label], row, 1)
    logs = np.log(counts / counts.sum(1, keepdims=True))
    return np.array([logs[:, row].sum(1) for row in x_test]) + np.log(np.bincount(y))


def main(run: Run) -> None:
    words, x, y, x_test, y_test = data(run.rows(None, 600))
    model = tr.nn.Sequential(
        tr.nn.Embedding(len(words), 64, padding_idx=0, rng=0),
        tr.nn.Dropout(0.5),
        tr.nn.GRU(64, 64, bidirectional=True, rng=1),
        tr.nn.Pool("mean"),
        tr.nn.Dropout(0.5),
        tr.nn.Linear(128, 3, rng=2))
    epochs, batch = 5, 64
    steps = epochs * -(-len(x) // batch)
    run.train(model, x, y, epochs=epochs, batch_size=batch, bucket=True,
              optimizer=tr.optim.AdamW(2e-3, weight_decay=0.1, clip_norm=1.0, schedule=tr.optim.Cosine(steps)))
    scores = model.predict(x_test)
    run.result("accuracy", accuracy(scores, y_test), naive_Bayes=accuracy(bag_of_words(x, y, x_test, len(words)), y_test),
               always_negative=float((y_test == 0).mean()))

    table = np.zeros((3, 3))
    np.add.at(table, (y_test, scores.argmax(-1)), 1)
    table /= table.sum(1, keepdims=True)
    figure, axes = plt.subplots(figsize=(4, 3.5))
    heat_map(axes, table, 0.5, ".2f")
    axes.set(xticks=range(3), xticklabels=LABELS, yticks=range(3), yticklabels=LABELS, xlabel="said by the network",
             ylabel="label", title="Tweets that it has not seen")
    run.figure(figure)


if __name__ == "__main__":
    start(main)
