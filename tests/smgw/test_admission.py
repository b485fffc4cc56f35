"""What the configuration makes of the certificates: mistakes with their lines, and contexts that follow the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge import app, config
from bridge.errors import BridgeError, ConfigError
from bridge.smgw import admission
from bridge.smgw.following import LOOK_S, Following
from bridge.smgw.issue import Wish
from bridge.smgw.store import Store

SITE = """\
grid: {connection_power_w: 55000}
state_dir: STATE
http:
  certificate: lan
smgw:
  certificate: cls
  gateway_certificate: smgw
  listen: 127.0.0.1:8443
  far_ends:
    - {certificate: other}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Everything the site needs."""
    store = app.store_in(tmp_path)
    for name in ("cls", "smgw", "other"):
        store.create(name, Wish(name))
    store.create("lan", Wish("lan", curve="P-256"))
    return store


def prepared(folder: Path, *change: str) -> app.Setup:
    text = SITE.replace("STATE", str(folder))
    assert not change or change[0] in text
    file = folder / "bridge.yaml"
    file.write_text(text.replace(*change) if change else text)
    return app.prepare(file)


def mistakes(folder: Path, *change: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        prepared(folder, *change)
    return [mistake.removeprefix(f"{folder}/bridge.yaml:") for mistake in caught.value.mistakes]


def test_a_site_whose_certificates_are_there_is_fine(tmp_path: Path, store: Store) -> None:
    setup = prepared(tmp_path)
    assert app.secured(setup.config, store).keys() == {"lan", "smgw"}
    assert not [*admission.hints(store, "lan")]
    assert app.prepare(tmp_path / "bridge.yaml", str(tmp_path)).config.smgw


def test_the_state_directory_that_is_given_comes_first(tmp_path: Path, store: Store) -> None:
    prepared(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"smgw\.certificate"):
        app.prepare(tmp_path / "bridge.yaml", str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("certificate: cls", "certificate: none"), "6: smgw.certificate: none: no such certificate"),
        (("certificate: lan", "certificate: peer"), "4: http.certificate: peer has no private key"),
        (
            ("certificate: cls", "certificate: lan"),
            "6: smgw.certificate: lan has the key EC secp256r1, but crypto bsi-brainpool256 needs brainpoolP256r1",
        ),
        (
            ("{certificate: other}", "{certificate: smgw}"),
            "10: smgw.far_ends[0].certificate: smgw is the same certificate as smgw.gateway_certificate",
        ),
        (("  listen: 127.0.0.1:8443\n", ""), "8: smgw.far_ends: they are known by their certificates"),
        (("listen: 127.0.0.1:8443", "listen: 127.0.0.1:8443\n  tls: false"), "10: smgw.far_ends: they are known"),
        (("  certificate: lan", "  listen: 127.0.0.1:8443"), "8: smgw.listen: 127.0.0.1:8443 is taken: line 4"),
    ],
)
def test_mistakes_are_named_with_their_lines(tmp_path: Path, store: Store, change: tuple[str, str], line: str) -> None:
    store.put("peer", store.load("lan").certificate_file.read_bytes())
    found = mistakes(tmp_path, *change)
    assert [mistake[: len(line)] for mistake in found] == [line]


def test_a_peer_is_not_replaced_by_another_who_has_a_role_already(tmp_path: Path, store: Store) -> None:
    """One would get the role of the other, and the next start would fail on the two."""
    theirs = store.load("smgw").certificate_file.read_bytes()
    store.delete("other", {})
    store.put("other", fresh := Store(tmp_path / "elsewhere").create("x", Wish("x")).certificate_file.read_bytes())
    setup = prepared(tmp_path)
    careful = app.store_in(tmp_path, lambda: setup.config)
    used = store.load("other").fingerprint
    with pytest.raises(BridgeError, match="other is the same certificate as smgw: one peer has one role"):
        careful.put("other", theirs, replace=True)
    assert store.load("other").fingerprint == used
    careful.put("other", fresh, replace=True)
    careful.put("free", theirs)


def test_browsers_and_brainpool_are_worth_a_hint(store: Store) -> None:
    assert "browsers" in next(admission.hints(store, "cls"))


def test_a_door_is_not_made_without_its_certificates(tmp_path: Path, store: Store) -> None:
    found = prepared(tmp_path).config
    store.delete("smgw", {})
    with pytest.raises(BridgeError, match="smgw: no such certificate"):
        app.secured(found, store)


def test_what_follows_the_store_is_made_anew_when_a_certificate_is(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    following = Following(store, ["cls"], lambda: store.load("cls").fingerprint, lambda: now[0])
    first = following()
    second = store.create("cls", Wish("cls"), replace=True).fingerprint
    assert following() == first
    now[0] += LOOK_S
    assert following() == second != first
    store.delete("cls", {})
    for _ in range(3):
        now[0] += LOOK_S
        assert following() == second
    assert caplog.text.count("the change is not used") == 1


def test_the_file_of_the_format_is_read(tmp_path: Path) -> None:
    (tmp_path / "bridge.yaml").write_text("grid: {connection_power_w: A}\nvariables: {A: {function: tariffs}}\n")
    assert config.load(tmp_path / "bridge.yaml").variables["A"].function == "tariffs"
