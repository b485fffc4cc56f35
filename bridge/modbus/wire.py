"""Modbus on one connection: requests to bytes, bytes to answers, and nothing else.

Frames and messages are pymodbus'; its client is not used. The client cannot give each request a time of its own,
leaves a caller waiting when the peer closes, and sends only after two turns of the event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerAscii, FramerBase, FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU, bit_message, register_message
from pymodbus.transport.serialtransport import create_serial_connection

from bridge.errors import LinkError, Nonsense, Refused
from bridge.modbus.address import Where

FRAMERS: Mapping[str, type[FramerBase]] = {"tcp": FramerSocket, "rtu": FramerRTU, "ascii": FramerAscii}

_READS: Mapping[int, type[ModbusPDU]] = {
    1: bit_message.ReadCoilsRequest,
    2: bit_message.ReadDiscreteInputsRequest,
    3: register_message.ReadHoldingRegistersRequest,
    4: register_message.ReadInputRegistersRequest,
}
_BIT_WRITES: Mapping[int, type[ModbusPDU]] = {
    5: bit_message.WriteSingleCoilRequest,
    15: bit_message.WriteMultipleCoilsRequest,
}
_WORD_WRITES: Mapping[int, type[ModbusPDU]] = {
    6: register_message.WriteSingleRegisterRequest,
    16: register_message.WriteMultipleRegistersRequest,
}
_LONGEST_FRAMES = {"tcp": 260, "rtu": 256, "ascii": 513}

_EXCEPTIONS = {
    1: "function not supported",
    2: "no such register",
    3: "value not allowed",
    4: "device failure",
    5: "acknowledged, still working",
    6: "busy",
    8: "memory error",
    10: "gateway: no path",
    11: "gateway: no answer from the unit",
}


class Request(NamedTuple):
    """One request. ``words`` to write, or empty: read ``width`` registers (bits for functions 1, 2, 5 and 15)."""

    unit: int
    function: int
    address: int
    width: int
    words: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{'write' if self.words else 'read'} of {self.address}, unit {self.unit}, function {self.function}"


class Wire(asyncio.Protocol):
    """The connection. Calls ``answered`` with words, or with what was wrong, and ``lost`` once when it is gone."""

    def __init__(
        self, framing: str, answered: Callable[[Sequence[int] | LinkError], None], lost: Callable[[Wire], None]
    ) -> None:
        self.made = asyncio.Event()
        self._framing = framing
        self._framer = FRAMERS[framing](DecodePDU(False))
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._number = 0
        self._request: Request | None = None

    def send(self, request: Request) -> None:
        """Put a request on the wire now; the answer to the one before must have come."""
        assert self._transport is not None
        self._number = self._number % 0xFFFF + 1
        self._request = request
        self._buffer = b""
        message = _message(request)
        message.dev_id, message.transaction_id = request.unit, self._number
        self._transport.write(self._framer.buildFrame(message))

    def abort(self) -> None:
        """Drop the connection at once; ``lost`` is not called."""
        self._lost = lambda wire: None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keepalive, so that a peer that vanished without a word is noticed by the kernel too."""
        self._transport = cast(asyncio.Transport, transport)
        self.made.set()
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer closed, or the connection broke."""
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        """Collect bytes until an answer is whole."""
        self._buffer += data
        if self._request is None:
            self._answered(Nonsense("the device sent something without being asked"))
            return
        answer: Sequence[int] | LinkError | None
        try:
            answer = self._decoded()
        except LinkError as error:
            answer = error
        if answer is not None:
            self._request = None
            self._answered(answer)

    def _decoded(self) -> Sequence[int] | None:
        """The words of the answer, None while it is incomplete; raises :class:`Nonsense` and :class:`Refused`."""
        request = self._request
        assert request is not None
        on_tcp = self._framing == "tcp"
        if len(self._buffer) > _LONGEST_FRAMES[self._framing] or (on_tcp and self._buffer[2:4].strip(b"\0")):
            raise Nonsense(f"{request}: the answer is no Modbus frame")
        try:
            used, message = self._framer.handleFrame(self._buffer, 0, 0)
        except (ModbusException, ValueError) as error:  # ValueError: no hexadecimal digits in ASCII
            raise Nonsense(f"{request}: the answer cannot be read: {error}") from error
        self._buffer = self._buffer[used:]
        if message is None:
            return None
        # Never match by order: an answer to an earlier request would shift all that follow.
        if message.transaction_id != self._number if on_tcp else message.dev_id != request.unit:
            raise Nonsense(f"{request}: the answer is to another request")
        if message.function_code & 0x7F != request.function:
            raise Nonsense(f"{request}: the answer is of function {message.function_code}")
        if isinstance(message, ExceptionResponse):
            code = message.exception_code
            raise Refused(f"{request}: {_EXCEPTIONS.get(code, f'exception {code}')}", code)
        return _words(request, message)


async def dial(
    where: Where, answered: Callable[[Sequence[int] | LinkError], None], lost: Callable[[Wire], None]
) -> Wire:
    """Make the connection; raises ``OSError``."""
    loop = asyncio.get_running_loop()
    wire = Wire(where.framing, answered, lost)
    if where.serial is None:
        await loop.create_connection(lambda: wire, where.host, where.port)
    else:
        line = where.serial
        await create_serial_connection(loop, lambda: wire, where.host, line.baud, 8, line.parity, line.stopbits)
        await wire.made.wait()
    return wire


def _message(request: Request) -> ModbusPDU:
    if request.function in _READS:
        return _READS[request.function](address=request.address, count=request.width)
    if request.function in _BIT_WRITES:
        return _BIT_WRITES[request.function](address=request.address, bits=[bool(word) for word in request.words])
    return _WORD_WRITES[request.function](address=request.address, registers=request.words)


def _words(request: Request, message: ModbusPDU) -> Sequence[int]:
    """What was read; for writes nothing."""
    if request.words:
        return ()
    if request.function in (1, 2):
        words: Sequence[int] = [int(bit) for bit in message.bits[: request.width]]
    else:
        words = message.registers
    if len(words) != request.width:
        raise Nonsense(f"{request}: {len(words)} instead of {request.width} values came back")
    return words
