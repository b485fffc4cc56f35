"""A wire that is looked at: what a TLS 1.2 handshake on it agrees on, read from the messages that are not encrypted."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import NamedTuple

HANDSHAKE, CHANGE_CIPHER_SPEC = 22, 20
"""Types of records (RFC 5246, 6.2.1)."""
SERVER_HELLO, SERVER_KEY_EXCHANGE = 2, 12
"""Types of handshake messages (RFC 5246, 7.4)."""
CURVES = {23: "secp256r1", 24: "secp384r1", 26: "brainpoolP256r1", 27: "brainpoolP384r1"}
"""Numbers of curves (RFC 8422, 5.1.1; RFC 7027, 2)."""


class Handshake(NamedTuple):
    """The number of the agreed suite, the name of the curve, and milliseconds from TCP to the server's last message."""

    suite: int
    curve: str
    took_ms: float


class Tap:
    """Carries each connection to ``port`` of this machine to the port ``to``; ``seen`` are the handshakes so far."""

    def __init__(self, to: int) -> None:
        self.seen: list[Handshake] = []
        self._to = to
        self._wires: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def first(self) -> Handshake:
        """Raises RuntimeError when there was none."""
        if not self.seen:
            raise RuntimeError("no handshake of TLS 1.2 was seen")
        return self.seen[0]

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        for wire in (self._listener, *self._wires):
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
            wire.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                begun = time.monotonic()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    near.close()
                    continue
                self._wires += near, far
                threading.Thread(target=_carry, args=(near, far), daemon=True).start()
                threading.Thread(target=self._look, args=(far, near, begun), daemon=True).start()

    def _look(self, server: socket.socket, client: socket.socket, begun: float) -> None:
        reading = Reading()
        with suppress(OSError):
            while not reading.finished and (data := server.recv(65536)):
                client.sendall(data)
                now = time.monotonic()
                reading.feed(data)
                if reading.finished:
                    self.seen.append(Handshake(reading.suite, reading.curve, (now - begun) * 1000))
        _carry(server, client)


class Reading:
    """What the server says until its Finished, the first handshake record after its ChangeCipherSpec."""

    def __init__(self) -> None:
        self.suite, self.curve, self.finished = 0, "", False
        self._records = self._messages = b""
        self._encrypted = False

    def feed(self, data: bytes) -> None:
        """Go on with what has come."""
        self._records += data
        while len(self._records) >= 5 and len(self._records) >= 5 + (size := int.from_bytes(self._records[3:5])):
            kind, body, self._records = self._records[0], self._records[5 : 5 + size], self._records[5 + size :]
            if kind == CHANGE_CIPHER_SPEC:
                self._encrypted = True
            elif kind == HANDSHAKE and self._encrypted:
                self.finished = True
            elif kind == HANDSHAKE:
                self._messages += body
        while len(self._messages) >= 4 and len(self._messages) >= 4 + (size := int.from_bytes(self._messages[1:4])):
            self._note(self._messages[0], self._messages[4 : 4 + size])
            self._messages = self._messages[4 + size :]

    def _note(self, kind: int, body: bytes) -> None:
        if kind == SERVER_HELLO:
            after = 35 + body[34]  # version, random, and the number of the session
            self.suite = int.from_bytes(body[after : after + 2])
        elif kind == SERVER_KEY_EXCHANGE and body[0] == 3:  # named_curve
            number = int.from_bytes(body[1:3])
            self.curve = CURVES.get(number, f"curve {number}")


def _carry(one: socket.socket, other: socket.socket) -> None:
    """Bytes from one to the other, until either ends; then both do."""
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    for wire in (one, other):
        with suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)
