"""Matrix products: packed panels, register tiles, and the kernels built from them.

A tile computes `C[rows, vectors] (+)= A[rows, K] @ panel[K, vectors]` with all of C in registers over the loop in k.
Panels hold K blocks of `DEPTH` rows: one block stays in the second-level cache while all row tiles pass.  An entry of C
is the sum over a block in ascending k, block after block, whichever tile or thread computes it: results do not depend
on how rows are shared out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from ...ir.node import DType
from ..codegen import BOOL
from ..plan.kernels import TALL_COLUMNS, TALL_ROWS, TILE_ROWS
from ..plan.memory import ALIGNMENT
from .codegen import I32, I64, POINTER, Lanes, LlvmDomain, memory_type
from .emit import Emit, Value
from .engine import Target

DEPTH = 256
CHUNK = 96  # rows of the left operand that stay in the second-level cache
SIDE = 2         # panels that one row is multiplied by side by side
NEAR = 32768     # bytes that the first-level cache holds beside what else is needed
PAIR = ir.FunctionType(ir.VoidType(), [POINTER] * 3 + [I64] * 3)
TILE = ir.FunctionType(ir.VoidType(), [POINTER] * 3 + [I64] * 8)


class Shape(NamedTuple):
    """The register tile of a target: rows, vectors, and numbers in a vector."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        return self.vectors * self.lanes


