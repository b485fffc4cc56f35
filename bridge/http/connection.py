"""One connection: whole requests to the application, answers back, one after the other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, Protocol, cast

from bridge.http.access import Door
from bridge.http.audit import Audit, harmless, line_of
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

RECEIVE_S = 10.0
"""For a head from its first byte, and for a body."""
IDLE_S = 60.0
LINGER_S = 2.0
_PIECE = 8 * 1024
"""The parser gets this much at once: its work on tiny chunks grows with the square of the piece."""

MAX_HELD = 32 * 1024 * 1024
"""Bytes of all bodies at a door, received or being worked on: a small machine must not run out of memory."""
SMALL = 16 * 1024
"""A body of so many bytes is always taken in: no upload keeps a grid command out."""

Submit = Callable[[Callable[[], None]], None]
"""Hands a job to the worker threads."""


class Host(Protocol):
    """What a connection needs of the door it came through."""

    app: QuickApp
    submit: Submit
    live: Live
    loop: asyncio.AbstractEventLoop
    address: tuple[str, int]
    requests: Audit | None
    held: int

    def door_for(self, certificate: str, /) -> Door | None:
        """The door as it stands open to whoever has this certificate; None: it is closed to them."""

    def turn_away(self, connection: Connection, reason: str, /) -> None:
        """Somebody did not get in."""

    def forget(self, connection: Connection, /) -> None:
        """A connection is gone."""


class Connection(asyncio.Protocol):
    """One connection: reads a request, waits for its answer, writes it, and only then looks at the next."""

    def __init__(self, listener: Host, peer: tuple[str, int], certificate: str = "") -> None:
        self.peer = peer
        self.since = listener.loop.time()
        self.deadline = float("inf")
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._certificate = certificate
        self._tls = False
        self._request: Request | None = None
        self._in_body = False
        self._backlog = b""
        self._working = False
        self._eof = False
        self._closing = False
        self._congested = False
        self._unsent = 0
        self._held = 0

    # ------------------------------------------------------------------------------------- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The way is open, the TLS handshake done."""
        self._transport = cast(asyncio.Transport, transport)
        if tls := transport.get_extra_info("ssl_object"):
            self._tls = True
            # TR-03116-3 counts a session from its first handshake; OpenSSL resumes one for two hours.
            self.since -= max(0.0, time.time() - tls.session.time)
            if certificate := tls.getpeercert(binary_form=True):
                self._certificate = sha256(certificate).hexdigest()
        if self._listener.door_for(self._certificate) is None:
            # The handshake took it all the same: it was issued by one that is let in.
            self._listener.turn_away(self, f"its certificate {self._certificate} is not one of those chosen")
            self.abort()
        self._wait(RECEIVE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, whoever ended it."""
        self._transport = None
        self._release()
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
        return (self._working or self._backlog != b"") and not self._tls

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
                taken = request.received(data[:_PIECE])
            except ValueError:  # a length of thousands of digits
                self._refuse("400 Bad Request", "the head makes no sense")
                return
            data = data[taken:]
            if request.error:
                self._refuse(f"{request.error.code} {request.error.reason}", request.error.body)
                return
            if request.empty:
                self._request = None
                continue
            if request.headers_finished and not self._in_body and not self._enter_body(request):
                return
            if self._in_body and not self._hold(taken):
                self._refuse("503 Service Unavailable", "too many large requests at once; try again in a moment")
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

    def _hold(self, count: int) -> bool:
        """Take so many more bytes into account; False when there are too many."""
        self._held += count
        self._listener.held += count
        return self._held <= SMALL or self._listener.held <= MAX_HELD

    def _release(self) -> None:
        """What was held is not needed any more."""
        self._listener.held -= self._held
        self._held = 0

    def _refuse(self, status: str, reason: str) -> None:
        """Answer a request that cannot be understood. What follows cannot be trusted, so it is the last."""
        self._request = None
        self._release()
        if self._listener.requests:
            # The reason may quote the head.
            who = f"{self._certificate[:16] or '-'} {self.peer[0]}"
            self._listener.requests.note(f"{who} {status[:3]} {harmless(reason)}")
        self._write(answer_bytes(error_answer(status, reason), keep=False))
        self._hang_up()

    # ------------------------------------------------------------------------------------- answering it

    def _work(self, request: Request) -> None:
        listener = self._listener
        door = listener.door_for(self._certificate)
        if door is None:
            self._refuse("403 Forbidden", "this certificate is not let in any more")
            return
        self._working = True
        self.deadline = float("inf")
        environ: dict[str, Any] = environ_of(request, self.peer, listener.address, self._tls)
        environ["bridge.door"] = door
        environ["bridge.peer"] = self._certificate
        try:
            finish = listener.app.begin(environ)
        except Exception:
            logger.exception("%s %s failed to begin", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            finish = None
        finish = finish or (lambda: answer_of(listener.app, environ))
        listener.submit(lambda: self._in_worker(request, environ, finish))

    def _in_worker(self, request: Request, environ: dict[str, Any], finish: Callable[[], Answer]) -> None:
        listener = self._listener
        answer = finish()
        if listener.requests:
            listener.requests.note(line_of(environ, answer.status))
        with suppress(RuntimeError):  # the loop has ended: nobody waits for the answer any more
            listener.loop.call_soon_threadsafe(self._answered, request, answer)

    def _answered(self, request: Request, answer: Answer) -> None:
        if request.connection_close or answer.is_stream or (self._eof and not self._backlog):
            self._closing = True
        self._write(answer_bytes(answer, keep=not self._closing, head_only=request.command == "HEAD"))
        self._request = None
        self._release()
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

    def is_let_in(self) -> bool:
        """Whether the certificate it came with is still one of those chosen."""
        return self._listener.door_for(self._certificate) is not None

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
