"""Registers, watchdogs and refusals of the simulated devices, request by request."""

import struct
from random import Random

import pytest

from bridge.simulator.car import MODELS, Car
from bridge.simulator.cfos import Cfos
from bridge.simulator.device import Device
from bridge.simulator.heidelberg import Heidelberg
from bridge.simulator.house import House
from bridge.simulator.keba import Keba
from bridge.simulator.meter import Sdm630
from bridge.simulator.wallbox import Wallbox
from bridge.simulator.world import World

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, GATEWAY = 1, 2, 3, 11


def ask(device: Device, *fields: int, function: int, unit: int | None = None) -> bytes | None:
    """Send words after a function code; the answer without its function code."""
    pdu = struct.pack(f">B{len(fields)}H", function, *fields)
    reply = device.answer(device.unit if unit is None else unit, pdu)
    return None if reply is None else reply[1:] if reply[0] == function else b"!" + reply[1:]


def read(device: Device, address: int, count: int = 1, function: int = 3) -> int:
    """The words read as one unsigned number."""
    reply = ask(device, address, count, function=function)
    assert reply is not None
    assert reply[0] == 2 * count, f"refused: {reply!r}"
    return int.from_bytes(reply[1:], "big")


def write(device: Device, address: int, value: int) -> None:
    assert ask(device, address, value, function=6) == struct.pack(">HH", address, value)


def refused(reply: bytes | None) -> int:
    assert reply is not None
    assert reply[:1] == b"!"
    return reply[1]


def write_words(device: Device, address: int, *values: int) -> bytes | None:
    data = struct.pack(f">BHHB{len(values)}H", 16, address, len(values), 2 * len(values), *values)
    reply = device.answer(device.unit, data)
    return reply if reply is None or reply[0] == 16 else b"!" + reply[1:]


def make(kind: type[Wallbox], lines: tuple[int, ...] = (1, 2, 3)) -> Wallbox:
    return kind("E1", Car.drawn(MODELS[0], Random(1)), lines)


def charge(*boxes: Wallbox, seconds: float = 40.0) -> Sdm630:
    """Let cars charge at one house connection; the meter there."""
    meter = Sdm630()
    world = World(House(1), boxes, [("wallbox", meter)])
    for box in boxes:
        if not box.car.plugged:
            box.car.plug()
    for _ in range(round(seconds / 0.1)):
        world.advance(0.1)
    return meter


# ------------------------------------------------------------------------------------------------ register maps


def test_keba_tells_the_car_in_its_units() -> None:
    box = make(Keba)
    assert (read(box, 1000, 2), read(box, 1004, 2)) == (1, 3)
    write(box, 5004, 10_500)
    charge(box)
    assert (read(box, 1000, 2), read(box, 1004, 2)) == (3, 7)
    assert [read(box, address, 2) for address in (1008, 1010, 1012)] == [10_500] * 3
    assert read(box, 1100, 2) == 10_500
    assert read(box, 1020, 2) == pytest.approx(3 * 230 * 10.5 * 1000, rel=0.01)
    assert read(box, 1502, 2) == pytest.approx(10 * box.energy_wh, abs=1) != 0
    assert read(box, 1040, 2) in (229, 230)
    assert str(read(box, 1016, 2)).startswith("3")
    write(box, 5014, 0)
    charge(box, seconds=6.0)
    assert (read(box, 1000, 2), read(box, 1008, 2), read(box, 1100, 2)) == (5, 0, 0)


def test_keba_answers_one_value_a_request_and_nothing_else() -> None:
    box = make(Keba)
    for address, count in ((1008, 4), (1008, 1), (1009, 2), (1002, 2), (5004, 1)):
        assert refused(ask(box, address, count, function=3)) == ILLEGAL_ADDRESS, (address, count)
    assert refused(write_words(box, 5004, 10_000)) == ILLEGAL_FUNCTION
    for address, value, code in ((5004, 5999, ILLEGAL_VALUE), (5014, 2, ILLEGAL_VALUE), (5005, 1, ILLEGAL_ADDRESS)):
        assert refused(ask(box, address, value, function=6)) == code


def test_keba_is_silent_under_another_unit_and_the_gateway_is_not() -> None:
    assert ask(make(Keba), 1000, 2, function=3, unit=1) is None
    assert refused(ask(make(Heidelberg), 4, 1, function=4, unit=7)) == GATEWAY


def test_heidelberg_tells_the_car_in_its_units() -> None:
    box = make(Heidelberg)
    assert read(box, 5, function=4) == 3
    write(box, 257, 0)  # its watchdog is armed from the factory
    write(box, 261, 99)
    charge(box)
    assert read(box, 261) == 99
    assert read(box, 5, function=4) == 7
    assert read(box, 6, 3, function=4) == 99 << 32 | 99 << 16 | 99
    assert read(box, 14, function=4) == pytest.approx(3 * 230 * 9.9, rel=0.01)
    assert read(box, 17, 2, function=4) == round(box.energy_wh) != 0
    write(box, 261, 59)  # less than 6 A is a pause
    charge(box, seconds=6.0)
    assert (read(box, 5, function=4), read(box, 6, function=4)) == (4, 0)


