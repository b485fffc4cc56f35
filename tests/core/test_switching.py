"""Switching between one and three phases, decided by the whole core with a fake clock and boxes that may be slow."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core import switching
from bridge.core.config import Config, GridConfig, MeterConfig, Switching, VariableConfig, WallboxConfig
from bridge.core.events import Confirmed, Event, Link, PhasesConfirmed, Read
from bridge.core.formulas import parse
from bridge.core.loads.phase import Phases
from bridge.core.rules.rule import RuleConfig
from tests.core.sites import House

SWITCH = Switching(settle_s=10.0, min_interval_s=300.0)


def wallbox(id: str, phases: str | int = "auto", **more: object) -> WallboxConfig:
    box = WallboxConfig(id, "cfos-power-brain", "127.0.0.1:1", phase_switching=phases, **more)  # type: ignore[arg-type]
    return box.able(replace(box.capability, switch=SWITCH))


def site(*boxes: WallboxConfig, power: float = 30000, **grid: object) -> Config:
    return Config(
        GridConfig(parse(power), controllable_power_w=parse("LPC"), **grid),  # type: ignore[arg-type]
        variables={"LPC": VariableConfig(parse(30000), 0)},
        wallboxes=boxes,
    )


class Street(House):
    """A house whose cars draw what they are offered on the lines they are connected to, and whose boxes follow.

    ``load`` is what flows now by box: (amperes, phases).
    """

    def __init__(self, config: Config, phases: int | None = 3) -> None:
        super().__init__(config)
        self.phases: dict[str, int | None] = {box.id: phases for box in config.wallboxes}
        self.drawn = {box.id: 0.0 for box in config.wallboxes}
        self.states = {box.id: "C" for box in config.wallboxes}
        self.commands: list[tuple[float, str, int]] = []
        self.settling: dict[str, tuple[float, int]] = {}
        for box in config.wallboxes:
            if phases and box.switches:
                self.happen(PhasesConfirmed(box.id, phases, -1))

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes; every box is read, follows its setpoint, and its car follows."""
        for _ in range(int(seconds)):
            self.wait(1)
            self.follow()

    def follow(self) -> None:
        for box in self.snapshot.config.wallboxes:
            setpoint, revision = self.snapshot.decision.setpoints[box.id], self.snapshot.revision
            events: list[Event] = [Confirmed(box.id, setpoint.current_a, revision)]
            self.drawn[box.id] = setpoint.current_a if self.states[box.id] == "C" else 0.0
            if box.id in self.settling:
                since, order = self.settling[box.id]
                if self.mono - since >= SWITCH.settle_s:
                    del self.settling[box.id]
                    events.append(PhasesConfirmed(box.id, self.phases[box.id], order))
            elif setpoint.phases and setpoint.phases != self.phases[box.id]:
                self.switch(box.id, setpoint.phases)
            self.happen(*events, self.reading(box))

    def switch(self, id: str, phases: int) -> None:
        self.commands.append((self.mono, id, phases))
        self.settling[id] = self.mono, self.snapshot.revision
        self.phases[id] = phases

    def reading(self, box: WallboxConfig) -> Read:
        amperes = self.drawn[box.id]
        beyond = 0.0 if self.phases[box.id] == 1 else amperes
        currents = {"current_l1_a": amperes, "current_l2_a": beyond, "current_l3_a": beyond}
        state = self.states[box.id]
        state = "B" if state == "C" and not amperes else state
        return Read(box.id, {"state": state, **currents}, self.mono)

    def begin(self) -> Street:
        self.happen(*(Link(box.id, True) for box in self.snapshot.config.wallboxes))
        self.follow()
        self.tick(3)
        return self

    def known(self, id: str) -> Phases:
        return self.snapshot.state.phases[id]


