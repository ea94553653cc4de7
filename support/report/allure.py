"""Allure results of scenarios: what became of each, in the words of its verdict.

A scenario is over when the next one begins: only then is known what its last hook and its cleanups came to.
"""

import csv
import io
import os
import re
import socket
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from allure_commons.logger import AllureFileLogger
from allure_commons.mapping import labels_set, parse_tag
from allure_commons.model2 import (
    ATTACHMENT_PATTERN,
    Attachment,
    Label,
    Link,
    Parameter,
    Status,
    StatusDetails,
    TestResult,
    TestStepResult,
)
from allure_commons.types import AttachmentType, LabelType, Severity
from allure_commons.utils import format_exception, format_traceback, md5, now, platform_label, uuid4

from support.contract.shape import ENGINES
from support.judge.verdict import Verdict
from support.report import wording

STATUSES = {
    "passed": Status.PASSED,
    "failed": Status.FAILED,
    "mistake": Status.BROKEN,
    "inconclusive": Status.BROKEN,
    "known_defect": Status.UNKNOWN,
    "skipped": Status.SKIPPED,
}
"""Verdict -> Allure status. A known defect is no failure: Allure shows one in red even where it accepts it (``known``,
``muted``, an issue of its own). The report calls the status that is left *known defect*."""
EPIC = "Dynamo keeps its promises while parts of it fail"
"""What all features are about; a feature is a promise, a story what happens in it."""
_STEP_STATUSES = {"passed": Status.PASSED, "skipped": Status.SKIPPED, "untested": Status.SKIPPED}

_verdict: Verdict | None = None
_parameters: dict[str, str] = {}
_cleanup_error: str = ""


def set_verdict(verdict: Verdict, parameters: Mapping[str, str]) -> None:
    """Say what the running scenario's Allure result shall be; called from after_scenario.

    Args:
        verdict: replaces the status that behave's steps add up to.
        parameters: what the scenario ran on (``target``, ``engine``, ``dynamo``): shown, and part of the scenario's
            identity in histories.
    """
    global _verdict
    _verdict = verdict
    _parameters.clear()
    _parameters.update(parameters)


def on_cleanup_error(context: Any, cleanup: Callable[..., Any], error: Exception) -> None:
    """For ``context.on_cleanup_error``: behave itself forgets what went wrong in a cleanup."""
    global _cleanup_error
    _cleanup_error = f"{getattr(cleanup, '__name__', cleanup)} failed in cleanup: {type(error).__name__}: {error}"
    traceback.print_exception(error)


def labels(location: str, feature: str, name: str, tags: Iterable[str]) -> list[Label]:
    """What every result carries: where it is from, where it ran, which promise it is about, and how much it matters.

    Args:
        location: ``features/x.feature:12``.
        feature, name: of feature and scenario.
        tags: without ``@``; Allure's own (``blocker``, ``allure.label.layer:ui``) become what they stand for.
    """
    parsed = [parse_tag(tag) for tag in tags]
    usual = [Label(LabelType.SEVERITY, Severity.CRITICAL if "smoke" in tags else Severity.NORMAL)]
    return [
        *labels_set(usual + [each for each in parsed if isinstance(each, Label)]),
        Label(LabelType.EPIC, EPIC),
        Label(LabelType.FEATURE, feature),
        Label(LabelType.STORY, re.sub(r" \([^()]*\)$", "", name)),
        Label(LabelType.SUITE, feature),
        Label(LabelType.FRAMEWORK, "behave"),
        Label(LabelType.LANGUAGE, platform_label()),
        Label("location", location),
        Label("host", socket.gethostname()),
        Label("thread", os.environ.get("FT_SLOT", "behave")),
    ]


def blame_labels(category: str) -> list[Label]:
    """Whose trouble a result is.

    Args:
        category: key of :data:`support.report.wording.CATEGORIES`; the report is grouped by it.
    """
    owner = wording.OWNERS.get(category)
    return [
        Label("category", category),
        Label(LabelType.PARENT_SUITE, wording.CATEGORIES[category]),
        *([Label("owner", owner)] if owner else []),
    ]


def identity(feature: str, name: str, twin: int) -> dict[str, str]:
    """The ids of a scenario: the same in every run, on whatever it runs. Allure adds the parameters to them, so that
    another target, release or engine has a history of its own.

    Args:
        twin: 1 for the first scenario of its feature with this name, 2 for the second one, which else would be taken
            for another try of the first.
    """
    full_name = f"{feature}: {name}" + (f" ({twin})" if twin > 1 else "")
    return {"fullName": full_name, "testCaseId": md5(full_name)}


