"""A real mosquitto on a free port, and a client that remembers what it was told."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Mosquitto:
    """Starts, kills, freezes and starts again – empty each time."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._file = folder / "mosquitto.conf"
        self._file.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n"
            "max_queued_messages 100000\n"
        )
        self.start()

    def start(self) -> None:
        command = ["mosquitto", "-c", str(self._file)]
        path = f"{os.environ['PATH']}:/usr/sbin"
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "PATH": path})
        until(lambda: answers(self.port))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


class Listener:
    """Subscribes to everything; ``topics`` is what is there now, ``heard`` every message in order."""

    def __init__(self, port: int, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5, qos: int = 0) -> None:
        self.topics: dict[str, str] = {}
        self.heard: list[MQTTMessage] = []
        self._subscribed = threading.Event()
        self._qos = qos
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        self.client.on_connect = lambda client, *_: client.subscribe("#", self._qos)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = self._note
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._subscribed.wait(5)

    def _note(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.heard.append(message)
        text = bytes(message.payload).decode()
        # A new dict each time: the test's thread may be walking through the old one.
        topics = dict(self.topics)
        if text:
            topics[message.topic] = text
        else:
            topics.pop(message.topic, None)
        self.topics = topics

    def ask(self, command: str, body: object, retain: bool = False, **properties: Any) -> dict[str, Any]:
        """Send a command and wait for the answer to it."""
        known = None
        if properties:
            known = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(known, name, value)
        answer = properties.get("ResponseTopic", f"smgw-bridge/response/{command}")
        before = len(self.heard)
        payload = body if isinstance(body, bytes) else json.dumps(body)
        self.client.publish(f"smgw-bridge/request/{command}", payload, qos=1, retain=retain, properties=known)
        found: list[MQTTMessage] = []
        until(lambda: found.extend(m for m in self.heard[before:] if m.topic == answer) or found)
        self.last_answer = found[0]
        document = json.loads(found[0].payload)
        assert isinstance(document, dict)
        return document

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def listening(
    port: int, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5, qos: int = 0
) -> Iterator[Listener]:
    listener = Listener(port, protocol, qos)
    try:
        yield listener
    finally:
        listener.close()
