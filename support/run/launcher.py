"""Runs scenarios, each in a process and a cell of its own, and publishes what came of them.

``python -m support.run.launcher acceptance [--features F ...] [--tags T ...] [--jobs N] [-D NAME=VALUE ...]``
    one ``behave`` process per scenario, several side by side, long ones beside short ones.
``python -m support.run.launcher rerun [--jobs N] [-D NAME=VALUE ...]``
    those of the last such run that were not good or did not run, with its settings.
``python -m support.run.launcher behave -- ARGS``
    one ``behave ARGS`` for all of them, in one cell; what plain ``behave`` turns into.

Exit status: 0 when all is green (:func:`support.judge.judge.complaints`), 1 when not, 2 for a wrong call.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections import ChainMap
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.core.forks import use_files
from agents.core.kernel import die_with_parent
from support import binaries, targets
from support.amounts import amount
from support.judge import defects, judge
from support.judge.verdict import BAD, Finding, Verdict
from support.observe.logs import tail
from support.report import console, publish, runs
from support.report.reading import read_verdict
from support.run import again, bootstrap, capabilities, cells, rates, wreck
from support.run.keeping import Door
from support.run.live import Doing, LiveView, View
from support.run.schedule import Cost, Schedule, costs_file, read_costs, usual_costs, write_costs
from support.run.selection import Selected, enumerate_scenarios, with_defaults
from support.seen import Told
from support.settings import Settings, from_environment

ALLURE = ["-f", "steps.allure_formatter:AllureFormatter", "-o"]
LOOK_SECONDS = 0.1
"""How often those that boot are looked at, to see whether the next one may begin."""
GRACE = 15.0
"""Seconds from SIGINT to SIGTERM, and from SIGTERM to SIGKILL: time for behave's cleanups."""

_WAITED = {signal.SIGCHLD, signal.SIGINT, signal.SIGTERM}


@dataclass
class Running:
    """A scenario's process, the leader of a process group."""

    scenario: Selected
    process: cells.Cell
    slot: int
    began: float
    deadline: float
    reason: str = ""
    signals: list[signal.Signals] = field(default_factory=lambda: [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])

    def end(self, now: float, reason: str, first: signal.Signals = signal.SIGINT) -> None:
        """Ask the process group to end; each call asks less politely, and the next one is due after :data:`GRACE`."""
        self.reason = self.reason or reason
        if len(self.signals) == 3:
            self.signals[0] = first
        number = self.signals.pop(0) if len(self.signals) > 1 else signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.deadline = now + GRACE


