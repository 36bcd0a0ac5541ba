"""Random programs over every op of the catalogue, with odd sizes, dtypes and layouts: sizes 0, 1 and primes, values that are
views of views, results that are read whole and in parts, arrays that are transposed, reversed, strided or read-only."""

import numpy as np

from tinyrnn.errors import TinyRNNError
from tinyrnn.ir import Graph
from tinyrnn.ir.ops import elementwise as e
from tinyrnn.ir.ops import linear as l
from tinyrnn.ir.ops import reduce as r
from tinyrnn.ir.ops import structure as s
from tinyrnn.ir.ops.leaves import constant, full, input_node, iota
from tinyrnn.ir.ops.random import random_bits
from tinyrnn.ir.scan import region, scan
from tinyrnn.passes import grad

SIZES = (0, 1, 1, 2, 3, 3, 5, 17)
FLOATS, WHOLE = ("float64", "float64", "float32"), ("int64", "int32", "uint8", "int8", "uint32", "uint64")
DTYPES = (*FLOATS, *FLOATS, *WHOLE, "bool")

MAPS = {  # of floats
    "tanh": e.tanh, "sigmoid": e.sigmoid, "relu": e.relu, "sin": e.sin, "cos": e.cos, "softplus": e.softplus, "exp": e.exp,
    "expm1": e.expm1, "log": e.log, "log1p": e.log1p, "sqrt": e.sqrt, "clip": lambda x: r.clip(x, -0.5, 0.75), "elu": r.elu,
    "gelu": r.gelu, "silu": r.silu, "powk": lambda x: e.power(x, 3.0), "half": lambda x: e.power(x, -1.5),
    "softmax": r.softmax, "log_softmax": r.log_softmax, "logsumexp": r.logsumexp, "layer_norm": r.layer_norm,
    "mean": r.mean, "var": lambda x: r.var(x, -1)}
ANY = {"neg": lambda x: -x, "abs": e.abs_, "sign": e.sign, "stop": e.stop_gradient, "tag": lambda x: e.tag(x, "v", "cell"),
       "negate": e.negate, "twice": lambda x: e.add_n([x, x, x]), "scaled": lambda x: x * 2 + 1}
PAIRS = {"add": e.add, "sub": e.sub, "mul": e.mul, "div": e.div, "maximum": e.maximum, "minimum": e.minimum, "power": e.power,
         "less": e.less, "less_equal": e.less_equal, "equal": e.equal, "not_equal": e.not_equal, "both": e.both,
         "either": e.either, "scale": e.scale}


