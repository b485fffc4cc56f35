"""Precedence and meaning against two independent judges: a C compiler, and a tree evaluator of our own.

Trees are made at random, written down with as few parentheses as the precedence table of C allows, and read again.
"""

import math
import random
import subprocess
from collections.abc import Iterator, Mapping
from itertools import cycle, islice, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.formulas import FUNCTIONS, FormulaError, NoValue, evaluate, parse

Tree = str | tuple["str | Tree", ...]
"""A name or number, or (operator, operands…)."""

VALUES = {"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0, "e": 5.0, "f": 6.0, "g": 7.0}

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")

# From the C standard (6.5), with power put where mathematics has it. 7: one level, as chains are refused.
LEVEL = {
    **dict.fromkeys(("?",), 1),
    "||": 2,
    "&&": 3,
    "|": 5,
    "&": 6,
    **dict.fromkeys(COMPARISONS, 7),
    **dict.fromkeys(("+", "-"), 8),
    **dict.fromkeys(("*", "/", "%"), 9),
    **dict.fromkeys(("neg", "!"), 10),
    "^": 11,
}
PYTHON = {"&&": "and", "||": "or", "^": "**", "!": "not"}
NOT_LEVEL = 4


def written(tree: Tree, python: bool = False, floor: int = 0) -> str:
    """The tree with as few parentheses as possible; ``python``: and, or, not, **, if else."""
    if isinstance(tree, str):
        return tree
    sign, *parts = tree
    assert isinstance(sign, str)
    level = NOT_LEVEL if python and sign == "!" else LEVEL[sign]
    spelled = PYTHON.get(sign, sign) if python else sign

    def part(index: int, floor: int) -> str:
        return written(parts[index], python, floor)

    if sign == "?":
        text = (
            f"{part(1, 2)} if {part(0, 2)} else {part(2, 1)}"
            if python
            else f"{part(0, 2)} ? {part(1, 1)} : {part(2, 1)}"
        )
    elif sign in ("neg", "!"):
        text = f"{'-' if sign == 'neg' else spelled} {part(0, level)}"
    elif sign == "^":
        text = f"{part(0, 12)} {spelled} {part(1, 10)}"
    else:
        text = f"{part(0, level + (sign in COMPARISONS))} {spelled} {part(1, level + 1)}"
    return f"({text})" if level < floor else text


class Undefined(Exception):
    """The tree has no value."""


def calculated(tree: Tree, values: Mapping[str, float]) -> float:
    """The value of a tree, straight from the meaning of its operators."""
    if isinstance(tree, str):
        return values[tree] if tree in values else float(tree)
    sign, *parts = tree
    first = calculated(parts[0], values)
    match sign:
        case "?":
            return calculated(parts[1] if first != 0 else parts[2], values)
        case "&&":
            return float(first != 0 and calculated(parts[1], values) != 0)
        case "||":
            return float(first != 0 or calculated(parts[1], values) != 0)
        case "neg":
            return -first
        case "!":
            return float(first == 0)
    second = calculated(parts[1], values)
    result = binary(str(sign), first, second)
    if not math.isfinite(result):
        raise Undefined
    return result


def binary(sign: str, a: float, b: float) -> float:
    if sign in COMPARISONS:
        return float({"==": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign])
    try:
        match sign:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
            case "/":
                return a / b
            case "%":
                return math.copysign(abs(a) % abs(b), a)
            case "^":
                power = a**b
                if isinstance(power, complex):
                    raise Undefined
                return float(power)
    except (ZeroDivisionError, OverflowError):
        raise Undefined from None
    if a != int(a) or b != int(b) or max(abs(a), abs(b)) > 2**53:
        raise Undefined
    return float(int(a) & int(b)) if sign == "&" else float(int(a) | int(b))


def trees(leaves: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    binaries = st.sampled_from([sign for sign in LEVEL if sign not in ("?", "neg", "!")])
    return st.recursive(
        leaves,
        lambda part: st.one_of(
            st.tuples(binaries, part, part),
            st.tuples(st.sampled_from(("neg", "!")), part),
            st.tuples(st.just("?"), part, part, part),
        ),
        max_leaves=12,
    )


LEAVES = st.sampled_from([*VALUES, "0", "1", "2", "3", "0.5", "16", "1e300"])


def outcome(text: str) -> float | None:
    try:
        return evaluate(parse(text), VALUES.__getitem__)
    except NoValue:
        return None


def pairs(signs: list[str]) -> Iterator[Tree]:
    """Every operator inside every place of every operator, over several values: what decides a grammar."""
    for outer, inner, start in product(signs, signs, range(len(VALUES))):
        names = islice(cycle(VALUES), start, None)
        for place in range(arity(outer)):
            parts: list[Tree] = [next(names) for _ in range(arity(outer))]
            parts[place] = (inner, *(next(names) for _ in range(arity(inner))))
            yield (outer, *parts)


def arity(sign: str) -> int:
    return {"?": 3, "neg": 1, "!": 1}.get(sign, 2)


def test_every_pair_of_operators() -> None:
    for tree in pairs([*LEVEL]):
        check(tree)


@given(trees(LEAVES))
def test_both_spellings_mean_the_tree(tree: Tree) -> None:
    check(tree)


def check(tree: Tree) -> None:
    try:
        expected = calculated(tree, VALUES)
    except Undefined:
        expected = None
    assert outcome(written(tree)) == expected
    assert outcome(written(tree, python=True)) == expected


WORDS = [
    *LEVEL,
    *VALUES,
    *FUNCTIONS,
    *PYTHON.values(),
    *"():,.;='",
    "if",
    "else",
    "true",
    "M1.x",
    "0x1f",
    "2.5",
    "1e308",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)))