def test_three_cars_go_on_with_one_phase_each_under_4200_w() -> None:
    house = Street(site(wallbox("E1"), wallbox("E2"), wallbox("E3"))).begin()
    assert set(house.setpoints().values()) == {14.4}
    house.set(LPC=4200)
    house.tick(30)
    assert house.setpoints() == dict.fromkeys(("E1", "E2", "E3"), 6.0)
    assert house.phases == dict.fromkeys(("E1", "E2", "E3"), 1)
    assert house.reason("E1").startswith("LPC = 4200 W with LPC = 4200 (smgw), shared by 3 wallboxes; on one phase: ")
    assert "3 x 6 A do not fit for E2, too: LPC = 4200 W" in house.reason("E1")


def test_one_car_alone_has_room_for_three_phases_and_keeps_them() -> None:
    house = Street(site(wallbox("E1"), wallbox("E2"))).begin()
    house.states["E2"] = "A"
    house.tick(2)
    house.set(LPC=4200)
    house.tick(600)
    assert house.setpoints()["E1"] == 6.0
    assert house.commands == []


def test_it_goes_up_again_when_there_is_room_for_a_while() -> None:
    house = Street(site(wallbox("E1"), wallbox("E2"))).begin()
    house.set(LPC=4200)
    house.tick(30)
    assert house.phases == {"E1": 1, "E2": 1}
    lifted = house.mono
    house.set(LPC=2 * 4140)
    house.tick(1000)
    assert house.phases == {"E1": 1, "E2": 1}, "just the minimum is no margin"
    lifted = house.mono
    house.set(LPC=30000)
    house.tick(290)
    assert house.phases == {"E1": 1, "E2": 1}
    house.tick(40)
    assert house.phases == {"E1": 3, "E2": 3}
    assert min(at for at, _, phases in house.commands if phases == 3) >= lifted + 300
    assert set(house.setpoints().values()) == {21.7}


@pytest.mark.parametrize(("may", "able"), [("off", True), ("auto", False)])
def test_who_may_not_or_cannot_is_left_alone(may: str, able: bool) -> None:
    box = wallbox("E1", may)
    if not able:
        box = box.able(replace(box.capability, switch=None))
    house = Street(site(box)).begin()
    house.set(LPC=3000)
    house.tick(600)
    assert house.commands == []
    assert house.setpoints() == {"E1": 0.0}


def test_one_that_may_makes_room_for_nobody_of_lower_priority() -> None:
    house = Street(site(wallbox("E1", priority=2, max_current_a=parse(7)), wallbox("E2"))).begin()
    house.set(LPC=5500)
    house.tick(600)
    assert house.phases == {"E1": 3, "E2": 3}, "one phase for E2 would not help: what is left are 2.9 A"
    house.set(LPC=6500)
    house.tick(30)
    assert house.phases == {"E1": 3, "E2": 1}
    assert house.setpoints() == {"E1": 7.0, "E2": 7.2}


def test_a_fixed_number_is_kept_whatever_the_room() -> None:
    house = Street(site(wallbox("E1", 1), wallbox("E2", 3))).begin()
    house.tick(20)
    assert house.phases == {"E1": 1, "E2": 3}
    house.set(LPC=3000)
    house.tick(600)
    assert house.phases == {"E1": 1, "E2": 3}


def test_a_short_lack_that_nobody_ordered_switches_nothing() -> None:
    config = replace(
        site(wallbox("E1"), power=10000, connection_current_a=parse(40)),
        meters=(MeterConfig("M1", "eastron-sdm630", "127.0.0.1:502", role="grid"),),
    )
    house = Street(config)
    begun = house.mono
    for second in range(700):
        house.wait(1)
        other = 12.0 if 100 < second < 200 or second > 400 else 1.0
        lines = dict.fromkeys(("current_l1_a", "current_l2_a", "current_l3_a"), other)
        for line in (1, 2, 3)[: house.phases["E1"]]:
            lines[f"current_l{line}_a"] += house.drawn["E1"]
        house.read("M1", lines)
        if second == 0:
            house.happen(Link("E1", True))
        house.follow()
    assert len(house.commands) == 1
    assert house.commands[0][0] - begun > 400 + 120
    assert house.setpoints()["E1"] == pytest.approx(10000 / 230 - 36, abs=0.1)
    assert "3 x 6 A do not fit: 10000 W as set up" in house.reason("E1")


