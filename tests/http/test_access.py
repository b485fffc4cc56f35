"""Who may do what: the rules alone, with a clock that is turned by hand."""

from __future__ import annotations

from base64 import b64encode

import pytest

from bridge.http.access import LAN, Access, Door, Refusal

SMGW = Door("smgw", "smgw", password=False, role="admin")
SUPPLIER = Door("smgw", "smgw", password=False, role="supplier")
CLOSED = Door("smgw", "smgw", password=False, role="none")


class Passwords:
    """Counts how often the slow check is made."""

    def __init__(self, password: str | None = "right-one") -> None:
        self.password = password
        self.known: set[str] = set()
        self.checks = 0

    @property
    def is_set(self) -> bool:
        return self.password is not None

    def remembers(self, credential: str) -> bool:
        return credential in self.known

    def verify(self, password: str, credential: str) -> bool:
        self.checks += 1
        if password == self.password and credential:
            self.known.add(credential)
        return password == self.password


class Gate:
    """Access with its clock; ``ask`` gives the status a request would meet, 200 when it may go on."""

    def __init__(self, password: str | None = "right-one") -> None:
        self.passwords = Passwords(password)
        self.time = 100.0
        self.access = Access(self.passwords, lambda: self.time)

    def ask(
        self,
        path: str = "/",
        door: Door = LAN,
        method: str = "GET",
        peer: str = "192.0.2.1",
        certificate: str = "",
        **headers: str,
    ) -> int:
        environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "REMOTE_ADDR": peer, "bridge.door": door}
        environ["bridge.peer"] = certificate
        environ |= {"HTTP_HOST": "bridge.local:8080"} | {f"HTTP_{name.upper()}": text for name, text in headers.items()}
        try:
            self.access.check(environ)
        except Refusal as refusal:
            return refusal.status
        return 200


def basic(password: str, user: str = "admin") -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 401),
        (basic("right-one"), 200),
        (basic("right-one").replace("Basic", "basic"), 200),
        (basic("wrong-one"), 401),
        (basic("right-one", "root"), 401),
        ("Basic !!!", 401),
        ("Basic " + b64encode(b"no colon").decode(), 401),
        ("Basic " + b64encode(b"\xff:\xff").decode(), 401),
        ("Bearer right-one", 401),
    ],
)
def test_the_lan_door_asks_for_the_password(header: str, status: int) -> None:
    assert Gate().ask(authorization=header) == status


def test_another_user_with_the_right_password_is_refused_every_time() -> None:
    gate = Gate()
    assert [gate.ask(authorization=basic("right-one", "root")) for _ in range(3)] == [401] * 3
    assert gate.ask(authorization=basic("right-one")) == 200


@pytest.mark.parametrize(
    ("door", "path", "status"),
    [
        (SMGW, "/", 200),
        (SMGW, "/cnf", 200),
        (SUPPLIER, "/cnf", 200),
        (SUPPLIER, "/api/v1/receipts/1", 200),
        (SUPPLIER, "/", 403),
        (SUPPLIER, "/api/v1/password", 403),
        (SUPPLIER, "/healthz", 200),
        (CLOSED, "/cnf", 403),
        (CLOSED, "/healthz", 403),
    ],
)
def test_the_door_says_what_the_far_end_may_do(door: Door, path: str, status: int) -> None:
    assert Gate().ask(path, door) == status


@pytest.mark.parametrize(
    ("door", "command", "may"),
    [
        (SMGW, "set_ajax_meter", True),
        (SUPPLIER, "set_cm_vars", True),
        (SUPPLIER, "get_cm_vars", True),
        (SUPPLIER, "set_ajax_meter", False),
        (SUPPLIER, "a_command_of_tomorrow", False),
        (CLOSED, "get_cm_vars", False),
    ],
)
def test_a_supplier_has_two_commands(door: Door, command: str, may: bool) -> None:
    assert door.runs(command) is may


def test_a_right_password_is_checked_slowly_only_once() -> None:
    gate = Gate()
    assert [gate.ask(authorization=basic("right-one")) for _ in range(5)] == [200] * 5
    assert gate.passwords.checks == 1


def test_wrong_passwords_are_throttled_by_peer_and_the_right_one_that_is_known_is_not() -> None:
    gate = Gate()
    assert gate.ask(authorization=basic("right-one")) == 200
    answers = [gate.ask(authorization=basic(f"guess-{n}")) for n in range(12)]
    assert answers == [401] * 10 + [429] * 2
    assert gate.passwords.checks == 11
    assert gate.ask(authorization=basic("right-one")) == 200
    assert gate.ask(authorization=basic("guess"), peer="192.0.2.2") == 401
    gate.time += 6.1
    assert [gate.ask(authorization=basic("guess")) for _ in range(2)] == [401, 429]


def test_asking_without_a_password_is_no_wrong_password() -> None:
    gate = Gate()
    assert [gate.ask() for _ in range(30)] == [401] * 30
    assert gate.ask(authorization=basic("right-one")) == 200


