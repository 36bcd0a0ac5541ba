"""Docstrings: every public name says what it does, with shapes and errors, and every function and layer shows itself at work.

The examples themselves run with the tests (`--doctest-modules`), those that need the data of other packages in test_datasets.py.
"""

import inspect
import pydoc
import re

import pytest

import tinyrnn as tr
from tinyrnn.functions import FUNCTIONS

SHAPE = re.compile(r"\[[A-Z0-9][\w, .…-]*\]|\[rows|\[\.\.\.|shape|scalar|one number")  # [B, T, H], "the shape of x", a scalar
RESULTS = {"Derivation", "Drawing", "Equivalence", "LeakReport", "Page", "Proof", "Report", "XRay", "Rows", "Worked", "Judgement"}
NO_ARRAYS = {  # what takes and gives texts, classes, files or the numbers of an epoch
    "load", "loadable", "names", "get", "available", "read_weights", "write_weights", "Module", "Callback", "BestWeights",
    "EarlyStopping", "Log", "Constant", "Cosine", "StepDecay", "WarmUp", "Plateau", "History", "first_names",
    "names_by_gender", "shakespeare", "words", "split_names", "name_rows", "pronunciations", "compile"}
NO_ERRORS = {"Constant", "History", "available", "names", "first_names", "names_by_gender", "shakespeare", "words"}


def public():
    """Names with what they stand for: of the package, of its rooms for users, and the backends that can run."""
    for room in (tr, tr.nn, tr.optim, tr.train, tr.io, tr.datasets, tr.cells):
        for name in dict.fromkeys((*room.__all__, *(FUNCTIONS if room is tr else ()))):
            value = getattr(room, name)
            if callable(value) and not isinstance(value, tr.Cell):
                yield name, value
    yield "available", tr.backends.available


def asked():
    """All but errors, which say their own words, and results, whose makers are asked."""
    return [(name, value) for name, value in public()
            if name not in RESULTS and not (inspect.isclass(value) and issubclass(value, Exception))]


@pytest.mark.parametrize(("name", "value"), asked(), ids=[name for name, _ in asked()])
def test_a_public_name_says_shapes_and_errors_and_shows_an_example(name, value):
    text = inspect.getdoc(value) or ""
    assert text.splitlines()[0].strip(), "an empty first line"
    assert SHAPE.search(text) or name in NO_ARRAYS, "no shapes"
    assert re.search(r"\b[Rr]aise[sd]?\b|LoadError", text) or name in NO_ERRORS, "no errors"
    assert ">>> " in text, "no example"


def test_what_is_excused_is_public():
    assert {name for name, _ in public()} >= RESULTS | NO_ARRAYS | NO_ERRORS


def test_results_say_what_they_hold():
    for name, value in public():
        if name in RESULTS:
            assert len(inspect.getdoc(value)) > 60, name


def test_help_is_a_guide():
    """`help(tr)` names every public name of the package in its first screen; nothing is public besides but declared functions."""
    guide = tr.__doc__
    assert all(re.search(rf"\b{name}\b", guide) for name in tr.__all__)
    assert len(guide.splitlines()) < 40
    shown = pydoc.plain(pydoc.render_doc(tr))
    assert "def value_and_grad" in shown or "value_and_grad(" in shown
    assert {n for n in dir(tr) if not n.startswith("_") and callable(getattr(tr, n))} <= {*tr.__all__, *FUNCTIONS}
