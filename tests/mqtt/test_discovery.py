"""Home Assistant's documents: required keys, and every state topic exists in the tree."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from bridge.core.config import MqttConfig
from bridge.core.events import Override
from bridge.core.model import Snapshot
from bridge.mqtt.commands import Request, understand
from bridge.mqtt.discovery import documents, own_documents
from bridge.mqtt.render import render
from tests.mqtt.test_render import small_house

TOPIC = re.compile(r"homeassistant/device/[a-zA-Z0-9_-]+/[a-zA-Z0-9_-]+/config")
"""What Home Assistant accepts as a discovery topic with a node id."""


def at(topic: str = "home/smgw", discovery: str | bool = "homeassistant") -> Snapshot:
    snapshot = small_house().snapshot
    mqtt = MqttConfig(topic=topic, discovery=discovery)  # type: ignore[arg-type]
    return replace(snapshot, config=replace(snapshot.config, mqtt=mqtt, site="Musterweg 1"))


def test_one_document_for_the_bridge_and_each_device() -> None:
    found = documents(at())
    names = {topic.split("/")[3] for topic in found}
    assert names == {"bridge", "meter_M1", "wallbox_E1", "wallbox_E2"}
    assert all(TOPIC.fullmatch(topic) for topic in found)
    assert own_documents("homeassistant", "home/smgw") == "homeassistant/device/home_smgw/+/config"
    unique = [c["unique_id"] for text in found.values() for c in json.loads(text)["components"].values()]
    assert len(unique) == len(set(unique))
    for text in found.values():
        document = json.loads(text)
        assert document["device"]["identifiers"]
        assert document["origin"]["name"] == "SMGW Bridge"
        assert all(component["platform"] for component in document["components"].values())


def test_every_state_topic_is_a_topic_of_the_tree() -> None:
    snapshot = at()
    tree = {f"home/smgw/{topic}" for topic in render(snapshot)} | {
        "home/smgw/status",
        "home/smgw/wallboxes/E1/confirmed_a",
        "home/smgw/wallboxes/E1/override_a",
    }
    for topic, text in documents(snapshot).items():
        if topic.split("/")[3] == "wallbox_E2":
            continue  # never reached: what it would measure is not there yet
        document = json.loads(text)
        assert {component["state_topic"] for component in document["components"].values()} <= tree
        assert {entry["topic"] for entry in document["availability"]} <= tree


def test_units_and_availability() -> None:
    document = json.loads(documents(at())["homeassistant/device/home_smgw/meter_M1/config"])
    components = document["components"]
    assert components["power_w"]["device_class"] == "power"
    assert (components["import_wh"]["unit_of_measurement"], components["import_wh"]["state_class"]) == (
        "Wh",
        "total_increasing",
    )
    assert components["current_l1_a"]["name"] == "Current L1"
    assert document["availability_mode"] == "all"
    assert [entry["topic"] for entry in document["availability"]] == ["home/smgw/status", "home/smgw/meters/M1/online"]
    assert [entry["topic"] for entry in components["online"]["availability"]] == ["home/smgw/status"]
    assert document["device"]["via_device"] == "home_smgw"


def test_discovery_can_be_switched_off() -> None:
    assert documents(at(discovery=False)) == {}


def test_what_home_assistant_sends_is_a_command() -> None:
    """Its switch and its number publish what the bridge understands."""
    snapshot = at()
    components = json.loads(documents(snapshot)["homeassistant/device/home_smgw/wallbox_E1/config"])["components"]
    switch, number = components["enabled"], components["override_a"]
    assert {switch["command_topic"], number["command_topic"]} == {"home/smgw/request/override_device"}
    limit = re.sub(r"{{.*?}}", "8000", number["command_template"])
    for payload in (switch["payload_on"], switch["payload_off"], limit):
        order = understand(Request("override_device", payload.encode()), snapshot, 0.0)
        assert isinstance(order.event, Override), order.answer
        assert order.event.wallbox == "E1"
    assert order.event.current_a == 8.0
    assert "(value * 1000)" in number["command_template"]
