"""What a picture shows of a graph: gates, states, inputs and small operations instead of every node.

A product with a weight, its bias and the sums between them are one affine map; the function applied to it makes it a
gate, drawn as one box with the letter of the equation and the names of its weights.  A function of the language that is
composed of several operations is one box as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from ..cells.lower import ROW_FUNCTIONS, mean
from ..cells.paper import pretty
from ..functions import FUNCTIONS
from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.op import Trait
from ..ir.ops.elementwise import ADD, MUL, name_of
from ..ir.ops.leaves import INPUT, LEAF, box_of, input_name, literal_value
from ..ir.ops.linear import MATMUL, RESHAPE, TRANSPOSE
from ..ir.ops.structure import CONCAT

_SIGNS = {"neg": "− ·", "add": "+", "sub": "−", "mul": "⊙", "div": "÷", "power": "^", "where": "?:"}


@dataclass
class Item:
    """One thing on the picture."""

    key: str
    kind: str  # input, state, gate, function, op, block; exit: where a state leaves, which is not seen
    name: str    # of a quantity of the equations, "" for what has none
    symbol: str  # of what computes it, "" for what is given
    node: Node
    sources: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    turned: frozenset[str] = frozenset()  # weights that stand transposed in the equation
    spelled: bool = False  # whether the symbol names the weights: W h + b
    does: str = ""         # what computes it in words

    @property
    def title(self) -> str:
        """`f = σ`, or the one of the two that there is."""
        return " = ".join(filter(None, (self.name, self.symbol)))

    @property
    def called(self) -> str:
        """Its name, or what it does."""
        return self.name or self.symbol

    def lines(self, parameters: bool = True) -> list[str]:
        """What is written in its box: the title, and the names of weights, two a line."""
        weights = [w + "ᵀ" * (w in self.turned) for w in self.weights] if parameters and not self.spelled else []
        return [*self.title.split("\n"), *("  ".join(weights[i : i + 2]) for i in range(0, len(weights), 2))]

    @property
    def ordered(self) -> bool:
        """Whether it matters which operand comes first."""
        return self.kind != "gate" and not self.called.startswith(("+", "⊙"))


@dataclass
class _Affine:
    terms: list[tuple[str, str, Node | None]]  # a weight, what stands behind it, and what it is multiplied with
    turned: frozenset[str] = frozenset()       # matrices that stand transposed in the equation

    @property
    def weights(self) -> list[str]:
        return [w for w, _, _ in self.terms if w]

    @property
    def sources(self) -> list[Node]:
        return [x for _, _, x in self.terms if x is not None]


def composites(nodes: Sequence[Node]) -> dict[Node, tuple[str, Node]]:
    """Nodes that are a function of the language composed of several operations: its name, and what it is applied to.

    Nodes are interned, so that a function applied once more gives the same node.
    """
    named: dict[str, Callable[[Node], Node]] = {**ROW_FUNCTIONS, "mean": mean}
    named |= {k: f.build for k, f in FUNCTIONS.items() if f.operands == 1}
    present, known = {n.op for n in nodes}, set(nodes)
    found: dict[Node, tuple[str, Node]] = {}
    roots: dict[str, object] = {}
    for x in nodes:
        if x.floating and x.dtype.kind == "f" and x.ndim > 1:
            for name, build in named.items():
                if roots.get(name) in present or name not in roots:
                    made = build(x)
                    roots[name] = None if made.src == (x,) else made.op
                    if made in known and made.src != (x,) and made is not x:
                        found.setdefault(made, (name, x))  # the largest: a layer norm holds an RMS norm
    return found


class Extract:
    """The items of a graph in topological order; with `every`, every operation is an item of its own."""

    def __init__(self, graph: Graph, weights: Collection[str], states: Collection[str], every: bool = False) -> None:
        self.graph, self.weights, self.states, self.every = graph, set(weights), set(states), every
        self.composed = {} if every else composites(graph.nodes)
        nodes = self._reached()
        self.uses = Counter(s for n in nodes for s in self._src(n))
        self.users: dict[Node, list[Node]] = {}
        for n in nodes:
            for s in self._src(n):
                self.users.setdefault(s, []).append(n)
        self.affine: dict[Node, _Affine] = {}
        self.items: dict[str, Item] = {}
        self.shown: dict[Node, str] = {}
        for n in nodes:
            self._visit(n)

    def _src(self, n: Node) -> tuple[Node, ...]:
        return (self.composed[n][1],) if n in self.composed else n.src

    def _reached(self) -> list[Node]:
        """The nodes without those inside a composed function."""
        if not self.composed:
            return list(self.graph.nodes)
        reached, stack = set(), [*self.graph.outputs.values(), *self.graph.labels.values()]
        while stack:
            n = stack.pop()
            if n not in reached:
                reached.add(n)
                stack += self._src(n)
        return [n for n in self.graph.nodes if n in reached]

    def _activates(self, n: Node) -> bool:
        return not self.every and (n in self.composed or Trait.ACTIVATES in n.op.traits)

    def _called(self, n: Node) -> str:
        return self.composed[n][0].replace("_", " ") if n in self.composed else n.op.label

    def _visit(self, n: Node) -> None:
        n_affine = self._as_affine(n)
        if n_affine is not None:
            self.affine[n] = n_affine
            if self._absorbed(n):
                return
        if self._weight(n) is not None or literal_value(n) is not None:
            return
        if Trait.WHOLE in n.op.traits and n not in self.composed and n.src[0] in self.shown:
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
        if self.every or n in self.composed:
            return None
        if n.op in (MATMUL, MUL):
            names = [self._weight(s) for s in n.src]
            if (names[0] is None) == (names[1] is None):
                return None
            i = 0 if names[0] is not None else 1
            name = names[i] or ""
            turned = n.op is MATMUL and n.src[i].ndim == 2 and _turns(n.src[i]) % 2 == i % 2 ^ 1
            sign = "⊙ " if n.op is MUL else ""
            return _Affine([(name, sign, n.src[1 - i])], frozenset([name] if turned else []))
        if n.op is ADD:
            parts = [self._part(s) for s in n.src]
            if all(parts) and any(s in self.affine for s in n.src):
                found = [p for p in parts if p]
                return _Affine([term for p in found for term in p.terms], frozenset().union(*(p.turned for p in found)))
            bias = [p is not None and not p.sources for p in parts]
            users = self.users.get(n, [])
            if any(bias) and not all(bias) and users and all(map(self._activates, users)):  # of what goes into a function
                other, weight = n.src[bias.index(False)], parts[bias.index(True)]
                return _Affine([("", "", other), *(weight.terms if weight else [])])
        return None

    def _part(self, n: Node) -> _Affine | None:
        if n in self.affine and self.uses[n] == 1 and n not in self.graph.names:
            return self.affine[n]
        name = self._weight(n)
        return None if name is None else _Affine([(name, "", None)])

    def _absorbed(self, n: Node) -> bool:
        """An affine map that is only read by a larger one, or by the function that makes it a gate."""
        if n in self.graph.names or len(self.users.get(n, [])) != 1:
            return False
        user = self.users[n][0]
        return self._activates(user) or (user.op is ADD and self._will_be_affine(user, n))

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
        src = self._src(n)
        absorbed = self._activates(n) and src[0] not in self.shown
        inner = self.affine.get(src[0]) if absorbed else own
        if inner is not None:
            symbol = self._called(n) if absorbed else self._formula(inner)
            is_state = name in self.states
            item = Item(key, "gate", "" if is_state else pretty(name or ""), symbol, n, self._keys(inner.sources),
                        inner.weights, inner.turned, spelled=not absorbed)
        else:
            weights = [w for w in map(self._weight, src) if w is not None]
            kind, own_name, symbol = self._operation(n, name)
            item = Item(key, "function" if weights else kind, pretty(own_name), symbol, n, self._keys(src), weights)
        item.does = self._called(n)
        self._add(n, item)
        self._add_state(n, name)

    def _formula(self, a: _Affine) -> str:
        """`W_h hₜ₋₁ + b`, a line for every term where it is long."""
        terms = []
        for w, sign, x in a.terms:
            item = None if x is None else self.items.get(self.shown.get(x, ""))
            operand = item.name if item is not None and item.name else "(·)"
            terms.append(f"{w}{'ᵀ' * (w in a.turned)}" + ("" if x is None else f" {sign}{operand}"))
        text = " + ".join(terms)
        return text if len(text) <= 16 else " +\n".join(terms)

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
        values = [] if n in self.composed else [literal_value(s) for s in n.src]
        sign = (self._called(n) if n in self.composed else self._joined(n) if n.op is CONCAT else
                "outer" if _is_outer(n) else _SIGNS.get(n.op.name, n.op.label))
        if n.op.name == "powk" and n not in self.composed:
            sign = f"^{n.at[0]:g}"
        literal = next((f"{v:g}" for v in values if v is not None and not isinstance(v, bool)), None)
        if literal is not None:
            sign = f"{literal} {sign}" if values[0] is not None and n.op.name in _SIGNS else f"{sign} {literal}"
        if name is not None and name not in self.states:
            return "gate", name, sign
        small = n.op.name in _SIGNS and len(sign) == 1
        return ("op" if small else "function"), "", sign

    def _joined(self, n: Node) -> str:
        """`[hₜ₋₁, xₜ]`, with a dot for a part that has no name."""
        parts = [self._weight(s) or (self.items[self.shown[s]].name if s in self.shown else "") or "·" for s in n.src]
        return f"[{', '.join(parts)}]"

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
