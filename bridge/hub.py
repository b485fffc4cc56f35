"""The one owner of the state: take events, decide, replace the snapshot, offer it to every edge.

Rounds are made one at a time, by the hub's own thread, or on the spot by whoever asks while no round is being made:
a grid command then does not wait for a thread to wake up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from bridge.core import step
from bridge.core.config import Config
from bridge.core.events import Event
from bridge.core.model import Now, Snapshot, State
from bridge.edge import Edge, QuickEdge

logger = logging.getLogger(__name__)

ROUND_GAP_S = 0.050
"""Readings alone make at most one round in this time; an urgent event makes one at once."""

TICK_S = 1.0
"""A round at least this often, so that silence (a stale meter) and the time of day are noticed."""

GIVE_WAY_S = 0.00005
"""The interpreter runs one thread at a time: after something urgent whoever has registers to write gets it before the
round goes on."""


class _Question:
    """An event whose sender waits for the snapshot that contains it."""

    __slots__ = ("_done", "event", "snapshot")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.snapshot: Snapshot | None = None
        # A bare lock is the quickest thing to wait on: this wait is part of the way from set to register.
        self._done = threading.Lock()
        self._done.acquire()

    def answer(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._done.release()

    def wait(self, timeout_s: float) -> Snapshot:
        if not self._done.acquire(timeout=timeout_s) or self.snapshot is None:
            raise TimeoutError("the hub did not take the event in time")
        return self.snapshot


class Hub:
    """Owns the state. ``now`` is the only clock; ``fed`` is called after each round in which deciding succeeded."""

    def __init__(
        self,
        config: Config,
        state: State,
        now: Callable[[], Now],
        fed: Callable[[], None] = lambda: None,
    ) -> None:
        self._now = now
        self._fed = fed
        self._edges: Sequence[Edge] = ()
        self._quick: Sequence[QuickEdge] = ()
        """Those of them that write registers."""
        self._inbox: deque[Event | _Question] = deque()
        self._bell: SimpleQueue[bool | None] = SimpleQueue()
        """Rung for the hub's thread: True for something urgent, None to end."""
        self._turn = threading.Lock()
        """Held by whoever makes a round, who owns the state meanwhile. Not to be had before start and after stop."""
        self._turn.acquire()
        self._last = 0.0
        self._rounds = threading.Condition(threading.Lock())
        self._watchers = 0
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)
        self.snapshot: Snapshot = step.first(config, state, now())
        """The newest snapshot; replaced whole, so reading it needs no lock."""

    def start(self, edges: Sequence[Edge]) -> None:
        """Begin to take events; ``edges`` are offered every snapshot, in this order."""
        self._know(edges)
        self._turn.release()
        self._thread.start()

    def connect(self, edges: Sequence[Edge]) -> None:
        """Offer the newest snapshot, and all that follow, to these edges instead."""
        with self._turn:
            self._know(edges)
            self._drain()

    def _know(self, edges: Sequence[Edge]) -> None:
        self._edges = edges
        self._quick = [edge for edge in edges if isinstance(edge, QuickEdge)]

    def stop(self) -> None:
        """End after the events already posted."""
        self._bell.put(None)
        self._thread.join(2.0)
        self._turn.acquire(timeout=1.0)

    def post(self, event: Event) -> None:
        """Tell what happened. Never blocks; callable from any thread."""
        self._inbox.append(event)
        self._bell.put(event.urgent)

    def ask(self, event: Event, timeout_s: float = 2.0) -> Snapshot:
        """Tell what happened and wait for the snapshot in which it is in force."""
        if snapshot := self.ask_now(event):
            return snapshot
        question = _Question(event)
        self._inbox.append(question)
        self._bell.put(True)
        return question.wait(timeout_s)

    def ask_now(self, event: Event) -> Snapshot | None:
        """Make a round with this event on the spot, without waiting for anything.

        None: somebody is making a round, and nothing has happened.
        """
        if not self._turn.acquire(blocking=False):
            return None
        try:
            if not event.urgent:
                self._inbox.append(event)
                return self._drain()
            # Readings that are waiting are in the snapshot, too, but the registers do not wait for them.
            snapshot = self._round([event])
            return self._drain() if self._inbox else snapshot
        finally:
            self._turn.release()

    def until(self, holds: Callable[[Snapshot], bool], timeout_s: float) -> Snapshot | None:
        """Wait until ``holds(snapshot)`` is true of a snapshot and return that one; None when the time is up."""
        end = time.monotonic() + timeout_s
        with self._rounds:
            self._watchers += 1
            try:
                while not holds(snapshot := self.snapshot):
                    if not self._rounds.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                        return None
                return snapshot
            finally:
                self._watchers -= 1

    def _run(self) -> None:
        going = True
        while going:
            going = self._wait()
            with self._turn:
                # Somebody may have made the round already that we were woken for.
                if self._inbox or time.monotonic() - self._last >= TICK_S:
                    self._drain()

    def _wait(self) -> bool:
        """Wait until a round is due: at once when something urgent came, else not before the round gap is over.

        False when the hub shall end.
        """
        due = self._last + TICK_S
        while (wait := due - time.monotonic()) > 0:
            try:
                urgent = self._bell.get(timeout=wait)
            except Empty:
                return True
            if urgent is None:
                return False
            due = 0.0 if urgent else min(due, self._last + ROUND_GAP_S)
        return True

    def _drain(self) -> Snapshot:
        """A round with all that is in the inbox. Commands come before readings, each kind in its order."""
        batch = [self._inbox.popleft() for _ in range(len(self._inbox))]
        questions = [item for item in batch if isinstance(item, _Question)]
        events = [item.event if isinstance(item, _Question) else item for item in batch]
        snapshot = self._round(sorted(events, key=lambda event: not event.urgent))
        for question in questions:
            question.answer(snapshot)
        return snapshot

    def _round(self, events: Sequence[Event]) -> Snapshot:
        """Apply, decide, write up, replace, offer. After something urgent the registers do not wait for the writing."""
        urgent = bool(events) and events[0].urgent
        self._last = time.monotonic()
        healthy = True
        try:
            snapshot = step.decided(self.snapshot, events, self._now())
            if urgent:
                self._hurry(snapshot)
            snapshot = step.recorded(self.snapshot, snapshot, events)
        except Exception:
            # Deciding is made so that it cannot fail. Should it fail all the same, everything goes to the safe
            # side and the watchdog is left hungry, so that the service is restarted.
            logger.exception("a round failed; falling back to the safe decision")
            snapshot = step.fallback(self.snapshot, self._now())
            healthy = False
        self.snapshot = snapshot
        for edge in self._edges:
            try:
                edge.offer(snapshot)
            except Exception:
                logger.exception("an edge failed to take a snapshot")
        if self._watchers:
            with self._rounds:
                self._rounds.notify_all()
        if healthy:
            self._fed()
        return snapshot

    def _hurry(self, decided: Snapshot) -> None:
        """Let registers be written by what is decided."""
        for edge in self._quick:
            try:
                edge.hurry(decided)
            except Exception:
                logger.exception("an edge failed to take a decision")
            time.sleep(GIVE_WAY_S)
