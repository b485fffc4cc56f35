"""What the journal tells of a grid command and its effect, told from events with a fake clock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.config import Config, VariableConfig
from bridge.core.events import Confirmed, Event, Journaled, Link, Read, Reconfigured
from bridge.core.formulas import parse
from bridge.core.records import evidence
from bridge.core.records.journal import OUTBOX, ROUTINE_OUTBOX, Entry, Journal, figure
from tests.core.sites import House, site

PEER = "ab" * 32


class Site:
    """A house with a grid meter and two cars that draw what a test says."""

    def __init__(self, config: Config | None = None, **grid: Any) -> None:
        self.house = House(config or site(2, meter=True, **grid))
        self.amperes = {"E1": 0.0, "E2": 0.0}
        self.other_a = 1.0
        self.house.plug("E1", "E2", state="B")
        self.house.happen(Link("M1", True))
        self.seconds(3)

    def seconds(self, number: float) -> None:
        """Time passes; every second all devices are read, and setpoints confirmed."""
        for _ in range(int(number)):
            self.house.mono += 1
            self.house.utc += 1
            total = self.other_a + sum(self.amperes.values())
            boxes = [self._read(box, amperes, "C" if amperes else "B") for box, amperes in self.amperes.items()]
            self.house.happen(*boxes, self._read("M1", total))
            self.house.obey()

    def _read(self, device: str, amperes: float, state: str = "") -> Read:
        values: dict[str, float | str] = {f"current_l{line}_a": amperes for line in (1, 2, 3)}
        values["power_w"] = amperes * 690
        return Read(device, values | ({"state": state} if state else {}), self.house.mono)

    def draw(self, amperes: float) -> None:
        self.amperes = dict.fromkeys(self.amperes, amperes)

    @property
    def journal(self) -> Journal:
        return self.house.snapshot.state.journal

    def kinds(self) -> list[str]:
        """Kinds in their order, without setpoints and without what is written at the start."""
        return [entry.kind for entry in self.journal.outbox if entry.kind not in ("setpoints", "configured")]

    def facts(self, kind: str, number: int = -1) -> Mapping[str, Any]:
        return [entry.facts for entry in self.journal.outbox if entry.kind == kind][number]


def test_a_command_is_told_from_its_arrival_to_its_release() -> None:
    """The whole story: 30 kW are drawn, 27.5 kW may be."""
    house = Site()
    house.draw(21.0)
    house.seconds(3)
    event = house.house.accepted(AVAIL=50)
    house.house.happen(replace(event, peer=PEER))
    house.seconds(4)
    house.draw(19.0)
    house.seconds(60)
    house.house.set(AVAIL=100)
    assert house.kinds() == ["command", "effective", "trace", "command", "trace", "release"]
    command = house.facts("command", 0)
    assert command["variables"] == {"AVAIL": 50}
    assert (command["receipt"], command["source"], command["peer"]) == (1, "smgw", PEER)
    assert command["limits"] == {"connection_power_w": 27500}
    assert (command["state"], command["changed"]) == ("limited", True)
    effective = house.facts("effective")
    assert (effective["how"], effective["after_s"], effective["receipt"]) == ("commanded", 5, 1)
    assert effective["grid_w"] == 39 * 690
    assert effective["controllable_w"] == 38 * 690
    trace = house.facts("trace", 0)
    assert trace["grid_max_w"] == 43 * 690
    assert trace["grid_w"] == round((4 * 43 + 56 * 39) * 690 / 60, 1)
    assert trace["limits"] == {"connection_power_w": 27500}
    assert {entry.facts["event"] for entry in house.journal.outbox if entry.kind != "configured"} == {
        command["event"]
    }, "all of it is one event"
    assert house.journal.event == ""


def test_a_limit_that_was_kept_already_is_effective_at_once() -> None:
    house = Site()
    house.draw(10.0)
    house.seconds(3)
    house.house.set(AVAIL=50)
    house.house.happen()
    assert house.facts("effective")["how"] == "already below"
    assert house.facts("effective")["after_s"] == 0


def test_a_command_that_is_not_obeyed_is_late_twice_and_raises_an_alarm() -> None:
    house = Site()
    house.draw(30.0)
    house.seconds(3)
    house.house.set(AVAIL=50)
    house.seconds(59)
    assert "late" not in house.kinds()
    assert evidence.alarms(house.journal) == {}
    house.seconds(2)
    assert house.facts("late")["deadline_s"] == 60
    assert "60 s" in evidence.alarms(house.journal)["grid_late"]
    house.seconds(400)
    assert [entry.facts["deadline_s"] for entry in house.journal.outbox if entry.kind == "late"] == [60, 300]
    house.draw(5.0)
    house.seconds(1)
    assert house.facts("effective")["how"] == "commanded"
    assert evidence.alarms(house.journal) == {}


def test_where_no_car_charges_there_is_nothing_left_to_reduce() -> None:
    """The household may draw what it wants: BK6-22-300 limits controllable devices."""
    house = Site()
    house.other_a = 10.0
    house.seconds(2)
    house.house.set(AVAIL=0)
    house.seconds(2)
    assert house.facts("effective")["grid_w"] == 6900
    assert house.facts("effective")["controllable_w"] == 0


def test_a_silent_wallbox_counts_with_all_it_may_draw() -> None:
    config = site(2)
    house = House(config)
    house.plug("E1", "E2")
    house.obey()
    house.set(AVAIL=20)
    house.wait(1)
    effective = [entry for entry in house.snapshot.state.journal.outbox if entry.kind == "effective"]
    assert not effective, "nobody measured that the cars have obeyed, and they have not confirmed anything"
    house.obey()
    house.wait(7)
    facts = house.snapshot.state.journal.outbox[-1].facts
    assert facts["estimated"] is True
    assert facts["controllable_w"] == sum(house.setpoints().values()) * 690


def test_the_share_of_the_grid_draw_is_what_counts_for_a_limit_on_controllable_devices() -> None:
    """With feed-in the cars may draw more than the limit, as long as the grid does not see it."""
    config = site(2, meter=True, controllable_power_w=parse("4200 * AVAIL / 100"))
    house = Site(replace(config, grid=replace(config.grid, connection_power_w=parse(55000))))
    house.other_a = -12.0
    house.draw(8.0)
    house.seconds(3)
    house.house.set(AVAIL=90)
    house.house.happen()
    effective = house.facts("effective")
    assert effective["limits"]["controllable_power_w"] == 3780
    assert (effective["controllable_w"], effective["attributed_w"]) == (16 * 690, 4 * 690)


def test_repeats_are_counted_and_told_before_the_next_command() -> None:
    house = Site()
    house.house.set(AVAIL=50)
    for _ in range(30):
        house.house.set(AVAIL=50)
    house.house.set(AVAIL=60)
    assert [kind for kind in house.kinds() if kind.startswith("command")] == ["command", "commands", "command"]
    repeats = house.facts("commands")
    assert (repeats["first_receipt"], repeats["receipt"], repeats["count"]) == (2, 31, 30)
    assert repeats["repeats"] is True


def test_the_same_command_from_somebody_else_is_no_repeat() -> None:
    house = Site()
    house.house.set(AVAIL=50)
    house.house.set(AVAIL=50, source="admin")
    assert house.kinds().count("command") == 2
    assert house.facts("command")["source"] == "admin"


def test_repeats_are_told_once_an_hour() -> None:
    house = Site()
    house.house.set(AVAIL=100)
    for _ in range(13):
        house.house.wait(300)
        house.house.set(AVAIL=100)
        house.house.wait(1)
    assert house.facts("commands")["count"] == 12


def test_a_flood_is_summed_up_and_no_command_is_missing() -> None:
    """A thousand commands a second, each of which changes the limit, for an hour."""
    house = Site()
    sent = 0
    for _ in range(60):
        for number in range(50):
            sent += 1
            house.house.set(AVAIL=50 + number % 2)
        house.house.wait(60)
        house.house.happen()
    entries = [entry for entry in house.journal.outbox if entry.kind in ("command", "commands")]
    told = sum(int(str(entry.facts.get("count", 1))) for entry in entries)
    assert told == sent
    assert len(entries) <= 240 + 240 + 61
    summed = house.facts("commands")
    assert (summed["lowest_w"], summed["highest_w"]) == (27500, 28050)


def test_sets_that_do_not_limit_are_no_commands() -> None:
    house = Site()
    house.house.set(COLOUR=7)
    house.seconds(2)
    assert "command" not in house.kinds()
    house.house.set(AVAIL="HALF * 2", HALF=25)
    house.house.set(HALF=20)
    assert house.facts("command")["variables"] == {"HALF": 20}, "it takes part by way of AVAIL"
    assert house.facts("command")["limits"] == {"connection_power_w": 22000}


def test_tariffs_open_no_grid_event() -> None:
    config = site(1)
    box = replace(config.wallboxes[0], max_current_a=parse("TARIF == 1 ? 16 : 32"))
    tariff = VariableConfig(parse(0), function="tariffs")
    house = House(replace(config, wallboxes=(box,), variables={**config.variables, "TARIF": tariff}))
    house.set(TARIF=1)
    house.wait(1)
    assert house.snapshot.state.journal.event == ""
    limiting = replace(tariff, function=None)
    house.happen(Reconfigured(replace(house.snapshot.config, variables={"TARIF": limiting})))
    assert house.snapshot.state.journal.event != ""
    assert house.snapshot.state.journal.limits["E1.max_current_a"] == 16


def test_the_fail_safe_is_no_command_and_ends_no_event() -> None:
    """A meter in the formula falls silent while a limit is in force."""
    house = Site(power="min(55000 * AVAIL / 100, 60000 - M1.power_w)")
    house.house.set(AVAIL=50)
    house.seconds(2)
    event = house.journal.event
    assert event
    house.house.happen(Link("M1", False, "unplugged"))
    house.house.wait(30)
    assert house.facts("failsafe")["on"] is True
    assert house.journal.event == event
    assert "release" not in house.kinds()
    house.house.happen(Link("M1", True))
    house.seconds(2)
    assert house.facts("failsafe")["on"] is False
    assert house.journal.event == event


def test_an_event_that_was_open_before_a_restart_goes_on() -> None:
    house = Site()
    house.house.set(AVAIL=50)
    house.seconds(2)
    event, variables = house.journal.event, house.house.snapshot.state.variables
    state = replace(House(site(2)).snapshot.state, variables=variables, journal=Journal(event=event))
    again = House(site(2), state)
    again.wait(1)
    assert again.snapshot.state.journal.event == event
    again.set(AVAIL=100)
    assert again.snapshot.state.journal.outbox[-1].kind == "release"
    assert again.snapshot.state.journal.outbox[-1].facts["event"] == event


def test_setpoints_are_told_once_a_minute_where_they_changed() -> None:
    house = Site()
    house.draw(15.0)
    house.seconds(2)
    house.house.set(AVAIL=50)
    house.seconds(62)
    first = house.facts("setpoints", 0)["wallboxes"]
    last = house.facts("setpoints")["wallboxes"]
    assert first.keys() == {"E1", "E2"}
    assert last["E1"]["wanted_a"] == last["E1"]["confirmed_a"]
    assert last["E1"]["confirmed_at"].endswith("Z")
    count = sum(entry.kind == "setpoints" for entry in house.journal.outbox)
    house.seconds(180)
    assert sum(entry.kind == "setpoints" for entry in house.journal.outbox) == count, "nothing changed"


def test_a_clock_that_is_set_is_told() -> None:
    house = Site()
    house.house.utc += 3600
    house.house.happen()
    assert house.facts("clock")["jumped_s"] == 3600
    count = len(house.journal.outbox)
    house.house.mono += 100
    house.house.utc += 101.5
    house.house.happen()
    assert len(house.journal.outbox) == count, "clocks may drift a little"


def test_formulas_are_told_at_the_start_and_when_they_change() -> None:
    house = Site()
    assert house.facts("configured")["connection_power_w"] == "55000 * AVAIL / 100"
    house.house.happen(Reconfigured(site(2, power="99000 * AVAIL / 100", meter=True)))
    assert house.facts("configured")["connection_power_w"] == "99000 * AVAIL / 100"


def test_only_setpoints_wait_for_company() -> None:
    house = Site()
    house.house.happen(Journaled(house.journal.last, "7 abc"))
    assert (house.journal.outbox, house.journal.head) == ((), "7 abc")
    house.draw(15.0)
    house.house.set(AVAIL=50)
    assert house.journal.due == house.journal.last
    noted = house.journal.noting("setpoints", 0.0, None, {})
    assert (noted.due, noted.last) == (house.journal.last, house.journal.last + 1)


def test_a_failing_disk_is_an_alarm_and_what_found_no_room_is_told() -> None:
    house = Site()
    house.house.happen(Journaled(0, "", "no space left"))
    assert "no space left" in evidence.alarms(house.journal)["journal"]
    journal = house.journal
    for _ in range(OUTBOX):
        journal = journal.noting("trace", 0.0, None, {})
    for _ in range(OUTBOX):
        journal = journal.noting("command", 0.0, None, {})
    assert len(journal.outbox) == OUTBOX
    assert Counter(entry.kind for entry in journal.outbox)["trace"] < ROUTINE_OUTBOX, "commands have room of their own"
    assert journal.lost.keys() == {"trace", "command"}
    lost = dict(journal.lost)
    journal = journal.kept(journal.last, "9 def", "").noting("trace", 1.0, None, {})
    assert [entry.kind for entry in journal.outbox] == ["dropped", "trace"]
    assert journal.outbox[0].facts["kinds"] == lost
    assert journal.lost == {}


def test_figures_are_json() -> None:
    assert [figure(number) for number in (None, float("nan"), float("inf"), 70.0, 19.949, -0.01)] == [
        *(None, None, None, 70, 19.9, 0)
    ]


_BOX = st.sampled_from(["E1", "E2"])
_HAPPENINGS: st.SearchStrategy[Event | float | tuple[str, float]] = st.one_of(
    st.tuples(st.sampled_from(["smgw", "admin"]), st.sampled_from([0.0, 20.0, 50.0, 100.0])),
    st.floats(0.1, 200.0),
    st.builds(Link, st.sampled_from(["E1", "M1"]), st.booleans(), st.just("gone")),
    st.builds(Read, _BOX, st.builds(lambda w: {"state": "C", "power_w": w}, st.floats(0, 22000)), st.just(1000.0)),
    st.builds(Confirmed, _BOX, st.sampled_from([0.0, 6.0, 16.1]), st.integers(0, 60)),
    st.builds(Journaled, st.integers(0, 30), st.just("1 a"), st.sampled_from(["", "full"])),
)


@given(st.lists(_HAPPENINGS, max_size=60))
def test_entries_are_numbered_without_gaps_whatever_happens(history: list[Event | float | tuple[str, float]]) -> None:
    """An entry leaves the outbox in its turn and no other way, and is JSON."""
    house = House(site(2, meter=True))
    numbered: dict[int, Entry] = {}
    for happening in history:
        if isinstance(happening, tuple):
            house.set(source=happening[0], AVAIL=happening[1])
        elif isinstance(happening, float):
            house.wait(happening)
        else:
            house.happen(happening)
        journal = house.snapshot.state.journal
        assert len(journal.outbox) <= OUTBOX
        assert journal.due <= journal.last
        for number, entry in enumerate(journal.outbox, journal.first):
            assert numbered.setdefault(number, entry) is entry
            json.dumps(entry.facts, allow_nan=False)
        numbered = {number: entry for number, entry in numbered.items() if number >= journal.first}
        assert [*numbered] == [*range(journal.first, journal.last + 1)]
