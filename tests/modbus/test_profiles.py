"""Every shipped profile against the facts: the right registers, and the numbers a plausible house puts into them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import cast, get_args

import pytest

from bridge.core.events import Reading
from bridge.modbus import codec
from bridge.modbus.cells import Cell, cells
from bridge.modbus.device import mismatches
from bridge.modbus.link import Link
from bridge.modbus.load import SHIPPED, load
from bridge.modbus.profile import Profile, TextType, Write
from bridge.modbus.readings import published
from bridge.modbus.registers import Registers
from tests.modbus.facts import HOUSE, Fact, facts, fits, words
from tests.modbus.images import Image, ImageLink, expected, image, sunspec


@cache
def profile(name: str) -> Profile:
    return load(name)


PROFILES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
WALLBOXES = [name for name in PROFILES if profile(name).kind == "wallbox"]

CHAINS: Mapping[str, Sequence[tuple[int, ...]]] = {
    "cfos-cm-sunspec": [(1, 213, 213)],
    "fronius": [(1, 103, 124), (1, 113, 124)],
    "ksem-sunspec": [(1, 203), (1, 213)],
    "solaredge": [(1, 103, 1, 203)],
    "sunspec-battery": [(1, 802)],
    "sunspec-inverter": [(1, 103), (1, 113)],
    "sunspec-meter": [(1, 203), (1, 213)],
}
"""The SunSpec models of those that describe themselves, one chain a device."""

CASES = [(name, chain) for name in PROFILES for chain in CHAINS.get(name, [()])]

ESSENTIAL = (
    *("power_w", "current_l1_a", "current_l2_a", "current_l3_a", "energy_wh", "session_wh", "import_wh", "export_wh"),
    *("state", "soc_pct", "battery_power_w", "grid_power_w", "pv_power_w"),
)
"""What a profile has to deliver when its device can."""

MISSING_ON_PURPOSE = {
    ("bender-cc", "soc_pct"),  # asking for it makes some boxes close the connection
    ("delta-acmax", "session_wh"),  # sources disagree about its type
    ("goodwe-et", "power_w"),  # of a hybrid the parts are meant, see its roles
    ("sigenergy", "import_wh"),  # another unit id answers in some firmwares
}

STATES: Mapping[str, Mapping[str, Mapping[str, float | str]]] = {
    "abl-em4": {"A": {"status": 0x01A1}, "B": {"status": 0x00B2}, "C": {"status": 0x11C2}, "E": {"status": 0xF1}},
    "abl-emh1": {"A": {"status": 0xA1}, "B": {"status": 0xE0}, "C": {"status": 0xC2}, "E": {"status": 0xF1}},
    "compleo-solo": {"A": {"status": 0xFF00}, "B": {"status": 1}, "C": {"status": 3}},
    "keba-p30": {
        "A": {"state": 1, "cable_state": 3},
        "B": {"state": 2, "cable_state": 5},
        "C": {"state": 3, "cable_state": 7},
        "E": {"state": 4, "cable_state": 7},
    },
    "openwb-series2": {
        "A": {"plugged": 0, "charging": 0},
        "B": {"plugged": 1, "charging": 0},
        "C": {"plugged": 1, "charging": 1},
    },
    "peblar": {letter: {"status": ord(letter)} for letter in "ABCEF"},
    "vestel-evc04": {
        "A": {"cable_state": 1, "charging": 0},
        "B": {"cable_state": 2, "charging": 0},
        "C": {"cable_state": 3, "charging": 1},
    },
}
"""Registers by state, where it takes bits or two registers to know it."""


def read(name: str, registers: Image, role: str = "") -> tuple[Registers, Mapping[str, Reading]]:
    """What the product makes of an image, as it does when it meets a device."""

    async def sweep() -> Registers:
        device = profile(name)
        link = cast(Link, ImageLink(registers))
        found = Registers(name, device, device.connection.unit, link)
        await found.prepare()
        for poll in ("once", "fast", "slow", "fast"):
            await found.sweep(poll)
        return found

    found = asyncio.run(sweep())
    return found, published(profile(name), found.known, role)


def at(name: str) -> Mapping[tuple[int, int], Fact]:
    """The facts of a device by function and address."""
    known = [fact for fact in facts(name) if fact.address.isdigit()]
    writable = {(fact.writes, int(fact.address)): fact for fact in known if fact.writes}
    return writable | {(function, int(fact.address)): fact for fact in known for function in fact.reads}


def writes(device: Profile) -> Iterator[Write]:
    """Every write the profile speaks of, the setpoint's own excepted."""
    yield from device.init
    if device.setpoint:
        yield from (*device.setpoint.pause, *device.setpoint.resume)
    if device.phases:
        yield from (*device.phases.one, *device.phases.three)
    for rule in (device.failsafe, device.keepalive):
        yield from rule.writes if rule else ()


@pytest.mark.parametrize("name", PROFILES)
def test_every_point_is_a_register_that_the_sources_know(name: str) -> None:
    known, device = at(name), profile(name)
    written = {write.point for write in writes(device)} | set(device.setpoint.points if device.setpoint else ())
    for cell in cells(device, device.connection.unit).values():
        fact = known.get((cell.read or cell.write, cell.address))
        assert fact is None or cell.unit == int(fact.unit_id), f"{cell.name} is asked of the wrong unit"
        assert cell.read is None or (cell.read, cell.address) in known, f"{cell.name} is read from nowhere"
        assert cell.name not in written or (cell.write, cell.address) in known, f"{cell.name} is written to nowhere"


