"""Plays the stories of ``stories/``: what happens in a house and what must come of it (see ``stories/README.md``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bridge import schema
from bridge.config import PLANNED
from bridge.core.config import Config
from bridge.core.formulas import fold
from bridge.core.model import Confirmed, Event, Link, State, Unknown
from bridge.core.variables import Refused
from tests.core.sites import House

STORIES = sorted((Path(__file__).parent / "stories").glob("*.yaml"))
ACTIONS = {"restart", "lost", "back", "clear", "smgw", "admin", "mqtt", "refused"}
ACTIONS |= {"plug", "connected", "unplug", "draws", "meters", "deaf", "hears"}

Step = Mapping[str, Any]


class Player:
    """A house whose devices are read every second and do what they are told, unless the story says otherwise."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.house = House(config)
        self.cars = {box.id: "A" for box in config.wallboxes}
        self.drawn = {box.id: 0.0 for box in config.wallboxes}
        self.measured: dict[str, dict[str, float]] = {meter.id: {} for meter in config.meters}
        self.lost: set[str] = set()
        self.deaf: set[str] = set()

    def play(self, step: Step) -> None:
        unknown = step.keys() - ACTIONS - {"at", "expect"}
        assert not unknown, f"not a word of the stories: {unknown}"
        if step.get("restart"):
            self.house.__init__(self.config, State(variables=self.house.snapshot.state.variables))  # type: ignore[misc]
        for device in some(step, "lost"):
            self.lost.add(device)
            self.house.happen(Link(device, False, "no answer"))
        self.lost -= set(some(step, "back"))
        self.deaf = (self.deaf | set(some(step, "deaf"))) - set(some(step, "hears"))
        for word, state in (("plug", "C"), ("connected", "B"), ("unplug", "A")):
            self.cars |= dict.fromkeys(some(step, word), state)
        self.drawn |= step.get("draws", {})
        self.measured |= {meter: quantities(value) for meter, value in step.get("meters", {}).items()}
        if some(step, "plug", "connected", "unplug"):
            self.read()
        self.set(step)

    def set(self, step: Step) -> None:
        for door in ("smgw", "admin", "mqtt"):
            if door not in step:
                continue
            if "refused" in step:
                with pytest.raises(Refused) as caught:
                    self.house.set(source=door, **step[door])
                assert step["refused"] in str(caught.value)
            else:
                self.house.set(bool(step.get("clear")), door, **step[door])

    def read(self) -> None:
        """Every device that can be reached is read once."""
        reachable = self.cars.keys() | self.measured.keys()
        for device in sorted(reachable - self.lost):
            self.house.happen(Link(device, True))
        for box in sorted(self.cars.keys() - self.lost):
            self.house.read(box, {"state": self.cars[box], **quantities(self.drawn[box])})
        for meter in sorted(self.measured.keys() - self.lost):
            self.house.read(meter, self.measured[meter])

    def confirm(self) -> None:
        """Every box that can be reached and hears says what it holds."""
        revision, setpoints = self.house.snapshot.revision, self.house.setpoints()
        events: list[Event] = [
            Confirmed(box, setpoints[box], revision) for box in setpoints.keys() - self.lost - self.deaf
        ]
        self.house.happen(*events)

    def pass_time(self, seconds: float) -> None:
        """Time passes in steps of a second; in a long quiet time only its end is of interest."""
        self.house.wait(max(0.0, seconds - 30))
        for _ in range(int(min(seconds, 30))):
            self.house.wait(1)
            self.read()
            self.confirm()

    def check(self, expected: Mapping[str, Any]) -> None:
        decision = self.house.snapshot.decision
        for subject, wanted in expected.items():
            if subject == "sum_a":
                compare("sum_a", sum(self.house.setpoints().values()), wanted)
            elif subject == "vars":
                for name, value in wanted.items():
                    known = decision.values[fold(name)]
                    compare(name, known.reason if isinstance(known, Unknown) else known, value)
            else:
                found = decision.grid if subject == "grid" else decision.setpoints[subject]
                for key, value in wanted.items():
                    compare(f"{subject}.{key}", getattr(found, key), value)


def some(step: Step, *words: str) -> list[str]:
    """The devices a step names with these words; one alone needs no list."""
    named = [step.get(word, []) for word in words]
    return [device for devices in named for device in ([devices] if isinstance(devices, str) else devices)]


def quantities(value: Any) -> dict[str, float]:
    """Amperes on each line, amperes for each line, or quantities as they are; the power that goes with them."""
    if isinstance(value, Mapping):
        return {name: float(reading) for name, reading in value.items()}
    lines = [float(value)] * 3 if isinstance(value, int | float) else [float(line) for line in value]
    currents = {f"current_l{number}_a": line for number, line in enumerate(lines, 1)}
    return {**currents, "power_w": sum(lines) * 230}


def compare(what: str, found: object, wanted: object) -> None:
    if isinstance(wanted, list):
        assert isinstance(found, int | float), what
        assert wanted[0] <= found <= wanted[1], f"{what} is {found}, expected {wanted[0]} to {wanted[1]}"
    elif isinstance(wanted, str):
        assert wanted in str(found), f"{what} is {found!r}, which does not contain {wanted!r}"
    else:
        assert found == pytest.approx(wanted, abs=0.001), f"{what} is {found}, expected {wanted}"


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes), seconds=float(rest)).total_seconds()


def passing(steps: list[Step]) -> Iterator[tuple[float, Step]]:
    """Each step and the seconds since the one before; a clock that runs backwards has passed midnight."""
    before = seconds(steps[0]["at"])
    for step in steps:
        now = seconds(step["at"])
        yield (now - before) % 86_400, step
        before = now


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    story = YAML(typ="safe").load(path)
    assert story["story"]
    site = StringIO()
    YAML().dump(story["site"], site)
    player = Player(schema.read(site.getvalue(), path.name, Config, PLANNED))
    checked = 0
    for since, step in passing(story["steps"]):
        try:
            player.pass_time(since)
            player.play(step)
            player.check(step.get("expect", {}))
        except AssertionError as error:
            error.add_note(f"at {step['at']}; reasons: { {box: player.house.reason(box) for box in player.cars} }")
            raise
        checked += len(step.get("expect", {}))
    assert checked, "a story that expects nothing tells nothing"


def test_there_are_stories() -> None:
    assert len(STORIES) >= 10
