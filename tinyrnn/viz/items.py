"""What a picture shows of a graph: gates, states, inputs and small operations instead of every node.

A product with a weight, its bias and the sums between them are one affine map; the function applied to it makes it a
gate, drawn as one box with the letter of the equation and the names of its weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.op import Trait
from ..ir.ops.elementwise import ADD, MUL, name_of
from ..ir.ops.leaves import INPUT, LEAF, box_of, input_name, literal_value
from ..ir.ops.linear import MATMUL, RESHAPE, TRANSPOSE

_SIGNS = {"neg": "− ·", "add": "+", "sub": "−", "mul": "⊙", "div": "÷", "power": "^", "where": "?:"}


@dataclass
class Item:
    """One thing on the picture."""

    key: str
    kind: str  # input, state, gate, function, op; exit: a point at the right edge, which is not seen
    name: str    # of a quantity of the equations, "" for what has none
    symbol: str  # of what computes it, "" for what is given
    node: Node
    sources: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    turned: frozenset[str] = frozenset()  # weights that stand transposed in the equation

    @property
    def title(self) -> str:
        """`f = σ`, or the one of the two that there is."""
        return " = ".join(filter(None, (self.name, self.symbol)))

    @property
    def called(self) -> str:
        """Its name, or what it does."""
        return self.name or self.symbol

    @property
    def lines(self) -> list[str]:
        """What is written in its box: the title, and the names of weights, two a line."""
        weights = [w + "ᵀ" * (w in self.turned) for w in self.weights]
        return [self.title, *("  ".join(weights[i : i + 2]) for i in range(0, len(weights), 2))]

    @property
    def ordered(self) -> bool:
        """Whether it matters which operand comes first."""
        return self.kind != "gate" and not self.called.startswith(("+", "⊙"))


@dataclass
class _Affine:
    weights: list[str]
    sources: list[Node]
    turned: frozenset[str] = frozenset()  # matrices that stand transposed in the equation


class Extract:
    """The items of a graph in topological order."""

    def __init__(self, graph: Graph, weights: Collection[str], states: Collection[str]) -> None:
        self.graph, self.weights, self.states = graph, set(weights), set(states)
        self.uses = Counter(s for n in graph.nodes for s in n.src)
        self.users: Mapping[Node, list[Node]] = self._users()
        self.affine: dict[Node, _Affine] = {}
        self.items: dict[str, Item] = {}
        self.shown: dict[Node, str] = {}
        for n in graph.nodes:
            self._visit(n)

    def _users(self) -> dict[Node, list[Node]]:
        users: dict[Node, list[Node]] = {}
        for n in self.graph.nodes:
            for s in n.src:
                users.setdefault(s, []).append(n)
        return users

    def _visit(self, n: Node) -> None:
        n_affine = self._as_affine(n)
        if n_affine is not None:
            self.affine[n] = n_affine
            if self._absorbed(n):
                return
        if self._weight(n) is not None or literal_value(n) is not None:
            return
        if Trait.WHOLE in n.op.traits and n.src[0] in self.shown:
            self.shown[n] = self.shown[n.src[0]]
            self._add_state(n, self._label(n))
            return
        self._show(n, n_affine)

    # ---- weights and affine maps

    def _weight(self, n: Node) -> str | None:
        while Trait.WHOLE in n.op.traits:
            n = n.src[0]
        if n.op is INPUT and input_name(n) in self.weights:
            return input_name(n)
        return (box_of(n).name or "W") if n.op is LEAF and box_of(n).trainable else None

    def _as_affine(self, n: Node) -> _Affine | None:
        if n.op in (MATMUL, MUL):
            names = [self._weight(s) for s in n.src]
            if (names[0] is None) == (names[1] is None):
                return None
            i = 0 if names[0] is not None else 1
            name = names[i] or ""
            turned = n.op is MATMUL and n.src[i].ndim == 2 and _turns(n.src[i]) % 2 == i % 2 ^ 1
            return _Affine([name], [n.src[1 - i]], frozenset([name] if turned else []))
        if n.op is ADD:
            parts = [self._part(s) for s in n.src]
            if all(parts) and any(s in self.affine for s in n.src):
                found = [p for p in parts if p]
                return _Affine([w for p in found for w in p.weights], [x for p in found for x in p.sources],
                               frozenset().union(*(p.turned for p in found)))
        return None

    def _part(self, n: Node) -> _Affine | None:
        if n in self.affine and self.uses[n] == 1 and n not in self.graph.names:
            return self.affine[n]
        name = self._weight(n)
        return None if name is None else _Affine([name], [])

    def _absorbed(self, n: Node) -> bool:
        """An affine map that is only read by a larger one, or by the function that makes it a gate."""
        if n in self.graph.names or len(self.users.get(n, [])) != 1:
            return False
        user = self.users[n][0]
        return Trait.ACTIVATES in user.op.traits or (user.op is ADD and self._will_be_affine(user, n))

    def _will_be_affine(self, user: Node, n: Node) -> bool:
        other = user.src[1] if user.src[0] is n else user.src[0]
        return self._weight(other) is not None or (self._as_affine(other) is not None and self.uses[other] == 1
                                                   and other not in self.graph.names)

    # ---- items

    def _show(self, n: Node, own: _Affine | None) -> None:
        name = self._label(n)
        key = f"n{len(self.items)}"
        if n.op is INPUT or n.op is LEAF:
            self._add(n, Item(key, "input", pretty(name_of(n) or "data"), "", n))
            self._add_state(n, name)
            return
        absorbed = Trait.ACTIVATES in n.op.traits and n.src[0] not in self.shown
        inner = self.affine.get(n.src[0]) if absorbed else own
        if inner is not None:
            symbol = n.op.label if Trait.ACTIVATES in n.op.traits else "affine"
            is_state = name in self.states
            item = Item(key, "gate", "" if is_state else name or "", symbol, n, self._keys(inner.sources), inner.weights,
                        inner.turned)
        else:
            weights = [w for w in map(self._weight, n.src) if w is not None]
            kind, own_name, symbol = self._operation(n, name)
            item = Item(key, "function" if weights else kind, own_name, symbol, n, self._keys(n.src), weights)
        self._add(n, item)
        self._add_state(n, name)

    def _label(self, n: Node) -> str | None:
        """The name of a value (not of a gradient)."""
        return next((a.name for a in self.graph.names.get(n, ()) if not a.name.startswith("dloss/")), None)

    def _add_state(self, n: Node, name: str | None) -> None:
        """A state or an output stands on the picture by its own name, behind what computes it."""
        if name in self.states:
            self._add(n, Item(f"n{len(self.items)}", "state", pretty(f"{name}[t]"), "", n, [self.shown[n]]))

    def _add(self, n: Node, item: Item) -> None:
        self.items[item.key] = item
        self.shown[n] = item.key

    def _operation(self, n: Node, name: str | None) -> tuple[str, str, str]:
        """Kind, name and symbol."""
        values = [literal_value(s) for s in n.src]
        sign = "outer" if _is_outer(n) else _SIGNS.get(n.op.name, n.op.label)
        literal = next((f"{v:g}" for v in values if v is not None and not isinstance(v, bool)), None)
        if literal is not None:
            sign = f"{literal} {sign}" if values[0] is not None and n.op.name in _SIGNS else f"{sign} {literal}"
        if name is not None and name not in self.states:
            return "gate", name, sign
        small = n.op.name in _SIGNS and len(sign) == 1
        return ("op" if small else "function"), "", sign

    def _keys(self, sources: Collection[Node]) -> list[str]:
        found = (self.shown.get(s) for s in sources)
        return list(dict.fromkeys(k for k in found if k is not None))


def _turns(n: Node) -> int:
    """How often a weight is transposed before it is used; rows times `Wᵀ` is `W` times a column."""
    turns = 0
    while Trait.WHOLE in n.op.traits:
        turns += n.op is TRANSPOSE
        n = n.src[0]
    return turns


def _is_outer(n: Node) -> bool:
    """A product of a column with a row."""
    if n.op is not MUL or n.ndim < 2 or any(s.op is not RESHAPE for s in n.src):
        return False
    return n.src[0].shape[-1] == 1 == n.src[1].shape[-2]


_SUBSCRIPTS = str.maketrans("0123456789-t", "₀₁₂₃₄₅₆₇₈₉₋ₜ")


def pretty(name: str) -> str:
    """`h[3]` as h₃ and `h[t-1]` as hₜ₋₁; anything else as it is."""
    stem, bracket, inside = name.partition("[")
    inside = inside.removesuffix("]")
    return stem + inside.translate(_SUBSCRIPTS) if bracket and set(inside) <= set("0123456789-t") else name


def at_step(line: str, t: int, direction: int = 1) -> str:
    """A line with ₜ, ₜ₋₁, ... replaced by the step itself: cₜ₋₁ at t = 3 is c₂ (c₄ where time runs backwards)."""
    head, mark, lag = line.partition("ₜ")
    if not mark:
        return line
    back = int(lag.removeprefix("₋").translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))) if lag else 0
    return head + str(t - direction * back).translate(_SUBSCRIPTS)
