"""A Modbus server written by hand, so that it can do what no library would: be silent, late, wrong or gone."""

from __future__ import annotations

import os
import pty
import socket
import struct
import threading
import time
import tty
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from tests.modbus.frames import frame, receive


class Asked(NamedTuple):
    """One request as it arrived: ``words`` only for writes."""

    at: float
    unit: int
    function: int
    address: int
    count: int
    words: tuple[int, ...]


class Rogue:
    """Registers by unit on 127.0.0.1. ``manners(asked, frame)`` turns the right answer into what is really sent.

    It may return other bytes, ``None`` (say nothing) or raise ``ConnectionAbortedError`` (hang up).
    """

    def __init__(self, port: int = 0, framing: str = "tcp") -> None:
        self.framing = framing
        self.registers: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self.missing: set[int] = set()
        self.strict = False
        """Refuse registers that were never given a value, and units that have none."""
        self.silent: set[int] = set()
        self.manners: Callable[[Asked, bytes], bytes | None] = lambda asked, frame: frame
        self.asked: list[Asked] = []
        self.parting = False
        """Hang up after each answer."""
        self.taken = False
        """Another client has the only connection: hang up at once."""
        self.since = 0.0
        self.previous = b""
        self.accepted = 0
        self.news = threading.Condition()
        self._open: set[socket.socket] = set()
        self._lines: list[int] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """Vanish: no connection stays, none is taken."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        while self._lines:
            os.close(self._lines.pop())

    def hang_up(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):  # it may have ended just now
                connection.shutdown(socket.SHUT_RDWR)

    def writes(self, unit: int | None = None) -> list[Asked]:
        return [a for a in list(self.asked) if a.words and unit in (None, a.unit)]

    def until(self, holds: Callable[[], bool], timeout_s: float = 20.0) -> bool:
        """Wait until something that happened here makes ``holds`` true."""
        with self.news:
            return self.news.wait_for(holds, timeout_s)

    def before_write(self, word: int, offer: Callable[[], object]) -> int:
        """Do what makes somebody write this word; how many other requests came here first."""
        seen = len(self.asked)
        offer()
        assert self.until(lambda: any(asked.words == (word,) for asked in self.asked[seen:])), f"{word} is not written"
        return next(place for place, asked in enumerate(self.asked[seen:]) if asked.words == (word,))

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            self.since = time.monotonic()
            if self.taken:
                connection.close()
                continue
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                self._converse(stream, connection.sendall)
        except OSError:
            pass
        finally:
            self._open.discard(connection)

    def on_a_line(self) -> str:
        """Answer on a pseudo serial line too; returns the path of the device at its other end."""
        near, far = pty.openpty()
        tty.setraw(near)
        tty.setraw(far)
        self._lines.append(far)

        def serve() -> None:
            with suppress(OSError), os.fdopen(near, "rb", buffering=0) as stream:
                self._converse(stream, lambda data: os.write(near, data))  # type: ignore[arg-type]

        threading.Thread(target=serve, daemon=True).start()
        return os.ttyname(far)

    def _converse(self, stream: BinaryIO, send: Callable[[bytes], object]) -> None:
        while request := receive(self.framing, stream):
            asked = _asked(request.unit, request.body)
            right = frame(self.framing, request._replace(body=self._answer(asked)))
            with self.news:
                self.asked.append(asked)
                self.news.notify_all()
            said = None if request.unit in self.silent else self.manners(asked, right)
            self.previous = right
            if said is not None:
                send(said)
            if self.parting:
                return

    def _answer(self, asked: Asked) -> bytes:
        here = self.registers[asked.unit]
        places = range(asked.address, asked.address + asked.count)
        if self.missing & set(places) or (self.strict and not here.keys() >= set(places)):
            return bytes([asked.function | 0x80, 2])
        here.update(zip(places, asked.words, strict=False))
        if asked.function in (5, 6):
            value = asked.words[0] if asked.function == 6 else 0xFF00 * asked.words[0]
            return struct.pack(">BHH", asked.function, asked.address, value)
        if asked.words:
            return struct.pack(">BHH", asked.function, asked.address, asked.count)
        if asked.function in (1, 2):
            bits = sum((here[place] & 1) << index for index, place in enumerate(places))
            size = (asked.count + 7) // 8
            return bytes([asked.function, size]) + bits.to_bytes(size, "little")
        words = [here[place] for place in places]
        return struct.pack(f">BB{len(words)}H", asked.function, 2 * len(words), *words)


def _asked(unit: int, body: bytes) -> Asked:
    function, address, count = struct.unpack(">BHH", body[:5])
    words: tuple[int, ...] = ()
    if function == 5:
        count, words = 1, (int(count != 0),)
    elif function == 6:
        count, words = 1, (count,)
    elif function == 16:
        words = struct.unpack(f">{count}H", body[6:])
    return Asked(time.monotonic(), unit, function, address, count, words)
