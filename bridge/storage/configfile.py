"""The configuration file, changed while the bridge runs: the old one or the new one, whatever happens in between."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from bridge.errors import BridgeError, ConfigError
from bridge.storage.files import sync_folder

logger = logging.getLogger(__name__)

BACKUP = ".bak"
"""What follows the name of the one file before."""

S = TypeVar("S")


class ConfigFile(Generic[S]):
    """The file ``path`` and what is made of it.

    ``prepare`` makes a setup of a text (None: of what the file holds) and raises :class:`ConfigError` with every
    mistake; ``follow`` puts it into force, or raises OSError or :class:`BridgeError` and leaves the old one in force;
    ``interrupts`` tells whether that ends the connection of whoever asks for it.
    """

    def __init__(
        self,
        path: Path,
        prepare: Callable[[str | None], S],
        follow: Callable[[S], None],
        interrupts: Callable[[S], bool],
    ) -> None:
        self._path = path
        self._prepare = prepare
        self._follow = follow
        self._interrupts = interrupts
        # One change after the other, and not in a thread that it ends.
        self._changes = ThreadPoolExecutor(1, "configuration")

    def read(self) -> str:
        """What the file holds; OSError when it cannot be read."""
        return self._path.read_text(encoding="utf-8")

    def adopt(self, text: str) -> bool:
        """Check a text, write it and put it into force; True: that only happens now, and interrupts connections.

        Raises what ``prepare`` and ``follow`` raise, and OSError when it cannot be written; then the file is as it was.
        """
        return self._changes.submit(self._accept, text).result()

    def _accept(self, text: str) -> bool:
        setup = self._prepare(text)
        before = self.read()
        if text != before:
            rewrite(self._path, text)
        if interrupts := self._interrupts(setup):
            self._changes.submit(self._change, setup, before)
        else:
            self._change(setup, before)
        return interrupts

    def _change(self, setup: S, before: str) -> None:
        try:
            self._follow(setup)
        except (OSError, BridgeError) as error:
            logger.error("%s: the change is taken back: %s", self._path, error)
            rewrite(self._path, before)
            raise
        logger.info("%s: the change is in force", self._path)

    def reload(self) -> None:
        """Put what the file holds into force; what is wrong with it goes to the log."""
        try:
            self._changes.submit(lambda: self._follow(self._prepare(None))).result()
        except ConfigError as error:
            logger.error("not read again, the old configuration stays in force:\n%s", "\n".join(error.mistakes))
        except (OSError, BridgeError) as error:
            logger.error("%s: the old configuration stays in force: %s", self._path, error)
        else:
            logger.info("%s: read again, and in force", self._path)

    def close(self) -> None:
        """Wait until the last change is done; none begins any more."""
        self._changes.shutdown()


def rewrite(path: Path, text: str) -> None:
    """Replace what the file holds; rights and owner stay. The file before is kept as ``FILE.bak``.

    Raises OSError when the disk or its rights say no; then the file is as it was.
    """
    path = path.resolve()
    _place(path, path.with_name(path.name + BACKUP), path.read_bytes())
    _place(path, path, text.encode())


def _place(model: Path, path: Path, content: bytes) -> None:
    """Write a file with the rights and the owner of ``model``, all at once."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            status = model.stat()
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                _give(new, status)
            shutil.copymode(model, new)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(path.parent)


def _give(path: Path, like: os.stat_result) -> None:
    """The owner of another file, as far as we may: a service may pass on the group it is in."""
    with suppress(PermissionError):
        os.chown(path, -1, like.st_gid)
        os.chown(path, like.st_uid, -1)
