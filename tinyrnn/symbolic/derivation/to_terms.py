"""Nodes read back as mathematics of one example: the way from the engine's graph to a printed equation.

A graph computes whole batches: vectors are rows [B, n], a product is v Wᵀ, a weight's gradient is δᵀ x.  Read as one
example with column vectors these are W v and δ xᵀ.  Reading stops at names: a value that has one is printed as that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import reduce

from ...cells.cell import Cell
from ...cells.terms import Term, number
from ...ir.node import Node
from ...ir.op import Trait
from ...ir.ops.leaves import filled, input_name
from ...ir.ops.structure import parts_of

BATCH = 10_007
"""A batch size that no other size has, so that batched arrays are known by their shape (nothing is ever run)."""



class TermReader:
    """Terms of nodes; `names` says what is printed by its name, `parts` how the columns of a matrix are divided, `sizes`
    which numbers are sizes."""

    def __init__(self, names: Mapping[Node, Term], cell: Cell, sizes: Mapping[str, int]) -> None:
        self.names, self.sizes = names, {n: s for s, n in sizes.items()}
        self.parts = {p: _pieces([block_name(cell, p, k) for k in range(len(shape[-1].split("+")))], shape[-1], sizes)
                      for p, shape in cell.parameters.items() if len(shape) == 2 and "+" in shape[1]}
        joined = {s[-1] for s in (*cell.signals.values(), *cell.parameters.values()) if s and "+" in s[-1]}
        self.joins = {sum(sizes.get(x) or int(x) for x in s.split("+")): _pieces(_distinct(s.split("+")), s, sizes)
                      for s in joined}
        self.memory: dict[Node, Term] = {}

    def root(self, n: Node) -> Term:
        """A node read through its own name; what the loss of this step contributes comes first."""
        if n.op.name != "add_n":
            return self._read(n)
        return total(sorted((self.term(s) for s in n.src), key=lambda t: not _from_loss(t)))

    def term(self, n: Node) -> Term:
        if n in self.names:
            return self.names[n]
        if n not in self.memory:
            self.memory[n] = self._read(n)
        return self.memory[n]

    def _read(self, n: Node) -> Term:
        name, written = n.op.name, n.op.written
        special: dict[str, Callable[[Node], Term]] = {
            "add_n": lambda n: total([self.term(s) for s in n.src]), "neg": lambda n: negated(self.term(n.src[0])),
            "expm1": lambda n: difference(Term("call", "exp", (self.term(n.src[0]),)), number(1)),
            "full": lambda n: self._number(float(filled(n))), "powk": self._power, "matmul": self._product,
            "transpose": self._turned, "sum": self._sum, "slice": self._slice, "concat": self._join,
            "input": lambda n: Term("parameter", input_name(n))}
        if name in special:
            return special[name](n)
        if Trait.WHOLE in n.op.traits or name == "stop_gradient":
            return self.term(n.src[0])
        if Trait.COMPARES in n.op.traits and not written.isidentifier():
            return Term("compare", written, tuple(self.term(s) for s in n.src))
        if written and not written.isidentifier():
            return self._arithmetic(written, n)
        bounds = tuple(self._number(float(a)) for a in n.at if isinstance(a, float))
        return Term("call", written or name, (*(self.term(s) for s in n.src), *bounds))

    def _number(self, value: float) -> Term:
        """A size by its name; other numbers as they were written (1.3 - 1 is printed 0.3)."""
        return Term("size", self.sizes[int(value)]) if value in self.sizes else number(float(f"{value:.12g}"))

    # ---- arithmetic

    def _arithmetic(self, op: str, n: Node) -> Term:
        a, b = n.src
        if op == "*" and a is b:
            return Term("binary", "**", (self.term(a), number(2)))
        if op == "-" and b.op.name == "mul" and b.src == (a, a):  # y - y² is read y (1 - y)
            return product(self.term(a), difference(number(1), self.term(a)))
        x, y = self.term(a), self.term(b)
        if op == "*" and {"column", "row"} <= {_direction(a), _direction(b)}:
            return Term("call", "outer", (x, y) if _direction(a) == "column" else (y, x))
        if op == "*" and {_direction(a), _direction(b)} & {"column", "row"} and n.ndim == 3:
            return self._scaled(x, y, _direction(a), _direction(b))
        if op == "+":
            return total([x, y])
        if op == "-":
            return difference(x, y)
        return product(x, y) if op == "*" else Term("binary", op, (x, y))

    def _scaled(self, x: Term, y: Term, a: str, b: str) -> Term:
        """The rows or the columns of a matrix, each times its own number."""
        vector, matrix, which = (x, y, a) if a in ("column", "row") else (y, x, b)
        diagonal = Term("call", "diag", (vector,))
        return Term("binary", "@", (diagonal, matrix) if which == "column" else (matrix, diagonal))

    def _power(self, n: Node) -> Term:
        return Term("binary", "**", (self.term(n.src[0]), self._number(float(n.at[0]))))

    def _sum(self, n: Node) -> Term:
        """A sum over the batch is not written: equations are those of one example."""
        x, (axes, _) = n.src[0], n.at
        if x.op.name == "mul" and x not in self.names and x.ndim == 3 and batched(x) and axes in ((1,), (2,)):
            for m, v in (x.src, x.src[::-1]):
                along = (1,) * (x.ndim - v.ndim) + v.shape
                if m.shape == x.shape and along[axes[0]] == x.shape[axes[0]] and along[3 - axes[0]] == 1:
                    matrix = self.term(m)
                    return Term("binary", "@", (matrix if axes[0] == 2 else turned(matrix), self.term(v)))
        rest = [i for i in axes if not (i == 0 and batched(x)) and x.shape[i] != 1]
        return Term("call", "sum", (self.term(x),)) if rest else self.term(x)

    # ---- products

    def _product(self, n: Node) -> Term:
        a, b = n.src
        x, y = self.term(a), self.term(b)
        if a.shape[-1] == 1 or (a.ndim == 2 and a.shape[-1] == BATCH):     # a column times a row, or Σ over the batch of δ xᵀ
            return Term("call", "outer", (x, y))
        if a.ndim == 2 and batched(a):                                     # rows of a batch: v Wᵀ is W v
            return self._applied(turned(y), x)
        if a.ndim == 3 and a.shape[1] == 1:                                # a row times a matrix is the matrix turned
            return Term("binary", "@", (turned(y), x))
        return self._applied(x, y)

    def _applied(self, matrix: Term, vector: Term) -> Term:
        """W [v, 0] is W_h v."""
        labels = self.parts.get(str(matrix.value), []) if matrix.kind == "parameter" else []
        if vector.kind == "join" and len(labels) == len(vector.args) and any(x.value == "zeros" for x in vector.args):
            return total([Term("binary", "@", (Term("parameter", label), x))
                          for (_, _, label), x in zip(labels, vector.args, strict=True) if x.value != "zeros"])
        return Term("binary", "@", (matrix, vector))

    def _turned(self, n: Node) -> Term:
        x = n.src[0]
        vector = (x.ndim == 2 and BATCH in x.shape) or 1 in x.shape[1:]
        return self.term(x) if vector else turned(self.term(x))

    # ---- parts

    def _join(self, n: Node) -> Term:
        parts = [self.term(s) for s in n.src]
        sized = [Term("call", "zeros", (self._size(s.shape[-1]),)) if is_number(x, 0) and s.op.name == "full" else x
                 for s, x in zip(n.src, parts, strict=True)]
        return Term("join", None, tuple(sized))

    def _size(self, n: int) -> Term:
        return Term("variable", self.sizes.get(n, str(n)))

    def _slice(self, n: Node) -> Term:
        """Rows of (Wᵀ δ) that belong to one part of W's columns: W_partᵀ δ; sums are sliced term by term."""
        x, parts = n.src[0], parts_of(n)
        start, count, step = parts[-1]
        if step == 1 and all(p == (0, k, 1) for p, k in zip(parts[:-1], x.shape[:-1], strict=True)):
            return self._columns(x, start, count)
        return Term("call", "slice", (self.term(x), *(self._size(k) for p in parts for k in p)))

    def _columns(self, x: Node, start: int, count: int) -> Term:
        if x.op.name in ("add", "add_n") and x not in self.names:
            return total([self._columns(s, start, count) for s in x.src])
        if x.op.name == "matmul" and x not in self.names:
            parameter = self.term(x.src[1])
            label = _piece(self.parts.get(str(parameter.value), []) if parameter.kind == "parameter" else [], start, count)
            if label is not None:
                return Term("binary", "@", (turned(Term("parameter", label)), self.term(x.src[0])))
        label = _piece(self.joins.get(x.shape[-1], []), start, count)
        if label is not None:
            return Term("call", "part", (self.term(x), Term("variable", label)))
        return Term("call", "slice", (self.term(x), self._size(start), self._size(count)))


