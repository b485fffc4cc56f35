"""One look at a wallbox in the middle of a session, and what has come to the session since the last one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import Decision
from bridge.core.events import Values
from bridge.core.loads.counters import SLACK_WH, most_w
from bridge.core.model import Device, Now
from bridge.core.records.pauses import doing
from bridge.core.records.session import Doing, Mark, Session, Span, Why
from bridge.core.variables import fresh

MAX_SPANS = 200
"""More than these are merged, the shortest first."""

LOST: tuple[Doing, Why] = ("waiting", "unreachable")
_CARRYING_A = 1.0
"""A line with less than this is not used."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A wallbox as it is seen in a round. ``online``: it answers, and its readings are fresh.

    ``power_w``: what flows, as far as the box tells. ``most_w``: more than that cannot be true.
    """

    box: WallboxConfig
    device: Device
    online: bool
    now: Now
    kind: tuple[Doing, Why]
    power_w: float | None
    most_w: float

    @property
    def connected(self) -> bool:
        """Whether the box says that a car is there."""
        return self.online and self.device.values.get("state") in ("B", "C", "D")

    @property
    def gone(self) -> bool:
        """Whether the box says that no car is there; it may also say neither."""
        return self.online and self.device.values.get("state") == "A"

    @property
    def odometer_wh(self) -> float | None:
        """All that the box's counter has counted; None when there is none, or never a count to be believed."""
        counter = self.device.counter
        return counter.counted_wh if counter and counter.believed else None


def seen(config: Config, box: WallboxConfig, device: Device, decision: Decision, now: Now) -> Sight:
    """Look at a wallbox."""
    online = fresh(box, device, now) and "state" in device.values
    power_w = _power(device.values, config.grid.voltage) if online else None
    kind = doing(box, device, power_w, decision) if online else LOST
    return Sight(box, device, online, now, kind, power_w, most_w(config, box))


def accrued(session: Session, sight: Sight) -> Session:
    """A session with what has happened since it was last looked at."""
    now, values = sight.now, sight.device.values
    passed_s = max(0.0, now.mono - session.mark.mono)
    charging_s, pauses, last = session.charging_s, session.pauses, session.spans[-1]
    if last.doing == "charging":
        charging_s += passed_s
    elif passed_s > 0:
        pauses = {**pauses, last.why: pauses.get(last.why, 0.0) + passed_s}
    session = counted(session, sight, passed_s)
    flowing = sight.kind[0] == "charging" and not sight.gone
    power_w = min(sight.power_w or 0.0, sight.most_w) if flowing else 0.0
    tag = _tag(values.get("rfid")) if sight.connected else ""
    return replace(
        session,
        seen_at=now.utc,
        charging_s=charging_s,
        pauses=pauses,
        phases=max(session.phases, _lines(values) if flowing else 0),
        peak_w=max(session.peak_w, power_w),
        rfid=tag or session.rfid,
        spans=session.spans if sight.gone else turned(session.spans, now.utc, sight.kind),
        mark=Mark(
            now.mono, sight.device, sight.device.mono, session.mark.counted_wh, power_w, session.mark.resumed_mono
        ),
    )


def _tag(reading: object) -> str:
    """The RFID tag that a box has read; empty without one. Boxes say so with nothing or with zeros."""
    tag = f"{reading:.0f}" if isinstance(reading, float) else str(reading or "")
    return tag if tag.strip("0") else ""


def counted(session: Session, sight: Sight, passed_s: float) -> Session:
    """A session with the energy that flowed: never negative, and in all never more than the box can charge."""
    odometer_wh, before_wh = sight.odometer_wh, session.mark.counted_wh
    guessed = odometer_wh is None or before_wh is None
    if odometer_wh is not None and before_wh is not None:
        more_wh = odometer_wh - before_wh
    else:
        # What a silent box goes on drawing is not known: no more than until it was noticed.
        more_wh = session.mark.power_w * min(passed_s, sight.box.patience_s) / 3600
    room_wh = SLACK_WH + sight.most_w * (session.connected_s + passed_s) / 3600 - session.energy_wh
    more_wh = max(0.0, min(more_wh, room_wh))
    counter = sight.device.counter
    said_wh = counter.believed.wh if counter and counter.believed else None
    last = session.spans[-1]
    return replace(
        session,
        energy_wh=session.energy_wh + more_wh,
        estimated=session.estimated or (guessed and more_wh > 0),
        start_wh=session.start_wh if session.start_wh is not None else said_wh,
        end_wh=said_wh if said_wh is not None else session.end_wh,
        spans=(*session.spans[:-1], last._replace(energy_wh=last.energy_wh + more_wh)),
        mark=session.mark._replace(counted_wh=odometer_wh),
    )


def _power(values: Values, voltage: float) -> float | None:
    """What flows into the car, in watts; from the currents where the box does not tell its power."""
    power_w = values.get("power_w")
    if isinstance(power_w, float | int) and math.isfinite(power_w):
        return max(0.0, power_w)
    currents = _currents(values)
    return sum(currents) * voltage if currents else None


def _lines(values: Values) -> int:
    told = values.get("phases")
    known = int(told) if isinstance(told, float | int) and 1 <= told <= 3 else 0
    return sum(1 for amperes in _currents(values) if amperes >= _CARRYING_A) or known


def _currents(values: Values) -> list[float]:
    said = [values.get(name) for name in ("current_l1_a", "current_l2_a", "current_l3_a")]
    return [max(0.0, amperes) for amperes in said if isinstance(amperes, float | int) and math.isfinite(amperes)]


def turned(spans: tuple[Span, ...], at: float, kind: tuple[Doing, Why]) -> tuple[Span, ...]:
    """The spans when ``kind`` begins, unless it goes on already. Of too many the shortest joins its neighbours."""
    if spans[-1][1:3] == kind:
        return spans
    spans = (*spans, Span(max(at, spans[-1].at), *kind))
    if len(spans) <= MAX_SPANS:
        return spans
    shortest = min(range(1, len(spans) - 1), key=lambda n: spans[n + 1].at - spans[n].at)
    before, rest = spans[shortest - 1], shortest + 1
    energy_wh = before.energy_wh + spans[shortest].energy_wh
    if rest < len(spans) - 1 and spans[rest][1:3] == before[1:3]:
        energy_wh, rest = energy_wh + spans[rest].energy_wh, rest + 1
    return (*spans[: shortest - 1], before._replace(energy_wh=energy_wh), *spans[rest:])
