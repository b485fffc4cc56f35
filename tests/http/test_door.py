"""The door on the wire: what reaches the application, in which order, and what slow or hostile peers can do."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from statistics import median

import pytest

from bridge.core.events import Stored
from bridge.http import connection as connection_module
from bridge.http import door as door_module
from bridge.http import edge as edge_module
from bridge.http.access import Door
from bridge.http.door import Secured
from tests.http.conftest import Bridge, read_all, request_head

OK = b'"ok"'


def test_pipelined_requests_are_answered_in_order(bridge: Bridge) -> None:
    sets = [request_head(f"/cnf?cmd=set_cm_vars&name=X{n}&val={n}") for n in range(20)]
    got = bridge.raw(b"".join(sets) + request_head("/nix", "Connection: close"))
    assert got.count(b"HTTP/1.1 200 OK") == 20
    numbers = [int(line.split()[1]) for line in got.decode().splitlines() if line.startswith("X-Receipt")]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 20
    assert got.endswith(b'"Not Found: GET /nix"')


def test_a_connection_is_kept_and_closed_as_asked(bridge: Bridge) -> None:
    keep = "Connection: keep-alive"
    assert bridge.raw(request_head("/healthz", version="1.0")).count(OK) == 1
    twice = request_head("/healthz", keep, version="1.0") + request_head("/healthz", version="1.0")
    assert bridge.raw(twice).count(OK) == 2
    assert bridge.raw(request_head("/healthz", "Connection: close") * 2).count(OK) == 1


def test_a_peer_that_sends_no_more_still_gets_its_answers(bridge: Bridge) -> None:
    with bridge.connect() as wire:
        wire.sendall(request_head("/healthz") * 2)
        wire.shutdown(socket.SHUT_WR)
        assert read_all(wire).count(OK) == 2


def test_head_has_the_length_but_no_body(bridge: Bridge) -> None:
    got = bridge.raw(request_head("/", "Connection: close", method="HEAD"))
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]) > 1000
    assert body == b""


def test_head_sets_nothing(bridge: Bridge) -> None:
    got = bridge.raw(request_head("/cnf?cmd=set_cm_vars&name=X&val=1", "Connection: close", method="HEAD"))
    assert got.startswith(b"HTTP/1.1 405")
    assert bridge.hub.snapshot.state.last_receipt == 0


def test_a_body_may_come_after_100_continue(bridge: Bridge) -> None:
    body = b'{"vars":[{"name":"X","expr":1}]}'
    with bridge.connect() as wire:
        lines = ("Expect: 100-continue", f"Content-Length: {len(body)}", "Connection: close")
        wire.sendall(request_head("/cnf?cmd=set_cm_vars", *lines, method="POST"))
        assert wire.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(body)
        assert read_all(wire).endswith(OK)


def test_a_chunked_body_is_put_together(bridge: Bridge) -> None:
    head = request_head("/cnf?cmd=set_cm_vars", "Transfer-Encoding: chunked", "Connection: close", method="POST")
    chunks = b'5\r\n{"var\r\n' + b'1b\r\ns":[{"name":"X","expr":1}]}\r\n' + b"0\r\n\r\n"
    assert bridge.raw(head + chunks).endswith(OK)


CHUNKED = "Transfer-Encoding: chunked"

HOSTILE = [
    (request_head("/", "Content-Length: 5", CHUNKED, method="POST") + b"0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n", 400),
    (request_head("/", CHUNKED, method="POST", version="1.0") + b"0\r\n\r\n", 400),
    (request_head("/", "Content-Length: 5", "Content-Length: 6", method="POST") + b"hello", 400),
    (request_head("/", "Content-Length: +5", method="POST") + b"hello", 400),
    (request_head("/", "Content-Length: " + "9" * 5000, method="POST"), 400),
    (request_head("/", "Content-Length : 5", method="POST") + b"hello", 400),
    (request_head("/", "Transfer-Encoding: gzip", method="POST"), 501),
    (request_head("/", CHUNKED, method="POST") + b"zz\r\n", 400),
    (request_head("/", "Host: other"), 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: a\n\n" + b"x" * 20_000, 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 17_000 + b"\r\n\r\n", 431),
    (request_head("/cnf", "Content-Length: 2000000", method="POST") + b"x" * 100_000, 413),
    (request_head("/cnf", CHUNKED, method="POST") + (b"fff0\r\n" + b"x" * 0xFFF0 + b"\r\n") * 20, 413),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
]


@pytest.mark.parametrize(("sent", "status"), HOSTILE)
def test_what_could_be_read_in_two_ways_is_refused_and_ends_the_connection(
    bridge: Bridge, sent: bytes, status: int
) -> None:
    got = bridge.raw(sent + request_head("/healthz"))
    assert got.startswith(f"HTTP/1.1 {status} ".encode())
    assert got.count(b"\r\nDate: ") == 1
    assert b"Connection: close" in got


def half_header(wire: socket.socket) -> None:
    wire.sendall(request_head()[:-2])


def dripped_header(wire: socket.socket) -> None:
    for byte in request_head("/healthz", "X: " + "a" * 200):
        wire.sendall(bytes([byte]))
        time.sleep(0.05)


def slow_body(wire: socket.socket) -> None:
    wire.sendall(request_head("/cnf?cmd=set_cm_vars", "Content-Length: 1000", method="POST"))
    for _ in range(100):
        wire.sendall(b" ")
        time.sleep(0.05)


def idle(wire: socket.socket) -> None:
    wire.sendall(request_head())
    wire.recv(1000)


def deaf(wire: socket.socket) -> None:
    """Asks for far more than it ever reads."""
    wire.sendall(request_head("/page.js") * 200)


@pytest.mark.parametrize("attack", [half_header, dripped_header, slow_body, idle, deaf])
def test_slow_peers_hold_nobody_up(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, attack: Callable[[socket.socket], None]
) -> None:
    monkeypatch.setattr(connection_module, "RECEIVE_S", 0.6)
    monkeypatch.setattr(connection_module, "IDLE_S", 0.6)
    bridge.source = "127.0.0.2"
    wires = [bridge.connect() for _ in range(20)]
    over = threading.Event()

    def attacker(wire: socket.socket) -> None:
        try:
            attack(wire)
            over.wait(5.0)
        except OSError:
            pass  # the door has ended it, as it should

    threads = [threading.Thread(target=attacker, args=[wire]) for wire in wires]
    for thread in threads:
        thread.start()
    took = []
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        since = time.monotonic()
        assert bridge.ask("/cnf?cmd=set_cm_vars&name=X&val=1")[0] == 200
        took.append(time.monotonic() - since)
        time.sleep(0.02)
    # Were they held up, all would be: one that takes long says something of the machine only.
    assert median(took) < 0.5
    [listener] = bridge.edge._listeners
    wait_until(lambda: not listener.connections)
    over.set()
    for thread, wire in zip(threads, wires, strict=True):
        thread.join()
        wire.close()


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def test_one_peer_cannot_take_all_connections(bridge: Bridge) -> None:
    wires = [bridge.connect() for _ in range(door_module.MAX_CONNECTIONS_PER_PEER)]
    [listener] = bridge.edge._listeners
    wait_until(lambda: len(listener.connections) == len(wires))
    with bridge.connect() as one_more:
        assert one_more.recv(1) == b""
    for wire in wires:
        wire.close()
    wait_until(lambda: not listener.connections)
    assert bridge.ask("/healthz")[0] == 200


def test_large_bodies_do_not_fill_the_memory_and_small_ones_are_always_taken(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MAX_HELD", 150_000)
    [listener] = bridge.edge._listeners
    head = request_head("/api/v1/config", "Content-Length: 100000", method="PUT")
    with bridge.connect() as one, bridge.connect() as other:
        one.sendall(head + b"#" * 90_000)
        wait_until(lambda: listener.held >= 90_000)
        other.sendall(head + b"#" * 90_000)
        assert b" 503 " in other.recv(1000)
        assert bridge.ask("/cnf?cmd=set_cm_vars&name=X&val=1")[0] == 200
        body = '{"vars": [{"name": "X", "expr": 2}]}'
        assert bridge.ask("/cnf?cmd=set_cm_vars", body.encode())[0] == 200
    wait_until(lambda: listener.held == 0)
    with bridge.connect() as again:
        again.sendall(head + b"#" * 100_000)
        assert b" 503 " not in again.recv(1000)


def test_stopping_answers_what_is_being_worked_on_and_waits_for_nobody_else(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path)
    bridge.disk.works = False
    with bridge.connect() as idle_wire, bridge.connect() as waiting, bridge.connect() as stream:
        idle_wire.sendall(request_head())
        stream.sendall(request_head("/api/v1/events"))
        assert stream.recv(10)
        waiting.sendall(request_head("/cnf?cmd=set_cm_vars&name=X&val=1"))
        bridge.hub.until(lambda snapshot: snapshot.state.last_receipt == 1, 10.0)
        stopped = threading.Thread(target=bridge.edge.stop)
        since = time.monotonic()
        stopped.start()
        time.sleep(0.1)
        bridge.hub.post(Stored(1))
        stopped.join()
        assert time.monotonic() - since < 30.0
        assert read_all(waiting).endswith(OK)
    bridge.hub.stop()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("server", "client", "stranger"):
        command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}"
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return folder


@pytest.fixture
def guarded(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    """A bridge with a second door: mutual TLS, no password."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(keys / "server.crt", keys / "server.key")
    tls.load_verify_locations(keys / "client.crt")
    tls.verify_mode = ssl.CERT_REQUIRED
    client = ssl.PEM_cert_to_DER_cert((keys / "client.crt").read_text())
    secured = Secured(tls, {sha256(client).hexdigest(): "admin"})
    gateway = edge_module.Opening(Door("smgw", "smgw", password=False), "127.0.0.1:0", lambda: secured)
    plain = edge_module.openings_of
    monkeypatch.setattr(edge_module, "openings_of", lambda *given: [*plain(*given), gateway])
    bridge = Bridge(tmp_path)
    yield bridge
    bridge.stop()


