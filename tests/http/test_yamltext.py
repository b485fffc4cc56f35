"""Single values change in a YAML text, and nothing else does."""

from __future__ import annotations

import difflib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bridge.errors import BadRequest
from bridge.http.yamltext import document, edited

TEXT = """\
# top
site: Musterweg 1   # here
smgw:            # the gateway
  address: 192.168.100.1:4433   # host
  role: supplier
  functions: {ocpp: true, power_limit: true}

  # ---- after

# grid section
grid:
  connection_power_w: 55000 * AVAIL / 100
meters:
  - {id: M1, role: grid}   # first
  - id: M2
    note: |
      a
      b
empty:
# end
"""


def changed(*changes: tuple[str, object]) -> list[str]:
    """The lines that went (-) and came (+)."""
    lines = difflib.unified_diff(TEXT.splitlines(), edited(TEXT, changes).splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("smgw.address", "10.0.0.1", ["-  address: 192.168.100.1:4433   # host", "+  address: 10.0.0.1   # host"]),
        ("smgw.address", None, ["-  address: 192.168.100.1:4433   # host"]),
        ("smgw.certificate", "cls", ["+  certificate: cls"]),
        ("smgw.far_ends", [{"certificate": "a"}], ["+  far_ends: [{certificate: a}]"]),
        ("meters[1].note", "x", ["-    note: |", "-      a", "-      b", "+    note: x"]),
        ("meters[1].unit", 2, ["+    unit: 2"]),
        ("http.listen", "0.0.0.0:8080", ["+http:", "+  listen: 0.0.0.0:8080"]),
        ("http.listen", None, []),
        ("empty.key", "true", ["-empty:", '+empty: {key: "true"}']),
        ("site", "Straße: 7 # a", ["-site: Musterweg 1   # here", '+site: "Straße: 7 # a"   # here']),
        (
            "smgw.functions.ocpp",
            None,
            ["-  functions: {ocpp: true, power_limit: true}", "+  functions: {power_limit: true}"],
        ),
        (
            "smgw.functions.tariffs",
            False,
            [
                "-  functions: {ocpp: true, power_limit: true}",
                "+  functions: {ocpp: true, power_limit: true, tariffs: false}",
            ],
        ),
    ],
)
def test_only_the_line_of_the_value_changes(path: str, value: object, expected: list[str]) -> None:
    assert changed((path, value)) == expected


def test_new_keys_come_before_the_comments_of_what_follows() -> None:
    text = edited(TEXT, [("smgw.certificate", "cls")])
    assert "power_limit: true}\n  certificate: cls\n\n  # ---- after\n" in text


@pytest.mark.parametrize(
    ("text", "path", "value", "expected"),
    [
        ("", "a.b", 1, "a:\n  b: 1\n"),
        ("# c", "a", "x", "# c\na: x\n"),
        ("a: 1", "b", 2, "a: 1\nb: 2"),
        ("a: {}\n", "a.b", 1, "a: {b: 1}\n"),
        ("a: {b: 1}", "a.b", None, "a: {}"),
        ("a:\n  b: 1\nc: 2\n", "a.b", None, "a:\n  {}\nc: 2\n"),
        ("a: |\n  x\n  y\nb: 1\n", "a", "q", "a: q\nb: 1\n"),
        ("a: 'it''s'\r\nb: 1\r\n", "b", 2, "a: 'it''s'\r\nb: 2\r\n"),
    ],
)
def test_odd_places(text: str, path: str, value: object, expected: str) -> None:
    assert edited(text, [(path, value)]) == expected


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("meters[5].id", "x"),
        ("meters[1].id", None),
        ("a..b", 1),
        ("", 1),
        ("site.x[0]", 1),
        ("meters.x", 1),
        ("[0]", 1),
    ],
)
def test_what_cannot_be_changed_alone_is_refused(path: str, value: object) -> None:
    with pytest.raises(BadRequest):
        edited(TEXT, [(path, value)])


def test_an_alias_is_not_changed_where_it_does_not_stand() -> None:
    with pytest.raises(BadRequest, match="cannot be changed alone"):
        edited("a: &x 1\nb: *x\n", [("b", 2)])
    with pytest.raises(BadRequest, match="no valid YAML"):
        edited("a: [", [("b", 2)])


scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("abc"), trees, min_size=1), st.sampled_from("abcx"), trees)
def test_whatever_stands_there_it_means_what_was_asked_for_or_is_refused(
    tree: dict[str, object], key: str, value: object
) -> None:
    text = json.dumps(tree, indent=2)
    try:
        found = document(edited(text, [(key, value)]))
    except BadRequest:
        return
    assert found == ({k: v for k, v in tree.items() if k != key} if value is None else {**tree, key: value})


def test_the_result_is_yaml_for_others_too() -> None:
    text = edited(TEXT, [("smgw.role", "admin"), ("grid.reserve_w", 1.5), ("smgw.far_ends", [])])
    assert YAML(typ="rt").load(text)["grid"]["reserve_w"] == 1.5
