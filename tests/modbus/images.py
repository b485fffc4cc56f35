"""Register images: what the devices of one plausible house hold, built from the facts and not from the profiles."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bridge.errors import Refused
from bridge.modbus.wire import Request
from tests.modbus.facts import LINES, TEXTS, Fact, factor, facts, fits, meaning, scale, shown, topic, words

Image = dict[tuple[int, int], int]
"""(function that reads it, address) to word."""

RAW: Mapping[str, Mapping[str, float | str]] = {
    "*": {"enable": 9, "failsafe_current": 9, "failsafe_timeout": 9, "heartbeat": 9, "watchdog_ms": 9},
    "abb_b2x": {"model": "B23 112-100"},
    "abl_em4": {"status": 0x01C2},
    "abl_emh1": {"status": 0x01C2, "firmware": "0201a020"},
    "alfen_eve": {"manufacturer": "Alfen NV"},
    "cfos_power_brain": {"probe": 0xCF050000},
    "cg_em24_e1": {"identification": 1648},
    "chint_dtsu666": {"ct_ratio": 40, "pt_ratio": 100},
    "compleo_solo": {"status": 0x0503},
    "e3dc": {"meter_1_kind": 1, "meter_1_l1": 900, "meter_1_l2": 800, "meter_1_l3": 700},
    "elli_charger2": {"layout_version": 0x0108},
    "amperfied_connect": {"layout_version": 0x0108},
    "enovates": {"status": "C2"},
    "goodwe_hca": {"phases_hw": 0},
    "heidelberg_ec": {"layout_version": 0x0108},
    "kathrein_kwb": {"layout_version": 1},
    "keba_p30": {"state": 3, "cable_state": 7, "product_code": 300123},
    "keba_p40": {"state": 3, "cable_state": 7, "product_code": 4001234, "firmware": 10300},
    "kostal_plenticore": {"byte_order": 0},
    "openwb_series2": {"plugged": 1, "charging": 1},
    "peblar": {"status": ord("C")},
    "phoenix_charx": {"status": "C2", "release_mode": 5},
    "sma_inverter": {"device_class": 8009},
    "sungrow_ac011e": {"phases_hw": 3},
    "sungrow_sh": {"running_state": 2, "battery_current_sign": -5},
    "tinkerforge_warp": {"table_version": 4},
    "vestel_evc04": {"charging": 1, "cable_state": 3},
    "victron_evcs": {"probe": 0xC025},
}
"""Raw values where the sources speak of bits, of codes, or of two registers that make a state."""


def image(device: str, **raw: float | str) -> Image:
    """The registers of a device. ``raw`` replaces the raw values of quantities by name."""
    given = {**RAW["*"], **_own(device), **raw}
    found: Image = {}
    for fact in facts(device):
        if fact.address.isdigit() and (value := _raw(fact, given.get(fact.quantity))) is not None:
            for function in fact.reads:
                for offset, word in enumerate(words(fact, value)):
                    found.setdefault((function, int(fact.address) + offset), word)
    return found


def _own(device: str) -> Mapping[str, float | str]:
    return RAW.get(device.replace("-", "_"), {})


def _raw(fact: Fact, given: float | str | None) -> float | str | None:
    if not fact.type:
        return None
    if given is not None:
        return given
    value = meaning(fact)
    codes = [
        raw for raw, label in fact.labels.items() if label == (f"{value:g}" if isinstance(value, float) else value)
    ]
    if codes:
        return codes[0]
    if isinstance(value, str):
        return value
    if value is None:
        # Something has to stand there: a profile that reads it by mistake shall show nonsense.
        return 3.0 if fact.type[0] in "uifb" else None
    raw = value / (scale(fact, {}) * factor(fact))
    return raw if fits(fact, raw) else -raw


def expected(device: str) -> Mapping[str, Sequence[float | str]]:
    """Topic to what a reader of the image may make of it; several where a device says the same thing twice."""
    found: dict[str, list[float | str]] = {}
    for fact in facts(device):
        name, value = topic(fact), meaning(fact)
        if name in TEXTS:
            value = _own(device).get(fact.quantity, value)
        elif fact.quantity in _own(device):
            continue
        if not fact.address.isdigit() or value is None:
            continue
        found.setdefault(name, []).append(value if name == "state" or fact.labels else shown(fact, value, {}))
        if fact.unit == "VA" and name == "power_w":
            found.setdefault("apparent_power_va", []).append(shown(fact, value, {}))
    if not any(fact.quantity.endswith("_l2") for fact in facts(device)):  # the only line is the first
        found.update({name.replace("_", "_l1_", 1): values for name, values in found.items() if name.count("_") == 1})
    return found


# ----------------------------------------------------------------------------------------------------- SunSpec

EXPONENTS = {"A": -2, "V": -1, "Hz": -2, "PF": -1, "TotWh": 1, "WH": 1, "DCA": -2, "DCV": -1, "Tmp": -1, "ChaState": -1}
_POINTS = {
    "A": "current",
    "V": "dc_voltage",
    "Hz": "frequency",
    "W": "power",
    "VA": "apparent_power",
    "VAR": "reactive_power",
    "PF": "power_factor",
    "WH": "energy_total",
    "DCA": "dc_current",
    "DCV": "dc_voltage",
    "DCW": "power_dc",
    "TmpCab": "temperature",
    "SoC": "soc",
    "SoH": "soh_pct",
    "ChaState": "soc",
    "TotWhImp": "energy_import",
    "TotWhExp": "energy_export",
    "Md": "model",
    "Vr": "firmware",
    "SN": "serial",
    **{f"Aph{phase}": f"current_{line}" for phase, line in zip("ABC", LINES, strict=True)},
    **{f"PhVph{phase}": f"voltage_{line}" for phase, line in zip("ABC", LINES, strict=True)},
    **{f"Wph{phase}": f"power_{line}" for phase, line in zip("ABC", LINES, strict=True)},
    **{f"TotWhImpPh{phase}": f"energy_import_{line}" for phase, line in zip("ABC", LINES, strict=True)},
    **{f"TotWhExpPh{phase}": f"energy_export_{line}" for phase, line in zip("ABC", LINES, strict=True)},
}
MODELS = {
    1: ("sunspec_common", 66),
    103: ("sunspec_inv_int", 50),
    113: ("sunspec_inv_float", 60),
    124: ("sunspec_124", 24),
    203: ("sunspec_meter_int", 105),
    213: ("sunspec_meter_float", 124),
    802: ("sunspec_802", 62),
}
"""Id of a model to where its points are known from, and its length."""


def sunspec(*models: int, behind_inverter: bool = False) -> tuple[Image, Mapping[str, Sequence[float | str]]]:
    """A chain of models at 40000, and what it says. ``behind_inverter``: the meter shows the grid, export positive."""
    found: Image = {(3, 40000): 0x5375, (3, 40001): 0x6E53}
    says: dict[str, list[float | str]] = {}
    here = 40002
    for model in models:
        device, length = MODELS[model]
        found.update({(3, here + offset): 0 for offset in range(2, length + 2)})
        found[3, here], found[3, here + 1] = model, length
        for fact in facts(device):
            grid = behind_inverter and model in (203, 213)
            for value, means in _sunspec_value(fact, grid, battery=model == 802):
                name = "power_w" if model == 802 and fact.quantity == "W" else topic(means)
                says.setdefault(name, []).append(shown(replace(fact, unit=means.unit), value, EXPONENTS_SF))
                for offset, word in enumerate(words(fact, _sunspec_raw(fact, means, value, grid))):
                    found[3, here + int(fact.address) + offset] = word
            if (exponent := EXPONENTS_SF.get(fact.quantity)) is not None:
                found[3, here + int(fact.address)] = exponent & 0xFFFF
            if fact.quantity == "ChaSt":
                found[3, here + int(fact.address)] = 4
        here += 2 + length
    found[3, here], found[3, here + 1] = 0xFFFF, 0
    return found, says


EXPONENTS_SF = {
    fact.quantity: EXPONENTS.get(fact.quantity.removesuffix("_SF"), 0)
    for device, _ in MODELS.values()
    for fact in facts(device)
    if fact.quantity.endswith("_SF")
}


def _sunspec_value(fact: Fact, grid: bool, battery: bool) -> list[tuple[float | str, Fact]]:
    """The house's value of a SunSpec point, with the same fact in the words of the other devices; or nothing."""
    name = _POINTS.get(fact.quantity)
    if name is None or (battery and name == "current"):
        return []
    if grid and name.startswith(("power", "current", "voltage")) and name != "power_factor":
        name = f"grid_{name}"
    means = replace(fact, quantity="battery_power" if battery and name == "power" else name)
    value = meaning(means)
    return [] if value is None else [(value, means)]


