"""The vocabulary: which quantities leave the edge, in which unit, and between which bounds they are believable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bridge.core.events import Reading


class Quantity(NamedTuple):
    """Unit and believable bounds of a published quantity; what lies outside is most likely something else."""

    unit: str
    low: float = float("-inf")
    high: float = float("inf")


_SCALARS = {
    "current_a": Quantity("A", -2000, 2000),
    "current_n_a": Quantity("A", -2000, 2000),
    "offered_a": Quantity("A", 0, 500),
    "cable_a": Quantity("A", 0, 500),
    "hardware_max_a": Quantity("A", 0, 500),
    "hardware_min_a": Quantity("A", 0, 100),
    "failsafe_a": Quantity("A", 0, 500),
    "failsafe_s": Quantity("s", 0),
    "refresh_s": Quantity("s", 0),
    "limit_a": Quantity("A", -100, 500),
    "voltage_v": Quantity("V", 0, 500),
    "voltage_l1_l2_v": Quantity("V", 0, 800),
    "voltage_l2_l3_v": Quantity("V", 0, 800),
    "voltage_l3_l1_v": Quantity("V", 0, 800),
    "voltage_dc_v": Quantity("V", 0, 1500),
    "current_dc_a": Quantity("A", -2000, 2000),
    "power_dc_w": Quantity("W", -1e6, 1e6),
    "frequency_hz": Quantity("Hz", 47, 53),
    "power_w": Quantity("W", -1e6, 1e6),
    "reactive_power_var": Quantity("var", -1e6, 1e6),
    "apparent_power_va": Quantity("VA", -1e6, 1e6),
    "power_factor": Quantity("", -1, 1),
    "import_wh": Quantity("Wh", 0),
    "export_wh": Quantity("Wh", 0),
    "energy_wh": Quantity("Wh", 0),
    "session_wh": Quantity("Wh", 0, 1e6),
    "session_s": Quantity("s", 0),
    "grid_power_w": Quantity("W", -1e6, 1e6),
    "pv_power_w": Quantity("W", -100, 1e6),
    "battery_power_w": Quantity("W", -1e6, 1e6),
    "load_power_w": Quantity("W", -1e6, 1e6),
    "soc_pct": Quantity("%", 0, 100),
    "soh_pct": Quantity("%", 0, 100),
    "temperature_c": Quantity("°C", -50, 150),
    "phases": Quantity("", 1, 3),
    "error_code": Quantity(""),
    **{f"input_{number}": Quantity("", 0, 1) for number in range(1, 9)},
}

_PER_LINE = {
    "current_{}_a": Quantity("A", -2000, 2000),
    "voltage_{}_v": Quantity("V", 195.5, 264.5),
    "power_{}_w": Quantity("W", -1e6, 1e6),
    "reactive_power_{}_var": Quantity("var", -1e6, 1e6),
    "apparent_power_{}_va": Quantity("VA", -1e6, 1e6),
    "power_factor_{}": Quantity("", -1, 1),
    "import_{}_wh": Quantity("Wh", 0),
    "export_{}_wh": Quantity("Wh", 0),
    "energy_{}_wh": Quantity("Wh", 0),
    "grid_power_{}_w": Quantity("W", -1e6, 1e6),
    "grid_current_{}_a": Quantity("A", -2000, 2000),
    "grid_voltage_{}_v": Quantity("V", 195.5, 264.5),
}

"""Lines have 230 V ± 15 %: beyond what a European grid does."""

_TEXTS = ("state", "serial", "firmware", "model", "name", "rfid")


def _all() -> Iterator[tuple[str, Quantity]]:
    yield from _SCALARS.items()
    for pattern, quantity in _PER_LINE.items():
        for line in ("l1", "l2", "l3"):
            yield pattern.format(line), quantity
    for name in _TEXTS:
        yield name, Quantity("")


QUANTITIES: Mapping[str, Quantity] = dict(_all())
"""Every published quantity by name. A point of another name is a helper: it serves formulas, writes and ``probe``."""

_WATCHDOG = re.compile(r"(set_)?(failsafe|watchdog)\w*_(?P<unit>[as])")
"""What profiles call the points that hold the watchdog's time and the current the box falls back to."""


def watchdog_unit(name: str) -> str:
    """The unit of a point of the box's own watchdog, A or s; empty for all others."""
    named = _WATCHDOG.fullmatch(name)
    return named["unit"].replace("a", "A") if named else ""


def believable(name: str, value: Reading) -> bool:
    """Whether a quantity may well have this value; a line without voltage may not be connected."""
    quantity = QUANTITIES.get(name)
    if quantity is None or isinstance(value, str) or (value == 0.0 and quantity.unit == "V"):
        return True
    return quantity.low <= value <= quantity.high
