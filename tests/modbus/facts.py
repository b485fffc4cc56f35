"""What the sources say about devices' registers, and the numbers a plausible house would put into them.

``facts.csv`` is the collected knowledge of the sources named in the profiles, one register a line, in the sources' own
words: quantities and units are theirs, not the profiles'. The encoder here shares nothing with the product's codec.
"""

from __future__ import annotations

import csv
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent / "facts.csv"


@dataclass(frozen=True)
class Fact:
    """One line of ``facts.csv``. ``address`` of SunSpec points: ``+n`` from the head of their model."""

    device: str
    port: str
    unit_id: str
    quantity: str
    function: str
    address: str
    count: str
    type: str
    word_order: str
    scale: str
    unit: str
    values: str

    @property
    def reads(self) -> tuple[int, ...]:
        """The functions that read the register."""
        return tuple(int(f) for f in re.split(r"[+/]", self.function) if f and int(f) <= 4)

    @property
    def writes(self) -> int | None:
        """The function that writes the register."""
        return next((int(f) for f in re.split(r"[+/]", self.function) if f and int(f) > 4), None)

    @property
    def space(self) -> int:
        """The registers it is one of, by the function that reads them (coils: 1, what is only written: 3)."""
        return 1 if self.type == "bool" else (*self.reads, 3)[0]

    @property
    def labels(self) -> Mapping[str, str]:
        """Raw value as text to what it means: ``0=A|7..9=E:fault``; D behind a colon is the state's own letter."""
        found: dict[str, str] = {}
        for item in filter(None, self.values.split("|")):
            raw, _, label = item.partition("=")
            first, _, last = raw.partition("..")
            meaning, _, remark = label.partition(":")
            many = range(int(first), int(last) + 1) if first.isdigit() and last.isdigit() else [raw]
            for number in many:
                found[str(number)] = "D" if remark == "D" else meaning
        return found


@cache
def facts(device: str) -> tuple[Fact, ...]:
    """All that is known of a device, by its profile's id."""
    return tuple(fact for fact in _all() if fact.device == device.replace("-", "_"))


@cache
def _all() -> tuple[Fact, ...]:
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(Fact(**row) for row in csv.DictReader(file))


# ------------------------------------------------------------------------------------------------- one house

LINES = ("l1", "l2", "l3")

HOUSE: Mapping[str, float | str] = {
    # what is published, in the topics' units; consistent: powers are V * A, sums are sums
    **{f"voltage_{line}_v": volts for line, volts in zip(LINES, (230.0, 231.0, 229.0), strict=True)},
    **{f"current_{line}_a": amperes for line, amperes in zip(LINES, (10.0, 11.0, 12.0), strict=True)},
    **{f"power_{line}_w": watts for line, watts in zip(LINES, (2300.0, 2541.0, 2748.0), strict=True)},
    **{f"power_factor_{line}": factor for line, factor in zip(LINES, (0.96, 0.97, 0.98), strict=True)},
    **{f"energy_{line}_wh": energy for line, energy in zip(LINES, (401000.0, 402000.0, 404000.0), strict=True)},
    **{f"import_{line}_wh": energy for line, energy in zip(LINES, (301000.0, 302000.0, 304000.0), strict=True)},
    **{f"export_{line}_wh": energy for line, energy in zip(LINES, (31000.0, 32000.0, 34000.0), strict=True)},
    **{f"grid_voltage_{line}_v": volts for line, volts in zip(LINES, (232.0, 233.0, 228.0), strict=True)},
    **{f"grid_current_{line}_a": amperes for line, amperes in zip(LINES, (4.0, 3.5, 3.0), strict=True)},
    **{f"grid_power_{line}_w": watts for line, watts in zip(LINES, (900.0, 800.0, 700.0), strict=True)},
    "power_w": 7589.0,
    "energy_wh": 1207000.0,
    "import_wh": 907000.0,
    "export_wh": 97000.0,
    "grid_power_w": 2400.0,
    "pv_power_w": 5000.0,
    "load_power_w": 3000.0,
    "battery_power_w": 1500.0,
    "power_dc_w": 3500.0,
    "voltage_dc_v": 402.0,
    "current_dc_a": 8.0,
    "voltage_v": 230.0,
    "current_a": 10.0,
    "frequency_hz": 49.9,
    "power_factor": 0.95,
    "reactive_power_var": 1300.0,
    "apparent_power_va": 7700.0,
    "temperature_c": 31.0,
    "soc_pct": 55.0,
    "soh_pct": 97.0,
    "session_wh": 7400.0,
    "session_s": 3723.0,
    "offered_a": 14.0,
    "cable_a": 20.0,
    "hardware_max_a": 32.0,
    "hardware_min_a": 6.0,
    "failsafe_a": 9.0,
    "failsafe_s": 20.0,
    "phases": 3.0,
    "error_code": 5.0,
    **{f"input_{number}": float(number % 3 == 0) for number in range(1, 9)},
    "state": "C",
    # what only goes into formulas
    "energy_charged_wh": 61000.0,
    "energy_discharged_wh": 59000.0,
    "external_power_w": -600.0,
    "ct_ratio": 40.0,
    "pt_ratio": 10.0,
}

