"""What several test files share: every graph and every plan is checked, and a GPU, real where there is one, else the
stand-in."""

import faulthandler
import os
import random
import secrets
import sys

os.environ.setdefault("TINYRNN_CHECK", "1")  # before tinyrnn is imported; processes that tests start inherit it

import pytest

from tinyrnn.backends.cuda import device

from .gpu import toolchain


@pytest.fixture(autouse=True)
def _drawn_by_name(request, monkeypatch):
    """Proofs draw a new seed in every run; in a test it follows from the test's name, so that what fails fails again.  Other
    draws: TINYRNN_SEED=anything; `make prove-fuzz` goes through many."""
    seed = random.Random(f"{request.node.nodeid} {os.environ.get('TINYRNN_SEED', '')}")
    monkeypatch.setattr(secrets, "randbits", seed.getrandbits)


REQUIRED = os.environ.get("TINYRNN_GPU") == "required"  # on a machine that is there for its GPU


def pytest_collection_modifyitems(config, items):
    """Where a GPU is required, what only the stand-in can be asked is left out."""
    aside = [item for item in items if REQUIRED and "no_gpu" in item.fixturenames]
    if aside:
        config.hook.pytest_deselected(items=aside)
        items[:] = [item for item in items if item not in aside]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """What hangs on a GPU cannot be interrupted: it costs its process, which pytest-xdist replaces, and no other test."""
    if REQUIRED:
        faulthandler.dump_traceback_later(25, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        if REQUIRED:
            faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def real_gpu():
    """Whether CuPy works here."""
    return device.missing() is None


@pytest.fixture
def no_gpu(monkeypatch):
    """The stand-in, on machines with a GPU as well: for what only it can be asked.  It is checked afterwards."""
    if toolchain.COMPILER is None:
        pytest.skip("no C++ compiler here to run kernels on the processor")
    from .gpu import fake_cupy  # it needs the compiler

    fake_cupy.install(monkeypatch)
    yield fake_cupy
    fake_cupy.forget()
    fake_cupy.check()


@pytest.fixture
def gpu(real_gpu, request):
    """The backend `cuda` works: on a GPU (None), or on the stand-in."""
    if REQUIRED and not real_gpu:
        pytest.fail(f"TINYRNN_GPU=required, and no GPU works here: {device.missing()}")
    return None if real_gpu else request.getfixturevalue("no_gpu")
