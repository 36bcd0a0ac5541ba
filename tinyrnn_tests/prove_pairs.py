"""Random cells, and pairs of them that are the same function, or different ones, by construction."""

import random
import re

import tinyrnn as tr

GATES = {"sigmoid": "sigmoid({})", "tanh": "tanh({})", "relu": "relu({})", "sin": "sin({})", "soft": "softplus({})",
         "norm": "layer_norm({})", "soft max": "softmax({})", "clipped": "clip({}, -1, 1.5)", "hard": "hard_sigmoid({})"}


class Cell:
    """Gates over x and h, and a state that mixes them: text in parts that can be changed one by one."""

    def __init__(self, seed):
        self.r = r = random.Random(f"cell {seed}")
        self.gates = [f"{n}[t]" for n in "pqs"[: r.randint(1, 3)]]
        self.functions = [r.choice(list(GATES)) for _ in self.gates]
        self.lines = [self.gate(g, f) for g, f in zip(self.gates, self.functions, strict=True)]
        self.mix = self._mix()

    def gate(self, name, function, arg=None):
        k = name[0]
        parts = [f"W{k} @ x[t]", f"U{k} @ h[t-1]", f"b{k}"]
        if self.r.random() < 0.2:
            parts[1] = f"u{k} * h[t-1]"
        return f"{name} = {GATES[function].format(arg or ' + '.join(parts))}"

    def _mix(self):
        r, g = self.r, self.gates
        first = g[0]
        shapes = [f"{first} * h[t-1] + (1 - {first}) * {g[-1]}", f"{first} + 0.5 * h[t-1]", f"{first} * {g[-1]} + 0.25 * h[t-1]",
                  f"tanh({first} + {g[-1]}) * {g[-1]} + 0.1 * h[t-1]", f"{first} / (1 + h[t-1] ** 2) + {g[-1]} * h[t-1]"]
        used = r.choice(shapes)
        rest = [x for x in g if x not in used]
        return " + ".join([used, *rest])

    def text(self, lines=None, mix=None):
        return "\n".join([*(lines or self.lines), f"h[t] = {mix or self.mix}"])


def cell_text(seed):
    return Cell(seed).text()


# ---- the same function, written otherwise

def renamed(c):
    return re.sub(r"\b([WUbu])([pqs])\b", r"\1\1\2", c.text())


def reordered(c):
    def turned(line):
        head, tail = line.split(" = ", 1)
        m = re.fullmatch(r"(\w+)\((W\w @ x\[t\]) \+ (.*) \+ (b\w)\)(.*)", tail)
        return f"{head} = {m[1]}({m[4]} + {m[3]} + {m[2]}){m[5]}" if m and "," not in tail else line
    return c.text([turned(x) for x in c.lines])


def split_bias(c):
    return re.sub(r"\bb([pqs])\b", r"b\1 + d\1", c.text())


def negated_gate(c):
    """sigmoid(a) as 1 - sigmoid(-a), tanh(a) as -tanh(-a)."""
    lines = []
    for line, f in zip(c.lines, c.functions, strict=True):
        head, tail = line.split(" = ", 1)
        inner = tail[len(f) + 1: -1] if f in ("sigmoid", "tanh") else ""
        lines.append({"sigmoid": f"{head} = 1 - sigmoid(-({inner}))", "tanh": f"{head} = -tanh(-({inner}))"}.get(f, line))
    return c.text(lines)


def other_names(c):
    """Gates that are called otherwise."""
    return re.sub(r"\b([pqs])\[t\]", r"gate\1[t]", c.text())


def through_a_sum(c):
    return c.text(mix=f"0.5 * ({c.mix}) + 0.5 * ({c.mix})")


EQUAL = [renamed, reordered, split_bias, negated_gate, other_names, through_a_sum]


# ---- another function

def scaled(c):
    """A factor of all, which no parameter can take up: that of h² is 1."""
    mix = f"{c.mix} + h[t-1] * h[t-1]"
    return c.text(mix=mix), c.text(mix=f"{c.r.choice(['0.999999', '1.0001', '2', '-1'])} * ({mix})")


def elsewhere(c):
    """Doubled for some numbers only."""
    k = c.r.choice(["0.01", "1", "7", "50", "3000"])
    test = c.r.choice([f"h[t-1] > {k}", f"h[t-1] < -{k}", f"sum(h[t-1] ** 2) > {k}", f"abs(sum(x[t])) > {k}", f"sum(x[t]) * sum(h[t-1]) > {k}"])
    return c.text(mix=f"where({test}, 2, 1) * ({c.mix})")


def at_sizes(c):
    k = c.r.choice([1.5, 2.5, 6.5, 20, 40])
    test = c.r.choice([f"size(h[t-1]) > {k}", f"size(x[t]) < {k}", "abs(size(h[t-1]) - size(x[t])) < 0.5", "size(h[t-1]) < 1.5"])
    return c.text(mix=f"{c.mix} + where({test}, 3, 0) * h[t-1] * h[t-1]")


def by_the_prime(c):
    return c.text(mix=f"{c.mix} + 2305843009213690000 * h[t-1] + 3951 * h[t-1]")


def other_lag(c):
    return c.text(mix=f"{c.mix} + 0.125 * h[t-2]")


def other_exponent(c):
    return c.text(mix=f"{c.mix} + (h[t-1] * h[t-1] + 1) ** {c.r.choice(['1.3', '2.0000000000001', '2.5000001'])}"), c.text(
        mix=f"{c.mix} + (h[t-1] * h[t-1] + 1) ** {c.r.choice(['2', '2.5', '1.2999999999999'])}")


def exchanged(c):
    """Two inputs without parameters, one for the other."""
    a = c.r.choice(["u[t] - 2 * v[t]", "u[t] * v[t] * v[t]", "u[t] / (1 + v[t] ** 2)"])
    other = a.replace("u[t]", "?").replace("v[t]", "u[t]").replace("?", "v[t]")
    return c.text(mix=f"{c.mix} + sum({a})"), c.text(mix=f"{c.mix} + sum({other})")


def exchanged_outputs(c):
    return f"{c.text()}\ny[t] = h[t] * 2\nz[t] = h[t] * 3\noutputs: y, z", f"{c.text()}\nz[t] = h[t] * 2\ny[t] = h[t] * 3\noutputs: y, z"


DIFFERENT = [scaled, elsewhere, at_sizes, by_the_prime, other_lag, other_exponent, exchanged, exchanged_outputs, elsewhere, at_sizes]


def pair(seed):
    """Two cells, and whether they are the same function."""
    c = Cell(seed)
    same = c.r.random() < 0.4
    made = c.r.choice(EQUAL if same else DIFFERENT)(c)
    texts = made if isinstance(made, tuple) else (c.text(), made)
    if c.r.random() < 0.5:
        texts = texts[::-1]
    return tr.Cell(texts[0], "a"), tr.Cell(texts[1], "b"), same
