"""The journal on real files: nothing that is changed goes unnoticed, nothing that was confirmed gets lost."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue

import pytest

from bridge.__main__ import main
from bridge.core.events import Event, Journaled, Read, Stored
from bridge.core.records.journal import Journal
from bridge.storage import chain
from bridge.storage.edge import StorageEdge
from bridge.storage.files import Head, months_of, read_head, write_head
from bridge.storage.journal import JournalFiles
from bridge.storage.reading import COLUMNS, grouped, span, write_csv
from bridge.storage.verify import verify
from tests.core.sites import House, site

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


class Writer:
    """The journal of a folder, with a clock of its own."""

    def __init__(self, folder: Path, utc: float = NOON) -> None:
        self.folder = folder
        self.utc = utc
        folder.mkdir(exist_ok=True)
        self.files = JournalFiles(folder, lambda: self.utc)
        self.journal = self.files.begin()

    def note(self, kind: str = "command", **facts: object) -> None:
        self.utc += 1
        self.journal = self.journal.noting(kind, self.utc, None, facts)

    def take(self) -> Journaled:
        answer = self.files.take(self.journal)
        assert answer is not None
        self.journal = self.journal.kept(answer.through, answer.head, answer.error)
        return answer

    def write(self, *kinds: str, **facts: object) -> Journaled:
        for kind in kinds:
            self.note(kind, **facts)
        return self.take()


def kinds(folder: Path) -> list[str]:
    return [str(line["kind"]) for line in span(folder, "", "")]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal of ten entries in two months: 1 to 6 in November, 7 to 10 in December."""
    writer = Writer(tmp_path / "state")
    for number in range(5):
        writer.write("command", limit_w=number)
    writer.utc += 15 * 86400
    for number in range(4):
        writer.write("command", limit_w=10 + number)
    writer.files._close()
    assert [path.stem for path in months_of(writer.folder)] == ["2026-11", "2026-12"]
    assert verify(writer.folder).problems == []
    assert verify(writer.folder).entries == 10
    return writer.folder


def test_what_is_written_is_chained_and_the_head_follows(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    answer = writer.write("command", "trace")
    assert (answer.through, answer.error) == (2, "")
    lines = [json.loads(line) for line in months_of(tmp_path)[0].read_bytes().splitlines()]
    assert [(line["seq"], line["kind"]) for line in lines] == [(1, "start"), (2, "command"), (3, "trace")]
    assert [line["prev"] for line in lines] == [chain.GENESIS, lines[0]["hash"], lines[1]["hash"]]
    content = {key: value for key, value in lines[2].items() if key != "hash"}
    assert lines[2]["hash"] == sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert answer.head == f"3 {lines[2]['hash']}"
    assert read_head(tmp_path) == (3, lines[2]["hash"])
    assert writer.journal.outbox == ()
    assert writer.files.take(writer.journal) is None, "nothing waits, nothing is written"


def test_an_entry_is_written_once_however_often_it_is_offered(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.note()
    for _ in range(3):
        writer.files.take(writer.journal)
    writer.note()
    writer.files.take(writer.journal)
    assert kinds(tmp_path) == ["start", "command", "command"]


# --------------------------------------------------------------------------------------------------- tampering


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def edited(folder: Path) -> None:
    path = months_of(folder)[0]
    path.write_bytes(path.read_bytes().replace(b'"limit_w":2', b'"limit_w":9'))


def removed_in_the_middle(folder: Path) -> None:
    path = months_of(folder)[0]
    lines = lines_of(path)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))


def removed_newest(folder: Path) -> None:
    path = months_of(folder)[1]
    path.write_bytes(b"".join(lines_of(path)[:-1]))


def removed_newest_month(folder: Path) -> None:
    months_of(folder)[1].unlink()


def removed_oldest_month(folder: Path) -> None:
    months_of(folder)[0].unlink()


def removed_everything(folder: Path) -> None:
    shutil.rmtree(folder / "journal")


def reordered(folder: Path) -> None:
    path = months_of(folder)[0]
    lines = lines_of(path)
    lines[2], lines[3] = lines[3], lines[2]
    path.write_bytes(b"".join(lines))


def duplicated(folder: Path) -> None:
    path = months_of(folder)[0]
    lines = lines_of(path)
    path.write_bytes(b"".join([*lines, lines[4]]))


