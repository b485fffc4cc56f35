"""What a decision costs: limits, sharing and setpoints for 3, 30 and 300 wallboxes in a tree of three levels.

Every wallbox has a charging car, every third of them on one line only, and most bounds are full: nothing is idle, so
nothing can be skipped.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from bench.table import Row
from bridge.core import step
from bridge.core.config import Config, GridConfig, GroupConfig, VariableConfig, WallboxConfig
from bridge.core.events import Confirmed, Event, Link, Read
from bridge.core.formulas import parse
from bridge.core.model import Now, Snapshot, State

PART = "Deciding"
SIZES = (3, 30, 300)
LIMIT_MS = 10.0


def run(rounds: int) -> Iterator[Row]:
    """All rows of this part."""
    took: dict[int, float] = {}
    for boxes in SIZES:
        took[boxes] = _decide_us(_charging(_site(boxes)), rounds)
        goal = LIMIT_MS * 1000 if boxes == 300 else None
        note = f"{took[boxes] / boxes:.0f} us a wallbox; median of {rounds}"
        yield Row(PART, f"decide() for {boxes} wallboxes", took[boxes], "us", goal, note=note)
    growth = took[300] / took[30] / 10
    yield Row(PART, "300 against 30, per wallbox", growth, "x", 1.5, note="1: linear")


def _site(boxes: int) -> Config:
    """House, floors of 50 wallboxes, feeders of 10."""
    floors, feeders = max(1, boxes // 50), max(1, boxes // 10)
    groups = [GroupConfig(f"floor{n}", power_w=parse(200_000)) for n in range(floors)]
    groups += [GroupConfig(f"feeder{n}", group=f"floor{n % floors}", current_a=parse(63)) for n in range(feeders)]
    return Config(
        GridConfig(parse(f"{boxes * 7000} * AVAIL / 100"), connection_current_a=parse(boxes * 9)),
        variables={"AVAIL": VariableConfig(parse(100), 0, 100)},
        groups=tuple(groups),
        wallboxes=tuple(
            WallboxConfig(f"E{n}", "keba-p30", "10.0.0.1", phases=3 if n % 3 else 1, group=f"feeder{n % feeders}")
            for n in range(boxes)
        ),
    )


def _charging(config: Config) -> Snapshot:
    now = Now(1000.0, 1.79e9)
    events: list[Event] = []
    for number, box in enumerate(config.wallboxes):
        holds = 6.0 + number % 5
        events += Link(box.id, True), Read(box.id, {"state": "C", "current_l1_a": holds}, now.mono)
        events.append(Confirmed(box.id, holds, 1))
    return step.run(step.first(config, State(), now), events, now)


def _decide_us(snapshot: Snapshot, rounds: int) -> float:
    """The median time of one decision in microseconds."""
    assert snapshot.roll is not None
    took = []
    for _ in range(rounds):
        begun = time.thread_time()
        step.decide(snapshot.config, snapshot.state, snapshot.roll, snapshot.now)
        took.append(time.thread_time() - begun)
    return statistics.median(took) * 1e6
