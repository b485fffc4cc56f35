"""``/api/v1/config``: the configuration as text, replaced as a whole or in single values."""

from __future__ import annotations

import re
import threading
from hashlib import sha256

from flask import Flask, Response, request

from bridge.errors import BadRequest, BridgeError, ConfigError
from bridge.http import cnf
from bridge.http.access import Refusal
from bridge.http.administration import ConfigFile
from bridge.http.api import text_of
from bridge.http.yamltext import Change, document, edited

PATH = "/api/v1/config"


class Configuration:
    """The views. One change at a time, so that each is based on what is there."""

    def __init__(self, file: ConfigFile) -> None:
        self._file = file
        self._turn = threading.Lock()

    def get(self) -> Response:
        """The text, or what it says as JSON for who accepts nothing else."""
        text = self._read()
        kinds = ["application/yaml", "application/json"]
        headers = [("ETag", _tag(text)), ("Vary", "Accept")]
        if request.accept_mimetypes.best_match(kinds) != "application/json":
            return Response(text, content_type="application/yaml; charset=utf-8", headers=headers)
        try:
            return Response(text_of(document(text)), content_type="application/json", headers=headers)
        except BadRequest as error:
            raise Refusal(503, str(error)) from None

    def put(self) -> Response:
        """Replace the whole text."""
        try:
            text = request.get_data().decode()
        except UnicodeDecodeError as error:
            raise Refusal(400, f"the text is not UTF-8: {error}") from None
        with self._turn:
            self._check_unchanged(self._read())
            return self._adopt(text)

    def patch(self) -> Response:
        """Change single values; comments and order stay."""
        changes = _changes(cnf.read_json(request.get_data()))
        with self._turn:
            text = self._read()
            self._check_unchanged(text)
            try:
                return self._adopt(edited(text, changes))
            except BadRequest as error:
                raise Refusal(400, str(error)) from None

    def _read(self) -> str:
        try:
            return self._file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise Refusal(503, f"the configuration cannot be read: {error}") from None

    def _check_unchanged(self, text: str) -> None:
        if request.if_match and not request.if_match.contains(_tag(text).strip('"')):
            raise Refusal(412, "the configuration was changed meanwhile: read it again", ("ETag", _tag(text)))

    def _adopt(self, text: str) -> Response:
        try:
            restart = self._file.adopt(text)
        except ConfigError as error:
            mistakes = [mistake_of(mistake) for mistake in error.mistakes]
            return Response(text_of(mistakes), 400, content_type="application/json")
        except (OSError, BridgeError) as error:
            raise Refusal(503, f"not changed: {error}") from None
        return Response(text_of({"restart": restart}), content_type="application/json", headers=[("ETag", _tag(text))])


def add_to(app: Flask, file: ConfigFile) -> None:
    """The routes."""
    views = Configuration(file)
    app.get(PATH)(views.get)
    app.put(PATH)(views.put)
    app.patch(PATH)(views.patch)


def _tag(text: str) -> str:
    return f'"{sha256(text.encode()).hexdigest()[:32]}"'


def _changes(sent: object) -> list[Change]:
    changes: list[Change] = []
    for change in sent if isinstance(sent, list) else [sent]:
        if not isinstance(change, dict) or change.keys() != {"path", "value"} or not isinstance(change["path"], str):
            raise Refusal(400, 'the body is a list of {"path": "smgw.address", "value": …}; null removes a key')
        changes.append((change["path"], change["value"]))
    return changes


def mistake_of(text: str) -> dict[str, object]:
    """Line and reason of ``file:line: key: what is wrong``; line None where it is that of another file."""
    match = re.match(r"[^:]*:(\d+): ", text)
    return {"line": int(match[1]) if match else None, "problem": text[match.end() :] if match else text}