class Launcher:
    """One run: its folder, its settings, its processes; with a ``door``, a wreck may be kept behind it."""

    def __init__(
        self, root: Path, settings: Settings, defines: Sequence[str], run: Path, door: Door | None = None
    ) -> None:
        self.root, self.settings, self.defines, self.run, self._door = root, settings, defines, run, door
        self.reports = root / "reports"
        self.interrupted = ""
        self.complaints: list[str] = []

    def acceptance(self, scenarios: Sequence[Selected], tags: Sequence[str], jobs: int) -> list[Verdict]:
        """Run every scenario in a process of its own, ``jobs`` at a time and no more than the processors can take; what
        goes on is shown on a terminal.
        """
        file = costs_file(self.reports, self.settings.target)
        own = read_costs(file)
        costs = ChainMap(own, usual_costs(self.settings.target))
        schedule = Schedule(scenarios, costs, jobs, len(os.sched_getaffinity(0)))
        verdicts: list[Verdict] = []
        title = f"Dynamo {self.settings.dynamo} on target {self.settings.target}"
        terminal = Console()
        view = LiveView(terminal, title, costs) if terminal.is_terminal else View()
        cells.preload()  # or else it counted as a part of the first scenario
        with _signals_blocked(), view:
            self._run_all(schedule, tags, jobs, verdicts, costs, view)
        with contextlib.suppress(OSError):  # only the order of the next run suffers
            write_costs(file, own)
        return verdicts

    def behave(self, arguments: Sequence[str]) -> int:
        """Run one ``behave`` with the user's arguments in one cell, on our own terminal; returns its exit status."""
        chosen = any(argument.startswith(("-f", "--format")) for argument in arguments)
        options = [*ALLURE, str(self.run / "allure-results"), *([] if chosen else ["-f", "pretty"]), *arguments]
        with _signals_blocked():
            process = self._spawn(options, slot="behave")
            terminal = _hand_terminal_over(process.pid)
            try:
                return self._wait_for(process)
            finally:
                if terminal is not None:
                    os.tcsetpgrp(terminal, os.getpgrp())

    def _run_all(
        self,
        schedule: Schedule,
        tags: Sequence[str],
        jobs: int,
        verdicts: list[Verdict],
        costs: MutableMapping[str, Cost],
        view: View,
    ) -> None:
        running: list[Running] = []
        while running or (schedule.waiting and not self.interrupted):
            under_way = [(busy.scenario, runs.serves(self._folder(busy.scenario))) for busy in running]
            for scenario in [] if self.interrupted else schedule.due(under_way):
                slot = min(set(range(jobs)) - {busy.slot for busy in running})
                try:
                    running.append(self._start(scenario, tags, slot))
                except OSError as error:  # those that run are not to suffer for it
                    verdicts.append(self._inconclusive(scenario, 0.0, f"it could not be started: {error}"))
                    print(console.line(verdicts[-1]), flush=True)
            view.show([self._doing(busy) for busy in running], schedule.waiting, verdicts)
            if running:
                self._wait(running, LOOK_SECONDS if schedule.waiting else view.period)
            for ended in [busy for busy in running if busy.process.poll() is not None]:
                running.remove(ended)
                verdict = self._verdict(ended)
                verdicts.append(verdict)
                measured = not (ended.reason or verdict.kept) and verdict.verdict != "skipped"
                if measured:  # else it is not a measure for the next run
                    seconds = time.monotonic() - ended.began
                    costs[ended.scenario.key] = Cost(round(seconds, 2), round(ended.process.cpu_seconds, 2))
                print(console.line(verdict), flush=True)
                if verdict.verdict in BAD:
                    print(
                        console.failure(verdict, self._folder(ended.scenario), again.given(self.settings)), flush=True
                    )
                for warning in _warnings(self._folder(ended.scenario)):
                    print(warning, flush=True)

    def _doing(self, busy: Running) -> Doing:
        return Doing(busy.scenario, busy.began, self._folder(busy.scenario))

    def _folder(self, scenario: Selected) -> Path:
        return runs.scenario_folder(self.run, scenario.location)

    def _start(self, scenario: Selected, tags: Sequence[str], slot: int) -> Running:
        folder = self._folder(scenario)
        folder.mkdir()
        selection = [f"--tags={tag}" for tag in tags]
        formats = [*ALLURE, str(self.run / "allure-results"), "-f", "plain", "--color=off"]
        began = time.monotonic()  # it may be over before we are back: on a busy machine everybody gets as much as we do
        with (folder / "console.txt").open("wb") as output:
            process = self._spawn([*formats, *selection, *self.defines, scenario.location], f"slot {slot}", output)
        return Running(scenario, process, slot, began, began + scenario.limit)

    def _spawn(self, options: Sequence[str], slot: str, output: Any = None) -> cells.Cell:
        def prepare() -> None:
            die_with_parent()
            os.chdir(self.root)
            os.environ.update({"FT_RUN_DIR": str(self.run), "FT_SLOT": slot})
            os.environ.update(self._door.environment if self._door else {})
            if output is None:
                os.setpgid(0, 0)
            else:
                # A session of its own: with autogroups, the kernel's default, the processes of one session share what
                # one process of Dynamo gets, and the suite would wait for all of them.
                os.setsid()
            stdin = None if output is None else os.open(os.devnull, os.O_RDONLY)
            use_files(stdin, None if output is None else output.fileno())

        mode = self.settings.cells if targets.kind(self.settings).in_cells else cells.NO_CELL
        way_out = None
        with contextlib.ExitStack() as opened:
            if self._door:
                # A wreck that goes on must not hold our terminal, or the pipe that stands for it.
                log = output or opened.enter_context((self.run / "console.txt").open("ab"))
                way_out = self._door.way_out(log.fileno())
            return cells.Cell("behave", list(options), mode, prepare, way_out, wreck.hold)

    def _wait(self, running: Sequence[Running], longest: float) -> None:
        """Sleep until a process ended, a signal came, a deadline passed or ``longest`` seconds are over, and do what is
        due then. A process may have ended unheard: another thread can have been given its SIGCHLD.
        """
        due = min(time.monotonic() + longest, *(busy.deadline for busy in running))
        received = signal.sigtimedwait(_WAITED, max(0.0, due - time.monotonic()))
        now = time.monotonic()
        if received and received.si_signo != signal.SIGCHLD:
            first = signal.Signals(received.si_signo)
            self.interrupted = f"interrupted by {first.name}"
            for busy in running:
                busy.end(now, self.interrupted, first)
        for busy in running:
            if now >= busy.deadline and busy.process.poll() is None:
                busy.end(now, f"did not end within its limit of {busy.scenario.limit:.0f} s")

    def _wait_for(self, process: cells.Cell) -> int:
        while (status := process.poll()) is None:
            received = signal.sigwaitinfo(_WAITED).si_signo
            if received != signal.SIGCHLD:
                # Ctrl-C on the terminal goes to behave alone; this one was sent to us. The second one is the last.
                number = signal.SIGKILL if self.interrupted else received
                self.interrupted = f"interrupted by {signal.Signals(received).name}"
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
        return status

    def _verdict(self, ended: Running) -> Verdict:
        """What the process left behind, unless the way in which it ended belies it; on disk afterwards, or a complaint
        says why not.
        """
        scenario, status = ended.scenario, ended.process.status
        seconds = time.monotonic() - ended.began
        folder = self._folder(scenario)
        left: Verdict | None = None
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
            left = read_verdict(folder / "verdict.json")
        trouble = ended.reason
        belied = status and (left is None or left.verdict in ("passed", "skipped"))
        if not trouble and (left is None or belied):
            after = f"after the verdict {left.verdict}" if left else "and left no verdict"
            said = publish.said(self.run, scenario.location) or _last_words(folder)
            trouble = f"behave ended with status {status} {after}: {said}"
        if left and not trouble:
            return left
        return self._inconclusive(scenario, seconds, trouble, left.findings if left else [])

    def _inconclusive(self, scenario: Selected, seconds: float, trouble: str, found: Sequence[Finding] = ()) -> Verdict:
        findings = [Finding.of("step-error", scenario.name, Told(trouble), blame="suite"), *found]
        verdict = Verdict(
            scenario.feature,
            scenario.name,
            scenario.location,
            list(scenario.tags),
            "inconclusive",
            seconds,
            trouble,
            findings,
        )
        try:
            publish.write_verdict(self.run, verdict)
        except OSError as error:
            self.complaints.append(f"the verdict on {scenario.location} could not be written: {error}")
        return verdict


