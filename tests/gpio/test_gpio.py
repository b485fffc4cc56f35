"""Contacts at pins. There is no kernel with pins here, so the library's request is a fake; its errors are real."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from queue import SimpleQueue
from types import ModuleType, TracebackType
from typing import Any

import pytest

from bridge.core.config import MeterConfig
from bridge.core.events import Event, Link, Read
from bridge.gpio import edge
from bridge.gpio.edge import GpioEdge
from tests.core.sites import site

METER = MeterConfig("IO1", "gpio-input", "/dev/gpiochip0", pins={"input_1": 17, "input_2": 27})


class Value(Enum):
    INACTIVE = 0
    ACTIVE = 1

    def __bool__(self) -> bool:
        return self is Value.ACTIVE


class Pins:
    """What stands behind the fake library: levels by pin, and edges that wake who waits for them."""

    def __init__(self) -> None:
        self.levels = {17: Value.INACTIVE, 27: Value.ACTIVE}
        self.asked: dict[str, Any] = {}
        self.failing: OSError | None = None
        self.released = threading.Event()
        self._edge = threading.Event()

    def change(self, pin: int, level: Value) -> None:
        self.levels[pin] = level
        self._edge.set()

    def request_lines(self, path: str, config: Mapping[Any, Any], consumer: str | None = None) -> Pins:
        if self.failing:
            raise self.failing
        self.asked = {"path": path, "consumer": consumer, "config": dict(config)}
        return self

    def __enter__(self) -> Pins:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.released.set()

    def get_values(self, pins: Sequence[int]) -> list[Value]:
        return [self.levels[pin] for pin in pins]

    def wait_edge_events(self, timeout: float) -> bool:
        return self._edge.wait(timeout)

    def read_edge_events(self) -> list[object]:
        self._edge.clear()
        return []


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> Pins:
    pins = Pins()
    library, line = ModuleType("gpiod"), ModuleType("gpiod.line")
    library.request_lines = pins.request_lines  # type: ignore[attr-defined]
    library.LineSettings = dict  # type: ignore[attr-defined]
    for name, members in {"Bias": "PULL_UP", "Direction": "INPUT", "Edge": "BOTH"}.items():
        setattr(line, name, Enum(name, members))
    monkeypatch.setitem(sys.modules, "gpiod", library)
    monkeypatch.setitem(sys.modules, "gpiod.line", line)
    return pins


@pytest.fixture
def heard() -> SimpleQueue[Event]:
    return SimpleQueue()


Start = Callable[[MeterConfig], GpioEdge]


@pytest.fixture
def start(heard: SimpleQueue[Event]) -> Iterator[Start]:
    edges: list[GpioEdge] = []

    def begin(meter: MeterConfig) -> GpioEdge:
        edges.append(GpioEdge(replace(site(0), meters=(meter,)), heard.put))
        edges[-1].start()
        return edges[-1]

    yield begin
    for one in edges:
        one.stop()


def values(heard: SimpleQueue[Event]) -> Mapping[str, object]:
    event = heard.get(timeout=2)
    assert isinstance(event, Read)
    return event.values


def test_pins_are_read_at_once_and_after_every_edge(pins: Pins, heard: SimpleQueue[Event], start: Start) -> None:
    start(METER)
    assert heard.get(timeout=2) == Link("IO1", True)
    assert values(heard) == {"input_1": 0.0, "input_2": 1.0}
    pins.change(17, Value.ACTIVE)
    while values(heard) != {"input_1": 1.0, "input_2": 1.0}:
        pass


def test_a_closed_contact_pulls_its_pin_down_and_reads_1(pins: Pins, heard: SimpleQueue[Event], start: Start) -> None:
    start(METER)
    heard.get(timeout=2)
    assert pins.asked["path"] == "/dev/gpiochip0"
    ((lines, settings),) = pins.asked["config"].items()
    assert lines == (17, 27)
    assert settings["active_low"] is True
    assert {key: settings[key].name for key in ("bias", "direction", "edge_detection")} == {
        "bias": "PULL_UP",
        "direction": "INPUT",
        "edge_detection": "BOTH",
    }
    assert settings["debounce_period"] == timedelta(milliseconds=10)


def test_it_shows_that_it_is_alive_without_edges(pins: Pins, heard: SimpleQueue[Event], start: Start) -> None:
    start(replace(METER, poll_s=0.1))
    heard.get(timeout=2)
    assert [values(heard) for _ in range(3)] == [{"input_1": 0.0, "input_2": 1.0}] * 3


def test_stopping_gives_the_pins_back(pins: Pins, heard: SimpleQueue[Event], start: Start) -> None:
    running = start(METER)
    heard.get(timeout=2)
    running.stop()
    assert pins.released.is_set()


def test_a_missing_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, heard: SimpleQueue[Event], start: Start
) -> None:
    monkeypatch.setitem(sys.modules, "gpiod", None)
    start(METER)
    assert heard.get(timeout=2) == Link("IO1", False, "gpiod is not installed: pip install 'smgw-bridge[gpio]'")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (FileNotFoundError(2, "No such file"), "/dev/gpiochip0: no such chip; gpiodetect lists"),
        (PermissionError(13, "denied"), "/dev/gpiochip0: no right to it: add the bridge's user to the group gpio"),
        (OSError(16, "busy"), "/dev/gpiochip0: another program has one of the pins"),
        (OSError(5, "Input/output error"), "/dev/gpiochip0: [Errno 5] Input/output error"),
    ],
)
def test_a_chip_that_cannot_be_used_says_why_once_and_is_tried_again(
    pins: Pins,
    heard: SimpleQueue[Event],
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: OSError,
    advice: str,
) -> None:
    monkeypatch.setattr(edge, "RETRY_S", 0.01)
    pins.failing = error
    with caplog.at_level(logging.ERROR):
        start(METER)
        event = heard.get(timeout=2)
        assert isinstance(event, Link)
        assert event.reason.startswith(advice)
        pins.failing = None
        assert heard.get(timeout=2) == Link("IO1", True), "told once only"
    assert len(caplog.records) == 1


def test_a_missing_chip_with_the_real_library(heard: SimpleQueue[Event], start: Start) -> None:
    pytest.importorskip("gpiod")
    start(replace(METER, address="/dev/no-such-chip"))
    event = heard.get(timeout=2)
    assert isinstance(event, Link)
    assert "no such chip" in event.reason
