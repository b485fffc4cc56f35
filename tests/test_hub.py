"""The hub with its real thread and real clock: who is answered when, and what an accident costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from bridge.core import step
from bridge.core.config import Config
from bridge.core.events import Event, Link, Read, SetVariables
from bridge.core.model import Now, Snapshot, State
from bridge.core.variables import accept
from bridge.edge import Edge
from bridge.hub import ROUND_GAP_S, Hub
from tests.core.sites import site


class Recorder:
    """An edge that keeps every snapshot; ``deed`` is what else it does."""

    def __init__(self, deed: Callable[[Snapshot], None] = lambda snapshot: None) -> None:
        self.snapshots: list[Snapshot] = []
        self._deed = deed

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def offer(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self._deed(snapshot)


class Writer(Recorder):
    """One that writes registers, and keeps what it was told beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.hurried: list[Snapshot] = []

    def hurry(self, decided: Snapshot) -> None:
        self.hurried.append(decided)


def now() -> Now:
    return Now(time.monotonic(), time.time())


@contextmanager
def running(
    edges: Sequence[Edge] = (), fed: Callable[[], None] = lambda: None, config: Config | None = None
) -> Iterator[Hub]:
    hub = Hub(config or site(1, meter=True), State(), now, fed)
    hub.start(edges)
    try:
        yield hub
    finally:
        hub.stop()


def a_set(hub: Hub, **values: float | str) -> SetVariables:
    return accept(hub.snapshot.config, list(values.items()), False, "smgw", hub.snapshot.state)


def a_reading(power_w: float) -> Read:
    return Read("M1", {"power_w": power_w}, time.monotonic())


def test_ask_returns_the_snapshot_that_contains_the_event() -> None:
    with running() as hub:
        for percent in range(100):
            event = a_set(hub, AVAIL=percent)
            snapshot = hub.ask(event)
            assert snapshot.decision.grid.limit_w == 550 * percent
            assert snapshot.state.receipt_of(event) is not None
            assert hub.snapshot.revision >= snapshot.revision


def test_four_callers_each_get_what_they_set() -> None:
    def caller(number: int) -> None:
        for value in range(200):
            event = a_set(hub, **{f"V{number}": value})
            snapshot = hub.ask(event)
            assert snapshot.decision.values[f"v{number}"] == value
            receipt = snapshot.state.receipt_of(event)
            assert receipt is not None
            ids.append(receipt.id)

    ids: list[int] = []
    with running() as hub, ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(caller, number) for number in range(4)]:
            job.result()
        assert sorted(ids) == list(range(1, 801)), "no set is lost, none counted twice"
        assert {hub.snapshot.decision.values[f"v{number}"] for number in range(4)} == {199.0}


def test_readings_alone_are_paced() -> None:
    recorder = Recorder()
    with running([recorder]) as hub:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            hub.post(a_reading(1.0))
            time.sleep(0.0005)
    # One more when the hub begins, one when it ends.
    assert 3 <= len(recorder.snapshots) <= 0.3 / ROUND_GAP_S + 3


def test_a_set_does_not_wait_for_the_pace_of_readings() -> None:
    with running() as hub:
        waits = []
        for percent in range(20):
            hub.post(a_reading(float(percent)))
            begin = time.perf_counter()
            snapshot = hub.ask(a_set(hub, AVAIL=percent))
            waits.append(time.perf_counter() - begin)
            assert snapshot.state.devices["M1"].values["power_w"] == percent, "the reading before it is in it"
        assert sorted(waits)[10] < ROUND_GAP_S / 2


def test_the_registers_do_not_wait_for_readings_that_wait() -> None:
    recorder = Recorder()
    with running([recorder]) as hub:
        hub.post(a_reading(1.0))
        assert hub.until(lambda snapshot: "M1" in snapshot.state.devices, 10.0)
        hub.post(a_reading(2.0))
        snapshot = hub.ask(a_set(hub, AVAIL=50))
        first = next(s for s in recorder.snapshots if s.decision.grid.limit_w == 27500)
        assert first.state.devices["M1"].values["power_w"] == 1.0
        assert snapshot.state.devices["M1"].values["power_w"] == 2.0


def test_sets_come_before_readings_of_the_same_round() -> None:
    applied: list[Event] = []

    def noted(config: Config, state: State, event: Event, at: Now) -> State:
        applied.append(event)
        return apply(config, state, event, at)

    apply = step.apply
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "apply", noted)
        hub = Hub(site(1, meter=True), State(), now)
        reading, first, second = a_reading(1.0), a_set(hub, AVAIL=1), a_set(hub, AVAIL=2)
        for event in (reading, first, second):
            hub.post(event)
        hub.start([])
        assert hub.until(lambda s: s.decision.grid.limit_w == 1100, 10.0)
        hub.stop()
    assert applied == [first, second, reading]


def test_silence_is_noticed() -> None:
    """A round at least every second, so that a meter that says nothing becomes stale."""
    with running() as hub:
        revision = hub.snapshot.revision
        later = hub.until(lambda snapshot: snapshot.revision >= revision + 2, 10.0)
        assert later is not None
        assert later.now.mono > 0