def _sunspec_raw(fact: Fact, means: Fact, value: float | str, grid: bool) -> float | str:
    if isinstance(value, str):
        return value
    sign = -1.0 if grid and means.quantity.startswith("grid_power") else 1.0
    return sign * value / (scale(fact, EXPONENTS_SF) * factor(means))


# ------------------------------------------------------------------------------------------------------- a link


class ImageLink:
    """Answers from an image what the product would ask a device, and notes what is written."""

    def __init__(self, registers: Image) -> None:
        self.image = registers
        self.writes: list[Request] = []

    def ask(self, request: Request, timeout_s: float, urgent: bool = False) -> asyncio.Future[Sequence[int]]:
        """As :meth:`bridge.modbus.link.Link.ask`; registers without facts do not exist."""
        answer: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        space = request.function if request.function <= 4 else 1 if request.function in (5, 15) else 3
        places = [(space, request.address + offset) for offset in range(request.width)]
        if request.words:
            self.writes.append(request)
            self.image.update(pair for pair in zip(places, request.words, strict=True) if pair[0] in self.image)
            answer.set_result(())
        elif all(place in self.image for place in places):
            answer.set_result([self.image[place] for place in places])
        else:
            answer.set_exception(Refused(f"{request}: no such register", 2))
        return answer
