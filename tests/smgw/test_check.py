"""`smgw-bridge smgw-check`: each step tells for itself, and what fails says what to tell the administrator."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.core.gateway import SmgwConfig
from bridge.smgw import diagnosis
from bridge.smgw.bundle import key_pem
from bridge.smgw.check import Check
from bridge.smgw.issue import Wish, self_signed
from bridge.smgw.store import Store
from tests.mqtt.brokers import free_port
from tests.smgw import rig
from tests.smgw.rig import Papers, gateway, stunnel
from tests.smgw.test_relay import echoing

pytestmark = pytest.mark.system("stunnel4", "microsocks", "openssl")

FINGERPRINT = r"([0-9A-F]{2}:){31}[0-9A-F]{2}"


def told(papers: Papers, config: SmgwConfig, to: str | None = None) -> list[str]:
    lines: list[str] = []
    check = Check(config, Store(papers.cls.certificate.parent), lines.append)
    check.run(to)
    assert check.fine == (not any(line.startswith("FAILED") for line in lines))
    assert all(line.startswith(("ok      ", "FAILED  ")) for line in lines)
    return lines


def steps(lines: list[str]) -> list[tuple[str, str]]:
    return [(line.split()[0], line.split()[1].rstrip(":")) for line in lines]


OK_CERTIFICATES = [("ok", "certificate")] * 2


def test_everything_is_fine(tmp_path: Path, papers: Papers) -> None:
    with echoing() as far, gateway(tmp_path, papers) as port:
        lines = told(papers, rig.config(port), f"127.0.0.1:{far}")
    rest = ["tcp", "tls", "certificate", "socks", "destination", "destination"]
    assert steps(lines) == OK_CERTIFICATES + [("ok", step) for step in rest]
    assert re.search(rf"cls, ours: EC brainpoolP256r1, expires within 30 days, .* SHA-256 {FINGERPRINT}", lines[0])
    assert "TLSv1.2, ECDHE-ECDSA-AES" in lines[3]
    assert lines[-1].endswith("waits for us to speak")


def test_without_a_destination_the_walk_ends_at_the_gateway(tmp_path: Path, papers: Papers) -> None:
    with gateway(tmp_path, papers) as port:
        lines = told(papers, rig.config(port))
        assert told(papers, rig.config(port, tunnel="sni")) == lines
    assert steps(lines)[2:] == [("ok", "tcp"), ("ok", "tls"), ("ok", "certificate"), ("ok", "destination")]


def test_the_destination_of_the_file_is_taken(tmp_path: Path, papers: Papers) -> None:
    with gateway(tmp_path, papers) as port:
        lines = told(papers, rig.config(port, destination=f"127.0.0.1:{free_port()}"))
    assert steps(lines)[-1] == ("FAILED", "destination")
    assert "(SOCKS 5)" in lines[-1]
    assert "can be reached from the gateway" in lines[-1]


def test_the_broker_behind_the_gateway_is_a_destination_too(tmp_path: Path, papers: Papers) -> None:
    lines: list[str] = []
    with echoing() as far, gateway(tmp_path, papers) as port:
        check = Check(
            rig.config(port, destination=f"127.0.0.1:{far}"), Store(papers.cls.certificate.parent), lines.append
        )
        check.run(None, broker=f"127.0.0.1:{free_port()}")
    ends = [step for step in steps(lines) if step[1] == "destination"]
    assert ends == [("ok", "destination"), ("ok", "destination"), ("FAILED", "destination")]
    assert not check.fine


def test_a_far_end_that_hangs_up(tmp_path: Path, papers: Papers) -> None:
    with gateway(tmp_path, papers) as port, socket.create_server(("127.0.0.1", 0)) as far:
        threading.Thread(target=lambda: far.accept()[0].close()).start()
        lines = told(papers, rig.config(port), f"127.0.0.1:{far.getsockname()[1]}")
    assert "closed at once" in lines[-1]
    assert "our certificate" not in lines[-1], "the proxy has let us through"
    assert "our certificate" in diagnosis.cut_off("a.example:1", granted=False).advice


def test_a_gateway_that_hangs_up_right_after_the_handshake(
    tmp_path: Path, papers: Papers, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio has nothing to add to what is told, whichever of its callbacks comes first."""

    def hang_up() -> None:
        for _ in range(10):
            proxy.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as proxy, stunnel(tmp_path, papers, proxy.getsockname()[1]) as port:
        threading.Thread(target=hang_up).start()
        for _ in range(10):
            assert "hangs up before SOCKS begins" in told(papers, rig.config(port), "a.example:1")[-1]
    assert not caplog.records


def test_nobody_is_there(papers: Papers) -> None:
    lines = told(papers, rig.config(free_port()))
    assert steps(lines) == [*OK_CERTIFICATES, ("FAILED", "tcp")]


def test_the_fingerprint_of_the_wrong_certificate_is_shown(tmp_path: Path, papers: Papers) -> None:
    with gateway(tmp_path, papers, shows=papers.stranger) as port:
        lines = told(papers, rig.config(port))
    assert steps(lines)[-2:] == [("ok", "tcp"), ("FAILED", "certificate")]
    assert rig.fingerprint(papers.stranger.der) in lines[-1]


