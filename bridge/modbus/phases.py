"""The phase duty: a wallbox is switched between one and three phases, never under load.

Everything happens at the end of a poll, when the newest readings are at hand: whoever decided may be wrong about the
car, but a current of more than 1 A is never switched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from bridge.core.events import PhasesConfirmed
from bridge.core.loads.phases import FLOWING_A
from bridge.edge import Post
from bridge.errors import Refused
from bridge.modbus.profile import PhasesRule
from bridge.modbus.registers import Registers

logger = logging.getLogger(__name__)

VOLTS = 230.0


class Wanted(NamedTuple):
    """To how many lines the car shall be connected (None: as it is), what it is offered in amperes per line, and the
    revision of the snapshot that says so."""

    phases: int | None
    amperes: float
    revision: int


class PhaseDuty:
    """Switches one wallbox and tells on how many phases it is."""

    def __init__(self, box: str, rule: PhasesRule, registers: Registers, post: Post) -> None:
        self.wanted: Callable[[], Wanted | None] = lambda: None
        """Looks up what the newest snapshot wants."""
        self._box, self._rule, self._registers, self._post = box, rule, registers, post
        self._loop = asyncio.get_running_loop()
        self._held: int | None = None
        self._asked: int | None = None
        """What was wanted last, and has been seen to."""
        self._order: Wanted | None = None
        self._refused = False
        self._settled_at = 0.0

    @property
    def settling(self) -> bool:
        """Whether the box was switched just now, so that nobody shall believe it that the car is gone."""
        return self._order is not None

    async def met(self) -> None:
        """The box can be reached (again). It may have rebooted: what it is switched to is asked, or not known."""
        self._order = self._asked = self._held = None
        await self._look()
        self._tell(-1)

    async def polled(self) -> None:
        """A poll is over: switch if that is wanted and nothing flows, and tell what has changed."""
        if self._order is not None:
            if self._loop.time() >= self._settled_at:
                await self._settle(self._order)
            return
        wanted = self.wanted() or Wanted(None, 0.0, -1)
        if self._shown() != self._held and self._rule.read_back:
            self._held = self._shown()
            self._tell(-1)
        if wanted.phases is None or wanted.phases == self._asked:
            self._asked = wanted.phases
        elif wanted.phases == self._held:
            self._asked = wanted.phases
            self._tell(wanted.revision)
        elif wanted.amperes <= 0 and not self._flows():
            await self._switch(wanted, wanted.phases)

    async def _switch(self, order: Wanted, phases: int) -> None:
        logger.info("%s is switched to %d phase%s", self._box, phases, "" if phases == 1 else "s")
        self._order, self._asked, self._refused = order, phases, False
        self._settled_at = self._loop.time() + self._rule.settle_s
        try:
            for write in self._rule.one if phases == 1 else self._rule.three:
                words = self._registers.meant(write)
                if words is not None:
                    await self._registers.put(write.point, words)
        except (Refused, ValueError) as error:
            logger.warning("%s cannot be switched to %d phases: %s", self._box, phases, error)
            self._refused = True

    async def _settle(self, order: Wanted) -> None:
        """The time is over in which the box says anything: tell what came of it."""
        self._order = None
        if not self._rule.read_back:
            self._held = None if self._refused else order.phases
        await self._look()
        if self._held != order.phases:
            logger.warning("%s is on %s phases, not on %s", self._box, self._held or "?", order.phases)
        self._tell(order.revision)

    async def _look(self) -> None:
        """Ask the box, if it tells."""
        if self._rule.read_back:
            await self._registers.fetch([self._rule.read_back])
            self._held = self._shown()

    def _shown(self) -> int | None:
        """What the box shows; None for anything but 1 and 3."""
        shown = self._registers.value(self._rule.read_back) if self._rule.read_back else None
        return int(shown) if shown in (1.0, 3.0) else None

    def _flows(self) -> bool:
        """Whether the car draws, as far as the box can tell; when it cannot, it does."""
        known = self._registers.known
        currents = [known.get(f"current_l{line}_a") for line in (1, 2, 3)]
        measured = [amperes for amperes in currents if isinstance(amperes, float)]
        if measured:
            return max(measured) > FLOWING_A
        if isinstance(power_w := known.get("power_w"), float):
            return power_w > FLOWING_A * VOLTS
        return known.get("state") not in ("A", "B")

    def _tell(self, revision: int) -> None:
        self._post(PhasesConfirmed(self._box, self._held, revision))
