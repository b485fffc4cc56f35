"""A house behind a smart meter gateway: the real command, certificates of the real commands, everybody else foreign."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path

from tests.mqtt.brokers import answers, free_port, until
from tests.smgw import rig
from tests.smgw.rig import Paper, Papers

PRESETS = {"bsi-brainpool256": "brainpoolP256r1", "bsi-nist256": "prime256v1"}
PASSWORD = "correct horse"
FULL_W = 45000


def bridge(*arguments: object, given: str = "") -> str:
    """Run a command of the bridge to its end; what it prints."""
    command = [sys.executable, "-m", "bridge", *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def introduced(folder: Path, crypto: str) -> Papers:
    """Certificates as they are exchanged: ours made by ``cert create``, theirs made by openssl and imported."""
    papers = Papers.made(folder, PRESETS[crypto])
    state = folder / "state"
    bridge("cert", "create", "cls", "--curve", papers.curve, "--state-dir", state)
    bridge("cert", "import", "smgw", papers.smgw.certificate, "--state-dir", state)
    own = Paper(state / "certificates/cls.crt", state / "certificates/cls.key")
    return Papers(own, papers.smgw, papers.stranger, papers.curve)


def expired(folder: Path, name: str, curve: str) -> Paper:
    """A certificate whose time is over, made by openssl."""
    made = rig.paper(folder, name, curve)
    again = ("-in", made.certificate, "-signkey", made.key, "-days", -1, "-out", made.certificate)
    subprocess.run(["openssl", "x509", *map(str, again)], check=True, capture_output=True)
    return made


class House:
    """The bridge as a process of its own, with a state folder in which the certificates are already."""

    def __init__(self, folder: Path, papers: Papers, crypto: str, keys: str, mqtt: str = "") -> None:
        self.state = folder / "state"
        shutil.copytree(papers.cls.certificate.parent.parent, self.state)
        self.lan = free_port()
        self.log = folder / "log"
        self._config = folder / "bridge.yaml"
        self._crypto = crypto
        self._mqtt = mqtt or f'listen: "127.0.0.1:{free_port()}"'
        self.write(keys)

    def write(self, keys: str) -> None:
        """The configuration, with further ``keys`` of ``smgw``."""
        self._config.write_text(f"""\
http: {{listen: "127.0.0.1:{self.lan}"}}
mqtt: {{{self._mqtt}, discovery: false}}
grid: {{connection_power_w: {FULL_W} * AVAIL / 100}}
variables: {{AVAIL: {{initial: 100, min: 0, max: 100, writers: [smgw, admin, mqtt]}}}}
smgw: {{certificate: cls, gateway_certificate: smgw, crypto: {self._crypto}, {keys}}}
""")

    @contextmanager
    def running(self) -> Iterator[House]:
        """The bridge runs; it must end well, and without a traceback in its log."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bridge", "run", "-c", self._config, "--state-dir", self.state],
                env={**os.environ, "SMGW_BRIDGE_ADMIN_PASSWORD": PASSWORD},
                stderr=log,
            )
        try:
            until(lambda: answers(self.lan) or self._process.poll() is not None, 20)
            yield self
        finally:
            self._process.terminate()
            code = self._process.wait(10)
            print(self.log.read_text())
        assert code == 0
        assert not self.logged("Traceback")

    def reload(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    def logged(self, text: str) -> bool:
        return text in self.log.read_text()

    def command(self, *arguments: object) -> str:
        """Another command for the same configuration and state, while the service runs."""
        return bridge(*arguments, "-c", self._config, "--state-dir", self.state)

    @contextmanager
    def simulated(self) -> Iterator[None]:
        """What is simulated of this configuration runs."""
        command = [sys.executable, "-m", "bridge", "simulate", "-c", str(self._config), "--state-dir", str(self.state)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                yield
            finally:
                process.terminate()

    def metrics(self) -> str:
        command = ["curl", "-s", "-m", "10", "--user", f"admin:{PASSWORD}", f"http://127.0.0.1:{self.lan}/metrics"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def knock(door: int, path: str, paper: Paper | None, curve: str, *options: str) -> tuple[int, object, str]:
    """curl at the SMGW door, without a password: status (0: not let in), document and receipt number."""
    shown = ["--cert", str(paper.certificate), "--key", str(paper.key)] if paper else []
    tls = ["-k", "--tls-max", "1.2", "--curves", curve, *shown]
    command = ["curl", "-si", "-m", "10", *tls, *options, f"https://127.0.0.1:{door}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    head, _, body = done.stdout.partition("\n\n")
    receipt = re.search(r"(?im)^x-receipt: (\d+)", head)
    status = int(head.split()[1]) if head else 0
    return status, json.loads(body) if body.startswith(("{", '"', "[")) else body, receipt[1] if receipt else ""


@contextmanager
def danted(folder: Path, allowed: int) -> Iterator[int]:
    """A proxy with a profile: one rule for one destination on this machine; its port."""
    port, file = free_port(), folder / "danted.conf"
    file.write_text(f"""\
logoutput: /dev/null
internal: 127.0.0.1 port = {port}
external: lo
socksmethod: none
clientmethod: none
user.privileged: {getuser()}
user.unprivileged: {getuser()}
client pass {{
    from: 127.0.0.0/8 to: 0.0.0.0/0
}}
socks pass {{
    from: 127.0.0.0/8 to: 127.0.0.1/32 port = {allowed}
    command: connect
}}
""")
    with rig.running(port, "danted", "-f", file, "-N", 1):
        yield port


class Emt:
    """The far end that asks: waits until the bridge has connected, and is the HTTP client then."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(15)
        self.place = f"localhost:{self._listener.getsockname()[1]}"

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        wire, _ = self._listener.accept()
        wire.settimeout(10)
        with wire:
            yield wire

    def close(self) -> None:
        self._listener.close()


def asked(wire: socket.socket, path: str) -> tuple[int, object, str]:
    """Status, document and receipt number of a request on a connection that stays open."""
    client = http.client.HTTPConnection("bridge")
    client.sock = wire
    client.request("GET", path)
    answer = client.getresponse()
    return answer.status, json.loads(answer.read()), answer.getheader("X-Receipt") or ""
