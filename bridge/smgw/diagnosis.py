"""What went wrong on the way out, said so that something can be done about it.

In TLS 1.2 a refused client certificate ends the handshake; in TLS 1.3 the client is done before the server looks at it
(RFC 8446, 4.4 and appendix E.1.2), and the refusal is an alert or a reset at the first read.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Literal

from bridge.errors import BridgeError

Step = Literal["tcp", "tls", "certificate", "socks", "destination"]


class TunnelError(BridgeError):
    """The way out does not work. ``step`` is how far it went, ``advice`` what to tell the gateway administrator."""

    def __init__(self, step: Step, text: str, advice: str) -> None:
        super().__init__(f"{step}: {text}")
        self.step = step
        self.text = text
        self.advice = advice


ASK_ADDRESS = "ask for address and port of the CLS proxy in the HAN"
SEE_SIDECAR = "nothing yet: see whether the sidecar runs, and what its log says"
ENTER_US = "ask for our certificate (smgw-bridge cert list) to be entered as that of the CLS"

_REFUSES_OURS = {
    "TLSV1_ALERT_UNKNOWN_CA": "unknown_ca",
    "SSLV3_ALERT_BAD_CERTIFICATE": "bad_certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "certificate_unknown",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "unsupported_certificate",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "certificate_revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "certificate_expired",
    "TLSV1_ALERT_ACCESS_DENIED": "access_denied",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "certificate_required",
}
"""Alerts about our certificate, as OpenSSL and as RFC 8446, 6.2 call them."""

_CURVES_AND_SUITES = "ask for curve and cipher suites of the HAN interface, and set smgw.crypto to them"
_VERSIONS = "ask for the TLS versions of the HAN interface; smgw.crypto decides on ours"
_SIDECAR = "tell them make and firmware; meanwhile put a sidecar with another TLS library in front (docs/smgw.md)"

_HANDSHAKE = {
    **dict.fromkeys(
        (
            *("SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV1_ALERT_INSUFFICIENT_SECURITY", "NO_SUITABLE_GROUPS"),
            *("NO_SHARED_GROUP", "NO_CIPHERS_AVAILABLE", "WRONG_CURVE", "UNSUPPORTED_ELLIPTIC_CURVE"),
            *("NO_SUITABLE_SIGNATURE_ALGORITHM", "WRONG_SIGNATURE_TYPE", "EE_KEY_TOO_SMALL", "WRONG_CIPHER_RETURNED"),
        ),
        ("no curve or cipher suite in common", _CURVES_AND_SUITES),
    ),
    **dict.fromkeys(
        ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION"),
        ("no version of TLS in common", _VERSIONS),
    ),
    **dict.fromkeys(
        ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"),
        ("what answers there speaks no TLS", ASK_ADDRESS),
    ),
    "SSLV3_ALERT_ILLEGAL_PARAMETER": ("the gateway refuses the hello of OpenSSL", _SIDECAR),
}
"""OpenSSL's reason to text and advice."""

_CERT_NOT_YET_VALID, _CERT_HAS_EXPIRED = 9, 10
"""X509_V_ERR_… of OpenSSL."""


def of_sidecar(error: OSError, where: str) -> TunnelError:
    """There is no connection to the program that speaks TLS in our place."""
    reason = os.strerror(error.errno) if error.errno else "no answer"
    return TunnelError("tcp", f"{where} (smgw.sidecar): {reason}", SEE_SIDECAR)


def of_tcp(error: OSError, where: str) -> TunnelError:
    """There is no connection to the gateway."""
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return TunnelError("tcp", f"{where} does not answer", ASK_ADDRESS)
    if isinstance(error, ConnectionRefusedError):
        return TunnelError(
            "tcp", f"{where} refuses connections", f"{ASK_ADDRESS}, and whether the proxy is switched on"
        )
    if isinstance(error, socket.gaierror):
        return TunnelError("tcp", f"{where}: there is no such host", f"{ASK_ADDRESS}; few gateways have a name")
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        advice = "ask for the subnet of the HAN: this machine needs an address or a route in it"
        return TunnelError("tcp", f"there is no route to {where}", advice)
    return TunnelError("tcp", f"{where}: {error.strerror or error}", ASK_ADDRESS)


