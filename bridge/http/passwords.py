"""The admin password: kept as a salted scrypt hash, checked slowly once per credential, then remembered in memory."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)

MIN_LENGTH = 8
"""NIST SP 800-63B, 5.1.1.2: at least eight characters, no other rules of composition."""

MAX_LENGTH = 1024

LOOK_S = 0.5
"""So often the file is looked at; a change by another process counts from then on."""

_COST = {"n": 2**13, "r": 8, "p": 10}
"""The one of OWASP's recommendations that needs the least memory: 8 MB, which a small machine can spare."""


@dataclass(frozen=True, slots=True)
class _Record:
    """What the file says, and the credentials found right since; they are forgotten together."""

    salt: bytes
    digest: bytes
    stamp: tuple[int, int, int]
    remembered: set[bytes] = field(default_factory=set)


class PasswordFile:
    """The password in ``path`` (mode 0600). A change by another process is noticed within half a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = str(path)
        self._key = secrets.token_bytes(32)
        self._record: _Record | None = None
        self._looked = -LOOK_S

    @property
    def is_set(self) -> bool:
        """Whether there is a password. A damaged file counts as one that nothing matches."""
        return self._current() is not None

    def set(self, password: str) -> None:
        """Replace the password; remembered credentials are forgotten.

        Raises ValueError when it is too short or too long and OSError when it cannot be written.
        """
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise ValueError(f"the password must have {MIN_LENGTH} to {MAX_LENGTH} characters")
        salt = secrets.token_bytes(16)
        line = f"scrypt {b64encode(salt).decode()} {b64encode(_hash(password, salt)).decode()}\n"
        fresh = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                if os.geteuid() == 0:  # set by root's command, read by the service
                    owner = self._path.parent.stat()
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                file.write(line)
                file.flush()
                os.fsync(descriptor)
            os.replace(fresh, self._path)
            self._looked = -LOOK_S
        finally:
            fresh.unlink(missing_ok=True)
        logger.info("the admin password was set")

    def ensure(self, password: str) -> None:
        """Set the password unless it is this one already. Raises like :meth:`set`."""
        if not self.verify(password, ""):
            self.set(password)

    def verify(self, password: str, credential: str) -> bool:
        """Whether it is right. Takes a tenth of a second; a right ``credential`` is remembered, an empty one never."""
        record = self._current()
        if record is None or len(password) > MAX_LENGTH:
            return False
        right = hmac.compare_digest(_hash(password, record.salt), record.digest)
        if right and credential:
            record.remembered.add(self._code(credential))
        return right

    def remembers(self, credential: str) -> bool:
        """Whether this credential was found right since the password was last changed."""
        record = self._current()
        return record is not None and self._code(credential) in record.remembered

    def _code(self, credential: str) -> bytes:
        """The credential as it is kept in memory: useless without the key of this run."""
        return hashlib.blake2b(credential.encode(), key=self._key, digest_size=16).digest()

    def _current(self) -> _Record | None:
        now = time.monotonic()
        if now < self._looked + LOOK_S:
            return self._record
        record = self._record
        try:
            status = os.stat(self._name)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if record is None or record.stamp != stamp:
                record = _read(self._path, stamp)
        except FileNotFoundError:
            record = None
        # In this order: who comes in between finds the old record, or looks for itself.
        self._record, self._looked = record, now
        return record


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **_COST)


def _read(path: Path, stamp: tuple[int, int, int]) -> _Record:
    try:
        scheme, salt, digest = path.read_text(encoding="ascii").split()
        if scheme != "scrypt":
            raise ValueError(scheme)
        return _Record(b64decode(salt), b64decode(digest), stamp)
    except (OSError, ValueError):
        logger.error("%s cannot be read; nobody can log in until `smgw-bridge passwd` sets a password", path)
        return _Record(b"", b"", stamp)
