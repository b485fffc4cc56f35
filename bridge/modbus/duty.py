"""The setpoint duty: one wallbox holds what was last decided for it, whatever happens to the wallbox.

The newest setpoint counts, older ones that were not sent yet are forgotten. It is written the moment it is wanted,
read back, and written again whenever the box turns out to hold something else.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bridge.core.events import Confirmed
from bridge.core.formulas import Formula, NoValue
from bridge.edge import Post
from bridge.errors import LinkError, Refused
from bridge.modbus.plan import Block
from bridge.modbus.profile import VOLTS, Profile, Write, capability
from bridge.modbus.readings import amount
from bridge.modbus.registers import Registers

logger = logging.getLogger(__name__)

FIRST_CONTACT_S = 0.1
"""How long the core gets to look at a box that is met for the first time."""

REFUSED_RETRY_S = 2.0
FIRST_AGAIN_S = 0.5
STUBBORN_RETRY_S = 60.0
"""A box that holds less than it was told, by its own cable or fuse, is told again this seldom at last."""

BELIEVED_S = 4.0
"""Told again so seldom already, it is believed."""

UNSAFE_RETRY_S = 5.0
"""One that holds more is told again at least this often."""

DUST_A = 0.0002
"""The core counts in millionths of an ampere: over all the steps of a box that adds up to no more than this."""


class Offered(NamedTuple):
    """A setpoint in amperes per line, and the newest revision of a snapshot that contains it."""

    amperes: float
    revision: int


class _Step(NamedTuple):
    point: str
    words: tuple[int, ...]


class Duty:
    """Keeps one wallbox at its setpoint. ``trouble`` is called when the link failed under it."""

    def __init__(
        self, box: str, profile: Profile, registers: Registers, lines: int, post: Post, trouble: Callable[[], None]
    ) -> None:
        assert profile.setpoint is not None
        self.offered: Callable[[], Offered | None] = lambda: None
        """Looks up the newest setpoint; :meth:`want` takes notice of it."""
        self._box, self._profile, self._rule, self._registers = box, profile, profile.setpoint, registers
        self._post, self._trouble = post, trouble
        self._per_ampere = VOLTS * lines if self._rule.unit == "W" else 1.0
        able = capability(profile, lines)
        self._step_a = able.step_a if able else 0.1
        self._loop = asyncio.get_running_loop()
        self._up = self._meeting = False
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[Sequence[int]] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._written_at: dict[str, float] = {}
        self._taken_at: dict[str, float] = {}
        """When the box last acknowledged a write of a point; ``_written_at``: when one was last sent."""
        self._sent = Offered(math.inf, -1)
        self._followed = -1
        self._held_a: float | None = None
        self._again_at = self._again_s = 0.0
        self._complaint = ""

    # ----------------------------------------------------------------------------------------- what happens

    def want(self) -> None:
        """The offered setpoint changed: write it at once, before this returns if the wire is free."""
        self._again_s = 0.0
        if self._up and not self._meeting:
            self._start()

    async def up(self, first: bool) -> None:
        """The box can be reached (again). It may have rebooted: what it holds is asked, or written if unknown.

        ``first``: it was never reached before; what was decided without knowing it waits for a moment, in which the
        core looks at it. A car that is charging must not notice that the bridge was started.
        """
        self._up = True
        self._meeting = first
        self._again_s = 0.0
        depends = self._depends()
        offered = self.offered()
        if first or depends or (offered and self._held_a == self._target(offered.amperes)):
            await self._registers.fetch([*depends, *self._watched()])
            if self._busy:
                return  # a newer setpoint came meanwhile: what was read is history
            self._look()
            self._tell()
        if first:
            self._wake_in(FIRST_CONTACT_S, anew=False)
        else:
            self._start()

    def down(self) -> None:
        """The box cannot be reached."""
        self._up = self._meeting = False
        self._cancel()

    def came(self, block: Block) -> None:
        """A poll delivered a block: tell what the box holds, and write again should that be something else.

        It is told at every poll, changed or not: what the core books for a box then heals by itself.
        """
        watched = self._watched()
        if (
            self._busy
            or not self._up
            or self._sent.revision < 0
            or not any(cell.name in watched for cell in block.cells)
        ):
            return
        self._look()
        self._tell()
        if not self._satisfied() and self._loop.time() >= self._again_at:
            held = "something else" if self._held_a is None else f"{self._held_a:g} A"
            logger.info("%s holds %s instead of %g A: written again", self._box, held, self._sent.amperes)
            self._start(anew=True)

    async def leave_safe(self) -> None:
        """The bridge ends: lower the box to what is safe without it, never raise it."""
        failsafe = self._profile.failsafe
        safe_a = failsafe.current_a if failsafe else self._rule.min_a
        self._cancel()
        self._up = False
        self.offered = lambda: None  # should it be met again meanwhile, it is not raised again
        # Also a box that is out of reach just now: many only hang up between two questions.
        if self._sent.revision >= 0 and self._target(self._sent.amperes) > safe_a:
            logger.info("%s is left at %g A", self._box, self._target(safe_a))
            for step in self._steps(safe_a):
                await self._registers.put(*step)

    # ----------------------------------------------------------------------------------------- carrying out

    def _start(self, anew: bool = False) -> None:
        """Begin to carry out the offered setpoint; the first write goes out before this returns.

        ``anew``: what the box is believed to hold does not count.
        """
        self._cancel()
        self._meeting = False
        offered = self.offered()
        if offered is None:
            return
        self._sent = offered
        try:
            steps = self._steps(self._sent.amperes)
        except ValueError as error:
            self._complain(f"the setpoint cannot be written: {error}")
            self._wake_in(REFUSED_RETRY_S)
            return
        believed = {} if anew or self._due_s(steps) <= 0 else self._registers.words
        todo = [step for step in steps if believed.get(step.point) != step.words]
        if todo and not self._wait_s(todo[0]):
            self._first = self._put(todo[0])
        self._forget_opposite(steps)
        self._task = self._loop.create_task(self._carry_out(steps, todo, self._first))

    async def _carry_out(
        self, steps: Sequence[_Step], todo: Sequence[_Step], first: asyncio.Future[Sequence[int]] | None
    ) -> None:
        try:
            for step in todo:
                if first is None and (wait_s := self._wait_s(step)):
                    await asyncio.sleep(wait_s)
                await (first or self._put(step))
                first = self._first = None
                self._registers.words[step.point] = step.words
                self._taken_at[step.point] = self._loop.time()
            if todo:
                await self._registers.fetch(self._watched())
        except Refused as error:
            self._complain(f"the setpoint is refused: {error}")
            self._again_at = self._loop.time() + REFUSED_RETRY_S
            self._wake_in(REFUSED_RETRY_S)
            return
        except LinkError:
            self._held_a = None
            self._trouble()
            return
        self._complaint = ""
        self._look()
        self._tell()
        if self._rule.max_age_s is not None:
            # Also where the box holds something else: it counts the time since the last write, whatever came of that.
            self._wake_in(self._due_s(steps))
        if not self._satisfied():
            most = STUBBORN_RETRY_S if (self._held_a or 0.0) < self._sent.amperes else UNSAFE_RETRY_S
            self._again_s = min(most, max(FIRST_AGAIN_S, 2 * self._again_s))
            self._again_at = self._loop.time() + self._again_s
            return
        self._again_s = 0.0

    def _due_s(self, steps: Sequence[_Step]) -> float:
        """How long until the setpoint has to be written again, in seconds, lest the box takes the bridge for dead.

        A connection that was lost and is back does not make a setpoint younger.
        """
        if self._rule.max_age_s is None:
            return math.inf
        now = self._loop.time()
        oldest = min((self._taken_at.get(step.point, -math.inf) for step in steps), default=now)
        return max(0.0, oldest + self._max_age_s(self._rule.max_age_s) - now)

    def _forget_opposite(self, steps: Sequence[_Step]) -> None:
        """Commands that cannot be read back: once the box is paused, the last "go on" is history, and vice versa."""
        now = {step.point for step in steps}
        for write in (*self._rule.pause, *self._rule.resume):
            if write.point not in now and not self._registers.readable(write.point):
                self._registers.words.pop(write.point, None)

    def _put(self, step: _Step) -> asyncio.Future[Sequence[int]]:
        self._written_at[step.point] = self._loop.time()
        return self._registers.put(step.point, step.words)

    def _wait_s(self, step: _Step) -> float:
        """How long the box still wants not to be written to this register."""
        last = self._written_at.get(step.point, -math.inf)
        return max(0.0, last + self._rule.min_interval_s - self._loop.time())

    def _wake_in(self, seconds: float, anew: bool = True) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_later(seconds, self._start, anew)

    def _complain(self, text: str) -> None:
        """Say it once, until it is over."""
        if text != self._complaint:
            logger.warning("%s: %s", self._box, text)
        self._complaint = text

    @property
    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def _cancel(self) -> None:
        if self._first is not None:
            if not self._first.cancel() and not self._first.cancelled():
                self._first.exception()  # seen: asyncio complains of errors nobody looked at
            self._first = None
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._task = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    # ------------------------------------------------------------------------------- what to write, what is held

    def _target(self, amperes: float) -> float:
        """The setpoint as this box can take it: rounded down to its step, 0 below its minimum.

        What is a whole number of watts for the box but not of amperes for the core stays as the core has said it, lest
        the core takes the last decimal for a setpoint that was not followed.
        """
        taken = self._taken(amperes)
        return amperes if abs(amperes - taken) <= DUST_A else taken

    def _taken(self, amperes: float) -> float:
        if amperes < self._rule.min_a:
            return 0.0
        dust = DUST_A if self._rule.unit == "W" else 0.0
        steps = math.floor((min(amperes, self._rule.max_a) + dust) / self._step_a + 1e-6)
        return round(steps * self._step_a, 9)

    def _steps(self, amperes: float) -> Sequence[_Step]:
        """The writes that make the box hold a setpoint; raises ``ValueError``."""
        rule, target = self._rule, self._taken(amperes)
        if not target and rule.pause:
            return self._meant(rule.pause)
        setting = (_Step(p, self._registers.encoded(p, target * self._per_ampere)) for p in rule.points)
        return [*setting, *(self._meant(rule.resume) if target else ())]

    def _meant(self, writes: Sequence[Write]) -> list[_Step]:
        meant = ((write.point, self._registers.meant(write)) for write in writes)
        return [_Step(point, words) for point, words in meant if words is not None]

    def _watched(self) -> Sequence[str]:
        """The points that show what the box holds, as far as they can be read."""
        rule = self._rule
        shown = [rule.read_back] if rule.read_back else rule.points
        names = (*shown, *(write.point for write in (*rule.pause, *rule.resume)))
        return [name for name in dict.fromkeys(names) if self._registers.readable(name)]

    def _depends(self) -> Sequence[str]:
        """The points without which it cannot be told what to write."""
        rule, cells = self._rule, self._registers.cells
        formulas = [cells[point].scale for point in rule.points]
        formulas += [part for write in (*rule.pause, *rule.resume) for part in (write.value, write.when) if part]
        return [name for formula in formulas if isinstance(formula, Formula) for name in formula.names]

    def _look(self) -> None:
        """Find out what the box holds, in amperes per line: read back, else as acknowledged."""
        try:
            self._held_a = self._holds()
        except ValueError:
            self._held_a = None

    def _holds(self) -> float | None:
        registers, rule = self._registers, self._rule

        def at(steps: Sequence[_Step]) -> bool:
            return all(registers.words.get(step.point) == step.words for step in steps)

        if rule.pause and at(self._meant(rule.pause)):
            return 0.0
        if rule.read_back and registers.readable(rule.read_back):
            shown = registers.value(rule.read_back)
            return round(shown, 6) if isinstance(shown, float) else None  # 97 x 0.1 is 9.700000000000001
        if at(self._steps(self._sent.amperes)):
            return self._target(self._sent.amperes)
        amperes = [v / self._per_ampere for v in map(registers.value, rule.points) if isinstance(v, float)]
        return max(amperes, default=None)

    def _satisfied(self) -> bool:
        """Whether the box holds what it was sent. A point that only shows it may show whole amperes."""
        held, target = self._held_a, self._target(self._sent.amperes)
        if held is None or not self._rule.read_back:
            return held == target
        return target - 1.0 < held <= target + 0.05

    def _max_age_s(self, age: float | Formula) -> float:
        try:
            return amount(age, self._registers.known)
        except NoValue:
            return UNSAFE_RETRY_S

    def _tell(self) -> None:
        """Tell the core what the box holds, and up to which snapshot it follows.

        A box that shows less than it just acknowledged may only be slow to show it: until it has shown so for a
        while, the core shall reckon with what it was sent.
        """
        offered = self.offered()
        if offered and offered.amperes == self._sent.amperes:
            self._sent = offered
        if self._held_a is None:
            return
        too_much = self._held_a > self._target(self._sent.amperes)
        if self._satisfied() or too_much or self._again_s >= BELIEVED_S:
            self._followed = self._sent.revision
        self._post(Confirmed(self._box, self._held_a, self._followed))
