"""Programs that know nothing of tunnels, at a door on loopback; and the edge that keeps it open."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bridge.core.config import MqttConfig
from bridge.core.gateway import FunctionsConfig, SmgwConfig
from bridge.http.metrics import HELP
from bridge.mqtt import edge as mqtt_edge
from bridge.smgw import pump
from bridge.smgw.edge import SmgwEdge
from tests.mqtt.brokers import Mosquitto, free_port, listening, until
from tests.mqtt.test_edge import Bridge, settings
from tests.smgw import rig
from tests.smgw.rig import Papers, gateway, stunnel

pytestmark = pytest.mark.system("stunnel4", "microsocks", "openssl")


@contextmanager
def echoing() -> Iterator[int]:
    """A far end that says everything twice, one line at a time."""

    def serve(sock: socket.socket) -> None:
        with suppress(OSError), sock, sock.makefile("rwb") as file:
            for line in file:
                file.write(line + line)
                file.flush()

    with rig.answering(lambda client: threading.Thread(target=serve, args=(client,), daemon=True).start()) as port:
        yield port


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, 5) as sock:
        sock.settimeout(5)
        yield sock


def asked(sock: socket.socket, line: bytes) -> bytes:
    sock.sendall(line + b"\n")
    heard = b""
    while heard.count(b"\n") < 2:
        part = sock.recv(65536)
        assert part, "cut"
        heard += part
    return heard


def ended(sock: socket.socket) -> bool:
    """Waits for the end of a connection."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


@pytest.fixture
def relayed(tmp_path: Path, papers: Papers) -> Iterator[tuple[SmgwEdge, tuple[str, int]]]:
    with echoing() as far, gateway(tmp_path, papers) as port, rig.edge(papers, port) as edge:
        address = edge.relay("127.0.0.1", far)
        edge.start()
        yield edge, address


def test_bytes_go_there_and_back(relayed: tuple[SmgwEdge, tuple[str, int]]) -> None:
    edge, address = relayed
    assert address[0] == "127.0.0.1"
    with connected(address) as one, connected(address) as other:
        assert asked(one, b"a" * 200_000) == (b"a" * 200_000 + b"\n") * 2
        assert asked(other, b"b") == b"b\nb\n"
    (destination,) = edge.states
    assert edge.states == {destination: "open"}
    assert list(edge.metrics()) == [
        ("smgw_tunnel_opened_total", {}, 2.0),
        ("smgw_tunnel_up", {"destination": destination}, 1.0),
    ]


def test_one_destination_has_one_relay(papers: Papers) -> None:
    with rig.edge(papers, 1) as edge:
        assert edge.relay("a.example", 1) == edge.relay("a.example", 1) != edge.relay("b.example", 1)
        edge.start()


def test_the_relay_of_a_former_broker_is_closed(tmp_path: Path, papers: Papers) -> None:
    with echoing() as far, gateway(tmp_path, papers) as port, rig.edge(papers, port) as edge:
        edge.start()
        site = rig.site(port)
        former, address = edge.relay("localhost", far), edge.relay("127.0.0.1", far)
        with connected(former) as old, connected(address) as sock:
            assert asked(old, b"a") == b"a\na\n"
            assert asked(sock, b"a") == b"a\na\n"
            behind = MqttConfig("mqtt://127.0.0.1", tunnel=True)
            edge.offer(SimpleNamespace(config=replace(site, mqtt=behind)))  # type: ignore[arg-type]
            assert ended(old)
            until(lambda: edge.states == {f"127.0.0.1:{far}": "open"})
            with pytest.raises(ConnectionRefusedError), connected(former):
                pass
            assert asked(sock, b"b") == b"b\nb\n"
            edge.offer(SimpleNamespace(config=site))  # type: ignore[arg-type]
            assert ended(sock)
        until(lambda: edge.states == {})


def test_http_through_the_relay(tmp_path: Path, papers: Papers) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello" * 100_000)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with gateway(tmp_path, papers) as port, rig.edge(papers, port) as edge:
            host, near = edge.relay("localhost", server.server_port)
            edge.start()
            with urllib.request.urlopen(f"http://{host}:{near}/", timeout=10) as answer:
                # The server ends the connection after its answer: all of it must have come through.
                assert len(answer.read()) == 500_000
        server.shutdown()


