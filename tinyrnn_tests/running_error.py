"""Compiled results against the interpreter's, within what honest rounding may do to them."""

from tinyrnn.domains.shaken import difference, running_error


def assert_equal_computations(graph, found, values):
    """Every output is the interpreter's: NaN and infinity in the same places, finite numbers within the running error,
    whole numbers and bools equal."""
    expected, error = running_error(graph, values)
    assert list(found) == list(expected)
    for k, y in expected.items():
        wrong = difference(found[k], y, error[k])
        assert not wrong, f"{k}: {wrong}\n{graph}"