APART = 400.0
"""Where a device tells import and export (charge and discharge) apart, both have so many watts too much."""

TEXTS = {"rfid": "04A2B6C8", "serial": "S1234567", "firmware": "1.42", "model": "M7", "name": "Box7"}
NUMBERS = {"rfid": 77001.0, "serial": 2100123.0, "firmware": 18.0, "model": 9.0}
VERSION = (3, 10, 27)

_SAME = {
    "status": "state",
    "power_ac": "power_w",
    "inverter_power": "power_w",
    "pv_power_dc": "pv_power_w",
    "battery_soc": "soc_pct",
    "battery_soe": "soc_pct",
    "soc": "soc_pct",
    "battery_voltage": "voltage_dc_v",
    "battery_current": "current_dc_a",
    "dc_voltage": "voltage_dc_v",
    "power_dc": "power_dc_w",
    "dc_current": "current_dc_a",
    "energy_yield": "energy_wh",
    "pv_energy": "energy_wh",
    "energy_session": "session_wh",
    "session_duration": "session_s",
    "current_offered": "offered_a",
    "cable_max_current": "cable_a",
    "failsafe_current_rb": "failsafe_a",
    "failsafe_timeout_rb": "failsafe_s",
    "current_sum": "current_a",
    "pp_current": "cable_a",
    "max_current_hw": "hardware_max_a",
    "min_current_hw": "hardware_min_a",
    "phases_actual": "phases",
    "phases_relay": "phases",
    "error_bits": "error_code",
    "temperature": "temperature_c",
    "product": "model",
    "device_name": "name",
    "sw_version": "firmware",
    "firmware_ext": "firmware",
    "energy_import_f": "import_wh",
    "energy_export_f": "export_wh",
}
_OF_DEVICE = {
    ("alfen_eve", "failsafe_current"): "failsafe_a",
    ("keba_p30", "max_current"): "offered_a",
    ("keba_p40", "max_current"): "offered_a",
    ("wallbox_quasar", "max_current"): "hardware_max_a",
    ("weidmueller_acsmart", "phases_set"): "phases",
}
_ENDINGS = {"current": "_a", "voltage": "_v", "power": "_w", "frequency": "_hz", "energy": "_wh"}
_FACTORS = {"kWh": 1000.0, "kW": 1000.0, "kVA": 1000.0, "kvar": 1000.0, "Ws": 1 / 3600, "Pct": 0.01}
_STRINGS = re.compile(r"pv_power_\d|pv_on_\w+|pv_dc_power")


def topic(fact: Fact) -> str:
    """The name under which the product publishes a quantity of the sources; nonsense for what it does not publish."""
    quantity = fact.quantity
    if special := _OF_DEVICE.get((fact.device, quantity)) or _SAME.get(quantity):
        return special
    line = f"_{quantity[-2:]}" if quantity[-2:] in LINES else ""
    kind = quantity.removesuffix(line)
    if kind in ("energy_import", "energy_export"):
        return f"{kind[7:]}{line}_wh"
    if kind in ("reactive_power", "apparent_power"):
        return f"{kind}{line}_{'var' if kind[0] == 'r' else 'va'}"
    ending = next((unit for word, unit in _ENDINGS.items() if kind.endswith(word)), "")
    return f"{kind.removesuffix('_total')}{line}{ending or ('_wh' if kind.startswith('energy') else '')}"


