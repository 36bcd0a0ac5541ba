"""A caption for a picture: handwritten digits spelled as words, letter by letter.  One to many."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, start

import tinyrnn as tr
from tinyrnn import datasets

WORDS = "zero one two three four five six seven eight nine".split()
LETTERS = "\n" + "".join(sorted(set("".join(WORDS))))


class Captioner(tr.nn.Module):
    """The picture sets the state of a GRU that spells: h[0] = tanh(W2 relu(W1 picture))."""

    def __init__(self, pixels: int, hidden: int) -> None:
        self.look = tr.nn.Linear(pixels, hidden, rng=0)
        self.begin = tr.nn.Linear(hidden, hidden, rng=1)
        self.letters = tr.nn.Embedding(len(LETTERS), 8, rng=2)
        self.spell = tr.nn.GRU(8, hidden, rng=3)
        self.out = tr.nn.Linear(hidden, len(LETTERS), rng=4)

    def first(self, picture):
        """The state before the first letter, [1, B, H]."""
        h = tr.tanh(self.begin(tr.relu(self.look(picture))))
        return h.reshape(1, *h.shape)

    def __call__(self, picture, read):
        y, _ = self.spell(self.letters(read), self.first(picture))
        return self.out(y)


def encode(words):
    """What is read (a sign for the start, then letters) and what is to be said (letters, then the sign for the end)."""
    longest = max(map(len, WORDS)) + 1
    said = np.zeros((len(words), longest), np.int64)
    for row, word in zip(said, words, strict=True):
        row[: len(word)] = [LETTERS.index(c) for c in word]
    return np.concatenate([np.zeros((len(words), 1), np.int64), said[:, :-1]], 1), said


def caption(model: Captioner, pictures) -> list[str]:
    """Spell greedily: each letter that was said is read next."""
    said = np.zeros((len(pictures), 1), np.int64)
    for _ in range(6):
        scores = model.predict((pictures, said))
        said = np.concatenate([said, scores[:, -1:].argmax(-1)], 1)
    return ["".join(LETTERS[c] for c in row[1:]).split("\n")[0] for row in said]


def main(run: Run) -> None:
    x, y, x_test, y_test = datasets.digits()
    read, said = encode([WORDS[k] for k in y])
    model = Captioner(64, 96)
    run.train(model, (x, read), said, optimizer=tr.optim.Adam(3e-3), epochs=40, batch_size=32)
    found = caption(model, x_test)
    right = np.array([word == WORDS[k] for word, k in zip(found, y_test, strict=True)])
    centres = np.array([x[y == k].mean(0) for k in range(10)])
    nearest = ((x_test[:, None] - centres) ** 2).sum(-1).argmin(-1)
    run.result("accuracy of whole words", float(right.mean()), nearest_mean_picture=float((nearest == y_test).mean()))

    figure, grid = plt.subplots(2, 8, figsize=(8, 2.6))
    wrong = list(np.flatnonzero(~right)[:4])
    for axes, i in zip(grid.flat, [*range(16 - len(wrong)), *wrong], strict=True):
        axes.imshow(x_test[i].reshape(8, 8), cmap="gray_r")
        axes.set_title(found[i], color="black" if right[i] else "firebrick", fontsize=10)
        axes.axis("off")
    run.figure(figure)


if __name__ == "__main__":
    start(main)
