"""The real decisions in a simulated world, for minutes: limits are kept, nothing hunts, nobody takes in vain.

Whole days are played by ``python -m bench days``.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.days import catalogue
from bench.days.boxes import QUICK, SLOW, Manners
from bench.days.cars import Car
from bench.days.houses import Load, flat
from bench.days.plan import Command, Visit
from bench.days.sites import home
from bench.days.world import World
from bridge.core.config import Config

BOXES = ("E1", "E2", "E3")


def world(
    cars: Sequence[Car],
    load: Load | None = None,
    manners: Sequence[Manners] = (QUICK,),
    commands: Sequence[Command] = (),
    charges: Sequence[float] = (0.2, 0.2, 0.2),
    **grid: object,
) -> World:
    """A house with a fuse of 35 A and its cars, plugged in from the first seconds."""
    visits = [Visit(box, 5 + n, charge=charge) for n, (box, charge) in enumerate(zip(BOXES, charges, strict=False))]
    visits = visits[: len(cars)]
    flows = flat(1.0, 1.0, 1.0) if load is None else load
    day = home(1, len(cars), 35.0, manners, commands, load=flows, cars=cars, visits=visits, **grid)
    return World(day)


def burst(amperes: float, begin: int, end: int) -> Load:
    """A load on all lines that comes and goes."""
    line = array("f", [1.0]) * 3600
    line[begin:end] = array("f", [amperes]) * (end - begin)
    return [line, line, line]


def excess_as(played: World) -> float:
    return sum(bound.excess_as for _, bound in played.bounds)


def offered_a(played: World) -> float:
    return max(bound.offered_a for _, bound in played.bounds)


@pytest.mark.parametrize("number", [0, 3, 4, 7])
def test_after_a_step_of_the_house_setpoints_settle(number: int) -> None:
    assert catalogue.turns_after_a_step(number) <= 2


def test_a_car_that_starts_or_stops_under_a_slow_meter_is_no_other_load() -> None:
    """The meter shows what was a second ago: for a moment the car is not in it, or still is."""
    played = world([Car(), Car(delay_s=1, ramp_a_s=3)]).play(120)
    settled = played.snapshot.decision.setpoints["E1"].current_a
    played.by_id["E2"].car.wakes_at = 1e9
    for second in range(121, 170):
        played.play(second)
        assert played.snapshot.decision.setpoints["E1"].current_a >= settled
    assert excess_as(played) == 0
    assert offered_a(played) <= 0.5


def test_who_is_offered_more_than_it_uses_is_left_alone() -> None:
    """Cars of 7 and 10 A: what is left over goes round without end if every rise counts as a wish."""
    played = world([Car(3, 7.0), Car(1, 10.0), Car(2, 10.0)]).play(240)
    before = sum(box.writes for box in played.boxes)
    played.play(900)
    assert sum(box.writes for box in played.boxes) - before <= 3


def test_full_cars_take_little_from_one_that_charges() -> None:
    played = world([Car(1, 32.0), Car(), Car()], charges=(0.1, 1.0, 1.0)).play(300)
    before = played.boxes[0].car.delivered_wh
    played.play(3000)
    charged_wh = played.boxes[0].car.delivered_wh - before
    assert charged_wh > 0.85 * 32 * 230 * 2700 / 3600


@pytest.mark.parametrize("manners", [(QUICK,), (SLOW,)])
def test_room_that_a_full_car_only_seemed_to_leave_is_nobody_elses(manners: Sequence[Manners]) -> None:
    """E1 is full and holds its offer when 30 A come on: it may be E1 by what the meter says, but it is a shower."""
    played = world([Car(), Car()], burst(30.0, 200, 260), manners, charges=(1.0, 0.2)).play(204)
    assert played.snapshot.decision.setpoints["E2"].current_a == 0
    played.play(300)
    assert excess_as(played) == 0
    assert offered_a(played) <= 0.5


def test_a_box_that_measures_nothing_stays_booked_while_its_car_obeys() -> None:
    unseen = Manners(measures=False)
    commands = [Command(200, {"AVAIL": 60}), Command(203, {"AVAIL": 40}), Command(206, {"AVAIL": 25})]
    played = world([Car(1, 32.0), Car()], flat(10.0, 18.0, 18.0), (unseen, SLOW), commands).play(300)
    assert excess_as(played) == 0
    assert offered_a(played) <= 1.0


def test_what_an_unmeasured_car_leaves_unused_is_nobodys_feed_in() -> None:
    """It takes 11 A of whatever it is offered; then something big comes on, and it might take all of its offer."""
    unseen = Manners(measures=False)
    played = world([Car(3, 11.0)], burst(20.0, 300, 360), (unseen,)).play(400)
    assert played.boxes[0].car.delivered_wh > 0
    assert excess_as(played) == 0
    assert offered_a(played) <= 0.5


@pytest.mark.parametrize(("first", "house_a"), [(QUICK, 26.0), (Manners(measures=False), 22.0)])
def test_room_changes_hands_when_the_car_has_let_go(first: Manners, house_a: float) -> None:
    """Two take turns: the quick one may not start before the slow one has obeyed."""
    cars = [Car(delay_s=4.9, start_s=0), Car(delay_s=1, ramp_a_s=3, start_s=0)]
    played = world(cars, flat(house_a, house_a, house_a), (first, QUICK), slot_s=60.0).play(400)
    assert all(box.car.starts >= 2 for box in played.boxes)
    assert sum(bound.raw_as for _, bound in played.bounds) == 0


def test_a_series_of_commands_is_followed_by_slow_boxes() -> None:
    commands = [Command(100 + 7 * n, {"AVAIL": (100, 60, 20, 80)[n % 4]}) for n in range(40)]
    played = world([Car(), Car(1, 32.0), Car(2)], manners=(SLOW, QUICK), commands=commands).play(420)
    assert excess_as(played) == 0
    assert offered_a(played) <= 0.5


def test_who_needs_more_lines_and_more_current_gets_a_turn_too() -> None:
    """Cars on one line each leave at different times: there is never room on all three at once unless it is kept."""
    cars = [Car(3, 16.0, min_a=8.0), Car(1, 16.0), Car(1, 16.0), Car(1, 16.0), Car(1, 16.0), Car(1, 16.0), Car(1, 16.0)]
    visits = [Visit(f"E{n}", 20 + 17 * n) for n in range(2, 8)]
    day = home(1, 7, 35.0, load=flat(26.0, 26.0, 26.0), cars=cars, visits=[Visit("E1", 150), *visits], slot_s=60.0)
    day = replace(day, config=_rotated(day.config))
    played = World(day).play(1200)
    assert played.boxes[0].car.starts >= 3
    assert all(box.car.starts >= 3 for box in played.boxes)
    assert excess_as(played) == 0


def _rotated(config: Config) -> Config:
    """E1 needs 8 A; the others are spread over the lines, two on each."""
    boxes = [replace(config.wallboxes[0], min_current_a=8.0)]
    boxes += [replace(box, phases=(1 + n % 3,)) for n, box in enumerate(config.wallboxes[1:])]
    return replace(config, wallboxes=tuple(boxes))


def test_the_judge_sees_what_is_too_much() -> None:
    """A wallbox that ignores what it is told: there must be something to see."""
    played = world([Car()], burst(30.0, 100, 200), (Manners(stubborn=((90.0, 1e9),)),)).play(200)
    assert excess_as(played) > 0
    assert offered_a(played) > 5
