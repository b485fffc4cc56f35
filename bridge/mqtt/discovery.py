"""Home Assistant's device-based discovery: one retained document for the bridge and each meter and wallbox. Pure.

Format: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload – the topic is
``PREFIX/device/NODE/OBJECT/config``; ``device`` and ``origin`` are required, every component names its ``platform``
and a ``unique_id``; an empty payload removes the device. A component that once was in a document stays known to Home
Assistant when it is left out later, so documents may grow with the quantities a device turns out to have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from bridge import __version__
from bridge.core.config import DeviceConfig, WallboxConfig
from bridge.core.model import Snapshot
from bridge.mqtt.render import Topics, digits


class _Kind(NamedTuple):
    """What Home Assistant wants to know of a unit."""

    device_class: str
    unit: str
    state_class: str = "measurement"


_KINDS = {
    "w": _Kind("power", "W"),
    "wh": _Kind("energy", "Wh", "total_increasing"),
    "a": _Kind("current", "A"),
    "v": _Kind("voltage", "V"),
    "hz": _Kind("frequency", "Hz"),
    "c": _Kind("temperature", "°C"),
    "soc_pct": _Kind("battery", "%"),
}
_GRID_STATES = ["init", "unlimited", "limited", "failsafe"]
_DECIDED = ("limit_a", "setpoint_a", "confirmed_a")

Component = dict[str, Any]


def birth(prefix: str) -> str:
    """The topic where Home Assistant says ``online`` after it has started."""
    return f"{prefix}/status"


def own_documents(prefix: str, base: str) -> str:
    """The topic filter that matches every document of this bridge and of no other."""
    return f"{prefix}/device/{_slug(base)}/+/config"


def documents(snapshot: Snapshot) -> Topics:
    """Full topic to document, for the bridge and every device; none when discovery is switched off."""
    config = snapshot.config
    base, prefix = config.mqtt.topic, config.mqtt.discovery
    if not prefix:
        return {}
    found = {"bridge": _bridge(base, config.site)}
    for meter in config.meters:
        values = snapshot.state.device(meter.id).values
        found[f"meter_{meter.id}"] = _device(base, f"meters/{meter.id}", meter, _sensors(values))
    for box in config.wallboxes:
        values = snapshot.state.device(box.id).values
        components = _sensors((*values, *_DECIDED)) | {
            "state": {"name": "State", "device_class": "enum", "options": list("ABCDEF")},
            "reason": {"name": "Reason", "entity_category": "diagnostic"},
            **_overrides(base, box),
        }
        found[f"wallbox_{box.id}"] = _device(base, f"wallboxes/{box.id}", box, components)
    node = f"{prefix}/device/{_slug(base)}"
    return {f"{node}/{name}/config": json.dumps(document, ensure_ascii=False) for name, document in found.items()}


def _bridge(base: str, site: str) -> dict[str, Any]:
    limited = "{{ 'ON' if value in ('limited', 'failsafe') else 'OFF' }}"
    components: dict[str, Component] = {
        "limit_w": {"name": "Grid limit", **_measuring("limit_w")},
        "power_w": {"name": "Grid power", **_measuring("power_w")},
        "state": {"name": "Grid state", "device_class": "enum", "options": _GRID_STATES},
        "reason": {"name": "Grid limit reason", "entity_category": "diagnostic"},
        "limited": {"platform": "binary_sensor", "name": "Limited by the grid", "value_template": limited},
    }
    device = {"identifiers": [_slug(base)], "name": site or "SMGW Bridge", "model": "SMGW Bridge"}
    document = _document(base, "grid", device, components)
    document["components"]["limited"]["state_topic"] = f"{base}/grid/state"
    return document


def _device(base: str, branch: str, config: DeviceConfig, components: dict[str, Component]) -> dict[str, Any]:
    device = {
        "identifiers": [f"{_slug(base)}_{config.id}"],
        "name": config.name or config.id,
        "model": config.profile,
        "via_device": _slug(base),
    }
    connected = {"platform": "binary_sensor", "name": "Connection", "device_class": "connectivity"}
    connected |= {"entity_category": "diagnostic", "payload_on": "true", "payload_off": "false"}
    document = _document(base, branch, device, components | {"online": connected})
    online = {"topic": f"{base}/{branch}/online", "payload_available": "true", "payload_not_available": "false"}
    document["availability"].append(online)
    # Whether a device is connected can be told as long as the bridge itself is there.
    document["components"]["online"]["availability"] = document["availability"][:1]
    return document


def _document(base: str, branch: str, device: dict[str, Any], components: dict[str, Component]) -> dict[str, Any]:
    for name, component in components.items():
        component.setdefault("platform", "sensor")
        component["unique_id"] = f"{device['identifiers'][0]}_{name}"
        component["state_topic"] = f"{base}/{branch}/{name}"
    return {
        "device": device,
        "origin": {"name": "SMGW Bridge", "sw_version": __version__},
        "availability": [{"topic": f"{base}/status"}],
        "availability_mode": "all",
        "components": components,
    }


def _overrides(base: str, box: WallboxConfig) -> dict[str, Component]:
    """What may be switched and limited until the car leaves; without a car the state stays as it is."""
    template = f'{{"dev_id": "{box.id}", "mamps": {{{{ (value * 1000) | round }}}}}}'
    switch = {
        "platform": "switch",
        "name": "Charging allowed",
        "payload_on": json.dumps({"dev_id": box.id, "flags": "c"}),
        "payload_off": json.dumps({"dev_id": box.id, "flags": "C"}),
        "state_on": "true",
        "state_off": "false",
    }
    number = {
        "platform": "number",
        "name": "Current until the car leaves",
        "command_template": template,
        "value_template": "{{ value or 'None' }}",
        "device_class": "current",
        "unit_of_measurement": "A",
        "min": box.least_a,
        "max": box.capability.max_a,
    }
    found: dict[str, Component] = {"enabled": switch, "override_a": number}
    for component in found.values():
        component["command_topic"] = f"{base}/request/override_device"
    return found


def _sensors(quantities: Iterable[str]) -> dict[str, Component]:
    """One sensor for every quantity that has a unit Home Assistant knows."""
    return {name: {"name": _title(name), **kind} for name in quantities if (kind := _measuring(name))}


def _measuring(quantity: str) -> Component:
    kind = _KINDS.get(quantity) or _KINDS.get(quantity.rpartition("_")[2])
    if kind is None:
        return {}
    return {
        "device_class": kind.device_class,
        "unit_of_measurement": kind.unit,
        "state_class": kind.state_class,
        "suggested_display_precision": digits(quantity),
    }


def _title(quantity: str) -> str:
    """``current_l1_a`` is called Current L1: the unit is shown beside the value."""
    return quantity.rpartition("_")[0].replace("_", " ").title()


def _slug(text: str) -> str:
    """What Home Assistant allows in node and object ids."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)
