"""Variables on disk: one writer thread, one transaction for all sets that came meanwhile.

SQLite in WAL mode with ``synchronous=FULL``: what was committed survives a power cut. A set writes only the
variables that changed, about 12 kB on the card; nothing is written while nothing is set.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from bridge.core.formulas import FormulaError, parse
from bridge.core.model import Snapshot, State, Stored, Variable
from bridge.edge import Mailbox, Post
from bridge.errors import ConfigError

logger = logging.getLogger(__name__)

RETRY_S = 5.0
"""After a failed commit (card full or gone) it is tried again this often."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS variables (key TEXT PRIMARY KEY, name TEXT, text TEXT, source TEXT, set_at REAL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER);
"""

# An upsert keeps the row, so that the variables come back in the order in which they were first set.
_UPSERT = """
INSERT INTO variables VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET text = excluded.text, source = excluded.source, set_at = excluded.set_at
"""


class StorageEdge:
    """Keeps the variables in ``folder/state.sqlite3`` and posts :class:`Stored` when they are on disk."""

    def __init__(self, folder: Path, post: Post) -> None:
        self._file = folder / "state.sqlite3"
        self._post = post
        self._mailbox = Mailbox()
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._written: Mapping[str, Variable] = {}
        self._offered = 0

    def start(self) -> None:
        """Begin to write; :meth:`load` comes first."""
        self._thread.start()

    def offer(self, snapshot: Snapshot) -> None:
        """Take notice of a snapshot; only one with a new set is of interest."""
        if snapshot.state.last_receipt > self._offered:
            self._offered = snapshot.state.last_receipt
            self._mailbox.put(snapshot)

    def stop(self) -> None:
        """Write what is left and end."""
        self._mailbox.close()
        self._thread.join(1.0)

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
        variables: dict[str, Variable] = {}
        with closing(self._open()) as database:
            for key, name, text, source, set_at in database.execute("SELECT * FROM variables ORDER BY rowid"):
                try:
                    variables[key] = Variable(name, parse(text), source, set_at)
                except FormulaError as error:
                    logger.error("the stored variable %s is left out: %r: %s", name, text, error)
            found = database.execute("SELECT value FROM counters WHERE name = 'receipt'").fetchone()
        self._written, self._offered = variables, found[0] if found else 0
        return State(variables=variables, last_receipt=self._offered, stored_receipt=self._offered)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=1.0, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(_SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _run(self) -> None:
        database: sqlite3.Connection | None = None
        owed: Snapshot | None = None
        while True:
            snapshot = self._mailbox.take(RETRY_S if owed else None) or owed
            if snapshot is None:
                break
            try:
                database = database or self._open()
                self._commit(database, snapshot)
                if owed:
                    logger.info("variables are stored again")
                owed = None
            except (sqlite3.Error, OSError) as error:
                if owed is None:
                    logger.error("variables could not be stored: %s", error)
                if database:
                    database.close()
                owed, database = snapshot, None
                self._post(Stored(snapshot.state.last_receipt, str(error)))
            if self._mailbox.closed and owed:
                break
        if database:
            database.close()

    def _commit(self, database: sqlite3.Connection, snapshot: Snapshot) -> None:
        """One transaction with the difference between what is written and what shall be."""
        variables, receipt = snapshot.state.variables, snapshot.state.last_receipt
        changed = [
            (key, v.name, v.formula.text, v.source, v.set_at)
            for key, v in variables.items()
            if self._written.get(key) is not v
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