def of_tls(error: OSError, name: str | None = None) -> TunnelError:
    """There is a connection, but no TLS session. ``name``: that of the destination, where it goes as TLS-SNI."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_their_certificate(error)
    reason = str(getattr(error, "reason", None) or "")
    if alert := _REFUSES_OURS.get(reason):
        return TunnelError("certificate", f"the gateway does not accept our certificate (alert {alert})", ENTER_US)
    if reason == "TLSV1_UNRECOGNIZED_NAME":
        return _unknown_name(name)
    if known := _HANDSHAKE.get(reason):
        return TunnelError("tls", f"{known[0]} ({reason.lower()})", known[1])
    if isinstance(error, ConnectionAbortedError):  # asyncio: the handshake has taken too long
        return TunnelError("tls", "nobody answers our hello", ASK_ADDRESS)
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        text = "the gateway hangs up during the handshake"
        if name:
            return TunnelError("tls", f"{text}; it may not know {name}", f"{_enter(name)}; else {ENTER_US}")
        return TunnelError("tls", text, f"{ENTER_US}; else ask what its log says")
    return TunnelError("tls", f"the handshake fails: {reason.lower() or error}", "tell them this text")


def _unknown_name(name: str | None) -> TunnelError:
    """Alert ``unrecognized_name`` (RFC 6066, 3), which is also what some send to a hello without any name."""
    if name:
        return TunnelError("destination", f"the gateway knows no {name}", _enter(name))
    text = "the gateway wants a destination as TLS-SNI, and our hello names none"
    return TunnelError("tls", text, "ask whether this port takes SOCKS5 or TLS-SNI (smgw.tunnel)")


def _of_their_certificate(error: ssl.SSLCertVerificationError) -> TunnelError:
    if error.verify_code == _CERT_HAS_EXPIRED:
        return TunnelError("certificate", "the gateway's certificate has expired", "ask for its new HAN certificate")
    if error.verify_code == _CERT_NOT_YET_VALID:
        advice = "set the clock of this machine first; if it is right, ask for another HAN certificate"
        return TunnelError("certificate", "the gateway's certificate is not valid yet", advice)
    return not_pinned(error.verify_message)


def not_pinned(detail: str) -> TunnelError:
    """The gateway shows a certificate, but another one than ``smgw.gateway_certificate``."""
    text = f"the gateway shows another certificate than smgw.gateway_certificate ({detail})"
    return TunnelError("certificate", text, "ask for the HAN certificate of the gateway, and compare fingerprints")


def closed_early(version: str | None) -> TunnelError:
    """Somebody hung up before saying anything: the gateway, after the handshake of TLS ``version``, or the sidecar."""
    if version is None:
        return TunnelError("socks", "the sidecar hangs up before SOCKS begins", SEE_SIDECAR)
    if version == "TLSv1.3":
        text = "the gateway hangs up after the handshake, so it does not accept our certificate"
        return TunnelError("certificate", text, ENTER_US)
    return TunnelError(
        "socks", "the gateway hangs up before SOCKS begins", f"ask for SOCKS5 on this port; else {ENTER_US}"
    )


def cut_off(where: str, granted: bool) -> TunnelError:
    """The way to the destination was open, and was closed before anybody said anything.

    ``granted``: the proxy has said that it has connected. Then the gateway took our certificate and reached the
    destination; by TLS-SNI one cannot know.
    """
    advice = f"ask whether the gateway or {where} hangs up"
    if not granted:
        advice = f"ask whether {where} can be reached from the gateway; else {ENTER_US}"
    return TunnelError("destination", f"{where}: the connection is made, and closed at once", advice)


def _enter(name: str | None) -> str:
    return f"ask for {name} to be entered in the proxy profile"
