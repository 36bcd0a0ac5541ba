"""CUDA C: the text that every kernel stands on, its machine, and a writer of lines.

A kernel is header-free.  What the hardware does in its own way (shuffles, patterns of bits) sits in a handful of device
functions; with TR_CPU defined another file supplies them, and the same kernels run on a processor, where they are tested.

Every kernel takes one argument by value, a row of eight-byte words: addresses first, then whole numbers, then the
address of scratch memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...ir.node import DType
from ..codegen import BOOL, CodeDomain, Number

PRELUDE = """\
#ifdef TR_CPU
#include "tr_cpu.h"
#else
typedef long long tr_i64;
#define TR_DEVICE static __device__ __forceinline__
#define TR_KERNEL(name, words, threads) struct name##_words { tr_i64 w[words]; }; \\
    extern "C" __global__ void __launch_bounds__(threads, 1) name(const __grid_constant__ name##_words tr)
#define TR_SHARED(type, name, size) __shared__ type name[size]
#define TR_BARRIER() __syncthreads()
#define TR_SHUFFLE(type) TR_DEVICE type tr_shuffle(type x, int d) { return __shfl_xor_sync(0xffffffffu, x, d); }
TR_SHUFFLE(float)
TR_SHUFFLE(double)
TR_SHUFFLE(int)
TR_SHUFFLE(unsigned)
TR_SHUFFLE(long long)
TR_SHUFFLE(unsigned long long)
TR_DEVICE int tr_bits(float x) { return __float_as_int(x); }
TR_DEVICE tr_i64 tr_bits(double x) { return __double_as_longlong(x); }
TR_DEVICE float tr_pattern(int i) { return __int_as_float(i); }
TR_DEVICE double tr_pattern(tr_i64 i) { return __longlong_as_double(i); }
TR_DEVICE unsigned tr_add_release(unsigned* p, unsigned v) {
    unsigned old;
    asm volatile("atom.add.release.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
    return old;
}
TR_DEVICE unsigned tr_load_acquire(const unsigned* p) {
    unsigned v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
TR_DEVICE float4 tr_load_l2(const float4* p) { return __ldcg(p); }
#endif
#define TR_X ((tr_i64)blockIdx.x * blockDim.x + threadIdx.x)
#define TR_ACROSS ((tr_i64)gridDim.x * blockDim.x)
#define TR_LINE ((tr_i64)blockIdx.y * blockDim.y + threadIdx.y)
#define TR_DOWN ((tr_i64)gridDim.y * blockDim.y)
/* towards zero; what does not fit becomes the nearest number that does, NaN zero */
TR_DEVICE tr_i64 tr_i64_of(double x) {
    return x >= 9223372036854775808.0 ? 0x7fffffffffffffffll : x >= -9223372036854775808.0 ? (tr_i64)x
        : x == x ? -0x7fffffffffffffffll - 1 : 0;
}
TR_DEVICE unsigned long long tr_u64_of(double x) {
    return x >= 18446744073709551616.0 ? 0xffffffffffffffffull : x > -1.0 ? (unsigned long long)x : 0;
}
/* all blocks of a grid meet: a counter that only grows, so that nothing has to be reset; turns count from 1 */
TR_DEVICE void tr_meet(unsigned* counter, unsigned blocks, unsigned turn) {
    TR_BARRIER();
    if (threadIdx.x == 0) {
        tr_add_release(counter, 1);
        while ((int)(tr_load_acquire(counter) - blocks * turn) < 0) { }
    }
    TR_BARRIER();
}
TR_DEVICE tr_i64 tr_within(tr_i64 k, tr_i64 size) { return k < 0 ? 0 : k < size ? k : size - 1; }
"""

_TYPES = {"b1": "bool", "i1": "signed char", "i2": "short", "i4": "int", "i8": "long long", "u1": "unsigned char",
          "u2": "unsigned short", "u4": "unsigned", "u8": "unsigned long long", "f4": "float", "f8": "double"}
_SIGNS = {"add": "+", "sub": "-", "mul": "*"}


def c_type(dtype: DType) -> str:
    """One number in a register; a bool is a byte in memory."""
    return _TYPES[f"{dtype.kind}{dtype.itemsize}"]


def c_memory(dtype: DType) -> str:
    return "unsigned char" if dtype.kind == "b" else c_type(dtype)


def literal(number: Any, dtype: DType) -> str:
    """A number as C writes it, to the last bit."""
    if dtype.kind == "b":
        return "true" if number else "false"
    if dtype.kind == "f":
        value = dtype.type(number)
        if np.isfinite(value):
            text = float(value).hex() if value else "-0.0" if np.signbit(value) else "0.0"
            return f"({text}{'f' if dtype.itemsize == 4 else ''})"
        whole, code = ("<i", "<f") if dtype.itemsize == 4 else ("<q", "<d")
        pattern = struct.unpack(whole, struct.pack(code, float(value)))[0]
        return f"tr_pattern({literal(pattern, np.dtype(np.int32 if dtype.itemsize == 4 else np.int64))})"
    if int(number) == np.iinfo(np.int64).min:
        return "(-0x7fffffffffffffffll - 1)"
    suffix = {"i": "ll", "u": "ull"}[dtype.kind] if dtype.itemsize == 8 else "u" if dtype.kind == "u" else ""
    return f"(({c_type(dtype)}){int(number)}{suffix})"


class Lines:
    """Text under construction, indented, with names that stand for one thing only."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.depth = 0
        self._names = 0

    def __call__(self, line: str) -> None:
        self.text.append("    " * self.depth + line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """`head { ... }`"""
        self(f"{head} {{")
        self.depth += 1
        yield
        self.depth -= 1
        self("}")

    def fresh(self, prefix: str = "v") -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def __str__(self) -> str:
        return "\n".join([*self.text, ""])


class CudaDomain(CodeDomain):
    """Numbers are names of C variables; every operation is a line."""

    name = "cuda"

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    def named(self, expression: str, dtype: DType) -> Number:
        name = self.lines.fresh()
        self.lines(f"const {c_type(dtype)} {name} = {expression};")
        return Number(self, name, dtype)

    def constant(self, number: Any, dtype: DType) -> Number:
        return Number(self, literal(number, dtype), dtype)

    # ---- primitives, on numbers of one dtype

    def combined(self, name: str, x: Number, y: Number) -> Number:
        if x.dtype.kind == "f":
            return self.named(f"{x.value} {_SIGNS[name]} {y.value}", x.dtype)
        wide = "unsigned long long" if x.dtype.itemsize == 8 else "unsigned"  # what overflows wraps, as in NumPy
        return self.named(f"({c_type(x.dtype)})(({wide}){x.value} {_SIGNS[name]} ({wide}){y.value})", x.dtype)

    def divided(self, x: Number, y: Number) -> Number:
        return self.named(f"{x.value} / {y.value}", x.dtype)

    def negated(self, x: Number) -> Number:
        return self.named(f"-{x.value}", x.dtype)

    def bitwise(self, name: str, x: Number, y: Number) -> Number:
        sign = {"and": "&", "or": "|", "xor": "^"}[name]
        return self.named(f"({c_type(x.dtype)})({x.value} {sign} {y.value})", x.dtype)

    def inverted(self, x: Number) -> Number:
        return self.named(f"!{x.value}" if x.dtype.kind == "b" else f"({c_type(x.dtype)})~{x.value}", x.dtype)

    def fma(self, a: Number, b: Number, c: Number) -> Number:
        return self.called("fma", a, b, c)

    def select(self, p: Number, a: Number, b: Number) -> Number:
        return self.named(f"{p.value} ? {a.value} : {b.value}", a.dtype)

    def related(self, sign: str, x: Number, y: Number) -> Number:
        return self.named(f"{x.value} {sign} {y.value}", BOOL)

    def copysign(self, x: Number, sign: Number) -> Number:
        return self.called("copysign", x, sign)

    def bits(self, x: Number) -> Number:
        return self.named(f"tr_bits({x.value})", np.dtype(f"i{x.dtype.itemsize}"))

    def pattern(self, i: Number, like: Number) -> Number:
        return self.named(f"tr_pattern({i.value})", like.dtype)

    def shift_left(self, i: Number, n: int) -> Number:
        wide = "unsigned long long" if i.dtype.itemsize == 8 else "unsigned"
        return self.named(f"({c_type(i.dtype)})(({wide}){i.value} << {n})", i.dtype)

    def shift_right(self, i: Number, n: int) -> Number:
        return self.named(f"({c_type(i.dtype)})({i.value} >> {n})", i.dtype)

    def called(self, name: str, *values: Number) -> Number:
        """A function of C's library, which the hardware's compiler has built in."""
        suffix = "f" if values[0].dtype.itemsize == 4 else ""
        return self.named(f"{name}{suffix}({', '.join(v.value for v in values)})", values[0].dtype)

    def converted(self, x: Number, dtype: DType) -> Number:
        to = c_type(dtype)
        if x.dtype.kind == "f" and dtype.kind != "f":  # as in NumPy, narrow types by way of 64 bits
            wide = "tr_u64_of" if dtype.kind == "u" and dtype.itemsize == 8 else "tr_i64_of"
            return self.named(f"({to}){wide}({x.value})", dtype)
        return self.named(f"({to}){x.value}", dtype)
