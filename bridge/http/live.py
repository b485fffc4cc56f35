"""Live streams (server-sent events): one loop feeds all of them, at most four times a second each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from bridge.core.model import Snapshot

INTERVAL_S = 0.25


class Stream(Protocol):
    """A connection that is fed until it ends."""

    def push(self, data: bytes) -> None:
        """Send a piece, or skip it when the peer is slow."""


class Live:
    """Feeds streams with the ``newest`` snapshot, when it is a new one; ``render`` runs in a worker thread.

    While nobody listens nothing happens; and the newest snapshot is looked up here, instead of being announced to
    this loop by the hub, so that streams never delay a grid command.
    """

    def __init__(
        self,
        newest: Callable[[], Snapshot],
        render: Callable[[Snapshot], bytes],
        submit: Callable[[Callable[[], None]], None],
    ) -> None:
        self._newest = newest
        self._render = render
        self._submit = submit
        self._sent: Snapshot | None = None
        self._streams: set[Stream] = set()
        self._busy = False
        self._loop = asyncio.get_running_loop()

    def __contains__(self, stream: Stream) -> bool:
        return stream in self._streams

    def add(self, stream: Stream) -> None:
        """Feed a stream from now on."""
        self._streams.add(stream)
        if not self._busy:
            self._busy = True
            self._loop.call_later(INTERVAL_S, self._tick)

    def remove(self, stream: Stream) -> None:
        """Feed it no more."""
        self._streams.discard(stream)

    def _tick(self) -> None:
        if self._streams:
            self._submit(self._in_worker)
        else:
            self._busy = False

    def _in_worker(self) -> None:
        event = None
        snapshot = self._newest()
        try:
            if snapshot is not self._sent:
                event = self._render(snapshot)
                self._sent = snapshot
        finally:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._send, event)

    def _send(self, event: bytes | None) -> None:
        if event is not None:
            for stream in self._streams:
                stream.push(event)
        self._loop.call_later(INTERVAL_S, self._tick)
