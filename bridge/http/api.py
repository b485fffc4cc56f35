"""What the REST API and the home page show: pure functions from a snapshot to JSON documents.

Names and units are those of the MQTT topics. Instants are ISO 8601 in UTC, numbers that are whole come without ``.0``.
"""

from __future__ import annotations

import json

from bridge.core.config import DeviceConfig, WallboxConfig
from bridge.core.explain import Explanation, sentences
from bridge.core.loads.phases import lines
from bridge.core.model import Receipt, Snapshot
from bridge.core.records import journal
from bridge.core.variables import current, fresh, listing, plain

Json = dict[str, object]


def receipt_of(receipt: Receipt) -> Json:
    """What came of one set, from the request to the register of every wallbox."""
    return {
        "id": receipt.id,
        "received_at": instant(receipt.received_at),
        "source": receipt.cause.source,
        "variables": {name: expression(formula.constant, formula.text) for name, formula in receipt.cause.variables},
        "clear": receipt.cause.clear,
        "limit_w": number(receipt.limit_w),
        "in_force_at": instant(receipt.in_force_at),
        "stored_at": instant(receipt.stored_at),
        "error": receipt.error or None,
        "wallboxes": {
            name: {
                "wanted_a": number(box.wanted_a),
                "confirmed_a": number(box.confirmed_a),
                "confirmed_at": instant(box.confirmed_at),
                "state": box.state,
            }
            for name, box in receipt.wallboxes.items()
        },
    }


def variables_of(snapshot: Snapshot) -> list[Json]:
    """All variables as :func:`~bridge.core.variables.listing` shows them, and who set them when."""
    known = current(snapshot.config, snapshot.state)
    return [
        {**shown, "source": variable.source, "set_at": instant(variable.set_at or None)}
        for shown, variable in zip(listing(snapshot), known.values(), strict=True)
    ]


def devices_of(snapshot: Snapshot) -> Json:
    """All meters and wallboxes with their newest readings."""
    config = snapshot.config
    return {
        "meters": [{**_device(snapshot, meter), "role": meter.role} for meter in config.meters],
        "wallboxes": [_wallbox(snapshot, wallbox) for wallbox in config.wallboxes],
    }


def _device(snapshot: Snapshot, config: DeviceConfig) -> Json:
    known = snapshot.state.device(config.id)
    age_s = snapshot.now.mono - known.mono
    return {
        "id": config.id,
        "name": config.name or config.id,
        "online": known.online,
        "stale": not fresh(config, known, snapshot.now),
        "reason": known.reason,
        "age_s": round(age_s, 1) if age_s < float("inf") else None,
        "values": {name: value if isinstance(value, str) else number(value) for name, value in known.values.items()},
    }


def _wallbox(snapshot: Snapshot, config: WallboxConfig) -> Json:
    setpoint = snapshot.decision.setpoints.get(config.id)
    offer = snapshot.state.offer(config.id)
    return {
        **_device(snapshot, config),
        "lines": list(config.lines),
        "phases": lines(snapshot.state, config),
        "setpoint_a": number(setpoint.current_a) if setpoint else None,
        "limit_a": number(setpoint.limit_a) if setpoint else None,
        "confirmed_a": number(offer.confirmed_a),
        "setpoint_reason": setpoint.reason if setpoint else "not decided yet",
        "source": setpoint.source if setpoint else "",
    }


def snapshot_of(snapshot: Snapshot) -> Json:
    """Everything the home page shows."""
    grid = snapshot.decision.grid
    return {
        "site": snapshot.config.site,
        "revision": snapshot.revision,
        "at": instant(snapshot.now.utc),
        "grid": {
            "limit_w": number(grid.limit_w),
            "power_w": number(grid.power_w),
            "state": grid.state,
            "since": instant(grid.since),
            "until": instant(grid.until),
            "minimum_w": number(grid.minimum_w),
            "below_minimum": grid.below_minimum,
            "reason": grid.cause.reason,
            "source": grid.cause.source,
        },
        "variables": variables_of(snapshot),
        **devices_of(snapshot),
        "alarms": dict(snapshot.decision.alarms),
    }


def explanation_of(snapshot: Snapshot, explanation: Explanation) -> Json:
    """Each limit, who binds, and what each wallbox gets and why."""
    config = snapshot.config
    return {
        "grid": {
            "limit_w": number(explanation.grid.limit_w),
            "state": explanation.grid.state,
            "reason": explanation.grid.cause.reason,
            "source": explanation.grid.cause.source,
        },
        "limits": [
            {**bound._asdict(), "room_a": number(round(bound.room_a, 3)), "used_a": number(round(bound.used_a, 3))}
            for bound in explanation.bounds
        ],
        "wallboxes": [
            {"id": id, "gets_a": number(point.current_a), "limit_a": number(point.limit_a), "reason": point.reason}
            for id, point in explanation.boxes.items()
        ],
        "sentences": sentences(config, explanation),
    }


def is_settled(receipt: Receipt | None) -> bool:
    """Whether there is nothing left to wait for: every wallbox confirmed, or a newer set has taken over."""
    return receipt is None or all(box.state in ("confirmed", "superseded") for box in receipt.wallboxes.values())


def text_of(value: object) -> str:
    """A JSON document as text; numbers that JSON does not know never get here (see :func:`number`)."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def expression(constant: float | None, text: str) -> float | int | str:
    """What a variable was set to: a number when it is just a number, else the formula."""
    return text if constant is None else (number(constant) or 0)


def number(value: float | None) -> float | int | None:
    """A number as people write it: 70, not 70.0."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return plain(float(value))


def instant(utc: float | None) -> str | None:
    """Unix seconds as ISO 8601 with milliseconds, in UTC."""
    return None if utc is None else journal.instant(utc)
