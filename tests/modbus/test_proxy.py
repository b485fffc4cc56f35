"""The read-only door to a device that takes one client only. The logger is mbpoll where that is installed."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from bridge.modbus.proxy import CLIENTS
from tests.modbus.house import BOX, WAIT_S, House, box
from tests.modbus.rogue import Asked, Rogue

QUICK = BOX + "connection: {timeout_ms: 500}\n"


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    server = Rogue()
    server.registers[1].update({100: 3, 200: 160, 7: 1, 9: 1})
    server.registers[2].update({100: 77})
    yield server
    server.close()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
        return number


@pytest.fixture
def house(rogue: Rogue, port: int) -> Iterator[House]:
    with House([(replace(box("E1", rogue.address, poll_s=0.2), proxy=f"127.0.0.1:{port}"), QUICK)]) as house:
        assert house.met("E1")
        yield house


class Logger:
    """A client of the proxy, by hand."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self.stream = self.socket.makefile("rb")
        self.number = 0

    def ask(self, unit: int, body: bytes) -> bytes:
        self.number += 1
        self.socket.sendall(struct.pack(">HHHB", self.number, 0, len(body) + 1, unit) + body)
        return self.answer(unit)

    def answer(self, unit: int) -> bytes:
        number, protocol, length, who = struct.unpack(">HHHB", self.stream.read(7))
        assert (number, protocol, who) == (self.number, 0, unit)
        return self.stream.read(length - 1)

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.fixture
def logger(house: House, port: int) -> Iterator[Logger]:
    client = Logger(port)
    yield client
    client.close()


def test_all_functions_that_read_and_none_that_writes(rogue: Rogue, logger: Logger) -> None:
    words = struct.pack(">HHH", 3, 0, 0)
    for function in (3, 4):
        assert logger.ask(1, struct.pack(">BHH", function, 100, 3)) == bytes((function, 6)) + words
    for function in (1, 2):
        assert logger.ask(1, struct.pack(">BHH", function, 7, 10)) == bytes((function, 2, 0b101, 0))
    for function in (5, 6, 15, 16, 22, 23, 43, 8):
        assert logger.ask(1, struct.pack(">BHH", function, 200, 1)) == bytes((function | 0x80, 1))
    assert not rogue.writes()
    assert rogue.registers[1][200] == 160
    assert rogue.accepted == 1  # still one client, as far as the device knows


@pytest.mark.parametrize(("unit", "word"), [(0, 3), (255, 3), (1, 3), (2, 77)])
def test_units(logger: Logger, unit: int, word: int) -> None:
    assert logger.ask(unit, struct.pack(">BHH", 3, 100, 1)) == struct.pack(">BBH", 3, 2, word)


@pytest.mark.parametrize("body", [b"\x03", b"\x03\0\0\0", b"\x03\0\0\0\0", b"\x03\0\0\0\x7e", b"\x04\0\0\xff\xff"])
def test_questions_that_make_no_sense_are_refused(rogue: Rogue, logger: Logger, body: bytes) -> None:
    assert logger.ask(1, body) == bytes((body[0] | 0x80, 3))


def test_what_the_device_refuses_is_refused_and_what_it_does_not_answer_is_asked_once(
    rogue: Rogue, house: House, logger: Logger
) -> None:
    rogue.missing = {500}
    assert logger.ask(1, struct.pack(">BHH", 3, 500, 1)) == b"\x83\x02"
    rogue.manners = lambda asked, frame: None if asked.address == 600 else frame
    for _ in range(3):
        assert logger.ask(1, struct.pack(">BHH", 3, 600, 1)) == b"\x83\x0b"
    assert len([asked for asked in rogue.asked if asked.address == 600]) == 1
    assert logger.ask(1, struct.pack(">BHH", 3, 100, 1)) == struct.pack(">BBH", 3, 2, 3)
    house.offer(E1=10.0)
    assert house.holds("E1", 10.0)
    assert len(house.of_link("E1")) == 1  # the device was never thought to be away
    rogue.close()
    assert house.until(lambda: not house.of_link("E1")[-1].online)
    assert logger.ask(1, struct.pack(">BHH", 3, 100, 1)) == b"\x83\x0a"


def test_no_more_clients_than_there_is_room_for(logger: Logger, port: int) -> None:
    more = [Logger(port) for _ in range(CLIENTS - 1)]
    try:
        for client in (logger, *more):
            assert client.ask(1, struct.pack(">BHH", 3, 100, 1))
        extra = Logger(port)
        assert extra.socket.recv(1) == b""
        extra.close()
        more.pop().close()
        again = time.monotonic() + WAIT_S
        while time.monotonic() < again:
            late = Logger(port)
            late.socket.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 100, 1))
            try:
                answered = late.socket.recv(20) != b""
            except ConnectionError:
                answered = False
            late.close()
            if answered:
                return
        pytest.fail("the place of a client that went is not given to another")
    finally:
        for client in more:
            client.close()


def test_an_address_in_use_is_told(rogue: Rogue, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        house = House([(replace(box("E1", rogue.address), proxy=f"127.0.0.1:{port}"), QUICK)])
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            house.edge.start()


def slow(asked: Asked, frame: bytes) -> bytes:
    time.sleep(0.02)
    return frame


def went_first(rogue: Rogue, house: House) -> list[int]:
    """How many requests came to the device between the offer of a setpoint and its write."""
    found = []
    house.offer(E1=9.0)
    assert house.holds("E1", 9.0)
    for tenths in range(60, 80):
        found.append(rogue.before_write(tenths, partial(house.offer, E1=tenths / 10)))
        assert house.holds("E1", tenths / 10)
    return found


@pytest.mark.system("mbpoll")
def test_mbpoll_reads_while_setpoints_are_written(rogue: Rogue, house: House, port: int) -> None:
    """However many questions wait, a setpoint waits for the one that is on its way, and for no other."""
    rogue.manners = slow
    ended = threading.Event()
    read: list[str] = []

    def log() -> None:
        while not ended.is_set():
            what = ["-0", "-1", "-a", "1", "-r", "100", "-c", "2", "-t", "4"]
            command = ["mbpoll", *what, "-o", "10", "-p", str(port), "127.0.0.1"]
            read.append(subprocess.run(command, capture_output=True, text=True, check=False).stdout)

    loggers = [threading.Thread(target=log) for _ in range(CLIENTS)]
    for thread in loggers:
        thread.start()
    try:
        before_it = went_first(rogue, house)
    finally:
        ended.set()
        for thread in loggers:
            thread.join()
    # This thread may be held up between looking and offering, hence not each time.
    assert sorted(before_it)[-5] <= 1
    assert len(read) >= CLIENTS
    assert all("[100]: \t3" in output for output in read), read[0]
    command = ["mbpoll", "-0", "-1", "-a", "1", "-r", "200", "-t", "4", "-p", str(port), "127.0.0.1", "5"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Illegal function" in refused.stdout + refused.stderr
    assert rogue.registers[1][200] == 79
