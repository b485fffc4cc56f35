"""Devices fed over MQTT: what messages mean, and the whole way through a real broker in both directions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from bridge.core.config import Config, MeterConfig, MqttConfig, SetpointConfig, SourceConfig, WallboxConfig
from bridge.core.events import Confirmed, Event, Link, Read, Reconfigured
from bridge.core.formulas import parse
from bridge.mqtt.edge import MqttEdge
from bridge.mqtt.inputs import Inputs, Message, text_of, understood
from tests.core.sites import House, site
from tests.mqtt.brokers import Listener, Mosquitto, listening, until
from tests.mqtt.test_edge import Bridge

HERE = (1, 1)
SENSOR = json.dumps({"Time": "now", "ENERGY": {"Power": 1.5, "Phase": [7, 8, 9], "On": True}})

METER = MeterConfig(
    "M1",
    "mqtt-input",
    role="grid",
    topics={"power_w": SourceConfig("tele/SENSOR", "ENERGY.Power", 1000.0), "import_wh": SourceConfig("tele/total")},
)
BOX = WallboxConfig(
    "E1",
    "mqtt-input",
    topics={"state": SourceConfig("box/car", map={"1": "A", "idle": "B", "True": "C"})},
    setpoint=SetpointConfig("box/amp/set", step_a=1.0, read_back=SourceConfig("box/amp")),
)
MUTE = replace(BOX, setpoint=SetpointConfig("box/set", '{"amp": {current_ma}, "on": {enabled}}', retain=True))


def fed_site(box: WallboxConfig = BOX, port: int = 1883) -> Config:
    mqtt = MqttConfig(url=f"mqtt://127.0.0.1:{port}")
    """40 A for a box that measures nothing, so that as much is kept free as it is offered."""
    return replace(site(0, power=3 * 230 * 40), mqtt=mqtt, meters=(METER,), wallboxes=(box,))


@pytest.mark.parametrize(
    ("quantity", "source", "payload", "meant"),
    [
        ("power_w", SourceConfig("t"), " 12.5 ", 12.5),
        ("power_w", SourceConfig("t", "ENERGY.Power", 1000.0), SENSOR, 1500.0),
        ("current_l2_a", SourceConfig("t", "ENERGY.Phase.1"), SENSOR, 8.0),
        ("current_l2_a", SourceConfig("t", "ENERGY.Phase.3"), SENSOR, None),
        ("power_w", SourceConfig("t", "SI7021.Temperature"), SENSOR, None),
        ("power_w", SourceConfig("t", "Time.x"), SENSOR, None),
        ("power_w", SourceConfig("t", map={"off": "0"}), "OFF", 0.0),
        ("state", SourceConfig("t"), "c", "C"),
        ("state", SourceConfig("t"), "2", "B"),
        ("state", SourceConfig("t", map={"2": "C"}), "2", "C"),
        ("state", SourceConfig("t", "ENERGY.On", map={"True": "C"}), SENSOR, "C"),
        ("model", SourceConfig("t", "Time"), SENSOR, "now"),
    ],
)
def test_what_a_message_means(quantity: str, source: SourceConfig, payload: str, meant: object) -> None:
    assert understood(quantity, source, payload.encode()) == meant


@pytest.mark.parametrize(
    ("source", "payload"),
    [
        (SourceConfig("t"), b""),
        (SourceConfig("t"), b"unavailable"),
        (SourceConfig("t"), b"nan"),
        (SourceConfig("t"), b"\xff"),
        (SourceConfig("t", "a"), b'{"a": "x"}'),
        (SourceConfig("t", "a"), b'{"a": true}'),
        (SourceConfig("t", "a"), b"{"),
        (SourceConfig("t", "a"), b"[" * 60_000),
        (SourceConfig("t"), b"1" * 70_000),
    ],
)
def test_what_makes_no_sense(source: SourceConfig, payload: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        understood("power_w", source, payload)


@pytest.mark.parametrize(
    ("template", "amperes", "text"),
    [
        ("{current_a}", 9.9, "9.9"),
        ("{current_a}", 16.0, "16"),
        ("{current_ma}", 19.9, "19900"),
        ('{"amp": {current_a}, "frc": {enabled}}', 0.0, '{"amp": 0, "frc": false}'),
        ('{"amp": {current_a}, "frc": {enabled}}', 6.0, '{"amp": 6, "frc": true}'),
    ],
)
def test_what_a_box_is_told(template: str, amperes: float, text: str) -> None:
    assert text_of(SetpointConfig("t", template), amperes) == text


class Player:
    """A house whose devices are fed with messages, and what it publishes; the clock is the house's."""

    def __init__(self, box: WallboxConfig = BOX) -> None:
        config = fed_site(box)
        self.inputs, self.house, self.connection = Inputs(config), House(config), HERE

    def hear(self, topic: str, text: str, retained: bool = False) -> list[Event]:
        events = list(self.inputs.heard(topic, text.encode(), retained, self.house.mono, self.connection))
        self.house.happen(*events)
        return events

    def orders(self) -> list[Message]:
        return list(self.inputs.orders(self.house.snapshot, self.house.mono, self.connection))

    def wait(self, seconds: float) -> None:
        """Time passes; the grid meter talks."""
        self.house.wait(seconds)
        self.hear("tele/SENSOR", json.dumps({"ENERGY": {"Power": 0}}))

    @property
    def confirmed_a(self) -> float | None:
        return self.house.snapshot.state.offers["E1"].confirmed_a


