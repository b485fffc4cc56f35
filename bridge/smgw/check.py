"""Walks the channel through the gateway step by step and tells what works and what does not."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Callable

from bridge.core.gateway import SmgwConfig
from bridge.core.records.certificates import expiry_warning
from bridge.errors import BridgeError
from bridge.smgw import diagnosis
from bridge.smgw.admission import names
from bridge.smgw.certificate import Certificate, iso
from bridge.smgw.contexts import client_context, misfit
from bridge.smgw.diagnosis import Step, TunnelError
from bridge.smgw.edge import credentials
from bridge.smgw.pump import close
from bridge.smgw.store import Store
from bridge.smgw.tunnel import Tunnel, split

FIRST_WORDS_S = 1.0
"""A far end that wants nothing of us hangs up at once; one that waits for us is fine."""


class Check:
    """Tells each step in a line of its own, ``ok`` or ``FAILED``; :attr:`fine` says whether all were ok."""

    def __init__(self, config: SmgwConfig, store: Store, tell: Callable[[str], None]) -> None:
        self.fine = True
        self._config = config
        self._store = store
        self._tell = tell

    def run(self, destination: str | None, broker: str | None = None) -> None:
        """Check everything that is set up.

        ``broker`` (``host:port``) is one behind the gateway. ``destination`` takes the place of what is set up.
        """
        config = self._config
        if config.listen is None and config.tunnel == "none":
            self._failed("configuration: neither listen nor tunnel is set up", "ask for HKS3, HKS4 or HKS5")
        if destination and config.tunnel == "none":
            self._failed("configuration: without a tunnel there is no way out", "ask for HKS3 with SOCKS5 or TLS-SNI")
        mistaken = not self._certificates()
        if config.listen:
            self._door(config.listen)
        if config.tunnel != "none" and not mistaken:
            known = dict.fromkeys(filter(None, [destination] if destination else [config.destination, broker]))
            for where in known or [None]:
                asyncio.run(self._channel(where))

    def _ok(self, text: str) -> None:
        self._tell(f"ok      {text}")

    def _failed(self, text: str, advice: str) -> None:
        self.fine = False
        self._tell(f"FAILED  {text}: {advice}")

    # ------------------------------------------------------------------------------------------- certificates

    def _certificates(self) -> bool:
        """Whether all that are named can be used."""
        usable = [self._certificate(name) for name in filter(None, names(self._config))]
        return all(usable)

    def _certificate(self, name: str) -> bool:
        ours = name == self._config.certificate
        place = f"certificate: {name}, {'ours' if ours else 'theirs'}"
        try:
            certificate = self._store.load(name)
        except BridgeError as error:
            self._failed(f"certificate: {error}", "give them one of ours" if ours else "ask for theirs")
            return False
        if problem := self._problem(certificate, ours):
            self._failed(f"{place}: {problem[0]}", problem[1])
            return False
        soon = expiry_warning(certificate.not_after, time.time())
        end = soon or f"valid until {iso(certificate.not_after)}"
        self._ok(f"{place}: {certificate.key_type}, {end}, SHA-256 {certificate.fingerprint}")
        return True

    def _problem(self, certificate: Certificate, ours: bool) -> tuple[str, str] | None:
        """Text and advice; None when there is none."""
        if ours and not certificate.has_key:
            return "it has no private key, so it cannot be ours", "give them one of ours"
        now, begins, ends = time.time(), certificate.not_before, certificate.not_after
        if not begins <= now <= ends:
            problem = "it has expired" if now > ends else "it is not valid yet"
            text = f"{problem}: valid from {iso(begins)} to {iso(ends)}, the clock here says {iso(now)}"
            return text, "give them a new one of ours" if ours else "ask for their new one"
        if unfit := misfit(self._config.crypto, certificate):
            return unfit, "ask for the curve of the HAN interface: smgw.crypto and both certificates must be on it"
        return None

    # --------------------------------------------------------------------------------------------------- door

    def _door(self, listen: str) -> None:
        host, port = split(listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.create_server((host, port), family=family).close()
        except OSError as error:
            self._not_free(error, listen)
        else:
            self._ok(f"door {listen}: free; nobody is served while the bridge does not run")

    def _not_free(self, error: OSError, listen: str) -> None:
        if error.errno == errno.EADDRNOTAVAIL:
            advice = "give this machine the address, or tell them the one it has in the HAN"
            self._failed(f"door {listen}: no address of this machine", advice)
        elif error.errno != errno.EADDRINUSE:
            self._failed(f"door {listen}: {error.strerror}", "tell them another port")
        elif not self._config.tls:
            self._ok(f"door {listen}: somebody listens; without TLS one cannot tell who")
        elif other := self._who(listen):
            self._failed(f"door {listen}: taken, and not by this bridge: {other}", "tell them another port")
        else:
            self._ok(f"door {listen}: the bridge listens and shows its certificate")

    def _who(self, listen: str) -> str | None:
        """What is wrong with whoever listens at our door; None: it shows our certificate.

        It takes the gateway only, so no handshake with it succeeds. But the server's certificate is looked at before
        the client's: so we find out whether it is the one or the other.
        """
        try:
            own, gateway = (self._store.load(name) for name in names(self._config)[:2])
            if not _distrusted(listen, client_context(self._config.crypto, own, gateway)):
                return "it shows no certificate"
            if _distrusted(listen, client_context(self._config.crypto, own, own)):
                return "it shows another certificate"
        except BridgeError as error:
            return str(error)
        return None

    # ------------------------------------------------------------------------------------------------ channel

    async def _channel(self, destination: str | None) -> None:
        def passed(step: Step, text: str) -> None:
            self._ok(f"{step}: {text}")

        tunnel = Tunnel(self._config, credentials(self._store, self._config))
        try:
            if destination is None:
                _, writer = await tunnel.reach("", passed)
                await close(writer)
                self._ok("destination: none is set up, so none was tried (--to HOST:PORT)")
            else:
                reader, writer = await tunnel.walk(*split(destination), passed)
                try:
                    await self._first_words(reader, destination)
                finally:
                    await close(writer)
        except TunnelError as error:
            told = await self._another_look(error, destination)
            self._failed(str(told), told.advice)

    async def _first_words(self, reader: asyncio.StreamReader, destination: str) -> None:
        try:
            async with asyncio.timeout(FIRST_WORDS_S):
                words = await reader.read(512)
        except TimeoutError:
            self._ok(f"destination: {destination} is connected and waits for us to speak")
        except ssl.SSLError as error:
            raise diagnosis.of_tls(error) from error
        except OSError as error:
            raise diagnosis.cut_off(destination, self._config.tunnel == "socks5") from error
        else:
            if not words:
                raise diagnosis.cut_off(destination, self._config.tunnel == "socks5")
            self._ok(f"destination: {destination} is connected and speaks first")

    async def _another_look(self, error: TunnelError, destination: str | None) -> TunnelError:
        """With the certificate the gateway does show: a handshake that fails keeps it to itself."""
        if error.step != "certificate" or "shows another" not in error.text:
            return error

        def lenient() -> tuple[ssl.SSLContext, str]:
            context, pinned = credentials(self._store, self._config)()
            context.verify_mode = ssl.CERT_NONE
            return context, pinned

        host, _ = split(destination or ":0")
        try:
            _, writer = await Tunnel(self._config, lenient).reach(host, lambda _step, _text: None)
            await close(writer)
        except TunnelError as seen:
            return seen
        return error


def _distrusted(listen: str, context: ssl.SSLContext) -> bool:
    """Whether a certificate is shown there, and another one than ``context`` trusts."""
    try:
        with socket.create_connection(split(listen), 5) as wire, context.wrap_socket(wire):
            return False
    except ssl.SSLCertVerificationError:
        return True
    except OSError:
        return False
