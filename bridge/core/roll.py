"""The roll call: what a round needs to know of all devices, whatever the limits are.

On a large site most wallboxes are idle. What follows from devices and offers alone is worked out when one of them has
changed, so that a grid command only meets the wallboxes it can concern.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from bridge.core import limits
from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import Setpoint
from bridge.core.model import Device, Offer, Present, Roll, State

WANTS_TO_CHARGE = frozenset("BCD")
"""States of IEC 61851-1 in which a car is connected and may draw current."""

_IDLE = {"A": "no car connected", "E": "the wallbox reports an error"}


def called(config: Config, state: State, before: Roll | None) -> Roll:
    """The roll of a state; the one before when it still holds."""
    if before and before.config is config and before.devices is state.devices and before.offers is state.offers:
        return before
    idle: dict[str, Setpoint] = {}
    present: list[Present] = []
    for box in config.wallboxes:
        device, offer = state.device(box.id), state.offer(box.id)
        if _is_idle(box, device, offer):
            idle[box.id] = _resting(limits.able(box).amount, unready(device))
        else:
            present.append(Present(box, device, offer, state.cars.get(box.id)))
    return Roll(config, state.devices, state.offers, idle, tuple(present), _alarms(config, state))


@cache
def _resting(most_a: float, why: str) -> Setpoint:
    """The setpoint of a wallbox that is idle; the same object each round, so that nobody looks at it twice."""
    return Setpoint(0.0, most_a, 0.0, why, "wallbox")


def unready(device: Device) -> str:
    """Why a wallbox does not want to charge; empty when it does."""
    state = device.values.get("state")
    return "" if state in WANTS_TO_CHARGE else _IDLE.get(str(state), "the wallbox is not ready")


def _is_idle(box: WallboxConfig, device: Device, offer: Offer) -> bool:
    """Whether nothing can matter to a box: it answers, wants nothing, holds nothing, and has no limit of its own."""
    own_limit = box.max_current_a is not None or box.max_power_w is not None
    return device.online and offer.ceiling_a == 0.0 and not own_limit and unready(device) != ""


def _alarms(config: Config, state: State) -> Mapping[str, str]:
    """The devices somebody should look after, by name of the alarm."""
    alarms: dict[str, str] = {}
    for device in config.devices:
        known = state.device(device.id)
        if not known.online:
            alarms[f"{device.id}_offline"] = f"{device.name or device.id} is not reachable: {known.reason}"
        elif known.reason:
            alarms[f"{device.id}_doubtful"] = f"{device.name or device.id}: {known.reason}"
    return alarms