def test_heidelberg_knows_its_ranges() -> None:
    box = make(Heidelberg)
    assert refused(ask(box, 3, 2, function=4)) == ILLEGAL_ADDRESS
    assert refused(ask(box, 18, 2, function=4)) == ILLEGAL_ADDRESS
    assert refused(ask(box, 259, 2, function=3)) == ILLEGAL_ADDRESS
    assert refused(ask(box, 261, 161, function=6)) == ILLEGAL_VALUE
    assert write_words(box, 261, 100, 60) == struct.pack(">BHH", 16, 261, 2)
    assert (read(box, 261), read(box, 262)) == (100, 60)
    assert refused(write_words(box, 261, 120, 59)) == ILLEGAL_VALUE
    assert read(box, 261) == 100  # all or none


def test_heidelberg_falls_asleep_unless_told_not_to() -> None:
    box, awake = make(Heidelberg), make(Heidelberg)
    write(awake, 258, 4)
    for sleeper in (box, awake):
        sleeper.car.change_s = float("inf")
        sleeper.step(601.0, (230.0, 230.0, 230.0))
    assert refused(ask(box, 4, 1, function=4)) == GATEWAY
    assert read(awake, 4, function=4) == 0x0108


def test_cfos_tells_the_car_in_its_units() -> None:
    box = make(Cfos)
    assert read(box, 8000, 2) == 0xCF050000
    assert read(box, 8092) == 0
    write(box, 8093, 125)
    charge(box)
    assert (read(box, 8092), read(box, 8093), read(box, 8095)) == (2, 125, 125)
    assert [read(box, address, 2) for address in (8064, 8066, 8068)] == [125] * 3
    assert read(box, 8062, 2) == pytest.approx(3 * 230 * 12.5, rel=0.01)
    assert read(box, 8058, 4) == round(box.energy_wh) != 0
    write(box, 8094, 0)
    charge(box, seconds=6.0)
    assert (read(box, 8092), read(box, 8095)) == (1, 0)


def test_cfos_settings_in_flash_wear_out_and_survive() -> None:
    box = make(Cfos)
    write(box, 8093, 100)
    assert not box.complaints
    assert write_words(box, 8083, 1, 20, 100) is not None
    assert box.timeout_s == 65_536 + 20
    assert box.complaints == {"flash written": 1}
    box.reboot()
    assert (read(box, 8083, 2), read(box, 8085), read(box, 8093)) == (65_556, 100, 320)


def test_cfos_connects_one_phase_and_minds_being_switched_under_load() -> None:
    box = make(Cfos)
    assert read(box, 8113) & 0x100
    write(box, 8094, 0)
    write(box, 8087, 1)
    write(box, 8094, 1)
    write(box, 8093, 125)
    charge(box)
    assert [read(box, address, 2) for address in (8064, 8066, 8068)] == [125, 0, 0]
    assert read(box, 8062, 2) == pytest.approx(230 * 12.5, rel=0.01)
    assert not box.complaints
    write(box, 8087, 0)
    assert box.complaints == {"switched under load": 1}
    charge(box)
    assert [read(box, address, 2) for address in (8064, 8066, 8068)] == [125] * 3


def test_keba_counts_callers_in_a_hurry() -> None:
    box = make(Keba)
    for _ in range(3):
        read(box, 1000, 2)
        box.wait(0.5)
        write(box, 5004, 10_000)
        box.wait(4.5)
    assert not box.complaints
    read(box, 1000, 2)
    read(box, 1000, 2)
    write(box, 5004, 10_000)
    write(box, 5004, 10_000)
    assert box.complaints == {"too quick": 2}


def test_the_meter_sees_every_line() -> None:
    one_line = make(Heidelberg, lines=(2,))
    write(one_line, 257, 0)
    meter = charge(make(Cfos), one_line)
    data = ask(meter, 0, 18, function=4)
    assert data is not None
    volts, amps, watts = (struct.unpack(">3f", data[1 + 12 * i : 13 + 12 * i]) for i in range(3))
    assert amps == (16.0, 32.0, 16.0)
    assert volts == pytest.approx([230 - 0.05 * a for a in amps], abs=0.5)  # and a little for the house
    assert watts == pytest.approx([v * a for v, a in zip(volts, amps, strict=True)])
    total = ask(meter, 52, 2, function=4)
    assert total is not None
    assert struct.unpack(">f", total[1:])[0] == pytest.approx(sum(watts))


