"""Eastron SDM630 (Modbus/TCP variant): floats in input registers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.core.model import PerLine
from bridge.simulator.device import ILLEGAL_VALUE, Device, Refusal, Words, f32, u32

MAX_WORDS = 50
"""The TCP variant answers no more registers in one request."""

LAST = 357


class Sdm630(Device):
    """A three-phase meter of ohmic loads: power factor 1 everywhere. It answers 0 between its quantities."""

    def __init__(self) -> None:
        self._volts: PerLine = (0.0, 0.0, 0.0)
        self._amps: PerLine = (0.0, 0.0, 0.0)
        self._import_wh = [0.0, 0.0, 0.0]

    def measure(self, dt_s: float, amps: PerLine, volts: PerLine) -> None:
        """Let ``dt_s`` seconds pass with ``amps`` flowing in each line."""
        self._amps, self._volts = amps, volts
        for line in range(3):
            self._import_wh[line] += amps[line] * volts[line] * dt_s / 3600.0

    def read(self, function: int, address: int, count: int) -> Sequence[int]:
        """As every device, but no more than :data:`MAX_WORDS`."""
        if count > MAX_WORDS:
            raise Refusal(ILLEGAL_VALUE)
        return super().read(function, address, count)

    def image(self, function: int) -> dict[int, int]:
        """The quantities, and zeros between them."""
        gaps = dict.fromkeys(range(LAST + 1), 0) if function == 4 else {}
        return gaps | super().image(function)

    def cells(self, function: int) -> Mapping[int, Words]:
        """The meter's map: volts, amperes, watts, kWh in input registers; the serial number in a holding register."""
        if function == 3:
            return {64512: u32(20_630_001)}
        if function != 4:
            return {}
        watts = [v * a for v, a in zip(self._volts, self._amps, strict=True)]
        import_kwh = [wh / 1000.0 for wh in self._import_wh]
        return {
            **_lines(0, self._volts),
            **_lines(6, self._amps),
            **_lines(12, watts),
            **_lines(30, (1.0, 1.0, 1.0)),  # power factors
            52: f32(sum(watts)),
            56: f32(sum(watts)),  # apparent
            62: f32(1.0),
            70: f32(50.0),
            72: f32(sum(import_kwh)),
            342: f32(sum(import_kwh)),
            **_lines(346, import_kwh),
        }


def _lines(first: int, values: Sequence[float]) -> dict[int, Words]:
    return {first + 2 * line: f32(value) for line, value in enumerate(values)}
