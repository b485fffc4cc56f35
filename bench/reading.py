"""What it takes to read each shipped profile once, what the read planner saves, and a thousand devices every second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from bench import scale
from bench.devices import Devices, Unit
from bench.table import Row, percentile
from bridge.modbus.address import Where
from bridge.modbus.load import available, read
from bridge.modbus.probe import visiting
from bridge.modbus.profile import Connection, Profile
from bridge.modbus.registers import Registers

PART = "Profiles"
THOUSAND = 1000
QUESTION, ANSWER, WORD = 12, 9, 2
"""Bytes of a request to read, of its answer without values, and of each register."""


class Reading(NamedTuple):
    """Everything a profile names, read once."""

    profile: str
    requests: int
    size: int
    took_s: float


def run(rounds: int, settle_s: float, watch_s: float) -> Iterator[Row]:
    """All rows of this part."""
    profiles = [profile for path in available().values() if _plain(profile := read(path))]
    with Devices([{unit: Unit() for unit in range(256)}]) as served:
        where = Where("127.0.0.1", served.ports[0], "tcp")
        planned, single = (asyncio.run(_read_all(where, profiles, rounds, alone)) for alone in (False, True))
    number = len(profiles)
    for what, of in (("requests", lambda one: one.requests), ("bytes", lambda one: one.size)):
        ours, others = (sum(map(of, way)) / number for way in (planned, single))
        note = f"{others:.1f} value by value; mean of {number} profiles"
        yield Row(PART, f"{what} to read a device once", ours, "", note=note)
    times = [[one.took_s * 1000 for one in way] for way in (planned, single)]
    note = f"{percentile(times[1], 0.5):.2f} ms value by value; loopback, without the pauses devices want"
    yield Row(PART, "time to read a device once, p50", percentile(times[0], 0.5), "ms", note=note)
    slowest = max(planned, key=lambda one: one.took_s)
    yield Row(PART, "the slowest", slowest.took_s * 1000, "ms", note=f"{slowest.profile}, {slowest.requests} requests")
    size = scale.size(THOUSAND, settle_s, watch_s)
    name = f"{THOUSAND} devices every second: "
    yield Row(PART, name + "CPU, of one core", size.cpu_percent, "%", 100.0)
    yield Row(PART, name + "memory", size.resident_mib, "MiB")
    note = f"{size.polls_per_s:.1f} polls a second, the latest {scale.late(size.worst_s):.1f} % late"
    yield Row(PART, name + "lateness p99", scale.late(size.p99_s), "%", 10.0, note=note)


def _plain(profile: Profile) -> bool:
    """Whether a device that answers any register with 0 will do."""
    at = profile.points.values()
    coils = any((point.read or profile.defaults.read) in (1, 2) for point in at)
    return profile.connection.framing == "tcp" and not coils and not any(point.sunspec for point in at)


async def _read_all(where: Where, profiles: list[Profile], rounds: int, alone: bool) -> list[Reading]:
    found = []
    async with visiting(where, Connection()) as link:
        for profile in profiles:
            if alone:
                manners = replace(profile.connection, max_block=1, allow_gaps=False)
                profile = replace(profile, connection=manners)
            registers = Registers("bench", profile, profile.connection.unit, link)
            took_s = []
            for _ in range(rounds):
                begun = time.perf_counter()
                await registers.prepare()
                for poll in registers.blocks:
                    await registers.sweep(poll)
                took_s.append(time.perf_counter() - begun)
            blocks = [block for some in registers.blocks.values() for block in some]
            size = sum(QUESTION + ANSWER + WORD * block.width for block in blocks)
            found.append(Reading(profile.id, len(blocks), size, percentile(took_s, 0.5)))
    return found
