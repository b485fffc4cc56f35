"""What is measured and what it needs: the bridge as a user runs it, and a broker."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.client import PASSWORD, WATTS_PER_AVAIL, Client
from bridge.smgw.issue import CURVE, Wish
from bridge.smgw.store import Store

ROOT = Path(__file__).resolve().parent.parent


class Box(NamedTuple):
    """A device of the site: its port, and its unit behind that."""

    port: int
    unit: int = 1


class Cost(NamedTuple):
    """What a process has used so far: seconds of CPU, and its resident MiB now."""

    cpu_s: float
    resident_mib: float


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(holds: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Look every few milliseconds until something holds; raises TimeoutError."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"after {timeout_s:g} s still not: {what}")
        time.sleep(0.01)


def answers(port: int) -> bool:
    """Whether somebody listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Broker:
    """A mosquitto of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = TemporaryDirectory(prefix="bench-")
        path = Path(self._folder.name) / "mosquitto.conf"
        path.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
            "persistence false\nlog_dest none\n"
        )
        self._process = subprocess.Popen(["mosquitto", "-c", str(path)], stderr=subprocess.DEVNULL)
        wait_for(lambda: answers(self.port), "mosquitto listens")

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    def stop(self) -> None:
        """End it without a word, as when its machine is switched off."""
        self._process.kill()
        self._process.wait()


class Bridge:
    """``smgw-bridge run`` on a site of bench devices, ``cars`` of whose wallboxes charge.

    ``more`` are further lines of its configuration, ``papers`` the names of certificates it has, on ``curve``.
    """

    def __init__(
        self,
        broker: Broker,
        boxes: Sequence[Box] = (),
        meters: Sequence[Box] = (),
        cars: int = 1,
        more: str = "",
        papers: Sequence[str] = (),
        curve: str = CURVE,
    ) -> None:
        self.port = free_port()
        self._folder = TemporaryDirectory(prefix="bench-")
        folder = Path(self._folder.name)
        (folder / "bridge.yaml").write_text(_site(self.port, broker.port, boxes, meters, cars) + more)
        self.store = Store(folder / "state" / "certificates")
        for name in papers:
            self.store.create(name, Wish(name, curve=curve))
        self._log = folder / "log"
        files = ["-c", str(folder / "bridge.yaml"), "--state-dir", str(folder / "state")]
        environment = {**os.environ, "SMGW_BRIDGE_ADMIN_PASSWORD": PASSWORD}
        self.started_at = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bridge", "run", *files], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def cost(self) -> Cost:
        """CPU and memory, from /proc."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return Cost(cpu_s, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20)

    def wait_until_healthy(self) -> None:
        """Wait until /healthz answers 200; raises when the bridge has ended or does not get there."""
        wait_for(self._is_healthy, "the bridge is healthy")

    def _is_healthy(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the bridge ended:\n{self._log.read_text()[-2000:]}")
        if not answers(self.port):
            return False
        with Client(self.port) as client:
            return client.get("/healthz") == 200


def _site(port: int, broker_port: int, boxes: Sequence[Box], meters: Sequence[Box], cars: int) -> str:
    """The configuration file."""

    def devices(letter: str, profile: str, listed: Sequence[Box]) -> str:
        return "".join(
            f"\n  - {{id: {letter}{n}, profile: {profile}, address: '127.0.0.1:{box.port}', unit: {box.unit}}}"
            for n, box in enumerate(listed, 1)
        )

    return f"""\
http: {{listen: '127.0.0.1:{port}'}}
mqtt: {{url: 'mqtt://127.0.0.1:{broker_port}', topic: bridge-{port}}}
profiles: {ROOT / "bench" / "profiles"}
grid: {{connection_power_w: {cars * WATTS_PER_AVAIL:g} * AVAIL}}
variables: {{AVAIL: {{initial: 50, min: 0, max: 100}}}}
wallboxes: {devices("E", "bench-wallbox", boxes) or "[]"}
meters: {devices("M", "bench-meter", meters) or "[]"}
"""
