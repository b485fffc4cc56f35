"""Find out what a device is: ask what the profiles know their models by, and see which of them fit. Never writes.

A device is asked everything once only, however many profiles want to know the same. What tells a model: its
``identify`` points, line voltages and frequency that can be true, and for SunSpec what the device says of itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from bridge.core.events import Reading
from bridge.core.formulas import Formula
from bridge.errors import LinkDown, LinkError, LinkTimeout, Refused
from bridge.modbus.address import Where, locate
from bridge.modbus.device import mismatches
from bridge.modbus.link import Link
from bridge.modbus.probe import Visitor, visiting
from bridge.modbus.profile import Connection, Point, Profile, SunSpecPoint
from bridge.modbus.quantities import believable
from bridge.modbus.registers import Registers
from bridge.modbus.wire import Request

logger = logging.getLogger(__name__)

TIMEOUT_MS = 500
"""What is not there often keeps silent, and there is much to ask."""

PATIENCE = 5
"""A unit that once answered may keep silent so often, any other only once."""

ENOUGH = 2
"""What a profile has to score at least."""

_COMMON = ("0", "1", "2", "3", "10", "123", "400", "Abc")
"""An ``identify`` that one of these passes says little by itself."""

_TELLING = ("frequency_hz", "voltage_v", *(f"{k}voltage_{n}_v" for k in ("", "grid_") for n in ("l1", "l2", "l3")))
_MAKER = "maker"


class Found(NamedTuple):
    """A profile that fits. ``score``: how well; ``evidence``: what was read, by name."""

    profile: str
    device: str
    address: str
    unit: int
    score: int
    evidence: Mapping[str, Reading]

    def __str__(self) -> str:
        texts = (f"{name} {v:g}" if isinstance(v, float) else f"{name} {v!r}" for name, v in self.evidence.items())
        return f"{self.profile:<24} unit {self.unit:<4} {self.address}  {self.device} ({', '.join(texts)})"


def discover(address: str, profiles: Iterable[Profile], unit: int | None = None) -> list[Found]:
    """The profiles that fit what is at ``address``, the best first; ``unit`` asks this one only.

    An address without a port is asked on every port the profiles name. Raises :class:`LinkError` when nothing can be
    reached there.
    """
    return asyncio.run(_discover(_places(address, profiles), unit))


def _places(address: str, profiles: Iterable[Profile]) -> Mapping[Where, Sequence[Profile]]:
    """Where to ask for what. Framings other than TCP only where the address speaks of them."""
    places: dict[Where, list[Profile]] = {}
    for profile in profiles:
        where = locate(address, profile.connection)
        if where.framing == "tcp" or where.serial or "://" in address:
            places.setdefault(where, []).append(profile)
    return places


async def _discover(places: Mapping[Where, Sequence[Profile]], unit: int | None) -> list[Found]:
    found: list[Found] = []
    problems: list[LinkError] = []
    for where, profiles in places.items():
        try:
            async with visiting(where, Connection()) as link:
                memory = _Memory(link)
                before = len(found)
                for profile in profiles:
                    fitting = await _try(memory, profile, profile.connection.unit if unit is None else unit)
                    found += [fitting] if fitting else []
                if len(found) == before:
                    answering = ", ".join(map(str, memory.answering())) or "none"
                    logger.warning("%s takes connections; units that answer: %s", where, answering)
        except LinkDown as error:
            problems.append(error)
    if len(problems) == len(places):
        raise problems[0]
    return sorted(found, key=lambda one: (-one.score, one.profile))


class _Memory:
    """A link that asks nothing twice, and no longer what does not answer."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._answers: dict[Request, asyncio.Task[Sequence[int]]] = {}
        self._alive: set[int] = set()
        self._misses: Counter[int] = Counter()

    def ask(self, request: Request, timeout_s: float, urgent: bool = False) -> asyncio.Task[Sequence[int]]:
        """As :meth:`bridge.modbus.link.Link.ask`."""
        if request not in self._answers:
            self._answers[request] = asyncio.create_task(self._ask(request, timeout_s))
        return self._answers[request]

    def answering(self) -> Sequence[int]:
        """The units that speak Modbus, be it only to refuse."""
        done = [(request.unit, task.exception()) for request, task in self._answers.items() if task.done()]
        return sorted({unit for unit, error in done if error is None or isinstance(error, Refused)})

    async def _ask(self, request: Request, timeout_s: float) -> Sequence[int]:
        unit = request.unit
        if self._misses[unit] >= (PATIENCE if unit in self._alive else 1):
            raise LinkTimeout(f"unit {unit} does not answer")
        await asyncio.sleep(self.link.silent_for(unit))
        try:
            words = await self.link.ask(request, timeout_s)
        except (LinkTimeout, LinkDown):
            self._misses[unit] += 1
            raise
        except LinkError:
            self._alive.add(unit)
            raise
        self._alive.add(unit)
        return words


