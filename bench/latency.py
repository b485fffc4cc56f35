"""Set to register: from the first byte of the HTTP request to the write arriving at the wallbox."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from bench.client import Client, Set, tenths_of_amperes, values
from bench.devices import NO_CAR, Devices, Stamp, wallbox
from bench.floor import Floor
from bench.stack import Box, Bridge, Broker
from bench.table import Row, over_rounds, percentile

PART = "Set to register"
SITE = 50
"""Wallboxes on the large site."""

LOST_S = 2.0
"""A set that is not at the register by then counts as lost."""

INITIAL = tenths_of_amperes(50)
"""What a charging wallbox is told at the start."""

Rounds = Sequence[Sequence[float]]
"""Milliseconds of each set, by round."""


class Effort(NamedTuple):
    """How much is measured: rounds, sets in each, and the pause before each set, in seconds from and to."""

    rounds: int
    sets: int
    pause_s: tuple[float, float] = (0.03, 0.08)


class Lane(NamedTuple):
    """A way from a client to the wallbox it is measured at: unit 1 of that gateway of the devices."""

    client: Client
    gateway: int


def run(effort: Effort) -> Iterator[Row]:
    """All rows of this part."""
    yield from _against_floor("1 wallbox", 1, effort)
    yield from _against_floor(f"{SITE} wallboxes", SITE, effort)
    yield from _whole_site(effort.sets // 4)
    # Shorter pauses and so more sets: here two p99 are told apart by a fifth.
    yield from _broken(Effort(effort.rounds, effort.sets * 3 // 2, (0.015, 0.035)))


def delay(one: Set, writes: Sequence[Stamp]) -> float:
    """Milliseconds until the value of a set arrived; infinite: it never did."""
    wanted = tenths_of_amperes(one.avail)
    arrived = (w.at for w in writes if w.value == wanted and one.sent_at <= w.at <= one.sent_at + LOST_S)
    return (next(arrived, math.inf) - one.sent_at) * 1000


def _against_floor(name: str, boxes: int, effort: Effort) -> Iterator[Row]:
    """A site on which one wallbox has a car, against the floor."""
    gateways = [{1: wallbox()}, {1: wallbox()}, *({1: wallbox(NO_CAR)} for _ in range(boxes - 1))]
    with (
        Broker() as broker,
        Devices(gateways) as devices,
        Floor(devices.ports[0], broker.port) as floor,
        Bridge(broker, [Box(port) for port in devices.ports[1:]]) as bridge,
        Client(floor.port) as bare,
    ):
        bridge.wait_until_healthy()
        devices.await_setpoint(INITIAL, [1])
        with Client(bridge.port) as client:
            found = _measure(devices, {"floor": Lane(bare, 0), name: Lane(client, 1)}, effort)
    yield from _rows(name, found, "floor", median=4.0, p99=5.0)


def _broken(effort: Effort) -> Iterator[Row]:
    """Bridges with one charging wallbox each: a healthy one, one without broker, one with another box that hangs.

    A second healthy one shows what chance alone makes of such a comparison.
    """
    gateways = [{1: wallbox()}, {1: wallbox()}, {1: wallbox()}, {1: wallbox()}, {1: wallbox(NO_CAR)}]
    with Broker() as broker, Broker() as stopped, Devices(gateways) as devices, ExitStack() as running:
        boxes = [Box(port) for port in devices.ports]
        sites = {
            "healthy": (broker, boxes[:1]),
            "healthy twin": (broker, boxes[1:2]),
            "broker stopped": (stopped, boxes[2:3]),
            "a wallbox hangs": (broker, boxes[3:]),
        }
        lanes = {}
        for gateway, (name, (its_broker, its_boxes)) in enumerate(sites.items()):
            bridge = running.enter_context(Bridge(its_broker, its_boxes))
            bridge.wait_until_healthy()
            lanes[name] = Lane(running.enter_context(Client(bridge.port)), gateway)
        devices.await_setpoint(INITIAL, range(4))
        stopped.stop()
        devices.behave(4, "hung")
        time.sleep(2.0)
        found = _measure(devices, lanes, effort)
    yield from _rows("healthy twin", found, "healthy", median=None, p99=None)
    for name in ("broker stopped", "a wallbox hangs"):
        yield from _rows(name, found, "healthy", median=1.2, p99=1.2)


def _whole_site(sets: int) -> Iterator[Row]:
    """Every wallbox of the large site has a car: one set moves them all."""
    with (
        Broker() as broker,
        Devices([{1: wallbox()} for _ in range(SITE)]) as devices,
        Bridge(broker, [Box(port) for port in devices.ports], cars=SITE) as bridge,
    ):
        bridge.wait_until_healthy()
        devices.await_setpoint(INITIAL, range(SITE))
        with Client(bridge.port) as client:
            made = []
            for avail in values(sets):
                made.append(client.set(avail))
                time.sleep(random.uniform(0.2, 0.3))
        writes = [devices.writes(n) for n in range(SITE)]
    delays = [sorted(delay(one, box) for box in writes) for one in made]
    for title, index in (("first", 0), ("middle", SITE // 2), ("last", SITE - 1)):
        median = percentile([d[index] for d in delays], 0.5)
        yield Row(PART, f"{SITE} charging: {title} register", median, "ms", note=f"median of {sets} sets")


def _measure(devices: Devices, lanes: Mapping[str, Lane], effort: Effort) -> Mapping[str, Rounds]:
    """Take turns, set by set, so that whatever else goes on in the machine hits all lanes alike."""
    for avail in values(10):
        for lane in lanes.values():
            lane.client.set(avail)
    found: dict[str, list[list[float]]] = {name: [] for name in lanes}
    for _ in range(effort.rounds):
        devices.forget()
        made: dict[str, list[Set]] = {name: [] for name in lanes}
        for avail in values(effort.sets):
            for name in random.sample(list(lanes), len(lanes)):
                time.sleep(random.uniform(*effort.pause_s))
                made[name].append(lanes[name].client.set(avail))
        time.sleep(0.2)
        for name, lane in lanes.items():
            writes = devices.writes(lane.gateway)
            found[name].append([delay(one, writes) for one in made[name]])
    return found


def _rows(
    name: str, found: Mapping[str, Rounds], against: str, median: float | None, p99: float | None
) -> Iterator[Row]:
    """Median and p99 of a lane, as multiples of another lane's in the same run."""
    for title, share, goal in (("median", 0.5, median), ("p99", 0.99, p99)):
        ours, theirs = over_rounds(found[name], share), over_rounds(found[against], share)
        note = f"{ours:.2f} ms, {against} {theirs:.2f} ms"
        yield Row(PART, f"{name}: {title}", ours / theirs, f"x {against}", goal, note=note)
    lost = sum(d == math.inf for one in found[name] for d in one)
    yield Row(PART, f"{name}: sets lost", lost, f"of {sum(map(len, found[name]))}", 0)
