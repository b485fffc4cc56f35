"""What every request meets first: the rules of its door, and ``/cnf``, whose way to the hub is kept short.

A grid command shall reach the wallboxes within a millisecond, so it does not take the way through Flask, which serves
everything else (:mod:`bridge.http.app`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Protocol

from bridge.core.events import Event, Override, SetVariables
from bridge.core.model import Snapshot
from bridge.http import api, cnf, feed
from bridge.http.access import Access, Door, Refusal
from bridge.http.wsgi import Answer, App, Headers

STORE_S = 5.0
"""How long a set may take to get to the disk before it counts as not stored."""

MAX_WAITING = 8
"""Requests that wait for wallboxes at the same time; the other workers stay free."""

MAX_AT_ONCE = 4096
"""Bytes of a body that are read on the spot; reading a longer one takes its time."""

Document = tuple[object, Headers]
"""What a command answers, and headers beside it."""

SECURITY: Headers = [
    ("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]


class Hub(feed.Hub, Protocol):
    """What is needed of the hub."""

    def ask_now(self, event: Event, /) -> Snapshot | None:
        """The same on the spot, without waiting; None: it cannot be had now, and nothing has happened."""

    def until(self, holds: Callable[[Snapshot], bool], timeout_s: float, /) -> Snapshot | None:
        """Wait for a snapshot of which ``holds`` is true; None when the time is up."""


class Front:
    """A WSGI application: checks who asks, answers ``/cnf``, and hands everything else on to ``rest``."""

    def __init__(self, hub: Hub, access: Access, rest: App, clock: Callable[[], float] = time.monotonic) -> None:
        self._hub = hub
        self._feeder = feed.Feeder(hub, clock)
        self._access = access
        self._rest = rest
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request; whatever is not ``/cnf`` goes on to ``rest``."""

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            return start_response(status, headers + SECURITY, exc_info)

        try:
            self._access.check(environ)
            if environ["PATH_INFO"] != "/cnf":
                return self._rest(environ, start)
            call = self._call(environ)
            answer = _answer(lambda: self._carried_out(environ, call))
        except Refusal as refusal:
            answer = _refused(refusal)
        start_response(answer.status, answer.headers)
        return [answer.body]

    def begin(self, environ: dict[str, Any]) -> Callable[[], Answer] | None:
        """Bring a set into force right here, if that needs no waiting: no other thread has to wake up for it.

        What is returned then waits for the disk and answers; None: nothing has happened, call the application.
        """
        if environ["PATH_INFO"] != "/cnf" or int(environ.get("CONTENT_LENGTH", 0)) > MAX_AT_ONCE:
            return None
        try:
            if not self._access.lets_in_at_once(environ):
                return None
            call = self._call(environ)
            event = cnf.run(call)
        except Refusal:
            return None  # the application comes to the same end, and says so
        snapshot = self._hub.ask_now(event) if isinstance(event, SetVariables) else None
        if snapshot is None or not isinstance(event, SetVariables):
            return None
        environ["bridge.set"] = event
        return lambda: _answer(lambda: self._followed(event, snapshot, call.confirm_s()))

    def _call(self, environ: dict[str, Any]) -> cnf.Call:
        if environ["REQUEST_METHOD"] not in ("GET", "POST"):
            raise Refusal(405, "use GET or POST", ("Allow", "GET, POST"))
        query = cnf.query_of(environ["QUERY_STRING"])
        door: Door = environ["bridge.door"]
        command = query.get("cmd", "")
        if command in cnf.COMMANDS and not door.runs(command):
            raise Refusal(403, f"the {door.name} door, role {door.role}, does not lead to {command}")
        body = b""
        if "CONTENT_LENGTH" in environ:
            environ["wsgi.input"].seek(0)
            body = environ["wsgi.input"].read()
        call = cnf.Call(query, body, door.source, self._hub.snapshot, environ["bridge.peer"])
        call.confirm_s()
        return call

    def _carried_out(self, environ: dict[str, Any], call: cnf.Call) -> Document:
        """Set or read variables, or be told of a device: the answer and its headers."""
        result = cnf.run(call)
        if isinstance(result, feed.Fed):
            return self._feeder.take(result), []
        if not isinstance(result, SetVariables | Override):
            return result, []
        if isinstance(result, SetVariables):
            environ["bridge.set"] = result
        try:
            snapshot = self._hub.ask(result)
        except TimeoutError as error:
            raise Refusal(503, f"not accepted: {error}") from None
        if isinstance(result, Override):
            return "ok", []
        return self._followed(result, snapshot, call.confirm_s())

    def _followed(self, event: SetVariables, snapshot: Snapshot, confirm_s: float | None) -> Document:
        """Wait until a set that is in force in ``snapshot`` is on disk, and for the wallboxes if that is wanted."""
        receipt = snapshot.state.receipt_of(event)
        if receipt is None:
            raise Refusal(503, "not accepted: there is no receipt for it")
        self._stored(receipt.id)
        if confirm_s is not None:
            self._confirmed(receipt.id, confirm_s)
        return "ok", [("X-Receipt", str(receipt.id))]

    def _stored(self, number: int) -> None:
        """Wait until the set of receipt ``number`` is on disk."""

        def decided(snapshot: Snapshot) -> bool:
            found = snapshot.state.receipts.get(number)
            return snapshot.state.stored_receipt >= number or (found is not None and found.error != "")

        snapshot = self._hub.until(decided, STORE_S)
        if snapshot is None:
            raise Refusal(503, f"in force, but not stored within {STORE_S:g} s: a restart may lose it")
        found = snapshot.state.receipts.get(number)
        if found is not None and found.error:
            raise Refusal(503, f"in force, but not stored: {found.error}")

    def _confirmed(self, number: int, seconds: float) -> None:
        """Wait until every wallbox has confirmed, but not longer than ``seconds``."""
        if not self._waiting.acquire(blocking=False):
            raise Refusal(503, f"set (receipt {number}), but {MAX_WAITING} requests wait for wallboxes already")
        try:
            self._hub.until(lambda snapshot: api.is_settled(snapshot.state.receipts.get(number)), seconds)
        finally:
            self._waiting.release()


def _answer(produce: Callable[[], Document]) -> Answer:
    """What was produced, or the reason why it was not, as an answer."""
    try:
        document, hints = produce()
    except Refusal as refusal:
        return _refused(refusal)
    return _json("200 OK", document, hints)


def _refused(refusal: Refusal) -> Answer:
    """A refusal, wherever it comes from: a JSON text with the reason."""
    return _json(f"{refusal.status} {HTTPStatus(refusal.status).phrase}", str(refusal), list(refusal.hints))


def _json(status: str, document: object, hints: Headers) -> Answer:
    headers = [("Content-Type", "application/json"), *hints, *SECURITY]
    return Answer(status, headers, api.text_of(document).encode())
