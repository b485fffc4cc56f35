from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from bridge.http.passwords import LOOK_S, PasswordFile


def test_a_password_is_kept_as_a_hash_that_only_the_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "admin-password"
    store = PasswordFile(path)
    assert not store.is_set
    assert not store.verify("correct horse", "c")
    store.set("correct horse")
    assert store.is_set
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"correct" not in path.read_bytes()
    assert [one.name for one in tmp_path.iterdir()] == ["admin-password"]
    assert PasswordFile(path).verify("correct horse", "c")
    assert not PasswordFile(path).verify("correct house", "c")


def test_changing_the_password_forgets_what_was_right(tmp_path: Path) -> None:
    store = PasswordFile(tmp_path / "p")
    store.set("first password")
    assert store.verify("first password", "credential")
    assert store.remembers("credential")
    assert not store.remembers("other")
    PasswordFile(tmp_path / "p").set("second password")  # as `smgw-bridge passwd` does, in another process
    time.sleep(LOOK_S)
    assert not store.remembers("credential")
    assert not store.verify("first password", "credential")
    assert store.verify("second password", "credential")


def test_a_wrong_password_is_not_remembered(tmp_path: Path) -> None:
    store = PasswordFile(tmp_path / "p")
    store.set("first password")
    store.verify("wrong password", "credential")
    assert not store.remembers("credential")


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025])
def test_too_short_and_too_long_passwords_are_refused(tmp_path: Path, password: str) -> None:
    store = PasswordFile(tmp_path / "p")
    with pytest.raises(ValueError, match="8 to 1024"):
        store.set(password)
    assert not store.is_set


@pytest.mark.parametrize("content", [b"", b"plain", b"scrypt a b", b"scrypt \xff \xff", b"scrypt !!! ==="])
def test_a_damaged_file_lets_nobody_in_and_counts_as_set(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p"
    path.write_bytes(content)
    store = PasswordFile(path)
    assert store.is_set
    assert not store.verify("", "c")
    assert not store.remembers("c")


def test_ensure_writes_only_when_something_changes(tmp_path: Path) -> None:
    store = PasswordFile(tmp_path / "p")
    store.ensure("from the environment")
    before = (tmp_path / "p").read_bytes()
    store.ensure("from the environment")
    assert (tmp_path / "p").read_bytes() == before
    store.ensure("another one")
    assert store.verify("another one", "c")
