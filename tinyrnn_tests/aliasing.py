"""Scans whose sequences, constants and states share memory in every way that views allow, beside loops that compute the
same: a constant that is a step, a slice or a transpose of a sequence, sequences that are parts of one array, states that
start from them, results that are read again, in both directions, with ragged rows."""

import numpy as np

import tinyrnn as tr

ELEMENTWISE = [lambda m, a, b: m.tanh(a + b), lambda m, a, b: m.sin(a) * b, lambda m, a, b: a * b + m.cos(b),
               lambda m, a, b: m.tanh(a) - 0.5 * b, lambda m, a, b: a * 0.75 + b * 0.5]


class Case:
    """One scan, drawn from a seed: `tensors` by tr.scan, `loop` by NumPy on numbers of any kind."""

    def __init__(self, seed):
        r = np.random.default_rng(seed)
        self.steps, self.batch, self.width = (int(r.integers(*k)) for k in ((1, 6), (1, 4), (1, 5)))
        self.lengths = r.integers(0, self.steps + 1, self.batch) if r.random() < 0.6 else None
        self.reverse = bool(r.random() < 0.4)
        self.kinds = [str(k) for k in r.choice(["first", "last", "step", "flipped", "whole", "first", "sum", "computed", "column"],
                                               int(r.integers(0, 4)))]
        self.maps = r.integers(0, len(ELEMENTWISE), int(r.integers(2, 9))).tolist()
        self.sequences = int(r.choice([1, 1, 2, 3]))
        self.source = str(r.choice(["given", "elementwise", "elementwise", "product", "product", "joined"]))
        self.start = str(r.choice(["given", "step", "zero"]))
        self.pick = int(r.integers(self.steps))
        self.again = bool(r.random() < 0.5)
        self.states = int(r.integers(1, 4))
        n = (self.steps, self.batch, self.width)
        self.x, self.h0, self.W = r.normal(size=n), r.normal(size=n[1:]), r.normal(size=(self.width, 3 * self.width))

    @property
    def arguments(self):
        return self.x, self.h0, self.W

    def parts(self, m, x, W):
        """The sequences; most are views of one array."""
        d = self.width
        if self.source == "given":
            return [x] * self.sequences
        if self.source == "elementwise":
            q = m.tanh(x)
            return [q, q[::-1], q][: self.sequences]
        if self.source == "product":
            z = (x.reshape((-1, d)) @ W).reshape((self.steps, self.batch, 3 * d))
        else:
            z = m.concat([m.tanh(x), m.sin(x), m.cos(x)])
        return [z[:, :, k * d : (k + 1) * d] for k in range(self.sequences)]

    def constants(self, m, sequences):
        q = sequences[0]
        made = {"first": lambda: q[0], "last": lambda: q[self.steps - 1], "step": lambda: q[self.pick],
                "flipped": lambda: q[::-1][self.pick], "sum": lambda: q.sum(0), "whole": lambda: q,
                "computed": lambda: m.tanh(q[0]) * 2.0, "column": lambda: q[0][:, :1]}
        return [made[k]() for k in self.kinds]

    def step(self, m, states, slices, constants):
        pool = [*states, *slices, *(c[self.pick] if c.ndim == 3 else c for c in constants)]
        for i, k in enumerate(self.maps):
            pool.append(ELEMENTWISE[k](m, pool[(7 * i + k) % len(pool)], pool[(3 * i + 1) % len(pool)]))
        full = [p for p in pool if p.shape[-1] == self.width]
        return [full[-1 - i] for i in range(len(states))], full[-1 - len(states)] * full[0]

    def first(self, x, h0, sequences, zeros):
        start = {"given": h0, "step": sequences[0][self.pick], "zero": zeros}[self.start]
        return [start if i % 2 == 0 else h0 for i in range(self.states)]

    def tensors(self, x, h0, W):
        sequences = self.parts(tr, x, W)
        constants = self.constants(tr, sequences)

        def body(states, slices):
            states, slices = (s if isinstance(s, tuple) else (s,) for s in (states, slices))
            new, y = self.step(tr, list(states), list(slices), constants)
            return tuple(new), (y, new[0])

        start = tuple(self.first(x, h0, sequences, h0 * 0.0))
        finals, ys = tr.scan(body, start, tuple(sequences), lengths=self.lengths, reverse=self.reverse)
        return self.results(tr, finals, ys, sequences)

    def results(self, m, finals, ys, sequences):
        y = ys[0] * ys[1]
        return (y * sequences[0] if self.again else y), *finals

    def loop(self, x, h0, W):
        sequences = self.parts(ScanData, x, W)
        constants = self.constants(ScanData, sequences)
        states = self.first(x, h0, sequences, h0 * 0)
        ys = [[None] * self.steps for _ in range(2)]
        for t in reversed(range(self.steps)) if self.reverse else range(self.steps):
            live = np.ones((self.batch, 1), bool) if self.lengths is None else (t < self.lengths)[:, None]
            new, y = self.step(ScanData, states, [np.where(live, q[t], 0) for q in sequences], constants)
            states = [np.where(live, n, s) for n, s in zip(new, states, strict=True)]
            for k, value in enumerate((y, new[0])):
                ys[k][t] = np.where(live, value, 0)
        return self.results(ScanData, states, [np.stack(y) for y in ys], sequences)


class ScanData:
    """NumPy under the names of tinyrnn."""

    tanh, sin, cos = np.tanh, np.sin, np.cos

    @staticmethod
    def concat(parts):
        return np.concatenate(parts, -1)


def weighted(results, seed=0):
    """A number in which every entry counts differently."""
    r = np.random.default_rng(seed)
    return sum((y * r.normal(size=y.shape)).sum() for y in results)
