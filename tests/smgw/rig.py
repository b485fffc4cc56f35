"""A smart meter gateway made of parts nobody here wrote: stunnel for TLS, microsocks for the proxy, openssl's keys."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.core.config import Config, GridConfig
from bridge.core.formulas import parse
from bridge.core.gateway import SmgwConfig
from bridge.smgw.edge import SmgwEdge
from bridge.smgw.reverse import Admit
from bridge.smgw.store import Store
from bridge.smgw.tunnel import Credentials, Tunnel, fingerprint
from tests.mqtt.brokers import answers, free_port, until


@dataclass(frozen=True)
class Paper:
    """A certificate with its key."""

    certificate: Path
    key: Path

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text())


def paper(folder: Path, name: str, curve: str = "brainpoolP256r1") -> Paper:
    """A new key and its certificate, made by openssl."""
    made = Paper(folder / f"{name}.crt", folder / f"{name}.key")
    _openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", made.key)
    wish = ("-subj", f"/CN={name}", "-days", 30, "-addext", "basicConstraints=critical,CA:FALSE")
    _openssl("req", "-x509", "-new", "-key", made.key, "-out", made.certificate, *wish)
    return made


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@dataclass(frozen=True)
class Papers:
    """Who is known to whom: the bridge's own, the gateway's, and those of a stranger."""

    cls: Paper
    smgw: Paper
    stranger: Paper
    curve: str

    @classmethod
    def made(cls, folder: Path, curve: str = "brainpoolP256r1") -> Papers:
        return cls(*(paper(folder, name, curve) for name in ("cls", "smgw", "stranger")), curve)


def context(
    own: Paper, peer: Paper, curve: str | None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
) -> ssl.SSLContext:
    """What the contexts of the bridge do, written once more; ``curve`` None leaves it to OpenSSL."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.maximum_version = newest
    if curve:
        made.set_ecdh_curve(curve)
    made.load_cert_chain(own.certificate, own.key)
    made.load_verify_locations(peer.certificate)
    return made


def credentials(papers: Papers, **changed: object) -> Credentials:
    """``changed``: ``own``, ``peer``, ``curve``, ``newest``."""
    given = {"own": papers.cls, "peer": papers.smgw, "curve": papers.curve, **changed}
    return lambda: (context(**given), fingerprint(given["peer"].der))  # type: ignore[arg-type,attr-defined]


def config(port: int, **changed: object) -> SmgwConfig:
    keys = {"certificate": "cls", "gateway_certificate": "smgw", "tunnel": "socks5", **changed}
    return SmgwConfig(address=f"127.0.0.1:{port}", **keys)  # type: ignore[arg-type]


def tunnel(port: int, papers: Papers, **changed: object) -> Tunnel:
    return Tunnel(config(port, **changed), credentials(papers))


@contextmanager
def running(port: int, *command: object) -> Iterator[None]:
    """A server on ``port``."""
    words, known = [*map(str, command)], {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    silent = subprocess.DEVNULL
    # s_server of openssl ends with its standard input.
    with subprocess.Popen(words, env=known, stdin=subprocess.PIPE, stdout=silent, stderr=silent) as process:
        try:
            until(lambda: answers(port))
            yield
        finally:
            process.terminate()


@contextmanager
def microsocks() -> Iterator[int]:
    port = free_port()
    with running(port, "microsocks", "-i", "127.0.0.1", "-p", port):
        yield port


@contextmanager
def stunnel(
    folder: Path, papers: Papers, connect: int, *lines: str, shows: Paper | None = None, port: int = 0
) -> Iterator[int]:
    """TLS with a certificate on both sides in front of the port ``connect``; ``lines`` are added to its service."""
    port, shown = port or free_port(), shows or papers.smgw
    file = folder / f"stunnel-{port}.conf"
    settings = (
        *("foreground = quiet", "pid =", "debug = 3", "socket = l:TCP_NODELAY=1", "[hks3]"),
        *(f"accept = 127.0.0.1:{port}", f"connect = 127.0.0.1:{connect}"),
        *(f"cert = {shown.certificate}", f"key = {shown.key}"),
        *(f"CAfile = {papers.cls.certificate}", "verifyPeer = yes", f"curves = {papers.curve}", "TIMEOUTclose = 0"),
        *lines,
    )
    file.write_text("\n".join(settings) + "\n")
    with running(port, "stunnel4", file):
        yield port


@contextmanager
def gateway(folder: Path, papers: Papers, *lines: str, shows: Paper | None = None) -> Iterator[int]:
    """The whole of it: TLS and SOCKS5 behind it; its port."""
    with microsocks() as socks, stunnel(folder, papers, socks, *lines, shows=shows) as port:
        yield port


@contextmanager
def answering(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of its own, one client after the other; its port."""

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            serve(client)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:  # else the process of a test that fails would never end
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


Served = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def far_end(serve: Served = echo, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """What lies behind the gateway; its port."""
    clients: dict[asyncio.Future[None], asyncio.StreamWriter] = {}

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients[asyncio.ensure_future(serve(reader, writer))] = writer

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for client, writer in clients.items():
            client.cancel()
            writer.transport.abort()
        await asyncio.gather(*clients, return_exceptions=True)
        await asyncio.sleep(0)


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes) -> bytes:
    """What an echo makes of a text."""
    writer.write(text)
    await writer.drain()
    async with asyncio.timeout(10):
        return await reader.readexactly(len(text))


@contextmanager
def edge(
    papers: Papers, gateway: int, admit: Admit = lambda wire, certificate: wire.close(), **changed: object
) -> Iterator[SmgwEdge]:
    """The edge, not started yet, with the certificates of ``papers``."""
    made = SmgwEdge(site(gateway, **changed), Store(papers.cls.certificate.parent), admit)
    try:
        yield made
    finally:
        made.stop()


def site(gateway: int, **changed: object) -> Config:
    return Config(GridConfig(parse("1000")), smgw=config(gateway, **changed))
