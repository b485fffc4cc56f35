"""Variables that run out: by their declaration or by their sender, whatever the clock on the wall does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.core.config import Config, VariableConfig
from bridge.core.decision import Unknown
from bridge.core.formulas import parse
from bridge.core.gateway import FunctionsConfig, SmgwConfig
from bridge.core.model import Now, State
from bridge.core.variables import Refused, accept, listing
from tests.core.sites import START, House, site


def timed(**declared: object) -> Config:
    config = site(0, "55000")
    return replace(config, variables={"LIM": VariableConfig(parse(7), **declared)})  # type: ignore[arg-type]


def value(house: House, name: str = "lim") -> float | Unknown | None:
    return house.snapshot.decision.values.get(name)


def restarted(house: House, now: Now) -> House:
    known = house.snapshot.state.variables
    return House(
        house.snapshot.config, State(variables={key: replace(v, set_mono=None) for key, v in known.items()}), now
    )


def test_not_set_again_it_falls_back() -> None:
    house = House(timed(ttl_s=60.0, fallback=parse(3)))
    assert value(house) == 7, "nobody set it yet"
    house.set(LIM=50)
    house.wait(59.9)
    assert value(house) == 50
    house.wait(0.2)
    assert value(house) == 3
    house.set(LIM=51)
    assert value(house) == 51


def test_it_expires_once() -> None:
    """Everything that follows variables, such as storage, looks whether they are the very same."""
    house = House(timed(ttl_s=60.0, fallback=parse(3)))
    house.set(LIM=50)
    before = house.wait(61).state.variables
    assert house.wait(1).state.variables is before


def test_each_set_prolongs_it() -> None:
    house = House(timed(ttl_s=60.0, fallback=parse(3)))
    for _ in range(5):
        house.set(LIM=50)
        house.wait(50)
        assert value(house) == 50


def test_without_a_fallback_the_initial_value_is_back() -> None:
    house = House(timed(ttl_s=60.0))
    house.set(LIM=50)
    house.wait(61)
    assert value(house) == 7


def test_the_senders_time_counts_when_it_is_shorter() -> None:
    house = House(timed(ttl_s=60.0, fallback=parse(3)))
    house.set(ttl=10, LIM=50)
    house.wait(10.5)
    assert value(house) == 3
    house.set(ttl=1000, LIM=50)
    house.wait(61)
    assert value(house) == 3


def test_what_nobody_declared_is_gone_and_says_why() -> None:
    house = House(site(0, "55000"))
    house.set(ttl=10, NOTE=1, TWICE="NOTE * 2")
    house.set(TWICE="NOTE * 2")
    house.wait(11)
    assert "note" not in house.snapshot.decision.values
    assert value(house, "twice") == Unknown("NOTE has expired")


def test_the_listing_says_until_when_and_then_that_it_is_over() -> None:
    house = House(timed(fallback=parse(3), max=100.0))
    house.set(ttl=10, LIM=50)
    (shown,) = listing(house.snapshot)
    assert shown == {"name": "LIM", "expr": 50, "until": "2026-09-21T14:13:30.000Z", "val": 50, "value": 50}
    house.wait(11)
    (shown,) = listing(house.snapshot)
    note = "expired at 2026-09-21T14:13:30.000Z: 3 is what is left"
    assert shown == {"name": "LIM", "expr": 3, "note": note, "val": 3, "value": 3}


@pytest.mark.parametrize("jump_s", [-86_400, -30, 30, 86_400])
def test_a_clock_that_jumps_changes_nothing(jump_s: float) -> None:
    house = House(timed(ttl_s=60.0, fallback=parse(3)))
    house.set(LIM=50)
    house.utc += jump_s
    house.wait(59)
    assert value(house) == 50
    house.wait(2)
    assert value(house) == 3


def test_a_restart_does_not_prolong_it() -> None:
    house = House(timed(ttl_s=60.0, fallback=parse(3)))
    house.set(LIM=50)
    house.wait(40)
    house = restarted(house, Now(5.0, house.utc + 10))
    assert value(house) == 50
    house.wait(9)
    assert value(house) == 50
    house.wait(2)
    assert value(house) == 3
    assert value(restarted(house, Now(5.0, START.utc))) == 3, "what has expired stays so, whatever the clock says"


@pytest.mark.parametrize("behind_s", [1, 3600, 86_400 * 365])
def test_a_clock_set_back_over_a_restart_gives_at_most_the_whole_time_again(behind_s: float) -> None:
    house = House(timed(ttl_s=60.0, fallback=parse(3)))
    house.set(LIM=50)
    house.wait(40)
    house = restarted(house, Now(5.0, house.utc - 40 - behind_s))
    assert value(house) == 50
    house.wait(61)
    assert value(house) == 3


def test_time_that_passed_while_the_bridge_was_off_counts() -> None:
    house = House(timed(ttl_s=60.0, fallback=parse(3)))
    house.set(LIM=50)
    assert value(restarted(house, Now(5.0, house.utc + 3600))) == 3


@pytest.mark.parametrize("ttl", [0, -1, "soon", True, float("nan"), float("inf"), 366 * 86_400 + 1, [], 10**400])
def test_impossible_times_are_refused(ttl: object) -> None:
    house = House(timed())
    with pytest.raises(Refused, match="LIM: ttl is a number of seconds above 0, at most 31622400"):
        house.set(ttl=ttl, LIM=1)


def test_of_a_name_given_twice_the_last_time_counts() -> None:
    event = accept(timed(), [("LIM", 1, 10), ("lim", 2)], False, "smgw", State())
    assert event.ttl_s == {}


def test_what_a_fallback_refers_to_takes_part_in_the_limit() -> None:
    smgw = SmgwConfig(functions=FunctionsConfig(power_limit=False))
    config = timed(ttl_s=60.0, fallback=parse("SPARE * 2"))
    config = replace(config, grid=replace(config.grid, connection_power_w=parse("LIM")), smgw=smgw)
    with pytest.raises(Refused, match=r"SPARE: smgw.functions.power_limit is switched off"):
        accept(config, [("SPARE", 1)], False, "smgw", State())


def shared_with_mqtt(**declared: object) -> Config:
    """A limit whose variable both the grid side and home automation may write."""
    writers = ("smgw", "admin", "mqtt")
    return replace(
        site(0, "LIM"),
        variables={"LIM": VariableConfig(parse(30000), writers=writers, **declared)},  # type: ignore[arg-type]
    )


def limit_w(house: House) -> float:
    return house.snapshot.decision.grid.limit_w


def test_mqtt_cannot_replace_what_the_grid_side_has_set_by_something_wider() -> None:
    house = House(shared_with_mqtt())
    house.set(LIM=2000)
    house.set(source="mqtt", LIM=30000)
    assert limit_w(house) == 2000
    house.set(source="mqtt", LIM=1000)
    assert limit_w(house) == 1000
    house.set(source="mqtt", LIM="25000 + 1")
    assert limit_w(house) == 2000
    house = restarted(house, house.now)
    assert limit_w(house) == 2000
    house.set(LIM=9000)
    assert limit_w(house) == 9000, "the grid side may"


def test_what_the_grid_side_has_set_comes_back_when_mqtt_clears_it_or_its_time_is_over() -> None:
    house = House(shared_with_mqtt())
    house.set(LIM=2000)
    house.set(source="mqtt", clear=True)
    assert limit_w(house) == 2000
    house.set(source="mqtt", LIM=1000)
    house.set(source="mqtt", clear=True)
    assert limit_w(house) == 2000
    house.set(source="mqtt", ttl=60, LIM=1000)
    house.wait(61)
    assert limit_w(house) == 2000
    assert house.snapshot.state.variables["lim"].source == "smgw"


def test_what_is_under_a_value_of_mqtt_runs_out_in_its_own_time() -> None:
    house = House(shared_with_mqtt(ttl_s=60.0, fallback=parse(8000)))
    house.set(LIM=2000)
    house.wait(30)
    house.set(source="mqtt", LIM=30000)
    house.wait(29)
    assert limit_w(house) == 2000
    assert house.snapshot.decision.grid.until == START.utc + 60
    house.wait(2)
    assert limit_w(house) == 8000
    house.wait(30)
    assert limit_w(house) == 8000
