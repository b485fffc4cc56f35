"""The journal on disk: only ever appended to, one chained line an entry, the head after it.

The head says where the chain ends, so that missing newest lines are noticed, too. It is written when the lines are on
disk: it may lag behind them by one batch, never be ahead. One visit to the disk takes all entries that wait. It costs
about 10 kB on a card: a page and the file system's own journal, for the lines and for the head.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import tzinfo
from itertools import groupby
from pathlib import Path

from bridge import __version__
from bridge.core.events import Journaled
from bridge.core.records.journal import ROUTINE, Entry, Journal, instant
from bridge.storage import chain
from bridge.storage.chain import Broken, Position
from bridge.storage.files import Head, folder_of, months_of, read_head, sync_folder, write_head
from bridge.storage.recovery import recovered

logger = logging.getLogger(__name__)

_TIME_ERROR = 5
"""What adjtimex(2) answers when nobody keeps the clock right."""
KEPT_MONTHS = 25
"""A month goes when there are so many younger ones. The newest has only begun, so 24 whole ones stay: two years after
the measure (BK6-22-300, Anlage 1, 7.3). Counted in files: a clock that jumps to 2040 removes nothing."""


class JournalFiles:
    """Appends entries, in the one thread that writes to the disk. ``now`` is the wall clock, ``zone`` of the site."""

    def __init__(self, state_dir: Path, now: Callable[[], float], zone: tzinfo | None = None) -> None:
        self._state_dir = state_dir
        self._now = now
        self._zone = zone
        self._end = Position()
        self._month = ""
        self._through = 0
        self._file: int | None = None
        self._failed = False

    def begin(self) -> Journal:
        """Open the journal and note the start. A disk that fails is told in the answer, and tried again later."""
        try:
            self._open()
            self._note("start", {"version": __version__})
            self._prune()
        except OSError as error:
            self._fail(error)
            return Journal(error=str(error))
        return Journal(event=self._end.event, head=self._head)

    def take(self, journal: Journal) -> Journaled | None:
        """Write what waits; None when nothing does. Never raises: what could not be written is tried again later."""
        waiting = journal.outbox[max(0, self._through + 1 - journal.first) :]
        if not waiting and not self._failed:
            return None
        try:
            if self._file is None or os.fstat(self._file).st_nlink == 0:
                self._open()
            month = self._month
            # Order is what counts: a clock that goes back does not lead back to an older file.
            for its_month, entries in groupby(waiting, lambda entry: max(self._month, instant(entry.utc)[:7])):
                self._through += self._append(its_month, [*entries])
            self._mark()
            if month != self._month:
                self._prune()
        except OSError as error:
            self._fail(error)
            return Journaled(self._through, self._head, str(error))
        if self._failed:
            logger.info("the journal is written again")
            self._failed = False
        return Journaled(self._through, self._head)

    def end(self) -> None:
        """Note that the bridge stops."""
        with suppress(OSError):
            if self._file is not None:
                self._note("stop", {})
        self._close()

    @property
    def _head(self) -> str:
        return f"{self._end.seq} {self._end.hash}"

    def _open(self) -> None:
        """Find the end of the chain, and note what is wrong with it."""
        self._close()
        folder_of(self._state_dir).mkdir(exist_ok=True, mode=0o700)
        # What this very process wrote last is known better than the disk knows it.
        head = Head(self._end.seq, self._end.hash) if self._end.seq else read_head(self._state_dir)
        if head is None and not months_of(self._state_dir):
            # From now on a missing head means that somebody removed it.
            head = Head()
            write_head(self._state_dir, head)
        found = recovered(self._state_dir, head, f"{self._now():.0f}")
        self._end, self._month = found.end, found.month
        for kind, facts in found.notes:
            self._note(kind, facts)

    def _note(self, kind: str, facts: Mapping[str, object]) -> None:
        """Write an entry of the journal's own."""
        utc = self._now()
        self._append(max(self._month, instant(utc)[:7]), [Entry(kind, utc, self._zone, facts)])
        self._mark()

    def _append(self, month: str, entries: Sequence[Entry]) -> int:
        """Append entries to a month and wait until they are on disk, all of them or none; how many there were."""
        end, lines, clock = self._end, b"", synchronised()
        for entry in entries:
            facts = entry.facts if entry.kind in ROUTINE else {**entry.facts, "synchronised": clock}
            end, more = chain.extended(end, entry.kind, entry.utc, entry.zone, facts)
            lines += more
        if month != self._month or self._file is None:
            self._close()
            self._file = _opened(folder_of(self._state_dir) / f"{month}.jsonl")
        size = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(lines):
                written += os.write(self._file, lines[written:])
            os.fdatasync(self._file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, size)
            raise
        self._end, self._month = end, month
        return len(entries)

    def _mark(self) -> None:
        write_head(self._state_dir, Head(self._end.seq, self._end.hash))

    def _prune(self) -> None:
        """Remove months that need not be kept any longer. Where the chain begins from then on is an entry itself."""
        old = months_of(self._state_dir)[:-KEPT_MONTHS]
        if not old:
            return
        try:
            last = chain.opened(old[-1].read_bytes().splitlines()[-1])
        except (Broken, IndexError):
            logger.error("%s is kept: its last line cannot be read", old[-1])
            return
        months = [path.stem for path in old]
        self._note("pruned", {"through": last["seq"], "through_hash": last["hash"], "months": months})
        for path in old:
            path.unlink()
        logger.info("the journal of %s is removed: it was kept for two years", ", ".join(months))

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            logger.error("the journal cannot be written: %s", error)
        self._failed = True
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _opened(path: Path) -> int:
    new = not path.exists()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    if new:
        sync_folder(path.parent)
    return file


def synchronised() -> bool | None:
    """Whether the kernel believes that the clock is kept right from outside (adjtimex(2)); None: it does not say."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR
