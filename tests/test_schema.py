"""From YAML to dataclasses: every mistake at once, each with its line and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import schema
from bridge.core.allowed import AtLeast, Between, Matching, Passing
from bridge.core.formulas import Formula, parse
from bridge.errors import ConfigError
from bridge.schema import Leaf


@dataclass(frozen=True)
class Inner:
    id: str
    level: Annotated[int, Between(0, 10)] = 5

    def __post_init__(self) -> None:
        if self.id == "cursed":
            raise ValueError("nothing may be called cursed")


@dataclass(frozen=True)
class Outer:
    name: str = "nobody"
    size: Annotated[float, AtLeast(0)] = 1.0
    on: bool = False
    limit: Formula | None = None
    word: Literal["red", "green"] = "red"
    way: Annotated[str, Matching(r"[a-z]+", "small letters")] | Literal[False] = "left"
    lines: Annotated[int, Between(1, 3)] | tuple[Annotated[int, Between(1, 3)], ...] = 3
    inner: Inner | None = None
    all: tuple[Inner, ...] = ()
    named: Mapping[Annotated[str, Passing(str.isidentifier, "a name")], Inner] = field(default_factory=dict)
    hidden: int = field(default=0, init=False)


def read(text: str) -> Outer:
    return schema.read(text, "f.yaml", Outer, {"later": "next year", "all.later": "soon"})


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return list(caught.value.mistakes)


def test_every_kind_of_value() -> None:
    text = """
name: a        # a comment
size: 3
on: true
limit: 2 * X
word: green
way: false
lines: [1, 3]
inner: {id: i, level: 0}
all:
  - {id: one}
  - id: two
    level: 10
named: {x: {id: three}}
"""
    assert read(text) == Outer(
        name="a",
        size=3.0,
        on=True,
        limit=parse("2 * X"),
        word="green",
        way=False,
        lines=(1, 3),
        inner=Inner("i", 0),
        all=(Inner("one"), Inner("two", 10)),
        named={"x": Inner("three")},
    )


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "{}"])
def test_an_empty_file_is_all_defaults(text: str) -> None:
    assert read(text) == Outer()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nam: x", "f.yaml:1: nam: unknown key (did you mean name?); allowed: name, size, on, "),
        ("\nqqqqq: 1", "f.yaml:2: qqqqq: unknown key; allowed: name"),
        ("hidden: 1", "f.yaml:1: hidden: unknown key"),
        ("name: 5", "f.yaml:1: name: 5 does not fit; allowed: a text"),
        ("name:", "f.yaml:1: name: nothing does not fit; allowed: a text"),
        ("name: 2026-11-22", "f.yaml:1: name: 2026-11-22 does not fit; allowed: a text"),
        ("size: '5'", "f.yaml:1: size: '5' does not fit; allowed: a number"),
        ("size: true", "f.yaml:1: size: true does not fit; allowed: a number"),
        ("size: -1", "f.yaml:1: size: -1 does not fit; allowed: 0 or more"),
        ("size: .inf", "f.yaml:1: size: inf does not fit; allowed: a number"),
        ("size: .nan", "f.yaml:1: size: nan does not fit; allowed: a number"),
        ("on: yes", "f.yaml:1: on: 'yes' does not fit; allowed: true or false"),
        ("on: 1", "f.yaml:1: on: 1 does not fit; allowed: true or false"),
        ("word: blue", "f.yaml:1: word: 'blue' is not one of the words; allowed: red, green"),
        ("word: [red]", "f.yaml:1: word: a list is not one of the words; allowed: red, green"),
        ("way: 0", "f.yaml:1: way: 0 does not fit; allowed: a text or false"),
        ("way: UP", "f.yaml:1: way: 'UP' does not fit; allowed: small letters or false"),
        ("limit: 1 +", "f.yaml:1: limit: '1 +' is no formula: expected a value, the formula ends (column 4)"),
        ("limit: true", "f.yaml:1: limit: true does not fit; allowed: a number or a formula"),
        ("limit: .nan", "f.yaml:1: limit: nan is no formula"),
        ("lines: 4", "f.yaml:1: lines: 4 does not fit; allowed: 1 to 3"),
        ("lines:\n  - 1\n  - 7", "f.yaml:3: lines[1]: 7 does not fit; allowed: 1 to 3"),
        ("inner: 5", "f.yaml:1: inner: 5 stands where keys are expected; allowed: id, level"),
        ("inner: {}", "f.yaml:1: inner.id: is missing"),
        ("all: {id: x}", "f.yaml:1: all: a mapping stands where a list is expected"),
        ("all:\n  - id: a\n  - level: 3", "f.yaml:3: all[1].id: is missing"),
        ("all:\n  - id: a\n    level: 11", "f.yaml:3: all[0].level: 11 does not fit; allowed: 0 to 10"),
        ("all: [5]", "f.yaml:1: all[0]: 5 stands where keys are expected; allowed: id, level"),
        ("all:\n  - id: cursed", "f.yaml:2: all[0]: nothing may be called cursed"),
        ("named: {1x: {id: a}}", "f.yaml:1: named.1x: '1x' does not fit; allowed: a name"),
        ("named: 7", "f.yaml:1: named: 7 stands where names with values are expected"),
        ("later: {a: 1}", "f.yaml:1: later: not built yet: next year"),
        ("all:\n- id: a\n  later: 1", "f.yaml:3: all[0].later: not built yet: soon"),
        ("[1, 2]", "f.yaml:1: a list stands where keys are expected; allowed: name, size"),
        ("name: " + "x" * 100 + "\nsize: '" + "y" * 100 + "'", "f.yaml:2: size: 'yyyyyyyyyyyyyy"),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    (mistake,) = mistakes(text)
    assert mistake.startswith(expected)
    assert len(mistake) < 250


def test_a_formula_that_braces_have_cut_at_its_comma_is_known() -> None:
    cut, _ = mistakes("{limit: min(1, 2)}")
    assert "'min(1' is no formula" in cut
    assert "between { } or [ ] a formula with a comma needs quotes" in cut


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b", 'f.yaml:2: no valid YAML: found duplicate key "name"'),
        ("name: a\n\tsize: 1", "f.yaml:2: no valid YAML: "),
        ("name: [1, 2", "f.yaml:1: no valid YAML: "),
        ("name: 'open", "f.yaml:1: no valid YAML: "),
        ("name: X ? 1 : 2", "f.yaml:1: no valid YAML: mapping values are not allowed here; a text with ': ' in it"),
        ("name: *nowhere", "f.yaml:1: no valid YAML: found undefined alias"),
        ("a: 1\n---\nb: 2", "f.yaml:2: no valid YAML: but found another document"),
        ("name: \x00", "f.yaml:1: no valid YAML: "),
        ("name: 2026-02-31", "f.yaml:1: no valid YAML: day is out of range for month"),
    ],
)
def test_what_is_no_yaml(text: str, expected: str) -> None:
    (mistake,) = mistakes(text)
    assert mistake.startswith(expected)
    assert "\n" not in mistake


def test_all_mistakes_come_at_once_in_the_order_of_the_file() -> None:
    text = """
