"""What every request meets first: the rules of its door, and ``/cnf``, whose way to the hub is kept short.

A grid command shall reach the wallboxes within a millisecond, so it does not take the way through Flask, which serves
everything else (:mod:`bridge.http.app`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Protocol

from bridge.core.model import Event, SetVariables, Snapshot
from bridge.http import api, cnf
from bridge.http.access import Access, Refusal
from bridge.http.wsgi import App, Headers

STORE_S = 5.0
"""How long a set may take to get to the disk before it counts as not stored."""

MAX_WAITING = 8
"""Requests that wait for wallboxes at the same time; the other workers stay free."""

SECURITY: Headers = [
    ("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]


class Hub(Protocol):
    """What is needed of the hub."""

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""

    def ask(self, event: Event, /) -> Snapshot:
        """Tell what happened and wait for the snapshot in which it is in force; TimeoutError when there is none."""

    def until(self, holds: Callable[[Snapshot], bool], timeout_s: float, /) -> Snapshot | None:
        """Wait for a snapshot of which ``holds`` is true; None when the time is up."""


class Front:
    """A WSGI application: checks who asks, answers ``/cnf``, and hands everything else on to ``rest``."""

    def __init__(self, hub: Hub, access: Access, rest: App) -> None:
        self._hub = hub
        self._access = access
        self._rest = rest
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request. A refusal, wherever it comes from, is a JSON text with the reason."""

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            return start_response(status, headers + SECURITY, exc_info)

        try:
            self._access.check(environ)
            if environ["PATH_INFO"] != "/cnf":
                return self._rest(environ, start)
            answer, hints = self._cnf(environ)
            status = "200 OK"
        except Refusal as refusal:
            answer, hints = str(refusal), list(refusal.hints)
            status = f"{refusal.status} {HTTPStatus(refusal.status).phrase}"
        start(status, [("Content-Type", "application/json"), *hints])
        return [api.text_of(answer).encode()]

    def _cnf(self, environ: dict[str, Any]) -> tuple[object, Headers]:
        """Set or read variables: the answer and its headers."""
        if environ["REQUEST_METHOD"] not in ("GET", "POST"):
            raise Refusal(405, "use GET or POST", ("Allow", "GET, POST"))
        query = cnf.query_of(environ["QUERY_STRING"])
        body = environ["wsgi.input"].read() if "CONTENT_LENGTH" in environ else b""
        call = cnf.Call(query, body, environ["bridge.door"].source, self._hub.snapshot)
        confirm_s = call.confirm_s()
        result = cnf.run(call)
        if not isinstance(result, SetVariables):
            return result, []
        number = self._set(result)
        if confirm_s is not None:
            self._confirmed(number, confirm_s)
        return "ok", [("X-Receipt", str(number))]

    def _set(self, event: SetVariables) -> int:
        """Have the set in force and on disk; returns the number of its receipt."""
        try:
            receipt = self._hub.ask(event).state.receipt_of(event)
        except TimeoutError as error:
            raise Refusal(503, f"not accepted: {error}") from None
        if receipt is None:
            raise Refusal(503, "not accepted: there is no receipt for it")
        number = receipt.id

        def decided(snapshot: Snapshot) -> bool:
            found = snapshot.state.receipts.get(number)
            return snapshot.state.stored_receipt >= number or (found is not None and found.error != "")

        snapshot = self._hub.until(decided, STORE_S)
        if snapshot is None:
            raise Refusal(503, f"in force, but not stored within {STORE_S:g} s: a restart may lose it")
        found = snapshot.state.receipts.get(number)
        if found is not None and found.error:
            raise Refusal(503, f"in force, but not stored: {found.error}")
        return number

    def _confirmed(self, number: int, seconds: float) -> None:
        """Wait until every wallbox has confirmed, but not longer than ``seconds``."""
        if not self._waiting.acquire(blocking=False):
            raise Refusal(503, f"set (receipt {number}), but {MAX_WAITING} requests wait for wallboxes already")
        try:
            self._hub.until(lambda snapshot: api.is_settled(snapshot.state.receipts.get(number)), seconds)
        finally:
            self._waiting.release()
