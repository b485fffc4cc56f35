"""What the profiles of wallboxes write, against the facts: setpoint, pause, fail-safe and sign of life.

The tables say which registers the vendors and the drivers named in the profiles use, in the words of the facts. What
is written is what the product really writes to the image of a device.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import pytest

from bridge.core.config import WallboxConfig
from bridge.core.events import Confirmed, Event
from bridge.core.sharing import floor_to_step
from bridge.modbus import codec
from bridge.modbus.duty import Duty, Offered
from bridge.modbus.link import Link
from bridge.modbus.profile import Profile, capability
from bridge.modbus.readings import amount
from bridge.modbus.registers import Registers
from tests.modbus.facts import Fact, facts, scale, words
from tests.modbus.images import Image, ImageLink, image
from tests.modbus.test_profiles import WALLBOXES, profile, read

Raw = Mapping[str, float]
"""Quantity to raw value."""

CONTROLLED = [name for name in WALLBOXES if profile(name).setpoint]
LINE_COUNT = 3

SETPOINT: Mapping[str, tuple[str, ...]] = {
    "alpitronic-hyc": ("power_limit",),
    "compleo-solo": ("power_limit",),
    "delta-acmax": ("power_limit",),
    "goodwe-hca": ("power_limit",),
    "innogy-ebox": ("current_limit_l1", "current_limit_l2", "current_limit_l3"),
}
"""Where the setpoint goes; all others: ``current_limit``."""

ENABLE: tuple[Raw, Raw] = ({"enable": 0}, {"enable": 1})
PAUSE: Mapping[str, tuple[Raw, Raw]] = {
    **dict.fromkeys(("cfos-power-brain", "keba-p30", "mennekes-compact", "phoenix-ev-eth", "wallbe"), ENABLE),
    **dict.fromkeys(("phoenix-em-eth", "phoenix-ev-ser", "tinkerforge-warp", "victron-evcs"), ENABLE),
    **dict.fromkeys(("inro-pantabox", "free2move-eprowallbox", "obo-ion"), ENABLE),
    **dict.fromkeys(("sungrow-ac011e", "sigenergy-evac"), ({"enable": 1}, {"enable": 0})),
    "abl-emh1": ({"current_limit": 1000}, {}),
    "daheimladen-em2go": ({"command": 2}, {"command": 1}),
    "foxess-evc": ({"command": 2}, {"command": 1}),
    "goe": ({"force_state": 1}, {"force_state": 2}),
    "goodwe-hca": ({"command": 1}, {"command": 2}),
    "hesotec-esat": ({"pause": 1}, {"pause": 0}),
    "phoenix-charx": ({"current_limit": 0, "enable": 0}, {"enable": 1}),
    "siemens-versicharge": ({"current_limit": 0, "pause": 1}, {"pause": 2}),
    "solax-evc": ({"command": 3}, {"command": 4}),
    "wallbox-quasar": ({"command": 2}, {"command": 1}),
}
"""(what pauses, what lets it go on); all others: a setpoint of 0 pauses, any other lets it go on."""

ONCE: Mapping[str, Raw] = {
    "goodwe-hca": {"charge_mode": 0},
    "heidelberg-ec": {"standby_control": 4},
    "innogy-ebox": {"failsafe_current_l1": 6, "failsafe_current_l2": 6, "failsafe_current_l3": 6},
    "kathrein-kwb": {"ems_control": 0x8000},
    "sungrow-ac011e": {"availability": 1},
    "victron-evcs": {"mode": 0},
    "wallbox-quasar": {"remote_control": 1, "setpoint_type": 0},
}
"""What has to be written once after connecting."""

SIX_AMPERES: Mapping[str, Raw] = {
    "delta-acmax": {"failsafe_power": 6 * 230, "failsafe_enable": 1},
    "free2move-eprowallbox": {"failsafe_current": 6000, "failsafe_enable": 1},
    "schneider-evlink": {"failsafe_current_1p": 6, "failsafe_current_3p": 6},
}
"""What makes the box fall back to 6 A, beyond ``failsafe_current``."""

SET_AT_THE_BOX = ("alfen-eve",)
"""Boxes with a watchdog that only their installer can set."""

ALIVE: Mapping[str, Raw] = {
    "free2move-eprowallbox": {"heartbeat": 1},
    "keba-p30": {"failsafe_timeout": 30},
    "keba-p40": {"failsafe_timeout": 30},
    "mennekes-compact": {"heartbeat": 0x55AA},
    "schneider-evlink": {"heartbeat": 1},
    "vestel-evc04": {"heartbeat": 1},
    "weidmueller-acsmart": {"failsafe_timeout": 30_000},
}
"""The sign of life of boxes that want one written; all others are content with requests or the setpoint."""


def named(name: str, quantity: str) -> Fact:
    return next(fact for fact in facts(name) if fact.quantity == quantity and fact.writes)


Written = tuple[int | None, int, tuple[int, ...]]
"""(function, address, words)."""


def write_of(name: str, quantity: str, raw: float) -> Written:
    fact = named(name, quantity)
    assert fact.writes
    # A value of several registers is never written in pieces.
    return 16 if fact.writes == 6 and int(fact.count) > 1 else fact.writes, int(fact.address), tuple(words(fact, raw))


def wanted(name: str, amperes: float) -> set[Written]:
    """The writes that make the box hold this current, 0 meaning a pause."""
    pause, resume = PAUSE.get(name, (dict.fromkeys(SETPOINT.get(name, ("current_limit",)), 0), {}))
    if not amperes:
        return {write_of(name, quantity, raw) for quantity, raw in pause.items()}
    found = {write_of(name, quantity, raw) for quantity, raw in resume.items()}
    for quantity in SETPOINT.get(name, ("current_limit",)):
        fact = named(name, quantity)
        value = amperes * 230 * LINE_COUNT if quantity == "power_limit" else amperes
        raw = value / scale(fact, {})
        found.add(write_of(name, quantity, raw if fact.type[0] == "f" else math.floor(raw + 1e-6)))
    return found


def met(name: str, registers: Image, then: Callable[[Registers], Awaitable[object]]) -> list[Written]:
    """What the product writes when it has met a box with these registers and does something ``then``."""

    async def meet() -> list[Written]:
        link, device = ImageLink(registers), profile(name)
        found = Registers(name, device, device.connection.unit, cast(Link, link))
        await found.prepare()
        for poll in ("once", "fast", "slow"):
            await found.sweep(poll)
        await then(found)
        return [(request.function, request.address, request.words) for request in link.writes]

    return asyncio.run(meet())


async def hold(registers: Registers, device: Profile, amperes: float) -> float:
    """Make the box hold a current as the bridge does; returns what the bridge believes it holds then."""
    confirmed: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def post(event: Event) -> None:
        if isinstance(event, Confirmed) and event.revision == 1 and not confirmed.done():
            confirmed.set_result(event.current_a)

    duty = Duty("E1", device, registers, LINE_COUNT, post, lambda: None)
    duty.offered = lambda: Offered(amperes, 1)
    await duty.up(first=False)
    try:
        return await asyncio.wait_for(confirmed, 2)
    finally:
        duty.down()


@pytest.mark.parametrize("current", ["least", "most", "none"])
@pytest.mark.parametrize("name", CONTROLLED)
def test_the_setpoint_goes_where_the_sources_say(name: str, current: str) -> None:
    rule = profile(name).setpoint
    assert rule
    amperes = {"least": rule.min_a, "most": rule.max_a, "none": 0.0}[current]
    held: list[float] = []

    async def then(registers: Registers) -> None:
        held.append(await hold(registers, profile(name), amperes))

    assert set(met(name, image(name), then)) == wanted(name, amperes)
    assert held == [pytest.approx(amperes, abs=0.15)]


@pytest.mark.parametrize("name", CONTROLLED)
def test_the_setpoint_stays_within_what_the_register_takes(name: str) -> None:
    rule = profile(name).setpoint
    assert rule
    for quantity in SETPOINT.get(name, ("current_limit",)):
        fact = named(name, quantity)
        allowed = re.search(r"(?:^|\|)(-?\d+)\.\.(\d+)(?![\d.=])", fact.values)
        if allowed:
            low, high = map(int, allowed.groups())
            per_ampere = (230 * LINE_COUNT if quantity == "power_limit" else 1) / scale(fact, {})
            for amperes in (rule.min_a, rule.max_a):
                assert low <= math.floor(amperes * per_ampere + 1e-6) <= high


@pytest.mark.parametrize("lines", [1, 2, 3])
@pytest.mark.parametrize("name", CONTROLLED)
def test_what_is_written_is_never_more_than_wanted_and_less_than_a_step_below(name: str, lines: int) -> None:
    """For every tenth of an ampere, and for what the box will be believed to hold."""
    device = profile(name)
    rule, able = device.setpoint, capability(device)
    assert rule
    assert able
    point = rule.points[0]
    written: dict[float, float] = {}

    async def then(registers: Registers) -> None:
        duty = Duty("E1", device, registers, lines, lambda event: None, lambda: None)
        for tenths in range(math.ceil(rule.min_a * 10), math.floor(rule.max_a * 10) + 1):
            step = next(step for step in duty._steps(tenths / 10) if step.point == point)
            value = codec.decode(registers.cells[point], step.words)
            assert isinstance(value, float)
            written[tenths / 10] = value * amount(registers.cells[point].scale, registers.known)
            assert written[tenths / 10] == pytest.approx(duty._target(tenths / 10) * duty._per_ampere, rel=1e-6)

    met(name, image(name), then)
    per_ampere = 230 * lines if rule.unit == "W" else 1
    step = able.step_a * (230 * 3 if rule.unit == "W" else 1)
    for amperes, value in written.items():
        wanted = amperes * per_ampere
        assert wanted - step < value + 1e-6 * step
        assert value <= wanted * (1 + 1e-6)


@pytest.mark.parametrize("lines", [1, 2, 3])
@pytest.mark.parametrize("name", CONTROLLED)
def test_what_the_core_says_in_its_steps_is_what_the_box_is_believed_to_hold(name: str, lines: int) -> None:
    """Else the core would say it again each time, and no receipt would ever be confirmed."""
    device = profile(name)
    able = capability(device, lines)
    assert able
    step_a = WallboxConfig(id="E1", profile=name, phases=lines).able(able).capability.step_a

    async def then(registers: Registers) -> None:
        duty = Duty("E1", device, registers, lines, lambda event: None, lambda: None)
        for count in range(math.ceil(able.min_a / step_a), math.floor(able.max_a / step_a) + 1):
            said = floor_to_step(count * step_a, step_a)
            assert duty._target(said) == said

    met(name, image(name), then)


SWITCHED = [("phoenix-ev-eth", 0.1), ("wallbe", 0.1), ("evse-din", 0.01)]


@pytest.mark.parametrize(("name", "step"), SWITCHED)
def test_boxes_that_count_finer_are_told_finer(name: str, step: float) -> None:
    registers = image(name, current_limit=160, config=0x0080)
    (write,) = {w for w in met(name, registers, lambda r: hold(r, profile(name), 10)) if w[0] != 5}
    assert write[2] == (round(10 / step),)


def test_old_firmware_of_the_keba_p40_counts_whole_watt_hours() -> None:
    for firmware, step in ((10200, 1.0), (10201, 0.1)):
        _, values = read("keba-p40", image("keba-p40", firmware=firmware, energy_total=5000))
        assert values["energy_wh"] == pytest.approx(5000 * step)


# ----------------------------------------------------------------------------------------- fail-safe, sign of life


def armed(name: str) -> set[Written]:
    """The writes after connecting: what is needed once, and the box's own watchdog."""
    raw = dict(ONCE.get(name, {}))
    if failsafe := profile(name).failsafe:
        raw |= SIX_AMPERES.get(name, {})
        for quantity, value in (
            ("failsafe_current", 6.0),
            ("failsafe_timeout", failsafe.timeout_s),
            ("watchdog_ms", failsafe.timeout_s),
        ):
            if any(fact.quantity == quantity and fact.writes for fact in facts(name)):
                raw |= {quantity: round(value / scale(named(name, quantity), {}))}
        assert failsafe.writes or name in SET_AT_THE_BOX
    return {write_of(name, quantity, value) for quantity, value in raw.items()}


