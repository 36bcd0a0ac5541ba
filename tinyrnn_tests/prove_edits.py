"""Certificates with a random edit, and a judge of what was accepted: its programs run in floats, against complex step and against
the engine's own graph of the equations."""

import copy
import json
import random
from functools import cache

import numpy as np

import tinyrnn as tr
from tinyrnn.domains import COMPLEX_STEP
from tinyrnn.domains.float import FLOAT
from tinyrnn.errors import IndexRangeError
from tinyrnn.ir.op import CATALOGUE
from tinyrnn.symbolic.proof.prove import weighted

from .prove_graphs import Case
from .prove_pairs import cell_text

NAMES = ["add", "sub", "mul", "div", "maximum", "minimum", "neg", "relu", "abs", "tanh", "sigmoid", "sin", "cos", "exp", "less",
         "less_equal", "equal", "both", "either", "sum", "transpose", "stop_gradient", "scale", "power", "where", "sign", "clip"]
WORDS = ["tanh", "sigmoid", "relu", "sin", "+", "-", "*", "1", "0.5", "2", "h[t-1]", "x[t]", "maximum", "abs", "@", "layer_norm"]


@cache
def originals():
    """Certificates of cells and of graphs."""
    found = [tr.prove(tr.cells[n], rng=0).certificate() for n in ("rnn", "rnn_relu", "lstm", "gru", "indrnn", "mgu", "jordan")]
    found += [tr.prove(tr.Cell(cell_text(s)), rng=0, max_terms=2000).certificate() for s in range(8)]
    for seed in range(24):
        case = Case(seed)
        graph = tr.Graph({"y": case.y, f"dy/d{case.name}": case.right()})
        if f"dy/d{case.name}" in graph.outputs and case.name in graph.inputs:
            proof = tr.prove(graph, rng=0, max_terms=2000)
            found += [proof.certificate()] if proof.holds else []
    return tuple(found)


def edited(seed):
    """A certificate with one or two random edits, and the original."""
    r = random.Random(f"edit {seed}")
    original = json.loads(r.choice(originals()))
    changed = copy.deepcopy(original)
    for _ in range(1 if r.random() < 0.8 else 2):
        edit(changed, r)
    return original, changed


def edit(c, r):
    """One change somewhere in the code, the outputs, the claims, the inputs, the sizes or the text."""
    p = r.choice(c["programs"])
    kind = r.random()
    if kind < 0.6:
        code(p, r)
    elif kind < 0.78:
        planted(p, r)
    elif kind < 0.85:
        swapped(p["outputs"] if r.random() < 0.5 else p["claims"], r)
    elif kind < 0.9:
        name = r.choice(list(p["inputs"]))
        dtype, shape = p["inputs"][name]
        p["inputs"][name] = [r.choice([dtype, "float32", "int64"]), [r.choice([n, n + 1, 1]) for n in shape]]
    elif kind < 0.93 and p["sizes"]:
        k = r.choice(list(p["sizes"]))
        p["sizes"][k] += r.choice([-1, 1])
    elif c["text"]:
        old = r.choice([w for w in WORDS if w in c["text"]])
        c["text"] = c["text"].replace(old, r.choice(WORDS), 1)
    else:
        code(p, r)


def code(p, r):
    """Another op, source or attribute of an instruction, or of one in a body."""
    lines, first = p["code"], len(p["inputs"])
    i = r.randrange(len(lines))
    while lines[i][0] in ("scan", "region") and lines[i][2][0]["code"] and r.random() < 0.8:
        body = lines[i][2][0]
        lines, first = body["code"], body["arguments"]
        i = r.randrange(len(lines))
    name, sources, at = lines[i]
    kind = r.randrange(3)
    if kind == 0:
        lines[i][0] = r.choice([n for n in NAMES if n != name])
    elif kind == 1 and sources:
        sources[r.randrange(len(sources))] = r.randrange(first + i)
    elif at:
        lines[i][2] = [other(a, r) if k == 0 else a for k, a in enumerate(at)] if r.random() < 0.5 else [other(a, r) for a in at]
    else:
        lines[i] = [r.choice(NAMES), [r.randrange(first + i) for _ in sources], at]


