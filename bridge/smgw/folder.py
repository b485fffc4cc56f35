"""A folder whose files change together or not at all, shared by threads and processes.

Files that belong together are written into a folder of their own, which is then renamed to ``.commit``: with that the
change has happened. Whoever next opens the folder moves them to their places, should the writer not have lived to.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bridge.errors import BridgeError


class Folder:
    """The folder ``path`` (mode 0700) with its files (0600).

    What is there belongs to the owner of the folder above, so that what root's commands write the service can read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self, create: bool = False) -> Iterator[None]:
        """Nobody else changes anything meanwhile. Not to be nested; what is done inside must be short.

        ``create`` makes the folder; without it, one that is not there is as good as empty. Raises
        :class:`BridgeError` when the disk says no, also inside.
        """
        try:
            if create:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.path.mkdir(mode=0o700, exist_ok=True)
                self._give(self.path)
            elif not self.path.exists():
                yield
                return
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                self._finish()
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BridgeError(f"{self.path} cannot be used: {error}") from error

    def commit(self, files: Mapping[str, bytes], test: Callable[[Path], None] = lambda folder: None) -> None:
        """Write all files or none, while locked.

        ``test`` is called with a folder in which they already are but do not count; what it raises keeps them out.
        """
        staging = self.path / ".staging"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir(mode=0o700)
            self._give(staging)
            for name, data in files.items():
                self._write(staging / name, data)
            test(staging)
            _sync(staging)
            staging.rename(self.path / ".commit")
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._finish()

    def remove(self, *names: str) -> None:
        """Remove the files that are there, while locked, in this order."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)
        _sync(self.path)

    def _finish(self) -> None:
        """Move what has been committed to its place."""
        commit = self.path / ".commit"
        if not commit.exists():
            return
        _sync(self.path)
        for file in commit.iterdir():
            file.replace(self.path / file.name)
        _sync(self.path)
        commit.rmdir()

    def _write(self, file: Path, data: bytes) -> None:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        self._give(file)

    def _give(self, path: Path) -> None:
        if os.geteuid() == 0:
            owner = self.path.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def _sync(folder: Path) -> None:
    """Put names on the disk, so that a power cut does not undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
