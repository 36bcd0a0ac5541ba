"""A plan recorded and run again by a program of its own, under a sanitizer."""

import platform
import shutil
import subprocess

import numpy as np

from tinyrnn.backends.cuda.launch import KernelLaunch, kernel_keys, scratch_bytes, source_of, work_of
from tinyrnn.backends.plan.matmul import Blas
from tinyrnn.backends.plan.planner import plan_of
from tinyrnn.backends.plan.views import Buffer
from tinyrnn.passes import simplify
from tinyrnn.passes.fuse import fuse

from . import toolchain

SANITIZERS = {"thread": ["-fsanitize=thread", "-DTR_THREADS"],
              "address": ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all", "-DTR_THREADS"]}
ROOM = 40  # bits of an offset within a buffer


class SanitizerError(AssertionError):
    """What the sanitizer said."""


def replay(graph, values, sanitizer, tmp_path, change=lambda source: source):
    """Every output of a graph, computed by its kernels under a sanitizer; `change` plants a bug in their source."""
    plan = plan_of(fuse(simplify(graph)), Blas())
    calls = list(plan.calls())
    source = change(source_of(kernel_keys(calls)))
    known = toolchain.kernels_in(source)
    scratch = Buffer("scratch", max(scratch_bytes(calls), 1), np.dtype(np.uint8), "temporary")
    buffers = [*plan.buffers, scratch]
    number = {b: i for i, b in enumerate(buffers)}
    record = [np.int64(len(buffers)).tobytes()]
    for b in buffers:
        record += [np.int64(b.bytes).tobytes(), contents(b, values)]
    for stretch in work_of(plan):
        turns = range(stretch.steps)
        for t in turns[::-1] if stretch.reverse else turns:
            for job in stretch.jobs:
                record.append(kernel(job, t, number, scratch, list(known)) if isinstance(job, KernelLaunch) else product(job, t, number))
    (tmp_path / "in").write_bytes(b"".join(record))
    run(program(source, known, sanitizer), tmp_path)
    data, at, found = (tmp_path / "out").read_bytes(), 0, {}
    for b in buffers:
        found[b] = np.frombuffer(data, b.dtype, b.size, at)
        at += b.bytes
    return {k: found[v.buffer].reshape(v.shape) for k, v in plan.outputs.items()}


def contents(b, values):
    """What a buffer holds at first: poison where nothing is given."""
    if b.role in ("input", "leaf"):
        value = values[b.name] if b.name in values else b.source.at[0].data
        return np.ascontiguousarray(value, b.dtype).tobytes()
    if b.role == "literal":
        return np.ascontiguousarray(b.source).tobytes()
    return (b"\0" if b.role == "note" else b"\xff") * b.bytes


def kernel(job, t, number, scratch, names):
    address = {b: (i + 1) << ROOM for b, i in number.items()}
    words = job.words(address, address[scratch], t + 1)["w"][t]
    count = len(job.operands)
    pairs = [(w >> ROOM, w & ((1 << ROOM) - 1)) if i < count or i == len(words) - 1 else (0, w) for i, w in enumerate(words.tolist())]
    head = np.int64(names.index(job.function)).tobytes() + np.array([*job.grid, *job.block], np.uint32).tobytes()
    return head + np.int64(len(words)).tobytes() + np.array([(b - 1, w) for b, w in pairs], np.int64).tobytes()


def product(job, t, number):
    size = job.dtype.itemsize
    operands = [x for v in job.operands for x in (number[v.buffer], size * (v.offset + v.step * t), *v.strides)]
    return np.array([-size, *job.sizes, job.batch, *operands], np.int64).tobytes()


def program(source, known, sanitizer):
    table = "".join([source, '\n#include "blocks.h"\nKernel kernels[] = {', ", ".join([*known, "0"]), "};\nextern const int kernels_meet[] = {",
                     ", ".join([*(str(toolchain.meets(text)) for _, _, text in known.values()), "0"]), "};\n"])
    here = toolchain.HERE
    return toolchain.built([str(here / "blocks.cpp"), str(here / "replay.cpp")], ["-O1", "-g", *SANITIZERS[sanitizer]], table)


def run(path, tmp_path):
    command = [str(path), str(tmp_path / "in"), str(tmp_path / "out")]
    if shutil.which("setarch"):  # ThreadSanitizer does not stand every layout of memory
        command = ["setarch", platform.machine(), "-R", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={
        "TSAN_OPTIONS": "exitcode=66 halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin"})
    if done.returncode:
        raise SanitizerError(done.stderr[:6000])
