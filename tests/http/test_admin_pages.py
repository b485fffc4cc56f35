"""The administration pages in a real browser, at the LAN door and through the gateway."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.app import store_in
from bridge.smgw.contexts import client_context
from tests.http.administered import Administered, administered, pair
from tests.http.browser import Browser, chromium
from tests.http.conftest import BASIC
from tests.http.smgw_site import eventually
from tests.http.test_certificates_api import form, fresh
from tests.mqtt.brokers import free_port
from tests.smgw.rig import running

pytestmark = [
    pytest.mark.system("openssl", "stunnel4"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]

SMGW = """
smgw:                      # the gateway of the house
  certificate: cls
  gateway_certificate: smgw
  listen: 127.0.0.1:{port}
  crypto: bsi-brainpool256
  role: admin              # the far end looks after everything
"""
WRONG = "[...document.querySelectorAll('#lines .wrong')]"
TEXT = "(document.body?.innerText ?? '')"


@contextmanager
def gateway(folder: Path, door: int) -> Iterator[int]:
    """What the gateway does with a connection of the far end: TLS with its certificate to the door; its port."""
    port = free_port()
    store = folder / "certificates"
    file = folder / "stunnel.conf"
    file.write_text(
        "\n".join(
            [
                *("foreground = quiet", "pid =", "debug = 3", "[hks5]", "client = yes", "TIMEOUTclose = 0"),
                *(f"accept = 127.0.0.1:{port}", f"connect = 127.0.0.1:{door}", "curves = brainpoolP256r1"),
                *(f"cert = {store}/smgw.crt", f"key = {store}/smgw.key", "sslVersion = TLSv1.2", ""),
            ]
        )
    )
    with running(port, "stunnel4", file):
        yield port


class House:
    """A bridge with both doors open."""

    def __init__(self, folder: Path, bridge: Administered, door: int) -> None:
        self.folder = folder
        self.bridge = bridge
        self.door = door

    @contextmanager
    def reached_by(self, way: str) -> Iterator[tuple[str, dict[str, str]]]:
        """Where the browser finds the pages, and what it has to show there."""
        if way == "lan":
            yield f"http://127.0.0.1:{self.bridge.port}", {"Authorization": BASIC}
        else:
            with gateway(self.folder, self.door) as port:
                yield f"http://127.0.0.1:{port}", {}

    def shown(self) -> str:
        """The certificate that the SMGW door shows, in PEM."""
        context = client_context("bsi-brainpool256", self.bridge.store.load("smgw"), self.bridge.store.load("cls"))
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(socket.create_connection(("127.0.0.1", self.door), 5)) as wire:
            return ssl.DER_cert_to_PEM_cert(wire.getpeercert(binary_form=True) or b"")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    door = free_port()
    pair(store_in(tmp_path), "brainpoolP256r1")
    with administered(tmp_path, SMGW.format(port=door)) as bridge:
        yield House(tmp_path, bridge, door)


def visit(browser: Browser, url: str, words: str) -> None:
    browser.call("Page.navigate", url=url)
    browser.wait(f"location.href === {url!r} && {TEXT}.includes({words!r})")


def choose(browser: Browser, field: str, *files: Path) -> None:
    """Put files into a file field."""
    found = browser.call("Runtime.evaluate", expression=f"document.querySelector({field!r})")["result"]
    browser.call("DOM.setFileInputFiles", files=[*map(str, files)], objectId=found["objectId"])  # type: ignore[index]


def fill(browser: Browser, form_id: str, **values: object) -> None:
    for name, value in values.items():
        browser.run(f"document.getElementById({form_id!r}).elements[{name!r}].value = {json.dumps(value)}")


def press(browser: Browser, form_id: str, words: str) -> None:
    browser.run(f"document.querySelector('#{form_id} button').click()")
    browser.wait(f"document.querySelector('#{form_id} output').textContent.includes({words!r})")


def press_until(browser: Browser, form_id: str, words: str) -> None:
    """As :func:`press`, and again where the doors were being opened anew just then."""
    output = f"document.querySelector('#{form_id} output').textContent"
    for _ in range(5):
        browser.run(f"document.querySelector('#{form_id} button').click()")
        browser.wait(f"[{words!r}, 'No answer'].some((words) => {output}.includes(words))")
        if browser.run(f"{output}.includes({words!r})"):
            return
    pytest.fail(f"no answer instead of: {words}")


@pytest.mark.parametrize("way", ["lan", "smgw"])
def test_a_certificate_is_uploaded_selected_and_in_force(house: House, way: str, tmp_path: Path) -> None:
    certificate, _ = fresh(tmp_path, "new", 400, "brainpoolP256r1")
    with house.reached_by(way) as (site, shown), chromium(tmp_path / "profile") as browser:
        browser.call("Network.setExtraHTTPHeaders", headers=shown)
        visit(browser, f"{site}/certificates", "gateway_certificate")
        fill(browser, "upload", name="new")
        choose(browser, "#upload [name=certificate]", tmp_path / "new.pem")
        choose(browser, "#upload [name=key]", tmp_path / "new.key.pem")
        press(browser, "upload", "Stored: CN=new, with its private key")
        browser.wait(f"{TEXT}.includes('ours, EC brainpoolP256r1')")
        visit(browser, f"{site}/configuration", "Smart meter gateway")
        browser.wait("[...document.querySelectorAll('#gateway [data-store=own] option')].some(o => o.value === 'new')")
        fill(browser, "gateway", **{"smgw.certificate": "new", "smgw.address": "192.0.2.1:4433"})
        press(browser, "gateway", "Saved and in force.")
        assert browser.run("document.querySelector('[name=\"smgw.certificate\"]').value") == "new"
        assert house.shown() == certificate.decode()
        expected = SMGW.format(port=house.door).replace(": cls", ": new") + "  address: 192.0.2.1:4433\n"
        assert house.bridge.file.read_text().endswith(expected)
        browser.wait("document.querySelector('#lost').hidden")
        press(browser, "gateway", "Nothing was changed.")


def test_mistakes_in_the_file_stand_at_their_lines(house: House, tmp_path: Path) -> None:
    before = house.bridge.file.read_text()
    with house.reached_by("lan") as (site, shown), chromium(tmp_path / "profile") as browser:
        browser.call("Network.setExtraHTTPHeaders", headers=shown)
        visit(browser, f"{site}/configuration", "The whole file")
        browser.wait("document.querySelector('[name=text]').value.includes('AVAIL')")
        fill(browser, "file", text=before.replace("role: admin ", "role: boss ").replace("site:", "sitte:"))
        press(browser, "file", "Nothing was changed: 2 mistakes.")
        assert browser.run(f"{WRONG}.map(mark => [...mark.parentNode.children].indexOf(mark) + 1)") == [2, 17]
        box = "document.querySelector('#file textarea').getBoundingClientRect()"
        top = f"{WRONG}[0].getBoundingClientRect().top - {box}.top"
        assert 10 < float(str(browser.run(top))) < 40
        browser.run("document.querySelectorAll('#file .mistakes button')[1].click()")
        assert str(browser.run("getSelection().toString()")).startswith("  role: boss ")
        assert house.bridge.file.read_text() == before
        fill(browser, "file", text=before.replace("Musterweg 1", "Musterweg 2"))
        press(browser, "file", "Saved and in force.")
        browser.wait("document.querySelector('h1').textContent === 'Musterweg 2'")
        assert house.bridge.patch(site="Musterweg 3")[0] == 200
        fill(browser, "file", text="site: mine")
        press(browser, "file", "changed meanwhile")
        assert "Musterweg 3" in house.bridge.file.read_text()


def test_a_key_is_made_requested_backed_up_and_deleted(house: House, tmp_path: Path) -> None:
    with house.reached_by("lan") as (site, shown), chromium(tmp_path / "profile") as browser:
        browser.call("Network.setExtraHTTPHeaders", headers=shown)
        browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        visit(browser, f"{site}/certificates", "gateway_certificate")
        fill(browser, "make", name="own", san="bridge.example, 192.0.2.7", days="30")
        press(browser, "make", "Made.")
        browser.wait(f"{TEXT}.includes('expires within 30 days')")
        fill(browser, "make", name="asked")
        browser.run("document.querySelector('#make [value=request]').click()")
        browser.wait("document.querySelector('[name=csr]').value.includes('CERTIFICATE REQUEST')")
        fill(browser, "backup", name="own", password="a good one")
        press(browser, "backup", "Saved.")
        eventually(lambda: (tmp_path / "own.p12").exists())
        delete = "document.querySelector('#store [aria-label$=\" {}\"]:is(button)').click()"
        browser.run(delete.format("own"))
        assert "own" in house.bridge.store.names()
        browser.run(delete.format("own?"))
        browser.wait("document.querySelector('#told').textContent === 'own is deleted.'")
        browser.run(delete.format("cls") + ";" + delete.format("cls?"))
        browser.wait("document.querySelector('#told').textContent === 'cls is in use as smgw.certificate'")
        assert house.bridge.store.names() == ["cls", "smgw"]


@pytest.mark.parametrize("way", ["lan", "smgw"])
def test_every_page_works_without_complaints(house: House, way: str, tmp_path: Path) -> None:
    assert house.bridge.ask("GET", "/cnf?cmd=set_cm_vars&name=AVAIL&val=50")[0] == 200
    pages = {"": "27.5 kW", "certificates": "brainpoolP256r1", "configuration": "cls", "sessions": "0 sessions"}
    pages |= {"journal": "command", "explain": "AVAIL"}
    unnamed = (
        "[...document.querySelectorAll('input,select,textarea')].filter(f => !f.labels.length && !f.ariaLabel).length"
    )
    with house.reached_by(way) as (site, shown), chromium(tmp_path / "profile") as browser:
        browser.call("Network.setExtraHTTPHeaders", headers=shown)
        for page, words in pages.items():
            visit(browser, f"{site}/{page}", words)
            browser.wait("document.querySelector('#at').dateTime !== ''")
            assert browser.run("document.querySelector('nav [aria-current]').getAttribute('href')") == f"/{page}"
            assert browser.run(unnamed) == 0
            assert browser.run("document.querySelectorAll('main h2').length") > 0
        browser.run("document.querySelector('#variables [name=AVAIL]').value = '10'")
        browser.run("document.querySelector('#ask button').click()")
        browser.wait(f"{TEXT}.includes('AVAIL = 10 (assumed)')")
        assert browser.complaints == []


def test_an_upload_cut_in_the_middle_of_the_channel_leaves_nothing(house: House, tmp_path: Path) -> None:
    certificate, key = fresh(tmp_path, "new", 400, "brainpoolP256r1")
    body, kind = form(certificate=certificate, key=key)
    fields = f"Host: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    head = f"PUT /api/v1/certificates/new HTTP/1.1\r\n{fields}"
    with gateway(tmp_path, house.door) as port:
        half = socket.create_connection(("127.0.0.1", port), 5)
        half.sendall(head.encode() + body[: len(body) // 2])
    half.close()
    with gateway(tmp_path, house.door) as port, socket.create_connection(("127.0.0.1", port), 5) as whole:
        assert house.bridge.store.names() == ["cls", "smgw"]
        whole.sendall(head.encode() + body)
        assert b"200 OK" in whole.recv(4096)
    assert house.bridge.store.names() == ["cls", "new", "smgw"]


def test_what_is_typed_in_one_form_survives_that_the_other_is_saved(house: House, tmp_path: Path) -> None:
    address = "document.querySelector('[name=\"smgw.address\"]').value"
    with house.reached_by("lan") as (site, shown), chromium(tmp_path / "profile") as browser:
        browser.call("Network.setExtraHTTPHeaders", headers=shown)
        visit(browser, f"{site}/configuration", "Smart meter gateway")
        browser.wait("document.querySelector('#file textarea').value.includes('Musterweg')")
        browser.run("document.querySelector('#file textarea').value += '# typed for an hour\\n'")
        fill(browser, "gateway", **{"smgw.address": "192.0.2.1:4433"})
        press(browser, "gateway", "Saved and in force.")
        assert browser.run("document.querySelector('#file textarea').value.includes('# typed for an hour')")
        press(browser, "file", "changed meanwhile")
        fill(browser, "gateway", **{"smgw.address": "192.0.2.2:4433"})
        browser.run("document.querySelector('#file [type=reset]').click()")
        browser.wait("document.querySelector('#file textarea').value.includes('192.0.2.1:4433')")
        assert browser.run(address) == "192.0.2.2:4433"
        press(browser, "gateway", "Saved and in force.")
        browser.wait("document.querySelector('#file textarea').value.includes('192.0.2.2:4433')")


def test_what_somebody_else_has_changed_meanwhile_is_not_replaced_unseen(house: House, tmp_path: Path) -> None:
    with house.reached_by("lan") as (site, shown), chromium(tmp_path / "profile") as browser:
        browser.call("Network.setExtraHTTPHeaders", headers=shown)
        visit(browser, f"{site}/configuration", "Smart meter gateway")
        browser.wait("document.querySelector('#file textarea').value.includes('Musterweg')")
        assert house.bridge.patch(smgw__address="192.0.2.9:4433", smgw__session_max_h=24)[0] == 200
        eventually(lambda: house.bridge.ask("GET", "/healthz")[0] == 200)
        fill(browser, "gateway", **{"smgw.address": "192.0.2.1:4433"})
        press_until(browser, "gateway", "Somebody else has changed smgw.address meanwhile, to 192.0.2.9:4433")
        assert "192.0.2.9" in house.bridge.file.read_text()
        press(browser, "gateway", "Saved and in force.")
        assert "address: 192.0.2.1:4433" in house.bridge.file.read_text()
        assert "session_max_h: 24" in house.bridge.file.read_text()


def test_who_takes_away_his_own_role_is_told_so(house: House, tmp_path: Path) -> None:
    with house.reached_by("smgw") as (site, shown), chromium(tmp_path / "profile") as browser:
        browser.call("Network.setExtraHTTPHeaders", headers=shown)
        visit(browser, f"{site}/configuration", "Smart meter gateway")
        browser.wait("document.querySelector('#file textarea').value.includes('Musterweg')")
        fill(browser, "gateway", **{"smgw.role": "supplier"})
        press(browser, "gateway", "Saved, but it cannot be shown here any more: the smgw door, role supplier,")
