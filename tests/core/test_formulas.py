"""The formula language: what it means, what it refuses, and what it can never do."""

import ast
import doctest
import inspect
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.core.formulas import (
    FUNCTIONS,
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_NODES,
    FormulaError,
    NoValue,
    evaluate,
    fold,
    is_name,
    parse,
)

DOCS = Path(__file__).parents[2] / "docs" / "formulas.md"


def names(**values: float) -> Callable[[str], float]:
    """A lookup of these names; ``__`` stands for the dot."""
    known = {key.replace("__", ".").casefold(): value for key, value in values.items()}

    def lookup(key: str) -> float:
        if key not in known:
            raise NoValue(f"unknown name {key}")
        return known[key]

    return lookup


def value(formula: str, **values: float) -> float:
    return evaluate(parse(formula), names(**values))


# Meanings published for the formulas of charging managers that users bring along.
@pytest.mark.parametrize(
    ("formula", "values", "expected"),
    [
        ("10^2", {}, 100),
        ("abs(-2)", {}, 2),
        ("min(7,3,5)", {}, 3),
        ("max(7,3,5)", {}, 7),
        ("clamp(5,6,16)", {}, 6),
        ("clamp(20,6,16)", {}, 16),
        ("clamp(10,6,16)", {}, 10),
        ("round(10*x)/10", {"x": 3.14159}, 3.1),
        ("sqrt(16)", {}, 4),
        ("17 % 5", {}, 2),
        ("6 & 3", {}, 2),
        ("6 | 3", {}, 7),
        ("exists(AVAIL)", {"AVAIL": 0}, 1),
        ("exists(NOPE)", {}, 0),
        ("M1.current >= 6500 ? M1.current : 0", {"M1__current": 7000}, 7000),
        ("M1.current >= 6500 ? M1.current : 0", {"M1__current": 6500}, 6500),
        ("M1.current >= 6500 ? M1.current : 0", {"M1__current": 6499}, 0),
        ("import_wh + M1.power_w * dt / 3600", {"import_wh": 1000, "M1__power_w": 6000, "dt": 3}, 1005),
        ("(power_w * (20 - dt) + M1.power_w * dt) / 20", {"power_w": 1000, "M1__power_w": 3000, "dt": 3}, 1300),
        ("date.dayminute >= 480 ? 8000 : 0", {"date__dayminute": 480}, 8000),
        ("date.dayminute >= 480 ? 8000 : 0", {"date__dayminute": 479}, 0),
        ("date.weekday == 5 || date.weekday == 6 ? 16000 : 0", {"date__weekday": 5}, 16000),
        ("date.weekday == 5 || date.weekday == 6 ? 16000 : 0", {"date__weekday": 6}, 16000),
        ("date.weekday == 5 || date.weekday == 6 ? 16000 : 0", {"date__weekday": 0}, 0),
        ("PB.input2 ? 6000 : 0", {"PB__input2": 1}, 6000),
        ("PB.input2 ? 25000 : 0", {"PB__input2": 1}, 25000),
        ("PB.input2 ? 25000 : 0", {"PB__input2": 0}, 0),
        ("cm.var1 ? 6000 : 0", {"var1": 1.5}, 6000),
        ("cm.var1 ? 6000 : 0", {"var1": 0}, 0),
        ("16000 - M1.current", {"M1__current": 5000}, 11000),
        ("16000 - M1.current", {"M1__current": 18000}, -2000),
        ("min(16000, 29000 - M3.current)", {"M3__current": 20000}, 9000),
        ("min(16000, 29000 - M3.current)", {"M3__current": 5000}, 16000),
        ("min(16000, 29000 - M3.current + E3.current)", {"M3__current": 20000, "E3__current": 8000}, 16000),
        ("55000 * AVAIL / 100", {"AVAIL": 100}, 55000),
        ("55000 * AVAIL / 100", {"AVAIL": 70}, 38500),
        ("55000 * AVAIL / 100", {"AVAIL": 0}, 0),
        ("V1.soc < 50", {"V1__soc": 49}, 1),
        ("max(10000, lb_cur)", {"lb_cur": 7200}, 10000),
        ("max(1.2*surplus_pcur, 6000)", {"surplus_pcur": 8000}, 9600),
        ("max(surplus_pcur, 6000)", {"surplus_pcur": 1500}, 6000),
        ("M6.soc > 60", {"M6__soc": 60}, 0),
        ("M6.soc > 60", {"M6__soc": 61}, 1),
        ("x==1 || y==1 && z==1", {"x": 1, "y": 0, "z": 0}, 1),
        ("!0", {}, 1),
        ("!5", {}, 0),
        ("PB.input1 ? (PB.input2 ? 0 : 30) : (PB.input2 ? 60 : 100)", {"PB__input1": 1, "PB__input2": 0}, 30),
        ("M5.import_wh", {"M5__import_wh": 12.5}, 12.5),
        ("TARIF", {"TARIF": 1}, 1),
    ],
)
def test_published_formulas(formula: str, values: dict[str, float], expected: float) -> None:
    assert value(formula, **values) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("-2^2", -4),
        ("-2**2", -4),
        ("2^3^2", 512),
        ("2^-1", 0.5),
        ("2^-1^2", 0.5),
        ("-7 % 3", -1),
        ("7 % -3", 1),
        ("5.5 % 2", 1.5),
        ("clamp(10, 16, 6)", 6),
        ("round(2.5)", 3),
        ("round(-2.5)", -3),
        ("round(0.49999999999999994)", 0),
        ("round(-0.2)", 0),
        ("!0 == 1", 1),
        ("!2 == 2", 0),
        ("not 2 == 3", 1),
        ("not 0 & 0", 1),
        ("not not 5", 1),
        ("6 & 3 == 3", 0),
        ("4 | 2 & 3", 6),
        ("1 | 0 && 0", 0),
        ("-1 & 3", 3),
        ("1 || 0 && 0", 1),
        ("2 && 3", 1),
        ("0 || 0.5", 1),
        ("0 or 0", 0),
        ("1 ? 2 : 3 ? 4 : 5", 2),
        ("0 ? 2 : 0 ? 4 : 5", 5),
        ("2 if 0 else 4 if 0 else 5", 5),
        ("1 + 1 if 1 else 3", 2),
        ("1 ? 2 : 3 + 4", 2),
        ("1 ? 0 ? 1 : 2 : 3", 2),
        ("TRUE + False", 1),
        ("MAX(1, Min(2, 3)) IF 1 AND NOT 0 ELSE 9", 2),
        ("0x1F + 0XfF", 286),
        ("1e3 + 1.5E-1 + .5 + 5.", 1005.65),
        ("007", 7),
        (" 1\t+\n1\u00a0", 2),
        ("+-+5", -5),
        ("((((7))))", 7),
    ],
)
def test_where_spellings_disagree_c_decides(formula: str, expected: float) -> None:
    assert value(formula) == expected
    assert str(value(formula)) != "-0.0"


