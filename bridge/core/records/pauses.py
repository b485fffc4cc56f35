"""What a connected car is doing, and why it does not charge: one class for each moment of a session."""

from __future__ import annotations

from bridge.core.config import WallboxConfig
from bridge.core.decision import Decision, Setpoint
from bridge.core.model import Device
from bridge.core.records.session import Doing, Why

DRAWING_W = 100.0
"""Below this a car does not charge: the least a wallbox can offer is 6 A (IEC 61851-1), 1380 W on one line."""


def doing(box: WallboxConfig, device: Device, power_w: float | None, decision: Decision) -> tuple[Doing, Why]:
    """What the car at a wallbox that answers is doing. ``power_w`` is what flows, None when the box does not tell."""
    state = device.values.get("state")
    if state not in ("A", "B", "C", "D"):
        return "paused", "fault"
    if state in ("C", "D") and (power_w is None or power_w >= DRAWING_W):
        return "charging", ""
    setpoint = decision.setpoints.get(box.id)
    if setpoint is None or setpoint.current_a > 0:
        return "waiting", "car"
    return "paused", _paused_by(box, setpoint, decision)


def _paused_by(box: WallboxConfig, setpoint: Setpoint, decision: Decision) -> Why:
    """Why a wallbox that could charge was given nothing: its own limit first, then what all share."""
    if setpoint.limit_a < box.least_a:
        return _set_by(setpoint.source)
    if setpoint.wanted_a > 0:
        return "rotation"  # its share is there, but others have not given it up yet
    if setpoint.source == "wallbox":
        return "pause_time"
    if decision.grid.state in ("limited", "failsafe") or setpoint.source == "smgw":
        return "grid_limit"
    if setpoint.source in ("admin", "mqtt"):
        return "user"
    others = any(other.current_a > 0 for id, other in decision.setpoints.items() if id != box.id)
    return "rotation" if others else "house_load"


def _set_by(source: str) -> Why:
    """Who is behind a limit: the grid side, somebody in the house, or what was set up."""
    if source in ("smgw", "grid"):
        return "grid_limit"
    return "user" if source in ("admin", "mqtt") else "rule"
