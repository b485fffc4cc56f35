"""A whole bridge, its configuration in a real file, that is administered over HTTP while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from bridge import app
from bridge.smgw.issue import Wish
from bridge.smgw.store import Store
from tests.http.conftest import BASIC, PASSWORD
from tests.mqtt.brokers import free_port

FILE = """\
# The house of the tests
site: Musterweg 1   # as in the contract
http: {{listen: "127.0.0.1:{port}"}}
mqtt: {{url: "mqtt://127.0.0.1:9"}}

# what the grid operator may lower
grid:
  connection_power_w: 55000 * AVAIL / 100
variables:
  AVAIL: {{initial: 100, min: 0, max: 100}}   # percent
"""

CONFIG = "/api/v1/config"
Answer = tuple[int, dict[str, str], bytes]


class Administered:
    """The bridge, and requests of its administrator at the LAN door."""

    def __init__(self, folder: Path, more: str = "", port: int | None = None) -> None:
        self.port = port or free_port()
        self.file = folder / "bridge.yaml"
        self.file.write_text(FILE.format(port=self.port) + more)
        self.store = app.store_in(folder)
        self.app = app.App(app.prepare(self.file, str(folder)), folder)
        self.app.passwords.set(PASSWORD)

    def ask(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Answer:
        """Status, headers and body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        sent = {"Authorization": BASIC} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def json(self, method: str, path: str, document: object = None, **headers: str) -> tuple[int, object]:
        """Status and document of a request with a JSON body."""
        body = None if document is None else json.dumps(document)
        status, _, content = self.ask(method, path, body, Content_Type="application/json", **headers)
        return status, json.loads(content)

    def patch(self, **changes: object) -> tuple[int, object]:
        """Change values; ``__`` in a name stands for a dot."""
        named = [{"path": name.replace("__", "."), "value": value} for name, value in changes.items()]
        return self.json("PATCH", CONFIG, named)


@contextmanager
def administered(folder: Path, more: str = "") -> Iterator[Administered]:
    """Run one."""
    house = Administered(folder, more)
    house.app.start()
    try:
        yield house
    finally:
        house.app.stop()


def pair(store: Store, curve: str = "prime256v1") -> None:
    """Certificates for the SMGW door: ours and the gateway's."""
    for name in ("cls", "smgw"):
        store.create(name, Wish(name, curve=curve))
