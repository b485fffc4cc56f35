"""Modbus devices on bare sockets, in a process of their own, that stamp whatever reaches them.

One process with one epoll serves any number of devices, so that it disturbs what is measured as little as possible.
Stamps are CLOCK_MONOTONIC seconds, which all processes of a machine share, taken when the bytes have been received.
"""

from __future__ import annotations

import multiprocessing
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple, cast

METER, STATE, SETPOINT = 0, 100, 101
"""First registers of a meter; registers of a wallbox (see ``profiles/``)."""

NO_CAR, CHARGING = 1, 3
WALLBOX_DEFAULT = 320
"""Tenths of amperes: what the register of a wallbox says that nobody has told anything."""

Manner = Literal["answering", "hung", "refusing", "away"]
"""``hung``: accepts connections and never answers. ``refusing``: what it was told is forgotten, connections are reset
and refused, as while it boots. ``away``: no packet is answered any more, as with the plug pulled."""


class Stamp(NamedTuple):
    """When something reached a device, and what was written (reads: -1)."""

    at: float
    value: int


@dataclass
class Unit:
    """One Modbus unit. A ``silent`` one never answers."""

    words: dict[int, int] = field(default_factory=dict)
    silent: bool = False
    reads: list[Stamp] = field(default_factory=list)
    writes: list[Stamp] = field(default_factory=list)

    @property
    def setpoint(self) -> int:
        """What the setpoint register of a wallbox holds."""
        return self.words[SETPOINT]


def wallbox(state: int = CHARGING) -> Unit:
    """A wallbox nobody has told anything yet."""
    return Unit({STATE: state, SETPOINT: WALLBOX_DEFAULT})


def meter(silent: bool = False) -> Unit:
    """A meter."""
    return Unit(silent=silent)


class Devices:
    """The process with the devices, seen from the benchmark. ``gateways``: the units behind each address."""

    def __init__(self, gateways: Sequence[dict[int, Unit]]) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._pipe = ours
        self._process = multiprocessing.Process(target=_serve, args=(theirs, gateways), daemon=True)
        self._process.start()
        theirs.close()
        self.ports: list[int] = ours.recv()

    def __enter__(self) -> Devices:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(2)

    def behave(self, gateway: int, manner: Manner) -> float:
        """Change the manner of a gateway; returns when that was done."""
        return cast(float, self._ask("behave", gateway, manner))

    def forget(self) -> None:
        """Throw all stamps away."""
        self._ask("forget")

    def writes(self, gateway: int, unit: int = 1) -> list[Stamp]:
        """What was written to a unit since the last ``forget``."""
        return cast(list[Stamp], self._ask("stamps", gateway, unit, "writes"))

    def reads(self, gateway: int, unit: int = 1) -> list[Stamp]:
        """When a unit was read since the last ``forget``; silent ones are asked, but not read."""
        return cast(list[Stamp], self._ask("stamps", gateway, unit, "reads"))

    def await_setpoint(self, tenths_a: int, gateways: Iterable[int], timeout_s: float = 20.0) -> None:
        """Wait until the wallboxes there (unit 1) hold a setpoint; raises TimeoutError."""
        end = time.monotonic() + timeout_s
        for gateway in gateways:
            while self._ask("stamps", gateway, 1, "setpoint") != tenths_a:
                if time.monotonic() > end:
                    raise TimeoutError(f"wallbox {gateway} does not hold {tenths_a / 10:g} A after {timeout_s:g} s")
                time.sleep(0.01)

    def _ask(self, *question: object) -> object:
        self._pipe.send(question)
        return self._pipe.recv()


