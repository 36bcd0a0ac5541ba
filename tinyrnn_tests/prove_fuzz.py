"""Attacks on proofs, drawn from seeds: `make prove-fuzz SECONDS=600`.

    python -m tinyrnn_tests.prove_fuzz [KIND ...] [--seconds 60] [--seed 0] [--count N]

    gradients   graphs with right gradients, and with ones that are wrong somewhere
    cells       cells with their certificates; their gradients wrong for some numbers
    pairs       cells that are the same function, or different ones
    edits       certificates with something changed

What is right and what is wrong is known beforehand, by construction or by numbers.  A count of every outcome is printed; the exit
code is 1 where anything wrong was accepted, anything right was rejected, or anything but an error of ours was raised.
"""

import argparse
import json
import sys
import time
import traceback
from collections import Counter

import numpy as np

import tinyrnn as tr
from tinyrnn.errors import LoadError, ProofError
from tinyrnn.symbolic import checker

from .prove_edits import edited, misjudged
from .prove_graphs import Case
from .prove_pairs import cell_text, pair

BAD = ("wrong accepted", "right rejected", "raised")


def verdict(prove):
    """"accepted", "rejected" or "unknown"."""
    try:
        return "accepted" if prove().holds else "unknown"
    except ProofError:
        return "rejected"


def gradients(seed):
    case = Case(seed)
    right = case.right()
    if case.name not in tr.Graph({"y": case.y}).inputs:
        return
    claimed = lambda g: tr.Graph({"y": case.y, f"dy/d{case.name}": g})
    yield f"right {verdict(lambda: tr.prove(claimed(right), rng=seed))}"
    wrong = case.wrong(right)
    if case.witness(wrong) is not None:
        yield f"wrong {verdict(lambda: tr.prove(claimed(wrong), rng=seed))}"


def cells(seed):
    cell, rng = tr.Cell(cell_text(seed + 1000)), np.random.default_rng(seed)
    proof = tr.prove(cell, rng=seed, max_terms=20_000)
    yield f"right {'accepted' if proof.holds else 'unknown'}"
    try:
        checker.check(json.loads(proof.certificate()), seed)
        yield "right accepted"
    except ProofError:
        yield "right rejected"
    graph = cell.rolled(2, x=2, h=2, batch=2, gradients=True) if seed % 2 else cell.unroll(2, x=2, h=3, batch=1, gradients=True)
    name = rng.choice([k for k in graph.outputs if k.startswith("dloss/d")])
    x = graph.inputs[rng.choice(list(graph.inputs))]
    g = tr.Tensor(graph.outputs[name])
    limit = float(rng.choice([0.1, 1.0, 6.0, 500.0]))
    wrong = tr.where((tr.Tensor(x) ** 2).sum() > limit, g * 1.5 + 0.25, g)
    yield f"wrong {verdict(lambda: tr.prove(tr.Graph({**graph.outputs, name: wrong}), rng=seed, max_terms=20_000))}"


def pairs(seed):
    a, b, same = pair(seed)
    found = tr.equivalent(a, b, rng=seed).verdict
    yield f"{'right' if same else 'wrong'} " + {"equal": "accepted", "different": "rejected", "unknown": "unknown"}[found]


def edits(seed):
    original, changed = edited(seed)
    if changed == original:
        return
    try:
        checker.check(changed, seed)
    except (LoadError, ProofError) as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert message.replace("\n", "").isprintable(), repr(message)
        yield "wrong rejected"
        return
    said = misjudged(changed, seed)
    yield "wrong accepted" if said else "accepted, changes no number"


KINDS = {f.__name__: f for f in (gradients, cells, pairs, edits)}


def outcomes(kind, seed, say=print):
    """The outcomes of one seed; bad ones are said with the seed, so that they can be looked at again."""
    try:
        found = list(KINDS[kind](seed))
    except Exception:  # whatever is raised is an outcome, and is said
        found = ["raised"]
        say(f"{kind} {seed}\n{traceback.format_exc(limit=-6)}")
    for outcome in found:
        if outcome in BAD[:2]:
            say(f"{kind} {seed}: {outcome}")
    return found


def campaign(kinds, seconds, seed=0, count=None):
    """Counts of the outcomes of every kind."""
    table = {}
    for kind in kinds:
        table[kind], k = Counter(outcomes(kind, seed)), 1  # what the kind needs is made before its time runs
        began = time.monotonic()
        while time.monotonic() - began < seconds and (count is None or k < count):
            table[kind].update(outcomes(kind, seed + k))
            k += 1
        print(f"{kind}, seeds {seed} to {seed + k - 1}: " + ", ".join(f"{n} {what}" for what, n in sorted(table[kind].items())), flush=True)
    return table


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    p.add_argument("--seconds", type=float, default=60.0, help="for each kind (default: 60)")
    p.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    p.add_argument("--count", type=int, help="at most so many seeds of each kind")
    args = p.parse_args()
    unknown = [k for k in args.kinds if k not in KINDS]
    if unknown:
        p.error(f"there is no kind {unknown[0]!r}; the kinds are {', '.join(KINDS)}")
    table = campaign(args.kinds or KINDS, args.seconds, args.seed, args.count)
    return int(any(counts[b] for counts in table.values() for b in BAD))


if __name__ == "__main__":
    sys.exit(main())
