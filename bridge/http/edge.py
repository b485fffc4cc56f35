"""The HTTP edge: its doors, the loop behind them, and the workers that run requests."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bridge.core.config import Config
from bridge.core.model import Snapshot
from bridge.http.access import LAN, Access, Door
from bridge.http.app import Views, event_of, make_app
from bridge.http.door import Listener
from bridge.http.front import Front, Hub
from bridge.http.live import Live
from bridge.http.metrics import Source
from bridge.http.passwords import PasswordFile
from bridge.http.workers import Workers

logger = logging.getLogger(__name__)

WORKERS = 16
GRACE_S = 0.6
"""Requests being worked on when the edge stops get this long to finish."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A door to open: on ``listen`` (``host:port``), with TLS if a context is given."""

    door: Door
    listen: str
    tls: ssl.SSLContext | None = None


class HttpEdge:
    """Serves all doors from one loop in one thread. Each door has workers of its own, so that whoever keeps the LAN
    door busy cannot hold up the grid operator at the other. ``clock`` is the hub's monotonic clock.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        passwords: PasswordFile,
        sources: Iterable[Source] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._openings = openings_of(config)
        self._hub = hub
        flask = make_app(Views(lambda: hub.snapshot, passwords, sources, clock))
        self._app = Front(hub, Access(passwords, clock), flask, clock)
        self._workers = [Workers(WORKERS, f"http-{opening.door.name}") for opening in self._openings]
        self._listeners: list[Listener] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)

    def start(self) -> None:
        """Bind all doors and serve; raises OSError, naming the address, when one cannot be bound."""
        bound = [bind(opening.listen) for opening in self._openings]
        self._thread.start()
        for workers in self._workers:
            workers.start()
        asyncio.run_coroutine_threadsafe(self._open(bound), self._loop).result()

    def offer(self, snapshot: Snapshot) -> None:
        """Nothing to do: whoever asks looks at the hub's newest snapshot, so that answering costs the hub nothing."""

    def stop(self) -> None:
        """Close the doors; requests being worked on get their answers."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        for workers in self._workers:
            workers.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def ports(self) -> dict[str, int]:
        """Door name to the port it listens on."""
        return {listener.door.name: listener.address[1] for listener in self._listeners}

    async def _open(self, bound: Sequence[socket.socket]) -> None:
        for opening, workers, sock in zip(self._openings, self._workers, bound, strict=True):
            live = Live(lambda: self._hub.snapshot, event_of, workers.submit)
            self._listeners.append(Listener(opening.door, sock, self._app, workers.submit, live, opening.tls))
            logger.info("%s door open on %s", opening.door.name, opening.listen)

    async def _close(self) -> None:
        await asyncio.gather(*(listener.close(GRACE_S) for listener in self._listeners))


def openings_of(config: Config) -> Sequence[Opening]:
    """The doors that are set up."""
    return [Opening(LAN, config.http.listen)]


def bind(listen: str) -> socket.socket:
    """A listening socket on ``host:port`` or ``[ipv6]:port``; raises OSError that names the address."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=1024)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {listen}: {error.strerror}") from error