def meaning(fact: Fact) -> float | str | None:
    """What the house has to say in this register, in the topic's unit; None: nothing."""
    quantity, name = fact.quantity, topic(fact)
    if name in TEXTS:
        texts = ("str", "str_lsb", "str_utf16", "hex", "ver")
        return TEXTS[name] if fact.type in texts else NUMBERS.get(name)
    if _STRINGS.fullmatch(quantity):
        strings = [f.quantity for f in facts(fact.device) if _STRINGS.fullmatch(f.quantity)]
        share = strings.index(quantity) + 1
        return 5000.0 * share / sum(range(1, len(strings) + 1))
    if quantity == "current_sum":
        return 33.0
    if quantity.startswith("load_power_l"):
        return 900.0 + 100.0 * LINES.index(quantity[-2:])
    if split := re.fullmatch(r"(\w*?)_?(power)_(import|export)(_l\d)?|(battery)_(charge|discharge)_power", quantity):
        whole = "battery_power" if split[5] else f"{split[1] + '_' if split[1] else ''}power{split[4] or ''}"
        net = HOUSE[f"{whole}_w"]
        assert isinstance(net, float)
        return APART + (net if "import" in split.groups() or "charge" in split.groups() else 0.0)
    return HOUSE.get(name)


def factor(fact: Fact) -> float:
    """How many of the topic's unit one of the fact's unit is."""
    percent = fact.unit == "%" and fact.quantity.startswith("power_factor")
    return 0.01 if percent else _FACTORS.get(fact.unit, 1.0)


def scale(fact: Fact, exponents: Mapping[str, int]) -> float:
    """The number to multiply a raw value with: ``0.1``, ``10^A_SF``, ``0.1*ct_ratio``."""
    product = 1.0
    for part in fact.scale.split("*"):
        if part.startswith("10^"):
            product *= 10.0 ** exponents[part[3:]]
        else:
            ratio = HOUSE.get(part)
            product *= ratio if isinstance(ratio, float) else float(part)
    return product


# --------------------------------------------------------------------------------------------------- encoding

_FORMATS = {"u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}


def words(fact: Fact, raw: float | str) -> list[int]:
    """A raw value as it lies in the registers."""
    if fact.type == "bool":
        return [int(float(raw))]
    if fact.type in _FORMATS:
        number = float(raw)
        data = struct.pack(">" + _FORMATS[fact.type], number if fact.type[0] == "f" else round(number))
    else:
        data = _text(fact, str(raw))
    found = [high << 8 | low for high, low in zip(data[::2], data[1::2], strict=True)]
    return found[::-1] if fact.word_order == "le" and fact.type in _FORMATS else found


def _text(fact: Fact, text: str) -> bytes:
    size = 2 * int(fact.count)
    if fact.type == "hex":
        return bytes.fromhex(text)[:size].rjust(size, b"\0")
    if fact.type == "ver":
        return bytes(VERSION).ljust(size, b"\0")
    if fact.type == "str_utf16":
        return text.encode("utf-16-be")[:size].ljust(size, b"\0")
    data = text.encode("ascii")[:size].ljust(size, b"\0")
    if fact.type == "str_lsb":
        return b"".join(bytes((low, high)) for high, low in zip(data[::2], data[1::2], strict=True))
    return data


def shown(fact: Fact, value: float | str, exponents: Mapping[str, int]) -> float | str:
    """What a register that was given ``value`` shows: numbers lose what is finer than its resolution."""
    if isinstance(value, str) and fact.type == "hex":
        return _text(fact, value).hex()
    if isinstance(value, str):
        letters = int(fact.count) * (1 if fact.type == "str_utf16" else 2)
        return ".".join(map(str, VERSION)) if fact.type == "ver" else value[:letters]
    step = scale(fact, exponents) * factor(fact)
    if fact.type[0] == "f":
        single: float = struct.unpack(">f", struct.pack(">f", value / step))[0]
        return step * (single if fact.type == "f32" else value / step)
    return round(value / step) * step


def fits(fact: Fact, raw: float) -> bool:
    """Whether the register can hold the raw value."""
    try:
        words(fact, raw)
    except (struct.error, ValueError):
        return False
    return math.isfinite(raw)
