"""From events to setpoints: the whole core, with a fake clock."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core import step
from bridge.core.config import Config, GridConfig, MeterConfig, VariableConfig, WallboxConfig
from bridge.core.events import Confirmed, Link, Read, Reconfigured, Stored
from bridge.core.formulas import parse
from bridge.core.model import Now, State
from bridge.core.variables import Refused, accept
from tests.core.sites import House, site


def lines(amperes: float) -> dict[str, float]:
    return dict.fromkeys(("current_l1_a", "current_l2_a", "current_l3_a"), float(amperes))


def test_half_the_connection_is_half_the_current() -> None:
    house = House(site())
    house.plug("E1", "E2")
    house.obey()
    assert house.setpoints() == {"E1": 32.0, "E2": 32.0}
    house.set(AVAIL=50)
    assert house.setpoints() == {"E1": 19.9, "E2": 19.9}
    grid = house.snapshot.decision.grid
    assert (grid.limit_w, grid.state, grid.source) == (27500.0, "limited", "smgw")
    assert grid.reason == "55000 * AVAIL / 100 = 27500 W with AVAIL = 50 (smgw)"
    assert house.reason("E1") == grid.reason + ", shared by 2 wallboxes"


def test_nothing_left_is_a_limit_too() -> None:
    house = House(site())
    house.plug("E1", "E2")
    house.obey()
    house.set(AVAIL=0)
    assert house.setpoints() == {"E1": 0.0, "E2": 0.0}
    assert house.snapshot.decision.grid.limit_w == 0.0
    house.obey()
    house.set(AVAIL=100)
    assert house.setpoints() == {"E1": 32.0, "E2": 32.0}


def test_less_than_two_minima_lets_one_charge() -> None:
    house = House(site(power=5000))
    house.plug("E1", "E2")
    house.obey()
    assert house.setpoints() == {"E1": 7.2, "E2": 0.0}
    assert "less than the minimum of 6 A is left" in house.reason("E2")


def test_no_car_no_current() -> None:
    house = House(site())
    house.plug("E1", state="A")
    house.plug("E2", state="E")
    house.obey()
    assert house.setpoints() == {"E1": 0.0, "E2": 0.0}
    assert house.reason("E1") == "no car connected"
    assert house.reason("E2") == "the wallbox reports an error"


def test_room_is_given_on_only_when_its_loss_is_confirmed() -> None:
    house = House(site(power=20 * 690.0))
    house.plug("E1")
    house.plug("E2", state="A")
    house.obey()
    assert house.setpoints() == {"E1": 20.0, "E2": 0.0}
    house.plug("E2")
    assert house.setpoints() == {"E1": 10.0, "E2": 0.0}, "E1 has not confirmed the 10 A yet"
    assert house.reason("E2") == "waiting until the room for more is confirmed"
    house.obey("E1")
    assert house.setpoints() == {"E1": 10.0, "E2": 10.0}


def test_a_late_confirmation_of_an_older_setpoint_does_not_free_the_room() -> None:
    house = House(site(power=20 * 690.0))
    house.plug("E1")
    house.plug("E2", state="A")
    house.obey()
    sent = house.snapshot.revision
    house.plug("E2")
    house.happen(Confirmed("E1", 20.0, sent))
    assert house.setpoints()["E2"] == 0.0
    house.happen(Confirmed("E1", 10.0, house.snapshot.revision))
    assert house.setpoints()["E2"] == 10.0


def test_an_unplugged_box_is_booked_until_it_has_confirmed_its_pause() -> None:
    house = House(site(power=20 * 690.0))
    house.plug("E1")
    house.plug("E2", state="A")
    house.obey()
    house.read("E1", {"state": "A"})
    house.plug("E2")
    assert house.setpoints() == {"E1": 0.0, "E2": 0.0}
    house.obey("E1")
    assert house.setpoints() == {"E1": 0.0, "E2": 20.0}


def test_what_was_offered_last_week_is_not_forgotten_by_offering_often() -> None:
    house = House(site(power="690 * AVAIL"))
    house.plug("E1")
    house.plug("E2", state="A")
    house.set(AVAIL=30)
    house.obey()
    for amperes in range(20, 8, -1):
        house.set(AVAIL=amperes)
    house.set(AVAIL=30)
    house.set(AVAIL=18)
    house.plug("E2")
    assert house.setpoints() == {"E1": 9.0, "E2": 0.0}
    pending = house.snapshot.state.offers["E1"].pending
    assert len(pending) <= 8
    assert house.snapshot.state.offers["E1"].ceiling_a == 30.0
    house.happen(Confirmed("E1", 9.0, pending[-1][0]))
    assert house.snapshot.state.offers["E1"].ceiling_a == 9.0


def test_a_lost_wallbox_stays_booked_and_keeps_its_setpoint() -> None:
    house = House(site(power=20 * 690.0))
    house.plug("E1")
    house.plug("E2", state="A")
    house.obey()
    house.happen(Link("E1", False, "no route to host"))
    house.plug("E2")
    house.obey("E2")
    assert house.setpoints() == {"E1": 20.0, "E2": 0.0}
    assert "not reachable (no route to host): 20 A stay booked" in house.reason("E1")
    house.set(AVAIL=100)
    house.happen(Link("E1", True))
    house.obey()
    assert house.setpoints() == {"E1": 10.0, "E2": 10.0}


def test_a_wallbox_never_reached_is_booked_with_all_it_can_draw() -> None:
    house = House(site(power=40 * 690.0))
    house.plug("E2")
    house.obey("E2")
    assert house.setpoints() == {"E1": 0.0, "E2": 8.0}
    assert house.snapshot.decision.alarms["E1_offline"].startswith("E1 is not reachable")


def test_without_a_value_the_fail_safe_is_in_force() -> None:
    house = House(site(power="NOBODY_SET_THIS * 100"))
    house.plug("E1")
    house.happen(Link("E2", True), Read("E2", {"state": "A"}, house.mono))
    house.obey()
    grid = house.snapshot.decision.grid
    assert (grid.limit_w, grid.state) == (4200.0, "failsafe")
    assert "unknown name nobody_set_this" in grid.reason
    assert house.setpoints()["E1"] == 6.0
    assert "grid_failsafe" in house.snapshot.decision.alarms


def test_a_wallbox_whose_own_limit_has_no_value_pauses() -> None:
    config = site(1)
    box = dataclasses.replace(config.wallboxes[0], max_current_a=parse("1 / (AVAIL - 100)"))
    house = House(dataclasses.replace(config, wallboxes=(box,)))
    house.plug("E1")
    house.obey()
    assert house.setpoints() == {"E1": 0.0}
    assert "division by zero" in house.reason("E1")


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ({"max_current_a": parse("16 * AVAIL / 100")}, 16.0),
        ({"max_power_w": parse(11040)}, 16.0),
        ({"max_power_w": parse(4600), "phases": 1}, 20.0),
        ({"max_current_a": parse(10), "max_power_w": parse(11040)}, 10.0),
        ({"max_current_a": parse(5)}, 0.0),
        ({"phases": (2,), "min_current_a": 8.0}, 32.0),
    ],
)
def test_limits_of_one_wallbox(box: dict[str, object], expected: float) -> None:
    config = site(1)
    wallbox = WallboxConfig("E1", "keba-p30", "127.0.0.1:1", **box)  # type: ignore[arg-type]
    house = House(dataclasses.replace(config, wallboxes=(wallbox,)))
    house.plug("E1")
    house.obey()
    assert house.setpoints() == {"E1": expected}


def test_the_house_comes_first_and_a_silent_meter_means_less() -> None:
    house = House(site(1, power=20 * 690.0, meter=True, reserve_w=parse(690), failsafe_power_w=4200.0))
    house.plug("E1", state="B")
    house.read("E1", {"state": "B", **lines(0.0)})
    house.obey()
    meter = {"current_l1_a": 5.0, "current_l2_a": 2.0, "current_l3_a": 0.0, "power_w": 1610.0}
    house.read("M1", meter)
    house.obey()
    assert house.setpoints() == {"E1": 14.0}, "20 A less 1 A reserve less 5 A on the fullest line"
    assert house.snapshot.decision.grid.power_w == 1610.0
    house.read("E1", {"state": "C", **lines(14.0)})
    house.read("M1", {"current_l1_a": 19.0, "current_l2_a": 16.0, "current_l3_a": 14.0, "power_w": 11270.0})
    assert house.setpoints() == {"E1": 14.0}, "what the car draws is not the house's"
    house.wait(10)
    assert house.setpoints() == {"E1": 6.0}, "4200 W fail-safe"
    assert "M1 is not read" in house.reason("E1")


def test_a_grid_meter_that_no_longer_tells_what_flows_counts_as_silent_too() -> None:
    house = House(site(boxes=1, power=40000, meter=True))
    house.plug("E1")
    house.read("M1", {**lines(1), "voltage_l1_v": 230.0})
    house.obey()
    assert house.setpoints()["E1"] > 6.0
    house.happen(Read("M1", {"voltage_l1_v": 230.0}, house.mono, frozenset(lines(1))))
    assert "M1 tells no current that can be true" in house.reason("E1")
    assert house.snapshot.state.device("M1").values == {"voltage_l1_v": 230.0}


def test_a_grid_meter_that_says_nothing_of_currents_counts_as_silent() -> None:
    house = House(site(1, power=20 * 690.0, meter=True))
    house.plug("E1", state="B")
    house.read("M1", {"import_wh": 5.0})
    house.obey()
    assert house.setpoints() == {"E1": 6.0}
    assert "M1 tells no current that can be true" in house.reason("E1")


def test_a_car_that_takes_its_time_to_obey_is_not_taken_for_the_house() -> None:
    house = House(site(1, power="690 * AVAIL", meter=True))
    house.set(AVAIL=20)
    house.plug("E1", state="B")
    house.read("E1", {"state": "B", **lines(0.0)})
    house.read("M1", lines(2.0))
    house.obey()
    assert house.setpoints() == {"E1": 18.0}
    for _ in range(2):
        house.wait(1)
        house.read("M1", lines(2.0 + 16.0))
        house.read("E1", {"state": "C", **lines(16.0)})
    house.set(AVAIL=12)
    house.obey()
    seen = set()
    for drawn in (16.0, 16.0, 13.0, 10.0, 10.0, 10.0):
        house.wait(1)
        house.read("M1", lines(2.0 + drawn))
        house.read("E1", {"state": "C", **lines(drawn)})
        house.obey()
        seen.add(house.setpoints()["E1"])
    assert seen == {10.0}


def test_while_a_car_ramps_up_nothing_flaps() -> None:
    house = House(site(1, power=20 * 690.0, meter=True))
    house.plug("E1", state="B")
    house.read("M1", lines(4.0))
    house.read("E1", {"state": "B", **lines(0.0)})
    house.obey()
    seen = set()
    drawn = 0.0
    for following in (0, 0, 4, 16, 16, 16, 9, 0, 0, 16, 16):
        # The meter is read half a second before the wallbox: while the car ramps the two do not fit together.
        house.read("M1", lines(4.0 + (drawn + following) / 2))
        house.wait(0.5)
        drawn = following
        house.read("E1", {"state": "C", **lines(drawn)})
        house.obey()
        house.wait(0.5)
        seen.add(house.setpoints()["E1"])
    assert seen == {16.0}


def test_a_rising_house_load_takes_current_from_the_car() -> None:
    house = House(site(1, power=20 * 690.0, meter=True))
    house.plug("E1", state="B")
    house.read("M1", lines(4.0))
    house.read("E1", {"state": "C", **lines(16.0)})
    house.obey()
    assert house.setpoints() == {"E1": 16.0}
    house.wait(1)
    house.read("M1", lines(26.0))
    assert house.setpoints() == {"E1": 10.0}, "at once: 10 A cannot be the car's"
    house.obey()
    house.read("E1", {"state": "C", **lines(10.0)})
    house.wait(1)
    house.read("M1", lines(8.0 + 10.0))
    house.read("E1", {"state": "C", **lines(10.0)})
    assert house.setpoints() == {"E1": 10.0}, "a fall must last"
    for _ in range(6):
        house.wait(1)
        house.read("M1", lines(8.0 + 10.0))
        house.read("E1", {"state": "C", **lines(10.0)})
    assert house.setpoints() == {"E1": 12.0}


def test_export_on_a_line_makes_room() -> None:
    house = House(site(1, power=20 * 690.0, meter=True))
    house.plug("E1", state="B")
    house.read("E1", {"state": "B", **lines(0.0)})
    house.read("M1", {"current_l1_a": 3.0, "current_l2_a": 3.0, "current_l3_a": 3.0, "power_w": -2070.0})
    house.obey()
    assert house.setpoints() == {"E1": 23.0}


def test_home_automation_tightens_but_never_widens_what_the_grid_has_limited() -> None:
    config = dataclasses.replace(
        site(1, power="55000 * AVAIL / 100 + BONUS"),
        variables={
            "AVAIL": VariableConfig(parse(100), 0, 100),
            "BONUS": VariableConfig(parse(0), writers=("admin", "mqtt")),
        },
    )
    house = House(config)
    house.set(AVAIL=20)
    house.set(source="mqtt", BONUS=20000)
    grid = house.snapshot.decision.grid
    assert grid.limit_w == 11000.0
    assert "may not widen" in grid.reason
    house.set(source="mqtt", BONUS=-1000)
    assert house.snapshot.decision.grid.limit_w == 10000.0
    house.set(source="admin", BONUS=3000)
    assert house.snapshot.decision.grid.limit_w == 14000.0


def test_home_automation_keeps_more_free_but_never_less() -> None:
    variables = {"R": VariableConfig(parse(6900), writers=("smgw", "mqtt"))}
    house = House(dataclasses.replace(site(1, power=20_700, reserve_w=parse("R")), variables=variables))
    house.plug("E1")
    for reserve_w, amperes in ((0, 20.0), (13_800, 10.0), ("1 / 0", 0.0)):
        house.set(source="mqtt", R=reserve_w)
        house.obey()
        assert house.setpoints() == {"E1": amperes}
    house.set(R=0)
    house.obey()
    assert house.setpoints() == {"E1": 30.0}


def test_variables_refer_to_each_other_and_circles_are_told() -> None:
    house = House(site(0))
    house.set(A="B + 1", B="C * 2", C=20, X="Y", Y="Z", Z="Y + 1", Q="NOPE", W="exists(NOPE) ? 1 : exists(A)")
    values = house.snapshot.decision.values
    assert values["a"] == 41.0
    assert values["w"] == 1.0
    for name in ("x", "y", "z"):
        assert "refers to itself: Y -> Z -> Y" in values[name].reason  # type: ignore[union-attr]
    assert values["q"].reason == "unknown name nope"  # type: ignore[union-attr]


def test_a_chain_of_variables_is_no_recursion() -> None:
    house = House(site(0))
    house.set(**{"V0": 1, **{f"V{n}": f"V{n - 1} + 1" for n in range(1, 400)}})
    assert house.snapshot.decision.values["v399"] == 400.0


def test_devices_in_formulas() -> None:
    house = House(site(1, meter=True))
    house.set(P="M1.power_w", I="m1.current_l1", S="E1.state", H="date.hour", BAD="M1.nonsense", O="E1.offered")
    values = house.snapshot.decision.values
    assert values["p"].reason == "M1 is not read: not reached yet"  # type: ignore[union-attr]
    house.plug("E1", state="B")
    house.read("M1", {"power_w": 5000.0, "current_l1_a": 7.5})
    house.obey()
    values = house.snapshot.decision.values
    assert (values["p"], values["i"], values["s"]) == (5000.0, 7500.0, 2.0)
    assert values["o"] == 32000.0
    assert values["bad"].reason == "M1 has no nonsense"  # type: ignore[union-attr]


def test_names_keep_their_first_spelling_and_clear_falls_back_to_initial() -> None:
    house = House(site(0))
    house.set(Tarif=1)
    house.set(TARIF=2, avail=40)
    assert {v.name: v.formula.constant for v in house.snapshot.state.variables.values()} == {"Tarif": 2, "AVAIL": 40}
    house.set(Twice=1, twice=2)
    spelled = {v.name: v.formula.constant for v in house.snapshot.state.variables.values()}
    assert (spelled.get("Twice"), "twice" in spelled) == (2, False)
    house.set(clear=True, OTHER=1)
    assert set(house.snapshot.state.variables) == {"other"}
    assert house.snapshot.decision.values["avail"] == 100.0


def test_clear_leaves_alone_what_this_door_may_not_write() -> None:
    config = dataclasses.replace(site(0), variables={"PWR": VariableConfig(parse(0), writers=("smgw",))})
    house = House(config)
    house.set(PWR=5)
    house.set(clear=True, source="admin", X=1)
    assert set(house.snapshot.state.variables) == {"pwr", "x"}


def test_what_was_set_under_wider_bounds_is_clamped_to_those_of_now() -> None:
    house = House(site(0))
    house.set(AVAIL=80)
    narrower = dataclasses.replace(site(0), variables={"AVAIL": VariableConfig(parse(50), 0, 50)})
    house.happen(Reconfigured(narrower))
    assert house.snapshot.decision.grid.limit_w == 27_500
    assert house.snapshot.decision.notes["avail"] == "80 clamped to min 0, max 50"


def test_formula_values_are_clamped_and_say_so() -> None:
    house = House(site(0))
    house.set(AVAIL="B", B=250)
    assert house.snapshot.decision.values["avail"] == 100.0
    assert house.snapshot.decision.notes["avail"] == "250 clamped to min 0, max 100"
    assert "AVAIL = 100 (smgw)" in house.snapshot.decision.grid.reason


@pytest.mark.parametrize(
    ("pairs", "source", "message", "forbidden"),
    [
        ([("AVAIL", 101)], "smgw", "AVAIL: 101 is outside min 0, max 100", False),
        ([("A B", 1)], "smgw", "'A B' is no name", False),
        ([("and", 1)], "smgw", "'and' is no name", False),
        ([("X", "1 +")], "smgw", "X: ", False),
        ([("X", 1), ("AVAIL", -1)], "smgw", "AVAIL: -1 is outside", False),
        ([("AVAIL", 50)], "mqtt", "AVAIL may not be set through mqtt; writers: smgw, admin", True),
        ([("UNDECLARED", 50)], "mqtt", "UNDECLARED may not be set through mqtt", True),
        ([(f"V{n}", n) for n in range(600)], "smgw", "more than 500 variables", False),
    ],
)
def test_sets_that_are_refused(
    pairs: list[tuple[str, float | str]], source: str, message: str, forbidden: bool
) -> None:
    house = House(site(0))
    with pytest.raises(Refused) as refused:
        accept(house.snapshot.config, pairs, False, source, house.snapshot.state)
    assert message in str(refused.value)
    assert refused.value.forbidden is forbidden


def test_a_receipt_follows_the_set_to_every_register() -> None:
    house = House(site(3))
    house.plug("E1", "E2", "E3")
    house.obey()
    house.happen(Link("E3", False, "away"))
    first, second = house.accepted(AVAIL=50), house.accepted(AVAIL=40)
    house.happen(first)
    house.obey("E1")
    receipt = house.snapshot.state.receipt_of(first)
    assert receipt is not None
    assert receipt.limit_w == 27500.0
    assert {box: r.state for box, r in receipt.wallboxes.items()} == {
        "E1": "confirmed",
        "E2": "pending",
        "E3": "unreachable",
    }
    house.happen(second)
    house.happen(Stored(2))
    older, newer = house.snapshot.state.receipt_of(first), house.snapshot.state.receipt_of(second)
    assert older is not None
    assert newer is not None
    assert {box: r.state for box, r in older.wallboxes.items()} == {
        "E1": "confirmed",
        "E2": "superseded",
        "E3": "superseded",
    }
    house.happen(Link("E3", True), Read("E3", {"state": "C"}, house.mono))
    house.obey()
    newer = house.snapshot.state.receipt_of(second)
    assert newer is not None
    assert {r.state for r in newer.wallboxes.values()} == {"confirmed"}
    assert all(r.confirmed_at is not None for r in newer.wallboxes.values())


def test_a_confirmed_receipt_is_not_changed_by_what_comes_later() -> None:
    house = House(site(2))
    house.plug("E1")
    house.happen(Link("E2", True), Confirmed("E2", 0.0, 0))
    house.obey()
    cause = house.accepted(AVAIL=20)
    house.happen(cause)
    revision = house.snapshot.revision
    house.happen(Confirmed("E1", 15.9, revision))
    receipt = house.snapshot.state.receipt_of(cause)
    assert receipt is not None
    assert receipt.wallboxes["E1"].state == "confirmed"
    assert receipt.wallboxes["E2"].state == "confirmed"
    house.wait(5)
    house.read("E1", {"state": "A"})
    receipt = house.snapshot.state.receipt_of(cause)
    assert receipt is not None
    assert receipt.wallboxes["E1"].confirmed_a == 15.9


def test_a_value_that_only_happens_to_be_right_confirms_nothing() -> None:
    house = House(site(1))
    house.plug("E1")
    house.obey()
    house.set(AVAIL=20)
    cause = house.accepted(AVAIL=100)
    house.happen(cause)
    house.happen(Stored(2))
    receipt = house.snapshot.state.receipt_of(cause)
    assert receipt is not None
    assert receipt.wallboxes["E1"].confirmed_a == 32.0
    assert receipt.wallboxes["E1"].state == "pending", "15.9 A may be on the wire"


def test_stored_marks_the_receipts() -> None:
    house = House(site(0))
    cause = house.accepted(AVAIL=50)
    house.happen(cause)
    house.happen(Stored(1, "disk full"))
    receipt = house.snapshot.state.receipt_of(cause)
    assert receipt is not None
    assert (receipt.error, receipt.stored_at) == ("disk full", None)
    house.happen(Stored(1))
    receipt = house.snapshot.state.receipt_of(cause)
    assert receipt is not None
    assert (receipt.error, receipt.stored_at) == ("", house.utc)


def test_a_pause_lasts_its_minimum() -> None:
    config = site(1)
    box = dataclasses.replace(config.wallboxes[0], min_pause_s=60.0)
    house = House(dataclasses.replace(config, wallboxes=(box,)))
    house.plug("E1")
    house.obey()
    house.set(AVAIL=0)
    house.obey()
    house.set(AVAIL=100)
    assert house.setpoints() == {"E1": 0.0}
    assert house.reason("E1") == "paused for at least 60 s"
    house.wait(61)
    assert house.setpoints() == {"E1": 32.0}


def test_a_changed_config_is_an_event() -> None:
    house = House(site(1))
    house.plug("E1")
    house.obey()
    house.happen(Reconfigured(site(1, power=10 * 690)))
    assert house.setpoints() == {"E1": 10.0}


def test_the_fallback_pauses_everybody() -> None:
    house = House(site(2))
    house.plug("E1", "E2")
    snapshot = step.fallback(house.snapshot, house.now)
    assert {s.current_a for s in snapshot.decision.setpoints.values()} == {0.0}


# ------------------------------------------------------------------------------------------------- properties

IDS = ("E1", "E2", "E3", "E4")
LINES: tuple[int | tuple[int, ...], ...] = (3, 1, (2,), (3,))

boxes = st.sampled_from(IDS)
events = st.one_of(
    st.builds(lambda b, s: ("state", b, s), boxes, st.sampled_from("ABCCCCCE")),
    st.builds(Link, boxes, st.sampled_from([True, True, False]), st.just("gone")),
    st.builds(lambda n: ("avail", n), st.sampled_from([0, 10, 20, 30, 50, 70, 100])),
    st.builds(lambda b: ("send", b), boxes),
    st.builds(lambda b: ("arrive", b), boxes),
    st.builds(lambda b: ("confirm", b), boxes),
    st.builds(lambda a: ("meter", a), st.tuples(*[st.floats(0, 60)] * 3)),
    st.just(("wait", 7.0)),
)


@given(st.lists(events, max_size=60), st.booleans())
def test_what_is_offered_never_exceeds_the_limit_at_any_moment(history: list[object], metered: bool) -> None:
    """Setpoints are sent late, arrive later, are confirmed later still, or miss their box. The sum of what the boxes
    hold or are about to hold never rises above the limit: it may lie above it only after the limit itself shrank."""
    config = dataclasses.replace(
        site(0, power="30000 * AVAIL / 100", meter=metered),
        wallboxes=tuple(WallboxConfig(i, "keba-p30", "127.0.0.1:1", phases=p) for i, p in zip(IDS, LINES, strict=True)),
    )
    house = House(config)
    holds = dict.fromkeys(IDS, 0.0)  # what the register of each box says, known or not
    flying: dict[str, float] = {}  # on the wire
    sent = dict.fromkeys(IDS, 0)
    house.plug(*IDS)
    house.happen(*(Confirmed(box, 0.0, 0) for box in IDS))
    for entry in history:
        before = _sums(config, {box: max(holds[box], flying.get(box, 0.0)) for box in IDS})
        match entry:
            case ("state", str(box), str(letter)):
                if house.snapshot.state.devices[box].online:
                    house.read(box, {"state": letter})
            case ("avail", int(n)):
                house.set(AVAIL=n)
            case ("send", str(box)):
                if house.snapshot.state.devices[box].online and box not in flying:
                    flying[box] = house.snapshot.decision.setpoints[box].current_a
                    sent[box] = house.snapshot.revision
            case ("arrive", str(box)):
                holds[box] = flying.pop(box, holds[box])
            case ("confirm", str(box)):
                if house.snapshot.state.devices[box].online and box not in flying:
                    house.happen(Confirmed(box, holds[box], sent[box]))
            case ("meter", tuple(amps)):
                if metered:
                    house.read("M1", {f"current_l{i}_a": a for i, a in enumerate(amps, 1)})
            case ("wait", float(seconds)):
                house.wait(seconds)
            case Link():
                house.happen(entry)
        limit_a = house.snapshot.decision.grid.limit_w / 690
        after = _sums(config, {box: max(holds[box], flying.get(box, 0.0)) for box in IDS})
        for total, was in zip(after, before, strict=True):
            assert total <= max(limit_a, was) + 1e-6
        for box in config.wallboxes:
            setpoint = house.snapshot.decision.setpoints[box.id]
            assert setpoint.current_a == 0 or 6.0 <= setpoint.current_a <= 32.0
            assert setpoint.reason
            assert setpoint.source


def _sums(config: Config, holds: dict[str, float]) -> list[float]:
    return [sum(holds[box.id] for box in config.wallboxes if line in box.lines) for line in (1, 2, 3)]


@given(
    st.dictionaries(
        st.sampled_from(["A", "B", "C", "AVAIL"]), st.text(max_size=30) | st.floats() | st.integers(), max_size=4
    ),
    st.text(max_size=20),
)
def test_decide_never_raises_whatever_is_set(values: dict[str, float | str], power: str) -> None:
    house = House(site(2, power="min(A, B) * C ^ AVAIL", meter=True))
    house.plug("E1", "E2")
    try:
        event = accept(house.snapshot.config, list(values.items()), False, "admin", house.snapshot.state)
    except Refused:
        return
    house.happen(event)
    assert house.snapshot.decision.grid.limit_w >= 0


@given(st.permutations(["E1", "E2", "E3"]))
def test_the_order_in_the_file_does_not_matter_for_equals(order: list[str]) -> None:
    config = site(3, power=30 * 690.0)
    boxes = {box.id: box for box in config.wallboxes}
    house = House(dataclasses.replace(config, wallboxes=tuple(boxes[i] for i in order)))
    house.plug("E1", "E2", "E3")
    house.obey()
    assert house.setpoints() == {"E1": 10.0, "E2": 10.0, "E3": 10.0}


def test_types_tell_no_limit_from_nothing() -> None:
    assert GridConfig(parse(0)).wallbox_power_w is None
    assert State().receipts == {}
    assert isinstance(Now(0, 0), tuple)
    assert MeterConfig("M1", "x", "y").role == "display"


@pytest.mark.parametrize("amperes", [float("inf"), float("nan")])
def test_a_read_back_that_is_no_current_changes_nothing(amperes: float) -> None:
    house = House(site(1))
    house.plug("E1")
    house.happen(Confirmed("E1", amperes, house.snapshot.revision))
    assert house.snapshot.state.offers["E1"].confirmed_a is None
