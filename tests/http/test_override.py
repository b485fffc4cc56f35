"""``override_device``: what somebody wants otherwise until the car leaves, over a real socket."""

from __future__ import annotations

import time

import pytest

from bridge.core.events import Link, Read
from tests.http.conftest import Bridge

WISH = "/cnf?cmd=override_device&dev_id=E1"


@pytest.fixture
def charging(bridge: Bridge) -> Bridge:
    bridge.happen(Link("E1", True), Read("E1", {"state": "C"}, time.monotonic()))
    return bridge


def test_a_wish_is_in_force_when_ok_is_answered(charging: Bridge) -> None:
    assert charging.json(f"{WISH}&mamps=8000.0") == (200, "ok")
    assert charging.hub.snapshot.decision.setpoints["E1"].limit_a == 8.0
    assert charging.json(f"{WISH}&flags=C&mamps=") == (200, "ok")
    assert charging.hub.snapshot.decision.setpoints["E1"].current_a == 0.0
    assert charging.json(f"{WISH}&flags=ce&mamps=-1") == (200, "ok")
    assert charging.hub.snapshot.state.overrides == {}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/cnf?cmd=override_device&flags=C", "no wallbox ''"),
        (WISH, "nothing to override"),
        (f"{WISH}&flags=X", "flags knows no 'X'"),
        (f"{WISH}&mamps=much", "mamps: 'much' is no number"),
        (f"{WISH}&mamps=nan", "mamps: 'nan' is no number"),
    ],
)
def test_mistakes(charging: Bridge, path: str, words: str) -> None:
    status, reason = charging.json(path)
    assert status == 400
    assert words in str(reason)
    assert charging.hub.snapshot.state.overrides == {}


def test_without_a_car_nothing_sticks_and_says_so(bridge: Bridge) -> None:
    status, reason = bridge.json(f"{WISH}&flags=C")
    assert (status, reason) == (400, "no car is connected to E1: an override lasts until the car leaves")


def test_it_needs_the_password(charging: Bridge) -> None:
    assert charging.ask(f"{WISH}&flags=C", Authorization="")[0] == 401
    assert charging.hub.snapshot.state.overrides == {}