def finish(launcher: Launcher, seconds: float, further: Sequence[str] = (), whole: bool = False) -> int:
    """Judge the run as a whole, publish it, tell it on the console; returns the exit status.

    Args:
        launcher: the run.
        seconds: its wall time.
        further: complaints that no verdict knows of.
        whole: whether the whole default selection was asked for; the rates of known defects are of such runs alone.
    """
    settings = launcher.settings
    verdicts = publish.collect(launcher.run)
    complaints = [*judge.complaints(verdicts, capabilities.allowed_skips(settings)), *further, *launcher.complaints]
    if whole and targets.kind(settings).real and not os.environ.get("FT_SABOTAGE"):
        complaints += rates.keep(rates.history_file(launcher.reports), defects.load(), settings.dynamo, verdicts)
    if launcher.interrupted:
        complaints.append(launcher.interrupted)
    title = f"Dynamo {settings.dynamo} on target {settings.target}"
    print(console.table(verdicts, title, seconds, complaints), flush=True)  # whatever becomes of the report
    try:
        trouble = publish.publish(launcher.run, launcher.reports, verdicts, settings, complaints)
    except OSError as error:
        trouble = [f"the report is not whole: {error}"]
    for sentence in trouble:
        print(f"note: {sentence}")
    if (page := launcher.reports / "allure-report" / "index.html").exists():
        print(f"report: {page.relative_to(launcher.root)}")
    print(f"logs:   {(launcher.run / 'scenarios').relative_to(launcher.root)}")
    for line in [line for verdict in verdicts for line in verdict.kept]:
        print(f"wreck:  {line}")
    return 1 if complaints else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; see the module's text."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    root = Path.cwd()
    began = time.monotonic()
    try:
        if not (root / "behave.ini").is_file():
            raise ValueError(f"{root} is not the root of the checkout (no behave.ini there); change to it first")
        given = options.arguments if options.mode == "behave" else [f"-D{define}" for define in options.defines]
        userdata = _userdata(given)
        last = again.last_run(root / "reports") if options.mode == "rerun" else None
        if last:
            stronger = from_environment(os.environ)
            userdata = {name: value for name, value in last.settings.items() if name not in stronger} | userdata
        settings = Settings.load(userdata)
        cells.world(settings.cells)  # refuses what this machine cannot do, before anything is made
        defines = [f"-D{name}={value}" for name, value in userdata.items()]
        jobs = options.jobs or settings.jobs if options.mode != "behave" else 1
        jobs = 1 if settings.namespace else jobs  # two scenarios in one namespace would be one deployment
        tags, scenarios = list[str](), list[Selected]()
        if options.mode == "acceptance":
            tags = with_defaults(root, options.tags)
            scenarios = enumerate_scenarios(root, options.features, tags)
        if last:
            tags, scenarios = last.tags, last.to_repeat(root)
            if not scenarios:
                print(f"nothing to run again: in the last run, {last.folder.name}, everything was good")
                return 0
        for each in scenarios:
            capabilities.needed(each.location, each.tags, settings)  # refuses a tag that nobody knows
        if lack := targets.kind(settings).missing():
            raise ValueError(f"target {settings.target}: {lack}")
        if targets.kind(settings).real and not settings.dynamo_image:
            bootstrap.ensure(("dynamo",), settings.dynamo)
        door = wreck.open_door(settings)
        launcher = Launcher(root, settings, defines, runs.create(root / "reports", settings.log_dir), door)
        _write_about(launcher, tags, scenarios)
    except (ValueError, RuntimeError, OSError, bootstrap.BootstrapError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(settings.describe(), flush=True)
    if sabotage := os.environ.get("FT_SABOTAGE"):
        print(f"FT_SABOTAGE={sabotage}: this run is broken on purpose and says nothing about Dynamo", flush=True)
    if options.mode == "behave":
        return _finish_behave(launcher, launcher.behave(options.arguments), began)
    print(f"{amount(len(scenarios), 'scenario')}, at most {jobs} at a time", flush=True)
    verdicts = launcher.acceptance(scenarios, tags, jobs)
    missing = len(scenarios) - len(verdicts)
    further = [f"{missing} of {amount(len(scenarios), 'scenario')} did not run"] if missing else []
    whole = not (missing or last or options.features or options.tags)
    return finish(launcher, time.monotonic() - began, further, whole)


def _finish_behave(launcher: Launcher, status: int, began: float) -> int:
    verdicts = publish.collect(launcher.run)
    explained = not status or any(verdict.verdict not in ("passed", "skipped") for verdict in verdicts)
    further = [] if explained else [f"behave ended with status {status}, which no verdict explains"]
    return finish(launcher, time.monotonic() - began, further)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m support.run.launcher", description="Run scenarios and publish the report."
    )
    modes = parser.add_subparsers(dest="mode", required=True)
    acceptance = modes.add_parser("acceptance", help="each scenario in a process and cell of its own, side by side")
    acceptance.add_argument("--features", nargs="*", default=[], metavar="FILE[:LINE]")
    acceptance.add_argument("--tags", action="append", default=[], metavar="EXPRESSION")
    acceptance.add_argument("--jobs", type=_jobs, metavar="N", help="scenarios side by side; default: the setting jobs")
    acceptance.add_argument("-D", dest="defines", action="append", default=[], metavar="NAME=VALUE")
    rerun = modes.add_parser("rerun", help="those of the last run that were not good or did not run")
    rerun.add_argument("--jobs", type=_jobs, metavar="N", help="scenarios side by side; default: the setting jobs")
    rerun.add_argument("-D", dest="defines", action="append", default=[], metavar="NAME=VALUE")
    behave = modes.add_parser("behave", help="one behave process in one cell")
    behave.add_argument("arguments", nargs="*", metavar="-- ARGS")
    return parser.parse_args(arguments)


