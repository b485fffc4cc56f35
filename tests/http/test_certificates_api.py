"""Certificates, looked after over HTTP while a whole bridge runs; the far end with them."""

from __future__ import annotations

import json
import socket
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.http.certificates import MAX_FILE
from tests.http.administered import Administered, administered, pair
from tests.http.conftest import read_all, request_head
from tests.http.smgw_site import door, eventually, papers
from tests.smgw.openssl import openssl

pytestmark = pytest.mark.system("openssl")

STORE = "/api/v1/certificates"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Administered]:
    with administered(tmp_path) as running:
        yield running


@pytest.fixture
def made(tmp_path: Path) -> tuple[bytes, bytes]:
    """Somebody else's certificate and its key."""
    return fresh(tmp_path, "made", 30)


def fresh(folder: Path, name: str, days: int, curve: str = "prime256v1") -> tuple[bytes, bytes]:
    command = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:{curve} -nodes -days {days} -subj /CN={name}"
    files = folder / f"{name}.pem", folder / f"{name}.key.pem"
    openssl(*command.split(), "-out", files[0], "-keyout", files[1])
    return files[0].read_bytes(), files[1].read_bytes()


def form(**fields: str | bytes) -> tuple[bytes, str]:
    """A multipart body as browsers make it, and its content type."""
    parts = []
    for name, value in fields.items():
        file = f'; filename="{name}"\r\nContent-Type: application/octet-stream' if isinstance(value, bytes) else ""
        content = value if isinstance(value, bytes) else value.encode()
        parts.append(b'--cut\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n' % (name.encode(), file.encode()))
        parts.append(content + b"\r\n")
    return b"".join([*parts, b"--cut--\r\n"]), "multipart/form-data; boundary=cut"


def names(house: Administered) -> list[str]:
    _, document = house.json("GET", STORE)
    assert isinstance(document, dict)
    return [one["name"] for one in document["certificates"]]


def test_one_is_made_shown_saved_and_deleted(house: Administered, tmp_path: Path) -> None:
    wish = {"cn": "bridge.example", "san": ["192.0.2.7"], "curve": "brainpoolP384r1", "days": 400}
    status, facts = house.json("POST", f"{STORE}/cls/create", wish)
    assert status == 200
    assert isinstance(facts, dict)
    assert (facts["subject"], facts["sans"], facts["key_type"]) == (
        "CN=bridge.example",
        ["192.0.2.7"],
        "EC brainpoolP384r1",
    )
    assert house.json("GET", f"{STORE}/cls") == (200, facts)
    assert house.json("GET", STORE) == (200, {"certificates": [{**facts, "waiting": False}]})
    status, headers, pem = house.ask("GET", f"{STORE}/cls/pem")
    assert headers["Content-Disposition"] == 'attachment; filename="cls.crt"'
    assert pem.startswith(b"-----BEGIN CERTIFICATE-----")
    assert b"PRIVATE" not in pem
    status, headers, backup = house.ask("POST", f"{STORE}/cls/export", '{"password": "a good one"}')
    assert (status, headers["Content-Type"]) == (200, "application/x-pkcs12")
    (tmp_path / "cls.p12").write_bytes(backup)
    shown = openssl("pkcs12", "-in", tmp_path / "cls.p12", "-passin", "pass:a good one", "-noenc")
    assert "BEGIN PRIVATE KEY" in str(shown)
    assert house.json("POST", f"{STORE}/cls/create", {})[0] == 400
    assert house.json("POST", f"{STORE}/cls/create", {"replace": True})[0] == 200
    assert house.json("DELETE", f"{STORE}/cls") == (200, "ok")
    assert names(house) == []


def test_a_request_waits_for_its_answer(house: Administered, tmp_path: Path) -> None:
    status, headers, text = house.ask("POST", f"{STORE}/cls/request", '{"cn": "bridge"}')
    assert (status, headers["Content-Disposition"]) == (200, 'attachment; filename="cls.csr"')
    assert b"BEGIN CERTIFICATE REQUEST" in text
    (tmp_path / "cls.csr").write_bytes(text)
    assert house.json("GET", STORE)[1] == {"certificates": [{"name": "cls", "waiting": True}]}
    assert house.json("GET", f"{STORE}/cls")[0] == 404
    fresh(tmp_path, "issuer", 30)
    answer = tmp_path / "answer.pem"
    signed = ("-CA", tmp_path / "issuer.pem", "-CAkey", tmp_path / "issuer.key.pem", "-CAcreateserial", "-days", "9")
    openssl("x509", "-req", "-in", tmp_path / "cls.csr", *signed, "-out", answer)
    status, facts = house.json("PUT", f"{STORE}/cls", {"certificate": b64encode(answer.read_bytes()).decode()})
    assert status == 200
    assert isinstance(facts, dict)
    assert facts["has_key"]
    assert facts["issuer"] == "CN=issuer"


