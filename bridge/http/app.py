"""The Flask application: pages, metrics and the REST API. Each view hands a snapshot to a pure function beside it.

Errors leave Flask as exceptions; :mod:`bridge.http.front` turns them into answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from itertools import islice
from typing import NoReturn, Protocol

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from bridge import __version__
from bridge.core.explain import explained
from bridge.core.formulas import FormulaError, is_name, parse
from bridge.core.model import Snapshot
from bridge.core.records.session import Session
from bridge.core.variables import Refused, bare, refuse_outside
from bridge.http import api, certificates, cnf, configuration, metrics, sessions
from bridge.http.access import HEALTH_PATH, PASSWORD_PATH, Refusal
from bridge.http.administration import Administration
from bridge.http.wsgi import EVENT_STREAM

HEALTHY_S = 5.0
"""A round is made every second; one that is older than this means that the hub is stuck."""

MAX_ENTRIES = 2000
"""Of the journal in one answer: about 1 MB."""

_HTML, _SCRIPT = "text/html; charset=utf-8", "text/javascript; charset=utf-8"
_SECTIONS = ("configuration", "certificates", "sessions", "journal", "explain")

PAGES = {
    "/": ("index.html", _HTML),
    **{f"/{name}": (f"{name}.html", _HTML) for name in _SECTIONS},
    **{f"/{name}.js": (f"{name}.js", _SCRIPT) for name in ("site", "page", *_SECTIONS)},
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/api/openapi.json": ("openapi.json", "application/json"),
    "/ui/en/sim.htm": ("index.html", _HTML),  # where known clients try out their password
}


class PasswordStore(Protocol):
    """Where the admin password is kept."""

    def set(self, password: str) -> None:
        """Replace it; ValueError when it is no good, OSError when it cannot be written."""


class Journal(Protocol):
    """Where the journal of grid commands is read."""

    def __call__(self, since: str, until: str) -> Iterable[Mapping[str, object]]:
        """The entries from one moment to another (empty: all); ValueError when one of them is none."""


class Views:
    """What is shown. ``newest`` is the hub's newest snapshot, ``clock`` its monotonic clock."""

    def __init__(
        self,
        newest: Callable[[], Snapshot],
        passwords: PasswordStore,
        sources: Iterable[metrics.Source] = (),
        clock: Callable[[], float] = time.monotonic,
        journal: Journal = lambda since, until: (),
        archive: sessions.Archive | None = None,
    ) -> None:
        self._journal = journal
        self._newest = newest
        self._passwords = passwords
        self._sources = tuple(sources)
        self._clock = clock
        self._archive = archive

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

    def explain(self) -> Response:
        """Limits and shares with their reasons, now or for the values in the query; nothing is set."""
        snapshot = self._newest()
        try:
            given = {bare(name): parse(text) for name, text in request.args.items()}
        except FormulaError as error:
            raise Refusal(400, f"{error}: give each variable a number or a formula") from None
        if wrong := [name for name in given if not is_name(name)]:
            raise Refusal(400, f"{wrong[0]!r} is no name of a variable")
        try:
            for name, formula in given.items():
                refuse_outside(snapshot.config, name, formula)
        except Refused as error:
            raise Refusal(400, str(error)) from None
        return _json(api.explanation_of(snapshot, explained(snapshot.config, snapshot.state, snapshot.now, given)))

    def journal(self) -> Response:
        """Grid commands and what came of them, the oldest first."""
        try:
            entries = self._journal(request.args.get("from", ""), request.args.get("to", ""))
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        found = list(islice(entries, MAX_ENTRIES + 1))
        head = self._newest().state.journal.head
        return _json({"entries": found[:MAX_ENTRIES], "more": len(found) > MAX_ENTRIES, "head": head})

    def sessions(self) -> Response:
        """Charging sessions, newest first."""
        return _json({"sessions": [sessions.session_of(session) for session in self._sessions()]})

    def sessions_csv(self) -> Response:
        """The same as a table."""
        text = sessions.table(self._sessions(), self._newest().now.zone)
        name = [("Content-Disposition", 'attachment; filename="sessions.csv"')]
        return Response(text, content_type="text/csv; charset=utf-8; header=present", headers=name)

    def _sessions(self) -> list[Session]:
        snapshot = self._newest()
        return sessions.found(snapshot, self._archive, sessions.wanted(request.args, snapshot.now.zone))

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


def make_app(views: Views, administration: Administration | None = None) -> Flask:
    """All routes; those of the administration where there is somebody to carry it out."""
    app = Flask(__name__, static_folder=None)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.register_error_handler(HTTPException, _not_found)
    app.get(HEALTH_PATH)(views.healthz)
    app.get("/metrics")(views.metrics)
    app.get("/api/v1/snapshot")(views.snapshot)
    app.get("/api/v1/variables")(views.variables)
    app.get("/api/v1/devices")(views.devices)
    app.get("/api/v1/receipts/<int:number>")(views.receipt)
    app.get("/api/v1/explain")(views.explain)
    app.get("/api/v1/journal")(views.journal)
    app.get("/api/v1/sessions")(views.sessions)
    app.get("/api/v1/sessions.csv")(views.sessions_csv)
    app.get("/api/v1/events")(views.events)
    app.post(PASSWORD_PATH)(views.password)
    if administration:
        configuration.add_to(app, administration.file)
        certificates.add_to(app, administration.certificates)
    for path, (name, kind) in PAGES.items():
        app.get(path, endpoint=path)(_page(path, name, kind))
    return app


def event_of(snapshot: Snapshot) -> bytes:
    """A snapshot as a server-sent event."""
    return f"data: {api.text_of(api.snapshot_of(snapshot))}\n\n".encode()


def _json(value: object) -> Response:
    return Response(api.text_of(value), content_type="application/json")


def _page(path: str, name: str, kind: str) -> Callable[[], Response]:
    """A file of ``pages/``, read once; pages have one header, in which the link to themselves is marked."""
    pages = resources.files("bridge.http").joinpath("pages")
    text = pages.joinpath(name).read_text(encoding="utf-8")
    header = pages.joinpath("header.html").read_text(encoding="utf-8").strip()
    header = header.replace(f'href="{path}"', f'href="{path}" aria-current="page"')
    content = text.replace("{{header}}", header).replace("{{version}}", __version__)
    return lambda: Response(content, content_type=kind)


def _not_found(error: HTTPException) -> NoReturn:
    """Unknown paths (404) and methods (405)."""
    methods = sorted(getattr(error, "valid_methods", None) or ())
    hints = [("Allow", ", ".join(methods))] if methods else []
    raise Refusal(error.code or 500, f"{error.name}: {request.method} {request.path}", *hints) from None
