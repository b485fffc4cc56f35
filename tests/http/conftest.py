"""A whole bridge behind a real socket: real hub, real HTTP edge; only the disk is played."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bridge.core.config import Config, GridConfig, HttpConfig, MeterConfig, VariableConfig, WallboxConfig
from bridge.core.events import Event, Stored
from bridge.core.formulas import parse
from bridge.core.model import Now, Snapshot, State
from bridge.http import edge as http_edge
from bridge.http import passwords
from bridge.http.administration import Administration
from bridge.http.door import Secure
from bridge.http.passwords import PasswordFile
from bridge.http.sessions import Archive
from bridge.hub import Hub
from bridge.smgw.administration import Administration as Certificates
from bridge.smgw.store import Store

PASSWORD = "1234abcd"
BASIC = "Basic YWRtaW46MTIzNGFiY2Q="


def site() -> Config:
    return Config(
        grid=GridConfig(parse("55000 * AVAIL / 100")),
        site="Musterweg 1",
        http=HttpConfig("127.0.0.1:0"),
        variables={
            "AVAIL": VariableConfig(parse(100), 0, 100),
            "PWR": VariableConfig(parse(0), writers=("smgw",)),
        },
        meters=(MeterConfig("M1", "eastron-sdm630", "127.0.0.1:502", name="Grid", role="grid"),),
        wallboxes=(WallboxConfig("E1", "keba-p30", "127.0.0.1:503", name="Garage left"),),
    )


def fed_site() -> Config:
    """The same house, with devices that are fed over HTTP."""
    return replace(
        site(),
        meters=(
            MeterConfig("M1", "http-input", role="grid"),
            MeterConfig("M2", "http-input"),
            MeterConfig("M3", "eastron-sdm630", "127.0.0.1:502"),
        ),
        wallboxes=(WallboxConfig("E1", "http-input"), WallboxConfig("E2", "http-input")),
    )


class Disk:
    """An edge that stores at once, never, or fails."""

    def __init__(self) -> None:
        self.error = ""
        self.works = True
        self.hub: Hub | None = None
        self._done = 0

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def offer(self, snapshot: Snapshot) -> None:
        if self.works and self.hub and snapshot.state.last_receipt > self._done:
            self._done = snapshot.state.last_receipt
            self.hub.post(Stored(self._done, self.error))


class File:
    """A configuration that takes every text and does nothing about it."""

    text = "grid: {connection_power_w: 55000}\n"

    def read(self) -> str:
        return self.text

    def adopt(self, text: str) -> bool:
        self.text = text
        return False


class Bridge:
    """The bridge under test, and how to talk to it."""

    def __init__(
        self,
        folder: Path,
        password: str | None = PASSWORD,
        config: Config | None = None,
        secured: Mapping[str, Secure] | None = None,
        archive: Archive | None = None,
    ) -> None:
        config = config or site()
        self.disk = Disk()
        self.hub = Hub(config, State(), lambda: Now(time.monotonic(), time.time()))
        self.disk.hub = self.hub
        self.passwords = PasswordFile(folder / "admin-password")
        if password:
            self.passwords.set(password)
        self.samples: list[tuple[str, dict[str, str], float]] = []
        self.store = Store(folder / "certificates")
        self.edge = http_edge.HttpEdge(
            config,
            self.hub,
            self.passwords,
            [lambda: self.samples],
            secured=secured,
            archive=archive,
            administration=Administration(File(), Certificates(self.store, dict)),
        )
        self.hub.start([self.disk, self.edge])
        self.edge.start()
        self.port = self.edge.ports["lan"]
        self.source = "127.0.0.1"

    def stop(self) -> None:
        self.edge.stop()
        self.hub.stop()

    def happen(self, *events: Event) -> None:
        for event in events:
            self.hub.ask(event)

    def ask(
        self, path: str, body: str | bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers, body."""
        connection = HTTPConnection("127.0.0.1", self.port, 10, (self.source, 0))
        sent = {"Authorization": BASIC} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def json(self, path: str, body: str | None = None, **headers: str) -> tuple[int, object]:
        status, _, content = self.ask(path, body, **headers)
        return status, json.loads(content)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def raw(self, request: bytes) -> bytes:
        """Send bytes, read until the bridge ends the connection."""
        with self.connect() as wire:
            wire.sendall(request)
            return read_all(wire)


def read_all(wire: socket.socket | ssl.SSLSocket) -> bytes:
    got = b""
    while piece := wire.recv(65536):
        got += piece
    return got


def request_head(path: str = "/healthz", *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    first = [f"{method} {path} HTTP/{version}", "Host: localhost", f"Authorization: {BASIC}"]
    return "\r\n".join([*first, *lines, "", ""]).encode()


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords are hashed slowly on purpose; here that proves nothing."""
    monkeypatch.setitem(passwords._COST, "n", 2)


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    running = Bridge(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Bridge]:
    """A bridge without a password."""
    running = Bridge(tmp_path, password=None)
    yield running
    running.stop()


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[Bridge]:
    """A bridge whose devices are fed over HTTP."""
    running = Bridge(tmp_path, config=fed_site())
    yield running
    running.stop()