def test_a_small_surplus_is_charged_on_one_phase() -> None:
    config = replace(
        site(wallbox("E1", rules=(RuleConfig(surplus=True),)), surplus_w=parse("SUN")),
        variables={"LPC": VariableConfig(parse(30000)), "SUN": VariableConfig(parse(6000))},
    )
    house = Street(config).begin()
    house.tick(90)
    assert house.setpoints() == {"E1": 8.5}
    house.set(SUN=2300)
    house.tick(100)
    assert house.phases == {"E1": 3}
    while house.phases["E1"] == 3 or not house.setpoints()["E1"]:
        house.tick()
    assert house.setpoints() == {"E1": 10.0}
    assert "on one phase: a surplus of 2300 W is less than 3 x 6 A" in house.reason("E1")
    house.set(SUN=4500)
    house.tick(600)
    assert house.phases == {"E1": 1}, "no margin"
    house.set(SUN=6000)
    house.tick(600)
    assert house.phases == {"E1": 3}


def test_the_sequence_is_pause_command_settle_resume() -> None:
    house = Street(site(wallbox("E1"))).begin()
    house.set(LPC=3000)
    assert house.snapshot.decision.setpoints["E1"].phases == 3
    assert house.setpoints() == {"E1": 0.0}
    house.wait(1)
    assert house.reason("E1").startswith("paused: ")
    house.wait(1)
    assert "switching to one phase" in house.reason("E1") or "paused" in house.reason("E1")
    assert house.snapshot.decision.setpoints["E1"].phases is None, "not yet: the pause is not confirmed"
    house.read("E1", {"state": "B", "current_l1_a": 0.0, "current_l2_a": 0.0, "current_l3_a": 0.0})
    house.wait(1)
    house.happen(Confirmed("E1", 0.0, house.snapshot.revision))
    house.wait(1)
    assert house.snapshot.decision.setpoints["E1"].phases is None, "the car was not seen to be still since then"
    house.read("E1", {"state": "B", "current_l1_a": 2.0, "current_l2_a": 2.0, "current_l3_a": 2.0})
    house.wait(1)
    assert house.snapshot.decision.setpoints["E1"].phases is None, "it draws"
    house.read("E1", {"state": "B", "current_l1_a": 0.0, "current_l2_a": 0.0, "current_l3_a": 0.0})
    commanded = house.wait(1)
    assert commanded.decision.setpoints["E1"].phases == 1
    house.happen(PhasesConfirmed("E1", 3, commanded.revision - 2))
    assert house.known("E1").changing, "said before it was told"
    assert house.setpoints() == {"E1": 0.0}
    house.happen(PhasesConfirmed("E1", 1, commanded.revision))
    house.obey()
    assert house.setpoints() == {"E1": 13.0}


def paused_for_a_switch() -> Street:
    house = Street(site(wallbox("E1"))).begin()
    house.set(LPC=3000)
    for _ in range(3):
        house.tick()
        if house.commands:
            break
    assert house.known("E1").revision is not None
    house.settling.clear()
    return house


def test_a_box_that_does_not_follow_is_not_asked_again_and_counts_on_all_lines() -> None:
    house = paused_for_a_switch()
    house.phases["E1"] = 3
    house.happen(PhasesConfirmed("E1", 3, house.snapshot.revision))
    house.tick(700)
    assert len(house.commands) == 1
    assert house.setpoints() == {"E1": 0.0}
    assert "did not switch" in house.snapshot.decision.alarms["E1_phases"]
    house.set(LPC=30000)
    house.tick(3)
    assert house.setpoints() == {"E1": 32.0}
    house.happen(Link("E1", False, "gone"), Link("E1", True), PhasesConfirmed("E1", 3, -1))
    assert "E1_phases" not in house.snapshot.decision.alarms


def test_a_box_that_tells_nothing_counts_on_all_lines() -> None:
    house = paused_for_a_switch()
    house.tick(200)
    assert house.known("E1").confirmed is None
    assert house.setpoints() == {"E1": 0.0}
    assert "E1_phases" in house.snapshot.decision.alarms


