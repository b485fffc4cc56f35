"""What a device can do to us, and that the edge is over it soon."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator

import pytest

from bridge.core.events import Link
from tests.modbus.house import BOX, METER, House, box, meter
from tests.modbus.rogue import Asked, Rogue

QUICK = BOX + "connection: {timeout_ms: 100}\n"


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    server = Rogue()
    server.registers[1].update({100: 3, 200: 160})
    yield server
    server.close()


Deed = Callable[[Rogue, bytes], bytes | None]
"""What is sent instead of the right frame."""


def once(rogue: Rogue, deed: Deed) -> None:
    """Do it to the next request only."""
    done: list[bool] = []

    def manners(asked: Asked, frame: bytes) -> bytes | None:
        if done:
            return frame
        done.append(True)
        return deed(rogue, frame)

    rogue.manners = manners


def hang_up(rogue: Rogue, frame: bytes) -> bytes:
    raise ConnectionAbortedError


def late(rogue: Rogue, frame: bytes) -> bytes:
    """Not before the bridge has given it up, which it shows by connecting anew."""
    seen = rogue.accepted
    rogue.until(lambda: rogue.accepted > seen)
    return frame


DEEDS: dict[str, Deed] = {
    "silent": lambda rogue, frame: None,
    "late": late,
    "hang up": hang_up,
    "wrong number": lambda rogue, frame: struct.pack(">H", 0xDEAD) + frame[2:],
    "the answer before": lambda rogue, frame: rogue.previous,
    "the answer before, then this": lambda rogue, frame: rogue.previous + frame,
    "wrong function": lambda rogue, frame: frame[:7] + bytes([frame[7] ^ 1]) + frame[8:],
    "too few words": lambda rogue, frame: frame[:4] + struct.pack(">HBBB", 3, 1, 3, 0),
    "no modbus": lambda rogue, frame: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "half an answer": lambda rogue, frame: frame[:-1],
    "twice": lambda rogue, frame: frame * 2,
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_setpoint_arrives_whatever_happens_on_its_way(rogue: Rogue, deed: str) -> None:
    with House([(box("E1", rogue.address), QUICK)]) as house:
        assert house.met("E1")
        once(rogue, DEEDS[deed])
        house.offer(E1=10.0)
        assert house.holds("E1", 10.0)
        assert rogue.registers[1][200] == 100
        assert house.online("E1")


TWO_BLOCKS = """
vendor: Test
model: Meter
kind: meter
connection: {timeout_ms: 100}
points:
  power_w: {address: 10, type: i32}
  import_wh: {address: 20, type: u32}
