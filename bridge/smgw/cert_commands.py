"""What ``smgw-bridge cert`` does: each action one function that prints its result and returns the exit code."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

from bridge.core.config import Config
from bridge.core.records.certificates import Uses, uses
from bridge.errors import BadRequest
from bridge.smgw.administration import listing
from bridge.smgw.admission import unfit
from bridge.smgw.certificate import Certificate
from bridge.smgw.issue import Wish
from bridge.smgw.store import FOLDER, Store


def run(options: Namespace, state: Path, known: Config | None) -> int:
    """Do ``options.action`` with the certificates below the folder ``state``; ``known`` tells which are in use."""
    store = Store(state / FOLDER, unfit=lambda certificate, load: unfit(known, certificate, load))
    return _ACTIONS[options.action](options, store, uses(known))


def _list(options: Namespace, store: Store, used: Uses) -> int:
    rows = listing(store, used, time.time())
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(*map(_line, rows) if rows else ["no certificates"], sep="\n")
    return int(any("error" in row for row in rows))


def _line(row: Mapping[str, object]) -> str:
    """A row of the list for people."""
    parts = []
    if "error" in row:
        parts.append(str(row["error"]))
    elif "key_type" in row:
        parts += ["own" if row["has_key"] else "a peer's", str(row["key_type"]), f"until {str(row['not_after'])[:10]}"]
        parts.append(f"in use as {_text(row['used_as'])}" if row["used_as"] else "not in use")
        if row["warning"]:
            parts.append(str(row["warning"]))
        parts.append(f"SHA-256 {row['fingerprint_sha256']}")
    if row["waiting"]:
        parts.append("a request waits for its answer")
    return f"{row['name']}: {', '.join(parts)}"


def _show(options: Namespace, store: Store, used: Uses) -> int:
    _print(store.load(options.name), used)
    return 0


def _print(certificate: Certificate, used: Uses) -> None:
    facts = certificate.facts(used, time.time()) | {"file": str(certificate.certificate_file)}
    for label, value in facts.items():
        print(f"{label.replace('_', ' ') + ':':20}{_text(value)}")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(value) if isinstance(value, list) else str(value or "")) or "-"


def _delete(options: Namespace, store: Store, used: Uses) -> int:
    store.delete(options.name, used)
    return 0


def _create(options: Namespace, store: Store, used: Uses) -> int:
    _print(store.create(options.name, _wish(options), options.days, options.replace), used)
    return 0


def _request(options: Namespace, store: Store, used: Uses) -> int:
    print(store.request(options.name, _wish(options), options.replace), end="")
    return 0


def _wish(options: Namespace) -> Wish:
    return Wish(options.name if options.cn is None else options.cn, tuple(options.san), options.curve)


def _import(options: Namespace, store: Store, used: Uses) -> int:
    data = _read(options.file)
    key = _read(options.key) if options.key else None
    places = (options.file, options.key or "")
    _print(store.put(options.name, data, key, _password(options), options.replace, places), used)
    return 0


def _export(options: Namespace, store: Store, used: Uses) -> int:
    data = store.export(options.name, _password(options))
    try:
        descriptor = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BadRequest(f"{options.file}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        Path(options.file).unlink()
        raise BadRequest(f"{options.file}: cannot be written: {error.strerror}") from error
    return 0


def _password(options: Namespace) -> str:
    return sys.stdin.readline().rstrip("\r\n") if options.password_stdin else ""


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise BadRequest(f"{file}: cannot be read: {error.strerror}") from error


_ACTIONS: Mapping[str, Callable[[Namespace, Store, Uses], int]] = {
    "list": _list,
    "show": _show,
    "delete": _delete,
    "create": _create,
    "request": _request,
    "import": _import,
    "export": _export,
}