def history_id(case: str, parameters: Mapping[str, str]) -> str:
    """The id of a scenario on what it ran on."""
    return str(md5(case, *(f"{name}={value}" for name, value in sorted(parameters.items()))))


def _ran_on(parameters: Mapping[str, str], tags: Iterable[str]) -> dict[str, str]:
    """What a scenario ran on; where it did not come to have an engine, the one that it is tagged with."""
    engine = next((tag for tag in tags if tag in ENGINES), "")
    return {**({"engine": engine} if engine else {}), **parameters}


def details(verdict: Verdict, trace: str = "") -> StatusDetails:
    """Message and trace of a verdict: who is to blame in the first line, then every finding."""
    listing = wording.listing(verdict.findings)
    return StatusDetails(
        message=wording.headline(verdict) or None,
        trace="\n\n".join(part for part in (listing, trace) if part) or None,
    )


def synthetic(verdict: Verdict, parameters: Mapping[str, str], twin: int = 1) -> TestResult:
    """A result for a scenario whose process left none; it ends now and began ``verdict.seconds`` ago.

    Args:
        verdict: what is to be said of it.
        parameters: what it ran on.
        twin: see :func:`identity`.
    """
    stop, ran_on = now(), _ran_on(parameters, verdict.tags)
    ids = identity(verdict.feature, verdict.name, twin)
    return TestResult(
        uuid=uuid4(),
        name=verdict.name,
        **ids,
        historyId=history_id(ids["testCaseId"], ran_on),
        status=STATUSES[verdict.verdict],
        statusDetails=details(verdict),
        labels=[
            *labels(verdict.location, verdict.feature, verdict.name, verdict.tags),
            *blame_labels(wording.category(verdict)),
        ],
        parameters=[Parameter(name, value) for name, value in ran_on.items()],
        start=stop - round(verdict.seconds * 1000),
        stop=stop,
    )


def location_of(scenario: Any) -> str:
    """``features/x.feature:12`` of a behave scenario."""
    return f"{scenario.filename}:{scenario.line}"


def tags_of(scenario: Any) -> list[str]:
    """The tags of a behave scenario, with those of its feature and of its rule, if it stands in one, before them."""
    above, tags = scenario.parent, list(scenario.tags)
    while above is not None:
        if above.type != "scenario_outline":  # whose tags the scenarios of its rows have, filled in
            tags = [*above.tags, *tags]
        above = above.parent
    return [str(tag) for tag in dict.fromkeys(tags)]


class Results:
    """The results of one behave process; its methods are those of a formatter, called as behave comes along.

    Args:
        folder: gets the files.
        config: behave's, by which scenarios are selected.
    """

    def __init__(self, folder: Path, config: Any) -> None:
        self._logger, self._config = AllureFileLogger(folder), config
        self._begun: set[str] = set()
        self._feature: Any = None
        self._scenario: Any = None
        self._steps: list[Any] = []
        self._result = TestResult()

    def feature(self, feature: Any) -> None:
        """A feature begins."""
        self._feature = feature

    def scenario(self, scenario: Any) -> None:
        """A scenario begins; the one before it is over."""
        global _verdict, _cleanup_error
        self.finish()
        _verdict, _cleanup_error = None, ""
        _parameters.clear()
        self._begun.add(location_of(scenario))
        self._scenario, self._steps, self._result = scenario, [], _described(scenario)

    def step(self, step: Any) -> None:
        """A step of the scenario, which may run or not."""
        self._steps.append(step)

    def match(self, _match: object) -> None:
        """The next one of these steps begins."""
        step = self._steps.pop(0)
        result = TestStepResult(name=f"{step.keyword} {step.name}", start=now())
        self._result.steps.append(result)
        if step.text:
            self._attach(result, ".text", step.text, AttachmentType.TEXT)
        if step.table:
            self._attach(result, ".table", _as_csv(step.table), AttachmentType.CSV)

    def result(self, step: Any) -> None:
        """The step that began last is over."""
        result = self._result.steps[-1]
        result.stop, result.status, result.statusDetails = now(), _status(step), _details(step)

    def eof(self) -> None:
        """The feature is over; a before_feature that failed has kept its scenarios from beginning."""
        self.finish()
        feature = self._feature
        for scenario in feature.walk_scenarios() if feature.hook_failed else ():
            if location_of(scenario) not in self._begun and scenario.should_run(self._config):
                self.scenario(scenario)
                scenario.hook_failed, scenario.error_message = True, feature.error_message
                self.finish()

    def finish(self) -> None:
        """Write the scenario's result, if there was one that was selected."""
        scenario, self._scenario = self._scenario, None
        if scenario is None or (_verdict is None and scenario.status == "skipped" and not scenario.skip_reason):
            return
        for step in list(self._steps):
            self.match(None)
            self.result(step)
        _conclude(self._result, scenario)
        self._logger.report_result(self._result)

    def _attach(self, step: TestStepResult, name: str, body: str, kind: AttachmentType) -> None:
        file = ATTACHMENT_PATTERN.format(prefix=uuid4(), ext=kind.extension)
        step.attachments.append(Attachment(name=name, source=file, type=kind.mime_type))
        self._logger.report_attached_data(body, file)


