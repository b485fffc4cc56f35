"""The HTTP edge: its doors, each with a loop and workers of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bridge.core.config import Config
from bridge.core.model import Snapshot
from bridge.http.access import LAN, Access, Door
from bridge.http.administration import Administration
from bridge.http.app import Journal, Views, event_of, make_app
from bridge.http.door import Listener, Secure
from bridge.http.front import Front, Hub
from bridge.http.live import Live
from bridge.http.metrics import Source
from bridge.http.passwords import PasswordFile
from bridge.http.sessions import Archive
from bridge.http.workers import Workers
from bridge.http.wsgi import QuickApp

logger = logging.getLogger(__name__)

WORKERS = 16
GRACE_S = 0.6
"""Requests being worked on when the edge stops get this long to finish."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A door to open on ``listen`` (``host:port``); None: nobody can knock, connections are only taken in.

    ``session_s``: a connection lasts no longer, in seconds.
    """

    door: Door
    listen: str | None
    secure: Secure | None = None
    session_s: float = float("inf")


class OpenDoor:
    """One door. Whoever keeps its loop or its workers busy, with TLS handshakes or slow requests, holds up no other."""

    def __init__(self, opening: Opening, app: QuickApp, newest: Callable[[], Snapshot]) -> None:
        self._opening = opening
        self._app = app
        self._newest = newest
        self._workers = Workers(WORKERS, f"http-{opening.door.name}")
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread

    def start(self, bound: socket.socket | None) -> Listener:
        """Serve whoever comes to the bound socket."""
        self._loop = asyncio.new_event_loop()
        name = f"http-{self.name}"
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self._workers.start()
        self.listener = asyncio.run_coroutine_threadsafe(self._open(bound), self._loop).result()
        return self.listener

    async def _open(self, bound: socket.socket | None) -> Listener:
        opening = self._opening
        live = Live(self._newest, event_of, self._workers.submit)
        if opening.listen:
            logger.info("%s door open on %s", opening.door.name, opening.listen)
        return Listener(opening.door, bound, self._app, self._workers.submit, live, opening.secure, opening.session_s)

    @property
    def name(self) -> str:
        """That of the door."""
        return self._opening.door.name

    def take_in(self, wire: socket.socket, certificate: str) -> None:
        """Serve a connection that others have made; see :meth:`Listener.take_in`. A closed door closes it."""
        try:
            self._loop.call_soon_threadsafe(self.listener.take_in, wire, certificate)
        except RuntimeError:  # the loop is closed
            wire.close()

    def close(self) -> None:
        """Begin to close; :meth:`join` waits for it."""
        self._closing = asyncio.run_coroutine_threadsafe(self.listener.close(GRACE_S), self._loop)

    def join(self) -> None:
        """Wait until requests being worked on have got their answers, and end."""
        self._closing.result()
        self._workers.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class HttpEdge:
    """Serves all doors. ``secured``: name of a door to how it is secured. ``clock`` is the hub's monotonic clock.

    ``kept``: listening sockets by address, from one edge to the one that goes on.
    """

    def __init__(
        self,
        config: Config,
        hub: Hub,
        passwords: PasswordFile,
        sources: Iterable[Source] = (),
        clock: Callable[[], float] = time.monotonic,
        secured: Mapping[str, Secure] | None = None,
        journal: Journal = lambda since, until: (),
        archive: Archive | None = None,
        administration: Administration | None = None,
        kept: dict[str, socket.socket] | None = None,
    ) -> None:
        self._kept = {} if kept is None else kept
        self._bound: dict[str, socket.socket] = {}
        self._openings = openings_of(config, secured or {})
        views = Views(lambda: hub.snapshot, passwords, sources, clock, journal, archive)
        flask = make_app(views, administration)
        app = Front(hub, Access(passwords, clock), flask, clock)
        self._doors = [OpenDoor(opening, app, lambda: hub.snapshot) for opening in self._openings]
        self._listeners: list[Listener] = []

    def start(self) -> None:
        """Bind all doors and serve; raises OSError, naming the address, when one cannot be bound."""
        bound: list[socket.socket | None] = []
        try:
            for listen in (opening.listen for opening in self._openings):
                bound.append((self._kept.pop(listen, None) or bind(listen)) if listen else None)
        except OSError:
            for sock in filter(None, bound):
                sock.close()
            raise
        finally:
            while self._kept:
                self._kept.popitem()[1].close()
        self._bound = {o.listen: sock for o, sock in zip(self._openings, bound, strict=True) if o.listen and sock}
        self._listeners = [door.start(sock) for door, sock in zip(self._doors, bound, strict=True)]

    def offer(self, snapshot: Snapshot) -> None:
        """Nothing to do: whoever asks looks at the hub's newest snapshot, so that answering costs the hub nothing."""

    def stop(self) -> None:
        """Close the doors; requests being worked on get their answers."""
        for door in self._doors:
            door.close()
        for door in self._doors:
            door.join()

    def hand_over(self, config: Config) -> None:
        """Stop, because another edge goes on; whoever knocks at an address it will have, too, waits for it."""
        going_on = {config.http.listen, config.smgw.listen if config.smgw else None}
        for listen in self._bound.keys() & going_on:
            self._kept[listen] = self._bound[listen].dup()
        self.stop()

    def admit(self, wire: socket.socket, certificate: str) -> None:
        """Serve a connection at the SMGW door that was not accepted there; never blocks.

        ``certificate`` is the SHA-256 (hex) of the one by which the far end was known where it came in. While the
        configuration changes there may be no such door: then the connection is closed, and its maker tries again.
        """
        door = next((door for door in self._doors if door.name == "smgw"), None)
        if door:
            door.take_in(wire, certificate)
        else:
            wire.close()

    @property
    def ports(self) -> dict[str, int]:
        """Door name to the port it listens on."""
        return {listener.door.name: listener.address[1] for listener in self._listeners}


def openings_of(config: Config, secured: Mapping[str, Secure]) -> Sequence[Opening]:
    """The doors that are set up. Raises KeyError when one that must be secured is not."""
    openings = [Opening(LAN, config.http.listen, secured["lan"] if config.http.certificate else None)]
    smgw = config.smgw
    if smgw and (smgw.listen or smgw.reverse):
        door = Door("smgw", "smgw", password=False, role=smgw.role)
        secure = secured["smgw"] if smgw.tls and smgw.listen else None
        openings.append(Opening(door, smgw.listen, secure, smgw.session_max_h * 3600.0))
    return openings


def bind(listen: str) -> socket.socket:
    """A listening socket on ``host:port`` or ``[ipv6]:port``; raises OSError that names the address."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=1024)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {listen}: {error.strerror}") from error