def block_name(cell: Cell, parameter: str, part: int) -> str:
    """The columns of a matrix over [h, x] that belong to one part: W_h, or W_1, W_2 where that would be ambiguous."""
    columns = cell.parameters[parameter][-1].split("+") if cell.parameters[parameter] else []
    if len(columns) < 2:
        return parameter
    name = f"{parameter}_{_distinct(columns)[part]}"
    while name in cell.parameters or name in cell.signals:
        name += "_"
    return name


def _distinct(names: list[str]) -> list[str]:
    """The names, or their numbers from 1 where two are the same."""
    return names if len(set(names)) == len(names) else [str(k) for k in range(1, len(names) + 1)]


def _pieces(labels: list[str], shape: str, sizes: Mapping[str, int]) -> list[tuple[int, int, str]]:
    widths = [sizes.get(s) or int(s) for s in shape.split("+")]
    return [(sum(widths[:k]), n, label) for k, (n, label) in enumerate(zip(widths, labels, strict=True))]


def _piece(pieces: list[tuple[int, int, str]], start: int, count: int) -> str | None:
    return next((label for first, n, label in pieces if (first, n) == (start, count)), None)


def _direction(n: Node) -> str:
    """Whether a batched [B, n, 1] or [B, 1, n] stands for a vector that lies along one axis of a matrix."""
    while n.op.name == "broadcast_to":
        n = n.src[0]
    if n.ndim != 3 or n.shape[1:] == (1, 1):
        return ""
    return "column" if n.shape[2] == 1 else "row" if n.shape[1] == 1 else ""


