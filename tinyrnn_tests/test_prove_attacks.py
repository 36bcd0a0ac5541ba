"""Attacks on proofs: what version 0.1 was made to accept, in other forms and numbers, and the first seeds of the fuzzer."""

import json
import time

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.cli import main
from tinyrnn.domains.field import Field, drawn_prime
from tinyrnn.errors import LoadError, ProofError
from tinyrnn.ir.node import walk
from tinyrnn.ir.op import CATALOGUE
from tinyrnn.ir.ops.elementwise import negate
from tinyrnn.ir.scan import Body
from tinyrnn.passes.rewrite import everywhere, replaced
from tinyrnn.symbolic import checker
from tinyrnn.symbolic.checker import contents
from tinyrnn.symbolic.proof.draws import Draws
from tinyrnn.symbolic.proof.examples import graphs_of_ops
from tinyrnn.symbolic.proof.prove import prove_pass

from . import prove_fuzz

RNN = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
KNOWN = 2**61 - 1  # the prime that was fixed in version 0.1


# ---- the prime

def test_the_prime_is_drawn_and_printed():
    primes = {drawn_prime(seed) for seed in range(30)}
    assert len(primes) == 30
    assert all(2**60 < p < 2**61 and p % 4 == 3 and pow(2, p - 1, p) == 1 == pow(2, (p - 1) // 2, p) ** 2 % p for p in primes)
    first, second = tr.prove(RNN), tr.prove(RNN)
    assert first.seed != second.seed
    assert f"seed {first.seed}" in str(first)
    assert tr.prove(RNN, rng=first.seed).seed == first.seed
    assert tr.prove(RNN, rng=np.random.default_rng(3)).seed == tr.prove(RNN, rng=np.random.default_rng(3)).seed


def test_arithmetic_modulo_every_prime():
    rng = np.random.default_rng(0)
    for seed in range(20):
        field = Field(drawn_prime(seed))
        p, a, b = field.prime, field.random(rng, (3, 6)), field.random(rng, (6, 2))
        a[0], b[:, 0] = p - 1, p - 1
        exact = lambda x, p=p: np.asarray(x).astype(object) * pow(2**62, -1, p) % p
        assert (exact(field.matmul(a, b)) == exact(a) @ exact(b) % p).all()
        assert (exact(field.mul(a, a)) == exact(a) ** 2 % p).all()
        assert (exact(field.mul(a, field.reciprocal(a))) == 1).all()
        assert (exact(field.sum(a, (1,), False)) == exact(a).sum(1) % p).all()
    long = field.random(rng, (1, 2**18 + 5))
    assert (exact(field.matmul(long, long.T)) == (exact(long) ** 2).sum() % p).all()


@pytest.mark.parametrize("prime", [KNOWN, *(drawn_prime(s) for s in range(3))])
def test_constants_that_add_up_to_a_prime_hide_nothing(prime):
    x, z = tr.input("x", (4,)), tr.input("z", (4,))
    y = tr.tanh(x * tr.flip(x)).sum()
    low = prime % 4096
    for hidden in (z * float(prime - low) + z * float(low), z * (z * float(2**30) * float(2**31) - z)):
        with pytest.raises(ProofError):
            tr.prove(tr.Graph({"y": y, "dy/dx": tr.grad(y, x) + hidden}), max_terms=10)


# ---- whole numbers, masks, and numbers far from 1

TABLE, INDEX, MASK = tr.input("table", (7, 2)), tr.input("index", (4,), "int64"), tr.input("mask", (4,), "bool")
X, R = tr.input("x", (4,)), tr.input("r", (4, 2))


def masked(m):
    return (tr.where(m, tr.sin(X), X * X) * R.sum(-1)).sum()


LOOKUP = (TABLE[INDEX] * R).sum()


K, K8, Z = tr.input("k", (4,), "int64"), tr.input("k8", (4,), "int8"), tr.input("z", (4,))


def number(k):
    return k.astype("float64")


def vanishing(k):
    """0 for whole numbers from -5 to 5."""
    product = 1.0
    for i in range(-5, 6):
        product = product * (number(k) - float(i))
    return product


BITS = tr.input("bits", (12,), "bool")
U, V, ONE = tr.input("u", (4,)), tr.input("v", (4,)), tr.input("one", ())
JUMP, RELUS = ONE * tr.where((U * V).sum() > 0, 3.0, 1.0), (tr.relu(X) * Z).sum()


def pattern(bits):
    """1 where bools have one pattern of 4,096."""
    product = 1.0
    for i in range(12):
        product = product * (number(bits[i]) if i % 3 else 1.0 - number(bits[i]))
    return product


def counted(state):
    """A scan of a masked product, and what it emits."""
    def step(s, a):
        new = tr.where(a[1] > 2, s * a[0], s)
        return new, {"before": s, "after": new}[state]

    return tr.scan(step, ONE, (X, K))


BY_K, CAST = (X * number(K)).sum(), (X * number(X.astype("int64"))).sum()
KINK = tr.relu(X.sum()) + (X * Z).sum()


@pytest.mark.parametrize(("y", "by", "wrong"), [
    (BY_K, X, lambda g: tr.where(number(K) < 1200.5, g, 0.0)), (BY_K, X, lambda g: g + vanishing(K)),
    (BY_K, X, lambda g: number(tr.minimum(K, 900))), (BY_K, X, lambda g: g + tr.one_hot(K, 4000)[:, 2000:].sum()),
    ((X * number(K8 * K8)).sum(), X, lambda g: number(K8) * number(K8)),
    ((X * number(MASK).sum()).sum(), X, lambda g: tr.where(tr.abs(number(MASK).sum() - 3) < 0.5, 0.0, g)),
    (CAST, X, lambda g: tr.where(X.astype("int64") == 54321, 0.0, g)), (KINK, X, lambda g: tr.where(X.sum() * 3.0 == 0.0, 50.0, g)),
    ((X * Z).sum(), X, lambda g: tr.where((Z + 1e11) - 1e11 == Z, 0.0, g)), ((X * Z).sum(), X, lambda g: g + (Z * np.inf - Z * np.inf)),
    ((X * Z).sum(), X, lambda g: g + ((Z + 1e19) - 1e19 - Z)), ((X * X * Z).sum(), X, lambda g: g + pattern(BITS)),
    (JUMP, ONE, lambda g: tr.where((U * V).sum() >= 0, 3.0, 1.0)), (RELUS, X, lambda g: tr.where(number(X > 0).sum() > 3.5, 0.0, g)),
    (RELUS, X, lambda g: tr.where(tr.sign(X).sum() > 3.5, 0.0, g)),
    (counted("after")[0], ONE, lambda g: g + tr.scan(lambda s, a: (tr.where(a == 3, s, 0.0), s), tr.tensor(np.array(1.0)), K)[0]),
    (LOOKUP, TABLE, lambda g: tr.grad((TABLE[tr.minimum(INDEX, 4)] * R).sum(), TABLE)),
    (LOOKUP, TABLE, lambda g: tr.where(INDEX[0] == 6, 2 * g, g)),
    (LOOKUP, TABLE, lambda g: tr.where((INDEX[0] == 3) & (INDEX[3] == 5), -g, g)),
    (LOOKUP, TABLE, lambda g: tr.where(INDEX.sum() > 20, 0 * g, g)),
    (LOOKUP, R, lambda g: tr.where(INDEX[1] == INDEX[2], 2 * g, g)),
    (masked(MASK), X, lambda g: tr.where(tr.astype(MASK, "int64").sum() == 4, 2 * g, g)),
    (masked(MASK), X, lambda g: tr.where(tr.astype(MASK, "int64").sum() == 0, 2 * g, g)),
    (masked(MASK), X, lambda g: tr.where(MASK[0] & ~MASK[2], 2 * g, g)),
    (masked(X > 0.1), X, lambda g: tr.where(X[0] > 4.5, 2 * g, g)),
    (masked(X > 0.1), X, lambda g: tr.where((X * X).sum() > 3e5, 2 * g, g)),
    (masked(X > 0.1), X, lambda g: tr.where(X[1] * R[0, 0] < -77.0, 2 * g, g)),
    (masked(X > 0.1), X, lambda g: tr.where(tr.abs(X[2]) < 2e-4, 2 * g, g)),
    (masked(X > 0.1), X, lambda g: tr.where((X[0] > 40.0) & (X[1] < -900.0), 2 * g, g)),
    (masked(X > 0.1), X, lambda g: tr.where(X == 0.625, g + 1, g))])
def test_gradients_that_are_wrong_somewhere_are_never_proved(y, by, wrong):
    g = tr.grad(y, by)
    name = by.source().at[0]
    assert tr.prove(tr.Graph({"y": y, f"dy/d{name}": g})).holds
    for seed in range(3):
        try:
            proof = tr.prove(tr.Graph({"y": y, f"dy/d{name}": wrong(g)}), rng=seed)
        except ProofError:
            continue
        assert not proof.holds
        assert any(why in str(proof) for why in ("by which the function does not", "not by the rules", "the numbers of the gradient"))
        certificate = json.loads(proof.certificate())
        if "the numbers" not in str(proof):  # a certificate does not speak of rounding
            with pytest.raises((LoadError, ProofError)):
                checker.check(certificate)


def test_branches_are_counted_and_said():
    proof = tr.prove(tr.Graph({"y": LOOKUP}))
    assert proof.branches
    assert "on the branches of" in str(proof)
    never = tr.prove(tr.Graph({"y": (tr.relu(X * X + 1.0) * X).sum()}))
    assert never.holds
    assert "always one way" in str(never)


def test_draws_go_through_every_range():
    draws = Draws(tr.Graph({"y": LOOKUP, "m": tr.where(MASK, X, 0.0)}), 5)
    assert draws.ranges["index"] == (0, 6)
    seen = [draws.at(k) for k in range(40)]
    for i in range(4):
        assert {int(v["index"][i]) for v in seen} == set(range(7))
    assert any(v["mask"].all() for v in seen)
    assert any(not v["mask"].any() for v in seen)
    sizes = np.abs(np.concatenate([v["x"] for v in seen]))
    assert sizes.min() < 1e-2
    assert sizes.max() > 1e2


LENGTH = tr.input("length", (3,), "int64")
ROWS, VALID = tr.input("rows", (3, 4)), tr.input("valid", (3, 4), "bool")


@pytest.mark.parametrize("y", [
    lambda: (ROWS * tr.astype(VALID, "float64")).sum(-1) / tr.astype(VALID, "float64").sum(-1),
    lambda: (ROWS * ROWS * (tr.arange(4)[None] < LENGTH[:, None]).astype("float64")).sum(-1) / LENGTH.astype("float64"),
    lambda: tr.losses.cross_entropy(ROWS, LENGTH), lambda: tr.max(tr.sqrt(0.5 + ROWS * ROWS), -1) * tr.max(ROWS, -1),
    lambda: counted("before")[1], lambda: counted("after")[1][1], lambda: tr.max(tr.where(VALID, ROWS, -np.inf), -1),
    lambda: tr.softmax(tr.where(VALID, ROWS, -np.inf)) * ROWS, lambda: tr.elu(ROWS) * tr.clip(ROWS, -0.5, 0.5) + abs(ROWS),
    lambda: tr.scan(lambda s, x: (tr.relu(s + x), s * x), tr.astype(VALID[0], "float64"), ROWS)[1].sum()])
def test_graphs_that_are_not_defined_everywhere_are_proved_with_their_certificate(y):
    proof = tr.prove(tr.Graph({"y": tr.sum(y())}))
    assert proof.holds, proof
    assert checker.check(json.loads(proof.certificate()))


def test_a_model_whose_layers_share_names_is_proved():
    tokens = tr.input("tokens", (3, 4), "int64")
    model = tr.nn.Sequential(tr.nn.Embedding(9, 2, rng=0), tr.nn.LSTM(2, 3, rng=0), tr.nn.Last(), tr.nn.Linear(3, 2, rng=0))
    proof = tr.prove(tr.Graph({"loss": tr.sum(model(tokens))}), max_terms=1000)
    assert proof.holds
    assert proof.cases[-1].entries == sum(p.size for p in model.parameters())
    assert checker.check(json.loads(proof.certificate()))


# ---- equivalence

H = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)"
BIG = " + ".join(f"where(x{i}[t] > 1, 1, 0)" for i in range(8))


@pytest.mark.parametrize(("a", "b"), [
    (f"{H} * where(size(h[t-1]) > 33, 3, 1)", H), (f"{H} * where(size(x[t]) < 1.5, 3, 1)", H),
    (f"{H} * where(size(x[t]) * size(h[t-1]) < 4.5, 3, 1)", H), (f"{H} * where(abs(size(h[t-1]) - size(x[t]) - 1) < 0.5, 2, 1)", H),
    (f"{H} + {KNOWN - 951} * h[t-1] + 951 * h[t-1]", H), (f"{H} * where(sum(h[t-1] ** 2) > 4e4, 2, 1)", H),
    (f"h[t] = h[t-1] + where({BIG} > 7.5, 1, 0)", f"h[t] = h[t-1] + where({BIG} > 90, 1, 0)"),
    ("v[t] = 0.9 * v[t-1] + W @ x[t]\ns[t] = where(v[t] > 1, 1, 0)\noutputs: s",
     "v[t] = 0.9 * v[t-1] + W @ x[t]\ns[t] = where(v[t] >= 1, 1, 0)\noutputs: s"),
    ("h[t] = sign(W @ x[t] - h[t-1])", "h[t] = where(W @ x[t] >= h[t-1], 1, -1)"),
    (f"{H} * where(W @ x[t] < U @ h[t-1], 1, 3)", f"{H} * where(W @ x[t] <= U @ h[t-1], 1, 3)"),
    (f"{H} + where(sum(x[t]) > 30, 1, 0) * where(sum(x[t]) < 33, 1, 0) * where(sum(h[t-1]) > 30, 1, 0)", H),
    (f"{H} * where(sum(h[t-1] * 0 + 1) > 25, 2, 1)", H), (f"{H} * where(size(h[t-1]) > 3000, 2, 1)", H),
    (f"{H} + (1 + h[t-1] ** 2) ** 1.5000000000001", f"{H} + (1 + h[t-1] ** 2) ** 1.5"),
    ("h[t] = u[t] / (2 + v[t] ** 2) + h[t-1]", "h[t] = v[t] / (2 + u[t] ** 2) + h[t-1]"),
    (f"{H}\ny[t] = h[t] * 5\nz[t] = -h[t]\noutputs: y, z", f"{H}\nz[t] = h[t] * 5\ny[t] = -h[t]\noutputs: y, z")])
def test_cells_that_differ_somewhere_are_not_equal(a, b):
    for first, second in ((a, b), (b, a)):
        e = tr.equivalent(tr.Cell(first, "a"), tr.Cell(second, "b"))
        assert e.verdict != "equal", e
        assert tr.equivalent(tr.Cell(first, "a"), tr.Cell(second, "b"), {}).verdict != "equal"


@pytest.mark.parametrize("text", ["inputs: x\nh[t] = tanh(W @ x[t-1] + U @ h[t-1])", "h[t] = tanh(W @ x[t] + U @ h[t-2])",
                                  "h[t] = tanh(W @ h[t-1] + V @ h[t-3] + U @ x[t])"])
def test_lags_that_are_skipped(text):
    assert tr.equivalent(tr.Cell(text), tr.Cell(text.replace("W", "Q"))).holds


def test_an_equivalence_says_what_it_rests_on():
    e = tr.equivalent(tr.Cell(H.replace("x[t]", "u[t]").replace("h[t", "s[t"), "a"), RNN)
    assert e.holds
    assert (e.mapping["u[t]"], e.mapping["s[t]"]) == ("x[t]", "h[t]")
    assert {1, 2} <= {n for s in e.sizes for n in s.values()}
    assert "at sizes x, h = 2, 2; 1, 1; " in e.reason
    relu = tr.equivalent(tr.Cell("h[t] = relu(W @ x[t] + U @ h[t-1])"), tr.Cell("h[t] = maximum(W @ x[t] + U @ h[t-1], 0)"))
    assert "on the branches of" in relu.reason
    assert f"seed {relu.seed}" in str(relu)


@pytest.mark.parametrize(("a", "b"), [
    ("h[t] = W @ x[t] + h[t-1] * g[t]\ng[t] = sigmoid(b)", "h[t] = W @ x[t] + h[t-1] * g[t]\ng[t] = 1 - sigmoid(-b)"),
    ("p[t] = W @ x[t] + p[t-1]\nq[t] = tanh(V @ x[t]) + q[t-1]\noutputs: p", "p[t] = W @ x[t] + p[t-1]\nq[t] = tanh(V @ x[t]) + q[t-1]\noutputs: q"),
    (" + ".join(["h[t] = h[t-1]", *(f"{i + 2} * x{i}[t]" for i in range(9))]), " + ".join(["h[t] = h[t-1]", *(f"{i + 2} * z{i}[t]" for i in range(9))])),
    ("\n".join(f"s{i}[t] = tanh(W{i} @ x[t] + s{i}[t-1])" for i in range(7)) + "\noutputs: s0",
     "\n".join(f"r{i}[t] = tanh(W{i} @ x[t] + r{i}[t-1])" for i in range(7)) + "\noutputs: r0")])
def test_searches_end(a, b):
    began = time.monotonic()
    assert tr.equivalent(tr.Cell(a), tr.Cell(b)).verdict in ("equal", "unknown")
    assert time.monotonic() - began < 120


# ---- passes

def planted(name):
    """A pass that changes the value of every node of an op, at the top and in bodies."""
    def other(n):
        if n.dtype.kind == "b":
            return negate(n)
        return n * 2 if n.floating else n + 1

    def local(outputs):
        changed = [n for n in walk(outputs) if n.op.name == name and n.dtype.kind in "fiub"]
        return replaced(outputs, {n: other(n) for n in changed})

    def transform(graph):
        return everywhere(graph, local)

    transform.__name__ = f"other {name}"
    return transform


@pytest.mark.parametrize("name", [n for n, op in CATALOGUE.items() if n not in ("hole", "size", "scan", "region")])
def test_a_wrong_rewriting_of_any_op_is_noticed(name):
    with pytest.raises(ProofError, match=r"changed the value of output|not defined where it was"):
        prove_pass(planted(name))


def test_programs_cover_the_catalogue():
    seen = set()
    for _, graph in graphs_of_ops():
        scopes = [graph.nodes]
        while scopes:
            for n in scopes.pop():
                seen.add(n.op.name)
                if n.op.kind == "control" and n.at and isinstance(n.at[0], Body):
                    scopes.append(walk(n.at[0].outs))
    assert seen == set(CATALOGUE) - {"hole", "size"}


# ---- certificates

def good(cell=RNN):
    return json.loads(tr.prove(cell, rng=0).certificate())


def appended(change):
    """Every program with instructions added; `change(program, number of the first, the gradient by W)` gives the new output."""
    c = good()
    for p in c["programs"]:
        p["outputs"]["dloss/dW"] = change(p, len(p["inputs"]) + len(p["code"]), p["outputs"]["dloss/dW"])
    return c


def full(value):
    return ["full", [], [value, [], "float64"]]


def by_a_prime(p, k, g):
    p["code"] += [full(KNOWN - 951), full(951), ["add", [k, k + 1], []], ["mul", [k + 2, list(p["inputs"]).index("W")], []], ["add", [k + 3, g], []]]
    return k + 4


def only_far_away(p, k, g):
    p["code"] += [full(31.0), ["less", [k, list(p["inputs"]).index("W")], []], ["add", [g, g], []], ["where", [k + 1, k + 2, g], []]]
    return k + 3


def two_claims(p, k, g):
    p["code"] += [full(4.0), ["mul", [k, g], []], full(-3.0), ["mul", [k + 2, g], []]]
    p["outputs"]["extra"], p["claims"]["extra"] = k + 3, "W"
    return k + 1


def into_the_output(p, k, g):
    p["code"] += [["neg", [g, g], []]]
    return k


@pytest.mark.parametrize("change", [by_a_prime, only_far_away, two_claims, into_the_output])
def test_false_certificates_are_refused(change):
    with pytest.raises((LoadError, ProofError)):
        checker.check(appended(change))


def with_change(**fields):
    return {**good(), **fields}


@pytest.mark.parametrize(("certificate", "message"), [
    (with_change(method="exact"), "and nothing else"), (with_change(subject="LSTM"), "and nothing else"),
    (with_change(claim="every gradient is right"), "do not go together"), (with_change(text=""), "do not go together"),
    (with_change(programs=[]), "holds no program"), (with_change(format="tinyrnn proof 1"), "not a certificate"),
    ({"format": contents.FORMAT, "claim": contents.PASS_CLAIM, "text": "",
      "programs": [{"before": {"inputs": {}, "code": [], "outputs": {}}, "after": {"inputs": {}, "code": [], "outputs": {}}}]}, "proves nothing")])
def test_fields_are_checked_or_refused(certificate, message):
    with pytest.raises(LoadError, match=message):
        checker.check(certificate)


@pytest.mark.parametrize("sizes", [{"steps": 0, "batch": 0}, {"steps": 3, "batch": 2, "h": 3}, {"steps": 10**9, "batch": 2},
                                   {"steps": "3", "batch": 2}, {"steps": 3, "batch": 1}])
def test_sizes_are_those_of_the_programs(sizes):
    c = good()
    c["programs"][0]["sizes"] = sizes
    with pytest.raises(LoadError):
        checker.check(c)


def graph_certificate(code, outputs=None):
    return {"format": contents.FORMAT, "claim": contents.GRAPH_CLAIM, "text": "", "programs": [
        {"what": "given", "sizes": {}, "inputs": {"x": ["float64", [2]]}, "code": code, "loss": "y",
         "outputs": outputs or {"y": len(code), "g": 0}, "claims": {"g": "x"}}]}


BODY = {"arguments": 1, "code": [["add", [0, 0], []]], "outs": [1], "states": 1, "sequences": 0, "steps": 10**8, "reverse": False}


@pytest.mark.parametrize("code", [
    [["scan", [0], [BODY]], ["read", [1], [0]]], [["full", [], [0.0, [10**6, 10**6], "float64"]], ["sum", [1], [[0, 1], False]]],
    [["broadcast_to", [0], [[10**12, 2]]], ["sum", [1], [[0, 1], False]]], [["iota", [], [[10**11], "float64"]], ["sum", [1], [[0], False]]],
    [["scan", [0], [{**BODY, "code": [["scan", [0], [BODY]], ["read", [1], [0]]], "outs": [2], "steps": 3}]], ["read", [1], [0]]],
    [["put", [0], [0, 10**11]]], [["place", [0], [[[0, 2, 1]], [10**12]]]],
    *([[["einsum", [0] * 9, ["a,b,c,d,e,f,g,h,i->abcdefghi"]], ["sum", [1], [list(range(9)), False]]]] * 1)])
def test_work_is_bounded_before_it_is_done(code, tmp_path, capsys):
    (tmp_path / "c.json").write_text(json.dumps(graph_certificate(code)))
    began = time.monotonic()
    assert main(["prove", "--check", str(tmp_path / "c.json")]) in (1, 2)
    assert time.monotonic() - began < 20
    assert capsys.readouterr().out == ""


def test_nothing_raw_is_printed(tmp_path, capsys):
    c = good()
    c["programs"][0]["what"] = c["claim"] = "unrolled\x1b[2Jgood: everything\x07"
    (tmp_path / "c.json").write_text(json.dumps(c))
    assert main(["prove", "--check", str(tmp_path / "c.json")]) == 2
    done = capsys.readouterr()
    assert "\x1b" not in done.out + done.err
    (tmp_path / "c.json").write_text(json.dumps(good()))
    assert main(["prove", "--check", str(tmp_path / "c.json")]) == 0
    printed = capsys.readouterr().out
    assert "3 steps, 2 rows, x of size 2, h of size 3" in printed
    assert printed.rstrip().endswith(RNN.canonical_text().rstrip())


def test_every_op_has_a_certificate():
    """Of the ops that the checker knows: it draws no random bits."""
    for what, graph in graphs_of_ops():
        if "random_bits" not in what:
            assert checker.check(json.loads(prove_pass(lambda g: g, [(what, graph)], rng=0).certificate()), 1), what


def test_whole_numbers_of_any_kind_have_certificates():
    table, one, r = tr.input("table", (6, 3)), tr.input("one", (), "int64"), tr.input("r", (3,))
    for y in ((table[one] * r).sum(), (table[tr.minimum(INDEX, 5)] ** 2).sum(), (X * number(tr.abs(K))).sum(), (table[one - 1] * r).sum()):
        for seed in range(4):
            proof = tr.prove(tr.Graph({"y": y}), rng=seed)
            assert proof.holds
            assert checker.check(json.loads(proof.certificate()), seed)
    with pytest.raises(tr.TinyRNNError, match=r"values\['x'\] is 'abc'"):
        tr.prove(tr.Graph({"y": X.sum()}), values={"x": "abc"})


def test_memory_is_bounded_before_numbers_are_drawn():
    c = graph_certificate([["neg", [0], []]], {"y": 2, "g": 2})
    c["programs"][0]["inputs"] = {"x": ["float64", []], "k": ["int8", [10**9]]}
    with pytest.raises(LoadError, match="more than 1,000,000 numbers"):
        checker.check(c)


@pytest.mark.parametrize("change", [
    lambda n: n.op.name == "matmul" and n.ndim == 3, lambda n: n.dtype == np.float32, lambda n: n.op.name == "concat" and n.ndim == 2,
    lambda n: n.op.name == "where" and not n.src[0].shape, lambda n: n.op.name == "exp" and not n.shape,
    lambda n: n.op.name == "transpose" and n.ndim == 3, lambda n: n.op.name == "gather" and not n.src[1].shape,
    lambda n: n.op.name == "einsum" and len(n.src) == 3, lambda n: n.op.name == "powk" and float(n.at[0]) == 1.3])
def test_passes_that_change_one_form_of_an_op_are_noticed(change):
    def transform(graph):
        return everywhere(graph, lambda outputs: replaced(outputs, {n: n * 2 for n in walk(outputs) if n.floating and change(n)}))

    with pytest.raises(ProofError):
        prove_pass(transform)


def test_certificates_with_branches_quotients_and_whole_numbers_are_accepted():
    relu = checker.check(good(tr.cells["rnn_relu"]))
    assert all(v.branches and v.points >= 16 for v in relu)
    assert all(v.points == 2 for v in checker.check(good()))
    quotient = tr.Graph({"y": (1 / X).sum(), "dy/dx": -1 / (X * X)})
    assert checker.check(json.loads(tr.prove(quotient).certificate()))
    found = checker.check(json.loads(tr.prove(tr.Graph({"y": LOOKUP})).certificate()))
    assert found[0].points >= 14


# ---- the fuzzer

SEEDS = {"gradients": 60, "cells": 6, "pairs": 12, "edits": 240}


@pytest.mark.parametrize("kind", prove_fuzz.KINDS)
def test_no_verdict_is_wrong(kind):
    said = []
    for seed in range(SEEDS[kind]):
        found = prove_fuzz.outcomes(kind, seed, said.append)
        assert not set(found) & set(prove_fuzz.BAD), said


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_no_verdict_is_wrong_in_more_seeds(part):
    said = []
    for kind, count in {"gradients": 75, "cells": 6, "pairs": 15, "edits": 300}.items():
        for seed in range(10**6 * (part + 1), 10**6 * (part + 1) + count):
            assert not set(prove_fuzz.outcomes(kind, seed, said.append)) & set(prove_fuzz.BAD), said


def test_a_prover_that_accepts_everything_is_noticed(monkeypatch):
    class Yes:
        holds = True

    monkeypatch.setattr(tr, "prove", lambda *a, **k: Yes())
    found = [o for seed in range(12) for o in prove_fuzz.outcomes("gradients", seed, lambda text: None)]
    assert "wrong accepted" in found
