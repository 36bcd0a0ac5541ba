"""Which words name a date, a place, a person?  Many to many, aligned: the words that follow decide, so both directions win."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, start

import tinyrnn as tr
from tinyrnn import datasets
from tinyrnn.train import f1


def data(rng: int = 0):
    """Sentences as rows of word numbers and tag numbers; tag 0 is "no entity"; a fifth is held out."""
    sentences, tags = datasets.japanese_entities()
    kinds = ["O", *sorted({t for row in tags for t in row} - {"O"})]
    train, test = datasets.split(len(sentences), 0.2, rng)
    words = datasets.Vocabulary((w for i in train for w in sentences[i]), at_least=2)
    x = [words(row) for row in sentences]
    y = [np.array([kinds.index(t) for t in row]) for row in tags]
    return words, kinds, [[rows[i] for i in part] for part in (train, test) for rows in (x, y)]


def model_of(words: int, tags: int, bidirectional: bool) -> tr.nn.Module:
    width = 48 if bidirectional else 96
    return tr.nn.Sequential(
        tr.nn.Embedding(words, 48, padding_idx=0, rng=0),
        tr.nn.Dropout(0.4),
        tr.nn.LSTM(48, width, bidirectional=bidirectional, rng=1),
        tr.nn.Dropout(0.4),
        tr.nn.Linear(96, tags, rng=2))


def most_frequent_tag(x, y, x_test):
    """The baseline: each word's most frequent tag."""
    counts: dict[int, np.ndarray] = {}
    for row, tags in zip(x, y, strict=True):
        for word, tag in zip(row, tags, strict=True):
            counts.setdefault(word, np.zeros(100, int))[tag] += 1
    return [np.array([counts[w].argmax() if w in counts else 0 for w in row]) for row in x_test]


def f1_of(said, wanted):
    """Micro-averaged F1 over tokens that are part of an entity."""
    said, wanted = np.concatenate(said), np.concatenate(wanted)
    hits = ((said == wanted) & (wanted > 0)).sum()
    return 2 * hits / ((said > 0).sum() + (wanted > 0).sum())


def main(run: Run) -> None:
    words, kinds, (x, y, x_test, y_test) = data()
    found = {}
    for name, both in (("forward only", False), ("both directions", True)):
        model = model_of(len(words), len(kinds), both)
        run.train(model, x, y, optimizer=tr.optim.Adam(5e-3, clip_norm=1.0), epochs=25, batch_size=16, bucket=True)
        found[name] = model.evaluate(x_test, y_test, loss="cross_entropy", metrics=(f1(outside=0),))["f1"]
    found["most frequent tag"] = f1_of(most_frequent_tag(x, y, x_test), y_test)
    run.result("F1 of entity words", found["both directions"], forward_only=found["forward only"],
               most_frequent_tag=found["most frequent tag"])

    figure, axes = plt.subplots(figsize=(6, 2.4))
    names = list(found)[::-1]
    axes.barh(names, [found[k] for k in names])
    axes.set(xlabel="F1 on held-out sentences", xlim=(0, 1), title="Right context decides")
    run.figure(figure)


if __name__ == "__main__":
    start(main)
