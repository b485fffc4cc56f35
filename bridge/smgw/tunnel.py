"""The way out: through the gateway to a destination behind it (HKS3 of BSI TR-03109-1).

TCP, TLS with certificates on both sides, then SOCKS5 or the destination's name as TLS-SNI. What comes out is a pair of
asyncio streams; ``await writer.start_tls(…)`` on them makes TLS inside TLS.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from hashlib import sha256
from ipaddress import ip_address
from random import uniform

from bridge.core.gateway import SmgwConfig
from bridge.errors import BridgeError
from bridge.smgw import diagnosis, socks
from bridge.smgw.diagnosis import Step, TunnelError

logger = logging.getLogger(__name__)

ANSWER_S = 10.0
"""For TCP, for the TLS handshake, and for the greeting of SOCKS."""
DESTINATION_S = 30.0
"""For the answer to CONNECT: the gateway builds up its own connection to the far end first."""
HANDSHAKES = 2
"""At once, at most: after a cut all connections come back together, and a gateway is a small machine."""

_ASK_NAME = "ask for the name of the destination in the proxy profile, or for SOCKS5"
_KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Credentials = Callable[[], tuple[ssl.SSLContext, str]]
"""The client's side of TLS (it checks no name), and the SHA-256 fingerprint of the only certificate that is accepted.

