"""Charging rules: which one decides, what it gives, and what is given when nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.config import Config, GridConfig, MeterConfig, VariableConfig, WallboxConfig
from bridge.core.decision import Limit
from bridge.core.formulas import Formula, parse
from bridge.core.model import Device, Now, Overridden, State
from bridge.core.rules import rules
from bridge.core.rules.rule import DAYS, Hold, RuleConfig, Surplus
from bridge.core.rules.rules import View
from bridge.core.variables import Names, current

BERLIN = ZoneInfo("Europe/Berlin")
SATURDAY = datetime(2026, 11, 21, 9, 0, tzinfo=BERLIN)


def rule(**keys: Any) -> RuleConfig:
    """A rule as it is written in the file."""
    formulas = {key: parse(keys.pop(key)) for key in ("when", "current_a", "power_w") if key in keys}
    if "from" in keys:
        keys["from_"] = keys.pop("from")
    return RuleConfig(**keys, **formulas)  # type: ignore[arg-type]


def site(*listed: RuleConfig, **variables: float) -> Config:
    return Config(
        grid=GridConfig(parse(43500)),
        variables={name: VariableConfig(parse(value)) for name, value in variables.items()},
        meters=(MeterConfig("M1", "eastron-sdm630", "127.0.0.1:502", role="grid"),),
        wallboxes=(WallboxConfig("E1", "keba-p30", "127.0.0.1:503", rules=listed),),
    )


def cap(config: Config, state: State | None = None, local: datetime = SATURDAY, lines: int = 3) -> Limit | None:
    state, now = state or State(), Now(1000.0, local.timestamp(), BERLIN)
    names = Names(config, state, current(config, state), now)
    return rules.cap(View(config, state, names, now), config.wallboxes[0], lines)


def amperes(*listed: RuleConfig, local: datetime = SATURDAY, **variables: float) -> float:
    found = cap(site(*listed, **variables), local=local)
    assert found is not None
    return found.amount


def test_the_first_rule_that_holds_decides() -> None:
    listed = rule(when="TARIF == 1", current_a=16), rule(days=("sat", "sun"), current_a=10), rule(current_a=6)
    assert amperes(*listed, TARIF=1) == 16
    assert amperes(*listed, TARIF=0) == 10
    assert amperes(*listed, TARIF=0, local=SATURDAY.replace(day=20)) == 6


def test_no_rules_are_no_cap_and_none_that_holds_is_a_pause() -> None:
    assert cap(site()) is None
    found = cap(site(rule(when="TARIF == 1", current_a=16), TARIF=0))
    assert found == Limit(0.0, "no rule holds now", "rules")


def test_a_condition_holds_above_0_only() -> None:
    assert amperes(rule(when="X", current_a=16), X=-1) == 0
    assert amperes(rule(when="X", current_a=16), X=0.1) == 16


def test_watts_are_spread_over_the_lines_the_car_uses() -> None:
    config = site(rule(power_w="2 * P"), P=3450)
    three, one = cap(config, lines=3), cap(config, lines=1)
    assert three is not None
    assert three == Limit(10.0, "rule 1 (always): 2 * P = 6900 W", "rules")
    assert one is not None
    assert one.amount == 30


def test_an_action_without_a_value_pauses_and_a_negative_one_is_none() -> None:
    found = cap(site(rule(current_a="NIX"), rule(current_a=16)))
    assert found is not None
    assert (found.amount, "NIX has no value: unknown name nix" in found.reason) == (0.0, True)
    assert amperes(rule(current_a="-3")) == 0


def test_a_condition_that_nobody_knows_gives_the_lower_of_both() -> None:
    unknown = rule(when="NIX > 1", current_a=10)
    assert amperes(unknown, rule(current_a=16)) == 10
    assert amperes(unknown, rule(current_a=6)) == 6
    assert amperes(unknown) == 0
    found = cap(site(unknown, rule(current_a=16)))
    assert found is not None
    assert found.reason == (
        "rule 1 (NIX > 1): 10 A, the lowest of what may be, for rule 1 (NIX > 1) may hold or not: unknown name nix"
    )
    # outside its hours nobody needs to know
    assert amperes(rule(when="NIX > 1", days=("mon",), current_a=10), rule(current_a=16)) == 16


def test_lifted_rules_are_no_cap() -> None:
    lifted = State(overrides={"E1": Overridden(frozenset({"rules"}), float("inf"), "admin", 0.0)})
    assert cap(site(rule(current_a=6)), lifted) is None
    others = State(overrides={"E1": Overridden(frozenset({"user_rules"}), 10.0, "admin", 0.0)})
    assert cap(site(rule(current_a=6)), others) is not None


# ---------------------------------------------------------------------------------------------- days and times


@pytest.mark.parametrize(
    ("clock", "holds"), [((8, 0), True), ((7, 59), False), ((11, 59), True), ((12, 0), False), ((0, 0), False)]
)
def test_a_window_ends_before_its_end(clock: tuple[int, int], holds: bool) -> None:
    window = RuleConfig(from_="08:00", to="12:00", surplus=True)
    assert window.covers(SATURDAY.replace(hour=clock[0], minute=clock[1])) is holds


def test_one_end_may_be_left_out() -> None:
    assert rule(**{"from": "22:00"}, current_a=1).covers(SATURDAY.replace(hour=23, minute=59))
    assert not rule(**{"from": "22:00"}, current_a=1).covers(SATURDAY)
    assert rule(to="22:00", current_a=1).covers(SATURDAY.replace(hour=0))
    assert not rule(to="22:00", current_a=1).covers(SATURDAY.replace(hour=22))
    assert rule(**{"from": "22:00"}, to="24:00", current_a=1).covers(SATURDAY.replace(hour=23))


def test_a_window_over_midnight_belongs_to_the_day_it_began() -> None:
    friday_night = rule(days=("fri",), **{"from": "22:00"}, to="06:00", current_a=16)
    assert friday_night.covers(datetime(2026, 11, 20, 22, 0))
    assert friday_night.covers(datetime(2026, 11, 21, 5, 59))
    assert not friday_night.covers(datetime(2026, 11, 21, 6, 0))
    assert not friday_night.covers(datetime(2026, 11, 21, 22, 0))
    assert not friday_night.covers(datetime(2026, 11, 20, 5, 0))
    sunday_night = rule(days=("sun",), **{"from": "22:00"}, to="06:00", current_a=16)
    assert sunday_night.covers(datetime(2026, 11, 23, 5, 0))  # Monday morning


def minutes_in_force(day: datetime, **keys: str) -> int:
    """For how many minutes of a local day, really passed, a rule gives current."""
    config = site(rule(**keys, current_a=16))
    begin, end = day.timestamp(), day.replace(hour=23, minute=59).timestamp() + 60
    moments = [datetime.fromtimestamp(begin + 60 * n, BERLIN) for n in range(int(end - begin) // 60)]
    given = [cap(config, local=moment) for moment in moments]
    return sum(limit is not None and limit.amount > 0 for limit in given)


@pytest.mark.parametrize(
    ("month", "day", "window", "minutes"),
    [
        (11, 21, ("01:30", "03:30"), 120),
        (3, 29, ("01:30", "03:30"), 60),  # the clock goes from 02:00 to 03:00
        (10, 25, ("01:30", "03:30"), 180),  # from 03:00 back to 02:00
        (3, 29, ("02:00", "03:00"), 0),
        (10, 25, ("02:00", "03:00"), 120),
        (3, 29, ("20:00", "22:00"), 120),
    ],
)
def test_days_on_which_the_clock_is_changed(month: int, day: int, window: tuple[str, str], minutes: int) -> None:
    assert (
        minutes_in_force(datetime(2026, month, day, tzinfo=BERLIN), **{"from": window[0], "to": window[1]}) == minutes
    )


@given(
    days=st.lists(st.sampled_from(DAYS), unique=True),
    begins=st.integers(0, 1439),
    ends=st.integers(0, 1439),
    minute=st.integers(0, 7 * 1440 - 1),
)
def test_windows_are_what_a_calendar_of_minutes_says(days: list[Any], begins: int, ends: int, minute: int) -> None:
    """Every day that is named starts a window of (ends - begins) minutes."""
    if begins == ends:
        return
    window = rule(days=tuple(days), **{"from": clock(begins)}, to=clock(ends), current_a=16)
    length = (ends - begins) % 1440
    starts = [1440 * number + begins for number, day in enumerate(DAYS) if not days or day in days]
    local = datetime(2026, 11, 16 + minute // 1440, minute % 1440 // 60, minute % 60)
    assert window.covers(local) == any((minute - start) % (7 * 1440) < length for start in starts)


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


# ------------------------------------------------------------------------------------------- never more than said

CONDITION = st.sampled_from(["1", "0", "NIX", "X"])
RULES = st.lists(
    st.builds(
        lambda when, current, undercut: rule(when=when, current_a=current, undercut_s=undercut),
        CONDITION,
        st.sampled_from([0, 6, 7.5, 16, "NIX", "X * 8"]),
        st.sampled_from([None, 300.0]),
    )
    | st.builds(
        lambda when, floor: rule(when=when, surplus=True, min_current_a=floor), CONDITION, st.sampled_from([None, 6.0])
    ),
    max_size=4,
)
HOLD = st.builds(Hold, st.just(float("inf")), st.sampled_from([0.0, 800.0, 1000.0]), st.sampled_from([0.0, 6.0, 16.0]))


def told(one: RuleConfig, truth: Formula) -> RuleConfig:
    """The rule when the truth about NIX is known."""
    return replace(one, when=truth) if one.when and one.when.text == "NIX" else one


@given(listed=RULES, share=st.sampled_from([0.0, 6.5, 16.0]), holds=st.lists(HOLD, min_size=4, max_size=4))
def test_who_does_not_know_gives_the_least_of_all_that_may_be(
    listed: list[RuleConfig], share: float, holds: list[Hold]
) -> None:
    """Whatever the conditions without a value turn out to be: the cap was never above, and no lower than need be."""

    def given_by(world: Iterable[RuleConfig]) -> float:
        world = tuple(world)
        remembered = dict(zip(world, holds, strict=False))
        state = State(surplus=Surplus(1000.0, 5000.0, {"E1": share}), holds={"E1": remembered})
        limit = cap(site(*world, X=1), state)
        return float("inf") if limit is None else limit.amount

    truths = product((parse(0), parse(1)), repeat=len(listed))
    worlds = [[told(one, truth) for one, truth in zip(listed, each, strict=True)] for each in truths]
    # Equal rules share what is remembered of them, so lists that have some are of no use here.
    if all(len(set(world)) == len(world) for world in [listed, *worlds]):
        assert given_by(listed) == min(map(given_by, worlds))


# -------------------------------------------------------------------------------- formulas of the vendor's rules


@pytest.mark.parametrize(
    ("formula", "milliamperes"),
    [
        ("M1.current >= 6500 ? M1.current : 0", 7000),
        ("16000 - M1.current", 9000),
        ("min(16000, 29000 - M1.current)", 16000),
        ("date.dayminute >= 480 ? 8000 : 0", 8000),
        ("date.weekday == 6 || date.weekday == 0 ? 16000 : 0", 16000),
        ("cm.var1 ? 6000 : 0", 6000),
        ("_max_total_current - GM.grid_demand.current", 43500 / 690 * 1000 - 7000),
        ("GM.grid_demand.power_w < 5000 ? 6000 : 0", 6000),
        ("GM.surplus.power_w > 2000 ? 6000 : 0", 0),
        ("16000 / _num_charging1", 16000),
    ],
)
def test_rules_of_the_vendor_in_milliamperes(formula: str, milliamperes: float) -> None:
    values = {"current_l1_a": 7.0, "current_l2_a": 5.0, "current_l3_a": 0.0, "power_w": 2760.0}
    state = State(devices={"M1": Device(True, "", values, 1000.0), "E1": Device(True, "", {"state": "B"}, 1000.0)})
    found = cap(site(rule(current_a=f"({formula}) / 1000"), var1=1.5), state)
    assert found is not None
    assert found.amount == pytest.approx(milliamperes / 1000)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "exactly one of"),
        ({"current_a": 6, "power_w": 4000}, "exactly one of"),
        ({"current_a": 6, "surplus": True}, "exactly one of"),
        ({"current_a": 6, "from": "08:00", "to": "08:00"}, "both 08:00"),
        ({"current_a": 6, "factor": 2.0}, "go with surplus"),
        ({"current_a": 6, "min_current_a": 6.0}, "go with surplus"),
        ({"current_a": 6, "undercut_s": 60.0}, "undercut_s goes with"),
    ],
)
def test_rules_that_make_no_sense(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rule(**keys)
