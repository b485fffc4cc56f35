"""The certificate store, against the openssl command: what we make it reads, and what it makes we read."""

from __future__ import annotations

import os
import re
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.core.config import Config, GridConfig, HttpConfig
from bridge.core.formulas import parse
from bridge.core.gateway import FarEndConfig, SmgwConfig
from bridge.core.records.certificates import DAY_S, uses
from bridge.errors import BadRequest, BridgeError, NotFound
from bridge.smgw.issue import Wish
from bridge.smgw.store import Store
from tests.smgw.openssl import Workshop, openssl

pytestmark = pytest.mark.system("openssl")

WISH = Wish("cls", ("192.168.100.2", "bridge.local", "fe80::1"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state" / "certificates")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "workshop")


def text_of(file: Path) -> str:
    return openssl("x509", "-in", file, "-noout", "-text")


def listing(tmp_path: Path) -> dict[str, bytes]:
    """Every file of the store with its content."""
    folder = tmp_path / "state" / "certificates"
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else {}


# -------------------------------------------------------------------------------------------------------- making


@pytest.mark.parametrize(
    ("curve", "known_as", "signature"),
    [
        ("brainpoolP256r1", "brainpoolP256r1", "ecdsa-with-SHA256"),
        ("brainpoolP384r1", "brainpoolP384r1", "ecdsa-with-SHA384"),
        ("prime256v1", "prime256v1", "ecdsa-with-SHA256"),
        ("P-256", "prime256v1", "ecdsa-with-SHA256"),
        ("secp384r1", "secp384r1", "ecdsa-with-SHA384"),
    ],
)
def test_what_is_created_is_fit_for_the_gateway(store: Store, curve: str, known_as: str, signature: str) -> None:
    made = store.create("cls", Wish("cls", WISH.sans, curve))
    assert made.key_file is not None
    text = text_of(made.certificate_file)
    for wanted in (
        "Version: 3",
        f"ASN1 OID: {known_as}",
        f"Signature Algorithm: {signature}",
        r"Basic Constraints: critical\s+CA:FALSE",
        r"Key Usage: critical\s+Digital Signature\n",
        r"Extended Key Usage: \s+TLS Web Server Authentication, TLS Web Client Authentication\n",
        r"IP Address:192.168.100.2, DNS:bridge.local, IP Address:FE80:0:0:0:0:0:0:1\n",
    ):
        assert re.search(wanted, text), f"{wanted} is not in {text}"
    openssl("verify", "-x509_strict", "-CAfile", made.certificate_file, made.certificate_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate_file, made.key_file)


def test_serial_numbers_are_random(store: Store) -> None:
    serials = {text_of(store.create(f"c{i}", WISH).certificate_file).split("Serial Number:")[1][:70] for i in range(3)}
    assert len(serials) == 3


def test_facts_are_those_openssl_finds(store: Store) -> None:
    made = store.create("cls", WISH, days=100)
    said = openssl("x509", "-in", made.certificate_file, "-noout", "-fingerprint", "-sha256", "-subject", "-dates")
    assert f"Fingerprint={made.fingerprint}\n" in said
    assert "subject=CN = cls\n" in said
    for label, seconds in (("notBefore", made.not_before), ("notAfter", made.not_after)):
        assert f"{label}={datetime.fromtimestamp(seconds, UTC):%b %e %H:%M:%S %Y} GMT" in said
    assert (made.subject, made.issuer, made.key_type) == ("CN=cls", "CN=cls", "EC brainpoolP256r1")
    assert made.sans == ("192.168.100.2", "bridge.local", "fe80::1")
    assert store.load("cls") == made
    assert made.not_after - made.not_before == pytest.approx(100 * DAY_S + 3600)


def test_files_are_for_their_owner_only(store: Store, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store.create("cls", WISH)
    finally:
        os.umask(before)
    folder = tmp_path / "state" / "certificates"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes == {"certificates": 0o700, "cls.crt": 0o600, "cls.key": 0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for others")
def test_what_root_makes_the_service_can_use(store: Store, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 65534, 65534)
    store.create("cls", WISH)
    folder = tmp_path / "state" / "certificates"
    assert {path.stat().st_uid for path in (folder, *folder.iterdir())} == {65534}


@pytest.mark.parametrize(
    ("wish", "days", "reason"),
    [
        (Wish("cls", ("not a host",)), 1, "'not a host' is neither a host name nor an IP address"),
        (Wish("cls", ("a" * 64,)), 1, "neither a host name"),
        (Wish(""), 1, "1 to 64 characters"),
        (Wish("x" * 65), 1, "1 to 64 characters"),
        (Wish("cls", curve="secp192r1"), 1, "no such curve; there are brainpoolP256r1, "),
        (Wish("cls"), 0, "1 to 36500"),
        (Wish("cls"), 40_000, "1 to 36500"),
    ],
)
def test_impossible_wishes(store: Store, tmp_path: Path, wish: Wish, days: int, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        store.create("cls", wish, days)
    assert listing(tmp_path) == {}


@pytest.mark.parametrize(
    ("common_name", "expected"), [("bridge", ("bridge",)), ("10.0.0.1", ("10.0.0.1",)), ("Keller, links", ())]
)
def test_the_common_name_stands_in_for_names(store: Store, common_name: str, expected: tuple[str, ...]) -> None:
    assert store.create("cls", Wish(common_name)).sans == expected


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a.b", "a b", "-x", "x" * 65, "ä", "a\n", "a\0"])
def test_names_cannot_lead_elsewhere(store: Store, tmp_path: Path, name: str) -> None:
    actions: list[Callable[[], object]] = [
        lambda: store.create(name, WISH),
        lambda: store.request(name, WISH),
        lambda: store.load(name),
        lambda: store.stamp(name),
        lambda: store.export(name, "x"),
        lambda: store.delete(name, {}),
    ]
    for act in actions:
        with pytest.raises(BadRequest, match="letters, digits, - and _, 64 at most"):
            act()
    assert not list(tmp_path.rglob("*.*"))


# ------------------------------------------------------------------------------------------- requests and chains


def test_a_request_and_its_answer(store: Store, workshop: Workshop, tmp_path: Path) -> None:
    asked = store.request("cls", WISH).encode()
    said = openssl("req", "-verify", "-noout", "-text", given=asked)
    assert "verify OK" in said
    assert "IP Address:192.168.100.2, DNS:bridge.local" in said
    assert (store.names(), store.waiting()) == ([], ["cls"])
    with pytest.raises(NotFound, match="its request waits"):
        store.load("cls")

    root, middle = workshop.pem(workshop.made("root")), workshop.issuer("middle", "root", "brainpoolP256r1")
    stranger = workshop.pem(workshop.made("stranger"))
    answer = workshop.signed(asked, "answer", by="middle")
    taken = store.put("cls", root + stranger + b"text between\n" + middle + answer + answer)
    assert (taken.subject, taken.chain, taken.has_key) == ("CN=cls", ("CN=middle", "CN=root"), True)
    assert listing(tmp_path)["cls.crt"] == answer + middle + root
    assert (store.names(), store.waiting()) == (["cls"], [])
    assert sorted(listing(tmp_path)) == ["cls.crt", "cls.key"]


def test_the_end_of_a_chain_is_found_without_its_key(store: Store, workshop: Workshop) -> None:
    root, middle = workshop.pem(workshop.made("root")), workshop.issuer("middle", "root")
    end = workshop.issuer("end", "middle")
    taken = store.put("smgw", middle + end + root)
    assert (taken.subject, taken.chain, taken.has_key) == ("CN=end", ("CN=middle", "CN=root"), False)


def test_an_answer_to_another_request(store: Store, workshop: Workshop) -> None:
    store.request("cls", WISH)
    stranger = workshop.pem(workshop.made("stranger"))
    with pytest.raises(BadRequest, match=r"^other\.pem: .* does not belong to the private key kept as cls"):
        store.put("cls", stranger, places=("other.pem", ""))
    assert (store.names(), store.waiting()) == ([], ["cls"])


def test_a_certificate_stays_in_use_while_its_renewal_is_asked_for(store: Store, workshop: Workshop) -> None:
    first = store.create("cls", WISH)
    workshop.made("root")
    forgotten = workshop.signed(store.request("cls", WISH).encode(), "forgotten", by="root")
    with pytest.raises(BadRequest, match="an earlier request waits"):
        store.request("cls", WISH)
    answer = workshop.signed(store.request("cls", WISH, replace=True).encode(), "answer", by="root")
    assert store.load("cls") == first
    with pytest.raises(BadRequest, match="does not belong"):
        store.put("cls", forgotten, replace=True)
    with pytest.raises(BadRequest, match="there is a certificate of this name"):
        store.put("cls", answer)
    assert store.put("cls", answer, replace=True).issuer == "CN=root"
    assert store.waiting() == []


def test_a_new_certificate_for_the_key_in_use(store: Store, workshop: Workshop) -> None:
    first = store.create("cls", WISH)
    workshop.made("root")
    asked = openssl("req", "-new", "-key", first.key_file, "-subj", "/CN=again").encode()
    again = store.put("cls", workshop.signed(asked, "again", by="root"), replace=True)
    assert (again.subject, again.has_key) == ("CN=again", True)


# ------------------------------------------------------------------------------------- replacing, backup, removal


def test_replacing_shows_in_the_stamp(store: Store) -> None:
    assert store.stamp("cls") == ()
    first = store.create("cls", WISH)
    stamp = store.stamp("cls")
    assert store.stamp("cls") == stamp
    with pytest.raises(BadRequest, match="there is a certificate of this name"):
        store.create("cls", WISH)
    assert (store.load("cls"), store.stamp("cls")) == (first, stamp)
    assert store.create("cls", WISH, replace=True).fingerprint != first.fingerprint
    assert store.stamp("cls") != stamp


@pytest.mark.parametrize("password", ["geheim", "grüße €"])
def test_a_backup_can_be_read_by_others_and_by_us(store: Store, workshop: Workshop, password: str) -> None:
    root = workshop.pem(workshop.made("root"))
    asked = store.request("cls", WISH).encode()
    kept = store.put("cls", workshop.signed(asked, "answer", by="root") + root)
    backup = store.export("cls", password)
    said = openssl("pkcs12", "-info", "-noenc", "-passin", f"pass:{password}", given=backup)
    assert said.count("PBES2, PBKDF2, AES-256-CBC") == 2
    assert "MAC: sha256" in said
    assert said.count("BEGIN CERTIFICATE") == 2
    assert said.count("BEGIN PRIVATE KEY") == 1
    store.delete("cls", {})
    back = store.put("cls", backup, password=password)
    assert back == kept
    with pytest.raises(BadRequest, match="the password is wrong"):
        store.put("other", backup, password="other")


def test_a_backup_of_a_peer(store: Store, workshop: Workshop) -> None:
    peer = store.put("smgw", workshop.pem(workshop.made("gateway")))
    copy = store.put("copy", store.export("smgw", "geheim"), password="geheim")
    assert (copy.fingerprint, copy.has_key) == (peer.fingerprint, False)


def test_a_backup_needs_a_password(store: Store) -> None:
    store.create("cls", WISH)
    with pytest.raises(BadRequest, match="needs a password"):
        store.export("cls", "")


def test_what_is_in_use_stays(store: Store, tmp_path: Path) -> None:
    store.create("cls", WISH)
    store.request("cls", WISH)
    with pytest.raises(BadRequest, match=r"cls is in use as smgw\.certificate"):
        store.delete("cls", {"cls": ["smgw.certificate"]})
    store.delete("cls", {"other": ["http.certificate"]})
    assert listing(tmp_path) == {}
    for act in (lambda: store.delete("cls", {}), lambda: store.load("cls"), lambda: store.export("cls", "x")):
        with pytest.raises(NotFound, match="no such certificate; there are none"):
            act()


def test_uses_are_those_of_the_configuration() -> None:
    assert uses(None) == {}
    grid = GridConfig(parse("1"))
    assert uses(Config(grid)) == {}
    smgw = SmgwConfig(certificate="cls", gateway_certificate="smgw", far_ends=(FarEndConfig("emt"),))
    assert uses(Config(grid, http=HttpConfig(certificate="cls"), smgw=smgw)) == {
        "cls": ["http.certificate", "smgw.certificate"],
        "smgw": ["smgw.gateway_certificate"],
        "emt": ["smgw.far_ends[0].certificate"],
    }


def test_keys_do_not_leak(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    made = store.create("cls", WISH)
    assert made.key_file is not None
    secret = made.key_file.read_text().split("\n")[1]
    assert secret not in repr(made) + caplog.text
    assert caplog.messages == [f"the certificate cls was stored: SHA-256 {made.fingerprint}"]


# --------------------------------------------------------------------------------------- power cuts and other hands

CUT = """\
import os, sys
from pathlib import Path
from bridge.smgw.issue import Wish
from bridge.smgw.store import Store

seen = []
for cut in range(1000):
    folder = Path(sys.argv[1], str(cut))
    store = Store(folder)
    first = store.create("cls", Wish("first"))
    child = os.fork()
    if child == 0:
        left = cut
        def count(event, arguments):
            global left
            if event.startswith(("os.", "shutil.")) or event == "open":
                left -= 1
                if left < 0:
                    os._exit(9)
        sys.addaudithook(count)
        store.create("cls", Wish("second"), replace=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found = store.load("cls")
    assert found.has_key
    store.create("other", Wish("third"))
    assert sorted(os.listdir(folder)) == ["cls.crt", "cls.key", "other.crt", "other.key"]
    seen.append("old" if found == first else "new")
    if status == 0:
        break
print(*seen)
"""


def test_a_cut_at_any_step_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """The process is gone at its first, second, … touch of the disk."""
    command = [sys.executable, "-c", CUT, tmp_path / "certificates"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = done.stdout.split()
    turned = seen.index("new")
    assert set(seen[:turned]) == {"old"}
    assert set(seen[turned:]) == {"new"}
    assert len(seen) - turned > 5, "the change counts from the first of several steps on"


OTHER = """\
import sys
from pathlib import Path
from bridge.smgw.issue import Wish
from bridge.smgw.store import Store

for _ in range(25):
    Store(Path(sys.argv[1])).create("cls", Wish(sys.argv[2]), replace=True)
"""


def test_two_processes_write_while_a_third_reads(tmp_path: Path) -> None:
    store = Store(tmp_path / "certificates")
    store.create("cls", WISH)
    command = [sys.executable, "-c", OTHER, tmp_path / "certificates"]
    writers = [subprocess.Popen([*command, name]) for name in ("left", "right")]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        with store.reading("cls") as found:
            assert found.key_file is not None
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(found.certificate_file, found.key_file)
        seen.add(found.fingerprint)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(seen) > 10


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "certificates").write_text("in the way")
    store = Store(tmp_path / "certificates")
    for act in (lambda: store.create("cls", WISH), store.names):
        with pytest.raises(BridgeError, match=r"certificates cannot be used: .*certificates'$"):
            act()


def test_files_that_do_not_fit_each_other(store: Store, workshop: Workshop) -> None:
    """Somebody has copied one of the two by hand."""
    made = store.create("cls", WISH)
    assert made.key_file is not None
    made.key_file.write_bytes(workshop.key(workshop.made("x")))
    with pytest.raises(BadRequest, match=r"cls\.crt: does not belong to the key in .*cls\.key"):
        store.load("cls")
