"""A bridge with an SMGW door, the certificates of everybody, and those who knock: curl, openssl, bare sockets."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from bridge.app import secured
from bridge.core.config import HttpConfig
from bridge.core.gateway import FarEndConfig, SmgwConfig
from bridge.smgw.admission import fingerprint
from bridge.smgw.certificate import Certificate
from bridge.smgw.contexts import client_context
from bridge.smgw.issue import Wish
from bridge.smgw.store import Store
from tests.http.conftest import Bridge, read_all, site

BSI = "bsi-brainpool256"
CURVES = {"bsi-brainpool256": "brainpoolP256r1", "bsi-brainpool384": "brainpoolP384r1", "bsi-nist256": "prime256v1"}
CURVES |= {"bsi-nist384": "secp384r1", "modern": "prime256v1"}
EVERYBODY = ("cls", "smgw", "supplier", "closed", "stranger")
SET = "/cnf?cmd=set_cm_vars&name=AVAIL&val=50"


def papers(folder: Path, crypto: str = BSI) -> Store:
    """A store with everybody's certificate and key."""
    store = Store(folder / "certificates")
    for name in EVERYBODY:
        store.create(name, Wish(name, curve=CURVES[crypto]))
    return store


@contextmanager
def door(folder: Path, store: Store, lan: str | None = None, **changes: object) -> Iterator[SmgwDoor]:
    """An open SMGW door; ``changes`` are keys of ``smgw``, ``lan`` is the certificate of the LAN door."""
    keys: dict[str, object] = {"certificate": "cls", "gateway_certificate": "smgw", "listen": "127.0.0.1:0"}
    far_ends = (FarEndConfig("supplier"), FarEndConfig("closed", "none"))
    smgw = SmgwConfig(**{**keys, "role": "admin", "far_ends": far_ends, **changes})  # type: ignore[arg-type]
    config = replace(site(), smgw=smgw, http=HttpConfig("127.0.0.1:0", lan))
    bridge = Bridge(folder, config=config, secured=secured(config, store))
    try:
        yield SmgwDoor(bridge, store, smgw)
    finally:
        bridge.stop()


class SmgwDoor:
    """The door, and ways to knock."""

    def __init__(self, bridge: Bridge, store: Store, smgw: SmgwConfig) -> None:
        self.bridge = bridge
        self.store = store
        self.smgw = smgw
        self.port = bridge.edge.ports["smgw"]

    @property
    def avail(self) -> float | None:
        variable = self.bridge.hub.snapshot.state.variables.get("avail")
        return variable.formula.constant if variable else None

    def fingerprint(self, name: str) -> str:
        return fingerprint(self.store.load(name))

    def curl(self, path: str, *options: str, who: str | None = "smgw") -> tuple[int, str]:
        """HTTP status (0: no answer) and body."""
        shown = ["--cert", str(self._file(who, "crt")), "--key", str(self._file(who, "key"))] if who else []
        if self.smgw.crypto != "modern":
            shown += ["--curves", CURVES[self.smgw.crypto], "--tls-max", "1.2"]
        url = f"https://127.0.0.1:{self.port}{path}"
        command = ["curl", "-sk", "--max-time", "10", "-w", "\n%{http_code}", *shown, *options, url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body

    def s_client(self, *options: str, who: str | None = "smgw", say: bytes = b"") -> str:
        """What openssl's own client has to tell of a session."""
        shown = ["-cert", str(self._file(who, "crt")), "-key", str(self._file(who, "key"))] if who else []
        curves = ["-groups", CURVES[self.smgw.crypto]] if self.smgw.crypto != "modern" else []
        options = options if any(option.startswith("-tls") for option in options) else ("-tls1_2", *options)
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", *curves, *shown, *options]
        done = subprocess.run(command, input=say, capture_output=True, check=False, timeout=20)
        return (done.stdout + done.stderr).decode(errors="replace")

    def connect(self, who: str = "smgw") -> ssl.SSLSocket:
        """A TLS session of our own making."""
        context = client_context(self.smgw.crypto, self.store.load(who), self.store.load("cls"))
        return self.wrapped(context)

    def wrapped(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 10))

    def raw(self, sent: bytes, who: str = "smgw") -> bytes:
        """Everything that comes back for some bytes."""
        with self.connect(who) as wire:
            # Who refuses a body may have closed the connection before all of it is sent.
            with suppress(ConnectionError, ssl.SSLEOFError):
                wire.sendall(sent)
            with suppress(ConnectionResetError):
                return read_all(wire)
            return b""

    def _file(self, name: str, kind: str) -> Path:
        return folder_of(self.store) / f"{name}.{kind}"


def folder_of(store: Store) -> Path:
    return store.load("cls").certificate_file.parent


def renewed(store: Store, name: str, crypto: str = BSI) -> Certificate:
    """A new certificate and key in place of the old."""
    return store.create(name, Wish(name, curve=CURVES[crypto]), replace=True)


def request(path: str, *lines: str, method: str = "GET", host: str = "bridge") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