Asked for each connection, so that a certificate that was replaced counts from the next one on.
"""
Passed = Callable[[Step, str], None]
"""Told of each step that succeeded."""


class Tunnel:
    """Opens connections through the gateway. All belong to one event loop; each is a TLS session of its own.

    ``states`` says of each destination (``host:port``) ``open`` or what is wrong with it; ``opened`` counts.
    ``credentials`` are not asked where a sidecar speaks TLS in our place.
    """

    def __init__(self, config: SmgwConfig, credentials: Credentials) -> None:
        self.config = config
        self.states: dict[str, str] = {}
        self.opened = 0
        self._credentials = credentials
        self._handshakes = asyncio.Semaphore(HANDSHAKES)

    def follow(self, config: SmgwConfig, credentials: Credentials) -> None:
        """Let another configuration count from the next connection on."""
        self.config = config
        self.states.clear()
        self._credentials = credentials

    def session_s(self) -> float:
        """How long the next session may last: shorter than allowed, and each one a little differently."""
        return self.config.session_max_h * 3600.0 * uniform(0.95, 1.0)

    async def open(self, host: str, port: int) -> Streams:
        """Connect to ``host:port`` behind the gateway. Raises :class:`TunnelError`, which tells how far it went."""
        try:
            streams = await self.walk(host, port, lambda _step, _text: None)
        except TunnelError as error:
            self._state(f"{host}:{port}", str(error), logging.WARNING, f" ({error.advice})")
            raise
        self._state(f"{host}:{port}", "open", logging.INFO)
        self.opened += 1
        return streams

    def _state(self, destination: str, state: str, importance: int, hint: str = "") -> None:
        if self.states.get(destination) != state:
            self.states[destination] = state
            logger.log(importance, "tunnel to %s: %s%s", destination, state, hint)

    async def walk(self, host: str, port: int, passed: Passed) -> Streams:
        """The same, step by step and without a trace in log and :attr:`states`."""
        reader, writer = await self.reach(host, passed)
        try:
            if self.config.tunnel == "socks5":
                await _negotiate(reader, writer, host, port, passed)
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    async def reach(self, host: str, passed: Passed) -> Streams:
        """The part of the way that ends at the gateway; ``host`` is behind it. Raises :class:`TunnelError`."""
        if self.config.tunnel == "none":
            raise TunnelError("tcp", "no tunnel is set up (smgw.tunnel)", "ask for SOCKS5 or TLS-SNI")
        if self.config.tunnel == "sni" and _is_address(host):
            raise TunnelError("destination", f"{host} is an address, and TLS-SNI takes names only", _ASK_NAME)
        async with self._handshakes:
            reader, writer = await self._dial(passed)
            try:
                if not self.config.sidecar:
                    await self._secure(writer, host if self.config.tunnel == "sni" else None, passed)
            except BaseException:
                writer.transport.abort()
                raise
        return reader, writer

    async def _dial(self, passed: Passed) -> Streams:
        host, port = split(self.config.sidecar) if self.config.sidecar else self.config.gateway
        where = f"{host}:{port}"
        try:
            async with asyncio.timeout(ANSWER_S):
                streams = await _connected(host, port)
        except OSError as error:
            raise (diagnosis.of_sidecar if self.config.sidecar else diagnosis.of_tcp)(error, where) from error
        # A connection may be idle for hours. When the gateway is gone without a word, we want to know within a minute.
        wire = streams[1].get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            wire.setsockopt(socket.IPPROTO_TCP, option, value)
        passed("tcp", f"{where} answers" + (" (sidecar)" if self.config.sidecar else ""))
        return streams

    async def _secure(self, writer: asyncio.StreamWriter, name: str | None, passed: Passed) -> None:
        """Begin TLS. ``name`` goes as SNI; it is not compared with the certificate, which is known by heart."""
        try:
            context, pinned = self._credentials()
        except TunnelError:
            raise
        except BridgeError as error:
            raise TunnelError("certificate", str(error), "nothing yet: the mistake is on this side") from error
        try:
            await writer.start_tls(context, server_hostname=name or None, ssl_handshake_timeout=ANSWER_S)
        except OSError as error:
            raise diagnosis.of_tls(error, name) from error
        except ValueError as error:
            raise TunnelError("destination", f"{name!r} is no name for TLS-SNI", _ASK_NAME) from error
        session: ssl.SSLObject = writer.get_extra_info("ssl_object")
        passed("tls", f"{session.version()}, {(session.cipher() or ('no suite',))[0]}")
        shown = fingerprint(session.getpeercert(binary_form=True) or b"")
        if shown != pinned:
            raise diagnosis.not_pinned(f"it shows SHA-256 {shown}")
        passed("certificate", f"the gateway shows the one it should, SHA-256 {shown}")


async def _negotiate(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, passed: Passed
) -> None:
    """SOCKS5, both halves. The first read is also where TLS 1.3 tells that our certificate was refused."""
    session: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    try:
        async with asyncio.timeout(ANSWER_S):
            await socks.greet(reader, writer)
    except TimeoutError as error:
        raise TunnelError("socks", "no answer to the greeting", "ask for SOCKS5 on this port") from error
    except ssl.SSLError as error:
        raise diagnosis.of_tls(error) from error
    except (EOFError, OSError) as error:
        raise diagnosis.closed_early(session.version() if session else None) from error
    passed("socks", "SOCKS5 without authentication")
    where = f"{host}:{port}"
    try:
        async with asyncio.timeout(DESTINATION_S):
            await socks.connect(reader, writer, host, port)
    except TimeoutError as error:
        text = f"{where}: no answer within {DESTINATION_S:g} s"
        raise TunnelError("destination", text, f"ask whether {where} can be reached from the gateway") from error
    except (EOFError, OSError) as error:
        text = f"{where}: the gateway hangs up instead of connecting"
        raise TunnelError("destination", text, f"ask for {where} to be entered in the proxy profile") from error
    passed("destination", f"connected to {where}")


class _Protocol(asyncio.StreamReaderProtocol):
    """Ends with the other side, before TLS as in it.

    A gateway may hang up in the moment between the handshake and the switch of asyncio's streams to TLS. Theirs would
    ask for a half-closed connection then, and asyncio complain of that on standard error.
    """

    def eof_received(self) -> bool:
        super().eof_received()
        return False


async def _connected(host: str, port: int) -> Streams:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, protocol = await loop.create_connection(lambda: _Protocol(reader), host, port)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate (DER), in pairs of hexadecimal digits."""
    return sha256(certificate).digest().hex(":").upper()


def split(address: str) -> tuple[str, int]:
    """Host, without brackets, and port of ``host:port``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
