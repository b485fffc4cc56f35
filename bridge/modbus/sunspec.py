"""SunSpec: devices that describe their own register map.

After a marker comes a chain of models, each with its id and length in front; the places of the points inside a model
are the standard's and lie in ``sunspec.csv``. Nothing here does IO: :func:`scan` says what it wants to read.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

from bridge.errors import Nonsense

BASES = (40000, 50000, 0)
"""Where the marker may be, in the order of the standard."""

MARKER = [0x5375, 0x6E53]
"""``SunS``."""

_END = 0xFFFF
_MOST_MODELS = 100
"""No device has as many; a chain as long is a device that answers anything."""


class Model(NamedTuple):
    """One model of a device: ``address`` is that of its id register."""

    id: int
    address: int
    length: int


class Place(NamedTuple):
    """Where a point lies. ``exponent``: the address of its scale factor."""

    model: Model
    address: int
    width: int
    type: str
    exponent: int | None


class _Row(NamedTuple):
    offset: int
    type: str
    width: int
    scale_factor: str


Question = tuple[int, int]
"""(address, count) of holding registers."""


def scan() -> Generator[Question, Sequence[int] | None, tuple[Model, ...]]:
    """Find the models of a device: yields what to read, is sent the words (None: the device refused).

    Raises :class:`Nonsense` when there is no SunSpec device.
    """
    for base in BASES:
        words = yield base, 2
        if words is not None and list(words) == MARKER:
            return (yield from _chain(base + 2))
    raise Nonsense("no SunSpec marker at " + ", ".join(map(str, BASES)))


def _chain(here: int) -> Generator[Question, Sequence[int] | None, tuple[Model, ...]]:
    models: list[Model] = []
    while here < 0xFFFE and len(models) < _MOST_MODELS:
        words = yield here, 2
        if words is None or words[0] == _END:
            break
        models.append(Model(words[0], here, words[1]))
        here += 2 + words[1]
    return tuple(models)


def locate(models: Sequence[Model], wanted: Sequence[int], point: str, index: int = 0) -> Place | None:
    """The place of ``point`` in the ``index``-th of the device's models whose id is ``wanted``; None: not there."""
    fitting = [model for model in models if model.id in wanted]
    if index >= len(fitting):
        return None
    model = fitting[index]
    row = table().get((model.id, point))
    if row is None or row.offset + row.width > model.length + 2:
        return None
    factor = table().get((model.id, row.scale_factor))
    exponent = None if factor is None else model.address + factor.offset
    return Place(model, model.address + row.offset, row.width, row.type, exponent)


@cache
def table() -> Mapping[tuple[int, str], _Row]:
    """(model id, point name) to its row in the standard."""
    text = (resources.files("bridge.modbus") / "sunspec.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        (int(model), row["point"]): _Row(int(row["offset"]), row["type"], int(row["count"]), row["scale_factor"])
        for row in csv.DictReader(lines)
        for model in row["models"].split()
    }
