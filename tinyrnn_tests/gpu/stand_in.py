"""A part of the GPU's benchmark in a process of its own, on the stand-in: as `python -m tinyrnn.bench.gpu`."""

import sys

import pytest

from . import fake_cupy

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_cupy.install(monkeypatch)
        from tinyrnn.bench import gpu

        status = gpu.main(sys.argv[1:])
        fake_cupy.forget()
    fake_cupy.check()
    raise SystemExit(status)
