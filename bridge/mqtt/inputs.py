"""Devices of the profile ``mqtt-input``: messages become readings, setpoints become messages. No IO, no clock.

A retained message may be from last year. It is kept, since states are often published only when they change, but only
live ones show that a device is there; and a device is as fresh as the oldest of its powers and currents, so that one
that is not published any more is noticed however talkative the others are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bridge.core.config import Config, DeviceConfig, SetpointConfig, SourceConfig, WallboxConfig
from bridge.core.events import Confirmed, Event, Link, Read, Reading
from bridge.core.loads.inputs import letter, number
from bridge.core.model import Snapshot

MAX_PAYLOAD = 65_536
LAND_S = 2.0
"""A setpoint may take so long to reach the box; what the box says earlier may be from before."""

AGAIN_S = 10.0
"""A setpoint the box has not shown to hold is published again this often."""

SAME_A = 0.05
_TEXTS = frozenset({"model", "serial", "firmware", "rfid", "name"})

Connection = tuple[int, int]
"""Which connection to a broker: what was sent on a former one may be lost."""


class Message(NamedTuple):
    """Something to publish."""

    topic: str
    text: str
    retain: bool


class Inputs:
    """All ``mqtt-input`` devices of a configuration. :meth:`heard` is called on one thread, the others on another."""

    def __init__(self, config: Config) -> None:
        self.devices = devices_of(config)
        self._feeds = [_Feed(device) for device in self.devices]
        self._steering = [_Steering(box) for box in self.devices if isinstance(box, WallboxConfig)]
        self.topics = frozenset().union(*(feed.topics for feed in self._feeds), *(s.topics for s in self._steering))
        """What to listen to."""

    def heard(self, topic: str, payload: bytes, retained: bool, mono: float, connection: Connection) -> Iterator[Event]:
        """What a message tells."""
        for feed in self._feeds:
            if topic in feed.topics and (told := feed.heard(topic, payload, retained, mono)):
                yield told
                if isinstance(told, Read):
                    yield from (c for s in self._steering if s.id == feed.id for c in s.alive(mono, connection))
        if not retained:
            yield from (c for s in self._steering if topic in s.topics for c in s.said(payload, mono))

    def orders(self, snapshot: Snapshot, mono: float, connection: Connection) -> Iterator[Message]:
        """What is to be published now; whoever takes a message has to publish it."""
        return (order for s in self._steering if (order := s.order(snapshot, mono, connection)))

    def last_orders(self) -> Iterator[Message]:
        """The bridge ends: the least current to every box that was told more."""
        return (order for s in self._steering if (order := s.last_order()))


def devices_of(config: Config) -> Sequence[DeviceConfig]:
    """Those that are fed over MQTT."""
    return [device for device in config.inputs if device.fed_by == "mqtt"]


def understood(quantity: str, source: SourceConfig, payload: bytes) -> Reading | None:
    """The reading in a message, None if its path leads to nothing; ValueError when it makes no sense."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"{len(payload)} bytes are too much")
    value: object = payload.decode().strip()
    if source.path:
        try:
            value = json.loads(payload)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        for step in source.path.split("."):
            value = _inside(value, step)
        if value is None:
            return None
    word = json.dumps(value) if isinstance(value, bool | float | int) else str(value)
    value = {key.casefold(): meant for key, meant in source.map.items()}.get(word.casefold(), value)
    if quantity == "state":
        return letter(value)
    return str(value)[:100] if quantity in _TEXTS else number(value) * source.scale


def _inside(value: object, step: str) -> object:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and step.isdigit() and int(step) < len(value):
        return value[int(step)]
    return None


def _flows(quantity: str) -> bool:
    """Whether a quantity is about what flows now."""
    return quantity.startswith(("power_", "current_")) and quantity.endswith(("_w", "_a"))