def inserted(folder: Path) -> None:
    path = months_of(folder)[0]
    lines = lines_of(path)
    before = chain.opened(lines[3][:-1])
    position = chain.Position(int(str(before["seq"])), str(before["hash"]))
    _, line = chain.extended(position, "command", NOON, None, {"limit_w": 0})
    path.write_bytes(b"".join([*lines[:4], line, *lines[4:]]))


def edited_with_its_hash_made_anew(folder: Path) -> None:
    path = months_of(folder)[0]
    lines = lines_of(path)
    lines[3] = _resealed(lines[3], limit_w=9)
    path.write_bytes(b"".join(lines))


def edited_newest_with_its_hash_made_anew(folder: Path) -> None:
    path = months_of(folder)[1]
    lines = lines_of(path)
    lines[-1] = _resealed(lines[-1], limit_w=9)
    path.write_bytes(b"".join(lines))


def written_anew_to_the_end(folder: Path) -> None:
    """All from the third entry on sealed anew; only the head knows better."""
    position, done = chain.Position(), 0
    for path in months_of(folder):
        out = b""
        for raw in lines_of(path):
            done += 1
            if done < 3:
                position, out = chain.after(position, chain.opened(raw[:-1])), out + raw
                continue
            line = {key: value for key, value in json.loads(raw).items() if key not in ("hash", "seq", "prev")}
            content = {**line, "limit_w": 9, "seq": position.seq + 1, "prev": position.hash}
            digest = sha256(chain.canonical(content)).hexdigest()
            position = chain.Position(position.seq + 1, digest)
            out += chain.canonical({**content, "hash": digest}) + b"\n"
        path.write_bytes(out)


def spaced_out(folder: Path) -> None:
    path = months_of(folder)[0]
    lines = lines_of(path)
    lines[2] = lines[2].replace(b":", b": ", 1)
    path.write_bytes(b"".join(lines))


def cut_within_a_line(folder: Path) -> None:
    path = months_of(folder)[1]
    path.write_bytes(path.read_bytes()[:-200])


def head_removed(folder: Path) -> None:
    (folder / "journal-head").unlink()


def head_of_an_earlier_moment(folder: Path) -> None:
    """Newest entries and the head with them: nobody who wrote less than all of it can make this fit."""
    line = chain.opened(lines_of(months_of(folder)[1])[-2][:-1])
    write_head(folder, Head(int(str(line["seq"])), "0" * 64))


