"""Switching between one and three phases: what the profiles write, against the facts, and the duty against a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from bridge.core.config import Switching
from bridge.core.events import Event, PhasesConfirmed
from bridge.errors import ConfigError
from bridge.modbus import inspect
from bridge.modbus.load import SHIPPED, parse
from bridge.modbus.phases import PhaseDuty, Wanted
from bridge.modbus.profile import capability
from bridge.modbus.registers import Registers
from tests.modbus.facts import facts
from tests.modbus.house import BOX, House, box
from tests.modbus.images import Image, image
from tests.modbus.rogue import Asked, Rogue
from tests.modbus.test_profiles import WALLBOXES, profile
from tests.modbus.test_wallbox_profiles import Written, met, write_of

SWITCHING = [name for name in WALLBOXES if profile(name).phases]

FIRST: Mapping[str, Mapping[str, float]] = {
    "keba-p30": {"phase_source_set": 3},
    "keba-p40": {"phase_source_set": 3},
}
"""What has to be written before the number of phases."""
THEN: Mapping[str, Mapping[str, float]] = {"openwb-series2": {"phases_trigger": 1}}
"""And after it."""
ALLOWED: Mapping[str, Mapping[str, float]] = {
    "cfos-power-brain": {"capabilities": 0x100},
    "peblar": {"indep_relay": 1},
    "keba-p30": {"phase_source": 0},
    "keba-p40": {"phase_source": 0},
}
"""Registers by which a box says that it may be switched, or by whom."""
SAYS = {1: ("1",), 3: ("3", "all")}


def raw(name: str, quantity: str, phases: int) -> float:
    """The raw value that the sources know for a number of phases."""
    fact = next(fact for fact in facts(name) if fact.quantity == quantity)
    return next(float(code) for code, label in fact.labels.items() if label in SAYS[phases])


def commands(name: str, phases: int) -> list[Written]:
    told = "phases_target" if name == "openwb-series2" else "phases_set"
    values = {**FIRST.get(name, {}), told: raw(name, told, phases), **THEN.get(name, {})}
    return [write_of(name, quantity, value) for quantity, value in values.items()]


def idle(name: str) -> Image:
    """A box without a current: its registers, and leave to switch."""
    zero = {fact.quantity: 0.0 for fact in facts(name) if fact.quantity.startswith(("current_l", "power"))}
    return image(name, **zero, **ALLOWED.get(name, {}))


@pytest.mark.parametrize("phases", [1, 3])
@pytest.mark.parametrize("name", SWITCHING)
def test_the_command_is_the_one_the_sources_know(name: str, phases: int) -> None:
    told: list[Event] = []

    async def switch(registers: Registers) -> None:
        rule = profile(name).phases
        assert rule
        duty = PhaseDuty("E1", replace(rule, settle_s=0.0, read_back=None), registers, told.append)
        duty.wanted = lambda: Wanted(phases, 0.0, 7)
        await duty.polled()
        await duty.polled()

    assert met(name, idle(name), switch) == commands(name, phases)
    assert told == [PhasesConfirmed("E1", phases, 7)]


@pytest.mark.parametrize("phases", [1, 3])
@pytest.mark.parametrize("name", [name for name in SWITCHING if name != "openwb-series2"])
def test_the_read_back_says_what_the_sources_say(name: str, phases: int) -> None:
    quantity = "phases_actual" if name.startswith("keba") else "phases_set"
    rule = profile(name).phases
    assert rule
    registers = {**idle(name), **image(name, **{quantity: raw(name, quantity, phases)})}
    told: list[Event] = []

    async def meet(found: Registers) -> None:
        await PhaseDuty("E1", rule, found, told.append).met()

    met(name, registers, meet)
    assert told == [PhasesConfirmed("E1", phases, -1)]


def test_these_can_be_switched() -> None:
    assert len(SWITCHING) == 14
    able = capability(profile("cfos-power-brain"))
    assert able
    assert able.switch == Switching(120.0, 300.0)
    assert (capability(profile("heidelberg-ec")) or able).switch is None
    report = "\n".join(inspect.report(SHIPPED / "keba-p30.yaml"))
    assert "phases: switched to 1 or 3 by set_phase_source, set_phases, shown by phases, 60 s to settle" in report


def test_a_box_that_does_not_allow_it_is_left_alone() -> None:
    async def switch(registers: Registers) -> None:
        rule = profile("cfos-power-brain").phases
        assert rule
        duty = PhaseDuty("E1", replace(rule, settle_s=0.0), registers, lambda event: None)
        duty.wanted = lambda: Wanted(1, 0.0, 7)
        await duty.polled()
        await duty.polled()

    assert met("cfos-power-brain", {**idle("cfos-power-brain"), (3, 8113): 0}, switch) == []


# ------------------------------------------------------------------------------------------------ against a server

SWITCHED = BOX.replace(
    "set_current: {address: 200, scale: 0.1}",
    """set_current: {address: 200, scale: 0.1}
  current_l1_a: {address: 103}
  phases: {address: 202, values: {0: 3, 1: 1}}
  set_phases: {address: 202, read: never}""",
)
SWITCHED += """
phases:
  one: [{point: set_phases, value: 1}]
  three: [{point: set_phases, value: 0}]
  read_back: phases
  settle_s: 0.1