def test_files_come_as_a_form_as_json_and_bare(house: Administered, made: tuple[bytes, bytes]) -> None:
    certificate, key = made
    body, kind = form(certificate=certificate, key=key, password="")
    assert house.ask("PUT", f"{STORE}/form", body, Content_Type=kind)[0] == 200
    body, kind = form(certificate=certificate, key=b"", replace="true")
    assert house.ask("PUT", f"{STORE}/peer", body, Content_Type=kind)[0] == 200
    both = {"certificate": b64encode(certificate).decode(), "key": b64encode(key).decode()}
    assert house.json("PUT", f"{STORE}/json", both)[0] == 200
    assert house.ask("PUT", f"{STORE}/bare", certificate + key, Content_Type="application/x-pem-file")[0] == 200
    assert names(house) == ["bare", "form", "json", "peer"]
    assert [house.store.load(name).has_key for name in names(house)] == [True, True, True, False]


def test_pkcs12_needs_its_password(house: Administered, made: tuple[bytes, bytes], tmp_path: Path) -> None:
    files = ("-in", tmp_path / "made.pem", "-inkey", tmp_path / "made.key.pem", "-out", tmp_path / "made.p12")
    openssl("pkcs12", "-export", *files, "-passout", "pass:secret")
    content = (tmp_path / "made.p12").read_bytes()
    for password, status in (("", 400), ("wrong", 400), ("secret", 200)):
        body, kind = form(certificate=content, password=password)
        assert house.ask("PUT", f"{STORE}/cls", body, Content_Type=kind)[0] == status
    assert house.store.load("cls").has_key


REFUSED = [
    ("PUT", "/a.b", b"x", 400),
    ("PUT", "/%2e%2e%2fx", b"x", 404),
    ("PUT", "/cls", b"", 400),
    ("PUT", "/cls", b"no certificate", 400),
    ("PUT", "/cls", b"x" * (MAX_FILE + 1), 413),
    ("PUT", "/cls", b"x" * (2 << 20), 413),
    ("POST", "/cls/create", b'{"days": "many"}', 400),
    ("POST", "/cls/create", b'{"days": true}', 400),
    ("POST", "/cls/create", b'{"san": [1]}', 400),
    ("POST", "/cls/create", b'{"curve": "secp112r1"}', 400),
    ("POST", "/cls/create", b'{"dayz": 1}', 400),
    ("POST", "/cls/export", b'{"password": "x"}', 404),
    ("POST", "/smgw/export", b"{}", 400),
    ("DELETE", "/cls", None, 404),
    ("GET", "/cls/pem", None, 404),
    ("GET", "/cls/key", None, 404),
    ("POST", "/cls", b"{}", 405),
]


def test_what_cannot_be_done_is_refused(house: Administered) -> None:
    pair(house.store)
    house.store.delete("cls", {})
    for method, path, body, status in REFUSED:
        got, _, reason = house.ask(method, STORE + path, body)
        assert got == status, (method, path, body and body[:40])
        assert isinstance(json.loads(reason), str)
    assert names(house) == ["smgw"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"certificate": "Zertifikat für uns"}, "certificate: not Base64"),
        ({"certificate": "\ud800"}, "are no characters"),
        ({"certificate": 7}, "certificate: a text is expected"),
    ],
)
def test_json_that_carries_no_file_is_refused(house: Administered, document: object, reason: str) -> None:
    status, said = house.json("PUT", f"{STORE}/cls", document)
    assert status == 400
    assert reason in str(said)


def test_one_in_use_stays_and_is_replaced(house: Administered) -> None:
    pair(house.store)
    assert house.patch(http__certificate="cls")[1] == {"restart": True}
    eventually(lambda: "https" in curl(house))
    status, reason = https(house, "-X", "DELETE", STORE + "/cls")
    assert (status, reason) == (400, '"cls is in use as http.certificate"')