@pytest.mark.parametrize("name", CONTROLLED)
def test_the_box_is_armed_once_and_its_flash_is_spared(name: str) -> None:
    device, registers = profile(name), image(name)
    arming = (*device.init, *(device.failsafe.writes if device.failsafe else ()))
    writes = met(name, registers, lambda r: r.settle(arming))
    assert set(writes) == armed(name)
    assert len(writes) == len(set(writes))
    readable = {(fact.writes, int(fact.address)) for fact in facts(name) if fact.reads and fact.address.isdigit()}
    again = met(name, registers, lambda r: r.settle(arming))
    assert not {(function, address) for function, address, _ in again} & readable


@pytest.mark.parametrize("name", [name for name in CONTROLLED if profile(name).keepalive])
def test_the_sign_of_life_is_the_one_the_box_wants(name: str) -> None:
    rule = profile(name).keepalive
    assert rule
    alive = {write_of(name, quantity, raw) for quantity, raw in ALIVE.get(name, {}).items()}
    assert set(met(name, image(name), lambda r: r.settle(rule.writes, spare=False))) == alive
    assert rule.read is None or profile(name).points[rule.read].read != "never"


def test_schneider_is_left_alone_when_its_life_bit_is_off() -> None:
    rule = profile("schneider-evlink").keepalive
    assert rule
    assert not met("schneider-evlink", image("schneider-evlink", heartbeat=2), lambda r: r.settle(rule.writes, False))


@pytest.mark.parametrize("name", [name for name in CONTROLLED if profile(name).failsafe])
def test_a_dead_bridge_leaves_little_current_and_a_living_one_is_heard_in_time(name: str) -> None:
    device = profile(name)
    assert device.failsafe
    assert device.setpoint
    assert device.failsafe.current_a <= 6
    often = device.keepalive.every_s if device.keepalive else device.setpoint.max_age_s
    assert isinstance(often, float)
    assert often <= device.failsafe.timeout_s / 3


@pytest.mark.parametrize("name", CONTROLLED)
def test_a_watchdog_that_the_sources_know_is_used(name: str) -> None:
    known = {fact.quantity for fact in facts(name)} & {"failsafe_current", "failsafe_current_l1", "failsafe_current_1p"}
    device = profile(name)
    assert not known or device.failsafe or device.init
