"""Who sets the variable: a bare keep-alive connection that knows when the first byte of each request was sent."""

from __future__ import annotations

import math
import random
import socket
import time
from base64 import b64encode
from typing import NamedTuple

PASSWORD = "a password of the benchmark"
WATTS_PER_AVAIL = 220.0
"""The connection power for each charging wallbox; AVAIL 25 to 95 is 7.9 to 30.2 A."""

_HEAD = (
    "Host: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n"
    f"Authorization: Basic {b64encode(f'admin:{PASSWORD}'.encode()).decode()}\r\n\r\n"
)


class Set(NamedTuple):
    """A set: when its first byte was sent, the value, when the answer was there."""

    sent_at: float
    avail: int
    answered_at: float


def tenths_of_amperes(avail: float) -> int:
    """What the register of a charging wallbox shall say for a value of AVAIL."""
    return math.floor(avail * WATTS_PER_AVAIL / (3 * 230.0) * 10 + 1e-6)


def values(count: int) -> list[int]:
    """Random values of AVAIL by which each set is recognised: none comes again soon, neighbours are apart."""
    found: list[int] = []
    while len(found) < count:
        value = random.randint(25, 95)
        if value not in found[-20:] and (not found or abs(value - found[-1]) > 1):
            found.append(value)
    return found


class Client:
    """One connection to the bridge or the floor, logged in; to the port, or one that is there already."""

    def __init__(self, to: int | socket.socket) -> None:
        self._socket = socket.create_connection(("127.0.0.1", to), 10) if isinstance(to, int) else to
        self._socket.settimeout(10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def set(self, avail: int) -> Set:
        """Set AVAIL and wait for the answer."""
        request = self._request(f"/cnf?cmd=set_cm_vars&name=AVAIL&val={avail}")
        sent_at = time.monotonic()
        self._socket.sendall(request)
        status = self._status()
        if status != 200:
            raise RuntimeError(f"a set was answered with {status}")
        return Set(sent_at, avail, time.monotonic())

    def get(self, path: str) -> int:
        """The status of a page."""
        self._socket.sendall(self._request(path))
        return self._status()

    def _request(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\n{_HEAD}".encode()

    def _status(self) -> int:
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._received()
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._received()
        return int(head.split(b" ", 2)[1])

    def _received(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the connection was closed instead of an answer")
        return data
