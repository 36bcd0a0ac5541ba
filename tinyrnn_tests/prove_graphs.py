"""Random graphs with gradients that are right, or wrong somewhere: for some numbers, indices, masks, or by a constant that is a
multiple of a known prime.  Each wrong one comes with numbers at which it is wrong, so that its verdict is known beforehand."""

import random

import numpy as np

import tinyrnn as tr
from tinyrnn.domains import COMPLEX_STEP
from tinyrnn.errors import IndexRangeError

UNARY = [tr.tanh, tr.sigmoid, tr.sin, tr.cos, tr.relu, tr.abs, tr.softplus, tr.silu, tr.elu, tr.hard_sigmoid, tr.flip,
         lambda u: tr.exp(0.25 * tr.tanh(u)), lambda u: tr.log(1.5 + u * u), lambda u: tr.sqrt(0.5 + u * u),
         lambda u: u / (1.0 + u * u), lambda u: tr.clip(u, -0.75, 2.5), lambda u: (0.3 + u * u) ** 1.3, lambda u: u ** 3,
         lambda u: tr.cumsum(u), lambda u: tr.softmax(u), lambda u: tr.layer_norm(u), lambda u: u - tr.max(u),
         lambda u: u * tr.mean(u), lambda u: -u, lambda u: tr.where(u > 0.2, u * u, 0.5 * u), lambda u: tr.stop_gradient(u) * u,
         lambda u: tr.expm1(0.5 * tr.tanh(u)), lambda u: tr.concat([u[1:], u[:1]])]
BINARY = [lambda u, v: u + v, lambda u, v: u - 0.5 * v, lambda u, v: u * v, tr.maximum, tr.minimum,
          lambda u, v: tr.where(u < v, u, 2.0 * v), lambda u, v: u / (2.0 + v * v), lambda u, v: tr.where(u * v > 1.0, tr.sin(u), v)]
PRIME = 2**61 - 1


