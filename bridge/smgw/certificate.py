"""What a certificate of the store says, for people and for the edges; nothing of its private key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from bridge.core.records.certificates import Uses, expiry_warning
from bridge.errors import BadRequest
from bridge.smgw.bundle import UNREADABLE, Bundle, key_type


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of the store. Times are in seconds since 1970, UTC.

    ``certificate_file`` holds the leaf and its issuers in PEM, ``key_file`` the private key; None for the certificate
    of a peer. ``fingerprint`` is that of SHA-256, as ``openssl x509 -fingerprint -sha256`` writes it. ``chain`` has
    the subjects of the issuers, the leaf's own first. Names are written as in RFC 4514.
    """

    name: str
    certificate_file: Path
    key_file: Path | None
    fingerprint: str
    subject: str
    issuer: str
    sans: tuple[str, ...]
    chain: tuple[str, ...]
    key_type: str
    not_before: float
    not_after: float

    @property
    def has_key(self) -> bool:
        """Whether it is one of ours, with a private key, and not that of a peer."""
        return self.key_file is not None

    def facts(self, uses: Uses, now_utc: float) -> dict[str, object]:
        """Everything worth showing, in values JSON knows; times in ISO 8601."""
        return {
            "name": self.name,
            "subject": self.subject,
            "issuer": self.issuer,
            "sans": list(self.sans),
            "chain": list(self.chain),
            "key_type": self.key_type,
            "has_key": self.has_key,
            "not_before": iso(self.not_before),
            "not_after": iso(self.not_after),
            "fingerprint_sha256": self.fingerprint,
            "used_as": list(uses.get(self.name, ())),
            "warning": expiry_warning(self.not_after, now_utc),
        }


def describe(name: str, bundle: Bundle, certificate_file: Path, key_file: Path | None) -> Certificate:
    """What there is to say of what these files hold. Raises :class:`BadRequest` when it is damaged or unsupported."""
    leaf = bundle.leaf
    try:
        return Certificate(
            name=name,
            certificate_file=certificate_file,
            key_file=key_file,
            fingerprint=leaf.fingerprint(SHA256()).hex(":").upper(),
            subject=leaf.subject.rfc4514_string(),
            issuer=leaf.issuer.rfc4514_string(),
            sans=_sans(leaf),
            chain=tuple(issuer.subject.rfc4514_string() for issuer in bundle.chain),
            key_type=key_type(leaf),
            not_before=leaf.not_valid_before_utc.timestamp(),
            not_after=leaf.not_valid_after_utc.timestamp(),
        )
    except UNREADABLE as error:
        raise BadRequest("the certificate is damaged") from error


def _sans(leaf: x509.Certificate) -> tuple[str, ...]:
    """Host names and addresses; other kinds of names mean nothing to TLS."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))


def iso(seconds: float) -> str:
    """Seconds since 1970 as ``2026-11-22T12:00:00Z``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
