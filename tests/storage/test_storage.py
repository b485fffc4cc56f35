"""Variables on disk, with real files: what was reported as stored comes back, and no more is written than needed."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from bridge.core import step
from bridge.core.events import Event, Journaled, SetVariables, Stored
from bridge.core.formulas import parse
from bridge.core.model import Now, Snapshot, State
from bridge.core.variables import accept
from bridge.errors import ConfigError
from bridge.storage import edge
from bridge.storage.edge import StorageEdge
from tests.core.sites import House, site

BYTES_A_SET = 16 * 1024
"""What one set may cost on the card: pages of 4 kB in the log, and again when the log is folded in."""


class Disk:
    """A storage edge on a folder, opened and closed as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: SimpleQueue[Event] = SimpleQueue()
        self.edge: StorageEdge | None = None

    def open(self) -> House:
        self.edge = StorageEdge(self.folder, self.heard.put)
        house = House(site(0), self.edge.load())
        self.edge.start()
        return house

    def close(self) -> None:
        if self.edge:
            self.edge.stop()
            self.edge = None

    def store(self, snapshot: Snapshot) -> Stored:
        """Offer a snapshot and wait for what storage says of it."""
        assert self.edge is not None
        self.edge.offer(snapshot)
        return self.answer()

    def answer(self, timeout_s: float = 5.0) -> Stored:
        while isinstance(event := self.heard.get(timeout=timeout_s), Journaled):
            pass  # see test_journal.py
        assert isinstance(event, Stored)
        return event


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "state")
    yield disk
    disk.close()


def seen(state: State) -> list[tuple[str, str, str, float]]:
    return [(v.name, v.formula.text, v.source, v.set_at) for v in state.variables.values()]


def test_values_come_back_with_source_moment_and_order(disk: Disk) -> None:
    house = disk.open()
    house.set(zebra=0.1, Tarif="1 + AVAIL", AVAIL=70)
    house.utc += 10
    house.set(source="admin", ZEBRA="1e300")
    assert disk.store(house.snapshot) == Stored(2)
    disk.close()
    again = disk.open()
    assert seen(again.snapshot.state) == seen(house.snapshot.state)
    assert [name for name, *_ in seen(again.snapshot.state)] == ["zebra", "Tarif", "AVAIL"]
    assert again.snapshot.decision.grid.limit_w == 55000 * 0.7
    assert again.snapshot.state.last_receipt == 2, "receipts count on after a restart"


def test_what_runs_out_comes_back_with_its_time_and_what_has_expired_stays_so(disk: Disk) -> None:
    house = disk.open()
    house.set(ttl=60, AVAIL=10)
    disk.store(house.snapshot)
    house.wait(30)
    disk.close()
    again = disk.open().snapshot.state.variables["avail"]
    assert (again.until, again.set_mono, again.expired) == (1_790_000_060.0, None, False)
    assert disk.edge
    disk.edge.offer(house.wait(31))
    assert disk.answer() == Stored(1), "written although nobody set anything"
    disk.close()
    house = disk.open()
    assert house.snapshot.state.variables["avail"].expired
    assert house.snapshot.decision.grid.limit_w == 55000, "although the clock says that there is time left"


def test_what_the_grid_side_had_set_under_a_value_of_mqtt_is_kept(disk: Disk) -> None:
    house = disk.open()
    house.set(ttl=60, AVAIL=10)
    given = SetVariables((("AVAIL", parse(100)),), False, "mqtt")
    disk.store(house.happen(given))
    disk.close()
    again = disk.open().snapshot.state.variables["avail"]
    assert again.under
    assert (again.source, again.formula.text, again.under.source, again.under.formula.text) == (
        "mqtt",
        "100",
        "smgw",
        "10",
    )
    assert (again.until, again.under.until) == (None, 1_790_000_060.0)


def test_a_file_of_an_older_version_is_read_and_extended(disk: Disk) -> None:
    disk.folder.mkdir()
    with sqlite3.connect(disk.folder / "state.sqlite3") as database:
        database.execute(
            "CREATE TABLE variables (key TEXT PRIMARY KEY, name TEXT, text TEXT, source TEXT, set_at REAL)"
        )
        database.execute("INSERT INTO variables VALUES ('avail', 'AVAIL', '40', 'smgw', 1.5)")
    database.close()
    house = disk.open()
    assert seen(house.snapshot.state) == [("AVAIL", "40", "smgw", 1.5)]
    house.set(ttl=60, B=1)
    disk.store(house.snapshot)
    disk.close()
    variables = disk.open().snapshot.state.variables
    assert (variables["avail"].until, variables["b"].until) == (None, 1_790_000_060.0)


def test_removed_variables_stay_removed(disk: Disk) -> None:
    house = disk.open()
    house.set(A=1, B=2, C=3)
    disk.store(house.snapshot)
    house.set(clear=True, B=5)
    disk.store(house.snapshot)
    disk.close()
    assert [(name, text) for name, text, *_ in seen(disk.open().snapshot.state)] == [("B", "5")]


def test_what_is_offered_right_before_the_end_is_written(disk: Disk) -> None:
    house = disk.open()
    house.set(AVAIL=30)
    assert disk.edge
    disk.edge.offer(house.snapshot)
    disk.close()
    assert disk.open().snapshot.decision.grid.limit_w == 16500


def test_only_what_changed_is_written(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: object, **more: object) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(*arguments, **more)  # type: ignore[call-overload]
        database.set_trace_callback(rows.append)
        return database

    house = disk.open()
    monkeypatch.setattr(sqlite3, "connect", traced)
    house.set(**{f"V{n}": n for n in range(50)})
    disk.store(house.snapshot)
    rows.clear()
    house.set(V7=1)
    disk.store(house.snapshot)
    assert sum("INSERT INTO variables" in row for row in rows) == 1
    assert not any("DELETE" in row for row in rows)


