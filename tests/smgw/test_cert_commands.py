"""``smgw-bridge cert`` as a user meets it: what it prints, what it leaves on disk, its exit code."""

from __future__ import annotations

import argparse
import io
import json
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.__main__ import main
from bridge.smgw import cert_arguments, issue
from tests.smgw.openssl import Workshop, openssl

pytestmark = pytest.mark.system("openssl")

SITE = """\
http: {listen: "127.0.0.1:8080", certificate: lan}
grid: {connection_power_w: 55000}
"""

Cert = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cert:
    """Run a ``cert`` action on the configuration above; returns exit code, output and errors."""
    (tmp_path / "bridge.yaml").write_text(SITE)
    where = ("-c", str(tmp_path / "bridge.yaml"), "--state-dir", str(tmp_path / "state"))

    def run(action: str, *arguments: object, given: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        try:
            code = main(["cert", action, *map(str, arguments), *where])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "workshop")


def test_from_creation_to_removal(cert: Cert, tmp_path: Path) -> None:
    assert cert("list") == (0, "no certificates\n", "")
    assert not (tmp_path / "state").exists()
    code, shown, _ = cert("create", "cls", "--curve", "P-384", "--cn", "Keller", "--san", "10.0.0.1", "--san", "a.b")
    assert code == 0
    assert re.search(r"^key type: +EC secp384r1$", shown, re.MULTILINE)
    assert re.search(r"^sans: +10\.0\.0\.1, a\.b$", shown, re.MULTILINE)
    assert re.search(r"^used as: +-$", shown, re.MULTILINE)
    assert cert("show", "cls") == (0, shown, "")
    file = tmp_path / "state" / "certificates" / "cls.crt"
    assert f"file:               {file}\n" in shown
    said = openssl("x509", "-in", file, "-noout", "-fingerprint", "-sha256", "-checkend", 3649 * 86_400)
    assert re.search(r"^fingerprint sha256: (.+)$", shown, re.MULTILINE)[1] in said  # type: ignore[index]
    code, listed, _ = cert("list")
    assert code == 0
    assert re.fullmatch(r"cls: own, EC secp384r1, until \d{4}-\d\d-\d\d, not in use, SHA-256 (.+)\n", listed)
    assert listed.rpartition(" ")[2].strip() in said
    assert cert("create", "cls") == (1, "", "cls: there is a certificate of this name; say replace to replace it\n")
    assert cert("create", "cls", "--replace", "--days", 20)[0] == 0
    assert re.search(r", not in use, expires within 30 days, on \d{4}-\d\d-\d\d, SHA-256 ", cert("list")[1])
    assert cert("delete", "cls") == (0, "", "")
    assert cert("show", "cls") == (1, "", "cls: no such certificate; there are none\n")


def test_what_the_configuration_uses_is_not_deleted(cert: Cert) -> None:
    cert("create", "lan")
    assert "in use as http.certificate" in cert("list")[1]
    assert cert("delete", "lan") == (1, "", "lan is in use as http.certificate\n")
    assert cert("show", "lan")[0] == 0


def test_what_the_configuration_uses_is_not_replaced_by_what_it_cannot_use(cert: Cert, tmp_path: Path) -> None:
    smgw = 'smgw: {certificate: cls, gateway_certificate: smgw, listen: "127.0.0.1:8443"}\n'
    (tmp_path / "bridge.yaml").write_text(SITE + smgw)
    for name in ("cls", "smgw", "other"):
        assert cert("create", name)[0] == 0
    code, _, reason = cert("create", "cls", "--replace", "--curve", "P-256")
    assert (code, "crypto bsi-brainpool256 needs brainpoolP256r1. It is in use as smgw.certificate" in reason) == (
        1,
        True,
    )
    assert cert("create", "other", "--replace", "--curve", "P-256")[0] == 0
    assert cert("create", "cls", "--replace")[0] == 0


def test_request_and_import(cert: Cert, workshop: Workshop) -> None:
    code, asked, errors = cert("request", "cls", "--san", "bridge.local")
    assert (code, errors) == (0, "")
    assert "verify OK" in openssl("req", "-verify", "-noout", given=asked.encode())
    assert cert("list")[1] == "cls: a request waits for its answer\n"
    assert json.loads(cert("list", "--json")[1]) == [{"name": "cls", "waiting": True}]
    assert cert("request", "cls")[0] == 1
    workshop.made("root")
    workshop.signed(asked.encode(), "answer", by="root")
    code, _, errors = cert("import", "cls", workshop.path("root.pem"))
    assert (code, errors.partition(":")[0]) == (1, str(workshop.path("root.pem")))
    assert cert("import", "cls", workshop.path("answer.pem"))[0] == 0
    (row,) = json.loads(cert("list", "--json")[1])
    assert (row["name"], row["has_key"], row["issuer"], row["waiting"]) == ("cls", True, "CN=root", False)


