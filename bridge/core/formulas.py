"""Formulas: what stands wherever a number may stand, in ``bridge.yaml`` and in ``set_cm_vars``.

:func:`parse` once, when it is set; :func:`evaluate` every round. Results are finite floats, truth is 1.0 and
falsehood 0.0; a formula that has no value says why. The language is described in ``docs/formulas.md``, its grammar is
in :mod:`bridge.core.grammar` and its functions are in :mod:`bridge.core.functions`.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from simpleeval import SimpleEval

from bridge.core.functions import FUNCTIONS, NoValue, exists
from bridge.core.grammar import KEYWORDS, MAX_DEPTH, MAX_LENGTH, MAX_NODES, FormulaError, Parser, fold

__all__ = [
    "FUNCTIONS",
    "MAX_DEPTH",
    "MAX_LENGTH",
    "MAX_NODES",
    "Formula",
    "FormulaError",
    "NoValue",
    "evaluate",
    "fold",
    "is_name",
    "parse",
]

_PLAIN = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

MAX_WHOLE = 2.0**53
"""Up to here every whole number is a float of its own, so that ``&`` and ``|`` are exact."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula.

    ``constant``: its value, when it is just a number. ``names``: every name it reads, folded (see :func:`fold`), those
    only asked for by ``exists`` included. ``size``: how many values and operations it consists of. ``tree``: what there
    is to work out; None for a plain number.
    """

    text: str
    constant: float | None
    names: frozenset[str]
    size: int
    tree: ast.expr | None = field(compare=False, repr=False)


def parse(text: str | float | int) -> Formula:
    """Read a formula. A number, or a text that is just a number, becomes a constant.

    Raises :class:`FormulaError` for anything else than a finite number or a text of the language, and for a text that
    is longer, deeper or larger than ``MAX_LENGTH``, ``MAX_DEPTH`` and ``MAX_NODES`` allow.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = _written(text)
    if isinstance(text, str) and _PLAIN.fullmatch(text):
        # The everyday case, on the way from a grid command to the wallboxes: no grammar needed.
        return Formula(text, float(text), frozenset(), 1, None)
    if not isinstance(text, str):
        raise FormulaError(f"a formula is a number or a text, not {type(text).__name__}", 1)
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"{len(text)} characters are too long, at most {MAX_LENGTH} are allowed", MAX_LENGTH + 1)
    parser = Parser(text)
    tree = parser.formula()
    constant = tree.value + 0.0 if isinstance(tree, ast.Constant) and isinstance(tree.value, float) else None
    return Formula(text, constant, frozenset(parser.names), parser.size, tree)


def evaluate(formula: Formula, lookup: Callable[[str], float]) -> float:
    """The value of a formula now: a finite float. Branches not taken are not evaluated.

    ``lookup`` is asked for folded names and raises :class:`NoValue` when there is no value, as this function does.
    """
    if formula.constant is not None:
        return formula.constant
    assert formula.tree is not None
    value: float = _Evaluator(lookup)._eval(formula.tree)
    return value + 0.0  # -0.0 becomes 0.0, which is what people read


def is_name(text: str) -> bool:
    """Whether a variable may be called this: up to 64 ASCII letters, digits and ``_``, no digit first, no word of the
    language."""
    word = text.casefold()
    return _NAME.fullmatch(text) is not None and word not in KEYWORDS and word not in FUNCTIONS


def _written(number: float) -> str:
    """A number as a user writes it: 70, not 70.0. Numbers that are none come out as a word that is refused."""
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    return str(int(value)) if value.is_integer() and abs(value) < MAX_WHOLE else repr(value)


def _divide(a: float, b: float) -> float:
    if b == 0:
        raise NoValue("division by zero")
    return a / b


def _modulo(a: float, b: float) -> float:
    """The remainder has the sign of the dividend, as in C: -7 % 3 is -1."""
    if b == 0:
        raise NoValue("division by zero")
    return math.fmod(a, b)


def _power(a: float, b: float) -> float:
    if a == 0 and b < 0:
        raise NoValue("division by zero")
    if a < 0 and not b.is_integer():
        raise NoValue("a fractional power of a negative number is not a real number")
    try:
        return math.pow(a, b)
    except OverflowError:
        return math.inf


def _whole(x: float) -> int:
    if x.is_integer() and abs(x) <= MAX_WHOLE:
        return int(x)
    raise NoValue(f"& and | take whole numbers, not {x:g}")


class _Evaluator(SimpleEval):  # type: ignore[misc]
    """Evaluates one formula once: simpleeval, narrowed to floats and to the nodes our parser makes.

    Its tables belong to the class and never change, so any number of threads may evaluate; only ``names`` is its own.
    """

    functions = FUNCTIONS
    operators: ClassVar[Mapping[type, Callable[..., float]]] = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: _divide,
        ast.Mod: _modulo,
        ast.Pow: _power,
        ast.BitAnd: lambda a, b: float(_whole(a) & _whole(b)),
        ast.BitOr: lambda a, b: float(_whole(a) | _whole(b)),
        ast.Eq: lambda a, b: float(a == b),
        ast.NotEq: lambda a, b: float(a != b),
        ast.Lt: lambda a, b: float(a < b),
        ast.LtE: lambda a, b: float(a <= b),
        ast.Gt: lambda a, b: float(a > b),
        ast.GtE: lambda a, b: float(a >= b),
        ast.USub: operator.neg,
        ast.Not: lambda a: float(not a),
    }

    def __init__(self, lookup: Callable[[str], float]) -> None:
        # The inherited constructor would build all tables anew for every evaluation.
        self.names = lookup

    def _eval(self, node: ast.expr) -> float:
        value: float = self.nodes[type(node)](self, node)
        if math.isfinite(value):
            return value
        raise NoValue("a result is too large")

    def _eval_name(self, node: ast.Name) -> float:
        return float(self.names(node.id))  # an int would bring in unbounded whole numbers

    def _eval_boolop(self, node: ast.BoolOp) -> float:
        decisive = isinstance(node.op, ast.Or)
        if any(bool(self._eval(value)) is decisive for value in node.values):
            return float(decisive)
        return float(not decisive)

    def _eval_call(self, node: ast.Call) -> float:
        assert isinstance(node.func, ast.Name)
        function = FUNCTIONS[node.func.id]
        if function is exists:
            return exists(lambda: self._eval(node.args[0]))
        return function(*[self._eval(value) for value in node.args])

    nodes: ClassVar[Mapping[type, Callable[..., Any]]] = {
        ast.Constant: lambda self, node: node.value,
        ast.Name: _eval_name,
        ast.BinOp: SimpleEval._eval_binop,
        ast.UnaryOp: SimpleEval._eval_unaryop,
        ast.BoolOp: _eval_boolop,
        ast.Compare: SimpleEval._eval_compare,
        ast.IfExp: SimpleEval._eval_ifexp,
        ast.Call: _eval_call,
    }
