"""Many units behind one connection, some of them dead."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest

from bridge.core.events import Link
from tests.modbus.house import BOX, METER, House, box, meter
from tests.modbus.rogue import Asked, Rogue

POLL_S = 0.25
LIMITS = "connection: {timeout_ms: 500}\n"


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    server = Rogue()
    server.registers[1].update({100: 3, 200: 160})
    yield server
    server.close()


def no_such_unit(asked: Asked, frame: bytes) -> bytes:
    if asked.unit not in (4, 7):
        return frame
    return frame[:4] + struct.pack(">HBBB", 3, asked.unit, asked.function | 0x80, 0x0B)


@pytest.mark.parametrize("polite", [False, True], ids=["silent", "exception"])
def test_two_dead_units_of_ten_cost_the_others_little(rogue: Rogue, polite: bool) -> None:
    if polite:
        rogue.manners = no_such_unit
    else:
        rogue.silent = {4, 7}
    devices = [(box("E1", rogue.address, 1, POLL_S), BOX + LIMITS)]
    crowd = [(meter(f"M{unit}", rogue.address, unit, POLL_S), METER + LIMITS) for unit in range(2, 12)]
    alive = [f"M{unit}" for unit in range(2, 12) if unit not in (4, 7)]
    with House([*devices, *crowd]) as house:
        assert house.met("E1")
        assert house.until(lambda: house.of(Link, "M4") and house.of(Link, "M7"))
        before_it = []
        start, seen = len(rogue.asked), {name: len(house.reads(name)) for name in alive}
        for tenths in range(60, 65 if polite else 75):
            before_it.append(rogue.before_write(tenths, partial(house.offer, E1=tenths / 10)))
            polled = len(house.reads("M2"))
            assert house.until(lambda polled=polled: len(house.reads("M2")) > polled)  # type: ignore[misc]
        assert sorted(before_it)[-3] <= 1, "only what is on the wire goes before a setpoint"
        _the_dead_are_asked_seldom_and_shortly(rogue.asked[start:])
        # The living are read about as often as each other, whoever is on the wire beside them.
        counts = [len(house.reads(name)) - seen[name] for name in alive]
        assert min(counts) >= 0.7 * max(counts) - 1
        for name in ("M4", "M7"):
            assert not any(link.online for link in house.of(Link, name))  # type: ignore[attr-defined]


def _the_dead_are_asked_seldom_and_shortly(asked: list[Asked]) -> None:
    """After the first silence, which costs a timeout of 0.5 s, a probe of 0.2 s after 1, 2, 4 … seconds."""
    lasted = asked[-1].at - asked[0].at
    waits = [after.at - dead.at for dead, after in pairwise(asked) if dead.unit in (4, 7)]
    assert len(waits) <= 2 * (1 + math.log2(lasted + 1))
    assert not waits or min(waits) < 0.4


def test_a_dead_unit_is_met_again(rogue: Rogue) -> None:
    rogue.silent = {2}
    devices = [(meter("M1", rogue.address, 1, 0.03), METER + LIMITS), (box("E2", rogue.address, 2, 0.1), BOX + LIMITS)]
    rogue.registers[2].update({100: 3, 200: 160})
    with House(devices) as house:
        assert house.until(lambda: house.of(Link, "E2"))
        house.offer(E2=9.0)
        rogue.silent = set()
        assert house.holds("E2", 9.0)
        assert house.online("E2")


def test_all_units_share_one_connection(rogue: Rogue) -> None:
    devices = [(meter(f"M{unit}", rogue.address, unit, 0.03), METER) for unit in (1, 2, 3)]
    with House(devices) as house:
        assert all(house.online(f"M{unit}") for unit in (1, 2, 3))
        assert house.until(lambda: len(house.reads("M3")) > 3)
        assert rogue.accepted == 1


def test_polls_are_spread_over_the_period(rogue: Rogue) -> None:
    devices = [(meter(f"M{unit}", rogue.address, unit, 0.3), METER) for unit in range(1, 5)]
    with House(devices) as house:
        assert house.until(lambda: all(len(house.reads(f"M{unit}")) >= 9 for unit in range(1, 5)))
        # The first reads are those of meeting the devices.
        phases = sorted(_phase([read.mono % 0.3 for read in house.reads(f"M{unit}")[3:]]) for unit in range(1, 5))
        gaps = [b - a for a, b in zip(phases, [*phases[1:], phases[0] + 0.3], strict=True)]
        assert min(gaps) > 0.05


def _phase(instants: list[float]) -> float:
    """When in the period a device is polled: polls may come late, never early."""
    return min(instants, key=lambda one: sum((other - one) % 0.3 for other in instants))
