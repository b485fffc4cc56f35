"""Devices nobody polls: those that go silent, and meters that are worked out from others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.core.config import Config, MeterConfig, WallboxConfig, fed_by
from bridge.core.events import Link
from bridge.core.formulas import parse
from bridge.core.loads.inputs import letter, number
from tests.core.sites import House, site


def expression(id: str = "M9", role: str = "display", poll_s: float = 1.0, **values: str) -> MeterConfig:
    formulas = {quantity: parse(text) for quantity, text in values.items()}
    return MeterConfig(id, "expression", role=role, poll_s=poll_s, values=formulas)  # type: ignore[arg-type]


def house_with(*meters: MeterConfig, boxes: int = 1, **grid: object) -> House:
    config = site(boxes, **grid)  # type: ignore[arg-type]
    return House(replace(config, meters=(MeterConfig("M1", "eastron-sdm630", "127.0.0.1"), *meters)))


def values(house: House, device: str = "M9") -> dict[str, object]:
    return dict(house.snapshot.state.devices[device].values)


def test_profiles_without_an_address() -> None:
    assert [fed_by(name) for name in ("http-input", "HTTP_input", "mqtt-input", "expression", "keba-p30")] == [
        *("http", "http", "mqtt", "expression", "modbus")
    ]


@pytest.mark.parametrize(("profile", "poll_s", "patience_s"), [("http-input", 1, 60), ("mqtt-input", 30, 90)])
def test_a_device_that_is_not_fed_any_more_goes_offline(profile: str, poll_s: float, patience_s: float) -> None:
    house = House(replace(site(0), wallboxes=(WallboxConfig("E1", profile, poll_s=poll_s),)))
    house.read("E1", {"state": "C"})
    house.wait(patience_s)
    assert house.snapshot.state.devices["E1"].online
    house.wait(0.1)
    device = house.snapshot.state.devices["E1"]
    assert (device.online, device.reason) == (False, f"not fed for {patience_s} s")
    assert "E1_offline" in house.snapshot.decision.alarms
    house.read("E1", {"state": "C"})
    assert house.snapshot.state.devices["E1"].online


def test_a_silent_fed_box_stays_booked_and_a_silent_fed_grid_meter_counts_as_silent() -> None:
    fed = MeterConfig("M1", "http-input", role="grid")
    boxes = (WallboxConfig("E1", "http-input"), WallboxConfig("E2", "keba-p30", "127.0.0.1"))
    house = House(replace(site(0, power=3 * 230 * 40, failsafe_power_w=4140.0), meters=(fed,), wallboxes=boxes))
    house.read("M1", {"power_w": 0.0})
    house.plug("E1")
    house.obey()
    assert house.setpoints()["E1"] == 20, "it measures nothing: as much again is kept free"
    house.plug("E2")
    house.obey()
    assert house.setpoints() == {"E1": 10, "E2": 0}, "E1 measures nothing: its car may take a while to obey"
    house.wait(13)
    house.obey()
    assert house.setpoints() == {"E1": 10, "E2": 10}
    house.wait(61)
    house.plug("E2")
    assert "not fed for 60 s" in house.reason("E1")
    assert house.setpoints()["E2"] == 0  # 4140 W are 6 A, and E1 may be drawing 10
    assert "M1 is not read" in house.reason("E2")


def test_an_expression_is_worked_out_once_a_poll_period() -> None:
    house = house_with(expression(poll_s=2, power_w="M1.power_w - E1.power_w"))
    house.read("M1", {"power_w": 5000.0})
    assert "E1 is not read" in house.snapshot.state.devices["M9"].reason
    house.read("E1", {"power_w": 1500.0, "state": "C"})
    assert values(house) == {"power_w": 3500.0}
    house.read("M1", {"power_w": 6000.0})
    assert values(house) == {"power_w": 3500.0}
    house.wait(2)
    assert values(house) == {"power_w": 4500.0}


def test_energy_is_integrated_and_gaps_are_not_made_up() -> None:
    house = house_with(expression(power_w="M1.power_w * 2", import_wh="import_wh + power_w * dt / 3600"))
    house.read("M1", {"power_w": 1800.0})
    assert values(house)["import_wh"] == 0
    for _ in range(10):
        house.wait(1)
        house.read("M1", {"power_w": 1800.0})
    assert values(house)["import_wh"] == pytest.approx(10.0)
    house.happen(Link("M1", False, "no answer"))
    house.wait(1)
    device = house.snapshot.state.devices["M9"]
    assert (device.online, device.reason) == (False, "M1 is not read: no answer")
    house.wait(3600)
    house.read("M1", {"power_w": 1800.0})
    assert values(house)["import_wh"] == pytest.approx(10.0)
    house.wait(1)
    assert values(house)["import_wh"] == pytest.approx(11.0)


def test_expressions_may_use_expressions_above_them_and_variables() -> None:
    half = expression("M8", power_w="M1.power_w * SHARE")
    house = house_with(half, expression("M9", power_w="M8.power_w + 1", current_l1_a="M1.current_l1 / 1000"))
    house.set(SHARE=0.5)
    house.read("M1", {"power_w": 100.0, "current_l1_a": 7.0})
    assert values(house) == {"power_w": 51.0, "current_l1_a": 7.0}


def test_all_or_nothing() -> None:
    house = house_with(expression(power_w="M1.power_w", import_wh="M1.import_wh"))
    house.read("M1", {"power_w": 100.0})
    assert not house.snapshot.state.devices["M9"].online
    assert values(house) == {}


def test_a_circle_through_a_variable_is_told() -> None:
    house = house_with(expression(power_w="X + 1"))
    house.set(X=1)
    house.wait(1)
    assert values(house) == {"power_w": 2.0}
    house.set(X="M9.power_w")
    house.wait(1)
    device = house.snapshot.state.devices["M9"]
    assert (device.online, device.reason) == (False, "refers to itself: m9 -> x -> m9")


def test_a_grid_meter_that_is_worked_out_limits_the_boxes() -> None:
    house = house_with(expression(role="grid", power_w="M1.power_w"), power=3 * 230 * 20)
    house.plug("E1")
    house.read("M1", {"power_w": 230.0 * 3 * 8})
    house.obey()
    for _ in range(8):
        house.wait(1)
        house.read("E1", {"state": "C", "current_l1_a": 0.0, "current_l2_a": 0.0, "current_l3_a": 0.0})
        house.read("M1", {"power_w": 230.0 * 3 * 8})
        house.obey()
    assert house.setpoints() == {"E1": 12.0}
    assert house.snapshot.decision.grid.power_w == 230 * 3 * 8
    house.happen(Link("M1", False, "no answer"))
    house.wait(6)
    assert house.setpoints()["E1"] <= 4200 / 690


def test_sites_without_inputs_have_nothing_to_do() -> None:
    assert site(3, meter=True).inputs == ()
    assert Config(site().grid).inputs == ()


@pytest.mark.parametrize(("told", "meant"), [(1, "A"), (3.0, "C"), ("b", "B"), (" 5 ", "E"), ("6", "F")])
def test_states(told: object, meant: str) -> None:
    assert letter(told) == meant


@pytest.mark.parametrize("told", [0, 7, "", "AB", None, 2.5, True, "charging", "²"])
def test_what_is_no_state(told: object) -> None:
    with pytest.raises(ValueError, match="is no state"):
        letter(told)


def test_numbers() -> None:
    assert [number(told) for told in (1, -2.5, "3.5", " 4 ")] == [1, -2.5, 3.5, 4]
    for nonsense in (None, True, "", "nan", "inf", 1e13, "1,5", [1], "12 W", 10**400):
        with pytest.raises(ValueError, match="no number"):
            number(nonsense)
