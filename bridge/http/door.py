"""Doors: listeners that let one whole request at a time through to the application.

Everything that may take long waits on asyncio, where waiting costs nothing: handshakes, half requests, idle
connections, answers nobody fetches, live streams. Worker threads only ever see complete requests.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from bridge.core.gateway import FarEndRole
from bridge.http.access import Buckets, Door
from bridge.http.audit import Audit
from bridge.http.connection import Connection, Submit
from bridge.http.handshake import accept
from bridge.http.live import Live
from bridge.http.wsgi import QuickApp

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 500
MAX_CONNECTIONS_PER_PEER = 100
HANDSHAKE_S = 10.0
HANDSHAKES_AT_ONCE = 20.0
HANDSHAKES_PER_S = 30.0
"""Of one peer; what comes beyond waits. A handshake costs a small machine some milliseconds."""
PACE_S = 0.05
SWEEP_S = 0.5


class Secured(NamedTuple):
    """How a door is secured now. ``roles``: SHA-256 of a peer's certificate (hex) to what it may do; None: no
    certificate is asked for."""

    context: ssl.SSLContext
    roles: Mapping[str, FarEndRole] | None = None


_OF_PYTHON = re.compile(r" \(_ssl\.c:\d+\)$")
"""The line of Python's source at the end of what OpenSSL says; it helps nobody here."""

Secure = Callable[[], Secured]
"""Asked for every handshake and every request, so that a certificate that was replaced counts at once."""


class Listener:
    """One door, open: accepts connections within the limits and ends those that have waited too long."""

    def __init__(
        self,
        door: Door,
        bound: socket.socket | None,
        app: QuickApp,
        submit: Submit,
        live: Live,
        secure: Secure | None = None,
        session_s: float = float("inf"),
    ) -> None:
        self.door = door
        self.app = app
        self.submit = submit
        self.live = live
        self.secure = secure
        self.address: tuple[str, int] = bound.getsockname()[:2] if bound else (door.name, 0)
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.held = 0
        self.requests: Audit | None = None
        self._strangers: Audit | None = None
        if not door.password:
            self.requests = Audit(f"{door.name} door", self.loop.time)
            self._strangers = Audit(f"{door.name} door, not let in", self.loop.time)
        self._session_s = session_s
        self._handshakes = Buckets(HANDSHAKES_AT_ONCE, HANDSHAKES_PER_S, self.loop.time)
        self._peers: Counter[str] = Counter()
        self._socket = bound
        self._greeting: set[asyncio.Task[None]] = set()
        if bound:
            bound.setblocking(False)
            self._listen(bound)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    async def close(self, grace_s: float) -> None:
        """Accept nothing any more, let requests being worked on finish within ``grace_s``, then end the rest."""
        if self._socket:
            self.loop.remove_reader(self._socket)
            self._socket.close()
        self._sweeper.cancel()
        await asyncio.sleep(0)  # a task that is cancelled before it began would leave its socket open
        for task in self._greeting:
            task.cancel()
        for connection in tuple(self.connections):
            connection.finish()
        end = self.loop.time() + grace_s
        while self.connections and self.loop.time() < end:
            await asyncio.sleep(0.01)
        for connection in tuple(self.connections):
            connection.abort()

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        if connection in self.connections:
            self.connections.remove(connection)
            self._peers[connection.peer[0]] -= 1
            if not self._peers[connection.peer[0]]:
                del self._peers[connection.peer[0]]

    def _listen(self, bound: socket.socket) -> None:
        if bound.fileno() >= 0:
            self.loop.add_reader(bound, self._accept, bound)

    def _accept(self, bound: socket.socket) -> None:
        try:
            accepted, address = bound.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of file descriptors: the listener stays readable, so look away for a moment.
            logger.error("the %s door cannot accept: %s", self.door.name, error)
            self.loop.remove_reader(bound)
            self.loop.call_later(1.0, self._listen, bound)
            return
        peer = address[0]
        if len(self.connections) >= MAX_CONNECTIONS or self._peers[peer] >= MAX_CONNECTIONS_PER_PEER:
            accepted.close()
            return
        self._begin(accepted, Connection(self, (peer, address[1])), self.secure)

    def take_in(self, wire: socket.socket, certificate: str) -> None:
        """Serve a connection that others have made; ``certificate`` (SHA-256, hex) is the one they found at its end."""
        self._begin(wire, Connection(self, ("tunnel", 0), certificate), None)

    def _begin(self, wire: socket.socket, connection: Connection, secure: Secure | None) -> None:
        self.connections.add(connection)
        self._peers[connection.peer[0]] += 1
        task = self.loop.create_task(self._greet(wire, connection, secure))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _greet(self, wire: socket.socket, connection: Connection, secure: Secure | None) -> None:
        """Finish the TLS handshake, if there is one."""
        try:
            if secure:
                await self._turn(wire, connection.peer[0])
            await accept(wire, connection, secure().context if secure else None, HANDSHAKE_S)
        except OSError as error:  # ssl.SSLError is one
            self.turn_away(connection, _OF_PYTHON.sub("", str(error)))
            self.forget(connection)
        except asyncio.CancelledError:
            self.forget(connection)

    async def _turn(self, wire: socket.socket, peer: str) -> None:
        """Wait until the peer may begin another handshake."""
        try:
            while not self._handshakes.take(peer):
                await asyncio.sleep(PACE_S)
        except asyncio.CancelledError:
            wire.close()
            raise

    def turn_away(self, connection: Connection, reason: str) -> None:
        """Somebody did not get in."""
        if self._strangers:
            self._strangers.note(f"{connection.peer[0]}: {reason}")
        else:
            logger.debug("%s door: %s did not get in: %s", self.door.name, connection.peer[0], reason)

    def door_for(self, certificate: str) -> Door | None:
        """The door as it stands open to the peer with this certificate (SHA-256, hex); None: it is closed to it."""
        roles = self.secure().roles if self.secure else None
        if roles is None:
            return self.door
        role = roles.get(certificate)
        return replace(self.door, role=role) if role else None

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in tuple(self.connections):
            if connection.deadline < now:
                connection.expire()
            elif now - connection.since > self._session_s:
                connection.finish()
            elif connection in self.live and not connection.is_let_in():
                connection.abort()  # a stream asks nothing any more, so nobody would tell it
        for audit in filter(None, (self.requests, self._strangers)):
            audit.tick()
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)
