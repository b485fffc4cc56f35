"""The door the gateway connects to (HKS4, HKS5): who gets in, by real clients over real sockets."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bridge.core.gateway import FunctionsConfig
from bridge.smgw.contexts import client_context
from bridge.smgw.issue import Wish
from bridge.smgw.store import Store
from tests.http.conftest import Bridge, read_all
from tests.http.smgw_site import BSI, CURVES, SET, SmgwDoor, door, eventually, folder_of, papers, renewed, request

YEAR_S = 365 * 86_400
GET = "/cnf?cmd=get_cm_vars"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Certificates nobody changes."""
    return papers(tmp_path_factory.mktemp("everybody"))


@pytest.fixture
def smgw(tmp_path: Path, store: Store) -> Iterator[SmgwDoor]:
    with door(tmp_path, store) as opened:
        yield opened


# ------------------------------------------------------------------------------------------------ who gets in


@pytest.mark.parametrize("crypto", CURVES)
def test_curl_sets_and_reads_with_every_preset(tmp_path: Path, crypto: str) -> None:
    with door(tmp_path, papers(tmp_path, crypto), crypto=crypto) as smgw:
        assert smgw.curl(SET) == (200, '"ok"')
        assert '"name":"AVAIL","expr":50' in smgw.curl(GET)[1]
        assert smgw.bridge.hub.snapshot.state.variables["avail"].source == "smgw"
        assert smgw.bridge.hub.snapshot.state.receipts[1].cause.peer == smgw.fingerprint("smgw")
        told = smgw.s_client("-tls1_2")
        assert "Server Temp Key: ECDH" in told or crypto == "modern"
        assert "Secure Renegotiation IS supported" in told
        assert "Compression: NONE" in told


def test_the_curve_is_that_of_the_preset(smgw: SmgwDoor) -> None:
    assert "Server Temp Key: ECDH, brainpoolP256r1, 256 bits" in smgw.s_client()
    assert smgw.s_client("-cipher", "ECDHE-ECDSA-AES128-SHA256").count("ECDHE-ECDSA-AES128-SHA256") >= 1


@pytest.mark.parametrize("who", [None, "stranger"])
def test_who_shows_no_certificate_or_another_is_refused(smgw: SmgwDoor, who: str | None) -> None:
    assert smgw.curl(SET, who=who)[0] == 0
    assert "alert" in smgw.s_client(who=who)
    assert smgw.avail is None
    assert smgw.curl(SET)[0] == 200


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    store = papers(tmp_path)
    Store(folder_of(store), lambda: time.time() - YEAR_S).create(
        "smgw", Wish("smgw", curve=CURVES[BSI]), days=30, replace=True
    )
    with door(tmp_path, store) as smgw:
        assert smgw.curl(SET)[0] == 0
        assert "certificate expired" in smgw.s_client(say=b"x")
        assert smgw.curl(SET, who="supplier")[0] == 200


def test_what_a_pinned_certificate_has_issued_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bridge.audit")
    store, folder = papers(tmp_path, "bsi-nist256"), tmp_path

    def openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    for name in ("smgw", "stranger"):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / f"{name}.key")
    own = ("-key", folder / "smgw.key", "-out", folder / "smgw.crt")
    openssl("req", "-x509", "-subj", "/CN=smgw", "-days", 9, *own)
    openssl("req", "-new", "-key", folder / "stranger.key", "-subj", "/CN=stranger", "-out", folder / "stranger.csr")
    signed = ("-CA", folder / "smgw.crt", "-CAkey", folder / "smgw.key", "-CAcreateserial", "-days", 9)
    openssl("x509", "-req", "-in", folder / "stranger.csr", *signed, "-out", folder / "stranger.crt")
    for name in ("smgw", "stranger"):
        files = [(folder / f"{name}.{kind}").read_bytes() for kind in ("crt", "key")]
        store.put(name, files[0], files[1], replace=True)
    with door(tmp_path, store, crypto="bsi-nist256") as smgw:
        assert smgw.curl(SET, who="stranger")[0] == 0
        with suppress(OSError), smgw.connect("stranger") as wire:
            wire.sendall(request(SET))
            assert wire.recv(100) == b""
        assert "not one of those chosen" in caplog.text
        assert smgw.avail is None
        assert smgw.curl(SET)[0] == 200


