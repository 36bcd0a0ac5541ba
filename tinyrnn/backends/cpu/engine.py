"""From LLVM text to machine code: the host's target, one cache of compiled kernels for the process, one on disk."""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import llvmlite
from llvmlite import binding, ir

from ...errors import BackendError
from ..cache import load_object, store_object

PASSES = ("simplify_cfg", "instruction_combine", "new_gvn", "instruction_combine", "simplify_cfg")
"""LLVM's passes over a module, by name.  Its ready-made pipeline keeps a quarter of a megabyte for ever each time it runs
(llvmlite 0.50), and finds nothing more in loops that are written with their sizes and strides in registers."""

TARGET = "TINYRNN_TARGET"  # the variable that asks for code of a lesser machine: for comparing results between machines

LATEST = 64  # modules that stay compiled when nobody runs them
LIBRARY = ("pow", "powf", "sin", "sinf", "cos", "cosf", "sched_yield")  # called by compiled code where no program exists


class Target(NamedTuple):
    """What code is emitted for."""

    cpu: str
    features: str
    vector_bytes: int
    registers: int  # vector registers


@cache
def host() -> Target:
    """This machine, or the lesser one that TINYRNN_TARGET names: with AVX2, or whatever every machine of its kind has."""
    named = os.environ.get(TARGET, "").lower()
    if named:
        if named not in LESSER:
            raise BackendError(f"{TARGET}={named!r}: expected {' or '.join(LESSER)}, or nothing for this machine's own")
        return LESSER[named]
    features = binding.get_host_cpu_features()
    wide = all(features.get(f, False) for f in ("avx512f", "avx512bw", "avx512dq", "avx512vl"))
    width = 64 if wide else 32 if features.get("avx2", False) else 16
    return Target(binding.get_host_cpu_name(), features.flatten(), width, 32 if wide or width == 16 else 16)


AVX2 = Target("haswell", "", 32, 16)
"""A machine with AVX2 and FMA but no wider vectors; AVX-512 hosts run its code, too."""

BASELINE = Target("", "", 16, 16)
"""Whatever every machine of this architecture has."""

LESSER = {"avx2": AVX2, "baseline": BASELINE}


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
    return _machine_of_its_own(target)


def object_code(module: object, target: Target, passes: bool) -> bytes:
    """A module as machine code; `passes=False` leaves out LLVM's passes over its own language, which hand-made loops
    gain nothing from."""
    machine = _machine(target)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    if passes:
        chosen = binding.create_new_module_pass_manager()
        for name in PASSES:
            getattr(chosen, f"add_{name}_pass")()
        chosen.run(parsed, binding.create_pass_builder(machine, binding.create_pipeline_tuning_options()))
    code: bytes = machine.emit_object(parsed)
    return code


Emitters = Mapping[Hashable, Callable[[Any, str], None]]


_LLVM = threading.RLock()
"""Held by whoever compiles or frees code, and across a fork: LLVM has locks of its own, which a child would find closed."""
_UNUSED: list[Any] = []  # engines that nobody runs, freed by the next one who has the lock
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_LLVM.acquire, after_in_parent=_LLVM.release, after_in_child=_LLVM.release)


class Code:
    """The machine code of one module, which is freed when nobody holds it any more."""

    def __init__(self, code: bytes, names: Mapping[Hashable, str], target: Target) -> None:
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine_of_its_own(target))
        self._engine.add_object_file(binding.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.addresses: dict[Hashable, int] = {key: self._engine.get_function_address(name) for key, name in names.items()}

    def __del__(self, lock: threading.RLock = _LLVM, unused: list[Any] = _UNUSED) -> None:  # defaults outlive the module
        unused.append(self.__dict__.pop("_engine", None))
        if lock.acquire(blocking=False):  # whoever collects garbage may hold other locks, and must not wait here
            try:
                unused.clear()
            finally:
                lock.release()


class KernelCache:
    """Compiled functions by their structure.

    Whoever runs one holds its code; beside that the latest modules are held here, so that a program which is made anew
    again and again is compiled once.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._held: WeakValueDictionary[Hashable, Code] = WeakValueDictionary()
        self._latest: deque[Code] = deque(maxlen=LATEST)

    def has(self, key: Hashable) -> bool:
        """Whether a function is compiled."""
        return key in self._held

    def require(self, wanted: Emitters, passes: bool = True) -> dict[Hashable, Code]:
        """The code of every function; what is not there yet is compiled, all of it in one module."""
        with _LLVM:
            _UNUSED.clear()
            there = {k: code for k in wanted if (code := self._held.get(k)) is not None}
            missing = {k: emit for k, emit in wanted.items() if k not in there}
            if missing:
                code = self._compiled(missing, passes)
                self._latest.append(code)
                self._held.update(dict.fromkeys(missing, code))
                there.update(dict.fromkeys(missing, code))
            return there

    def _compiled(self, missing: Emitters, passes: bool) -> Code:
        _started()
        names = {k: f"kernel_{hashlib.sha256(repr(k).encode()).hexdigest()[:20]}" for k in missing}
        identity = hashlib.sha256(repr((llvmlite.__version__, binding.llvm_version_info, self.target, sorted(names.values()),
                                        passes, source_hash())).encode()).hexdigest()
        stored = load_object(identity)
        if stored is not None:
            return Code(stored, names, self.target)
        module = ir.Module("tinyrnn")
        module.triple = binding.get_default_triple()
        for key, emit in missing.items():
            emit(module, names[key])
        made = object_code(module, self.target, passes)
        store_object(identity, made)
        return Code(made, names, self.target)


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
def library(target: Target) -> KernelCache:
    """The compiled functions for a target."""
    return KernelCache(target)