def test_until_waits_for_what_another_thread_brings_about() -> None:
    with running() as hub:
        threading.Timer(0.05, lambda: hub.post(a_set(hub, AVAIL=10))).start()
        found = hub.until(lambda snapshot: snapshot.decision.grid.limit_w == 5500, 10.0)
        assert found is not None
        assert found.decision.grid.limit_w == 5500


def test_until_gives_up_in_time() -> None:
    with running() as hub:
        begin = time.monotonic()
        assert hub.until(lambda snapshot: False, 0.1) is None
        assert 0.1 <= time.monotonic() - begin < 1.0
        assert hub.until(lambda snapshot: True, 0) is hub.snapshot


def test_edges_are_offered_every_snapshot_in_order() -> None:
    order: list[str] = []
    edges = [Recorder(lambda _, name=name: order.append(name)) for name in ("registers", "disk", "faces")]  # type: ignore[misc]
    with running(edges) as hub:
        for percent in range(10):
            hub.ask(a_set(hub, AVAIL=percent))
    assert order == ["registers", "disk", "faces"] * (len(order) // 3)
    assert edges[0].snapshots == edges[2].snapshots
    revisions = [snapshot.revision for snapshot in edges[0].snapshots]
    assert revisions == list(range(revisions[0], revisions[0] + len(revisions)))


def test_registers_do_not_wait_until_a_set_is_written_up() -> None:
    writer, disk = Writer(), Recorder()
    with running([writer, disk]) as hub:
        event = a_set(hub, AVAIL=50)
        snapshot = hub.ask(event)
    (early,) = writer.hurried
    whole = next(one for one in disk.snapshots if one.state.receipt_of(event))
    assert early.state.receipt_of(event) is None
    assert (early.decision, early.revision, early.state.offers) == (whole.decision, whole.revision, whole.state.offers)
    assert whole.state.journal.outbox[-1].facts["receipt"] == 1, "nobody sees the set without its journal entry"
    assert snapshot.state.receipt_of(event) is not None
    assert writer.snapshots == disk.snapshots, "the whole one comes as always"


def test_a_set_that_cannot_be_written_up_pauses_what_it_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer()
    with running([writer], config=site(1)) as hub:
        hub.ask(Link("E1", True))
        hub.ask(Read("E1", {"state": "C"}, time.monotonic()))
        with monkeypatch.context() as patch:
            patch.setattr(step, "recorded", lambda *_: 1 / 0)
            event = a_set(hub, AVAIL=50)
            snapshot = hub.ask(event)
            assert snapshot.state.receipt_of(event) is None
            assert writer.snapshots[-1] is snapshot
            assert writer.hurried[-1].decision.setpoints["E1"].wanted_a == 32
            assert snapshot.decision.setpoints["E1"].current_a == 0


def test_an_edge_that_raises_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Snapshot) -> None:
        raise RuntimeError("mailbox on fire")

    fed: list[float] = []
    healthy = Recorder()
    with running([Recorder(broken), healthy], lambda: fed.append(1)) as hub:
        assert hub.ask(a_set(hub, AVAIL=50)).decision.grid.limit_w == 27500
        assert hub.ask(a_set(hub, AVAIL=40)).decision.grid.limit_w == 22000
    limits = [snapshot.decision.grid.limit_w for snapshot in healthy.snapshots]
    assert {27500, 22000} <= set(limits)
    assert "mailbox on fire" in caplog.text
    assert len(fed) >= 2


def test_a_failing_round_pauses_the_wallboxes_and_starves_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fed: list[float] = []
    recorder = Recorder()
    with running([recorder], lambda: fed.append(1), site(1)) as hub:
        hub.ask(Link("E1", True))
        hub.ask(Read("E1", {"state": "C"}, time.monotonic()))
        assert hub.snapshot.decision.setpoints["E1"].wanted_a == 32
        healthy = len(fed)
        with monkeypatch.context() as patch:
            patch.setattr(step, "decided", lambda *_: 1 / 0)
            snapshot = hub.ask(a_set(hub, AVAIL=50))
            assert snapshot.decision.setpoints["E1"].current_a == 0
            assert "internal error" in snapshot.decision.setpoints["E1"].reason
            assert snapshot.decision.grid.state == "failsafe"
            assert recorder.snapshots[-1] is snapshot, "the wallboxes are told"
            assert len(fed) == healthy
        assert "ZeroDivisionError" in caplog.text
        recovered = hub.ask(a_set(hub, AVAIL=20))
        assert recovered.decision.grid.limit_w == 11000
        assert recovered.decision.setpoints["E1"].wanted_a == 15.9
        assert len(fed) > healthy


def test_what_was_posted_before_the_end_is_done() -> None:
    hub = Hub(site(1), State(), now)
    answers: list[Snapshot] = []
    asking = threading.Thread(target=lambda: answers.append(hub.ask(a_set(hub, AVAIL=50))))
    asking.start()
    while not hub._inbox:
        time.sleep(0.001)
    hub._bell.put(None)  # what stop() does; the thread has not begun yet
    hub.start([])
    asking.join(5)
    assert [snapshot.decision.grid.limit_w for snapshot in answers] == [27500]


def test_a_hub_that_is_gone_is_told() -> None:
    with running() as hub:
        pass
    with pytest.raises(TimeoutError):
        hub.ask(a_set(hub, AVAIL=50), timeout_s=0.05)
