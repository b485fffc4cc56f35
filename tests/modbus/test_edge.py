"""The edge as a whole: what it follows, what it keeps alive, what it counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from statistics import median

import pytest

from bridge.errors import LinkError
from bridge.modbus.probe import probe
from tests.modbus.house import BOX, METER, House, box, configuration, meter, profile, snapshot
from tests.modbus.rogue import Asked, Rogue
from tests.modbus.test_sunspec import device

ARMED = (
    BOX
    + """
init: [{point: mode, value: 5}, {point: secret, value: 9}]
failsafe:
  current_a: 6
  timeout_s: 10
  writes: [{point: fallback, value: 6}, {point: timeout_s, value: 10}, {point: life, value: 1, when: life != 2}]
keepalive: {every_s: timeout_s / 100, writes: [{point: life, value: 1, when: life != 2}]}
"""
).replace(
    "\npoints:",
    """
points:
  mode: {address: 300, poll: once}
  secret: {address: 301, read: never}
  fallback: {address: 302, scale: 0.1, poll: once}
  timeout_s: {address: 303, poll: once}
  life: {address: 304, poll: once}""",
)


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    server = Rogue()
    server.registers[1].update({100: 3, 200: 160})
    yield server
    server.close()


def written(rogue: Rogue, address: int) -> list[Asked]:
    return [asked for asked in rogue.writes() if asked.address == address]


def test_a_box_is_armed_and_kept_alive(rogue: Rogue) -> None:
    with House([(box("E1", rogue.address, poll_s=60.0), ARMED)]) as house:
        assert house.online("E1")
        assert rogue.until(lambda: len(written(rogue, 304)) >= 4)
        assert [(a.address, a.words[0]) for a in rogue.writes()[:5]] == [
            (300, 5),
            (301, 9),
            (302, 60),
            (303, 10),
            (304, 1),
        ]
        # A tenth of a second each, although it is polled once a minute only.
        assert rogue.until(lambda: len(written(rogue, 304)) >= 12)
        beats = [asked.at for asked in written(rogue, 304)]
        assert median(b - a for a, b in pairwise(beats)) == pytest.approx(0.1, abs=0.05)


def test_flash_is_spared(rogue: Rogue) -> None:
    """Registers that hold the value already are not written, however often the connection is lost."""
    rogue.registers[1].update({300: 5, 302: 60, 303: 10, 304: 2})
    with House([(box("E1", rogue.address, poll_s=0.03), ARMED)]) as house:
        for times in (1, 2, 3):
            assert rogue.until(lambda n=times: len(written(rogue, 301)) == n)  # type: ignore[misc]
            rogue.hang_up()
        assert house.online("E1")
        assert {asked.address for asked in rogue.writes()} == {301}


def test_a_read_can_be_the_sign_of_life(rogue: Rogue) -> None:
    text = BOX + "keepalive: {every_s: 0.05, read: state}\n"
    with House([(box("E1", rogue.address, poll_s=60.0), text)]) as house:
        assert house.online("E1")
        met = len(rogue.asked)
        assert rogue.until(lambda: len(rogue.asked) > met + 5)
        assert {(asked.address, asked.count) for asked in rogue.asked[-3:]} == {(100, 1)}


def test_a_box_that_hangs_up_after_each_answer_is_kept_alive(rogue: Rogue) -> None:
    rogue.parting = True
    text = BOX.replace("setpoint:", "  life: {address: 300, read: never}\nsetpoint:")
    text += "keepalive: {every_s: 0.1, writes: [{point: life, value: 1}]}\n"
    with House([(box("E1", rogue.address), text)]) as house:
        assert house.online("E1")
        assert rogue.until(lambda: len([write for write in rogue.writes() if write.address == 300]) >= 3)


def test_poll_classes(rogue: Rogue) -> None:
    text = METER.replace("scale: 0.1}", "scale: 0.1, poll: slow}\n  serial: {address: 50, type: u32, poll: once}")
    with House([(meter("M1", rogue.address, poll_s=0.03), text)]) as house:
        assert house.until(lambda: len(house.reads("M1")) > 14)
    asked = [a.address for a in rogue.asked]
    assert asked.count(50) == 1
    polls = asked.count(10) - 1  # the first time it was met; the last poll may have been cut short
    assert polls >= 13
    assert asked.count(12) - 1 in (polls // 10, (polls - 1) // 10)


def test_devices_come_change_and_go(rogue: Rogue) -> None:
    other = Rogue()
    other.registers[1].update({100: 2, 200: 320})
    with House([(box("E1", rogue.address), BOX), (meter("M1", rogue.address, 2), METER)]) as house:
        assert house.online("E1")
        assert house.online("M1")
        house.offer(E1=10.0)
        assert house.holds("E1", 10.0)
        house.profiles["E2"] = profile(BOX)
        house.config = configuration([replace(box("E1", rogue.address), priority=7), box("E2", other.address)])
        house.offer(E1=10.0, E2=8.0)
        assert house.holds("E2", 8.0)
        assert rogue.accepted == 1, "a change that does not concern the connection does not interrupt it"
        polled = len(house.reads("M1"))
        seen = len(house.reads("E1"))
        assert house.until(lambda: len(house.reads("E1")) > seen + 3)
        assert len(house.reads("M1")) <= polled + 1

        house.config = configuration([box("E1", other.address)])
        house.offer(E1=6.0)
        assert house.holds("E1", 6.0)
        assert other.registers[1][200] == 60
    other.close()


@pytest.mark.parametrize(("moved", "left"), [(False, 100), (True, 60)])
def test_a_box_that_is_looked_for_elsewhere_is_left_at_a_safe_current(rogue: Rogue, moved: bool, left: int) -> None:
    with House([(box("E1", rogue.address), BOX)]) as house:
        assert house.online("E1")
        house.offer(E1=10.0)
        assert house.holds("E1", 10.0)
        where = "127.0.0.1:9" if moved else rogue.address
        house.edge.hand_over(configuration([box("E1", where, poll_s=0.5)]))
        assert rogue.registers[1][200] == left


def test_offering_is_quick_and_wakes_nobody_without_need(rogue: Rogue) -> None:
    with House([(box("E1", rogue.address), BOX)]) as house:
        assert house.online("E1")
        same = snapshot(house.config, {"E1": 10.0}, 1)
        house.edge.offer(same)
        began = time.thread_time()  # what others do on this machine does not count
        for _ in range(1000):
            house.edge.offer(same)
        assert (time.thread_time() - began) / 1000 < 0.0005


def test_metrics_count_writes_by_register(rogue: Rogue) -> None:
    with House([(box("E1", rogue.address), BOX)]) as house:
        assert house.online("E1")
        house.offer(E1=10.0)
        assert house.holds("E1", 10.0)
        found = {(name, *labels.values()): value for name, labels, value in house.edge.metrics()}
        assert found["modbus_writes_total", "E1", "set_current"] == 1
        assert found["modbus_connects_total", rogue.address] == 1
        assert found["modbus_timeouts_total", rogue.address] == 0


def test_sunspec_models_that_move_are_found_again(rogue: Rogue) -> None:
    """As when an inverter is switched from integer to float models while we are connected."""
    text = """