def test_retained_messages_show_nobody_to_be_there() -> None:
    player = Player()
    assert player.hear("tele/total", "5000", retained=True) == []
    assert player.hear("tele/SENSOR", SENSOR, retained=True) == []
    assert player.hear("tele/total", "5001") == []  # the power still may be from last year
    (read,) = player.hear("tele/SENSOR", SENSOR)
    assert read == Read("M1", {"power_w": 1500.0, "import_wh": 5001.0}, player.house.mono)


def test_a_state_that_is_retained_counts_once_something_of_the_box_is_live() -> None:
    box = replace(BOX, topics={**BOX.topics, "energy_wh": SourceConfig("box/wh")})
    player = Player(box)
    assert player.hear("box/car", "True", retained=True) == []
    assert player.hear("box/wh", "7") == [Read("E1", {"state": "C", "energy_wh": 7.0}, player.house.mono)]


def test_a_device_is_as_fresh_as_its_oldest_power() -> None:
    player = Player()
    player.hear("tele/SENSOR", SENSOR)
    since = player.house.mono
    for _ in range(3):
        player.house.wait(20)
        (read,) = player.hear("tele/total", "1")
        assert isinstance(read, Read)
        assert read.mono == since
    player.house.wait(20)
    assert player.hear("tele/total", "1") == []
    assert player.house.snapshot.state.devices["M1"].reason == "not fed for 60 s"


def test_nonsense_takes_a_device_offline_at_once() -> None:
    player = Player()
    player.hear("tele/SENSOR", SENSOR)
    (link,) = player.hear("tele/SENSOR", '{"ENERGY": {"Power": "unavailable"}}')
    assert link == Link("M1", False, "power_w in tele/SENSOR: 'unavailable' is no number, or out of all proportion")
    assert player.hear("tele/total", "1") == []
    assert player.hear("tele/SENSOR", '{"SI7021": {}}') == []
    assert len(player.hear("tele/SENSOR", SENSOR)) == 1


def test_a_box_nobody_has_heard_of_is_left_alone() -> None:
    player = Player()
    player.wait(1)
    assert player.orders() == []
    player.hear("box/car", "1")
    assert player.orders() == [Message("box/amp/set", "0", False)]
    assert player.orders() == []


def test_a_setpoint_is_published_until_the_box_holds_it() -> None:
    player = Player()
    player.wait(1)
    player.hear("box/amp", "6")
    player.hear("box/car", "True")
    assert player.confirmed_a == 6
    assert player.orders() == [Message("box/amp/set", "20", False)]
    player.hear("box/amp", "6")  # from before: 20 may land any moment
    assert player.house.snapshot.state.offers["E1"].ceiling_a == 20
    player.wait(9)
    player.hear("box/car", "True")
    assert player.orders() == []
    player.wait(1)
    assert [order.text for order in player.orders()] == ["20"]
    player.hear("box/amp", "20")
    assert player.house.snapshot.state.offers["E1"].ceiling_a == 20
    player.wait(20)
    assert player.orders() == []
    player.hear("box/amp", "6")  # restarted: it says so, and is told again
    assert [order.text for order in player.orders()] == ["20"]


def test_what_a_box_says_in_milliamperes_is_what_it_was_sent() -> None:
    told = SetpointConfig("box/amp/set", "{current_ma}", read_back=SourceConfig("box/amp", scale=0.001))
    player = Player(replace(BOX, setpoint=told, max_current_a=parse(9.7)))
    player.wait(1)
    player.hear("box/amp", "6000")
    player.hear("box/car", "True")
    player.wait(1)
    assert [order.text for order in player.orders()][-1:] == ["9700"]
    player.hear("box/amp", "9700")
    player.house.happen()
    offer = player.house.snapshot.state.offers["E1"]
    assert (offer.confirmed_a, offer.pending) == (9.7, ())


