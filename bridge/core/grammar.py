"""From the text of a formula to a tree: a tokenizer and a Pratt parser (one function per precedence loop).

The tree is made of nodes of Python's own :mod:`ast`, the seven kinds that :mod:`bridge.core.formulas` can evaluate.
A dotted name such as ``M1.power_w`` is ONE ``ast.Name``: attributes do not exist in this language, nor do texts.
Where C and Python disagree about a spelling they share, C decides.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

from bridge.core.functions import FUNCTIONS

MAX_LENGTH = 1000
"""Characters of a formula."""

MAX_DEPTH = 100
"""Levels of the tree, and of parentheses: room for any honest sum, far from Python's recursion limit."""

MAX_NODES = 300
"""Values and operations of a formula: bounds the work of one evaluation."""

KEYWORDS = frozenset({"and", "or", "not", "if", "else", "true", "false", "nan", "inf", "infinity"})
"""Words that are no names. The last three are reserved so that a computer's "no number" is never taken for a name."""

# Precedence, loosest first. An expression takes in every operator whose level is at least the level asked for.
CONDITIONAL, OR, AND, NOT, BIT_OR, BIT_AND, COMPARISON, SUM, PRODUCT, SIGN, POWER = range(1, 12)

LEVELS = {
    **dict.fromkeys(("?", "if"), CONDITIONAL),
    **dict.fromkeys(("||", "or"), OR),
    **dict.fromkeys(("&&", "and"), AND),
    "|": BIT_OR,
    "&": BIT_AND,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), COMPARISON),
    **dict.fromkeys(("+", "-"), SUM),
    **dict.fromkeys(("*", "/", "%"), PRODUCT),
    **dict.fromkeys(("^", "**"), POWER),
}

ARITHMETIC: dict[str, ast.operator] = {
    "|": ast.BitOr(),
    "&": ast.BitAnd(),
    "+": ast.Add(),
    "-": ast.Sub(),
    "*": ast.Mult(),
    "/": ast.Div(),
    "%": ast.Mod(),
    "^": ast.Pow(),
    "**": ast.Pow(),
}

COMPARISONS: dict[str, ast.cmpop] = {
    "==": ast.Eq(),
    "!=": ast.NotEq(),
    "<": ast.Lt(),
    "<=": ast.LtE(),
    ">": ast.Gt(),
    ">=": ast.GtE(),
}

LOAD = ast.Load()

PARAMETERS = {name: inspect.signature(function).parameters.values() for name, function in FUNCTIONS.items()}

USAGE = {
    name: f"{name}({', '.join('…' if p.kind is p.VAR_POSITIONAL else p.name for p in parameters)})"
    for name, parameters in PARAMETERS.items()
}
"""How each function is called, such as ``min(a, b, …)``."""

ARITY = {
    name: (
        sum(p.kind is not p.VAR_POSITIONAL and p.default is p.empty for p in parameters),
        MAX_NODES if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(parameters),
    )
    for name, parameters in PARAMETERS.items()
}
"""The least and the most values of each function."""

HINTS = {
    ",": "numbers take a decimal point (3.5), and a comma only parts the values of a function",
    "=": "compare with ==",
    ";": "the values of a function are parted by commas",
    '"': "there are no texts in formulas",
    "'": "there are no texts in formulas",
    "if": "write it as: value if condition else other",
}

TOKEN = re.compile(
    r"""\s*(?:
      (?P<number> (?: 0[xX][0-9a-fA-F]+ | (?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? ) (?P<junk>[A-Za-z0-9_.]*) )
    | (?P<name> [A-Za-z_][A-Za-z0-9_]* (?:\.[A-Za-z_][A-Za-z0-9_]*)* )
    | (?P<sign> \*\* | && | \|\| | [=!<>]= | \S )
    | (?P<end> \Z )
    )""",
    re.VERBOSE,
)


class FormulaError(ValueError):
    """A text is no formula; says what is wrong and at which column (the first is 1)."""

    def __init__(self, problem: str, column: int) -> None:
        super().__init__(f"{problem} (column {column})")
        self.column = column


