"""Charging sessions for callers: which ones are wanted, as JSON, and as CSV for a spreadsheet or a bill."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple, Protocol, get_args

from bridge.core.model import Snapshot
from bridge.core.records.session import Session, Why
from bridge.core.records.sessions import shown
from bridge.http.access import Refusal
from bridge.http.api import Json, instant, number

DEFAULT_LIMIT = 1000
MAX_LIMIT = 10_000
"""A year of a site with a dozen wallboxes; ``from`` and ``to`` lead further back."""

_REASONS = [why for why in get_args(Why) if why]
_EVER = (0.0, 1e11)


class Archive(Protocol):
    """Where the sessions are that have ended."""

    def sessions(self, wallbox: str | None, since: float, until: float, limit: int) -> Sequence[Session]:
        """Those of cars that came from ``since`` to before ``until`` (Unix seconds), newest first; OSError: not now."""


class Wanted(NamedTuple):
    """What is asked for. ``wallbox`` None: any."""

    wallbox: str | None
    since: float
    until: float
    limit: int


def wanted(query: Mapping[str, str], zone: tzinfo | None) -> Wanted:
    """Read ``wallbox``, ``from``, ``to`` and ``limit``; instants without an offset are local time of the site."""
    if unknown := query.keys() - {"wallbox", "from", "to", "limit"}:
        raise Refusal(400, f"{sorted(unknown)[0][:40]} is not known here; there are wallbox, from, to and limit")
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_LIMIT):
        raise Refusal(400, f"limit is a whole number from 1 to {MAX_LIMIT}")
    since, until = (_moment(query, name, ever, zone) for name, ever in zip(("from", "to"), _EVER, strict=True))
    return Wanted(query.get("wallbox"), since, until, int(limit))


def _moment(query: Mapping[str, str], name: str, ever: float, zone: tzinfo | None) -> float:
    if name not in query:
        return ever
    try:
        moment = datetime.fromisoformat(query[name])
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone or UTC)).timestamp()
    except (ValueError, OverflowError):
        example = "2026-11-22 or 2026-11-22T12:00:00%2B01:00 (a + is written %2B)"
        raise Refusal(400, f"{name}: {query[name][:40]!r} is no moment, such as {example}") from None


def found(snapshot: Snapshot, archive: Archive | None, asked: Wanted) -> list[Session]:
    """The sessions asked for, newest first: open ones, those on their way to the disk, and those on it."""
    known = snapshot.state.sessions
    recent = (*known.open.values(), *known.last.values(), *known.unstored)
    sessions = {
        session.id: session
        for session in recent
        if asked.wallbox in (None, session.wallbox) and asked.since <= session.plugged_at < asked.until
    }
    try:
        older = archive.sessions(*asked) if archive else ()
    except OSError as error:
        raise Refusal(503, f"the sessions cannot be read now: {error}") from None
    # What has ended meanwhile is newer than the snapshot.
    sessions |= {session.id: session for session in older}
    return sorted(sessions.values(), key=lambda session: (-session.plugged_at, -session.id))[: asked.limit]


def session_of(session: Session) -> Json:
    """A session as JSON."""
    spans = [
        {"at": instant(span.at), "doing": span.doing, "why": span.why or None, "energy_wh": number(round(span[3], 1))}
        for span in session.spans
    ]
    return {**shown(session, lambda utc: str(instant(utc))), "rfid": session.rfid or None, "spans": spans}


def table(sessions: Iterable[Session], zone: tzinfo | None) -> str:
    """Sessions as CSV (RFC 4180): local time with offset, decimal points, empty where nothing is known."""

    def local(utc: float) -> str:
        return datetime.fromtimestamp(utc, zone or UTC).isoformat(timespec="seconds")

    text = io.StringIO()
    names = [*shown(Session(0, "", 0.0, 0.0), local), "rfid"]
    names[names.index("pauses_s") : names.index("pauses_s") + 1] = [f"{why}_s" for why in _REASONS]
    rows = csv.DictWriter(text, names, restval="", lineterminator="\r\n")
    rows.writeheader()
    for session in sessions:
        row = {**shown(session, local), "estimated": str(session.estimated).lower(), "rfid": _harmless(session.rfid)}
        del row["pauses_s"]
        rows.writerow(row | {f"{why}_s": number(round(seconds)) for why, seconds in session.pauses.items()})
    return text.getvalue()


def _harmless(text: str) -> str:
    """A text of a device that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text