def batched(n: Node) -> bool:
    return bool(n.shape) and n.shape[0] == BATCH


# ---- terms, made as one would write them

def is_number(t: Term, value: float) -> bool:
    return t.kind == "number" and t.value == value


def negated(t: Term) -> Term:
    return t.args[0] if t.kind == "negate" else Term("negate", None, (t,))


def total(terms: list[Term]) -> Term:
    """A sum without zeros; a negated term is subtracted; x y - x z is x (y - z)."""
    kept = _collected([t for part in terms for t in summands(part) if not is_number(t, 0)]) or [number(0)]
    common = _common(kept)
    if common is not None:
        return product(common[0], total(common[1]))
    if len(kept) > 1 and kept[0].kind == "negate" != kept[1].kind:
        kept[:2] = kept[1::-1]
    return reduce(lambda x, y: Term("binary", "-", (x, y.args[0])) if y.kind == "negate" else Term("binary", "+", (x, y)), kept)


def _collected(terms: list[Term]) -> list[Term]:
    """u + u as 2 u."""
    count = Counter(terms)
    return terms if len(count) == len(terms) else [product(number(k), t) if k > 1 else t for t, k in count.items()]


def summands(t: Term) -> list[Term]:
    """The terms of a sum, negated where they are subtracted."""
    if t.kind == "negate":
        return [negated(x) for x in summands(t.args[0])]
    if t.kind == "binary" and t.value in ("+", "-"):
        right = summands(t.args[1])
        return [*summands(t.args[0]), *(right if t.value == "+" else [negated(x) for x in right])]
    return [t]


def _common(terms: list[Term]) -> tuple[Term, list[Term]] | None:
    """The first factor of two products, where it is the same."""
    bare = [t.args[0] if t.kind == "negate" else t for t in terms]
    if len(terms) != 2 or any(t.kind != "binary" or t.value != "*" for t in bare) or bare[0].args[0] != bare[1].args[0]:
        return None
    return bare[0].args[0], [negated(b.args[1]) if t.kind == "negate" else b.args[1] for t, b in zip(terms, bare, strict=True)]


def _from_loss(t: Term) -> bool:
    return t.kind == "adjoint" and str(t.value[0]).startswith("loss ")


def difference(x: Term, y: Term) -> Term:
    return total([x, negated(y)]) if not is_number(x, 0) else negated(y)


def product(x: Term, y: Term) -> Term:
    """A product with its sign and its number in front and products of matrices at the end."""
    sign, value, rest = 1, 1.0, list[Term]()
    stack = [y, x]
    while stack:
        t = stack.pop()
        if t.kind == "negate":
            sign = -sign
            stack.append(t.args[0])
        elif t.kind == "binary" and t.value == "*":
            stack += [t.args[1], t.args[0]]
        elif t.kind == "number":
            value *= t.value
        else:
            rest.append(t)
    rest.sort(key=lambda t: t.kind == "binary" and t.value == "@")
    rest = [number(value), *rest] if value != 1 or not rest else rest
    result = number(0) if value == 0 else reduce(lambda a, b: Term("binary", "*", (a, b)), rest)
    return negated(result) if sign < 0 and value else result


def turned(t: Term) -> Term:
    """A transpose; that of a transpose is the matrix itself."""
    if t.kind == "parameter":
        return Term("transpose", t.value)
    if t.kind == "transpose":
        return Term("parameter", t.value) if not t.args else t.args[0]
    return Term("transpose", None, (t,))


def shifted(t: Term, steps: int) -> Term:
    """The same expression, read so many steps later."""
    return t.rewritten(lambda x: Term(x.kind, (x.value[0], x.value[1] + steps)) if x.kind in ("signal", "adjoint") else None)
