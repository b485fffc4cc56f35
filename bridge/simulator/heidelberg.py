"""Heidelberg Energy Control (Modbus RTU table of the maker), as a gateway presents it on TCP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from bridge.core.model import PerLine
from bridge.simulator.car import MIN_A, Car
from bridge.simulator.device import NO_ANSWER_BEHIND_GATEWAY, Words, text, u16, u32
from bridge.simulator.wallbox import Held, Wallbox

DECIAMPS = (0, *range(60, 161))


class Heidelberg(Wallbox):
    """Heidelberg Energy Control behind a Modbus gateway; without 258 = 4 it falls asleep when no car is there."""

    foreign = NO_ANSWER_BEHIND_GATEWAY
    hardware_a = 16.0
    registers: ClassVar = {
        257: Held(15_000),
        258: Held(0, legal=(0, 4)),
        259: Held(1, legal=(0, 1)),
        261: Held(160, legal=range(161)),
        262: Held(0, legal=DECIAMPS),
    }
    standby_s = 600.0

    def __init__(self, id: str, car: Car, lines: Sequence[int] = (1, 2, 3)) -> None:
        super().__init__(id, car, lines)
        self._idle_s = 0.0

    @property
    def commanded_a(self) -> float:
        """261 in 0.1 A, unless 259 locks."""
        return self.held[261] / 10.0 * self.held[259]

    @property
    def failsafe_a(self) -> float:
        """262 in 0.1 A."""
        return self.held[262] / 10.0

    @property
    def timeout_s(self) -> float:
        """257 in milliseconds."""
        return self.held[257] / 1000.0

    def step(self, dt_s: float, house_volts: PerLine) -> None:
        """As every wallbox; also measures how long no car was there."""
        super().step(dt_s, house_volts)
        self._idle_s = self._idle_s + dt_s if self.car.state == "A" else 0.0

    def answer(self, unit: int, pdu: bytes) -> bytes | None:
        """As every device, unless asleep: then the gateway has to answer for it."""
        asleep = self.held[258] == 0 and self._idle_s > self.standby_s
        return bytes((pdu[0] | 0x80, NO_ANSWER_BEHIND_GATEWAY)) if asleep else super().answer(unit, pdu)

    def cells(self, function: int) -> Mapping[int, Words]:
        """The makers' table: input registers from 4, holding registers from 257."""
        if function == 3:
            return {address: u16(value) for address, value in self.held.items()}
        if function != 4:
            return {}
        allowed = 1 if self.offered_a else 0
        amps, volts = self.amps, self.volts
        return {
            4: u16(0x0108),
            5: u16({"A": 2, "B": 4, "C": 6}[self.car.state] + allowed),
            6: u16(10 * amps[0]),
            7: u16(10 * amps[1]),
            8: u16(10 * amps[2]),
            9: u16(10 * 21.5),
            10: u16(volts[0]),
            11: u16(volts[1]),
            12: u16(volts[2]),
            13: u16(1),
            14: u16(self.power_w),
            15: u32(self.energy_wh),
            17: u32(self.energy_wh),
            100: u16(self.hardware_a),
            101: u16(MIN_A),
            102: text("00.779.2885/A", 32),
            200: u16(1),
            203: u16(0x0108),
        }
