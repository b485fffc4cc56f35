"""The edge against a real broker and a real hub: fresh, empty, killed, frozen; and commands on the wire."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.publish import single

from bridge.core.config import Config, MeterConfig, MqttConfig, VariableConfig
from bridge.core.events import Link, Read, Reconfigured, Stored
from bridge.core.formulas import parse
from bridge.core.model import Now, Snapshot, State
from bridge.edge import Edge
from bridge.hub import Hub
from bridge.mqtt import edge as edge_module
from bridge.mqtt import link
from bridge.mqtt.edge import MqttEdge
from bridge.mqtt.link import WINDOW
from bridge.mqtt.render import render
from tests.core.sites import site
from tests.mqtt.brokers import Listener, Mosquitto, listening, until

pytestmark = pytest.mark.system("mosquitto")


class Disk:
    """Stands in for storage: says that everything is stored, unless told otherwise."""

    def __init__(self, post: Callable[[Stored], None]) -> None:
        self._post = post
        self.error = ""
        self._last = 0

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def offer(self, snapshot: Snapshot) -> None:
        if snapshot.state.last_receipt > self._last:
            self._last = snapshot.state.last_receipt
            self._post(Stored(self._last, self.error))


class Bridge:
    """Hub, disk and MQTT edge on one broker."""

    def __init__(
        self, config: Config, via: tuple[str, int] | None = None, way_open: Callable[[], bool] = lambda: True
    ) -> None:
        self.hub = Hub(config, State(), lambda: Now(time.monotonic(), time.time()))
        self.disk = Disk(self.hub.post)
        self.edge = MqttEdge(config, self.hub, via, way_open)
        self._edges: list[Edge] = [self.disk, self.edge]
        for edge in self._edges:
            edge.start()
        self.hub.start(self._edges)

    def tree(self) -> dict[str, str]:
        return {f"smgw-bridge/{topic}": text for topic, text in render(self.hub.snapshot).items()}

    def shown_by(self, listener: Listener) -> bool:
        """Whether the broker has exactly our tree, and that we are online."""
        ours = {
            t: text for t, text in listener.topics.items() if t.startswith("smgw-bridge/") and "/re" not in t[11:15]
        }
        return ours == {**self.tree(), "smgw-bridge/status": "online"}

    def stop(self) -> None:
        self.edge.stop()
        self.hub.stop()


def settings(port: int, devices: int = 1, **mqtt: object) -> Config:
    config = site(1)
    variables = {**config.variables, "WISH": VariableConfig(parse(0), 0, 10, ("mqtt",))}
    return replace(
        config,
        variables=variables,
        meters=tuple(MeterConfig(f"M{n}", "p", "127.0.0.1:502") for n in range(1, devices + 1)),
        mqtt=MqttConfig(**{"url": f"mqtt://127.0.0.1:{port}", **mqtt}),  # type: ignore[arg-type]
    )


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    yield broker
    broker.kill()


@pytest.fixture
def bridge(broker: Mosquitto) -> Iterator[Bridge]:
    bridge = Bridge(settings(broker.port))
    yield bridge
    bridge.stop()


def test_tree_status_and_changes(broker: Mosquitto, bridge: Bridge) -> None:
    with listening(broker.port) as listener:
        until(lambda: bridge.shown_by(listener))
        until(lambda: "homeassistant/device/smgw-bridge/bridge/config" in listener.topics)
        bridge.hub.post(Link("M1", True))
        bridge.hub.post(Read("M1", {"power_w": 1234.0}, time.monotonic()))
        until(lambda: listener.topics.get("smgw-bridge/meters/M1/power_w") == "1234")
        until(lambda: bridge.shown_by(listener))
        before = bridge.tree()
        bridge.stop()
        until(lambda: listener.topics["smgw-bridge/status"] == "offline")
        seen = listener.topics
    assert before.items() <= seen.items()
    with listening(broker.port) as listener:
        until(lambda: listener.topics == seen)
        assert all(message.retain for message in listener.heard)


def test_last_will(broker: Mosquitto, bridge: Bridge) -> None:
    with listening(broker.port) as listener:
        until(lambda: listener.topics.get("smgw-bridge/status") == "online")
        # The connection breaks without a DISCONNECT: the broker speaks for us until we are back.
        bridge.edge._link._client.socket().shutdown(2)  # type: ignore[union-attr]
        until(lambda: "offline" in [m.payload.decode() for m in listener.heard if m.topic == "smgw-bridge/status"])
        until(lambda: listener.topics["smgw-bridge/status"] == "online")


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
def test_the_last_will_of_a_connection_that_was_left_is_contradicted(
    broker: Mosquitto, protocol: MQTTProtocolVersion
) -> None:
    """After a renewal the former connection may be dead without a word; the broker notices half a minute later."""
    bridge = Bridge(settings(broker.port))
    try:
        with listening(broker.port) as listener:
            until(lambda: bridge.shown_by(listener))
            if protocol == MQTTProtocolVersion.MQTTv311:
                bridge.edge._close()
                bridge.edge._connect(protocol)
                until(lambda: bridge.edge._link.connected and bridge.edge._link.version == protocol)
                until(lambda: listener.topics["smgw-bridge/status"] == "online")
            before = len(listener.heard)
            single("smgw-bridge/status", "offline", qos=1, retain=True, port=broker.port)
            until(lambda: b"offline" in [m.payload for m in listener.heard[before:]])
            until(lambda: listener.topics["smgw-bridge/status"] == "online")
    finally:
        bridge.stop()


def test_nobody_waits_for_the_end_of_a_connection_that_is_left(broker: Mosquitto) -> None:
    """It may be in the middle of an attempt to connect, with a gateway that has gone silent."""
    begun, over = threading.Event(), threading.Event()

    def close() -> None:
        begun.set()
        over.wait(60)

    bridge = Bridge(settings(broker.port), ("127.0.0.1", broker.port))
    try:
        with listening(broker.port) as listener:
            until(lambda: bridge.shown_by(listener))
            bridge.edge._former = cast(link.Link, SimpleNamespace(close=close))
            assert begun.wait(30)
            assert listener.ask("set_cm_vars", {"vars": [{"name": "WISH", "expr": 5}]})["status"] == "ok"
            until(lambda: listener.topics.get("smgw-bridge/vars/WISH") == "5" and bridge.shown_by(listener))
            assert not over.is_set()
    finally:
        over.set()
        bridge.stop()


def test_broker_killed_and_back_empty(broker: Mosquitto, bridge: Bridge) -> None:
    until(lambda: bridge.edge._link.connected)
    broker.kill()
    until(lambda: not bridge.edge._link.connected)
    bridge.hub.post(Link("M1", True))
    bridge.hub.post(Read("M1", {"power_w": 77.0}, time.monotonic()))
    broker.start()
    with listening(broker.port) as listener:
        until(lambda: bridge.shown_by(listener))
        assert listener.topics["smgw-bridge/meters/M1/power_w"] == "77"
        assert listener.ask("get_cm_vars", {"id": 1})["status"] == "ok", "subscribed again"


def test_who_hangs_up_before_a_word_is_asked_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time in the other version: a broker may not know MQTT 5 and just hang up."""
    monkeypatch.setattr(edge_module, "PATIENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        bridge = Bridge(settings(listener.getsockname()[1]))
        try:
            versions = set()
            while len(versions) < 2:
                wire, _ = listener.accept()
                with wire:
                    versions.add(wire.recv(100).partition(b"MQTT")[2][:1])
            assert versions == {b"\x04", b"\x05"}
            assert bridge.edge._patience_s >= 0.1
        finally:
            bridge.stop()


def test_small_messages_do_not_wait_for_each_other(broker: Mosquitto, bridge: Bridge) -> None:
    until(lambda: bridge.edge._link.connected)
    client_socket = bridge.edge._link._client.socket()
    assert client_socket is not None
    assert client_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_broker_absent_at_start(broker: Mosquitto) -> None:
    broker.kill()
    bridge = Bridge(settings(broker.port))
    try:
        broker.start()
        with listening(broker.port) as listener:
            until(lambda: bridge.shown_by(listener))
    finally:
        bridge.stop()


def test_frozen_broker_costs_nothing_and_gets_the_newest(broker: Mosquitto) -> None:
    bridge = Bridge(settings(broker.port, devices=50, discovery=False))
    try:
        with listening(broker.port) as listener:
            until(lambda: bridge.shown_by(listener))
            broker.freeze()
            slowest = 0.0
            for value in range(100):
                reads = [Read(f"M{n}", {"power_w": float(value)}, time.monotonic()) for n in range(1, 51)]
                bridge.hub.ask(Link("M1", True))
                for n, read in enumerate(reads, 1):
                    bridge.hub.post(Link(f"M{n}", True))
                    bridge.hub.post(read)
                snapshot = bridge.hub.snapshot
                begin = time.perf_counter()
                bridge.edge.offer(snapshot)
                slowest = max(slowest, time.perf_counter() - begin)
                time.sleep(0.002)
            assert slowest < 0.005
            bridge.hub.until(lambda s: s.state.devices["M50"].values == {"power_w": 99.0}, 10.0)
            until(lambda: bridge.edge._shown is bridge.hub.snapshot)
            client = bridge.edge._link._client
            assert len(client._out_messages) <= WINDOW
            assert len(bridge.edge._outbox) <= len(bridge.edge._outbox.wanted) + 1
            broker.thaw()
            until(lambda: bridge.shown_by(listener))
            assert listener.topics["smgw-bridge/meters/M50/power_w"] == "99"
    finally:
        broker.thaw()
        bridge.stop()


def test_nothing_old_comes_after_a_new_connection(broker: Mosquitto) -> None:
    bridge = Bridge(settings(broker.port, devices=100, discovery=False))

    def read(watts: float) -> None:
        for n in range(1, 101):
            bridge.hub.post(Link(f"M{n}", True))
            bridge.hub.post(Read(f"M{n}", {"power_w": watts, "current_l1_a": watts}, time.monotonic()))

    try:
        until(lambda: bridge.edge._link.idle and bridge.edge._link.connected and not len(bridge.edge._outbox))
        broker.freeze()
        read(1.0)
        until(lambda: bridge.edge._link.room == 0)
        broker.kill()
        until(lambda: not bridge.edge._link.connected)
        read(2.0)
        broker.start()
        with listening(broker.port) as listener:
            assert not bridge.edge._link.connected, "the listener must be there first"
            until(lambda: bridge.shown_by(listener))
            power = {bytes(m.payload) for m in listener.heard if m.topic.endswith("power_w") and "/meters/" in m.topic}
            assert power == {b"2"}
    finally:
        bridge.stop()


def test_what_a_former_life_left_is_removed(broker: Mosquitto) -> None:
    for topic in ("smgw-bridge/wallboxes/E9/power_w", "homeassistant/device/smgw-bridge/wallbox_E9/config", "other/x"):
        single(topic, "old", qos=1, retain=True, port=broker.port)
    with listening(broker.port) as listener:
        until(lambda: "smgw-bridge/wallboxes/E9/power_w" in listener.topics)
        bridge = Bridge(settings(broker.port))
        try:
            until(lambda: bridge.shown_by(listener))
            until(lambda: "homeassistant/device/smgw-bridge/wallbox_E9/config" not in listener.topics)
            assert listener.topics["other/x"] == "old"
        finally:
            bridge.stop()


def test_removed_devices_and_a_new_base_topic(broker: Mosquitto, bridge: Bridge) -> None:
    with listening(broker.port) as listener:
        until(lambda: bridge.shown_by(listener))
        bridge.hub.ask(Reconfigured(replace(bridge.hub.snapshot.config, meters=())))
        until(lambda: bridge.shown_by(listener))
        until(lambda: not any("/meters/" in topic or "meter_M1" in topic for topic in listener.topics))
        config = bridge.hub.snapshot.config
        bridge.hub.ask(Reconfigured(replace(config, mqtt=replace(config.mqtt, topic="house/bridge"))))
        until(lambda: listener.topics.get("house/bridge/status") == "online")
        until(lambda: not any(topic.startswith("smgw-bridge/") for topic in listener.topics))
        until(lambda: "homeassistant/device/smgw-bridge/bridge/config" not in listener.topics)


def test_home_assistant_starts_later(broker: Mosquitto, bridge: Bridge) -> None:
    document = "homeassistant/device/smgw-bridge/bridge/config"
    with listening(broker.port) as listener:
        until(lambda: bridge.shown_by(listener))
        before = len(listener.heard)
        listener.client.publish("homeassistant/status", "online", qos=1)
        until(lambda: document in [message.topic for message in listener.heard[before:]])


# --------------------------------------------------------------------------------------------------- commands


def test_set_is_answered_when_stored(broker: Mosquitto, bridge: Bridge) -> None:
    with listening(broker.port) as listener:
        until(lambda: bridge.shown_by(listener))
        answer = listener.ask("set_cm_vars", {"id": "7", "vars": [{"name": "WISH", "expr": 4}]})
        assert answer == {"id": "7", "status": "ok", "receipt": 1}
        assert not listener.last_answer.retain
        assert bridge.hub.snapshot.state.stored_receipt == 1
        until(lambda: listener.topics.get("smgw-bridge/vars/WISH") == "4")
        until(lambda: listener.topics["smgw-bridge/vars/WISH/source"] == "mqtt")
        assert listener.ask("set_cm_vars", b"{nonsense")["status"] == "error"
        past = {"id": 8, "vars": [{"name": "WISH", "expr": 5}], "expires_at": "2020-01-01T00:00:00Z"}
        assert "expired" in listener.ask("set_cm_vars", past)["error"]
        forbidden = listener.ask("set_cm_vars", {"id": 9, "vars": [{"name": "AVAIL", "expr": 100}]})
        assert (forbidden["id"], forbidden["status"]) == (9, "error")
        bridge.disk.error = "card full"
        assert "stored" in listener.ask("set_cm_vars", {"vars": [{"name": "WISH", "expr": 6}]})["error"]


def test_an_override_is_answered_when_in_force(broker: Mosquitto, bridge: Bridge) -> None:
    with listening(broker.port) as listener:
        until(lambda: bridge.shown_by(listener))
        wish = {"id": 1, "dev_id": "E1", "flags": "C"}
        assert "no car is connected" in listener.ask("override_device", wish)["error"]
        bridge.hub.ask(Read("E1", {"state": "C"}, time.monotonic()))
        assert listener.ask("override_device", wish) == {"id": 1, "status": "ok"}
        assert bridge.hub.snapshot.state.overrides.keys() == {"E1"}
        until(lambda: listener.topics.get("smgw-bridge/wallboxes/E1/enabled") == "false")


def test_mqtt_5_callers_name_the_topic_of_the_answer(broker: Mosquitto, bridge: Bridge) -> None:
    with listening(broker.port) as listener:
        until(lambda: bridge.shown_by(listener))
        body = {"vars": [{"name": "WISH", "expr": 4}]}
        answer = listener.ask("set_cm_vars", body, ResponseTopic="client/answers", CorrelationData=b"\x00mark")
        assert answer["status"] == "ok"
        assert listener.last_answer.properties is not None
        assert listener.last_answer.properties.CorrelationData == b"\x00mark"


@pytest.mark.parametrize("live", [True, False])
def test_a_retained_command_never_acts(broker: Mosquitto, live: bool) -> None:
    body = {"id": "old", "vars": [{"name": "WISH", "expr": 9}]}
    topic = "smgw-bridge/request/set_cm_vars"
    if not live:
        single(topic, json.dumps(body), qos=1, retain=True, port=broker.port)
    with listening(broker.port) as listener:
        bridge = Bridge(settings(broker.port))
        try:
            if live:
                until(lambda: bridge.shown_by(listener))
                single(topic, json.dumps(body), qos=1, retain=True, port=broker.port)
            until(lambda: "smgw-bridge/response/set_cm_vars" in listener.topics)
            answer = json.loads(listener.topics["smgw-bridge/response/set_cm_vars"])
            assert (answer["id"], answer["status"]) == ("old", "error")
            assert "retained" in answer["error"]
            assert bridge.hub.snapshot.state.last_receipt == 0
        finally:
            bridge.stop()


def test_a_flood_of_commands_is_answered_and_bounded(broker: Mosquitto, bridge: Bridge) -> None:
    with listening(broker.port) as listener:
        until(lambda: bridge.shown_by(listener))
        bridge.disk.offer = lambda snapshot: None  # type: ignore[method-assign]  # nothing gets stored any more
        for number in range(100):
            body = json.dumps({"id": number, "vars": [{"name": "WISH", "expr": 1}]})
            listener.client.publish("smgw-bridge/request/set_cm_vars", body, qos=1)
        topic = "smgw-bridge/response/set_cm_vars"
        until(lambda: sum(message.topic == topic for message in listener.heard) >= 100 - 33)
        assert "too many" in json.loads(listener.topics[topic])["error"]


def test_sweeping_ends(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_module, "SWEEP_S", 0.1)
    bridge = Bridge(settings(broker.port))
    try:
        with listening(broker.port, MQTTProtocolVersion.MQTTv311) as listener:
            until(lambda: bridge.shown_by(listener))
            until(lambda: bridge.edge._sweep_ends is None)
            listener.client.publish("smgw-bridge/meters/mine/note", "x", qos=1, retain=True)
            assert listener.ask("get_cm_vars", {})["status"] == "ok"
            assert listener.topics["smgw-bridge/meters/mine/note"] == "x"
    finally:
        bridge.stop()
        gc.collect()
