"""Random functions of sequences that say nothing of sizes: the same recipe for any batch and any number of steps."""

import numpy as np

import tinyrnn as tr

SHAPES = ((3, 5), (4, 5), (3, 8), (6, 3), (5, 5), (1, 5), (4, 1), (0, 4), (3, 0), (1, 1), (3, 3), (17, 2), (2, 17))
"""Batch and steps, one after the other in one program."""

MAPS = [tr.tanh, tr.sigmoid, tr.exp, tr.relu, tr.softplus, tr.sin, tr.abs, lambda x: x * x, lambda x: -x]


def arguments(rng, batch, steps):
    """Sequences [B, T, 3], marks [B, T], lengths [B], numbers [B] and tokens [B, T]."""
    return (rng.normal(size=(batch, steps, 3)), rng.random((batch, steps)) < 0.7, rng.integers(0, steps + 1, batch),
            rng.normal(size=batch), rng.integers(0, 4, (batch, steps)))


class Recipe:
    """`recipe(x, marks, lengths, v, tokens)` gives a few tensors; what is drawn depends on ranks, never on sizes."""

    def __init__(self, seed):
        self.seed = seed
        rng = np.random.default_rng(seed)
        self.W = tr.parameter(rng.normal(size=(3, 3)), name="W")
        self.table = tr.parameter(rng.normal(size=(4, 3)), name="table")
        self.gradients = rng.random() < 0.5

    def __call__(self, x, marks, lengths, v, tokens):
        rng = np.random.default_rng(self.seed)
        self.x, self.lengths, self.marks = x, lengths, marks
        pool = [x, v, self.table[tokens], tr.where(marks, 1.0, 0.5), self.W, x @ self.W]
        for _ in range(int(rng.integers(3, 12))):
            y = self.grown(rng, pool)
            if y is not None and y.dtype.kind == "f":
                pool.append(y)
        chosen = [pool[int(i)] for i in rng.integers(0, len(pool), 2)] + [pool[-1]]
        if self.gradients:
            loss = sum(tr.tanh(y).sum() for y in chosen)
            return [*chosen, loss, *tr.grad(loss, [self.W, self.table])]
        return chosen

    def grown(self, rng, pool):
        a, b = (pool[int(i)] for i in rng.integers(0, len(pool), 2))
        kind, axis = int(rng.integers(0, 22)), int(rng.integers(0, max(a.ndim, 1))) if a.ndim else None
        if kind < 4:
            return MAPS[int(rng.integers(0, len(MAPS)))](a)
        if kind < 6:
            return [a + b, a * b, tr.maximum(a, b)][int(rng.integers(0, 3))] if a.ndim == b.ndim else a + b.sum()
        if axis is None:
            return a * 2.0
        return self.moved(rng, kind, a, b, axis)

    def moved(self, rng, kind, a, b, axis):
        whole = (slice(None),) * axis
        if kind == 6:
            return a.mean(axis)
        if kind == 7:
            return a.sum(axis, keepdims=bool(rng.integers(0, 2)))
        if kind == 8:
            return tr.softmax(a, axis=axis)
        if kind == 9:
            return tr.cumsum(a, axis)
        if kind == 10:
            return a[(*whole, [slice(1, None), slice(None, -1), slice(None, None, -1), slice(None, 2), slice(-2, None)][int(rng.integers(0, 5))])]
        if kind == 11:
            return a[(*whole, int(rng.integers(-1, 1)))]
        if kind == 12:
            return tr.transpose(a, tuple(int(i) for i in rng.permutation(a.ndim)))
        if kind == 13:
            return a.reshape(-1) if rng.random() < 0.5 else a.reshape(-1, 3) if a.ndim == 3 else a
        if kind == 14:
            return tr.concat([a, a * 0.5], axis)
        if kind == 15:
            return tr.stack([a, tr.tanh(a)])
        if kind == 16:
            return a @ tr.transpose(a, (*range(a.ndim - 2), a.ndim - 1, a.ndim - 2)) if a.ndim > 1 else a @ a
        if kind == 17:
            return a.max(axis)
        if kind == 18:
            return self.over_time(rng, a)
        if kind == 19:
            return tr.one_hot(tr.argmax(a, axis), 3, "float64")
        if kind == 20:
            return a / a.shape[axis] if rng.random() < 0.5 else a + np.arange(a.shape[-1])
        return tr.var(a, axis)

    def over_time(self, rng, a):
        """A scan over the first axis; of [B, T, 3] over time, x itself with marks or lengths."""
        if a.ndim == 3 and rng.random() < 0.7:
            marks = {0: {}, 1: {"lengths": self.lengths}, 2: {"mask": self.marks.T}}[int(rng.integers(0, 3 if a is self.x else 1))]
            xs, start = tr.transpose(a, (1, 0, 2)), tr.transpose(a, (1, 0, 2)).sum(0) * 0
            last, ys = tr.scan(lambda h, u: (tr.tanh(h @ self.W + u),) * 2, start, xs, reverse=bool(rng.integers(0, 2)), **marks)
            return tr.transpose(ys, (1, 0, 2)) + last.reshape(-1, 1, 3)
        return tr.scan(lambda h, u: (h * 0.5 + u,) * 2, a.sum(0) * 0, a)[1]