class Token(NamedTuple):
    """One word, number or sign. ``text`` is lower case; ``kind`` is number, name, sign or end."""

    kind: str
    text: str
    column: int


class Term(NamedTuple):
    """A parsed part of the formula and the number of levels of its tree."""

    tree: ast.expr
    depth: int


def fold(name: str) -> str:
    """The key a name is known by: ``CM.AVAIL``, ``cm.avail`` and ``AVAIL`` are one variable."""
    return name.casefold().removeprefix("cm.")


def tokens(text: str) -> Iterator[Token]:
    """Cut the text into tokens, one at a time so that a hopeless text costs little; the last is of kind ``end``."""
    for match in TOKEN.finditer(text):
        kind = match.lastgroup or ""  # never empty: one of the alternatives of TOKEN has matched
        column = match.start(kind) + 1
        if kind == "number" and match["junk"]:
            raise FormulaError(f"{shorten(match[kind])} is not a number; units are left out", column)
        yield Token(kind, match[kind].lower(), column)


def shorten(text: str) -> str:
    """A piece of the formula, quoted for an error text."""
    return f"'{text}'" if len(text) <= 20 else f"'{text[:20]}…'"


class Parser:
    """Parses one formula. ``names`` and ``size`` are complete after :meth:`formula`."""

    def __init__(self, text: str) -> None:
        self.ahead = tokens(text)
        self.token = next(self.ahead)
        self.names: set[str] = set()
        self.size = 0
        self.nesting = 0

    def formula(self) -> ast.expr:
        """The tree of the whole text."""
        if self.token.kind == "end":
            raise self.error("the formula is empty")
        term = self.expression(CONDITIONAL)
        if self.token.kind != "end":
            raise self.unexpected("an operator")
        return term.tree

    def expression(self, level: int) -> Term:
        """A value and all operators that bind at least as tightly as ``level``."""
        self.nesting += 1
        if self.nesting > MAX_DEPTH:
            raise self.error(f"nested too deeply, at most {MAX_DEPTH} levels are allowed")
        term = self.operand(level)
        while (found := LEVELS.get(self.token.text, 0)) >= level:
            term = self.infix(term, self.take().text, found)
        self.nesting -= 1
        return term

    def operand(self, level: int) -> Term:
        """What may stand at the beginning of an expression."""
        token = self.take()
        if token.kind == "number":
            return self.number(token)
        if token.kind == "name" and token.text not in KEYWORDS:
            return self.call(token) if self.token.text == "(" else self.name(token)
        match token.text:
            case "(":
                term = self.expression(CONDITIONAL)
                self.expect(")")
                return term
            case "true" | "false":
                return self.made(ast.Constant(float(token.text == "true")))
            case "+":
                return self.expression(SIGN)
            case "-":
                return self.minus(self.expression(SIGN))
            case "!":
                return self.negated(self.expression(SIGN))
            case "not":
                if level > NOT:
                    raise FormulaError("'not' needs parentheses here: (not …)", token.column)
                return self.negated(self.expression(NOT))
            case "nan" | "inf" | "infinity":
                raise FormulaError(f"'{token.text}' is not a number", token.column)
        raise self.unexpected("a value", token)

    def infix(self, left: Term, sign: str, level: int) -> Term:
        """``left``, its operator ``sign`` (already taken) and what follows."""
        if sign == "?":
            then = self.expression(CONDITIONAL)
            self.expect(":")
            return self.conditional(left, then, self.expression(CONDITIONAL))
        if sign == "if":
            test = self.expression(CONDITIONAL)
            self.expect("else")
            return self.conditional(test, left, self.expression(CONDITIONAL))
        # Power groups to the right and lets a sign stand in its exponent (2^-1); all others group to the left.
        right = self.expression(SIGN if level == POWER else level + 1)
        if level == COMPARISON:
            if self.token.text in COMPARISONS:
                raise self.error("a chained comparison is ambiguous, write a < b && b < c")
            return self.made(ast.Compare(left.tree, [COMPARISONS[sign]], [right.tree]), left, right)
        if level in (AND, OR):
            return self.made(ast.BoolOp(ast.And() if level == AND else ast.Or(), [left.tree, right.tree]), left, right)
        return self.made(ast.BinOp(left.tree, ARITHMETIC[sign], right.tree), left, right)

    def conditional(self, test: Term, then: Term, other: Term) -> Term:
        """Either spelling of the conditional."""
        return self.made(ast.IfExp(test.tree, then.tree, other.tree), test, then, other)

    def minus(self, term: Term) -> Term:
        """The negative; that of a literal is a literal, so that ``-5`` is a constant."""
        if isinstance(term.tree, ast.Constant) and isinstance(term.tree.value, float):
            return Term(ast.Constant(-term.tree.value), term.depth)
        return self.made(ast.UnaryOp(ast.USub(), term.tree), term)

    def negated(self, term: Term) -> Term:
        """The logical opposite."""
        return self.made(ast.UnaryOp(ast.Not(), term.tree), term)

    def number(self, token: Token) -> Term:
        """A literal; all numbers are floats."""
        try:
            value = float(int(token.text, 16)) if token.text.startswith("0x") else float(token.text)
        except OverflowError:
            value = float("inf")
        if value == float("inf"):
            raise FormulaError("the number is too large", token.column)
        return self.made(ast.Constant(value))

    def name(self, token: Token) -> Term:
        """A variable or reading."""
        if token.text in FUNCTIONS:
            raise FormulaError(f"'{token.text}' is a function, write {USAGE[token.text]}", token.column)
        name = fold(token.text)
        self.names.add(name)
        return self.made(ast.Name(name, LOAD))

    def call(self, token: Token) -> Term:
        """A function with its values in parentheses."""
        if token.text not in FUNCTIONS:
            known = ", ".join(sorted(FUNCTIONS))
            raise FormulaError(f"unknown function {shorten(token.text)}; there are {known}", token.column)
        self.expect("(")
        values: list[Term] = []
        while self.token.text != ")":
            if values:
                self.expect(",")
            values.append(self.expression(CONDITIONAL))
        self.expect(")")
        least, most = ARITY[token.text]
        if not least <= len(values) <= most:
            number = "1 value" if len(values) == 1 else f"{len(values)} values"
            raise FormulaError(f"write {USAGE[token.text]}, not {token.text} with {number}", token.column)
        if token.text == "exists" and not isinstance(values[0].tree, ast.Name):
            raise FormulaError("exists takes the name of a variable or reading", token.column)
        function = ast.Name(token.text, LOAD)
        return self.made(ast.Call(function, [value.tree for value in values], []), *values)

    def made(self, tree: ast.expr, *parts: Term) -> Term:
        """Every node of the tree passes here, where size and depth are bounded."""
        self.size += 1
        if self.size > MAX_NODES:
            raise self.error(f"too many values and operations, at most {MAX_NODES} are allowed")
        depth = 1 + max([part.depth for part in parts], default=0)
        if depth > MAX_DEPTH:
            raise self.error(f"nested too deeply, at most {MAX_DEPTH} levels are allowed")
        return Term(tree, depth)

    def take(self) -> Token:
        """The current token; the next one becomes current."""
        token = self.token
        self.token = next(self.ahead, token)
        return token

    def expect(self, text: str) -> None:
        """Take exactly this sign or word."""
        if self.token.text != text:
            raise self.unexpected(f"'{text}'")
        self.take()

    def error(self, problem: str) -> FormulaError:
        """A mistake at the current token."""
        return FormulaError(problem, self.token.column)

    def unexpected(self, wanted: str, token: Token | None = None) -> FormulaError:
        """A token that does not fit, with a hint when the mistake is a usual one."""
        kind, text, column = token or self.token
        found = "the formula ends" if kind == "end" else f"found {shorten(text)}"
        hint = f"; {HINTS[text]}" if text in HINTS else ""
        return FormulaError(f"expected {wanted}, {found}{hint}", column)
