"""Between a parsed request and a WSGI application: the environ, the call, and the answer as bytes. No sockets."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable
from email.utils import formatdate
from types import TracebackType
from typing import Any, NamedTuple, Protocol, cast

from waitress.parser import HTTPRequestParser

logger = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"

MAX_HEAD = 16 * 1024
MAX_BODY = 1024 * 1024

Headers = list[tuple[str, str]]
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None


class App(Protocol):
    """A WSGI application (PEP 3333)."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any], /) -> Iterable[bytes]:
        """Answer one request."""


class QuickApp(App, Protocol):
    """An application that can do some things on the spot."""

    def begin(self, environ: dict[str, Any], /) -> Callable[[], Answer] | None:
        """Do at once what needs no waiting; returns what is left to do, or None when nothing has happened."""


class Request(Protocol):
    """What is used of waitress's parser, the one part of HTTP that is not ours."""

    completed: bool
    empty: bool
    headers_finished: bool
    expect_continue: bool
    connection_close: bool
    chunked: bool
    error: Any
    version: str
    command: str
    path: str
    query: str
    headers: dict[str, str]

    def received(self, data: bytes) -> int:
        """Take in bytes; tells how many of them belong to this request."""

    def get_body_stream(self) -> Any:
        """The body as a file."""


class _Limits:
    """The settings the parser asks for. A body never gets as long as to overflow to disk."""

    max_request_header_size = MAX_HEAD
    max_request_body_size = MAX_BODY + 1
    inbuf_overflow = 2 * MAX_BODY
    url_scheme = "http"


class Answer(NamedTuple):
    """What goes back: ``status`` like ``200 OK``."""

    status: str
    headers: Headers
    body: bytes

    @property
    def is_stream(self) -> bool:
        """Whether more will follow until the connection ends."""
        return any(name == "Content-Type" and value.startswith(EVENT_STREAM) for name, value in self.headers)


_PLAIN = re.compile(
    rb"GET (/(?!/)[A-Za-z0-9_./-]*)(?:\?([!-\"$-~]*))? HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[ -~]*\r\n)+)\r\n"
)
_FRAMING = frozenset({"CONTENT_LENGTH", "TRANSFER_ENCODING", "CONNECTION", "EXPECT"})


class _Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """Waitress's parser with a short cut for the plainest heads, which saves a fifth of the time to the hub.

    Only a GET that comes in one piece, without a body, without anything that decides about framing, and without a field
    given twice takes it; every other head is waitress's. A test holds the two together.
    """

    completed: bool

    def received(self, data: bytes) -> int:
        at_the_start = self.body_rcv is None and not self.header_plus and not self.completed
        match = _PLAIN.fullmatch(data) if at_the_start else None
        if match is None or not self._is_plain(match[3].decode()):
            return cast(int, super().received(data))
        self.command, self.version = "GET", "1.1"
        self.path = match[1].decode()
        self.query = (match[2] or b"").decode()
        self.headers_finished = self.completed = True
        return len(data)

    def _is_plain(self, lines: str) -> bool:
        """Take in the fields; False when one of them needs a closer look."""
        fields = lines.split("\r\n")[:-1]
        for line in fields:
            name, _, value = line.partition(":")
            self.headers[name.upper().replace("-", "_")] = value.strip(" ")
        if len(self.headers) == len(fields) and self.headers.keys().isdisjoint(_FRAMING):
            return True
        self.headers.clear()
        return False


def new_request() -> Request:
    """A parser for the next request."""
    return cast(Request, _Parser(_Limits))


def objection(request: Request) -> str | None:
    """What is wrong with a head that the parser lets pass; None: nothing.

    A length and chunks together, chunks in HTTP/1.0 and a missing or doubled host are how requests get smuggled past
    whoever reads them differently (RFC 9112, 3.2 and 6.3).
    """
    headers = request.headers
    if request.version not in ("1.0", "1.1"):
        return "HTTP/1.0 and HTTP/1.1 are spoken here"
    if "TRANSFER_ENCODING" in headers or (request.chunked and "CONTENT_LENGTH" in headers):
        return "Transfer-Encoding together with Content-Length or HTTP/1.0"
    host = headers.get("HOST")
    if (host is None and request.version == "1.1") or (host is not None and "," in host):
        return "exactly one Host is needed"
    return None


def environ_of(request: Request, peer: tuple[str, int], here: tuple[str, int], secure: bool) -> dict[str, Any]:
    """The WSGI environ of a complete request; the body is all there."""
    environ = {
        "REQUEST_METHOD": request.command,
        "SCRIPT_NAME": "",
        "PATH_INFO": "/" + request.path.lstrip("/"),
        "QUERY_STRING": request.query,
        "REMOTE_ADDR": peer[0],
        "REMOTE_PORT": str(peer[1]),
        "SERVER_NAME": here[0],
        "SERVER_PORT": str(here[1]),
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if secure else "http",
        "wsgi.input": request.get_body_stream(),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        environ[name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"] = value
    return environ


def answer_of(app: App, environ: dict[str, Any]) -> Answer:
    """Run the application to its end. An exception becomes a 500 and a line in the log."""
    head: list[tuple[str, Headers]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Headers, exc_info: _ExcInfo = None) -> Callable[[bytes], None]:
        head[:] = [(status, headers)]
        return written.append

    try:
        chunks = app(environ, start_response)
        try:
            written.extend(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        status, headers = head[0]
    except Exception:
        logger.exception("%s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"])
        return error_answer("500 Internal Server Error", "internal error; the log of the bridge says more")
    return Answer(status, headers, b"".join(written))


def error_answer(status: str, reason: str) -> Answer:
    """An answer made without the application: a JSON text, as all refusals are."""
    return Answer(status, [("Content-Type", "application/json")], json.dumps(reason).encode())


def answer_bytes(answer: Answer, *, keep: bool, head_only: bool = False) -> bytes:
    """The answer as it goes over the wire. A stream has no length: it ends with the connection."""
    lines = [f"HTTP/1.1 {answer.status}"]
    lines += [f"{name}: {value}" for name, value in answer.headers if name != "Content-Length"]
    if not answer.is_stream and answer.status[:3] not in ("204", "304"):
        length = next((value for name, value in answer.headers if name == "Content-Length"), len(answer.body))
        lines.append(f"Content-Length: {length if head_only else len(answer.body)}")
    lines += [f"Date: {formatdate(usegmt=True)}", f"Connection: {'keep-alive' if keep else 'close'}", "\r\n"]
    head = "\r\n".join(lines).encode("latin-1")
    return head if head_only else head + answer.body
