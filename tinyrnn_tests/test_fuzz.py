"""The first seeds of every fuzzer; `python -m tinyrnn_tests.fuzz` goes on."""

import pytest

from . import fuzz

SEEDS = {"programs": 400, "scans": 120, "lengths": 60, "cells": 1200, "budgets": 30, "models": 600, "checkpoints": 100, "caches": 24}
PARTS = 4  # so that processes share the work


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_nothing_is_wrong(kind, part):
    for seed in range(part, SEEDS[kind], PARTS):
        try:
            fuzz.KINDS[kind](seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
