"""How far a computation may be off: measured, not guessed.

`Shaken` is a domain in which the result of every operation is moved by a tiny random share.  How far the outputs move,
scaled down to the unit roundoff, is what honest rounding may do to them: a running error bound that knows about
cancellation, saturation and long sums, because it is the graph itself that is shaken.
"""

import numpy as np

from tinyrnn.domains.float import Float
from tinyrnn.ir.ops.leaves import LEAF

MAGNIFIED = 1000.0  # unit roundoffs of each dtype: a result may be made of numbers of several
SHARE = {size: MAGNIFIED * np.finfo(f"f{size}").eps for size in (4, 8)}
MOVES = frozenset("reshape transpose slice place take put concat stack broadcast_to gather pick tag stop_gradient full literal "
                  "iota one_hot argmax random_bits less less_equal equal not_equal both either negate sign astype".split())


class Shaken(Float):
    """Ordinary numbers, each result of arithmetic moved by up to `SHARE` of itself."""

    name = "shaken"

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def implementation(self, op):
        plain = super().implementation(op)
        if op.name in MOVES or op is LEAF:
            return plain

        def shaken(*x):
            y = plain(*x)
            if getattr(y, "dtype", np.dtype(int)).kind != "f":
                return y
            share = SHARE[y.dtype.itemsize]
            return (y * (1 + share * self.rng.uniform(-1, 1, y.shape))).astype(y.dtype)

        return shaken


def running_error(graph, values, runs=3):
    """For every output, an array of how far rounding may move each entry."""
    with np.errstate(all="ignore"):
        plain = graph.run(values)
        worst = {k: np.zeros(np.shape(y)) for k, y in plain.items()}
        for seed in range(runs):
            for k, y in graph.run(values, domain=Shaken(seed)).items():
                if plain[k].dtype.kind == "f":
                    moved = np.abs(y.astype(float) - plain[k].astype(float))
                    worst[k] = np.fmax(worst[k], np.where(np.isfinite(moved), moved, 0.0))
    return plain, {k: w / MAGNIFIED for k, w in worst.items()}


def assert_equal_computations(graph, found, values, slack=64):
    """Compiled results against the interpreter's, entry by entry: NaN and infinity in the same places, finite numbers
    within `slack` times the running error (and of the largest of their array), whole numbers and bools equal."""
    expected, error = running_error(graph, values)
    assert list(found) == list(expected)
    for k, y in expected.items():
        x = found[k]
        assert (x.shape, x.dtype) == (y.shape, y.dtype), f"{k}: {x.dtype}{x.shape}, expected {y.dtype}{y.shape}"
        if y.dtype.kind != "f":
            np.testing.assert_array_equal(x, y, err_msg=k)
            continue
        np.testing.assert_array_equal(np.isnan(x), np.isnan(y), err_msg=f"NaN in {k}")
        infinite = np.isinf(y)
        np.testing.assert_array_equal(x[infinite], y[infinite], err_msg=f"infinity in {k}")
        finite = np.isfinite(y)
        with np.errstate(all="ignore"):
            off = np.abs(x.astype(float) - y.astype(float))[finite]
            eps = np.finfo(y.dtype).eps
            allowed = slack * (np.broadcast_to(error[k].max(initial=0.0), y.shape) + eps * np.abs(y).astype(float))[finite]
        assert (off <= allowed + np.finfo(y.dtype).tiny).all(), (
            f"{k}: off by {off.max():.2e}, allowed {allowed[off.argmax()]:.2e}\n{graph}")
