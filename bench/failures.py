"""What happens when something fails: a bus with dead units, a wallbox that was away."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from bench.client import Client, tenths_of_amperes, values
from bench.devices import Devices, Manner, meter, wallbox
from bench.latency import INITIAL, LOST_S, delay
from bench.stack import Box, Bridge, Broker
from bench.table import Row, percentile

PART = "Failures"
SILENT = (4, 8)
UNITS = range(2, 12)
"""The units beside the wallbox; those of ``SILENT`` never answer."""

TIMEOUT_MS = 1000.0
BACK_S = 2.0
PATIENCE_S = 20.0


class Effort(NamedTuple):
    """Sets on the bus with the dead units; how long the wallbox is away each time, in seconds."""

    sets: int
    outages_s: Sequence[float]


def run(effort: Effort) -> Iterator[Row]:
    """All rows of this part."""
    yield from _shared_bus(effort.sets)
    yield from _away("refusing", "wallbox rebooted", effort.outages_s)
    yield from _away("away", "wallbox off the network", effort.outages_s)


def _shared_bus(sets: int) -> Iterator[Row]:
    """The wallbox is unit 1 of a gateway; of the ten other units two are silent."""
    units = {1: wallbox(), **{unit: meter(silent=unit in SILENT) for unit in UNITS}}
    with Broker() as broker, Devices([units]) as devices:
        port = devices.ports[0]
        with Bridge(broker, [Box(port)], [Box(port, unit) for unit in UNITS]) as bridge:
            bridge.wait_until_healthy()
            devices.await_setpoint(INITIAL, [0])
            with Client(bridge.port) as client:
                devices.forget()
                begun = time.monotonic()
                delays = [_set_and_wait(client, devices, avail) for avail in values(sets)]
                lasted_s = time.monotonic() - begun
            reads = [len(devices.reads(0, unit)) for unit in UNITS if unit not in SILENT]
    arrived = [d for d in delays if d < math.inf]
    yield Row(PART, "bus with 2 of 10 silent: sets that arrive", len(arrived), f"of {sets}", sets, least=True)
    note = f"median {percentile(arrived, 0.5):.1f} ms, longest {max(arrived, default=0):.0f} ms"
    yield Row(PART, "  p99 of those", percentile(arrived, 0.99), "ms", TIMEOUT_MS, note=note)
    yield Row(PART, "  slowest living unit polled", min(reads) / lasted_s, "Hz", 0.9, least=True)


def _set_and_wait(client: Client, devices: Devices, avail: int) -> float:
    """Milliseconds from a set to its register; the next set shall not overtake it, so it is waited for."""
    made = client.set(avail)
    with suppress(TimeoutError):
        devices.await_setpoint(tenths_of_amperes(avail), [0], LOST_S)
    took_ms = delay(made, devices.writes(0))
    time.sleep(random.uniform(0.1, 0.7))
    return took_ms


def _away(manner: Manner, name: str, outages_s: Sequence[float]) -> Iterator[Row]:
    """From the moment a wallbox takes connections again to its register holding the limit, without a new set."""
    took = []
    with (
        Broker() as broker,
        Devices([{1: wallbox()}]) as devices,
        Bridge(broker, [Box(devices.ports[0])]) as bridge,
    ):
        bridge.wait_until_healthy()
        devices.await_setpoint(INITIAL, [0])
        with Client(bridge.port) as client:
            for avail, outage_s in zip(values(len(outages_s)), outages_s, strict=True):
                client.set(avail)
                wanted = tenths_of_amperes(avail)
                devices.await_setpoint(wanted, [0])
                devices.behave(0, manner)
                time.sleep(outage_s)
                devices.forget()
                took.append(_held_after(devices, wanted, devices.behave(0, "answering")))
    note = "after " + ", ".join(f"{s:g}" for s in outages_s) + " s away: " + ", ".join(f"{t:.2f}" for t in took) + " s"
    yield Row(PART, f"{name}: limit back, longest", max(took), "s", BACK_S, note=note)


def _held_after(devices: Devices, wanted: int, back_at: float) -> float:
    try:
        devices.await_setpoint(wanted, [0], PATIENCE_S)
    except TimeoutError:
        return math.inf
    return next(w.at for w in devices.writes(0) if w.value == wanted) - back_at
