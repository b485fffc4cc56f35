"""What the house draws beside its wallboxes: signs, feed-in, and wallboxes that measure nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists

from bridge.core.config import Config, GroupConfig, MeterConfig, WallboxConfig
from bridge.core.events import Confirmed, Link, Reconfigured
from bridge.core.formulas import parse
from bridge.core.loads.otherload import line_currents
from tests.core.sites import House, site


def lines(amperes: float, power_w: float | None = None) -> dict[str, float]:
    values = dict.fromkeys(("current_l1_a", "current_l2_a", "current_l3_a"), abs(amperes))
    return {**values, "power_w": amperes * 690 if power_w is None else power_w}


def metered(boxes: int = 1) -> House:
    house = House(site(boxes, power=20 * 690.0, meter=True, failsafe_power_w=4200.0))
    house.happen(Link("M1", True), *(Link(box.id, True) for box in house.snapshot.config.wallboxes))
    house.happen(*(Confirmed(box.id, 0.0, house.snapshot.revision) for box in house.snapshot.config.wallboxes))
    return house


def second(house: House, house_a: float, car_a: float, sign: float = 1.0, measured: bool = True) -> None:
    """The meter is read, then the wallbox; it then does what it is told."""
    house.wait(1)
    house.read("M1", lines(sign * (house_a + car_a)))
    house.read("E1", {"state": "C", **(lines(car_a) if measured else {})})
    house.happen(Confirmed("E1", house.setpoints()["E1"], house.snapshot.revision))


def test_what_is_fed_in_is_room() -> None:
    house = metered()
    for _ in range(6):
        second(house, -5.0, 0.0)
    assert house.setpoints() == {"E1": 25.0}


def test_a_wallbox_that_measures_nothing_leaves_as_much_free_as_it_is_offered() -> None:
    house = metered()
    for _ in range(90):
        second(house, 0.0, 0.0, measured=False)
    assert house.setpoints()["E1"] == pytest.approx(20.0, abs=0.2), "the car takes nothing: there is room for all of it"
    for _ in range(30):
        second(house, 0.0, house.setpoints()["E1"], measured=False)
    assert house.setpoints() == {"E1": 10.0}, "the meter shows 10 A: nobody can tell whose they are"
    assert "kept free, for this wallbox measures nothing" in house.reason("E1")
    for _ in range(30):
        second(house, -5.0, house.setpoints()["E1"], measured=False)
    assert house.setpoints() == {"E1": 12.5}


@given(
    house_a=floats(-10, 13),
    parts=lists(floats(0, 1), min_size=1, max_size=5),
    every=integers(1, 20),
)
def test_whatever_part_of_its_offer_an_unmeasured_car_takes(house_a: float, parts: list[float], every: int) -> None:
    """Neither its battery nor the weather is asked: what it is offered fits beside the house at any moment."""
    house = metered()
    for passed in range(60):
        car_a = house.setpoints()["E1"] * parts[passed // every % len(parts)]
        second(house, house_a, car_a, measured=False)
        assert house_a + house.setpoints()["E1"] <= 20.0 + 1e-6


@pytest.mark.parametrize("part", [0.0, 0.6, 0.9, 1.0])
def test_how_far_a_car_has_come_down_only_its_next_reading_tells(part: float) -> None:
    """The meter falls by more than was asked for: that may be the car, which may go up again at any moment."""
    house = metered()
    for _ in range(30):
        second(house, 2.0, min(13.0, house.setpoints()["E1"]))
    house.wait(1)
    house.read("M1", lines(11.0 + 13.0))
    assert house.setpoints() == {"E1": 9.0}
    for _ in range(5):
        house.happen(Confirmed("E1", house.setpoints()["E1"], house.snapshot.revision))
        house.wait(1)
        house.read("M1", lines(11.0 + part * 9.0))
        assert house.setpoints() == {"E1": 9.0}


@pytest.mark.parametrize("power_w", [-1e9, 1e9])
def test_a_meter_that_tells_what_cannot_be_true_makes_no_room(power_w: float) -> None:
    """As with a wrong order of words: the house is taken to be at its fail-safe, and nothing of it is kept."""
    house = metered()
    for _ in range(8):
        second(house, 2.0, 0.0)
    assert house.setpoints() == {"E1": 18.0}
    for _ in range(2):
        house.wait(1)
        house.read("M1", lines(1e6, power_w))
    assert house.setpoints() == {"E1": 6.0}, "a third of 4200 W"
    assert "grid meter M1 tells no current that can be true" in house.reason("E1")
    second(house, 2.0, 0.0)
    house.happen(Confirmed("E1", house.setpoints()["E1"], house.snapshot.revision))
    assert house.setpoints() == {"E1": 18.0}


@pytest.mark.parametrize(("sign", "reversed_"), [(1.0, False), (-1.0, True)])
def test_a_meter_that_counts_the_wrong_way_is_found_out(sign: float, reversed_: bool) -> None:
    house = metered()
    for change in range(5):
        for _ in range(5):
            second(house, 2.0, 6.0 if change % 2 else 14.0, sign)
    alarms = house.snapshot.decision.alarms
    assert ("M1_reversed" in alarms) == reversed_
    if reversed_:
        assert house.setpoints() == {"E1": 6.0}, "nobody knows what the house draws: the fail-safe"
        assert "M1 counts the wrong way" in house.reason("E1")


def test_a_kettle_proves_nothing_about_the_meter() -> None:
    house = metered()
    for change in range(8):
        for _ in range(5):
            second(house, 2.0 if change % 2 else 10.0, 6.0)
    assert house.snapshot.decision.alarms == {}


@pytest.mark.parametrize(
    ("amperes", "total_a", "found"),
    [
        ((3.0, 3.0, 3.0), -9.0, (-3.0, -3.0, -3.0)),
        ((18.0, 5.0, 5.0), -8.0, (-18.0, 5.0, 5.0)),
        ((18.0, 16.0, 9.0), -11.0, (-18.0, 16.0, -9.0)),
        ((18.0, 24.0, 8.0), -2.0, (-18.0, 24.0, -8.0)),
        ((18.0, 25.0, 8.0), -1.0, (18.0, 25.0, 8.0)),  # too close to the other way round
        ((18.0, 5.0, 5.0), -7.4, (-18.0, 5.0, 5.0)),  # at another voltage than was reckoned with
        ((6.0, 6.0, 6.0), -16.2, (-6.0, -6.0, -6.0)),  # an inverter at a power factor of 0.9
        ((10.0, 10.0, 5.0), -5.0, (10.0, 10.0, -5.0)),  # one of the first two exports, nobody knows which
        ((18.0, 0.3, 0.2), -18.0, (-18.0, 0.3, 0.2)),
        ((5.0, 5.0, 5.0), 5.0, (5.0, 5.0, 5.0)),
    ],
)
def test_a_line_exports_only_where_the_total_power_leaves_no_doubt(
    amperes: tuple[float, ...], total_a: float, found: tuple[float, ...]
) -> None:
    values = {**{f"current_l{line}_a": amperes[line - 1] for line in (1, 2, 3)}, "power_w": total_a * 230.0}
    assert line_currents(values, (1, 2, 3), 230.0, signed=True) == found


def test_the_sun_on_one_line_makes_no_room_on_another() -> None:
    house = House(site(1, power=30000, connection_current_a=parse(20), meter=True))
    house.plug("E1", state="B")
    house.read("E1", {"state": "B", "current_l1_a": 0.0, "current_l2_a": 0.0, "current_l3_a": 0.0})
    house.read("M1", {"current_l1_a": 18.0, "current_l2_a": 5.0, "current_l3_a": 5.0, "power_w": -1840.0})
    house.obey()
    assert house.setpoints() == {"E1": 15.0}


def drawn(amperes: float) -> dict[str, float]:
    return {f"current_l{line}_a": amperes for line in (1, 2, 3)}


def feeders(*ids: str) -> Config:
    """A wallbox E_ID behind each of some feeders of 20 A, which have meters M_ID."""
    config = site(0, 100_000)
    return replace(
        config,
        meters=tuple(MeterConfig(f"M_{id}", "eastron-sdm630", "10.0.0.1") for id in "AB"),
        groups=tuple(GroupConfig(id, current_a=parse(20), meter=f"M_{id}") for id in ids),
        wallboxes=tuple(WallboxConfig(f"E_{id}", "keba-p30", "10.0.0.2", group=id) for id in ids),
    )


def test_another_order_of_the_feeders_mixes_up_none_of_their_loads() -> None:
    house = House(feeders("A", "B"))
    house.plug("E_A", "E_B")
    for _ in range(8):
        house.read("M_A", {**drawn(10.0), "power_w": -6900.0})
        house.read("M_B", drawn(12.0))
        house.read("E_A", {"state": "C", **drawn(0.0)})
        house.read("E_B", {"state": "C", **drawn(0.0)})
        house.wait(1)
    house.obey()
    assert house.setpoints() == {"E_A": 30.0, "E_B": 8.0}
    house.happen(Reconfigured(feeders("B", "A")))
    house.obey()
    assert house.setpoints() == {"E_A": 30.0, "E_B": 8.0}
    house.happen(Reconfigured(feeders("B")))
    house.obey()
    assert house.setpoints() == {"E_B": 8.0}


def test_what_a_wallbox_draws_is_other_load_as_soon_as_it_is_no_more_in_the_file() -> None:
    house = House(site(3, 30 * 690.0, meter=True))
    house.plug("E1", "E2", "E3")
    house.read("M1", drawn(0.0))
    house.obey()
    for second in range(12):
        for box in ("E1", "E2", "E3"):
            house.read(box, {"state": "C", **drawn(10.0 if second else 0.0)})
        house.wait(0.5)
        house.read("M1", drawn(30.0 if second else 0.0))
        house.obey()
        house.wait(0.5)
    assert house.setpoints() == {"E1": 10.0, "E2": 10.0, "E3": 10.0}
    house.happen(Reconfigured(site(2, 30 * 690.0, meter=True)))
    house.obey()
    assert house.setpoints() == {"E1": 10.0, "E2": 10.0}
