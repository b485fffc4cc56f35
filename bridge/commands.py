"""What each command does: each takes its options and returns an exit code. What only one needs is loaded there."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile
from types import MappingProxyType

from bridge import config
from bridge.core.config import Config, GridConfig
from bridge.core.formulas import Formula, FormulaError, NoValue, evaluate, fold, is_name, parse
from bridge.core.model import Now, State, Variable
from bridge.core.variables import Names, Refused, bare, refuse_outside
from bridge.errors import ConfigError


def run(options: argparse.Namespace) -> int:
    """Run the service until SIGTERM or SIGINT."""
    from bridge import app
    from bridge.storage.alone import alone_in

    setup = app.prepare(config.find(options.config), options.state_dir)
    _log()
    folder = _state_dir(config.state_dir(options.state_dir, setup.config))
    with alone_in(folder):
        running = app.App(setup, folder)
        return _serve(running, reload=running.file.reload)


def _state_dir(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Leaves nothing behind: a file of root's would keep the service out.
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError([f"the state directory cannot be written: {error}"]) from error
    return folder


def _serve(*parts: object, reload: Callable[[], None] | None = None) -> int:
    """Start the parts in order, wait for a signal, stop them in reverse. SIGHUP calls ``reload``."""
    signals: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if reload else [])):
        signal.signal(number, lambda number, _: signals.put(number))
    started: list[object] = []
    try:
        for part in parts:
            part.start()  # type: ignore[attr-defined]
            started.append(part)
        while signals.get() == signal.SIGHUP and reload:
            reload()
    finally:
        for part in reversed(started):
            part.stop()  # type: ignore[attr-defined]
    return 0


def _log() -> None:
    # The service manager adds the time itself; on a terminal it is wanted.
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(level=logging.INFO, format=stamp + "%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    _hush()


def _hush() -> None:
    """What pymodbus says of each frame it cannot read, the bridge says better, and once."""
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


def demo(options: argparse.Namespace) -> int:
    """Run the bridge, a simulated site and a broker; print what to try."""
    from tempfile import TemporaryDirectory

    from bridge import app
    from bridge.http.yamltext import edited
    from bridge.smgw.issue import Wish

    with TemporaryDirectory(prefix="smgw-bridge-") as state:
        # A copy: the pages may change it.
        path = Path(state) / "bridge.yaml"
        text = (files("bridge.simulator") / "demo.yaml").read_text(encoding="utf-8")
        path.write_text(edited(text, [("http.listen", options.listen)] if options.listen else []), encoding="utf-8")
        for name in ("cls", "smgw"):
            app.store_in(Path(state)).create(name, Wish(name))
        setup = app.prepare(path, state)
        _log()
        os.environ.setdefault(app.PASSWORD_VARIABLE, "1234abcd")
        hint = _DEMO.replace("1234abcd", os.environ[app.PASSWORD_VARIABLE])
        hint = hint.replace("localhost:8080", setup.config.http.listen.replace("127.0.0.1", "localhost"))
        print(hint, flush=True)
        return _serve(*_simulated(setup.config, Path(state)), app.App(setup, Path(state)))


def _simulated(known: Config, state_dir: Path, faults: Mapping[str, object] = MappingProxyType({})) -> list[object]:
    """House, wallboxes and gateway, as far as they are on this machine; ``faults`` are those of the gateway."""
    from bridge.mqtt.link import address
    from bridge.simulator.agreement import setting_of
    from bridge.simulator.gateway import Gateway
    from bridge.simulator.site import Site, is_here

    broker = address(known.mqtt)
    behind = [(broker.host, broker.port)] if known.mqtt.tunnel else []
    setting = known.smgw and setting_of(known.smgw, state_dir / "certificates", behind=behind, faults=faults)
    if faults and not setting:
        raise ConfigError(["--fault: no gateway is simulated, smgw names none on loopback"])
    parts: list[object] = []
    if setting is None or any(is_here(device.address) for device in known.devices):
        parts.append(Site(known))
    if setting:
        parts.append(Gateway(setting))
        if setting.door or setting.reverse:
            host, port = setting.far_end
            print(f"gateway: its far end is on http://{host}:{port}", flush=True)
    return parts


_DEMO = """
SMGW Bridge demo: a house with three wallboxes, all simulated. Pages: http://localhost:8080
User admin, password 1234abcd (of the demo alone). Ctrl-C ends it. Try in another terminal:

  # the grid operator halves the house connection; the answer waits for the wallboxes
  curl -i --user admin:1234abcd 'http://localhost:8080/cnf?cmd=set_cm_vars&name=AVAIL&val=50&confirm=10'
  # how far each wallbox has followed
  curl --user admin:1234abcd 'http://localhost:8080/api/v1/receipts/1'
  # the grid operator again, through the smart meter gateway: certificates on both sides, no password
  curl -i 'http://localhost:15080/cnf?cmd=set_cm_vars&name=AVAIL&val=70'
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
    from bridge.smgw import admission

    path = config.find(options.config)
    setup = app.prepare(path, options.state_dir)
    certificates = app.store_in(config.state_dir(options.state_dir, setup.config))
    for hint in (*config.hints(setup.config), *admission.hints(certificates, setup.config.http.certificate)):
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
    """List the profiles, check files, or print the schema that editors want."""
    from bridge.modbus import inspect, outline

    if options.schema:
        print(outline.text())
        return 0
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

    _hush()
    folders = _profile_folders(options)
    found: Sequence[prober.Row | discover.Found]
    if options.profile:
        found = rows = prober.probe(options.address, load.load(options.profile, folders), options.unit)
        success = any(row.value is not None for row in rows)
    else:
        found = discover.discover(options.address, load.readable(folders), options.unit)
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