@pytest.mark.system("mosquitto")
def test_mqtt_through_the_relay_also_after_the_gateway_was_gone(tmp_path: Path, papers: Papers) -> None:
    broker = Mosquitto(tmp_path)
    heard: list[bytes] = []
    client = Client(CallbackAPIVersion.VERSION2)
    client.reconnect_delay_set(min_delay=1, max_delay=1)
    client.on_connect = lambda client, *_: client.subscribe("grid", 1)
    client.on_subscribe = lambda client, *_: client.publish("grid", f"hello {edge._tunnel.opened}", qos=1)
    client.on_message = lambda _client, _data, message: heard.append(message.payload)
    try:
        with rig.microsocks() as socks, rig.edge(papers, port := free_port()) as edge:
            host, near = edge.relay("127.0.0.1", broker.port)
            edge.start()
            client.connect_async(host, near)
            client.loop_start()
            until(lambda: "refuses connections" in "".join(edge.states.values()))
            for _ in range(2):
                with stunnel(tmp_path, papers, socks, port=port):
                    before = len(heard)
                    until(lambda known=before: len(heard) > known)
                until(lambda: not client.is_connected())
            # At least once: what was not acknowledged before the cut may come again (MQTT, QoS 1).
            assert sorted({*heard}) == [b"hello 1", b"hello 2"]
    finally:
        client.disconnect()
        client.loop_stop()
        broker.kill()