@pytest.mark.parametrize(
    "formula",
    [
        "x ? 1/0 : 7",
        "7 if not x else nope",
        "(x && 1/0) + 7",
        "(!x || nope) + 6",
        "exists(nope) ? nope : 7",
        "7 - exists(nope) * 3",
    ],
)
def test_what_is_not_needed_need_not_have_a_value(formula: str) -> None:
    assert value(formula, x=0) == 7


@pytest.mark.parametrize(
    ("formula", "reason"),
    [
        ("1 / (x - x)", "division by zero"),
        ("1 % 0", "division by zero"),
        ("0 ^ -1", "division by zero"),
        ("9**9**9", "a result is too large"),
        ("1e308 * 10", "a result is too large"),
        ("min(5, 1e308 + 1e308)", "a result is too large"),
        ("1e308 * 10 > 5", "a result is too large"),
        ("(-8) ^ (1/3)", "a fractional power of a negative number is not a real number"),
        ("sqrt(-1)", "the square root of a negative number is not a real number"),
        ("2.5 & 1", "& and | take whole numbers, not 2.5"),
        ("1 | 1e300", "& and | take whole numbers, not 1e+300"),
        ("nope + 1", "unknown name nope"),
    ],
)
def test_no_value_has_a_reason(formula: str, reason: str) -> None:
    with pytest.raises(NoValue) as caught:
        value(formula, x=5)
    assert caught.value.reason == str(caught.value) == reason


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_lookup_cannot_bring_in_what_is_no_number(number: float) -> None:
    for formula in ("x", "x > 0", "min(x, 1)", "x ? 1 : 2"):
        with pytest.raises(NoValue):
            value(formula, x=number)


def test_whole_numbers_from_a_lookup_become_floats() -> None:
    assert isinstance(value("x", x=14), float)
    with pytest.raises(NoValue, match="too large"):
        value("x * x", x=10**200)


