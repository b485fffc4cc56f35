"""What no value of a profile file shows by itself: names that lead nowhere, keys that do not go with a point's type.

Looks at all that could be read (:class:`bridge.schema.Leaf`), so that all mistakes come at once, each at its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple, get_args

from bridge.core.formulas import Formula, fold, is_name
from bridge.modbus.profile import (
    WIDTHS,
    Connectors,
    Defaults,
    Failsafe,
    PhasesRule,
    Point,
    SetpointRule,
    SunSpecPoint,
    TextType,
)
from bridge.modbus.quantities import QUANTITIES, watchdog_unit
from bridge.modbus.sunspec import table
from bridge.schema import Leaf

Found = Iterator[tuple[Leaf, str]]

_TEXTS = get_args(TextType)
_WRITTEN = re.compile(
    r"(init|setpoint\.pause|setpoint\.resume|phases\.one|phases\.three|failsafe\.writes|keepalive\.writes)\[\d+\]\.point"
    r"|setpoint\.points\[\d+\]"
)
_ASKED = re.compile(r"(setpoint|phases)\.read_back|keepalive\.read")


class Reference(NamedTuple):
    """Somebody names a point. ``formula``: a derived quantity will do as well."""

    leaf: Leaf
    name: str
    formula: bool = False


class Sheet:
    """A profile file as far as it could be read. ``names``: of points, those with mistakes too."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.places: Mapping[str, Leaf] = {leaf.path: leaf for leaf in leaves}
        self.names = _names(leaves, "points")
        self.derived = _names(leaves, "derived")
        self.points = {
            name: point.value
            for name in self.names
            if isinstance((point := self.places[f"points.{name}"]).value, Point)
        }
        self.references = list(_references(leaves))
        defaults = self.at("defaults")
        self.defaults = defaults if isinstance(defaults, Defaults) else Defaults()

    def at(self, path: str) -> object:
        """What stands at a path; None when nothing does, or something with mistakes."""
        leaf = self.places.get(path)
        return leaf and leaf.value

    def place(self, name: str, key: str) -> Leaf:
        """Where a key of a point stands, or the point when it does not say so."""
        return self.places.get(f"points.{name}.{key}") or self.names[name]

    def kind(self, point: Point) -> str:
        """The type of a point, also when it does not say so."""
        return point.type or self.defaults.type


def mistakes(leaves: Sequence[Leaf]) -> Found:
    """Every mistake, with the leaf at which it stands; for :func:`bridge.schema.read`."""
    sheet = Sheet(leaves)
    for look in (_dangling, _backwards, _misnamed, _twice, _letters, _written, _asked, _control, _starving, _roles):
        yield from look(sheet)
    for name, point in sheet.points.items():
        if point.sunspec:
            yield from _standard(sheet, name, point.sunspec)
        else:
            yield from _number(sheet, name, point)
            yield from _place(sheet, name, point)


def _names(leaves: Sequence[Leaf], key: str) -> Mapping[str, Leaf]:
    """The names in a mapping of names, each with where it stands."""
    return {leaf.value: leaf for leaf in leaves if isinstance(leaf.value, str) and leaf.path == f"{key}.{leaf.value}"}


def _references(leaves: Sequence[Leaf]) -> Iterator[Reference]:
    for leaf in leaves:
        if isinstance(leaf.value, Formula):
            yield from (Reference(leaf, name, formula=True) for name in sorted(leaf.value.names))
        elif isinstance(leaf.value, str) and (_WRITTEN.fullmatch(leaf.path) or _ASKED.fullmatch(leaf.path)):
            yield Reference(leaf, leaf.value)
    identify = {leaf.path: leaf for leaf in leaves if leaf.path.startswith("identify.")}
    yield from (Reference(leaf, path.removeprefix("identify.")) for path, leaf in identify.items())


# --------------------------------------------------------------------------------------------------- names


def _dangling(sheet: Sheet) -> Found:
    for leaf, name, formula in sheet.references:
        there = [*sheet.names, *(sheet.derived if formula else ())]
        if name not in there:
            yield leaf, f"there is no point {name}{_meant(name, there)}"