def test_any_text_is_a_formula_or_refused(text: str) -> None:
    try:
        result: object = evaluate(parse(text), lambda name: VALUES.get(name, -1e308))
    except (FormulaError, NoValue) as error:
        result = error
    match result:
        case float():
            assert math.isfinite(result)
        case FormulaError():
            assert 1 <= result.column <= len(text) + 1
        case _:
            assert str(result)


def random_tree(chance: random.Random, signs: list[str], depth: int) -> Tree:
    if depth == 0 or chance.random() < 0.15:
        return chance.choice([*VALUES])
    sign = chance.choice(signs)
    return (sign, *(random_tree(chance, signs, depth - 1) for _ in range(arity(sign))))


@pytest.mark.system("gcc")
@pytest.mark.parametrize(("number", "absent"), [("double", ("^", "%", "&", "|")), ("long long", ("^", "/"))])
def test_a_c_compiler_agrees(number: str, absent: tuple[str, ...], tmp_path: Path) -> None:
    """The very same text, given to gcc: with fractions on doubles, with bits and remainders on whole numbers."""
    chance = random.Random(7)
    signs = [sign for sign in LEVEL if sign not in absent]
    texts: list[str] = []
    for tree in (*list(pairs(signs))[::5], *(random_tree(chance, signs, 4) for _ in range(400))):
        try:
            if abs(calculated(tree, VALUES)) < 2**53:
                texts.append(written(tree))
        except Undefined:
            continue  # dividing by zero has no meaning in C
    declared = ", ".join(f"{name} = {value:g}" for name, value in VALUES.items())
    prints = "\n".join(f'printf("%.17g\\n", (double)({text}));' for text in texts)
    source = tmp_path / "formulas.c"
    source.write_text(f"#include <stdio.h>\nint main(void) {{ volatile {number} {declared};\n{prints}\nreturn 0; }}\n")
    program = tmp_path / "formulas"
    subprocess.run(["gcc", "-w", "-ffp-contract=off", "-o", program, source], check=True)
    answers = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    assert len(answers) > 500
    ours = [outcome(text) for text in texts]
    wrong = [
        (text, our, answer) for text, our, answer in zip(texts, ours, answers, strict=True) if our != float(answer)
    ]
    assert not wrong