def explain(options: argparse.Namespace) -> int:
    """Show limits and shares with their reasons, for what is set now or for given values."""
    from bridge import app
    from bridge.core.explain import explained, sentences, supposed
    from bridge.storage.edge import peek

    known = app.prepare(config.find(options.config), certificates=False).config
    given: dict[str, Formula] = {}
    readings: dict[str, dict[str, float | str]] = {}
    for pair in options.values:
        name, equals, text = pair.partition("=")
        name = bare(name)
        device, dot, quantity = name.partition(".")
        if not equals or not (fold(device) in known.by_key if dot else is_name(name)):
            print(f"{pair}: NAME=VALUE is expected, or DEVICE.QUANTITY=VALUE of a device there is", file=sys.stderr)
            return 2
        try:
            if dot:
                readings.setdefault(fold(device), {})[quantity] = text if quantity == "state" else float(text)
            else:
                given[name] = parse(text)
                refuse_outside(known, name, given[name])
        except (ValueError, Refused) as error:
            print(f"{pair}: {error}", file=sys.stderr)
            return 2
    now = Now(time.monotonic(), time.time(), app.local_zone())
    state = supposed(known, peek(config.state_dir(options.state_dir, known)), readings, now)
    print("\n".join(sentences(known, explained(known, state, now, given))))
    return 0


def simulate(options: argparse.Namespace) -> int:
    """Run only the simulated devices."""
    from bridge import app

    setup = app.prepare(config.find(options.config), options.state_dir)
    _log()
    parts = _simulated(setup.config, config.state_dir(options.state_dir, setup.config), dict(options.fault))
    for device in filter(lambda device: device.address, setup.config.devices):
        print(f"{device.id}: {device.profile} on {device.address}", flush=True)
    return _serve(*parts)


def fault(text: str) -> tuple[str, object]:
    """What ``simulate --fault`` may be followed by."""
    from bridge.simulator import faults

    try:
        return faults.fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def smgw_check(options: argparse.Namespace) -> int:
    """Walk the channel through the gateway; 1 when it does not work."""
    from bridge import app
    from bridge.core.gateway import SmgwConfig
    from bridge.mqtt.link import address
    from bridge.smgw.check import Check

    known = config.load(config.find(options.config))
    certificates = app.store_in(config.state_dir(options.state_dir, known))
    walk = Check(known.smgw or SmgwConfig(), certificates, lambda line: print(line, flush=True))
    walk.run(options.to, str(address(known.mqtt)) if known.mqtt.tunnel else None)
    return 0 if walk.fine else 1


def journal(options: argparse.Namespace) -> int:
    """Verify or export the journal of grid commands."""
    from bridge.storage import journal_commands

    path = config.find(options.config)
    known = config.load(path) if options.config or (not options.state_dir and path.exists()) else None
    return journal_commands.run(options, config.state_dir(options.state_dir, known))


def cert(options: argparse.Namespace) -> int:
    """Look after the certificates."""
    from bridge.smgw import cert_commands

    path = config.find(options.config)
    known = config.load(path) if options.config or path.exists() else None
    return cert_commands.run(options, config.state_dir(options.state_dir, known), known)
