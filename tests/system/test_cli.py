"""The command line as a user meets it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.__main__ import main
from tests.modbus.rogue import Rogue

SITE = """\
http: {{listen: "127.0.0.1:{http}"}}
mqtt: {{url: "mqtt://127.0.0.1:9"}}
grid: {{connection_power_w: 55000 * AVAIL / 100}}
variables: {{AVAIL: {{initial: 100, min: 0, max: 100}}}}
"""

TEN_MISTAKES = """\
site: Musterweg 1
gird: {}
grid:
  connection_power_w: 55000 * AVAIL /
  voltage: "230"
variables:
  AVAIL: {initial: 100, min: 0, max: 50}
meters:
  - {id: M1, role: main, profile: eastron-sdm630, address: "192.168.1.10:502"}
  - {id: M2, profile: eastron-sdm360, address: 192.168.1.11}
wallboxes:
  - {id: E1, profile: keba-p30, address: 192.168.1.20, unit: 300}
  - {id: m1, profile: keba-p30, address: 192.168.1.21}
  - {id: E3, profile: keba-p30, address: 192.168.1.22, max_current_a: M9.current_l1}
  - {id: E4, profile: keba-p30, address: 192.168.1.23, rotation: [1, 2, 2]}
  - {id: E5, address: 192.168.1.24}
