"""What the certificate store takes and what it refuses; every file is made by the openssl command."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.records.certificates import DAY_S
from bridge.errors import BadRequest
from bridge.smgw import bundle
from bridge.smgw.bundle import MAX_CERTIFICATES
from bridge.smgw.store import Store
from tests.smgw.openssl import Workshop, openssl
from tests.smgw.test_store import WISH, listing

pytestmark = pytest.mark.system("openssl")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state" / "certificates")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "workshop")


Given = tuple[bytes, bytes | None, str | None]
"""What is handed to ``put``: file, key file, password."""


def as_pem(workshop: Workshop) -> Given:
    return workshop.pem("x") + workshop.key("x"), None, None


def as_pem_with_the_key_first_and_a_needless_password(workshop: Workshop) -> Given:
    return workshop.key("x") + b"\nBag Attributes\n" + workshop.pem("x"), None, "needless"


def as_two_files(workshop: Workshop) -> Given:
    return workshop.pem("x"), workshop.key("x"), None


def as_der_with_a_key_in_pem(workshop: Workshop) -> Given:
    return as_der_of_a_peer(workshop)[0], workshop.key("x"), None


def as_der_both(workshop: Workshop) -> Given:
    openssl("pkcs8", "-topk8", "-nocrypt", *in_der(workshop))
    return as_der_of_a_peer(workshop)[0], workshop.path("key.der").read_bytes(), None


def as_der_of_old_programs(workshop: Workshop) -> Given:
    openssl("pkey", "-traditional", *in_der(workshop))
    return workshop.pem("x"), workshop.path("key.der").read_bytes(), "needless"


def with_an_encrypted_key_in_der(workshop: Workshop) -> Given:
    openssl("pkcs8", "-topk8", "-passout", "pass:geheim", *in_der(workshop))
    return workshop.pem("x"), workshop.path("key.der").read_bytes(), "geheim"


def in_der(workshop: Workshop) -> tuple[object, ...]:
    return "-in", workshop.path("x.key"), "-outform", "DER", "-out", workshop.path("key.der")


def as_text_and_windows_lines(workshop: Workshop) -> Given:
    said = openssl("x509", "-in", workshop.path("x.pem"), "-text")
    return said.replace("\n", "\r\n").encode(), workshop.key("x").replace(b"\n", b"\r\n"), None


def with_an_encrypted_key(workshop: Workshop) -> Given:
    openssl("pkcs8", "-topk8", "-in", workshop.path("x.key"), "-out", workshop.path("e.key"), "-passout", "pass:geheim")
    return workshop.pem("x"), workshop.key("e"), "geheim"


def with_a_key_encrypted_the_old_way(workshop: Workshop) -> Given:
    out = ("-out", workshop.path("e.key"), "-passout", "pass:geheim", "-aes256", "-traditional")
    openssl("pkey", "-in", workshop.path("x.key"), *out)
    assert b"Proc-Type: 4,ENCRYPTED" in workshop.key("e")
    return workshop.pem("x") + workshop.key("e"), None, "geheim"


def as_pkcs12(workshop: Workshop) -> Given:
    return workshop.pkcs12("x", "grüße €"), None, "grüße €"


def as_pkcs12_of_old_programs(workshop: Workshop) -> Given:
    return workshop.pkcs12("x", "geheim", "-legacy"), None, "geheim"


def as_pkcs12_without_password(workshop: Workshop) -> Given:
    return workshop.pkcs12("x", ""), None, None


def as_pem_of_a_peer(workshop: Workshop) -> Given:
    return workshop.pem("x"), None, None


def as_der_of_a_peer(workshop: Workshop) -> Given:
    openssl("x509", "-in", workshop.path("x.pem"), "-outform", "DER", "-out", workshop.path("x.der"))
    return workshop.path("x.der").read_bytes(), None, None


def as_pkcs12_of_a_peer(workshop: Workshop) -> Given:
    return workshop.pkcs12("x", "geheim", "-nokeys"), None, "geheim"


OURS = (
    *(as_pem, as_pem_with_the_key_first_and_a_needless_password, as_two_files, as_der_with_a_key_in_pem),
    *(as_text_and_windows_lines, with_an_encrypted_key, with_a_key_encrypted_the_old_way),
    *(as_pkcs12, as_pkcs12_of_old_programs, as_pkcs12_without_password),
    *(as_der_both, as_der_of_old_programs, with_an_encrypted_key_in_der),
)
PEERS = (as_pem_of_a_peer, as_der_of_a_peer, as_pkcs12_of_a_peer)


@pytest.mark.parametrize("kind", ["brainpoolP256r1", "RSA 2048"])
@pytest.mark.parametrize("form", [*OURS, *PEERS], ids=lambda form: form.__name__)
def test_every_form_is_taken(
    store: Store, workshop: Workshop, form: Callable[[Workshop], Given], kind: str, tmp_path: Path
) -> None:
    workshop.made("x", kind)
    data, key, password = form(workshop)
    taken = store.put("x", data, key, password)
    assert (taken.subject, taken.has_key) == ("CN=x", form in OURS)
    assert taken.key_type == (kind if "RSA" in kind else f"EC {kind}")
    stored = listing(tmp_path)
    assert stored["x.crt"] == workshop.pem("x")
    if form in OURS:
        assert openssl("pkey", "-in", taken.key_file) == openssl("pkey", "-in", workshop.path("x.key"))
        assert b"ENCRYPTED" not in stored["x.key"]
    else:
        assert list(stored) == ["x.crt"]


@pytest.mark.parametrize("kind", ["brainpoolP384r1", "brainpoolP512r1", "prime256v1", "secp384r1", "secp521r1"])
def test_every_curve_is_taken(store: Store, workshop: Workshop, kind: str) -> None:
    workshop.made("x", kind)
    assert store.put("x", *as_pem(workshop)).key_type == f"EC {kind.replace('prime256v1', 'secp256r1')}"


def test_a_key_as_ecparam_writes_it(store: Store, workshop: Workshop) -> None:
    openssl("ecparam", "-name", "brainpoolP256r1", "-genkey", "-out", workshop.path("x.key"))
    assert b"BEGIN EC PARAMETERS" in workshop.key("x")
    openssl(*("req", "-x509", "-key", workshop.path("x.key"), "-subj", "/CN=x", "-out", workshop.path("x.pem")))
    assert store.put("x", *as_pem(workshop)).has_key


def damaged(pem: bytes) -> bytes:
    lines = pem.split(b"\n")
    return b"\n".join([lines[0], lines[1][::-1], *lines[2:]])


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda w: (w.pem("x"), w.key("y"), None), r"^x\.key: is not the key of the certificate in x\.pem$"),
        (lambda w: (w.pem("x") + w.key("y"), None, None), r"^x\.pem: .* does not belong to the private key in it$"),
        (lambda w: (w.pem(w.made("r", "RSA 1024")), None, None), r"^x\.pem: this type of key .* RSA from 2048 bits"),
        (lambda w: (w.pem(w.made("e", "Ed25519")), None, None), r"^x\.pem: this type of key is not supported"),
        (lambda w: (w.pem("e") + w.key(w.made("e", "Ed25519")), None, None), r"^x\.pem: the key .* not supported"),
        (lambda w: (w.pem(w.made("k", "secp256k1")), None, None), r"^x\.pem: this type of key is not supported"),
        (lambda w: (w.pem(w.made("k", "brainpoolP320r1")), None, None), r"^x\.pem: this type of key is not supported"),
        (lambda w: (w.pkcs12("x", "right"), None, "wrong"), r"^x\.pem: the password is wrong, or the file is damaged$"),
        (lambda w: (w.pkcs12("x", "right"), None, None), r"^x\.pem: its password is needed$"),
        (lambda w: (w.pkcs12("x", "right")[:400], None, "right"), r"^x\.pem: the password is wrong, or the file is d"),
        (lambda w: (*with_an_encrypted_key(w)[:2], "wrong"), r"^x\.key: the password is wrong, or the key in it is d"),
        (lambda w: (*with_an_encrypted_key(w)[:2], ""), r"^x\.key: the key in it is encrypted: its password is needed"),
        (lambda w: (*with_an_encrypted_key_in_der(w)[:2], "wrong"), r"^x\.key: the password is wrong"),
        (lambda w: (*with_an_encrypted_key_in_der(w)[:2], None), r"^x\.key: the key in it is encrypted"),
        (lambda w: (w.pem("x"), w.pem("x"), None), r"^x\.key: holds no private key$"),
        (lambda w: (w.key("x"), None, None), r"^x\.pem: holds no certificate$"),
        (
            lambda w: (w.pem("x") + w.pem("y"), None, None),
            r"^x\.pem: holds several certificates that are not one chain",
        ),
        (
            lambda w: (as_der_of_a_peer(w)[0].replace(b"\x0c\x01x", b"\x02\x01x"), None, None),
            r"^x\.pem: .* is damaged$",
        ),
        (lambda w: (damaged(w.pem("x")), None, None), r"^x\.pem: a certificate in it is damaged$"),
        (lambda w: (w.pem("x"), damaged(w.key("x")), None), r"^x\.key: the key in it cannot be read$"),
        (lambda w: (w.pem("x")[:200], None, None), r"^x\.pem: neither PEM nor DER nor PKCS#12$"),
        (lambda w: (b"", None, None), r"^x\.pem: neither PEM nor DER nor PKCS#12$"),
        (lambda w: (b"0\x82\x01\x00garbage", None, None), r"^x\.pem: neither PEM nor DER nor PKCS#12$"),
        (lambda w: (w.issuer("z", "x") and w.path("z.csr").read_bytes(), None, None), r"but CERTIFICATE REQUEST$"),
    ],
)
def test_what_is_refused(
    store: Store, workshop: Workshop, tmp_path: Path, made: Callable[[Workshop], Given], reason: str
) -> None:
    workshop.made("x")
    workshop.made("y")
    workshop.path("e.pem").write_bytes(b"")
    data, key, password = made(workshop)
    with pytest.raises(BadRequest, match=reason):
        store.put("x", data, key, password, places=("x.pem", "x.key"))
    assert listing(tmp_path) == {}


def test_a_file_full_of_certificates_is_refused(store: Store, workshop: Workshop) -> None:
    """To find out which of them issued which would take minutes."""
    many = b"".join(workshop.pem(workshop.made(f"c{number}")) for number in range(MAX_CERTIFICATES + 1))
    with pytest.raises(BadRequest, match=r"^the certificate: holds 21 certificates; one and its issuers are wanted$"):
        store.put("x", many)


def test_the_time_to_look_through_a_file_grows_with_its_size_only() -> None:
    """While a file is searched nothing else runs, so this one must take milliseconds, not seconds."""
    since = time.process_time()
    with pytest.raises(BadRequest, match="neither"):
        bundle.read(b"-----BEGIN X-----" * 7000, None)
    assert time.process_time() - since < 1.0


def test_what_tls_does_not_take_is_refused(store: Store, workshop: Workshop, tmp_path: Path) -> None:
    """OpenSSL refuses signatures with SHA-1 at its own level of security: better now than when the door opens."""
    workshop.made("root")
    workshop.issuer("weak", "root")
    signing = ("-CA", workshop.path("root.pem"), "-CAkey", workshop.path("root.key"), "-sha1", "-days", 9)
    openssl("x509", "-req", "-in", workshop.path("weak.csr"), *signing, "-out", workshop.path("weak.pem"))
    with pytest.raises(BadRequest, match=r"^x\.pem: TLS does not take it: CA_MD_TOO_WEAK$"):
        store.put("x", workshop.pem("weak") + workshop.key("weak"), places=("x.pem", ""))
    assert listing(tmp_path) == {}


@pytest.mark.parametrize(
    ("days", "reason"), [(31, r"^x: has expired: valid from .*Z to .*Z, the clock here says"), (-1, "is not valid yet")]
)
def test_out_of_date(tmp_path: Path, workshop: Workshop, days: int, reason: str) -> None:
    now = datetime.now(UTC).timestamp()
    store = Store(tmp_path / "state" / "certificates", lambda: now + days * DAY_S)
    with pytest.raises(BadRequest, match=reason):
        store.put("x", workshop.pem(workshop.made("x")), places=("x", ""))
    assert listing(tmp_path) == {}


def test_a_peer_does_not_take_the_place_of_our_own(store: Store, workshop: Workshop, tmp_path: Path) -> None:
    """A mistaken name must not lose a private key."""
    store.create("cls", WISH)
    before = listing(tmp_path)
    with pytest.raises(BadRequest, match="does not belong to the private key kept as cls"):
        store.put("cls", workshop.pem(workshop.made("gateway")), replace=True)
    assert listing(tmp_path) == before


def test_a_certificate_of_a_version_that_does_not_exist(store: Store, workshop: Workshop, tmp_path: Path) -> None:
    der = ssl.PEM_cert_to_DER_cert(workshop.pem(workshop.made("x")).decode())
    odd = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x6a", 1)
    for file, reason in ((odd, "neither PEM nor DER"), (ssl.DER_cert_to_PEM_cert(odd).encode(), "is damaged")):
        with pytest.raises(BadRequest, match=reason):
            store.put("x", file)
    assert listing(tmp_path) == {}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    workshop = Workshop(tmp_path_factory.mktemp("fuzz") / "workshop")
    workshop.made("x")
    return [workshop.pkcs12("x", "p"), workshop.pem("x") + workshop.key("x"), as_der_of_a_peer(workshop)[0]]


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore:PKCS#12 bundle could not be parsed as DER")
@given(st.data())
def test_damaged_files_never_do_damage(
    samples: list[bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    store = Store(folder)
    sample = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(1, 4))):
        sample[data.draw(st.integers(0, len(sample) - 1))] = data.draw(st.integers(0, 255))
    try:
        store.put("x", bytes(sample), password="p", replace=True)
        store.load("x")
        store.delete("x", {})
    except BadRequest:
        assert not list(folder.iterdir() if folder.exists() else ())