def test_a_set_costs_few_bytes(disk: Disk) -> None:
    """Counted by the kernel, for this process: an SD card has to live for years."""
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("only Linux counts bytes written")

    def written() -> int:
        return next(int(line.split()[1]) for line in counter.read_text().splitlines() if line.startswith("wchar"))

    house = disk.open()
    house.set(**{f"V{n}": n for n in range(100)})
    disk.store(house.snapshot)
    before = written()
    for n in range(50):
        house.set(V7=n)
        disk.store(house.snapshot)
    assert (written() - before) / 50 < BYTES_A_SET


def test_nothing_is_written_while_nothing_is_set(disk: Disk) -> None:
    house = disk.open()
    house.set(AVAIL=30)
    disk.store(house.snapshot)
    log = disk.folder / "state.sqlite3-wal"
    size = log.stat().st_size
    assert disk.edge
    for _ in range(100):
        disk.edge.offer(house.wait(1))
    house.set(AVAIL=31)
    assert disk.store(house.snapshot) == Stored(2), "the snapshots without a set made no event"
    with pytest.raises(Empty):
        disk.answer(0)
    assert log.stat().st_size <= size + BYTES_A_SET


@pytest.mark.parametrize("damage", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_set_aside(disk: Disk, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    disk.folder.mkdir()
    (disk.folder / "state.sqlite3").write_bytes(damage)
    house = disk.open()
    assert house.snapshot.state.variables == {}
    aside = [file for file in disk.folder.iterdir() if "unreadable" in file.name]
    assert [file.read_bytes() for file in aside] == [damage]
    assert "cannot be read" in caplog.text
    house.set(AVAIL=30)
    assert disk.store(house.snapshot) == Stored(1)


def test_one_damaged_variable_does_not_cost_the_others(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    house = disk.open()
    house.set(A=1, B=2)
    disk.store(house.snapshot)
    disk.close()
    with sqlite3.connect(disk.folder / "state.sqlite3") as database:
        database.execute("UPDATE variables SET text = '1 +' WHERE key = 'a'")
    database.close()
    assert [name for name, *_ in seen(disk.open().snapshot.state)] == ["B"]
    assert "variable A is left out" in caplog.text


def test_a_state_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file stands here")
    with pytest.raises(ConfigError, match="cannot be used"):
        StorageEdge(tmp_path / "state", lambda event: None).load()


def test_a_failing_disk_is_told_and_tried_again(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder vanishes, as a card that is pulled; when it is back, everything is written without a new set."""
    monkeypatch.setattr(edge, "RETRY_S", 0.05)
    caplog.set_level(logging.INFO)
    disk.folder.mkdir()
    house = disk.open()
    shutil.rmtree(disk.folder)
    house.set(AVAIL=30)
    failed = disk.store(house.snapshot)
    assert failed.receipt == 1
    assert failed.error
    assert disk.answer().error, "tried again, failed again"
    disk.folder.mkdir()
    wait_for(lambda: disk.answer() == Stored(1))
    disk.close()
    assert disk.open().snapshot.decision.grid.limit_w == 16500
    logged = [record.message for record in caplog.records if record.name == "bridge.storage.edge"]
    assert logged == [
        f"variables and sessions could not be stored: {failed.error}",
        "variables and sessions are stored again",
    ]


def test_a_failing_disk_is_not_hammered(disk: Disk) -> None:
    """Every failure makes a round and every round offers a snapshot: that must not become a loop."""
    disk.folder.mkdir()
    house = disk.open()
    shutil.rmtree(disk.folder)
    house.set(AVAIL=30)
    house.happen(disk.store(house.snapshot))
    assert disk.edge
    for _ in range(20):
        disk.edge.offer(house.happen())
    assert disk.answer().error, "once, because there is something new for the journal"
    with pytest.raises(Empty):
        disk.answer(0.3)


def test_a_set_while_the_disk_fails_is_tried_at_once(disk: Disk) -> None:
    disk.folder.mkdir()
    house = disk.open()
    shutil.rmtree(disk.folder)
    house.set(AVAIL=30)
    assert disk.store(house.snapshot).error
    disk.folder.mkdir()
    house.set(AVAIL=40)
    assert disk.store(house.snapshot) == Stored(2)


def test_many_sets_share_one_commit(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    commit = StorageEdge._commit

    def slow(self: StorageEdge, database: sqlite3.Connection, snapshot: Snapshot) -> None:
        commits.append(snapshot.state.last_receipt)
        time.sleep(0.02)  # a slow card
        commit(self, database, snapshot)

    monkeypatch.setattr(StorageEdge, "_commit", slow)
    house = disk.open()
    assert disk.edge
    for n in range(100):
        disk.edge.offer(house.set(AVAIL=n))
    wait_for(lambda: disk.answer() == Stored(100))
    assert len(commits) < 50


def test_storage_and_core_agree_about_receipts(disk: Disk) -> None:
    house = disk.open()
    event = accept(house.snapshot.config, [("AVAIL", 30)], False, "smgw", house.snapshot.state)
    snapshot = step.run(house.snapshot, [event], Now(1.0, 1.0))
    after = step.run(snapshot, [disk.store(snapshot)], Now(2.0, 2.0))
    receipt = after.state.receipt_of(event)
    assert receipt is not None
    assert receipt.stored_at == 2.0


def wait_for(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
