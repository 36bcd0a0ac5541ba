"""Kernels and the small CUDA beside this file, compiled for this machine's processor."""

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
OPTIONS = ["-std=c++20", "-fPIC", "-DTR_CPU", f"-I{HERE}", "-pthread", "-ffp-contract=off", "-w"]
KERNEL = re.compile(r"^TR_(?:KERNEL|CLUSTERS)\((\w+), (\d+), (\d+)\) \{$(.*?)^\}$", re.M | re.S)


@cache
def folder():
    """Where compiled files are kept between runs: by what they are made of."""
    path = Path(tempfile.gettempdir()) / f"tinyrnn-kernels-{os.getuid() if hasattr(os, 'getuid') else ''}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def built(sources, options, text=""):
    """A compiled file, made once."""
    parts = [p.read_bytes() for p in sorted(HERE.glob("*.[ch]*"))]
    key = hashlib.sha256(b"\0".join([*parts, text.encode(), repr((sources, options, COMPILER, sysconfig.get_platform())).encode()]))
    path = folder() / f"{key.hexdigest()[:32]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as own:
            target, given = Path(own) / "out.so", list(sources)
            if text:
                (Path(own) / "kernels.cu").write_text(text)
                given = ["-x", "c++", f"{own}/kernels.cu", "-x", "none", *given]
            done = subprocess.run([COMPILER, *OPTIONS, *options, *given, "-o", str(target)], capture_output=True, text=True)
            if done.returncode:
                raise AssertionError(f"a kernel does not compile here:\n{done.stderr[:4000]}")
            target.replace(path)
    return path


@cache
def runtime():
    """The small CUDA."""
    return built([str(HERE / "blocks.cpp"), str(HERE / "runtime.cpp")], ["-O2", "-shared"])


def kernels(source):
    """A module of kernels."""
    return built([], ["-O0", "-shared"], source)


def kernels_in(source):
    """The kernels of a source: name -> (number of words, threads at most, text)."""
    return {name: (int(words), int(threads), text) for name, words, threads, text in KERNEL.findall(source)}


def meets(text):
    """Where a kernel's threads meet: 0 nowhere, 1 within a block, at barriers or shuffles, 2 in all of the grid."""
    if any(word in text for word in ("tr_meet", "tr_load_acquire", "tr_peek")):
        return 2
    return int(any(word in text for word in ("TR_BARRIER", "tr_shuffle")))
