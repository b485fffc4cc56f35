"""Explaining: the same decision as in a round, and nothing is changed by asking."""

from __future__ import annotations

from dataclasses import replace

from bridge.core.config import GroupConfig, MeterConfig
from bridge.core.explain import explained, sentences, supposed
from bridge.core.formulas import parse
from tests.core.sites import House, site


def test_what_it_says_is_what_a_round_leads_to() -> None:
    house = House(site())
    house.plug("E1", "E2")
    house.obey()
    before = house.snapshot
    told = explained(before.config, before.state, house.now, {"avail": parse(50)})
    assert house.snapshot is before
    house.set(AVAIL=50)
    house.obey()
    assert {id: point.current_a for id, point in told.boxes.items()} == house.setpoints()
    assert told.grid.limit_w == 27500
    house_l1 = next(bound for bound in told.bounds if (bound.place, bound.on) == ("", "L1"))
    assert house_l1.full
    assert house_l1.room_a == 27500 / 690
    assert "AVAIL = 50 (assumed)" in told.boxes["E1"].reason


def test_the_feeder_that_binds_is_named() -> None:
    config = site(3)
    boxes = [replace(box, group="garage") if box.id != "E3" else box for box in config.wallboxes]
    config = replace(config, groups=(GroupConfig("garage", "Garage", current_a=parse(20)),), wallboxes=tuple(boxes))
    house = House(config)
    house.plug("E1", "E2", "E3")
    told = explained(config, house.snapshot.state, house.now)
    assert {id: point.current_a for id, point in told.boxes.items()} == {"E1": 10.0, "E2": 10.0, "E3": 32.0}
    assert told.boxes["E1"].reason == "20 A as set up, shared by 2 wallboxes"
    assert [(bound.place, bound.on) for bound in told.bounds if bound.full] == [
        ("Garage", "L1"),
        ("Garage", "L2"),
        ("Garage", "L3"),
    ]


def test_a_house_for_the_sake_of_the_argument() -> None:
    config = replace(site(2, meter=True), meters=(MeterConfig("M1", "eastron-sdm630", "10.0.0.9", role="grid"),))
    house = House(config)
    state = supposed(config, {}, {"m1": {"power_w": 6900.0}, "e2": {"state": "A"}}, house.now)
    told = explained(config, state, house.now, {"AVAIL": parse(40)})
    # 22 kW less 6.9 kW that the house draws: 21.88 A on each line, and only one car is there.
    assert {id: point.current_a for id, point in told.boxes.items()} == {"E1": 21.8, "E2": 0.0}
    lines = sentences(config, told)
    assert lines[0].startswith("house connection: 22000 W (limited): 55000 * AVAIL / 100 = 22000 W")
    assert "less 10.0 A of other load on L1" in lines[1]
    assert lines[-1] == "E2: nothing, alone it might have 32 A: no car connected"


def test_asking_is_no_restart_after_which_a_limit_comes_back_gradually() -> None:
    config = site(1, return_ramp_s=300)
    house = House(config)
    house.set(AVAIL=40)
    state = supposed(config, house.snapshot.state.variables, {}, house.wait(10).now)
    assert explained(config, state, house.now).grid.limit_w == 22_000
    assert explained(config, state, house.now, {"AVAIL": parse(60)}).grid.limit_w == 33_000
