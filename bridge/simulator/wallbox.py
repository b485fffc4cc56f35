"""What all simulated wallboxes have in common; each register map is a module beside this one.

They offer a car a current, measure it, and fall back to a fail-safe current when nobody has talked to them for too
long. Where the makers' documents are silent the least friendly behaviour was chosen: after a reboot a wallbox offers
all its hardware allows.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import ClassVar, NamedTuple

from bridge.core.model import PerLine
from bridge.simulator.car import MIN_A, Car
from bridge.simulator.device import ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, Device, Refusal

logger = logging.getLogger(__name__)


class Held(NamedTuple):
    """A register that can be written. One kept in flash survives a reboot and wears out with every write."""

    default: int
    legal: Container[int] = range(0x10000)
    functions: Container[int] = (6, 16)
    flash: bool = False


class Wallbox(Device):
    """A wallbox on the house's ``lines`` (in the order of its own L1, L2, L3), with the car that visits it.

    ``complaints`` counts what its maker would hold against the caller: "too quick", "flash written".
    """

    hardware_a: ClassVar[float]
    registers: ClassVar[Mapping[int, Held]]

    def __init__(self, id: str, car: Car, lines: Sequence[int] = (1, 2, 3)) -> None:
        self.id = id
        self.car = car
        self.lines = tuple(lines)
        self.complaints: Counter[str] = Counter()
        self.energy_wh = 0.0
        self.session_wh = 0.0
        self.volts = (230.0, 230.0, 230.0)
        self.held = {address: register.default for address, register in self.registers.items()}
        self.silent_s = 0.0
        """How long nothing has fed the communication watchdog."""

    # what the registers ask for; currents in amperes, 0.0 pauses

    @property
    @abstractmethod
    def commanded_a(self) -> float:
        """The current the caller set."""

    @property
    @abstractmethod
    def failsafe_a(self) -> float:
        """The current without communication."""

    @property
    @abstractmethod
    def timeout_s(self) -> float:
        """How long silence is tolerated; 0.0: for ever."""

    @property
    def phases(self) -> int:
        """To how many of its lines the car is connected."""
        return len(self.lines)

    # what follows from it

    @property
    def expired(self) -> bool:
        """Whether the communication watchdog has run out."""
        return 0.0 < self.timeout_s <= self.silent_s

    @property
    def offered_a(self) -> float:
        """What the car is offered in each phase."""
        asked_a = self.failsafe_a if self.expired else self.commanded_a
        return min(asked_a, self.hardware_a) if asked_a >= MIN_A else 0.0

    @property
    def amps(self) -> PerLine:
        """Current in the box's own L1, L2, L3."""
        phases, current_a = min(self.car.model.phases, self.phases), self.car.current_a
        l1, l2, l3 = (current_a if phase < phases else 0.0 for phase in range(3))
        return l1, l2, l3

    @property
    def power_w(self) -> float:
        """Power the car takes."""
        return sum(v * a for v, a in zip(self.volts, self.amps, strict=True))

    def line_amps(self) -> PerLine:
        """Current in the house's L1, L2, L3."""
        drawn = dict(zip(self.lines, self.amps, strict=False))
        return drawn.get(1, 0.0), drawn.get(2, 0.0), drawn.get(3, 0.0)

    # time

    def step(self, dt_s: float, house_volts: PerLine) -> None:
        """Let ``dt_s`` seconds pass for car and energy; ``house_volts`` are those of the house's lines."""
        was_plugged = self.car.plugged
        volts = [house_volts[line - 1] for line in self.lines]
        taken_wh = self.car.step(dt_s, self.offered_a, volts[: self.phases])
        v1, v2, v3 = (*volts, 0.0, 0.0)[:3]
        self.volts = (v1, v2, v3)
        if self.car.plugged != was_plugged:
            logger.info("%s: car %s", self.id, "left" if was_plugged else "plugged in")
            self.session_wh = 0.0
        self.energy_wh += taken_wh
        self.session_wh += taken_wh

    def wait(self, dt_s: float) -> None:
        """Let ``dt_s`` seconds pass without a request."""
        expired = self.expired
        self.silent_s += dt_s
        if self.expired and not expired:
            logger.info("%s: silence for %g s, fail-safe %g A", self.id, self.timeout_s, self.failsafe_a)

    def reboot(self) -> None:
        """Lose every register that is not in flash, and interrupt the car."""
        self.held |= {address: register.default for address, register in self.registers.items() if not register.flash}
        self.silent_s = 0.0
        self.car.interrupt()

    # requests

    def read(self, function: int, address: int, count: int) -> Sequence[int]:
        """As every device; also feeds the watchdog where any request does."""
        self.heard(function, address)
        return super().read(function, address, count)

    def write(self, function: int, address: int, values: Sequence[int]) -> None:
        """Write registers of :attr:`registers`, all or none."""
        self.heard(function, address)
        written = dict(enumerate(values, start=address))
        for index, value in written.items():
            if index not in self.registers:
                raise Refusal(ILLEGAL_ADDRESS)
            register = self.registers[index]
            if function not in register.functions:
                raise Refusal(ILLEGAL_FUNCTION)
            if value not in register.legal:
                raise Refusal(ILLEGAL_VALUE)
        self.held |= written
        if any(self.registers[index].flash for index in written):
            self.complaints["flash written"] += 1

    def heard(self, function: int, address: int) -> None:
        """A request came in: feed the watchdog."""
        if self.expired:
            logger.info("%s: no longer silent, %g A again", self.id, self.commanded_a)
        self.silent_s = 0.0