def _jobs(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of scenarios; expected 1 or more")
    return int(text)


def _userdata(arguments: Sequence[str]) -> dict[str, str]:
    """The definitions among behave's arguments: ``-D NAME=VALUE``, ``-DNAME=VALUE`` or ``--define=NAME=VALUE``."""
    found = {}
    words = iter(arguments)
    for word in words:
        if word.startswith(("-D", "--define")):
            given = word.removeprefix("--define").removeprefix("-D").removeprefix("=") or next(words, "")
            name, separator, value = given.partition("=")
            found[name.strip()] = value.strip() if separator else "true"
    return found


def _write_about(launcher: Launcher, tags: Sequence[str], scenarios: Sequence[Selected]) -> None:
    settings = launcher.settings
    versions = {"Python": sys.version.split()[0], "behave": version("behave"), "openai": version("openai")}
    for name, find in (("etcd", binaries.etcd), ("NATS", binaries.nats), ("Node.js", binaries.node)):
        try:
            versions[name] = binaries.version(find(settings))
        except (FileNotFoundError, RuntimeError):
            versions[name] = "not installed"
    about = {
        "dynamo": settings.dynamo,
        "target": settings.target,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "argv": sys.argv,
        **again.kept(settings, tags, scenarios),
        "versions": versions,
    }
    runs.write_json(launcher.run / "run.json", about)


def _warnings(folder: Path) -> list[str]:
    lines = (folder / "console.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.startswith("warning: ")]


def _last_words(folder: Path) -> str:
    lines = [line.strip() for line in tail(folder / "console.txt", 20).splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Signals wait until they are asked for (sigtimedwait), so none is lost and none strikes in between."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_WAITED, signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hand_terminal_over(group: int) -> int | None:
    """Make the process group the foreground one of our terminal, as a shell would; None where we do not have it."""
    try:
        terminal = sys.stdin.fileno()
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return None
        os.tcsetpgrp(terminal, group)
    except (OSError, ValueError):
        return None
    return terminal


if __name__ == "__main__":
    sys.exit(main())