def test_meters_see_what_their_role_says() -> None:
    box, meters = make(Cfos), {role: Sdm630() for role in ("grid", "wallbox", "consumption", "production")}
    box.car.plug()
    world = World(House(1), [box], list(meters.items()))
    for _ in range(400):
        world.advance(0.1)
    kwh = {}
    for role, meter in meters.items():
        reply = ask(meter, 72, 2, function=4)
        assert reply is not None
        kwh[role] = struct.unpack(">f", reply[1:])[0]
    assert kwh["wallbox"] == pytest.approx(box.energy_wh / 1000, rel=1e-3)
    assert kwh["grid"] == pytest.approx(kwh["wallbox"] + kwh["consumption"])
    assert kwh["consumption"] > kwh["production"] == 0.0


def test_the_meter_answers_at_most_fifty_words_and_zeros_between_values() -> None:
    meter = Sdm630()
    assert read(meter, 20, 50, function=4) is not None
    assert read(meter, 36, 2, function=4) == 0
    assert refused(ask(meter, 0, 51, function=4)) == ILLEGAL_VALUE
    assert refused(ask(meter, 357, 2, function=4)) == ILLEGAL_ADDRESS
    assert read(meter, 64512, 2) > 0


@pytest.mark.parametrize("pdu", [b"\x03", b"\x03\x00", b"\x03\x00\x05\x00\x00", b"\x10\x01\x05\x00\x01\x04\x00\x01"])
def test_malformed_requests_are_refused(pdu: bytes) -> None:
    assert make(Heidelberg).answer(1, pdu) == bytes((pdu[0] | 0x80, ILLEGAL_VALUE))


@pytest.mark.parametrize("function", [1, 2, 5, 15, 43])
def test_functions_no_device_has_are_refused(function: int) -> None:
    assert refused(ask(make(Heidelberg), 4, 1, function=function)) == ILLEGAL_FUNCTION


# ---------------------------------------------------------------------------------------------------- watchdogs


def arm_keba(box: Wallbox) -> None:
    write(box, 5004, 16_000)
    write(box, 5016, 6000)
    write(box, 5018, 10)


def arm_heidelberg(box: Wallbox) -> None:
    write(box, 261, 160)
    write(box, 262, 60)
    write(box, 257, 10_000)


def arm_cfos(box: Wallbox) -> None:
    write(box, 8093, 160)
    write_words(box, 8083, 0, 10, 60)


ARMED = [(Keba, arm_keba), (Heidelberg, arm_heidelberg), (Cfos, arm_cfos)]


@pytest.mark.parametrize(("kind", "arm"), ARMED)
def test_silence_lowers_the_car_to_the_failsafe_current_and_talking_raises_it(kind, arm) -> None:  # type: ignore[no-untyped-def]
    box = make(kind)
    arm(box)
    charge(box, seconds=9.9)
    assert box.offered_a == 16.0
    charge(box, seconds=10.0)
    assert box.expired
    assert box.car.current_a == 6.0
    arm(box)
    charge(box, seconds=9.9)
    assert box.car.current_a > 12.0


def test_only_the_heartbeat_register_feeds_a_keba() -> None:
    box = make(Keba)
    arm_keba(box)
    for _ in range(11):
        read(box, 1000, 2)
        write(box, 5004, 16_000)
        box.wait(1.0)
    assert box.offered_a == 6.0
    write(box, 5018, 10)
    assert box.offered_a == 16.0


def test_a_heidelberg_nobody_talks_to_pauses() -> None:
    box = make(Heidelberg)
    charge(box, seconds=25.0)
    assert (box.offered_a, box.car.state) == (0.0, "B")


def test_any_request_feeds_a_heidelberg() -> None:
    box = make(Heidelberg)
    arm_heidelberg(box)
    for _ in range(20):
        box.wait(1.0)
        read(box, 4, function=4)
    assert box.offered_a == 16.0


@pytest.mark.parametrize(("kind", "arm", "offered_a"), [(Keba, arm_keba, 32.0), (Heidelberg, arm_heidelberg, 16.0)])
def test_a_reboot_forgets_the_setpoint_and_the_failsafe(kind, arm, offered_a: float) -> None:  # type: ignore[no-untyped-def]
    box = make(kind)
    fresh = dict(box.held)
    arm(box)
    box.reboot()
    assert box.held == fresh
    assert box.offered_a == offered_a


def test_a_keba_keeps_the_failsafe_it_was_told_to_store() -> None:
    box = make(Keba)
    arm_keba(box)
    write(box, 5020, 1)
    box.reboot()
    assert (read(box, 1600, 2), read(box, 1602, 2)) == (6000, 10)


def test_accelerated_time_leaves_the_watchdogs_in_real_time() -> None:
    box = make(Heidelberg)
    box.car.plug()
    world = World(House(1), [box], [], speed=600.0)
    arm_heidelberg(box)
    world.advance(9.0)
    assert box.offered_a == 16.0
    assert box.energy_wh > 10_000.0
    world.advance(1.0)
    assert box.offered_a == 6.0