vendor: Test
model: SunSpec
kind: meter
connection: {allow_gaps: true}
points:
  power_w: {sunspec: {model: [203, 213], point: W}}
"""
    here = rogue.registers[1]
    here.update(device(40000, (1, 66), (203, 105)))
    here.update({40070 + 18: 123, 40070 + 22: 1})
    with House([(meter("M1", rogue.address, poll_s=0.03), text)]) as house:
        assert house.online("M1")
        assert house.newest("M1") == {"power_w": 1230.0}
        here.clear()
        here.update(device(40000, (1, 66), (213, 124)))
        here.update({40070 + 28: 0x4366, 40070 + 29: 0})
        assert house.until(lambda: house.newest("M1") == {"power_w": 230.0})


def test_a_wrong_model_is_told_once(rogue: Rogue, caplog: pytest.LogCaptureFixture) -> None:
    text = BOX + 'identify: {state: "B"}\n'
    with House([(box("E1", rogue.address), text)]) as house:
        assert house.online("E1")
        assert house.until(lambda: len(house.reads("E1")) > 4)
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == ["E1: state: C is not what a  says (B)"]


def test_probe_tells_what_is_hard_to_believe(rogue: Rogue) -> None:
    rogue.registers[1].update({10: 0, 11: 500, 12: 40000})
    rows = {row.quantity: row for row in probe(rogue.address, profile(METER), 1)}
    assert (rows["power_w"].value, rows["power_w"].unit, rows["power_w"].raw, rows["power_w"].note) == (
        500.0,
        "W",
        (0, 500),
        "",
    )
    assert "hard to believe" in rows["voltage_l1_v"].note
    assert "power_w" in str(rows["power_w"])


@pytest.mark.parametrize(
    ("timeout_s", "amperes", "notes"),
    [
        (120, 60, ("", "")),
        (15, 60, ("shorter than twice the 10 s", "")),
        (0, 160, ("off: without the bridge", "above the 6 A that are safe")),
    ],
)
def test_probe_shows_a_watchdog_that_would_fight_us(
    rogue: Rogue, timeout_s: int, amperes: int, notes: tuple[str, str]
) -> None:
    text = ARMED.replace("fallback", "failsafe_a").replace("timeout_s: {", "failsafe_s: {")
    text = text.replace("point: timeout_s", "point: failsafe_s").replace("timeout_s / 100", "10")
    text = text.replace("timeout_s: 10\n", "timeout_s: 30\n")
    rogue.registers[1].update({302: amperes, 303: timeout_s})
    rows = {row.quantity: row for row in probe(rogue.address, profile(text), 1)}
    found = [rows[name] for name in ("failsafe_s", "failsafe_a")]
    assert [(row.value, row.unit) for row in found] == [(timeout_s, "s"), (amperes / 10, "A")]
    for row, note in zip(found, notes, strict=True):
        assert row.note.startswith(note)
        assert bool(row.note) is bool(note)
        assert not note or row.note.endswith("the bridge will set it")
    assert rows["refresh_s"].value == 10.0
    assert not rogue.writes()


def test_probe_of_nobody_is_an_error(rogue: Rogue) -> None:
    rogue.silent = {1}
    quick = profile(METER + "connection: {timeout_ms: 100}\n")
    with pytest.raises(LinkError, match="unit 1 does not answer"):
        probe(rogue.address, quick, 1)
    rogue.close()
    with pytest.raises(LinkError, match="connecting failed"):
        probe(rogue.address, quick, 1)


WATCHED = ARMED.replace("fallback", "set_failsafe_a").replace("timeout_s: {", "set_failsafe_s: {")
WATCHED = WATCHED.replace("point: timeout_s,", "point: set_failsafe_s,").replace(
    "every_s: timeout_s / 100", "every_s: 3"
)


def watchdog_told(house: House) -> list[object]:
    values = house.reads("E1")[-1].values if house.reads("E1") else {}
    return [values.get(name) for name in ("failsafe_a", "failsafe_s", "refresh_s")]


def test_a_box_tells_what_it_does_without_us(rogue: Rogue) -> None:
    """As it is set once it is armed; what was read before that would be history."""
    with House([(box("E1", rogue.address), WATCHED)]) as house:
        assert house.until(lambda: watchdog_told(house) == [6.0, 10.0, 3.0])
        assert [link.reason for link in house.of_link("E1")] == [""]


def test_a_watchdog_shown_elsewhere_is_looked_at_after_it_was_set(rogue: Rogue) -> None:
    """As the KEBA does: one register is written, another shows it."""
    text = WATCHED.replace("{address: 303, poll: once}", "{address: 303, read: never}")
    text = text.replace("\npoints:", "\npoints:\n  failsafe_s: {address: 305, poll: once}")

    def follows(asked: Asked, frame: bytes) -> bytes:
        if asked.words and asked.address == 303:
            rogue.registers[1][305] = asked.words[0]
        return frame

    rogue.registers[1][305] = 1
    rogue.manners = follows
    with House([(box("E1", rogue.address), text)]) as house:
        assert house.until(lambda: watchdog_told(house) == [6.0, 10.0, 3.0])
        assert [link.reason for link in house.of_link("E1")] == [""]


@pytest.mark.parametrize(
    ("address", "kept", "worry"),
    [
        (303, 5, "its own watchdog, failsafe_s: shorter than twice the 3 s"),
        (303, 0, "its own watchdog, failsafe_s: off"),
        (302, 160, "its own watchdog, failsafe_a: above the 6 A"),
    ],
)
def test_a_watchdog_that_would_fight_us_raises_an_alarm(rogue: Rogue, address: int, kept: int, worry: str) -> None:
    def stubborn(asked: Asked, frame: bytes) -> bytes:
        rogue.registers[1][address] = kept
        return frame

    rogue.registers[1][address] = kept
    rogue.manners = stubborn
    with House([(box("E1", rogue.address), WATCHED)]) as house:
        assert house.until(lambda: house.of_link("E1") and house.of_link("E1")[-1].reason)
        (*_, last) = house.of_link("E1")
        assert last.online
        assert worry in last.reason


def test_a_box_without_a_watchdog_tells_none(rogue: Rogue) -> None:
    with House([(box("E1", rogue.address), BOX)]) as house:
        assert house.until(lambda: len(house.reads("E1")) > 4)
        assert watchdog_told(house) == [None, None, None]
