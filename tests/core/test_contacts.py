"""Contacts: debounced, read-only in formulas, and active whenever nobody knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.core.config import Config, ContactConfig, MeterConfig
from bridge.core.events import Link, Reconfigured
from bridge.core.formulas import parse
from bridge.core.variables import Refused, listing
from tests.core.sites import House, site

MODULE = MeterConfig("IO1", "moxa-iologik-e1200", "10.0.0.8")


def contacted(source: str = "IO1.input1", **more: object) -> Config:
    contact = ContactConfig("W4", parse(source), **more)  # type: ignore[arg-type]
    return replace(site(0, "W4 ? 4200 : 30000"), contacts=(contact,), meters=(MODULE,))


def started(config: Config, level: float = 0.0) -> House:
    """A house whose contact has been read for a while."""
    house = House(config)
    house.happen(Link("IO1", True))
    house.read("IO1", {"input_1": level})
    house.wait(1)
    return house


def active(house: House) -> bool:
    assert house.snapshot.decision.grid.limit_w == (4200 if house.snapshot.decision.values["w4"] else 30000)
    return bool(house.snapshot.decision.values["w4"])


@pytest.mark.parametrize("wiring", ["normally-open", "normally-closed"])
@pytest.mark.parametrize("closed", [0.0, 1.0])
def test_both_wirings(wiring: str, closed: float) -> None:
    assert active(started(contacted(wiring=wiring), closed)) == (closed == (wiring == "normally-open"))


def test_never_read_is_active_with_an_alarm() -> None:
    house = House(contacted())
    assert active(house)
    assert house.snapshot.decision.grid.state == "limited"
    assert house.snapshot.decision.alarms["W4_unknown"].startswith("W4 counts as active: IO1 is not read")


def test_a_change_counts_when_it_has_held() -> None:
    house = started(contacted(debounce_s=0.5))
    for level in (1.0, 0.0, 1.0):
        house.read("IO1", {"input_1": level})
        house.wait(0.4)
        assert not active(house)
    house.wait(0.2)
    assert active(house)
    house.read("IO1", {"input_1": 0.0})
    assert active(house)
    house.wait(0.5)
    assert not active(house)


def test_without_debouncing_it_counts_at_once() -> None:
    house = started(contacted(debounce_s=0.0))
    house.read("IO1", {"input_1": 1.0})
    assert active(house)


def test_a_lost_device_has_its_patience() -> None:
    house = started(contacted())
    house.happen(Link("IO1", False, "no answer"))
    assert not active(house)
    house.wait(3.9)
    assert not active(house)
    house.wait(0.2)
    assert active(house)
    assert "W4_unknown" in house.snapshot.decision.alarms
    house.happen(Link("IO1", True))
    house.read("IO1", {"input_1": 0.0})
    house.wait(0.2)
    assert not active(house)
    assert "W4_unknown" not in house.snapshot.decision.alarms


def test_a_silent_device_is_a_lost_one() -> None:
    house = started(contacted())
    house.wait(3.9)
    assert not active(house)
    house.wait(0.2)
    assert active(house)


def test_an_input_the_device_does_not_have_is_active() -> None:
    assert active(started(contacted("IO1.input7")))


def test_a_source_without_a_value_is_active_although_its_device_answers() -> None:
    house = started(contacted("1 / IO1.input1 > 2"), 1.0)
    assert not active(house)
    house.read("IO1", {"input_1": 0.0})
    assert active(house)
    assert house.snapshot.decision.alarms["W4_unknown"] == "W4 counts as active: division by zero"


def test_it_is_listed_and_nobody_sets_or_clears_it() -> None:
    house = started(contacted(), 1.0)
    assert listing(house.snapshot) == [
        {"name": "AVAIL", "expr": 100, "val": 100, "value": 100},
        {"name": "W4", "expr": 1, "val": 1, "value": 1},
    ]
    for source in ("smgw", "admin", "mqtt"):
        with pytest.raises(Refused, match="w4 is a contact") as caught:
            house.set(source=source, w4=0)
        assert caught.value.forbidden
    house.set(clear=True)
    assert active(house)


def test_a_contact_that_is_set_up_later_is_known_at_once() -> None:
    house = started(replace(contacted(), contacts=()))
    house.happen(Reconfigured(contacted()))
    assert not active(house)
    house.happen(Reconfigured(replace(house.snapshot.config, contacts=())))
    assert "w4" not in house.snapshot.decision.values
