"""Doors: listeners that let one whole request at a time through to the application.

Everything that may take long waits on asyncio, where waiting costs nothing: handshakes, half requests, idle
connections, answers nobody fetches, live streams. Worker threads only ever see complete requests.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from bridge.http.access import Door
from bridge.http.live import Live
from bridge.http.wsgi import (
    MAX_HEAD,
    Answer,
    QuickApp,
    Request,
    answer_bytes,
    answer_of,
    environ_of,
    error_answer,
    new_request,
    objection,
)

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 500
MAX_CONNECTIONS_PER_PEER = 100
RECEIVE_S = 10.0
"""For the TLS handshake, for a head from its first byte, and for a body."""
IDLE_S = 60.0
LINGER_S = 2.0
SWEEP_S = 0.5
_PIECE = 8 * 1024
"""The parser gets this much at once: its work on tiny chunks grows with the square of the piece."""

Submit = Callable[[Callable[[], None]], None]
"""Hands a job to the worker threads."""


class Listener:
    """One door, open: accepts connections within the limits and ends those that have waited too long."""

    def __init__(
        self,
        door: Door,
        bound: socket.socket,
        app: QuickApp,
        submit: Submit,
        live: Live,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.door = door
        self.app = app
        self.submit = submit
        self.live = live
        self.tls = tls
        self.address: tuple[str, int] = bound.getsockname()[:2]
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self._peers: Counter[str] = Counter()
        self._socket = bound
        self._greeting: set[asyncio.Task[None]] = set()
        bound.setblocking(False)
        self._listen()
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    async def close(self, grace_s: float) -> None:
        """Accept nothing any more, let requests being worked on finish within ``grace_s``, then end the rest."""
        self.loop.remove_reader(self._socket)
        self._socket.close()
        self._sweeper.cancel()
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

    def _listen(self) -> None:
        if self._socket.fileno() >= 0:
            self.loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            accepted, address = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of file descriptors: the listener stays readable, so look away for a moment.
            logger.error("the %s door cannot accept: %s", self.door.name, error)
            self.loop.remove_reader(self._socket)
            self.loop.call_later(1.0, self._listen)
            return
        peer = address[0]
        if len(self.connections) >= MAX_CONNECTIONS or self._peers[peer] >= MAX_CONNECTIONS_PER_PEER:
            accepted.close()
            return
        connection = Connection(self, (peer, address[1]))
        self.connections.add(connection)
        self._peers[peer] += 1
        task = self.loop.create_task(self._greet(accepted, connection))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _greet(self, accepted: socket.socket, connection: Connection) -> None:
        """Finish the TLS handshake, if there is one."""
        limits = {"ssl_handshake_timeout": RECEIVE_S, "ssl_shutdown_timeout": LINGER_S} if self.tls else {}
        try:
            accepted.setblocking(False)
            await self.loop.connect_accepted_socket(lambda: connection, accepted, ssl=self.tls, **limits)
        except (OSError, asyncio.CancelledError) as error:  # ssl.SSLError is an OSError
            logger.debug("%s door: %s did not get in: %s", self.door.name, connection.peer[0], error)
            self.forget(connection)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in [one for one in self.connections if one.deadline < now]:
            connection.expire()
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)


class Connection(asyncio.Protocol):
    """One connection: reads a request, waits for its answer, writes it, and only then looks at the next."""

    def __init__(self, listener: Listener, peer: tuple[str, int]) -> None:
        self.peer = peer
        self.deadline = float("inf")
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._certificate: bytes | None = None
        self._request: Request | None = None
        self._in_body = False
        self._backlog = b""
        self._working = False
        self._eof = False
        self._closing = False
        self._congested = False
        self._unsent = 0

    # ------------------------------------------------------------------------------------- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The way is open, the TLS handshake done."""
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        self._certificate = tls.getpeercert(binary_form=True) if tls else None
        self._wait(RECEIVE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, whoever ended it."""
        self._transport = None
        self._listener.live.remove(self)
        self._listener.forget(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came in; those of later requests wait until the one being worked on is answered."""
        if self._working or self._congested:
            self._backlog += data
            if len(self._backlog) > MAX_HEAD and self._transport:
                self._transport.pause_reading()
        elif not self._closing:
            self._take(data)

    def eof_received(self) -> bool:
        """The peer sends no more; it may still wait for its answer."""
        self._eof = True
        return (self._working or self._backlog != b"") and self._listener.tls is None

    def pause_writing(self) -> None:
        """The peer fetches its answer slowly."""
        self._congested = True

    def resume_writing(self) -> None:
        """The peer has fetched most of it."""
        self._congested = False
        self._next()

    # ------------------------------------------------------------------------------------- reading a request

    def _take(self, data: bytes) -> None:
        """Feed the parser up to the end of one request."""
        begins = self._request is None
        while data:
            if self._request is None:
                self._request = new_request()
                self._in_body = False
            request = self._request
            try:
                data = data[request.received(data[:_PIECE]) :]
            except ValueError:  # a length of thousands of digits
                self._refuse("400 Bad Request", "the head makes no sense")
                return
            if request.error:
                self._refuse(f"{request.error.code} {request.error.reason}", request.error.body)
                return
            if request.empty:
                self._request = None
                continue
            if request.headers_finished and not self._in_body and not self._enter_body(request):
                return
            if request.completed:
                self._backlog = data
                self._work(request)
                return
        if begins and not self._in_body:
            self._wait(RECEIVE_S)

    def _enter_body(self, request: Request) -> bool:
        """The head is complete; False when it is refused."""
        self._in_body = True
        if reason := objection(request):
            self._refuse("400 Bad Request", reason)
            return False
        if not request.completed:
            self._wait(RECEIVE_S)
            if request.expect_continue:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _refuse(self, status: str, reason: str) -> None:
        """Answer a request that cannot be understood. What follows cannot be trusted, so it is the last."""
        self._request = None
        self._write(answer_bytes(error_answer(status, reason), keep=False))
        self._hang_up()

    # ------------------------------------------------------------------------------------- answering it

    def _work(self, request: Request) -> None:
        self._working = True
        self.deadline = float("inf")
        listener = self._listener
        environ: dict[str, Any] = environ_of(request, self.peer, listener.address, listener.tls is not None)
        environ["bridge.door"] = listener.door
        environ["bridge.peer_cert"] = self._certificate
        try:
            finish = listener.app.begin(environ)
        except Exception:
            logger.exception("%s %s failed to begin", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            finish = None
        finish = finish or (lambda: answer_of(listener.app, environ))
        listener.submit(lambda: self._in_worker(request, finish))

    def _in_worker(self, request: Request, finish: Callable[[], Answer]) -> None:
        listener = self._listener
        answer = finish()
        with suppress(RuntimeError):  # the loop has ended: nobody waits for the answer any more
            listener.loop.call_soon_threadsafe(self._answered, request, answer)

    def _answered(self, request: Request, answer: Answer) -> None:
        if request.connection_close or answer.is_stream or (self._eof and not self._backlog):
            self._closing = True
        self._write(answer_bytes(answer, keep=not self._closing, head_only=request.command == "HEAD"))
        self._request = None
        if answer.is_stream and request.command != "HEAD" and self._transport:
            self._backlog = b""
            self._listener.live.add(self)
            return
        self._working = False
        self._wait(IDLE_S)
        self._next()

    def _next(self) -> None:
        """Go on with what came in meanwhile."""
        if self._working or self._congested or not self._transport:
            return
        data, self._backlog = self._backlog, b""
        if self._closing:
            self._hang_up()
            return
        self._transport.resume_reading()
        self._take(data)

    # ------------------------------------------------------------------------------------- live streams

    def push(self, data: bytes) -> None:
        """Write a piece of a live stream, unless the peer has not fetched the last ones: then it gets the next."""
        if not self._congested:
            self._write(data)
            self.deadline = float("inf")
        elif self.deadline == float("inf"):
            self._wait(IDLE_S)

    # ------------------------------------------------------------------------------------- ending

    def finish(self) -> None:
        """End after the answer being worked on, at once if there is none."""
        if self._working and self not in self._listener.live:
            self._closing = True
        else:
            self.abort()

    def expire(self) -> None:
        """The time is up, unless a slow answer has got on since the last time."""
        unsent = self._transport.get_write_buffer_size() if self._transport else 0
        if 0 < unsent != self._unsent and not self._working:
            self._unsent = unsent
            self._wait(IDLE_S)
        else:
            self.abort()

    def abort(self) -> None:
        """End now."""
        if self._transport:
            self._transport.abort()

    def _hang_up(self) -> None:
        """Say that nothing more comes, and take in for a moment what the peer still sends.

        Closing at once with unread bytes would reset the connection and destroy the answer on its way.
        """
        self._closing = True
        if not self._transport:
            return
        self._wait(LINGER_S)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport:
            self._transport.write(data)

    def _wait(self, seconds: float) -> None:
        self.deadline = self._listener.loop.time() + seconds