def test_a_car_that_goes_on_drawing_is_not_switched() -> None:
    house = Street(site(wallbox("E1"))).begin()
    house.set(LPC=3000)
    for _ in range(300):
        house.wait(1)
        house.happen(Confirmed("E1", 0.0, house.snapshot.revision))
        house.read("E1", {"state": "C", "current_l1_a": 8.0, "current_l2_a": 8.0, "current_l3_a": 8.0})
    assert house.known("E1").switched_mono < 0
    assert "E1_phases" in house.snapshot.decision.alarms


def test_a_box_that_measures_on_other_lines_is_not_believed_to_be_on_one() -> None:
    house = Street(site(wallbox("E1", 1)), phases=1).begin()
    house.set(LPC=6900)
    house.tick(2)
    assert house.setpoints() == {"E1": 30.0}
    house.read("E1", {"state": "C", "current_l1_a": 20.0, "current_l2_a": 20.0, "current_l3_a": 20.0})
    assert house.setpoints() == {"E1": 10.0}


def test_a_lost_box_counts_on_all_lines_and_one_that_rebooted_is_switched_again() -> None:
    house = Street(site(wallbox("E1"), wallbox("E2"))).begin()
    house.set(LPC=4200)
    house.tick(30)
    assert house.setpoints() == {"E1": 9.1, "E2": 9.1}
    house.happen(Link("E1", False, "gone"))
    assert house.setpoints()["E2"] == 0.0, "E1 may be drawing 3 x 9.1 A"
    house.phases["E1"] = 3
    house.happen(Link("E1", True), PhasesConfirmed("E1", 3, -1))
    house.tick(600)
    assert sorted(id for _, id, phases in house.commands) == ["E1", "E1", "E2"]
    assert house.phases == {"E1": 1, "E2": 1}


def test_nobody_is_switched_whose_car_nobody_knows() -> None:
    house = Street(site(wallbox("E1"))).begin()
    house.states["E1"] = "E"
    house.tick(2)
    house.set(LPC=3000)
    house.tick(600)
    assert house.commands == []


def test_without_a_car_it_goes_back_to_three() -> None:
    house = Street(site(wallbox("E1"))).begin()
    house.set(LPC=3000)
    house.tick(30)
    assert house.phases == {"E1": 1}
    house.states["E1"] = "A"
    house.tick(400)
    assert house.phases == {"E1": 3}


def test_what_was_learned_of_a_car_is_forgotten_at_a_switch() -> None:
    house = Street(site(wallbox("E1"))).begin()
    house.tick(40)
    assert house.snapshot.state.cars["E1"].lines == (1, 2, 3)
    house.set(LPC=3000)
    house.tick(20)
    assert house.snapshot.state.cars["E1"].lines is None
    house.tick(40)
    assert house.snapshot.state.cars["E1"].lines == (1,)
    house.set(LPC=30000)
    house.tick(400)
    assert house.snapshot.state.cars["E1"].lines == (1, 2, 3)


# ------------------------------------------------------------------------------------------- whatever lands when

limits = st.sampled_from([0, 1400, 3000, 4200, 4300, 8500, 11000, 30000])
happenings = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.one_of(
            limits,
            st.tuples(st.sampled_from("CBAE"), st.sampled_from(["E1", "E2", "E3"])),
            st.tuples(st.sampled_from(["lost", "back", "rebooted"]), st.sampled_from(["E1", "E2", "E3"])),
        ),
    ),
    max_size=6,
)