def _resealed(raw: bytes, **facts: object) -> bytes:
    content = {**json.loads(raw), **facts}
    del content["hash"]
    return chain.canonical({**content, "hash": sha256(chain.canonical(content)).hexdigest()}) + b"\n"


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (edited, ["2026-11.jsonl:4: entry 4 was edited: it does not have its hash any more"]),
        (removed_in_the_middle, ["2026-11.jsonl:4: entries 4 to 4 are missing before entry 5"]),
        (removed_newest, ["journal-head: the newest entries, 10 to 10, are missing"]),
        (removed_newest_month, ["journal-head: the newest entries, 7 to 10, are missing"]),
        (removed_oldest_month, ["the oldest entries, 1 to 6, are missing"]),
        (removed_everything, ["journal-head: the newest entries, 1 to 10, are missing"]),
        (
            reordered,
            [
                "2026-11.jsonl:3: entries 3 to 3 are missing before entry 4",
                "2026-11.jsonl:4: entry 3 stands behind entry 4: moved or inserted",
                "2026-11.jsonl:5: entries 4 to 4 are missing before entry 5",
            ],
        ),
        (
            duplicated,
            [
                "2026-11.jsonl:7: entry 5 stands behind entry 6: moved or inserted",
                "2026-12.jsonl:1: entries 6 to 6 are missing before entry 7",
            ],
        ),
        (inserted, ["2026-11.jsonl:6: entry 5 stands behind entry 5: moved or inserted"]),
        (
            edited_with_its_hash_made_anew,
            ["2026-11.jsonl:5: entry 5 does not continue entry 4: one of them was replaced"],
        ),
        (
            edited_newest_with_its_hash_made_anew,
            ["journal-head: entry 10 is not the one that was written: replaced"],
        ),
        (written_anew_to_the_end, ["journal-head: entry 10 is not the one that was written: replaced"]),
        (spaced_out, ["2026-11.jsonl:3: entry 3 was edited: it does not have its hash any more"]),
        (cut_within_a_line, ["journal-head: the newest entries, 10 to 10, are missing"]),
        (head_removed, ["journal-head: the head is missing or cannot be read"]),
        (head_of_an_earlier_moment, ["journal-head: entry 9 is not the one that was written: replaced"]),
    ],
)
def test_verify_finds_what_was_done(
    written: Path, tamper: Callable[[Path], None], found: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["journal", "verify", "--state-dir", str(written)]
    assert main(arguments) == 0
    capsys.readouterr()
    tamper(written)
    assert main(arguments) == 1
    assert capsys.readouterr().out.splitlines()[:-1] == found


@pytest.mark.parametrize("tamper", [removed_newest, removed_newest_month, removed_everything, cut_within_a_line])
def test_what_was_removed_while_the_bridge_stood_still_stays_known(
    written: Path, tamper: Callable[[Path], None]
) -> None:
    """Entries written afterwards do not cover it up."""
    tamper(written)
    writer = Writer(written, NOON + 30 * 86400)
    writer.write("command", "command")
    writer.files.end()
    assert "broken" in kinds(written)
    (noted,) = [problem for problem in verify(written).problems if "noted by the bridge" in problem]
    assert "expected 10 " in noted


# ------------------------------------------------------------------------------------------------ power cuts


@pytest.mark.parametrize("fragment", [b'{"at":"2026', b"\0" * 700, b"\xff\xfe\n{}\n", b'{"seq": 11}\n'])
def test_a_torn_end_is_set_aside_and_noted(written: Path, fragment: bytes) -> None:
    path = months_of(written)[1]
    path.write_bytes(path.read_bytes() + fragment)
    writer = Writer(written, NOON + 16 * 86400)
    writer.write("command")
    writer.files.end()
    assert verify(written).problems == []
    assert kinds(written)[10:] == ["torn", "start", "command", "stop"]
    (aside,) = (written / "journal").glob("*.torn")
    assert aside.read_bytes() == fragment
    noted = next(line for line in span(written, "", "") if line["kind"] == "torn")
    assert (noted["bytes"], noted["kept_as"]) == (len(fragment), aside.name)


def test_a_hole_in_what_was_not_confirmed_is_set_aside(written: Path) -> None:
    """The power goes while a batch is being written: its second page got to the disk, its first one did not."""
    path = months_of(written)[1]
    _, line = chain.extended(chain.Position(11, "ab" * 32), "command", NOON, None, {})
    path.write_bytes(path.read_bytes() + b"\0" * 4096 + b"\n" + line)
    writer = Writer(written, NOON + 16 * 86400)
    writer.write("command")
    assert verify(written).problems == []
    assert kinds(written)[10:] == ["torn", "start", "command"]
    path.write_bytes(path.read_bytes() + line)
    Writer(written, NOON + 17 * 86400)
    assert kinds(written)[13:] == ["torn", "start"], "a whole line that continues nothing"


def test_a_torn_first_line_of_a_month(written: Path) -> None:
    (written / "journal" / "2027-01.jsonl").write_bytes(b'{"at":"2027-01-01T00')
    writer = Writer(written, NOON + 45 * 86400)
    writer.write("command")
    assert verify(written).problems == []
    assert kinds(written)[10:] == ["torn", "start", "command"]


def test_lines_whose_head_was_not_written_any_more_are_kept(written: Path) -> None:
    """The power goes after the lines and before the head, also when these began a month."""
    newest = lines_of(months_of(written)[0])[-1]
    line = chain.opened(newest[:-1])
    write_head(written, Head(int(str(line["seq"])), str(line["hash"])))
    assert verify(written).problems == [], "the head may lag behind"
    writer = Writer(written, NOON + 16 * 86400)
    writer.write("command")
    assert verify(written).problems == []
    assert kinds(written)[10:] == ["start", "command"]
    assert read_head(written) == (12, writer.journal.head.split()[1])


def test_an_unfinished_line_is_no_fault_while_the_bridge_runs(written: Path) -> None:
    with open(months_of(written)[1], "ab") as file:
        file.write(b'{"at":')
    report = verify(written)
    assert report.problems == []
    assert len(report.hints) == 1


_CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.core.sites import House, site
from bridge.core.events import Journaled, Stored
from bridge.storage.edge import StorageEdge
from queue import SimpleQueue

heard = SimpleQueue()
edge = StorageEdge(Path({folder!r}), heard.put)
house = House(site(1), edge.load())
house.utc = time.time()
edge.start()
while True:
    house.wait(1)
    house.set(AVAIL=10 + house.snapshot.state.last_receipt % 90)
    edge.offer(house.snapshot)
    while not isinstance(event := heard.get(), Stored):
        house.happen(event)
    house.happen(event)
    print(event.receipt, flush=True)
"""


def test_what_was_answered_ok_is_in_the_journal_after_kill_9(tmp_path: Path) -> None:
    chance = random.Random(20261122)
    child = _CHILD.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path / "state"))
    acknowledged = 0
    for _ in range(int(os.environ.get("KILLS", "4"))):
        process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            for _ in range(chance.randint(1, 40)):
                acknowledged = int(process.stdout.readline())
        finally:
            process.kill()
            acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
            process.wait()
            process.stdout.close()
        report = verify(tmp_path / "state")
        assert report.problems == []
        receipts = {line["receipt"] for line in span(tmp_path / "state", "", "") if line["kind"] == "command"}
        assert receipts >= {*range(1, acknowledged + 1)}
    assert acknowledged > 4


# ------------------------------------------------------------------------------------------- failing disks


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_nothing_is_written_by_halves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer(tmp_path)
    writer.write("command")
    path = months_of(tmp_path)[0]
    size = path.stat().st_size
    with full_at(size + 100):
        for _ in range(3):
            answer = writer.write("command")
            assert (answer.through, bool(answer.error)) == (1, True)
        assert path.stat().st_size == size
    assert len(writer.journal.outbox) == 3
    answer = writer.write("command")
    assert (answer.through, answer.error) == (5, "")
    assert verify(tmp_path).problems == []
    assert kinds(tmp_path) == ["start", *["command"] * 5]
    assert sum("cannot be written" in record.message for record in caplog.records) == 1, "told once"


def test_a_disk_that_fails_at_the_start_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file stands here")
    writer = Writer(tmp_path)
    assert writer.journal.error
    assert writer.write("command").error
    (tmp_path / "journal").unlink()
    assert writer.take().error == ""
    assert kinds(tmp_path) == ["command"]


def test_a_folder_that_is_removed_under_our_feet_is_noticed(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write("command")
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "journal-head").unlink()
    writer.write("command")
    assert kinds(tmp_path) == ["broken", "command"]
    assert verify(tmp_path).problems[0].startswith("2026-11.jsonl:1: noted by the bridge: expected 2 ")


def test_a_file_that_is_replaced_under_our_feet_is_appended_to(tmp_path: Path) -> None:
    """As editors do it: a new file by the old name."""
    writer = Writer(tmp_path)
    writer.write("command")
    path = months_of(tmp_path)[0]
    (tmp_path / "copy").write_bytes(path.read_bytes().replace(b"command", b"trace"))
    (tmp_path / "copy").replace(path)
    writer.write("command")
    assert [problem.partition(":2: ")[2][:16] for problem in verify(tmp_path).problems][:1] == ["entry 2 was edit"]
    assert kinds(tmp_path)[-1] == "command"


class Disk:
    """A storage edge and the house it stores."""

    def __init__(self, folder: Path) -> None:
        self.heard: SimpleQueue[Event] = SimpleQueue()
        self.edge = StorageEdge(folder, self.heard.put)
        self.house = House(site(2, meter=True), self.edge.load())
        self.edge.start()

    def stored(self) -> list[str]:
        """Offer the newest snapshot and take in what storage says, up to the answer for the variables."""
        self.edge.offer(self.house.snapshot)
        heard: list[str] = []
        while not heard or heard[-1] != "Stored":
            event = self.heard.get(timeout=5)
            heard.append(type(event).__name__)
            self.house.happen(event)
            assert not isinstance(event, Stored) or not event.error
        return heard


def test_a_command_is_in_the_journal_before_it_counts_as_stored(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "state")
    disk.house.set(AVAIL=50)
    assert disk.stored() == ["Journaled", "Stored"]
    assert disk.house.snapshot.state.journal.head.startswith("3 ")
    disk.edge.stop()
    assert kinds(tmp_path / "state")[-1] == "stop"
    (command,) = [line for line in span(tmp_path / "state", "", "") if line["kind"] == "command"]
    assert command["variables"] == {"AVAIL": 50}
    assert command["local"] == "2026-09-21T14:13:20.000+00:00"


def test_a_failing_journal_does_not_stop_variables_from_being_stored(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file stands here")
    disk = Disk(tmp_path)
    assert disk.house.snapshot.state.journal.error
    disk.house.set(AVAIL=50)
    assert disk.stored() == ["Journaled", "Stored"]
    assert "File exists" in disk.house.snapshot.state.journal.error
    disk.edge.stop()
    again = Disk(tmp_path)
    assert again.house.snapshot.decision.grid.limit_w == 27500
    again.edge.stop()


def test_an_open_event_goes_on_after_a_restart(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.house.set(AVAIL=50)
    disk.stored()
    event = disk.house.snapshot.state.journal.event
    disk.edge.stop()
    again = Disk(tmp_path)
    assert again.house.snapshot.state.journal.event == event
    again.house.set(AVAIL=100)
    again.stored()
    again.edge.stop()
    third = Disk(tmp_path)
    assert third.house.snapshot.state.journal.event == ""
    third.edge.stop()


# ------------------------------------------------------------------------------------- retention and budgets


def test_months_go_after_two_years_and_the_chain_holds(tmp_path: Path) -> None:
    start = datetime(2024, 1, 15, tzinfo=UTC)
    writer = Writer(tmp_path, start.timestamp())
    for month in range(30):
        writer.utc = (start + timedelta(days=30.5 * month)).timestamp()
        writer.write("command", "command")
        report = verify(tmp_path)
        assert report.problems == []
        oldest = datetime.fromisoformat(str(report.first and report.first["at"])).timestamp()
        assert month < 24 or writer.utc - oldest >= 730 * 86400, "two years are always there"
    stems = [path.stem for path in months_of(tmp_path)]
    assert stems[0] > "2024-01"
    assert len(stems) <= 27
    pruned = [line for line in span(tmp_path, "", "") if line["kind"] == "pruned"]
    assert pruned[0]["months"] == ["2024-01"]
    months_of(tmp_path)[0].unlink()
    assert "oldest entries" in verify(tmp_path).problems[0], "more than the entry allows"


def test_a_clock_that_jumps_removes_nothing(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write("command")
    writer.utc = datetime(2040, 1, 1, tzinfo=UTC).timestamp()
    writer.write("command")
    again = Writer(tmp_path, NOON + 100)
    again.write("command")
    assert kinds(tmp_path) == ["start", "command", "command", "start", "command"]
    assert verify(tmp_path).problems == []
    assert [path.stem for path in months_of(tmp_path)] == ["2026-11", "2040-01"], "order is what counts"


def test_a_day_has_a_budget_and_what_it_costs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "BUDGET", 20_000)
    monkeypatch.setattr(chain, "ROUTINE_BUDGET", 15_000)
    writer = Writer(tmp_path, NOON - 12 * 3600)
    for _ in range(100):
        writer.write("trace", "command", text="x" * 100)
    size = months_of(tmp_path)[0].stat().st_size
    assert 18_000 < size <= 20_000 + 1_000
    again = Writer(tmp_path, writer.utc)
    again.write(*["command"] * 50, text="x" * 100)
    assert months_of(tmp_path)[0].stat().st_size < size + 2_000, "a restart does not begin a new budget"
    again.utc += 86400
    again.write("command")
    lines = [*span(tmp_path, "", "")]
    dropped = [line for line in lines if line["kind"] == "dropped"]
    told = sum(sum(line["kinds"].values()) for line in dropped[1:])  # type: ignore[attr-defined]
    commands = sum(line["kind"] == "command" for line in lines)
    assert lines[-1]["kind"] == "command"
    assert commands + told >= 50
    assert dropped[-1]["why"] == "budget of 2026-11-22"
    assert verify(tmp_path).problems == []


def test_a_thousand_commands_a_second_stay_within_the_budget(tmp_path: Path) -> None:
    """A minute of them, each of which changes the limit, with readings in between."""
    house = House(site(2, meter=True))
    house.plug("E1", "E2")
    writer = Writer(tmp_path)
    started = months_of(tmp_path)[0].stat().st_size
    sent = 0
    for _ in range(60):
        for number in range(50):  # of each 1000 these; the others are the same to the journal
            sent += 1
            house.set(AVAIL=20 + number)
        house.wait(1)
        house.read("M1", {"power_w": 5000.0})
        if answer := writer.files.take(house.snapshot.state.journal):
            house.happen(answer)
    house.wait(61)
    assert writer.files.take(house.snapshot.state.journal)
    told = sum(line.get("count", 1) for line in span(tmp_path, "", "") if str(line["kind"]).startswith("command"))  # type: ignore[misc]
    assert told == sent
    size = months_of(tmp_path)[0].stat().st_size - started
    assert size < 400 * 700, f"{size} bytes"


def test_an_event_of_two_hours_is_small(tmp_path: Path) -> None:
    house = House(site(3, meter=True))
    writer = Writer(tmp_path)
    for box in ("E1", "E2", "E3"):
        house.plug(box)
    house.set(AVAIL=50)
    for second in range(0, 7200, 5):
        house.mono, house.utc = house.mono + 5, house.utc + 5
        boxes = [Read(box, {"state": "C", "power_w": 4000.0 + second % 7}, house.mono) for box in ("E1", "E2", "E3")]
        house.happen(*boxes, Read("M1", {"power_w": 20000.0 + second % 11}, house.mono))
        if second < 20:
            house.obey()
    house.set(AVAIL=100)
    writer.files.take(house.snapshot.state.journal)
    size = months_of(tmp_path)[0].stat().st_size
    assert 119 <= kinds(tmp_path).count("trace") <= 121
    assert size < 80_000, f"{size} bytes"


# ----------------------------------------------------------------------------------------------------- export


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A journal with a whole grid event, written by house and storage."""
    disk = Disk(tmp_path / "state")
    house = disk.house
    house.plug("E1", "E2")

    def second() -> None:
        house.wait(1)
        boxes = [Read(box, {"state": "C", "power_w": 6000.0}, house.mono) for box in ("E1", "E2")]
        house.happen(*boxes, Read("M1", {"power_w": 13000.0}, house.mono))

    second()
    house.set(AVAIL=50)
    house.happen()
    for _ in range(63):
        second()
    house.obey()
    house.set(source="admin", AVAIL=100)
    disk.stored()
    disk.edge.stop()
    return tmp_path / "state"


def test_csv_has_a_row_for_each_entry_and_setpoint(told: Path) -> None:
    out = io.StringIO()
    write_csv(span(told, "", ""), out)
    rows = [*csv.DictReader(io.StringIO(out.getvalue()))]
    assert tuple(rows[0]) == COLUMNS
    assert {row["seq"] for row in rows} == {str(line["seq"]) for line in span(told, "", "")}
    command = next(row for row in rows if row["kind"] == "command")
    assert (command["variables"], command["source"]) == ('{"AVAIL": 50}', "smgw")
    trace = next(row for row in rows if row["kind"] == "trace")
    assert (trace["grid_w"], trace["controllable_w"]) == ("13000", "12000")
    setpoints = [row for row in rows if row["kind"] == "setpoints"]
    assert {row["wallbox"] for row in setpoints} == {"E1", "E2"}
    assert all(float(row["wanted_a"]) > 0 for row in setpoints)


def test_json_is_grouped_by_event(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "export", "--format", "json", "--state-dir", str(told)]) == 0
    document = json.loads(capsys.readouterr().out)
    (event,) = document["events"]
    assert [command["variables"] for command in event["command"]] == [{"AVAIL": 50}, {"AVAIL": 100}]
    assert event["effective"][0]["how"] == "already below"
    assert len(event["trace"]) == 2
    assert event["release"][0]["limits"] == {"connection_power_w": 55000}
    # start and stop have the clock of this machine, which differs from that of the story
    assert {line["kind"] for line in document["others"]} >= {"start"}
    assert document == json.loads(json.dumps(grouped(span(told, "", ""))))


