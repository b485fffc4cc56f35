"""What can go wrong, sorted by what the caller does next.

::

    BridgeError
    ├── ConfigError    the configuration is wrong: show every mistake, do not start
    ├── BadRequest     the caller asked for something impossible: tell why (HTTP 400)
    │   └── NotFound   the caller named something that is not there (HTTP 404)
    └── LinkError      the other end of a link: LinkDown, LinkTimeout, Refused, Nonsense
"""

from __future__ import annotations

from collections.abc import Sequence


class BridgeError(Exception):
    """Root of every error the bridge raises on purpose."""


class ConfigError(BridgeError):
    """A configuration or profile file has mistakes; all of them are listed.

    ``mistakes`` holds one text each: ``file:line: key: what is wrong, what is allowed``.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class BadRequest(BridgeError):
    """The caller asked for something impossible; the text tells why."""


class NotFound(BadRequest):
    """The caller named something that is not there."""


class LinkError(BridgeError):
    """Something is wrong with a link to a device or peer."""


class LinkDown(LinkError):
    """No connection: stop asking until it is back."""


class LinkTimeout(LinkError):
    """No answer in time: the connection must be dropped, a late answer must never be matched."""


class Refused(LinkError):
    """The device understood and said no. ``code`` is its exception code (Modbus: 1 to 11)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Nonsense(LinkError):
    """The answer does not fit the question: drop the connection."""
