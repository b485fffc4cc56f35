"""The topic tree of a snapshot, and that drawing only what changed gives the same tree."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.config import Config, GridConfig, MeterConfig, Switching, VariableConfig, WallboxConfig
from bridge.core.events import Confirmed, Event, Link, Override, PhasesConfirmed, Read, Reconfigured
from bridge.core.formulas import parse
from bridge.core.model import Offer
from bridge.mqtt.render import Tree, instant, level, number, render
from tests.core.sites import House, site

GOLDEN = {
    "grid/limit_w": "27500",
    "grid/power_w": "4321",
    "grid/source": "smgw",
    "grid/state": "limited",
    "grid/since": "2026-09-21T14:13:20.000Z",
    "grid/minimum_w": "7560",
    "grid/below_minimum": "false",
    "journal/head": "17 c0ffee",
    "alarm/E2_offline": "E2 is not reachable: not reached yet",
    "vars/AVAIL": "50",
    "vars/AVAIL/expr": "50",
    "vars/AVAIL/source": "smgw",
    "vars/AVAIL/set_at": "2026-09-21T14:13:20.000Z",
    "vars/half": "25",
    "vars/half/expr": "AVAIL / 2",
    "vars/half/source": "smgw",
    "vars/half/set_at": "2026-09-21T14:13:20.000Z",
    "vars/broken/expr": "1 / none",
    "vars/broken/source": "smgw",
    "vars/broken/set_at": "2026-09-21T14:13:20.000Z",
    "vars/broken/error": "unknown name none",
    "meters/M1/name": "M1",
    "meters/M1/online": "true",
    "meters/M1/power_w": "4321",
    "meters/M1/import_wh": "1234568",
    "meters/M1/voltage_l1_v": "230.1",
    "meters/M1/current_l1_a": "6.28",
    "wallboxes/E1/name": "Garage",
    "wallboxes/E1/online": "true",
    "wallboxes/E1/state": "C",
    "wallboxes/E1/phases": "3",
    "wallboxes/E1/power_w": "4000",
    "wallboxes/E1/session_wh": "0",
    "wallboxes/E1/serial": "17",
    "wallboxes/E1/session/started_at": "2026-09-21T14:13:20.000Z",
    "wallboxes/E1/session/energy_wh": "0",
    "wallboxes/E1/session/charging_s": "0",
    "wallboxes/E1/confirmed_a": "6.125",
    "wallboxes/E1/enabled": "true",
    "wallboxes/E2/name": "E2",
    "wallboxes/E2/online": "false",
    "wallboxes/E2/state": "F",
    "wallboxes/E2/phases": "3",
    "wallboxes/E2/enabled": "true",
}
DECIDED = {"limit_a", "setpoint_a", "reason"}


def small_house() -> House:
    config = site(2, meter=True)
    box = replace(config.wallboxes[0], name="Garage")
    house = House(replace(config, wallboxes=(box, config.wallboxes[1])))
    house.set(AVAIL=50, half="AVAIL / 2", broken="1 / none")
    house.happen(Link("M1", True), Link("E1", True))
    meter = {"power_w": 4321.4, "import_wh": 1234567.8, "voltage_l1_v": 230.06, "current_l1_a": 6.2812}
    house.read("M1", meter)
    house.read("E1", {"state": "C", "power_w": 4000.0, "session_wh": -0.0, "serial": "17", "rfid": "04A1B2"})
    return house


def test_golden_tree() -> None:
    snapshot = small_house().snapshot
    offers = {**snapshot.state.offers, "E1": Offer(confirmed_a=6.125)}
    journal = snapshot.state.journal._replace(head="17 c0ffee")
    snapshot = replace(snapshot, state=replace(snapshot.state, offers=offers, journal=journal))
    tree = render(snapshot)
    decided = {topic for topic in tree if topic.startswith("wallboxes/") and topic.rpartition("/")[2] in DECIDED}
    assert decided == {f"wallboxes/{box}/{leaf}" for box in ("E1", "E2") for leaf in DECIDED}
    reason = tree.pop("grid/reason")
    assert "AVAIL" in reason
    assert {topic: text for topic, text in tree.items() if topic not in decided} == GOLDEN
    setpoint = snapshot.decision.setpoints["E1"]
    assert float(tree["wallboxes/E1/setpoint_a"]) == pytest.approx(setpoint.current_a, abs=0.0005)
    assert float(tree["wallboxes/E1/limit_a"]) == pytest.approx(setpoint.limit_a, abs=0.0005)


def test_what_is_overridden_is_shown_until_the_car_leaves() -> None:
    house = small_house()
    tree = Tree()
    tree.follow(house.snapshot)
    changed = tree.follow(house.happen(Override("E1", "mqtt", off=frozenset({"charging"}), current_a=8.0)))
    assert (changed["wallboxes/E1/enabled"], changed["wallboxes/E1/override_a"]) == ("false", "8")
    changed = tree.follow(house.read("E1", {"state": "A"}))
    assert (changed["wallboxes/E1/enabled"], changed["wallboxes/E1/override_a"]) == ("true", "")


def test_the_phases_of_one_that_switches_are_those_it_has_confirmed() -> None:
    config = site(1)
    box = replace(config.wallboxes[0], phase_switching="auto")
    box = box.able(replace(box.capability, switch=Switching()))
    house = House(replace(config, wallboxes=(box,)))
    house.plug("E1")
    assert render(house.snapshot)["wallboxes/E1/phases"] == "3"
    house.happen(PhasesConfirmed("E1", 1, -1))
    house.read("E1", {"state": "C", "phases": 3.0})
    assert render(house.snapshot)["wallboxes/E1/phases"] == "1"
    house.happen(Link("E1", False, "gone"))
    assert render(house.snapshot)["wallboxes/E1/phases"] == "3"


def test_what_an_offline_device_measured_is_gone() -> None:
    house = small_house()
    tree = Tree()
    tree.follow(house.snapshot)
    changed = tree.follow(house.happen(Link("M1", False, "no answer")))
    assert changed["meters/M1/power_w"] == ""
    assert changed["meters/M1/online"] == "false"
    assert render(house.snapshot).keys() & {"meters/M1/power_w", "meters/M1/import_wh"} == set()
    # and a silent one, whose link nobody called broken, as well
    assert tree.follow(house.wait(60))["wallboxes/E1/state"] == "F"


def test_initial_values_have_no_moment_and_clamped_ones_a_note() -> None:
    tree = render(House(site()).snapshot)
    assert (tree["vars/AVAIL"], tree["vars/AVAIL/source"]) == ("100", "config")
    assert "vars/AVAIL/set_at" not in tree
    house = House(site())
    house.set(AVAIL="100 + 50")
    tree = render(house.snapshot)
    assert tree["vars/AVAIL"] == "100"
    assert "clamped" in tree["vars/AVAIL/note"]


def test_what_runs_out_says_when_and_then_that_it_has() -> None:
    house = House(site())
    house.set(ttl=60, AVAIL=10)
    tree = render(house.snapshot)
    assert tree["vars/AVAIL/until"] == tree["grid/until"] == "2026-09-21T14:14:20.000Z"
    assert tree["grid/below_minimum"] == "true"
    house.wait(61)
    tree = render(house.snapshot)
    assert tree["vars/AVAIL"] == "100"
    assert "expired" in tree["vars/AVAIL/note"]
    assert not tree.keys() & {"vars/AVAIL/until", "grid/until"}


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (70.0, None, "70"),
        (0.1 + 0.2, None, "0.30000000000000004"),
        (-0.0, None, "0"),
        (-0.3, 0, "0"),
        (19.9312, 3, "19.931"),
        (18331.5, 3, "18331.5"),
        (1e22, None, "1e+22"),
        (None, 1, ""),
        (float("nan"), 1, ""),
        (float("inf"), None, ""),
    ],
)
def test_numbers(value: float | None, decimals: int | None, text: str) -> None:
    assert number(value, decimals) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_variables_read_back_exactly(value: float) -> None:
    assert float(number(value)) == value


def test_instants_and_levels() -> None:
    assert instant(1_763_812_800.25) == "2025-11-22T12:00:00.250Z"
    assert level("grid/a+b#\n") == "grid_a_b__"


# ------------------------------------------------------------------------------- only what changed

NAMES = ("AVAIL", "X", "y")
DEVICES = ("M1", "E1", "E2")


def configs() -> st.SearchStrategy[Config]:
    def build(meters: bool, boxes: int, topic: str, name: str) -> Config:
        return Config(
            grid=GridConfig(parse("20000 * AVAIL / 100")),
            variables={"AVAIL": VariableConfig(parse(100), 0, 100)},
            meters=(MeterConfig("M1", "p", "h", name=name),) if meters else (),
            wallboxes=tuple(WallboxConfig(f"E{n}", "p", "h") for n in range(1, boxes + 1)),
        )

    return st.builds(build, st.booleans(), st.integers(0, 2), st.just("b"), st.sampled_from(["", "Grid"]))


values = st.dictionaries(
    st.sampled_from(["power_w", "current_l1_a", "state", "serial"]),
    st.one_of(st.sampled_from("ABC"), st.floats(-1e4, 1e4), st.just(float("nan"))),
)
steps = st.one_of(
    st.builds(Reconfigured, configs()),
    st.builds(Link, st.sampled_from(DEVICES), st.booleans()),
    st.builds(Read, st.sampled_from(DEVICES), values, st.just(1000.0)),
    st.builds(Confirmed, st.sampled_from(DEVICES[1:]), st.floats(0, 16), st.integers(0, 20)),
    st.tuples(st.sampled_from(NAMES), st.sampled_from([0.0, 50.0, "X / 0", "AVAIL * 2"]), st.booleans()),
    st.sampled_from([0.5, 10.0]),
)


def play(house: House, step: Event | tuple[str, float | str, bool] | float) -> None:
    if isinstance(step, Event):
        house.happen(step)
    elif isinstance(step, tuple):
        house.set(clear=step[2], **{step[0]: step[1]})
    else:
        house.wait(step)


@given(configs(), st.lists(steps, max_size=12))
def test_following_gives_the_same_tree_as_rendering(config: Config, happenings: list[object]) -> None:
    house = House(config)
    tree, broker = Tree(), {}
    for happening in [0.0, *happenings]:
        play(house, happening)  # type: ignore[arg-type]
        changed = tree.follow(house.snapshot)
        for topic, text in changed.items():
            assert broker.get(topic, "") != text, "published although nothing changed"
            broker[topic] = text
        broker = {topic: text for topic, text in broker.items() if text}
        assert broker == render(house.snapshot)


def test_one_change_among_500_devices_is_cheap() -> None:
    config = replace(site(0), meters=tuple(MeterConfig(f"M{n}", "p", "h") for n in range(500)), wallboxes=())
    house = House(config)
    house.happen(*(Link(f"M{n}", True) for n in range(500)))
    house.happen(*(Read(f"M{n}", {"power_w": 1.0, "current_l1_a": 2.0}, house.mono) for n in range(500)))
    tree = Tree()
    begin = time.perf_counter()
    tree.follow(house.snapshot)
    whole = time.perf_counter() - begin
    later = house.read("M77", {"power_w": 2.0})
    begin = time.perf_counter()
    changed = tree.follow(later)
    one = time.perf_counter() - begin
    print(f"whole tree {whole * 1e6:.0f} us, one change {one * 1e6:.0f} us")
    assert changed == {"meters/M77/power_w": "2"}
    assert one < whole / 2
