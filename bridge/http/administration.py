"""What an administrator may change over HTTP, and who carries it out: made by the app, which knows files and store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class ConfigFile(Protocol):
    """The configuration file."""

    def read(self) -> str:
        """What it holds; OSError when it cannot be read."""

    def adopt(self, text: str) -> bool:
        """Check a text, write it and put it into force; True: the doors are closed and opened again right after.

        ConfigError with every mistake; OSError or BridgeError when it cannot be written or put into force. Then
        nothing has changed.
        """


class Certificates(Protocol):
    """The certificates of the house. Everything raises BadRequest, NotFound or BridgeError when it cannot be done."""

    def listing(self) -> Sequence[Mapping[str, object]]:
        """What there is to say of each."""

    def facts(self, name: str) -> Mapping[str, object]:
        """What there is to say of one."""

    def pem(self, name: str) -> str:
        """The certificate, for those who shall know it."""

    def create(
        self, name: str, cn: str | None, sans: Sequence[str], curve: str | None, days: int | None, replace: bool
    ) -> Mapping[str, object]:
        """Make a key and a certificate of its own signature."""

    def request(self, name: str, cn: str | None, sans: Sequence[str], curve: str | None, replace: bool) -> str:
        """Make a key and the request for its certificate (PKCS#10 in PEM)."""

    def put(
        self, name: str, data: bytes, key: bytes | None, password: str | None, replace: bool
    ) -> Mapping[str, object]:
        """Take one from the bytes of a file."""

    def export(self, name: str, password: str) -> bytes:
        """PKCS#12 with the key, encrypted."""

    def delete(self, name: str) -> None:
        """Remove one that is not in use."""


class Administration(NamedTuple):
    """Both."""

    file: ConfigFile
    certificates: Certificates
