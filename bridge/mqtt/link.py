"""The connection to a broker. Wraps paho, which nothing else in the bridge touches.

Facts of paho 2.2 this is built on: callbacks run on paho's own thread and must not block; a publish while the
connection is down is queued, so what is left over is dropped at every CONNACK, before the newer tree goes out;
Nagle's algorithm is left on unless switched off here.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from random import uniform
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from bridge.core.config import MqttConfig
from bridge.mqtt.outbox import OFFLINE

logger = logging.getLogger(__name__)

WINDOW = 200
"""Messages on their way at most. A frozen broker costs this much memory and no more."""

KEEPALIVE_S = 15

_OTHER = {
    MQTTProtocolVersion.MQTTv5: MQTTProtocolVersion.MQTTv311,
    MQTTProtocolVersion.MQTTv311: MQTTProtocolVersion.MQTTv5,
}


class Address(NamedTuple):
    """Where a broker is and how to get in."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(config: MqttConfig) -> Address:
    """The broker to talk to: the one of ``url``, else our own, which is always on a loopback address."""
    if config.url is None:
        host, _, port = config.listen.rpartition(":")
        host = host.strip("[]")
        return Address(host if _is_loopback(host) else "127.0.0.1", int(port))
    url = urlsplit(config.url)
    tls = url.scheme == "mqtts"
    user, password = (None if part is None else unquote(part) for part in (url.username, url.password))
    return Address(url.hostname or "localhost", url.port or (8883 if tls else 1883), tls, user, password)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class _Relayed(Client):
    """A client whose connection may lead to another address than the one it names."""

    via: tuple[str, int] | None = None

    def _create_socket_connection(self) -> socket.socket:
        if self.via is None:
            return super()._create_socket_connection()
        return socket.create_connection(self.via, self._connect_timeout)