class Program:
    """A graph drawn from a seed, and values for its inputs in odd layouts."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.pool, self.values = [], {}
        for k in range(int(self.rng.integers(2, 5))):
            self.given(f"x{k}", self.pick(DTYPES), self.shape())
        self.given("f", self.pick(FLOATS), self.shape(1))
        for _ in range(int(self.rng.integers(3, 16))):
            self.grow()
        chosen = [self.pick(self.pool) for _ in range(int(self.rng.integers(1, 5)))]
        outputs = {f"y{i}": n for i, n in enumerate([*chosen, self.pool[-1]])}
        if self.rng.random() < 0.5:
            outputs |= self.gradients(list(outputs.values()))
        self.graph = Graph(outputs)
        self.values = {k: v for k, v in self.values.items() if k in self.graph.inputs}

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def shape(self, least=0):
        return tuple(self.pick(SIZES) for _ in range(int(self.rng.integers(least, 4))))

    def given(self, name, dtype, shape):
        self.pool.append(input_node(name, shape, dtype))
        self.values[name] = self.laid_out(self.numbers(np.dtype(dtype), shape))

    def numbers(self, dtype, shape):
        if dtype.kind == "f":
            return self.rng.normal(size=shape).astype(dtype)
        return self.rng.integers(0, 2 if dtype.kind == "b" else 4, shape).astype(dtype)

    def laid_out(self, array):
        """The same numbers in another order in memory."""
        kind = self.rng.integers(5)
        if kind == 0 and array.ndim:
            array = np.asfortranarray(array)
        elif kind == 1 and array.ndim:
            array = array[::-1].copy()[::-1]
        elif kind == 2 and array.ndim:
            array = np.repeat(array, 2, -1)[..., ::2]
        elif kind == 3:
            array = array.copy()
            array.flags.writeable = False
        return array

    def gradients(self, nodes):
        floats = [n for n in nodes if n.dtype.kind == "f"]
        inputs = [n for n in self.pool if n.op.name == "input" and n.dtype.kind == "f"]
        if not floats:
            return {}
        loss = l.sum_(e.sin(floats[0]))
        for n in floats[1:]:
            loss = loss + e.astype(l.sum_(n * 0.5), loss.dtype)
        return {"loss": loss, **{f"d{n.at[0]}": g for n, g in zip(inputs, grad(loss, inputs), strict=True)}}

    # ---- one more value

    def grow(self):
        """A new value, where what was drawn makes sense; what the library refuses is drawn again."""
        with np.errstate(all="ignore"):
            for _ in range(20):
                try:
                    found = self.drawn(self.pick(self.pool))
                except TinyRNNError:
                    continue
                small = [n for n in found if np.prod(n.shape) <= 4000]
                if small:
                    self.pool += small
                    return

    def drawn(self, x):
        kind = self.pick(("map", "map", "map", "any", "pair", "pair", "pair", "move", "move", "move", "join", "reduce", "reduce",
                          "lookup", "lookup", "product", "where", "cast", "leaf", "control"))
        return getattr(self, f"_{kind}")(x)

    def like(self, x):
        """A value that broadcasts with x, if there is one."""
        fits = [n for n in self.pool if all(1 in p or p[0] == p[1] for p in zip(n.shape[::-1], x.shape[::-1], strict=False))]
        return self.pick(fits)

    def axis(self, x):
        return int(self.rng.integers(x.ndim)) if x.ndim else 0

    def _map(self, x):
        name = self.pick(list(MAPS))
        return [MAPS[name](x)]

    def _any(self, x):
        return [ANY[self.pick(list(ANY))](x)]

    def _pair(self, x):
        return [PAIRS[self.pick(list(PAIRS))](x, self.like(x))]

    def _where(self, x):
        bools = [n for n in self.pool if n.dtype.kind == "b"]
        other = self.like(x)
        return [e.where(self.pick(bools) if bools and self.rng.random() < 0.5 else e.less(x, other), x, other)]

    def _cast(self, x):
        return [e.astype(x, self.pick(DTYPES))]

    def _leaf(self, x):
        dtype = np.dtype(self.pick(DTYPES))
        shape = self.pick((x.shape, self.shape()))
        return [self.pick((lambda: full(2, shape, dtype), lambda: constant(self.numbers(dtype, shape)),
                           lambda: iota(self.pick(SIZES)), self._bits))()]

    def _bits(self):
        if "key" not in self.values:
            self.values["key"] = self.rng.integers(0, 2**32, 2, np.uint32)
        return random_bits(input_node("key", (2,), np.uint32), int(self.rng.integers(9)), self.shape())

    def _move(self, x):
        order = self.rng.permutation(x.ndim).tolist()
        parts = tuple(self._part(n) for n in x.shape)
        moves = (lambda: l.transpose(x, order), lambda: l.reshape(x, self._other_shape(x)), lambda: s.flip(x, self.axis(x)),
                 lambda: s.getitem(x, parts), lambda: s.take(x, int(self.rng.integers(x.shape[0]))), lambda: s.put(x, 1, 3),
                 lambda: s.pad(x, [(int(self.rng.integers(3)), int(self.rng.integers(2))) for _ in x.shape]),
                 lambda: l.broadcast_to(x, (*self.shape(), *x.shape)), lambda: l.reshape(x, (*x.shape, 1)))
        if not x.ndim or not x.shape[0]:
            moves = moves[:2]
        return [self.pick(moves)()]

    def _part(self, n):
        a, b = sorted(self.rng.integers(0, n + 1, 2).tolist())
        step = self.pick((1, 1, 2, -1))
        return slice(a, b, step) if step > 0 else slice(b - 1 if b else None, None, step)

    def _other_shape(self, x):
        n = int(np.prod(x.shape))
        divisors = [k for k in range(1, n + 1) if n % k == 0] or [1]
        a = self.pick(divisors)
        return self.pick(((n,), (a, n // a), (n // a, 1, a), (1, n)))

    def _join(self, x):
        same = [n for n in self.pool if n.ndim == x.ndim and n.shape == x.shape]
        parts = [x, *(self.pick(same) for _ in range(int(self.rng.integers(1, 3))))]
        joined = s.stack(parts, int(self.rng.integers(x.ndim + 1))) if self.rng.random() < 0.4 or not x.ndim else s.concat(
            parts, self.axis(x))
        return [joined, *([s.split(joined, len(parts), 0)[-1]] if joined.shape[0] % len(parts) == 0 and joined.ndim else [])]

    def _reduce(self, x):
        axes = None if self.rng.random() < 0.3 or not x.ndim else [
            int(k) for k in np.flatnonzero(self.rng.random(x.ndim) < 0.5)] or [x.ndim - 1]
        keep = bool(self.rng.random() < 0.5)
        return [self.pick((lambda: l.sum_(x, axes, keep), lambda: l.sum_(x, axes, keep), lambda: r.amax(x, axes, keep),
                           lambda: r.amin(x, axes, keep), lambda: r.argmax(x, self.axis(x)), lambda: s.cumsum(x, self.axis(x))))()]

    def _index(self, shape):
        whole = [n for n in self.pool if n.dtype.kind in "iu" and (shape is None or n.shape == shape)]
        if whole and self.rng.random() < 0.8:
            return self.pick(whole)
        name = f"i{len(self.values)}"
        self.given(name, self.pick(WHOLE), self.shape() if shape is None else shape)
        return self.pool[-1]

    def _lookup(self, x):
        return [self.pick((lambda: s.gather(x, self._index(None)), lambda: s.pick(x, self._index(x.shape[:-1])),
                           lambda: s.one_hot(self._index(None), 4, self.pick(DTYPES)),
                           lambda: s.scatter_add(x, self._index(x.shape[:1]), 5)))()]

    def _product(self, x):
        if x.ndim < 2:
            return [l.outer(x, self.like(x))] if x.ndim else [x * x]
        n = x.shape[-1]
        fits = [w for w in self.pool if w.ndim == 2 and w.shape[0] == n and w.dtype == x.dtype]
        if not fits:
            self.given(f"w{len(self.values)}", x.dtype, (n, self.pick(SIZES)))
            fits = self.pool[-1:]
        return [l.matmul(x, self.pick(fits)), *([l.matmul(l.swap_last(x), x)] if self.rng.random() < 0.4 else [])]

    def _control(self, x):
        if self.rng.random() < 0.4 or x.ndim < 2:
            return region(lambda a: [e.tanh(a[0]) if a[0].floating else a[0] + 1, l.sum_(a[0])], [x])
        other = self.like(x)
        back = bool(self.rng.random() < 0.5)

        def step(state, slices):
            new = e.where(e.less(state[0], slices[0]), state[0] + slices[0], slices[0])
            return [e.astype(new, x.dtype)], [new, s.flip(slices[0], 0) if slices[0].ndim else slices[0], e.equal(new, slices[0])]

        start = full(0, x.shape[1:], x.dtype) if other.shape != x.shape[1:] else e.astype(other, x.dtype)
        finals, traces = scan(step, [start], [x], reverse=back)
        return [*finals, *traces]
