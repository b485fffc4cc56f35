"""A read-only Modbus/TCP door to a device that takes one client only, so that a logger can go on reading it.

What a logger asks goes through the device's own link, after everything the bridge asks itself: a setpoint waits at most
for the one question that is on the wire. Nothing can be written through this door.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Sequence

from bridge.errors import LinkDown, LinkError, LinkTimeout, Refused
from bridge.modbus.link import Link
from bridge.modbus.wire import Request

logger = logging.getLogger(__name__)

CLIENTS = 4
"""So many at once, each with one question on its way."""

IDLE_S = 300.0
"""A client that asks nothing for so long is sent away."""

LONGEST_ANSWER_S = 0.5
"""A question to which there is no answer may hold up the bridge's own ones for so long."""

UNANSWERED_S = 60.0
"""It is not passed on again for so long."""

_WIDEST = {1: 2000, 2: 2000, 3: 125, 4: 125}
_ILLEGAL_FUNCTION, _ILLEGAL_VALUE, _NO_PATH, _NO_ANSWER = 1, 3, 10, 11


def listen(address: str) -> socket.socket:
    """A listening socket on ``host:port``; raises OSError that names the address."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error


class Proxy:
    """The door to the device ``unit`` behind ``link``; other units are passed on, 0 and 255 mean the device itself."""

    def __init__(self, name: str, link: Link, unit: int, timeout_s: float, listener: socket.socket) -> None:
        self._name, self._link, self._unit, self._listener = name, link, unit, listener
        self._timeout_s = min(timeout_s, LONGEST_ANSWER_S)
        self._clients = 0
        self._unanswered: dict[Request, float] = {}

    async def run(self) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_server(self._serve, sock=self._listener)
        logger.info("%s: can be read on %s:%d", self._name, *self._listener.getsockname()[:2])
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= CLIENTS:
            writer.close()
            return
        self._clients += 1
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    number, protocol, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                    if protocol or not 2 <= length <= 254:
                        return
                    question = await reader.readexactly(length - 1)
                answer = await self._answer(unit, question)
                writer.write(struct.pack(">HHHB", number, 0, len(answer) + 1, unit) + answer)
                await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, unit: int, question: bytes) -> bytes:
        """The answer to a question, both without unit: function code and what follows."""
        function = question[0]
        if function not in _WIDEST:
            return bytes((function | 0x80, _ILLEGAL_FUNCTION))
        address, width = struct.unpack(">HH", question[1:5]) if len(question) == 5 else (0, 0)
        if not 1 <= width <= _WIDEST[function]:
            return bytes((function | 0x80, _ILLEGAL_VALUE))
        request = Request(self._unit if unit in (0, 255) else unit, function, address, width)
        try:
            return _packed(function, await self._ask(request))
        except LinkError as error:
            return bytes((function | 0x80, _code(error)))

    async def _ask(self, request: Request) -> Sequence[int]:
        now = asyncio.get_running_loop().time()
        if self._unanswered.get(request, now) > now or self._link.silent_for(request.unit):
            raise LinkTimeout("not answered lately")
        try:
            return await self._link.ask(request, self._timeout_s, last=True)
        except LinkTimeout:
            self._unanswered = {asked: until for asked, until in self._unanswered.items() if until > now}
            self._unanswered[request] = now + UNANSWERED_S
            raise


def _packed(function: int, words: Sequence[int]) -> bytes:
    if function in (3, 4):
        return struct.pack(f">BB{len(words)}H", function, 2 * len(words), *words)
    bits = sum(bool(word) << place for place, word in enumerate(words))
    size = (len(words) + 7) // 8
    return bytes((function, size)) + bits.to_bytes(size, "little")


def _code(error: LinkError) -> int:
    """The exception by which a gateway says what went wrong behind it."""
    if isinstance(error, Refused):
        return error.code
    return _NO_PATH if isinstance(error, LinkDown) else _NO_ANSWER
