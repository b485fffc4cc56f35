"""A day in a few seconds: the real decisions of the bridge, a fake clock, and the world around them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from random import Random

from bench.days.boxes import QUICK, Box
from bench.days.judge import Bound, Hunt, Moment
from bench.days.plan import HOUSE, Command, Day, Visit, Watched
from bridge.core import step, variables
from bridge.core.events import Event, Link, Read
from bridge.core.model import Now, Snapshot, State

MONO, UTC = 10_000.0, 1_790_028_000.0
"""Midnight, on both clocks."""


class World:
    """Plays a day. ``window_s``: the bridge makes a round of all that came within so long."""

    def __init__(self, day: Day, window_s: float = 0.5, seed: int = 1) -> None:
        self.day, self.now, self._window_s = day, 0.0, window_s
        random = Random(seed)
        self.snapshot: Snapshot = step.first(day.config, State(), self._moment())
        self.boxes = [
            Box(box, day.manners.get(box.id, QUICK), day.cars[box.id], random.random(), self)
            for box in day.config.wallboxes
        ]
        self.by_id = {box.config.id: box for box in self.boxes}
        slowest = max(box.manners.gap_s + box.manners.write_s for box in self.boxes)
        command_s = math.ceil(1 + slowest + 5)
        self.bounds = [
            (
                watched,
                Bound(watched.name, self._uses(watched), command_s, command_s + 2 + day.meter_lag_s + window_s),
            )
            for watched in day.bounds
        ]
        self.hunt = Hunt()
        self.initial = dict(day.values)
        self.waits: dict[str, float] = {}
        self.longest_wait_s = 0.0
        self.waiter = ""
        self.rounds = 0
        self.spent_s = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._played = 0
        self._inbox: list[Event] = []
        self._urgent = False
        self._meters = [(m.id, HOUSE) for m in day.config.meters if m.role == "grid"]
        self._meters += [(g.meter, g.id) for g in day.config.groups if g.meter]
        self._seen: dict[str, deque[tuple[float, float, float]]] = {
            id: deque(maxlen=day.meter_lag_s + 1) for id, _ in self._meters
        }
        self._meter_phase = {id: random.random() for id, _ in self._meters}
        self._silent = False
        self._loads: dict[str, tuple[float, float, float]] = {}
        self._battery_a = 0.0
        for visit in day.visits:
            self.at(visit.arrives, partial(self._arrive, visit))
            self.at(visit.leaves, partial(self._leave, visit))
        for command in day.commands:
            self.at(command.at, partial(self._command, command))

    # ------------------------------------------------------------------------------------------- as a clock

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Do something at a moment."""
        if moment < math.inf:
            self._number += 1
            heappush(self._agenda, (moment, self._number, action))

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self.at(self.now + delay_s, action)

    def post(self, event: Event) -> None:
        """Tell the bridge, which makes a round within the window, or at once for a command."""
        if isinstance(event, Read):
            event = Read(event.device, event.values, event.mono + MONO)
        if event.urgent:
            self._round([event])
            return
        if not self._inbox:
            self.after(self._window_s, self._drain)
        self._inbox.append(event)

    def landed(self) -> None:
        """A wallbox offers something else now: no sum may be too high at any moment."""
        offered = [box.pilot_a if box.car.plugged else 0.0 for box in self.boxes]
        for _, bound in self.bounds:
            bound.offering(offered, self._held(bound, offered))

    def _moment(self) -> Now:
        return Now(MONO + self.now, UTC + self.now)

    # ------------------------------------------------------------------------------------------ what happens

    def play(self, until: float) -> World:
        """Play the day on, up to a second of it."""
        begun = time.perf_counter()
        for second in range(self._played, int(until)):
            while self._agenda and self._agenda[0][0] < second:
                moment, _, action = heappop(self._agenda)
                self.now = max(self.now, moment)
                action()
            self.now = float(second)
            self._second(second)
        self._played = max(self._played, int(until))
        self.spent_s += time.perf_counter() - begun
        return self

    def _second(self, second: int) -> None:
        for box in self.boxes:
            box.second()
        before = self._loads
        self._loads = {
            place: (load[0][second], load[1][second], load[2][second]) for place, load in self.day.loads.items()
        }
        if self._battery_a:
            one, two, three = self._loads[HOUSE]
            self._loads[HOUSE] = one + self._battery_a, two + self._battery_a, three + self._battery_a
        for place, now in self._loads.items():
            if any(abs(a - b) > 0.75 for a, b in zip(now, before.get(place, now), strict=True)):
                self.hunt.stirred(self.now)
        for id, place in self._meters:
            self._meter(id, place)
        self._judge()

    def _meter(self, id: str, place: str) -> None:
        """A meter measures, and is read."""
        drawn = list(self._loads.get(place, (0.0, 0.0, 0.0)))
        behind = {g.id for g in self.day.config.groups if g.id == place}
        for box in self.boxes:
            if place == HOUSE or box.config.group in behind:
                for line in box.lines:
                    drawn[line - 1] += box.car.current_a
        if self.day.battery and place == HOUSE:
            self._battery_a = self.day.battery.step((drawn[0], drawn[1], drawn[2]))
        self._seen[id].append((drawn[0], drawn[1], drawn[2]))
        silent = any(begin <= self.now < end for begin, end in self.day.meter_silent)
        if silent != self._silent or self.now == 0:
            self._silent = silent
            self.post(Link(id, not silent, "no answer" if silent else ""))
            self.hunt.stirred(self.now + 10)
        if not silent:
            begun = self.now + self._meter_phase[id]
            lines = self._seen[id][0]
            self.at(begun, lambda: self.post(Read(id, _measured(lines), begun)))

    def _judge(self) -> None:
        drawn = [box.car.current_a for box in self.boxes]
        offered = [box.pilot_a if box.car.plugged else 0.0 for box in self.boxes]
        values = self.day.values
        for watched, bound in self.bounds:
            load = self._loads.get(watched.place, (0.0, 0.0, 0.0))
            match watched.line:
                case int() as line:
                    there = load[line - 1]
                case None:
                    there = sum(load)
                case _:
                    there = 0.0
            if watched.feed_in_only:
                there = min(0.0, there)
            bound.passed(Moment(self.now, watched.limit_a(values), there), drawn, offered, self._held(bound, drawn))
        for box in self.boxes:
            waits = box.car.wants(self.now) and box.pilot_a < box.car.min_a and box.silent_since is None
            if not waits:
                self.waits.pop(box.config.id, None)
                continue
            waited = self.now - self.waits.setdefault(box.config.id, self.now)
            if waited > self.longest_wait_s:
                self.longest_wait_s, self.waiter = waited, box.config.id

    def _held(self, bound: Bound, amperes: Sequence[float]) -> float:
        """What boxes have that nobody can reach."""
        return sum(
            [amperes[n] * times for n, times in bound.uses if self.boxes[n].silent_since is not None and times > 0]
        )

    def _uses(self, watched: Watched) -> Sequence[tuple[int, int]]:
        uses = []
        for number, box in enumerate(self.boxes):
            if watched.boxes is not None and box.config.id not in watched.boxes:
                continue
            if watched.line is None:
                uses.append((number, len(box.lines)))
            elif isinstance(watched.line, int):
                uses.append((number, int(watched.line in box.lines)))
            else:
                one, other = watched.line
                uses.append((number, (one in box.lines) - (other in box.lines)))
        return [(number, times) for number, times in uses if times]

    def _arrive(self, visit: Visit) -> None:
        self.by_id[visit.box].car.plug(visit.charge)
        self.hunt.stirred(self.now + 60)

    def _leave(self, visit: Visit) -> None:
        self.by_id[visit.box].car.unplug()
        self.hunt.stirred(self.now)

    def _command(self, command: Command) -> None:
        config, state = self.day.config, self.snapshot.state
        pairs = [(name, value, command.ttl_s) for name, value in command.values.items()]
        self.post(variables.accept(config, pairs, False, command.source, state))
        before = {name: self.initial[name] for name in command.values}
        self._limited({name: float(value) for name, value in command.values.items()})
        if command.ttl_s:
            self.after(command.ttl_s, lambda: self._limited(before))
        self.hunt.stirred(self.now)

    def _limited(self, values: Mapping[str, float]) -> None:
        """From this moment on other limits are in force, not only from the next second."""
        self.day.values.update(values)
        for watched, bound in self.bounds:
            bound.limited(self.now, watched.limit_a(self.day.values))

    def _drain(self) -> None:
        events, self._inbox = self._inbox, []
        self._round(events)

    def _round(self, events: Sequence[Event]) -> None:
        self.snapshot = step.run(self.snapshot, events, self._moment())
        self.rounds += 1
        for id, setpoint in self.snapshot.decision.setpoints.items():
            self.hunt.seen(id, setpoint.current_a, self.now)
            self.by_id[id].want(setpoint.current_a, self.snapshot.revision)


def _measured(lines: tuple[float, float, float]) -> dict[str, float | str]:
    values: dict[str, float | str] = {"power_w": round(sum(lines) * 230)}
    for number, amperes in enumerate(lines, 1):
        values[f"current_l{number}_a"] = round(abs(amperes), 2)
        values[f"power_l{number}_w"] = round(amperes * 230)
    return values
