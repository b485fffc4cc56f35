"""Is the journal as it was written? Each line against its hash, each hash against the line before, the end against the
head that is kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bridge.storage import chain
from bridge.storage.chain import Broken, Line, Position
from bridge.storage.files import Head, months_of, read_head


class Report(NamedTuple):
    """What was found: the number of entries, the first and the last, the ``problems`` and mere ``hints``."""

    entries: int
    first: Line | None
    last: Line | None
    problems: list[str]
    hints: list[str]


def verify(state_dir: Path) -> Report:
    """Read the whole journal. Each problem names file and line, what is wrong, and with which entry."""
    # The head first: lines that are written meanwhile only lie behind it.
    head = read_head(state_dir)
    check = _Check(head)
    for path in months_of(state_dir):
        with open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                check.line(f"{path.name}:{number}", raw)
    check.ends()
    return Report(check.entries, check.first, check.last, check.problems, check.hints)


class _Check:
    """Goes along the chain line by line; after a problem it goes on from what is there."""

    def __init__(self, head: Head | None) -> None:
        self._head = head
        self._end: Position | None = None
        self._pruned: list[Line] = []
        self._at_head: Line | None = None
        self.entries = 0
        self.first: Line | None = None
        self.last: Line | None = None
        self.problems: list[str] = []
        self.hints: list[str] = []

    def line(self, place: str, raw: bytes) -> None:
        """The next line, with its end."""
        if not raw.endswith(b"\n"):
            self.hints.append(f"{place}: an unfinished line: being written, or cut off by a loss of power")
            return
        try:
            line = chain.opened(raw[:-1])
        except Broken as error:
            self.problems.append(f"{place}: {error}")
            if self._end:
                # What follows is in its place if it counts on from here.
                self._end = Position(self._end.seq + 1, "")
            return
        self.entries += 1
        self.first, self.last = self.first or line, line
        self.problems.extend(f"{place}: {problem}" for problem in self._wrong(line))
        self._end = chain.after(Position(), line)
        if self._head and line["seq"] == self._head.seq:
            self._at_head = line
        if line["kind"] == "pruned":
            self._pruned.append(line)

    def _wrong(self, line: Line) -> Iterator[str]:
        seq, end = self._end.seq + 1 if self._end else 0, self._end
        number = int(str(line["seq"]))
        if line["kind"] == "broken":
            yield f"noted by the bridge: expected {line.get('expected')}, found {line.get('found')}"
        if end is None or (number == seq and not end.hash):
            return
        if number > seq:
            yield f"entries {seq} to {number - 1} are missing before entry {number}"
        elif number < seq:
            yield f"entry {number} stands behind entry {seq - 1}: moved or inserted"
        elif line["prev"] != end.hash:
            yield f"entry {number} does not continue entry {seq - 1}: one of them was replaced"

    def ends(self) -> None:
        """Both ends of the chain."""
        if self.first:
            self.problems.extend(self._beginning(self.first))
        if self._head is None:
            if self.first or self.problems:
                self.problems.append("journal-head: the head is missing or cannot be read")
            return
        end = self._end.seq if self._end else 0
        if end < self._head.seq:
            self.problems.append(f"journal-head: the newest entries, {end + 1} to {self._head.seq}, are missing")
        elif self._at_head is not None and self._at_head["hash"] != self._head.hash:
            self.problems.append(f"journal-head: entry {self._head.seq} is not the one that was written: replaced")
        elif self._at_head is None and self._head.seq:
            self.problems.append(f"journal-head: entry {self._head.seq} cannot be read")

    def _beginning(self, first: Line) -> Iterator[str]:
        """The oldest entries may be gone when their time was over, and when an entry says so."""
        before = int(str(first["seq"])) - 1
        if before == 0 and first["prev"] == chain.GENESIS:
            return
        for note in self._pruned:
            through = int(str(note["through"]))
            if before < through or (before == through and first["prev"] == note["through_hash"]):
                return
        yield f"the oldest entries, 1 to {before}, are missing" if before else "entry 1 does not begin the chain"