@pytest.mark.system("mosquitto")
def test_the_bridge_changes_its_session_and_nobody_notices(
    tmp_path: Path, papers: Papers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every command is obeyed and the bridge is never ``offline``, while one session after the other grows old."""
    monkeypatch.setattr(mqtt_edge, "RENEW", 0.5)
    monkeypatch.setattr(mqtt_edge, "LINGER_S", 0.3)
    longest_h = 4.0 / 3600
    broker = Mosquitto(tmp_path)
    with gateway(tmp_path, papers) as port, rig.edge(papers, port, session_max_h=longest_h) as edge:
        via = edge.relay("127.0.0.1", broker.port)
        edge.start()
        bridge = Bridge(replace(settings(broker.port), smgw=SmgwConfig(session_max_h=longest_h)), via)
        try:
            with listening(broker.port) as listener:
                until(lambda: bridge.shown_by(listener))
                begin = len(listener.heard)
                wishes = cycle(range(10))
                while edge._tunnel.opened < 4:
                    wish = {"vars": [{"name": "WISH", "expr": next(wishes)}]}
                    assert listener.ask("set_cm_vars", wish)["status"] == "ok"
                until(lambda: bridge.shown_by(listener))
                said = {bytes(m.payload) for m in listener.heard[begin:] if m.topic == "smgw-bridge/status"}
                assert said == {b"online"}
        finally:
            bridge.stop()
            broker.kill()
    assert "lost the MQTT broker" not in caplog.text


@pytest.mark.system("mosquitto")
def test_a_gateway_that_is_away_says_nothing_of_the_broker(tmp_path: Path, papers: Papers) -> None:
    """Whoever leads there hangs up, which is no word of a broker that does not know MQTT 5; nor is it asked in step."""
    broker = Mosquitto(tmp_path)
    with rig.microsocks() as socks, rig.edge(papers, port := free_port()) as edge:
        via = edge.relay("127.0.0.1", broker.port)
        edge.start()
        bridge = Bridge(settings(broker.port), via, lambda: edge.is_open("127.0.0.1", broker.port))
        try:
            first = bridge.edge._link
            until(lambda: "refuses connections" in "".join(edge.states.values()))
            time.sleep(2.5)  # two tries and more
            assert bridge.edge._link is first
            with stunnel(tmp_path, papers, socks, port=port):
                until(lambda: bridge.edge._link.connected, 30)
                assert bridge.edge._link.version == MQTTProtocolVersion.MQTTv5
        finally:
            bridge.stop()
            broker.kill()


def test_an_idle_cut_is_no_accident(tmp_path: Path, papers: Papers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with echoing() as far, gateway(tmp_path, papers, "TIMEOUTidle = 1") as port, rig.edge(papers, port) as edge:
        address = edge.relay("127.0.0.1", far)
        edge.start()
        for _ in range(2):
            with connected(address) as sock:
                assert asked(sock, b"a") == b"a\na\n"
                assert ended(sock)
        assert edge._tunnel.opened == 2
    assert [record.getMessage() for record in caplog.records] == [f"tunnel to 127.0.0.1:{far}: open"]


def test_a_session_ends_in_time_and_the_next_one_begins(tmp_path: Path, papers: Papers) -> None:
    short_h = 0.5 / 3600
    with (
        echoing() as far,
        gateway(tmp_path, papers) as port,
        rig.edge(papers, port, session_max_h=short_h) as edge,
    ):
        address = edge.relay("127.0.0.1", far)
        edge.start()
        with connected(address) as sock:
            begun = time.monotonic()
            asked(sock, b"a")
            assert ended(sock)
            assert time.monotonic() - begun > 0.4
        with connected(address) as sock:
            assert asked(sock, b"b") == b"b\nb\n"


def test_who_cannot_be_served_is_hung_up_on(papers: Papers) -> None:
    with rig.edge(papers, free_port()) as edge:
        address = edge.relay("127.0.0.1", 9)
        edge.start()
        with connected(address) as sock:
            assert ended(sock)
        assert "refuses connections" in edge.states["127.0.0.1:9"]
        assert ("smgw_tunnel_up", {"destination": "127.0.0.1:9"}, 0.0) in list(edge.metrics())
        assert {name for name, _, _ in edge.metrics()} <= HELP.keys()


def test_the_far_end_hangs_up_with_the_client(relayed: tuple[SmgwEdge, tuple[str, int]]) -> None:
    edge, address = relayed
    with connected(address) as sock:
        asked(sock, b"a")
    (relay,) = edge._relays.values()
    until(lambda: not relay._clients)


def test_the_edge_ends_whatever_is_open(
    relayed: tuple[SmgwEdge, tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "LAST_WORDS_S", 60.0)
    edge, address = relayed
    with connected(address) as one, connected(address) as other:
        asked(one, b"a")
        asked(other, b"b")
        begun = time.monotonic()
        edge.stop()
        assert time.monotonic() - begun < 30
        assert ended(one)
        assert ended(other)


def test_another_gateway_counts_from_the_next_connection_on(tmp_path: Path, papers: Papers) -> None:
    with echoing() as far, gateway(tmp_path, papers) as port, rig.edge(papers, free_port()) as edge:
        address = edge.relay("127.0.0.1", far)
        edge.start()
        with connected(address) as sock:
            assert ended(sock)
        edge.offer(SimpleNamespace(config=rig.site(port)))  # type: ignore[arg-type]
        until(lambda: edge._tunnel.config.gateway[1] == port)
        with connected(address) as sock:
            assert asked(sock, b"a") == b"a\na\n"
            edge.offer(SimpleNamespace(config=rig.site(free_port())))  # type: ignore[arg-type]
            assert ended(sock)


def test_who_may_do_what_at_the_door_changes_nothing_here(tmp_path: Path, papers: Papers) -> None:
    with echoing() as far, gateway(tmp_path, papers) as port, rig.edge(papers, port) as edge:
        address = edge.relay("127.0.0.1", far)
        edge.start()
        with connected(address) as sock:
            assert asked(sock, b"a") == b"a\na\n"
            door = {"role": "admin", "functions": FunctionsConfig(power_limit=False), "listen": "127.0.0.1:8443"}
            edge.offer(SimpleNamespace(config=rig.site(port, **door)))  # type: ignore[arg-type]
            assert asked(sock, b"b") == b"b\nb\n"
            edge.offer(SimpleNamespace(config=rig.site(port, **door, session_max_h=1)))  # type: ignore[arg-type]
            assert ended(sock)


def test_without_a_tunnel_nothing_is_connected(papers: Papers) -> None:
    with rig.edge(papers, 1, tunnel="none") as edge:
        address = edge.relay("127.0.0.1", 9)
        edge.start()
        with connected(address) as sock:
            assert ended(sock)
        assert "no tunnel is set up" in edge.states["127.0.0.1:9"]
