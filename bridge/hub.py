"""The one thread that owns the state: take events, decide, replace the snapshot, offer it to every edge."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from bridge.core import step
from bridge.core.model import Config, Event, Now, Snapshot, State
from bridge.edge import Edge

logger = logging.getLogger(__name__)

ROUND_GAP_S = 0.020
"""Readings alone make at most one round in this time; an urgent event makes one at once."""

TICK_S = 1.0
"""A round at least this often, so that silence (a stale meter) and the time of day are noticed."""


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
        self._inbox: SimpleQueue[Event | _Question | None] = SimpleQueue()
        self._rounds = threading.Condition(threading.Lock())
        self._watchers = 0
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)
        self.snapshot: Snapshot = step.first(config, state, now())
        """The newest snapshot; replaced whole, so reading it needs no lock."""

    def start(self, edges: Sequence[Edge]) -> None:
        """Begin to take events; ``edges`` are offered every snapshot, in this order."""
        self._edges = edges
        self._thread.start()

    def stop(self) -> None:
        """End after the events already posted."""
        self._inbox.put(None)
        self._thread.join(2.0)

    def post(self, event: Event) -> None:
        """Tell what happened. Never blocks; callable from any thread."""
        self._inbox.put(event)

    def ask(self, event: Event, timeout_s: float = 2.0) -> Snapshot:
        """Tell what happened and wait for the snapshot in which it is in force."""
        question = _Question(event)
        self._inbox.put(question)
        return question.wait(timeout_s)

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
        last = 0.0
        while True:
            batch = self._gather(last)
            if batch is None:
                return
            last = time.monotonic()
            self._round(batch)

    def _gather(self, last: float) -> list[Event | _Question] | None:
        """Take what is in the inbox: at once when something urgent is there, else after the round gap.

        Returns None when the hub shall stop.
        """
        batch: list[Event | _Question] = []
        deadline = last + TICK_S
        while True:
            wait = deadline - time.monotonic()
            try:
                item = self._inbox.get(timeout=wait) if wait > 0 else self._inbox.get_nowait()
            except Empty:
                return batch
            if item is None:
                return None
            batch.append(item)
            event = item.event if isinstance(item, _Question) else item
            deadline = time.monotonic() if event.urgent else min(deadline, last + ROUND_GAP_S)

    def _round(self, batch: list[Event | _Question]) -> None:
        """Apply, decide, replace, offer, answer. Commands come before readings, each kind in its order."""
        questions = [item for item in batch if isinstance(item, _Question)]
        events = [item.event if isinstance(item, _Question) else item for item in batch]
        events.sort(key=lambda event: not event.urgent)
        healthy = True
        try:
            snapshot = step.run(self.snapshot, events, self._now())
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
        for question in questions:
            question.answer(snapshot)
        if self._watchers:
            with self._rounds:
                self._rounds.notify_all()
        if healthy:
            self._fed()
