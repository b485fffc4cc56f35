"""The command line. Exit codes: 0 fine, 1 a problem was found, 2 wrong usage."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

from bridge import __version__, config
from bridge.core.config import Config, GridConfig
from bridge.core.formulas import FormulaError, NoValue, evaluate, fold, parse
from bridge.core.model import Now, State, Variable
from bridge.core.variables import Names
from bridge.errors import BridgeError, ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="smgw-bridge", description="From the smart meter gateway to the wallboxes.")
    parser.add_argument("--version", action="version", version=f"smgw-bridge {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        return sub

    def with_file(sub: argparse.ArgumentParser) -> None:
        otherwise = f"else $SMGW_BRIDGE_CONFIG, else {config.DEFAULT_FILE}"
        sub.add_argument("-c", "--config", metavar="FILE", help=otherwise)

    def with_state(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--state-dir", metavar="DIR", help="where variables and the password are kept")

    sub = add("run", run, "run the bridge as a service; logs go to standard error, SIGTERM ends it")
    with_file(sub)
    with_state(sub)
    sub = add("demo", demo, "run the bridge with a simulated site")
    sub.add_argument("--listen", metavar="HOST:PORT", help="where the pages are (127.0.0.1:8080)")
    with_file(add("check", check, "show every mistake in the configuration"))
    with_state(sub := add("passwd", passwd, "set the admin password, asked for or read from standard input"))
    with_file(sub)
    sub = add("profiles", profiles, "list the device profiles, or check profile files")
    sub.add_argument("files", nargs="*", metavar="FILE")
    with_file(sub)
    sub = add("probe", probe, "find out what a device is, or read it once by its profile; never writes")
    sub.add_argument("address", metavar="ADDRESS", help="host, host:port, rtu://host:port or /dev/ttyUSB0")
    sub.add_argument("--profile", metavar="NAME", help="print every quantity; left out: try all profiles")
    sub.add_argument("--unit", type=int, metavar="N")
    sub.add_argument("--json", action="store_true")
    with_file(sub)
    sub = add("try", try_, "evaluate a formula and print its value, or the reason why it has none")
    sub.add_argument("formula", metavar="FORMULA")
    sub.add_argument("values", nargs="*", metavar="NAME=VALUE")
    with_file(add("simulate", simulate, "run only the simulated devices, on the addresses in the configuration"))
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the service until SIGTERM or SIGINT."""
    from bridge import app

    setup = app.prepare(config.find(options.config))
    _log()
    return _serve(app.App(setup, _state_dir(config.state_dir(options.state_dir, setup.config))))