"""


@pytest.mark.parametrize("deed", DEEDS)
def test_readings_are_never_those_of_another_question(rogue: Rogue, deed: str) -> None:
    """Whatever the device did to one answer, no later reading may be shifted by one."""
    rogue.registers[1].update({10: 0, 11: 1000, 20: 0, 21: 2000})
    with House([(meter("M1", rogue.address), TWO_BLOCKS)]) as house:
        assert house.online("M1")
        once(rogue, DEEDS[deed])
        seen = len(house.reads("M1"))
        assert house.until(lambda: len(house.reads("M1")) > seen + 3)
        for read in house.reads("M1"):
            assert dict(read.values) == {"power_w": 1000.0, "import_wh": 2000.0}


@pytest.mark.parametrize("deed", ["silent", "late", "wrong number", "no modbus", "half an answer"])
def test_after_what_cannot_be_trusted_the_connection_is_a_fresh_one(rogue: Rogue, deed: str) -> None:
    with House([(box("E1", rogue.address), QUICK)]) as house:
        assert house.met("E1")
        once(rogue, DEEDS[deed])
        assert rogue.until(lambda: rogue.accepted == 2)
        assert house.until(lambda: len(house.reads("E1")) > 5)
        assert rogue.accepted == 2


def test_an_answer_in_pieces_is_an_answer(rogue: Rogue) -> None:
    with House([(box("E1", rogue.address), BOX + "connection: {timeout_ms: 10000}\n")]) as house:
        assert house.online("E1")
        polled = len(house.reads("E1"))

        def crumbs(asked: Asked, frame: bytes) -> bytes:
            connection = next(iter(rogue._open))
            for byte in frame[:-1]:
                connection.send(bytes([byte]))
                time.sleep(0.001)
            return frame[-1:]

        rogue.manners = crumbs
        assert house.until(lambda: len(house.reads("E1")) > polled + 2)
        assert rogue.accepted == 1


def test_a_rebooted_box_has_its_setpoint_within_two_seconds(rogue: Rogue) -> None:
    with House([(box("E1", rogue.address, poll_s=60.0), BOX)]) as house:
        assert house.online("E1")
        house.offer(E1=10.0)
        assert house.holds("E1", 10.0)
        port = rogue.port
        rogue.close()
        assert house.until(lambda: house.of(Link, "E1")[-1:] != [] and not house.of(Link, "E1")[-1].online)  # type: ignore[attr-defined]
        time.sleep(1.0)
        again = Rogue(port)
        try:
            again.registers[1].update({100: 3, 200: 320})
            assert again.until(lambda: again.registers[1][200] == 100)
            (write,) = again.writes()
            assert write.at - again.since < 2.0
            assert house.online("E1")
        finally:
            again.close()


def test_a_setpoint_that_changed_while_the_box_was_away_is_there_when_it_is_back(rogue: Rogue) -> None:
    with House([(box("E1", rogue.address), QUICK)]) as house:
        assert house.online("E1")
        rogue.silent = {1}
        assert house.until(lambda: not house.of(Link, "E1")[-1].online)  # type: ignore[attr-defined]
        house.offer(E1=7.0)
        rogue.silent = set()
        assert rogue.until(lambda: rogue.registers[1][200] == 70)
        assert house.holds("E1", 7.0)


def test_a_closed_connection_is_noticed_at_once_and_was_no_outage(rogue: Rogue) -> None:
    """The box reset its registers and its connection while nothing was asked: it is set right at once."""
    with House([(box("E1", rogue.address, poll_s=60.0), BOX)]) as house:
        assert house.online("E1")
        house.offer(E1=10.0)
        assert house.holds("E1", 10.0)
        rogue.registers[1][200] = 320
        rogue.hang_up()
        assert rogue.until(lambda: rogue.registers[1][200] == 100)
        assert len(house.of(Link, "E1")) == 1


def test_one_missing_register_costs_only_itself(rogue: Rogue, caplog: pytest.LogCaptureFixture) -> None:
    rogue.registers[1].update({11: 1000, 12: 2300})
    rogue.missing = {12}
    with House([(meter("M1", rogue.address), METER)]) as house:
        assert house.online("M1")
        assert house.until(lambda: len(house.reads("M1")) > 3)
        assert dict(house.reads("M1")[-1].values) == {"power_w": 1000.0}
        rogue.hang_up()
        assert house.until(lambda: len(house.reads("M1")) > 6)
    assert [r.message for r in caplog.records if "left out" in r.message] == [
        "M1: voltage_l1_v is left out: read of 12, unit 1, function 3: no such register"
    ]


def test_what_was_not_there_when_a_device_was_met_is_asked_for_again(
    rogue: Rogue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A meter that starts up more slowly than the bridge, after a power cut for one."""
    monkeypatch.setattr("bridge.modbus.device.MISSING_AGAIN_S", 0.3)
    rogue.registers[1].update({11: 1000, 12: 2300})
    rogue.missing = {10, 11}
    with House([(meter("M1", rogue.address), METER)]) as house:
        assert house.until(lambda: len(house.reads("M1")) > 5)
        assert dict(house.reads("M1")[-1].values) == {"voltage_l1_v": 2300 * 0.1}
        rogue.missing = set()
        assert house.until(lambda: house.reads("M1")[-1].values.get("power_w") == 1000.0)
    assert len([r for r in caplog.records if "power_w is left out" in r.message]) == 1


FLOAT = METER.replace("{address: 10, type: i32}", "{address: 10, type: f32}").replace("address: 12", "address: 20")