@pytest.mark.parametrize("name", [name for name in PROFILES if facts(name)])
def test_port_and_unit_are_those_of_the_sources(name: str) -> None:
    fact, connection = facts(name)[0], profile(name).connection
    assert (connection.port, connection.unit) == (int(fact.port), int(fact.unit_id))


@pytest.mark.parametrize("name", PROFILES)
def test_type_sign_and_word_order_of_every_register(name: str) -> None:
    known = at(name)
    for cell in cells(profile(name), 0).values():
        fact = known.get((cell.read or cell.write, cell.address))
        assert fact
        assert (fact.type in get_args(TextType)) == (cell.type in get_args(TextType)), f"{cell.name}: text or number?"
        if cell.mask or cell.values:
            continue
        for raw in (0, 1, 31_415, 60_000, 1_234_567, 4_000_000_000, -1, -31_415, -1_234_567):
            if fact.type in ("u16", "i16", "u32", "i32", "u64", "i64", "f32") and fits(fact, raw):
                wide = fact.type == "f32"  # keeps about seven digits
                assert codec.decode(_bare(cell), words(fact, raw)) == pytest.approx(raw, rel=1e-6 * wide), (
                    f"{cell.name}: {raw}"
                )


def _bare(cell: Cell) -> Cell:
    """The cell with nothing that hides what its registers hold."""
    return Cell(cell.name, cell.unit, cell.address, cell.width, cell.type, word_order=cell.word_order)


@pytest.mark.parametrize(("name", "chain"), CASES)
def test_the_image_reads_as_the_house_is(name: str, chain: tuple[int, ...]) -> None:
    registers, said = _image(name, chain)
    found, values = read(name, registers)
    assert not list(mismatches(profile(name), found))
    for quantity, value in values.items():
        _check(name, quantity, value, said)
    delivered = values.keys() | {quantity.replace("_", "_l1_", 1) for quantity in values}  # a single line is the first
    assert not {q for q in ESSENTIAL if q in said and q not in delivered and (name, q) not in MISSING_ON_PURPOSE}


def _image(name: str, chain: tuple[int, ...]) -> tuple[Image, Mapping[str, Sequence[float | str]]]:
    models, said = sunspec(*chain, behind_inverter=name == "solaredge") if chain else ({}, {})
    return {**image(name), **models}, {**expected(name), **said}


def _check(name: str, quantity: str, value: Reading, said: Mapping[str, Sequence[float | str]]) -> None:
    assert quantity in said or quantity in HOUSE, f"{quantity}: nobody says what it should be"
    derived = quantity in profile(name).derived or quantity not in said
    allowed = [*said.get(quantity, ()), *([HOUSE[quantity]] if derived and quantity in HOUSE else ())]
    if isinstance(value, str):
        assert value in allowed, quantity
    else:
        near = 0.01 if derived else 1e-6
        assert any(isinstance(a, float) and math.isclose(value, a, rel_tol=near) for a in allowed), (
            f"{quantity} is {value} instead of {allowed}"
        )


ROLES = {
    "grid": {
        **{
            f"{kind}_{line}_{u}": f"grid_{kind}_{line}_{u}"
            for kind, u in (("power", "w"), ("current", "a"))
            for line in ("l1", "l2", "l3")
        },
        **{f"voltage_{line}_v": f"grid_voltage_{line}_v" for line in ("l1", "l2", "l3")},
        "power_w": "grid_power_w",
    },
    "battery": {"power_w": "battery_power_w", "import_wh": "energy_charged_wh", "export_wh": "energy_discharged_wh"},
    "consumption": {"power_w": "load_power_w"},
}


@pytest.mark.parametrize("name", [name for name in PROFILES if profile(name).roles])
def test_in_a_role_a_device_shows_that_part_of_the_house(name: str) -> None:
    registers, _ = _image(name, CHAINS.get(name, [()])[0])
    for role, quantities in profile(name).roles.items():
        _, values = read(name, dict(registers), role)
        assert {q for q, value in values.items() if isinstance(value, float)} <= quantities.keys()
        for quantity in quantities:
            if part := ROLES.get(role, {}).get(quantity):
                assert values[quantity] == pytest.approx(HOUSE[part], rel=0.01), f"{role}: {quantity}"
    if "production" in profile(name).roles:
        _, values = read(name, dict(registers), "production")
        power = values["power_w"]
        assert isinstance(power, float)
        assert power > 0


@pytest.mark.parametrize("name", WALLBOXES)
def test_every_state_the_device_knows_is_told(name: str) -> None:
    special = STATES.get(name.replace("p40", "p30"))
    if special:
        told = [(letter, raw) for letter, raw in special.items()]
    else:
        labels = next(fact.labels for fact in facts(name) if fact.quantity == "status")
        told = [(label, {"status": raw}) for raw, label in labels.items() if label in tuple("ABCDEF")]
    assert {"A", "B", "C"} <= {letter for letter, _ in told}
    for letter, raw in told:
        _, values = read(name, image(name, **raw))
        assert values["state"] == letter, raw