class Link:
    """One client of one broker, connecting again and again until :meth:`close`.

    ``subscribe``: the filters to subscribe to after every CONNACK, with their QoS. ``foreign``: topics of others, whose
    messages are marked as retained only when the broker had kept them. ``via``: where to connect instead, for a broker
    behind the gateway; its name stays what its certificate says. ``way_open``: whether that leads anywhere now.
    ``wake`` is called when there is something new to look at: a fresh connection (:attr:`connections` grew) or room for
    more messages. ``received`` gets every message. Both are called on paho's thread. ``second``: a name of its own, for
    one that is made while another of the same configuration is still connected.
    """

    def __init__(
        self,
        config: MqttConfig,
        subscribe: Sequence[tuple[str, int]],
        wake: Callable[[], None],
        received: Callable[[MQTTMessage], None],
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        foreign: Iterable[str] = (),
        via: tuple[str, int] | None = None,
        second: bool = False,
        way_open: Callable[[], bool] = lambda: True,
    ) -> None:
        self.connected = self.listening = False
        """Whether there is a CONNACK, and a SUBACK after it."""
        self.connections = 0
        self.connected_at = 0.0
        """Of the last time (monotonic clock)."""
        self.second = second
        self.refused_at: float | None = None
        """When the broker began to refuse this version of the protocol (monotonic clock)."""
        self._address = address(config)
        self._status = f"{config.topic}/status"
        self._subscribe = subscribe
        self._foreign = sorted(foreign)
        self._wake = wake
        self._received = received
        self._way_open = way_open
        self._protocol = protocol
        self._under_way = self._failures = 0
        self._counting = threading.Lock()
        self._heard = False
        self._said = ""
        # A name that stays: after a broken line the broker then ends the old connection (and its last will) before
        # the new one says "online", not after.
        name = re.sub(r"\W", "-", config.topic) + ("-2" if second else "")
        self._client = client = _Relayed(CallbackAPIVersion.VERSION2, name, protocol=protocol)
        client.via = via
        client.on_socket_open = _no_delay
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.will_set(self._status, OFFLINE, qos=1, retain=True)
        # Behind one gateway there may be many houses: they shall not all come back in step.
        lot = uniform(1.0, 2.0) if via else 1.0
        client.reconnect_delay_set(lot, 10 * lot)  # type: ignore[arg-type]  # paho takes fractions as well
        client.username_pw_set(self._address.user, self._address.password)
        if self._address.tls:
            client.tls_set_context(ssl.create_default_context())

    def start(self) -> None:
        """Begin to connect, in a thread of paho's."""
        self._client.connect_async(self._address.host, self._address.port, KEEPALIVE_S)
        self._client.loop_start()

    @property
    def version(self) -> MQTTProtocolVersion:
        """The protocol version that is tried."""
        return self._protocol

    def other_version(self) -> MQTTProtocolVersion:
        """The protocol version to try when this one is refused."""
        return _OTHER[self._protocol]

    @property
    def room(self) -> int:
        """How many more messages may be sent now."""
        return WINDOW - self._under_way if self.connected else 0

    @property
    def idle(self) -> bool:
        """Whether everything sent has been acknowledged."""
        return self._under_way <= 0

    def publish(self, topic: str, text: str, retain: bool = True, correlation: bytes | None = None) -> None:
        """Publish a text, QoS 1; an empty retained one removes the topic. ``correlation`` is MQTT 5's."""
        properties = None
        if correlation is not None and self._protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        with self._counting:
            self._under_way += 1
        self._client.publish(topic, text.encode("utf-8", "replace"), qos=1, retain=retain, properties=properties)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions."""
        if filters:
            self._client.unsubscribe(list(filters))

    def close(self) -> None:
        """Disconnect and end paho's thread; may take as long as a connection attempt."""
        self._client.disconnect()
        self._client.loop_stop()
        self.connected = self.listening = False

    def _on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._heard = reason != "Unsupported protocol version"
            self._say(f"the MQTT broker {self._address} refuses us: {reason}")
            return
        self._heard = True
        self.refused_at = None
        client.drop_out_messages()
        with self._counting:
            self._under_way = 0
        self._failures = 0
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            # A retained command is then told from a fresh one also when it arrives live, and there is no echo.
            options = [(t, SubscribeOptions(q, noLocal=True, retainAsPublished=True)) for t, q in self._subscribe]
            client.subscribe(options + [(t, SubscribeOptions(1, noLocal=True)) for t in self._foreign])
        else:
            client.subscribe([*self._subscribe, *((t, 1) for t in self._foreign)])
        self.connected, self.connected_at = True, time.monotonic()
        self.connections += 1
        self._say(f"connected to the MQTT broker {self._address}", logging.INFO)
        self._wake()

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        self._failures += 1
        if self._failures > 1:  # a broker that starts together with us may be a moment late
            self._say(f"the MQTT broker {self._address} cannot be reached; trying on")

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if self.connected and reason.is_failure:
            self._say(f"lost the MQTT broker {self._address} ({reason}); trying on")
        elif not self._heard and reason != "Keep alive timeout" and self._way_open() and self.refused_at is None:
            # Brokers of MQTT 3.1.1 answer CONNACK 1 to MQTT 5 (3.1.1, 3.1.2.2) or just hang up. So does what leads
            # there while the gateway is away, but that says nothing of the broker.
            self.refused_at = time.monotonic()
        self.connected = self.listening = self._heard = False

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, _reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self.listening = True
        self._wake()

    def _on_publish(
        self, _client: Client, _data: Any, _mid: int, _reason: ReasonCode, _properties: Properties | None
    ) -> None:
        with self._counting:
            self._under_way -= 1
            left = self._under_way
        if left in (0, WINDOW // 2):
            self._wake()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            self._received(message)
        except Exception:
            # An exception would end paho's thread, and nothing would be published any more.
            logger.exception("a message could not be understood")

    def _say(self, text: str, importance: int = logging.WARNING) -> None:
        """Log a change once, however often it is noticed."""
        if text != self._said:
            self._said = text
            logger.log(importance, text)


def _no_delay(_client: Client, _data: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
