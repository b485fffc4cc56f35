"""The house as a whole, as formulas see it: ``GM.grid_demand.power_w`` and its like, ``_surplus`` and its like.

Everything is worked out from names of single devices, so that a silent one says why there is no value.
Names and units (mA, W, Wh) are those of the vendor whose formulas we understand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bridge.core.config import Config, MeterConfig, Role, WallboxConfig
from bridge.core.formulas import Formula, NoValue, evaluate, fold

Lookup = Callable[[str], float]
"""The value of a folded name; raises :class:`NoValue`."""

_OLDER = {"prod_pwr": "produced.power_w", "cons_pwr": "consumed.power_w"}
"""Older spellings of the vendor's own examples."""

_CHARGING = (3.0, 4.0)
"""States in which a car draws current (C and D)."""


def value(key: str, config: Config, lookup: Lookup) -> float:
    """The value of a folded name that begins with ``gm.`` or is one of :data:`PREDEFINED`."""
    if function := PREDEFINED.get(key):
        return float(function(config, lookup))
    name = key.partition(".")[2]
    total, _, quantity = _OLDER.get(name, name).partition(".")
    if total in _MEASURED:
        return float(_measured(_MEASURED[total](config), quantity, config, lookup))
    if total not in _WORKED_OUT:
        raise NoValue(f"unknown name {key}; there are GM.{', GM.'.join([*_MEASURED, *_WORKED_OUT])}")
    if quantity not in ("power_w", "current", *_LINES):
        raise NoValue(f"GM.{total} has no {quantity}; it is worked out and has power_w and current")
    power_w = _WORKED_OUT[total](config, lookup)
    return power_w if quantity == "power_w" else power_w / config.grid.voltage / len(_LINES) * 1000


def surplus_w(config: Config, lookup: Lookup) -> float:
    """What would be fed in without the wallboxes, in watts: ``grid.surplus_w``, else what the meters tell."""
    formula = config.grid.surplus_w
    return _metered_surplus_w(config, lookup) if formula is None else evaluate(formula, lookup)


def drawn_w(box: WallboxConfig, config: Config, lookup: Lookup) -> float:
    """What a wallbox draws, in watts. One that measures nothing draws, while it charges, all it is offered."""
    id = fold(box.id)
    try:
        return lookup(f"{id}.power_w")
    except NoValue:
        pass
    try:
        amperes = [lookup(f"{id}.current_l{line}") / 1000 for line in range(1, len(box.lines) + 1)]
    except NoValue:
        charges = lookup(f"{id}.state") in _CHARGING
        amperes = [lookup(f"{id}.offered") / 1000 if charges else 0.0] * len(box.lines)
    return sum(amperes) * config.grid.voltage


# ----------------------------------------------------------------------------------------------- measured totals

_LINES = ("current_l1", "current_l2", "current_l3")


def _grid_meters(config: Config) -> Sequence[MeterConfig]:
    if meters := _meters("grid")(config):
        return meters
    raise NoValue("there is no meter of the role grid")


def _meters(role: Role) -> Callable[[Config], Sequence[MeterConfig]]:
    return lambda config: [meter for meter in config.meters if meter.role == role]


_MEASURED: Mapping[str, Callable[[Config], Sequence[MeterConfig | WallboxConfig]]] = {
    "grid_demand": _grid_meters,
    "produced": _meters("production"),
    "storage_home": _meters("battery"),
    "storage_all": _meters("battery"),
    "consumed_evse": lambda config: config.wallboxes,
}
"""Total to the devices that are added up."""


def _measured(devices: Sequence[MeterConfig | WallboxConfig], quantity: str, config: Config, lookup: Lookup) -> float:
    if quantity == "current":
        return max(_measured(devices, line, config, lookup) for line in _LINES)
    return sum(_of_one(device, quantity, config, lookup) for device in devices)