def test_import_and_export_with_passwords(cert: Cert, workshop: Workshop, tmp_path: Path) -> None:
    workshop.made("x", "brainpoolP256r1")
    workshop.pkcs12("x", "geheim")
    file = workshop.path("x.p12")
    assert cert("import", "x", file) == (1, "", f"{file}: its password is needed\n")
    wrong = cert("import", "x", file, "--password-stdin", given="wrong\n")
    assert wrong == (1, "", f"{file}: the password is wrong, or the file is damaged\n")
    assert cert("import", "x", file, "--password-stdin", given="geheim\n")[0] == 0

    backup = tmp_path / "backup.p12"
    assert cert("export", "x", backup) == (1, "", "a backup needs a password\n")
    assert cert("export", "x", backup, "--password-stdin", given="\n")[0] == 1
    assert not backup.exists()
    assert cert("export", "x", backup, "--password-stdin", given="long enough\r\n") == (0, "", "")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert "BEGIN PRIVATE KEY" in openssl("pkcs12", "-in", backup, "-noenc", "-passin", "pass:long enough")
    again = cert("export", "x", backup, "--password-stdin", given="long enough\n")
    assert again == (1, "", f"{backup}: cannot be written: File exists\n")


def test_import_with_the_key_in_a_file_of_its_own(cert: Cert, workshop: Workshop, tmp_path: Path) -> None:
    workshop.made("x")
    workshop.made("y")
    pem, absent = workshop.path("x.pem"), tmp_path / "absent"
    assert cert("import", "x", absent) == (1, "", f"{absent}: cannot be read: No such file or directory\n")
    code, _, errors = cert("import", "x", pem, "--key", workshop.path("y.key"))
    assert (code, errors) == (1, f"{workshop.path('y.key')}: is not the key of the certificate in {pem}\n")
    assert cert("import", "x", pem, "--key", workshop.path("x.key"))[0] == 0
    assert cert("import", "x", pem, "--key", workshop.path("x.key"), "--replace")[0] == 0
    assert cert("import", "gateway", workshop.path("y.pem"))[0] == 0
    assert re.findall(r"^(\w+): (own|a peer's), ", cert("list")[1], re.MULTILINE) == [
        ("gateway", "a peer's"),
        ("x", "own"),
    ]


def test_private_keys_are_never_shown(cert: Cert, tmp_path: Path) -> None:
    shown = [cert("create", "cls"), cert("show", "cls"), cert("list"), cert("list", "--json"), cert("request", "cls")]
    folder = tmp_path / "state" / "certificates"
    secrets = [line for file in folder.glob("*.key") for line in file.read_text().split("\n")[1:-2]]
    assert len(secrets) > 4
    assert not [secret for secret in secrets if secret in str(shown)]


def test_one_that_cannot_be_read_does_not_hide_the_others(cert: Cert, tmp_path: Path) -> None:
    cert("create", "cls")
    broken = tmp_path / "state" / "certificates" / "broken.crt"
    broken.write_text("nonsense")
    code, listed, _ = cert("list")
    assert code == 1
    assert listed.startswith(f"broken: {broken}: neither PEM nor DER nor PKCS#12\ncls: own")
    rows = json.loads(cert("list", "--json")[1])
    assert [row["name"] for row in rows if "error" in row] == ["broken"]


@pytest.mark.parametrize("arguments", [["create"], ["create", "x", "--days", "soon"], ["polish"], ["import", "x"]])
def test_wrong_usage(cert: Cert, arguments: list[str]) -> None:
    assert cert(*arguments)[0] == 2


def test_defaults_are_those_of_the_makers() -> None:
    created = actions()["create"].parse_args(["x"])
    assert (created.curve, created.days) == (issue.CURVE, issue.DAYS)


def test_help_loads_no_cryptography() -> None:
    """It would cost every other command a moment and 17 MB."""
    code = "import sys; import bridge.__main__ as m; m._parser(); print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr


def actions() -> dict[str, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser()
    cert_arguments.add_to(parser)
    (found,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


def test_every_action_is_documented_with_its_options() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    section = page.split("\n## cert\n")[1].split("\n## ")[0]
    documented = {row.split()[0]: row for row in re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)}
    assert documented.keys() == actions().keys()
    for name, parser in actions().items():
        options = {action.option_strings[0] for action in parser._actions if action.option_strings} - {"-h"}
        assert set(re.findall(r"--[a-z-]+", documented[name])) == options, name
    assert f"{issue.DAYS} days" in section
    assert f"`{issue.CURVE}` (the default)" in section
