"""SOCKS 5 (RFC 1928), the client's half: CONNECT without authentication, on streams that are there already.

A client library would bring a connection of its own; what is needed here fits on one page. Names are sent as names: the
gateway looks them up, and its proxy profile may know no addresses at all.
"""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from ipaddress import ip_address

from bridge.smgw.diagnosis import Step, TunnelError

VERSION, NO_AUTHENTICATION, CONNECT = 5, 0, 1
IPV4, NAME, IPV6 = 1, 3, 4

_PROFILE = "ask for {} to be entered in the proxy profile"
_BEHIND = "ask whether {} can be reached from the gateway"
_REFUSALS: dict[int, tuple[Step, str, str]] = {
    1: ("socks", "the gateway reports a general failure", "ask what its log says of {}"),
    2: ("destination", "the gateway does not allow it", _PROFILE),
    3: ("destination", "the gateway has no network towards it", _BEHIND),
    4: ("destination", "the gateway cannot reach it", _BEHIND),
    5: ("destination", "it refuses connections", _BEHIND),
    6: ("destination", "it is too far away (TTL expired)", _BEHIND),
    7: ("socks", "the gateway does not know CONNECT", "ask for SOCKS5 with CONNECT on this port"),
    8: ("socks", "the gateway does not take this kind of address", "ask whether the profile holds names or addresses"),
}
"""REP (RFC 1928, 6) to step, text and advice."""


async def greet(reader: StreamReader, writer: StreamWriter) -> None:
    """Agree on no authentication: TLS has done that. Raises :class:`TunnelError`, EOFError and OSError."""
    writer.write(bytes((VERSION, 1, NO_AUTHENTICATION)))
    version, method = await reader.readexactly(2)
    if version != VERSION:
        raise TunnelError("socks", "what answers is no SOCKS5 proxy", "ask for SOCKS5 or TLS-SNI on this port")
    if method != NO_AUTHENTICATION:
        wanted = "takes none of our methods" if method == 0xFF else f"wants method {method}"
        text = f"the gateway {wanted}; only 0 (no authentication) is known here"
        raise TunnelError("socks", text, "ask for SOCKS5 without a password: the certificate says who we are")


async def connect(reader: StreamReader, writer: StreamWriter, host: str, port: int) -> None:
    """Have the gateway connect to ``host``; what is read and written from then on is the far end's.

    Raises :class:`TunnelError`, EOFError and OSError.
    """
    writer.write(bytes((VERSION, CONNECT, 0)) + _address(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = await reader.readexactly(4)
    if version != VERSION or (not reply and kind not in (IPV4, NAME, IPV6)):
        raise TunnelError(
            "socks", "the gateway's answer is no SOCKS5", "ask for the port of SOCKS5, or use tunnel: sni"
        )
    where = f"{host}:{port}"
    if reply:
        unknown: tuple[Step, str, str] = (
            "socks",
            f"the gateway refuses with the unknown code {reply}",
            "ask what its log says of {}",
        )
        step, text, advice = _REFUSALS.get(reply, unknown)
        raise TunnelError(step, f"{where}: {text} (SOCKS {reply})", advice.format(where))
    length = (await reader.readexactly(1))[0] if kind == NAME else {IPV4: 4, IPV6: 16}[kind]
    await reader.readexactly(length + 2)  # where the gateway's own connection begins: nobody here needs it


def _address(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        try:
            name = host.encode("idna")
        except UnicodeError:
            name = b""
        if not 0 < len(name) < 256:
            raise TunnelError("destination", f"{host!r} is no name of a host", "ask for the right name") from None
        return bytes((NAME, len(name))) + name
    return bytes((IPV4 if address.version == 4 else IPV6,)) + address.packed
