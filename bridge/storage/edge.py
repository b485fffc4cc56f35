"""Variables, sessions and journal on disk: one writer thread, one transaction for all sets that came meanwhile.

SQLite in WAL mode with ``synchronous=FULL``: what was committed survives a power cut. A set writes only the
variables that changed, about 12 kB on the card; nothing is written while nothing is set. The journal comes first, so
that each command that was answered "ok" is in it; when it cannot be written, variables are stored all the same.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import tzinfo
from pathlib import Path
from typing import Any

from bridge.core.events import Stored
from bridge.core.formulas import FormulaError, parse
from bridge.core.model import Snapshot, State, Variable
from bridge.core.records.session import Session
from bridge.edge import Mailbox, Post
from bridge.errors import ConfigError
from bridge.storage import sessions
from bridge.storage.journal import JournalFiles

logger = logging.getLogger(__name__)

FILE = "state.sqlite3"

RETRY_S = 5.0
"""After a failed commit (card full or gone) it is tried again this often."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS variables
    (key TEXT PRIMARY KEY, name TEXT, text TEXT, source TEXT, set_at REAL, until REAL, expired INTEGER,
    under_text TEXT, under_source TEXT, under_set_at REAL, under_until REAL, under_expired INTEGER);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER);
"""

_COLUMNS = (
    "key, name, text, source, set_at, until, expired, "
    "under_text, under_source, under_set_at, under_until, under_expired"
)
_SELECT = f"SELECT {_COLUMNS} FROM variables ORDER BY rowid"

# An upsert keeps the row, so that the variables come back in the order in which they were first set.
_UPSERT = f"""
INSERT INTO variables ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET text = excluded.text, source = excluded.source, set_at = excluded.set_at,
    until = excluded.until, expired = excluded.expired, under_text = excluded.under_text,
    under_source = excluded.under_source, under_set_at = excluded.under_set_at,
    under_until = excluded.under_until, under_expired = excluded.under_expired
