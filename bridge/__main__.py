"""The command line. Exit codes: 0 fine, 1 a problem was found, 2 wrong usage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from bridge import __version__, commands, config
from bridge.errors import BridgeError, ConfigError
from bridge.smgw import cert_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(_formula_kept(sys.argv[1:] if arguments is None else arguments))
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except ConfigError as error:
        print("\n".join(error.mistakes), file=sys.stderr)
    except BridgeError as error:
        print(error, file=sys.stderr)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
    except KeyboardInterrupt:
        pass
    return 1


def _formula_kept(arguments: Sequence[str]) -> Sequence[str]:
    """``-2^2`` after ``try`` is a formula: only what asks for help is an option there."""
    if len(arguments) > 1 and arguments[0] == "try" and not "--help".startswith(arguments[1]) and arguments[1] != "-h":
        return ["try", "--", *arguments[1:]]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="smgw-bridge", description="From the smart meter gateway to the wallboxes.")
    parser.add_argument("--version", action="version", version=f"smgw-bridge {__version__}")
    known = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        sub = known.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        return sub

    def with_file(sub: argparse.ArgumentParser) -> None:
        otherwise = f"else $SMGW_BRIDGE_CONFIG, else {config.DEFAULT_FILE}"
        sub.add_argument("-c", "--config", metavar="FILE", help=otherwise)

    def with_state(sub: argparse.ArgumentParser) -> None:
        with_file(sub)
        sub.add_argument("--state-dir", metavar="DIR", help="where variables and the password are kept")

    sub = add("run", commands.run, "run the bridge as a service; logs go to standard error, SIGTERM ends it")
    with_state(sub)
    sub = add("demo", commands.demo, "run the bridge with a simulated site")
    sub.add_argument("--listen", metavar="HOST:PORT", help="where the pages are (127.0.0.1:8080)")
    with_state(add("check", commands.check, "show every mistake in the configuration"))
    with_state(add("passwd", commands.passwd, "set the admin password, asked for or read from standard input"))
    sub = add("profiles", commands.profiles, "list the device profiles, or check profile files")
    sub.add_argument("files", nargs="*", metavar="FILE")
    sub.add_argument("--schema", action="store_true", help="print the JSON Schema of profile files, for editors")
    with_file(sub)
    sub = add("probe", commands.probe, "find out what a device is, or read it once by its profile; never writes")
    sub.add_argument("address", metavar="ADDRESS", help="host, host:port, rtu://host:port or /dev/ttyUSB0")
    sub.add_argument("--profile", metavar="NAME", help="print every quantity; left out: try all profiles")
    sub.add_argument("--unit", type=_unit, metavar="N", help="ask this unit instead of the profile's: 0 to 255")
    sub.add_argument("--json", action="store_true")
    with_file(sub)
    sub = add("try", commands.try_, "evaluate a formula and print its value, or the reason why it has none")
    sub.add_argument("formula", metavar="FORMULA")
    sub.add_argument("values", nargs="*", metavar="NAME=VALUE")
    sub = add(
        "explain", commands.explain, "show every limit, who binds, and what each wallbox gets and why; sets nothing"
    )
    sub.add_argument("values", nargs="*", metavar="NAME=VALUE", help="AVAIL=50, M1.power_w=3000 or E1.state=A")
    with_state(sub)
    sub = add("simulate", commands.simulate, "run only the simulated devices, on the addresses in the configuration")
    with_state(sub)
    what = "what goes wrong at the gateway: deaf, other-certificate, curve=CURVE, refuse=CODE, idle=S, session=S"
    sub.add_argument("--fault", metavar="FAULT", type=commands.fault, action="append", default=[], help=what)
    sub = add(
        "smgw-check", commands.smgw_check, "walk the channel through the gateway; says at which step it fails, and why"
    )
    with_state(sub)
    sub.add_argument(
        "--to", metavar="HOST:PORT", type=_place, help="a destination behind the gateway (smgw.destination)"
    )
    sub = add("journal", commands.journal, "verify or export the journal of grid commands and their effect")
    sub.add_argument("action", metavar="verify|export", choices=("verify", "export"))
    sub.add_argument("--format", choices=("csv", "json"), default="csv", help="default: %(default)s")
    sub.add_argument("--from", dest="since", default="", metavar="T", help="a day, or a time: 2026-11-22T12:00")
    sub.add_argument("--to", dest="until", default="", metavar="T", help="a day, which is included, or a time")
    with_state(sub)
    cert_arguments.add_to(add("cert", commands.cert, "look after the certificates"), with_state)
    return parser


def _unit(text: str) -> int:
    if not text.isdecimal() or int(text) > 255:
        raise argparse.ArgumentTypeError(f"{text} is no unit; allowed: 0 to 255")
    return int(text)


def _place(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no HOST:PORT")
    return text


if __name__ == "__main__":
    sys.exit(main())
