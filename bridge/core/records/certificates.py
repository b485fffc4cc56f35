"""Certificates the configuration names: which are in use, and when to say that one runs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from bridge.core.config import Config
from bridge.core.model import Now, State

Uses = Mapping[str, Sequence[str]]
"""Name of a certificate to the keys of the configuration that name it."""

DAY_S = 86_400
STEPS_DAYS = (7, 30, 90)
"""A warning starts this long before the end; a new certificate takes the gateway's administrator some weeks."""


def expiry_warning(not_after: float, now_utc: float) -> str | None:
    """What to tell of a certificate that is valid until ``not_after``; None while there is time.

    Both in seconds since 1970, UTC. The text changes only from step to step, so that it is told once a step.
    """
    left_s = not_after - now_utc
    if left_s > max(STEPS_DAYS) * DAY_S:
        return None
    day = f"{datetime.fromtimestamp(not_after, UTC):%Y-%m-%d}"
    if left_s < 0:
        return f"expired on {day}"
    days = next(days for days in STEPS_DAYS if left_s <= days * DAY_S)
    return f"expires within {days} days, on {day}"


def uses(config: Config | None) -> Uses:
    """Which key of the configuration names which certificate."""
    named: list[tuple[str | None, str]] = []
    if config:
        named.append((config.http.certificate, "http.certificate"))
        if smgw := config.smgw:
            named += [(smgw.certificate, "smgw.certificate"), (smgw.gateway_certificate, "smgw.gateway_certificate")]
            named += [(far.certificate, f"smgw.far_ends[{i}].certificate") for i, far in enumerate(smgw.far_ends)]
    found: dict[str, list[str]] = {}
    for name, key in named:
        if name:
            found.setdefault(name, []).append(key)
    return found


def alarms(config: Config, state: State, now: Now) -> Mapping[str, str]:
    """The certificates in use that run out soon or have, by name of the alarm."""
    found = {}
    if state.certificates:
        for name, keys in uses(config).items():
            ends = state.certificates.get(name)
            if ends is not None and (warning := expiry_warning(ends, now.utc)):
                found[f"certificate_{name}"] = f"the certificate {name} ({', '.join(keys)}) {warning}"
    return found
