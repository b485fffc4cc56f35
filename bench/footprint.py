"""A house: 2 meters, 3 wallboxes, a broker elsewhere. Memory when idle, and how soon after a start limits are set."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from bench.client import Client, tenths_of_amperes, values
from bench.devices import Devices, meter, wallbox
from bench.stack import Box, Bridge, Broker
from bench.table import Row

PART = "Footprint"
BOXES = range(3)
WANTED = tenths_of_amperes(50)


def run(starts: int, idle_s: float) -> Iterator[Row]:
    """All rows of this part."""
    first, last, memory = [], [], []
    for _ in range(starts):
        # Fresh devices each time: a wallbox that holds its setpoint already would not be written to.
        gateways = [{1: wallbox()}, {1: wallbox()}, {1: wallbox()}, {1: meter()}, {1: meter()}]
        with Broker() as broker, Devices(gateways) as devices:
            boxes, meters = devices.ports[:3], devices.ports[3:]
            with Bridge(broker, [Box(p) for p in boxes], [Box(p) for p in meters], cars=3) as bridge:
                devices.await_setpoint(WANTED, BOXES)
                told = [next(w.at for w in devices.writes(n) if w.value == WANTED) - bridge.started_at for n in BOXES]
                first.append(min(told))
                last.append(max(told))
                bridge.wait_until_healthy()
                with Client(bridge.port) as client:
                    # The memory a login takes and that of the first sets belong to a service in use.
                    for avail in values(20):
                        client.set(avail)
                time.sleep(idle_s)
                memory.append(bridge.cost().resident_mib)
    note = "median of " + ("1 start" if starts == 1 else f"{starts} starts")
    yield Row(
        PART, "resident memory, idle after a login and 20 sets", statistics.median(memory), "MiB", 60.0, note=note
    )
    yield Row(PART, "start to the first right setpoint", statistics.median(first), "s", 1.5, note=note)
    yield Row(PART, "start to all three", statistics.median(last), "s", note=note)
