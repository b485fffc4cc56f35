"""What ``/cnf`` makes of a request, without any server."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core import step
from bridge.core.events import SetVariables
from bridge.core.model import Now, Snapshot, State
from bridge.http import cnf
from bridge.http.access import Refusal
from tests.http.conftest import site

NOW = Now(1000.0, 1_790_000_000.0)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return step.first(site(), State(), NOW)


def call(snapshot: Snapshot, query: str, body: bytes = b"", source: str = "admin") -> cnf.Call:
    return cnf.Call(cnf.query_of(query), body, source, snapshot)


SETS = [
    ("name=AVAIL&val=50", b"", [("AVAIL", 50.0)], False),
    ("name=AVAIL&val=0", b"", [("AVAIL", 0.0)], False),
    ("name=CM.avail&val=1e1", b"", [("avail", 10.0)], False),
    ("name=X&val=AVAIL%20/%202", b"", [("X", "AVAIL / 2")], False),
    ("name=X&val=1&clear=1", b"", [("X", 1.0)], True),
    ("name=X&val=1&clear=0&tmp=1", b"", [("X", 1.0)], False),
    ("clear=1", b'{"vars":[]}', [], True),
    ("", b'{"vars":[],"clear":true}', [], True),
    ("clear=1", b'{"vars":[],"clear":false}', [], True),
    ("", b'{"vars":[{"name":"A","expr":1.5},{"name":"B","expr":"A*2"}]}', [("A", 1.5), ("B", "A*2")], False),
    ("", b'\xef\xbb\xbf {"vars":[{"name":"A","expr":"7"}]} ', [("A", 7.0)], False),
    ("", b'{"vars":[{"name":"A","expr":1,"expr":2}]}', [("A", 2.0)], False),
]


@pytest.mark.parametrize(("query", "body", "expected", "clear"), SETS)
def test_a_set_becomes_one_event(
    snapshot: Snapshot, query: str, body: bytes, expected: list[tuple[str, float | str]], clear: bool
) -> None:
    event = cnf.run(call(snapshot, f"cmd=set_cm_vars&{query}", body))
    assert isinstance(event, SetVariables)
    shown = [(name, f.text if f.constant is None else f.constant) for name, f in event.variables]
    assert (shown, event.clear, event.source) == (expected, clear, "admin")


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ("name=Avail&val=50&ttl=600", b"", {"avail": 600.0}),
        ("", b'{"vars":[{"name":"A","expr":1,"ttl":5},{"name":"B","expr":2}]}', {"a": 5.0}),
        ("", b'{"vars":[{"name":"A","expr":1,"ttl":"2.5"},{"name":"B","expr":2,"ttl":null}]}', {"a": 2.5}),
    ],
)
def test_a_set_may_say_for_how_long(snapshot: Snapshot, query: str, body: bytes, expected: dict[str, float]) -> None:
    event = cnf.run(call(snapshot, f"cmd=set_cm_vars&{query}", body))
    assert isinstance(event, SetVariables)
    assert event.ttl_s == expected


VENDOR_MISTAKE = b'{"vars": [{ "name": "var1", "expr": 1.5 }], { "name": "var2", "expr": 2 }] }'

REFUSED = [
    ("cmd=nix", b"", 404, "set_cm_vars"),
    ("", b"", 404, "unknown command ''"),
    ("cmd=set_cm_vars&val=1", b"", 400, "name is missing"),
    ("cmd=set_cm_vars&name=A", b"", 400, "val is missing"),
    ("cmd=set_cm_vars&name=A&val=", b"", 400, "val is missing"),
    ("cmd=set_cm_vars&name=A&val=1&ttl=soon", b"", 400, "A: ttl is a number of seconds above 0"),
    ("cmd=set_cm_vars&name=A&val=1&ttl=", b"", 400, "A: ttl is a number of seconds above 0"),
    ("cmd=set_cm_vars", b'{"vars":[{"name":"A","expr":1,"ttl":-1}]}', 400, "A: ttl is a number of seconds above 0"),
    ("cmd=set_cm_vars&ttl=5", b'{"vars":[{"name":"A","expr":1}]}', 400, "name, val or ttl in the query and a body"),
    ("cmd=set_cm_vars&name=A&val=1&clear=yes", b"", 400, "clear is 0 or 1"),
    ("cmd=set_cm_vars", b'{"vars":[],"clear":1}', 400, "clear is true or false"),
    ("cmd=set_cm_vars&name=A&val=1&name=B", b"", 400, "name is given twice"),
    ("cmd=set_cm_vars&name=A&val=nan", b"", 400, "A:"),
    ("cmd=set_cm_vars&name=A&val=1+%2B", b"", 400, "A:"),
    ("cmd=set_cm_vars&name=%ff&val=1", b"", 400, "UTF-8"),
    ("cmd=set_cm_vars&name=AVAIL&val=101", b"", 400, "AVAIL"),
    ("cmd=set_cm_vars&name=PWR&val=1", b"", 403, "PWR"),
    ("cmd=set_cm_vars&name=A", b'{"vars":[]}', 400, "one or the other"),
    ("cmd=set_cm_vars", VENDOR_MISTAKE, 400, "line 1 column 45"),
    ("cmd=set_cm_vars", b'{"vars":\n [}', 400, "line 2 column 3"),
    ("cmd=set_cm_vars", b"\xff", 400, "byte 1"),
    ("cmd=set_cm_vars", b"[" * 100_000, 400, "nested"),
    ("cmd=set_cm_vars", b'{"vars":[{"name":"A","expr":' + b"1" * 5000 + b"}]}", 400, "digits"),
    ("cmd=set_cm_vars", b'{"vars":[{"name":"A","expr":1' + b"0" * 400 + b"}]}", 400, "A:"),
    ("cmd=set_cm_vars", b'{"vars":[{"name":"A","expr":NaN}]}', 400, "NaN"),
    ("cmd=set_cm_vars", b'{"vars":[{"name":"A","expr":"\\ud800"}]}', 400, "no characters"),
    ("cmd=set_cm_vars", b'{"\\uDFFF":1}', 400, "no characters"),
    ("cmd=set_cm_vars", b'{"vars":[{"name":"A","expr":"\\ud83d\\ude00"}]}', 400, "A: "),
    ("cmd=set_cm_vars", b"[]", 400, "vars is missing"),
    ("cmd=set_cm_vars", b'{"vars":{}}', 400, "vars is missing"),
    ("cmd=set_cm_vars", b'{"vars":[1]}', 400, "vars[0]"),
    ("cmd=set_cm_vars", b'{"vars":[{"expr":1}]}', 400, "vars[0].name"),
    ("cmd=set_cm_vars", b'{"vars":[{"name":"A","expr":1},{"name":"B"}]}', 400, "vars[1].expr"),
    ("cmd=set_cm_vars", b'{"vars":[{"name":"A","expr":true}]}', 400, "vars[0].expr"),
    ("cmd=set_cm_vars", b'{"vars":[{"name":"A","expr":null}]}', 400, "vars[0].expr"),
]


@pytest.mark.parametrize(("query", "body", "status", "words"), REFUSED)
def test_a_mistake_is_refused_and_its_place_named(
    snapshot: Snapshot, query: str, body: bytes, status: int, words: str
) -> None:
    with pytest.raises(Refusal) as caught:
        cnf.run(call(snapshot, query, body))
    assert caught.value.status == status
    assert words in str(caught.value)


def test_the_smgw_may_set_what_the_admin_may_not(snapshot: Snapshot) -> None:
    event = cnf.run(call(snapshot, "cmd=set_cm_vars&name=PWR&val=1", source="smgw"))
    assert isinstance(event, SetVariables)
    assert event.source == "smgw"


def test_get_cm_vars_tells_expression_value_and_error(snapshot: Snapshot) -> None:
    body = b'{"vars":[{"name":"avail","expr":70},{"name":"X","expr":"Y/2"}]}'
    event = cnf.run(call(snapshot, "cmd=set_cm_vars", body))
    assert isinstance(event, SetVariables)
    after = step.run(snapshot, [event], NOW)
    answer = cnf.run(call(after, "cmd=get_cm_vars"))
    assert isinstance(answer, dict)
    shown = {one["name"]: one for one in answer["vars"]}
    assert shown["AVAIL"] == {"name": "AVAIL", "expr": 70, "val": 70, "value": 70}
    assert shown["X"]["expr"] == "Y/2"
    assert shown["X"]["val"] is shown["X"]["value"] is None
    assert "y" in shown["X"]["error"].casefold()


@pytest.mark.parametrize("text", ["0", "-1", "30.1", "nan", "inf", "", "x"])
def test_confirm_is_a_number_of_seconds_up_to_30(snapshot: Snapshot, text: str) -> None:
    with pytest.raises(Refusal, match="confirm"):
        call(snapshot, f"confirm={text}").confirm_s()
    assert call(snapshot, "confirm=30").confirm_s() == 30.0


@given(body=st.binary(max_size=200) | st.text(max_size=100).map(str.encode), query=st.text(max_size=60))
def test_nothing_but_a_refusal_comes_of_nonsense(snapshot: Snapshot, body: bytes, query: str) -> None:
    for asked in ("cmd=set_cm_vars", query):
        with suppress(Refusal):
            cnf.run(call(snapshot, asked, body))
