"""HKS3 turned round: the bridge connects, and the far end asks on the connection."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.errors import BridgeError
from bridge.smgw import pump
from bridge.smgw.reverse import POOL, Backoff
from tests.mqtt.brokers import free_port, until
from tests.smgw import rig
from tests.smgw.rig import Papers, gateway

pytestmark = pytest.mark.system("stunnel4", "microsocks", "openssl")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"you asked for {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Door:
    """An HTTP server that is given its connections; ``shown`` are the certificates their callers were known by."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def admit(self, wire: socket.socket, certificate: str) -> None:
        self.shown.append(certificate)
        threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            Handler(sock, ("tunnel", 0), cast(Any, SimpleNamespace()))


class Supplier:
    """The far end: waits until the bridge has connected, then is the client."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.port = listener.getsockname()[1]

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        self._listener.settimeout(10)
        sock, _ = self._listener.accept()
        sock.settimeout(5)
        made = http.client.HTTPConnection("bridge")
        made.sock = sock
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def supplier() -> Iterator[Supplier]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Supplier(listener)


def asked(connection: http.client.HTTPConnection, path: str) -> str:
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def reversed_(port: int, **changed: object) -> dict[str, object]:
    return {"reverse": True, "destination": f"127.0.0.1:{port}", **changed}


def test_the_far_end_asks_and_is_answered(tmp_path: Path, papers: Papers, supplier: Supplier) -> None:
    door = Door()
    with (
        gateway(tmp_path, papers) as port,
        rig.edge(papers, port, door.admit, **reversed_(supplier.port)) as edge,
    ):
        edge.start()
        with supplier.connection() as one, supplier.connection() as other:
            # Nobody has asked yet, so the door knows of nobody.
            assert door.shown == []
            assert asked(one, "/a") == "you asked for /a"
            assert asked(one, "/b") == "you asked for /b"
            assert asked(other, "/c") == "you asked for /c"
        assert edge.states == {f"127.0.0.1:{supplier.port}": "open"}
    assert door.shown == [sha256(papers.smgw.der).hexdigest()] * POOL


def test_a_connection_that_ended_is_made_anew(tmp_path: Path, papers: Papers, supplier: Supplier) -> None:
    door = Door()
    with (
        gateway(tmp_path, papers) as port,
        rig.edge(papers, port, door.admit, **reversed_(supplier.port)) as edge,
    ):
        edge.start()
        for number in range(POOL + 2):
            with supplier.connection() as one:
                assert asked(one, f"/{number}") == f"you asked for /{number}"


def test_who_cannot_be_let_in_leaves_nothing_open(tmp_path: Path, papers: Papers, supplier: Supplier) -> None:
    wires: list[socket.socket] = []

    def admit(wire: socket.socket, shown: str) -> None:
        wires.append(wire)
        raise BridgeError("the store cannot be read")

    with (
        gateway(tmp_path, papers) as port,
        rig.edge(papers, port, admit, **reversed_(supplier.port)) as edge,
    ):
        edge.start()
        with supplier.connection() as one:
            one.request("GET", "/")
            assert one.sock.recv(1) == b""
        until(lambda: wires[0].fileno() == -1)


def test_old_connections_are_renewed(tmp_path: Path, papers: Papers, supplier: Supplier) -> None:
    with (
        gateway(tmp_path, papers) as port,
        rig.edge(papers, port, Door().admit, **reversed_(supplier.port, session_max_h=0.3 / 3600)) as edge,
    ):
        edge.start()
        with supplier.connection() as one, supplier.connection() as other:
            assert one.sock.recv(1) == other.sock.recv(1) == b""
        with supplier.connection() as fresh:
            assert asked(fresh, "/") == "you asked for /"


def test_the_gateway_comes_up_after_us(tmp_path: Path, papers: Papers, supplier: Supplier) -> None:
    near = free_port()
    with rig.edge(papers, near, Door().admit, **reversed_(supplier.port)) as edge:
        edge.start()
        until(lambda: "refuses connections" in "".join(edge.states.values()))
        with (
            rig.microsocks() as socks,
            rig.stunnel(tmp_path, papers, socks, port=near),
            supplier.connection() as late,
        ):
            assert asked(late, "/") == "you asked for /"


def test_a_sidecar_vouches_for_the_gateway(papers: Papers, supplier: Supplier) -> None:
    door = Door()
    with (
        rig.microsocks() as socks,
        rig.edge(papers, 1, door.admit, **reversed_(supplier.port, sidecar=f"127.0.0.1:{socks}")) as edge,
    ):
        edge.start()
        with supplier.connection() as one:
            assert asked(one, "/") == "you asked for /"
    assert door.shown == [sha256(papers.smgw.der).hexdigest()]


def test_the_edge_ends_whatever_is_open(
    tmp_path: Path, papers: Papers, supplier: Supplier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "LAST_WORDS_S", 60.0)
    with (
        gateway(tmp_path, papers) as port,
        rig.edge(papers, port, Door().admit, **reversed_(supplier.port)) as edge,
    ):
        edge.start()
        with supplier.connection() as one, supplier.connection():
            asked(one, "/")
            begun = time.monotonic()
            edge.stop()
            assert time.monotonic() - begun < 30


def test_waits_grow_and_differ() -> None:
    waits = [Backoff() for _ in range(50)]
    first = {wait.next_s() for wait in waits}
    assert len(first) > 40
    assert all(0.5 <= wait_s <= 1 for wait_s in first)
    assert all(1 <= wait.next_s() <= 2 for wait in waits)
    for _ in range(20):
        last = waits[0].next_s()
    assert 30 <= last <= 60
    waits[0].reset()
    assert waits[0].next_s() <= 1
