"""Prometheus text (exposition format 0.0.4) from a snapshot and from whatever else wants to be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from bridge.core.decision import Unknown
from bridge.core.model import Snapshot
from bridge.core.variables import current

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[str, Mapping[str, str], float]
"""Name without prefix, labels, value. A name that ends with ``_total`` is a counter, any other a gauge."""

Source = Callable[[], Iterable[Sample]]

PREFIX = "smgw_bridge_"

HELP = {
    "grid_limit_w": "House limit in force, watts.",
    "grid_power_w": "Power at the house connection, import positive, watts.",
    "grid_state": "1 for the state the house limit is in: init, unlimited, limited or failsafe.",
    "grid_source": "1 for who set that limit: smgw, admin, mqtt, grid, contact or config.",
    "grid_since_seconds": "Since when the house limit is in this state, Unix time.",
    "grid_until_seconds": "When the house limit runs out, Unix time; only while it is to.",
    "grid_minimum_w": "What the grid operator owes the controllable devices, watts.",
    "grid_below_minimum": "1 while the house limit is lower than that.",
    "rounds_total": "Rounds the hub decided since the start.",
    "receipts_total": "Accepted sets of variables.",
    "receipts_stored_total": "Accepted sets of variables that are on disk.",
    "variable": "Value of a variable; NaN while it has none.",
    "device_online": "1 while a meter or wallbox answers.",
    "device_power_w": "Power of a meter or wallbox, watts.",
    "wallbox_setpoint_a": "Current a wallbox shall offer, amperes per line.",
    "wallbox_limit_a": "Tightest bound on a wallbox alone, amperes per line.",
    "wallbox_confirmed_a": "Current a wallbox was read back to offer, amperes per line.",
    "alarm": "1 for each alarm that is raised.",
    "smgw_tunnel_opened_total": "Connections through the gateway that were opened since the start.",
    "smgw_tunnel_up": "1 when the last attempt to reach a destination behind the gateway worked, 0 when it failed.",
    "certificate_expires_seconds": "Until when a certificate of the store is valid, Unix time.",
}


def render(snapshot: Snapshot, sources: Iterable[Source] = ()) -> str:
    """All samples, those of a name together, each name with HELP and TYPE."""
    families: dict[str, list[str]] = {}
    for name, labels, value in (*_of(snapshot), *(sample for source in sources for sample in source())):
        families.setdefault(name, []).append(f"{PREFIX}{name}{_labels(labels)} {_value(value)}")
    lines = []
    for name, samples in families.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        about = HELP.get(name, name.replace("_", " "))
        lines += [f"# HELP {PREFIX}{name} {about}", f"# TYPE {PREFIX}{name} {kind}", *samples]
    return "\n".join(lines) + "\n"


def _of(snapshot: Snapshot) -> Iterator[Sample]:
    config, state, decision = snapshot.config, snapshot.state, snapshot.decision
    yield "grid_limit_w", {}, decision.grid.limit_w
    if decision.grid.power_w is not None:
        yield "grid_power_w", {}, decision.grid.power_w
    yield "grid_state", {"state": decision.grid.state}, 1.0
    yield "grid_source", {"source": decision.grid.cause.source}, 1.0
    yield "grid_since_seconds", {}, decision.grid.since
    if decision.grid.until is not None:
        yield "grid_until_seconds", {}, decision.grid.until
    if decision.grid.minimum_w is not None:
        yield "grid_minimum_w", {}, decision.grid.minimum_w
        yield "grid_below_minimum", {}, float(decision.grid.below_minimum)
    yield "rounds_total", {}, snapshot.revision
    yield "receipts_total", {}, state.last_receipt
    yield "receipts_stored_total", {}, state.stored_receipt
    for key, variable in current(config, state).items():
        value = decision.values.get(key, Unknown(""))
        yield "variable", {"name": variable.name}, float("nan") if isinstance(value, Unknown) else value
    for device in (*config.meters, *config.wallboxes):
        known = state.device(device.id)
        yield "device_online", {"id": device.id}, float(known.online)
        power = known.values.get("power_w")
        if known.online and isinstance(power, int | float):
            yield "device_power_w", {"id": device.id}, power
    for name, setpoint in decision.setpoints.items():
        yield "wallbox_setpoint_a", {"id": name}, setpoint.current_a
        yield "wallbox_limit_a", {"id": name}, setpoint.limit_a
    for name, offer in state.offers.items():
        if offer.confirmed_a is not None:
            yield "wallbox_confirmed_a", {"id": name}, offer.confirmed_a
    for name in decision.alarms:
        yield "alarm", {"name": name}, 1.0
    for name, ends in state.certificates.items():
        yield "certificate_expires_seconds", {"name": name}, ends


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _value(value: float) -> str:
    special = {float("inf"): "+Inf", float("-inf"): "-Inf"}
    return "NaN" if value != value else special.get(value, repr(value))