def test_old_tls_is_refused(smgw: SmgwDoor) -> None:
    told = smgw.s_client("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "alert protocol version" in told or "no protocols available" in told
    assert "alert protocol version" in smgw.s_client("-tls1_3", "-groups", "P-256")


def test_plain_http_on_the_tls_port_gets_nothing(smgw: SmgwDoor) -> None:
    with socket.create_connection(("127.0.0.1", smgw.port), 5) as wire:
        wire.sendall(request(SET))
        with suppress(ConnectionResetError):
            assert b"HTTP" not in read_all(wire)
    assert smgw.avail is None


def test_a_session_cannot_be_negotiated_anew(smgw: SmgwDoor) -> None:
    told = smgw.s_client("-tls1_2", "-legacy_renegotiation", say=b"R\n")
    assert "RENEGOTIATING" in told
    assert "no renegotiation" in told
    assert smgw.curl(SET)[0] == 200


def test_a_session_is_not_resumed_for_whoever_is_shut_out(tmp_path: Path) -> None:
    """A resumed session skips the check of the certificate in TLS 1.2; the pin is compared all the same."""
    store = papers(tmp_path)
    with door(tmp_path, store) as smgw:
        context = client_context(BSI, store.load("smgw"), store.load("cls"))
        with smgw.wrapped(context) as wire:
            wire.sendall(request(GET, "Connection: close"))
            assert b" 200 " in read_all(wire)
            session = wire.session
        renewed(store, "smgw")
        time.sleep(0.6)
        again = socket.create_connection(("127.0.0.1", smgw.port), 5)
        with suppress(OSError), context.wrap_socket(again, session=session) as wire:
            wire.sendall(request(GET))
            assert wire.recv(100) == b""


# ------------------------------------------------------------------------------------------- who may do what


@pytest.mark.parametrize(
    ("who", "path", "status"),
    [
        ("smgw", "/", 200),
        ("smgw", SET, 200),
        ("smgw", "/api/v1/devices", 200),
        ("supplier", SET, 200),
        ("supplier", GET, 200),
        ("supplier", "/api/v1/variables", 200),
        ("supplier", "/api/v1/explain?AVAIL=50", 200),
        ("supplier", "/api/v1/journal", 200),
        ("supplier", "/api/v1/receipts/1", 404),
        ("supplier", "/healthz", 200),
        ("supplier", "/api/v1/sessions", 403),
        ("supplier", "/api/v1/config", 403),
        ("supplier", "/api/v1/certificates", 403),
        ("supplier", "/metrics", 403),
        ("supplier", "/", 403),
        ("supplier", "/api/v1/devices", 403),
        ("supplier", "/api/v1/variables2", 403),
        ("supplier", "/cnf?cmd=set_ajax_meter&dev_id=M1", 403),
        ("supplier", "/%2f/api/v1/variables/../password", 403),
        ("closed", SET, 403),
        ("closed", "/healthz", 403),
        ("closed", "/", 403),
    ],
)
def test_the_certificate_says_what_the_far_end_may_do(smgw: SmgwDoor, who: str, path: str, status: int) -> None:
    assert smgw.curl(path, who=who)[0] == status


def test_a_supplier_only_reads_what_it_may_read(smgw: SmgwDoor) -> None:
    assert smgw.curl("/api/v1/variables", "-d", "{}", who="supplier")[0] == 403
    assert smgw.curl("/api/v1/password", "-d", '{"password": "now it is mine"}', who="supplier")[0] == 403


def test_what_the_supplier_has_set_carries_its_certificate(smgw: SmgwDoor) -> None:
    assert smgw.curl(SET, who="supplier")[0] == 200
    assert smgw.bridge.hub.snapshot.state.receipts[1].cause.peer == smgw.fingerprint("supplier")
    assert smgw.bridge.ask("/cnf?cmd=set_cm_vars&name=X&val=1")[0] == 200
    assert smgw.bridge.hub.snapshot.state.receipts[2].cause.peer == ""


def test_a_function_that_is_switched_off_answers_403_and_sets_nothing(tmp_path: Path, store: Store) -> None:
    with door(tmp_path, store, functions=FunctionsConfig(power_limit=False)) as smgw:
        assert smgw.curl("/cnf?cmd=set_cm_vars&name=TARIF&val=1") == (200, '"ok"')
        status, reason = smgw.curl(SET)
        assert (status, reason) == (403, '"AVAIL: smgw.functions.power_limit is switched off"')
        both = '{"vars": [{"name": "TARIF", "expr": 2}, {"name": "avail", "expr": 0}]}'
        assert smgw.curl("/cnf?cmd=set_cm_vars", "-d", both)[0] == 403
        assert smgw.bridge.hub.snapshot.state.variables["tarif"].formula.constant == 1
        assert smgw.bridge.ask("/cnf?cmd=set_cm_vars&name=AVAIL&val=70")[0] == 200
        assert smgw.curl("/cnf?cmd=set_cm_vars&clear=1&name=TARIF&val=3")[0] == 200
        assert smgw.avail == 70


def test_without_tls_on_loopback_the_role_is_that_of_the_gateway(tmp_path: Path, store: Store) -> None:
    changes = {"tls": False, "certificate": None, "gateway_certificate": None, "far_ends": (), "role": "supplier"}
    with door(tmp_path, store, **changes) as smgw:
        url = f"http://127.0.0.1:{smgw.port}"
        command = ["curl", "-s", url + SET, "-o", "/dev/null", "-w", "%{http_code} ", "--next", "-s", url + "/"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("200 ")
        assert smgw.avail == 50
        assert smgw.bridge.hub.snapshot.state.receipts[1].cause.peer == ""
        with socket.create_connection(("127.0.0.1", smgw.port), 5) as wire:
            wire.sendall(request("/", "Connection: close"))
            assert b" 403 " in read_all(wire)


# ------------------------------------------------------------------------------------ certificates that change


def test_a_certificate_of_ours_is_replaced_while_the_door_is_open(tmp_path: Path) -> None:
    store = papers(tmp_path)
    with door(tmp_path, store) as smgw, smgw.connect() as kept:
        before = kept.getpeercert(binary_form=True)
        assert smgw.curl(SET)[0] == 200
        renewed(store, "cls")
        eventually(lambda: shown(smgw) != before)
        assert smgw.curl("/cnf?cmd=set_cm_vars&name=AVAIL&val=60")[0] == 200
        kept.sendall(request(GET, "Connection: close"))
        assert b'"expr":60' in read_all(kept)


def shown(smgw: SmgwDoor) -> bytes | None:
    """The certificate the door shows now, whatever it is."""
    context = client_context(BSI, smgw.store.load("smgw"), smgw.store.load("cls"))
    context.verify_mode = ssl.CERT_NONE
    with smgw.wrapped(context) as wire:
        return wire.getpeercert(binary_form=True)


def test_a_gateway_with_a_new_certificate_gets_in_and_the_old_one_is_out(tmp_path: Path) -> None:
    store = papers(tmp_path)
    with door(tmp_path, store) as smgw:
        old = [(folder_of(store) / f"smgw.{kind}").read_bytes() for kind in ("crt", "key")]
        with smgw.connect() as kept:
            kept.sendall(request(GET))
            assert b" 200 " in kept.recv(1000)
            renewed(store, "smgw")
            eventually(lambda: smgw.curl(SET)[0] == 200)
            store.put("stranger", *old, replace=True)
            assert smgw.curl(SET, who="stranger")[0] == 0
            kept.sendall(request("/cnf?cmd=set_cm_vars&name=AVAIL&val=1"))
            assert b" 403 " in read_all(kept)
        assert smgw.avail == 50
        assert smgw.bridge.hub.snapshot.decision.grid.limit_w == 27_500


def test_a_live_page_ends_with_the_certificate_it_came_with(tmp_path: Path) -> None:
    """A stream asks nothing, so it would go on telling who was shut out, for up to 47 hours."""
    store = papers(tmp_path)
    with door(tmp_path, store) as smgw, smgw.connect() as stream:
        stream.sendall(request("/api/v1/events"))
        assert b" 200 " in stream.recv(1000)
        renewed(store, "smgw")
        end = time.monotonic() + 20
        with suppress(ConnectionResetError):
            while stream.recv(65536):
                assert time.monotonic() < end, "the stream goes on"
        assert smgw.curl("/api/v1/snapshot")[0] == 200


def test_a_replacement_that_is_no_good_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = papers(tmp_path)
    with door(tmp_path, store) as smgw:
        renewed(store, "cls", "bsi-nist256")
        eventually(lambda: bool(smgw.curl(SET)) and "the change is not used" in caplog.text)
        assert smgw.curl(SET)[0] == 200
        assert "cls has the key EC secp256r1, but crypto bsi-brainpool256 needs brainpoolP256r1" in caplog.text


def test_a_session_does_not_last_for_ever(tmp_path: Path, store: Store) -> None:
    with door(tmp_path, store, session_max_h=0.01 / 36) as smgw, smgw.connect() as wire:
        wire.sendall(request(GET))
        assert b" 200 " in wire.recv(1000)
        with suppress(ConnectionResetError):
            while wire.recv(1000):
                pass
        assert smgw.curl(SET)[0] == 200


def test_a_resumed_session_is_as_old_as_it_was_at_first(tmp_path: Path, store: Store) -> None:
    with door(tmp_path, store, session_max_h=3 / 3600) as smgw:
        context = client_context(BSI, store.load("smgw"), store.load("cls"))
        with smgw.wrapped(context) as wire:
            wire.sendall(request(GET, "Connection: close"))
            assert b" 200 " in read_all(wire)
            session = wire.session
        time.sleep(2)
        later = time.monotonic()
        again = socket.create_connection(("127.0.0.1", smgw.port), 5)
        with context.wrap_socket(again, session=session) as wire, suppress(ConnectionResetError):
            assert wire.session_reused
            (connection,) = smgw.bridge.edge._listeners[1].connections
            eventually(lambda: connection.since < later - 1.5)
            assert wire.recv(1) == b""


# ----------------------------------------------------------------------------------------- remote administration


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Origin: https://emt.example:9443"], 200),
        (["Origin: https://evil.example"], 403),
        (["Origin: https://portal.example", "X-Forwarded-Host: portal.example"], 200),
        (["Origin: https://evil.example", "X-Forwarded-Host: portal.example"], 403),
        (["Origin: https://portal.example", "Sec-Fetch-Site: same-origin"], 200),
        (["Sec-Fetch-Site: cross-site"], 403),
    ],
)
def test_pages_work_under_whatever_name_the_far_end_uses(smgw: SmgwDoor, headers: list[str], status: int) -> None:
    body = '{"vars": [{"name": "AVAIL", "expr": 30}]}'
    options = [word for header in ["Host: emt.example:9443", *headers] for word in ("-H", header)]
    assert smgw.curl("/", *options)[0] == 200
    assert smgw.curl("/cnf?cmd=set_cm_vars", "-d", body, *options)[0] == status
    assert smgw.avail == (30 if status == 200 else None)