def _backwards(sheet: Sheet) -> Found:
    """Derived values that need one which is worked out after them."""
    order = list(sheet.derived)
    for leaf, name, _ in sheet.references:
        own = leaf.path.removeprefix("derived.")
        if own in order and name in order and name not in sheet.names and order.index(name) >= order.index(own):
            yield leaf, f"{name} is worked out later; it must stand above" if name != own else f"{own} needs itself"


def _misnamed(sheet: Sheet) -> Found:
    used = {reference.name for reference in sheet.references}
    for name, leaf in (*sheet.names.items(), *sheet.derived.items()):
        if not is_name(name) or name != fold(name):
            yield leaf, "a point's name is a word in small letters, digits and _"
        elif name not in QUANTITIES and name not in used and not _is_probed(name):
            yield leaf, f"neither a known quantity nor used{_meant(name, QUANTITIES)}"


def _is_probed(name: str) -> bool:
    """Whether ``probe`` alone is a use: what the box's own watchdog is set to. What sets it has to be written, too."""
    return bool(watchdog_unit(name)) and not name.startswith("set_")


def _twice(sheet: Sheet) -> Found:
    for name in (*sheet.derived, *(["state"] if "state" in sheet.places else [])):
        if first := sheet.names.get(name):
            yield (
                sheet.places[name if name == "state" else f"derived.{name}"],
                (f"{name} is said twice: line {first.line} has it already"),
            )


def _roles(sheet: Sheet) -> Found:
    for path, leaf in sheet.places.items():
        head, _, name = path.rpartition(".")
        if re.fullmatch(r"roles\.\w+", head) and name not in QUANTITIES:
            yield leaf, f"{name} is no known quantity{_meant(name, QUANTITIES)}"