def test_twenty_sets_a_second_are_always_served_and_a_flood_is_not() -> None:
    gate = Gate()
    for _ in range(2000):
        gate.time += 1 / 20
        assert gate.ask("/cnf", SMGW) == 200
    assert [gate.ask("/cnf", SMGW) for _ in range(100)] == [200] * 100
    flood = [gate.ask("/cnf", SMGW) for _ in range(1000)]
    assert 429 in flood
    assert gate.ask("/cnf", SMGW, peer="192.0.2.2") == 200
    gate.time += 1.0
    assert gate.ask("/cnf", SMGW) == 200


def test_a_far_end_that_floods_holds_up_no_other_behind_the_same_gateway() -> None:
    gate = Gate()
    assert 429 in [gate.ask("/cnf", SUPPLIER, certificate="aa") for _ in range(500)]
    assert gate.ask("/cnf", SMGW, certificate="bb") == 200


@pytest.mark.parametrize("peers", [10_000])
def test_many_peers_do_not_fill_the_memory(peers: int) -> None:
    gate = Gate()
    for n in range(peers):
        gate.ask("/cnf", SMGW, peer=f"2001:db8::{n:x}")
    assert len(gate.access._requests._levels) <= 4096


@pytest.mark.parametrize(
    ("peer", "host", "path", "status"),
    [
        ("127.0.0.1", "localhost:8080", "/api/v1/password", 200),
        ("::1", "[::1]:8080", "/api/v1/password", 200),
        ("::ffff:127.0.0.1", "127.0.0.1", "/api/v1/password", 200),
        ("127.0.0.1", "localhost:8080", "/", 403),
        ("127.0.0.1", "evil.example", "/api/v1/password", 403),
        ("192.0.2.1", "localhost:8080", "/api/v1/password", 403),
    ],
)
def test_without_a_password_only_this_machine_may_set_one(peer: str, host: str, path: str, status: int) -> None:
    assert Gate(password=None).ask(path, method="POST", peer=peer, host=host) == status


@pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded", "via", "x_real_ip"])
def test_who_comes_through_a_proxy_on_this_machine_is_somebody_else(header: str) -> None:
    told = {"host": "localhost:8080", header: "192.0.2.1"}
    assert Gate(password=None).ask("/api/v1/password", method="POST", peer="127.0.0.1", **told) == 403


BROWSER = {"user_agent": "Mozilla/5.0", "accept_language": "de"}

CROSS_SITE = [
    ("GET", "/cnf", {}, 200),
    ("POST", "/cnf", {}, 200),
    ("GET", "/cnf", {"user_agent": "curl/8"}, 200),
    ("GET", "/cnf", {"sec_fetch_site": "same-origin"}, 200),
    ("GET", "/cnf", {"sec_fetch_site": "none", **BROWSER}, 200),
    ("GET", "/cnf", {"sec_fetch_site": "cross-site"}, 403),
    ("GET", "/cnf", {"sec_fetch_site": "same-site"}, 403),
    ("POST", "/api/v1/password", {"sec_fetch_site": "cross-site"}, 403),
    ("GET", "/", {"sec_fetch_site": "cross-site", **BROWSER}, 200),
    ("POST", "/cnf", {"origin": "http://bridge.local:8080", **BROWSER}, 200),
    ("POST", "/cnf", {"origin": "http://bridge.local:8123", **BROWSER}, 403),
    ("POST", "/cnf", {"origin": "http://bridge.local"}, 403),
    ("POST", "/cnf", {"origin": "http://bridge.local:99999"}, 403),
    ("POST", "/cnf", {"origin": "http://bridge.local", "host": "bridge.local:80"}, 200),
    ("POST", "/cnf", {"origin": "https://bridge.local", "host": "bridge.local:443"}, 200),
    ("POST", "/cnf", {"origin": "https://portal.example:9443", "host": "portal.example"}, 200),
    ("POST", "/cnf", {"origin": "https://portal.example", "x_forwarded_host": "portal.example, inner"}, 200),
    ("POST", "/cnf", {"origin": "http://evil.example"}, 403),
    ("POST", "/cnf", {"origin": "null"}, 403),
    ("POST", "/cnf", {"origin": "http://["}, 403),
    ("GET", "/cnf", {"referer": "http://bridge.local:8080/", **BROWSER}, 200),
    ("GET", "/cnf", {"referer": "http://evil.example/", **BROWSER}, 403),
    ("GET", "/cnf", BROWSER, 403),
    ("GET", "/cnf", {"user_agent": "Mozilla/5.0"}, 200),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), CROSS_SITE)
def test_pages_of_other_sites_change_nothing(method: str, path: str, headers: dict[str, str], status: int) -> None:
    headers = {"authorization": basic("right-one"), **headers}
    assert Gate().ask(path, LAN, method, "192.0.2.1", **headers) == status
