"""The configuration, read and changed over HTTP while a whole bridge runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bridge.simulator.site import Site
from tests.http.administered import CONFIG, FILE, Administered, administered, pair
from tests.http.smgw_site import eventually
from tests.mqtt.brokers import free_port

LIMIT = "55000 * AVAIL / 100"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Administered]:
    with administered(tmp_path) as running:
        yield running


def limit_w(house: Administered) -> float:
    return house.app.hub.snapshot.decision.grid.limit_w


def test_the_text_is_read_and_replaced_and_counts_at_once(house: Administered) -> None:
    status, headers, body = house.ask("GET", CONFIG)
    assert (status, headers["Content-Type"]) == (200, "application/yaml; charset=utf-8")
    assert body == house.file.read_bytes()
    changed = body.replace(b"55000 *", b"44000 *")
    status, new, answer = house.ask("PUT", CONFIG, changed, If_Match=headers["ETag"])
    assert (status, answer) == (200, b'{"restart":false}')
    assert house.file.read_bytes() == changed
    assert limit_w(house) == 44000
    assert new["ETag"] != headers["ETag"]
    assert house.ask("GET", CONFIG)[1]["ETag"] == new["ETag"]
    backup = house.file.with_name("bridge.yaml.bak")
    assert backup.read_bytes() == body
    assert sorted(file.name for file in house.file.parent.glob("*bridge.yaml*")) == ["bridge.yaml", "bridge.yaml.bak"]


def test_rights_and_a_link_to_the_file_stay(house: Administered, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.yaml"
    house.file.rename(elsewhere)
    house.file.symlink_to(elsewhere)
    elsewhere.chmod(0o640)
    assert house.patch(site="Musterweg 2")[0] == 200
    assert house.file.is_symlink()
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o640
    assert stat.S_IMODE(elsewhere.with_name("elsewhere.yaml.bak").stat().st_mode) == 0o640


def test_a_text_based_on_an_older_one_is_refused(house: Administered) -> None:
    old = house.ask("GET", CONFIG)[1]["ETag"]
    assert house.patch(site="Musterweg 2")[0] == 200
    before = house.file.read_bytes()
    for method, body in (("PUT", FILE), ("PATCH", '{"path": "site", "value": "Musterweg 3"}')):
        status, headers, _ = house.ask(method, CONFIG, body, If_Match=old)
        assert status == 412
        assert house.file.read_bytes() == before
    assert house.ask("PATCH", CONFIG, body, If_Match=headers["ETag"])[0] == 200


def test_all_mistakes_come_at_once_each_with_its_line_and_nothing_changes(house: Administered) -> None:
    before = house.file.read_bytes()
    wrong = before.decode().replace("55000 * AVAIL", "").replace("site:", "sitte:") + "wallboxes: [{id: E1}]\n"
    status, _, body = house.ask("PUT", CONFIG, wrong)
    assert status == 400
    found = json.loads(body)
    assert [one["line"] for one in found] == [2, 8, 11]
    assert "unknown key (did you mean site?)" in found[0]["problem"]
    assert house.file.read_bytes() == before
    assert not house.file.with_name("bridge.yaml.bak").exists()
    assert limit_w(house) == 55000
    assert house.ask("PUT", CONFIG, b"\xff")[0] == 400
    assert house.json("PUT", CONFIG, "no: : yaml")[0] == 400


def test_single_values_change_and_comments_and_order_stay(house: Administered) -> None:
    before = house.file.read_text()
    assert house.patch(site="Musterweg 2", variables__AVAIL__initial=50, grid__reserve_w=500) == (
        200,
        {"restart": False},
    )
    expected = before.replace("Musterweg 1 ", "Musterweg 2 ").replace("initial: 100", "initial: 50")
    expected = expected.replace("AVAIL / 100\n", "AVAIL / 100\n  reserve_w: 500\n")
    assert house.file.read_text() == expected
    assert limit_w(house) == 27500
    assert house.patch(grid__reserve_w=None, variables__AVAIL__initial=100, site="Musterweg 1")[0] == 200
    assert house.file.read_text() == before
    for wrong in ({"grid..x": 1}, {"grid": 7}, {"wallboxes[3].id": "x"}, {"site": {}}):
        assert house.patch(**wrong)[0] == 400, wrong
    assert house.json("PATCH", CONFIG, [{"path": "site"}])[0] == 400
    assert house.file.read_text() == before


def test_what_the_disk_does_not_take_is_refused(house: Administered, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = house.file.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    status, reason = house.patch(site="Musterweg 2")
    monkeypatch.undo()
    assert (status, "No space left" in str(reason)) == (503, True)
    assert house.file.read_bytes() == before
    assert not list(house.file.parent.glob(".*.new"))


def test_the_smgw_door_opens_and_moves_while_the_lan_door_answers(house: Administered) -> None:
    pair(house.store)
    port = free_port()
    changes = {"smgw__certificate": "cls", "smgw__gateway_certificate": "smgw", "smgw__listen": f"127.0.0.1:{port}"}
    assert house.patch(**changes, smgw__crypto="bsi-nist256") == (200, {"restart": True})
    eventually(lambda: open_to(port))
    eventually(lambda: house_answers(house))
    assert house.patch(smgw=None) == (200, {"restart": True})
    eventually(lambda: not open_to(port))
    eventually(lambda: house_answers(house))


def open_to(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def house_answers(house: Administered) -> bool:
    with suppress(OSError):
        return house.ask("GET", "/healthz")[0] == 200
    return False


def test_an_address_that_cannot_be_used_is_a_mistake(house: Administered) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, mistakes = house.patch(http__listen=f"127.0.0.1:{taken.getsockname()[1]}")
    assert status == 400
    assert "Address already in use" in str(mistakes)
    assert house.patch(http__listen="192.0.2.1:80")[0] == 400
    assert house.patch(state_dir="/elsewhere")[0] == 400
    assert house_answers(house)


def test_a_change_that_fails_at_the_last_moment_is_taken_back(
    house: Administered, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = house.file.read_bytes()
    # The same port on another address is only tried when the door is closed.
    assert house.patch(http__listen=f"192.0.2.1:{house.port}") == (200, {"restart": True})
    eventually(lambda: house.file.read_bytes() == before)
    eventually(lambda: house_answers(house))
    assert house.app.hub.snapshot.config.http.listen == f"127.0.0.1:{house.port}"
    assert house.patch(site="Musterweg 2") == (200, {"restart": False})


def test_a_file_that_was_edited_by_hand_is_read_again(house: Administered, caplog: pytest.LogCaptureFixture) -> None:
    house.file.write_text(house.file.read_text().replace("55000 *", "33000 *"))
    house.app.file.reload()
    assert limit_w(house) == 33000
    house.file.write_text("grid: {}\n")
    house.app.file.reload()
    assert limit_w(house) == 33000
    assert "bridge.yaml:1: grid.connection_power_w: is missing" in caplog.text


def test_nobody_is_refused_while_doors_are_opened_anew(house: Administered) -> None:
    pair(house.store)
    smgw = {"certificate": "cls", "gateway_certificate": "smgw", "crypto": "modern"}
    refused, served, over = [], [], threading.Event()

    def ask_on() -> None:
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", house.port), 5):
                    served.append(1)
            except OSError as error:
                refused.append(error)

    asker = threading.Thread(target=ask_on)
    asker.start()
    for change in ({"smgw": {**smgw, "listen": f"127.0.0.1:{free_port()}"}}, {"smgw": None}):
        before = house.app.hub.snapshot.config
        assert house.patch(**change) == (200, {"restart": True})
        eventually(lambda before=before: house.app.hub.snapshot.config is not before)  # type: ignore[misc]
        eventually(lambda: house_answers(house))
    over.set()
    asker.join()
    assert served
    assert refused == []


def test_the_service_reads_its_file_again_when_told(tmp_path: Path) -> None:
    file, port = tmp_path / "bridge.yaml", free_port()
    file.write_text(FILE.format(port=port))
    command = [sys.executable, "-m", "bridge", "run", "-c", str(file), "--state-dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: open_to(port), 20)
            new = free_port()
            file.write_text(FILE.format(port=new))
            process.send_signal(signal.SIGHUP)
            eventually(lambda: open_to(new) and not open_to(port))
        finally:
            process.terminate()
    assert process.returncode == 0


BOX = """\
wallboxes:
  - {{id: E1, profile: cfos-power-brain, address: "127.0.0.1:{0}"}}