def test_what_a_box_said_before_a_setpoint_could_land_settles_nothing() -> None:
    player = Player()
    player.wait(1)
    player.hear("box/amp", "6")
    player.hear("box/car", "idle")
    player.orders()
    player.hear("tele/SENSOR", '{"ENERGY": {"Power": 13.8}}')
    for _ in range(2):
        player.house.wait(0.1)
        player.hear("box/car", "idle")  # the meter's reading counts once the box has been read after it
    assert [order.text for order in player.orders()] == ["10"]
    player.hear("box/amp", "6")
    assert player.house.snapshot.state.offers["E1"].ceiling_a == 20
    player.hear("box/amp", "10")
    assert player.house.snapshot.state.offers["E1"].ceiling_a == 10


def test_a_box_that_never_says_what_it_holds_is_believed_a_while_later() -> None:
    player = Player(MUTE)
    player.wait(1)
    player.hear("box/car", "1")
    player.orders()
    player.hear("box/car", "True")
    (order,) = player.orders()
    assert order == Message("box/set", '{"amp": 20000, "on": true}', True)
    player.wait(1)
    assert len(player.hear("box/car", "True")) == 1
    player.wait(1)
    assert isinstance(player.hear("box/car", "True")[1], Confirmed)
    assert player.confirmed_a == 20


def test_what_was_sent_on_a_lost_connection_is_sent_again_and_not_believed() -> None:
    player = Player(MUTE)
    player.wait(1)
    player.hear("box/car", "True")
    player.orders()
    player.wait(5)
    player.connection = (1, 2)
    assert len(player.hear("box/car", "True")) == 1
    assert len(player.orders()) == 1


def test_the_last_order_never_raises() -> None:
    player = Player()
    assert list(player.inputs.last_orders()) == []
    player.wait(1)
    player.hear("box/car", "1")
    player.orders()
    assert list(player.inputs.last_orders()) == []
    player.hear("box/amp", "0")
    player.hear("box/car", "True")
    player.orders()
    assert [order.text for order in player.inputs.last_orders()] == ["6"]


# ------------------------------------------------------------------------------------------------- a real broker


class Box:
    """A wallbox at the broker: takes amperes, says what it holds, and what it draws."""

    def __init__(self, listener: Listener) -> None:
        self.client = listener.client
        self.client.on_message = lambda client, data, message: self._heard(listener, message)  # type: ignore[misc]

    def _heard(self, listener: Listener, message: object) -> None:
        listener._note(self.client, None, message)  # type: ignore[arg-type]
        if getattr(message, "topic", "") == "box/amp/set":
            self.client.publish("box/amp", getattr(message, "payload", b""))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    yield broker
    broker.kill()


@pytest.mark.system("mosquitto")
@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
def test_in_both_directions_through_a_real_broker(
    broker: Mosquitto, protocol: MQTTProtocolVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = MqttEdge._new_link
    monkeypatch.setattr(MqttEdge, "_new_link", lambda self, _: first(self, protocol))
    with listening(broker.port) as listener:
        publish = listener.client.publish
        publish("tele/SENSOR", SENSOR, retain=True)
        publish("box/car", "True", retain=True)
        Box(listener)
        bridge = Bridge(fed_site(port=broker.port))
        try:
            until(lambda: listener.topics.get("smgw-bridge/status") == "online")
            time.sleep(0.2)  # nothing shall come of retained messages: there is no event to wait for
            assert bridge.hub.snapshot.state.devices == {}
            publish("tele/SENSOR", SENSOR, retain=True)  # live, though its sender wants it kept
            until(lambda: listener.topics.get("smgw-bridge/meters/M1/power_w") == "1500")
            publish("box/car", "True", retain=True)
            until(lambda: listener.topics.get("box/amp/set") == "18")  # (27600 - 1500) W / 690 V / 2, whole amperes
            until(lambda: listener.topics.get("smgw-bridge/wallboxes/E1/confirmed_a") == "18")
        finally:
            bridge.stop()
        until(lambda: listener.topics.get("box/amp/set") == "6")  # left at its least


@pytest.mark.system("mosquitto")
def test_new_devices_are_listened_to(broker: Mosquitto) -> None:
    config = fed_site(port=broker.port)
    bridge = Bridge(replace(config, meters=()))
    try:
        with listening(broker.port) as listener:
            until(lambda: listener.topics.get("smgw-bridge/status") == "online")
            bridge.hub.post(Reconfigured(config))

            def shown() -> bool:
                listener.client.publish("tele/SENSOR", SENSOR)
                return listener.topics.get("smgw-bridge/meters/M1/power_w") == "1500"

            until(shown)
    finally:
        bridge.stop()
