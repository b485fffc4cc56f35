"""The topic tree: what a snapshot looks like in MQTT. Pure; one line here is one topic.

Topics are relative to the base topic. A topic without text does not exist: :func:`render` leaves it out, and a topic
that was there before is published once with an empty payload. ``docs/mqtt.md`` names every topic with its unit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping

from bridge.core.config import DeviceConfig, MeterConfig, WallboxConfig
from bridge.core.decision import GridDecision, GroupDecision, Setpoint, Unknown
from bridge.core.grid.expiry import ends_at
from bridge.core.loads.phases import lines
from bridge.core.model import Device, Offer, Overridden, Snapshot, Variable
from bridge.core.records.journal import instant
from bridge.core.records.session import Session
from bridge.core.records.sessions import shown
from bridge.core.variables import current, fresh

Topics = dict[str, str]
"""Topic to text."""

_Branch = tuple[str, Callable[..., Topics], tuple[object, ...]]
"""A branch of the tree: its topic, the function that draws what hangs on it, and all that function looks at."""

_DIGITS = {"w": 0, "wh": 0, "va": 0, "var": 0, "s": 0, "v": 1, "pct": 1, "c": 1, "a": 2, "hz": 2, "refresh_s": 1}
"""Decimals of measured values by unit or name: what a meter of class 1 can mean, so that noise is not published."""

_FINE = 3
"""Decimals of what was decided, of confirmed currents and of measured values without one of the units above."""

_SECRET = frozenset({"rfid"})
"""Never published: who knows a tag's number can charge with it."""


def render(snapshot: Snapshot) -> Topics:
    """The whole tree of a snapshot: relative topic to non-empty text."""
    topics: Topics = {}
    for branch, draw, inputs in _branches(snapshot):
        topics |= _drawn(branch, draw, inputs)
    return topics


class Tree:
    """Follows snapshots and draws only the branches whose inputs changed; always as :func:`render` would."""

    def __init__(self) -> None:
        self._branches: dict[str, tuple[tuple[object, ...], Topics]] = {}

    def follow(self, snapshot: Snapshot) -> Topics:
        """What changed since the last snapshot: topic to new text, empty when the topic is gone."""
        changed: Topics = {}
        count = 0
        for branch, draw, inputs in _branches(snapshot):
            count += 1
            known = self._branches.get(branch)
            if known is None or known[0] != inputs:
                before = known[1] if known else {}
                after = _drawn(branch, draw, inputs)
                self._branches[branch] = (inputs, after)
                changed |= _difference(before, after)
        if count < len(self._branches):
            for branch in self._branches.keys() - {branch for branch, _, _ in _branches(snapshot)}:
                changed |= _difference(self._branches.pop(branch)[1], {})
        return changed


def _difference(before: Topics, after: Topics) -> Topics:
    gone = dict.fromkeys(before.keys() - after.keys(), "")
    return gone | {topic: text for topic, text in after.items() if before.get(topic) != text}


def _drawn(branch: str, draw: Callable[..., Topics], inputs: tuple[object, ...]) -> Topics:
    """Full relative topics of a branch; the key "" is the branch's own topic."""
    return {f"{branch}/{leaf}" if leaf else branch: text for leaf, text in draw(*inputs).items() if text}


def _branches(snapshot: Snapshot) -> Iterator[_Branch]:
    config, state, decision, now = snapshot.config, snapshot.state, snapshot.decision, snapshot.now
    yield "grid", _grid, (decision.grid,)
    yield "alarm", _alarms, (decision.alarms,)
    yield "journal", _journal, (state.journal.head,)
    for key, variable in current(config, state).items():
        until = None if variable.expired else ends_at(config, key, variable)
        said = (decision.values.get(key), decision.notes.get(key, ""), until)
        yield f"vars/{variable.name}", _variable, (variable, *said)
    for group in config.groups:
        yield f"groups/{group.id}", _group, (group.name, decision.groups.get(group.id))
    unread, devices = Device(), state.devices
    for meter in config.meters:
        device = devices.get(meter.id, unread)
        yield f"meters/{meter.id}", _meter, (meter, device, fresh(meter, device, now))
    for box in config.wallboxes:
        device, id_ = devices.get(box.id, unread), box.id
        decided = (decision.setpoints.get(id_), state.offers.get(id_), state.overrides.get(id_), lines(state, box))
        inputs = (box, device, fresh(box, device, now), *decided)
        yield f"wallboxes/{id_}", _wallbox, inputs
        yield f"wallboxes/{id_}/session", _session, (state.sessions.open.get(id_), state.sessions.last.get(id_))