"""

_ADDED = (
    ("until", "REAL"),
    ("expired", "INTEGER"),
    ("under_text", "TEXT"),
    ("under_source", "TEXT"),
    ("under_set_at", "REAL"),
    ("under_until", "REAL"),
    ("under_expired", "INTEGER"),
)
"""Columns that a file of an older version does not have yet."""


class StorageEdge:
    """Keeps the variables in ``folder/state.sqlite3`` and posts :class:`Stored` when they are on disk; the same for the
    journal and :class:`~bridge.core.events.Journaled`. ``zone`` is that of the site."""

    def __init__(self, folder: Path, post: Post, zone: tzinfo | None = None) -> None:
        self._file = folder / FILE
        self._post = post
        self._mailbox = Mailbox()
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._database: sqlite3.Connection | None = None
        self._failed = False
        self._written: Mapping[str, Variable] = {}
        self._offered: Mapping[str, Variable] = {}
        self._journal = JournalFiles(folder, time.time, zone)
        self._noted = 0
        self._sessions = sessions.Keeper()
        self._newest: Snapshot | None = None

    def start(self) -> None:
        """Begin to write; :meth:`load` comes first."""
        self._thread.start()

    def offer(self, snapshot: Snapshot) -> None:
        """Take notice of a snapshot; of interest is one in which variables were set, or have expired, and one that has
        something for the journal."""
        state = snapshot.state
        self._newest = snapshot
        due = self._sessions.offered(snapshot)
        if due or state.variables is not self._offered or state.journal.due > self._noted:
            self._offered, self._noted = state.variables, state.journal.due
            self._mailbox.put(snapshot)

    def stop(self) -> None:
        """Write what is left, and how far open sessions have come, and end."""
        if self._newest:
            self._sessions.demand(self._newest)
            self._mailbox.put(self._newest)
        self._mailbox.close()
        self._thread.join(1.0)

    def sessions(self, wallbox: str | None, since: float, until: float, limit: int) -> Sequence[Session]:
        """Charging sessions that have ended, the newest first, of cars that came from ``since`` to before ``until``.

        Unix seconds; any wallbox when None. For any thread. Raises OSError when the file cannot be read.
        """
        try:
            with closing(self._open()) as database:
                return sessions.find(database, wallbox, since, until, limit)
        except sqlite3.Error as error:
            raise OSError(f"{self._file} cannot be read: {error}") from error

    def load(self) -> State:
        """What was known before the restart. A file that is damaged is set aside, never deleted.

        Raises :class:`ConfigError` when the file cannot be used at all (no rights, card full, folder gone).
        """
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return self._load()
        except (sqlite3.OperationalError, OSError) as error:
            raise ConfigError([f"{self._file} cannot be used: {error}"]) from error
        except sqlite3.DatabaseError as error:
            aside = self._file.with_suffix(f".unreadable-{int(time.time())}")
            logger.error("%s cannot be read (%s): kept as %s, starting without variables", self._file, error, aside)
            self._file.rename(aside)
            return self._load()

    def _load(self) -> State:
        with closing(self._open()) as database:
            variables = _variables(database)
            found = database.execute("SELECT value FROM counters WHERE name = 'receipt'").fetchone()
            known = sessions.load(database)
        self._written = self._offered = variables
        receipt = found[0] if found else 0
        journal = self._journal.begin()
        return State(variables=variables, last_receipt=receipt, stored_receipt=receipt, journal=journal, sessions=known)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=1.0, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(_SCHEMA + sessions.SCHEMA)
            there = {name for _, name, *_ in database.execute("PRAGMA table_info(variables)")}
            for name, kind in _ADDED:
                if name not in there:
                    database.execute(f"ALTER TABLE variables ADD COLUMN {name} {kind}")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _run(self) -> None:
        newest: Snapshot | None = None
        owing = False
        while True:
            snapshot = self._mailbox.take(RETRY_S if owing else None)
            if snapshot is None and not owing:
                break
            newest = snapshot or newest
            if newest:
                noted, stored = self._note(newest), self._store(newest)
                owing = not (noted and stored)
            if self._mailbox.closed and owing:
                break
        self._close()
        self._journal.end()

    def _note(self, snapshot: Snapshot) -> bool:
        """Write what waits for the journal; whether nothing is left."""
        answer = self._journal.take(snapshot.state.journal)
        if answer:
            self._post(answer)
        return not (answer and answer.error)

    def _store(self, snapshot: Snapshot) -> bool:
        """Store what was set, and the sessions that are due; whether nothing is left."""
        unwritten = snapshot.state.variables is not self._written
        if not unwritten and not self._sessions.owes(snapshot):
            return True
        try:
            self._database = self._database or self._open()
            if unwritten:
                self._commit(self._database, snapshot)
            if self._sessions.owes(snapshot) and (answer := self._sessions.write(self._database, snapshot)):
                self._post(answer)
        except (sqlite3.Error, OSError) as error:
            if not self._failed:
                logger.error("variables and sessions could not be stored: %s", error)
            self._failed = True
            self._close()
            if snapshot.state.variables is not self._written:
                self._post(Stored(snapshot.state.last_receipt, str(error)))
            return False
        if self._failed:
            logger.info("variables and sessions are stored again")
            self._failed = False
        return True

    def _close(self) -> None:
        if self._database:
            self._database.close()
            self._database = None

    def _commit(self, database: sqlite3.Connection, snapshot: Snapshot) -> None:
        """One transaction with the difference between what is written and what shall be."""
        variables, receipt = snapshot.state.variables, snapshot.state.last_receipt
        changed = [
            (key, variable.name, *_values(variable), *(_values(variable.under) if variable.under else _NOTHING))
            for key, variable in variables.items()
            if self._written.get(key) is not variable
        ]
        gone = [(key,) for key in self._written.keys() - variables.keys()]
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany(_UPSERT, changed)
            database.executemany("DELETE FROM variables WHERE key = ?", gone)
            database.execute("INSERT OR REPLACE INTO counters VALUES ('receipt', ?)", (receipt,))
            database.execute("COMMIT")
        except sqlite3.Error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        self._written = variables
        self._post(Stored(receipt))


def _variables(database: sqlite3.Connection) -> dict[str, Variable]:
    variables: dict[str, Variable] = {}
    for key, name, *values in database.execute(_SELECT):
        try:
            under = _variable(name, values[5:]) if values[5] is not None else None
            variables[key] = replace(_variable(name, values[:5]), under=under)
        except FormulaError as error:
            logger.error("the stored variable %s is left out: %r: %s", name, values[0], error)
    return variables


_NOTHING = (None,) * 5


def _values(variable: Variable) -> tuple[object, ...]:
    """What is stored of a variable beside its name; :func:`_variable` makes it again."""
    return variable.formula.text, variable.source, variable.set_at, variable.until, variable.expired


def _variable(name: str, values: Sequence[Any]) -> Variable:
    text, source, set_at, until, expired = values
    return Variable(name, parse(text), source, set_at, until, None, bool(expired))


def peek(folder: Path) -> Mapping[str, Variable]:
    """The variables on disk, for somebody who only wants to look; none where there are none to be read."""
    try:
        # Only an absolute path can be told as a URI, and only a URI asks for reading alone.
        file = (folder / FILE).absolute().as_uri()
        with closing(sqlite3.connect(f"{file}?mode=ro", uri=True, timeout=1.0)) as database:
            return _variables(database)
    except sqlite3.Error:
        return {}