def test_our_certificate_is_not_known_there(tmp_path: Path, papers: Papers) -> None:
    mine = Papers(papers.stranger, papers.smgw, papers.cls, papers.curve)
    with gateway(tmp_path, mine) as port:
        lines = told(papers, rig.config(port))
    assert "alert unknown_ca" in lines[-1]
    assert "to be entered as that of the CLS" in lines[-1]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"certificate": "nowhere"}, "nowhere: no such certificate"),
        ({"gateway_certificate": "nowhere"}, "nowhere: no such certificate"),
        ({"crypto": "bsi-nist256"}, "crypto bsi-nist256 needs secp256r1"),
        ({"gateway_certificate": "old"}, "valid from 2020"),
        ({"certificate": "peer"}, "no private key, so it cannot be ours"),
    ],
)
def test_certificates_that_cannot_be_used(
    tmp_path: Path, papers: Papers, changed: dict[str, object], text: str
) -> None:
    """Nothing is connected then."""
    folder = tmp_path / "certificates"
    shutil.copytree(papers.cls.certificate.parent, folder)
    shutil.copy(papers.smgw.certificate, folder / "peer.crt")
    old = self_signed(Wish("old"), days=1, now_utc=1.6e9)
    (folder / "old.crt").write_bytes(old.certificates_pem())
    assert old.key
    (folder / "old.key").write_bytes(key_pem(old.key))
    own = Papers(rig.Paper(folder / "cls.crt", folder / "cls.key"), papers.smgw, papers.stranger, papers.curve)
    lines = told(own, rig.config(free_port(), **changed))
    assert any(line.startswith("FAILED") and text in line for line in lines)
    assert {step for _, step in steps(lines)} <= {"certificate", "nowhere"}


def test_nothing_is_set_up(papers: Papers) -> None:
    assert "neither listen nor tunnel" in told(papers, SmgwConfig())[0]
    assert "no way out" in told(papers, SmgwConfig(listen="127.0.0.1:1", tls=False), "a.example:1")[0]


# ------------------------------------------------------------------------------------------------------ the door


def door(listen: str, **changed: object) -> SmgwConfig:
    return SmgwConfig(listen=listen, certificate="cls", gateway_certificate="smgw", **changed)  # type: ignore[arg-type]


def test_a_door_that_is_free(papers: Papers) -> None:
    lines = told(papers, door(f"127.0.0.1:{free_port()}"))
    assert steps(lines) == [*OK_CERTIFICATES, ("ok", "door")]
    assert "free" in lines[-1]


def test_a_door_with_an_address_of_others(papers: Papers) -> None:
    assert "no address of this machine" in told(papers, door("192.0.2.1:8443"))[-1]


@contextlib.contextmanager
def serving(papers: Papers, shows: rig.Paper, newest: ssl.TLSVersion) -> Iterator[int]:
    """A door for the gateway alone, as the bridge opens it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    if newest == ssl.TLSVersion.TLSv1_2:
        context.set_ecdh_curve(papers.curve)
    context.load_cert_chain(shows.certificate, shows.key)
    context.load_verify_locations(papers.smgw.certificate)
    context.verify_mode = ssl.CERT_REQUIRED

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), context.wrap_socket(client, server_side=True):
            pass

    with rig.answering(serve) as port:
        yield port


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_door_where_the_bridge_listens(nist_papers: Papers, newest: ssl.TLSVersion) -> None:
    crypto = "bsi-nist256" if newest == ssl.TLSVersion.TLSv1_2 else "modern"
    with serving(nist_papers, nist_papers.cls, newest) as port:
        lines = told(nist_papers, door(f"127.0.0.1:{port}", crypto=crypto))
    assert lines[-1].endswith("the bridge listens and shows its certificate")


def test_a_door_taken_by_another_certificate(papers: Papers) -> None:
    with serving(papers, papers.stranger, ssl.TLSVersion.TLSv1_2) as port:
        lines = told(papers, door(f"127.0.0.1:{port}"))
    assert "taken, and not by this bridge: it shows another certificate" in lines[-1]


def test_a_door_taken_by_something_else(papers: Papers) -> None:
    with echoing() as port:
        lines = told(papers, door(f"127.0.0.1:{port}"))
        plain = told(papers, SmgwConfig(listen=f"127.0.0.1:{port}", tls=False))
    assert lines[-1].startswith("FAILED  door")
    assert "one cannot tell who" in plain[-1]


# ----------------------------------------------------------------------------------------------------- the command


def test_the_command(tmp_path: Path, papers: Papers) -> None:
    shutil.copytree(papers.cls.certificate.parent, tmp_path / "certificates")
    file = tmp_path / "bridge.yaml"
    smgw = "{address: '127.0.0.1:%d', certificate: cls, gateway_certificate: smgw, tunnel: socks5}"
    with echoing() as far, gateway(tmp_path, papers) as port:
        file.write_text(f"state_dir: {tmp_path}\ngrid: {{connection_power_w: 1000}}\nsmgw: {smgw % port}\n")
        command = [sys.executable, "-m", "bridge", "smgw-check", "-c", str(file), "--to"]
        fine = subprocess.run([*command, f"127.0.0.1:{far}"], capture_output=True, text=True, timeout=60)
        assert (fine.returncode, fine.stderr) == (0, "")
        assert len(fine.stdout.splitlines()) == 8
        failed = subprocess.run([*command, f"127.0.0.1:{free_port()}"], capture_output=True, text=True, timeout=60)
        with file.open("a") as more:
            more.write(f"mqtt: {{url: 'mqtt://127.0.0.1:{far}', tunnel: true}}\n")
        broker = subprocess.run(command[:-1], capture_output=True, text=True, timeout=60)
    assert (failed.returncode, failed.stderr) == (1, "")
    assert failed.stdout.splitlines()[-1].startswith("FAILED  destination: 127.0.0.1:")
    assert f"127.0.0.1:{far} is connected" in broker.stdout.splitlines()[-1]