class Slow(Street):
    """Boxes that take a while to write and to tell: what each was sent lands some seconds later, or out of turn."""

    def __init__(self, config: Config, delays: Sequence[int]) -> None:
        super().__init__(config)
        self.sent: dict[str, deque[tuple[float, float, int | None, int]]] = {b.id: deque() for b in config.wallboxes}
        self.delays = dict(zip(self.sent, delays, strict=True))
        self.holds = dict.fromkeys(self.sent, 0.0)
        self.lost: set[str] = set()

    def follow(self) -> None:
        """What was sent some time ago is carried out, and confirmed."""
        for box in self.snapshot.config.wallboxes:
            if box.id in self.lost:
                continue
            setpoint, queue = self.snapshot.decision.setpoints[box.id], self.sent[box.id]
            queue.append((self.mono, setpoint.current_a, setpoint.phases, self.snapshot.revision))
            events: list[Event] = []
            while queue and queue[0][0] <= self.mono - self.delays[box.id]:
                _, amperes, phases, revision = queue.popleft()
                self.holds[box.id] = amperes
                self.drawn[box.id] = amperes if self.states[box.id] == "C" else 0.0
                events.append(Confirmed(box.id, amperes, revision))
                if box.id in self.settling:
                    since, order = self.settling[box.id]
                    if self.mono - since >= SWITCH.settle_s:
                        del self.settling[box.id]
                        events.append(PhasesConfirmed(box.id, self.phases[box.id], order))
                elif phases and phases != self.phases[box.id]:
                    assert self.drawn[box.id] == 0.0, "switched under load"
                    assert amperes == 0.0
                    self.commands.append((self.mono, box.id, phases))
                    self.settling[box.id] = self.mono, revision
                    self.phases[box.id] = phases
            self.happen(*events, self.reading(box))

    def happens(self, what: object) -> None:
        if isinstance(what, int):
            self.set(LPC=what)
            return
        assert isinstance(what, tuple)
        word, box = what
        if word == "back":
            self.lost.discard(box)
            self.happen(Link(box, True), PhasesConfirmed(box, self.phases[box], -1))
        elif word in ("lost", "rebooted"):
            self.sent[box].clear()
            self.settling.pop(box, None)
            self.happen(Link(box, False, "gone"))
            if word == "lost":
                self.lost.add(box)
            else:
                self.phases[box], self.drawn[box], self.holds[box] = 3, 0.0, 0.0
                self.happen(Link(box, True), Confirmed(box, 0.0, -1), PhasesConfirmed(box, 3, -1))
        else:
            self.states[box] = word

    def power_w(self, boxes: Iterable[str]) -> float:
        return sum(230.0 * self.drawn[id] * (1 if self.phases[id] == 1 else 3) for id in boxes)


@settings(max_examples=20)
@given(happenings, st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_never_under_load_never_too_often_never_too_much(
    story: Sequence[tuple[int, object]], delays: Sequence[int]
) -> None:
    quick = Switching(settle_s=3.0, min_interval_s=25.0)
    boxes = (wallbox("E1"), wallbox("E2", 1), wallbox("E3", priority=2))
    with patch.multiple(switching, UP_S=12.0, DOWN_S=5.0), patch(f"{__name__}.SWITCH", quick):
        house = Slow(site(*(box.able(replace(box.capability, switch=quick)) for box in boxes)), delays)
        house.happen(*(Link(box, True) for box in house.drawn))
        limit_w, fell = 30000.0, house.mono - 100
        for quiet, what in [*story, (30, 4200), (30, 30000), (30, 3000), (1, 0)]:
            for _ in range(quiet):
                house.tick()
                if house.mono - fell > max(delays) + 3:
                    assert (
                        house.power_w(house.drawn.keys() - house.lost)
                        <= max(0, limit_w - house.power_w(house.lost)) + 1
                    )
            if not isinstance(what, int) or what < limit_w:
                fell = house.mono
            limit_w = what if isinstance(what, int) else limit_w
            house.happens(what)
    last: dict[str, float] = {}
    for at, box, _ in house.commands:
        assert at - last.get(box, -1e9) >= quick.min_interval_s - max(delays)
        last[box] = at


def test_a_switch_is_never_asked_for_before_its_time() -> None:
    """A box that is moved by somebody else every minute is moved back every five minutes at most."""
    house = Street(site(wallbox("E1", 1))).begin()
    house.tick(20)
    for _ in range(20):
        house.phases["E1"] = 3
        house.happen(PhasesConfirmed("E1", 3, house.snapshot.revision))
        house.tick(60)
    moments = [at for at, _, _ in house.commands]
    assert len(moments) == 5
    assert all(later - earlier >= 300 for earlier, later in itertools.pairwise(moments))
