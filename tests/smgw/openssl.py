"""Keys, certificates and files as the openssl command makes them: what users and gateways bring along."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(*arguments: object, given: bytes = b"") -> str:
    """Run openssl and return what it says; fails with its complaint."""
    done = subprocess.run(["openssl", *map(str, arguments)], input=given, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    return (done.stdout + done.stderr).decode(errors="replace")


NEW_KEY = {
    "RSA 2048": ("rsa:2048",),
    "RSA 1024": ("rsa:1024",),
    "Ed25519": ("ed25519",),
}


class Workshop:
    """A folder in which openssl makes things; each is named once and found as ``NAME.pem`` and ``NAME.key``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def path(self, name: str) -> Path:
        return self.folder / name

    def pem(self, name: str) -> bytes:
        return self.path(f"{name}.pem").read_bytes()

    def key(self, name: str) -> bytes:
        return self.path(f"{name}.key").read_bytes()

    def made(self, name: str, kind: str = "prime256v1", *more: object) -> str:
        """A key of a kind (a curve, or in NEW_KEY) and a certificate it signs itself; returns the name."""
        kinds = NEW_KEY.get(kind, ("ec", "-pkeyopt", f"ec_paramgen_curve:{kind}"))
        to = ("-subj", f"/CN={name}", "-keyout", self.path(f"{name}.key"), "-out", self.path(f"{name}.pem"))
        openssl("req", "-x509", "-newkey", *kinds, "-nodes", "-days", 30, *to, *more)
        return name

    def signed(self, request: bytes, name: str, by: str, *, ca: bool = False) -> bytes:
        """The certificate for a request, signed by another, valid for 30 days."""
        extensions = self.path("extensions")
        extensions.write_text(f"basicConstraints=critical,CA:{str(ca).upper()}\n")
        issuer = ("-CA", self.path(f"{by}.pem"), "-CAkey", self.path(f"{by}.key"), "-CAcreateserial")
        openssl(
            *("x509", "-req", "-days", 30, *issuer, "-extfile", extensions, "-out", self.path(f"{name}.pem")),
            given=request,
        )
        return self.pem(name)

    def issuer(self, name: str, by: str, kind: str = "prime256v1") -> bytes:
        """An intermediate certificate that may sign others."""
        openssl(
            "genpkey", "-algorithm", "ec", "-pkeyopt", f"ec_paramgen_curve:{kind}", "-out", self.path(f"{name}.key")
        )
        asked = self.path(f"{name}.csr")
        openssl("req", "-new", "-key", self.path(f"{name}.key"), "-subj", f"/CN={name}", "-out", asked)
        return self.signed(asked.read_bytes(), name, by, ca=True)

    def pkcs12(self, name: str, password: str, *more: object) -> bytes:
        """Certificate and key of that name as PKCS#12."""
        file, parts = self.path(f"{name}.p12"), ("-in", self.path(f"{name}.pem"), "-inkey", self.path(f"{name}.key"))
        openssl("pkcs12", "-export", *parts, "-out", file, "-passout", f"pass:{password}", *more)
        return file.read_bytes()
