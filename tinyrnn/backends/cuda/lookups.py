"""Kernels that look up by whole numbers or go along an axis one entry after the other, as CUDA C."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...ir.node import DType
from ..codegen import Number
from ..plan.fused import summed_in
from ..plan.views import Call
from .rows import THREADS, Launch
from .source import CudaDomain, Lines, c_memory, c_type

UINT32 = np.dtype(np.uint32)
TILE = 256          # whole numbers that the threads of a block compare with at a time
SEARCHERS = 512     # threads that check indices


class _Kernel:
    """The head of a kernel: operands by name, then whole numbers by name, then the extent n and scratch memory."""

    def __init__(self, operands: dict[str, str], sizes: str) -> None:
        self.operands, self.names = operands, [*sizes.split(), "n"]
        self.words = len(operands) + len(self.names) + 1
        self.lines = Lines()

    def write(self, name: str, threads: int, body: str) -> str:
        w = self.lines
        with w.block(f"TR_KERNEL({name}, {self.words}, {threads})"):
            for i, (operand, kind) in enumerate(self.operands.items()):
                w(f"{kind}* const {operand} = ({kind}*)tr.w[{i}];")
            for i, size in enumerate(self.names, len(self.operands)):
                w(f"const tr_i64 {size} = tr.w[{i}]; (void){size};")
            w(f"int* const scratch = (int*)tr.w[{self.words - 1}]; (void)scratch;")
            for line in body.strip("\n").splitlines():
                w(line)
        return str(w)


def _for(count: str, name: str = "i") -> str:
    return f"for (tr_i64 {name} = TR_X; {name} < {count}; {name} += TR_ACROSS)"


def _check(name: str, index: DType) -> str:
    """The first index outside 0..size-1 leaves (1, index, size) in the note, if there is no note yet."""
    return _Kernel({"at": c_memory(index), "note": "tr_i64"}, "size").write(name, SEARCHERS, f"""
tr_i64 worst = n;
for (tr_i64 i = threadIdx.x; i < n && worst == n; i += blockDim.x) {{
    const tr_i64 k = (tr_i64)at[i];
    if (k < 0 || k >= size) worst = i;
}}
TR_SHARED(tr_i64, first, {SEARCHERS});
first[threadIdx.x] = worst;
TR_BARRIER();
if (threadIdx.x == 0) {{
    for (unsigned k = 1; k < blockDim.x; k++) worst = first[k] < worst ? first[k] : worst;
    if (worst < n && note[0] == 0) {{ note[1] = (tr_i64)at[worst]; note[2] = size; note[0] = 1; }}
}}""")


def _gather(name: str, itemsize: int, index: DType) -> str:
    """`y[i] = table[index[i]]`"""
    kind = c_type(np.dtype(f"u{itemsize}"))
    return _Kernel({"table": kind, "at": c_memory(index), "y": kind}, "width size").write(name, THREADS, f"""
for (tr_i64 i = TR_LINE; i < n; i += TR_DOWN) {{
    const {kind}* const row = table + tr_within((tr_i64)at[i], size) * width;
    {_for('width', 'j')} y[i * width + j] = row[j];
}}""")


def _scatter(name: str, dtype: DType, index: DType, to: DType, wide: DType | None = None) -> str:
    """`y[index[i]] += x[i]`, in the order of i: a stable sort by counting what comes before, then a sum for every run.

    Counting takes count² / TILE steps of a block; up to a hundred thousand indices that is less than a millisecond.
    """
    operands = {"x": c_memory(dtype), "at": c_memory(index), "y": c_memory(to), **({"room": c_memory(wide)} if wide else {})}
    order = _Kernel(operands, "width size count").write(
        f"{name}_order", TILE, f"""
TR_SHARED(tr_i64, others, {TILE});
for (tr_i64 first = (tr_i64)blockIdx.x * blockDim.x; first < count; first += TR_ACROSS) {{
    const tr_i64 i = first + threadIdx.x;
    const tr_i64 mine = i < count ? tr_within((tr_i64)at[i], size) : 0;
    tr_i64 place = 0;
    for (tr_i64 tile = 0; tile < count; tile += {TILE}) {{
        TR_BARRIER();
        if (tile + threadIdx.x < count) others[threadIdx.x] = tr_within((tr_i64)at[tile + threadIdx.x], size);
        TR_BARRIER();
        const tr_i64 here = count - tile < {TILE} ? count - tile : {TILE};
        for (tr_i64 k = 0; k < here; k++) place += others[k] < mine || (others[k] == mine && tile + k < i);
    }}
    if (i < count) scratch[place] = (int)i;
}}""")
    add = _Kernel(operands, "width size count").write(
        f"{name}_add", THREADS, f"""
