"""What tinyrnn asks of CuPy exists in CuPy, which can be imported without a GPU; and what is missing is said."""

import inspect
import subprocess
import sys
import types

import pytest

import tinyrnn as tr
from tinyrnn.backends.cuda import device, nvrtc
from tinyrnn.cli import main

from .gpu import toolchain

real = pytest.importorskip("cupy", reason="CuPy comes with pip install 'tinyrnn[test-gpu]' on Linux")
pytestmark = pytest.mark.skipif(toolchain.COMPILER is None, reason="no C++ compiler here")
OWN = {"cuda.Graph.alive", "cuda.Graph.nodes"}  # what tests ask of the stand-in alone


def names(thing, path=""):
    """Everything that the stand-in offers, by its path."""
    for name, value in vars(thing).items():
        if name.startswith("_") and name not in ("__dlpack__", "__dlpack_device__"):
            continue
        yield f"{path}{name}", value
        if isinstance(value, types.SimpleNamespace):
            yield from names(value, f"{path}{name}.")
        elif inspect.isclass(value) and not issubclass(value, BaseException):
            yield from ((f"{path}{name}.{k}", v) for k, v in vars(value).items() if not k.startswith("_"))


def test_the_stand_in_has_nothing_that_cupy_has_not():
    from .gpu import fake_cupy

    found = [path for path, _ in names(fake_cupy.modules()["cupy"])]
    assert len(found) > 50
    missing = []
    for path in found:
        at = real
        for part in path.split("."):
            at = getattr(at, part, None)
            if at is None:
                missing.append(path)
                break
    assert set(missing) <= OWN, missing


@pytest.mark.parametrize(("path", "parameters"), [
    ("cuda.runtime.memcpyAsync", "dst src size kind stream"), ("cuda.runtime.memsetAsync", "ptr value size stream"),
    ("cuda.UnownedMemory", "ptr size owner device_id"), ("cuda.MemoryPointer", "mem offset"), ("ascontiguousarray", "a dtype"),
    ("cuda.Stream", "null non_blocking ptds"), ("empty", "shape dtype"), ("asnumpy", "a"), ("cuda.Device", "device")])
def test_arguments_are_those_of_cupy(path, parameters):
    at = real
    for part in path.split("."):
        at = getattr(at, part)
    text = at.__doc__.split("\n")[0] if "Cython" in type(at).__name__ or not _signature(at) else _signature(at)
    places = [text.find(name) for name in parameters.split()]
    assert -1 not in places, text
    assert places == sorted(places), text


def _signature(thing):
    try:
        return str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""


def test_products_are_given_where_to_write():
    assert "out" in str(inspect.signature(real.matmul))


# ---- what is missing

@pytest.mark.skipif(device.missing() is None, reason="there is a GPU")
def test_without_a_driver_the_remedy_is_said(capsys):
    device.missing.cache_clear()
    for use in (lambda: tr.compile(lambda x: x, backend="cuda"), lambda: tr.tensor(1.0, backend="cuda"),
                lambda: tr.nn.LSTM(2, 3).fit([[[1.0, 2.0]]], [[[1.0] * 3]], loss="mse", optimizer=tr.optim.SGD(0.1), backend="cuda")):
        with pytest.raises(tr.TinyRNNError, match=r"'cuda' cannot run here: no usable NVIDIA driver \(cudaErrorInsufficientDriver: .*\): "
                                                  r"install one \(`nvidia-smi` shows it\), .*pip install 'tinyrnn\[cuda13\]'.*`tinyrnn doctor`"):
            use()
    assert "cuda" not in tr.backends.available()
    assert "no usable NVIDIA driver" in tr.backends.available().reasons["cuda"]
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for what in ("backend cuda: no usable NVIDIA driver", f"CuPy: {real.__version__}", "CUDA driver: not there: install NVIDIA's driver",
                 "CUDA runtime: 1", "GPU: none (cudaErrorInsufficientDriver", "NVRTC, which compiles kernels: ready"):
        assert what in said, said


WITHOUT = """
import sys
sys.modules["cupy"] = None if {broken} else sys.modules.get("cupy")
import importlib.util
find = importlib.util.find_spec
import tinyrnn.backends.cuda.device as device
device.find_spec = lambda name: None if name == "cupy" and not {broken} else find(name) if name != "cupy" else object()
import tinyrnn as tr
try:
    tr.compile(lambda x: x, backend="cuda")
except tr.TinyRNNError as error:
    print(error)
from tinyrnn.cli import main
main(["doctor"])
"""


@pytest.mark.parametrize(("broken", "message"), [(False, "CuPy is not installed: pip install 'tinyrnn[cuda13]' (driver 580 or newer) or"),
                                                 (True, "CuPy is installed but cannot be imported (")])
def test_without_cupy_the_remedy_is_said(broken, message):
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(broken=broken)], capture_output=True, text=True, timeout=100)
    assert message in done.stdout, done.stdout + done.stderr
    assert "CuPy: " in done.stdout


def test_a_missing_library_is_named(no_gpu, monkeypatch):
    def gone(name):
        raise RuntimeError(f"lib{name} not found")

    monkeypatch.setattr(device, "loaded", gone)
    device.missing.cache_clear()
    with pytest.raises(tr.TinyRNNError, match=r"NVRTC, which compiles kernels, is missing \(libnvrtc not found\): pip install"):
        tr.compile(lambda x: x, backend="cuda")


def test_doctor_on_a_machine_with_a_gpu(no_gpu, capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "backend cuda: ready" in said
    assert "GPU: Stand-in (compute capability 9.0)" in said
    assert "CUDA driver: 13.0" in said


def test_nvrtc_is_a_version_that_is_known():
    pytest.importorskip("cuda.bindings.nvrtc", exc_type=ImportError)
    assert nvrtc.version() >= (12, 0)
