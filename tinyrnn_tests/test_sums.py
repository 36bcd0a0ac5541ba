"""Sums are right however many numbers they have: every axis, both ways to run, any number of threads with the same bits."""

import numpy as np
import pytest

import tinyrnn as tr

TENTH, N = np.float32(0.1), 10_000_000
SHAPES = [((N,), None), ((N // 4, 4), 0), ((4, N // 4), 1), ((2, N // 4, 2), 1), ((N // 8, 4, 2), (0, 2)), ((100, 1000, 100), None),
          ((1000, 2500, 4), (0, 1)), ((N // 2, 2), (0,)), ((1, N), (1,))]


def off(found, right):
    return float(np.abs(np.asarray(found, np.float64) / right - 1).max())


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_ten_million_equal_numbers(shape, axis, backend):
    x = np.full(shape, TENTH)
    count = N if axis is None else np.prod([shape[i] for i in np.atleast_1d(axis)])
    total, mean, spread = tr.compile(lambda x: (tr.sum(x, axis), tr.mean(x, axis), tr.var(x, axis)), backend=backend, threads=1)(x)
    assert off(total, float(TENTH) * count) < 1e-6
    assert off(mean, float(TENTH)) < 1e-6
    assert np.abs(spread).max() < 1e-12


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_losses_counts_and_gradients_of_many(backend):
    n = 2_000_000
    x, mask = np.full((n, 2), TENTH), np.ones(n, bool)
    mask[: n // 2] = False
    labels, ones = np.zeros(n, int), np.ones(n, "f")

    def losses(x, labels, ones, mask):
        return {"cross_entropy": tr.nn.cross_entropy(x, labels), "masked": tr.nn.cross_entropy(x, labels, mask=mask),
                "mse": tr.nn.mse(x[:, 0], ones), "bce": tr.nn.bce(x[:, 0], ones), "logits": tr.nn.bce_with_logits(x[:, 0], ones),
                "count": mask.astype("float32").sum(), "last": tr.cumsum(x[:, 0])[-1], "dot": x[:, 0] @ x[:, 0],
                "einsum": tr.einsum("ij->j", x)[0]}

    found = tr.compile(losses, backend=backend)(x, labels, ones, mask)
    p = float(TENTH)
    right = {"cross_entropy": np.log(2), "masked": np.log(2), "mse": (p - 1) ** 2, "bce": -np.log(p), "logits": np.log1p(np.exp(-p)),
             "count": n // 2, "last": n * p, "dot": n * p * p, "einsum": n * p}
    assert {k: off(found[k], v) for k, v in right.items() if off(found[k], v) >= 1e-6} == {}


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_gradients_that_add_up(backend):
    n = 1_000_000
    bias, table = tr.parameter(np.zeros(4, "f")), tr.parameter(np.zeros((3, 2), "f"))
    index = np.zeros(n, int)
    index[: n // 4] = 2

    def slopes(x, index):
        return tr.grad(((x + bias) * TENTH).sum() + (tr.gather(table, index) * TENTH).sum(), [bias, table])

    of_bias, of_table = tr.compile(slopes, backend=backend)(np.ones((n, 4), "f"), index)
    assert off(of_bias, n * float(TENTH)) < 1e-6
    assert off(of_table[[0, 2], 0], np.array([0.75, 0.25]) * n * float(TENTH)) < 1e-6
    assert not of_table[1].any()


def test_threads_change_no_bit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3001, 517)).astype("f") * 10.0 ** rng.integers(-6, 6, (3001, 517))

    def every(x):
        return tr.sum(x), tr.sum(x, 0), tr.sum(x, 1), tr.mean(x, 0), tr.layer_norm(x), tr.softmax(x, 0), tr.cumsum(x, 1)

    first, *rest = [tr.compile(every, threads=k)(x) for k in (1, 2, 3)]
    for other in rest:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(first[1], x.astype(np.float64).sum(0), rtol=2e-7, atol=1e-7 * np.abs(x).sum(0).max())


def test_a_column_sum_of_every_width():
    """Tiles and lanes: widths around their borders, rows around those of a block."""
    rng = np.random.default_rng(1)
    total = tr.compile(lambda x: (tr.sum(x, 0), tr.sum(x * x, 0)))
    for rows, columns in [(1, 1), (255, 15), (256, 16), (257, 17), (3, 2047), (300, 2048), (2, 2049), (513, 4100), (0, 5)]:
        x = rng.normal(size=(rows, columns)).astype("f")
        for a, b in zip(total(x), (x.astype(float).sum(0), (x.astype(float) ** 2).sum(0)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-5)


def test_float16_is_added_in_float32():
    n = 70_000
    ones = np.ones(n, "float16")
    assert float(tr.mean(ones)) == 1
    assert float(tr.nn.mse(np.full(100, 50, "float16"), np.zeros(100, "float16"))) == 2500
    assert abs(float(tr.nn.cross_entropy(np.zeros((n, 2), "float16"), np.zeros(n, int), mask=np.ones(n, bool))) - np.log(2)) < 1e-3
    assert float(tr.nn.Pool("mean")(np.full((1, 4000, 1), 30, "float16"), lengths=[4000])) == 30
    assert float(tr.var(np.array([300.0, -300.0], "float16"))) == np.inf  # 90,000 has no place in float16
    assert np.isfinite(tr.layer_norm(np.array([[300.0, -300.0, 200.0]], "float16")).numpy()).all()


@pytest.mark.parametrize(("dtype", "size"), [("float16", 3e4), ("float32", 1e20), ("float32", 3e37), ("float64", 1e150)])
def test_norms_of_large_numbers(dtype, size):
    x = (np.array([[1, 2, 3.3]]) * size / 2).astype(dtype)
    wide = x.astype(np.longdouble)
    d = wide - wide.mean(-1, keepdims=True)
    right = {"layer_norm": d / np.sqrt((d * d).mean(-1, keepdims=True)), "rms_norm": wide / np.sqrt((wide * wide).mean(-1, keepdims=True))}
    for name, want in right.items():
        norm = getattr(tr, name)
        for found in (norm(x).numpy(), tr.compile(lambda a, norm=norm: norm(a))(x) if dtype != "float16" else norm(x).numpy()):
            np.testing.assert_allclose(found, want.astype(float), rtol=1e-3 if dtype == "float16" else 1e-6)
    equal = np.full((2, 7), 12345.678, "f")
    assert np.abs(tr.layer_norm(equal).numpy()).max() < 1e-3
