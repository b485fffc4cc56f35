"""The broker of our own, started when none is configured: mosquitto when installed, else iotcore from a wheel.

It listens on loopback only, because it knows no passwords: whoever wants MQTT in the house network runs a broker
with users (``mosquitto/mosquitto.conf``) and names it in ``mqtt.url``.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bridge.core.config import MqttConfig
from bridge.core.model import Snapshot
from bridge.mqtt.link import Address, address

logger = logging.getLogger(__name__)

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
STEADY_S = 60.0
"""A broker that ran this long did well: the next pause is short again."""

_NOBODY = 65534

_MOSQUITTO = """\
listener {port} {host}
allow_anonymous true
set_tcp_nodelay true
persistence false
sys_interval 0
log_dest stderr
log_type error
log_type warning
connection_messages false
# A subscriber of the whole tree gets thousands of retained topics at once; the default lets 1000 wait.
max_queued_messages 100000
max_packet_size 262144
"""

# One listener speaks one version of the protocol here, and 3.1.1 is what most clients begin with. With the default
# of max_outgoing_packet_count a new subscriber gets 100 retained topics and no more; QoS 1 subscribers still do.
_IOTCORE = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 100000
max_segment_size = 10485760
max_segment_count = 3
[v4.1]
name = "smgw-bridge"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v4.1.connections]
connection_timeout_ms = 10000
max_payload_size = 262144
max_inflight_count = 100
dynamic_filters = true
"""


class Broker:
    """Keeps a broker of our own running on ``mqtt.listen`` as long as ``mqtt.url`` is not set."""

    def __init__(self, config: MqttConfig) -> None:
        self._config = config
        self._stopping = False
        self._wake = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._said = ""
        self._thread = threading.Thread(target=self._run, name="mqtt-broker", daemon=True)

    def start(self) -> None:
        """Begin to look after the broker."""
        self._thread.start()

    def await_up(self, timeout_s: float) -> None:
        """Wait a moment for a broker just started: a first connection refused costs the client three seconds."""
        place, end = address(self._config), time.monotonic() + timeout_s
        while self._config.url is None and time.monotonic() < end:
            try:
                socket.create_connection((place.host, place.port), 0.1).close()
                return
            except OSError:
                time.sleep(0.01)

    def offer(self, snapshot: Snapshot) -> None:
        """Follow a changed configuration."""
        if snapshot.config.mqtt != self._config:
            self._config = snapshot.config.mqtt
            self._end()

    def stop(self) -> None:
        """End the broker."""
        self._stopping = True
        self._end()
        self._thread.join(0.7)

    def _end(self) -> None:
        self._wake.set()
        if process := self._process:
            process.terminate()

    def _run(self) -> None:
        pause_s = SHORTEST_PAUSE_S
        with tempfile.TemporaryDirectory(prefix="smgw-bridge-broker-") as folder:
            while not self._stopping:
                began = time.monotonic()
                if self._config.url is None:
                    self._keep(self._config, Path(folder))
                if time.monotonic() - began > STEADY_S or self._wake.is_set():
                    pause_s = SHORTEST_PAUSE_S
                else:
                    self._wake.wait(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                self._wake.clear()

    def _keep(self, config: MqttConfig, folder: Path) -> None:
        """Start a broker and stay with it until it ends, or say why there is none."""
        place = address(config)
        if place.host != config.listen.rpartition(":")[0].strip("[]"):
            self._say(f"our own MQTT broker has no passwords and listens on {place} only, not on {config.listen}")
        if problem := _occupied(place):
            self._say(f"no MQTT broker of our own: {place}: {problem}; the bridge talks to what listens there")
            return
        command = _command(place, folder)
        if command is None:
            self._say("no MQTT broker: install mosquitto, or name a broker in mqtt.url", logging.ERROR)
            return
        last = ""
        # A group of its own: Ctrl-C on the terminal is for us, the broker shall still carry our last words.
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0
        ) as process:
            self._process = process
            if self._stopping or self._config is not config:
                process.terminate()
            self._say(f"MQTT broker of our own on {place}", logging.INFO)
            for line in process.stderr or ():
                last = line.strip()
                logger.debug("broker: %s", last)
        self._process = None
        if not self._wake.is_set():
            self._say(f"our own MQTT broker ended by itself ({process.returncode}) {last}")

    def _say(self, text: str, importance: int = logging.WARNING) -> None:
        """Log a change once, however often it is noticed."""
        if text != self._said:
            self._said = text
            logger.log(importance, text)


def _occupied(place: Address) -> str:
    """Why nothing can listen there; empty when something can."""
    try:
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        socket.create_server((place.host, place.port), family=family).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _command(place: Address, folder: Path) -> list[str] | None:
    """The command line of the best broker there is; None without any. Writes its configuration into ``folder``."""
    user: list[str] = []
    if mosquitto := shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"):
        file = folder / "mosquitto.conf"
        file.write_text(_MOSQUITTO.format(host=place.host, port=place.port))
        command = [mosquitto, "-c", str(file)]
        if os.geteuid() == 0:
            # Started as root it would change its user itself, and the kernel would forget --pdeathsig.
            folder.chmod(0o755)
            user = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    elif importlib.util.find_spec("iotcore"):
        host = f"[{place.host}]" if ":" in place.host else place.host
        file = folder / "iotcore.toml"
        file.write_text(_IOTCORE.format(host=host, port=place.port))
        # It logs every message as an error; -P: no folder named iotcore may come in between.
        command = [sys.executable, "-P", "-m", "iotcore", "--config", str(file), "--log-level", "CRITICAL"]
    else:
        return None
    # The kernel ends the broker when our thread is gone, however we ended.
    setpriv = shutil.which("setpriv")
    return [setpriv, *user, "--pdeathsig=KILL", "--", *command] if setpriv else command
