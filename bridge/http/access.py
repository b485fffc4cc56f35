"""Who may do what. The door a request came through decides, never the source address it claims.

Pure but for the two buckets, whose clock is handed in. All texts a caller sees say what to do next.
"""

from __future__ import annotations

import binascii
import threading
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

from bridge.core.gateway import FarEndRole
from bridge.errors import BridgeError

PASSWORD_PATH = "/api/v1/password"
HEALTH_PATH = "/healthz"

_SUPPLIER_COMMANDS = frozenset({"set_cm_vars", "get_cm_vars"})
_SUPPLIER_READS = ("/api/v1/receipts", "/api/v1/journal", "/api/v1/variables", "/api/v1/explain")

_CHALLENGE = ("WWW-Authenticate", 'Basic realm="SMGW Bridge", charset="UTF-8"')

_PORTS = {"http": 80, "https": 443}
_OF_PROXIES = frozenset({"HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "HTTP_VIA"})
"""Headers by which proxies tell that somebody else asks (RFC 7239; RFC 9110, 7.6.3; and what was usual before)."""

Environ = Mapping[str, Any]
"""A WSGI environ; the door adds ``bridge.door`` (:class:`Door`) and ``bridge.peer`` (SHA-256 of the peer's
certificate in hex, empty where none was shown)."""


class Refusal(BridgeError):
    """A request is answered with an error: ``status`` (HTTP), the reason, and a header that helps the caller."""

    def __init__(self, status: int, reason: str, *hints: tuple[str, str]) -> None:
        super().__init__(reason)
        self.status = status
        self.hints = hints


@dataclass(frozen=True, slots=True)
class Door:
    """A way in, and what it lets through.

    ``source`` is who sets variables here: ``admin`` or ``smgw``. ``password``: whether user ``admin`` must give it.
    ``role`` is what the far end may do: ``admin`` everything, ``supplier`` set and read variables and see what came of
    it, ``none`` nothing.
    """

    name: str
    source: str
    password: bool = True
    role: FarEndRole = "admin"

    def lets_through(self, method: str, path: str) -> bool:
        """Whether the role behind this door may use ``path`` at all."""
        if self.role == "supplier":
            reads = any(path == one or path.startswith(f"{one}/") for one in _SUPPLIER_READS)
            return path == "/cnf" or (reads and method in ("GET", "HEAD"))
        return self.role == "admin"

    def runs(self, command: str) -> bool:
        """Whether the role behind this door may use this command of ``/cnf``."""
        return self.role == "admin" or (self.role == "supplier" and command in _SUPPLIER_COMMANDS)


LAN = Door(name="lan", source="admin")
"""The door for the people in the house: Basic authentication, user ``admin``."""


class Passwords(Protocol):
    """What the rules need to know of the admin password."""

    @property
    def is_set(self) -> bool:
        """Whether there is a password."""

    def remembers(self, credential: str) -> bool:
        """Whether this very ``Authorization`` header was found right before; takes microseconds."""

    def verify(self, password: str, credential: str) -> bool:
        """Whether the password is right; slow on purpose. A right ``credential`` is remembered, an empty one never."""


class Buckets:
    """A token bucket per peer: ``burst`` at once, then ``per_s`` a second. Knows the 4096 peers seen last."""

    PEERS = 4096

    def __init__(self, burst: float, per_s: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._per_s = per_s
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, peer: str) -> bool:
        """Take one token; False when there is none."""
        return self._change(peer, -1.0)

    def give_back(self, peer: str) -> None:
        """Return a token that was taken for nothing."""
        self._change(peer, 1.0)

    def _change(self, peer: str, tokens: float) -> bool:
        now = self._clock()
        with self._lock:
            level, since = self._levels.pop(peer, (self._burst, now))
            level = min(self._burst, level + (now - since) * self._per_s)
            enough = level + tokens >= 0.0
            self._levels[peer] = (min(self._burst, level + tokens) if enough else level, now)
            if len(self._levels) > self.PEERS:
                del self._levels[next(iter(self._levels))]
        return enough


class Access:
    """The rules, applied to one request after the other. ``clock`` counts seconds.

    A client may send 200 requests at once and 200 a second for ever: honest use stays far below, a flood far above.
    Ten wrong passwords, then one every six seconds; a credential that was right before is never held up by them.
    """

    def __init__(self, passwords: Passwords, clock: Callable[[], float]) -> None:
        self._passwords = passwords
        self._requests = Buckets(burst=200.0, per_s=200.0, clock=clock)
        self._failures = Buckets(burst=10.0, per_s=10.0 / 60.0, clock=clock)
        self._hashing = threading.BoundedSemaphore(2)

    def check(self, environ: Environ) -> None:
        """Return when the request may go on; raise :class:`Refusal` when not."""
        if environ["PATH_INFO"] == HEALTH_PATH and environ["bridge.door"].role != "none":
            return
        if refusal := self._refusal(environ):
            raise refusal
        if environ["bridge.door"].password:
            self._check_password(environ)

    def lets_in_at_once(self, environ: Environ) -> bool:
        """Whether the request may go on and no password has to be checked, which takes long; else :meth:`check` it."""
        if environ["bridge.door"].password and not self._passwords.remembers(environ.get("HTTP_AUTHORIZATION", "")):
            return False
        return self._refusal(environ) is None

    def _refusal(self, environ: Environ) -> Refusal | None:
        """What speaks against the request, whoever makes it."""
        path: str = environ["PATH_INFO"]
        door: Door = environ["bridge.door"]
        # Behind an adapter on loopback, the gateway and programs of this machine have one address; behind the gateway
        # all far ends have, and one must not use up what the others may ask.
        if not self._requests.take(f"{door.name} {environ['bridge.peer'] or environ['REMOTE_ADDR']}"):
            return Refusal(429, "too many requests; 200 a second are served", ("Retry-After", "1"))
        if not door.lets_through(environ["REQUEST_METHOD"], path):
            return Refusal(403, f"the {door.name} door, role {door.role}, does not lead to {path}")
        if changes_something(environ) and from_another_site(environ):
            return Refusal(403, "refused: this request was made by a page of another site")
        return None

    def _check_password(self, environ: Environ) -> None:
        header: str = environ.get("HTTP_AUTHORIZATION", "")
        if header and self._passwords.remembers(header):
            return
        if not self._passwords.is_set:
            if environ["PATH_INFO"] == PASSWORD_PATH and is_local(environ):
                return
            raise Refusal(
                403,
                "no admin password is set: run `smgw-bridge passwd`, or on this very machine "
                f"""curl -d '{{"password": "…"}}' http://localhost:PORT{PASSWORD_PATH}""",
            )
        peer: str = environ["REMOTE_ADDR"]
        user, password = basic_credentials(header)
        if not self._failures.take(peer):
            raise Refusal(429, "too many wrong passwords; wait a minute", ("Retry-After", "60"))
        # Each check keeps a core busy for a while: two at a time, the rest is told to come again.
        if not self._hashing.acquire(timeout=1.0):
            raise Refusal(429, "too many logins at once", ("Retry-After", "1"))
        try:
            # Checked for every user, so that the time it takes tells nothing; remembered for admin alone.
            known = user == "admin"
            right = self._passwords.verify(password, header if known else "") and known
        finally:
            self._hashing.release()
        if not right:
            raise Refusal(401, "wrong user or password; the user is admin", _CHALLENGE)
        self._failures.give_back(peer)


def basic_credentials(header: str) -> tuple[str, str]:
    """User and password of an ``Authorization: Basic`` header (RFC 7617, UTF-8); refuses anything else."""
    scheme, _, code = header.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(scheme)
        user, colon, password = b64decode(code.strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError("no colon")
    except (ValueError, binascii.Error):
        raise Refusal(401, "log in as user admin with the admin password (HTTP Basic)", _CHALLENGE) from None
    return user, password


def changes_something(environ: Environ) -> bool:
    """Whether the request may change anything; /cnf sets variables by GET, too."""
    return environ["REQUEST_METHOD"] not in ("GET", "HEAD") or environ["PATH_INFO"] == "/cnf"


def from_another_site(environ: Environ) -> bool:
    """Whether a browser sends this on behalf of a page that is not ours.

    Browsers add remembered Basic credentials to requests of any page. They tell where a request comes from by
    ``Sec-Fetch-Site`` (HTTPS and localhost only), ``Origin`` (not on GET) and ``Referer`` (unless suppressed). A
    browser that tells nothing may be a hidden image of a foreign page, so it is refused; programs are not asked.

    A page reached through the gateway is ours under whatever name the far end gives us: that of ``Host``, or the one a
    proxy there keeps in ``X-Forwarded-Host``, a header which no page can add to a request to another site. Another port
    of the same machine is another program, unless a proxy has left the port out.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site not in ("same-origin", "none")
    told = environ.get("HTTP_ORIGIN") or environ.get("HTTP_REFERER")
    if told is not None:
        ours = (environ.get("HTTP_HOST", ""), environ.get("HTTP_X_FORWARDED_HOST", "").partition(",")[0].strip())
        return not any(_is_on(told, name) for name in ours)
    return environ.get("HTTP_USER_AGENT", "").startswith("Mozilla/") and "HTTP_ACCEPT_LANGUAGE" in environ


def is_local(environ: Environ) -> bool:
    """Whether this very machine asks, by a loopback name (a foreign name may point here: DNS rebinding).

    A proxy on this machine asks for others, and says so.
    """
    if not environ.keys().isdisjoint(_OF_PROXIES):
        return False
    name = (_place_in("//" + environ.get("HTTP_HOST", "")) or ("", None))[0]
    return is_loopback(environ["REMOTE_ADDR"]) and (name == "localhost" or is_loopback(name))


def is_loopback(address: str) -> bool:
    """Whether ``address`` is a loopback address, an IPv4 address inside IPv6 included."""
    try:
        return ip_address(address.removeprefix("::ffff:")).is_loopback
    except ValueError:
        return False


def _is_on(url: str, site: str) -> bool:
    """Whether a page is on the site that a client calls ``host`` or ``host:port``."""
    page, ours = _place_in(url), _place_in("//" + site)
    if page is None or ours is None or page[0] != ours[0]:
        return False
    return ours[1] in (None, page[1] or _PORTS.get(url.partition(":")[0].lower()))


def _place_in(url: str) -> tuple[str, int | None] | None:
    """Host and port; None where there is no host."""
    try:
        parts = urlsplit(url)
        return (parts.hostname, parts.port) if parts.hostname else None
    except ValueError:
        return None
