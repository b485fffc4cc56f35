"""What is in a certificate file: PEM, DER or PKCS#12 to a certificate with its issuers and its key. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)

from bridge.errors import BadRequest

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

CURVES = ("brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1", "secp256r1", "secp384r1", "secp521r1")
"""The curves TLS 1.2 knows with 256 bits or more (RFC 7027; RFC 8422, 5.1.1)."""

MIN_RSA_BITS = 2048
"""OpenSSL's security level 2, the default of Python's and Debian's TLS, takes no less."""

UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises on bytes it cannot make sense of, often only when a part of them is asked for."""

_LOCKED = "the key in it is encrypted: its password is needed"
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
"""The name of the encryption with which a key in PKCS#8 begins (RFC 8018, A.4), in DER."""

MAX_CERTIFICATES = 20
"""In one file. Chains have three or four; to find the order of hundreds would keep a core busy for a minute."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(?:(?!-----).)*+-----END \1-----", re.DOTALL)
"""What is inside has no five hyphens: so each byte is looked at once, whatever somebody sends."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A certificate, those that issued it (its own issuer first), and its private key where there is one."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()
    key: Key | None = None

    def certificates_pem(self) -> bytes:
        """The leaf and its issuers, in the order in which TLS sends them (RFC 5246, 7.4.2)."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (self.leaf, *self.chain))

    def pkcs12(self, name: str, password: str) -> bytes:
        """Everything, encrypted: PBES2 with PBKDF2 and AES-256 (RFC 8018, RFC 7292).

        The format's own check of the password has 2048 rounds (the library fixes them), which is what somebody who
        guesses has to pay: it is the password that must be strong.
        """
        encryption = (
            PrivateFormat.PKCS12.encryption_builder()
            .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
            .hmac_hash(SHA256())
            .build(password.encode())
        )
        return pkcs12.serialize_key_and_certificates(name.encode(), self.key, self.leaf, self.chain or None, encryption)


def key_pem(key: Key) -> bytes:
    """A private key as TLS libraries read it: PKCS#8, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_type(certificate: x509.Certificate) -> str:
    """Such as ``EC brainpoolP256r1`` or ``RSA 2048``. Raises :class:`BadRequest` for what TLS would not take."""
    with suppress(*UNREADABLE):
        key = certificate.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
            return f"EC {key.curve.name}"
        if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
            return f"RSA {key.key_size}"
    raise BadRequest(f"this type of key is not supported; use RSA from {MIN_RSA_BITS} bits or {', '.join(CURVES)}")


def read(data: bytes, password: str | None) -> tuple[list[x509.Certificate], list[Key]]:
    """Every certificate and private key in the bytes of a file, in the file's order, each once.

    ``password`` opens what is encrypted. Raises :class:`BadRequest` with the reason when nothing can be read.
    """
    if _BLOCK.search(data):
        certificates, keys = _read_pem(data, password)
    elif data[:1] == b"\x30" and b"\x02\x01\x03\x30" in data[:16]:  # PFX: a sequence that begins with version 3
        certificates, keys = _read_pkcs12(data, password)
    else:
        certificates, keys = _read_der(data, password)
    if len(certificates) > MAX_CERTIFICATES:
        raise BadRequest(f"holds {len(certificates)} certificates; one and its issuers are wanted")
    return certificates, keys


def _read_der(data: bytes, password: str | None) -> tuple[list[x509.Certificate], list[Key]]:
    """A certificate or a key: DER says nothing of what it holds."""
    with suppress(*UNREADABLE):
        return [x509.load_der_x509_certificate(data)], []
    for given in (None, password.encode() if password else None):
        with suppress(*UNREADABLE):
            return [], [_supported(load_der_private_key(data, given))]
    if _PBES2 in data[:64]:
        raise BadRequest("the password is wrong, or the key in it is damaged" if password else _LOCKED)
    raise BadRequest("neither PEM nor DER nor PKCS#12")


def _read_pem(data: bytes, password: str | None) -> tuple[list[x509.Certificate], list[Key]]:
    certificates: dict[x509.Certificate, None] = {}
    keys: list[Key] = []
    labels = []
    for match in _BLOCK.finditer(data):
        label = match[1].decode()
        labels.append(label)
        if label.endswith("PRIVATE KEY"):
            keys.append(_read_key(match[0], password))
        elif label in ("CERTIFICATE", "X509 CERTIFICATE"):
            try:
                certificates[x509.load_pem_x509_certificate(match[0])] = None
            except UNREADABLE as error:
                raise BadRequest("a certificate in it is damaged") from error
    if not certificates and not keys:
        raise BadRequest(f"holds neither certificate nor private key, but {', '.join(labels)}")
    return list(certificates), keys


def _read_key(block: bytes, password: str | None) -> Key:
    encrypted = b"ENCRYPTED" in block
    if encrypted and not password:
        raise BadRequest(_LOCKED)
    try:
        key = load_pem_private_key(block, password.encode() if encrypted and password else None)
    except UNREADABLE as error:
        reason = "the password is wrong, or the key in it is damaged" if encrypted else "the key in it cannot be read"
        raise BadRequest(reason) from error
    return _supported(key)


def _read_pkcs12(data: bytes, password: str | None) -> tuple[list[x509.Certificate], list[Key]]:
    try:
        found = pkcs12.load_pkcs12(data, password.encode() if password else None)
    except UNREADABLE as error:
        reason = "the password is wrong, or the file is damaged" if password else "its password is needed"
        raise BadRequest(reason) from error
    entries = [found.cert, *found.additional_certs] if found.cert else found.additional_certs
    certificates = list(dict.fromkeys(entry.certificate for entry in entries))
    return certificates, [_supported(found.key)] if found.key else []


def _supported(key: object) -> Key:
    if not isinstance(key, Key):
        raise BadRequest("the key in it is of a type that is not supported; EC and RSA are")
    return key


def assemble(certificates: Sequence[x509.Certificate], keys: Iterable[Key]) -> Bundle | None:
    """The certificate that belongs to one of the keys, with key and issuers; None when no key fits."""
    for key in keys:
        public = key.public_key()
        for certificate in certificates:
            with suppress(*UNREADABLE):
                if certificate.public_key() == public:
                    return Bundle(certificate, _chain(certificate, certificates), key)
    return None


def without_key(certificates: Sequence[x509.Certificate]) -> Bundle:
    """The one certificate that has issued none of the others. Raises :class:`BadRequest` when that is not one."""
    ends = [one for one in certificates if not any(_issued(one, other) for other in certificates if other != one)]
    if len(ends) != 1:
        raise BadRequest("holds several certificates that are not one chain, and no key that tells which is meant")
    return Bundle(ends[0], _chain(ends[0], certificates))


def _chain(leaf: x509.Certificate, pool: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The issuers of the leaf as far as they are in the pool, from the bottom up; what has no part in it is left."""
    chain, rest = [leaf], [one for one in pool if one != leaf]
    while issuer := next((one for one in rest if _issued(one, chain[-1])), None):
        chain.append(issuer)
        rest.remove(issuer)
    return tuple(chain[1:])


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    with suppress(InvalidSignature, *UNREADABLE):
        certificate.verify_directly_issued_by(issuer)
        return True
    return False
