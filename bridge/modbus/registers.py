"""The registers of one device, as values: what to ask of the link, and what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from bridge.core.events import Reading
from bridge.core.formulas import NoValue
from bridge.errors import Nonsense, Refused
from bridge.modbus import codec
from bridge.modbus.cells import HEAD, Cell, cells
from bridge.modbus.link import Link
from bridge.modbus.plan import Block, plan, split
from bridge.modbus.profile import Poll, Profile, Write
from bridge.modbus.readings import amount, lookup_in, readings, scaled
from bridge.modbus.sunspec import Model, scan
from bridge.modbus.wire import Request

logger = logging.getLogger(__name__)

_NOT_THERE = (1, 2, 3)
"""Exceptions by which a device says that it does not have what was asked for; others may be over next time."""

_BELIEVED = 2
"""So often in a row a device may be unable to tell what it told before."""


class Registers:
    """One device behind a link. ``words`` is what its registers last held, ``known`` what that means."""

    def __init__(self, name: str, profile: Profile, unit: int, link: Link) -> None:
        self.words: dict[str, tuple[int, ...]] = {}
        self.known: dict[str, Reading] = {}
        self.written: Counter[str] = Counter()
        self.cells: Mapping[str, Cell] = {}
        self._name, self._profile, self._unit, self._link = name, profile, unit, link
        self._timeout_s = profile.connection.timeout_ms / 1000
        self._raw: dict[str, Reading] = {}
        self._complaints: set[tuple[str, str]] = set()
        self._blocks: dict[Poll, tuple[Block, ...]] = {}
        self._answered: set[Request] = set()
        """What it has told since it was met: that it is not there for a while does not mean that it never was."""
        self._unable: Counter[Request] = Counter()
        self._left_out: set[str] = set()

    async def prepare(self) -> None:
        """Find out where everything is; needed before anything else, and again after the connection was lost.

        Forgets what was read, but not which registers the device does not have.
        """
        self.words, self.known, self._raw = {}, {}, {}
        self._answered.clear()
        models = await self._scan() if any(p.sunspec for p in self._profile.points.values()) else ()
        found = cells(self._profile, self._unit, models)
        if found == self.cells and any(self._blocks.values()):
            return
        self.cells = found
        self._left_out.clear()
        polls: tuple[Poll, ...] = ("fast", "slow", "once")
        self._blocks = {poll: self._planned(poll) for poll in polls}

    def _planned(self, poll: Poll) -> tuple[Block, ...]:
        manners = self._profile.connection
        wanted = (c for c in self.cells.values() if c.poll == poll and c.name not in self._left_out)
        return plan(wanted, manners.max_block, manners.allow_gaps)

    @property
    def blocks(self) -> Mapping[Poll, Sequence[Block]]:
        """The read plan by poll class."""
        return self._blocks

    async def sweep(self, poll: Poll, came: Callable[[Block], None] = lambda block: None, urgent: bool = False) -> bool:
        """Read everything of one poll class; ``came`` is called for each block. Whether anything was answered.

        Raises what :meth:`Link.ask` raises, refusals excepted: what the device does not have is left out until
        :meth:`ask_again`, what it cannot tell just now is asked again next time, and after some times not known any
        more.
        """
        answered = False
        todo = list(self._blocks[poll])
        while todo:
            block = todo.pop(0)
            try:
                await self._read(block, urgent)
            except Refused as error:
                if error.code in _NOT_THERE and _question(block) not in self._answered:
                    pieces = self._without(poll, block, error)
                    todo = [*pieces, *todo]
                else:
                    self._doubt(block)
                continue
            answered = True
            self._answered.add(_question(block))
            self._unable.pop(_question(block), None)
            came(block)
        self.known = readings(self._profile, self.cells, self._raw)
        return answered

    async def ask_again(self) -> None:
        """Ask for what was left out: a device that was starting up may have said of anything that it is not there.

        Raises what :meth:`Link.ask` raises, refusals excepted.
        """
        for name in tuple(self._left_out):
            cell = self.cells[name]
            [block] = plan([cell], self._profile.connection.max_block, allow_gaps=False)
            try:
                await self._read(block)
            except Refused:
                continue
            logger.info("%s: %s is there now", self._name, name)
            self._left_out.discard(name)
            self._blocks = {**self._blocks, cell.poll: self._planned(cell.poll)}

    def readable(self, name: str) -> bool:
        """Whether the point can be read at all."""
        return name in self.cells and self.cells[name].read is not None

    def value(self, name: str) -> Reading | None:
        """What a point held when it was last read, even if that was a moment ago in the middle of a sweep."""
        raw = self._raw.get(name)
        return None if raw is None else scaled(self.cells[name], raw, self._raw, lookup_in(self.known))

    async def fetch(self, names: Iterable[str]) -> None:
        """Read these points now, before all polls; those that cannot be read are passed over."""
        wanted = [self.cells[name] for name in names if name in self.cells]
        for block in plan(wanted, self._profile.connection.max_block, allow_gaps=False):
            try:
                await self._read(block, urgent=True)
            except Refused as error:
                logger.debug("%s: %s", self._name, error)
        self.known = readings(self._profile, self.cells, self._raw)

    def put(self, name: str, words: tuple[int, ...]) -> asyncio.Future[Sequence[int]]:
        """Write a point now, before all polls; the request is queued (or sent) when this returns."""
        cell = self.cells[name]
        self.words.pop(name, None)  # until it is read again or acknowledged, nobody knows
        self.written[name] += 1
        request = Request(cell.unit, cell.write, cell.address, cell.width, words)
        return self._link.ask(request, self._timeout_s, urgent=True)

    def encoded(self, name: str, value: float) -> tuple[int, ...]:
        """The words that make a point hold ``value``; raises ``ValueError`` when that cannot be told or held."""
        try:
            return codec.encode(self.cells[name], value, amount(self.cells[name].scale, self.known))
        except NoValue as error:
            raise ValueError(f"{name}: its scale is not known: {error.reason}") from error

    def meant(self, write: Write) -> tuple[int, ...] | None:
        """The words a write of the profile comes to now; None when its condition does not hold.

        A condition that cannot be told counts as true: better armed twice than never.
        """
        try:
            if write.when is not None and not amount(write.when, self.known):
                return None
        except NoValue:
            pass
        try:
            return self.encoded(write.point, amount(write.value, self.known))
        except NoValue as error:
            raise ValueError(f"{write.point}: what to write is not known: {error.reason}") from error

    async def settle(self, writes: Iterable[Write], spare: bool = True) -> None:
        """Carry out writes of the profile.

        ``spare``: only where a readable register does not hold the value yet, and with a look whether it does then.
        """
        for write in writes:
            point = write.point
            look = spare and self.readable(point)
            try:
                words = self.meant(write)
                if look:
                    await self.fetch([point])
                if words is None or (look and self.words.get(point) == words):
                    continue
                await self.put(point, words)
                self.words[point] = words
                if look:
                    await self.fetch([point])
                    if self.words.get(point) != words:
                        self._complain(point, "does not keep what was written")
            except (Refused, ValueError) as error:
                self._complain(point, f"is not written: {error}")

    def _complain(self, point: str, text: str) -> None:
        """Say it once, not at every beat."""
        if (point, text) not in self._complaints:
            self._complaints.add((point, text))
            logger.warning("%s: %s %s", self._name, point, text)

    async def _read(self, block: Block, urgent: bool = False) -> None:
        answer = tuple(await self._link.ask(_question(block), self._timeout_s, urgent))
        for cell in block.cells:
            start = cell.address - block.address
            words = self.words[cell.name] = answer[start : start + cell.width]
            if cell.name.startswith(HEAD) and str(words[0]) != cell.name.split(".")[1]:
                raise Nonsense("the SunSpec models have moved")
            value = codec.decode(cell, words)
            if value is None:
                self._raw.pop(cell.name, None)
            else:
                self._raw[cell.name] = value

    def _doubt(self, block: Block) -> None:
        """The device cannot tell just now what it told before: after some times that is no longer what it holds."""
        self._unable[_question(block)] += 1
        if self._unable[_question(block)] > _BELIEVED:
            for cell in block.cells:
                self._raw.pop(cell.name, None)

    def _without(self, poll: Poll, block: Block, error: Refused) -> Sequence[Block]:
        """Replace a refused block by smaller ones."""
        pieces = split(block)
        if not pieces:
            self._left_out.update(cell.name for cell in block.cells)
            logger.warning("%s: %s is left out: %s", self._name, block.cells[0].name, error)
        kept = (new for old in self._blocks[poll] for new in (pieces if old == block else (old,)))
        self._blocks[poll] = tuple(kept)
        return pieces

    async def _scan(self) -> tuple[Model, ...]:
        questions = scan()
        try:
            question = next(questions)
            while True:
                words: Sequence[int] | None
                try:
                    words = await self._link.ask(Request(self._unit, 3, *question), self._timeout_s)
                except Refused:
                    words = None
                question = questions.send(words)
        except StopIteration as found:
            models: tuple[Model, ...] = found.value
            return models


def _question(block: Block) -> Request:
    return Request(block.unit, block.function, block.address, block.width)
