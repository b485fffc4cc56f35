"""The core is told until when certificates are valid, whoever changes them."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue

import pytest

from bridge.core.events import Certificates, Event
from bridge.smgw import watch
from bridge.smgw.issue import Wish
from bridge.smgw.store import Store


def test_changes_are_told_once_and_what_cannot_be_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.02)
    store, told = Store(tmp_path / "certificates"), SimpleQueue[Event]()
    first = store.create("first", Wish("first"))
    edge = watch.Watch(store, told.put)
    edge.start()
    try:
        assert told.get(timeout=5) == Certificates({"first": first.not_after})
        second = store.create("second", Wish("second"), days=9)
        assert told.get(timeout=5) == Certificates({"first": first.not_after, "second": second.not_after})
        first.certificate_file.write_text("nonsense")
        assert told.get(timeout=5) == Certificates({"second": second.not_after})
        assert "first.crt" in caplog.text
        store.delete("first", {})
        assert told.get(timeout=5) == Certificates({"second": second.not_after})
        assert told.empty()
        assert caplog.text.count("first.crt") == 1
    finally:
        edge.stop()


def test_a_file_the_disk_cannot_show_does_not_end_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.02)
    store, told = Store(tmp_path / "certificates"), SimpleQueue[Event]()
    first = store.create("first", Wish("first"))
    loop = tmp_path / "certificates" / "loop.crt"
    loop.symlink_to(loop.name)
    edge = watch.Watch(store, told.put)
    edge.start()
    try:
        assert told.get(timeout=5) == Certificates({"first": first.not_after})
        second = store.create("second", Wish("second"))
        assert told.get(timeout=5) == Certificates({"first": first.not_after, "second": second.not_after})
    finally:
        edge.stop()
