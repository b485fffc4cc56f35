"""What an edge is, and the mailbox that keeps only the newest snapshot for it."""

from __future__ import annotations

import threading
from typing import Protocol, runtime_checkable

from bridge.core.events import Event
from bridge.core.model import Snapshot


class Post(Protocol):
    """How an edge tells the hub what happened."""

    def __call__(self, event: Event, /) -> None:
        """Post the event: never blocks, callable from any thread."""


class Edge(Protocol):
    """What touches the world. An edge posts events and is offered every snapshot."""

    def start(self) -> None:
        """Begin to work; called once, before the first snapshot is offered."""

    def offer(self, snapshot: Snapshot) -> None:
        """Take notice of a snapshot. Called in the middle of a round: must return at once and never wait."""

    def stop(self) -> None:
        """End within one second, leaving the world in a safe state."""


@runtime_checkable
class QuickEdge(Edge, Protocol):
    """An edge that writes registers: it is told of a set before anybody else."""

    def hurry(self, decided: Snapshot) -> None:
        """Carry out what is decided. The round is still to be written up: the receipt of the set and its entry in the
        journal are not in this snapshot yet. The whole one is offered as always. Must return at once, too."""


class Mailbox:
    """One slot between the hub and an edge's own thread: a newer snapshot replaces an older one unread."""

    def __init__(self) -> None:
        self._filled = threading.Condition(threading.Lock())
        self._newest: Snapshot | None = None
        self._closed = False

    def put(self, snapshot: Snapshot) -> None:
        """Leave a snapshot; an unread older one is dropped."""
        with self._filled:
            self._newest = snapshot
            self._filled.notify()

    def take(self, timeout_s: float | None = None) -> Snapshot | None:
        """Wait for a snapshot; None when the time is up or the mailbox is closed and empty."""
        with self._filled:
            self._filled.wait_for(lambda: self._newest is not None or self._closed, timeout_s)
            snapshot, self._newest = self._newest, None
            return snapshot

    @property
    def closed(self) -> bool:
        """Whether nothing will come any more."""
        return self._closed

    def close(self) -> None:
        """Wake the reader for the last time."""
        with self._filled:
            self._closed = True
            self._filled.notify()
