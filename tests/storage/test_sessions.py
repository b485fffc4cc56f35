"""Charging sessions on disk: what has ended stays, what is open loses no more than a minute."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import pytest

from bridge.core.events import Event, Journaled, Link, Read, SessionsStored, Stored
from bridge.core.model import Snapshot
from bridge.core.records.session import Session, Span
from bridge.storage import sessions
from bridge.storage.edge import StorageEdge
from tests.core.sites import House, site
from tests.storage.test_storage import wait_for

KILLS = 6
BYTES_A_CHECKPOINT = 16 * 1024
"""One page of 4 kB in the log and again when it is folded in; twice that for long sessions."""


class Disk:
    """A storage edge on a folder, and a house whose snapshots it is offered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: SimpleQueue[Event] = SimpleQueue()
        self.open()

    def open(self) -> None:
        self.edge = StorageEdge(self.folder, self.heard.put)
        self.house = House(site(2), self.edge.load())
        self.edge.start()

    def restart(self) -> None:
        self.edge.stop()
        self.open()

    def says(self, box: str, seconds: float = 1.0, **values: float | str) -> Snapshot:
        self.house.mono += seconds
        self.house.utc += seconds
        self.house.happen(Link(box, True), Read(box, values, self.house.mono))
        self.edge.offer(self.house.snapshot)
        return self.house.snapshot

    def answer(self) -> Event:
        while isinstance(event := self.heard.get(timeout=5), Journaled):
            self.house.happen(event)  # see test_journal.py
        return event

    def acknowledged(self) -> frozenset[int]:
        """Wait until storage says that sessions are on disk."""
        event = self.answer()
        assert isinstance(event, SessionsStored)
        self.house.happen(event)
        return event.ids

    def rows(self) -> list[tuple[int, str]]:
        with closing(sqlite3.connect(self.folder / "state.sqlite3")) as database:
            return database.execute("SELECT id, ended FROM sessions ORDER BY id").fetchall()

    def visit(self, box: str = "E1") -> None:
        self.says(box, state="C", power_w=7000.0)
        self.says(box, state="A")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "state")
    yield disk
    disk.edge.stop()


def everything(disk: Disk, wallbox: str | None = None) -> list[Session]:
    return list(disk.edge.sessions(wallbox, 0.0, 1e12, 1000))


def test_what_has_ended_comes_back_whole(disk: Disk) -> None:
    disk.says("E1", state="A", energy_wh=500.0)
    disk.says("E1", state="B", energy_wh=500.0, rfid="04A1B2")
    disk.says("E1", state="C", energy_wh=503.0, power_w=11_000.0, current_l1_a=16.0)
    disk.says("E1", state="A", energy_wh=506.0)
    (session,) = disk.house.snapshot.state.sessions.unstored
    assert disk.acknowledged() == {1}
    assert disk.house.snapshot.state.sessions.unstored == ()
    assert everything(disk) == [session]
    disk.restart()
    assert everything(disk) == [session]
    known = disk.house.snapshot.state.sessions
    assert (known.open, known.last, known.last_id) == ({}, {"E1": session}, 1)
    disk.visit()
    assert disk.acknowledged() == {2}, "numbers go on"


def test_an_open_session_goes_on_after_a_clean_restart(disk: Disk) -> None:
    disk.says("E1", state="A", energy_wh=500.0)
    for n in range(100):
        disk.says("E1", state="C", energy_wh=500.0 + 3 * n, power_w=10_800.0)
    before = disk.house.snapshot.state.sessions.open["E1"]
    disk.restart()
    after = disk.house.snapshot.state.sessions.open["E1"]
    assert replace(after, spans=()) == replace(before, spans=())
    assert after.spans == (*before.spans, Span(before.seen_at, "waiting", "unreachable"))