all:
  - {id: a, level: 99}
  - {level: 1}
nmae: x
size: big
named:
  x: {id: 5, extra: 1}
on: maybe
"""
    found = [(m.split(":")[1], m.split(": ")[1]) for m in mistakes(text)]
    assert found == [
        ("3", "all[0].level"),
        ("4", "all[1].id"),
        ("5", "nmae"),
        ("6", "size"),
        ("8", "named.x.id"),
        ("8", "named.x.extra"),
        ("9", "on"),
    ]


def test_checks_see_what_fits_even_when_other_things_do_not() -> None:
    def no_a(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
        return ((leaf, "a is taken") for leaf in leaves if leaf.value == "a")

    text = "all:\n  - id: a\n    level: 99\n  - id: b\nnamed:\n  a: {id: c}\nlines: [1]"
    with pytest.raises(ConfigError) as caught:
        schema.read(text, "f", Outer, checks=[no_a])
    assert caught.value.mistakes == (
        "f:2: all[0].id: a is taken",
        "f:3: all[0].level: 99 does not fit; allowed: 0 to 10",
        "f:6: named.a: a is taken",
    )


def test_checks_see_every_value_once() -> None:
    seen: list[Leaf] = []

    def note(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
        seen.extend(leaves)
        return ()

    schema.read("lines: [1, 2]\ninner:\n  id: x\n", "f", Outer, checks=[note])
    assert [(leaf.path, leaf.line) for leaf in seen] == [
        ("lines[0]", 1),
        ("lines[1]", 1),
        ("lines", 1),
        ("inner.id", 3),
        ("inner", 2),
    ]


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    leaves,
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.sampled_from([*Outer.__annotations__, "x"]), child),
    max_leaves=10,
)


@given(trees.map(json.dumps) | st.text(max_size=60))
def test_whatever_the_file_holds_there_is_a_config_or_mistakes(text: str) -> None:
    found: tuple[str, ...] = ("f.yaml:",)
    try:
        read(text)
    except ConfigError as error:
        found = error.mistakes
    assert found
    assert all(mistake.startswith("f.yaml:") for mistake in found)
