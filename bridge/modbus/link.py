"""One connection and one queue for everything behind one ``host:port``, or on one serial line.

Most devices take one connection and one request at a time; several units may live behind one gateway. So there is
exactly one request on the wire, what must not wait overtakes what may, and the gaps the devices ask for are kept.
After a timeout or an answer that does not fit, the connection is dropped and a fresh one made: a late answer can then
never be taken for the answer to a later question. How a silent unit is kept from costing the others behind the same
gateway their time, :mod:`bridge.modbus.health` knows.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bridge.errors import LinkDown, LinkError, LinkTimeout, Nonsense, Refused
from bridge.modbus.address import Where
from bridge.modbus.health import Health
from bridge.modbus.profile import Connection
from bridge.modbus.wire import Request, Wire, dial

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 3.0
FIRST_RETRY_S = 0.1
SAY_AGAIN_S = 600.0
"""The log hears of the same trouble this seldom."""

LONGEST_RETRY_S = 1.2
"""Short, because a box that has rebooted shall have its setpoint within two seconds of answering again."""

_NO_UNIT = (10, 11)
"""Exceptions by which a gateway says that the unit behind it does not answer."""


class _Job(NamedTuple):
    """A request on its way; ``answer`` is what its sender waits for."""

    request: Request
    timeout_s: float
    answer: asyncio.Future[Sequence[int]]
    last: bool = False

    def fail(self, error: LinkError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Guest(Protocol):
    """A device as its link sees it."""

    @property
    def manners(self) -> Connection:
        """How the device wants to be talked to."""

    def lost(self, reason: str) -> None:
        """The connection is gone, or could not be made."""


class Link:
    """The connection to ``where``. Used from one event loop only; :meth:`run` keeps it up."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self.timeouts = 0
        self.connects = 0
        self.reason: str | None = "not connected yet"
        """Why requests fail at once; None: they are taken."""
        self._loop = asyncio.get_running_loop()
        self._guests: list[Guest] = []
        self._gap_s = self._write_gap_s = self._settle_s = 0.0
        self._repeat = self._left = 1
        self._urgent: deque[_Job] = deque()
        self._relaxed: deque[_Job] = deque()
        self._last: deque[_Job] = deque()
        self._health = Health()
        self._wire: Wire | None = None
        self._taken = asyncio.Event()
        self._closed = asyncio.Event()
        self._job: _Job | None = None
        self._sent_at = 0.0
        self._quiet_until = self._no_write_until = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._fruitless = 0
        self._said: dict[str, float] = {}

    def __str__(self) -> str:
        return str(self.where)

    # ------------------------------------------------------------------------------------------- for devices

    def attach(self, device: Guest) -> None:
        """A device moves in: from now on its gaps are kept too."""
        self._guests.append(device)
        self._keep_manners()

    def detach(self, device: Guest) -> int:
        """A device moves out; returns how many are left."""
        self._guests.remove(device)
        self._keep_manners()
        return len(self._guests)

    def _keep_manners(self) -> None:
        manners = [guest.manners for guest in self._guests]
        self._gap_s = max([self.where.silence_s, *(m.gap_ms / 1000 for m in manners)])
        self._write_gap_s = max((m.write_gap_ms for m in manners), default=0) / 1000
        self._settle_s = max((m.wait_after_connect_ms for m in manners), default=0) / 1000
        self._repeat = max((m.repeat for m in manners), default=1)

    async def connected(self) -> None:
        """Wait until requests are taken."""
        await self._taken.wait()

    def silent_for(self, unit: int) -> float:
        """How long the unit is to be left alone, in seconds; 0: ask it."""
        return max(0.0, self._health.silent_until(unit) - self._loop.time())

    def ask(
        self, request: Request, timeout_s: float, urgent: bool = False, last: bool = False
    ) -> asyncio.Future[Sequence[int]]:
        """Queue a request; when the wire is free, its bytes are sent before this returns.

        ``urgent`` ones overtake the others, ``last`` ones are sent when there is nothing else to send, and when they
        are not answered, that tells nothing about their unit. The future brings the words read (nothing for writes)
        or raises :class:`LinkDown`, :class:`LinkTimeout`, :class:`Refused` or :class:`Nonsense`. Cancelling it takes
        the request back if it has not been sent.
        """
        job = _Job(request, timeout_s, self._loop.create_future(), last)
        if self.reason is not None:
            job.fail(LinkDown(self.reason))
        else:
            (self._last if last else self._urgent if urgent else self._relaxed).append(job)
            self._pump()
        return job.answer

    # -------------------------------------------------------------------------------------------- connection

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        try:
            while True:
                if self._fruitless:
                    retry_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._fruitless - 1, 8))
                    await asyncio.sleep(retry_s * random.uniform(0.8, 1.2))
                self._fruitless += 1  # until something is answered
                await self._connect()
        finally:
            self._give_up("closed")

    async def _connect(self) -> None:
        """One connection from its beginning to its end."""
        self._closed.clear()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                wire = await dial(self.where, self._answered, self._lost)
        except TimeoutError:
            self._give_up("no answer to connecting")
            return
        except OSError as error:
            self._give_up(f"connecting failed: {error.strerror or error}")
            return
        self.connects += 1
        self._wire = wire
        self._quiet_until = max(self._quiet_until, self._loop.time() + self._settle_s)
        self.reason = None
        self._taken.set()
        self._pump()
        await self._closed.wait()

    def _drop(self) -> None:
        """Drop the connection; what is queued waits for the next one."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()
        self._closed.set()

    def _give_up(self, reason: str) -> None:
        """No connection for now: fail all that wait. Whoever asks again later must not take anything for granted,
        the device may have rebooted."""
        self._say(reason)
        self.reason = reason
        self._taken.clear()
        self._drop()
        waiting = [*filter(None, [self._finish()]), *self._urgent, *self._relaxed, *self._last]
        for queue in (self._urgent, self._relaxed, self._last):
            queue.clear()
        for job in waiting:
            job.fail(LinkDown(reason))
        for guest in self._guests:
            guest.lost(reason)

    def _lost(self, wire: Wire) -> None:
        if wire is not self._wire:
            return
        reason = "the device closed the connection"
        if self._fruitless:
            self._give_up(reason)
            return
        # It has answered on this connection: many close what they find idle, some after each answer. What is asked
        # meanwhile waits for the next connection, and what crossed with the closing is sent there again.
        if (job := self._finish()) is not None:
            (self._last if job.last else self._urgent).appendleft(job)
        self._drop()
        for guest in self._guests:
            guest.lost(reason)

    def _say(self, text: str) -> None:
        """Tell the log, unless it has heard so lately."""
        now = self._loop.time()
        if now - self._said.get(text, -SAY_AGAIN_S) >= SAY_AGAIN_S:
            self._said[text] = now
            logger.info("%s: %s", self, text)

    # ------------------------------------------------------------------------------------------------- queue

    def _pump(self) -> None:
        """Send the next request if the wire is free and the gaps have passed; else see to it later."""
        if self._wire is None or self._job is not None:
            return
        now = self._loop.time()
        later = float("inf")
        for queue in (self._urgent, self._relaxed, self._last):
            job = self._first(queue, now)
            if job is None or (job.last and later < float("inf")):
                continue
            start = max(self._quiet_until, self._no_write_until) if job.request.words else self._quiet_until
            if start <= now:
                queue.popleft()
                self._send(job, now)
                return
            later = min(later, start)
        if later < float("inf"):
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self._loop.call_at(later, self._pump)

    def _first(self, queue: deque[_Job], now: float) -> _Job | None:
        """The first request that is still wanted and whose unit may be asked."""
        while queue:
            job = queue[0]
            if not job.answer.done() and self._health.silent_until(job.request.unit) <= now:
                return job
            queue.popleft()
            job.fail(LinkTimeout(f"unit {job.request.unit} does not answer"))
        return None

    def _send(self, job: _Job, now: float) -> None:
        self._job, self._left = job, self._repeat
        self._transmit(job, now)

    def _transmit(self, job: _Job, now: float) -> None:
        assert self._wire is not None
        self._sent_at = now
        self._left -= 1
        self._wire.send(job.request)
        patience_s = self._health.patience_s(job.request.unit, job.timeout_s, now)
        self._deadline = self._loop.call_at(now + patience_s, self._timed_out)

    def _repeats(self) -> bool:
        """A device that sleeps is woken by the first request and believed only at the last one."""
        if self._job is None or not self._left:
            return False
        if self._deadline is not None:
            self._deadline.cancel()
        at = self._loop.time() + self._gap_s
        self._deadline = self._loop.call_at(at, self._transmit, self._job, at)
        return True

    def _finish(self) -> _Job | None:
        """The request on the wire has come to its end, one way or the other."""
        job, self._job = self._job, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        now = self._loop.time()
        self._quiet_until = now + self._gap_s
        if job is not None and job.request.words:
            self._no_write_until = now + self._write_gap_s
        return job

    def _answered(self, answer: Sequence[int] | LinkError) -> None:
        if not isinstance(answer, Nonsense) and self._repeats():
            return
        job, now = self._finish(), self._loop.time()
        if isinstance(answer, Nonsense) or job is None:
            self._say(f"{answer}; connecting anew")
            if job is not None and isinstance(answer, LinkError):
                job.fail(answer)
            self._drop()
            return
        if isinstance(answer, Refused) and answer.code in _NO_UNIT:
            self._silent(job)
            self._pump()
            return
        self._fruitless = 0
        if self._health.answered(job.request.unit, now - self._sent_at, now):
            self._say(f"unit {job.request.unit} answers again")
        if isinstance(answer, LinkError):
            job.fail(answer)
        elif not job.answer.done():
            job.answer.set_result(answer)
        self._pump()

    def _timed_out(self) -> None:
        if self._repeats():
            return
        job = self._finish()
        if job is not None:
            self.timeouts += 1
            self._silent(job)
            self._drop()

    def _silent(self, job: _Job) -> None:
        if not job.last and self._health.silent(job.request.unit, self._loop.time()):
            self._say(f"unit {job.request.unit} does not answer")
        job.fail(LinkTimeout(f"unit {job.request.unit} does not answer"))