async def _try(memory: _Memory, profile: Profile, unit: int) -> Found | None:
    """What speaks for a profile; None: too little."""
    asking = _asking(profile)
    guest = Visitor(asking.connection)
    memory.link.attach(guest)
    registers = Registers("probe", asking, unit, cast(Link, memory))
    try:
        await registers.prepare()
        await registers.fetch(_wanted(asking))
    except LinkDown:
        async with asyncio.timeout(3):  # some hang up at what they do not understand
            await memory.link.connected()
        return None
    except LinkError:
        return None
    finally:
        memory.link.detach(guest)
    score, evidence = _verdict(asking, registers)
    if score < ENOUGH:
        return None
    device = f"{profile.vendor} {profile.model}"
    return Found(profile.id, device, str(memory.link), unit, score, evidence)


def _asking(profile: Profile) -> Profile:
    """The profile in a hurry, and asking a SunSpec device for its maker."""
    found = replace(profile, connection=replace(profile.connection, timeout_ms=TIMEOUT_MS))
    if not any(point.sunspec for point in profile.points.values()):
        return found
    name = "" if profile.vendor == "SunSpec" else re.escape(profile.vendor)
    maker = Point(sunspec=SunSpecPoint((1,), "Mn"), poll="once")
    identify = {**profile.identify, _MAKER: f"(?i).*{name}.*"}
    return replace(found, points={**profile.points, _MAKER: maker}, identify=identify)


def _wanted(profile: Profile) -> Iterator[str]:
    """The points that tell a model, and those without which they have no value."""
    for name in (*profile.identify, *_TELLING):
        formula = profile.derived.get(name)
        scale = profile.points[name].scale if name in profile.points else None
        for needed in (formula, scale):
            if isinstance(needed, Formula):
                yield from needed.names
        yield from (name, f"{name}.exponent")


def _verdict(profile: Profile, registers: Registers) -> tuple[int, Mapping[str, Reading]]:
    """How much speaks for a profile, and what; 0 when something speaks against it."""
    known = registers.known
    identity = {name: known[name] for name in profile.identify if name in known}
    telling = {name: known[name] for name in _TELLING if known.get(name)}
    described = [name for name, point in profile.points.items() if point.sunspec and 1 not in point.sunspec.model]
    if len(identity) < len(profile.identify) or any(mismatches(profile, registers)):
        return 0, {}
    if described and not any(name in registers.cells for name in described):
        return 0, {}
    score = sum(_weight(profile.identify[name], value) for name, value in identity.items())
    if not all(believable(name, value) for name, value in telling.items()):
        return 0, {}
    return score + min(3, len(telling)), {**identity, **telling}


def _weight(pattern: str, value: Reading) -> int:
    """How much a match says: much if few numbers match, or if the registers hold a text at all."""
    if not any(re.fullmatch(pattern, common) for common in _COMMON):
        return 4
    return 2 if isinstance(value, str) and len(value) >= 3 and value.isascii() and value.isprintable() else 1
