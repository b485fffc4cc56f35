"""Charging sessions over HTTP: which are listed, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bridge.core.events import Link, Read
from bridge.core.records.session import Session, Span
from bridge.http.access import Refusal
from bridge.http.sessions import MAX_LIMIT, session_of, table, wanted
from tests.http.conftest import Bridge
from tests.http.test_site import check

DAY = 86_400.0
BEGIN = 1_790_000_000.0
BERLIN = ZoneInfo("Europe/Berlin")


def session(id: int, wallbox: str = "E1", **more: object) -> Session:
    begin = BEGIN + id * DAY
    spans = (Span(begin, "waiting", "car"), Span(begin + 60, "charging", "", 5000.0))
    known = {"ended": "unplugged", "unplugged_at": begin + 3600, "energy_wh": 5000.0, "spans": spans, **more}
    return Session(id, wallbox, begin, begin + 3600, **known)  # type: ignore[arg-type]


class Shelf:
    """Stands in for storage: what is on disk."""

    def __init__(self) -> None:
        self.there = [session(1), session(2, "E2"), session(3)]
        self.broken = ""

    def sessions(self, wallbox: str | None, since: float, until: float, limit: int) -> Sequence[Session]:
        if self.broken:
            raise OSError(self.broken)
        fits = [one for one in self.there if wallbox in (None, one.wallbox) and since <= one.plugged_at < until]
        return fits[::-1][:limit]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def bridge(tmp_path: Path, shelf: Shelf) -> Iterator[Bridge]:
    running = Bridge(tmp_path, archive=shelf)
    yield running
    running.stop()


def listed(bridge: Bridge, query: str = "") -> list[int]:
    status, document = bridge.json(f"/api/v1/sessions{query}")
    assert status == 200
    assert isinstance(document, dict)
    return [one["id"] for one in document["sessions"]]


def test_filters(bridge: Bridge) -> None:
    assert listed(bridge) == [3, 2, 1]
    assert listed(bridge, "?wallbox=E1") == [3, 1]
    assert listed(bridge, "?wallbox=E9") == []
    assert listed(bridge, "?limit=2") == [3, 2]
    assert listed(bridge, "?from=2026-09-23&to=2026-09-24T14:13:20Z") == [2]
    assert listed(bridge, "?from=2026-09-23T14:13:20%2B00:00") == [3, 2]


def test_what_happens_now_is_in_the_list(bridge: Bridge, shelf: Shelf) -> None:
    shelf.there = []
    for state in ("A", "C", "A", "C"):
        bridge.happen(Link("E1", True), Read("E1", {"state": state, "power_w": 4000.0}, time.monotonic()))
    assert listed(bridge, "?limit=4&from=2020-01-01") == [2, 1]
    assert listed(bridge, "?to=2020-01-01") == []


def test_one_that_ended_and_is_on_disk_meanwhile_is_listed_once(bridge: Bridge, shelf: Shelf) -> None:
    for state in ("A", "C"):
        bridge.happen(Link("E1", True), Read("E1", {"state": state, "power_w": 4000.0}, time.monotonic()))
    shelf.there = [session(1)]
    _, document = bridge.json("/api/v1/sessions")
    assert isinstance(document, dict)
    assert [(one["id"], one["ended"]) for one in document["sessions"]] == [(1, "unplugged")]


def test_answers_have_the_fields_the_description_says(bridge: Bridge) -> None:
    bridge.happen(Link("E1", True), Read("E1", {"state": "C", "power_w": 4000.0, "rfid": "04A1"}, time.monotonic()))
    _, document = bridge.json("/api/openapi.json")
    assert isinstance(document, dict)
    place = document["paths"]["/api/v1/sessions"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    check(document, place, bridge.json("/api/v1/sessions")[1], "sessions")


@pytest.mark.parametrize("query", ["?limit=0", f"?limit={MAX_LIMIT + 1}", "?limit=x", "?from=yesterday", "?box=E1"])
def test_mistakes_are_told(bridge: Bridge, query: str) -> None:
    for path in ("/api/v1/sessions", "/api/v1/sessions.csv"):
        status, answer = bridge.json(path + query)
        assert status == 400
        assert query[1:].partition("=")[0] in str(answer)


def test_a_disk_that_cannot_be_read(bridge: Bridge, shelf: Shelf) -> None:
    shelf.broken = "input/output error"
    status, answer = bridge.json("/api/v1/sessions")
    assert status == 503
    assert "input/output error" in str(answer)


def test_the_password_is_needed(bridge: Bridge) -> None:
    assert bridge.json("/api/v1/sessions.csv", Authorization="")[0] == 401


def test_the_table(bridge: Bridge, shelf: Shelf) -> None:
    shelf.there = [
        session(1, energy_wh=12345.67, charging_s=1800.4, pauses={"car": 60.0, "grid_limit": 1200.0}, rfid='=A"1,\n'),
        session(2, estimated=True, start_wh=1000.0, end_wh=6000.0, phases=3, peak_w=11040.2),
    ]
    status, headers, body = bridge.ask("/api/v1/sessions.csv")
    assert status == 200
    assert headers["Content-Type"].startswith("text/csv")
    assert "attachment" in headers["Content-Disposition"]
    text = body.decode("utf-8")
    assert text.endswith("\r\n")
    second, first = csv.DictReader(io.StringIO(text, newline=""))
    assert [first[name] for name in ("id", "energy_wh", "charging_s")] == ["1", "12345.7", "1800"]
    assert (first["estimated"], second["estimated"]) == ("false", "true")
    assert (first["car_s"], first["grid_limit_s"], first["rule_s"]) == ("60", "1200", "")
    assert first["rfid"] == "'=A\"1,\n", "no spreadsheet runs it"
    assert (first["start_wh"], first["phases"], first["connected_s"]) == ("", "", "3060")
    assert (second["start_wh"], second["phases"], second["peak_w"]) == ("1000", "3", "11040")


def test_times_in_the_table_are_local_and_keep_their_offset() -> None:
    summer, winter = session(1), session(60)
    rows = [*csv.DictReader(io.StringIO(table([summer, winter], BERLIN)))]
    assert [row["plugged_at"] for row in rows] == ["2026-09-22T16:13:20+02:00", "2026-11-20T15:13:20+01:00"]
    assert wanted({"from": "2026-11-20"}, BERLIN).since == wanted({"from": "2026-11-19T23:00:00Z"}, BERLIN).since


def test_moments_that_do_not_exist_are_told() -> None:
    for text in ("", "2026-13-01", "9" * 50):
        with pytest.raises(Refusal):
            wanted({"from": text}, BERLIN)


def test_spans_are_told() -> None:
    document = json.loads(json.dumps(session_of(session(1))))
    assert document["spans"][0] == {"at": "2026-09-22T14:13:20.000Z", "doing": "waiting", "why": "car", "energy_wh": 0}