def test_the_page_stays_live_through_the_gateway(smgw: SmgwDoor) -> None:
    with smgw.connect() as stream:
        stream.sendall(request("/api/v1/events"))
        assert smgw.curl(SET)[0] == 200
        got = b""
        while b"27500" not in got:
            piece = stream.recv(65536)
            assert piece
            got += piece
        assert b"text/event-stream" in got


def test_the_admin_password_can_be_set_from_afar(smgw: SmgwDoor) -> None:
    assert smgw.curl("/api/v1/password", "-d", '{"password": "a new one of it"}') == (200, '"ok"')
    assert smgw.bridge.ask("/")[0] == 401


def test_an_upload_that_is_cut_leaves_nothing_half_done(smgw: SmgwDoor) -> None:
    body = b'{"vars": [{"name": "AVAIL", "expr": 1}]}'
    line = f"Content-Length: {len(body)}"
    for cut in (1, len(body) - 1):
        wire = smgw.connect()
        wire.sendall(request("/cnf?cmd=set_cm_vars", line, method="POST") + body[:cut])
        wire.close()
    chunked = request("/cnf?cmd=set_cm_vars", "Transfer-Encoding: chunked", method="POST")
    wire = smgw.connect()
    wire.sendall(chunked + f"{len(body):x}\r\n".encode() + body + b"\r\n")
    wire.unwrap().close()
    eventually(lambda: not smgw.bridge.edge._listeners[1].connections)
    assert smgw.bridge.hub.snapshot.state.last_receipt == 0


