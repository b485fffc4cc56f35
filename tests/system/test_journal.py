"""The journal of the real service: read over HTTP, verified while it runs, and after a power cut."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.test_kill import Bridge, get


def journal(bridge: Bridge, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bridge", "journal", *arguments, "--state-dir", str(bridge.state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.system
@pytest.mark.timeout(60)
def test_a_grid_command_can_be_proved(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path)
    try:
        connection = bridge.start()
        for value in (50, 100):
            assert get(connection, f"/cnf?cmd=set_cm_vars&name=AVAIL&val={value}") == (200, "ok")
        status, found = get(connection, "/api/v1/journal")
        assert (status, found["more"]) == (200, False)  # type: ignore[index]
        entries = {entry["kind"]: entry for entry in found["entries"]}  # type: ignore[index]
        assert entries["command"]["limits"] == {"connection_power_w": 55000}
        assert entries["release"]["event"] == entries["command"]["event"]
        assert get(connection, "/api/v1/journal?from=soon")[0] == 400
        assert journal(bridge, "verify").returncode == 0, "while the service runs"
        bridge.kill()
        connection.close()
        verified = journal(bridge, "verify")
        assert (verified.returncode, verified.stdout[:6]) == (0, "fine: ")
        rows = [*csv.DictReader(io.StringIO(journal(bridge, "export").stdout))]
        commands = [row for row in rows if row["kind"] == "command"]
        assert [(row["variables"], row["source"]) for row in commands] == [
            ('{"AVAIL": 50}', "admin"),
            ('{"AVAIL": 100}', "admin"),
        ]
        shutil.rmtree(bridge.state / "journal")
        verified = journal(bridge, "verify")
        assert verified.returncode == 1
        assert "are missing" in verified.stdout
    finally:
        bridge.kill()
