"""The table of faults in docs/smgw.md: each is brought about, and the check must say what stands there."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from bridge.core.gateway import SmgwConfig
from bridge.simulator.faults import Faults
from bridge.smgw import tunnel
from bridge.smgw.bundle import key_pem
from bridge.smgw.check import Check
from bridge.smgw.issue import Wish, self_signed
from bridge.smgw.store import Store
from tests.mqtt.brokers import free_port
from tests.smgw import rig
from tests.smgw.rig import Papers
from tests.smgw.test_gateway import of, simulated

pytestmark = pytest.mark.system("stunnel4", "openssl")

PAGE = Path(__file__).parents[2] / "docs" / "smgw.md"
TO = "backend.example:9"


def table() -> dict[str, str]:
    """What the check says to what to tell the administrator."""
    rows = re.findall(r"^\| `(.+?)` \| .+? \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    steps = ("certificate", "door", "tcp", "tls", "socks", "destination")
    return {says: tell for says, tell in rows if says.startswith(steps)}


def alert(number: int) -> bytes:
    """A record with a fatal alert (RFC 5246, 7.2)."""
    return bytes((21, 3, 3, 0, 2, 2, number))


@contextmanager
def saying(words: bytes) -> Iterator[int]:
    """A server that answers whatever it hears with the same words and hangs up."""

    def serve(wire: socket.socket) -> None:
        with suppress(OSError), wire:
            wire.recv(65536)
            wire.sendall(words)
            wire.shutdown(socket.SHUT_WR)
            while wire.recv(65536):  # a reset would overtake the words
                pass

    with rig.answering(serve) as port:
        yield port


class Fault:
    """Brings faults about; what is opened for them lives until ``house`` ends."""

    def __init__(self, folder: Path, papers: Papers, patch: pytest.MonkeyPatch, house: ExitStack) -> None:
        self.folder, self.papers, self.patch, self.house = folder, papers, patch, house
        self.store = Store(folder)
        for name in ("cls", "smgw"):
            paper = getattr(papers, name)
            self.store.put(name, paper.certificate.read_bytes(), paper.key.read_bytes())

    def simulated(self, faults: Faults | None = None, to: str = TO, **keys: object) -> list[str]:
        profile = {("backend.example", 9)}
        given = {"listen": ("127.0.0.1", 0), "profile": profile, "faults": faults or Faults()}
        return self.told(self.house.enter_context(simulated(self.papers, **given)).port, to, **keys)

    def answered(self, words: bytes) -> list[str]:
        return self.told(self.house.enter_context(saying(words)))

    def through_tls(self, words: bytes) -> list[str]:
        """What comes out of the proxy instead of SOCKS."""
        behind = self.house.enter_context(saying(words))
        return self.told(self.house.enter_context(rig.stunnel(self.folder, self.papers, behind)))

    def expired(self) -> list[str]:
        old = self_signed(Wish("old", curve=self.papers.curve), days=1, now_utc=1.6e9)
        assert old.key
        (self.folder / "old.crt").write_bytes(old.certificates_pem())
        (self.folder / "old.key").write_bytes(key_pem(old.key))
        return self.told(1, gateway_certificate="old")

    def silent(self) -> list[str]:
        """The queue of those who wait is full: the next hello of TCP is not answered."""
        self.patch.setattr(tunnel, "ANSWER_S", 0.3)
        listener = self.house.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(2):
            wire = self.house.enter_context(socket.socket())
            wire.setblocking(False)
            wire.connect_ex(listener.getsockname())
        return self.told(listener.getsockname()[1])

    def far_away(self) -> list[str]:
        return self.told(1, address="255.255.255.255:443")

    def hung_up(self) -> list[str]:
        with socket.create_server(("127.0.0.1", 0)) as far:
            port = far.getsockname()[1]
            closing = threading.Thread(target=lambda: far.accept()[0].close())
            closing.start()
            given = {"listen": ("127.0.0.1", 0), "profile": {("backend.example", port)}}
            with simulated(self.papers, **given) as gateway:
                lines = self.told(gateway.port, f"backend.example:{port}")
            closing.join()
        return lines

    def told(self, port: int, to: str | None = TO, **keys: object) -> list[str]:
        given = {"address": f"127.0.0.1:{port}", "certificate": "cls", "gateway_certificate": "smgw"}
        return self.checked(SmgwConfig(**{**given, "tunnel": "socks5", **keys}), to)  # type: ignore[arg-type]

    def checked(self, config: SmgwConfig, to: str | None = None) -> list[str]:
        lines: list[str] = []
        Check(config, self.store, lines.append).run(to)
        return lines


def _stranger(fault: Fault) -> Faults:
    return Faults(papers=of(fault.papers, fault.papers.stranger))


def _unknown(fault: Fault) -> Faults:
    known = Papers(fault.papers.stranger, fault.papers.smgw, fault.papers.cls, fault.papers.curve)
    return Faults(papers=of(known))


def _door(fault: Fault) -> list[str]:
    return fault.checked(SmgwConfig("", "cls", "smgw", listen="192.0.2.1:8443"))


BROUGHT_ABOUT: dict[str, Callable[[Fault], list[str]]] = {
    "certificate: …, theirs: it has expired: …": Fault.expired,
    "certificate: …, ours: … has the key …, but crypto … needs …": lambda f: f.told(1, crypto="bsi-nist256"),
    "door …: no address of this machine": _door,
    "tcp: … does not answer": Fault.silent,
    "tcp: … refuses connections": lambda f: f.told(free_port()),
    "tcp: there is no route to …": Fault.far_away,
    "tls: what answers there speaks no TLS …": lambda f: f.answered(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "tls: the gateway hangs up during the handshake": lambda f: f.simulated(Faults(deaf=True)),
    "tls: no curve or cipher suite in common …": lambda f: f.simulated(Faults(curve="secp384r1")),
    "tls: no version of TLS in common …": lambda f: f.answered(alert(70)),
    "tls: the gateway refuses the hello of OpenSSL …": lambda f: f.answered(alert(47)),
    "tls: the gateway wants a destination as TLS-SNI, …": lambda f: f.answered(alert(112)),
    "certificate: the gateway does not accept our certificate …": lambda f: f.simulated(_unknown(f)),
    "certificate: the gateway shows another certificate than smgw.gateway_certificate …": lambda f: f.simulated(
        _stranger(f)
    ),
    "socks: what answers is no SOCKS5 proxy": lambda f: f.through_tls(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "destination: the gateway knows no …": lambda f: f.simulated(to="other.example:9", tunnel="sni"),
    "destination: …: the gateway does not allow it (SOCKS 2)": lambda f: f.simulated(to="other.example:9"),
    "destination: …: it refuses connections (SOCKS 5)": lambda f: f.simulated(),
    "destination: …: the connection is made, and closed at once": Fault.hung_up,
}


def test_every_fault_of_the_table_is_here_and_no_other() -> None:
    assert list(table()) == list(BROUGHT_ABOUT)


@pytest.mark.parametrize("says", BROUGHT_ABOUT)
def test_the_check_says_what_stands_in_the_table(
    tmp_path: Path, papers: Papers, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    with ExitStack() as house:
        lines = BROUGHT_ABOUT[says](Fault(tmp_path, papers, monkeypatch, house))
    words = re.escape(f"FAILED  {says}: {table()[says]}").replace("…", ".+")
    assert any(re.fullmatch(words, line) for line in lines), lines
