"""TLS towards the gateway: each ``crypto`` preset as versions, suites and curves, and the contexts made of it.

Sources: TR-03116-3 (suites and curves of the HAN interface), RFC 5289 (the suites), RFC 8422 and RFC 7027 (the curves).
All ``bsi-*`` presets end at TLS 1.2: OpenSSL 3.0 knows no brainpool curve in TLS 1.3, and the suites of TLS 1.3 cannot
be chosen from Python, so ChaCha20 would come along.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from bridge.core.gateway import Crypto
from bridge.errors import ConfigError
from bridge.smgw.certificate import Certificate

_BSI_SUITES = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",  # 0xC02B
        "ECDHE-ECDSA-AES256-GCM-SHA384",  # 0xC02C
        "ECDHE-ECDSA-AES128-SHA256",  # 0xC023
        "ECDHE-ECDSA-AES256-SHA384",  # 0xC024
    )
)
_MODERN_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"

_OPTIONS = ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE


@dataclass(frozen=True, slots=True)
class Preset:
    """``key_types`` are those a certificate may have, as :attr:`Certificate.key_type` has them (``EC`` left out).

    ``curve`` is the only one offered for the key exchange, in OpenSSL's spelling; None: OpenSSL's own list.
    """

    key_types: tuple[str, ...]
    suites: str = _BSI_SUITES
    curve: str | None = None
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2


PRESETS: Mapping[Crypto, Preset] = {
    "bsi-brainpool256": Preset(("brainpoolP256r1",), curve="brainpoolP256r1"),
    "bsi-brainpool384": Preset(("brainpoolP384r1",), curve="brainpoolP384r1"),
    "bsi-nist256": Preset(("secp256r1",), curve="prime256v1"),
    "bsi-nist384": Preset(("secp384r1",), curve="secp384r1"),
    "modern": Preset(
        ("secp256r1", "secp384r1", "secp521r1", "RSA"), _MODERN_SUITES, newest=ssl.TLSVersion.MAXIMUM_SUPPORTED
    ),
}


def misfit(crypto: Crypto, certificate: Certificate) -> str | None:
    """Why a certificate cannot be used with a preset; None when it can.

    In TLS 1.2 the curve of a certificate must be among those offered for the key exchange (RFC 8422, 5.1), and Python
    can offer only one: so both ends need the same.
    """
    allowed = PRESETS[crypto].key_types
    if _key_type(certificate) in allowed:
        return None
    return f"{certificate.name} has the key {certificate.key_type}, but crypto {crypto} needs {' or '.join(allowed)}"


def server_context(crypto: Crypto, own: Certificate, peers: Iterable[Certificate]) -> ssl.SSLContext:
    """For a door that takes only those who show one of the certificates ``peers``.

    Whoever got in must still be compared with them: a pinned certificate may have issued others.
    Raises :class:`ConfigError` when a certificate does not fit the preset or cannot be used.
    """
    return _pinned(ssl.PROTOCOL_TLS_SERVER, crypto, own, peers)


def client_context(crypto: Crypto, own: Certificate, peer: Certificate) -> ssl.SSLContext:
    """For a connection to the one who shows the certificate ``peer``, which is to be compared afterwards.

    Gateways have no names one could check. Raises :class:`ConfigError` as :func:`server_context` does.
    """
    return _pinned(ssl.PROTOCOL_TLS_CLIENT, crypto, own, [peer])


def web_context(own: Certificate) -> ssl.SSLContext:
    """For the LAN door: modern, or what a certificate on a brainpool curve needs. Nobody is asked for a certificate.

    Raises :class:`ConfigError` when the certificate cannot be used.
    """
    return _context(ssl.PROTOCOL_TLS_SERVER, web_crypto(own), own)


def web_crypto(own: Certificate) -> Crypto:
    """The preset the LAN door uses with this certificate; ``modern`` where none fits."""
    fitting = (crypto for crypto in ("modern", *get_args(Crypto)) if misfit(crypto, own) is None)
    return next(fitting, "modern")


def _pinned(side: int, crypto: Crypto, own: Certificate, peers: Iterable[Certificate]) -> ssl.SSLContext:
    context = _context(side, crypto, own)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # A pin is trusted for itself, whoever has issued it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for peer in peers:
        if problem := misfit(crypto, peer):
            raise ConfigError([problem])
        try:
            context.load_verify_locations(cadata=leaf(peer))
        except (OSError, ValueError) as error:
            raise ConfigError([f"{peer.name}: {peer.certificate_file} cannot be used: {error}"]) from error
    return context


def _context(side: int, crypto: Crypto, own: Certificate) -> ssl.SSLContext:
    preset = PRESETS[crypto]
    if problem := misfit(crypto, own):
        raise ConfigError([problem])
    if own.key_file is None:
        raise ConfigError([f"{own.name} has no private key, so it cannot be ours"])
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = preset.newest
    context.options |= _OPTIONS
    context.set_ciphers(preset.suites)
    if preset.curve:
        context.set_ecdh_curve(preset.curve)
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    try:
        # The password is never asked for on a terminal: keys of the store have none.
        context.load_cert_chain(own.certificate_file, own.key_file, password="")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError([f"{own.name}: {own.certificate_file} and its key cannot be used: {error}"]) from error
    return context


def leaf(certificate: Certificate) -> bytes:
    """The certificate itself in DER, without its issuers: they are not trusted."""
    text = certificate.certificate_file.read_text(encoding="ascii")
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)])


def _key_type(certificate: Certificate) -> str:
    kind, _, curve = certificate.key_type.partition(" ")
    return curve if kind == "EC" else kind
