"""Finding out what a device is, and whether its watchdog and the bridge would get on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest

from bridge.__main__ import main
from bridge.errors import LinkError
from bridge.modbus.discover import Found, discover
from bridge.modbus.load import available, load
from bridge.modbus.load import read as read_file
from bridge.modbus.profile import Profile
from bridge.modbus.watchdog import refresh_s, worries
from tests.modbus.images import image, sunspec
from tests.modbus.rogue import Asked, Rogue
from tests.modbus.test_profiles import read


@cache
def hasty() -> tuple[Profile, ...]:
    """All profiles, without the pauses their devices want."""
    profiles = map(read_file, available().values())
    return tuple(replace(p, connection=replace(p.connection, gap_ms=0, write_gap_ms=0)) for p in profiles)


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    server = Rogue()
    server.strict = True
    yield server
    server.close()


def furnish(rogue: Rogue, name: str) -> None:
    unit = load(name).connection.unit
    rogue.registers[unit].update({address: word for (_, address), word in image(name).items()})


def names(found: list[Found]) -> list[str]:
    return [one.profile for one in found]


@pytest.mark.parametrize(
    "name",
    [
        *("keba-p30", "keba-p40", "goe", "cfos-power-brain", "peblar", "victron-evcs", "phoenix-em-eth"),
        *("abb-b2x", "cg-em24-e1", "shelly-pro3em", "sma-inverter", "kostal-plenticore", "vestel-evc04"),
    ],
)
def test_a_device_is_recognised(rogue: Rogue, name: str) -> None:
    furnish(rogue, name)
    found = discover(rogue.address, hasty())
    assert names(found)[0] == name
    assert (found[0].unit, found[0].address) == (load(name).connection.unit, rogue.address)
    assert found[0].evidence
    assert not rogue.writes()
    assert len(set(rogue.asked)) == len({a[1:] for a in rogue.asked}) == len(rogue.asked)


def test_meters_that_cannot_be_told_apart_are_all_named(rogue: Rogue) -> None:
    furnish(rogue, "eastron-sdm630")
    assert {"eastron-sdm630", "eastron-sdm72v2"} <= {*names(discover(rogue.address, hasty()))}


@pytest.mark.parametrize(("maker", "ksem"), [("KOSTAL", True), ("Fronius", False)])
def test_a_sunspec_device_is_recognised_by_its_models_and_maker(rogue: Rogue, maker: str, ksem: bool) -> None:
    registers, _ = sunspec(1, 213)
    for unit in (1, 71):
        rogue.registers[unit].update({address: word for (_, address), word in registers.items()})
        for place in range(16):
            rogue.registers[unit][40004 + place] = int.from_bytes(maker.encode().ljust(32, b"\0")[2 * place :][:2])
    found = names(discover(rogue.address, hasty()))
    assert "sunspec-meter" in found
    assert "sunspec-inverter" not in found
    assert ("ksem-sunspec" in found) is ksem


def test_numbers_that_cannot_be_true_speak_against_a_profile(rogue: Rogue) -> None:
    furnish(rogue, "keba-p30")
    for place in range(1040, 1046):
        rogue.registers[255][place] = 60000
    assert not discover(rogue.address, hasty())


def test_units_that_keep_silent_cost_one_timeout_each(rogue: Rogue) -> None:
    furnish(rogue, "keba-p30")
    rogue.silent = {*range(256)} - {255}
    few = [profile for profile in hasty() if profile.connection.unit in (1, 50, 255)]
    assert names(discover(rogue.address, few))[0] == "keba-p30"
    assert len([a for a in rogue.asked if a.unit != 255]) == 2, "one question to each, then it is believed to be silent"


def test_a_device_that_hangs_up_on_what_it_does_not_know_is_recognised(rogue: Rogue) -> None:
    furnish(rogue, "keba-p30")

    def manners(asked: Asked, frame: bytes) -> bytes:
        if asked.unit != 255:
            raise ConnectionAbortedError
        return frame

    rogue.manners = manners
    few = [profile for profile in hasty() if profile.connection.unit in (1, 50, 255)]
    assert names(discover(rogue.address, few)) == ["keba-p30"]


def test_the_command_says_what_it_found(
    rogue: Rogue,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = {name: available()[name] for name in ("victron-evcs", "goe", "eastron-sdm630")}
    monkeypatch.setattr("bridge.modbus.load.available", lambda folders: few)
    furnish(rogue, "victron-evcs")
    assert main(["probe", rogue.address, "--unit", "1", "--json"]) == 0
    (found,) = [f for f in json.loads(capsys.readouterr().out) if f["profile"] == "victron-evcs"]
    assert found["evidence"]["product"] == 49189
    rogue.registers.clear()
    assert main(["probe", rogue.address, "--unit", "1"]) == 1
    assert "no profile fits" in capsys.readouterr().out
    assert caplog.messages == [f"{rogue.address} takes connections; units that answer: 1"]


def test_nobody_there_is_an_error(rogue: Rogue) -> None:
    rogue.close()
    with pytest.raises(LinkError, match="connecting failed"):
        discover(rogue.address, hasty())


@pytest.mark.parametrize("name", ["keba-p30", "heidelberg-ec", "delta-acmax", "vestel-evc04"])
def test_the_watchdogs_of_known_boxes_are_looked_at(name: str) -> None:
    device = load(name)
    registers, _ = read(name, image(name, failsafe_timeout=1, failsafe_timeout_rb=1, watchdog_ms=1000))
    period_s = refresh_s(device, registers.known)
    assert any("shorter than twice" in worry for _, worry in worries(device, registers.known, period_s))