def curl(house: Administered) -> str:
    command = ["curl", "-sk", "-w", "%{scheme}", f"https://127.0.0.1:{house.port}/healthz"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.lower()


def https(house: Administered, *options: str) -> tuple[int, str]:
    *options, path = options
    command = ["curl", "-sk", "--user", "admin:1234abcd", "-w", "\n%{http_code}", *options]
    done = subprocess.run(
        [*command, f"https://127.0.0.1:{house.port}{path}"], capture_output=True, text=True, check=True
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_an_upload_that_is_cut_leaves_nothing(house: Administered, made: tuple[bytes, bytes]) -> None:
    body, kind = form(certificate=made[0], key=made[1])
    head = request_head(f"{STORE}/cls", f"Content-Type: {kind}", f"Content-Length: {len(body)}", method="PUT")
    for cut in (0, 10, len(body) // 2, len(body) - 1):
        with socket.create_connection(("127.0.0.1", house.port), 5) as wire:
            wire.sendall(head + body[:cut])
            wire.shutdown(socket.SHUT_WR)
            assert read_all(wire) == b""
    assert names(house) == []
    with socket.create_connection(("127.0.0.1", house.port), 5) as wire:
        wire.sendall(head + body)
        assert b"200 OK" in wire.recv(100)


def test_the_end_of_one_in_use_is_an_alarm(house: Administered, tmp_path: Path) -> None:
    pair(house.store)
    assert house.patch(smgw={"certificate": "cls", "gateway_certificate": "smgw", "crypto": "modern"})[0] == 200
    eventually(lambda: house.app.hub.snapshot.config.smgw is not None)
    certificate, key = fresh(tmp_path, "short", 20)
    assert house.ask("PUT", f"{STORE}/unused", certificate + key)[0] == 200
    assert house.ask("PUT", f"{STORE}/cls?replace=true", certificate + key)[0] == 200
    eventually(lambda: "certificate_cls" in house.app.hub.snapshot.decision.alarms)
    end = datetime.fromtimestamp(house.store.load("cls").not_after, UTC)
    text = f"the certificate cls (smgw.certificate) expires within 30 days, on {end:%Y-%m-%d}"
    assert house.app.hub.snapshot.decision.alarms == {"certificate_cls": text}
    metrics = house.ask("GET", "/metrics")[2].decode()
    assert f'smgw_bridge_certificate_expires_seconds{{name="cls"}} {end.timestamp()!r}' in metrics
    assert house.json("POST", f"{STORE}/cls/create", {"replace": True, "curve": "P-256"})[0] == 200
    eventually(lambda: house.app.hub.snapshot.decision.alarms == {})


def test_one_in_use_is_only_replaced_by_one_that_fits(house: Administered, tmp_path: Path) -> None:
    """Else the bridge would go on with the old one, and at the next start not start at all."""
    pair(house.store, "brainpoolP256r1")
    assert house.patch(smgw={"certificate": "cls", "gateway_certificate": "smgw"})[0] == 200
    eventually(lambda: house.app.hub.snapshot.config.smgw is not None)
    before = house.store.load("cls"), house.store.load("smgw")
    certificate, key = fresh(tmp_path, "nist", 30)
    for name, file in (("cls", certificate + key), ("smgw", certificate + key)):
        status, _, reason = house.ask("PUT", f"{STORE}/{name}?replace=true", file)
        assert status == 400
        wanted = f"{name} has the key EC secp256r1, but crypto bsi-brainpool256 needs brainpoolP256r1"
        assert wanted in json.loads(reason)
    assert house.json("POST", f"{STORE}/cls/create", {"replace": True, "curve": "P-256"})[0] == 400
    assert (house.store.load("cls"), house.store.load("smgw")) == before
    certificate, key = fresh(tmp_path, "brainpool", 30, "brainpoolP256r1")
    assert house.ask("PUT", f"{STORE}/cls?replace=true", certificate + key)[0] == 200


def test_only_the_administrator_gets_there(tmp_path: Path) -> None:
    with door(tmp_path, papers(tmp_path)) as smgw:
        for path in (STORE, "/api/v1/config", f"{STORE}/cls/pem"):
            assert smgw.curl(path, who="supplier")[0] == 403
            assert smgw.bridge.ask(path, Authorization="")[0] == 401