def _of_one(device: MeterConfig | WallboxConfig, quantity: str, config: Config, lookup: Lookup) -> float:
    id = fold(device.id)
    if isinstance(device, WallboxConfig):
        if lookup(f"{id}.com_err"):
            return 0.0  # what it may be drawing is GM.error
        if quantity == "power_w":
            return drawn_w(device, config, lookup)
        if quantity == "import_wh":
            return lookup(f"{id}.energy_wh")
        if quantity in _LINES:
            house_line = _LINES.index(quantity) + 1
            if house_line not in device.lines:
                return 0.0
            quantity = _LINES[device.lines.index(house_line)]
    return lookup(f"{id}.{quantity}")


def _power_w(total: str, config: Config, lookup: Lookup) -> float:
    return _measured(_MEASURED[total](config), "power_w", config, lookup)


# --------------------------------------------------------------------------------------------- worked out totals


def _consumed_w(config: Config, lookup: Lookup) -> float:
    """All that is used in the house, wallboxes included, without what goes into its battery."""
    return (
        _power_w("grid_demand", config, lookup)
        + _power_w("produced", config, lookup)
        - _power_w("storage_all", config, lookup)
    )


def _metered_surplus_w(config: Config, lookup: Lookup) -> float:
    """−(grid − wallboxes), less what a battery gives: no car shall empty it. What it takes stays its own."""
    discharge_w = max(0.0, -_power_w("storage_all", config, lookup))
    return _power_w("consumed_evse", config, lookup) - _power_w("grid_demand", config, lookup) - discharge_w


def _available_w(config: Config, lookup: Lookup) -> float:
    """Limit − reserve − (grid − wallboxes), and not more than the wallboxes may draw together."""
    grid = config.grid
    available_w = evaluate(grid.connection_power_w, lookup)
    if grid.reserve_w is not None:
        available_w -= evaluate(grid.reserve_w, lookup)
    if _meters("grid")(config):
        available_w += _power_w("consumed_evse", config, lookup) - _power_w("grid_demand", config, lookup)
    if grid.wallbox_power_w is not None:
        available_w = min(available_w, evaluate(grid.wallbox_power_w, lookup))
    return max(0.0, available_w)


def _booked_w(config: Config, lookup: Lookup) -> float:
    """What wallboxes that do not answer may be drawing."""
    silent = [box for box in config.wallboxes if lookup(f"{fold(box.id)}.com_err")]
    return sum(lookup(f"{fold(box.id)}.offered") / 1000 * len(box.lines) for box in silent) * config.grid.voltage


_WORKED_OUT: Mapping[str, Callable[[Config, Lookup], float]] = {
    "consumed": _consumed_w,
    "surplus": _metered_surplus_w,
    "available_evse": _available_w,
    "error": _booked_w,
}

# ------------------------------------------------------------------------------------------- predefined variables


def _charging(config: Config, lookup: Lookup) -> float:
    charging = 0
    for box in config.wallboxes:
        id = fold(box.id)
        charging += not lookup(f"{id}.com_err") and lookup(f"{id}.state") in _CHARGING
    return float(charging)


def _milliamperes(config: Config, current_a: Formula | None, power_w: Formula | None, lookup: Lookup) -> float:
    """A limit of each line: the lower one of its own and a third of the power."""
    limits = [] if current_a is None else [evaluate(current_a, lookup) * 1000]
    if power_w is not None:
        limits.append(evaluate(power_w, lookup) / config.grid.voltage / len(_LINES) * 1000)
    if not limits:
        raise NoValue("there is no limit for all wallboxes together")
    return min(limits)


def _house_current(config: Config, lookup: Lookup) -> float:
    return _milliamperes(config, config.grid.connection_current_a, config.grid.connection_power_w, lookup)


def _wallbox_current(config: Config, lookup: Lookup) -> float:
    return _milliamperes(config, config.grid.wallbox_current_a, config.grid.wallbox_power_w, lookup)


PREDEFINED: Mapping[str, Callable[[Config, Lookup], float]] = {
    "_surplus": surplus_w,
    "_org_surplus": _metered_surplus_w,
    "_num_charging": _charging,
    "_num_charging1": lambda config, lookup: max(1.0, _charging(config, lookup)),
    "_max_total_current": _house_current,
    "_max_total_evse_current": _wallbox_current,
}
"""Names that stand for something as long as no variable of that name is set."""