class Case:
    """A graph y = f(inputs), an input, and ways to draw numbers for all inputs."""

    def __init__(self, seed):
        self.r, self.rng = random.Random(f"graph {seed}"), np.random.default_rng([seed, 77])
        self.n = self.r.choice([1, 2, 3, 4])
        n, rows = self.n, self.r.choice([2, 3, 5, 9])
        self.inputs = {"x": tr.input("x", (n,)), "W": tr.input("W", (n, n)), "b": tr.input("b", (n,)),
                       "table": tr.input("table", (rows, n)), "index": tr.input("index", (n,), "int64"),
                       "mask": tr.input("mask", (n,), "bool"), "length": tr.input("length", (), "int64")}
        self.rows = rows
        pool = [self.inputs["x"], self.inputs["b"]]
        for _ in range(self.r.randint(2, 6)):
            pool.append(self._next(pool))
        self.y = (pool[-1] * tr.tanh(pool[self.r.randrange(len(pool))] + 0.1)).sum()
        self.name = self.r.choice([k for k in ("x", "W", "b", "table") if k in self._read()] or ["x"])

    def _read(self):
        return set(tr.Graph({"y": self.y}).inputs)

    def _next(self, pool):
        r, i = self.r, self.inputs
        u, v = r.choice(pool), r.choice(pool)
        kind = r.random()
        if kind < 0.4:
            return r.choice(UNARY)(u)
        if kind < 0.6:
            return r.choice(BINARY)(u, v)
        if kind < 0.72:
            return i["W"] @ u
        if kind < 0.82:
            return u * i["table"][i["index"]].sum(0)
        if kind < 0.88:
            return tr.where(i["mask"], u, v)
        if kind < 0.93:
            return u * tr.astype(tr.arange(self.n) < i["length"], "float64")
        if kind < 0.97:
            return tr.scan(lambda s, w: (tr.tanh(s + w), s * w), u[0], v)[1]
        return u * tr.one_hot(i["index"], self.rows).sum()

    def right(self):
        return tr.grad(self.y, self.inputs[self.name])

    def wrong(self, g):
        """A gradient that is wrong wherever a condition holds, or everywhere."""
        r = self.r
        other = r.choice([lambda: 0 * g, lambda: -g, lambda: 2 * g, lambda: g * (1 + 10.0 ** -r.randint(2, 6)), lambda: g + 1.0])()
        if r.random() < 0.3:
            return r.choice([lambda: other, self._of_another_function, lambda: self._of_the_prime(g)])()
        return tr.where(self._condition(), other, g)

    def _of_another_function(self):
        """The gradient of a function that differs a little."""
        i = self.inputs
        moved = self.r.choice([(i["x"] * 1.001).sum(), tr.relu(i["x"] - 0.9).sum(), tr.maximum(i["b"], 3.0).sum(),
                               tr.sin(i["x"]).sum() * i["b"].sum(), i["table"][tr.minimum(i["index"], 1)].sum()])
        return tr.grad(self.y + moved * i["x"].sum(), i[self.name])

    def _of_the_prime(self, g):
        far = self.inputs["b"].sum()
        return g + far * float(PRIME - 951) + far * 951.0 if self.r.random() < 0.5 else g + far * float(2**31) * float(2**30)

    def _condition(self):
        r, i = self.r, self.inputs
        x, b, k, m = i["x"], i["b"], i["index"], i["mask"]
        c = float(r.choice([0.05, 0.7, 1.0, 3.0, 5.0, 20.0, 300.0, 1e4]))
        one = [lambda: x[0] > c, lambda: x[-1] < -c, lambda: tr.abs(b[0]) < 0.01 * c, lambda: (x * x).sum() > c,
               lambda: x[0] * b[-1] > c, lambda: i["W"][0, 0] >= c, lambda: (x + b).sum() < -c, lambda: tr.max(x) > c,
               lambda: k[0] >= self.rows - 1, lambda: k[-1] == r.randrange(self.rows), lambda: k.sum() > self.rows,
               lambda: i["length"] >= self.n, lambda: i["length"] < 1, lambda: m[0], lambda: ~m[-1],
               lambda: tr.astype(m, "int64").sum() == self.n, lambda: tr.astype(m, "int64").sum() == 0]
        found = r.choice(one)()
        return found & r.choice(one)() if r.random() < 0.15 else found

    # ---- numbers

    def numbers(self, graph, size):
        """Numbers for the inputs of a graph, of one magnitude or of several."""
        rng = self.rng
        found = {}
        for k, n in graph.inputs.items():
            if k == "index":
                found[k] = rng.integers(0, self.rows, n.shape)
            elif k == "length":
                found[k] = rng.integers(0, self.n + 2, n.shape)
            elif k == "mask":
                found[k] = rng.random(n.shape) < rng.choice([0.0, 0.3, 0.7, 1.0])
            else:
                found[k] = rng.normal(size=n.shape) * (size or 10.0 ** rng.uniform(-3, 4, n.shape))
        return found

    def witness(self, g, tries=120):
        """Numbers at which a claimed gradient is not the derivative along a direction, if they are found."""
        graph = tr.Graph({"y": self.y, "g": g, "right": self.right()})
        shape = self.inputs[self.name].shape
        for t in range(tries):
            values = self.numbers(graph, (1.0, 0.0, 3.0, 0.0)[t % 4])
            along = self.rng.normal(size=shape)
            if off_by(graph, values, self.name, along) > 1e-7 and apart(graph, values):
                return values
        return None


def apart(graph, values):
    """Whether the claimed gradient is not the engine's, which tells a wrong one from rounding."""
    with np.errstate(all="ignore"):
        out = graph.run(values)
    off, size = np.abs(out["g"] - out["right"]), np.abs(out["g"]) + np.abs(out["right"])
    return bool((off > 1e-7 * size.max(initial=0.0)).any())


def off_by(graph, values, name, along):
    """How far the slope of g along a direction is from a complex step of y, as a share of its size; 0 where undefined."""
    try:
        with np.errstate(all="ignore"):
            claimed = graph.run(values)["g"] * along
            moved = {k: v + 1e-30j * along if k == name else v for k, v in values.items()}
            truth = graph.run(moved, domain=COMPLEX_STEP)["y"].imag * 1e30
    except IndexRangeError:
        return 0.0
    size = float(np.abs(claimed).sum() + np.abs(truth))
    return abs(float(claimed.sum()) - float(truth)) / (size + 1e-6) if np.isfinite(size) else 0.0
