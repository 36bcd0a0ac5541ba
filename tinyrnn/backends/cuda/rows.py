"""Row programs as CUDA C.

    a plain program         a thread for every entry: blocks tile rows and columns
    one that reduces        `blockDim.x` threads share a row; what they found is joined in a fixed order
    few long rows           the same in two kernels: parts of a row by many blocks, then the parts
    sums of columns         a block for 32 columns and a share of the rows, then the shares

Floats are added up in float64 and rounded once.  Orders depend on shapes alone, so that results are the same in every run.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..codegen import Number
from ..plan.fused import FusedKernel, Instruction, reduced_in, summed_in
from ..plan.views import Call
from ..staging import Staging
from .source import CudaDomain, Lines, c_memory, c_type

THREADS = 256
TOGETHER = 512               # the most threads that share a row
WARP = 32
COLUMNS, STRIPES = 32, 16   # a block of a column sum: columns, and threads that share each
PARTS = 128                 # the most parts that a long row, or the rows of a column sum, are cut into
LONG, FEW = 16_384, 64      # rows from this length on are cut where there are less than so many
MOST_LINES = 65_535         # of a grid's second extent


class Launch(NamedTuple):
    """A kernel by the end of its name, with its grid and block."""

    suffix: str
    grid: tuple[int, int]
    block: tuple[int, int]


def emit_rows(name: str, program: FusedKernel) -> str:
    """The kernels of one program."""
    lines = Lines()
    if program.columns:
        _Columns(lines, program).emit(name)
    elif program.reduces:
        _Reducing(lines, program).emit(name)
    else:
        _Plain(lines, program).emit(name)
    return str(lines)


def words_of(program: FusedKernel) -> int:
    """Addresses, sizes, the extent, the number of parts and scratch memory: how many words a call of this program has."""
    operands = len(program.accesses)
    outer = program.rank * sum(not program.of_column(k) for k in range(operands))
    sizes = program.rank if program.columns or program.rank else 0
    return operands + sizes + outer + sum(a == "s" for a in program.accesses) + 3


# ---- grids

def launches(call: Call) -> list[Launch]:
    """What a call launches; nothing where there is nothing to do."""
    program: FusedKernel = call.key[0]
    rows, inner = extents(call)
    if program.columns:
        return _column_launches(rows, inner)
    if not rows or not (inner or program.reduces):
        return []
    if not program.reduces:
        across = min(_power(inner), THREADS)
        down = THREADS // across
        return [Launch("", (-(-inner // across), _lines(rows, down)), (across, down))]
    parts = parts_of(call)
    if parts > 1:
        return [Launch("_parts", (parts, _lines(rows, 1)), (THREADS, 1)), Launch("_whole", (_lines(rows, WARP), 1), (WARP, 1))]
    across = min(_power(max(inner, 1)), TOGETHER if inner > 4 * THREADS else THREADS)
    down = max(1, min(THREADS // across, THREADS))
    return [Launch("", (1, _lines(rows, down)), (across, down))]


def _column_launches(rows: int, inner: int) -> list[Launch]:
    if not inner:
        return []
    parts, blocks = _shares(rows, inner), -(-inner // COLUMNS)
    first = Launch("", (blocks, parts), (COLUMNS, STRIPES))
    return [first, Launch("_whole", (-(-inner // THREADS), 1), (THREADS, 1))] if parts > 1 else [first]


def extents(call: Call) -> tuple[int, int]:
    """Rows and the length of each."""
    program: FusedKernel = call.key[0]
    if program.columns:
        return prod(call.sizes[: program.rank]), call.extent
    if not program.rank:
        return 1, call.extent
    return call.extent * prod(call.sizes[: program.rank - 1]), call.sizes[program.rank - 1]


def parts_of(call: Call) -> int:
    """How many parts each row of a reduction, or the rows of a column sum, are cut into."""
    program: FusedKernel = call.key[0]
    rows, inner = extents(call)
    if program.columns:
        return _shares(rows, inner)
    long = program.reduces and inner >= LONG and rows < FEW and _two_pass(program)
    return min(PARTS, inner // (LONG // 8)) if long else 1


def _shares(rows: int, inner: int) -> int:
    return max(1, min(PARTS, rows // (16 * STRIPES), 4 * PARTS // max(1, -(-inner // COLUMNS))))


def scratch_bytes(call: Call) -> int:
    """Memory for the parts of sums."""
    program: FusedKernel = call.key[0]
    rows, inner = extents(call)
    parts = parts_of(call)
    sums = inner * len(program.stores) if program.columns else rows * sum(s.reduces for s in program.steps)
    return 8 * parts * sums if parts > 1 else 0


def _two_pass(program: FusedKernel) -> bool:
    """Whether all reductions are found in one pass, and nothing along the row waits for them."""
    first = all(program.stages[len(program.loads) + i] == 0 for i, s in enumerate(program.steps) if s.reduces)
    return first and not any(stage for stage, s in zip(program.stored, program.stores, strict=True) if s.access != "r")


def _power(n: int) -> int:
    """The power of two that n fits in."""
    return 1 << max(n - 1, 0).bit_length()


def _lines(rows: int, down: int) -> int:
    return min(-(-rows // down), MOST_LINES)


# ---- code

class _Kernel(Staging):
    """What all kinds share: operands, whole numbers, values."""

    m: CudaDomain

    def __init__(self, lines: Lines, program: FusedKernel) -> None:
        super().__init__(CudaDomain(lines), program)
        self.w, self.words = lines, words_of(program)

    def head(self, name: str, threads: int) -> Any:
        """The kernel's first line; everything it is told, by name."""
        return self.w.block(f"TR_KERNEL({name}, {self.words}, {threads})")

    def read_words(self) -> None:
        p, at = self.program, len(self.accesses)
        for i, dtype in enumerate(self.dtypes):
            self.w(f"{c_memory(dtype)}* const p{i} = ({c_memory(dtype)}*)tr.w[{i}];")
        names = [f"n{k}" for k in range(0 if p.columns else 1, p.rank)]
        if not p.columns and p.rank:
            names.append("inner")
        for i, access in enumerate(self.accesses):
            names += [] if p.of_column(i) else [f"s{i}_{k}" for k in range(p.rank)]
            names += [f"s{i}"] if access == "s" else []
        names += ["inner" if p.columns or not p.rank else "n0", "parts"]
        for k, name in enumerate(names):
            self.w(f"const tr_i64 {name} = tr.w[{at + k}];")
        self.w(f"char* const scratch = (char*)tr.w[{self.words - 1}]; (void)scratch;")
        rows = " * ".join(f"n{k}" for k in range(p.rank)) or "1"
        self.w(f"const tr_i64 rows = {rows}; (void)rows; (void)inner; (void)parts;")

    def at_row(self, r: str) -> None:
        """Where every operand of a row begins."""
        rest = r
        for k in range(self.program.rank - 1, 0, -1):
            self.w(f"const tr_i64 i{k} = {rest} % n{k}, rest{k} = {rest} / n{k};")
            rest = f"rest{k}"
        if self.program.rank:
            self.w(f"const tr_i64 i0 = {rest};")
        for i, dtype in enumerate(self.dtypes):
            if not self.program.of_column(i):
                offset = "".join(f" + i{k} * s{i}_{k}" for k in range(self.program.rank))
                self.w(f"{c_memory(dtype)}* const q{i} = p{i}{offset};")

    def load(self, i: int, j: str) -> Number:
        dtype, access = self.dtypes[i], self.accesses[i]
        index = {"1": j, "0": "0", "r": "0", "s": f"{j} * s{i}"}[access]
        return self.m.named(f"q{i}[{index}]" + (" != 0" if dtype.kind == "b" else ""), dtype)

    def store(self, i: int, x: Number, j: str) -> None:
        k = self.loads + i
        index = {"1": j, "0": "0", "r": "0", "s": f"{j} * s{k}"}[self.accesses[k]]
        self.w(f"q{k}[{index}] = {self.m.cast(x, self.dtypes[k]).value};")

    def at_place(self, k: int, j: str, memo: dict[int, Number]) -> Number:
        """Value k at place j."""
        return self.value(k, memo, lambda i: self.load(i, j))

    def of_row(self) -> dict[int, Number]:
        """What is one number for the whole row and needs no reduction."""
        known = {i: self.load(i, "0") for i in range(self.loads) if self.accesses[i] in "0r"}
        self.row_steps(0, known)
        return known

    def stores_of_row(self, known: dict[int, Number], done: set[int], condition: str) -> None:
        """What is stored once a row, as soon as it is known."""
        for i, s in enumerate(self.program.stores):
            if s.access == "r" and s.value in known and i not in done:
                done.add(i)
                with self.w.block(f"if ({condition})"):
                    self.store(i, known[s.value], "0")