def _grid(grid: GridDecision) -> Topics:
    return {
        "limit_w": number(grid.limit_w, _FINE),
        "power_w": number(grid.power_w, _DIGITS["w"]),
        "reason": grid.cause.reason,
        "source": grid.cause.source,
        "state": grid.state,
        "since": instant(grid.since),
        "until": instant(grid.until) if grid.until else "",
        "minimum_w": number(grid.minimum_w, _FINE),
        "below_minimum": "true" if grid.below_minimum else "false",
    }


def _group(name: str, decided: GroupDecision | None) -> Topics:
    if decided is None:
        return {"name": name}
    return {
        "name": name,
        "room_a": number(decided.room_a, _FINE),
        "reason": decided.reason,
        "source": decided.source,
    }


def _alarms(alarms: Mapping[str, str]) -> Topics:
    return {level(name): text for name, text in alarms.items()}


def _journal(head: str) -> Topics:
    return {"head": head}


def _variable(variable: Variable, value: float | Unknown | None, note: str, until: float | None) -> Topics:
    return {
        "": number(value) if isinstance(value, float | int) else "",
        "expr": variable.formula.text,
        "source": variable.source,
        "set_at": instant(variable.set_at) if variable.set_at else "",  # never set: still its initial value
        "error": value.reason if isinstance(value, Unknown) else "",
        "note": note,
        "until": instant(until) if until else "",
    }


def _meter(meter: MeterConfig, device: Device, online: bool) -> Topics:
    return _measured(device, online) | _device(meter, online)


def _wallbox(
    box: WallboxConfig,
    device: Device,
    online: bool,
    setpoint: Setpoint | None,
    offer: Offer | None,
    override: Overridden | None,
    connected: int,
) -> Topics:
    topics = {"state": "F", "phases": str(connected)} | _measured(device, online) | _device(box, online)
    if box.switches:
        topics["phases"] = str(connected)  # what is certain now, not what was read some polls ago
    topics["limit_a"] = number(setpoint.limit_a, _FINE) if setpoint else ""
    topics["setpoint_a"] = number(setpoint.current_a, _FINE) if setpoint else ""
    topics["confirmed_a"] = number(offer.confirmed_a, _FINE) if offer and online else ""
    topics["enabled"] = "false" if override and "charging" in override.off else "true"
    topics["override_a"] = number(override.current_a, _FINE) if override else ""
    topics["reason"] = setpoint.reason if setpoint else ""
    return topics


def _session(session: Session | None, last: Session | None) -> Topics:
    topics = {"last": json.dumps(shown(last, instant))} if last else {}
    if session is None or session.ended:
        return topics
    topics["started_at"] = instant(session.plugged_at)
    topics["energy_wh"] = number(session.energy_wh, _DIGITS["wh"])
    topics["charging_s"] = number(session.charging_s // 60 * 60)  # nobody needs a message each second for that
    topics["paused_reason"] = session.spans[-1].why
    return topics


def _device(device: DeviceConfig, online: bool) -> Topics:
    return {"name": device.name or device.id, "online": "true" if online else "false"}


def _measured(device: Device, online: bool) -> Topics:
    """What the device itself said. Of one that does not answer nothing is shown: no value rather than an old one."""
    if not online:
        return {}
    return {
        quantity: reading if isinstance(reading, str) else number(reading, digits(quantity))
        for quantity, reading in device.values.items()
        if quantity not in _SECRET
    }


def digits(quantity: str) -> int:
    """How many decimals a measured quantity is shown with."""
    return _DIGITS.get(quantity, _DIGITS.get(quantity.rpartition("_")[2], _FINE))


def number(value: float | None, decimals: int | None = None) -> str:
    """The shortest text of a number: ``70``, ``19.93``, never ``70.0`` or ``-0``.

    Without ``decimals`` it reads back as the very same number. Empty for None and for what is not finite.
    """
    if value is None or not math.isfinite(value):
        return ""
    rounded = value if decimals is None else round(value, decimals)
    return repr(float(rounded) + 0.0).removesuffix(".0")


def level(name: str) -> str:
    """A name as one topic level: what MQTT keeps for itself becomes ``_`` (MQTT 5, 4.7)."""
    return re.sub(r"[/+#\x00-\x1f\x7f]", "_", name)
