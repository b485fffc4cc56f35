"""KEBA KeContact P30 (Modbus TCP programmers guide)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from bridge.simulator.car import Car
from bridge.simulator.device import ILLEGAL_ADDRESS, Refusal, Words, u32
from bridge.simulator.wallbox import Held, Wallbox


class Keba(Wallbox):
    """KEBA KeContact P30: one value of two words per request; only rewriting 5018 feeds its watchdog."""

    unit = 255
    hardware_a = 32.0
    registers: ClassVar = {
        5004: Held(32_000, legal=range(6000, 63_001), functions=(6,)),
        5014: Held(1, legal=(0, 1), functions=(6,)),
        5016: Held(0, legal=(0, *range(6000, 32_001)), functions=(6,)),
        5018: Held(0, functions=(6,)),
        5020: Held(0, legal=(1,), functions=(6,)),
    }
    read_gap_s = 0.5
    setpoint_gap_s = 5.0

    def __init__(self, id: str, car: Car, lines: Sequence[int] = (1, 2, 3)) -> None:
        super().__init__(id, car, lines)
        self._persisted: dict[int, int] = {}
        self._since_read_s = self._since_setpoint_s = float("inf")

    @property
    def commanded_a(self) -> float:
        """5004 in mA while 5014 enables."""
        return self.held[5004] / 1000.0 * self.held[5014]

    @property
    def failsafe_a(self) -> float:
        """5016 in mA."""
        return self.held[5016] / 1000.0

    @property
    def timeout_s(self) -> float:
        """5018 in seconds."""
        return float(self.held[5018])

    def wait(self, dt_s: float) -> None:
        """As every wallbox; the gaps between requests are measured too."""
        super().wait(dt_s)
        self._since_read_s += dt_s
        self._since_setpoint_s += dt_s

    def reboot(self) -> None:
        """As every wallbox; the fail-safe settings come back if 5020 stored them."""
        super().reboot()
        self.held |= self._persisted

    def read(self, function: int, address: int, count: int) -> Sequence[int]:
        """Read exactly one value; anything else is refused."""
        if len(self.cells(function).get(address, ())) != count:
            raise Refusal(ILLEGAL_ADDRESS)
        self._count_hurry(self._since_read_s, self.read_gap_s)
        self._since_read_s = 0.0
        return super().read(function, address, count)

    def write(self, function: int, address: int, values: Sequence[int]) -> None:
        """Write one register; 5020 stores the fail-safe settings, 5004 wants five seconds between writes."""
        super().write(function, address, values)
        if address == 5020:
            self._persisted = {kept: self.held[kept] for kept in (5016, 5018)}
        if address == 5004:
            self._count_hurry(self._since_setpoint_s, self.setpoint_gap_s)
            self._since_setpoint_s = 0.0

    def heard(self, function: int, address: int) -> None:
        """Only writing the watchdog's own register feeds it."""
        if (function, address) == (6, 5018):
            super().heard(function, address)

    def _count_hurry(self, passed_s: float, gap_s: float) -> None:
        if passed_s < 0.7 * gap_s:  # time comes in steps of 0.1 s: call quick only what surely was
            self.complaints["too quick"] += 1

    def cells(self, function: int) -> Mapping[int, Words]:
        """The map of the KeContact P30 Modbus TCP guide: mA, mW, 0.1 Wh."""
        if function != 3:
            return {}
        pilot = self.car.state
        waiting = 2 if self.offered_a else 5  # for the car, for the caller
        amps, volts = self.amps, self.volts
        return {
            1000: u32({"A": 1, "B": waiting, "C": 3}[pilot]),
            1004: u32(3 if pilot == "A" else 7),
            1006: u32(0),
            1008: u32(1000 * amps[0]),
            1010: u32(1000 * amps[1]),
            1012: u32(1000 * amps[2]),
            1014: u32(17_619_300),
            1016: u32(315_221),
            1018: u32(0x30A1B00),
            1020: u32(1000 * self.power_w),
            1036: u32(10 * self.energy_wh),
            1040: u32(volts[0]),
            1042: u32(volts[1]),
            1044: u32(volts[2]),
            1046: u32(1000),
            1100: u32(1000 * self.offered_a),
            1110: u32(1000 * self.hardware_a),
            1500: u32(0),
            1502: u32(10 * self.session_wh),
            1550: u32(0),  # phases are not switched
            1552: u32(1),
            1600: u32(self.held[5016]),
            1602: u32(self.held[5018]),
        }
