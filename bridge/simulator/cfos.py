"""cFos Power Brain wallbox (register table of the maker)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from bridge.simulator.device import Words, text, u16, u32, u64
from bridge.simulator.wallbox import Held, Wallbox


class Cfos(Wallbox):
    """cFos Power Brain: most settings are in flash and must not be written again and again."""

    port = 4701
    hardware_a = 32.0
    registers: ClassVar = {
        8083: Held(0, functions=(16,), flash=True),
        8084: Held(300, functions=(16,), flash=True),
        8085: Held(60, legal=(0, *range(60, 631)), flash=True),
        8087: Held(0, legal=(0, 1), functions=(6,)),
        8093: Held(320, legal=range(60, 631), functions=(6,)),
        8094: Held(1, legal=(0, 1), functions=(6,)),
    }

    @property
    def commanded_a(self) -> float:
        """8093 in 0.1 A while 8094 enables."""
        return self.held[8093] / 10.0 * self.held[8094]

    @property
    def phases(self) -> int:
        """8087: 0 all, 1 one."""
        return 1 if self.held[8087] else len(self.lines)

    def write(self, function: int, address: int, values: Sequence[int]) -> None:
        """As every wallbox; relays that switch a current wear out."""
        before = self.phases
        super().write(function, address, values)
        if self.phases != before:
            if self.car.current_a > 0.0:
                self.complaints["switched under load"] += 1
            self.car.interrupt()

    @property
    def failsafe_a(self) -> float:
        """8085 in 0.1 A."""
        return self.held[8085] / 10.0

    @property
    def timeout_s(self) -> float:
        """8083 (two words) in seconds."""
        return float(self.held[8083] << 16 | self.held[8084])

    def cells(self, function: int) -> Mapping[int, Words]:
        """The maker's table, holding registers from 8000."""
        if function != 3:
            return {}
        amps = self.amps
        return {
            8000: u32(0xCF050000),
            8002: u16(1),
            8004: u16(0x0102),
            8005: u16(7),
            8008: text("PB00012345", 8),
            8016: text(self.id, 16),
            8040: u16(self.unit),
            8057: u16(1),
            8058: u64(self.energy_wh),
            8062: u32(self.power_w),
            8064: u32(10 * amps[0]),
            8066: u32(10 * amps[1]),
            8068: u32(10 * amps[2]),
            8090: u16(10 * self.hardware_a),
            8092: u16("ABC".index(self.car.state)),
            8095: u16(10 * self.offered_a),
            8096: text("", 15),
            8112: u16(1),
            8113: u16(0x0100),  # its phases may be switched
            8120: u32(0),
        } | {address: u16(value) for address, value in self.held.items()}
