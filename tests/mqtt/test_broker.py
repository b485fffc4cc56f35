"""The broker of our own: comes back when it dies, goes when we go, gives way when the place is taken."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from bridge.core.config import MeterConfig, MqttConfig
from bridge.mqtt import broker as broker_module
from bridge.mqtt.broker import Broker
from bridge.mqtt.link import Address, address
from tests.core.sites import House
from tests.mqtt.brokers import answers, free_port, listening, until
from tests.mqtt.test_edge import Bridge, settings

pytestmark = pytest.mark.system("mosquitto")


@contextmanager
def running(config: MqttConfig) -> Iterator[Broker]:
    broker = Broker(config)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def test_it_dies_and_comes_back_with_the_tree() -> None:
    port = free_port()
    bridge = Bridge(settings(port, url=None, listen=f"127.0.0.1:{port}"))
    try:
        until(lambda: bridge.edge._link.connected)
        first = bridge.edge._broker._process
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: not bridge.edge._link.connected)
        until(lambda: bridge.edge._link.connected)
        with listening(port) as listener:
            until(lambda: bridge.shown_by(listener))
    finally:
        bridge.stop()
    assert not answers(port), "it goes with us"


def test_it_goes_when_we_are_killed() -> None:
    port = free_port()
    program = (
        "import sys, time; from bridge.core.config import MqttConfig; from bridge.mqtt.broker import Broker;"
        "Broker(MqttConfig(listen=sys.argv[1])).start(); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, f"127.0.0.1:{port}"])
    until(lambda: answers(port))
    process.kill()
    process.wait()
    until(lambda: not answers(port))


def test_a_taken_place_is_left_alone_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, caplog.at_level(logging.INFO, "bridge.mqtt.broker"):
        port = other.getsockname()[1]
        with running(MqttConfig(listen=f"127.0.0.1:{port}")) as broker:
            until(lambda: caplog.messages)
            broker._wake.set()
            other.close()
            until(lambda: answers(port))
    assert len(caplog.messages) == 2
    assert "already in use" in caplog.messages[0]


def test_it_follows_the_configuration() -> None:
    port = free_port()
    snapshot = House(settings(port)).snapshot
    own = MqttConfig(listen=f"127.0.0.1:{port}")
    with running(own) as broker:
        until(lambda: answers(port))
        broker.offer(replace(snapshot, config=replace(snapshot.config, mqtt=MqttConfig(url="mqtt://elsewhere"))))
        until(lambda: not answers(port))
        broker.offer(replace(snapshot, config=replace(snapshot.config, mqtt=own)))
        until(lambda: answers(port))


def test_without_any_broker_one_line_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(broker_module.importlib.util, "find_spec", lambda _: None)
    with running(MqttConfig(listen=f"127.0.0.1:{free_port()}")) as broker:
        until(lambda: caplog.messages)
        broker._wake.set()
        until(lambda: not broker._wake.is_set())
    assert [message for message in caplog.messages if "install mosquitto" in message] == caplog.messages


def test_iotcore_when_there_is_no_mosquitto(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("iotcore")
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == "mosquitto" else which(name, **more))
    port = free_port()
    config = settings(port, url=None, listen=f"127.0.0.1:{port}")
    meters = tuple(MeterConfig(f"M{n}", "p", "127.0.0.1:502") for n in range(500))
    bridge = Bridge(replace(config, meters=meters))
    try:
        until(lambda: bridge.edge._link.connected and not len(bridge.edge._outbox), 20)
        assert len(bridge.tree()) > 1000
        with listening(port, MQTTProtocolVersion.MQTTv311) as listener:
            until(lambda: bridge.shown_by(listener))
            assert listener.ask("get_cm_vars", {"id": 1})["id"] == 1
    finally:
        bridge.stop()


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (MqttConfig(), Address("127.0.0.1", 1883)),
        (MqttConfig(listen="0.0.0.0:1884"), Address("127.0.0.1", 1884)),
        (MqttConfig(listen="[::1]:1884"), Address("::1", 1884)),
        (MqttConfig(listen="localhost:1884"), Address("localhost", 1884)),
        (MqttConfig(url="mqtt://broker"), Address("broker", 1883)),
        (MqttConfig(url="mqtts://me:p%40ss@[fe80::1]:99/"), Address("fe80::1", 99, True, "me", "p@ss")),
        (MqttConfig(url="mqtts://broker"), Address("broker", 8883, True)),
    ],
)
def test_where_the_broker_is(config: MqttConfig, place: Address) -> None:
    assert address(config) == place
