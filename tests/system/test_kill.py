"""What was answered "ok" survives ``kill -9``, at whatever moment it comes."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = int(os.environ.get("KILLS", "15"))
"""``make test-long`` kills 200 times."""

PASSWORD = "correct horse"
HEADERS = {"Authorization": "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()}


class Bridge:
    """The real service as a child process; ``url`` of the broker leads nowhere, which must not matter."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config = folder / "bridge.yaml"
        self.config.write_text(
            f"http: {{listen: '127.0.0.1:{self.port}'}}\n"
            "mqtt: {url: 'mqtt://127.0.0.1:9'}\n"
            "grid: {connection_power_w: 55000 * AVAIL / 100}\n"
            "variables: {AVAIL: {initial: 100, min: 0, max: 100}}\n"
        )
        self.state = folder / "state"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> http.client.HTTPConnection:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bridge", "run", "-c", str(self.config), "--state-dir", str(self.state)],
            env={**os.environ, "SMGW_BRIDGE_ADMIN_PASSWORD": PASSWORD},
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                return connection
            except OSError:
                connection.close()
                assert time.monotonic() < end, "the bridge does not start"
                assert self.process.poll() is None, "the bridge ended by itself"
                time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, object]:
    connection.request("GET", path, headers=HEADERS)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.system
@pytest.mark.timeout(20 + 10 * KILLS)
def test_what_was_answered_ok_survives_kill_9(tmp_path: Path) -> None:
    chance = random.Random(20261122)
    bridge = Bridge(tmp_path)
    acknowledged = sent = 0
    try:
        for _ in range(KILLS + 1):
            connection = bridge.start()
            status, variables = get(connection, "/cnf?cmd=get_cm_vars")
            assert status == 200
            found = {v["name"]: v["expr"] for v in variables["vars"]}  # type: ignore[index]
            kept = found.get("COUNT", 0)
            # The last set may have been on disk without its answer having come through.
            assert acknowledged <= kept <= sent, f"{acknowledged} was answered ok, {kept} is left"
            assert found.get("TWICE", 0) == 2 * kept, "a set was stored by half"
            until = time.monotonic() + chance.uniform(0, 0.15)
            while time.monotonic() < until:
                sent += 1
                body = json.dumps({"vars": [{"name": "COUNT", "expr": sent}, {"name": "TWICE", "expr": 2 * sent}]})
                connection.request("POST", "/cnf?cmd=set_cm_vars", body, HEADERS)
                if chance.random() < 0.3:
                    time.sleep(chance.uniform(0, 0.004))  # let it die while the set is being worked on
                    break
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b'"ok"')
                acknowledged = sent
            bridge.kill()
            connection.close()
        assert acknowledged > KILLS
    finally:
        bridge.kill()
