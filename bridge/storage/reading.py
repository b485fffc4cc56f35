"""Reading the journal back: a span of it, as rows for a spreadsheet, or grouped by grid event."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from bridge.core.records.journal import instant
from bridge.storage import chain
from bridge.storage.chain import Broken, Line
from bridge.storage.files import months_of

COLUMNS = (
    *("seq", "at", "local", "event", "kind", "receipt", "source", "peer", "variables", "limits", "state"),
    *("minimum_w", "below_minimum", "how", "after_s", "grid_w", "grid_max_w", "controllable_w", "controllable_max_w"),
    *("attributed_w", "estimated", "wallbox", "wanted_a", "confirmed_a", "confirmed_at", "more", "hash"),
)


def moment(text: str, ends: bool = False) -> str:
    """A point in time as the journal writes it. Without an offset it is local time; a bare day is its beginning, or
    with ``ends`` its end. Raises ValueError that says what is allowed."""
    try:
        point = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text}: a day or a time is expected, such as 2026-11-22 or 2026-11-22T12:00") from None
    if ends and re.fullmatch(r"[\d-]+", text):
        point += timedelta(days=1)
    return instant(point.astimezone(UTC).timestamp())


def span(state_dir: Path, since: str, until: str) -> Iterator[Line]:
    """The entries from one moment to another, as people write them; empty: all from the first, all to the last.

    Lines that cannot be read are left out: finding them is what verifying is for. Raises ValueError that says what is
    allowed.
    """
    return _entries(state_dir, moment(since) if since else "", moment(until, ends=True) if until else "~")


def _entries(state_dir: Path, since: str, until: str) -> Iterator[Line]:
    for path in months_of(state_dir):
        # Entries may stand in a younger month than their own, after a clock went back; never in an older one.
        if path.stem < since[:7]:
            continue
        with open(path, "rb") as file:
            for raw in file:
                try:
                    line = chain.opened(raw.rstrip(b"\n"))
                except Broken:
                    continue
                if since <= str(line["at"]) < until:
                    yield line


def write_csv(lines: Iterable[Line], out: TextIO) -> None:
    """One row an entry; setpoints get one row a wallbox. What has no column of its own is in ``more``."""
    table = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    for line in lines:
        table.writerows(_rows(line))


def _rows(line: Line) -> Iterator[dict[str, str]]:
    wallboxes = line.get("wallboxes")
    more = {key: value for key, value in line.items() if key not in COLUMNS and key != "prev"}
    row = {key: _cell(line[key]) for key in COLUMNS if key in line}
    if isinstance(wallboxes, Mapping):
        for wallbox, held in wallboxes.items():
            yield {**row, "wallbox": wallbox, **{key: _cell(value) for key, value in held.items()}}
    else:
        yield {**row, "more": _cell(more) if more else ""}


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        # A spreadsheet must not take a text for a formula.
        return f"'{value}" if value[:1] in "=+-@\t\r" else value
    return json.dumps(value, sort_keys=True)


def grouped(lines: Iterable[Line]) -> dict[str, object]:
    """By grid event: its commands, when they became effective, what was drawn, what was told, the release."""
    events: dict[str, dict[str, list[Line]]] = {}
    others: list[Line] = []
    for line in lines:
        event = line.get("event")
        if isinstance(event, str) and event:
            events.setdefault(event, {}).setdefault(str(line["kind"]), []).append(line)
        else:
            others.append(line)
    return {"events": [{"event": event, **kinds} for event, kinds in events.items()], "others": others}
