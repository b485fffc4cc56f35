"""Cells: the points of a profile with every default filled in, at their final address, ready to be read and decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bridge.core.formulas import Formula
from bridge.modbus.profile import WIDTHS, Point, Poll, Profile
from bridge.modbus.sunspec import Model, locate

HEAD = "model."
"""How the names of cells begin that hold the id of a SunSpec model: ``model.ID.ADDRESS``."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One value in a device's registers. ``read`` None: it cannot be read.

    Value = raw * ``scale`` * 10 ** (value of the cell ``exponent``) + ``offset``.
    """

    name: str
    unit: int
    address: int
    width: int = 1
    type: str = "u16"
    read: int | None = 3
    write: int = 6
    word_order: str = "be"
    mask: int | None = None
    scale: float | Formula = 1.0
    exponent: str | None = None
    offset: float = 0.0
    values: Mapping[str, float | str] = field(default_factory=dict)
    default: float | str | None = None
    na: frozenset[int] = frozenset()
    usual_na: bool = False
    poll: Poll = "fast"


def cells(profile: Profile, unit: int, models: tuple[Model, ...] = ()) -> Mapping[str, Cell]:
    """Every cell of a device by name. ``models`` are its SunSpec models; points of others are left out."""
    found: dict[str, Cell] = {}
    for name, point in profile.points.items():
        if point.sunspec is None:
            found[name] = _cell(profile, name, point, unit)
        else:
            found.update((cell.name, cell) for cell in _sunspec(name, point, unit, models))
    return found


def _cell(profile: Profile, name: str, point: Point, unit: int) -> Cell:
    defaults = profile.defaults
    kind = point.type or defaults.type
    width = WIDTHS.get(kind) or point.count or 1
    read = point.read or defaults.read
    write = point.write or (5 if kind == "bool" else defaults.write or (6 if width == 1 else 16))
    na = defaults.na if point.na is None else point.na
    assert point.address is not None
    return Cell(
        name,
        unit if point.unit is None else point.unit,
        point.address,
        width,
        kind,
        None if read == "never" else read,
        16 if write == 6 and width > 1 else write,  # a value of several words is never written in pieces
        point.word_order or defaults.word_order,
        point.mask,
        point.scale,
        None,
        point.offset,
        point.values,
        point.default,
        frozenset() if na == "usual" else frozenset(na),
        na == "usual",
        point.poll,
    )


def _sunspec(name: str, point: Point, unit: int, models: tuple[Model, ...]) -> Iterator[Cell]:
    """The cell of a SunSpec point, that of its scale factor, and that of its model's head to notice a move."""
    assert point.sunspec is not None
    wanted = point.sunspec
    place = locate(models, wanted.model, wanted.point, wanted.index)
    if place is None:
        return
    unit = unit if point.unit is None else point.unit
    if place.exponent is not None:
        yield Cell(f"{name}.exponent", unit, place.exponent, type="i16", na=frozenset({0x8000}), poll=point.poll)
    yield Cell(f"{HEAD}{place.model.id}.{place.model.address}", unit, place.model.address, poll="slow")
    yield Cell(
        name,
        unit,
        place.address,
        place.width,
        place.type,
        scale=point.scale,
        exponent=f"{name}.exponent" if place.exponent is not None else None,
        offset=point.offset,
        values=point.values,
        default=point.default,
        na=frozenset(),
        usual_na=True,
        poll=point.poll,
    )