def _state_dir(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(folder / ".writable", "w"):
            pass
    except OSError as error:
        raise ConfigError([f"the state directory cannot be written: {error}"]) from error
    return folder


def _serve(*parts: object) -> int:
    """Start the parts in order, wait for a signal, stop them in reverse."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    started: list[object] = []
    try:
        for part in parts:
            part.start()  # type: ignore[attr-defined]
            started.append(part)
        ended.wait()
    finally:
        for part in reversed(started):
            part.stop()  # type: ignore[attr-defined]
    return 0


def _log() -> None:
    # The service manager adds the time itself; on a terminal it is wanted.
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(level=logging.INFO, format=stamp + "%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


def demo(options: argparse.Namespace) -> int:
    """Run the bridge, a simulated site and a broker; print what to try."""
    from tempfile import TemporaryDirectory

    from bridge import app
    from bridge.simulator.site import Site

    with as_file(files("bridge.simulator") / "demo.yaml") as path, TemporaryDirectory(prefix="smgw-bridge-") as state:
        setup = app.prepare(path)
        if options.listen:
            setup = replace(setup, config=replace(setup.config, http=replace(setup.config.http, listen=options.listen)))
        _log()
        os.environ.setdefault(app.PASSWORD_VARIABLE, "1234abcd")
        hint = _DEMO.replace("1234abcd", os.environ[app.PASSWORD_VARIABLE])
        hint = hint.replace("localhost:8080", setup.config.http.listen.replace("127.0.0.1", "localhost"))
        print(hint, flush=True)
        return _serve(Site(setup.config), app.App(setup, Path(state)))


_DEMO = """
SMGW Bridge demo: a house with three wallboxes, all simulated. Pages: http://localhost:8080
User admin, password 1234abcd (of the demo alone). Ctrl-C ends it. Try in another terminal:

  # the grid operator halves the house connection; the answer waits for the wallboxes
  curl -i --user admin:1234abcd 'http://localhost:8080/cnf?cmd=set_cm_vars&name=AVAIL&val=50&confirm=10'
  # how far each wallbox has followed
  curl --user admin:1234abcd 'http://localhost:8080/api/v1/receipts/1'
  # reduced tariff, and 70 % for the wallboxes together
  curl -i -X POST -d '{ "vars": [{ "name": "tarif", "expr": 1 }, { "name": "PWR", "expr": 70 }] }' \\
    --user admin:1234abcd 'http://localhost:8080/cnf?cmd=set_cm_vars'
  # every variable with formula and value
  curl --user admin:1234abcd 'http://localhost:8080/cnf?cmd=get_cm_vars'
  # everything, live (package mosquitto-clients)
  mosquitto_sub -v -t 'smgw-bridge/#'
  # the KEBA's setpoint register, in mA (package mbpoll)
  mbpoll -0 -1 -a 255 -r 1100 -t 4:int -B -p 15022 127.0.0.1
"""


def check(options: argparse.Namespace) -> int:
    """Show every mistake of the configuration; hints do not fail it."""
    from bridge import app

    path = config.find(options.config)
    setup = app.prepare(path)
    for hint in config.hints(setup.config):
        print(f"{path}: hint: {hint}", file=sys.stderr)
    print(f"{path}: fine: {len(setup.config.meters)} meters, {len(setup.config.wallboxes)} wallboxes")
    return 0


def passwd(options: argparse.Namespace) -> int:
    """Set the admin password."""
    from bridge.http.passwords import PasswordFile

    path = config.find(options.config)
    known = config.load(path) if options.config or (not options.state_dir and path.exists()) else None
    folder = _state_dir(config.state_dir(options.state_dir, known))
    if sys.stdin.isatty():
        password = getpass.getpass("New admin password: ")
        if getpass.getpass("Once more: ") != password:
            print("the two are not the same", file=sys.stderr)
            return 1
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        PasswordFile(folder / "admin-password").set(password)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"set in {folder}")
    return 0


def profiles(options: argparse.Namespace) -> int:
    """List the profiles, or check files."""
    from bridge.modbus import inspect

    if not options.files:
        for line in inspect.listing(_profile_folders(options)):
            print(line)
        return 0
    wrong = False
    for name in options.files:
        try:
            for line in inspect.report(Path(name)):
                print(line)
        except ConfigError as error:
            wrong = True
            print("\n".join(error.mistakes), file=sys.stderr)
    return int(wrong)


def _profile_folders(options: argparse.Namespace) -> list[Path]:
    """The user's own profile folders, when there is a configuration to name them."""
    from bridge import app

    path = config.find(options.config)
    return app.folders(config.load(path).profiles, path) if options.config or path.exists() else []


def probe(options: argparse.Namespace) -> int:
    """Read a device once, or find the profiles that fit; 1 when nothing could be read or none does."""
    from bridge.modbus import discover, load
    from bridge.modbus import probe as prober

    folders = _profile_folders(options)
    found: Sequence[prober.Row | discover.Found]
    if options.profile:
        found = rows = prober.probe(options.address, load.load(options.profile, folders), options.unit)
        success = any(row.value is not None for row in rows)
    else:
        found = discover.discover(options.address, map(load.read, load.available(folders).values()), options.unit)
        success = bool(found)
    if options.json:
        print(json.dumps([one._asdict() for one in found], indent=2))
    else:
        print(*found or ["no profile fits"], sep="\n")
    return 0 if success else 1


def try_(options: argparse.Namespace) -> int:
    """Evaluate a formula with the given values."""
    from bridge import app

    given: dict[str, Variable] = {}
    try:
        for pair in options.values:
            name, equals, text = pair.partition("=")
            if not equals:
                print(f"{pair}: NAME=VALUE is expected", file=sys.stderr)
                return 2
            given[fold(name)] = Variable(name, parse(text), "given", 0.0)
        formula = parse(options.formula)
        now = Now(time.monotonic(), time.time(), app.local_zone())
        print(f"{evaluate(formula, Names(Config(GridConfig(formula)), State(), given, now)):.12g}")
    except (FormulaError, NoValue) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def simulate(options: argparse.Namespace) -> int:
    """Run only the simulated devices."""
    from bridge import app
    from bridge.simulator.site import Site

    setup = app.prepare(config.find(options.config))
    _log()
    site = Site(setup.config)
    for device in filter(lambda device: device.address, setup.config.devices):
        print(f"{device.id}: {device.profile} on {device.address}", flush=True)
    return _serve(site)


if __name__ == "__main__":
    sys.exit(main())