"""
BLIND = SWITCHED.replace("  read_back: phases\n", "")


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    """A box on three phases whose car draws 16 A as long as it may, and stops when it is told."""
    server = Rogue()
    server.registers[1].update({100: 3, 103: 16, 200: 160, 202: 0})

    def drives(asked: Asked, frame: bytes) -> bytes:
        if asked.words and asked.address == 200:
            server.registers[1].update({100: 3 if asked.words[0] else 2, 103: asked.words[0] // 10})
        return frame

    server.manners = drives
    yield server
    server.close()


def written(rogue: Rogue) -> list[tuple[int, int]]:
    return [(asked.address, asked.words[0]) for asked in rogue.writes()]


@pytest.mark.parametrize("text", [SWITCHED, BLIND], ids=["read back", "acknowledged"])
def test_pause_switch_resume(rogue: Rogue, text: str) -> None:
    with House([(box("E1", rogue.address), text)]) as house:
        assert house.met("E1")
        assert house.switched("E1")[0] == (3 if text is SWITCHED else None, -1)
        house.offer(E1=0.0)
        assert house.holds("E1", 0.0)
        revision = house.offer(E1=0.0, phases=1)
        assert house.until(lambda: (1, revision) in house.switched("E1"))
        house.offer(E1=16.0, phases=1)
        assert house.holds("E1", 16.0)
        assert written(rogue) == [(200, 0), (202, 1), (200, 160)]


def test_what_flows_is_never_switched(rogue: Rogue) -> None:
    """Whoever decided was wrong: the car goes on drawing although it is paused."""
    rogue.manners = lambda asked, frame: frame
    with House([(box("E1", rogue.address), SWITCHED)]) as house:
        assert house.met("E1")
        house.offer(E1=0.0, phases=1)
        assert house.holds("E1", 0.0)
        seen = len(house.reads("E1"))
        assert house.until(lambda: len(house.reads("E1")) > seen + 5)
        assert (202, 1) not in written(rogue)
        rogue.registers[1][103] = 0
        assert house.until(lambda: house.switched("E1")[-1] == (1, 1))


def test_what_is_offered_a_current_is_never_switched(rogue: Rogue) -> None:
    rogue.registers[1].update({100: 2, 103: 0})
    rogue.manners = lambda asked, frame: frame
    with House([(box("E1", rogue.address), SWITCHED)]) as house:
        assert house.met("E1")
        house.offer(E1=10.0, phases=1)
        assert house.holds("E1", 10.0)
        seen = len(house.reads("E1"))
        assert house.until(lambda: len(house.reads("E1")) > seen + 5)
        assert (202, 1) not in written(rogue)


def test_a_box_that_does_not_follow_is_told_once_and_tells_what_it_is(rogue: Rogue) -> None:
    rogue.registers[1].update({100: 2, 103: 0})

    def stays(asked: Asked, frame: bytes) -> bytes:
        rogue.registers[1][202] = 0
        return frame

    rogue.manners = stays
    with House([(box("E1", rogue.address), SWITCHED)]) as house:
        assert house.met("E1")
        revision = house.offer(E1=0.0, phases=1)
        assert house.until(lambda: (3, revision) in house.switched("E1"))
        seen = len(house.reads("E1"))
        assert house.until(lambda: len(house.reads("E1")) > seen + 8)
        assert written(rogue).count((202, 1)) == 1


def test_a_refused_command_is_no_switch(rogue: Rogue) -> None:
    rogue.registers[1].update({100: 2, 103: 0})
    with House([(box("E1", rogue.address), BLIND)]) as house:
        assert house.met("E1")
        rogue.missing = {202}
        revision = house.offer(E1=0.0, phases=1)
        assert house.until(lambda: (None, revision) in house.switched("E1"))


def test_after_a_reboot_the_phases_are_told_anew_and_switched_again(rogue: Rogue) -> None:
    with House([(box("E1", rogue.address), SWITCHED)]) as house:
        assert house.met("E1")
        house.offer(E1=0.0, phases=1)
        assert house.until(lambda: house.switched("E1")[-1] == (1, 1))
        rogue.registers[1][202] = 0
        rogue.hang_up()
        assert house.until(lambda: [phases for phases, _ in house.switched("E1")] == [3, 1, 3, 1])
        assert written(rogue).count((202, 1)) == 2


def test_while_it_settles_nobody_believes_that_the_car_is_gone(rogue: Rogue) -> None:
    text = SWITCHED.replace("settle_s: 0.1", "settle_s: 0.4")

    def lets_go(asked: Asked, frame: bytes) -> bytes:
        if asked.words and asked.address == 202:
            rogue.registers[1][100] = 1
        return frame

    rogue.registers[1].update({100: 2, 103: 0})
    rogue.manners = lets_go
    with House([(box("E1", rogue.address), text)]) as house:
        assert house.met("E1")
        house.offer(E1=0.0, phases=1)
        assert house.until(lambda: (202, 1) in written(rogue))
        seen = len(house.reads("E1"))
        assert house.until(lambda: len(house.reads("E1")) > seen + 5)
        rogue.registers[1][100] = 2
        assert house.until(lambda: house.switched("E1")[-1] == (1, 1))
        assert house.until(lambda: "state" in house.reads("E1")[-1].values)
        assert {read.values.get("state", "B") for read in house.reads("E1")} == {"B"}


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        (
            "point: set_phases, value: 1",
            "point: set_fases, value: 1",
            "phases.one[0].point: there is no",
        ),
        ("read_back: phases", "read_back: fases", "phases.read_back: there is no point fases (did you mean phases?)"),
        ("one: [{point: set_phases, value: 1}]", "one: []", "at least one write"),
        ("points: [set_current]", "points: [set_current], unit: W, step_a: 1", "phases: goes with a setpoint in A"),
    ],
)
def test_mistakes_are_told(was: str, now: str, said: str) -> None:
    assert was in SWITCHED
    with pytest.raises(ConfigError) as wrong:
        parse(SWITCHED.replace(was, now), "box.yaml")
    assert said in "\n".join(wrong.value.mistakes)