def other(a, r):
    """Another attribute of the same form."""
    if isinstance(a, bool):
        return not a
    if isinstance(a, (int, float)):
        return r.choice([a + 1, a - 1, a * 1.001, -a, a + 1e-9, 0])
    if isinstance(a, dict) and "float" in a:
        return {"float": repr(float(a["float"]) * r.choice([1.0001, -1, 2]) + r.choice([0, 0, 0.1]))}
    if isinstance(a, list) and a:
        k = r.randrange(len(a))
        return [other(x, r) if i == k else x for i, x in enumerate(a)]
    return a


def planted(p, r):
    """A gradient that is multiplied, doubled for some numbers only, or moved by a multiple of a known prime."""
    output = r.choice(list(p["claims"]))
    g, k = p["outputs"][output], len(p["inputs"]) + len(p["code"])
    floats = [i for i, (dtype, _) in enumerate(p["inputs"].values()) if dtype.startswith("f")] or [0]
    x = r.choice(floats)
    full = lambda v: ["full", [], [v, [], "float64"]]
    kind = r.randrange(3)
    if kind == 0:
        p["code"] += [full(r.choice([1.001, -1.0, 2.0, 1 + 1e-7])), ["mul", [k, g], []]]
        p["outputs"][output] = k + 1
    elif kind == 1:
        p["code"] += [full(r.choice([0.3, 1.5, 5.0, 400.0])), ["mul", [x, x], []], ["sum", [k + 1], [list(range(len(shape_of(p, x)))), False]],
                      ["less", [k, k + 2], []], ["add", [g, g], []], ["where", [k + 3, k + 4, g], []]]
        p["outputs"][output] = k + 5
    else:
        p["code"] += [full(2305843009213690000), full(3951), ["add", [k, k + 1], []], ["sum", [x], [list(range(len(shape_of(p, x)))), False]],
                      ["mul", [k + 2, k + 3], []], ["add", [k + 4, g], []]]
        p["outputs"][output] = k + 5


def shape_of(p, i):
    return list(p["inputs"].values())[i][1]


def swapped(table, r):
    a, b = r.choice(list(table)), r.choice(list(table))
    table[a], table[b] = table[b], table[a]


# ---- the judge

def attribute(a):
    if isinstance(a, dict) and "float" in a:
        return float(a["float"])
    if isinstance(a, dict) and "array" in a:
        return np.array([attribute(v) for v in a["array"]]).reshape(a["shape"])
    return tuple(attribute(v) for v in a) if isinstance(a, list) else a


def run(code, values, domain):
    """The instructions by the engine's ops in a domain of floats."""
    for name, sources, at in code:
        x = [values[i] for i in sources]
        if name == "scan":
            values.append(scan(x, at[0], domain))
        elif name == "region":
            values.append(body(at[0], x, domain))
        elif name == "read":
            values.append(x[0][at[0]])
        elif name in ("full", "literal"):
            value, shape, dtype = (attribute(a) for a in at)
            values.append(np.broadcast_to(domain.enter(np.asarray(value, np.dtype(dtype)), np.dtype(dtype)), shape))
        else:
            rest = [np.dtype(a) if isinstance(a, str) and name in ("astype", "one_hot", "iota") else attribute(a) for a in at]
            values.append(domain.implementation(CATALOGUE[name])(*x, *rest))
    return values


def body(b, values, domain):
    run(b["code"], values, domain)
    return [values[i] for i in b["outs"]]


def scan(x, b, domain):
    k, n = b["states"], b["sequences"]
    state, xs, constants, kept = list(x[:k]), x[k:k + n], list(x[k + n:]), {}
    for t in reversed(range(b["steps"])) if b["reverse"] else range(b["steps"]):
        out = body(b, [*state, *(s[t] for s in xs), *constants], domain)
        state, kept[t] = out[:k], out[k:]
    return [*state, *(np.stack([kept[t][i] for t in range(b["steps"])]) for i in range(len(b["outs"]) - k))]