def test_a_span_is_cut_out(written: Path) -> None:
    assert [line["seq"] for line in span(written, "2026-11-22T12:00:03+00:00", "2026-11-22T12:00:05Z")] == [4, 5]
    assert len([*span(written, "2026-12-07", "2026-12-07")]) == 4
    with pytest.raises(ValueError, match="a day or a time is expected"):
        span(written, "yesterday", "")


def test_wrong_times_and_no_journal_are_told(tmp_path: Path, written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "export", "--from", "11/22", "--state-dir", str(written)]) == 1
    assert "11/22: a day or a time is expected" in capsys.readouterr().err
    assert main(["journal", "verify", "--state-dir", str(tmp_path / "elsewhere")]) == 1
    assert "there is no journal" in capsys.readouterr().err


def test_formulas_do_not_come_alive_in_a_spreadsheet(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write("command", source="=1+1", peer="-x")
    out = io.StringIO()
    write_csv(span(tmp_path, "", ""), out)
    row = [*csv.DictReader(io.StringIO(out.getvalue()))][-1]
    assert (row["source"], row["peer"]) == ("'=1+1", "'-x")


def test_an_empty_journal_is_fine(tmp_path: Path) -> None:
    assert Journal().outbox == ()
    Writer(tmp_path).files._close()
    report = verify(tmp_path)
    assert (report.problems, report.entries) == ([], 1)
