"""Many devices: what each costs in CPU and memory, and whether any is polled late."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from bench.devices import Devices, meter
from bench.stack import Box, Bridge, Broker, wait_for
from bench.table import Row

PART = "Scale"
SIZES = (10, 100, 500)
POLL_S = 1.0
LINEAR = 1.25
"""Growth counts as linear when the devices of the upper step cost no more than this times those of the lower one."""


class Size(NamedTuple):
    """What a site of ``devices`` costs. ``worst_s``: the longest time between two polls of the same device."""

    devices: int
    cpu_percent: float
    resident_mib: float
    worst_s: float
    polls_per_s: float


def run(settle_s: float, watch_s: float) -> Iterator[Row]:
    """All rows of this part."""
    sizes = [_size(count, settle_s, watch_s) for count in SIZES]
    for size in sizes:
        name = f"{size.devices} devices: "
        note = f"{size.cpu_percent / size.devices:.3f} % a device"
        goal = 100.0 if size is sizes[-1] else None
        yield Row(PART, name + "CPU, of one core", size.cpu_percent, "%", goal, note=note)
        yield Row(PART, name + "memory", size.resident_mib, "MiB")
        late = (size.worst_s - POLL_S) / POLL_S * 100
        goal = 10.0 if size is sizes[-1] else None
        yield Row(PART, name + "latest poll", late, "% late", goal, note=f"{size.polls_per_s:.1f} polls a second")
    yield _growth("CPU", "%", [size.cpu_percent for size in sizes])
    yield _growth("memory", "KiB", [size.resident_mib * 1024 for size in sizes])


def _growth(what: str, unit: str, costs: Sequence[float]) -> Row:
    """What a device costs in the upper step of sizes, as a multiple of what it costs in the lower one."""
    lower, upper = (
        (dear - cheap) / (more - fewer)
        for (cheap, dear), (fewer, more) in zip(pairwise(costs), pairwise(SIZES), strict=True)
    )
    note = f"{lower:.3g} {unit} for each of devices 11 to 100, {upper:.3g} for 101 to 500"
    return Row(PART, f"growth of {what}", upper / lower if lower > 0 else math.inf, "x", LINEAR, note=note)


def _size(count: int, settle_s: float, watch_s: float) -> Size:
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
    cpu = (after.cpu_s - before.cpu_s) / lasted_s * 100
    return Size(count, cpu, after.resident_mib, worst_s, sum(map(len, polls)) / lasted_s)
