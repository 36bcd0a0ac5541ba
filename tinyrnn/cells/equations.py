"""The equation language: text to terms.  Nothing is ever executed.

    name[t] = expression        one equation a line; `#` starts a comment
    alpha: scalar               a parameter that is one number
    A: (h, h) fixed             a constant array, given when the cell is initialised
    dt = 0.042                  a constant
    h[0]: learned               an initial state that is trained
    inputs: x, u                what the cell reads, in this order (needed only for an input that no equation reads at t)
    outputs: h, y               which quantities the cell hands out

An equation may go on over several lines inside brackets.  The text is limited, tokenised and only then given to `ast`,
whose tree is read through an allowlist.
"""

from __future__ import annotations

import ast
import math
import re
import unicodedata
import warnings
from collections.abc import Sequence
from typing import Any

from ..errors import EquationError
from ..functions import FUNCTIONS, LISTS, RESERVED
from .mistakes import instead_of, nearest, what_is_wrong, word_of_python
from .terms import Declaration, Equation, Place, System, Term

MAX_TEXT = 65_536
MAX_LINES = 512
MAX_OPERATORS = 200
MAX_NESTING = 40
MAX_LAG = 64

# name -> number of arguments of the functions that are not taken entry by entry
ROWS = {"softmax": 1, "layer_norm": 1, "rms_norm": 1}
REDUCTIONS = {"sum": 1, "mean": 1}
OTHERS = {"where": 3, "outer": 2, "clip": 3, "size": 1}
ALIASES = {"σ": "sigmoid"}

_BINARY: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.MatMult: "@",
                                          ast.Pow: "**"}