@pytest.mark.parametrize("code", [None, 2, 4, 6])
def test_what_is_no_longer_told_is_not_known_any_more(
    rogue: Rogue, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A meter whose power is suddenly not a number, or refused, must not seem to draw for ever what it last drew."""
    monkeypatch.setattr("bridge.core.config._POLLED_PATIENCE_S", 0.2)
    power = dict(enumerate(struct.unpack(">HH", struct.pack(">f", 5000.0)), 10))
    rogue.registers[1].update({**power, 20: 2300})

    def refuses(asked: Asked, frame: bytes) -> bytes:
        refusal = frame[:4] + struct.pack(">HBBB", 3, 1, frame[7] | 0x80, code or 0)
        return refusal if code and asked.address == 10 else frame

    with House([(meter("M1", rogue.address), FLOAT)]) as house:
        assert house.newest("M1")["power_w"] == 5000.0
        assert house.until(lambda: len(house.reads("M1")) > 3)
        if code is None:
            rogue.registers[1].update({10: 0x7FC0, 11: 0})
        rogue.manners = refuses
        assert house.until(lambda: any("power_w" in read.gone for read in house.reads("M1")))
        assert house.newest("M1") == {"voltage_l1_v": 230.0}
        assert house.of_link("M1")[-1].online
        rogue.registers[1].update(power)
        rogue.manners = lambda asked, frame: frame
        assert house.until(lambda: house.reads("M1")[-1].values.get("power_w") == 5000.0)
        assert not any("voltage_l1_v" in read.gone for read in house.reads("M1"))


def test_a_busy_device_is_asked_again_next_time(rogue: Rogue) -> None:
    def busy(rogue: Rogue, frame: bytes) -> bytes:
        return frame[:4] + struct.pack(">HBBB", 3, 1, frame[7] | 0x80, 6)

    rogue.registers[1].update({11: 1000, 12: 2300})
    with House([(meter("M1", rogue.address), METER)]) as house:
        assert house.online("M1")
        once(rogue, busy)
        seen = len(house.reads("M1"))
        assert house.until(lambda: len(house.reads("M1")) > seen + 2)
        assert dict(house.reads("M1")[-1].values) == {"power_w": 1000.0, "voltage_l1_v": 230.0}
        assert rogue.accepted == 1


def test_a_device_that_refuses_everything_says_so(rogue: Rogue) -> None:
    rogue.missing = set(range(1000))
    with House([(meter("M1", rogue.address), METER)]) as house:
        assert house.until(lambda: house.of(Link, "M1"))
        (link,) = house.of(Link, "M1")
        assert isinstance(link, Link)
        assert not link.online
        assert "refuses every register" in link.reason


@pytest.mark.parametrize("code", [2, 4, 6])
def test_a_device_that_begins_to_refuse_everything_says_so(
    rogue: Rogue, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bridge")
    rogue.registers[1].update({11: 1000, 12: 2300})
    with House([(meter("M1", rogue.address), METER)]) as house:
        assert house.newest("M1")
        rogue.manners = lambda asked, frame: frame[:4] + struct.pack(">HBBB", 3, 1, frame[7] | 0x80, code)
        assert house.until(lambda: "refuses every register" in house.of_link("M1")[-1].reason)
        seen = len(rogue.asked)
        assert rogue.until(lambda: len(rogue.asked) > seen + 5)
        rogue.manners = lambda asked, frame: frame
        assert house.until(lambda: house.of_link("M1")[-1].online)
        assert [link.online for link in house.of_link("M1")] == [True, False, True]
        assert len([record for record in caplog.records if "refuses every" in record.message]) == 1


def test_one_lost_answer_is_no_outage_two_are(rogue: Rogue) -> None:
    with House([(box("E1", rogue.address), QUICK)]) as house:
        assert house.met("E1")
        once(rogue, DEEDS["silent"])
        assert rogue.until(lambda: rogue.accepted == 2)
        seen = len(house.reads("E1"))
        assert house.until(lambda: len(house.reads("E1")) > seen + 2)
        assert len(house.of(Link, "E1")) == 1
        rogue.silent = {1}
        assert house.until(lambda: len(house.of(Link, "E1")) == 2)


def test_gaps_are_kept_and_writes_still_go_first(rogue: Rogue) -> None:
    text = SPLIT + "connection: {gap_ms: 40, write_gap_ms: 150, wait_after_connect_ms: 60}\n"
    with House([(box("E1", rogue.address), text)]) as house:
        assert house.met("E1")
        for amperes in (10.0, 9.0):
            house.offer(E1=amperes)
            assert house.holds("E1", amperes)
        gaps = [b.at - a.at for a, b in zip(rogue.asked, rogue.asked[1:], strict=False)]
        assert min(gaps) >= 0.039
        first, second = rogue.writes()
        assert second.at - first.at >= 0.149


SPLIT = BOX.replace("address: 101, type: u32", "address: 150, type: u32")