def test_it_is_written_every_minute_and_when_it_begins_or_ends(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[list[int]] = []
    write = sessions.write
    done: SimpleQueue[None] = SimpleQueue()

    def noted(database: sqlite3.Connection, moved: list[Session]) -> None:
        written.append([session.id for session in moved])
        write(database, moved)
        done.put(None)

    monkeypatch.setattr(sessions, "write", noted)
    disk.says("E1", state="C", power_w=7000.0)
    done.get(timeout=5)
    disk.says("E2", state="C", power_w=7000.0)
    done.get(timeout=5)
    for _ in range(61):
        disk.says("E1", state="C", power_w=7000.0)
    done.get(timeout=5)
    for _ in range(30):
        disk.says("E2", state="C", power_w=7000.0)
    disk.says("E1", state="A")
    done.get(timeout=5)
    assert written == [[1], [2], [1, 2], [2, 1]]
    disk.edge.offer(disk.house.happen())
    disk.acknowledged()
    disk.house.set(AVAIL=30)
    disk.edge.offer(disk.house.snapshot)
    assert disk.answer() == Stored(1)


def test_a_minute_costs_few_bytes(disk: Disk) -> None:
    """Counted by the kernel, for this process: an SD card has to live for years."""
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("only Linux counts bytes written")

    def written() -> int:
        return next(int(line.split()[1]) for line in counter.read_text().splitlines() if line.startswith("wchar"))

    for _ in range(100):
        disk.visit()
        disk.acknowledged()
    disk.says("E1", state="C", power_w=7000.0)
    before = written()
    for n in range(60):
        snapshot = disk.says("E1", seconds=61, state="BC"[n % 2], power_w=7000.0)
        wait_for(lambda: not disk.edge._sessions.owes(snapshot))  # noqa: B023
    cost = (written() - before) / 60
    print(f"{cost:.0f} bytes a minute, {cost * 1440 / 1e6:.1f} MB a day")
    assert cost < BYTES_A_CHECKPOINT


def test_a_database_from_before_there_were_sessions(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "state.sqlite3", isolation_level=None)) as database:
        database.execute(
            "CREATE TABLE variables (key TEXT PRIMARY KEY, name TEXT, text TEXT, source TEXT, set_at REAL)"
        )
        database.execute("INSERT INTO variables VALUES ('avail', 'AVAIL', '40.0', 'smgw', 1.0)")
    disk = Disk(folder)
    assert disk.house.snapshot.decision.grid.limit_w == 22_000
    disk.visit()
    assert disk.acknowledged() == {1}
    disk.edge.stop()


def test_the_newest_are_kept(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KEPT", 10)
    for _ in range(15):
        disk.visit()
        disk.acknowledged()
    assert [number for number, _ in disk.rows()] == [*range(6, 16)]


def test_a_row_that_cannot_be_read_costs_only_itself(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    for box in ("E1", "E2", "E1"):
        disk.visit(box)
        disk.acknowledged()
    disk.says("E2", state="C")
    disk.edge.stop()
    with closing(sqlite3.connect(disk.folder / "state.sqlite3", isolation_level=None)) as database:
        database.execute("UPDATE sessions SET document = '{}' WHERE id IN (1, 4)")
    disk.open()
    assert [session.id for session in everything(disk)] == [3, 2]
    assert disk.house.snapshot.state.sessions.last_id == 4
    assert "left out" in caplog.text


def test_sessions_can_be_looked_for(disk: Disk) -> None:
    begun = []
    for box in ("E1", "E2", "E1", "E2"):
        begun.append(disk.house.utc + 1)
        disk.visit(box)
        disk.acknowledged()
    disk.says("E1", state="C")
    found = disk.edge.sessions
    assert [session.id for session in found(None, 0.0, 1e12, 100)] == [4, 3, 2, 1]
    assert [session.id for session in found("E2", 0.0, 1e12, 100)] == [4, 2]
    assert [session.id for session in found(None, begun[1], begun[3], 100)] == [3, 2]
    assert [session.id for session in found(None, 0.0, 1e12, 1)] == [4]


def test_a_disk_that_cannot_be_read_is_told(disk: Disk) -> None:
    disk.edge._file = disk.folder / "nowhere" / "state.sqlite3"
    with pytest.raises(OSError, match="cannot be read"):
        disk.edge.sessions(None, 0.0, 1e12, 1)


def test_nothing_that_has_ended_is_lost_by_kill_9(tmp_path: Path) -> None:
    chance = random.Random(20261122)
    ended: set[int] = set()
    for _ in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.charging", str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        seen: dict[int, float] = {}
        with child:
            assert child.stdout
            try:
                for line in islice(child.stdout, chance.randint(200, 1500)):
                    word, number, *more = line.split()
                    if word == "stored":
                        ended.add(int(number))
                    else:
                        seen[int(number)] = float(more[0])
            finally:
                child.kill()
        edge = StorageEdge(tmp_path, lambda event: None)
        known = edge.load().sessions
        stored = {session.id: session for session in edge.sessions(None, 0.0, 1e12, 100_000)}
        assert ended <= stored.keys()
        for session in known.open.values():
            assert session.connected_s >= seen.get(session.id, 0.0) - sessions.CHECKPOINT_S - 1
        assert {number for number in seen if number not in stored} <= {one.id for one in known.open.values()}
    assert len(ended) > 20
