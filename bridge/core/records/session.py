"""What a charging session is: one car at one wallbox, from the moment it is connected until it is gone.

Instants (``_at``) are Unix time in seconds, what people read. Durations come from the monotonic clock, so that a clock
that is set right in the middle of a session does not change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Doing = Literal["charging", "paused", "waiting"]
"""Current flows; none may flow; it might, but does not, or nobody knows."""

Why = Literal["", "grid_limit", "house_load", "rotation", "rule", "user", "pause_time", "car", "fault", "unreachable"]
"""Why no current flows, as a class: ``docs/http.md`` says what belongs to each. Empty while it flows."""

Ended = Literal["", "unplugged", "unseen", "unknown"]
"""How a session ended: seen; while the box could not be reached; nobody knows. Empty: not yet."""


class Span(NamedTuple):
    """A part of a session in which nothing changed, from ``at`` until the next span begins, and what it charged."""

    at: float
    doing: Doing
    why: Why
    energy_wh: float = 0.0


class Mark(NamedTuple):
    """Up to where a session is counted, in terms of this process; not stored.

    ``seen``: the device as it was taken in last, read at ``read_mono``. ``counted_wh``: the odometer of the box's
    counter then, None without one. ``power_w``: what flowed then. ``resumed_mono``: the session was taken over from
    before a restart at that moment, and it is not certain yet that the same car is connected.
    """

    mono: float
    seen: object = None
    read_mono: float = float("-inf")
    counted_wh: float | None = None
    power_w: float = 0.0
    resumed_mono: float | None = None


_NOWHERE = Mark(float("-inf"))


@dataclass(frozen=True, slots=True)
class Session:
    """One car at one wallbox. ``id`` rises with every session of the site.

    ``seen_at``: what it says is true as of then. ``start_wh`` and ``end_wh`` are what the box's energy counter said,
    as far as it is believed; their difference is not the energy where the counter began anew in between.
    ``estimated``: some of ``energy_wh`` was not counted but worked out from the power. ``pauses``: seconds in which no
    current flowed, by class. ``phases``: the most lines that carried current at once (0: not known).
    """

    id: int
    wallbox: str
    plugged_at: float
    seen_at: float
    unplugged_at: float | None = None
    ended: Ended = ""
    energy_wh: float = 0.0
    estimated: bool = False
    start_wh: float | None = None
    end_wh: float | None = None
    charging_s: float = 0.0
    pauses: Mapping[Why, float] = field(default_factory=dict)
    phases: int = 0
    peak_w: float = 0.0
    rfid: str = ""
    spans: tuple[Span, ...] = ()
    mark: Mark = field(default=_NOWHERE, compare=False)

    @property
    def connected_s(self) -> float:
        """How long the car is, or was, connected."""
        return self.charging_s + sum(self.pauses.values())


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions that matter now; all older ones are on disk.

    ``open`` and ``last`` (the one that ended last) are by wallbox. ``unstored`` have ended and wait, oldest first,
    until storage has them.
    """

    open: Mapping[str, Session] = field(default_factory=dict)
    unstored: tuple[Session, ...] = ()
    last: Mapping[str, Session] = field(default_factory=dict)
    last_id: int = 0
