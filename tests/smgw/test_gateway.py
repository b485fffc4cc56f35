"""The simulated gateway, met by the real tunnel, by curl, and by openssl."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from bridge import app
from bridge.__main__ import main
from bridge.core.gateway import SmgwConfig
from bridge.errors import BridgeError, ConfigError
from bridge.simulator.agreement import setting_of
from bridge.simulator.faults import Faults, fault
from bridge.simulator.gateway import Gateway, Setting
from bridge.simulator.handshake import Papers as GatewayPapers
from bridge.smgw.check import Check
from bridge.smgw.diagnosis import TunnelError
from bridge.smgw.pump import close
from bridge.smgw.store import Store
from bridge.smgw.tunnel import Tunnel
from tests.mqtt.brokers import free_port
from tests.smgw import rig
from tests.smgw.rig import Paper, Papers, credentials, far_end, said
from tests.smgw.test_reverse import Door, Handler

pytestmark = pytest.mark.system("openssl", "curl")


def of(papers: Papers, shows: Paper | None = None) -> GatewayPapers:
    shown = shows or papers.smgw
    return GatewayPapers(shown.certificate, shown.key, papers.cls.certificate)


@contextmanager
def simulated(papers: Papers, **given: object) -> Iterator[Gateway]:
    setting = Setting(of(papers), papers.curve, **given)  # type: ignore[arg-type]
    gateway = Gateway(setting)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()


async def through(papers: Papers, mode: str, host: str, faults: Faults | None = None, chats: int = 0) -> float:
    """Talk to an echo behind the simulated gateway until it ends; how long that took, in seconds."""
    async with far_end() as port:
        given = {"listen": ("127.0.0.1", 0), "profile": {(host, port)}, "faults": faults or Faults()}
        with simulated(papers, **given) as gateway:
            way = Tunnel(rig.config(gateway.port, tunnel=mode), credentials(papers))
            reader, writer = await way.open(host, port)
            begun = time.monotonic()
            assert await said(reader, writer, b"x" * 100_000) == b"x" * 100_000
            if faults:
                for _ in range(chats):
                    await asyncio.sleep(0.2)
                    assert await said(reader, writer, b"x") == b"x"
                async with asyncio.timeout(20):
                    assert await reader.read() == b""
            await close(writer)
            return time.monotonic() - begun


@pytest.mark.parametrize("host", ["backend.example", "127.0.0.1", "::1"])
def test_socks(papers: Papers, host: str) -> None:
    asyncio.run(through(papers, "socks5", host))


def test_sni(papers: Papers) -> None:
    asyncio.run(through(papers, "sni", "backend.example"))


def test_nist_curves(nist_papers: Papers) -> None:
    asyncio.run(through(nist_papers, "socks5", "backend.example"))


def test_an_idle_channel_is_cut(papers: Papers) -> None:
    assert asyncio.run(through(papers, "socks5", "backend.example", Faults(idle_s=0.4))) > 0.3


def test_a_busy_channel_is_not_cut(papers: Papers) -> None:
    """It goes on for longer than it may be idle: were it cut after 1.5 s, the last chats would not be answered."""
    assert asyncio.run(through(papers, "socks5", "backend.example", Faults(idle_s=1.5), chats=8)) > 3.0


def test_a_session_ends(papers: Papers) -> None:
    asyncio.run(through(papers, "socks5", "backend.example", Faults(session_s=0.4)))


def refused(papers: Papers, faults: Faults, mode: str = "socks5", place: tuple[str, int] = ("a.example", 9)) -> str:
    with simulated(papers, listen=("127.0.0.1", 0), profile={("a.example", 9)}, faults=faults) as gateway:
        with pytest.raises(TunnelError) as caught:
            asyncio.run(Tunnel(rig.config(gateway.port, tunnel=mode), credentials(papers)).open(*place))
        return str(caught.value)


def test_faults_are_what_they_say(papers: Papers) -> None:
    assert "hangs up during the handshake" in refused(papers, Faults(deaf=True))
    assert "another certificate than" in refused(papers, Faults(papers=of(papers, papers.stranger)))
    assert "(SOCKS 1)" in refused(papers, Faults(refusal=1))
    assert "(SOCKS 5)" in refused(papers, Faults())  # nobody listens on port 9
    assert "(SOCKS 2)" in refused(papers, Faults(), place=("b.example", 9))
    assert "knows no b.example" in refused(papers, Faults(), "sni", ("b.example", 9))
    unknown = Faults(papers=GatewayPapers(papers.smgw.certificate, papers.smgw.key, papers.stranger.certificate))
    assert "does not accept our certificate" in refused(papers, unknown)


@pytest.mark.parametrize(
    ("word", "fault_seen"),
    [
        ("deaf", "the gateway hangs up during the handshake"),
        ("other-certificate", "another certificate than"),
        ("curve=secp384r1", "no curve or cipher suite in common"),
        ("refuse=2", "(SOCKS 2)"),
    ],
)
def test_faults_of_the_command_line(papers: Papers, word: str, fault_seen: str) -> None:
    smgw = SmgwConfig(f"127.0.0.1:{free_port()}", "cls", "smgw", tunnel="socks5", destination="a.example:9")
    setting = setting_of(smgw, papers.cls.certificate.parent, faults=dict([fault(word)]))
    assert setting
    gateway = Gateway(setting)
    gateway.start()
    try:
        with pytest.raises(TunnelError) as caught:
            asyncio.run(Tunnel(smgw, credentials(papers)).open("a.example", 9))
    finally:
        gateway.stop()
    assert fault_seen in str(caught.value)


def test_words_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert Faults(**dict(map(fault, ("idle=60", "session=0.5")))) == Faults(idle_s=60.0, session_s=0.5)  # type: ignore[arg-type]
    for word in ("nix", "deaf=1", "curve=x", "curve", "refuse=0", "refuse=256", "refuse=", "idle=0", "session=inf"):
        with pytest.raises(SystemExit) as ended:
            main(["simulate", "--fault", word])
        assert ended.value.code == 2
        assert f"argument --fault: {word}: " in capsys.readouterr().err


def test_faults_need_a_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bridge.yaml").write_text("grid: {connection_power_w: 1000}\n")
    assert main(["simulate", "-c", str(tmp_path / "bridge.yaml"), "--fault", "deaf"]) == 1
    assert "no gateway is simulated" in capsys.readouterr().err


def test_brainpool_only(papers: Papers, nist_papers: Papers) -> None:
    with simulated(papers, listen=("127.0.0.1", 0)) as gateway:
        way = Tunnel(rig.config(gateway.port), credentials(papers, own=nist_papers.cls, curve="prime256v1"))
        with pytest.raises(TunnelError, match="no curve or cipher suite in common"):
            asyncio.run(way.open("a.example", 9))


def test_faults_can_come_and_go(papers: Papers) -> None:
    async def go() -> None:
        async with far_end() as port:
            with simulated(papers, listen=("127.0.0.1", 0), profile={("a.example", port)}) as gateway:
                way = Tunnel(rig.config(gateway.port), credentials(papers))
                gateway.faults.refusal = 2
                with pytest.raises(TunnelError, match="SOCKS 2"):
                    await way.open("a.example", port)
                gateway.faults.refusal = 0
                reader, writer = await way.open("a.example", port)
                assert await said(reader, writer, b"a") == b"a"
                gateway.cut()
                assert await reader.read() == b""
                await close(writer)

    asyncio.run(go())


@pytest.mark.system("stunnel4")
def test_the_sidecar_of_the_document(tmp_path: Path, papers: Papers) -> None:
    """The gateway takes a name in the hello for a destination: the sidecar must send none."""
    document = (Path(__file__).parents[2] / "docs/smgw.md").read_text(encoding="utf-8")
    settings, near = document.split("```ini\n")[1].split("```")[0], free_port()

    async def go() -> None:
        async with far_end() as port:
            with simulated(papers, listen=("127.0.0.1", 0), profile={("a.example", port)}) as gateway:
                text = settings.replace("127.0.0.1:11090", f"127.0.0.1:{near}")
                text = text.replace("192.168.100.1:4433", f"127.0.0.1:{gateway.port}")
                text = text.replace("/etc/stunnel", str(papers.cls.certificate.parent))
                file = tmp_path / "sidecar.conf"
                file.write_text(f"foreground = quiet\npid =\ndebug = 3\n{text}")
                with rig.running(near, "stunnel4", file):
                    way = Tunnel(rig.config(1, sidecar=f"127.0.0.1:{near}"), credentials(papers))
                    reader, writer = await way.open("a.example", port)
                    assert await said(reader, writer, b"beside") == b"beside"
                    await close(writer)

    asyncio.run(go())


def test_openssl_is_content_with_it(papers: Papers) -> None:
    own = ("-cert", papers.cls.certificate, "-key", papers.cls.key, "-CAfile", papers.smgw.certificate)
    with simulated(papers, listen=("127.0.0.1", 0)) as gateway:
        there = ("-connect", f"127.0.0.1:{gateway.port}", "-curves", papers.curve, "-tls1_2", "-verify_return_error")
        words = ["openssl", "s_client", *map(str, own + there)]
        shown = subprocess.run(words, input=b"\x05\x01\x00", capture_output=True, timeout=10).stdout
    assert b"Verify return code: 0 (ok)" in shown
    assert b"Protocol  : TLSv1.2" in shown


# --------------------------------------------------------------------------------------- the far end asks the bridge


@contextmanager
def serving(papers: Papers) -> Iterator[int]:
    """An SMGW door: HTTP over TLS for whoever has the gateway's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ecdh_curve(papers.curve)
    context.load_cert_chain(papers.cls.certificate, papers.cls.key)
    context.load_verify_locations(papers.smgw.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def curl(port: int, path: str) -> subprocess.CompletedProcess[str]:
    words = ["curl", "-sS", "--noproxy", "*", "--max-time", "10", f"http://127.0.0.1:{port}{path}"]
    return subprocess.run(words, capture_output=True, text=True, timeout=20)


def test_the_far_end_comes_to_the_door(papers: Papers) -> None:
    with serving(papers) as door, simulated(papers, door=("127.0.0.1", door)) as gateway:
        assert curl(gateway.far_end_port, "/cnf").stdout == "you asked for /cnf"
        gateway.faults.papers = of(papers, papers.stranger)
        assert curl(gateway.far_end_port, "/cnf").returncode != 0


def test_the_far_end_finds_nobody(papers: Papers) -> None:
    with simulated(papers, door=("127.0.0.1", free_port())) as gateway:
        assert curl(gateway.far_end_port, "/cnf").returncode in (52, 56)  # no answer


def test_the_far_end_uses_a_connection_of_the_bridge(papers: Papers) -> None:
    reverse = {"reverse": True, "destination": "supplier.example:443"}
    supplier = ("supplier.example", 443)
    given = {"listen": ("127.0.0.1", 0), "profile": {supplier}, "reverse": supplier}
    door = Door()
    with simulated(papers, **given) as gateway, rig.edge(papers, gateway.port, door.admit, **reverse) as edge:
        edge.start()
        for number in range(4):
            assert curl(gateway.far_end_port, f"/{number}").stdout == f"you asked for /{number}"
        assert edge.states == {"supplier.example:443": "open"}


def test_a_broker_behind_it_does_not_get_what_the_far_end_asks(papers: Papers) -> None:
    """Beside the reverse connections, others go out."""

    async def go() -> None:
        async with far_end() as port:
            broker, supplier = ("broker.example", port), ("supplier.example", 443)
            given = {"listen": ("127.0.0.1", 0), "profile": {broker, supplier}, "reverse": supplier}
            with simulated(papers, **given) as gateway:
                reader, writer = await Tunnel(rig.config(gateway.port), credentials(papers)).open(*broker)
                assert await said(reader, writer, b"CONNECT") == b"CONNECT"
                await close(writer)

    asyncio.run(go())


@pytest.mark.parametrize("faults", [Faults(idle_s=0.3), Faults(session_s=0.3)])
def test_a_connection_on_which_nobody_asks_is_cut_too(papers: Papers, faults: Faults) -> None:
    async def go() -> None:
        supplier = ("supplier.example", 443)
        given = {"listen": ("127.0.0.1", 0), "profile": {supplier}, "reverse": supplier, "faults": faults}
        with simulated(papers, **given) as gateway:
            reader, writer = await Tunnel(rig.config(gateway.port), credentials(papers)).open(*supplier)
            async with asyncio.timeout(20):
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
            await close(writer)

    asyncio.run(go())


SITE = """\
state_dir: {folder}
http: {{listen: "127.0.0.1:{lan}"}}
mqtt: {{url: "mqtt://127.0.0.1:9"}}
smgw: {{certificate: cls, gateway_certificate: smgw, listen: "127.0.0.1:{door}"}}
grid: {{connection_power_w: 55000 * AVAIL / 100}}
variables: {{AVAIL: {{initial: 100}}}}
"""


def test_the_far_end_sets_a_variable_of_the_real_bridge(tmp_path: Path, papers: Papers) -> None:
    """HKS4 as a whole: curl, simulated gateway, SMGW door, hub; and what `smgw-check` says of the door meanwhile."""
    shutil.copytree(papers.cls.certificate.parent, tmp_path / "certificates")
    file = tmp_path / "bridge.yaml"
    file.write_text(SITE.format(folder=tmp_path, lan=free_port(), door=free_port()))
    setup = app.prepare(file)
    assert setup.config.smgw
    setting = setting_of(setup.config.smgw, tmp_path / "certificates", ("127.0.0.1", 0))
    assert setting
    gateway, bridge = Gateway(setting), app.App(setup, tmp_path)
    gateway.start()
    bridge.start()
    try:
        assert curl(gateway.far_end_port, "/cnf?cmd=set_cm_vars&name=AVAIL&val=50").stdout == '"ok"'
        assert bridge.hub.snapshot.decision.grid.limit_w == 27_500
        lines: list[str] = []
        Check(setup.config.smgw, Store(tmp_path / "certificates"), lines.append).run(None)
        assert lines[-1].endswith("the bridge listens and shows its certificate")
    finally:
        bridge.stop()
        gateway.stop()


# ----------------------------------------------------------------------------------------------------- the agreement


def test_the_other_side_of_a_configuration(papers: Papers) -> None:
    folder = papers.cls.certificate.parent
    both = SmgwConfig(
        address="127.0.0.1:4433",
        certificate="cls",
        gateway_certificate="smgw",
        listen="127.0.0.1:8443",
        tunnel="socks5",
        destination="backend.example:443",
    )
    setting = setting_of(both, folder)
    assert setting
    assert setting.papers == of(papers)
    assert (setting.listen, setting.door) == (("127.0.0.1", 4433), ("127.0.0.1", 8443))
    assert setting.profile == (("backend.example", 443),)
    with_broker = setting_of(both, folder, behind=[("broker.example", 1883)])
    assert with_broker
    assert with_broker.profile == (("backend.example", 443), ("broker.example", 1883))
    inward = setting_of(replace(both, tunnel="none"), folder)
    assert inward
    assert inward.listen is None
    with pytest.raises(ConfigError, match="smgw-bridge cert create other makes one"):
        setting_of(replace(both, gateway_certificate="other"), folder)


@pytest.mark.parametrize(
    "smgw",
    [
        SmgwConfig(),
        SmgwConfig("192.168.100.1", "cls", "smgw", listen="192.168.100.2:8443", tunnel="socks5"),
        SmgwConfig(listen="127.0.0.1:8443", tls=False),
        SmgwConfig("127.0.0.1", sidecar="127.0.0.1:1080", tunnel="socks5"),
    ],
)
def test_what_is_not_ours_is_left_alone(papers: Papers, smgw: SmgwConfig) -> None:
    assert setting_of(smgw, papers.cls.certificate.parent) is None


def test_a_port_that_is_taken(papers: Papers, tmp_path: Path) -> None:
    with serving(papers) as port, pytest.raises(BridgeError, match="cannot be simulated"):
        Gateway(Setting(of(papers), papers.curve, listen=("127.0.0.1", port))).start()
    with pytest.raises(BridgeError, match="nowhere"):
        Gateway(Setting(GatewayPapers(*[tmp_path / "nowhere"] * 3))).start()
