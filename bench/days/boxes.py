"""Wallboxes as the bridge meets them: quick or slow, sometimes deaf, sometimes gone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.days.cars import Car
from bridge.core.config import WallboxConfig
from bridge.core.events import Confirmed, Event, Link, Read, Reading

Span = tuple[float, float]
"""From, to, in seconds of the day."""


class Clock(Protocol):
    """The world, as its parts see it. ``now`` are seconds of the day."""

    now: float

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later."""

    def post(self, event: Event) -> None:
        """Tell the bridge."""

    def landed(self) -> None:
        """A wallbox offers another current now."""


@dataclass(frozen=True)
class Manners:
    """How a box behaves: a write lands after ``write_s``, the next one not before ``gap_s``; a poll takes ``sweep_s``
    and comes every ``poll_s``.

    ``deaf``: it does not answer then, but goes on. ``gone``: neither, and after a minute without the bridge it offers
    at most ``failsafe_a``. ``stubborn``: it answers, but ignores what is written. ``measures``: it tells currents.
    """

    write_s: float = 0.1
    gap_s: float = 0.0
    sweep_s: float = 0.0
    poll_s: int = 1
    deaf: tuple[Span, ...] = ()
    gone: tuple[Span, ...] = ()
    stubborn: tuple[Span, ...] = ()
    failsafe_a: float = 6.0
    measures: bool = True


QUICK = Manners()
SLOW = Manners(write_s=0.5, gap_s=5.0, sweep_s=2.0, poll_s=3)
_NOTICED_S = 2.0
"""So long after it fell silent the bridge calls it unreachable."""


class Box:
    """A wallbox with a car: it offers ``pilot_a``, and shows ``currents``."""

    def __init__(self, config: WallboxConfig, manners: Manners, car: Car, phase: float, clock: Clock) -> None:
        self.config, self.manners, self.car = config, manners, car
        self.lines = config.lines[: car.phases]
        self.pilot_a = 0.0
        self.writes = 0
        self.silent_since: float | None = None
        self._clock, self._phase = clock, phase
        self._wanted = self._sent = (0.0, -1)
        self._followed = -1
        self._writing = False
        self._write_from = -math.inf
        self._up = False
        self._energy_wh = 1000.0

    def second(self) -> None:
        """A second passes: the car, the link, the next poll."""
        now, manners = self._clock.now, self.manners
        self.car.step(now, self.pilot_a)
        self._energy_wh += self.car.current_a * 230 * len(self.lines) / 3600
        if _inside(manners.deaf, now) or _inside(manners.gone, now):
            self._silent(now)
            return
        self.silent_since = None
        if not self._up:
            self._up = True
            self._clock.post(Link(self.config.id, True))
            self._read(now)
            self._tell()
            if self._wanted[1] >= 0:
                self._write()
        elif (now + hash_of(self.config.id)) % manners.poll_s == 0:
            begun = now + self._phase
            self._clock.after(self._phase + manners.sweep_s, lambda: self._read(begun))

    def _silent(self, now: float) -> None:
        if self.silent_since is None:
            self.silent_since = now
        if self._up and now - self.silent_since >= _NOTICED_S:
            self._up = False
            self._clock.post(Link(self.config.id, False, "no answer"))
        if now - self.silent_since >= 60 and _inside(self.manners.gone, now):
            self.pilot_a = min(self.pilot_a, self.manners.failsafe_a)

    def _read(self, begun: float) -> None:
        if self.silent_since is not None:
            return
        car = self.car
        state = "A" if not car.plugged else "C" if car.current_a > 0 else "B"
        values: dict[str, Reading] = {"state": state}
        if self.manners.measures:
            for number in range(len(self.config.lines)):
                values[f"current_l{number + 1}_a"] = car.current_a if number < car.phases else 0.0
            values["power_w"] = car.current_a * 230 * car.phases
            values["energy_wh"] = round(self._energy_wh)
        self._clock.post(Read(self.config.id, values, begun))
        if not self._writing and self._sent[1] >= 0:
            self._tell()

    def want(self, amperes: float, revision: int) -> None:
        """What the newest snapshot wants of it."""
        changed = amperes != self._wanted[0] or self._wanted[1] < 0
        self._wanted = (amperes, revision)
        if self._sent[0] == amperes and self._sent[1] >= 0:
            self._sent = self._wanted
        if changed and self._up and not self._writing:
            self._write()

    def _write(self) -> None:
        self._writing = True
        self._clock.after(max(0.0, self._write_from - self._clock.now), self._send)

    def _send(self) -> None:
        self._sent = self._wanted
        self._write_from = self._clock.now + self.manners.gap_s
        self._clock.after(self.manners.write_s, self._land)

    def _land(self) -> None:
        self._writing = False
        if self.silent_since is not None:
            return
        self.writes += 1
        if not _inside(self.manners.stubborn, self._clock.now):
            self.pilot_a = self._sent[0]
            self._clock.landed()
        self._clock.after(self.manners.write_s, self._tell)
        if self._wanted[0] != self._sent[0]:
            self._write()

    def _tell(self) -> None:
        """Read back what it holds; as the Modbus edge does, it counts as followed when it is not less than was sent."""
        if self.silent_since is not None:
            return
        if self.pilot_a >= self._sent[0]:
            self._followed = self._sent[1]
        self._clock.post(Confirmed(self.config.id, self.pilot_a, self._followed))


def hash_of(id: str) -> int:
    """A number that differs from box to box, and is the same each time."""
    return sum(map(ord, id))


def _inside(spans: Sequence[Span], now: float) -> bool:
    return any(begin <= now < end for begin, end in spans)