smgw: {address: 192.168.100.1, tunnel: sock5}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def bridge(*arguments: object, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bridge", *map(str, arguments)]
    known = {key: value for key, value in os.environ.items() if not key.startswith("SMGW_BRIDGE")}
    return subprocess.run(command, input=given, env=known | environment, capture_output=True, text=True, timeout=60)


def here(*arguments: str) -> int:
    """The exit code of a command in this process: quicker than one of its own."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


def mistakes(result: subprocess.CompletedProcess[str], file: Path) -> list[tuple[int, str]]:
    """Line and text of each mistake; everything on standard error must be one."""
    found = [re.fullmatch(rf"{re.escape(str(file))}:(\d+): (.+)", line) for line in result.stderr.splitlines()]
    return [(int(match[1]), match[2]) if match else (0, "") for match in found]


@pytest.mark.parametrize("command", ["check", "run"])
def test_ten_mistakes_are_shown_at_once(tmp_path: Path, command: str) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(TEN_MISTAKES)
    result = bridge(command, "-c", file)
    assert result.returncode == 1
    assert result.stdout == ""
    expected = [
        (2, "gird: unknown key (did you mean grid?); allowed: grid, site"),
        (4, "grid.connection_power_w: '55000 * AVAIL /' is no formula: "),
        (5, "grid.voltage: '230' does not fit; allowed: a number"),
        (7, "variables.AVAIL: initial 100 is outside min and max"),
        (9, "meters[0].role: 'main' is not one of the words; allowed: grid, consumption"),
        (10, "meters[1].profile: there is no profile eastron-sdm360 (did you mean eastron-sdm"),
        (12, "wallboxes[0].unit: 300 does not fit; allowed: 0 to 255"),
        (13, "wallboxes[1].id: m1 is taken: line 9 has it already"),
        (14, "wallboxes[2].max_current_a: 'M9.current_l1' names m9.current_l1, but there is no m9; there are M1, M2"),
        (15, "wallboxes[3].rotation: a list does not fit; allowed: each of the lines 1, 2 and 3 once"),
        (16, "wallboxes[4].profile: is missing"),
        (17, "smgw.tunnel: 'sock5' is not one of the words; allowed: socks5, sni, none"),
    ]
    found = mistakes(result, file)
    assert [(line, text[: len(start)]) for (line, text), (_, start) in zip(found, expected, strict=True)] == expected


def test_a_good_file_is_fine_and_slips_are_hints(tmp_path: Path) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(SITE.format(http=1).replace("AVAIL /", "AVIAL /"))
    result = bridge("check", SMGW_BRIDGE_CONFIG=str(file))
    assert result.returncode == 0
    assert "fine" in result.stdout
    assert "hint: grid.connection_power_w: avial is not declared under variables (did you mean AVAIL?)" in result.stderr


@pytest.mark.parametrize("file", ["bridge/simulator/demo.yaml", "deploy/bridge.yaml"])
def test_the_files_we_ship_are_fine(tmp_path: Path, file: str) -> None:
    for name in ("cls", "smgw"):
        assert here("cert", "create", name, "--state-dir", str(tmp_path)) == 0
    result = bridge("check", "-c", Path(__file__).parents[2] / file, STATE_DIRECTORY=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = bridge("check", "-c", tmp_path / "nowhere.yaml")
    assert result.returncode == 1
    assert "nowhere.yaml: cannot be read" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("check", "--colour"),
        ("try",),
        ("try", "AVAIL", "70"),
        ("probe",),
        ("probe", "127.0.0.1", "--profile", "keba-p30", "--unit", "one"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert here(*arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "output", "code"),
    [
        (("55000 * AVAIL / 100", "AVAIL=70"), "38500", 0),
        (("M1.power_w > 4000 ? 6 : 16", "m1.power_w=5000"), "6", 0),
        (("cm.a + B", "A=1", "B=A * 2"), "3", 0),
        (("date.month >= 0 && date.year > 2000",), "1", 0),
        (("1 / AVAIL", "AVAIL=0"), "division by zero", 1),
        (("-2^2",), "-4", 0),
        (("--A", "A=2"), "2", 0),
        (("--", "-A", "A=-2"), "2", 0),
        (("AVAIL",), "unknown name avail", 1),
        (("A", "A=B", "B=A"), "refers to itself: A -> B -> A", 1),
        (("1 +",), "expected a value", 1),
    ],
)
def test_try(arguments: tuple[str, ...], output: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("try", *arguments) == code
    printed = capsys.readouterr()
    shown, silent = (printed.out, printed.err) if code == 0 else (printed.err, printed.out)
    assert shown.startswith(output)
    assert silent == ""


def test_explain_looks_into_a_state_directory_beside_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bridge.yaml").write_text(SITE.format(http=8080) + "state_dir: state\n")
    monkeypatch.chdir(tmp_path)
    assert here("explain", "-c", "bridge.yaml") == 0
    assert "55000 W" in capsys.readouterr().out
    assert here("explain", "-c", "bridge.yaml", "CM.avail=40") == 0
    assert "22000 W" in capsys.readouterr().out
    assert here("explain", "-c", "bridge.yaml", "9=40") == 2


def test_profiles(tmp_path: Path) -> None:
    listed = bridge("profiles")
    assert listed.returncode == 0
    assert {"keba-p30", "eastron-sdm630"} <= {line.split()[0] for line in listed.stdout.splitlines()}
    wrong = tmp_path / "my-box.yaml"
    wrong.write_text("vendor: Me\nmodel: Box\nkind: toaster\npoints: {}\n")
    checked = bridge("profiles", wrong)
    assert checked.returncode == 1
    assert "my-box.yaml:3: kind: 'toaster' is not one of the words; allowed: " in checked.stderr


def test_passwd(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    refused = bridge("passwd", "--state-dir", folder, given="short\n")
    assert refused.returncode == 1
    assert "8" in refused.stderr
    assert bridge("passwd", "--state-dir", folder, given="correct horse\n").returncode == 0
    (kept,) = [file for file in folder.iterdir() if "password" in file.name]
    assert "correct horse" not in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for others")
def test_a_password_that_root_sets_is_the_services(tmp_path: Path) -> None:
    """`sudo smgw-bridge passwd` must not keep the service out of its own folder."""
    os.chown(tmp_path, 65534, 65534)
    assert bridge("passwd", "--state-dir", str(tmp_path), given="correct horse\n").returncode == 0
    (made,) = tmp_path.iterdir()
    assert (made.name, made.stat().st_uid, made.stat().st_gid) == ("admin-password", 65534, 65534)
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_probe_tells_what_is_wrong() -> None:
    address = f"127.0.0.1:{free_port()}"
    result = bridge("probe", address, "--profile", "keba-p30", "--json")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert address in result.stderr or json.loads(result.stdout) is not None
    for unit in ("300", "-1", "x"):
        asked = bridge("probe", address, f"--unit={unit}")
        assert asked.returncode == 2
        assert f"{unit} is no unit; allowed: 0 to 255" in asked.stderr
    unknown = bridge("probe", address, "--profile", "keba-p31")
    assert unknown.returncode == 1
    assert "there is no profile keba-p31 (did you mean keba-p30?)" in unknown.stderr


def test_probe_speaks_of_garbage_itself_and_in_one_line() -> None:
    rogue = Rogue()
    rogue.manners = lambda asked, frame: frame[:5] + b"\3" + frame[6:8] + b"\2"  # two bytes announced, none sent
    try:
        result = bridge("probe", rogue.address, "--profile", "keba-p30")
    finally:
        rogue.close()
    assert result.returncode == 1
    assert result.stdout == ""
    (said,) = result.stderr.splitlines()
    assert said.startswith("read of 1000, unit 255, function 3: the answer cannot be read")


def test_version_and_help() -> None:
    assert re.fullmatch(r"smgw-bridge \d+\.\d+\.\d+\n", bridge("--version").stdout)
    assert "simulate" in bridge("--help").stdout


class Service:
    """``smgw-bridge run`` on free ports."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.file = folder / "bridge.yaml"
        self.file.write_text(SITE.format(http=self.port))
        command = [sys.executable, "-m", "bridge", "run", "-c", str(self.file), "--state-dir", str(folder / "state")]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 60
        while not self.answers():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end, "the bridge does not start"
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def end(self, number: signal.Signals) -> tuple[int, float, str]:
        """Exit code, how long it took, and everything that was logged."""
        begin = time.monotonic()
        self.process.send_signal(number)
        logged = self.process.communicate(timeout=20)[1]
        return self.process.returncode, time.monotonic() - begin, logged


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    code, took_s, logged = Service(tmp_path).end(number)
    assert (code, "Traceback" in logged) == (0, False), logged
    assert took_s < 15


def test_an_address_in_use_is_told(tmp_path: Path) -> None:
    service = Service(tmp_path)
    second = bridge("run", "-c", service.file, "--state-dir", tmp_path / "other")
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{service.port}" in second.stderr
    assert "Traceback" not in second.stderr
    assert service.end(signal.SIGTERM)[0] == 0


def test_a_second_bridge_leaves_the_state_of_the_first_alone(tmp_path: Path) -> None:
    service = Service(tmp_path)
    second = bridge("run", "-c", service.file, "--state-dir", tmp_path / "state")
    assert (second.returncode, "another bridge is running" in second.stderr) == (1, True), second.stderr
    assert service.end(signal.SIGTERM)[0] == 0
    verified = bridge("journal", "verify", "-c", service.file, "--state-dir", tmp_path / "state")
    assert verified.returncode == 0, verified.stdout


def test_the_service_manager_is_told_and_the_watchdog_fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        service = Service(tmp_path)
        heard: list[str] = []
        while heard.count("WATCHDOG=1") < 3 or "READY=1" not in heard:
            heard.append(manager.recv(100).decode())
        assert service.end(signal.SIGTERM)[0] == 0
        while heard[-1] != "STOPPING=1":
            heard.append(manager.recv(100).decode())