_COMPARE: dict[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_SPELLING = str.maketrans({"⊙": "*", "·": "@", "−": "-", "×": "*"})
_LOOKALIKES = set("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο")


def parse(text: str) -> System:
    """The lines of a cell, or one `EquationError` that says where and why not."""
    if not isinstance(text, str):
        raise EquationError(f"a cell is written as text, got {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise EquationError(f"the text has {len(text):,} characters; at most {MAX_TEXT:,} are read")
    lines = text.replace("\r\n", "\n").split("\n")
    if len(lines) > MAX_LINES:
        raise EquationError(f"the text has {len(lines):,} lines; at most {MAX_LINES} are read")
    reader = _Reader()
    for number, line in enumerate(lines, 1):
        reader.line(number, line)
    reader.close()
    return reader.system()


def parse_line(expression: str, source: str = "", number: int = 1) -> Equation:
    """One expression of a backward pass, which may read what lies ahead: `W.T @ d[t+1]`; it ends the line `source`."""
    source, text = source or expression, f"value[t] = {expression.strip().translate(_SPELLING)}"
    line = _Line([(number, source, text)], future=True)
    line.parts = [(text.index("=") + 2 - max(source.rfind(expression.strip()), 0), number, source)]
    _check_characters(expression.translate(_SPELLING), len(expression), number)
    target, value = line.assignment()
    return Equation("value", line.term(value), line.place(target))


_NAME = r"[^\W\d]\w*"
_DECLARATION = re.compile(rf"\s*({_NAME})(\[(0|-\d+)\])?\s*:(?!=)(.*)$")
_CONSTANT = re.compile(rf"\s*({_NAME})\s*=\s*(.+)$")
_SIZES = re.compile(r"\(([^()]*)\)\s*(fixed)?$")
_BEGINS = re.compile(rf"\s*{_NAME}(\[[^]]*\])?\s*(=(?!=)|:)")


class _Reader:
    """Collects lines; every mistake is raised with its place."""

    def __init__(self) -> None:
        self.equations: dict[str, Equation] = {}
        self.declarations: dict[str, Declaration] = {}
        self.constants: dict[str, float] = {}
        self.learned: dict[tuple[str, int], None] = {}
        self.lists: dict[str, tuple[str, ...]] = {}
        self.header: list[str] = []
        self.places: dict[str, Place] = {}
        self.begun: list[tuple[int, str, str]] = []     # lines of an equation whose brackets are still open,
        self.depth = 0                                  # and how many are

    def line(self, number: int, source: str) -> None:
        code, _, comment = source.partition("#")
        _check_characters(source, len(code), number)
        if not code.strip():
            if comment and not self.equations and not self.declarations and not self.constants:
                self.header.append(comment.strip())
            return
        code = code.translate(_SPELLING).replace("\t", " ")
        if self.begun and _BEGINS.match(code):
            self.close()
        self.begun.append((number, source, code))
        self.depth += sum((c in "([{") - (c in ")]}") for c in code)
        if self.depth <= 0 or self.depth > MAX_NESTING:
            line = _Line(self.begun)
            line.open()
            self.begun, self.depth = [], 0
            self._statement(line)

    def close(self) -> None:
        """No equation may be left with an open bracket."""
        if self.begun:
            raise _Line(self.begun).open()[-1].error("this bracket is never closed")

    def _statement(self, line: _Line) -> None:
        declared = _DECLARATION.match(line.code)
        if declared:
            self._declare(line, *declared.group(1, 3, 4))
            return
        target, value = line.assignment()
        if isinstance(target, ast.Name):
            self._constant(line, target, value)
            return
        name, lag = line.signal(target)
        if lag:
            raise line.error("the left side is what happens now: write name[t]", target)
        if name in self.equations:
            raise line.error(f"{name}[t] is assigned twice; the first time in line {self.equations[name].place.line}", target)
        self.equations[name] = Equation(name, line.term(value), line.place(target))

    def _declare(self, line: _Line, name: str, step: str | None, what: str) -> None:
        what = what.strip()
        place = line.at(0)
        line_of = name if step is None else f"{name}[{step}]"
        if self.places.setdefault(line_of, place) is not place:
            raise place.error(f"{line_of} stands there twice; the first time in line {self.places[line_of].line}")
        if name in LISTS and step is None:
            self.lists[name] = names = tuple(part.strip() for part in what.split(","))
            if not all(re.fullmatch(_NAME, o) for o in names) or len(set(names)) < len(names):
                raise place.error(f"expected a list of names: {name}: {'x, u' if name == 'inputs' else 'h, y'}")
        elif step is not None:
            if what != "learned":
                raise place.error(f"expected '{name}[{step}]: learned', got {what!r}")
            self.learned[name, int(step)] = None
        else:
            _check_name(name, place)
            self.declarations[name] = Declaration(name, *_declared(what, place), place)

    def _constant(self, line: _Line, target: ast.Name, value: ast.expr) -> None:
        term = line.term(value)
        if term.kind == "negate" and term.args[0].kind == "number":
            term = Term("number", -term.args[0].value)
        if term.kind != "number":
            raise line.error(f"without a time index only a constant can be given: {target.id} = 0.5; "
                             f"for a quantity of this step write {target.id}[t] = ...", target)
        _check_name(target.id, line.place(target))
        if target.id in self.constants:
            raise line.error(f"the constant {target.id} is given twice", target)
        self.places[target.id] = line.place(target)
        self.constants[target.id] = term.value

    def system(self) -> System:
        if not self.equations:
            raise EquationError("there is no equation; write at least one: h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
        header = tuple(self.header)
        return System(tuple(self.equations.values()), tuple(self.declarations.values()), tuple(self.constants.items()),
                      tuple(self.learned), self.lists.get("outputs", ()), self.lists.get("inputs", ()), header,
                      tuple(self.places.items()))


def _declared(what: str, place: Place) -> tuple[tuple[str, ...] | None, bool]:
    if what == "scalar":
        return (), False
    if what == "fixed":
        return None, True
    sizes = _SIZES.match(what)
    if sizes:
        names = tuple(s.strip().replace(" ", "") for s in sizes.group(1).split(",") if s.strip())
        if len(names) <= 2 and all(re.fullmatch(r"\w+(\+\w+)*", n) for n in names):
            return names, sizes.group(2) is not None
    raise place.error(f"expected scalar, fixed, or sizes such as (h, h) fixed; got {what!r}")


def functions() -> dict[str, int]:
    """The functions of the language, and how many arguments each takes."""
    return {**{f.name: f.operands for f in FUNCTIONS.values()}, **ROWS, **REDUCTIONS, **OTHERS}


def _check_name(name: str, place: Place) -> None:
    function = name in functions() or name in ALIASES
    if name in RESERVED or function:
        kind = "a function" if function else "a word of the language"
        raise place.error(f"{name!r} is {kind} and cannot name a quantity")
    if name.startswith("__"):
        raise place.error(f"{name!r}: names do not start with two underscores")


def _check_characters(source: str, code_end: int, number: int) -> None:
    """Refuse what is invisible, and in code what Python would change or a reader would mistake."""
    for column, c in enumerate(source, 1):
        if c.isascii() and (c.isprintable() or c == "\t"):
            continue
        place = Place(number, column, source)
        if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            raise place.error(f"the character U+{ord(c):04X} is not allowed")
        if column > code_end or c in "⊙·−×":
            continue
        plain = unicodedata.normalize("NFKC", c)
        if plain != c:
            raise place.error(f"{c!r} means {plain!r} to Python; write {_spelled(plain)}")
        if c in _LOOKALIKES or not "Ͱ" <= c <= "Ͽ":
            raise place.error(f"{c!r} ({unicodedata.name(c, 'unnamed')}) is not used in equations: "
                              "names have Latin and Greek letters, digits and _")


def _spelled(plain: str) -> str:
    return f"_{plain}" if plain.isdigit() else repr(plain)


class _Line:
    """One equation, of one line or several: tokenised within limits, then parsed, then read through the allowlist."""

    def __init__(self, lines: Sequence[tuple[int, str, str]], future: bool = False) -> None:
        self.future = future
        self.code = " ".join(code.rstrip() if k else code for k, (_, _, code) in enumerate(lines))
        self.parts: list[tuple[int, int, str]] = []     # (where it begins in the text, its number, its source)
        self.text = ""
        for number, source, code in lines:
            self.text += " " if self.parts else ""
            self.parts.append((len(self.text) - (len(code) - len(code.lstrip())), number, source))
            self.text += code.strip()

    def at(self, column: int) -> Place:
        begin, number, source = next(p for p in reversed(self.parts) if p[0] <= column or p is self.parts[0])
        return Place(number, column - begin + 1, source)

    def open(self) -> list[Place]:
        """The brackets that are not closed."""
        stack: list[Place] = []
        for column, c in enumerate(self.text):
            if c in "([{":
                stack.append(self.at(column))
                if len(stack) > MAX_NESTING:
                    raise stack[-1].error(f"brackets are nested more than {MAX_NESTING} deep")
            elif c in ")]}" and stack:
                stack.pop()
        return stack

    def place(self, node: ast.AST) -> Place:
        bytes_before = self.text.encode()[: getattr(node, "col_offset", 0)]
        return self.at(len(bytes_before.decode(errors="ignore")))

    def error(self, message: str, node: ast.AST) -> EquationError:
        return self.place(node).error(message)

    def assignment(self) -> tuple[ast.expr, ast.expr]:
        self._limit()
        if word := word_of_python(self.text):
            raise self.at(word[0]).error(word[1])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                tree = ast.parse(self.text)
        except SyntaxError as error:
            column, message = what_is_wrong(self.text, (error.offset or 1) - 1, error.msg, functions())
            raise self.at(column).error(message) from None
        except (RecursionError, MemoryError, ValueError, OverflowError) as error:
            column, message = what_is_wrong(self.text, 0, f"it is too deep or too large ({type(error).__name__})",
                                            functions())
            raise self.at(column).error(message) from None
        statement = tree.body[0]
        if len(tree.body) != 1 or not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            raise self.error("expected one equation a line: name[t] = expression (inside brackets it may go on in the "
                             "next line)", tree.body[-1])
        return statement.targets[0], statement.value

    def _limit(self) -> None:
        operators = 0
        for column, c in enumerate(self.text):
            operators += c in "+-*/@,.<>~!%^&|" or c in "([{"
            if operators > MAX_OPERATORS:
                raise self.at(column).error(f"more than {MAX_OPERATORS} operators in one equation; name a part of it")

    def signal(self, node: ast.expr) -> tuple[str, int]:
        """`h[t-2]` as ("h", 2)."""
        if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
            raise self.error("the left side must be name[t]", node)
        _check_name(node.value.id, self.place(node))
        return node.value.id, self._lag(node.slice)

    def _lag(self, s: ast.expr) -> int:
        if isinstance(s, ast.Name) and s.id == "t":
            return 0
        if (isinstance(s, ast.BinOp) and isinstance(s.left, ast.Name) and s.left.id == "t"
                and isinstance(s.right, ast.Constant) and type(s.right.value) is int):
            if isinstance(s.op, ast.Add) and self.future:
                return -s.right.value
            if isinstance(s.op, ast.Add):
                raise self.error("the future is not known yet: a time index is t, t-1, t-2, ...", s)
            if isinstance(s.op, ast.Sub) and 1 <= s.right.value <= MAX_LAG:
                return s.right.value
        raise self.error(f"a time index is t or t-1 up to t-{MAX_LAG}", s)

    def term(self, node: ast.expr) -> Term:
        place = self.place(node)
        match node:
            case ast.Constant(value=v) if type(v) in (int, float):
                return Term("number", self._finite(v, node), (), place)
            case ast.Name(id="inf" | "nan" as name):
                return Term("number", math.inf if name == "inf" else math.nan, (), place)
            case ast.BinOp(op=ast.BitXor()):
                raise self.at(self.text.index("^")).error("^ is no operator here: a power is written a ** b, a transpose W.T")
            case ast.Name(id=name):
                return self._name(name, node, place)
            case ast.Subscript(value=ast.Name()):
                return Term("signal", self.signal(node), (), place)
            case ast.Attribute(value=ast.Name(id=name), attr="T"):
                _check_name(name, place)
                return Term("transpose", name, (), place)
            case ast.BinOp(op=ast.MatMult(), left=a, right=b):
                return _multiplied(self.term(a), self.term(b), place)
            case ast.BinOp(op=op, left=a, right=b) if type(op) in _BINARY:
                return self._folded(Term("binary", _BINARY[type(op)], (self.term(a), self.term(b)), place), node)
            case ast.UnaryOp(op=ast.USub(), operand=a):
                return Term("negate", None, (self.term(a),), place)
            case ast.UnaryOp(op=ast.UAdd(), operand=a):
                return self.term(a)
            case ast.List(elts=[_, *_] as parts):
                return Term("join", None, tuple(self.term(p) for p in parts), place)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(ALIASES.get(name, name), args, node, place)
        raise self.error(f"{_described(node)} is not part of the language", node)

    def _finite(self, value: Any, node: ast.expr) -> float:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.error("the number is too large", node)
        return number

    def _folded(self, term: Term, node: ast.expr) -> Term:
        """Arithmetic on numbers alone is done here, in floating point, where it can be refused."""
        if not all(map(_is_number, term.args)) or term.value == "@":
            return term
        a, b = (x.value if x.kind == "number" else -x.args[0].value for x in term.args)
        try:
            value = {"+": a.__add__, "-": a.__sub__, "*": a.__mul__, "/": a.__truediv__, "**": a.__pow__}[term.value](b)
        except (OverflowError, ZeroDivisionError):
            value = math.inf
        if isinstance(value, complex):
            raise self.error("the number is not real", node)
        number = Term("number", self._finite(abs(value), node), (), term.place)
        return Term("negate", None, (number,), term.place) if value < 0 else number

    def _name(self, name: str, node: ast.expr, place: Place) -> Term:
        if name == "t":
            raise self.error("t is the time index and has no value", node)
        _check_name(name, place)
        return Term("parameter", name, (), place)

    def _call(self, name: str, args: list[ast.expr], node: ast.Call, place: Place) -> Term:
        known = functions()
        if name not in known:
            raise self.error(f"there is no function {name!r}; the functions are {', '.join(known)}"
                             + (instead_of(name) or nearest(name, known)), node)
        if len(args) != known[name]:
            raise self.error(f"{name} takes {known[name]} argument{'s' * (known[name] > 1)}, got {len(args)}", node)
        if name == "where":
            return Term("call", name, (self._condition(args[0]), *map(self.term, args[1:])), place)
        if name == "size":
            what = self.term(args[0])
            if what.kind != "signal":
                raise self.error("size takes a quantity with a time index: size(h[t-1])", node)
            return Term("size", what.value[0], (), place)
        terms = tuple(map(self.term, args))
        if name == "clip" and not all(_is_number(a) for a in terms[1:]):
            raise self.error("clip takes two numbers as its bounds: clip(x[t], -1, 1)", node)
        return Term("call", name, terms, place)

    def _condition(self, node: ast.expr) -> Term:
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            return Term("compare", _COMPARE[type(node.ops[0])], (self.term(node.left), self.term(node.comparators[0])),
                        self.place(node))
        raise self.error("where needs one comparison: where(a[t] < b[t], then, otherwise)", node)


def _multiplied(left: Term, right: Term, place: Place) -> Term:
    """`-W @ v` is `-(W @ v)`."""
    if left.kind == "negate":
        return Term("negate", None, (_multiplied(left.args[0], right, place),), place)
    return Term("binary", "@", (left, right), place)


def _is_number(term: Term) -> bool:
    return term.kind == "number" or (term.kind == "negate" and term.args[0].kind == "number")


_WORDS = {"Attribute": "an attribute (only .T of a parameter is known)", "Compare": "a comparison outside where(...)",
          "JoinedStr": "an f-string", "Constant": "this constant", "NamedExpr": "an assignment inside",
          "Subscript": "this index", "List": "an empty list", "Call": "a call of what is no function (is * or @ missing?)",
          "Starred": "a star", "BinOp": "this operator", "UnaryOp": "this operator"}


def _described(node: ast.expr) -> str:
    return _WORDS.get(type(node).__name__, type(node).__name__)
