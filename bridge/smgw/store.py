"""The certificates of the house: one folder with ``NAME.crt`` and ``NAME.key``, used by the service and by commands."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import get_args

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bridge.core.allowed import Matching
from bridge.core.gateway import CertificateName
from bridge.core.records.certificates import Uses
from bridge.errors import BadRequest, NotFound
from bridge.smgw import bundle, issue
from bridge.smgw.bundle import Bundle, Key
from bridge.smgw.certificate import Certificate, describe, iso
from bridge.smgw.folder import Folder
from bridge.smgw.issue import DAYS, Wish

logger = logging.getLogger(__name__)

FOLDER = "certificates"
"""Where the store is in the state directory."""

_NAME: Matching = get_args(CertificateName)[1]
_CERTIFICATE, _KEY, _WAITING = ".crt", ".key", ".request.key"
"""What follows the name. The last is the key of a request that has not been answered; a name has no dot."""

Load = Callable[[str], Certificate]
"""Loads a certificate by its name; raises :class:`BridgeError`."""


class Store:
    """The certificates in ``folder``.

    Threads and processes may use it at the same time. Methods raise :class:`BadRequest` with the reason when they
    cannot do what is asked, :class:`NotFound` for a name that is not there, and :class:`BridgeError` when the disk
    says no; then nothing has changed. ``clock`` tells seconds since 1970, UTC. ``unfit`` tells why a certificate
    cannot be what the one of its name is used for; it is given a way to load others.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.time,
        unfit: Callable[[Certificate, Load], str | None] = lambda certificate, load: None,
    ) -> None:
        self._folder = Folder(folder)
        self._clock = clock
        self._unfit = unfit

    def names(self) -> list[str]:
        """Every certificate there is, by name."""
        with self._folder.locked():
            return self._named(_CERTIFICATE)

    def waiting(self) -> list[str]:
        """Names whose request waits for its answer; there may be an older certificate of the same name."""
        with self._folder.locked():
            return self._named(_WAITING)

    def load(self, name: str) -> Certificate:
        """What a certificate says, and where its files are."""
        with self.reading(name) as certificate:
            return certificate

    def stamp(self, name: str) -> tuple[tuple[int, int], ...]:
        """Changes whenever the certificate or its key does; empty while there is none. Two looks at the disk.

        What the disk cannot show now is as good as not there: whoever loads it hears of that.
        """
        found = []
        for file in (self._file(name, _CERTIFICATE), self._file(name, _KEY)):
            with suppress(OSError):
                status = file.stat()
                found.append((status.st_ino, status.st_mtime_ns))
        return tuple(found)

    @contextmanager
    def reading(self, name: str) -> Iterator[Certificate]:
        """The certificate, whose files fit each other as long as the block lasts: for TLS to load them."""
        with self._folder.locked():
            yield self._loaded(name)

    def create(self, name: str, wish: Wish, days: int = DAYS, replace: bool = False) -> Certificate:
        """Make a key and a certificate of its own signature."""
        made = issue.self_signed(wish, days, self._clock())
        return self._store(name, lambda: made, replace)

    def request(self, name: str, wish: Wish, replace: bool = False) -> str:
        """Make a key, keep it, and return the request for its certificate in PEM; :meth:`put` takes the answer.

        A certificate of this name stays in use until then. ``replace`` drops an earlier request without an answer.
        """
        waiting = self._file(name, _WAITING)
        key, asked = issue.request(wish)
        with self._folder.locked(create=True):
            if waiting.exists() and not replace:
                raise BadRequest(f"{name}: an earlier request waits for its answer; say replace to forget it")
            self._folder.commit({waiting.name: bundle.key_pem(key)})
        logger.info("a certificate %s was requested", name)
        return asked.public_bytes(Encoding.PEM).decode()

    def put(
        self,
        name: str,
        data: bytes,
        key: bytes | None = None,
        password: str | None = None,
        replace: bool = False,
        places: tuple[str, str] = ("the certificate", "the key"),
    ) -> Certificate:
        """Take a certificate from the bytes of a file: PEM, DER or PKCS#12.

        Its private key may be in the file, in a file of its own (``key``), or in the store since :meth:`request`; a
        certificate without any is that of a peer. ``password`` opens keys and PKCS#12. ``places`` are what errors
        call the two files.
        """
        with _at(places[0]):
            certificates, keys = bundle.read(data, password)
            if not certificates:
                raise BadRequest("holds no certificate")
        if key is not None:
            with _at(places[1]):
                keys = bundle.read(key, password)[1]
                if not keys:
                    raise BadRequest("holds no private key")

        def assemble() -> Bundle:
            kept = [] if keys else self._keys(name)
            found = bundle.assemble(certificates, keys or kept)
            if not found and key is not None:
                raise BadRequest(f"{places[1]}: is not the key of the certificate in {places[0]}")
            with _at(places[0]):
                if not found and (keys or kept):
                    where = f"kept as {name}" if kept else "in it"
                    raise BadRequest(f"the certificate does not belong to the private key {where}")
                return found or bundle.without_key(certificates)

        return self._store(name, assemble, replace, places[0])

    def export(self, name: str, password: str) -> bytes:
        """Certificate, issuers and key as PKCS#12, encrypted with the password."""
        if not password:
            raise BadRequest("a backup needs a password")
        with self._folder.locked():
            found = self._bundle(name)
        return found.pkcs12(name, password)

    def delete(self, name: str, uses: Uses) -> None:
        """Remove a certificate with its key, and a request that waits, unless the certificate is in use."""
        files = [self._file(name, kind) for kind in (_WAITING, _KEY, _CERTIFICATE)]
        if used := uses.get(name):
            raise BadRequest(f"{name} is in use as {', '.join(used)}")
        with self._folder.locked():
            if not any(file.exists() for file in files):
                raise self._unknown(name)
            self._folder.remove(*(file.name for file in files))
        logger.info("the certificate %s was deleted", name)

    def _file(self, name: str, kind: str) -> Path:
        if not _NAME.fits(name):
            raise BadRequest(f"{name!r} cannot be {_NAME.words}")
        return self._folder.path / f"{name}{kind}"

    def _named(self, kind: str) -> list[str]:
        found = (file.name.removesuffix(kind) for file in self._folder.path.glob(f"*{kind}"))
        return sorted(filter(_NAME.fits, found))

    def _unknown(self, name: str) -> NotFound:
        if self._file(name, _WAITING).exists():
            return NotFound(f"{name}: there is no certificate yet, its request waits for the answer")
        return NotFound(f"{name}: no such certificate; there are {', '.join(self._named(_CERTIFICATE)) or 'none'}")

    def _loaded(self, name: str) -> Certificate:
        return self._describe(name, self._bundle(name))

    def _bundle(self, name: str) -> Bundle:
        """The certificate with its key, as it is on disk."""
        file, key_file = self._file(name, _CERTIFICATE), self._file(name, _KEY)
        if not file.exists():
            raise self._unknown(name)
        certificates, keys = self._read(file)[0], self._read(key_file)[1] if key_file.exists() else []
        with _at(str(file)):
            found = bundle.assemble(certificates, keys) if keys else bundle.without_key(certificates)
            if found is None:
                raise BadRequest(f"does not belong to the key in {key_file}")
            return found

    def _keys(self, name: str) -> list[Key]:
        """Keys that the answer to a request may belong to: the one that waits, or the one in use."""
        files = [self._file(name, _WAITING), self._file(name, _KEY)]
        return [key for file in files if file.exists() for key in self._read(file)[1]]

    def _read(self, file: Path) -> tuple[list[x509.Certificate], list[Key]]:
        with _at(str(file)):
            return bundle.read(file.read_bytes(), None)

    def _describe(self, name: str, found: Bundle) -> Certificate:
        key_file = self._file(name, _KEY) if found.key else None
        return describe(name, found, self._file(name, _CERTIFICATE), key_file)

    def _check_dates(self, certificate: Certificate) -> None:
        now, begins, ends = self._clock(), certificate.not_before, certificate.not_after
        if not begins <= now <= ends:
            problem = "has expired" if now > ends else "is not valid yet"
            raise BadRequest(f"{problem}: valid from {iso(begins)} to {iso(ends)}, the clock here says {iso(now)}")

    def _store(self, name: str, make: Callable[[], Bundle], replace: bool, place: str | None = None) -> Certificate:
        """Store what ``make`` returns; it is called while nobody else can change the store."""
        file, key_file, waiting = (self._file(name, kind) for kind in (_CERTIFICATE, _KEY, _WAITING))
        with self._folder.locked(create=True):
            replaced = file.exists()
            if replaced and not replace:
                raise BadRequest(f"{name}: there is a certificate of this name; say replace to replace it")
            found = make()
            files = {file.name: found.certificates_pem()}
            if found.key:
                files[key_file.name] = bundle.key_pem(found.key)
            with _at(place or name):
                stored = self._describe(name, found)
                self._check_dates(stored)
                if problem := self._unfit(stored, self._loaded):
                    raise BadRequest(problem)
                self._folder.commit(files, lambda folder: _try(folder / file.name, folder / key_file.name))
            if waiting.exists() and waiting.read_bytes() == files.get(key_file.name):
                self._folder.remove(waiting.name)
        verb = "replaced" if replaced else "stored"
        logger.info("the certificate %s was %s: SHA-256 %s", name, verb, stored.fingerprint)
        return stored


def _try(file: Path, key_file: Path) -> None:
    """Whether TLS takes the two: it has rules of its own, such as for the hash of the signature."""
    if key_file.exists():
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, key_file)
        except ssl.SSLError as error:
            raise BadRequest(f"TLS does not take it: {error.reason}") from error


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Errors inside name the place."""
    try:
        yield
    except BadRequest as error:
        raise BadRequest(f"{place}: {error}") from error
