"""What every simulated device has: registers, and the answers it gives to Modbus requests.

Written from the Modbus application protocol specification V1.1b3, without the library the bridge itself uses: the
two check each other.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, NO_ANSWER_BEHIND_GATEWAY = 1, 2, 3, 11

Words = tuple[int, ...]
"""One value as 16-bit register contents, high word first."""


class Refusal(Exception):
    """The device says no; ``code`` is the Modbus exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Modbus exception {code}")
        self.code = code


def u16(value: float) -> Words:
    """Encode in one word, rounded; negative numbers as two's complement."""
    return (round(value) & 0xFFFF,)


def u32(value: float) -> Words:
    """Encode in two words, rounded."""
    return struct.unpack(">2H", struct.pack(">I", round(value)))


def u64(value: float) -> Words:
    """Encode in four words, rounded."""
    return struct.unpack(">4H", struct.pack(">Q", round(value)))


def f32(value: float) -> Words:
    """Encode in two words as an IEEE 754 number."""
    return struct.unpack(">2H", struct.pack(">f", value))


def text(value: str, words: int) -> Words:
    """Encode as ASCII in ``words`` words, filled up with zeros."""
    return struct.unpack(f">{words}H", struct.pack(f"{2 * words}s", value.encode("ascii")))


class Device(ABC):
    """One device with its registers, reachable under one unit id.

    ``foreign`` is the exception code it answers to requests for another unit; None: it stays silent.
    """

    unit: int = 1
    port: int = 502
    foreign: int | None = None

    @abstractmethod
    def cells(self, function: int) -> Mapping[int, Words]:
        """What can be read now with function code 3 or 4: first address to words; empty: nothing."""

    def read(self, function: int, address: int, count: int) -> Sequence[int]:
        """Read ``count`` words; raise :class:`Refusal` when one of them does not exist."""
        image = self.image(function)
        if not image:
            raise Refusal(ILLEGAL_FUNCTION)
        try:
            return [image[index] for index in range(address, address + count)]
        except KeyError:
            raise Refusal(ILLEGAL_ADDRESS) from None

    def image(self, function: int) -> dict[int, int]:
        """All readable words by address."""
        return {
            first + offset: word for first, words in self.cells(function).items() for offset, word in enumerate(words)
        }

    def write(self, function: int, address: int, values: Sequence[int]) -> None:
        """Write words with function code 6 or 16, all or none; raise :class:`Refusal`."""
        raise Refusal(ILLEGAL_FUNCTION)

    def answer(self, unit: int, pdu: bytes) -> bytes | None:
        """Answer one request (function code and data) for ``unit``; None: silence."""
        try:
            if unit == self.unit:
                return self._perform(pdu)
            if self.foreign is None:
                return None
            raise Refusal(self.foreign)
        except Refusal as refusal:
            return bytes((pdu[0] | 0x80, refusal.code))
        except struct.error:  # too short or too long for its function
            return bytes((pdu[0] | 0x80, ILLEGAL_VALUE))

    def _perform(self, pdu: bytes) -> bytes:
        function, data = pdu[0], pdu[1:]
        match function:
            case 3 | 4:
                address, count = struct.unpack(">HH", data)
                if not 1 <= count <= 125:
                    raise Refusal(ILLEGAL_VALUE)
                return struct.pack(f">BB{count}H", function, 2 * count, *self.read(function, address, count))
            case 6:
                address, value = struct.unpack(">HH", data)
                self.write(function, address, (value,))
                return pdu
            case 16:
                address, count, size = struct.unpack(">HHB", data[:5])
                if size != 2 * count or not 1 <= count <= 123:
                    raise Refusal(ILLEGAL_VALUE)
                self.write(function, address, struct.unpack(f">{count}H", data[5:]))
                return pdu[:5]
        raise Refusal(ILLEGAL_FUNCTION)
