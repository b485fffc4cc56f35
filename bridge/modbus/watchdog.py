"""A box's own watchdog: what it is set to, how often we feed it, and where the two would fight."""

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
    """Points of the watchdog with what is wrong with their values."""
    for name, unit, value in _settings(known):
        worry = _of_time(value, period_s) if unit == "s" else _of_current(value, profile)
        if worry:
            yield name, worry


def told(profile: Profile, known: Mapping[str, Reading], poll_s: float) -> Mapping[str, float]:
    """What is published of it; nothing without a watchdog. Where the box cannot be asked, the profile is believed.

    ``failsafe_a``: what the box falls back to, the most of several registers; ``failsafe_s``: after how much silence;
    ``refresh_s``: how often the bridge feeds it.
    """
    settings = list(_settings(known))
    rule = profile.failsafe
    if not settings and rule is None:
        return {}
    amperes = [value for _, unit, value in settings if unit == "A"] or ([rule.current_a] if rule else [])
    seconds = [value for _, unit, value in settings if unit == "s"] or ([rule.timeout_s] if rule else [])
    found = {"failsafe_a": max(amperes, default=None), "failsafe_s": min(seconds, default=None)}
    found["refresh_s"] = refresh_s(profile, known, poll_s)
    return {name: value for name, value in found.items() if value is not None}


def is_set_by_us(profile: Profile, name: str) -> bool:
    """Whether the bridge itself sets this point of the watchdog, or what it shows, after connecting."""
    writes = profile.failsafe.writes if profile.failsafe else ()
    return name.removeprefix("set_") in {write.point.removeprefix("set_") for write in (*writes, *profile.init)}


def _settings(known: Mapping[str, Reading]) -> Iterator[tuple[str, str, float]]:
    """(point, its unit, what it holds) of all the watchdog's points that could be read."""
    for name, value in known.items():
        if (unit := watchdog_unit(name)) and isinstance(value, float):
            yield name, unit, value


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
