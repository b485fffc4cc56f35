"""Commands: message in, event or answer out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bridge.core.config import VariableConfig
from bridge.core.events import Override, SetVariables
from bridge.core.formulas import parse
from bridge.mqtt.commands import MAX_PAYLOAD, Order, Request, answer_topic, understand
from tests.core.sites import House, site

UTC = 1_790_000_000.0
SOON, PAST = "2026-09-21T16:00:00Z", "2026-09-21T14:00:00Z"


def house() -> House:
    config = site()
    declared = {**config.variables, "WISH": VariableConfig(parse(0), 0, 10, ("admin", "mqtt"))}
    declared["FREE"] = VariableConfig(None, writers=("mqtt",))
    return House(replace(config, variables=declared))


def ask(body: object, command: str = "set_cm_vars", retained: bool = False) -> dict[str, object]:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    order = understand(Request(command, payload, retained), house().snapshot, UTC)
    assert order.event is None
    answer = json.loads(order.answer)
    assert isinstance(answer, dict)
    return answer


def test_a_set_becomes_one_event() -> None:
    body = {"id": "7", "vars": [{"name": "wish", "expr": 3}, {"name": "FREE", "expr": "WISH * 2"}], "expires_at": SOON}
    order = understand(Request("set_cm_vars", json.dumps(body).encode()), house().snapshot, UTC)
    assert isinstance(order.event, SetVariables)
    assert [(name, formula.text) for name, formula in order.event.variables] == [("wish", "3"), ("FREE", "WISH * 2")]
    assert (order.event.clear, order.event.source) == (False, "mqtt")
    assert json.loads(order.ok(receipt=12)) == {"id": "7", "status": "ok", "receipt": 12}
    assert json.loads(order.error("why")) == {"id": "7", "status": "error", "error": "why"}


def test_a_set_may_say_for_how_long() -> None:
    body = {"vars": [{"name": "wish", "expr": 3, "ttl": 60}, {"name": "FREE", "expr": 1}]}
    order = understand(Request("set_cm_vars", json.dumps(body).encode()), house().snapshot, UTC)
    assert isinstance(order.event, SetVariables)
    assert order.event.ttl_s == {"wish": 60.0}
    body["vars"][0]["ttl"] = "soon"
    assert "wish: ttl is a number of seconds" in str(ask(body)["error"])


def test_clear_alone_is_a_set() -> None:
    order = understand(Request("set_cm_vars", b'{"clear": true}'), house().snapshot, UTC)
    assert isinstance(order.event, SetVariables)
    assert order.event.clear
    assert json.loads(order.ok(receipt=1)) == {"status": "ok", "receipt": 1}


SET = {"vars": [{"name": "WISH", "expr": 1}]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"vars":[{"name":"WISH","expr":NaN}]}', "no JSON"),
        (b"[" * 50_000, "no JSON"),
        (b" " * (MAX_PAYLOAD + 1), "too much"),
        ([1], "JSON object"),
        ({}, "vars"),
        ({"vars": []}, "vars"),
        ({"vars": {"WISH": 1}}, "vars"),
        ({**SET, "clear": "yes"}, "clear"),
        ({"vars": [{"expr": 1}]}, "entry 1: name is missing"),
        ({"vars": [{"name": "WISH"}]}, "WISH: expr"),
        ({"vars": [{"name": "WISH", "expr": True}]}, "WISH: expr"),
        ({"vars": [{"name": "WISH", "expr": "1 +"}]}, "WISH"),
        ({"vars": [{"name": "WISH", "expr": 11}]}, "outside"),
        ({"vars": [{"name": "WISH", "expr": 10**400}]}, "WISH"),
        ({"vars": [{"name": "AVAIL", "expr": 100}]}, "may not be set through mqtt"),
        ({"vars": [{"name": "a/b", "expr": 100}]}, "no name"),
        ({**SET, "expires_at": PAST}, "expired"),
        ({**SET, "expires_at": "2026-09-21T16:00:00"}, "time zone"),
        ({**SET, "expires_at": 12}, "expires_at"),
    ],
)
def test_refusals(body: object, words: str) -> None:
    answer = ask(body)
    assert answer["status"] == "error"
    assert words in str(answer["error"])
    assert "id" not in answer


def test_override_device() -> None:
    home = house()
    home.plug("E1")

    def order(**body: object) -> Order:
        return understand(Request("override_device", json.dumps(body).encode()), home.snapshot, UTC)

    assert order(dev_id="e1", flags="C").event == Override("E1", "mqtt", off=frozenset({"charging"}))
    assert order(dev_id="E1", mamps="8000").event == Override("E1", "mqtt", current_a=8.0)
    assert order(dev_id="E1", flags="c", mamps=-1).event == Override(
        "E1", "mqtt", on=frozenset({"charging"}), current_a=float("inf")
    )
    for body, words in (
        ({"dev_id": "E1", "flags": "E"}, "may not be lifted through mqtt"),
        ({"dev_id": "E2", "flags": "C"}, "no car is connected"),
        ({"flags": "C"}, "dev_id and flags are texts"),
        ({"dev_id": "E1", "mamps": True}, "mamps: 'True' is no number"),
        ({"dev_id": "E1"}, "nothing to override"),
    ):
        assert words in order(**body).answer


def test_retained_and_unknown_commands_are_refused_and_the_id_comes_back() -> None:
    answer = ask({**SET, "id": {"any": ["thing"]}}, retained=True)
    assert (answer["status"], answer["id"]) == ("error", {"any": ["thing"]})
    assert "retained" in str(answer["error"])
    assert "unknown command 'reboot'" in str(ask({"id": 1}, "reboot")["error"])


def test_get_cm_vars() -> None:
    home = house()
    home.set(AVAIL=50, half="AVAIL / 4", broken="1 / 0")
    order = understand(Request("get_cm_vars", b'{"id":null}'), home.snapshot, UTC)
    answer = json.loads(order.answer)
    assert (answer["id"], answer["status"]) == (None, "ok")
    listed = {entry["name"]: entry for entry in answer["vars"]}
    assert listed["AVAIL"] == {"name": "AVAIL", "expr": 50, "val": 50, "value": 50}
    assert listed["half"] == {"name": "half", "expr": "AVAIL / 4", "val": 12.5, "value": 12.5}
    assert listed["broken"]["val"] is None
    assert listed["broken"]["error"]
    assert json.loads(understand(Request("get_cm_vars", b""), home.snapshot, UTC).answer)["status"] == "ok"


@pytest.mark.parametrize(
    ("wish", "topic"),
    [
        ("", "b/response/x"),
        ("client/7/answers", "client/7/answers"),
        ("b/response/7", "b/response/7"),
        ("b/grid/limit_w", "b/response/x"),
        ("b", "b/response/x"),
        ("a/+/c", "b/response/x"),
        ("a/#", "b/response/x"),
    ],
)
def test_where_answers_go(wish: str, topic: str) -> None:
    assert answer_topic("b", Request("x", b"", response_topic=wish)) == topic
