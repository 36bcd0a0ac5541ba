"""What a page knows of one recurrence: its picture, and every stop on the way through it, forward and back."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ..analysis.bptt import BackwardPass
from ..analysis.cell_run import cell_run, place_of
from ..analysis.dynamics import strongest
from ..analysis.put_in import Numbers, value
from ..analysis.subject import Subject
from ..cells import Cell, latex
from ..cells.paper import pretty, text
from ..cells.terms import Term
from ..ir.op import Trait
from ..ir.scan import VALID
from ..search import shortest_path
from ..symbolic.derivation.derive import derive
from .canvas import FORMATS
from .flow import first_names, flow_of, sent_along
from .items import Item
from .names import at_step
from .scene import clean
from .shown import SMALL, numbers_of, rounded, shown
from .steps import shape_of, unrolled, weights_of
from .svg import drawn
from .tile import gate_order, tile_of

LONGEST = 400   # letters of a line with numbers put in
INFIX = {"+": np.add, "−": np.subtract, "⊙": np.multiply, "÷": np.divide}


class CellStops:
    """One recurrence: its picture and its stops; boxes of one value are one stop."""

    def __init__(self, number: int, subject: Subject, cell: Cell | None, formulas: dict[tuple[str, str], int]) -> None:
        bptt, given = subject.backward_passes()[number]
        self.tile = tile_of(bptt.recurrence, gate_order(cell))
        self.name, self.cell, self.subject = bptt.recurrence.name, cell, subject
        self.flow = flow_of(self.tile, given, subject.loss, subject.caption)
        self.flow.quiet = True
        quantities = {k: i.node for k, i in self.tile.items.items() if i.kind != "exit"}
        arguments = {f"argument {k}": n.src[0] for k, n in quantities.items() if Trait.NAMED in n.op.traits}
        self.bptt = BackwardPass(bptt.recurrence, {**quantities, **arguments})
        self.drawn_pass = BackwardPass(bptt.recurrence, quantities)
        self.canonical = first_names(self.drawn_pass)
        self.arguments = {m.position: m for m in self.bptt.steps_back(given)}
        self.moments = {m.position: m for m in self.drawn_pass.steps_back(given)}
        self.order = [p + 1 for p in bptt.recurrence.scan.order]
        self.keys = [k for k, i in self.tile.items.items() if i.kind == "input"] + [
            k for k, i in self.tile.items.items() if i.kind not in ("input", "exit")]
        self.labels = {n: label.name for label, n in reversed(self.tile.recurrence.step.labels.items())}
        self.formulas = formulas  # of all pictures of a page: what it is, in LaTeX -> its number
        self.put = self._numbers(number)
        self._formula_of = self._formulas()
        inputs = bptt.recurrence.step.inputs
        constants = zip(bptt.recurrence.constants, given.constants, strict=True)
        self.parameters = {k: a for k, a in constants if k in bptt.recurrence.parameters and k in inputs}
        shapes = {k: shape_of(list(map(str, inputs[k].shape))) for k in self.parameters}
        weights = weights_of(cell) if cell is not None and set(cell.parameters) == set(shapes) else shapes
        title = f"{subject.title}: {self.name}" if cell is None else cell.title
        self.svg = drawn(unrolled(self.tile, title, weights, "all", self.flow, FORMATS["wide"]), "auto")

    def data(self) -> dict[str, Any]:
        """Everything the script needs."""
        stops, forward, backward = self._stops()
        tones = [abs(s["tone"]) for s in stops if s.get("tone") is not None]
        return {"name": clean(self.name), "loss": shown(self.subject.loss), "steps": len(self.order), "rows": self._rows(),
                "stops": stops, "forward": forward, "backward": backward, "edges": self._edges(),
                "parameters": self._parameters(backward), "strongest": self._strongest(), "states": self._states(),
                "brightest": max(tones, default=1.0) or 1.0, "guide": self._guide(stops)}

    def _rows(self) -> int:
        new_states = self.tile.recurrence.new_states
        return int(new_states[0].shape[0]) if new_states and new_states[0].shape else 1

    # ---- stops

    def _main(self, k: str, p: int) -> tuple[str, int]:
        """The box that stands for all boxes of one value: a state as it enters a step is that of the step before."""
        at = self.order.index(p)
        if k in self.tile.entries and at:
            return self._main(self.tile.leaving(self.tile.entries.index(k))[0], self.order[at - 1])
        node = self.tile.items[k].node
        alike = [j for j in self.keys if self.tile.items[j].node is node and (j not in self.tile.entries or not at)]
        named = [j for j in alike if self.tile.items[j].name]
        return (named or alike or [k])[-1], p

    def _stops(self) -> tuple[list[dict[str, Any]], dict[str, int], dict[str, int]]:
        """All stops, and of every box at which of them it is reached, forward and back."""
        places = [(k, p) for p in self.order for k in self.keys]
        mains = list(dict.fromkeys(self._main(*place) for place in places))
        stops = [self._stop("f", k, p) for k, p in mains] + [{"direction": "L", "node": "loss", "name": "L"}]
        stops += [self._stop("b", k, p) for k, p in reversed(mains)]
        n = len(mains)
        forward = {main: i for i, main in enumerate(mains, 1)}
        backward = {main: 2 * n + 2 - i for main, i in forward.items()}
        boxes = {f"{k}-{p}": self._main(k, p) for k, p in places}
        return (stops, {"loss": n + 1, **{box: forward[m] for box, m in boxes.items()}},
                {"loss": n + 1, **{box: backward[m] for box, m in boxes.items()}})

    def _stop(self, direction: str, k: str, p: int) -> dict[str, Any]:
        item, m, label = self.tile.items[k], self.moments[p], self.labels.get(self.tile.items[k].node, "")
        stop: dict[str, Any] = {"direction": direction, "node": f"{k}-{p}", "step": p, "name": self._called(k, p)}
        kept = {"says": direction == "f" and clean(item.does or item.node.op.label), "formulas": self._formula_of.get(k),
                "weights": direction == "f" and [w for w in item.weights if w in self.parameters]}
        stop |= {name: what for name, what in kept.items() if what}
        argument = f"argument {k}"
        if argument in self.bptt.quantities:
            own = self.arguments[p]
            base = clean(pretty(label), 40) if label else "the gate"
            stop["argument"] = [at_step(f"a of {base}ₜ", p, self.tile.direction), numbers_of(own.values[argument])]
            if direction == "b":
                stop["delta"] = [at_step(f"δ of {base}ₜ", p, self.tile.direction), numbers_of(own.gradients[argument])]
        if direction == "f":
            stop["value"] = numbers_of(m.values[k])
            mean = float(np.mean(m.values[k])) if np.size(m.values[k]) else 0.0
            stop["tone"] = rounded(mean) if np.isfinite(mean) else None
            stop["lines"] = self._forward_lines(k, p, label)
            return stop
        stop["lines"] = self._backward_lines(k, p, label)
        return stop | {"gradient": numbers_of(m.gradients[k]), "norm": rounded(self.flow.norms[p].get(k)),
                       "from": self._received(k, p), "to": self._sent(k, p)}

    def _members(self, k: str, p: int) -> list[tuple[str, int]]:
        """All boxes of one value."""
        late = self.order.index(p) + 1
        found = [(j, p) for j in self.keys if self._main(j, p) == (k, p)]
        if late < len(self.order):
            found += [(j, self.order[late]) for j in self.tile.entries if self._main(j, self.order[late]) == (k, p)]
        return found

    def _received(self, k: str, p: int) -> list[list[Any]]:
        """Who sends to a value, and what: its readers in this step, the next step, the loss."""
        out: list[list[Any]] = []
        own = self._members(k, p)
        for j, at in own:
            m = self.moments[at]
            if at != p:
                out.append([f"step {at}", numbers_of(m.gradients.get(j)), rounded(self.flow.norms[at].get(j))])
                continue
            for r, i in self.tile.items.items():
                if j in i.sources and i.kind != "exit" and (r, at) not in own:
                    sent = sent_along(self.tile, m, r, j, self.canonical)
                    out.append([self._called(r, at), numbers_of(sent), rounded(self.flow.sent[at].get((r, j)))])
            if j in self.flow.from_loss[at]:
                out.append(["the loss", None, rounded(self.flow.from_loss[at][j])])
        return out

    def _sent(self, k: str, p: int) -> list[str]:
        """To what it is sent on: what was read."""
        own = self._members(k, p)
        return list(dict.fromkeys(self._called(*self._main(s, p)) for j, at in own if at == p
                                  for s in self.tile.items[j].sources if (s, p) not in own))

    def _called(self, k: str, p: int) -> str:
        """An item in words: its name, or what it computes from names."""
        item = self.tile.items[k]
        head = item.called
        if item.kind in ("input", "state"):
            base, mark, lag = head.partition("ₜ")
            return at_step(clean(base, 40) + mark + lag, p, self.tile.direction)
        if item.name and item.symbol:
            return pretty(f"{clean(head, 40)}[{p}]")
        if item.kind == "gate":
            return clean(at_step(head.replace("\n", " "), p, self.tile.direction) if item.spelled else
                         f"{head}({', '.join(item.weights)}) of step {p}", 60)
        names = [self._called(*self._main(s, p)) for s in item.sources]
        if item.kind == "op":
            names = [n if " " not in n or n.startswith("(") else f"({n})" for n in names]
            return clean(f"({f' {head} '.join(names)})", 60)
        return clean(f"{head} {', '.join(names)}" if head.endswith(tuple(INFIX)) else f"{head}({', '.join(names)})", 60)

    # ---- formulas, and numbers in them

    def _numbers(self, number: int) -> Numbers | None:
        """What puts numbers into formulas, where there are few of them."""
        if self.cell is None or VALID in self.bptt.recurrence.input_names:  # whose formulas know nothing of padding
            return None
        derivation = derive(self.cell)
        own = cell_run(self.cell, self.subject, derivation.arguments, number)
        arrays = [*own.values.values(), *own.given.values()]
        known = all(p in own.given for p in self.cell.parameters if p not in self.cell.learned)
        return Numbers(derivation, own) if known and max(np.size(a) for a in arrays) <= SMALL else None

    def _line(self, terms: list[Term]) -> list[str]:
        """A chain of equal terms, nothing said twice; nothing where it is too long to read."""
        forms = list(dict.fromkeys(text(t) for t in terms))
        line = " = ".join(forms)
        return [line] if len(forms) > 1 and len(line) <= LONGEST else []

    def _forward_lines(self, k: str, p: int, label: str) -> list[str]:
        """An equation with its numbers; of an operation that has no name the numbers of its operands."""
        put, result = self.put, value(self.moments[p].values[k][0])
        if put is None:
            return []
        equation = next((e for e in put.cell.system.equations if e.name == label), None)
        if equation is None:
            return self._operation(k, p, result)
        formula, left = put.at(equation.term, p), Term("at", (label, p))
        if not put.knows(formula):
            return []
        mark = put.derivation.arguments.get(label)
        if mark is None or (mark, p) not in put.run.values:
            return self._line([left, formula, put.numbers(formula), result])
        inner, argument = formula.args[0], value(put.run.values[mark, p])
        name = Term("at", (mark, p))
        called, applied = (Term("call", equation.term.value, (x,)) for x in (name, argument))
        return [*self._line([name, inner, put.numbers(inner), argument]), *self._line([left, called, applied, result])]

    def _operation(self, k: str, p: int, result: Term) -> list[str]:
        """The numbers of two operands, where they are all that an operation reads."""
        item, values = self.tile.items[k], [self.moments[p].values[s][0] for s in self.tile.items[k].sources]
        if item.kind != "op" or len(values) != 2 or item.called not in INFIX:
            return []
        if not np.allclose(INFIX[item.called](*values), self.moments[p].values[k][0]):
            return []
        operands = [f"({o})" if o.startswith("−") else o for o in (text(value(v)) for v in values)]
        line = f"{self._called(k, p)} = {f' {item.called} '.join(operands)} = {text(result)}"
        return [line] if len(line) <= LONGEST else []

    def _backward_lines(self, k: str, p: int, label: str) -> list[str]:
        """∂L/∂ of a quantity, and δ of a gate, with numbers."""
        put = self.put
        if put is None:
            return []
        lines: list[str] = []
        for name, t in self._places(k, p, label, put.derivation.arguments.get(label, "")):
            formula = put.derivation.recurrence.get(name) or put.derivation.inputs.get(name)
            if formula is not None and (name, t) in put.run.values:
                own, found = put.at(formula.term, t), put.run.gradients.get((name, t), np.zeros_like(put.run.values[name, t]))
                if not put.knows(own):
                    continue
                lines += self._line([put.gradient(name, t), own, put.numbers(own), value(found)])
        return lines

    def _places(self, k: str, p: int, *labels: str) -> list[tuple[str, int]]:
        """What a box is in the equations: quantities of this step, data, or a first state."""
        if self.tile.items[k].kind != "input":
            return [(name, p) for name in labels if name]
        known = (n for n, node in self.tile.recurrence.step.inputs.items() if node is self.tile.items[k].node)
        return [place_of(n, p, self.tile.direction) for n in known]

    def _formulas(self) -> dict[str, list[int]]:
        """For every item the formulas to show: of itself, or of the quantity that it is on the way to."""
        if self.cell is None:
            return {}
        d = derive(self.cell)
        by_name: dict[str, list[int]] = {}
        for e in self.cell.system.equations:
            texts = [("forward", f"{latex.name(e.name, 't')} = {latex.term(e.term)}")]
            texts += [("local derivative", rf"\frac{{\partial {_signal(a)}}}{{\partial {_signal(b)}}} = {latex.term(t)}")
                      for (a, b), t in d.local_terms.items() if a.partition("[")[0] == e.name]
            texts += [("backward", f.latex) for k, f in d.recurrence.items() if k == e.name]
            back = self.tile.recurrence.scan.reverse
            by_name[e.name] = [self._formula(what, _turned(text) if back else text) for what, text in texts]
        found: dict[str, list[int]] = {}
        for k in reversed(self.keys):
            item = self.tile.items[k]
            own = by_name.get(self.labels.get(item.node, ""))
            readers = (r for r, i in self.tile.items.items() if k in i.sources and r in found and item.kind != "input")
            found[k] = own or next((found[r] for r in readers), [])
        return found

    def _formula(self, what: str, text: str) -> int:
        return self.formulas.setdefault((what, text), len(self.formulas))

    # ---- parameters and paths

    def _parameters(self, backward: Mapping[str, int]) -> dict[str, Any]:
        """Every parameter, and the parts of its gradient in the order in which they arrive, with their running sum."""
        out: dict[str, Any] = {}
        for name, array in self.parameters.items():
            parts: list[dict[str, Any]] = []
            out[clean(name)] = {"value": shown(array), "parts": parts}
            if name not in next(iter(self.moments.values())).parameters:
                continue
            holders = [k for k, i in self.tile.items.items() if name in i.weights]
            running = np.zeros(())
            for p in reversed(self.order):
                part = self.moments[p].parameters[name]
                running = np.asarray(running + part)
                stop = max((backward[f"{k}-{p}"] for k in holders), default=0)
                alone = {"part": shown(part)} if part.size == 1 else {}
                parts.append({"stop": stop, "step": p, "sum": shown(running), **alone})
        return out

    def _strongest(self) -> list[list[str]]:
        """The strongest ways, box by box as they are drawn."""
        moments = [self.moments[p] for p in reversed(self.order)]
        readers: dict[str, list[str]] = {}
        for a, b in self._edges():
            readers.setdefault(a, []).append(b)
        out = []
        for route in strongest(self.drawn_pass, moments):
            stops = ["loss", *(f"{k}-{p}" for k, p in route.stops)]
            path = ["loss"]
            for reader, source in pairwise(stops):
                path += self._drawn(source, reader, readers)
            out.append(path)
        return out

    def _drawn(self, source: str, reader: str, readers: Mapping[str, list[str]]) -> list[str]:
        """The boxes from a reader (left out) back to what it reads: other boxes of the same values in between."""
        same = {self._item(source).node, self._item(reader).node if reader != "loss" else None}
        path = shortest_path(source, lambda k: [r for r in readers.get(k, ()) if r != "loss" and self._item(r).node in same],
                             lambda k: reader in readers.get(k, ()))
        return path[::-1] or [source]

    def _item(self, box: str) -> Item:
        return self.tile.items[box.rpartition("-")[0]]

    def _states(self) -> dict[str, list[str]]:
        """The boxes of every state, at every step."""
        return {self._called(k, p): [f"{k}-{p}"] for k, i in self.tile.items.items() if i.kind == "state" for p in self.order}

    def _edges(self) -> list[list[str]]:
        """What is read by what, over all steps."""
        seen = [k for k, i in self.tile.items.items() if i.kind != "exit"]
        out = [[f"{s}-{p}", f"{r}-{p}"] for p in self.order for r in seen for s in self.tile.items[r].sources]
        out += [[f"{self.tile.leaving(slot)[0]}-{a}", f"{entry}-{b}"] for a, b in pairwise(self.order)
                for slot, entry in enumerate(self.tile.entries)]
        return out + [[f"{k}-{p}", "loss"] for p in self.order for k in self.flow.from_loss[p]]

    # ---- the guided path

    def _guide(self, stops: list[dict[str, Any]]) -> list[list[Any]]:
        """About a dozen stops, each with a caption."""
        first, last = self.order[0], self.order[-1]
        kinds = {f"{k}-{p}": i.kind for k, i in self.tile.items.items() for p in self.order}

        def at(direction: str, kind: str, step: int, from_end: bool = False) -> int | None:
            found = [n for n, s in enumerate(stops, 1) if s["direction"] == direction and s.get("step") == step
                     and kinds.get(s["node"]) == kind
                     and (kind != "input" or s["node"].rpartition("-")[0] not in self.tile.entries)]
            return (found[-1] if from_end else found[0]) if found else None

        loss = next(n for n, s in enumerate(stops, 1) if s["direction"] == "L")
        before = self.order[-2] if len(self.order) > 1 else last
        second = self.order[1] if len(self.order) > 1 else first
        wanted = [
            (at("f", "input", first), "The first input of the sequence."),
            (at("f", "gate", first), "A gate: weights times the input and the state before it, then a function. The state "
                                     "before the first step is given, usually zero."),
            (at("f", "state", first, True), "The new state. It goes on to the next step."),
            (at("f", "gate", second), "The next step: the same weights, another input, and the state of the step before."),
            (at("f", "state", last, True), "The state after the last step."),
            (loss, "The loss: one number. From here the gradient goes back."),
            (at("b", "state", last), "Backward begins where the loss reads: how the loss changes with this state."),
            (at("b", "gate", last), "δ is the derivative by what goes into the function of a gate. Times what a weight was "
                                    "multiplied with, it is this step's share of the gradient of that weight."),
            (at("b", "state", before), "One step back: what the next step sends through its weights, and what the loss sends "
                                       "itself, are added."),
            (at("b", "gate", before), "The share of this step is added to that of the step after it."),
            (at("b", "state", first), "The first step: has the gradient grown on its way, or has it died?"),
            (len(stops), "All shares are in: the gradient of a weight is the sum over all steps. Choose a parameter."),
        ]
        found = {n: caption for n, caption in wanted if n is not None}
        return [[n, found[n]] for n in sorted(found)]


def _turned(text: str) -> str:
    """A formula for a layer that reads from the end: the step before is t + 1."""
    return text.replace("t-1", "t\0").replace("t+1", "t-1").replace("t\0", "t+1")


def _signal(text: str) -> str:
    """`h[t-1]` in LaTeX."""
    name, _, inside = text.partition("[")
    return latex.name(name, inside.removesuffix("]") or "t")