class _Plain(_Kernel):
    """A thread for every entry."""

    def emit(self, name: str) -> None:
        with self.head(name, THREADS):
            self.read_words()
            with self.w.block("for (tr_i64 r = TR_LINE; r < rows; r += TR_DOWN)"):
                self.at_row("r")
                known = self.of_row()
                self.stores_of_row(known, set(), "TR_X == 0")
                full = [i for i, s in enumerate(self.program.stores) if s.access != "r"]
                with self.w.block("for (tr_i64 j = TR_X; j < inner; j += TR_ACROSS)"):
                    memo = dict(known)
                    found = [(i, self.at_place(self.program.stores[i].value, "j", memo)) for i in full]
                    for i, x in found:
                        self.store(i, x, "j")


class _Reducing(_Kernel):
    """Threads that share a row: a pass over it for every generation of reductions."""

    def emit(self, name: str) -> None:
        with self.head(name, TOGETHER):
            self.read_words()
            # every thread takes part in every turn, so that all meet at shuffles and barriers; what is left over at the
            # end works on the last row once more and stores nothing
            with self.w.block("for (tr_i64 first = (tr_i64)blockIdx.y * blockDim.y; first < rows; first += TR_DOWN)"):
                self.w("const bool live = first + threadIdx.y < rows;")
                self.w("const tr_i64 r = live ? first + threadIdx.y : rows - 1;")
                self.at_row("r")
                known, done = self.of_row(), set[int]()
                for stage in range(max((*self.stages, *self.stored), default=0) + 1):
                    self.row_steps(stage, known)
                    self._pass(stage, known)
                    self.row_steps(stage + 1, known)
                    self.stores_of_row(known, done, "live && threadIdx.x == 0")
        if _two_pass(self.program):
            self._in_parts(name)

    def _pass(self, stage: int, known: dict[int, Number]) -> None:
        """One pass over j: what is stored at this stage, and the reductions that the next one reads."""
        sums = self._along(stage, known, "threadIdx.x", "blockDim.x")
        for k, name in sums.items():
            step = self.program.steps[k - self.loads]
            known[k] = self.m.cast(self._joined_by_all(step, name), np.dtype(step.dtype))

    def _along(self, stage: int, known: dict[int, Number], first: str, by: str, live: str = "live") -> dict[int, str]:
        """A thread's share of a pass; the variables that hold its parts of the reductions."""
        p, w = self.program, self.w
        full = self.full_stores(stage)
        parts: dict[int, str] = {}
        for k in self.reductions(stage):
            dtype = reduced_in(p.steps[k - self.loads])
            parts[k] = w.fresh("part")
            w(f"{c_type(dtype)} {parts[k]} = {self.m.neutral(p.steps[k - self.loads].op, dtype).value};")
        if not full and not parts:
            return parts
        with w.block(f"for (tr_i64 j = {first}; j < inner; j += {by})"):
            memo = dict(known)
            found = [(i, self.at_place(p.stores[i].value, "j", memo)) for i in full]
            for k, part in parts.items():
                step = p.steps[k - self.loads]
                x = self.m.cast(self.m.cast(self.at_place(step.sources[0], "j", memo), np.dtype(step.dtype)), reduced_in(step))
                w(f"{part} = {self.m.joined(step.op, Number(self.m, part, x.dtype), x).value};")
            if found:
                with w.block(f"if ({live})"):
                    for i, x in found:
                        self.store(i, x, "j")
        return parts

    def _joined_by_all(self, step: Instruction, part: str) -> Number:
        """The parts of the threads of a row, made one that all of them know: neighbours first, then warps in order."""
        w, dtype = self.w, reduced_in(step)
        mine, wide = Number(self.m, part, dtype), "int" if dtype.itemsize < 4 else c_type(dtype)
        width = f"(int)(blockDim.x < {WARP} ? blockDim.x : {WARP})"
        with w.block(f"for (int d = {width} / 2; d > 0; d /= 2)"):
            other = self.m.named(f"({c_type(dtype)})tr_shuffle(({wide}){part}, d)", dtype)
            w(f"{part} = {self.m.joined(step.op, mine, other).value};")
        shared = w.fresh("shared")
        w(f"TR_SHARED({c_memory(dtype)}, {shared}, {WARP});")
        with w.block(f"if (blockDim.x > {WARP})"):
            w(f"{c_memory(dtype)}* const row = {shared} + threadIdx.y * (blockDim.x / {WARP});")
            w(f"if (threadIdx.x % {WARP} == 0) row[threadIdx.x / {WARP}] = {part};")
            w("TR_BARRIER();")
            w(f"{part} = row[0];")
            with w.block(f"for (unsigned k = 1; k < blockDim.x / {WARP}; k++)"):
                other = self.m.named("row[k]", dtype)
                w(f"{part} = {self.m.joined(step.op, mine, other).value};")
            w("TR_BARRIER();")
        return self.m.named(part, dtype)

    # ---- few long rows

    def _in_parts(self, name: str) -> None:
        """Parts of rows into scratch memory [reduction, row, part], then each row from its parts."""
        reductions = self.reductions(0)
        with self.head(f"{name}_parts", THREADS):
            self.read_words()
            with self.w.block("for (tr_i64 r = blockIdx.y; r < rows; r += gridDim.y)"):
                self.at_row("r")
                known = self.of_row()
                parts = self._along(0, known, "TR_X", "TR_ACROSS", "true")
                for i, k in enumerate(reductions):
                    total = self._joined_by_all(self.program.steps[k - self.loads], parts[k])
                    self.w(f"if (threadIdx.x == 0) {self._slot(i, k, 'blockIdx.x', 'gridDim.x')} = {total.value};")
        with self.head(f"{name}_whole", THREADS):
            self.read_words()
            with self.w.block("for (tr_i64 r = TR_X; r < rows; r += TR_ACROSS)"):
                self.at_row("r")
                known = self.of_row()
                for i, k in enumerate(reductions):
                    known[k] = self._from_parts(i, k)
                self.row_steps(1, known)
                self.stores_of_row(known, set(), "true")

    def _slot(self, i: int, k: int, part: str, parts: str) -> str:
        dtype = reduced_in(self.program.steps[k - self.loads])
        return f"(({c_memory(dtype)}*)scratch)[(({i} * rows + r) * {parts} + {part}) * {8 // dtype.itemsize}]"

    def _from_parts(self, i: int, k: int) -> Number:
        step = self.program.steps[k - self.loads]
        dtype, total = reduced_in(step), self.w.fresh("total")
        self.w(f"{c_type(dtype)} {total} = {self.m.neutral(step.op, dtype).value};")
        with self.w.block("for (tr_i64 k = 0; k < parts; k++)"):
            part = self.m.named(self._slot(i, k, "k", "parts"), dtype)
            self.w(f"{total} = {self.m.joined(step.op, Number(self.m, total, dtype), part).value};")
        return self.m.cast(self.m.named(total, dtype), np.dtype(step.dtype))