def misjudged(certificate, seed):
    """What is wrong with an accepted certificate, in words: its gradients are not the slopes of its loss, or its loss is not that of
    its equations; "" where nothing is."""
    rng = np.random.default_rng([seed, 5])
    for p in certificate["programs"]:
        for trial in range(10):
            values = numbers(p, rng, trial)
            try:
                with np.errstate(all="ignore"):
                    said = slope_error(p, values, rng)
                    said = said or (certificate["text"] and loss_error(p, values, certificate["text"]))
            except IndexRangeError:
                continue
            if said:
                return f"{p['what']}, {said}"
    return ""


def numbers(p, rng, trial):
    found = {}
    for k, (dtype, shape) in p["inputs"].items():
        shape = tuple(shape)
        if not dtype.startswith("f"):
            found[k] = rng.integers(0, 2 if dtype == "bool" else rng.integers(1, 10), shape).astype(dtype)
        else:
            found[k] = rng.normal(size=shape) * (1.0 if trial % 2 == 0 else 10.0 ** rng.uniform(-2, 3, shape))
    return found


def slope_error(p, values, rng):
    along = {k: rng.normal(size=values[k].shape) for k in p["claims"].values()}
    plain = run(p["code"], list(values.values()), FLOAT)
    moved = [v + 1e-30j * along[k] if k in along else v for k, v in values.items()]
    loss = run(p["code"], [v.astype(complex) if v.dtype.kind == "f" else v for v in moved], COMPLEX_STEP)[p["outputs"][p["loss"]]]
    terms = [plain[p["outputs"][o]] * along[k] for o, k in p["claims"].items()]
    claimed, truth = sum(float(t.sum()) for t in terms), float(np.imag(loss) * 1e30)
    size = sum(float(np.abs(t).sum()) for t in terms) + abs(truth)
    if np.isfinite(size) and abs(claimed - truth) > 1e-6 * (size + 1e-3) and not close_by(p, values, along, claimed, size):
        return f"a slope of {claimed:.9g} is claimed, it is {truth:.9g}"
    return ""


def close_by(p, values, along, claimed, size):
    """Whether a difference quotient of real numbers is what was claimed, or no number: complex powers of negative numbers are none
    of the engine's."""
    h = 1e-6
    two = [float(run(p["code"], [v + s * h * along[k] if k in along else v for k, v in values.items()], FLOAT)[p["outputs"][p["loss"]]])
           for s in (1, -1)]
    slope = (two[0] - two[1]) / (2 * h)
    return not np.isfinite(slope) or abs(slope - claimed) <= 1e-4 * (size if abs(slope) > 1e3 else abs(slope) + abs(claimed) + 1e-3)


def loss_error(p, values, text):
    """The loss against the engine's own graph of the equations."""
    cell = tr.Cell(text)
    sizes = {}
    for names, shape in [*((cell.parameters[k], v.shape) for k, v in values.items() if k in cell.parameters),
                         *((cell.signals[k.split("[")[0]], v.shape[1:]) for k, v in values.items() if "[" in k and k.split("[")[0] in cell.signals)]:
        sizes |= {s: n for s, n in zip(names, shape, strict=True) if s in cell.sizes}
    graph = cell.unroll(p["sizes"]["steps"], sizes, batch=p["sizes"]["batch"], loss=weighted(cell))
    expected = float(graph.run({k: values[k] for k in graph.inputs})["loss"])
    found = float(run(p["code"], list(values.values()), FLOAT)[p["outputs"][p["loss"]]])
    if np.isfinite(expected) and abs(found - expected) > 1e-6 * (abs(expected) + 1):
        return f"a loss of {found:.9g}, by the equations {expected:.9g}"
    return ""
