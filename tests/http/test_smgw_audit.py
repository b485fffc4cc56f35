"""What is written down of the SMGW door, and what those cannot do who keep it busy."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest

from bridge.http import connection as connection_module
from bridge.http import door as door_module
from bridge.http.access import Buckets
from bridge.http.audit import LINES, MINUTE_S, Audit
from bridge.smgw.contexts import client_context
from bridge.smgw.store import Store
from tests.http.smgw_site import BSI, SET, SmgwDoor, door, eventually, papers, request

GET = "/cnf?cmd=get_cm_vars"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Certificates nobody changes."""
    return papers(tmp_path_factory.mktemp("everybody"))


@pytest.fixture
def smgw(tmp_path: Path, store: Store) -> Iterator[SmgwDoor]:
    with door(tmp_path, store) as opened:
        yield opened


# -------------------------------------------------------------------------------------------- what is written down


def written(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "bridge.audit"]


def test_every_request_is_written_down_once(smgw: SmgwDoor, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bridge.audit")
    both = '{"vars": [{"name": "TARIF", "expr": 77123}, {"name": "AVAIL", "expr": 33}]}'
    smgw.curl("/cnf?cmd=set_cm_vars", "-d", both)
    smgw.curl("/cnf?cmd=set_cm_vars&name=X%0aY&val=1")
    smgw.curl("/%0aINFO%20bridge.audit:%20forged", who="supplier")
    smgw.raw(b"GET / HTTP/3.0\r\n\r\n")
    smgw.bridge.ask("/api/v1/variables")
    who, other = smgw.fingerprint("smgw")[:16], smgw.fingerprint("supplier")[:16]
    assert written(caplog) == [
        f"smgw door: {who} 127.0.0.1 POST /cnf 200 set TARIF, AVAIL",
        f"smgw door: {who} 127.0.0.1 GET /cnf 400",
        f"smgw door: {other} 127.0.0.1 GET /\\nINFO bridge.audit: forged 403",
        f"smgw door: {who} 127.0.0.1 400 HTTP/1.0 and HTTP/1.1 are spoken here",
    ]
    assert "77123" not in caplog.text


def test_no_request_makes_a_long_line(smgw: SmgwDoor, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bridge.audit")
    smgw.raw(request("/" + "x" * 9000, "Connection: close", method="M" * 4000))
    assert len(written(caplog)[0]) < 300


@pytest.mark.parametrize(
    "head", [b"X: a\nINFO bridge.audit: forged", b"X: " + b"a" * 9000 + b"\nb", b"X: \x1b[2J\xc3\xa4\r\x7f"]
)
def test_what_makes_no_sense_is_written_down_in_one_short_line(
    smgw: SmgwDoor, caplog: pytest.LogCaptureFixture, head: bytes
) -> None:
    """The reason names what the far end has sent."""
    caplog.set_level("INFO", "bridge.audit")
    assert b" 400 " in smgw.raw(b"GET / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
    (line,) = written(caplog)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 300


def test_who_did_not_get_in_is_written_down_with_the_reason(smgw: SmgwDoor, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bridge.audit")
    smgw.curl(SET, who="stranger")
    eventually(lambda: len(written(caplog)) == 1)
    assert written(caplog)[0].startswith("smgw door, not let in: 127.0.0.1: ")
    assert "certificate verify failed" in written(caplog)[0]
    assert "_ssl.c" not in written(caplog)[0]


def test_a_flood_is_told_as_a_number(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bridge.audit")
    now = [100.0]
    audit = Audit("smgw door", lambda: now[0])
    for number in range(1000):
        audit.note(f"request {number}")
    assert len(written(caplog)) == LINES
    now[0] += MINUTE_S
    audit.tick()
    audit.tick()
    assert written(caplog)[LINES:] == [f"smgw door: {1000 - LINES} more in the last minute"]
    audit.note("the next")
    assert written(caplog)[-1] == "smgw door: the next"


# ----------------------------------------------------------------------------------------------------- starvation


def test_200_slow_clients_hold_up_neither_the_lan_nor_the_gateway(
    smgw: SmgwDoor, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them never begin with TLS, half never end their request."""
    monkeypatch.setattr(door_module, "HANDSHAKE_S", 2.0)
    monkeypatch.setattr(connection_module, "RECEIVE_S", 2.0)
    context = client_context(BSI, store.load("supplier"), store.load("cls"))
    listener = smgw.bridge.edge._listeners[1]
    with ExitStack() as wires:
        for number in range(200):
            here = (f"127.0.0.{2 + number % 4}", 0)
            wire = wires.enter_context(socket.create_connection(("127.0.0.1", smgw.port), 10, here))
            if number % 2:
                wire = wires.enter_context(context.wrap_socket(wire))
                wire.sendall(request(GET)[:-2])
        took = []
        for value in range(20):
            since = time.monotonic()
            assert smgw.bridge.ask(f"/cnf?cmd=set_cm_vars&name=X&val={value}")[2] == b'"ok"'
            took.append(time.monotonic() - since)
        # Were they held up, all would be: one that takes long says something of the machine only.
        assert median(took) < 0.5
        assert smgw.curl(SET) == (200, '"ok"')
        eventually(lambda: not listener.connections)


def test_handshakes_of_one_peer_are_paced_and_others_do_not_wait(
    smgw: SmgwDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(smgw.bridge.edge._listeners[1], "_handshakes", Buckets(2.0, 2.0, lambda: now[0]))
    assert [smgw.curl(SET)[0] for _ in range(2)] == [200] * 2
    with ThreadPoolExecutor(1) as background:
        third = background.submit(smgw.curl, SET)
        for _ in range(2):
            assert smgw.curl(SET, "--interface", "127.0.0.2")[0] == 200
        assert not third.done()
        now[0] += 0.5
        assert third.result()[0] == 200