class _Feed:
    """What is known of one device: its newest values, and when those that flow were last heard live."""

    def __init__(self, device: DeviceConfig) -> None:
        self.id = device.id
        self.topics = {source.topic for source in device.topics.values()}
        self._device = device
        self._values: dict[str, Reading] = {}
        self._flowing = {quantity: -math.inf for quantity in device.topics if _flows(quantity)}

    def heard(self, topic: str, payload: bytes, retained: bool, mono: float) -> Event | None:
        """A reading, or the word that there is none; None when the message tells nothing (yet)."""
        fresh: dict[str, Reading] = {}
        for quantity, source in self._device.topics.items():
            if source.topic != topic:
                continue
            try:
                value = understood(quantity, source, payload)
            except ValueError as error:
                self._values.pop(quantity, None)
                if quantity in self._flowing:
                    self._flowing[quantity] = -math.inf
                return None if retained else Link(self.id, False, f"{quantity} in {topic}: {error}")
            if value is not None:
                fresh[quantity] = value
        self._values |= fresh
        if retained or not fresh:
            return None
        self._flowing |= {quantity: mono for quantity in fresh if quantity in self._flowing}
        since = min(self._flowing.values(), default=mono)
        return Read(self.id, dict(self._values), since) if mono - since <= self._device.patience_s else None


class _Sent(NamedTuple):
    """A setpoint the box was sent: first at ``since`` and last at ``at``, by the newest snapshot that contains it."""

    amperes: float
    revision: int
    since: float
    at: float
    connection: Connection


class _Steering:
    """Tells one wallbox its setpoint, and the core what the box holds."""

    def __init__(self, box: WallboxConfig) -> None:
        assert box.setpoint is not None
        self.id = box.id
        self._box, self._rule = box, box.setpoint
        self.topics = {self._rule.read_back.topic} if self._rule.read_back else set()
        self._sent: _Sent | None = None
        self._held_a: float | None = None
        self._confirmed = 0
        """The newest revision known to have landed."""

    def order(self, snapshot: Snapshot, mono: float, connection: Connection) -> Message | None:
        """What is to be published now. A box that was never heard of is left alone."""
        point, sent = snapshot.decision.setpoints.get(self.id), self._sent
        online = snapshot.state.device(self.id).online
        if point is None or (sent is None and not online):
            return None
        same = sent is not None and sent.amperes == point.current_a and sent.connection == connection
        if sent and same:
            self._sent = sent = sent._replace(revision=snapshot.revision)
            if self._holds(sent.amperes) or mono - sent.at < AGAIN_S:
                return None
        since = sent.since if sent and same else mono
        self._sent = _Sent(point.current_a, snapshot.revision, since, mono, connection)
        return self._message(point.current_a)

    def last_order(self) -> Message | None:
        """The least there is, for a box that was told more."""
        return self._message(self._box.least_a) if self._sent and self._sent.amperes > self._box.least_a else None

    def said(self, payload: bytes, mono: float) -> Iterator[Confirmed]:
        """The box says what it holds."""
        assert self._rule.read_back is not None
        try:
            held = understood("current_a", self._rule.read_back, payload)
        except ValueError:
            held = None
        self._held_a = held if isinstance(held, float) else None
        if self._held_a is None:
            return
        followed = self._sent if self._sent and self._holds(self._sent.amperes) else None
        if (sent := self._sent) and (followed or mono - sent.since > LAND_S):
            self._confirmed = sent.revision
        # As it was sent: 9700 mA are 9.700000000000001 A, which the core would take for another setpoint.
        yield Confirmed(self.id, followed.amperes if followed else self._held_a, self._confirmed)

    def alive(self, mono: float, connection: Connection) -> Iterator[Confirmed]:
        """The box is there. One that never says what it holds is believed to hold what it was sent a while ago."""
        sent = self._sent
        if sent and not self._rule.read_back and sent.connection == connection and mono - sent.since >= LAND_S:
            yield Confirmed(self.id, sent.amperes, sent.revision)

    def _holds(self, amperes: float) -> bool:
        return self._held_a is not None and abs(self._held_a - amperes) <= SAME_A

    def _message(self, amperes: float) -> Message:
        return Message(self._rule.topic, text_of(self._rule, amperes), self._rule.retain)


def text_of(rule: SetpointConfig, amperes: float) -> str:
    """What a box is told: ``amperes`` on each line, 0 is a pause."""
    words = {
        "{current_a}": f"{amperes:.10g}",
        "{current_ma}": f"{int(amperes * 1000 + 0.001)}",
        "{enabled}": "true" if amperes > 0 else "false",
    }
    text = rule.template
    for word, meant in words.items():
        text = text.replace(word, meant)
    return text
