"""The store as the pages and their API work with it: plain values in, plain values out, all certificates named."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bridge.core.records.certificates import Uses
from bridge.errors import BridgeError
from bridge.smgw.issue import CURVE, DAYS, Wish
from bridge.smgw.store import Store


class Administration:
    """What an administrator does with the certificates in ``store``; ``uses`` tells which are in use now.

    ``changed`` is called after each change. Methods raise what the store raises.
    """

    def __init__(self, store: Store, uses: Callable[[], Uses], changed: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._uses = uses
        self._changed = changed

    def listing(self) -> Sequence[dict[str, object]]:
        """See :func:`listing`."""
        return listing(self._store, self._uses(), time.time())

    def facts(self, name: str) -> dict[str, object]:
        """Everything there is to say of a certificate."""
        return self._store.load(name).facts(self._uses(), time.time())

    def pem(self, name: str) -> str:
        """The certificate and its issuers, without the key."""
        with self._store.reading(name) as certificate:
            return certificate.certificate_file.read_text(encoding="ascii")

    def create(
        self, name: str, cn: str | None, sans: Sequence[str], curve: str | None, days: int | None, replace: bool
    ) -> dict[str, object]:
        """Make a key and a certificate of its own signature, valid for ``days``."""
        self._store.create(name, _wish(name, cn, sans, curve), DAYS if days is None else days, replace)
        self._changed()
        return self.facts(name)

    def request(self, name: str, cn: str | None, sans: Sequence[str], curve: str | None, replace: bool) -> str:
        """Make a key and the request for its certificate, in PEM."""
        return self._store.request(name, _wish(name, cn, sans, curve), replace)

    def put(self, name: str, data: bytes, key: bytes | None, password: str | None, replace: bool) -> dict[str, object]:
        """Take a certificate from the bytes of a file."""
        self._store.put(name, data, key, password, replace)
        self._changed()
        return self.facts(name)

    def export(self, name: str, password: str) -> bytes:
        """Certificate and key as PKCS#12, encrypted with the password."""
        return self._store.export(name, password)

    def delete(self, name: str) -> None:
        """Remove a certificate that is not in use."""
        self._store.delete(name, self._uses())
        self._changed()


def _wish(name: str, cn: str | None, sans: Sequence[str], curve: str | None) -> Wish:
    return Wish(name if cn is None else cn, tuple(sans), curve or CURVE)


def listing(store: Store, used: Uses, now_utc: float) -> list[dict[str, object]]:
    """A row for each name: the facts, or ``error``; ``waiting`` says that a request waits for its answer."""
    names, waiting = store.names(), store.waiting()
    rows: list[dict[str, object]] = []
    for name in sorted({*names, *waiting}):
        row: dict[str, object] = {"name": name}
        if name in names:
            try:
                row = store.load(name).facts(used, now_utc)
            except BridgeError as error:
                row["error"] = str(error)
        rows.append(row | {"waiting": name in waiting})
    return rows
