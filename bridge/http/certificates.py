"""``/api/v1/certificates``: what is in the store. A private key only ever leaves it in the encrypted backup."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from flask import Flask, Response, request

from bridge.errors import BadRequest, BridgeError, NotFound
from bridge.http import cnf
from bridge.http.access import Refusal
from bridge.http.administration import Certificates
from bridge.http.api import text_of

PATH = "/api/v1/certificates"

MAX_FILE = 128 * 1024
"""Bytes of a certificate file; one with a long chain has about 10 kB."""

_KINDS = {str: "a text", list: "a list of texts", bool: "true or false", int: "a whole number"}
_WISH = {"cn": str, "san": list, "curve": str, "replace": bool}


class Upload(NamedTuple):
    """A certificate as it was sent."""

    certificate: bytes
    key: bytes | None = None
    password: str | None = None
    replace: bool = False


class CertificateViews:
    """The views."""

    def __init__(self, store: Certificates) -> None:
        self._store = store

    def listing(self) -> Response:
        """All of them."""
        with _asked():
            return _json({"certificates": list(self._store.listing())})

    def facts(self, name: str) -> Response:
        """One of them."""
        with _asked():
            return _json(self._store.facts(name))

    def pem(self, name: str) -> Response:
        """The certificate as a file."""
        with _asked():
            return _file(self._store.pem(name), "application/x-pem-file", f"{name}.crt")

    def put(self, name: str) -> Response:
        """Take a file."""
        sent = upload()
        with _asked():
            return _json(self._store.put(name, *sent))

    def create(self, name: str) -> Response:
        """Make one of our own."""
        wish = _document(_WISH | {"days": int})
        with _asked():
            return _json(self._store.create(name, *_wished(wish), wish.get("days"), wish.get("replace", False)))

    def request(self, name: str) -> Response:
        """Make a key, and the request for its certificate."""
        wish = _document(_WISH)
        with _asked():
            text = self._store.request(name, *_wished(wish), wish.get("replace", False))
            return _file(text, "application/x-pem-file", f"{name}.csr")

    def export(self, name: str) -> Response:
        """A backup with the key."""
        password = _document({"password": str}).get("password", "")
        with _asked():
            return _file(self._store.export(name, password), "application/x-pkcs12", f"{name}.p12")

    def delete(self, name: str) -> Response:
        """Remove it."""
        with _asked():
            self._store.delete(name)
        return _json("ok")


def add_to(app: Flask, store: Certificates) -> None:
    """The routes."""
    views = CertificateViews(store)
    one = f"{PATH}/<name>"
    app.get(PATH, endpoint="certificates")(views.listing)
    app.get(one, endpoint="certificate")(views.facts)
    app.get(f"{one}/pem", endpoint="certificate-pem")(views.pem)
    app.put(one, endpoint="certificate-put")(views.put)
    app.delete(one, endpoint="certificate-delete")(views.delete)
    app.post(f"{one}/create", endpoint="certificate-create")(views.create)
    app.post(f"{one}/request", endpoint="certificate-request")(views.request)
    app.post(f"{one}/export", endpoint="certificate-export")(views.export)


def upload() -> Upload:
    """The certificate in a request: a form with files, JSON with Base64, or the bytes of the file themselves."""
    if request.mimetype == "multipart/form-data":
        files = {field: file.read() for field, file in request.files.items()}
        form = request.form
        sent = Upload(
            files.get("certificate", b""), files.get("key"), form.get("password"), form.get("replace") == "true"
        )
    elif request.mimetype == "application/json":
        document = _document({"certificate": str, "key": str, "password": str, "replace": bool})
        files = {field: _decoded(field, document[field]) for field in ("certificate", "key") if field in document}
        password, replace = document.get("password"), document.get("replace", False)
        sent = Upload(files.get("certificate", b""), files.get("key"), password, replace)
    else:
        sent = Upload(request.get_data(), replace=request.args.get("replace") == "true")
    if not sent.certificate:
        raise Refusal(400, "certificate: a file is expected (PEM, DER or PKCS#12)")
    if max(len(sent.certificate), len(sent.key or b"")) > MAX_FILE:
        raise Refusal(413, f"a certificate file has at most {MAX_FILE // 1024} kB")
    # Browsers send fields that were left empty, too.
    return sent._replace(key=sent.key or None, password=sent.password or None)


@contextmanager
def _asked() -> Iterator[None]:
    """What the store says to a request becomes its answer."""
    try:
        yield
    except NotFound as error:
        raise Refusal(404, str(error)) from None
    except BadRequest as error:
        raise Refusal(400, str(error)) from None
    except (BridgeError, OSError) as error:
        raise Refusal(503, str(error)) from None


def _document(shape: Mapping[str, type]) -> dict[str, Any]:
    """The body, a JSON object with these fields at most."""
    document = cnf.read_json(request.get_data() or b"{}")
    if not isinstance(document, dict) or not document.keys() <= shape.keys():
        raise Refusal(400, f"the body is a JSON object with {', '.join(shape)}")
    for field, value in document.items():
        texts = not isinstance(value, list) or all(isinstance(one, str) for one in value)
        if type(value) is not shape[field] or not texts:
            raise Refusal(400, f"{field}: {_KINDS[shape[field]]} is expected")
    return document


def _wished(wish: Mapping[str, Any]) -> tuple[str | None, Sequence[str], str | None]:
    return wish.get("cn"), wish.get("san", []), wish.get("curve")


def _decoded(field: str, text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one
        raise Refusal(400, f"{field}: not Base64: {error}") from None


def _json(value: object) -> Response:
    return Response(text_of(value), content_type="application/json")


def _file(content: str | bytes, kind: str, name: str) -> Response:
    # The store takes no name that could mean anything else in a header.
    return Response(content, content_type=kind, headers=[("Content-Disposition", f'attachment; filename="{name}"')])
