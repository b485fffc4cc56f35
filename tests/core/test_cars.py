"""What readings tell about a car: lines it uses, current it wants, whether it sleeps; and what sharing makes of it."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.config import Capability, Config, GridConfig, WallboxConfig
from bridge.core.events import Confirmed, Link, Read
from bridge.core.formulas import parse
from bridge.core.loads import cars
from bridge.core.model import Car, Device, Offer
from tests.core.sites import House, site

BOX = WallboxConfig("E1", "keba-p30", "10.0.0.1")
AT_16_A = Offer(confirmed_a=16.0, confirmed_at=0.0)


def currents(*lines: float) -> dict[str, float]:
    lines = lines if len(lines) == 3 else lines * 3
    return {f"current_l{number}_a": float(line) for number, line in enumerate(lines, 1)}


def watch(seconds: int, *lines: float, state: str = "C", car: Car | None = None, since: float = 0.0) -> Car | None:
    """The car after being read once a second."""
    for second in range(seconds + 1):
        device = Device(True, "", {"state": state, **currents(*lines)}, since + second)
        car = cars.seen(BOX, car, device, AT_16_A, 230.0)
    return car


def test_a_car_on_one_line_is_known_after_a_while_and_until_it_shows_another() -> None:
    early = watch(19, 10, 0.2, 0)
    assert early is not None
    assert early.lines is None
    car = watch(20, 10, 0.2, 0)
    assert car is not None
    assert car.lines == (1,)
    other = watch(0, 10, 5, 0, car=car, since=21)
    assert other is not None
    assert other.lines in (None, (1, 2))
    assert watch(0, 0, state="A", car=car, since=21) is None


def test_a_pause_does_not_forget_the_lines() -> None:
    car = watch(60, 0, state="B", car=watch(20, 10, 0, 0), since=21)
    assert car is not None
    assert car.lines == (1,)


def test_power_alone_tells_nothing_about_lines() -> None:
    car: Car | None = None
    for second in range(60):
        car = cars.seen(BOX, car, Device(True, "", {"state": "C", "power_w": 2300.0}, second), AT_16_A, 230.0)
    assert car is not None
    assert car.lines is None


def test_a_car_that_uses_less_wants_a_little_more_than_that() -> None:
    car = watch(30, 10)
    assert cars.wanted_a(car, AT_16_A, 30.0) == 11.5
    assert cars.wanted_a(watch(30, 15.6), AT_16_A, 30.0) == float("inf")
    raised = AT_16_A._replace(raised_mono=25.0)
    assert cars.wanted_a(car, raised, 30.0) == float("inf"), "it has not had the time to follow"


LOWERED = Offer(confirmed_a=8.0, lowered=(100.0, 16.0), raised_mono=50.0)
"""Told at 100 to come down from 16 A, which it had for 50 s, to 8 A."""


@pytest.mark.parametrize(
    ("began", "raised", "drawn", "most"),  # began below 0: it has been quiet since then
    [
        pytest.param(60, 50, {98: 10, 99: 10, 101: 10}, 10, id="settled: it will not draw more"),
        pytest.param(99, 50, {98: 0, 99: 1, 101: 3}, inf, id="it begins to draw: it may go up to 16 A first"),
        pytest.param(-80, 50, {98: 0, 99: 0, 101: 0}, inf, id="it may begin at any moment"),
        pytest.param(-70, 98, {98: 0, 99: 0, 101: 0}, 0, id="it has not begun for half a minute"),
        pytest.param(20, 98, {98: 6, 99: 6, 101: 6}, inf, id="it has not followed the rise to 16 A yet"),
        pytest.param(20, 98, {99: 6, 101: 16, 104: 8}, 8, id="it was seen to come down"),
        pytest.param(20, 98, {97: 16, 99: 6, 101: 6}, inf, id="it had come down before"),
        pytest.param(20, 98, {97: 6, 98: 16, 101: 7}, 7, id="it came down at once"),
    ],
)
def test_what_a_car_may_draw_until_it_obeys(began: float, raised: float, drawn: dict[int, float], most: float) -> None:
    readings = [(float(at), {"state": "C", **currents(amperes)}) for at, amperes in sorted(drawn.items(), reverse=True)]
    device = Device(True, "", readings[0][1], readings[0][0], tuple(readings[1:]))
    offer = LOWERED._replace(raised_mono=float(raised))
    car = Car(10.0, drawing_since=began) if began > 0 else Car(10.0, quiet_since=-began)
    assert cars.may_draw_a(BOX, car, device, offer, 230.0) == most


@pytest.mark.parametrize(("asleep_at", "most"), [(99.0, 0.0), (60.0, inf)])
def test_a_car_that_slept_until_it_was_paused_holds_nothing(asleep_at: float, most: float) -> None:
    """One that was only being asked anew may have begun just then."""
    paused = LOWERED._replace(confirmed_a=0.0)
    device = Device(True, "", {"state": "B", **currents(0)}, 101.0, ((99.0, {"state": "B", **currents(0)}),))
    assert cars.may_draw_a(BOX, Car(10.0, asleep_at=asleep_at), device, paused, 230.0) == most


@given(st.lists(st.floats(0, 32), min_size=1, max_size=40))
def test_what_a_car_uses_is_never_less_than_in_the_last_seconds(drawn: list[float]) -> None:
    car: Car | None = None
    for second, amperes in enumerate(drawn):
        car = cars.seen(BOX, car, Device(True, "", {"state": "C", **currents(amperes)}, second), AT_16_A, 230.0)
    assert car is not None
    assert cars.used_a(car) >= max(drawn[-int(cars.SPAN_S) :])


# ------------------------------------------------------------------------------------------------- in the house


def play(house: House, seconds: int, drawn: dict[str, tuple[float, float, float]]) -> None:
    """Every wallbox is read each second and obeys; its car draws no more than it is offered, nor than ``drawn``."""
    for _ in range(seconds):
        house.wait(1)
        offered = {id: offer.confirmed_a or 0.0 for id, offer in house.snapshot.state.offers.items()}
        for box, most in drawn.items():
            flow = currents(*(min(line, offered.get(box, 0.0)) for line in most))
            house.read(box, {"state": "C", **flow})
        revision = house.snapshot.revision
        house.happen(*(Confirmed(box, amperes, revision) for box, amperes in house.setpoints().items()))


def garage(boxes: int, power_w: float, **grid: object) -> House:
    config = site(boxes, power=power_w)
    house = House(replace(config, grid=replace(config.grid, **grid)))  # type: ignore[arg-type]
    for box in config.wallboxes:
        house.happen(Link(box.id, True), Confirmed(box.id, 0.0, house.snapshot.revision))
    return house


def test_what_one_car_does_not_use_the_other_gets_within_seconds() -> None:
    house = garage(2, 20 * 690.0)
    full = {"E1": (6.5, 6.5, 6.5), "E2": (32.0, 32.0, 32.0)}
    play(house, 3, full)
    assert house.setpoints() == {"E1": 10.0, "E2": 10.0}
    play(house, 12, full)
    assert house.setpoints() == {"E1": 8.0, "E2": 12.0}
    play(house, 60, full)
    assert house.setpoints() == {"E1": 8.0, "E2": 12.0}, "and it stays so"


def test_a_car_that_wants_more_again_gets_its_share_back() -> None:
    house = garage(2, 20 * 690.0)
    play(house, 20, {"E1": (6.5, 6.5, 6.5), "E2": (32.0, 32.0, 32.0)})
    play(house, 5, {"E1": (32.0, 32.0, 32.0), "E2": (32.0, 32.0, 32.0)})
    assert house.setpoints() == {"E1": 10.0, "E2": 10.0}


def test_a_car_on_l1_is_not_stopped_for_what_is_drawn_on_l3() -> None:
    config = site(1, power=16 * 690.0, meter=True)
    house = House(config)
    house.happen(Link("E1", True), Link("M1", True), Confirmed("E1", 0.0, 1))
    for second in range(40):
        house.wait(1)
        charging = min(16.0, house.snapshot.state.offers["E1"].confirmed_a or 0.0)
        kettle = 14.0 if second > 30 else 1.0
        house.read("M1", currents(charging + 1, 1, kettle))
        house.read("E1", {"state": "C", **currents(charging, 0, 0)})
        house.happen(Confirmed("E1", house.setpoints()["E1"], house.snapshot.revision))
    assert house.setpoints() == {"E1": 15.0}


def test_a_sleeping_car_gives_its_share_back_and_is_asked_again() -> None:
    house = garage(2, 13 * 690.0)
    sleeping = {"E1": (0.0, 0.0, 0.0), "E2": (32.0, 32.0, 32.0)}
    play(house, 5, sleeping)
    assert house.setpoints() == {"E1": 6.5, "E2": 6.5}
    play(house, 65, sleeping)
    assert house.setpoints() == {"E1": 0.0, "E2": 13.0}
    play(house, 900, sleeping)
    assert house.setpoints() == {"E1": 6.5, "E2": 6.5}, "after a slot it is asked again"
    play(house, 5, {"E1": (32.0, 32.0, 32.0), "E2": (32.0, 32.0, 32.0)})
    play(house, 120, {"E1": (32.0, 32.0, 32.0), "E2": (32.0, 32.0, 32.0)})
    assert house.setpoints() == {"E1": 6.5, "E2": 6.5}, "this time it woke up"


def test_where_one_can_charge_everybody_gets_a_turn() -> None:
    house = garage(3, 7 * 690.0, slot_s=60.0)
    hungry = {f"E{n}": (32.0, 32.0, 32.0) for n in (1, 2, 3)}
    turns = []
    for _ in range(60 * 9 // 10):
        play(house, 10, hungry)
        charging = [box for box, amperes in house.setpoints().items() if amperes > 0]
        assert len(charging) <= 1
        turns += [box for box in charging if turns[-1:] != [box]]
    assert turns[:6] == [*turns[:3], *turns[:3]]
    assert set(turns[:3]) == {"E1", "E2", "E3"}


def test_a_slow_box_is_waited_for_by_the_quick_one() -> None:
    """KEBA wants 5 s between two setpoints: meanwhile the quick box makes the room, then gets it back."""
    slow = replace(BOX, id="E1").able(Capability(gap_s=5.0))
    config = Config(GridConfig(parse("690 * ROOM")), wallboxes=(slow, WallboxConfig("E2", "goe", "10.0.0.2")))
    house = House(config)
    house.set(ROOM=32)
    for box in ("E1", "E2"):
        house.happen(Link(box, True), Confirmed(box, 0.0, 1), Read(box, {"state": "C"}, house.mono))
    house.obey()
    house.obey()
    assert house.setpoints() == {"E1": 16.0, "E2": 16.0}
    house.wait(1)
    house.set(ROOM=24)
    assert house.setpoints() == {"E1": 12.0, "E2": 8.0}, "E1 may go on with 16 A until it may be written"
    house.obey("E2")
    house.wait(5)
    house.obey("E1")
    assert house.setpoints() == {"E1": 12.0, "E2": 12.0}


def test_a_box_that_does_not_answer_is_waited_for_too() -> None:
    house = garage(2, 0.0)
    house = House(replace(house.snapshot.config, grid=GridConfig(parse("690 * ROOM"))))
    house.set(ROOM=32)
    for box in ("E1", "E2"):
        house.happen(Link(box, True), Confirmed(box, 0.0, 1), Read(box, {"state": "C"}, house.mono))
    house.obey()
    house.set(ROOM=24)
    house.obey("E2")
    assert house.setpoints() == {"E1": 12.0, "E2": 12.0}
    house.wait(2.5)
    assert house.setpoints() == {"E1": 12.0, "E2": 8.0}
    house.obey("E1")
    assert house.setpoints() == {"E1": 12.0, "E2": 12.0}


def test_single_phase_cars_keep_the_lines_in_balance() -> None:
    boxes = [WallboxConfig(f"E{n}", "keba-p30", "10.0.0.1", phases=(1,)) for n in (1, 2)]
    third = WallboxConfig("E3", "keba-p30", "10.0.0.3")
    house = House(Config(GridConfig(parse(44000), max_imbalance_a=20.0), wallboxes=(*boxes, third)))
    for box in ("E1", "E2", "E3"):
        house.happen(Link(box, True), Confirmed(box, 0.0, 1))
    play(house, 3, {"E1": (32.0, 0, 0), "E2": (32.0, 0, 0), "E3": (32.0, 32.0, 32.0)})
    points = house.setpoints()
    assert points["E1"] == points["E2"] == points["E3"] == 6.6, "E3 may turn out to use one line, too"
    assert "more on L1 than on L2" in house.reason("E1")
    play(house, 30, {"E1": (32.0, 0, 0), "E2": (32.0, 0, 0), "E3": (32.0, 32.0, 32.0)})
    assert house.setpoints() == {"E1": 10.0, "E2": 10.0, "E3": 32.0}


def test_a_car_of_which_nothing_is_known_counts_on_all_its_lines_and_on_one_alone() -> None:
    boxes = (
        WallboxConfig("E1", "keba-p30", "10.0.0.1", phases=(2,)),
        WallboxConfig("E2", "keba-p30", "10.0.0.2", phases=(1, 2)),
    )
    house = House(Config(GridConfig(parse(44000), max_imbalance_a=20.0), wallboxes=boxes))
    house.plug("E1", "E2")
    house.happen(*(Confirmed(box, 0.0, house.snapshot.revision) for box in ("E1", "E2")))
    house.obey()
    assert house.setpoints() == {"E1": 10.0, "E2": 10.0}, "L2 may carry 20 A more than L3"