def test_the_other_door_knows_its_peer_by_certificate(guarded: Bridge, keys: Path) -> None:
    port = guarded.edge.ports["smgw"]

    def curl(who: str | None) -> subprocess.CompletedProcess[str]:
        shown = ["--cert", str(keys / f"{who}.crt"), "--key", str(keys / f"{who}.key")] if who else []
        url = f"https://127.0.0.1:{port}/cnf?cmd=set_cm_vars&name=PWR&val=7"
        return subprocess.run(["curl", "-sk", *shown, url], capture_output=True, text=True, check=False)

    assert curl("client").stdout == '"ok"'
    assert curl("stranger").returncode != 0
    assert curl(None).returncode != 0
    assert guarded.hub.snapshot.state.variables["pwr"].source == "smgw"
    assert guarded.ask("/cnf?cmd=set_cm_vars&name=PWR&val=8")[0] == 403


def test_peers_that_never_finish_the_handshake_hold_nobody_up(
    guarded: Bridge, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "HANDSHAKE_S", 0.5)
    wires = [socket.create_connection(("127.0.0.1", guarded.edge.ports["smgw"])) for _ in range(20)]
    assert guarded.ask("/healthz")[0] == 200
    listener = guarded.edge._listeners[1]
    wait_until(lambda: len(listener.connections) == 20)
    wait_until(lambda: not listener.connections)
    for wire in wires:
        wire.close()


def test_an_address_in_use_is_named(bridge: Bridge) -> None:
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{bridge.port}"):
        edge_module.bind(f"127.0.0.1:{bridge.port}")
    with edge_module.bind("[::1]:0") as sock:
        assert sock.family == socket.AF_INET6
