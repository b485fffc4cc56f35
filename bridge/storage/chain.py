"""The chain: each line of the journal carries the hash of the line before it, so that none can be changed unnoticed.

A line is one JSON object in its canonical form (keys sorted, no spaces, ASCII). ``hash`` is the SHA-256 of the
canonical form of everything else, ``prev`` the hash of the line before, ``seq`` counts from 1. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from hashlib import sha256

from bridge.core.records.journal import ROUTINE, instant

GENESIS = "0" * 64
"""What the first line names as the hash before it."""

Line = Mapping[str, object]
"""A line of the journal, read: ``seq``, ``prev``, ``hash``, ``at``, ``local``, ``kind`` and its facts."""

BUDGET = 4_000_000
"""Bytes a day. What comes beyond is counted and told, once when it begins and once when the day is over."""
ROUTINE_BUDGET = 3_000_000


class Broken(ValueError):
    """A line is not what was written; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a chain ends: number and hash of its last line, and the grid event that is open there.

    ``day`` is the day that is being written, ``written`` its bytes so far, ``left_out`` what found no room in it.
    """

    seq: int = 0
    hash: str = GENESIS
    event: str = ""
    day: str = ""
    written: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


def extended(
    at: Position, kind: str, utc: float, zone: tzinfo | None, facts: Mapping[str, object]
) -> tuple[Position, bytes]:
    """The chain with one more entry: its new end, and the lines to write; none when the day's budget is used up."""
    moment = datetime.fromtimestamp(utc, UTC)
    day = moment.date().isoformat()
    lines = b""
    if day != at.day:
        if at.left_out:
            at, lines = _with(at, "dropped", moment, zone, {"why": f"budget of {at.day}", "kinds": at.left_out})
        at = replace(at, day=day, written=len(lines), left_out={})
    full, line = _with(at, kind, moment, zone, facts)
    if full.written <= (ROUTINE_BUDGET if kind in ROUTINE else BUDGET):
        return full, lines + line
    if not at.left_out:
        why = f"{BUDGET} bytes a day are used up; what is left out from here is counted"
        at, line = _with(at, "dropped", moment, zone, {"why": why, "kinds": {}})
        lines += line
    return replace(at, left_out={**at.left_out, kind: at.left_out.get(kind, 0) + 1}), lines


def _with(
    at: Position, kind: str, moment: datetime, zone: tzinfo | None, facts: Mapping[str, object]
) -> tuple[Position, bytes]:
    if at.event and "event" not in facts:
        facts = {**facts, "event": at.event}
    times = {
        "at": instant(moment.timestamp()),
        "local": moment.astimezone(zone or UTC).isoformat(timespec="milliseconds"),
    }
    content = {**facts, **times, "kind": kind, "seq": at.seq + 1, "prev": at.hash}
    digest = sha256(canonical(content)).hexdigest()
    line = canonical({**content, "hash": digest}) + b"\n"
    return replace(at, seq=at.seq + 1, hash=digest, event=open_event(content), written=at.written + len(line)), line


def open_event(line: Line) -> str:
    """The grid event that is open after a line."""
    return "" if line["kind"] == "release" else str(line.get("event", ""))


def canonical(document: Line) -> bytes:
    """The one way to write a document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def opened(raw: bytes) -> Line:
    """Read one line without its end; raises :class:`Broken`. Whether it stands in its place, :func:`follows` tells."""
    try:
        line = json.loads(raw)
    except ValueError:
        raise Broken("is not JSON") from None
    if not isinstance(line, dict):
        raise Broken("is not an entry")
    content = {key: value for key, value in line.items() if key != "hash"}
    try:
        whole = canonical(line) == raw and isinstance(line["seq"], int) and sha256(canonical(content)).hexdigest()
        kept = line["hash"], line["prev"], line["at"], line["kind"]
    except (KeyError, ValueError) as error:
        raise Broken(f"is not an entry: {error}") from None
    if whole != kept[0] or not all(isinstance(text, str) for text in kept):
        raise Broken(f"entry {line['seq']} was edited: it does not have its hash any more")
    return line


def follows(before: Position, line: Line) -> bool:
    """Whether a line is the next one of the chain."""
    return line["seq"] == before.seq + 1 and line["prev"] == before.hash


def after(before: Position, line: Line) -> Position:
    """Where the chain ends with this line."""
    return replace(before, seq=int(str(line["seq"])), hash=str(line["hash"]), event=open_event(line))
