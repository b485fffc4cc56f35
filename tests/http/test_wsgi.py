"""The short cut for plain heads reads exactly what waitress reads."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from waitress.parser import HTTPRequestParser

from bridge.http import wsgi

PIECES = st.sampled_from(
    b"GET |POST |/cnf?cmd=x&a=%20+b|/|//a?b|?|#f|%41| HTTP/1.1| HTTP/1.0|\r\n|\n|\r| |\t|:|Host: a|Host:b |X-Y: a:b|"
    b"x_y: 1|Content-Length: 0|Connection: close|Expect: 100-continue|Transfer-Encoding: chunked|http://h/p|\x0b|\x85|\xe4".split(
        b"|"
    )
)
LINES = st.lists(st.lists(PIECES, max_size=3).map(b"".join), max_size=4)
HEADS = st.tuples(st.sampled_from([b"GET /a?b=c HTTP/1.1", b"GET / HTTP/1.1", b""]), LINES).map(
    lambda parts: b"\r\n".join([parts[0], *parts[1], b"", b""])
)

SEEN = ("completed", "empty", "headers", "connection_close", "chunked", "content_length", "expect_continue", "version")


@given(head=HEADS | st.lists(PIECES).map(lambda pieces: b"".join(pieces) + b"\r\n\r\n"))
@example(b"GET /cnf?cmd=set_cm_vars&name=A&val=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Basic x==\r\n\r\n")
@example(b"GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"GET //a HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"GET /a?b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
@example(b"GET /? HTTP/1.1\r\nHost:\t a \t\r\nX: \r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n")
def test_ours_and_waitress_read_the_same(head: bytes) -> None:
    ours, theirs = wsgi.new_request(), HTTPRequestParser(wsgi._Limits)
    assert ours.received(head) == theirs.received(head)
    assert (ours.error is None) == (theirs.error is None)
    if theirs.error is None:
        for name in SEEN:
            assert getattr(ours, name) == getattr(theirs, name), name
        if not theirs.empty:
            for name in ("command", "path", "query"):
                assert getattr(ours, name) == getattr(theirs, name), name


def test_the_short_cut_is_taken_for_a_grid_command() -> None:
    head = b"GET /cnf?cmd=set_cm_vars&name=AVAIL&val=50 HTTP/1.1\r\nHost: a:80\r\nUser-Agent: curl/8\r\n\r\n"
    assert wsgi._PLAIN.fullmatch(head)
