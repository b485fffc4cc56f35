"""What each preset lets through, and that a pin is a pin: handshakes in memory, certificates from the store."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from bridge.core.gateway import Crypto
from bridge.errors import ConfigError
from bridge.smgw.certificate import Certificate
from bridge.smgw.contexts import PRESETS, client_context, leaf, misfit, server_context, web_context, web_crypto
from bridge.smgw.issue import Wish
from bridge.smgw.store import Store

CURVES: dict[Crypto, str] = {
    "bsi-brainpool256": "brainpoolP256r1",
    "bsi-brainpool384": "brainpoolP384r1",
    "bsi-nist256": "P-256",
    "bsi-nist384": "P-384",
    "modern": "P-256",
}
YEAR_S = 365 * 86_400


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def made(store: Store) -> Callable[[str, str], Certificate]:
    """A certificate of the store by name and curve, made when it is first asked for."""

    def make(name: str, curve: str) -> Certificate:
        name = f"{name}-{curve}"
        return store.load(name) if name in store.names() else store.create(name, Wish(name, curve=curve))

    return make


Made = Callable[[str, str], Certificate]


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a session; raises what the end raises that gives up first."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server, server_side=False)
    for _ in range(5):
        for end in (there, here):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return here, there


@pytest.mark.parametrize("crypto", get_args(Crypto))
def test_both_ends_of_a_preset_find_together(made: Made, crypto: Crypto) -> None:
    cls, smgw = made("cls", CURVES[crypto]), made("smgw", CURVES[crypto])
    here, there = handshake(server_context(crypto, cls, [smgw]), client_context(crypto, smgw, cls))
    assert here.getpeercert(binary_form=True) == leaf(smgw)
    assert there.getpeercert(binary_form=True) == leaf(cls)
    assert here.version() == ("TLSv1.3" if crypto == "modern" else "TLSv1.2")
    assert there.session is None or not there.session.has_ticket


@pytest.mark.parametrize("crypto", [crypto for crypto in get_args(Crypto) if crypto != "modern"])
@pytest.mark.parametrize(
    "suite",
    [
        "ECDHE-ECDSA-AES128-SHA256",
        "ECDHE-ECDSA-AES256-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ],
)
def test_gateways_that_speak_one_suite_only_are_understood(made: Made, crypto: Crypto, suite: str) -> None:
    cls, smgw = made("cls", CURVES[crypto]), made("smgw", CURVES[crypto])
    client = client_context(crypto, smgw, cls)
    client.set_ciphers(suite)
    here, _ = handshake(server_context(crypto, cls, [smgw]), client)
    assert (here.cipher() or ("",))[0] == suite


@pytest.mark.parametrize(
    "change",
    [
        lambda client: client.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305"),
        lambda client: client.set_ciphers("ECDHE-ECDSA-AES128-SHA"),
        lambda client: client.set_ecdh_curve("secp384r1"),
        lambda client: setattr(client, "minimum_version", ssl.TLSVersion.TLSv1_3),
    ],
)
def test_what_is_not_in_the_preset_is_not_spoken(made: Made, change: Callable[[ssl.SSLContext], None]) -> None:
    cls, smgw = made("cls", "P-256"), made("smgw", "P-256")
    client = client_context("bsi-nist256", smgw, cls)
    client.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    change(client)
    with pytest.raises(ssl.SSLError):
        handshake(server_context("bsi-nist256", cls, [smgw]), client)


@pytest.mark.parametrize("crypto", get_args(Crypto))
def test_nothing_below_tls_1_2_nothing_compressed_no_tickets(made: Made, crypto: Crypto) -> None:
    cls, smgw = made("cls", CURVES[crypto]), made("smgw", CURVES[crypto])
    for context in (server_context(crypto, cls, [smgw]), client_context(crypto, cls, smgw)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
        for option in (ssl.OP_NO_TICKET, ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION):
            assert context.options & option


def test_a_stranger_is_refused_at_either_end(made: Made) -> None:
    cls, smgw, stranger = (made(name, "brainpoolP256r1") for name in ("cls", "smgw", "stranger"))
    door = server_context("bsi-brainpool256", cls, [smgw])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(door, client_context("bsi-brainpool256", stranger, cls))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(door, client_context("bsi-brainpool256", smgw, stranger))


def test_several_far_ends_may_come(made: Made) -> None:
    cls, smgw, other = (made(name, "P-256") for name in ("cls", "smgw", "other"))
    door = server_context("bsi-nist256", cls, [smgw, other])
    for peer in (smgw, other):
        here, _ = handshake(door, client_context("bsi-nist256", peer, cls))
        assert here.getpeercert(binary_form=True) == leaf(peer)


def test_an_expired_pin_is_refused(tmp_path: Path, made: Made) -> None:
    long_ago = Store(tmp_path, lambda: time.time() - YEAR_S).create("smgw", Wish("smgw", curve="P-256"), days=30)
    cls = made("cls", "P-256")
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(server_context("bsi-nist256", cls, [long_ago]), client_context("bsi-nist256", long_ago, cls))


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def issued(folder: Path, store: Store) -> tuple[Certificate, Certificate]:
    """A certificate and one it has issued, both with keys; the second is stored with its issuer behind it."""
    for name in ("ca", "end"):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / f"{name}.key")
    openssl("req", "-x509", "-key", folder / "ca.key", "-subj", "/CN=ca", "-days", 9, "-out", folder / "ca.crt")
    request = folder / "end.csr"
    openssl("req", "-new", "-key", folder / "end.key", "-subj", "/CN=end", "-out", request)
    signed = ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", 9)
    openssl("x509", "-req", "-in", request, *signed, "-out", folder / "end.crt")
    chain = (folder / "end.crt").read_bytes() + (folder / "ca.crt").read_bytes()
    ca = store.put("ca", (folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())
    return ca, store.put("end", chain, (folder / "end.key").read_bytes())


def test_a_pin_issued_by_others_is_trusted_for_itself_and_they_are_not(tmp_path: Path, made: Made) -> None:
    ca, end = issued(tmp_path, Store(tmp_path / "store"))
    cls = made("cls", "P-256")
    door = server_context("bsi-nist256", cls, [end])
    here, _ = handshake(door, client_context("bsi-nist256", end, cls))
    assert here.getpeercert(binary_form=True) == leaf(end)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(door, client_context("bsi-nist256", ca, cls))


@pytest.mark.parametrize(
    ("crypto", "curve", "words"),
    [
        ("bsi-brainpool256", "P-256", "EC secp256r1, but crypto bsi-brainpool256 needs brainpoolP256r1"),
        ("bsi-nist256", "brainpoolP256r1", "EC brainpoolP256r1, but crypto bsi-nist256 needs secp256r1"),
        ("bsi-nist384", "P-256", "EC secp256r1, but crypto bsi-nist384 needs secp384r1"),
        ("modern", "brainpoolP384r1", "EC brainpoolP384r1, but crypto modern needs secp256r1 or"),
    ],
)
def test_a_key_that_does_not_fit_is_named_with_what_is_needed(
    made: Made, crypto: Crypto, curve: str, words: str
) -> None:
    wrong, right = made("cls", curve), made("cls", CURVES[crypto])
    for pair in ((wrong, right), (right, wrong)):
        with pytest.raises(ConfigError, match=words):
            server_context(crypto, pair[0], [pair[1]])


def test_a_certificate_without_a_key_cannot_be_ours(tmp_path: Path, made: Made) -> None:
    cls = made("cls", "P-256")
    peer = Store(tmp_path).put("peer", cls.certificate_file.read_bytes())
    with pytest.raises(ConfigError, match="peer has no private key"):
        server_context("bsi-nist256", peer, [cls])


def test_files_that_are_damaged_are_named(tmp_path: Path) -> None:
    cls = Store(tmp_path).create("cls", Wish("cls", curve="P-256"))
    assert cls.key_file
    cls.key_file.write_text("nothing")
    with pytest.raises(ConfigError, match=r"cls: .*cls\.crt and its key cannot be used"):
        web_context(cls)


@pytest.mark.parametrize("curve", ["P-256", "P-384", "brainpoolP256r1", "brainpoolP384r1"])
def test_the_lan_door_speaks_what_its_certificate_needs(made: Made, curve: str) -> None:
    own = made("lan", curve)
    browser = ssl.create_default_context(cafile=str(own.certificate_file))
    browser.check_hostname = False
    if "brainpool" in curve:
        browser.set_ecdh_curve(curve)
        browser.maximum_version = ssl.TLSVersion.TLSv1_2
    here, _ = handshake(web_context(own), browser)
    assert here.version() == ("TLSv1.2" if "brainpool" in curve else "TLSv1.3")
    assert misfit(web_crypto(own), own) is None


def test_the_lan_door_takes_rsa(tmp_path: Path) -> None:
    files = ("-keyout", tmp_path / "rsa.key", "-out", tmp_path / "rsa.crt")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lan", "-days", 9, *files)
    own = Store(tmp_path / "store").put("lan", (tmp_path / "rsa.crt").read_bytes(), (tmp_path / "rsa.key").read_bytes())
    browser = ssl.create_default_context(cafile=str(own.certificate_file))
    browser.check_hostname = False
    here, _ = handshake(web_context(own), browser)
    assert here.version() == "TLSv1.3"


def test_every_preset_has_its_meaning() -> None:
    assert PRESETS.keys() == set(get_args(Crypto))