def _meant(name: str, there: Sequence[str] | Mapping[str, object]) -> str:
    close = get_close_matches(name, there, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


# ------------------------------------------------------------------------------------------------ one point


def _letters(sheet: Sheet) -> Found:
    """The state of a wallbox, which is a letter."""
    if "state" in sheet.derived:
        yield sheet.derived["state"], "a formula is a number; the state is a letter: a point with values, or rules"
    point = sheet.points.get("state")
    if point is None:
        return
    if not point.values:
        yield sheet.names["state"], "needs values that are the letters A to F"
    for raw, letter in point.values.items():
        if letter not in tuple("ABCDEF"):
            yield sheet.place("state", f"values.{raw}"), f"{letter}: its values must be the letters A to F"
    if point.default is not None and point.default not in tuple("ABCDEF"):
        yield sheet.place("state", "default"), f"{point.default}: must be one of the letters A to F"


def _number(sheet: Sheet, name: str, point: Point) -> Found:
    """Keys that go with some types only."""
    kind = sheet.kind(point)
    text = kind in _TEXTS
    if text and point.count is None:
        yield sheet.names[name], f"type {kind} needs count, the number of registers"
    elif point.count is not None and not text:
        yield sheet.place(name, "count"), f"count is for texts ({', '.join(_TEXTS)}); {kind} has its own width"
    if point.scale == 0:
        yield sheet.place(name, "scale"), "0 makes every value 0; allowed: any other number"
    if text and (point.scale != 1 or point.offset):
        yield sheet.place(name, "offset" if point.offset else "scale"), f"a text ({kind}) has no scale and no offset"
    if point.mask is not None and kind[0] not in "ui":
        yield sheet.place(name, "mask"), f"a mask is for whole numbers, not for {kind}"
    elif point.mask is not None and point.mask >> 16 * WIDTHS[kind]:
        yield sheet.place(name, "mask"), f"{point.mask:#x} is wider than {kind}"
    if not text:
        for raw in point.values:
            if not re.fullmatch(r"-?\d+", raw):
                yield sheet.place(name, f"values.{raw}"), f"a raw value of {kind} is a whole number"


def _place(sheet: Sheet, name: str, point: Point) -> Found:
    """Registers there cannot be, and functions that do not go with the type."""
    kind = sheet.kind(point)
    connectors = sheet.at("connectors")
    moved = (connectors.max - 1) * connectors.step if isinstance(connectors, Connectors) and not point.station else 0
    last = (point.address or 0) + (WIDTHS.get(kind) or point.count or 1) - 1 + moved
    if last > 0xFFFF:
        whose = " of the last connector" if moved else ""
        yield sheet.place(name, "address"), f"reaches to register {last}{whose}; the last there is is 65535"
    read = point.read or sheet.defaults.read
    if (kind == "bool") != (read in (1, 2)) and read != "never":
        wanted = "1, 2 (coils and discrete inputs) or never" if kind == "bool" else "3, 4 or never"
        yield sheet.place(name, "read"), f"function {read} does not read {kind}; allowed: {wanted}"
    if point.write is not None and (kind == "bool") != (point.write in (5, 15)):
        wanted = "5, 15" if kind == "bool" else "6, 16"
        yield sheet.place(name, "write"), f"function {point.write} does not write {kind}; allowed: {wanted}"


def _standard(sheet: Sheet, name: str, wanted: SunSpecPoint) -> Found:
    models = {model for model, _ in table()}
    there = [point for model, point in table() if model in wanted.model]
    if not models & {*wanted.model}:
        known = ", ".join(map(str, sorted(models)))
        yield sheet.place(name, "sunspec.model"), f"no such model is known; allowed: {known}"
    elif wanted.point not in there:
        which = " or ".join(map(str, wanted.model))
        yield sheet.place(name, "sunspec.point"), f"model {which} has no {wanted.point}{_meant(wanted.point, there)}"


# ------------------------------------------------------------------------------------------------- control


def _written(sheet: Sheet) -> Found:
    for leaf, name, _ in sheet.references:
        point = sheet.points.get(name)
        if point is None or not _WRITTEN.fullmatch(leaf.path):
            continue
        why = "it has a mask" if point.mask is not None else "it is found by SunSpec" if point.sunspec else ""
        if sheet.kind(point) in _TEXTS:
            why = "it is a text"
        if why:
            yield leaf, f"{name} cannot be written: {why}"


def _asked(sheet: Sheet) -> Found:
    for leaf, name, _ in sheet.references:
        if _ASKED.fullmatch(leaf.path) and (point := sheet.points.get(name)) and point.read == "never":
            yield leaf, f"{name} cannot be read: line {sheet.names[name].line} says read: never"


def _control(sheet: Sheet) -> Found:
    """How a wallbox is controlled, and that it is one."""
    kind = sheet.places.get("kind")
    wallbox = kind is None or kind.value == "wallbox"
    if kind and wallbox and not {"state", "points.state", "derived.state"} & sheet.places.keys():
        yield kind, "a wallbox needs a point state whose values are A to F, or rules"
    if not wallbox:
        for key in {"setpoint", "phases"} & sheet.places.keys():
            yield sheet.places[key], f"{key} goes with kind: wallbox"
    rule = sheet.at("setpoint")
    if isinstance(rule, SetpointRule) and rule.step_a is None:
        point = sheet.points.get(rule.points[0])
        if point and isinstance(point.scale, Formula) and sheet.kind(point)[0] != "f":
            yield sheet.places["setpoint"], "step_a is needed, because the scale of the point is no plain number"
    if isinstance(sheet.at("phases"), PhasesRule) and (rule is None or getattr(rule, "unit", "A") == "W"):
        yield sheet.places["phases"], "goes with a setpoint in A, which means the same on one line and on three"


def _starving(sheet: Sheet) -> Found:
    """A watchdog that is fed too seldom. What feeds it: the sign of life, else the setpoint that is repeated."""
    failsafe = sheet.at("failsafe")
    feeds = (sheet.places.get(path) for path in ("keepalive.every_s", "setpoint.max_age_s"))
    leaf = next((leaf for leaf in feeds if leaf and leaf.value is not None), None)
    if not leaf or not isinstance(leaf.value, float) or not isinstance(failsafe, Failsafe):
        return
    if leaf.value > failsafe.timeout_s / 2:
        seldom = f"{leaf.value:g} s is too seldom for a watchdog of {failsafe.timeout_s:g} s (failsafe.timeout_s)"
        yield leaf, f"{seldom}; allowed: at most half of that"
