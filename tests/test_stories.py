"""Plays the stories of ``stories/``: what happens in a house and what must come of it (see ``stories/README.md``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, time, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from ruamel.yaml import YAML

from bridge import schema
from bridge.config import PLANNED
from bridge.core.config import Config, Switching
from bridge.core.decision import Unknown
from bridge.core.events import Capped, Confirmed, Event, Link, PhasesConfirmed
from bridge.core.formulas import fold
from bridge.core.model import Now, State
from bridge.core.rules import overrides
from bridge.core.variables import Refused
from tests.core.sites import START, House

STORIES = sorted((Path(__file__).parent / "stories").glob("*.yaml"))
ACTIONS = {"restart", "lost", "back", "clear", "smgw", "admin", "mqtt", "refused"}
ACTIONS |= {"plug", "connected", "unplug", "draws", "meters", "deaf", "hears"}
ACTIONS |= {"ttl", "house", "follows", "override", "capped"}

Step = Mapping[str, Any]


class Player:
    """A house whose devices are read every second and do what they are told, unless the story says otherwise."""

    def __init__(self, config: Config, start: Now = START) -> None:
        self.config = config
        self.house = House(config, now=start)
        self.behind: dict[str, float] = {}
        self.following: set[str] = set()
        self.cars = {box.id: "A" for box in config.wallboxes}
        self.drawn = {box.id: 0.0 for box in config.wallboxes}
        self.measured: dict[str, dict[str, float]] = {meter.id: {} for meter in config.meters}
        self.lost: set[str] = set()
        self.deaf: set[str] = set()
        self.phases = {box.id: 3 for box in config.wallboxes if box.switches}
        self.settling: dict[str, tuple[float, int]] = {}

    def play(self, step: Step) -> None:
        unknown = step.keys() - ACTIONS - {"at", "expect"}
        assert not unknown, f"not a word of the stories: {unknown}"
        if step.get("restart"):
            known = self.house.snapshot.state
            kept = {key: replace(variable, set_mono=None) for key, variable in known.variables.items()}
            state = State(variables=kept, sessions=known.sessions)
            self.house.__init__(self.config, state, self.house.now)  # type: ignore[misc]
        for device in some(step, "lost"):
            self.lost.add(device)
            self.house.happen(Link(device, False, "no answer"))
        self.lost -= set(some(step, "back"))
        self.deaf = (self.deaf | set(some(step, "deaf"))) - set(some(step, "hears"))
        for word, state in (("plug", "C"), ("connected", "B"), ("unplug", "A")):
            self.cars |= dict.fromkeys(some(step, word), state)
        self.drawn |= step.get("draws", {})
        self.behind |= step.get("house", {})
        self.following |= set(some(step, "follows"))
        self.measured |= {meter: quantities(value) for meter, value in step.get("meters", {}).items()}
        if some(step, "plug", "connected", "unplug"):
            self.read()
        self.set(step)

    def set(self, step: Step) -> None:
        for door in ("smgw", "admin", "mqtt"):
            if door in step:
                with refused(step):
                    self.house.set(bool(step.get("clear")), door, step.get("ttl"), **step[door])
        if "capped" in step:
            told = {"reason": "as the back end says", "lasts_s": None, **step["capped"]}
            until = None if told["lasts_s"] is None else self.house.utc + told["lasts_s"]
            self.house.happen(Capped(told["wallbox"], told["current_a"], told["reason"], until))
        if "override" in step:
            wanted = {"flags": "", "current_a": None, "source": "admin", **step["override"]}
            with refused(step):
                snapshot = self.house.snapshot
                self.house.happen(overrides.accept(snapshot.config, snapshot.state, **wanted))

    def read(self) -> None:
        """Every device that can be reached is read once."""
        reachable = self.cars.keys() | self.measured.keys()
        for device in sorted(reachable - self.lost):
            self.house.happen(Link(device, True))
        for box in sorted(self.cars.keys() - self.lost):
            amperes = [self.drawn[box], 0, 0] if self.phases.get(box) == 1 else self.drawn[box]
            self.house.read(box, {"state": self.cars[box], **quantities(amperes)})
        for meter, amperes in self.behind.items():
            drawn = [(box.lines, self.drawn[box.id]) for box in self.config.wallboxes]
            lines = [amperes + sum(each for lines, each in drawn if line in lines) for line in (1, 2, 3)]
            self.measured[meter] = quantities(lines)
        for meter in sorted(self.measured.keys() - self.lost):
            self.house.read(meter, self.measured[meter])

    def confirm(self) -> None:
        """Every box that can be reached and hears says what it holds."""
        revision, setpoints = self.house.snapshot.revision, self.house.setpoints()
        events: list[Event] = [
            Confirmed(box, setpoints[box], revision) for box in setpoints.keys() - self.lost - self.deaf
        ]
        self.house.happen(*events, *self.switched(self.phases.keys() - self.lost - self.deaf))
        self.drawn |= {box: setpoints[box] if self.cars[box] == "C" else 0.0 for box in self.following - self.lost}

    def switched(self, boxes: Iterable[str]) -> Iterator[Event]:
        """Boxes that are told to switch their phases do it, and say so when they have settled."""
        snapshot = self.house.snapshot
        for box in boxes:
            wanted = snapshot.decision.setpoints[box].phases
            since, revision = self.settling.get(box, (snapshot.now.mono, -1))
            if wanted and wanted != self.phases[box]:
                self.phases[box] = wanted
                self.settling[box] = snapshot.now.mono, snapshot.revision
            elif revision < 0 or snapshot.now.mono - since >= Switching().settle_s:
                self.settling.pop(box, None)
                yield PhasesConfirmed(box, self.phases[box], revision)

    def pass_time(self, seconds: float) -> None:
        """Time passes in steps of a second; in a long quiet time only its end is of interest."""
        last = seconds if self.behind or self.phases else min(seconds, 30)
        self.house.wait(seconds - last)
        for _ in range(int(last)):
            self.house.wait(1)
            self.read()
            self.confirm()

    def check(self, expected: Mapping[str, Any]) -> None:
        decision = self.house.snapshot.decision
        for subject, wanted in expected.items():
            if subject == "sum_a":
                compare("sum_a", sum(self.house.setpoints().values()), wanted)
            elif subject in ("notes", "alarms"):
                known = getattr(decision, subject)
                for name, text in wanted.items():
                    compare(f"{subject}.{name}", known.get(fold(name) if subject == "notes" else name, "none"), text)
            elif subject == "sessions":
                known = self.house.snapshot.state.sessions
                for box, fields in wanted.items():
                    session = known.open.get(box) or known.last[box]
                    for key, value in fields.items():
                        compare(f"{box}.{key}", getattr(session, key), value)
            elif subject == "vars":
                for name, value in wanted.items():
                    known = decision.values[fold(name)]
                    compare(name, known.reason if isinstance(known, Unknown) else known, value)
            else:
                found = decision.grid if subject == "grid" else decision.setpoints[subject]
                for key, value in wanted.items():
                    compare(f"{subject}.{key}", getattr(found, key), value)


@contextmanager
def refused(step: Step) -> Iterator[None]:
    """What a step with the word ``refused`` does is refused, for this reason."""
    if "refused" not in step:
        yield
        return
    with pytest.raises(Refused) as caught:
        yield
    assert step["refused"] in str(caught.value)


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


def compare(what: str, found: Any, wanted: object) -> None:
    if isinstance(wanted, list):
        assert isinstance(found, int | float), what
        assert wanted[0] <= found <= wanted[1], f"{what} is {found}, expected {wanted[0]} to {wanted[1]}"
    elif isinstance(wanted, Mapping):
        for key, value in wanted.items():
            compare(f"{what}.{key}", found.get(key), value)
    elif isinstance(wanted, str):
        assert wanted in str(found), f"{what} is {found!r}, which does not contain {wanted!r}"
    else:
        assert found == pytest.approx(wanted, abs=0.001), f"{what} is {found}, expected {wanted}"


def able(config: Config) -> Config:
    """The site with boxes that can switch their phases, as their profiles would say."""
    boxes = (box.able(replace(box.capability, switch=Switching())) for box in config.wallboxes)
    return replace(config, wallboxes=tuple(boxes))


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


def beginning(story: Mapping[str, Any]) -> Now:
    """The moment of the first step: on the story's ``date`` in its ``zone``, if it matters."""
    if "date" not in story:
        return START
    zone = ZoneInfo(story["zone"])
    midnight = datetime.combine(story["date"], time(), zone)
    return Now(START.mono, (midnight + timedelta(seconds=seconds(story["steps"][0]["at"]))).timestamp(), zone)


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    story = YAML(typ="safe").load(path)
    assert story["story"]
    site = StringIO()
    YAML().dump(story["site"], site)
    player = Player(able(schema.read(site.getvalue(), path.name, Config, PLANNED)), beginning(story))
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
