"""What each name of a system is: input, state, gate, output, parameter; and the order of evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from .mistakes import nearest
from .terms import Equation, System, Term


@dataclass(frozen=True)
class Roles:
    """The names of a cell by their part in it."""

    inputs: tuple[str, ...]
    states: tuple[str, ...]
    outputs: tuple[str, ...]
    gates: tuple[str, ...]
    parameters: tuple[str, ...]
    lags: dict[str, int]            # every name read at t-k, with its largest k
    order: tuple[Equation, ...]     # sources before users

    @property
    def slots(self) -> tuple[tuple[str, int], ...]:
        """The remembered values in order: (name, lag); states first, then delayed inputs."""
        delayed = tuple(n for n in self.inputs if n in self.lags)
        return tuple((n, k) for n in (*self.states, *delayed) for k in range(1, self.lags[n] + 1))


def find_roles(system: System) -> Roles:
    """Roles from where each name is assigned and read."""
    assigned = {e.name: e for e in system.equations}
    terms = [t for e in system.equations for t in e.term.walk()]
    signals = [t for t in terms if t.kind in ("signal", "size")]
    names = [(t, t.value[0] if t.kind == "signal" else t.value) for t in signals]
    lags: dict[str, int] = {}
    for t in signals:
        if t.kind == "signal" and t.value[1]:
            lags[t.value[0]] = max(lags.get(t.value[0], 0), t.value[1])
    inputs = _inputs(system, tuple(dict.fromkeys(name for _, name in names if name not in assigned)),
                     {t.value[0] for t in signals if t.kind == "signal" and not t.value[1]}, signals)
    _check_parameters(system, terms, assigned, inputs)
    if not inputs and not lags:
        raise system.equations[0].place.error("a cell needs an input such as x[t] or a state such as h[t-1]")
    order = _ordered(assigned, lags)
    read_now = {t.value[0] for t in signals if t.kind == "signal" and t.value[1] == 0}
    outputs = _outputs(system, assigned, read_now, lags, inputs)
    states = tuple(sorted((n for n in lags if n in assigned), key=lambda n: n not in outputs))
    parameters = _parameters(system, terms)
    _check_learned(system, states, lags)
    return Roles(inputs, states, outputs, tuple(n for n in assigned if n not in lags and n not in outputs), parameters,
                 lags, order)


def _inputs(system: System, found: tuple[str, ...], read_now: set[str], signals: list[Term]) -> tuple[str, ...]:
    """The names that no equation assigns, in the order declared; one that is read only at earlier steps must be declared."""
    assigned = [e.name for e in system.equations]
    for name in system.inputs:
        if name not in found:
            raise system.place("inputs").error(f"the input {name!r} is assigned by an equation" if name in assigned else
                                               f"the input {name!r} is read by no equation")
    if system.inputs:
        missing = [n for n in found if n not in system.inputs]
        reason, where = "is assigned by no equation and is not among the declared inputs", system.inputs
    else:
        missing = [n for n in found if n not in read_now]
        reason, where = "is read only at earlier steps and assigned by no equation", found
    if missing:
        name = missing[0]
        place = next(t.place for t in signals if name in (t.value, t.value[0]))
        line = f"inputs: {', '.join(dict.fromkeys((*where, name)))}"
        raise place.error(f"{name} {reason}; an input is declared by a line '{line}'"
                          + nearest(name, [n for n in (*assigned, *where) if n != name]))
    return system.inputs or found


def _parameters(system: System, terms: list[Term]) -> tuple[str, ...]:
    constants = dict(system.constants)
    used = dict.fromkeys(t.value for t in terms if t.kind in ("parameter", "transpose") and t.value not in constants)
    for d in system.declarations:
        if d.name not in used:
            raise d.place.error(f"{d.name} is declared but no equation uses it")
    for name in constants:
        if not any(t.kind == "parameter" and t.value == name for t in terms):
            raise system.place(name).error(f"the constant {name} is given but no equation uses it")
    return tuple(used)


def _check_parameters(system: System, terms: list[Term], assigned: dict[str, Equation], inputs: tuple[str, ...]) -> None:
    constants = dict(system.constants)
    for t in terms:
        if t.kind in ("parameter", "transpose") and (t.value in assigned or t.value in inputs):
            raise t.place.error(f"{t.value} has a time index elsewhere: write {t.value}[t] or {t.value}[t-1]")
        if t.kind == "transpose" and t.value in constants:
            raise t.place.error(f"{t.value} is a number and has no transpose")
    for name in (*assigned, *inputs):
        if name in constants:
            raise system.place(name).error(f"{name} is given as a constant and used with a time index")


def _outputs(system: System, assigned: dict[str, Equation], read_now: set[str], lags: dict[str, int],
             inputs: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(n for n in assigned if n not in read_now)
    if not system.outputs:
        if len(found) == 1:
            return found
        if not found:
            found_text = "every quantity is read at step t, so none is the output"
        else:
            found_text = f"{', '.join(f'{n}[t]' for n in found)} are read by no equation at step t"
        suspect = assigned[(found or tuple(assigned))[0]]
        raise suspect.place.error(f"{found_text}; correct a misspelt or unused name (read but never assigned, hence inputs: "
                                  f"{', '.join(inputs) or 'none'}), or add a line such as "
                                  f"outputs: {(found or tuple(assigned))[-1]}")
    for o in system.outputs:
        if o not in assigned:
            raise system.place("outputs").error(f"the output {o!r} is assigned by no equation; assigned are "
                                                f"{', '.join(assigned)}")
    unused = [n for n in found if n not in system.outputs and n not in lags]
    if unused:
        raise assigned[unused[0]].place.error(f"{unused[0]}[t] is used by no equation and is no output")
    return system.outputs


def _check_learned(system: System, states: tuple[str, ...], lags: dict[str, int]) -> None:
    for name, step in system.learned:
        if name not in states or not 1 - lags[name] <= step <= 0:
            raise system.place(f"{name}[{step}]").error(f"'{name}[{step}]: learned' is not an initial value of a state; "
                                f"the states are {', '.join(states) or 'none'}")


def _needs(t: Term) -> tuple[str, ...]:
    """What a term reads of its own step; a size is read of whatever step is at hand."""
    if t.kind == "size":
        return (t.value,)
    return (t.value[0],) if t.kind == "signal" and t.value[1] == 0 else ()


def _ordered(assigned: dict[str, Equation], lags: dict[str, int]) -> tuple[Equation, ...]:
    """Equations so that each reads only what stands before it; a cycle within a step is an error."""
    lagged = {"size": lags}
    needs = {n: [d for t in e.term.walk() for d in _needs(t) if d in assigned and d not in lagged.get(t.kind, ())]
             for n, e in assigned.items()}
    order: dict[str, Equation] = {}
    path: list[str] = []
    stack: list[tuple[str, bool]] = [(n, False) for n in reversed(assigned)]
    while stack:
        name, leaving = stack.pop()
        if leaving:
            path.pop()
            order[name] = assigned[name]
        elif name in path:
            cycle = " -> ".join([*path[path.index(name):], name])
            raise assigned[name].place.error(f"these need each other at the same step: {cycle}; one must be read at t-1")
        elif name not in order:
            path.append(name)
            stack.append((name, True))
            stack += [(n, False) for n in reversed(needs[name]) if n not in order]
    return tuple(order.values())
