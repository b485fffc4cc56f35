"""The MQTT edge: shows every snapshot as a topic tree and takes commands. It never delays the hub.

Its own thread draws and sends; paho's thread receives and must not block; the clerk's obeys commands; the broker's
looks after the broker of our own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import MQTTProtocolVersion

from bridge.core.config import Config
from bridge.core.model import Snapshot
from bridge.hub import Hub
from bridge.mqtt.broker import Broker
from bridge.mqtt.clerk import Clerk
from bridge.mqtt.commands import Request, answer_topic
from bridge.mqtt.discovery import birth, own_documents
from bridge.mqtt.inputs import Connection, Inputs, devices_of
from bridge.mqtt.link import Link
from bridge.mqtt.outbox import OFFLINE, Outbox

logger = logging.getLogger(__name__)

HEAD_START_S = 0.005
"""Drawing waits this long: the registers of the wallboxes are written first, and a burst is drawn once."""

SWEEP_S = 5.0
"""So long after each connect we listen to our own tree, to remove what a former configuration left there."""

PATIENCE_S, LONGEST_PATIENCE_S = 1.0, 30.0
"""A broker that refuses us is asked in the other version of the protocol after this time, twice as long each time."""

RENEW = 0.9
"""A session through the gateway ends after 0.95 to 1 of its longest time; the next connection is made before."""

LINGER_S = 1.0
"""Then the former one is left: a command may be on its way there yet (and, being QoS 1, come twice)."""

_ROOMS = ("grid", "groups", "vars", "meters", "wallboxes", "alarm", "journal")


class MqttEdge:
    """Publishes the topic tree of ``hub`` at the configured broker and asks the hub for what commands want.

    ``via``: the address that leads to a broker behind the gateway (``mqtt.tunnel``); ``way_open``: whether it does now.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        via: tuple[str, int] | None = None,
        way_open: Callable[[], bool] = lambda: True,
    ) -> None:
        self._via = via
        self._way_open = way_open
        self._patience_s = PATIENCE_S
        self._newest = hub.snapshot
        self._shown: Snapshot | None = None
        self._hub = hub
        self._config = config.mqtt
        self._inputs = Inputs(config)
        self._broker = Broker(config.mqtt)
        self._outbox = Outbox(self._config.topic)
        self._found: deque[str] = deque()
        self._newborn = self._declared_dead = False
        self._clerk = Clerk(hub, self._answer)
        self._wake = threading.Event()
        self._stopping = False
        self._links = self._connections = self._published = 0
        self._former: Link | None = None
        self._next: Link | None = None
        self._use(self._new_link(MQTTProtocolVersion.MQTTv5))
        self._sweep_ends: float | None = None
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        """Begin to connect and publish."""
        self._broker.start()
        self._thread.start()
        self._clerk.start()

    def offer(self, snapshot: Snapshot) -> None:
        """Leave a newer snapshot for this edge's thread."""
        self._newest = snapshot
        self._broker.offer(snapshot)
        self._wake.set()

    def stop(self) -> None:
        """Say ``offline`` and disconnect."""
        self._stopping = True
        self._clerk.stop()
        self._wake.set()
        self._thread.join(0.7)
        self._broker.stop()

    def metrics(self) -> Iterable[tuple[str, Mapping[str, str], float]]:
        """Samples for Prometheus: name, labels, value."""
        yield "mqtt_connected", {}, float(self._link.connected)
        yield "mqtt_waiting_topics", {}, float(len(self._outbox))
        yield "mqtt_published_total", {}, float(self._published)

    # ------------------------------------------------------------------------------------- this edge's thread

    def _run(self) -> None:
        self._broker.await_up(1.0)
        self._link.start()
        while not self._stopping:
            try:
                # Wallboxes that are told by MQTT come before all that is only shown.
                self._steer()
                if self._newest is not self._shown:
                    time.sleep(HEAD_START_S)
                self._turn()
            except Exception:
                # Whatever a snapshot or a broker holds in store: the next one is shown again.
                logger.exception("the topic tree could not be published")
            self._wake.wait(1.0)
            self._wake.clear()
        if self._link.connected:
            for message in self._inputs.last_orders():
                self._link.publish(*message)
        self._farewell(remove=False)

    def _steer(self) -> None:
        """Tell the wallboxes that listen to MQTT; what a full window holds back is told in the next turn."""
        if self._link.room > 0:
            for message in self._inputs.orders(self._newest, time.monotonic(), self._connection):
                self._link.publish(*message)

    def _turn(self) -> None:
        snapshot = self._newest
        if snapshot.config.mqtt != self._config:
            self._move(snapshot)
        elif devices_of(snapshot.config) != self._inputs.devices:
            self._listen_anew(snapshot.config)
        if snapshot is not self._shown:
            self._shown = snapshot
            self._outbox.show(snapshot)
        self._look_after_link()
        if self._newborn:
            self._newborn = False
            self._outbox.announce()
        if self._declared_dead:
            self._declared_dead = False
            self._outbox.contradict()
        self._outbox.sweep([self._found.popleft() for _ in range(len(self._found))])
        self._send()

    def _send(self) -> None:
        while self._link.room > 0 and (message := self._outbox.take()):
            self._link.publish(*message)
            self._published += 1

    def _look_after_link(self) -> None:
        now = time.monotonic()
        refused_at = self._link.refused_at
        if self._link.connected:
            self._patience_s = PATIENCE_S
        elif refused_at is not None and now - refused_at > self._patience_s:
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
            self._close()
            self._connect(self._link.other_version())
        if self._via:
            self._renew(now)
        if self._link.connections != self._connections:
            self._connections = self._link.connections
            self._outbox.everything()
            self._sweep_ends = now + SWEEP_S
        if self._sweep_ends is not None and now > self._sweep_ends:
            self._sweep_ends = None
            self._link.unsubscribe([topic for topic, _ in self._own_topics()])

    def _renew(self, now: float) -> None:
        """Make before break: the gateway ends each session (``smgw.session_max_h``), and nobody shall notice."""
        smgw = self._newest.config.smgw
        if self._former:
            if now > self._link.connected_at + LINGER_S:
                _leave(self._former)
                self._former = None
        elif self._next is None:
            if smgw and self._link.connected and now > self._link.connected_at + RENEW * smgw.session_max_h * 3600:
                self._next = self._new_link(self._link.version, not self._link.second)
                self._next.start()
        elif self._next.listening:
            self._former = self._link
            self._use(self._next)
            self._next = None
        elif not self._link.connected:  # cut meanwhile: it comes back itself
            _leave(self._next)
            self._next = None

    def _use(self, link: Link) -> None:
        """Talk over this connection from now on."""
        self._link = link
        self._links += 1
        self._connections = 0

    def _connect(self, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5) -> None:
        """Begin anew, after :meth:`_close`."""
        self._use(self._new_link(protocol))
        self._link.start()

    def _close(self) -> None:
        for link in filter(None, (self._former, self._next, self._link)):
            link.close()
        self._former = self._next = None

    def _move(self, snapshot: Snapshot) -> None:
        """The ``mqtt`` section changed: leave nothing behind at the old place, begin anew at the new one."""
        self._farewell(remove=True)
        self._config = snapshot.config.mqtt
        self._inputs = Inputs(snapshot.config)
        self._outbox = Outbox(self._config.topic)
        self._shown = None
        self._connect()

    def _listen_anew(self, config: Config) -> None:
        """There are other devices to listen to."""
        self._close()
        self._inputs = Inputs(config)
        self._connect()

    def _farewell(self, remove: bool) -> None:
        self._outbox.farewell(remove)
        end = time.monotonic() + 0.5
        while self._link.connected and time.monotonic() < end:
            self._send()
            if self._link.idle:
                break
            self._wake.wait(0.05)
            self._wake.clear()
        self._close()

    def _new_link(self, protocol: MQTTProtocolVersion, second: bool = False) -> Link:
        topics = [(f"{self._config.topic}/request/+", 1), *self._own_topics()]
        if self._config.discovery:
            topics.append((birth(self._config.discovery), 0))
        heard = {*self._inputs.topics, self._status}
        return Link(
            self._config, topics, self._wake.set, self._received, protocol, heard, self._via, second, self._way_open
        )

    @property
    def _status(self) -> str:
        return f"{self._config.topic}/status"

    @property
    def _connection(self) -> Connection:
        return self._links, self._link.connections

    def _own_topics(self) -> list[tuple[str, int]]:
        base, prefix = self._config.topic, self._config.discovery or "homeassistant"
        return [*((f"{base}/{room}/#", 0) for room in _ROOMS), (own_documents(prefix, base), 0)]

    # --------------------------------------------------------------------------------------- paho's thread

    def _received(self, message: MQTTMessage) -> None:
        topic = message.topic
        if topic in self._inputs.topics:
            heard = topic, bytes(message.payload), message.retain, time.monotonic(), self._connection
            for event in self._inputs.heard(*heard):
                self._hub.post(event)
            return
        if topic.startswith(f"{self._config.topic}/request/"):
            properties = message.properties
            request = Request(
                topic.rpartition("/")[2],
                bytes(message.payload),
                message.retain,
                getattr(properties, "ResponseTopic", ""),
                getattr(properties, "CorrelationData", None),
            )
            self._clerk.take(request)
        elif topic == self._status:
            # The last will of a connection that was left, but whose end the broker has noticed only now. What it had
            # kept from before is not contradicted: our own word follows anyway.
            self._declared_dead |= message.payload == OFFLINE.encode() and not message.retain
            self._wake.set()
        elif self._config.discovery and topic == birth(self._config.discovery):
            self._newborn = message.payload == b"online"
            self._wake.set()
        elif message.retain and message.payload:
            self._found.append(topic)
            self._wake.set()

    def _answer(self, request: Request, text: str) -> None:
        if self._link.connected:
            topic = answer_topic(self._config.topic, request)
            self._link.publish(topic, text, retain=False, correlation=request.correlation)


def _leave(link: Link) -> None:
    """End a connection nobody talks over any more.

    That may take as long as a connection attempt, for which no wallbox on the other connection shall wait.
    """
    threading.Thread(target=link.close, name="mqtt-leaving", daemon=True).start()
