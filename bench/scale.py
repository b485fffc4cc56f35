"""Many devices: what each costs in CPU and memory, and whether any is polled late."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from bench.devices import Devices, meter
from bench.stack import Box, Bridge, Broker, wait_for
from bench.table import Row, percentile

PART = "Scale"
SIZES = (10, 100, 500)
POLL_S = 1.0
LINEAR = 1.25
"""Growth counts as linear when the devices of the upper step cost no more than this times those of the lower one."""


class Size(NamedTuple):
    """What a site of ``devices`` costs.

    ``worst_s``: the longest time between two polls of the same device; ``p99_s``: the 99th percentile of all of them.
    """

    devices: int
    cpu_percent: float
    resident_mib: float
    worst_s: float
    p99_s: float
    polls_per_s: float


def run(settle_s: float, watch_s: float) -> Iterator[Row]:
    """All rows of this part."""
    sizes = [size(count, settle_s, watch_s) for count in SIZES]
    for one in sizes:
        name = f"{one.devices} devices: "
        note = f"{one.cpu_percent / one.devices:.3f} % a device"
        goal = 100.0 if one is sizes[-1] else None
        yield Row(PART, name + "CPU, of one core", one.cpu_percent, "%", goal, note=note)
        yield Row(PART, name + "memory", one.resident_mib, "MiB")
        goal = 10.0 if one is sizes[-1] else None
        yield Row(
            PART, name + "latest poll", late(one.worst_s), "% late", goal, note=f"{one.polls_per_s:.1f} polls a second"
        )
    yield _growth("CPU", "%", [one.cpu_percent for one in sizes])
    yield _growth("memory", "KiB", [one.resident_mib * 1024 for one in sizes])


def _growth(what: str, unit: str, costs: Sequence[float]) -> Row:
    """What a device costs in the upper step of sizes, as a multiple of what it costs in the lower one."""
    lower, upper = (
        (dear - cheap) / (more - fewer)
        for (cheap, dear), (fewer, more) in zip(pairwise(costs), pairwise(SIZES), strict=True)
    )
    note = f"{lower:.3g} {unit} for each of devices 11 to 100, {upper:.3g} for 101 to 500"
    return Row(PART, f"growth of {what}", upper / lower if lower > 0 else math.inf, "x", LINEAR, note=note)


def late(between_s: float) -> float:
    """How late the second of two polls came, in percent of the period."""
    return (between_s - POLL_S) / POLL_S * 100


def size(count: int, settle_s: float, watch_s: float) -> Size:
    """Measure a site of so many meters."""
    with (
        Broker() as broker,
        Devices([{1: meter()} for _ in range(count)]) as devices,
        Bridge(broker, meters=[Box(port) for port in devices.ports]) as bridge,
    ):
        bridge.wait_until_healthy()
        wait_for(lambda: all(devices.reads(n) for n in range(count)), "every device was polled")
        time.sleep(settle_s)
        devices.forget()
        begun, before = time.monotonic(), bridge.cost()
        time.sleep(watch_s)
        after, lasted_s = bridge.cost(), time.monotonic() - begun
        polls = [[read.at for read in devices.reads(n)] for n in range(count)]
    # Begin and end count as polls: a device that is not asked any more must not look punctual.
    worst_s = max(b - a for one in polls for a, b in pairwise([begun, *one, begun + lasted_s]))
    p99_s = percentile([b - a for one in polls for a, b in pairwise(one)], 0.99)
    cpu = (after.cpu_s - before.cpu_s) / lasted_s * 100
    return Size(count, cpu, after.resident_mib, worst_s, p99_s, sum(map(len, polls)) / lasted_s)
