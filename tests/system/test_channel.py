"""The channel through the gateway, end to end: the service as its own process, around it parts nobody here wrote."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from hashlib import sha256
from pathlib import Path

import pytest

from bridge.simulator.gateway import Gateway, Setting
from bridge.simulator.handshake import Papers as GatewayPapers
from tests.mqtt.brokers import Listener, Mosquitto, free_port, listening, until
from tests.smgw import rig
from tests.smgw.rig import Paper, Papers
from tests.system.channel import FULL_W, PRESETS, Emt, House, asked, danted, expired, introduced, knock

pytestmark = pytest.mark.system("openssl", "curl", "stunnel4", "microsocks", "mosquitto")

LIMIT = "smgw-bridge/grid/limit_w"
SET_50 = "/cnf?cmd=set_cm_vars&name=AVAIL&val=50"


@pytest.fixture(scope="module", params=PRESETS)
def crypto(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def papers(crypto: str, tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return introduced(tmp_path_factory.mktemp(crypto), crypto)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    running = Mosquitto(tmp_path)
    try:
        yield running
    finally:
        running.kill()


def behind(host: str, port: int) -> str:
    """``mqtt`` for a broker behind the gateway."""
    return f'tunnel: true, url: "mqtt://{host}:{port}"'


def way_out(port: int, tunnel: str = "socks5") -> str:
    return f'address: "127.0.0.1:{port}", tunnel: {tunnel}'


def commands_reach_the_bridge(listener: Listener) -> None:
    """The tree is there, and a limit that is set at the far end of the channel is in force and answered."""
    until(lambda: listener.topics.get("smgw-bridge/status") == "online")
    until(lambda: float(listener.topics.get(LIMIT, 0)) == FULL_W)
    assert listener.ask("set_cm_vars", {"vars": [{"name": "AVAIL", "expr": 50}]})["status"] == "ok"
    until(lambda: float(listener.topics[LIMIT]) == FULL_W / 2)


# ----------------------------------------------------------------------------------------- HKS3, the broker behind it


@pytest.mark.system("danted")
@pytest.mark.parametrize("proxy", ["microsocks", "danted"])
def test_hks3_socks5_carries_the_topic_tree_and_commands(
    tmp_path: Path, papers: Papers, crypto: str, broker: Mosquitto, proxy: str
) -> None:
    proxies: dict[str, Callable[[], AbstractContextManager[int]]] = {
        "microsocks": rig.microsocks,
        "danted": lambda: danted(tmp_path, broker.port),
    }
    with proxies[proxy]() as socks, rig.stunnel(tmp_path, papers, socks) as port, listening(broker.port) as listener:
        with House(tmp_path, papers, crypto, way_out(port), behind("localhost", broker.port)).running() as bridge:
            commands_reach_the_bridge(listener)
            assert f'smgw_bridge_smgw_tunnel_up{{destination="localhost:{broker.port}"}} 1' in bridge.metrics()
        until(lambda: listener.topics["smgw-bridge/status"] == "offline")


@pytest.mark.system("danted")
def test_a_destination_outside_the_proxy_profile_is_named_in_the_log(
    tmp_path: Path, papers: Papers, crypto: str, broker: Mosquitto
) -> None:
    with (
        danted(tmp_path, free_port()) as socks,
        rig.stunnel(tmp_path, papers, socks) as port,
        House(tmp_path, papers, crypto, way_out(port), behind("localhost", broker.port)).running() as bridge,
    ):
        until(lambda: bridge.logged("the gateway does not allow it (SOCKS 2)"))
        assert bridge.logged(f"ask for localhost:{broker.port} to be entered in the proxy profile")
        assert f'smgw_bridge_smgw_tunnel_up{{destination="localhost:{broker.port}"}} 0' in bridge.metrics()


def test_hks3_sni_carries_the_topic_tree_and_commands(
    tmp_path: Path, papers: Papers, crypto: str, broker: Mosquitto
) -> None:
    """No name server knows backend.example: nothing but the hello can have said where to go."""
    named = f"[broker]\nsni = hks3:backend.example\nconnect = 127.0.0.1:{broker.port}"
    known = f"cert = {papers.smgw.certificate}\nkey = {papers.smgw.key}\nCAfile = {papers.cls.certificate}"
    with (
        rig.stunnel(tmp_path, papers, free_port(), named, known, "verifyPeer = yes") as port,
        listening(broker.port) as listener,
        House(tmp_path, papers, crypto, way_out(port, "sni"), behind("backend.example", 1883)).running() as bridge,
    ):
        commands_reach_the_bridge(listener)
        assert 'smgw_tunnel_up{destination="backend.example:1883"} 1' in bridge.metrics()


def test_hks3_with_the_simulated_gateway_alone(tmp_path: Path, papers: Papers, crypto: str, broker: Mosquitto) -> None:
    """``simulate`` needs no devices, knows the broker behind it, and ``smgw-check`` finds the way as it is found."""
    bridge = House(tmp_path, papers, crypto, way_out(free_port()), behind("broker.example", broker.port))
    shutil.copy(papers.smgw.key, bridge.state / "certificates")
    with bridge.simulated(), bridge.running(), listening(broker.port) as listener:
        commands_reach_the_bridge(listener)
        steps = bridge.command("smgw-check", "--to", f"broker.example:{broker.port}").splitlines()
        assert [line.split()[:2] for line in steps[2:]] == [
            ["ok", f"{step}:"] for step in ("tcp", "tls", "certificate", "socks", "destination", "destination")
        ]


# ------------------------------------------------------------------------------------------------- HKS4/HKS5, the door


def test_hks45_the_certificate_opens_the_door_and_nothing_else_does(
    tmp_path: Path, papers: Papers, crypto: str
) -> None:
    door, curve = free_port(), papers.curve
    keys = f'listen: "127.0.0.1:{door}", role: admin, far_ends: [{{certificate: supplier}}, {{certificate: late}}]'
    supplier, late = rig.paper(tmp_path, "supplier", curve), expired(tmp_path, "late", curve)
    given = papers.cls.certificate.parent
    for paper in (supplier, late):  # one that has expired is not imported, but it may expire in the store
        (given / paper.certificate.name).write_bytes(paper.certificate.read_bytes())
    with House(tmp_path, papers, crypto, keys).running() as bridge:
        assert knock(door, SET_50, None, curve)[0] == 0
        assert knock(door, SET_50, papers.stranger, curve)[0] == 0
        assert knock(door, SET_50, late, curve)[0] == 0
        until(lambda: bridge.logged("certificate has expired"))

        status, answer, number = knock(door, SET_50, papers.smgw, curve)
        assert (status, answer) == (200, "ok")
        _, receipt, _ = knock(door, f"/api/v1/receipts/{number}", papers.smgw, curve)
        assert (receipt["limit_w"], receipt["source"]) == (FULL_W / 2, "smgw")  # type: ignore[index]
        assert receipt["in_force_at"]  # type: ignore[index]
        assert knock(door, "/", papers.smgw, curve)[0] == 200

        assert knock(door, f"{SET_50}0", supplier, curve)[0] == 400
        assert knock(door, "/cnf?cmd=set_cm_vars&name=AVAIL&val=60", supplier, curve)[0] == 200
        for page in ("/", "/ui/en/sim.htm", "/metrics", "/api/v1/config", "/api/v1/certificates"):
            assert knock(door, page, supplier, curve)[0] == 403, page

        bridge.write(f"{keys}, functions: {{power_limit: false}}")
        bridge.reload()
        until(lambda: bridge.logged("read again, and in force"))
        assert [knock(door, SET_50, paper, curve)[0] for paper in (supplier, papers.smgw)] == [403, 403]
        _, variables, _ = knock(door, "/cnf?cmd=get_cm_vars", supplier, curve)
        assert variables["vars"][0]["val"] == 60  # type: ignore[index]


# ------------------------------------------------------------------------------------------------------------- reverse


def test_reverse_the_far_end_asks_on_the_connection_of_the_bridge(tmp_path: Path, papers: Papers, crypto: str) -> None:
    with closing(Emt()) as emt, rig.gateway(tmp_path, papers) as port:
        keys = f'{way_out(port)}, reverse: true, destination: "{emt.place}", role: supplier'
        with House(tmp_path, papers, crypto, keys).running() as bridge:
            with emt.connection() as wire:
                status, answer, number = asked(wire, SET_50)
                assert (status, answer) == (200, "ok")
                _, receipt, _ = asked(wire, f"/api/v1/receipts/{number}")
                assert (receipt["limit_w"], receipt["source"]) == (FULL_W / 2, "smgw")  # type: ignore[index]
                assert asked(wire, "/")[0] == 403
            until(lambda: bridge.logged(sha256(papers.smgw.der).hexdigest()[:16]))  # the audit log


def test_reverse_a_request_that_is_cut_leaves_nothing_half_done(tmp_path: Path, papers: Papers, crypto: str) -> None:
    body = b'{"vars": [{"name": "AVAIL", "expr": 10}, {"name": "NEW", "expr": 1}]}'
    head = b"POST /cnf?cmd=set_cm_vars HTTP/1.1\r\nHost: bridge\r\nContent-Length: %d\r\n\r\n" % len(body)
    with closing(Emt()) as emt, rig.gateway(tmp_path, papers) as port:
        keys = f'{way_out(port)}, reverse: true, destination: "{emt.place}"'
        with House(tmp_path, papers, crypto, keys).running():
            with emt.connection() as wire:
                assert asked(wire, SET_50)[0] == 200
                wire.sendall(head + body[:-1])
                # A reset, not a farewell.
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for _ in range(3):  # the other one of the pool, and two that were made anew
                with emt.connection() as wire:
                    _, found, _ = asked(wire, "/cnf?cmd=get_cm_vars")
                    assert [(one["name"], one["val"]) for one in found["vars"]] == [("AVAIL", 50)]  # type: ignore[index]


# ------------------------------------------------------------------------------------------- ends and new certificates


def test_a_cut_of_the_gateway_changes_no_limit(tmp_path: Path, papers: Papers, crypto: str, broker: Mosquitto) -> None:
    """The end of a session, as of the 48 hours, on all connections at once."""
    known = GatewayPapers(papers.smgw.certificate, papers.smgw.key, papers.cls.certificate)
    profile = {("broker.example", broker.port)}
    gateway = Gateway(Setting(known, papers.curve, listen=("127.0.0.1", 0), profile=profile))
    gateway.start()
    with ExitStack() as stack:
        stack.callback(gateway.stop)
        listener = stack.enter_context(listening(broker.port))
        bridge = House(tmp_path, papers, crypto, way_out(gateway.port), behind("broker.example", broker.port))
        stack.enter_context(bridge.running())
        commands_reach_the_bridge(listener)
        begin = len(listener.heard)
        gateway.cut()
        until(lambda: _told(listener, begin, "smgw-bridge/status")[-2:] == ["offline", "online"])
        until(lambda: _told(listener, begin, LIMIT))
        assert {float(limit) for limit in _told(listener, begin, LIMIT)} == {FULL_W / 2}
        assert listener.ask("get_cm_vars", {})["vars"][0]["val"] == 50


def _told(listener: Listener, begin: int, topic: str) -> list[str]:
    return [bytes(message.payload).decode() for message in listener.heard[begin:] if message.topic == topic]


def test_replaced_certificates_count_for_new_connections_without_a_drop(
    tmp_path: Path, papers: Papers, crypto: str, broker: Mosquitto
) -> None:
    """Ours and the gateway's are replaced while the bridge has its broker through the one and is asked by the other."""
    curve, door = papers.curve, free_port()
    ours, theirs = (rig.paper(tmp_path, name, curve) for name in ("cls-new", "smgw-new"))
    with ExitStack() as stack:
        listener = stack.enter_context(listening(broker.port))
        socks = stack.enter_context(rig.microsocks())
        old = ExitStack()
        port = old.enter_context(rig.stunnel(tmp_path, papers, socks))
        keys = f'{way_out(port)}, listen: "127.0.0.1:{door}"'
        bridge = House(tmp_path, papers, crypto, keys, behind("localhost", broker.port))
        stack.enter_context(bridge.running())
        stack.callback(old.close)
        commands_reach_the_bridge(listener)
        begin, opened = len(listener.heard), "smgw_bridge_smgw_tunnel_opened_total 1.0\n"
        assert opened in bridge.metrics()

        bridge.command("cert", "import", "cls", ours.certificate, "--key", ours.key, "--replace")
        bridge.command("cert", "import", "smgw", theirs.certificate, "--replace")
        until(lambda: shown(door, theirs, curve) == ours.der)
        until(lambda: knock(door, "/api/v1/variables", theirs, curve)[0] == 200)
        assert knock(door, "/api/v1/variables", papers.smgw, curve)[0] == 0
        assert opened in bridge.metrics(), "the connection that was open is the one that is open"
        assert _told(listener, begin, "smgw-bridge/status") == []

        old.close()  # the gateway comes back with its new certificate, and knows only our new one
        renewed = Papers(ours, theirs, papers.stranger, curve)
        stack.enter_context(rig.stunnel(tmp_path, renewed, socks, port=port))
        until(lambda: _told(listener, begin, "smgw-bridge/status")[-2:] == ["offline", "online"])
        assert opened.replace("1.0", "2.0") in bridge.metrics()
        assert {float(limit) for limit in _told(listener, begin, LIMIT)} <= {FULL_W / 2}
        assert float(listener.topics[LIMIT]) == FULL_W / 2


def shown(door: int, paper: Paper, curve: str) -> bytes | None:
    """The certificate that is shown at the door."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ecdh_curve(curve)
    context.load_cert_chain(paper.certificate, paper.key)
    try:
        with socket.create_connection(("127.0.0.1", door), 5) as plain, context.wrap_socket(plain) as wire:
            return wire.getpeercert(binary_form=True)
    except OSError:
        return None