def _described(scenario: Any) -> TestResult:
    """Who a scenario is, before anything became of it. Its ids name it in the histories of earlier reports."""
    row = dict(zip(scenario._row.headings, scenario._row.cells, strict=True)) if scenario._row else {}
    feature, name = scenario.feature.name, scenario.name or scenario.keyword
    tags = tags_of(scenario)
    every = scenario.feature.walk_scenarios()
    before = sum(each.name == scenario.name and each.line < scenario.line for each in every)
    return TestResult(
        uuid=uuid4(),
        name=name,
        **identity(feature, name, 1 + before),
        titlePath=[*Path(scenario.filename).parts[:-1], feature],
        description="\n".join(scenario.description),
        parameters=[Parameter(key, value, excluded=True) for key, value in row.items()],
        links=[each for each in map(parse_tag, tags) if isinstance(each, Link)],
        labels=labels(location_of(scenario), feature, name, tags),
        start=now(),
    )


def _conclude(result: TestResult, scenario: Any) -> None:
    """Say what became of the scenario: what its verdict says, unless something failed after it."""
    trouble = _cleanup_error if scenario.status.name == "cleanup_error" else ""
    if scenario.hook_failed:
        trouble = scenario.error_message
    verdict = None if trouble and _verdict and _verdict.verdict != "failed" else _verdict
    result.stop = now()
    category = wording.category(verdict) if verdict else "skipped" if scenario.status == "skipped" else "suite"
    result.labels += blame_labels(category)
    ran_on = _ran_on(_parameters, scenario.effective_tags)
    # A row's cell of the same name is a word of the sentence; this is what it ran on.
    result.parameters = [each for each in result.parameters if each.name not in ran_on]
    result.parameters += [Parameter(name, value) for name, value in ran_on.items()]
    result.historyId = history_id(result.testCaseId, ran_on)
    broken = next((step for step in scenario.all_steps if _status(step) != Status.PASSED), None)
    stock = _details(broken) if broken else None
    if verdict:
        result.status = STATUSES[verdict.verdict]
        if verdict.verdict != "inconclusive":
            _forget_traces(result.steps)
        if verdict.verdict == "known_defect":
            _excuse(result.steps)
        traces = [stock.trace if stock and verdict.verdict == "inconclusive" else "", trouble]
        result.statusDetails = details(verdict, "\n\n".join(filter(None, traces)))
    elif trouble:
        result.status, result.statusDetails = Status.BROKEN, StatusDetails(message=trouble)
    elif scenario.status == "untested":
        result.status, result.statusDetails = Status.BROKEN, StatusDetails(message="did not run: behave was aborted")
    elif scenario.status == "skipped":
        result.status, result.statusDetails = Status.SKIPPED, StatusDetails(message=scenario.skip_reason)
    else:
        result.status, result.statusDetails = _status(broken) if broken else Status.PASSED, stock


def _status(step: Any) -> str:
    if step.exception:
        return Status.FAILED if isinstance(step.exception, AssertionError) else Status.BROKEN
    return _STEP_STATUSES.get(step.status.name, Status.BROKEN)


def _forget_traces(steps: Iterable[TestStepResult]) -> None:
    """Where in the suite's code a step broke down is not part of a verdict about Dynamo."""
    for step in steps:
        if step.statusDetails:
            step.statusDetails.trace = None


def _excuse(steps: Iterable[TestStepResult]) -> None:
    """The sentence in which a known defect showed is no failure either."""
    for step in steps:
        if step.status in (Status.FAILED, Status.BROKEN):
            step.status = STATUSES["known_defect"]


def _details(step: Any) -> StatusDetails | None:
    if isinstance(step.exception, AssertionError):
        return StatusDetails(message=str(step.exception) or "did not hold")
    if step.exception:
        trace = format_traceback(step.exc_traceback)
        return StatusDetails(message=format_exception(type(step.exception), step.exception), trace=trace)
    return StatusDetails(message=UNDEFINED) if step.status == "undefined" else None


UNDEFINED = "no step is defined for this sentence; `behave --steps-catalog` lists those that are"


def _as_csv(table: Any) -> str:
    with io.StringIO() as buffer:
        csv.writer(buffer).writerows([table.headings, *(row.cells for row in table.rows)])
        return buffer.getvalue()