NUMBERS = "numbers take a decimal point (3.5), and a comma only parts the values of a function"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the formula is empty (column 1)"),
        ("  ", "the formula is empty (column 3)"),
        ("3,5", f"expected an operator, found ','; {NUMBERS} (column 2)"),
        ("2 * (3,5)", f"expected ')', found ','; {NUMBERS} (column 7)"),
        ("1 < x < 5", "a chained comparison is ambiguous, write a < b && b < c (column 7)"),
        ("1 == x < 5", "a chained comparison is ambiguous, write a < b && b < c (column 8)"),
        ("AVAIL = 5", "expected an operator, found '='; compare with == (column 7)"),
        ("max(3; 5)", "expected ',', found ';'; the values of a function are parted by commas (column 6)"),
        ("16 * (2 + 1", "expected ')', the formula ends (column 12)"),
        ("16 * 2)", "expected an operator, found ')' (column 7)"),
        ("5 +", "expected a value, the formula ends (column 4)"),
        ("5 kW", "expected an operator, found 'kw' (column 3)"),
        ("5kW", "'5kW' is not a number; units are left out (column 1)"),
        ("1 + 1.2.3", "'1.2.3' is not a number; units are left out (column 5)"),
        ("1_000", "'1_000' is not a number; units are left out (column 1)"),
        ("\u0663", "expected a value, found '\u0663' (column 1)"),
        ("1e400", "the number is too large (column 1)"),
        ("1 + nan", "'nan' is not a number (column 5)"),
        ("-Infinity", "'infinity' is not a number (column 2)"),
        ("x ? 1", "expected ':', the formula ends (column 6)"),
        ("1 if x", "expected 'else', the formula ends (column 7)"),
        ("if(x, 1, 2)", "expected a value, found 'if'; write it as: value if condition else other (column 1)"),
        ("2 * not x", "'not' needs parentheses here: (not …) (column 5)"),
        ("!not x", "'not' needs parentheses here: (not …) (column 2)"),
        ("min(1)", "write min(a, b, …), not min with 1 value (column 1)"),
        ("1 + clamp(1, 2)", "write clamp(x, low, high), not clamp with 2 values (column 5)"),
        ("abs()", "write abs(x), not abs with 0 values (column 1)"),
        ("max", "'max' is a function, write max(a, b, …) (column 1)"),
        ("exists(5)", "exists takes the name of a variable or reading (column 1)"),
        ("exists(x + 1)", "exists takes the name of a variable or reading (column 1)"),
        ("min(1, 2,)", "expected a value, found ')' (column 10)"),
        (
            "M1.read(1)",
            "unknown function 'm1.read'; there are abs, ceil, clamp, exists, floor, max, min, pmin14a, round, sqrt "
            "(column 1)",
        ),
        ("'a'", "expected a value, found '''; there are no texts in formulas (column 1)"),
        ("x.", "expected an operator, found '.' (column 2)"),
        ("ä + 1", "expected a value, found 'ä' (column 1)"),
        (True, "a formula is a number or a text, not bool (column 1)"),
        (None, "a formula is a number or a text, not NoneType (column 1)"),
        (float("nan"), "'nan' is not a number (column 1)"),
        (float("-inf"), "'inf' is not a number (column 2)"),
        (10**400, "'inf' is not a number (column 1)"),
    ],
)
def test_mistakes_are_named_with_their_column(text: str, error: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse(text)
    assert str(caught.value) == error


HOSTILE = [
    "9**9**9",
    "^".join(["9"] * 60),
    "'a'*10**9",
    "__class__",
    "(1).__class__.__bases__",
    "__import__('os').system('true')",
    "exists.__globals__",
    "f'{1:1000000000}'",
    "[[0]*99999]*99999",
    "[x for x in range(10**9)]",
    "lambda: 1",
    "x := 1",
    "1 << 10**9",
    "(" * 100_000,
    "1" * 1_000_000,
    "x" * 1_000_000,
    "(" * 999,
    "-" * 999 + "1",
    "!" * 999 + "1",
    "not " * 249 + "1",
    "a?" * 499,
    "a?1:" * 249 + "1",
    "1 if " * 199,
    "1 if a else " * 83 + "1",
    "min(" * 249,
    "abs(" * 90 + "x" + ")" * 90,
    "max(" + ",".join(["x&x"] * 99) + ")",
    "1+" * 499 + "1",
    "&&".join(["1"] * 99),
    "+".join(["(1" + "+1" * 9 + ")"] * 14),
    "." * 1000,
    "0x" + "f" * 998,
    "1e" + "9" * 998,
    " " * 1000,
    "\0" * 1000,
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{len(text)}-{text[:12]!r}")
def test_hostile_texts_end_quickly(text: str) -> None:
    def attempt() -> str:
        try:
            formula = parse(text)
            return f"{formula.size} nodes, {evaluate(formula, names(x=1e300, a=0))}"
        except (FormulaError, NoValue) as error:
            return str(error)

    spent = []
    for _ in range(3):
        start = time.process_time()
        answer = attempt()
        spent.append(time.process_time() - start)
        assert len(answer) < 200
    assert min(spent) < 0.005


def tree_size(tree: ast.expr) -> tuple[int, int]:
    """Nodes and levels, counted from outside the parser."""
    children = [child for child in ast.iter_child_nodes(tree) if isinstance(child, ast.expr)]
    if isinstance(tree, ast.Call):
        children = tree.args
    sizes = [tree_size(child) for child in children]
    return 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)


def test_bounds_are_where_they_are_said_to_be() -> None:
    longest = "1" + " " * (MAX_LENGTH - 1)
    assert parse(longest).constant == 1
    with pytest.raises(FormulaError, match=rf"1001 characters .* \(column {MAX_LENGTH + 1}\)"):
        parse(longest + " ")
    deepest = parse("+".join(["x"] * MAX_DEPTH))
    assert tree_size(deepest.tree) == (deepest.size, MAX_DEPTH)
    for text in ("+".join(["x"] * (MAX_DEPTH + 1)), "(" * MAX_DEPTH + "x" + ")" * MAX_DEPTH):
        with pytest.raises(FormulaError, match="nested too deeply, at most 100"):
            parse(text)
    largest = parse("max(" + ",".join(["x"] * (MAX_NODES - 1)) + ")")
    assert tree_size(largest.tree) == (largest.size, 2)
    assert largest.size == MAX_NODES
    with pytest.raises(FormulaError, match="too many values and operations, at most 300"):
        parse("max(" + ",".join(["x"] * MAX_NODES) + ")")


@pytest.mark.parametrize("deep", ["!" * 98 + "x", "abs(" * 98 + "x" + ")" * 98, "x ? " * 49 + "x" + ": 1" * 49])
def test_the_deepest_tree_stays_far_from_the_recursion_limit(deep: str) -> None:
    frames = []

    def lookup(key: str) -> float:
        frames.append(len(inspect.stack(0)))
        return 1.0

    evaluate(parse("x"), lookup)
    evaluate(parse(deep), lookup)
    assert max(frames) - frames[0] < 4 * MAX_DEPTH


def test_the_tree_has_no_attributes_and_no_texts() -> None:
    formula = parse("exists(CM.Avail) ? M1.power_w * date.hour : M1.POWER_W")
    kinds = {type(node) for node in ast.walk(formula.tree)}
    assert ast.Attribute not in kinds
    assert formula.names == {"avail", "m1.power_w", "date.hour"}
    assert formula.text == "exists(CM.Avail) ? M1.power_w * date.hour : M1.POWER_W"
    assert formula.constant is None


@pytest.mark.parametrize(
    ("given", "text", "constant"),
    [
        (70, "70", 70.0),
        (70.0, "70", 70.0),
        (0.1, "0.1", 0.1),
        (-0.0, "0", 0.0),
        (1e300, "1e+300", 1e300),
        (-3, "-3", -3.0),
        ("70", "70", 70.0),
        (" -7.50 ", " -7.50 ", -7.5),
        ("-0", "-0", 0.0),
        ("0x10", "0x10", 16.0),
        ("true", "true", 1.0),
        ("35 * 2", "35 * 2", None),
    ],
)
def test_numbers_become_constants(given: str | float, text: str, constant: float | None) -> None:
    formula = parse(given)
    assert (formula.text, str(formula.constant)) == (text, str(constant))
    assert formula == parse(given)


def test_names_compare_without_case_and_prefix() -> None:
    assert fold("CM.AVAIL") == fold("cm.avail") == fold("Avail") == "avail"
    assert fold("M1.Power_W") == "m1.power_w"
    assert value("cm.AVAIL + CM.avail + aVaIl", AVAIL=7) == 21


def test_legal_names() -> None:
    for name in ("AVAIL", "x", "_flag1", "var_2", "a" * 64, "iffy", "minimum"):
        assert is_name(name), name
    illegal = ("", "1x", "a-b", "a b", "M1.x", "CM.x", "größe", "x\n", "a" * 65, "min", "EXISTS", "If", "true", "NaN")
    for name in illegal:
        assert not is_name(name), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_shows_an_example(name: str) -> None:
    examples = doctest.DocTestParser().get_examples(FUNCTIONS[name].__doc__ or "")
    assert examples
    for example in examples:
        assert example.source.startswith(f"{name}(")
        assert value(example.source, AVAIL=0) == float(example.want)


def test_the_documentation_is_true() -> None:
    text = DOCS.read_text().replace("\\|", "|")
    examples = re.findall(r"`([^`]+)` = (-?[0-9.]*[0-9])", text)
    assert len(examples) >= 20
    for formula, result in examples:
        assert value(formula, AVAIL=70) == float(result), formula
    rows = re.findall(r"^\| `(\w+)\(.*?\)` \| (.+?) \|", text, re.MULTILINE)
    assert {name: meaning.replace("`", "") for name, meaning in rows} == {
        name: (function.__doc__ or "").split("\n")[0].replace("`", "") for name, function in FUNCTIONS.items()
    }
    assert f"{MAX_LENGTH} characters, {MAX_DEPTH} levels and {MAX_NODES} values" in text