class _Poller:
    """Calls back whoever has something to receive."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], object]] = {}

    def add(self, number: int, callback: Callable[[], object]) -> None:
        self._callbacks[number] = callback
        self._epoll.register(number, select.EPOLLIN)

    def remove(self, number: int) -> None:
        del self._callbacks[number]
        self._epoll.unregister(number)

    def run(self) -> None:
        while True:
            for number, _ in self._epoll.poll():
                if callback := self._callbacks.get(number):
                    callback()


def _serve(pipe: Connection, gateways: Sequence[dict[int, Unit]]) -> None:
    poller = _Poller()
    served = [_Gateway(units, poller) for units in gateways]
    pipe.send([gateway.port for gateway in served])
    poller.add(pipe.fileno(), lambda: pipe.send(_answer(served, *pipe.recv())))
    with suppress(EOFError):
        poller.run()


def _answer(served: Sequence[_Gateway], name: str, gateway: int = 0, *rest: object) -> object:
    if name == "behave":
        return served[gateway].behave(cast(Manner, rest[0]))
    if name == "forget":
        for one in served:
            one.forget()
        return None
    unit, what = cast(tuple[int, str], rest)
    return getattr(served[gateway].units[unit], what)


class _Gateway:
    """The units behind one address."""

    def __init__(self, units: dict[int, Unit], poller: _Poller) -> None:
        self.units = units
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._poller = poller
        self._manner: Manner = "answering"
        self._connections: set[socket.socket] = set()
        self._fillers: list[socket.socket] = []
        poller.add(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.add(connection)
        self._poller.add(connection.fileno(), lambda: self._receive(connection))

    def _receive(self, connection: socket.socket) -> None:
        """Stamp and answer what came in."""
        try:
            data = connection.recv(4096)
        except OSError:
            data = b""
        now = time.monotonic()
        if not data:
            self._close(connection)
        while len(data) >= 8 and self._manner == "answering":
            length = 6 + int.from_bytes(data[4:6])
            if reply := self._reply(data[:length], now):
                connection.sendall(reply)
            data = data[length:]

    def _reply(self, frame: bytes, now: float) -> bytes:
        unit, function, address, value = struct.unpack_from(">BBHH", frame, 6)
        asked = self.units.get(unit)
        if asked is None or asked.silent:
            return b""
        if function in (3, 4):
            asked.reads.append(Stamp(now, -1))
            if address == METER:
                # Another value at each reading, so that each has to be passed on.
                asked.words[1] = asked.words[3] = len(asked.reads) % 1000
            words = struct.pack(f">{value}H", *(asked.words.get(address + n, 0) for n in range(value)))
            body = struct.pack(">BBB", unit, function, len(words)) + words
        else:
            written = value if function == 6 else int.from_bytes(frame[13:15])
            asked.words[address] = written
            if address == SETPOINT:
                asked.writes.append(Stamp(now, written))
            body = frame[6:12]
        return frame[:4] + len(body).to_bytes(2) + body

    def behave(self, manner: Manner) -> float:
        self._restore()
        self._manner = manner
        if manner == "refusing":
            self._lose_power()
            self._poller.remove(self._listener.fileno())
            self._listener.close()
            # Bound but not listening: nobody else can take the port, and connecting is refused.
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", self.port))
        elif manner == "away":
            # With a full queue of connections the kernel answers no SYN, like a host that is not there.
            self._poller.remove(self._listener.fileno())
            self._listener.listen(0)
            for _ in range(2):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", self.port))
                self._fillers.append(filler)
        return time.monotonic()

    def _restore(self) -> None:
        """Listen and answer again."""
        if self._manner == "away":
            self._lose_power()
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        if self._manner in ("away", "refusing"):
            self._listener.listen(128)
            self._poller.add(self._listener.fileno(), self._accept)

    def _lose_power(self) -> None:
        """Connections and setpoints are gone."""
        for unit in self.units.values():
            if SETPOINT in unit.words:
                unit.words[SETPOINT] = WALLBOX_DEFAULT
        for connection in tuple(self._connections):
            # Closing with lingering off sends a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        self._poller.remove(connection.fileno())
        self._connections.remove(connection)
        connection.close()

    def forget(self) -> None:
        for unit in self.units.values():
            unit.reads.clear()
            unit.writes.clear()