def test_heads_and_bodies_have_their_limits_here_too(smgw: SmgwDoor) -> None:
    assert smgw.raw(request("/", "X: " + "a" * 20_000)).startswith(b"HTTP/1.1 431")
    long = request("/cnf?cmd=set_cm_vars", "Content-Length: 2000000", method="POST")
    assert smgw.raw(long + b"x" * 100).startswith(b"HTTP/1.1 413")


def test_a_connection_from_the_tunnel_is_served_as_if_it_had_knocked(smgw: SmgwDoor) -> None:
    for who, words in (("smgw", b'"ok"'), ("stranger", b"")):
        ours, theirs = socket.socketpair()
        smgw.bridge.edge.admit(theirs, smgw.fingerprint(who))
        with ours, suppress(ConnectionResetError, BrokenPipeError):
            ours.settimeout(5)
            ours.sendall(request(SET, "Connection: close"))
            assert read_all(ours).endswith(words)
    assert smgw.bridge.hub.snapshot.state.last_receipt == 1


def test_a_connection_from_the_tunnel_never_ends_at_another_door(tmp_path: Path, store: Store) -> None:
    """As while the configuration changes: the SMGW door has gone, or is closed, and the tunnel does not know yet."""
    with door(tmp_path, store) as closed:
        pass
    without = Bridge(tmp_path)
    try:
        for edge in (closed.bridge.edge, without.edge):
            ours, theirs = socket.socketpair()
            edge.admit(theirs, closed.fingerprint("smgw"))
            with ours:
                ours.settimeout(1)
                assert ours.recv(100) == b""
    finally:
        without.stop()


# --------------------------------------------------------------------------------------------------- the LAN door


def test_the_lan_door_speaks_https_with_a_certificate_of_the_store(tmp_path: Path) -> None:
    store = papers(tmp_path)
    store.create("lan", Wish("localhost", ("localhost", "127.0.0.1"), "P-256"))
    with door(tmp_path, store, lan="lan") as smgw:
        url = f"https://localhost:{smgw.bridge.port}"
        trusted = ["--cacert", str(folder_of(store) / "lan.crt"), "--user", "admin:1234abcd"]
        command = ["curl", "-s", *trusted, url + SET]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == '"ok"'
        assert smgw.bridge.hub.snapshot.state.variables["avail"].source == "admin"
        refused = subprocess.run(["curl", "-sk", url + SET], capture_output=True, text=True, check=True).stdout
        assert "log in as user admin" in refused
