"""Energy counters, guarded: what a wallbox counted for the car that is connected, never negative and never absurd.

Counters fall back to 0 when a box restarts, come back minutes later, wrap around, jump, or stand still. A value is
believed when it follows from the one believed before: not lower, and not more than the box could have charged
meanwhile. One that does not follow is doubted until the next one follows from it; then the counter has moved, and
counting goes on from there. A 0 is never believed: boxes say it right after they have started.
"""

from __future__ import annotations

from bridge.core.config import Config, WallboxConfig
from bridge.core.events import Read, Reading
from bridge.core.formulas import fold
from bridge.core.model import Count, Counter, Device

SLACK_WH = 1000.0
"""Some boxes count in whole kWh, and a reading may be a little late."""

MARGIN = 1.5
"""More than a box can draw, for lines above their nominal voltage."""


def guarded(config: Config, known: Device, event: Read) -> tuple[dict[str, Reading], Counter | None]:
    """All values of a device after a reading, and its counter.

    Of a wallbox ``energy_wh`` is the count that is believed; ``energy_raw_wh`` is there while the box says something
    else. ``session_wh`` is worked out unless the box has its own.
    """
    values: dict[str, Reading] = {**known.values, **event.values}
    raw_wh = event.values.get("energy_wh")
    box = config.by_key.get(fold(event.device)) if isinstance(raw_wh, float | int) else None
    if not isinstance(raw_wh, float | int) or not isinstance(box, WallboxConfig):
        return values, known.counter
    counter = followed(known.counter or Counter(), raw_wh, str(values.get("state")), event.mono, most_w(config, box))
    values["energy_wh"] = counter.believed.wh if counter.believed else raw_wh
    values.pop("energy_raw_wh", None)
    if values["energy_wh"] != raw_wh:
        values["energy_raw_wh"] = raw_wh
    if "session_wh" not in event.values and counter.session_wh is not None:
        values["session_wh"] = counter.session_wh
    return values, counter


def most_w(config: Config, box: WallboxConfig) -> float:
    """More watts than a wallbox can draw: what is above cannot be true."""
    return MARGIN * box.capability.max_a * config.grid.voltage * len(box.lines)


def followed(before: Counter, wh: float, state: str, mono: float, most_w: float) -> Counter:
    """The counter after the box said ``wh`` (watt hours) and ``state`` at the moment ``mono``.

    ``most_w``: watts the box can draw at most. A session begins with the first of the states B, C and D, and ends
    with A; errors in between do not end it.
    """
    count = Count(wh, mono)
    bases = (known for known in (before.believed, before.doubted) if known and _follows(known, count, most_w))
    base = next(bases, None)
    believe = base is not None or (before.believed is None and wh > 0)
    more_wh = wh - base.wh if base else 0.0
    since, session_wh = before.since, before.session_wh
    if since is not None and session_wh is not None:
        session_wh = min(session_wh + more_wh, _most_wh(since, mono, most_w))
    if state == "A":
        since = None
    elif since is None and state in ("B", "C", "D"):
        since, session_wh = mono, 0.0
    counted_wh = before.counted_wh + more_wh
    return Counter(count if believe else before.believed, None if believe else count, since, session_wh, counted_wh)


def _follows(known: Count, count: Count, most_w: float) -> bool:
    return count.wh > 0 and known.wh <= count.wh <= known.wh + _most_wh(known.mono, count.mono, most_w)


def _most_wh(since: float, mono: float, most_w: float) -> float:
    return SLACK_WH + most_w * max(0.0, mono - since) / 3600
