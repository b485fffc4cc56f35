"""What callers see: the vendor's own curl lines, receipts, live events, health, the API description."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bridge.core import step
from bridge.core.events import Confirmed, Link, Read, Stored
from bridge.core.model import Now
from bridge.http.administration import Administration
from bridge.http.app import Views, make_app
from bridge.http.passwords import PasswordFile
from tests.http.conftest import BASIC, Bridge, read_all, request_head

SET = "/cnf?cmd=set_cm_vars"

VENDOR_LINES = [
    ("curl -i -X GET --user admin:1234abcd 'http://localhost/cnf?cmd=set_cm_vars&name=var3&val=123'", 200, '"ok"'),
    (
        """curl -i -X POST -d '{ "vars": [{ "name": "tarif", "expr": 1 }, { "name": "AVAIL", "expr": 70 }] }' """
        "--user admin:1234abcd 'http://localhost/cnf?cmd=set_cm_vars'",
        200,
        '"ok"',
    ),
    ("curl -i -X GET --user admin:1234abcd 'http://localhost/cnf?cmd=get_cm_vars'", 200, '{"vars":['),
    (
        """curl -i -X POST -d '{"vars": [{ "name": "var1", "expr": 1.5 }], { "name": "var2", "expr": 2 }] }' """
        "--user admin:1234abcd 'http://localhost/cnf?cmd=set_cm_vars&clear=1'",
        400,
        "line 1 column 45",
    ),
    ("curl -i -X GET --user admin:wrong 'http://localhost/cnf?cmd=get_cm_vars'", 401, '"'),
    ("curl -i -X GET 'http://localhost/cnf?cmd=get_cm_vars'", 401, '"'),
    ("curl -i -X GET --user admin:1234abcd 'http://localhost/cnf?cmd=nix'", 404, '"unknown command'),
]


def curl(bridge: Bridge, line: str) -> tuple[int, str]:
    words = shlex.split(line.replace("http://localhost/", f"http://localhost:{bridge.port}/"))
    said = subprocess.run([words[0], "-s", *words[1:]], capture_output=True, text=True, check=True).stdout
    head, _, body = said.partition("\n\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(("line", "status", "body"), VENDOR_LINES)
def test_the_vendors_curl_lines_work(bridge: Bridge, line: str, status: int, body: str) -> None:
    got, said = curl(bridge, line)
    assert got == status
    assert body in said
    json.loads(said)


def test_the_curl_lines_of_the_documentation_work(fed: Bridge) -> None:
    text = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    lines = [line for line in re.findall(r"^curl .*$", text, re.M) if "-N " not in line and "password" not in line]
    assert len(lines) >= 6
    for line in lines:
        words = shlex.split(line.replace("localhost:8080", f"localhost:{fed.port}"))
        done = subprocess.run([*words, "--fail", "-s"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, line


def test_a_receipt_follows_a_set_to_the_register(bridge: Bridge) -> None:
    bridge.happen(Link("E1", True), Read("E1", {"state": "C"}, time.monotonic()))
    status, headers, body = bridge.ask(f"{SET}&name=AVAIL&val=50")
    assert (status, body) == (200, b'"ok"')
    path = f"/api/v1/receipts/{headers['X-Receipt']}"
    status, receipt = bridge.json(path)
    assert status == 200
    assert isinstance(receipt, dict)
    assert receipt["variables"] == {"AVAIL": 50}
    assert (receipt["source"], receipt["limit_w"]) == ("admin", 27500)
    assert receipt["stored_at"] >= receipt["in_force_at"] >= receipt["received_at"]
    box = receipt["wallboxes"]["E1"]
    assert (box["state"], box["confirmed_a"]) == ("pending", None)
    setpoint = bridge.hub.snapshot.decision.setpoints["E1"].current_a
    bridge.happen(Confirmed("E1", setpoint, bridge.hub.snapshot.revision))
    _, receipt = bridge.json(path)
    assert isinstance(receipt, dict)
    assert receipt["wallboxes"]["E1"]["state"] == "confirmed"
    assert receipt["wallboxes"]["E1"]["confirmed_a"] == setpoint
    assert bridge.json("/api/v1/receipts/99999")[0] == 404


def test_confirm_waits_for_the_wallboxes_but_not_longer_than_asked(bridge: Bridge) -> None:
    bridge.happen(Link("E1", True), Read("E1", {"state": "C"}, time.monotonic()))
    since = time.monotonic()
    assert bridge.ask(f"{SET}&name=AVAIL&val=40&confirm=0.2")[0] == 200
    assert 0.2 <= time.monotonic() - since < 10.0
    answers: list[int] = []
    asker = threading.Thread(target=lambda: answers.append(bridge.ask(f"{SET}&name=AVAIL&val=50&confirm=10")[0]))
    asker.start()
    bridge.hub.until(lambda snapshot: snapshot.state.last_receipt == 2, 10.0)
    setpoint = bridge.hub.snapshot.decision.setpoints["E1"].current_a
    bridge.happen(Confirmed("E1", setpoint, bridge.hub.snapshot.revision))
    asker.join(3.0)
    assert answers == [200]


def test_ok_is_said_once_it_is_on_disk_and_what_came_behind_waits_for_its_turn(bridge: Bridge) -> None:
    bridge.disk.works = False
    with bridge.connect() as wire:
        wire.sendall(request_head(f"{SET}&name=AVAIL&val=50"))
        assert bridge.hub.until(lambda snapshot: snapshot.state.last_receipt == 1, 10.0)
        wire.sendall(request_head("/healthz", "Connection: close"))
        wire.settimeout(0.15)
        with pytest.raises(TimeoutError):
            wire.recv(1)
        bridge.hub.post(Stored(1))
        wire.settimeout(5.0)
        first, _, second = read_all(wire).partition(b'"ok"')
    assert b"X-Receipt: 1" in first
    assert second.endswith(b'"ok"')
    assert second.count(b"\r\nDate: ") == 1
    assert bridge.hub.snapshot.state.last_receipt == 1


def test_a_set_that_cannot_be_stored_is_answered_503(bridge: Bridge) -> None:
    bridge.disk.error = "disk full"
    status, answer = bridge.json(f"{SET}&name=AVAIL&val=50")
    assert status == 503
    assert "disk full" in str(answer)


def test_a_refused_set_changes_nothing(bridge: Bridge) -> None:
    before = bridge.hub.snapshot.state.variables
    body = '{"vars":[{"name":"AVAIL","expr":50},{"name":"PWR","expr":1}]}'
    assert bridge.json(f"{SET}&clear=1", body)[0] == 403
    assert bridge.hub.snapshot.state.variables == before


def test_the_first_password_is_set_from_this_machine_and_counts_at_once(fresh: Bridge) -> None:
    status, answer = fresh.json("/", Authorization="")
    assert status == 403
    assert "passwd" in str(answer)
    new = "/api/v1/password"
    assert fresh.json(new, '{"password":"short"}')[0] == 400
    assert fresh.json(new, '{"password":"1234abcd"}', Host="evil.example")[0] == 403
    assert fresh.json(new, '{"password":"1234abcd"}', Sec_Fetch_Site="cross-site")[0] == 403
    assert not fresh.passwords.is_set
    assert fresh.json(new, '{"password":"1234abcd"}', Authorization="") == (200, "ok")
    assert fresh.json(new, '{"password":"another one"}', Authorization="")[0] == 401
    assert fresh.json("/api/v1/variables")[0] == 200
    assert fresh.json(new, '{"password":"another one"}') == (200, "ok")
    assert fresh.json("/api/v1/variables")[0] == 401


def test_health_needs_no_password_and_tells_when_rounds_stop(bridge: Bridge, tmp_path: Path) -> None:
    assert bridge.json("/healthz", Authorization="") == (200, "ok")
    snapshot = bridge.hub.snapshot
    late = Views(lambda: snapshot, PasswordFile(tmp_path / "none"), clock=lambda: snapshot.now.mono + 6.0)
    failed = step.fallback(snapshot, Now(snapshot.now.mono, snapshot.now.utc))
    broken = Views(lambda: failed, PasswordFile(tmp_path / "none"), clock=lambda: failed.now.mono)
    for views, words in ((late, "6 s ago"), (broken, "internal error")):
        with pytest.raises(Exception, match=words) as caught:
            make_app(views).test_client().get("/healthz")
        assert getattr(caught.value, "status", None) == 503


def events_of(bridge: Bridge, count: int) -> list[dict[str, object]]:
    with bridge.connect() as wire:
        wire.sendall(request_head("/api/v1/events"))
        got = b""
        while got.count(b"\n\n") < count:
            got += wire.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"text/event-stream" in head
    assert b"Content-Length" not in head
    return [json.loads(text.removeprefix(b"data: ")) for text in body.split(b"\n\n") if text]


def test_live_events_follow_the_state(bridge: Bridge) -> None:
    setter = threading.Timer(0.1, lambda: bridge.ask(f"{SET}&name=AVAIL&val=10"))
    setter.start()
    first, *_, last = events_of(bridge, 3)
    setter.join()
    assert isinstance(first["grid"], dict)
    assert isinstance(last["grid"], dict)
    assert (first["grid"]["limit_w"], last["grid"]["limit_w"]) == (55000, 5500)


def test_live_events_are_at_most_four_a_second_and_need_the_password(bridge: Bridge) -> None:
    assert bridge.json("/api/v1/events", Authorization="")[0] == 401
    over = threading.Event()

    def busy() -> None:
        while not over.wait(0.01):
            bridge.hub.ask(Read("M1", {"power_w": time.monotonic()}, time.monotonic()))

    thread = threading.Thread(target=busy)
    thread.start()
    since = time.monotonic()
    events_of(bridge, 4)
    assert time.monotonic() - since >= 0.75
    over.set()
    thread.join()


def test_nothing_is_sent_while_nothing_happens(bridge: Bridge) -> None:
    with bridge.connect() as wire:
        wire.sendall(request_head("/api/v1/events"))
        end, got = time.monotonic() + 0.8, b""
        while (left := end - time.monotonic()) > 0:
            wire.settimeout(left)
            with suppress(TimeoutError):
                got += wire.recv(65536)
    assert got.count(b"data: ") <= 2  # the first, and at most one round of the second that passed


def test_fifty_tabs_hold_nobody_up(bridge: Bridge) -> None:
    tabs = [bridge.connect() for _ in range(50)]
    for tab in tabs:
        tab.sendall(request_head("/api/v1/events"))
    for tab in tabs:
        assert b"text/event-stream" in tab.recv(65536)
    took = []
    for _ in range(20):
        since = time.monotonic()
        assert bridge.ask(f"{SET}&name=AVAIL&val=50")[0] == 200
        took.append(time.monotonic() - since)
    assert median(took) < 0.5
    for tab in tabs:
        tab.close()


def test_every_answer_carries_the_security_headers(bridge: Bridge) -> None:
    for path, authorization in (("/", BASIC), ("/cnf?cmd=get_cm_vars", BASIC), ("/nix", BASIC), ("/", "")):
        _, headers, _ = bridge.ask(path, Authorization=authorization)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")


def test_metrics_carry_what_other_edges_report(bridge: Bridge) -> None:
    bridge.samples.append(("links_total", {"peer": "E1"}, 3.0))
    status, headers, body = bridge.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b'smgw_bridge_links_total{peer="E1"} 3.0' in body


def test_the_api_description_is_true(bridge: Bridge) -> None:
    status, document = bridge.json("/api/openapi.json")
    assert status == 200
    assert isinstance(document, dict)
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    bridge.ask(f"{SET}&name=AVAIL&val=50")
    assert bridge.ask("/api/v1/certificates/cls/create", "{}")[0] == 200
    for path, method in described:
        if method == "GET" and path != "/api/v1/events":
            url = path.format(number=1, name="cls") + ("?cmd=get_cm_vars" if path == "/cnf" else "")
            assert bridge.ask(url)[0] == 200, path
    app = make_app(Views(lambda: bridge.hub.snapshot, bridge.passwords), Administration(None, None))  # type: ignore[arg-type]
    served = {
        (re.sub(r"<(?:.*?:)?(.*?)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if rule.rule.startswith("/api/v1") and method not in ("HEAD", "OPTIONS")
    }
    assert served == {(path, method) for path, method in described if path.startswith("/api/v1")}


@pytest.mark.parametrize(
    "path",
    ["/api/v1/snapshot", "/api/v1/variables", "/api/v1/devices", "/api/v1/receipts/1", "/api/v1/certificates"],
)
def test_answers_have_the_fields_the_description_says(bridge: Bridge, path: str) -> None:
    bridge.ask(f"{SET}&name=AVAIL&val=50")
    bridge.happen(Link("E1", True), Read("E1", {"state": "C", "power_w": 11.5}, time.monotonic()))
    assert bridge.ask("/api/v1/certificates/cls/create", "{}")[0] == 200
    _, document = bridge.json("/api/openapi.json")
    assert isinstance(document, dict)
    place = document["paths"][re.sub(r"\d+$", "{number}", path)]["get"]["responses"]["200"]
    check(document, place["content"]["application/json"]["schema"], bridge.json(path)[1], path)


def check(document: Any, schema: Any, value: object, at: str) -> None:
    """As much of JSON Schema as the description uses; no field may go undescribed."""
    if "$ref" in schema:
        named = document["components"]["schemas"][str(schema["$ref"]).rpartition("/")[2]]
        return check(document, named, value, at)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    types: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "integer": int,
        "boolean": bool,
        "null": type(None),
    }
    assert any(isinstance(value, types[str(kind)]) for kind in kinds), f"{at}: {value!r} is no {kinds}"
    if isinstance(value, list):
        for index, one in enumerate(value):
            check(document, schema["items"], one, f"{at}[{index}]")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        assert set(schema.get("required", [])) <= set(value), at
        for name, one in value.items():
            inner = properties.get(name) or schema.get("additionalProperties")
            assert inner, f"{at}.{name} is not described"
            check(document, inner, one, f"{at}.{name}")
    return None


def test_explain_answers_for_given_values_and_sets_nothing(bridge: Bridge) -> None:
    before = bridge.json("/api/v1/variables")
    status, told = bridge.json("/api/v1/explain?AVAIL=10")
    assert status == 200
    assert isinstance(told, dict)
    assert told["grid"]["limit_w"] == 5500
    assert any("AVAIL = 10 (assumed)" in sentence for sentence in told["sentences"])
    assert bridge.json("/api/v1/variables") == before
    assert bridge.json("/api/v1/explain?AVAIL=10%20%2B")[0] == 400
    assert bridge.json("/api/v1/explain?9=1")[0] == 400
    assert bridge.json("/api/v1/explain?AVAIL=101") == (400, "AVAIL: 101 is outside min 0, max 100")
    assert bridge.json("/api/v1/explain?cm.avail=10")[1]["grid"] == told["grid"]  # type: ignore[call-overload,index]
