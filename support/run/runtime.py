"""What environment.py needs of a run: where it runs, what it skips, a world per scenario, a verdict on each."""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from support import activity, releases, slowness, targets
from support.clock import now
from support.contract.shape import SIMULATED
from support.errors import Mistake, Unsupported
from support.judge import defects
from support.judge.history import History
from support.judge.invariants import evidence, left_out
from support.judge.judge import decide, judge_scenario, opt_outs
from support.judge.verdict import Finding, Verdict
from support.releases import Release
from support.report import runs
from support.report.runs import scenario_folder, write_json
from support.run import capabilities, cells, wreck
from support.seen import Told
from support.settings import ROOT, Settings
from support.world.world import World

RELEASE_FACTS = {"release.counts_cancellations": "cancel count"}
"""Tag -> what a release without that fact lacks. What a shape needs is found out when it is deployed."""


def refuse_other_folder(root: Path) -> None:
    """behave reads behave.ini from the current folder alone; anywhere else the suite would run with other settings.

    Raises:
        SystemExit: the current folder is not ``root``.
    """
    if Path.cwd() != root:
        raise SystemExit(f"behave was started in {Path.cwd()}; start it in the suite's root: cd {root}")


def launched() -> bool:
    """Whether this behave is one of a run that a launcher has prepared."""
    return "FT_RUN_DIR" in os.environ


def enter_cell(arguments: list[str], userdata: Mapping[str, str]) -> None:
    """Unless this behave runs in a cell, or its target needs none, replace it by the launcher, which runs it again in
    one of its own.
    """
    try:
        settings = Settings.load(userdata)
        wreck.check(settings)
        in_cells = targets.kind(settings).in_cells
    except ValueError:
        in_cells = True  # the launcher says what is wrong
    if in_cells and not cells.entered():
        os.execv(sys.executable, [sys.executable, "-m", "support.run.launcher", "behave", "--", *arguments])


@dataclass(frozen=True)
class Ended:
    """What behave knows of a scenario whose steps are over.

    Attributes:
        skipped: reason of a skip, else empty.
        failed_step: the sentence that did not hold, else empty; ``failure`` is its exception.
        interrupted: whether the run was broken off by its user.
    """

    feature: str
    name: str
    location: str
    tags: list[str]
    skipped: str
    failed_step: str
    failure: BaseException | None
    interrupted: bool


def failure_of(step: Any) -> BaseException:
    """What ended one of behave's steps: a sentence that nobody knows and a word in it that cannot be read are mistakes
    of whoever wrote them.
    """
    error: BaseException | None = step.exception
    if error is None:
        return Mistake(f"there is no such sentence (behave: {step.status.name})")
    return error.__cause__ if isinstance(error.__cause__, Mistake) else error


