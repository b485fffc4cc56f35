"""Surplus: what would be fed in without the wallboxes, who gets it, and for how long a cloud is forgiven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.config import Config, GridConfig, MeterConfig, VariableConfig, WallboxConfig
from bridge.core.decision import Unknown
from bridge.core.formulas import parse
from bridge.core.model import Car, Device, Now, Offer, State
from bridge.core.rules import rules, surplus
from bridge.core.rules.rule import RuleConfig
from bridge.core.rules.rules import View
from bridge.core.variables import Names, current

SUN = RuleConfig(surplus=True)
ALWAYS = RuleConfig(current_a=parse(16))
Values = Mapping[str, float | str]


def box(id: str, *listed: RuleConfig, priority: int = 1, **more: object) -> WallboxConfig:
    return WallboxConfig(id, "keba-p30", "127.0.0.1:503", rules=listed, priority=priority, **more)  # type: ignore[arg-type]


def house(*boxes: WallboxConfig, surplus_w: str | None = None, **variables: float | str) -> Config:
    roles = {"M1": "grid", "M2": "production", "M3": "battery"}
    return Config(
        grid=GridConfig(parse(43500), surplus_w=parse(surplus_w) if surplus_w else None),
        variables={name: VariableConfig(parse(value)) for name, value in variables.items()},
        meters=tuple(MeterConfig(id, "eastron-sdm630", "127.0.0.1:502", role=role) for id, role in roles.items()),  # type: ignore[arg-type]
        wallboxes=boxes,
    )


def read(mono: float = 0.0, grid_w: float | None = 0.0, battery_w: float = 0.0, **boxes: Values) -> State:
    """What was read; every wallbox has a car."""
    devices = {
        "M1": Device(grid_w is not None, "no answer", {"power_w": grid_w or 0.0}, mono),
        "M2": Device(True, "", {"power_w": 5000.0, "export_wh": 7.0}, mono),
        "M3": Device(True, "", {"power_w": battery_w}, mono),
    }
    devices |= {id: Device(True, "", values, mono) for id, values in boxes.items()}
    return State(devices=devices, cars={id: Car(mono) for id in boxes})


def value(config: Config, state: State, formula: str) -> float | Unknown:
    return Names(config, state, current(config, state), Now(0.0, 1_790_000_000.0)).value(parse(formula))


# ------------------------------------------------------------------------------------------ the house in formulas

CHARGING = {"state": "C", "power_w": 4000.0, "energy_wh": 12.0, "current_l1_a": 6.0, "current_l2_a": 5.5}
CHARGING |= {"current_l3_a": 5.9}


@pytest.mark.parametrize(
    ("grid_w", "battery_w", "boxes", "surplus_w"),
    [
        (-3000.0, 0.0, {}, 3000.0),  # feed-in and nobody charges
        (500.0, 0.0, {"E1": CHARGING}, 3500.0),
        (0.0, -4000.0, {"E1": CHARGING}, 0.0),  # the battery feeds the car: no surplus
        (0.0, 2000.0, {"E1": CHARGING}, 4000.0),  # what the battery takes stays its own
        (0.0, 0.0, {"E1": {"state": "C", "current_l1_a": 10.0, "current_l2_a": 0.0, "current_l3_a": 0.0}}, 2300.0),
        (0.0, 0.0, {"E1": {"state": "C"}}, 6900.0),  # measures nothing: takes all it is offered, 10 A
        (0.0, 0.0, {"E1": {"state": "B"}}, 0.0),
    ],
)
def test_what_would_be_fed_in(grid_w: float, battery_w: float, boxes: dict[str, Values], surplus_w: float) -> None:
    state = replace(read(grid_w=grid_w, battery_w=battery_w, **boxes), offers={"E1": Offer(10.0)})
    config = house(*(box(id) for id in boxes))
    assert value(config, state, "_surplus") == surplus_w
    assert value(config, state, "GM.surplus.power_w") == surplus_w


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("GM.grid_demand.power_w", 500.0),
        ("GM.produced.power_w", 5000.0),
        ("GM.prod_pwr", 5000.0),
        ("GM.produced.export_wh", 7.0),
        ("GM.storage_home.power_w + GM.storage_all.power_w", 2000.0),
        ("GM.consumed.power_w", 500.0 + 5000.0 - 1000.0),
        ("GM.consumed_evse.power_w", 4000.0),
        ("GM.consumed_evse.current_l2", 6000.0),  # the box's own L1
        ("GM.consumed_evse.current", 6000.0),
        ("GM.consumed_evse.import_wh", 12.0),
        ("GM.available_evse.power_w", 43500.0 - 500.0 + 4000.0),
        ("GM.error.power_w", 16.0 * 690),
        ("GM.surplus.current", 3500.0 / 690 * 1000),
        ("_org_surplus", 3500.0),
        ("_num_charging", 1.0),
        ("_num_charging1", 1.0),
        ("_max_total_current", 43500.0 / 690 * 1000),
    ],
)
def test_names_of_the_house(formula: str, expected: float) -> None:
    config = house(box("E1", rotation=(2, 3, 1)), box("E2"))
    state = read(grid_w=500.0, battery_w=1000.0, E1=CHARGING, E2={})
    gone = {**state.devices, "E2": Device(False, "no answer")}
    state = replace(state, devices=gone, offers={"E2": Offer(16.0)})
    assert value(config, state, formula) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("GM.moon.power_w", "unknown name gm.moon.power_w; there are GM.grid_demand"),
        ("GM.surplus.import_wh", "worked out"),
        ("GM.grid_demand.power_w", "M1 is not read: no answer"),
        ("_surplus", "M1 is not read: no answer"),
        ("_max_total_evse_current", "no limit"),
    ],
)
def test_names_without_a_value_say_why(formula: str, words: str) -> None:
    found = value(house(), read(grid_w=None), formula)
    assert isinstance(found, Unknown)
    assert words in found.reason


def test_the_surplus_may_be_a_formula_and_a_circle_is_found() -> None:
    first = house(surplus_w="_org_surplus + max(0, GM.storage_home.power_w) - KEEP", KEEP=200)
    assert value(first, read(grid_w=-1000.0, battery_w=3000.0), "_surplus") == 3800.0
    for config in (house(surplus_w="_surplus + 1"), house(surplus_w="X", X="_surplus * 2")):
        for name in ("_surplus", "X + _surplus"):
            found = value(config, read(), name)
            assert isinstance(found, Unknown)
    looped = value(house(surplus_w="X", X="_surplus * 2"), read(), "X")
    assert isinstance(looped, Unknown)
    assert "refers to itself" in looped.reason


def test_a_variable_takes_the_place_of_a_predefined_name() -> None:
    assert value(house(_surplus=1234), read(grid_w=-1000.0), "_surplus") == 1234


# ------------------------------------------------------------------------------------------------------- sharing


def shares(config: Config, state: State) -> Mapping[str, float]:
    found = surplus.followed(config, state, Now(0.0, 1_790_000_000.0)).surplus
    assert found is not None
    return found.shares_a


def test_higher_priorities_come_first_and_leave_what_is_left() -> None:
    boxes = box("E1", SUN), box("E2", SUN, priority=2, max_current_a=parse(10)), box("E3", SUN)
    state = read(grid_w=-18 * 690.0, E1={"state": "B"}, E2={"state": "B"}, E3={"state": "B"})
    assert shares(house(*boxes), state) == {"E2": 10.0, "E1": 8.0, "E3": 0.0}


def test_too_little_for_one_is_left_to_the_next() -> None:
    """Three lines need 4140 W, one line needs 1380 W."""
    state = read(grid_w=-2300.0, E1={"state": "B"}, E2={"state": "B"})
    assert shares(house(box("E1", SUN), box("E2", SUN, phases=1)), state) == {"E1": 0.0, "E2": 10.0}


def test_a_car_that_is_known_to_use_one_line_needs_less() -> None:
    state = replace(read(grid_w=-2300.0, E1={"state": "B"}), cars={"E1": Car(0.0, lines=(2,))})
    assert shares(house(box("E1", SUN)), state) == {"E1": 10.0}


def test_what_other_wallboxes_draw_is_no_surplus() -> None:
    """E2 charges by a rule of its own: without E1 the house would feed in 1 kW, and not 5."""
    state = read(grid_w=-1000.0, E1={"state": "B"}, E2=CHARGING)
    assert shares(house(box("E1", SUN), box("E2", ALWAYS)), state) == {"E1": 0.0}
    assert shares(house(box("E1", SUN), box("E2", SUN)), state)["E1"] == 7.0


def test_a_full_car_leaves_its_share_to_others() -> None:
    state = read(grid_w=-10 * 690.0, E1={"state": "B"}, E2={"state": "B"})
    full = replace(state, cars={**state.cars, "E1": Car(0.0, asleep_at=0.0)})
    boxes = box("E1", SUN), box("E2", SUN)
    assert shares(house(*boxes), state)["E2"] == 0.0
    assert shares(house(*boxes), full)["E2"] == 10.0


def test_a_factor_takes_more_or_less_than_there_is() -> None:
    state = read(grid_w=-10 * 690.0, E1={"state": "B"})
    assert shares(house(box("E1", replace(SUN, factor=1.2))), state) == {"E1": 12.0}
    assert shares(house(box("E1", replace(SUN, factor=0.8))), state) == {"E1": 8.0}


@given(st.floats(-30_000, 30_000), st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=4))
def test_no_more_is_shared_than_there_is(grid_w: float, boxes: list[tuple[int, int]]) -> None:
    config = house(*(box(f"E{n}", SUN, phases=p, priority=q) for n, (p, q) in enumerate(boxes)))
    state = read(grid_w=grid_w, **{one.id: {"state": "B"} for one in config.wallboxes})
    if boxes:
        given_w = sum(shares(config, state)[one.id] * 230 * len(one.lines) for one in config.wallboxes)
        assert given_w <= max(0.0, -grid_w) + 1e-6


# ------------------------------------------------------------------------------------------------- start and clouds


class Day:
    """One wallbox, a grid meter and a sky, second by second; the car does at once what it is told."""

    def __init__(self, rule: RuleConfig = SUN) -> None:
        self.config = house(box("E1", rule), X=1)
        self.state = State()
        self.mono = 0.0
        self.current_a = 0.0

    def shine(self, watts: float | None, seconds: int) -> list[float]:
        """What the wallbox may draw, for each of so many seconds; None: the meter is silent."""
        course = []
        for _ in range(seconds):
            self.mono += 1.0
            drawn_w = self.current_a * 690
            values = {"state": "C", "power_w": drawn_w}
            seen = read(self.mono, None if watts is None else drawn_w - watts, E1=values)
            self.state = replace(self.state, devices=seen.devices, cars=seen.cars)
            now = Now(self.mono, 1_790_000_000.0 + self.mono)
            self.state = surplus.followed(self.config, self.state, now)
            names = Names(self.config, self.state, current(self.config, self.state), now)
            view = View(self.config, self.state, names, now)
            limit = rules.cap(view, self.config.wallboxes[0], 3)
            assert limit is not None
            self.current_a = limit.amount if limit.amount >= 6 else 0.0
            course.append(limit.amount)
        return course


def test_the_sun_must_shine_for_a_while_first() -> None:
    day = Day()
    course = day.shine(7000.0, 70)
    assert course[:60] == [0.0] * 60
    assert course[61:] == [10.0] * 9


def test_a_step_is_smoothed() -> None:
    day = Day()
    day.shine(16 * 690.0, 70)
    course = day.shine(8 * 690.0, 120)
    assert course[0] > 15
    assert 10.5 <= course[20] <= 11.5  # 1/e of the step is left
    assert course == sorted(course, reverse=True)
    assert course[-1] == 8.0


def test_a_gap_begins_the_wait_anew() -> None:
    day = Day()
    day.shine(5000.0, 50)
    day.shine(-20_000.0, 10)
    assert max(day.shine(5000.0, 60)) == 0.0


def test_a_short_cloud_leaves_the_minimum_a_long_one_pauses() -> None:
    day = Day()
    day.shine(7000.0, 120)
    cloud = day.shine(0.0, 400)
    below = cloud.index(6.0)
    assert below < 30
    assert set(cloud[below : below + 300]) == {6.0}
    assert set(cloud[below + 302 :]) == {0.0}
    assert max(day.shine(7000.0, 30)) == 0.0  # and then it must start again


def test_a_silent_meter_is_a_cloud() -> None:
    day = Day()
    day.shine(7000.0, 120)
    cloud = day.shine(None, 400)
    assert cloud[0] == 6.0
    assert cloud[-1] == 0.0


def test_at_least_so_much_and_more_when_the_sun_shines() -> None:
    day = Day(replace(SUN, min_current_a=6.0))
    assert set(day.shine(0.0, 30)) == {6.0}
    assert day.shine(8300.0, 150)[-1] == 12.0
    assert day.shine(0.0, 500)[-1] == 6.0
    ten = Day(replace(SUN, min_current_a=10.0))
    ten.shine(16 * 690.0, 100)
    assert min(ten.shine(0.0, 500)) == 10.0


def test_a_condition_that_ceases_without_undercut_ends_it_in_the_same_instant() -> None:
    day = Day(replace(SUN, when=parse("X"), start_s=0.0, undercut_s=0.0))
    assert day.shine(7000.0, 2) == [10.0, 10.0]
    day.config = house(*day.config.wallboxes, X=0)
    now = Now(day.mono, 1_790_000_000.0)
    names = Names(day.config, day.state, current(day.config, day.state), now)
    limit = rules.cap(View(day.config, day.state, names, now), day.config.wallboxes[0], 3)
    assert limit is not None
    assert (limit.amount, limit.reason) == (0.0, "no rule holds now")


def test_without_undercut_it_pauses_at_once_and_every_dip_counts() -> None:
    day = Day(replace(SUN, undercut_s=0.0, start_s=0.0))
    assert day.shine(7000.0, 1) == [10.0]
    assert set(day.shine(0.0, 40)[20:]) == {0.0}


def test_a_rule_with_a_condition_keeps_the_minimum_for_its_undercut() -> None:
    day = Day(RuleConfig(when=parse("GM.surplus.power_w > 5000"), current_a=parse(16), undercut_s=20.0))
    assert set(day.shine(16 * 690.0, 10)) == {16.0}
    course = day.shine(0.0, 30)
    assert course == [6.0] * 20 + [0.0] * 10


def test_a_pause_that_lasts_stays_a_pause() -> None:
    day = Day(RuleConfig(when=parse("GM.surplus.power_w > 5000"), current_a=parse(0), undercut_s=20.0))
    day.shine(7000.0, 10)
    assert set(day.shine(0.0, 10)) == {0.0}


def test_another_car_waits_anew() -> None:
    day = Day()
    day.shine(7000.0, 120)
    day.state = surplus.followed(day.config, replace(day.state, cars={}), Now(day.mono + 1, 0.0))
    assert day.state.holds == {}
    assert max(day.shine(7000.0, 50)) == 0.0


def test_sites_without_such_rules_have_nothing_to_do() -> None:
    state = State()
    assert surplus.followed(house(box("E1", ALWAYS)), state, Now(0.0, 0.0)) is state
