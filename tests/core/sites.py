"""Small sites for the tests of the core, and a player of events with a fake clock."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.core import step, variables
from bridge.core.config import Config, GridConfig, MeterConfig, VariableConfig, WallboxConfig
from bridge.core.events import Confirmed, Event, Link, Read, SetVariables
from bridge.core.formulas import parse
from bridge.core.model import Now, Snapshot, State


def site(boxes: int = 2, power: str | float = "55000 * AVAIL / 100", meter: bool = False, **grid: object) -> Config:
    """A house with ``boxes`` three-phase wallboxes E1, E2 …, and a grid meter M1 if wanted."""
    return Config(
        grid=GridConfig(parse(power), **grid),  # type: ignore[arg-type]
        variables={"AVAIL": VariableConfig(parse(100), 0, 100)},
        meters=(MeterConfig("M1", "eastron-sdm630", "127.0.0.1:502", role="grid"),) if meter else (),
        wallboxes=tuple(WallboxConfig(f"E{n}", "keba-p30", f"127.0.0.1:{600 + n}") for n in range(1, boxes + 1)),
    )


START = Now(1000.0, 1_790_000_000.0)
"""Monday, 2026-09-21 14:13:20 UTC."""


class House:
    """Plays events against the core; wallboxes confirm only when told to."""

    def __init__(self, config: Config, state: State | None = None, now: Now = START) -> None:
        self.mono, self.utc, self.zone = now
        self.snapshot: Snapshot = step.first(config, state or State(), self.now)

    @property
    def now(self) -> Now:
        return Now(self.mono, self.utc, self.zone)

    def wait(self, seconds: float) -> Snapshot:
        self.mono += seconds
        self.utc += seconds
        return self.happen()

    def happen(self, *events: Event) -> Snapshot:
        self.snapshot = step.run(self.snapshot, events, self.now)
        return self.snapshot

    def set(self, clear: bool = False, source: str = "smgw", ttl: object = None, **values: float | str) -> Snapshot:
        return self.happen(self.accepted(clear, source, ttl, **values))

    def accepted(
        self, clear: bool = False, source: str = "smgw", ttl: object = None, **values: float | str
    ) -> SetVariables:
        config, state = self.snapshot.config, self.snapshot.state
        pairs = [(name, value, ttl) for name, value in values.items()]
        return variables.accept(config, pairs, clear, source, state)

    def plug(self, *boxes: str, state: str = "C") -> Snapshot:
        for box in boxes:
            self.happen(Link(box, True), Read(box, {"state": state}, self.mono))
        return self.snapshot

    def read(self, device: str, values: Mapping[str, float | str]) -> Snapshot:
        return self.happen(Read(device, values, self.mono))

    def obey(self, *boxes: str) -> Snapshot:
        """The named boxes (or all) confirm what they were sent, until nothing changes any more."""
        for _ in range(5):
            wanted = {b: s.current_a for b, s in self.snapshot.decision.setpoints.items() if not boxes or b in boxes}
            revision = self.snapshot.revision
            self.happen(*(Confirmed(box, current_a, revision) for box, current_a in wanted.items()))
        return self.snapshot

    def setpoints(self) -> dict[str, float]:
        return {box: setpoint.current_a for box, setpoint in self.snapshot.decision.setpoints.items()}

    def reason(self, box: str) -> str:
        return self.snapshot.decision.setpoints[box].reason