for (tr_i64 p = TR_LINE; p < count; p += TR_DOWN) {{
    const tr_i64 row = tr_within((tr_i64)at[scratch[p]], size);
    if (p > 0 && tr_within((tr_i64)at[scratch[p - 1]], size) == row) continue;
    {_for('width', 'j')} {{
        {c_type(summed_in(to))} total = y[row * width + j];
        for (tr_i64 q = p; q < count && tr_within((tr_i64)at[scratch[q]], size) == row; q++) total += x[scratch[q] * width + j];
        y[row * width + j] = ({c_type(to)})total;
    }}
}}""")
    return order + add


def _pick(name: str, itemsize: int, index: DType) -> str:
    """`y[i] = x[i, index[i]]`"""
    kind = c_type(np.dtype(f"u{itemsize}"))
    return _Kernel({"x": kind, "at": c_memory(index), "y": kind}, "classes").write(
        name, THREADS, f"{_for('n')} y[i] = x[i * classes + tr_within((tr_i64)at[i], classes)];")


def _one_hot(name: str, dtype: DType, index: DType) -> str:
    """`y[i, index[i]] = 1` in zeros; nothing for an index outside."""
    return _Kernel({"at": c_memory(index), "y": c_memory(dtype)}, "classes").write(name, THREADS, f"""
{_for('n')} {{
    const tr_i64 k = (tr_i64)at[i];
    if (k >= 0 && k < classes) y[i * classes + k] = 1;
}}""")


_LINE = """
for (tr_i64 line = TR_X; line < n * inner; line += TR_ACROSS) {{
    const tr_i64 first = line / inner * length * inner + line % inner;
    {body}
}}"""


def _argmax(name: str, dtype: DType) -> str:
    """The index of the first largest entry; the first NaN counts as largest."""
    kind = c_memory(dtype)
    better = "v > best" if dtype.kind != "f" else "best == best && (v > best || v != v)"
    body = (f"{kind} best = x[first]; tr_i64 where = 0;\n"
            f"    for (tr_i64 k = 1; k < length; k++) {{ const {kind} v = x[first + k * inner]; "
            f"if ({better}) {{ best = v; where = k; }} }}\n"
            "    y[line] = where;")
    return _Kernel({"x": kind, "y": "tr_i64"}, "length inner").write(name, THREADS, _LINE.format(body=body))


def _cumsum(name: str, dtype: DType, to: DType) -> str:
    """Running sums along an axis, first to last."""
    kernel = _Kernel({"x": c_memory(dtype), "y": c_memory(to)}, "length inner")
    wide = c_type(summed_in(to))
    body = (f"{wide} total = 0;\n"
            f"    for (tr_i64 k = 0; k < length; k++) {{ total += ({c_type(to)})x[first + k * inner]; "
            f"y[first + k * inner] = ({c_type(to)})total; }}")
    return kernel.write(name, THREADS, _LINE.format(body=body))


def _random(name: str) -> str:
    """Threefry-2x32 on the position of every entry."""
    kernel = _Kernel({"key": "unsigned", "site": "unsigned", "y": "unsigned", "start": "unsigned"}, "")
    m = CudaDomain(Lines())
    key = [Number(m, f"key[{i}]", UINT32) for i in range(2)]
    bits = m.random_bits(key, Number(m, "(unsigned)i", UINT32), Number(m, "site[0]", UINT32))
    body = "\n".join([f"{_for('n')} {{", *(f"    {line}" for line in m.lines.text), f"    y[i] = {bits.value};", "}"])
    return kernel.write(name, THREADS, body)


def _commit(name: str, itemsize: int) -> str:
    """New data for a leaf, unless a note says that something went wrong."""
    kind = c_type(np.dtype(f"u{itemsize}"))
    return _Kernel({"fresh": kind, "note": "tr_i64", "old": kind}, "").write(
        name, THREADS, f"if (note[0] != 0) return;\n{_for('n')} old[i] = fresh[i];")



EMITTERS: dict[str, Callable[..., str]] = {
    "check": _check, "gather": _gather, "scatter": _scatter, "pick": _pick, "one_hot": _one_hot, "argmax": _argmax,
    "cumsum": _cumsum, "random": _random, "commit": _commit}


# ---- grids

def launches(call: Call) -> list[Launch]:
    """What a call launches; nothing where there is nothing to do."""
    if call.family == "check":
        return [Launch("", (1, 1), (SEARCHERS, 1))] if call.extent else []
    if call.family == "gather":
        return _tiled("", call.extent, call.sizes[0])
    if call.family == "scatter":
        width, _, count = call.sizes
        return [*_spread("_order", count, TILE), *_tiled("_add", count, width)] if width else []
    if call.family in ("argmax", "cumsum"):
        return _spread("", call.extent * call.sizes[1]) if call.sizes[0] else []
    return _spread("", call.extent)


def _spread(suffix: str, count: int, threads: int = THREADS) -> list[Launch]:
    """A thread for every entry."""
    return [Launch(suffix, (min(-(-count // threads), 1 << 20), 1), (threads, 1))] if count else []


def _tiled(suffix: str, rows: int, width: int) -> list[Launch]:
    """Threads along and across rows."""
    if not rows or not width:
        return []
    across = min(1 << max(width - 1, 0).bit_length(), THREADS)
    down = THREADS // across
    return [Launch(suffix, (-(-width // across), min(-(-rows // down), 65_535)), (across, down))]


def scratch_bytes(call: Call) -> int:
    """Memory for the order of sorted indices."""
    return 4 * call.sizes[2] if call.family == "scatter" else 0
