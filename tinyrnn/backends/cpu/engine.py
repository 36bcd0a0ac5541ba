"""From LLVM text to machine code: the host's target, one cache of compiled kernels for the process, one on disk."""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, NamedTuple

import llvmlite
from llvmlite import binding, ir

from ..store import load_object, store_object

LIBRARY = ("pow", "powf", "sin", "sinf", "cos", "cosf", "sched_yield")  # called by compiled code where no program exists


class Target(NamedTuple):
    """What code is emitted for."""

    cpu: str
    features: str
    vector_bytes: int
    registers: int  # vector registers


@cache
def host() -> Target:
    """This machine."""
    features = binding.get_host_cpu_features()
    wide = all(features.get(f, False) for f in ("avx512f", "avx512bw", "avx512dq", "avx512vl"))
    width = 64 if wide else 32 if features.get("avx2", False) else 16
    return Target(binding.get_host_cpu_name(), features.flatten(), width, 32 if wide or width == 16 else 16)


AVX2 = Target("haswell", "", 32, 16)
"""A machine with AVX2 and FMA but no wider vectors; AVX-512 hosts run its code, too."""

BASELINE = Target("", "", 16, 16)
"""Whatever every machine of this architecture has."""


@cache
def _started() -> None:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    process = ctypes.CDLL(None)
    for name in LIBRARY:
        function = getattr(process, name, None)
        if function is not None:
            binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)


@cache
def _machine(target: Target) -> Any:
    _started()
    triple = binding.Target.from_default_triple()
    return triple.create_target_machine(cpu=target.cpu, features=target.features, opt=2, jit=True)


def object_code(module: Any, target: Target, passes: bool) -> bytes:
    """A module as machine code; `passes=False` leaves out LLVM's passes over its own language, which hand-made loops
    gain nothing from."""
    machine = _machine(target)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    if passes:
        tuning = binding.create_pipeline_tuning_options(speed_level=2)
        tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
        builder = binding.create_pass_builder(machine, tuning)
        builder.getModulePassManager().run(parsed, builder)
    code: bytes = machine.emit_object(parsed)
    return code


Emitters = Mapping[Hashable, Callable[[Any, str], None]]


class Library:
    """Compiled functions by their structure; each is compiled once in a process."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.addresses: dict[Hashable, int] = {}
        self._engines: list[Any] = []
        self._lock = threading.Lock()
        self._count = 0

    def require(self, wanted: Emitters, passes: bool = True) -> None:
        """Compile what is not there yet, all of it in one module."""
        with self._lock:
            missing = {k: emit for k, emit in wanted.items() if k not in self.addresses}
            if missing:
                _started()
                self._compile(missing, passes)

    def _compile(self, missing: Emitters, passes: bool) -> None:
        names = {k: f"kernel_{hashlib.sha256(repr(k).encode()).hexdigest()[:20]}" for k in missing}
        identity = hashlib.sha256(repr((llvmlite.__version__, binding.llvm_version_info, self.target, sorted(names.values()),
                                        passes, source_hash())).encode()).hexdigest()
        code = load_object(identity)
        if code is None:
            module = ir.Module("tinyrnn")
            module.triple = binding.get_default_triple()
            for key, emit in missing.items():
                emit(module, names[key])
            code = object_code(module, self.target, passes)
            store_object(identity, code)
        engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine_of_its_own(self.target))
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
        engine.finalize_object()
        self._engines.append(engine)
        for key, name in names.items():
            self.addresses[key] = engine.get_function_address(name)


def _machine_of_its_own(target: Target) -> Any:
    """An engine takes its target machine over."""
    return binding.Target.from_default_triple().create_target_machine(cpu=target.cpu, features=target.features, opt=2, jit=True)


@cache
def source_hash() -> str:
    """A hash of the code that emits: kernels stored by another version are not used."""
    from pathlib import Path

    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for folder in ("ir", "domains", "backends"):  # formulas, what they are evaluated over, and what emits
        for path in sorted((package / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def library(target: Target) -> Library:
    """The compiled functions for a target."""
    return Library(target)