"""


def test_a_wallbox_keeps_its_current_while_a_change_takes_effect(tmp_path: Path) -> None:
    with administered(tmp_path, BOX.format(free_port())) as house:
        hub = house.app.hub
        site = Site(hub.snapshot.config, seed=3)
        box = site.wallboxes["E1"]
        site.start()
        site.plug("E1")
        try:
            eventually(lambda: confirmed_a(house) > 6, 20)
            before, seen = box.commanded_a, hub.snapshot.state.devices["E1"].mono
            port = free_port()
            assert house.patch(**{"wallboxes[0].poll_s": 0.5, "http.listen": f"127.0.0.1:{port}"})[0] == 200
            commanded = set()
            while not (hub.snapshot.config.http.listen.endswith(str(port)) and read_since(house, seen + 0.5)):
                commanded.add(box.commanded_a)
                time.sleep(0.01)
            assert commanded == {before}
            house.port = port
            assert house.patch(**{"wallboxes[0].max_current_a": 8})[0] == 200
            eventually(lambda: box.commanded_a == 8)
        finally:
            site.stop()


def confirmed_a(house: Administered) -> float:
    offer = house.app.hub.snapshot.state.offers.get("E1")
    return (offer and offer.confirmed_a) or 0.0


def read_since(house: Administered, mono: float) -> bool:
    return house.app.hub.snapshot.state.devices["E1"].mono > mono
