"""A gateway of stunnel and microsocks, what lies behind it, and a bridge that has to do with both."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.stack import Bridge, Broker, answers, free_port, wait_for
from bench.tap import Tap
from bridge.core.gateway import Crypto
from bridge.smgw.certificate import Certificate
from bridge.smgw.contexts import PRESETS, client_context, server_context

NAME = "backend.example"
"""What the far end is called in TLS-SNI."""

PATIENCE_S = 20.0

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n"ok"'


def programs() -> tuple[str, str]:
    """stunnel and microsocks; raises RuntimeError when one is missing."""
    stunnel = shutil.which("stunnel4", path=_PATH) or shutil.which("stunnel", path=_PATH)
    microsocks = shutil.which("microsocks", path=_PATH)
    if not stunnel or not microsocks:
        raise RuntimeError("stunnel and microsocks are needed (apt install stunnel4 microsocks)")
    return stunnel, microsocks


class Site:
    """All of it with one preset of ``smgw.crypto``.

    ``stunnel``, ``door`` (the SMGW door) and ``lan`` are ports. The bridge goes out to its gateway through ``tap``; its
    reverse connections end at ``emt``. Raises RuntimeError when a program is missing.
    """

    def __init__(self, broker: Broker, crypto: Crypto) -> None:
        self.crypto = crypto
        stunnel, microsocks = programs()
        with ExitStack() as running:
            folder = Path(running.enter_context(TemporaryDirectory(prefix="bench-")))
            socks, self.stunnel, self.door = free_port(), free_port(), free_port()
            self.emt = running.enter_context(socket.create_server(("127.0.0.1", 0)))
            self.emt.settimeout(PATIENCE_S)
            self.tap = running.enter_context(Tap(self.stunnel))
            curve = PRESETS[crypto].key_types[0]
            bridge = running.enter_context(Bridge(broker, more=self._keys(), papers=("cls", "smgw"), curve=curve))
            self.lan, self.store = bridge.port, bridge.store
            self.far = running.enter_context(Far(crypto, self.store.load("cls"), self.store.load("smgw")))
            (folder / "stunnel.conf").write_text(self._services(socks))
            running.enter_context(_serving(socks, microsocks, "-i", "127.0.0.1", "-p", str(socks)))
            running.enter_context(_serving(self.stunnel, stunnel, str(folder / "stunnel.conf")))
            bridge.wait_until_healthy()
            self._running = running.pop_all()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def context(self, own: str, peer: str) -> ssl.SSLContext:
        """A client's side of TLS with the preset, by the names of the certificates."""
        return client_context(self.crypto, self.store.load(own), self.store.load(peer))

    def _keys(self) -> str:
        return (
            f"smgw: {{certificate: cls, gateway_certificate: smgw, crypto: {self.crypto}, "
            f"listen: '127.0.0.1:{self.door}', tunnel: socks5, address: '127.0.0.1:{self.tap.port}', "
            f"reverse: true, destination: '127.0.0.1:{self.emt.getsockname()[1]}'}}\n"
        )

    def _services(self, socks: int) -> str:
        """stunnel: who names nothing in the hello gets to the proxy, who names the far end gets there."""
        cls, smgw = self.store.load("cls"), self.store.load("smgw")
        secure = (
            f"cert = {smgw.certificate_file}\nkey = {smgw.key_file}\nCAfile = {cls.certificate_file}\n"
            f"verifyPeer = yes\ncurves = {PRESETS[self.crypto].curve}\nTIMEOUTclose = 0\n"
        )
        return (
            "foreground = quiet\npid =\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n"
            f"[hks3]\naccept = 127.0.0.1:{self.stunnel}\nconnect = 127.0.0.1:{socks}\n{secure}"
            f"[emt]\nsni = hks3:{NAME}\nconnect = 127.0.0.1:{self.far.port}\n{secure}"
        )


class Far:
    """Another process: ``port`` answers one byte with another, ``bare`` is the least that an SMGW door can be."""

    def __init__(self, crypto: Crypto, cls: Certificate, smgw: Certificate) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_far, args=(theirs, crypto, cls, smgw), daemon=True)
        self._process.start()
        theirs.close()
        self.port, self.bare = ours.recv()

    def __enter__(self) -> Far:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


def _far(pipe: Connection, crypto: Crypto, cls: Certificate, smgw: Certificate) -> None:
    context = server_context(crypto, cls, [smgw])
    far, bare = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))

    def answer() -> None:
        while True:
            wire, _ = far.accept()
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with wire, suppress(OSError):
                while wire.recv(1):
                    wire.sendall(b"!")

    threading.Thread(target=answer, daemon=True).start()
    pipe.send((far.getsockname()[1], bare.getsockname()[1]))
    while True:
        wire, _ = bare.accept()
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with wire, suppress(OSError), context.wrap_socket(wire, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(_ANSWER)


class Took(NamedTuple):
    """Milliseconds from the beginning of TCP until TLS is agreed on, and until the first byte of the far end."""

    handshake_ms: float
    first_ms: float


Say = Callable[[ssl.SSLSocket], object]
"""What a client has to say before it is answered."""


def bare(context: ssl.SSLContext, port: int, say: Say, name: str | None = None) -> Took:
    """The least that a client can do; ``name`` goes as SNI."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(wire, server_hostname=name) as secure:
            agreed = time.monotonic()
            say(secure)
            if not secure.recv(1):
                raise EOFError("the connection was closed instead of an answer")
            return Took((agreed - begun) * 1000, (time.monotonic() - begun) * 1000)


def negotiate(port: int) -> Say:
    """SOCKS5 (RFC 1928) up to a port of this machine, without a look at the answers, and a byte to be answered."""

    def say(wire: ssl.SSLSocket) -> None:
        wire.sendall(b"\5\1\0")
        wire.recv(2)
        wire.sendall(b"\5\1\0\1\x7f\0\0\1" + port.to_bytes(2))
        wire.recv(10)
        wire.sendall(b"?")

    return say


@contextmanager
def _serving(port: int, *command: str) -> Iterator[None]:
    """A program that listens on ``port``."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port), f"{Path(command[0]).name} listens")
        yield
    finally:
        process.terminate()
        process.wait()