class Run:
    """One behave process: many scenarios one after the other."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.release: Release = releases.get(settings.dynamo)
        self._records = defects.load()
        self._began = now()
        self._lack = ""
        self._kept: list[str] = []

    @classmethod
    def begin(cls, userdata: Mapping[str, str]) -> "Run":
        """The run that the launcher has prepared, or a new one.

        Raises:
            SystemExit: a setting is wrong.
        """
        try:
            settings = Settings.load(userdata)
        except ValueError as error:
            raise SystemExit(f"settings: {error}") from None
        kind = targets.kind(settings)
        if missing := kind.missing():
            raise SystemExit(f"target {settings.target}: {missing}")
        kind.begin()
        if kind.in_cells or launched():
            return cls(settings, Path(os.environ["FT_RUN_DIR"]))
        return cls(settings, runs.create(ROOT / "reports" / settings.target, settings.log_dir))

    def reason_to_skip(self, location: str, tags: Iterable[str]) -> str:
        """Why a scenario with these tags cannot run on the target or the release; empty when it can.

        Raises:
            ValueError: a tag names what no kind of target knows.
        """
        if self._kept:
            self._lack = ""
            return "its place is taken by the wreck of a scenario that failed (KEEP=failed); run the others without"
        tags = list(tags)
        self._lack, reason = capabilities.lacking(location, tags, self.settings, self.folder)
        if reason:
            return reason
        lacks = [
            RELEASE_FACTS[tag]
            for tag in tags
            if tag in RELEASE_FACTS and not getattr(self.release, tag.removeprefix("release."))
        ]
        lacks += [f"simulated {tag}" for tag in tags if tag in SIMULATED and tag not in self.release.engines]
        if not lacks:
            return ""
        self._lack = lacks[0]
        return str(Unsupported(self.release.version, self._lack))

    def skip(self, scenario: Any, reason: Unsupported) -> None:
        """Skip a scenario (behave's) for what the release turned out to lack."""
        self._lack = reason.lack
        scenario.skip(str(reason))

    def make_world(self, location: str) -> World:
        """The world of the scenario at ``location`` (``features/x.feature:12``)."""
        self._began = now()
        world = World(self.settings, self._folder(location))
        activity.begin(world.stage.folder)
        return world

    def _folder(self, location: str) -> Path:
        return scenario_folder(self.folder, location)

    def judge(self, world: World | None, ended: Ended) -> Verdict:
        """Take the world down, judge its history and write the verdict down; or keep the world, as one that failed."""
        folder = self._folder(ended.location)
        folder.mkdir(parents=True, exist_ok=True)
        verdict = _unjudged(ended)
        verdict.lack = self._lack if ended.skipped else ""
        if world is not None:
            activity.begin_step("closes its records")
            give_up = ended.failure is not None or bool(ended.skipped) or ended.interrupted
            history = world.close(give_up, partial(self._keeps, world, ended) if self._may_keep(ended) else None)
            if not ended.skipped:
                verdict = self._judged(ended, history)
            if ended.interrupted:
                verdict.verdict, verdict.reason = "inconclusive", "the run was broken off"
        elif not ended.skipped:
            verdict.verdict, verdict.reason = (
                "inconclusive",
                "it could not begin; HOOK-ERROR on the console says why",
            )
            verdict.findings = [Finding.of("step-error", ended.name, Told(verdict.reason), blame="suite")]
        verdict.kept = self._kept if not ended.skipped else []
        verdict.slowness = round(slowness.factor(), 1)
        verdict.seconds = round(now() - self._began, 3)
        write_json(folder / "verdict.json", verdict.as_dict())
        return verdict

    def _judged(self, ended: Ended, history: History) -> Verdict:
        verdict = _unjudged(ended)
        history = replace(history, not_judged={**history.not_judged, **opt_outs(ended.tags)})
        verdict.not_judged = left_out(history)
        verdict.findings = judge_scenario(history, ended.failure, ended.failed_step)
        verdict.evidence = evidence(history)
        known = self._records if targets.kind(self.settings).real else []
        records = [each for each in known if each.can_show(verdict.not_judged)]
        verdict.verdict, verdict.reason, verdict.known_defects = decide(
            verdict.findings, records, self.release.version, ended.name, ended.feature, verdict.not_judged
        )
        return verdict

    def _may_keep(self, ended: Ended) -> bool:
        return self.settings.keep == "failed" and not ended.skipped and not ended.interrupted

    def _keeps(self, world: World, ended: Ended, history: History) -> bool:
        """For :meth:`support.world.records.Records.close`."""
        if self._judged(ended, history).verdict == "failed":
            self._kept = wreck.keep(world, ended.location)
        return bool(self._kept)

    def parameters(self, world: World | None) -> dict[str, str]:
        """What a scenario ran on, for its report and the identity of its history."""
        engine = world.stage.engine if world else ""
        found = {"target": self.settings.target, "dynamo": self.release.version, "engine": engine}
        return {name: value for name, value in found.items() if value}


def _unjudged(ended: Ended) -> Verdict:
    return Verdict(ended.feature, ended.name, ended.location, ended.tags, "skipped", 0.0, ended.skipped)


class Context(Protocol):
    """behave's context, as steps and hooks use it: what is said of it here is checked in their code."""

    run: Run
    world: World
    table: Any
    scenario: Any
