"""The main job, end to end and from outside: curl in, mbpoll and mosquitto_sub out, the service as its own process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge import app
from bridge.simulator.site import Site

pytestmark = [pytest.mark.system("mosquitto", "mosquitto_sub", "mbpoll", "curl"), pytest.mark.timeout(300)]

PASSWORD = "correct horse"
SETPOINTS = {"E2": (1, 261, 0.1), "E3": (1, 8093, 0.1)}
"""Wallbox to unit, register and amperes per count, as the makers' tables say."""


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class House:
    """The simulated devices in this process, the bridge with a broker of its own in another."""

    def __init__(self, folder: Path) -> None:
        self.http, self.mqtt, *ports = free_ports(6)
        self.ports = dict(zip(("M1", "E1", "E2", "E3"), ports, strict=True))
        self.config = folder / "bridge.yaml"
        self.config.write_text(f"""\
http: {{listen: "127.0.0.1:{self.http}"}}
mqtt: {{listen: "127.0.0.1:{self.mqtt}"}}
grid: {{connection_power_w: 45000 * AVAIL / 100}}
variables: {{AVAIL: {{initial: 100, min: 0, max: 100}}}}
meters:
  - {{id: M1, role: grid, profile: eastron-sdm630, address: "127.0.0.1:{self.ports["M1"]}"}}
wallboxes:
  - {{id: E1, profile: keba-p30, address: "127.0.0.1:{self.ports["E1"]}"}}
  - {{id: E2, profile: heidelberg-ec, address: "127.0.0.1:{self.ports["E2"]}"}}
  - {{id: E3, profile: cfos-power-brain, address: "127.0.0.1:{self.ports["E3"]}"}}
""")
        self.site = Site(app.prepare(self.config).config, seed=3)
        self.site.start()
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.bridge = subprocess.Popen(
                [sys.executable, "-m", "bridge", "run", "-c", str(self.config), "--state-dir", str(folder / "state")],
                env={**os.environ, "SMGW_BRIDGE_ADMIN_PASSWORD": PASSWORD},
                stderr=log,
            )

    def curl(self, query: str) -> tuple[int, object, str]:
        """Status, document and receipt number of a request."""
        url = f"http://127.0.0.1:{self.http}{query}"
        done = subprocess.run(
            ["curl", "-si", "-m", "40", "--user", f"admin:{PASSWORD}", url], capture_output=True, text=True, check=False
        )
        head, _, body = done.stdout.partition("\n\n")
        receipt = re.search(r"(?im)^x-receipt: (\d+)", head)
        return (int(head.split()[1]) if head else 0), json.loads(body or "null"), receipt[1] if receipt else ""

    def register(self, box: str) -> float:
        """What the setpoint register of a wallbox says, in amperes, asked by a client that is not ours."""
        unit, address, scale = SETPOINTS[box]
        command = f"mbpoll -0 -1 -B -q -t 4 -m tcp -p {self.ports[box]} -a {unit} -r {address} -c 1 127.0.0.1"
        done = subprocess.run(command.split(), capture_output=True, text=True, timeout=10, check=True)
        value = re.search(r"^\[\d+\]:\s*(\d+)", done.stdout, re.MULTILINE)
        assert value, done.stdout
        return int(value[1]) * scale

    def topic(self, name: str) -> str:
        command = ["mosquitto_sub", "-p", str(self.mqtt), "-t", f"smgw-bridge/{name}", "-C", "1", "-W", "5"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def wallboxes(self, receipt: str) -> dict[str, dict[str, object]]:
        _, document, _ = self.curl(f"/api/v1/receipts/{receipt}")
        return document["wallboxes"]  # type: ignore[index]

    def until(self, holds: Callable[[], bool], seconds: float = 15.0) -> bool:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def charging(self, *boxes: str) -> bool:
        return all(self.topic(f"wallboxes/{box}/state") == "C" for box in boxes)

    def calm(self) -> bool:
        """All cars have started, and nobody takes one of them for other load (the wallbox E1 needs seconds to tell).

        Until then another may have been paused for a minute.
        """
        if not self.charging("E1", "E2", "E3") or float(self.topic("wallboxes/E1/current_l1_a") or 0) < 6:
            return False
        reasons = " ".join(self.topic(f"wallboxes/{box}/reason") for box in self.ports if box != "M1")
        return all(float(amperes) < 3 for amperes in re.findall(r"less ([\d.]+) A of other load", reasons))

    def stop(self) -> None:
        if self.bridge.poll() is None:
            self.bridge.kill()
        self.bridge.wait()
        self.site.stop()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    running = House(tmp_path)
    try:
        assert running.until(lambda: running.curl("/healthz")[0] == 200), running.log.read_text()
        for box in running.ports:
            if box != "M1":
                running.site.plug(box)
        yield running
    finally:
        running.stop()


def test_avail_50_becomes_amperes_in_registers_and_values_on_mqtt(house: House) -> None:
    assert house.until(house.calm, 150), house.log.read_text()
    status, answer, receipt = house.curl("/cnf?cmd=set_cm_vars&name=AVAIL&val=50&confirm=30")
    assert (status, answer) == (200, "ok")
    boxes = house.wallboxes(receipt)
    assert {box["state"] for box in boxes.values()} == {"confirmed"}
    # Since then the house's own load may have changed it, or paused a car for a minute.
    assert house.until(lambda: all(6.0 <= house.register(box) <= 16.1 for box in SETPOINTS), 100)
    assert house.topic("grid/limit_w") == "22500"
    assert house.topic("grid/state") == "limited"
    assert house.topic("vars/AVAIL") == "50"
    assert house.until(lambda: float(house.topic("grid/power_w")) <= 22500, 30)
    assert house.until(
        lambda: float(house.topic("wallboxes/E2/setpoint_a")) == pytest.approx(house.register("E2"), abs=0.35)
    )


def test_a_receipt_tells_who_has_followed_who_hangs_and_who_rebooted(house: House) -> None:
    assert house.until(lambda: house.charging("E2", "E3"))
    house.site.hang("E1", True)
    house.site.reboot("E2")
    assert house.until(lambda: house.topic("wallboxes/E1/online") == "false")
    _, _, receipt = house.curl("/cnf?cmd=set_cm_vars&name=AVAIL&val=60&confirm=15")
    boxes = house.wallboxes(receipt)
    assert {name: box["state"] for name, box in boxes.items()} == {
        "E1": "unreachable",
        "E2": "confirmed",
        "E3": "confirmed",
    }
    house.site.hang("E1", False)
    assert house.until(lambda: house.wallboxes(receipt)["E1"]["state"] == "confirmed", 30)


def test_a_rebooted_wallbox_gets_its_limit_back_without_a_new_set(house: House) -> None:
    assert house.until(house.calm, 150), house.log.read_text()
    house.curl("/cnf?cmd=set_cm_vars&name=AVAIL&val=40&confirm=15")
    assert house.until(lambda: house.register("E2") < 15)
    house.site.reboot("E2")
    assert house.until(lambda: house.register("E2") < 15, 3), "16 A after a reboot, until told"


def test_sigterm_ends_within_two_seconds_and_leaves_a_safe_current(house: House) -> None:
    assert house.until(house.calm, 150), house.log.read_text()
    assert house.until(lambda: house.register("E3") > 6.0, 60)
    begin = time.monotonic()
    house.bridge.send_signal(signal.SIGTERM)
    assert house.bridge.wait(5) == 0
    assert time.monotonic() - begin < 2.0
    assert house.register("E2") <= 6.0
    assert house.register("E3") <= 6.0
    assert "Traceback" not in house.log.read_text()
