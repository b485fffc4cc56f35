"""The TLS side of the simulated gateway: certificates on both sides, one curve, and the name in the hello."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bridge.errors import BridgeError
from bridge.simulator.channel import Streams

logger = logging.getLogger(__name__)

HANDSHAKE_S = 10.0


@dataclass(frozen=True, slots=True)
class Papers:
    """Files in PEM: certificate and key of the gateway, and ``cls``, the only certificate it accepts."""

    certificate: Path
    key: Path
    cls: Path


class Session(ssl.SSLObject):
    """Sends the alert of a handshake that fails; asyncio drops it with the connection."""

    def do_handshake(self) -> None:
        """Called by asyncio."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            cast(Context, self.context).complain()
            raise


class Context(ssl.SSLContext):
    """For one connection; a server's needs its ``wire``."""

    wire: socket.socket | None = None
    sslobject_class = Session

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Called by asyncio."""
        self._outgoing = outgoing
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def complain(self) -> None:
        """Send what OpenSSL has to say at last."""
        if self.wire:
            with suppress(OSError):
                self.wire.send(self._outgoing.read())


def context(side: int, papers: Papers, curve: str | None) -> Context:
    """TLS 1.2 with this curve alone, or what OpenSSL offers. Raises :class:`BridgeError` for papers it cannot use."""
    made = Context(side)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if curve:
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        made.set_ecdh_curve(curve)
    try:
        made.load_cert_chain(papers.certificate, papers.key)
        made.load_verify_locations(papers.cls)
    except OSError as error:
        raise BridgeError(f"{papers.certificate}, {papers.key} or {papers.cls}: {error}") from error
    return made


async def greeted(secure: Context, wire: socket.socket, profile: Collection[tuple[str, int]]) -> tuple[Streams, str]:
    """Take in a client that has connected; with it the host it named by SNI, empty when it named none.

    Hosts that are not in the profile are refused by an alert (RFC 6066, 3). Raises OSError.
    """
    names: list[str] = []

    def note(_session: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        if name is not None and name not in {host for host, _ in profile}:
            logger.info("gateway: %s is not in the proxy profile (TLS-SNI)", name)
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        names.extend(filter(None, [name]))
        return None

    secure.sni_callback, secure.wire = note, wire
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(
        lambda: protocol, wire, ssl=secure, ssl_handshake_timeout=HANDSHAKE_S
    )
    return (reader, asyncio.StreamWriter(transport, protocol, reader, loop)), "".join(names[:1])
