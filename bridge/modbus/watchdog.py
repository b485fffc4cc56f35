"""A box's own watchdog, seen by ``probe``: what it is set to, how often we feed it, and where the two would fight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bridge.core.events import Reading
from bridge.core.formulas import Formula, NoValue
from bridge.modbus.profile import Profile
from bridge.modbus.quantities import watchdog_unit
from bridge.modbus.readings import amount


def refresh_s(profile: Profile, known: Mapping[str, Reading], poll_s: float = 1.0) -> float | None:
    """How often the box hears the sign of life that it waits for; None when that cannot be told.

    A box without a sign of life of its own is content with any request, which every poll is.
    """
    period: float | Formula = poll_s
    if profile.keepalive:
        period = profile.keepalive.every_s
    elif profile.setpoint and profile.setpoint.max_age_s is not None:
        period = profile.setpoint.max_age_s
    try:
        return amount(period, known)
    except NoValue:
        return None


def worries(profile: Profile, known: Mapping[str, Reading], period_s: float | None) -> Iterator[tuple[str, str]]:
    """Points of the watchdog with what is wrong with their values; what the bridge sets itself, it says."""
    sets = {write.point.removeprefix("set_") for write in profile.failsafe.writes} if profile.failsafe else set()
    for name, value in known.items():
        if not watchdog_unit(name) or not isinstance(value, float):
            continue
        worry = _of_time(value, period_s) if watchdog_unit(name) == "s" else _of_current(value, profile)
        if worry:
            yield name, worry + ("; the bridge will set it" if name.removeprefix("set_") in sets else "")


def _of_time(value: float, period_s: float | None) -> str:
    if value == 0:
        return "off: without the bridge the box stays at its last current"
    if period_s is not None and value < 2 * period_s:
        return f"shorter than twice the {period_s:g} s after which the bridge refreshes: the box would let go"
    return ""


def _of_current(value: float, profile: Profile) -> str:
    if profile.setpoint and value > profile.setpoint.min_a:
        return f"above the {profile.setpoint.min_a:g} A that are safe without the bridge"
    return ""
