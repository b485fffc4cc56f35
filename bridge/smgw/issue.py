"""New keys with a certificate of their own signature, or with a request for somebody else's. Pure but for chance."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bridge.errors import BadRequest
from bridge.smgw.bundle import Bundle

_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "brainpoolP256r1": ec.BrainpoolP256R1,
    "brainpoolP384r1": ec.BrainpoolP384R1,
    "prime256v1": ec.SECP256R1,
    "secp256r1": ec.SECP256R1,
    "P-256": ec.SECP256R1,
    "secp384r1": ec.SECP384R1,
    "P-384": ec.SECP384R1,
}
"""The curves of TR-03116-3 that gateways are known to speak, in the spellings of OpenSSL, SECG and NIST."""

CURVE = "brainpoolP256r1"
DAYS = 3650
"""Ten years. The gateway knows this very certificate: every new one is a job for its administrator, and one that runs
out cuts the house off. An early end would protect from nothing, because trust is taken back at the gateway."""

MAX_DAYS = 36_500
BACKDATED = timedelta(hours=1)
"""Clocks differ: a gateway that is a little behind takes the certificate at once."""

_HOST = re.compile(
    r"(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a new certificate shall say. ``sans``: host names and addresses; none: the common name where it is one."""

    common_name: str
    sans: tuple[str, ...] = ()
    curve: str = CURVE


def self_signed(wish: Wish, days: int, now_utc: float) -> Bundle:
    """A new key and its certificate (RFC 5280): for TLS alone, both ends, and not able to issue others.

    ``now_utc`` in seconds since 1970. Raises :class:`BadRequest` when the wish cannot be fulfilled.
    """
    if not 1 <= days <= MAX_DAYS:
        raise BadRequest(f"{days} days: 1 to {MAX_DAYS} are possible")
    key, subject, now = _key(wish.curve), _subject(wish), datetime.fromtimestamp(now_utc, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    for extension, critical in _extensions(wish):
        builder = builder.add_extension(extension, critical)
    return Bundle(builder.sign(key, _hash(key)), key=key)


def request(wish: Wish) -> tuple[ec.EllipticCurvePrivateKey, x509.CertificateSigningRequest]:
    """A new key and the request for its certificate (PKCS#10, RFC 2986). Raises :class:`BadRequest`."""
    key = _key(wish.curve)
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(wish))
    for extension, critical in _extensions(wish):
        builder = builder.add_extension(extension, critical)
    return key, builder.sign(key, _hash(key))


def _key(curve: str) -> ec.EllipticCurvePrivateKey:
    spelled = {name.lower(): found for name, found in _CURVES.items()}
    if curve.lower() not in spelled:
        raise BadRequest(f"{curve}: no such curve; there are {', '.join(_CURVES)}")
    return ec.generate_private_key(spelled[curve.lower()]())


def _hash(key: ec.EllipticCurvePrivateKey) -> SHA256 | SHA384:
    """The hash as strong as the curve."""
    return SHA384() if key.key_size > 256 else SHA256()


def _subject(wish: Wish) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wish.common_name)])
    except ValueError as error:
        raise BadRequest(f"the common name {wish.common_name!r} must have 1 to 64 characters") from error


def _extensions(wish: Wish) -> list[tuple[x509.ExtensionType, bool]]:
    """What the certificate may be used for, each with whether a reader must understand it."""
    usage = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.KeyUsage(digital_signature=True, **usage), True),
        (x509.ExtendedKeyUsage(both_ends), False),
    ]
    names = [_san(text) for text in wish.sans]
    if not names:
        with suppress(BadRequest):
            names = [_san(wish.common_name)]
    if names:
        extensions.append((x509.SubjectAlternativeName(names), False))
    return extensions


def _san(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        if not _HOST.fullmatch(text):
            raise BadRequest(f"{text!r} is neither a host name nor an IP address") from None
        return x509.DNSName(text)
