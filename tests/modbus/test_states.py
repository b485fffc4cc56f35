"""Devices that misbehave for good: each shows a clear state, and the log speaks of it once, not at every poll."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator

import pytest

from bridge.core.events import Link, Read
from tests.core.sites import House as Core
from tests.core.sites import site
from tests.modbus.house import BOX, METER, House, box, meter
from tests.modbus.rogue import Asked, Rogue

QUICK = "connection: {timeout_ms: 80}\n"


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    server = Rogue()
    server.registers[1].update({10: 0, 11: 1000, 12: 2300, 100: 3, 200: 160})
    yield server
    server.close()


def exception(code: int) -> Callable[[Asked, bytes], bytes]:
    return lambda asked, frame: frame[:4] + struct.pack(">HBBB", 3, asked.unit, asked.function | 0x80, code)


def late(asked: Asked, frame: bytes) -> bytes:
    time.sleep(0.6)  # far more than the 80 ms of QUICK, so that a loaded machine does not take it for in time
    return frame


def hang_up(asked: Asked, frame: bytes) -> bytes:
    raise ConnectionAbortedError


LASTING: dict[str, tuple[Callable[[Asked, bytes], bytes | None], str]] = {
    "wrong unit": (lambda asked, frame: None, "unit 1 does not answer"),
    "wrong unit behind a gateway": (exception(11), "unit 1 does not answer"),
    "wrong function": (exception(1), "refuses every register"),
    "device failure": (exception(4), "refuses every register"),
    "late": (late, "unit 1 does not answer"),
    "short": (
        lambda asked, frame: frame[:4] + struct.pack(">HBBB", 3, 1, 3, 0),
        "instead of|cannot be read",
    ),
    "cut off": (lambda asked, frame: frame[:-1], "unit 1 does not answer"),
    "wrong transaction": (lambda asked, frame: b"\xde\xad" + frame[2:], "to another request"),
    "garbage in front": (lambda asked, frame: b"\xff\x00\xff\x00\xff" + frame, "no Modbus frame"),
    "hangs up": (hang_up, "closed the connection"),
}


@pytest.mark.parametrize("deed", LASTING)
def test_what_is_wrong_is_said_once(rogue: Rogue, caplog: pytest.LogCaptureFixture, deed: str) -> None:
    caplog.set_level("INFO", "bridge")
    rogue.manners, reason = LASTING[deed]
    with House([(meter("M1", rogue.address), METER + QUICK)]) as house:
        assert house.until(lambda: house.of(Link, "M1"))
        seen = len(rogue.asked)
        assert rogue.until(lambda: len(rogue.asked) >= seen + 2 or "refuses" in reason)
        links = house.of(Link, "M1")
        assert not any(link.online for link in links)  # type: ignore[attr-defined]
        assert house.until(lambda: any(_fits(reason, link) for link in house.of(Link, "M1"))), links
        said = [r.message for r in caplog.records if r.levelname != "DEBUG"]
        assert len(said) <= 4
        assert len(said) == len(set(said))
        rogue.manners = lambda asked, frame: frame
        assert "refuses" in reason or house.online("M1")  # a wrong profile may wait for longer


def _fits(reason: str, link: object) -> bool:
    return isinstance(link, Link) and any(part in link.reason for part in reason.split("|"))


TWO_BLOCKS = METER.replace("{address: 12, scale: 0.1}", "{address: 20, scale: 0.1}")


def test_a_device_that_hangs_up_after_each_answer_works(rogue: Rogue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bridge")
    rogue.registers[1][20] = 2300
    rogue.parting = True
    devices = [(meter("M1", rogue.address, poll_s=0.2), TWO_BLOCKS), (box("E1", rogue.address, poll_s=0.2), BOX)]
    with House(devices) as house:
        assert house.online("M1")
        assert house.met("E1")
        assert house.until(lambda: len(house.reads("M1")) > 3)
        assert dict(house.reads("M1")[-1].values) == {"power_w": 1000.0, "voltage_l1_v": 230.0}
        house.offer(E1=10.0)
        assert house.holds("E1", 10.0)
        assert [link.online for link in house.of(Link, "M1")] == [True]  # type: ignore[attr-defined]
        assert len([r for r in caplog.records if r.levelname != "DEBUG"]) <= 4


def test_it_is_not_met_anew_more_often_than_it_can_bear(rogue: Rogue) -> None:
    rogue.parting = True
    with House([(meter("M1", rogue.address, poll_s=0.2), METER)]) as house:
        assert house.online("M1")
        began, seen = time.monotonic(), len(rogue.asked)
        assert house.until(lambda: len(house.reads("M1")) > 5)
        assert (len(rogue.asked) - seen) / (time.monotonic() - began) < 15


def test_a_device_for_one_client_that_is_taken_says_so(rogue: Rogue) -> None:
    rogue.taken = True
    with House([(box("E1", rogue.address), BOX + QUICK)]) as house:
        assert house.until(lambda: house.of(Link, "E1"))
        assert house.until(lambda: any(_fits("closed the connection", link) for link in house.of(Link, "E1")))
        assert not any(link.online for link in house.of(Link, "E1"))  # type: ignore[attr-defined]
        rogue.taken = False
        assert house.online("E1")


@pytest.mark.parametrize("wait_ms", [0, 500])
def test_a_device_that_wants_a_pause_after_connecting(rogue: Rogue, wait_ms: int) -> None:
    rogue.manners = lambda asked, frame: frame if asked.at > rogue.since + 0.1 else None
    text = BOX + f"connection: {{timeout_ms: 80, wait_after_connect_ms: {wait_ms}}}\n"
    with House([(box("E1", rogue.address), text)]) as house:
        assert house.online("E1")
        assert (rogue.accepted > 1) is (wait_ms == 0)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (METER.replace("type: i32", "type: i32, word_order: le"), "power_w"),
        (METER.replace("scale: 0.1", "scale: 1"), "voltage_l1_v"),
        (METER.replace("voltage_l1_v: {address: 12", "import_wh: {address: 13, type: i16"), "import_wh"),
        (METER.replace("voltage_l1_v: {address: 12", "frequency_hz: {address: 12"), "frequency_hz"),
    ],
    ids=["word order", "scale", "a counter below 0", "frequency"],
)
def test_what_cannot_be_true_raises_an_alarm_and_is_said_once(
    rogue: Rogue, caplog: pytest.LogCaptureFixture, text: str, names: str
) -> None:
    rogue.registers[1].update({11: 3000, 13: 0x8001})
    with House([(meter("M1", rogue.address), text)]) as house:
        assert house.until(lambda: len(house.reads("M1")) > 3)
        (link,) = house.of(Link, "M1")
        assert isinstance(link, Link)
        assert link.online
        assert link.reason == f"hard to believe: {names}; is the profile right, and the unit?"
    assert len([r for r in caplog.records if "hard to believe" in r.message]) == 1


def test_the_alarm_names_the_device() -> None:
    house = Core(site())
    house.happen(Link("E1", True, "hard to believe: power_w"), Read("E1", {"state": "B"}, house.mono))
    assert house.snapshot.decision.alarms["E1_doubtful"] == "E1: hard to believe: power_w"
    house.happen(Link("E1", True))
    assert "E1_doubtful" not in house.snapshot.decision.alarms
