"""Stages, kernels, proofs and pictures are those that `make fingerprints` wrote down."""

import json

import pytest

from .fingerprints import FILE, SUBJECTS, fingerprints

KNOWN = json.loads(FILE.read_text())


@pytest.mark.parametrize("subject", SUBJECTS)
def test_nothing_changed_by_accident(subject):
    known, found = KNOWN[subject], fingerprints(subject)
    changed = [what for what in {**known, **found} if known.get(what) != found.get(what)]
    assert not changed, (f"{subject}: changed {', '.join(changed)}. To see how, write the texts of both versions and compare "
                         "them: python -m tinyrnn_tests.fingerprints --texts FOLDER. If it was meant: make fingerprints")


def test_every_subject_is_known_and_no_other():
    assert list(KNOWN) == SUBJECTS
