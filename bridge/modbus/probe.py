"""Read a device once and show everything: value, unit, raw words, and whether it can be believed. Never writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from bridge.core.events import Reading
from bridge.errors import LinkDown
from bridge.modbus.address import Where, locate
from bridge.modbus.device import mismatches
from bridge.modbus.link import Link
from bridge.modbus.profile import Connection, Profile
from bridge.modbus.quantities import QUANTITIES, Quantity, believable, watchdog_unit
from bridge.modbus.registers import Registers
from bridge.modbus.watchdog import is_set_by_us, refresh_s, worries


class Row(NamedTuple):
    """One quantity as it was read. ``raw``: its words as they came; ``note``: what should make one wonder."""

    quantity: str
    value: Reading | None
    unit: str
    raw: tuple[int, ...]
    note: str = ""

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.10g}" if isinstance(self.value, float) else self.value
        words = " ".join(f"{word:04x}" for word in self.raw)
        return f"{self.quantity:<20} {value + ' ' + self.unit:>24}  {words:<20}  {self.note}".rstrip()


class Visitor:
    """A prober as a guest on a link."""

    def __init__(self, manners: Connection) -> None:
        self.manners = manners
        self.gone = asyncio.Event()

    def lost(self, reason: str) -> None:
        """A prober does not try twice."""
        self.gone.set()


def probe(address: str, profile: Profile, unit: int | None = None) -> list[Row]:
    """Read everything a profile names, once. ``address``: see :func:`~bridge.modbus.address.locate`.

    Raises :class:`LinkError` when the device cannot be reached or does not answer.
    """
    return asyncio.run(_probe(address, profile, profile.connection.unit if unit is None else unit))


async def _probe(address: str, profile: Profile, unit: int) -> list[Row]:
    async with visiting(locate(address, profile.connection), profile.connection) as link:
        registers = Registers("probe", profile, unit, link)
        await registers.prepare()
        for poll in registers.blocks:
            await registers.sweep(poll)
        return _rows(profile, registers)


@asynccontextmanager
async def visiting(where: Where, manners: Connection) -> AsyncIterator[Link]:
    """A connection for a short visit; raises :class:`LinkDown` when it cannot be made."""
    link = Link(where)
    visitor = Visitor(manners)
    link.attach(visitor)
    running = [asyncio.create_task(work) for work in (link.run(), link.connected(), visitor.gone.wait())]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        if link.reason is not None:
            raise LinkDown(f"{link}: {link.reason}")
        yield link
    finally:
        for task in running:
            task.cancel()


def _rows(profile: Profile, registers: Registers) -> list[Row]:
    readable = [name for name, cell in registers.cells.items() if cell.read is not None and name in profile.points]
    calculated = [name for name in registers.known if name not in registers.cells]
    period_s = refresh_s(profile, registers.known)
    doubts = {
        name: worry + ("; the bridge will set it" if is_set_by_us(profile, name) else "")
        for name, worry in worries(profile, registers.known, period_s)
    }
    doubts |= dict(mismatches(profile, registers))
    rows = []
    for name in (*readable, *calculated):
        value = registers.known.get(name)
        quantity = QUANTITIES.get(name, Quantity(""))
        note = doubts.get(name) or _doubt(name, value, quantity, name in registers.words or name in calculated)
        rows.append(Row(name, value, quantity.unit or watchdog_unit(name), registers.words.get(name, ()), note))
    if profile.failsafe or any(map(watchdog_unit, readable)):
        rows.append(Row("refresh_s", period_s, "s", (), "how often the bridge will feed the box's watchdog"))
    return rows


def _doubt(name: str, value: Reading | None, quantity: Quantity, came: bool) -> str:
    if value is None:
        return "no value" if came else "the device does not have it"
    if not believable(name, value):
        return f"hard to believe: {quantity.low:g} to {quantity.high:g} {quantity.unit} is usual"
    return ""
