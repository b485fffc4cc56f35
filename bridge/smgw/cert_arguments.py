"""What ``smgw-bridge cert`` may be followed by. Apart from what it does, so that ``--help`` loads no cryptography."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_to(cert: argparse.ArgumentParser, *shared: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the parser of ``cert`` its actions; each of ``shared`` adds an option that all of them have."""
    actions = cert.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")

    def add(action: str, summary: str, named: bool = True) -> argparse.ArgumentParser:
        sub = actions.add_parser(action, help=summary, description=summary)
        for give in shared:
            give(sub)
        if named:
            sub.add_argument("name", metavar="NAME")
        return sub

    def may_replace(sub: argparse.ArgumentParser, what: str) -> None:
        sub.add_argument("--replace", action="store_true", help=f"{what} of this name may be replaced")

    def wished(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--curve", default="brainpoolP256r1", help="default: %(default)s")
        sub.add_argument("--cn", metavar="CN", help="the common name; left out: NAME")
        sub.add_argument(
            "--san", metavar="SAN", action="append", default=[], help="host name or IP address; may repeat"
        )

    add("list", "what is in the store, and what of it is in use", named=False).add_argument(
        "--json", action="store_true"
    )
    add("show", "everything about a certificate; never its private key")
    add("delete", "remove a certificate and its key, unless it is in use")
    wished(sub := add("create", "make a key, and a certificate that it signs itself"))
    sub.add_argument("--days", type=int, default=3650, metavar="N", help="how long it is valid; default: %(default)s")
    may_replace(sub, "a certificate")
    wished(sub := add("request", "make a key, and print the request (CSR) for its certificate"))
    may_replace(sub, "an earlier request")
    sub = add("import", "take a certificate: PEM, DER or PKCS#12, with or without its private key")
    sub.add_argument("file", metavar="FILE")
    sub.add_argument("--key", metavar="FILE", help="the private key, when it is in a file of its own")
    _password(sub)
    may_replace(sub, "a certificate")
    sub = add("export", "write a certificate with its key to a new file: PKCS#12, encrypted")
    sub.add_argument("file", metavar="FILE")
    _password(sub)


def _password(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--password-stdin", action="store_true", help="the password is the first line of standard input")
