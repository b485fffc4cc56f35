"""Modbus frames as a device reads and writes them: TCP, RTU and ASCII. Shares nothing with the product."""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple


class Frame(NamedTuple):
    """``number`` is the transaction's, 0 where there is none; ``body`` is the function code and what follows."""

    number: int
    unit: int
    body: bytes


def receive(framing: str, stream: BinaryIO) -> Frame | None:
    """The next request; None at the end of the stream."""
    if framing == "tcp":
        if len(header := stream.read(7)) < 7:
            return None
        number, _, length, unit = struct.unpack(">HHHB", header)
        return Frame(number, unit, stream.read(length - 1))
    if framing == "ascii":
        if not (line := stream.readline()):
            return None
        data = bytes.fromhex(line.strip().removeprefix(b":").decode("ascii"))
        assert sum(data) & 0xFF == 0, "longitudinal check"
        return Frame(0, data[0], data[1:-1])
    if len(head := stream.read(8)) < 8:
        return None
    data = head + (stream.read(head[6] + 1) if head[1] in (15, 16) else b"")
    assert crc(data) == 0, "cyclic check"
    return Frame(0, data[0], data[1:-2])


def frame(framing: str, answer: Frame) -> bytes:
    """An answer as it goes on the wire."""
    data = bytes([answer.unit]) + answer.body
    if framing == "tcp":
        return struct.pack(">HHH", answer.number, 0, len(data)) + data
    if framing == "ascii":
        return b":" + (data + bytes([-sum(data) & 0xFF])).hex().upper().encode("ascii") + b"\r\n"
    return data + struct.pack("<H", crc(data))


def crc(data: bytes) -> int:
    """CRC-16/MODBUS; 0 over data that ends with its own."""
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xA001 if register & 1 else 0)
    return register
