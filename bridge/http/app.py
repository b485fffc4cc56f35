"""The Flask application: pages, metrics and the REST API. Each view hands a snapshot to a pure function beside it.

Errors leave Flask as exceptions; :mod:`bridge.http.front` turns them into answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from importlib import resources
from typing import NoReturn, Protocol

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from bridge import __version__
from bridge.core.model import Snapshot
from bridge.http import api, cnf, metrics
from bridge.http.access import HEALTH_PATH, PASSWORD_PATH, Refusal
from bridge.http.wsgi import EVENT_STREAM

HEALTHY_S = 5.0
"""A round is made every second; one that is older than this means that the hub is stuck."""

PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/api/openapi.json": ("openapi.json", "application/json"),
    "/ui/en/sim.htm": ("index.html", "text/html; charset=utf-8"),  # where known clients try out their password
}


class PasswordStore(Protocol):
    """Where the admin password is kept."""

    def set(self, password: str) -> None:
        """Replace it; ValueError when it is no good, OSError when it cannot be written."""


class Views:
    """What is shown. ``newest`` is the hub's newest snapshot, ``clock`` its monotonic clock."""

    def __init__(
        self,
        newest: Callable[[], Snapshot],
        passwords: PasswordStore,
        sources: Iterable[metrics.Source] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._newest = newest
        self._passwords = passwords
        self._sources = tuple(sources)
        self._clock = clock

    def snapshot(self) -> Response:
        """Everything the home page shows."""
        return _json(api.snapshot_of(self._newest()))

    def variables(self) -> Response:
        """All variables."""
        return _json({"variables": api.variables_of(self._newest())})

    def devices(self) -> Response:
        """All meters and wallboxes."""
        return _json(api.devices_of(self._newest()))

    def receipt(self, number: int) -> Response:
        """What came of a set."""
        found = self._newest().state.receipts.get(number)
        if found is None:
            raise Refusal(404, f"there is no receipt {number}, or it is too old to be kept")
        return _json(api.receipt_of(found))

    def events(self) -> Response:
        """The first event of a live stream; the door sends the others."""
        return Response(event_of(self._newest()), content_type=EVENT_STREAM)

    def password(self) -> Response:
        """Set the admin password."""
        document = cnf.read_json(request.get_data())
        password = document.get("password") if isinstance(document, dict) else None
        if not isinstance(password, str):
            raise Refusal(400, 'the body is {"password": "at least 8 characters"}')
        try:
            self._passwords.set(password)
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        except OSError as error:
            raise Refusal(503, f"could not be stored: {error.strerror}") from None
        return _json("ok")

    def healthz(self) -> Response:
        """Whether rounds are made and succeed; the alarm ``bridge`` is raised by a round that failed."""
        snapshot = self._newest()
        age_s = self._clock() - snapshot.now.mono
        if age_s > HEALTHY_S:
            raise Refusal(503, f"the last round was {age_s:.0f} s ago")
        if "bridge" in snapshot.decision.alarms:
            raise Refusal(503, snapshot.decision.alarms["bridge"])
        return _json("ok")

    def metrics(self) -> Response:
        """Prometheus text."""
        return Response(metrics.render(self._newest(), self._sources), content_type=metrics.CONTENT_TYPE)


def make_app(views: Views) -> Flask:
    """All routes."""
    app = Flask(__name__, static_folder=None)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.register_error_handler(HTTPException, _not_found)
    app.get(HEALTH_PATH)(views.healthz)
    app.get("/metrics")(views.metrics)
    app.get("/api/v1/snapshot")(views.snapshot)
    app.get("/api/v1/variables")(views.variables)
    app.get("/api/v1/devices")(views.devices)
    app.get("/api/v1/receipts/<int:number>")(views.receipt)
    app.get("/api/v1/events")(views.events)
    app.post(PASSWORD_PATH)(views.password)
    for path, (name, kind) in PAGES.items():
        app.get(path, endpoint=path)(_page(name, kind))
    return app


def event_of(snapshot: Snapshot) -> bytes:
    """A snapshot as a server-sent event."""
    return f"data: {api.text_of(api.snapshot_of(snapshot))}\n\n".encode()


def _json(value: object) -> Response:
    return Response(api.text_of(value), content_type="application/json")


def _page(name: str, kind: str) -> Callable[[], Response]:
    """A file of ``pages/``, read once."""
    content = resources.files("bridge.http").joinpath("pages", name).read_bytes()
    content = content.replace(b"{{version}}", __version__.encode())
    return lambda: Response(content, content_type=kind)


def _not_found(error: HTTPException) -> NoReturn:
    """Unknown paths (404) and methods (405)."""
    methods = sorted(getattr(error, "valid_methods", None) or ())
    hints = [("Allow", ", ".join(methods))] if methods else []
    raise Refusal(error.code or 500, f"{error.name}: {request.method} {request.path}", *hints) from None
