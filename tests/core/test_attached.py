"""A wallbox that measures nothing, with a meter of its own in front of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.core.config import MeterConfig
from bridge.core.events import Confirmed, Link
from tests.core.sites import House, site


def house() -> House:
    config = site(1, power=20 * 690.0, meter=True)
    own = MeterConfig("M2", "eastron-sdm630", "127.0.0.1:503", role="wallbox")
    boxes = (replace(config.wallboxes[0], meter="M2"),)
    found = House(replace(config, meters=(*config.meters, own), wallboxes=boxes))
    found.happen(Link("M1", True), Link("M2", True), Link("E1", True))
    found.happen(Confirmed("E1", 0.0, found.snapshot.revision))
    return found


def lines(amperes: float) -> dict[str, float]:
    return {**dict.fromkeys(("current_l1_a", "current_l2_a", "current_l3_a"), amperes), "power_w": amperes * 690}


def second(found: House, house_a: float, car_a: float, silent: bool = False) -> None:
    found.wait(1)
    found.read("M1", lines(house_a + car_a))
    if not silent:
        found.read("M2", {**lines(car_a), "import_wh": 5000.0 + found.mono, "voltage_l1_v": 231.0})
    found.read("E1", {"state": "C"})
    found.happen(Confirmed("E1", found.setpoints()["E1"], found.snapshot.revision))


def test_it_measures_like_any_other() -> None:
    found = house()
    for _ in range(40):
        second(found, 4.0, found.setpoints()["E1"])
    assert found.setpoints() == {"E1": 16.0}, "all that the house leaves"
    values = found.snapshot.state.devices["E1"].values
    assert values["power_w"] == 16.0 * 690
    assert values["voltage_l1_v"] == 231.0
    assert values["energy_wh"] == pytest.approx(5000.0 + found.mono, abs=2)
    assert values["state"] == "C"


def test_while_its_meter_is_silent_it_measures_nothing() -> None:
    found = house()
    for _ in range(40):
        second(found, 4.0, found.setpoints()["E1"])
    for _ in range(60):
        second(found, 4.0, found.setpoints()["E1"], silent=True)
    assert found.setpoints() == {"E1": 8.0}, "as much again is kept free"
    assert "power_w" not in found.snapshot.state.devices["E1"].values, "what was true a minute ago is no reading"


def test_a_reading_is_as_old_as_the_meters() -> None:
    found = house()
    found.read("M2", lines(9.0))
    read = found.mono
    found.wait(2)
    found.read("E1", {"state": "C"})
    assert found.snapshot.state.devices["E1"].mono == read
    found.wait(1)
    found.read("E1", {"state": "C"})
    assert found.snapshot.state.devices["E1"].mono == found.mono, "3 s are too old: this is the wallbox alone"
