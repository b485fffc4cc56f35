"""One meter or wallbox at work: met, armed, polled, kept alive, and met again after it was lost."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Iterator, Mapping

from bridge.core.config import DeviceConfig, MeterConfig, WallboxConfig
from bridge.core.events import Link as LinkEvent
from bridge.core.events import Read, Reading
from bridge.core.formulas import NoValue
from bridge.edge import Post
from bridge.errors import LinkDown, LinkError, LinkTimeout
from bridge.modbus import watchdog
from bridge.modbus.duty import Duty
from bridge.modbus.link import Link
from bridge.modbus.phases import PhaseDuty
from bridge.modbus.plan import Block
from bridge.modbus.profile import Connection, Keepalive, Poll, Profile
from bridge.modbus.quantities import believable, watchdog_unit
from bridge.modbus.readings import amount, published
from bridge.modbus.registers import Registers

logger = logging.getLogger(__name__)

SLOW_EVERY = 10
"""``poll: slow`` points are read at every so manieth poll."""

REFUSES = "the device refuses every register: is the profile right, and the unit?"

AGAIN_S = 5.0
"""A device that answers but refuses everything is tried again after so long."""

MISSING_AGAIN_S = 300.0
"""Registers that were not there are asked for again after so long."""

CONFUSED_S = 0.3
"""One whose answers make no sense, after so long."""

MEET_S = 0.4
"""A device that hangs up again and again is met this often at most."""

GRACE_S = 0.3
"""A connection that is back this soon was never lost, as far as others are concerned."""


class Device:
    """One device and all its tasks, on the edge's event loop.

    ``phase`` (0 to 1) is its place within the poll period, so that the polls of many devices do not come at once.
    """

    def __init__(self, config: DeviceConfig, profile: Profile, link: Link, phase: float, post: Post) -> None:
        self.config, self.profile, self.link = config, profile, link
        self.lateness_s = 0.0
        self.polls = 0
        self.unit = profile.connection.unit if config.unit is None else config.unit
        self.registers = Registers(config.id, profile, self.unit, link)
        self.duty: Duty | None = None
        if isinstance(config, WallboxConfig) and profile.setpoint:
            self.duty = Duty(config.id, profile, self.registers, len(config.lines), post, self._trouble)
        self.phases: PhaseDuty | None = None
        if isinstance(config, WallboxConfig) and profile.phases:
            self.phases = PhaseDuty(config.id, profile.phases, self.registers, post)
        self._post = post
        self._role = config.role if isinstance(config, MeterConfig) else None
        self._offset_s = phase * config.poll_s
        self._loop = asyncio.get_running_loop()
        self._broken = asyncio.Event()
        self._reported: tuple[bool, str] | None = None
        self._met = False
        self._doubted: set[str] = set()
        self._misses = 0
        self._armed = False
        self._beat_at = -math.inf
        self._told_at: dict[str, float] = {}
        self._again_at = self._loop.time() + MISSING_AGAIN_S

    @property
    def manners(self) -> Connection:
        """How the device wants to be talked to."""
        return self.profile.connection

    def lost(self, reason: str) -> None:
        """The connection is gone, or could not be made."""
        if self._reported is not None and not self._reported[0]:
            self._report(False, reason)
        self._trouble()

    def _trouble(self) -> None:
        """Whatever the device was taken to hold, it may not any more: meet it anew."""
        self._broken.set()

    async def run(self) -> None:
        """Work until cancelled."""
        met_at = -math.inf
        while True:
            await self._connected()
            await asyncio.sleep(max(self.link.silent_for(self.unit), met_at + MEET_S - self._loop.time()))
            met_at = self._loop.time()
            self._broken.clear()
            try:
                await self._session()
            except LinkDown:
                pass  # it may be back in a moment: many a device closes a connection it finds idle
            except LinkTimeout as error:
                # One lost answer is no outage; serial lines behind gateways lose some every hour.
                self._missed(str(error))
            except LinkError as error:
                self._report(False, str(error))
                await asyncio.sleep(CONFUSED_S)
            finally:
                if self.duty:
                    self.duty.down()

    async def _connected(self) -> None:
        try:
            async with asyncio.timeout(GRACE_S):
                await self.link.connected()
        except TimeoutError:
            self._report(False, self.link.reason or "not connected")
            await self.link.connected()

    async def _session(self) -> None:
        """From meeting the device until it is lost."""
        self._armed = False
        await self.registers.prepare()
        if self.duty and self._met:
            # First things first: a box that has rebooted charges with whatever it likes until it is told.
            await self.duty.up(first=False)
        if self.phases:
            await self.phases.met()
        if not await self._read("fast"):
            self._report(False, REFUSES)
            await asyncio.sleep(AGAIN_S)
            return
        if self.duty and not self._met:
            await self.duty.up(first=True)
        self._met = True
        await self._read("slow", "once")
        await self._ask_again()
        self._identify()
        await self._arm()
        rule = self.profile.keepalive
        if rule and self._beat_due_s(rule) <= 0:
            # Here and now: where each answer ends a connection, what only begins in the background never gets far.
            await self._beat(rule)
        beats = self._loop.create_task(self._keep_beating(rule)) if rule else None
        try:
            await self._poll()
        finally:
            if beats:
                beats.cancel()

    async def _arm(self) -> None:
        """What has to be written once, the box's own watchdog included; then look how that is really set."""
        failsafe = self.profile.failsafe
        before = self.registers.written.total()
        await self.registers.settle((*self.profile.init, *(failsafe.writes if failsafe else ())))
        if self.registers.written.total() > before:
            # Where a box shows its watchdog in other registers than those that set it, they were read too early.
            await self.registers.fetch([name for name in self.registers.cells if watchdog_unit(name)])
        self._armed = True

    # ----------------------------------------------------------------------------------------------- reading

    async def _read(self, *polls: Poll) -> bool:
        """Read and tell what was read; whether anything was. A wallbox is met before anybody else is polled."""
        answered = False
        begin = time.monotonic()  # none of the values is older
        for poll in polls:
            answered |= await self.registers.sweep(poll, self._came, urgent=self.duty is not None and not self._met)
        if answered:
            self._misses = 0
            values = published(self.profile, self.registers.known, self._role)
            gone = self._gone(values, begin)
            if self.phases and self.phases.settling:
                values.pop("state", None)
            self._report(True, "; ".join(filter(None, (_doubt(values), self._watchdog(values)))))
            self._post(Read(self.config.id, values, begin, gone))
            if self.phases and "fast" in polls:
                await self.phases.polled()
        return answered

    def _gone(self, values: Mapping[str, Reading], now: float) -> frozenset[str]:
        """What the device has not told for as long as its readings may be believed: "no value", or refused.

        The last value of such a quantity would pass for a new one, for ever.
        """
        self._told_at |= dict.fromkeys(values, now)
        if not self._armed:
            return frozenset()  # it has not been asked for everything yet
        gone = frozenset(name for name, at in self._told_at.items() if now - at > self.config.patience_s)
        for name in gone:
            del self._told_at[name]
        if gone:
            logger.info("%s no longer tells: %s", self.config.id, ", ".join(sorted(gone)))
        return gone

    def _watchdog(self, values: dict[str, Reading]) -> str:
        """Add what is known of the box's own watchdog to what is published; what is wrong with it, in words."""
        if self.duty is None or not self._armed:
            return ""
        known, poll_s = self.registers.known, self.config.poll_s
        values.update(watchdog.told(self.profile, known, poll_s))
        found = watchdog.worries(self.profile, known, watchdog.refresh_s(self.profile, known, poll_s))
        return "; ".join(f"its own watchdog, {name.removeprefix('set_')}: {worry}" for name, worry in found)

    def _came(self, block: Block) -> None:
        if self.duty:
            self.duty.came(block)

    async def _poll(self) -> None:
        """Poll on a fixed grid until something breaks; a poll that comes too late is left out, not caught up."""
        period = self.config.poll_s
        count = 0
        while True:
            now = self._loop.time()
            due = math.ceil((now - self._offset_s) / period) * period + self._offset_s
            if await self._breaks_within(due - now):
                return
            self.lateness_s = self._loop.time() - due
            self.polls += 1
            count += 1
            if not await self._read(*(("fast", "slow") if count % SLOW_EVERY == 0 else ("fast",))):
                self._missed(REFUSES)
            await self._ask_again()

    async def _ask_again(self) -> None:
        """Now and then: the device may have been starting up when it was met."""
        if self._loop.time() >= self._again_at:
            await self.registers.ask_again()
            self._again_at = self._loop.time() + MISSING_AGAIN_S

    async def _breaks_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._broken.wait()
        except TimeoutError:
            return False
        return True

    async def _keep_beating(self, rule: Keepalive) -> None:
        """The sign of life, on its own and before all polls: a long sweep must not delay it."""
        try:
            while True:
                await asyncio.sleep(self._beat_due_s(rule))
                await self._beat(rule)
        except LinkError:
            self._trouble()

    async def _beat(self, rule: Keepalive) -> None:
        if rule.read:
            await self.registers.fetch([rule.read])
        else:
            await self.registers.settle(rule.writes, spare=False)
        self._beat_at = self._loop.time()

    def _beat_due_s(self, rule: Keepalive) -> float:
        """How long until the next sign of life, in seconds. A box that was away has it at once."""
        return max(0.0, self._beat_at + self._beat_s(rule) - self._loop.time())

    def _beat_s(self, rule: Keepalive) -> float:
        try:
            every_s = amount(rule.every_s, self.registers.known)
        except NoValue:
            every_s = 0.0
        if every_s > 0:
            return every_s
        return self.profile.failsafe.timeout_s / 4 if self.profile.failsafe else AGAIN_S

    # ---------------------------------------------------------------------------------------------- reporting

    def _identify(self) -> None:
        for name, text in mismatches(self.profile, self.registers):
            logger.warning("%s: %s: %s", self.config.id, name, text)

    def _missed(self, reason: str) -> None:
        """A poll brought nothing: once it may have been busy."""
        self._misses += 1
        if self._misses > 1:
            self._report(False, reason)

    def _report(self, online: bool, reason: str) -> None:
        """Tell the core about the link, once per change."""
        if not online:
            self._beat_at = -math.inf  # it may have rebooted
        if self._reported != (online, reason):
            if self._reported is None or self._reported[0] != online:
                logger.info("%s: %s", self.config.id, "online" if online else f"offline: {reason}")
            if online and reason and reason not in self._doubted:
                self._doubted.add(reason)
                logger.warning("%s: %s", self.config.id, reason)
            self._reported = (online, reason)
            self._post(LinkEvent(self.config.id, online, reason))


def _doubt(values: Mapping[str, Reading]) -> str:
    """What is wrong with readings that nobody should rely on; the same text as long as it is the same quantities."""
    doubtful = [name for name, value in values.items() if not believable(name, value)]
    return f"hard to believe: {', '.join(doubtful)}; is the profile right, and the unit?" if doubtful else ""


def mismatches(profile: Profile, registers: Registers) -> Iterator[tuple[str, str]]:
    """The points that identify the model and do not read as they should, each with what to say about it."""
    for name, pattern in profile.identify.items():
        value = registers.known.get(name)
        text = f"{value:.15g}" if isinstance(value, float) else str(value)
        if value is not None and not re.fullmatch(pattern, text):
            yield name, f"{text} is not what a {profile.id} says ({pattern})"