class _Columns(_Kernel):
    """Sums over all rows: a block adds up a share of the rows for some columns."""

    def emit(self, name: str) -> None:
        with self.head(name, COLUMNS * STRIPES):
            self.read_words()
            sums = self._sums()
            with self.w.block("for (tr_i64 r = TR_LINE; r < rows; r += TR_DOWN)"), self.w.block("if (j < inner)"):
                self.at_row("r")
                memo: dict[int, Number] = {}
                for i, s in enumerate(self.program.stores):
                    x = self.m.cast(self.m.cast(self.at_place(s.value, "j", memo), self.dtypes[self.loads + i]), self._kind(i))
                    self.w(f"{sums[i]} = {(self._number(i, sums[i]) + x).value};")
            for i, total in enumerate(sums):
                self._stripes(i, total)
        with self.head(f"{name}_whole", THREADS):
            self.read_words()
            with self.w.block("for (tr_i64 j = TR_X; j < inner; j += TR_ACROSS)"):
                for i, total in enumerate(self._sums(place=False)):
                    with self.w.block("for (tr_i64 k = 0; k < parts; k++)"):
                        part = self.m.named(self._slot(i, "k", "parts"), self._kind(i))
                        self.w(f"{total} = {(self._number(i, total) + part).value};")
                    self.w(f"p{self.loads + i}[j] = {self._rounded(i, total)};")

    def _kind(self, i: int) -> np.dtype[Any]:
        """The dtype in which a sum is on its way."""
        return summed_in(self.dtypes[self.loads + i])

    def _number(self, i: int, name: str) -> Number:
        return Number(self.m, name, self._kind(i))

    def _rounded(self, i: int, name: str) -> str:
        x, start = self._number(i, name), self.program.stores[i].start
        if start is not None:
            x = self.m.cast(self.m.named(f"p{start}[j]", self.dtypes[start]), self._kind(i)) + x
        return str(self.m.cast(x, self.dtypes[self.loads + i]).value)

    def _sums(self, place: bool = True) -> list[str]:
        """A variable for every sum."""
        if place:
            self.w("const tr_i64 j = TR_X;")
        names = [self.w.fresh("sum") for _ in self.program.stores]
        for i, name in enumerate(names):
            self.w(f"{c_type(self._kind(i))} {name} = 0;")
        return names

    def _stripes(self, i: int, total: str) -> None:
        """The sums of the threads that share a column, in order."""
        w, dtype = self.w, self._kind(i)
        shared = w.fresh("shared")
        w(f"TR_SHARED({c_type(dtype)}, {shared}, {COLUMNS * STRIPES});")
        w(f"{shared}[threadIdx.y * {COLUMNS} + threadIdx.x] = {total};")
        w("TR_BARRIER();")
        with w.block("if (threadIdx.y == 0 && j < inner)"):
            with w.block(f"for (int k = 1; k < {STRIPES}; k++)"):
                other = self.m.named(f"{shared}[k * {COLUMNS} + threadIdx.x]", dtype)
                w(f"{total} = {(self._number(i, total) + other).value};")
            w(f"if (gridDim.y == 1) p{self.loads + i}[j] = {self._rounded(i, total)};")
            w(f"else {self._slot(i, 'blockIdx.y', 'gridDim.y')} = {total};")
        w("TR_BARRIER();")

    def _slot(self, i: int, part: str, parts: str) -> str:
        dtype = self._kind(i)
        return f"(({c_type(dtype)}*)scratch)[(({i} * {parts} + {part}) * inner + j) * {8 // dtype.itemsize}]"
