"""A small house around the edge under test: devices, a stand-in for the hub, and snapshots with chosen setpoints."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from bridge.core.config import Config, DeviceConfig, GridConfig, MeterConfig, WallboxConfig
from bridge.core.decision import Decision, GridDecision, Setpoint
from bridge.core.events import Confirmed, Event, Link, PhasesConfirmed, Read, Reading
from bridge.core.formulas import parse as formula
from bridge.core.model import Now, Snapshot, State
from bridge.modbus.edge import ModbusEdge
from bridge.modbus.load import parse
from bridge.modbus.profile import Profile

BOX = """
vendor: Test
model: Box
kind: wallbox
points:
  state: {address: 100, values: {1: A, 2: B, 3: C}}
  power_w: {address: 101, type: u32}
  set_current: {address: 200, scale: 0.1}
setpoint: {points: [set_current]}
"""

WAIT_S = 20.0
"""How long to wait for what must happen. Only a test that fails ever waits for so long, however loaded the machine."""

METER = """
vendor: Test
model: Meter
kind: meter
points:
  power_w: {address: 10, type: i32}
  voltage_l1_v: {address: 12, scale: 0.1}
"""


def profile(text: str) -> Profile:
    return parse(text, "test.yaml")


def box(name: str, address: str, unit: int = 1, poll_s: float = 0.03) -> WallboxConfig:
    return WallboxConfig(name, "test", address, unit=unit, poll_s=poll_s)


def meter(name: str, address: str, unit: int = 1, poll_s: float = 0.03) -> MeterConfig:
    return MeterConfig(name, "test", address, unit=unit, poll_s=poll_s)


class House:
    """The edge with its devices, started; ``events`` is what it posted."""

    def __init__(self, devices: Mapping[DeviceConfig, str] | Sequence[tuple[DeviceConfig, str]]) -> None:
        pairs = list(devices.items()) if isinstance(devices, Mapping) else list(devices)
        self.profiles = {device.id: profile(text) for device, text in pairs}
        self.config = configuration([device for device, _ in pairs])
        self.events: list[Event] = []
        self.revision = 0
        self._news = threading.Condition()
        self.edge = ModbusEdge(self.config, self.profiles, self._post)

    def __enter__(self) -> House:
        self.edge.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.edge.stop()

    def offer(self, phases: int | None = None, **amperes: float) -> int:
        """Offer setpoints to wallboxes, all to be on so many phases; returns the snapshot's revision."""
        self.revision += 1
        self.edge.offer(snapshot(self.config, amperes, self.revision, phases))
        return self.revision

    def of(self, kind: type[Event], name: str) -> list[Event]:
        return [e for e in list(self.events) if isinstance(e, kind) and _who(e) == name]

    def until(self, holds: Callable[[], object], timeout_s: float = WAIT_S) -> bool:
        with self._news:
            return bool(self._news.wait_for(holds, timeout_s))

    def online(self, name: str, timeout_s: float = WAIT_S) -> bool:
        return self.until(lambda: any(e.online for e in self.of(Link, name)[-1:]), timeout_s)  # type: ignore[attr-defined]

    def met(self, name: str) -> bool:
        """Wait until a wallbox whose setpoint can be read has told what it holds."""
        return self.until(lambda: self.confirmed(name))

    def reads(self, name: str) -> list[Read]:
        return self.of(Read, name)  # type: ignore[return-value]

    def newest(self, name: str) -> dict[str, Reading]:
        """What a device was last read to say, once it was read: it is online a moment before."""
        assert self.until(lambda: self.reads(name)), f"{name} is not read"
        return dict(self.reads(name)[-1].values)

    def of_link(self, name: str) -> list[Link]:
        return self.of(Link, name)  # type: ignore[return-value]

    def confirmed(self, name: str) -> list[Confirmed]:
        return self.of(Confirmed, name)  # type: ignore[return-value]

    def switched(self, name: str) -> list[tuple[int | None, int]]:
        """The phases a wallbox told, each with its revision."""
        told = [e for e in list(self.events) if isinstance(e, PhasesConfirmed) and e.wallbox == name]
        return [(event.phases, event.revision) for event in told]

    def holds(self, name: str, amperes: float, timeout_s: float = WAIT_S) -> bool:
        """Wait until the newest confirmation of a box is of this current."""
        return self.until(lambda: [c.current_a for c in self.confirmed(name)[-1:]] == [amperes], timeout_s)

    def _post(self, event: Event, /) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()


def configuration(devices: Sequence[DeviceConfig]) -> Config:
    return Config(
        GridConfig(formula(11000)),
        meters=tuple(d for d in devices if isinstance(d, MeterConfig)),
        wallboxes=tuple(d for d in devices if isinstance(d, WallboxConfig)),
    )


def snapshot(config: Config, amperes: Mapping[str, float], revision: int, phases: int | None = None) -> Snapshot:
    setpoints = {name: Setpoint(a, a, a, "test", "test", phases) for name, a in amperes.items()}
    decision = Decision({}, GridDecision(11000, "limited", "test", "test"), setpoints)
    return Snapshot(config, State(), decision, Now(0.0, 0.0), revision)


def _who(event: Event) -> str:
    if isinstance(event, Confirmed):
        return event.wallbox
    return event.device if isinstance(event, Read | Link) else ""
