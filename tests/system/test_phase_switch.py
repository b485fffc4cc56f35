"""From a set variable to the relay register and back to a charging car: hub, edge and simulated wallboxes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge import app
from bridge.core import variables
from bridge.core.model import Now, Snapshot, State
from bridge.errors import ConfigError
from bridge.hub import Hub
from bridge.modbus.edge import ModbusEdge
from bridge.modbus.load import SHIPPED
from bridge.simulator.site import Site

SITE = """
grid: {{connection_power_w: 60000, controllable_power_w: LPC}}
variables: {{LPC: {{initial: 60000, min: 0}}}}
profiles: {folder}
wallboxes:
  - {{id: E1, profile: cfos-power-brain, address: "127.0.0.1:0", poll_s: 0.1, phase_switching: auto}}
  - {{id: E2, profile: cfos-power-brain, address: "127.0.0.1:0", poll_s: 0.1, phase_switching: auto}}
"""


def configured(folder: Path, text: str) -> Path:
    """The file, and beside it the shipped profile of a box that settles quickly."""
    profile = (SHIPPED / "cfos-power-brain.yaml").read_text(encoding="utf-8")
    assert "settle_s: 120" in profile
    (folder / "cfos-power-brain.yaml").write_text(profile.replace("settle_s: 120", "settle_s: 0.5"), encoding="utf-8")
    path = folder / "bridge.yaml"
    path.write_text(text.format(folder=folder), encoding="utf-8")
    return path


def test_two_cars_go_on_with_one_phase(tmp_path: Path) -> None:
    path = configured(tmp_path, SITE)
    site = Site(app.prepare(path).config, seed=1)
    site.start()
    for box in ("E1", "E2"):
        path.write_text(path.read_text().replace('"127.0.0.1:0"', site.address(box), 1), encoding="utf-8")
    setup = app.prepare(path)
    hub = Hub(setup.config, State(), lambda: Now(time.monotonic(), time.time()))
    edge = ModbusEdge(setup.config, setup.profiles, hub.post)
    edge.start()
    hub.start([edge])

    def comes(holds: Callable[[Snapshot], bool]) -> Snapshot | None:
        return hub.until(holds, 20.0)

    try:
        for box in ("E1", "E2"):
            site.plug(box)
        assert comes(lambda s: all(d.values.get("current_l3_a", 0) for d in s.state.devices.values()))
        hub.ask(variables.accept(setup.config, [("LPC", 4200)], False, "smgw", hub.snapshot.state))
        found = comes(lambda s: {p.current_a for p in s.decision.setpoints.values()} == {9.1})
        assert found
        assert "on one phase" in found.decision.setpoints["E1"].reason
        assert [site.wallboxes[box].held[8087] for box in ("E1", "E2")] == [1, 1]
        assert comes(lambda s: all(d.values.get("current_l1_a", 0) == 9.1 for d in s.state.devices.values()))
        assert all(not d.values["current_l2_a"] for d in hub.snapshot.state.devices.values())
        assert not any(box.complaints["switched under load"] for box in site.wallboxes.values())
    finally:
        hub.stop()
        edge.stop()
        site.stop()


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("cfos-power-brain", "heidelberg-ec", "wallboxes[0].phase_switching: heidelberg-ec does not switch its phases"),
        ("phase_switching: auto", "phases: 1, phase_switching: 1", "only a wallbox on three lines is switched"),
        ("phase_switching: auto", "phase_switching: 2", "auto, off, 1, 3"),
    ],
)
def test_what_cannot_be_switched_is_a_mistake(tmp_path: Path, was: str, now: str, said: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        app.prepare(configured(tmp_path, SITE.replace(was, now, 1)))
    assert said in "\n".join(wrong.value.mistakes)
