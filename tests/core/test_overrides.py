"""Overrides: what somebody at the wallbox wants otherwise until the car leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Override
from bridge.core.formulas import parse
from bridge.core.rules import overrides
from bridge.core.rules.rule import RuleConfig
from bridge.core.variables import Refused
from tests.core.sites import House, site


def charging(*rules: RuleConfig) -> House:
    config = site(2)
    boxes = tuple(replace(box, rules=rules) for box in config.wallboxes)
    house = House(replace(config, wallboxes=boxes))
    house.plug("E1")
    house.obey()
    return house


def wanted(
    house: House, flags: str = "", current_a: float | None = None, source: str = "admin", box: str = "e1"
) -> Override:
    return overrides.accept(house.snapshot.config, house.snapshot.state, box, flags, current_a, source)


def limit(house: House) -> float:
    return house.snapshot.decision.setpoints["E1"].limit_a


def test_charging_off_and_on_again() -> None:
    house = charging()
    house.happen(wanted(house, "C"))
    assert house.setpoints()["E1"] == 0.0
    assert "switched off until the car leaves" in house.reason("E1")
    house.happen(wanted(house, "c"))
    assert limit(house) == 32.0
    assert house.snapshot.state.overrides == {}


def test_who_lifts_what_he_has_paused_is_not_kept_waiting() -> None:
    house = charging()
    house.happen(wanted(house, current_a=0.0))
    house.obey()
    house.wait(10)
    house.happen(wanted(house, current_a=-1.0))
    assert house.setpoints()["E1"] == 32.0


def test_a_current_may_be_changed_and_lifted() -> None:
    house = charging()
    house.happen(wanted(house, current_a=10.0))
    house.happen(wanted(house, current_a=8.0, source="mqtt"))
    assert limit(house) == 8.0
    assert house.snapshot.decision.setpoints["E1"].source == "mqtt"
    house.happen(wanted(house, "C"))
    house.happen(wanted(house, "c"))
    assert limit(house) == 8.0
    house.happen(wanted(house, current_a=-1.0))
    assert limit(house) == 32.0


def test_rules_may_be_lifted_and_nothing_else() -> None:
    house = charging(RuleConfig(current_a=parse(7)))
    assert limit(house) == 7.0
    house.happen(wanted(house, "EU"))
    assert limit(house) == 32.0
    house.set(AVAIL=20)  # 11 kW
    assert house.setpoints()["E1"] <= 16.0
    house.happen(wanted(house, "e"))
    assert limit(house) == 7.0


def test_all_ends_when_the_car_leaves_and_not_when_it_only_sleeps() -> None:
    house = charging()
    house.happen(wanted(house, "C", 8.0))
    for state in ("B", "E", "F"):
        house.read("E1", {"state": state})
        assert house.snapshot.state.overrides.keys() == {"E1"}, state
    house.read("E1", {"power_w": 0.0})
    assert house.snapshot.state.overrides.keys() == {"E1"}
    house.read("E1", {"state": "A"})
    assert house.snapshot.state.overrides == {}


def test_nothing_sticks_when_the_car_leaves_meanwhile() -> None:
    house = charging()
    late = wanted(house, "C")
    house.read("E1", {"state": "A"})
    house.happen(late)
    assert house.snapshot.state.overrides == {}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"box": "E2", "flags": "C"}, "no car is connected to E2"),
        ({"box": "E9", "flags": "C"}, "no wallbox 'E9'; there are E1, E2"),
        ({"box": "M1", "flags": "C"}, "no wallbox 'M1'"),
        ({"flags": "CX"}, "knows no 'X'"),
        ({"flags": "Cc"}, "off and on"),
        ({}, "nothing to override"),
        ({"flags": "E", "source": "mqtt"}, "may not be lifted through mqtt"),
        ({"flags": "U", "source": "mqtt"}, "may not be lifted through mqtt"),
    ],
)
def test_refusals(keys: dict[str, str], words: str) -> None:
    with pytest.raises(Refused) as caught:
        wanted(charging(), **keys)  # type: ignore[arg-type]
    assert words in str(caught.value)


@given(
    st.lists(
        st.tuples(st.text("CcEeUu", max_size=3), st.none() | st.floats(-1, 40), st.sampled_from(["admin", "mqtt"])),
        max_size=6,
    )
)
def test_an_override_never_gives_more_than_the_grid_and_the_wallbox(steps: list[tuple[str, float | None, str]]) -> None:
    house = charging(RuleConfig(current_a=parse(7)))
    house.set(AVAIL=40)  # 22 kW, 31.9 A
    for flags, current_a, source in steps:
        try:
            house.happen(wanted(house, flags, current_a, source))
        except Refused:
            continue
        assert sum(house.setpoints().values()) <= 31.9
        if "rules" not in getattr(house.snapshot.state.overrides.get("E1"), "off", ()):
            assert limit(house) <= 7.0
