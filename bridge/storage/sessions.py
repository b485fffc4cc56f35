"""Charging sessions on disk: one row each, in the database of the variables.

What is open is written when a session begins or ends, and every minute: about 4 kB a minute and wallbox in use, 6 MB a
day while a car is connected all day, nothing while none is. The newest :data:`KEPT` sessions stay, about 1 kB each.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import fields

from bridge.core.events import SessionsStored
from bridge.core.model import Snapshot
from bridge.core.records.session import Session, Sessions, Span

logger = logging.getLogger(__name__)

KEPT = 50_000
"""More than two years of a site with 40 wallboxes, 50 MB."""

CHECKPOINT_S = 60.0
"""A crash costs no more than this of a session that is open."""

_REMEMBERED = 500
"""Among so many sessions the last one of each wallbox is looked for at the start."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    id INTEGER PRIMARY KEY, wallbox TEXT NOT NULL, plugged_at REAL NOT NULL, ended TEXT NOT NULL, document TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_by_time ON sessions (plugged_at);
"""

_UPSERT = """
INSERT INTO sessions VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, document = excluded.document
"""

_FIND = """
SELECT document FROM sessions
WHERE ended <> '' AND plugged_at >= ? AND plugged_at < ? AND (wallbox = ? OR ? IS NULL)
ORDER BY plugged_at DESC, id DESC LIMIT ?
"""


class Keeper:
    """Knows which sessions are on disk, and when others are due. Times are those of the snapshots."""

    def __init__(self) -> None:
        self._seen = Sessions()
        self._seen_mono = float("-inf")
        self._due = 0
        """Revision of the newest snapshot whose sessions have to be written."""
        self._written = 0
        self._there: Mapping[int, Session] = {}

    def offered(self, snapshot: Snapshot) -> bool:
        """Whether the sessions of a snapshot have to be written; takes microseconds."""
        before, sessions = self._seen, snapshot.state.sessions
        if sessions is before:
            return False
        if snapshot.now.mono - self._seen_mono < CHECKPOINT_S:
            known = {session.id for session in before.unstored}
            turned = {one.id for one in sessions.open.values()} != {one.id for one in before.open.values()}
            if not turned and all(one.id in known for one in sessions.unstored):
                return False
        self.demand(snapshot)
        return True

    def demand(self, snapshot: Snapshot) -> None:
        """Have the sessions of a snapshot written, however young they are."""
        self._seen, self._seen_mono = snapshot.state.sessions, snapshot.now.mono
        self._due = snapshot.revision

    def owes(self, snapshot: Snapshot) -> bool:
        """Whether the sessions of this snapshot still have to be written."""
        return snapshot.revision >= self._due > self._written

    def write(self, database: sqlite3.Connection, snapshot: Snapshot) -> SessionsStored | None:
        """Write what has changed, in one transaction; what is to be told of sessions that have ended."""
        known = snapshot.state.sessions
        there = {session.id: session for session in (*known.open.values(), *known.unstored)}
        with database:
            database.execute("BEGIN IMMEDIATE")
            write(database, [one for id, one in there.items() if self._there.get(id) is not one])
        self._there, self._written = there, snapshot.revision
        return SessionsStored(frozenset(one.id for one in known.unstored)) if known.unstored else None


def load(database: sqlite3.Connection) -> Sessions:
    """The open sessions, the last one of each wallbox, and the highest number given so far."""
    unfinished = "SELECT document FROM sessions WHERE ended = '' ORDER BY id"
    still = {one.wallbox: one for one in _read(database.execute(unfinished))}
    newest = "SELECT document FROM sessions WHERE ended <> '' ORDER BY id DESC LIMIT ?"
    last = {one.wallbox: one for one in reversed(_read(database.execute(newest, (_REMEMBERED,))))}
    (highest,) = database.execute("SELECT max(id) FROM sessions").fetchone()
    return Sessions(still, (), last, highest or 0)


def write(database: sqlite3.Connection, sessions: Iterable[Session]) -> None:
    """Write sessions, inside the caller's transaction; the oldest go when there are too many."""
    rows = [(one.id, one.wallbox, one.plugged_at, one.ended, _document(one)) for one in sessions]
    database.executemany(_UPSERT, rows)
    if any(ended for _, _, _, ended, _ in rows):
        database.execute("DELETE FROM sessions WHERE id <= (SELECT max(id) FROM sessions) - ?", (KEPT,))


def find(database: sqlite3.Connection, wallbox: str | None, since: float, until: float, limit: int) -> list[Session]:
    """Sessions that have ended, the newest first, of cars that were connected from ``since`` to before ``until``."""
    return _read(database.execute(_FIND, (since, until, wallbox, wallbox, limit)))


def _document(session: Session) -> str:
    document = {field.name: getattr(session, field.name) for field in fields(session) if field.name != "mark"}
    return json.dumps(document, separators=(",", ":"))


def _read(rows: Iterable[tuple[str]]) -> list[Session]:
    """The sessions of rows that can be read; the others are told of and left out."""
    found = []
    for (text,) in rows:
        try:
            document = json.loads(text)
            found.append(Session(**{**document, "spans": tuple(Span(*span) for span in document["spans"])}))
        except (ValueError, TypeError, KeyError) as error:
            logger.error("a stored session is left out: %.80s: %s", text, error)
    return found