def tile_shape(target: Target, dtype: DType) -> Shape:
    return Shape(TILE_ROWS, 4 if target.registers == 32 else 2, target.vector_bytes // dtype.itemsize)


class Tiles:
    """The tile functions of one dtype; those of a module are declared once."""

    def __init__(self, module: ir.Module, target: Target, dtype: DType) -> None:
        self.module, self.dtype, self.shape = module, dtype, tile_shape(target, dtype)
        self.kind = memory_type(dtype)
        self.prefix = f"tile_{dtype.str[1:]}_"

    def table(self) -> Any:
        """A table of all tiles: entry `(rows - 1) * vectors + vectors - 1`."""
        name = f"{self.prefix}table"
        found = self.module.globals.get(name)
        if found is not None:
            return found
        functions = [self._tile(r, v) for r in range(1, self.shape.rows + 1) for v in range(1, self.shape.vectors + 1)]
        table = ir.GlobalVariable(self.module, ir.ArrayType(POINTER, len(functions)), name)
        table.global_constant, table.linkage = True, "internal"
        table.initializer = ir.Constant(table.value_type, [f.bitcast(POINTER) for f in functions])
        return table

    def _tile(self, rows: int, vectors: int) -> Any:
        """`count` tiles below each other: C[r, v] (+)= Σ_k A[r, k] P[k, v]; `width` columns of C exist."""
        e = Emit(self.module, f"{self.prefix}{rows}_{vectors}", TILE, internal=True)
        m = LlvmDomain(e.b, self.shape.lanes)
        a, panel, c, next_a, row_a, step_a, row_c, depth, width, count, add = e.function.args
        last = e.mask(m, e.sub(width, (vectors - 1) * self.shape.lanes))
        masks = [None] * (vectors - 1) + [last]
        adds = m.splat(e.is_(add, "!=", 0), BOOL).value
        before = [adds] * (vectors - 1) + [e.b.and_(adds, last)]  # of what is there already; off for the first K block

        def tile(t: Value) -> None:
            first = e.mul(t, rows)
            a0, c0 = e.at(a, e.mul(t, next_a), self.kind), e.at(c, e.mul(first, row_c), self.kind)
            for r in range(rows):
                for v in range(vectors):
                    e.prefetch(e.at(c0, e.add(e.mul(row_c, r), v * self.shape.lanes), self.kind))
            sums = self._accumulate(e, m, (a0, panel, row_a, step_a, depth), rows, vectors)
            self._write(e, m, sums, c0, row_c, vectors, masks, before)

        e.loop(0, count, 1, tile)
        e.b.ret_void()
        return e.function

    def pair(self) -> Any:
        """One row times panels side by side: a sum waits for the one before, so there are to be many.

        `f(a, panel, c, step_a, depth, add)`
        """
        name, panels = f"{self.prefix}pair", SIDE
        found = self.module.globals.get(name)
        if found is not None:
            return found
        e = Emit(self.module, name, PAIR, internal=True)
        m, shape = LlvmDomain(e.b, self.shape.lanes), self.shape
        a, panel, c, step_a, depth, add = e.function.args
        starts = [e.at(panel, e.mul(depth, shape.width * i), self.kind) for i in range(panels)]
        count = panels * shape.vectors

        def advance(_: Value, state: list[Any]) -> list[Any]:
            left, ps, acc = state[0], state[1 : 1 + panels], state[1 + panels :]
            x = m.splat(e.read(left, self.kind), self.dtype)
            rights = [e.load(m, e.at(p, v * shape.lanes, self.kind), self.dtype) for p in ps for v in range(shape.vectors)]
            new = [m.fma(x, right, Lanes(m, s, self.dtype)).value for right, s in zip(rights, acc, strict=True)]
            return [e.at(left, step_a, self.kind), *(e.at(p, shape.width, self.kind) for p in ps), *new]

        sums = e.carry(0, depth, 1, [a, *starts, *[m.constant(0, self.dtype).value] * count], advance)[1 + panels :]
        self._write(e, m, sums, c, e.whole(0), count, [None] * count, [m.splat(e.is_(add, "!=", 0), BOOL).value] * count)
        e.b.ret_void()
        return e.function

    def _accumulate(self, e: Emit, m: LlvmDomain, given: Value, rows: int, vectors: int) -> list[Any]:
        a, panel, row_a, step_a, depth = given
        # one pointer for every three rows: the row stride is the index register that reaches all three
        pointers = [e.at(a, e.mul(row_a, r), self.kind) for r in range(0, rows, 3)]
        zero = m.constant(0, self.dtype).value

        def advance(_: Value, state: list[Any]) -> list[Any]:
            p, ps, acc = state[0], state[1 : 1 + len(pointers)], state[1 + len(pointers) :]
            right = [e.load(m, e.at(p, v * self.shape.lanes, self.kind), self.dtype) for v in range(vectors)]
            new = []
            for r in range(rows):
                x = m.splat(e.read(e.at(ps[r // 3], e.mul(row_a, r % 3), self.kind), self.kind), self.dtype)
                new += [m.fma(x, right[v], Lanes(m, acc[r * vectors + v], self.dtype)).value for v in range(vectors)]
            return [e.at(p, vectors * self.shape.lanes, self.kind), *(e.at(q, step_a, self.kind) for q in ps), *new]

        state = e.carry(0, depth, 1, [panel, *pointers, *[zero] * (rows * vectors)], advance)
        return state[1 + len(pointers) :]

    def _write(self, e: Emit, m: LlvmDomain, sums: list[Any], c: Value, row_c: Value, vectors: int, masks: list[Any],
               before: list[Any]) -> None:
        for i, value in enumerate(sums):
            r, v = divmod(i, vectors)
            at = e.at(c, e.add(e.mul(row_c, r), v * self.shape.lanes), self.kind)
            x = Lanes(m, value, self.dtype)
            e.store(m, x + e.load(m, at, self.dtype, before[v]), at, masks[v])

    def call(self, e: Emit, rows: Value, vectors: Value, arguments: list[Any]) -> None:
        """One of the tiles, chosen at run time."""
        index = e.add(e.mul(e.sub(rows, 1), self.shape.vectors), e.sub(vectors, 1))
        table = self.table()
        at = e.b.gep(table, [e.whole(0), index], source_etype=table.value_type)
        e.b.call(e.b.load(at, typ=TILE.as_pointer()), arguments)


def emit_pack(module: ir.Module, name: str, target: Target, dtype: DType) -> None:
    """Panels of `B[n rows, columns]`: K block by K block, panel by panel, row by row; zeros fill the last vector."""
    e = Emit(module, name)
    pointers, sizes, rows, _ = e.function.args
    _emit_pack_body(e, target, dtype, e.entry(pointers, 0, POINTER), e.entry(pointers, 1, POINTER), rows,
                    e.entry(sizes, 0), e.entry(sizes, 1), e.entry(sizes, 2))
    e.b.ret_void()


def _emit_pack_body(e: Emit, target: Target, dtype: DType, b: Value, panels: Value, rows: Value, columns: Value, by_row: Value,
                    by_column: Value) -> None:
    shape, kind = tile_shape(target, dtype), memory_type(dtype)
    m = LlvmDomain(e.b, shape.lanes)
    padded = e.up(columns, shape.lanes)

    def block(k0: Value) -> None:
        depth = e.least(e.sub(rows, k0), DEPTH)

        def panel(n0: Value) -> None:
            width = e.least(e.sub(padded, n0), shape.width)
            p = e.at(panels, e.add(e.mul(k0, padded), e.mul(n0, depth)), kind)
            s = e.at(b, e.add(e.mul(k0, by_row), e.mul(n0, by_column)), kind)
            with e.b.if_else(e.is_(by_column, "==", 1)) as (side_by_side, strided):
                with side_by_side:
                    _copy_rows(e, m, dtype, s, p, by_row, depth, width, e.sub(columns, n0))
                with strided:
                    _copy_columns(e, m, dtype, s, p, by_row, by_column, depth, width, e.sub(columns, n0))

        e.loop(0, columns, shape.width, panel)

    e.loop(0, rows, DEPTH, block)


def _copy_rows(e: Emit, m: LlvmDomain, dtype: DType, s: Value, p: Value, by_row: Value, depth: Value, width: Value,
               there: Value) -> None:
    kind = memory_type(dtype)

    def vector(j: Value) -> None:
        mask = e.mask(m, e.sub(there, j))
        e.loop(0, depth, 1, lambda k: e.store(
            m, e.load(m, e.at(s, e.add(e.mul(k, by_row), j), kind), dtype, mask),
            e.at(p, e.add(e.mul(k, width), j), kind)))

    e.loop(0, width, m.lanes, vector)


def _copy_columns(e: Emit, m: LlvmDomain, dtype: DType, s: Value, p: Value, by_row: Value, by_column: Value, depth: Value,
                  width: Value, there: Value) -> None:
    """The same for a transposed matrix, whose columns lie in memory like rows: squares are turned in registers."""
    kind, side = memory_type(dtype), m.lanes
    full = e.least(there, width)
    squares = e.choose(e.is_(by_row, "==", 1), e.mul(e.div(full, side), side), 0)
    down = e.mul(e.div(depth, side), side)

    def one(k: Value, j: Value) -> None:
        e.write(e.read(e.at(s, e.add(e.mul(k, by_row), e.mul(j, by_column)), kind), kind),
                e.at(p, e.add(e.mul(k, width), j), kind))

    def square(k: Value, j: Value) -> None:
        rows = [e.load(m, e.at(s, e.add(k, e.mul(e.add(j, i), by_column)), kind), dtype).value for i in range(side)]
        for i, row in enumerate(_turned(e, rows)):
            e.store(m, Lanes(m, row, dtype), e.at(p, e.add(e.mul(e.add(k, i), width), j), kind))

    e.loop(0, squares, side, lambda j: e.loop(0, down, side, lambda k: square(k, j)))
    e.loop(0, squares, 1, lambda j: e.loop(down, depth, 1, lambda k: one(k, j)))
    e.loop(squares, full, 1, lambda j: e.loop(0, depth, 1, lambda k: one(k, j)))
    zero = ir.Constant(kind, 0)
    e.loop(full, width, 1, lambda j: e.loop(0, depth, 1, lambda k: e.write(zero, e.at(p, e.add(e.mul(k, width), j), kind))))


def _turned(e: Emit, rows: list[Any]) -> list[Any]:
    """The transpose of a square of vectors: blocks of 1, 2, 4, ... trade places."""
    side, rows = len(rows), list(rows)
    distance = 1
    while distance < side:
        low = ir.Constant(ir.VectorType(I32, side), [i if not i & distance else side + i - distance for i in range(side)])
        high = ir.Constant(ir.VectorType(I32, side), [side + i if i & distance else i + distance for i in range(side)])
        for i in range(side):
            if not i & distance:
                a, b = rows[i], rows[i | distance]
                rows[i], rows[i | distance] = e.b.shuffle_vector(a, b, low), e.b.shuffle_vector(a, b, high)
        distance *= 2
    return rows


def emit_product(module: ir.Module, name: str, target: Target, dtype: DType) -> None:
    """`C[n, columns] = A[n, inner] @ panels`, some rows at a time, so that what is read of A stays in the cache while
    the panels pass; rows are shared out evenly over tiles (16 are 6 + 5 + 5)."""
    e = Emit(module, name)
    pointers, sizes, n, _ = e.function.args
    a, panels, c = (e.entry(pointers, i, POINTER) for i in range(3))
    columns, inner, row_a, step_a, row_c = (e.entry(sizes, i) for i in range(5))
    tiles = Tiles(module, target, dtype)
    most = tiles.shape.rows

    def chunk(m0: Value) -> None:
        count = e.least(e.sub(n, m0), CHUNK)
        groups = e.div(e.add(count, most - 1), most)
        few, more = e.div(count, groups), e.rem(count, groups)

        def rows(k0: Value, n0: Value, panel: Value, depth: Value, width: Value, vectors: Value) -> None:
            def run(first: Value, each: Value, number: Value) -> None:
                row = e.add(m0, first)
                at_a = e.at(a, e.add(e.mul(row, row_a), e.mul(k0, step_a)), tiles.kind)
                at_c = e.at(c, e.add(e.mul(row, row_c), n0), tiles.kind)
                e.when(e.is_(number, ">", 0), lambda: tiles.call(e, each, vectors, [
                    at_a, panel, at_c, e.mul(each, row_a), row_a, step_a, row_c, depth, width, number, k0]))

            run(e.whole(0), e.add(few, 1), more)
            run(e.mul(more, e.add(few, 1)), few, e.sub(groups, more))

        _blocks(e, tiles.shape, panels, tiles.kind, columns, inner, rows)

    e.loop(0, n, CHUNK, chunk)
    e.b.ret_void()


def emit_matvec(module: ir.Module, name: str, target: Target, dtype: DType) -> None:
    """`C[rows, n] = A[rows, inner] @ panels` for the n columns from that to which the third operand points: few rows.

    Such a product reads the matrix once and does little else.  In every other turn of a loop it goes through the panels the
    other way round, so that it begins with those which the caches still hold.
    """
    e = Emit(module, name)
    pointers, sizes, n, _ = e.function.args
    a, panels, c, start = (e.entry(pointers, i, POINTER) for i in range(4))
    odd = e.is_(e.b.and_(e.entry(pointers, 4), e.whole(1)), "==", 1)  # behind the operands stands the turn
    count, columns, inner, row_a, step_a, row_c = (e.entry(sizes, i) for i in range(6))
    tiles = Tiles(module, target, dtype)
    shape, kind = tiles.shape, tiles.kind
    first = e.div(e.b.sub(e.b.ptrtoint(c, I64), e.b.ptrtoint(start, I64)), dtype.itemsize)
    padded = e.up(columns, shape.lanes)

    def blocks(n0: Value, body: Callable[[Any, Any, Any, Any], None]) -> None:
        """`body(k0, depth, left, right)` for every K block of the panels from a column on."""
        def block(k0: Value) -> None:
            depth = e.least(e.sub(inner, k0), DEPTH)
            right = e.at(panels, e.add(e.mul(k0, padded), e.mul(e.add(first, n0), depth)), kind)
            body(k0, depth, e.at(a, e.mul(k0, step_a), kind), right)

        e.loop(0, inner, DEPTH, block)

    def there_and_back(low: Value, width: int, groups: Value, body: Callable[[Any], None]) -> Any:
        """Groups of columns in an order that turns round; the column behind the last of them."""
        def group(i: Value) -> None:
            at = e.b.select(odd, e.sub(e.sub(groups, 1), i), i)
            body(e.add(low, e.mul(at, width)))

        e.loop(0, groups, 1, group)
        return e.add(low, e.mul(groups, width))

    def pair(n0: Value) -> None:
        blocks(n0, lambda k0, depth, left, right: e.b.call(tiles.pair(), [left, right, e.at(c, n0, kind), step_a, depth, k0]))

    def panel(n0: Value) -> None:
        width = e.least(e.sub(columns, e.add(first, n0)), shape.width)
        vectors = e.div(e.add(width, shape.lanes - 1), shape.lanes)
        blocks(n0, lambda k0, depth, left, right: tiles.call(e, count, vectors, [
            left, right, e.at(c, n0, kind), e.whole(0), row_a, step_a, row_c, depth, width, e.whole(1), k0]))

    both = SIDE * shape.width  # two panels, where the cache keeps them for the next turn
    near = e.b.and_(e.is_(count, "==", 1), e.is_(inner, "<=", NEAR // (both * dtype.itemsize)))
    done = there_and_back(e.whole(0), both, e.choose(near, e.div(n, both), 0), pair)
    there_and_back(done, shape.width, e.div(e.add(e.sub(n, done), shape.width - 1), shape.width), panel)
    e.b.ret_void()


def _blocks(e: Emit, shape: Shape, panels: Value, kind: ir.Type, columns: Value, inner: Value,
            rows: Callable[[Any, Any, Any, Any, Any, Any], None]) -> None:
    """`rows(k0, n0, panel, depth, width, vectors)` for every K block and panel."""
    padded = e.up(columns, shape.lanes)

    def block(k0: Value) -> None:
        depth = e.least(e.sub(inner, k0), DEPTH)

        def panel(n0: Value) -> None:
            width = e.least(e.sub(columns, n0), shape.width)
            vectors = e.div(e.add(width, shape.lanes - 1), shape.lanes)
            at = e.at(panels, e.add(e.mul(k0, padded), e.mul(n0, depth)), kind)
            rows(k0, n0, at, depth, width, vectors)

        e.loop(0, columns, shape.width, panel)

    e.loop(0, inner, DEPTH, block)


def emit_tall(module: ir.Module, name: str, target: Target, dtype: DType) -> None:
    """`C[n, columns] (+)= Aᵀ[n, inner] @ B[inner, columns]` where inner is long: blocks of both are packed into scratch, the
    last block first unless `forward`.

    The rows of C are shared out over threads; each packs the blocks of B for itself.
    """
    e = Emit(module, name)
    pointers, sizes, n, scratch = e.function.args
    a, b, c = (e.entry(pointers, i, POINTER) for i in range(3))
    columns, inner, step_a, row_b, row_c, forward, begun = (e.entry(sizes, i) for i in range(7))
    tiles = Tiles(module, target, dtype)
    kind, shape = tiles.kind, tiles.shape
    padded = e.up(columns, shape.lanes)
    packed_a = e.at(scratch, e.mul(padded, TALL_ROWS), kind)
    last = e.sub(e.div(e.add(inner, TALL_ROWS - 1), TALL_ROWS), 1)

    def block(turn: Value) -> None:
        k0 = e.mul(e.b.select(e.is_(forward, "!=", 0), turn, e.sub(last, turn)), TALL_ROWS)
        adds = e.add(turn, begun)
        depth = e.least(e.sub(inner, k0), TALL_ROWS)
        _emit_pack_body(e, target, dtype, e.at(b, e.mul(k0, row_b), kind), scratch, depth, columns, row_b, e.whole(1))

        def part(m0: Value) -> None:
            count = e.least(e.sub(n, m0), TALL_COLUMNS)
            slot = e.add(e.mul(depth, shape.rows), ALIGNMENT // dtype.itemsize)
            _pack_left(e, kind, e.at(a, e.add(m0, e.mul(k0, step_a)), kind), packed_a, step_a, depth, count, shape.rows,
                       slot)

            def rows(_: Value, n0: Value, panel: Value, depth: Value, width: Value, vectors: Value) -> None:
                full, rest = e.div(count, shape.rows), e.rem(count, shape.rows)
                at_c = e.at(c, e.add(e.mul(m0, row_c), n0), kind)

                def run(each: Value, number: Value, first: Value) -> None:
                    to = e.at(at_c, e.mul(first, shape.rows, row_c), kind)
                    e.when(e.b.and_(e.is_(each, ">", 0), e.is_(number, ">", 0)), lambda: tiles.call(e, each, vectors, [
                        e.at(packed_a, e.mul(first, slot), kind), panel, to, slot, e.whole(1), e.whole(shape.rows), row_c,
                        depth, width, number, adds]))

                run(e.whole(shape.rows), full, e.whole(0))
                run(rest, e.whole(1), full)

            _blocks(e, shape, scratch, kind, columns, depth, rows)

        e.loop(0, n, TALL_COLUMNS, part)

    e.loop(0, e.add(last, 1), 1, block)
    e.b.ret_void()


def _pack_left(e: Emit, kind: ir.Type, a: Value, packed: Value, step_a: Value, depth: Value, count: Value, rows: int,
               slot: Value) -> None:
    """Tiles of `rows` columns of A, each in a slot, k by k: all of a row of A while it is near.  Whole vectors where there are
    columns enough; what is too much is overwritten by the next k, or lies between slots."""
    wide = ir.VectorType(kind, 1 << (rows - 1).bit_length())
    tiles = e.div(e.add(count, rows - 1), rows)
    whole = e.div(e.add(count, rows - wide.count), rows)

    def line(k: Value) -> None:
        source, to = e.at(a, e.mul(k, step_a), kind), e.at(packed, e.mul(k, rows), kind)

        def vector(t: Value) -> None:
            e.write(e.read(e.at(source, e.mul(t, rows), kind), wide), e.at(to, e.mul(t, slot), kind))

        def rest(t: Value) -> None:
            first = e.mul(t, rows)
            e.loop(0, e.least(e.sub(count, first), rows), 1, lambda i: e.write(
                e.read(e.at(source, e.add(first, i), kind), kind), e.at(to, e.add(e.mul(t, slot), i), kind)))

        e.loop(0, whole, 1, vector)
        e.loop(whole, tiles, 1, rest)

    e.loop(0, depth, 1, line)


def emit_batch(module: ir.Module, name: str, target: Target, dtype: DType, kind: str) -> None:
    """`C[i] = A[i] @ B[i]` for i < n: matrices of their own for every row of a batch."""
    e = Emit(module, name)
    lanes = target.vector_bytes // dtype.itemsize
    m, memory = LlvmDomain(e.b, lanes), memory_type(dtype)
    pointers, sizes, n, _ = e.function.args
    a, b, c = (e.entry(pointers, i, POINTER) for i in range(3))
    rows, inner, columns = (e.entry(sizes, i) for i in range(3))
    sa, sb, sc = ([e.entry(sizes, 3 + 3 * k + i) for i in range(3)] for k in range(3))

    def cell(i: Value, r: Value) -> tuple[Any, Any, Any]:
        return (e.at(a, e.add(e.mul(i, sa[0]), e.mul(r, sa[1])), memory), e.at(b, e.mul(i, sb[0]), memory),
                e.at(c, e.add(e.mul(i, sc[0]), e.mul(r, sc[1])), memory))

    def dot(i: Value) -> None:
        def row(r: Value) -> None:
            pa, pb, pc = cell(i, r)
            e.store_first(m, _dot(e, m, dtype, pa, pb, inner), pc)
        e.loop(0, rows, 1, row)

    def outer(i: Value) -> None:
        def row(r: Value) -> None:
            pa, pb, pc = cell(i, r)
            e.loop(0, columns, lanes, lambda j: _combination(e, m, dtype, kind, (pa, pb, pc), (sa[2], sb, sc[2]), inner,
                                                             columns, j))
        e.loop(0, rows, 1, row)

    e.loop(0, n, 1, dot if kind == "dot" else outer)
    e.b.ret_void()


def _dot(e: Emit, m: LlvmDomain, dtype: DType, a: Value, b: Value, inner: Value) -> Lanes:
    kind = memory_type(dtype)

    def advance(j: Value, state: list[Any]) -> list[Any]:
        mask = e.mask(m, e.sub(inner, j))
        x, y = (e.load(m, e.at(p, j, kind), dtype, mask) for p in (a, b))
        return [m.fma(x, y, Lanes(m, state[0], dtype)).value]

    (total,) = e.carry(0, inner, m.lanes, [m.constant(0, dtype).value], advance)
    return e.across(m, Lanes(m, total, dtype), lambda x, y: x + y)


def _combination(e: Emit, m: LlvmDomain, dtype: DType, kind: str, rows: tuple[Any, Any, Any], steps: tuple[Any, Any, Any],
                 inner: Value, columns: Value, j: Value) -> None:
    """Lanes j of one row of C: the rows of B weighted by a row of A."""
    (a, b, c), (step_a, sb, step_c) = rows, steps
    memory = memory_type(dtype)
    count = e.sub(columns, j)
    mask = e.mask(m, count)

    def advance(k: Value, state: list[Any]) -> list[Any]:
        x = e.scalar(m, e.at(a, e.mul(k, step_a), memory), dtype)
        at = e.at(b, e.add(e.mul(k, sb[1]), e.mul(j, sb[2])), memory)
        if kind == "1":
            y = e.load(m, at, dtype, mask)
        elif kind == "0":
            y = e.scalar(m, at, dtype)
        else:
            y = e.gather(m, at, sb[2], dtype, count)
        return [m.fma(x, y, Lanes(m, state[0], dtype)).value]

    (total,) = e.carry(0, inner, 1, [m.constant(0, dtype).value], advance)
    with e.b.if_else(e.is_(step_c, "==", 1)) as (side_by_side, strided):
        with side_by_side:
            e.store(m, Lanes(m, total, dtype), e.at(c, j, memory), mask)
        with strided:
            e.scatter(m, Lanes(m, total, dtype), e.at(c, e.mul(j, step_c), memory), step_c, count)


