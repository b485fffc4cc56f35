"""Where the journal really ends, found out when it is opened: after a power cut, a full disk, or somebody's visit.

What was written behind the head and continues the chain is kept. What does not – half a line, a hole – was never
confirmed to anybody: it is set aside in a file of its own and noted. When the head itself cannot be found, entries are
missing or were changed: that is noted as ``broken`` for good, and the chain goes on with what there is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bridge.storage import chain
from bridge.storage.chain import Broken, Line, Position
from bridge.storage.files import Head, months_of, overwrite

logger = logging.getLogger(__name__)

_TAIL = chain.BUDGET + 1_000_000
"""So much of the newest file is looked at: all that was written today."""

Note = tuple[str, Mapping[str, object]]
"""Kind and facts of an entry that tells what was found."""


class Found(NamedTuple):
    """Where the chain ends, in which month, and what has to be noted."""

    end: Position
    month: str
    notes: Sequence[Note]


def recovered(state_dir: Path, head: Head | None, stamp: str) -> Found:
    """Look at the newest month, and set aside what is not of the chain. ``stamp`` names such files.

    Raises OSError when that cannot be done.
    """
    months = months_of(state_dir)
    if not months:
        if head == Head():
            return Found(Position(), "", [])
        return Found(Position(*(head or Head())), "", [_broken(head, None)])
    path = months[-1]
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        offset = file.seek(max(0, size - _TAIL))
        if offset:
            offset += len(file.readline())
        raw = file.read()
    *lines, _ = raw.split(b"\n")
    read = [_read(line) for line in lines]
    if not any(read):
        aside = path.rename(path.with_name(_aside_name(path, stamp)))
        found = recovered(state_dir, head, stamp)
        return found._replace(notes=[*found.notes, _torn(path, size, aside.name)])
    kept, end, broken = _walked(read, head, whole=not offset)
    length = sum(len(line) + 1 for line in lines[:kept])
    notes = [_broken(head, end)] if broken else []
    if length < len(raw):
        notes.append(_aside(path, offset + length, raw[length:], stamp))
    today = [line for line, known in zip(lines[:kept], read, strict=False) if known and _day(known) == end.day]
    return Found(replace(end, written=sum(len(line) + 1 for line in today)), path.stem, notes)


def _walked(read: Sequence[Line | None], head: Head | None, whole: bool) -> tuple[int, Position, bool]:
    """How many lines stay, where the chain ends with them, and whether it is broken there."""
    for number, line in enumerate(read):
        if line and head == (line["seq"], line["hash"]):
            return *_followed(read, number + 1, _at(line)), False
    if whole and head and read[0] and chain.follows(Position(*head), read[0]):
        # The head is in the month before: all of this one was written behind it.
        return *_followed(read, 0, Position(*head)), False
    last = [line for line in read if line][-1]
    return len(read), _at(last), True


def _followed(read: Sequence[Line | None], start: int, end: Position) -> tuple[int, Position]:
    """The lines behind the head that continue the chain, and its end with them."""
    kept = start
    for line in read[start:]:
        if line is None or not chain.follows(end, line):
            break
        end = _at(line)
        kept += 1
    return kept, end


def _at(line: Line) -> Position:
    return replace(chain.after(Position(), line), day=_day(line))


def _day(line: Line) -> str:
    return str(line["at"])[:10]


def _read(line: bytes) -> Line | None:
    try:
        return chain.opened(line)
    except Broken:
        return None


def _broken(head: Head | None, end: Position | None) -> Note:
    expected = f"{head.seq} {head.hash}" if head else "the head is missing"
    found = f"{end.seq} {end.hash}" if end else "no entries"
    logger.error("the journal is not as it was written: expected %s, found %s", expected, found)
    return "broken", {"expected": expected, "found": found}


def _aside(path: Path, offset: int, raw: bytes, stamp: str) -> Note:
    """Move the end of a file into one of its own."""
    name = _aside_name(path, stamp)
    overwrite(path.with_name(name), raw)
    with open(path, "r+b") as file:
        file.truncate(offset)
        os.fsync(file.fileno())
    return _torn(path, len(raw), name)


def _aside_name(path: Path, stamp: str) -> str:
    return f"{path.stem}.{stamp}.torn"


def _torn(path: Path, size: int, name: str) -> Note:
    logger.warning("the last %d bytes of %s are no entries (a power cut?): kept as %s", size, path, name)
    return "torn", {"bytes": size, "kept_as": name}
