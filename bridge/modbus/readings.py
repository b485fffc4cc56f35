"""From what was decoded to what is meant: scaling, derived values, the state letter, the role. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bridge.core.config import Role
from bridge.core.events import Reading
from bridge.core.formulas import Formula, NoValue, evaluate
from bridge.modbus.cells import Cell
from bridge.modbus.profile import Profile
from bridge.modbus.quantities import QUANTITIES


def readings(profile: Profile, cells: Mapping[str, Cell], raw: Mapping[str, Reading]) -> dict[str, Reading]:
    """Everything that is known of a device by name, helpers included. ``raw`` is what :func:`codec.decode` said.

    What cannot be told now, because a register was not delivered or a formula has no value, is missing.
    """
    known: dict[str, Reading] = {}
    lookup = lookup_in(known)
    # Scales that are formulas read other points, so they come second.
    for late in (False, True):
        for name, value in raw.items():
            cell = cells[name]
            if isinstance(cell.scale, Formula) is late and (meant := scaled(cell, value, raw, lookup)) is not None:
                known[name] = meant
    for name, formula in profile.derived.items():
        _put(known, name, formula, lookup)
    letter = _state(profile, lookup)
    if letter is not None:
        known["state"] = letter
    return known


def published(profile: Profile, known: Mapping[str, Reading], role: Role | None = None) -> dict[str, Reading]:
    """Those of the readings that have a name in the vocabulary; the others are helpers.

    In a ``role`` the profile knows, only what it says of that role, and texts: an inverter's own current must never
    pass for that of the house connection.
    """
    quantities = profile.roles.get(role) if role else None
    found = {name: v for name, v in known.items() if name in QUANTITIES and (quantities is None or isinstance(v, str))}
    for name, formula in (quantities or {}).items():
        _put(found, name, formula, lookup_in(known))
    return found


def lookup_in(known: Mapping[str, Reading]) -> Callable[[str], float]:
    """How formulas find numbers among readings."""

    def lookup(name: str) -> float:
        value = known.get(name)
        if isinstance(value, float):
            return value
        raise NoValue(f"{name} is not known" if value is None else f"{name} is a text")

    return lookup


def amount(value: float | Formula, known: Mapping[str, Reading]) -> float:
    """A number of a profile that may be a formula; raises :class:`NoValue`."""
    return evaluate(value, lookup_in(known)) if isinstance(value, Formula) else value


def scaled(cell: Cell, value: Reading, raw: Mapping[str, Reading], lookup: Callable[[str], float]) -> Reading | None:
    """What a decoded value means, in its unit; None while its scale is not known."""
    if isinstance(value, str) or cell.values:
        return value
    try:
        scale = evaluate(cell.scale, lookup) if isinstance(cell.scale, Formula) else cell.scale
    except NoValue:
        return None
    if cell.exponent is not None:
        exponent = raw.get(cell.exponent)
        # The standard allows -10 to 10; without its scale factor the number means nothing.
        if not isinstance(exponent, float) or abs(exponent) > 10:
            return None
        scale *= 10.0**exponent
    return value * scale + cell.offset


def _put(known: dict[str, Reading], name: str, formula: Formula, lookup: Callable[[str], float]) -> None:
    try:
        known[name] = evaluate(formula, lookup)
    except NoValue:
        known.pop(name, None)


def _state(profile: Profile, lookup: Callable[[str], float]) -> str | None:
    """The letter of the first rule that holds. A rule that cannot be told makes the whole state unknown."""
    for rule in profile.state:
        try:
            if rule.when is None or evaluate(rule.when, lookup):
                return rule.then
        except NoValue:
            return None
    return None
