"""How the house stands: state, since when, until when, and what it is owed at least."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.core.formulas import parse
from bridge.core.functions import NoValue, pmin14a
from bridge.core.grid.standing import INIT_S
from bridge.core.model import State
from bridge.core.records.journal import Journal
from tests.core.sites import START, House, site

KW = {1: 4.2, 2: 7.56, 3: 10.5, 4: 13.02, 5: 15.12, 6: 16.8, 7: 18.06, 8: 18.9, 9: 19.32, 10: 21.21, 0: 0.0}
"""BK6-22-300, Anlage 1, 4.5.2: no device with more than 11 kW of heat pumps or cooling."""


@pytest.mark.parametrize(("count", "kilowatts"), KW.items())
def test_what_is_owed(count: int, kilowatts: float) -> None:
    assert pmin14a(float(count)) == pytest.approx(1000 * kilowatts)


@pytest.mark.parametrize(
    ("count", "heat_w", "cooling_w", "least_w"),
    [
        (1, 11_000, 0, 4200),
        (1, 12_000, 0, 4800),
        (3, 20_000, 0, 8000 + 2 * 0.75 * 4200),
        (3, 20_000, 30_000, 12_000 + 2 * 0.75 * 4200),
        (3, 20_000, 9_000, 8000 + 2 * 0.75 * 4200),
    ],
)
def test_large_heat_pumps_and_cooling(count: int, heat_w: float, cooling_w: float, least_w: float) -> None:
    assert pmin14a(float(count), heat_w, cooling_w) == pytest.approx(least_w)


@pytest.mark.parametrize("count", [-1.0, 1.5])
def test_devices_are_counted(count: float) -> None:
    with pytest.raises(NoValue):
        pmin14a(count)


def grid(house: House) -> tuple[str, float, float | None]:
    decided = house.snapshot.decision.grid
    return decided.state, decided.since - START.utc, decided.until and decided.until - START.utc


def test_since_and_until() -> None:
    house = House(site())
    assert grid(house) == ("unlimited", 0, None)
    house.wait(10)
    house.set(AVAIL=50)
    assert grid(house) == ("limited", 10, None)
    house.wait(10)
    house.set(ttl=100, AVAIL=40)
    assert grid(house) == ("limited", 10, 120)
    house.wait(100)
    assert grid(house) == ("unlimited", 120, None)


def test_it_starts_until_the_grid_meter_is_read_or_a_minute_is_over() -> None:
    house = House(site(meter=True))
    assert house.snapshot.decision.grid.state == "init"
    house.wait(INIT_S - 1)
    assert house.snapshot.decision.grid.state == "init"
    house.wait(1)
    assert house.snapshot.decision.grid.state == "unlimited"
    house = House(site(meter=True))
    house.set(AVAIL=50)
    assert house.snapshot.decision.grid.state == "limited", "that much is known"
    house.set(AVAIL=100)
    house.read("M1", {"power_w": 0.0})
    assert house.snapshot.decision.grid.state == "unlimited"


@pytest.mark.parametrize(
    ("formulas", "state", "below"),
    [
        ({"power": "30000", "controllable_power_w": "AVAIL == 100 ? 30000 : 7000"}, "limited", True),
        ({"power": "30000", "controllable_power_w": "AVAIL == 100 ? 30000 : 7560"}, "limited", False),
        ({"power": "30000", "connection_current_a": "AVAIL == 100 ? 50 : 10"}, "limited", True),
        ({"power": "AVAIL == 100 ? 30000 : 7000"}, "limited", True),
        ({"power": "30000", "wallbox_power_w": "AVAIL == 100 ? 30000 : 7000"}, "unlimited", False),
        ({"power": "7000"}, "unlimited", False),
    ],
)
def test_whatever_the_grid_side_reduces(formulas: dict[str, str], state: str, below: bool) -> None:
    config = site(2, formulas["power"])
    more = {key: parse(formula) for key, formula in formulas.items() if key != "power"}
    house = House(replace(config, grid=replace(config.grid, **more)))
    assert house.snapshot.decision.grid.state == "unlimited"
    decided = house.set(AVAIL=0).decision.grid
    assert (decided.state, decided.below_minimum, decided.minimum_w) == (state, below, 7560)


@pytest.mark.parametrize(
    ("event", "since_s"), [("2026-09-21T14:13:30.000Z", 10), ("", 70), ("of old", 70), ("2026-09-21T15:13:30.000Z", 70)]
)
def test_a_limit_that_is_repeated_holds_since_its_event_began_also_after_a_restart(event: str, since_s: float) -> None:
    house = House(site())
    house.wait(10)
    house.set(AVAIL=50)
    house.wait(60)
    house.set(AVAIL=50)
    assert grid(house) == ("limited", 10, None)
    known = State(variables=house.snapshot.state.variables, journal=Journal(event=event))
    assert grid(House(house.snapshot.config, known, house.wait(60).now)) == ("limited", since_s, None)


@pytest.mark.parametrize(
    ("formulas", "reason"),
    [
        ({"controllable_power_w": "300 * AVAIL"}, "for what wallboxes draw from the grid 300 * AVAIL = 3000 W"),
        ({"connection_current_a": "AVAIL / 2"}, "on each line AVAIL / 2 = 5 A"),
        ({"power": "300 * AVAIL", "controllable_power_w": "200 * AVAIL"}, "300 * AVAIL = 3000 W"),
    ],
)
def test_reason_and_source_are_those_of_the_limit_that_is_reduced(formulas: dict[str, str], reason: str) -> None:
    config = site(2, formulas.get("power", "30000"))
    more = {key: parse(formula) for key, formula in formulas.items() if key != "power"}
    house = House(replace(config, grid=replace(config.grid, **more)))
    assert house.snapshot.decision.grid.cause.source == "config"
    snapshot = house.set(AVAIL=10)
    assert snapshot.decision.grid.cause.reason == f"{reason} with AVAIL = 10 (smgw)"
    assert snapshot.decision.grid.cause.source == "smgw"
    told = snapshot.decision.alarms["grid_below_minimum"]
    assert told.startswith("obeyed, but below the 7560 W the grid operator owes: ")
    assert "AVAIL = 10 (smgw)" in told


def test_a_limit_that_is_only_coming_back_undercuts_nothing() -> None:
    config = site(2, "30000 * AVAIL / 100", return_ramp_s=300)
    house = House(config)
    house.set(AVAIL=10)
    house.wait(60)
    assert house.snapshot.decision.grid.below_minimum
    for percent in (50, 100):
        grid = house.set(AVAIL=percent).decision.grid
        assert (grid.limit_w, grid.state, grid.below_minimum) == (3000, "limited", False)
        assert "grid_below_minimum" not in house.snapshot.decision.alarms
    again = House(config, State(variables=house.snapshot.state.variables), house.now)
    grid = again.snapshot.decision.grid
    assert (grid.limit_w, grid.state, grid.below_minimum) == (4200, "limited", False)


def test_a_reduced_limit_beside_the_fail_safe_is_not_its_cause() -> None:
    house = House(site(1, "NOBODY", controllable_power_w=parse("300 * AVAIL")))
    grid = house.set(AVAIL=10).decision.grid
    assert (grid.state, grid.cause.reason) == ("failsafe", grid.reason)


def test_devices_that_are_no_wallboxes_count_when_they_are_told() -> None:
    assert House(site(2, controllable_devices=3)).snapshot.decision.grid.minimum_w == 10_500
    assert House(site(2, controllable_devices=0)).snapshot.decision.grid.minimum_w is None
    assert House(site(0)).snapshot.decision.grid.minimum_w is None
